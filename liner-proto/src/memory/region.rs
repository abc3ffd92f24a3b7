//! A ring of a device: one region of fixed size, kept dense by moving what remains to its front.

use super::{Area, Cursor, Ring};

/// At most two runs with one hole between them: what is being sent, and what is being stored.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u64,
    next: u64,
    len: usize,
    /// What an offset of 0 in the run is called: bytes freed from its front since it began.
    base: u64,
}

/// Records in a region of `BYTES` bytes.
#[derive(Debug)]
pub struct Region<const BYTES: usize> {
    bytes: [u8; BYTES],
    head: Run,
    tail: Run,
}

impl<const BYTES: usize> Region<BYTES> {
    /// An empty region, all zero, so that a `static` of it takes no flash.
    pub const fn new() -> Self {
        const EMPTY: Run = Run { first: 0, next: 0, len: 0, base: 0 };
        Self { bytes: [0; BYTES], head: EMPTY, tail: EMPTY }
    }

    fn slice(&self, begin: usize, len: usize) -> &[u8] {
        self.bytes.get(begin..begin + len).unwrap_or_default()
    }

    /// The run that holds `number`, with the index of its first byte.
    fn find(&self, number: u64) -> Option<(&Run, usize)> {
        let holds = |run: &Run| run.len > 0 && run.first <= number && number < run.next;
        if holds(&self.head) {
            return Some((&self.head, 0));
        }
        holds(&self.tail).then_some((&self.tail, self.head.len))
    }
}

impl<const BYTES: usize> Default for Region<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize> Ring for Region<BYTES> {
    fn push(
        &mut self,
        number: u64,
        count: u64,
        len: usize,
        _over: bool,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let used = self.len();
        if len > BYTES - used {
            return false;
        }
        let run = if self.head.len == 0 || (self.tail.len == 0 && self.head.next == number) {
            &mut self.head
        } else {
            if self.tail.len > 0 && self.tail.next != number {
                return false;
            }
            &mut self.tail
        };
        if run.len == 0 {
            *run = Run { first: number, next: number, len: 0, base: 0 };
        }
        run.len += len;
        run.next = number + count;
        write(self.bytes.get_mut(used..used + len).unwrap_or_default());
        true
    }

    fn insert(&mut self, first: u64, last: u64, records: &[u8]) -> bool {
        if records.len() > BYTES - self.len() {
            return false;
        }
        if self.head.len > 0 && self.head.next != first {
            if self.tail.len > 0 || self.head.first <= last {
                return false;
            }
            self.tail = core::mem::take(&mut self.head);
        }
        let begin = self.head.len;
        let end = self.len();
        self.bytes.copy_within(begin..end, begin + records.len());
        if let Some(room) = self.bytes.get_mut(begin..begin + records.len()) {
            room.copy_from_slice(records);
        }
        if self.head.len == 0 {
            self.head = Run { first, next: first, len: 0, base: 0 };
        }
        self.head.len += records.len();
        self.head.next = last + 1;
        true
    }

    fn area(&self, at: Cursor) -> Option<Area<'_>> {
        let (run, begin) = self.find(at.number)?;
        let offset = if at.number == run.first { run.base } else { at.offset };
        let skip = usize::try_from(offset.checked_sub(run.base)?).ok()?;
        let bytes = self.slice(begin + skip, run.len.checked_sub(skip)?);
        Some(Area { bytes, begin: Cursor { number: at.number, offset }, next: run.next })
    }

    fn run_of(&self, number: u64) -> Option<Area<'_>> {
        let (run, begin) = self.find(number)?;
        let at = Cursor { number: run.first, offset: run.base };
        Some(Area { bytes: self.slice(begin, run.len), begin: at, next: run.next })
    }

    fn first(&self) -> Option<u64> {
        (self.head.len > 0).then_some(self.head.first)
    }

    fn first_from(&self, number: u64) -> Option<u64> {
        [self.head, self.tail]
            .iter()
            .find(|run| run.len > 0 && run.next > number)
            .map(|run| run.first.max(number))
    }

    fn end(&self) -> Option<Cursor> {
        let run = if self.tail.len > 0 { &self.tail } else { &self.head };
        (run.len > 0).then_some(Cursor { number: run.next, offset: run.base + run.len as u64 })
    }

    fn free(&mut self, through: u64, locate: impl FnOnce(&[u8]) -> usize) {
        if self.head.len == 0 || self.head.first > through {
            return;
        }
        let cut = if self.head.next <= through.saturating_add(1) {
            self.head.len
        } else {
            locate(self.slice(0, self.head.len)).min(self.head.len)
        };
        let end = self.len();
        self.bytes.copy_within(cut..end, 0);
        self.head.len -= cut;
        self.head.base += cut as u64;
        self.head.first = through + 1;
        if self.head.len == 0 {
            self.head = core::mem::take(&mut self.tail);
        }
    }

    fn evict(&mut self, from: u64, stored: u64) -> bool {
        // The tail goes whole once it is stored; the head is what is on its way.
        let evictable = |run: &Run| run.len > 0 && run.next <= stored.saturating_add(1) && run.first >= from;
        if evictable(&self.tail) {
            self.tail = Run::default();
            return true;
        }
        if self.tail.len == 0 && evictable(&self.head) {
            self.head = Run::default();
            return true;
        }
        false
    }

    fn truncate(&mut self, at: Cursor) {
        for run in [&mut self.tail, &mut self.head] {
            if run.len == 0 || run.next <= at.number {
                continue;
            }
            if run.first >= at.number {
                *run = Run::default();
                continue;
            }
            run.len = usize::try_from(at.offset.saturating_sub(run.base)).unwrap_or(0).min(run.len);
            run.next = at.number;
        }
        if self.head.len == 0 {
            self.head = core::mem::take(&mut self.tail);
        }
    }

    fn renumber(&mut self, less: u64, locate: impl FnOnce(&[u8]) -> usize) {
        self.free(less, locate);
        for run in [&mut self.head, &mut self.tail] {
            run.first = run.first.saturating_sub(less);
            run.next = run.next.saturating_sub(less);
        }
    }

    fn clear(&mut self) {
        self.head = Run::default();
        self.tail = Run::default();
    }

    fn len(&self) -> usize {
        self.head.len + self.tail.len
    }

    fn capacity(&self) -> usize {
        BYTES
    }

    fn record_max(&self) -> usize {
        BYTES
    }
}
