//! The inbox in a database: what a node puts there, its application takes in a transaction of its own.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use liner_proto::effect::{DeadReason, Delivery, InboxHeld, StoreOp};
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use liner_store::look::Look as _;
use liner_store_postgres::postgres::{self, Transaction};
use liner_store_postgres::{Inbox, InboxError, InboxMessage, Look, PostgresStore, Taken};

mod common;
use common::*;

fn delivery<'a>(from: &'a str, number: u64, payload: &'a [u8]) -> Delivery<'a> {
    let maybe_redelivered = number == 3;
    Delivery { from, epoch: EPOCH, number, topic: "t", mode: Mode::All, maybe_redelivered, payload }
}

/// Puts messages there as a node does: with the cursor, in one group.
fn deliver(store: &mut PostgresStore, from: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let payload = payload(number);
        let cursor = StoreOp::Cursor { peer: from, epoch: EPOCH, through: number };
        apply(store, &[StoreOp::Deliver(delivery(from, number, &payload)), cursor]);
    }
}

/// An inbox with a table that takes anything, twice if it has to.
fn inbox(database: &Database) -> Inbox {
    database
        .run("CREATE TABLE IF NOT EXISTS taken(id BIGSERIAL, sender TEXT NOT NULL, number BIGINT NOT NULL)");
    Inbox::open(&database.url(), "sensor").expect("it opens")
}

fn write(transaction: &mut Transaction<'_>, message: &InboxMessage) -> Result<(), postgres::Error> {
    let sql = "INSERT INTO taken(sender, number) VALUES($1, $2)";
    transaction.execute(sql, &[&message.from, &message.number.cast_signed()]).map(drop)
}

fn take(inbox: &mut Inbox, most: usize) -> Taken<postgres::Error> {
    inbox.take(most, write).expect("it works")
}

/// Senders and numbers in the application's table, in the order in which they came.
fn taken(database: &Database) -> String {
    database.one("SELECT coalesce(string_agg(sender || number, ' ' ORDER BY id), '') FROM taken")
}

#[test]
fn messages_are_taken_in_their_order_and_as_they_were() {
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 1..=5);
    let held = store.inbox().expect("it works").expect("it has one");
    let bytes = (1..=5).map(|number| payload(number).len() as u64 + 2).sum();
    assert_eq!(held, InboxHeld { messages: 5, bytes });
    let mut inbox = inbox(&database);
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
    assert_eq!((take(&mut inbox, 100).messages, take(&mut inbox, 100).messages), (2, 0));
    // It goes on with the same order.
    deliver(&mut store, "a", 6..=7);
    assert_eq!(take(&mut inbox, 100).messages, 2);
    assert_eq!(taken(&database), "a1 a2 a3 a4 a5 a6 a7");
}

#[test]
fn the_inbox_of_another_node_is_another_one() {
    let database = Database::new();
    let (mut store, mut other) = (database.open("sensor"), database.open("other"));
    deliver(&mut store, "a", 1..=2);
    deliver(&mut other, "a", 1..=1);
    assert_eq!(take(&mut inbox(&database), 100).messages, 2);
    assert_eq!(other.inbox().expect("it works").map(|held| held.messages), Some(1));
}

/// An error takes back what was written for that message; its sender has to wait, and nobody else does.
#[test]
fn what_fails_stays_and_keeps_its_order() {
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 1..=1);
    deliver(&mut store, "b", 1..=2);
    deliver(&mut store, "a", 2..=3);
    let mut inbox = inbox(&database);
    let bad = |transaction: &mut Transaction<'_>, message: &InboxMessage| {
        write(transaction, message).map_err(|error| error.to_string())?;
        if message.from == "b" || message.number != 1 {
            return Ok(());
        }
        // An error of the server's, after which it takes nothing but an end.
        transaction.batch_execute("SELECT 1 / 0").map_err(|_| "no".to_owned())
    };
    for failures in 1..=3 {
        let outcome = inbox.take(100, bad).expect("it works");
        assert_eq!(outcome.messages, if failures == 1 { 2 } else { 0 });
        let [failed] = &*outcome.failed else { panic!("one has failed") };
        assert_eq!((&*failed.error, failed.message.number, failed.put_aside), ("no", 1, false));
        assert_eq!(failed.message.failures, failures);
        assert_eq!(taken(&database), "b1 b2");
    }
    assert_eq!(take(&mut inbox, 100).messages, 3);
    assert_eq!(taken(&database), "b1 b2 a1 a2 a3");
}

#[test]
fn what_fails_too_often_becomes_a_dead_letter_and_comes_back_when_it_is_asked_for() {
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 3..=4);
    let mut inbox = inbox(&database).failures_max(2);
    let bad = |_: &mut Transaction<'_>, message: &InboxMessage| {
        if message.number == 3 { Err(()) } else { Ok(()) }
    };
    assert!(!inbox.take(100, bad).expect("it works").failed[0].put_aside);
    let mut look = Look::open(&database.url()).expect("it opens");
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
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 1..=3);
    let mut inbox = inbox(&database);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        inbox.take(100, |transaction, message| {
            assert!(message.number < 3, "as planned");
            write(transaction, message)
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(taken(&database), "");
    assert_eq!(take(&mut inbox, 100).messages, 3);
    assert_eq!(taken(&database), "a1 a2 a3");
}

/// A closure that ends the transaction, in whatever way, is told so; a message is never gone without what was written for it.
#[test]
fn a_transaction_that_the_closure_ends_is_no_way_to_lose_anything() {
    let ends = ["ROLLBACK", "COMMIT", "COMMIT; BEGIN", "ROLLBACK; BEGIN", "ROLLBACK TO sp_1; RELEASE sp_1"];
    for end in ends {
        let database = Database::new();
        let mut store = database.open("sensor");
        deliver(&mut store, "a", 1..=3);
        let mut inbox = inbox(&database);
        let outcome = inbox.take(100, |transaction, message| {
            write(transaction, message)?;
            if message.number == 2 { transaction.batch_execute(end) } else { Ok(()) }
        });
        assert!(matches!(outcome, Err(InboxError::Ended)), "{end}: {outcome:?}");
        take(&mut inbox, 100);
        assert_eq!(taken(&database), "a1 a2 a3", "{end}");
    }
}

#[test]
fn an_error_of_the_server_that_the_closure_keeps_for_itself_is_told() {
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 1..=2);
    let mut inbox = inbox(&database);
    let outcome = inbox.take(100, |transaction, message| {
        write(transaction, message)?;
        let _ = transaction.batch_execute("SELECT 1 / 0");
        Ok::<(), postgres::Error>(())
    });
    assert!(matches!(outcome, Err(InboxError::Postgres(_))), "{outcome:?}");
    assert_eq!(take(&mut inbox, 100).messages, 2);
}

#[test]
fn a_connection_that_is_lost_takes_all_back() {
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 1..=3);
    let mut inbox = inbox(&database);
    let outcome = inbox.take(100, |transaction, message| {
        write(transaction, message)?;
        if message.number == 2 {
            let row = transaction.query_one("SELECT pg_backend_pid()", &[])?;
            database.run(&format!("SELECT pg_terminate_backend({})", row.get::<_, i32>(0)));
            return transaction.batch_execute("SELECT 1");
        }
        Ok(())
    });
    let outcome = outcome.expect("the closure said why");
    assert_eq!((outcome.messages, outcome.failed.len()), (0, 1));
    assert_eq!(taken(&database), "");
    // The next call connects again.
    assert_eq!(take(&mut inbox, 100).messages, 3);
    assert_eq!(taken(&database), "a1 a2 a3");
}

#[test]
fn two_that_take_at_once_never_get_the_same_message() {
    let database = Database::new();
    let mut store = database.open("sensor");
    deliver(&mut store, "a", 1..=60);
    drop(inbox(&database));
    let total: u64 = std::thread::scope(|scope| {
        let takers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut inbox = Inbox::open(&database.url(), "sensor").expect("it opens");
                let mut messages = 0;
                while inbox.waiting().expect("it works").messages > 0 {
                    messages += take(&mut inbox, 7).messages;
                }
                messages
            })
        });
        takers.map(|taker| taker.join().expect("it ends")).into_iter().sum()
    });
    assert_eq!(total, 60);
    let expected: Vec<_> = (1..=60).map(|number| format!("a{number}")).collect();
    assert_eq!(taken(&database), expected.join(" "), "in their order, too");
}

const CHILD: &str = "LINER_TEST_TAKER";

/// Takes until it is killed: one at a time and several.
#[test]
fn whoever_takes_is_killed_and_every_message_is_there_once() {
    if let Ok(url) = std::env::var(CHILD) {
        let mut inbox = Inbox::open(&url.parse().expect("a URL"), "sensor").expect("it opens");
        while inbox.waiting().expect("it works").messages > 0 {
            take(&mut inbox, 3);
        }
        return;
    }
    let database = Database::new();
    let mut store = database.open("sensor");
    drop(inbox(&database));
    let mut number = 0;
    for kill in 0..8 {
        deliver(&mut store, "a", number + 1..=number + 30);
        number += 30;
        let mut child = Command::new(std::env::current_exe().expect("the test knows its file"));
        child.args(["whoever_takes_is_killed_and_every_message_is_there_once", "--exact"]);
        let mut child = child.env(CHILD, database.text()).stdout(Stdio::null()).spawn().expect("it starts");
        // At some point of what it does: the server says when it has begun to.
        let enough = format!("SELECT count(*) >= {} FROM taken", number - 29 + kill * 3 % 20);
        while database.one(&enough) != "t" {}
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
    }
    let mut inbox = inbox(&database);
    // The server may not have heard of the last death yet: then the lock is waited for.
    while inbox.waiting().expect("it works").messages > 0 {
        take(&mut inbox, 100);
    }
    let expected: Vec<_> = (1..=number).map(|number| format!("a{number}")).collect();
    assert_eq!(taken(&database), expected.join(" "));
}

#[test]
fn damaged_rows_are_kept_aside_and_not_given() {
    let database = Database::new();
    for (change, whole) in [
        ("payload = '\\x00'", 4),
        ("topic = 'u'", 4),
        ("sender = 'b'", 4),
        ("number = 9", 4),
        ("epoch = 1", 4),
        ("mode = 7", 4),
        ("maybe_redelivered = TRUE", 4),
        ("owner = 'sensor', failures = 3", 5),
    ] {
        database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let mut store = database.open("sensor");
        deliver(&mut store, "a", 4..=8);
        let mut inbox = inbox(&database);
        database.run(&format!("UPDATE inbox SET {change} WHERE number = 5"));
        let outcome = take(&mut inbox, 100);
        assert_eq!((outcome.messages, outcome.damaged), (whole, 5 - whole), "{change}");
        assert_eq!(database.one("SELECT count(*) FROM quarantine"), (5 - whole).to_string(), "{change}");
        assert_eq!(database.one("SELECT count(*) FROM inbox"), "0", "{change}");
    }
}

#[test]
fn an_inbox_is_opened_where_there_is_one() {
    let database = Database::new();
    assert!(matches!(Inbox::open(&database.url(), "sensor"), Err(InboxError::Missing)));
    drop(database.open("sensor"));
    assert!(matches!(Inbox::open(&database.url(), "w"), Err(InboxError::NoSuchNode { .. })));
    let client = postgres::Client::connect(&database.text(), postgres::NoTls).expect("it connects");
    let mut inbox = Inbox::with_client(client, "sensor").expect("it is the node's database");
    deliver(&mut database.open("sensor"), "a", 1..=1);
    assert_eq!(inbox.take(9, |_, _| Ok::<(), ()>(())).expect("it works").messages, 1);
}

#[test]
fn a_server_that_accepts_and_is_silent_is_not_waited_for_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("it has one");
    let other = server().address();
    drop(open(&server().url().parse().expect("a URL"), "sensor"));
    let both = format!("postgres://postgres@{address},{other}/postgres?connect_timeout=1");
    Inbox::open(&both.parse().expect("a URL"), "sensor").expect("the other one answers");
    for mode in ["disable", "prefer"] {
        let url = format!("postgres://a@{address}/d?connect_timeout=1&sslmode={mode}");
        let refused =
            Inbox::open(&url.parse().expect("a URL"), "sensor").expect_err("it says nothing").to_string();
        assert!(refused.contains("no answer within 1000 ms"), "{refused}");
    }
}

#[test]
fn it_connects_as_its_node_does() {
    let server = server();
    drop(open(&server.url().parse().expect("a URL"), "sensor"));
    let (folder, port) = (server.socket_folder(), server.address().port());
    for mode in ["", "&sslmode=require"] {
        let socket = format!("postgres://postgres@/postgres?host={}&port={port}{mode}", folder.display());
        Inbox::open(&socket.parse().expect("a URL"), "sensor").expect("a socket is never encrypted");
    }
    let plain = format!("{}?sslmode=require", server.url());
    let refused = Inbox::open(&plain.parse().expect("a URL"), "sensor").expect_err("it does not encrypt");
    assert!(refused.to_string().contains("does not encrypt, and sslmode=require"), "{refused}");
}
