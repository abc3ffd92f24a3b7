//! Many processes with one server.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use liner_proto::effect::{DeadReason, Queue, StoreOp};
use liner_proto::id::Epoch;
use liner_store::look::Look as _;
use liner_store_redis::{Options, RedisStore};
use liner_tests::servers::Reply;

mod common;
use common::*;

/// What a process is told: the server, its name, and how many messages it appends.
const ROLE: &str = "LINER_TEST_PROCESS";
const TOPIC: &str = "one for all";

/// The program of each process. It does nothing where it is not asked to.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let [url, name, messages] = words[..] else { unreachable!("{role}") };
    let mut store = RedisStore::open(url, &Options { name: name.to_owned() }).expect("the store opens");
    let address = format!("@{name}");
    apply(&mut store, &[StoreOp::Subscribe { topic: TOPIC, address: &address, name }]);
    let Ok(messages) = messages.parse() else { unreachable!("{role}") };
    let queues = ["a", "b", "c"].map(Queue::Node);
    for queue in queues {
        apply(&mut store, &[StoreOp::Open { queue, epoch: Epoch(1) }]);
    }
    let step = 500;
    for first in (1..=messages).step_by(step as usize) {
        append(&mut store, queues[0], first, messages.min(first + step - 1));
        let record = message("t", name.as_bytes());
        let reason = DeadReason::Expired;
        apply(&mut store, &[StoreOp::DeadLetter { peer: "a", topic: "t", reason, record: &record }]);
    }
}

fn start(db: &Db, name: &str, messages: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the test knows its file"));
    command.args(["child", "--exact", "--test-threads=1"]);
    command.env(ROLE, format!("{} {name} {messages}", db.url()));
    command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().expect("it starts")
}

fn run_all(db: &Db, processes: u64, messages: u64) {
    let all: Vec<Child> = (0..processes).map(|number| start(db, &format!("p{number}"), messages)).collect();
    for mut child in all {
        assert!(child.wait().expect("it ends").success());
    }
}

#[test]
fn a_topic_that_many_use_first_has_one_number() {
    let db = Db::new();
    run_all(&db, 32, 0);
    let number = db.number(&["GET", "lnr_topic:one for all:key"]);
    assert_eq!(db.number(&["HLEN", "lnr_topic:one for all:addr"]), 32);
    let Reply::List(keys) = db.run(&["HKEYS", "lnr_connections"]) else { unreachable!("a list") };
    let keys: BTreeSet<_> = keys.into_iter().map(|key| format!("{key:?}")).collect();
    assert_eq!(keys.len(), 32 * 3, "each queue has a key of its own");
    assert_eq!(db.number(&["GET", "lnr_unique_key"]), 32 * 3 + 1, "and the topic {number} one");
}

/// `LINER_TEST_MESSAGES=10000` for the long form.
#[test]
fn what_many_append_at_a_time_is_there_once() {
    let messages = std::env::var("LINER_TEST_MESSAGES").map_or(2000, |text| text.parse().expect("a number"));
    let db = Db::new();
    run_all(&db, 8, messages);
    for number in 0..8 {
        let mut store = db.open(&format!("p{number}"));
        assert_eq!(store.opened().damaged + store.opened().orphaned, 0);
        let held = held(&mut store, Queue::Node("a"), 0);
        assert_eq!(held.len() as u64, messages);
        for (expected, (at, _, payload)) in (1_u64..).zip(held) {
            assert_eq!(at, expected);
            assert!(payload.starts_with(&expected.to_le_bytes()));
        }
        let key = db.number(&["GET", &format!("lnr_connection:p{number}::a:key")]);
        assert_eq!(db.number(&["LLEN", &format!("lnr_connection:{key}:messages")]), messages as i64);
    }
    let letters = db.look().dead_letters(None, 0, 1000).expect("they are read");
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(ids, (1..=ids.len() as i64).collect::<Vec<_>>());
    assert_eq!(ids.len() as u64, 8 * messages.div_ceil(500));
}
