//! Topics end, too, and no peer can use them up for the others.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use liner_proto::effect::DeadReason;
use liner_proto::router::{Event, NodeConfig, SendError};
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;
use nodes::{LEASE, Node, cut, link, meet, settle};

/// A gateway with room for 1024 topics, of which one peer has at most 64 in each way.
fn small_gateway() -> Node {
    Node::start("gateway", |config: &mut NodeConfig| {
        config.takes_custody = true;
        config.topics_max = 1024;
    })
}

/// A subscriber with a name, who takes one topic.
fn screen(topic: &str) -> Node {
    let mut screen = Node::start("screen", |config| config.durable = true);
    screen.router.subscribe(screen.now, topic);
    screen
}

fn parted(node: &mut Node) -> Vec<CloseReason> {
    let reason = |event: Event| if let Event::PeerDown { reason, .. } = event { Some(reason) } else { None };
    node.events().into_iter().filter_map(reason).collect()
}

#[test]
fn topics_that_were_named_once_make_room_for_others() {
    let mut gateway = small_gateway();
    let mut sender = Node::start("sender", |_| {});
    let line = meet(&mut sender, &mut gateway);
    for number in 0..4000 {
        sender.router.send(sender.now, &format!("{number}"), b"", Mode::BestEffort).expect("not promised");
        settle(&mut sender, &mut gateway, line);
    }
    assert_eq!(gateway.router.peers_up().count(), 1);
    let mut screen = screen("another");
    meet(&mut screen, &mut gateway);
    sender.router.send(sender.now, "another", b"x", Mode::All).expect("the gateway is asked");
    settle(&mut sender, &mut gateway, line);
    assert_eq!(gateway.router.queued_for("screen"), 1);
}

#[test]
fn one_sender_fills_no_more_topics_than_are_its_own() {
    let mut gateway = small_gateway();
    let mut sender = Node::start("sender", |_| {});
    let line = meet(&mut sender, &mut gateway);
    for number in 0..200 {
        sender.router.send(sender.now, &format!("{number}"), b"", Mode::All).expect("the gateway is asked");
        settle(&mut sender, &mut gateway, line);
    }
    assert_eq!(sender.router.queued(), 0, "all of it is acknowledged");
    assert_eq!(gateway.router.queued(), 64);
    assert_eq!(gateway.dead(), [DeadReason::Quota; 136]);
    let send = |sender: &mut Node, topic| sender.router.send(sender.now, topic, b"", Mode::All);
    assert_eq!(send(&mut sender, "64"), Err(SendError::TopicFull));
    let mut screen = screen("0");
    let view = meet(&mut screen, &mut gateway);
    assert_eq!(screen.got.len(), 1, "what was kept is there");
    assert!(!gateway.held().queues.contains_key("0"), "and its queue is gone");
    // That is one topic less: the sender may fill another one, but only one.
    settle(&mut sender, &mut gateway, line);
    for topic in ["64", "65"] {
        assert!(send(&mut sender, topic).is_ok());
        settle(&mut sender, &mut gateway, line);
    }
    let queues = gateway.held().queues;
    assert_eq!((queues.get("64"), queues.get("65")), (Some(&1), None));
    assert_eq!(send(&mut sender, "65"), Err(SendError::TopicFull));
    // A topic with a subscriber is none to be kept.
    screen.router.subscribe(screen.now, "65");
    settle(&mut screen, &mut gateway, view);
    settle(&mut sender, &mut gateway, line);
    assert!(send(&mut sender, "65").is_ok());
    settle(&mut sender, &mut gateway, line);
    settle(&mut screen, &mut gateway, view);
    assert_eq!(screen.got.len(), 2);
}

#[test]
fn one_subscriber_has_no_more_rows_than_are_its_own() {
    let mut gateway = small_gateway();
    let mut greedy = Node::start("greedy", |config| config.durable = true);
    for number in 0..65 {
        greedy.router.subscribe(greedy.now, &format!("{number}"));
    }
    let line = link(&mut greedy, &mut gateway);
    settle(&mut greedy, &mut gateway, line);
    cut(&mut greedy, &mut gateway, line);
    assert_eq!(parted(&mut gateway), [CloseReason::Overloaded]);
    assert_eq!(gateway.held().rows.len(), 64);
}

#[test]
fn topics_in_use_are_not_forgotten() {
    let mut gateway = small_gateway();
    let (mut screen, mut sender) = (screen("used"), Node::start("sender", |_| {}));
    let view = meet(&mut screen, &mut gateway);
    let line = meet(&mut sender, &mut gateway);
    for round in 0..3000_u32 {
        let mode = if round % 1000 == 0 { Mode::All } else { Mode::BestEffort };
        let topic = if round % 1000 == 0 { "used" } else { &format!("{round}") };
        sender.router.send(sender.now, topic, &round.to_le_bytes(), mode).expect("the gateway is asked");
        settle(&mut sender, &mut gateway, line);
        settle(&mut screen, &mut gateway, view);
    }
    let got: Vec<_> = screen.got.iter().map(|(payload, _)| payload.clone()).collect();
    assert_eq!(got, [0_u32, 1000, 2000].map(|round| round.to_le_bytes().to_vec()));
}

#[test]
fn when_all_topics_are_in_use_another_waits_until_one_is_not() {
    let mut gateway = Node::start("gateway", |config: &mut NodeConfig| {
        config.takes_custody = true;
        config.topics_max = 64;
    });
    let subscribers = (0..20).map(|number| {
        let mut sub = Node::start(&format!("sub-{number}"), |_| {});
        for topic in 0..4 {
            sub.router.subscribe(sub.now, &format!("{number}/{topic}"));
        }
        sub
    });
    let mut subscribers: Vec<Node> = subscribers.collect();
    let lines: Vec<_> = subscribers.iter_mut().map(|sub| meet(sub, &mut gateway)).collect();
    assert_eq!(gateway.held().rows.len(), 64, "sixteen of them have what they want");
    for (sub, line) in subscribers.iter_mut().zip(lines) {
        cut(sub, &mut gateway, line);
    }
    gateway.pass(LEASE);
    assert_eq!(gateway.held().rows.len(), 0);
    meet(&mut subscribers[19], &mut gateway);
    assert_eq!(gateway.held().rows.len(), 4);
}

#[test]
fn a_row_that_changes_leaves_none_behind() {
    let mut gateway = small_gateway();
    for (address, durable) in [("", false), ("", true), ("127.0.0.1:1", true), ("127.0.0.1:2", true)] {
        let mut sub = Node::start("w", |config| {
            config.durable = durable;
            config.address = address.to_owned();
        });
        sub.router.subscribe(sub.now, "t");
        let line = meet(&mut sub, &mut gateway);
        cut(&mut sub, &mut gateway, line);
        assert_eq!(gateway.held().rows, [("t".to_owned(), "w".to_owned())], "{address:?} {durable}");
    }
    // It is durable after a restart, too.
    gateway.restart();
    gateway.pass(LEASE);
    assert_eq!(gateway.held().rows.len(), 1);
}
