//! What a frame under way carries, in so few words that a device can keep it for every frame.

/// What a frame carries. Numbers are the low bits of record numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// The number of the record that follows.
    Begin(u32),
    /// The topic at this place of the configuration has its number.
    Bind(u16),
    /// A record of one number.
    Record(u32),
    /// So many numbers, from the first on, without a message.
    Gap(u32, u32),
    /// A piece of a record, from this byte on.
    Piece(u32, u32),
    /// The last piece of a record.
    LastPiece(u32, u32),
}
