//! How much the store is given at a time.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use liner_proto::router::{SendError, StoreRequest};
use liner_proto::store::execute;
use liner_proto::wire::record::Mode;
use nodes::Node;

static PAYLOAD: [u8; 50_000] = [7; 50_000];

fn sends_until_busy(sender: &mut Node, mode: Mode) -> usize {
    sends_of(sender, &PAYLOAD, mode)
}

fn sends_of(sender: &mut Node, payload: &[u8], mode: Mode) -> usize {
    let mut sent = 0;
    loop {
        match sender.router.send(sender.now, "t", payload, mode) {
            Ok(_) => sent += 1,
            Err(error) => {
                assert_eq!(error, SendError::Busy);
                return sent;
            }
        }
    }
}

#[test]
fn a_batch_has_two_mebibytes_and_the_store_two_batches() {
    let mut sender = Node::start("sender", |_| {});
    sender.router.add_peer(sender.now, "there");
    sender.serve();
    let most = (2 << 20) / PAYLOAD.len() + 1;
    assert_eq!(sends_until_busy(&mut sender, Mode::One), most);
    // What the store has is not waited for, as long as it takes one more batch.
    let mut batches = Vec::new();
    for _ in 0..2 {
        let request = sender.router.poll_store(sender.now).expect("there is something to store");
        let StoreRequest::Commit(batch) = request else { panic!("{request:?}") };
        batches.push(batch);
        assert_eq!(sends_until_busy(&mut sender, Mode::One), most);
    }
    assert!(sender.router.poll_store(sender.now).is_none(), "that is as much as the store has at a time");
    for batch in batches {
        let outcome = execute(&mut sender.store, &batch);
        sender.router.handle_committed(sender.now, batch.id(), outcome);
    }
    sender.serve();
    assert_eq!(sender.router.queued(), 3 * most as u64);
    assert_eq!(sender.router.stored_through(), sender.router.sent_through());
    assert_eq!(sends_until_busy(&mut sender, Mode::One), most);
}

#[test]
fn each_copy_counts() {
    let mut sender = Node::start("sender", |_| {});
    for address in ["here", "there"] {
        sender.router.add_peer(sender.now, address);
    }
    sender.serve();
    let most = (2 << 20) / PAYLOAD.len() + 1;
    assert_eq!(sends_until_busy(&mut sender, Mode::All), most.div_ceil(2));
}

#[test]
fn a_batch_has_no_more_than_some_messages_however_short_they_are() {
    let mut sender = Node::start("sender", |_| {});
    sender.router.add_peer(sender.now, "there");
    sender.serve();
    assert_eq!(sends_of(&mut sender, b"", Mode::One), (2 << 20) / 64);
}
