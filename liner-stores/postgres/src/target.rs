//! Where the database is, and how it is connected to.

use core::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::error::{OpenError, words};

/// What a URL says.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    config: Config,
    server: String,
    pub(crate) lock_timeout: Duration,
    pub(crate) statement_timeout: Duration,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let config: Config = url.parse().map_err(|error| OpenError::Url { words: words(&error) })?;
        Ok(Self {
            config,
            server: "the server".to_owned(),
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
        })
    }

    pub(crate) fn patience(&self) -> Duration {
        self.statement_timeout + Duration::from_secs(5)
    }

    pub(crate) fn unreachable(&self, words: &str) -> OpenError {
        OpenError::Connect { server: self.server.clone(), words: words.to_owned() }
    }

    pub(crate) fn standby(&self) -> OpenError {
        OpenError::Standby { server: self.server.clone() }
    }

    /// Begins a turn: nothing in it waits for ever.
    pub(crate) fn begin(&self) -> String {
        format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
            self.lock_timeout.as_millis(),
            self.statement_timeout.as_millis()
        )
    }

    pub(crate) async fn connect(&self) -> Result<Client, OpenError> {
        let (client, connection) = self.config.connect(NoTls).await.map_err(|error| self.sorted(&error))?;
        drop(tokio::spawn(connection));
        Ok(client)
    }

    fn sorted(&self, error: &tokio_postgres::Error) -> OpenError {
        let words = words(error);
        let server = self.server.clone();
        match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                let user = self.config.get_user().unwrap_or_default().to_owned();
                OpenError::Refused { server, user, words }
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => OpenError::NoDatabase { words },
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => OpenError::Permission { words },
            _ => OpenError::Connect { server, words },
        }
    }
}
