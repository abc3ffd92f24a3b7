//! A file that liner_broker 1.3 or 1.4 has made: what it is told by, and how it becomes one of this release where it is.
//!
//! Its tables are set aside under other names, ours are made, and what the old ones hold goes there: all of it in one transaction,
//! while nobody else has the file open. That program would go on to write as if nothing had happened, or read half of it.
//!
//! What becomes of its messages:
//! * Those whose frame can be read are queued for the listener, whatever the sender's own topic was, marked as such that may have
//!   been delivered before: that program stores what it has sent and nobody has acknowledged, and acknowledgements of another file may
//!   stand under the same key, so that they take nothing out.
//! * All others are dead letters: of the node that sent them, or of the one that is started if nobody knows whose they are.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use liner_proto::effect::{DeadReason, Queue, StoreFault};
use liner_proto::id::{Class, Epoch};
use liner_proto::wire::TEXT_MAX;
use liner_store::broker::{self, OWN_TOPIC};
use liner_store::byhand::{PAYLOAD_MAX, put, repeated};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use crate::TakenOver;
use crate::directory::insert_dead_letter;
use crate::file::private;
use crate::names;
use crate::open::{class_number, prepare};
use crate::queues::create;
use crate::row::{QUEUES, QueueRow};
use crate::schema::{self, Verdict};
use crate::turn::Failure;

/// A table: its columns with their types, those of the primary key first.
type Table = (&'static str, i64, &'static [(&'static str, &'static str)]);

/// All of its tables.
const TABLES: [Table; 8] = [
    ("seq", 1, &[("id", "INTEGER"), ("v", "INTEGER")]),
    ("topic_addr", 2, &[("topic", "TEXT"), ("addr", "TEXT"), ("client_name", "TEXT")]),
    (
        "sender_listener",
        2,
        &[("sender_key", "TEXT"), ("addr", "TEXT"), ("listener_topic", "TEXT"), (CLIENT_NAME, "TEXT")],
    ),
    ("conn_key_map", 1, &[("composite", "TEXT"), ("connection_key", "INTEGER")]),
    ("topic_key", 1, &[("topic", "TEXT"), ("k", "INTEGER")]),
    ("conn_sender", 1, &[("connection_key", "INTEGER"), ("sender_topic", "TEXT")]),
    ("conn_mess_number", 1, &[("connection_key", "INTEGER"), ("v", "INTEGER")]),
    ("conn_messages", 1, &[("id", "INTEGER"), ("connection_key", "INTEGER"), ("payload", "BLOB")]),
];

/// The last column of `sender_listener`, which 1.3.0 and 1.3.1 have not.
const CLIENT_NAME: &str = "client_name";

/// Rows that have values of other types than their columns are none of that program: it could not read them.
const COPY: &str = "
INSERT OR IGNORE INTO topic_addr SELECT topic, addr, client_name FROM old_topic_addr;
INSERT OR IGNORE INTO topic_key SELECT topic, k FROM old_topic_key WHERE typeof(k) = 'integer';
INSERT OR IGNORE INTO sender_listener(sender_key, addr, listener_topic, client_name)
  SELECT sender_key, addr, listener_topic, coalesce(nullif(client_name, ''), (
    SELECT a.client_name FROM old_topic_addr a WHERE a.topic = listener_topic AND a.addr = l.addr), '')
  FROM old_sender_listener l;
UPDATE seq SET v = (SELECT coalesce(max(v), 0) FROM (
  SELECT v FROM old_seq UNION ALL SELECT connection_key FROM old_conn_sender
  UNION ALL SELECT connection_key FROM old_conn_mess_number
  UNION ALL SELECT max(connection_key) FROM old_conn_messages WHERE typeof(connection_key) = 'integer')
  WHERE typeof(v) = 'integer');
";

/// The senders' own topics go where that program has them.
const COPY_SENDERS: &str = "INSERT OR REPLACE INTO conn_sender
  SELECT connection_key, sender_topic FROM old_conn_sender
  WHERE sender_topic IS NOT NULL AND connection_key IN (SELECT connection_key FROM conn_key_map)";

/// Whether the file has all tables of that program in its form, and nothing else.
pub(crate) fn is_its_form(conn: &Connection) -> rusqlite::Result<bool> {
    let tables = TABLES.map(|(table, ..)| format!("'{table}'")).join(", ");
    let others = format!(
        "SELECT count(*) FROM sqlite_schema WHERE type <> 'index' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND NOT (type = 'table' AND name IN ({tables}))"
    );
    if conn.query_row(&others, [], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(false);
    }
    for (table, keys, columns) in TABLES {
        let mut select =
            conn.prepare("SELECT name, upper(type), pk FROM pragma_table_xinfo(?1) ORDER BY cid")?;
        let found = select.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let found: Vec<(String, String, i64)> = found.collect::<rusqlite::Result<_>>()?;
        let is_it = |columns: &[(&str, &str)]| {
            let expected = columns
                .iter()
                .zip(1..)
                .map(|(column, place)| (column, if place <= keys { place } else { 0 }));
            columns.len() == found.len()
                && expected.zip(&found).all(|((column, key), (name, kind, pk))| {
                    *column == (name.as_str(), kind.as_str()) && key == *pk
                })
        };
        let older =
            columns.split_last().filter(|(last, _)| table == "sender_listener" && last.0 == CLIENT_NAME);
        if !is_it(columns) && !older.is_some_and(|(_, others)| is_it(others)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The indexes that were made by name.
fn indexes(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select =
        conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")?;
    let names = select.query_map([], |row| row.get(0))?;
    names.collect()
}

/// The turn of one of several nodes that are started on such a file at once. The others wait until it is done, however long that
/// takes, and find a file of this release. Whoever has a turn looks at the file before anything else.
pub(crate) struct Turn {
    path: PathBuf,
    /// Held by its lock, which any death frees.
    _lock: File,
}

impl Turn {
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        let path = names::beside(path, ".taking-over");
        let lock = private(OpenOptions::new().write(true).create(true).truncate(false)).open(&path)?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Whoever waits for it still gets its turn. It may stay there as well.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the file one of this release. Fails as if it was locked as long as anybody else has it open.
///
/// `opener` is the node that is started.
pub(crate) fn take_over(path: &Path, opener: &str) -> rusqlite::Result<Option<TakenOver>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    // Before anything is read: then the first lock is the one that nobody gets who shares the file.
    conn.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    prepare(&conn)?;
    // Somebody may have made its tables by hand, with references that it does not know.
    conn.pragma_update(None, "foreign_keys", false)?;
    convert(&mut conn, opener)
}

fn convert(conn: &mut Connection, opener: &str) -> rusqlite::Result<Option<TakenOver>> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    if schema::examine(&transaction)? != Verdict::Broker {
        return Ok(None);
    }
    let taken =
        Taking::begin(&transaction, opener).and_then(Taking::run).map_err(|failure| match failure {
            Failure::Sqlite(error) => error,
            // Numbers of a new queue do not run out, nor is anything refused that has just been measured.
            Failure::Fault(fault) => rusqlite::Error::ToSqlConversionFailure(fault.to_string().into()),
        })?;
    transaction.commit()?;
    Ok(Some(taken))
}

/// A row of its `conn_key_map`.
struct Stream {
    key: i64,
    composite: String,
    /// The sender and the queue that it names.
    queue: Option<(String, u8, String)>,
}

/// Which of several topics a number means to a listener, as far as that was found out.
type Meant = HashMap<i64, Option<String>>;

struct Taking<'a> {
    conn: &'a Connection,
    opener: &'a str,
    /// Topics by their numbers. In a file that was filled from a list of receivers all have the same.
    topics: HashMap<i64, Vec<String>>,
    taken: TakenOver,
}

/// What becomes of a message.
enum Fate {
    Queued(Vec<u8>),
    Dead(DeadReason, String, Vec<u8>),
    Nothing,
}

impl<'a> Taking<'a> {
    /// Sets its tables aside, and makes those of this release.
    fn begin(conn: &'a Connection, opener: &'a str) -> Result<Self, Failure> {
        // One by hand may have the name of one of ours, or be in the place of the one that is needed here.
        for index in indexes(conn)? {
            conn.execute_batch(&format!("DROP INDEX \"{}\"", index.replace('"', "\"\"")))?;
        }
        for (table, ..) in TABLES {
            conn.execute_batch(&format!("ALTER TABLE {table} RENAME TO old_{table}"))?;
        }
        conn.execute_batch("CREATE INDEX old_conn_messages_ck ON old_conn_messages(connection_key, id)")?;
        let columns = "SELECT count(*) FROM pragma_table_xinfo('old_sender_listener') WHERE name = ?1";
        if conn.query_row(columns, [CLIENT_NAME], |row| row.get::<_, i64>(0))? == 0 {
            conn.execute_batch(
                "ALTER TABLE old_sender_listener ADD COLUMN client_name TEXT NOT NULL DEFAULT ''",
            )?;
        }
        schema::install(conn, 0)?;
        conn.execute_batch(COPY)?;
        let mut select = conn.prepare("SELECT CAST(topic AS TEXT), k FROM topic_key")?;
        let mut rows = select.query([])?;
        let mut topics: HashMap<_, Vec<_>> = HashMap::new();
        while let Some(row) = rows.next()? {
            if let Ok(topic) = row.get_ref(0)?.as_str() {
                topics.entry(row.get(1)?).or_default().push(topic.to_owned());
            }
        }
        Ok(Self { conn, opener, topics, taken: TakenOver::default() })
    }

    fn run(mut self) -> Result<TakenOver, Failure> {
        let streams = self.streams()?;
        for stream in &streams {
            self.drain(Some(stream))?;
        }
        self.drain(None)?;
        self.conn.execute_batch(COPY_SENDERS)?;
        for (table, ..) in TABLES {
            self.conn.execute_batch(&format!("DROP TABLE old_{table}"))?;
        }
        Ok(self.taken)
    }

    /// Copies the rows of all streams, by the names that they have here. Of several with the same sender and listener the first has
    /// the queue, and the others keep the name that they had, so that nobody is given their keys.
    fn streams(&self) -> Result<Vec<Stream>, Failure> {
        let mut select = self.conn.prepare(
            "SELECT m.connection_key, m.composite, s.sender_topic
             FROM old_conn_key_map m LEFT JOIN old_conn_sender s ON s.connection_key = m.connection_key
             WHERE typeof(m.connection_key) = 'integer' AND typeof(m.composite) = 'text' ORDER BY m.connection_key",
        )?;
        let mut insert = self
            .conn
            .prepare("INSERT OR IGNORE INTO conn_key_map(composite, connection_key) VALUES(?1, ?2)")?;
        // A node that has closed the file: what it has left is looked at, copied and drained like that of any other.
        let mut node = self.conn.prepare(
            "INSERT OR IGNORE INTO node(name, inbox, boot_id, class, clean) VALUES(?1, ?2, '', ?3, TRUE)",
        )?;
        let (mut streams, mut known) = (Vec::new(), HashSet::new());
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let Ok(composite) = row.get_ref(1)?.as_str() else { continue };
            let queue = broker::queue_of(composite, row.get_ref(2)?.as_str().ok());
            if let Some((owner, ..)) = &queue {
                node.execute(params![owner, new_epoch(owner).0.cast_signed(), class_number(Class::Power)])?;
            }
            let named = queue.as_ref().and_then(|(owner, kind, name)| {
                Some(names::composite(owner, names::queue(*kind, name)?))
                    .filter(|named| known.insert(named.clone()))
            });
            let (key, composite) = (row.get(0)?, composite.to_owned());
            insert.execute(params![named.as_ref().unwrap_or(&composite), key])?;
            streams.push(Stream { key, composite, queue });
        }
        Ok(streams)
    }

    /// Takes all messages of a stream to where they belong, a segment at a time, or all that are left.
    fn drain(&mut self, stream: Option<&Stream>) -> Result<(), Failure> {
        let which = if stream.is_some() { "connection_key = ?1" } else { "?1 IS NULL" };
        let sql = format!(
            "SELECT id, CAST(payload AS BLOB), connection_key FROM old_conn_messages WHERE {which} ORDER BY id"
        );
        let delete = format!("DELETE FROM old_conn_messages WHERE {which} AND id <= ?2");
        let key = stream.map(|stream| stream.key);
        let queue = stream.and_then(|stream| stream.queue.as_ref());
        let target = queue.and_then(|(owner, kind, name)| Some((&**owner, names::queue(*kind, name)?)));
        let peer = target.map(|(_, queue)| queue.name().to_owned());
        let peer = peer.or_else(|| Some(names::listener(&stream?.composite))).unwrap_or_default();
        let owner = target.map_or(self.opener, |(owner, _)| owner);
        let mut meant = Meant::new();
        loop {
            let (mut run, mut messages, mut through) = (Vec::new(), 0, None);
            let mut select = self.conn.prepare_cached(&sql)?;
            let mut rows = select.query([key])?;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(1)?.as_bytes().unwrap_or_default();
                let of_key = row.get_ref(2)?.as_i64().unwrap_or_default();
                match self.fate(of_key, target.map(|(_, queue)| queue), bytes, &mut meant)? {
                    Fate::Queued(record) if put(&mut run, &record) => messages += 1,
                    Fate::Queued(_) => break,
                    Fate::Dead(reason, topic, record) => {
                        insert_dead_letter(self.conn, [owner, &peer, &topic], reason, &record)?;
                        self.taken.dead += 1;
                    }
                    Fate::Nothing => {}
                }
                through = Some(row.get::<_, i64>(0)?);
            }
            drop(rows);
            let Some(through) = through else { return Ok(()) };
            // Their space comes first: what is appended takes it.
            self.conn.prepare_cached(&delete)?.execute(params![key, through])?;
            if let Some((owner, queue)) = target.filter(|_| messages > 0) {
                self.append(owner, queue, messages, &run)?;
                self.taken.queued += messages;
            }
        }
    }

    fn fate(
        &self,
        key: i64,
        to: Option<Queue<'_>>,
        bytes: &[u8],
        meant: &mut Meant,
    ) -> Result<Fate, Failure> {
        let dead = |reason, topic: &str, payload| {
            let record = repeated(topic, payload);
            Ok(Fate::Dead(reason, topic.to_owned(), record))
        };
        let Some(frame) = broker::read(key, bytes) else { return dead(DeadReason::Orphaned, "", bytes) };
        if frame.compressed {
            // Without a topic nobody sends it as if it were what the application has sent.
            return dead(DeadReason::Orphaned, "", frame.payload);
        }
        let topic = self.topic(frame.topic, to, meant)?.unwrap_or_default();
        if topic == OWN_TOPIC {
            return Ok(Fate::Nothing);
        }
        // What is kept for a topic is of that topic.
        let is_of = |queue| if let Queue::Topic(kept) = queue { kept == topic } else { true };
        if !(1..=TEXT_MAX).contains(&topic.len()) || !to.is_some_and(is_of) {
            return dead(DeadReason::Orphaned, &topic, frame.payload);
        }
        if frame.payload.len() > PAYLOAD_MAX {
            return dead(DeadReason::TooLarge, &topic, frame.payload);
        }
        Ok(Fate::Queued(repeated(&topic, frame.payload)))
    }

    /// The topic with this number; of several, the one that the listener takes.
    fn topic(
        &self,
        number: i64,
        to: Option<Queue<'_>>,
        meant: &mut Meant,
    ) -> Result<Option<String>, Failure> {
        let topics = self.topics.get(&number).map_or(&[][..], Vec::as_slice);
        if let [_, _, ..] = topics {
            if let Some(known) = meant.get(&number) {
                return Ok(known.clone());
            }
            let mut takes = self.conn.prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM topic_addr WHERE client_name = ?1 AND topic = ?2)
                 OR EXISTS(SELECT 1 FROM sender_listener WHERE client_name = ?1 AND listener_topic = ?2)",
            )?;
            let Some(listener) = to else { return Ok(None) };
            let mut taken = Vec::new();
            for topic in topics {
                if takes.query_row([listener.name(), topic], |row| row.get(0))? {
                    taken.push(topic);
                }
            }
            let one = if let [one] = taken[..] { Some(one.clone()) } else { None };
            meant.insert(number, one.clone());
            return Ok(one);
        }
        Ok(topics.first().cloned())
    }

    /// Appends a run to a queue, which begins its life with the first one.
    fn append(&self, owner: &str, queue: Queue<'_>, messages: u64, run: &[u8]) -> Result<(), Failure> {
        let composite = names::composite(owner, queue);
        let mut select = self.conn.prepare_cached(&format!("{QUEUES} composite = ?1 AND owner = ?2"))?;
        let found = select.query_row([&composite, owner], QueueRow::read).optional()?;
        let mut row = match found {
            Some(row) => row.ok_or(StoreFault::Corrupt)?,
            None => create(self.conn, owner, queue, new_epoch(&composite))?,
        };
        let first = row.numbers.head.last + 1;
        row.append(self.conn, (first, first + messages - 1), run)?;
        row.save(self.conn)
    }
}

/// One that nobody has used.
fn new_epoch(of: &str) -> Epoch {
    Epoch(RandomState::new().hash_one(of).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that the file holds.
    fn dump(conn: &Connection) -> Vec<String> {
        let lines = |sql: &str| -> Vec<String> {
            let mut select = conn.prepare(sql).unwrap();
            let lines = select.query_map([], |row| row.get(0)).unwrap();
            lines.collect::<Result<_, _>>().unwrap()
        };
        let mut dump =
            lines("SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY type, name");
        for table in lines("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
            let columns =
                lines(&format!("SELECT 'quote(' || name || ')' FROM pragma_table_xinfo('{table}')"));
            dump.extend(lines(&format!(
                "SELECT {} FROM {table} ORDER BY rowid",
                columns.join(" || ' ' || ")
            )));
        }
        dump
    }

    /// Whichever page finds no room: the file is as it was, and is taken over as soon as there is room.
    #[test]
    fn without_room_at_any_step_the_file_is_as_it_was() {
        let mut conn = Connection::open_in_memory().unwrap();
        for (table, keys, columns) in TABLES {
            let definition: Vec<_> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            let key: Vec<_> =
                columns.iter().take(keys.unsigned_abs() as usize).map(|(name, _)| *name).collect();
            let (definition, key) = (definition.join(", "), key.join(", "));
            conn.execute_batch(&format!("CREATE TABLE {table}({definition}, PRIMARY KEY({key}))")).unwrap();
        }
        conn.execute_batch(
            "INSERT INTO seq VALUES(1, 9);
             INSERT INTO topic_key VALUES('t', 1);
             INSERT INTO conn_key_map VALUES('sensor:own:gateway', 3), ('other:own:gateway', 4);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40)
             INSERT INTO conn_messages SELECT n, 3 + n % 3, iif(n % 2, zeroblob(3000),
               unhex('00000BCD' || '0000000000000001' || printf('%08X', 3 + n % 3) || '0000000102' || '00000BB8')
               || zeroblob(3000)) FROM n;",
        )
        .unwrap();
        let before = dump(&conn);
        let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        for most in pages.. {
            conn.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).unwrap();
            match convert(&mut conn, "sensor") {
                Ok(taken) => {
                    assert!(most > pages + 20, "it needs more room than {}", most - pages);
                    assert_eq!(taken, Some(TakenOver { queued: 13, dead: 27 }));
                    break;
                }
                Err(error) => {
                    assert_eq!(crate::error::classify(&error), StoreFault::Full, "{error}");
                    assert_eq!(dump(&conn), before);
                }
            }
        }
        assert_eq!(convert(&mut conn, "sensor").unwrap(), None);
    }
}
