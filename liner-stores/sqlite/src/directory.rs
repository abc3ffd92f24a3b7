//! Requests that change nothing of a queue: the node's row, cursors, the directory, dead letters.

use liner_proto::effect::DeadReason;
use liner_proto::id::Epoch;
use rusqlite::{Connection, params};

use crate::SqliteStore;
use crate::row::column;
use crate::turn::Failure;

impl SqliteStore {
    pub(crate) fn name_inbox(&self, epoch: Epoch) -> Result<(), Failure> {
        self.conn
            .prepare_cached("UPDATE node SET inbox = ?2 WHERE name = ?1")?
            .execute(params![self.owner, epoch.0.cast_signed()])?;
        Ok(())
    }

    pub(crate) fn advance(&self, peer: &str, epoch: Epoch, through: u64) -> Result<(), Failure> {
        self.conn
            .prepare_cached(
                "INSERT INTO inbound_cursor(owner, peer, epoch, through) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(owner, peer) DO UPDATE SET epoch = excluded.epoch,
                   through = iif(epoch = excluded.epoch, max(through, excluded.through), excluded.through)",
            )?
            .execute(params![self.owner, peer, epoch.0.cast_signed(), column(through)?])?;
        Ok(())
    }

    pub(crate) fn subscribe(&self, topic: &str, address: &str, name: &str) -> Result<(), Failure> {
        self.conn
            .prepare_cached(
                "INSERT INTO topic_addr(topic, addr, client_name) VALUES(?1, ?2, ?3)
                 ON CONFLICT(topic, addr) DO UPDATE SET client_name = excluded.client_name",
            )?
            .execute([topic, address, name])?;
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), Failure> {
        self.conn
            .prepare_cached("DELETE FROM topic_addr WHERE topic = ?1 AND addr = ?2")?
            .execute([topic, address])?;
        Ok(())
    }

    pub(crate) fn put_aside(
        &self,
        peer: &str,
        topic: &str,
        reason: DeadReason,
        record: &[u8],
    ) -> Result<(), Failure> {
        Ok(insert_dead_letter(&self.conn, [&self.owner, peer, topic], reason, record)?)
    }
}

/// Adds a dead letter of `[owner, peer, topic]`, with a check over all of it.
pub(crate) fn insert_dead_letter(
    conn: &Connection,
    whose: [&str; 3],
    reason: DeadReason,
    record: &[u8],
) -> rusqlite::Result<()> {
    let [owner, peer, topic] = whose;
    let mut crc = crc32c::crc32c(&[reason as u8]);
    for text in whose {
        crc = crc32c::crc32c_append(crc, text.as_bytes());
    }
    crc = crc32c::crc32c_append(crc, record);
    conn.prepare_cached(
        "INSERT INTO dead_letters(owner, peer, topic, reason, crc, record) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![owner, peer, topic, reason as u8, crc, record])?;
    Ok(())
}
