//! The row of a queue: its numbers as the database keeps them.

use std::collections::HashMap;

use liner_proto::effect::{GapReason, Queue, StoreFault};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::head::Head;
use liner_proto::store::run::measure;
use liner_store::checksums;
use liner_store::numbers::{Numbers, column};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::names;
use crate::turn::Failure;

/// One queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRow {
    pub(crate) key: i64,
    pub(crate) composite: String,
    pub(crate) numbers: Numbers,
    /// The epoch that all its segments bear: its first one.
    pub(crate) stored_epoch: Epoch,
    /// The numbers are not those in the database: they are written when the turn ends.
    changed: bool,
}

/// Finds rows of queues; a condition is to follow. [`QueueRow::read`] wants these columns in this order.
pub(crate) const QUEUES: &str = "SELECT connection_key, composite, epoch, predecessor_epoch, \
     predecessor_old_first, predecessor_count, trimmed, dropped_through, dropped_reason, last, reserved, \
     shift, stored_epoch, crc, kind, name FROM conn_key_map WHERE";

/// The rows that were used lately. Those that the turn changed are ahead of the database until it ends. All are forgotten
/// whenever something is taken back, or somebody else wrote to the file.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// By kind, then by name.
    known: [HashMap<String, QueueRow>; 3],
    /// Kinds and names of what the turn changed, and perhaps closed.
    changed: Vec<(u8, String)>,
}

impl Rows {
    pub(crate) fn clear(&mut self) {
        for rows in &mut self.known {
            rows.clear();
        }
        self.changed.clear();
    }

    /// The row of a queue, if there is such a queue.
    pub(crate) fn find(
        &mut self,
        conn: &Connection,
        owner: &str,
        queue: Queue<'_>,
    ) -> Result<Option<&mut QueueRow>, Failure> {
        let rows = self.of(queue);
        if !rows.contains_key(queue.name()) {
            let composite = names::composite(owner, queue);
            let mut select = conn.prepare_cached(&format!("{QUEUES} composite = ?1 AND owner = ?2"))?;
            let found = select.query_row([&composite, owner], QueueRow::read).optional()?;
            let Some(row) = found else { return Ok(None) };
            rows.insert(queue.name().to_owned(), row.ok_or(StoreFault::Corrupt)?);
        }
        Ok(rows.get_mut(queue.name()))
    }

    /// The row of a queue that must be there, to be changed.
    pub(crate) fn change(
        &mut self,
        conn: &Connection,
        owner: &str,
        queue: Queue<'_>,
    ) -> Result<&mut QueueRow, Failure> {
        let row = self.find(conn, owner, queue)?.ok_or(Failure::Fault(StoreFault::Refused))?;
        if !row.changed {
            row.changed = true;
            self.changed.push((names::kind(queue), queue.name().to_owned()));
        }
        // It was found above, and is asked for again because the list is filled in between.
        self.of(queue).get_mut(queue.name()).ok_or(Failure::Fault(StoreFault::Refused))
    }

    /// Forgets one row.
    pub(crate) fn remove(&mut self, queue: Queue<'_>) {
        self.of(queue).remove(queue.name());
    }

    /// Writes what the turn changed.
    pub(crate) fn save(&mut self, conn: &Connection) -> Result<(), Failure> {
        let mut changed = core::mem::take(&mut self.changed);
        for (kind, name) in changed.drain(..) {
            let Some(queue) = names::queue(kind, &name) else { continue };
            // It may have been closed, or closed and opened again.
            if let Some(row) = self.of(queue).get_mut(&name).filter(|row| row.changed) {
                row.save(conn)?;
                row.changed = false;
            }
        }
        self.changed = changed;
        Ok(())
    }

    fn of(&mut self, queue: Queue<'_>) -> &mut HashMap<String, QueueRow> {
        let [nodes, topics, addresses] = &mut self.known;
        match queue {
            Queue::Node(_) => nodes,
            Queue::Topic(_) => topics,
            Queue::Address(_) => addresses,
        }
    }
}

impl QueueRow {
    /// Reads a row of [`QUEUES`]; nothing if it cannot be the row of a queue.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let predecessor: Option<i64> = row.get(3)?;
        let (old_first, count): (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
        let predecessor = predecessor.map(|epoch| Predecessor {
            epoch: Epoch(epoch.cast_unsigned()),
            old_first: old_first.unwrap_or(0).cast_unsigned(),
            count: count.unwrap_or(0).cast_unsigned(),
        });
        let (dropped, reason): (Option<i64>, Option<u8>) = (row.get(7)?, row.get(8)?);
        let dropped = dropped.map(i64::cast_unsigned).zip(reason.and_then(GapReason::from_number));
        let number = |index| row.get(index).map(i64::cast_unsigned);
        let head = Head {
            epoch: Epoch(number(2)?),
            predecessor,
            trimmed: number(6)?,
            dropped,
            last: number(9)?,
            reserved: number(10)?,
        };
        let (numbers, stored_epoch) = (Numbers { head, shift: number(11)? }, Epoch(number(12)?));
        let read = Self { key: row.get(0)?, composite: row.get(1)?, numbers, stored_epoch, changed: false };
        let sound = numbers.are_sound() && read.check() == row.get::<_, i64>(13)?;
        Ok(sound.then_some(read))
    }

    /// An empty queue.
    pub(crate) const fn new(key: i64, composite: String, epoch: Epoch) -> Self {
        Self { key, composite, numbers: Numbers::new(epoch), stored_epoch: epoch, changed: false }
    }

    /// The checksum of the row.
    pub(crate) fn check(&self) -> i64 {
        checksums::queue(&self.composite, self.key, &self.numbers, self.stored_epoch)
    }

    /// Writes the row.
    pub(crate) fn save(&self, conn: &Connection) -> Result<(), Failure> {
        let Head { epoch, predecessor, trimmed, dropped, last, reserved } = self.numbers.head;
        let mut update = conn.prepare_cached(
            "UPDATE conn_key_map SET epoch = ?2, predecessor_epoch = ?3, predecessor_old_first = ?4, \
             predecessor_count = ?5, trimmed = ?6, dropped_through = ?7, dropped_reason = ?8, last = ?9, \
             reserved = ?10, shift = ?11, suspect = suspect AND epoch = ?2, crc = ?12 WHERE connection_key = ?1",
        )?;
        let changed = update.execute(params![
            self.key,
            epoch.0.cast_signed(),
            predecessor.map(|it| it.epoch.0.cast_signed()),
            predecessor.map(|it| it.old_first.cast_signed()),
            predecessor.map(|it| it.count.cast_signed()),
            column(trimmed)?,
            dropped.map(|(through, _)| through.cast_signed()),
            dropped.map(|(_, reason)| reason as u8),
            column(last)?,
            column(reserved)?,
            self.numbers.shift.cast_signed(),
            self.check(),
        ])?;
        if changed != 1 {
            // Somebody has deleted it by hand.
            return Err(StoreFault::Refused.into());
        }
        Ok(())
    }

    /// Appends a run for the numbers `first..=last`. The row is yet to be saved.
    pub(crate) fn append(
        &mut self,
        conn: &Connection,
        (first, last): (u64, u64),
        records: &[u8],
    ) -> Result<(), Failure> {
        let measure = measure(records).ok_or(StoreFault::Refused)?;
        let (first, last) = self.numbers.append(first, last, measure.numbers)?;
        let crc = self.checksum(first, last, records);
        let epoch = self.stored_epoch.0.cast_signed();
        let messages = column(measure.messages)?;
        conn.prepare_cached(
            "INSERT INTO segments(connection_key, epoch, first, last, messages, crc, composite, records)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![self.key, epoch, first, last, messages, crc, self.composite, records])?;
        Ok(())
    }

    /// Deletes the segments that have no number above `through`, which is one of theirs.
    pub(crate) fn forget(&self, conn: &Connection, through: i64, cleared: bool) -> Result<(), Failure> {
        conn.prepare_cached("DELETE FROM segments WHERE connection_key = ?1 AND last <= ?2")?
            .execute([self.key, through])?;
        if cleared {
            conn.prepare_cached("DELETE FROM cleared WHERE connection_key = ?1 AND number <= ?2")?
                .execute([self.key, through])?;
        }
        Ok(())
    }

    /// The checksum of one of its segments: whose it is, its numbers and its bytes.
    pub(crate) fn checksum(&self, first: i64, last: i64, records: &[u8]) -> i64 {
        checksums::records(&self.composite, self.stored_epoch.0.cast_signed(), first, last, records)
    }
}
