//! Records that are read back from a store, and those that cannot be.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::StoreFault;
use liner_proto::router::Event;
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, gateway, meet, settle};

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
