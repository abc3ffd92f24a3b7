//! A private Redis.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::Tls;
use super::folder::Folder;
use super::port::Port;
use super::programs;
use super::server::{Launch, PATIENCE, Server, on_a_free_port};

const PROGRAM: &str = "/usr/bin/redis-server";
const CLIENT: &str = "/usr/bin/redis-cli";

/// What a Redis is to be. By default it writes every command to its file before it answers, and lets everybody in.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `appendfsync`; none for a Redis that writes nothing.
    pub appendfsync: Option<&'static str>,
    /// The password of the user `default`.
    pub password: Option<String>,
    /// Further users, as `ACL SETUSER` takes them: `alice on >secret ~* +@all`.
    pub users: Vec<String>,
    /// Another port with encryption; the one without stays.
    pub tls: Option<Tls>,
    /// Whether clients have to show a certificate there.
    pub clients: Clients,
    /// Further lines of `redis.conf`: `maxmemory 8mb`.
    pub settings: Vec<String>,
}

/// Whether the clients of a port with encryption show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for one.
    #[default]
    Unasked,
    /// They have to.
    Certified,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            appendfsync: Some("always"),
            password: None,
            users: Vec::new(),
            tls: None,
            clients: Clients::default(),
            settings: Vec::new(),
        }
    }
}

/// A Redis of its own ports, socket and data. What can be done to it as to any server: [`Server`].
#[derive(Debug)]
pub struct Redis {
    // Goes before the folder.
    server: Server,
    port: Port,
    tls_port: Option<Port>,
    password: Option<String>,
    folder: Folder,
}

impl Redis {
    /// Starts one, and returns when it has answered.
    ///
    /// # Errors
    /// If it is not installed or does not start, with what it said.
    pub fn start(options: &RedisOptions) -> io::Result<Self> {
        on_a_free_port(|| {
            let folder = Folder::new()?;
            let port = Port::claim()?;
            let tls_port = options.tls.is_some().then(Port::claim).transpose()?;
            let config = folder.join("redis.conf");
            fs::write(&config, configuration(options, &folder, &port, tls_port.as_ref())?)?;
            let server = Server::start(Launch {
                program: programs::find(Path::new(PROGRAM))?,
                arguments: vec![config.into()],
                account: None,
                ready: "Ready to accept connections",
                end: Signal::TERM,
                log: folder.join("log"),
            })?;
            let redis = Self { server, port, tls_port, password: options.password.clone(), folder };
            redis.command(&["PING"])?;
            Ok(redis)
        })
    }

    /// Where it listens without encryption.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it listens with encryption, if it was asked to.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_port.as_ref().map(Port::address)
    }

    /// Its socket in the file system.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Its data: the append-only file and the dump.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its address as a URL for the user `default`.
    pub fn url(&self) -> String {
        format!("redis://{}{}", self.user(), self.address())
    }

    /// The address with encryption, by the name `localhost`.
    pub fn tls_url(&self) -> Option<String> {
        let port = self.tls_port.as_ref()?;
        Some(format!("rediss://{}localhost:{}", self.user(), port.number()))
    }

    /// One command as the user `default`, by the socket in the file system and a connection of its own.
    ///
    /// # Errors
    /// If it is not reached, or its answer is an error.
    pub fn command(&self, words: &[&str]) -> io::Result<Reply> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        if let Some(password) = &self.password {
            ask(&mut stream, &["AUTH", password])?;
        }
        ask(&mut stream, words)
    }

    /// What a shell prints for a script in which `redis-cli` talks to this server.
    ///
    /// # Errors
    /// If the script fails, or complains, with what it says.
    pub fn shell(&self, script: &str) -> io::Result<String> {
        let programs = self.folder.join("programs");
        fs::create_dir_all(&programs)?;
        let client = programs.join("redis-cli");
        let socket = self.socket();
        fs::write(&client, format!("#!/bin/sh\nexec {CLIENT} -s '{}' \"$@\"\n", socket.display()))?;
        fs::set_permissions(&client, fs::Permissions::from_mode(0o700))?;
        let path = format!("{}:/usr/bin:/bin", programs.display());
        let output = Command::new("/bin/sh").args(["-c", script]).env_clear().env("PATH", path).output()?;
        let [printed, said] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        if output.status.success() && said.is_empty() {
            Ok(printed)
        } else {
            Err(io::Error::other(format!("{script}: {}\n{printed}{said}", output.status)))
        }
    }

    fn user(&self) -> String {
        self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default()
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn configuration(
    options: &RedisOptions,
    folder: &Folder,
    port: &Port,
    tls_port: Option<&Port>,
) -> io::Result<String> {
    let data = folder.make("data", None)?;
    let mut text = format!(
        "bind 127.0.0.1\nport {}\nunixsocket {}\nunixsocketperm 700\ndir {}\nsave \"\"\n",
        port.number(),
        folder.join("socket").display(),
        data.display()
    );
    match options.appendfsync {
        Some(when) => text += &format!("appendonly yes\nappendfsync {when}\n"),
        None => text += "appendonly no\n",
    }
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").map_err(io::Error::other);
    if let Some(password) = &options.password {
        line(format_args!("requirepass {password}"))?;
    }
    for user in &options.users {
        line(format_args!("user {user}"))?;
    }
    if let Some((tls, port)) = options.tls.as_ref().zip(tls_port) {
        line(format_args!("tls-port {}", port.number()))?;
        line(format_args!("tls-cert-file {}", tls.identity.certificate.display()))?;
        line(format_args!("tls-key-file {}", tls.identity.key.display()))?;
        line(format_args!("tls-ca-cert-file {}", tls.client_ca.display()))?;
        let clients = match options.clients {
            Clients::Unasked => "no",
            Clients::Certified => "yes",
        };
        line(format_args!("tls-auth-clients {clients}"))?;
    }
    for setting in &options.settings {
        line(format_args!("{setting}"))?;
    }
    Ok(text)
}

/// An answer of Redis that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Status(String),
    /// A value.
    Bytes(Vec<u8>),
    /// A number.
    Number(i64),
    /// No such value.
    Nil,
    /// Several in a row.
    List(Vec<Self>),
}

fn ask(stream: &mut BufReader<UnixStream>, words: &[&str]) -> io::Result<Reply> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.get_mut().write_all(request.as_bytes())?;
    read_reply(stream)
}

fn read_reply(stream: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("`{line}` is no answer of Redis"));
    let mut rest = line.trim_end().chars();
    let kind = rest.next().ok_or(io::ErrorKind::UnexpectedEof)?;
    let rest = rest.as_str();
    let number = || rest.parse::<i64>().map_err(|_| broken());
    match kind {
        '+' => Ok(Reply::Status(rest.to_owned())),
        '-' => Err(io::Error::other(rest.to_owned())),
        ':' => Ok(Reply::Number(number()?)),
        '$' => {
            let Ok(len) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
            let mut bytes = vec![0; len + 2];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(len);
            Ok(Reply::Bytes(bytes))
        }
        '*' => {
            let Ok(len) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
            (0..len).map(|_| read_reply(stream)).collect::<io::Result<_>>().map(Reply::List)
        }
        _ => Err(broken()),
    }
}
