//! Transactions: one a turn. Groups are tried out before they are executed, so that what fails then is the database itself,
//! and takes the whole turn with it.

use core::time::Duration;
use std::path::Path;

use liner_proto::effect::{StoreFault, StoreOp};
use liner_store::numbers::{Demand, Trial};
use rusqlite::Connection;

use crate::SqliteStore;
use crate::error::{classify, classify_commit};
use crate::open::{PATIENCE, fit_log};

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

/// What becomes of the log's own space.
#[derive(Clone, Copy, Debug)]
enum Checkpoint {
    /// The next transaction begins at its start.
    Passive,
    /// It is given back to the disk.
    Truncate,
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

const PAGE_SIZE: &str = "PRAGMA page_size";

/// Free pages that are not counted upon: they are for what keeps the tables in order.
const FREE_MIN: u64 = 64 << 10;

/// So many more must be free, or an eighth of the database, before something is let in again after something was refused:
/// otherwise the store would be full and work again with every message that is acknowledged.
const FREE_AGAIN: u64 = 256 << 10;

/// The number that a pragma tells.
fn pragma(conn: &Connection, sql: &str) -> rusqlite::Result<u64> {
    conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

impl Limit {
    pub(crate) const fn new(bytes: Option<u64>) -> Self {
        Self { bytes, known: 0 }
    }

    /// Whether there is room for what a group demands. A move may exceed the limit: it gives up as much as it takes, but for
    /// the row that it moves a piece of, which is there twice until its last piece has moved.
    fn check(&mut self, conn: &Connection, demand: Demand, move_max: u64) -> Result<(), Failure> {
        let Some(limit) = self.bytes.filter(|_| demand.rows > 0) else { return Ok(()) };
        let need = demand.bytes();
        if let Some(left) = self.known.checked_sub(need) {
            self.known = left;
            return Ok(());
        }
        let pages = pragma(conn, "PRAGMA page_count")?.saturating_sub(pragma(conn, "PRAGMA freelist_count")?);
        let used = pages.saturating_mul(pragma(conn, PAGE_SIZE)?);
        self.known = limit.saturating_sub(used) / 2;
        let enough = demand.is_move(move_max) || used.saturating_add(need) <= limit;
        if enough { Ok(()) } else { Err(StoreFault::Full.into()) }
    }
}

/// What to do about a file that is not where it was.
fn words_about(lost: &Path) -> String {
    format!(
        "{} was deleted or replaced while in use: stop the node, put the file back or begin anew; \
         nothing is acknowledged meanwhile",
        lost.display()
    )
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
        // Before the commit nothing is durable: here it is early enough to see where the turn would go.
        if let Some(lost) = self.held.lost() {
            self.last_error = Some(words_about(lost));
            self.take_back(Turn::Idle);
            return Err(StoreFault::Unavailable);
        }
        let Err(error) = self.run("COMMIT") else {
            return self.finish_turn();
        };
        let fault = match &error {
            Failure::Sqlite(error) => classify_commit(error),
            Failure::Fault(fault) => *fault,
        };
        self.note(error);
        self.take_back(if fault == StoreFault::Unknown { Turn::Dead } else { Turn::Idle });
        Err(fault)
    }

    /// The commit has succeeded: it counts if the file was there until then.
    fn finish_turn(&mut self) -> Result<(), StoreFault> {
        if let Some(lost) = self.held.lost_since() {
            // If it comes back, the turn is in it, and else nothing is.
            self.last_error = Some(words_about(lost));
            self.take_back(Turn::Dead);
            return Err(StoreFault::Unknown);
        }
        self.turn = Turn::Idle;
        if self.ballast.is_released() {
            self.ballast.allow();
            self.reuse_log(Checkpoint::Passive);
        } else if self.grows {
            self.ballast.prove();
        }
        Ok(())
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
        if self.ballast.restore_if_allowed() {
            fit_log(&self.conn, self.ballast.log_pages())?;
        }
        self.run("BEGIN IMMEDIATE")?;
        self.refresh()?;
        (self.turn, self.grows) = (Turn::Open, false);
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
            self.check_free_pages(trial.demand)?;
        }
        self.limit.check(&self.conn, trial.demand, self.ballast.move_max())?;
        self.grows |= trial.demand.grows;
        Ok(())
    }

    /// Whether what the group demands has room, twice over, in pages of the database that are free. What the disk has is
    /// not counted upon. A group that gives up something takes little more than that: the space of the ballast bears it, and
    /// without it a full disk could never be emptied of what has to be moved first.
    fn check_free_pages(&mut self, demand: Demand) -> Result<(), Failure> {
        let size = pragma(&self.conn, PAGE_SIZE)?;
        let bytes = |sql| Ok::<_, Failure>(pragma(&self.conn, sql)?.saturating_mul(size));
        let mut need = demand.bytes().saturating_mul(2).saturating_add(FREE_MIN);
        if self.ballast.was_refused() {
            need = need.saturating_add(FREE_AGAIN.min(bytes("PRAGMA page_count")? / 8));
        }
        let is_move = demand.is_move(self.ballast.move_max());
        let enough = is_move || bytes("PRAGMA freelist_count")? >= need;
        if !is_move {
            self.ballast.note_growth(enough);
        }
        if enough && self.ballast.is_growth_allowed() {
            return Ok(());
        }
        self.ballast.allow();
        Err(StoreFault::Full.into())
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
        if self.disk_full {
            self.disk_full = false;
            self.ballast.release();
            self.reuse_log(Checkpoint::Truncate);
        }
    }

    /// Moves what was committed from the log to its place, so that the log's own space is used again.
    fn reuse_log(&self, how: Checkpoint) {
        // It is tried again after the next commit. What others do with the file is not waited for.
        let _ = match how {
            Checkpoint::Passive => self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())),
            Checkpoint::Truncate => self
                .conn
                .busy_timeout(Duration::ZERO)
                .and_then(|()| self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
                .and(self.conn.busy_timeout(PATIENCE)),
        };
    }

    /// Keeps the backend's words, and sorts the failure.
    fn note(&mut self, failure: Failure) -> StoreFault {
        match failure {
            Failure::Fault(fault) => fault,
            Failure::Sqlite(error) => {
                self.last_error = Some(error.to_string());
                let fault = classify(&error);
                self.disk_full |= fault == StoreFault::Full;
                fault
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use liner_proto::effect::{Loaded, Queue};
    use liner_proto::id::{Class, Epoch};
    use liner_proto::store::Store as _;
    use rusqlite::{ErrorCode, ffi};

    use super::*;
    use crate::Options;

    const NODE: Queue<'static> = Queue::Node("gateway");

    fn open(folder: &Path) -> SqliteStore {
        let (name, boot_id) = ("sensor".to_owned(), "boot".to_owned());
        let options = Options { name, durability: Class::Process, limit_bytes: None, boot_id };
        SqliteStore::open(folder.join("liner.db"), &options).unwrap()
    }

    /// A run of one record.
    fn record(len: usize) -> Vec<u8> {
        let mut run = vec![len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8];
        run.resize(3 + len, 0x40);
        run
    }

    fn append(number: u64, records: &[u8]) -> StoreOp<'_> {
        StoreOp::Append { queue: NODE, first: number, last: number, records }
    }

    fn held(store: &mut SqliteStore) -> u64 {
        store.queued(NODE).unwrap().0
    }

    /// A worker thread executes the turns of a node.
    #[test]
    fn it_can_move_to_another_thread() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let outcome = std::thread::spawn(move || store.commit()).join().unwrap();
        assert_eq!(outcome, Ok(()));
    }

    #[test]
    fn acknowledgements_pass_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = folder.path().join("liner.db.ballast");
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        let (small, large) = (record(3000), record(200_000));
        for number in 1..=20 {
            store.apply(&[append(number, &small)]).unwrap();
        }
        store.commit().unwrap();
        let pages = pragma(&store.conn, "PRAGMA page_count").unwrap();
        let set = |store: &SqliteStore, most: u64| {
            store.conn.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).unwrap();
        };
        set(&store, pages + 4);
        let trim = |through| [StoreOp::Trim { queue: NODE, through }];
        // SQLite takes the whole turn back, with the acknowledgement in it.
        assert_eq!(store.apply(&trim(1)), Ok(()));
        assert_eq!(store.apply(&[append(21, &large)]), Err(StoreFault::Full));
        assert_eq!(store.apply(&trim(1)), Err(StoreFault::Full));
        assert_eq!(store.commit(), Err(StoreFault::Full));
        assert!(store.last_error().is_some_and(|words| words.contains("full")));
        assert_eq!((held(&mut store), ballast.exists()), (20, false));
        // The next one leaves out what grows, and so the acknowledgement gets through.
        assert_eq!(store.apply(&trim(1)), Ok(()));
        assert_eq!(store.apply(&[append(21, &small)]), Err(StoreFault::Full));
        assert_eq!(store.apply(&[StoreOp::Cursor { peer: "p", epoch: Epoch(1), through: 1 }]), Ok(()));
        assert_eq!(store.commit(), Ok(()));
        assert_eq!(held(&mut store), 19);
        // After it there is room for a ballast, but still none for the message.
        assert_eq!(store.apply(&trim(2)), Ok(()));
        assert_eq!((ballast.exists(), store.apply(&[append(21, &large)])), (true, Err(StoreFault::Full)));
        assert_eq!(store.commit(), Err(StoreFault::Full));
        assert_eq!((held(&mut store), ballast.exists()), (19, false));
        // Nothing to acknowledge: one attempt is refused out of hand, and one since the last ballast was of no use. The next
        // one is made.
        set(&store, 1 << 30);
        assert_eq!(store.apply(&[append(21, &large)]), Err(StoreFault::Full));
        assert_eq!(store.apply(&[append(21, &large)]), Err(StoreFault::Full));
        assert_eq!(store.apply(&[append(21, &large)]), Ok(()));
        assert_eq!(store.commit(), Ok(()));
        assert_eq!((held(&mut store), ballast.exists()), (20, true));
    }

    #[test]
    fn without_a_ballast_free_pages_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        let records = record(100_000);
        for number in 1..=10 {
            store.apply(&[append(number, &records)]).unwrap();
        }
        store.commit().unwrap();
        store.ballast.release();
        // A folder in its place keeps it from being made again.
        std::fs::create_dir(folder.path().join("liner.db.ballast")).unwrap();
        assert_eq!(store.apply(&[append(11, &records)]), Err(StoreFault::Full));
        assert_eq!(store.apply(&[append(11, &records)]), Err(StoreFault::Full), "no page is free");
        store.apply(&[StoreOp::Trim { queue: NODE, through: 5 }]).unwrap();
        store.commit().unwrap();
        let mut taken = 0;
        while store.apply(&[append(11 + taken, &records)]).is_ok() {
            store.commit().unwrap();
            taken += 1;
        }
        assert!((2..5).contains(&taken), "{taken}");
        assert!(store.ballast.is_released());
    }

    #[test]
    fn a_ballast_that_is_of_no_use_is_seldom_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        store.commit().unwrap();
        let pages = pragma(&store.conn, "PRAGMA page_count").unwrap();
        store.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        let records = record(200_000);
        let mut made = 0;
        for _ in 0..200 {
            let was = store.ballast.is_released();
            assert_eq!(store.apply(&[append(1, &records)]), Err(StoreFault::Full));
            // It was there, or was made, and the attempt has failed.
            made += u32::from(!store.ballast.is_growth_allowed() && was);
        }
        assert!((3..10).contains(&made), "{made}");
    }

    #[test]
    fn what_was_refused_is_let_in_again_when_there_is_more_room_than_just_enough() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        let records = record(10_000);
        for number in 1..=100 {
            store.apply(&[append(number, &records)]).unwrap();
        }
        store.commit().unwrap();
        store.ballast.release();
        std::fs::create_dir(folder.path().join("liner.db.ballast")).unwrap();
        // Each takes twice as much as one that is acknowledged gives up.
        let larger = record(20_000);
        let (mut last, mut works, mut turned) = (100, true, 0);
        for through in 1..=100 {
            store.apply(&[StoreOp::Trim { queue: NODE, through }]).unwrap();
            store.commit().unwrap();
            let fits = store.apply(&[append(last + 1, &larger)]).is_ok();
            store.commit().unwrap();
            last += u64::from(fits);
            turned += u32::from(fits != works);
            works = fits;
        }
        assert!(last > 125, "{last}");
        assert!((3..20).contains(&turned), "{turned}");
    }

    #[test]
    fn after_an_unknown_outcome_it_says_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let group = [StoreOp::Open { queue: NODE, epoch: Epoch(1) }];
        store.apply(&group).unwrap();
        store.take_back(Turn::Dead);
        assert_eq!(store.apply(&group), Err(StoreFault::Unavailable));
        assert_eq!(store.commit(), Err(StoreFault::Unavailable));
        assert_eq!(store.load(NODE, 0, &mut []), Err(StoreFault::Unavailable));
        assert_eq!(store.recover(&mut |_| {}), Err(StoreFault::Unavailable));
        drop(store);
        let mut store = open(folder.path());
        assert!(store.opened().unclean);
        assert_eq!(store.load(NODE, 0, &mut []), Ok(Loaded::Nothing));
    }

    /// What happens to the file while the commit waits for the disk cannot be undone.
    #[test]
    #[cfg(unix)]
    fn a_commit_into_a_deleted_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        store.run("COMMIT").unwrap();
        std::fs::rename(folder.path().join("liner.db"), folder.path().join("elsewhere")).unwrap();
        assert_eq!(store.finish_turn(), Err(StoreFault::Unknown));
        assert!(store.last_error().is_some_and(|words| words.contains("deleted or replaced")));
        assert_eq!(store.commit(), Err(StoreFault::Unavailable));
    }

    #[test]
    fn errors_are_sorted_by_what_can_be_done() {
        let of = |code| rusqlite::Error::SqliteFailure(ffi::Error { code, extended_code: 0 }, None);
        for (code, before, at_commit) in [
            (ErrorCode::DiskFull, StoreFault::Full, StoreFault::Full),
            (ErrorCode::DatabaseBusy, StoreFault::Unavailable, StoreFault::Unavailable),
            (ErrorCode::SystemIoFailure, StoreFault::Unavailable, StoreFault::Unknown),
            (ErrorCode::DatabaseCorrupt, StoreFault::Corrupt, StoreFault::Unknown),
            (ErrorCode::NotADatabase, StoreFault::Corrupt, StoreFault::Unknown),
            (ErrorCode::TooBig, StoreFault::Refused, StoreFault::Unknown),
        ] {
            assert_eq!(classify(&of(code)), before, "{code:?}");
            assert_eq!(classify_commit(&of(code)), at_commit, "{code:?}");
        }
        assert_eq!(classify(&rusqlite::Error::QueryReturnedNoRows), StoreFault::Corrupt);
    }

    #[test]
    fn a_file_that_somebody_else_writes_to_is_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.conn.busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(folder.path().join("liner.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let group = [StoreOp::Open { queue: NODE, epoch: Epoch(1) }];
        assert_eq!(store.apply(&group), Err(StoreFault::Unavailable));
        assert_eq!(store.commit(), Ok(()), "nothing was applied");
        assert_eq!(store.load(NODE, 0, &mut []), Ok(Loaded::Nothing));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(store.apply(&group), Ok(()));
        assert_eq!(store.commit(), Ok(()));
    }
}
