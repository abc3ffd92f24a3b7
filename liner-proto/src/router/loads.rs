//! Records that are read back from the store.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::event::Event;
use super::outbox::Key;
use super::{OutboxId, Router};
use crate::effect::{GapReason, Loaded, Queue, StoreFault};
use crate::time::Instant;

/// Loads that may be with the store at a time.
const LOADS_MAX: usize = 4;

/// Records to read back from the store.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    id: u64,
    key: Key,
    after: u64,
}

impl LoadRequest {
    /// The queue.
    pub fn queue(&self) -> Queue<'_> {
        self.key.queue()
    }

    /// Records above this number are wanted.
    pub const fn after(&self) -> u64 {
        self.after
    }
}

/// What is read, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// With the store, by the ids of the requests.
    asked: Vec<(u64, OutboxId)>,
    wanted: VecDeque<OutboxId>,
    /// Queues whose last load failed. They are asked for again one by one, so that they do not keep the others waiting.
    failing: Vec<Failing>,
}

#[derive(Debug)]
struct Failing {
    outbox: OutboxId,
    /// When it is asked for again, if it was not yet.
    retry_at: Option<Instant>,
}

impl Loads {
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failing.iter().filter_map(|failing| failing.retry_at).min()
    }

    /// Whether a queue is being read, or is about to be.
    pub(super) fn is_loading(&self, id: OutboxId) -> bool {
        let is_failing =
            self.failing.iter().any(|failing| failing.outbox == id && failing.retry_at.is_some());
        is_failing || self.wanted.contains(&id) || self.asked.iter().any(|(_, asked)| *asked == id)
    }

    /// Takes the queues that are to be asked for again now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<OutboxId> {
        let is_due = |failing: &&mut Failing| failing.retry_at.is_some_and(|at| at <= now);
        let due = self.failing.iter_mut().filter(is_due);
        due.map(|failing| {
            failing.retry_at = None;
            failing.outbox
        })
        .collect()
    }

    fn fail(&mut self, outbox: OutboxId, retry_at: Instant) {
        self.forget(|id| id == outbox);
        self.failing.push(Failing { outbox, retry_at: Some(retry_at) });
    }

    pub(super) fn forget(&mut self, is_done: impl Fn(OutboxId) -> bool) {
        self.failing.retain(|failing| !is_done(failing.outbox));
    }

    /// Whether anything is being read.
    pub(super) const fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) const fn are_failing(&self) -> bool {
        !self.failing.is_empty()
    }
}

impl Router {
    pub(super) fn want_load(&mut self, id: OutboxId) {
        let loads = &mut self.storage.loads;
        let waits = loads.failing.iter().any(|failing| failing.outbox == id && failing.retry_at.is_some());
        if !waits && !loads.wanted.contains(&id) {
            loads.wanted.push_back(id);
        }
    }

    pub(super) fn next_load(&mut self) -> Option<LoadRequest> {
        if self.storage.loads.asked.len() >= LOADS_MAX {
            return None;
        }
        while let Some(outbox_id) = self.storage.loads.wanted.pop_front() {
            // Before a new epoch is stored the store knows the old numbers only.
            let Some(outbox) = self.outboxes.get_mut(outbox_id.0).filter(|outbox| outbox.may_send()) else {
                continue;
            };
            let crate::delivery::Next::Load { after } = outbox.out.next_piece(u64::MAX - 1, usize::MAX)
            else {
                continue;
            };
            outbox.out.set_loading(true);
            self.storage.last += 1;
            let id = self.storage.last;
            self.storage.loads.asked.push((id, outbox_id));
            return Some(LoadRequest { id, key: outbox.key.clone(), after });
        }
        None
    }

    /// Records were read, or not. `bytes` begins with what [`Loaded::Records`] speaks of.
    pub fn handle_loaded(
        &mut self,
        now: Instant,
        request: &LoadRequest,
        result: Result<Loaded, StoreFault>,
        bytes: &[u8],
    ) {
        self.tick(now);
        let Some(at) = self.storage.loads.asked.iter().position(|(id, _)| *id == request.id) else { return };
        let (_, outbox_id) = self.storage.loads.asked.swap_remove(at);
        self.note_answered();
        let Some(outbox) = self.outboxes.get_mut(outbox_id.0) else { return };
        if !outbox.out.is_loading() {
            // A new epoch has begun since: the numbers are of the old one.
            return self.list_conn_of(outbox_id);
        }
        outbox.out.set_loading(false);
        let next = request.after + 1;
        let gone = outbox.out.gone_through();
        match result {
            Ok(Loaded::Records { first, last, len }) if first == next => {
                let records = bytes.get(..len).unwrap_or_default();
                // Segments grow beyond their capacity rather than refuse a page.
                let _ = outbox.out.handle_loaded(first, last, records);
            }
            Ok(Loaded::Records { first, .. }) => outbox.out.handle_lost(next, first - 1, GapReason::Missing),
            Ok(Loaded::Corrupt { last, .. }) => outbox.out.handle_lost(next, last, GapReason::Corrupt),
            Ok(Loaded::Nothing) => {
                let stored = outbox.out.stored() - 1;
                outbox.out.handle_lost(next, stored, GapReason::Missing);
            }
            Ok(Loaded::TooSmall { .. }) | Err(_) => {
                // A record that found no room is still there: a shell gives as much as the store says.
                let fault = result.err().unwrap_or(StoreFault::Refused);
                let retry_at = self.now + self.config.timing.store_retry;
                self.storage.loads.fail(outbox_id, retry_at);
                return self.tell_failed(fault);
            }
        }
        let lost = outbox.out.gone_through() - gone;
        if lost > 0 {
            let queue = outbox.key.queue().name().into();
            self.events.push(Event::Damaged { queue, count: lost });
        }
        if self.storage.loads.are_failing() {
            self.storage.loads.forget(|id| id == outbox_id);
            self.tell_recovered();
        }
        self.list(outbox_id);
        self.list_conn_of(outbox_id);
    }
}
