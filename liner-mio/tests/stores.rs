//! Stores that fail, in place and on a worker, and blocking sends.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Faulty, How, PATIENCE, Party, Patience, Switch, listener, run, talker};
use liner_mio::{
    BlockingSendError, Class, DriveError, Event, Framing, Message, Mode, Node, SendError, SendId, StopError,
};
use liner_proto::effect::StoreFault;

fn ignore(_: &Message<'_>) {}

/// A node with a store that can be made to fail.
fn faulty(to: &Party, how: How) -> (Party, Arc<Switch>) {
    let (store, switch) = Faulty::with_switch();
    let builder = Node::builder("from").peer(&to.node.listen_addrs()[0].to_string());
    let builder = match how {
        How::InPlace => builder.store(store),
        How::OnWorker => builder.store_on_worker(store),
    };
    (Party::new(builder.build().unwrap()), switch)
}

fn a_store_that_fails_for_a_while_loses_and_repeats_nothing(how: How) {
    let mut to = listener("to", "t", How::InPlace);
    let (mut from, switch) = faulty(&to, how);
    for number in 0..300_u16 {
        if number % 100 == 50 {
            switch.fails.store(1, Ordering::Relaxed);
        }
        let patience = Patience::new();
        while let Err(refused) = from.node.send("t", &number.to_be_bytes(), Mode::One) {
            assert_eq!(refused, SendError::Unavailable);
            patience.check();
            from.turn();
            to.turn();
        }
        from.turn();
        to.turn();
    }
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= 300 && from.node.is_idle());
    let expected: Vec<_> = (0..300_u16).map(u16::to_be_bytes).collect();
    assert_eq!(to.payloads(), expected);
    assert!(from.events.iter().any(|event| matches!(event, Event::StoreFailed(_))), "it never failed");
    assert!(from.events.contains(&Event::StoreRecovered));
    assert_eq!(from.node.store_error().unwrap(), "the disk is on strike");
}

#[test]
fn m24_a_store_that_fails_for_a_while_loses_and_repeats_nothing_in_place() {
    a_store_that_fails_for_a_while_loses_and_repeats_nothing(How::InPlace);
}

#[test]
fn m24_a_store_that_fails_for_a_while_loses_and_repeats_nothing_on_a_worker() {
    a_store_that_fails_for_a_while_loses_and_repeats_nothing(How::OnWorker);
}

#[test]
fn a_turn_on_a_worker_is_one_commit() {
    let mut to = listener("to", "t", How::InPlace);
    let (mut from, switch) = faulty(&to, How::OnWorker);
    run([&mut from, &mut to], |[from, _]| !from.node.peers_up().is_empty());
    let before = switch.commits.load(Ordering::Relaxed);
    for _ in 0..10_000 {
        from.node.send("t", &[1; 64], Mode::One).unwrap();
    }
    run([&mut from], |[from]| from.node.stored_through() == SendId(10_000));
    let commits = switch.commits.load(Ordering::Relaxed) - before;
    assert!(commits < 20, "{commits} commits for messages that came together");
}

#[test]
fn a_slow_worker_bounds_what_a_crash_could_repeat() {
    let (store, switch) = Faulty::with_switch();
    let node = Node::builder("to").listen("127.0.0.1:0", Framing::Length).subscribe("t");
    let mut to = Party::new(node.store_on_worker(store).build().unwrap());
    let mut from = talker("from", &to, How::InPlace);
    run([&mut from, &mut to], |[_, to]| !to.node.peers_up().is_empty());
    for _ in 0..20_000 {
        from.send("t", &[1; 64]);
    }
    let gate = switch.gate.lock().unwrap();
    run([&mut from, &mut to], |[_, to]| !to.seen.is_empty());
    for _ in 0..50 {
        from.turn();
        to.turn();
    }
    assert!(to.seen.len() <= 1024, "{} messages and no commit", to.seen.len());
    assert!(to.node.next_deadline().is_none_or(|due| !due.is_zero()), "it would not sleep");
    drop(gate);
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= 20_000 && from.node.is_idle());
    assert_eq!(to.seen.len(), 20_000);
}

/// How many messages `to` has seen when its store has failed for a while under a flood.
fn seen_while_the_store_fails(how: How, payload: usize) -> usize {
    let (store, switch) = Faulty::with_switch();
    let node = Node::builder("to").listen("127.0.0.1:0", Framing::Length).subscribe("t");
    let node = match how {
        How::InPlace => node.store(store),
        How::OnWorker => node.store_on_worker(store),
    };
    let mut to = Party::new(node.build().unwrap());
    let mut from = talker("from", &to, How::InPlace);
    run([&mut from, &mut to], |[_, to]| !to.node.peers_up().is_empty() && to.node.is_idle());
    let count = 8_000_000 / (payload + 400);
    for _ in 0..count {
        from.send("t", &vec![1; payload]);
    }
    switch.fails.store(u32::MAX, Ordering::Relaxed);
    run([&mut from, &mut to], |[_, to]| to.events.iter().any(|event| matches!(event, Event::StoreFailed(_))));
    for _ in 0..100 {
        from.turn();
        to.turn();
    }
    let seen = to.seen.len();
    switch.fails.store(0, Ordering::Relaxed);
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= count && from.node.is_idle());
    assert_eq!(to.seen.len(), count);
    seen
}

#[test]
fn a_store_that_fails_bounds_what_a_crash_could_repeat() {
    for how in [How::InPlace, How::OnWorker] {
        let seen = seen_while_the_store_fails(how, 16);
        assert!((1..=1024).contains(&seen), "{how:?}: {seen} messages and no commit");
        let seen = seen_while_the_store_fails(how, 4096);
        assert!((1..=64).contains(&seen), "{how:?}: {seen} messages of 4 KiB and no commit");
    }
}

#[test]
fn a_peer_is_not_silent_while_a_commit_is_waited_for() {
    let (store, switch) = Faulty::with_switch();
    let node = Node::builder("to").listen("127.0.0.1:0", Framing::Length).subscribe("t");
    let node = node.configure(|config| config.timing.peer_silent = Duration::from_millis(100));
    let mut to = Party::new(node.store_on_worker(store).build().unwrap());
    let mut from = talker("from", &to, How::InPlace);
    run([&mut from, &mut to], |[_, to]| !to.node.peers_up().is_empty());
    let gate = switch.gate.lock().unwrap();
    for _ in 0..5000 {
        from.node.send("t", &[1; 64], Mode::One).unwrap();
    }
    let patience = Patience::new();
    while !patience.used(Duration::from_millis(500)) {
        from.turn();
        to.turn();
    }
    assert!(to.seen.len() < 1024, "it does not wait");
    drop(gate);
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= 5000 && from.node.is_idle());
    assert!(!to.events.iter().any(|event| matches!(event, Event::PeerDown { .. })), "{:?}", to.events);
}

#[test]
fn a_worker_that_is_gone_is_told() {
    let to = listener("to", "t", How::InPlace);
    let (mut from, switch) = faulty(&to, How::OnWorker);
    switch.panics.store(1, Ordering::Relaxed);
    from.node.send("t", b"x", Mode::One).unwrap();
    let patience = Patience::new();
    loop {
        patience.check();
        // Woken by the worker's end, not by the time.
        match from.node.drive(Some(PATIENCE), &mut ignore) {
            Ok(_) => {}
            Err(error) => break assert!(matches!(error, DriveError::StoreWorkerGone), "{error}"),
        }
    }
}

fn a_blocking_send_returns_when_it_is_stored(how: How) {
    let to = listener("to", "t", How::InPlace);
    let (mut from, switch) = faulty(&to, how);
    for number in 1..=20 {
        let id = from.node.send_stored("t", b"x", Mode::One, PATIENCE, &mut ignore).unwrap();
        assert_eq!(id, SendId(number));
        assert!(from.node.stored_through() >= id);
        assert!(switch.commits.load(Ordering::Relaxed) > 0);
    }
    assert_eq!(from.node.queued(), 20);
    assert_eq!(from.node.store_class(), Class::Ram);
}

#[test]
fn a_blocking_send_returns_when_it_is_stored_in_place() {
    a_blocking_send_returns_when_it_is_stored(How::InPlace);
}

#[test]
fn a_blocking_send_returns_when_it_is_stored_on_a_worker() {
    a_blocking_send_returns_when_it_is_stored(How::OnWorker);
}

#[test]
fn a_blocking_send_says_what_is_known() {
    let to = listener("to", "t", How::InPlace);
    let (mut from, switch) = faulty(&to, How::InPlace);
    let brief = Duration::from_millis(20);
    let large = vec![0; 2 << 20];
    let refused = from.node.send_stored("t", &large, Mode::One, brief, &mut ignore).unwrap_err();
    assert!(matches!(refused, BlockingSendError::NotSent(SendError::TooLarge { .. })), "{refused}");

    switch.fails.store(u32::MAX, Ordering::Relaxed);
    let unknown = from.node.send_stored("t", b"x", Mode::One, brief, &mut ignore).unwrap_err();
    assert!(matches!(unknown, BlockingSendError::Unknown(SendId(1))), "{unknown}");
    assert!(matches!(from.node.stop(brief, &mut ignore), Err(StopError::NotStored { said: Some(_) })));
}

#[test]
fn a_full_queue_is_waited_for_and_then_refuses() {
    let (store, switch) = Faulty::with_switch();
    let mut node = Node::builder("from")
        .peer("127.0.0.1:1")
        .store(store)
        .configure(|config| config.queue_bytes = 256 * 1024)
        .build()
        .unwrap();
    switch.is_full.store(true, Ordering::Relaxed);
    switch.fails.store(u32::MAX, Ordering::Relaxed);
    let busy = (0..10).map(|_| node.send("t", &[0; 60_000], Mode::One)).find(Result::is_err).unwrap();
    assert_eq!(busy, Err(SendError::Busy));
    let brief = Duration::from_millis(20);
    let refused = node.send_stored("t", &[0; 60_000], Mode::One, brief, &mut ignore).unwrap_err();
    assert!(matches!(refused, BlockingSendError::NotSent(SendError::StoreFull)), "{refused}");
    switch.fails.store(0, Ordering::Relaxed);
    node.send_stored("t", &[0; 60_000], Mode::One, PATIENCE, &mut ignore).unwrap();
}

fn a_commit_of_unknown_outcome_ends_the_node(how: How) {
    let to = listener("to", "t", How::InPlace);
    let (mut from, switch) = faulty(&to, how);
    switch.unknown.store(1, Ordering::Relaxed);
    from.node.send("t", b"stored, or not", Mode::One).unwrap();
    let patience = Patience::new();
    let error = loop {
        patience.check();
        if let Err(error) = from.node.drive(Some(Duration::from_millis(1)), &mut ignore) {
            break error;
        }
    };
    let DriveError::Store { fault, said } = error else { panic!("{error}") };
    assert_eq!((fault, said.as_deref()), (StoreFault::Unknown, Some("the disk is on strike")));
}

#[test]
fn a_commit_of_unknown_outcome_ends_the_node_in_place() {
    a_commit_of_unknown_outcome_ends_the_node(How::InPlace);
}

#[test]
fn a_commit_of_unknown_outcome_ends_the_node_on_a_worker() {
    a_commit_of_unknown_outcome_ends_the_node(How::OnWorker);
}
