//! What a frame under way carries, in so few words that a device can keep it for every frame.

use crate::wire::data::widen;

/// What a frame carries. Numbers stand with their low bits: they are near to others that are known whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The number of the record that follows.
    Begin(u32),
    /// A record of one number.
    Record(u32),
    /// A gap of so many numbers.
    Gap(u32, u32),
    /// A piece of a record, from this byte on.
    Piece(u32, u32),
    /// The last piece of a record.
    LastPiece(u32, u32),
    /// Something else that whoever sent it knows.
    Other(u16),
}

impl Carried {
    /// The last number that a receiver has when it has this frame, and all before it. `near` is within 2^31 of it.
    pub const fn completes(self, near: u64) -> Option<u64> {
        match self {
            Self::Record(number) | Self::LastPiece(number, _) => Some(widen(number, near)),
            Self::Gap(first, count) => Some(widen(first, near) + count as u64 - 1),
            Self::Begin(_) | Self::Piece(..) | Self::Other(_) => None,
        }
    }
}
