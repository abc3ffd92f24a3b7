//! Records: messages and gaps as they stand in a ring, in a store and on a link.
//!
//! The bytes of a record never change on their way through one stream: what does change (its number, whether it was
//! sent before, the age that the present node adds) stands in front of it, in the head of a batch or of a frame.
//! Decoding borrows from the bytes and copies nothing.

use super::DecodeError;
use super::text::{Reader, Writer, text_len};
use super::varint::{take_varint, varint_len};
use crate::id::Epoch;

/// The first byte of every record is in the range of tags that stand for a record on a lossy line.
pub(super) const MARK: u8 = 0b0100_0000;
const MARK_MASK: u8 = 0b1100_0000;
const KIND_MASK: u8 = 0b0000_0011;
const KIND_ONE: u8 = 0;
const KIND_ALL: u8 = 1;
const KIND_BEST_EFFORT: u8 = 2;
const KIND_GAP: u8 = 3;
pub(super) const TOPIC_TEXT: u8 = 1 << 2;
/// A byte of further flags follows the first.
pub(super) const EXT: u8 = 1 << 3;
pub(super) const REPEAT: u8 = 1 << 4;
/// Only in the head of a frame on a lossy line; zero in a ring and in a store.
pub(super) const SENT_BEFORE: u8 = 1 << 5;

pub(super) const EXT_ORIGIN: u8 = 1 << 0;
pub(super) const EXT_HOPS: u8 = 1 << 1;
pub(super) const EXT_TTL: u8 = 1 << 2;
/// The record says its age, so that whoever sends it says what has come to it since.
pub(super) const EXT_AGE: u8 = 1 << 3;
pub(super) const EXT_AGE_UNKNOWN: u8 = 1 << 4;
/// Only in a ring and in a store: the number is no age, but when the message was born.
pub(super) const EXT_BORN: u8 = 1 << 5;
const EXT_KNOWN: u8 = EXT_ORIGIN | EXT_HOPS | EXT_TTL | EXT_AGE | EXT_AGE_UNKNOWN | EXT_BORN;

/// The first byte of a gap's record.
pub(super) const GAP_FIRST: u8 = MARK | KIND_GAP;

/// The most bytes that a gap record takes.
pub const GAP_LEN_MAX: usize = 12;

/// To whom a message goes, and how much it is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// At least once, to one of a topic's nodes.
    #[default]
    One,
    /// At least once, to every node of a topic.
    All,
    /// At most once, to whoever is there.
    BestEffort,
}

/// The topic of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic<'a> {
    /// By the number that its stream has given it.
    Number(u32),
    /// Written out.
    Text(&'a str),
}

/// Who sent a message first. A message without one came from its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin<'a> {
    /// The node.
    pub name: &'a str,
    /// The epoch of its stream.
    pub epoch: Epoch,
    /// The number it had there.
    pub number: u64,
}

/// How old a message was when it was stored for the present hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Age {
    /// Milliseconds that are known of.
    pub ms: u64,
    /// Whether an outage of unknown length came to them.
    pub unknown: bool,
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header<'a> {
    /// To whom it goes.
    pub mode: Mode,
    /// Its topic.
    pub topic: Topic<'a>,
    /// An earlier hop may have delivered it already.
    pub repeat: bool,
    /// Who sent it first, if that was not the sender.
    pub origin: Option<Origin<'a>>,
    /// How many hops it may still make.
    pub hops: Option<u8>,
    /// How long it is of use, in milliseconds from when it was first sent.
    pub ttl_ms: Option<u32>,
    /// How old it was when it was stored.
    pub age: Option<Age>,
    /// When it was born, in milliseconds by the clock of the node in whose queue it stands. There it says that in place of its age;
    /// it is never sent.
    pub born_ms: Option<u64>,
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record<'a> {
    /// A message.
    Message {
        /// What it says about itself.
        header: Header<'a>,
        /// What the application sent.
        payload: &'a [u8],
    },
    /// Numbers that will never carry a message.
    Gap {
        /// Why.
        reason: GapReason,
        /// How many, from the record's own number upwards; at least one.
        count: u64,
    },
}

/// Why numbers of a stream will never carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[repr(u8)]
pub enum GapReason {
    /// The queue was full and its policy drops the oldest.
    Dropped = 1,
    /// The numbers were reserved by a process that died before it could store what it had sent under them.
    Crashed = 2,
    /// The stored record failed its check; its bytes are kept aside.
    Corrupt = 3,
    /// The message outlived its time to live.
    Expired = 4,
    /// An operator or an application took the messages out.
    Cleared = 5,
    /// The store no longer has records that it must have.
    Missing = 6,
    /// The message is longer than the peer takes; it is among the sender's dead letters.
    TooLarge = 7,
    /// They were in the memory of a node that has started anew without it.
    Restarted = 8,
    /// The peer may have had the message before it forgot the stream; it is among the sender's dead letters.
    InDoubt = 9,
}

impl Record<'_> {
    /// Adds what has come to the age of a message since, if it says its age.
    #[inline]
    #[must_use]
    pub const fn aged(mut self, added_ms: Option<u64>) -> Self {
        if let (Some(added_ms), Self::Message { header: Header { age: Some(age), .. }, .. }) =
            (added_ms, &mut self)
        {
            age.ms = age.ms.saturating_add(added_ms);
        }
        self
    }
}

impl GapReason {
    /// The reason with this number on the wire or in a store.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Dropped,
            2 => Self::Crashed,
            3 => Self::Corrupt,
            4 => Self::Expired,
            5 => Self::Cleared,
            6 => Self::Missing,
            7 => Self::TooLarge,
            8 => Self::Restarted,
            9 => Self::InDoubt,
            _ => return None,
        })
    }
}

impl<'a> Header<'a> {
    /// A header with nothing but mode and topic.
    pub const fn new(mode: Mode, topic: Topic<'a>) -> Self {
        Self { mode, topic, repeat: false, origin: None, hops: None, ttl_ms: None, age: None, born_ms: None }
    }

    /// The bytes it takes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header always takes some bytes")]
    pub const fn len(&self) -> usize {
        let topic = match self.topic {
            Topic::Number(number) => varint_len(number as u64),
            Topic::Text(text) => text_len(text),
        };
        let ext = if self.ext() == 0 { 0 } else { self.ext_len() };
        1 + ext + topic
    }

    /// Writes it to the front of `out`. Returns the bytes written; nothing if they do not fit, or a text is longer than
    /// [`TEXT_MAX`](super::TEXT_MAX).
    #[inline]
    pub fn encode_into(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        self.write(&mut writer);
        writer.done()
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        let ext = self.ext();
        writer.byte(self.first_byte(ext));
        if ext != 0 {
            self.write_ext(ext, writer);
        }
        write_topic(self.topic, writer);
    }

    pub(super) const fn first_byte(&self, ext: u8) -> u8 {
        let mode = match self.mode {
            Mode::One => KIND_ONE,
            Mode::All => KIND_ALL,
            Mode::BestEffort => KIND_BEST_EFFORT,
        };
        let topic = match self.topic {
            Topic::Number(_) => 0,
            Topic::Text(_) => TOPIC_TEXT,
        };
        MARK | mode | topic | if ext == 0 { 0 } else { EXT } | if self.repeat { REPEAT } else { 0 }
    }

    const fn ext(&self) -> u8 {
        let age = match (self.born_ms, self.age) {
            (Some(_), _) => EXT_AGE | EXT_BORN,
            (None, None) => 0,
            (None, Some(Age { unknown: false, .. })) => EXT_AGE,
            (None, Some(Age { unknown: true, .. })) => EXT_AGE | EXT_AGE_UNKNOWN,
        };
        age | if self.origin.is_some() { EXT_ORIGIN } else { 0 }
            | if self.hops.is_some() { EXT_HOPS } else { 0 }
            | if self.ttl_ms.is_some() { EXT_TTL } else { 0 }
    }

    const fn ext_len(&self) -> usize {
        let mut len = 1;
        if let Some(origin) = self.origin {
            len += text_len(origin.name) + varint_len(origin.epoch.0) + varint_len(origin.number);
        }
        if self.hops.is_some() {
            len += 1;
        }
        if let Some(ttl_ms) = self.ttl_ms {
            len += varint_len(ttl_ms as u64);
        }
        if let Some(ms) = self.age_field() {
            len += varint_len(ms);
        }
        len
    }

    fn write_ext(&self, ext: u8, writer: &mut Writer<'_>) {
        writer.byte(ext);
        if let Some(origin) = self.origin {
            writer.text(origin.name);
            writer.varint(origin.epoch.0);
            writer.varint(origin.number);
        }
        if let Some(hops) = self.hops {
            writer.byte(hops);
        }
        if let Some(ttl_ms) = self.ttl_ms {
            writer.varint(u64::from(ttl_ms));
        }
        if let Some(ms) = self.age_field() {
            writer.varint(ms);
        }
    }

    const fn age_field(&self) -> Option<u64> {
        match (self.born_ms, self.age) {
            (Some(ms), _) | (None, Some(Age { ms, .. })) => Some(ms),
            (None, None) => None,
        }
    }
}

/// Writes a topic, as the first byte says it.
pub(super) fn write_topic(topic: Topic<'_>, writer: &mut Writer<'_>) {
    match topic {
        Topic::Number(number) => writer.varint(u64::from(number)),
        Topic::Text(text) => writer.text(text),
    }
}

/// The bytes of a message's record.
#[inline]
pub const fn message_len(header: &Header<'_>, payload_len: usize) -> usize {
    header.len().saturating_add(payload_len)
}

/// Writes a message's record to the front of `out`. Returns the bytes written; nothing if they do not fit, or a text is
/// longer than [`TEXT_MAX`](super::TEXT_MAX).
#[inline]
pub fn encode_message(header: &Header<'_>, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(out);
    header.write(&mut writer);
    writer.bytes(payload);
    writer.done()
}

/// Writes a gap's record to the front of `out`. Returns the bytes written; nothing if they do not fit, or the gap is empty.
pub fn encode_gap(reason: GapReason, count: u64, out: &mut [u8]) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let mut writer = Writer::new(out);
    writer.byte(MARK | KIND_GAP);
    writer.byte(reason as u8);
    writer.varint(count);
    writer.done()
}

/// What a record says.
///
/// # Errors
/// If the bytes are no record that this version knows.
#[inline]
pub fn decode(record: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut reader = Reader::new(record);
    let first = reader.byte();
    let ext = if first & EXT == 0 { 0 } else { read_ext_flags(&mut reader) };
    read(first, ext, reader)
}

/// What a record says whose flags stand apart from the rest: `first` is its first byte, `ext` its second one if the first
/// says that it has further flags, and else zero; `rest` is what follows them.
///
/// # Errors
/// If they are no record that this version knows.
pub fn decode_split(first: u8, ext: u8, rest: &[u8]) -> Result<Record<'_>, DecodeError> {
    read(first, ext, Reader::new(rest))
}

fn read(first: u8, ext: u8, mut reader: Reader<'_>) -> Result<Record<'_>, DecodeError> {
    if first & (MARK_MASK | SENT_BEFORE) != MARK || (first & EXT == 0) != (ext == 0) {
        reader.fail(DecodeError::Unsupported(first));
    }
    let mode = match first & KIND_MASK {
        KIND_ONE => Mode::One,
        KIND_ALL => Mode::All,
        KIND_BEST_EFFORT => Mode::BestEffort,
        _ => {
            let (reason, count) = read_gap(first, &mut reader);
            return reader.done(Record::Gap { reason, count });
        }
    };
    let mut header = Header::new(mode, Topic::Number(0));
    header.repeat = first & REPEAT != 0;
    if ext != 0 {
        read_ext(&mut header, ext, &mut reader);
    }
    header.topic = if first & TOPIC_TEXT == 0 {
        Topic::Number(read_u32(&mut reader))
    } else {
        Topic::Text(reader.text())
    };
    reader.done(Record::Message { header, payload: reader.rest() })
}

/// Whether a record is a message, and not a gap.
pub fn is_message(record: &[u8]) -> bool {
    record.first().is_some_and(|first| first & KIND_MASK != KIND_GAP)
}

/// Whether a record with this first byte is a gap.
pub(super) const fn is_gap(first: u8) -> bool {
    first & KIND_MASK == KIND_GAP
}

/// Whether a record with this first byte is a message without a number.
pub(super) const fn is_best_effort(first: u8) -> bool {
    first & KIND_MASK == KIND_BEST_EFFORT
}

/// Whether a record says when it was born: it stands like that in queues only.
#[inline]
pub fn is_born(record: &[u8]) -> bool {
    matches!(record, [first, ext, ..] if first & EXT != 0 && is_message(record) && ext & EXT_BORN != 0)
}

/// How many numbers a record covers: those of a gap, or one. One, too, for what is no record.
#[inline]
pub fn numbers_of(record: &[u8]) -> u64 {
    match record {
        [first, _, count @ ..] if first & KIND_MASK == KIND_GAP => {
            take_varint(count).map_or(1, |(count, _)| count.max(1))
        }
        _ => 1,
    }
}

/// The first record of a run, and the run behind it; nothing if the run is at its end or its first record is not whole.
#[inline]
pub fn split_first(run: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = take_varint(run).ok()?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

/// The records of a run: one after another, each behind its length.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    rest: &'a [u8],
}

impl<'a> Run<'a> {
    /// The records in `bytes`, to their end.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Run<'a> {
    type Item = Result<&'a [u8], DecodeError>;

    /// The bytes of the next record. After an error there is nothing more.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = take_varint(self.rest).and_then(|(len, rest)| {
            usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)).ok_or(DecodeError::Truncated)
        });
        self.rest = taken.map_or(&[], |(_, rest)| rest);
        Some(taken.map(|(record, _)| record))
    }
}

/// Reads the further flags of a record; there is at least one if there is the byte.
pub(super) fn read_ext_flags(reader: &mut Reader<'_>) -> u8 {
    let ext = reader.byte();
    if ext & !EXT_KNOWN != 0 {
        reader.fail(DecodeError::Unsupported(ext));
    }
    reader.check(ext != 0);
    ext
}

/// A number that may be written with more bytes than it needs.
pub(super) fn read_u32(reader: &mut Reader<'_>) -> u32 {
    let value = reader.varint();
    reader.check(value <= u64::from(u32::MAX));
    value as u32
}

fn read_ext<'a>(header: &mut Header<'a>, ext: u8, reader: &mut Reader<'a>) {
    if ext & !EXT_KNOWN != 0 {
        reader.fail(DecodeError::Unsupported(ext));
    }
    if ext & EXT_ORIGIN != 0 {
        let (name, epoch, number) = (reader.text(), Epoch(reader.varint()), reader.varint());
        header.origin = Some(Origin { name, epoch, number });
    }
    if ext & EXT_HOPS != 0 {
        header.hops = Some(reader.byte());
    }
    if ext & EXT_TTL != 0 {
        header.ttl_ms = Some(read_u32(reader));
    }
    let (unknown, born) = (ext & EXT_AGE_UNKNOWN != 0, ext & EXT_BORN != 0);
    reader.check(!(unknown && born));
    if ext & EXT_AGE != 0 {
        let ms = reader.varint();
        if born {
            header.born_ms = Some(ms);
        } else {
            header.age = Some(Age { ms, unknown });
        }
    } else {
        reader.check(!unknown && !born);
    }
}

/// Reads why, and how many, behind the first byte of a gap.
pub(super) fn read_gap(first: u8, reader: &mut Reader<'_>) -> (GapReason, u64) {
    if first != GAP_FIRST {
        reader.fail(DecodeError::Unsupported(first));
    }
    let (reason, count) = (GapReason::from_number(reader.byte()), reader.varint());
    reader.check(reason.is_some() && count > 0);
    (reason.unwrap_or(GapReason::Missing), count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::TEXT_MAX;

    type Fields = (
        u8,
        Result<u32, &'static str>,
        bool,
        Option<(&'static str, u64, u64)>,
        Option<u8>,
        Option<u32>,
        Option<(u64, bool)>,
    );

    /// Texts of every length that is allowed, and one that is not ASCII.
    fn any_text() -> impl Strategy<Value = &'static str> {
        const LONG: &str = match core::str::from_utf8(&[b'x'; TEXT_MAX]) {
            Ok(text) => text,
            Err(_) => "",
        };
        prop_oneof![(0..=TEXT_MAX).prop_map(|len| &LONG[..len]), Just("größe/°C")]
    }

    fn any_fields() -> impl Strategy<Value = Fields> {
        let small = || (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift);
        (
            0..3_u8,
            proptest::result::maybe_ok(
                (any::<u32>(), 0..32_u32).prop_map(|(value, shift)| value >> shift),
                any_text(),
            ),
            any::<bool>(),
            proptest::option::of((any_text(), small(), small())),
            any::<Option<u8>>(),
            any::<Option<u32>>(),
            proptest::option::of((small(), any::<bool>())),
        )
    }

    fn header(fields: &Fields) -> Header<'static> {
        let (mode, topic, repeat, origin, hops, ttl_ms, age) = fields;
        Header {
            mode: [Mode::One, Mode::All, Mode::BestEffort][usize::from(*mode)],
            topic: match topic {
                Ok(number) => Topic::Number(*number),
                Err(text) => Topic::Text(text),
            },
            repeat: *repeat,
            origin: origin.as_ref().map(|(name, epoch, number)| Origin {
                name,
                epoch: Epoch(*epoch),
                number: *number,
            }),
            hops: *hops,
            ttl_ms: *ttl_ms,
            age: age.map(|(ms, unknown)| Age { ms, unknown }),
            born_ms: None,
        }
    }

    /// The same fields, written one after another by postcard itself.
    fn by_postcard<'b>(fields: &Fields, out: &'b mut [u8]) -> &'b [u8] {
        fn add<T: serde::Serialize>(value: &T, out: &mut [u8], len: &mut usize) {
            *len += postcard::to_slice(value, &mut out[*len..]).unwrap().len();
        }
        let (mode, topic, repeat, origin, hops, ttl_ms, age) = fields;
        let ext = u8::from(origin.is_some())
            + 2 * u8::from(hops.is_some())
            + 4 * u8::from(ttl_ms.is_some())
            + 8 * u8::from(age.is_some())
            + 16 * u8::from(age.is_some_and(|(_, unknown)| unknown));
        let mut len = 0;
        let flags =
            0x40 + mode + 4 * u8::from(topic.is_err()) + 8 * u8::from(ext > 0) + 16 * u8::from(*repeat);
        add(&flags, out, &mut len);
        if ext > 0 {
            add(&ext, out, &mut len);
        }
        if let Some((name, epoch, number)) = origin {
            add(&(name, epoch, number), out, &mut len);
        }
        if let Some(hops) = hops {
            add(hops, out, &mut len);
        }
        if let Some(ttl_ms) = ttl_ms {
            add(ttl_ms, out, &mut len);
        }
        if let Some((ms, _)) = age {
            add(ms, out, &mut len);
        }
        match topic {
            Ok(number) => add(number, out, &mut len),
            Err(text) => add(text, out, &mut len),
        }
        &out[..len]
    }

    #[test]
    fn in_a_queue_it_says_when_it_was_born() {
        let plain = Header { ttl_ms: Some(5), ..Header::new(Mode::All, Topic::Number(1)) };
        let queued = Header { born_ms: Some(300), ..plain };
        let mut bytes = [0; 16];
        let len = encode_message(&queued, b"x", &mut bytes).unwrap();
        assert_eq!(bytes[..len], [0x49, 0x2c, 5, 0xac, 2, 1, b'x']);
        assert_eq!((queued.len() + 1, is_born(&bytes[..len])), (len, true));
        assert_eq!(decode(&bytes[..len]), Ok(Record::Message { header: queued, payload: b"x" }));
        for other in [plain, Header { age: Some(Age { ms: 1, unknown: true }), ..plain }] {
            let len = encode_message(&other, b"", &mut bytes).unwrap();
            assert!(!is_born(&bytes[..len]));
        }
        for ext in [0x20, 0x38] {
            assert_eq!(decode(&[0x49, ext, 5, 1, b'x']), Err(DecodeError::Range), "{ext:x}");
        }
    }

    #[test]
    fn what_came_to_an_age_is_added() {
        let plain = Header::new(Mode::All, Topic::Number(1));
        let aged = Header { age: Some(Age { ms: 7, unknown: true }), ..plain };
        let message = |header| Record::Message { header, payload: b"" };
        let older = Header { age: Some(Age { ms: 12, unknown: true }), ..plain };
        assert_eq!(message(aged).aged(Some(5)), message(older));
        assert_eq!((message(aged).aged(None), message(plain).aged(Some(5))), (message(aged), message(plain)));
    }

    proptest! {
        #[test]
        fn headers_are_as_postcard_writes_them(fields in any_fields()) {
            let header = header(&fields);
            let (mut ours, mut theirs) = ([0; 700], [0; 700]);
            let len = header.encode_into(&mut ours).unwrap();
            prop_assert_eq!(&ours[..len], by_postcard(&fields, &mut theirs));
            prop_assert_eq!(header.len(), len);
        }

        #[test]
        fn messages_come_back(fields in any_fields(), payload: [u8; 20]) {
            let header = header(&fields);
            let mut bytes = [0; 700];
            let len = encode_message(&header, &payload, &mut bytes).unwrap();
            prop_assert_eq!(len, message_len(&header, payload.len()));
            prop_assert_eq!(decode(&bytes[..len]), Ok(Record::Message { header, payload: &payload }));
            prop_assert_eq!(numbers_of(&bytes[..len]), 1);
            prop_assert_eq!(encode_message(&header, &payload, &mut bytes[..len - 1]), None);
            for short in 0..header.len() {
                prop_assert_eq!(decode(&bytes[..short]), Err(DecodeError::Truncated));
            }
        }

        #[test]
        fn gaps_come_back(number in 1..=7_u8, count in 1..=u64::MAX) {
            let reason = GapReason::from_number(number).unwrap();
            prop_assert_eq!(reason as u8, number);
            let mut bytes = [0; GAP_LEN_MAX];
            let len = encode_gap(reason, count, &mut bytes).unwrap();
            prop_assert_eq!(decode(&bytes[..len]), Ok(Record::Gap { reason, count }));
            prop_assert_eq!(numbers_of(&bytes[..len]), count);
            for short in 0..len {
                prop_assert_eq!(decode(&bytes[..short]), Err(DecodeError::Truncated));
            }
        }
    }

    #[test]
    fn first_bytes_that_mean_nothing_are_refused() {
        for first in 0..=u8::MAX {
            let known = first & 0xe0 == 0x40 && (first & 3 != 3 || first == 0x43);
            // Further flags with hops, no text, a topic number or a reason and a count.
            let record = if first & EXT == 0 { [first, 1, 1, 1] } else { [first, EXT_HOPS, 1, 0] };
            let expected = if known { None } else { Some(DecodeError::Unsupported(first)) };
            assert_eq!(decode(&record).err(), expected, "{first:#04x}");
        }
    }

    #[test]
    fn further_flags_are_checked() {
        let with = |ext: u8| decode(&[0x48, ext, 0, 0, 0, 0, 0, 0, 0]).err();
        assert_eq!(with(EXT_ORIGIN | EXT_HOPS | EXT_TTL | EXT_AGE | EXT_AGE_UNKNOWN), None);
        assert_eq!(with(0), Some(DecodeError::Range));
        assert_eq!(with(EXT_AGE_UNKNOWN), Some(DecodeError::Range));
        assert_eq!(with(EXT_BORN), Some(DecodeError::Range));
        assert_eq!(with(0x40), Some(DecodeError::Unsupported(0x40)));
        assert_eq!(decode_split(0x48, 0, &[0]).err(), Some(DecodeError::Unsupported(0x48)));
        assert_eq!(decode_split(0x40, EXT_HOPS, &[0, 0]).err(), Some(DecodeError::Unsupported(0x40)));
        assert_eq!(decode_split(0x48, 0x80, &[0]).err(), Some(DecodeError::Unsupported(0x80)));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert_eq!(
            decode(b"\x40\xff\xff\xff\xff\x0f"),
            Ok(Record::Message { header: Header::new(Mode::One, Topic::Number(u32::MAX)), payload: &[] })
        );
        assert_eq!(decode(b"\x40\x80\x80\x80\x80\x10"), Err(DecodeError::Range));
        assert_eq!(decode(b"\x44\x02\xff\xff"), Err(DecodeError::Text));
        assert_eq!(decode(&[0x43, 10, 1]), Err(DecodeError::Range));
        assert_eq!(decode(&[0x43, 0, 1]), Err(DecodeError::Range));
        assert_eq!(decode(&[0x43, 1, 0]), Err(DecodeError::Range));
        assert_eq!(encode_gap(GapReason::Dropped, 0, &mut [0; GAP_LEN_MAX]), None);
    }

    #[test]
    fn texts_have_a_limit() {
        let long = "x".repeat(TEXT_MAX + 1);
        let mut bytes = [0; 600];
        let header = Header::new(Mode::All, Topic::Text(&long));
        assert_eq!(encode_message(&header, &[], &mut bytes), None);
        let header = Header::new(Mode::All, Topic::Text(&long[1..]));
        let len = encode_message(&header, &[], &mut bytes).unwrap();
        assert!(decode(&bytes[..len]).is_ok());
        // The length's low byte says one more.
        bytes[1..3].copy_from_slice(&[0x80, 0x02]);
        assert_eq!(decode(&bytes[..len + 1]), Err(DecodeError::LimitExceeded));
    }

    #[test]
    fn a_run_is_read_to_its_end() {
        let run = b"\x02ab\x00\x03cde";
        assert!(Run::new(run).eq([Ok(&b"ab"[..]), Ok(b""), Ok(b"cde")]));
        assert_eq!(split_first(run), Some((&b"ab"[..], &run[3..])));
        assert_eq!(split_first(b""), None);
        assert_eq!(split_first(b"\x03ab"), None);
    }

    #[test]
    fn a_run_that_ends_early_says_so_once() {
        for run in [&b"\x02ab\x03c"[..], b"\x02ab\x80"] {
            let mut records = Run::new(run);
            assert_eq!(records.next(), Some(Ok(&b"ab"[..])));
            assert_eq!(records.next(), Some(Err(DecodeError::Truncated)));
            assert_eq!(records.next(), None);
        }
    }

    #[test]
    fn what_is_no_record_covers_one_number() {
        for bytes in [&b""[..], b"\x43", b"\x43\x01", b"\x43\x01\x80", b"\x43\x01\x00", b"\x40\x01\x07"] {
            assert_eq!(numbers_of(bytes), 1, "{bytes:?}");
        }
    }
}
