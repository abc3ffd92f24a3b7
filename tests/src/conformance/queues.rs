//! What is kept beside the records: queues, topics, cursors, names.

use liner_proto::effect::{DeadReason, GapReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;

use super::records::{message, numbered};
use super::{Capabilities, Open, Place, View, ViewedQueue};

const NODE: Queue<'static> = Queue::Node("gateway");
const EPOCH: Epoch = Epoch(0xfedc_ba98_7654_3210);
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };

/// A store that was never used tells nothing and holds nothing.
pub fn a_new_store_is_empty(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    assert_eq!(place.view(), View::default());
    assert_eq!(place.store().load(NODE, 0, &mut [0; 64]), Ok(Loaded::Nothing));
    assert_eq!(place.store().commit(), Ok(()));
    assert_eq!(place.store().apply(&[]), Ok(()));
}

/// Whatever changes a queue is refused unless the queue is open.
pub fn a_queue_must_be_open(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let predecessor = liner_proto::id::Predecessor { epoch: EPOCH, old_first: 1, count: 1 };
    for op in [
        StoreOp::Append { queue: NODE, first: 1, last: 2, records: &numbered(1, 2) },
        StoreOp::Trim { queue: NODE, through: 1 },
        StoreOp::Drop { queue: NODE, through: 0, reason: GapReason::Dropped },
        StoreOp::Reserve { queue: NODE, through: 1 },
        StoreOp::Rotate { queue: NODE, epoch: EPOCH, predecessor },
        StoreOp::Topic { queue: NODE, number: 1, text: "a" },
    ] {
        assert_eq!(place.store().apply(&[op]), Err(StoreFault::Refused), "{op:?}");
    }
    assert_eq!(place.view(), View::default());
}

/// Queues of different names or kinds have nothing in common.
pub fn queues_are_apart(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let queues = [Queue::Node("a"), Queue::Topic("a"), Queue::Address("a"), Queue::Node("b")];
    if caps.queues < queues.len() {
        place.done(&[OPEN]);
        let other = StoreOp::Open { queue: Queue::Node("b"), epoch: EPOCH };
        assert_eq!(place.store().apply(&[other]), Err(StoreFault::Refused));
        return;
    }
    for (queue, count) in queues.into_iter().zip(1..) {
        let records = numbered(count, 2 * count);
        place.done(&[
            StoreOp::Open { queue, epoch: Epoch(count) },
            StoreOp::Append { queue, first: 1, last: count + 1, records: &records },
        ]);
    }
    place.done(&[StoreOp::Trim { queue: Queue::Topic("a"), through: 1 }]);
    place.done(&[StoreOp::Close { queue: Queue::Address("a") }]);
    let view = place.view();
    let told = |queue| {
        let viewed: &ViewedQueue = view.queue(queue);
        (viewed.epoch, viewed.trimmed, viewed.last, viewed.messages)
    };
    assert_eq!(told(Queue::Node("a")), (Epoch(1), 0, 2, 2));
    assert_eq!(told(Queue::Topic("a")), (Epoch(2), 1, 3, 2));
    assert_eq!(told(Queue::Node("b")), (Epoch(4), 0, 5, 5));
    assert_eq!(view.queues.len(), 3);
    let mut into = [0; 256];
    let loaded = place.store().load(Queue::Node("b"), 0, &mut into);
    let expected = numbered(4, 8);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 5, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

/// Opening a queue that exists changes its epoch and nothing else.
pub fn a_queue_that_is_opened_again_keeps_its_content(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = numbered(1, 5);
    place.done(&[
        OPEN,
        StoreOp::Append { queue: NODE, first: 1, last: 5, records: &records },
        StoreOp::Reserve { queue: NODE, through: 100 },
        StoreOp::Topic { queue: NODE, number: 1, text: "t" },
        StoreOp::Trim { queue: NODE, through: 2 },
        StoreOp::Drop { queue: NODE, through: 3, reason: GapReason::Expired },
    ]);
    let mut expected = place.view();
    place.done(&[OPEN]);
    assert_eq!(place.view(), expected, "the same epoch again");
    place.done(&[StoreOp::Open { queue: NODE, epoch: Epoch(7) }]);
    for queue in expected.queues.values_mut() {
        queue.epoch = Epoch(7);
    }
    assert_eq!(place.view(), expected);
    let mut into = [0; 256];
    let loaded = place.store().load(NODE, 0, &mut into);
    assert!(matches!(loaded, Ok(Loaded::Records { first: 4, last: 5, .. })), "{loaded:?}");
    let next = numbered(6, 6);
    place.done(&[StoreOp::Append { queue: NODE, first: 6, last: 6, records: &next }]);
}

/// Closing forgets a queue with everything in it; closing it again, or one that never was, is no error.
pub fn a_closed_queue_is_forgotten(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = numbered(1, 5);
    place.done(&[
        OPEN,
        StoreOp::Append { queue: NODE, first: 1, last: 5, records: &records },
        StoreOp::Reserve { queue: NODE, through: 100 },
        StoreOp::Topic { queue: NODE, number: 1, text: "t" },
    ]);
    place.done(&[StoreOp::Close { queue: Queue::Node("never") }]);
    place.reopen();
    place.done(&[StoreOp::Close { queue: NODE }]);
    place.done(&[StoreOp::Close { queue: NODE }]);
    assert_eq!(place.view(), View::default());
    assert_eq!(place.store().load(NODE, 0, &mut [0; 256]), Ok(Loaded::Nothing));
    place.done(&[StoreOp::Open { queue: NODE, epoch: Epoch(9) }]);
    let view = place.view();
    assert_eq!(view.queue(NODE), &ViewedQueue { epoch: Epoch(9), ..ViewedQueue::default() });
    assert_eq!(place.store().load(NODE, 0, &mut [0; 256]), Ok(Loaded::Nothing));
    let next = numbered(1, 1);
    place.done(&[StoreOp::Append { queue: NODE, first: 1, last: 1, records: &next }]);
}

/// A topic number is bound to its latest text, in its queue.
pub fn topics_are_kept_by_queue(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "first" }]);
    place.done(&[
        StoreOp::Topic { queue: NODE, number: 2, text: "sensors/:\\/ü" },
        StoreOp::Topic { queue: NODE, number: 1, text: "second" },
    ]);
    let topics = |view: &View, queue| {
        let told: Vec<_> = view.queue(queue).topics.clone().into_iter().collect();
        told
    };
    let expected = vec![(1, "second".to_owned()), (2, "sensors/:\\/ü".to_owned())];
    assert_eq!(topics(&place.view(), NODE), expected);
    if caps.queues < 2 {
        return;
    }
    let other = Queue::Topic("gateway");
    place.done(&[
        StoreOp::Open { queue: other, epoch: EPOCH },
        StoreOp::Topic { queue: other, number: 2, text: "third" },
    ]);
    let view = place.view();
    assert_eq!(topics(&view, NODE), expected);
    assert_eq!(topics(&view, other), vec![(2, "third".to_owned())]);
    place.done(&[StoreOp::Close { queue: other }]);
    place.done(&[StoreOp::Open { queue: other, epoch: EPOCH }]);
    let view = place.view();
    assert_eq!(topics(&view, other), vec![]);
    assert_eq!(topics(&view, NODE), expected);
}

/// A cursor moves upwards within an epoch; another epoch replaces it, whatever its number.
pub fn cursors_are_kept_by_peer_and_epoch(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let cursor = |peer, epoch, through| StoreOp::Cursor { peer, epoch: Epoch(epoch), through };
    place.done(&[cursor("a", 1, 10), cursor("b", u64::MAX, 5)]);
    place.done(&[cursor("a", 1, 9)]);
    let expected = |a, b| [("a".to_owned(), a), ("b".to_owned(), b)].into_iter().collect();
    assert_eq!(place.view().cursors, expected((Epoch(1), 10), (Epoch(u64::MAX), 5)));
    place.done(&[cursor("a", 1, 11), cursor("b", 3, 0)]);
    assert_eq!(place.view().cursors, expected((Epoch(1), 11), (Epoch(3), 0)));
    place.done(&[cursor("b", u64::MAX, 1)]);
    assert_eq!(place.view().cursors, expected((Epoch(1), 11), (Epoch(u64::MAX), 1)));
}

/// The node's own row comes first and holds the newest inbox epoch.
pub fn the_inbox_epoch_is_told_first(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let cursor = StoreOp::Cursor { peer: "a", epoch: EPOCH, through: 1 };
    place.done(&[cursor, OPEN, StoreOp::Inbox { epoch: Epoch(1) }]);
    assert_eq!(place.view().inbox, Some(Epoch(1)));
    place.done(&[StoreOp::Inbox { epoch: Epoch(u64::MAX) }]);
    assert_eq!(place.view().inbox, Some(Epoch(u64::MAX)));
}

/// Rows of the directory come, change and go; one with another name in it stays.
pub fn the_directory_is_kept(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let subscribe = |topic, address, name| StoreOp::Subscribe { topic, address, name };
    if !caps.directory {
        let row = subscribe("t", "a", "n");
        assert_eq!(place.store().apply(&[row]), Err(StoreFault::Refused));
        return;
    }
    place.done(&[
        subscribe("t", "127.0.0.1:1", "one"),
        subscribe("t", "@two", "two"),
        subscribe("u", "@two", "two"),
    ]);
    place.done(&[
        subscribe("t", "127.0.0.1:1", "three"),
        StoreOp::Unsubscribe { topic: "u", address: "@two", name: "two" },
        StoreOp::Unsubscribe { topic: "never", address: "@two", name: "two" },
        // It had the address before.
        StoreOp::Unsubscribe { topic: "t", address: "127.0.0.1:1", name: "one" },
    ]);
    let rows: Vec<_> = place.view().directory.into_iter().collect();
    let row =
        |topic: &str, address: &str, name: &str| ((topic.to_owned(), address.to_owned()), name.to_owned());
    assert_eq!(rows, vec![row("t", "127.0.0.1:1", "three"), row("t", "@two", "two")]);
}

/// Dead letters are taken in a group with the cursor that moves over them.
pub fn dead_letters_are_taken(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let record = message(b"put aside");
    let letter = |reason| StoreOp::DeadLetter { peer: "p", topic: "t", reason, record: &record };
    let cursor = StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 1 };
    if !caps.directory {
        let group = [letter(DeadReason::Failed), cursor];
        assert_eq!(place.store().apply(&group), Err(StoreFault::Refused));
        assert!(place.view().cursors.is_empty());
        return;
    }
    place.done(&[StoreOp::Inbox { epoch: EPOCH }]);
    assert_eq!(place.view().dead_letters, 0);
    for (reason, count) in (1..).map_while(DeadReason::from_number).zip(1..) {
        place.done(&[letter(reason), cursor]);
        assert_eq!(place.view().dead_letters, count, "those of all lives are counted");
    }
    assert_eq!(place.view().cursors.len(), 1);
}

/// Names are text of any kind: what looks like a separator or a pattern is none.
pub fn names_may_hold_anything(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let long = "ä".repeat(caps.name_max / 2);
    let names = ["a:b", "a", "a\\:b", "a::b", "%", "_", "'; --", "\u{1}\0\u{10ffff}", ":", "\\", "A", &long];
    for name in names.into_iter().take(caps.cursors) {
        place.done(&[StoreOp::Cursor { peer: name, epoch: EPOCH, through: name.len() as u64 }]);
    }
    let view = place.view();
    assert_eq!(view.cursors.len(), names.len().min(caps.cursors));
    for (name, (_, through)) in &view.cursors {
        assert_eq!(*through, name.len() as u64, "{name:?}");
    }
    for name in names.into_iter().take(caps.queues) {
        place.done(&[StoreOp::Open { queue: Queue::Node(name), epoch: Epoch(name.len() as u64) }]);
    }
    let view = place.view();
    assert_eq!(view.queues.len(), names.len().min(caps.queues));
    for ((_, name), queue) in &view.queues {
        assert_eq!(queue.epoch, Epoch(name.len() as u64), "{name:?}");
    }
    let too_long = "x".repeat(caps.name_max + 1);
    if caps.name_max < 255 {
        let cursor = StoreOp::Cursor { peer: &too_long, epoch: EPOCH, through: 1 };
        assert_eq!(place.store().apply(&[cursor]), Err(StoreFault::Refused));
    }
}
