//! The host's shell of liner: one mio loop drives sockets, serial ports, timers and stores.
//!
//! A [`Node`] is single-threaded: [`Node::drive`] does a bounded amount of work and returns. It is one pollable
//! descriptor ([`AsFd`](std::os::fd::AsFd), [`mio::event::Source`]) plus [`Node::next_deadline`], so that it fits any
//! event loop. It starts no thread, unless [`Builder::store_on_worker`] asked for one, or [`Builder::peer`] or
//! [`Builder::line`] names a host instead of a number.
//!
//! ```
//! use liner_mio::{Framing, Message, Mode, Node};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut listener = Node::builder("listener").listen("127.0.0.1:0", Framing::Length).subscribe("greetings").build()?;
//! let address = listener.listen_addrs()[0].to_string();
//! let mut talker = Node::builder("talker").peer(&address).build()?;
//!
//! talker.send("greetings", b"hello", Mode::One)?;
//! let mut heard = Vec::new();
//! while heard.is_empty() || !talker.is_idle() {
//!     talker.drive(Some(Duration::from_millis(5)), &mut |_: &Message<'_>| {})?;
//!     listener.drive(Some(Duration::from_millis(5)), &mut |message: &Message<'_>| heard.push(message.payload.to_vec()))?;
//! }
//! assert_eq!(heard, [b"hello"]);
//! # Ok(())
//! # }
//! ```

mod builder;
mod client;
mod clock;
mod error;
mod handler;
mod link;
mod node;
mod resolver;
mod storage;

pub use builder::Builder;
pub use client::{
    Backpressure, Client, ClientForgetError, ClientSendError, ClientStopError, Failures, KnownAddress,
    NewClientError, Outcome, PendingFor, Reliability, RunError, Sent, Status, StoppedOnlyError,
    SubscribeError, Taken,
};
pub use error::{BlockingSendError, BuildError, DriveError, StopError};
pub use handler::Handler;
pub use liner_proto::delivery::SendMode;
pub use liner_proto::id::{Class, SendId};
pub use liner_proto::router::{
    Address, Decision, Event, ForgetError, Framing, InDoubt, Message, NodeConfig, PutAsideError, QueuePolicy,
    QueueRule, QueuedFor, Quota, Receipt, SendError, SendOptions, Settle,
};
pub use liner_proto::store::{HeapStore, Store};
pub use liner_proto::wire::record::Mode;
pub use link::{
    LineEvent, LineState, LineUrl, LineUrlError, Parity, SerialError, SerialPort, SerialSettings,
};
pub use node::{Node, Progress};
