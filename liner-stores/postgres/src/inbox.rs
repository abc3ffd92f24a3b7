//! The application's side of the inbox: it takes messages in its own transaction.

use liner_proto::effect::{DeadReason, InboxHeld};
use liner_store::check::Check;
use liner_store::inbox::{DEAD_LETTERS_MAX, FAILURES_MAX, Failed, InboxMessage};
use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Client, IsolationLevel, Row, Transaction};

use crate::buffer::Letter;
use crate::columns::of;
use crate::deliveries;
use crate::error::{OpenError, breaks, words};
use crate::lend::Lender;
use crate::recover;
use crate::text::to_column;
use crate::url::Url;

/// So many bytes of messages are read ahead, and one message at least.
const AHEAD_BYTES: i64 = 1 << 20;

/// Whoever takes from an inbox keeps others from it until the end of its transaction: two of them would mix the order of a sender.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7106162, $1)";

const DELETE: &str = "DELETE FROM inbox WHERE id = $1 RETURNING 1";

const LETTER: &str = "INSERT INTO dead_letters(owner, peer, topic, reason, crc, record)
SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM dead_letters WHERE owner = $1) < $7 RETURNING 1";

/// Takes a damaged row out, and keeps a copy of it.
const QUARANTINE: &str =
    "WITH gone AS (DELETE FROM inbox WHERE id = $1 RETURNING epoch, number, crc, sender, payload)
INSERT INTO quarantine(epoch, first, last, crc, composite, bytes)
SELECT epoch, number, number, crc, $2 || sender, payload FROM gone";

/// The inbox of a node that was built with one (`Builder::inbox`), in the node's own database.
///
/// [`take`](Self::take) lends its transaction to the application: what the application writes there, and that the message is taken, is
/// committed together or not at all. So each message is in the application's tables once, whatever dies meanwhile.
///
/// It is another connection than the node's, in the same process or in another one. It waits for the server's answers without an end,
/// unless `options` of the URL or the application sets a `statement_timeout`. The node puts messages in while the
/// application takes them. Of several that take from the same inbox one waits for the other.
pub struct Inbox {
    client: Client,
    /// Connects again, if it was the inbox that connected.
    lender: Option<Lender>,
    owner: String,
    /// The same as columns have it.
    column: String,
    /// What is locked.
    lock: i32,
    failures_max: u32,
}

impl core::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Inbox").field("owner", &self.owner).finish_non_exhaustive()
    }
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
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database has no inbox.
    #[error("there is no store in this database: start the node whose inbox it is to be")]
    Missing,
    /// No node of this name has used the database.
    #[error("no node named {name:?} has used this database: name one that has, or another database")]
    NoSuchNode {
        /// The name.
        name: String,
    },
    /// What the server says. If it failed at the commit, the messages may be taken: then what the application wrote is there, too.
    #[error("cannot take from the inbox: {words}", words = words(.0))]
    Postgres(#[from] postgres::Error),
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
    /// Somebody has deleted it.
    Gone,
    /// The connection is lost, and the transaction with it.
    Lost(E),
}

impl Inbox {
    /// Opens the inbox of the node `name` in its database, with a connection of its own. The node's store has to be open, or to have been.
    ///
    /// # Errors
    /// Why it cannot be opened. Nothing is made or changed then.
    pub fn open(url: &Url, name: &str) -> Result<Self, InboxError> {
        let lender = Lender::new(url, name);
        let client = lender.connect()?;
        Ok(Self { lender: Some(lender), ..Self::with_client(client, name)? })
    }

    /// Takes a connection that the application has made to the node's database.
    ///
    /// # Errors
    /// Why it is of no use. Nothing is changed then.
    pub fn with_client(mut client: Client, name: &str) -> Result<Self, InboxError> {
        let there = client.query_typed(crate::schema::EXISTS, &[])?;
        if !there.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Err(InboxError::Missing);
        }
        let column = to_column(name).into_owned();
        let sql = "SELECT 1 FROM liner_node WHERE name = $1";
        if client.query_typed(sql, &[of(&column, Type::TEXT)])?.is_empty() {
            return Err(InboxError::NoSuchNode { name: name.to_owned() });
        }
        // The same in every build of it. Two inboxes with the same number wait for each other now and then, which harms nobody.
        let lock = (Check::default().text(name).value() as i32).saturating_abs().max(2);
        Ok(Self { client, lender: None, owner: name.to_owned(), column, lock, failures_max: FAILURES_MAX })
    }

    /// After so many failures a message becomes a dead letter; 20 without this, and one at least.
    #[must_use]
    pub fn failures_max(mut self, failures: u32) -> Self {
        self.failures_max = failures;
        self
    }

    /// The connection, for the application's own tables.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Asks something about the node's part. If the connection turns out to be lost, and the inbox has made it, another one is made.
    fn ask(&mut self, sql: &str) -> Result<Vec<Row>, InboxError> {
        let of_node = [of(&self.column, Type::TEXT)];
        match (self.client.query_typed(sql, &of_node), &self.lender) {
            (Err(error), Some(lender)) if breaks(&error) => {
                self.client = lender.connect()?;
                Ok(self.client.query_typed(sql, &of_node)?)
            }
            (outcome, _) => Ok(outcome?),
        }
    }

    /// What waits to be taken.
    ///
    /// # Errors
    /// What the server says.
    pub fn waiting(&mut self) -> Result<InboxHeld, InboxError> {
        let rows = self.ask(recover::INBOX)?;
        let Some(row) = rows.first() else { return Ok(InboxHeld::default()) };
        let number = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
        Ok(InboxHeld { messages: number(0)?, bytes: number(1)? })
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
        mut process: impl FnMut(&mut Transaction<'_>, &InboxMessage) -> Result<(), E>,
    ) -> Result<Taken<E>, InboxError> {
        let mut taken = Taken { messages: 0, failed: Vec::new(), damaged: 0 };
        if self.ask("SELECT 1 FROM inbox WHERE owner = $1 LIMIT 1")?.is_empty() {
            // Nobody has to wait for the lock.
            return Ok(taken);
        }
        let transaction = self.client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
        let mut transaction = transaction.start()?;
        transaction.query_typed(LOCK, &[of(&self.lock, Type::INT4)])?;
        let (mut after, mut left) = (i64::MIN, most);
        while left > 0 {
            let page = next(&mut transaction, &self.column, after, left)?;
            if page.is_empty() {
                break;
            }
            for row in page {
                after = row.try_get(0)?;
                let Some(mut message) = deliveries::sound(&self.owner, &row) else {
                    let composite = format!("{}:\\i", to_column(&liner_store::names::prefix(&self.owner)));
                    transaction
                        .query_typed(QUARANTINE, &[of(&after, Type::INT8), of(&composite, Type::TEXT)])?;
                    (taken.damaged, left) = (taken.damaged + 1, left - 1);
                    continue;
                };
                if taken.failed.iter().any(|failed| failed.message.from == message.from) {
                    continue;
                }
                left -= 1;
                match give(&mut transaction, after, &message, &mut process)? {
                    Given::Taken => taken.messages += 1,
                    Given::Gone => {}
                    Given::Failed(error) => {
                        message.failures = message.failures.saturating_add(1);
                        let put_aside = self.failures_max <= message.failures
                            && put_aside(&mut transaction, [&self.owner, &self.column], after, &message)?;
                        if !put_aside {
                            count_failure(&mut transaction, after, message.failures)?;
                        }
                        taken.failed.push(Failed::new(error, message, put_aside));
                    }
                    Given::Lost(error) => {
                        let failed = vec![Failed::new(error, message, false)];
                        return Ok(Taken { messages: 0, failed, damaged: 0 });
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(taken)
    }
}

/// The next rows.
fn next(
    transaction: &mut Transaction<'_>,
    owner: &String,
    after: i64,
    most: usize,
) -> Result<Vec<Row>, postgres::Error> {
    let sql = crate::look::page("inbox", "owner = $2", deliveries::COLUMNS, "payload");
    let most = most.min(256) as i64;
    let params =
        [of(&after, Type::INT8), of(owner, Type::TEXT), of(&most, Type::INT8), of(&AHEAD_BYTES, Type::INT8)];
    transaction.query_typed(&sql, &params)
}

/// Takes one message out, and lets the application write what it makes of it. After an error all of that is as it was.
fn give<E>(
    transaction: &mut Transaction<'_>,
    id: i64,
    message: &InboxMessage,
    process: &mut impl FnMut(&mut Transaction<'_>, &InboxMessage) -> Result<(), E>,
) -> Result<Given<E>, InboxError> {
    let mut savepoint = transaction.transaction()?;
    if savepoint.query_typed(DELETE, &[of(&id, Type::INT8)])?.is_empty() {
        savepoint.commit()?;
        return Ok(Given::Gone);
    }
    let ended = |error: postgres::Error| match error.code() {
        Some(&SqlState::S_E_INVALID_SPECIFICATION | &SqlState::NO_ACTIVE_SQL_TRANSACTION) => {
            InboxError::Ended
        }
        _ => InboxError::Postgres(error),
    };
    match process(&mut savepoint, message) {
        Ok(()) => savepoint.commit().map(|()| Given::Taken).map_err(ended),
        Err(error) => match savepoint.rollback() {
            Ok(()) => Ok(Given::Failed(error)),
            Err(lost) if breaks(&lost) => Ok(Given::Lost(error)),
            Err(other) => Err(ended(other)),
        },
    }
}

/// Makes a message a dead letter, if there are not too many of those. Says whether it is one now.
fn put_aside(
    transaction: &mut Transaction<'_>,
    [owner, column]: [&String; 2],
    id: i64,
    message: &InboxMessage,
) -> Result<bool, postgres::Error> {
    let record = message.record();
    let letter = Letter::new([owner, &message.from, &message.topic], DeadReason::Failed, &record);
    let letters_max = DEAD_LETTERS_MAX as i64;
    let params = [
        of(column, Type::TEXT),
        of(&letter.peer, Type::TEXT),
        of(&letter.topic, Type::TEXT),
        of(&letter.reason, Type::INT2),
        of(&letter.crc, Type::INT8),
        of(&letter.record, Type::BYTEA),
        of(&letters_max, Type::INT8),
    ];
    if transaction.query_typed(LETTER, &params)?.is_empty() {
        return Ok(false);
    }
    transaction.query_typed(DELETE, &[of(&id, Type::INT8)])?;
    Ok(true)
}

fn count_failure(transaction: &mut Transaction<'_>, id: i64, failures: u32) -> Result<(), postgres::Error> {
    let failures = i32::try_from(failures).unwrap_or(i32::MAX);
    let sql = "UPDATE inbox SET failures = $2 WHERE id = $1";
    transaction.query_typed(sql, &[of(&id, Type::INT8), of(&failures, Type::INT4)]).map(drop)
}
