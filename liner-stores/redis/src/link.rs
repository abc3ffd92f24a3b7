//! What the library is told of a server: where it is, and by what both sides know each other. And what it says of failures.

use core::error::Error;
use core::time::Duration;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates,
};

use crate::url::{Place, TlsFiles, Url};

/// A connection on which nothing comes for so long is looked at, and so long again after that.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(5)];

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "PRIVATE KEY-----";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Files that encryption needs.
    #[error("{0}")]
    File(String),
    /// The server's certificate, or what it says to ours.
    #[error("{0}")]
    Tls(rustls::Error),
}

/// What connects to the server. The login and the database are for whoever has the connection.
pub(crate) fn client(url: &Url) -> Result<redis::Client, LinkError> {
    build(url, RedisConnectionInfo::default().set_skip_set_lib_name())
}

/// The same for notices, which are no replies: with the third version of the protocol, and with the login, which belongs to its greeting.
pub(crate) fn notified(url: &Url) -> Result<redis::Client, LinkError> {
    let mut greeting =
        RedisConnectionInfo::default().set_skip_set_lib_name().set_protocol(ProtocolVersion::RESP3);
    if let Some(password) = &url.password {
        greeting = greeting.set_password(password);
        if let Some(user) = &url.user {
            greeting = greeting.set_username(user);
        }
    }
    build(url, greeting)
}

fn build(url: &Url, greeting: RedisConnectionInfo) -> Result<redis::Client, LinkError> {
    let (address, files) = match &url.place {
        Place::Unix(path) => (ConnectionAddr::Unix(path.clone()), None),
        Place::Tcp { host, port, tls: None } => (ConnectionAddr::Tcp(host.clone(), *port), None),
        Place::Tcp { host, port, tls: Some(files) } => {
            let address =
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None };
            (address, Some(files))
        }
    };
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE[0]).with_interval(KEEPALIVE[1]);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    let info = address.into_connection_info().map_err(LinkError::of)?;
    let info = info.set_tcp_settings(settings).set_redis_settings(greeting);
    match files {
        None => redis::Client::open(info).map_err(LinkError::of),
        Some(files) => {
            // Whoever else has chosen one in this process may keep it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            redis::Client::build_with_tls(info, certificates(files)?).map_err(|error| {
                LinkError::File(format!("the files of ca, cert or key are of no use: {error}"))
            })
        }
    }
}

fn certificates(files: &TlsFiles) -> Result<TlsCertificates, LinkError> {
    let root_cert = files.ca.as_deref().map(|ca| read(ca, CERTIFICATE)).transpose()?;
    let client_tls = match &files.identity {
        None => None,
        Some((cert, key)) => {
            Some(ClientTlsConfig { client_cert: read(cert, CERTIFICATE)?, client_key: read(key, KEY)? })
        }
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

/// Reads a file that is to hold such a thing.
fn read(path: &Path, what: &str) -> Result<Vec<u8>, LinkError> {
    let unusable = |words: String| LinkError::File(format!("cannot use {}: {words}", path.display()));
    let bytes = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    if bytes.windows(what.len()).any(|window| window == what.as_bytes()) {
        return Ok(bytes);
    }
    let what = what.trim_matches('-').trim_start_matches("BEGIN ").to_lowercase();
    Err(unusable(format!("there is no {what} in it (as PEM)")))
}

impl LinkError {
    /// Sorts what the library says while it connects.
    pub(crate) fn of(error: RedisError) -> Self {
        if error.kind() == ErrorKind::InvalidClientConfig {
            return Self::File(error.detail().map_or_else(|| error.to_string(), str::to_owned));
        }
        match tls_error(&error) {
            Some(error) => Self::Tls(error),
            None => Self::Io(io_error(error)),
        }
    }
}

/// What stands inside an error of the library.
fn inner<E: Error + 'static>(error: &RedisError) -> Option<&E> {
    error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?.downcast_ref()
}

/// What rustls says about a certificate stands inside the error of the input and output.
pub(crate) fn tls_error(error: &RedisError) -> Option<rustls::Error> {
    let direct = inner::<rustls::Error>(error);
    let nested = || inner::<io::Error>(error)?.get_ref()?.downcast_ref();
    direct.or_else(nested).cloned()
}

/// The failure of a connection, with the system's kind.
pub(crate) fn io_error(error: RedisError) -> io::Error {
    if error.is_timeout() {
        return io::Error::new(io::ErrorKind::TimedOut, "the server does not answer in time");
    }
    // The library says at which byte, in several lines.
    if error.kind() == ErrorKind::Parse {
        return io::Error::new(
            io::ErrorKind::InvalidData,
            "what listens there does not speak as a Redis does",
        );
    }
    let kind = inner::<io::Error>(&error).map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, error)
}
