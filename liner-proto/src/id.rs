//! The numbers that name lives, sessions, connections and messages.

use core::fmt;

/// One life of a queue and its numbering (outbox), or of a node's memory of what it has had (inbox).
///
/// Random, never from a clock. Zero stands for "none": nothing is known, or a device that has no way to make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Epoch(pub u64);

impl Epoch {
    /// No epoch.
    pub const NONE: Self = Self(0);

    /// Whether this is no epoch at all.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What an epoch replaced, so that a cursor in the old numbering can still be used.
///
/// The message that was `old_first` in `epoch` is 1 in the epoch that follows it, and so on upwards for `count` numbers. What
/// was queued later never had a number in the old epoch, whatever a cursor of it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Predecessor {
    /// The epoch that was given up.
    pub epoch: Epoch,
    /// The oldest number that was still stored when it was given up.
    pub old_first: u64,
    /// How many numbers there were from it on.
    pub count: u64,
}

impl Predecessor {
    /// The cursor of the new epoch that says the same as `cursor` did in the old one.
    pub const fn translate(&self, cursor: u64) -> u64 {
        let above = (cursor.saturating_add(1)).saturating_sub(self.old_first);
        if above < self.count { above } else { self.count }
    }
}

/// One handshake on one connection: the seed of the seal, so that frames of another session fail by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionId(pub u32);

impl SessionId {
    /// The seed of the first two handshake frames, which no session covers yet.
    pub const HANDSHAKE: Self = Self(0);
}

/// One connection of a node, given by the core; never used again while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One message that this process accepted from its application, counted upwards from 1.
///
/// Reports about sends are cumulative: "stored through `n`" speaks for every send up to `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub u64);

/// What a committed record survives. A stronger class is greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Class {
    /// Nothing: the record lives in this process.
    #[default]
    Ram,
    /// The death of the process, or of the store's server.
    Process,
    /// The loss of power.
    Power,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ram => "ram",
            Self::Process => "process",
            Self::Power => "power",
        })
    }
}
