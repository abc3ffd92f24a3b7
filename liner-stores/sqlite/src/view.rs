//! `conn_messages`: a row a message, although the file keeps many messages in a row.
//!
//! The view walks over the records in plain SQL, so that it works in any SQLite shell. A byte's value is found by its place in
//! a text of all bytes; a length is a number of variable length, of at most five bytes here.

use liner_store::byhand::PAYLOAD_MAX;

/// Ids of messages that were inserted by hand are above all others, so that they come last: they are queued behind the rest.
const INSERTED: &str = "(1 << 62)";

/// The statements that create the view with its triggers, in the place of those of another schema: it holds nothing of its own.
///
/// Columns: `id` and `connection_key`, which name the message, `payload`, `number` (the message's number in its stream),
/// `record` (the whole record) and `topic`. What was acknowledged is not in it. Deleting a row leaves a gap in the stream, which
/// the receiver is told; messages that a running node has in memory already are sent all the same. A row that is inserted has
/// neither number nor record before its node starts the next time.
pub(crate) fn create() -> String {
    let alphabet: String = (1..=255).map(|byte| format!("{byte:02x}")).collect();
    let first_len = varint("s.records", "1");
    let next = format!("({AT} + {LEN})");
    let next_len = varint("s.records", &next);
    let (first_gap, next_gap) = (is_gap("1", &first_len), is_gap(&next, &next_len));
    let count = varint("s.records", &format!("({AT} + 2)"));
    let (payload, topic, triggers) = (payload(), topic(), triggers());
    format!(
        "
DROP VIEW IF EXISTS conn_messages;
DROP TABLE IF EXISTS byte_order;
CREATE TABLE byte_order(bytes BLOB NOT NULL);
INSERT INTO byte_order VALUES(x'{alphabet}');
CREATE VIEW conn_messages(id, connection_key, payload, number, record, topic) AS
WITH RECURSIVE
  step(segment, number, packed, start, gap) AS (
    SELECT s.id, s.first, {first_len}, 1, {first_gap} FROM segments s, byte_order b WHERE length(s.records) > 0
    UNION ALL
    SELECT -id, NULL, NULL, NULL, NULL FROM inserted
    UNION ALL
    SELECT s.id, w.number + iif(w.gap, {count} >> 3, 1), {next_len}, {next}, {next_gap}
    FROM step w JOIN segments s ON s.id = w.segment, byte_order b
    WHERE {next} <= length(s.records)
  )
SELECT coalesce({INSERTED} | i.id, s.id << 24 | (w.number - s.first)), coalesce(i.connection_key, s.connection_key),
  coalesce(i.payload, {payload}), w.number + m.shift, substr(s.records, {AT}, {LEN}), coalesce(i.topic, {topic})
FROM step w LEFT JOIN inserted i ON i.id = -w.segment
LEFT JOIN segments s ON s.id = w.segment
LEFT JOIN conn_key_map m ON m.connection_key = s.connection_key, byte_order b
WHERE i.id IS NOT NULL
  OR w.number + m.shift > max(m.trimmed, coalesce(m.dropped_through, 0))
  AND NOT w.gap
  AND NOT EXISTS (SELECT 1 FROM cleared c WHERE c.connection_key = s.connection_key AND c.number = w.number);
{triggers}"
    )
}

/// What becomes of a row that is deleted or inserted by hand.
fn triggers() -> String {
    // What is escaped in a composite is of no matter to its form.
    let form = r"replace(replace(m.composite, '\\', 'x'), '\:', 'x')";
    let topic = "coalesce(CAST(NEW.topic AS TEXT), iif(m.kind = 1, m.name, (
    SELECT max(t.topic) FROM stream_topic t WHERE t.composite = m.composite GROUP BY t.composite HAVING count(*) = 1)))";
    format!(
        "
CREATE TRIGGER conn_messages_delete INSTEAD OF DELETE ON conn_messages BEGIN
  INSERT OR IGNORE INTO cleared
  SELECT m.connection_key, OLD.number - m.shift FROM conn_key_map m
  WHERE m.connection_key = OLD.connection_key AND OLD.number IS NOT NULL;
  DELETE FROM inserted WHERE OLD.number IS NULL AND id = OLD.id - {INSERTED};
END;
CREATE TRIGGER conn_messages_insert INSTEAD OF INSERT ON conn_messages BEGIN
  SELECT RAISE(ABORT, 'no queue has this connection_key: look it up in conn_key_map')
  WHERE NOT EXISTS (SELECT 1 FROM conn_key_map WHERE connection_key = NEW.connection_key);
  SELECT RAISE(ABORT, 'the composite of this connection_key names no queue: write it as sender::listener')
  FROM conn_key_map m WHERE m.connection_key = NEW.connection_key
    AND (typeof(m.composite) <> 'text' OR {form} NOT LIKE '_%::_%' OR length({form}) - length(replace({form}, ':', '')) <> 2);
  SELECT RAISE(ABORT, 'the payload is missing or empty: give it as a text or a blob')
  WHERE coalesce(length(CAST(NEW.payload AS BLOB)), 0) = 0;
  SELECT RAISE(ABORT, 'the payload has more than {PAYLOAD_MAX} bytes: send it in parts')
  WHERE length(CAST(NEW.payload AS BLOB)) > {PAYLOAD_MAX};
  SELECT RAISE(ABORT, 'what is kept for a topic is of that topic: leave the column topic out')
  FROM conn_key_map m WHERE m.connection_key = NEW.connection_key AND m.kind = 1 AND NEW.topic <> m.name;
  SELECT RAISE(ABORT, 'the queue has no topic or several: name one of at most 255 bytes in the column topic')
  FROM conn_key_map m WHERE m.connection_key = NEW.connection_key
    AND coalesce(length(CAST({topic} AS BLOB)), 0) NOT BETWEEN 1 AND 255;
  INSERT INTO inserted(connection_key, composite, topic, payload)
  SELECT m.connection_key, m.composite, {topic}, CAST(NEW.payload AS BLOB)
  FROM conn_key_map m WHERE m.connection_key = NEW.connection_key;
END;
"
    )
}

/// Where the record of the step `w` begins, behind its length.
const AT: &str = "(w.start + (w.packed & 7))";

/// The bytes it has.
const LEN: &str = "(w.packed >> 3)";

/// Whether the record is a gap whose length begins at `at` and is `len`, with the bytes that the length takes.
fn is_gap(at: &str, len: &str) -> String {
    format!("{} & 3 = 3", byte("s.records", &format!("({at} + ({len} & 7))")))
}

/// The value of one byte of a blob; places count from 1.
fn byte(blob: &str, at: &str) -> String {
    format!("instr(b.bytes, substr({blob}, {at}, 1))")
}

/// A number of variable length, times 8, plus the bytes it takes.
fn varint(blob: &str, at: &str) -> String {
    let mut sql = String::from("CASE");
    let mut value = String::new();
    for len in 1..=5 {
        let byte = byte(blob, &format!("{at} + {}", len - 1));
        let sum = format!("{value}(({byte} & 127) << {shift})", shift = 7 * (len - 1) + 3);
        if len < 5 {
            sql.push_str(&format!(" WHEN {byte} < 128 THEN ({sum}) | {len}"));
        } else {
            sql.push_str(&format!(" ELSE ({sum}) | {len} END"));
        }
        value = format!("{sum} | ");
    }
    format!("({sql})")
}

/// What stands behind the header of the record.
fn payload() -> String {
    format!("({} SELECT substr(s.records, h.at, {AT} + {LEN} - h.at) FROM h WHERE h.left = '')", header())
}

/// The topic of the record, which is the last field of its header: written out, or by the number that the stream gave it.
fn topic() -> String {
    let flags = byte("s.records", AT);
    let text = varint("s.records", "h.at");
    format!(
        "({} SELECT iif({flags} & 4, CAST(substr(s.records, h.at + ({text} & 7), {text} >> 3) AS TEXT),
      (SELECT t.topic FROM stream_topic t WHERE t.composite = s.composite AND t.number = {text} >> 3))
    FROM h WHERE length(h.left) = 1 ORDER BY h.at LIMIT 1)",
        header()
    )
}

/// Passes the fields of the record's header one by one, as a list of letters says, `t` for a text, `v` for a number of variable
/// length, `b` for a byte. `h.left` are those that begin at `h.at` or later.
fn header() -> String {
    let flags = byte("s.records", AT);
    let ext = byte("s.records", &format!("({AT} + 1)"));
    let here = byte("s.records", "h.at");
    let text = varint("s.records", "h.at");
    format!(
        "WITH RECURSIVE h(at, left) AS (
      SELECT {AT} + 1 + ({flags} & 8 <> 0),
        iif({flags} & 8 = 0, '', iif({ext} & 1, 'tvv', '') || iif({ext} & 2, 'b', '')
          || iif({ext} & 4, 'v', '') || iif({ext} & 8, 'v', '')) || iif({flags} & 4, 't', 'v')
      UNION ALL
      SELECT h.at + iif(h.left LIKE 't%', ({text} & 7) + ({text} >> 3), 1),
        iif(h.left LIKE 'v%' AND {here} >= 128, h.left, substr(h.left, 2))
      FROM h WHERE h.left <> '' AND h.at < {AT} + {LEN}
    )"
    )
}
