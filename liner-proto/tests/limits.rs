//! Peers that take less than this node sends: shorter records, fewer topic numbers.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use std::collections::VecDeque;

use liner_proto::delivery::SendMode;
use liner_proto::effect::{Batch, DeadReason, GapReason, Queue, Recovered, StoreOp};
use liner_proto::frame::{cobs, length};
use liner_proto::id::{Class, ConnId, SessionId};
use liner_proto::router::{Event, Framing, Message, NodeConfig, Router, SendError, StoreRequest};
use liner_proto::seal;
use liner_proto::store::{HeapStore, Store, execute};
use liner_proto::time::Instant;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::{Mode, Record, Topic};
use liner_proto::wire::{self, Body};

const NOW: Instant = Instant::from_micros(1);

/// What a batch asks for, as far as it is spoken of here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Letter { peer: String, topic: String, reason: DeadReason },
    Drop(u64, GapReason),
}

struct Node {
    router: Router,
    store: HeapStore,
    conn: Option<ConnId>,
    /// Batches that are executed, and not answered as long as the store is slow.
    slow: bool,
    unanswered: VecDeque<Batch>,
    asked: Vec<Vec<Asked>>,
    got: Vec<(String, Vec<u8>)>,
}

impl Node {
    fn start(name: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
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
    fn restart(&mut self, change: impl FnOnce(&mut NodeConfig)) {
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

    fn serve(&mut self) {
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
    fn answer(&mut self) {
        while let Some(batch) = self.unanswered.pop_front() {
            let outcome = execute(&mut self.store, &batch);
            self.router.handle_committed(NOW, batch.id(), outcome);
        }
    }

    fn note(&mut self, batch: &Batch) {
        let each = |group: &[StoreOp<'_>]| {
            let asked = group.iter().filter_map(|op| match op {
                StoreOp::DeadLetter { peer, topic, reason, .. } => {
                    Some(Asked::Letter { peer: (*peer).into(), topic: (*topic).into(), reason: *reason })
                }
                StoreOp::Drop { through, reason, .. } => Some(Asked::Drop(*through, *reason)),
                _ => None,
            });
            self.asked.push(asked.collect());
            Ok::<(), ()>(())
        };
        batch.try_each_group(each).expect("nothing fails in it");
        self.asked.retain(|group| !group.is_empty());
    }

    fn give(&mut self) -> Vec<u8> {
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

    fn take(&mut self, mut bytes: Vec<u8>) {
        let Some(conn) = self.conn else { return };
        let got = &mut self.got;
        let mut application =
            |message: &Message<'_>| got.push((message.topic.into(), message.payload.to_vec()));
        let taken = self.router.handle_bytes(NOW, conn, &mut bytes, &mut application);
        assert_eq!(taken, bytes.len(), "whole frames are passed");
        self.serve();
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.router.poll_event()).collect()
    }

    fn letters(&self) -> Vec<(&str, &str, DeadReason)> {
        self.store.dead_letters().iter().map(|dead| (&*dead.peer, &*dead.topic, dead.reason)).collect()
    }

    fn hang_up(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.router.handle_closed(NOW, conn);
        }
    }
}

/// Two nodes and the link between them. The one that dials is `from`.
struct Pair {
    from: Node,
    to: Node,
    framing: Framing,
    /// Every record that `from` has sent, as it stood on the wire, with the length that it takes of the window.
    records: Vec<(OwnedRecord, usize)>,
    /// The longest frame that `from` has sent.
    longest: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedRecord {
    Number(u32),
    Text(String),
    Gap(GapReason, u64),
}

impl Pair {
    fn new(from: Node, to: Node) -> Self {
        Self { from, to, framing: Framing::Length, records: Vec::new(), longest: 0 }
    }

    fn link(&mut self) {
        self.from.hang_up();
        self.to.hang_up();
        let dial = self.from.router.add_peer(NOW, "there");
        let _ = self.from.router.poll_dial(NOW);
        self.from.conn = Some(self.from.router.handle_dialed(NOW, dial, self.framing));
        self.to.conn = Some(self.to.router.handle_accepted(NOW, self.framing));
        self.settle();
    }

    fn settle(&mut self) {
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

    fn watch(&mut self, bytes: &[u8]) {
        let mut rest = bytes.to_vec();
        loop {
            let (frame, consumed) = match self.framing {
                Framing::Length => match length::split(&rest, 1 << 20).expect("a frame") {
                    Some(split) => (split.frame, split.consumed),
                    None => return,
                },
                Framing::Cobs => match cobs::split(&mut rest, 1 << 20) {
                    cobs::CobsSplit::Frame { frame, consumed } => (frame, consumed),
                    _ => return,
                },
            };
            self.longest = self.longest.max(frame.len());
            let body = rest.get(frame.start + seal::LEN..frame.end).unwrap_or_default();
            let mut note = |record: Record<'_>, len| self.records.push((owned(&record), len));
            match wire::decode(body).expect("a body") {
                Body::Batch(batch) => {
                    for item in batch.records() {
                        let item = item.expect("a record");
                        note(item.record, item.taken);
                    }
                }
                Body::Data(data) => note(data.record.decode().expect("a record"), data.record.len()),
                _ => {}
            }
            rest.drain(..consumed);
        }
    }

    fn gaps(&self) -> Vec<(GapReason, u64)> {
        let gaps = self.records.iter().filter_map(|(record, _)| match record {
            OwnedRecord::Gap(reason, count) => Some((*reason, *count)),
            OwnedRecord::Number(_) | OwnedRecord::Text(_) => None,
        });
        gaps.collect()
    }

    fn send(&mut self, topic: &str, payload: &[u8]) {
        self.from.router.send(NOW, topic, payload, Mode::One).expect("it is taken");
    }

    fn payloads(&self) -> Vec<usize> {
        self.to.got.iter().map(|(_, payload)| payload.len()).collect()
    }
}

fn owned(record: &Record<'_>) -> OwnedRecord {
    match record {
        Record::Gap { reason, count } => OwnedRecord::Gap(*reason, *count),
        Record::Message { header, .. } => match header.topic {
            Topic::Number(number) => OwnedRecord::Number(number),
            Topic::Text(text) => OwnedRecord::Text(text.into()),
        },
    }
}

fn small(max: u32) -> impl Fn(&mut NodeConfig) {
    move |config| config.limits.message_max = max
}

fn subscriber(topics: &[&str], change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut node = Node::start("screen", change);
    for topic in topics {
        node.router.subscribe(NOW, topic);
    }
    node
}

const LETTER: (&str, &str, DeadReason) = ("screen", "t", DeadReason::TooLarge);

fn put_aside(name: &str) -> Event {
    Event::DeadLetter { name: name.into(), topic: "t".into(), reason: DeadReason::TooLarge }
}

// ------------------------------------------------------------------ known at the send

#[test]
fn a_message_that_the_peer_does_not_take_is_refused_with_what_it_takes() {
    // A record here has a byte of flags and one for the topic's number.
    for (framing, change, max) in [
        (Framing::Length, Box::new(small(100)) as Box<dyn Fn(&mut NodeConfig)>, 98),
        // 32 for the head, 4 for the seal, 2 for the record's length.
        (Framing::Length, Box::new(|config| config.limits.frame_max = 2100), 2100 - 36 - 2 - 2),
        // 8 for the head, 4 for the seal.
        (Framing::Cobs, Box::new(|config| config.limits.frame_max = 2100), 2100 - 12 - 2),
    ] {
        let mut pair = Pair::new(Node::start("sender", |_| {}), subscriber(&["t"], change));
        pair.framing = framing;
        pair.link();
        for _ in 0..2 {
            let refused = pair.from.router.send(NOW, "t", &vec![1; max + 1], Mode::One);
            assert_eq!(refused, Err(SendError::TooLarge { max }), "{framing:?}");
            pair.send("t", &vec![1; max]);
            pair.settle();
            assert_eq!(pair.payloads().pop(), Some(max), "the longest one arrives");
            // What it said last holds while it is away, too.
            pair.to.hang_up();
            pair.from.hang_up();
            let refused = pair.from.router.send(NOW, "t", &vec![1; max + 1], Mode::All);
            assert_eq!(refused, Err(SendError::TooLarge { max }), "{framing:?}");
            pair.link();
        }
        assert!(pair.from.store.dead_letters().is_empty());
        assert_eq!(pair.from.router.queued(), 0);
    }
}

#[test]
fn a_frame_is_full_to_the_last_byte() {
    // Around a length that takes a byte more.
    for frame_max in 2048 + 36..2048 + 46 {
        let to = subscriber(&["t"], |config| config.limits.frame_max = frame_max);
        let mut pair = Pair::new(Node::start("sender", |_| {}), to);
        pair.link();
        let refused = pair.from.router.send(NOW, "t", &[1; 4000], Mode::One);
        let Err(SendError::TooLarge { max }) = refused else { panic!("{refused:?}") };
        assert_eq!(max, frame_max as usize - 36 - 2 - 2);
        pair.send("t", &vec![1; max]);
        pair.settle();
        assert_eq!(pair.payloads(), [max]);
        assert!(pair.longest <= frame_max as usize);
    }
}

#[test]
fn a_message_for_all_that_one_does_not_take_is_queued_for_none() {
    let mut sender = Node::start("sender", |_| {});
    for (name, max) in [("large", 60_000), ("small", 100)] {
        let mut to = Node::start(name, small(max));
        to.router.subscribe(NOW, "t");
        let mut pair = Pair::new(sender, to);
        pair.link();
        sender = pair.from;
        sender.hang_up();
    }
    assert_eq!(sender.router.send(NOW, "t", &[1; 99], Mode::All), Err(SendError::TooLarge { max: 98 }));
    assert_eq!(sender.router.queued(), 0);
    sender.router.send(NOW, "t", &[1; 98], Mode::All).expect("it fits both");
    assert_eq!((sender.router.queued_for("large"), sender.router.queued_for("small")), (1, 1));
}

#[test]
fn a_next_hop_that_takes_less_is_known_before_it_has_subscribed() {
    let mut pair = Pair::new(Node::start("sender", |_| {}), Node::start("gateway", small(100)));
    pair.link();
    // The topic is written out: 1 byte of flags, 2 of text, until it has a number.
    assert_eq!(
        pair.from.router.send(NOW, "t", &[1; 99], Mode::All),
        Err(SendError::TooLarge { max: 98 }),
        "for whoever is dialled"
    );
    pair.from.router.send(NOW, "t", &[1; 500], Mode::BestEffort).expect("nothing is promised");
    pair.settle();
    assert!(pair.from.conn.is_some(), "it is not sent to who would end the session for it");
}

// ------------------------------------------------------------------ when its turn comes

/// A gateway between a sender and a screen that takes 100 bytes.
struct Relay {
    sender: Node,
    gateway: Node,
    screen: Node,
}

impl Relay {
    fn new() -> Self {
        let gateway = Node::start("gateway", |config| config.takes_custody = true);
        Self { sender: Node::start("sender", |_| {}), gateway, screen: subscriber(&["t"], small(100)) }
    }

    /// The sender speaks to the gateway.
    fn first_hop(self, work: impl FnOnce(&mut Pair)) -> Self {
        let mut pair = Pair::new(self.sender, self.gateway);
        pair.link();
        work(&mut pair);
        pair.from.hang_up();
        pair.to.hang_up();
        Self { sender: pair.from, gateway: pair.to, screen: self.screen }
    }

    /// The gateway speaks to the screen.
    fn second_hop(self, work: impl FnOnce(&mut Pair)) -> Self {
        let mut pair = Pair::new(self.gateway, self.screen);
        pair.link();
        work(&mut pair);
        pair.from.hang_up();
        pair.to.hang_up();
        Self { sender: self.sender, gateway: pair.from, screen: pair.to }
    }
}

#[test]
fn custody_for_a_next_hop_that_takes_less_is_a_dead_letter_and_then_a_gap() {
    let relay = Relay::new().second_hop(|_| {}).first_hop(|pair| {
        for len in [10, 500, 501, 11, 502, 12] {
            pair.from.router.send(NOW, "t", &vec![1; len], Mode::All).expect("the gateway takes it");
        }
        pair.settle();
        assert_eq!(pair.from.router.queued(), 0, "custody is taken");
        assert_eq!(pair.to.router.queued_for("screen"), 6);
    });
    relay.second_hop(|pair| {
        assert_eq!(pair.payloads(), [10, 11, 12]);
        assert_eq!(pair.gaps(), [(GapReason::TooLarge, 2), (GapReason::TooLarge, 1)]);
        assert_eq!(pair.from.letters(), [LETTER; 3]);
        let told = pair.from.events().iter().filter(|event| **event == put_aside("screen")).count();
        assert_eq!(told, 3, "once for each");
        let heard = pair.to.events();
        for count in [1, 2] {
            let gap = Event::Gap { from: "gateway".into(), count, reason: GapReason::TooLarge };
            assert!(heard.contains(&gap), "{heard:?}");
        }
        assert_eq!(pair.from.router.queued(), 0);
    });
}

/// A sender that has queued messages for a screen it knew as one that takes them, and a screen that takes less now.
fn queued_for_a_screen_that_shrank(mode: SendMode, lens: &[usize]) -> Pair {
    let sender = Node::start("sender", |config| config.send_mode = mode);
    let mut pair = Pair::new(sender, subscriber(&["t"], |_| {}));
    pair.link();
    pair.from.hang_up();
    pair.to.hang_up();
    for len in lens {
        pair.send("t", &vec![1; *len]);
    }
    pair.from.serve();
    pair.to.restart(small(100));
    pair.to.router.subscribe(NOW, "t");
    pair
}

#[test]
fn the_gap_is_told_after_the_dead_letter_is_committed() {
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[10, 500, 11]);
    pair.link();
    assert_eq!((pair.payloads(), pair.gaps()), (vec![10, 11], vec![(GapReason::TooLarge, 1)]));

    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500, 11]);
    pair.from.slow = true;
    pair.link();
    let letter = Asked::Letter { peer: "screen".into(), topic: "t".into(), reason: DeadReason::TooLarge };
    let group = vec![letter, Asked::Drop(1, GapReason::TooLarge)];
    assert_eq!(pair.from.asked, [group], "one group: in the queue, or among the dead letters");
    assert_eq!((pair.payloads(), pair.gaps()), (vec![], vec![]), "nothing is told before");
    assert!(!pair.from.events().contains(&put_aside("screen")));
    pair.from.slow = false;
    pair.from.answer();
    pair.settle();
    assert_eq!((pair.payloads(), pair.gaps()), (vec![11], vec![(GapReason::TooLarge, 1)]));
    assert_eq!(pair.from.letters(), [LETTER]);
    assert!(pair.from.events().contains(&put_aside("screen")));
}

#[test]
fn what_was_only_in_memory_is_stored_before_it_is_put_aside() {
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Asynchronous, &[500, 11, 501]);
    pair.link();
    assert_eq!(pair.payloads(), [11]);
    assert_eq!(pair.from.letters(), [LETTER; 2]);
    assert_eq!((pair.from.router.queued(), pair.gaps().len()), (0, 2));
}

#[test]
fn a_restart_finds_the_message_in_the_queue_or_among_the_dead_letters() {
    // Before the commit.
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500, 11]);
    pair.from.slow = true;
    pair.link();
    pair.from.restart(|_| {});
    assert_eq!((pair.from.store.queued(Queue::Node("screen")).0, pair.from.letters().len()), (2, 0));
    pair.link();
    assert_eq!((pair.payloads(), pair.from.letters()), (vec![11], vec![LETTER]));
    assert_eq!(pair.gaps(), [(GapReason::TooLarge, 1)]);

    // After it, before anything was told.
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500, 11]);
    pair.from.slow = true;
    pair.link();
    let batch = pair.from.unanswered.pop_front().expect("it was asked for");
    assert_eq!(execute(&mut pair.from.store, &batch).fault, None);
    assert_eq!((pair.from.store.queued(Queue::Node("screen")).0, pair.from.letters().len()), (1, 1));
    pair.from.restart(|_| {});
    pair.link();
    assert_eq!((pair.payloads(), pair.from.letters()), (vec![11], vec![LETTER]));
    assert_eq!(pair.gaps(), [(GapReason::TooLarge, 1)], "the gap is told all the same");
    assert_eq!(pair.from.router.queued(), 0);
}

#[test]
fn a_store_that_fails_is_asked_again() {
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500, 11]);
    pair.from.slow = true;
    pair.link();
    let batch = pair.from.unanswered.pop_front().expect("it was asked for");
    let failed =
        liner_proto::effect::Outcome { groups: 0, fault: Some(liner_proto::effect::StoreFault::Unavailable) };
    pair.from.router.handle_committed(NOW, batch.id(), failed);
    pair.from.slow = false;
    pair.settle();
    assert_eq!((pair.payloads(), pair.gaps()), (vec![], vec![]));
    let later = NOW + liner_proto::time::Duration::from_secs(1);
    pair.from.router.handle_timeout(later);
    pair.settle();
    assert_eq!((pair.payloads(), pair.from.letters()), (vec![11], vec![LETTER]));
}

#[test]
fn a_peer_that_takes_more_again_gets_what_was_not_put_aside_yet() {
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500, 11]);
    pair.to.restart(|config| config.limits.message_max = 60_000);
    pair.to.router.subscribe(NOW, "t");
    pair.link();
    assert_eq!((pair.payloads(), pair.from.letters().len()), (vec![500, 11], 0));
}

#[test]
fn without_room_for_dead_letters_the_stream_holds_and_says_so() {
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500; 10_000]);
    pair.send("t", &[1; 502]);
    pair.send("t", &[1; 11]);
    let full = Event::DeadLettersFull { name: "screen".into() };
    let mut told = 0;
    for _ in 0..10 {
        pair.link();
        told += pair.from.events().iter().filter(|event| **event == full).count();
    }
    assert_eq!(told, 1);
    assert_eq!(pair.from.letters().len(), 10_000);
    assert_eq!(
        (pair.from.router.queued(), pair.payloads()),
        (2, vec![]),
        "nothing is lost, nothing overtakes"
    );
    pair.from.restart(|_| {});
    pair.link();
    assert_eq!((pair.from.router.queued(), pair.payloads()), (0, vec![11]));
}

/// The answer of a handshake, with another limit in it.
fn with_message_max(framing: Framing, mut answer: Vec<u8>, max: u32) -> Vec<u8> {
    let frame = match framing {
        Framing::Length => length::split(&answer, 2048).expect("a frame").expect("whole").frame,
        Framing::Cobs => match cobs::split(&mut answer, 2048) {
            cobs::CobsSplit::Frame { frame, .. } => frame,
            other => panic!("{other:?}"),
        },
    };
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

#[test]
fn a_record_that_is_longer_than_this_node_takes_ends_the_session() {
    for framing in [Framing::Length, Framing::Cobs] {
        let mut pair = Pair::new(Node::start("sender", |_| {}), subscriber(&["t"], small(100)));
        pair.framing = framing;
        let dial = pair.from.router.add_peer(NOW, "there");
        let _ = pair.from.router.poll_dial(NOW);
        pair.from.conn = Some(pair.from.router.handle_dialed(NOW, dial, framing));
        pair.to.conn = Some(pair.to.router.handle_accepted(NOW, framing));
        let hello = pair.from.give();
        pair.to.take(hello);
        let answer = pair.to.give();
        pair.from.take(with_message_max(framing, answer, 1000));
        pair.settle();
        for len in [10, 500, 11] {
            pair.send("t", &vec![1; len]);
        }
        pair.settle();
        assert_eq!(pair.payloads(), [10], "{framing:?}: what was in order before it is taken, and no more");
        let down = Event::PeerDown { name: "sender".into(), reason: CloseReason::Violation };
        assert!(pair.to.events().contains(&down), "{framing:?}");
        let told = Event::PeerDown { name: "screen".into(), reason: CloseReason::Violation };
        assert!(pair.from.events().contains(&told), "{framing:?}");
    }
}

// ------------------------------------------------------------------ topic numbers

#[test]
fn topics_above_the_numbers_that_a_peer_keeps_are_written_out() {
    const TOPICS: [&str; 5] = ["topic/a", "topic/b", "topic/c", "topic/d", "topic/e"];
    for framing in [Framing::Length, Framing::Cobs] {
        for bindings in [0, 1, 2] {
            let mut pair = Pair::new(Node::start("sender", |_| {}), Node::start("screen", |_| {}));
            pair.framing = framing;
            for topic in TOPICS {
                pair.to.router.subscribe(NOW, topic);
            }
            pair.link();
            pair.from.hang_up();
            pair.to.hang_up();
            // The queue gives out numbers before the peer says that it keeps so few.
            for round in 0..3_u8 {
                for topic in TOPICS {
                    pair.send(topic, &[round; 30]);
                }
            }
            pair.from.serve();
            pair.to.restart(|config| {
                config.limits.bindings_max = bindings;
                if framing == Framing::Length {
                    // Two records with their lengths, as they stand on the wire.
                    config.limits.window_bytes = 80;
                }
            });
            for topic in TOPICS {
                pair.to.router.subscribe(NOW, topic);
            }
            pair.link();
            let expected: Vec<(String, Vec<u8>)> = (0..3_u8)
                .flat_map(|round| TOPICS.map(|topic| (topic.to_string(), vec![round; 30])))
                .collect();
            assert_eq!(pair.to.got, expected, "{framing:?}, {bindings} numbers");
            for (index, (record, _)) in pair.records.iter().enumerate() {
                let number = index as u32 % 5 + 1;
                let spelled = if number <= bindings {
                    OwnedRecord::Number(number)
                } else {
                    OwnedRecord::Text(TOPICS[index % 5].into())
                };
                assert_eq!(*record, spelled, "{framing:?}, {bindings} numbers");
            }
            let events = [pair.from.events(), pair.to.events()].concat();
            let broken = events.iter().find(
                |event| matches!(event, Event::PeerDown { reason, .. } if *reason != CloseReason::LinkLost),
            );
            assert_eq!(broken, None, "{framing:?}, {bindings} numbers");
            assert_eq!(pair.from.router.queued(), 0);
        }
    }
}

#[test]
fn a_topic_that_is_written_out_counts_against_what_the_peer_takes() {
    let topic = "x".repeat(60);
    for (len, arrives) in [(37, true), (40, false)] {
        let mut pair = Pair::new(Node::start("sender", |_| {}), subscriber(&["y", &topic], |_| {}));
        pair.link();
        pair.from.hang_up();
        pair.to.hang_up();
        pair.send(&topic, &vec![1; len]);
        pair.from.serve();
        pair.to.restart(|config| {
            config.limits.bindings_max = 0;
            config.limits.message_max = 100;
        });
        pair.to.router.subscribe(NOW, &topic);
        pair.link();
        assert_eq!((pair.payloads().len() == 1, pair.from.letters().len() == 1), (arrives, !arrives));
        let refused = pair.from.router.send(NOW, &topic, &[1; 40], Mode::One);
        assert_eq!(refused, Err(SendError::TooLarge { max: 38 }));
        let dead = pair.from.store.dead_letters().first().map(|dead| dead.topic.to_string());
        assert_eq!(dead, (!arrives).then(|| topic.clone()), "with its text");
    }
}
