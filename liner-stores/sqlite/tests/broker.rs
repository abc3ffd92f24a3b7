//! Files that liner_broker has made, emptied or filled: they become files of this release where they are.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![expect(clippy::disallowed_methods, reason = "a test takes the time")]

use std::fs;
use std::path::Path;

use liner_proto::effect::{DeadReason, Loaded, Queue, StoreOp};
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Topic};
use liner_store_sqlite::{Look, LookError, OpenError};
use tempfile::tempdir;

mod common;
use common::broker::*;
use common::*;

/// A message that was taken over.
fn taken(topic: &str, payload: &[u8]) -> Vec<u8> {
    message(&Header { repeat: true, ..Header::new(Mode::One, Topic::Text(topic)) }, payload)
}

/// Asserts that a queue holds these messages and no others.
fn assert_holds<const N: usize>(folder: &Path, owner: &str, queue: Queue<'_>, messages: [(&str, &[u8]); N]) {
    let mut into = vec![0; 1 << 16];
    let loaded = open(folder, owner).load(queue, 0, &mut into).expect("it can be read");
    let expected = run(messages.map(|(topic, payload)| taken(topic, payload)));
    assert_eq!(loaded, Loaded::Records { first: 1, last: N as u64, len: expected.len() });
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

const LETTERS: &str =
    "SELECT concat_ws('/', owner, peer, topic, reason) AS line FROM dead_letters ORDER BY id";

#[test]
fn a_filled_file_keeps_what_it_holds() {
    for is_older in [false, true] {
        let folder = old_file(&[FILLED, if is_older { WITHOUT_NAME } else { "" }]);
        let folder = folder.path();
        for (key, topic, payload) in
            [(3, 1, "one"), (4, 1, "theirs"), (3, 7, "two"), (5, 1, "four"), (3, 1, "three")]
        {
            insert(folder, key.into(), &frame(18, key, topic, 2, payload.as_bytes()));
        }
        let before = dump(&shell(folder));
        let error = Look::open(folder.join("liner.db")).expect_err("no node has used it");
        assert!(matches!(error, LookError::Broker { .. }), "{error}");
        assert_eq!(dump(&shell(folder)), before, "to look at it changes nothing");

        let store = open(folder, "sensor");
        let found = store.opened().taken_over.expect("it is taken over");
        assert_eq!((found.queued, found.dead), (5, 0));
        assert_eq!(
            (store.opened().orphaned, store.opened().unclean, store.opened().upgraded_from),
            (0, false, None)
        );
        drop(store);
        let look = Look::open(folder.join("liner.db")).expect("it opens");
        assert_eq!(look.nodes().expect("they are read"), ["other", "sensor"]);
        drop(look);
        let held: [(&str, &[u8]); 4] =
            [("readings", b"one"), ("news", b"two"), ("readings", b"three"), ("readings", b"four")];
        assert_holds(folder, "sensor", NODE, held);
        assert_holds(folder, "other", NODE, [("readings", b"theirs")]);
        let conn = shell(folder);
        let count =
            "SELECT connection_key || ' ' || count(*) AS line FROM conn_messages GROUP BY connection_key";
        assert_eq!(lines(&conn, count), "3 4\n4 1", "under the key that it had");
        assert_eq!(
            lines(
                &conn,
                "SELECT connection_key || ' ' || composite AS line FROM conn_key_map ORDER BY connection_key"
            ),
            "3 sensor::gateway\n4 other::gateway\n5 sensor:second:gateway\n6 sensor::idle"
        );
        assert_eq!(
            lines(&conn, "SELECT connection_key || sender_topic AS line FROM conn_sender"),
            "3alarms\n4x\n5second"
        );
        assert_eq!(
            lines(&conn, "SELECT topic || ' ' || addr || ' ' || client_name AS line FROM topic_addr"),
            "alarms 127.0.0.1:8 sensor\nreadings 127.0.0.1:7 gateway"
        );
        assert_eq!(
            lines(&conn, "SELECT topic || k AS line FROM topic_key WHERE k < 9 ORDER BY k"),
            "readings1\nalarms2\nnews7\n__#internal_channel8"
        );
        assert_eq!(
            lines(
                &conn,
                "SELECT client_name AS line FROM sender_listener WHERE sender_key = 'sensor:alarms'"
            ),
            "gateway"
        );
        lives_on(folder);
    }
}

/// It is a file of this release now, whose queue for the gateway holds four messages.
fn lives_on(folder: &Path) {
    let mut store = open(folder, "sensor");
    assert_eq!((store.opened().taken_over, store.opened().damaged), (None, 0));
    append(NODE, 5, 6, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 5 }]);
    assert_eq!(drain(&mut store, NODE, 5, 6).len(), 0);
    apply(
        &mut store,
        &[
            StoreOp::Open { queue: Queue::Node("idle"), epoch: EPOCH },
            StoreOp::Open { queue: Queue::Node("new"), epoch: EPOCH },
        ],
    );
    let keys = "SELECT name || (connection_key > 9) || (connection_key = 6) AS line FROM conn_key_map WHERE name IN ('idle', 'new') ORDER BY 1";
    assert_eq!(lines(&shell(folder), keys), "idle01\nnew10", "no key is given out again");
    let new = tempdir().expect("a folder");
    drop(open(new.path(), "sensor"));
    let schema = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS line FROM sqlite_schema
      WHERE name <> 'sqlite_sequence' ORDER BY type, name";
    assert_eq!(lines(&shell(folder), schema), lines(&shell(new.path()), schema));
}

#[test]
fn an_empty_file_is_taken_over() {
    let folder = old_file(&[]);
    let mut store = open(folder.path(), "sensor");
    assert_eq!(store.opened().taken_over.map(|taken| (taken.queued, taken.dead)), Some((0, 0)));
    apply(&mut store, &[OPEN]);
    append(NODE, 1, 5, &mut store);
    assert_eq!(drain(&mut store, NODE, 0, 5), []);
    assert_eq!(lines(&shell(folder.path()), "SELECT connection_key AS line FROM conn_key_map"), "1");
}

#[test]
fn what_cannot_be_sent_becomes_a_dead_letter() {
    let folder = old_file(&[FILLED]);
    let folder = folder.path();
    let long = vec![b'x'; 1 << 20];
    for (key, bytes) in [
        (3, frame(1, 3, 1, 3, b"compressed")),
        (3, frame(2, 4, 1, 2, b"of another stream")),
        (3, frame(3, 3, 99, 2, b"no such topic")),
        (3, frame(4, 3, 8, 2, b"{\"event\":\"subscribed\"}")),
        (3, frame(5, 3, 1, 2, &[&long[..], b"y"].concat())),
        (3, frame(6, 3, 1, 2, b"sent")),
        (3, b"raw".to_vec()),
        (99, frame(7, 99, 1, 2, b"of nobody")),
    ] {
        insert(folder, key, &bytes);
    }
    shell(folder)
        .execute_batch("INSERT INTO conn_messages(connection_key, payload) VALUES('text', 'text'), (3, 21.5)")
        .expect("it is inserted");
    let store = open(folder, "sensor");
    let found = store.opened().taken_over.expect("it is taken over");
    assert_eq!((found.queued, found.dead), (1, 8));
    drop(store);
    assert_holds(folder, "sensor", NODE, [("readings", b"sent")]);
    let conn = shell(folder);
    let (orphaned, large) = (DeadReason::Orphaned as u8, DeadReason::TooLarge as u8);
    let expected = [
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway/readings/{large}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor//readings/{orphaned}"),
        format!("sensor///{orphaned}"),
    ];
    assert_eq!(lines(&conn, LETTERS).lines().collect::<Vec<_>>(), expected);
    let mut look = Look::open(folder.join("liner.db")).expect("it opens");
    let letters = look.dead_letters(None, 0, 3).expect("they are read");
    let payloads: Vec<_> =
        letters.iter().map(|letter| letter.payload.as_deref().expect("it is sound")).collect();
    assert_eq!(payloads, [&b"compressed"[..], &frame(2, 4, 1, 2, b"of another stream"), b"no such topic"]);
    // Without its topic it is nothing that can be sent.
    look.redrive(&[letters[0].id]).expect("its stream is there");
    let store = open(folder, "sensor");
    assert_eq!((store.opened().orphaned, store.opened().inserted), (1, 0));
}

/// In a file that was filled from a list of receivers, all topics have the number 1, and so has the only stream.
#[test]
fn topics_with_one_number_are_told_apart_by_who_takes_them() {
    let folder = old_file(&[
        "INSERT INTO topic_addr VALUES('readings', '127.0.0.1:7', 'gateway'), ('alarms', '127.0.0.1:8', 'sensor');
         INSERT INTO topic_key VALUES('readings', 1), ('alarms', 1);
         INSERT INTO conn_key_map VALUES('sensor:alarms:gateway', 1);
         INSERT INTO conn_sender VALUES(1, 'readings');
         INSERT INTO conn_mess_number VALUES(1, 17);",
    ]);
    insert(folder.path(), 1, &frame(3, 1, 1, 2, b"one"));
    drop(open(folder.path(), "sensor"));
    assert_holds(folder.path(), "sensor", NODE, [("readings", b"one")]);
}

/// To find out which topic is meant takes a look at all of them: once for a stream, not once for a message. That would take minutes here.
#[test]
fn many_topics_with_one_number_do_not_hold_up_many_messages() {
    let folder = old_file(&["WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
         INSERT INTO topic_key SELECT 'topic ' || n, 1 FROM n;
         INSERT INTO topic_addr SELECT topic, '127.0.0.1:7', 'other' FROM topic_key;
         INSERT INTO sender_listener SELECT topic, '127.0.0.1:7', topic, 'other' FROM topic_key;
         UPDATE topic_addr SET client_name = 'gateway' WHERE topic = 'topic 500';
         INSERT INTO conn_key_map VALUES('sensor:own:gateway', 3);"]);
    fill(folder.path(), 10_000, &frame(1, 3, 1, 2, b"m"));
    let started = std::time::Instant::now();
    let store = open(folder.path(), "sensor");
    assert_eq!(store.opened().taken_over.map(|taken| (taken.queued, taken.dead)), Some((10_000, 0)));
    assert!(started.elapsed().as_secs() < 30, "it took {:?}", started.elapsed());
}

#[test]
fn names_with_colons_and_rows_by_hand_find_their_queues() {
    let folder = old_file(&[r"INSERT INTO topic_key VALUES('t', 1);
          INSERT INTO conn_key_map VALUES('s:a:b:l', 1), ('s::by hand', 2), ('s::\tkept', 3), ('a:b:c:d', 4), (NULL, 5), ('x', 'y');
          INSERT INTO conn_sender VALUES(1, 'a:b');
          INSERT INTO topic_key VALUES('kept', 9);
          CREATE INDEX conn_key_map_owner ON topic_addr(client_name);"]);
    for (key, topic) in [(1, 1), (2, 1), (3, 9), (3, 1), (4, 1), (5, 1)] {
        insert(folder.path(), key.into(), &frame(1, key, topic, 2, b"m"));
    }
    let store = open(folder.path(), "s");
    let found = store.opened().taken_over.expect("it is taken over");
    assert_eq!((found.queued, found.dead), (3, 3));
    drop(store);
    assert_holds(folder.path(), "s", Queue::Node("l"), [("t", b"m")]);
    assert_holds(folder.path(), "s", Queue::Node("by hand"), [("t", b"m")]);
    assert_holds(folder.path(), "s", Queue::Topic("kept"), [("kept", b"m")]);
    assert_eq!(lines(&shell(folder.path()), LETTERS), "s/kept/t/4\ns/d/t/4\ns//t/4");
}

#[test]
fn a_file_of_another_form_is_left_alone() {
    for sql in [
        "CREATE TABLE theirs(a)",
        "CREATE TABLE \"seq topic_addr\"(a)",
        "CREATE VIEW theirs AS SELECT 1",
        "CREATE TRIGGER theirs AFTER INSERT ON topic_addr BEGIN SELECT 1; END",
        "ALTER TABLE conn_messages ADD COLUMN at INTEGER",
        "ALTER TABLE topic_addr RENAME COLUMN addr TO address",
        "DROP TABLE conn_sender",
        "DROP TABLE topic_key; CREATE TABLE topic_key(topic TEXT, k INTEGER NOT NULL)",
        "DROP TABLE topic_key; CREATE TABLE topic_key(topic BLOB PRIMARY KEY, k INTEGER NOT NULL)",
        "ALTER TABLE topic_addr DROP COLUMN client_name",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 1",
    ] {
        let folder = old_file(&[FILLED, sql]);
        let path = folder.path().join("liner.db");
        let before = fs::read(&path).expect("it is there");
        let error = try_open(folder.path(), &options("sensor")).expect_err("it is another program's");
        assert!(matches!(error, OpenError::Foreign { .. }), "{sql}: {error}");
        let error = Look::open(&path).expect_err("it is another program's");
        assert!(matches!(error, LookError::Open(OpenError::Foreign { .. })), "{sql}: {error}");
        assert_eq!(fs::read(&path).expect("it is there"), before, "{sql}");
    }
}

#[test]
fn a_file_that_somebody_has_open_is_left_alone() {
    let folder = old_file(&[FILLED]);
    insert(folder.path(), 3, &frame(1, 3, 1, 2, b"one"));
    let conn = shell(folder.path());
    let before = dump(&conn);
    let error = try_open(folder.path(), &options("sensor")).expect_err("it is in use");
    assert!(matches!(error, OpenError::BrokerInUse { .. }), "{error}");
    assert!(error.to_string().contains("stop that program"), "{error}");
    assert_eq!(dump(&conn), before);
    // It goes on to work meanwhile.
    insert(folder.path(), 3, &frame(2, 3, 1, 2, b"two"));
    drop(conn);
    assert_eq!(open(folder.path(), "sensor").opened().taken_over.map(|taken| taken.queued), Some(2));
}

#[test]
fn what_a_killed_process_has_left_in_the_log_is_taken_over() {
    let folder = old_file(&[FILLED]);
    // As long as it is open its log is not put into the file.
    let conn = shell(folder.path());
    let theirs: i64 =
        conn.query_row("SELECT count(*) FROM conn_messages", [], |row| row.get(0)).expect("a row");
    assert_eq!(theirs, 0);
    insert(folder.path(), 3, &frame(1, 3, 1, 2, b"one"));
    let killed = tempdir().expect("a folder");
    for name in ["liner.db", "liner.db-wal"] {
        fs::copy(folder.path().join(name), killed.path().join(name)).expect("it is copied");
    }
    assert_eq!(open(killed.path(), "sensor").opened().taken_over.map(|taken| taken.queued), Some(1));
    assert_holds(killed.path(), "sensor", NODE, [("readings", b"one")]);
}

#[test]
fn of_many_that_start_at_once_one_takes_it_over() {
    for _ in 0..4 {
        let folder = old_file(&[FILLED]);
        fill(folder.path(), 2000, &frame(1, 3, 1, 2, b"one"));
        let taken: Vec<_> = std::thread::scope(|scope| {
            let starts = [0, 1, 2, 3, 4, 5].map(|node| {
                let folder = folder.path();
                scope.spawn(move || open(folder, &format!("node-{node}")).opened().taken_over)
            });
            starts.map(|start| start.join().expect("it starts")).into_iter().flatten().collect()
        });
        assert_eq!(taken.iter().map(|taken| taken.queued).collect::<Vec<_>>(), [2000]);
        assert!(!folder.path().join("liner.db.taking-over").exists());
        let queues = told(&mut open(folder.path(), "sensor")).queues;
        assert_eq!(queues.iter().map(|(_, queue)| queue.messages).collect::<Vec<_>>(), [2000]);
    }
}
