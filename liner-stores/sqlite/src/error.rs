//! The backend's errors, sorted at the border into what a policy can act upon.

use std::io;
use std::path::PathBuf;

use liner_proto::effect::StoreFault;
use rusqlite::ErrorCode;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file could not be opened or made.
    #[error("cannot open {path}: {source}; {}", io_advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is a symbolic link, and where it leads no file can be made.
    #[error(
        "{path} is a link into the folder {folder}, which does not exist; make that folder, or mend the link"
    )]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// It is a folder, a device, a pipe or a socket.
    #[error(
        "{path} is no file but a folder, a device or a pipe; name a file, or one that does not exist yet"
    )]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// The file has several names, and SQLite would keep a log for each of them.
    #[error(
        "{path} has {links} names (hard links), which would damage it; remove all names but one, or use a copy"
    )]
    HardLinks {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// The file is no database, and nothing says that it has ever been one.
    #[error("{path} is no database; name a file that does not exist yet, or move this one away")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// Another process has this node's name.
    #[error("a node named {name:?} runs already on this file; stop it or choose another name")]
    NameInUse {
        /// The name.
        name: String,
    },
    /// The linked SQLite can lose committed transactions.
    #[error("SQLite {version} can lose committed transactions; link release 3.51.3 or a newer one")]
    OldSqlite {
        /// Its version.
        version: &'static str,
    },
    /// The file was written by a newer release.
    #[error("{path} has schema {found} and this release knows up to {known}; use the release that wrote it")]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("{path} is a database of another program; name a file that does not exist yet")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// liner_broker made the file, and somebody has it open.
    #[error(
        "{path} was made by liner_broker, and a program has it open; stop that program, then start this one again, \
         which takes the file over with all that it holds"
    )]
    BrokerInUse {
        /// The file.
        path: PathBuf,
    },
    /// The number of the file's schema was set to zero.
    #[error(
        "somebody has set the user_version of {path} to 0; set it back to what it was: \
         PRAGMA user_version = {known} if the release that used it last is this one"
    )]
    Unnumbered {
        /// The file.
        path: PathBuf,
        /// The number of this release's schema.
        known: i64,
    },
    /// Another program holds a lock of SQLite on the file.
    #[error("{path} is locked by another program; wait until it has done its work there, or end it")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged and another process has it open.
    #[error("{path} is damaged and in use; stop every other process that uses it, then open it again")]
    DamagedInUse {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot share a write-ahead log.
    #[error("no write-ahead log on this file system (journal mode {mode}); put the file on a local disk")]
    NoWal {
        /// The journal mode that SQLite fell back to.
        mode: String,
    },
    /// SQLite failed.
    #[error("cannot {doing} {path}: {}; {}", words(source), sqlite_advice(source))]
    Sqlite {
        /// What it was asked for.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
}

/// The operating system's codes for too many open files, of the process and of all.
#[cfg(unix)]
const TOO_MANY_FILES: [i32; 2] = [24, 23];
#[cfg(not(unix))]
const TOO_MANY_FILES: [i32; 1] = [4];

/// What to do about a failure of the operating system.
fn io_advice(error: &io::Error) -> &'static str {
    if error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code)) {
        return "let the process open more files (`ulimit -n`, or LimitNOFILE= of its service)";
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "for the rest the system's words have to do")]
    match error.kind() {
        io::ErrorKind::NotFound => "make sure that its folder exists",
        io::ErrorKind::PermissionDenied => "make sure that this user may write to it and to its folder",
        io::ErrorKind::ReadOnlyFilesystem => "name a file on a disk that can be written to",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk",
        _ => "mend that, or name another file",
    }
}

/// What to do about a failure of SQLite.
fn sqlite_advice(error: &rusqlite::Error) -> &'static str {
    if matches!(error, rusqlite::Error::SqlInputError { .. }) {
        return "its tables are not those of its user_version: set that right, or restore a backup";
    }
    match error.sqlite_error_code() {
        _ if is_full(error) => "make room on the disk",
        Some(ErrorCode::CannotOpen) => {
            "make sure that this user may write to the file and to its folder, \
             and that the process may open more files (`ulimit -n`)"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "make sure that this user may write to it and to its folder"
        }
        Some(ErrorCode::SystemIoFailure) => "look after the disk",
        _ => "mend that, or restore a backup",
    }
}

/// What SQLite says, without the statement.
fn words(error: &rusqlite::Error) -> String {
    if let rusqlite::Error::SqlInputError { msg, .. } = error { msg.clone() } else { error.to_string() }
}

/// Whether another program holds a lock on the file.
pub(crate) fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the file is damaged, or no database at all.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether there is no room on the disk, be it for the file or for the index of its log, of which SQLite says no more than that
/// the input or output has failed.
fn is_full(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// What an error means before the commit, when nothing can have become durable.
pub(crate) fn classify(error: &rusqlite::Error) -> StoreFault {
    let Some(code) = error.sqlite_error_code() else {
        // A value of a type that no such column has.
        return StoreFault::Corrupt;
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever comes later may pass")]
    match code {
        _ if is_full(error) => StoreFault::Full,
        ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::ConstraintViolation
        | ErrorCode::TypeMismatch => StoreFault::Corrupt,
        ErrorCode::TooBig => StoreFault::Refused,
        _ => StoreFault::Unavailable,
    }
}

/// What an error of the commit itself means.
pub(crate) fn classify_commit(error: &rusqlite::Error) -> StoreFault {
    match error.sqlite_error_code() {
        // The log is written in order and the commit mark last: without room for it there is no commit.
        Some(ErrorCode::DiskFull) => StoreFault::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreFault::Unavailable,
        // The mark may have been written, and only the waiting for the disk have failed.
        _ => StoreFault::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_what_has_failed() {
        let of = |code, words: &str| {
            let error = OpenError::Io { path: "a.db".into(), source: io::Error::from_raw_os_error(code) };
            assert!(error.to_string().contains(words), "{error}");
        };
        if cfg!(unix) {
            of(24, "open more files");
            of(23, "open more files");
            of(2, "its folder exists");
            of(13, "this user may write");
            of(28, "make room on the disk");
        }
        of(5, "mend that, or name another file");
        let of = |code, words: &str| {
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let error = OpenError::Sqlite { doing: "open", path: "a.db".into(), source };
            assert!(error.to_string().contains(words), "{error}");
        };
        of(rusqlite::ffi::SQLITE_CANTOPEN, "open more files");
        of(rusqlite::ffi::SQLITE_FULL, "make room on the disk");
        of(rusqlite::ffi::SQLITE_IOERR_SHMSIZE, "make room on the disk");
        of(rusqlite::ffi::SQLITE_READONLY, "this user may write");
    }

    /// The ballast is given up for it when the file is opened.
    #[test]
    fn without_room_for_the_index_of_the_log_the_disk_is_full() {
        for code in [rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_IOERR_SHMSIZE] {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            assert_eq!(classify(&error), StoreFault::Full);
        }
    }
}
