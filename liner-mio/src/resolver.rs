//! Looks hosts' names up beside the loop: it may take many seconds, and everything else would wait for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;

use crate::builder::resolve;
use crate::link::Target;

/// An address to dial, and what it stands for; nothing if that could not be found out.
pub(crate) type Found = (Target, VecDeque<SocketAddr>);

/// The loop's side of the threads that look names up: one for each look-up, and one look-up at a time for each address, so
/// that a name server that does not answer holds up nobody else.
#[derive(Debug)]
pub(crate) struct Resolver {
    waker: Arc<Waker>,
    answers: Sender<Found>,
    found: Receiver<Found>,
}

impl Resolver {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (answers, found) = channel();
        Self { waker, answers, found }
    }

    /// Asks what an address stands for. Gives the answer if that needs no look-up; else [`take`](Self::take) will.
    pub(crate) fn ask(&self, target: Target, address: &str) -> Option<Found> {
        if let Ok(numeric) = address.parse() {
            return Some((target, VecDeque::from([numeric])));
        }
        let (answers, waker, address) = (self.answers.clone(), Arc::clone(&self.waker), address.to_owned());
        let look_up = move || {
            // The node may be gone by now.
            let _ = answers.send((target, resolve(&address).unwrap_or_default()));
            let _ = waker.wake();
        };
        let started = std::thread::Builder::new().name("liner-lookup".to_owned()).spawn(look_up);
        if started.is_ok() { None } else { Some((target, VecDeque::new())) }
    }

    /// The next answer, if there is one.
    pub(crate) fn take(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }
}
