//! How soon a node knows what others have written into the directory, and who of them runs.
#![allow(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test measures what was promised, and fails"
)]
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::time::{Duration, Instant};

use liner_proto::effect::StoreOp;
use liner_proto::router::{DirectoryRows, Standing};
use liner_proto::store::{LEASE, Notices, Store as _};
use liner_store::look::Look as _;
use liner_store_redis::{Look, Options, RedisStore};
use liner_tests::servers::cut::Cutter;
use liner_tests::servers::{Redis, RedisOptions, Reply};

/// No test waits so long for what comes.
const LONG: Duration = Duration::from_secs(30);
/// Nothing comes any more if nothing has for so long.
const QUIET: Duration = Duration::from_millis(200);

fn start() -> Redis {
    Redis::start(&RedisOptions::default()).expect("the server starts")
}

fn open(url: &str, name: &str) -> RedisStore {
    RedisStore::open(url, &Options { name: name.to_owned() }).expect("the store opens")
}

fn subscribe(store: &mut RedisStore, topic: &str, name: &str) {
    let op = StoreOp::Subscribe { topic, address: "h:1", name };
    assert_eq!(store.apply(&[op]).and_then(|()| store.commit()), Ok(()), "{:?}", store.last_error());
}

/// One row for each of these topics.
fn rows(rows: &[(&str, &str, Standing)]) -> DirectoryRows {
    let mut expected = DirectoryRows::default();
    for (topic, name, standing) in rows {
        expected.push(topic, "h:1", name);
        if *standing != Standing::Unleased {
            expected.set_standing(name, *standing);
        }
    }
    expected
}

/// Waits until nothing comes any more: a node hears of itself too.
fn settle(store: &mut RedisStore, notices: &mut dyn Notices) {
    assert!(notices.wait(LONG), "it connects");
    settle_again(store, notices);
}

fn settle_again(store: &mut RedisStore, notices: &mut dyn Notices) {
    loop {
        // A connection that was cut is noticed by the first who uses it.
        let is_read = store.directory().is_ok();
        if !notices.wait(QUIET) && is_read {
            return;
        }
    }
}

/// Looks as a node does: at every word, and now and then.
fn look_until(store: &mut RedisStore, notices: &mut dyn Notices, expected: &DirectoryRows) -> Duration {
    let begun = Instant::now();
    loop {
        let told = store.directory().expect("it is read");
        if told.as_ref() == Some(expected) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LONG, "{told:?} and not {expected:?}");
        notices.wait(Duration::from_millis(100));
    }
}

#[test]
fn a_row_is_seen_within_100_ms() {
    let server = start();
    let (mut one, mut other) = (open(&server.url(), "one"), open(&server.url(), "other"));
    one.directory().expect("it has a lease");
    let mut notices = other.notices().expect("there are some");
    assert!(other.notices().is_none(), "once");
    settle(&mut other, &mut *notices);
    let mut best = LONG;
    let topics = ["a", "b", "c", "d", "e"];
    for count in 1..=topics.len() {
        let topics = topics.get(..count).unwrap_or_default();
        let begun = Instant::now();
        subscribe(&mut one, topics.last().expect("there is one"), "one");
        assert!(notices.wait(LONG), "there is word");
        let told = other.directory().expect("it is read");
        best = best.min(begun.elapsed());
        let expected: Vec<_> = topics.iter().map(|topic| (*topic, "one", Standing::Up)).collect();
        assert_eq!(told, Some(rows(&expected)));
    }
    // The machine may do other things now and then.
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[test]
fn a_row_that_was_written_by_hand_is_seen_soon() {
    let server = start();
    let mut store = open(&server.url(), "one");
    let mut notices = store.notices().expect("there are some");
    settle(&mut store, &mut *notices);
    server.command(&["HSET", "lnr_topic:by\\:hand:addr", "h:1", "printer"]).expect("it is written");
    let expected = rows(&[("by:hand", "printer", Standing::Unleased)]);
    let took = look_until(&mut store, &mut *notices, &expected);
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.command(&["DEL", "lnr_topic:by\\:hand:addr"]).expect("it is deleted");
    look_until(&mut store, &mut *notices, &DirectoryRows::default());
}

#[test]
fn who_runs_is_told_by_the_servers_clock() {
    let server = start();
    let (mut one, mut other) = (open(&server.url(), "one"), open(&server.url(), "other"));
    subscribe(&mut one, "t", "one");
    assert_eq!(
        other.directory(),
        Ok(Some(rows(&[("t", "one", Standing::Unleased)]))),
        "it has not looked yet"
    );
    one.directory().expect("it takes a lease");
    assert_eq!(other.directory(), Ok(Some(rows(&[("t", "one", Standing::Up)]))));
    let number = |reply: Reply| match reply {
        Reply::Bytes(bytes) => String::from_utf8_lossy(&bytes).parse::<u64>().expect("a number"),
        other => unreachable!("{other:?}"),
    };
    let until = || number(server.command(&["HGET", "lnr_lease", "one"]).expect("there is one"));
    let Reply::List(time) = server.command(&["TIME"]).expect("it has one") else { unreachable!() };
    let now = 1000 * number(time.first().expect("seconds").clone());
    let lease = LEASE.as_millis() as u64;
    assert!((now..=now + 1000 + lease).contains(&until()), "{now} {}", until());
    // What is young is not renewed; what is over is.
    let before = until();
    one.directory().expect("it is read");
    assert_eq!(until(), before);
    server.command(&["HSET", "lnr_lease", "one", &(now - 1).to_string()]).expect("it is over");
    assert_eq!(other.directory(), Ok(Some(rows(&[("t", "one", Standing::Away)]))));
    one.directory().expect("it is read");
    assert_eq!(other.directory(), Ok(Some(rows(&[("t", "one", Standing::Up)]))));
    server.command(&["HDEL", "lnr_lease", "one"]).expect("it is gone");
    assert_eq!(other.directory(), Ok(Some(rows(&[("t", "one", Standing::Unleased)]))));
}

#[test]
fn an_end_on_purpose_is_told_at_once() {
    let server = start();
    let (mut one, mut other) = (open(&server.url(), "one"), open(&server.url(), "other"));
    subscribe(&mut one, "t", "one");
    one.directory().expect("it takes a lease");
    let mut notices = other.notices().expect("there are some");
    settle(&mut other, &mut *notices);
    assert_eq!(one.close(), Ok(()));
    assert!(notices.wait(LONG), "there is word");
    assert_eq!(other.directory(), Ok(Some(rows(&[("t", "one", Standing::Away)]))));
}

#[test]
fn notices_are_interrupted_and_wait_for_nothing_without_patience() {
    let server = start();
    let (mut one, mut other) = (open(&server.url(), "one"), open(&server.url(), "other"));
    let mut notices = other.notices().expect("there are some");
    settle(&mut other, &mut *notices);
    let interrupt = notices.interrupter();
    let begun = Instant::now();
    interrupt();
    assert!(!notices.wait(LONG), "it was interrupted before");
    let thread = std::thread::spawn(interrupt);
    assert!(!notices.wait(LONG), "it was interrupted meanwhile");
    thread.join().expect("it ends");
    assert!(begun.elapsed() < LONG);
    assert!(!notices.wait(Duration::ZERO));
    subscribe(&mut one, "t", "one");
    let begun = Instant::now();
    while !notices.wait(Duration::ZERO) {
        assert!(begun.elapsed() < LONG, "what has come is never taken");
    }
}

#[test]
fn notices_connect_again() {
    let server = start();
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let (mut one, mut other) =
        (open(&server.url(), "one"), open(&format!("redis://{}", cutter.address()), "other"));
    let mut notices = other.notices().expect("there are some");
    settle(&mut other, &mut *notices);
    for topic in ["a", "b"] {
        cutter.cut_now();
        subscribe(&mut one, topic, "one");
        // What has changed meanwhile was not told to anybody.
        settle(&mut other, &mut *notices);
    }
    server.kill().expect("it can be killed");
    assert!(!notices.wait(QUIET), "nobody is there");
    server.restart().expect("it starts again");
    settle(&mut other, &mut *notices);
    let begun = Instant::now();
    while one.directory().is_err() {
        assert!(begun.elapsed() < LONG, "{:?}", one.last_error());
    }
    settle_again(&mut other, &mut *notices);
    subscribe(&mut one, "c", "one");
    assert!(notices.wait(LONG), "there is word");
}

/// The server's clock was turned back behind a node that has gone since.
#[test]
fn a_lease_longer_than_leases_are_is_over() {
    let server = start();
    let mut store = open(&server.url(), "sensor");
    subscribe(&mut store, "t", "gone");
    subscribe(&mut store, "u", "sensor");
    let far = "99999999999999";
    server.command(&["HSET", "lnr_lease", "gone", far, "sensor", far]).expect("it is written");
    let expected = rows(&[("t", "gone", Standing::Away), ("u", "sensor", Standing::Up)]);
    assert_eq!(store.directory(), Ok(Some(expected)));
    let own = server.command(&["HGET", "lnr_lease", "sensor"]).expect("it is there");
    assert_ne!(own, Reply::Bytes(far.into()), "it is renewed");
    server.command(&["HSET", "lnr_lease", "sensor", "no number"]).expect("it is written");
    assert_eq!(store.directory(), Ok(None), "{:?}", store.last_error());
    let mut look = Look::open(&server.url().parse().expect("a URL")).expect("it can be looked at");
    assert_eq!((look.is_running("gone"), look.is_running("sensor")), (false, true));
}
