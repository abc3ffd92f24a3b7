//! One record on a lossy line.

use super::DecodeError;
use super::record::{
    self, EXT, EXT_AGE, EXT_BORN, GapReason, Header, Mode, Record, SENT_BEFORE, Topic, read_ext_flags,
};
use super::text::{Reader, Writer};

/// The most bytes that stand before the rest of a record.
pub const HEAD_LEN_MAX: usize = 8;

/// A record that arrived on a lossy line. It has not been looked at beyond its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// It may have been sent before.
    pub sent_before: bool,
    /// Which frame of the session carries it; 0 if it is a best-effort message.
    pub frame: u16,
    /// Milliseconds to add to its age; there if, and only if, the record says its age.
    pub added_age_ms: Option<u32>,
    /// The record.
    pub record: Parted<'a>,
}

/// The bytes of a record whose flags stand apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parted<'a> {
    first: u8,
    /// Zero if the record has no second byte of flags.
    ext: u8,
    rest: &'a [u8],
}

/// The head and the rest of a frame's body, from [`DataHead::encode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    head: [u8; HEAD_LEN_MAX],
    head_len: usize,
    rest: &'a [u8],
}

/// What a sender says about a record on a lossy line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHead {
    /// It may have been sent before.
    pub sent_before: bool,
    /// Which frame of the session carries it; 0 if it is a best-effort message.
    pub frame: u16,
    /// Milliseconds to add to its age; left out if the record does not say its age.
    pub added_age_ms: u32,
}

/// The number nearest to `near` whose low bits are `low`.
#[inline]
pub const fn widen(low: u32, near: u64) -> u64 {
    const SPAN: u64 = 1 << 32;
    let above = low.wrapping_sub(near as u32) as u64;
    // Half a span and more above is nearer from below, unless there is nothing below.
    let (near_side, far_side) = (near.checked_add(above), near.checked_sub(SPAN - above));
    match (above < SPAN / 2, near_side, far_side) {
        (true, Some(number), _) | (false, _, Some(number)) => number,
        (true, None, _) => near.wrapping_sub(SPAN - above),
        (false, _, None) => near.wrapping_add(above),
    }
}

/// Writes what stands in front of the payload of a device's message.
pub(crate) fn write_message(writer: &mut Writer<'_>, sent_before: bool, frame: u16, topic: Topic<'_>) {
    let first = Header::new(Mode::All, topic).first_byte(0);
    writer.byte(if sent_before { first | SENT_BEFORE } else { first });
    writer.bytes(&frame.to_le_bytes());
    record::write_topic(topic, writer);
}

/// Writes the whole body of a frame that carries a gap.
pub(crate) fn write_gap(writer: &mut Writer<'_>, frame: u16, reason: GapReason, count: u32) {
    writer.byte(record::GAP_FIRST);
    writer.bytes(&frame.to_le_bytes());
    writer.byte(reason as u8);
    writer.varint(u64::from(count));
}

impl DataHead {
    /// The body of a frame that carries `record`, in two parts: nothing of the record's content is copied.
    ///
    /// Nothing if `record` is no record.
    pub fn encode<'a>(&self, record: &'a [u8]) -> Option<Parts<'a>> {
        let (&first, rest) = record.split_first()?;
        let [low, high] = self.frame.to_le_bytes();
        let sent_before = if self.sent_before { SENT_BEFORE } else { 0 };
        let mut head = [first | sent_before, low, high, 0, 0, 0, 0, 0];
        if first & EXT == 0 {
            return Some(Parts { head, head_len: 3, rest });
        }
        let (&ext, rest) = rest.split_first()?;
        let [_, _, _, ext_place, age_place @ ..] = &mut head;
        *ext_place = ext;
        if ext & EXT_AGE == 0 {
            return Some(Parts { head, head_len: 4, rest });
        }
        *age_place = self.added_age_ms.to_le_bytes();
        Some(Parts { head, head_len: 8, rest })
    }
}

impl<'a> Parts<'a> {
    /// Head and rest, in the order in which they are sent.
    #[inline]
    pub fn slices(&self) -> [&[u8]; 2] {
        [self.head.get(..self.head_len).unwrap_or_default(), self.rest]
    }

    /// The bytes of both.
    #[expect(clippy::len_without_is_empty, reason = "there always is a head")]
    pub const fn len(&self) -> usize {
        self.head_len + self.rest.len()
    }
}

impl<'a> Data<'a> {
    /// Reads what follows the first byte of a body.
    pub(super) fn read(first: u8, reader: &mut Reader<'a>) -> Self {
        let frame = reader.fixed16();
        let ext = if first & EXT == 0 { 0 } else { read_ext_flags(reader) };
        if ext & EXT_BORN != 0 {
            reader.fail(DecodeError::Unsupported(ext));
        }
        let added_age_ms = (ext & EXT_AGE != 0).then(|| reader.fixed32());
        let record = Parted { first: first & !SENT_BEFORE, ext, rest: reader.take_rest() };
        Self { sent_before: first & SENT_BEFORE != 0, frame, added_age_ms, record }
    }

    /// Whether it is a message without a number, which no frame but this one carries.
    pub fn is_best_effort(&self) -> bool {
        record::is_best_effort(self.record.first)
    }

    /// The body again, in two parts.
    pub(super) fn parts(&self) -> Parts<'a> {
        let [low, high] = self.frame.to_le_bytes();
        let sent_before = if self.sent_before { SENT_BEFORE } else { 0 };
        let [a, b, c, d] = self.added_age_ms.unwrap_or(0).to_le_bytes();
        let Parted { first, ext, rest } = self.record;
        let head_len = if ext == 0 {
            3
        } else if ext & EXT_AGE == 0 {
            4
        } else {
            8
        };
        Parts { head: [first | sent_before, low, high, ext, a, b, c, d], head_len, rest }
    }
}

impl<'a> Parted<'a> {
    /// What the record says.
    ///
    /// # Errors
    /// If it is no record that this version knows.
    #[inline]
    pub fn decode(&self) -> Result<Record<'a>, DecodeError> {
        record::decode_split(self.first, self.ext, self.rest)
    }

    /// The bytes of the record as it stood in the sender's ring.
    #[expect(clippy::len_without_is_empty, reason = "a record always has a first byte")]
    pub const fn len(&self) -> usize {
        (if self.ext == 0 { 1 } else { 2 }) + self.rest.len()
    }

    /// Writes the record as it stood in the sender's ring to the front of `out`. Returns the bytes written; nothing if
    /// they do not fit.
    pub fn copy_to(&self, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..self.len())?;
        let (head, rest) = out.split_at_mut_checked(self.len() - self.rest.len())?;
        rest.copy_from_slice(self.rest);
        for (place, byte) in head.iter_mut().zip([self.first, self.ext]) {
            *place = byte;
        }
        Some(self.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Epoch, SessionId};
    use crate::wire::record::{Age, Origin, encode_gap, encode_message};
    use crate::wire::{Body, decode, encode};
    use crate::{frame, seal};

    fn assert_carried(record: &[u8], head: DataHead, added_age_ms: Option<u32>) {
        let parts = head.encode(record).unwrap();
        let body = parts.slices().concat();
        assert_eq!(body.len(), parts.len());
        let decoded = decode(&body).unwrap();
        let Body::Data(data) = decoded else { panic!("{decoded:?}") };
        assert_eq!(data.sent_before, head.sent_before);
        assert_eq!(data.frame, head.frame);
        assert_eq!(data.added_age_ms, added_age_ms);
        assert_eq!(data.record.decode(), record::decode(record));
        let mut copy = [0; 200];
        assert_eq!(data.record.copy_to(&mut copy), Some(record.len()));
        assert_eq!(&copy[..record.len()], record);
        assert_eq!(data.record.copy_to(&mut copy[..record.len() - 1]), None);
        assert_eq!(encode(&decoded, &mut copy), Ok(body.len()));
        assert_eq!(&copy[..body.len()], body);
    }

    proptest! {
        #[test]
        fn records_are_carried(sent_before: bool, frame: u16, added_age_ms: u32, origin: bool, hops: Option<u8>, ttl_ms: Option<u32>, age: Option<(u64, bool)>, payload: [u8; 9]) {
            let origin = origin.then_some(Origin { name: "sensor", epoch: Epoch(77), number: 12 });
            let age = age.map(|(ms, unknown)| Age { ms, unknown });
            let header = Header { mode: Mode::All, topic: Topic::Text("t"), repeat: true, origin, hops, ttl_ms, age, born_ms: None };
            let mut record = [0; 100];
            let len = encode_message(&header, &payload, &mut record).unwrap();
            let head = DataHead { sent_before, frame, added_age_ms };
            assert_carried(&record[..len], head, age.map(|_| added_age_ms));
        }
    }

    #[test]
    fn gaps_are_carried() {
        let mut record = [0; 12];
        let len = encode_gap(GapReason::Expired, 300, &mut record).unwrap();
        assert_carried(&record[..len], DataHead { sent_before: true, frame: 65_535, added_age_ms: 9 }, None);
    }

    #[test]
    fn a_device_writes_its_frames_without_a_record() {
        for (topic, sent_before) in [(Topic::Number(300), true), (Topic::Text("air"), false)] {
            let mut record = [0; 20];
            let len = encode_message(&Header::new(Mode::All, topic), b"21", &mut record).unwrap();
            let parts =
                DataHead { sent_before, frame: 0x1234, added_age_ms: 0 }.encode(&record[..len]).unwrap();
            let mut body = [0; 20];
            let mut writer = Writer::new(&mut body);
            write_message(&mut writer, sent_before, 0x1234, topic);
            writer.bytes(b"21");
            let written = writer.done().unwrap();
            assert_eq!(body[..written], parts.slices().concat());
        }
        let mut gap = [0; 12];
        let len = encode_gap(GapReason::Missing, 300, &mut gap).unwrap();
        let parts = DataHead { sent_before: false, frame: 7, added_age_ms: 0 }.encode(&gap[..len]).unwrap();
        let mut body = [0; 20];
        let mut writer = Writer::new(&mut body);
        write_gap(&mut writer, 7, GapReason::Missing, 300);
        let written = writer.done().unwrap();
        assert_eq!(body[..written], parts.slices().concat());
    }

    #[test]
    fn what_is_no_record_is_not_carried() {
        let head = DataHead { sent_before: false, frame: 1, added_age_ms: 0 };
        assert_eq!(head.encode(&[]), None);
        assert_eq!(head.encode(&[0x48]), None);
    }

    #[test]
    fn heads_that_end_early_are_refused() {
        for (body, error) in [
            (&[0x40, 1][..], DecodeError::Truncated),
            (&[0x48, 1, 0], DecodeError::Truncated),
            (&[0x48, 1, 0, EXT_AGE, 0, 0, 0], DecodeError::Truncated),
            (&[0x48, 1, 0, 0], DecodeError::Range),
            (&[0x48, 1, 0, 0x40], DecodeError::Unsupported(0x40)),
            (&[0x48, 1, 0, 0x28, 0, 0, 0, 0, 5, 1], DecodeError::Unsupported(0x28)),
        ] {
            assert_eq!(decode(body), Err(error), "{body:?}");
        }
    }

    #[test]
    fn a_small_message_costs_ten_bytes_on_a_line() {
        let payload = [0x55; 16];
        let mut record = [0; 32];
        let header = Header::new(Mode::All, Topic::Number(127));
        let len = encode_message(&header, &payload, &mut record).unwrap();
        let head = DataHead { sent_before: true, frame: 0xffff, added_age_ms: 0 };
        let parts = head.encode(&record[..len]).unwrap();
        let [head, rest] = parts.slices();
        let seal = seal::seal(SessionId(99), &[head, rest]);
        let mut line = [0; 64];
        let len = frame::cobs::encode(&[&seal, head, rest], &mut line).unwrap();
        assert!(len <= payload.len() + 10, "{len} bytes");
    }

    proptest! {
        #[test]
        fn the_nearest_number_is_found(near: u64, distance in -0x7fff_ffff..=0x7fff_ffff_i64) {
            if let Some(number) = near.checked_add_signed(distance) {
                prop_assert_eq!(widen(number as u32, near), number);
            }
        }

        #[test]
        fn a_widened_number_keeps_its_low_bits(low: u32, near: u64) {
            prop_assert_eq!(widen(low, near) as u32, low);
            prop_assert_eq!(widen(low, near % 100) as u32, low);
            prop_assert_eq!(widen(low, u64::MAX - near % 100) as u32, low);
        }
    }

    #[test]
    fn there_is_nothing_below_zero_nor_above_the_end() {
        assert_eq!(widen(u32::MAX, 3), u64::from(u32::MAX));
        assert_eq!(widen(u32::MAX, 0x1_0000_0003), u64::from(u32::MAX));
        assert_eq!(widen(2, u64::MAX), u64::MAX - 0xffff_fffd);
    }
}
