//! Databases that other programs have made, emptied or filled: they are upgraded in place, and keep working.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::effect::{GapReason, Queue, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::store::run::Walk;
use liner_store::look::Look as _;
use liner_store_postgres::{OpenError, Options, PostgresStore, Url, grants};

mod common;
use common::*;

/// As liner_broker 1.4 makes them.
const OLD: &str = "
CREATE TABLE IF NOT EXISTS seq(id INT PRIMARY KEY, v INT NOT NULL);
CREATE TABLE IF NOT EXISTS topic_addr(topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY(topic, addr));
CREATE TABLE IF NOT EXISTS sender_listener(sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL,
  client_name TEXT NOT NULL, PRIMARY KEY(sender_key, addr));
CREATE TABLE IF NOT EXISTS conn_key_map(composite TEXT PRIMARY KEY, connection_key INT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS topic_key(topic TEXT PRIMARY KEY, k INT NOT NULL);
CREATE TABLE IF NOT EXISTS conn_sender(connection_key INT PRIMARY KEY, sender_topic TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conn_mess_number(connection_key INT PRIMARY KEY, v BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS conn_messages(id SERIAL PRIMARY KEY, connection_key INT NOT NULL, payload BYTEA NOT NULL);
CREATE INDEX IF NOT EXISTS idx_conn_messages ON conn_messages(connection_key, id);
INSERT INTO seq VALUES(1, 0) ON CONFLICT DO NOTHING;";

/// What its nodes have left there, with messages of which nothing is whole.
const FILLED: &str = "
UPDATE seq SET v = 9;
INSERT INTO topic_addr VALUES('readings', '127.0.0.1:7', 'gateway'), ('alarms', '127.0.0.1:8', 'sensor');
INSERT INTO topic_key VALUES('readings', 1), ('alarms', 2);
INSERT INTO conn_key_map VALUES('sensor:alarms:gateway', 3), ('other:x:gateway', 4);
INSERT INTO conn_sender VALUES(3, 'alarms'), (4, 'x');
INSERT INTO conn_mess_number VALUES(3, 17);
INSERT INTO sender_listener VALUES('sensor:alarms', '127.0.0.1:7', 'readings', 'gateway');
INSERT INTO conn_messages(connection_key, payload)
VALUES(3, '\\x0000001f0000000000000012'), (3, '\\x0000001f0000000000000013'), (4, '\\x01'), (99, '\\x02');";

/// A node's life: it opens a queue, sends, is acknowledged, and finds all of that when it comes again.
fn live(database: &Database, name: &str) {
    let mut store = database.open(name);
    apply(&mut store, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    let last = told(&mut store).queues.first().map_or(0, |(_, queue)| queue.last);
    append(NODE, last + 1, last + 3, &mut store);
    apply(&mut store, &[StoreOp::Subscribe { topic: name, address: "@x", name }]);
    store.close().expect("it is closed");
    let mut store = database.open(name);
    assert_eq!((store.opened().damaged, store.opened().orphaned), (0, 0));
    assert_eq!(load(&mut store, NODE, last), (last + 1, last + 3, numbered(last + 1, last + 3)));
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: last + 3 }]);
    assert_eq!(store.queued(NODE), Ok((0, 0)));
}

#[test]
fn an_empty_database_of_another_program_is_upgraded_in_place() {
    let database = Database::new();
    database.run(OLD);
    live(&database, "sensor");
    let widths = "SELECT string_agg(data_type, ' ') FROM information_schema.columns
      WHERE table_name = 'conn_messages' AND column_name = 'id'";
    assert_eq!(database.one(widths), "bigint");
    database.run("SELECT setval('conn_messages_id_seq', 3000000000)");
    live(&database, "sensor2");
    // The other program finds what it knows.
    database.run(OLD);
    assert_eq!(database.one("SELECT count(*) FROM topic_key WHERE topic = 'sensor'"), "1");
}

#[test]
fn a_filled_database_of_another_program_keeps_what_it_holds() {
    let database = Database::new();
    database.run(OLD);
    database.run(FILLED);
    let mut store = database.open("sensor");
    // What is not in its form is not sent, and not lost.
    assert_eq!((store.opened().inserted, store.opened().orphaned), (0, 3));
    let letters = "SELECT string_agg(owner || '/' || peer, ' ' ORDER BY id) FROM dead_letters";
    assert_eq!(database.one(letters), "sensor/gateway sensor/gateway sensor/");
    let rows = told(&mut store).rows;
    assert_eq!(rows.len(), 2);
    drop(store);
    assert_eq!(
        database.one("SELECT count(*) FROM conn_messages"),
        "1",
        "that of a node that has not been here"
    );
    live(&database, "sensor");
    let keys = "SELECT string_agg(connection_key::text, ' ' ORDER BY connection_key) FROM conn_key_map";
    assert_eq!(database.one(keys), "3 4", "the stream keeps its key");
    assert_eq!(
        database.one("SELECT string_agg(topic || k, ' ' ORDER BY k) FROM topic_key"),
        "readings1 alarms2 sensor11"
    );
    assert_eq!(database.open("other").opened().orphaned, 1);
}

#[test]
fn whatever_is_truncated_while_no_node_runs_loses_what_it_held_and_nothing_else() {
    let tables = [
        "topic_addr",
        "topic_key",
        "conn_key_map",
        "conn_messages",
        "conn_mess_number",
        "conn_sender",
        "sender_listener",
        "seq",
        "liner_node",
        "liner_lease",
        "liner_directory",
        "stream_topic",
        "inbound_cursor",
        "dead_letters",
        "inbox",
        "quarantine",
        "liner_schema",
    ];
    let all = tables.join(", ");
    for table in tables.into_iter().chain([&*all]) {
        let database = Database::new();
        with_ten(&database);
        let mut store = database.open("sensor");
        apply(
            &mut store,
            &[StoreOp::Inbox { epoch: Epoch(5) }, StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 5 }],
        );
        apply(&mut store, &[StoreOp::Subscribe { topic: "t", address: "@g", name: "gateway" }]);
        drop(store);
        database.run(&format!("TRUNCATE {table}"));
        let mut store = database.open("sensor");
        let told = told(&mut store);
        let loses = |tables: &[&str]| tables.contains(&table) || table == all;
        // Messages whose topics are lost are kept, without them.
        let gone = loses(&["conn_key_map", "stream_topic"]);
        let letters = if gone && table != all { "6" } else { "0" };
        assert_eq!(database.one("SELECT count(*) FROM dead_letters"), letters, "{table}");
        assert_eq!(told.queues.is_empty(), gone, "{table}");
        assert_eq!(told.cursors.is_empty(), loses(&["inbound_cursor"]), "{table}");
        assert_eq!(told.rows.is_empty(), loses(&["topic_addr"]), "{table}");
        assert_eq!(told.node.is_none(), loses(&["liner_node"]), "{table}");
        if !gone {
            let (first, last, records) = load(&mut store, NODE, 4);
            assert_eq!((first, last), (5, 10), "{table}");
            if table == "conn_messages" {
                let gaps: Vec<_> = Walk::new(&records, first).map(|step| (step.last, step.gap)).collect();
                assert_eq!(gaps, [(10, Some(GapReason::Cleared))]);
            } else {
                assert_eq!(records, numbered(5, 10), "{table}");
            }
        }
        drop(store);
        live(&database, "sensor");
        live(&database, "another");
        let twice = "SELECT count(*) FROM (SELECT connection_key FROM conn_key_map UNION ALL SELECT k FROM topic_key) AS k
          GROUP BY connection_key HAVING count(*) > 1";
        assert_eq!(database.one(twice), "", "{table}");
    }
}

#[test]
fn many_that_start_at_once_make_the_tables_once() {
    let database = Database::new();
    let created: u32 = std::thread::scope(|scope| {
        let starts = [0, 1, 2, 3, 4, 5, 6, 7].map(|node| (node, database.clone())).map(|(node, database)| {
            scope.spawn(move || database.open(&format!("node-{node}")).opened().created)
        });
        starts.map(|start| u32::from(start.join().expect("it starts"))).into_iter().sum()
    });
    assert_eq!(created, 1);
    assert_eq!(database.one("SELECT count(*) FROM liner_node"), "8");
}

fn try_open(url: &str, name: &str) -> Result<PostgresStore, OpenError> {
    let url: Url = url.parse().expect("it is a URL");
    PostgresStore::open(&url, &Options { name: name.to_owned() })
}

/// All that a node asks of its store.
fn do_all(mut store: PostgresStore) {
    apply(&mut store, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    append(NODE, 1, 5, &mut store);
    let record = numbered(1, 1);
    apply(
        &mut store,
        &[
            StoreOp::Subscribe { topic: "t", address: "@g", name: "g" },
            StoreOp::Cursor { peer: "p", epoch: EPOCH, through: 1 },
            StoreOp::Inbox { epoch: Epoch(3) },
            StoreOp::DeadLetter {
                peer: "g",
                topic: "t",
                reason: liner_proto::effect::DeadReason::Expired,
                record: &record[1..],
            },
            StoreOp::Open { queue: Queue::Node("closed"), epoch: EPOCH },
        ],
    );
    let delivery = liner_proto::effect::Delivery {
        from: "a",
        epoch: EPOCH,
        number: 1,
        topic: "t",
        mode: liner_proto::wire::record::Mode::One,
        maybe_redelivered: false,
        payload: b"x",
    };
    apply(&mut store, &[StoreOp::Deliver(delivery), StoreOp::Close { queue: Queue::Node("closed") }]);
    assert!(store.directory().expect("it is read").is_some());
    assert_eq!(load(&mut store, NODE, 0).1, 5);
    assert!(store.notices().expect("it is the first time").wait(std::time::Duration::from_secs(20)));
}

/// The node has what [`grants`] gives, in a schema of its own that somebody else has made.
#[test]
fn the_documented_permissions_are_enough() {
    let database = Database::new();
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (owner, role, schema) = ("the owner", "node \"x\" SCHEMA", "My \"ROLE\" schema");
    for name in [owner, role] {
        database.run(&format!("DROP ROLE IF EXISTS {0}; CREATE ROLE {0} LOGIN", quoted(name)));
    }
    database.run(&format!("CREATE SCHEMA {} AUTHORIZATION {}", quoted(schema), quoted(owner)));
    database.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let options = encoded(&format!("-c search_path={}", quoted(schema).replace(' ', "\\ ")));
    let url = |user: &str| {
        format!("postgres://{}@{}/{}?options={options}", encoded(user), server().address(), database.0)
    };
    // The node alone can do nothing, and is told so.
    assert!(matches!(
        try_open(&url(role), "sensor"),
        Err(OpenError::Permission { .. } | OpenError::Server { .. })
    ));
    drop(try_open(&url(owner), "owner").expect("the owner makes the tables"));
    assert!(matches!(
        try_open(&url(role), "sensor"),
        Err(OpenError::Permission { .. } | OpenError::Server { .. })
    ));
    database.run(&grants(schema, role));
    do_all(try_open(&url(role), "sensor").expect("it has what it needs"));
    let key = format!("SELECT connection_key FROM {}.conn_key_map LIMIT 1", quoted(schema));
    let key = database.one(&key);
    // By hand, damaged, orphaned: whatever there is to be set right.
    database.run(&format!(
        "SET search_path = {}; INSERT INTO conn_messages(connection_key, payload) VALUES({key}, 'x'), (999, 'y');
         UPDATE conn_messages SET payload = 'z' WHERE number = 2; UPDATE inbound_cursor SET through = 9",
        quoted(schema)
    ));
    let mut store = try_open(&url(role), "sensor").expect("it has what it needs");
    assert_eq!((store.opened().inserted, store.opened().orphaned, store.opened().damaged), (1, 1, 1));
    assert!(matches!(store.load(NODE, 1, &mut [0; 100]), Ok(liner_proto::effect::Loaded::Corrupt { .. })));
    let node_url: Url = url(role).parse().expect("it is a URL");
    let mut look = liner_store_postgres::Look::open(&node_url).expect("it can be looked at");
    let letters = look.dead_letters(None, 0, 9).expect("they are read");
    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(look.drop_dead_letters(&ids).expect("they are dropped"), 2);
    let mut inbox = liner_store_postgres::Inbox::open(&node_url, "sensor").expect("it opens");
    assert_eq!(inbox.take(9, |_, _| Ok::<(), ()>(())).expect("it works").messages, 1);
    assert_eq!(database.one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    // Somebody who may write into the directory alone.
    database.run("DROP ROLE IF EXISTS harness; CREATE ROLE harness");
    database.run(&format!(
        "GRANT USAGE ON SCHEMA {0} TO harness; GRANT INSERT ON {0}.topic_addr TO harness; SET ROLE harness;
         INSERT INTO {0}.topic_addr VALUES('u', '127.0.0.1:9', 'h')",
        quoted(schema)
    ));
    assert!(store.directory().expect("it is read").is_some());
}

#[test]
fn a_table_that_was_dropped_comes_back_with_the_schemas_own() {
    let database = Database::new();
    live(&database, "sensor");
    database.run("DROP TABLE topic_key, liner_schema");
    live(&database, "sensor");
}
