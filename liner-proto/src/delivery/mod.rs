//! Numbering, window, acknowledgements and duplicates: one stream's two ends.
//!
//! [`Outbound`] is the sender's end: a queue whose records have numbers, with prefix cursors that say how far it was stored,
//! sent and acknowledged. [`Inbound`] is the receiver's end: how far it has taken a peer's stream. Neither knows a link or a
//! session; whoever composes them carries the marks between the two.

mod dropping;
mod inbound;
mod outbound;
mod pending;
mod writing;

pub use inbound::{Arrival, Inbound, Resumption};
pub use outbound::{Append, Emission, Next, Outbound, PushError, Remembered, Resumed, SendMode, Unplaced};
#[cfg(feature = "alloc")]
pub(crate) use pending::{BATCHES_MAX, Pending};

/// What a peer did that the protocol forbids. The session ends; resume repairs what can be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It acknowledged what was not sent.
    #[error("the peer acknowledged a number that was not sent")]
    AckAboveSent,
    /// It skipped numbers without declaring a gap.
    #[error("the peer skipped numbers without declaring a gap")]
    UndeclaredGap,
    /// It sent beyond the window.
    #[error("the peer sent beyond the window")]
    Window,
    /// A range of numbers ends before it begins, or above all numbers.
    #[error("the peer sent a range of numbers that makes no sense")]
    Range,
}
