//! The inbox of a file: what a node puts there, its application takes in a transaction of its own.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use liner_proto::effect::{DeadReason, Delivery, InboxHeld, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use liner_store_sqlite::rusqlite::{self, Connection, Transaction};
use liner_store_sqlite::{Inbox, InboxError, InboxMessage, Look, LookError, SqliteStore, Taken};
use tempfile::tempdir;

mod common;
use common::*;

fn delivery<'a>(from: &'a str, number: u64, payload: &'a [u8]) -> Delivery<'a> {
    let maybe_redelivered = number == 3;
    Delivery { from, epoch: EPOCH, number, topic: "t", mode: Mode::All, maybe_redelivered, payload }
}

/// Puts messages there as a node does: with the cursor, in one group.
fn deliver(store: &mut SqliteStore, from: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let payload = payload(number);
        let cursor = StoreOp::Cursor { peer: from, epoch: EPOCH, through: number };
        apply(store, &[StoreOp::Deliver(delivery(from, number, &payload)), cursor]);
    }
}

/// An inbox with a table that takes anything, twice if it has to.
fn inbox(folder: &Path) -> Inbox {
    let inbox = Inbox::open(folder.join("liner.db"), "sensor").expect("it opens");
    let table = "CREATE TABLE IF NOT EXISTS taken(sender TEXT NOT NULL, number INTEGER NOT NULL)";
    inbox.connection().execute_batch(table).expect("there is room");
    inbox
}

fn write(transaction: &Transaction<'_>, message: &InboxMessage) -> rusqlite::Result<()> {
    let row = rusqlite::params![message.from, message.number.cast_signed()];
    transaction.execute("INSERT INTO taken VALUES(?1, ?2)", row).map(drop)
}

fn take(inbox: &mut Inbox, most: usize) -> Taken<rusqlite::Error> {
    inbox.take(most, write).expect("it works")
}

/// Senders and numbers in the application's table, in the order in which they came.
fn taken(inbox: &Inbox) -> Vec<(String, u64)> {
    let mut select =
        inbox.connection().prepare("SELECT sender, number FROM taken ORDER BY rowid").expect("a table");
    let rows =
        select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}

fn of(sender: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    numbers.into_iter().map(|number| (sender.to_owned(), number)).collect()
}

#[test]
fn messages_are_taken_in_their_order_and_as_they_were() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    deliver(&mut store, "a", 1..=5);
    let held = store.inbox().expect("it works").expect("it has one");
    let bytes = (1..=5).map(|number| payload(number).len() as u64 + 2).sum();
    assert_eq!(held, InboxHeld { messages: 5, bytes });
    let mut inbox = inbox(folder.path());
    assert_eq!(inbox.waiting().expect("it works"), held);
    let mut seen = Vec::new();
    let outcome = inbox.take(3, |transaction, message| {
        seen.push(message.clone());
        write(transaction, message)
    });
    let outcome = outcome.expect("it works");
    assert_eq!((outcome.messages, outcome.damaged, outcome.failed.len()), (3, 0, 0));
    for (message, number) in seen.iter().zip(1..) {
        assert_eq!((&*message.from, message.epoch, message.number), ("a", EPOCH, number));
        assert_eq!((&*message.topic, message.mode, message.failures), ("t", Mode::All, 0));
        assert_eq!((message.maybe_redelivered, &*message.payload), (number == 3, &*payload(number)));
    }
    assert_eq!(store.inbox().expect("it works").map(|held| held.messages), Some(2), "the node sees it");
    assert_eq!(take(&mut inbox, 100).messages, 2);
    assert_eq!(take(&mut inbox, 100).messages, 0);
    assert_eq!(taken(&inbox), of("a", 1..=5));
    // It goes on with the same order.
    deliver(&mut store, "a", 6..=7);
    assert_eq!(take(&mut inbox, 100).messages, 2);
    assert_eq!(taken(&inbox), of("a", 1..=7));
}

#[test]
fn a_group_that_fails_leaves_nothing_in_the_inbox() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    let group = [StoreOp::Deliver(delivery("a", 1, b"x")), StoreOp::Trim { queue: NODE, through: 1 }];
    assert_eq!(store.apply(&group), Err(StoreFault::Refused), "there is no such queue");
    assert_eq!(store.apply(&[StoreOp::Deliver(delivery("a", 1, b"x"))]), Ok(()));
    drop(store);
    let mut store = open(folder.path(), "sensor");
    assert_eq!(store.inbox(), Ok(Some(InboxHeld::default())), "it was not committed");
}

#[test]
fn the_inbox_of_another_node_is_another_one() {
    let folder = tempdir().expect("a folder");
    let (mut store, mut other) = (open(folder.path(), "sensor"), open(folder.path(), "other"));
    deliver(&mut store, "a", 1..=2);
    deliver(&mut other, "a", 1..=1);
    let mut inbox = inbox(folder.path());
    assert_eq!(take(&mut inbox, 100).messages, 2);
    assert_eq!(other.inbox().expect("it works").map(|held| held.messages), Some(1));
}

/// An error takes back what was written for that message; its sender has to wait, and nobody else does.
#[test]
fn what_fails_stays_and_keeps_its_order() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    deliver(&mut store, "a\"\n", 1..=1);
    deliver(&mut store, "b", 1..=2);
    deliver(&mut store, "a\"\n", 2..=3);
    let mut inbox = inbox(folder.path());
    let bad = |transaction: &Transaction<'_>, message: &InboxMessage| {
        write(transaction, message).map_err(|error| error.to_string())?;
        if message.from != "b" && message.number == 1 { Err("no".to_owned()) } else { Ok(()) }
    };
    for failures in 1..=3 {
        let outcome = inbox.take(100, bad).expect("it works");
        assert_eq!(outcome.messages, if failures == 1 { 2 } else { 0 });
        let [failed] = &*outcome.failed else { panic!("one has failed") };
        assert_eq!((&*failed.error, failed.message.number, failed.put_aside), ("no", 1, false));
        assert_eq!(failed.message.failures, failures);
        assert_eq!(taken(&inbox), of("b", 1..=2));
    }
    assert_eq!(take(&mut inbox, 100).messages, 3);
    assert_eq!(taken(&inbox), [of("b", 1..=2), of("a\"\n", 1..=3)].concat());
}

#[test]
fn what_fails_too_often_becomes_a_dead_letter_and_comes_back_when_it_is_asked_for() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    deliver(&mut store, "a", 3..=4);
    let mut inbox = inbox(folder.path()).failures_max(2);
    let bad =
        |_: &Transaction<'_>, message: &InboxMessage| if message.number == 3 { Err(()) } else { Ok(()) };
    assert!(!inbox.take(100, bad).expect("it works").failed[0].put_aside);
    let mut look = Look::open(folder.path().join("liner.db")).expect("it opens");
    assert_eq!(look.dead_letters(None, 0, 10).expect("it works"), []);
    let outcome = inbox.take(100, bad).expect("it works");
    assert!(outcome.failed[0].put_aside && outcome.messages == 0);
    assert_eq!(inbox.take(100, bad).expect("it works").messages, 1, "the next one comes");
    let letters = look.dead_letters(None, 0, 10).expect("it works");
    let [letter] = &*letters else { panic!("one: {letters:?}") };
    assert_eq!((&*letter.owner, &*letter.peer, &*letter.topic), ("sensor", "a", "t"));
    assert_eq!((letter.reason, letter.payload.clone()), (Some(DeadReason::Failed), Some(payload(3))));
    assert_eq!(look.redrive(&[letter.id]).expect("it works"), 1);
    assert_eq!(look.dead_letters(None, 0, 10).expect("it works"), []);
    let mut again = Vec::new();
    let outcome = inbox.take(100, |_, message| {
        again.push(message.clone());
        Ok::<(), ()>(())
    });
    assert_eq!(outcome.expect("it works").messages, 1);
    let [message] = &*again else { panic!("one: {again:?}") };
    assert_eq!((&*message.from, message.epoch, message.number), ("a", EPOCH, 3));
    assert!(message.maybe_redelivered && message.failures == 0 && message.payload == payload(3));
}

#[test]
fn a_panic_takes_all_back() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    deliver(&mut store, "a", 1..=3);
    let mut inbox = inbox(folder.path());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        inbox.take(100, |transaction, message| {
            assert!(message.number < 3, "as planned");
            write(transaction, message)
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(taken(&inbox), []);
    assert_eq!(inbox.waiting().expect("it works").messages, 3);
    deliver(&mut store, "a", 4..=4);
    assert_eq!(take(&mut inbox, 100).messages, 4);
    assert_eq!(taken(&inbox), of("a", 1..=4));
}

/// A closure that ends the transaction, in whatever way, is told so; a message is never gone without what was written for it.
#[test]
fn a_transaction_that_the_closure_ends_is_no_way_to_lose_anything() {
    let ends = [
        "ROLLBACK",
        "COMMIT",
        "COMMIT; BEGIN",
        "ROLLBACK; BEGIN",
        "ROLLBACK TO liner_taken; RELEASE liner_taken",
    ];
    for end in ends {
        let folder = tempdir().expect("a folder");
        let mut store = open(folder.path(), "sensor");
        deliver(&mut store, "a", 1..=3);
        let mut inbox = inbox(folder.path());
        let outcome = inbox.take(100, |transaction, message| {
            write(transaction, message)?;
            if message.number == 2 { transaction.execute_batch(end) } else { Ok(()) }
        });
        assert!(matches!(outcome, Err(InboxError::Ended)), "{end}: {outcome:?}");
        take(&mut inbox, 100);
        assert_eq!(taken(&inbox), of("a", 1..=3), "{end}");
    }
}

/// When SQLite itself takes the transaction back, what the closure says of it is told, and nothing is counted.
#[test]
fn a_transaction_that_sqlite_takes_back_is_told_with_the_reason() {
    let folder = tempdir().expect("a folder");
    let mut store = open(folder.path(), "sensor");
    deliver(&mut store, "a", 1..=3);
    let mut inbox = inbox(folder.path());
    inbox.connection().execute_batch("CREATE UNIQUE INDEX once ON taken(number)").expect("there is room");
    let outcome = inbox.take(100, |transaction, message| {
        write(transaction, message)?;
        let again = if message.number == 2 { "INSERT OR ROLLBACK INTO taken VALUES('x', 2)" } else { "" };
        transaction.execute_batch(again)
    });
    let outcome = outcome.expect("the closure said why");
    assert_eq!((outcome.messages, outcome.failed.len()), (0, 1));
    assert!(outcome.failed[0].error.to_string().contains("UNIQUE"));
    assert_eq!(taken(&inbox), []);
    assert_eq!(take(&mut inbox, 100).messages, 3);
}

#[test]
fn damaged_rows_are_kept_aside_and_not_given() {
    for (change, whole) in [
        ("payload = x'00'", 4),
        ("topic = 'u'", 4),
        ("sender = 'b'", 4),
        ("number = 9", 4),
        ("epoch = 1", 4),
        ("mode = 7", 4),
        ("maybe_redelivered = 1", 4),
        ("payload = 'text'", 4),
        ("owner = 'sensor', failures = 3", 5),
    ] {
        let folder = tempdir().expect("a folder");
        let mut store = open(folder.path(), "sensor");
        deliver(&mut store, "a", 4..=8);
        let mut inbox = inbox(folder.path());
        let damage = format!("UPDATE inbox SET {change} WHERE number = 5");
        assert_eq!(inbox.connection().execute(&damage, []).expect("it is there"), 1);
        let outcome = take(&mut inbox, 100);
        assert_eq!((outcome.messages, outcome.damaged), (whole, 5 - whole), "{change}");
        let count = |sql| {
            inbox
                .connection()
                .query_row(sql, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
                .expect("a row")
        };
        assert_eq!(count("SELECT count(*) FROM quarantine"), 5 - whole, "{change}");
        assert_eq!(count("SELECT count(*) FROM inbox"), 0, "{change}");
    }
}

#[test]
fn an_inbox_is_opened_where_there_is_one() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("liner.db");
    assert!(matches!(Inbox::open(&path, "sensor"), Err(InboxError::Open(LookError::Missing { .. }))));
    drop(open(folder.path(), "sensor"));
    assert!(matches!(Inbox::open(&path, "w"), Err(InboxError::Open(LookError::NoSuchNode { .. }))));
    let own = Connection::open_in_memory().expect("there is memory");
    own.execute_batch("CREATE TABLE inbox(id)").expect("there is memory");
    assert!(matches!(Inbox::with_connection(own, "sensor"), Err(InboxError::Open(LookError::Open(_)))));
    let own = Connection::open(&path).expect("it opens");
    let mut inbox = Inbox::with_connection(own, "sensor").expect("it is the node's file");
    assert!(inbox.has_news().expect("it works"), "who knows");
    assert!(!inbox.has_news().expect("it works"));
    let mut store = open(folder.path(), "sensor");
    deliver(&mut store, "a", 1..=1);
    assert!(inbox.has_news().expect("it works"));
    assert_eq!(inbox.take(9, |_, _| Ok::<(), ()>(())).expect("it works").messages, 1);
    assert!(!inbox.has_news().expect("it works"), "its own commits are none");
}

/// As with every other message that finds no room.
#[test]
fn a_full_file_takes_nothing_and_has_room_again_once_something_was_taken() {
    let folder = tempdir().expect("a folder");
    let mut store = try_open(
        folder.path(),
        &liner_store_sqlite::Options { limit_bytes: Some(1 << 20), ..options("sensor") },
    )
    .expect("it opens");
    let large = vec![7; 100_000];
    let full = |store: &mut SqliteStore| {
        (1..100).find_map(|number| {
            let outcome = store.apply(&[StoreOp::Deliver(delivery("a", number, &large))]);
            store.commit().expect("it works");
            outcome.err().map(|fault| (number, fault))
        })
    };
    let (count, fault) = full(&mut store).expect("it is full at some time");
    assert_eq!(fault, StoreFault::Full);
    assert!((5..12).contains(&count), "{count}");
    let cursor = StoreOp::Cursor { peer: "a", epoch: EPOCH, through: 1 };
    apply(&mut store, &[cursor]);
    let mut inbox = inbox(folder.path());
    assert_eq!(take(&mut inbox, 100).messages, count - 1);
    assert!(store.apply(&[StoreOp::Deliver(delivery("a", 50, &large))]).is_ok());
    assert_eq!(EPOCH, Epoch(0x8000_0000_0000_0007), "numbers have all their bits");
}
