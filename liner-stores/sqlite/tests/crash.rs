//! A process that is killed at any moment: what it was told to be committed is there, and nothing is there in part.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test may fail, and its child speaks to it")]

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use liner_proto::effect::{Queue, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store as _;
use liner_store_sqlite::Options;
use rusqlite::Connection;
use tempfile::tempdir;

mod common;
use common::*;

/// Tells the test, run anew as a child, where to store messages until it is killed.
const FOLDER: &str = "LINER_TEST_CRASH_FOLDER";
const OTHER: Queue<'static> = Queue::Node("other");
const ROUNDS: u64 = 8;

/// A child holds the locks of this process between its fork and the start of its program: while one test starts a child, no other
/// may give up the lock of a name that it takes again.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn what_was_committed_survives_the_death_of_the_process() {
    if let Some(folder) = env::var_os(FOLDER) {
        store_until_killed(&PathBuf::from(folder));
    }
    let _alone = ONE_AT_A_TIME.lock();
    let test = "what_was_committed_survives_the_death_of_the_process";
    for durability in [Class::Process, Class::Power] {
        let folder = tempdir().expect("a folder");
        let mut committed = 0;
        for round in 0..ROUNDS {
            let before = committed;
            committed = run_and_kill(test, folder.path(), durability, 3 + 7 * round % 20);
            assert!(committed > before, "the child got on");
            look(folder.path(), durability, committed);
        }
    }
}

/// Runs the test as a child until it said `lines` times that it has committed; gives the last number that it named.
fn run_and_kill(test: &str, folder: &Path, durability: Class, lines: u64) -> u64 {
    let mut child = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--exact", test, "--nocapture", "--quiet"])
        .env(FOLDER, folder)
        .env("LINER_TEST_CRASH_CLASS", durability.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("its output is ours"));
    let mut numbers =
        output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse().ok());
    let last = numbers.by_ref().take(lines as usize).last().expect("it committed something");
    child.kill().expect("it can be killed");
    child.wait().expect("it is dead");
    // It may have got further between the last line that was waited for and its death.
    numbers.last().unwrap_or(last)
}

fn crash_options(durability: Class) -> Options {
    Options { durability, ..options("sensor") }
}

/// Opens what the child left. Its groups moved two queues and a cursor together.
fn look(folder: &Path, durability: Class, committed: u64) {
    let mut store = try_open(folder, &crash_options(durability)).expect("it opens");
    assert!(store.opened().unclean);
    assert_eq!(store.opened().quarantined, None);
    let told = told(&mut store);
    assert_eq!(told.node, Some((Epoch(1), false)), "the death of a process takes nothing back");
    let mut lasts = told.queues.iter().map(|(_, queue)| queue.last);
    let last = lasts.next().expect("a queue");
    assert!(last >= committed, "{last} of {committed}");
    assert!(lasts.all(|other| other == last), "a group is there in part: {told:?}");
    assert_eq!(told.cursors, [("peer".to_owned(), EPOCH, last)]);
    assert_eq!(drain(&mut store, NODE, last.saturating_sub(100), last), []);
    assert_eq!(drain(&mut store, OTHER, 0, last), []);
}

fn store_until_killed(folder: &Path) {
    let class = env::var("LINER_TEST_CRASH_CLASS").expect("the class is given");
    let durability = if class == "power" { Class::Power } else { Class::Process };
    let mut store = try_open(folder, &crash_options(durability)).expect("it opens");
    let mut last = told(&mut store).queues.first().map_or(0, |(_, queue)| queue.last);
    if last == 0 {
        let other = StoreOp::Open { queue: OTHER, epoch: EPOCH };
        apply(&mut store, &[StoreOp::Inbox { epoch: Epoch(1) }, OPEN, other]);
    }
    loop {
        for _ in 0..3 {
            let (first, end) = (last + 1, last + 1 + last % 17);
            let records = numbered(first, end);
            let group = [
                StoreOp::Cursor { peer: "peer", epoch: EPOCH, through: end },
                StoreOp::Append { queue: NODE, first, last: end, records: &records },
                StoreOp::Append { queue: OTHER, first, last: end, records: &records },
            ];
            store.apply(&group).expect("the group is right");
            last = end;
        }
        store
            .apply(&[StoreOp::Trim { queue: NODE, through: last.saturating_sub(100) }])
            .expect("so is the trim");
        store.commit().expect("it is committed");
        println!("committed {last}");
    }
}

/// A process that is killed while it queues what was inserted by hand: every message is there once.
#[test]
fn what_was_inserted_by_hand_is_there_once_whenever_the_process_dies() {
    if let Some(folder) = env::var_os(FOLDER) {
        insert_until_killed(&PathBuf::from(folder));
    }
    let _alone = ONE_AT_A_TIME.lock();
    let test = "what_was_inserted_by_hand_is_there_once_whenever_the_process_dies";
    let folder = tempdir().expect("a folder");
    apply(&mut open(folder.path(), "sensor"), &[OPEN]);
    let (mut taken, mut left) = (0, 0);
    for round in 0..ROUNDS {
        let committed = run_and_kill(test, folder.path(), Class::Process, 2 + round % 5);
        let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
        let mut select = conn
            .prepare(
                "SELECT substr(CAST(payload AS TEXT), 1, 8), number IS NULL FROM conn_messages ORDER BY id",
            )
            .expect("it is prepared");
        let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)));
        let rows: Vec<_> = rows.expect("it is asked").collect::<Result<_, _>>().expect("rows");
        let last = rows.len();
        assert!(last >= committed as usize, "{last} of {committed}");
        for (number, (payload, _)) in (1..).zip(&rows) {
            assert_eq!(*payload, format!("{number:08}"), "one after another, none of them twice");
        }
        taken += rows.iter().filter(|(_, waits)| !waits).count();
        left += rows.iter().filter(|(_, waits)| *waits).count();
    }
    assert!(taken > 0, "the child queued some, and left {left}");
    let mut store = open(folder.path(), "sensor");
    assert_eq!((store.opened().waiting, store.opened().orphaned), (0, 0));
    let [(_, queue)] = &told(&mut store).queues[..] else { panic!("one queue") };
    assert_eq!(queue.messages, queue.last);
}

/// One thread inserts, and says so; another one opens the store again and again.
fn insert_until_killed(folder: &Path) {
    let path = folder.to_owned();
    std::thread::spawn(move || {
        loop {
            let store = open(&path, "sensor");
            assert_eq!((store.opened().waiting, store.opened().orphaned), (0, 0));
        }
    });
    let conn = Connection::open(folder.join("liner.db")).expect("it opens");
    let mut last: i64 =
        conn.query_row("SELECT COUNT(*) FROM conn_messages", [], |row| row.get(0)).expect("a row");
    let mut insert = conn
        .prepare("INSERT INTO conn_messages(connection_key, topic, payload) VALUES(1, 't', ?1)")
        .expect("it is prepared");
    loop {
        conn.execute_batch("BEGIN IMMEDIATE").expect("the other thread does not take long");
        for _ in 0..20 {
            last += 1;
            insert.execute([format!("{last:08}{:10000}", "")]).expect("it is inserted");
        }
        conn.execute_batch("COMMIT").expect("it is committed");
        println!("committed {last}");
    }
}

/// A process that is killed while it takes over a file of liner_broker: the file is as it was, and none of it is lost in the end.
#[test]
fn a_file_of_another_program_is_as_it_was_until_it_is_taken_over() {
    const MESSAGES: i64 = 3000;
    if let Some(folder) = env::var_os(FOLDER) {
        drop(open(&PathBuf::from(folder), "sensor"));
        return;
    }
    let _alone = ONE_AT_A_TIME.lock();
    let (mut untouched, folder) = (0, broker::old_file(&[broker::FILLED]));
    broker::fill(folder.path(), MESSAGES, &broker::frame(1, 3, 1, 2, &[b'x'; 4000]));
    let before = broker::dump(&broker::shell(folder.path()));
    for round in 0.. {
        let log = folder.path().join("liner.db-wal");
        let test = "a_file_of_another_program_is_as_it_was_until_it_is_taken_over";
        let mut child = Command::new(env::current_exe().expect("this program has a path"))
            .args(["--exact", test, "--quiet"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the child starts");
        // So much is written before the end of the transaction, whose pages do not find room in memory.
        let enough = (round * 2000) << 10;
        let is_enough = || fs::metadata(&log).is_ok_and(|log| log.len() > enough);
        while !is_enough() && child.try_wait().expect("it can be asked").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it is dead");
        let conn = broker::shell(folder.path());
        let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a row");
        if version != 0 {
            break;
        }
        assert_eq!(broker::dump(&conn), before, "round {round}");
        untouched += 1;
    }
    assert!(untouched > 2, "it was killed in the middle {untouched} times");
    let mut store = open(folder.path(), "sensor");
    let [(_, queue)] = &told(&mut store).queues[..] else { panic!("one queue") };
    assert_eq!(queue.messages, MESSAGES.unsigned_abs());
    let left = "SELECT name AS line FROM sqlite_schema WHERE name LIKE 'old%'";
    assert_eq!(broker::lines(&broker::shell(folder.path()), left), "");
}
