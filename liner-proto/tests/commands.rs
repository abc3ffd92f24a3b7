//! Messages to devices: a device's mailbox is the topic of its name, through whatever gateway it is connected to.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::endpoint::TopicIndex;
use liner_proto::pump;
use liner_proto::router::{Event, SendError, SendOptions};
use liner_proto::wire::record::Mode;

use nodes::device::{Device, command, command_with};
use nodes::{LEASE, Node, cut, gateway, link, meet, settle};

#[test]
fn a_device_is_sent_what_goes_to_its_name() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    device.connect(&mut gateway);
    command(&mut gateway, "boiler", "on");
    command(&mut gateway, "other", "not for it");
    device.settle(&mut gateway);
    assert_eq!(device.got, [("on".to_owned(), "sender".to_owned(), false)]);
    assert_eq!(gateway.router.queued_for("boiler"), 0);
}

#[test]
fn what_is_sent_before_a_device_was_ever_seen_is_kept_for_it() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    command(&mut gateway, "boiler", "one");
    gateway.restart();
    command(&mut gateway, "boiler", "two");
    device.connect(&mut gateway);
    assert_eq!(device.payloads(), ["one", "two"]);
    assert_eq!(gateway.router.queued(), 0);
}

#[test]
fn a_device_that_is_away_is_not_passed_over_for_whoever_watches_its_topic() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    let message = (TopicIndex(0), &b"21.5"[..]);
    let sent = pump::send(&mut device.endpoint, gateway.now, message, pump::Overflow::Refuse);
    sent.expect("room");
    device.connect(&mut gateway);
    device.disconnect(&mut gateway);
    gateway.pass(LEASE);
    gateway.restart();
    let mut watcher = Node::start("watcher", |config| config.durable = true);
    watcher.router.subscribe(watcher.now, "boiler");
    let line = meet(&mut watcher, &mut gateway);
    command(&mut gateway, "boiler", "on");
    settle(&mut watcher, &mut gateway, line);
    assert_eq!(watcher.got.len(), 1);
    device.connect(&mut gateway);
    assert_eq!(device.payloads(), ["on"]);
}

#[test]
fn a_device_that_only_connects_leaves_nothing() {
    let mut gateway = gateway(100);
    for life in 1..=3 {
        let mut device = Device::new("boiler", life);
        device.connect(&mut gateway);
        assert_eq!(gateway.held().rows, [("boiler".to_owned(), "boiler".to_owned())]);
        if life == 2 {
            command(&mut gateway, "boiler", "on");
            device.settle(&mut gateway);
            assert_eq!(device.payloads(), ["on"]);
        }
        device.disconnect(&mut gateway);
        gateway.pass(LEASE);
        gateway.pass(LEASE);
        let held = gateway.held();
        assert!(held.rows.is_empty() && !held.queues.contains_key("boiler"), "life {life}: {held:?}");
    }
}

// ------------------------------------------------------------------ time to live

const SECOND: Duration = Duration::from_secs(1);

/// Milliseconds on the wall.
const WALL: u64 = 1_700_000_000_000;

fn expired(gateway: &mut Node, name: &str) -> u64 {
    let expired = gateway.events().into_iter().filter_map(|event| {
        let Event::DeadLetter { name: whose, reason: DeadReason::Expired, count, .. } = event else {
            return None;
        };
        (*whose == *name).then_some(count)
    });
    expired.sum()
}

#[test]
fn a_command_that_is_too_old_does_not_reach_its_device() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    command_with(&mut gateway, "boiler", "soon", Some(30 * SECOND));
    command_with(&mut gateway, "boiler", "later", Some(60 * SECOND));
    command(&mut gateway, "boiler", "whenever");
    command_with(&mut gateway, "boiler", "soon too", Some(30 * SECOND));
    gateway.pass(30 * SECOND);
    device.connect(&mut gateway);
    assert_eq!(device.payloads(), ["later", "whenever"]);
    assert_eq!(device.gaps, [(1, GapReason::Expired), (1, GapReason::Expired)]);
    assert_eq!((gateway.dead(), gateway.router.queued()), (vec![DeadReason::Expired; 2], 0));
    assert_eq!(expired(&mut gateway, "boiler"), 2);
}

#[test]
fn each_hop_adds_the_time_that_a_message_waits_there() {
    for (waits, arrives) in [(19, true), (20, false)] {
        let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
        let mut sender = Node::start("sender", |_| {});
        let line = meet(&mut sender, &mut gateway);
        cut(&mut sender, &mut gateway, line);
        let options = SendOptions::new(Mode::All).ttl(30 * SECOND);
        sender.router.send_with(sender.now, "boiler", b"on", &options).expect("a gateway is known");
        sender.pass(10 * SECOND);
        let line = link(&mut sender, &mut gateway);
        settle(&mut sender, &mut gateway, line);
        assert_eq!(sender.router.queued(), 0);
        gateway.pass(waits * SECOND);
        device.connect(&mut gateway);
        assert_eq!((device.got.len() == 1, device.gaps.is_empty()), (arrives, arrives), "after {waits} s");
    }
}

#[test]
fn time_goes_on_while_the_node_is_not_running() {
    for (wall, away, arrives) in [(Some(WALL), 29, true), (Some(WALL), 30, false), (None, 1, false)] {
        let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
        gateway.wall = wall;
        gateway.restart();
        command_with(&mut gateway, "boiler", "on", Some(30 * SECOND));
        command(&mut gateway, "boiler", "next");
        gateway.now = gateway.now + away * SECOND;
        gateway.restart();
        device.connect(&mut gateway);
        let wanted: &[&str] = if arrives { &["on", "next"] } else { &["next"] };
        assert_eq!(device.payloads(), wanted, "{away} s, {wall:?}");
        assert_eq!(gateway.dead().len(), 2 - wanted.len());
    }
}

#[test]
fn a_clock_that_was_turned_back_makes_nothing_young() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    gateway.wall = Some(WALL);
    gateway.restart();
    command_with(&mut gateway, "boiler", "on", Some(30 * SECOND));
    gateway.wall = Some(WALL - 1000);
    gateway.restart();
    device.connect(&mut gateway);
    assert_eq!((device.payloads(), gateway.dead()), (vec![], vec![DeadReason::Expired]));
}

#[test]
fn messages_with_an_end_travel_among_others_in_order() {
    let mut gateway = gateway(100);
    let mut w = Node::start("w", |config| config.durable = true);
    w.router.subscribe(w.now, "t");
    let line = meet(&mut w, &mut gateway);
    cut(&mut w, &mut gateway, line);
    let mut sender = Node::start("sender", |_| {});
    let to_gateway = meet(&mut sender, &mut gateway);
    let mut wanted = Vec::new();
    for n in 0..200_u8 {
        let mut options = SendOptions::new(Mode::One);
        options.ttl = match n % 8 {
            3 | 4 => Some(SECOND),
            6 => Some(3600 * SECOND),
            _ => None,
        };
        if options.ttl != Some(SECOND) {
            wanted.push(vec![n]);
        }
        sender.router.send_with(sender.now, "t", &[n], &options).expect("room");
    }
    settle(&mut sender, &mut gateway, to_gateway);
    gateway.pass(SECOND);
    let line = link(&mut w, &mut gateway);
    settle(&mut w, &mut gateway, line);
    let got: Vec<Vec<u8>> = w.got.iter().map(|(payload, _)| payload.clone()).collect();
    assert_eq!(got, wanted);
    assert_eq!((gateway.dead().len(), expired(&mut gateway, "w")), (50, 50));
    let gaps = w.events().into_iter().filter_map(|event| {
        let Event::Gap { count, reason: GapReason::Expired, .. } = event else { return None };
        Some(count)
    });
    assert_eq!(gaps.sum::<u64>(), 50);
}

#[test]
fn a_time_to_live_has_bounds() {
    let mut gateway = gateway(100);
    for ttl in [Duration::ZERO, Duration::from_micros(999), 50 * 24 * 3600 * SECOND] {
        let options = SendOptions::new(Mode::All).ttl(ttl);
        assert_eq!(gateway.router.send_with(gateway.now, "t", b"x", &options), Err(SendError::BadTtl));
    }
    assert_eq!(gateway.router.queued(), 0);
}
