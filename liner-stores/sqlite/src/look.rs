//! A look at a file from outside, beside the nodes that use it: what waits, who has subscribed, what was put aside.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use liner_proto::effect::{DeadReason, Queue};
use liner_proto::wire::record::{self, Record};
use liner_store::checksums;
use liner_store::look::{DeadLetter, Pending, Rows, StoredLetter, Subscription, Target};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, Row, TransactionBehavior, params};

use crate::deliveries;
use crate::directory::each_row;
use crate::error::{OpenError, is_damage, is_locked};
use crate::open::{PATIENCE, sqlite};
use crate::queues::next_key;
use crate::row::{QUEUES, QueueRow};
use crate::schema::{self, Verdict};
use crate::turn::Failure;
use crate::{file, inserted, names, reading};

/// Of dead letters that are read at a time no more than this is in memory, and one beyond it.
const PAGE_BYTES: usize = 1 << 20;

/// A file that is looked at. It takes no node's name, and changes nothing but what [`drop_dead_letters`](Self::drop_dead_letters)
/// and [`redrive`](Self::redrive) are told to.
#[derive(Debug)]
pub struct Look {
    conn: Connection,
    path: PathBuf,
}

/// Why something could not be looked at, or done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// There is no such file, or it is none of liner's.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing at this path yet.
    #[error("there is no store at {path} yet: name the file of a node that has run")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// An older release wrote it, and no node of this one has used it since.
    #[error("{path} is of an older release: start its node once, which brings it to this one")]
    OlderSchema {
        /// The file.
        path: PathBuf,
    },
    /// liner_broker made it, and no node has used it since.
    #[error(
        "{path} was made by liner_broker: stop that, and start a node on the file once, which takes it over"
    )]
    Broker {
        /// The file.
        path: PathBuf,
    },
    /// A queue's row is damaged.
    #[error("{path} is damaged: start its node, which says what it can mend")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No node of this name has used the file.
    #[error(
        "no node named {name:?} has used {path}: name one of those that `liner pending` shows, or another file"
    )]
    NoSuchNode {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// There is no dead letter with this id.
    #[error("there is no dead letter {id}: list them again, it may have been dropped")]
    NoSuchLetter {
        /// The id.
        id: i64,
    },
    /// The dead letter cannot be queued again.
    #[error("dead letter {id} cannot be queued again for {peer}: {why}")]
    NotQueued {
        /// The id.
        id: i64,
        /// Whom it was for.
        peer: String,
        /// Why not.
        why: String,
    },
}

impl Look {
    /// Opens the file at `path`, which a node has made.
    ///
    /// # Errors
    /// Why it cannot be looked at. Nothing is made or changed then.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LookError> {
        let (conn, path) = connect(path.as_ref())?;
        judge(&conn, &path)?;
        Ok(Self { conn, path })
    }

    /// Whether the node `name` could be started on the file at `path` without a loss: it has used the file before, and no page
    /// of it is damaged. A node that is started on a damaged file renames it.
    ///
    /// What only its start can mend or say, as an older schema or a full disk, does not speak against it.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn vouch_for(path: impl AsRef<Path>, name: &str) -> Result<(), LookError> {
        match Self::open(&path).and_then(|look| look.find_node(name)) {
            Err(LookError::Open(OpenError::Sqlite { source, path, .. })) if is_damage(&source) => {
                Err(LookError::Damaged { path })
            }
            Err(LookError::OlderSchema { .. } | LookError::Open(OpenError::Sqlite { .. })) => Ok(()),
            outcome => outcome,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The nodes that have used the file, sorted.
    ///
    /// # Errors
    /// What the database says.
    pub fn nodes(&self) -> Result<Vec<String>, LookError> {
        let mut select = self.said(self.conn.prepare("SELECT name FROM node ORDER BY name"))?;
        let rows = self.said(select.query_map([], |row| row.get(0)))?;
        self.said(rows.collect())
    }

    pub(crate) const fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Looks over the whole file.
    pub(crate) fn check_pages(&self) -> Result<(), LookError> {
        let checked = self.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        if self.said(checked)? == "ok" { Ok(()) } else { Err(LookError::Damaged { path: self.path.clone() }) }
    }

    fn find_node(&self, name: &str) -> Result<(), LookError> {
        self.check_pages()?;
        let sql = "SELECT EXISTS(SELECT 1 FROM node WHERE name = ?1)";
        if self.said(self.conn.query_row(sql, [name], |row| row.get(0)))? {
            return Ok(());
        }
        Err(LookError::NoSuchNode { name: name.to_owned(), path: self.path.clone() })
    }

    /// Whether a node of this name uses the file now.
    pub fn is_running(&self, name: &str) -> bool {
        // Nobody has taken the name as long as there is no lock; what cannot be asked is not known to run.
        let lock = File::open(names::lock_file(&self.path, name));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The queues that hold something, of one node or of all, by their nodes. What waits to be queued when the node starts counts.
    ///
    /// # Errors
    /// What the database says.
    pub fn pending(&self, owner: Option<&str>) -> Result<Vec<Pending>, LookError> {
        let condition = "(?1 IS NULL OR owner = ?1) AND owner <> '' ORDER BY owner, kind, name";
        let columns = QUEUES.replace(" FROM", ", owner FROM");
        let mut select = self.said(self.conn.prepare(&format!("{columns} {condition}")))?;
        let queue = |row: &Row<'_>| {
            Ok((QueueRow::read(row)?, row.get::<_, u8>(14)?, row.get::<_, String>(15)?, row.get(16)?))
        };
        let rows = self.said(select.query_map([owner], queue))?;
        let mut pending = Vec::new();
        for row in rows {
            let (row, kind, name, owner): (_, _, _, String) = self.said(row)?;
            let damaged = || LookError::Damaged { path: self.path.clone() };
            let row = row.ok_or_else(damaged)?;
            let queue = names::queue(kind, &name).ok_or_else(damaged)?;
            let inserted = self.inserted(row.key, &names::composite(&owner, queue))?;
            let target = Target::of(queue);
            let (messages, bytes) =
                reading::count(&self.conn, &row, true).map_err(|fault| self.failed(fault))?;
            let (messages, bytes) = (messages + inserted.0, bytes + inserted.1);
            if messages > 0 {
                pending.push(Pending { owner, target, messages, bytes });
            }
        }
        // Queues that their nodes have not begun yet.
        for begun in self.said(inserted::begun_by_hand(&self.conn))? {
            if owner.is_none_or(|owner| begun.owner == owner) {
                pending.push(begun);
            }
        }
        pending.sort_by(|one, other| one.owner.cmp(&other.owner));
        Ok(pending)
    }

    /// Messages that its node takes into the queue when it starts, and bytes of their payloads.
    fn inserted(&self, key: i64, composite: &str) -> Result<(u64, u64), LookError> {
        let sql = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM inserted \
             WHERE connection_key = ?1 AND composite = ?2";
        let mut select = self.said(self.conn.prepare_cached(sql))?;
        let sums = select.query_row(params![key, composite], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        });
        self.said(sums)
    }

    /// Who takes what, by topics. A row that is no text is passed over, as nodes do.
    ///
    /// # Errors
    /// What the database says.
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, LookError> {
        let mut subscriptions = Vec::new();
        let told = each_row(&self.conn, |topic, address, name| {
            let (topic, name, address) = (topic.to_owned(), name.to_owned(), address.to_owned());
            subscriptions.push(Subscription { topic, name, address });
        });
        self.said(told)?;
        subscriptions.sort_unstable();
        Ok(subscriptions)
    }

    /// Messages that were put aside, from the oldest on: up to `limit` with an id above `after`, of one topic or of all. They are
    /// fewer where they are long; there is at least one as long as there are any.
    ///
    /// # Errors
    /// What the database says.
    pub fn dead_letters(
        &self,
        topic: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, LookError> {
        let sql = "SELECT id, owner, peer, topic, reason, record, crc FROM dead_letters \
             WHERE id > ?1 AND (?2 IS NULL OR topic = ?2) ORDER BY id LIMIT ?3";
        self.page(sql, (after, topic, limit), letter, |letter| letter.payload.as_ref().map_or(0, Vec::len))
    }

    /// Rows of a query, until they are as long as a page is.
    pub(crate) fn page<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        bytes_of: impl Fn(&T) -> usize,
    ) -> Result<Vec<T>, LookError> {
        let mut select = self.said(self.conn.prepare_cached(sql))?;
        let mut rows = self.said(select.query(params))?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = self.said(rows.next())?
        {
            let item = self.said(read(row))?;
            bytes += bytes_of(&item);
            page.push(item);
        }
        Ok(page)
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none, or what the database says.
    pub fn dead_letter(&self, id: i64) -> Result<DeadLetter, LookError> {
        self.said(find(&self.conn, id))?.ok_or(LookError::NoSuchLetter { id })
    }

    /// Deletes those with these ids, all or none. Returns how many they were.
    ///
    /// # Errors
    /// If one of them is not there, or what the database says.
    pub fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        self.each(ids, delete)
    }

    /// Deletes all of a topic, or all there are. Returns how many they were.
    ///
    /// # Errors
    /// What the database says.
    pub fn drop_all_dead_letters(&mut self, topic: Option<&str>) -> Result<u64, LookError> {
        let sql = "DELETE FROM dead_letters WHERE ?1 IS NULL OR topic = ?1";
        let deleted = self.conn.execute(sql, [topic]);
        self.said(deleted).map(|deleted| deleted as u64)
    }

    /// Queues those with these ids again, behind what waits for the node that each was for, all or none of them: they are sent
    /// from the next start of the node on that has put them aside. What the node's own application had failed at is in its inbox again. Returns how many they were.
    ///
    /// # Errors
    /// If one of them is not there, or cannot be queued, or what the database says.
    pub fn redrive(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        self.each(ids, queue_again)
    }

    /// Does the same with each, once, in one transaction.
    fn each(
        &mut self,
        ids: &[i64],
        act: impl Fn(&Connection, i64) -> Result<(), Refusal>,
    ) -> Result<u64, LookError> {
        let path = &self.path;
        let failed = |source| LookError::from(opened(path, source));
        let transaction =
            self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut done = BTreeSet::new();
        for &id in ids.iter().filter(|id| done.insert(**id)) {
            act(&transaction, id).map_err(|refusal| match refusal {
                Refusal::Gone => LookError::NoSuchLetter { id },
                Refusal::NotQueued { peer, why } => LookError::NotQueued { id, peer, why },
                Refusal::Sqlite(source) => failed(source),
            })?;
        }
        transaction.commit().map_err(failed)?;
        Ok(done.len() as u64)
    }

    pub(crate) fn said<T>(&self, outcome: rusqlite::Result<T>) -> Result<T, LookError> {
        outcome.map_err(|source| opened(&self.path, source).into())
    }

    fn failed(&self, failure: Failure) -> LookError {
        match failure {
            Failure::Sqlite(source) => opened(&self.path, source).into(),
            Failure::Fault(_) => LookError::Damaged { path: self.path.clone() },
        }
    }
}

/// Opens a file that is there.
pub(crate) fn connect(path: &Path) -> Result<(Connection, PathBuf), LookError> {
    let path = &*file::resolve(path)?;
    if !path.exists() {
        return Err(LookError::Missing { path: path.to_owned() });
    }
    file::check(path)?;
    let failed = |source| opened(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(PATIENCE).map_err(failed)?;
    Ok((conn, path.to_owned()))
}

/// Whether the file is one of this release.
pub(crate) fn judge(conn: &Connection, path: &Path) -> Result<(), LookError> {
    let verdict = schema::examine(conn).map_err(|source| opened(path, source))?;
    let path = path.to_owned();
    match verdict {
        Verdict::Ready { was: schema::VERSION } => Ok(()),
        Verdict::Ready { was: 0 } => Err(LookError::Missing { path }),
        Verdict::Ready { .. } => Err(LookError::OlderSchema { path }),
        Verdict::Newer { found } => {
            Err(OpenError::NewerSchema { path, found, known: schema::VERSION }.into())
        }
        Verdict::Broker => Err(LookError::Broker { path }),
        Verdict::Foreign => Err(OpenError::Foreign { path }.into()),
        Verdict::Unnumbered => Err(OpenError::Unnumbered { path, known: schema::VERSION }.into()),
    }
}

/// Why something was not done with a dead letter.
enum Refusal {
    Gone,
    NotQueued { peer: String, why: String },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn find(conn: &Connection, id: i64) -> rusqlite::Result<Option<DeadLetter>> {
    let sql = "SELECT id, owner, peer, topic, reason, record, crc FROM dead_letters WHERE id = ?1";
    conn.prepare_cached(sql)?.query_row([id], letter).optional()
}

/// A row of the dead letters. Whatever a damaged one has in its columns, it can be listed, and dropped.
struct LetterRow {
    id: i64,
    owner: String,
    peer: String,
    topic: String,
    /// Nothing if a newer release knows.
    reason: Option<DeadReason>,
    /// Nothing if it does not pass its check.
    record: Option<Vec<u8>>,
}

impl LetterRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let bytes = |column: usize| {
            let value = row.get_ref(column).ok();
            value.and_then(|value| value.as_bytes_or_null().ok().flatten()).unwrap_or_default()
        };
        let text = |column| String::from_utf8_lossy(bytes(column)).into_owned();
        let number = |column: usize| row.get_ref(column).ok().and_then(|value| value.as_i64().ok());
        let (id, owner, peer, topic) = (row.get(0)?, text(1), text(2), text(3));
        let (reason, record, crc) = (number(4), bytes(5), number(6));
        let is_sound = |reason| crc == Some(checksums::dead_letter([&owner, &peer, &topic], reason, record));
        let record = reason.is_some_and(is_sound).then(|| record.to_vec());
        let reason = reason.and_then(|reason| u8::try_from(reason).ok()).and_then(DeadReason::from_number);
        Ok(Self { id, owner, peer, topic, reason, record })
    }
}

pub(crate) fn stored_letter(row: &Row<'_>) -> rusqlite::Result<StoredLetter> {
    let LetterRow { id, peer, topic, reason, record, .. } = LetterRow::read(row)?;
    Ok(StoredLetter { id, peer, topic, content: reason.zip(record) })
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let LetterRow { id, owner, peer, topic, reason, record } = LetterRow::read(row)?;
    let payload = record.and_then(|record| match record::decode(&record) {
        Ok(Record::Message { payload, .. }) => Some(payload.to_vec()),
        _ => None,
    });
    Ok(DeadLetter { id, owner, peer, topic, reason, payload })
}

fn delete(conn: &Connection, id: i64) -> Result<(), Refusal> {
    let deleted = conn.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])?;
    if deleted == 1 { Ok(()) } else { Err(Refusal::Gone) }
}

/// The row goes where rows go that are inserted into `conn_messages`; an empty payload, which the view refuses, is none that
/// somebody has forgotten here.
fn queue_again(conn: &Connection, id: i64) -> Result<(), Refusal> {
    let letter = find(conn, id)?.ok_or(Refusal::Gone)?;
    let has_failed = letter.has_failed();
    if has_failed && is_back_in_inbox(conn, [&letter.owner, &letter.peer], id)? {
        return delete(conn, id);
    }
    let composite = names::composite(&letter.owner, Queue::Node(letter.next()));
    let sql = "SELECT connection_key FROM conn_key_map WHERE composite = ?1";
    let key: Option<i64> = conn.prepare_cached(sql)?.query_row([&composite], |row| row.get(0)).optional()?;
    let key = if has_failed { Some(key.map_or_else(|| begin_queue(conn, &composite), Ok)?) } else { key };
    if let Some(why) = letter.refusal(key.is_some(), rows_of(conn, &letter)?) {
        return Err(Refusal::NotQueued { peer: letter.peer, why });
    }
    let sql = "INSERT INTO inserted(connection_key, composite, topic, payload) VALUES(?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![key, composite, letter.topic, letter.payload])?;
    delete(conn, id)
}

/// Puts a message that its application had failed at back into the inbox. Says whether it came from there.
fn is_back_in_inbox(conn: &Connection, [owner, peer]: [&str; 2], id: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT record FROM dead_letters WHERE id = ?1";
    let record: Vec<u8> = conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    deliveries::put_back(conn, [owner, peer], &record)
}

/// Begins a queue as an operator does by hand: its node opens it when it is started.
fn begin_queue(conn: &Connection, composite: &str) -> rusqlite::Result<i64> {
    let key = next_key(conn)?;
    conn.prepare_cached("INSERT INTO conn_key_map(composite, connection_key) VALUES(?1, ?2)")?
        .execute(params![composite, key])?;
    Ok(key)
}

/// The rows of the node that the letter was for.
fn rows_of(conn: &Connection, letter: &DeadLetter) -> rusqlite::Result<Rows> {
    let sql = "SELECT count(*), coalesce(sum(topic = ?2), 0) FROM topic_addr WHERE client_name = ?1";
    conn.prepare_cached(sql)?.query_row([&letter.peer, &letter.topic], |row| {
        let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        Ok(Rows { all: number(0)?, of_topic: number(1)? })
    })
}

fn opened(path: &Path, source: rusqlite::Error) -> OpenError {
    if is_locked(&source) {
        return OpenError::Locked { path: path.to_owned() };
    }
    sqlite("read", path, source)
}
