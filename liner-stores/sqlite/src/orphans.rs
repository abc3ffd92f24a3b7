//! Messages whose stream is gone: its row was deleted by hand, or given another life.

use liner_proto::effect::DeadReason;
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Record, Topic, decode};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::directory::insert_dead_letter;
use crate::names;
use crate::row::checksum;

const ORPHANS: &str = "SELECT s.id, s.composite, s.epoch, s.first, s.last, s.crc, s.records FROM segments s
     LEFT JOIN conn_key_map m ON m.connection_key = s.connection_key
     WHERE substr(s.composite, 1, length(?1)) = ?1
       AND (m.composite IS NULL OR m.composite <> s.composite OR m.stored_epoch <> s.epoch)";

/// Puts the node's orphans among the dead letters, and aside what does not pass its check. Says how many there were.
pub(crate) fn adopt(conn: &mut Connection, owner: &str) -> rusqlite::Result<u64> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut messages = 0;
    let mut done = Vec::new();
    let mut select = transaction.prepare(ORPHANS)?;
    let mut rows = select.query([names::prefix(owner)])?;
    while let Some(row) = rows.next()? {
        let (id, composite, epoch): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (first, last, crc): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let records = row.get_ref(6)?.as_bytes().unwrap_or_default();
        let sound = crc == i64::from(checksum(&composite, epoch, first, last, records));
        done.push((id, sound));
        if !sound {
            continue;
        }
        for step in Walk::new(records, 0).filter(|step| step.is_message()) {
            let record = records.get(step.body..step.end).unwrap_or_default();
            let topic = topic(&transaction, &composite, record)?;
            let whose = [owner, &names::listener(&composite), &topic];
            insert_dead_letter(&transaction, whose, DeadReason::Orphaned, record)?;
            messages += 1;
        }
    }
    drop(rows);
    drop(select);
    for (id, sound) in done {
        if !sound {
            transaction.execute(crate::reading::PUT_ASIDE, [id])?;
        }
        transaction.execute("DELETE FROM segments WHERE id = ?1", [id])?;
    }
    transaction.commit()?;
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
