//! Paths and what is found there: links, files of others, files that go away; and what a user is told to do about it.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use liner_proto::effect::{StoreFault, StoreOp};
use liner_proto::store::Store as _;
use liner_store_sqlite::{OpenError, SqliteStore};
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

fn open_at(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, &options("sensor"))
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).expect("the folder is there").count()
}

/// Tries to append one message; says the fault of the turn.
fn try_append(store: &mut SqliteStore, number: u64) -> Result<(), StoreFault> {
    let records = numbered(number, number);
    store.apply(&[StoreOp::Append { queue: NODE, first: number, last: number, records: &records }])?;
    store.commit()
}

#[test]
fn nothing_is_committed_into_a_file_that_is_gone_and_it_goes_on_when_that_is_back() {
    for gone in ["liner.db", "liner.db-wal"] {
        let folder = tempdir().expect("a folder");
        let mut store = open(folder.path(), "sensor");
        apply(&mut store, &[OPEN]);
        assert_eq!(try_append(&mut store, 1), Ok(()));
        let (path, away) = (folder.path().join(gone), folder.path().join("away"));
        fs::rename(&path, &away).expect("it is renamed");
        // That the log is gone is noticed a little later.
        let mut last = 1;
        while last < 5 && try_append(&mut store, last + 1) == Ok(()) {
            last += 1;
        }
        assert!(last == 1 || last < 5 && gone != "liner.db", "{gone}: {last}");
        for _ in 0..5 {
            assert_eq!(try_append(&mut store, last + 1), Err(StoreFault::Unavailable), "{gone}");
            let said = store.last_error().expect("it says why");
            assert!(said.contains("was deleted or replaced while in use: stop the node"), "{said}");
            assert!(said.contains(&*path.to_string_lossy()), "{said}");
        }
        // Another file in its place is not it.
        fs::copy(&away, &path).expect("it is copied");
        assert_eq!(try_append(&mut store, last + 1), Err(StoreFault::Unavailable), "{gone}");
        fs::rename(&away, &path).expect("it is renamed");
        assert_eq!(try_append(&mut store, last + 1), Ok(()), "{gone}");
        drop(store);
        let mut store = open(folder.path(), "sensor");
        assert_eq!(drain(&mut store, NODE, 0, last + 1), []);
    }
}

#[test]
fn a_deleted_file_acknowledges_nothing() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    apply(&mut store, &[OPEN]);
    for entry in fs::read_dir(folder.path()).expect("the folder is there") {
        fs::remove_file(entry.expect("an entry").path()).expect("it is removed");
    }
    assert_eq!(try_append(&mut store, 1), Err(StoreFault::Unavailable));
}

#[test]
fn a_name_is_used_once_whatever_the_file_is_called() {
    let folder = tempdir().expect("a folder");
    let there = folder.path().join("there");
    fs::create_dir(&there).expect("it is made");
    let link = folder.path().join("link.db");
    symlink("also.db", &link).expect("it is linked");
    symlink("there/g.db", folder.path().join("also.db")).expect("it is linked");
    // There is no file yet where the link leads.
    let first = open_at(&link).expect("it opens");
    assert_eq!(first.path(), there.canonicalize().expect("it is there").join("g.db"));
    for path in [&link, &there.join("g.db"), &there.join("../there/g.db")] {
        let second = open_at(path);
        assert!(matches!(second, Err(OpenError::NameInUse { .. })), "{second:?}");
    }
    drop(first);
    open_at(&there.join("g.db")).expect("it opens");
    assert_eq!(count(folder.path()), 3, "nothing lies beside a link");
}

#[test]
fn a_link_to_nowhere_is_told() {
    let folder = tempdir().expect("a folder");
    let link = folder.path().join("link.db");
    symlink("missing/g.db", &link).expect("it is linked");
    let error = open_at(&link).expect_err("there is no such folder");
    assert!(matches!(&error, OpenError::DanglingLink { path, .. } if *path == link), "{error}");
    assert!(error.to_string().contains("missing, which does not exist; make that folder"), "{error}");
    let circle = folder.path().join("circle.db");
    symlink("circle.db", &circle).expect("it is linked");
    let error = open_at(&circle).expect_err("it leads nowhere");
    assert!(!error.to_string().contains("folder exists"), "{error}");
}

#[test]
fn a_file_with_two_names_is_refused() {
    let folder = tempdir().expect("a folder");
    drop(open(folder.path(), "sensor"));
    let second = folder.path().join("second.db");
    fs::hard_link(folder.path().join("liner.db"), &second).expect("it is linked");
    let error = try_open(folder.path(), &options("sensor")).expect_err("it has two names");
    assert!(matches!(error, OpenError::HardLinks { links: 2, .. }), "{error}");
    fs::remove_file(second).expect("it is removed");
    open(folder.path(), "sensor");
}

#[test]
fn what_was_never_a_database_is_left_alone() {
    let folder = tempdir().expect("a folder");
    let diary = folder.path().join("diary.txt");
    fs::write(&diary, "my diary\n").expect("it is written");
    for _ in 0..2 {
        let error = open_at(&diary).expect_err("it is a diary");
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
        assert!(error.to_string().contains("name a file that does not exist yet"), "{error}");
    }
    assert_eq!(fs::read(&diary).expect("it is read"), b"my diary\n");
    assert_eq!(count(folder.path()), 1);
    // An empty one is as good as none.
    fs::write(&diary, "").expect("it is written");
    assert!(open_at(&diary).expect("it opens").opened().created);
}

#[test]
fn damage_is_to_what_begins_like_a_database_or_has_a_file_of_ours_beside_it() {
    for (begins, beside) in [
        (&b"SQLite format 3\0"[..], None),
        (&[], Some("liner.db-wal")),
        (&[], Some("liner.db.ballast")),
        (&[], Some("liner.db.other.lock")),
    ] {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("liner.db");
        fs::write(&path, [begins, &[0x5a; 9000]].concat()).expect("it is written");
        if let Some(name) = beside {
            fs::write(folder.path().join(name), "").expect("it is written");
        }
        let store = open(folder.path(), "sensor");
        assert!(store.opened().quarantined.is_some(), "{beside:?}");
    }
}

#[test]
fn what_is_no_file_is_refused_before_anything_is_made() {
    let folder = tempdir().expect("a folder");
    let (socket, null) = (folder.path().join("socket"), folder.path().join("null"));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("it is bound");
    symlink("/dev/null", &null).expect("it is linked");
    for path in [&socket, &null, folder.path()] {
        let error = open_at(path).expect_err("it is no file");
        assert!(matches!(error, OpenError::NotAFile { .. }), "{error}");
    }
    assert_eq!(count(folder.path()), 2);
    assert!(!Path::new("/dev/null.sensor.lock").exists());
}

#[test]
fn errors_say_what_to_do() {
    let folder = tempdir().expect("a folder");
    let says = |said: &OpenError, words: &str| assert!(said.to_string().contains(words), "{said}");
    let missing = folder.path().join("missing");
    let error = try_open(&missing, &options("sensor")).expect_err("there is no such folder");
    says(&error, "make sure that its folder exists");
    let first = open(folder.path(), "sensor");
    let error = try_open(folder.path(), &options("sensor")).expect_err("the name is in use");
    says(&error, "stop it or choose another name");
    drop(first);

    let path = folder.path().join("liner.db");
    let conn = Connection::open(&path).expect("it opens");
    let set = |version: i64| conn.pragma_update(None, "user_version", version).expect("it is set");
    set(0);
    let error = try_open(folder.path(), &options("sensor")).expect_err("its schema has no number");
    assert!(matches!(error, OpenError::Unnumbered { known: 3, .. }), "{error}");
    says(&error, "PRAGMA user_version = 3");
    // Another number than that of its tables: SQLite says why, without the whole schema.
    set(1);
    let error = try_open(folder.path(), &options("sensor")).expect_err("its schema has another number");
    says(&error, "cannot upgrade");
    says(&error, "its tables are not those of its user_version");
    assert!(!error.to_string().contains("CREATE TABLE"), "{error}");
    set(3);
    open(folder.path(), "sensor");
}
