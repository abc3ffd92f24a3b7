//! Connections on lines that lose and damage bytes.
//!
//! What a session on a line needs besides that of a reliable link: which frames are under way and which have arrived, those that
//! came ahead of a missing one, and the pieces of a long message. All of it is bounded: frames by their number and length, a message
//! by the longest one that this node takes.

mod input;
mod output;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Router;
use super::conn::{Conn, Framing};
use super::pieces::Arriving;
use crate::config::LineConfig;
use crate::id::ConnId;
use crate::line::{Carried, FRAMES_MAX, LineStats, Receiving, Sending};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::session::Session;
use crate::time::{Duration, Instant};
use crate::timer::{Deadline, Wakeup, earlier};

/// The longest frame that is taken on a line, seal included.
pub(super) const FRAME_MAX: usize = 2048;

/// How long a peer may be silent about what it has had, or about a window that is shut, before it is asked.
const NUDGE: Duration = Duration::from_secs(2);

/// The line of a connection.
#[derive(Debug)]
pub(super) struct Line {
    config: LineConfig,
    /// It waits for a hello as long as it takes.
    patient: bool,
    planted: Planted,
    rng: Rng,
    sending: Sending<Carried, Instant, { FRAMES_MAX as usize }>,
    receiving: Receiving<Instant>,
    /// Bodies of frames that came ahead of a missing one.
    ahead: Vec<(u16, Box<[u8]>)>,
    /// Bodies under way that are no records, by their frames.
    others: VecDeque<(u16, Box<[u8]>)>,
    /// Pages of the directory that are to be sent.
    pages: VecDeque<Box<[u8]>>,
    /// What has arrived of a message in pieces.
    arriving: Arriving,
    /// The number of the next record that comes; 0 before it was said.
    expected: u64,
    /// The number that the peer takes the next record for; 0 before it was told.
    announced: u64,
    /// The last number of which it is known that it has arrived.
    arrived: u64,
    /// A best-effort message goes before the next frame that has to arrive.
    loose_first: bool,
    /// The record of which the next piece is to be sent, and where that begins.
    partial: (u64, u32),
    /// When something was sent last.
    spoke: Option<Instant>,
    /// Only a word of the peer's helps: it has all that was sent, or its window is shut. When it is asked.
    nudge_at: Option<Instant>,
}

impl Line {
    pub(super) fn new(config: LineConfig, patient: bool, planted: Planted, rng: Rng) -> Self {
        Self {
            config,
            patient,
            planted,
            rng,
            sending: Sending::new(Instant::ZERO, config, planted, Carried::Other(0), 0),
            receiving: Receiving::new(planted, 0),
            ahead: Vec::new(),
            others: VecDeque::new(),
            pages: VecDeque::new(),
            arriving: Arriving::default(),
            expected: 0,
            announced: 0,
            arrived: 0,
            loose_first: false,
            partial: (0, 0),
            spoke: None,
            nudge_at: None,
        }
    }

    /// A session begins, in which the peer lets `window` frames be sent and has had everything through `acked`. It may send `own`
    /// itself.
    pub(super) fn begin(&mut self, now: Instant, acked: u64, window: u32, own: u8) {
        let counts = *self.sending.counts_mut();
        let window = window.min(u32::from(FRAMES_MAX)) as u8;
        self.sending = Sending::new(now, self.config, self.planted, Carried::Other(0), window);
        *self.sending.counts_mut() = counts;
        self.receiving = Receiving::new(self.planted, own);
        self.ahead = Vec::new();
        self.others = VecDeque::new();
        self.pages = VecDeque::new();
        self.arriving.drop_begun();
        (self.expected, self.announced, self.arrived, self.partial) = (0, 0, acked, (0, 0));
        self.nudge_at = None;
    }

    /// Bytes of memory that a message in pieces takes which is not whole.
    pub(super) const fn held(&self) -> usize {
        self.arriving.held()
    }

    /// A session on the line.
    pub(super) fn session(&self, session: Session) -> Session {
        session.on_line(self.config, self.patient, self.planted)
    }
}

impl Conn {
    /// Whether it waits for a hello as long as it takes.
    pub(super) fn is_patient(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.patient)
    }

    pub(super) fn handle_line_timeout(&mut self, now: Instant) {
        if let Some(next) = &mut self.next {
            next.handle_timeout(now);
            if next.is_ending() {
                self.next = None;
                self.caller = None;
            }
        }
        let Some(line) = self.line.as_mut().filter(|_| self.session.is_up()) else { return };
        line.sending.handle_timeout(now, &mut line.rng);
        if line.nudge_at.is_some_and(|at| at <= now) {
            line.nudge_at = Some(now + NUDGE);
            self.session.probe();
        }
    }

    /// Whether the line has something to send by now.
    pub(super) fn line_is_due(&self, now: Instant) -> bool {
        let Some(line) = &self.line else { return false };
        // What waited for the line is looked for where it is: marks, and a window that is shut, too.
        let is_ready = self.session.is_up() && line.sending.ready_at(now).is_none();
        is_ready || self.next.as_ref().is_some_and(|next| next.owed(now).is_some())
    }

    pub(super) fn line_deadline(&self, now: Instant) -> Option<Deadline> {
        let line = self.line.as_ref()?;
        let next = self.next.as_ref().and_then(|next| next.deadline(false));
        if !self.session.is_up() {
            return next;
        }
        let at = |at: Option<Instant>, why| at.map(|at| (at, why));
        let ready = line.sending.ready_at(now);
        // What is overdue leaves as soon as the line takes it.
        let ack = line
            .receiving
            .deadline()
            .map(|at| ready.map_or(at, |ready| at.max(ready)))
            .filter(|at| *at > now);
        let wakes = earlier(at(line.sending.deadline(), Wakeup::Retransmit), at(ack, Wakeup::Ack));
        earlier(earlier(next, wakes), earlier(at(ready, Wakeup::Line), at(line.nudge_at, Wakeup::Probe)))
    }
}

impl Router {
    /// A line is there on which the other side says hello. Sessions on it come and go, and the line stays: when
    /// [`poll_close`](Self::poll_close) names the connection, answer with [`handle_closed`](Self::handle_closed) and call this
    /// again, whether the port was closed or not.
    pub fn handle_line(&mut self, now: Instant, config: LineConfig) -> ConnId {
        self.tick(now);
        let nonce = self.rng.next_nonzero();
        let line = self.new_line(config, true);
        let session = line.session(Session::accept(self.now, nonce, self.config.timing));
        let id = self.conns.add(Framing::Cobs, session, Some(Box::new(line)), None, self.now);
        self.turn_away(id);
        id
    }

    pub(super) fn new_line(&mut self, config: LineConfig, patient: bool) -> Line {
        let seed = [self.rng.next(), self.rng.next()];
        Line::new(config, patient, self.config.planted, Rng::new(seed))
    }

    /// What has happened on the line of a connection since it was there.
    pub fn line_stats(&self, id: ConnId) -> Option<LineStats> {
        Some(self.conns.get(id)?.line.as_ref()?.sending.stats())
    }
}
