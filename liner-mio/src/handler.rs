//! What takes the messages.

use std::io;

use liner_proto::router::{Application, Message, Settle};

/// Takes messages as they arrive.
///
/// A message counts as processed when [`message`](Self::message) has returned and the [`turn_end`](Self::turn_end)
/// after it returned `Ok`: it is acknowledged after the commit that follows. A closure over [`Message`] is a handler. Who has to
/// settle messages later, because another thread processes them for instance, implements [`take`](Self::take).
pub trait Handler {
    /// Takes a message.
    fn message(&mut self, message: &Message<'_>);

    /// Takes a message, and says when it counts as processed: now, or when its [`receipt`](Message::receipt) is given to
    /// [`Node::settle`](crate::Node::settle) or [`Node::put_failed_aside`](crate::Node::put_failed_aside), which takes a node that
    /// was built with [`Builder::settles_later`](crate::Builder::settles_later). Until then it counts against its sender's window,
    /// and nothing behind it in its stream is acknowledged.
    fn take(&mut self, message: &Message<'_>) -> Settle {
        self.message(message);
        Settle::Now
    }

    /// Everything that was handled in this turn is about to be committed and acknowledged: flush here.
    ///
    /// # Errors
    /// Ends [`drive`](crate::Node::drive) before the commit. The next `drive` calls this again before it commits anything;
    /// if there is none, what was handled is handed over again after the node was built anew.
    fn turn_end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Message<'_>)> Handler for F {
    fn message(&mut self, message: &Message<'_>) {
        self(message);
    }
}

/// What was handed to a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) messages: u64,
    /// Of their payloads.
    pub(crate) bytes: u64,
}

impl Handed {
    pub(crate) const NOTHING: Self = Self { messages: 0, bytes: 0 };

    pub(crate) const fn plus(self, more: Self) -> Self {
        Self { messages: self.messages + more.messages, bytes: self.bytes + more.bytes }
    }

    /// What came since `earlier`, which was a part of it.
    pub(crate) const fn minus(self, earlier: Self) -> Self {
        Self { messages: self.messages - earlier.messages, bytes: self.bytes - earlier.bytes }
    }

    /// What is left of it as a bound behind `used`, if there is some of both.
    pub(crate) const fn less(self, used: Self) -> Option<Self> {
        let left = used.messages < self.messages && used.bytes < self.bytes;
        if left { Some(self.minus(used)) } else { None }
    }
}

/// Hands the router's messages to a handler and counts them.
pub(crate) struct Counted<'h> {
    handler: &'h mut dyn Handler,
    pub(crate) handed: Handed,
    /// Messages that are settled later.
    pub(crate) deferred: u64,
    most: Handed,
}

impl<'h> Counted<'h> {
    /// Full after `most`.
    pub(crate) fn new(handler: &'h mut dyn Handler, most: Handed) -> Self {
        Self { handler, handed: Handed::NOTHING, deferred: 0, most }
    }
}

impl Application for Counted<'_> {
    #[inline]
    fn message(&mut self, message: &Message<'_>) {
        self.take(message);
    }

    #[inline]
    fn take(&mut self, message: &Message<'_>) -> Settle {
        let settle = self.handler.take(message);
        match settle {
            Settle::Now => {
                self.handed = self.handed.plus(Handed { messages: 1, bytes: message.payload.len() as u64 });
            }
            Settle::Later => self.deferred += 1,
        }
        settle
    }

    fn is_full(&self) -> bool {
        self.most.less(self.handed).is_none()
    }
}
