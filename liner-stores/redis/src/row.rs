//! A queue as the node knows it: its numbers, what its list holds, and what the turn does to both.

use std::collections::HashMap;

use liner_proto::effect::{GapReason, Queue, StoreFault};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::head::Head;
use liner_proto::store::run::Walk;
use liner_store::check::Check;
use liner_store::checksums;
use liner_store::numbers::Numbers;

use crate::element;
use crate::keys;
use crate::stretch::Stretches;

/// Numbers in the blob of a queue, and bytes of it.
const FIELDS: usize = 14;
const BLOB: usize = FIELDS * 8;

/// Elements that wait for the commit, as words of a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) bytes: Vec<u8>,
    /// Of each element where it ends, its numbers, and how long the record is.
    pub(crate) elements: Vec<Waiting>,
    /// So many of them at the front were given up again.
    pub(crate) skip: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) end: usize,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) record: usize,
}

impl Tail {
    fn clear(&mut self) {
        self.bytes.clear();
        self.elements.clear();
        self.skip = 0;
    }

    /// Those that are still to be written.
    pub(crate) fn left(&self) -> &[Waiting] {
        self.elements.get(self.skip..).unwrap_or_default()
    }

    /// Where the elements that are left begin.
    pub(crate) fn begin(&self) -> usize {
        let before = self.skip.checked_sub(1).and_then(|index| self.elements.get(index));
        before.map_or(0, |waiting| waiting.end)
    }

    /// The record of one of them.
    pub(crate) fn record(&self, waiting: &Waiting) -> &[u8] {
        let end = waiting.end - 2;
        self.bytes.get(end - waiting.record..end).unwrap_or_default()
    }
}

/// One queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRow {
    /// The number in its keys; none until its first commit is on the way.
    pub(crate) key: Option<u64>,
    /// The turn has made it.
    pub(crate) is_new: bool,
    pub(crate) composite: String,
    pub(crate) numbers: Numbers,
    /// The epoch that all its elements bear: its first one.
    pub(crate) stored_epoch: Epoch,
    /// Commits of it may be missing.
    pub(crate) suspect: bool,
    /// Its list may have elements at its end that belong to a turn that did not take place.
    pub(crate) has_strays: bool,
    /// What of the elements' checksums is always the same.
    pub(crate) whose: Check,
    /// What the list holds in the server.
    pub(crate) list: Stretches,
    /// Bytes of an element, roughly.
    pub(crate) average: u64,
    /// What the turn takes from the list's head.
    pub(crate) cut: u64,
    /// What the turn adds at its end.
    pub(crate) tail: Tail,
    /// Texts that the turn gives to numbers.
    pub(crate) topics: Vec<(u32, String)>,
    /// The numbers as they are in the server, and the doubt, once the turn has touched the queue.
    pub(crate) before: Option<(Numbers, bool)>,
}

impl QueueRow {
    /// An empty queue.
    pub(crate) fn new(key: Option<u64>, composite: String, epoch: Epoch) -> Self {
        let whose = element::whose(&composite, epoch);
        Self {
            key,
            is_new: false,
            composite,
            numbers: Numbers::new(epoch),
            stored_epoch: epoch,
            suspect: false,
            has_strays: false,
            whose,
            list: Stretches::default(),
            average: 256,
            cut: 0,
            tail: Tail::default(),
            topics: Vec::new(),
            before: None,
        }
    }

    /// What the server keeps of it.
    pub(crate) fn blob(&self) -> Vec<u8> {
        let Head { epoch, predecessor, trimmed, dropped, last, reserved } = self.numbers.head;
        let (before, old, count) = predecessor.map_or((0, 0, 0), |it| (it.epoch.0, it.old_first, it.count));
        let (through, reason) = dropped.map_or((0, 0), |(through, reason)| (through, reason as u64));
        let flags = u64::from(self.suspect) | u64::from(predecessor.is_some()) << 1;
        let key = self.key.unwrap_or(0);
        let fields: [u64; FIELDS] = [
            key,
            self.stored_epoch.0,
            self.numbers.shift,
            epoch.0,
            before,
            old,
            count,
            trimmed,
            through,
            reason,
            last,
            reserved,
            flags,
            self.check(flags),
        ];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    /// The checksum of the blob.
    fn check(&self, flags: u64) -> u64 {
        let key = self.key.unwrap_or(0).cast_signed();
        let check = checksums::queue(&self.composite, key, &self.numbers, self.stored_epoch);
        check.cast_unsigned() << 8 | flags
    }

    /// Reads a blob; nothing if it is damaged.
    pub(crate) fn read(composite: &str, blob: &[u8]) -> Option<Self> {
        let blob: &[u8; BLOB] = blob.try_into().ok()?;
        let mut fields = blob.as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field));
        let mut next = || fields.next();
        let (key, stored_epoch, shift, epoch) = (next()?, Epoch(next()?), next()?, Epoch(next()?));
        let predecessor = Predecessor { epoch: Epoch(next()?), old_first: next()?, count: next()? };
        let (trimmed, through, reason) = (next()?, next()?, u8::try_from(next()?).ok()?);
        let (last, reserved, flags, check) = (next()?, next()?, next()?, next()?);
        let dropped = GapReason::from_number(reason).map(|reason| (through, reason));
        let predecessor = (flags & 2 != 0).then_some(predecessor);
        let head = Head { epoch, predecessor, trimmed, dropped, last, reserved };
        let numbers = Numbers { head, shift };
        let row = Self {
            numbers,
            suspect: flags & 1 != 0,
            ..Self::new(Some(key), composite.to_owned(), stored_epoch)
        };
        // Also what means nothing has to be as it was written.
        (numbers.are_sound() && key > 0 && row.check(flags) == check && row.blob() == *blob).then_some(row)
    }

    /// Remembers how it was before the turn.
    fn touch(&mut self) {
        let before = (self.numbers, self.suspect);
        self.before.get_or_insert(before);
    }

    /// Appends a run for the numbers `first..=last`.
    pub(crate) fn append(&mut self, first: u64, last: u64, records: &[u8]) -> Result<(), StoreFault> {
        let (stored, _) = self.numbers.append(first, last, last.wrapping_sub(first).wrapping_add(1))?;
        let stored = stored.cast_unsigned();
        self.tail.bytes.reserve(records.len() + records.len() / 2);
        for step in Walk::new(records, stored) {
            let record = records.get(step.body..step.end).unwrap_or_default();
            element::put(&mut self.tail.bytes, self.whose, self.stored_epoch, step.first, record);
            let end = self.tail.bytes.len();
            self.tail.elements.push(Waiting {
                end,
                first: step.first,
                last: step.last,
                record: record.len(),
            });
        }
        Ok(())
    }

    /// Forgets what has no number above `through`, which is one of the stored ones.
    pub(crate) fn forget(&mut self, through: i64) {
        let Ok(through) = u64::try_from(through) else { return };
        self.cut = self.list.count_through(through);
        while self.tail.left().first().is_some_and(|waiting| waiting.last <= through) {
            self.tail.skip += 1;
        }
    }

    /// The turn took place.
    fn settle(&mut self) {
        self.list.remove_front(self.cut);
        let (begin, count) = (self.tail.begin(), self.tail.left().len() as u64);
        for index in self.tail.skip..self.tail.elements.len() {
            if let Some(waiting) = self.tail.elements.get(index) {
                self.list.push(waiting.first, waiting.last);
            }
        }
        if let Some(average) = ((self.tail.bytes.len() - begin) as u64).checked_div(count) {
            self.average = average.max(1);
        }
        self.end_turn();
    }

    fn end_turn(&mut self) {
        self.cut = 0;
        self.tail.clear();
        self.topics.clear();
        self.before = None;
        self.is_new = false;
    }

    /// The turn did not take place.
    fn restore(&mut self) {
        if let Some((numbers, suspect)) = self.before {
            (self.numbers, self.suspect) = (numbers, suspect);
        }
        self.end_turn();
    }
}

/// Names a queue: its kind and its name.
pub(crate) type Id = (u8, String);

/// All queues of the node, and which of them the turn changes.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// By kind, then by name.
    known: [HashMap<String, QueueRow>; 3],
    /// What the turn changed, in the order in which it did.
    pub(crate) touched: Vec<Id>,
    /// What the turn closed that was there before it.
    pub(crate) closed: Vec<(Id, QueueRow)>,
}

impl Rows {
    pub(crate) fn find(&self, queue: Queue<'_>) -> Option<&QueueRow> {
        self.known.get(usize::from(keys::kind(queue)))?.get(queue.name())
    }

    pub(crate) fn find_mut(&mut self, queue: Queue<'_>) -> Option<&mut QueueRow> {
        self.known.get_mut(usize::from(keys::kind(queue)))?.get_mut(queue.name())
    }

    /// The queue, which is about to be changed.
    pub(crate) fn change(&mut self, queue: Queue<'_>) -> Result<&mut QueueRow, StoreFault> {
        let row = self.find(queue).ok_or(StoreFault::Refused)?;
        if row.before.is_none() {
            self.touched.push((keys::kind(queue), queue.name().to_owned()));
        }
        let row = self.find_mut(queue).ok_or(StoreFault::Refused)?;
        row.touch();
        Ok(row)
    }

    pub(crate) fn insert(&mut self, queue: Queue<'_>, row: QueueRow) {
        if let Some(rows) = self.known.get_mut(usize::from(keys::kind(queue))) {
            rows.insert(queue.name().to_owned(), row);
        }
    }

    pub(crate) fn close(&mut self, queue: Queue<'_>) {
        let Some(rows) = self.known.get_mut(usize::from(keys::kind(queue))) else { return };
        if let Some(row) = rows.remove(queue.name()).filter(|row| !row.is_new) {
            self.closed.push(((keys::kind(queue), queue.name().to_owned()), row));
        }
    }

    /// All of them, by kind and name.
    pub(crate) fn all(&self) -> Vec<(Queue<'_>, &QueueRow)> {
        let mut all: Vec<_> = Vec::new();
        for (kind, rows) in (0..).zip(&self.known) {
            all.extend(rows.iter().filter_map(|(name, row)| Some((keys::queue(kind, name)?, row))));
        }
        all.sort_unstable_by_key(|(queue, _)| *queue);
        all
    }

    /// The rows that the turn changes and that are still there, each once.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &QueueRow> {
        let mut ids: Vec<&Id> = self.touched.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let find = |(kind, name): &Id| self.known.get(usize::from(*kind))?.get(name);
        ids.into_iter().filter_map(find).filter(|row| row.before.is_some())
    }

    /// Gives keys to the rows that have none; the caller has as many as are needed.
    pub(crate) fn name(&mut self, keys: impl IntoIterator<Item = u64>) {
        let mut keys = keys.into_iter();
        for (kind, name) in &self.touched {
            let row = self.known.get_mut(usize::from(*kind)).and_then(|rows| rows.get_mut(name));
            if let Some(row) = row.filter(|row| row.key.is_none()) {
                row.key = keys.next();
            }
        }
    }

    /// What the turn was to append may be there, though it did not take place.
    pub(crate) fn note_strays(&mut self) {
        for (kind, name) in &self.touched {
            let row = self.known.get_mut(usize::from(*kind)).and_then(|rows| rows.get_mut(name));
            if let Some(row) = row.filter(|row| !row.tail.left().is_empty()) {
                row.has_strays = true;
            }
        }
    }

    /// The turn took place.
    pub(crate) fn settle(&mut self) {
        self.end_turn(QueueRow::settle);
        self.closed.clear();
    }

    /// The turn did not take place.
    pub(crate) fn restore(&mut self) {
        for (kind, name) in &self.touched {
            if let Some(rows) = self.known.get_mut(usize::from(*kind))
                && rows.get(name).is_some_and(|row| row.is_new)
            {
                rows.remove(name);
            }
        }
        self.end_turn(QueueRow::restore);
        // The one that was closed first is the one that was there before the turn.
        for ((kind, name), mut row) in self.closed.drain(..).rev() {
            row.restore();
            if let Some(rows) = self.known.get_mut(usize::from(kind)) {
                rows.insert(name, row);
            }
        }
    }

    fn end_turn(&mut self, end: fn(&mut QueueRow)) {
        for (kind, name) in self.touched.drain(..) {
            let row = self.known.get_mut(usize::from(kind)).and_then(|rows| rows.get_mut(&name));
            if let Some(row) = row.filter(|row| row.before.is_some()) {
                end(row);
            }
        }
    }
}
