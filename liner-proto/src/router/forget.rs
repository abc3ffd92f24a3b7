//! A node that never comes back: an operator has it forgotten.
//!
//! Its rows and its queue leave the store in one group. What was for it alone may go back to its topics first, a part in each group as
//! for any subscriber that is gone; a crash on the way leaves it a subscriber that has the rest of its queue. Should it come back in
//! this life of the node, its new stream begins with a gap in place of what was dropped.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::event::Event;
use super::{Outbox, OutboxId, PeerId, Router, TopicId};
use crate::effect::{Batch, GapReason, StoreOp};
use crate::time::Instant;

/// Names whose dropped messages are remembered.
const NAMES_MAX: usize = 1024;

/// Why a node was not forgotten. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// Nothing is known of a node of this name.
    #[error("no node of this name is known")]
    Unknown,
    /// Its session is up, or about to be: it is there, and would be known again at once.
    #[error("the node is connected: stop it first")]
    Up,
    /// Messages of its queue are on their way to the dead letters.
    #[error("messages for the node are being put aside: try again once the store has them")]
    Busy,
}

/// What becomes of a queue that is being forgotten.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    rerouted: u64,
    dropped: u64,
    /// Topics and addresses of the rows that the store forgets with the queue.
    rows: Vec<(Box<str>, Box<str>)>,
}

impl Forgetting {
    pub(super) fn emit(&self, name: &str, batch: &mut Batch) {
        for (topic, address) in &self.rows {
            batch.push(&StoreOp::Unsubscribe { topic, address, name });
        }
    }

    pub(super) const fn dropped(&mut self, count: u64) {
        self.dropped = count;
    }

    pub(super) const fn count_dropped(&self) -> u64 {
        self.dropped
    }

    /// A message has left the queue.
    pub(super) const fn note(&mut self, rerouted: bool) {
        if rerouted {
            self.rerouted += 1;
        } else {
            self.dropped += 1;
        }
    }
}

/// Messages that were dropped with the streams of nodes that were forgotten.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    dropped: BTreeMap<Box<str>, u64>,
}

impl Router {
    /// Forgets the node `name`, which does not come back: its rows, and its queue. With `reroute` what was queued for it alone returns to
    /// its topics and so to other subscribers: as it is if it was never sent, marked `maybe_redelivered` if it may have been. Copies
    /// of what went to all are dropped, and without `reroute` everything is.
    ///
    /// [`Event::Forgotten`] tells that it is done and stored. A node that comes back before that is not forgotten; one that comes back
    /// later is a new subscriber. How far its own stream to this node was taken is remembered, so that it can repeat nothing.
    ///
    /// # Errors
    /// See [`ForgetError`].
    pub fn forget(&mut self, now: Instant, name: &str, reroute: bool) -> Result<(), ForgetError> {
        self.tick(now);
        let &peer = self.names.get(name).ok_or(ForgetError::Unknown)?;
        let state = self.peers.get(peer.0).ok_or(ForgetError::Unknown)?;
        if state.conn.is_some() || self.is_calling(peer) {
            return Err(ForgetError::Up);
        }
        if let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get(id.0)) {
            if outbox.is_putting_aside() {
                return Err(ForgetError::Busy);
            }
            if outbox.closing || outbox.forgetting.is_some() {
                return Ok(());
            }
        }
        self.forget_whereabouts(peer);
        self.dials.forget_peer(peer);
        self.end_lessons(peer);
        self.untell(peer);
        let mut rows = self.remove_rows(peer, &[]);
        rows.retain(|(_, row)| !row.heard);
        self.add_shared_rows(peer, &mut rows);
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        (state.subscribed, state.durable) = (false, false);
        state.left.extend(rows);
        // Without a queue there is one for as long as it takes to have the store forget it.
        let id = self.outbox_of(peer);
        if let Some(outbox) = self.outboxes.get_mut(id.0) {
            outbox.begin_forgetting(reroute);
            self.list(id);
        }
        if self.outboxes.get(id.0).is_some_and(Outbox::has_to_return) {
            self.storage.returning.push(id);
        } else {
            self.close_forgotten(peer);
        }
        Ok(())
    }

    /// Has the store forget what is left of a node that is being forgotten. Says whether it is one.
    pub(super) fn close_forgotten(&mut self, peer: PeerId) -> bool {
        let Some(state) = self.peers.get_mut(peer.0) else { return false };
        let Some(id) = state.outbox else { return false };
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return false };
        let Some(forgetting) = &mut outbox.forgetting else { return false };
        let left = core::mem::take(&mut state.left);
        let text = |topic: TopicId| Box::from(self.topics.text(topic));
        forgetting.rows.extend(left.iter().map(|(topic, row)| (text(*topic), row.address.clone())));
        outbox.closing = true;
        self.list(id);
        for (topic, row) in left {
            self.stage_hidden(topic, peer, &row.address);
        }
        true
    }

    /// The store has forgotten the queue of a node, and with it what there was of that node.
    pub(super) fn tell_forgotten(&mut self, outbox: &Outbox) {
        let Some(Forgetting { rerouted, dropped, .. }) = outbox.forgetting else { return };
        let name: Box<str> = outbox.key.queue().name().into();
        // One that has another queue by now hears of it there.
        if outbox.peer.is_some() {
            self.remember_dropped(name.clone(), dropped);
        }
        self.events.push(Event::Forgotten { name, rerouted, dropped });
    }

    /// The next stream of a node begins with a gap of so many messages more.
    pub(super) fn remember_dropped(&mut self, name: Box<str>, dropped: u64) {
        if dropped > 0 && self.forgotten.dropped.len() < NAMES_MAX {
            *self.forgotten.dropped.entry(name).or_default() += dropped;
        }
    }

    /// The stream of a node begins. If it was forgotten with messages for it, it hears how many it has missed.
    pub(super) fn begin_with_gap(&mut self, id: OutboxId) {
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        let Some(count) = self.forgotten.dropped.remove(outbox.key.queue().name()) else { return };
        outbox.out.push_gap(count, GapReason::Cleared);
        outbox.out.hold();
        self.list(id);
    }
}
