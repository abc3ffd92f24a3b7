//! What nodes hear of each other: changes of the directory, and whose leases run.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![expect(clippy::disallowed_methods, reason = "a test takes the time")]

use std::time::{Duration, Instant};

use liner_proto::effect::StoreOp;
use liner_proto::router::{DirectoryRows, Standing};
use liner_proto::store::{Notices, Store as _};
use liner_store_postgres::PostgresStore;
use liner_tests::servers::{PgBouncer, Pooling, Postgres, PostgresOptions, Version};

mod common;
use common::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn subscribe(store: &mut PostgresStore, name: &str) {
    apply(store, &[StoreOp::Subscribe { topic: "t", address: &format!("@{name}"), name }]);
}

/// One that listens, and has said that it may have missed something.
fn listening(store: &mut PostgresStore) -> Box<dyn Notices + Send> {
    let mut notices = store.notices().expect("it is the first time");
    assert!(store.notices().is_none(), "it is the second time");
    assert!(notices.wait(PATIENCE), "what was said before it listened is not known");
    assert!(!notices.wait(Duration::from_millis(50)));
    notices
}

#[test]
fn a_change_by_another_node_is_heard_at_once() {
    let database = Database::new();
    let (mut one, mut other) = (database.open("one"), database.open("other"));
    let mut notices = listening(&mut one);
    assert!(one.directory().expect("it is read").is_some());
    let mut times = Vec::new();
    for round in 0..20 {
        let begun = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (notices.wait(PATIENCE), Instant::now()));
            subscribe(&mut other, &format!("node-{round}"));
            let committed = Instant::now();
            let (heard, at) = waiting.join().expect("it ends");
            assert!(heard);
            at.saturating_duration_since(committed)
        });
        assert!(one.directory().expect("it is read").is_some(), "round {round}");
        times.push(begun);
    }
    // The machine may do other things now and then.
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
    // An operator's rows, whichever way.
    for sql in [
        "INSERT INTO topic_addr VALUES('u', '127.0.0.1:7', 'x')",
        "DELETE FROM topic_addr",
        "TRUNCATE topic_addr",
    ] {
        database.run(sql);
        assert!(notices.wait(PATIENCE), "{sql}");
        assert!(one.directory().expect("it is read").is_some(), "{sql}");
    }
    assert_eq!(one.directory().expect("it is read"), None);
}

#[test]
fn a_wait_is_ended_from_elsewhere() {
    let database = Database::new();
    let mut store = database.open("one");
    let mut notices = listening(&mut store);
    let interrupt = notices.interrupter();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| notices.wait(PATIENCE));
        interrupt();
        assert!(!waiting.join().expect("it ends"));
    });
    interrupt();
    assert!(!notices.wait(PATIENCE), "called before, it ends the next one");
    assert!(begun.elapsed() < PATIENCE / 2);
    assert!(!notices.wait(Duration::from_millis(10)));
}

#[test]
fn a_connection_that_was_lost_is_made_again() {
    let server = Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts");
    let mut store = open(&server.url().parse().expect("a URL"), "one");
    let mut notices = listening(&mut store);
    server.kill().expect("it is killed");
    let begun = Instant::now();
    assert!(!notices.wait(Duration::from_millis(300)), "there is nobody to say anything");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // It can be ended then, too.
    let interrupt = notices.interrupter();
    interrupt();
    assert!(!notices.wait(PATIENCE));
    server.restart().expect("it starts");
    assert!(notices.wait(PATIENCE), "something may have been said");
    let mut other = open(&server.url().parse().expect("a URL"), "other");
    subscribe(&mut other, "other");
    assert!(notices.wait(PATIENCE));
}

#[test]
fn behind_a_pooler_of_transactions_it_waits_and_of_sessions_it_hears() {
    let server = Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts");
    let pooler = PgBouncer::start(&server, Pooling::Transaction).expect("the pooler starts");
    let mut store = open(&pooler.url().parse().expect("a URL"), "one");
    let mut notices = store.notices().expect("it is the first time");
    let begun = Instant::now();
    assert!(!notices.wait(Duration::from_millis(700)));
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let sessions = server.query("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'");
    assert_eq!(sessions.expect("it is asked")[0][0].as_deref(), Some("0"), "no session of others listens");
    // The directory is read without it.
    let mut other = open(&server.url().parse().expect("a URL"), "other");
    assert!(store.directory().expect("it is read").is_some());
    subscribe(&mut other, "other");
    assert!(store.directory().expect("it is read").is_some());
    drop(pooler);
    let pooler = PgBouncer::start(&server, Pooling::Session).expect("the pooler starts");
    let mut store = open(&pooler.url().parse().expect("a URL"), "three");
    let mut notices = listening(&mut store);
    subscribe(&mut other, "more");
    assert!(notices.wait(PATIENCE));
}

/// The directory with a row of a node and one by hand, as `one` is told it.
fn rows(other: Standing) -> Option<DirectoryRows> {
    let mut rows = DirectoryRows::default();
    rows.push("t", "@other", "other");
    rows.push("t", "127.0.0.1:7", "by hand");
    rows.set_standing("one", Standing::Up);
    rows.set_standing("other", other);
    Some(rows)
}

#[test]
fn whose_lease_runs_is_up_by_the_servers_clock() {
    let database = Database::new();
    let (mut one, mut other) = (database.open("one"), database.open("other"));
    subscribe(&mut other, "other");
    database.run("INSERT INTO topic_addr VALUES('t', '127.0.0.1:7', 'by hand')");
    let mut told = || one.directory().expect("it is read");
    assert_eq!(told(), rows(Standing::Up));
    assert_eq!(told(), None);
    // It is over.
    database.run("UPDATE liner_lease SET until = clock_timestamp() - interval '1 ms' WHERE name = 'other'");
    assert_eq!(told(), rows(Standing::Away));
    assert_eq!(told(), None);
    // It is renewed with the directory, once a third of it has passed.
    drop(other.directory().expect("it is read"));
    assert_eq!(told(), rows(Standing::Up));
    let until = "SELECT until FROM liner_lease WHERE name = 'other'";
    let before = database.one(until);
    drop(other.directory().expect("it is read"));
    assert_eq!(database.one(until), before, "it is renewed a few times in its life");
    database.run("UPDATE liner_lease SET until = until - interval '6 s' WHERE name = 'other'");
    drop(other.directory().expect("it is read"));
    assert!(database.one(until) >= before);
    // A clean end gives it up, and the rows stay.
    other.close().expect("it is closed");
    assert_eq!(told(), rows(Standing::Away));
    assert_eq!(database.one("SELECT count(*) FROM topic_addr"), "2");
}
