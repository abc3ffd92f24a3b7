//! Looks hosts' names up beside the loop: it may take many seconds, and everything else would wait for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use liner_proto::router::DialId;
use mio::Waker;

use crate::builder::resolve;

/// An address to dial, and what it stands for; nothing if that could not be found out.
pub(crate) type Found = (DialId, VecDeque<SocketAddr>);

/// The loop's side of the thread that looks names up, which is started for the first of them.
#[derive(Debug)]
pub(crate) struct Resolver {
    waker: Arc<Waker>,
    thread: Option<Thread>,
}

/// The thread ends with it, or with the look-up that it is busy with then.
#[derive(Debug)]
struct Thread {
    /// Bounded: each address is asked for again only after its answer.
    names: Sender<(DialId, String)>,
    found: Receiver<Found>,
}

impl Resolver {
    pub(crate) const fn new(waker: Arc<Waker>) -> Self {
        Self { waker, thread: None }
    }

    /// Asks what an address stands for. Gives the answer if that needs no look-up; else [`take`](Self::take) will.
    pub(crate) fn ask(&mut self, dial: DialId, address: &str) -> Option<Found> {
        if let Ok(numeric) = address.parse() {
            return Some((dial, VecDeque::from([numeric])));
        }
        if self.thread.is_none() {
            self.thread = Thread::start(Arc::clone(&self.waker)).ok();
        }
        let name = (dial, address.to_owned());
        let asked = self.thread.as_ref().is_some_and(|thread| thread.names.send(name).is_ok());
        if asked { None } else { Some((dial, VecDeque::new())) }
    }

    /// The next answer, if there is one.
    pub(crate) fn take(&self) -> Option<Found> {
        self.thread.as_ref()?.found.try_recv().ok()
    }
}

impl Thread {
    fn start(waker: Arc<Waker>) -> std::io::Result<Self> {
        let (names, asked) = channel::<(DialId, String)>();
        let (answers, found) = channel();
        let work = move || {
            while let Ok((dial, address)) = asked.recv() {
                let addresses = resolve(&address).unwrap_or_default();
                if answers.send((dial, addresses)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("liner-lookup".to_owned()).spawn(work)?;
        Ok(Self { names, found })
    }
}
