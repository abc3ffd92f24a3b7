//! Where a node keeps its messages, as a text says it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use liner_mio::Class;

/// The one thing that a URL may say besides the path: what commits are to survive.
const DURABILITY: &str = "durability";

/// A parsed store URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`.
    Sqlite(PathBuf),
    /// `ram:`.
    Ram,
}

/// Why a store URL is not one. Each text says what to write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUrlError {
    /// It does not begin with a kind and a colon.
    #[error("a store URL begins with its kind: write sqlite:{0} for a file, or ram: for memory")]
    NoScheme(String),
    /// There is no such kind.
    #[error("there is no store of the kind `{0}`: write sqlite:PATH or ram:")]
    UnknownScheme(String),
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
    /// Reads a URL that may say what commits survive: `sqlite:PATH?durability=process`, or `power`, which it is without.
    ///
    /// # Errors
    /// See [`StoreUrlError`].
    pub fn with_durability(text: &str) -> Result<(Self, Class), StoreUrlError> {
        let Some((url, DURABILITY, word)) = split_query(text) else {
            return Ok((text.parse()?, Class::Power));
        };
        let class = match word {
            "process" => Class::Process,
            "power" => Class::Power,
            _ => return Err(StoreUrlError::UnknownDurability(word.to_owned())),
        };
        match url.parse()? {
            // It would be a wish that nobody fulfils: what is wrong with the whole text says so.
            Self::Ram => text.parse().map(|url| (url, Class::Ram)),
            url @ Self::Sqlite(_) => Ok((url, class)),
        }
    }

    /// Fails early, with better words than a database has, if the path cannot be a file.
    ///
    /// # Errors
    /// [`StoreUrlError::Directory`].
    pub fn check(&self) -> Result<(), StoreUrlError> {
        match self {
            Self::Sqlite(path) if path.is_dir() => {
                Err(StoreUrlError::Directory(path.display().to_string().trim_end_matches('/').to_owned()))
            }
            Self::Sqlite(_) | Self::Ram => Ok(()),
        }
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Ram => None,
        }
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
            _ => Err(StoreUrlError::UnknownScheme(scheme.to_owned())),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Ram => f.write_str("ram:"),
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
        assert!(told("redis://h").contains("`redis`"));
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
