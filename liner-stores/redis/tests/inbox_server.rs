//! What becomes of an inbox when somebody dies: who takes, the server, or the connection between them. And when the server is full.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use liner_proto::effect::{Delivery, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::rng::Rng;
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use liner_store_redis::redis::Pipeline;
use liner_store_redis::{INBOX_ACL, Inbox, InboxError, InboxMessage, OpenError, Options, RedisStore};
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{PATIENCE, Redis, RedisOptions, Reply};

fn start(settings: &[&str]) -> Redis {
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    Redis::start(&RedisOptions { settings, ..RedisOptions::default() }).expect("the server starts")
}

fn open(server: &Redis) -> RedisStore {
    RedisStore::open(&server.url(), &Options { name: "sensor".to_owned() }).expect("the store opens")
}

fn inbox(url: &str) -> Inbox {
    Inbox::open(url, "sensor").expect("it opens")
}

fn deliver_as(store: &mut RedisStore, number: u64, payload: &[u8]) -> Result<(), StoreFault> {
    let (from, epoch, mode) = ("a", Epoch(1), Mode::All);
    let delivery = Delivery { from, epoch, number, topic: "t", mode, maybe_redelivered: false, payload };
    store.apply(&[StoreOp::Deliver(delivery), StoreOp::Cursor { peer: from, epoch, through: number }])?;
    store.commit()
}

/// Puts messages there as a node does, once each, whatever the server says in between.
fn deliver(store: &mut RedisStore, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let (mut outcome, mut in_doubt) = (deliver_as(store, number, b"payload"), false);
        while let Err(fault) = outcome {
            assert!(
                matches!(fault, StoreFault::Unknown | StoreFault::Unavailable),
                "{fault} {:?}",
                store.last_error()
            );
            in_doubt |= fault == StoreFault::Unknown;
            outcome = if in_doubt { store.resolve() } else { deliver_as(store, number, b"payload") };
        }
    }
}

/// A list, and a counter beside it: no one without the other.
fn write(pipeline: &mut Pipeline, message: &InboxMessage) -> Result<(), String> {
    pipeline.cmd("RPUSH").arg("taken").arg(message.number);
    pipeline.cmd("INCR").arg("count");
    Ok(())
}

fn taken(server: &Redis) -> Vec<u64> {
    let Ok(Reply::List(taken)) = server.command(&["LRANGE", "taken", "0", "-1"]) else {
        unreachable!("a list")
    };
    let numbers = taken.into_iter().map(|element| match element {
        Reply::Bytes(bytes) => String::from_utf8_lossy(&bytes).parse().expect("a number"),
        other @ (Reply::Status(_) | Reply::Number(_) | Reply::Nil | Reply::List(_)) => {
            unreachable!("{other:?}")
        }
    });
    numbers.collect()
}

fn how_many(server: &Redis) -> i64 {
    let Ok(Reply::Number(len)) = server.command(&["LLEN", "taken"]) else { unreachable!("a number") };
    len
}

/// Each message is there once, and in its order.
fn each_once(server: &Redis, last: u64) {
    assert_eq!(taken(server), (1..=last).collect::<Vec<_>>());
    let count = server.command(&["GET", "count"]).expect("it answers");
    assert_eq!(count, Reply::Bytes(last.to_string().into_bytes()));
    assert_eq!(server.command(&["XLEN", "lnr_node:sensor:inbox"]).expect("it answers"), Reply::Number(0));
    assert_eq!(
        server.command(&["HGET", "lnr_node:sensor", "inbox_bytes"]).expect("it answers"),
        Reply::Bytes(b"0".to_vec())
    );
}

fn asked(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Where a process finds its server.
const CHILD: &str = "LINER_TEST_TAKER";

/// The program of the processes that take: without an end. It does nothing where it is not asked to.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else { return };
    let (url, most) = role.split_once(' ').expect("two words");
    let most = most.parse().expect("a number");
    // The server may be away just now, but not for ever: nobody may be left of a test that was ended.
    let (mut inbox, mut heard) = (None, Instant::now());
    while heard.elapsed() < PATIENCE {
        inbox = inbox.or_else(|| Inbox::open(url, "sensor").ok());
        if inbox.as_mut().is_some_and(|inbox| inbox.take(most, write).is_ok()) {
            heard = Instant::now();
        }
    }
}

/// A process that takes. It does not outlive its test.
struct Taker(Child);

impl Taker {
    fn start(server: &Redis, most: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the test knows its file"));
        command.args(["child", "--exact", "--test-threads=1"]);
        command.env(CHILD, format!("{} {most}", server.url())).stdout(Stdio::null()).stdin(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }
}

impl Drop for Taker {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two take while a node delivers; at random moments one of them is killed, and now and then the server. `LINER_TEST_KILLS=1000` for the long form.
#[test]
fn whoever_is_killed_every_message_is_there_once() {
    let server = start(&[]);
    let mut store = open(&server);
    let kills = asked("LINER_TEST_KILLS", 12);
    let seed = asked("LINER_TEST_SEED", std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    println!("LINER_TEST_SEED={seed}");
    let mut dice = Rng::new([seed, 5]);
    let (mut with_something, mut of_server) = (0, 0);
    let is_over = AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let node = scope.spawn(|| {
            let mut last = 0;
            while !is_over.load(Ordering::Relaxed) {
                // No more than they take, so that each moment of theirs is as likely.
                deliver(&mut store, last + 1..=last + 30);
                last += 30;
                while store.inbox().is_ok_and(|held| held.is_some_and(|held| held.messages > 60))
                    && !is_over.load(Ordering::Relaxed)
                {}
            }
            last
        });
        let mut takers = [2, 5].map(|most| Taker::start(&server, most));
        for kill in 0..kills {
            let enough = how_many(&server) + 1 + dice.below(40) as i64;
            let begun = Instant::now();
            while how_many(&server) < enough {
                assert!(begun.elapsed() < PATIENCE, "nothing is taken any more, after {kill} kills");
            }
            if let Some(taker) = takers.get_mut(dice.below(2) as usize) {
                let killed = core::mem::replace(taker, Taker::start(&server, 1 + dice.below(10)));
                drop(killed);
            }
            if kill % 4 == 3 {
                server.kill().and_then(|()| server.restart()).expect("it starts again");
                of_server += 1;
            }
            let left = server.command(&["XLEN", "lnr_node:sensor:inbox"]).expect("it answers");
            with_something += u64::from(left != Reply::Number(0));
        }
        is_over.store(true, Ordering::Relaxed);
        node.join().expect("it delivers")
    });
    println!("{kills} kills, {of_server} of the server too, {with_something} with something in the inbox");
    let mut inbox = inbox(&server.url());
    while inbox.waiting().expect("it works").messages > 0 {
        inbox.take(100, write).expect("it works");
    }
    each_once(&server, last);
}

/// Wherever the connection is cut, the call says that it does not know or that nothing was done, and the next one goes on.
#[test]
fn a_connection_that_is_cut_anywhere_takes_each_message_once() {
    let server = start(&[]);
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let mut store = open(&server);
    let mut inbox = inbox(&format!("redis://{}", cutter.address()));
    let mut number = 0;
    let (mut unknown, mut done) = (0, 0);
    for (way, step, last) in [(Way::Reply, 1, 30), (Way::Request, 61, 4200)] {
        for after in (0..last).step_by(step) {
            deliver(&mut store, number + 1..=number + 2);
            number += 2;
            // It stands in what takes, and not in what reads.
            cutter.plan(Cut { way, after, marker: b"own.give".to_vec(), refuse: false });
            let outcome = inbox.take(10, write);
            cutter.spare();
            match outcome {
                Ok(taken) => done += u64::from(taken.messages == 2),
                Err(InboxError::Unknown { words }) => {
                    assert!(!words.is_empty());
                    unknown += 1;
                }
                other => panic!("{way:?} {after}: {other:?}"),
            }
            let left = inbox.take(10, write).expect("it works");
            assert!(matches!(left.messages, 0 | 2), "all or nothing");
            each_once(&server, number);
        }
    }
    println!("{unknown} unknown, {done} done");
    assert!(unknown > 40 && done > 0, "{unknown} {done}");
}

/// Putting aside is another step: whoever is cut off before it is not given the message again, as some of its commands were executed.
#[test]
fn what_was_half_done_when_a_connection_was_cut_is_not_done_again() {
    let server = start(&[]);
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let mut store = open(&server);
    let mut inbox = inbox(&format!("redis://{}", cutter.address()));
    server.command(&["SET", "text", "x"]).expect("it is set");
    let bad = |pipeline: &mut Pipeline, message: &InboxMessage| {
        pipeline.cmd("RPUSH").arg("taken").arg(message.number);
        pipeline.cmd("INCR").arg("text");
        Ok::<(), String>(())
    };
    let mut in_between = 0;
    for (number, after) in (1..).zip((0..90).step_by(3)) {
        deliver(&mut store, number..=number);
        let marker = b"own.give".to_vec();
        // The first step writes down the failure; the other one is not to come to pass if the cut falls between them.
        cutter.plan(Cut { way: Way::Reply, after, marker, refuse: true });
        let outcome = inbox.take(10, bad);
        cutter.spare();
        cutter.refuse(false).expect("it listens again");
        let left = server.command(&["XLEN", "lnr_node:sensor:inbox"]).expect("it answers");
        in_between += u64::from(left == Reply::Number(1));
        assert!(matches!(outcome, Ok(_) | Err(InboxError::Unknown { .. })), "{after}: {outcome:?}");
        while inbox.waiting().expect("it works").messages > 0 {
            assert!(inbox.take(10, bad).expect("it works").refused[0].put_aside, "{after}");
        }
        assert_eq!(taken(&server), (1..=number).collect::<Vec<_>>(), "{after}");
        let dead = server.command(&["XLEN", "lnr_node:sensor:dead"]).expect("it answers");
        assert_eq!(dead, Reply::Number(number as i64), "{after}");
    }
    println!("{in_between} in between");
    assert!(in_between > 10);
}

/// A connection that was lost between two calls is made anew.
#[test]
fn a_server_that_was_restarted_is_found_again() {
    let server = start(&[]);
    let mut store = open(&server);
    let mut inbox = inbox(&server.url());
    deliver(&mut store, 1..=2);
    assert_eq!(inbox.take(1, write).expect("it works").messages, 1);
    server.kill().expect("it can be killed");
    assert!(matches!(inbox.take(1, write), Err(InboxError::Open(OpenError::Unreachable { .. }))));
    server.restart().expect("it starts again");
    assert_eq!(inbox.waiting().expect("it works").messages, 1);
    server.kill().and_then(|()| server.restart()).expect("it starts again");
    assert_eq!(inbox.take(1, write).expect("it works").messages, 1);
    deliver(&mut store, 3..=4);
    // In the middle of a call: nothing of it was done.
    let mut calls = 0;
    let outcome = inbox.take(10, |pipeline, message| {
        calls += 1;
        if calls == 2 {
            server.kill().and_then(|()| server.restart()).expect("it starts again");
        }
        write(pipeline, message)
    });
    assert!(matches!(outcome, Err(InboxError::Unknown { .. })), "{outcome:?}");
    assert_eq!(inbox.take(10, write).expect("it works").messages, 2);
    each_once(&server, 4);
}

/// What makes room gets through; what takes more is refused, and nothing of it is done.
#[test]
fn a_full_server_lets_its_inbox_be_emptied() {
    let server = start(&["maxmemory 8mb", "maxmemory-policy noeviction"]);
    let mut store = open(&server);
    let mut last = 0;
    while deliver_as(&mut store, last + 1, &[7; 60_000]) == Ok(()) {
        last += 1;
        assert!(last < 1000, "it is never full");
    }
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).expect("it can be set");
    let mut inbox = inbox(&server.url());
    let grows = inbox.take(10, |pipeline, message| {
        write(pipeline, message)?;
        pipeline.cmd("RPUSH").arg("copies").arg(&message.payload).arg(&message.payload);
        Ok::<(), String>(())
    });
    assert!(matches!(&grows, Err(InboxError::Full { words }) if words.starts_with("OOM")), "{grows:?}");
    assert_eq!(taken(&server), []);
    let failed = inbox.take(10, |_, _| Err("no")).expect("it is counted");
    assert_eq!(failed.failed[0].message.failures, 1);
    while inbox.waiting().expect("it works").messages > 0 {
        assert!(inbox.take(10, write).expect("it makes room").messages > 0);
    }
    each_once(&server, last);
}

/// The user needs what is written there, and lacks each part of it with its own sentence.
#[test]
fn the_user_of_an_inbox_needs_what_is_said() {
    let server = start(&[]);
    let mut store = open(&server);
    deliver(&mut store, 1..=3);
    let add = |user: &str, rules: &[&str]| {
        let mut words = vec!["ACL", "SETUSER", user, "on", ">secret"];
        words.extend(rules);
        server.command(&words).expect("it is one");
        format!("redis://{user}:secret@{}", server.address())
    };
    let rules: Vec<&str> = INBOX_ACL.split_whitespace().collect();
    let own = ["~taken", "~count", "+incr", "+rpush"];
    let mut inbox = inbox(&add("whole", &[&rules[..], &own].concat()));
    assert_eq!(inbox.take(1, write).expect("it works").messages, 1);
    assert!(inbox.failures_max(1).take(1, |_, _| Err(())).expect("it works").failed[0].put_aside);
    for (index, lacking) in rules.iter().enumerate().filter(|(_, rule)| **rule != "+@connection") {
        let mut others = rules.clone();
        others.remove(index);
        let refused = Inbox::open(&add(&format!("user{index}"), &others), "sensor");
        let Err(InboxError::Open(error @ OpenError::Permission { .. })) = refused else {
            panic!("{lacking}: {refused:?}");
        };
        assert!(error.to_string().contains(INBOX_ACL), "{error}");
    }
    // A key of the application's that it may not use is the application's failure.
    let mut inbox = self::inbox(&add("part", &rules));
    let outcome = inbox.take(1, write).expect("it works");
    assert_eq!((outcome.messages, outcome.refused.len()), (0, 1));
    assert_eq!(taken(&server), [1]);
}

/// What is found out behind the application's commands would be found out too late: they would be executed again.
#[test]
fn a_permission_that_is_taken_away_stops_a_call_before_any_command() {
    let server = start(&[]);
    let mut store = open(&server);
    let rules = ["ACL", "SETUSER", "user", "on", ">secret", "~taken", "~count"];
    let all: Vec<&str> = rules.into_iter().chain(INBOX_ACL.split_whitespace()).collect();
    server.command(&all).expect("it is one");
    let mut inbox = inbox(&format!("redis://user:secret@{}", server.address()));
    let mut last = 0;
    for (taken, back) in [
        ("-xdel", "+xdel"),
        ("-hdel", "+hdel"),
        ("-hget", "+hget"),
        ("-hset", "+hset"),
        ("-del", "+del"),
        ("-xlen", "+xlen"),
    ] {
        deliver(&mut store, last + 1..=last + 2);
        server.command(&["ACL", "SETUSER", "user", taken]).expect("it is taken away");
        for _ in 0..2 {
            let outcome = inbox.take(10, write);
            assert!(matches!(outcome, Err(InboxError::Open(_))), "{taken}: {outcome:?}");
            assert_eq!(how_many(&server), last as i64, "{taken}: nothing is done");
        }
        server.command(&["ACL", "SETUSER", "user", back]).expect("it is given back");
        assert_eq!(inbox.take(10, write).expect("it works").messages, 2, "{taken}");
        last += 2;
        each_once(&server, last);
    }
}
