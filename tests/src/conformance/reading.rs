//! Loading: from anywhere, into buffers of any size.

use liner_proto::effect::{DeadReason, GapReason, Loaded, Queue, StoreOp};
use liner_proto::id::Epoch;

use super::records::{gap, message, message_numbered, numbered, run};
use super::{Capabilities, Open, Place};

const NODE: Queue<'static> = Queue::Node("gateway");
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: Epoch(11) };

const fn append(first: u64, last: u64, records: &[u8]) -> StoreOp<'_> {
    StoreOp::Append { queue: NODE, first, last, records }
}

/// Every byte comes back, whatever its value.
pub fn records_come_back_as_they_were(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let bytes: Vec<u8> = (0..=255).collect();
    let records = run([message(&bytes), message(&[]), vec![0x40], message(&[0; 7])]);
    place.done(&[OPEN, append(1, 4, &records)]);
    for _ in 0..2 {
        let mut into = vec![0xaa; 512];
        let loaded = place.store().load(NODE, 0, &mut into);
        assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 4, len: records.len() }));
        assert_eq!(into.get(..records.len()), Some(&*records));
        assert!(into.iter().skip(records.len()).all(|&byte| byte == 0xaa), "no byte behind them");
        place.reopen();
    }
}

/// From every number, into every size of buffer: whole records, the right ones, as many as there is room for in the
/// first of what was stored together.
pub fn a_load_begins_and_ends_anywhere(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN, append(1, 8, &numbered(1, 8)), append(9, 16, &numbered(9, 16))]);
    for after in 0..=17 {
        for room in 0..300 {
            let mut into = vec![0; room];
            let loaded = place.store().load(NODE, after, &mut into);
            if after >= 16 {
                assert_eq!(loaded, Ok(Loaded::Nothing));
                continue;
            }
            let needed = run([message_numbered(after + 1)]).len();
            if room < needed {
                assert_eq!(loaded, Ok(Loaded::TooSmall { needed }));
                continue;
            }
            let Ok(Loaded::Records { first, last, len }) = loaded else {
                assert_eq!(loaded, Ok(Loaded::Nothing), "after {after}, room {room}");
                continue;
            };
            assert_eq!(first, after + 1);
            let expected = numbered(first, last);
            assert_eq!(into.get(..len), Some(&*expected));
            let end = if after < 8 { 8 } else { 16 };
            let one_more = numbered(first, (last + 1).min(end)).len();
            assert!(last >= end || one_more > room, "after {after}, room {room}: only to {last}");
        }
    }
}

/// What is needed is told, and is enough.
pub fn a_buffer_too_small_says_what_it_needs(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = run([message(&[1; 200]), message(&[2; 300])]);
    place.done(&[OPEN, append(1, 2, &records)]);
    for (after, payload) in [(0, vec![1; 200]), (1, vec![2; 300])] {
        let expected = run([message(&payload)]);
        let needed = expected.len();
        for room in [0, 1, needed - 1] {
            let loaded = place.store().load(NODE, after, &mut vec![0; room]);
            assert_eq!(loaded, Ok(Loaded::TooSmall { needed }));
        }
        let mut into = vec![0; needed];
        let loaded = place.store().load(NODE, after, &mut into);
        assert_eq!(loaded, Ok(Loaded::Records { first: after + 1, last: after + 1, len: needed }));
        assert_eq!(into, expected);
    }
}

/// A load that begins within a gap record gets a gap of what is left of it.
pub fn a_gap_is_shortened_to_what_was_asked_for(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let records = run([message(b"one"), gap(1000), message(b"two"), gap(3)]);
    place.done(&[OPEN, append(1, 1005, &records)]);
    for (after, expected) in [
        (1, run([gap(1000), message(b"two"), gap(3)])),
        (2, run([gap(999), message(b"two"), gap(3)])),
        (900, run([gap(101), message(b"two"), gap(3)])),
        (1000, run([gap(1), message(b"two"), gap(3)])),
        (1001, run([message(b"two"), gap(3)])),
        (1002, run([gap(3)])),
        (1004, run([gap(1)])),
    ] {
        let mut into = vec![0; 64];
        let loaded = place.store().load(NODE, after, &mut into);
        assert_eq!(loaded, Ok(Loaded::Records { first: after + 1, last: 1005, len: expected.len() }));
        assert_eq!(into.get(..expected.len()), Some(&*expected));
    }
    place.done(&[StoreOp::Trim { queue: NODE, through: 500 }]);
    let expected = run([gap(501), message(b"two"), gap(3)]);
    let mut into = vec![0; 64];
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 501, last: 1005, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

/// A backlog that came in single messages is not given back in single messages.
pub fn small_appends_are_loaded_together(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN]);
    let records: Vec<_> = (1..=20).map(|number| numbered(number, number)).collect();
    for (number, record) in (1..).zip(&records) {
        place.done(&[append(number, number, record)]);
    }
    place.done(&[StoreOp::Trim { queue: NODE, through: 2 }]);
    let mut loads = 0;
    let mut after = 0;
    while after < 20 {
        let mut into = vec![0; 1024];
        let loaded = place.store().load(NODE, after, &mut into);
        let Ok(Loaded::Records { first, last, len }) = loaded else {
            assert_eq!(loaded, Ok(Loaded::Nothing), "after {after}");
            continue;
        };
        assert_eq!(first, after.max(2) + 1);
        assert_eq!(into.get(..len), Some(&*numbered(first, last)));
        (after, loads) = (last, loads + 1);
    }
    assert!(loads <= 2, "{loads} loads for 18 messages");
}

/// Messages and bytes are those above what was trimmed and dropped; gaps are no messages.
pub fn what_is_queued_is_counted(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let mixed = run([message(b"a"), gap(10), message(b"bc")]);
    place.done(&[OPEN, append(1, 5, &numbered(1, 5)), append(6, 17, &mixed)]);
    let mut queued = |op| {
        place.done(&[op]);
        let view = place.view();
        (view.queue(NODE).messages, view.queue(NODE).bytes)
    };
    let trim = |through| StoreOp::Trim { queue: NODE, through };
    let all = numbered(1, 5).len() + mixed.len();
    assert_eq!(queued(trim(0)), (7, all as u64));
    assert_eq!(queued(trim(2)), (5, (numbered(3, 5).len() + mixed.len()) as u64));
    assert_eq!(queued(trim(5)), (2, mixed.len() as u64));
    let rest = run([gap(10), message(b"bc")]).len() as u64;
    assert_eq!(queued(trim(6)), (1, rest));
    assert_eq!(queued(trim(12)), (1, rest));
    assert_eq!(queued(trim(16)), (1, run([message(b"bc")]).len() as u64));
    assert_eq!(queued(trim(17)), (0, 0));
}

/// A record of a mebibyte stands among small ones: it is told apart from them, and put aside.
pub fn large_records_stand_among_small_ones(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let size = (1 << 20).min(caps.bytes_max / 4);
    let large = message(&vec![7; size]);
    let (before, after) = (numbered(1, 3), numbered(5, 6));
    let records = run([large.clone()]);
    place.done(&[OPEN, append(1, 3, &before), append(4, 4, &records), append(5, 6, &after)]);
    place.reopen();
    assert_eq!(place.view().queue(NODE).bytes, (before.len() + records.len() + after.len()) as u64);
    let mut into = vec![0; 1024];
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 3, len: before.len() }), "what fits comes first");
    let loaded = place.store().load(NODE, 3, &mut into);
    assert_eq!(loaded, Ok(Loaded::TooSmall { needed: records.len() }));
    let mut whole = vec![0; records.len()];
    let loaded = place.store().load(NODE, 3, &mut whole);
    assert_eq!(loaded, Ok(Loaded::Records { first: 4, last: 4, len: records.len() }));
    assert!(whole == records);
    let loaded = place.store().load(NODE, 4, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 5, last: 6, len: after.len() }));
    if !caps.directory {
        // It has no place for what is put aside.
        return;
    }
    let letter = StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::TooLarge, record: &large };
    let dropped = StoreOp::Drop { queue: NODE, through: 4, reason: GapReason::TooLarge };
    // Out of the queue and among what was put aside, in one group.
    place.done(&[letter, dropped]);
    let view = place.view();
    assert_eq!((view.queue(NODE).messages, view.queue(NODE).bytes), (2, after.len() as u64));
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 5, last: 6, len: after.len() }));
}

/// A record of a mebibyte goes in and comes out, where there is room for one.
pub fn large_records_are_kept(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let size = (1 << 20).min(caps.bytes_max / 2);
    let payload: Vec<u8> = (0..size).map(|index| ((index * 31) >> 3) as u8).collect();
    let records = run([message(&payload)]);
    place.done(&[OPEN, append(1, 1, &records)]);
    place.reopen();
    let loaded = place.store().load(NODE, 0, &mut [0; 16]);
    assert_eq!(loaded, Ok(Loaded::TooSmall { needed: records.len() }));
    let mut into = vec![0; records.len()];
    let loaded = place.store().load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: 1, len: records.len() }));
    assert!(into == records);
}
