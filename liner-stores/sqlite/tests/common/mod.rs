//! What the tests of the store share.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::Path;

use liner_proto::effect::{Loaded, Queue, Recovered, RecoveredQueue, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Topic, encode_message};
use liner_store_sqlite::{OpenError, Options, SqliteStore};

pub(crate) mod broker;

pub(crate) const NODE: Queue<'static> = Queue::Node("gateway");
pub(crate) const EPOCH: Epoch = Epoch(0x8000_0000_0000_0007);
pub(crate) const OPEN: StoreOp<'static> = StoreOp::Open { queue: NODE, epoch: EPOCH };

pub(crate) fn options(name: &str) -> Options {
    Options {
        name: name.to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: "boot 1".to_owned(),
    }
}

pub(crate) fn try_open(folder: &Path, options: &Options) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(folder.join("liner.db"), options)
}

pub(crate) fn open(folder: &Path, name: &str) -> SqliteStore {
    try_open(folder, &options(name)).expect("the store opens")
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

pub(crate) fn append(queue: Queue<'_>, first: u64, last: u64, store: &mut SqliteStore) {
    let records = numbered(first, last);
    store.apply(&[StoreOp::Append { queue, first, last, records: &records }]).expect("the append is right");
    store.commit().expect("it is committed");
}

pub(crate) fn apply(store: &mut SqliteStore, group: &[StoreOp<'_>]) {
    store.apply(group).expect("the group is right");
    store.commit().expect("it is committed");
}

/// The node's row and the numbers of its queues.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) node: Option<(Epoch, bool)>,
    pub(crate) queues: Vec<(String, RecoveredQueue<'static>)>,
    pub(crate) cursors: Vec<(String, Epoch, u64)>,
}

pub(crate) fn told(store: &mut SqliteStore) -> Told {
    let mut told = Told::default();
    store
        .recover(&mut |fact| match fact {
            Recovered::Node { inbox, regressed, .. } => told.node = Some((inbox, regressed)),
            Recovered::Queue(queue) => {
                let name = queue.queue.name().to_owned();
                told.queues.push((name, RecoveredQueue { queue: NODE, ..queue }));
            }
            Recovered::Cursor { peer, epoch, through } => {
                told.cursors.push((peer.to_owned(), epoch, through));
            }
            Recovered::Topic { .. } | Recovered::Subscription { .. } => {}
            other => panic!("{other:?} is not known"),
        })
        .expect("it can be read");
    told
}

/// Loads everything above `after`, and holds it against what [`numbered`] makes of its numbers. Gives what was damaged.
pub(crate) fn drain(store: &mut SqliteStore, queue: Queue<'_>, mut after: u64, last: u64) -> Vec<(u64, u64)> {
    let mut damaged = Vec::new();
    let mut into = vec![0; 1 << 16];
    while after < last {
        match store.load(queue, after, &mut into).expect("it can be read") {
            Loaded::Records { first, last, len } => {
                assert_eq!(first, after + 1, "nothing is left out");
                assert_eq!(into.get(..len), Some(&*numbered(first, last)), "{first}..={last}");
                after = last;
            }
            Loaded::Corrupt { first, last } => {
                assert_eq!(first, after + 1);
                assert!(last >= first);
                damaged.push((first, last));
                after = last;
            }
            other @ (Loaded::Nothing | Loaded::TooSmall { .. }) => panic!("after {after}: {other:?}"),
        }
    }
    damaged
}
