//! Names end: what is left of those who are gone for good, and what is not.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::collections::BTreeMap;

use std::time::Duration;

use liner_proto::effect::Outcome;
use liner_proto::id::{Epoch, SessionId};
use liner_proto::router::{Event, Framing, StoreRequest};
use liner_proto::seal;
use liner_proto::store::execute;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::handshake::{About, Acks, Confirm, Hello, StreamFields};
use liner_proto::wire::record::Mode;
use liner_proto::wire::{self, Body};
use nodes::{Held, LEASE, Node, cut, gateway, link, meet, settle};

/// Messages of 60 KiB, so that a queue of them is returned in several turns.
const LARGE: usize = 60 * 1024;

fn large(number: u8) -> Vec<u8> {
    vec![number; LARGE]
}

/// A gateway with 48 large messages that wait for a subscriber without a name of its own, who is away.
fn gateway_with_a_long_queue() -> (Node, Node) {
    let mut gateway = gateway(100);
    let mut sub = Node::subscriber("sub");
    let line = meet(&mut sub, &mut gateway);
    cut(&mut sub, &mut gateway, line);
    for number in 0..48 {
        gateway.router.send(gateway.now, "t", &large(number), Mode::One).expect("it is known");
        gateway.serve();
    }
    assert_eq!(gateway.held().queues, BTreeMap::from([("sub".to_owned(), 48)]));
    (gateway, sub)
}

/// Lets a lease pass, and the first part of the queue be returned.
fn give_back_a_part(gateway: &mut Node) {
    gateway.now = gateway.now + LEASE;
    gateway.router.handle_timeout(gateway.now);
    assert!(gateway.serve_one());
    let held = gateway.held();
    assert!((1..48).contains(&held.queues["t"]), "{held:?}");
    assert_eq!(held.queues["t"] + held.queues["sub"], 48);
}

#[test]
fn two_hundred_subscribers_without_a_name_one_after_another_leave_nothing() {
    let mut gateway = gateway(3);
    for number in 0..200_u8 {
        let mut sub = Node::subscriber(&format!("sub-{number}"));
        let line = meet(&mut sub, &mut gateway);
        gateway.router.send(gateway.now, "t", &[number], Mode::One).expect("it is there");
        settle(&mut sub, &mut gateway, line);
        assert_eq!(sub.got, [(vec![number], false)]);
        cut(&mut sub, &mut gateway, line);
        if number % 2 == 0 {
            gateway.router.send(gateway.now, "t", b"too late", Mode::All).expect("it has a lease");
        }
        gateway.pass(LEASE);
    }
    assert_eq!(gateway.held(), Held::default());
    assert_eq!(gateway.router.handed_on(), 200 + 100, "closed queues count");
    let refused = |event: &Event| matches!(event, Event::NamesFull { .. } | Event::HandshakeFailed { .. });
    assert!(!gateway.events().iter().any(refused));
}

#[test]
fn whoever_only_connects_under_ever_new_names_takes_no_place() {
    let mut gateway = gateway(3);
    for number in 0..1000 {
        let mut visitor = Node::start(&format!("visitor-{number}"), |_| {});
        let line = meet(&mut visitor, &mut gateway);
        assert_eq!(gateway.router.peers_up().count(), 1, "visitor {number}");
        cut(&mut visitor, &mut gateway, line);
    }
    gateway.serve();
    assert_eq!(gateway.held(), Held::default());
    assert_eq!(gateway.router.poll_timeout(), None, "nobody is waited for");
}

#[test]
fn a_handshake_that_comes_to_nothing_takes_no_place() {
    let mut gateway = gateway(3);
    for number in 0..100 {
        let conn = gateway.router.handle_accepted(gateway.now, Framing::Length);
        let name = format!("liar-{number}");
        let about = About {
            inbox: Epoch(1),
            acks: Acks::Processed,
            frame_max: 1 << 16,
            message_max: 1 << 15,
            window_messages: 8,
            window_bytes: 1 << 16,
            bindings_max: 64,
            seals: About::SEAL_CRC32C,
            roles: 0,
        };
        let (version_min, version_max, nonce) = (1, 1, 7);
        let hello = Hello { version_min, version_max, name: &name, instance: 1, nonce, about };
        gateway.take(conn, frame(SessionId::HANDSHAKE, &Body::Hello(hello)));
        let answer = gateway.give(conn);
        let Ok(Body::Answer(answer)) = wire::decode(&answer[4 + seal::LEN..]) else {
            panic!("liar {number} is answered")
        };
        let parts = [&nonce.to_le_bytes()[..], &answer.nonce.to_le_bytes()[..]];
        let session = SessionId(seal::checksum(SessionId::HANDSHAKE, &parts).max(1));
        // What it sends next stands before its oldest.
        let stream = StreamFields {
            epoch: Epoch(2),
            predecessor: None,
            oldest: 5,
            next: 3,
            known: None,
            assigned: None,
        };
        gateway.take(conn, frame(session, &Body::Confirm(Confirm { echo: answer.nonce, stream })));
        gateway.router.handle_closed(gateway.now, conn);
        let failed =
            |event: &Event| matches!(event, Event::HandshakeFailed { reason: CloseReason::Violation, .. });
        assert!(gateway.events().iter().any(failed), "liar {number}");
        // Of too many in a second only the number would be told.
        gateway.pass(Duration::from_millis(100));
    }
    assert_eq!(gateway.router.poll_timeout(), None, "nobody is waited for");
}

fn frame(session: SessionId, body: &Body<'_>) -> Vec<u8> {
    let mut bytes = [0; 512];
    let len = wire::encode(body, &mut bytes).expect("room");
    let body = &bytes[..len];
    let length = (len + seal::LEN) as u32;
    [&length.to_le_bytes()[..], &seal::seal(session, &[body]), body].concat()
}

#[test]
fn who_sent_something_keeps_its_name_and_one_too_many_is_told_of_once() {
    let mut gateway = gateway(2);
    let mut senders: Vec<Node> = (0..4).map(|n| Node::start(&format!("sender-{n}"), |_| {})).collect();
    for sender in &mut senders {
        sender.router.add_peer(sender.now, "there");
        sender.router.send(sender.now, "t", b"", Mode::All).expect("the gateway is asked");
        let line = meet(sender, &mut gateway);
        cut(sender, &mut gateway, line);
        gateway.pass(LEASE);
    }
    let events = gateway.events();
    let full = events.iter().filter(|event| **event == Event::NamesFull { max: 2 });
    assert_eq!(full.count(), 1);
    let overloaded =
        |event: &&Event| matches!(event, Event::HandshakeFailed { reason: CloseReason::Overloaded, .. });
    assert_eq!(events.iter().filter(overloaded).count(), 2);
    assert_eq!(gateway.held().cursors, ["sender-0", "sender-1"], "what was taken is not taken again");
    // The first one is known for as long as it may send that again.
    let first = &mut senders[0];
    let line = meet(first, &mut gateway);
    first.router.send(first.now, "t", b"", Mode::All).expect("the gateway is asked");
    settle(first, &mut gateway, line);
    assert_eq!((first.router.queued(), gateway.router.queued()), (0, 3));
}

#[test]
fn one_that_comes_back_while_its_queue_is_given_back_has_the_rest() {
    let (mut gateway, mut sub) = gateway_with_a_long_queue();
    give_back_a_part(&mut gateway);
    let returned = gateway.held().queues["t"];
    let line = link(&mut sub, &mut gateway);
    let hello = sub.give(line.0);
    gateway.take(line.1, hello);
    settle(&mut sub, &mut gateway, line);
    assert_eq!(gateway.held().queues["t"], returned);
    let rest = (returned as u8..48).map(|number| (large(number), false));
    assert_eq!(sub.got, rest.collect::<Vec<_>>());
    assert_eq!(gateway.held().rows, [("t".to_owned(), "sub".to_owned())]);
    gateway.router.send(gateway.now, "t", b"new", Mode::One).expect("it is there");
    settle(&mut sub, &mut gateway, line);
    assert_eq!(sub.got.last(), Some(&(b"new".to_vec(), false)));
    cut(&mut sub, &mut gateway, line);
    gateway.pass(LEASE);
    let held = gateway.held();
    assert_eq!(held, Held { queues: BTreeMap::from([("t".to_owned(), returned)]), ..Held::default() });
}

#[test]
fn a_gateway_that_starts_anew_goes_on_with_what_it_gave_back() {
    let (mut gateway, _) = gateway_with_a_long_queue();
    give_back_a_part(&mut gateway);
    gateway.restart();
    gateway.pass(LEASE);
    let all = Held { queues: BTreeMap::from([("t".to_owned(), 48)]), ..Held::default() };
    assert_eq!(gateway.held(), all);
    // Whoever has it in the end had it once, marked.
    let mut heir = Node::start("heir", |config| config.durable = true);
    heir.router.subscribe(heir.now, "t");
    meet(&mut heir, &mut gateway);
    assert_eq!(heir.got, (0..48).map(|number| (large(number), true)).collect::<Vec<_>>());
    assert_eq!(gateway.held().queues, BTreeMap::from([("heir".to_owned(), 0)]), "nothing is kept any more");
}

#[test]
fn a_queue_that_was_being_closed_is_closed_after_a_restart() {
    let mut gateway = gateway(100);
    let mut sub = Node::subscriber("sub");
    let line = meet(&mut sub, &mut gateway);
    gateway.router.send(gateway.now, "t", b"x", Mode::One).expect("it is there");
    settle(&mut sub, &mut gateway, line);
    cut(&mut sub, &mut gateway, line);
    gateway.now = gateway.now + LEASE;
    gateway.router.handle_timeout(gateway.now);
    let Some(StoreRequest::Commit(_)) = gateway.router.poll_store(gateway.now) else {
        panic!("the queue is to be closed")
    };
    assert_eq!(gateway.held().queues.len(), 1);
    gateway.restart();
    gateway.pass(LEASE);
    assert_eq!(gateway.held(), Held::default());
}

#[test]
fn one_that_calls_while_its_queue_is_closed_waits_and_begins_anew() {
    let mut gateway = gateway(100);
    let mut sub = Node::subscriber("sub");
    let line = meet(&mut sub, &mut gateway);
    gateway.router.send(gateway.now, "t", b"old", Mode::One).expect("it is there");
    settle(&mut sub, &mut gateway, line);
    cut(&mut sub, &mut gateway, line);
    gateway.now = gateway.now + LEASE;
    gateway.router.handle_timeout(gateway.now);
    let Some(StoreRequest::Commit(batch)) = gateway.router.poll_store(gateway.now) else {
        panic!("the queue is to be closed")
    };
    let line = link(&mut sub, &mut gateway);
    let hello = sub.give(line.0);
    gateway.take(line.1, hello);
    assert!(gateway.give(line.1).is_empty(), "the store has not forgotten the queue");
    // The first attempt fails, and takes nothing along.
    let fault = Some(liner_proto::effect::StoreFault::Unavailable);
    gateway.router.handle_committed(gateway.now, batch.id(), Outcome { groups: 0, fault });
    assert!(gateway.give(line.1).is_empty());
    gateway.now = gateway.now + LEASE / 10;
    gateway.router.handle_timeout(gateway.now);
    let Some(StoreRequest::Commit(batch)) = gateway.router.poll_store(gateway.now) else {
        panic!("the queue is still to be closed")
    };
    let outcome = execute(&mut gateway.store, &batch);
    gateway.router.handle_committed(gateway.now, batch.id(), outcome);
    settle(&mut sub, &mut gateway, line);
    gateway.router.send(gateway.now, "t", b"new", Mode::One).expect("it is there");
    settle(&mut sub, &mut gateway, line);
    assert_eq!(sub.got, [(b"old".to_vec(), false), (b"new".to_vec(), false)]);
    assert_eq!(gateway.held().rows, [("t".to_owned(), "sub".to_owned())]);
}

#[test]
fn one_that_comes_back_after_it_was_forgotten_has_what_is_new() {
    let mut gateway = gateway(100);
    let mut sub = Node::subscriber("sub");
    for life in 0..5_u8 {
        let line = meet(&mut sub, &mut gateway);
        gateway.router.send(gateway.now, "t", &[life], Mode::One).expect("it is there");
        settle(&mut sub, &mut gateway, line);
        cut(&mut sub, &mut gateway, line);
        gateway.pass(LEASE);
        assert_eq!(gateway.held(), Held::default());
        assert!(gateway.router.is_idle());
    }
    assert_eq!(sub.got, (0..5).map(|life| (vec![life], false)).collect::<Vec<_>>());
}

/// A gateway whose subscriber has been away for so long that its queue is to be closed.
fn closing() -> (Node, Node) {
    let mut gateway = gateway(100);
    let mut sub = Node::start("sub", |config| config.address = "sub:1".to_owned());
    sub.router.subscribe(sub.now, "t");
    let line = meet(&mut sub, &mut gateway);
    gateway.router.send(gateway.now, "t", b"old", Mode::One).expect("it is there");
    settle(&mut sub, &mut gateway, line);
    cut(&mut sub, &mut gateway, line);
    gateway.now = gateway.now + LEASE;
    (gateway, sub)
}

fn payloads(node: &Node) -> Vec<&[u8]> {
    node.got.iter().map(|(payload, _)| &**payload).collect()
}

#[test]
fn what_is_sent_to_one_that_is_heard_of_while_its_queue_is_closed_arrives() {
    for fails in [false, true] {
        let (mut gateway, mut sub) = closing();
        gateway.router.handle_timeout(gateway.now);
        let Some(StoreRequest::Commit(batch)) = gateway.router.poll_store(gateway.now) else {
            panic!("the queue is to be closed")
        };
        // Somebody else has met it, and tells so.
        let mut teller = Node::start("teller", |config| config.durable = true);
        let line = meet(&mut sub, &mut teller);
        let other = link(&mut teller, &mut gateway);
        for _ in 0..10 {
            teller.serve();
            let ahead = teller.give(other.0);
            gateway.take(other.1, ahead);
            let back = gateway.give(other.1);
            teller.take(other.0, back);
        }
        let sent = gateway.router.send(gateway.now, "t", b"new", Mode::All).expect("it is heard of");
        let fault = fails.then_some(liner_proto::effect::StoreFault::Unavailable);
        let outcome = if fails { Outcome { groups: 0, fault } } else { execute(&mut gateway.store, &batch) };
        gateway.router.handle_committed(gateway.now, batch.id(), outcome);
        assert!(gateway.router.stored_through() < sent);
        gateway.pass(LEASE / 10);
        assert_eq!((gateway.router.stored_through(), gateway.held().queues["sub"]), (sent, 1));
        gateway.restart();
        cut(&mut sub, &mut teller, line);
        meet(&mut sub, &mut gateway);
        assert_eq!(payloads(&sub), [b"old", b"new"]);
        assert_eq!(gateway.router.queued(), 0);
    }
}

#[test]
fn what_was_kept_for_one_whose_queue_is_closed_is_moved_to_its_new_one() {
    let (mut gateway, mut sub) = closing();
    gateway.router.send(gateway.now, "u", b"new", Mode::One).expect("it is kept");
    gateway.serve();
    gateway.router.handle_timeout(gateway.now);
    gateway.router.add_receiver(gateway.now, "u", "sub:1", "sub");
    gateway.serve();
    assert_eq!(gateway.held().queues, BTreeMap::from([("sub".to_owned(), 1)]));
    gateway.restart();
    sub.router.subscribe(sub.now, "u");
    meet(&mut sub, &mut gateway);
    assert_eq!(payloads(&sub), [b"old", b"new"]);
}
