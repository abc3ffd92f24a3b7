//! A look at a server from outside, and what is done with dead letters there.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{DeadReason, Delivery, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Origin, Topic, encode_message};
use liner_store::look::{DeadLetter, Look as _, LookError, Pending, Target};
use liner_store_redis::Look;
use liner_tests::servers::{Redis, RedisOptions};

mod common;
use common::*;

/// Dead letters of a node which has a queue for the gateway: peer, topic, reason and payload of each.
fn put_aside(db: &Db, name: &str, letters: &[(&str, &str, DeadReason, &str)]) {
    let mut store = db.open(name);
    apply(&mut store, &[StoreOp::Inbox { epoch: Epoch(1) }, OPEN]);
    for &(peer, topic, reason, payload) in letters {
        let record = message(topic, payload.as_bytes());
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

fn pending(db: &Db, owner: Option<&str>) -> Vec<(String, Target, u64)> {
    let pending = db.look().pending(owner).expect("it is counted");
    let seen = |queue: Pending| (queue.owner, queue.target, queue.messages);
    pending.into_iter().map(seen).collect()
}

#[test]
fn who_uses_the_server_now_is_known_by_its_lease() {
    let db = Db::new();
    let mut store = db.open("sensor");
    store.directory().expect("it is read");
    let mut look = db.look();
    assert_eq!(["sensor", "senso"].map(|name| look.is_running(name)), [true, false]);
    drop(store);
    assert!(!look.is_running("sensor"), "it has given its lease up");
    drop(db.open("a:b"));
    assert_eq!(look.nodes().expect("they are read"), ["a:b", "sensor"]);
}

#[test]
fn what_the_server_is_and_what_is_wrong_with_it_is_told() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let mut look = Look::open(&server.url().parse().expect("a URL")).expect("it can be looked at");
    let about = look.about().expect("it is asked");
    assert!(about.product.starts_with("Redis ") && about.product.len() > 6, "{about:?}");
    assert_eq!((about.schema, about.class, about.advice), (Some(1), Some(Class::Power), Vec::new()));
    for words in [
        &["CONFIG", "SET", "appendfsync", "everysec"][..],
        &["CONFIG", "SET", "maxmemory", "64mb"],
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
        &["RPUSH", "lnr_quarantine", "x", "y"],
    ] {
        server.command(words).expect("it is executed");
    }
    let about = look.about().expect("it is asked");
    assert_eq!(about.class, Some(Class::Ram));
    let [evicts, aside] = &about.advice[..] else { unreachable!("{about:?}") };
    assert!(evicts.contains("allkeys-lru") && evicts.contains("noeviction"), "{evicts}");
    assert!(aside.starts_with("2 elements in the list lnr_quarantine"), "{aside}");
}

#[test]
fn dead_letters_of_several_nodes_have_ids_that_go_up() {
    let db = Db::new();
    let letter = ("gateway", "t", DeadReason::Expired, "x");
    put_aside(&db, "one", &[letter; 3]);
    put_aside(&db, "two", &[letter; 2]);
    put_aside(&db, "one", &[("gateway", "other", DeadReason::Quota, "y")]);
    let mut look = db.look();
    assert_eq!(ids(&mut look), [1, 2, 3, 4, 5, 6]);
    let of_topic = look.dead_letters(Some("other"), 0, 10).expect("they are read");
    let wanted = DeadLetter {
        id: 6,
        owner: "one".to_owned(),
        peer: "gateway".to_owned(),
        topic: "other".to_owned(),
        reason: Some(DeadReason::Quota),
        payload: Some(b"y".to_vec()),
    };
    assert_eq!(of_topic.first(), Some(&wanted));
    assert_eq!(of_topic.len(), 1);
    assert_eq!(look.dead_letter(6).expect("it is there"), wanted);
    assert!(matches!(look.dead_letter(7), Err(LookError::NoSuchLetter { id: 7 })));
    let page = look.dead_letters(None, 1, 2).expect("they are read");
    assert_eq!(page.iter().map(|letter| letter.id).collect::<Vec<_>>(), [2, 3]);
    let stored = look.stored_letters("two", 4, 10).expect("they are read");
    assert_eq!(stored.iter().map(|letter| letter.id).collect::<Vec<_>>(), [5]);
    // Whoever deletes the counter does not bring an id back.
    db.run(&["DEL", "lnr_dead_id"]);
    put_aside(&db, "two", &[letter]);
    assert_eq!(ids(&mut look), [1, 2, 3, 4, 5, 6, 7]);
    // Also while a node runs.
    let mut store = db.open("one");
    db.run(&["DEL", "lnr_dead_id"]);
    let record = message("t", b"z");
    let put = StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::Failed, record: &record };
    apply(&mut store, &[put, put]);
    assert_eq!(look.stored_letters("one", 6, 10).expect("they are read").len(), 2);
    assert_eq!(look.drop_all_dead_letters(Some("other")).expect("they are dropped"), 1);
    assert_eq!(look.drop_all_dead_letters(None).expect("they are dropped"), 8);
    assert_eq!(ids(&mut look), []);
}

#[test]
fn long_dead_letters_are_read_few_at_a_time() {
    let db = Db::new();
    let long = "x".repeat(600_000);
    put_aside(&db, "sensor", &[("gateway", "t", DeadReason::Expired, &*long); 5]);
    let mut look = db.look();
    let mut page = |after| {
        let page = look.dead_letters(None, after, 1000).expect("they are read");
        page.iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    assert_eq!([0, 2, 4, 5].map(&mut page), [vec![1, 2], vec![3, 4], vec![5], vec![]]);
}

#[test]
fn a_damaged_letter_is_listed_and_dropped() {
    let db = Db::new();
    put_aside(&db, "sensor", &[("gateway", "t", DeadReason::Expired, "payload"); 2]);
    db.run(&["XADD", "lnr_node:sensor:dead", "0-3", "peer", "p", "topic", "t", "reason", "x"]);
    db.run(&["XADD", "lnr_node:sensor:dead", "0-4", "reason", "2", "crc", "5", "record", "r"]);
    let mut look = db.look();
    let letters = look.dead_letters(None, 0, 10).expect("damage hides nothing");
    let payloads: Vec<_> = letters.into_iter().map(|letter| letter.payload.is_some()).collect();
    assert_eq!(payloads, [true, true, false, false]);
    assert!(is_why(look.redrive(&[1, 3]), "its record is damaged"));
    assert_eq!(look.drop_dead_letters(&[3, 2, 4, 3]).expect("they are dropped"), 3);
    assert!(matches!(look.drop_dead_letters(&[1, 3]), Err(LookError::NoSuchLetter { id: 3 })));
    assert_eq!(ids(&mut look), [1], "all or none");
}

#[test]
fn what_is_queued_again_is_sent_after_the_next_start() {
    let db = Db::new();
    let letters = ["", "x", "lnr:"].map(|payload| ("gateway", "a:b", DeadReason::Expired, payload));
    put_aside(&db, "sensor", &letters);
    assert_eq!(db.look().redrive(&[3, 1, 2]).expect("they are queued"), 3);
    let waiting = [("sensor".to_owned(), Target::Node("gateway".to_owned()), 3)];
    assert_eq!((pending(&db, None), pending(&db, Some("other"))), (waiting.to_vec(), vec![]));
    let mut store = db.open("sensor");
    assert_eq!(pending(&db, Some("sensor")), waiting, "and once");
    let of = |number, payload: &str| (number, "a:b".to_owned(), payload.as_bytes().to_vec());
    assert_eq!(held(&mut store, NODE, 0), [of(1, ""), of(2, "x"), of(3, "lnr:")]);
    assert!(matches!(db.look().redrive(&[2]), Err(LookError::NoSuchLetter { id: 2 })));
}

#[test]
fn what_the_application_failed_at_comes_to_it_again() {
    let db = Db::new();
    put_aside(&db, "sensor", &[("boiler", "t", DeadReason::Failed, "xyz"); 2]);
    // One that was in the inbox says where it came from.
    let origin = Origin { name: "boiler", epoch: Epoch(4), number: 9 };
    let header = Header { origin: Some(origin), repeat: true, ..Header::new(Mode::All, Topic::Text("t")) };
    let mut record = vec![0; 100];
    let len = encode_message(&header, b"in", &mut record).expect("there is room");
    record.truncate(len);
    let mut store = db.open("sensor");
    let reason = DeadReason::Failed;
    apply(&mut store, &[StoreOp::DeadLetter { peer: "boiler", topic: "t", reason, record: &record }]);
    drop(store);
    assert_eq!(db.look().redrive(&[1, 2, 3]).expect("they are queued"), 3);
    let wanted = [("sensor".to_owned(), Target::Node("sensor".to_owned()), 2)];
    assert_eq!((pending(&db, None), pending(&db, Some("boiler"))), (wanted.to_vec(), vec![]));
    let mut store = db.open("sensor");
    assert_eq!(pending(&db, None), wanted, "and once");
    let held = store.inbox().expect("it is counted").expect("it keeps one");
    assert_eq!(held.messages, 1);
    let deliveries = db.look().deliveries("sensor", 0, 10).expect("they are read");
    let delivered = deliveries[0].content.clone().expect("it is sound");
    let wanted = Delivery {
        from: "boiler",
        epoch: Epoch(4),
        number: 9,
        topic: "t",
        mode: Mode::All,
        maybe_redelivered: true,
        payload: b"in",
    };
    assert_eq!((deliveries[0].id, delivered.lend()), (1, wanted));
    apply(&mut store, &[StoreOp::Deliver(wanted)]);
    let ids: Vec<_> =
        db.look().deliveries("sensor", 1, 10).expect("they are read").iter().map(|it| it.id).collect();
    assert_eq!(ids, [2]);
}

#[test]
fn what_has_come_from_somebody_does_not_go_back_there() {
    let db = Db::new();
    let (no_room, unsubscribed) = (DeadReason::Quota, DeadReason::Unsubscribed);
    put_aside(&db, "sensor", &[("gateway", "t", unsubscribed, "1"), ("gateway", "t", no_room, "2")]);
    put_aside(&db, "sensor", &[("stranger", "t", DeadReason::Expired, "3")]);
    assert!(is_why(db.look().redrive(&[1]), "it has not subscribed to t"));
    assert!(is_why(db.look().redrive(&[3]), "nothing was ever sent to it by sensor"));
    let subscribe = |topic| {
        let mut store = db.open("sensor");
        apply(&mut store, &[StoreOp::Subscribe { topic, address: "@gateway", name: "gateway" }]);
    };
    subscribe("gateway");
    assert!(is_why(db.look().redrive(&[1, 2]), "it has not subscribed to t"));
    subscribe("t");
    assert_eq!(db.look().redrive(&[1, 2]).expect("it takes them now"), 2);
    let rows = db.look().subscriptions().expect("they are read");
    assert_eq!(rows.iter().map(|row| &*row.topic).collect::<Vec<_>>(), ["gateway", "t"]);
}

#[test]
fn two_who_queue_the_same_again_queue_it_once() {
    let db = Db::new();
    put_aside(&db, "sensor", &[("gateway", "t", DeadReason::Expired, "x"); 20]);
    let all: Vec<i64> = (1..=20).collect();
    let done = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| db.look().redrive(&all).is_ok()));
        both.map(|one| one.join().expect("it ends"))
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    assert_eq!(pending(&db, None)[0].2, 20);
    drop(db.open("sensor"));
    assert_eq!(pending(&db, Some("sensor"))[0].2, 20);
}

#[test]
fn a_node_that_may_be_started_is_told_from_a_mistaken_name_and_from_damage() {
    let db = Db::new();
    with_ten(&db);
    let mut look = db.look();
    look.vouch_for("sensor").expect("it has used the server");
    assert!(matches!(look.vouch_for("senso"), Err(LookError::NoSuchNode { .. })));
    for (key, field) in [("lnr_node:sensor:queues", "sensor::gateway"), ("lnr_node:sensor:cursors", "p")] {
        db.run(&["HSET", key, field, "damaged"]);
        assert!(matches!(look.vouch_for("sensor"), Err(LookError::Damaged { .. })), "{key}");
        db.run(&["HDEL", key, field]);
        look.vouch_for("sensor").expect("it is gone");
    }
}
