//! A device's TCP line to its gateway: dialled, dropped, dialled again.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use liner_proto::rng::Rng;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// How long a dialled address may say nothing.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before it is dialled again: at least, and by chance longer by up to as much again.
const RETRY: Duration = Duration::from_millis(100);
/// The same after a minute without success.
const RETRY_LATER: Duration = Duration::from_millis(500);

/// The line, in whatever state it is.
#[derive(Debug)]
pub(crate) struct Link {
    address: String,
    token: Token,
    state: State,
    rng: Rng,
    /// Since when there has been no session.
    away_since: Duration,
    /// Bytes that the socket has not taken yet.
    pending: Vec<u8>,
    written: usize,
    readable: bool,
    writable: bool,
}

#[derive(Debug)]
enum State {
    Down { retry_at: Duration },
    Dialling { stream: TcpStream, until: Duration },
    Up(TcpStream),
}

/// What became of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Up,
    Down,
}

impl Link {
    pub(crate) const fn new(address: String, token: Token, rng: Rng) -> Self {
        Self {
            address,
            token,
            state: State::Down { retry_at: Duration::ZERO },
            rng,
            away_since: Duration::ZERO,
            pending: Vec::new(),
            written: 0,
            readable: false,
            writable: false,
        }
    }

    pub(crate) const fn token(&self) -> Token {
        self.token
    }

    /// The poll has something to say about it.
    pub(crate) const fn set_ready(&mut self) {
        self.readable = true;
        self.writable = true;
    }

    /// When there is something to do although nothing happened.
    pub(crate) const fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Down { retry_at } => Some(retry_at),
            State::Dialling { until, .. } => Some(until),
            State::Up(_) => None,
        }
    }

    /// Dials if it is time, and looks whether a dialled line is there.
    pub(crate) fn advance(&mut self, now: Duration, registry: &Registry) -> Change {
        match &self.state {
            State::Down { retry_at } if *retry_at <= now => match self.dial(registry) {
                Ok(stream) => {
                    self.state = State::Dialling { stream, until: now + CONNECT_PATIENCE };
                    Change::None
                }
                Err(_) => self.drop_line(now),
            },
            State::Dialling { stream, until } => match connected(stream) {
                Ok(true) => self.come_up(now),
                Ok(false) if now < *until => Change::None,
                _ => self.drop_line(now),
            },
            State::Down { .. } | State::Up(_) => Change::None,
        }
    }

    /// The session is up: the next dial is a new story.
    pub(crate) const fn set_session(&mut self, now: Duration) {
        self.away_since = now;
    }

    /// Gives the line up; it is dialled again after a while.
    pub(crate) fn drop_line(&mut self, now: Duration) -> Change {
        let was_up = matches!(self.state, State::Up(_));
        let minute = Duration::from_secs(60);
        let base = if now.saturating_sub(self.away_since) < minute { RETRY } else { RETRY_LATER };
        let jitter = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let retry_at = now + base + Duration::from_micros(self.rng.below(jitter));
        self.state = State::Down { retry_at };
        self.pending.clear();
        self.written = 0;
        if was_up { Change::Down } else { Change::None }
    }

    /// Reads what is there. Nothing says that there is no more for now.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let State::Up(stream) = &mut self.state else { return Ok(None) };
        if !self.readable {
            return Ok(None);
        }
        loop {
            match stream.read(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => return Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what the socket takes, and asks `more` for bytes as long as it takes all; `more` returns 0 when it has none.
    pub(crate) fn write(
        &mut self,
        mut more: impl FnMut(&mut [u8]) -> usize,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let State::Up(stream) = &mut self.state else { return Ok(()) };
        while self.writable {
            if self.pending.is_empty() {
                let len = more(buffer);
                if len == 0 {
                    return Ok(());
                }
                self.pending.extend_from_slice(buffer.get(..len).unwrap_or_default());
            }
            match stream.write(self.pending.get(self.written..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
            if self.written == self.pending.len() {
                self.pending.clear();
                self.written = 0;
            }
        }
        Ok(())
    }

    fn dial(&self, registry: &Registry) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.resolve()?)?;
        registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// A number is its own address; a name is looked up, which may take a while.
    fn resolve(&self) -> io::Result<SocketAddr> {
        let found = self.address.to_socket_addrs()?.next();
        found.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn come_up(&mut self, now: Duration) -> Change {
        let State::Dialling { stream, .. } =
            std::mem::replace(&mut self.state, State::Down { retry_at: now })
        else {
            return Change::None;
        };
        // Without it small frames wait for each other; the line works all the same.
        let _ = stream.set_nodelay(true);
        self.state = State::Up(stream);
        self.set_ready();
        Change::Up
    }
}

fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
