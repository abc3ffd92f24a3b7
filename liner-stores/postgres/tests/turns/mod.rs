//! What tests of this store have in common.
#![allow(dead_code, clippy::expect_used, clippy::panic, reason = "each test uses a part of it, and may fail")]

use liner_proto::effect::{Delivery, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store;
use liner_proto::wire::record::Mode;
use liner_store_postgres::{OpenError, Options, PostgresStore};
use liner_tests::conformance::View;
use liner_tests::conformance::records::numbered;
use liner_tests::servers::Postgres;

pub(crate) const QUEUE: Queue<'_> = Queue::Node("peer");

/// So many messages stay queued.
const KEPT: u64 = 3;

pub(crate) fn open(url: &str, name: &str) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(&url.parse()?, &Options { name: name.to_owned() })
}

pub(crate) fn begin(store: &mut dyn Store) {
    let opening = StoreOp::Open { queue: QUEUE, epoch: Epoch(7) };
    let inbox = StoreOp::Inbox { epoch: Epoch(9) };
    store.apply(&[opening, inbox]).and_then(|()| store.commit()).expect("the queue is made");
}

/// A turn with a bit of all: a message more, one less, a cursor, a delivery.
pub(crate) fn turn(store: &mut dyn Store, number: u64) -> Result<(), StoreFault> {
    let records = numbered(number, number);
    let delivery = Delivery {
        from: "peer",
        epoch: Epoch(3),
        number,
        topic: "topic",
        mode: Mode::One,
        maybe_redelivered: false,
        payload: b"delivered",
    };
    let append = StoreOp::Append { queue: QUEUE, first: number, last: number, records: &records };
    store.apply(&[append])?;
    if number > KEPT {
        store.apply(&[StoreOp::Trim { queue: QUEUE, through: number - KEPT }])?;
    }
    let cursor = StoreOp::Cursor { peer: "peer", epoch: Epoch(3), through: number };
    store.apply(&[cursor, StoreOp::Deliver(delivery)])?;
    store.commit()
}

/// Carries a turn out however often its connection breaks. Says how it was known to be done.
pub(crate) fn persist(store: &mut dyn Store, number: u64) {
    for _ in 0..1000 {
        match turn(store, number) {
            Ok(()) => return,
            Err(StoreFault::Unavailable) => {}
            Err(StoreFault::Unknown) => match resolve(store) {
                Ok(()) => return,
                Err(StoreFault::Unavailable) => {}
                Err(fault) => panic!("turn {number}: {fault} ({:?})", store.last_error()),
            },
            Err(fault) => panic!("turn {number}: {fault} ({:?})", store.last_error()),
        }
    }
    panic!("turn {number} is never carried out: {:?}", store.last_error());
}

/// Asks until it is known.
pub(crate) fn resolve(store: &mut dyn Store) -> Result<(), StoreFault> {
    for _ in 0..1000 {
        match store.resolve() {
            Err(StoreFault::Unavailable) => {}
            known => return known,
        }
    }
    panic!("it is never known: {:?}", store.last_error());
}

/// All that so many turns leave, each of them once.
pub(crate) fn check(server: &Postgres, store: &mut dyn Store, turns: u64) {
    let view = View::of(store);
    let queue = view.queue(QUEUE);
    assert_eq!((queue.last, queue.trimmed), (turns, turns.saturating_sub(KEPT)));
    assert_eq!(queue.messages, turns.min(KEPT));
    assert_eq!(view.cursors.get("peer"), Some(&(Epoch(3), turns)));
    let count = |sql: &str| server.query(sql).expect("the server answers")[0][0].clone().expect("a number");
    assert_eq!(count("SELECT count(*) FROM conn_messages"), turns.min(KEPT).to_string());
    assert_eq!(count("SELECT count(*) FROM inbox"), turns.to_string());
    assert_eq!(count("SELECT count(DISTINCT number) FROM inbox"), turns.to_string());
}
