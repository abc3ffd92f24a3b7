//! The URL of a database, as libpq reads it, with the options of the pool.

mod parse;

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// How much encryption a connection has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// None.
    Disable,
    /// What the server offers. It is the only one with which a connection may be in plain text without having been asked for so.
    Prefer,
    /// Encrypted. Who the server is is not looked at, unless `sslrootcert` is given: then this is [`SslMode::VerifyCa`].
    Require,
    /// Encrypted, with a certificate that one of `sslrootcert` has signed, for whatever name.
    VerifyCa,
    /// Encrypted, with such a certificate for the host's name.
    VerifyFull,
}

impl SslMode {
    const ALL: [Self; 5] = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// As the URL says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Which of several servers is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// The first that lets us in.
    Any,
    /// The first on which can be written.
    ReadWrite,
}

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCert {
    /// Those of the authorities that the system trusts.
    System,
    /// Those of the authorities in this file.
    File(PathBuf),
}

/// A server of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By TCP: a name or an address.
    Tcp(String, u16),
    /// By the socket of this port in a folder.
    Unix(PathBuf, u16),
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(formatter, "{host}:{port}"),
            Self::Unix(folder, port) => write!(formatter, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// Where a database is, and how it is connected to: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE&…`.
///
/// Neither [`Display`](fmt::Display) nor [`Debug`] shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    user: String,
    password: Option<String>,
    hosts: Vec<Host>,
    database: String,
    ssl_mode: SslMode,
    root_cert: Option<RootCert>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    application_name: Option<String>,
    connect_timeout: Duration,
    statement_timeout: Duration,
    lock_timeout: Duration,
    keepalive: Option<Duration>,
    options: Option<String>,
    target_session: TargetSession,
    min_connections: u32,
    max_connections: u32,
    acquire_timeout: Duration,
    idle_timeout: Duration,
    /// The query without what is secret.
    shown: String,
    /// As it was written: nodes with the same one share their connections.
    text: String,
}

impl Url {
    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its password, if the URL has one; else that of the variable `PGPASSWORD` is taken when it is connected.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The servers, in the order in which they are tried. There is at least one.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The database: that with the role's name if the URL names none.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// `sslmode`: `prefer` unless the URL says otherwise; `verify-full` with `sslrootcert=system`. It is told as it is carried
    /// out: `require` with `sslrootcert` is `verify-ca`.
    pub const fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// `sslrootcert`: a file in PEM, or `system`.
    pub const fn root_cert(&self) -> Option<&RootCert> {
        self.root_cert.as_ref()
    }

    /// `sslcert`: a file in PEM with the certificate that the server is shown, and those that lead to its authority.
    pub fn cert(&self) -> Option<&Path> {
        self.cert.as_deref()
    }

    /// `sslkey`: a file in PEM with the certificate's private key, not encrypted.
    pub fn key(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// `application_name`; else it is `liner` and the name of the node that made the connection.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// `connect_timeout`, in seconds: for each server, with encryption and password. 10 s.
    pub const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// `statement_timeout`, in milliseconds: for each statement of a turn. A server that has not answered 5 s after it is given up. 30 s.
    pub const fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }

    /// `lock_timeout`, in milliseconds: for a row that somebody else is at. 5 s.
    pub const fn lock_timeout(&self) -> Duration {
        self.lock_timeout
    }

    /// `keepalives`, 0 or 1: whether the system asks a silent server if it is there; `keepalives_idle`: after so many seconds. 30 s.
    pub const fn keepalive(&self) -> Option<Duration> {
        self.keepalive
    }

    /// `options`: settings for the session, `-c NAME=VALUE`.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// `target_session_attrs`: `any` or `read-write`.
    pub const fn target_session(&self) -> TargetSession {
        self.target_session
    }

    /// `min_connections`: so many stay, however long they are idle. 1.
    pub const fn min_connections(&self) -> u32 {
        self.min_connections
    }

    /// `max_connections`: all nodes of this process with the same URL have no more. 10.
    pub const fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// `acquire_timeout`, in seconds or with a unit: so long a node waits for a connection that the others have. 30 s.
    pub const fn acquire_timeout(&self) -> Duration {
        self.acquire_timeout
    }

    /// `idle_timeout`, in seconds or with a unit: a connection that has been idle for so long is closed. 10 min.
    pub const fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// What sessions of this node are called. A name may hold a NUL, and a parameter ends with one.
    pub(crate) fn session_name(&self, node: &str) -> String {
        let name = self.application_name.clone().unwrap_or_else(|| format!("liner {node}"));
        name.replace('\0', "?")
    }

    /// What names the pool. It holds the password.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "postgres://{}", escape(&self.user))?;
        for (index, host) in self.hosts.iter().enumerate() {
            formatter.write_str(if index == 0 { "@" } else { "," })?;
            match host {
                Host::Tcp(..) => write!(formatter, "{host}")?,
                Host::Unix(folder, port) => {
                    write!(formatter, "{}:{port}", escape(&folder.to_string_lossy()))?;
                }
            }
        }
        write!(formatter, "/{}{}", escape(&self.database), self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Url({self})")
    }
}

impl FromStr for Url {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        parse::parse(text).map_err(|words| OpenError::Url { words })
    }
}

/// Makes a text part of a URL.
fn escape(text: &str) -> String {
    use fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
