//! Where a node keeps its messages, as a text says it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use liner_mio::Class;

pub use crate::server_url::{ServerKind, ServerUrl};
use crate::servers;

/// The one thing that a URL may say besides the path: what commits are to survive.
const DURABILITY: &str = "durability";

/// A parsed store URL. It is shown without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`.
    Sqlite(PathBuf),
    /// `ram:`.
    Ram,
    /// `redis://`, `rediss://`, `unix://`, `postgres://` or `postgresql://`.
    Server(ServerUrl),
}

/// Why a store URL is not one. Each text says what to write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUrlError {
    /// It does not begin with a kind and a colon.
    #[error(
        "a store URL begins with its kind: write sqlite:{0} for a file, ram: for memory, or the URL of a server, as redis://HOST or postgres://HOST/DATABASE"
    )]
    NoScheme(String),
    /// There is no such kind.
    #[error(
        "there is no store of the kind `{0}`: write sqlite:PATH, ram:, redis://HOST or postgres://HOST/DATABASE"
    )]
    UnknownScheme(String),
    /// There is no `//` behind the kind of a server.
    #[error("behind `{0}:` come two slashes and where the server is: write {0}://{1}")]
    NoSlashes(String, &'static str),
    /// This program was made without this kind.
    #[error("this program was built without {0}: build it with the feature `{1}` of the crate liner")]
    NotBuilt(&'static str, &'static str),
    /// There is something in the URL of a server that it does not know.
    #[error("{0}")]
    Server(String),
    /// It says what commits survive, which a server decides.
    #[error("what commits survive is up to the settings of the server: leave `durability` out of its URL")]
    ServerDurability,
    /// There is nothing behind `sqlite:`.
    #[error("the path is missing: write sqlite:PATH, for instance sqlite:liner.db")]
    NoPath,
    /// There is something behind `ram:`.
    #[error("ram: takes nothing behind the colon: write ram: alone, or sqlite:{0} for a file")]
    RamWithPath(String),
    /// The path is that of a directory.
    #[error("`{0}` is a directory: name a file in it, for instance sqlite:{0}/liner.db")]
    Directory(String),
    /// It says what commits survive, where that is said otherwise or not at all.
    #[error("`{0}` ends in a durability: give the command --durability instead")]
    Durability(String),
    /// It says something else than what commits survive.
    #[error(
        "a store URL has no `{0}`: what it may say is ?durability=process or ?durability=power, and for the command --durability does"
    )]
    UnknownKey(String),
    /// It says that commits survive something that there is no word for.
    #[error("there is no durability `{0}`: write durability=process or durability=power")]
    UnknownDurability(String),
}

impl StoreUrl {
    /// Reads a URL that may say what commits of a file survive: `sqlite:PATH?durability=process`, or `power`, which it is without. Of
    /// a server nothing is asked, which is [`Class::Ram`].
    ///
    /// # Errors
    /// See [`StoreUrlError`].
    pub fn with_durability(text: &str) -> Result<(Self, Class), StoreUrlError> {
        let Some((url, DURABILITY, word)) = split_query(text) else {
            let url: Self = text.parse()?;
            let class = if matches!(url, Self::Server(_)) { Class::Ram } else { Class::Power };
            return Ok((url, class));
        };
        let class = match word {
            "process" => Class::Process,
            "power" => Class::Power,
            _ => return Err(StoreUrlError::UnknownDurability(word.to_owned())),
        };
        match url.parse()? {
            // It would be a wish that nobody fulfils: what is wrong with the whole text says so.
            Self::Ram | Self::Server(_) => text.parse().map(|url| (url, Class::Ram)),
            url @ Self::Sqlite(_) => Ok((url, class)),
        }
    }

    /// Fails early, with better words than a database has, if the path cannot be a file, or if this program cannot use such a server.
    ///
    /// # Errors
    /// [`StoreUrlError::Directory`], [`StoreUrlError::NotBuilt`] or [`StoreUrlError::Server`].
    pub fn check(&self) -> Result<(), StoreUrlError> {
        match self {
            Self::Sqlite(path) if path.is_dir() => {
                Err(StoreUrlError::Directory(path.display().to_string().trim_end_matches('/').to_owned()))
            }
            Self::Server(server) => servers::check(server),
            Self::Sqlite(_) | Self::Ram => Ok(()),
        }
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Ram | Self::Server(_) => None,
        }
    }

    /// Whether it is in memory alone.
    pub const fn is_ram(&self) -> bool {
        matches!(self, Self::Ram)
    }

    /// Whether a server keeps it.
    pub const fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

/// What stands before the first `?key=`, the key, and what stands behind it. A path may hold the sign for itself.
fn split_query(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('?').find_map(|(at, sign)| {
        let (path, query) = text.split_at_checked(at)?;
        let (key, value) = query.strip_prefix(sign)?.split_once('=')?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_key.then_some((path, key, value))
    })
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(StoreUrlError::NoScheme(text.to_owned()));
        };
        match scheme {
            "sqlite" => match split_query(rest) {
                Some((_, DURABILITY, _)) => Err(StoreUrlError::Durability(text.to_owned())),
                Some((_, key, _)) => Err(StoreUrlError::UnknownKey(key.to_owned())),
                None if rest.is_empty() => Err(StoreUrlError::NoPath),
                None => Ok(Self::Sqlite(PathBuf::from(rest))),
            },
            "ram" if rest.is_empty() => Ok(Self::Ram),
            "ram" if rest.starts_with('?') => Err(StoreUrlError::RamWithPath("PATH".to_owned())),
            "ram" => Err(StoreUrlError::RamWithPath(rest.to_owned())),
            _ => match ServerKind::of_scheme(scheme) {
                Some(kind) => server(kind, scheme, rest, text),
                None => Err(StoreUrlError::UnknownScheme(scheme.to_owned())),
            },
        }
    }
}

/// All behind the scheme is for whoever opens it.
fn server(kind: ServerKind, scheme: &str, rest: &str, text: &str) -> Result<StoreUrl, StoreUrlError> {
    if !rest.starts_with("//") {
        return Err(StoreUrlError::NoSlashes(scheme.to_owned(), kind.example(scheme)));
    }
    let url = ServerUrl::new(kind, text);
    if url.has_option(DURABILITY) { Err(StoreUrlError::ServerDurability) } else { Ok(StoreUrl::Server(url)) }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Ram => f.write_str("ram:"),
            Self::Server(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        assert_eq!("ram:".parse(), Ok(StoreUrl::Ram));
        assert_eq!("sqlite:a/b.db".parse(), Ok(StoreUrl::Sqlite("a/b.db".into())));
        assert_eq!("sqlite:/a:b.db".parse(), Ok(StoreUrl::Sqlite("/a:b.db".into())));
    }

    #[test]
    fn what_is_no_url_is_told_what_to_write() {
        let told = |text: &str| text.parse::<StoreUrl>().unwrap_err().to_string();
        assert!(told("liner.db").contains("sqlite:liner.db"));
        assert!(told("mysql://h").contains("`mysql`"));
        assert!(told("redis:h").contains("redis://HOST"));
        assert!(told("unix:/run/redis.sock").contains("unix:///PATH"));
        assert!(told("postgres://h/d?durability=power").contains("settings of the server"));
        assert!(told("SQLITE:x").contains("`SQLITE`"));
        assert!(told("sqlite:").contains("sqlite:PATH"));
        assert!(told("ram:x").contains("sqlite:x"));
        assert!(told("").contains("sqlite:"));
    }

    #[test]
    fn a_url_may_say_what_commits_survive() {
        let file = StoreUrl::Sqlite("a.db".into());
        let read = |text: &str| StoreUrl::with_durability(text);
        assert_eq!(read("sqlite:a.db"), Ok((file.clone(), Class::Power)));
        assert_eq!(read("sqlite:a.db?durability=power"), Ok((file.clone(), Class::Power)));
        assert_eq!(read("sqlite:a.db?durability=process"), Ok((file, Class::Process)));
        assert!(read("sqlite:a.db?durability=").unwrap_err().to_string().contains("durability=process"));
        for (text, words) in [
            ("sqlite:a.db?durabilty=process", "`durabilty`: what it may say is ?durability=process"),
            ("sqlite:a.db?cache=1", "`cache`"),
            ("sqlite:a.db?cache=1?durability=power", "`cache`"),
            ("sqlite:?durability=power", "path is missing"),
            ("ram:?durability=power", "write ram: alone, or sqlite:PATH for a file"),
            ("ram:?x=power", "write ram: alone"),
        ] {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(words), "{text}: {told}");
        }
    }

    #[test]
    fn where_options_say_it_a_url_says_nothing_besides_its_path() {
        let told = |text: &str| text.parse::<StoreUrl>().unwrap_err().to_string();
        assert!(told("sqlite:a.db?durability=process").contains("give the command --durability"));
        assert!(told("sqlite:a.db?durabilty=process").contains("`durabilty`"));
        for path in ["what?.db", "a?b/c=d.db", "?", "a?=b"] {
            assert_eq!(format!("sqlite:{path}").parse(), Ok(StoreUrl::Sqlite(path.into())));
        }
    }

    #[test]
    fn a_directory_is_no_file() {
        let url = StoreUrl::Sqlite("/".into());
        assert!(url.check().unwrap_err().to_string().contains("directory"));
        assert_eq!(StoreUrl::Ram.check(), Ok(()));
    }
}
