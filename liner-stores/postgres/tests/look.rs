//! A look at a database from outside, and what is done with dead letters there.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{DeadReason, Delivery, StoreOp};
use liner_proto::id::Class;
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Topic};
use liner_store::look::{DeadLetter, Look as _, LookError, Pending, Target};
use liner_store_postgres::Look;

mod common;
use common::*;

fn look(database: &Database) -> Look {
    Look::open(&database.url()).expect("it can be looked at")
}

fn record(topic: &str, payload: &[u8]) -> Vec<u8> {
    message(&Header::new(Mode::One, Topic::Text(topic)), payload)
}

/// Dead letters of the node `sensor`, which has a queue for the gateway: peer, topic, reason and payload of each.
fn put_aside(database: &Database, letters: &[(&str, &str, DeadReason, &str)]) {
    let mut store = database.open("sensor");
    apply(&mut store, &[OPEN]);
    for &(peer, topic, reason, payload) in letters {
        let record = record(topic, payload.as_bytes());
        apply(&mut store, &[StoreOp::DeadLetter { peer, topic, reason, record: &record }]);
    }
}

fn ids(look: &mut Look) -> Vec<i64> {
    let letters = look.dead_letters(None, i64::MIN, 1000).expect("they are read");
    letters.iter().map(|letter| letter.id).collect()
}

fn is_why(refused: Result<u64, LookError>, words: &str) -> bool {
    matches!(refused, Err(LookError::NotQueued { why, .. }) if why.contains(words))
}

#[test]
fn where_no_node_has_been_there_is_nothing_to_look_at() {
    let database = Database::new();
    assert!(matches!(Look::open(&database.url()), Err(LookError::Unreadable(_))));
    assert_eq!(database.one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    drop(database.open("sensor"));
    database.run("UPDATE liner_schema SET version = 99");
    assert!(matches!(Look::open(&database.url()), Err(LookError::Unreadable(words)) if words.contains("99")));
}

#[test]
fn who_uses_the_database_now_is_known_by_its_lease() {
    let database = Database::new();
    let store = database.open("sensor");
    let mut look = look(&database);
    assert_eq!(["sensor", "senso"].map(|name| look.is_running(name)), [true, false]);
    store.close().expect("it is closed");
    assert!(!look.is_running("sensor"));
    assert_eq!(look.nodes().expect("they are read"), ["sensor"]);
    look.vouch_for("sensor").expect("it has used the database");
    assert!(matches!(look.vouch_for("senso"), Err(LookError::NoSuchNode { .. })));
    with_ten(&database);
    database.run("UPDATE conn_key_map SET last = 11");
    assert!(matches!(look.vouch_for("sensor"), Err(LookError::Damaged(_))));
    assert!(matches!(look.pending(None), Err(LookError::Damaged(_))));
}

#[test]
fn what_the_database_is_and_what_is_wrong_with_it_is_told() {
    let database = Database::new();
    with_ten(&database);
    let about = look(&database).about().expect("it is asked");
    assert!(about.product.starts_with("PostgreSQL 15"), "{about:?}");
    // The server of the tests does not synchronise.
    assert_eq!((about.schema, about.class, about.advice), (Some(1), Some(Class::Process), Vec::new()));
    database.run(
        "INSERT INTO quarantine(bytes) VALUES('x');
         INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'x'), (1, 'y');
         UPDATE liner_node SET system = 'another server'",
    );
    let url = format!("{}?options=-c%20synchronous_commit%3Doff", database.text());
    let about = Look::open(&url.parse().expect("a URL")).and_then(|mut look| look.about());
    let about = about.expect("it is asked");
    assert_eq!(about.class, Some(Class::Ram));
    let [aside, inserted, missing] = &about.advice[..] else { panic!("{about:?}") };
    assert!(aside.starts_with("a row in the table quarantine"), "{aside}");
    assert!(inserted.starts_with("2 rows inserted by hand"), "{inserted}");
    assert!(missing.starts_with("commits of sensor may be missing"), "{missing}");
}

#[test]
fn long_dead_letters_are_read_few_at_a_time() {
    let database = Database::new();
    let long = "x".repeat(600_000);
    let letter = ("gateway", "t", DeadReason::Expired, &*long);
    put_aside(&database, &[letter; 5]);
    let mut look = look(&database);
    let mut page = |after| look.dead_letters(None, after, 1000).expect("they are read");
    let seen = [0, 2, 4, 5].map(|after| page(after).iter().map(|letter| letter.id).collect::<Vec<_>>());
    assert_eq!(seen, [vec![1, 2], vec![3, 4], vec![5], vec![]]);
    let stored = look.stored_letters("sensor", 1, 1).expect("they are read");
    assert_eq!(
        stored.iter().map(|letter| (letter.id, letter.content.is_some())).collect::<Vec<_>>(),
        [(2, true)]
    );
    assert_eq!(look.stored_letters("other", 0, 9).expect("they are read"), []);
}

#[test]
fn a_damaged_row_is_listed_and_dropped() {
    let database = Database::new();
    put_aside(&database, &[("gateway", "t", DeadReason::Expired, "payload"); 4]);
    database.run(
        "UPDATE dead_letters SET record = record || '\\x00' WHERE id = 1;
         UPDATE dead_letters SET reason = 77 WHERE id = 2;
         UPDATE dead_letters SET peer = 'other' WHERE id = 3;",
    );
    let mut look = look(&database);
    let payloads = |letter: DeadLetter| letter.payload.map(|payload| payload.len());
    let letters = look.dead_letters(None, 0, 10).expect("damage hides nothing");
    assert_eq!(letters.into_iter().map(payloads).collect::<Vec<_>>(), [None, None, None, Some(7)]);
    for id in 1..=3 {
        assert!(is_why(look.redrive(&[id]), "its record is damaged"), "{id}");
    }
    assert_eq!(look.drop_dead_letters(&[2, 1, 3]).expect("they are dropped"), 3);
    assert_eq!(ids(&mut look), [4]);
    assert!(matches!(look.dead_letter(3), Err(LookError::NoSuchLetter { id: 3 })));
    assert_eq!(look.dead_letter(4).expect("it is there").owner, "sensor");
}

#[test]
fn what_is_named_twice_is_done_once_and_all_or_nothing() {
    let database = Database::new();
    put_aside(
        &database,
        &[
            ("gateway", "t", DeadReason::Expired, "x"),
            ("gateway", "u", DeadReason::Expired, "y"),
            ("gateway", "t", DeadReason::Expired, "z"),
        ],
    );
    let mut look = look(&database);
    assert!(matches!(look.drop_dead_letters(&[1, 9]), Err(LookError::NoSuchLetter { id: 9 })));
    assert_eq!(ids(&mut look), [1, 2, 3]);
    assert_eq!(look.redrive(&[2, 2]).expect("it is queued"), 1);
    assert_eq!(look.drop_dead_letters(&[1, 1]).expect("they are dropped"), 1);
    assert!(matches!(look.redrive(&[2]), Err(LookError::NoSuchLetter { id: 2 })));
    assert_eq!(look.drop_all_dead_letters(Some("u")).expect("none is left"), 0);
    assert_eq!(look.drop_all_dead_letters(None).expect("they are dropped"), 1);
}

fn waits(database: &Database, owner: Option<&str>) -> Vec<(String, Target, u64)> {
    let pending = look(database).pending(owner).expect("it is counted");
    let seen = |queue: Pending| (queue.owner, queue.target, queue.messages);
    pending.into_iter().map(seen).collect()
}

#[test]
fn what_waits_is_counted_with_what_was_written_by_hand() {
    let database = Database::new();
    with_ten(&database);
    let mut other = database.open("b:ü");
    apply(&mut other, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    append(NODE, 1, 2, &mut other);
    database.run(
        "INSERT INTO conn_messages(connection_key, payload) VALUES(1, 'by hand'), (1, 'another'), (999, 'lost');
         INSERT INTO conn_key_map(composite, connection_key) VALUES('new::\\tnews', 50), ('nonsense', 51);
         INSERT INTO conn_messages(connection_key, payload) VALUES(50, 'kept'), (51, 'nowhere')",
    );
    let gateway = || Target::Node("gateway".to_owned());
    let [sensor, new, b] = ["sensor", "new", "b:ü"].map(str::to_owned);
    let all = [
        (b.clone(), gateway(), 2),
        (new, Target::Topic("news".to_owned()), 1),
        (sensor.clone(), gateway(), 8),
    ];
    assert_eq!(waits(&database, None), all);
    assert_eq!(waits(&database, Some("sensor")), [(sensor, gateway(), 8)]);
    assert_eq!(waits(&database, Some("b:ü")), [(b, gateway(), 2)]);
    assert_eq!(waits(&database, Some("nobody")), []);
}

#[test]
fn what_is_queued_again_for_the_node_itself_counts_as_pending_before_it_starts() {
    let database = Database::new();
    put_aside(&database, &[("boiler", "t", DeadReason::Failed, "xyz"); 2]);
    assert_eq!(look(&database).redrive(&[1, 2]).expect("they are queued"), 2);
    let wanted = [("sensor".to_owned(), Target::Node("sensor".to_owned()), 2)];
    assert_eq!(
        (waits(&database, None), waits(&database, Some("sensor"))),
        (wanted.to_vec(), wanted.to_vec())
    );
    assert_eq!(waits(&database, Some("boiler")), []);
}

#[test]
fn what_has_come_from_somebody_does_not_go_back_there() {
    let database = Database::new();
    let (no_room, unsubscribed) = (DeadReason::Quota, DeadReason::Unsubscribed);
    put_aside(&database, &[("gateway", "t", unsubscribed, "1"), ("gateway", "t", no_room, "2")]);
    // One that hands on what it takes has no rows.
    assert!(is_why(look(&database).redrive(&[1]), "it has not subscribed to t"));
    let subscribe = |topic| {
        let subscribe = StoreOp::Subscribe { topic, address: "@gateway", name: "gateway" };
        apply(&mut database.open("sensor"), &[subscribe]);
    };
    subscribe("gateway");
    for id in [1, 2] {
        assert!(is_why(look(&database).redrive(&[id]), "it has not subscribed to t"), "{id}");
    }
    subscribe("t");
    assert_eq!(look(&database).redrive(&[1, 2]).expect("it takes them now"), 2);
    let topics: Vec<_> = look(&database).subscriptions().expect("they are read");
    assert_eq!(topics.iter().map(|row| &*row.topic).collect::<Vec<_>>(), ["gateway", "t"]);
}

#[test]
fn two_who_queue_the_same_again_queue_it_once() {
    let database = Database::new();
    put_aside(&database, &[("gateway", "t", DeadReason::Expired, "x"); 20]);
    let all: Vec<i64> = (1..=20).collect();
    let done = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| look(&database).redrive(&all).is_ok()));
        both.map(|one| one.join().expect("it ends"))
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    assert_eq!(look(&database).pending(None).expect("it is counted")[0].messages, 20);
}

#[test]
fn an_inbox_is_read_as_it_is_stored() {
    let database = Database::new();
    let mut store = database.open("sensor");
    for number in 1..=3 {
        let delivery = Delivery {
            from: "a",
            epoch: EPOCH,
            number,
            topic: "t",
            mode: Mode::All,
            maybe_redelivered: number == 2,
            payload: b"x",
        };
        apply(&mut store, &[StoreOp::Deliver(delivery)]);
    }
    database.run("UPDATE inbox SET number = 9 WHERE id = 3");
    let deliveries = look(&database).deliveries("sensor", 1, 9).expect("they are read");
    let [two, three] = &*deliveries else { panic!("two: {deliveries:?}") };
    let content = two.content.as_ref().expect("it is sound");
    assert_eq!((two.id, content.number, content.maybe_redelivered, &*content.from), (2, 2, true, "a"));
    assert_eq!((three.id, three.content.is_none()), (3, true));
    assert_eq!(store.inbox().expect("it works").expect("it has one").messages, 3);
}
