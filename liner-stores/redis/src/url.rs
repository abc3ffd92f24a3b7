//! The URL that names a server, and its options.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::path::PathBuf;

/// Where a store is: `redis://[user[:password]@]host[:port][/db]`, `rediss://…` with encryption, or `unix://PATH`, each with options
/// behind a `?`. What means something in a URL is written as `%` and two digits.
///
/// | option | default | |
/// |---|---|---|
/// | `connect_timeout` | `3s` | to reach the server, and for each step of a greeting |
/// | `command_timeout` | `5s` | for which the server may be silent while it owes a reply |
/// | `ca` | the system's | with `rediss`: a file in PEM, of those who may have signed the server's certificate |
/// | `cert`, `key` | none | with `rediss`: files in PEM, the certificate to show and its key |
/// | `db`, `user`, `password` | `0`, none | what `redis` has in other places; for `unix` |
///
/// It is shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Where the server listens.
    pub place: Place,
    /// The user of the access control list; `default` without it.
    pub user: Option<String>,
    pub(crate) password: Option<String>,
    /// The database's number.
    pub db: u32,
    /// How long to wait for a connection, and for each step of the greeting.
    pub connect_timeout: Duration,
    /// How long the server may be silent while it owes a reply.
    pub command_timeout: Duration,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On TCP.
    Tcp {
        /// The host's name or address.
        host: String,
        /// The port.
        port: u16,
        /// With encryption.
        tls: Option<TlsFiles>,
    },
    /// On a socket in the file system.
    Unix(PathBuf),
}

/// The files that encryption needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may have signed the server's certificate; without it whom the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to the server, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with a URL. It never holds the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It begins with something else.
    #[error("the URL of a Redis begins with redis://, rediss:// or unix://")]
    Scheme,
    /// There is no such option, or not with this scheme.
    #[error("the URL has the option `{name}`, which {scheme}:// does not have; {scheme}:// has {known}")]
    Option {
        /// The option.
        name: String,
        /// The scheme.
        scheme: &'static str,
        /// The options that there are.
        known: &'static str,
    },
    /// An option stands there twice, or says what the URL says elsewhere.
    #[error("the URL says `{name}` twice")]
    Twice {
        /// The option.
        name: String,
    },
    /// A part cannot be understood.
    #[error("the URL's {part} is not understood: {wanted}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

const COMMON: &str = "connect_timeout, command_timeout, user, password, db";
const TLS: &str = "connect_timeout, command_timeout, user, password, db, ca, cert, key";

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
        let mut url = Self {
            place: Place::Unix(PathBuf::new()),
            user: None,
            password: None,
            db: 0,
            connect_timeout: Duration::from_secs(3),
            command_timeout: Duration::from_secs(5),
        };
        let mut given = Vec::new();
        let scheme = match scheme {
            "redis" | "rediss" => url.read_authority(rest, scheme == "rediss", &mut given)?,
            "unix" => {
                if !rest.starts_with('/') {
                    return Err(UrlError::Part { part: "path", wanted: "unix:// and an absolute path" });
                }
                url.place = Place::Unix(decode(rest, "path")?.into());
                "unix"
            }
            _ => return Err(UrlError::Scheme),
        };
        let (mut cert, mut key) = (None, None);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if given.contains(&name) {
                return Err(UrlError::Twice { name: name.to_owned() });
            }
            given.push(name);
            let value = decode(value, "options")?;
            match (name, &mut url.place) {
                ("connect_timeout", _) => url.connect_timeout = duration(&value)?,
                ("command_timeout", _) => url.command_timeout = duration(&value)?,
                ("user", _) => url.user = Some(value),
                ("password", _) => url.password = Some(value),
                ("db", _) => url.db = database(&value)?,
                ("ca", Place::Tcp { tls: Some(tls), .. }) => tls.ca = Some(value.into()),
                ("cert", Place::Tcp { tls: Some(_), .. }) => cert = Some(PathBuf::from(value)),
                ("key", Place::Tcp { tls: Some(_), .. }) => key = Some(PathBuf::from(value)),
                _ => {
                    let known = if scheme == "rediss" { TLS } else { COMMON };
                    return Err(UrlError::Option { name: name.to_owned(), scheme, known });
                }
            }
        }
        match (cert, key, &mut url.place) {
            (Some(cert), Some(key), Place::Tcp { tls: Some(tls), .. }) => tls.identity = Some((cert, key)),
            (None, None, _) => {}
            _ => return Err(UrlError::Part { part: "certificate", wanted: "both cert=FILE and key=FILE" }),
        }
        if url.user.is_some() && url.password.is_none() {
            return Err(UrlError::Part { part: "user", wanted: "a user has a password" });
        }
        Ok(url)
    }
}

impl Url {
    fn read_authority<'a>(
        &mut self,
        rest: &'a str,
        is_encrypted: bool,
        given: &mut Vec<&'a str>,
    ) -> Result<&'static str, UrlError> {
        let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
        if !db.is_empty() {
            self.db = database(db)?;
            given.push("db");
        }
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        if let Some((user, password)) = login.split_once(':') {
            self.user = (!user.is_empty()).then(|| decode(user, "user")).transpose()?;
            self.password = Some(decode(password, "password")?);
            given.extend(["user", "password"]);
        } else if !login.is_empty() {
            self.user = Some(decode(login, "user")?);
            given.push("user");
        }
        let wanted = "HOST, HOST:PORT, or an IPv6 address in brackets";
        let wrong = UrlError::Part { part: "host", wanted };
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| wrong.clone())?,
            None => address.find(':').map_or((address, ""), |at| address.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong.clone())?,
            None if port.is_empty() => 6379,
            None => return Err(wrong),
        };
        if host.is_empty() {
            return Err(wrong);
        }
        let tls = is_encrypted.then(TlsFiles::default);
        self.place = Place::Tcp { host: decode(host, "host")?, port, tls };
        Ok(if is_encrypted { "rediss" } else { "redis" })
    }

    /// The URL up to its options, without the password.
    fn base(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix://{}", encode(&path.to_string_lossy())),
            Place::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "rediss" } else { "redis" };
                let user = self.user.as_deref().map(|user| format!("{}@", encode(user))).unwrap_or_default();
                let host = if host.contains(':') { format!("[{host}]") } else { encode(host) };
                format!("{scheme}://{user}{host}:{port}/{}", self.db)
            }
        }
    }
}

impl fmt::Display for Url {
    /// With every option, and without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_millis();
        let (connect, command) = (millis(self.connect_timeout), millis(self.command_timeout));
        write!(f, "{}?connect_timeout={connect}ms&command_timeout={command}ms", self.base())?;
        match &self.place {
            Place::Unix(_) => {
                write!(f, "&db={}", self.db)?;
                self.user.iter().try_for_each(|user| write!(f, "&user={}", encode(user)))
            }
            Place::Tcp { tls, .. } => {
                let Some(TlsFiles { ca, identity }) = tls else { return Ok(()) };
                let path = |path: &PathBuf| encode(&path.to_string_lossy());
                ca.iter().try_for_each(|ca| write!(f, "&ca={}", path(ca)))?;
                let mut identity = identity.iter();
                identity.try_for_each(|(cert, key)| write!(f, "&cert={}&key={}", path(cert), path(key)))
            }
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

fn database(text: &str) -> Result<u32, UrlError> {
    text.parse().map_err(|_| UrlError::Part { part: "database", wanted: "its number" })
}

/// `3s`, `250ms`, `1m`, or seconds without a unit.
fn duration(text: &str) -> Result<Duration, UrlError> {
    let wrong = UrlError::Part { part: "time", wanted: "a number with ms, s or m, from 1ms to 60m" };
    let unit = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or(wrong.clone())?;
    let millis = match unit {
        "ms" => number,
        "s" | "" => number.saturating_mul(1000),
        "m" => number.saturating_mul(60_000),
        _ => return Err(wrong),
    };
    if (1..=3_600_000).contains(&millis) { Ok(Duration::from_millis(millis)) } else { Err(wrong) }
}

fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    let wrong =
        || UrlError::Part { part, wanted: "what is no plain text there is written as % and two digits" };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn encode(text: &str) -> String {
    use core::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
