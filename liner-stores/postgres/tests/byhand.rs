//! Rows that an operator writes by hand, with nothing but SQL: messages, streams and rows of the directory.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{GapReason, Loaded, Queue, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::Store as _;
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Header, Mode, Topic};
use liner_store::look::Look as _;
use liner_store_postgres::Look;

mod common;
use common::*;

/// A message as it is inserted by hand.
fn inserted(topic: &str, payload: &[u8]) -> Vec<u8> {
    message(&Header::new(Mode::One, Topic::Text(topic)), payload)
}

const COUNT: &str = "SELECT count(*) FROM conn_messages WHERE connection_key = 1";
const BY_HAND: &str = "SELECT count(*) FROM conn_messages WHERE epoch IS NULL";
const LETTERS: &str =
    "SELECT string_agg(concat_ws('/', owner, peer, topic, reason), ' ' ORDER BY id) FROM dead_letters";

#[test]
fn a_message_inserted_by_hand_waits_and_is_queued_at_the_next_start() {
    let database = Database::new();
    with_ten(&database);
    database.run(
        "INSERT INTO conn_messages(connection_key, payload) VALUES(1, '\\x00ff');
         INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'gone'), (1, 'two');
         INSERT INTO conn_messages(connection_key, topic, payload) VALUES(1, 'alarms', '21.5');
         DELETE FROM conn_messages WHERE payload = 'gone'",
    );
    assert_eq!(database.one(COUNT), "9");
    for again in [false, true] {
        let mut store = database.open("sensor");
        assert_eq!((store.opened().inserted, store.opened().waiting), (if again { 0 } else { 3 }, 0));
        let [(_, queue)] = &told(&mut store).queues[..] else { panic!("one queue") };
        assert_eq!((queue.trimmed, queue.last, queue.messages), (4, 13, 9));
        let expected =
            run([inserted("readings", &[0, 255]), inserted("readings", b"two"), inserted("alarms", b"21.5")]);
        assert_eq!(load(&mut store, NODE, 10), (11, 13, expected), "again: {again}");
        assert_eq!((database.one(COUNT), database.one(BY_HAND)), ("9".to_owned(), "0".to_owned()));
    }
    // They are messages like any other.
    let mut store = database.open("sensor");
    append(NODE, 14, 15, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 12 }]);
    assert_eq!(database.one(COUNT), "3");
}

#[test]
fn a_running_node_does_not_see_it() {
    let database = Database::new();
    with_ten(&database);
    let mut store = database.open("sensor");
    database.run("INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'later')");
    append(NODE, 11, 11, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 11 }]);
    assert_eq!(store.load(NODE, 11, &mut [0; 100]), Ok(Loaded::Nothing));
    assert_eq!(store.queued(NODE), Ok((0, 0)));
    drop(store);
    let mut store = database.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().waiting), (1, 0));
    assert_eq!(load(&mut store, NODE, 11), (12, 12, run([inserted("readings", b"later")])));
}

#[test]
fn many_messages_keep_their_order() {
    let database = Database::new();
    with_ten(&database);
    database.run(
        "INSERT INTO conn_messages(connection_key, payload)
         SELECT 1, convert_to('message ' || n, 'UTF8') FROM generate_series(1, 10000) AS n;
         INSERT INTO conn_messages(connection_key, payload)
         SELECT 1, convert_to(repeat('x', 1000000) || n, 'UTF8') FROM generate_series(1, 9) AS n;",
    );
    let mut store = database.open("sensor");
    assert_eq!(store.opened().inserted, 10_009);
    let mut after = 10;
    while after < 10_010 {
        let (first, last, records) = load(&mut store, NODE, after);
        assert_eq!(first, after + 1);
        let expected = (first..=last.min(10_010))
            .map(|n| inserted("readings", format!("message {}", n - 10).as_bytes()));
        assert!(records.starts_with(&run(expected)), "{first}..={last}");
        after = last;
    }
    let (_, _, last) = load(&mut store, NODE, 10_018);
    assert!(last.ends_with(b"xx9"));
}

#[test]
fn what_has_no_queue_or_no_topic_becomes_a_dead_letter() {
    let database = Database::new();
    with_ten(&database);
    let mut store = database.open("sensor");
    for queue in [Queue::Node("bare"), Queue::Node("two"), Queue::Topic("news")] {
        apply(&mut store, &[StoreOp::Open { queue, epoch: EPOCH }]);
    }
    for (number, text) in [(1, "a"), (2, "b")] {
        apply(&mut store, &[StoreOp::Topic { queue: Queue::Node("two"), number, text }]);
    }
    drop(store);
    let key =
        |name: &str| database.one(&format!("SELECT connection_key FROM conn_key_map WHERE name = '{name}'"));
    let (bare, two, news) = (key("bare"), key("two"), key("news"));
    database.run(&format!(
        "INSERT INTO conn_messages(connection_key, topic, payload) VALUES
           (999, 't', 'lost'), ({bare}, NULL, 'x'), ({two}, NULL, 'x'), ({two}, 'b', 'right'), ({news}, 'other', 'x'),
           ({news}, NULL, 'kept'), (1, NULL, convert_to(repeat('x', 1048577), 'UTF8')), (1, repeat('t', 256), 'x')"
    ));
    let mut store = database.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().orphaned), (2, 6));
    assert_eq!(load(&mut store, Queue::Node("two"), 0), (1, 1, run([inserted("b", b"right")])));
    assert_eq!(load(&mut store, Queue::Topic("news"), 0), (1, 1, run([inserted("news", b"kept")])));
    let long = "t".repeat(256);
    let letters = [
        "sensor//t/",
        "sensor/bare//",
        "sensor/two//",
        "sensor/news/other/",
        "sensor/gateway/readings/",
        &format!("sensor/gateway/{long}/"),
    ];
    let reason = liner_proto::effect::DeadReason::Orphaned as u8;
    let letters: Vec<_> = letters.map(|letter| format!("{letter}{reason}")).into();
    assert_eq!(database.one(LETTERS), letters.join(" "));
    assert_eq!(database.one(BY_HAND), "0");
    let letters =
        Look::open(&database.url()).expect("it opens").dead_letters(None, 0, 2).expect("they are read");
    assert_eq!(letters[0].payload.as_deref(), Some(&b"lost"[..]));
}

/// Numbers that a process took along may have been on a wire: they are a gap, and no message gets one of them.
#[test]
fn reserved_numbers_are_skipped() {
    let database = Database::new();
    with_ten(&database);
    apply(&mut database.open("sensor"), &[StoreOp::Reserve { queue: NODE, through: 70_000 }]);
    for number in 1..=2 {
        database.run("INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'm')");
        let queue = told(&mut database.open("sensor")).queues[0].1;
        assert_eq!((queue.last, queue.messages), (70_000 + number, 6 + number));
    }
    let (first, last, records) = load(&mut database.open("sensor"), NODE, 10);
    assert_eq!((first, last), (11, 70_002));
    let steps: Vec<_> = Walk::new(&records, first).map(|step| (step.first, step.last, step.gap)).collect();
    let crashed = Some(GapReason::Crashed);
    assert_eq!(steps, [(11, 70_000, crashed), (70_001, 70_001, None), (70_002, 70_002, None)]);
}

/// After a loss of commits the other side may have had the numbers behind the last one.
#[test]
fn nothing_is_queued_where_commits_may_be_missing_before_there_is_a_new_epoch() {
    let database = Database::new();
    with_ten(&database);
    apply(&mut database.open("sensor"), &[StoreOp::Inbox { epoch: Epoch(5) }]);
    database.run(
        "UPDATE liner_node SET system = 'another server';
         INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'late')",
    );
    let mut store = database.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().waiting), (0, 1));
    let told_before = told(&mut store);
    assert_eq!(told_before.node, Some((Epoch(5), true)));
    assert_eq!(told_before.queues[0].1.last, 10);
    let predecessor = Predecessor { epoch: EPOCH, old_first: 5, count: 6 };
    apply(&mut store, &[StoreOp::Rotate { queue: NODE, epoch: Epoch(8), predecessor }]);
    drop(store);
    let mut store = database.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().waiting), (1, 0));
    assert_eq!(load(&mut store, NODE, 6), (7, 7, run([inserted("readings", b"late")])));
}

#[test]
fn a_stream_made_by_hand_begins_with_what_was_inserted_for_it() {
    let database = Database::new();
    drop(database.open("sen:sor"));
    database.run(
        r"INSERT INTO conn_key_map(composite, connection_key) VALUES
            ('sen\:sor::gateway', 7), ('sen\:sor::\tnews', 8), ('sen\:sor::unused', 9), ('other::gateway', 10);
          INSERT INTO conn_messages(connection_key, topic, payload) VALUES
            (7, 'readings', 'one'), (8, 'news', 'two'), (7, 'alarms', 'three'), (10, 't', 'four')",
    );
    let mut store = database.open("sen:sor");
    assert_eq!((store.opened().inserted, store.opened().orphaned), (3, 0));
    let queues: Vec<_> =
        told(&mut store).queues.into_iter().map(|(name, queue)| (name, queue.last)).collect();
    assert_eq!(queues, [("gateway".to_owned(), 2), ("news".to_owned(), 1)]);
    let expected = run([inserted("readings", b"one"), inserted("alarms", b"three")]);
    assert_eq!(load(&mut store, NODE, 0), (1, 2, expected));
    let keys = "SELECT string_agg(connection_key || '=' || n, ' ' ORDER BY connection_key)
      FROM (SELECT connection_key, count(*) AS n FROM conn_messages GROUP BY 1) AS counts";
    assert_eq!(database.one(keys), "7=2 8=1 10=1");
    // It lives on as any other queue, and those without messages when their node opens them.
    apply(&mut store, &[StoreOp::Open { queue: Queue::Node("unused"), epoch: EPOCH }]);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 1 }]);
    append(NODE, 3, 4, &mut store);
    assert_eq!(database.one("SELECT connection_key FROM conn_key_map WHERE name = 'unused'"), "9");
    assert_eq!(database.open("other").opened().inserted, 1);
}

#[test]
fn rows_that_are_deleted_by_hand_are_a_gap() {
    let database = Database::new();
    with_ten(&database);
    database.run("DELETE FROM conn_messages WHERE number IN (5, 7, 8)");
    let mut store = database.open("sensor");
    assert_eq!(told(&mut store).queues[0].1.messages, 3);
    let (first, last, records) = load(&mut store, NODE, 4);
    let gaps = |first, records: &[u8]| -> Vec<_> {
        Walk::new(records, first).map(|step| (step.first, step.last, step.gap)).collect()
    };
    let cleared = Some(GapReason::Cleared);
    assert_eq!((first, last), (5, 10));
    assert_eq!(
        gaps(first, &records),
        [(5, 5, cleared), (6, 6, None), (7, 8, cleared), (9, 9, None), (10, 10, None)]
    );
    // While the node runs, and with nothing behind them.
    database.run("DELETE FROM conn_messages WHERE number > 8");
    let (first, last, records) = load(&mut store, NODE, 8);
    assert_eq!((first, last, gaps(first, &records)), (9, 10, vec![(9, 10, cleared)]));
    append(NODE, 11, 11, &mut store);
    let (first, last, records) = load(&mut store, NODE, 8);
    assert_eq!((first, last, gaps(first, &records)), (9, 11, vec![(9, 10, cleared), (11, 11, None)]));
}

#[test]
fn rows_of_the_directory_are_seen_kept_and_completed() {
    let database = Database::new();
    let mut store = database.open("sensor");
    assert!(store.directory().expect("it is read").is_some());
    assert_eq!(store.directory().expect("it is read"), None);
    database.run(
        "INSERT INTO topic_addr VALUES('readings', '127.0.0.1:7', 'gateway'), ('b', '127.0.0.1:8', 'x')",
    );
    assert!(store.directory().expect("it is read").is_some(), "a running node sees it");
    assert_eq!(store.directory().expect("it is read"), None);
    drop(store);
    let rows = told(&mut database.open("sensor")).rows;
    let row =
        |topic: &str, address: &str, name: &str| (topic.to_owned(), address.to_owned(), name.to_owned());
    assert_eq!(rows, [row("b", "127.0.0.1:8", "x"), row("readings", "127.0.0.1:7", "gateway")]);
    assert_eq!(database.one("SELECT string_agg(topic || k, ' ' ORDER BY k) FROM topic_key"), "b1 readings2");
    let listeners =
        "SELECT string_agg(concat_ws('/', sender_key, addr, listener_topic, client_name), ' ' ORDER BY addr)
      FROM sender_listener";
    assert_eq!(database.one(listeners), "sensor:/127.0.0.1:7/readings/gateway sensor:/127.0.0.1:8/b/x");
    // Keys of queues follow those of topics.
    apply(&mut database.open("sensor"), &[OPEN]);
    assert_eq!(database.one("SELECT connection_key FROM conn_key_map"), "3");
}
