//! What operators do to the keys with nothing but redis-cli: messages, queues, and what is deleted.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{DeadReason, Queue, Recovered, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_store::look::Look as _;
use liner_tests::servers::Reply;

mod common;
use common::*;

const ORPHANED: u8 = DeadReason::Orphaned as u8;

#[test]
fn elements_pushed_by_hand_are_queued_at_the_next_start_in_order_and_once() {
    let db = Db::new();
    with_ten(&db);
    let list = db.of("messages");
    db.run(&["RPUSH", &list, "21.5", "lnr:alarms:hot", "lnr:a\\:b:x:y", "ü"]);
    let waits = |db: &Db| db.look().pending(None).expect("it is counted")[0].messages;
    assert_eq!(waits(&db), 10);
    for _ in 0..2 {
        let mut store = db.open("sensor");
        let held = held(&mut store, NODE, 10);
        let of = |number, topic: &str, payload: &str| (number, topic.to_owned(), payload.as_bytes().to_vec());
        let expected = [
            of(11, "readings", "21.5"),
            of(12, "alarms", "hot"),
            of(13, "a:b", "x:y"),
            of(14, "readings", "ü"),
        ];
        assert_eq!(held, expected);
        assert_eq!(db.number(&["LLEN", &list]), 10);
        assert_eq!((waits(&db), db.number(&["EXISTS", &db.of("inserted")])), (10, 0));
    }
    // They are messages like any other.
    let mut store = db.open("sensor");
    append(&mut store, NODE, 15, 16);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 15 }]);
    assert_eq!(db.number(&["LLEN", &list]), 1);
    assert_eq!(db.letters(), []);
}

#[test]
fn a_running_node_leaves_them_for_its_next_start() {
    let db = Db::new();
    with_ten(&db);
    let mut store = db.open("sensor");
    let list = db.of("messages");
    db.run(&["RPUSH", &list, "later"]);
    append(&mut store, NODE, 11, 12);
    db.run(&["LPUSH", &list, "first"]);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 11 }]);
    assert_eq!(outline(&mut store, NODE, 11), ["12 1"]);
    assert_eq!(db.number(&["LLEN", &db.of("inserted")]), 2);
    drop(store);
    let mut store = db.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().waiting), (2, 0));
    let payloads: Vec<_> = held(&mut store, NODE, 12).into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(payloads, [b"first".to_vec(), b"later".to_vec()]);
}

#[test]
fn a_queue_that_is_closed_leaves_what_was_pushed_to_the_dead_letters() {
    let db = Db::new();
    with_ten(&db);
    let mut store = db.open("sensor");
    db.run(&["RPUSH", &db.of("messages"), "late"]);
    apply(&mut store, &[StoreOp::Close { queue: NODE }]);
    drop(store);
    let store = db.open("sensor");
    assert_eq!(store.opened().orphaned, 1);
    assert_eq!(db.letters(), [("gateway".to_owned(), "readings".to_owned(), ORPHANED, b"late".to_vec())]);
    assert_eq!(db.number(&["HLEN", "lnr_connections"]), 0);
}

#[test]
fn what_cannot_be_queued_is_a_dead_letter() {
    let db = Db::new();
    let mut store = db.open("sensor");
    apply(&mut store, &[OPEN]);
    drop(store);
    // The queue has had no topic.
    db.run(&["RPUSH", &db.of("messages"), "x", "lnr:t\\", &format!("lnr:{}:x", "t".repeat(256)), "lnr:t:y"]);
    let mut store = db.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().orphaned), (1, 3));
    assert_eq!(outline(&mut store, NODE, 0), ["1 t"]);
    let payloads: Vec<_> =
        db.letters().into_iter().map(|(_, _, reason, payload)| (reason, payload)).collect();
    assert_eq!(
        payloads,
        [b"x".to_vec(), b"lnr:t\\".to_vec(), b"x".to_vec()].map(|payload| (ORPHANED, payload))
    );
}

#[test]
fn a_queue_named_by_hand_is_adopted_with_what_its_list_holds() {
    let db = Db::new();
    db.run(&["SET", "lnr_connection:sensor::gateway:key", "40"]);
    db.run(&["RPUSH", "lnr_connection:40:messages", "lnr:t:1", "lnr:t:2"]);
    let pending = db.look().pending(Some("sensor")).expect("it is counted");
    assert_eq!(pending.iter().map(|queue| queue.messages).collect::<Vec<_>>(), [2]);
    // Another node must not be given the number meanwhile.
    let mut other = db.open("other");
    apply(&mut other, &[OPEN]);
    assert!(db.number(&["GET", "lnr_connection:other::gateway:key"]) > 40);
    let mut store = db.open("sensor");
    let mut told = Vec::new();
    let recovered = store.recover(&mut |fact| {
        if let Recovered::Queue(queue) = fact {
            told.push((queue.queue.name().to_owned(), queue.messages, queue.last));
        }
    });
    assert_eq!((recovered, told), (Ok(()), vec![("gateway".to_owned(), 2, 2)]));
    assert_eq!(outline(&mut store, NODE, 0), ["1 t", "2 t"]);
    assert_eq!(db.number(&["LLEN", "lnr_connection:40:messages"]), 2);
}

#[test]
fn elements_deleted_by_hand_are_told_as_gaps() {
    let db = Db::new();
    with_ten(&db);
    let list = db.of("messages");
    db.eval(&format!(
        "redis.call('LSET', '{list}', 2, 'gone') redis.call('LREM', '{list}', 0, 'gone')
         redis.call('LTRIM', '{list}', 0, -2)"
    ));
    let mut store = db.open("sensor");
    assert_eq!(outline(&mut store, NODE, 4), ["5 1", "6 1", "7 Cleared 1", "8 1", "9 1", "10 Cleared 1"]);
    db.run(&["DEL", &list]);
    assert_eq!(outline(&mut store, NODE, 4), ["5 Cleared 6"]);
    append(&mut store, NODE, 11, 11);
    assert_eq!(outline(&mut store, NODE, 4), ["5 Cleared 6", "11 1"]);
}

/// The six messages that are not acknowledged are dead letters, each once, and the node can begin again.
fn are_buried(db: &Db, what: &str) {
    let mut store = db.open("sensor");
    assert_eq!(store.opened().orphaned, 6, "{what}");
    drop(db.open("sensor"));
    let letters = db.letters();
    assert_eq!(letters.len(), 6, "{what}");
    for (number, (peer, topic, reason, payload)) in (5_u64..).zip(letters) {
        assert_eq!((&*peer, &*topic, reason), ("gateway", "readings", ORPHANED), "{what}");
        assert!(payload.starts_with(&number.to_le_bytes()), "{what}: {payload:?}");
    }
    store = db.open("sensor");
    apply(&mut store, &[StoreOp::Open { queue: NODE, epoch: Epoch(90) }]);
    append(&mut store, NODE, 1, 3);
    assert_eq!(outline(&mut store, NODE, 0), ["1 1", "2 1", "3 1"], "{what}");
    assert_eq!(db.number(&["LLEN", &db.of("messages")]), 3, "{what}");
}

#[test]
fn a_list_without_its_row_goes_to_the_dead_letters() {
    let row = "lnr_node:sensor:queues";
    let own = "lnr_connection:sensor::gateway:key";
    let connections = "lnr_connections";
    for keys in [&[row][..], &[own], &[row, own], &[row, connections], &[row, own, connections]] {
        let db = Db::new();
        with_ten(&db);
        keys.iter().for_each(|key| drop(db.run(&["DEL", key])));
        are_buried(&db, &keys.join(" "));
    }
    let db = Db::new();
    with_ten(&db);
    db.run(&["HSET", row, "sensor::gateway", "damaged"]);
    are_buried(&db, "a row that is none");
}

#[test]
fn elements_of_another_life_of_the_queue_go_to_the_dead_letters() {
    let db = Db::new();
    with_ten(&db);
    let old = db.key();
    db.run(&["DEL", "lnr_node:sensor:queues"]);
    db.run(&["COPY", &db.of("messages"), "kept"]);
    let mut store = db.open("sensor");
    assert_eq!((store.opened().orphaned, db.key()), (6, old));
    append(&mut store, NODE, 1, 2);
    drop(store);
    // An operator puts back what was there, behind what the queue holds now, and damages one of them.
    db.eval(&format!(
        "local function put(e) redis.call('RPUSH', 'lnr_connection:{old}:messages', e) end
         local kept = redis.call('LRANGE', 'kept', 0, -1)
         put('by hand') for i = 1, 5 do put(kept[i]) end
         put(string.sub(kept[6], 1, -2) .. '!')"
    ));
    let mut store = db.open("sensor");
    assert_eq!((store.opened().orphaned, store.opened().inserted), (5, 1));
    assert_eq!(outline(&mut store, NODE, 0), ["1 1", "2 1", "3 readings"]);
    assert_eq!((db.letters().len(), db.number(&["LLEN", "lnr_quarantine"])), (11, 1));
}

#[test]
fn a_long_list_is_set_right_a_page_at_a_time() {
    let db = Db::new();
    with_ten(&db);
    // More than the pages of a list, and some elements as long as a page.
    db.eval(&format!(
        "for i = 1, 30000 do
           redis.call('RPUSH', '{0}', i % 10000 == 0 and i .. string.rep('x', 900000) or tostring(i))
         end",
        db.of("messages")
    ));
    let mut store = db.open("sensor");
    assert_eq!(store.opened().inserted, 30_000);
    let held = held(&mut store, NODE, 10);
    assert_eq!(held.len(), 30_000);
    for (number, (at, topic, payload)) in (1_u64..).zip(&held) {
        let digits: String =
            payload.iter().take_while(|byte| byte.is_ascii_digit()).map(|&b| char::from(b)).collect();
        assert_eq!((*at, &**topic, &*digits), (number + 10, "readings", &*number.to_string()));
    }
    let kept = Queue::Topic("news");
    apply(&mut store, &[StoreOp::Open { queue: kept, epoch: Epoch(3) }]);
    drop(store);
    db.run(&["DEL", "lnr_node:sensor:queues", "lnr_connections"]);
    assert_eq!(db.open("sensor").opened().orphaned, 30_006);
}

/// liner_broker escapes `:` otherwise than composites do.
#[test]
fn rows_of_a_topic_with_a_colon_are_where_an_older_program_has_them() {
    let db = Db::new();
    let rows = |db: &Db| -> Vec<(String, String)> {
        let rows = db.look().subscriptions().expect("they are read");
        let mut rows: Vec<_> =
            rows.into_iter().map(|row| (format!("{}@{}", row.topic, row.address), row.name)).collect();
        rows.sort_unstable();
        rows
    };
    let row = |row: &str, name: &str| (row.to_owned(), name.to_owned());
    // By that program, and by hand.
    db.run(&["HSET", "lnr_topic:a\\cb\\\\:addr", "h:1", "gateway"]);
    db.run(&["HSET", "lnr_topic:a\\:b\\\\:addr", "h:2", "printer"]);
    assert_eq!(rows(&db), [row("a:b\\@h:1", "gateway"), row("a:b\\@h:2", "printer")]);
    let mut store = db.open("sensor");
    let topic = "a:b\\";
    for (address, name) in [("h:1", "sensor"), ("h:2", "reader"), ("h:3", "sensor")] {
        apply(&mut store, &[StoreOp::Subscribe { topic, address, name }]);
    }
    let all = [row("a:b\\@h:1", "sensor"), row("a:b\\@h:2", "reader"), row("a:b\\@h:3", "sensor")];
    assert_eq!(rows(&db), all, "one row for a place");
    assert_eq!(db.number(&["HLEN", "lnr_topic:a\\cb\\\\:addr"]), 3);
    assert!(db.number(&["GET", "lnr_topic:a\\cb\\\\:key"]) > 0);
    // Whose node listens where, as that program reads it.
    let told = |db: &Db| db.run(&["HGETALL", "lnr_sender:sensor::listener"]);
    assert_eq!(
        told(&db),
        Reply::List([&b"h:2"[..], b"a:b\\\x1freader"].map(|bytes| Reply::Bytes(bytes.to_vec())).to_vec())
    );
    db.run(&["HSET", "lnr_topic:a\\:b\\\\:addr", "h:4", "printer"]);
    for (address, name) in [("h:1", "sensor"), ("h:2", "reader"), ("h:3", "sensor"), ("h:4", "printer")] {
        apply(&mut store, &[StoreOp::Unsubscribe { topic, address, name }]);
    }
    assert_eq!((rows(&db), told(&db)), (Vec::new(), Reply::List(Vec::new())));
}
