//! Peers that take less than this node sends: shorter records, fewer topic numbers.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod bindings;
mod pair;

use liner_proto::delivery::SendMode;
use liner_proto::effect::{DeadReason, GapReason, Outcome, Queue, StoreFault};
use liner_proto::router::{Event, Framing, NodeConfig, SendError};
use liner_proto::store::execute;
use liner_proto::time::Duration;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;

use pair::{Asked, NOW, Node, Pair, small, subscriber, with_message_max};

const LETTER: (&str, &str, DeadReason) = ("screen", "t", DeadReason::TooLarge);

fn put_aside(count: u64) -> Event {
    Event::DeadLetter { name: "screen".into(), topic: "t".into(), reason: DeadReason::TooLarge, count }
}

fn long_in_short_frames(config: &mut NodeConfig) {
    (config.limits.message_max, config.limits.frame_max) = (5000, 192);
}

// ------------------------------------------------------------------ known at the send

#[test]
fn a_message_that_the_peer_does_not_take_is_refused_with_what_it_takes() {
    // A record here has a byte of flags and one for the topic's number.
    for (framing, change, max) in [
        (Framing::Length, Box::new(small(100)) as Box<dyn Fn(&mut NodeConfig)>, 98),
        // In pieces, so that only the length of the message counts.
        (Framing::Length, Box::new(long_in_short_frames), 4998),
        (Framing::Cobs, Box::new(long_in_short_frames), 4998),
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
    // Around a length that takes a byte more: 32 for the head, 4 for the seal, 2 for the record's length and 2 for its own head.
    for frame_max in 2048 + 36..2048 + 46 {
        let to = subscriber(&["t"], |config| config.limits.frame_max = frame_max);
        let mut pair = Pair::new(Node::start("sender", |_| {}), to);
        pair.link();
        let most = frame_max as usize - 36 - 2 - 2;
        pair.send("t", &vec![1; most]);
        pair.settle();
        assert_eq!((pair.payloads(), pair.records.len(), pair.pieces), (vec![most], 1, 0));
        for more in 1..40 {
            pair.send("t", &vec![1; most + more]);
        }
        pair.settle();
        let all: Vec<usize> = (most..most + 40).collect();
        assert_eq!((pair.payloads(), pair.records.len()), (all, 1));
        assert!((40..=78).contains(&pair.pieces), "{} pieces of 39 messages", pair.pieces);
        // A piece leaves room for the longest head.
        assert!((frame_max as usize - 4..=frame_max as usize).contains(&pair.longest), "{}", pair.longest);
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
    let gateway = Node::start("gateway", |config| {
        small(100)(config);
        config.takes_custody = true;
    });
    let mut pair = Pair::new(Node::start("sender", |_| {}), gateway);
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
        let events = pair.from.events();
        let told = events.iter().filter(|event| matches!(event, Event::DeadLetter { .. }));
        assert_eq!(told.cloned().collect::<Vec<_>>(), [put_aside(2), put_aside(1)], "once for each group");
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
    assert!(!pair.from.events().contains(&put_aside(1)));
    pair.from.slow = false;
    pair.from.answer();
    pair.settle();
    assert_eq!((pair.payloads(), pair.gaps()), (vec![11], vec![(GapReason::TooLarge, 1)]));
    assert_eq!(pair.from.letters(), [LETTER]);
    assert!(pair.from.events().contains(&put_aside(1)));
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
    let failed = Outcome { groups: 0, fault: Some(StoreFault::Unavailable) };
    pair.from.router.handle_committed(NOW, batch.id(), failed);
    pair.from.slow = false;
    pair.settle();
    assert_eq!((pair.payloads(), pair.gaps()), (vec![], vec![]));
    let later = NOW + Duration::from_secs(1);
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
fn what_is_being_put_aside_is_not_sent_after_all() {
    let mut pair = queued_for_a_screen_that_shrank(SendMode::Stored, &[500, 11]);
    pair.from.slow = true;
    pair.link();
    assert_eq!(pair.from.unanswered.len(), 1);
    pair.to.restart(|config| config.limits.message_max = 60_000);
    pair.to.router.subscribe(NOW, "t");
    pair.link();
    assert_eq!(pair.payloads(), []);
    pair.from.slow = false;
    pair.from.answer();
    pair.settle();
    assert_eq!((pair.payloads(), pair.from.letters()), (vec![11], vec![LETTER]));
    assert_eq!(pair.gaps(), [(GapReason::TooLarge, 1)]);
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
    assert_eq!(pair.from.router.queued(), 2, "those of the life before count");
    pair.from.store.clear_dead_letters();
    pair.from.restart(|_| {});
    pair.link();
    assert_eq!((pair.from.router.queued(), pair.payloads()), (0, vec![11]));
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
        let down = Event::PeerDown { name: "sender".into(), reason: CloseReason::Violation, dialed: false };
        assert!(pair.to.events().contains(&down), "{framing:?}");
        let told = Event::PeerDown { name: "screen".into(), reason: CloseReason::Violation, dialed: true };
        assert!(pair.from.events().contains(&told), "{framing:?}");
    }
}
