//! What is found wrong when the store is opened: rows that do not pass their check, and messages whose queue is gone,
//! because it was one of those, or was deleted by hand, or given another life.

use liner_proto::effect::DeadReason;
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Record, Topic, decode};
use liner_store::checksums;
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use crate::directory::{complete, insert_dead_letter};
use crate::names;
use crate::row::{QUEUES, QueueRow};

const ORPHANS: &str = "SELECT s.id, s.composite, s.epoch, s.first, s.last, s.crc, s.records FROM segments s
     LEFT JOIN conn_key_map m ON m.connection_key = s.connection_key
     WHERE substr(s.composite, 1, length(?1)) = ?1
       AND (m.composite IS NULL OR m.owner <> ?2 OR m.composite <> s.composite OR m.stored_epoch <> s.epoch)";

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong {
    /// Queues and cursors that did not pass their check.
    pub(crate) damaged: u64,
    /// Messages without a queue.
    pub(crate) orphaned: u64,
}

/// Deletes the node's rows that do not pass their check, and adds those that follow from others. Puts its messages without a
/// queue among the dead letters, and aside what of them does not pass its check.
///
/// To the other side a queue without a row is one with a new epoch, and a peer without a cursor one that nobody has heard
/// of: messages may come twice, and none goes by unseen.
pub(crate) fn set_right(conn: &mut Connection, owner: &str) -> rusqlite::Result<Wrong> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let damaged = delete_damaged_queues(&transaction, owner)? + delete_damaged_cursors(&transaction, owner)?;
    let orphaned = bury(&transaction, owner)?;
    complete(&transaction, owner)?;
    transaction.commit()?;
    Ok(Wrong { damaged, orphaned })
}

fn delete_damaged_queues(conn: &Connection, owner: &str) -> rusqlite::Result<u64> {
    let mut damaged = Vec::new();
    let mut select = conn.prepare(&format!("{QUEUES} owner = ?1"))?;
    let mut rows = select.query([owner])?;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        // A value of another type than its column's is damage, too.
        let read = QueueRow::read(row).ok().flatten().filter(|queue| is_named(row, owner, &queue.composite));
        match read {
            Some(queue) if topics_are_sound(conn, &queue)? => {}
            _ => damaged.push(key),
        }
    }
    for key in &damaged {
        conn.execute("DELETE FROM conn_key_map WHERE connection_key = ?1", [key])?;
        conn.execute("DELETE FROM conn_sender WHERE connection_key = ?1", [key])?;
    }
    Ok(damaged.len() as u64)
}

/// Whether the row's own name is the one that the composite says.
fn is_named(row: &Row<'_>, owner: &str, composite: &str) -> bool {
    let (Ok(kind), Ok(name)) = (row.get(14), row.get::<_, String>(15)) else { return false };
    names::queue(kind, &name).is_some_and(|queue| names::composite(owner, queue) == composite)
}

fn topics_are_sound(conn: &Connection, queue: &QueueRow) -> rusqlite::Result<bool> {
    let mut select =
        conn.prepare_cached("SELECT number, topic, crc FROM stream_topic WHERE composite = ?1")?;
    let mut rows = select.query([&queue.composite])?;
    while let Some(row) = rows.next()? {
        let read = || Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?));
        let read: rusqlite::Result<_> = read();
        if !read.is_ok_and(|(number, text, crc)| crc == checksums::topic(&queue.composite, number, &text)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn delete_damaged_cursors(conn: &Connection, owner: &str) -> rusqlite::Result<u64> {
    let mut damaged = Vec::new();
    let mut select = conn.prepare("SELECT peer, epoch, through, crc FROM inbound_cursor WHERE owner = ?1")?;
    let mut rows = select.query([owner])?;
    while let Some(row) = rows.next()? {
        let peer = row.get_ref(0)?;
        let read = || Ok((row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?));
        let read: rusqlite::Result<_> = read();
        let sound = peer.as_str().is_ok_and(|peer| {
            read.is_ok_and(|(epoch, through, crc)| crc == checksums::cursor(owner, peer, epoch, through))
        });
        if !sound {
            damaged.push(peer.as_bytes().unwrap_or_default().to_owned());
        }
    }
    for peer in &damaged {
        conn.execute(
            "DELETE FROM inbound_cursor
             WHERE owner = ?1 AND (CAST(peer AS BLOB) = ?2 OR typeof(peer) <> 'text')",
            params![owner, peer],
        )?;
    }
    Ok(damaged.len() as u64)
}

fn bury(transaction: &Connection, owner: &str) -> rusqlite::Result<u64> {
    let mut messages = 0;
    let mut done = Vec::new();
    let mut select = transaction.prepare(ORPHANS)?;
    let mut rows = select.query([&*names::prefix(owner), owner])?;
    while let Some(row) = rows.next()? {
        let (id, composite, epoch): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (first, last, crc): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let records = row.get_ref(6)?.as_bytes().unwrap_or_default();
        let sound = crc == checksums::records(&composite, epoch, first, last, records);
        done.push((id, sound));
        if !sound {
            continue;
        }
        for step in Walk::new(records, 0).filter(|step| step.is_message()) {
            let record = records.get(step.body..step.end).unwrap_or_default();
            let topic = topic(transaction, &composite, record)?;
            let whose = [owner, &names::listener(&composite), &topic];
            insert_dead_letter(transaction, whose, DeadReason::Orphaned, record)?;
            messages += 1;
        }
    }
    for (id, sound) in done {
        if !sound {
            transaction.execute(crate::reading::PUT_ASIDE, [id])?;
        }
        transaction.execute("DELETE FROM segments WHERE id = ?1", [id])?;
    }
    Ok(messages)
}

/// The topic that a record names, or nothing if it names a number that nobody knows any more.
fn topic(conn: &Connection, composite: &str, record: &[u8]) -> rusqlite::Result<String> {
    let number = match decode(record) {
        Ok(Record::Message { header, .. }) => match header.topic {
            Topic::Text(text) => return Ok(text.to_owned()),
            Topic::Number(number) => number,
        },
        Ok(Record::Gap { .. }) | Err(_) => return Ok(String::new()),
    };
    let mut select =
        conn.prepare_cached("SELECT topic FROM stream_topic WHERE composite = ?1 AND number = ?2")?;
    let text = select.query_row(params![composite, number], |row| row.get(0)).optional()?;
    Ok(text.unwrap_or_default())
}
