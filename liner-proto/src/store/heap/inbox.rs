//! The inbox of a store in memory. What is taken from it and what the application does with it are two things, so that it is of
//! use to simulations and tests, which kill nobody between the two.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::{HeapStore, Used};
use crate::effect::{Delivery, InboxHeld};
use crate::id::Epoch;
use crate::wire::record::Mode;

/// A message that is in the inbox. Its fields are those of a [`Delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of a delivery")]
pub struct Delivered {
    pub from: Box<str>,
    pub epoch: Epoch,
    pub number: u64,
    pub topic: Box<str>,
    pub mode: Mode,
    pub maybe_redelivered: bool,
    pub payload: Arc<[u8]>,
}

impl Delivered {
    fn lend(&self) -> Delivery<'_> {
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
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inbox {
    messages: VecDeque<Delivered>,
    bytes: u64,
}

impl Inbox {
    pub(super) fn put(&mut self, delivery: &Delivery<'_>) {
        self.bytes += delivery.bytes();
        self.messages.push_back(Delivered {
            from: delivery.from.into(),
            epoch: delivery.epoch,
            number: delivery.number,
            topic: delivery.topic.into(),
            mode: delivery.mode,
            maybe_redelivered: delivery.maybe_redelivered,
            payload: delivery.payload.into(),
        });
    }

    pub(super) fn held(&self) -> InboxHeld {
        InboxHeld { messages: self.messages.len() as u64, bytes: self.bytes }
    }
}

impl HeapStore {
    /// The same, with an inbox, from which [`take_delivered`](Self::take_delivered) takes. Without this it keeps none: whoever has
    /// given the store to a node could not take anything.
    #[must_use]
    pub fn with_inbox(mut self) -> Self {
        Arc::make_mut(&mut self.state).deliveries = Some(Arc::default());
        self
    }

    /// Takes the oldest message out of the inbox.
    pub fn take_delivered(&mut self) -> Option<Delivered> {
        let state = Arc::make_mut(&mut self.state);
        let inbox = Arc::make_mut(state.deliveries.as_mut()?);
        let taken = inbox.messages.pop_front()?;
        let bytes = taken.lend().bytes();
        inbox.bytes -= bytes;
        state.used.sub(Used { bytes, messages: 1 });
        Some(taken)
    }
}
