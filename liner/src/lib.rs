//! Messages between programs with no broker process.
//!
//! This crate is a front door: it re-exports the parts that a host's program needs, under one name.
//!
//! * [`Node`] and what belongs to it: one participant, driven by the program's own loop;
//! * [`Client`] and [`client`]: the same with threads of its own and calls that wait, for programs that use threads;
//! * [`sqlite`]: the store in an SQLite file, and [`sqlite::Inbox`], from which messages are taken in one's own transaction;
//! * [`proto`]: the core, for devices and for whoever writes a shell of their own.
//!
//! What it promises stands in `docs/DELIVERY.md`, how it is built in `docs/ARCHITECTURE.md`.

pub mod client;
pub mod receivers;
pub mod store_url;

pub use liner_mio::{
    Address, Backpressure, BlockingSendError, BuildError, Builder, Class, Client, ClientForgetError,
    ClientSendError, ClientStopError, Decision, DriveError, Event, Failures, ForgetError, Framing, Handler,
    HeapStore, InDoubt, KnownAddress, LineEvent, LineState, LineUrl, Message, Mode, NewClientError, Node,
    NodeConfig, Outcome, PendingFor, Progress, PutAsideError, QueuedFor, Quota, Receipt, Reliability,
    RunError, SendError, SendId, SendMode, SendOptions, Sent, Settle, Status, StopError, StoppedOnlyError,
    Store, SubscribeError, Taken,
};
/// The core: no I/O, no clock, and without its features neither std nor an allocator.
pub use liner_proto as proto;
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
