//! The inbox in a server: what a node puts there, its application takes together with what it makes of it.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use liner_proto::effect::{DeadReason, Delivery, InboxHeld, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::wire::record::Mode;
use liner_store::look::Look as _;
use liner_store_redis::redis::{Cmd, Pipeline};
use liner_store_redis::{Inbox, InboxError, InboxMessage, OpenError, RedisStore, Taken};
use liner_tests::servers::Reply;

mod common;
use common::*;

const EPOCH: Epoch = Epoch(0x8000_0000_0000_0007);
const INBOX: &str = "lnr_node:sensor:inbox";
const FAILURES: &str = "lnr_node:sensor:failures";

/// The payload of the message with this number.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((0..number * 13 % 40).map(|index| (index * number) as u8));
    payload
}

fn delivery<'a>(from: &'a str, number: u64, payload: &'a [u8]) -> Delivery<'a> {
    let maybe_redelivered = number == 3;
    Delivery { from, epoch: EPOCH, number, topic: "t", mode: Mode::All, maybe_redelivered, payload }
}

/// Puts messages there as a node does: with the cursor, in one group.
fn deliver(store: &mut RedisStore, from: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let payload = payload(number);
        let cursor = StoreOp::Cursor { peer: from, epoch: EPOCH, through: number };
        apply(store, &[StoreOp::Deliver(delivery(from, number, &payload)), cursor]);
    }
}

fn inbox(db: &Db) -> Inbox {
    Inbox::open(&db.url(), "sensor").expect("it opens")
}

/// A list that takes anything, twice if it has to.
fn write(pipeline: &mut Pipeline, message: &InboxMessage) -> Result<(), String> {
    pipeline.cmd("RPUSH").arg("taken").arg(format!("{}{}", message.from, message.number));
    Ok(())
}

fn take(inbox: &mut Inbox, most: usize) -> Taken<String> {
    inbox.take(most, write).expect("it works")
}

/// Senders and numbers in the application's list, in the order in which they came.
fn taken(db: &Db) -> String {
    let Reply::List(taken) = db.run(&["LRANGE", "taken", "0", "-1"]) else { unreachable!("a list") };
    let texts = taken.into_iter().map(|element| match element {
        Reply::Bytes(bytes) => String::from_utf8(bytes).expect("a text"),
        other @ (Reply::Status(_) | Reply::Number(_) | Reply::Nil | Reply::List(_)) => {
            unreachable!("{other:?}")
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn held(store: &mut RedisStore) -> InboxHeld {
    store.inbox().expect("it works").expect("it has one")
}

#[test]
fn messages_are_taken_in_their_order_and_as_they_were() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=5);
    let bytes = (1..=5).map(|number| payload(number).len() as u64 + 2).sum();
    assert_eq!(held(&mut store), InboxHeld { messages: 5, bytes });
    let mut inbox = inbox(&db);
    assert_eq!(inbox.waiting().expect("it works"), held(&mut store));
    let mut seen = Vec::new();
    let outcome = inbox.take(3, |pipeline, message| {
        seen.push(message.clone());
        write(pipeline, message)
    });
    let outcome = outcome.expect("it works");
    assert_eq!((outcome.messages, outcome.damaged, outcome.failed.len()), (3, 0, 0));
    for (message, number) in seen.iter().zip(1..) {
        assert_eq!((&*message.from, message.epoch, message.number), ("a", EPOCH, number));
        assert_eq!((&*message.topic, message.mode, message.failures), ("t", Mode::All, 0));
        assert_eq!((message.maybe_redelivered, &*message.payload), (number == 3, &*payload(number)));
    }
    let bytes = (4..=5).map(|number| payload(number).len() as u64 + 2).sum();
    assert_eq!(held(&mut store), InboxHeld { messages: 2, bytes }, "the node sees it");
    assert_eq!((take(&mut inbox, 100).messages, take(&mut inbox, 100).messages), (2, 0));
    assert_eq!(held(&mut store), InboxHeld::default());
    // It goes on with the same order.
    deliver(&mut store, "a", 6..=7);
    assert_eq!(take(&mut inbox, 100).messages, 2);
    assert_eq!(take(&mut inbox, 0).messages, 0);
    assert_eq!(taken(&db), "a1 a2 a3 a4 a5 a6 a7");
    // The node goes on with the same token.
    drop(store);
    assert!(!db.open("sensor").opened().unclean);
}

#[test]
fn the_inbox_of_another_node_is_another_one() {
    let db = Db::new();
    let (mut store, mut other) = (db.open("sensor"), db.open("other"));
    deliver(&mut store, "a", 1..=2);
    deliver(&mut other, "a", 1..=1);
    assert_eq!(take(&mut inbox(&db), 100).messages, 2);
    assert_eq!(held(&mut other).messages, 1);
}

/// More than what is read at a time, and more than one call holds.
#[test]
fn a_long_inbox_is_taken_in_several_calls() {
    let db = Db::new();
    let mut store = db.open("sensor");
    let long = vec![7; 600_000];
    for number in 1..=20 {
        apply(&mut store, &[StoreOp::Deliver(delivery("a", number, &long))]);
    }
    deliver(&mut store, "a", 21..=1000);
    let (mut inbox, mut calls, mut messages) = (inbox(&db), 0, 0);
    while messages < 1000 {
        messages += take(&mut inbox, 1000).messages;
        calls += 1;
    }
    assert_eq!((messages, calls), (1000, 2));
    let expected: Vec<_> = (1..=1000).map(|number| format!("a{number}")).collect();
    assert_eq!(taken(&db), expected.join(" "));
}

/// An error takes back what was queued for that message; its sender has to wait, and nobody else does.
#[test]
fn what_fails_stays_and_keeps_its_order() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=1);
    deliver(&mut store, "b", 1..=2);
    deliver(&mut store, "a", 2..=3);
    let mut inbox = inbox(&db);
    let bad = |pipeline: &mut Pipeline, message: &InboxMessage| {
        write(pipeline, message)?;
        if message.from == "b" || message.number != 1 { Ok(()) } else { Err("no".to_owned()) }
    };
    for failures in 1..=3 {
        let outcome = inbox.take(100, bad).expect("it works");
        assert_eq!(outcome.messages, if failures == 1 { 2 } else { 0 });
        let [failed] = &*outcome.failed else { panic!("one has failed") };
        assert_eq!((&*failed.error, failed.message.number, failed.put_aside), ("no", 1, false));
        assert_eq!(failed.message.failures, failures);
        assert_eq!(taken(&db), "b1 b2");
    }
    assert_eq!(take(&mut inbox, 1).messages, 1);
    assert_eq!(db.number(&["EXISTS", FAILURES]), 0, "nothing is left of them");
    assert_eq!(take(&mut inbox, 100).messages, 2);
    assert_eq!(taken(&db), "b1 b2 a1 a2 a3");
}

#[test]
fn what_fails_too_often_becomes_a_dead_letter_and_comes_back_when_it_is_asked_for() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 3..=4);
    let mut inbox = inbox(&db).failures_max(2);
    let bad = |_: &mut Pipeline, message: &InboxMessage| if message.number == 3 { Err(()) } else { Ok(()) };
    assert!(!inbox.take(100, bad).expect("it works").failed[0].put_aside);
    let mut look = db.look();
    assert_eq!(look.dead_letters(None, 0, 10).expect("it works"), []);
    let outcome = inbox.take(100, bad).expect("it works");
    assert!(outcome.failed[0].put_aside && outcome.messages == 0);
    assert_eq!(inbox.take(100, bad).expect("it works").messages, 1, "the next one comes");
    assert_eq!(held(&mut store), InboxHeld::default());
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

/// Without room among the dead letters it is given again, and again.
#[test]
fn with_too_many_dead_letters_it_stays() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=1);
    db.eval("for i = 1, 10000 do redis.call('XADD', 'lnr_node:sensor:dead', '0-' .. i, 'x', 'y') end");
    let mut inbox = inbox(&db).failures_max(1);
    for failures in 1..=2 {
        let outcome = inbox.take(100, |_, _| Err("no")).expect("it works");
        assert_eq!((outcome.failed[0].put_aside, outcome.failed[0].message.failures), (false, failures));
    }
    db.run(&["XDEL", "lnr_node:sensor:dead", "0-5000"]);
    assert!(inbox.take(100, |_, _| Err("no")).expect("it works").failed[0].put_aside);
    assert_eq!(db.number(&["XLEN", "lnr_node:sensor:dead"]), 10_000);
}

#[test]
fn a_panic_takes_all_back() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=3);
    let mut inbox = inbox(&db);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        inbox.take(100, |pipeline, message| {
            assert!(message.number < 3, "as planned");
            write(pipeline, message)
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(taken(&db), "");
    assert_eq!(take(&mut inbox, 100).messages, 3);
    assert_eq!(taken(&db), "a1 a2 a3");
}

/// What the server refuses at once has done nothing: it counts as a failure, and its sender waits.
#[test]
fn a_message_whose_first_command_is_refused_stays() {
    let db = Db::new();
    let mut store = db.open("sensor");
    db.run(&["SET", "text", "x"]);
    let long: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Pipeline));
    let bad: [Case<'_>; 9] = [
        ("WRONGTYPE", &|pipeline| _ = pipeline.cmd("RPUSH").arg("text").arg("1")),
        ("not an integer", &|pipeline| _ = pipeline.cmd("INCR").arg("text")),
        ("Unknown", &|pipeline| _ = pipeline.cmd("NONSENSE")),
        ("Wrong number", &|pipeline| _ = pipeline.cmd("SET").arg("one")),
        ("not allowed", &|pipeline| _ = pipeline.cmd("EXEC")),
        ("not allowed", &|pipeline| _ = pipeline.cmd("EVAL").arg("return 1").arg(0)),
        ("SELECT", &|pipeline| _ = pipeline.cmd("select").arg(0)),
        ("5002 words", &|pipeline| _ = pipeline.cmd("RPUSH").arg("more").arg(&long)),
        ("without words", &|pipeline| _ = pipeline.add_command(Cmd::new())),
    ];
    let mut inbox = inbox(&db);
    for (number, (words, bad)) in (0..).zip(bad) {
        let number = number * 3;
        deliver(&mut store, "a", number..number + 1);
        deliver(&mut store, "b", number..number + 1);
        deliver(&mut store, "a", number + 1..number + 2);
        for failures in 1..=2 {
            let outcome = inbox.take(100, |pipeline, message| {
                if message.from == "a" && message.number == number {
                    bad(pipeline);
                }
                write(pipeline, message)
            });
            let outcome = outcome.expect("it works");
            let [refused] = &*outcome.refused else { panic!("one is refused: {outcome:?}") };
            assert!(refused.words.contains(words), "{words}: {}", refused.words);
            assert_eq!((refused.message.number, refused.message.failures), (number, failures));
            assert!(!refused.put_aside);
            assert_eq!(outcome.messages, if failures == 1 { 1 } else { 0 }, "{words}");
        }
        assert_eq!(taken(&db), format!("b{number}"), "{words}");
        assert_eq!(take(&mut inbox, 100).messages, 2);
        assert_eq!(taken(&db), format!("b{number} a{number} a{}", number + 1));
        db.run(&["DEL", "taken"]);
    }
    deliver(&mut store, "a", 99..=99);
    let mut inbox = inbox.failures_max(1);
    let outcome = inbox.take(1, |pipeline, _| {
        pipeline.cmd("INCR").arg("text");
        Ok::<(), ()>(())
    });
    assert!(outcome.expect("it works").refused[0].put_aside);
    assert_eq!(db.letters(), [("a".to_owned(), "t".to_owned(), DeadReason::Failed as u8, payload(99))]);
}

/// What was done before a command is refused stays done. It is never done again by itself.
#[test]
fn a_message_whose_later_command_is_refused_is_put_aside() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=2);
    db.run(&["SET", "text", "x"]);
    // Without room among the dead letters first.
    db.eval("for i = 1, 10000 do redis.call('XADD', 'lnr_node:sensor:dead', '0-' .. i, 'x', 'y') end");
    let bad = |pipeline: &mut Pipeline, message: &InboxMessage| {
        write(pipeline, message)?;
        pipeline.cmd("INCR").arg(if message.number == 1 { "text" } else { "number" });
        write(pipeline, message)
    };
    let mut inbox = inbox(&db);
    for _ in 0..3 {
        let outcome = inbox.take(100, bad).expect("it works");
        let [refused] = &*outcome.refused else { panic!("one is refused: {outcome:?}") };
        assert_eq!((refused.message.number, refused.put_aside, outcome.messages), (1, false, 0));
        assert_eq!((&*taken(&db), held(&mut store).messages), ("a1", 2));
    }
    db.run(&["DEL", "lnr_node:sensor:dead"]);
    let outcome = inbox.take(100, bad).expect("it works");
    assert!(outcome.refused[0].put_aside);
    assert_eq!(db.letters(), [("a".to_owned(), "t".to_owned(), DeadReason::Failed as u8, payload(1))]);
    assert_eq!(inbox.take(100, bad).expect("it works").messages, 1);
    assert_eq!(taken(&db), "a1 a2 a2");
    // With room it is one at once.
    deliver(&mut store, "a", 1..=1);
    let outcome = inbox.take(100, bad).expect("it works");
    assert!(outcome.refused[0].put_aside && outcome.refused[0].words.contains("not an integer"));
    assert_eq!((held(&mut store), db.letters().len()), (InboxHeld::default(), 2));
}

#[test]
fn what_is_deleted_by_hand_is_not_given() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=4);
    let mut inbox = inbox(&db);
    assert_eq!(inbox.take(1, |_, _| Err("no")).expect("it works").failed.len(), 1);
    let mut calls = 0;
    let outcome = inbox.take(100, |pipeline, message| {
        calls += 1;
        if calls == 2 {
            db.run(&["XDEL", INBOX, "0-1"]);
        }
        write(pipeline, message)
    });
    assert_eq!((outcome.expect("it works").messages, calls), (3, 4 + 3), "it was begun again");
    assert_eq!((&*taken(&db), held(&mut store)), ("a2 a3 a4", InboxHeld::default()));
    // Ids begin anew: other messages are not taken for those that were there, nor do they have their failures.
    deliver(&mut store, "a", 5..=5);
    assert_eq!(inbox.take(1, |_, _| Err("no")).expect("it works").failed.len(), 1);
    let mut calls = 0;
    let outcome = inbox.take(100, |pipeline, message| {
        calls += 1;
        if calls == 1 {
            db.run(&["DEL", INBOX]);
            assert_eq!(held(&mut store), InboxHeld::default());
            deliver(&mut store, "a", 6..=11);
        }
        assert_eq!(message.failures > 0, calls == 1);
        write(pipeline, message)
    });
    assert_eq!((outcome.expect("it works").messages, calls), (6, 7));
    assert_eq!(taken(&db), "a2 a3 a4 a6 a7 a8 a9 a10 a11");
    assert_eq!((held(&mut store), db.number(&["EXISTS", FAILURES])), (InboxHeld::default(), 0));
}

#[test]
fn damaged_entries_are_kept_aside_and_not_given() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=2);
    let good = "local e = redis.call('XRANGE', KEY, '-', '+', 'COUNT', 1)[1][2] "
        .replace("KEY", &format!("'{INBOX}'"));
    for (field, value) in [
        ("payload", "x"),
        ("topic", "u"),
        ("from", "b"),
        ("number", "9"),
        ("epoch", "1"),
        ("mode", "7"),
        ("crc", "1"),
        // No text.
        ("crc", "\\255"),
        ("from", "\\255"),
    ] {
        let change = format!("for i = 1, #e, 2 do if e[i] == '{field}' then e[i + 1] = '{value}' end end ");
        db.eval(&format!("{good} {change} redis.call('XADD', '{INBOX}', '0-*', unpack(e))"));
    }
    db.run(&["XADD", INBOX, "0-*", "nothing", "known"]);
    deliver(&mut store, "a", 3..=3);
    // Behind this one no node can put anything there until it is gone.
    db.eval(&format!("{good} redis.call('XADD', '{INBOX}', '7-7', unpack(e))"));
    let outcome = take(&mut inbox(&db), 100);
    assert_eq!((outcome.messages, outcome.damaged), (3, 11));
    assert_eq!((&*taken(&db), held(&mut store)), ("a1 a2 a3", InboxHeld::default()));
    assert_eq!(db.number(&["LLEN", "lnr_quarantine"]), 11);
    let Reply::Bytes(kept) = db.run(&["LINDEX", "lnr_quarantine", "2"]) else { unreachable!("bytes") };
    assert!(kept.starts_with(b"sensor::\\ib\n$4\r\nfrom\r\n$1\r\nb\r\n$5\r\nepoch\r\n"), "{kept:?}");
}

/// Keys of another kind are found before anything is done.
#[test]
fn a_key_of_another_kind_stops_all_of_it() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=2);
    let mut inbox = inbox(&db);
    for key in [FAILURES, "lnr_node:sensor:dead", "lnr_quarantine"] {
        db.run(&["SET", key, "x"]);
        let outcome = inbox.take(100, write);
        assert!(
            matches!(&outcome, Err(error) if error.to_string().contains("WRONGTYPE")),
            "{key}: {outcome:?}"
        );
        assert_eq!((&*taken(&db), held(&mut store).messages), ("", 2));
        db.run(&["DEL", key]);
    }
    assert_eq!(take(&mut inbox, 100).messages, 2);
}

#[test]
fn two_that_take_at_once_never_get_the_same_message() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=60);
    let total: u64 = std::thread::scope(|scope| {
        let takers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut inbox = inbox(&db);
                let mut messages = 0;
                while inbox.waiting().expect("it works").messages > 0 {
                    messages += take(&mut inbox, 7).messages;
                }
                messages
            })
        });
        deliver(&mut store, "a", 61..=100);
        takers.map(|taker| taker.join().expect("it ends")).into_iter().sum()
    });
    let total = total + take(&mut inbox(&db), 100).messages;
    assert_eq!(total, 100);
    let expected: Vec<_> = (1..=100).map(|number| format!("a{number}")).collect();
    assert_eq!(taken(&db), expected.join(" "), "in their order, too");
}

/// Between what one reads and what it writes another takes some of it: that one call is processed again.
#[test]
fn who_was_slower_is_given_what_is_left() {
    let db = Db::new();
    let mut store = db.open("sensor");
    deliver(&mut store, "a", 1..=6);
    let (mut one, mut other) = (inbox(&db), inbox(&db));
    let mut seen = Vec::new();
    let outcome = one.take(4, |pipeline, message| {
        if seen.is_empty() {
            assert_eq!(take(&mut other, 2).messages, 2);
        }
        seen.push(message.number);
        write(pipeline, message)
    });
    assert_eq!(outcome.expect("it works").messages, 4);
    assert_eq!(seen, [1, 2, 3, 4, 3, 4, 5, 6]);
    assert_eq!(taken(&db), "a1 a2 a3 a4 a5 a6");
    // Others that are always faster leave it nothing, and no error.
    deliver(&mut store, "a", 7..=60);
    let outcome = one.take(1, |pipeline, message| {
        assert_eq!(take(&mut other, 1).messages, 1);
        write(pipeline, message)
    });
    assert_eq!(outcome.expect("it works").messages, 0);
}

#[test]
fn an_inbox_is_opened_where_there_is_one() {
    let db = Db::new();
    assert!(matches!(Inbox::open(&db.url(), "sensor"), Err(InboxError::NoSuchNode { .. })));
    drop(db.open("sensor"));
    assert!(matches!(Inbox::open(&db.url(), "w"), Err(InboxError::NoSuchNode { .. })));
    assert_eq!(inbox(&db).waiting().expect("it works"), InboxHeld::default());
    assert_eq!(
        db.eval("return redis.call('KEYS', '*:probe')"),
        Reply::List(Vec::new()),
        "nothing is left of trying"
    );
    db.run(&["HSET", "lnr_node:sensor", "format", "99"]);
    let newer = Inbox::open(&db.url(), "sensor");
    assert!(matches!(newer, Err(InboxError::Open(OpenError::NewerFormat { .. }))), "{newer:?}");
    assert!(matches!(Inbox::open("redis://127.0.0.1:1", "w"), Err(InboxError::Open(_))));
    assert!(matches!(Inbox::open("http://127.0.0.1", "w"), Err(InboxError::Open(OpenError::Url(_)))));
}
