//! Reads URLs.

use core::time::Duration;
use std::path::PathBuf;

use super::{Host, RootCert, SslMode, TargetSession, Url, escape};

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

/// Reads a URL. What is wrong with it is said with what there is instead.
pub(super) fn parse(text: &str) -> Result<Url, String> {
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
    let brackets = || format!("{server}: an address of IPv6 stands in brackets, [ADDRESS]:PORT");
    let (name, number) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, ""),
        Some((name, rest)) => (name, rest.strip_prefix(':').ok_or_else(brackets)?),
        None => server.split_once(':').unwrap_or((server, "")),
    };
    if number.contains(':') || name.starts_with('[') {
        return Err(brackets());
    }
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
