//! TCP: listening, connecting, reading and writing without ever waiting.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use liner_proto::router::{Framing, Transmit};
use liner_proto::time::Instant;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::Link;
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
    pub(crate) fn accept(&mut self, now: Instant) -> Option<TcpStream> {
        self.retry_at = None;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => return Some(stream),
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

/// Begins to connect.
pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(addr)
}

/// Registers a connection for both directions.
pub(super) fn register(stream: &mut TcpStream, registry: &Registry, token: Token) -> io::Result<()> {
    // Batching is done above; a delay here would only add to the round trip. A socket that refuses still works.
    let _ = stream.set_nodelay(true);
    registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
}

/// How an attempt to connect stands.
#[derive(Debug)]
pub(crate) enum Finished {
    NotYet,
    Connected,
    Failed,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes stand at the front of the buffer, those carried over included.
    Bytes(usize),
    Nothing,
    /// The peer has closed, or the link is broken.
    Closed,
}

impl Link {
    /// Whether the connection is there.
    pub(crate) fn finished(&mut self) -> Finished {
        if !matches!(self.stream.take_error(), Ok(None)) {
            return Finished::Failed;
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                let _ = self.stream.set_nodelay(true);
                Finished::Connected
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Finished::NotYet,
            Err(_) => Finished::Failed,
        }
    }

    /// One read into `buffer`, behind what was carried over from the one before. Clears [`readable`](Self::readable) if
    /// there can be no more.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let carried = self.carry.len();
        let Some((front, room)) = buffer.split_at_mut_checked(carried) else { return Received::Closed };
        loop {
            match self.stream.read(room) {
                Ok(0) => return Received::Closed,
                Ok(len) => {
                    front.copy_from_slice(&self.carry);
                    self.carry = Vec::new();
                    // A stream socket that gives less than it could has no more, unless its end is there already.
                    self.readable = len == room.len() || self.read_closed;
                    return Received::Bytes(carried + len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Received::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Received::Closed,
            }
        }
    }
}

/// One write. `Ok(0)`: the socket takes no more now, and [`Link::writable`] was cleared.
///
/// # Errors
/// The link is broken.
pub(crate) fn send(link: &mut Link, bytes: &Transmit<'_>) -> io::Result<usize> {
    let slices = [IoSlice::new(bytes.head), IoSlice::new(bytes.body)];
    loop {
        let sent = match (bytes.head.is_empty(), bytes.body.is_empty()) {
            (true, _) => link.stream.write(bytes.body),
            (_, true) => link.stream.write(bytes.head),
            (false, false) => link.stream.write_vectored(&slices),
        };
        match sent {
            Ok(len) => {
                // Less than was offered: the socket's buffer is full, and its draining will be told.
                if len < bytes.len() {
                    link.writable = false;
                }
                return Ok(len);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                link.writable = false;
                return Ok(0);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
