//! Keys that an operator deletes while no node runs: that loses what they held and nothing else, and new messages still arrive.
#![allow(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use liner_mio::{Client, Reliability};
use liner_store_redis::{Options, RedisStore};
use liner_tests::servers::Reply;

mod common;
use common::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn client(db: &Db, name: &str, topic: &str) -> Client {
    let url = db.url();
    let of = name.to_owned();
    Client::new(name, topic, "127.0.0.1:0", move || {
        RedisStore::open(&url, &Options { name: of.clone() })
            .map(|store| Box::new(store) as Box<dyn liner_proto::store::Store + Send>)
    })
    .expect("a client")
}

fn listen(db: &Db) -> (Client, Receiver<String>) {
    let client = client(db, "gateway", "readings");
    let (tell, heard) = channel();
    client
        .run(move |taken: &liner_mio::Taken| {
            let payload = String::from_utf8_lossy(taken.payload()).into_owned();
            tell.send(payload).map_err(|_| "the test has ended")
        })
        .expect("it runs");
    (client, heard)
}

/// Two nodes have met, five messages wait for the one that has gone, and then the other one goes.
fn prepare(db: &Db) {
    let (gateway, heard) = listen(db);
    let sensor = client(db, "sensor", "answers");
    sensor.run(|_: &liner_mio::Taken| {}).expect("it runs");
    send(&sensor, "first");
    assert_eq!(heard.recv_timeout(PATIENCE).as_deref(), Ok("first"));
    assert_eq!(sensor.wait_until_acknowledged(PATIENCE), Ok(true));
    gateway.stop().expect("it stops");
    (1..=5).for_each(|number| send(&sensor, &format!("old {number}")));
    sensor.stop().expect("it stops");
}

fn send(sensor: &Client, text: &str) {
    let begun = std::time::Instant::now();
    // Right after the start nobody may be known yet.
    while let Err(error) = sensor.send_to("readings", text.as_bytes(), Reliability::AtLeastOnce) {
        assert!(begun.elapsed() < PATIENCE, "{text}: {error}");
        std::thread::yield_now();
    }
}

/// Starts both again and sends one more message. Gives which of the old ones came before it or are dead letters.
fn go_on(db: &Db, what: &str) -> BTreeSet<String> {
    let (gateway, heard) = listen(db);
    let sensor = client(db, "sensor", "answers");
    sensor.run(|_: &liner_mio::Taken| {}).expect("it runs");
    send(&sensor, "new");
    let mut seen = BTreeSet::new();
    loop {
        match heard.recv_timeout(PATIENCE) {
            Ok(text) if text == "new" => break,
            Ok(text) => drop(seen.insert(text)),
            Err(error) => unreachable!("{what}: {error}, after {seen:?}"),
        }
    }
    assert_eq!(sensor.wait_until_acknowledged(PATIENCE), Ok(true), "{what}");
    sensor.stop().expect("it stops");
    gateway.stop().expect("it stops");
    seen.remove("first");
    seen.extend(
        db.letters().into_iter().map(|(_, _, _, payload)| String::from_utf8_lossy(&payload).into_owned()),
    );
    seen
}

#[test]
fn whatever_key_is_deleted_loses_what_it_held_and_nothing_else() {
    let db = Db::new();
    prepare(&db);
    let Reply::List(keys) = db.run(&["KEYS", "lnr_*"]) else { unreachable!("a list") };
    let keys = keys
        .into_iter()
        .filter_map(|key| if let Reply::Bytes(key) = key { String::from_utf8(key).ok() } else { None });
    let keys: BTreeSet<String> = keys.collect();
    assert!(keys.len() > 12, "{keys:?}");
    for key in &keys {
        let db = Db::new();
        prepare(&db);
        assert_eq!(db.number(&["DEL", key]), 1, "{key}");
        let seen = go_on(&db, key);
        let old: BTreeSet<String> = (1..=5).map(|number| format!("old {number}")).collect();
        let held_them = key.ends_with(":messages");
        assert_eq!(seen, if held_them { BTreeSet::new() } else { old }, "{key}");
    }
}

#[test]
fn an_emptied_database_is_begun_anew() {
    let db = Db::new();
    prepare(&db);
    db.run(&["FLUSHDB"]);
    assert_eq!(go_on(&db, "FLUSHDB"), BTreeSet::new());
}
