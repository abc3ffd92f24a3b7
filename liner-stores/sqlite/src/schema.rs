//! The tables, and how a file of an older release becomes one of this release. Those of another program are in `broker`.

use rusqlite::{Connection, TransactionBehavior};

use crate::broker;

/// Marks the file as ours: "LNR1".
pub(crate) const APPLICATION_ID: i64 = 0x4c4e_5231;

/// Each entry leads from the schema of its index to the next one. Entries are never changed once they were released.
const MIGRATIONS: [&str; 3] = [TABLES, BY_HAND, INBOX];

/// The newest schema.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Names and columns that operators know come first in their tables; what follows them is the store's own.
///
/// `connection_key` is never given out again while anything bears it, and nothing is found by it alone: segments bear the
/// composite and the epoch of their queue, too.
const TABLES: &str = "
CREATE TABLE node(
  name TEXT PRIMARY KEY, inbox INTEGER, boot_id TEXT NOT NULL, class INTEGER NOT NULL, clean INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE topic_addr(
  topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY(topic, addr)
) WITHOUT ROWID;
CREATE TABLE topic_key(topic TEXT PRIMARY KEY, k INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conn_key_map(
  composite TEXT NOT NULL UNIQUE, connection_key INTEGER PRIMARY KEY,
  owner TEXT NOT NULL DEFAULT '', kind INTEGER NOT NULL DEFAULT 0, name TEXT NOT NULL DEFAULT '',
  epoch INTEGER NOT NULL DEFAULT 0,
  predecessor_epoch INTEGER, predecessor_old_first INTEGER, predecessor_count INTEGER,
  trimmed INTEGER NOT NULL DEFAULT 0, dropped_through INTEGER, dropped_reason INTEGER,
  last INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL DEFAULT 0,
  shift INTEGER NOT NULL DEFAULT 0, stored_epoch INTEGER NOT NULL DEFAULT 0, suspect INTEGER NOT NULL DEFAULT 0,
  crc INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX conn_key_map_owner ON conn_key_map(owner);
CREATE VIEW conn_mess_number(connection_key, v) AS SELECT connection_key, trimmed FROM conn_key_map;
CREATE TABLE conn_sender(connection_key INTEGER PRIMARY KEY, sender_topic TEXT NOT NULL);
CREATE TABLE sender_listener(
  sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL, client_name TEXT NOT NULL,
  PRIMARY KEY(sender_key, addr)
) WITHOUT ROWID;
CREATE TABLE seq(id INTEGER PRIMARY KEY CHECK(id = 1), v INTEGER NOT NULL);
INSERT INTO seq VALUES(1, 0);

CREATE TABLE segments(
  id INTEGER PRIMARY KEY, connection_key INTEGER NOT NULL, epoch INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, messages INTEGER NOT NULL, crc INTEGER NOT NULL,
  composite TEXT NOT NULL, records BLOB NOT NULL
);
CREATE INDEX segments_queue ON segments(connection_key, last);
CREATE TABLE cleared(
  connection_key INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY(connection_key, number)
) WITHOUT ROWID;
CREATE TABLE stream_topic(
  composite TEXT NOT NULL, number INTEGER NOT NULL, topic TEXT NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(composite, number)
) WITHOUT ROWID;
CREATE TABLE inbound_cursor(
  owner TEXT NOT NULL, peer TEXT NOT NULL, epoch INTEGER NOT NULL, through INTEGER NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(owner, peer)
) WITHOUT ROWID;
CREATE TABLE dead_letters(
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, peer TEXT NOT NULL, topic TEXT NOT NULL,
  reason INTEGER NOT NULL, crc INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE TABLE quarantine(
  id INTEGER PRIMARY KEY, connection_key INTEGER, epoch INTEGER, first INTEGER, last INTEGER, crc INTEGER,
  composite TEXT, bytes BLOB
);
";

/// `inserted` keeps what an operator inserted into `conn_messages` until the node takes it into the queue.
const BY_HAND: &str = "
CREATE TABLE inserted(
  id INTEGER PRIMARY KEY, connection_key INTEGER NOT NULL, composite TEXT NOT NULL,
  topic TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX inserted_queue ON inserted(connection_key, composite);
CREATE INDEX topic_addr_addr ON topic_addr(addr);
";

/// What applications take by themselves. With the index a full inbox is counted without a look at its messages.
const INBOX: &str = "
CREATE TABLE inbox(
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, sender TEXT NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL,
  topic TEXT NOT NULL, mode INTEGER NOT NULL, maybe_redelivered INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX inbox_owner ON inbox(owner, id, bytes);
";

/// What is said about a file before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has the newest schema now; it had this one before.
    Ready { was: i64 },
    /// A newer release wrote it.
    Newer { found: i64 },
    /// liner_broker did.
    Broker,
    /// Another program did.
    Foreign,
    /// It is ours, and somebody took the number of its schema away.
    Unnumbered,
}

/// Looks at the file without a change to it.
pub(crate) fn examine(conn: &Connection) -> rusqlite::Result<Verdict> {
    let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let was = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT COUNT(*) FROM sqlite_schema")?;
    Ok(if tables > 0 && application != APPLICATION_ID {
        let is_broker = (application, was) == (0, 0) && broker::is_its_form(conn)?;
        if is_broker { Verdict::Broker } else { Verdict::Foreign }
    } else if tables > 0 && was == 0 {
        Verdict::Unnumbered
    } else if (0..=VERSION).contains(&was) {
        Verdict::Ready { was }
    } else {
        Verdict::Newer { found: was }
    })
}

/// Brings the file to the newest schema, in one transaction.
pub(crate) fn upgrade(conn: &mut Connection) -> rusqlite::Result<Verdict> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let verdict = examine(&transaction)?;
    let Verdict::Ready { was } = verdict else { return Ok(verdict) };
    if was < VERSION {
        install(&transaction, was)?;
        transaction.commit()?;
    }
    Ok(verdict)
}

/// Brings a file with the schema `was` to the newest one, within a transaction.
pub(crate) fn install(conn: &Connection, was: i64) -> rusqlite::Result<()> {
    for migration in MIGRATIONS.get(usize::try_from(was).unwrap_or(0)..).unwrap_or_default() {
        conn.execute_batch(migration)?;
    }
    conn.execute_batch(&crate::view::create())?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)
}
