//! Whole nodes in memory, in virtual time: each with a store that stays when the node is started anew.

#![allow(dead_code, reason = "no test needs all of it")]

pub(crate) mod device;
pub(crate) mod net;

use std::collections::BTreeMap;
use std::time::Duration;

use liner_proto::effect::{DeadReason, Recovered, StoreFault};
use liner_proto::id::{Class, ConnId};
use liner_proto::router::{
    Application, Event, Framing, Message, NodeConfig, Receipt, Router, Settle, StoreRequest,
};
use liner_proto::store::{self, HeapStore, Store, execute};
use liner_proto::time::Instant;

/// When a node begins.
pub(crate) const NOW: Instant = Instant::from_micros(1);

/// A lease, and a bit.
pub(crate) const LEASE: Duration = Duration::from_secs(16);

/// A node and what its application had: payloads, and whether they may have come before.
pub(crate) struct Node {
    pub(crate) router: Router,
    pub(crate) store: HeapStore,
    pub(crate) got: Vec<(Vec<u8>, bool)>,
    /// Receipts of what it had, if its application settles later.
    pub(crate) later: Option<Vec<Receipt>>,
    pub(crate) now: Instant,
    /// The name of a queue that the store cannot read.
    pub(crate) unreadable: Option<&'static str>,
    /// Milliseconds on the wall when the test begins; without it there is no clock.
    pub(crate) wall: Option<u64>,
    config: NodeConfig,
}

/// The application.
struct Taker<'a> {
    got: &'a mut Vec<(Vec<u8>, bool)>,
    later: &'a mut Option<Vec<Receipt>>,
}

impl Application for Taker<'_> {
    fn message(&mut self, message: &Message<'_>) {
        self.got.push((message.payload.to_vec(), message.maybe_redelivered));
    }

    fn take(&mut self, message: &Message<'_>) -> Settle {
        self.message(message);
        let Some(receipts) = &mut self.later else { return Settle::Now };
        receipts.push(message.receipt);
        Settle::Later
    }
}

/// What a store holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Messages by the queue they wait in.
    pub(crate) queues: BTreeMap<String, u64>,
    /// Peers of which there is a cursor.
    pub(crate) cursors: Vec<String>,
    /// Topics and the names of those who take them.
    pub(crate) rows: Vec<(String, String)>,
}

impl Node {
    pub(crate) fn start(name: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let seed = name.bytes().fold(3, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let mut config = NodeConfig::new(name, [seed, 5], Class::Ram);
        change(&mut config);
        let now = NOW;
        let router = Router::new(config.clone(), now);
        let store = HeapStore::new(1 << 26);
        let mut node =
            Self { router, store, got: Vec::new(), later: None, now, unreadable: None, wall: None, config };
        node.restart();
        node
    }

    /// A subscriber without a name of its own, who takes "t".
    pub(crate) fn subscriber(name: &str) -> Self {
        let mut node = Self::start(name, |_| {});
        node.router.subscribe(node.now, "t");
        node
    }

    /// Changes the configuration of its next life.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut NodeConfig)) {
        change(&mut self.config);
    }

    /// The process dies, and another one begins with its store.
    pub(crate) fn restart(&mut self) {
        self.config.seed[1] += 1;
        let passed = self.now.since(NOW).as_millis() as u64;
        self.config.wall_ms = self.wall.map_or(0, |wall| wall + passed);
        self.router = Router::new(self.config.clone(), self.now);
        let router = &mut self.router;
        self.store.recover(&mut |item: Recovered<'_>| router.restore(&item)).expect("in memory");
        let held = self.store.inbox().map(Option::unwrap_or_default);
        self.router.handle_inbox(self.now, held);
        self.router.start(self.now);
    }

    /// Answers one request for the store, if there is one.
    pub(crate) fn serve_one(&mut self) -> bool {
        match self.router.poll_store(self.now) {
            Some(StoreRequest::Commit(batch)) => {
                let outcome = execute(&mut self.store, &batch);
                self.router.handle_committed(self.now, batch.id(), outcome);
            }
            Some(StoreRequest::Load(load)) => {
                let (loaded, bytes) = if self.unreadable == Some(load.queue().name()) {
                    (Err(StoreFault::Unavailable), Vec::new())
                } else {
                    store::load(&mut self.store, &load)
                };
                self.router.handle_loaded(self.now, &load, loaded, &bytes);
            }
            None if self.router.poll_inbox(self.now) => {
                let held = self.store.inbox().map(Option::unwrap_or_default);
                self.router.handle_inbox(self.now, held);
            }
            None => return false,
        }
        true
    }

    pub(crate) fn serve(&mut self) {
        while self.serve_one() {}
    }

    /// Time passes for the node.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.router.handle_timeout(self.now);
        self.serve();
    }

    /// What the node writes on a connection now.
    pub(crate) fn give(&mut self, conn: ConnId) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let transmit = self.router.poll_transmit(self.now, conn);
            let len = transmit.len();
            if len == 0 {
                return out;
            }
            out.extend_from_slice(transmit.head);
            out.extend_from_slice(transmit.body);
            self.router.handle_written(self.now, conn, len);
        }
    }

    pub(crate) fn take(&mut self, conn: ConnId, mut bytes: Vec<u8>) {
        let mut application = Taker { got: &mut self.got, later: &mut self.later };
        let taken = self.router.handle_bytes(self.now, conn, &mut bytes, &mut application);
        assert_eq!(taken, bytes.len(), "whole frames are passed");
    }

    /// Closes the connections that the node wants closed.
    pub(crate) fn reap(&mut self) {
        while let Some(conn) = self.router.poll_close() {
            self.router.handle_closed(self.now, conn);
        }
        self.serve();
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.router.poll_event()).collect()
    }

    pub(crate) fn held(&self) -> Held {
        let mut held = Held::default();
        let mut note = |item: Recovered<'_>| match item {
            Recovered::Queue(queue) => {
                held.queues.insert(queue.queue.name().to_owned(), queue.messages);
            }
            Recovered::Cursor { peer, .. } => held.cursors.push(peer.to_owned()),
            Recovered::Subscription { topic, name, .. } => {
                held.rows.push((topic.to_owned(), name.to_owned()));
            }
            Recovered::Node { .. } | Recovered::Topic { .. } | _ => {}
        };
        self.store.clone().recover(&mut note).expect("in memory");
        held
    }

    pub(crate) fn dead(&self) -> Vec<DeadReason> {
        self.store.dead_letters().iter().map(|letter| letter.reason).collect()
    }
}

/// A gateway that knows so many names at most.
pub(crate) fn gateway(names_max: usize) -> Node {
    Node::start("gateway", |config| {
        config.takes_custody = true;
        config.names_max = names_max;
    })
}

/// `from` dials `to`; the connection on both sides.
pub(crate) fn link(from: &mut Node, to: &mut Node) -> (ConnId, ConnId) {
    link_with(from, to, Framing::Length)
}

pub(crate) fn link_with(from: &mut Node, to: &mut Node, framing: Framing) -> (ConnId, ConnId) {
    from.now = from.now.max(to.now);
    let dial = from.router.add_peer(from.now, "there");
    let _ = from.router.poll_dial(from.now);
    let here = from.router.handle_dialed(from.now, dial, framing);
    let there = to.router.handle_accepted(to.now, framing);
    (here, there)
}

/// Bytes and commits go to and fro until nothing is left to say.
pub(crate) fn settle(from: &mut Node, to: &mut Node, (here, there): (ConnId, ConnId)) {
    let mut more = true;
    while more {
        from.serve();
        to.serve();
        let (ahead, back) = (from.give(here), to.give(there));
        let wants = |node: &mut Node| core::iter::from_fn(|| node.router.poll_writable()).count() > 0;
        let wanted = wants(from) | wants(to);
        more = wanted || !(ahead.is_empty() && back.is_empty());
        to.take(there, ahead);
        from.take(here, back);
    }
}

/// The link between the two breaks.
pub(crate) fn cut(from: &mut Node, to: &mut Node, (here, there): (ConnId, ConnId)) {
    from.router.handle_closed(from.now, here);
    to.router.handle_closed(to.now, there);
    to.serve();
}

/// Connects the two, and lets them say what they have to.
pub(crate) fn meet(from: &mut Node, to: &mut Node) -> (ConnId, ConnId) {
    let line = link(from, to);
    settle(from, to, line);
    line
}
