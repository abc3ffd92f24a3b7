//! The backend's errors, sorted at the border into what a policy can act upon.

use std::path::PathBuf;

use liner_proto::effect::StoreFault;
use rusqlite::ErrorCode;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file could not be opened or made.
    #[error(
        "cannot open {path}: {source}; make sure that its folder exists and that this user may write to it"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
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
    #[error("cannot {doing} {path}: {source}; if the file is locked, wait for the process that uses it")]
    Sqlite {
        /// What it was asked for.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
}

/// Whether the file is damaged, or no database at all.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What an error means before the commit, when nothing can have become durable.
pub(crate) fn classify(error: &rusqlite::Error) -> StoreFault {
    let Some(code) = error.sqlite_error_code() else {
        // A value of a type that no such column has.
        return StoreFault::Corrupt;
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever comes later may pass")]
    match code {
        ErrorCode::DiskFull => StoreFault::Full,
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
