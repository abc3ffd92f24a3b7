//! Who may connect: places for connections whose handshake is not finished, and for all connections together.
//!
//! Whoever connects is a stranger until it has proved that it answers to the handshake. Strangers have few places: of too many, one
//! gives way to each new one. It is the oldest of the source that has the most, so that whoever connects from one machine drives away its
//! own connections and not those of others. None gives way before it has had a moment, and nobody is accepted meanwhile: an honest
//! handshake takes less, and a flood of strangers costs the node so many accepts a second and no more.

use alloc::vec::Vec;
use core::time::Duration;

use super::Router;
use super::conn::{Conn, Conns, Framing};
use super::event::Event;
use crate::id::ConnId;
use crate::session::Session;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};
use crate::wire::control::CloseReason;

/// Failed handshakes of strangers that are told each by itself, within [`PAUSE`].
const TOLD_MAX: u64 = 32;

/// How long those beyond are counted before they are told.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a connection comes from: connections from one machine have the same. What a shell makes of it is its own matter; from
/// addresses it makes a number of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(pub u64);

/// What is known of strangers together.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// A session was refused since there was room for one.
    full: bool,
    /// Handshakes that have failed since `since`.
    failed: u64,
    since: Instant,
}

impl Strangers {
    /// A handshake has failed. Gives what is to be told now: strangers can fail faster than anybody listens, and are not to push other
    /// events out.
    pub(super) fn fail(&mut self, now: Instant, dialed: bool, failed: Event) -> Option<Event> {
        if dialed {
            return Some(failed);
        }
        if self.failed <= TOLD_MAX && self.since + PAUSE <= now {
            (self.failed, self.since) = (0, now);
        }
        self.failed += 1;
        (self.failed <= TOLD_MAX).then_some(failed)
    }

    /// What was counted for long enough.
    pub(super) fn told(&mut self, now: Instant) -> Option<Event> {
        let count =
            self.failed.checked_sub(TOLD_MAX).filter(|count| *count > 0 && self.since + PAUSE <= now)?;
        (self.failed, self.since) = (0, now);
        Some(Event::HandshakesFailed { count })
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        (self.failed > TOLD_MAX).then_some((self.since + PAUSE, Wakeup::Report))
    }
}

impl Conn {
    /// Whether the other side has made it, and not finished its handshake.
    fn is_stranger(&self) -> bool {
        self.dial.is_none() && self.peer.is_none() && !self.is_patient()
    }
}

impl Conns {
    /// The stranger that gives way to the next one: the oldest of the source that has the most of them. Nobody if they are not more than
    /// `places`.
    fn surplus(&self, places: usize) -> Option<(ConnId, Instant)> {
        let strangers = self.iter().filter(|(_, conn)| conn.is_stranger());
        let mut strangers: Vec<_> = strangers.map(|(id, conn)| (conn.source, conn.began, id)).collect();
        if strangers.len() <= places {
            return None;
        }
        strangers.sort_unstable_by_key(|&(source, began, id)| (source, began, id.0));
        let sources = strangers.chunk_by(|one, other| one.0 == other.0);
        let crowd =
            sources.max_by_key(|crowd| (crowd.len(), core::cmp::Reverse(crowd.first().map(|it| it.1))));
        crowd?.first().map(|&(_, began, id)| (id, began))
    }

    fn len(&self) -> usize {
        self.iter().count()
    }
}

impl Router {
    /// Somebody has connected to this node. As [`handle_accepted_from`](Self::handle_accepted_from), for links of which nobody knows
    /// where they come from.
    pub fn handle_accepted(&mut self, now: Instant, framing: Framing) -> ConnId {
        self.handle_accepted_from(now, framing, Source::default())
    }

    /// Somebody has connected to this node. It may be one too many: see [`poll_close`](Self::poll_close), also for another one that gives
    /// way to it.
    pub fn handle_accepted_from(&mut self, now: Instant, framing: Framing, source: Source) -> ConnId {
        self.tick(now);
        let nonce = self.rng.next_nonzero();
        let session = Session::accept(self.now, nonce, self.config.timing);
        let (session, line) = self.on_framing(framing, session);
        let id = self.conns.add(framing, session, line, None, self.now);
        self.conns.get_mut(id).into_iter().for_each(|conn| conn.source = source);
        self.turn_away(id);
        let of_source =
            self.conns.iter().filter(|(_, conn)| conn.dial.is_none() && conn.source == source).count();
        if self.config.connections_per_source.is_some_and(|max| of_source > max) {
            self.refuse(id);
        } else if let Some((surplus, _)) = self.conns.surplus(self.stranger_places()) {
            self.refuse(surplus);
        }
        id
    }

    /// From when on somebody who waits may be accepted: before that, the stranger that would give way has had too little time. Whoever
    /// accepts earlier breaks nothing.
    pub fn accept_from(&self) -> Instant {
        let places = self.stranger_places();
        let surplus = self.conns.surplus(places.saturating_sub(1));
        surplus.map_or(Instant::ZERO, |(_, began)| began + self.config.timing.handshake_min)
    }

    fn refuse(&mut self, id: ConnId) {
        self.conns.get_mut(id).into_iter().for_each(|conn| {
            conn.reason.get_or_insert(CloseReason::Overloaded);
        });
        self.conns.finish(id);
    }

    /// Strangers have places beside as many sessions as there may be.
    fn stranger_places(&self) -> usize {
        self.config.strangers_max.clamp(1, (self.config.connections_max / 2).max(1))
    }

    /// Whether there is room for the session of a connection that the other side has made: always, if it takes the place of another one,
    /// or comes over a line that this node has opened.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(super) fn check_connections(&mut self, id: ConnId, name: &str) -> Result<(), CloseReason> {
        if self.conns.get(id).is_none_or(|conn| !conn.is_stranger()) {
            return Ok(());
        }
        let max = self.config.connections_max.saturating_sub(self.stranger_places());
        let peer = self.names.get(name).and_then(|peer| self.peers.get(peer.0));
        let replaces = peer.is_some_and(|peer| peer.conn.is_some());
        let strangers = self.conns.iter().filter(|(_, conn)| conn.is_stranger()).count();
        if replaces || self.conns.len() - strangers < max {
            self.strangers.full = false;
            return Ok(());
        }
        if !core::mem::replace(&mut self.strangers.full, true) {
            self.events.push(Event::ConnectionsFull { max });
        }
        Err(CloseReason::Overloaded)
    }
}
