//! Nodes that run side by side in one thread, and stores with faults.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "so a test ends")]
#![expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use liner_mio::{Class, Event, Framing, HeapStore, Message, Mode, Node, SendError, Store};
use liner_proto::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A message as it was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    pub(crate) from: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) again: bool,
}

/// A node with what it has seen.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) node: Node,
    pub(crate) seen: Vec<Seen>,
    pub(crate) events: Vec<Event>,
}

impl Party {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, seen: Vec::new(), events: Vec::new() }
    }

    /// One turn that waits for a millisecond at most.
    pub(crate) fn turn(&mut self) {
        let seen = &mut self.seen;
        let mut keep = |message: &Message<'_>| seen.push(Seen::of(message));
        self.node.drive(Some(Duration::from_millis(1)), &mut keep).unwrap();
        while let Some(event) = self.node.poll_event() {
            self.events.push(event);
        }
    }

    /// Sends it, after as many turns as it takes until there is room.
    pub(crate) fn send(&mut self, topic: &str, payload: &[u8]) {
        let patience = Patience::new();
        while let Err(error) = self.node.send(topic, payload, Mode::One) {
            assert_eq!(error, SendError::Busy);
            patience.check();
            self.turn();
        }
    }

    pub(crate) fn payloads(&self) -> Vec<&[u8]> {
        self.seen.iter().map(|seen| &*seen.payload).collect()
    }
}

impl Seen {
    pub(crate) fn of(message: &Message<'_>) -> Self {
        Self {
            topic: message.topic.to_owned(),
            from: message.from.to_owned(),
            payload: message.payload.to_vec(),
            again: message.maybe_redelivered,
        }
    }
}

/// Gives every party turns until `done`.
pub(crate) fn run<const N: usize>(
    mut parties: [&mut Party; N],
    mut done: impl FnMut(&[&mut Party; N]) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    while !done(&parties) {
        assert!(Instant::now() < end, "waited in vain: {parties:?}");
        for party in &mut parties {
            party.turn();
        }
    }
}

/// Whether the time is over.
pub(crate) struct Patience(Instant);

impl Patience {
    pub(crate) fn new() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// Whether so much of it is used up.
    pub(crate) fn used(&self, part: Duration) -> bool {
        Instant::now() + PATIENCE >= self.0 + part
    }

    /// How much of it is used up.
    pub(crate) fn used_up(&self) -> Duration {
        PATIENCE.saturating_sub(self.0.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn check(&self) {
        assert!(Instant::now() < self.0, "waited in vain");
    }
}

/// How the store of a node is executed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    InPlace,
    OnWorker,
}

pub(crate) fn heap() -> Box<dyn Store + Send> {
    Box::new(HeapStore::new(256 * 1024 * 1024))
}

/// A node that subscribes to `topic` on a free port.
pub(crate) fn listener(name: &str, topic: &str, how: How) -> Party {
    let builder = Node::builder(name).listen("127.0.0.1:0", Framing::Length).subscribe(topic);
    let builder = match how {
        How::InPlace => builder.store(heap()),
        How::OnWorker => builder.store_on_worker(heap()),
    };
    Party::new(builder.build().unwrap())
}

/// A node that knows the other one's address.
pub(crate) fn talker(name: &str, to: &Party, how: How) -> Party {
    let builder = Node::builder(name).peer(&to.node.listen_addrs()[0].to_string());
    let builder = match how {
        How::InPlace => builder.store(heap()),
        How::OnWorker => builder.store_on_worker(heap()),
    };
    Party::new(builder.build().unwrap())
}

/// A store whose next commits fail, or panic.
pub(crate) struct Faulty {
    pub(crate) inner: HeapStore,
    pub(crate) switch: Arc<Switch>,
}

#[derive(Debug, Default)]
pub(crate) struct Switch {
    /// So many commits fail from now on.
    pub(crate) fails: AtomicU32,
    /// Those say that there is no room, and not that it is away.
    pub(crate) is_full: AtomicBool,
    /// Whether commits succeed and then say that nobody knows.
    pub(crate) unknown: AtomicU32,
    /// While somebody holds it, commits wait.
    pub(crate) gate: Mutex<()>,
    /// Whether the next commit panics.
    pub(crate) panics: AtomicU32,
    pub(crate) commits: AtomicU32,
}

impl Faulty {
    pub(crate) fn with_switch() -> (Box<dyn Store + Send>, Arc<Switch>) {
        let switch = Arc::new(Switch::default());
        (Box::new(Self { inner: HeapStore::new(256 * 1024 * 1024), switch: Arc::clone(&switch) }), switch)
    }
}

impl Store for Faulty {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.inner.recover(visit)
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        assert!(self.switch.panics.load(Ordering::Relaxed) == 0, "the store was told to panic");
        if self.switch.fails.load(Ordering::Relaxed) > 0 {
            self.switch.fails.fetch_sub(1, Ordering::Relaxed);
            let is_full = self.switch.is_full.load(Ordering::Relaxed);
            return Err(if is_full { StoreFault::Full } else { StoreFault::Unavailable });
        }
        self.inner.apply(group)
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        let _open = self.switch.gate.lock().unwrap();
        self.switch.commits.fetch_add(1, Ordering::Relaxed);
        self.inner.commit()?;
        if self.switch.unknown.load(Ordering::Relaxed) > 0 { Err(StoreFault::Unknown) } else { Ok(()) }
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.inner.load(queue, after, into)
    }

    fn last_error(&self) -> Option<&str> {
        Some("the disk is on strike")
    }
}
