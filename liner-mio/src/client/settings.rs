//! What a client is told before it runs.

use std::sync::Arc;
use std::time::Duration;

use liner_proto::router::{Event, Framing, QueuePolicy, Quota, SendOptions};
use liner_proto::store::Store;
use liner_proto::wire::record::Mode;

use super::error::RunError;
use super::handling::Failures;
use super::status::StatusPlace;
use crate::builder::Builder;
use crate::node::Node;

/// How long a call waits for the store before it says that it does not know.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much a message is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    /// It is stored, and kept until whoever it is for has processed it.
    AtLeastOnce,
    /// It goes to whoever is connected now, and is never stored.
    BestEffort,
}

impl Reliability {
    /// For one receiver, or for all.
    pub(super) const fn options(self, all: bool) -> SendOptions {
        match self {
            Self::BestEffort if all => SendOptions::new(Mode::BestEffort),
            Self::BestEffort => SendOptions::new(Mode::BestEffort).to_one(),
            Self::AtLeastOnce if all => SendOptions::new(Mode::All),
            Self::AtLeastOnce => SendOptions::new(Mode::One),
        }
    }
}

/// What a send does if as much is queued as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backpressure {
    /// It fails with `Busy`.
    Refuse,
    /// It waits for room, for so long at most, and fails then.
    Block(Duration),
    /// The oldest that is queued for its receiver makes way: whoever it was for is told of a gap, and it is counted here.
    DropOldest,
}

/// What a client tells besides messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Something that its node tells.
    Event(Event),
    /// A send was refused, as too much is queued.
    Busy {
        /// Its topic.
        topic: Box<str>,
    },
    /// The callback has failed; it is called again, or has been called often enough.
    CallbackFailed {
        /// The sender of the message.
        from: Box<str>,
        /// Its topic.
        topic: Box<str>,
        /// What the callback said.
        why: Box<str>,
    },
    /// A sender's messages wait behind one that has failed too often, until the client is run anew.
    Halted {
        /// The sender.
        from: Box<str>,
        /// The topic of the message.
        topic: Box<str>,
    },
    /// The run cannot go on: the client stops by itself.
    Failed {
        /// Why.
        why: Box<str>,
    },
    /// Statuses before this one were dropped, as the callback was too slow.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Opens the client's store, or says why not.
pub(super) type Open = Box<dyn Fn() -> Result<Box<dyn Store + Send>, String> + Send>;

/// What is changed of the node.
type Configure = Box<dyn Fn(Builder) -> Builder + Send>;

pub(super) struct Settings {
    pub(super) name: String,
    pub(super) topic: String,
    pub(super) listen: String,
    pub(super) advertise: Option<String>,
    /// Topics that it takes besides its own.
    pub(super) topics: Vec<String>,
    /// Others that are known from the start: topic, address, name.
    pub(super) receivers: Vec<[String; 3]>,
    pub(super) failures: Failures,
    pub(super) backpressure: Backpressure,
    pub(super) queue_quota: Option<Quota>,
    pub(super) patience: Duration,
    pub(super) status: Arc<StatusPlace>,
    pub(super) configure: Vec<Configure>,
    pub(super) open: Open,
    /// Where its last run has listened.
    pub(super) bound: Option<String>,
}

impl Settings {
    pub(super) fn new(name: &str, topic: &str, listen: &str, open: Open) -> Self {
        Self {
            name: name.to_owned(),
            topic: topic.to_owned(),
            listen: listen.to_owned(),
            advertise: None,
            topics: Vec::new(),
            receivers: Vec::new(),
            failures: Failures::default(),
            backpressure: Backpressure::Refuse,
            queue_quota: None,
            patience: PATIENCE,
            status: Arc::default(),
            configure: Vec::new(),
            open,
            bound: None,
        }
    }

    pub(super) fn build(&self) -> Result<Node, RunError> {
        let store = (self.open)().map_err(|said| RunError::Store { said })?;
        let mut builder = Node::builder(&self.name)
            .store(store)
            .listen(&self.listen, Framing::Length)
            .durable(true)
            .settles_later(true)
            .subscribe(&self.topic);
        if let Some(quota) = self.queue_quota {
            builder = builder.queue_quota(quota);
        }
        if self.backpressure == Backpressure::DropOldest {
            builder = builder.queue_policy(QueuePolicy::DropOldest);
        }
        if let Some(advertise) = &self.advertise {
            builder = builder.advertise(advertise);
        }
        for topic in &self.topics {
            builder = builder.subscribe(topic);
        }
        for [topic, addr, name] in &self.receivers {
            builder = builder.receiver(topic, addr, name);
        }
        for configure in &self.configure {
            builder = configure(builder);
        }
        Ok(builder.build()?)
    }
}
