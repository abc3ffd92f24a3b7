//! Where a node keeps its messages, as the command line says it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A parsed store URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `sqlite:PATH`.
    Sqlite(PathBuf),
    /// `ram:`.
    Ram,
}

/// Why a store URL is not one. Each text says what to write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreUrlError {
    #[error("a store URL begins with its kind: write sqlite:{0} for a file, or ram: for memory")]
    NoScheme(String),
    #[error("there is no store of the kind `{0}`: write sqlite:PATH or ram:")]
    UnknownScheme(String),
    #[error("the path is missing: write sqlite:PATH, for instance sqlite:liner.db")]
    NoPath,
    #[error("ram: takes nothing behind the colon: write ram: alone, or sqlite:{0} for a file")]
    RamWithPath(String),
    #[error("`{0}` is a directory: name a file in it, for instance sqlite:{0}/liner.db")]
    Directory(String),
}

impl StoreUrl {
    /// Fails early, with better words than a database has, if the path cannot be a file.
    pub(crate) fn check(&self) -> Result<(), StoreUrlError> {
        match self {
            Self::Sqlite(path) if path.is_dir() => {
                Err(StoreUrlError::Directory(path.display().to_string().trim_end_matches('/').to_owned()))
            }
            Self::Sqlite(_) | Self::Ram => Ok(()),
        }
    }

    /// The file, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Ram => None,
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(StoreUrlError::NoScheme(text.to_owned()));
        };
        match scheme {
            "sqlite" if rest.is_empty() => Err(StoreUrlError::NoPath),
            "sqlite" => Ok(Self::Sqlite(PathBuf::from(rest))),
            "ram" if rest.is_empty() => Ok(Self::Ram),
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
    fn a_directory_is_no_file() {
        let url = StoreUrl::Sqlite("/".into());
        assert!(url.check().unwrap_err().to_string().contains("directory"));
        assert_eq!(StoreUrl::Ram.check(), Ok(()));
    }
}
