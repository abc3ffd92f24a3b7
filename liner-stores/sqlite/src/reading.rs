//! Reading records back, and putting aside what does not pass its check.

use std::borrow::Cow;

use liner_proto::effect::{GapReason, Loaded, Queue};
use liner_proto::store::run::{Copied, Walk, copy_above};
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use rusqlite::{Connection, Row};

use crate::SqliteStore;
use crate::row::QueueRow;
use crate::turn::{Failure, Turn};

/// The segments above a number, in the order of their numbers.
const ABOVE: &str = "SELECT id, first, last, crc, records FROM segments
     WHERE connection_key = ?1 AND last > ?2 AND epoch = ?3 ORDER BY last";

/// Keeps a copy of a segment that does not pass its check.
pub(crate) const PUT_ASIDE: &str =
    "INSERT INTO quarantine(connection_key, epoch, first, last, crc, composite, bytes)
     SELECT connection_key, epoch, first, last, crc, composite, records FROM segments WHERE id = ?1";

/// What a load found, in the numbers that segments have.
enum Found {
    Loaded(Loaded),
    /// The segment `id` does not pass its check; `clear` if its bytes are put aside already.
    Damaged {
        id: i64,
        first: i64,
        last: i64,
        clear: bool,
    },
}

impl SqliteStore {
    pub(crate) fn read(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, Failure> {
        self.refresh()?;
        let Some(row) = self.rows.find(&self.conn, &self.owner, queue)? else { return Ok(Loaded::Nothing) };
        let after = after.max(row.numbers.head.floor());
        if after >= row.numbers.head.last {
            return Ok(Loaded::Nothing);
        }
        let shift = row.numbers.shift;
        let shifted = |number: u64| number.wrapping_add(shift);
        let loaded = match read_above(&self.conn, row, row.numbers.stored(after)?, into, self.cleared)? {
            Found::Loaded(loaded) => loaded,
            Found::Damaged { id, first, last, clear } => {
                if !clear {
                    self.quarantine(id);
                }
                Loaded::Corrupt { first: first.cast_unsigned(), last: last.cast_unsigned() }
            }
        };
        Ok(match loaded {
            Loaded::Records { first, last, len } => {
                Loaded::Records { first: shifted(first), last: shifted(last), len }
            }
            Loaded::Corrupt { first, last } => Loaded::Corrupt { first: shifted(first), last: shifted(last) },
            Loaded::Nothing | Loaded::TooSmall { .. } => loaded,
        })
    }

    /// Puts the bytes of a damaged segment aside. The segment stays, without them, so that its numbers are told as damaged as
    /// often as they are asked for. If that fails the bytes stay where they are, and fail their check the next time.
    fn quarantine(&self, id: i64) {
        let own = self.turn == Turn::Idle;
        let (begin, end) =
            if own { ("BEGIN IMMEDIATE", "COMMIT") } else { ("SAVEPOINT aside", "RELEASE aside") };
        let moved = self.run(begin).and_then(|()| {
            self.conn.execute(PUT_ASIDE, [id])?;
            self.conn.execute("UPDATE segments SET records = x'', messages = 0 WHERE id = ?1", [id])?;
            self.run(end)
        });
        if moved.is_err() {
            let _ = if own {
                self.run("ROLLBACK")
            } else {
                self.run("ROLLBACK TO aside").and_then(|()| self.run("RELEASE aside"))
            };
        }
    }
}

/// Copies what is stored above `after`, over as many segments as the buffer has room for.
fn read_above(
    conn: &Connection,
    queue: &QueueRow,
    after: i64,
    into: &mut [u8],
    cleared: bool,
) -> Result<Found, Failure> {
    let mut select = conn.prepare_cached(ABOVE)?;
    let mut rows = select.query([queue.key, after, queue.stored_epoch.0.cast_signed()])?;
    let mut so_far: Option<(u64, u64, usize)> = None;
    while let Some(row) = rows.next()? {
        let segment = Segment::read(row)?;
        let (begun, len) = so_far.map_or((after.cast_unsigned(), 0), |(_, last, len)| (last, len));
        if so_far.is_some() && segment.first.cast_unsigned() != begun + 1 {
            break;
        }
        let sound = segment.crc == queue.checksum(segment.first, segment.last, segment.records);
        let copied = if sound && segment.first >= 0 {
            let records =
                if cleared { segment.without_cleared(conn, queue.key)? } else { segment.records.into() };
            let room = into.get_mut(len..).unwrap_or_default();
            copy_above(Walk::new(&records, segment.first.cast_unsigned()), begun, room)
        } else {
            Copied::Malformed
        };
        match copied {
            Copied::Records { first, last, len: more } => {
                so_far = Some((so_far.map_or(first, |(first, _, _)| first), last, len + more));
                if last != segment.last.cast_unsigned() {
                    break;
                }
            }
            Copied::TooSmall { needed } if so_far.is_none() => {
                return Ok(Found::Loaded(Loaded::TooSmall { needed }));
            }
            Copied::Nothing | Copied::Malformed if so_far.is_none() => {
                let (id, clear) = (segment.id, segment.records.is_empty());
                // Its own numbers are as doubtful as its bytes: it begins where the one before it ended, and ends at
                // the latest where the next one begins.
                let (first, last) = (after + 1, segment.last);
                let next = rows.next()?.map(|row| row.get::<_, i64>(1)).transpose()?;
                let end = next.filter(|&next| next > first).map_or(i64::MAX, |next| next - 1);
                let end = end.min(queue.numbers.stored(queue.numbers.head.last)?);
                let last = last.max(first).min(end);
                return Ok(Found::Damaged { id, first: first.min(last), last, clear });
            }
            Copied::Nothing | Copied::Malformed | Copied::TooSmall { .. } => break,
        }
    }
    Ok(Found::Loaded(so_far.map_or(Loaded::Nothing, |(first, last, len)| Loaded::Records {
        first,
        last,
        len,
    })))
}

/// A row of [`ABOVE`].
struct Segment<'a> {
    id: i64,
    first: i64,
    last: i64,
    crc: i64,
    records: &'a [u8],
}

impl<'a> Segment<'a> {
    fn read(row: &'a Row<'_>) -> Result<Self, Failure> {
        let (id, first, last, crc) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        // Whatever is no blob any more has the wrong check, too.
        let records = row.get_ref(4)?.as_bytes_or_null().ok().flatten().unwrap_or_default();
        Ok(Self { id, first, last, crc, records })
    }

    /// The records, with gaps in the place of those that were deleted by hand.
    fn without_cleared(&self, conn: &Connection, key: i64) -> Result<Cow<'a, [u8]>, Failure> {
        let mut select = conn.prepare_cached(
            "SELECT number FROM cleared WHERE connection_key = ?1 AND number BETWEEN ?2 AND ?3",
        )?;
        let rows = select.query_map([key, self.first, self.last], |row| row.get::<_, i64>(0))?;
        let numbers = rows.collect::<rusqlite::Result<std::collections::BTreeSet<i64>>>()?;
        if numbers.is_empty() {
            return Ok(self.records.into());
        }
        let mut kept = Vec::with_capacity(self.records.len());
        for step in Walk::new(self.records, self.first.cast_unsigned()) {
            if step.is_message() && numbers.contains(&step.first.cast_signed()) {
                put_gap(&mut kept);
            } else {
                kept.extend_from_slice(self.records.get(step.start..step.end).unwrap_or_default());
            }
        }
        Ok(kept.into())
    }
}

/// Appends the record of a gap of one number, which an operator made.
fn put_gap(records: &mut Vec<u8>) {
    let mut gap = [0; GAP_LEN_MAX];
    let len = encode_gap(GapReason::Cleared, 1, &mut gap).unwrap_or(0);
    // It is so short that its length takes one byte.
    records.push(len as u8);
    records.extend_from_slice(gap.get(..len).unwrap_or_default());
}

/// Messages and bytes that a queue holds above what is forgotten.
pub(crate) fn count(conn: &Connection, queue: &QueueRow, cleared: bool) -> Result<(u64, u64), Failure> {
    let floor = queue.numbers.stored(queue.numbers.head.floor())?;
    let epoch = queue.stored_epoch.0.cast_signed();
    let mut sums = conn.prepare_cached(
        "SELECT coalesce(sum(messages), 0), coalesce(sum(length(records)), 0) FROM segments
         WHERE connection_key = ?1 AND last > ?2 AND epoch = ?3",
    )?;
    let (mut messages, mut bytes): (i64, i64) =
        sums.query_row([queue.key, floor, epoch], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut select = conn.prepare_cached(ABOVE)?;
    let mut rows = select.query([queue.key, floor, epoch])?;
    if let Some(row) = rows.next()? {
        let segment = Segment::read(row)?;
        let walk = Walk::new(segment.records, segment.first.max(0).cast_unsigned());
        for step in walk.take_while(|step| step.last <= floor.cast_unsigned()) {
            messages -= i64::from(step.is_message());
            bytes -= (step.end - step.start) as i64;
        }
    }
    if cleared {
        let mut select =
            conn.prepare_cached("SELECT count(*) FROM cleared WHERE connection_key = ?1 AND number > ?2")?;
        messages -= select.query_row([queue.key, floor], |row| row.get::<_, i64>(0))?;
    }
    Ok((messages.max(0).cast_unsigned(), bytes.max(0).cast_unsigned()))
}
