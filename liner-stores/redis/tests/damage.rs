//! Bytes that are not what was written, and lists as long as they get.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "its long form measures")]

use std::time::{Duration, Instant};

use liner_proto::effect::{Loaded, Recovered, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::store::run::measure;
use liner_tests::conformance::records::numbered;

mod common;
use common::*;

/// Flips a bit of the byte at an index of a list's element.
fn flip_element(db: &Db, list: &str, index: usize, byte: usize) {
    db.eval(&format!(
        "local e = redis.call('LINDEX', '{list}', {index})
         local b = string.char(bit.bxor(string.byte(e, {byte} + 1), 16))
         redis.call('LSET', '{list}', {index}, string.sub(e, 1, {byte}) .. b .. string.sub(e, {byte} + 2))"
    ));
}

/// Flips a bit of the byte of a hash's field.
fn flip_field(db: &Db, key: &str, field: &str, byte: usize) {
    db.eval(&format!(
        "local e = redis.call('HGET', '{key}', '{field}')
         local b = string.char(bit.bxor(string.byte(e, {byte} + 1), 16))
         redis.call('HSET', '{key}', '{field}', string.sub(e, 1, {byte}) .. b .. string.sub(e, {byte} + 2))"
    ));
}

#[test]
fn no_byte_of_an_element_can_change_unseen() {
    let db = Db::new();
    with_ten(&db);
    let list = db.of("messages");
    db.run(&["COPY", &list, "kept"]);
    let len = db.eval(&format!("return #redis.call('LINDEX', '{list}', 2)"));
    let liner_tests::servers::Reply::Number(len) = len else { unreachable!("a number") };
    let mut store = db.open("sensor");
    for byte in 0..len as usize {
        let (aside, inserted, orphaned) = (
            db.number(&["LLEN", "lnr_quarantine"]),
            db.number(&["LLEN", &db.of("inserted")]),
            db.number(&["LLEN", &db.of("orphaned")]),
        );
        flip_element(&db, &list, 2, byte);
        let seen = outline(&mut store, NODE, 4);
        // With another epoch it is another queue's: that is kept, too.
        let gone = if (5..13).contains(&byte) { "7 Cleared 1" } else { "7 Damaged 1" };
        assert_eq!(seen, ["5 1", "6 1", gone, "8 1", "9 1", "10 1"], "byte {byte}");
        let kept = db.number(&["LLEN", "lnr_quarantine"]) - aside + db.number(&["LLEN", &db.of("inserted")])
            - inserted
            + db.number(&["LLEN", &db.of("orphaned")])
            - orphaned;
        assert_eq!(kept, 1, "byte {byte}: what was there is kept");
        db.run(&["COPY", "kept", &list, "REPLACE"]);
        drop(store);
        db.run(&["DEL", &db.of("inserted"), &db.of("orphaned")]);
        store = db.open("sensor");
        assert_eq!(outline(&mut store, NODE, 4), ["5 1", "6 1", "7 1", "8 1", "9 1", "10 1"]);
    }
}

#[test]
fn no_byte_of_a_queues_row_or_of_a_cursor_can_change_unseen() {
    let db = Db::new();
    with_ten(&db);
    let mut store = db.open("sensor");
    apply(&mut store, &[StoreOp::Cursor { peer: "p", epoch: Epoch(3), through: 9 }]);
    drop(store);
    let (row, cursors) = ("lnr_node:sensor:queues", "lnr_node:sensor:cursors");
    for key in ["lnr_node:sensor:queues", "lnr_node:sensor:cursors", &db.of("messages"), &db.of("topics")] {
        db.run(&["COPY", key, &format!("kept {key}")]);
    }
    for byte in 0..112 {
        flip_field(&db, row, "sensor::gateway", byte);
        let store = db.open("sensor");
        assert_eq!((store.opened().damaged, store.opened().orphaned), (1, 6), "byte {byte}");
        drop(store);
        let list = db.of("messages");
        for key in [row, &list] {
            db.run(&["COPY", &format!("kept {key}"), key, "REPLACE"]);
        }
    }
    let liner_tests::servers::Reply::Number(len) = db.run(&["HSTRLEN", cursors, "p"]) else {
        unreachable!("a number")
    };
    for byte in 0..len as usize {
        flip_field(&db, cursors, "p", byte);
        let mut store = db.open("sensor");
        assert_eq!(store.opened().damaged, 1, "byte {byte}");
        let told =
            store.recover(&mut |fact| assert!(!matches!(fact, Recovered::Cursor { .. }), "byte {byte}"));
        assert_eq!(told, Ok(()));
        drop(store);
        db.run(&["COPY", &format!("kept {cursors}"), cursors, "REPLACE"]);
    }
}

#[test]
fn a_page_is_bounded_by_bytes_and_not_by_elements() {
    let db = Db::new();
    let mut store = db.open("sensor");
    apply(&mut store, &[OPEN]);
    append(&mut store, NODE, 1, 2000);
    let large = message("t", &vec![7; 1 << 20]);
    let mut run = Vec::new();
    liner_store::byhand::put(&mut run, &large);
    for number in 2001..2033 {
        apply(&mut store, &[StoreOp::Append { queue: NODE, first: number, last: number, records: &run }]);
    }
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 2000 }]);
    // The average is that of small ones when the large ones are asked for.
    let mut into = vec![0; 1 << 16];
    let needed = run.len();
    let before = sent_by_server(&db);
    assert_eq!(store.load(NODE, 2000, &mut into), Ok(Loaded::TooSmall { needed }));
    let sent = sent_by_server(&db) - before;
    assert!(sent < 3 << 20, "{sent} bytes for one record");
}

/// Bytes that the server has sent to everybody.
fn sent_by_server(db: &Db) -> u64 {
    let info = db.eval("return redis.call('INFO', 'stats')");
    let liner_tests::servers::Reply::Bytes(info) = info else { unreachable!("a text") };
    let info = String::from_utf8_lossy(&info).into_owned();
    let sent = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    sent.and_then(|sent| sent.trim().parse().ok()).expect("a number")
}

/// Our memory, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// `LINER_TEST_MESSAGES=1000000` for the long form.
#[test]
fn draining_costs_the_same_at_the_end_and_leaves_nothing() {
    let messages: u64 =
        std::env::var("LINER_TEST_MESSAGES").map_or(50_000, |text| text.parse().expect("a number"));
    let db = Db::new();
    let mut store = db.open("sensor");
    apply(&mut store, &[OPEN]);
    let step = 1000;
    for first in (1..=messages).step_by(step as usize) {
        append(&mut store, NODE, first, first + step - 1);
    }
    let list = db.of("messages");
    assert_eq!(db.number(&["LLEN", &list]), messages as i64);
    drop(store);
    let mut store = db.open("sensor");
    let before = memory();
    let (mut after, mut into) = (0, vec![0; 1 << 16]);
    let mut spent = Vec::new();
    let mut begun = Instant::now();
    while after < messages {
        let loaded = store.load(NODE, after, &mut into).expect("it can be read");
        let Loaded::Records { first, last, len } = loaded else { unreachable!("{loaded:?}") };
        assert_eq!(first, after + 1);
        let run = into.get(..len).expect("so many bytes");
        assert_eq!(measure(run).map(|it| it.messages), Some(last - first + 1));
        assert_eq!(run, numbered(first, last));
        apply(&mut store, &[StoreOp::Trim { queue: NODE, through: last }]);
        let tenth = after * 10 / messages;
        after = last;
        if after * 10 / messages > tenth {
            spent.push(begun.elapsed());
            begun = Instant::now();
        }
    }
    let of = |range: std::ops::Range<usize>| spent.get(range).into_iter().flatten().sum::<Duration>();
    let (begin, end) = (of(0..4), of(6..10));
    println!("{messages} messages: the first four tenths in {begin:?}, the last four in {end:?}");
    // Others use the machine, too: only in a long list what grows with its length shows for certain.
    assert!(messages < 1_000_000 || end < begin * 2, "{spent:?}");
    let grown = memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more than at the beginning");
    assert_eq!(db.number(&["EXISTS", &list, &db.of("inserted"), &db.of("orphaned"), "lnr_quarantine"]), 0);
}
