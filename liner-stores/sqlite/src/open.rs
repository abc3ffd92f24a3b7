//! Opening a file: its locks, its schema, what became of it since it was used last.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use liner_proto::effect::StoreFault;
use liner_proto::id::Class;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use crate::ballast::{self, Ballast};
use crate::error::{OpenError, classify, is_damage, is_locked};
use crate::file::{self, Held, private, sync_folder};
use crate::row::Rows;
use crate::schema::{self, Verdict};
use crate::turn::{Limit, Turn};
use crate::{Opened, Options, SqliteStore, broker, inserted, lease, names, orphans};

/// Releases before it can lose committed transactions of the write-ahead log.
const LIBRARY_MIN: i32 = 3_051_003;

/// How often the lock of a name is tried while others look whether somebody has it, each for a few microseconds.
const TRIES: u32 = 100_000;

/// How long to wait for another process that writes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

impl SqliteStore {
    /// Opens the store of the node `options.name` in the file at `path`; makes the file if there is none.
    ///
    /// # Errors
    /// Why it cannot be opened. A damaged file is none of the reasons unless other processes have it open: it is renamed to
    /// `….corrupt-1` and so on, and [`opened`](Self::opened) says so. A file that has never been a database is one: it is left
    /// alone, with nothing beside it.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        if rusqlite::version_number() < LIBRARY_MIN {
            return Err(OpenError::OldSqlite { version: rusqlite::version() });
        }
        let path = &*file::resolve(path.as_ref())?;
        file::check(path)?;
        let (lock, lock_path) = take_name(path, &options.name)?;
        let mut quarantined = None;
        let mut attempt = Attempt::new(path, options);
        let mut ready = attempt.run();
        if matches!(&ready, Err(refusal) if refusal.is_disk_full()) && ballast::release_unopened(path) {
            attempt = Attempt::new(path, options);
            ready = attempt.run();
        }
        if matches!(&ready, Err(Refusal::Damaged(_))) {
            quarantined = Some(put_aside(path, &lock_path)?);
            attempt = Attempt::new(path, options);
            ready = attempt.run();
        }
        let Ready { conn, held, class, regressed } = ready.map_err(|refusal| refusal.into_error(path))?;
        let ballast = Ballast::new(path);
        fit_log(&conn, ballast.log_pages()).map_err(|source| sqlite("set up the log of", path, source))?;
        Ok(Self {
            conn,
            path: path.to_owned(),
            owner: options.name.clone(),
            class,
            opened: Opened { quarantined, needs_free: ballast.needs(), ..attempt.opened },
            regressed,
            turn: Turn::Idle,
            rows: Rows::default(),
            version: -1,
            directory_version: None,
            leases: lease::Leases::default(),
            cleared: false,
            counted: crate::deliveries::Counted::default(),
            limit: Limit::new(options.limit_bytes),
            ballast,
            disk_full: false,
            grows: false,
            held,
            last_error: None,
            _name: lock,
        })
    }

    /// The file, by its path without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why an attempt to open the file ended.
enum Refusal {
    /// The file is damaged.
    Damaged(rusqlite::Error),
    Sqlite(&'static str, rusqlite::Error),
    Other(OpenError),
}

impl Refusal {
    fn of(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| if is_damage(&error) { Self::Damaged(error) } else { Self::Sqlite(doing, error) }
    }

    fn is_disk_full(&self) -> bool {
        matches!(self, Self::Sqlite(_, error) if classify(error) == StoreFault::Full)
    }

    fn into_error(self, path: &Path) -> OpenError {
        match self {
            Self::Damaged(source) => sqlite("use the new file", path, source),
            Self::Sqlite(_, source) if is_locked(&source) => OpenError::Locked { path: path.to_owned() },
            Self::Sqlite(doing, source) => sqlite(doing, path, source),
            Self::Other(error) => error,
        }
    }
}

/// What an attempt to open the file gives.
struct Ready {
    conn: Connection,
    held: Held,
    /// What commits really survive.
    class: Class,
    /// Whether the node's last commits may be lost.
    regressed: bool,
}

struct Attempt<'a> {
    path: &'a Path,
    options: &'a Options,
    opened: Opened,
}

impl<'a> Attempt<'a> {
    fn new(path: &'a Path, options: &'a Options) -> Self {
        Self { path, options, opened: Opened::default() }
    }

    /// Opens the file.
    fn run(&mut self) -> Result<Ready, Refusal> {
        let failed = |source| Refusal::Other(file::failed(self.path, source));
        self.opened.created = create(self.path).map_err(failed)?;
        let mut conn = self.connect()?;
        // Some file systems give the file another number when it is opened to be written to.
        let database = file::identity(self.path).map_err(failed)?;
        self.judge(schema::upgrade(&mut conn).map_err(Refusal::of("upgrade"))?)?;
        let regressed = self.mark(&mut conn)?;
        let wrong = orphans::set_right(&mut conn, &self.options.name)
            .map_err(Refusal::of("set right what is wrong in"))?;
        let by_hand = inserted::take(&mut conn, &self.options.name)
            .map_err(Refusal::of("queue what was inserted by hand into"))?;
        (self.opened.damaged, self.opened.orphaned) = (wrong.damaged, wrong.orphaned + by_hand.orphaned);
        (self.opened.inserted, self.opened.waiting) = (by_hand.queued, by_hand.waiting);
        let class =
            set_class(&conn, self.options.durability).map_err(Refusal::of("set the durability of"))?;
        let held = Held::new(self.path, database).map_err(failed)?;
        Ok(Ready { conn, held, class, regressed })
    }

    /// Opens a connection to a file of ours, which it is from now on if it was one of liner_broker.
    fn connect(&mut self) -> Result<Connection, Refusal> {
        let (mut conn, verdict) = self.examined()?;
        if verdict != Verdict::Broker {
            return Ok(conn);
        }
        drop(conn);
        let _turn = broker::Turn::take(self.path)
            .map_err(|source| Refusal::Other(file::failed(self.path, source)))?;
        let verdict;
        (conn, verdict) = self.examined()?;
        if verdict == Verdict::Broker {
            drop(conn);
            let taken = broker::take_over(self.path, &self.options.name);
            self.opened.taken_over = taken.map_err(|error| match error {
                error if is_locked(&error) => {
                    Refusal::Other(OpenError::BrokerInUse { path: self.path.to_owned() })
                }
                error => Refusal::of("take over")(error),
            })?;
            (conn, _) = self.examined()?;
        }
        Ok(conn)
    }

    /// Opens a connection, and looks at what it is to.
    fn examined(&mut self) -> Result<(Connection, Verdict), Refusal> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path, flags).map_err(Refusal::of("open"))?;
        prepare(&conn).map_err(Refusal::of("prepare"))?;
        let verdict = schema::examine(&conn).map_err(Refusal::of("read"))?;
        if verdict != Verdict::Broker {
            self.judge(verdict)?;
        }
        // The write-ahead log changes the file, which is not to happen to one of another program.
        let mode: String = conn
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(Refusal::of("start the write-ahead log of"))?;
        if mode == "wal" { Ok((conn, verdict)) } else { Err(Refusal::Other(OpenError::NoWal { mode })) }
    }

    fn judge(&mut self, verdict: Verdict) -> Result<(), Refusal> {
        let path = || self.path.to_owned();
        match verdict {
            Verdict::Ready { was } => {
                self.opened.upgraded_from = (was != 0 && was != schema::VERSION).then_some(was);
                Ok(())
            }
            Verdict::Newer { found } => {
                let known = schema::VERSION;
                Err(Refusal::Other(OpenError::NewerSchema { path: path(), found, known }))
            }
            // Somebody has put it in the place of the one that was taken over.
            Verdict::Broker => Err(Refusal::Other(OpenError::BrokerInUse { path: path() })),
            Verdict::Foreign => Err(Refusal::Other(OpenError::Foreign { path: path() })),
            Verdict::Unnumbered => {
                Err(Refusal::Other(OpenError::Unnumbered { path: path(), known: schema::VERSION }))
            }
        }
    }

    /// Marks the store as in use in this run of the operating system, and says whether it may have lost what was committed
    /// when it was used last. The mark must be on the disk before anything else is: if it were lost together with commits
    /// that follow it, the mark of an earlier clean end would hide that.
    fn mark(&mut self, conn: &mut Connection) -> Result<bool, Refusal> {
        let (name, boot_id) = (&self.options.name, &self.options.boot_id);
        let last_use = conn
            .query_row("SELECT class, boot_id, clean FROM node WHERE name = ?1", [name], |row| {
                Ok((row.get::<_, u8>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
            })
            .optional()
            .map_err(Refusal::of("read the last use of"))?;
        self.opened.unclean = last_use.as_ref().is_some_and(|&(_, _, clean)| !clean);
        if self.opened.unclean {
            check(conn)?;
        }
        let regressed = last_use.is_some_and(|(class, boot, clean)| {
            !clean && boot != *boot_id && class != class_number(Class::Power)
        });
        let class = class_number(self.options.durability.max(Class::Process));
        mark_used(conn, [name, boot_id], class, regressed).map_err(Refusal::of("mark as used"))?;
        Ok(regressed)
    }
}

fn mark_used(
    conn: &mut Connection,
    [name, boot_id]: [&str; 2],
    class: u8,
    regressed: bool,
) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO node(name, boot_id, class, clean) VALUES(?1, ?2, ?3, 0)
         ON CONFLICT(name) DO UPDATE SET boot_id = excluded.boot_id, class = excluded.class, clean = 0",
        params![name, boot_id, class],
    )?;
    if regressed {
        transaction.execute("UPDATE conn_key_map SET suspect = 1 WHERE owner = ?1", [name])?;
    }
    transaction.commit()
}

/// What every connection needs. Until its class is set, every commit is synchronised.
pub(crate) fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(PATIENCE)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.execute_batch(
        "PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF; PRAGMA synchronous = FULL;",
    )
}

/// Sets after how many pages the log is used again.
pub(crate) fn fit_log(conn: &Connection, pages: u32) -> rusqlite::Result<()> {
    conn.query_row(&format!("PRAGMA wal_autocheckpoint = {pages}"), [], |_| Ok(()))
}

/// Sets what a commit waits for, and finds out what that made of it.
fn set_class(conn: &Connection, wanted: Class) -> rusqlite::Result<Class> {
    let level = if wanted == Class::Power { "FULL" } else { "NORMAL" };
    // Where the operating system knows a stronger word than `fsync`, power demands it.
    conn.pragma_update(None, "fullfsync", wanted == Class::Power)?;
    conn.pragma_update(None, "synchronous", level)?;
    let found: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    Ok(match found {
        2.. => Class::Power,
        // In WAL mode even without any synchronisation the file lacks nothing as long as the operating system runs.
        _ => Class::Process,
    })
}

pub(crate) const fn class_number(class: Class) -> u8 {
    match class {
        Class::Ram => 0,
        Class::Process => 1,
        Class::Power => 2,
    }
}

/// Looks over the whole file.
fn check(conn: &Connection) -> Result<(), Refusal> {
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(Refusal::of("check"))?;
    if verdict == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(Refusal::Damaged(rusqlite::Error::SqliteFailure(code, Some(verdict))))
}

/// Takes the lock of a node's name.
fn take_name(path: &Path, name: &str) -> Result<(File, PathBuf), OpenError> {
    let lock_path = names::lock_file(path, name);
    let lock = private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(&lock_path)
        .map_err(|source| file::failed(&lock_path, source))?;
    let failed = |source| file::failed(&lock_path, source);
    for _ in 0..TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok((lock, lock_path)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Somebody has it, or looks for a moment whether anybody has.
        if lease::is_held(&lock).map_err(failed)? {
            break;
        }
        std::thread::yield_now();
    }
    Err(OpenError::NameInUse { name: name.to_owned() })
}

/// Makes the file if there is none, for this user only; SQLite gives the files beside it the same mode.
fn create(path: &Path) -> io::Result<bool> {
    match private(OpenOptions::new().write(true).create_new(true)).open(path) {
        Ok(_) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::metadata(path).map(|file| file.len() == 0)
        }
        Err(error) => Err(error),
    }
}

/// Renames a damaged file and its log. Nobody else may have it open.
fn put_aside(path: &Path, own_lock: &Path) -> Result<PathBuf, OpenError> {
    if is_in_use(path, own_lock).map_err(|source| file::failed(path, source))? {
        return Err(OpenError::DamagedInUse { path: path.to_owned() });
    }
    let aside = (1..)
        .map(|number: u32| names::beside(path, &format!(".corrupt-{number}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| names::beside(path, ".corrupt"));
    let renamed = || {
        fs::rename(path, &aside)?;
        for log in ["-wal", "-shm"] {
            match fs::rename(names::beside(path, log), names::beside(&aside, log)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder(path)
    };
    renamed().map_err(|source| file::failed(path, source))?;
    Ok(aside)
}

/// Whether another node of the same file is open: its name is locked.
fn is_in_use(path: &Path, own_lock: &Path) -> io::Result<bool> {
    for path in file::locks(path)? {
        if path.file_name() == own_lock.file_name() {
            continue;
        }
        if lease::is_held(&File::open(&path)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn sqlite(doing: &'static str, path: &Path, source: rusqlite::Error) -> OpenError {
    OpenError::Sqlite { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_not_told_as_what_was_tried() {
        for code in [rusqlite::ffi::SQLITE_BUSY, rusqlite::ffi::SQLITE_LOCKED] {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let error = Refusal::of("upgrade")(error).into_error(Path::new("lk.db"));
            assert_eq!(
                error.to_string(),
                "lk.db is locked by another program; wait until it has done its work there, or end it"
            );
        }
    }
}
