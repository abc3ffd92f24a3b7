//! What only somebody beside the store can do to it: damage what it has stored, keep it from storing, lose its answers. A store that has
//! nothing outside its process has none of that.

use core::fmt;

use liner_proto::effect::{Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store;

use super::records::numbered;
use super::{Capabilities, Open, Place};
use crate::servers::cut::{Cut, Cutter, Way};

const NODE: Queue<'static> = Queue::Node("gateway");
const EPOCH: Epoch = Epoch(11);
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };

/// Answers that a store may give to the question what became of a turn before it has to know.
const ASKED_MAX: u32 = 1000;

const fn append(first: u64, last: u64, records: &[u8]) -> StoreOp<'_> {
    StoreOp::Append { queue: NODE, first, last, records }
}

/// Everything that the queue gives, in order: numbers with their records, or nothing instead if they are damaged.
fn drain(store: &mut dyn Store, last: u64) -> Vec<(u64, u64, Option<Vec<u8>>)> {
    let (mut all, mut after, mut into) = (Vec::new(), 0, [0; 4096]);
    while after < last {
        let found = match store.load(NODE, after, &mut into) {
            Ok(Loaded::Records { first, last, len }) => (first, last, into.get(..len).map(<[u8]>::to_vec)),
            Ok(Loaded::Corrupt { first, last }) => (first, last, None),
            other @ (Ok(Loaded::Nothing | Loaded::TooSmall { .. }) | Err(_)) => unexpected(&other),
        };
        after = found.1;
        all.push(found);
    }
    all
}

#[expect(clippy::panic, reason = "a test may fail")]
fn unexpected(what: &impl fmt::Debug) -> ! {
    panic!("{what:?}")
}

/// A record that is not what was stored is told as damaged, as often as it is asked for; what stands before it and behind it is given.
///
/// `damage` changes the stored bytes of the message with this number, of the only queue. Messages of the same turn may go with it.
pub fn a_damaged_record_is_told(open: Open<'_>, caps: Capabilities, damage: &mut dyn FnMut(u64)) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN]);
    for first in [1, 4, 7] {
        let records = numbered(first, first + 2);
        place.done(&[append(first, first + 2, &records)]);
    }
    damage(5);
    for round in 0..3 {
        if round == 2 {
            place.reopen();
        }
        let (mut next, mut is_told) = (1, false);
        for (first, last, records) in drain(place.store(), 9) {
            assert_eq!(first, next, "every number is told of");
            match records {
                Some(records) => {
                    assert!(!(first..=last).contains(&5), "{first} to {last} were given");
                    assert_eq!(records, numbered(first, last));
                }
                None => {
                    assert!(4 <= first && last <= 6 && (first..=last).contains(&5), "{first} to {last}");
                    is_told = true;
                }
            }
            next = last + 1;
        }
        assert!(is_told, "in round {round}");
    }
}

/// A turn that cannot be stored leaves nothing, and can be had again.
///
/// `keep_from_storing` has the place refuse further messages, or take them again.
pub fn a_turn_that_fails_leaves_nothing(
    open: Open<'_>,
    caps: Capabilities,
    keep_from_storing: &mut dyn FnMut(bool),
) {
    let mut place = Place::new(open, caps);
    let (held, next) = (numbered(1, 9), numbered(10, 12));
    place.done(&[
        OPEN,
        append(1, 9, &held),
        StoreOp::Topic { queue: NODE, number: 1, text: "old" },
        StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 1 },
    ]);
    let before = place.view();
    let turn = [
        StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 2 },
        StoreOp::Topic { queue: NODE, number: 2, text: "new" },
        StoreOp::Trim { queue: NODE, through: 3 },
        append(10, 12, &next),
    ];
    for closes in [false, true] {
        keep_from_storing(true);
        let outcome = place.try_done(&turn);
        assert!(!matches!(outcome, Ok(()) | Err(StoreFault::Unknown)), "{outcome:?}");
        keep_from_storing(false);
        if closes {
            assert_eq!(place.view(), before);
        }
    }
    place.done(&turn);
    let mut into = [0; 4096];
    let loaded = place.store().load(NODE, 0, &mut into);
    let expected = numbered(4, 12);
    assert_eq!(loaded, Ok(Loaded::Records { first: 4, last: 12, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
    let view = place.view();
    assert_eq!((view.queue(NODE).last, view.queue(NODE).messages), (12, 9));
    assert_eq!(view.cursors.get("p"), Some(&(EPOCH, 2)));
}

/// Wherever the connection is cut: the turn is there once or not at all, and the store says which as soon as it can.
///
/// The place is opened through the cutter.
pub fn an_answer_that_is_lost_is_found_out(open: Open<'_>, caps: Capabilities, cutter: &Cutter) {
    let mut place = Place::new(open, caps);
    place.done(&[OPEN]);
    let mut last = 0;
    for _ in 0..3 {
        place.done(&[append(last + 1, last + 1, &numbered(last + 1, last + 1))]);
        last += 1;
    }
    let before = [Way::Request, Way::Reply].map(|way| cutter.passed(way));
    place.done(&[append(last + 1, last + 1, &numbered(last + 1, last + 1))]);
    last += 1;
    let after = [Way::Request, Way::Reply].map(|way| cutter.passed(way));
    let (mut doubts, mut cuts) = (0, 0);
    for (way, (before, after)) in [Way::Request, Way::Reply].into_iter().zip(before.into_iter().zip(after)) {
        let size = after - before;
        for at in (0..=size).step_by((size / 30).max(1) as usize) {
            cutter.plan(Cut { way, after: at, marker: Vec::new(), refuse: false });
            let outcome = place.try_done(&[append(last + 1, last + 1, &numbered(last + 1, last + 1))]);
            cuts += u64::from(!cutter.spare());
            let is_done = match outcome {
                Ok(()) => true,
                Err(StoreFault::Unknown) => {
                    doubts += 1;
                    resolve(place.store())
                }
                Err(fault) => {
                    assert_eq!(fault, StoreFault::Unavailable, "{way:?} {at}");
                    false
                }
            };
            last += u64::from(is_done);
            let held: Vec<u8> = drain(place.store(), last)
                .into_iter()
                .filter_map(|(_, _, records)| records)
                .flatten()
                .collect();
            assert_eq!(held, numbered(1, last), "{way:?} {at}");
        }
    }
    assert!(cuts > 20 && doubts > 5, "{cuts} cuts, {doubts} turns in doubt");
    let view = place.view();
    assert_eq!((view.queue(NODE).last, view.queue(NODE).messages), (last, last));
    assert_eq!(view.dead_letters, 0);
}

/// Whether the turn in doubt has taken place.
fn resolve(store: &mut dyn Store) -> bool {
    for _ in 0..ASKED_MAX {
        match store.resolve() {
            Ok(()) => return true,
            Err(StoreFault::Refused) => return false,
            Err(StoreFault::Unavailable) => {}
            Err(fault) => unexpected(&fault),
        }
    }
    unexpected(&"it is never known")
}
