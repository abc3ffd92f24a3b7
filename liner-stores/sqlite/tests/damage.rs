//! Flipped bits: what comes out of the store is what went in, or is told as damaged.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use liner_proto::effect::{GapReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

/// Numbers that follow from a seed.
fn dice(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_segment_that_fails_its_check_is_told_as_often_as_it_is_asked_for() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    for first in [1, 11, 21] {
        append(NODE, first, first + 9, &mut store);
    }
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 3 }]);
    let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
    let spoil = "UPDATE segments
        SET records = CAST(substr(records, 1, 40) || x'ff' || substr(records, 42) AS BLOB) WHERE first = ?1";
    let bytes = |conn: &Connection| {
        let sql = "SELECT records FROM segments WHERE first = 11";
        conn.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0)).expect("a row")
    };
    conn.execute(spoil, [11]).expect("it is spoilt");
    let spoilt = bytes(&conn);
    for _ in 0..3 {
        assert_eq!(drain(&mut store, NODE, 3, 30), [(11, 20)]);
        // In the middle of it, too, and within a turn.
        assert_eq!(store.load(NODE, 14, &mut [0; 1024]), Ok(Loaded::Corrupt { first: 15, last: 20 }));
        drop(store);
        store = open(folder.path(), "sensor");
    }
    let aside = conn.query_row("SELECT first, last, bytes FROM quarantine", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
    });
    assert_eq!(aside.expect("one row"), (11, 20, spoilt));
    assert_eq!(bytes(&conn), b"");
    // What is damaged while a turn is open is put aside with it.
    apply(&mut store, &[]);
    conn.execute(spoil, [21]).expect("it is spoilt");
    assert_eq!(store.apply(&[StoreOp::Reserve { queue: NODE, through: 50 }]), Ok(()));
    assert_eq!(store.load(NODE, 20, &mut [0; 1024]), Ok(Loaded::Corrupt { first: 21, last: 30 }));
    assert_eq!(store.commit(), Ok(()));
    let aside: i64 = conn.query_row("SELECT COUNT(*) FROM quarantine", [], |row| row.get(0)).expect("a row");
    assert_eq!(aside, 2);
    // The node tells the other side of a gap, and the store forgets what was damaged with the rest.
    apply(&mut store, &[StoreOp::Drop { queue: NODE, through: 20, reason: GapReason::Corrupt }]);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 30 }]);
    let left: i64 = conn.query_row("SELECT COUNT(*) FROM segments", [], |row| row.get(0)).expect("a row");
    assert_eq!(left, 0);
}

#[test]
fn a_segment_under_another_name_or_number_fails_its_check() {
    for (change, expected) in [
        ("first = 2 WHERE first = 1", (1, 10)),
        ("last = 9 WHERE first = 1", (1, 9)),
        ("last = 15 WHERE first = 1", (1, 10)),
        ("last = 9223372036854775807 WHERE first = 11", (11, 20)),
        ("first = -5 WHERE first = 1", (1, 10)),
        ("records = 7 WHERE first = 1", (1, 10)),
        ("crc = crc + 4294967296 WHERE first = 1", (1, 10)),
        ("records = (SELECT records FROM segments WHERE first = 11) WHERE first = 1", (1, 10)),
        ("connection_key = 1, first = 11, last = 20 WHERE connection_key = 2", (11, 20)),
    ] {
        let folder = tempdir().expect("a folder");
        let mut store = open(folder.path(), "sensor");
        let other = Queue::Node("other");
        apply(&mut store, &[OPEN, StoreOp::Open { queue: other, epoch: EPOCH }]);
        append(NODE, 1, 10, &mut store);
        append(NODE, 11, 20, &mut store);
        append(other, 1, 10, &mut store);
        let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
        if change.starts_with("connection_key") {
            conn.execute("DELETE FROM segments WHERE first = 11", []).expect("it is deleted");
        }
        conn.execute(&format!("UPDATE segments SET {change}"), []).expect("it is changed");
        let mut into = vec![0; 4096];
        let mut after = 0;
        let mut damaged = Vec::new();
        while after < 20 {
            match store.load(NODE, after, &mut into).expect("it can be read") {
                Loaded::Records { first, last, len } => {
                    assert!(first > after && last <= 20, "{change}: {first}..={last}");
                    assert_eq!(into.get(..len), Some(&*numbered(first, last)), "{change}");
                    after = last;
                }
                Loaded::Corrupt { first, last } => {
                    assert!(first > after && last >= first && last <= 20, "{change}: {first}..={last}");
                    damaged.push((first, last));
                    after = last;
                }
                Loaded::Nothing => break,
                other @ Loaded::TooSmall { .. } => panic!("{change}: {other:?}"),
            }
        }
        assert!(damaged.contains(&expected), "{change}: {damaged:?}");
    }
}

#[test]
fn rows_that_fail_their_check_are_as_if_they_were_gone() {
    for (change, orphaned) in [
        ("conn_key_map SET last = 11", 10),
        ("conn_key_map SET trimmed = 5", 10),
        ("conn_key_map SET shift = 1", 10),
        ("conn_key_map SET epoch = 1", 10),
        ("conn_key_map SET reserved = 'many'", 10),
        ("conn_key_map SET name = 'gatewax'", 10),
        ("conn_key_map SET owner = 'sensox'", 10),
        ("stream_topic SET topic = 'readingx'", 10),
        ("stream_topic SET number = 2", 10),
        ("inbound_cursor SET through = 8", 0),
        ("inbound_cursor SET epoch = 8", 0),
        ("inbound_cursor SET peer = x'ff'", 0),
    ] {
        let folder = tempdir().expect("a folder");
        let mut store = open(folder.path(), "sensor");
        apply(&mut store, &[StoreOp::Inbox { epoch: Epoch(3) }, OPEN]);
        apply(&mut store, &[StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
        apply(&mut store, &[StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 7 }]);
        append(NODE, 1, 10, &mut store);
        drop(store);
        let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
        conn.execute(&format!("UPDATE {change}"), []).expect("it is changed");
        let mut store = open(folder.path(), "sensor");
        assert_eq!(store.opened().orphaned, orphaned, "{change}");
        let told = told(&mut store);
        assert_eq!(told.node, Some((Epoch(3), false)), "{change}");
        assert_eq!(
            (told.queues.is_empty(), told.cursors.is_empty()),
            (orphaned > 0, orphaned == 0),
            "{change}"
        );
        // It goes on as a new one.
        if orphaned > 0 {
            apply(&mut store, &[StoreOp::Open { queue: NODE, epoch: Epoch(9) }]);
            append(NODE, 1, 2, &mut store);
            assert_eq!(drain(&mut store, NODE, 0, 2), [], "{change}");
        }
        apply(&mut store, &[StoreOp::Cursor { peer: "p", epoch: Epoch(1), through: 1 }]);
    }
}

/// Any single bit of the file: the store opens (perhaps anew), and gives nothing that was not put in.
#[test]
fn no_flipped_bit_makes_wrong_bytes() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[StoreOp::Inbox { epoch: Epoch(3) }, OPEN]);
    apply(&mut store, &[StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    for first in (1..600).step_by(100) {
        append(NODE, first, first + 99, &mut store);
    }
    for number in 601..=640 {
        append(NODE, number, number, &mut store);
    }
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 50 }]);
    drop(store);
    let path = folder.path().join("liner.db");
    let good = fs::read(&path).expect("it is read");
    // Bytes that are in use are hit, not the free parts of pages only.
    let used: Vec<usize> =
        (0..good.len()).filter(|&at| good.get(at).is_some_and(|&byte| byte != 0)).collect();
    let (mut state, mut untouched, mut told_as_damaged, mut anew) = (0x5eed, 0, 0, 0);
    let place = tempdir().expect("a folder");
    for round in 0..200 {
        let at = used[dice(&mut state) as usize % used.len()];
        let bit = 1 << (dice(&mut state) % 8);
        let mut bytes = good.clone();
        bytes[at] ^= bit;
        clear(place.path());
        fs::write(place.path().join("liner.db"), bytes).expect("it is written");
        let outcome = catch_unwind(AssertUnwindSafe(|| read_all(place.path())));
        match outcome {
            Ok(Seen::All) => untouched += 1,
            Ok(Seen::Damage) => told_as_damaged += 1,
            Ok(Seen::Nothing) => anew += 1,
            Err(_) => panic!("round {round}: byte {at}, bit {bit:#x}"),
        }
    }
    assert!(untouched > 0 && told_as_damaged > 0 && anew > 0, "{untouched}, {told_as_damaged}, {anew}");
}

/// Removes what the round before left, but for the ballast, which takes its time to make.
fn clear(folder: &std::path::Path) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "ballast") {
            fs::remove_file(path).expect("it is removed");
        }
    }
}

enum Seen {
    All,
    Damage,
    Nothing,
}

/// Reads all that a damaged file still gives, and holds it against what was put in.
fn read_all(folder: &std::path::Path) -> Seen {
    let Ok(mut store) = try_open(folder, &options("sensor")) else { return Seen::Damage };
    let mut queues = Vec::new();
    let told = store.recover(&mut |fact| {
        if let liner_proto::effect::Recovered::Queue(queue) = fact {
            queues.push((queue.queue == NODE, queue.epoch, queue.trimmed, queue.last, queue.messages));
        }
        if let liner_proto::effect::Recovered::Topic { number, text, .. } = fact {
            assert_eq!((number, text), (1, "readings"));
        }
    });
    let fresh = store.opened().created || store.opened().damaged > 0 || store.opened().orphaned > 0;
    match told {
        Ok(()) if queues.is_empty() => return Seen::Nothing,
        Ok(()) => {}
        Err(fault) => {
            assert_eq!(fault, StoreFault::Corrupt);
            return Seen::Damage;
        }
    }
    assert!(!fresh);
    let mut whole = queues == [(true, EPOCH, 50, 640, 590)];
    assert_eq!(
        queues.first().map(|queue| (queue.0, queue.1, queue.2, queue.3)),
        Some((true, EPOCH, 50, 640))
    );
    let (mut after, mut into) = (50, vec![0; 1 << 14]);
    while after < 640 {
        match store.load(NODE, after, &mut into) {
            Ok(Loaded::Records { first, last, len }) => {
                assert!(first > after && last <= 640);
                assert_eq!(into.get(..len), Some(&*numbered(first, last)));
                whole &= first == after + 1;
                after = last;
            }
            Ok(Loaded::Corrupt { first, last }) => {
                assert!(first > after && first <= last && last <= 640);
                whole = false;
                after = last;
            }
            Ok(Loaded::Nothing) | Err(StoreFault::Corrupt) => return Seen::Damage,
            other => panic!("{other:?}"),
        }
    }
    if whole { Seen::All } else { Seen::Damage }
}
