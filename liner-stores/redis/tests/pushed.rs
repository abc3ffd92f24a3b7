//! Many records go past the script of their turn: they are there if the turn is, and only then.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{StoreFault, StoreOp};
use liner_proto::store::Store as _;
use liner_store_redis::RedisStore;
use liner_tests::conformance::records::numbered;
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{Redis, RedisOptions};

mod common;
use common::*;

/// More than pass through the script.
const MANY: u64 = 5_000;

fn append_many(store: &mut RedisStore, first: u64) -> Result<(), StoreFault> {
    let last = first + MANY - 1;
    let records = numbered(first, last);
    store.apply(&[StoreOp::Append { queue: NODE, first, last, records: &records }])?;
    store.commit()
}

/// The list's elements, without what is of the same message.
fn elements(db: &Db) -> i64 {
    db.number(&["LLEN", &db.of("messages")])
}

#[test]
fn nothing_of_a_turn_under_an_old_token_stays() {
    let db = Db::new();
    with_ten(&db);
    let mut old = db.open("sensor");
    let mut new = db.open("sensor");
    assert_eq!(append_many(&mut old, 11), Err(StoreFault::Superseded));
    assert_eq!(elements(&db), 6);
    assert_eq!(append_many(&mut new, 11), Ok(()));
    assert_eq!(elements(&db), 6 + MANY as i64, "no mark is left");
    let last = outline(&mut new, NODE, 9 + MANY);
    assert_eq!(last, [format!("{} 1", 10 + MANY)]);
}

#[test]
fn nothing_of_a_turn_whose_lists_were_changed_stays_and_it_is_sent_again() {
    let db = Db::new();
    with_ten(&db);
    let mut store = db.open("sensor");
    // Somebody takes out what the turn is about to forget.
    let list = db.of("messages");
    db.run(&["LPOP", &list]);
    let records = numbered(11, 10 + MANY);
    let append = StoreOp::Append { queue: NODE, first: 11, last: 10 + MANY, records: &records };
    assert_eq!(store.apply(&[StoreOp::Trim { queue: NODE, through: 6 }, append]), Ok(()));
    assert_eq!(store.commit(), Ok(()), "{:?}", store.last_error());
    assert_eq!(elements(&db), 4 + MANY as i64);
    assert_eq!(outline(&mut store, NODE, 6).len() as u64, 4 + MANY);
}

#[test]
fn a_list_that_is_none_any_more_takes_nothing_and_loses_nothing() {
    let db = Db::new();
    with_ten(&db);
    let mut store = db.open("sensor");
    let list = db.of("messages");
    db.run(&["RENAME", &list, "kept"]);
    db.run(&["SET", &list, "x"]);
    assert_eq!(append_many(&mut store, 11), Err(StoreFault::Corrupt), "{:?}", store.last_error());
    db.run(&["DEL", &list]);
    db.run(&["RENAME", "kept", &list]);
    assert_eq!(append_many(&mut store, 11), Ok(()), "{:?}", store.last_error());
    assert_eq!(elements(&db), 6 + MANY as i64);
}

#[test]
fn a_server_without_room_takes_nothing_of_it() {
    let options = RedisOptions { appendfsync: None, ..RedisOptions::default() };
    let server = Redis::start(&options).expect("the server starts");
    let mut store = open_at(&server.url());
    apply(&mut store, &[OPEN]);
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).expect("it is set");
    assert_eq!(append_many(&mut store, 1), Err(StoreFault::Full), "{:?}", store.last_error());
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("it is set");
    // What grows is refused once more, so that what gives up something gets through.
    assert_eq!(append_many(&mut store, 1), Err(StoreFault::Full));
    assert_eq!(append_many(&mut store, 1), Ok(()), "{:?}", store.last_error());
    assert_eq!(outline(&mut store, NODE, 0).len() as u64, MANY);
}

#[test]
fn a_turn_that_is_cut_anywhere_is_there_once() {
    let options = RedisOptions { appendfsync: None, ..RedisOptions::default() };
    let server = Redis::start(&options).expect("the server starts");
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let mut store = open_at(&format!("redis://{}", cutter.address()));
    apply(&mut store, &[OPEN]);
    let mut first = 1;
    for way in [Way::Request, Way::Reply] {
        // In the middle of the records, in the script behind them, and in each line of the answer.
        let steps: &[u64] =
            if way == Way::Request { &[1, 40, 9_000, 200_000, 220_000] } else { &[0, 5, 14, 23, 40] };
        for &after in steps {
            cutter.plan(Cut { way, after, marker: b"MULTI".to_vec(), refuse: false });
            match append_many(&mut store, first) {
                Ok(()) => {}
                Err(StoreFault::Unknown) => assert_eq!(store.resolve(), Ok(()), "{:?}", store.last_error()),
                Err(fault) => unreachable!("{way:?} {after}: {fault} {:?}", store.last_error()),
            }
            first += MANY;
        }
    }
    let seen = outline(&mut store, NODE, 0);
    let expected: Vec<String> = (1..first).map(|number| format!("{number} 1")).collect();
    assert!(seen == expected, "each once and in order: {} of {}", seen.len(), expected.len());
}

fn open_at(url: &str) -> RedisStore {
    let options = liner_store_redis::Options { name: "sensor".to_owned() };
    RedisStore::open(url, &options).expect("the store opens")
}
