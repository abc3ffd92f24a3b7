//! Messages between programs with no broker process.
//!
//! This crate is a front door: it re-exports the parts that a host's program needs, under one name.
//!
//! * [`Node`] and what belongs to it: one participant, driven by the program's own loop;
//! * [`Client`] and [`client`]: the same with threads of its own and calls that wait, for programs that use threads;
//! * [`sqlite`]: the store in an SQLite file, and [`sqlite::Inbox`], from which messages are taken in one's own transaction;
//! * `redis` and `postgres`, with the features of these names: the stores on servers, each with an `Inbox`, too;
//! * [`store`]: any store by its URL, opened for a node or looked at from outside;
//! * [`proto`]: the core, for devices and for whoever writes a shell of their own.
//!
//! What it promises stands in `docs/DELIVERY.md`, how it is built in `docs/ARCHITECTURE.md`.

pub mod client;
pub mod receivers;
mod server_url;
mod servers;
pub mod store;
pub mod store_url;

pub use liner_mio::{
    Address, Backpressure, BlockingSendError, BuildError, Builder, Class, Client, ClientForgetError,
    ClientSendError, ClientStopError, Decision, DriveError, Event, Failures, ForgetError, Framing, Handler,
    HeapStore, InDoubt, KnownAddress, LineEvent, LineState, LineUrl, LineUrlError, Message, Mode,
    NewClientError, Node, NodeConfig, Outcome, Parity, PendingFor, Progress, PutAsideError, QueuePolicy,
    QueueRule, QueuedFor, Quota, Receipt, Reliability, RunError, SendError, SendId, SendMode, SendOptions,
    Sent, SerialError, SerialPort, SerialSettings, Settle, Status, StopError, StoppedOnlyError, Store,
    SubscribeError, Taken,
};
pub use liner_proto::effect::{DeadReason, GapReason, StoreFault};
pub use liner_proto::id::ConnId;
pub use liner_proto::line::LineStats;
pub use liner_proto::wire::control::CloseReason;
pub use liner_proto::wire::handshake::Acks;

/// The core: no I/O, no clock, and without its features neither std nor an allocator.
pub use liner_proto as proto;
/// The store in a PostgreSQL database.
#[cfg(feature = "postgres")]
pub use liner_store_postgres as postgres;
/// The store in a Redis server.
#[cfg(feature = "redis")]
pub use liner_store_redis as redis;
/// The store in an SQLite file.
pub use liner_store_sqlite as sqlite;

/// The README's examples, so that they are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The guide's example, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../docs/exactly-once.md")]
struct ExactlyOnce;

/// The guide to clients, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../docs/clients.md")]
struct Clients;

#[cfg(test)]
mod tests {
    use crate::{
        Acks, Builder, Class, CloseReason, ConnId, DeadReason, Event, GapReason, LineStats, LineUrl, Node,
        QueuePolicy, QueueRule, Quota, StoreFault,
    };

    /// It says all its types by name: those of what a node and a client are told, and of what they tell.
    #[test]
    fn what_a_node_is_told_and_tells_has_its_names_here() {
        let rule = QueueRule { quota: Some(Quota::DEFAULT), policy: Some(QueuePolicy::DropOldest) };
        let builder: Builder = Node::builder("n")
            .queue_quota(Quota::QUEUE)
            .queue_policy(QueuePolicy::Refuse)
            .queue_rule_of("m", rule);
        let node = builder.build().unwrap();
        let (acks, mut lines): (Option<Acks>, Vec<(&LineUrl, LineStats)>) =
            (node.acks_of("m"), node.line_stats().collect());
        assert!(acks.is_none() && lines.pop().is_none());
        let (name, topic): (Box<str>, Box<str>) = ("n".into(), "t".into());
        let reason = CloseReason::Shutdown;
        for event in [
            Event::HandshakeFailed { conn: ConnId(1), name: None, reason, dialed: true },
            Event::StoreFailed(StoreFault::Full),
            Event::Gap { from: name.clone(), count: 1, reason: GapReason::Dropped },
            Event::WeakAcks { name: name.clone(), acks: Acks::Ram, class: Class::Power },
            Event::DeadLetter { name, topic, reason: DeadReason::Failed, count: 1 },
        ] {
            assert_eq!(event.clone(), event);
        }
    }
}
