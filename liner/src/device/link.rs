//! A device's TCP line to its gateway: dialled, dropped, dialled again.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use liner_proto::rng::Rng;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::clock::Clock;

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
    /// What the address stands for and was not dialled since it was looked up.
    candidates: VecDeque<SocketAddr>,
    token: Token,
    state: State,
    rng: Rng,
    has_session: bool,
    /// Since when there has been no session, if there is none.
    away_since: Duration,
    /// There was a session, or it was told that nobody answers.
    is_told: bool,
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
    /// Nobody has answered yet. Comes once.
    Unanswered,
}

impl Link {
    pub(crate) const fn new(address: String, token: Token, rng: Rng) -> Self {
        Self {
            address,
            candidates: VecDeque::new(),
            token,
            state: State::Down { retry_at: Duration::ZERO },
            rng,
            has_session: false,
            away_since: Duration::ZERO,
            is_told: false,
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
    pub(crate) fn advance(&mut self, clock: Clock, registry: &Registry) -> Change {
        let now = clock.elapsed();
        match &self.state {
            State::Down { retry_at } if *retry_at <= now => {
                if self.candidates.is_empty() {
                    self.look_up();
                }
                self.dial(clock, registry)
            }
            State::Dialling { stream, until } => match connected(stream) {
                Ok(true) => self.come_up(now),
                Ok(false) if now < *until => Change::None,
                _ => self.dial(clock, registry),
            },
            State::Down { .. } | State::Up(_) => Change::None,
        }
    }

    /// The session is up: the next dial is a new story.
    pub(crate) fn set_session(&mut self) {
        self.has_session = true;
        self.is_told = true;
        self.candidates.clear();
    }

    /// Gives the line up; it is dialled again after a while.
    pub(crate) fn drop_line(&mut self, now: Duration) -> Change {
        let was_up = matches!(self.state, State::Up(_));
        if std::mem::take(&mut self.has_session) {
            self.away_since = now;
        }
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

    /// Dials the next of the addresses that may answer. After the last of them it waits for a while.
    ///
    /// The time is read anew: looking up may have taken long.
    fn dial(&mut self, clock: Clock, registry: &Registry) -> Change {
        while let Some(address) = self.candidates.pop_front() {
            if let Ok(stream) = connect(address, self.token, registry) {
                self.state = State::Dialling { stream, until: clock.elapsed() + CONNECT_PATIENCE };
                return Change::None;
            }
        }
        self.drop_line(clock.elapsed());
        if std::mem::replace(&mut self.is_told, true) { Change::None } else { Change::Unanswered }
    }

    /// A number is its own address; a name is looked up, which may take a while, and may stand for several.
    fn look_up(&mut self) {
        self.candidates = self.address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
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

fn connect(address: SocketAddr, token: Token, registry: &Registry) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::{Events, Poll};

    use super::*;

    const TOKEN: Token = Token(0);
    const MINUTE: Duration = Duration::from_secs(60);

    fn link(candidates: &[SocketAddr]) -> Link {
        let mut link = Link::new("nobody.invalid:1".to_owned(), TOKEN, Rng::new([1, 2]));
        link.candidates = candidates.iter().copied().collect();
        link
    }

    /// An address where nobody listens any more.
    fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Dials until something has become of it.
    fn settle(link: &mut Link) -> Change {
        let (clock, mut poll) = (Clock::start(), Poll::new().unwrap());
        let mut events = Events::with_capacity(4);
        loop {
            let change = link.advance(clock, poll.registry());
            if change != Change::None || matches!(link.state, State::Down { .. }) {
                return change;
            }
            poll.poll(&mut events, Some(CONNECT_PATIENCE)).unwrap();
        }
    }

    fn wait(link: &Link, now: Duration) -> Duration {
        link.deadline().unwrap().checked_sub(now).unwrap()
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut link = link(&[closed(), closed(), listener.local_addr().unwrap()]);
        assert_eq!(settle(&mut link), Change::Up);
    }

    #[test]
    fn an_address_without_a_session_gives_way_to_the_next() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut link = link(&listeners.each_ref().map(|listener| listener.local_addr().unwrap()));
        assert_eq!(settle(&mut link), Change::Up);
        assert_eq!(link.drop_line(Duration::ZERO), Change::Down);
        assert_eq!(link.candidates, [listeners[1].local_addr().unwrap()]);
        link.set_session();
        assert!(link.candidates.is_empty(), "after a session it begins with the first again");
    }

    #[test]
    fn that_nobody_answers_is_told_once() {
        let mut link = link(&[closed()]);
        assert_eq!(settle(&mut link), Change::Unanswered);
        link.state = State::Down { retry_at: Duration::ZERO };
        link.candidates = [closed()].into();
        assert_eq!(settle(&mut link), Change::None);
    }

    #[test]
    fn after_a_long_session_it_is_dialled_again_soon() {
        let mut link = link(&[]);
        link.drop_line(2 * MINUTE);
        assert!(wait(&link, 2 * MINUTE) >= RETRY_LATER);
        link.set_session();
        link.drop_line(9 * MINUTE);
        assert!(wait(&link, 9 * MINUTE) < 2 * RETRY, "{:?}", wait(&link, 9 * MINUTE));
        link.drop_line(10 * MINUTE);
        assert!(wait(&link, 10 * MINUTE) >= RETRY_LATER);
    }
}
