//! What a device asks of its store.

use super::Endpoint;
use crate::delivery::Emission;
use crate::effect::{GapReason, Loaded, Queue, StoreFault, StoreOp};
use crate::id::{Epoch, Predecessor};
use crate::time::Instant;

/// A device has one queue and one peer: they need no name.
const QUEUE_KEY: Queue<'static> = Queue::Node("");

#[derive(Debug)]
pub(super) struct State {
    pub(super) regressed: bool,
    pub(super) opened: bool,
    pub(super) rotation: Option<(Epoch, Predecessor)>,
    pub(super) rotate_wanted: bool,
    pub(super) load: Option<u64>,
    pub(super) inbox_stored: bool,
    /// Names the request that is out; counted up when it is answered.
    id: u64,
    asked: Asked,
}

#[derive(Debug, Default)]
struct Asked {
    inbox: bool,
    open: bool,
    rotation: bool,
}

impl State {
    pub(super) const NEW: Self = Self {
        regressed: false,
        opened: false,
        rotation: None,
        rotate_wanted: false,
        load: None,
        inbox_stored: false,
        id: 1,
        asked: Asked { inbox: false, open: false, rotation: false },
    };
}

/// The two kinds of requests. A device makes room before it asks for room: what frees comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Trims, drops and cursors, which succeed in a full store.
    Free,
    /// Everything that may need room.
    Fill,
}

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> Endpoint<'_, QUEUE, FRAME, MESSAGE> {
    /// The next request of a step. Execute each as a group of its own, commit, and answer with
    /// [`handle_stored`](Self::handle_stored) before asking for another.
    pub fn poll_store(&mut self, step: Step) -> Option<StoreOp<'_>> {
        match step {
            Step::Free => self.poll_free(),
            Step::Fill => self.poll_fill(),
        }
    }

    fn poll_free(&mut self) -> Option<StoreOp<'_>> {
        let id = self.storage.id;
        if self.storage.opened
            && self.storage.rotation.is_none()
            && let Some(emission) = self.out.owed_emission(false)
        {
            self.out.emitted(id, emission);
            let queue = QUEUE_KEY;
            return Some(match emission {
                Emission::Reserve(through) => StoreOp::Reserve { queue, through },
                Emission::Trim(through) => StoreOp::Trim { queue, through },
                Emission::Drop(through, reason) => StoreOp::Drop { queue, through, reason },
            });
        }
        // A message counts as processed when something else is asked for: not while it is lent out.
        if self.held.is_none() && self.inbound.owes_cursor() {
            let through = self.inbound.emit_cursor(id);
            return Some(StoreOp::Cursor { peer: "", epoch: self.inbound.epoch(), through });
        }
        None
    }

    fn poll_fill(&mut self) -> Option<StoreOp<'_>> {
        let state = &mut self.storage;
        let id = state.id;
        if !state.inbox_stored && !core::mem::replace(&mut state.asked.inbox, true) {
            return Some(StoreOp::Inbox { epoch: self.inbox });
        }
        if !state.opened && !core::mem::replace(&mut state.asked.open, true) {
            state.rotation = None;
            return Some(StoreOp::Open { queue: QUEUE_KEY, epoch: self.out.epoch() });
        }
        if let Some((epoch, predecessor)) = state.rotation
            && !core::mem::replace(&mut state.asked.rotation, true)
        {
            return Some(StoreOp::Rotate { queue: QUEUE_KEY, epoch, predecessor });
        }
        let append = self.out.poll_append(id, true, QUEUE)?;
        let (first, last, records) = (append.first, append.last, append.records);
        Some(StoreOp::Append { queue: QUEUE_KEY, first, last, records })
    }

    /// A request of a step is committed, or failed. What failed left no trace, and is asked for again.
    pub fn handle_stored(&mut self, now: Instant, step: Step, result: Result<(), StoreFault>) {
        self.tick(now);
        let id = self.storage.id;
        self.storage.id += 1;
        let asked = core::mem::take(&mut self.storage.asked);
        if result.is_err() {
            self.out.handle_void();
            self.inbound.handle_void();
        } else if step == Step::Free {
            self.out.handle_trimmed(id);
            self.inbound.handle_committed(id);
        } else {
            self.out.handle_stored(id);
            self.storage.inbox_stored |= asked.inbox;
            self.storage.opened |= asked.open;
            if asked.rotation {
                self.storage.rotation = None;
            }
        }
        self.rotate_if_possible();
    }

    /// Begins the new epoch that is wanted, as soon as nothing of the queue is with the store.
    pub(super) fn rotate_if_possible(&mut self) {
        let state = &mut self.storage;
        let is_out = state.asked.open || state.rotation.is_some() || !self.out.is_settled();
        if !is_out && core::mem::take(&mut state.rotate_wanted) {
            self.rotate();
        }
    }

    /// Records above this number are needed from the store. Answer with [`handle_loaded`](Self::handle_loaded).
    pub fn poll_load(&mut self) -> Option<(Queue<'static>, u64)> {
        let after = self.storage.load.take()?;
        self.out.set_loading(true);
        Some((QUEUE_KEY, after))
    }

    /// Records were read, or not. `bytes` begins with what [`Loaded::Records`] speaks of.
    pub fn handle_loaded(
        &mut self,
        now: Instant,
        after: u64,
        result: Result<Loaded, StoreFault>,
        bytes: &[u8],
    ) {
        self.tick(now);
        self.out.set_loading(false);
        let next = after + 1;
        match result {
            Ok(Loaded::Records { first, last, len }) if first == next => {
                // Without room they are asked for again when something was acknowledged.
                let _ = self.out.handle_loaded(first, last, bytes.get(..len).unwrap_or_default());
            }
            Ok(Loaded::Records { first, .. }) => self.out.handle_lost(next, first - 1, GapReason::Missing),
            Ok(Loaded::Corrupt { last, .. }) => self.out.handle_lost(next, last, GapReason::Corrupt),
            Ok(Loaded::Nothing) => self.out.handle_lost(next, self.out.stored() - 1, GapReason::Missing),
            Ok(Loaded::TooSmall { .. }) => self.out.handle_lost(next, next, GapReason::Corrupt),
            Err(_) => {}
        }
    }
}
