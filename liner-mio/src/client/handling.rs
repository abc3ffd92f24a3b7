//! Messages as a client's callback is given them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use liner_proto::router::{Message, Receipt};
use liner_proto::wire::record::Mode;

use super::dispatch::Dispatch;

/// What a callback's return says: nothing or `Ok` is success.
pub trait Outcome {
    /// Why the message was not processed, if it was not.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// What becomes of a message whose callback fails, or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failures {
    /// So often it is tried; 20 by default, and at least once.
    pub tries: u32,
    /// The pause after the first failure; each one is twice as long as the one before it.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Whether its sender's messages wait behind it for ever then. Otherwise it becomes a dead letter, and they go on.
    pub halts: bool,
}

impl Default for Failures {
    fn default() -> Self {
        Self { tries: 20, pause: Duration::from_millis(50), pause_max: Duration::from_secs(5), halts: false }
    }
}

impl Failures {
    /// The pause after so many failures.
    pub(super) fn pause_after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.pause.saturating_mul(1 << doublings).min(self.pause_max)
    }
}

/// A message that was kept for the dispatcher.
#[derive(Debug)]
pub(super) struct Kept {
    /// The topic, and then the sender.
    text: Box<str>,
    topic_len: usize,
    seq: u64,
    mode: Mode,
    payload: Box<[u8]>,
    maybe_redelivered: bool,
    pub(super) receipt: Receipt,
    pub(super) failures: u32,
}

impl Kept {
    pub(super) fn of(message: &Message<'_>) -> Box<Self> {
        let mut text = String::with_capacity(message.topic.len() + message.from.len());
        text.push_str(message.topic);
        text.push_str(message.from);
        Box::new(Self {
            text: text.into(),
            topic_len: message.topic.len(),
            seq: message.seq,
            mode: message.mode,
            payload: message.payload.into(),
            maybe_redelivered: message.maybe_redelivered,
            receipt: message.receipt,
            failures: 0,
        })
    }

    pub(super) fn message(&self) -> Message<'_> {
        let (topic, from) = self.text.split_at(self.topic_len);
        Message {
            topic,
            from,
            seq: self.seq,
            mode: self.mode,
            payload: &self.payload,
            maybe_redelivered: self.maybe_redelivered || self.failures > 0,
            receipt: self.receipt,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.text.len() + size_of::<Self>()
    }

    /// Whether somebody waits for it to be settled.
    pub(super) fn is_numbered(&self) -> bool {
        self.mode != Mode::BestEffort
    }
}

/// Why a message failed whose callback gave no reason.
pub(super) const PANICKED: &str = "it has panicked";

/// A message that has failed too often.
#[derive(Debug)]
pub(super) struct Letter(pub(super) Box<Kept>);

/// A message that was taken and is not settled yet.
///
/// Dropped without a word it counts as [failed](Self::fail).
pub struct Taken {
    kept: Option<Box<Kept>>,
    dispatch: Arc<Dispatch>,
}

impl Taken {
    pub(super) const fn new(kept: Box<Kept>, dispatch: Arc<Dispatch>) -> Self {
        Self { kept: Some(kept), dispatch }
    }

    /// The message.
    pub fn message(&self) -> Message<'_> {
        const GONE: Message<'static> = Message {
            topic: "",
            from: "",
            seq: 0,
            mode: Mode::BestEffort,
            payload: &[],
            maybe_redelivered: false,
            receipt: Receipt::NONE,
        };
        // It is there until one of the methods that end it.
        self.kept.as_ref().map_or(GONE, |kept| kept.message())
    }

    /// The topic it was sent to.
    pub fn topic(&self) -> &str {
        self.message().topic
    }

    /// The node that first sent it.
    pub fn from(&self) -> &str {
        self.message().from
    }

    /// What was sent.
    pub fn payload(&self) -> &[u8] {
        self.message().payload
    }

    /// How often it has failed in this run.
    pub fn failures(&self) -> u32 {
        self.kept.as_ref().map_or(0, |kept| kept.failures)
    }

    /// It is processed: it is acknowledged when those before it are.
    pub fn settle(mut self) {
        if let Some(kept) = self.kept.take() {
            self.dispatch.settle(&kept);
        }
    }

    /// It could not be processed: it is handed over again, after a pause, as [`Failures`] says.
    pub fn fail(mut self) {
        self.end_in_failure();
    }

    /// It can never be processed: it becomes a dead letter now.
    pub fn put_aside(mut self) {
        if let Some(kept) = self.kept.take() {
            self.dispatch.put_aside(kept);
        }
    }

    fn end_in_failure(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.dispatch.fail(kept);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(kept) = &self.kept
        {
            self.dispatch.tell_failed(&kept.message(), PANICKED);
        }
        self.end_in_failure();
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

/// Processes a message, or says why it did not.
pub(super) type Processing = Box<dyn FnMut(&Taken) -> Option<String> + Send>;

/// What is called for each message.
pub(super) enum Callback {
    /// Its return settles the message.
    ByReturn(Processing),
    /// It settles messages by itself.
    ByHand(Box<dyn FnMut(Taken) + Send>),
}
