//! A copy of the whole file, made while nodes use it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::file::{self, private, sync_folder};
use crate::look::{LookError, connect, judge};
use crate::open::{PATIENCE, sqlite};
use crate::{OpenError, names};

/// Pages that are copied between two words about it.
const PAGES: i32 = 4096;

/// What a copy that is not whole is called.
const PART: &str = ".part";

/// What SQLite would take for the copy's, and play back into it: a node that was killed leaves it beside its file.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file cannot be read.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The copy cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is something at the place where the copy is to be.
    #[error("{path} is there already: name a file that does not exist yet")]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// There is the log of a file that was there before.
    #[error("{path} is left of another file, and would change the copy: move it away, or name another file")]
    Left {
        /// The log.
        path: PathBuf,
    },
    /// Another backup is being made at the same place.
    #[error("another backup is being made at {path}: wait until it is there, or name another file")]
    InUse {
        /// The place.
        path: PathBuf,
    },
    /// The copy does not pass the check of SQLite.
    #[error("{path} is damaged, and so is a copy of it: start its node, which says what it can mend")]
    Damaged {
        /// The file that was copied.
        path: PathBuf,
    },
}

/// A backup that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// The nodes whose state it holds, sorted.
    pub nodes: Vec<String>,
    /// Its bytes.
    pub bytes: u64,
}

/// Makes a copy of the file `from`, as it is at the beginning, at `to`, where nothing is yet. Nodes may use the file meanwhile. The copy is
/// checked, and is at `to` when it is whole.
///
/// Whoever uses the copy instead of the file goes back in time: numbers that were given out since then were given to other messages. The
/// copy says so to each of its nodes, once: they begin new epochs, and mark what they may have sent before.
///
/// `progress` is told how many of how many bytes are copied.
///
/// # Errors
/// Why there is none. Nothing is at `to` then.
pub fn backup(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp, BackupError> {
    let (conn, from) = connect(from.as_ref())?;
    match judge(&conn, &from) {
        // It is a backup from before the upgrade.
        Ok(()) | Err(LookError::OlderSchema { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let to = &*file::resolve(to.as_ref())?;
    let part = names::beside(to, PART);
    // Nobody else has the copy's name while this is open.
    let _claim = claim(to, &part)?;
    let outcome = copy(&conn, &from, &part, progress);
    drop(conn);
    let outcome = outcome.and_then(|made| {
        check_place(to)?;
        fs::rename(&part, to).and_then(|()| sync_folder(to)).map_err(|source| file::failed(to, source))?;
        Ok(made)
    });
    if outcome.is_err() {
        // If it cannot be removed, the next attempt does.
        let _ = fs::remove_file(&part);
    }
    remove_logs(&part);
    outcome
}

/// Whether nothing is where the copy is to be, or belongs there.
fn check_place(to: &Path) -> Result<(), BackupError> {
    if to.exists() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let mut logs = LOGS.iter().map(|suffix| names::beside(to, suffix));
    logs.find(|log| log.exists()).map_or(Ok(()), |path| Err(BackupError::Left { path }))
}

/// Makes the file that is to become the copy, empty, as the only one who does. What an earlier attempt has left is gone then.
fn claim(to: &Path, part: &Path) -> Result<File, BackupError> {
    let failed = |source| file::failed(part, source);
    loop {
        check_place(to)?;
        let claim = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(part)
            .map_err(failed)?;
        match claim.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::InUse { path: to.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source).into()),
        }
        // Whoever had it may have given it its name meanwhile, or removed it.
        if file::identity(part).ok() == Some(file::identity_of(&claim.metadata().map_err(failed)?)) {
            claim.set_len(0).map_err(failed)?;
            remove_logs(part);
            return Ok(claim);
        }
    }
}

/// Removes what SQLite has had beside a copy.
fn remove_logs(part: &Path) {
    for suffix in ["-journal", "-wal", "-shm"] {
        // Most of them are not there.
        let _ = fs::remove_file(names::beside(part, suffix));
    }
}

fn copy(
    conn: &Connection,
    from: &Path,
    part: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp, BackupError> {
    let failed = |source| sqlite("copy", from, source);
    // It keeps to this moment: what nodes write from now on does not make the copy begin anew.
    conn.execute_batch("BEGIN").map_err(failed)?;
    let nodes = conn
        .prepare("SELECT name FROM node ORDER BY name")
        .and_then(|mut select| {
            select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })
        .map_err(failed)?;
    let wrong = |source| sqlite("write", part, source);
    let mut copy = Connection::open(part).map_err(wrong)?;
    copy.busy_timeout(PATIENCE).map_err(wrong)?;
    let page: u64 =
        conn.query_row("PRAGMA page_size", [], |row| row.get(0).map(i64::cast_unsigned)).map_err(failed)?;
    {
        let run = Backup::new(conn, &mut copy).map_err(failed)?;
        loop {
            let step = run.step(PAGES).map_err(wrong)?;
            let at = run.progress();
            let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0).saturating_mul(page);
            progress(bytes(at.pagecount - at.remaining), bytes(at.pagecount));
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Nobody else knows the copy, and readers of a write-ahead log wait for nobody.
                StepResult::Busy | StepResult::Locked | _ => {
                    return Err(OpenError::Locked { path: from.to_owned() }.into());
                }
            }
        }
    }
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrong)?;
    if verdict != "ok" {
        return Err(BackupError::Damaged { path: from.to_owned() });
    }
    mark(&copy).map_err(wrong)?;
    // The copy is one file, whoever moves it.
    copy.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(wrong)?;
    copy.close().map_err(|(_, source)| wrong(source))?;
    let bytes = fs::metadata(part).map_err(|source| file::failed(part, source))?.len();
    Ok(BackedUp { nodes, bytes })
}

/// Has each node told that commits are missing, as after a loss of power that they do not survive: no run of an operating system has
/// this name.
fn mark(copy: &Connection) -> rusqlite::Result<()> {
    copy.execute("UPDATE node SET class = 0, boot_id = 'backup', clean = 0", []).map(drop)
}

#[cfg(test)]
mod tests {
    use liner_proto::effect::{Loaded, Queue, Recovered, StoreOp};
    use liner_proto::id::{Class, Epoch};
    use liner_proto::store::Store as _;

    use super::*;
    use crate::{Options, SqliteStore};

    const NODE: Queue<'static> = Queue::Node("gateway");

    fn open(path: &Path) -> SqliteStore {
        let (name, boot_id) = ("sensor".to_owned(), "this run".to_owned());
        let options = Options { name, durability: Class::Power, limit_bytes: None, boot_id };
        SqliteStore::open(path, &options).unwrap()
    }

    /// A record of 30,000 bytes, with its length.
    fn record() -> Vec<u8> {
        let mut run = vec![0xb0, 0xea, 0x01];
        run.resize(3 + 30_000, 0x40);
        run
    }

    fn append(store: &mut SqliteStore, number: u64) {
        let (records, queue) = (record(), NODE);
        store.apply(&[StoreOp::Append { queue, first: number, last: number, records: &records }]).unwrap();
        store.commit().unwrap();
    }

    /// The last number of the queue, and whether commits may be missing.
    fn told(store: &mut SqliteStore) -> (u64, bool) {
        let (mut last, mut is_regressed) = (0, false);
        let mut take = |fact: Recovered<'_>| {
            if let Recovered::Node { regressed, .. } = fact {
                is_regressed = regressed;
            }
            if let Recovered::Queue(queue) = fact {
                last = queue.last;
            }
        };
        store.recover(&mut take).unwrap();
        (last, is_regressed)
    }

    #[test]
    fn a_backup_is_of_one_moment_and_says_that_it_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let mut store = open(&from);
        let begin = [StoreOp::Inbox { epoch: Epoch(3) }, StoreOp::Open { queue: NODE, epoch: Epoch(1) }];
        store.apply(&begin).unwrap();
        for number in 1..=1000 {
            append(&mut store, number);
        }
        // What is left of an earlier attempt.
        fs::write(folder.path().join("b.db.part"), "half").unwrap();
        let (mut words, mut next) = (Vec::new(), 1001);
        let made = backup(&from, &to, &mut |done, all| {
            words.push((done, all));
            // The node goes on meanwhile, and trims, too.
            append(&mut store, next);
            store.apply(&[StoreOp::Trim { queue: NODE, through: next - 1000 }]).unwrap();
            store.commit().unwrap();
            next += 1;
        });
        let made = made.unwrap();
        assert!(words.len() > 1, "{words:?}");
        assert_eq!(words.last().map(|&(done, all)| done == all), Some(true));
        assert_eq!((made.nodes, made.bytes), (vec!["sensor".to_owned()], fs::metadata(&to).unwrap().len()));
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name.to_string_lossy().starts_with("b.db"));
        assert_eq!(names, ["b.db"]);
        let mut restored = open(&to);
        assert_eq!(told(&mut restored), (1000, true));
        assert_eq!(restored.queued(NODE), Ok((1000, 1000 * 30_003)));
        let mut bytes = vec![0; 40_000];
        assert!(matches!(restored.load(NODE, 0, &mut bytes), Ok(Loaded::Records { first: 1, .. })));
        assert_eq!(told(&mut store), (next - 1, false), "the file itself is none");
        // It is told until the node has done something about it, and not for ever.
        drop(restored);
        let mut restored = open(&to);
        assert_eq!(told(&mut restored), (1000, true));
    }

    /// The second one would be taken for the first, half as it is.
    #[test]
    fn two_backups_are_not_made_at_one_place_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let mut store = open(&from);
        let begin = [StoreOp::Inbox { epoch: Epoch(3) }, StoreOp::Open { queue: NODE, epoch: Epoch(1) }];
        store.apply(&begin).unwrap();
        append(&mut store, 1);
        let mut second = None;
        let made = backup(&from, &to, &mut |_, _| {
            second = Some(backup(&from, &to, &mut |_, _| ()).unwrap_err().to_string());
        });
        assert_eq!(made.unwrap().nodes, ["sensor"]);
        assert!(second.unwrap().contains("another backup is being made at"));
        assert_eq!(told(&mut open(&to)), (1, true));
    }

    #[test]
    fn a_backup_of_what_is_damaged_is_none_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let none = backup(&from, &to, &mut |_, _| ()).unwrap_err().to_string();
        assert!(none.contains("there is no store at"), "{none}");
        let mut store = open(&from);
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).unwrap();
        for number in 1..=20 {
            append(&mut store, number);
        }
        drop(store);
        fs::write(&to, "a diary").unwrap();
        assert!(matches!(backup(&from, &to, &mut |_, _| ()), Err(BackupError::Exists { .. })));
        assert_eq!(fs::read_to_string(&to).unwrap(), "a diary");
        fs::remove_file(&to).unwrap();
        let mut bytes = fs::read(&from).unwrap();
        let page = bytes.len() / 4096 / 2 * 4096;
        bytes[page..page + 4096].fill(0xee);
        fs::write(&from, bytes).unwrap();
        // It would be played back into the copy.
        let log = folder.path().join("b.db-wal");
        fs::write(&log, "what was written to another file").unwrap();
        let left = backup(&from, &to, &mut |_, _| ()).unwrap_err().to_string();
        assert!(left.contains("b.db-wal is left of another file"), "{left}");
        fs::remove_file(&log).unwrap();
        let damaged = backup(&from, &to, &mut |_, _| ()).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
        assert!(!to.exists() && !folder.path().join("b.db.part").exists());
    }
}
