//! The file and what lies beside it: who may read it, who may open it, what becomes of one that is not as it should be.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use liner_proto::effect::{Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::{Class, Epoch, Predecessor};
use liner_proto::store::Store as _;
use liner_store_sqlite::{OpenError, Options};
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_file_is_for_this_user_only() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    let names = files(folder.path());
    assert_eq!(
        names,
        ["liner.db", "liner.db-shm", "liner.db-wal", "liner.db.ballast", "liner.db.sensor.lock"]
    );
    for name in names {
        let file = fs::metadata(folder.path().join(&name)).expect("the file is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let ballast = fs::metadata(folder.path().join("liner.db.ballast")).expect("the file is there");
    assert!(ballast.blocks() * 512 >= 8 << 20, "it takes its space");
}

#[test]
fn a_name_is_used_once_at_a_time() {
    let folder = tempdir().expect("a folder");
    let first = open(folder.path(), "sensor");
    let second = try_open(folder.path(), &options("sensor"));
    assert!(matches!(&second, Err(OpenError::NameInUse { name }) if name == "sensor"), "{second:?}");
    let other = open(folder.path(), "sensor2");
    drop(first);
    open(folder.path(), "sensor");
    drop(other);
}

#[test]
fn nodes_of_one_file_have_nothing_in_common() {
    let folder = tempdir().expect("a folder");
    let mut one = open(folder.path(), "one");
    let mut two = open(folder.path(), "two");
    for (store, last) in [(&mut one, 5), (&mut two, 9)] {
        apply(store, &[StoreOp::Inbox { epoch: Epoch(last) }, OPEN]);
        append(NODE, 1, last, store);
        apply(store, &[StoreOp::Cursor { peer: "p", epoch: EPOCH, through: last }]);
    }
    apply(&mut one, &[StoreOp::Trim { queue: NODE, through: 2 }]);
    append(NODE, 10, 12, &mut two);
    append(NODE, 6, 7, &mut one);
    for (store, inbox, trimmed, last) in [(&mut one, 5, 2, 7), (&mut two, 9, 0, 12)] {
        let told = told(store);
        assert_eq!(told.node, Some((Epoch(inbox), false)));
        assert_eq!(told.cursors, [("p".to_owned(), EPOCH, inbox)]);
        let [(_, queue)] = &told.queues[..] else { panic!("{told:?}") };
        assert_eq!((queue.trimmed, queue.last, queue.messages), (trimmed, last, last - trimmed));
        assert_eq!(drain(store, NODE, trimmed, last), []);
        assert_eq!(store.queued(NODE), Ok((last - trimmed, numbered(trimmed + 1, last).len() as u64)));
    }
    apply(&mut one, &[StoreOp::Close { queue: NODE }]);
    assert_eq!(drain(&mut two, NODE, 0, 12), []);
}

#[test]
fn what_another_node_does_meanwhile_is_seen() {
    let folder = tempdir().expect("a folder");
    let (mut one, mut two) = (open(folder.path(), "one"), open(folder.path(), "two"));
    let row = |name| StoreOp::Subscribe { topic: "t", address: "a", name };
    apply(&mut one, &[OPEN, row("first")]);
    // A turn of one node holds the other one up and does not mix with it.
    assert_eq!(one.apply(&[row("second")]), Ok(()));
    let mut names = Vec::new();
    two.recover(&mut |fact| {
        if let liner_proto::effect::Recovered::Subscription { name, .. } = fact {
            names.push(name.to_owned());
        }
    })
    .expect("it can be read");
    assert_eq!(names, ["first"]);
    assert_eq!(one.commit(), Ok(()));
    apply(&mut two, &[row("third"), OPEN]);
    append(NODE, 1, 3, &mut two);
    append(NODE, 1, 2, &mut one);
    assert_eq!(drain(&mut one, NODE, 0, 2), []);
}

#[test]
fn a_name_of_a_file_is_no_address() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("file:liner.db?mode=memory");
    drop(liner_store_sqlite::SqliteStore::open(&path, &options("sensor")).expect("it opens"));
    assert!(path.exists());
}

#[test]
fn what_was_not_committed_is_gone() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    append(NODE, 1, 2, &mut store);
    let records = numbered(3, 4);
    let more = StoreOp::Append { queue: NODE, first: 3, last: 4, records: &records };
    assert_eq!(store.apply(&[more]), Ok(()));
    assert_eq!(store.close(), Ok(()));
    let mut store = open(folder.path(), "sensor");
    assert!(!store.opened().unclean);
    assert_eq!(told(&mut store).queues[0].1.last, 2);
}

#[test]
fn a_newer_schema_is_left_alone() {
    let folder = tempdir().expect("a folder");
    drop(open(folder.path(), "sensor"));
    let path = folder.path().join("liner.db");
    let conn = Connection::open(&path).expect("it opens");
    conn.pragma_update(None, "user_version", 99).expect("it is set");
    drop(conn);
    let before = fs::read(&path).expect("it is read");
    let error = try_open(folder.path(), &options("sensor")).expect_err("it is too new");
    assert!(matches!(error, OpenError::NewerSchema { found: 99, .. }), "{error}");
    assert!(fs::read(&path).expect("it is read") == before);
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("liner.db");
    let conn = Connection::open(&path).expect("it opens");
    conn.execute_batch("CREATE TABLE theirs(x); INSERT INTO theirs VALUES(1);").expect("it is filled");
    drop(conn);
    let before = fs::read(&path).expect("it is read");
    let error = try_open(folder.path(), &options("sensor")).expect_err("it is theirs");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(fs::read(&path).expect("it is read") == before);
}

#[test]
fn what_is_no_database_any_more_is_put_aside() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("liner.db");
    drop(open(folder.path(), "sensor"));
    for round in 1..=2 {
        fs::write(&path, format!("no database, {round}, but long enough to look like one {:0200}", 0))
            .expect("it is written");
        let mut store = open(folder.path(), "sensor");
        let aside = folder.path().join(format!("liner.db.corrupt-{round}"));
        assert_eq!(store.opened().quarantined.as_deref(), Some(&*aside));
        assert!(store.opened().created);
        assert!(fs::read_to_string(&aside).expect("it is there").contains(&format!("no database, {round}")));
        apply(&mut store, &[OPEN]);
        append(NODE, 1, 3, &mut store);
        assert_eq!(drain(&mut store, NODE, 0, 3), []);
    }
}

#[test]
fn a_damaged_file_in_use_stays_where_it_is() {
    let folder = tempdir().expect("a folder");
    let mut one = open(folder.path(), "one");
    apply(&mut one, &[OPEN]);
    append(NODE, 1, 300, &mut one);
    drop(one);
    let path = folder.path().join("liner.db");
    let bytes = fs::read(&path).expect("it is read");
    let other = open(folder.path(), "other");
    let ruined: Vec<u8> =
        bytes.iter().enumerate().map(|(at, &byte)| if at < 4096 { 0x55 } else { byte }).collect();
    fs::write(&path, ruined).expect("it is written");
    // The log of the other node still has the first page, so that it takes a second look without it to see the damage.
    fs::remove_file(folder.path().join("liner.db-wal")).expect("it is removed");
    let error = try_open(folder.path(), &options("one")).expect_err("it is damaged and in use");
    assert!(matches!(error, OpenError::DamagedInUse { .. }), "{error}");
    assert!(path.exists());
    drop(other);
    let store = open(folder.path(), "one");
    assert!(store.opened().quarantined.is_some());
}

#[test]
fn a_loss_of_power_below_its_class_is_told_until_every_queue_has_a_new_epoch() {
    let folder = tempdir().expect("a folder");
    let boot = |boot: &str, durability| Options { boot_id: boot.to_owned(), durability, ..options("sensor") };
    let second = Queue::Topic("second");
    let mut store = try_open(folder.path(), &boot("1", Class::Process)).expect("it opens");
    let inbox = StoreOp::Inbox { epoch: Epoch(1) };
    apply(&mut store, &[inbox, OPEN, StoreOp::Open { queue: second, epoch: EPOCH }]);
    let regressed = |store: &mut _| told(store).node.map(|(_, regressed)| regressed);
    assert_eq!(regressed(&mut store), Some(false));
    // A node that dies leaves its locks to others, and no word: so does one that is forgotten, but for the lock.
    let die = |store: liner_store_sqlite::SqliteStore| {
        drop(store);
        let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
        conn.execute("UPDATE node SET clean = 0", []).expect("it is set");
    };
    die(store);
    // The process died: nothing is missing.
    let mut store = try_open(folder.path(), &boot("1", Class::Process)).expect("it opens");
    assert!(store.opened().unclean);
    assert_eq!(regressed(&mut store), Some(false));
    drop(store);
    // It was closed before the operating system went down: nothing is missing.
    let mut store = try_open(folder.path(), &boot("2", Class::Process)).expect("it opens");
    assert!(!store.opened().unclean);
    assert_eq!(regressed(&mut store), Some(false));
    die(store);
    // The operating system went down with it.
    let mut store = try_open(folder.path(), &boot("3", Class::Process)).expect("it opens");
    assert_eq!(regressed(&mut store), Some(true));
    // Whoever dies before all queues have a new epoch is told again, in the same run of the operating system, too.
    let predecessor = Predecessor { epoch: EPOCH, old_first: 1, count: 1 };
    apply(&mut store, &[StoreOp::Rotate { queue: NODE, epoch: Epoch(8), predecessor }]);
    apply(&mut store, &[StoreOp::Reserve { queue: second, through: 100 }]);
    drop(store);
    let mut store = try_open(folder.path(), &boot("3", Class::Power)).expect("it opens");
    assert_eq!(store.class(), Class::Power);
    assert_eq!(regressed(&mut store), Some(true));
    apply(&mut store, &[StoreOp::Rotate { queue: second, epoch: Epoch(9), predecessor }]);
    die(store);
    // Under the higher class nothing can be missing.
    let mut store = try_open(folder.path(), &boot("4", Class::Process)).expect("it opens");
    assert_eq!(regressed(&mut store), Some(false));
}

#[test]
fn a_store_without_room_says_so_and_goes_on_when_there_is_some() {
    let folder = tempdir().expect("a folder");
    let limited = Options { limit_bytes: Some(2 << 20), ..options("sensor") };
    let mut store = try_open(folder.path(), &limited).expect("it opens");
    apply(&mut store, &[OPEN]);
    let records = run([vec![0x40; 100_000]]);
    let mut last = 0;
    let full = (0..100).find_map(|_| {
        let append = StoreOp::Append { queue: NODE, first: last + 1, last: last + 1, records: &records };
        let outcome = store.apply(&[append]);
        last += u64::from(outcome.is_ok());
        outcome.err()
    });
    assert_eq!(full, Some(StoreFault::Full));
    assert!((10..21).contains(&last), "{last}");
    // What was applied before in the same turn is committed.
    assert_eq!(store.commit(), Ok(()));
    drop(store);
    let mut store = try_open(folder.path(), &limited).expect("it opens");
    assert_eq!(told(&mut store).queues[0].1.last, last);
    let size = fs::metadata(folder.path().join("liner.db")).expect("the file is there").len();
    assert!(size <= 2 << 20, "{size}");
}

#[test]
fn messages_of_a_stream_whose_row_is_gone_become_dead_letters() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sen:sor");
    apply(&mut store, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    append(NODE, 1, 5, &mut store);
    append(NODE, 6, 7, &mut store);
    drop(store);
    let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
    conn.execute("DELETE FROM conn_key_map", []).expect("it is deleted");
    let store = open(folder.path(), "other");
    assert_eq!(store.opened().orphaned, 0, "they are not the other node's");
    let mut store = open(folder.path(), "sen:sor");
    assert_eq!((store.opened().orphaned, store.opened().damaged), (7, 0));
    assert_eq!(told(&mut store).queues, []);
    let mut select = conn
        .prepare("SELECT owner, peer, topic, reason, record FROM dead_letters ORDER BY id")
        .expect("it is prepared");
    let letters: Vec<(String, String, String, u8, Vec<u8>)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .expect("it is asked")
        .collect::<Result<_, _>>()
        .expect("rows");
    assert_eq!(letters.len(), 7);
    for (number, (owner, peer, topic, reason, record)) in (1..).zip(&letters) {
        assert_eq!((&**owner, &**peer, &**topic, *reason), ("sen:sor", "gateway", "readings", 4));
        assert_eq!(run([record]), numbered(number, number));
    }
    // A new life of the stream gets another key, and none of what was before.
    apply(&mut store, &[StoreOp::Open { queue: NODE, epoch: Epoch(9) }]);
    assert_eq!(store.load(NODE, 0, &mut [0; 64]), Ok(Loaded::Nothing));
    append(NODE, 1, 2, &mut store);
    assert_eq!(drain(&mut store, NODE, 0, 2), []);
    let key: i64 =
        conn.query_row("SELECT connection_key FROM conn_key_map", [], |row| row.get(0)).expect("a row");
    assert_eq!(key, 2);
}

#[test]
fn a_store_without_room_for_a_ballast_says_how_much_it_needs() {
    let folder = tempdir().expect("a folder");
    assert_eq!(open(folder.path(), "sensor").opened().needs_free, None);
    let ballast = folder.path().join("liner.db.ballast");
    fs::remove_file(&ballast).expect("it is removed");
    // A folder in its place keeps it from being made.
    fs::create_dir(ballast).expect("it is made");
    assert_eq!(open(folder.path(), "sensor").opened().needs_free, Some(3 << 20));
}
