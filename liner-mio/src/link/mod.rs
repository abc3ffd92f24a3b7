//! The node's sockets and ports: listeners, connections that are being made, connections that are there.

mod line;
mod serial;
mod stream;
mod tcp;
mod url;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use liner_proto::id::ConnId;
use liner_proto::router::DialId;
use liner_proto::time::Instant;
use mio::event::Event;
use mio::event::Source as _;
use mio::{Interest, Registry, Token};

pub(crate) use line::Line;
pub use line::{LineEvent, LineState};
pub use serial::{SerialError, SerialPort};
pub(crate) use stream::{Received, Stream, send};
pub(crate) use tcp::{CONNECT_PATIENCE, Finished, Listener, connect, connections_max, keep_alive, source};
pub(crate) use url::Place;
pub use url::{LineUrl, LineUrlError, Parity, SerialSettings};

/// What wakes the loop from another thread.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(crate) state: State,
    /// Which of the node's lines it is, if it is one.
    pub(crate) line: Option<usize>,
    /// Whether the socket may have something to read. mio tells changes only, so this is kept until a read says otherwise.
    pub(crate) readable: bool,
    /// Whether the socket may take bytes, kept likewise.
    pub(crate) writable: bool,
    /// The peer sends no more: what is there is to be read to its end.
    pub(crate) read_closed: bool,
    /// The beginning of a frame that has not arrived whole. Takes memory only while there is one.
    pub(crate) carry: Vec<u8>,
    in_read: bool,
    in_write: bool,
}

/// Whom a connection is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A node.
    Peer(DialId),
    /// The bridge of one of the node's lines.
    Line(usize),
}

impl Target {
    pub(crate) const fn line(self) -> Option<usize> {
        match self {
            Self::Line(line) => Some(line),
            Self::Peer(_) => None,
        }
    }
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum State {
    /// Somebody is being dialled.
    Connecting {
        target: Target,
        /// Addresses to try if this one does not answer.
        rest: VecDeque<SocketAddr>,
        deadline: Instant,
    },
    /// The router knows it.
    Up(ConnId),
}

/// All sockets and ports of a node, and which of them have work.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) lines: Vec<Line>,
    /// Tokens of links begin here.
    first: usize,
    slots: Vec<Option<Link>>,
    free: Vec<usize>,
    by_conn: HashMap<ConnId, usize>,
    /// Links that may have something to read, in the order in which they take their turns.
    reads: VecDeque<usize>,
    /// Links that may have something to write and can take it.
    writes: VecDeque<usize>,
    connecting: usize,
}

impl Links {
    pub(crate) fn new(listeners: Vec<Listener>, lines: Vec<Line>) -> Self {
        Self {
            first: listeners.len(),
            listeners,
            lines,
            slots: Vec::new(),
            free: Vec::new(),
            by_conn: HashMap::new(),
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            connecting: 0,
        }
    }

    /// Takes note of what the operating system says about a socket. Gives the slot if it is of a connection being made.
    pub(crate) fn note(&mut self, event: &Event) -> Option<usize> {
        let Token(token) = event.token();
        if let Some(listener) = self.listeners.get_mut(token) {
            listener.ready = true;
            return None;
        }
        let slot = token.checked_sub(self.first)?;
        let link = self.get_mut(slot)?;
        link.readable |= event.is_readable();
        link.writable |= event.is_writable();
        link.read_closed |= event.is_read_closed() || event.is_error();
        if matches!(link.state, State::Connecting { .. }) {
            return Some(slot);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.list_read(slot);
        }
        if event.is_writable() {
            self.list_write(slot);
        }
        None
    }

    /// Adds a socket or a port and registers it for both directions.
    pub(crate) fn add(
        &mut self,
        registry: &Registry,
        stream: Stream,
        state: State,
        line: Option<usize>,
    ) -> std::io::Result<usize> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let mut link = Link {
            stream,
            state,
            line,
            readable: false,
            writable: false,
            read_closed: false,
            carry: Vec::new(),
            in_read: false,
            in_write: false,
        };
        let interests = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = link.stream.register(registry, Token(self.first + slot), interests) {
            self.free.push(slot);
            return Err(error);
        }
        match link.state {
            State::Connecting { .. } => self.connecting += 1,
            State::Up(conn) => {
                link.writable = true;
                self.by_conn.insert(conn, slot);
            }
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(link);
        }
        Ok(slot)
    }

    /// The dialled address has answered.
    pub(crate) fn connected(&mut self, slot: usize, conn: ConnId) {
        let Some(link) = self.get_mut(slot) else { return };
        link.state = State::Up(conn);
        link.writable = true;
        let readable = link.readable;
        self.connecting = self.connecting.saturating_sub(1);
        self.by_conn.insert(conn, slot);
        if readable {
            self.list_read(slot);
        }
    }

    /// The open line begins anew, as another connection of the router.
    pub(crate) fn renew(&mut self, slot: usize, conn: ConnId) {
        let Some(link) = self.get_mut(slot) else { return };
        if let State::Up(older) = std::mem::replace(&mut link.state, State::Up(conn)) {
            self.by_conn.remove(&older);
        }
        self.by_conn.insert(conn, slot);
        self.list_read(slot);
    }

    /// Forgets a socket or a port, which closes it.
    pub(crate) fn remove(&mut self, registry: &Registry, slot: usize) -> Option<Link> {
        let mut link = self.slots.get_mut(slot)?.take()?;
        // Closing it takes it out of the poll as well; this is for systems where it does not.
        let _ = registry.deregister(&mut link.stream);
        match link.state {
            State::Connecting { .. } => self.connecting = self.connecting.saturating_sub(1),
            State::Up(conn) => {
                self.by_conn.remove(&conn);
            }
        }
        // Entries of the work lists may outlive it: a link that takes the slot later is looked at once in vain.
        self.free.push(slot);
        Some(link)
    }

    /// One of the node's lines.
    pub(crate) fn line_mut(&mut self, line: Option<usize>) -> Option<&mut Line> {
        self.lines.get_mut(line?)
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Link> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The link of a connection that is up.
    pub(crate) fn slot_of(&self, conn: ConnId) -> Option<usize> {
        self.by_conn.get(&conn).copied()
    }

    /// The connection on a line to devices, by the line's place.
    pub(crate) fn conn_of_line(&self, line: usize) -> Option<ConnId> {
        self.slots.iter().flatten().find(|link| link.line == Some(line)).and_then(|link| match link.state {
            State::Up(conn) => Some(conn),
            State::Connecting { .. } => None,
        })
    }

    /// Connections that the router knows.
    pub(crate) fn up(&self) -> usize {
        self.by_conn.len()
    }

    pub(crate) fn list_read(&mut self, slot: usize) {
        if let Some(link) = self.get_mut(slot)
            && !link.in_read
        {
            link.in_read = true;
            self.reads.push_back(slot);
        }
    }

    pub(crate) fn list_write(&mut self, slot: usize) {
        if let Some(link) = self.get_mut(slot)
            && link.writable
            && !link.in_write
        {
            link.in_write = true;
            self.writes.push_back(slot);
        }
    }

    pub(crate) fn next_read(&mut self) -> Option<usize> {
        let slot = self.reads.pop_front()?;
        if let Some(link) = self.get_mut(slot) {
            link.in_read = false;
        }
        Some(slot)
    }

    /// Connections that have something to read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = ConnId> {
        let links = self.reads.iter().filter_map(|slot| self.slots.get(*slot)?.as_ref());
        links.filter_map(|link| match link.state {
            State::Up(conn) if link.in_read => Some(conn),
            State::Up(_) | State::Connecting { .. } => None,
        })
    }

    pub(crate) fn next_write(&mut self) -> Option<usize> {
        let slot = self.writes.pop_front()?;
        if let Some(link) = self.get_mut(slot) {
            link.in_write = false;
        }
        Some(slot)
    }

    pub(crate) fn reads_len(&self) -> usize {
        self.reads.len()
    }

    pub(crate) fn writes_len(&self) -> usize {
        self.writes.len()
    }

    /// Whether somebody waits to be accepted.
    pub(crate) fn accepts(&self, now: Instant) -> bool {
        self.listeners.iter().any(|listener| listener.is_due(now))
    }

    /// Slots of connections being made that took too long.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<usize> {
        if self.connecting == 0 {
            return Vec::new();
        }
        let late = |link: &Link| matches!(link.state, State::Connecting { deadline, .. } if deadline <= now);
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, link)| link.as_ref().is_some_and(late)).map(|(slot, _)| slot).collect()
    }

    /// When the next connection being made has taken too long, or a listener or a line is to be tried again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.retry_at);
        let retries = listeners.chain(self.lines.iter().filter_map(Line::deadline));
        if self.connecting == 0 {
            return retries.min();
        }
        let connects = self.slots.iter().flatten().filter_map(|link| match link.state {
            State::Connecting { deadline, .. } => Some(deadline),
            State::Up(_) => None,
        });
        connects.chain(retries).min()
    }
}
