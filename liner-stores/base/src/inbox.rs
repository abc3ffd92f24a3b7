//! The application's side of the inbox, as far as it is the same in every store.

use liner_proto::effect::Delivery;
use liner_proto::id::Epoch;
use liner_proto::wire::record::{Header, Mode, Origin, Topic, encode_message, message_len};

use crate::look::Delivered;

/// How often the processing of a message may fail before it becomes a dead letter, unless somebody says otherwise.
pub const FAILURES_MAX: u32 = 20;

/// Dead letters of a node to which none are added: a message that fails stays in the inbox then.
pub const DEAD_LETTERS_MAX: u64 = 10_000;

/// A message in the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboxMessage {
    /// The node that first sent it.
    pub from: String,
    /// The epoch of the stream of its first hop. With `from` and `number` it names the message.
    pub epoch: Epoch,
    /// Its number in that stream.
    pub number: u64,
    /// The topic it was sent to.
    pub topic: String,
    /// Whether it was sent to one node or to all.
    pub mode: Mode,
    /// Whether it may have been in the inbox before: the sender or this node has lost its memory. Nothing else repeats a message.
    pub maybe_redelivered: bool,
    /// How often its processing has failed.
    pub failures: u32,
    /// What was sent.
    pub payload: Vec<u8>,
}

impl InboxMessage {
    /// A message whose processing has failed so often.
    pub fn new(delivered: Delivered, failures: u32) -> Self {
        let Delivered { from, epoch, number, topic, mode, maybe_redelivered, payload } = delivered;
        Self { from, epoch, number, topic, mode, maybe_redelivered, failures, payload }
    }

    /// The same for a store.
    pub fn lend(&self) -> Delivery<'_> {
        Delivery {
            from: &self.from,
            epoch: self.epoch,
            number: self.number,
            topic: &self.topic,
            mode: self.mode,
            maybe_redelivered: self.maybe_redelivered,
            payload: &self.payload,
        }
    }

    /// The record of the dead letter that it becomes when it has failed too often: it says where the message came from.
    pub fn record(&self) -> Vec<u8> {
        let origin = Origin { name: &self.from, epoch: self.epoch, number: self.number };
        let header = Header {
            repeat: self.maybe_redelivered,
            origin: Some(origin),
            ..Header::new(self.mode, Topic::Text(&self.topic))
        };
        let mut record = vec![0; message_len(&header, self.payload.len())];
        encode_message(&header, &self.payload, &mut record);
        record
    }
}

impl From<InboxMessage> for Delivered {
    fn from(message: InboxMessage) -> Self {
        let InboxMessage { from, epoch, number, topic, mode, maybe_redelivered, failures: _, payload } =
            message;
        Self { from, epoch, number, topic, mode, maybe_redelivered, payload }
    }
}

/// A message whose processing has failed. What it had written is taken back.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failed<E> {
    /// What the closure has said.
    pub error: E,
    /// The message. `failures` has this failure in it.
    pub message: InboxMessage,
    /// Whether it has failed too often, and is among the dead letters now. Otherwise it is given again.
    pub put_aside: bool,
}

impl<E> Failed<E> {
    /// A message that has failed with this error.
    pub const fn new(error: E, message: InboxMessage, put_aside: bool) -> Self {
        Self { error, message, put_aside }
    }
}
