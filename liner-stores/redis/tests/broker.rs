//! A Redis that liner_broker has filled: each node takes over what it has sent.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{DeadReason, Loaded, Queue, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::Store as _;
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Mode, Record, Topic, decode};
use liner_tests::servers::Reply;

mod common;
use common::*;

/// A message as that program stores it.
fn push(db: &Db, key: i32, topic: i32, flags: u8, payload: &str) {
    db.eval(&format!(
        "local n = #{payload}
         return redis.call('RPUSH', 'lnr_connection:{key}:messages',
           struct.pack('>I4I8i4i4I1I4', 21 + n, 18, {key}, {topic}, {flags}, n) .. {payload})"
    ));
}

/// What its nodes have left there. `sensor` sends to `gateway` by two topics of its own.
fn filled() -> Db {
    let db = Db::new();
    for [key, value] in [
        ["lnr_unique_key", "9"],
        ["lnr_topic:readings:key", "1"],
        ["lnr_topic:alarms:key", "2"],
        ["lnr_topic:news:key", "7"],
        ["lnr_topic:__#internal_channel:key", "8"],
        ["lnr_connection:sensor:alarms:gateway:key", "3"],
        ["lnr_connection:other:x:gateway:key", "4"],
        ["lnr_connection:sensor:second:gateway:key", "5"],
        ["lnr_connection:sensor:alarms:idle:key", "6"],
        ["lnr_connection:3:sender", "alarms"],
        ["lnr_connection:4:sender", "x"],
        ["lnr_connection:5:sender", "second"],
        ["lnr_connection:3:mess_number", "17"],
        ["lnr_connection:5:mess_number", "4"],
    ] {
        db.run(&["SET", key, value]);
    }
    db.run(&["HSET", "lnr_topic:readings:addr", "127.0.0.1:7", "gateway"]);
    db
}

/// What a queue holds above a number: topics and payloads of messages, each of which was taken over.
fn taken(db: &Db, owner: &str, queue: Queue<'_>, after: u64) -> Vec<(String, String)> {
    let mut into = vec![0; 1 << 16];
    let loaded = db.open(owner).load(queue, after, &mut into).expect("it can be read");
    let Loaded::Records { first, len, .. } = loaded else { panic!("{loaded:?}") };
    assert_eq!(first, after + 1);
    let run = into.get(..len).expect("so many bytes");
    let message = |record: &[u8]| {
        let Ok(Record::Message { header, payload }) = decode(record) else { panic!("{record:?}") };
        assert!(header.repeat, "it may have been delivered");
        assert_eq!(header.mode, Mode::One);
        let Topic::Text(topic) = header.topic else { panic!("{header:?}") };
        (topic.to_owned(), String::from_utf8_lossy(payload).into_owned())
    };
    Walk::new(run, first).map(|step| message(run.get(step.body..step.end).expect("a record"))).collect()
}

fn of(topic: &str, payload: &str) -> (String, String) {
    (topic.to_owned(), payload.to_owned())
}

fn counts(db: &Db, name: &str) -> (u64, u64, u64) {
    let store = db.open(name);
    let opened = store.opened();
    (opened.inserted, opened.orphaned, opened.waiting)
}

#[test]
fn each_node_takes_over_what_it_has_sent() {
    let db = filled();
    for (key, topic, payload) in
        [(3, 1, "'one'"), (4, 1, "'theirs'"), (3, 7, "'two'"), (5, 1, "'four'"), (3, 1, "'three'")]
    {
        push(&db, key, topic, 2, payload);
    }
    let list = |key| db.number(&["LLEN", &format!("lnr_connection:{key}:messages")]);
    assert_eq!(counts(&db, "somebody"), (0, 0, 0));
    assert_eq!((list(3), list(4), list(5)), (3, 1, 1));
    assert_eq!(counts(&db, "sensor"), (4, 0, 0));
    assert_eq!(counts(&db, "sensor"), (0, 0, 0), "once");
    assert_eq!((list(3), list(4), list(5)), (4, 1, 0), "under the key that it had");
    let mut held = taken(&db, "sensor", NODE, 0);
    held.sort_unstable();
    let all = [of("news", "two"), of("readings", "four"), of("readings", "one"), of("readings", "three")];
    assert_eq!(held, all);
    assert_eq!(counts(&db, "other"), (1, 0, 0));
    assert_eq!(taken(&db, "other", NODE, 0), [of("readings", "theirs")]);
    for (key, number) in [("sensor::gateway", 3), ("sensor:second:gateway", 3), ("sensor::idle", 6)] {
        assert_eq!(db.number(&["GET", &format!("lnr_connection:{key}:key")]), number, "{key}");
    }
    assert_eq!(db.run(&["GET", "lnr_connection:3:sender"]), Reply::Bytes(b"alarms".to_vec()));
    assert_eq!(db.number(&["GET", "lnr_connection:3:mess_number"]), 0, "it has counted other messages");
    assert_eq!(db.number(&["EXISTS", "lnr_connection:5:mess_number", "lnr_connection:5:sender"]), 0);
    // The queue is one like any other, and the old program may be started once more.
    let mut store = db.open("sensor");
    append(&mut store, NODE, 5, 6);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 6 }]);
    drop(store);
    db.run(&["SET", "lnr_connection:sensor:third:gateway:key", "100"]);
    push(&db, 100, 1, 2, "'later'");
    assert_eq!(counts(&db, "sensor"), (1, 0, 0));
    assert_eq!(taken(&db, "sensor", NODE, 6), [of("readings", "later")]);
}

#[test]
fn what_cannot_be_sent_becomes_a_dead_letter() {
    let db = filled();
    for (key, topic, flags, payload) in [
        (3, 1, 3, "'compressed'"),
        (3, 99, 2, "'no such topic'"),
        (3, 8, 2, "'{\"event\":\"subscribed\"}'"),
        (3, 1, 2, "'sent'"),
        (5, 1, 3, "'compressed'"),
    ] {
        push(&db, key, topic, flags, payload);
    }
    db.run(&["SET", "lnr_topic:one:key", "50"]);
    db.run(&["SET", "lnr_topic:another:key", "50"]);
    push(&db, 3, 50, 2, "'of one of two topics'");
    push(&db, 4, 1, 2, "'of another stream'");
    db.run(&["RPOPLPUSH", "lnr_connection:4:messages", "lnr_connection:5:messages"]);
    db.run(&["RPUSH", "lnr_connection:3:messages", "raw"]);
    push(&db, 3, 1, 2, "string.rep('x', 1048577)");
    assert_eq!(counts(&db, "sensor"), (1, 7, 0));
    assert_eq!(taken(&db, "sensor", NODE, 0), [of("readings", "sent")]);
    let mut letters: Vec<_> = db
        .letters()
        .into_iter()
        .map(|(peer, topic, reason, mut payload)| {
            payload.truncate(20);
            format!("{peer}/{topic}/{reason}/{}", payload.escape_ascii())
        })
        .collect();
    letters.sort_unstable();
    let (orphaned, large) = (DeadReason::Orphaned as u8, DeadReason::TooLarge as u8);
    let other =
        "\\x00\\x00\\x00&\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x12\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x01";
    let expected = [
        format!("gateway//{orphaned}/{other}"),
        format!("gateway//{orphaned}/compressed"),
        format!("gateway//{orphaned}/compressed"),
        format!("gateway//{orphaned}/no such topic"),
        format!("gateway//{orphaned}/of one of two topics"),
        format!("gateway//{orphaned}/raw"),
        format!("gateway/readings/{large}/xxxxxxxxxxxxxxxxxxxx"),
    ];
    assert_eq!(letters, expected);
}

/// 1.4 writes `\c` for a `:`, and 1.3 the `:` itself: there the sender's own topic says whose a stream is.
#[test]
fn names_with_colons_find_their_nodes() {
    let db = Db::new();
    for [key, value] in [
        ["lnr_topic:a:t:key", "1"],
        ["lnr_topic:a\\ct:key", "2"],
        ["lnr_connection:s:a:b:l:key", "11"],
        ["lnr_connection:11:sender", "a:b"],
        ["lnr_connection:s:b:own:l:key", "12"],
        ["lnr_connection:12:sender", "own"],
        ["lnr_connection:s\\cb:a\\cb:m:key", "13"],
        ["lnr_connection:s:b:c:d:e:key", "14"],
    ] {
        db.run(&["SET", key, value]);
    }
    for (key, topic) in [(11, 1), (12, 2), (13, 1), (14, 1)] {
        push(&db, key, topic, 2, "'m'");
    }
    assert_eq!(counts(&db, "s"), (1, 0, 0));
    assert_eq!(taken(&db, "s", Queue::Node("l"), 0), [of("a:t", "m")]);
    assert_eq!(counts(&db, "s:b"), (2, 0, 0));
    for name in ["l", "m"] {
        assert_eq!(taken(&db, "s:b", Queue::Node(name), 0), [of("a:t", "m")], "{name}");
    }
    assert_eq!(db.number(&["LLEN", "lnr_connection:14:messages"]), 1, "whose it is cannot be told");
}

/// After a loss of commits the other side may have had the numbers behind the last one.
#[test]
fn a_queue_in_doubt_is_given_nothing_before_it_has_a_new_epoch() {
    let db = Db::new();
    with_ten(&db);
    db.run(&["HSET", "lnr_node:sensor", "run_id", "another"]);
    for [key, value] in [["lnr_connection:sensor:own:gateway:key", "60"], ["lnr_topic:t:key", "50"]] {
        db.run(&["SET", key, value]);
    }
    push(&db, 60, 50, 2, "'one'");
    let mut store = db.open("sensor");
    assert_eq!(store.opened().inserted, 0);
    let predecessor = Predecessor { epoch: Epoch(7), old_first: 5, count: 6 };
    apply(&mut store, &[StoreOp::Rotate { queue: NODE, epoch: Epoch(8), predecessor }]);
    drop(store);
    assert_eq!(counts(&db, "sensor"), (1, 0, 0));
    assert_eq!(taken(&db, "sensor", NODE, 6), [of("t", "one")]);
}
