//! Who is chosen and who is gone, by the leases of a directory that several nodes share.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::StoreOp;
use liner_proto::router::{DirectoryRows, Event, SendError, Standing};
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use nodes::{LEASE, Node};

use Standing::{Away, Unleased, Up};

/// A row of topic "t": its address, its name, and how the name stands.
type Row<'a> = (&'a str, &'a str, Standing);

fn shared() -> Node {
    Node::start("n", |config| config.catalog = Some(Duration::from_millis(500)))
}

/// The node looks at the directory, and finds these rows, which are in its store as well.
fn look(node: &mut Node, rows: &[Row<'_>]) {
    node.router.refresh_directory();
    assert!(node.router.poll_directory(node.now));
    let mut told = DirectoryRows::default();
    for &(address, name, standing) in rows {
        node.store.apply(&[StoreOp::Subscribe { topic: "t", address, name }]).expect("in memory");
        told.push("t", address, name);
        if standing != Unleased {
            told.set_standing(name, standing);
        }
    }
    node.router.handle_directory(node.now, Ok(Some(told)));
    node.serve();
}

/// What is dialled now. Nobody answers.
fn dial_in_vain(node: &mut Node) -> Vec<String> {
    let mut dialled = Vec::new();
    while let Some(dial) = node.router.poll_dial(node.now) {
        let id = dial.id;
        dialled.push(dial.address.to_owned());
        node.router.handle_dial_failed(node.now, id);
    }
    dialled
}

/// To whom messages go that are sent to one.
fn chosen(node: &mut Node) -> Vec<String> {
    let names = ["a", "b", "c", "d", "e"];
    let counts = |node: &Node| names.map(|name| node.router.queued_for(name));
    let before = counts(node);
    for _ in 0..6 {
        node.router.send(node.now, "t", b"x", Mode::One).expect("somebody is known");
    }
    let after = counts(node);
    let more = names.iter().zip(before.iter().zip(after));
    more.filter(|(_, (before, after))| *before < after).map(|(name, _)| (*name).to_owned()).collect()
}

#[test]
fn of_those_who_are_not_connected_the_likeliest_is_chosen() {
    let mut node = shared();
    let (a, b, c) = (("a:1", "a", Away), ("b:1", "b", Unleased), ("c:1", "c", Up));
    look(&mut node, &[a, b, c, ("d:1", "d", Up)]);
    assert_eq!(chosen(&mut node), ["c", "d"], "those whose lease runs, by turns");
    look(&mut node, &[a, b]);
    assert_eq!(chosen(&mut node), ["b"], "what was written by hand, before those that are away");
    look(&mut node, &[a]);
    assert_eq!(chosen(&mut node), ["a"], "somebody is left");
    look(&mut node, &[]);
    assert_eq!(node.router.send(node.now, "t", b"x", Mode::One), Err(SendError::NoAddress));
}

#[test]
fn who_was_dialled_in_vain_is_less_likely() {
    let mut node = shared();
    let rows = [("a:1", "a", Away), ("b:1", "b", Unleased), ("c:1", "c", Up)];
    look(&mut node, &rows);
    assert_eq!(dial_in_vain(&mut node), ["a:1", "b:1", "c:1"]);
    assert_eq!(chosen(&mut node), ["c"], "it runs, and may be reached later");
    look(&mut node, &[rows[0], rows[1], rows[2], ("d:1", "d", Unleased), ("e:1", "e", Away)]);
    assert_eq!(chosen(&mut node), ["d"], "nobody has missed it");
    look(&mut node, &rows[..2]);
    assert_eq!(chosen(&mut node), ["a", "b"], "both are away");
}

#[test]
fn a_message_to_all_goes_to_every_node_however_it_stands() {
    let mut node = shared();
    look(&mut node, &[("a:1", "a", Away), ("b:1", "b", Unleased), ("c:1", "c", Up)]);
    dial_in_vain(&mut node);
    node.router.send(node.now, "t", b"x", Mode::All).expect("they are known");
    assert_eq!(["a", "b", "c"].map(|name| node.router.queued_for(name)), [1, 1, 1]);
}

#[test]
fn a_node_whose_lease_begins_is_dialled_at_once() {
    let mut node = shared();
    look(&mut node, &[("a:1", "a", Away), ("b:1", "b", Up)]);
    // For so long that it is dialled every half minute by now.
    for _ in 0..3000 {
        dial_in_vain(&mut node);
        node.pass(Duration::from_secs(1));
    }
    while dial_in_vain(&mut node).is_empty() {
        node.pass(Duration::from_secs(1));
    }
    node.pass(Duration::from_secs(2));
    dial_in_vain(&mut node);
    let due = |node: &Node| node.router.poll_timeout().map(|(at, _)| at.since(node.now));
    node.router.handle_directory(node.now, Ok(None));
    assert_eq!(dial_in_vain(&mut node), [] as [&str; 0], "{:?}", due(&node));
    look(&mut node, &[("a:1", "a", Up), ("b:1", "b", Up)]);
    assert_eq!(dial_in_vain(&mut node), ["a:1"], "and no other one");
    assert_eq!(chosen(&mut node), ["a", "b"], "it was dialled in vain again");
    look(&mut node, &[("a:1", "a", Away), ("b:1", "b", Up)]);
    look(&mut node, &[("a:1", "a", Up), ("b:1", "b", Up)]);
    assert_eq!(chosen(&mut node), ["a"], "nobody has missed it since");
}

#[test]
fn an_ephemeral_node_that_only_the_directory_knows_is_gone_after_a_lease() {
    let mut node = shared();
    let rows = [("~a:1", "a", Unleased), ("~b:1", "b", Up), ("c:1", "c", Away), ("d:1", "d", Unleased)];
    look(&mut node, &rows);
    node.router.send(node.now, "t", b"x", Mode::All).expect("they are known");
    node.serve();
    for _ in 0..4 {
        dial_in_vain(&mut node);
        look(&mut node, &rows[..0]);
        look(&mut node, &rows);
        node.pass(LEASE / 8);
    }
    assert_eq!(node.router.addresses("t").len(), 4, "it is not away for a lease");
    for _ in 0..8 {
        dial_in_vain(&mut node);
        node.pass(LEASE);
    }
    let known: Vec<_> = node.router.addresses("t").iter().map(|known| known.name.to_owned()).collect();
    assert_eq!(known, ["b", "c", "d"], "its lease runs, and the others are durable");
    let gone = |event: &Event| matches!(event, Event::SubscriberGone { name, .. } if **name == *"a");
    assert!(node.events().iter().any(gone));
    let names: Vec<_> = node.held().rows.into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["c", "d", "b"], "the store knows it no more, and what was written by hand stays");
    look(&mut node, &[("~b:1", "b", Away), rows[2], rows[3]]);
    node.pass(LEASE);
    node.pass(LEASE);
    assert_eq!(node.router.addresses("t").len(), 2);
    // A row that comes again is a node that is there again.
    look(&mut node, &[("~a:1", "a", Unleased), rows[2], rows[3]]);
    assert_eq!(node.router.addresses("t").len(), 3);
}
