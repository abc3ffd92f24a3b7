//! Groups: all or nothing.

use liner_proto::effect::{DeadReason, GapReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};

use super::records::{message, numbered};
use super::{Capabilities, Open, Place};

const NODE: Queue<'static> = Queue::Node("gateway");
const EPOCH: Epoch = Epoch(11);
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };

/// Whatever request comes before the one that fails, and whatever comes after it, leaves nothing.
pub fn a_failed_group_leaves_nothing(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let (held, next, letter) = (numbered(1, 9), numbered(10, 12), message(b"letter"));
    place.done(&[
        OPEN,
        StoreOp::Inbox { epoch: Epoch(1) },
        StoreOp::Append { queue: NODE, first: 1, last: 9, records: &held },
        StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 1 },
        StoreOp::Topic { queue: NODE, number: 1, text: "old" },
        StoreOp::Drop { queue: NODE, through: 2, reason: GapReason::Dropped },
    ]);
    let before = place.view();
    let predecessor = Predecessor { epoch: EPOCH, old_first: 4, count: 1 };
    let mut tried = vec![
        StoreOp::Inbox { epoch: Epoch(2) },
        StoreOp::Open { queue: NODE, epoch: Epoch(3) },
        StoreOp::Rotate { queue: NODE, epoch: Epoch(4), predecessor },
        StoreOp::Reserve { queue: NODE, through: 70 },
        StoreOp::Append { queue: NODE, first: 10, last: 12, records: &next },
        StoreOp::Trim { queue: NODE, through: 3 },
        StoreOp::Trim { queue: NODE, through: 30 },
        StoreOp::Drop { queue: NODE, through: 5, reason: GapReason::Cleared },
        StoreOp::Topic { queue: NODE, number: 1, text: "new" },
        StoreOp::Topic { queue: NODE, number: 2, text: "new" },
        StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 2 },
        StoreOp::Cursor { peer: "q", epoch: EPOCH, through: 2 },
        StoreOp::Close { queue: NODE },
    ];
    if caps.directory {
        let (peer, topic, record) = ("p", "t", &*letter);
        tried.push(StoreOp::Subscribe { topic: "t", address: "a", name: "n" });
        tried.push(StoreOp::DeadLetter { peer, topic, reason: DeadReason::Quota, record });
    }
    let refused = StoreOp::Trim { queue: Queue::Node("never opened"), through: 1 };
    for op in tried {
        assert_eq!(place.store().apply(&[op, refused, OPEN]), Err(StoreFault::Refused), "{op:?}");
        assert_eq!(place.view(), before, "{op:?}");
        // A group before it in the same turn stays, one after it is taken.
        let turn = [StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 1 }];
        assert_eq!(place.store().apply(&turn), Ok(()));
        assert_eq!(place.store().apply(&[op, refused]), Err(StoreFault::Refused), "{op:?}");
        place.done(&turn);
        assert_eq!(place.view(), before, "{op:?}");
    }
    let mut into = [0; 256];
    let loaded = place.store().load(NODE, 0, &mut into);
    let expected = numbered(3, 9);
    assert_eq!(loaded, Ok(Loaded::Records { first: 3, last: 9, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

/// A group whose requests build upon one another succeeds.
pub fn a_group_sees_its_own_requests(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 3, count: 1 };
    place.done(&[
        OPEN,
        StoreOp::Append { queue: NODE, first: 1, last: 4, records: &numbered(1, 4) },
        StoreOp::Append { queue: NODE, first: 5, last: 6, records: &numbered(5, 6) },
        StoreOp::Trim { queue: NODE, through: 1 },
        StoreOp::Rotate { queue: NODE, epoch: Epoch(12), predecessor },
        StoreOp::Append { queue: NODE, first: 5, last: 5, records: &numbered(7, 7) },
    ]);
    let refused = StoreOp::Append { queue: NODE, first: 7, last: 7, records: &numbered(7, 7) };
    assert_eq!(place.store().apply(&[refused]), Err(StoreFault::Refused));
    place.done(&[]);
    let view = place.view();
    assert_eq!((view.queue(NODE).last, view.queue(NODE).messages), (5, 5));
    let mut into = [0; 256];
    let loaded = place.store().load(NODE, 0, &mut into);
    let expected = numbered(3, 7);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 5, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));

    place.done(&[
        StoreOp::Close { queue: NODE },
        OPEN,
        StoreOp::Append { queue: NODE, first: 1, last: 1, records: &numbered(8, 8) },
    ]);
    let loaded = place.store().load(NODE, 0, &mut into);
    let expected = numbered(8, 8);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 1, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

/// Later calls see what was applied, before it is committed.
pub fn what_was_applied_is_visible_at_once(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let (one, two) = (numbered(1, 1), numbered(2, 2));
    let mut into = [0; 64];
    assert_eq!(place.store().apply(&[OPEN]), Ok(()));
    let append = StoreOp::Append { queue: NODE, first: 1, last: 1, records: &one };
    assert_eq!(place.store().apply(&[append]), Ok(()));
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 1, len: one.len() }));
    let append = StoreOp::Append { queue: NODE, first: 2, last: 2, records: &two };
    assert_eq!(place.store().apply(&[append]), Ok(()));
    assert_eq!(place.store().apply(&[StoreOp::Trim { queue: NODE, through: 1 }]), Ok(()));
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 2, last: 2, len: two.len() }));
    place.done(&[]);
    place.reopen();
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 2, last: 2, len: two.len() }));
}
