//! A ring of a host: a chain of segments that are taken when bytes are pending and given back when they are not.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Area, Cursor, Ring};

/// The largest segment of several records. A record that is longer has one of its own, which is there for as long as it is.
pub const SEGMENT_BYTES: usize = 64 * 1024;

/// The first segment of an empty chain: a lone message does not cost 64 KiB.
const SEGMENT_BYTES_MIN: usize = 2 * 1024;

/// Records of numbers `first..next`, whole, one after another.
#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    first: u64,
    next: u64,
    /// Bytes it was made for. A segment never grows beyond them, so that writing to it moves nothing.
    size: usize,
}

/// A chain of segments in the order of their numbers.
#[derive(Debug)]
pub struct Segments {
    chain: VecDeque<Segment>,
    len: usize,
    capacity: usize,
}

impl Segments {
    /// An empty ring that says no above `capacity` bytes, but for a single record. It takes no memory while it is empty.
    pub const fn new(capacity: usize) -> Self {
        Self { chain: VecDeque::new(), len: 0, capacity }
    }

    fn append(&mut self, number: u64, count: u64, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        let fits =
            self.chain.back().is_some_and(|last| last.next == number && last.bytes.len() + len <= last.size);
        if !fits {
            let size = self.chain.back().map_or(SEGMENT_BYTES_MIN, |last| last.size * 2);
            let size = size.clamp(len, SEGMENT_BYTES.max(len));
            self.chain.push_back(Segment {
                bytes: Vec::with_capacity(size),
                first: number,
                next: number,
                size,
            });
        }
        let Some(last) = self.chain.back_mut() else { return false };
        let begin = last.bytes.len();
        last.bytes.resize(begin + len, 0);
        write(last.bytes.get_mut(begin..).unwrap_or_default());
        last.next = number + count;
        self.len += len;
        true
    }

    /// Index of the segment that holds `number`.
    fn index_of(&self, number: u64) -> Option<usize> {
        let index = self.chain.partition_point(|segment| segment.next <= number);
        (self.chain.get(index)?.first <= number).then_some(index)
    }
}

impl Ring for Segments {
    #[inline]
    fn push(
        &mut self,
        number: u64,
        count: u64,
        len: usize,
        over: bool,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        (over || self.chain.is_empty() || self.len + len <= self.capacity)
            && self.append(number, count, len, write)
    }

    fn insert(&mut self, first: u64, last: u64, records: &[u8]) -> bool {
        let index = self.chain.partition_point(|segment| segment.first < first);
        let segment = Segment {
            bytes: records.to_vec(),
            first,
            next: last + 1,
            // Closed: what is appended later starts a segment of its own.
            size: records.len(),
        };
        self.chain.insert(index, segment);
        self.len += records.len();
        true
    }

    fn area(&self, at: Cursor) -> Option<Area<'_>> {
        let segment = self.chain.get(self.index_of(at.number)?)?;
        let offset = if at.number == segment.first { 0 } else { at.offset };
        let bytes = segment.bytes.get(usize::try_from(offset).ok()?..)?;
        Some(Area { bytes, begin: Cursor { number: at.number, offset }, next: segment.next })
    }

    fn run_of(&self, number: u64) -> Option<Area<'_>> {
        let segment = self.chain.get(self.index_of(number)?)?;
        let begin = Cursor { number: segment.first, offset: 0 };
        Some(Area { bytes: &segment.bytes, begin, next: segment.next })
    }

    fn first(&self) -> Option<u64> {
        self.chain.front().map(|segment| segment.first)
    }

    fn first_from(&self, number: u64) -> Option<u64> {
        let index = self.chain.partition_point(|segment| segment.next <= number);
        self.chain.get(index).map(|segment| segment.first.max(number))
    }

    fn end(&self) -> Option<Cursor> {
        let last = self.chain.back()?;
        Some(Cursor { number: last.next, offset: last.bytes.len() as u64 })
    }

    fn free(&mut self, through: u64, _locate: impl FnOnce(&[u8]) -> usize) {
        while let Some(front) = self.chain.front() {
            if front.next > through.saturating_add(1) {
                break;
            }
            self.len -= front.bytes.len();
            self.chain.pop_front();
        }
    }

    fn evict(&mut self, from: u64, stored: u64) -> bool {
        // The highest segment that is stored whole; what is above it still has to be written.
        let above = self.chain.partition_point(|segment| segment.next <= stored.saturating_add(1));
        let Some(index) = above.checked_sub(1) else { return false };
        if self.chain.get(index).is_none_or(|segment| segment.first < from) {
            return false;
        }
        if let Some(segment) = self.chain.remove(index) {
            self.len -= segment.bytes.len();
        }
        true
    }

    fn truncate(&mut self, at: Cursor) {
        while let Some(last) = self.chain.back_mut() {
            if last.first < at.number {
                let keep = if last.next <= at.number { last.bytes.len() } else { at.offset as usize };
                self.len -= last.bytes.len().saturating_sub(keep);
                last.bytes.truncate(keep);
                last.next = last.next.min(at.number);
                return;
            }
            self.len -= last.bytes.len();
            self.chain.pop_back();
        }
    }

    fn renumber(&mut self, less: u64, locate: impl FnOnce(&[u8]) -> usize) {
        self.free(less, |_| 0);
        if let Some(front) = self.chain.front_mut()
            && front.first <= less
        {
            // A number below 1 has no name: what is not needed of the segment goes.
            let cut = locate(&front.bytes).min(front.bytes.len());
            front.bytes.drain(..cut);
            front.first = less + 1;
            self.len -= cut;
        }
        for segment in &mut self.chain {
            segment.first = segment.first.saturating_sub(less);
            segment.next = segment.next.saturating_sub(less);
        }
    }

    fn clear(&mut self) {
        self.chain = VecDeque::new();
        self.len = 0;
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn record_max(&self) -> usize {
        // Whoever queues a record bounds it. One that is longer than the capacity is held alone.
        usize::MAX
    }
}
