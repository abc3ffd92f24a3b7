//! The rows of the inbox: messages for the node's own application.

use liner_proto::effect::{DeadReason, Delivery, InboxHeld};
use liner_proto::id::Epoch;
use liner_proto::wire::record::{self, Record, Topic};
use liner_store::checksums::{self, mode_number, mode_of};
use liner_store::inbox::InboxMessage;
use liner_store::look::Delivered;
use rusqlite::{Connection, Row, params};

use crate::SqliteStore;
use crate::directory::insert_dead_letter;
use crate::names;
use crate::turn::Failure;

/// What the inbox holds, and the version of the file in which it does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted(Option<(i64, InboxHeld)>);

impl SqliteStore {
    pub(crate) fn deliver(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        self.counted = Counted(None);
        Ok(insert(&self.conn, &self.owner, delivery)?)
    }

    /// What the inbox holds. It is counted when there may be something new to count: whoever waits for room asks again and again.
    pub(crate) fn count_inbox(&mut self) -> Result<InboxHeld, Failure> {
        self.refresh()?;
        if let Counted(Some((version, held))) = self.counted
            && version == self.version
        {
            return Ok(held);
        }
        let held = held(&self.conn, &self.owner)?;
        self.counted = Counted(Some((self.version, held)));
        Ok(held)
    }
}

/// What waits in the inbox of a node.
pub(crate) fn held(conn: &Connection, owner: &str) -> rusqlite::Result<InboxHeld> {
    let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM inbox WHERE owner = ?1";
    conn.prepare_cached(sql)?.query_row([owner], |row| {
        let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        Ok(InboxHeld { messages: number(0)?, bytes: number(1)? })
    })
}

/// Puts a message behind all that are there.
pub(crate) fn insert(conn: &Connection, owner: &str, delivery: &Delivery<'_>) -> rusqlite::Result<()> {
    let Delivery { from, epoch, number, topic, mode, maybe_redelivered, payload } = *delivery;
    conn.prepare_cached(
        "INSERT INTO inbox(owner, sender, epoch, number, topic, mode, maybe_redelivered, bytes, crc, payload)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        owner,
        from,
        epoch.0.cast_signed(),
        number.cast_signed(),
        topic,
        mode_number(mode),
        maybe_redelivered,
        delivery.bytes().cast_signed(),
        checksums::delivery(owner, delivery),
        payload,
    ])?;
    Ok(())
}

/// Finds the oldest message of ?1 behind the row ?2, of none of the senders in the JSON array ?3. [`read`] wants these columns.
pub(crate) const NEXT: &str = "SELECT id, sender, epoch, number, topic, mode, maybe_redelivered, failures, payload, crc
     FROM inbox WHERE owner = ?1 AND id > ?2 AND sender NOT IN (SELECT value FROM json_each(?3)) ORDER BY id LIMIT 1";

/// A row's id, and its message if it passes its check.
pub(crate) fn read(owner: &str, row: &Row<'_>) -> rusqlite::Result<(i64, Option<InboxMessage>)> {
    Ok((row.get(0)?, sound(owner, row)))
}

fn sound(owner: &str, row: &Row<'_>) -> Option<InboxMessage> {
    let text = |index: usize| row.get::<_, String>(index).ok();
    let number = |index: usize| row.get::<_, i64>(index).ok();
    let delivered = Delivered {
        from: text(1)?,
        epoch: Epoch(number(2)?.cast_unsigned()),
        number: number(3)?.cast_unsigned(),
        topic: text(4)?,
        mode: mode_of(number(5)?)?,
        maybe_redelivered: row.get(6).ok()?,
        payload: row.get(8).ok()?,
    };
    let failures = u32::try_from(number(7)?).unwrap_or(u32::MAX);
    let is_sound = number(9)? == checksums::delivery(owner, &delivered.lend());
    is_sound.then(|| InboxMessage::new(delivered, failures))
}

/// Takes a damaged row out, and keeps a copy of it.
pub(crate) fn quarantine(conn: &Connection, owner: &str, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO quarantine(epoch, first, last, crc, composite, bytes)
         SELECT epoch, number, number, crc, ?2 || sender, payload FROM inbox WHERE id = ?1",
    )?
    .execute(params![id, format!("{}:\\i", names::prefix(owner))])?;
    delete(conn, id)
}

pub(crate) fn delete(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM inbox WHERE id = ?1")?.execute([id]).map(drop)
}

/// Takes a message out whose processing has failed too often, and puts it aside.
pub(crate) fn put_aside(
    conn: &Connection,
    owner: &str,
    id: i64,
    message: &InboxMessage,
) -> rusqlite::Result<()> {
    let whose = [owner, &message.from, &message.topic];
    insert_dead_letter(conn, whose, DeadReason::Failed, &message.record())?;
    delete(conn, id)
}

/// Puts a dead letter of [`put_aside`] back behind all that waits. Says whether it is one.
pub(crate) fn put_back(conn: &Connection, [owner, peer]: [&str; 2], record: &[u8]) -> rusqlite::Result<bool> {
    let Ok(Record::Message { header, payload }) = record::decode(record) else { return Ok(false) };
    let (Topic::Text(topic), Some(origin)) = (header.topic, header.origin) else { return Ok(false) };
    if origin.name != peer {
        // It came from the handler of a node without an inbox: there the origin is said only of what came by way of another node.
        return Ok(false);
    }
    let delivery = Delivery {
        from: origin.name,
        epoch: origin.epoch,
        number: origin.number,
        topic,
        mode: header.mode,
        maybe_redelivered: header.repeat,
        payload,
    };
    insert(conn, owner, &delivery).map(|()| true)
}
