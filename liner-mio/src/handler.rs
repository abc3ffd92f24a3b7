//! What takes the messages.

use std::io;

use liner_proto::router::{Application, Message};

/// Takes messages as they arrive.
///
/// A message counts as processed when [`message`](Self::message) has returned and the [`turn_end`](Self::turn_end)
/// after it returned `Ok`: it is acknowledged after the commit that follows. A closure over [`Message`] is a handler.
pub trait Handler {
    /// Takes a message.
    fn message(&mut self, message: &Message<'_>);

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

/// Hands the router's messages to a handler and counts them.
pub(crate) struct Counted<'h> {
    handler: &'h mut dyn Handler,
    pub(crate) messages: u64,
    most: u64,
}

impl<'h> Counted<'h> {
    /// Full after `most` messages.
    pub(crate) fn new(handler: &'h mut dyn Handler, most: u64) -> Self {
        Self { handler, messages: 0, most }
    }
}

impl Application for Counted<'_> {
    #[inline]
    fn message(&mut self, message: &Message<'_>) {
        self.messages += 1;
        self.handler.message(message);
    }

    fn is_full(&self) -> bool {
        self.messages >= self.most
    }
}
