//! `conn_messages`: a row a message, although the file keeps many messages in a row.
//!
//! The view walks over the records in plain SQL, so that it works in any SQLite shell. A byte's value is found by its place in
//! a text of all bytes; a length is a number of variable length, of at most five bytes here.

/// The statements that create the view with its trigger.
///
/// Columns: `id` and `connection_key`, which name the message, `payload`, `number` (the message's number in its stream) and
/// `record` (the whole record). What was acknowledged is not in it. Deleting a row leaves a gap in the stream, which the
/// receiver is told; messages that a running node has in memory already are sent all the same.
pub(crate) fn create() -> String {
    let alphabet: String = (1..=255).map(|byte| format!("{byte:02x}")).collect();
    let first_len = varint("s.records", "1");
    let next = format!("({AT} + {LEN})");
    let next_len = varint("s.records", &next);
    let kind = byte("s.records", AT);
    let count = varint("s.records", &format!("({AT} + 2)"));
    let payload = payload();
    format!(
        "
CREATE TABLE byte_order(bytes BLOB NOT NULL);
INSERT INTO byte_order VALUES(x'{alphabet}');
CREATE VIEW conn_messages(id, connection_key, payload, number, record) AS
WITH RECURSIVE
  step(segment, number, packed, start) AS (
    SELECT s.id, s.first, {first_len}, 1 FROM segments s, byte_order b WHERE length(s.records) > 0
    UNION ALL
    SELECT s.id, w.number + iif({kind} & 3 = 3, {count} >> 3, 1), {next_len}, {next}
    FROM step w JOIN segments s ON s.id = w.segment, byte_order b
    WHERE {next} <= length(s.records)
  )
SELECT s.id << 24 | (w.number - s.first), s.connection_key, {payload}, w.number + m.shift, substr(s.records, {AT}, {LEN})
FROM step w JOIN segments s ON s.id = w.segment
JOIN conn_key_map m ON m.connection_key = s.connection_key, byte_order b
WHERE w.number + m.shift > max(m.trimmed, coalesce(m.dropped_through, 0))
  AND {kind} & 3 <> 3
  AND NOT EXISTS (SELECT 1 FROM cleared c WHERE c.connection_key = s.connection_key AND c.number = w.number);
CREATE TRIGGER conn_messages_delete INSTEAD OF DELETE ON conn_messages BEGIN
  INSERT OR IGNORE INTO cleared
  SELECT m.connection_key, OLD.number - m.shift FROM conn_key_map m WHERE m.connection_key = OLD.connection_key;
END;
"
    )
}

/// Where the record of the step `w` begins, behind its length.
const AT: &str = "(w.start + (w.packed & 7))";

/// The bytes it has.
const LEN: &str = "(w.packed >> 3)";

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

/// What stands behind the header of the record: the header's fields are passed one by one, as a list of letters says, `t` for a
/// text, `v` for a number of variable length, `b` for a byte.
fn payload() -> String {
    let flags = byte("s.records", AT);
    let ext = byte("s.records", &format!("({AT} + 1)"));
    let here = byte("s.records", "h.at");
    let text = varint("s.records", "h.at");
    format!(
        "(WITH RECURSIVE h(at, left) AS (
      SELECT {AT} + 1 + ({flags} & 8 <> 0),
        iif({flags} & 8 = 0, '', iif({ext} & 1, 'tvv', '') || iif({ext} & 2, 'b', '')
          || iif({ext} & 4, 'v', '') || iif({ext} & 8, 'v', '')) || iif({flags} & 4, 't', 'v')
      UNION ALL
      SELECT h.at + iif(h.left LIKE 't%', ({text} & 7) + ({text} >> 3), 1),
        iif(h.left LIKE 'v%' AND {here} >= 128, h.left, substr(h.left, 2))
      FROM h WHERE h.left <> '' AND h.at < {AT} + {LEN}
    ) SELECT substr(s.records, h.at, {AT} + {LEN} - h.at) FROM h WHERE h.left = '')"
    )
}
