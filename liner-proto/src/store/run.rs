//! Records side by side, as a store keeps them: each one its length as a varint, then its bytes.
//!
//! A store looks into a record for one thing only: how many numbers it covers, which is one unless it is a gap. That is
//! enough to begin and to end in the middle of what was stored together.

use crate::wire::record::{GAP_LEN_MAX, GapReason, Record, decode, encode_gap, split_first};

/// One record of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The first number it covers.
    pub first: u64,
    /// The last number it covers.
    pub last: u64,
    /// Where its length begins.
    pub start: usize,
    /// Where its bytes begin. `start < body < end`.
    pub body: usize,
    /// Where it ends.
    pub end: usize,
    /// Why there is a gap, if it is no message.
    pub gap: Option<GapReason>,
}

impl Step {
    /// Whether it is a message, not a gap.
    pub const fn is_message(&self) -> bool {
        self.gap.is_none()
    }
}

/// What can be said of a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Numbers covered.
    pub numbers: u64,
    /// Records that are messages.
    pub messages: u64,
}

/// Goes over a run record by record. Ends at the first one that is malformed; [`Walk::is_whole`] tells.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    records: &'a [u8],
    /// `offset <= records.len()`.
    offset: usize,
    number: u64,
}

impl<'a> Walk<'a> {
    /// A walk over `records`, of which the first one has the number `first`.
    pub const fn new(records: &'a [u8], first: u64) -> Self {
        Self { records, offset: 0, number: first }
    }

    /// The same, beginning at `offset`, where a record with the number `first` begins.
    pub const fn starting_at(records: &'a [u8], offset: usize, first: u64) -> Self {
        Self { records, offset, number: first }
    }

    /// Whether it has come to the end of the run, with nothing left that is no record.
    pub const fn is_whole(&self) -> bool {
        self.offset == self.records.len()
    }

    /// Where the next record begins, or the malformed one.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The number of the next record.
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        let rest = self.records.get(self.offset..)?;
        let (record, behind) = split_first(rest)?;
        let (gap, numbers) = covers(record)?;
        let last = self.number.checked_add(numbers - 1)?;
        let end = self.offset + (rest.len() - behind.len());
        let body = end - record.len();
        let step = Step { first: self.number, last, start: self.offset, body, end, gap };
        self.number = last.checked_add(1)?;
        self.offset = step.end;
        Some(step)
    }
}

/// Counts a run; nothing if it is empty or not made of whole records.
pub fn measure(records: &[u8]) -> Option<Measure> {
    let mut walk = Walk::new(records, 0);
    let mut messages = 0;
    for step in &mut walk {
        messages += u64::from(step.is_message());
    }
    (walk.is_whole() && !records.is_empty()).then_some(Measure { numbers: walk.number, messages })
}

/// What [`copy_above`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Whole records for `first..=last` are at the front of the buffer.
    Records {
        /// Number of the first record.
        first: u64,
        /// Number of the last record.
        last: u64,
        /// Bytes written.
        len: usize,
    },
    /// The run has nothing above the number asked for.
    Nothing,
    /// The next record does not fit.
    TooSmall {
        /// Bytes needed.
        needed: usize,
    },
    /// What should be the next record is none.
    Malformed,
}

/// Copies records with numbers above `after`, as many as fit. A gap that begins below is shortened to what is above, so
/// that the first number copied always follows `after` if the run holds that number.
pub fn copy_above(mut walk: Walk<'_>, after: u64, into: &mut [u8]) -> Copied {
    let records = walk.records;
    let Some(head) = walk.find(|step| step.last > after) else {
        return if walk.is_whole() { Copied::Nothing } else { Copied::Malformed };
    };
    let first = head.first.max(after.saturating_add(1));
    let written = match head.gap {
        Some(reason) if head.first < first => put_gap(reason, head.last - after, into),
        _ => records.get(head.start..head.end).map_or(0, |bytes| put(bytes, into)),
    };
    if written == 0 {
        // A shortened gap needs no more than the whole one does.
        return Copied::TooSmall { needed: head.end - head.start };
    }
    let room = into.len() - written;
    let (mut last, mut end) = (head.last, head.end);
    for step in walk {
        if step.end - head.end > room {
            break;
        }
        (last, end) = (step.last, step.end);
    }
    let more = records.get(head.end..end).unwrap_or_default();
    let len = written + into.get_mut(written..).map_or(0, |rest| put(more, rest));
    Copied::Records { first, last, len }
}

/// Copies `bytes` to the front of `into`; says how many were, which is all of them or none.
fn put(bytes: &[u8], into: &mut [u8]) -> usize {
    let Some(room) = into.get_mut(..bytes.len()) else { return 0 };
    room.copy_from_slice(bytes);
    bytes.len()
}

/// The bits of a record's first byte that tell its kind, and the kind that is a gap.
const KIND_GAP: u8 = 0b11;

/// Why the record is a gap, if it is one, and how many numbers it covers; nothing if it is malformed.
#[inline]
fn covers(record: &[u8]) -> Option<(Option<GapReason>, u64)> {
    if *record.first()? & KIND_GAP != KIND_GAP {
        return Some((None, 1));
    }
    match decode(record).ok()? {
        Record::Gap { reason, count } => Some((Some(reason), count)),
        Record::Message { .. } => None,
    }
}

/// Writes a gap record with its length; says how many bytes that took, none if there is no room.
fn put_gap(reason: GapReason, count: u64, into: &mut [u8]) -> usize {
    let mut record = [0; 1 + GAP_LEN_MAX];
    let Some((prefix, body)) = record.split_first_mut() else { return 0 };
    let Some(len) = encode_gap(reason, count, body) else { return 0 };
    // A gap record is so short that its length takes one byte.
    *prefix = len as u8;
    record.get(..1 + len).map_or(0, |record| put(record, into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Whatever the bytes are: no panic, and what is copied is a run again.
    #[test]
    fn any_bytes_are_walked_over() {
        let mut rng = Rng::new([1, 2]);
        let (mut whole, mut copied) = (0, 0);
        for _ in 0..20_000 {
            let len = rng.below(24);
            // Small numbers make lengths that fit, and the bytes of gaps.
            let mut bytes = [0; 24];
            let bytes = &mut bytes[..len as usize];
            for byte in &mut *bytes {
                *byte = [rng.below(5) as u8, 0x43, 0x40, rng.below(256) as u8][rng.below(4) as usize];
            }
            whole += u64::from(measure(bytes).is_some());
            let first = [1, 1000, u64::MAX - 3][rng.below(3) as usize];
            let after = first.saturating_add(rng.below(6)).wrapping_sub(rng.below(3));
            let mut into = [0; 16];
            let room = rng.below(17) as usize;
            if let Copied::Records { first: from, last, len } =
                copy_above(Walk::new(bytes, first), after, &mut into[..room])
            {
                assert!(from > after && last >= from && len <= room);
                assert_eq!(measure(&into[..len]).map(|measure| measure.numbers), Some(last - from + 1));
                copied += 1;
            }
        }
        assert!(whole > 100 && copied > 100, "{whole}, {copied}");
    }

    #[test]
    fn a_gap_is_shortened_whatever_its_size() {
        for count in [2, 127, 128, 16_384, 1 << 40, u64::MAX - 1] {
            let mut run = [0; 16];
            let len = put_gap(GapReason::Crashed, count, &mut run);
            for left in [1, count / 2, count] {
                let mut into = [0; 16];
                let copied = copy_above(Walk::new(&run[..len], 1), count - left, &mut into);
                let Copied::Records { first, last, len } = copied else { panic!("{count}: {copied:?}") };
                assert_eq!((first, last), (count - left + 1, count));
                let step = Walk::new(&into[..len], first).next();
                assert_eq!(step.and_then(|step| step.gap), Some(GapReason::Crashed));
                assert_eq!(measure(&into[..len]), Some(Measure { numbers: left, messages: 0 }));
            }
        }
    }
}
