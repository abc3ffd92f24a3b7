//! What can go wrong, by operation, with what to do about it.

use std::io;
use std::net::SocketAddr;

use liner_proto::effect::StoreFault;
use liner_proto::id::SendId;
use liner_proto::router::SendError;

use crate::link::LineUrlError;

/// Why a node could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The name is empty or too long.
    #[error("a node's name has 1 to 255 bytes, {name:?} has {}: give it another one", name.len())]
    Name {
        /// The name.
        name: String,
    },
    /// A topic to subscribe to is empty or too long.
    #[error("a topic has 1 to 255 bytes, {topic:?} has {}: give another one", topic.len())]
    Topic {
        /// The topic.
        topic: String,
    },
    /// An address other machines can reach was to be listened on, and nobody said that this is wanted.
    #[error(
        "{addr} can be reached from other machines and nothing authenticates them: listen on loopback, or allow it with `insecure`"
    )]
    Insecure {
        /// The address.
        addr: SocketAddr,
    },
    /// An address could not be understood.
    #[error("{addr:?} is no address to listen on, write host:port: {source}")]
    Address {
        /// The address as it was given.
        addr: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Another program listens on the address already.
    #[error("{addr} is in use by another program: stop it, or listen on another address")]
    AddressInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {addr}, choose an address of this machine and a free port: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line's URL is none.
    #[error(transparent)]
    Line(#[from] LineUrlError),
    /// A port or a bridge was named twice.
    #[error("{line} stands there twice: name each port and each bridge once")]
    LineTwice {
        /// The line.
        line: String,
    },
    /// The store could not tell what it remembers.
    #[error("cannot recover from the store, repair or replace it: {fault}{}", detail(said))]
    Store {
        /// Its fault.
        fault: StoreFault,
        /// Its own words.
        said: Option<String>,
    },
    /// An inbox was asked for, and the store keeps none.
    #[error(
        "this store keeps no inbox: give the node an SQLite file as its store, or build it without an inbox"
    )]
    NoInbox,
    /// An inbox was asked for at a node that takes messages over for others.
    #[error(
        "a node that takes custody has no inbox: build another node that subscribes, and give that one the inbox"
    )]
    InboxWithCustody,
    /// A node that takes messages over for others was to settle its own later.
    #[error(
        "a node that takes custody settles no message later: build another node that subscribes, and let that one settle later"
    )]
    SettlesLaterWithCustody,
    /// The operating system has no randomness to give.
    #[error("the operating system's random source does not work, repair that first: {0}")]
    Random(getrandom::Error),
    /// The loop's own descriptors could not be made.
    #[error("cannot set up the event loop, check the limit of open files: {0}")]
    Loop(#[source] io::Error),
    /// The store's worker thread could not be started.
    #[error("cannot start the store's worker thread, check the limit of threads: {0}")]
    Worker(#[source] io::Error),
}

/// Why a node cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// The event loop failed.
    #[error("the event loop failed, build the node anew: {0}")]
    Loop(#[source] io::Error),
    /// The handler could not keep what it was given. Nothing of it was committed or acknowledged.
    #[error("the handler could not keep this turn's messages, they will be handed over again: {0}")]
    Handler(#[source] io::Error),
    /// The store can no longer be worked with: the outcome of a commit is not known, or another instance has taken the
    /// node's name. What it really holds is found out by opening it anew.
    #[error("{fault}: open the store again and build the node anew{}", detail(said))]
    Store {
        /// Its fault.
        fault: StoreFault,
        /// Its own words.
        said: Option<String>,
    },
    /// The store's worker thread ended by itself.
    #[error("the store's worker thread has ended, build the node anew")]
    StoreWorkerGone,
}

/// Why a blocking send did not end with a stored message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingSendError {
    /// The message was not queued: nothing of it will be sent.
    #[error(transparent)]
    NotSent(SendError),
    /// It is queued, and patience ended before the store had committed it. It may still be stored and delivered.
    #[error("it is not known whether message {} is stored: drive the node and look at `stored_through`", .0.0)]
    Unknown(SendId),
    /// The node cannot go on.
    #[error("the message is not known to be stored: {source}")]
    Drive {
        /// The message, if it was queued.
        id: Option<SendId>,
        /// Why.
        source: DriveError,
    },
}

/// Why a stop was not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The node could not go on.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// Patience ended, or the store failed, before everything was committed.
    #[error(
        "the store has not taken everything: what it lacks is lost when the process ends{}",
        detail(said)
    )]
    NotStored {
        /// The store's own words.
        said: Option<String>,
    },
}

fn detail(said: &Option<String>) -> String {
    said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default()
}
