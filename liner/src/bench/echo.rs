//! The other node, in a thread of its own: it takes messages, and answers those that ask for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use liner_mio::{Class, Framing, Message, Mode, Node};
use mio::Waker;

use super::{BACK, ONE_WAY, PATIENCE, RECEIVER, THERE, ignore};
use crate::failure::Failure;
use crate::node::{build, drive_failure, open, stop_failure};
use crate::store_url::StoreUrl;

/// How long it may sleep.
const SECOND: Duration = Duration::from_secs(1);

/// A node that runs until it is ended.
pub(super) struct Echo {
    thread: JoinHandle<Result<(), Failure>>,
    address: String,
    waker: Arc<Waker>,
    over: Arc<AtomicBool>,
}

impl Echo {
    pub(super) fn start(store: StoreUrl, class: Class) -> Result<Self, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let (ready, started) = sync_channel(1);
        let end = Arc::clone(&over);
        let thread = thread::Builder::new().name(RECEIVER.to_owned());
        let thread = thread.spawn(move || work(&store, class, &ready, &end));
        let thread = thread.map_err(|error| Failure::io("cannot start a thread", &error))?;
        match started.recv() {
            Ok((address, waker)) => Ok(Self { thread, address, waker, over }),
            Err(_) => Err(join(thread).err().unwrap_or_else(failed)),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        self.over.store(true, Ordering::Release);
        // Without it the node looks up within a second.
        let _ = self.waker.wake();
        join(self.thread)
    }
}

fn join(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|_| Err(failed()))
}

fn failed() -> Failure {
    Failure::Work("the receiver's thread has failed: start the program again".to_owned())
}

fn work(
    store: &StoreUrl,
    class: Class,
    ready: &SyncSender<(String, Arc<Waker>)>,
    over: &AtomicBool,
) -> Result<(), Failure> {
    let builder = Node::builder(RECEIVER).durable(true).subscribe(ONE_WAY).subscribe(THERE);
    let builder = builder.store_on_worker(open(store, RECEIVER, Some(class))?);
    let mut node = build(builder.listen("127.0.0.1:0", Framing::Length))?;
    let address = node.listen_addrs().iter().map(ToString::to_string).collect();
    let _ = ready.send((address, node.waker()));
    let mut asked: Vec<Vec<u8>> = Vec::new();
    while !over.load(Ordering::Acquire) {
        let mut take = |message: &Message<'_>| {
            if message.topic == THERE {
                asked.push(message.payload.to_vec());
            }
        };
        node.drive(Some(SECOND), &mut take).map_err(|error| drive_failure(&error))?;
        while node.poll_event().is_some() {}
        for payload in asked.drain(..) {
            // One at a time is asked: there is room.
            node.send(BACK, &payload, Mode::One).map_err(|error| Failure::Work(error.to_string()))?;
        }
    }
    node.stop(PATIENCE, &mut ignore).map_err(|error| stop_failure(&error))
}
