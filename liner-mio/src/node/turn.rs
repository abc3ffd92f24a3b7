//! One turn of the loop.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use liner_proto::id::ConnId;
use liner_proto::router::{Application, Framing};
use liner_proto::time::Instant;

use super::{EVENTS_MAX, Node, Progress};
use crate::error::DriveError;
use crate::handler::{Counted, Handler};
use crate::link::{
    CONNECT_PATIENCE, Finished, Received, State, Stream, Target, WAKER, connect, keep_alive, send, source,
};

/// Size of the node's one read buffer, and what a turn hands to the router.
const READ_BYTES: usize = 256 * 1024;

/// What a turn writes to one connection, and about what it writes to all of them.
const WRITE_BYTES: usize = 1024 * 1024;

/// What is written to one connection at a time if others wait.
const WRITE_SHARE: usize = 128 * 1024;

/// Connections accepted in a turn, for each listener; of a crowd of strangers one, as messages of others wait meanwhile.
const ACCEPTS_MAX: usize = 16;

/// How often a turn goes from the store to the links and back, as what is read from the store can be written at once.
const ROUNDS_MAX: usize = 8;

/// A deadline that is still past after it was looked at waits for a link that takes no bytes: it is looked at again this
/// much later, as the link's readiness wakes the loop anyway.
const REST: Duration = Duration::from_millis(10);

/// The one buffer that is read into, and what of it the turns before left.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Box<[u8]>,
    /// What is given to the router at a time: the longest frame fits.
    piece: usize,
    left: Option<Left>,
}

/// Bytes of a connection that a turn had no room for.
#[derive(Clone, Copy, Debug)]
struct Left {
    slot: usize,
    conn: ConnId,
    begin: usize,
    end: usize,
}

impl Input {
    pub(super) fn new(frame_max: usize) -> Self {
        // The head of a frame, and what COBS adds to it.
        let piece = frame_max + frame_max / 254 + 8;
        Self { buffer: vec![0; READ_BYTES.max(2 * piece)].into_boxed_slice(), piece, left: None }
    }
}

impl Node {
    /// Does what there is to do, or waits for it for `timeout` at most (without one: for as long as it takes). The work of one
    /// call is bounded; call it again for the rest.
    ///
    /// # Errors
    /// See [`DriveError`]. After [`DriveError::Handler`] the node can be driven on; after the others it cannot.
    pub fn drive(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut dyn Handler,
    ) -> Result<Progress, DriveError> {
        let mut progress = Progress::default();
        let delivered = self.router.delivered();
        self.wait(timeout).map_err(DriveError::Loop)?;
        let now = self.clock.now();
        self.sends_left = 0;
        self.accept(now);
        self.read(now, handler, &mut progress);
        self.check_deadlines(now);
        self.dirty = true;
        if self.deferred_unasked {
            return Err(DriveError::Handler(io::Error::other(
                "it settles messages later, which the node was not built for: use `Builder::settles_later`",
            )));
        }
        if self.unflushed {
            handler.turn_end().map_err(DriveError::Handler)?;
            self.unflushed = false;
        }
        for _ in 0..ROUNDS_MAX {
            let settled = self.stores.settle(&mut self.router, &self.clock)?;
            progress.commits += settled.commits;
            let written = self.write(&mut progress);
            if settled.steps == 0 && written == 0 {
                self.dirty = false;
                break;
            }
            // Who has much to take is not to keep the others from being read.
            if progress.bytes_out >= WRITE_BYTES as u64 {
                break;
            }
        }
        self.close_links();
        self.dial();
        progress.delivered = self.router.delivered() - delivered;
        if progress.bytes_in + progress.bytes_out > 0 {
            self.last_traffic = self.clock.now();
        }
        Ok(progress)
    }

    /// Whether a turn would find work without anything new.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        let held = self.holds_reads();
        self.dirty
            || self.more_events
            || self.links.writes_len() > 0
            || (!held && (self.input.left.is_some() || self.links.reads_len() > 0))
            || self.links.accepts(now)
    }

    /// When the next turn is due, if nothing happens before.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let core = self.router.poll_timeout().map(|(at, _)| at);
        let core = core.map(|at| if at <= self.checked { at.max(self.checked + REST) } else { at });
        let links = self.links.deadline();
        match (core, links) {
            (Some(core), Some(links)) => Some(core.min(links)),
            (at, None) | (None, at) => at,
        }
        .map(|at| at.max(now))
    }

    /// Whether the store has everything.
    pub(crate) fn is_stored(&self) -> bool {
        self.router.is_stored() && self.stores.is_settled()
    }

    pub(super) fn close_listeners(&mut self) {
        self.links.listeners.clear();
    }

    // ------------------------------------------------------------------ waiting

    /// Waits for an event, a deadline or the timeout, and takes note of the events.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let now = self.clock.now();
        let mut limit = match self.deadline(now).map(|at| at.since(now)) {
            Some(due) => Some(timeout.map_or(due, |timeout| timeout.min(due))),
            None => timeout,
        };
        if self.has_work(now) {
            limit = Some(Duration::ZERO);
        }
        if limit != Some(Duration::ZERO) && !self.spin.is_zero() {
            let until = limit.map_or(self.last_traffic + self.spin, |limit| {
                (now + limit).min(self.last_traffic + self.spin)
            });
            while self.clock.now() < until {
                if self.take_events(Some(Duration::ZERO))? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            let spun = self.clock.now().since(now);
            limit = limit.map(|limit| limit.saturating_sub(spun));
        }
        self.take_events(limit).map(|_| ())
    }

    /// Whether there were any.
    fn take_events(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        match self.poll.poll(&mut self.events, limit) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        let mut connecting = Vec::new();
        for event in &self.events {
            if event.token() != WAKER {
                connecting.extend(self.links.note(event));
            }
        }
        for slot in connecting {
            self.check_connecting(slot);
        }
        // There may be more, of which nobody who watches the node for changes would hear again.
        self.more_events = self.events.iter().count() == EVENTS_MAX;
        Ok(!self.events.is_empty())
    }

    fn check_deadlines(&mut self, now: Instant) {
        if self.router.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.note_waiting(now);
            self.router.handle_timeout(now);
            self.checked = now;
        }
        for slot in self.links.overdue(now) {
            self.dial_next(slot);
        }
    }

    /// What has arrived and could not be read, while a commit is waited for, is no silence of those who sent it.
    fn note_waiting(&mut self, now: Instant) {
        if let Some(left) = self.input.left {
            self.router.handle_waiting(now, left.conn);
        }
        for conn in self.links.unread() {
            self.router.handle_waiting(now, conn);
        }
    }

    // ------------------------------------------------------------------ connecting

    /// Takes who waits, a few in a turn, and no faster than those who came before had time for their handshakes.
    fn accept(&mut self, now: Instant) {
        for index in 0..self.links.listeners.len() {
            for accepted in 0..ACCEPTS_MAX {
                let Some(listener) = self.links.listeners.get_mut(index) else { break };
                if !listener.is_due(now) {
                    break;
                }
                let from = self.router.accept_from();
                if from > now {
                    listener.retry_at = Some(from);
                    break;
                }
                let is_crowd = from > Instant::ZERO;
                if is_crowd && accepted > 0 {
                    break;
                }
                let framing = listener.framing;
                let Some((stream, addr)) = listener.accept(now) else { break };
                let conn = self.router.handle_accepted_from(now, framing, source(addr));
                let stream = Stream::Tcp(stream);
                if self.links.add(self.poll.registry(), stream, State::Up(conn), None).is_err() {
                    self.router.handle_closed(now, conn);
                }
                // Of too many strangers one gives way to each new one.
                self.close_links();
            }
        }
    }

    /// Dials and opens what is due, and what was looked up.
    fn dial(&mut self) {
        let now = self.clock.now();
        while let Some(dial) = self.router.poll_dial(now) {
            if let Some((target, addresses)) = self.resolver.ask(Target::Peer(dial.id), dial.address) {
                self.connect(now, target, addresses);
            }
        }
        self.open_lines(now);
        while let Some(found) = self.resolver.take() {
            self.connect_found(now, found);
        }
    }

    /// Tries the addresses in turn until one of them may answer.
    pub(super) fn connect(&mut self, now: Instant, target: Target, mut addresses: VecDeque<SocketAddr>) {
        let line = target.line();
        while let Some(address) = addresses.pop_front() {
            let Ok(stream) = connect(address) else { continue };
            if line.is_some() {
                keep_alive(&stream);
            }
            let deadline = now + CONNECT_PATIENCE;
            let state = State::Connecting { target, rest: addresses.clone(), deadline };
            if self.links.add(self.poll.registry(), Stream::Tcp(stream), state, line).is_ok() {
                return;
            }
        }
        match target {
            Target::Peer(dial) => self.router.handle_dial_failed(now, dial),
            Target::Line(line) => self.line_failed(now, line),
        }
    }

    fn check_connecting(&mut self, slot: usize) {
        let Some(link) = self.links.get_mut(slot) else { return };
        let State::Connecting { target, .. } = link.state else { return };
        match (link.finished(), target) {
            (Finished::NotYet, _) => {}
            (Finished::Connected, Target::Peer(dial)) => {
                let conn = self.router.handle_dialed(self.clock.now(), dial, Framing::Length);
                self.links.connected(slot, conn);
            }
            (Finished::Connected, Target::Line(line)) => {
                self.bridge_connected(self.clock.now(), slot, line);
            }
            (Finished::Failed, _) => self.dial_next(slot),
        }
    }

    /// The address did not answer: the next one that the name stands for is tried.
    fn dial_next(&mut self, slot: usize) {
        let Some(link) = self.links.remove(self.poll.registry(), slot) else { return };
        if let State::Connecting { target, rest, .. } = link.state {
            self.connect(self.clock.now(), target, rest);
        }
    }

    /// The link is broken, or is closed.
    fn drop_link(&mut self, now: Instant, slot: usize, conn: ConnId) {
        self.keep_line_stats(slot, conn);
        let link = self.links.remove(self.poll.registry(), slot);
        self.router.handle_closed(now, conn);
        if let Some(line) = link.and_then(|link| link.line) {
            self.line_failed(now, line);
        }
    }

    // ------------------------------------------------------------------ reading

    /// Whether the handler is not given more for now: it has had what a commit has to follow, or could not keep what it has.
    fn holds_reads(&self) -> bool {
        self.unflushed || self.stores.turn_rest().is_none()
    }

    fn read(&mut self, now: Instant, handler: &mut dyn Handler, progress: &mut Progress) {
        let Some(rest) = self.stores.turn_rest().filter(|_| !self.unflushed) else { return };
        let mut application = Counted::new(handler, rest);
        let mut bytes = 0;
        if let Some(left) = self.input.left.take() {
            bytes += left.end - left.begin;
            self.process(now, left, &mut application);
        }
        let mut turns = self.links.reads_len();
        while turns > 0 && bytes < READ_BYTES && !application.is_full() && self.input.left.is_none() {
            turns -= 1;
            bytes += self.read_link(now, &mut application, progress);
        }
        let (handed, deferred) = (application.handed, application.deferred);
        progress.messages += handed.messages + deferred;
        self.stores.note_handled(handed);
        self.unflushed |= handed.messages > 0;
        self.deferred_unasked |= deferred > 0 && !self.settles_later;
    }

    /// One read from the link whose turn it is. Gives the bytes.
    fn read_link(&mut self, now: Instant, application: &mut Counted<'_>, progress: &mut Progress) -> usize {
        let Some(slot) = self.links.next_read() else { return 0 };
        let others = self.links.reads_len() > 0;
        let Some(link) = self.links.get_mut(slot) else { return 0 };
        let State::Up(conn) = link.state else { return 0 };
        let carried = link.carry.len();
        // If others wait, a link is given room for one frame: what one turn takes is not to be of one loud peer.
        let room = if others { self.input.piece.max(2 * carried) } else { usize::MAX };
        let room = room.min(self.input.buffer.len());
        let received = link.receive(self.input.buffer.get_mut(..room).unwrap_or_default());
        let (again, line) = (link.readable, link.line);
        match received {
            Received::Nothing => 0,
            Received::Closed => {
                self.drop_link(now, slot, conn);
                0
            }
            Received::Bytes(end) => {
                progress.bytes_in += (end - carried) as u64;
                if again {
                    self.links.list_read(slot);
                }
                self.process(now, Left { slot, conn, begin: 0, end }, application);
                self.note_heard(line, conn);
                end
            }
        }
    }

    /// Gives bytes to the router, frame by frame, until they are used up or the turn has had its messages.
    fn process(&mut self, now: Instant, mut left: Left, application: &mut Counted<'_>) {
        while left.begin < left.end && !application.is_full() {
            let until = left.end.min(left.begin + self.input.piece);
            let Some(bytes) = self.input.buffer.get_mut(left.begin..until) else { return };
            let taken = self.router.handle_bytes(now, left.conn, bytes, application);
            left.begin += taken;
            if taken > 0 {
                continue;
            }
            if let Some(link) = self.links.get_mut(left.slot) {
                link.carry = self.input.buffer.get(left.begin..left.end).unwrap_or_default().to_vec();
            }
            return;
        }
        if left.begin < left.end {
            self.input.left = Some(left);
        }
    }

    // ------------------------------------------------------------------ writing, closing

    /// Writes what the router has for every link that takes it. Gives the bytes.
    fn write(&mut self, progress: &mut Progress) -> usize {
        while let Some(conn) = self.router.poll_writable() {
            if let Some(slot) = self.links.slot_of(conn) {
                self.links.list_write(slot);
            }
        }
        let now = self.clock.now();
        let before = progress.bytes_out;
        for _ in 0..self.links.writes_len() {
            let Some(slot) = self.links.next_write() else { break };
            self.write_link(now, slot, progress);
        }
        (progress.bytes_out - before) as usize
    }

    fn write_link(&mut self, now: Instant, slot: usize, progress: &mut Progress) {
        let others = self.links.writes_len() > 0;
        let Some(link) = self.links.get_mut(slot) else { return };
        let State::Up(conn) = link.state else { return };
        let mut budget = if others { WRITE_SHARE } else { WRITE_BYTES };
        while link.writable {
            let transmit = self.router.poll_transmit(now, conn);
            if transmit.is_empty() {
                return;
            }
            let Ok(sent) = send(link, &transmit) else {
                self.drop_link(now, slot, conn);
                return;
            };
            self.router.handle_written(now, conn, sent);
            progress.bytes_out += sent as u64;
            budget = budget.saturating_sub(sent);
            if budget == 0 {
                self.links.list_write(slot);
                return;
            }
        }
    }

    /// Closes what the router has done with.
    fn close_links(&mut self) {
        while let Some(conn) = self.router.poll_close() {
            let now = self.clock.now();
            match self.links.slot_of(conn) {
                Some(slot) if self.renew_line(now, slot) => {
                    self.keep_line_stats(slot, conn);
                    self.router.handle_closed(now, conn);
                }
                Some(slot) => self.drop_link(now, slot, conn),
                None => self.router.handle_closed(now, conn),
            }
            // What follows from it, such as a write that the link made urgent, is for the next turn.
            self.dirty = true;
        }
    }
}
