//! How a message is sent.

use crate::time::Duration;
use crate::wire::record::Mode;

/// What a sender wants besides topic and payload, for [`Router::send_with`](super::Router::send_with).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOptions {
    /// To whom it goes, and how much it is worth.
    pub mode: Mode,
    /// How long it is of use, from 1 ms to 49 days; without an end if there is none. It is counted in elapsed time, over all
    /// hops: what is older when its turn comes is not sent, but becomes a dead letter of the node that has it, and its receiver is told
    /// of a gap. A best-effort message is dropped.
    pub ttl: Option<Duration>,
    /// Whether a best-effort message goes to one of those who are there, by turns, and not to all of them.
    pub to_one: bool,
}

impl SendOptions {
    /// For so many receivers, without an end.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, ttl: None, to_one: false }
    }

    /// A best-effort message goes to one of those who are there. What a gateway hands on goes to all.
    #[must_use]
    pub const fn to_one(mut self) -> Self {
        self.to_one = true;
        self
    }

    /// It is of use for so long.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl From<Mode> for SendOptions {
    fn from(mode: Mode) -> Self {
        Self::new(mode)
    }
}
