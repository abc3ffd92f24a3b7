//! The directory of a store that several nodes share.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{Outcome, StoreFault, StoreOp};
use liner_proto::router::{DirectoryRows, StoreRequest};
use liner_proto::store::Store as _;
use nodes::Node;

const PAUSE: Duration = Duration::from_millis(500);

/// A node whose store others have, too.
fn shared(name: &str) -> Node {
    let mut node = Node::start(name, |config| {
        config.durable = true;
        config.address = "here:1".into();
        config.catalog = Some(PAUSE);
    });
    look(&mut node, &[]);
    node
}

/// The node looks at the directory, and finds these rows: topic, address, name.
fn look(node: &mut Node, rows: &[[&str; 3]]) {
    node.router.refresh_directory();
    assert!(node.router.poll_directory(node.now));
    let mut told = DirectoryRows::default();
    rows.iter().for_each(|[topic, address, name]| told.push(topic, address, name));
    node.router.handle_directory(node.now, Ok(Some(told)));
    node.serve();
}

/// Somebody writes into the store.
fn store(node: &mut Node, rows: &[[&str; 3]]) {
    for &[topic, address, name] in rows {
        node.store.apply(&[StoreOp::Subscribe { topic, address, name }]).expect("in memory");
    }
}

fn known(node: &Node, topic: &str) -> Vec<(String, String)> {
    let known = node.router.addresses(topic);
    known.iter().map(|known| (known.address.to_owned(), known.name.to_owned())).collect()
}

#[test]
fn own_rows_are_stored_with_what_is_stored_next() {
    let mut node = shared("n");
    node.router.subscribe(node.now, "t");
    node.serve();
    assert_eq!(node.held().rows, [("t".to_owned(), "n".to_owned())], "and not with the next look");
    assert!(node.router.unsubscribe(node.now, "t"));
    node.router.close(node.now);
    node.serve();
    assert_eq!(node.held().rows, [], "a node that ends leaves no row of what it gave up");
}

#[test]
fn the_directory_is_looked_at_now_and_then_or_when_it_is_wanted() {
    let mut node = shared("n");
    assert!(!node.router.poll_directory(node.now), "it was just looked at");
    node.router.refresh_directory();
    assert!(node.router.poll_directory(node.now));
    assert!(!node.router.poll_directory(node.now), "once");
    node.router.handle_directory(node.now, Ok(None));
    assert!(!node.router.poll_directory(node.now));
    node.now = node.now + PAUSE;
    assert!(node.router.poll_directory(node.now));
}

#[test]
fn a_node_with_two_rows_of_a_topic_keeps_the_one_that_is_left() {
    let mut node = shared("n");
    look(&mut node, &[["t", "a:1", "m"], ["t", "b:2", "m"]]);
    assert_eq!(known(&node, "t").len(), 1, "one node is one receiver");
    for rows in [[["t", "a:1", "m"]], [["t", "b:2", "m"]]] {
        look(&mut node, &[["t", "a:1", "m"], ["t", "b:2", "m"]]);
        look(&mut node, &rows);
        let [_, address, name] = rows[0];
        assert_eq!(known(&node, "t"), [(address.to_owned(), name.to_owned())]);
    }
    look(&mut node, &[]);
    assert_eq!(known(&node, "t"), []);
}

#[test]
fn a_row_that_is_given_another_name_is_that_nodes_alone() {
    let mut node = shared("n");
    look(&mut node, &[["t", "a:1", "old"]]);
    look(&mut node, &[["t", "a:1", "new"]]);
    assert_eq!(known(&node, "t"), [("a:1".to_owned(), "new".to_owned())]);
}

#[test]
fn a_node_that_is_forgotten_keeps_no_row() {
    let mut node = shared("n");
    let rows = [["t", "a:1", "m"], ["t", "b:2", "m"], ["u", "b:2", "m"], ["t", "c:3", "o"]];
    let ops = rows.map(|[topic, address, name]| StoreOp::Subscribe { topic, address, name });
    node.store.apply(&ops).expect("in memory");
    node.store.commit().expect("in memory");
    look(&mut node, &rows);
    node.router.forget(node.now, "m", false).expect("it is away");
    node.serve();
    assert_eq!(node.held().rows, [("t".to_owned(), "o".to_owned())]);
    look(&mut node, &[["t", "c:3", "o"]]);
    assert_eq!(known(&node, "t").len(), 1);
}

#[test]
fn a_late_delete_takes_no_row_of_whoever_has_come_to_the_address() {
    let mut node = shared("n");
    look(&mut node, &[["t", "a:1", "old"]]);
    // Another process writes, and this one has not looked since.
    store(&mut node, &[["t", "a:1", "new"]]);
    node.router.forget(node.now, "old", false).expect("it is away");
    node.serve();
    assert_eq!(node.held().rows, [("t".to_owned(), "new".to_owned())]);
}

#[test]
fn an_own_row_of_an_earlier_life_is_not_taken_from_whoever_has_come_to_the_address() {
    let mut node = shared("n");
    node.router.subscribe(node.now, "t");
    node.serve();
    node.configure(|config| config.address = "there:2".into());
    node.restart();
    node.router.subscribe(node.now, "t");
    store(&mut node, &[["t", "here:1", "new"]]);
    node.serve();
    let row = |name: &str| ("t".to_owned(), name.to_owned());
    assert_eq!(node.held().rows, [row("new"), row("n")]);
}

#[test]
fn an_own_row_that_is_gone_is_written_again() {
    let mut node = shared("n");
    node.router.subscribe(node.now, "t");
    node.router.subscribe(node.now, "u");
    node.serve();
    let gone = StoreOp::Unsubscribe { topic: "t", address: "here:1", name: "n" };
    node.store.apply(&[gone]).expect("in memory");
    look(&mut node, &[["u", "here:1", "n"]]);
    let row = |topic: &str| (topic.to_owned(), "n".to_owned());
    assert_eq!(node.held().rows, [row("t"), row("u")]);
    assert!(known(&node, "t").is_empty(), "it is no subscriber of its own");
}

/// Otherwise the two would write in turn without an end.
#[test]
fn an_own_row_is_not_written_over_that_of_another_one() {
    let mut node = shared("n");
    node.router.subscribe(node.now, "t");
    node.serve();
    store(&mut node, &[["t", "here:1", "other"]]);
    look(&mut node, &[["t", "here:1", "other"]]);
    assert_eq!(node.held().rows, [("t".to_owned(), "other".to_owned())]);
    let gone = StoreOp::Unsubscribe { topic: "t", address: "here:1", name: "other" };
    node.store.apply(&[gone]).expect("in memory");
    look(&mut node, &[]);
    assert_eq!(node.held().rows, [("t".to_owned(), "n".to_owned())], "the other one has left");
}

#[test]
fn an_own_row_that_is_on_its_way_to_a_store_that_fails_is_asked_for_once() {
    let mut node = shared("n");
    node.router.subscribe(node.now, "t");
    for _ in 0..3 {
        let Some(StoreRequest::Commit(batch)) = node.router.poll_store(node.now) else { panic!("a commit") };
        let mut rows = 0;
        let counted = batch.try_each_group(|group| {
            rows += group.iter().filter(|op| matches!(op, StoreOp::Subscribe { .. })).count();
            Ok::<(), ()>(())
        });
        assert_eq!((counted, rows), (Ok(()), 1));
        let outcome = Outcome { groups: 0, fault: Some(StoreFault::Full) };
        node.router.handle_committed(node.now, batch.id(), outcome);
        node.router.refresh_directory();
        assert!(node.router.poll_directory(node.now));
        node.router.handle_directory(node.now, Ok(Some(DirectoryRows::default())));
        node.now = node.now + Duration::from_secs(10);
    }
}

/// The rows beyond the bound are not known: an own one may be among them.
#[test]
fn an_own_row_is_not_missed_in_a_directory_that_is_not_known_whole() {
    let mut node = shared("n");
    node.router.subscribe(node.now, "t");
    node.serve();
    node.router.refresh_directory();
    assert!(node.router.poll_directory(node.now));
    let mut told = DirectoryRows::default();
    (0..70_000).for_each(|number| told.push(&format!("{number}"), "a:1", ""));
    node.router.handle_directory(node.now, Ok(Some(told)));
    assert!(node.router.poll_store(node.now).is_none());
}
