//! Requests that change a queue.

use liner_proto::effect::{GapReason, Queue, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::run::measure;
use rusqlite::params;

use crate::SqliteStore;
use crate::names;
use crate::numbers::column;
use crate::row::{QueueRow, topic_checksum};
use crate::turn::Failure;

impl SqliteStore {
    /// Executes one request of a group that has passed its trial.
    pub(crate) fn step(&mut self, op: &StoreOp<'_>) -> Result<(), Failure> {
        match *op {
            StoreOp::Inbox { epoch } => self.name_inbox(epoch),
            StoreOp::Open { queue, epoch } => self.open_queue(queue, epoch),
            StoreOp::Rotate { queue, epoch, predecessor } => self.rotate(queue, epoch, predecessor),
            StoreOp::Reserve { queue, through } => self.reserve(queue, through),
            StoreOp::Append { queue, first, last, records } => self.append(queue, first, last, records),
            StoreOp::Trim { queue, through } => self.trim(queue, through),
            StoreOp::Drop { queue, through, reason } => self.drop_through(queue, through, reason),
            StoreOp::Topic { queue, number, text } => self.bind(queue, number, text),
            StoreOp::Cursor { peer, epoch, through } => self.advance(peer, epoch, through),
            StoreOp::Subscribe { topic, address, name } => self.subscribe(topic, address, name),
            StoreOp::Unsubscribe { topic, address } => self.unsubscribe(topic, address),
            StoreOp::DeadLetter { peer, topic, reason, record } => {
                self.put_aside(peer, topic, reason, record)
            }
            StoreOp::Close { queue } => self.close_queue(queue),
            _ => Err(StoreFault::Refused.into()),
        }
    }

    fn open_queue(&mut self, queue: Queue<'_>, epoch: Epoch) -> Result<(), Failure> {
        if self.rows.find(&self.conn, &self.owner, queue)?.is_some() {
            self.rows.change(&self.conn, &self.owner, queue)?.numbers.head.reopen(epoch);
            return Ok(());
        }
        let composite = names::composite(&self.owner, queue);
        let key: i64 = self.conn.prepare_cached(NEXT_KEY)?.query_row([], |row| row.get(0))?;
        // A row that was made by hand keeps its key.
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO conn_key_map(composite, connection_key, owner, kind, name, stored_epoch)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(composite) DO UPDATE SET owner = excluded.owner, kind = excluded.kind,
               name = excluded.name, stored_epoch = excluded.stored_epoch
             RETURNING connection_key",
        )?;
        let (owner, kind, name) = (&self.owner, names::kind(queue), queue.name());
        let new = params![composite, key, owner, kind, name, epoch.0.cast_signed()];
        let given: i64 = insert.query_row(new, |row| row.get(0))?;
        drop(insert);
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO seq(id, v) VALUES(1, ?1)")?
            .execute([key.max(given)])?;
        self.conn.prepare_cached("INSERT OR REPLACE INTO conn_sender VALUES(?1, '')")?.execute([given])?;
        // A row that was deleted by hand has left them behind.
        self.conn.prepare_cached("DELETE FROM stream_topic WHERE composite = ?1")?.execute([&composite])?;
        QueueRow::new(given, composite, epoch).save(&self.conn)
    }

    fn rotate(&mut self, queue: Queue<'_>, epoch: Epoch, predecessor: Predecessor) -> Result<(), Failure> {
        let row = self.rows.change(&self.conn, &self.owner, queue)?;
        let forgotten = row.numbers.rotate(epoch, predecessor)?;
        row.forget(&self.conn, forgotten, self.cleared)
    }

    fn reserve(&mut self, queue: Queue<'_>, through: u64) -> Result<(), Failure> {
        Ok(self.rows.change(&self.conn, &self.owner, queue)?.numbers.reserve(through)?)
    }

    fn append(&mut self, queue: Queue<'_>, first: u64, last: u64, records: &[u8]) -> Result<(), Failure> {
        let row = self.rows.change(&self.conn, &self.owner, queue)?;
        let measure = measure(records).ok_or(StoreFault::Refused)?;
        let (first, last) = row.numbers.append(first, last, measure.numbers)?;
        let crc = row.checksum(first, last, records);
        let epoch = row.stored_epoch.0.cast_signed();
        let messages = column(measure.messages)?;
        self.conn
            .prepare_cached(
                "INSERT INTO segments(connection_key, epoch, first, last, messages, crc, composite, records)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![row.key, epoch, first, last, messages, crc, row.composite, records])?;
        Ok(())
    }

    fn trim(&mut self, queue: Queue<'_>, through: u64) -> Result<(), Failure> {
        let row = self.rows.change(&self.conn, &self.owner, queue)?;
        match row.numbers.trim(through)? {
            Some(forgotten) => row.forget(&self.conn, forgotten, self.cleared),
            None => Ok(()),
        }
    }

    fn drop_through(&mut self, queue: Queue<'_>, through: u64, reason: GapReason) -> Result<(), Failure> {
        let row = self.rows.change(&self.conn, &self.owner, queue)?;
        match row.numbers.drop_through(through, reason)? {
            Some(forgotten) => row.forget(&self.conn, forgotten, self.cleared),
            None => Ok(()),
        }
    }

    fn bind(&mut self, queue: Queue<'_>, number: u32, text: &str) -> Result<(), Failure> {
        let Some(row) = self.rows.find(&self.conn, &self.owner, queue)? else {
            return Err(StoreFault::Refused.into());
        };
        self.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO stream_topic(composite, number, topic, crc) VALUES(?1, ?2, ?3, ?4)",
            )?
            .execute(params![row.composite, number, text, topic_checksum(&row.composite, number, text)])?;
        Ok(())
    }

    fn close_queue(&mut self, queue: Queue<'_>) -> Result<(), Failure> {
        let Some(row) = self.rows.find(&self.conn, &self.owner, queue)? else { return Ok(()) };
        for sql in [
            "DELETE FROM segments WHERE connection_key = ?1",
            "DELETE FROM cleared WHERE connection_key = ?1",
            "DELETE FROM conn_sender WHERE connection_key = ?1",
            "DELETE FROM conn_key_map WHERE connection_key = ?1",
        ] {
            self.conn.prepare_cached(sql)?.execute([row.key])?;
        }
        self.conn
            .prepare_cached("DELETE FROM stream_topic WHERE composite = ?1")?
            .execute([&row.composite])?;
        self.rows.remove(queue);
        Ok(())
    }
}

/// A key above all that anything bears.
const NEXT_KEY: &str = "SELECT 1 + max(
    coalesce((SELECT max(v) FROM seq), 0),
    coalesce((SELECT max(connection_key) FROM conn_key_map), 0),
    coalesce((SELECT max(connection_key) FROM segments), 0))";
