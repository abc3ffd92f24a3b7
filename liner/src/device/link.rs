//! A device's line to its gateway: dialled or opened, dropped, and begun again.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use liner_mio::{LineUrl, SerialError, SerialPort};
use liner_proto::rng::Rng;
use mio::event::Source as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::clock::Clock;
use crate::event;

/// How long a dialled address may say nothing.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before it is dialled again: at least, and by chance longer by up to as much again.
const RETRY: Duration = Duration::from_millis(100);
/// The same after a minute without success.
const RETRY_LATER: Duration = Duration::from_millis(500);
/// The same for a port, which costs nobody anything: it is found within a quarter of a second after it is back.
const RETRY_PORT_LATER: Duration = Duration::from_millis(120);

/// How long nobody may answer on a line that is open before that is told. A handshake has had its time by then.
const SILENCE: Duration = Duration::from_secs(5);

/// Where a gateway is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// At an address.
    Tcp(String),
    /// At the other end of a serial line.
    Serial(LineUrl),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Serial(url) => f.write_str(url.as_str()),
        }
    }
}

/// The line, in whatever state it is.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    /// What the address stands for and was not dialled since it was looked up.
    candidates: VecDeque<SocketAddr>,
    token: Token,
    state: State,
    rng: Rng,
    has_session: bool,
    /// Since when there has been no session, if there is none.
    away_since: Duration,
    /// There was a session, or it was told why there is none.
    is_told: bool,
    /// When it is told that nobody answers, on a line that is open.
    silent_at: Option<Duration>,
    /// That was told since the last session.
    is_silence_told: bool,
    /// Why it cannot be opened, as it was told the last time.
    trouble: String,
    /// Bytes that the socket has not taken yet.
    pending: Vec<u8>,
    written: usize,
    readable: bool,
    writable: bool,
}

#[derive(Debug)]
enum State {
    Down {
        retry_at: Duration,
    },
    Dialling {
        stream: TcpStream,
        until: Duration,
    },
    /// A port stays open when a session has ended on it; the next one begins on it.
    Resting {
        port: SerialPort,
        until: Duration,
    },
    Up(Stream),
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Serial(SerialPort),
}

impl Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Serial(port) => port.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Serial(port) => port.write(bytes),
        }
    }
}

/// What became of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Up,
    Down,
    /// Nobody has answered yet, or the port cannot be opened. Comes once for each reason.
    Unanswered,
}

impl Link {
    pub(crate) const fn new(place: Place, token: Token, rng: Rng) -> Self {
        Self {
            place,
            candidates: VecDeque::new(),
            token,
            state: State::Down { retry_at: Duration::ZERO },
            rng,
            has_session: false,
            away_since: Duration::ZERO,
            is_told: false,
            silent_at: None,
            is_silence_told: false,
            trouble: String::new(),
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
            State::Dialling { until, .. } | State::Resting { until, .. } => Some(until),
            State::Up(_) => self.silent_at,
        }
    }

    /// Why there is no line, once [`Change::Unanswered`] came.
    pub(crate) fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Dials or opens if it is time, and looks whether a dialled line is there.
    pub(crate) fn advance(&mut self, clock: Clock, registry: &Registry) -> Change {
        let now = clock.elapsed();
        match &self.state {
            State::Down { retry_at } if *retry_at <= now => {
                if let Some(url) = self.port() {
                    return self.open(&url, now, registry);
                }
                if self.candidates.is_empty() {
                    self.look_up();
                }
                self.dial(clock, registry)
            }
            State::Resting { until, .. } if *until <= now => self.come_up(now),
            State::Dialling { stream, until } => match connected(stream) {
                Ok(true) => self.come_up(now),
                Ok(false) if now < *until => Change::None,
                _ => self.dial(clock, registry),
            },
            State::Up(_) if self.silent_at.is_some_and(|at| at <= now) => {
                self.silent_at = None;
                self.is_silence_told = true;
                self.trouble = event::nobody_answers(&self.place.to_string());
                Change::Unanswered
            }
            State::Down { .. } | State::Resting { .. } | State::Up(_) => Change::None,
        }
    }

    /// The line is open, and nobody has answered on it yet.
    fn await_answer(&mut self, now: Duration) {
        if !self.is_silence_told && self.silent_at.is_none() {
            self.silent_at = Some(now + SILENCE);
        }
    }

    fn port(&self) -> Option<LineUrl> {
        match &self.place {
            Place::Serial(url) => Some(url.clone()),
            Place::Tcp(_) => None,
        }
    }

    /// Opens the port, or waits for a while. What keeps it from that is told once, one that is not there only before the first
    /// session.
    fn open(&mut self, url: &LineUrl, now: Duration, registry: &Registry) -> Change {
        let Some(settings) = url.serial() else { return Change::None };
        let opened = SerialPort::open(settings).and_then(|mut port| {
            let interests = Interest::READABLE | Interest::WRITABLE;
            let registered = port.register(registry, self.token, interests);
            let failed = |source| SerialError::Io { path: settings.path.clone(), source };
            registered.map_err(failed).map(|()| port)
        });
        match opened {
            Ok(port) => {
                self.trouble.clear();
                self.state = State::Up(Stream::Serial(port));
                self.set_ready();
                self.await_answer(now);
                Change::Up
            }
            Err(error) => {
                self.drop_line(now);
                let expected = self.is_told && error.is_away();
                self.is_told = true;
                let trouble = event::not_open(&error);
                let is_new = trouble != self.trouble;
                self.trouble = trouble;
                if is_new && !expected { Change::Unanswered } else { Change::None }
            }
        }
    }

    /// The session is up: the next dial is a new story.
    pub(crate) fn set_session(&mut self) {
        self.has_session = true;
        self.is_told = true;
        self.silent_at = None;
        self.is_silence_told = false;
        self.candidates.clear();
    }

    /// The session has ended, and the next one begins after a while: on the same port, or on a new connection.
    pub(crate) fn end_session(&mut self, now: Duration) -> Change {
        match std::mem::replace(&mut self.state, State::Down { retry_at: now }) {
            State::Up(Stream::Serial(port)) => {
                let until = self.rest(now);
                self.state = State::Resting { port, until };
                Change::Down
            }
            State::Up(Stream::Tcp(_)) => {
                self.state = State::Down { retry_at: self.rest(now) };
                Change::Down
            }
            state @ (State::Down { .. } | State::Dialling { .. } | State::Resting { .. }) => {
                self.state = state;
                Change::None
            }
        }
    }

    /// Gives the line up; it is dialled again after a while.
    pub(crate) fn drop_line(&mut self, now: Duration) -> Change {
        let was_up = matches!(self.state, State::Up(_));
        self.state = State::Down { retry_at: self.rest(now) };
        if was_up { Change::Down } else { Change::None }
    }

    /// Until when it is waited before the next try.
    fn rest(&mut self, now: Duration) -> Duration {
        if std::mem::take(&mut self.has_session) {
            self.away_since = now;
        }
        let minute = Duration::from_secs(60);
        let base = match self.place {
            _ if now.saturating_sub(self.away_since) < minute => RETRY,
            Place::Tcp(_) => RETRY_LATER,
            Place::Serial(_) => RETRY_PORT_LATER,
        };
        self.silent_at = None;
        self.pending.clear();
        self.written = 0;
        let jitter = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        now + base + Duration::from_micros(self.rng.below(jitter))
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
        self.trouble = event::nobody_answers(&self.place.to_string());
        if std::mem::replace(&mut self.is_told, true) { Change::None } else { Change::Unanswered }
    }

    /// A number is its own address; a name is looked up, which may take a while, and may stand for several.
    fn look_up(&mut self) {
        if let Place::Tcp(address) = &self.place {
            self.candidates = address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
        }
    }

    fn come_up(&mut self, now: Duration) -> Change {
        let stream = match std::mem::replace(&mut self.state, State::Down { retry_at: now }) {
            State::Dialling { stream, .. } => {
                // Without it small frames wait for each other; the line works all the same.
                let _ = stream.set_nodelay(true);
                Stream::Tcp(stream)
            }
            State::Resting { port, .. } => Stream::Serial(port),
            state @ (State::Down { .. } | State::Up(_)) => {
                self.state = state;
                return Change::None;
            }
        };
        self.state = State::Up(stream);
        self.set_ready();
        self.await_answer(now);
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
        let mut link = Link::new(Place::Tcp("nobody.invalid:1".to_owned()), TOKEN, Rng::new([1, 2]));
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
