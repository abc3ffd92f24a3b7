//! Many processes with one database. Each is this executable, started again.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};

use liner_proto::effect::{Queue, StoreOp};
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Header, Mode, Record, Topic, decode};

mod common;
use common::*;

/// Tells a process that it is one of many: what it does, its name and the URL.
const CHILD: &str = "LINER_TEST_PROCESS";

/// How many messages each of eight processes sends.
const MESSAGES: &str = "LINER_TEST_MESSAGES";

fn start(test: &str, name: &str, database: &Database) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the test knows its file"));
    command.args([test, "--exact", "--nocapture"]).env(CHILD, format!("{name} {}", database.text()));
    command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().expect("it starts")
}

fn end(children: Vec<Child>) {
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
}

fn child() -> Option<(String, liner_store_postgres::Url)> {
    let child = std::env::var(CHILD).ok()?;
    let (name, url) = child.split_once(' ').expect("two words");
    Some((name.to_owned(), url.parse().expect("it is a URL")))
}

#[test]
fn many_that_first_use_a_topic_get_one_key() {
    if let Some((name, url)) = child() {
        let mut store = open(&url, &name);
        apply(
            &mut store,
            &[StoreOp::Subscribe { topic: "shared", address: &format!("@{name}"), name: &name }],
        );
        return apply(&mut store, &[OPEN]);
    }
    let database = Database::new();
    let test = "many_that_first_use_a_topic_get_one_key";
    end((0..32).map(|process| start(test, &format!("node-{process}"), &database)).collect());
    assert_eq!(database.one("SELECT count(*) FROM topic_addr WHERE topic = 'shared'"), "32");
    assert_eq!(database.one("SELECT count(*) FROM topic_key"), "1");
    let keys = "SELECT count(DISTINCT k) FROM (SELECT connection_key AS k FROM conn_key_map UNION ALL SELECT k FROM topic_key) AS keys";
    assert_eq!(database.one(keys), "33");
}

#[test]
fn eight_that_send_at_once_have_each_message_once() {
    let messages: u64 =
        std::env::var(MESSAGES).ok().and_then(|messages| messages.parse().ok()).unwrap_or(1000);
    let topic = Header::new(Mode::One, Topic::Text("t"));
    if let Some((name, url)) = child() {
        let mut store = open(&url, &name);
        apply(&mut store, &[OPEN]);
        let mut number = 1;
        while number <= messages {
            let last = (number + number % 37).min(messages);
            let records =
                run((number..=last).map(|number| message(&topic, format!("{name} {number}").as_bytes())));
            apply(&mut store, &[StoreOp::Append { queue: NODE, first: number, last, records: &records }]);
            number = last + 1;
        }
        return;
    }
    let database = Database::new();
    let names: Vec<_> = (0..8).map(|process| format!("node-{process}")).collect();
    let test = "eight_that_send_at_once_have_each_message_once";
    end(names.iter().map(|name| start(test, name, &database)).collect());
    let all = 8 * messages;
    let counts = "SELECT concat_ws(' ', count(*), count(DISTINCT id), count(DISTINCT connection_key)) FROM conn_messages";
    assert_eq!(database.one(counts), format!("{all} {all} 8"));
    let mut seen = HashSet::new();
    for name in &names {
        let mut store = database.open(name);
        let mut after = 0;
        while after < messages {
            let (first, last, records) = load(&mut store, NODE, after);
            assert_eq!(first, after + 1);
            for step in Walk::new(&records, first) {
                let record = &records[step.body..step.end];
                let Ok(Record::Message { payload, .. }) = decode(record) else { panic!("{record:?}") };
                assert_eq!(payload, format!("{name} {}", step.first).as_bytes());
                assert!(seen.insert(payload.to_vec()));
            }
            after = last;
        }
        apply(&mut store, &[StoreOp::Trim { queue: Queue::Node("gateway"), through: messages }]);
    }
    assert_eq!((seen.len() as u64, &*database.one("SELECT count(*) FROM conn_messages")), (all, "0"));
}

/// What was written by hand is queued once, in its order, whoever is killed while it is queued.
#[test]
fn whoever_is_killed_while_it_starts_queues_what_was_written_by_hand_once() {
    if let Some((name, url)) = child() {
        return drop(open(&url, &name));
    }
    let test = "whoever_is_killed_while_it_starts_queues_what_was_written_by_hand_once";
    let database = Database::new();
    with_ten(&database);
    let mut inserted = 0;
    for kill in 0..10 {
        let (first, last) = (inserted + 1, inserted + 2000);
        database.run(&format!(
            "INSERT INTO conn_messages(connection_key, payload)
             SELECT 1, convert_to(n::text, 'UTF8') FROM generate_series({first}, {last}) AS n"
        ));
        inserted = last;
        let mut child = start(test, "sensor", &database);
        // The server tells how far it is; each of them dies a little later than the one before.
        let at_work = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'liner sensor' AND state <> 'idle'";
        while database.one(at_work) == "0" && child.try_wait().expect("it is asked").is_none() {}
        (0..kill * 3).for_each(|_| drop(database.one(at_work)));
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
    }
    let mut store = database.open("sensor");
    let (mut after, mut expected) = (10, 1);
    while expected <= inserted {
        let (first, last, records) = load(&mut store, NODE, after);
        assert_eq!(first, after + 1);
        for step in Walk::new(&records, first) {
            let record = &records[step.body..step.end];
            let Ok(Record::Message { payload, .. }) = decode(record) else { panic!("{record:?}") };
            assert_eq!(payload, expected.to_string().as_bytes());
            expected += 1;
        }
        after = last;
    }
    assert_eq!(database.one("SELECT count(*) FROM conn_messages"), (inserted + 6).to_string());
}
