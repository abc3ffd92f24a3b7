//! What operators see in the tables that they know, with nothing but an SQLite shell.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::path::Path;

use liner_proto::effect::{GapReason, Loaded, Queue, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Age, GAP_LEN_MAX, Header, Mode, Origin, Topic, encode_gap};
use liner_store_sqlite::SqliteStore;
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

/// An operator's connection, which knows nothing of the store's.
fn shell(folder: &Path) -> Connection {
    Connection::open(folder.join("liner.db")).expect("it opens")
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

/// Number and payload of each row.
fn rows(conn: &Connection) -> Vec<(u64, Vec<u8>)> {
    let mut select =
        conn.prepare("SELECT number, payload FROM conn_messages ORDER BY id").expect("it is prepared");
    let rows = select.query_map([], |row| Ok((number(row, 0)?, row.get(1)?))).expect("it is asked");
    rows.collect::<Result<_, _>>().expect("rows")
}

fn count(conn: &Connection) -> u64 {
    let sql = "SELECT COUNT(*) FROM conn_messages WHERE connection_key =
        (SELECT connection_key FROM conn_key_map WHERE composite = 'sensor::gateway')";
    conn.query_row(sql, [], |row| number(row, 0)).expect("a row")
}

fn gap(count: u64) -> Vec<u8> {
    let mut gap = vec![0; GAP_LEN_MAX];
    let len = encode_gap(GapReason::Crashed, count, &mut gap).expect("there is room");
    gap.truncate(len);
    gap
}

fn queue(store: &mut SqliteStore) -> (u64, u64) {
    let [(_, queue)] = &told(store).queues[..] else { panic!("one queue") };
    (queue.messages, queue.bytes)
}

#[test]
fn a_row_a_message_less_what_was_acknowledged() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    let conn = shell(folder.path());
    apply(&mut store, &[OPEN]);
    assert_eq!(count(&conn), 0);
    append(NODE, 1, 40, &mut store);
    append(NODE, 41, 41, &mut store);
    append(NODE, 42, 60, &mut store);
    let expected = |first, last| (first..=last).map(|number| (number, payload(number))).collect::<Vec<_>>();
    assert_eq!((rows(&conn), count(&conn)), (expected(1, 60), 60));
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 7 }]);
    assert_eq!((rows(&conn), count(&conn)), (expected(8, 60), 53));
    let v = conn.query_row("SELECT v FROM conn_mess_number", [], |row| number(row, 0)).expect("a row");
    assert_eq!(v, 7);
    apply(&mut store, &[StoreOp::Drop { queue: NODE, through: 9, reason: GapReason::Dropped }]);
    assert_eq!(rows(&conn), expected(10, 60));
    let predecessor = Predecessor { epoch: EPOCH, old_first: 8, count: 1 };
    apply(&mut store, &[StoreOp::Rotate { queue: NODE, epoch: Epoch(9), predecessor }]);
    let moved: Vec<_> = (10..=60).map(|number| (number - 7, payload(number))).collect();
    assert_eq!((rows(&conn), count(&conn)), (moved, 51));
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 53 }]);
    assert_eq!((rows(&conn), count(&conn)), (vec![], 0));
}

#[test]
fn payloads_stand_behind_headers_of_every_form() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    apply(&mut store, &[StoreOp::Topic { queue: NODE, number: 300, text: "three hundred" }]);
    let long = "ü".repeat(127);
    let mut headers = Vec::new();
    for mode in [Mode::One, Mode::All, Mode::BestEffort] {
        for topic in [Topic::Number(1), Topic::Number(u32::MAX), Topic::Text("t"), Topic::Text(&long)] {
            headers.push(Header::new(mode, topic));
        }
    }
    for fields in 0..16 {
        let mut header = Header::new(Mode::One, Topic::Number(300));
        header.repeat = fields == 7;
        header.origin = (fields & 1 != 0).then_some(Origin { name: &long, epoch: EPOCH, number: 1 << 40 });
        header.hops = (fields & 2 != 0).then_some(255);
        header.ttl_ms = (fields & 4 != 0).then_some(u32::MAX);
        header.age = (fields & 8 != 0).then_some(Age { ms: u64::MAX, unknown: fields & 1 != 0 });
        headers.push(header);
    }
    let (mut records, mut expected, mut number) = (Vec::new(), Vec::new(), 0);
    for (index, header) in headers.iter().enumerate() {
        let payload: Vec<u8> = (0..[0, 1, 200, 20_000][index % 4]).map(|byte| (byte ^ index) as u8).collect();
        records.push(message(header, &payload));
        number += 1;
        expected.push((number, payload));
        if index % 3 == 0 {
            let count = [1, 127, 128, 70_000][index / 3 % 4];
            records.push(gap(count));
            number += count;
        }
    }
    let records = run(records);
    apply(&mut store, &[StoreOp::Append { queue: NODE, first: 1, last: number, records: &records }]);
    let conn = shell(folder.path());
    assert_eq!(rows(&conn), expected);
    assert_eq!(queue(&mut store).0, expected.len() as u64);
    let mut select = conn.prepare("SELECT topic FROM conn_messages ORDER BY id").expect("it is prepared");
    let topics = select.query_map([], |row| row.get::<_, Option<String>>(0)).expect("it is asked");
    let topics: Vec<_> = topics.collect::<Result<_, _>>().expect("rows");
    let named = headers.iter().map(|header| match header.topic {
        Topic::Text(text) => Some(text.to_owned()),
        Topic::Number(300) => Some("three hundred".to_owned()),
        Topic::Number(_) => None,
    });
    assert_eq!(topics, named.collect::<Vec<_>>());
}

#[test]
fn queues_of_all_kinds_are_in_it() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sen:sor");
    let queues = [NODE, Queue::Topic("gateway"), Queue::Address("127.0.0.1:7")];
    for (last, queue) in (2..).zip(queues) {
        apply(&mut store, &[StoreOp::Open { queue, epoch: EPOCH }]);
        append(queue, 1, last, &mut store);
    }
    let conn = shell(folder.path());
    let mut select = conn
        .prepare(
            "SELECT composite, COUNT(*) FROM conn_messages JOIN conn_key_map USING (connection_key)
             GROUP BY connection_key ORDER BY connection_key",
        )
        .expect("it is prepared");
    let counted: Vec<(String, u64)> = select
        .query_map([], |row| Ok((row.get(0)?, number(row, 1)?)))
        .expect("it is asked")
        .collect::<Result<_, _>>()
        .expect("rows");
    let expected =
        [("sen\\:sor::gateway", 2), ("sen\\:sor::\\tgateway", 3), ("sen\\:sor::\\a127.0.0.1\\:7", 4)];
    assert_eq!(counted, expected.map(|(composite, count)| (composite.to_owned(), count)));
}

#[test]
fn a_row_deleted_by_hand_is_a_gap() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    append(NODE, 1, 10, &mut store);
    let conn = shell(folder.path());
    conn.execute("DELETE FROM conn_messages WHERE number IN (1, 4, 5, 10)", []).expect("it is deleted");
    let left: Vec<_> = rows(&conn).into_iter().map(|(number, _)| number).collect();
    assert_eq!(left, [2, 3, 6, 7, 8, 9]);
    let cleared = |number| match number {
        1 | 4 | 5 | 10 => vec![0x43, GapReason::Cleared as u8, 1],
        _ => message(&Header::new(Mode::One, Topic::Number(1)), &payload(number)),
    };
    for _ in 0..2 {
        for after in 0..10 {
            let mut into = vec![0; 4096];
            let loaded = store.load(NODE, after, &mut into).expect("it can be read");
            let expected = run((after + 1..=10).map(cleared));
            assert_eq!(loaded, Loaded::Records { first: after + 1, last: 10, len: expected.len() });
            assert_eq!(into.get(..expected.len()), Some(&*expected));
        }
        assert_eq!(queue(&mut store).0, 6);
        drop(store);
        store = open(folder.path(), "sensor");
    }
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 4 }]);
    assert_eq!(queue(&mut store).0, 4);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 10 }]);
    let kept = conn.query_row("SELECT COUNT(*) FROM cleared", [], |row| number(row, 0)).expect("a row");
    assert_eq!(kept, 0);
}

#[test]
fn tables_emptied_by_hand_lose_what_they_held_and_nothing_else() {
    for table in [
        "conn_messages",
        "segments",
        "conn_key_map",
        "topic_addr",
        "seq",
        "conn_sender",
        "stream_topic",
        "topic_key",
        "sender_listener",
        "inserted",
    ] {
        let folder = tempdir().expect("a folder");
        let mut store = open(folder.path(), "sensor");
        apply(&mut store, &[OPEN, StoreOp::Inbox { epoch: Epoch(5) }]);
        append(NODE, 1, 10, &mut store);
        drop(store);
        shell(folder.path()).execute(&format!("DELETE FROM {table}"), []).expect("it is emptied");
        let mut store = open(folder.path(), "sensor");
        let told = told(&mut store);
        assert_eq!(told.node, Some((Epoch(5), false)), "{table}");
        // A stream that the store still knows goes on behind its last number, another one begins anew.
        let next = told.queues.first().map_or(1, |(_, queue)| queue.last + 1);
        assert_eq!(next, if table == "conn_key_map" { 1 } else { 11 }, "{table}");
        apply(&mut store, &[OPEN]);
        append(NODE, next, next + 4, &mut store);
        assert_eq!(drain(&mut store, NODE, next - 1, next + 4), [], "{table}");
        let held = rows(&shell(folder.path()));
        assert_eq!(held.last(), Some(&(next + 4, payload(next + 4))), "{table}");
    }
}
