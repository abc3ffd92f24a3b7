//! Messages that are queued for somebody who takes their topic no more.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::router::{Event, SendError};
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, gateway, link, meet, settle};

/// A subscriber that takes "a" and "b".
fn subscriber(durable: bool) -> Node {
    let mut sub = Node::start("w", |config| config.durable = durable);
    for topic in ["a", "b"] {
        sub.router.subscribe(sub.now, topic);
    }
    sub
}

/// So many messages on "a" and one on "b" wait for the subscriber.
fn queue(gateway: &mut Node, sub: &mut Node, count: u32) {
    let line = meet(sub, gateway);
    cut(sub, gateway, line);
    for number in 0..count {
        gateway.router.send(gateway.now, "a", &number.to_le_bytes(), Mode::One).expect("it is known");
    }
    gateway.router.send(gateway.now, "b", b"behind", Mode::One).expect("it is known");
    gateway.serve();
}

/// The subscriber comes back, and takes "b" alone.
fn come_back(gateway: &mut Node, sub: &mut Node) {
    sub.restart();
    sub.router.subscribe(sub.now, "b");
    meet(sub, gateway);
}

/// What was put aside and what was dropped, as told by now.
fn told(node: &mut Node) -> (u64, u64) {
    let mut told = (0, 0);
    for event in node.events() {
        if let Event::DeadLetter { topic, reason: DeadReason::Unsubscribed, count, .. } = &event
            && **topic == *"a"
        {
            told.0 += count;
        }
        if let Event::Dropped { topic, reason: DeadReason::Unsubscribed, count, .. } = &event
            && **topic == *"a"
        {
            told.1 += count;
        }
    }
    told
}

fn gaps(node: &mut Node) -> u64 {
    let gap = |event: Event| {
        if let Event::Gap { count, reason: GapReason::Cleared, .. } = event { count } else { 0 }
    };
    node.events().into_iter().map(gap).sum()
}

#[test]
fn what_waits_on_a_topic_that_was_given_up_goes_to_the_dead_letters_of_who_has_it() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(true));
    queue(&mut gateway, &mut sub, 50);
    come_back(&mut gateway, &mut sub);
    assert_eq!(sub.got, [(b"behind".to_vec(), false)]);
    assert_eq!(gateway.dead(), [DeadReason::Unsubscribed; 50]);
    assert_eq!((told(&mut gateway), gaps(&mut sub)), ((50, 0), 50));
    assert_eq!((gateway.router.queued(), sub.dead()), (0, vec![]));
}

#[test]
fn twelve_thousand_of_them_hold_nothing_up() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(true));
    queue(&mut gateway, &mut sub, 12_000);
    come_back(&mut gateway, &mut sub);
    assert_eq!(sub.got, [(b"behind".to_vec(), false)], "as soon as its turn comes");
    assert_eq!(gateway.router.peers_up().collect::<Vec<_>>(), ["w"], "in one session");
    gateway.pass(Duration::from_secs(2));
    let (aside, dropped) = told(&mut gateway);
    assert_eq!((aside, dropped), (gateway.dead().len() as u64, 12_000 - aside), "each is accounted for");
    assert!((8000..10_000).contains(&aside), "{aside}: some room is left for what has to be put aside");
    assert_eq!((gaps(&mut sub), sub.dead()), (12_000, vec![]));
    assert_eq!(gateway.router.queued(), 0);
    assert!(gateway.events().is_empty());
}

#[test]
fn a_subscriber_without_a_name_of_its_own_leaves_no_dead_letters() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(false));
    queue(&mut gateway, &mut sub, 50);
    come_back(&mut gateway, &mut sub);
    assert_eq!((sub.got.len(), gateway.dead().len()), (1, 0));
    gateway.pass(Duration::from_secs(2));
    assert_eq!((told(&mut gateway), gaps(&mut sub)), ((0, 50), 50));
}

#[test]
fn a_topic_that_is_taken_again_is_sent_again() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(true));
    queue(&mut gateway, &mut sub, 3);
    sub.restart();
    for topic in ["b", "a"] {
        sub.router.subscribe(sub.now, topic);
    }
    meet(&mut sub, &mut gateway);
    assert_eq!((sub.got.len(), gateway.dead().len()), (4, 0));
}

#[test]
fn one_that_hands_on_what_it_takes_need_not_subscribe() {
    let (mut gateway, mut sender) = (gateway(10), Node::start("sender", |_| {}));
    let line = meet(&mut sender, &mut gateway);
    cut(&mut sender, &mut gateway, line);
    sender.router.send(sender.now, "t", b"x", Mode::All).expect("the gateway is asked");
    sender.serve();
    meet(&mut sender, &mut gateway);
    assert_eq!((gateway.held().queues["t"], sender.dead().len()), (1, 0));
}

#[test]
fn what_arrives_on_a_topic_that_is_not_taken_ends_no_session() {
    let mut sender = Node::start("sender", |_| {});
    let mut other = Node::start("other", |config| config.durable = true);
    let line = link(&mut sender, &mut other);
    for number in 0..12_000_u32 {
        // Nobody is known for the topic: whoever is dialled is asked, until it has said what it takes.
        sender.router.send(sender.now, "a", &number.to_le_bytes(), Mode::One).expect("it is dialled");
    }
    settle(&mut sender, &mut other, line);
    assert_eq!((sender.router.queued(), other.router.peers_up().count()), (0, 1));
    assert_eq!(sender.router.send(sender.now, "a", b"x", Mode::One), Err(SendError::NoAddress));
    assert_eq!(sender.router.send(sender.now, "a", b"x", Mode::All), Err(SendError::NoAddress));
    other.pass(Duration::from_secs(2));
    let (aside, dropped) = told(&mut other);
    assert_eq!((aside, dropped), (other.dead().len() as u64, 12_000 - aside));
    assert!((8000..10_000).contains(&aside), "{aside}");
}

#[test]
fn a_node_takes_topics_and_gives_them_up_while_it_runs() {
    let mut sender = Node::start("sender", |_| {});
    let mut sub = Node::start("w", |config| config.durable = true);
    let line = link(&mut sub, &mut sender);
    settle(&mut sub, &mut sender, line);
    let send = |sender: &mut Node, topic| sender.router.send(sender.now, topic, b"x", Mode::One);
    assert_eq!(send(&mut sender, "a"), Err(SendError::NoAddress));
    for round in 1..=20 {
        for topic in ["a", "b"] {
            sub.router.subscribe(sub.now, topic);
        }
        settle(&mut sub, &mut sender, line);
        send(&mut sender, "a").expect("it is taken");
        settle(&mut sub, &mut sender, line);
        assert_eq!(sub.got.len(), 2 * round - 1);

        assert!(sub.router.unsubscribe(sub.now, "a") && !sub.router.unsubscribe(sub.now, "a"));
        assert!(!sub.router.unsubscribe(sub.now, "never"));
        settle(&mut sub, &mut sender, line);
        assert_eq!(send(&mut sender, "a"), Err(SendError::NoAddress));
        send(&mut sender, "b").expect("the other one is taken as before");
        settle(&mut sub, &mut sender, line);
        assert_eq!(sub.got.len(), 2 * round);
    }
    assert_eq!((sub.dead(), sender.dead(), sender.router.queued()), (vec![], vec![], 0));
}

#[test]
fn what_is_under_way_when_a_topic_is_given_up_is_put_aside() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(true));
    let line = meet(&mut sub, &mut gateway);
    for number in 0..50_u32 {
        gateway.router.send(gateway.now, "a", &number.to_le_bytes(), Mode::One).expect("it is known");
    }
    gateway.router.send(gateway.now, "b", b"behind", Mode::One).expect("it is known");
    sub.router.unsubscribe(sub.now, "a");
    settle(&mut sub, &mut gateway, line);
    gateway.pass(Duration::from_secs(2));
    settle(&mut sub, &mut gateway, line);
    assert_eq!(sub.got, [(b"behind".to_vec(), false)]);
    let aside = sub.dead().len() + gateway.dead().len();
    assert_eq!((aside, gateway.router.queued()), (50, 0));
}

/// Given up and taken again before anybody was told: nothing is put aside, nothing comes twice.
#[test]
fn a_topic_that_is_given_up_and_taken_again_at_once_loses_nothing() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(true));
    let line = meet(&mut sub, &mut gateway);
    for number in 0..50_u32 {
        gateway.router.send(gateway.now, "a", &number.to_le_bytes(), Mode::One).expect("it is known");
        assert!(sub.router.unsubscribe(sub.now, "a"));
        sub.router.subscribe(sub.now, "a");
        if number % 7 == 0 {
            settle(&mut sub, &mut gateway, line);
        }
    }
    settle(&mut sub, &mut gateway, line);
    let wanted: Vec<_> = (0..50_u32).map(|number| (number.to_le_bytes().to_vec(), false)).collect();
    assert_eq!((&sub.got, sub.dead(), gateway.dead()), (&wanted, vec![], vec![]));
    assert_eq!(gateway.held().rows.len(), 2);
}

/// No row of a node's own is in its store: it begins with what its program says.
#[test]
fn a_topic_that_was_given_up_does_not_come_back_with_a_restart() {
    let (mut gateway, mut sub) = (gateway(10), subscriber(true));
    let line = meet(&mut sub, &mut gateway);
    assert!(sub.router.unsubscribe(sub.now, "a"));
    settle(&mut sub, &mut gateway, line);
    cut(&mut sub, &mut gateway, line);
    gateway.restart();
    assert_eq!(gateway.router.send(gateway.now, "b", b"behind", Mode::One).map(|_| ()), Ok(()));
    let _ = gateway.router.send(gateway.now, "a", b"x", Mode::One);
    gateway.serve();
    come_back(&mut gateway, &mut sub);
    assert_eq!(sub.got, [(b"behind".to_vec(), false)]);
    assert_eq!((sub.dead(), gateway.dead()), (vec![], vec![]));
    assert_eq!(gateway.held().rows, [("b".to_owned(), "w".to_owned())]);
}

/// A gateway that takes a topic itself, and gives it up, keeps what comes then for others.
#[test]
fn one_that_hands_on_keeps_what_it_does_not_take_any_more() {
    let (mut gateway, mut sender) = (gateway(10), Node::start("sender", |_| {}));
    gateway.router.subscribe(gateway.now, "t");
    let line = meet(&mut sender, &mut gateway);
    sender.router.send(sender.now, "t", b"1", Mode::One).expect("it is taken");
    settle(&mut sender, &mut gateway, line);
    assert_eq!(gateway.got.len(), 1);
    for payload in [b"2", b"3"] {
        sender.router.send(sender.now, "t", payload, Mode::One).expect("it is known");
        gateway.router.unsubscribe(gateway.now, "t");
        settle(&mut sender, &mut gateway, line);
    }
    assert_eq!((gateway.got.len(), gateway.held().queues["t"]), (1, 2));
    assert_eq!((sender.dead(), gateway.dead(), sender.router.queued()), (vec![], vec![], 0));
}
