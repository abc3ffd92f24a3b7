//! Requests that change a queue.

use liner_proto::effect::{GapReason, Queue, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_store::checksums;
use rusqlite::{Connection, params};

use crate::SqliteStore;
use crate::names;
use crate::row::QueueRow;
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
            StoreOp::Unsubscribe { topic, address, name } => self.unsubscribe(topic, address, name),
            StoreOp::DeadLetter { peer, topic, reason, record } => {
                self.put_aside(peer, topic, reason, record)
            }
            StoreOp::Close { queue } => self.close_queue(queue),
            StoreOp::Deliver(delivery) => self.deliver(&delivery),
            _ => Err(StoreFault::Refused.into()),
        }
    }

    fn open_queue(&mut self, queue: Queue<'_>, epoch: Epoch) -> Result<(), Failure> {
        if self.rows.find(&self.conn, &self.owner, queue)?.is_some() {
            self.rows.change(&self.conn, &self.owner, queue)?.numbers.head.reopen(epoch);
            return Ok(());
        }
        create(&self.conn, &self.owner, queue, epoch).map(drop)
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
        row.append(&self.conn, (first, last), records)
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
            .execute(params![row.composite, number, text, checksums::topic(&row.composite, number, text)])?;
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

/// Makes the row of a queue that has none, or one that was made by hand, which keeps its key.
pub(crate) fn create(
    conn: &Connection,
    owner: &str,
    queue: Queue<'_>,
    epoch: Epoch,
) -> Result<QueueRow, Failure> {
    let composite = names::composite(owner, queue);
    let mut insert = conn.prepare_cached(
        "INSERT INTO conn_key_map(composite, connection_key, owner, kind, name, stored_epoch)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT(composite) DO UPDATE SET owner = excluded.owner, kind = excluded.kind,
           name = excluded.name, stored_epoch = excluded.stored_epoch
         RETURNING connection_key",
    )?;
    let (kind, name) = (names::kind(queue), queue.name());
    let new = params![composite, next_key(conn)?, owner, kind, name, epoch.0.cast_signed()];
    let key: i64 = insert.query_row(new, |row| row.get(0))?;
    conn.prepare_cached("INSERT OR REPLACE INTO conn_sender VALUES(?1, '')")?.execute([key])?;
    // A row that was deleted by hand has left them behind.
    conn.prepare_cached("DELETE FROM stream_topic WHERE composite = ?1")?.execute([&composite])?;
    let row = QueueRow::new(key, composite, epoch);
    row.save(conn)?;
    Ok(row)
}

/// Gives out a key, of a queue or of a topic, above all that anything bears.
pub(crate) fn next_key(conn: &Connection) -> rusqlite::Result<i64> {
    let key = conn.prepare_cached(NEXT_KEY)?.query_row([], |row| row.get(0))?;
    conn.prepare_cached("INSERT OR REPLACE INTO seq(id, v) VALUES(1, ?1)")?.execute([key])?;
    Ok(key)
}

const NEXT_KEY: &str = "SELECT 1 + max(
    coalesce((SELECT max(v) FROM seq), 0),
    coalesce((SELECT max(k) FROM topic_key), 0),
    coalesce((SELECT max(connection_key) FROM conn_key_map), 0),
    coalesce((SELECT max(connection_key) FROM inserted), 0),
    coalesce((SELECT max(connection_key) FROM segments), 0))";
