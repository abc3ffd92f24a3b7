//! A device that was switched off has forgotten what it had: what becomes of the commands that it may have had is up to whoever
//! runs its gateway.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::endpoint::TopicIndex;
use liner_proto::pump::{self, Overflow};
use liner_proto::router::{Decision, Event, InDoubt};

use nodes::Node;
use nodes::device::{Device, command};

const SECOND: Duration = Duration::from_secs(1);

fn gateway(default: InDoubt, boiler: Option<InDoubt>) -> Node {
    Node::start("gateway", |config| {
        config.takes_custody = true;
        config.in_doubt.default = default;
        config.in_doubt.by_name.extend(boiler.map(|policy| ("boiler".to_owned(), policy)));
    })
}

/// A device that has had one command and sent one reading, and that two more commands are on their way to when it is switched off. A
/// fourth is queued then. Its next life is connected, twice if need be.
fn reboot(gateway: &mut Node) -> Device {
    let mut device = Device::new("boiler", 1);
    send(&mut device, gateway);
    command(gateway, "boiler", "one");
    device.connect(gateway);
    assert_eq!(device.payloads(), ["one"]);
    command(gateway, "boiler", "two");
    command(gateway, "boiler", "three");
    let conn = device.conn.expect("connected");
    assert!(!gateway.give(conn).is_empty(), "they leave");
    device.disconnect(gateway);
    command(gateway, "boiler", "four");
    let mut device = Device::new("boiler", 2);
    connect(&mut device, gateway);
    device
}

fn send(device: &mut Device, gateway: &Node) {
    let message = (TopicIndex(0), &b"21.5"[..]);
    let sent = pump::send(&mut device.endpoint, gateway.now, message, Overflow::Refuse);
    sent.expect("room");
}

/// Connects until the session stays.
fn connect(device: &mut Device, gateway: &mut Node) {
    for _ in 0..3 {
        gateway.pass(2 * SECOND);
        device.connect(gateway);
        if device.endpoint.is_up() {
            return;
        }
        device.disconnect(gateway);
    }
    panic!("no session stays");
}

fn questions(gateway: &mut Node) -> Vec<(String, u64)> {
    let asked = gateway.events().into_iter().filter_map(|event| {
        let Event::InDoubt { name, count } = event else { return None };
        Some((name.into(), count))
    });
    asked.collect()
}

fn marked(device: &Device) -> Vec<(&str, bool)> {
    device.got.iter().map(|(payload, _, again)| (payload.as_str(), *again)).collect()
}

#[test]
fn without_a_policy_they_come_again_and_say_so() {
    for boiler in [None, Some(InDoubt::Redeliver)] {
        let default = if boiler.is_some() { InDoubt::Ask } else { InDoubt::Redeliver };
        let mut gateway = gateway(default, boiler);
        let device = reboot(&mut gateway);
        assert_eq!(marked(&device), [("two", true), ("three", true), ("four", false)]);
        assert_eq!((questions(&mut gateway), gateway.dead()), (vec![], vec![]));
    }
}

#[test]
fn they_become_dead_letters_and_what_is_behind_them_arrives() {
    let mut gateway = gateway(InDoubt::Redeliver, Some(InDoubt::DeadLetter));
    let device = reboot(&mut gateway);
    assert_eq!(marked(&device), [("four", false)]);
    assert_eq!(device.gaps, [(2, GapReason::InDoubt)]);
    assert_eq!(gateway.dead(), [DeadReason::InDoubt; 2]);
    assert_eq!(gateway.router.queued_for("boiler"), 0);
    assert!(!gateway.events().iter().any(|event| matches!(event, Event::Regressed { .. })));
}

#[test]
fn they_wait_until_it_is_decided() {
    for (decision, restarts) in [
        (Decision::Redeliver, false),
        (Decision::Redeliver, true),
        (Decision::DeadLetter, false),
        (Decision::DeadLetter, true),
    ] {
        let mut gateway = gateway(InDoubt::Ask, None);
        let mut device = reboot(&mut gateway);
        assert_eq!((device.got.len(), device.gaps.len()), (0, 0));
        assert_eq!(questions(&mut gateway), [("boiler".to_owned(), 2)]);
        send(&mut device, &gateway);
        device.settle(&mut gateway);
        assert_eq!(device.endpoint.queued(), 0, "what the device sends is taken all the same");
        // The next session knows the stream, and so does the next life of the gateway, which cannot tell any more what it has sent.
        device.disconnect(&mut gateway);
        if restarts {
            gateway.restart();
        }
        connect(&mut device, &mut gateway);
        assert_eq!(questions(&mut gateway), [("boiler".to_owned(), 2)], "it is asked again");
        assert_eq!(gateway.router.in_doubt().collect::<Vec<_>>(), ["boiler"]);
        assert!(!gateway.router.resolve_doubt(gateway.now, "other", decision));
        assert!(gateway.router.resolve_doubt(gateway.now, "boiler", decision));
        assert!(!gateway.router.resolve_doubt(gateway.now, "boiler", decision), "once");
        device.settle(&mut gateway);
        match decision {
            Decision::Redeliver => {
                // After a restart the fourth may have been sent, for all that the gateway knows.
                assert_eq!(marked(&device), [("two", true), ("three", true), ("four", restarts)]);
                assert_eq!(gateway.dead(), []);
            }
            Decision::DeadLetter => {
                assert_eq!(marked(&device), [("four", restarts)]);
                assert_eq!(
                    (device.gaps.as_slice(), gateway.dead().len()),
                    (&[(2, GapReason::InDoubt)][..], 2)
                );
            }
        }
        assert_eq!((gateway.router.queued_for("boiler"), gateway.router.in_doubt().count()), (0, 0));
    }
}

#[test]
fn a_policy_given_later_counts_for_what_waits() {
    let mut gateway = gateway(InDoubt::Ask, None);
    let mut device = reboot(&mut gateway);
    device.disconnect(&mut gateway);
    gateway.configure(|config| config.in_doubt.default = InDoubt::DeadLetter);
    gateway.restart();
    connect(&mut device, &mut gateway);
    assert_eq!((marked(&device), gateway.dead()), (vec![("four", true)], vec![DeadReason::InDoubt; 2]));
}

#[test]
fn what_was_never_sent_is_in_no_doubt() {
    for policy in [InDoubt::Ask, InDoubt::DeadLetter] {
        let mut gateway = gateway(policy, None);
        let mut device = Device::new("boiler", 1);
        send(&mut device, &gateway);
        device.connect(&mut gateway);
        device.disconnect(&mut gateway);
        command(&mut gateway, "boiler", "one");
        let mut device = Device::new("boiler", 2);
        connect(&mut device, &mut gateway);
        assert_eq!((marked(&device), gateway.dead()), (vec![("one", false)], vec![]));
    }
}

#[test]
fn a_device_that_is_switched_off_again_and_again_is_asked_about_what_it_may_have_had() {
    let mut gateway = gateway(InDoubt::Ask, None);
    reboot(&mut gateway).disconnect(&mut gateway);
    for life in 3..6 {
        questions(&mut gateway);
        let mut device = Device::new("boiler", life);
        connect(&mut device, &mut gateway);
        assert_eq!(questions(&mut gateway), [("boiler".to_owned(), 2)], "the fourth has never left");
        assert_eq!(device.got, []);
        device.disconnect(&mut gateway);
    }
}
