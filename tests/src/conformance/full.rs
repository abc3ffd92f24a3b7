//! A store without room: nothing of a group that does not fit, and room for acks all the same.

use liner_proto::effect::{Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;

use super::records::{message, run};
use super::{Capabilities, Open, Place};

const NODE: Queue<'static> = Queue::Node("gateway");
const EPOCH: Epoch = Epoch(11);
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };
const CURSOR: StoreOp<'static> = StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 1 };

/// One record that takes about a thirtieth of the store.
fn piece(caps: Capabilities) -> Vec<u8> {
    run([message(&vec![0x55; caps.bytes_max / 30])])
}

/// Appends until the store is full; says how many records it took.
#[expect(clippy::panic, reason = "a test may fail")]
fn fill(place: &mut Place<'_>, queue: Queue<'_>) -> u64 {
    let records = piece(place.caps);
    for number in 1..100 {
        let append = StoreOp::Append { queue, first: number, last: number, records: &records };
        match place.try_done(&[append]) {
            Ok(()) => {}
            Err(StoreFault::Full) if number > 5 => return number - 1,
            Err(other) => panic!("record {number}: {other}"),
        }
    }
    panic!("the store takes more than it has room for");
}

/// A group that does not fit is refused as a whole, as often as it is tried.
pub fn full_leaves_no_trace(open: Open<'_>, caps: Capabilities) {
    if !caps.is_bounded() {
        return;
    }
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, CURSOR]);
    let count = fill(&mut place, NODE);
    let before = place.view();
    assert_eq!(before.queue(NODE).last, count);
    let records = piece(caps);
    let next = count + 1;
    let append = StoreOp::Append { queue: NODE, first: next, last: next, records: &records };
    let cursor = StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 9 };
    for group in [&[cursor, append][..], &[append, cursor], &[append]] {
        assert_eq!(place.try_done(group), Err(StoreFault::Full));
        assert_eq!(place.view(), before);
    }
    let mut into = vec![0; records.len()];
    for after in 0..count {
        let loaded = place.store().load(NODE, after, &mut into);
        let expected = Loaded::Records { first: after + 1, last: after + 1, len: records.len() };
        assert_eq!(loaded, Ok(expected));
        assert_eq!(into, records);
    }
}

/// Trims, cursors and closing succeed in a full store, and what they free can be used again.
pub fn acks_go_on_when_it_is_full(open: Open<'_>, caps: Capabilities) {
    if !caps.is_bounded() {
        return;
    }
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, CURSOR]);
    for round in 0..3 {
        let count = fill(&mut place, NODE);
        for through in 1..=count {
            place.done(&[StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 100 * round + through }]);
            place.done(&[StoreOp::Trim { queue: NODE, through }]);
        }
        assert_eq!(place.view().queue(NODE).messages, 0);
        let records = piece(caps);
        let next = count + 1;
        place.done(&[StoreOp::Append { queue: NODE, first: next, last: next, records: &records }]);
        place.done(&[StoreOp::Close { queue: NODE }]);
        place.done(&[OPEN]);
    }
    fill(&mut place, NODE);
    // In one group, too.
    let records = piece(caps);
    let append = StoreOp::Append { queue: NODE, first: 1, last: 1, records: &records };
    place.done(&[StoreOp::Close { queue: NODE }, OPEN, append]);
    assert_eq!(place.view().queue(NODE).messages, 1);
    place.done(&[StoreOp::Close { queue: NODE }]);
    place.done(&[OPEN]);
    assert!(fill(&mut place, NODE) > 5);
}

/// Records move from one queue to another in one group, piece by piece, in a store that has no room for both copies.
pub fn a_move_within_a_full_store_succeeds(open: Open<'_>, caps: Capabilities) {
    if !caps.is_bounded() {
        return;
    }
    let mut place = Place::new(open, caps);
    if caps.queues < 2 {
        return;
    }
    let kept = Queue::Topic("kept");
    place.done(&[OPEN, StoreOp::Open { queue: kept, epoch: EPOCH }]);
    let count = fill(&mut place, kept);
    let len = piece(caps).len();
    let mut into = vec![0; caps.bytes_max];
    // Eight at a time: more than the room that is left.
    for after in (0..count).step_by(8) {
        let through = count.min(after + 8);
        let mut records = Vec::new();
        for number in after + 1..=through {
            let loaded = place.store().load(kept, number - 1, into.get_mut(..len).unwrap_or_default());
            assert_eq!(loaded, Ok(Loaded::Records { first: number, last: number, len }));
            records.extend_from_slice(into.get(..len).unwrap_or_default());
        }
        let (first, records) = (after + 1, &*records);
        place.done(&[
            StoreOp::Append { queue: NODE, first, last: through, records },
            StoreOp::Trim { queue: kept, through },
        ]);
    }
    let view = place.view();
    assert_eq!((view.queue(NODE).messages, view.queue(kept).messages), (count, 0));
}
