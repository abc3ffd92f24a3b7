//! Files of older releases become ones of this release where they are, with all that they hold.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::path::Path;

use liner_proto::effect::{GapReason, Loaded, Queue, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_store_sqlite::OpenError;
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

const SCHEMA: i64 = 3;

/// The whole file as a release with schema 1 left it: the queue for the gateway with the messages 1 to 10, of which 3 are
/// acknowledged and one was deleted by hand, two messages kept for the topic `news`, a cursor, the directory, a dead letter.
const FILE_OF_SCHEMA_1: &str = include_str!("schema-1.sql");

fn shell(folder: &Path) -> Connection {
    Connection::open(folder.join("liner.db")).expect("it opens")
}

/// All rows of a query, a line a row.
fn lines(conn: &Connection, sql: &str) -> String {
    let sql = format!("SELECT group_concat(line, char(10)) FROM ({sql})");
    conn.query_row(&sql, [], |row| row.get(0)).expect("a row")
}

/// Every table, view and index with its columns or statement, whatever was made first.
fn schema(conn: &Connection) -> String {
    lines(
        conn,
        "SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS line FROM sqlite_schema ORDER BY type, name",
    )
}

#[test]
fn a_file_of_schema_1_keeps_what_it_holds() {
    let folder = tempdir().expect("a folder");
    shell(folder.path()).execute_batch(FILE_OF_SCHEMA_1).expect("it is executed");
    let mut store = open(folder.path(), "sensor");
    assert_eq!(store.opened().upgraded_from, Some(1));
    assert_eq!((store.opened().damaged, store.opened().orphaned, store.opened().unclean), (0, 0, false));
    let seen = told(&mut store);
    assert_eq!(seen.node, Some((Epoch(3), false)));
    assert_eq!(seen.cursors, [("p".to_owned(), EPOCH, 7)]);
    let queues: Vec<_> =
        seen.queues.iter().map(|(name, queue)| (&**name, queue.epoch, queue.messages)).collect();
    assert_eq!(queues, [("gateway", EPOCH, 6), ("news", Epoch(9), 2)]);
    let mut into = vec![0; 4096];
    let expected = [numbered(4, 4), run([[0x43, GapReason::Cleared as u8, 1]]), numbered(6, 10)].concat();
    let loaded = store.load(NODE, 3, &mut into).expect("it can be read");
    assert_eq!(loaded, Loaded::Records { first: 4, last: 10, len: expected.len() });
    assert_eq!(into.get(..expected.len()), Some(&*expected));
    assert_eq!(drain(&mut store, Queue::Topic("news"), 0, 2), []);

    let conn = shell(folder.path());
    let rows =
        "SELECT connection_key || ' ' || number || ' ' || topic AS line FROM conn_messages ORDER BY id";
    assert_eq!(
        lines(&conn, rows),
        "1 4 readings\n1 6 readings\n1 7 readings\n1 8 readings\n1 9 readings\n1 10 readings\n2 1 news\n2 2 news"
    );
    assert_eq!(lines(&conn, "SELECT topic || ' ' || k AS line FROM topic_key"), "alarms 3\nreadings 4");
    assert_eq!(
        lines(&conn, "SELECT sender_key || ' ' || addr || ' ' || client_name AS line FROM sender_listener"),
        "sensor: 127.0.0.1:7420 gateway"
    );
    assert_eq!(lines(&conn, "SELECT reason || ' ' || topic AS line FROM dead_letters"), "1 t");

    // It is a file of this release now.
    conn.execute("INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'by hand')", [])
        .expect("the view takes it");
    drop(store);
    let mut store = open(folder.path(), "sensor");
    assert_eq!((store.opened().upgraded_from, store.opened().inserted), (None, 1));
    append(NODE, 12, 13, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 12 }]);
    assert_eq!(drain(&mut store, NODE, 12, 13), []);
    let new = tempdir().expect("a folder");
    drop(open(new.path(), "sensor"));
    assert_eq!(schema(&conn), schema(&shell(new.path())));
}

#[test]
fn an_upgrade_that_fails_leaves_the_file_as_it_was() {
    let folder = tempdir().expect("a folder");
    let conn = shell(folder.path());
    conn.execute_batch(FILE_OF_SCHEMA_1).expect("it is executed");
    conn.execute("CREATE TABLE inserted(theirs)", []).expect("it is made");
    let before = schema(&conn);
    let error = try_open(folder.path(), &options("sensor")).expect_err("a table of this name is there");
    assert!(matches!(error, OpenError::Sqlite { .. }), "{error}");
    assert_eq!(schema(&conn), before);
    conn.execute("DROP TABLE inserted", []).expect("it is dropped");
    assert_eq!(open(folder.path(), "sensor").opened().upgraded_from, Some(1));
}

/// The inbox is all that schema 3 adds.
#[test]
fn a_file_of_schema_2_gets_an_inbox() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    append(NODE, 1, 5, &mut store);
    drop(store);
    let conn = shell(folder.path());
    let whole = schema(&conn);
    conn.execute_batch("DROP TABLE inbox").expect("it is there");
    conn.pragma_update(None, "user_version", 2).expect("it is set");
    let mut store = open(folder.path(), "sensor");
    assert_eq!(store.opened().upgraded_from, Some(2));
    assert_eq!(store.inbox(), Ok(Some(liner_proto::effect::InboxHeld::default())));
    assert_eq!(drain(&mut store, NODE, 0, 5), []);
    assert_eq!(schema(&conn), whole);
}

#[test]
fn the_next_schema_is_refused() {
    let folder = tempdir().expect("a folder");
    drop(open(folder.path(), "sensor"));
    let conn = shell(folder.path());
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a row");
    assert_eq!(version, SCHEMA);
    conn.pragma_update(None, "user_version", SCHEMA + 1).expect("it is set");
    let error = try_open(folder.path(), &options("sensor")).expect_err("it is too new");
    assert!(matches!(error, OpenError::NewerSchema { found: 4, known: SCHEMA, .. }), "{error}");
}
