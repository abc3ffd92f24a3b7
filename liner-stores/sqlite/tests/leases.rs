//! The lock of a node's name is its lease: the directory says who runs.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test may fail, and its child speaks to it")]
#![cfg(unix)]

use std::env;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use liner_proto::effect::StoreOp;
use liner_proto::router::Standing;
use liner_proto::store::Store as _;
use liner_store_sqlite::{OpenError, SqliteStore};
use tempfile::tempdir;

mod common;
use common::*;

/// Where the test, run anew as a child, has its name until it is killed.
const FOLDER: &str = "LINER_TEST_LEASE_FOLDER";

/// A child holds the locks of this process between its fork and the start of its program: while one test starts a child, no other
/// may give up the lock of a name that it takes again.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn write(store: &mut SqliteStore, name: &str) {
    apply(store, &[StoreOp::Subscribe { topic: "t", address: &format!("{name}:1"), name }]);
}

/// How `name` stands, if that is news.
fn told(store: &mut SqliteStore, name: &str) -> Option<Standing> {
    store.directory().expect("it is read").map(|rows| rows.standing(name))
}

#[test]
fn who_has_its_name_is_up_who_had_it_is_away_and_who_never_had_has_no_lease() {
    let _alone = ONE_AT_A_TIME.lock();
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "looker");
    let other = open(folder.path(), "other");
    write(&mut store, "other");
    write(&mut store, "by-hand");
    let rows = store.directory().expect("it is read").expect("it was never read");
    assert_eq!(rows.standing("other"), Standing::Up);
    assert_eq!(rows.standing("by-hand"), Standing::Unleased);
    assert_eq!(told(&mut store, "other"), None, "nothing has changed");
    drop(other);
    assert_eq!(told(&mut store, "other"), Some(Standing::Away));
    assert_eq!(told(&mut store, "other"), None);
    let _other = open(folder.path(), "other");
    assert_eq!(told(&mut store, "other"), Some(Standing::Up));
}

fn child(test: &str, folder: &Path) -> Child {
    let mut child = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--exact", test, "--nocapture", "--quiet"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("its output is ours"));
    let mut lines = output.lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "open"), "the child got on");
    child
}

/// It writes nothing when it dies, so that only its lock can tell.
#[test]
fn who_is_killed_is_away() {
    if let Some(folder) = env::var_os(FOLDER) {
        let _store = open(&PathBuf::from(folder), "other");
        println!("open");
        // Until it is killed.
        let _ = std::io::stdin().read_line(&mut String::new());
        loop {
            std::thread::park();
        }
    }
    let _alone = ONE_AT_A_TIME.lock();
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "looker");
    write(&mut store, "other");
    let mut child = child("who_is_killed_is_away", folder.path());
    assert_eq!(told(&mut store, "other"), Some(Standing::Up));
    assert_eq!(told(&mut store, "other"), None);
    child.kill().expect("it can be killed");
    child.wait().expect("it is dead");
    assert_eq!(told(&mut store, "other"), Some(Standing::Away));
}

#[test]
fn all_of_many_are_looked_at_again() {
    let _alone = ONE_AT_A_TIME.lock();
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "looker");
    let names: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    names.iter().for_each(|name| write(&mut store, name));
    assert_eq!(told(&mut store, "n7"), Some(Standing::Unleased));
    let lock = folder.path().join("liner.db.n7.lock");
    std::fs::write(lock, "").expect("it is made");
    let news = (0..4).find_map(|_| told(&mut store, "n7"));
    assert_eq!(news, Some(Standing::Away), "a look at a quarter of them each time");
}

#[test]
fn who_looks_takes_nobodys_name() {
    let _alone = ONE_AT_A_TIME.lock();
    let folder = tempdir().expect("a folder");
    drop(open(folder.path(), "other"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As those do who look, without a pause.
        scope.spawn(|| {
            let lock = File::open(folder.path().join("liner.db.other.lock")).expect("it was made");
            while !is_over.load(Ordering::Relaxed) {
                if lock.try_lock_shared().is_ok() {
                    lock.unlock().expect("it is locked");
                }
            }
        });
        for _ in 0..100 {
            let opened = try_open(folder.path(), &options("other"));
            let is_refused = matches!(opened, Err(OpenError::NameInUse { .. }));
            if opened.is_err() {
                is_over.store(true, Ordering::Relaxed);
            }
            assert!(!is_refused, "by somebody who only looks");
            let held = opened.expect("it opens");
            let second = try_open(folder.path(), &options("other"));
            if !matches!(second, Err(OpenError::NameInUse { .. })) {
                is_over.store(true, Ordering::Relaxed);
                panic!("it is opened twice");
            }
            drop(held);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
