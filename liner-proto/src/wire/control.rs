//! The small frames of a session that is up.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::page::Page;
use super::text::{Reader, Writer};
use super::{DecodeError, NUMBER_MAX, tag};

/// Bytes in front of the body of a [`Numbered`] frame.
pub const NUMBERED_HEAD: usize = 3;

/// The most bytes in front of the piece in a [`Fragment`].
pub const FRAGMENT_HEAD_MAX: usize = 1 + 5;

/// The last frame of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close<'a> {
    /// Why.
    pub reason: CloseReason,
    /// Words for an operator; may be empty.
    pub text: &'a str,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[serde(from = "u8", into = "u8")]
pub enum CloseReason {
    /// The application wants it so.
    Normal,
    /// A newer connection of the same node takes its place.
    Replaced,
    /// Another instance answers to the node's name.
    NameInUse,
    /// The other side speaks another version, or sent a tag that this one does not know.
    Unsupported,
    /// The other side did what the protocol forbids.
    Violation,
    /// Nothing was heard for too long.
    Timeout,
    /// The node stops.
    Shutdown,
    /// The other side may not connect.
    Unauthorised,
    /// The node has no room for more of the peer: its session, name, topics, rows or dead letters.
    Overloaded,
    /// A frame failed its check on a link that does not damage frames.
    SealBroken,
    /// Numbers are missing on a link that does not lose frames.
    OutOfSequence,
    /// This side's stream had gone backwards: it comes back with a new epoch.
    Regressed,
    /// The link broke. Never sent: it is what this side says of a peer that could say nothing.
    LinkLost,
    /// A number that this version has no name for.
    Other(u8),
}

/// How far each direction has come, and how far it may go. Also sent when a link was silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The last number that was received from the peer.
    pub received: u64,
    /// The last number that is committed. `acked <= received`.
    pub acked: u64,
    /// The last number that the peer may send.
    pub messages_limit: u64,
    /// The bytes of records that the peer may send in all, counted since the session began.
    pub bytes_limit: u64,
    /// The number that the sender of the marks will use next.
    pub next: u64,
}

/// What marks are on a lossy line: few bytes, always as many. Frames are counted in the session, records in their stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The last frame below which none is missing.
    #[serde(with = "postcard::fixint::le")]
    pub received: u16,
    /// Bit `i` is set if the frame `received + 2 + i` has arrived.
    #[serde(with = "postcard::fixint::le")]
    pub bitmap: u32,
    /// Low bits of the number of the last record that is committed: see [`widen`](super::data::widen).
    #[serde(with = "postcard::fixint::le")]
    pub acked_low: u32,
    /// Frames that the peer may send above `received`.
    pub window: u8,
    /// Low bits of the number that the sender of the ack will use next.
    #[serde(with = "postcard::fixint::le")]
    pub next_low: u32,
}

/// The number of the record that comes next on a lossy line. Those after it follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The number.
    pub number: u64,
}

/// A frame on a lossy line that has to arrive, and in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    /// Which frame of the session it is, counted from 1 and from 65,535 on to 0.
    pub frame: u16,
    /// The body of the frame.
    pub body: &'a [u8],
}

/// What a [`Numbered`] frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content<'a> {
    /// The number of the next record.
    Begin(Begin),
    /// A topic's number.
    Bind(Bind<'a>),
    /// A topic takes no more.
    TopicFull(TopicFull<'a>),
    /// Rows of a directory.
    Page(Page<'a>),
    /// A piece of a body.
    Fragment(Fragment<'a>),
    /// Something that need not be understood.
    Skipped,
}

/// A piece of a body that is too long for one frame. The pieces of a body follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Bytes of the body from this piece on; 0: what was begun is given up.
    pub left: u32,
    /// The piece.
    pub bytes: &'a [u8],
}

/// Binds a topic's number for the rest of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind<'a> {
    /// The number that records carry; from 1.
    pub number: u32,
    /// The topic.
    pub text: &'a str,
}

/// Nothing more is kept for a topic: new messages to it are not to be sent. With `after` 0 it takes messages again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicFull<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The first number of the peer's stream that was not kept; 0 if messages are taken again.
    pub after: u64,
}

/// Asks the peer whether it is there: it answers with an [`Echo`] of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which probe of the session this is, from 1.
    pub number: u64,
}

/// Answers a [`Probe`], and all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The number of the probe.
    pub number: u64,
}

impl<'a> Numbered<'a> {
    /// What stands in front of the body of frame `frame`.
    pub const fn head(frame: u16) -> [u8; NUMBERED_HEAD] {
        let [low, high] = frame.to_le_bytes();
        [tag::NUMBERED, low, high]
    }

    /// What it says.
    ///
    /// # Errors
    /// If it is nothing that this version knows.
    pub fn content(&self) -> Result<Content<'a>, DecodeError> {
        let mut reader = Reader::new(self.body);
        let tag = reader.byte();
        let content = match tag {
            tag::BEGIN => Content::Begin(Begin::read(&mut reader)),
            tag::BIND => Content::Bind(Bind::read(&mut reader)),
            tag::TOPIC_FULL => Content::TopicFull(TopicFull::read(&mut reader)),
            tag::PAGE => Content::Page(Page::read(&mut reader)),
            tag::FRAGMENT => Content::Fragment(Fragment::read(&mut reader)),
            _ => {
                // All others have a number of their own, or none.
                reader.skip(tag);
                Content::Skipped
            }
        };
        reader.done(content)
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        let numbered = Self { frame: reader.fixed16(), body: reader.take_rest() };
        if numbered.body.is_empty() {
            reader.fail(DecodeError::Truncated);
        }
        numbered
    }
}

impl<'a> Fragment<'a> {
    /// Writes what stands in front of a piece. Returns the bytes written.
    pub fn head(left: u32) -> ([u8; FRAGMENT_HEAD_MAX], usize) {
        let mut head = [0; FRAGMENT_HEAD_MAX];
        let mut writer = Writer::new(&mut head);
        Self { left, bytes: &[] }.write(&mut writer);
        let len = writer.done().unwrap_or(0);
        (head, len)
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        let fragment = Self { left: reader.varint32(), bytes: reader.take_rest() };
        let len = fragment.bytes.len();
        // The last piece ends with the body.
        reader.check(len as u64 <= u64::from(fragment.left) && (len > 0 || fragment.left == 0));
        fragment
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::FRAGMENT);
        writer.varint(u64::from(self.left));
        writer.bytes(self.bytes);
    }
}

impl From<u8> for CloseReason {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Normal,
            1 => Self::Replaced,
            2 => Self::NameInUse,
            3 => Self::Unsupported,
            4 => Self::Violation,
            5 => Self::Timeout,
            6 => Self::Shutdown,
            7 => Self::Unauthorised,
            8 => Self::Overloaded,
            9 => Self::SealBroken,
            10 => Self::OutOfSequence,
            11 => Self::Regressed,
            12 => Self::LinkLost,
            other => Self::Other(other),
        }
    }
}

impl From<CloseReason> for u8 {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Normal => 0,
            CloseReason::Replaced => 1,
            CloseReason::NameInUse => 2,
            CloseReason::Unsupported => 3,
            CloseReason::Violation => 4,
            CloseReason::Timeout => 5,
            CloseReason::Shutdown => 6,
            CloseReason::Unauthorised => 7,
            CloseReason::Overloaded => 8,
            CloseReason::SealBroken => 9,
            CloseReason::OutOfSequence => 10,
            CloseReason::Regressed => 11,
            CloseReason::LinkLost => 12,
            CloseReason::Other(number) => number,
        }
    }
}

impl From<DecodeError> for CloseReason {
    /// What to tell a peer whose frame passed its seal and still cannot be read.
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unsupported(_) | DecodeError::Version { .. } => Self::Unsupported,
            DecodeError::Truncated
            | DecodeError::Varint
            | DecodeError::Text
            | DecodeError::Range
            | DecodeError::LimitExceeded
            | DecodeError::Mismatch
            | DecodeError::BadMagic => Self::Violation,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "closed",
            Self::Replaced => "replaced by a newer connection",
            Self::NameInUse => "the node's name is in use",
            Self::Unsupported => "unsupported version or frame",
            Self::Violation => "protocol violation",
            Self::Timeout => "timed out",
            Self::Shutdown => "the node stops",
            Self::Unauthorised => "not authorised",
            Self::Overloaded => "overloaded",
            Self::SealBroken => "a frame failed its check",
            Self::OutOfSequence => "numbers are missing",
            Self::Regressed => "the stream begins a new epoch",
            Self::LinkLost => "the link broke",
            Self::Other(number) => return write!(f, "reason {number}"),
        })
    }
}

impl<'a> Close<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        Self { reason: reader.byte().into(), text: reader.text() }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::CLOSE);
        writer.byte(self.reason.into());
        writer.text(self.text);
    }
}

impl Marks {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let marks = Self {
            received: reader.varint(),
            acked: reader.varint(),
            messages_limit: reader.varint(),
            bytes_limit: reader.varint(),
            next: reader.varint(),
        };
        reader.check(
            marks.acked <= marks.received
                && marks.received <= NUMBER_MAX
                && (1..=NUMBER_MAX).contains(&marks.next),
        );
        marks
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::MARKS);
        for field in [self.received, self.acked, self.messages_limit, self.bytes_limit, self.next] {
            writer.varint(field);
        }
    }
}

impl Ack {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            received: reader.fixed16(),
            bitmap: reader.fixed32(),
            acked_low: reader.fixed32(),
            window: reader.byte(),
            next_low: reader.fixed32(),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        let [r0, r1] = self.received.to_le_bytes();
        let [b0, b1, b2, b3] = self.bitmap.to_le_bytes();
        let [a0, a1, a2, a3] = self.acked_low.to_le_bytes();
        let [n0, n1, n2, n3] = self.next_low.to_le_bytes();
        // In one go: a call for each field is more code.
        writer.bytes(&[tag::ACK, r0, r1, b0, b1, b2, b3, a0, a1, a2, a3, self.window, n0, n1, n2, n3]);
    }
}

impl<'a> Bind<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        let bind = Self { number: reader.varint32(), text: reader.text() };
        reader.check(bind.number > 0);
        bind
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::BIND);
        writer.varint(u64::from(self.number));
        writer.text(self.text);
    }
}

impl Begin {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let begin = Self { number: reader.varint() };
        reader.check((1..=NUMBER_MAX).contains(&begin.number));
        begin
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::BEGIN);
        writer.varint(self.number);
    }
}

impl<'a> TopicFull<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        let full = Self { topic: reader.text(), after: reader.varint() };
        reader.check(full.after <= NUMBER_MAX);
        full
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::TOPIC_FULL);
        writer.text(self.topic);
        writer.varint(self.after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, BufferFull, decode, encode};

    fn round_trip<'b>(body: &Body<'_>, bytes: &'b mut [u8]) -> Result<Body<'b>, DecodeError> {
        let len = encode(body, bytes).unwrap();
        for short in 0..len {
            assert_eq!(decode(&bytes[..short]), Err(DecodeError::Truncated), "{short} of {len}");
            assert_eq!(encode(body, &mut [0; 300][..short]), Err(BufferFull));
        }
        // What a later version adds is ignored.
        decode(&bytes[..len + 3])
    }

    #[test]
    fn every_number_of_a_reason_comes_back() {
        for number in 0..=u8::MAX {
            let reason = CloseReason::from(number);
            assert_eq!(u8::from(reason), number);
            assert_eq!(matches!(reason, CloseReason::Other(_)), number > 12);
            let close = Body::Close(Close { reason, text: "why" });
            assert_eq!(round_trip(&close, &mut [0; 300]), Ok(close));
        }
    }

    #[test]
    fn marks_come_back_if_they_make_sense() {
        let good = Marks {
            received: NUMBER_MAX,
            acked: NUMBER_MAX,
            messages_limit: u64::MAX,
            bytes_limit: u64::MAX,
            next: NUMBER_MAX,
        };
        assert_eq!(round_trip(&Body::Marks(good), &mut [0; 300]), Ok(Body::Marks(good)));
        for wrong in [
            Marks { received: 4, acked: 5, ..good },
            Marks { received: NUMBER_MAX + 1, ..good },
            Marks { next: 0, ..good },
            Marks { next: NUMBER_MAX + 1, ..good },
        ] {
            assert_eq!(round_trip(&Body::Marks(wrong), &mut [0; 300]), Err(DecodeError::Range), "{wrong:?}");
        }
    }

    #[test]
    fn an_ack_is_always_as_long() {
        let ack = Ack { received: 1, bitmap: 2, acked_low: 0, window: 3, next_low: 4 };
        let large =
            Ack { received: 0xffff, bitmap: u32::MAX, acked_low: u32::MAX, window: 255, next_low: u32::MAX };
        for ack in [ack, large] {
            assert_eq!(encode(&Body::Ack(ack), &mut [0; 16]), Ok(16));
            assert_eq!(round_trip(&Body::Ack(ack), &mut [0; 300]), Ok(Body::Ack(ack)));
        }
    }

    #[test]
    fn probes_and_echoes_have_numbers() {
        for number in [1, 300, u64::MAX] {
            for body in [Body::Probe(Probe { number }), Body::Echo(Echo { number })] {
                assert_eq!(round_trip(&body, &mut [0; 300]), Ok(body));
            }
        }
    }

    #[test]
    fn topics_are_named() {
        let bind = Bind { number: 300, text: "sensors/air" };
        assert_eq!(round_trip(&Body::Bind(bind), &mut [0; 300]), Ok(Body::Bind(bind)));
        let zero = Body::Bind(Bind { number: 0, ..bind });
        assert_eq!(round_trip(&zero, &mut [0; 300]), Err(DecodeError::Range));
        let full = TopicFull { topic: "sensors/air", after: NUMBER_MAX };
        assert_eq!(round_trip(&Body::TopicFull(full), &mut [0; 300]), Ok(Body::TopicFull(full)));
        let beyond = Body::TopicFull(TopicFull { after: NUMBER_MAX + 1, ..full });
        assert_eq!(round_trip(&beyond, &mut [0; 300]), Err(DecodeError::Range));
    }

    #[test]
    fn texts_have_a_limit() {
        let text = &*"x".repeat(256);
        let reason = CloseReason::Normal;
        for body in [
            Body::Close(Close { reason, text }),
            Body::Bind(Bind { number: 1, text }),
            Body::TopicFull(TopicFull { topic: text, after: 1 }),
        ] {
            assert_eq!(encode(&body, &mut [0; 300]), Err(BufferFull));
        }
        // The same frames by a hand that knows no limit: tag, further fields, the length of the text.
        for front in
            [&[tag::CLOSE, 0, 0x80, 0x02][..], &[tag::BIND, 1, 0x80, 0x02], &[tag::TOPIC_FULL, 0x80, 0x02]]
        {
            let mut bytes = [b'x'; 300];
            bytes[..front.len()].copy_from_slice(front);
            assert_eq!(decode(&bytes), Err(DecodeError::LimitExceeded));
        }
    }

    #[test]
    fn what_cannot_be_read_ends_the_session_with_a_word() {
        let word = |error: DecodeError| CloseReason::from(error);
        assert_eq!(word(DecodeError::Unsupported(0x10)), CloseReason::Unsupported);
        assert_eq!(word(DecodeError::Version { min: 2, max: 3 }), CloseReason::Unsupported);
        assert_eq!(word(DecodeError::Mismatch), CloseReason::Violation);
        assert_eq!(word(DecodeError::LimitExceeded), CloseReason::Violation);
    }
}
