//! What an operator has inserted into the view `conn_messages`: it stands in the table `inserted` until its node is started,
//! and is queued then like what the node itself sends.
//!
//! A running node knows how far its queues go and appends behind that; whoever else appended would take its numbers. So the
//! store does it before it tells the node of its queues.

use std::hash::{BuildHasher as _, RandomState};

use liner_proto::effect::{DeadReason, GapReason, StoreFault};
use liner_proto::id::Epoch;
use liner_proto::wire::TEXT_MAX;
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use liner_store::byhand::{PAYLOAD_MAX, put, record};
use liner_store::look::{Pending, Target};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::directory::insert_dead_letter;
use crate::error::classify;
use crate::names;
use crate::queues::create;
use crate::row::{QUEUES, QueueRow};
use crate::turn::Failure;

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// Messages that are queued now.
    pub(crate) queued: u64,
    /// Messages that were put among the dead letters, because there is no such queue.
    pub(crate) orphaned: u64,
    /// Messages that are left for the next start.
    pub(crate) waiting: u64,
}

/// Queues what was inserted for the node, all of it or nothing. If there is no room it waits: the node is started without it.
pub(crate) fn take(conn: &mut Connection, owner: &str) -> rusqlite::Result<Inserted> {
    match try_take(conn, owner) {
        Ok(taken) => Ok(taken),
        Err(Failure::Sqlite(error)) if classify(&error) != StoreFault::Full => Err(error),
        Err(Failure::Sqlite(_) | Failure::Fault(_)) => {
            let mut waiting = 0;
            for stream in streams(conn, owner)? {
                waiting += stream.count(conn)?;
            }
            Ok(Inserted { waiting, ..Inserted::default() })
        }
    }
}

fn try_take(conn: &mut Connection, owner: &str) -> Result<Inserted, Failure> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut taken = Inserted::default();
    for stream in streams(&transaction, owner)? {
        match stream.destination(&transaction, owner)? {
            Destination::Unsure => taken.waiting += stream.count(&transaction)?,
            Destination::Queue(mut row) => {
                stream.drain(&transaction, owner, Some(&mut row), &mut taken)?;
                row.save(&transaction)?;
            }
            Destination::Nowhere => stream.drain(&transaction, owner, None, &mut taken)?,
        }
    }
    transaction.commit()?;
    Ok(taken)
}

/// The rows for one queue, which has to be there under this key and this name.
struct Stream {
    key: i64,
    composite: String,
}

enum Destination {
    /// Behind what the queue holds.
    Queue(QueueRow),
    /// Commits of the queue may be missing, so that the other side may have had the numbers behind its last one. The node begins
    /// a new epoch first, and says in it how many numbers the old one had: what was never sent must not be among them.
    Unsure,
    /// There is no such queue.
    Nowhere,
}

/// What waits in queues that their nodes have not begun yet, since they were made by hand, or for what is queued again.
pub(crate) fn begun_by_hand(conn: &Connection) -> rusqlite::Result<Vec<Pending>> {
    let mut select = conn.prepare_cached(
        "SELECT composite, count(*), coalesce(sum(length(payload)), 0) FROM inserted
         JOIN conn_key_map USING(connection_key, composite) WHERE owner = '' GROUP BY connection_key",
    )?;
    let mut rows = select.query([])?;
    let mut begun = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(composite) = row.get_ref(0)?.as_str() else { continue };
        let owner = names::owner(composite);
        let parsed = names::parse(&owner, composite);
        if let Some(queue) = parsed.as_ref().and_then(|(kind, name)| names::queue(*kind, name)) {
            let number = |index| row.get(index).map(i64::cast_unsigned);
            begun.push(Pending { target: Target::of(queue), messages: number(1)?, bytes: number(2)?, owner });
        }
    }
    Ok(begun)
}

/// Those of the node: their composites begin with its name.
fn streams(conn: &Connection, owner: &str) -> rusqlite::Result<Vec<Stream>> {
    let mut select = conn.prepare(
        "SELECT connection_key, composite FROM inserted WHERE substr(composite, 1, length(?1)) = ?1
         GROUP BY connection_key, composite ORDER BY min(id)",
    )?;
    let streams = select.query_map([names::prefix(owner)], |row| {
        let (key, composite) = (row.get(0)?, row.get_ref(1)?.as_str().ok());
        Ok(composite.map(|composite| Stream { key, composite: composite.to_owned() }))
    })?;
    Ok(streams.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

impl Stream {
    fn count(&self, conn: &Connection) -> rusqlite::Result<u64> {
        let mut select = conn
            .prepare_cached("SELECT count(*) FROM inserted WHERE connection_key = ?1 AND composite = ?2")?;
        let count = select.query_row(params![self.key, self.composite], |row| row.get::<_, i64>(0))?;
        Ok(count.cast_unsigned())
    }

    fn destination(&self, conn: &Connection, owner: &str) -> Result<Destination, Failure> {
        let mut select = conn.prepare_cached(
            "SELECT CAST(owner AS BLOB), suspect <> 0 FROM conn_key_map
             WHERE connection_key = ?1 AND composite = ?2",
        )?;
        let found = select.query_row(params![self.key, self.composite], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, bool>(1)?))
        });
        Ok(match found.optional()? {
            Some((of, true)) if of == owner.as_bytes() => Destination::Unsure,
            Some((of, false)) if of == owner.as_bytes() => {
                let mut select = conn.prepare_cached(&format!("{QUEUES} connection_key = ?1"))?;
                let row = select.query_row([self.key], QueueRow::read)?;
                row.map_or(Destination::Nowhere, Destination::Queue)
            }
            // A row that was made by hand: the queue begins its life now.
            Some((of, _)) if of.is_empty() => match names::parse(owner, &self.composite) {
                Some((kind, name)) => {
                    let queue = names::queue(kind, &name).ok_or(StoreFault::Refused)?;
                    let epoch = Epoch(RandomState::new().hash_one(&self.composite).max(1));
                    Destination::Queue(create(conn, owner, queue, epoch)?)
                }
                None => Destination::Nowhere,
            },
            Some(_) | None => Destination::Nowhere,
        })
    }

    /// Moves its rows to the queue, a segment at a time, or else to the dead letters.
    fn drain(
        &self,
        conn: &Connection,
        owner: &str,
        mut to: Option<&mut QueueRow>,
        taken: &mut Inserted,
    ) -> Result<(), Failure> {
        let listener = names::listener(&self.composite);
        let kept_topic = names::parse(owner, &self.composite).filter(|(kind, _)| *kind == 1);
        let fits = |topic: &str, payload: &[u8]| {
            (1..=TEXT_MAX).contains(&topic.len())
                && payload.len() <= PAYLOAD_MAX
                && kept_topic.as_ref().is_none_or(|(_, name)| name == topic)
        };
        loop {
            let (mut run, mut messages, mut through) = (Vec::new(), 0, None);
            let mut select = conn.prepare_cached(
                "SELECT id, CAST(topic AS BLOB), CAST(payload AS BLOB) FROM inserted
                 WHERE connection_key = ?1 AND composite = ?2 ORDER BY id",
            )?;
            let mut rows = select.query(params![self.key, self.composite])?;
            while let Some(row) = rows.next()? {
                let topic = String::from_utf8_lossy(row.get_ref(1)?.as_bytes().unwrap_or_default());
                let payload = row.get_ref(2)?.as_bytes().unwrap_or_default();
                let record = record(&topic, payload);
                if to.is_none() || !fits(&topic, payload) {
                    insert_dead_letter(conn, [owner, &listener, &topic], DeadReason::Orphaned, &record)?;
                    taken.orphaned += 1;
                } else if put(&mut run, &record) {
                    messages += 1;
                } else {
                    break;
                }
                through = Some(row.get::<_, i64>(0)?);
            }
            drop(rows);
            let Some(through) = through else { return Ok(()) };
            // Their space comes first: what is appended takes it.
            conn.prepare_cached(
                "DELETE FROM inserted WHERE connection_key = ?1 AND composite = ?2 AND id <= ?3",
            )?
            .execute(params![self.key, self.composite, through])?;
            if let Some(row) = to.as_deref_mut().filter(|_| messages > 0) {
                append(conn, row, messages, &run)?;
                taken.queued += messages;
            }
        }
    }
}

/// Appends a run behind everything that the queue has held, and behind what was reserved: numbers that a process took along may
/// have been sent, and are told as a gap.
fn append(conn: &Connection, row: &mut QueueRow, messages: u64, run: &[u8]) -> Result<(), Failure> {
    let head = row.numbers.head;
    let skipped = head.reserved.saturating_sub(head.last);
    let mut gap = [0; GAP_LEN_MAX];
    if let Some(len) = encode_gap(GapReason::Crashed, skipped, &mut gap) {
        let mut run = Vec::new();
        put(&mut run, gap.get(..len).unwrap_or_default());
        row.append(conn, (head.last + 1, head.reserved), &run)?;
    }
    let first = row.numbers.head.last + 1;
    row.append(conn, (first, first + messages - 1), run)
}

#[cfg(test)]
mod tests {
    use liner_proto::effect::{Loaded, Queue, StoreOp};
    use liner_proto::id::Class;
    use liner_proto::store::Store as _;

    use super::*;
    use crate::{Options, SqliteStore};

    const NODE: Queue<'static> = Queue::Node("gateway");

    fn open(folder: &std::path::Path) -> SqliteStore {
        let (name, boot_id) = ("sensor".to_owned(), "boot".to_owned());
        let options = Options { name, durability: Class::Process, limit_bytes: None, boot_id };
        SqliteStore::open(folder.join("liner.db"), &options).unwrap()
    }

    fn counts(conn: &Connection) -> [i64; 3] {
        ["inserted", "segments", "dead_letters"].map(|table| {
            conn.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        })
    }

    /// Without room in the middle of it nothing is lost, nothing is there twice, and the node can be started.
    #[test]
    fn without_room_it_waits_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        store.commit().unwrap();
        drop(store);
        let mut conn = Connection::open(folder.path().join("liner.db")).unwrap();
        // Some have a queue and some have none.
        conn.execute_batch(
            "INSERT INTO conn_key_map(composite, connection_key) VALUES('sensor::gone', 9);
             INSERT INTO conn_messages(connection_key, topic, payload)
             VALUES(1, 't', zeroblob(60000)), (9, 't', 'orphan'), (1, 't', zeroblob(50000));
             DELETE FROM conn_key_map WHERE connection_key = 9;
             VACUUM;
             CREATE TEMP TRIGGER taken AFTER DELETE ON main.inserted WHEN OLD.id = 3
             BEGIN INSERT INTO quarantine(bytes) VALUES(zeroblob(500000)); END;",
        )
        .unwrap();
        let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let set = |conn: &Connection, most: i64| {
            conn.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).unwrap();
        };
        set(&conn, pages + 10);
        let waiting = Inserted { waiting: 3, ..Inserted::default() };
        for _ in 0..2 {
            assert_eq!(take(&mut conn, "sensor").unwrap(), waiting);
            assert_eq!(counts(&conn), [3, 0, 0]);
        }
        set(&conn, 1 << 30);
        assert_eq!(take(&mut conn, "other").unwrap(), Inserted::default());
        let taken = Inserted { queued: 2, orphaned: 1, waiting: 0 };
        assert_eq!(take(&mut conn, "sensor").unwrap(), taken);
        assert_eq!(counts(&conn), [0, 2, 1]);
        assert_eq!(take(&mut conn, "sensor").unwrap(), Inserted::default());
        let mut into = vec![0; 1 << 17];
        let loaded = open(folder.path()).load(NODE, 0, &mut into);
        assert!(matches!(loaded, Ok(Loaded::Records { first: 1, last: 2, .. })), "{loaded:?}");
    }

    /// What is queued takes the space of what was inserted.
    #[test]
    fn it_needs_little_room_beyond_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        store.commit().unwrap();
        drop(store);
        let mut conn = Connection::open(folder.path().join("liner.db")).unwrap();
        conn.execute_batch(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100)
             INSERT INTO conn_messages(connection_key, topic, payload) SELECT 1, 't', zeroblob(20000) FROM n;
             VACUUM;",
        )
        .unwrap();
        let pages =
            |conn: &Connection| conn.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
        let before = pages(&conn);
        assert_eq!(take(&mut conn, "sensor").unwrap().queued, 100);
        assert!(pages(&conn) <= before + 20, "{before}, {}", pages(&conn));
    }
}
