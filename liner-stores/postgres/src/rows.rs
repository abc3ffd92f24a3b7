//! The rows of the node's queues. Nobody else writes them as long as the node has the newest token, so that they are read once.

use std::collections::HashMap;

use liner_proto::effect::{GapReason, Queue, StoreFault};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::head::Head;
use liner_store::numbers::Numbers;
use liner_store::{checksums, names};
use tokio_postgres::Row;

use crate::text::from_column;

/// One queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRow {
    /// 0 as long as the database has no such row.
    pub(crate) key: i32,
    pub(crate) kind: u8,
    pub(crate) name: String,
    /// With which its checksums are made; [`crate::text`] says how a column has it.
    pub(crate) composite: String,
    pub(crate) numbers: Numbers,
    /// The epoch that all its messages bear: its first one.
    pub(crate) stored_epoch: Epoch,
    /// Through which stored number this instance has deleted its messages, if it has.
    pub(crate) swept: Option<i64>,
}

/// Finds rows of queues; a condition is to follow. [`QueueRow::read`] wants these columns in this order.
pub(crate) const QUEUES: &str = "SELECT connection_key, composite, epoch, predecessor_epoch, \
     predecessor_old_first, predecessor_count, trimmed, dropped_through, dropped_reason, last, reserved, \
     shift, stored_epoch, crc, kind, name FROM conn_key_map WHERE";

impl QueueRow {
    /// Reads a row of [`QUEUES`]; nothing if it cannot be the row of a queue.
    pub(crate) fn read(owner: &str, row: &Row) -> Option<Self> {
        let number = |index| row.try_get::<_, i64>(index).ok();
        let predecessor = row.try_get::<_, Option<i64>>(3).ok()?;
        let optional = |index| Some(row.try_get::<_, Option<i64>>(index).ok()?.unwrap_or(0).cast_unsigned());
        let (old_first, count) = (optional(4)?, optional(5)?);
        let predecessor =
            predecessor.map(|epoch| Predecessor { epoch: Epoch(epoch.cast_unsigned()), old_first, count });
        let through = row.try_get::<_, Option<i64>>(7).ok()?.map(i64::cast_unsigned);
        let reason = row.try_get::<_, Option<i16>>(8).ok()?;
        let reason = reason.and_then(|reason| GapReason::from_number(u8::try_from(reason).ok()?));
        let head = Head {
            epoch: Epoch(number(2)?.cast_unsigned()),
            predecessor,
            trimmed: number(6)?.cast_unsigned(),
            dropped: through.zip(reason),
            last: number(9)?.cast_unsigned(),
            reserved: number(10)?.cast_unsigned(),
        };
        let numbers = Numbers { head, shift: number(11)?.cast_unsigned() };
        let read = Self {
            key: row.try_get(0).ok()?,
            kind: u8::try_from(row.try_get::<_, i16>(14).ok()?).ok()?,
            name: from_column(row.try_get(15).ok()?).into_owned(),
            composite: from_column(row.try_get(1).ok()?).into_owned(),
            numbers,
            stored_epoch: Epoch(number(12)?.cast_unsigned()),
            swept: None,
        };
        let named = names::queue(read.kind, &read.name)
            .is_some_and(|queue| names::composite(owner, queue) == read.composite);
        let sound = named && numbers.are_sound() && read.check() == number(13)?;
        sound.then_some(read)
    }

    /// The checksum of the row.
    pub(crate) fn check(&self) -> i64 {
        checksums::queue(&self.composite, self.key.into(), &self.numbers, self.stored_epoch)
    }

    /// The stored numbers whose messages are to be deleted now that it needs none of these any more: above the first, through the second.
    pub(crate) fn sweep(&mut self, through: i64) -> (i64, i64) {
        let swept = self.swept.replace(through);
        // Before this instance, an operator may have put back what was deleted.
        (swept.unwrap_or(i64::MIN), through)
    }

    /// The checksum of one of its messages, whose numbers are the stored ones.
    pub(crate) fn checksum(&self, first: i64, last: i64, record: &[u8]) -> i64 {
        checksums::records(&self.composite, self.stored_epoch.0.cast_signed(), first, last, record)
    }
}

/// Names one life of a queue in this process.
pub(crate) type Life = u64;

/// All queues of the node, as they are with what was applied.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    queues: HashMap<Life, QueueRow>,
    /// By kind, then by name.
    lives: [HashMap<String, Life>; 3],
    next: Life,
    /// What the turn has changed, as it was before.
    before: HashMap<Life, Option<QueueRow>>,
}

impl Rows {
    /// Takes a row that the database has.
    pub(crate) fn insert(&mut self, row: QueueRow) -> Life {
        let life = self.next;
        self.next += 1;
        if let Some(lives) = self.lives.get_mut(usize::from(row.kind)) {
            lives.insert(row.name.clone(), life);
        }
        self.queues.insert(life, row);
        life
    }

    /// The queue, if there is one.
    pub(crate) fn find(&self, queue: Queue<'_>) -> Option<(Life, &QueueRow)> {
        let life = *self.lives.get(usize::from(names::kind(queue)))?.get(queue.name())?;
        self.queues.get(&life).map(|row| (life, row))
    }

    /// The queue in this life.
    pub(crate) fn get(&self, life: Life) -> Option<&QueueRow> {
        self.queues.get(&life)
    }

    /// The same, to be given its key.
    pub(crate) fn get_mut(&mut self, life: Life) -> Option<&mut QueueRow> {
        self.queues.get_mut(&life)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &QueueRow> {
        self.queues.values()
    }

    /// A queue that must be there, to be changed.
    pub(crate) fn change(&mut self, queue: Queue<'_>) -> Result<(Life, &mut QueueRow), StoreFault> {
        let (life, _) = self.find(queue).ok_or(StoreFault::Refused)?;
        let row = self.queues.get_mut(&life).ok_or(StoreFault::Refused)?;
        self.before.entry(life).or_insert_with(|| Some(row.clone()));
        Ok((life, row))
    }

    /// A new queue, of which the database knows nothing yet.
    pub(crate) fn create(&mut self, owner: &str, queue: Queue<'_>, epoch: Epoch) -> Life {
        let row = QueueRow {
            key: 0,
            kind: names::kind(queue),
            name: queue.name().to_owned(),
            composite: names::composite(owner, queue),
            numbers: Numbers::new(epoch),
            stored_epoch: epoch,
            swept: None,
        };
        let life = self.insert(row);
        self.before.insert(life, None);
        life
    }

    /// Forgets a queue.
    pub(crate) fn remove(&mut self, queue: Queue<'_>) -> Option<(Life, QueueRow)> {
        let life = self.lives.get_mut(usize::from(names::kind(queue)))?.remove(queue.name())?;
        let row = self.queues.remove(&life)?;
        self.before.entry(life).or_insert_with(|| Some(row.clone()));
        Some((life, row))
    }

    /// The queues that the turn has changed and not closed.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &QueueRow> {
        self.before.keys().filter_map(|life| self.queues.get(life))
    }

    /// What the turn has changed is committed.
    pub(crate) fn settle(&mut self) {
        self.before.clear();
    }

    /// Takes back what the turn has changed.
    pub(crate) fn undo(&mut self) {
        for (life, before) in self.before.drain() {
            if let Some(row) = before {
                if let Some(lives) = self.lives.get_mut(usize::from(row.kind)) {
                    lives.insert(row.name.clone(), life);
                }
                self.queues.insert(life, row);
            } else if let Some(row) = self.queues.remove(&life)
                && let Some(lives) = self.lives.get_mut(usize::from(row.kind))
                && lives.get(&row.name) == Some(&life)
            {
                lives.remove(&row.name);
            }
        }
    }
}

/// How far the streams of others were taken over, as it is with what was applied.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    by_peer: HashMap<String, (Epoch, u64)>,
    before: HashMap<String, Option<(Epoch, u64)>>,
}

impl Cursors {
    /// Takes what the database has.
    pub(crate) fn insert(&mut self, peer: String, epoch: Epoch, through: u64) {
        self.by_peer.insert(peer, (epoch, through));
    }

    /// Moves a cursor; within an epoch never backwards.
    pub(crate) fn advance(&mut self, peer: &str, epoch: Epoch, through: u64) {
        let known = self.by_peer.get(peer).copied();
        if !self.before.contains_key(peer) {
            self.before.insert(peer.to_owned(), known);
        }
        let floor = known.filter(|known| known.0 == epoch).map_or(0, |known| known.1);
        self.by_peer.insert(peer.to_owned(), (epoch, through.max(floor)));
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Epoch, u64)> {
        self.by_peer.iter().map(|(peer, &(epoch, through))| (&**peer, epoch, through))
    }

    /// Those that the turn has moved.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&str, Epoch, u64)> {
        let moved = self.before.keys().filter_map(|peer| self.by_peer.get_key_value(peer));
        moved.map(|(peer, &(epoch, through))| (&**peer, epoch, through))
    }

    /// What the turn has moved is committed.
    pub(crate) fn settle(&mut self) {
        self.before.clear();
    }

    /// Takes back what the turn has moved.
    pub(crate) fn undo(&mut self) {
        for (peer, before) in self.before.drain() {
            match before {
                Some(known) => self.by_peer.insert(peer, known),
                None => self.by_peer.remove(&peer),
            };
        }
    }
}
