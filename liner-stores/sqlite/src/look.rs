//! A look at a file from outside, beside the nodes that use it: what waits, who has subscribed, what was put aside.

use std::path::{Path, PathBuf};

use liner_proto::effect::{DeadReason, Queue};
use liner_proto::wire::record::{self, Record};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use crate::error::{OpenError, is_locked};
use crate::open::{PATIENCE, sqlite};
use crate::row::{QUEUES, QueueRow};
use crate::schema::{self, Verdict};
use crate::turn::Failure;
use crate::{file, names, reading};

/// A file that is looked at. It takes no node's name, and changes nothing but what [`drop_dead_letters`](Self::drop_dead_letters)
/// and [`redrive`](Self::redrive) are told to.
#[derive(Debug)]
pub struct Look {
    conn: Connection,
    path: PathBuf,
}

/// What a queue holds that is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The node whose queue it is.
    pub owner: String,
    /// Whom or what it is for.
    pub target: Target,
    /// Messages.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// What a queue is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A node.
    Node(String),
    /// Whoever subscribes to this topic first.
    Topic(String),
    /// Whoever answers at this address.
    Address(String),
}

/// That a node takes a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The node.
    pub name: String,
    /// Where it listens, as the table has it: `@name` for a node that only connects to others.
    pub address: String,
}

/// A message that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it in this file.
    pub id: i64,
    /// The node that has put it aside.
    pub owner: String,
    /// The node that it was for; if it was on a topic that `owner` does not take, the one that it came from.
    pub peer: String,
    /// The topic it was sent to.
    pub topic: String,
    /// Why; nothing if a newer release knows.
    pub reason: Option<DeadReason>,
    /// What was sent; nothing if the record is damaged.
    pub payload: Option<Vec<u8>>,
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
    /// A queue's row is damaged.
    #[error("{path} is damaged: start its node, which says what it can mend")]
    Damaged {
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
        let path = &*file::resolve(path.as_ref())?;
        if !path.exists() {
            return Err(LookError::Missing { path: path.to_owned() });
        }
        file::check(path)?;
        let failed = |source| opened(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.busy_timeout(PATIENCE).map_err(failed)?;
        let path = path.to_owned();
        match schema::examine(&conn).map_err(|source| opened(&path, source))? {
            Verdict::Ready { was: schema::VERSION } => Ok(Self { conn, path }),
            Verdict::Ready { was: 0 } => Err(LookError::Missing { path }),
            Verdict::Ready { .. } => Err(LookError::OlderSchema { path }),
            Verdict::Newer { found } => {
                Err(OpenError::NewerSchema { path, found, known: schema::VERSION }.into())
            }
            Verdict::Foreign => Err(OpenError::Foreign { path }.into()),
            Verdict::Unnumbered => Err(OpenError::Unnumbered { path, known: schema::VERSION }.into()),
        }
    }

    /// The queues that hold something, of one node or of all, by their nodes.
    ///
    /// # Errors
    /// What the database says.
    pub fn pending(&self, owner: Option<&str>) -> Result<Vec<Pending>, LookError> {
        let condition = "(?1 IS NULL OR owner = ?1) AND owner <> '' ORDER BY owner, kind, name";
        let columns = QUEUES.replace(" FROM", ", owner FROM");
        let mut select = self.said(self.conn.prepare(&format!("{columns} {condition}")))?;
        let queue = |row: &rusqlite::Row<'_>| {
            Ok((QueueRow::read(row)?, row.get::<_, u8>(14)?, row.get::<_, String>(15)?, row.get(16)?))
        };
        let rows = self.said(select.query_map([owner], queue))?;
        let mut pending = Vec::new();
        for row in rows {
            let (row, kind, name, owner): (_, _, _, String) = self.said(row)?;
            let damaged = || LookError::Damaged { path: self.path.clone() };
            let row = row.ok_or_else(damaged)?;
            let target = match names::queue(kind, &name).ok_or_else(damaged)? {
                Queue::Node(name) => Target::Node(name.to_owned()),
                Queue::Topic(topic) => Target::Topic(topic.to_owned()),
                Queue::Address(address) => Target::Address(address.to_owned()),
            };
            let (messages, bytes) =
                reading::count(&self.conn, &row, true).map_err(|fault| self.failed(fault))?;
            if messages > 0 {
                pending.push(Pending { owner, target, messages, bytes });
            }
        }
        Ok(pending)
    }

    /// Who takes what, by topics.
    ///
    /// # Errors
    /// What the database says.
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, LookError> {
        let sql = "SELECT topic, client_name, addr FROM topic_addr ORDER BY topic, client_name, addr";
        let mut select = self.said(self.conn.prepare(sql))?;
        let rows = select.query_map([], |row| {
            Ok(Subscription { topic: row.get(0)?, name: row.get(1)?, address: row.get(2)? })
        });
        let rows = self.said(rows)?.collect();
        self.said(rows)
    }

    /// Messages that were put aside, from the oldest on: up to `limit` with an id above `after`, of one topic or of all.
    ///
    /// # Errors
    /// What the database says.
    pub fn dead_letters(
        &self,
        topic: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, LookError> {
        let sql = "SELECT id, owner, peer, topic, reason, record FROM dead_letters \
             WHERE id > ?1 AND (?2 IS NULL OR topic = ?2) ORDER BY id LIMIT ?3";
        let mut select = self.said(self.conn.prepare_cached(sql))?;
        let rows = self.said(select.query_map(params![after, topic, limit], letter))?.collect();
        self.said(rows)
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none, or what the database says.
    pub fn dead_letter(&self, id: i64) -> Result<DeadLetter, LookError> {
        let sql = "SELECT id, owner, peer, topic, reason, record FROM dead_letters WHERE id = ?1";
        let found = self.conn.query_row(sql, [id], letter).optional();
        self.said(found)?.ok_or(LookError::NoSuchLetter { id })
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
    /// from the next start of the node on that has put them aside. Returns how many they were.
    ///
    /// # Errors
    /// If one of them is not there, or cannot be queued, or what the database says.
    pub fn redrive(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        let letters = ids.iter().map(|id| self.dead_letter(*id)).collect::<Result<Vec<_>, _>>()?;
        let mut left = letters.into_iter();
        self.each(ids, |conn, id| {
            let Some(letter) = left.next() else { return Ok(Err("it is gone".to_owned())) };
            let Some(payload) = letter.payload else { return Ok(Err("its record is damaged".to_owned())) };
            if letter.owner == letter.peer {
                return Ok(Err("it is for the node itself".to_owned()));
            }
            let composite = names::composite(&letter.owner, Queue::Node(&letter.peer));
            let sql = "SELECT connection_key FROM conn_key_map WHERE composite = ?1";
            let key: Option<i64> = conn.query_row(sql, [composite], |row| row.get(0)).optional()?;
            let Some(key) = key else {
                return Ok(Err(format!("nothing was ever sent to it by {}", letter.owner)));
            };
            let insert = "INSERT INTO conn_messages(connection_key, topic, payload) VALUES(?1, ?2, ?3)";
            match conn.execute(insert, params![key, letter.topic, payload]) {
                Ok(_) => delete(conn, id),
                // What the view's triggers refuse, they say in a sentence.
                Err(rusqlite::Error::SqliteFailure(error, Some(why)))
                    if error.code == rusqlite::ErrorCode::ConstraintViolation =>
                {
                    Ok(Err(why))
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Does the same with each, in one transaction. `Err` in the outcome says why one of them cannot be dealt with.
    fn each(
        &mut self,
        ids: &[i64],
        mut act: impl FnMut(&Connection, i64) -> rusqlite::Result<Result<(), String>>,
    ) -> Result<u64, LookError> {
        let peers =
            ids.iter().map(|id| Ok(self.dead_letter(*id)?.peer)).collect::<Result<Vec<_>, LookError>>()?;
        let path = self.path.clone();
        let failed = |source| LookError::from(opened(&path, source));
        let transaction =
            self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        for (id, peer) in ids.iter().copied().zip(peers) {
            let outcome = act(&transaction, id).map_err(failed)?;
            outcome.map_err(|why| LookError::NotQueued { id, peer, why })?;
        }
        transaction.commit().map_err(failed)?;
        Ok(ids.len() as u64)
    }

    fn said<T>(&self, outcome: rusqlite::Result<T>) -> Result<T, LookError> {
        outcome.map_err(|source| opened(&self.path, source).into())
    }

    fn failed(&self, failure: Failure) -> LookError {
        match failure {
            Failure::Sqlite(source) => opened(&self.path, source).into(),
            Failure::Fault(_) => LookError::Damaged { path: self.path.clone() },
        }
    }
}

fn letter(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeadLetter> {
    let record: Vec<u8> = row.get(5)?;
    let payload = match record::decode(&record) {
        Ok(Record::Message { payload, .. }) => Some(payload.to_vec()),
        _ => None,
    };
    let reason = row.get::<_, i64>(4)?;
    let reason = u8::try_from(reason).ok().and_then(DeadReason::from_number);
    Ok(DeadLetter {
        id: row.get(0)?,
        owner: row.get(1)?,
        peer: row.get(2)?,
        topic: row.get(3)?,
        reason,
        payload,
    })
}

fn delete(conn: &Connection, id: i64) -> rusqlite::Result<Result<(), String>> {
    let deleted = conn.execute("DELETE FROM dead_letters WHERE id = ?1", [id])?;
    Ok(if deleted == 1 { Ok(()) } else { Err("it is gone".to_owned()) })
}

fn opened(path: &Path, source: rusqlite::Error) -> OpenError {
    if is_locked(&source) {
        return OpenError::Locked { path: path.to_owned() };
    }
    sqlite("read", path, source)
}
