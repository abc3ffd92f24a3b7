//! Both rings against a model that is a map of records.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use std::collections::BTreeMap;

use liner_proto::memory::{Cursor, Region, Ring, Segments};
use liner_proto::wire::record;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Push { len: usize, skip: bool },
    Free { part: u8 },
    Evict { part: u8 },
    Truncate { part: u8 },
    Insert { part: u8 },
    Renumber,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1_usize..40, prop::bool::weighted(0.05)).prop_map(|(len, skip)| Op::Push { len, skip }),
        2 => any::<u8>().prop_map(|part| Op::Free { part }),
        1 => any::<u8>().prop_map(|part| Op::Evict { part }),
        1 => any::<u8>().prop_map(|part| Op::Truncate { part }),
        2 => any::<u8>().prop_map(|part| Op::Insert { part }),
        1 => Just(Op::Renumber),
    ];
    prop::collection::vec(op, 1..120)
}

/// Everything that was ever pushed, by its present number, and which of it the ring must still hold.
struct Model {
    records: BTreeMap<u64, Vec<u8>>,
    held: BTreeMap<u64, ()>,
    freed: u64,
    next: u64,
}

fn at(part: u8, from: u64, to: u64) -> u64 {
    from + (to.saturating_sub(from)) * u64::from(part) / 255
}

fn locate(run: &[u8], first: u64, through: u64) -> usize {
    let mut rest = run;
    for _ in first..=through {
        let Some((_, after)) = record::split_first(rest) else { break };
        rest = after;
    }
    run.len() - rest.len()
}

fn cursor_of<R: Ring>(ring: &R, number: u64) -> Option<Cursor> {
    let run = ring.run_of(number)?;
    let skip = if number == run.begin.number { 0 } else { locate(run.bytes, run.begin.number, number - 1) };
    Some(Cursor { number, offset: run.begin.offset + skip as u64 })
}

/// Whatever the ring holds is what was pushed; and it holds all that must be held.
fn check<R: Ring>(ring: &R, model: &Model) {
    let mut bytes = 0;
    let mut number = model.freed + 1;
    let mut seen = BTreeMap::new();
    while let Some(first) = ring.first_from(number) {
        let at = cursor_of(ring, first).expect("it says that it holds this number");
        let area = ring.area(at).expect("it says that it holds this number");
        assert_eq!(area.begin.number, first);
        let mut rest = area.bytes;
        let mut current = first;
        while let Some((record, after)) = record::split_first(rest) {
            assert_eq!(
                Some(record),
                model.records.get(&current).map(|record| &record[..]),
                "number {current}"
            );
            seen.insert(current, ());
            bytes += rest.len() - after.len();
            rest = after;
            current += 1;
        }
        assert!(rest.is_empty(), "an area has whole records");
        assert_eq!(current, area.next);
        number = area.next;
    }
    for number in model.held.keys().filter(|number| **number > model.freed) {
        assert!(seen.contains_key(number), "number {number} is held");
    }
    assert!(bytes <= ring.len());
}

fn run<R: Ring>(mut ring: R, ops: Vec<Op>) {
    let mut model = Model { records: BTreeMap::new(), held: BTreeMap::new(), freed: 0, next: 1 };
    for op in ops {
        match op {
            Op::Push { len, skip } => push(&mut ring, &mut model, len, skip),
            Op::Free { part } => {
                model.freed = at(part, model.freed, model.next - 1);
                let (first, through) = (ring.first().unwrap_or(u64::MAX), model.freed);
                ring.free(through, |run| if through < first { 0 } else { locate(run, first, through) });
            }
            Op::Evict { part } => evict(&mut ring, &mut model, part),
            Op::Truncate { part } => {
                let number = at(part, model.freed + 1, model.next);
                if let Some(cursor) = cursor_of(&ring, number) {
                    ring.truncate(cursor);
                    model.next = number;
                    model.held.retain(|held, ()| *held < number);
                    model.records.retain(|record, _| *record < number);
                }
            }
            Op::Insert { part } => insert(&mut ring, &mut model, part),
            Op::Renumber => renumber(&mut ring, &mut model),
        }
        check(&ring, &model);
    }
}

fn push<R: Ring>(ring: &mut R, model: &mut Model, len: usize, skip: bool) {
    let number = model.next + u64::from(skip);
    let bytes = vec![(number % 251) as u8; len];
    let pushed = ring.push(number, 1, len + 1, false, |room| {
        room[0] = len as u8;
        room[1..].copy_from_slice(&bytes);
    });
    assert!(pushed || ring.len() + len + 1 > ring.capacity() || ring.first().is_some());
    if pushed {
        model.records.insert(number, bytes);
        model.held.insert(number, ());
        model.next = number + 1;
    }
}

fn evict<R: Ring>(ring: &mut R, model: &mut Model, part: u8) {
    let from = at(part, model.freed + 1, model.next);
    if !ring.evict(from, model.next - 1) {
        return;
    }
    let gone: Vec<u64> = model.held.keys().copied().filter(|number| ring.run_of(*number).is_none()).collect();
    assert!(gone.iter().all(|number| *number >= from || *number <= model.freed));
    for number in gone {
        model.held.remove(&number);
    }
}

/// Puts back a page that begins where a hole does.
fn insert<R: Ring>(ring: &mut R, model: &mut Model, part: u8) {
    let wanted = at(part, model.freed + 1, model.next);
    let starts_hole = ring.run_of(wanted).is_none() && model.records.contains_key(&wanted);
    let follows = wanted == model.freed + 1 || ring.run_of(wanted - 1).is_some();
    if !starts_hole || !follows {
        return;
    }
    let limit = ring.first_from(wanted).unwrap_or(model.next);
    let (mut page, mut last) = (Vec::new(), wanted - 1);
    while last + 1 < limit && page.len() < 80 {
        let Some(record) = model.records.get(&(last + 1)) else { break };
        page.push(record.len() as u8);
        page.extend_from_slice(record);
        last += 1;
    }
    if last >= wanted && ring.insert(wanted, last, &page) {
        for number in wanted..=last {
            model.held.insert(number, ());
        }
    }
}

fn renumber<R: Ring>(ring: &mut R, model: &mut Model) {
    let less = model.freed;
    let first = ring.first().unwrap_or(u64::MAX);
    ring.renumber(less, |run| if less < first { 0 } else { locate(run, first, less) });
    let records = core::mem::take(&mut model.records).into_iter();
    model.records = records.filter(|(n, _)| *n > less).map(|(n, record)| (n - less, record)).collect();
    let held = core::mem::take(&mut model.held).into_keys();
    model.held = held.filter(|n| *n > less).map(|n| (n - less, ())).collect();
    model.next -= less;
    model.freed = 0;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_hold_what_was_pushed(ops in ops()) {
        run(Segments::new(4096), ops);
    }

    #[test]
    fn a_region_holds_what_was_pushed(ops in ops()) {
        run(Region::<256>::new(), ops);
    }
}
