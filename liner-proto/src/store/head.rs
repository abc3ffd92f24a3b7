//! What every store keeps of a queue, and how requests change it: the numbers, without the records.

use crate::effect::{GapReason, Queue, RecoveredQueue, StoreFault};
use crate::id::{Epoch, Predecessor};

/// The numbers of one queue.
///
/// Every method that fails leaves it as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch before it, if it was rotated.
    pub predecessor: Option<Predecessor>,
    /// The last number that was trimmed.
    pub trimmed: u64,
    /// The last number that was dropped by policy and is not yet trimmed, with the reason. Above `trimmed`.
    pub dropped: Option<(u64, GapReason)>,
    /// The last number that is stored, or was. `trimmed <= last`, `dropped <= last`.
    pub last: u64,
    /// The last number that was reserved.
    pub reserved: u64,
}

impl Head {
    /// An empty queue.
    pub const fn new(epoch: Epoch) -> Self {
        Self { epoch, predecessor: None, trimmed: 0, dropped: None, last: 0, reserved: 0 }
    }

    /// The last number of which no record is kept any more.
    pub fn floor(&self) -> u64 {
        self.dropped.map_or(self.trimmed, |(through, _)| through.max(self.trimmed))
    }

    /// Takes another epoch for the same numbers.
    pub fn reopen(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.predecessor = None;
        }
    }

    /// Forgets what is below the predecessor's `old_first`, and shifts every number. Says by how much: what was `n`
    /// is `n + shift`, in wrapping arithmetic.
    ///
    /// # Errors
    /// `Refused` if a number would leave the range that numbers have.
    pub fn rotate(&mut self, epoch: Epoch, predecessor: Predecessor) -> Result<u64, StoreFault> {
        let old_first = predecessor.old_first;
        if old_first == 0 {
            return Err(StoreFault::Refused);
        }
        let mut head = *self;
        head.trim(old_first - 1);
        // Nothing but the reservation may be below `old_first` now.
        let shift = 1_u64.wrapping_sub(old_first);
        head.trimmed = head.trimmed.wrapping_add(shift);
        head.dropped = head.dropped.map(|(through, reason)| (through.wrapping_add(shift), reason));
        head.last = head.last.wrapping_add(shift);
        head.reserved = if head.reserved < old_first { 0 } else { head.reserved.wrapping_add(shift) };
        head.epoch = epoch;
        head.predecessor = Some(predecessor);
        *self = head;
        Ok(shift)
    }

    /// Reserves numbers. Never lowers an earlier reservation.
    pub fn reserve(&mut self, through: u64) {
        self.reserved = self.reserved.max(through);
    }

    /// Takes the numbers `first..=last` for a run of records that covers `numbers`.
    ///
    /// # Errors
    /// `Refused` if `first` is not the next number, or the run covers another number of them.
    pub fn append(&mut self, first: u64, last: u64, numbers: u64) -> Result<(), StoreFault> {
        let next = self.last.checked_add(1).ok_or(StoreFault::Refused)?;
        let covered = last.checked_sub(first).and_then(|more| more.checked_add(1));
        if first != next || covered != Some(numbers) {
            return Err(StoreFault::Refused);
        }
        self.last = last;
        Ok(())
    }

    /// Forgets numbers up to `through`. Says whether that changed anything.
    pub fn trim(&mut self, through: u64) -> bool {
        if through <= self.trimmed {
            return false;
        }
        self.trimmed = through;
        self.last = self.last.max(through);
        self.dropped = self.dropped.filter(|&(dropped, _)| dropped > through);
        true
    }

    /// Drops numbers up to `through`. Says whether that changed anything.
    ///
    /// # Errors
    /// `Refused` above the last number.
    pub fn drop_through(&mut self, through: u64, reason: GapReason) -> Result<bool, StoreFault> {
        if through > self.last {
            return Err(StoreFault::Refused);
        }
        if through <= self.floor() {
            return Ok(false);
        }
        self.dropped = Some((through, reason));
        Ok(true)
    }

    /// What a store tells of the queue when it is opened.
    pub fn recovered<'a>(&self, queue: Queue<'a>, messages: u64, bytes: u64) -> RecoveredQueue<'a> {
        RecoveredQueue {
            queue,
            epoch: self.epoch,
            predecessor: self.predecessor,
            trimmed: self.trimmed,
            dropped: self.dropped,
            last: self.last,
            reserved: self.reserved,
            messages,
            bytes,
        }
    }
}
