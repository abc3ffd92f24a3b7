//! What is queued for the node itself: messages that were dead letters of its own application, and were queued again.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, Queue, StoreOp};
use liner_proto::id::{Epoch, SendId};
use liner_proto::router::{Application, Message, NodeConfig, PutAsideError, Receipt, Settle, StoreRequest};
use liner_proto::store::{HeapStore, Store as _};
use liner_proto::wire::record::{self, Header, Mode, Topic};
use liner_proto::wire::varint;
use nodes::Node;

/// Takes what comes, and settles it later if told so.
#[derive(Default)]
struct Taker {
    later: bool,
    most: usize,
    got: Vec<(Vec<u8>, String, bool)>,
    receipts: Vec<Receipt>,
}

impl Application for Taker {
    fn message(&mut self, message: &Message<'_>) {
        let seen = (message.payload.to_vec(), message.topic.to_owned(), message.maybe_redelivered);
        self.got.push(seen);
        self.receipts.push(message.receipt);
    }

    fn take(&mut self, message: &Message<'_>) -> Settle {
        self.message(message);
        if self.later { Settle::Later } else { Settle::Now }
    }

    fn is_full(&self) -> bool {
        self.most > 0 && self.got.len() >= self.most
    }
}

/// A node that has so many messages on "t" for itself.
fn node(count: u8) -> Node {
    node_with(count, |_| {})
}

fn node_with(count: u8, change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut node = Node::start("n", change);
    fill(&mut node, count);
    node
}

fn fill(node: &mut Node, count: u8) {
    let queue = Queue::Node("n");
    node.serve();
    node.store.apply(&[StoreOp::Open { queue, epoch: Epoch(7) }]).expect("in memory");
    for number in 1..=count {
        let header = Header::new(Mode::One, Topic::Text("t"));
        let mut record = vec![0; record::message_len(&header, 1)];
        record::encode_message(&header, &[number], &mut record);
        let mut len = [0; varint::LEN_MAX];
        let taken = varint::put_varint(&mut len, record.len() as u64).expect("room");
        let records = [&len[..taken], &record].concat();
        let (first, last) = (u64::from(number), u64::from(number));
        node.store.apply(&[StoreOp::Append { queue, first, last, records: &records }]).expect("in memory");
    }
    node.store.commit().expect("in memory");
    node.restart();
}

fn hand(node: &mut Node, taker: &mut Taker) {
    while node.router.has_own() && !taker.is_full() {
        node.router.hand_own(node.now, taker);
        node.serve();
    }
}

fn queued(node: &Node) -> u64 {
    node.held().queues.get("n").copied().unwrap_or(0)
}

#[test]
fn it_is_handed_over_marked_and_leaves_the_queue() {
    let mut node = node(5);
    node.router.subscribe(node.now, "t");
    let mut taker = Taker { most: 2, ..Taker::default() };
    hand(&mut node, &mut taker);
    assert_eq!(taker.got.len(), 2, "no more than it wants");
    assert_eq!(queued(&node), 3);
    taker.most = 0;
    hand(&mut node, &mut taker);
    let expected: Vec<_> = (1..=5u8).map(|number| (vec![number], "t".to_owned(), true)).collect();
    assert_eq!(taker.got, expected);
    assert_eq!(queued(&node), 0);
    assert!(node.router.is_idle());
}

#[test]
fn what_is_not_settled_comes_again_after_a_restart() {
    let mut node = node(4);
    node.router.subscribe(node.now, "t");
    let mut taker = Taker { later: true, ..Taker::default() };
    hand(&mut node, &mut taker);
    assert_eq!((taker.got.len(), node.router.unsettled(), queued(&node)), (4, 4, 4));
    for index in [0, 2] {
        assert!(node.router.settle(node.now, taker.receipts[index]));
        assert!(!node.router.settle(node.now, taker.receipts[index]), "once");
    }
    node.serve();
    assert_eq!(queued(&node), 3, "up to before the first that is not settled");
    node.restart();
    node.router.subscribe(node.now, "t");
    let mut taker = Taker::default();
    hand(&mut node, &mut taker);
    let payloads: Vec<u8> = taker.got.iter().map(|(payload, ..)| payload[0]).collect();
    assert_eq!(payloads, [2, 3, 4]);
    assert_eq!(queued(&node), 0);
}

#[test]
fn it_waits_for_its_topic() {
    let mut node = node(1);
    let mut taker = Taker::default();
    node.router.hand_own(node.now, &mut taker);
    node.serve();
    node.router.hand_own(node.now, &mut taker);
    assert!(!node.router.has_own(), "it does not ask again and again");
    assert_eq!((taker.got.len(), queued(&node)), (0, 1));
    // A lease says nothing of the node itself.
    node.pass(Duration::from_secs(60));
    node.router.subscribe(node.now, "t");
    hand(&mut node, &mut taker);
    assert_eq!((taker.got.len(), queued(&node)), (1, 0));
}

#[test]
fn what_fails_again_is_a_dead_letter_again_and_holds_up_nothing() {
    let mut node = node(3);
    node.router.subscribe(node.now, "t");
    let mut taker = Taker { later: true, ..Taker::default() };
    hand(&mut node, &mut taker);
    for (index, receipt) in taker.receipts.iter().enumerate().rev() {
        if index == 0 {
            let (payload, maybe_redelivered) = (&[1][..], true);
            let (topic, from, mode, seq) = ("t", "n", Mode::One, 1);
            let message = Message { topic, from, seq, mode, payload, maybe_redelivered, receipt: *receipt };
            assert_eq!(node.router.put_failed_aside(node.now, &message), Ok(()));
            let again = node.router.put_failed_aside(node.now, &message);
            assert_eq!(again, Err(PutAsideError::NotWaiting), "once");
        } else {
            assert!(node.router.settle(node.now, *receipt));
        }
    }
    node.serve();
    assert_eq!((node.dead(), queued(&node)), (vec![DeadReason::Failed], 0));
    assert!(node.router.is_idle());
    node.restart();
    node.router.subscribe(node.now, "t");
    let mut taker = Taker::default();
    hand(&mut node, &mut taker);
    assert!(taker.got.is_empty(), "it is not in both places");
}

#[test]
fn what_fails_again_leaves_the_queue_in_the_group_that_stores_its_letter() {
    let mut node = node(1);
    node.router.subscribe(node.now, "t");
    let mut taker = Taker { later: true, ..Taker::default() };
    hand(&mut node, &mut taker);
    let receipt = taker.receipts[0];
    let (payload, maybe_redelivered) = (&[1][..], true);
    let (topic, from, mode, seq) = ("t", "n", Mode::One, 1);
    let message = Message { topic, from, seq, mode, payload, maybe_redelivered, receipt };
    assert_eq!(node.router.put_failed_aside(node.now, &message), Ok(()));
    // A store that is full takes what frees and refuses the letter: the message has to be in one of the two places after a crash.
    let Some(StoreRequest::Commit(batch)) = node.router.poll_store(node.now) else { panic!("it owes both") };
    let mut both = 0;
    let seen: Result<(), (usize, ())> = batch.try_each_group(|group| {
        let trims = group.iter().any(|op| matches!(op, StoreOp::Trim { queue: Queue::Node("n"), .. }));
        let letters = group.iter().any(|op| matches!(op, StoreOp::DeadLetter { .. }));
        assert_eq!(trims, letters, "one without the other: {group:?}");
        both += u32::from(trims && letters);
        Ok(())
    });
    assert_eq!((seen, both), (Ok(()), 1));
}

#[test]
fn no_more_than_a_window_is_handed_over_that_is_not_settled() {
    let small: [fn(&mut NodeConfig); 2] =
        [|config| config.limits.window_messages = 3, |config| config.limits.window_bytes = 11];
    for change in small {
        let mut node = node_with(10, change);
        node.router.subscribe(node.now, "t");
        let mut taker = Taker { later: true, ..Taker::default() };
        hand(&mut node, &mut taker);
        assert_eq!(taker.got.len(), 3);
        for index in 0..10 {
            assert!(!node.router.has_own(), "it does not ask again and again");
            node.router.hand_own(node.now, &mut taker);
            assert_eq!(taker.got.len(), 10.min(index + 3));
            assert!(node.router.settle(node.now, taker.receipts[index]));
            assert_eq!(node.router.has_own(), index < 7, "there is room for one more");
            hand(&mut node, &mut taker);
        }
        let payloads: Vec<u8> = taker.got.iter().map(|(payload, ..)| payload[0]).collect();
        assert_eq!(payloads, (1..=10).collect::<Vec<_>>());
        node.serve();
        assert_eq!(queued(&node), 0);
    }
}

#[test]
fn what_is_settled_leaves_a_store_that_is_full_whatever_else_waits_for_it() {
    let mut node = Node::start("n", |_| {});
    node.store = HeapStore::new(30);
    fill(&mut node, 5);
    node.router.subscribe(node.now, "t");
    node.router.add_receiver(node.now, "u", "to:1", "to");
    let mut taker = Taker { later: true, ..Taker::default() };
    hand(&mut node, &mut taker);
    node.router.send(node.now, "u", &[0; 26], Mode::One).expect("there is room in memory");
    for receipt in taker.receipts.drain(..4) {
        assert!(node.router.settle(node.now, receipt));
    }
    node.serve();
    assert_eq!(queued(&node), 1);
    assert_eq!(node.router.stored_through(), SendId(0), "it does not fit yet");
    assert!(node.router.settle(node.now, taker.receipts[0]));
    node.pass(Duration::from_secs(1));
    assert_eq!((queued(&node), node.router.stored_through()), (0, SendId(1)));
}
