//! What becomes of turns when the server dies, or the connection to it.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store as _;
use liner_store_redis::{Options, RedisStore};
use liner_tests::conformance::records::numbered;
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{Redis, RedisOptions};

const NODE: Queue<'static> = Queue::Node("gateway");
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: Epoch(1) };

fn open(url: &str) -> RedisStore {
    RedisStore::open(url, &Options { name: "sensor".to_owned() }).expect("the store opens")
}

fn append(store: &mut RedisStore, number: u64) -> Result<(), StoreFault> {
    let records = numbered(number, number);
    store.apply(&[StoreOp::Append { queue: NODE, first: number, last: number, records: &records }])?;
    store.commit()
}

/// Until the turn is known: it took place, or nothing of it did.
fn settle(store: &mut RedisStore, mut outcome: Result<(), StoreFault>) -> Result<(), StoreFault> {
    let mut asked = 0;
    while outcome == Err(StoreFault::Unknown) || asked > 0 && outcome == Err(StoreFault::Unavailable) {
        asked += 1;
        assert!(asked < 1000, "it is never known: {:?}", store.last_error());
        outcome = store.resolve();
    }
    outcome
}

/// The queue holds exactly these numbers.
fn holds(store: &mut RedisStore, through: u64) {
    let mut into = vec![0; 1 << 20];
    let loaded = store.load(NODE, 0, &mut into);
    let expected: Vec<u8> = numbered(1, through);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: through, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

#[test]
fn a_server_that_was_killed_loses_nothing() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let mut store = open(&server.url());
    assert_eq!(store.class(), Class::Power);
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    let mut number = 0;
    for round in 0..10 {
        for _ in 0..20 {
            number += 1;
            assert_eq!(append(&mut store, number), Ok(()));
        }
        server.kill().expect("it can be killed");
        // The first one meets a connection that has ended, and nobody listens any more.
        let outcome = append(&mut store, number + 1);
        assert!(
            matches!(outcome, Err(StoreFault::Unknown | StoreFault::Unavailable)),
            "{round}: {outcome:?}"
        );
        let is_in_doubt = outcome == Err(StoreFault::Unknown);
        if is_in_doubt {
            assert_eq!(store.resolve(), Err(StoreFault::Unavailable));
        }
        server.restart().expect("it starts again");
        if is_in_doubt {
            assert_eq!(settle(&mut store, outcome), Ok(()), "{:?}", store.last_error());
            number += 1;
        }
        holds(&mut store, number);
    }
    drop(store);
    let mut store = open(&server.url());
    assert!(!store.opened().regressed, "it has lived through every restart");
    holds(&mut store, number);
}

#[test]
fn a_connection_that_is_cut_anywhere_leaves_each_message_once() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let url = format!("redis://{}", cutter.address());
    let mut store = open(&url);
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    assert_eq!(append(&mut store, 1), Ok(()));
    let mut number = 1;
    for way in [Way::Reply, Way::Request] {
        // "+DONE" or "$4" and "DONE"; a request of some two hundred bytes.
        let after: Vec<u64> =
            if way == Way::Reply { (0..10).collect() } else { (0..400).step_by(7).collect() };
        for after in after {
            cutter.plan(Cut { way, after, marker: b"EVALSHA".to_vec(), refuse: false });
            let outcome = append(&mut store, number + 1);
            // The whole request was shorter than that.
            cutter.spare();
            match settle(&mut store, outcome) {
                Ok(()) => number += 1,
                Err(StoreFault::Unavailable) => {}
                Err(other) => unreachable!("{way:?} {after}: {other} {:?}", store.last_error()),
            }
            holds(&mut store, number);
        }
    }
    drop(store);
    holds(&mut open(&server.url()), number);
}

#[test]
fn a_server_that_was_emptied_is_noticed() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let mut store = open(&server.url());
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    server.command(&["FLUSHALL"]).expect("it can be emptied");
    assert_eq!(append(&mut store, 1), Err(StoreFault::Regressed));
    assert_eq!(append(&mut store, 1), Err(StoreFault::Regressed));
    assert_eq!(open(&server.url()).recover(&mut |fact| unreachable!("{fact:?}")), Ok(()));
}
