//! Reading records back, and putting aside what does not pass its check.

use liner_proto::effect::{GapReason, Loaded, Queue};
use liner_proto::store::run::{Copied, Walk, copy_above};
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use liner_proto::wire::varint::put_varint;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::PostgresStore;
use crate::columns::of;
use crate::error::Failure;
use crate::link::Link;
use crate::rows::QueueRow;
use crate::turn::Turn;

/// The messages above a number and through another one, as many as have room, and one at least. Without the second bound a server that
/// does not know yet how many rows the table has would sort all of them. It counts row by row: several that have the same number, by hand
/// or by damage, are no reason to give none of them.
const BETWEEN: &str = "SELECT id, number, covers, crc, head, payload FROM (
  SELECT *, sum(octet_length(head) + octet_length(payload) + 1) OVER (ORDER BY number ROWS UNBOUNDED PRECEDING) AS through,
    octet_length(head) + octet_length(payload) + 1 AS len FROM (
    SELECT id, number, covers, crc, coalesce(head, '') AS head, coalesce(payload, '') AS payload FROM conn_messages
    WHERE connection_key = $1 AND number > $2 AND number <= $3 AND epoch = $4) AS next) AS sized
WHERE through - len <= 0 OR through <= $5 ORDER BY number";

/// The first number above one that has a message.
const NEXT: &str = "SELECT number FROM conn_messages WHERE connection_key = $1 AND number > $2 AND epoch = $3
ORDER BY number LIMIT 1";

/// Puts the bytes of a damaged message aside. Its row stays, so that its number is told as damaged as often as it is asked for.
const PUT_ASIDE: &str = "WITH aside AS (
  INSERT INTO quarantine(connection_key, epoch, first, last, crc, composite, bytes)
  SELECT connection_key, epoch, number, number, crc, composite, coalesce(head, '') || payload
  FROM conn_messages WHERE id = $1)
UPDATE conn_messages SET head = '', payload = '', covers = coalesce(covers, 1) WHERE id = $1";

/// Messages and bytes of all queues of a node, by their keys. A length before a record has one to five bytes.
const COUNTS: &str = "SELECT connection_key, count(*) FILTER (WHERE covers IS NULL),
  sum(len + CASE WHEN len < 128 THEN 1 WHEN len < 16384 THEN 2 WHEN len < 2097152 THEN 3 WHEN len < 268435456 THEN 4
    ELSE 5 END)::bigint
FROM (SELECT q.connection_key, m.covers, (coalesce(octet_length(m.head), 0) + octet_length(m.payload))::bigint AS len
  FROM conn_key_map q JOIN conn_messages m ON m.connection_key = q.connection_key AND m.epoch = q.stored_epoch
    AND m.number > greatest(q.trimmed, coalesce(q.dropped_through, 0)) - q.shift
  WHERE ($1 IS NULL OR q.owner = $1) AND ($2 = 0 OR q.connection_key = $2)) AS held GROUP BY connection_key";

/// A message as the database has it.
struct Message<'a> {
    id: i64,
    first: i64,
    last: i64,
    crc: i64,
    head: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(row: &'a Row) -> Result<Self, Failure> {
        let number: i64 = row.try_get(1)?;
        let covers: Option<i64> = row.try_get(2)?;
        let first = number.checked_sub(covers.unwrap_or(1)).and_then(|before| before.checked_add(1));
        Ok(Self {
            id: row.try_get(0)?,
            // Whatever cannot be has the wrong check, too.
            first: first.unwrap_or(-1),
            last: number,
            crc: row.try_get::<_, Option<i64>>(3)?.unwrap_or(-1),
            head: bytes(row, 4)?,
            payload: bytes(row, 5)?,
        })
    }

    /// The record, if it passes its check.
    fn record(&self, queue: &QueueRow) -> Option<Vec<u8>> {
        let record = [self.head, self.payload].concat();
        let is_sound = self.first >= 0 && !record.is_empty();
        (is_sound && self.crc == queue.checksum(self.first, self.last, &record)).then_some(record)
    }
}

fn bytes(row: &Row, index: usize) -> Result<&[u8], Failure> {
    Ok(row.try_get::<_, Option<&[u8]>>(index)?.unwrap_or_default())
}

/// What a load found, in stored numbers.
enum Found {
    Loaded(Loaded),
    Damaged { id: i64, first: i64, last: i64, is_empty: bool },
}

impl PostgresStore {
    pub(crate) fn read(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, Failure> {
        let Some((_, row)) = self.rows.find(queue) else { return Ok(Loaded::Nothing) };
        let head = row.numbers.head;
        let after = after.max(head.floor());
        if after >= head.last {
            return Ok(Loaded::Nothing);
        }
        let row = row.clone();
        let stored = row.numbers.stored(after)?;
        let epoch = row.stored_epoch.0.cast_signed();
        let mut found = self.page(&row, stored, into.len())?;
        // What is found next may be deleted by hand before it is read: what is behind that is not.
        while found.is_empty() {
            let [stored, epoch] = [&stored, &epoch].map(|number| of(number, Type::INT8));
            let next = self.linked()?.query(NEXT, &[of(&row.key, Type::INT4), stored, epoch])?;
            let Some(next) = next.first() else { break };
            found = self.page(&row, next.try_get::<_, i64>(0)?.saturating_sub(1), into.len())?;
        }
        let shifted = |number: i64| number.cast_unsigned().wrapping_add(row.numbers.shift);
        Ok(match copy(&row, &found, stored, into)? {
            Found::Loaded(Loaded::Records { first, last, len }) => {
                let (first, last) = (shifted(first.cast_signed()), shifted(last.cast_signed()));
                Loaded::Records { first, last, len }
            }
            Found::Loaded(other) => other,
            Found::Damaged { id, first, last, is_empty } => {
                if !is_empty && self.turn == Turn::Idle {
                    // If that fails the bytes stay where they are, and fail their check the next time.
                    let _ = self.linked()?.query(PUT_ASIDE, &[of(&id, Type::INT8)]);
                }
                Loaded::Corrupt { first: shifted(first), last: shifted(last) }
            }
        })
    }

    /// The messages of the next numbers, as many as have room in so many bytes, and one at least if there is one among them.
    fn page(&mut self, row: &QueueRow, above: i64, room: usize) -> Result<Vec<Row>, Failure> {
        // A quarter more than would fill the room if they were as long as those of the page before.
        let fitting = room / self.typical.max(16);
        let through = above.saturating_add((fitting + fitting / 4).clamp(8, 4096) as i64);
        let epoch = row.stored_epoch.0.cast_signed();
        let room = room as i64;
        let [above, through, epoch, room] =
            [&above, &through, &epoch, &room].map(|number| of(number, Type::INT8));
        let found =
            self.linked()?.query(BETWEEN, &[of(&row.key, Type::INT4), above, through, epoch, room])?;
        let bytes = found
            .iter()
            .map(|row| Ok(bytes(row, 4)?.len() + bytes(row, 5)?.len()))
            .sum::<Result<usize, Failure>>()?;
        if let Some(typical) = bytes.checked_div(found.len()) {
            self.typical = typical;
        }
        Ok(found)
    }

    /// Messages and bytes of all queues, or of one, by their keys.
    pub(crate) fn count(&mut self, key: i32) -> Result<Vec<(i32, u64, u64)>, Failure> {
        let name = self.name.clone();
        count_queues(self.linked()?, Some(&name), key)
    }
}

/// The same of any node, or of all.
pub(crate) fn count_queues(
    link: &Link,
    owner: Option<&String>,
    key: i32,
) -> Result<Vec<(i32, u64, u64)>, Failure> {
    let rows = link.query(COUNTS, &[of(&owner, Type::TEXT), of(&key, Type::INT4)])?;
    rows.iter()
        .map(|row| {
            let (messages, bytes): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            Ok((row.try_get(0)?, messages.unsigned_abs(), bytes.unsigned_abs()))
        })
        .collect()
}

/// Copies what was found behind `after`, as far as it is whole and there is room for it. Numbers without a row were deleted by hand:
/// they are a gap.
fn copy(queue: &QueueRow, rows: &[Row], after: i64, into: &mut [u8]) -> Result<Found, Failure> {
    let mut run = Vec::with_capacity(into.len());
    let mut expected = after + 1;
    let mut begin = None;
    for (index, row) in rows.iter().enumerate() {
        let message = Message::read(row)?;
        let Some(record) = message.record(queue) else {
            if begin.is_none() {
                let next = rows.get(index + 1).map(Message::read).transpose()?;
                if next.as_ref().is_some_and(|next| next.last == message.last) {
                    // Somebody has put the message back beside what is left of it, or it is another one whose number is damaged.
                    continue;
                }
                return Ok(damaged(queue, &message, after, next.map(|next| next.first)));
            }
            break;
        };
        if begin.is_some() && message.first < expected {
            break;
        }
        put_gap(&mut run, expected, message.first - 1);
        put(&mut run, &record);
        begin.get_or_insert(message.first.min(expected));
        expected = message.last.saturating_add(1);
    }
    if rows.is_empty() {
        put_gap(&mut run, expected, queue.numbers.stored(queue.numbers.head.last)?);
    }
    let walk = Walk::new(&run, begin.unwrap_or(expected).cast_unsigned());
    Ok(Found::Loaded(match copy_above(walk, after.cast_unsigned(), into) {
        Copied::Records { first, last, len } => Loaded::Records { first, last, len },
        Copied::TooSmall { needed } => Loaded::TooSmall { needed },
        Copied::Nothing | Copied::Malformed => Loaded::Nothing,
    }))
}

/// Appends a record with its length.
fn put(run: &mut Vec<u8>, record: &[u8]) {
    let mut prefix = [0; 10];
    let len = put_varint(&mut prefix, record.len() as u64).unwrap_or(0);
    run.extend_from_slice(prefix.get(..len).unwrap_or_default());
    run.extend_from_slice(record);
}

/// Appends a gap over these numbers, if there are any.
fn put_gap(run: &mut Vec<u8>, first: i64, last: i64) {
    let mut gap = [0; GAP_LEN_MAX];
    let count = u64::try_from(last - first + 1).unwrap_or(0);
    if let Some(len) = encode_gap(GapReason::Cleared, count, &mut gap) {
        put(run, gap.get(..len).unwrap_or_default());
    }
}

/// The numbers of a damaged message are as doubtful as its bytes: it begins where the one before it ended, and ends at the latest where
/// the next one begins.
fn damaged(queue: &QueueRow, message: &Message<'_>, after: i64, next: Option<i64>) -> Found {
    let first = after + 1;
    let most = queue.numbers.stored(queue.numbers.head.last).unwrap_or(first);
    let end = next.filter(|next| *next > first).map_or(most, |next| (next - 1).min(most));
    let last = message.last.max(first).min(end);
    let is_empty = message.head.is_empty() && message.payload.is_empty();
    Found::Damaged { id: message.id, first: first.min(last), last, is_empty }
}
