//! Makes connections: to the servers of a URL one after the other, encrypted as it says.

use core::future::poll_fn;
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_rustls::TlsConnector;

use crate::error::{OpenError, grant, words};
use crate::open::SERVER_MIN;
use crate::tls;
use crate::url::{Host, SslMode, TargetSession, Url};

/// Asks the server for encryption: the message's length, and its number.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

const WRITABLE: &str = "SELECT current_setting('transaction_read_only')";

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to the first server that will do, for the node of this name.
pub(crate) async fn connect(url: &Url, name: &str) -> Result<Client, OpenError> {
    connect_and_hear(url, name, None).await
}

/// The same. `told` is woken when the server says something unasked, and when the connection is lost.
pub(crate) async fn connect_and_hear(
    url: &Url,
    name: &str,
    told: Option<Arc<Notify>>,
) -> Result<Client, OpenError> {
    let mut first = None;
    for host in url.hosts() {
        match connect_to_one(url, host, name, told.clone()).await {
            Ok(client) => return Ok(client),
            // What the first one says is told: the others stand in for it.
            Err(refused) => drop(first.get_or_insert(refused)),
        }
    }
    Err(first.unwrap_or_else(|| OpenError::Url { words: "it names no server".to_owned() }))
}

/// Connects to this server of the URL.
pub(crate) async fn connect_to_one(
    url: &Url,
    host: &Host,
    name: &str,
    told: Option<Arc<Notify>>,
) -> Result<Client, OpenError> {
    let patience = url.connect_timeout();
    let tried = tokio::time::timeout(patience, connect_to(url, host, name, told)).await;
    tried.unwrap_or_else(|_| Err(unreachable(host, &format!("no answer within {} ms", patience.as_millis()))))
}

fn unreachable(host: &Host, words: &str) -> OpenError {
    OpenError::Connect { server: host.to_string(), words: words.to_owned() }
}

async fn connect_to(
    url: &Url,
    host: &Host,
    name: &str,
    told: Option<Arc<Notify>>,
) -> Result<Client, OpenError> {
    let broken = |error: io::Error| unreachable(host, &error.to_string());
    let wire: Box<dyn Wire> = match host {
        // As libpq has it, a socket of this machine is never encrypted.
        Host::Unix(folder, port) => {
            Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await.map_err(broken)?)
        }
        Host::Tcp(address, port) => {
            let stream = dial(address, *port, url.keepalive()).await.map_err(broken)?;
            encrypt(url, host, address, stream).await?
        }
    };
    let mut config = Config::new();
    config.user(url.user()).dbname(url.database());
    config.application_name(url.session_name(name));
    if let Some(options) = url.options() {
        config.options(options);
    }
    let password = url.password().map(str::to_owned).or_else(|| std::env::var("PGPASSWORD").ok());
    if let Some(password) = &password {
        config.password(password);
    }
    let (client, connection) =
        config.connect_raw(wire, NoTls).await.map_err(|error| sorted(url, host, &error))?;
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    let major =
        version.split(|char: char| !char.is_ascii_digit()).next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major: i32| major < SERVER_MIN / 10_000) {
        return Err(OpenError::Old { found: version });
    }
    match told {
        None => drop(tokio::spawn(connection)),
        Some(told) => drop(tokio::spawn(hear(connection, told))),
    }
    if url.target_session() == TargetSession::ReadWrite {
        let rows = client.query_typed(WRITABLE, &[]).await.map_err(|error| sorted(url, host, &error))?;
        if rows.first().and_then(|row| row.try_get::<_, String>(0).ok()).as_deref() != Some("off") {
            return Err(OpenError::Standby { server: host.to_string() });
        }
    }
    Ok(client)
}

/// Drives a connection to its end.
async fn hear<S: Wire, T: Wire>(mut connection: Connection<S, T>, told: Arc<Notify>) {
    while let Some(Ok(said)) = poll_fn(|context| connection.poll_message(context)).await {
        if matches!(said, AsyncMessage::Notification(_)) {
            told.notify_one();
        }
    }
    // Its client knows that it is closed only then.
    drop(connection);
    told.notify_one();
}

async fn dial(host: &str, port: u16, keepalive: Option<Duration>) -> io::Result<TcpStream> {
    // Looked up in this thread: the runtime would start one for it.
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let stream = TcpStream::connect(&*addresses).await?;
    stream.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(stream)
}

async fn encrypt(
    url: &Url,
    host: &Host,
    address: &str,
    mut stream: TcpStream,
) -> Result<Box<dyn Wire>, OpenError> {
    let mode = url.ssl_mode();
    if mode == SslMode::Disable {
        return Ok(Box::new(stream));
    }
    let broken = |error: io::Error| unreachable(host, &error.to_string());
    let config = tls::client_config(url)?;
    stream.write_all(&SSL_REQUEST).await.map_err(broken)?;
    // One byte and no more: what follows it belongs to the handshake.
    let answer = stream.read_u8().await.map_err(broken)?;
    if answer != b'S' {
        return match (answer, mode) {
            (b'N', SslMode::Prefer) => Ok(Box::new(stream)),
            (b'N', _) => Err(OpenError::NoTls { server: host.to_string(), mode: mode.name() }),
            _ => Err(unreachable(host, "what answers there is no PostgreSQL")),
        };
    }
    let failed = |words: String| OpenError::Tls { server: host.to_string(), words };
    let name = ServerName::try_from(address.to_owned());
    let name = name.map_err(|_| failed(format!("{address} is no name that a certificate can have")))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream =
        connector.connect(name, stream).await.map_err(|error| failed(tls::words(&error, address)))?;
    Ok(Box::new(stream))
}

fn sorted(url: &Url, host: &Host, error: &tokio_postgres::Error) -> OpenError {
    let (server, user, words) = (host.to_string(), url.user().to_owned(), words(error));
    let Some(code) = error.code() else {
        if words.contains("password missing") {
            let words = "it wants a password: give one in the URL or in PGPASSWORD".to_owned();
            return OpenError::Refused { server, user, words };
        }
        // With TLS 1.3 a server looks at the client's certificate when the handshake is over for the client.
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            let broken = inner.downcast_ref::<io::Error>();
            if let Some(broken) =
                broken.filter(|broken| broken.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()))
            {
                return OpenError::Tls { server, words: tls::words(broken, "") };
            }
            source = inner.source();
        }
        return OpenError::Connect { server, words };
    };
    let routine = error.as_db_error().and_then(|error| error.routine());
    if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION && routine == Some("InitializeSessionUserId") {
        return OpenError::NoRole { words };
    }
    if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        return OpenError::Refused { server, user, words };
    }
    if *code == SqlState::INVALID_CATALOG_NAME {
        return OpenError::NoDatabase { words };
    }
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return OpenError::Permission { grant: grant(error), words };
    }
    OpenError::Connect { server, words }
}
