//! What a server in trouble means for a turn.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]

use std::fs;
use std::time::{Duration, Instant};

use liner_proto::effect::{Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_store_redis::{Options, RedisStore};
use liner_tests::conformance::records::{message, numbered, run};
use liner_tests::servers::{PATIENCE, Redis, RedisOptions, Reply};

const NODE: Queue<'static> = Queue::Node("gateway");

fn start(settings: &[&str]) -> Redis {
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    Redis::start(&RedisOptions { settings, ..RedisOptions::default() }).expect("the server starts")
}

/// With an open queue.
fn open(url: &str) -> RedisStore {
    let mut store = RedisStore::open(url, &Options { name: "sensor".to_owned() }).expect("the store opens");
    assert_eq!(turn(&mut store, StoreOp::Open { queue: NODE, epoch: Epoch(1) }), Ok(()));
    store
}

fn turn(store: &mut RedisStore, op: StoreOp<'_>) -> Result<(), StoreFault> {
    store.apply(&[op])?;
    store.commit()
}

fn append(store: &mut RedisStore, number: u64) -> Result<(), StoreFault> {
    let records = numbered(number, number);
    turn(store, StoreOp::Append { queue: NODE, first: number, last: number, records: &records })
}

/// The queue holds exactly these numbers.
fn holds(store: &mut RedisStore, through: u64) {
    let mut into = vec![0; 1 << 20];
    let expected: Vec<u8> = numbered(1, through);
    let loaded = store.load(NODE, 0, &mut into);
    assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: through, len: expected.len() }));
    assert_eq!(into.get(..expected.len()), Some(&*expected));
}

/// The turn does not take place, for now, and the server says so in this word.
fn passes(store: &mut RedisStore, first: u64, word: &str) {
    // A long turn is sent in another way.
    for last in [first, first + 99] {
        let records = numbered(first, last);
        let outcome = turn(store, StoreOp::Append { queue: NODE, first, last, records: &records });
        assert_eq!(outcome, Err(StoreFault::Unavailable), "{:?}", store.last_error());
        assert!(store.last_error().is_some_and(|words| words.starts_with(word)), "{:?}", store.last_error());
    }
}

#[test]
fn a_frozen_server_is_not_waited_for() {
    let server = start(&[]);
    let mut store = open(&format!("{}?connect_timeout=300ms&command_timeout=300ms", server.url()));
    assert_eq!(append(&mut store, 1), Ok(()));
    server.freeze().expect("it can be frozen");
    let begun = Instant::now();
    assert_eq!(append(&mut store, 2), Err(StoreFault::Unknown));
    for _ in 0..3 {
        assert_eq!(store.resolve(), Err(StoreFault::Unavailable));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.thaw().expect("it can go on");
    let begun = Instant::now();
    loop {
        match store.resolve() {
            Ok(()) => break,
            Err(fault) => assert_eq!(fault, StoreFault::Unavailable, "{:?}", store.last_error()),
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    holds(&mut store, 2);
    // What needs no turn is not in doubt.
    server.freeze().expect("it can be frozen");
    assert_eq!(store.load(NODE, 0, &mut [0; 100]), Err(StoreFault::Unavailable));
    server.thaw().expect("it can go on");
    holds(&mut store, 2);
}

#[test]
fn a_busy_server_is_tried_again() {
    let server = start(&["busy-reply-threshold 20"]);
    let mut store = open(&server.url());
    std::thread::scope(|scope| {
        let script = scope.spawn(|| server.command(&["EVAL", "while true do end", "0"]));
        let begun = Instant::now();
        while server.command(&["PING"]).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "the script does not run");
        }
        passes(&mut store, 1, "BUSY");
        passes(&mut store, 1, "BUSY");
        server.command(&["SCRIPT", "KILL"]).expect("it can be killed");
        script.join().expect("it ends").expect_err("it was killed");
    });
    assert_eq!(append(&mut store, 1), Ok(()));
    holds(&mut store, 1);
}

#[test]
fn a_server_that_loads_is_tried_again() {
    let server = start(&["enable-debug-command local", "loading-process-events-interval-bytes 1024"]);
    let mut store = open(&server.url());
    let fill = "for i = 1, 1000 do redis.call('SET', 'other:' .. i, string.rep('x', 50)) end";
    server.command(&["EVAL", fill, "0"]).expect("it is filled");
    server.command(&["CONFIG", "SET", "key-load-delay", "500"]).expect("it can be slow");
    let mut number = 0;
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| server.command(&["DEBUG", "RELOAD"]));
        while append(&mut store, number + 1) == Ok(()) {
            number += 1;
            assert!(!loading.is_finished() || number < 100_000, "it has never said that it loads");
        }
        assert!(
            store.last_error().is_some_and(|words| words.starts_with("LOADING")),
            "{:?}",
            store.last_error()
        );
        passes(&mut store, number + 1, "LOADING");
        loading.join().expect("it ends").expect("it has loaded");
    });
    assert_eq!(append(&mut store, number + 1), Ok(()));
    holds(&mut store, number + 1);
}

#[test]
fn a_server_that_became_a_replica_is_tried_again() {
    let server = start(&[]);
    let mut store = open(&server.url());
    assert_eq!(append(&mut store, 1), Ok(()));
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).expect("it is demoted");
    passes(&mut store, 2, "READONLY");
    passes(&mut store, 2, "READONLY");
    server.command(&["REPLICAOF", "NO", "ONE"]).expect("it is promoted");
    assert_eq!(append(&mut store, 2), Ok(()), "{:?}", store.last_error());
    holds(&mut store, 2);
}

#[test]
fn a_server_that_cannot_write_its_file_is_tried_again() {
    let server = start(&["save 3600 1000000", "stop-writes-on-bgsave-error yes"]);
    let mut store = open(&server.url());
    assert_eq!(append(&mut store, 1), Ok(()));
    // No file can take the place of a folder.
    let dump = server.data().join("dump.rdb");
    fs::create_dir(&dump).expect("it can be made");
    server.command(&["BGSAVE"]).expect("it begins");
    server.wait_for_log("Background saving error", PATIENCE).expect("it fails");
    passes(&mut store, 2, "MISCONF");
    // Nothing is given up meanwhile either, and nothing is lost.
    assert_eq!(turn(&mut store, StoreOp::Trim { queue: NODE, through: 1 }), Err(StoreFault::Unavailable));
    fs::remove_dir(&dump).expect("it can be removed");
    server.command(&["BGSAVE"]).expect("it begins");
    server.wait_for_log("Background saving terminated with success", PATIENCE).expect("it succeeds");
    assert_eq!(append(&mut store, 2), Ok(()), "{:?}", store.last_error());
    holds(&mut store, 2);
}

/// A full server is refused what grows once, so that an acknowledgement that stands behind it in the same turn gets through; then it is tried
/// again, so that what has room again is not refused for ever.
#[test]
fn a_full_server_takes_acknowledgements_and_resumes_by_itself() {
    let server = start(&["maxmemory 8mb", "maxmemory-policy noeviction"]);
    let mut store = open(&server.url());
    let record = run([message(&[7; 60_000])]);
    let grow = |store: &mut RedisStore, number| {
        turn(store, StoreOp::Append { queue: NODE, first: number, last: number, records: &record })
    };
    let mut last = 0;
    let outcome = loop {
        match grow(&mut store, last + 1) {
            Ok(()) => last += 1,
            Err(fault) => break fault,
        }
        assert!(last < 1000, "it is never full");
    };
    assert_eq!(outcome, StoreFault::Full, "{:?}", store.last_error());
    // Something else takes the room, so that giving up messages does not make any.
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).expect("it can be set");
    for through in 1..=8 {
        // Refused without asking, then tried: what grows fails either way.
        assert_eq!(grow(&mut store, last + 1), Err(StoreFault::Full), "{:?}", store.last_error());
        assert_eq!(
            turn(&mut store, StoreOp::Trim { queue: NODE, through }),
            Ok(()),
            "{:?}",
            store.last_error()
        );
        // Both in one turn, as a loop has them: the acknowledgement gets through every other time at least.
        let append = StoreOp::Append { queue: NODE, first: last + 1, last: last + 1, records: &record };
        let outcomes = [0, 1].map(|_| {
            let _ = store.apply(&[append]);
            store
                .apply(&[StoreOp::Cursor { peer: "p", epoch: Epoch(1), through }])
                .and_then(|()| store.commit())
        });
        assert!(outcomes.contains(&Ok(())), "{outcomes:?}");
    }
    let len = server.command(&["LLEN", &list(&server)]).expect("there is one");
    assert_eq!(len, Reply::Number(i64::try_from(last - 8).expect("few")), "what was given up is gone");
    server.command(&["CONFIG", "SET", "maxmemory", "64mb"]).expect("it can be set");
    if let Err(fault) = grow(&mut store, last + 1) {
        assert_eq!(fault, StoreFault::Full);
        assert_eq!(grow(&mut store, last + 1), Ok(()), "{:?}", store.last_error());
    }
    assert_eq!(grow(&mut store, last + 2), Ok(()), "{:?}", store.last_error());
}

/// The key of the list of the only queue.
fn list(server: &Redis) -> String {
    let Reply::List(keys) = server.command(&["KEYS", "lnr_connection:*:messages"]).expect("it has them")
    else {
        unreachable!("a list");
    };
    match keys.first() {
        Some(Reply::Bytes(key)) => String::from_utf8_lossy(key).into_owned(),
        other => unreachable!("{other:?}"),
    }
}
