//! What was pushed for a turn goes again, whatever keeps the turn's script from its work.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{StoreFault, StoreOp};
use liner_proto::store::Store as _;
use liner_store::byhand;
use liner_store_redis::{ACL, Options, RedisStore};
use liner_tests::servers::{Redis, RedisOptions, Reply};

mod common;
use common::*;

/// More than pass through the script.
const MANY: u64 = 100;

/// A long turn whose messages say which attempt they are of.
fn attempt(store: &mut RedisStore, first: u64, count: u64, what: &str) -> Result<(), StoreFault> {
    let mut records = Vec::new();
    for _ in 0..count {
        assert!(byhand::put(&mut records, &message("t", what.as_bytes())));
    }
    let last = first + count - 1;
    store.apply(&[StoreOp::Append { queue: NODE, first, last, records: &records }])?;
    store.commit()
}

/// The queue holds so many messages, all of this attempt.
fn holds(store: &mut RedisStore, after: u64, count: u64, what: &str) {
    let seen = held(store, NODE, after);
    assert_eq!(seen.len() as u64, count);
    for (number, _, payload) in seen {
        assert_eq!(String::from_utf8_lossy(&payload), what, "{number}");
    }
}

/// The first attempt is refused in the middle; the numbers are those of other messages then.
#[test]
fn a_node_whose_row_is_spoiled_has_nothing_of_a_turn_that_failed() {
    for next in [1, MANY] {
        let db = Db::new();
        with_ten(&db);
        let mut store = db.open("sensor");
        db.run(&["RENAME", "lnr_node:sensor", "kept"]);
        db.run(&["SET", "lnr_node:sensor", "x"]);
        let fault = attempt(&mut store, 11, MANY, "first").expect_err("there is no row");
        assert_eq!(fault, StoreFault::Corrupt, "{:?}", store.last_error());
        assert_eq!(db.number(&["LLEN", &db.of("messages")]), 6, "nothing of it is left");
        db.run(&["DEL", "lnr_node:sensor"]);
        db.run(&["RENAME", "kept", "lnr_node:sensor"]);
        assert_eq!(attempt(&mut store, 11, next, "second"), Ok(()), "{:?}", store.last_error());
        holds(&mut store, 10, next, "second");
        drop(store);
        holds(&mut db.open("sensor"), 10, next, "second");
        assert_eq!(db.letters(), []);
    }
}

/// Whoever may not take back what was pushed finds it when it may again.
#[test]
fn what_could_not_be_taken_back_takes_no_numbers() {
    let server = Redis::start(&RedisOptions { appendfsync: None, ..RedisOptions::default() })
        .expect("the server starts");
    let ask = |words: &[&str]| server.command(words).expect("it answers");
    for (user, taken) in ["-ltrim", "-lindex", "-type", "-hmget", "-hset", "-rpush"].into_iter().enumerate() {
        for next in [1, MANY] {
            ask(&["FLUSHALL"]);
            let user = format!("node{user}");
            let rules: Vec<&str> = ["ACL", "SETUSER", &user, "on", ">secret"]
                .into_iter()
                .chain(ACL.split_whitespace())
                .collect();
            ask(&rules);
            let url = format!("redis://{user}:secret@{}", server.address());
            let open = || RedisStore::open(&url, &Options { name: "sensor".to_owned() }).expect("it opens");
            let mut store = open();
            apply(&mut store, &[OPEN]);
            append(&mut store, NODE, 1, 10);
            ask(&["ACL", "SETUSER", &user, taken]);
            for _ in 0..2 {
                let fault = attempt(&mut store, 11, MANY, "first").expect_err("it is not permitted");
                // Redis says it in other words of what a script does.
                assert!(matches!(fault, StoreFault::Refused | StoreFault::Unavailable), "{taken}: {fault}");
            }
            ask(&["ACL", "SETUSER", &user, &taken.replace('-', "+")]);
            assert_eq!(attempt(&mut store, 11, next, "second"), Ok(()), "{taken}: {:?}", store.last_error());
            holds(&mut store, 10, next, "second");
            assert_eq!(
                attempt(&mut store, 11 + next, 1, "second"),
                Ok(()),
                "{taken}: {:?}",
                store.last_error()
            );
            let Reply::Bytes(key) = ask(&["GET", "lnr_connection:sensor::gateway:key"]) else {
                panic!("a key")
            };
            let list = format!("lnr_connection:{}:messages", String::from_utf8_lossy(&key));
            assert_eq!(ask(&["LLEN", &list]), Reply::Number(11 + next as i64), "{taken}");
            drop(store);
            holds(&mut open(), 10, next + 1, "second");
            assert_eq!(ask(&["EXISTS", "lnr_quarantine"]), Reply::Number(0), "{taken}");
        }
    }
}
