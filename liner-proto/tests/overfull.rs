//! A subscriber that stays away, and more for it than may be queued for one node.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::id::ConnId;
use liner_proto::router::{Event, Framing, Quota, SendError};
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, link_with, meet, settle};

fn gateway(queue_quota: Quota) -> Node {
    Node::start("gateway", |config| {
        config.takes_custody = true;
        config.queue_quota = Some(queue_quota);
    })
}

fn subscriber(name: &str) -> Node {
    let mut sub = Node::start(name, |config| config.durable = true);
    sub.router.subscribe(sub.now, "t");
    sub
}

/// What was put aside and what was dropped because of the subscriber's quota, and how often that was said.
fn told(node: &mut Node) -> (u64, u64, usize) {
    let mut told = (0, 0, 0);
    for event in node.events() {
        if let Event::DeadLetter { name, reason: DeadReason::Quota, count, .. } = &event
            && **name == *"away"
        {
            told.0 += count;
        } else if let Event::Dropped { name, reason: DeadReason::Quota, count, .. } = &event
            && **name == *"away"
        {
            told.1 += count;
        } else {
            continue;
        }
        told.2 += 1;
    }
    told
}

#[test]
fn a_subscriber_that_stays_away_loses_messages_and_slows_nobody() {
    let mut gateway = gateway(Quota { messages: 10, bytes: 1 << 30 });
    let (mut away, mut live) = (subscriber("away"), subscriber("live"));
    let line = meet(&mut away, &mut gateway);
    cut(&mut away, &mut gateway, line);
    let view = meet(&mut live, &mut gateway);
    let mut sender = Node::start("sender", |_| {});
    let line = meet(&mut sender, &mut gateway);
    for number in 0..12_000_u32 {
        sender.router.send(sender.now, "t", &number.to_le_bytes(), Mode::All).expect("the gateway is asked");
        if number % 5 == 4 {
            settle(&mut sender, &mut gateway, line);
            settle(&mut live, &mut gateway, view);
        }
    }
    assert_eq!((sender.router.queued(), live.got.len()), (0, 12_000));
    gateway.pass(Duration::from_secs(2));
    let (aside, dropped, events) = told(&mut gateway);
    assert_eq!((aside, events), (gateway.dead().len() as u64, 4), "the first of each, and the rest");
    assert!(gateway.store.dead_letters().iter().all(|letter| *letter.peer == *"away"));
    assert!((8000..10_000).contains(&aside));
    assert!(gateway.held().queues["away"] <= 15, "what came in one turn may exceed it");

    meet(&mut away, &mut gateway);
    let got: Vec<_> = away.got.iter().map(|(payload, _)| payload.clone()).collect();
    assert_eq!(aside + dropped + got.len() as u64, 12_000);
    assert_eq!(got.last(), Some(&11_999_u32.to_le_bytes().to_vec()));
    let gap = Event::Gap { from: "gateway".into(), count: dropped, reason: GapReason::Dropped };
    assert!(away.events().contains(&gap), "it is told how many");
    assert_eq!(gateway.router.queued(), 0);
}

#[test]
fn bytes_are_counted_and_come_free_again() {
    let mut gateway = gateway(Quota { messages: u64::MAX, bytes: 100_000 });
    let mut away = subscriber("away");
    for round in 0..4 {
        let line = meet(&mut away, &mut gateway);
        away.got.clear();
        cut(&mut away, &mut gateway, line);
        let mut sent = 0;
        while gateway.router.send(gateway.now, "t", &[0; 1000], Mode::One).is_ok() {
            sent += 1;
            gateway.serve();
        }
        assert_eq!(gateway.router.send(gateway.now, "t", b"", Mode::All), Err(SendError::Busy));
        assert_eq!(sent, 100);
        if round % 2 == 0 {
            gateway.restart();
        }
        let line = meet(&mut away, &mut gateway);
        assert_eq!(away.got.len(), 100);
        cut(&mut away, &mut gateway, line);
    }
}

#[test]
fn what_waits_for_an_address_is_bounded_too() {
    let mut sender = Node::start("sender", |config| {
        config.queue_quota = Some(Quota { messages: 5, bytes: u64::MAX });
    });
    sender.router.add_peer(sender.now, "there");
    for mode in [Mode::One, Mode::All] {
        while sender.router.send(sender.now, "t", b"x", mode).is_ok() {
            sender.serve();
        }
        assert_eq!(sender.router.queued(), 5);
    }
    assert_eq!(sender.router.send(sender.now, "t", b"x", Mode::All), Err(SendError::Busy));
}

/// A subscriber that commits nothing: its window is used up, and what is behind it in the queue is dropped. A gap has no more room than
/// a message.
#[test]
fn a_gap_waits_for_the_window() {
    for window in [9_200, 9_226, 9_240] {
        gap_waits(window);
    }
}

/// A gateway without room for what exceeds the quota, and a subscriber, a sender and the connections of both.
struct Littered {
    gateway: Node,
    slow: Node,
    line: (ConnId, ConnId),
    sender: Node,
    to_gateway: (ConnId, ConnId),
}

impl Littered {
    fn new(window: u32) -> Self {
        let mut gateway = gateway(Quota { messages: 20, bytes: u64::MAX });
        let mut slow = Node::start("away", |config| {
            config.durable = true;
            config.limits.window_bytes = window;
        });
        slow.router.subscribe(slow.now, "t");
        let line = meet(&mut slow, &mut gateway);
        let mut sender = Node::start("sender", |_| {});
        let to_gateway = meet(&mut sender, &mut gateway);
        let mut other = subscriber("other");
        let view = meet(&mut other, &mut gateway);
        cut(&mut other, &mut gateway, view);
        let mut this = Self { gateway, slow, line, sender, to_gateway };
        for _ in 0..9_100 {
            this.send(b"x");
            settle(&mut this.slow, &mut this.gateway, this.line);
        }
        this.slow.got.clear();
        this.slow.events();
        this
    }

    fn send(&mut self, payload: &[u8]) {
        self.sender.router.send(self.sender.now, "t", payload, Mode::All).expect("the gateway is asked");
        settle(&mut self.sender, &mut self.gateway, self.to_gateway);
    }

    /// Bytes go to and fro, and the subscriber's store is away.
    fn pass_unserved(&mut self) {
        for _ in 0..4 {
            self.gateway.serve();
            let bytes = self.gateway.give(self.line.1);
            self.slow.take(self.line.0, bytes);
            let back = self.slow.give(self.line.0);
            self.gateway.take(self.line.1, back);
        }
    }

    /// What the subscriber was told of messages that do not come.
    fn lost(&mut self) -> u64 {
        let events = self.slow.events().into_iter();
        events.map(|event| if let Event::Gap { count, .. } = event { count } else { 0 }).sum()
    }
}

fn gap_waits(window: u32) {
    let mut world = Littered::new(window);
    for number in 0..60_u8 {
        world.send(&[number; 1000]);
        world.pass_unserved();
    }
    settle(&mut world.slow, &mut world.gateway, world.line);
    assert_eq!(
        world.slow.got.last().map(|(last, _)| last[0]),
        Some(59),
        "{window}: {:?}",
        world.slow.events()
    );
    assert_eq!(world.slow.got.len() as u64 + world.lost(), 60);
    assert_eq!(world.gateway.router.queued_for("away"), 0);
}

/// Messages that arrived, and were dropped by their sender before it knew, are none that are missing.
#[test]
fn a_gap_counts_what_did_not_arrive() {
    let mut world = Littered::new(1 << 20);
    for number in 0..5 {
        world.send(&[number]);
    }
    world.pass_unserved();
    cut(&mut world.slow, &mut world.gateway, world.line);
    for number in 5..30 {
        world.send(&[number]);
    }
    world.line = link_with(&mut world.slow, &mut world.gateway, Framing::Cobs);
    // On a line nobody says how far the one before had got.
    world.pass_unserved();
    settle(&mut world.slow, &mut world.gateway, world.line);
    let got: Vec<_> = world.slow.got.iter().map(|(payload, _)| payload[0]).collect();
    assert_eq!((&got[..5], got.last()), (&[0, 1, 2, 3, 4][..], Some(&29)));
    assert_eq!(got.len() as u64 + world.lost(), 30);
}
