//! Batches: what one write of a reliable link takes, numbered as a whole.

use super::record::{self, Record, Run};
use super::text::{Reader, Writer};
use super::{BufferFull, DecodeError, NUMBER_MAX, tag};

const SENT_BEFORE: u8 = 1 << 0;
const ADDED_AGE: u8 = 1 << 1;

/// What stands before the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The messages may have been sent before.
    pub sent_before: bool,
    /// Number of the first record.
    pub first: u64,
    /// Last number of the last record. `1 <= first <= last`.
    pub last: u64,
    /// Milliseconds to add to the age of every record that says its age.
    pub added_age_ms: Option<u64>,
}

/// Messages that a batch holds at most. A receiver that commits after each frame repeats no more than that.
pub const NUMBERS_MAX: u64 = 512;

impl BatchHead {
    /// The most bytes that a head takes, its tag included.
    pub const LEN_MAX: usize = 32;

    /// Writes tag and head to the front of `out`; the records follow as they stand in the ring. Returns the bytes written.
    ///
    /// # Errors
    /// If `out` is too small.
    #[inline]
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferFull> {
        let mut writer = Writer::new(out);
        self.write(&mut writer);
        writer.done().ok_or(BufferFull)
    }

    #[inline]
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        let age = if self.added_age_ms.is_some() { ADDED_AGE } else { 0 };
        writer.byte(tag::BATCH);
        writer.byte(age | if self.sent_before { SENT_BEFORE } else { 0 });
        writer.varint(self.first);
        writer.varint(self.last);
        if let Some(ms) = self.added_age_ms {
            writer.varint(ms);
        }
    }
}

/// A batch that arrived. Its records have not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// What stands before the records.
    pub head: BatchHead,
    /// The records, each behind its length, to the end of the frame.
    pub run: &'a [u8],
}

/// A record of a batch, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    /// Its number, the first one of a gap.
    pub first: u64,
    /// The last number it covers.
    pub last: u64,
    /// What it says.
    pub record: Record<'a>,
    /// Its bytes, without the length.
    pub bytes: &'a [u8],
    /// The bytes it took in the batch, with the length.
    pub taken: usize,
}

impl<'a> Batch<'a> {
    /// The records with their numbers. What stands behind the last number is not looked at.
    #[inline]
    pub const fn records(&self) -> Records<'a> {
        Records {
            run: Run::new(self.run),
            next: self.head.first,
            last: self.head.last,
            messages_left: NUMBERS_MAX,
        }
    }

    /// Reads a batch behind its tag.
    pub(super) fn read(reader: &mut Reader<'a>) -> Self {
        let flags = reader.byte();
        if flags & !(SENT_BEFORE | ADDED_AGE) != 0 {
            reader.fail(DecodeError::Unsupported(flags));
        }
        let (first, last) = (reader.varint(), reader.varint());
        reader.check(1 <= first && first <= last && last <= NUMBER_MAX);
        let added_age_ms = (flags & ADDED_AGE != 0).then(|| reader.varint());
        let head = BatchHead { sent_before: flags & SENT_BEFORE != 0, first, last, added_age_ms };
        Self { head, run: reader.take_rest() }
    }
}

/// The records of a batch, from [`Batch::records`].
///
/// They cover the numbers of the batch's head exactly, or the last item is an error: [`DecodeError::Mismatch`] if the records
/// end before the numbers do, or a gap reaches beyond them, [`DecodeError::LimitExceeded`] if there are more than
/// [`NUMBERS_MAX`] messages. What was read before an error was whole.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    run: Run<'a>,
    /// `next <= last + 1`; above `last` when all is read.
    next: u64,
    last: u64,
    messages_left: u64,
}

impl<'a> Records<'a> {
    #[inline]
    fn read(&mut self) -> Result<Numbered<'a>, DecodeError> {
        let before = self.run.rest().len();
        let bytes = self.run.next().ok_or(DecodeError::Mismatch)??;
        let record = record::decode(bytes)?;
        if let Record::Message { header: record::Header { born_ms: Some(_), .. }, .. } = record {
            // The sender's clock means nothing here.
            return Err(DecodeError::Range);
        }
        let first = self.next;
        let last = match record {
            Record::Message { .. } => {
                self.messages_left = self.messages_left.checked_sub(1).ok_or(DecodeError::LimitExceeded)?;
                first
            }
            Record::Gap { count, .. } => first.checked_add(count - 1).ok_or(DecodeError::Mismatch)?,
        };
        if last > self.last {
            return Err(DecodeError::Mismatch);
        }
        Ok(Numbered { first, last, record, bytes, taken: before - self.run.rest().len() })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Numbered<'a>, DecodeError>;

    /// The next record. After an error there is nothing more.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.last {
            return None;
        }
        let item = self.read();
        self.next = item.map_or(self.last, |numbered| numbered.last) + 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::record::{GapReason, Header, Mode, Topic};
    use crate::wire::{Body, decode, encode};

    fn batch(first: u64, last: u64, run: &[u8]) -> Batch<'_> {
        Batch { head: BatchHead { sent_before: false, first, last, added_age_ms: None }, run }
    }

    proptest! {
        #[test]
        fn heads_come_back(sent_before: bool, first in 1..=NUMBER_MAX, more: u32, added_age_ms: Option<u64>, run: [u8; 5]) {
            let last = first.saturating_add(u64::from(more)).min(NUMBER_MAX);
            let body = Body::Batch(Batch { head: BatchHead { sent_before, first, last, added_age_ms }, run: &run });
            let mut bytes = [0; BatchHead::LEN_MAX + 5];
            let len = encode(&body, &mut bytes).unwrap();
            prop_assert_eq!(decode(&bytes[..len]), Ok(body));
            prop_assert_eq!(encode(&body, &mut bytes[..len - 1]), Err(BufferFull));
        }
    }

    #[test]
    fn records_have_their_numbers() {
        let run = b"\x03\x40\x07a\x03\x43\x02\x05\x02\x41\x07trailing";
        let batch = batch(10, 16, run);
        let mut records = batch.records();
        let one = Header::new(Mode::One, Topic::Number(7));
        assert_eq!(
            records.next(),
            Some(Ok(Numbered {
                first: 10,
                last: 10,
                record: Record::Message { header: one, payload: b"a" },
                bytes: b"\x40\x07a",
                taken: 4,
            }))
        );
        assert_eq!(
            records.next(),
            Some(Ok(Numbered {
                first: 11,
                last: 15,
                record: Record::Gap { reason: GapReason::Crashed, count: 5 },
                bytes: b"\x43\x02\x05",
                taken: 4,
            }))
        );
        let last = records.next().unwrap().unwrap();
        assert_eq!((last.first, last.last, last.taken), (16, 16, 3));
        assert_eq!(records.next(), None);
    }

    /// What went wrong at the end, after how many good records.
    fn fault(first: u64, last: u64, run: &[u8]) -> (usize, Option<DecodeError>) {
        let mut records = batch(first, last, run).records();
        let good = records.by_ref().take_while(Result::is_ok).count();
        // The iterator has given its error to `take_while`; nothing may follow it.
        assert_eq!(records.next(), None);
        let error = batch(first, last, run).records().find_map(Result::err);
        (good, error)
    }

    #[test]
    fn numbers_are_covered_exactly() {
        let run = b"\x02\x40\x07\x03\x43\x02\x05";
        assert_eq!(fault(1, 6, run), (2, None));
        assert_eq!(fault(1, 5, run), (1, Some(DecodeError::Mismatch)));
        assert_eq!(fault(1, 7, run), (2, Some(DecodeError::Mismatch)));
        assert_eq!(fault(1, 1, b""), (0, Some(DecodeError::Mismatch)));
        assert_eq!(fault(1, 2, b"\x02\x40\x07\x02\x40"), (1, Some(DecodeError::Truncated)));
        assert_eq!(fault(1, 1, b"\x02\x20\x07"), (0, Some(DecodeError::Unsupported(0x20))));
    }

    #[test]
    fn messages_have_a_limit_and_gaps_have_none() {
        let (message, gap) = (b"\x02\x40\x07", b"\x03\x43\x02\x05");
        let most = [&message.repeat(256)[..], gap, &message.repeat(256), gap].concat();
        assert_eq!(fault(1, 522, &most), (514, None));
        let more = [&most[..], message].concat();
        assert_eq!(fault(1, 523, &more), (514, Some(DecodeError::LimitExceeded)));
    }

    #[test]
    fn a_gap_without_end_does_not_overflow() {
        let run = b"\x0c\x43\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(fault(NUMBER_MAX, NUMBER_MAX, run), (0, Some(DecodeError::Mismatch)));
        assert_eq!(fault(2, NUMBER_MAX, run), (0, Some(DecodeError::Mismatch)));
    }

    #[test]
    fn heads_that_make_no_sense_are_refused() {
        let refused = |first: u64, last: u64| {
            let mut bytes = [0; BatchHead::LEN_MAX];
            let len = batch(first, last, &[]).head.encode(&mut bytes).unwrap();
            decode(&bytes[..len]).err()
        };
        assert_eq!(refused(1, 1), None);
        assert_eq!(refused(NUMBER_MAX, NUMBER_MAX), None);
        assert_eq!(refused(0, 1), Some(DecodeError::Range));
        assert_eq!(refused(2, 1), Some(DecodeError::Range));
        assert_eq!(refused(1, NUMBER_MAX + 1), Some(DecodeError::Range));
        assert_eq!(decode(&[tag::BATCH, 4, 1, 1]), Err(DecodeError::Unsupported(4)));
        assert_eq!(decode(&[tag::BATCH, ADDED_AGE, 1, 1]), Err(DecodeError::Truncated));
    }
}
