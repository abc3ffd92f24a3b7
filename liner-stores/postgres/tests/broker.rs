//! Databases that liner_broker has made and filled: each node takes over what it has sent, where it is.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{DeadReason, Queue, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::wire::record::{Header, Mode, Topic};
use liner_store::look::{Look as _, Target};
use liner_store_postgres::Look;

mod common;
use common::broker::*;
use common::*;

/// A message that was taken over.
fn taken(topic: &str, payload: &[u8]) -> Vec<u8> {
    message(&Header { repeat: true, ..Header::new(Mode::One, Topic::Text(topic)) }, payload)
}

/// Asserts that a queue holds these messages above a number, and no others.
fn assert_holds<const N: usize>(
    database: &Database,
    owner: &str,
    queue: Queue<'_>,
    after: u64,
    messages: [(&str, &[u8]); N],
) {
    let expected = run(messages.map(|(topic, payload)| taken(topic, payload)));
    assert_eq!(load(&mut database.open(owner), queue, after), (after + 1, after + N as u64, expected));
}

const MAP: &str =
    "SELECT connection_key || ' ' || composite AS line FROM conn_key_map ORDER BY connection_key";
const LETTERS: &str =
    "SELECT concat_ws('/', owner, peer, topic, reason) AS line FROM dead_letters ORDER BY id";
const COUNTS: &str =
    "SELECT connection_key || ' ' || count(*) AS line FROM conn_messages GROUP BY connection_key ORDER BY 1";

fn counts(database: &Database, name: &str) -> (u64, u64, u64) {
    let store = database.open(name);
    let opened = store.opened();
    (opened.inserted, opened.orphaned, opened.waiting)
}

#[test]
fn each_node_takes_over_what_it_has_sent() {
    for is_older in [true, false] {
        let database = Database::old(&[FILLED, if is_older { WITHOUT_NAME } else { "" }]);
        for (key, topic, payload) in
            [(3, 1, "one"), (4, 1, "theirs"), (3, 7, "two"), (5, 1, "three"), (3, 1, "four")]
        {
            database.insert(key, &frame(18, key, topic, 2, payload.as_bytes()));
        }
        assert_eq!(counts(&database, "somebody"), (0, 0, 0));
        assert_eq!(database.lines(COUNTS), ["3 3", "4 1", "5 1"]);
        let pending = Look::open(&database.url()).expect("it opens").pending(None).expect("it is counted");
        let pending: Vec<_> =
            pending.into_iter().map(|queue| (queue.owner, queue.target, queue.messages)).collect();
        let gateway = || Target::of(NODE);
        assert_eq!(pending, [("other".to_owned(), gateway(), 1), ("sensor".to_owned(), gateway(), 4)]);

        assert_eq!(counts(&database, "sensor"), (4, 0, 0));
        assert_eq!(counts(&database, "sensor"), (0, 0, 0), "once");
        assert_eq!(database.lines(COUNTS), ["3 4", "4 1"], "under the key that it had");
        let map = ["3 sensor::gateway", "4 other:x:gateway", "5 sensor:second:gateway", "6 sensor::idle"];
        assert_eq!(database.lines(MAP), map);
        let held: [(&str, &[u8]); 4] =
            [("readings", b"one"), ("news", b"two"), ("readings", b"three"), ("readings", b"four")];
        assert_holds(&database, "sensor", NODE, 0, held);
        assert_eq!(counts(&database, "other"), (1, 0, 0));
        assert_holds(&database, "other", NODE, 0, [("readings", b"theirs")]);
        let senders = "SELECT connection_key || sender_topic AS line FROM conn_sender ORDER BY 1";
        assert_eq!(database.lines(senders), ["3alarms", "4x", "5second", "6alarms"]);
        assert_eq!(database.lines("SELECT v::text AS line FROM conn_mess_number WHERE v > 0"), [""; 0]);
        let names = "SELECT client_name AS line FROM sender_listener WHERE sender_key = 'sensor:alarms'";
        assert_eq!(database.lines(names), ["gateway"]);
        lives_on(&database);
    }
}

/// Its queue for the gateway holds four messages.
fn lives_on(database: &Database) {
    let mut store = database.open("sensor");
    append(NODE, 5, 6, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 5 }]);
    assert_eq!(store.queued(NODE).expect("it is counted").0, 1);
    let [idle, new] = ["idle", "new"].map(|name| StoreOp::Open { queue: Queue::Node(name), epoch: EPOCH });
    apply(&mut store, &[idle, new]);
    drop(store);
    let keys = "SELECT concat_ws(' ', name, connection_key > 9, connection_key = 6) AS line FROM conn_key_map
      WHERE name IN ('idle', 'new') ORDER BY 1";
    assert_eq!(database.lines(keys), ["idle f t", "new t f"], "no key is given out again");
    // The old program is started once more on it, and then this release again.
    database.run("INSERT INTO conn_key_map VALUES('sensor:alarms:gateway', 100); INSERT INTO conn_sender VALUES(100, 'alarms')");
    database.insert(100, &frame(1, 100, 1, 2, b"later"));
    assert_eq!(counts(database, "sensor"), (1, 0, 0));
    assert_holds(database, "sensor", NODE, 6, [("readings", b"later")]);
}

#[test]
fn what_cannot_be_sent_becomes_a_dead_letter() {
    let database = Database::old(&[FILLED]);
    let long = vec![b'x'; 1 << 20];
    for (key, bytes) in [
        (3, frame(1, 3, 1, 3, b"compressed")),
        (3, frame(2, 4, 1, 2, b"of another stream")),
        (3, frame(3, 3, 99, 2, b"no such topic")),
        (3, frame(4, 3, 8, 2, b"{\"event\":\"subscribed\"}")),
        (3, frame(5, 3, 1, 2, &[&long[..], b"y"].concat())),
        (3, frame(6, 3, 1, 2, b"sent")),
        (5, frame(7, 5, 1, 3, b"compressed")),
        (3, b"raw".to_vec()),
        (5, b"raw".to_vec()),
        (99, frame(7, 99, 1, 2, b"of nobody")),
    ] {
        database.insert(key, &bytes);
    }
    assert_eq!(counts(&database, "sensor"), (1, 8, 0));
    assert_holds(&database, "sensor", NODE, 0, [("readings", b"sent")]);
    let (orphaned, large) = (DeadReason::Orphaned as u8, DeadReason::TooLarge as u8);
    let expected = [
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway/readings/{large}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor/gateway//{orphaned}"),
        format!("sensor//readings/{orphaned}"),
    ];
    assert_eq!(database.lines(LETTERS), expected);
    let mut look = Look::open(&database.url()).expect("it opens");
    let letters = look.dead_letters(None, 0, 3).expect("they are read");
    let payloads: Vec<_> =
        letters.iter().map(|letter| letter.payload.as_deref().expect("it is sound")).collect();
    assert_eq!(payloads, [&b"compressed"[..], &frame(2, 4, 1, 2, b"of another stream"), b"no such topic"]);
    // Without its topic it is nothing that can be sent.
    look.redrive(&[letters[0].id]).expect("its stream is there");
    assert_eq!(counts(&database, "sensor"), (0, 1, 0));
    assert_eq!(database.one("SELECT count(*) FROM conn_messages WHERE epoch IS NULL"), "0");
}

/// A frame is told by its numbers only where that program may have written the row.
#[test]
fn rows_by_hand_are_by_hand() {
    let database = Database::new();
    with_ten(&database);
    let bytes = frame(1, 1, 1, 2, b"x");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    database.run(&format!(
        "INSERT INTO conn_messages(connection_key, topic, payload) VALUES(1, 'readings', '\\x{hex}')"
    ));
    database.insert(1, &frame(1, 2, 1, 2, b"y"));
    assert_eq!(counts(&database, "sensor"), (2, 0, 0));
    let by_hand = |bytes: &[u8]| message(&Header::new(Mode::One, Topic::Text("readings")), bytes);
    let expected = run([by_hand(&bytes), by_hand(&frame(1, 2, 1, 2, b"y"))]);
    assert_eq!(load(&mut database.open("sensor"), NODE, 10), (11, 12, expected));
}

#[test]
fn topics_with_one_number_are_told_apart_by_who_takes_them() {
    let database = Database::old(&[FILLED, "UPDATE topic_key SET k = 1 WHERE topic IN ('alarms', 'news')"]);
    database.insert(3, &frame(3, 3, 1, 2, b"one"));
    assert_eq!(counts(&database, "sensor"), (1, 0, 0));
    assert_holds(&database, "sensor", NODE, 0, [("readings", b"one")]);
}

/// Nothing is escaped in the names that it has given: whose a stream is follows from the topic of its sender.
#[test]
fn names_with_colons_find_their_nodes() {
    let database = Database::old(&[r"INSERT INTO topic_key VALUES('t', 1), ('kept', 9);
          INSERT INTO conn_key_map VALUES('s:a:b:l', 1), ('s:b:own:l', 2), ('s::\tkept', 3), ('s:b:c:d:e', 4), ('s\:b::x', 5), ('s', 6);
          INSERT INTO conn_sender VALUES(1, 'a:b'), (2, 'own')"]);
    for (key, topic) in [(1, 1), (2, 1), (3, 9), (3, 1), (5, 1), (6, 1)] {
        database.insert(key, &frame(1, key, topic, 2, b"m"));
    }
    assert_eq!(counts(&database, "s"), (2, 1, 0));
    assert_eq!(database.lines(COUNTS), ["1 1", "2 1", "3 1", "5 1", "6 1"], "what is another's is left");
    assert_holds(&database, "s", Queue::Node("l"), 0, [("t", b"m")]);
    assert_holds(&database, "s", Queue::Topic("kept"), 0, [("kept", b"m")]);
    assert_eq!(counts(&database, "s:b"), (2, 0, 0));
    assert_holds(&database, "s:b", Queue::Node("l"), 0, [("t", b"m")]);
    assert_holds(&database, "s:b", Queue::Node("x"), 0, [("t", b"m")]);
    let map = ["1 s::l", "2 s\\:b::l", "3 s::\\tkept", "4 s:b:c:d:e", "5 s\\:b::x", "6 s"];
    assert_eq!(database.lines(MAP), map);
    // Whose this is cannot be told: it is a dead letter of the first that it may be of.
    database.insert(4, &frame(1, 4, 1, 2, b"m"));
    assert_eq!(counts(&database, "s:b"), (0, 1, 0));
    assert_eq!(counts(&database, "s"), (0, 0, 0));
    assert_eq!(database.lines(LETTERS), ["s/kept/t/4", "s:b/e/t/4"]);
}

/// After a loss of commits the other side may have had the numbers behind the last one.
#[test]
fn a_queue_in_doubt_is_given_nothing_before_it_has_a_new_epoch() {
    let database = Database::new();
    with_ten(&database);
    apply(&mut database.open("sensor"), &[StoreOp::Inbox { epoch: Epoch(5) }]);
    database.run(
        "UPDATE liner_node SET system = 'another server'; INSERT INTO topic_key VALUES('t', 50);
         INSERT INTO conn_key_map VALUES('sensor:own:gateway', 60)",
    );
    database.insert(60, &frame(1, 60, 50, 2, b"one"));
    let mut store = database.open("sensor");
    assert_eq!((store.opened().inserted, store.opened().waiting), (0, 1));
    let predecessor = Predecessor { epoch: EPOCH, old_first: 5, count: 6 };
    apply(&mut store, &[StoreOp::Rotate { queue: NODE, epoch: Epoch(8), predecessor }]);
    drop(store);
    assert_eq!(counts(&database, "sensor"), (1, 0, 0));
    assert_holds(&database, "sensor", NODE, 6, [("t", b"one")]);
}

#[test]
fn of_many_that_start_at_once_each_takes_its_own() {
    const NODES: i32 = 6;
    let database = Database::old(&["INSERT INTO topic_key VALUES('t', 1)"]);
    for node in 0..NODES {
        let key = node + 10;
        database.run(&format!("INSERT INTO conn_key_map VALUES('node-{node}:own:gateway', {key})"));
        database.insert(key, &frame(1, key, 1, 2, b"m"));
    }
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..NODES)
            .map(|node| {
                let database = database.clone();
                scope.spawn(move || counts(&database, &format!("node-{node}")))
            })
            .collect();
        for start in starts {
            assert_eq!(start.join().expect("it starts"), (1, 0, 0));
        }
    });
    for node in 0..NODES {
        assert_holds(&database, &format!("node-{node}"), NODE, 0, [("t", b"m")]);
    }
}
