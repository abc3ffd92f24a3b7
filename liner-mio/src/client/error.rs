//! What can go wrong with a client, by operation.

use std::io;

use liner_proto::id::SendId;
use liner_proto::router::{ForgetError, SendError};

use crate::error::{BuildError, DriveError, StopError};

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewClientError {
    /// The name is empty or too long.
    #[error("a node's name has 1 to 255 bytes, {name:?} has {}: give it another one", name.len())]
    Name {
        /// The name.
        name: String,
    },
    /// The topic is empty or too long.
    #[error("a topic has 1 to 255 bytes, {topic:?} has {}: give another one", topic.len())]
    Topic {
        /// The topic.
        topic: String,
    },
    /// The address to listen on is empty.
    #[error("an address to listen on is needed: write host:port, port 0 takes a free one")]
    Listen,
    /// The store cannot be opened.
    #[error("{said}")]
    Store {
        /// Its own words.
        said: String,
    },
}

/// Why a client does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The store cannot be opened.
    #[error("{said}")]
    Store {
        /// Its own words.
        said: String,
    },
    /// The node could not be built: an address is in use, for instance.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The node cannot go on.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The callback that runs the client is one of a run that was told to stop.
    #[error("the run before this one ends when this callback has returned: run the client after that")]
    Ending,
    /// A thread could not be started.
    #[error("cannot start a thread, check the limit of threads: {0}")]
    Thread(#[source] io::Error),
    /// The loop's thread has panicked.
    #[error("the loop's thread has panicked: run the client anew, and report this")]
    Panicked,
}

/// Why a client did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientStopError {
    /// The store has not taken everything.
    #[error(transparent)]
    NotStored(StopError),
    /// Something that was [posted](super::Client::post) was not sent, and no [`flush`](super::Client::flush) has told so: the first
    /// error of it.
    #[error("a message that was posted was not sent: {0}")]
    Posted(#[source] ClientSendError),
    /// The node could not go on, some time ago.
    #[error(transparent)]
    Failed(DriveError),
    /// The callback has not returned. The client is stopped; the thread ends when it does.
    #[error("the callback has not returned: the client is stopped, its thread ends when it does")]
    CallbackBusy,
    /// The loop's thread has panicked.
    #[error("the loop's thread has panicked: run the client anew, and report this")]
    Panicked,
}

/// Why a message was not sent, or is not known to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientSendError {
    /// The client does not run.
    #[error("the client does not run: call `run` first")]
    NotRunning,
    /// The payload is empty, or there is none.
    #[error("a payload has at least one byte, and one message at least is sent")]
    Empty,
    /// As much is queued as may be. Nothing of the message is queued.
    #[error("as much is queued as may be: try again when some of it is taken")]
    Busy {
        /// How many of the messages before it were sent.
        sent: usize,
    },
    /// The store is away: it cannot be reached, or does not answer. Nothing of the message is queued.
    #[error("the store is unavailable: try again when it is back")]
    Unavailable {
        /// How many of the messages before it were sent.
        sent: usize,
    },
    /// The store has no room. Nothing of the message is queued.
    #[error("the store is full: make room for it, or wait until some of its messages are acknowledged")]
    Full {
        /// How many of the messages before it were sent.
        sent: usize,
    },
    /// The message was refused, for good. Nothing of it is queued.
    #[error("{why}")]
    Refused {
        /// How many of the messages before it were sent.
        sent: usize,
        /// Why.
        why: SendError,
    },
    /// It is not known whether what is queued is stored: the store did not answer in time, or failed. The run goes on trying, if it
    /// goes on: do not send the first `sent` messages of the call again. Those behind them were not sent.
    #[error("it is not known whether message {} is stored", .id.0)]
    Unknown {
        /// The last one that is queued.
        id: SendId,
        /// How many of the messages of the call are queued.
        sent: usize,
    },
}

impl ClientSendError {
    /// What a node's refusal means for a client.
    pub(super) fn refused(why: SendError, sent: usize) -> Self {
        if why == SendError::Busy {
            return Self::Busy { sent };
        }
        if why == SendError::Unavailable {
            return Self::Unavailable { sent };
        }
        if why == SendError::StoreFull { Self::Full { sent } } else { Self::Refused { sent, why } }
    }

    /// How many of several messages were sent before this error: whoever goes on with those behind them sends none twice.
    pub const fn sent(&self) -> usize {
        match self {
            Self::Busy { sent } | Self::Unavailable { sent } | Self::Full { sent } => *sent,
            Self::Refused { sent, .. } | Self::Unknown { sent, .. } => *sent,
            Self::NotRunning | Self::Empty => 0,
        }
    }
}

/// Why a topic was not subscribed to, or given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// It is the client's own topic, which it takes for as long as it runs.
    #[error("{topic:?} is the client's own topic: it takes that anyway")]
    OwnTopic {
        /// The topic.
        topic: String,
    },
    /// It is empty or too long.
    #[error("a topic has 1 to 255 bytes, {topic:?} has {}: give another one", topic.len())]
    BadTopic {
        /// The topic.
        topic: String,
    },
}

/// Why a node was not forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientForgetError {
    /// The client does not run.
    #[error("the client does not run: call `run` first")]
    NotRunning,
    /// Its node has refused.
    #[error(transparent)]
    Refused(ForgetError),
}

/// Why something was not done that is done to a client that does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoppedOnlyError {
    /// It runs.
    #[error("the client runs: stop it first")]
    Running,
    /// The store cannot be opened, or has refused.
    #[error("{said}")]
    Store {
        /// Its own words.
        said: String,
    },
    /// The address is none.
    #[error("{addr:?} is no address: write host:port")]
    Address {
        /// The address.
        addr: String,
    },
}
