//! Two nodes in memory, with stores that can be slow, and a look at what passes between them.

use core::ops::Range;
use std::collections::VecDeque;

use liner_proto::effect::{Batch, DeadReason, GapReason, Recovered, StoreOp};
use liner_proto::frame::{cobs, length};
use liner_proto::id::{Class, ConnId, SessionId};
use liner_proto::router::{Event, Framing, Message, NodeConfig, Router, SendError, StoreRequest};
use liner_proto::seal;
use liner_proto::store::{HeapStore, Store, execute};
use liner_proto::time::Instant;
use liner_proto::wire::record::{Mode, Record, Topic};
use liner_proto::wire::{self, Body};

pub(crate) const NOW: Instant = Instant::from_micros(1);

/// What a batch asks for, as far as it is spoken of here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Letter { peer: String, topic: String, reason: DeadReason },
    Drop(u64, GapReason),
}

pub(crate) struct Node {
    pub(crate) router: Router,
    pub(crate) store: HeapStore,
    pub(crate) conn: Option<ConnId>,
    /// Batches that are executed, and not answered as long as the store is slow.
    pub(crate) slow: bool,
    pub(crate) unanswered: VecDeque<Batch>,
    pub(crate) asked: Vec<Vec<Asked>>,
    pub(crate) got: Vec<(String, Vec<u8>)>,
}

impl Node {
    pub(crate) fn start(name: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::new(name, [3, name.len() as u64], Class::Ram);
        config.durable = true;
        change(&mut config);
        let mut router = Router::new(config, NOW);
        router.start(NOW);
        Self {
            router,
            store: HeapStore::new(1 << 24),
            conn: None,
            slow: false,
            unanswered: VecDeque::new(),
            asked: Vec::new(),
            got: Vec::new(),
        }
    }

    /// Another process on the same store.
    pub(crate) fn restart(&mut self, change: impl FnOnce(&mut NodeConfig)) {
        let mut config = self.router.config().clone();
        config.seed[0] += 1;
        config.instance += 1;
        change(&mut config);
        let mut router = Router::new(config, NOW);
        self.store.recover(&mut |item: Recovered<'_>| router.restore(&item)).expect("in memory");
        router.start(NOW);
        (self.router, self.conn) = (router, None);
        self.unanswered.clear();
        self.slow = false;
    }

    pub(crate) fn serve(&mut self) {
        while let Some(request) = self.router.poll_store(NOW) {
            match request {
                StoreRequest::Commit(batch) => {
                    self.note(&batch);
                    self.unanswered.push_back(batch);
                    if !self.slow {
                        self.answer();
                    }
                }
                StoreRequest::Load(load) => {
                    let mut buffer = vec![0; 65_536];
                    let result = self.store.load(load.queue(), load.after(), &mut buffer);
                    self.router.handle_loaded(NOW, &load, result, &buffer);
                }
            }
        }
    }

    /// The store commits what it was asked for.
    pub(crate) fn answer(&mut self) {
        while let Some(batch) = self.unanswered.pop_front() {
            let outcome = execute(&mut self.store, &batch);
            self.router.handle_committed(NOW, batch.id(), outcome);
        }
    }

    pub(crate) fn note(&mut self, batch: &Batch) {
        let each = |group: &[StoreOp<'_>]| {
            let asked = group.iter().filter_map(|op| {
                if let StoreOp::DeadLetter { peer, topic, reason, .. } = *op {
                    return Some(Asked::Letter { peer: peer.into(), topic: topic.into(), reason });
                }
                let StoreOp::Drop { through, reason, .. } = *op else { return None };
                Some(Asked::Drop(through, reason))
            });
            self.asked.push(asked.collect());
            Ok::<(), ()>(())
        };
        batch.try_each_group(each).expect("nothing fails in it");
        self.asked.retain(|group| !group.is_empty());
    }

    pub(crate) fn give(&mut self) -> Vec<u8> {
        self.serve();
        let mut out = Vec::new();
        let Some(conn) = self.conn else { return out };
        loop {
            let transmit = self.router.poll_transmit(NOW, conn);
            let len = transmit.len();
            if len == 0 {
                break;
            }
            out.extend_from_slice(transmit.head);
            out.extend_from_slice(transmit.body);
            self.router.handle_written(NOW, conn, len);
        }
        self.serve();
        out
    }

    pub(crate) fn take(&mut self, mut bytes: Vec<u8>) {
        let Some(conn) = self.conn else { return };
        let got = &mut self.got;
        let mut application =
            |message: &Message<'_>| got.push((message.topic.into(), message.payload.to_vec()));
        let taken = self.router.handle_bytes(NOW, conn, &mut bytes, &mut application);
        assert_eq!(taken, bytes.len(), "whole frames are passed");
        self.serve();
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.router.poll_event()).collect()
    }

    pub(crate) fn letters(&self) -> Vec<(&str, &str, DeadReason)> {
        self.store.dead_letters().iter().map(|dead| (&*dead.peer, &*dead.topic, dead.reason)).collect()
    }

    pub(crate) fn hang_up(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.router.handle_closed(NOW, conn);
        }
    }
}

/// Two nodes and the link between them. The one that dials is `from`.
pub(crate) struct Pair {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) framing: Framing,
    /// Every record that `from` has sent.
    pub(crate) records: Vec<OwnedRecord>,
    /// The longest frame that `from` has sent.
    pub(crate) longest: usize,
    /// Pieces of records that `from` has sent.
    pub(crate) pieces: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedRecord {
    Number(u32),
    Text(String),
    Gap(GapReason, u64),
}

impl Pair {
    pub(crate) fn new(from: Node, to: Node) -> Self {
        Self { from, to, framing: Framing::Length, records: Vec::new(), longest: 0, pieces: 0 }
    }

    pub(crate) fn link(&mut self) {
        self.from.hang_up();
        self.to.hang_up();
        let dial = self.from.router.add_peer(NOW, "there");
        let _ = self.from.router.poll_dial(NOW);
        self.from.conn = Some(self.from.router.handle_dialed(NOW, dial, self.framing));
        self.to.conn = Some(self.to.router.handle_accepted(NOW, self.framing));
        self.settle();
    }

    pub(crate) fn settle(&mut self) {
        for _ in 0..40 {
            let bytes = self.from.give();
            self.watch(&bytes);
            self.to.take(bytes);
            let bytes = self.to.give();
            self.from.take(bytes);
        }
        for node in [&mut self.from, &mut self.to] {
            while let Some(conn) = node.router.poll_close() {
                node.router.handle_closed(NOW, conn);
                node.conn = None;
            }
        }
    }

    /// Notes what `from` sends.
    pub(crate) fn watch(&mut self, bytes: &[u8]) {
        let mut rest = bytes.to_vec();
        while let Some((frame, consumed)) = split(self.framing, &mut rest) {
            self.longest = self.longest.max(frame.len());
            let body = rest.get(frame.start + seal::LEN..frame.end).unwrap_or_default();
            let body = wire::decode(body).expect("a body");
            if let Body::Batch(batch) = body {
                self.records.extend(batch.records().map(|item| owned(&item.expect("a record").record)));
            } else if let Body::Data(data) = body {
                self.records.push(owned(&data.record.decode().expect("a record")));
            } else if let Body::Fragment(_) = body {
                self.pieces += 1;
            }
            rest.drain(..consumed);
        }
    }

    pub(crate) fn gaps(&self) -> Vec<(GapReason, u64)> {
        let gaps = self.records.iter().filter_map(|record| match record {
            OwnedRecord::Gap(reason, count) => Some((*reason, *count)),
            OwnedRecord::Number(_) | OwnedRecord::Text(_) => None,
        });
        gaps.collect()
    }

    pub(crate) fn send(&mut self, topic: &str, payload: &[u8]) {
        if self.from.router.send(NOW, topic, payload, Mode::One) == Err(SendError::Busy) {
            self.from.serve();
            self.from.router.send(NOW, topic, payload, Mode::One).expect("it is taken");
        }
    }

    pub(crate) fn payloads(&self) -> Vec<usize> {
        self.to.got.iter().map(|(_, payload)| payload.len()).collect()
    }
}

/// The frame at the front of what was written, and the bytes that it takes.
pub(crate) fn split(framing: Framing, bytes: &mut [u8]) -> Option<(Range<usize>, usize)> {
    match framing {
        Framing::Length => {
            let split = length::split(bytes, 1 << 20).expect("a frame")?;
            Some((split.frame, split.consumed))
        }
        Framing::Cobs => {
            let cobs::CobsSplit::Frame { frame, consumed } = cobs::split(bytes, 1 << 20) else { return None };
            Some((frame, consumed))
        }
    }
}

pub(crate) fn owned(record: &Record<'_>) -> OwnedRecord {
    match record {
        Record::Gap { reason, count } => OwnedRecord::Gap(*reason, *count),
        Record::Message { header, .. } => match header.topic {
            Topic::Number(number) => OwnedRecord::Number(number),
            Topic::Text(text) => OwnedRecord::Text(text.into()),
        },
    }
}

pub(crate) fn small(max: u32) -> impl Fn(&mut NodeConfig) {
    move |config| config.limits.message_max = max
}

pub(crate) fn subscriber(topics: &[&str], change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut node = Node::start("screen", change);
    for topic in topics {
        node.router.subscribe(NOW, topic);
    }
    node
}

/// The answer of a handshake, with another limit in it.
pub(crate) fn with_message_max(framing: Framing, mut answer: Vec<u8>, max: u32) -> Vec<u8> {
    // On a line a zero comes first.
    answer.drain(..usize::from(framing == Framing::Cobs));
    let (frame, _) = split(framing, &mut answer).expect("a frame");
    let Ok(Body::Answer(mut said)) = wire::decode(&answer[frame.start + seal::LEN..frame.end]) else {
        panic!("no answer")
    };
    said.about.message_max = max;
    let mut body = [0; 1024];
    let len = wire::encode(&Body::Answer(said), &mut body).expect("room");
    let crc = seal::seal(SessionId::HANDSHAKE, &[&body[..len]]);
    match framing {
        Framing::Length => [&length::head(len + seal::LEN).expect("short")[..], &crc, &body[..len]].concat(),
        Framing::Cobs => {
            let mut out = vec![0; 2048];
            let len = cobs::encode(&[&crc, &body[..len]], &mut out).expect("room");
            out.truncate(len);
            out
        }
    }
}
