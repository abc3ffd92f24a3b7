//! The numbers of a queue, and whether a whole group of requests fits them.

use liner_proto::effect::{GapReason, Queue, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::head::Head;
use liner_proto::store::run::measure;

/// The highest number that the database can keep.
const NUMBER_MAX: u64 = i64::MAX.cast_unsigned();

/// The numbers of a queue, with what leads from them to those of its segments.
///
/// Segments keep the numbers and the epoch that they were stored with; a rotation changes the queue's row only. Every method
/// that fails leaves the numbers as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The numbers as the node has them.
    pub head: Head,
    /// The present number of a record is the one in its segment plus this, in wrapping arithmetic.
    pub shift: u64,
}

impl Numbers {
    /// Those of an empty queue.
    pub const fn new(epoch: Epoch) -> Self {
        Self { head: Head::new(epoch), shift: 0 }
    }

    /// Whether they can be those of a queue.
    pub fn are_sound(&self) -> bool {
        let Head { last, reserved, .. } = self.head;
        let stored = [self.head.floor(), last].into_iter().all(|number| self.stored(number).is_ok());
        last <= NUMBER_MAX && reserved <= NUMBER_MAX && self.head.floor() <= last && stored
    }

    /// The number that a segment has for `number`.
    ///
    /// # Errors
    /// `Refused` if the database has no such number.
    pub fn stored(&self, number: u64) -> Result<i64, StoreFault> {
        column(number.wrapping_sub(self.shift))
    }

    /// Takes the numbers of a run that covers so many; gives those of the segment.
    pub fn append(&mut self, first: u64, last: u64, numbers: u64) -> Result<(i64, i64), StoreFault> {
        self.change(|it| it.head.append(first, last, numbers))?;
        Ok((self.stored(first)?, self.stored(last)?))
    }

    /// Forgets numbers; gives the last one that no segment needs any more, if that changed anything.
    pub fn trim(&mut self, through: u64) -> Result<Option<i64>, StoreFault> {
        let changed = self.change(|it| Ok(it.head.trim(through)))?;
        if changed { self.forgotten().map(Some) } else { Ok(None) }
    }

    /// Drops numbers; gives what [`trim`](Self::trim) gives.
    pub fn drop_through(&mut self, through: u64, reason: GapReason) -> Result<Option<i64>, StoreFault> {
        let changed = self.change(|it| it.head.drop_through(through, reason))?;
        if changed { self.forgotten().map(Some) } else { Ok(None) }
    }

    /// Moves all numbers; gives the last one that no segment needs any more.
    pub fn rotate(&mut self, epoch: Epoch, predecessor: Predecessor) -> Result<i64, StoreFault> {
        self.change(|it| {
            let shift = it.head.rotate(epoch, predecessor)?;
            it.shift = it.shift.wrapping_add(shift);
            Ok(())
        })?;
        self.forgotten()
    }

    /// Reserves numbers.
    ///
    /// # Errors
    /// `Refused` for what the database cannot keep.
    pub fn reserve(&mut self, through: u64) -> Result<(), StoreFault> {
        self.change(|it| {
            it.head.reserve(through);
            Ok(())
        })
    }

    fn forgotten(&self) -> Result<i64, StoreFault> {
        self.stored(self.head.floor())
    }

    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let mut changed = *self;
        let outcome = change(&mut changed)?;
        if !changed.are_sound() {
            return Err(StoreFault::Refused);
        }
        *self = changed;
        Ok(outcome)
    }
}

/// A number as the database keeps it.
///
/// # Errors
/// `Refused` for one that it cannot keep.
pub fn column(number: u64) -> Result<i64, StoreFault> {
    i64::try_from(number).map_err(|_| StoreFault::Refused)
}

/// What a group asks for in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of records.
    bytes: u64,
    /// Rows that hold them.
    pub rows: u64,
    /// It also gives up something.
    gives: bool,
    /// It may need room for something else, a name for instance.
    pub grows: bool,
}

/// What one row takes beside its bytes, generously.
const ROW_BYTES: u64 = 1 << 10;

impl Demand {
    /// Whether it takes no more than `most`, and gives up something for it: it passes a store that is full.
    pub const fn is_move(self, most: u64) -> bool {
        self.gives && self.bytes() <= most
    }

    /// Bytes of the database that it takes, roughly.
    pub const fn bytes(self) -> u64 {
        self.bytes.saturating_add(self.rows.saturating_mul(ROW_BYTES))
    }
}

/// A group on trial. What passes it cannot be refused when it is executed, so that nothing has to be taken back unless the
/// database itself fails.
#[derive(Debug, Default)]
pub struct Trial<'a> {
    queues: Vec<(Queue<'a>, Option<Numbers>)>,
    /// What the requests so far ask for.
    pub demand: Demand,
}

impl<'a> Trial<'a> {
    /// Tries one request. `lookup` gives the numbers that a queue has before the group.
    pub fn step<E: From<StoreFault>>(
        &mut self,
        op: &StoreOp<'a>,
        lookup: impl FnOnce(Queue<'a>) -> Result<Option<Numbers>, E>,
    ) -> Result<(), E> {
        match *op {
            StoreOp::Inbox { .. } | StoreOp::Unsubscribe { .. } => {}
            StoreOp::Subscribe { .. } => self.demand.grows = true,
            StoreOp::DeadLetter { record, .. } => self.take(record),
            StoreOp::Deliver(delivery) => {
                column(delivery.number)?;
                self.take(delivery.payload);
            }
            StoreOp::Cursor { through, .. } => drop(column(through)?),
            StoreOp::Open { queue, epoch } => {
                self.demand.grows = true;
                self.entry(queue, lookup)?.get_or_insert(Numbers::new(epoch)).head.reopen(epoch);
            }
            StoreOp::Topic { queue, .. } => {
                self.demand.grows = true;
                self.numbers(queue, lookup)?;
            }
            StoreOp::Rotate { queue, epoch, predecessor } => {
                self.numbers(queue, lookup)?.rotate(epoch, predecessor)?;
            }
            StoreOp::Reserve { queue, through } => self.numbers(queue, lookup)?.reserve(through)?,
            StoreOp::Append { queue, first, last, records } => {
                let measure = measure(records).ok_or(StoreFault::Refused)?;
                self.numbers(queue, lookup)?.append(first, last, measure.numbers)?;
                self.take(records);
            }
            StoreOp::Trim { queue, through } => {
                self.numbers(queue, lookup)?.trim(through)?;
                self.demand.gives = true;
            }
            StoreOp::Drop { queue, through, reason } => {
                self.numbers(queue, lookup)?.drop_through(through, reason)?;
                self.demand.gives = true;
            }
            StoreOp::Close { queue } => {
                *self.entry(queue, lookup)? = None;
                self.demand.gives = true;
            }
            _ => return Err(StoreFault::Refused.into()),
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.demand.bytes += bytes.len() as u64;
        self.demand.rows += 1;
        self.demand.grows = true;
    }

    fn numbers<E: From<StoreFault>>(
        &mut self,
        queue: Queue<'a>,
        lookup: impl FnOnce(Queue<'a>) -> Result<Option<Numbers>, E>,
    ) -> Result<&mut Numbers, E> {
        self.entry(queue, lookup)?.as_mut().ok_or(E::from(StoreFault::Refused))
    }

    fn entry<E>(
        &mut self,
        queue: Queue<'a>,
        lookup: impl FnOnce(Queue<'a>) -> Result<Option<Numbers>, E>,
    ) -> Result<&mut Option<Numbers>, E> {
        if let Some(index) = self.queues.iter().position(|entry| entry.0 == queue) {
            return Ok(&mut self.queues[index].1);
        }
        let numbers = lookup(queue)?;
        Ok(&mut self.queues.push_mut((queue, numbers)).1)
    }
}
