//! Records side by side, as a store keeps them: each one its length as a varint, then its bytes.
//!
//! A store looks into a record for one thing only: how many numbers it covers, which is one unless it is a gap. That is
//! enough to begin and to end in the middle of what was stored together.

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
    /// Why there is a gap, if it is no message; 0 if it is one.
    gap: u8,
}

impl Step {
    /// Whether it is a message, not a gap.
    pub const fn is_message(&self) -> bool {
        self.gap == 0
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
        let (len, prefix) = take_varint(rest)?;
        let len = usize::try_from(len).ok()?;
        let record = rest.get(prefix..)?.get(..len)?;
        let (gap, numbers) = numbers_of(record)?;
        let last = self.number.checked_add(numbers - 1)?;
        let step = Step {
            first: self.number,
            last,
            start: self.offset,
            body: self.offset + prefix,
            end: self.offset + prefix + len,
            gap,
        };
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
    let written = if head.first < first {
        put_gap(head.gap, head.last - after, into)
    } else {
        records.get(head.start..head.end).map_or(0, |bytes| put(bytes, into))
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

/// The first byte of a gap record.
const GAP: u8 = 0x43;
/// The bits of a record's first byte that tell its kind.
const KIND: u8 = 0x03;

/// The reason of a gap (0 for a message), and how many numbers the record covers.
fn numbers_of(record: &[u8]) -> Option<(u8, u64)> {
    let (&flags, rest) = record.split_first()?;
    if flags & KIND != GAP & KIND {
        return Some((0, 1));
    }
    let (&reason, rest) = rest.split_first()?;
    let (count, _) = take_varint(rest)?;
    (reason != 0 && count != 0).then_some((reason, count))
}

/// Writes a gap record with its length; says how many bytes that took, none if there is no room.
fn put_gap(reason: u8, count: u64, into: &mut [u8]) -> usize {
    let mut record = heapless::Vec::<u8, 16>::new();
    let mut left = count;
    // A length, two bytes and a varint of at most ten bytes: there is always room.
    let mut push = |byte| record.push(byte).is_ok();
    push(0);
    push(GAP);
    push(reason);
    while left >= 0x80 {
        push(left as u8 | 0x80);
        left >>= 7;
    }
    push(left as u8);
    let len = record.len() as u8 - 1;
    if let Some(prefix) = record.first_mut() {
        *prefix = len;
    }
    put(&record, into)
}

/// A varint's value and length.
#[inline]
fn take_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}
