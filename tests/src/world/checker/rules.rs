//! The promises by name, how often each was put to the test, and what a broken one looks like.

use core::fmt;

use liner_proto::time::Instant;

/// A promise of `docs/DELIVERY.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// S1: what was stored is not lost.
    NoLoss,
    /// S2: what arrives is what was sent, byte for byte.
    NoCorruption,
    /// S3: first in, first out within a stream.
    Order,
    /// S3: what left a gap is told with its reason, and only that.
    Gaps,
    /// S4: once, or marked as a possible repeat with a cause for it.
    Once,
    /// S5: nothing new is dropped: a cursor passes a message only when the node has it.
    NeverDiscardNew,
    /// S6: an acknowledgement leaves after the commit that it speaks for.
    AckAfterCommit,
    /// S7: a sender deletes only what the receiver has committed.
    DeleteAfterAck,
    /// S8: a number of an epoch belongs to one message for ever, and an older store gets a new epoch first.
    Regression,
    /// S11: memory stays within its budget.
    BoundedMemory,
    /// S12: nothing before the handshake, on topics that nobody takes, or under another's name.
    OnlyFromPeers,
    /// "Stored" is said of what is stored, and messages leave after their commit.
    Stored,
    /// One message for several next hops is taken over for all of them or for none.
    CustodyAtomic,
    /// Nodes that keep to the protocol never end a session for a breach of it on a link that is in order.
    Accord,
    /// On a lossy line nothing is taken but whole frames of the session, and none is left out.
    Frames,
    /// Nobody sends more than the receiver takes, and no receiver takes more than it has room for.
    Window,
    /// Once everything has healed, everything arrives and the node comes to rest.
    Liveness,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NoLoss,
        Self::NoCorruption,
        Self::Order,
        Self::Gaps,
        Self::Once,
        Self::NeverDiscardNew,
        Self::AckAfterCommit,
        Self::DeleteAfterAck,
        Self::Regression,
        Self::BoundedMemory,
        Self::OnlyFromPeers,
        Self::Stored,
        Self::CustodyAtomic,
        Self::Accord,
        Self::Frames,
        Self::Window,
        Self::Liveness,
    ];
}

/// How often each rule was put to the test where it could have been broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Rule::ALL.len()]);

impl Counts {
    /// No rule was tested yet.
    pub const NONE: Self = Self([0; Rule::ALL.len()]);

    /// Once more.
    pub const fn count(&mut self, rule: Rule) {
        self.0[rule as usize] += 1;
    }

    /// How often.
    pub const fn of(&self, rule: Rule) -> u64 {
        self.0[rule as usize]
    }

    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When.
    pub at: Instant,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} broken at {} us: {}", self.rule, self.at.as_micros(), self.text)
    }
}
