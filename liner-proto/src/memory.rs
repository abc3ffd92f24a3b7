//! Where the bytes of queued messages live.
//!
//! A ring holds records in wire form, in runs whose numbers follow one another. It knows neither what a record means
//! nor who has had it; delivery keeps cursors into it. On a host a ring is a chain of segments of up to 64 KiB, or of one longer record,
//! that come and go with what is queued; on a device it is one region of fixed size. The same delivery code works on both.

mod region;
#[cfg(feature = "alloc")]
mod segments;

pub use region::Region;
#[cfg(feature = "alloc")]
pub use segments::{SEGMENT_BYTES, Segments};

/// A place between two records: the number of the one that begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The number of the record at the place.
    pub number: u64,
    /// Where in its run the record begins. Meaningless for the first record of a run, which begins where the run does.
    pub offset: u64,
}

/// Bytes of whole records that stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area<'a> {
    /// From the cursor asked for to the end of what is contiguous.
    pub bytes: &'a [u8],
    /// The cursor of the first byte; its offset is the true one.
    pub begin: Cursor,
    /// The number after the last record.
    pub next: u64,
}

/// Records in wire form, in the order of their numbers, possibly with holes between runs.
pub trait Ring {
    /// Appends a record of `len` bytes that covers `count` numbers from `number`, which is at least the number after the last
    /// record; larger leaves a hole. `write` fills the bytes. Says no, and calls nothing, if the ring has no room; with `over`, a ring
    /// that can grow beyond its capacity does.
    fn push(
        &mut self,
        number: u64,
        count: u64,
        len: usize,
        over: bool,
        write: impl FnOnce(&mut [u8]),
    ) -> bool;

    /// Puts back a run of records for `first..=last` that were read from a store, where a hole is. Says no if there is no room;
    /// a ring that can grow beyond its capacity does.
    fn insert(&mut self, first: u64, last: u64, records: &[u8]) -> bool;

    /// The records from `at` to the end of their run; none if the ring does not hold that number.
    fn area(&self, at: Cursor) -> Option<Area<'_>>;

    /// The whole run that holds `number`, from its first record.
    fn run_of(&self, number: u64) -> Option<Area<'_>>;

    /// The lowest number held.
    fn first(&self) -> Option<u64>;

    /// The lowest number held that is not below `number`.
    fn first_from(&self, number: u64) -> Option<u64>;

    /// Where the next record will be appended, if it is to follow the last one.
    fn end(&self) -> Option<Cursor>;

    /// Forgets records up to `through`. A ring may keep some of them until it can forget a whole run; one that cannot
    /// calls `locate` with the run's bytes to learn how many of them belong to those records.
    fn free(&mut self, through: u64, locate: impl FnOnce(&[u8]) -> usize);

    /// Makes room by forgetting a whole run, the highest, of which all is at or above `from` and none above `stored`.
    /// Says whether it did.
    fn evict(&mut self, from: u64, stored: u64) -> bool;

    /// Forgets everything from `at` on.
    fn truncate(&mut self, at: Cursor);

    /// Lowers every number by `less`, up to which nothing is needed any more: the queue begins a new epoch. Offsets change;
    /// `locate` is as for [`free`](Self::free).
    fn renumber(&mut self, less: u64, locate: impl FnOnce(&[u8]) -> usize);

    /// Forgets everything.
    fn clear(&mut self);

    /// Bytes held.
    fn len(&self) -> usize;

    /// Whether nothing is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it holds before it says no. One that can grow beyond that takes a longer record while it is empty.
    fn capacity(&self) -> usize;

    /// The largest record it can hold, with its length.
    fn record_max(&self) -> usize;
}
