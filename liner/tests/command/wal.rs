//! Where a stopped process stands in its SQLite commit, read from the files beside the database.
//!
//! A commit appends frames to the log, waits for the disk, and then publishes the number of the last frame in the log's
//! index. Frames of the index's own generation (<https://www.sqlite.org/fileformat2.html#walformat>) that are above that number
//! belong to a commit which has begun and not ended.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Whether a commit has written frames and not published them.
pub(crate) fn in_commit(database: &Path) -> bool {
    unpublished(database).unwrap_or(false)
}

fn unpublished(database: &Path) -> Option<bool> {
    let beside = |suffix: &str| {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        File::open(path).ok()
    };
    let mut index = [0; 48];
    beside("-shm")?.read_exact(&mut index).ok()?;
    let mut log = beside("-wal")?;
    let mut head = [0; 32];
    log.read_exact(&mut head).ok()?;
    let page = u64::from(u32::from_be_bytes(head[8..12].try_into().ok()?));
    let published = u64::from(u32::from_ne_bytes(index[16..20].try_into().ok()?));
    let mut frame = [0; 24];
    log.seek(SeekFrom::Start(32 + published * (24 + page))).ok()?;
    if log.read_exact(&mut frame).is_err() {
        return Some(false);
    }
    Some(frame[8..16] == index[32..40])
}

#[test]
fn a_log_that_is_published_is_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (v); INSERT INTO t VALUES (1);").unwrap();
    assert_eq!(unpublished(&path), Some(false));

    // The same files with the index of the moment before the last commit, as a commit finds it.
    let index = folder.path().join("a.db-shm");
    let before = std::fs::read(&index).unwrap();
    conn.execute_batch("INSERT INTO t VALUES (2);").unwrap();
    let copy = folder.path().join("b.db");
    std::fs::copy(folder.path().join("a.db-wal"), folder.path().join("b.db-wal")).unwrap();
    std::fs::write(folder.path().join("b.db-shm"), before).unwrap();
    assert!(in_commit(&copy));
    assert!(!in_commit(&path));
    assert!(!in_commit(&folder.path().join("none.db")));
}
