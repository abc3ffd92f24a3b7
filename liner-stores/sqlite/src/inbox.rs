//! The application's side of the inbox: it takes messages in its own transaction.

use std::path::Path;

use liner_proto::effect::InboxHeld;
use liner_store::inbox::{DEAD_LETTERS_MAX, FAILURES_MAX, Failed, InboxMessage};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::deliveries;
use crate::look::{self, LookError};
use crate::open::PATIENCE;

/// The inbox of a node that was built with one (`Builder::inbox`), in the node's own file.
///
/// [`take`](Self::take) lends its transaction to the application: what the application writes there, and that the message is taken, is
/// committed together or not at all. So each message is in the application's tables once, whatever dies meanwhile. That holds
/// for tables of the same file only: SQLite commits to several files one by one.
///
/// It is another connection to the file than the node's, in the same process or in another one. While one of them writes, the other waits,
/// up to five seconds: the application should be done with a transaction soon.
///
/// ```
/// # use liner_proto::{effect::{Delivery, StoreOp}, id::{Class, Epoch}, store::Store, wire::record::Mode};
/// use liner_store_sqlite::{Inbox, Options, SqliteStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("readings.db");
/// # let options = Options { name: "w".into(), durability: Class::Power, limit_bytes: None, boot_id: String::new() };
/// // The node's own file. The store goes to `Builder::store`.
/// let mut store = SqliteStore::open(&path, &options)?;
/// # store.apply(&[StoreOp::Deliver(Delivery { from: "s", epoch: Epoch(1), number: 1, topic: "t", mode: Mode::One,
/// #   maybe_redelivered: false, payload: b"21.5" })])?;
/// # store.commit()?;
///
/// let mut inbox = Inbox::open(&path, "w")?;
/// inbox.connection().execute_batch("CREATE TABLE IF NOT EXISTS reading(sensor TEXT NOT NULL, value TEXT NOT NULL)")?;
/// let taken = inbox.take(100, |transaction, message| {
///     let value = String::from_utf8_lossy(&message.payload);
///     transaction.execute("INSERT INTO reading VALUES(?1, ?2)", [&*message.from, &*value]).map(drop)
/// })?;
/// assert_eq!((taken.messages, inbox.waiting()?.messages), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Inbox {
    conn: Connection,
    owner: String,
    failures_max: u32,
    version: Option<i64>,
}

/// What came of a [`take`](Inbox::take). It is committed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Taken<E> {
    /// Messages that were taken.
    pub messages: u64,
    /// Those whose processing has failed. Of their senders nothing more was given.
    pub failed: Vec<Failed<E>>,
    /// Rows that did not pass their check. They are in the table `quarantine` now.
    pub damaged: u64,
}

/// Why nothing could be taken. Nothing of the call is committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The file is none that has an inbox, or no node of this name has used it.
    #[error(transparent)]
    Open(#[from] LookError),
    /// What the database says. If it failed at the commit, the messages may be taken: then what the application wrote is there, too.
    #[error("cannot take from the inbox, look at the disk and at who else uses the file: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The closure has ended the transaction, or the savepoint in it, that it was lent.
    #[error(
        "the closure ended the transaction that it was lent: let it return an error instead, or use a savepoint of its own"
    )]
    Ended,
}

/// What became of one message.
enum Given<E> {
    Taken,
    Failed(E),
    /// SQLite took the whole transaction back.
    Lost(E),
}

impl Inbox {
    /// Opens the inbox of the node `name` in its file, with a connection of its own. The node's store has to be open, or to have been.
    ///
    /// # Errors
    /// Why it cannot be opened. Nothing is made or changed then.
    pub fn open(path: impl AsRef<Path>, name: &str) -> Result<Self, InboxError> {
        let (conn, path) = look::connect(path.as_ref())?;
        look::judge(&conn, &path)?;
        Self::of(conn, name)
    }

    /// Takes a connection that the application has opened; its main database is the node's file. Its busy timeout becomes five seconds.
    ///
    /// # Errors
    /// Why it is of no use. Nothing is changed then.
    pub fn with_connection(conn: Connection, name: &str) -> Result<Self, InboxError> {
        conn.busy_timeout(PATIENCE)?;
        look::judge(&conn, Path::new(conn.path().unwrap_or_default()))?;
        Self::of(conn, name)
    }

    fn of(conn: Connection, name: &str) -> Result<Self, InboxError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM node WHERE name = ?1)";
        if !conn.query_row(sql, [name], |row| row.get::<_, bool>(0))? {
            let path = conn.path().unwrap_or_default().into();
            return Err(LookError::NoSuchNode { name: name.to_owned(), path }.into());
        }
        Ok(Self { conn, owner: name.to_owned(), failures_max: FAILURES_MAX, version: None })
    }

    /// After so many failures a message becomes a dead letter; 20 without this, and one at least.
    #[must_use]
    pub const fn failures_max(mut self, failures: u32) -> Self {
        self.failures_max = failures;
        self
    }

    /// The connection, for the application's own tables.
    pub const fn connection(&self) -> &Connection {
        &self.conn
    }

    /// What waits to be taken.
    ///
    /// # Errors
    /// What the database says.
    pub fn waiting(&self) -> Result<InboxHeld, InboxError> {
        Ok(deliveries::held(&self.conn, &self.owner)?)
    }

    /// Whether somebody else has written to the file since this was asked last, so that there may be something to take. It costs next
    /// to nothing. Whoever runs the node itself need not ask: `Progress::delivered` says when there is something.
    ///
    /// # Errors
    /// What the database says.
    pub fn has_news(&mut self) -> Result<bool, InboxError> {
        let version = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        Ok(self.version.replace(version) != Some(version))
    }

    /// Takes up to `most` messages in one transaction, from the oldest on, and commits. For each of them `process` is lent the
    /// transaction, in which it writes what it makes of the message.
    ///
    /// When `process` returns an error, what it wrote for that message is taken back, and the message stays where it is with one failure
    /// more; of the same sender nothing more is given in this call, so that its order stays. A message that has failed
    /// [too often](Self::failures_max) becomes a dead letter in the same transaction, unless there are 10,000 of those. Nothing makes
    /// a pause before the next call: that is for the caller to do.
    ///
    /// A panic in `process` takes the whole call back, and so does the death of the process.
    ///
    /// # Errors
    /// See [`InboxError`]. Nothing of the call is committed then.
    pub fn take<E>(
        &mut self,
        most: usize,
        mut process: impl FnMut(&Transaction<'_>, &InboxMessage) -> Result<(), E>,
    ) -> Result<Taken<E>, InboxError> {
        let mut taken = Taken { messages: 0, failed: Vec::new(), damaged: 0 };
        let sql = "SELECT EXISTS(SELECT 1 FROM inbox WHERE owner = ?1)";
        if !self.conn.prepare_cached(sql)?.query_row([&self.owner], |row| row.get::<_, bool>(0))? {
            // Nobody has to wait for the lock of a transaction.
            return Ok(taken);
        }
        let owner = &self.owner;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut after = i64::MIN;
        for _ in 0..most {
            let Some((id, message)) = next(&transaction, owner, after, &taken.failed)? else { break };
            after = id;
            let Some(mut message) = message else {
                deliveries::quarantine(&transaction, owner, id)?;
                taken.damaged += 1;
                continue;
            };
            match give(&transaction, id, &message, &mut process)? {
                Given::Taken => taken.messages += 1,
                Given::Failed(error) => {
                    message.failures = message.failures.saturating_add(1);
                    let put_aside = fail(&transaction, owner, id, &message, self.failures_max)?;
                    taken.failed.push(Failed::new(error, message, put_aside));
                }
                Given::Lost(error) => {
                    let failed = vec![Failed::new(error, message, false)];
                    return Ok(Taken { messages: 0, failed, damaged: 0 });
                }
            }
        }
        transaction.commit()?;
        Ok(taken)
    }
}

/// The next row, of none of the senders of whom something has failed.
fn next<E>(
    transaction: &Transaction<'_>,
    owner: &str,
    after: i64,
    failed: &[Failed<E>],
) -> rusqlite::Result<Option<(i64, Option<InboxMessage>)>> {
    let mut senders = String::from("[");
    for failed in failed {
        if senders.len() > 1 {
            senders.push(',');
        }
        push_json(&mut senders, &failed.message.from);
    }
    senders.push(']');
    let mut select = transaction.prepare_cached(deliveries::NEXT)?;
    select.query_row(params![owner, after, senders], |row| deliveries::read(owner, row)).optional()
}

/// A text as JSON has it.
fn push_json(json: &mut String, text: &str) {
    use core::fmt::Write as _;
    json.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            // Writing to a string does not fail.
            '\0'..='\x1f' => drop(write!(json, "\\u{:04x}", u32::from(char))),
            _ => json.push(char),
        }
    }
    json.push('"');
}

/// Takes one message out, and lets the application write what it makes of it. After an error all of that is as it was.
fn give<E>(
    transaction: &Transaction<'_>,
    id: i64,
    message: &InboxMessage,
    process: &mut impl FnMut(&Transaction<'_>, &InboxMessage) -> Result<(), E>,
) -> Result<Given<E>, InboxError> {
    let run = |sql| transaction.prepare_cached(sql)?.execute([]).map(drop);
    run("SAVEPOINT liner_taken")?;
    deliveries::delete(transaction, id)?;
    let outcome = process(transaction, message);
    let ended = |_| InboxError::Ended;
    match outcome {
        Err(error) if transaction.is_autocommit() => Ok(Given::Lost(error)),
        Ok(()) => run("RELEASE liner_taken").map(|()| Given::Taken).map_err(ended),
        Err(error) => {
            run("ROLLBACK TO liner_taken").and_then(|()| run("RELEASE liner_taken")).map_err(ended)?;
            Ok(Given::Failed(error))
        }
    }
}

/// Counts the failure. Says whether the message is a dead letter now.
fn fail(
    transaction: &Transaction<'_>,
    owner: &str,
    id: i64,
    message: &InboxMessage,
    failures_max: u32,
) -> rusqlite::Result<bool> {
    if message.failures >= failures_max {
        let sql = "SELECT count(*) FROM dead_letters WHERE owner = ?1";
        let letters: i64 = transaction.prepare_cached(sql)?.query_row([owner], |row| row.get(0))?;
        if letters.cast_unsigned() < DEAD_LETTERS_MAX {
            deliveries::put_aside(transaction, owner, id, message)?;
            return Ok(true);
        }
    }
    let sql = "UPDATE inbox SET failures = ?2 WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute(params![id, message.failures])?;
    Ok(false)
}
