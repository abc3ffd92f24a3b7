//! A device that was switched off has forgotten what it had: what becomes of the commands that it may have had is up to whoever
//! runs its gateway.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::endpoint::TopicIndex;
use liner_proto::id::ConnId;
use liner_proto::pump::{self, Overflow};
use liner_proto::router::{Decision, Event, InDoubt, StoreRequest};
use liner_proto::store::execute;
use liner_proto::wire::record::Mode;

use nodes::device::{Device, command};
use nodes::{Node, cut, link, meet, settle};

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

/// Two commands are in doubt, and nothing else is queued.
fn asked_about_two(gateway: &mut Node) -> Device {
    let mut device = Device::new("boiler", 1);
    send(&mut device, gateway);
    device.connect(gateway);
    command(gateway, "boiler", "one");
    command(gateway, "boiler", "two");
    assert!(!gateway.give(device.conn.expect("connected")).is_empty(), "they leave");
    device.disconnect(gateway);
    let mut device = Device::new("boiler", 2);
    connect(&mut device, gateway);
    assert_eq!(questions(gateway), [("boiler".to_owned(), 2)]);
    device
}

#[test]
fn a_decision_is_about_one_life_of_the_device() {
    let mut gateway = gateway(InDoubt::Ask, None);
    let mut device = asked_about_two(&mut gateway);
    assert!(gateway.router.resolve_doubt(gateway.now, "boiler", Decision::Redeliver));
    // They leave once more, and the device may have had them when it is switched off again.
    assert!(!gateway.give(device.conn.expect("connected")).is_empty());
    device.disconnect(&mut gateway);
    let mut device = Device::new("boiler", 3);
    connect(&mut device, &mut gateway);
    assert_eq!(questions(&mut gateway), [("boiler".to_owned(), 2)]);
    assert_eq!(device.got, []);
}

#[test]
fn a_decision_that_was_not_carried_out_outlives_the_session() {
    for decision in [Decision::Redeliver, Decision::DeadLetter] {
        let mut gateway = gateway(InDoubt::Ask, None);
        let mut device = asked_about_two(&mut gateway);
        device.disconnect(&mut gateway);
        assert!(
            gateway.router.resolve_doubt(gateway.now, "boiler", decision),
            "whoever decides need not wait for it"
        );
        connect(&mut device, &mut gateway);
        assert_eq!(questions(&mut gateway), []);
        let redelivered = decision == Decision::Redeliver;
        assert_eq!((device.got.len(), gateway.dead().len()), if redelivered { (2, 0) } else { (0, 2) });
    }
}

/// The gateway's store has gone back, and begins a new epoch. Whoever remembers the one before it says what it has had.
#[test]
fn a_store_that_went_back_puts_nothing_in_doubt() {
    for policy in [InDoubt::Ask, InDoubt::DeadLetter] {
        let mut gateway = gateway(policy, None);
        let mut screen = Node::start("screen", |config| config.durable = true);
        screen.router.subscribe(screen.now, "t");
        let line = meet(&mut screen, &mut gateway);
        gateway.router.send(gateway.now, "t", b"had", Mode::One).expect("room");
        settle(&mut screen, &mut gateway, line);
        cut(&mut screen, &mut gateway, line);
        for payload in [b"one", b"two"] {
            gateway.router.send(gateway.now, "t", payload, Mode::One).expect("room");
        }
        gateway.serve();
        gateway.store.set_regressed(true);
        gateway.restart();
        gateway.serve();
        let line = meet(&mut screen, &mut gateway);
        assert_eq!((questions(&mut gateway), gateway.dead()), (vec![], vec![]), "{policy:?}");
        let got: Vec<_> = screen.got.iter().map(|(payload, _)| payload.as_slice()).collect();
        assert_eq!(got, [b"had", b"one", b"two"]);
        cut(&mut screen, &mut gateway, line);
    }
}

/// A new epoch is wanted while the store is busy: no session begins before it is there.
#[test]
fn no_session_begins_in_an_epoch_that_is_about_to_end() {
    let mut gateway = gateway(InDoubt::Ask, None);
    let mut first = Node::start("screen", |config| config.durable = true);
    first.router.subscribe(first.now, "t");
    let line = meet(&mut first, &mut gateway);
    gateway.router.send(gateway.now, "t", b"had", Mode::One).expect("room");
    settle(&mut first, &mut gateway, line);
    gateway.router.send(gateway.now, "t", b"one", Mode::One).expect("room");
    gateway.serve();
    assert!(!gateway.give(line.1).is_empty(), "it leaves");
    cut(&mut first, &mut gateway, line);
    gateway.router.send(gateway.now, "t", b"two", Mode::One).expect("room");
    let Some(StoreRequest::Commit(batch)) = gateway.router.poll_store(gateway.now) else {
        panic!("the store is asked")
    };
    // Somebody who has forgotten comes by, and then the one who has not.
    let mut other = Node::start("screen", |config| config.seed[0] += 1);
    let line = link(&mut other, &mut gateway);
    pass_unserved(&mut other, &mut gateway, line);
    let late = link(&mut first, &mut gateway);
    pass_unserved(&mut first, &mut gateway, late);
    assert_eq!(gateway.router.peers_up().count(), 0, "its messages are about to have other numbers");
    let outcome = execute(&mut gateway.store, &batch);
    gateway.router.handle_committed(gateway.now, batch.id(), outcome);
    settle(&mut first, &mut gateway, late);
    gateway.reap();
    first.reap();
    let late = link(&mut first, &mut gateway);
    settle(&mut first, &mut gateway, late);
    let asked = questions(&mut gateway);
    assert_eq!(asked, [("screen".to_owned(), 1)], "the other one may have had the first");
    assert!(gateway.router.resolve_doubt(gateway.now, "screen", Decision::Redeliver));
    settle(&mut first, &mut gateway, late);
    let got: Vec<_> = first.got.iter().map(|(payload, _)| payload.as_slice()).collect();
    assert_eq!(got, [b"had", b"one", b"two"]);
    assert_eq!(gateway.router.queued(), 0);
}

/// Bytes go to and fro, and no store answers.
fn pass_unserved(from: &mut Node, to: &mut Node, (here, there): (ConnId, ConnId)) {
    for _ in 0..5 {
        from.serve();
        let ahead = from.give(here);
        to.take(there, ahead);
        let back = to.give(there);
        from.take(here, back);
    }
}

/// What was asked before the store went back is asked after it, too.
#[test]
fn a_store_that_went_back_answers_no_question() {
    let mut gateway = gateway(InDoubt::Ask, None);
    let mut device = asked_about_two(&mut gateway);
    device.disconnect(&mut gateway);
    gateway.store.set_regressed(true);
    gateway.restart();
    connect(&mut device, &mut gateway);
    assert_eq!((questions(&mut gateway), device.got.len()), (vec![("boiler".to_owned(), 2)], 0));
}
