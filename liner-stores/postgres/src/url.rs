//! The URL of a database, as libpq reads it, with the options of the pool.

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

const PORT: u16 = 5432;

/// The options that a URL may have. The first ones are shown where they belong instead of in the query.
const OPTIONS: [&str; 21] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "connect_timeout",
    "statement_timeout",
    "lock_timeout",
    "keepalives",
    "keepalives_idle",
    "options",
    "target_session_attrs",
    "min_connections",
    "max_connections",
    "acquire_timeout",
    "idle_timeout",
];

/// How many of them are not shown in the query.
const ELSEWHERE: usize = 5;

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
        parse(text).map_err(|words| OpenError::Url { words })
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let rest = rest.ok_or("it begins with postgres:// or postgresql://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (login, servers) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
    let mut query = Query::read(query)?;
    let shown = query.shown();
    let user = either("user", unescape("the user", user)?, query.take("user"))?;
    let user = user.or_else(|| ["PGUSER", "USER"].iter().find_map(|name| std::env::var(name).ok()));
    let user = user.ok_or("it names no user: postgres://USER@HOST/DATABASE")?;
    let password = unescape("the password", password.unwrap_or_default())?;
    let password = either("password", password, query.take("password"))?;
    let database = either("dbname", unescape("the database", path)?, query.take("dbname"))?;
    let hosts = hosts(servers, query.take("host"), query.take("port"))?;
    let root_cert = query.take("sslrootcert").map(|value| match &*value {
        "system" => RootCert::System,
        file => RootCert::File(file.into()),
    });
    let ssl_mode = ssl_mode(query.take("sslmode"), root_cert.as_ref())?;
    let [cert, key] = ["sslcert", "sslkey"].map(|name| query.take(name).map(PathBuf::from));
    if cert.is_some() != key.is_some() {
        return Err("sslcert and sslkey go together: the certificate, and its private key".to_owned());
    }
    let target = query.take("target_session_attrs");
    let target_session = match target.as_deref() {
        None | Some("any") => TargetSession::Any,
        Some("read-write" | "primary") => TargetSession::ReadWrite,
        Some(other) => {
            return Err(format!(
                "target_session_attrs={other}: liner writes, so there are any, read-write and primary"
            ));
        }
    };
    let idle = query.time("keepalives_idle", Duration::from_secs(1), 30_000, [1_000, 24 * HOUR])?;
    let keepalive = (query.number("keepalives", 1, [0, 1])? == 1).then_some(idle);
    let max_connections = query.number("max_connections", 10, [1, 1_000])?;
    let min_connections = query.number("min_connections", max_connections.min(1), [0, max_connections])?;
    let (second, ms) = (Duration::from_secs(1), Duration::from_millis(1));
    Ok(Url {
        database: database.unwrap_or_else(|| user.clone()),
        user,
        password,
        hosts,
        ssl_mode,
        root_cert,
        cert,
        key,
        application_name: query.take("application_name"),
        connect_timeout: query.time("connect_timeout", second, 10_000, [1_000, HOUR])?,
        statement_timeout: query.time("statement_timeout", ms, 30_000, [100, HOUR])?,
        lock_timeout: query.time("lock_timeout", ms, 5_000, [10, HOUR])?,
        keepalive,
        options: query.take("options"),
        target_session,
        min_connections,
        max_connections,
        acquire_timeout: query.time("acquire_timeout", second, 30_000, [1, HOUR])?,
        idle_timeout: query.time("idle_timeout", second, 600_000, [1, 24 * HOUR])?,
        shown,
        text: text.to_owned(),
    })
}

/// In milliseconds.
const HOUR: u64 = 3_600_000;

/// The options that have not been read yet.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(query: &str) -> Result<Self, String> {
        let mut read: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("{pair}: an option is NAME=VALUE"))?;
            if !OPTIONS.contains(&name) {
                return Err(format!("there is no option {name}; there are {}", OPTIONS.join(", ")));
            }
            if read.iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("{name} stands there twice"));
            }
            let value = unescape(name, value)?;
            if value.is_empty() {
                return Err(format!("{name} has no value"));
            }
            read.push((name.to_owned(), value));
        }
        Ok(Self(read))
    }

    fn shown(&self) -> String {
        let elsewhere = OPTIONS.get(..ELSEWHERE).unwrap_or_default();
        let pairs = self.0.iter().filter(|(name, _)| !elsewhere.contains(&&**name));
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", escape(value))).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(option, _)| option == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn number(&mut self, name: &str, default: u32, [least, most]: [u32; 2]) -> Result<u32, String> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("{name}={value}: a number from {least} to {most} may stand there"))
    }

    /// A time, in a unit unless it says another one: ms, s, min or h. Bounds and default are in milliseconds.
    fn time(
        &mut self,
        name: &str,
        unit: Duration,
        default: u64,
        bounds: [u64; 2],
    ) -> Result<Duration, String> {
        let Some(value) = self.take(name) else { return Ok(Duration::from_millis(default)) };
        let end = value.find(|char: char| !char.is_ascii_digit()).unwrap_or(value.len());
        let (digits, suffix) = value.split_at(end);
        let unit = match suffix {
            "" => Some(unit),
            "ms" => Some(Duration::from_millis(1)),
            "s" => Some(Duration::from_secs(1)),
            "min" => Some(Duration::from_secs(60)),
            "h" => Some(Duration::from_secs(3600)),
            _ => None,
        };
        let time = unit.zip(digits.parse().ok()).and_then(|(unit, count)| unit.checked_mul(count));
        let [least, most] = bounds.map(Duration::from_millis);
        time.filter(|time| (least..=most).contains(time)).ok_or_else(|| {
            format!(
                "{name}={value}: a time from {} ms to {} min may stand there, as 500ms, 5s, 10min or 1h",
                least.as_millis(),
                most.as_secs() / 60
            )
        })
    }
}

fn ssl_mode(value: Option<String>, root: Option<&RootCert>) -> Result<SslMode, String> {
    let system = root == Some(&RootCert::System);
    let Some(value) = value else { return Ok(if system { SslMode::VerifyFull } else { SslMode::Prefer }) };
    let Some(mode) = SslMode::ALL.into_iter().find(|mode| mode.name() == value) else {
        let names = SslMode::ALL.map(SslMode::name).join(", ");
        return Err(format!("sslmode={value}: there are {names}"));
    };
    if system && mode != SslMode::VerifyFull {
        // Anybody gets a certificate of such an authority, for a name of theirs.
        return Err(format!("sslrootcert=system goes with sslmode=verify-full, not with {value}"));
    }
    match (mode, root) {
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
            Err(format!("sslmode={value} needs sslrootcert=FILE, or sslrootcert=system with verify-full"))
        }
        (SslMode::Require, Some(_)) => Ok(SslMode::VerifyCa),
        _ => Ok(mode),
    }
}

/// What stands in its own place, or as an option.
fn either(name: &str, place: String, option: Option<String>) -> Result<Option<String>, String> {
    match option {
        Some(_) if !place.is_empty() => {
            Err(format!("{name} stands there twice: as an option and in its place"))
        }
        Some(option) => Ok(Some(option)),
        None => Ok(Some(place).filter(|place| !place.is_empty())),
    }
}

/// The servers before the database, `HOST:PORT,HOST:PORT`, or those of the options, `host=HOST,HOST&port=PORT,PORT`.
fn hosts(place: &str, option: Option<String>, ports: Option<String>) -> Result<Vec<Host>, String> {
    let Some(hosts) = either("host", place.to_owned(), option.clone())? else {
        return Ok(vec![Host::Tcp("localhost".to_owned(), port(ports.as_deref().unwrap_or_default())?)]);
    };
    if option.is_none() {
        if ports.is_some() && place.contains(':') {
            return Err("port stands there twice: as an option and behind the server".to_owned());
        }
        let default = ports.unwrap_or_default();
        return hosts.split(',').map(|server| placed(server, &default)).collect();
    }
    let ports = ports.unwrap_or_default();
    let ports: Vec<_> = ports.split(',').collect();
    let hosts: Vec<_> = hosts.split(',').collect();
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(format!(
            "{} servers and {} ports: one port for all, or one for each",
            hosts.len(),
            ports.len()
        ));
    }
    let ports = ports.iter().cycle();
    hosts.into_iter().zip(ports).map(|(name, number)| host(name, port(number)?)).collect()
}

fn placed(server: &str, default: &str) -> Result<Host, String> {
    let (name, number) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').unwrap_or_default()),
        None => server.rsplit_once(':').unwrap_or((server, "")),
    };
    host(&unescape("the host", name)?, port(if number.is_empty() { default } else { number })?)
}

fn host(name: &str, port: u16) -> Result<Host, String> {
    match name {
        "" => Err("a server has no name".to_owned()),
        folder if folder.starts_with('/') => Ok(Host::Unix(folder.into(), port)),
        name => Ok(Host::Tcp(name.to_owned(), port)),
    }
}

fn port(digits: &str) -> Result<u16, String> {
    if digits.is_empty() {
        return Ok(PORT);
    }
    let number = digits.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("port {digits}: a number from 1 to 65535 may stand there"))
}

/// Undoes `%XX`.
fn unescape(what: &str, text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let value = digit(rest.next()).zip(digit(rest.next())).map(|(high, low)| high * 16 + low);
        let value = value.and_then(|value| u8::try_from(value).ok()).filter(|value| *value != 0);
        bytes
            .push(value.ok_or_else(|| format!("{what}: behind % stand two hexadecimal digits, and not 00"))?);
    }
    String::from_utf8(bytes).map_err(|_| format!("{what} is no UTF-8"))
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
