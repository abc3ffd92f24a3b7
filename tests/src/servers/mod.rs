//! Private servers for tests: Redis, PostgreSQL in the versions that liner names, PgBouncer.
//!
//! Each runs on a free port of the loopback and in a folder of its own, as a child of the test's process, and has answered a client
//! when its `start` returns. It is gone when it is dropped, when the test panics, and when the test's process is killed. A test can
//! kill it and start it again on the same data and port, or freeze it ([`Server`]); stand between it and a client ([`cut`]); and
//! give it certificates, good ones and bad ones ([`certs`]).
//!
//! `scripts/servers` installs what runs here. A server that is missing is an error that says so: nothing is skipped.

pub mod certs;
pub mod cut;
mod folder;
mod pg_wire;
mod pgbouncer;
mod port;
mod postgres;
mod processes;
mod programs;
mod redis;
mod server;
mod spawn;

pub use pg_wire::ping as ping_postgres;
pub use pgbouncer::{PgBouncer, Pooling};
pub use postgres::{Postgres, PostgresOptions, Version};
pub use redis::{Clients, Redis, RedisOptions, Reply};
pub use server::{PATIENCE, Server};

/// The encryption of a server.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What it shows to clients.
    pub identity: certs::Identity,
    /// Who has to have signed what clients show.
    pub client_ca: std::path::PathBuf,
}
