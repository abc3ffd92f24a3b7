//! The URLs of servers: which kind of store they name, and how they are shown.

use std::fmt;

/// What stands in the place of a password.
const HIDDEN: &str = "***";

/// A kind of server that keeps messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// `redis://`, `rediss://`, `unix://`.
    Redis,
    /// `postgres://`, `postgresql://`.
    Postgres,
}

impl ServerKind {
    /// The kind that a URL with this scheme has.
    pub fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "redis" | "rediss" | "unix" => Some(Self::Redis),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// The feature of this crate that brings it.
    pub const fn feature(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// What the settings of the server have to be for commits that survive the loss of power.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Redis => {
                "set `appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite no` there"
            }
            Self::Postgres => {
                "set `fsync = on` and `synchronous_commit = on` there, for the server, the database and the role"
            }
        }
    }

    /// What may stand behind the scheme and `://`.
    pub(crate) fn example(self, scheme: &str) -> &'static str {
        match self {
            Self::Redis if scheme == "unix" => "/PATH",
            Self::Redis => "HOST",
            Self::Postgres => "HOST/DATABASE",
        }
    }
}

/// The URL of a server. It is shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    kind: ServerKind,
    /// With the password.
    text: String,
}

impl ServerUrl {
    pub(crate) fn new(kind: ServerKind, text: &str) -> Self {
        Self { kind, text: text.to_owned() }
    }

    /// What kind of server it names.
    pub const fn kind(&self) -> ServerKind {
        self.kind
    }

    /// All of it, with the password: for whoever opens it, and for nobody to see.
    pub fn with_password(&self) -> &str {
        &self.text
    }

    /// Whether an option of this name stands in it.
    pub(crate) fn has_option(&self, name: &str) -> bool {
        let options = self.text.split_once('?').map_or("", |(_, options)| options);
        options.split('&').any(|option| key_of(option) == name)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hidden(&self.text))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", hidden(&self.text))
    }
}

/// The URL without its password. Where it is not clear how far a password goes, because what means something in a URL stands in it as it
/// is, more is hidden rather than less.
fn hidden(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return HIDDEN.to_owned() };
    let (user, place) = rest.split_at(end_of_user(rest));
    let (place, options) = place.split_once('?').map_or((place, None), |(place, rest)| (place, Some(rest)));
    let mut shown = format!("{scheme}://");
    match user.split_once(':') {
        Some((name, _)) => shown.extend([name, ":", HIDDEN]),
        None => shown.push_str(user),
    }
    shown.push_str(place);
    for (index, option) in options.into_iter().flat_map(|options| options.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match option.split_once('=') {
            Some((key, _)) if key_of(option).contains("pass") => shown.extend([key, "=", HIDDEN]),
            Some(_) => shown.push_str(option),
            // The rest of a password that has an ampersand in it, or a mistake.
            None => shown.push_str(HIDDEN),
        }
    }
    shown
}

/// Where the sign stands that ends the user and the password.
fn end_of_user(rest: &str) -> usize {
    let last = rest.rfind('@').unwrap_or(0);
    if !is_option_value(rest, last) {
        return last;
    }
    rest.split_once('?').and_then(|(place, _)| place.rfind('@')).unwrap_or(0)
}

/// Whether the sign at `at` stands in the value of an option, and no password goes as far: another one would stand before the options.
fn is_option_value(rest: &str, at: usize) -> bool {
    let (before, _) = rest.split_at(at);
    let Some((place, options)) = before.split_once('?') else { return false };
    let is_word =
        |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let has_keys =
        options.split('&').all(|option| option.split_once('=').is_some_and(|(key, _)| is_word(key)));
    let port = place.rsplit_once(':').map_or("", |(_, port)| port);
    let port = port.split('/').next().unwrap_or_default();
    has_keys && (place.contains('@') || port.bytes().all(|byte| byte.is_ascii_digit() || byte == b']'))
}

/// The name of an option, in small letters and with nothing written by its number.
fn key_of(option: &str) -> String {
    let key = option.split_once('=').map_or(option, |(key, _)| key);
    let mut decoded = Vec::with_capacity(key.len());
    let mut bytes = key.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits: String = bytes.by_ref().take(2).map(char::from).collect();
        decoded.push(u8::from_str_radix(&digits, 16).unwrap_or(b'%'));
    }
    String::from_utf8_lossy(&decoded).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (text, shown) in [
            ("redis://h", "redis://h"),
            ("redis://h:6379/2", "redis://h:6379/2"),
            ("redis://:secret@h:6379", "redis://:***@h:6379"),
            ("rediss://u:secret@h/1?ca=ca.pem", "rediss://u:***@h/1?ca=ca.pem"),
            ("unix:///run/r.sock?user=u&password=secret&db=1", "unix:///run/r.sock?user=u&password=***&db=1"),
            ("postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=require"),
            ("postgres://u:secret@h,i:5433/d", "postgres://u:***@h,i:5433/d"),
            ("postgresql://h/d?%70assword=secret", "postgresql://h/d?%70assword=***"),
            ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
            ("postgres://u:secret@h/d?application_name=a@b", "postgres://u:***@h/d?application_name=a@b"),
            ("postgres://h:5432/d?user=a@b", "postgres://h:5432/d?user=a@b"),
            // What should have been written as numbers.
            ("postgres://u:se@cr/et@h/d", "postgres://u:***@h/d"),
            ("postgres://u:se?c=ret@h/d", "postgres://u:***@h/d"),
            ("postgres://u:secret?@h/d?user=x", "postgres://u:***@h/d?user=x"),
            ("postgres://h/d?password=se&cret", "postgres://h/d?password=***&***"),
            ("postgres://u:se:cret@h", "postgres://u:***@h"),
        ] {
            let url = ServerUrl::new(ServerKind::Redis, text);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
            assert_eq!(url.with_password(), text);
        }
    }
}
