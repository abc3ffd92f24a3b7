//! What administrators set for a server, a database or a role: the store keeps its promise under it, or says which one is left.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and how long it takes is tested"
)]

mod turns;

use std::time::{Duration, Instant};

use liner_proto::effect::{Queue, Recovered, StoreFault, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store;
use liner_store::look::Look as _;
use liner_store_postgres::{Look, PostgresStore};
use liner_tests::servers::{Postgres, PostgresOptions, Version};
use turns::{QUEUE, begin, check, open, persist, turn};

const OTHER: StoreOp<'_> = StoreOp::Open { queue: Queue::Node("other"), epoch: Epoch(5) };

fn start(version: Version, settings: &[&str]) -> Postgres {
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    Postgres::start(version, &options).expect("the server starts")
}

/// Commits are on the disk when somebody asks for it, and otherwise after a long time.
fn slack(version: Version) -> Postgres {
    start(version, &["synchronous_commit = off", "wal_writer_delay = 10s", "wal_writer_flush_after = 0"])
}

fn is_regressed(store: &mut PostgresStore) -> bool {
    let mut told = false;
    let mut visit = |recovered: Recovered<'_>| {
        if let Recovered::Node { regressed, .. } = recovered {
            told = regressed;
        }
    };
    store.recover(&mut visit).expect("it tells");
    told
}

/// As if the process had been killed: nothing is said to the server.
fn kill(store: PostgresStore) {
    core::mem::forget(store);
}

/// Waits until that is so. The server may be down meanwhile.
fn wait_for(server: &Postgres, question: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !server.query(question).is_ok_and(|rows| rows[0][0].as_deref() == Some("t")) {
        assert!(Instant::now() < until, "it never is: {question}");
    }
}

/// Kills a process of the server, which starts all of its others anew.
fn crash_inside(server: &Postgres) {
    let doomed = open(&format!("{}?application_name=liner%20doomed", server.url()), "doomed");
    let doomed = doomed.expect("the store opens");
    let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'liner doomed'";
    let pid = server.query(pid).expect("it is asked")[0][0].clone().expect("it is there");
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().expect("it runs");
    assert!(killed.success());
    wait_for(server, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'liner doomed'");
    kill(doomed);
}

#[test]
fn what_a_crash_within_the_server_may_have_lost_makes_the_node_regressed() {
    for version in Version::ALL {
        let server = slack(version);
        let mut store = open(&server.url(), "node").expect("the store opens");
        assert_eq!(store.class(), Class::Ram);
        begin(&mut store);
        persist(&mut store, 1);
        kill(store);
        let mut store = open(&server.url(), "node").expect("the store opens");
        assert!(!is_regressed(&mut store), "{version:?}: only the node was killed");
        persist(&mut store, 2);
        server.query("CHECKPOINT").expect("all is on the disk");
        persist(&mut store, 3);
        crash_inside(&server);
        kill(store);
        let mut store = open(&server.url(), "node").expect("the store opens");
        assert!(is_regressed(&mut store), "{version:?}");
    }
}

#[test]
fn a_life_that_a_crash_took_whole_makes_the_node_regressed() {
    let server = slack(Version::V15);
    let mut store = open(&server.url(), "node").expect("the store opens");
    begin(&mut store);
    persist(&mut store, 1);
    store.close().expect("it is closed");
    server.query("CHECKPOINT").expect("all is on the disk");
    let mut store = open(&server.url(), "node").expect("the store opens");
    persist(&mut store, 2);
    server.kill().expect("it is killed");
    kill(store);
    server.restart().expect("it starts again");
    let mut store = open(&server.url(), "node").expect("the store opens");
    assert!(is_regressed(&mut store));
}

#[test]
fn what_was_found_at_the_opening_holds_for_each_commit() {
    let server = start(Version::V15, &["wal_writer_delay = 10s", "wal_writer_flush_after = 0"]);
    let mut store = open(&server.url(), "node").expect("the store opens");
    assert_eq!(store.class(), Class::Power);
    begin(&mut store);
    server.query("ALTER SYSTEM SET synchronous_commit = off").expect("it is set");
    server.query("SELECT pg_reload_conf()").expect("it is read");
    wait_for(&server, "SELECT current_setting('synchronous_commit') = 'off'");
    for number in 1..4 {
        assert_eq!(turn(&mut store, number), Ok(()));
    }
    server.kill().expect("it is killed");
    server.restart().expect("it starts again");
    persist(&mut store, 4);
    check(&server, &mut store, 4);
}

#[test]
fn tables_that_a_crash_of_the_server_empties_are_as_good_as_memory() {
    let server = start(Version::V15, &[]);
    let store = open(&server.url(), "node").expect("the store opens");
    assert_eq!(store.class(), Class::Power);
    drop(store);
    server.query("ALTER TABLE conn_messages SET UNLOGGED").expect("it is set");
    assert_eq!(open(&server.url(), "node").expect("the store opens").class(), Class::Ram);
    let mut look = Look::open(&server.url().parse().expect("a URL")).expect("there are tables");
    let about = look.about().expect("it is asked");
    assert_eq!(about.class, Some(Class::Ram));
    assert_eq!(
        about.advice,
        ["conn_messages is emptied by a crash of the server: ALTER TABLE conn_messages SET LOGGED"]
    );
}

#[test]
fn a_node_that_stops_in_the_middle_of_a_turn_keeps_nobody_waiting() {
    let server = start(Version::V15, &[]);
    let hasty = format!("{}?statement_timeout=200&lock_timeout=100&application_name=hasty", server.url());
    let mut frozen = open(&hasty, "frozen").expect("the store opens");
    let mut other = open(&server.url(), "other").expect("the store opens");
    frozen.apply(&[OTHER]).expect("it is right");
    // It has to see what it has applied, and goes no further.
    frozen.inbox().expect("it is read");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        other.apply(&[OTHER]).expect("it is right");
        match other.commit() {
            Ok(()) => break,
            Err(fault) => assert_eq!(fault, StoreFault::Unavailable),
        }
        assert!(Instant::now() < until, "the keys of queues are locked for ever");
    }
    assert_eq!(frozen.commit(), Err(StoreFault::Unavailable), "{:?}", frozen.last_error());
    frozen.apply(&[OTHER]).and_then(|()| frozen.commit()).expect("it goes on");
}

#[test]
fn transactions_that_are_serializable_by_default_are_in_nobodys_way() {
    let server = start(Version::V15, &["default_transaction_isolation = serializable"]);
    let url = server.url();
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..8)
            .map(|node| {
                let url = format!("{url}?application_name=node{node}");
                scope.spawn(move || {
                    let mut store = open(&url, &format!("node-{node}")).expect("the store opens");
                    begin(&mut store);
                    for number in 1..=20 {
                        assert_eq!(turn(&mut store, number), Ok(()), "{:?}", store.last_error());
                    }
                })
            })
            .collect();
        assert!(nodes.into_iter().map(|node| node.join()).all(|ended| ended.is_ok()));
    });
}

#[test]
fn a_bound_of_transactions_ends_no_node() {
    let server = start(Version::V18, &[]);
    let url = format!("{}?options=-c%20transaction_timeout%3D300", server.url());
    let mut store = open(&url, "node").expect("the store opens");
    begin(&mut store);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sql = "BEGIN; SELECT 1 FROM liner_node FOR UPDATE; SELECT pg_sleep(3); COMMIT";
            server.query(sql).expect("it is locked and free again");
        });
        wait_for(&server, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        assert_eq!(turn(&mut store, 1), Err(StoreFault::Unavailable), "{:?}", store.last_error());
        assert!(store.last_error().expect("it says why").contains("transaction timeout"));
    });
    persist(&mut store, 1);
}

#[test]
fn a_permission_that_is_withdrawn_is_waited_for() {
    let server = start(Version::V15, &[]);
    drop(open(&server.url(), "owner").expect("the tables are made"));
    server.query("CREATE ROLE limited LOGIN").expect("the role is made");
    server.query(&liner_store_postgres::grants("public", "limited")).expect("the script runs");
    let url = format!("postgres://limited@{}/postgres", server.address());
    let mut store = open(&url, "node").expect("the store opens");
    begin(&mut store);
    server.query("REVOKE INSERT ON conn_messages FROM limited").expect("it is withdrawn");
    assert_eq!(turn(&mut store, 1), Err(StoreFault::Unavailable));
    assert!(store.last_error().expect("it says why").contains("permission denied for table conn_messages"));
    server.query("GRANT INSERT ON conn_messages TO limited").expect("it is given back");
    assert_eq!(turn(&mut store, 1), Ok(()));
}

#[test]
fn keys_that_have_run_out_are_no_room_and_no_end() {
    let server = start(Version::V15, &[]);
    let mut store = open(&server.url(), "node").expect("the store opens");
    begin(&mut store);
    server.query("INSERT INTO conn_key_map VALUES('by:hand:x', 2147483647)").expect("it is inserted");
    store.apply(&[OTHER]).expect("it is right");
    assert_eq!(store.commit(), Err(StoreFault::Full), "{:?}", store.last_error());
    assert!(store.last_error().expect("it says why").contains("integer out of range"));
    store
        .apply(&[StoreOp::Trim { queue: QUEUE, through: 0 }])
        .and_then(|()| store.commit())
        .expect("it goes on");
}

#[test]
fn asking_for_the_directory_takes_no_transaction_id() {
    let server = start(Version::V15, &[]);
    let mut store = open(&server.url(), "node").expect("the store opens");
    store.directory().expect("it is read");
    let next =
        || server.query("SELECT pg_snapshot_xmax(pg_current_snapshot())").expect("it is asked")[0][0].clone();
    let before = next();
    for _ in 0..20 {
        assert_eq!(store.directory().expect("it is read"), None);
    }
    assert_eq!(next(), before, "each one is written to the disk");
}

#[test]
fn what_the_database_cannot_be_is_said() {
    let server = start(Version::V15, &[]);
    for sql in [
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
        "CREATE DATABASE readonly",
        "ALTER DATABASE readonly SET default_transaction_read_only = on",
    ] {
        server.query(sql).expect("it is done");
    }
    for (database, words) in [
        ("latin", "the database has the encoding LATIN1: liner needs UTF8"),
        ("ascii", "the database has the encoding SQL_ASCII: liner needs UTF8"),
        ("readonly", "in a read-only transaction"),
    ] {
        let url = format!("postgres://postgres@{}/{database}", server.address());
        let refused = open(&url, "node").expect_err("it is refused").to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_name_may_have_whatever_a_text_may_have() {
    let server = start(Version::V15, &[]);
    for name in ["a\0b", "\u{f8fe}", "ü'\"\\;--", "{1,2}", " "] {
        let mut store = open(&server.url(), name).expect("the store opens");
        begin(&mut store);
        persist(&mut store, 1);
        drop(store);
        let inbox = liner_store_postgres::Inbox::open(&server.url().parse().expect("a URL"), name);
        let waiting = inbox.expect("it opens").waiting().expect("it is counted");
        assert_eq!(waiting.messages, 1, "{name:?}");
    }
}
