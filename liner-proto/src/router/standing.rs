//! Whether nodes that are not connected run, and whose turn it is.
//!
//! A store that many share may know of leases: a node that runs renews its own. That is a hint for the choice of a receiver, and for
//! when to dial; who is connected is known better. A row without a lease was written by hand, or by a program that knows of none: its
//! node counts as up until it was dialled in vain.

use super::topics::Row;
use super::{DialId, PeerId, Router, TopicId};

/// Whether a node of a shared directory runs, as its lease says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its lease runs.
    Up,
    /// It has none: its rows were written by hand, or by another program.
    #[default]
    Unleased,
    /// Its lease is over, or was given up.
    Away,
}

/// What speaks for a node that is not connected, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hope {
    /// Its lease runs.
    Runs,
    /// It has no lease, and nobody has missed it.
    Unknown,
    /// Its lease runs, and it was dialled in vain.
    Unreachable,
    /// Its lease is over; or it has none and was dialled in vain.
    Away,
}

impl Router {
    /// The subscriber whose turn it is: among those that are connected, else among those that are most likely to be soon.
    pub(super) fn pick(&mut self, topic: TopicId, except: Option<PeerId>) -> Option<PeerId> {
        let turn = self.topics.next_turn(topic);
        let peers = &self.peers;
        let lives = |conn| self.conns.get(conn).is_some_and(|conn| !conn.session.is_ending());
        let is_up = |peer: PeerId| peers.get(peer.0).and_then(|peer| peer.conn).is_some_and(lives);
        // What this node takes over goes to those that have told it themselves that they take it.
        let may = |row: &&Row| Some(row.peer) != except && (except.is_none() || !row.heard);
        let rows = || self.topics.rows(topic).iter().filter(may).map(|row| row.peer);
        let up = rows().filter(|peer| is_up(*peer)).count();
        if up > 0 {
            return rows().filter(|peer| is_up(*peer)).nth(turn % up);
        }
        let best = rows().map(|peer| self.hope_for(peer)).min()?;
        let likely = || rows().filter(|peer| self.hope_for(*peer) == best);
        likely().nth(turn.checked_rem(likely().count())?)
    }

    fn hope_for(&self, peer: PeerId) -> Hope {
        let is_missed = self.peers.get(peer.0).is_some_and(|state| state.whereabouts.is_missed);
        match (self.standing_of(peer), is_missed) {
            (Standing::Up, false) => Hope::Runs,
            (Standing::Unleased, false) => Hope::Unknown,
            (Standing::Up, true) => Hope::Unreachable,
            (Standing::Away, _) | (Standing::Unleased, true) => Hope::Away,
        }
    }

    /// What the shared directory says of a node's lease.
    pub(super) fn standing_of(&self, peer: PeerId) -> Standing {
        self.peers.get(peer.0).map(|state| self.catalog.standing(&state.name)).unwrap_or_default()
    }

    /// A node was dialled in vain.
    pub(super) fn note_missed(&mut self, dial: DialId) {
        let peer = self.dials.sought(dial).or_else(|| self.dials.peer(dial));
        let state = peer.and_then(|peer| self.peers.get_mut(peer.0));
        if let Some(state) = state.filter(|state| state.conn.is_none()) {
            state.whereabouts.is_missed = true;
        }
    }

    /// The lease of a node has begun to run: it is dialled now, if it is not connected.
    pub(super) fn handle_lease_begun(&mut self, name: &str) {
        let Some(&peer) = self.names.get(name).filter(|_| *name != *self.config.name) else { return };
        let Some(state) = self.peers.get_mut(peer.0).filter(|state| state.conn.is_none()) else { return };
        state.whereabouts.is_missed = false;
        self.dials.hasten(peer, self.now);
        self.seek(peer);
    }
}
