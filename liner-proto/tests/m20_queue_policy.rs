//! As much is queued for a node as may be: its policy decides whether a send is refused, or pushes out the oldest.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::router::{Event, NodeConfig, QueuePolicy, QueueRule, Quota, SendError};
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, link, meet, settle};

const FIVE: Quota = Quota { messages: 5, bytes: u64::MAX };

fn sender(change: impl FnOnce(&mut NodeConfig)) -> Node {
    Node::start("sender", |config| {
        (config.queue_quota, config.queue_policy) = (Some(FIVE), QueuePolicy::DropOldest);
        change(config);
    })
}

/// A subscriber that the sender has met, and that has gone away since.
fn away(name: &str, from: &mut Node) -> Node {
    let mut sub = Node::start(name, |config| config.durable = true);
    sub.router.subscribe(sub.now, "t");
    let line = meet(&mut sub, from);
    cut(&mut sub, from, line);
    sub.events();
    sub
}

fn send(from: &mut Node, number: u8, mode: Mode) -> Result<(), SendError> {
    let sent = from.router.send(from.now, "t", &[number], mode);
    from.serve();
    sent.map(|_| ())
}

fn got(node: &Node) -> Vec<u8> {
    node.got.iter().map(|(payload, _)| payload[0]).collect()
}

/// How many messages for `of` the node says it has dropped.
fn dropped(node: &mut Node, of: &str) -> u64 {
    node.pass(Duration::from_secs(2));
    let count = |event: Event| {
        let Event::Dropped { name, reason: DeadReason::Quota, count, .. } = event else { return 0 };
        if *name == *of { count } else { 0 }
    };
    node.events().into_iter().map(count).sum()
}

fn gap(count: u64) -> Event {
    Event::Gap { from: "sender".into(), count, reason: GapReason::Dropped }
}

#[test]
fn m20_the_oldest_make_way_and_are_counted_on_both_sides() {
    for dies in [false, true] {
        let mut from = sender(|_| {});
        let mut sub = away("sub", &mut from);
        for number in 0..12 {
            send(&mut from, number, Mode::One).expect("the oldest makes way");
            assert!(from.held().queues["sub"] <= 5, "the store holds no more either");
        }
        assert_eq!(dropped(&mut from, "sub"), 7);
        if dies {
            from.restart();
        }
        meet(&mut from, &mut sub);
        assert_eq!(got(&sub), [7, 8, 9, 10, 11]);
        assert!(sub.events().contains(&gap(7)), "dies: {dies}");
        assert_eq!(from.router.queued(), 0);
        assert_eq!(from.dead(), []);
    }
}

#[test]
fn m20_a_send_is_refused_without_a_policy() {
    let mut from = sender(|config| config.queue_policy = QueuePolicy::default());
    let mut sub = away("sub", &mut from);
    for number in 0..5 {
        send(&mut from, number, Mode::One).expect("room");
    }
    for mode in [Mode::One, Mode::All] {
        assert_eq!(send(&mut from, 5, mode), Err(SendError::Busy));
    }
    let line = meet(&mut from, &mut sub);
    assert_eq!(got(&sub), [0, 1, 2, 3, 4]);
    send(&mut from, 6, Mode::One).expect("there is room again");
    settle(&mut from, &mut sub, line);
    assert_eq!(got(&sub).last(), Some(&6));
}

#[test]
fn m20_bytes_count_as_messages_do() {
    let bound = |policy| {
        let mut from = sender(|config| {
            config.queue_quota = Some(Quota { messages: u64::MAX, bytes: 1000 });
            config.queue_policy = policy;
        });
        let sub = away("sub", &mut from);
        (from, sub)
    };
    let send = |from: &mut Node, number: u8, len: usize| {
        let sent = from.router.send(from.now, "t", &vec![number; len], Mode::One);
        from.serve();
        sent.map(|_| ())
    };
    // Each record is some bytes longer than its payload: the last of these reaches the bound. A long one counts as many short ones.
    for lens in [&[100; 10][..], &[900, 100]] {
        let (mut from, mut sub) = bound(QueuePolicy::Refuse);
        for (number, len) in (0..).zip(lens) {
            send(&mut from, number, *len).expect("room");
        }
        for len in [1, 100] {
            assert_eq!(send(&mut from, 10, len), Err(SendError::Busy));
        }
        meet(&mut from, &mut sub);
        assert_eq!(got(&sub).len(), lens.len());
    }
    let (mut from, mut sub) = bound(QueuePolicy::DropOldest);
    for number in 0..25 {
        send(&mut from, number, 100).expect("the oldest makes way");
        assert!(from.held().queues["sub"] <= 10, "the store holds no more either");
    }
    assert_eq!(dropped(&mut from, "sub"), 15);
    meet(&mut from, &mut sub);
    assert_eq!(got(&sub), (15..25).collect::<Vec<_>>());
    assert!(sub.events().contains(&gap(15)));
}

#[test]
fn m20_what_is_not_stored_does_not_make_way() {
    let mut from = sender(|_| {});
    let mut sub = away("sub", &mut from);
    for number in 0..5 {
        from.router.send(from.now, "t", &[number], Mode::One).expect("room");
    }
    assert_eq!(from.router.send(from.now, "t", &[5], Mode::One), Err(SendError::Busy));
    from.serve();
    send(&mut from, 6, Mode::One).expect("the first is stored now");
    meet(&mut from, &mut sub);
    assert_eq!(got(&sub), [1, 2, 3, 4, 6]);
}

#[test]
fn m20_one_full_queue_loses_its_own_and_no_copy_of_another() {
    let mut from = sender(|_| {});
    let mut gone = away("gone", &mut from);
    let mut live = Node::start("live", |config| config.durable = true);
    live.router.subscribe(live.now, "t");
    let line = meet(&mut live, &mut from);
    for number in 0..50 {
        send(&mut from, number, Mode::All).expect("nobody waits for the one that is gone");
        settle(&mut live, &mut from, line);
    }
    assert_eq!(got(&live), (0..50).collect::<Vec<_>>());
    assert!(!live.events().iter().any(|event| matches!(event, Event::Gap { .. })));
    assert_eq!((dropped(&mut from, "gone"), dropped(&mut from, "live")), (45, 0));
    meet(&mut from, &mut gone);
    assert_eq!(got(&gone), (45..50).collect::<Vec<_>>());
}

#[test]
fn m20_a_rule_holds_for_its_node_alone() {
    let mut from = sender(|config| {
        let rule =
            QueueRule { quota: Some(Quota { messages: 2, ..FIVE }), policy: Some(QueuePolicy::Refuse) };
        config.queue_rules.insert("strict".into(), rule);
    });
    let mut strict = away("strict", &mut from);
    for number in 0..2 {
        send(&mut from, number, Mode::All).expect("room");
    }
    assert_eq!(send(&mut from, 2, Mode::All), Err(SendError::Busy));
    let mut other = away("other", &mut from);
    assert_eq!(send(&mut from, 2, Mode::All), Err(SendError::Busy), "all or none");
    meet(&mut from, &mut strict);
    let line = meet(&mut from, &mut other);
    cut(&mut from, &mut other, line);
    for number in 3..20 {
        send(&mut from, number, Mode::All).expect("that one is there, and the other one's oldest make way");
        let line = meet(&mut from, &mut strict);
        cut(&mut from, &mut strict, line);
    }
    meet(&mut from, &mut other);
    assert_eq!(got(&other), [15, 16, 17, 18, 19]);
    assert_eq!(got(&strict), [&[0, 1][..], &(3..20).collect::<Vec<_>>()].concat());
}

#[test]
fn m20_what_is_being_written_stays_whole() {
    let mut from = sender(|_| {});
    let mut sub = away("sub", &mut from);
    let line = link(&mut from, &mut sub);
    settle(&mut from, &mut sub, line);
    for number in 0..5 {
        send(&mut from, number, Mode::One).expect("room");
    }
    // A part of their frame has left when more messages push them out.
    let transmit = from.router.poll_transmit(from.now, line.0);
    let (begun, rest) = ([transmit.head, transmit.body].concat(), transmit.len() / 2);
    assert!(rest > 0);
    from.router.handle_written(from.now, line.0, begun.len() - rest);
    for number in 5..20 {
        send(&mut from, number, Mode::One).expect("the oldest makes way");
    }
    let frame = [&begun[..begun.len() - rest], &from.give(line.0)].concat();
    sub.take(line.1, frame);
    settle(&mut from, &mut sub, line);
    let got = got(&sub);
    assert!(got.is_sorted() && got.starts_with(&[0]) && got.ends_with(&[15, 16, 17, 18, 19]), "{got:?}");
    assert_eq!(from.router.queued(), 0);
    let told: u64 =
        sub.events().iter().map(|event| if let Event::Gap { count, .. } = event { *count } else { 0 }).sum();
    assert_eq!(got.len() as u64 + told, 20);
}

#[test]
fn m20_bytes_for_an_address_make_way_one_by_one() {
    const QUOTA: Quota = Quota { messages: u64::MAX, bytes: 10 * 1024 };
    let mut from = sender(|config| config.queue_quota = Some(QUOTA));
    from.router.add_peer(from.now, "there");
    for number in 0..100 {
        from.router.send(from.now, "t", &[number; 1024], Mode::One).expect("the oldest makes way");
        from.serve();
    }
    assert_eq!((from.held().queues["there"], dropped(&mut from, "there")), (10, 90));
    let mut sub = Node::start("sub", |config| config.durable = true);
    sub.router.subscribe(sub.now, "t");
    meet(&mut from, &mut sub);
    assert_eq!(got(&sub), (90..100).collect::<Vec<_>>());
    assert!(sub.events().contains(&gap(90)));
}
