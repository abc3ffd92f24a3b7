//! A store that is away, since it cannot be reached or does not answer, and one that is full.
//!
//! Nothing changes for peers: their links stay up, what they send is not acknowledged before it is stored, and so their windows close.
//! What the application sends is refused meanwhile, as nobody knows for how long it would have to stay in memory. What was sent before
//! is asked for again and again, as after any fault.

use super::event::Event;
use super::{Router, SendError};
use crate::effect::StoreFault;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};

/// Whether the store is away.
#[derive(Debug, Default)]
pub(super) struct Absence {
    /// The latest batch has failed, as the store could not be reached.
    is_unreachable: bool,
    /// The latest batch with something new has failed, as there was no room.
    is_full: bool,
    /// An answer is late.
    is_silent: bool,
    /// Since when nothing was answered that was asked.
    asked: Option<Instant>,
}

impl Absence {
    pub(super) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    pub(super) fn handle_failed(&mut self, fault: StoreFault) {
        self.is_unreachable = fault == StoreFault::Unavailable;
        self.is_full |= fault == StoreFault::Full;
    }

    /// Room for acknowledgements is none for anything new.
    pub(super) const fn handle_committed(&mut self, has_data: bool) {
        self.is_unreachable = false;
        self.is_full &= !has_data;
    }

    /// There is nothing that could be tried with the store: the next send finds out how it is.
    pub(super) const fn handle_nothing_owed(&mut self) {
        self.is_unreachable = false;
        self.is_full = false;
    }
}

impl Router {
    /// Whether the store is away: its latest batch has failed as it could not be reached, or it does not answer. Messages that have to be
    /// stored are refused meanwhile ([`SendError::Unavailable`]).
    pub const fn is_store_away(&self) -> bool {
        self.storage.absence.is_unreachable || self.storage.absence.is_silent
    }

    /// Whether the store has had no room for what it was to store last, and has that yet to store. Messages that have to be stored are
    /// refused meanwhile ([`SendError::StoreFull`]); acknowledgements go on.
    pub const fn is_store_full(&self) -> bool {
        self.storage.absence.is_full
    }

    /// Why nothing is taken that has to be stored, if nothing is.
    pub const fn store_refusal(&self) -> Option<SendError> {
        match (self.is_store_away(), self.is_store_full()) {
            (true, _) => Some(SendError::Unavailable),
            (false, true) => Some(SendError::StoreFull),
            (false, false) => None,
        }
    }

    /// The shell knows that the store will not answer soon what it was asked: it has lost it. Nobody need say so: without an answer within
    /// [`NodeConfig::store_patience`](super::NodeConfig::store_patience) the store counts as away.
    pub fn handle_store_away(&mut self, now: Instant) {
        self.tick(now);
        if self.waits_for_store() {
            self.miss_store();
        }
    }

    /// The store has failed. That is told once, until everything that it failed at has succeeded.
    pub(super) fn tell_failed(&mut self, fault: StoreFault) {
        if !core::mem::replace(&mut self.storage.told_failed, true) {
            self.events.push(Event::StoreFailed(fault));
        }
    }

    pub(super) fn tell_recovered(&mut self) {
        let outboxes = &self.outboxes;
        self.storage.loads.forget(|id| outboxes.get(id.0).is_none_or(|outbox| outbox.out.queued() == 0));
        if self.storage.works() && core::mem::take(&mut self.storage.told_failed) {
            self.events.push(Event::StoreRecovered);
        }
    }

    fn miss_store(&mut self) {
        self.storage.absence.is_silent = true;
        self.tell_failed(StoreFault::Unavailable);
    }

    /// Whether something was asked of the store that it has not answered.
    fn waits_for_store(&self) -> bool {
        let reads = self.storage.loads.are_asked() || self.inbox_lines.is_asked() || self.catalog.is_asked();
        reads || !self.storage.is_settled()
    }

    /// Something may have been asked of the store.
    pub(super) fn note_asked(&mut self, is_asked: bool) {
        if is_asked {
            self.storage.absence.asked.get_or_insert(self.now);
        }
    }

    /// The store has answered something: what else it was asked it has had no time for.
    pub(super) fn note_answered(&mut self) {
        self.storage.absence.asked = self.waits_for_store().then_some(self.now);
        if core::mem::take(&mut self.storage.absence.is_silent) {
            self.tell_recovered();
        }
    }

    fn silence(&self) -> Option<Instant> {
        let absence = &self.storage.absence;
        absence.asked.filter(|_| !absence.is_silent).map(|at| at + self.config.store_patience)
    }

    pub(super) fn silence_deadline(&self) -> Option<Deadline> {
        self.silence().map(|at| (at, Wakeup::StoreRetry))
    }

    pub(super) fn check_silence(&mut self) {
        if self.silence().is_some_and(|at| at <= self.now) {
            self.miss_store();
        }
    }
}
