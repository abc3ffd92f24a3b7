//! Servers that die, freeze, or lose what they had, and connections that are cut: each turn is there once or not at all, and the store says which.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and how long it takes is tested"
)]

mod turns;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use liner_proto::effect::{Recovered, StoreFault};
use liner_proto::store::Store;
use liner_store_postgres::PostgresStore;
use liner_tests::conformance::View;
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{PATIENCE, Postgres, PostgresOptions, Version};
use turns::{QUEUE, begin, check, open, persist, resolve, turn};

fn start() -> Postgres {
    Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts")
}

fn opened(url: &str) -> PostgresStore {
    let mut store = open(url, "node").expect("the store opens");
    begin(&mut store);
    store
}

#[test]
fn a_server_that_is_killed_in_mid_stream_loses_nothing_and_doubles_nothing() {
    let server = start();
    let mut store = opened(&server.url());
    let mut number = 0;
    for round in 0..10_u64 {
        let (kill, killed) = mpsc::channel();
        let (server, store) = (&server, &mut store);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                killed.recv().expect("the word comes");
                server.kill().expect("it is killed");
            });
            for step in 0.. {
                if step == round * 3 {
                    kill.send(()).expect("somebody listens");
                }
                match turn(store, number + 1) {
                    Ok(()) => number += 1,
                    Err(fault) => {
                        server.restart().expect("it starts again");
                        let up = Instant::now();
                        if fault == StoreFault::Unknown {
                            number += u64::from(resolve(store).is_ok());
                        } else {
                            assert_eq!(fault, StoreFault::Unavailable);
                        }
                        persist(store, number + 1);
                        number += 1;
                        assert!(up.elapsed() < Duration::from_secs(1), "it took {:?}", up.elapsed());
                        break;
                    }
                }
            }
        });
        check(server, store, number);
    }
}

/// How many bytes the request of a turn has, and its reply.
fn measure(cutter: &Cutter, store: &mut PostgresStore, number: u64) -> [u64; 2] {
    let before = [Way::Request, Way::Reply].map(|way| cutter.passed(way));
    turn(store, number).expect("nothing is in its way");
    [cutter.passed(Way::Request) - before[0], cutter.passed(Way::Reply) - before[1]]
}

#[test]
fn a_commit_that_is_cut_anywhere_is_there_once_or_not_at_all() {
    let server = start();
    let cutter = Cutter::start(server.address()).expect("a port is free");
    let mut store = opened(&format!("postgres://postgres@{}/postgres", cutter.address()));
    for number in 1..5 {
        turn(&mut store, number).expect("nothing is in its way");
    }
    let sizes = measure(&cutter, &mut store, 5);
    let (mut number, mut cuts, mut told) = (5, 0, [0; 3]);
    for ((way, size), step) in [Way::Request, Way::Reply].into_iter().zip(sizes).zip([41, 7]) {
        for after in (0..size).step_by(step) {
            cutter.plan(Cut { way, after, marker: Vec::new(), refuse: false });
            let outcome = turn(&mut store, number + 1);
            assert!(cutter.wait_for_cuts(cuts + 1, PATIENCE), "{way:?} {after}: {outcome:?}");
            cuts += 1;
            let is_done = match outcome {
                Ok(()) => true,
                Err(StoreFault::Unavailable) => false,
                Err(fault) => {
                    assert_eq!(fault, StoreFault::Unknown, "{way:?} {after}");
                    told[2] += 1;
                    resolve(&mut store).is_ok()
                }
            };
            told[usize::from(is_done)] += 1;
            number += u64::from(is_done);
            let found = server.query("SELECT through FROM inbound_cursor").expect("the server answers");
            assert_eq!(found[0][0].as_deref(), Some(&*number.to_string()), "{way:?} {after}");
        }
    }
    cutter.spare();
    check(&server, &mut store, number);
    assert!(told[1] > 0 && told[2] > 0, "{told:?}");
}

#[test]
fn an_opening_that_is_cut_anywhere_can_be_done_again() {
    let server = start();
    let cutter = Cutter::start(server.address()).expect("a port is free");
    let url = format!("postgres://postgres@{}/postgres", cutter.address());
    drop(open(&url, "node").expect("the store opens"));
    let before = cutter.passed(Way::Reply);
    drop(open(&url, "node").expect("the store opens"));
    let size = cutter.passed(Way::Reply) - before;
    for after in (0..size).step_by(199) {
        cutter.cut_reply_after(after);
        drop(open(&url, "node"));
        cutter.spare();
        let store = open(&url, "node").expect("the store opens");
        assert_eq!(store.opened().damaged, 0, "{after}");
    }
}

#[test]
fn a_server_that_is_down_or_frozen_is_not_waited_for_for_ever() {
    let server = start();
    let url = format!("{}?statement_timeout=300&connect_timeout=1", server.url());
    let mut store = opened(&url);
    persist(&mut store, 1);
    server.freeze().expect("it is up");
    let before = Instant::now();
    assert_eq!(turn(&mut store, 2), Err(StoreFault::Unknown));
    assert_eq!(store.resolve(), Err(StoreFault::Unavailable));
    assert!(store.last_error().expect("it says why").contains("no answer within 1000 ms"));
    let refused = open(&url, "other").expect_err("it is frozen").to_string();
    assert!(refused.contains("no answer within 1000 ms"), "{refused}");
    assert!(before.elapsed() < Duration::from_secs(10));
    server.thaw().expect("it is up");
    let done = resolve(&mut store).is_ok();
    persist(&mut store, 2 + u64::from(done));
    check(&server, &mut store, 2 + u64::from(done));

    server.kill().expect("it is killed");
    let refused = open(&url, "other").expect_err("it is down").to_string();
    assert!(refused.contains("refused") && refused.contains("see that it runs"), "{refused}");
    assert_eq!(turn(&mut store, 4), Err(StoreFault::Unavailable));
}

#[test]
fn a_name_that_was_taken_meanwhile_is_lost_with_the_turn_in_doubt() {
    let server = start();
    let cutter = Cutter::start(server.address()).expect("a port is free");
    let mut store = opened(&format!("postgres://postgres@{}/postgres", cutter.address()));
    persist(&mut store, 1);
    cutter.plan(Cut { way: Way::Reply, after: 0, marker: b"COMMIT".to_vec(), refuse: true });
    assert_eq!(turn(&mut store, 2), Err(StoreFault::Unknown));
    assert_eq!(store.resolve(), Err(StoreFault::Unavailable));
    let mut newer = open(&server.url(), "node").expect("the store opens");
    cutter.refuse(false).expect("its port is free");
    assert_eq!(resolve(&mut store), Err(StoreFault::Superseded));
    assert_eq!(turn(&mut store, 2), Err(StoreFault::Superseded));
    drop(store);
    // Whether it was committed before the server saw that the connection is gone, the newer one knows; nothing of it came later.
    let last = View::of(&mut newer).queue(QUEUE).last;
    assert!((1..=2).contains(&last), "{last}");
    persist(&mut newer, last + 1);
    check(&server, &mut newer, last + 1);
}

fn put_back(server: &Postgres, name: &str) {
    server.kill().expect("it is killed");
    server.restore(name).expect("there is a backup");
    server.restart().expect("it starts again");
}

fn back_up(server: &Postgres, name: &str) {
    server.stop().expect("it stops");
    server.back_up(name).expect("it is down");
    server.restart().expect("it starts again");
}

#[test]
fn a_database_that_went_back_under_a_living_store_is_found_out() {
    let server = start();
    drop(opened(&server.url()));
    back_up(&server, "before");
    let mut store = open(&server.url(), "node").expect("the store opens");
    persist(&mut store, 1);
    back_up(&server, "during");
    persist(&mut store, 2);
    put_back(&server, "during");
    assert_eq!(turn(&mut store, 3), Err(StoreFault::Regressed));
    // A copy from before the node was opened has another instance of it, which is none that took the name over.
    put_back(&server, "before");
    assert_eq!(turn(&mut store, 3), Err(StoreFault::Regressed));
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

#[test]
fn a_server_of_another_timeline_makes_the_node_regressed() {
    let server = start();
    drop(opened(&server.url()));
    server.stop().expect("it stops");
    server.restart().expect("it starts again");
    assert!(!is_regressed(&mut open(&server.url(), "node").expect("the store opens")));
    server.stop().expect("it stops");
    std::fs::write(server.data().join("standby.signal"), "").expect("the data are there");
    server.restart().expect("it starts again");
    let refused = open(&server.url(), "node").expect_err("it is a standby").to_string();
    assert!(refused.contains("is a standby"), "{refused}");
    server.query("SELECT pg_promote()").expect("it becomes a primary");
    assert!(is_regressed(&mut open(&server.url(), "node").expect("the store opens")));
}

#[test]
fn what_showed_that_a_database_went_back_is_known_at_the_next_start() {
    let server = start();
    let mut store = opened(&server.url());
    persist(&mut store, 1);
    back_up(&server, "during");
    persist(&mut store, 2);
    put_back(&server, "during");
    assert_eq!(turn(&mut store, 3), Err(StoreFault::Regressed));
    drop(store);
    // The peer may have had message 2: another one must not bear its number.
    assert!(is_regressed(&mut open(&server.url(), "node").expect("the store opens")));
}

#[test]
fn two_instances_with_the_same_token_are_told_apart() {
    let server = start();
    drop(opened(&server.url()));
    let mut lost = open(&server.url(), "node").expect("the store opens");
    // A standby that had not heard of that opening has taken the place of the server.
    server.query("UPDATE liner_node SET token = token - 1").expect("it is done");
    let mut other = open(&server.url(), "node").expect("the store opens");
    assert_eq!(turn(&mut lost, 1), Err(StoreFault::Superseded));
    assert_eq!(turn(&mut other, 1), Ok(()));
    drop(lost);
    let rows = server.query("SELECT clean FROM liner_node").expect("the server answers");
    assert_eq!(rows[0][0].as_deref(), Some("f"), "the other one has not ended");
}

#[test]
fn a_token_that_was_taken_late_for_this_instance_ends_nothing() {
    let server = start();
    let mut store = opened(&server.url());
    persist(&mut store, 1);
    // An earlier question about the token, which the server carries out when nobody waits for its answer any more.
    server.query("UPDATE liner_node SET token = token + 1").expect("it is done");
    assert_eq!(turn(&mut store, 2), Err(StoreFault::Unavailable));
    assert_eq!(turn(&mut store, 2), Ok(()));
    check(&server, &mut store, 2);
}
