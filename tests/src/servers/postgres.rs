//! A private PostgreSQL.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;

use super::Tls;
use super::folder::{self, Folder};
use super::pg_wire;
use super::port::Port;
use super::programs::{self, Account};
use super::server::{Launch, PATIENCE, Server, on_a_free_port};

/// The superuser of every PostgreSQL here, and the database that it comes with.
const POSTGRES: &str = "postgres";

/// Small, as durable as PostgreSQL is by itself, and without anything outside of its folder.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
shared_buffers = 16MB
max_connections = 60
max_wal_size = 64MB
min_wal_size = 32MB
dynamic_shared_memory_type = mmap
password_encryption = 'scram-sha-256'
lc_messages = 'C'
";

/// Those that liner names: the oldest, that of Debian 12, the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 13
    V13,
    /// 15
    V15,
    /// 18
    V18,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V13, Self::V15, Self::V18];

    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V15 => 15,
            Self::V18 => 18,
        }
    }

    fn program(self, name: &str) -> io::Result<PathBuf> {
        let home = match self {
            Self::V15 => PathBuf::from("/usr/lib/postgresql/15"),
            Self::V13 | Self::V18 => {
                programs::build_root().join("servers").join(format!("postgres-{}", self.number()))
            }
        };
        programs::find(&home.join("bin").join(name))
    }
}

/// What a PostgreSQL is to be. By default it lets everybody in.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// The password of the user `postgres`. With it, who comes by TCP has to prove one by SCRAM.
    pub password: Option<String>,
    /// Encryption, for those who want it.
    pub tls: Option<Tls>,
    /// Lines of `pg_hba.conf` in place of what the password says. The socket in the file system stays open to all.
    pub hba: Vec<String>,
    /// Further lines of `postgresql.conf`: `synchronous_commit = off`.
    pub settings: Vec<String>,
    /// Another system identifier than the other servers of this version have, which begin as copies of one.
    pub fresh: bool,
}

/// A PostgreSQL of its own port, socket and data. What can be done to it as to any server: [`Server`].
#[derive(Debug)]
pub struct Postgres {
    // Goes before the folder.
    server: Server,
    port: Port,
    password: Option<String>,
    account: Option<Account>,
    folder: Folder,
}

impl Postgres {
    /// Starts one, and returns when it has answered.
    ///
    /// # Errors
    /// If it is not installed or does not start, with what it said.
    pub fn start(version: Version, options: &PostgresOptions) -> io::Result<Self> {
        let account = Account::instead_of_root()?;
        let program = version.program("postgres")?;
        on_a_free_port(|| {
            let folder = Folder::new()?;
            let data = folder.join("data");
            if options.fresh {
                make_data(version, &folder, account)?;
            } else {
                folder::copy(&template(version, account)?, &data)?;
            }
            let port = Port::claim()?;
            configure(options, &folder, &port, account)?;
            let server = Server::start(Launch {
                program: program.clone(),
                arguments: vec!["-D".into(), data.into()],
                account,
                // A standby takes read-only ones.
                ready: "database system is ready to accept",
                end: Signal::INT,
                log: folder.join("log"),
            })?;
            let postgres = Self { server, port, password: options.password.clone(), account, folder };
            postgres.query("SELECT 1")?;
            if let Some(password) = &options.password {
                let password = password.replace('\'', "''");
                postgres.query(&format!("ALTER ROLE {POSTGRES} PASSWORD '{password}'"))?;
            }
            Ok(postgres)
        })
    }

    /// Starts it again on the port and the data that it had. One that is up is killed first.
    ///
    /// # Errors
    /// As when it was started first.
    pub fn restart(&self) -> io::Result<()> {
        self.server.kill()?;
        // The number of the killed process may have gone to one of another server, which this one would take for itself still running.
        folder::clear_run(&self.data())?;
        folder::remove(&self.socket().with_extension(format!("{}.lock", self.port.number())))?;
        self.server.restart()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The folder that its socket is in.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Its data, with `postgresql.conf` and `pg_hba.conf`.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The password of the user `postgres`, if it has one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Its address as a URL for the user `postgres` and the database of this name.
    pub fn url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://{POSTGRES}{password}@{}/{POSTGRES}", self.address())
    }

    /// Runs statements as the superuser, by the socket in the file system and a connection of its own: the rows of all of them.
    ///
    /// # Errors
    /// If it is not reached, or refuses one. Those before it may have been carried out.
    pub fn query(&self, statements: &str) -> io::Result<Vec<Vec<Option<String>>>> {
        self.query_in(POSTGRES, statements)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// The same.
    pub fn query_in(&self, database: &str, statements: &str) -> io::Result<Vec<Vec<Option<String>>>> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        pg_wire::query(stream, POSTGRES, database, statements)
    }

    /// Copies the data while the server is down, to put them back later: a backup.
    ///
    /// # Errors
    /// If it is up.
    pub fn back_up(&self, name: &str) -> io::Result<()> {
        self.must_be_down()?;
        folder::copy(&self.data(), &self.folder.join(&format!("backup-{name}")))
    }

    /// Puts a backup in place of the data while the server is down.
    ///
    /// # Errors
    /// If it is up, or there is no such backup.
    pub fn restore(&self, name: &str) -> io::Result<()> {
        self.must_be_down()?;
        folder::clear_run(&self.data())?;
        fs::remove_dir_all(self.data())?;
        folder::copy(&self.folder.join(&format!("backup-{name}")), &self.data())?;
        folder::clear_run(&self.data())
    }

    fn socket(&self) -> PathBuf {
        self.socket_folder().join(format!(".s.PGSQL.{}", self.port.number()))
    }

    pub(super) fn account(&self) -> Option<Account> {
        self.account
    }

    fn must_be_down(&self) -> io::Result<()> {
        if self.server.processes().is_empty() { Ok(()) } else { Err(io::Error::other("the server is up")) }
    }
}

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn configure(
    options: &PostgresOptions,
    folder: &Folder,
    port: &Port,
    account: Option<Account>,
) -> io::Result<()> {
    let data = folder.join("data");
    let socket = folder.make("socket", account)?;
    let mut settings = fs::File::options().append(true).open(data.join("postgresql.conf"))?;
    writeln!(
        settings,
        "{SETTINGS}port = {}\nunix_socket_directories = '{}'",
        port.number(),
        socket.display()
    )?;
    if let Some(tls) = &options.tls {
        for (from, name) in [
            (&tls.identity.certificate, "server.crt"),
            (&tls.identity.key, "server.key"),
            (&tls.client_ca, "root.crt"),
        ] {
            fs::copy(from, data.join(name))?;
            folder::give(&data.join(name), 0o600, account)?;
        }
        writeln!(settings, "ssl = on\nssl_ca_file = 'root.crt'")?;
    }
    for setting in &options.settings {
        writeln!(settings, "{setting}")?;
    }
    let mut hba = "local all all trust\n".to_owned();
    if !options.hba.is_empty() {
        hba += &options.hba.join("\n");
    } else if options.password.is_some() {
        hba += "host all all 127.0.0.1/32 scram-sha-256";
    } else {
        hba += "host all all 127.0.0.1/32 trust";
    }
    fs::write(data.join("pg_hba.conf"), hba + "\n")
}

/// Data as `initdb` makes them, to be copied: that takes a tenth of the time.
fn template(version: Version, account: Option<Account>) -> io::Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let servers = programs::build_root().join("servers");
    let owner = account.map(|account| account.uid);
    let owner = owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let template = servers.join(format!("template-{}", version.number())).join(owner.to_string());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if template.exists() {
        return Ok(template);
    }
    let folder = Folder::new()?;
    make_data(version, &folder, account)?;
    fs::create_dir_all(&servers)?;
    let draft = servers.join(format!("template-draft-{}", std::process::id()));
    folder::copy(&folder.join("data"), &draft)?;
    fs::create_dir_all(template.parent().unwrap_or(Path::new(".")))?;
    match fs::rename(&draft, &template) {
        // Another process was faster.
        Err(_) if template.exists() => fs::remove_dir_all(&draft)?,
        renamed => renamed?,
    }
    Ok(template)
}

fn make_data(version: Version, folder: &Folder, account: Option<Account>) -> io::Result<()> {
    let data = folder.make("data", account)?;
    let mut command = programs::command(&version.program("initdb")?, account);
    command.args(["-A", "trust", "-U", POSTGRES, "-E", "UTF8", "--locale", "C", "--no-sync", "-D"]);
    // Files of the log that are small make a copy cheap.
    programs::run(command.arg(data).args(["--wal-segsize", "1"]))
}
