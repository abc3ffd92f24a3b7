//! What bytes go through: a socket or a port, read and written without ever waiting.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use liner_proto::router::Transmit;
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Link;
use super::serial::SerialPort;
use super::tcp::{self, Finished};

/// A socket or a port.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Serial(SerialPort),
}

impl Stream {
    /// Whether a read or write of less than could be is the end of it for now. A port moves a piece at a time.
    const fn is_whole(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Serial(port) => port.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Serial(port) => port.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Serial(port) => port.write_vectored(slices),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Serial(port) => port.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Serial(port) => port.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Serial(port) => port.deregister(registry),
        }
    }
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
    pub(crate) fn finished(&self) -> Finished {
        match &self.stream {
            Stream::Tcp(stream) => tcp::finished(stream),
            Stream::Serial(_) => Finished::Connected,
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
                    self.readable = len == room.len() || self.read_closed || !self.stream.is_whole();
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

/// One write. `Ok(0)`: the link takes no more now, and [`Link::writable`] was cleared.
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
                if len < bytes.len() && link.stream.is_whole() {
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
