//! A connection to the server: TCP, TCP with encryption, or a socket in the file system.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
#[cfg(unix)]
use std::os::{
    fd::{AsRawFd as _, RawFd},
    unix::net::UnixStream,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::url::{Place, TlsFiles, Url};

/// Where systems keep the certificates of those whom they trust.
const SYSTEM_CA: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An open connection.
#[derive(Debug)]
pub(crate) enum Link {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file that encryption needs.
    #[error("cannot use {}: {words}", path.display())]
    File { path: PathBuf, words: String },
    /// The server's certificate, or what it says to ours.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

impl Link {
    /// Connects, and makes sure who the server is.
    pub(crate) fn connect(url: &Url) -> Result<Self, LinkError> {
        match &url.place {
            #[cfg(unix)]
            Place::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            #[cfg(not(unix))]
            Place::Unix(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
            Place::Tcp { host, port, tls } => {
                let stream = connect_tcp(host, *port, url.connect_timeout)?;
                stream.set_nodelay(true)?;
                let link = Self::Tcp(stream);
                link.set_patience(url.connect_timeout)?;
                match (link, tls) {
                    (Self::Tcp(stream), Some(files)) => encrypt(stream, host, files),
                    (link, _) => Ok(link),
                }
            }
        }
    }

    /// Has reads and writes return at once.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Tls(stream) => stream.sock.set_nonblocking(true),
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// Its descriptor.
    #[cfg(unix)]
    pub(crate) fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.sock.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// How long one call may wait.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience);
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(patience).and(stream.set_write_timeout(patience)),
            Self::Tls(stream) => {
                stream.sock.set_read_timeout(patience).and(stream.sock.set_write_timeout(patience))
            }
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_read_timeout(patience).and(stream.set_write_timeout(patience)),
        }
    }
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self { stream.flush() } else { Ok(()) }
    }
}

fn connect_tcp(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn encrypt(mut stream: TcpStream, host: &str, files: &TlsFiles) -> Result<Link, LinkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots(files.ca.as_deref())?);
    let config = match &files.identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            config.with_client_auth_cert(chain, key)?
        }
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            // What rustls says about a certificate stands inside the error of the input and output.
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
            return Err(tls.map_or(LinkError::Io(error), LinkError::Tls));
        }
    }
    Ok(Link::Tls(Box::new(StreamOwned::new(connection, stream))))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, LinkError> {
    let system = || SYSTEM_CA.iter().map(Path::new).find(|path| path.exists());
    let path = ca.or_else(system).ok_or_else(|| LinkError::File {
        path: "the system's certificates".into(),
        words: "there are none where they are looked for; name a file with ca=FILE".to_owned(),
    })?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 {
        return Err(unusable(path, &"no certificate in it is of use"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let bytes = fs::read(path).map_err(|error| unusable(path, &error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unusable(path, &"there is no certificate in it")),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, words: &dyn core::fmt::Display) -> LinkError {
    LinkError::File { path: path.to_owned(), words: words.to_string() }
}
