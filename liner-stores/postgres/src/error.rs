//! The server's errors, sorted at the border into what a policy can act upon.

use std::path::PathBuf;

use liner_proto::effect::StoreFault;
use tokio_postgres::error::SqlState;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is none, or has an option that is not known or not understood.
    #[error("the URL of the database: {words}")]
    Url {
        /// What is wrong with it, and what may stand there.
        words: String,
    },
    /// A file that the URL names cannot be read, or holds something else.
    #[error("{option}={path}: {words}", path = path.display())]
    File {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        words: String,
    },
    /// The server cannot be reached.
    #[error("cannot connect to {server}: {words}; see that it runs and listens there")]
    Connect {
        /// Where it should be.
        server: String,
        /// What the operating system says.
        words: String,
    },
    /// The server takes no encrypted connections, and the URL asks for one.
    #[error(
        "{server} does not encrypt, and sslmode={mode} wants it to: set up its ssl, or say sslmode=disable"
    )]
    NoTls {
        /// The server.
        server: String,
        /// What the URL says.
        mode: &'static str,
    },
    /// The server's certificate is not to be trusted, or it does not like ours.
    #[error("no encrypted connection to {server}: {words}")]
    Tls {
        /// The server.
        server: String,
        /// Why, and what to do.
        words: String,
    },
    /// User or password are wrong, or the server wants them in another way.
    #[error("{server} does not let {user:?} in: {words}")]
    Refused {
        /// The server.
        server: String,
        /// The user.
        user: String,
        /// What the server says.
        words: String,
    },
    /// There is no such role.
    #[error("{words}: create it (CREATE ROLE … LOGIN), or name another user in the URL")]
    NoRole {
        /// What the server says.
        words: String,
    },
    /// The other nodes of this process have all connections that the URL allows.
    #[error(
        "all {most} connections of this process were in use for {waited_ms} ms: raise max_connections or acquire_timeout"
    )]
    Busy {
        /// `max_connections`.
        most: u32,
        /// `acquire_timeout`.
        waited_ms: u128,
    },
    /// There is no such database.
    #[error("{words}: create it (CREATE DATABASE), or name another one in the URL")]
    NoDatabase {
        /// What the server says.
        words: String,
    },
    /// The role may not do what it has to.
    #[error(
        "{words}: {grant} (the script of permissions, `liner_store_postgres::GRANTS`, has all of them), or open the store once as the owner of the schema"
    )]
    Permission {
        /// The statement that gives the permission.
        grant: String,
        /// What the server says.
        words: String,
    },
    /// The server is too old.
    #[error("PostgreSQL {found} is too old: liner needs 13 or a newer one")]
    Old {
        /// Its version.
        found: String,
    },
    /// The server is a standby.
    #[error(
        "{server} is a standby, on which nothing can be written: name the primary, or target_session_attrs=read-write with all of them"
    )]
    Standby {
        /// The server.
        server: String,
    },
    /// The database cannot keep every text.
    #[error(
        "the database has the encoding {found}: liner needs UTF8 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
    )]
    Encoding {
        /// Its encoding.
        found: String,
    },
    /// A newer release has made the tables.
    #[error(
        "the tables have schema {found} and this release knows up to {known}: use the release that made them"
    )]
    NewerSchema {
        /// Their schema.
        found: i32,
        /// The newest one that this release knows.
        known: i32,
    },
    /// The server did something else than it was asked for.
    #[error("cannot {doing}: {words}")]
    Server {
        /// What it was asked for.
        doing: &'static str,
        /// What it says.
        words: String,
    },
}

/// Why something failed that the store asked of the server.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The contract has a word for it.
    Fault(StoreFault),
    /// The server, or the connection.
    Postgres(tokio_postgres::Error),
    /// No answer in time.
    Silent,
    /// There is no connection, and none can be made.
    Away(String),
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl Failure {
    /// What it means as long as nothing of the turn can have been committed.
    pub(crate) fn fault(&self) -> StoreFault {
        match self {
            Self::Fault(fault) => *fault,
            Self::Silent | Self::Away(_) => StoreFault::Unavailable,
            Self::Postgres(error) => classify(error),
        }
    }

    /// The backend's own words.
    pub(crate) fn words(&self) -> Option<String> {
        match self {
            Self::Fault(_) => None,
            Self::Silent => Some("the server does not answer".to_owned()),
            Self::Away(words) => Some(words.clone()),
            Self::Postgres(error) => Some(words(error)),
        }
    }

    /// Whether the connection is of no more use.
    pub(crate) fn breaks(&self) -> bool {
        match self {
            Self::Fault(_) => false,
            Self::Silent | Self::Away(_) => true,
            Self::Postgres(error) => breaks(error),
        }
    }

    /// Whether the server took the transaction back for the sake of another one, so that it may be tried again at once.
    pub(crate) fn is_contention(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        matches!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
    }

    /// Whether it is the division by zero with which a turn ends whose token is not the newest.
    pub(crate) fn is_fence(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::DIVISION_BY_ZERO))
    }
}

/// What the server says, with its code and its hint.
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    use core::fmt::Write as _;
    let Some(db) = error.as_db_error() else {
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            // Writing to a string does not fail.
            let _ = write!(words, ": {inner}");
            source = inner.source();
        }
        return words;
    };
    let mut words = format!("{} ({})", db.message(), db.code().code());
    for more in [db.detail(), db.hint()].into_iter().flatten() {
        let _ = write!(words, "; {more}");
    }
    words
}

/// The statement that gives what the server wants.
pub(crate) fn grant(error: &tokio_postgres::Error) -> String {
    let message = error.as_db_error().map(|error| error.message()).unwrap_or_default();
    let (object, kind) = message.split_once("permission denied for ").map_or(("", ""), |(_, object)| {
        let (kind, name) = object.split_once(' ').unwrap_or(("", object));
        (name, kind)
    });
    match kind {
        "database" => format!("GRANT CONNECT ON DATABASE {object} TO ROLE"),
        "schema" => format!("GRANT USAGE, CREATE ON SCHEMA {object} TO ROLE"),
        "table" => format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {object} TO ROLE"),
        "sequence" => format!("GRANT USAGE ON SEQUENCE {object} TO ROLE"),
        "function" => format!("GRANT EXECUTE ON FUNCTION {object} TO ROLE"),
        // In another language, or of another kind.
        _ => "GRANT what is missing".to_owned(),
    }
}

/// Whether the session is over, or cannot be trusted any more.
pub(crate) fn breaks(error: &tokio_postgres::Error) -> bool {
    // Without a code it is no answer of the server's.
    // 25P03 and 25P04 are bounds of idle time and of transactions, with which the server ends the session.
    let classes = ["08", "57P", "XX", "25P03", "25P04"];
    error.code().is_none_or(|code| classes.iter().any(|class| code.code().starts_with(class)))
}

/// What an error means before the commit.
pub(crate) fn classify(error: &tokio_postgres::Error) -> StoreFault {
    let Some(code) = error.code() else { return StoreFault::Unavailable };
    let code = code.code();
    match code {
        // No space, no memory, a configured limit: the first two are room, the others pass.
        "53100" | "53200" => StoreFault::Full,
        // Keys have run out: somebody has given out the highest one by hand.
        "22003" => StoreFault::Full,
        "XX001" | "XX002" => StoreFault::Corrupt,
        // Serialisation, deadlocks, locks that were not given in time, statements that took too long.
        "40001" | "40P01" | "55P03" | "57014" => StoreFault::Unavailable,
        // A standby, which may become a primary; a session that was idle, or in a transaction, for longer than it may be.
        "25006" | "25P03" | "25P04" => StoreFault::Unavailable,
        // A permission that was withdrawn, and may be given back.
        "42501" => StoreFault::Unavailable,
        _ if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => StoreFault::Unavailable,
        _ if code.starts_with("XX") => StoreFault::Corrupt,
        _ => StoreFault::Refused,
    }
}
