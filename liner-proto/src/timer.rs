//! When something is due, and what it is.

use crate::time::Instant;

/// Why the core wants to be woken; for logs and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wakeup {
    /// The handshake takes too long.
    Handshake,
    /// The link was silent for as long as it may be.
    KeepAlive,
    /// The peer was silent for longer than it may be.
    PeerSilent,
    /// Messages in flight do not arrive.
    Stall,
    /// What was sent and is not acknowledged has to be written.
    WriteBehind,
    /// The store is to be asked again.
    StoreRetry,
    /// It is time to dial.
    Dial,
    /// A write makes no progress.
    WriteStall,
    /// A peer whose name another instance claims has not answered.
    Probe,
    /// A subscriber has been away for as long as it may be.
    Lease,
}

/// A deadline with its reason.
pub type Deadline = (Instant, Wakeup);

/// The earlier of two deadlines.
pub fn earlier(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, None) => a,
        (None, b) => b,
    }
}
