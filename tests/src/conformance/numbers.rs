//! Numbers of a queue: which are taken, trimmed, dropped, reserved, and how they move.

use liner_proto::effect::{GapReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};

use super::records::{gap, message, numbered, run};
use super::{Capabilities, Open, Place, ViewedQueue};

const NODE: Queue<'static> = Queue::Node("gateway");
const EPOCH: Epoch = Epoch(11);
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };

const fn append(first: u64, last: u64, records: &[u8]) -> StoreOp<'_> {
    StoreOp::Append { queue: NODE, first, last, records }
}

const fn trim(through: u64) -> StoreOp<'static> {
    StoreOp::Trim { queue: NODE, through }
}

const fn drop_through(through: u64, reason: GapReason) -> StoreOp<'static> {
    StoreOp::Drop { queue: NODE, through, reason }
}

const fn reserve(through: u64) -> StoreOp<'static> {
    StoreOp::Reserve { queue: NODE, through }
}

fn viewed(place: &mut Place<'_>) -> ViewedQueue {
    place.view().queue(NODE).clone()
}

#[track_caller]
fn refused(place: &mut Place<'_>, op: StoreOp<'_>) {
    assert_eq!(place.store().apply(&[op]), Err(StoreFault::Refused), "{op:?}");
}

/// The first number above `after` and all the bytes of the records there.
#[track_caller]
fn loaded(place: &mut Place<'_>, after: u64) -> Option<(u64, u64, Vec<u8>)> {
    let mut into = vec![0; 4096];
    match place.store().load(NODE, after, &mut into) {
        Ok(Loaded::Records { first, last, len }) => {
            into.truncate(len);
            Some((first, last, into))
        }
        Ok(Loaded::Nothing) => None,
        other => {
            assert_eq!(other, Ok(Loaded::Nothing));
            None
        }
    }
}

/// An append begins at 1, and then at the number after the last one; holes and repetitions are refused.
pub fn an_append_follows_the_last_number(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN]);
    let (two, three) = (numbered(1, 2), numbered(1, 3));
    for first in [0, 2, u64::MAX - 2] {
        refused(&mut place, append(first, first + 1, &two));
    }
    place.done(&[append(1, 2, &two)]);
    place.reopen();
    for first in [0, 1, 2, 4] {
        refused(&mut place, append(first, first + 2, &three));
    }
    place.done(&[append(3, 5, &three)]);
    place.done(&[trim(5)]);
    refused(&mut place, append(5, 6, &two));
    refused(&mut place, append(1, 2, &two));
    place.reopen();
    place.done(&[append(6, 7, &two)]);
    assert_eq!(loaded(&mut place, 0), Some((6, 7, two)));
}

/// Bytes that are no whole records, or that cover other numbers, are refused.
pub fn an_append_is_whole_records_of_its_numbers(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN]);
    let three = numbered(1, 3);
    refused(&mut place, append(1, 2, &three));
    refused(&mut place, append(1, 4, &three));
    refused(&mut place, append(1, 0, &three));
    refused(&mut place, append(1, 0, &[]));
    refused(&mut place, append(1, 1, &[]));
    refused(&mut place, append(1, 3, three.get(..three.len() - 1).unwrap_or_default()));
    let mut longer = three.clone();
    longer.push(0x80);
    refused(&mut place, append(1, 3, &longer));
    refused(&mut place, append(1, 1, &[0xff; 12]));
    let gaps = run([gap(5), message(b"m"), gap(1)]);
    refused(&mut place, append(1, 3, &gaps));
    refused(&mut place, append(1, 1, &run([gap(0)])));
    place.done(&[append(1, 7, &gaps)]);
    assert_eq!(loaded(&mut place, 0), Some((1, 7, gaps)));
}

/// A lower trim, drop or reservation is no error and changes nothing.
pub fn nothing_moves_backwards(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = numbered(1, 9);
    place.done(&[OPEN, append(1, 9, &records), reserve(50), trim(3)]);
    place.done(&[drop_through(6, GapReason::Dropped)]);
    let before = viewed(&mut place);
    assert_eq!((before.trimmed, before.last, before.reserved), (3, 9, 50));
    assert_eq!(before.dropped, Some((6, GapReason::Dropped)));
    for op in [
        trim(0),
        trim(2),
        trim(3),
        reserve(0),
        reserve(49),
        drop_through(0, GapReason::Expired),
        drop_through(3, GapReason::Expired),
        drop_through(6, GapReason::Expired),
    ] {
        place.done(&[op]);
        assert_eq!(viewed(&mut place), before, "{op:?}");
    }
    place.done(&[reserve(51), trim(4), drop_through(7, GapReason::Cleared)]);
    let after = viewed(&mut place);
    assert_eq!((after.trimmed, after.last, after.reserved), (4, 9, 51));
    assert_eq!(after.dropped, Some((7, GapReason::Cleared)));
    assert_eq!(loaded(&mut place, 0), Some((8, 9, numbered(8, 9))));
}

/// A trim above the last number takes that with it, for messages that were acknowledged before they were stored.
pub fn a_trim_may_lead(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, append(1, 3, &numbered(1, 3)), trim(10)]);
    let queue = viewed(&mut place);
    assert_eq!((queue.trimmed, queue.last, queue.messages, queue.bytes), (10, 10, 0, 0));
    assert_eq!(loaded(&mut place, 0), None);
    let next = numbered(11, 12);
    refused(&mut place, append(4, 5, &next));
    place.done(&[append(11, 12, &next)]);
    assert_eq!(loaded(&mut place, 0), Some((11, 12, next.clone())));
    assert_eq!(loaded(&mut place, 10), Some((11, 12, next)));
}

/// Dropped numbers are told as a range until the trim reaches them; a drop above the last number is refused.
pub fn a_drop_is_remembered_until_it_is_trimmed(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = numbered(1, 9);
    place.done(&[OPEN, append(1, 9, &records)]);
    refused(&mut place, drop_through(10, GapReason::Dropped));
    for reason in (1..).map_while(GapReason::from_number) {
        let through = 1 + u64::from(reason as u8) / 3;
        place.done(&[drop_through(through, reason)]);
    }
    place.done(&[drop_through(5, GapReason::Missing)]);
    let queue = viewed(&mut place);
    assert_eq!((queue.dropped, queue.messages), (Some((5, GapReason::Missing)), 4));
    assert_eq!(queue.bytes, numbered(6, 9).len() as u64);
    place.done(&[trim(4)]);
    assert_eq!(viewed(&mut place).dropped, Some((5, GapReason::Missing)));
    assert_eq!(loaded(&mut place, 4), Some((6, 9, numbered(6, 9))));
    place.done(&[trim(5)]);
    assert_eq!(viewed(&mut place).dropped, None);
    place.done(&[drop_through(9, GapReason::Cleared)]);
    let queue = viewed(&mut place);
    assert_eq!((queue.dropped, queue.last), (Some((9, GapReason::Cleared)), 9));
    assert_eq!((queue.messages, queue.bytes), (0, 0));
    assert_eq!(loaded(&mut place, 0), None);
    place.done(&[append(10, 10, &numbered(10, 10))]);
    assert_eq!(loaded(&mut place, 0), Some((10, 10, numbered(10, 10))));
}

/// A rotation shifts what is held, trimmed, dropped and reserved, and keeps the topics.
pub fn a_rotation_shifts_every_number(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[
        OPEN,
        append(1, 9, &numbered(1, 9)),
        append(10, 12, &numbered(10, 12)),
        StoreOp::Topic { queue: NODE, number: 1, text: "t" },
        reserve(100),
        trim(3),
        drop_through(5, GapReason::Expired),
    ]);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 4, count: 9 };
    place.done(&[StoreOp::Rotate { queue: NODE, epoch: Epoch(12), predecessor }]);
    let queue = viewed(&mut place);
    assert_eq!(queue.predecessor, Some(predecessor));
    assert_eq!((queue.epoch, queue.trimmed, queue.last), (Epoch(12), 0, 9));
    assert_eq!((queue.dropped, queue.reserved), (Some((2, GapReason::Expired)), 97));
    assert_eq!(queue.topics.len(), 1);
    assert_eq!(loaded(&mut place, 0), Some((3, 9, numbered(6, 12))));
    assert_eq!(loaded(&mut place, 6), Some((7, 9, numbered(10, 12))));
    place.done(&[append(10, 11, &numbered(13, 14)), trim(4)]);
    assert_eq!(loaded(&mut place, 0), Some((5, 11, numbered(8, 14))));
    // And again.
    let predecessor = Predecessor { epoch: Epoch(12), old_first: 5, count: 7 };
    place.done(&[StoreOp::Rotate { queue: NODE, epoch: Epoch(13), predecessor }]);
    assert_eq!(loaded(&mut place, 0), Some((1, 7, numbered(8, 14))));
    place.done(&[append(8, 8, &numbered(15, 15)), trim(6)]);
    assert_eq!(loaded(&mut place, 0), Some((7, 8, numbered(14, 15))));
    let queue = viewed(&mut place);
    assert_eq!((queue.trimmed, queue.last, queue.messages), (6, 8, 2));
    assert_eq!((queue.predecessor, queue.reserved), (Some(predecessor), 93));
}

/// What is below the oldest message that the rotation names was acknowledged: it is forgotten.
pub fn a_rotation_forgets_what_is_below_it(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, append(1, 9, &numbered(1, 9)), drop_through(4, GapReason::Dropped)]);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 7, count: 3 };
    place.done(&[StoreOp::Rotate { queue: NODE, epoch: Epoch(12), predecessor }]);
    let queue = viewed(&mut place);
    assert_eq!((queue.trimmed, queue.dropped, queue.last, queue.messages), (0, None, 3, 3));
    assert_eq!(loaded(&mut place, 0), Some((1, 3, numbered(7, 9))));
    // Beyond the last one: all of it is forgotten.
    let predecessor = Predecessor { epoch: Epoch(12), old_first: 20, count: 0 };
    place.done(&[StoreOp::Rotate { queue: NODE, epoch: Epoch(13), predecessor }]);
    let queue = viewed(&mut place);
    assert_eq!((queue.trimmed, queue.last, queue.messages, queue.reserved), (0, 0, 0, 0));
    assert_eq!(loaded(&mut place, 0), None);
    place.done(&[append(1, 2, &numbered(1, 2))]);
    assert_eq!(loaded(&mut place, 0), Some((1, 2, numbered(1, 2))));
}

/// A gap record of which the older numbers are trimmed keeps the younger ones when all of them move.
pub fn a_gap_forgotten_in_part_survives_a_rotation(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = run([message(b"one"), gap(300), message(b"two")]);
    place.done(&[OPEN, append(1, 302, &records), trim(200)]);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 201, count: 102 };
    place.done(&[StoreOp::Rotate { queue: NODE, epoch: Epoch(12), predecessor }]);
    let expected = run([gap(101), message(b"two")]);
    assert_eq!(loaded(&mut place, 0), Some((1, 102, expected)));
    assert_eq!(loaded(&mut place, 100), Some((101, 102, run([gap(1), message(b"two")]))));
    place.done(&[trim(50), append(103, 103, &numbered(1, 1))]);
    let (first, last, _) = loaded(&mut place, 0).unwrap_or_default();
    assert_eq!((first, last), (51, 103));
    assert_eq!(viewed(&mut place).messages, 2);
}

/// Numbers that leave their range are refused, and leave no trace.
pub fn numbers_at_the_end_of_their_range_are_refused(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, append(1, 2, &numbered(1, 2))]);
    let before = viewed(&mut place);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 0, count: 2 };
    refused(&mut place, StoreOp::Rotate { queue: NODE, epoch: Epoch(12), predecessor });
    refused(&mut place, append(3, 2, &run([gap(u64::MAX)])));
    refused(&mut place, append(3, u64::MAX, &run([gap(u64::MAX), message(b"m")])));
    refused(&mut place, drop_through(u64::MAX, GapReason::Dropped));
    assert_eq!(viewed(&mut place), before);
    assert_eq!(loaded(&mut place, 0), Some((1, 2, numbered(1, 2))));
    assert_eq!(loaded(&mut place, u64::MAX), None);
}
