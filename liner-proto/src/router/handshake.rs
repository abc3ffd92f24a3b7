//! Who a connection is with, and where the streams go on.

use super::conn::Caller;
use super::event::Event;
use super::limits::record_max;
use super::line::FRAME_MAX as LINE_FRAME_MAX;
use super::{PeerId, Router};
use crate::delivery::Resumed;
use crate::id::{ConnId, Epoch};
use crate::line::FRAMES_MAX;
use crate::seal;
use crate::wire::control::CloseReason;
use crate::wire::data;
use crate::wire::handshake::{About, Assigned, StreamFields};

impl Router {
    fn check_name(&self, name: &str) -> Result<(), CloseReason> {
        if name.is_empty() {
            Err(CloseReason::Violation)
        } else if name == self.config.name {
            Err(CloseReason::NameInUse)
        } else {
            Ok(())
        }
    }

    /// Whether the name is known, or there is room for one more.
    fn check_room(&mut self, name: &str) -> Result<(), CloseReason> {
        let max = self.config.names_max;
        if self.names.len() < max || self.names.contains_key(name) {
            return Ok(());
        }
        if !core::mem::replace(&mut self.names_full, true) {
            self.events.push(Event::NamesFull { max });
        }
        Err(CloseReason::Overloaded)
    }

    pub(super) fn handle_hello(&mut self, id: ConnId, name: &str, about: About) -> Result<(), CloseReason> {
        self.check_name(name)?;
        // As early as this, so that it does not take itself for connected, and dial again at once.
        self.check_connections(id, name)?;
        let fresh = self.fresh_epoch(name);
        let mut epoch = || Epoch(self.rng.next_nonzero());
        let assigned = about.inbox.is_none().then(|| Assigned { outbox: epoch(), inbox: epoch() });
        if let Some(conn) = self.conns.get_mut(id) {
            let (name, told) = (name.into(), Epoch::NONE);
            conn.caller = Some(Caller { name, about, fresh, assigned, told, contest: None });
            // A line has one handshake after another.
            conn.told_shut = false;
        }
        self.challenge(id);
        self.conns.list(id);
        Ok(())
    }

    pub(super) fn handle_answer(
        &mut self,
        id: ConnId,
        name: &str,
        about: About,
        stream: &StreamFields,
    ) -> Result<(), CloseReason> {
        let dial = self.conns.get(id).and_then(|conn| conn.dial);
        if dial.is_some_and(|dial| !self.check_found(dial, name)) {
            return Err(CloseReason::Normal);
        }
        self.check_name(name)?;
        self.check_room(name)?;
        let peer = self.peer_named(name);
        if self.is_closing(peer) {
            // It has stayed away for so long that it is about to be forgotten.
            return Err(CloseReason::Normal);
        }
        if let Some(dial) = dial
            && let Some(other) = self.dials.set_peer(dial, peer)
        {
            self.leave(other);
        }
        if dial.is_some_and(|dial| self.dials.is_named(dial)) {
            // It is found by that.
            self.unseek(peer);
        }
        self.attach(id, peer, about, stream)
    }

    pub(super) fn handle_confirm(&mut self, id: ConnId, stream: &StreamFields) -> Result<(), CloseReason> {
        let may_replace = self.may_replace(id);
        let caller = self.conns.get_mut(id).and_then(|conn| conn.caller.take());
        let Some(caller) = caller else { return Err(CloseReason::Violation) };
        if !may_replace {
            // Another instance has come since the answer left: that one is to be asked first.
            return Err(CloseReason::Normal);
        }
        self.check_room(&caller.name)?;
        self.check_connections(id, &caller.name)?;
        let peer = self.peer_named(&caller.name);
        if self.peers.get(peer.0).is_some_and(|peer| peer.outbox.is_none()) {
            self.make_outbox(peer, caller.fresh);
        }
        let epoch = self
            .peers
            .get(peer.0)
            .and_then(|peer| self.outboxes.get(peer.outbox?.0))
            .map(|outbox| outbox.out.epoch());
        // The stream may have begun, or begun anew, since the answer left.
        let same = epoch == Some(caller.told);
        let attached =
            if same { self.attach(id, peer, caller.about, stream) } else { Err(CloseReason::Normal) };
        if attached.is_err() {
            self.leave(peer);
        }
        attached
    }

    /// Whether `older` is to stay: both sides dialled at the same time, and the smaller name's connection is the one that
    /// both of them keep.
    fn keeps_older(&self, peer: PeerId, older: ConnId, newer: ConnId) -> bool {
        let (Some(older), Some(newer)) = (self.conns.get(older), self.conns.get(newer)) else { return false };
        let Some(state) = self.peers.get(peer.0) else { return false };
        let crossed = older.dial.is_some() != newer.dial.is_some() && older.instance == newer.instance;
        let young = self.now.since(older.began) < self.config.timing.handshake;
        let smaller_is_here = *self.config.name < *state.name;
        crossed && young && older.dial.is_some() == smaller_is_here
    }

    /// Both sides have proved that they take part in this handshake: the streams go on where both say they were.
    fn attach(
        &mut self,
        id: ConnId,
        peer: PeerId,
        about: About,
        stream: &StreamFields,
    ) -> Result<(), CloseReason> {
        if stream.oldest == 0 || stream.next < stream.oldest {
            return Err(CloseReason::Violation);
        }
        if let Some(older) = self.peers.get(peer.0).and_then(|peer| peer.conn)
            && older != id
        {
            if self.keeps_older(peer, older, id) {
                return Err(CloseReason::Replaced);
            }
            // One connection carries both directions; the newer one is the one that works.
            let dialed = self.conns.get(older).is_some_and(|conn| conn.dial.is_some());
            self.peer_down(peer, older, CloseReason::Replaced, dialed);
            if let Some(conn) = self.conns.get_mut(older) {
                conn.peer = None;
            }
            self.conns.close(older, CloseReason::Replaced);
        }
        let outbox_id = self.outbox_of(peer);
        let (Some(outbox), Some(state)) = (self.outboxes.get_mut(outbox_id.0), self.peers.get_mut(peer.0))
        else {
            return Err(CloseReason::Violation);
        };
        let resumed = outbox.out.resume(self.now, stream.known);
        let in_doubt = self.config.in_doubt.of(&state.name);
        if outbox.needs_epoch(resumed, state.has_forgotten(&about), in_doubt) {
            self.rotate_if_possible(outbox_id);
            return Err(CloseReason::Regressed);
        }
        outbox.numbers_max = outbox.numbers_max.min(about.bindings_max as usize);
        let on_line = self.conns.get(id).is_some_and(|conn| conn.line.is_some());
        state.inbound.set_on_line(on_line);
        if let Some((count, reason)) = state.resume(stream, on_line) {
            let from = state.name.clone();
            self.events.push(Event::Gap { from, count, reason });
        }
        state.conn = Some(id);
        state.about = Some(about);
        state.record_max = record_max(&about, on_line);
        let frame_max = if on_line { state.frame_max().min(LINE_FRAME_MAX) } else { state.frame_max() };
        state.loose_max = state.record_max.min(frame_max.saturating_sub(seal::LEN + data::HEAD_LEN_MAX));
        state.messages_limit = outbox.out.acked().saturating_add(u64::from(about.window_messages));
        if on_line {
            // There the window is counted in frames.
            state.messages_limit = u64::MAX;
            let line = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut());
            let (now, acked, own) = (self.now, outbox.out.acked(), state.inbound.frames_window(FRAMES_MAX));
            line.into_iter().for_each(|line| line.begin(now, acked, about.window_messages, own));
        }
        state.bytes_limit = u64::from(about.window_bytes);
        state.bytes_sent = 0;
        state.batch_max = 1;
        state.held = !self.config.accept_weak_acks && !about.acks.satisfies(self.config.class);
        if state.held {
            let (name, acks, class) = (state.name.clone(), about.acks, self.config.class);
            self.events.push(Event::WeakAcks { name, acks, class });
        }
        let name = state.name.clone();
        self.events.push(Event::PeerUp { name, resumed: resumed == Resumed::Continued });
        if let Some(conn) = self.conns.get_mut(id) {
            conn.peer = Some(peer);
        }
        self.challenge_newest();
        self.welcome_back(peer);
        self.begin_shut(peer, id);
        self.take_settled(peer);
        self.list(outbox_id);
        self.list_peer(peer);
        self.conns.list(id);
        Ok(())
    }
}
