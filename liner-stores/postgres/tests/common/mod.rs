//! What the tests of the store share.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(dead_code, reason = "no test uses all of it")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use liner_proto::effect::{Loaded, Queue, Recovered, RecoveredQueue, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Topic, encode_message};
use liner_store_postgres::{Options, PostgresStore, Url};
use liner_tests::servers::{Postgres, PostgresOptions, Version};

pub(crate) mod broker;

pub(crate) const NODE: Queue<'static> = Queue::Node("gateway");
pub(crate) const EPOCH: Epoch = Epoch(0x8000_0000_0000_0007);
pub(crate) const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };

/// The server of all tests of this process.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = vec!["fsync = off".to_owned()];
        let options = PostgresOptions { settings, ..PostgresOptions::default() };
        Postgres::start(Version::V15, &options).expect("the server starts")
    })
}

/// A database of its own on the server.
#[derive(Clone, Debug)]
pub(crate) struct Database(pub(crate) String);

impl Database {
    pub(crate) fn new() -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        server().query(&format!("CREATE DATABASE {name}")).expect("the database is created");
        Self(name)
    }

    pub(crate) fn url(&self) -> Url {
        self.text().parse().expect("it is a URL")
    }

    pub(crate) fn text(&self) -> String {
        format!("postgres://postgres@{}/{}", server().address(), self.0)
    }

    pub(crate) fn open(&self, name: &str) -> PostgresStore {
        open(&self.url(), name)
    }

    /// Runs statements as an operator does, with a connection that knows nothing of the store's.
    pub(crate) fn run(&self, sql: &str) {
        server().query_in(&self.0, sql).expect("it is executed");
    }

    /// The first value of the first row.
    pub(crate) fn one(&self, sql: &str) -> String {
        let rows = server().query_in(&self.0, sql).expect("it is executed");
        rows.first().and_then(|row| row.first().cloned()).flatten().unwrap_or_default()
    }
}

pub(crate) fn open(url: &Url, name: &str) -> PostgresStore {
    PostgresStore::open(url, &Options { name: name.to_owned() }).expect("the store opens")
}

/// A message's record.
pub(crate) fn message(header: &Header<'_>, payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 600 + payload.len()];
    let len = encode_message(header, payload, &mut record).expect("there is room");
    record.truncate(len);
    record
}

/// The payload of the message with this number.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((0..number * 13 % 40).map(|index| (index * number) as u8));
    payload
}

/// Each record behind its length.
pub(crate) fn run<R: AsRef<[u8]>>(records: impl IntoIterator<Item = R>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let record = record.as_ref();
        let mut len = record.len();
        while len >= 0x80 {
            bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes.extend_from_slice(record);
    }
    bytes
}

/// The messages `first..=last`.
pub(crate) fn numbered(first: u64, last: u64) -> Vec<u8> {
    let header = Header::new(Mode::One, Topic::Number(1));
    run((first..=last).map(|number| message(&header, &payload(number))))
}

pub(crate) fn append(queue: Queue<'_>, first: u64, last: u64, store: &mut PostgresStore) {
    let records = numbered(first, last);
    store.apply(&[StoreOp::Append { queue, first, last, records: &records }]).expect("the append is right");
    store.commit().expect("it is committed");
}

pub(crate) fn apply(store: &mut PostgresStore, group: &[StoreOp<'_>]) {
    store.apply(group).expect("the group is right");
    store.commit().expect("it is committed");
}

/// A closed store of the node `sensor` with ten messages on `readings` for the gateway, four of them acknowledged.
pub(crate) fn with_ten(database: &Database) {
    let mut store = database.open("sensor");
    apply(&mut store, &[OPEN, StoreOp::Topic { queue: NODE, number: 1, text: "readings" }]);
    append(NODE, 1, 10, &mut store);
    apply(&mut store, &[StoreOp::Trim { queue: NODE, through: 4 }]);
}

/// Everything that the queue gives above a number: the run's first and last number with its records.
pub(crate) fn load(store: &mut PostgresStore, queue: Queue<'_>, after: u64) -> (u64, u64, Vec<u8>) {
    let mut into = vec![0; 4 << 20];
    match store.load(queue, after, &mut into) {
        Ok(Loaded::Records { first, last, len }) => {
            into.truncate(len);
            (first, last, into)
        }
        other => panic!("{other:?}"),
    }
}

/// What a store tells of the node and its queues.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) node: Option<(Epoch, bool)>,
    pub(crate) queues: Vec<(String, RecoveredQueueOf)>,
    pub(crate) cursors: Vec<(String, Epoch, u64)>,
    pub(crate) rows: Vec<(String, String, String)>,
}

/// The numbers of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredQueueOf {
    pub(crate) trimmed: u64,
    pub(crate) last: u64,
    pub(crate) messages: u64,
}

impl From<RecoveredQueue<'_>> for RecoveredQueueOf {
    fn from(queue: RecoveredQueue<'_>) -> Self {
        Self { trimmed: queue.trimmed, last: queue.last, messages: queue.messages }
    }
}

pub(crate) fn told(store: &mut PostgresStore) -> Told {
    let mut told = Told::default();
    let outcome = store.recover(&mut |recovered| match recovered {
        Recovered::Node { inbox, regressed, .. } => told.node = Some((inbox, regressed)),
        Recovered::Queue(queue) => told.queues.push((queue.queue.name().to_owned(), queue.into())),
        Recovered::Cursor { peer, epoch, through } => told.cursors.push((peer.to_owned(), epoch, through)),
        Recovered::Subscription { topic, address, name } => {
            told.rows.push((topic.to_owned(), address.to_owned(), name.to_owned()));
        }
        Recovered::Topic { .. } => {}
        other => panic!("{other:?} is not known"),
    });
    outcome.expect("it is told");
    told.queues.sort_by(|one, other| one.0.cmp(&other.0));
    told.rows.sort();
    told
}
