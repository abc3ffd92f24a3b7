//! Two nodes under one name: the one that is there stays, and one that only seems to be there makes room.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::endpoint::{DeviceConfig, StoredEndpoint};
use liner_proto::id::ConnId;
use liner_proto::pump;
use liner_proto::router::{Event, Framing};
use liner_proto::store::{RamStore, Store};
use liner_proto::timer::Wakeup;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, gateway, link, link_with, meet, settle};

/// How long an older connection has to answer.
const PATIENCE: Duration = Duration::from_millis(500);

type Device = StoredEndpoint<'static, 512, 256>;

/// A subscriber of the name "sub", of which each has an instance of its own.
fn sub(instance: u64) -> Node {
    let mut node = Node::start("sub", |config| {
        config.instance = instance;
        config.seed[0] ^= instance;
    });
    node.router.subscribe(node.now, "t");
    node
}

/// The node dials the gateway and says hello.
fn call(from: &mut Node, to: &mut Node) -> (ConnId, ConnId) {
    let line = link(from, to);
    let hello = from.give(line.0);
    to.take(line.1, hello);
    line
}

fn up(gateway: &Node) -> Vec<&str> {
    gateway.router.peers_up().collect()
}

/// The messages that a node was handed.
fn got(node: &Node) -> Vec<&[u8]> {
    node.got.iter().map(|(payload, _)| &payload[..]).collect()
}

fn send(gateway: &mut Node, payload: &[u8]) {
    gateway.router.send(gateway.now, "t", payload, Mode::One).expect("somebody has subscribed");
}

fn refused(events: &[Event], who: Option<&str>, with: CloseReason, by_us: bool) -> bool {
    let is_it = |event: &Event| {
        let Event::HandshakeFailed { name, reason, dialed, .. } = event else { return false };
        (name.as_deref(), *reason, *dialed) == (who, with, by_us)
    };
    events.iter().any(is_it)
}

fn down(reason: CloseReason) -> Event {
    Event::PeerDown { name: "sub".into(), reason, dialed: false }
}

#[test]
fn one_that_is_there_keeps_its_name() {
    for framing in [Framing::Length, Framing::Cobs] {
        let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
        let line = link_with(&mut first, &mut gateway, framing);
        settle(&mut first, &mut gateway, line);
        gateway.events();
        let other = link_with(&mut second, &mut gateway, framing);
        let hello = second.give(other.0);
        gateway.take(other.1, hello);
        assert!(gateway.give(other.1).is_empty(), "it is not known yet who the name belongs to");
        settle(&mut first, &mut gateway, line);
        settle(&mut second, &mut gateway, other);
        gateway.reap();
        second.reap();
        let events = gateway.events();
        assert!(refused(&events, Some("sub"), CloseReason::NameInUse, false), "{events:?}");
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(refused(&second.events(), None, CloseReason::NameInUse, true));
        send(&mut gateway, b"on it goes");
        settle(&mut first, &mut gateway, line);
        assert_eq!(got(&first), [b"on it goes"]);
        assert!(got(&second).is_empty());
    }
}

#[test]
fn one_that_does_not_answer_is_replaced_in_half_a_second() {
    for framing in [Framing::Length, Framing::Cobs] {
        let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
        let line = link_with(&mut first, &mut gateway, framing);
        settle(&mut first, &mut gateway, line);
        gateway.events();
        let other = link_with(&mut second, &mut gateway, framing);
        let hello = second.give(other.0);
        gateway.take(other.1, hello);
        assert!(gateway.give(other.1).is_empty());
        while gateway.router.poll_writable().is_some() {}
        // Nobody is at the other end of this one any more.
        let probe = gateway.give(line.1);
        assert!(!probe.is_empty());
        // On a line the probe, or what was sent before it, is sent again earlier.
        let due = gateway.router.poll_timeout().expect("the peer has no longer than this");
        assert!(due.0 <= gateway.now + PATIENCE && (framing == Framing::Cobs || due.1 == Wakeup::Probe));
        gateway.pass(PATIENCE - Duration::from_micros(1));
        assert!(gateway.give(other.1).is_empty());
        gateway.pass(Duration::from_micros(1));
        let due = gateway.router.poll_timeout().expect("a handshake has an end");
        assert!(due.0 > gateway.now, "{due:?}");
        let writable: Vec<_> = std::iter::from_fn(|| gateway.router.poll_writable()).collect();
        assert!(writable.contains(&other.1), "it is answered without being asked for");
        settle(&mut second, &mut gateway, other);
        gateway.reap();
        assert!(gateway.events().starts_with(&[down(CloseReason::Replaced)]));
        assert_eq!(up(&gateway), ["sub"]);
        send(&mut gateway, b"to the one that is there");
        settle(&mut second, &mut gateway, other);
        assert_eq!(got(&second), [b"to the one that is there"]);
        // What the first one says now, should it come back to life, is too late.
        first.take(line.0, probe);
        let late = first.give(line.0);
        gateway.take(line.1, late);
        assert_eq!(up(&gateway), ["sub"]);
    }
}

#[test]
fn an_answer_that_comes_too_late_changes_nothing() {
    let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
    let line = meet(&mut first, &mut gateway);
    let other = call(&mut second, &mut gateway);
    assert!(gateway.give(other.1).is_empty());
    let probe = gateway.give(line.1);
    gateway.pass(PATIENCE);
    let answer = gateway.give(other.1);
    first.take(line.0, probe);
    let echo = first.give(line.0);
    gateway.take(line.1, echo);
    second.take(other.0, answer);
    settle(&mut second, &mut gateway, other);
    gateway.reap();
    send(&mut gateway, b"x");
    settle(&mut second, &mut gateway, other);
    assert_eq!(got(&second), [b"x"]);
}

#[test]
fn what_was_sent_before_its_sender_died_is_no_answer() {
    let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
    first.router.add_peer(first.now, "there");
    let line = meet(&mut first, &mut gateway);
    first.router.send(first.now, "u", b"its last words", Mode::All).expect("the gateway takes it");
    first.serve();
    let last = first.give(line.0);
    let other = call(&mut second, &mut gateway);
    assert!(gateway.give(other.1).is_empty());
    gateway.take(line.1, last);
    gateway.pass(PATIENCE);
    settle(&mut second, &mut gateway, other);
    gateway.reap();
    assert!(gateway.events().contains(&down(CloseReason::Replaced)));
    assert!(!second.events().is_empty() && up(&gateway) == ["sub"]);
}

#[test]
fn one_whose_link_ends_makes_room_at_once() {
    let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
    let line = meet(&mut first, &mut gateway);
    let other = call(&mut second, &mut gateway);
    assert!(gateway.give(other.1).is_empty());
    while gateway.router.poll_writable().is_some() {}
    cut(&mut first, &mut gateway, line);
    assert_eq!(gateway.router.poll_writable(), Some(other.1));
    settle(&mut second, &mut gateway, other);
    assert_eq!(up(&gateway), ["sub"]);
}

#[test]
fn the_same_instance_takes_its_own_place_at_once() {
    // Of those that do not say which start they are one cannot be told from another.
    for (before, after) in [(1, 1), (0, 0)] {
        let (mut gateway, mut first, mut second) = (gateway(9), sub(before), sub(after));
        meet(&mut first, &mut gateway);
        gateway.events();
        meet(&mut second, &mut gateway);
        assert!(gateway.events().starts_with(&[down(CloseReason::Replaced)]));
        assert_eq!(up(&gateway), ["sub"]);
    }
}

#[test]
fn one_that_comes_back_on_another_link_is_asked_there() {
    let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
    meet(&mut first, &mut gateway);
    let other = call(&mut second, &mut gateway);
    let line = meet(&mut first, &mut gateway);
    settle(&mut second, &mut gateway, other);
    gateway.reap();
    assert!(refused(&gateway.events(), Some("sub"), CloseReason::NameInUse, false));
    send(&mut gateway, b"x");
    settle(&mut first, &mut gateway, line);
    assert_eq!(got(&first), [b"x"]);
}

#[test]
fn of_two_that_wait_for_the_same_place_one_has_it() {
    let mut gateway = gateway(9);
    let [mut first, mut second, mut third] = [sub(1), sub(2), sub(3)];
    meet(&mut first, &mut gateway);
    let (one, other) = (call(&mut second, &mut gateway), call(&mut third, &mut gateway));
    assert!(gateway.give(one.1).is_empty() && gateway.give(other.1).is_empty());
    gateway.pass(PATIENCE);
    let answers = (gateway.give(one.1), gateway.give(other.1));
    second.take(one.0, answers.0);
    third.take(other.0, answers.1);
    settle(&mut second, &mut gateway, one);
    gateway.events();
    // The second one is asked before the third one may have its place: not on this connection any more.
    settle(&mut third, &mut gateway, other);
    gateway.reap();
    third.reap();
    assert!(refused(&gateway.events(), None, CloseReason::Normal, false));
    let other = call(&mut third, &mut gateway);
    assert!(gateway.give(other.1).is_empty());
    settle(&mut second, &mut gateway, one);
    settle(&mut third, &mut gateway, other);
    gateway.reap();
    assert!(refused(&gateway.events(), Some("sub"), CloseReason::NameInUse, false));
}

#[test]
fn a_restart_on_a_crossed_dial_takes_its_place_too() {
    // The gateway has the smaller name and dialled: of two links that crossed, its own would stay.
    let (mut gateway, mut first, mut second) = (gateway(9), sub(1), sub(2));
    meet(&mut gateway, &mut first);
    let other = call(&mut second, &mut gateway);
    assert!(gateway.give(other.1).is_empty());
    gateway.pass(PATIENCE);
    settle(&mut second, &mut gateway, other);
    gateway.events();
    send(&mut gateway, b"x");
    settle(&mut second, &mut gateway, other);
    assert_eq!(got(&second), [b"x"]);
}

/// Frames go to and fro between a device and its gateway until nothing is left to say.
fn talk(device: &mut Device, store: &mut RamStore<2048>, gateway: &mut Node, conn: ConnId) {
    let mut received = Vec::new();
    loop {
        let mut scratch = [0; 1024];
        let mut both = pump::WithStore { endpoint: device, store };
        let (sent, served) = pump::turn(&mut both, gateway.now, &received, &mut scratch, |_| {});
        served.expect("in memory");
        gateway.take(conn, sent.to_vec());
        gateway.serve();
        received = gateway.give(conn);
        if sent.is_empty() && received.is_empty() {
            return;
        }
    }
}

fn device(seed: u64) -> Device {
    Device::new(DeviceConfig::new("dev", &["readings"], [seed, 2]), nodes::NOW)
}

#[test]
fn a_device_that_is_there_keeps_its_name_and_one_that_reboots_is_back_in_half_a_second() {
    let (mut gateway, mut first, mut store) = (gateway(9), device(1), RamStore::new());
    let conn = gateway.router.handle_accepted(gateway.now, Framing::Cobs);
    talk(&mut first, &mut store, &mut gateway, conn);
    assert!(first.is_up());
    // Another device of that name.
    let (mut second, mut other_store) = (device(2), RamStore::new());
    let other = gateway.router.handle_accepted(gateway.now, Framing::Cobs);
    talk(&mut second, &mut other_store, &mut gateway, other);
    talk(&mut first, &mut store, &mut gateway, conn);
    talk(&mut second, &mut other_store, &mut gateway, other);
    gateway.reap();
    assert!(first.is_up() && !second.is_up());
    assert!(refused(&gateway.events(), Some("dev"), CloseReason::NameInUse, false));
    // The first one again, with what its store remembers, behind a link that nobody has seen break.
    let mut again = device(3);
    store.recover(&mut |item| again.restore(&item)).expect("in memory");
    let other = gateway.router.handle_accepted(gateway.now, Framing::Cobs);
    talk(&mut again, &mut store, &mut gateway, other);
    assert!(!again.is_up(), "its first start may be there");
    gateway.pass(PATIENCE);
    talk(&mut again, &mut store, &mut gateway, other);
    assert!(again.is_up());
}

#[test]
fn a_connection_that_comes_while_the_node_closes_is_closed() {
    for framing in [Framing::Length, Framing::Cobs] {
        let (mut gateway, mut sub) = (gateway(9), sub(1));
        let dial = gateway.router.add_peer(gateway.now, "there");
        assert!(gateway.router.poll_dial(gateway.now).is_some());
        gateway.router.close(gateway.now);
        let conn = gateway.router.handle_dialed(gateway.now, dial, framing);
        assert!(!gateway.give(conn).is_empty());
        assert_eq!(gateway.router.poll_close(), Some(conn));
        let line = link_with(&mut sub, &mut gateway, framing);
        let told = gateway.give(line.1);
        assert_eq!(gateway.router.poll_close(), Some(line.1));
        sub.give(line.0);
        sub.take(line.0, told);
        sub.reap();
        assert!(refused(&sub.events(), None, CloseReason::Shutdown, true));
    }
}

#[test]
fn one_that_does_not_say_which_instance_it_is_takes_no_name_from_one_that_is_there() {
    let (mut gateway, mut first, mut nameless) = (gateway(9), sub(1), sub(2));
    nameless.configure(|config| config.instance = 0);
    nameless.restart();
    nameless.router.subscribe(nameless.now, "t");
    let line = meet(&mut first, &mut gateway);
    let other = link(&mut nameless, &mut gateway);
    settle(&mut nameless, &mut gateway, other);
    settle(&mut first, &mut gateway, line);
    settle(&mut nameless, &mut gateway, other);
    send(&mut gateway, b"for the first");
    settle(&mut nameless, &mut gateway, other);
    settle(&mut first, &mut gateway, line);
    assert_eq!((got(&first), got(&nameless)), (vec![&b"for the first"[..]], vec![]));
}
