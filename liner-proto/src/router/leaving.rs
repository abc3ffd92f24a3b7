//! Those who stay away: what becomes of their rows, their queues and their names.
//!
//! A peer that is away is looked at after a lease. Its name is forgotten when nothing is left of it: no row in the directory,
//! nothing queued, and no number of its stream that was ever taken. The last is kept for ever, as its node may come back and
//! send again what was committed; a subscriber without a name of its own sends nothing, and leaves nothing.

use alloc::vec::Vec;

use super::event::Event;
use super::forget::Forgetting;
use super::outbox::Opened;
use super::storage::Staged;
use super::{OutboxId, PeerId, Router, Standing, TopicId};
use crate::timer::{Deadline, Wakeup};

impl Router {
    /// The peer has no session any more, or its handshake came to nothing. If it never had more than that, its name is
    /// forgotten at once: whoever connects under one name after another takes no place.
    pub(super) fn leave(&mut self, peer: PeerId) {
        self.close_mailbox(peer);
        self.seek(peer);
        let Some(state) = self.peers.get(peer.0).filter(|state| state.conn.is_none()) else { return };
        let opened = |id: OutboxId| {
            self.outboxes.get(id.0).is_some_and(|outbox| outbox.opened != Opened::No || !outbox.is_spent())
        };
        let speaks = state.whereabouts.is_teller() || self.is_heard_of(peer);
        if speaks
            || !state.has_left_nothing()
            || state.outbox.is_some_and(opened)
            || !self.is_left_alone(peer)
        {
            return self.set_lease(peer);
        }
        self.remove_peer(peer);
    }

    /// The peer is looked at when it has been away for a lease from now.
    pub(super) fn set_lease(&mut self, peer: PeerId) {
        self.clear_lease(peer);
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let at = self.now + self.config.lease;
        state.lease = Some(at);
        self.leases.insert((at, peer));
    }

    pub(super) fn clear_lease(&mut self, peer: PeerId) {
        if let Some(at) = self.peers.get_mut(peer.0).and_then(|state| state.lease.take()) {
            self.leases.remove(&(at, peer));
        }
    }

    pub(super) fn lease_deadline(&self) -> Option<Deadline> {
        self.leases.first().map(|(at, _)| (*at, Wakeup::Lease))
    }

    pub(super) fn check_leases(&mut self) {
        let due = self.leases.iter().take_while(|(at, _)| *at <= self.now).map(|(_, peer)| *peer);
        for peer in due.collect::<Vec<_>>() {
            self.clear_lease(peer);
            let Some(state) = self.peers.get(peer.0).filter(|state| state.conn.is_none()) else { continue };
            let is_given_up = state.subscribed && !state.durable;
            self.end_lessons(peer);
            self.untell(peer);
            if self.is_heard_of(peer) || (is_given_up && self.standing_of(peer) == Standing::Up) {
                // Others are connected to it, or its lease runs.
                self.set_lease(peer);
            } else if is_given_up {
                self.depart(peer);
            } else {
                self.return_or_forget(peer);
            }
        }
    }

    /// A subscriber is gone, and what was queued for it goes where it belongs.
    pub(super) fn depart(&mut self, peer: PeerId) {
        self.give_up(peer);
        self.return_or_forget(peer);
    }

    fn return_or_forget(&mut self, peer: PeerId) {
        let outbox = self.peers.get(peer.0).and_then(|state| state.outbox);
        match outbox.filter(|id| self.outboxes.get(id.0).is_some_and(super::Outbox::has_to_return)) {
            Some(outbox) => self.return_queue(outbox),
            None => self.let_go(peer),
        }
    }

    /// A subscriber without a name of its own that stays away for a lease is gone. What was for it alone returns to its
    /// topic, marked; its copies of what went to all are dropped.
    fn give_up(&mut self, peer: PeerId) {
        let left = self.remove_rows(peer, &[]);
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        state.subscribed = false;
        // The store knows nothing of what others have said.
        state.left.extend(left.into_iter().filter(|(_, row)| !row.heard));
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) else { return };
        let (name, queued) = (state.name.clone(), outbox.out.queued());
        self.events.push(Event::SubscriberGone { name, queued });
        outbox.begin_return();
    }

    fn return_queue(&mut self, outbox: OutboxId) {
        if !self.storage.returning.contains(&outbox) {
            self.storage.returning.push(outbox);
        }
        self.list(outbox);
    }

    /// The session of a peer has begun. If it was given up, and is back before its queue was returned, it takes what it took before,
    /// until it says otherwise.
    pub(super) fn welcome_back(&mut self, peer: PeerId) {
        self.clear_lease(peer);
        self.handle_met(peer);
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        state.inbox = state.about.map(|about| about.inbox);
        let left = core::mem::take(&mut state.left);
        if let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) {
            state.subscribed |= core::mem::take(&mut outbox.return_through) > 0;
            // It has told nothing in this session.
            outbox.unwanted_through = 0;
            // It is back before it was forgotten.
            outbox.forgetting = None;
        }
        for (topic, row) in left {
            self.add_row(topic, peer, &row.address);
            self.storage.stage(Staged::Subscribe { topic, peer });
        }
        self.meet_doubt(peer);
        self.open_mailbox(peer);
    }

    /// Forgets what there is of a peer that has stayed away, as far as nothing is left: its rows if it was given up, its queue
    /// in the store, and then its name. Until the store has forgotten the queue nobody may be told where the stream begins,
    /// and nobody whom it was told may be in a handshake.
    pub(super) fn let_go(&mut self, peer: PeerId) {
        if self.close_mailbox(peer) {
            return self.set_lease(peer);
        }
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if state.conn.is_some() || state.rows > 0 {
            return;
        }
        let outbox = state.outbox.and_then(|id| self.outboxes.get(id.0));
        let (queued, spent) = outbox.map_or((0, true), |outbox| (outbox.out.queued(), outbox.is_spent()));
        if self.is_calling(peer) || (queued == 0 && !spent) {
            // A handshake or the store decides what is next.
            return self.set_lease(peer);
        }
        if self.close_forgotten(peer) {
            return;
        }
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        for (topic, row) in core::mem::take(&mut state.left) {
            self.stage_unsubscribe(topic, peer, row.address);
        }
        if !spent || !self.is_left_alone(peer) {
            return;
        }
        let outbox = self.peers.get(peer.0).and_then(|state| state.outbox);
        match outbox.filter(|id| self.outboxes.get(id.0).is_some_and(|it| it.opened == Opened::Yes)) {
            Some(outbox) => self.close_outbox(outbox),
            None => self.forget_queue(peer),
        }
    }

    /// Nobody names the peer but itself: it has no session, no handshake that was told where its stream begins, and no address
    /// here, where it is the next hop for topics that nobody is known for.
    fn is_left_alone(&self, peer: PeerId) -> bool {
        !self.is_dialled(peer) && !self.is_calling(peer)
    }

    /// Whether somebody who says that he is this peer is in a handshake.
    pub(super) fn is_calling(&self, peer: PeerId) -> bool {
        let Some(state) = self.peers.get(peer.0) else { return false };
        let calls = |caller: &super::conn::Caller| *caller.name == *state.name;
        self.conns.iter().any(|(_, conn)| conn.caller.as_ref().is_some_and(calls))
    }

    // ------------------------------------------------------------------ queues

    /// Has the store forget a queue that is spent. Whoever it is for is not told where its stream begins before that is
    /// done: it begins anew then.
    fn close_outbox(&mut self, id: OutboxId) {
        if let Some(outbox) = self.outboxes.get_mut(id.0) {
            outbox.closing = true;
        }
        self.list(id);
    }

    /// Whether the queue of a peer is being closed.
    pub(super) fn is_closing(&self, peer: PeerId) -> bool {
        let outbox = self.peers.get(peer.0).and_then(|state| self.outboxes.get(state.outbox?.0));
        outbox.is_some_and(|outbox| outbox.closing)
    }

    /// Something is to be queued for a peer, and its queue is being closed: what is new goes to a queue of its own, which the store
    /// opens behind that.
    pub(super) fn leave_closing(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let Some(outbox) = state.outbox.take().and_then(|id| self.outboxes.get_mut(id.0)) else { return };
        outbox.peer = None;
        let dropped = outbox.forgetting.as_ref().map_or(0, Forgetting::count_dropped);
        let name = state.name.clone();
        self.remember_dropped(name, dropped);
    }

    /// The store has forgotten the queue.
    pub(super) fn handle_closed_queue(&mut self, id: OutboxId) {
        match self.outboxes.get(id.0).and_then(|outbox| outbox.peer) {
            Some(peer) => self.forget_queue(peer),
            None => self.remove_outbox(id),
        }
        // A handshake may have waited for that.
        self.conns.list_unfinished();
    }

    /// What was kept for a topic has moved to its heir: the topic is as any other.
    pub(super) fn close_kept(&mut self, topic: TopicId, id: OutboxId) {
        let Some(outbox) = self.outboxes.get(id.0).filter(|outbox| outbox.is_spent()) else { return };
        let is_stored = outbox.opened == Opened::Yes;
        let keeper = self.topics.clear_kept(topic);
        if let Some(state) = keeper.and_then(|peer| self.peers.get_mut(peer.0)) {
            state.kept -= 1;
            // It may fill another topic in its place.
            let mut refused = state.told_full.clone();
            refused.retain(|topic| self.topics.kept(*topic).is_none());
            refused.into_iter().for_each(|topic| self.reopen_topic(topic));
            self.open_windows(|peer, _| Some(peer) == keeper);
        }
        if is_stored { self.close_outbox(id) } else { self.remove_outbox(id) }
    }

    /// Forgets the queue of a peer, and its name with it if that was the last of it.
    fn forget_queue(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if state.has_left_nothing() {
            return self.remove_peer(peer);
        }
        if let Some(outbox) = state.outbox.take() {
            self.remove_outbox(outbox);
        }
    }

    fn remove_peer(&mut self, peer: PeerId) {
        self.clear_lease(peer);
        self.unseek(peer);
        self.untell(peer);
        let Some(state) = self.peers.remove(peer.0) else { return };
        self.names.remove(&state.name);
        self.names_full = false;
        if let Some(outbox) = state.outbox {
            self.remove_outbox(outbox);
        }
    }

    fn remove_outbox(&mut self, id: OutboxId) {
        let Some(mut outbox) = self.outboxes.remove(id.0) else { return };
        self.storage.put_aside -= outbox.drop_aside();
        self.tell_forgotten(&outbox);
        if !outbox.is_moved() {
            self.handed_on_before += outbox.acked_since_start();
        }
    }

    /// Gives back to their topics what was queued for subscribers that are gone.
    pub(super) fn return_queues(&mut self) {
        let mut returned = Vec::new();
        for id in core::mem::take(&mut self.storage.returning) {
            let Some(peer) = self.outboxes.get(id.0).and_then(|outbox| outbox.peer) else { continue };
            // A caller that was told where its stream begins counts, too.
            let connected =
                self.peers.get(peer.0).is_some_and(|state| state.conn.is_some()) || self.is_calling(peer);
            let Some(outbox) = self.outboxes.get_mut(id.0) else { continue };
            let rest = outbox.has_to_return() && !connected;
            // Its trims stay with the rows that were moved until they are committed.
            outbox.returning = rest || outbox.out.owes_trim();
            if outbox.returning {
                self.storage.returning.push(id);
            } else {
                returned.push(peer);
            }
            if rest {
                self.move_queue(id, None);
            }
        }
        for peer in returned {
            self.let_go(peer);
        }
    }
}
