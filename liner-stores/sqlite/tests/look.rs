//! A look at a file from outside, and what is done with dead letters there.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::path::Path;

use liner_proto::effect::{DeadReason, StoreOp};
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Topic};
use liner_store_sqlite::{DeadLetter, Look, LookError, Pending, Target};
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

fn look(folder: &Path) -> Look {
    Look::open(folder.join("liner.db")).expect("it can be looked at")
}

fn record(topic: &str, payload: &[u8]) -> Vec<u8> {
    message(&Header::new(Mode::One, Topic::Text(topic)), payload)
}

/// Dead letters of the node `sensor`, which has a queue for the gateway: peer, topic, reason and payload of each.
fn put_aside(folder: &Path, letters: &[(&str, &str, DeadReason, &str)]) {
    let mut store = open(folder, "sensor");
    apply(&mut store, &[OPEN]);
    for &(peer, topic, reason, payload) in letters {
        let record = record(topic, payload.as_bytes());
        apply(&mut store, &[StoreOp::DeadLetter { peer, topic, reason, record: &record }]);
    }
}

fn run_sql(folder: &Path, sql: &str) {
    Connection::open(folder.join("liner.db"))
        .and_then(|conn| conn.execute_batch(sql))
        .expect("it is executed");
}

fn ids(look: &Look) -> Vec<i64> {
    let letters = look.dead_letters(None, i64::MIN, 1000).expect("they are read");
    letters.iter().map(|letter| letter.id).collect()
}

fn is_why(refused: Result<u64, LookError>, words: &str) -> bool {
    matches!(refused, Err(LookError::NotQueued { why, .. }) if why.contains(words))
}

#[test]
fn who_uses_the_file_now_is_known_by_its_name() {
    let folder = tempdir().expect("a folder");
    let store = open(folder.path(), "sensor");
    let look = look(folder.path());
    assert_eq!(["sensor", "senso"].map(|name| look.is_running(name)), [true, false]);
    drop(store);
    assert!(!look.is_running("sensor"), "its lock stays, and nobody holds it");
    drop(open(folder.path(), "sensor"));
}

#[test]
fn long_dead_letters_are_read_few_at_a_time() {
    let folder = tempdir().expect("a folder");
    let long = "x".repeat(600_000);
    let letter = ("gateway", "t", DeadReason::Expired, &*long);
    put_aside(folder.path(), &[letter; 5]);
    let look = look(folder.path());
    let page = |after| look.dead_letters(None, after, 1000).expect("they are read");
    let seen = [0, 2, 4, 5].map(|after| page(after).iter().map(|letter| letter.id).collect::<Vec<_>>());
    assert_eq!(seen, [vec![1, 2], vec![3, 4], vec![5], vec![]]);
}

#[test]
fn a_damaged_row_is_listed_and_dropped() {
    let folder = tempdir().expect("a folder");
    let folder = folder.path();
    put_aside(folder, &[("gateway", "t", DeadReason::Expired, "payload"); 4]);
    // A payload that is not what was sent, a record that is no blob, names that are no text.
    run_sql(
        folder,
        "UPDATE dead_letters SET record = CAST(replace(CAST(record AS TEXT), 'payload', 'quayload') AS BLOB) WHERE id = 1;
         UPDATE dead_letters SET record = 5, reason = 'x' WHERE id = 2;
         UPDATE dead_letters SET owner = x'ff41', peer = 3 WHERE id = 3;",
    );
    let mut look = look(folder);
    let payloads = |letter: DeadLetter| letter.payload.map(|payload| payload.len());
    let letters = look.dead_letters(None, 0, 10).expect("damage hides nothing");
    assert_eq!(letters.into_iter().map(payloads).collect::<Vec<_>>(), [None, None, None, Some(7)]);
    for id in 1..=3 {
        assert!(is_why(look.redrive(&[id]), "its record is damaged"), "{id}");
    }
    assert_eq!(look.drop_dead_letters(&[2, 1, 3]).expect("they are dropped"), 3);
    assert_eq!(ids(&look), [4]);
}

#[test]
fn what_is_named_twice_is_done_once() {
    let folder = tempdir().expect("a folder");
    put_aside(folder.path(), &[("gateway", "t", DeadReason::Expired, "x"); 3]);
    let mut look = look(folder.path());
    assert_eq!(look.redrive(&[2, 2]).expect("it is queued"), 1);
    assert_eq!(look.drop_dead_letters(&[1, 1, 3, 1]).expect("they are dropped"), 2);
    assert!(matches!(look.drop_dead_letters(&[1]), Err(LookError::NoSuchLetter { id: 1 })));
    assert!(matches!(look.redrive(&[2]), Err(LookError::NoSuchLetter { id: 2 })));
    assert_eq!(ids(&look), []);
}

#[test]
fn what_is_queued_again_for_the_node_itself_counts_as_pending_before_it_starts() {
    let folder = tempdir().expect("a folder");
    let folder = folder.path();
    put_aside(folder, &[("boiler", "t", DeadReason::Failed, "xyz"); 2]);
    assert_eq!(look(folder).redrive(&[1, 2]).expect("they are queued"), 2);
    let waits = |owner| {
        let pending = look(folder).pending(owner).expect("it is counted");
        let seen = |queue: Pending| (queue.owner, queue.target, queue.messages);
        pending.into_iter().map(seen).collect::<Vec<_>>()
    };
    let wanted = [("sensor".to_owned(), Target::Node("sensor".to_owned()), 2)];
    assert_eq!((waits(None), waits(Some("sensor"))), (wanted.to_vec(), wanted.to_vec()));
    assert_eq!(waits(Some("boiler")), []);
    drop(open(folder, "sensor"));
    assert_eq!(waits(None), wanted, "and once");
}

#[test]
fn what_is_queued_again_counts_as_pending_also_if_it_is_empty() {
    let folder = tempdir().expect("a folder");
    let folder = folder.path();
    put_aside(
        folder,
        &[("gateway", "t", DeadReason::Expired, ""), ("gateway", "t", DeadReason::Expired, "x")],
    );
    assert_eq!(look(folder).redrive(&[1, 2]).expect("they are queued"), 2);
    let messages = || {
        let pending = look(folder).pending(None).expect("it is counted");
        pending.iter().map(|queue| queue.messages).sum::<u64>()
    };
    assert_eq!(messages(), 2, "before its node has started");
    let mut store = open(folder, "sensor");
    assert_eq!(messages(), 2, "and once");
    let mut into = vec![0; 1000];
    let loaded = store.load(NODE, 0, &mut into).expect("it is read");
    let wanted = run([record("t", b""), record("t", b"x")]);
    assert!(into.starts_with(&wanted), "{loaded:?}");
}

#[test]
fn what_has_come_from_somebody_does_not_go_back_there() {
    let folder = tempdir().expect("a folder");
    let folder = folder.path();
    let (no_room, unsubscribed) = (DeadReason::Quota, DeadReason::Unsubscribed);
    put_aside(folder, &[("gateway", "t", unsubscribed, "1"), ("gateway", "t", no_room, "2")]);
    // One that hands on what it takes has no rows.
    assert!(is_why(look(folder).redrive(&[1]), "it has not subscribed to t"));
    let subscribe = |topic| {
        apply(
            &mut open(folder, "sensor"),
            &[StoreOp::Subscribe { topic, address: "@gateway", name: "gateway" }],
        );
    };
    subscribe("gateway");
    for id in [1, 2] {
        assert!(is_why(look(folder).redrive(&[id]), "it has not subscribed to t"), "{id}");
    }
    subscribe("t");
    assert_eq!(look(folder).redrive(&[1, 2]).expect("it takes them now"), 2);
}

#[test]
fn a_node_that_may_be_started_is_told_from_a_mistaken_name_and_from_damage() {
    let folder = tempdir().expect("a folder");
    let folder = folder.path();
    put_aside(folder, &[]);
    let path = folder.join("liner.db");
    let vouch_for = |name| Look::vouch_for(&path, name);
    vouch_for("sensor").expect("it has used the file");
    assert!(matches!(vouch_for("senso"), Err(LookError::NoSuchNode { .. })));
    // Whatever else keeps a file from being opened, the node says, or helps itself.
    std::fs::create_dir(folder.join("liner.db-wal")).expect("it is made");
    assert!(matches!(Look::open(&path), Err(LookError::Open(_))));
    vouch_for("sensor").expect("nothing speaks against it");
    std::fs::remove_dir(folder.join("liner.db-wal")).expect("it is empty");
    let mut bytes = std::fs::read(&path).expect("it is read");
    let root: u32 = Connection::open(&path)
        .and_then(|conn| {
            conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'segments'", [], |row| row.get(0))
        })
        .expect("a table");
    bytes[(root as usize - 1) * 4096..][..8].fill(0xff);
    std::fs::write(&path, bytes).expect("it is written");
    assert!(matches!(vouch_for("sensor"), Err(LookError::Damaged { .. })));
}

#[test]
fn two_who_queue_the_same_again_queue_it_once() {
    let folder = tempdir().expect("a folder");
    let folder = folder.path();
    put_aside(folder, &[("gateway", "t", DeadReason::Expired, "x"); 20]);
    let all: Vec<i64> = (1..=20).collect();
    let done = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| look(folder).redrive(&all).is_ok()));
        both.map(|one| one.join().expect("it ends"))
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    assert_eq!(look(folder).pending(None).expect("it is counted")[0].messages, 20);
    drop(open(folder, "sensor"));
    let pending = look(folder).pending(Some("sensor")).expect("it is counted");
    assert_eq!(pending.iter().map(|queue| queue.messages).collect::<Vec<_>>(), [20]);
}
