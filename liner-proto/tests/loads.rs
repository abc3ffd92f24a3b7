//! Records that are read back from a store, and those that cannot be.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{GapReason, Queue, StoreFault};
use liner_proto::router::Event;
use liner_proto::wire::record::Mode;
use nodes::{LEASE, Node, cut, gateway, link, meet, settle};

/// A gateway that has so many messages for each of the subscribers in its store alone, and the subscribers.
fn stored_for<const COUNT: usize>(names: [&str; COUNT], count: u32) -> (Node, [Node; COUNT]) {
    let mut gateway = gateway(10);
    let mut subscribers = names.map(|name| Node::start(name, |config| config.durable = true));
    for sub in &mut subscribers {
        sub.router.subscribe(sub.now, "t");
        let line = meet(sub, &mut gateway);
        cut(sub, &mut gateway, line);
    }
    for number in 0..count {
        gateway.router.send(gateway.now, "t", &number.to_le_bytes(), Mode::All).expect("it is known");
    }
    gateway.serve();
    gateway.restart();
    (gateway, subscribers)
}

fn is_of_store(event: &Event) -> bool {
    matches!(event, Event::StoreFailed(_) | Event::StoreRecovered)
}

#[test]
fn a_queue_that_cannot_be_read_keeps_no_other_waiting() {
    let (mut gateway, [mut bad, mut good]) = stored_for(["bad", "good"], 50);
    gateway.unreadable = Some("bad");
    let broken = meet(&mut bad, &mut gateway);
    meet(&mut good, &mut gateway);
    assert_eq!((bad.got.len(), good.got.len()), (0, 50), "at once");
    let mut sender = Node::start("sender", |_| {});
    let line = meet(&mut sender, &mut gateway);
    for round in 0..20_u8 {
        sender.router.send(sender.now, "u", &[round], Mode::All).expect("the gateway is asked");
        settle(&mut sender, &mut gateway, line);
        assert_eq!(sender.router.queued(), 0, "commits go on");
        let at = gateway.router.poll_timeout().map(|(at, _)| at).expect("it is tried again");
        assert!(at > gateway.now && at <= gateway.now + Duration::from_millis(200));
        gateway.pass(Duration::from_millis(200));
        settle(&mut bad, &mut gateway, broken);
    }
    let events = gateway.events();
    let told: Vec<_> = events.iter().filter(|event| is_of_store(event)).collect();
    assert_eq!(told, [&Event::StoreFailed(StoreFault::Unavailable)], "once");
    gateway.unreadable = None;
    gateway.pass(Duration::from_millis(200));
    settle(&mut bad, &mut gateway, broken);
    assert_eq!(bad.got.len(), 50);
    assert!(gateway.events().contains(&Event::StoreRecovered));
}

/// Kept messages, one to a commit, of which the second is damaged, and the gateway that has them in its store alone.
fn damaged_topic() -> Node {
    let mut gateway = gateway(10);
    for number in 0..4_u8 {
        gateway.router.send(gateway.now, "t", &[number], Mode::One).expect("it is kept");
        gateway.serve();
    }
    assert!(gateway.store.damage(Queue::Topic("t"), 2));
    gateway.restart();
    gateway
}

fn damaged(queue: &str) -> Event {
    Event::Damaged { queue: queue.into(), count: 1 }
}

#[test]
fn what_is_damaged_in_a_kept_topic_is_a_gap_in_the_stream_that_it_moves_to() {
    for restart in [false, true] {
        let mut gateway = damaged_topic();
        let mut heir = Node::start("heir", |config| config.durable = true);
        heir.router.subscribe(heir.now, "t");
        let line = link(&mut heir, &mut gateway);
        if restart {
            // The heir is known, and the move is stored, before anything is sent.
            let (hello, _) = (heir.give(line.0), heir.serve());
            gateway.take(line.1, hello);
            let answer = gateway.give(line.1);
            heir.take(line.0, answer);
            let confirm = heir.give(line.0);
            gateway.take(line.1, confirm);
            gateway.serve();
            cut(&mut heir, &mut gateway, line);
            assert_eq!(gateway.held().queues["heir"], 3);
            assert_eq!(gateway.events().iter().filter(|event| **event == damaged("t")).count(), 1);
            gateway.restart();
            meet(&mut heir, &mut gateway);
        } else {
            settle(&mut heir, &mut gateway, line);
            assert!(gateway.events().contains(&damaged("t")));
        }
        let got: Vec<_> = heir.got.iter().map(|(payload, _)| payload[0]).collect();
        assert_eq!(got, [0, 2, 3]);
        let gap = Event::Gap { from: "gateway".into(), count: 1, reason: GapReason::Corrupt };
        assert!(heir.events().contains(&gap), "{restart}");
        assert_eq!(gateway.router.queued(), 0);
        // Its place in the stream is a number of its own.
        gateway.router.send(gateway.now, "t", b"x", Mode::One).expect("it is known");
        assert_eq!(gateway.router.queued_for("heir"), 1);
    }
}

#[test]
fn what_is_damaged_on_its_way_back_to_its_topic_is_told_here() {
    let (mut gateway, mut sub) = (gateway(10), Node::subscriber("sub"));
    let line = meet(&mut sub, &mut gateway);
    cut(&mut sub, &mut gateway, line);
    for number in 0..4_u8 {
        gateway.router.send(gateway.now, "t", &[number], Mode::One).expect("it has a lease");
        gateway.serve();
    }
    assert!(gateway.store.damage(Queue::Node("sub"), 2));
    gateway.restart();
    gateway.pass(LEASE);
    assert!(gateway.events().contains(&damaged("sub")));
    assert_eq!(gateway.held().queues["t"], 3);
}
