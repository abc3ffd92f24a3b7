//! A store that is away: what the application is told, what peers see, and how it goes on.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::delivery::SendMode;
use liner_proto::effect::{Batch, Outcome, StoreFault};
use liner_proto::id::ConnId;
use liner_proto::router::{Event, SendError, StoreRequest};
use liner_proto::store::execute;
use liner_proto::wire::record::Mode;
use nodes::{Node, link, meet, settle};

const PATIENCE: Duration = Duration::from_secs(3);
/// Not so long.
const NEARLY: Duration = Duration::from_millis(2999);
const RETRY: Duration = Duration::from_millis(200);

fn told(node: &mut Node) -> Vec<Event> {
    let of_store = |event: &Event| matches!(event, Event::StoreFailed(_) | Event::StoreRecovered);
    node.events().into_iter().filter(of_store).collect()
}

fn asked(node: &mut Node) -> Batch {
    let Some(StoreRequest::Commit(batch)) = node.router.poll_store(node.now) else { panic!("a commit") };
    batch
}

fn refuse(node: &mut Node, batch: &Batch, fault: StoreFault) {
    let outcome = Outcome { groups: 0, fault: Some(fault) };
    node.router.handle_committed(node.now, batch.id(), outcome);
}

fn commit(node: &mut Node, batch: &Batch) {
    let outcome = execute(&mut node.store, batch);
    node.router.handle_committed(node.now, batch.id(), outcome);
}

fn send(node: &mut Node) -> Result<(), SendError> {
    node.router.send(node.now, "t", b"x", Mode::All).map(|_| ())
}

/// A node that sends, without a request at its store.
fn sender() -> Node {
    let mut node = Node::start("from", |_| {});
    node.router.add_peer(node.now, "there");
    send(&mut node).expect("it is there");
    node.serve();
    node
}

#[test]
fn a_store_that_leaves_a_commit_unanswered_is_away_after_a_while() {
    let mut node = sender();
    send(&mut node).expect("it is there");
    let batch = asked(&mut node);
    let began = node.now;
    let (due, _) = node.router.poll_timeout().expect("it is not waited for without an end");
    assert!(due <= began + PATIENCE);
    node.now = began + NEARLY;
    node.router.handle_timeout(node.now);
    assert!(!node.router.is_store_away());
    send(&mut node).expect("it may answer at any moment");
    node.now = began + PATIENCE;
    node.router.handle_timeout(node.now);
    assert_eq!(told(&mut node), [Event::StoreFailed(StoreFault::Unavailable)]);
    assert_eq!(send(&mut node), Err(SendError::Unavailable));
    assert!(node.router.send(node.now, "t", b"x", Mode::BestEffort).is_ok(), "it needs no store");
    node.now = node.now + Duration::from_secs(3600);
    node.router.handle_timeout(node.now);
    assert_eq!(told(&mut node), [], "once");
    commit(&mut node, &batch);
    assert_eq!(told(&mut node), [Event::StoreRecovered]);
    send(&mut node).expect("it is back");
    node.serve();
    assert_eq!(node.router.stored_through(), node.router.sent_through());
}

#[test]
fn an_answer_to_anything_is_a_sign_of_life() {
    let mut node = sender();
    send(&mut node).expect("it is there");
    let first = asked(&mut node);
    send(&mut node).expect("it is there");
    let second = asked(&mut node);
    node.now = node.now + NEARLY;
    commit(&mut node, &first);
    node.now = node.now + NEARLY;
    node.router.handle_timeout(node.now);
    assert!(!node.router.is_store_away(), "it is slow, and works");
    commit(&mut node, &second);
    node.now = node.now + PATIENCE;
    node.router.handle_timeout(node.now);
    assert!(!node.router.is_store_away(), "it was asked nothing");
    assert_eq!(told(&mut node), []);
}

#[test]
fn a_shell_that_knows_better_need_not_wait() {
    let mut node = sender();
    node.router.handle_store_away(node.now);
    assert!(!node.router.is_store_away(), "it was asked nothing");
    send(&mut node).expect("it is there");
    let batch = asked(&mut node);
    node.router.handle_store_away(node.now);
    node.router.handle_store_away(node.now);
    assert_eq!(told(&mut node), [Event::StoreFailed(StoreFault::Unavailable)]);
    assert_eq!(send(&mut node), Err(SendError::Unavailable));
    // It is known now that nothing came of it, and that is no sign that the store is back.
    refuse(&mut node, &batch, StoreFault::Unavailable);
    assert_eq!(told(&mut node), []);
    assert_eq!(send(&mut node), Err(SendError::Unavailable));
    node.now = node.now + RETRY;
    node.serve();
    assert_eq!(told(&mut node), [Event::StoreRecovered]);
    assert!(send(&mut node).is_ok());
}

#[test]
fn what_is_to_be_stored_is_refused_by_a_store_that_is_away_or_full() {
    for (fault, refusal) in
        [(StoreFault::Unavailable, SendError::Unavailable), (StoreFault::Full, SendError::StoreFull)]
    {
        let mut node = sender();
        send(&mut node).expect("it is there");
        let batch = asked(&mut node);
        refuse(&mut node, &batch, fault);
        assert_eq!(told(&mut node), [Event::StoreFailed(fault)]);
        assert_eq!(send(&mut node), Err(refusal));
        assert_eq!(node.router.is_store_away(), fault == StoreFault::Unavailable);
        node.now = node.now + RETRY;
        node.serve();
        assert_eq!(told(&mut node), [Event::StoreRecovered]);
        assert_eq!(send(&mut node), Ok(()));
    }
}

#[test]
fn what_is_sent_before_it_is_stored_does_not_wait_for_a_store_that_is_away() {
    let mut node = Node::start("from", |config| config.send_mode = SendMode::Asynchronous);
    node.router.add_peer(node.now, "there");
    send(&mut node).expect("it is there");
    let batch = asked(&mut node);
    refuse(&mut node, &batch, StoreFault::Unavailable);
    assert!(node.router.is_store_away());
    assert_eq!(send(&mut node), Ok(()));
}

/// Bytes go to and fro, and the store of `to` answers nothing.
fn pass_bytes(from: &mut Node, to: &mut Node, (here, there): (ConnId, ConnId)) {
    for _ in 0..8 {
        from.serve();
        let (ahead, back) = (from.give(here), to.give(there));
        to.take(there, ahead);
        from.take(here, back);
        let _ = core::iter::from_fn(|| to.router.poll_writable()).count();
    }
}

#[test]
fn a_receiver_whose_store_is_away_keeps_its_links_and_acknowledges_nothing() {
    for takes_custody in [false, true] {
        let mut from = Node::start("from", |_| {});
        let mut to = Node::start("to", |config| {
            config.takes_custody = takes_custody;
            config.durable = true;
            config.kept.messages = 1 << 20;
        });
        if !takes_custody {
            to.router.subscribe(to.now, "t");
        }
        let line = link(&mut from, &mut to);
        settle(&mut from, &mut to, line);
        let mut batch = None;
        let mut sent = 0;
        // A minute: a silent peer would be given up, and a stalled session reset, long before.
        for _ in 0..600 {
            for _ in 0..200 {
                sent += u64::from(from.router.send(from.now, "t", &[7; 100], Mode::All).is_ok());
            }
            pass_bytes(&mut from, &mut to, line);
            batch = batch.or_else(|| to.router.poll_store(to.now));
            from.pass(Duration::from_millis(100));
            to.now = from.now;
            to.router.handle_timeout(to.now);
            assert!(to.router.poll_close().is_none() && from.router.poll_close().is_none());
        }
        assert!(to.router.is_store_away());
        assert_eq!(from.router.queued(), sent, "it is acknowledged and not stored");
        assert!(to.router.held() < 20 << 20 && to.got.len() < 100_000, "the window closes");
        assert!(sent > 100_000, "more than a window");
        let Some(StoreRequest::Commit(batch)) = batch else { panic!("a commit") };
        commit(&mut to, &batch);
        assert!(!to.router.is_store_away());
        for _ in 0..20 {
            to.serve();
            settle(&mut from, &mut to, line);
            from.pass(Duration::from_millis(100));
            to.pass(Duration::from_millis(100));
        }
        assert_eq!(from.router.queued(), 0, "everything goes on");
        assert!(!from.events().iter().any(|event| matches!(event, Event::PeerDown { .. })));
    }
}

#[test]
fn a_sender_whose_store_is_away_goes_on_with_what_is_stored() {
    let mut from = Node::start("from", |_| {});
    let mut to = Node::subscriber("to");
    let line = meet(&mut from, &mut to);
    send(&mut from).expect("it is there");
    from.serve();
    send(&mut from).expect("it is there");
    let batch = asked(&mut from);
    refuse(&mut from, &batch, StoreFault::Unavailable);
    let bytes = from.give(line.0);
    to.take(line.1, bytes);
    assert_eq!(to.got.len(), 1, "what is stored leaves, and nothing else");
    from.now = from.now + RETRY;
    settle(&mut from, &mut to, line);
    assert_eq!(to.got.len(), 2);
}
