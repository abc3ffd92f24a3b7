//! Messages whose queue is gone, because it was damaged, or was deleted by hand, or given another life.

use std::collections::HashMap;

use liner_proto::wire::record::{Record, Topic, decode};
use liner_store::{checksums, names};
use tokio_postgres::types::Type;

use crate::buffer::Buffer;
use crate::columns::of;
use crate::error::Failure;
use crate::mend::{KEYS, Opening, bury_in};
use crate::rows::{Cursors, Rows};
use crate::text::{from_column, to_column};

/// A page of them: of no node's queue, or of a queue of this one that is not theirs.
fn select() -> String {
    format!(
        "{KEYS}
SELECT id, composite, epoch, number, covers, crc, coalesce(head, ''), payload FROM (
  SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload) AS before FROM (
    SELECT m.* FROM keys LEFT JOIN conn_key_map q ON q.connection_key = k
      JOIN conn_messages m ON m.connection_key = k
    WHERE (q.owner IS NULL OR q.owner IN ($1, '')) AND m.epoch IS NOT NULL AND starts_with(m.composite, $2)
      AND (q.owner IS NULL OR q.owner <> $1 OR q.composite <> m.composite OR q.stored_epoch <> m.epoch)
    ORDER BY m.id LIMIT 4096) AS next) AS sized
WHERE before < 4194304 ORDER BY id"
    )
}

const PUT_ASIDE: &str = "INSERT INTO quarantine(connection_key, epoch, first, last, crc, composite, bytes)
SELECT connection_key, epoch, number, number, crc, composite, coalesce(head, '') || payload
FROM conn_messages WHERE id = ANY($1) AND coalesce(octet_length(head), 0) + octet_length(payload) > 0";

/// Puts them among the dead letters, and aside what does not pass its check. Says how many are dead letters now.
pub(crate) fn bury(opening: Opening<'_>) -> Result<u64, Failure> {
    let (owner, name) = (opening.mark.owner, opening.mark.name);
    let prefix = to_column(&names::prefix(owner)).into_owned();
    let sql = select();
    let mut topics: HashMap<String, HashMap<u32, String>> = HashMap::new();
    let mut orphaned = 0;
    loop {
        let rows = opening.link.query(&sql, &[of(&name, Type::TEXT), of(&prefix, Type::TEXT)])?;
        if rows.is_empty() {
            return Ok(orphaned);
        }
        let (mut done, mut damaged, mut buffer) = (Vec::new(), Vec::new(), Buffer::default());
        for row in &rows {
            let (id, composite) = (row.try_get(0)?, from_column(row.try_get(1)?));
            let (epoch, number): (i64, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
            let covers = row.try_get::<_, Option<i64>>(4)?;
            let last = number.unwrap_or(-1);
            let first = last.saturating_sub(covers.unwrap_or(1)).saturating_add(1);
            let mut record = row.try_get::<_, &[u8]>(6)?.to_vec();
            record.extend_from_slice(row.try_get(7)?);
            let crc = checksums::records(&composite, epoch, first, last, &record);
            done.push(id);
            if row.try_get::<_, Option<i64>>(5)? != Some(crc) {
                damaged.push(id);
                continue;
            }
            let Ok(Record::Message { header, .. }) = decode(&record) else { continue };
            if !topics.contains_key(&*composite) {
                topics.insert(composite.clone().into_owned(), opening.topics(&composite)?);
            }
            let known = topics.get(&*composite);
            let topic = match header.topic {
                Topic::Text(text) => text,
                Topic::Number(number) => known.and_then(|known| known.get(&number)).map_or("", |text| text),
            };
            bury_in(&mut buffer, [owner, &names::listener(&composite), topic], &record);
            orphaned += 1;
        }
        if !damaged.is_empty() {
            opening.link.query(PUT_ASIDE, &[of(&damaged, Type::INT8_ARRAY)])?;
        }
        opening.flush(&buffer, &mut Rows::default(), &Cursors::default())?;
        opening.delete(&done)?;
    }
}
