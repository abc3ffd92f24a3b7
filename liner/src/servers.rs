//! The stores on servers that this program was built with. Another kind is added here, and in [`ServerKind`].

use crate::server_url::{ServerKind, ServerUrl};
use crate::store::{Look, LookError, OpenError, Opened};
use crate::store_url::StoreUrlError;

/// What is wrong with the URL, before the server is asked for anything.
pub(crate) fn check(url: &ServerUrl) -> Result<(), StoreUrlError> {
    match url.kind() {
        #[cfg(feature = "redis")]
        ServerKind::Redis => redis::check(url).map_err(StoreUrlError::Server),
        #[cfg(feature = "postgres")]
        ServerKind::Postgres => postgres::check(url).map_err(StoreUrlError::Server),
        #[cfg(not(all(feature = "redis", feature = "postgres")))]
        kind => Err(not_built(kind)),
    }
}

#[cfg_attr(
    not(any(feature = "redis", feature = "postgres")),
    expect(unused_variables, reason = "there is no server")
)]
pub(crate) fn open(url: &ServerUrl, name: &str) -> Result<Opened, OpenError> {
    match url.kind() {
        #[cfg(feature = "redis")]
        ServerKind::Redis => redis::open(url, name),
        #[cfg(feature = "postgres")]
        ServerKind::Postgres => postgres::open(url, name),
        #[cfg(not(all(feature = "redis", feature = "postgres")))]
        kind => Err(not_built(kind).into()),
    }
}

pub(crate) fn look(url: &ServerUrl) -> Result<Box<dyn Look>, LookError> {
    match url.kind() {
        #[cfg(feature = "redis")]
        ServerKind::Redis => redis::look(url),
        #[cfg(feature = "postgres")]
        ServerKind::Postgres => postgres::look(url),
        #[cfg(not(all(feature = "redis", feature = "postgres")))]
        kind => Err(LookError::Unreadable(not_built(kind).to_string())),
    }
}

#[cfg(not(all(feature = "redis", feature = "postgres")))]
const fn not_built(kind: ServerKind) -> StoreUrlError {
    StoreUrlError::NotBuilt(kind.name(), kind.feature())
}

#[cfg(feature = "redis")]
mod redis {
    use liner_store_redis::{Look as RedisLook, OpenError as RedisError, Options, RedisStore, Url, UrlError};

    use super::ServerUrl;
    use crate::store::{self, Look, LookError, Notice, OpenError, Opened};

    fn read(url: &ServerUrl) -> Result<Url, String> {
        url.with_password().parse().map_err(|error: UrlError| error.to_string())
    }

    pub(super) fn check(url: &ServerUrl) -> Result<(), String> {
        read(url).map(drop)
    }

    pub(super) fn look(url: &ServerUrl) -> Result<Box<dyn Look>, LookError> {
        Ok(Box::new(RedisLook::open(&read(url).map_err(LookError::Unreadable)?)?))
    }

    pub(super) fn open(url: &ServerUrl, name: &str) -> Result<Opened, OpenError> {
        let options = Options { name: name.to_owned() };
        let store = RedisStore::open(url.with_password(), &options).map_err(|error| sorted(&error))?;
        let (opened, mut notices) = (store.opened(), Vec::new());
        if opened.regressed {
            notices.push(Notice::warning(store::restarted(url)));
        }
        if opened.damaged > 0 {
            notices.push(Notice::warning(store::damaged(opened.damaged, &url.to_string())));
        }
        Ok(Opened { store: Box::new(store), notices })
    }

    fn sorted(error: &RedisError) -> OpenError {
        let words = error.to_string();
        if matches!(error, RedisError::Url(_)) { OpenError::BadUrl(words) } else { OpenError::Failed(words) }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use liner_store_postgres::{
        Look as PostgresLook, OpenError as PostgresError, Options, PostgresStore, Url,
    };

    use super::ServerUrl;
    use crate::store::{self, Look, LookError, Notice, OpenError, Opened};

    fn read(url: &ServerUrl) -> Result<Url, String> {
        url.with_password().parse().map_err(|error: PostgresError| error.to_string())
    }

    pub(super) fn check(url: &ServerUrl) -> Result<(), String> {
        read(url).map(drop)
    }

    pub(super) fn look(url: &ServerUrl) -> Result<Box<dyn Look>, LookError> {
        Ok(Box::new(PostgresLook::open(&read(url).map_err(LookError::Unreadable)?)?))
    }

    pub(super) fn open(url: &ServerUrl, name: &str) -> Result<Opened, OpenError> {
        let options = Options { name: name.to_owned() };
        let place = read(url).map_err(OpenError::BadUrl)?;
        let store = PostgresStore::open(&place, &options).map_err(|error| sorted(&error))?;
        let (opened, mut notices) = (store.opened(), Vec::new());
        if opened.damaged > 0 {
            notices.push(Notice::warning(store::damaged(opened.damaged, &url.to_string())));
        }
        if opened.orphaned > 0 {
            notices.push(Notice::warning(store::orphaned(opened.orphaned)));
        }
        Ok(Opened { store: Box::new(store), notices })
    }

    fn sorted(error: &PostgresError) -> OpenError {
        let words = error.to_string();
        let is_url = matches!(error, PostgresError::Url { .. });
        if is_url { OpenError::BadUrl(words) } else { OpenError::Failed(words) }
    }
}
