//! Nodes that never come back, and are forgotten.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::collections::BTreeMap;
use std::time::Duration;

use liner_proto::effect::{BatchId, GapReason, Outcome, StoreFault};
use liner_proto::router::{Event, ForgetError, SendError, StoreRequest};
use liner_proto::store::{Store, execute};
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, link, meet, settle};

fn durable(name: &str) -> Node {
    let mut node = Node::start(name, |config| config.durable = true);
    node.router.subscribe(node.now, "t");
    node
}

/// A sender that has met two subscribers, both of which are away.
fn met() -> (Node, Node, Node) {
    let mut sender = Node::start("sender", |_| {});
    let (mut first, mut second) = (durable("a"), durable("b"));
    for node in [&mut first, &mut second] {
        let line = meet(node, &mut sender);
        cut(node, &mut sender, line);
    }
    sender.events();
    (sender, first, second)
}

fn send(node: &mut Node, count: u8, mode: Mode) {
    for number in 0..count {
        node.router.send(node.now, "t", &[number], mode).expect("somebody is known");
    }
}

fn forgotten(node: &mut Node) -> Vec<(String, u64, u64)> {
    let told = node.events().into_iter().filter_map(|event| {
        let Event::Forgotten { name, rerouted, dropped } = event else { return None };
        Some((name.into(), rerouted, dropped))
    });
    told.collect()
}

#[test]
fn what_was_for_it_alone_goes_to_another_one_and_its_copies_are_dropped() {
    let (mut sender, _, mut second) = met();
    send(&mut sender, 10, Mode::One);
    send(&mut sender, 3, Mode::All);
    sender.serve();
    assert_eq!(sender.held().queues, BTreeMap::from([("a".to_owned(), 8), ("b".to_owned(), 8)]));
    assert_eq!(sender.router.forget(sender.now, "a", true), Ok(()));
    assert_eq!(forgotten(&mut sender), [], "it is not stored yet");
    sender.serve();
    assert_eq!(forgotten(&mut sender), [("a".to_owned(), 5, 3)]);
    let held = sender.held();
    assert_eq!(held.queues, BTreeMap::from([("b".to_owned(), 13)]));
    assert_eq!(held.rows, [("t".to_owned(), "b".to_owned())]);
    assert_eq!(sender.router.forget(sender.now, "a", true), Err(ForgetError::Unknown));
    meet(&mut second, &mut sender);
    assert_eq!(second.got.len(), 13);
    assert!(second.got.iter().all(|(_, again)| !again), "nothing was ever sent");
}

#[test]
fn what_may_have_been_sent_is_marked_where_it_goes() {
    let (mut sender, mut first, mut second) = met();
    let (here, there) = link(&mut first, &mut sender);
    settle(&mut first, &mut sender, (here, there));
    send(&mut sender, 4, Mode::One);
    sender.serve();
    // It is sent, and nobody knows whether it has arrived.
    while !sender.give(there).is_empty() {}
    cut(&mut first, &mut sender, (here, there));
    send(&mut sender, 6, Mode::One);
    sender.serve();
    assert_eq!(sender.router.queued_for("a"), 7);
    assert_eq!(sender.router.forget(sender.now, "a", true), Ok(()));
    sender.serve();
    assert_eq!(forgotten(&mut sender), [("a".to_owned(), 7, 0)]);
    meet(&mut second, &mut sender);
    let again = second.got.iter().filter(|(_, again)| *again).count();
    // Batches grow from one message on: not all of the four need to have left.
    assert!((1..=4).contains(&again), "{again}");
    assert_eq!(second.got.len(), 10);
}

#[test]
fn what_is_not_rerouted_is_dropped_and_who_comes_back_is_new_and_hears_of_a_gap() {
    let (mut sender, mut first, mut second) = met();
    send(&mut sender, 10, Mode::One);
    send(&mut sender, 3, Mode::All);
    sender.serve();
    assert_eq!(sender.router.forget(sender.now, "a", false), Ok(()));
    sender.serve();
    assert_eq!(forgotten(&mut sender), [("a".to_owned(), 0, 8)]);
    assert_eq!(sender.held().queues, BTreeMap::from([("b".to_owned(), 8)]));
    assert_eq!(sender.router.queued(), 8);
    // It comes back.
    let line = meet(&mut first, &mut sender);
    let gaps: Vec<_> =
        first.events().into_iter().filter(|event| matches!(event, Event::Gap { .. })).collect();
    assert_eq!(gaps, [Event::Gap { from: "sender".into(), count: 8, reason: GapReason::Cleared }]);
    assert!(first.got.is_empty());
    send(&mut sender, 2, Mode::One);
    settle(&mut first, &mut sender, line);
    assert_eq!(first.got.len(), 2);
    assert_eq!(sender.router.queued_for("a"), 0);
    meet(&mut second, &mut sender);
    assert_eq!(second.got.len(), 8);
}

#[test]
fn what_nobody_else_takes_waits_for_the_next_subscriber() {
    let mut sender = Node::start("sender", |_| {});
    let mut only = durable("a");
    let line = meet(&mut only, &mut sender);
    cut(&mut only, &mut sender, line);
    send(&mut sender, 3, Mode::One);
    sender.serve();
    assert_eq!(sender.router.forget(sender.now, "a", true), Ok(()));
    sender.serve();
    assert_eq!(sender.router.send(sender.now, "t", b"", Mode::One), Err(SendError::NoAddress));
    let mut next = durable("next");
    meet(&mut next, &mut sender);
    assert_eq!(next.got.len(), 3);
}

#[test]
fn a_node_without_a_queue_is_forgotten_with_its_rows() {
    let (mut sender, _, _) = met();
    assert_eq!(sender.router.forget(sender.now, "a", false), Ok(()));
    sender.serve();
    assert_eq!(forgotten(&mut sender), [("a".to_owned(), 0, 0)]);
    sender.restart();
    let known: Vec<&str> = sender.router.addresses("t").iter().map(|at| at.name).collect();
    assert_eq!(known, ["b"]);
}

#[test]
fn a_node_that_is_there_is_not_forgotten() {
    let (mut sender, mut first, _) = met();
    let line = meet(&mut first, &mut sender);
    assert_eq!(sender.router.forget(sender.now, "a", true), Err(ForgetError::Up));
    assert_eq!(sender.router.forget(sender.now, "nobody", true), Err(ForgetError::Unknown));
    send(&mut sender, 1, Mode::One);
    settle(&mut first, &mut sender, line);
    assert_eq!(first.got.len(), 1);
}

/// The store fails: nothing is told before it has done it.
#[test]
fn a_store_that_fails_is_asked_again() {
    for reroute in [true, false] {
        let (mut sender, _, _) = met();
        send(&mut sender, 10, Mode::One);
        sender.serve();
        sender.router.forget(sender.now, "a", reroute).expect("it is away");
        while let Some(StoreRequest::Commit(batch)) = sender.router.poll_store(sender.now) {
            let outcome = Outcome { groups: 0, fault: Some(StoreFault::Unavailable) };
            sender.router.handle_committed(sender.now, batch.id(), outcome);
        }
        assert_eq!(forgotten(&mut sender), []);
        for _ in 0..10 {
            sender.pass(Duration::from_secs(5));
        }
        let (rerouted, dropped) = if reroute { (5, 0) } else { (0, 5) };
        assert_eq!(forgotten(&mut sender), [("a".to_owned(), rerouted, dropped)]);
        assert_eq!(sender.held().queues.values().sum::<u64>(), 5 + rerouted);
    }
}

/// Lets the store execute so many groups, and then the process dies. Says whether it did.
fn die_after(node: &mut Node, mut groups: usize) -> bool {
    loop {
        match node.router.poll_store(node.now) {
            Some(StoreRequest::Commit(batch)) if batch.groups_len() <= groups => {
                groups -= batch.groups_len();
                let outcome = execute(&mut node.store, &batch);
                let id: BatchId = batch.id();
                node.router.handle_committed(node.now, id, outcome);
            }
            Some(StoreRequest::Commit(batch)) => {
                let store = &mut node.store;
                let _ = batch.try_each_group(|group| {
                    groups = groups.checked_sub(1).ok_or(StoreFault::Unavailable)?;
                    store.apply(group)?;
                    store.commit()
                });
                node.restart();
                return true;
            }
            Some(StoreRequest::Load(load)) => {
                let (loaded, bytes) = liner_proto::store::load(&mut node.store, &load);
                node.router.handle_loaded(node.now, &load, loaded, &bytes);
            }
            None => return false,
        }
    }
}

#[test]
fn a_crash_on_the_way_loses_nothing_and_doubles_nothing() {
    for reroute in [true, false] {
        let mut deaths = 0;
        for groups in 0..40 {
            let (mut sender, mut first, mut second) = met();
            // So much that it is moved in several parts.
            for number in 0..40_u8 {
                sender.router.send(sender.now, "t", &[number; 100_000], Mode::One).expect("room");
                sender.serve();
            }
            sender.router.forget(sender.now, "a", reroute).expect("it is away");
            if !die_after(&mut sender, groups) {
                break;
            }
            deaths += 1;
            sender.serve();
            let held = sender.held();
            let rows = held.rows.iter().any(|(_, name)| name == "a");
            let queued = |name: &str| held.queues.get(name).copied().unwrap_or(0);
            if reroute {
                assert_eq!(queued("a") + queued("b"), 40, "after {groups} groups");
                assert!(rows || !held.queues.contains_key("a"), "after {groups} groups");
            } else {
                assert_eq!((queued("b"), queued("a")), (20, if rows { 20 } else { 0 }), "after {groups}");
            }
            // Asked again, it is done, and everything arrives once.
            let known = rows || held.queues.contains_key("a");
            assert_eq!(sender.router.forget(sender.now, "a", true).is_ok(), known);
            sender.serve();
            meet(&mut second, &mut sender);
            let mut numbers: Vec<u8> = second.got.iter().map(|(payload, _)| payload[0]).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let expected = if reroute || rows { 40 } else { 20 };
            assert_eq!((numbers.len(), second.got.len()), (expected, expected), "after {groups} groups");
            meet(&mut first, &mut sender);
            assert!(first.got.is_empty());
        }
        assert!(deaths > if reroute { 2 } else { 0 }, "{deaths}");
    }
}

#[test]
fn one_that_is_back_before_it_is_forgotten_is_a_subscriber() {
    let (mut sender, mut first, _) = met();
    send(&mut sender, 10, Mode::One);
    sender.serve();
    sender.router.forget(sender.now, "a", true).expect("it is away");
    let line = link(&mut first, &mut sender);
    settle(&mut first, &mut sender, line);
    // Whether it came in time or not, it takes what is sent now, and nothing is lost.
    let before = first.got.len();
    let queued = sender.router.queued() as usize;
    assert_eq!(before + queued, 10);
    send(&mut sender, 1, Mode::One);
    settle(&mut first, &mut sender, line);
    assert_eq!(first.got.len(), before + 1);
}

/// A durable node at an address, which takes "t".
fn durable_at(name: &str, address: &str) -> Node {
    let mut node = durable(name);
    move_to(&mut node, address);
    node
}

/// The node's next life is at this address.
fn move_to(node: &mut Node, address: &str) {
    node.configure(|config| config.address = address.into());
    node.restart();
    node.router.subscribe(node.now, "t");
}

/// Connects the nodes to the sender, one after another, and takes each away again.
fn visit(sender: &mut Node, visitors: &mut [&mut Node]) {
    for node in visitors {
        let line = meet(node, sender);
        cut(node, sender, line);
    }
}

/// Who takes "t", as the sender's next life knows.
fn known_after_restart(sender: &mut Node) -> Vec<String> {
    sender.restart();
    sender.router.addresses("t").iter().map(|at| at.name.to_owned()).collect()
}

#[test]
fn whoever_has_come_to_the_address_of_one_that_is_forgotten_stays_a_subscriber() {
    let mut sender = Node::start("sender", |_| {});
    let (mut first, mut second) = (durable_at("a", "here:1"), durable_at("b", "here:1"));
    visit(&mut sender, &mut [&mut first, &mut second]);
    assert_eq!(sender.router.forget(sender.now, "a", false), Ok(()));
    sender.serve();
    assert_eq!(known_after_restart(&mut sender), ["b"]);
    send(&mut sender, 1, Mode::All);
    meet(&mut second, &mut sender);
    assert_eq!(second.got.len(), 1);
}

#[test]
fn one_whose_address_another_one_had_for_a_while_stays_a_subscriber() {
    for forgets in [true, false] {
        let mut sender = Node::start("sender", |_| {});
        let (mut first, mut second) = (durable_at("a", "here:1"), durable_at("b", "here:1"));
        visit(&mut sender, &mut [&mut first, &mut second]);
        if forgets {
            assert_eq!(sender.router.forget(sender.now, "b", false), Ok(()));
            sender.serve();
        } else {
            move_to(&mut second, "there:2");
            visit(&mut sender, &mut [&mut second]);
        }
        let expected: &[&str] = if forgets { &["a"] } else { &["a", "b"] };
        assert_eq!(known_after_restart(&mut sender), expected);
    }
}

#[test]
fn two_that_swap_their_addresses_stay_subscribers() {
    let mut sender = Node::start("sender", |_| {});
    let (mut first, mut second) = (durable_at("a", "here:1"), durable_at("b", "there:2"));
    visit(&mut sender, &mut [&mut first, &mut second]);
    move_to(&mut first, "there:2");
    move_to(&mut second, "here:1");
    visit(&mut sender, &mut [&mut first, &mut second]);
    assert_eq!(known_after_restart(&mut sender), ["b", "a"], "by their addresses");
}

#[test]
fn what_is_sent_to_one_that_is_named_again_while_it_is_forgotten_comes_after_the_gap() {
    let (mut sender, mut first, _) = met();
    sender.router.forget(sender.now, "b", false).expect("it is away");
    sender.serve();
    send(&mut sender, 3, Mode::One);
    sender.serve();
    sender.router.forget(sender.now, "a", false).expect("it is away");
    let Some(StoreRequest::Commit(batch)) = sender.router.poll_store(sender.now) else { panic!("its end") };
    sender.router.add_receiver(sender.now, "t", "a:1", "a");
    let sent = sender.router.send(sender.now, "t", b"new", Mode::One).expect("it is known again");
    let outcome = execute(&mut sender.store, &batch);
    sender.router.handle_committed(sender.now, batch.id(), outcome);
    sender.serve();
    assert_eq!((sender.router.stored_through(), sender.held().queues["a"]), (sent, 1));
    assert!(forgotten(&mut sender).contains(&("a".to_owned(), 0, 3)));
    meet(&mut first, &mut sender);
    assert_eq!(first.got, [(b"new".to_vec(), false)]);
    let gap = Event::Gap { from: "sender".into(), count: 3, reason: GapReason::Cleared };
    assert_eq!(
        first.events().into_iter().filter(|event| matches!(event, Event::Gap { .. })).collect::<Vec<_>>(),
        [gap]
    );
}
