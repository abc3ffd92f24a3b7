//! Where messages are stored: a fresh file or a fresh server.

use liner::Class;
use liner_tests::servers::{Postgres, PostgresOptions, Redis, RedisOptions, Version};

/// A store and how durable it is set to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Without fsync in each commit.
    SqliteProcess,
    SqlitePower,
    /// `appendfsync everysec`
    RedisEverysec,
    /// `appendfsync always`
    RedisAlways,
    /// `synchronous_commit = off`
    Postgres15Off,
    Postgres15,
    Postgres18,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::SqliteProcess,
        Self::SqlitePower,
        Self::RedisEverysec,
        Self::RedisAlways,
        Self::Postgres15Off,
        Self::Postgres15,
        Self::Postgres18,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SqliteProcess => "sqlite-process",
            Self::SqlitePower => "sqlite-power",
            Self::RedisEverysec => "redis-everysec",
            Self::RedisAlways => "redis-always",
            Self::Postgres15Off => "postgres-15-off",
            Self::Postgres15 => "postgres-15",
            Self::Postgres18 => "postgres-18",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

/// It is gone when it is dropped.
pub(crate) enum Place {
    Sqlite { folder: tempfile::TempDir, class: Class },
    Redis(Redis),
    Postgres(Postgres),
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        let sqlite = |class| Self::Sqlite { folder: tempfile::tempdir().unwrap(), class };
        let redis = |appendfsync| {
            let options = RedisOptions { appendfsync: Some(appendfsync), ..RedisOptions::default() };
            Self::Redis(Redis::start(&options).unwrap())
        };
        let postgres = |version, settings: &[&str]| {
            // The rest is as small as the tests need it.
            let mut all = vec!["shared_buffers = 128MB".to_owned(), "max_wal_size = 1GB".to_owned()];
            all.extend(settings.iter().map(|&setting| setting.to_owned()));
            let options = PostgresOptions { settings: all, ..PostgresOptions::default() };
            Self::Postgres(Postgres::start(version, &options).unwrap())
        };
        match kind {
            Kind::SqliteProcess => sqlite(Class::Process),
            Kind::SqlitePower => sqlite(Class::Power),
            Kind::RedisEverysec => redis("everysec"),
            Kind::RedisAlways => redis("always"),
            Kind::Postgres15Off => postgres(Version::V15, &["synchronous_commit = off"]),
            Kind::Postgres15 => postgres(Version::V15, &[]),
            Kind::Postgres18 => postgres(Version::V18, &[]),
        }
    }

    /// What a node is told.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite { folder, .. } => format!("sqlite:{}/liner.db", folder.path().display()),
            Self::Redis(redis) => redis.url(),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    /// What it is asked to survive. A server has its own settings.
    pub(crate) const fn asked(&self) -> Option<Class> {
        match self {
            Self::Sqlite { class, .. } => Some(*class),
            Self::Redis(_) | Self::Postgres(_) => None,
        }
    }
}
