//! Wrong behaviours that a build with `--cfg planted` can choose at run time.
//!
//! They measure the simulated world: a checker that does not find these would not find their like. Without that cfg
//! the type has no content and every question about it is answered with no.

/// One wrong behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An acknowledgement leaves before its cursor is committed.
    AckBeforeCommit,
    /// The receiver's cursor is committed in a turn before what it speaks for.
    CursorOutsideTransaction,
    /// A receiver keeps its cursor although the sender's epoch is another one.
    EpochIgnored,
    /// After a crash numbers are given out again that may have been on the wire.
    NumberReused,
    /// The completion of a batch is taken for the completion of the batches after it, too.
    EarlyCompletion,
    /// A cursor covers messages that the application has taken and not settled.
    UnsettledCovered,
    /// The rows of one message for several next hops are committed one by one, the cursor with the first.
    CustodyNotAtomic,
    /// Frames are not sealed for their session, on a line.
    CrcNotSeeded,
    /// A frame that comes late is taken for the next one, on a line.
    LateFrameAccepted,
    /// Frames are not sent again after a few times, on a line.
    RetryLimit,
    /// Frames are sent beyond the window, on a line.
    WindowTooEarly,
}

impl Fault {
    /// Every wrong behaviour.
    pub const ALL: [Self; 11] = [
        Self::AckBeforeCommit,
        Self::CursorOutsideTransaction,
        Self::EpochIgnored,
        Self::NumberReused,
        Self::EarlyCompletion,
        Self::UnsettledCovered,
        Self::CustodyNotAtomic,
        Self::CrcNotSeeded,
        Self::LateFrameAccepted,
        Self::RetryLimit,
        Self::WindowTooEarly,
    ];
}

/// The wrong behaviour that a node was told to show, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted(#[cfg(planted)] pub Option<Fault>);

impl Planted {
    /// None.
    #[cfg(planted)]
    pub const NONE: Self = Self(None);
    /// None.
    #[cfg(not(planted))]
    pub const NONE: Self = Self();

    /// Whether the node shows `fault`.
    #[inline]
    pub fn has(self, fault: Fault) -> bool {
        #[cfg(planted)]
        return self.0 == Some(fault);
        #[cfg(not(planted))]
        {
            let _ = fault;
            false
        }
    }
}
