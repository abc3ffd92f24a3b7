//! Rows that an operator writes by hand, with nothing but an SQLite shell: messages, streams and rows of the directory.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::Path;

use liner_proto::effect::{GapReason, Loaded, Queue, Recovered, StoreOp};
use liner_proto::id::{Class, Epoch, Predecessor};
use liner_proto::router::DirectoryRows;
use liner_proto::router::{NodeConfig, Router};
use liner_proto::store::Store as _;
use liner_proto::store::run::Walk;
use liner_proto::time::Instant;
use liner_proto::wire::record::{Header, Mode, Record, Topic, decode};
use liner_store_sqlite::{Look, Options, SqliteStore};
use rusqlite::{Connection, Params};
use tempfile::tempdir;

mod common;
use common::*;

const PAYLOAD_MAX: usize = 1 << 20;

/// An operator's connection, which knows nothing of the store's.
fn shell(folder: &Path) -> Connection {
    Connection::open(folder.join("liner.db")).expect("it opens")
}

fn run_sql(folder: &Path, sql: &str) {
    shell(folder).execute_batch(sql).expect("it is executed");
}

fn one<T: rusqlite::types::FromSql>(folder: &Path, sql: &str) -> T {
    shell(folder).query_row(sql, [], |row| row.get(0)).expect("a row")
}

/// What an operator reads of an insert that fails.
fn refusal(conn: &Connection, sql: &str, parameters: impl Params) -> String {
    match conn.execute(sql, parameters) {
        Err(rusqlite::Error::SqliteFailure(_, Some(words))) => words,
        other => panic!("{sql}: {other:?}"),
    }
}

/// A message as it is inserted by hand.
fn inserted(topic: &str, payload: &[u8]) -> Vec<u8> {
    message(&Header::new(Mode::One, Topic::Text(topic)), payload)
}

/// Everything that the queue gives above a number: the run's first and last number with its records.
fn load(store: &mut SqliteStore, queue: Queue<'_>, after: u64) -> (u64, u64, Vec<u8>) {
    let mut into = vec![0; 4 << 20];
    match store.load(queue, after, &mut into) {
        Ok(Loaded::Records { first, last, len }) => {
            into.truncate(len);
            (first, last, into)
        }
        other => panic!("{other:?}"),
    }
}

/// A closed store of the node `sensor` with ten messages on `readings` for the gateway, under the key 1.
fn with_ten(folder: &Path) {
    let mut store = open(folder, "sensor");
    apply(&mut store, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    append(NODE, 1, 10, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 4 }]);
}

/// Owner, peer, topic, reason and payload of each dead letter.
fn dead_letters(folder: &Path) -> Vec<(String, String, String, u8, Vec<u8>)> {
    let conn = shell(folder);
    let mut select = conn
        .prepare("SELECT owner, peer, topic, reason, record FROM dead_letters ORDER BY id")
        .expect("it is prepared");
    let rows = select.query_map([], |row| {
        let record: Vec<u8> = row.get(4)?;
        let Ok(Record::Message { header, payload }) = decode(&record) else { panic!("{record:?}") };
        let topic: String = row.get(2)?;
        assert_eq!((header.mode, header.topic), (Mode::One, Topic::Text(&topic)));
        Ok((row.get(0)?, row.get(1)?, topic.clone(), row.get(3)?, payload.to_vec()))
    });
    rows.expect("it is asked").collect::<Result<_, _>>().expect("rows")
}

#[test]
fn a_message_inserted_by_hand_waits_and_is_queued_at_the_next_start() {
    let folder = tempdir().expect("a folder");
    let path = folder.path();
    with_ten(path);
    run_sql(
        path,
        "INSERT INTO conn_messages(connection_key, payload) VALUES(1, x'00ff');
         INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'gone'), (1, 'ü');
         INSERT INTO conn_messages(connection_key, topic, payload) VALUES(1, 'alarms', 21.5);
         DELETE FROM conn_messages WHERE CAST(payload AS TEXT) = 'gone'",
    );
    let count = "SELECT COUNT(*) FROM conn_messages WHERE connection_key = 1";
    let order = "SELECT group_concat(coalesce(number, '-') || topic, ' ') FROM (SELECT * FROM conn_messages ORDER BY id)";
    let queued = "5readings 6readings 7readings 8readings 9readings 10readings";
    assert_eq!(one::<i64>(path, count), 9);
    assert_eq!(one::<String>(path, order), format!("{queued} -readings -readings -alarms"));
    for _ in 0..2 {
        let mut store = open(path, "sensor");
        let again = store.opened().inserted == 0;
        let [(_, queue)] = &told(&mut store).queues[..] else { panic!("one queue") };
        assert_eq!((queue.trimmed, queue.last, queue.messages), (4, 13, 9));
        let expected = run([
            inserted("readings", &[0, 255]),
            inserted("readings", "ü".as_bytes()),
            inserted("alarms", b"21.5"),
        ]);
        assert_eq!(load(&mut store, NODE, 10), (11, 13, expected), "again: {again}");
        assert_eq!(one::<i64>(path, count), 9);
        assert_eq!(one::<String>(path, order), format!("{queued} 11readings 12readings 13alarms"));
        assert_eq!(one::<i64>(path, "SELECT COUNT(*) FROM inserted"), 0);
    }
    // They are messages like any other.
    let mut store = open(path, "sensor");
    append(NODE, 14, 15, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 12 }]);
    assert_eq!(one::<i64>(path, count), 3);
    run_sql(path, "DELETE FROM conn_messages WHERE number = 13");
    assert_eq!(one::<i64>(path, count), 2);
}

#[test]
fn a_running_node_does_not_see_it() {
    let folder = tempdir().expect("a folder");
    with_ten(folder.path());
    let mut store = open(folder.path(), "sensor");
    run_sql(folder.path(), "INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'later')");
    append(NODE, 11, 11, &mut store);
    assert_eq!(drain(&mut store, NODE, 4, 11), []);
    drop(store);
    let mut store = open(folder.path(), "sensor");
    assert_eq!((store.opened().inserted, store.opened().waiting), (1, 0));
    assert_eq!(load(&mut store, NODE, 11), (12, 12, run([inserted("readings", b"later")])));
}

#[test]
fn what_cannot_be_sent_is_refused_with_a_word_on_what_to_do() {
    let folder = tempdir().expect("a folder");
    with_ten(folder.path());
    let mut store = open(folder.path(), "sensor");
    let (bare, two, kept) = (Queue::Node("bare"), Queue::Node("two"), Queue::Topic("news"));
    for queue in [bare, two, kept] {
        apply(&mut store, &[StoreOp::Open { queue, epoch: EPOCH }]);
    }
    for (number, text) in [(1, "a"), (2, "b")] {
        apply(&mut store, &[StoreOp::Topic { queue: two, number, text }]);
    }
    drop(store);
    let conn = shell(folder.path());
    let insert = "INSERT INTO conn_messages(connection_key, topic, payload) VALUES(?1, ?2, ?3)";
    let (none, long) = (None::<&str>, "ü".repeat(128));
    let said = |key: i64, topic: Option<&str>, payload: Option<&str>| {
        refusal(&conn, insert, rusqlite::params![key, topic, payload])
    };
    let no_queue = "no queue has this connection_key: look it up in conn_key_map";
    let no_payload = "the payload is missing or empty: give it as a text or a blob";
    let too_long = "the payload has more than 1048576 bytes: send it in parts";
    let no_topic = "the queue has no topic or several: name one of at most 255 bytes in the column topic";
    let not_kept = "what is kept for a topic is of that topic: leave the column topic out";
    assert_eq!(said(99, none, Some("x")), no_queue);
    assert_eq!(said(1, none, none), no_payload);
    assert_eq!(said(1, none, Some("")), no_payload);
    assert_eq!(said(1, none, Some(&"x".repeat(PAYLOAD_MAX + 1))), too_long);
    assert_eq!(said(2, none, Some("x")), no_topic);
    assert_eq!(said(3, none, Some("x")), no_topic);
    assert_eq!(said(1, Some(""), Some("x")), no_topic);
    assert_eq!(said(1, Some(&long), Some("x")), no_topic);
    assert_eq!(said(4, Some("other"), Some("x")), not_kept);
    conn.execute("INSERT INTO conn_key_map(composite, connection_key) VALUES('sensor:gateway', 50)", [])
        .expect("the table takes it");
    let no_form = "the composite of this connection_key names no queue: write it as sender::listener";
    assert_eq!(said(50, Some("t"), Some("x")), no_form);
    assert_eq!(one::<i64>(folder.path(), "SELECT COUNT(*) FROM inserted"), 0);
    conn.execute(insert, rusqlite::params![3, "c", "x"]).expect("a topic is named");
    conn.execute(insert, rusqlite::params![4, "news", "x"]).expect("it is the topic's");
}

#[test]
fn the_longest_payload_is_that_of_a_node_and_is_given_back_whole() {
    let config = NodeConfig::new("sensor", [1, 2], Class::Process);
    assert_eq!(Router::new(config, Instant::ZERO).payload_max(), PAYLOAD_MAX);
    let folder = tempdir().expect("a folder");
    with_ten(folder.path());
    let topic = "t".repeat(255);
    let conn = shell(folder.path());
    for byte in 1..=3 {
        let insert = "INSERT INTO conn_messages(connection_key, topic, payload) VALUES(1, ?1, ?2)";
        conn.execute(insert, (&topic, vec![byte; PAYLOAD_MAX])).expect("it is inserted");
    }
    let mut store = open(folder.path(), "sensor");
    let expected = run((1..=3).map(|byte| inserted(&topic, &vec![byte; PAYLOAD_MAX])));
    assert_eq!(load(&mut store, NODE, 10), (11, 13, expected));
    let largest: i64 = one(folder.path(), "SELECT max(length(records)) FROM segments");
    assert!((PAYLOAD_MAX as i64..PAYLOAD_MAX as i64 + 600).contains(&largest), "{largest}");
}

#[test]
fn many_small_messages_share_segments_and_keep_their_order() {
    let folder = tempdir().expect("a folder");
    with_ten(folder.path());
    run_sql(
        folder.path(),
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)
         INSERT INTO conn_messages(connection_key, payload) SELECT 1, printf('message %d', n) FROM n",
    );
    let mut store = open(folder.path(), "sensor");
    assert_eq!(store.opened().inserted, 5000);
    let expected = run((1..=5000).map(|number| inserted("readings", format!("message {number}").as_bytes())));
    assert_eq!(load(&mut store, NODE, 10), (11, 5010, expected));
    let rows: i64 = one(folder.path(), "SELECT COUNT(*) FROM segments");
    assert!(rows < 5, "{rows}");
}

#[test]
fn queues_of_other_kinds_and_of_other_nodes() {
    let folder = tempdir().expect("a folder");
    let (kept, address) = (Queue::Topic("ne:ws"), Queue::Address("127.0.0.1:7"));
    for name in ["a", "a:", "b\\"] {
        let mut store = open(folder.path(), name);
        for queue in [NODE, kept, address] {
            apply(&mut store, &[StoreOp::Open { queue, epoch: EPOCH }]);
        }
    }
    run_sql(
        folder.path(),
        "INSERT INTO conn_messages(connection_key, topic, payload)
         SELECT connection_key, iif(kind = 1, NULL, 't'), composite FROM conn_key_map",
    );
    let composites = [("a", "a"), ("a:", "a\\:"), ("b\\", "b\\\\")];
    for (left, (name, escaped)) in (0..3).rev().zip(composites) {
        let mut store = open(folder.path(), name);
        assert_eq!((store.opened().inserted, store.opened().orphaned), (3, 0));
        assert_eq!(one::<i64>(folder.path(), "SELECT COUNT(*) FROM inserted"), 3 * left);
        for (queue, topic, listener) in
            [(NODE, "t", "gateway"), (kept, "ne:ws", "\\tne\\:ws"), (address, "t", "\\a127.0.0.1\\:7")]
        {
            let payload = format!("{escaped}::{listener}");
            assert_eq!(load(&mut store, queue, 0), (1, 1, run([inserted(topic, payload.as_bytes())])));
        }
    }
}

/// Numbers that a process took along may have been on a wire: they are a gap, and no message gets one of them.
#[test]
fn reserved_numbers_are_skipped() {
    let folder = tempdir().expect("a folder");
    with_ten(folder.path());
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[StoreOp::Reserve { queue: NODE, through: 70_000 }]);
    drop(store);
    for number in 1..=2 {
        let insert = format!("INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'm{number}')");
        run_sql(folder.path(), &insert);
        let mut store = open(folder.path(), "sensor");
        let queue = told(&mut store).queues[0].1;
        assert_eq!((queue.last, queue.reserved, queue.messages), (70_000 + number, 70_000, 6 + number));
    }
    let mut store = open(folder.path(), "sensor");
    let (first, last, records) = load(&mut store, NODE, 10);
    assert_eq!((first, last), (11, 70_002));
    let steps: Vec<_> = Walk::new(&records, first).map(|step| (step.first, step.last, step.gap)).collect();
    assert_eq!(
        steps,
        [(11, 70_000, Some(GapReason::Crashed)), (70_001, 70_001, None), (70_002, 70_002, None)]
    );
    // A peer that had some of them, and says so, is told of the rest.
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 50 }]);
    assert_eq!(load(&mut store, NODE, 50).0, 51);
}

/// After a loss of commits the other side may have had the numbers behind the last one.
#[test]
fn nothing_is_queued_where_commits_may_be_missing_before_there_is_a_new_epoch() {
    let folder = tempdir().expect("a folder");
    let boot = |boot: &str| Options { boot_id: boot.to_owned(), ..options("sensor") };
    with_ten(folder.path());
    run_sql(
        folder.path(),
        "UPDATE node SET clean = 0;
         INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'late')",
    );
    let mut store = try_open(folder.path(), &boot("2")).expect("it opens");
    apply(&mut store, &[StoreOp::Inbox { epoch: Epoch(5) }]);
    assert_eq!((store.opened().inserted, store.opened().waiting), (0, 1));
    let told_before = told(&mut store);
    assert_eq!(told_before.node, Some((Epoch(5), true)));
    assert_eq!(told_before.queues[0].1.last, 10);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 5, count: 6 };
    apply(&mut store, &[StoreOp::Rotate { queue: NODE, epoch: Epoch(8), predecessor }]);
    drop(store);
    let mut store = try_open(folder.path(), &boot("2")).expect("it opens");
    assert_eq!((store.opened().inserted, store.opened().waiting), (1, 0));
    let queue = told(&mut store).queues[0].1;
    assert_eq!((queue.last, queue.predecessor), (7, Some(predecessor)), "it is none of the old epoch's");
    assert_eq!(load(&mut store, NODE, 6), (7, 7, run([inserted("readings", b"late")])));
}

#[test]
fn a_stream_made_by_hand_begins_with_what_was_inserted_for_it() {
    let folder = tempdir().expect("a folder");
    drop(open(folder.path(), "sen:sor"));
    run_sql(
        folder.path(),
        r"INSERT INTO conn_key_map(composite, connection_key) VALUES
            ('sen\:sor::gateway', 7), ('sen\:sor::\tnews', 8), ('sen\:sor::unused', 9), ('other::gateway', 10);
          INSERT INTO conn_messages(connection_key, topic, payload) VALUES
            (7, 'readings', 'one'), (8, 'news', 'two'), (7, 'alarms', 'three'), (10, 't', 'four')",
    );
    let mut store = open(folder.path(), "sen:sor");
    assert_eq!((store.opened().inserted, store.opened().orphaned), (3, 0));
    let queues: Vec<_> =
        told(&mut store).queues.into_iter().map(|(name, queue)| (name, queue.last)).collect();
    assert_eq!(queues, [("gateway".to_owned(), 2), ("news".to_owned(), 1)]);
    let expected = run([inserted("readings", b"one"), inserted("alarms", b"three")]);
    assert_eq!(load(&mut store, NODE, 0), (1, 2, expected));
    assert_eq!(load(&mut store, Queue::Topic("news"), 0), (1, 1, run([inserted("news", b"two")])));
    let count = |key| {
        one::<i64>(folder.path(), &format!("SELECT COUNT(*) FROM conn_messages WHERE connection_key = {key}"))
    };
    assert_eq!((count(7), count(8), count(10)), (2, 1, 1));
    let senders: String =
        one(folder.path(), "SELECT group_concat(connection_key || '/' || sender_topic) FROM conn_sender");
    assert_eq!(senders, "7/,8/");
    // It lives on as any other queue.
    drop(store);
    let mut store = open(folder.path(), "sen:sor");
    assert_eq!((store.opened().damaged, store.opened().orphaned), (0, 0));
    let epoch = told(&mut store).queues[0].1.epoch;
    assert!(!epoch.is_none());
    append(NODE, 3, 4, &mut store);
    assert_eq!(count(7), 4);
    // Keys of what was made by hand are not given out.
    apply(&mut store, &[StoreOp::Open { queue: Queue::Node("new"), epoch: EPOCH }]);
    assert!(one::<i64>(folder.path(), "SELECT max(connection_key) FROM conn_key_map") > 10);
}

/// Whatever becomes of the queue meanwhile, what was inserted is there or among the dead letters.
#[test]
fn what_has_no_queue_any_more_becomes_dead_letters() {
    let remade = "DELETE FROM conn_key_map; INSERT INTO conn_key_map(composite, connection_key) VALUES";
    for change in [
        "DELETE FROM conn_key_map".to_owned(),
        "UPDATE conn_key_map SET last = 11".to_owned(),
        "UPDATE conn_key_map SET owner = 'other'".to_owned(),
        format!("{remade}('sensor::other', 1)"),
        format!("{remade}('sensor::gateway', 2)"),
        r"UPDATE conn_key_map SET composite = 'sensor::\x', owner = ''; UPDATE inserted SET composite = 'sensor::\x'"
            .to_owned(),
        "UPDATE inserted SET topic = ''".to_owned(),
        "UPDATE inserted SET payload = zeroblob(2000000)".to_owned(),
    ] {
        let folder = tempdir().expect("a folder");
        with_ten(folder.path());
        run_sql(
            folder.path(),
            "DELETE FROM segments;
             INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'first'), (1, 'second')",
        );
        run_sql(folder.path(), &change);
        drop(open(folder.path(), "other"));
        assert_eq!(dead_letters(folder.path()), [], "{change}");
        let store = open(folder.path(), "sensor");
        assert_eq!((store.opened().inserted, store.opened().orphaned), (0, 2), "{change}");
        let letters = dead_letters(folder.path());
        let (emptied, grown) = (change.contains("topic = ''"), change.contains("zeroblob"));
        for (letter, payload) in letters.iter().zip(["first", "second"]) {
            let (owner, peer, topic, reason, bytes) = letter;
            assert_eq!((&**owner, *reason), ("sensor", 4), "{change}");
            assert_eq!(peer, if change.contains("\\x") { "" } else { "gateway" }, "{change}");
            assert_eq!(topic, if emptied { "" } else { "readings" }, "{change}");
            assert!(if grown { bytes.len() == 2_000_000 } else { bytes == payload.as_bytes() }, "{change}");
        }
        assert_eq!(letters.len(), 2, "{change}");
        assert_eq!(one::<i64>(folder.path(), "SELECT COUNT(*) FROM conn_messages"), 0, "{change}");
    }
}

/// Everything the directory tells.
fn directory(store: &mut SqliteStore) -> BTreeMap<(String, String), String> {
    let mut rows = BTreeMap::new();
    store
        .recover(&mut |fact| {
            if let Recovered::Subscription { topic, address, name } = fact {
                rows.insert((topic.to_owned(), address.to_owned()), name.to_owned());
            }
        })
        .expect("it can be read");
    rows
}

#[test]
fn rows_of_the_directory_written_by_hand_stay_until_they_are_unsubscribed() {
    let folder = tempdir().expect("a folder");
    drop(open(folder.path(), "sensor"));
    run_sql(
        folder.path(),
        "INSERT INTO topic_addr(topic, addr, client_name) VALUES
         ('readings', '10.0.0.1:7420', 'by hand'), ('readings', '10.0.0.2:7420', 'second')",
    );
    let row = |addr: &str, name: &str| (("readings".to_owned(), addr.to_owned()), name.to_owned());
    let (first, second) = (row("10.0.0.1:7420", "by hand"), row("10.0.0.2:7420", "second"));
    let third = row("10.0.0.3:7420", "third");
    for _ in 0..2 {
        let mut store = open(folder.path(), "sensor");
        assert_eq!(directory(&mut store), BTreeMap::from([first.clone(), second.clone()]));
        let by_itself = StoreOp::Subscribe { topic: "readings", address: "10.0.0.3:7420", name: "third" };
        apply(&mut store, &[OPEN, by_itself]);
        assert_eq!(directory(&mut store), BTreeMap::from([first.clone(), second.clone(), third.clone()]));
        let unsubscribe = StoreOp::Unsubscribe { topic: "readings", address: "10.0.0.3:7420", name: "third" };
        apply(&mut store, &[StoreOp::Close { queue: NODE }, unsubscribe]);
    }
    let mut store = open(folder.path(), "sensor");
    let unsubscribe = StoreOp::Unsubscribe { topic: "readings", address: "10.0.0.1:7420", name: "by hand" };
    apply(&mut store, &[unsubscribe]);
    drop(store);
    assert_eq!(directory(&mut open(folder.path(), "sensor")), BTreeMap::from([second]));
}

/// `topic:k` of each topic, and `sender_key>addr:listener_topic:client_name` of each listener.
fn keys_and_listeners(folder: &Path) -> (String, String) {
    (
        one(folder, "SELECT coalesce(group_concat(topic || ':' || k, ' '), '') FROM topic_key"),
        one(
            folder,
            "SELECT coalesce(group_concat(
               sender_key || '>' || addr || '/' || listener_topic || '/' || client_name, ' '), '')
             FROM sender_listener",
        ),
    )
}

#[test]
fn topics_have_numbers_and_senders_their_listeners() {
    let folder = tempdir().expect("a folder");
    let path = folder.path();
    let mut store = open(path, "sen:sor");
    let subscribe = |topic, address, name| StoreOp::Subscribe { topic, address, name };
    let unsubscribe = |topic, address, name| StoreOp::Unsubscribe { topic, address, name };
    let keys = |keys: &str, listeners: &str| (keys.to_owned(), listeners.to_owned());
    apply(&mut store, &[OPEN, subscribe("a", "h:1", "one")]);
    assert_eq!(keys_and_listeners(path), keys("a:2", r"sen\:sor:>h:1/a/one"));
    apply(&mut store, &[subscribe("b", "h:1", "one"), subscribe("a", "h:2", "two")]);
    assert_eq!(keys_and_listeners(path), keys("a:2 b:3", r"sen\:sor:>h:1/b/one sen\:sor:>h:2/a/two"));
    // Numbers of streams and of topics are of one counter, and none is given out twice.
    apply(&mut store, &[StoreOp::Open { queue: Queue::Node("other"), epoch: EPOCH }]);
    assert_eq!(one::<i64>(path, "SELECT max(connection_key) FROM conn_key_map"), 4);
    apply(&mut store, &[unsubscribe("b", "h:1", "one"), unsubscribe("a", "h:2", "two")]);
    assert_eq!(keys_and_listeners(path), keys("a:2 b:3", r"sen\:sor:>h:1/a/one"));
    apply(&mut store, &[unsubscribe("a", "h:1", "one"), subscribe("c", "h:3", "new")]);
    assert_eq!(keys_and_listeners(path), keys("a:2 b:3 c:5", r"sen\:sor:>h:3/c/new"));
    apply(&mut store, &[subscribe("c", "h:3", "renamed"), subscribe("b", "h:3", "renamed")]);
    assert_eq!(keys_and_listeners(path), keys("a:2 b:3 c:5", r"sen\:sor:>h:3/b/renamed"));
    drop(store);
    // The counter is lost, and a row is written by hand.
    run_sql(path, "DELETE FROM seq; INSERT INTO topic_addr VALUES('d', 'h:4', 'by hand')");
    drop(open(path, "sen:sor"));
    assert_eq!(
        keys_and_listeners(path),
        keys("a:2 b:3 c:5 d:6", r"sen\:sor:>h:3/b/renamed sen\:sor:>h:4/d/by hand")
    );
    assert_eq!(one::<i64>(path, "SELECT v FROM seq"), 6);
}

/// Another node of the file has written since: what this one has known last is not there any more.
#[test]
fn a_late_delete_takes_no_row_of_whoever_has_come_to_the_address() {
    let folder = tempdir().expect("a folder");
    let path = folder.path();
    let (mut first, mut second) = (open(path, "first"), open(path, "second"));
    apply(&mut first, &[StoreOp::Subscribe { topic: "t", address: "h:1", name: "old" }]);
    apply(&mut second, &[StoreOp::Subscribe { topic: "t", address: "h:1", name: "new" }]);
    apply(&mut first, &[StoreOp::Unsubscribe { topic: "t", address: "h:1", name: "old" }]);
    let listeners = "first:>h:1/t/new second:>h:1/t/new";
    assert_eq!(keys_and_listeners(path).1, listeners);
    apply(&mut second, &[StoreOp::Unsubscribe { topic: "t", address: "h:1", name: "old" }]);
    assert_eq!(keys_and_listeners(path).1, listeners);
    drop((first, second));
    let row = (("t".to_owned(), "h:1".to_owned()), "new".to_owned());
    assert_eq!(directory(&mut open(path, "first")), BTreeMap::from([row]));
}

/// A look for a free number at each of them would take minutes, in which nobody else can write to the file.
#[test]
fn a_hundred_thousand_topics_that_were_written_by_hand_have_numbers_soon() {
    let folder = tempdir().expect("a folder");
    let path = folder.path();
    drop(open(path, "sensor"));
    run_sql(
        path,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO topic_addr SELECT 't' || i, 'h:1', 'by hand' FROM n",
    );
    drop(open(path, "sensor"));
    let numbers = "SELECT count(DISTINCT k) || ' ' || (max(k) - min(k)) || ' ' || (max(k) - (SELECT v FROM seq)) FROM topic_key";
    assert_eq!(one::<String>(path, numbers), "100000 99999 0");
}

/// What somebody has written by hand must not keep a node that runs from finding others, nor one that starts from starting.
#[test]
fn a_row_of_the_directory_that_is_no_text_hides_no_other() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    store.directory().expect("it is read");
    run_sql(
        folder.path(),
        "INSERT INTO topic_addr VALUES('t', x'ff', 'bad'), ('t', 'h:1', 'good'), (x'ff', 'h:2', 'bad'),
           ('t', 'h:3', x'ff'), ('t', CAST(x'ff' AS TEXT), 'bad'), ('s', 'h:1', 'good')",
    );
    let rows = store.directory().expect("it is read").expect("somebody has written");
    let mut wanted = DirectoryRows::default();
    wanted.push("t", "h:1", "good");
    wanted.push("s", "h:1", "good");
    assert_eq!(rows, wanted);
    drop(store);
    let told = directory(&mut open(folder.path(), "sensor"));
    let row = |topic: &str| ((topic.to_owned(), "h:1".to_owned()), "good".to_owned());
    assert_eq!(told, BTreeMap::from([row("s"), row("t")]));
    let look = Look::open(folder.path().join("liner.db")).expect("it can be looked at");
    let shown = look.subscriptions().expect("they are read");
    assert_eq!(shown.iter().map(|row| &*row.topic).collect::<Vec<_>>(), ["s", "t"]);
}

#[test]
fn senders_of_streams_come_and_go_with_them() {
    let folder = tempdir().expect("a folder");
    let senders = || {
        let sql = "SELECT coalesce(group_concat(connection_key || '/' || sender_topic), '') FROM conn_sender";
        one::<String>(folder.path(), sql)
    };
    let mut store = open(folder.path(), "sensor");
    let other = Queue::Node("other");
    apply(&mut store, &[OPEN, StoreOp::Open { queue: other, epoch: EPOCH }]);
    assert_eq!(senders(), "1/,2/");
    apply(&mut store, &[StoreOp::Close { queue: NODE }]);
    assert_eq!(senders(), "2/");
    drop(store);
    run_sql(folder.path(), "UPDATE conn_key_map SET last = 5");
    assert_eq!(open(folder.path(), "sensor").opened().damaged, 1);
    assert_eq!(senders(), "");
}
