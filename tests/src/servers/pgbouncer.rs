//! A private PgBouncer.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;

use rustix::process::Signal;

use super::folder::{self, Folder};
use super::pg_wire;
use super::port::Port;
use super::postgres::Postgres;
use super::programs;
use super::server::{Launch, Server, on_a_free_port};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// For how long a client has a connection of PostgreSQL for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// As long as it is connected.
    Session,
    /// For a transaction.
    Transaction,
    /// For a statement.
    Statement,
}

/// A PgBouncer of its own port in front of a PostgreSQL, for all its databases. What can be done to it as to any server: [`Server`].
///
/// It lets in whom it knows, without a password, and shows PostgreSQL the user's.
#[derive(Debug)]
pub struct PgBouncer {
    // Goes before the folder.
    server: Server,
    port: Port,
    _folder: Folder,
}

impl PgBouncer {
    /// Starts one that knows the user `postgres`, and returns when it has answered.
    ///
    /// # Errors
    /// If it is not installed or does not start, with what it said.
    pub fn start(postgres: &Postgres, pooling: Pooling) -> io::Result<Self> {
        Self::start_with(postgres, pooling, &[])
    }

    /// The same with further users: their names and passwords.
    ///
    /// # Errors
    /// The same.
    pub fn start_with(postgres: &Postgres, pooling: Pooling, users: &[(&str, &str)]) -> io::Result<Self> {
        let account = postgres.account();
        on_a_free_port(|| {
            let folder = Folder::new()?;
            let port = Port::claim()?;
            let mut list = format!("\"postgres\" \"{}\"\n", postgres.password().unwrap_or_default());
            for (name, password) in users {
                list += &format!("\"{name}\" \"{password}\"\n");
            }
            let (config, users) = (folder.join("pgbouncer.ini"), folder.join("users"));
            fs::write(&users, list)?;
            folder::give(&users, 0o600, account)?;
            fs::write(&config, configuration(postgres.address(), port.number(), pooling, &users))?;
            let server = Server::start(Launch {
                program: programs::find(Path::new(PROGRAM))?,
                arguments: vec![config.into()],
                account,
                ready: "process up",
                end: Signal::TERM,
                log: folder.join("log"),
            })?;
            let bouncer = Self { server, port, _folder: folder };
            pg_wire::ping(bouncer.address(), "postgres", "pgbouncer")?;
            Ok(bouncer)
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its address as a URL for the user `postgres` and the database of this name.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address())
    }
}

impl Deref for PgBouncer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn configuration(to: SocketAddr, port: u16, pooling: Pooling, users: &Path) -> String {
    let mode = match pooling {
        Pooling::Session => "session",
        Pooling::Transaction => "transaction",
        Pooling::Statement => "statement",
    };
    // It tries PostgreSQL again much sooner than by itself: a test waits for that.
    format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\npool_mode = {mode}\nauth_type = trust\nauth_file = {}\nadmin_users = postgres\n\
         server_login_retry = 0.1\nmax_client_conn = 200\ndefault_pool_size = 20\n",
        to.ip(),
        to.port(),
        users.display()
    )
}
