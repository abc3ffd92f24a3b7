//! Windows that are shut: peers that are told in the handshake that they may send nothing, and stay connected.
//!
//! There are three reasons: this node takes no messages at all; a message of the peer would have to be put aside, and there is no room for that; or its earlier sessions
//! brought as much as it may send, and the store has not taken that yet, or the application has not settled it. Without the last one a
//! peer could exceed its window, one session after another.

use super::peer::Peer;
use super::{PeerId, Router};
use crate::id::ConnId;

impl Router {
    /// Whether a peer is to be told that it may send nothing.
    pub(super) fn is_shut(&self, peer: Option<PeerId>) -> bool {
        if !self.config.takes {
            return true;
        }
        let state = peer.and_then(|peer| self.peers.get(peer.0));
        state.is_some_and(|state| state.shut_for.is_some() || self.is_stuffed(state))
            || peer.is_some_and(|peer| self.inbox_lines.is_stuffed(peer, &self.config.limits))
    }

    /// Whether what earlier sessions of a peer brought, and the store may not have yet, is as much as it may send.
    fn is_stuffed(&self, state: &Peer) -> bool {
        let window = u64::from(self.config.limits.window_bytes);
        let is_unstored = self.storage.taken < state.unstored_taken && state.unstored >= window;
        is_unstored || state.receipts.fill(&self.config.limits)
    }

    /// A session of a peer ends: what it brought counts against the next one.
    pub(super) fn note_unstored(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if state.unstored_taken <= self.storage.taken {
            state.unstored = 0;
        }
        state.unstored += state.inbound.held();
        state.unstored_taken = self.taken;
    }

    /// A session begins: the peer has been told what it may send.
    pub(super) fn begin_shut(&mut self, peer: PeerId, conn: ConnId) {
        let told = self.conns.get(conn).is_some_and(|conn| conn.told_shut);
        if !told || !self.is_shut(Some(peer)) {
            return;
        }
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        state.inbound.shut();
        if state.shut_for.is_none() && !self.shut.contains(&peer) {
            self.shut.push(peer);
        }
    }

    /// There is room for what had to be put aside of these peers, or the store has taken something: whoever has no more reason to send
    /// nothing may send again.
    pub(super) fn open_windows(&mut self, has_room: impl Fn(PeerId, &Peer) -> bool) {
        for peer in core::mem::take(&mut self.shut) {
            let Some(state) = self.peers.get_mut(peer.0) else { continue };
            if state.shut_for.is_some() && has_room(peer, state) {
                state.shut_for = None;
            }
            if self.is_shut(Some(peer)) {
                self.shut.push(peer);
                continue;
            }
            let Some(state) = self.peers.get_mut(peer.0) else { continue };
            state.inbound.open();
            if let Some(conn) = state.conn {
                self.conns.list(conn);
            }
        }
    }
}
