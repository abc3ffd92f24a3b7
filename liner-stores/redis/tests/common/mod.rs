//! What the tests of the store share.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(dead_code, reason = "no test uses all of it")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use liner_proto::effect::{Loaded, Queue, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Header, Mode, Record, Topic, decode, encode_message};
use liner_store::look::Look as _;
use liner_store_redis::{Look, Options, RedisStore};
use liner_tests::conformance::records::numbered;
use liner_tests::servers::{Redis, RedisOptions, Reply};

pub(crate) const NODE: Queue<'static> = Queue::Node("gateway");
pub(crate) const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: Epoch(7) };

static SERVER: LazyLock<Redis> = LazyLock::new(|| {
    let settings = vec!["databases 256".to_owned()];
    Redis::start(&RedisOptions { settings, ..RedisOptions::default() }).expect("the server starts")
});
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A database of a server that the tests of this file share.
pub(crate) struct Db {
    number: String,
}

impl Db {
    pub(crate) fn new() -> Self {
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed).to_string() }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/{}", SERVER.url(), self.number)
    }

    /// An operator's command.
    pub(crate) fn run(&self, words: &[&str]) -> Reply {
        // Each command has a connection of its own, and a database is chosen for one.
        let call = "redis.call('SELECT', ARGV[1]); return redis.call(unpack(ARGV, 2))";
        let mut all = vec!["EVAL", call, "0", &*self.number];
        all.extend(words);
        SERVER.command(&all).expect("it is executed")
    }

    /// A script of an operator's.
    pub(crate) fn eval(&self, script: &str) -> Reply {
        let script = format!("redis.call('SELECT', ARGV[1]) {script}");
        SERVER.command(&["EVAL", &script, "0", &self.number]).expect("it is executed")
    }

    pub(crate) fn open(&self, name: &str) -> RedisStore {
        RedisStore::open(&self.url(), &Options { name: name.to_owned() }).expect("the store opens")
    }

    pub(crate) fn look(&self) -> Look {
        Look::open(&self.url().parse().expect("a URL")).expect("it can be looked at")
    }

    pub(crate) fn number(&self, words: &[&str]) -> i64 {
        match self.run(words) {
            Reply::Number(number) => number,
            Reply::Bytes(bytes) => String::from_utf8_lossy(&bytes).parse().expect("a number"),
            other @ (Reply::Status(_) | Reply::Nil | Reply::List(_)) => unreachable!("{other:?}"),
        }
    }

    /// The connection key of the sensor's queue for the gateway.
    pub(crate) fn key(&self) -> i64 {
        self.number(&["GET", "lnr_connection:sensor::gateway:key"])
    }

    /// A key of that queue.
    pub(crate) fn of(&self, what: &str) -> String {
        format!("lnr_connection:{}:{what}", self.key())
    }

    /// Peer, topic, reason and payload of each dead letter.
    pub(crate) fn letters(&self) -> Vec<(String, String, u8, Vec<u8>)> {
        let letters = self.look().dead_letters(None, 0, 10_000).expect("they are read");
        assert!(letters.is_sorted_by(|one, other| one.id < other.id));
        let seen = letters.into_iter().map(|letter| {
            let reason = letter.reason.map_or(0, |reason| reason as u8);
            (letter.peer, letter.topic, reason, letter.payload.unwrap_or_default())
        });
        seen.collect()
    }
}

pub(crate) fn apply(store: &mut RedisStore, group: &[StoreOp<'_>]) {
    store.apply(group).expect("the group is right");
    store.commit().expect("it is committed");
}

pub(crate) fn append(store: &mut RedisStore, queue: Queue<'_>, first: u64, last: u64) {
    let records = numbered(first, last);
    apply(store, &[StoreOp::Append { queue, first, last, records: &records }]);
}

/// A closed store of the node `sensor` with ten messages on `readings` for the gateway, of which four are acknowledged.
pub(crate) fn with_ten(db: &Db) {
    let mut store = db.open("sensor");
    apply(
        &mut store,
        &[
            StoreOp::Inbox { epoch: Epoch(1) },
            OPEN,
            StoreOp::Topic { queue: NODE, number: 1, text: "readings" },
        ],
    );
    append(&mut store, NODE, 1, 10);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 4 }]);
}

pub(crate) fn message(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 600 + payload.len()];
    let header = Header::new(Mode::One, Topic::Text(topic));
    let len = encode_message(&header, payload, &mut record).expect("there is room");
    record.truncate(len);
    record
}

/// What a queue holds above a number: of each record its number, and its topic and payload, or its gap's reason; and what is damaged.
pub(crate) fn held(store: &mut RedisStore, queue: Queue<'_>, mut after: u64) -> Vec<(u64, String, Vec<u8>)> {
    let mut held = Vec::new();
    let mut into = vec![0; 4 << 20];
    loop {
        match store.load(queue, after, &mut into).expect("it can be read") {
            Loaded::Records { first, last, len } => {
                assert_eq!(first, after + 1, "nothing is left out");
                let run = into.get(..len).expect("so many bytes");
                for step in Walk::new(run, first) {
                    let (what, payload) = match decode(run.get(step.body..step.end).expect("a record")) {
                        Ok(Record::Message { header, payload }) => match header.topic {
                            Topic::Text(text) => (text.to_owned(), payload.to_vec()),
                            Topic::Number(number) => (number.to_string(), payload.to_vec()),
                        },
                        Ok(Record::Gap { reason, count }) => (format!("{reason:?} {count}"), Vec::new()),
                        Err(error) => unreachable!("{error:?}"),
                    };
                    held.push((step.first, what, payload));
                }
                after = last;
            }
            Loaded::Corrupt { first, last } => {
                held.push((first, format!("Damaged {}", last - first + 1), Vec::new()));
                after = last;
            }
            Loaded::Nothing => return held,
            Loaded::TooSmall { needed } => into.resize(needed, 0),
        }
    }
}

/// Only the numbers, and the topics or gaps.
pub(crate) fn outline(store: &mut RedisStore, queue: Queue<'_>, after: u64) -> Vec<String> {
    held(store, queue, after).into_iter().map(|(number, what, _)| format!("{number} {what}")).collect()
}
