//! Transactions: one a turn. Groups are tried out before they are executed, so that what fails then is the database itself,
//! and takes the whole turn with it.

use liner_proto::effect::{StoreFault, StoreOp};
use rusqlite::Connection;

use crate::SqliteStore;
use crate::error::{classify, classify_commit};
use crate::numbers::{Demand, Trial};

/// How far the turn's transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing was applied since the last commit.
    Idle,
    /// The transaction is open.
    Open,
    /// SQLite took the whole transaction back, for this reason; `commit` has yet to say so.
    Lost(StoreFault),
    /// Whether the last commit took place is not known, so that no further one may follow.
    Dead,
}

/// A request failed: for a reason that the contract has, or because SQLite failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Fault(StoreFault),
    Sqlite(rusqlite::Error),
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The bound on the database's size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) bytes: Option<u64>,
    /// At least so much can be appended before the size has to be looked up again.
    known: u64,
}

/// What one row takes beside its bytes, generously.
const ROW_BYTES: u64 = 1 << 10;

impl Limit {
    pub(crate) const fn new(bytes: Option<u64>) -> Self {
        Self { bytes, known: 0 }
    }

    /// Whether there is room for what a group demands. One that also gives up something may exceed the limit by a sixteenth: a
    /// row that is moved in pieces is there twice until its last piece has moved.
    fn check(&mut self, conn: &Connection, demand: Demand) -> Result<(), Failure> {
        let Some(limit) = self.bytes.filter(|_| demand.rows > 0) else { return Ok(()) };
        let need = demand.bytes.saturating_add(demand.rows.saturating_mul(ROW_BYTES));
        if let Some(left) = self.known.checked_sub(need) {
            self.known = left;
            return Ok(());
        }
        let number =
            |sql| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
        let used = pages.saturating_mul(number("PRAGMA page_size")?);
        self.known = limit.saturating_sub(used) / 2;
        let slack = if demand.gives { limit / 16 } else { 0 };
        if used.saturating_add(need) > limit.saturating_add(slack) {
            Err(StoreFault::Full.into())
        } else {
            Ok(())
        }
    }
}

impl SqliteStore {
    pub(crate) fn apply_group(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        match self.turn {
            Turn::Lost(fault) => return Err(fault),
            Turn::Dead => return Err(StoreFault::Unavailable),
            Turn::Idle | Turn::Open => {}
        }
        if group.is_empty() {
            return Ok(());
        }
        let first = self.turn == Turn::Idle;
        let begun = if first { self.begin() } else { Ok(()) };
        let Err(failure) = begun.and_then(|()| self.try_out(group)) else {
            return self.execute(group).map_err(|failure| {
                let fault = self.note(failure);
                self.take_back(if first { Turn::Idle } else { Turn::Lost(fault) });
                fault
            });
        };
        let fault = self.note(failure);
        if first || self.conn.is_autocommit() {
            self.take_back(if first { Turn::Idle } else { Turn::Lost(fault) });
        }
        Err(fault)
    }

    pub(crate) fn commit_turn(&mut self) -> Result<(), StoreFault> {
        match self.turn {
            Turn::Idle => return Ok(()),
            Turn::Lost(fault) => {
                self.turn = Turn::Idle;
                return Err(fault);
            }
            Turn::Dead => return Err(StoreFault::Unavailable),
            Turn::Open => {}
        }
        if let Err(failure) = self.rows.save(&self.conn) {
            let fault = self.note(failure);
            self.take_back(Turn::Idle);
            return Err(fault);
        }
        let Err(error) = self.run("COMMIT") else {
            self.turn = Turn::Idle;
            if self.ballast.is_released() {
                self.ballast.allow();
                self.reuse_log();
            }
            return Ok(());
        };
        let fault = match &error {
            Failure::Sqlite(error) => classify_commit(error),
            Failure::Fault(fault) => *fault,
        };
        self.note(error);
        self.take_back(if fault == StoreFault::Unknown { Turn::Dead } else { Turn::Idle });
        Err(fault)
    }

    /// Runs something that only reads, and sorts its failure.
    pub(crate) fn guarded<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, StoreFault> {
        if self.turn == Turn::Dead {
            return Err(StoreFault::Unavailable);
        }
        read(self).map_err(|failure| self.note(failure))
    }

    /// Runs a statement that gives no rows.
    pub(crate) fn run(&self, sql: &str) -> Result<(), Failure> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Forgets the rows of queues that it knows.
    pub(crate) fn forget_rows(&mut self) {
        self.rows.clear();
        self.limit.known = 0;
    }

    /// Looks whether somebody else wrote to the file, and forgets what may have changed.
    pub(crate) fn refresh(&mut self) -> Result<(), Failure> {
        if self.turn == Turn::Open {
            return Ok(());
        }
        let version = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if version != self.version {
            self.forget_rows();
            let mut cleared = self.conn.prepare_cached("SELECT EXISTS(SELECT 1 FROM cleared)")?;
            self.cleared = cleared.query_row([], |row| row.get(0))?;
            self.version = version;
        }
        Ok(())
    }

    /// Ends the last turn, and marks the store as closed by its owner.
    pub(crate) fn retire(&mut self) -> Result<(), StoreFault> {
        if self.turn == Turn::Dead {
            return Err(StoreFault::Unknown);
        }
        self.take_back(Turn::Dead);
        let marked = self.conn.execute("UPDATE node SET clean = 1 WHERE name = ?1", [&self.owner]);
        marked.map(drop).map_err(|error| self.note(error.into()))
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.ballast.restore_if_allowed();
        self.run("BEGIN IMMEDIATE")?;
        self.refresh()?;
        self.turn = Turn::Open;
        Ok(())
    }

    /// Whether the group is right and there is room for it. Changes nothing.
    fn try_out(&mut self, group: &[StoreOp<'_>]) -> Result<(), Failure> {
        let mut trial = Trial::default();
        for op in group {
            trial.step(op, |queue| {
                let found = self.rows.find(&self.conn, &self.owner, queue)?;
                Ok::<_, Failure>(found.map(|row| row.numbers))
            })?;
        }
        if trial.demand.grows && self.ballast.is_released() {
            return Err(StoreFault::Full.into());
        }
        self.limit.check(&self.conn, trial.demand)
    }

    fn execute(&mut self, group: &[StoreOp<'_>]) -> Result<(), Failure> {
        group.iter().try_for_each(|op| self.step(op))
    }

    /// Takes back all that was applied since the last commit.
    fn take_back(&mut self, turn: Turn) {
        // There may be no transaction: it could not begin, or SQLite has taken it back itself.
        let _ = self.run("ROLLBACK");
        self.forget_rows();
        self.turn = turn;
    }

    /// Moves what was committed from the log to its place, so that the log's space is used again.
    fn reuse_log(&self) {
        // It is tried again after the next commit.
        let _ = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Keeps the backend's words, and sorts the failure.
    fn note(&mut self, failure: Failure) -> StoreFault {
        match failure {
            Failure::Fault(fault) => fault,
            Failure::Sqlite(error) => {
                self.last_error = Some(error.to_string());
                let fault = classify(&error);
                if fault == StoreFault::Full {
                    self.ballast.release();
                }
                fault
            }
        }
    }
}
