//! A turn takes place as a whole or not at all, whatever somebody has done to the keys that it meets.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{DeadReason, Delivery, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use liner_store::byhand;
use liner_store::look::Look as _;
use liner_store_redis::{ACL, Options, RedisStore};
use liner_tests::conformance::records::numbered;
use liner_tests::servers::{Redis, RedisOptions};

mod common;
use common::*;

const INBOX: &str = "lnr_node:sensor:inbox";
const DEAD: &str = "lnr_node:sensor:dead";

/// A turn that does a little of everything, with the message 11.
fn everything(store: &mut RedisStore) -> Result<(), StoreFault> {
    let (record, records) = (message("t", b"dead"), numbered(11, 11));
    let delivery = Delivery {
        from: "p",
        epoch: Epoch(3),
        number: 1,
        topic: "t",
        mode: Mode::One,
        maybe_redelivered: false,
        payload: b"x",
    };
    store.apply(&[
        StoreOp::Deliver(delivery),
        StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::Quota, record: &record },
        StoreOp::Cursor { peer: "p", epoch: Epoch(3), through: 1 },
        StoreOp::Append { queue: NODE, first: 11, last: 11, records: &records },
        StoreOp::Trim { queue: NODE, through: 5 },
        StoreOp::Subscribe { topic: "new", address: "h:1", name: "sensor" },
    ])?;
    store.commit()
}

#[test]
fn a_key_that_somebody_has_spoiled_stops_a_turn_before_it_has_written() {
    let spoils: [(&str, &str); 12] = [
        ("the counter is no number", "redis.call('SET', 'lnr_unique_key', 'abc')"),
        ("the counter is full", "redis.call('SET', 'lnr_unique_key', '9223372036854775807')"),
        ("the topics are no set", "redis.call('DEL', 'lnr_topics') redis.call('SET', 'lnr_topics', 'x')"),
        ("the version is no number", "redis.call('HSET', 'lnr_directory', 'version', 'abc')"),
        (
            "the directory is no hash",
            "redis.call('DEL', 'lnr_directory') redis.call('SET', 'lnr_directory', 'x')",
        ),
        ("a row is no hash", "redis.call('SET', 'lnr_topic:new:addr', 'x')"),
        ("a dead letter has an id of its own", "redis.call('XADD', 'lnr_node:sensor:dead', '5-1', 'a', 'b')"),
        (
            "there is no id left",
            "redis.call('XADD', 'lnr_node:sensor:dead', '0-18446744073709551615', 'a', 'b')",
        ),
        ("a delivery has an id of its own", "redis.call('XADD', 'lnr_node:sensor:inbox', '5-1', 'a', 'b')"),
        ("the inbox's bytes are no number", "redis.call('HSET', 'lnr_node:sensor', 'inbox_bytes', 'abc')"),
        (
            "the cursors are no hash",
            "redis.call('DEL', 'lnr_node:sensor:cursors') redis.call('SET', 'lnr_node:sensor:cursors', 'x')",
        ),
        ("the last number is no text", "redis.call('DEL', KEY) redis.call('RPUSH', KEY, 'x')"),
    ];
    for (what, spoil) in spoils {
        let db = Db::new();
        with_ten(&db);
        let mut store = db.open("sensor");
        let list = db.of("messages");
        let spoil = spoil.replace("KEY", &format!("'{}'", db.of("mess_number")));
        db.eval(&format!("{spoil} return 1"));
        let count = |db: &Db| {
            let of = |words: &[&str]| db.number(words);
            (of(&["XLEN", INBOX]), of(&["XLEN", DEAD]), of(&["LLEN", &list]))
        };
        let before = count(&db);
        match everything(&mut store) {
            // It does not matter to the turn.
            Ok(()) => assert_eq!(count(&db), (before.0 + 1, before.1 + 1, before.2), "{what}"),
            Err(fault) => {
                let words = store.last_error().unwrap_or_default();
                assert_eq!(count(&db), before, "{what}: {fault} {words}");
                assert!(
                    matches!(fault, StoreFault::Corrupt | StoreFault::Unavailable),
                    "{what}: {fault} {words}"
                );
            }
        }
    }
}

#[test]
fn a_permission_that_is_taken_away_stops_a_turn_before_it_has_written() {
    for taken in
        ["-hset", "-xadd", "-rpush", "-ltrim", "-sadd", "-hincrby", "-publish", "-set", "resetchannels"]
    {
        let server = Redis::start(&RedisOptions { appendfsync: None, ..RedisOptions::default() })
            .expect("the server starts");
        let names: Vec<&str> =
            ["ACL", "SETUSER", "node", "on", ">secret"].into_iter().chain(ACL.split_whitespace()).collect();
        server.command(&names).expect("the user is made");
        let url = format!("redis://node:secret@{}", server.address());
        let mut store =
            RedisStore::open(&url, &Options { name: "sensor".to_owned() }).expect("the store opens");
        apply(&mut store, &[OPEN]);
        append(&mut store, NODE, 1, 10);
        server.command(&["ACL", "SETUSER", "node", taken]).expect("it is taken away");
        assert_eq!(everything(&mut store), Err(StoreFault::Refused), "{taken}: {:?}", store.last_error());
        let script = "return {redis.call('XLEN', 'lnr_node:sensor:inbox'), redis.call('XLEN', 'lnr_node:sensor:dead'),
            redis.call('LLEN', 'lnr_connection:' .. redis.call('GET', 'lnr_connection:sensor::gateway:key') .. ':messages')}";
        let held = server.command(&["EVAL", script, "0"]).expect("it is counted");
        assert_eq!(format!("{held:?}"), "List([Number(0), Number(0), Number(10)])", "{taken}");
        server
            .command(&["ACL", "SETUSER", "node", &taken.replace('-', "+"), "&lnr_directory"])
            .expect("it is given back");
        assert_eq!(everything(&mut store), Ok(()), "{taken}: {:?}", store.last_error());
    }
}

#[test]
fn numbers_beyond_all_measure_do_not_stop_a_node() {
    for number in [
        "100000000000000",
        "123456789012345678",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999",
    ] {
        let db = Db::new();
        db.run(&["RPUSH", &format!("lnr_connection:{number}:messages"), "x"]);
        db.run(&["SET", "lnr_connection:other::gateway:key", number]);
        let mut store = db.open("sensor");
        store.apply(&[OPEN]).expect("it is right");
        assert_eq!(store.commit(), Ok(()), "{number}: {:?}", store.last_error());
        append(&mut store, NODE, 1, 3);
        drop(store);
        let mut store = db.open("sensor");
        assert_eq!(outline(&mut store, NODE, 0), ["1 1", "2 1", "3 1"], "{number}");
    }
}

#[test]
fn a_list_is_mended_as_a_whole_or_not_at_all() {
    for spoilt in ["lnr_quarantine", "orphaned", "inserted"] {
        let db = Db::new();
        with_ten(&db);
        let list = db.of("messages");
        // By hand, of an earlier life, and damaged.
        db.eval(&format!(
            "local e = redis.call('LINDEX', '{list}', 2)
             redis.call('RPUSH', '{list}', 'lnr:t:by hand', string.sub(e, 1, 5) .. string.rep('x', #e - 5), string.sub(e, 1, -2) .. '~')"
        ));
        let key = if spoilt.starts_with("lnr") { spoilt.to_owned() } else { db.of(spoilt) };
        db.run(&["SET", &key, "x"]);
        let before = format!("{:?}", db.run(&["LRANGE", &list, "0", "-1"]));
        let opened = RedisStore::open(&db.url(), &Options { name: "sensor".to_owned() });
        let words = opened.expect_err("it cannot be mended").to_string();
        assert!(words.contains("WRONGTYPE") && words.contains(&key), "{words}");
        assert_eq!(format!("{:?}", db.run(&["LRANGE", &list, "0", "-1"])), before, "{spoilt}");
        db.run(&["DEL", &key]);
        let store = db.open("sensor");
        assert_eq!(store.opened().inserted, 1, "{spoilt}");
        assert_eq!(db.number(&["LLEN", "lnr_quarantine"]), 2, "{spoilt}");
    }
}

/// Somebody has brought back what tells of a queue, and not its list.
#[test]
fn what_a_queue_never_had_takes_no_numbers_from_it() {
    let db = Db::new();
    with_ten(&db);
    let kept = ["lnr_node:sensor", "lnr_node:sensor:queues"];
    kept.iter().for_each(|key| drop(db.run(&["COPY", key, &format!("kept {key}")])));
    let add = |store: &mut RedisStore, first, payloads: &[&str]| {
        let mut run = Vec::new();
        for payload in payloads {
            assert!(byhand::put(&mut run, &message("t", payload.as_bytes())));
        }
        let last = first + payloads.len() as u64 - 1;
        apply(store, &[StoreOp::Append { queue: NODE, first, last, records: &run }]);
    };
    let payloads = |store: &mut RedisStore| {
        let held = held(store, NODE, 10).into_iter();
        held.map(|(number, _, payload)| (number, String::from_utf8_lossy(&payload).into_owned()))
            .collect::<Vec<_>>()
    };
    let mut store = db.open("sensor");
    add(&mut store, 11, &["lost", "too"]);
    drop(store);
    kept.iter().for_each(|key| drop(db.run(&["COPY", &format!("kept {key}"), key, "REPLACE"])));
    let mut store = db.open("sensor");
    add(&mut store, 11, &["a", "b", "c"]);
    let expected = [(11, "a".to_owned()), (12, "b".to_owned()), (13, "c".to_owned())];
    assert_eq!(payloads(&mut store), expected);
    drop(store);
    let mut store = db.open("sensor");
    assert_eq!(payloads(&mut store), expected);
    let dead: Vec<Vec<u8>> = db.letters().into_iter().map(|(_, _, _, payload)| payload).collect();
    assert_eq!(dead, [b"lost".to_vec(), b"too".to_vec()], "what was there is kept");
}

/// An operator's payload may begin with the byte that elements begin with.
#[test]
fn what_is_damaged_behind_the_last_number_takes_none() {
    let db = Db::new();
    with_ten(&db);
    let list = db.of("messages");
    db.eval(&format!(
        "local e = redis.call('LINDEX', '{list}', -1)
         return redis.call('RPUSH', '{list}', '\\254abc', string.sub(e, 1, -2) .. '~')"
    ));
    for _ in 0..2 {
        let mut store = db.open("sensor");
        assert_eq!(outline(&mut store, NODE, 9), ["10 1"]);
        assert_eq!((db.number(&["LLEN", &list]), db.number(&["LLEN", "lnr_quarantine"])), (6, 2));
    }
    let mut store = db.open("sensor");
    append(&mut store, NODE, 11, 12);
    drop(store);
    let mut store = db.open("sensor");
    assert_eq!(outline(&mut store, NODE, 9), ["10 1", "11 1", "12 1"]);
}

#[test]
fn a_dead_letter_that_cannot_be_queued_again_stays() {
    let db = Db::new();
    with_ten(&db);
    let mut store = db.open("sensor");
    let record = message("readings", b"dead");
    apply(
        &mut store,
        &[StoreOp::DeadLetter {
            peer: "gateway",
            topic: "readings",
            reason: DeadReason::Quota,
            record: &record,
        }],
    );
    drop(store);
    let id = db.look().dead_letters(None, 0, 1).expect("it is read")[0].id;
    let inserted = db.of("inserted");
    db.run(&["SET", &inserted, "x"]);
    db.look().redrive(&[id]).expect_err("there is no place");
    assert_eq!(db.letters().len(), 1);
    db.run(&["DEL", &inserted]);
    assert_eq!(db.look().redrive(&[id]).expect("there is"), 1);
    assert_eq!(db.letters(), []);
}
