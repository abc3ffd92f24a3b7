//! Nodes of one process share their connections.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and how long it takes is tested"
)]

mod turns;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use liner_proto::effect::StoreFault;
use liner_proto::store::Store;
use liner_tests::servers::{PgBouncer, Pooling, Postgres, PostgresOptions, Version};
use turns::{begin, open, persist};

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'liner %'";

fn start() -> Postgres {
    Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts")
}

fn sessions(server: &Postgres) -> u32 {
    let rows = server.query(SESSIONS).expect("the server answers");
    rows[0][0].as_deref().and_then(|count| count.parse().ok()).expect("a number")
}

/// Waits for the server to see that connections have ended.
fn wait_for_sessions(server: &Postgres, count: u32) {
    let until = Instant::now() + Duration::from_secs(10);
    while sessions(server) != count {
        assert!(Instant::now() < until, "there are {} sessions, not {count}", sessions(server));
    }
}

#[test]
fn twenty_nodes_have_three_sessions() {
    let server = start();
    let url = format!("{}?max_connections=3", server.url());
    drop(open(&url, "first").expect("the tables are made"));
    let over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Acquire) {
                most = most.max(sessions(&server));
            }
            most
        });
        let nodes: Vec<_> = (0..20)
            .map(|node| {
                let url = &url;
                scope.spawn(move || {
                    let mut store = open(url, &format!("node-{node}")).expect("the store opens");
                    begin(&mut store);
                    (1..=20).for_each(|number| persist(&mut store, number));
                })
            })
            .collect();
        let outcomes: Vec<_> = nodes.into_iter().map(|node| node.join()).collect();
        over.store(true, Ordering::Release);
        assert!(outcomes.iter().all(Result::is_ok));
        watch.join().expect("it watched")
    });
    assert!((1..=3).contains(&most), "there were {most} sessions");
    let rows = server.query("SELECT count(*) FROM inbox").expect("the server answers");
    assert_eq!(rows[0][0].as_deref(), Some("400"));
}

#[test]
fn who_waits_in_vain_is_told_so() {
    let server = start();
    let url = format!("{}?max_connections=1&acquire_timeout=200ms", server.url());
    let mut holder = open(&url, "holder").expect("the store opens");
    let mut other = open(&url, "other").expect("the store opens");
    begin(&mut holder);
    // It has to see what it has applied, and keeps the connection for its turn.
    let inbox = liner_proto::effect::StoreOp::Inbox { epoch: liner_proto::id::Epoch(1) };
    holder.apply(&[inbox]).expect("it is right");
    holder.inbox().expect("it is read");
    assert_eq!(other.inbox(), Err(StoreFault::Unavailable));
    let words = other.last_error().expect("it says why").to_owned();
    assert_eq!(
        words,
        "all 1 connections of this process were in use for 200 ms: raise max_connections or acquire_timeout"
    );
    let refused = open(&url, "third").expect_err("there is none left").to_string();
    assert_eq!(refused, words);
    holder.commit().expect("nothing is in its way");
    other.inbox().expect("it is free again");
}

#[test]
fn idle_connections_are_closed_but_for_the_least_number() {
    let server = start();
    let url = format!("{}?min_connections=2&max_connections=5&idle_timeout=50ms", server.url());
    let mut stores: Vec<_> =
        (0..4).map(|node| open(&url, &format!("node-{node}")).expect("the store opens")).collect();
    assert_eq!(sessions(&server), 2);
    // Each of them keeps one as long as its turn lasts.
    for (store, epoch) in stores.iter_mut().zip(1..) {
        store
            .apply(&[liner_proto::effect::StoreOp::Inbox { epoch: liner_proto::id::Epoch(epoch) }])
            .expect("it is right");
        store.inbox().expect("it is read");
    }
    assert_eq!(sessions(&server), 4);
    for store in &mut stores {
        store.commit().expect("nothing is in its way");
    }
    let first = stores.first_mut().expect("there are four");
    let until = Instant::now() + Duration::from_secs(10);
    while sessions(&server) > 2 {
        assert!(Instant::now() < until, "they stay");
        first.inbox().expect("it is read");
    }
    drop(stores);
    wait_for_sessions(&server, 0);
}

#[test]
fn sessions_are_named_after_the_node_or_as_the_url_says() {
    let server = start();
    let names = || {
        let sql = "SELECT application_name FROM pg_stat_activity WHERE application_name ~ '^(liner|mine)' ORDER BY 1";
        let rows = server.query(sql).expect("the server answers");
        rows.into_iter().filter_map(|mut row| row.pop().flatten()).collect::<Vec<_>>()
    };
    let _one = open(&server.url(), "a node").expect("the store opens");
    let _two = open(&format!("{}?application_name=mine", server.url()), "a node").expect("the store opens");
    assert_eq!(names(), ["liner a node", "mine"]);
}

#[test]
fn a_pooler_of_transactions_may_stand_between() {
    let server = start();
    let pooler = PgBouncer::start(&server, Pooling::Transaction).expect("the pooler starts");
    // Each has connections of its own to the pooler, which has other ones for each transaction.
    let urls = [1, 2, 3].map(|node| format!("{}?application_name=node-{node}", pooler.url()));
    for life in 0..2 {
        std::thread::scope(|scope| {
            for (name, url) in ["a", "b", "c"].into_iter().zip(&urls) {
                scope.spawn(move || {
                    let mut store = open(url, name).expect("the store opens");
                    if life == 0 {
                        begin(&mut store);
                    }
                    (1..=50).for_each(|number| persist(&mut store, life * 50 + number));
                });
            }
        });
    }
    // Of each node the last three messages, and all that it was delivered.
    let kept = "SELECT count(*), min(number), max(number), (SELECT count(*) FROM inbox) FROM conn_messages";
    let kept = server.query(kept).expect("it is asked").swap_remove(0);
    assert_eq!(kept.into_iter().flatten().collect::<Vec<_>>(), ["9", "98", "100", "300"]);
    let refused = open(&format!("{}?options=-c%20geqo%3Doff", pooler.url()), "d").expect_err("it takes none");
    assert!(refused.to_string().contains("unsupported startup parameter: options"), "{refused}");
}
