//! A node whose store is full for everything that grows, and takes what frees.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::effect::{Batch, Outcome, StoreFault, StoreOp};
use liner_proto::router::StoreRequest;
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use nodes::{Node, meet, settle};

/// Commits the groups before the first one that appends. With `whole` that takes the others back with it, as the
/// transaction does in which a disk turns out to be full.
fn execute(node: &mut Node, batch: &Batch, whole: bool) -> Outcome {
    let grows = |group: &[StoreOp<'_>]| group.iter().any(|op| matches!(op, StoreOp::Append { .. }));
    let fits = |group: &[StoreOp<'_>]| if grows(group) { Err(()) } else { Ok(()) };
    if whole && batch.try_each_group(fits).is_err() {
        return Outcome { groups: 0, fault: Some(StoreFault::Full) };
    }
    let mut groups = 0;
    let executed = batch.try_each_group(|group| {
        fits(group)?;
        node.store.apply(group).expect("it frees");
        node.store.commit().expect("in memory");
        groups += 1;
        Ok::<(), ()>(())
    });
    Outcome { groups, fault: executed.is_err().then_some(StoreFault::Full) }
}

/// Until the store is to be asked again later.
fn serve(node: &mut Node, whole: bool) {
    while let Some(StoreRequest::Commit(batch)) = node.router.poll_store(node.now) {
        let outcome = execute(node, &batch, whole);
        node.router.handle_committed(node.now, batch.id(), outcome);
    }
    node.now = node.now + Duration::from_secs(1);
    node.router.handle_timeout(node.now);
}

#[test]
fn m12_a_full_store_takes_the_cursor_of_what_the_application_had() {
    let mut from = Node::start("from", |_| {});
    let mut to = Node::start("to", |config| config.durable = true);
    to.router.subscribe(to.now, "t");
    let line = meet(&mut from, &mut to);
    // Something of its own that the disk has no room for, and a message that its application has.
    to.router.add_peer(to.now, "elsewhere");
    to.router.send(to.now, "other", b"large", Mode::All).expect("there is memory");
    from.router.send(from.now, "t", b"x", Mode::All).expect("there is room");
    from.serve();
    let bytes = from.give(line.0);
    to.take(line.1, bytes);
    assert_eq!(to.got.len(), 1);
    serve(&mut to, true);
    assert!(!to.router.are_cursors_stored());
    serve(&mut to, false);
    assert!(to.router.are_cursors_stored(), "the cursor waits for room that it does not need");
    settle(&mut from, &mut to, line);
    assert_eq!(from.router.queued(), 0, "it is not acknowledged");
}
