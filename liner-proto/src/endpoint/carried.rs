//! What a frame under way carries, in so few words that a device can keep it for every frame.

/// What a frame carries. Numbers are the low bits of record numbers.
// Without a hole between its fields: an array of it is cleared in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) kind: Kind,
    /// The number of the record, or the first one of a gap; of a topic, its place in the configuration.
    pub(super) number: u32,
    /// Of a record, where it stands in the queue; of a gap, how many numbers it has; of a piece, from which byte of the record on
    /// it is.
    pub(super) more: u32,
}

#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The number of the record that follows.
    Begin = 0,
    /// A topic has its number.
    Bind,
    /// A record of one number.
    Record,
    /// Numbers without a message.
    Gap,
    /// A piece of a record.
    Piece,
    /// The last piece of a record.
    LastPiece,
}

impl Carried {
    /// Nothing that anybody asks for.
    pub(super) const BLANK: Self = Self { kind: Kind::Begin, number: 0, more: 0 };
}
