//! TCP: listening and connecting without ever waiting.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use liner_proto::router::{Framing, Source};
use liner_proto::time::Instant;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};

use crate::builder::resolve;
use crate::error::BuildError;

/// How long an address may take to answer.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a listener rests after an error that is not the caller's, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A socket that takes connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    pub(crate) addr: SocketAddr,
    pub(crate) framing: Framing,
    /// Whether somebody may be waiting.
    pub(crate) ready: bool,
    pub(crate) retry_at: Option<Instant>,
}

impl Listener {
    /// Listens on the first of the addresses that `addr` stands for and that can be had.
    pub(crate) fn bind(
        addr: &str,
        framing: Framing,
        insecure: bool,
        registry: &Registry,
        token: usize,
    ) -> Result<Self, BuildError> {
        let bad = |source| BuildError::Address { addr: addr.to_owned(), source };
        let mut failed = bad(io::Error::new(ErrorKind::NotFound, "it stands for no address"));
        for addr in resolve(addr).map_err(bad)? {
            if !insecure && !addr.ip().is_loopback() {
                return Err(BuildError::Insecure { addr });
            }
            match Self::open(addr, framing, registry, token) {
                Ok(listener) => return Ok(listener),
                Err(source) if source.kind() == ErrorKind::AddrInUse => {
                    failed = BuildError::AddressInUse { addr }
                }
                Err(source) => failed = BuildError::Listen { addr, source },
            }
        }
        Err(failed)
    }

    fn open(addr: SocketAddr, framing: Framing, registry: &Registry, token: usize) -> io::Result<Self> {
        let mut socket = TcpListener::bind(addr)?;
        let addr = socket.local_addr()?;
        registry.register(&mut socket, Token(token), Interest::READABLE)?;
        Ok(Self { socket, addr, framing, ready: false, retry_at: None })
    }

    /// Whether it is worth asking for a connection.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.ready && self.retry_at.is_none_or(|at| at <= now)
    }

    /// The next connection that waits.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<(TcpStream, SocketAddr)> {
        self.retry_at = None;
        loop {
            match self.socket.accept() {
                Ok((stream, addr)) => {
                    hurry(&stream);
                    return Some((stream, addr));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready = false;
                    return None;
                }
                // The caller gave up meanwhile, or a signal came: the next one may be there.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(_) => {
                    self.retry_at = Some(now + ACCEPT_REST);
                    return None;
                }
            }
        }
    }
}

/// Who has connected, for the bounds of one source: an IPv4 address, or the network of an IPv6 address, of which one machine has
/// as many as it likes.
pub(crate) fn source(addr: SocketAddr) -> Source {
    match addr.ip().to_canonical() {
        IpAddr::V4(addr) => Source(u64::from(addr.to_bits())),
        IpAddr::V6(addr) => Source((addr.to_bits() >> 64) as u64),
    }
}

/// Connections that the process has descriptors for, beside those that the store and others need.
pub(crate) fn connections_max() -> usize {
    const OTHERS: u64 = 64;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OTHERS).max(files / 2)).unwrap_or(usize::MAX)
}

/// Begins to connect.
pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(addr)
}

/// Has the system ask now and then whether the other side is still there. Nothing else would notice that a bridge was switched
/// off while its line is silent.
pub(crate) fn keep_alive(stream: &TcpStream) {
    // A system that refuses keeps the connection all the same.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5));
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
}

/// Batching is done above; a delay here would only add to the round trip. A socket that refuses still works.
fn hurry(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// How an attempt to connect stands.
#[derive(Debug)]
pub(crate) enum Finished {
    NotYet,
    Connected,
    Failed,
}

/// Whether the connection is there.
pub(crate) fn finished(stream: &TcpStream) -> Finished {
    if !matches!(stream.take_error(), Ok(None)) {
        return Finished::Failed;
    }
    match stream.peer_addr() {
        Ok(_) => {
            hurry(stream);
            Finished::Connected
        }
        Err(error) if error.kind() == ErrorKind::NotConnected => Finished::NotYet,
        Err(_) => Finished::Failed,
    }
}
