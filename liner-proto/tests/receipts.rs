//! Messages that the application settles after it has taken them.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::DeadReason;
use liner_proto::id::ConnId;
use liner_proto::router::{Event, Message, NodeConfig, PutAsideError, Receipt, Router};
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, meet, settle};

/// A subscriber of "t" that settles later.
fn late(change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut sub = Node::start("s", |config| {
        config.durable = true;
        change(config);
    });
    sub.later = Some(Vec::new());
    sub.router.subscribe(sub.now, "t");
    sub
}

fn send(from: &mut Node, numbers: core::ops::Range<u8>) {
    for number in numbers {
        from.router.send(from.now, "t", &[number], Mode::One).expect("it is known");
    }
}

fn receipt(sub: &Node, index: usize) -> Receipt {
    sub.later.as_ref().expect("it settles later")[index]
}

fn numbers(sub: &Node) -> Vec<u8> {
    sub.got.iter().map(|(payload, _)| payload[0]).collect()
}

/// A sender that is connected to a subscriber.
fn pair(change: impl FnOnce(&mut NodeConfig)) -> (Node, Node, (ConnId, ConnId)) {
    let (mut from, mut sub) = (Node::start("f", |_| {}), late(change));
    let line = meet(&mut from, &mut sub);
    (from, sub, line)
}

#[test]
fn nothing_is_acknowledged_before_it_is_settled() {
    let (mut from, mut sub, line) = pair(|_| {});
    send(&mut from, 0..5);
    settle(&mut from, &mut sub, line);
    assert_eq!(numbers(&sub), [0, 1, 2, 3, 4], "all are handed over meanwhile");
    assert_eq!(from.router.acked_by("s"), 0);
    assert_eq!(sub.router.unsettled(), 5);
    for (index, acked) in [(2, 0), (0, 1), (1, 3), (4, 3), (3, 5)] {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
        settle(&mut from, &mut sub, line);
        assert_eq!(from.router.acked_by("s"), acked, "after {index}");
        assert!(!sub.router.settle(sub.now, receipt(&sub, index)), "once");
    }
    assert!(from.router.is_idle());
    assert_eq!(sub.router.unsettled(), 0);
}

#[test]
fn after_a_crash_everything_from_the_first_that_was_not_settled_comes_again() {
    let (mut from, mut sub, line) = pair(|_| {});
    send(&mut from, 0..4);
    settle(&mut from, &mut sub, line);
    for index in [0, 2] {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
    }
    settle(&mut from, &mut sub, line);
    cut(&mut from, &mut sub, line);
    let before = receipt(&sub, 1);
    sub.configure(|config| config.instance += 1);
    sub.restart();
    sub.got.clear();
    sub.later = Some(Vec::new());
    sub.router.subscribe(sub.now, "t");
    send(&mut from, 4..5);
    let line = meet(&mut from, &mut sub);
    let expected = [(vec![1], true), (vec![2], true), (vec![3], true), (vec![4], false)];
    assert_eq!(sub.got, expected, "what may have been handled is marked");
    assert!(!sub.router.settle(sub.now, before), "a receipt is one of the life that gave it");
    for index in 0..4 {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
    }
    settle(&mut from, &mut sub, line);
    assert_eq!(from.router.acked_by("s"), 5);
}

#[test]
fn a_new_connection_hands_nothing_over_again() {
    let (mut from, mut sub, line) = pair(|_| {});
    send(&mut from, 0..3);
    settle(&mut from, &mut sub, line);
    cut(&mut from, &mut sub, line);
    assert!(sub.router.settle(sub.now, receipt(&sub, 0)), "while nobody is connected");
    send(&mut from, 3..4);
    let line = meet(&mut from, &mut sub);
    assert_eq!(numbers(&sub), [0, 1, 2, 3]);
    for index in 1..4 {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
    }
    settle(&mut from, &mut sub, line);
    assert_eq!(from.router.acked_by("s"), 4);
    assert!(from.router.is_idle());
}

#[test]
fn m16_a_slow_handler_closes_its_own_window_only() {
    let (mut slow, mut sub, line) = pair(|config| config.limits.window_messages = 4);
    let mut other = Node::start("o", |_| {});
    let way = meet(&mut other, &mut sub);
    send(&mut slow, 0..20);
    settle(&mut slow, &mut sub, line);
    assert_eq!(numbers(&sub), [0, 1, 2, 3], "a window of it, and no more");
    for number in 100..120 {
        send(&mut other, number..number + 1);
        settle(&mut other, &mut sub, way);
        let last = sub.got.len() - 1;
        assert_eq!(sub.got[last].0, [number]);
        assert!(sub.router.settle(sub.now, receipt(&sub, last)));
        settle(&mut other, &mut sub, way);
    }
    assert!(other.router.is_idle());
    // Each that is settled lets another one in.
    for index in 0..4 {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
    }
    settle(&mut slow, &mut sub, line);
    assert_eq!(numbers(&sub)[24..], [4, 5, 6, 7]);
}

#[test]
fn what_is_not_settled_counts_against_later_sessions_too() {
    let (mut from, mut sub, mut line) = pair(|config| config.limits.window_bytes = 4096);
    for _ in 0..40 {
        from.router.send(from.now, "t", &[7; 1000], Mode::One).expect("there is room");
    }
    for _ in 0..10 {
        settle(&mut from, &mut sub, line);
        cut(&mut from, &mut sub, line);
        from.pass(Duration::from_secs(1));
        sub.pass(Duration::from_secs(1));
        line = meet(&mut from, &mut sub);
    }
    let held = sub.got.len();
    assert!((4..=8).contains(&held), "two windows at most, and not one in each session: {held}");
    let mut index = 0;
    while index < sub.got.len() {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
        settle(&mut from, &mut sub, line);
        index += 1;
    }
    assert_eq!(index, 40, "its window opens again, and nothing is lost");
    assert!(from.router.is_idle());
}

/// The application gives up a message with this payload.
fn fail(sub: &mut Node, index: usize, payload: &[u8]) -> Result<(), PutAsideError> {
    let message = Message {
        topic: "t",
        from: "f",
        seq: 1 + index as u64,
        mode: Mode::One,
        payload,
        maybe_redelivered: false,
        receipt: receipt(sub, index),
    };
    sub.router.put_failed_aside(sub.now, &message)
}

#[test]
fn a_message_that_fails_becomes_a_dead_letter_with_its_cursor() {
    let (mut from, mut sub, line) = pair(|_| {});
    send(&mut from, 0..3);
    settle(&mut from, &mut sub, line);
    sub.events();
    assert_eq!(fail(&mut sub, 1, &[1]), Ok(()));
    settle(&mut from, &mut sub, line);
    assert_eq!((sub.dead(), from.router.acked_by("s")), (vec![], 0), "it waits for the one before it");
    assert!(sub.router.settle(sub.now, receipt(&sub, 0)));
    // One commit has both, so that a crash leaves both or none.
    assert!(sub.serve_one());
    assert_eq!(sub.dead(), [DeadReason::Failed]);
    settle(&mut from, &mut sub, line);
    assert_eq!(from.router.acked_by("s"), 2, "and the stream goes on");
    assert_eq!(fail(&mut sub, 1, &[1]), Err(PutAsideError::NotWaiting));
    let told = sub.events().into_iter().any(|event| {
        matches!(event, Event::DeadLetter { reason: DeadReason::Failed, count: 1, ref topic, .. } if &**topic == "t")
    });
    assert!(told);
}

#[test]
fn without_room_for_dead_letters_a_failed_message_waits() {
    let (mut from, mut sub, line) = pair(|_| {});
    for number in 0..10_001u32 {
        from.router.send(from.now, "t", &number.to_le_bytes(), Mode::One).expect("it is known");
    }
    settle(&mut from, &mut sub, line);
    for index in 0..10_000 {
        assert_eq!(fail(&mut sub, index, &[0]), Ok(()));
    }
    assert_eq!(fail(&mut sub, 10_000, &[0]), Err(PutAsideError::Full));
    settle(&mut from, &mut sub, line);
    assert_eq!((sub.dead().len(), from.router.acked_by("s")), (10_000, 10_000));
    assert!(sub.router.settle(sub.now, receipt(&sub, 10_000)), "it can still be settled");
    settle(&mut from, &mut sub, line);
    assert!(from.router.is_idle());
}

#[test]
fn receipts_outlive_a_new_epoch_that_says_what_came_before_it() {
    let (mut from, mut sub, line) = pair(|_| {});
    send(&mut from, 0..4);
    settle(&mut from, &mut sub, line);
    assert!(sub.router.settle(sub.now, receipt(&sub, 0)));
    settle(&mut from, &mut sub, line);
    cut(&mut from, &mut sub, line);
    // Its store may have gone backwards.
    from.store.set_regressed(true);
    from.restart();
    let line = meet(&mut from, &mut sub);
    assert_eq!(numbers(&sub), [0, 1, 2, 3], "they were not handed over again");
    for index in 1..4 {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
    }
    settle(&mut from, &mut sub, line);
    assert!(from.router.is_idle());
}

#[test]
fn receipts_of_a_stream_that_is_forgotten_settle_nothing_and_lose_nothing() {
    let (mut from, mut sub, line) = pair(|_| {});
    send(&mut from, 0..3);
    settle(&mut from, &mut sub, line);
    assert_eq!(fail(&mut sub, 2, &[2]), Ok(()), "behind two that are not settled");
    cut(&mut from, &mut sub, line);
    // The sender has lost its store: these messages will not come again.
    let mut from = Node::start("f", |config| config.seed[0] = 99);
    let line = meet(&mut from, &mut sub);
    sub.serve();
    assert!(!sub.router.settle(sub.now, receipt(&sub, 0)));
    assert_eq!(sub.dead(), [DeadReason::Failed], "what has failed is kept");
    send(&mut from, 10..12);
    settle(&mut from, &mut sub, line);
    assert_eq!(numbers(&sub)[3..], [10, 11]);
    assert_eq!(from.router.acked_by("s"), 0);
    for index in 3..5 {
        assert!(sub.router.settle(sub.now, receipt(&sub, index)));
    }
    settle(&mut from, &mut sub, line);
    assert!(from.router.is_idle());
}

#[test]
fn a_receipt_of_nothing_settles_nothing() {
    let mut router = Router::new(NodeConfig::new("n", [1, 2], liner_proto::id::Class::Ram), nodes::NOW);
    assert!(!router.settle(nodes::NOW, Receipt::NONE));
}

#[test]
fn what_is_not_settled_of_streams_that_are_forgotten_counts_against_the_window() {
    check_window_across_streams(1000, |config| config.limits.window_bytes = 4096);
}

#[test]
fn messages_without_a_payload_count_against_the_window_too() {
    check_window_across_streams(0, |config| config.limits.window_messages = 4);
}

/// A window takes four messages with a payload of that length.
fn check_window_across_streams(len: usize, change: impl FnOnce(&mut NodeConfig)) {
    let mut sub = late(change);
    for life in 0..10 {
        // A sender that forgets its stream each time.
        let mut from = Node::start("f", |config| config.seed[0] = 100 + life);
        let line = meet(&mut from, &mut sub);
        for _ in 0..4 {
            let _ = from.router.send(from.now, "t", &vec![7; len], Mode::One);
        }
        settle(&mut from, &mut sub, line);
        cut(&mut from, &mut sub, line);
    }
    let held = sub.got.len();
    assert!((4..=8).contains(&held), "two windows at most, and not one in each life: {held}");
    let mut from = Node::start("f", |_| {});
    let line = meet(&mut from, &mut sub);
    send(&mut from, 0..1);
    settle(&mut from, &mut sub, line);
    assert_eq!(sub.got.len(), held, "it is shut out");
    // Some are processed by now, and some never can be.
    for index in 0..held {
        if index % 2 == 0 {
            assert!(!sub.router.settle(sub.now, receipt(&sub, index)), "nobody waits for that");
        } else {
            assert_eq!(fail(&mut sub, index, &[7]), Err(PutAsideError::NotWaiting));
        }
        settle(&mut from, &mut sub, line);
    }
    assert_eq!(sub.got.len(), held + 1, "and let in again");
}
