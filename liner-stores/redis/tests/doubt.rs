//! What is not known of a turn stays in doubt until it is, and nobody is taken for somebody else meanwhile.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_store_redis::{Options, RedisStore};
use liner_tests::conformance::records::numbered;
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{Redis, RedisOptions};

const NODE: Queue<'static> = Queue::Node("gateway");
const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: Epoch(1) };

fn start() -> Redis {
    Redis::start(&RedisOptions { appendfsync: None, ..RedisOptions::default() }).expect("the server starts")
}

fn open(url: &str) -> RedisStore {
    RedisStore::open(url, &Options { name: "sensor".to_owned() }).expect("the store opens")
}

fn append(store: &mut RedisStore, number: u64) -> Result<(), StoreFault> {
    let records = numbered(number, number);
    store.apply(&[StoreOp::Append { queue: NODE, first: number, last: number, records: &records }])?;
    store.commit()
}

fn cut_reply(cutter: &Cutter, marker: &[u8]) {
    cutter.plan(Cut { way: Way::Reply, after: 0, marker: marker.to_vec(), refuse: false });
}

#[test]
fn an_answer_about_a_turn_may_be_lost_too() {
    let server = start();
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let mut store = open(&format!("redis://{}", cutter.address()));
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    for number in 1..=3 {
        cut_reply(&cutter, b"EVALSHA");
        assert_eq!(append(&mut store, number), Err(StoreFault::Unknown));
        for _ in 0..number {
            // The server has taken the next token, and nobody hears of it.
            cut_reply(&cutter, b"EVAL\r\n");
            assert_eq!(store.resolve(), Err(StoreFault::Unavailable), "{:?}", store.last_error());
            assert!(!cutter.spare(), "it was cut");
        }
        assert_eq!(store.resolve(), Ok(()), "{:?}", store.last_error());
    }
    let (mut into, expected) = (vec![0; 1 << 16], numbered(1, 3));
    assert_eq!(
        store.load(NODE, 0, &mut into),
        Ok(Loaded::Records { first: 1, last: 3, len: expected.len() })
    );
}

#[test]
fn a_server_that_lets_nobody_in_says_nothing_of_a_turn() {
    let server = start();
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let mut store = open(&format!("redis://{}", cutter.address()));
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    cut_reply(&cutter, b"EVALSHA");
    assert_eq!(append(&mut store, 1), Err(StoreFault::Unknown));
    server.command(&["ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all"]).expect("it is made");
    server.command(&["ACL", "SETUSER", "default", "-eval"]).expect("it is taken away");
    assert_eq!(store.resolve(), Err(StoreFault::Unavailable), "{:?}", store.last_error());
    server.command(&["ACL", "SETUSER", "default", "+eval"]).expect("it is given back");
    assert_eq!(store.resolve(), Ok(()), "{:?}", store.last_error());
    assert_eq!(append(&mut store, 2), Ok(()), "{:?}", store.last_error());
}

#[test]
fn whoever_opens_an_emptied_server_is_not_the_one_before() {
    let server = start();
    let mut store = open(&server.url());
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    server.command(&["FLUSHALL"]).expect("it can be emptied");
    let mut other = open(&server.url());
    assert_eq!(other.apply(&[OPEN]).and_then(|()| other.commit()), Ok(()));
    // The same token and the same number, of another history.
    assert!(matches!(append(&mut store, 1), Err(StoreFault::Superseded | StoreFault::Regressed)));
    assert_eq!(append(&mut other, 1), Ok(()));
    assert!(store.close().is_err());
    drop(other);
    assert!(!open(&server.url()).opened().unclean);
}
