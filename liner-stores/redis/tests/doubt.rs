//! What is not known of a turn stays in doubt until it is, and nobody is taken for somebody else meanwhile.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;

use liner_proto::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};
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

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() { copy(&from, &to)? } else { fs::copy(from, to).map(drop)? }
    }
    Ok(())
}

#[test]
fn a_server_that_comes_back_with_an_older_file_is_noticed() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let mut store = open(&server.url());
    assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
    let inbox = StoreOp::Inbox { epoch: Epoch(5) };
    assert_eq!(store.apply(&[inbox]).and_then(|()| store.commit()), Ok(()));
    assert_eq!(append(&mut store, 1), Ok(()));
    let (data, kept) = (server.data(), server.data().with_file_name("kept"));
    copy(&data, &kept).expect("it is copied");
    assert_eq!(append(&mut store, 2), Ok(()));
    server.kill().expect("it can be killed");
    fs::remove_dir_all(&data).expect("it is removed");
    copy(&kept, &data).expect("it is put back");
    server.restart().expect("it starts again");
    let outcome = match append(&mut store, 3) {
        // The connection that had ended was noticed behind the request.
        Err(StoreFault::Unknown) => store.resolve(),
        // Or before it.
        Err(StoreFault::Unavailable) => append(&mut store, 3),
        other => other,
    };
    assert_eq!(outcome, Err(StoreFault::Regressed), "{:?}", store.last_error());
    drop(store);
    let mut store = open(&server.url());
    assert!(store.opened().regressed);
    let mut told = false;
    let recovered = store.recover(&mut |fact| {
        if let Recovered::Node { regressed, .. } = fact {
            told = regressed;
        }
    });
    assert_eq!(recovered, Ok(()));
    assert!(told, "a new epoch comes before a new number");
    let mut into = vec![0; 1 << 16];
    assert!(matches!(store.load(NODE, 0, &mut into), Ok(Loaded::Records { first: 1, last: 1, .. })));
}

/// Keys are put back from a copy, and the server has run all the time.
#[test]
fn a_row_that_goes_back_is_noticed_by_whoever_opens_it_next() {
    let rows = ["lnr_node:sensor", "lnr_node:sensor:queues"];
    for is_cut in [false, true] {
        let server = start();
        let cutter = Cutter::start(server.address()).expect("the cutter starts");
        let mut store = open(&format!("redis://{}", cutter.address()));
        assert_eq!(store.apply(&[OPEN]).and_then(|()| store.commit()), Ok(()));
        for row in rows {
            server.command(&["COPY", row, &format!("kept {row}")]).expect("it is copied");
        }
        assert_eq!(append(&mut store, 1), Ok(()));
        for row in rows {
            server.command(&["COPY", &format!("kept {row}"), row, "REPLACE"]).expect("it is put back");
        }
        if is_cut {
            cutter.cut_now();
            let outcome = append(&mut store, 2);
            assert!(matches!(outcome, Err(StoreFault::Unknown | StoreFault::Unavailable)), "{outcome:?}");
            let outcome =
                if outcome == Err(StoreFault::Unknown) { store.resolve() } else { append(&mut store, 2) };
            assert_eq!(outcome, Err(StoreFault::Regressed));
        } else {
            assert_eq!(append(&mut store, 2), Err(StoreFault::Regressed));
        }
        drop(store);
        assert!(open(&server.url()).opened().regressed, "{is_cut}");
        assert!(!open(&server.url()).opened().regressed, "once");
    }
}
