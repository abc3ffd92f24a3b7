//! Rows that somebody has changed: what comes out of the store is what went in, or is told as damaged.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{Delivery, GapReason, Loaded, Queue, StoreOp};
use liner_proto::store::Store as _;
use liner_proto::store::run::{Step, Walk};
use liner_proto::wire::record::Mode;

mod common;
use common::*;

/// Loads everything above `after`, and holds it against what [`numbered`] makes of its numbers. Gives what was damaged.
fn drain(store: &mut liner_store_postgres::PostgresStore, mut after: u64, last: u64) -> Vec<(u64, u64)> {
    let mut damaged = Vec::new();
    let mut into = vec![0; 1 << 16];
    while after < last {
        match store.load(NODE, after, &mut into).expect("it can be read") {
            Loaded::Records { first, last, len } => {
                assert_eq!(first, after + 1, "nothing is left out");
                assert_eq!(into.get(..len), Some(&*numbered(first, last)), "{first}..={last}");
                after = last;
            }
            Loaded::Corrupt { first, last } => {
                assert_eq!(first, after + 1);
                assert!(last >= first);
                damaged.push((first, last));
                after = last;
            }
            other @ (Loaded::Nothing | Loaded::TooSmall { .. }) => panic!("after {after}: {other:?}"),
        }
    }
    damaged
}

#[test]
fn a_message_that_fails_its_check_is_told_as_often_as_it_is_asked_for() {
    let database = Database::new();
    let mut store = database.open("sensor");
    apply(&mut store, &[OPEN]);
    append(NODE, 1, 30, &mut store);
    database.run("UPDATE conn_messages SET payload = payload || '\\xff' WHERE number = 15");
    let spoilt = database.one("SELECT head || payload FROM conn_messages WHERE number = 15");
    for _ in 0..3 {
        assert_eq!(drain(&mut store, 3, 30), [(15, 15)]);
        drop(store);
        store = database.open("sensor");
        assert_eq!(store.opened().damaged, 0);
    }
    let aside = "SELECT concat_ws('/', first, last, bytes) FROM quarantine";
    assert_eq!(database.one(aside), format!("15/15/{spoilt}"));
    assert_eq!(database.one("SELECT head || payload FROM conn_messages WHERE number = 15"), "\\x");
    assert_eq!(store.queued(NODE).expect("it is counted").0, 29);
    // The node tells the other side of a gap, and the store forgets what was damaged with the rest.
    apply(&mut store, &[StoreOp::Drop { queue: NODE, through: 15, reason: GapReason::Corrupt }]);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 30 }]);
    assert_eq!(database.one("SELECT count(*) FROM conn_messages"), "0");
}

#[test]
fn a_message_under_another_name_or_number_fails_its_check() {
    let database = Database::new();
    for (change, expected) in [
        ("covers = 2 WHERE number = 5", (5, 5)),
        ("covers = 9223372036854775807 WHERE number = 5", (5, 5)),
        ("number = 15 WHERE number = 10", (10, 10)),
        ("head = '' WHERE number = 5", (5, 5)),
        ("head = NULL WHERE number = 5", (5, 5)),
        ("crc = NULL WHERE number = 5", (5, 5)),
        ("crc = crc + 4294967296 WHERE number = 5", (5, 5)),
        ("payload = (SELECT payload FROM conn_messages WHERE number = 6 LIMIT 1) WHERE number = 5", (5, 5)),
        ("connection_key = 1 WHERE connection_key = 2 AND number = 5", (5, 5)),
    ] {
        database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let mut store = database.open("sensor");
        let other = Queue::Node("other");
        apply(&mut store, &[OPEN, StoreOp::Open { queue: other, epoch: EPOCH }]);
        append(NODE, 1, 10, &mut store);
        append(other, 1, 10, &mut store);
        if change.starts_with("connection_key") {
            database.run("DELETE FROM conn_messages WHERE connection_key = 1 AND number = 5");
        } else {
            database.run("DELETE FROM conn_messages WHERE connection_key = 2");
        }
        database.run(&format!("UPDATE conn_messages SET {change}"));
        let (mut after, mut damaged, mut into) = (0, Vec::new(), vec![0; 4096]);
        while after < 10 {
            after = match store.load(NODE, after, &mut into).expect("it can be read") {
                Loaded::Records { first, last, len } if into.get(..len) == Some(&*numbered(first, last)) => {
                    last
                }
                Loaded::Records { first, last, .. } => {
                    damaged.push((first, last));
                    last
                }
                Loaded::Corrupt { first, last } => {
                    assert!(first > after && last >= first && last <= 10, "{change}: {first}..={last}");
                    damaged.push((first, last));
                    last
                }
                other @ (Loaded::Nothing | Loaded::TooSmall { .. }) => panic!("{change}: {other:?}"),
            };
        }
        assert!(damaged.contains(&expected), "{change}: {damaged:?}");
    }
}

/// A row that was put back although it was there, and one whose number is damaged: neither hides another message, be it in the same page
/// or because there is room for one of them only.
#[test]
fn of_rows_with_the_same_number_each_is_read_or_passed_over() {
    let again = "INSERT INTO conn_messages(connection_key, payload, epoch, number, covers, crc, head, composite)
      SELECT connection_key, payload, epoch, number, covers, crc, head, composite FROM conn_messages WHERE number = 5";
    let spoil = "UPDATE conn_messages SET payload = '', head = '', covers = 1 WHERE number = 5";
    let moved = "UPDATE conn_messages SET number = 5 WHERE number = 4";
    let without = "UPDATE conn_messages SET number = 5 WHERE number = 6; ALTER TABLE conn_messages ALTER payload DROP NOT NULL;
      UPDATE conn_messages SET payload = NULL WHERE number = 8";
    let aside = "CREATE TABLE backup AS SELECT * FROM conn_messages WHERE number = 5; SPOIL;
      INSERT INTO conn_messages SELECT (jsonb_populate_record(b, jsonb_build_object('id', 99))).* FROM backup b";
    let aside = aside.replace("SPOIL", spoil);
    for (change, gone) in [(again, &[][..]), (&aside, &[]), (moved, &[4]), (without, &[6, 8])] {
        let database = Database::new();
        let mut store = database.open("sensor");
        apply(&mut store, &[OPEN]);
        append(NODE, 1, 10, &mut store);
        database.run(change);
        for room in [60, 1 << 16] {
            let (mut after, mut into, mut held) = (0, vec![0; room], Vec::new());
            while after < 10 {
                after = match store.load(NODE, after, &mut into).expect("it can be read") {
                    Loaded::Records { first, last, len } => {
                        let walk = Walk::new(into.get(..len).expect("it is there"), first);
                        held.extend(walk.filter(Step::is_message).map(|step| step.first));
                        last
                    }
                    Loaded::Corrupt { last, .. } => last,
                    other @ (Loaded::Nothing | Loaded::TooSmall { .. }) => panic!("{change}: {other:?}"),
                };
            }
            let expected: Vec<_> = (1..=10).filter(|number| !gone.contains(number)).collect();
            assert_eq!(held, expected, "{change}, in pages of {room} bytes");
        }
    }
}

#[test]
fn rows_that_fail_their_check_are_as_if_they_were_gone() {
    let database = Database::new();
    for (change, orphaned) in [
        ("conn_key_map SET last = 11", 10),
        ("conn_key_map SET epoch = 3", 10),
        ("conn_key_map SET name = 'other'", 10),
        ("conn_key_map SET kind = 1", 10),
        ("conn_key_map SET kind = 77", 10),
        ("conn_key_map SET trimmed = -1", 10),
        ("conn_key_map SET stored_epoch = 3", 10),
        ("conn_key_map SET crc = 0", 10),
        ("stream_topic SET topic = 'alarms'", 10),
        ("stream_topic SET number = 2", 10),
        ("stream_topic SET number = -1", 10),
        ("inbound_cursor SET through = 4", 0),
        ("inbound_cursor SET through = -4", 0),
        ("inbound_cursor SET epoch = 4", 0),
        ("inbound_cursor SET peer = 'other'", 0),
    ] {
        database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let mut store = database.open("sensor");
        apply(&mut store, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
        append(NODE, 1, 10, &mut store);
        apply(&mut store, &[StoreOp::Cursor { peer: "peer", epoch: EPOCH, through: 5 }]);
        drop(store);
        database.run(&format!("UPDATE {change}"));
        for again in [false, true] {
            let mut store = database.open("sensor");
            let expected = if again { (0, 0) } else { (1, orphaned) };
            assert_eq!((store.opened().damaged, store.opened().orphaned), expected, "{change}");
            let told = told(&mut store);
            let left = if orphaned > 0 { (0, 1) } else { (1, 0) };
            assert_eq!((told.queues.len(), told.cursors.len()), left, "{change}");
        }
        assert_eq!(database.one("SELECT count(*) FROM dead_letters"), orphaned.to_string(), "{change}");
        let topic = database.one("SELECT max(topic) FROM dead_letters");
        let known = !change.starts_with("stream_topic SET number");
        if orphaned > 0 && known {
            assert_eq!(
                topic,
                if change.starts_with("stream_topic") { "alarms" } else { "readings" },
                "{change}"
            );
        }
        // It goes on.
        let mut store = database.open("sensor");
        apply(&mut store, &[OPEN, StoreOp::Cursor { peer: "peer", epoch: EPOCH, through: 1 }]);
    }
}

#[test]
fn messages_whose_queue_is_gone_or_has_another_life_become_dead_letters() {
    let database = Database::new();
    with_ten(&database);
    let mut other = database.open("sensor2");
    apply(&mut other, &[OPEN]);
    append(NODE, 1, 3, &mut other);
    drop(other);
    database.run(
        "UPDATE conn_messages SET payload = 'spoilt' WHERE connection_key = 1 AND number = 7;
         DELETE FROM conn_key_map WHERE connection_key = 1",
    );
    let store = database.open("sensor");
    assert_eq!((store.opened().damaged, store.opened().orphaned), (0, 5));
    assert_eq!(
        database.one("SELECT string_agg(DISTINCT peer || topic, ' ') FROM dead_letters"),
        "gatewayreadings"
    );
    assert_eq!(database.one("SELECT count(*) FROM quarantine WHERE first = 7"), "1");
    assert_eq!(database.one("SELECT count(*) FROM conn_messages"), "3", "those of the other node");
    drop(store);
    // The same key, made by hand, is a queue of its own.
    database.run(
        "UPDATE conn_key_map SET composite = 'sensor2::x' WHERE connection_key = 2;
         INSERT INTO conn_key_map(composite, connection_key) VALUES('sensor2::gateway', 3);
         UPDATE conn_messages SET connection_key = 3 WHERE connection_key = 2",
    );
    let store = database.open("sensor2");
    assert_eq!((store.opened().damaged, store.opened().orphaned), (1, 3));
}

#[test]
fn a_damaged_message_for_the_inbox_is_counted_and_kept() {
    let database = Database::new();
    let mut store = database.open("sensor");
    let delivery = Delivery {
        from: "a",
        epoch: EPOCH,
        number: 1,
        topic: "t",
        mode: Mode::One,
        maybe_redelivered: false,
        payload: b"x",
    };
    apply(&mut store, &[StoreOp::Deliver(delivery)]);
    database.run("UPDATE inbox SET topic = 'u'");
    assert_eq!(store.inbox().expect("it works").expect("it has one").messages, 1);
}

#[test]
fn an_orphan_whose_numbers_cannot_be_is_put_aside() {
    let database = Database::new();
    for change in [
        "number = -9223372036854775808",
        "number = -9223372036854775808, covers = 9223372036854775807",
        "number = 9223372036854775807, covers = -9223372036854775808",
    ] {
        with_ten(&database);
        database
            .run(&format!("UPDATE conn_messages SET {change} WHERE number = 7; DELETE FROM conn_key_map"));
        let store = database.open("sensor");
        assert_eq!(store.opened().orphaned, 5, "{change}");
        drop(store);
        database.run("TRUNCATE quarantine, dead_letters, conn_messages, conn_key_map, stream_topic");
    }
}
