//! What the node asks of its store, and what follows from the answers.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::absence::Absence;
use super::dead::topics_of;
use super::event::Event;
use super::fresh::Fresh;
use super::inbox::Asked;
use super::loads::{LoadRequest, Loads};
use super::outbox::{Aside, Opened, Outbox};
use super::{OutboxId, PeerId, Router};
use crate::delivery::{BATCHES_MAX, SendMode};
use crate::effect::{Batch, BatchId, DeadReason, Outcome, StoreFault, StoreOp};
use crate::id::SendId;
use crate::planted::Fault;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};

/// Dead letters and directory rows that wait for the store.
const STAGED_MAX: usize = 20_000;

/// Something for the store to do. Requests are executed one after another, in the order in which they were given.
#[derive(Debug)]
pub enum StoreRequest {
    /// Execute the batch and commit. Answer with [`Router::handle_committed`].
    Commit(Batch),
    /// Read. Answer with [`Router::handle_loaded`].
    Load(LoadRequest),
}

#[derive(Debug, Default)]
struct InFlight {
    id: BatchId,
    trims: Option<usize>,
    data: Option<usize>,
    sends: SendId,
    taken: u64,
    staged: usize,
    inbox: bool,
    outboxes: Vec<OutboxId>,
    /// Those of them whose trims are in the first group; the others' stand with their rows.
    outboxes_early: Vec<OutboxId>,
    peers_early: Vec<PeerId>,
    peers_late: Vec<PeerId>,
    deliveries: Vec<Asked>,
}

/// A request that belongs to no queue.
#[derive(Debug)]
pub(super) enum Staged {
    Subscribe {
        topic: super::TopicId,
        peer: PeerId,
    },
    Unsubscribe {
        topic: super::TopicId,
        address: alloc::boxed::Box<str>,
        name: alloc::boxed::Box<str>,
    },
    /// A row of the node's own in a directory that it shares.
    Register {
        topic: super::TopicId,
        address: alloc::boxed::Box<str>,
    },
    Dead {
        peer: alloc::boxed::Box<str>,
        topic: super::TopicId,
        reason: DeadReason,
        record: Vec<u8>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) regressed: bool,
    pub(super) sends_stored: SendId,
    /// Messages of peers that were taken over since the start, and are committed.
    pub(super) taken: u64,
    pub(super) last: u64,
    generation: u64,
    in_flight: VecDeque<InFlight>,
    pub(super) loads: Loads,
    /// Queues of which a part was moved to another one, and the store may not know it yet.
    pub(super) moves: Vec<(OutboxId, OutboxId)>,
    /// Queues of subscribers that are gone.
    pub(super) returning: Vec<OutboxId>,
    outboxes: Vec<OutboxId>,
    peers: Vec<PeerId>,
    pub(super) fresh: Fresh,
    staged: VecDeque<Staged>,
    staged_asked: usize,
    /// Messages put aside, those that the store had before and those that are on their way to it among them.
    pub(super) put_aside: u64,
    retry_at: Option<Instant>,
    failed: bool,
    pub(super) told_failed: bool,
    pub(super) absence: Absence,
}

impl Storage {
    pub(super) fn retry_deadline(&self) -> Option<Deadline> {
        let loads = self.loads.retry_at();
        self.retry_at.into_iter().chain(loads).min().map(|at| (at, Wakeup::StoreRetry))
    }

    /// Whether the store has failed at nothing that it has not done since.
    pub(super) const fn works(&self) -> bool {
        !self.failed && !self.absence.is_silent() && !self.loads.are_failing()
    }

    /// Whether no batch is with the store.
    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether nothing more may be staged before the store has taken some of it.
    pub(super) fn is_staged_full(&self) -> bool {
        self.staged.len() >= STAGED_MAX
    }

    /// Every topic that what waits for the store refers to.
    pub(super) fn each_topic(&self, each: &mut impl FnMut(super::TopicId)) {
        for staged in &self.staged {
            let (Staged::Subscribe { topic, .. }
            | Staged::Unsubscribe { topic, .. }
            | Staged::Register { topic, .. }
            | Staged::Dead { topic, .. }) = staged;
            each(*topic);
        }
    }

    /// The rows of the node's own that are not known to be stored.
    pub(super) fn registering(&self) -> impl Iterator<Item = (super::TopicId, &str)> {
        self.staged.iter().filter_map(|staged| match staged {
            Staged::Register { topic, address } => Some((*topic, &**address)),
            Staged::Subscribe { .. } | Staged::Unsubscribe { .. } | Staged::Dead { .. } => None,
        })
    }

    /// Stages what a window bounds: the messages in it are settled.
    pub(super) fn stage_settled(&mut self, staged: Staged) {
        self.staged.push_back(staged);
    }

    /// Whether a message of the node's queue is a dead letter that is not committed.
    fn has_letter_of(&self, name: &str) -> bool {
        self.staged.iter().any(|staged| matches!(staged, Staged::Dead { peer, .. } if **peer == *name))
    }

    pub(super) fn stage(&mut self, staged: Staged) -> bool {
        if self.staged.len() >= STAGED_MAX {
            return false;
        }
        self.staged.push_back(staged);
        true
    }
}

impl Router {
    /// The next thing for the store to do, if there is any and it may have more.
    pub fn poll_store(&mut self, now: Instant) -> Option<StoreRequest> {
        self.tick(now);
        self.retry_store();
        self.write_own_rows();
        // What has to be read for one queue must not keep the others from being stored.
        let may_commit = self.storage.retry_at.is_none();
        let commit = if may_commit { self.next_commit() } else { None };
        if may_commit && commit.is_none() && self.storage.is_settled() {
            self.storage.absence.handle_nothing_owed();
        }
        let request = commit.map(StoreRequest::Commit).or_else(|| self.next_load().map(StoreRequest::Load));
        self.note_asked(request.is_some());
        request
    }

    fn next_commit(&mut self) -> Option<Batch> {
        self.move_kept();
        if self.storage.in_flight.len() >= BATCHES_MAX || self.waits_for_rotation() || !self.owes_store() {
            return None;
        }
        self.build_moves().or_else(|| Some(self.build_commit()).filter(|batch| !batch.is_empty()))
    }

    /// Asks again what was put off, if it is time.
    pub(super) fn retry_store(&mut self) {
        let now = self.now;
        self.storage.retry_at = self.storage.retry_at.filter(|at| *at > now);
        for id in self.storage.loads.due(now) {
            let outbox = self.outboxes.get(id.0);
            let conn = outbox.and_then(|outbox| self.peers.get(outbox.peer?.0)?.conn);
            if conn.is_none() && !outbox.is_some_and(Outbox::is_moved) {
                // Nobody waits for it: it is asked for when somebody does.
                self.storage.loads.forget(|failing| failing == id);
                self.tell_recovered();
            }
            self.list_conn_of(id);
        }
    }

    /// Whether the store knows of every message taken so far that it was taken: none of them comes again after a crash.
    pub fn are_cursors_stored(&self) -> bool {
        let owes = |id: &PeerId| self.peers.get(id.0).is_some_and(|peer| peer.owes_cursor());
        let moves = |flight: &InFlight| !flight.peers_early.is_empty() || !flight.peers_late.is_empty();
        !self.storage.peers.iter().any(owes) && !self.storage.in_flight.iter().any(moves)
    }

    /// Whether a batch would have content.
    pub(super) fn owes_store(&self) -> bool {
        let storage = &self.storage;
        let outbox = |id: &OutboxId| {
            self.outboxes.get(id.0).is_some_and(|outbox| outbox.owes_store(self.is_urgent(*id)))
        };
        let peer = |id: &PeerId| self.owes_of(*id);
        storage.staged.len() > storage.staged_asked
            || storage.outboxes.iter().any(outbox)
            || storage.peers.iter().any(peer)
    }

    /// Whether a queue can begin its new epoch only when the store has answered. Until then no batch is built: cursors and
    /// trims that belong with the queue's rows would go without them.
    fn waits_for_rotation(&self) -> bool {
        let wanted = |id: &OutboxId| self.outboxes.get(id.0).is_some_and(|outbox| outbox.rotate_wanted);
        !self.storage.in_flight.is_empty() && self.storage.outboxes.iter().any(wanted)
    }

    /// Whether what is queued must be written because no link takes it.
    fn is_urgent(&self, id: OutboxId) -> bool {
        let peer = self.outboxes.get(id.0).and_then(|outbox| self.peers.get(outbox.peer?.0));
        peer.is_none_or(|peer| peer.conn.is_none() || peer.held)
    }

    /// The queue may owe the store something.
    pub(super) fn list(&mut self, id: OutboxId) {
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        if !outbox.listed {
            outbox.listed = true;
            self.storage.outboxes.push(id);
        }
    }

    /// The peer's cursor may have moved.
    pub(super) fn list_peer(&mut self, id: PeerId) {
        let owes = self.owes_of(id);
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        if !peer.listed && owes {
            peer.listed = true;
            self.storage.peers.push(id);
        }
        if let Some(conn) = peer.conn {
            self.conns.list(conn);
        }
    }

    // ------------------------------------------------------------------ commits

    /// A batch with nothing but moves. What they take is what they free, so they go on in a store that is full for
    /// everything else.
    fn build_moves(&mut self) -> Option<Batch> {
        let outboxes = &self.outboxes;
        let owes = |id: OutboxId| outboxes.get(id.0).is_some_and(|outbox| outbox.out.owes_trim());
        self.storage.moves.retain(|(from, _)| owes(*from));
        let plain = |id: OutboxId| {
            outboxes.get(id.0).is_some_and(|outbox| outbox.has_only_moved() && outbox.rotation.is_none())
        };
        let ready = |(from, to): &(OutboxId, OutboxId)| {
            plain(*to) && outboxes.get(from.0).is_some_and(|outbox| outbox.opened == Opened::Yes)
        };
        // What a queue is moved to may have the name of one that is to be closed first.
        let closes = |id: &OutboxId| outboxes.get(id.0).is_some_and(Outbox::owes_close);
        let is_due = !self.storage.moves.is_empty() && !self.storage.outboxes.iter().any(closes);
        if !is_due || !self.storage.moves.iter().all(ready) {
            return None;
        }
        let id = self.storage.last + 1;
        let mut batch = Batch::new(BatchId(id), self.storage.generation);
        let mut flight = InFlight { id: BatchId(id), ..InFlight::default() };
        for (from, _) in &self.storage.moves {
            if let Some(outbox) = self.outboxes.get_mut(from.0) {
                outbox.emit_owed(id, true, false, &mut batch);
                flight.outboxes.push(*from);
            }
        }
        for (_, to) in self.storage.moves.clone() {
            self.emit_data(to, id, &mut batch);
            flight.outboxes.push(to);
        }
        batch.end_group();
        if batch.is_empty() {
            return None;
        }
        self.storage.last = id;
        flight.data = Some(0);
        self.storage.in_flight.push_back(flight);
        Some(batch)
    }

    fn build_commit(&mut self) -> Batch {
        self.storage.last += 1;
        self.storage.fresh = Fresh::default();
        let id = self.storage.last;
        let mut batch = Batch::new(BatchId(id), self.storage.generation);
        let outboxes = core::mem::take(&mut self.storage.outboxes);
        let peers = core::mem::take(&mut self.storage.peers);
        let mut flight = InFlight { id: BatchId(id), ..InFlight::default() };
        for &outbox in &outboxes {
            if self.emit_trims(outbox, id, &mut batch) {
                flight.outboxes_early.push(outbox);
            }
        }
        for peer in peers {
            self.emit_cursor_early(peer, id, &mut batch, &mut flight);
        }
        batch.end_group();
        flight.trims = batch.groups_len().checked_sub(1);
        self.emit_staged(&mut batch, &mut flight);
        self.emit_deliveries(&flight.deliveries, &mut batch);
        let split = self.config.planted.has(Fault::CustodyNotAtomic);
        if split {
            self.emit_cursors_late(id, &mut batch, &flight);
        }
        for &outbox in &outboxes {
            if split {
                batch.end_group();
            }
            self.emit_data(outbox, id, &mut batch);
        }
        if !split {
            self.emit_cursors_late(id, &mut batch, &flight);
        }
        if self.config.send_mode == SendMode::Stored {
            flight.sends = self.sends;
        }
        flight.taken = self.taken;
        let before = batch.groups_len();
        batch.end_group();
        if batch.groups_len() > before || split {
            flight.data = batch.groups_len().checked_sub(1);
        }
        for outbox in &outboxes {
            if let Some(outbox) = self.outboxes.get_mut(outbox.0) {
                outbox.listed = false;
            }
        }
        flight.outboxes = outboxes;
        if !batch.is_empty() {
            self.storage.in_flight.push_back(flight);
        }
        batch
    }

    /// Says whether the queue's trims are in the first group now.
    fn emit_trims(&mut self, id: OutboxId, batch_id: u64, batch: &mut Batch) -> bool {
        let urgent = self.is_urgent(id);
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return false };
        if outbox.closing {
            outbox.emit_close(batch_id, batch);
            return true;
        }
        // The trims of a queue that is moved belong with the rows that it was moved to, those of the node's own queue with the letters
        // that its messages have become, if there are such.
        let is_early = outbox.opened == Opened::Yes && outbox.rotation.is_none() && !outbox.is_moved();
        let own_name = &*self.config.name;
        if !is_early || (self.own.is_queue(id) && self.storage.has_letter_of(own_name)) {
            return false;
        }
        outbox.emit_owed(batch_id, urgent, false, batch);
        true
    }

    fn emit_data(&mut self, id: OutboxId, batch_id: u64, batch: &mut Batch) {
        let urgent = self.is_urgent(id);
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        if outbox.closing || !outbox.owes_store(urgent) {
            return;
        }
        let topics = &self.topics;
        outbox.emit_rows(batch_id, batch, |topic| topics.text(topic));
        outbox.emit_owed(batch_id, urgent, true, batch);
        while let Some(append) = outbox.out.poll_append(batch_id, urgent, usize::MAX) {
            let queue = outbox.key.queue();
            let (first, last, records) = (append.first, append.last, append.records);
            batch.push(&StoreOp::Append { queue, first, last, records });
        }
        if outbox.has_aside_in_vain() {
            self.storage.put_aside -= outbox.drop_aside();
        }
        outbox.emit_aside(batch_id, batch);
    }

    fn emit_cursor_early(&mut self, id: PeerId, batch_id: u64, batch: &mut Batch, flight: &mut InFlight) {
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        peer.listed = false;
        if self.inbox_lines.owes(id) {
            let asked = self.ask_inbox(id);
            if asked.is_none() {
                // Its cursor waits with what it covers.
                return;
            }
            flight.deliveries.extend(asked);
            if !self.config.planted.has(Fault::CursorOutsideTransaction) {
                flight.peers_late.push(id);
                return;
            }
        }
        let Some(peer) = self.peers.get_mut(id.0) else { return };
        if !peer.owes_cursor() {
            return;
        }
        if peer.owes_custody() && !self.config.planted.has(Fault::CursorOutsideTransaction) {
            flight.peers_late.push(id);
            return;
        }
        flight.peers_early.push(id);
        peer.has_cursor = true;
        let through = peer.emit_cursor(batch_id);
        batch.push(&StoreOp::Cursor { peer: &peer.name, epoch: peer.inbound.epoch(), through });
    }

    fn emit_cursors_late(&mut self, batch_id: u64, batch: &mut Batch, flight: &InFlight) {
        for peer in &flight.peers_late {
            let Some(peer) = self.peers.get_mut(peer.0) else { continue };
            peer.has_cursor = true;
            let through = peer.emit_cursor(batch_id);
            batch.push(&StoreOp::Cursor { peer: &peer.name, epoch: peer.inbound.epoch(), through });
        }
    }

    fn emit_staged(&mut self, batch: &mut Batch, flight: &mut InFlight) {
        if !self.inbox_stored {
            flight.inbox = true;
            batch.push(&StoreOp::Inbox { epoch: self.inbox });
        }
        for staged in self.storage.staged.iter().skip(self.storage.staged_asked) {
            flight.staged += 1;
            match staged {
                Staged::Subscribe { topic, peer } => {
                    let rows = self.topics.rows(*topic);
                    let Some(row) = rows.iter().find(|row| row.peer == *peer) else { continue };
                    let Some(peer) = self.peers.get(peer.0) else { continue };
                    let topic = self.topics.text(*topic);
                    batch.push(&StoreOp::Subscribe { topic, address: &row.address, name: &peer.name });
                }
                Staged::Unsubscribe { topic, address, name } => {
                    batch.push(&StoreOp::Unsubscribe { topic: self.topics.text(*topic), address, name });
                }
                Staged::Register { topic, address } => {
                    let (topic, name) = (self.topics.text(*topic), &*self.config.name);
                    batch.push(&StoreOp::Subscribe { topic, address, name });
                }
                Staged::Dead { peer, topic, reason, record } => {
                    let topic = self.topics.text(*topic);
                    batch.push(&StoreOp::DeadLetter { peer, topic, reason: *reason, record });
                }
            }
        }
        self.storage.staged_asked += flight.staged;
    }

    /// A batch was executed.
    pub fn handle_committed(&mut self, now: Instant, id: BatchId, outcome: Outcome) {
        self.tick(now);
        let Some(at) = self.storage.in_flight.iter().position(|flight| flight.id == id) else { return };
        let early = self.config.planted.has(Fault::EarlyCompletion) && outcome.fault.is_none();
        let count = if early { self.storage.in_flight.len() } else { at + 1 };
        let done: Vec<InFlight> = self.storage.in_flight.drain(..count).collect();
        for flight in &done {
            let groups = if early { usize::MAX } else { outcome.groups };
            self.complete(flight, groups);
        }
        if let Some(fault) = outcome.fault {
            self.void(fault);
            return self.note_answered();
        }
        self.storage.failed = false;
        self.storage.absence.handle_committed(done.iter().any(|flight| flight.data.is_some()));
        self.note_answered();
        if self.storage.told_failed {
            self.tell_recovered();
        }
    }

    fn complete(&mut self, flight: &InFlight, groups: usize) {
        let id = flight.id.0;
        let trims = flight.trims.is_none_or(|index| index < groups);
        // Without a group for them, what stands for the rows is in the first one.
        let data = flight.data.map_or(trims, |index| index < groups);
        for &outbox_id in &flight.outboxes {
            let Some(outbox) = self.outboxes.get_mut(outbox_id.0) else { continue };
            if trims && outbox.is_closed_by(id) {
                self.handle_closed_queue(outbox_id);
                continue;
            }
            if data || (trims && flight.outboxes_early.contains(&outbox_id)) {
                outbox.out.handle_trimmed(id);
                if outbox.returning {
                    // A handshake may have waited for that.
                    self.conns.list_unfinished();
                }
            }
            if data {
                outbox.handle_stored(id);
                if let Some(Aside { letters, reason, .. }) = outbox.handle_put_aside(id) {
                    for (topic, count) in topics_of(&letters) {
                        let (name, topic) = (outbox.key.queue().name().into(), topic.into());
                        self.events.push(Event::DeadLetter { name, topic, reason, count });
                    }
                }
            }
            self.rotate_if_possible(outbox_id);
            self.list(outbox_id);
            self.list_conn_of(outbox_id);
        }
        let early = if trims { flight.peers_early.as_slice() } else { &[] };
        let late = if data { flight.peers_late.as_slice() } else { &[] };
        for &peer_id in early.iter().chain(late) {
            let Some(peer) = self.peers.get_mut(peer_id.0) else { continue };
            peer.inbound.handle_committed(id);
            self.list_peer(peer_id);
        }
        if data {
            self.storage.sends_stored = self.storage.sends_stored.max(flight.sends);
            self.storage.taken = self.storage.taken.max(flight.taken);
            self.storage.staged.drain(..flight.staged.min(self.storage.staged.len()));
            self.storage.staged_asked -= flight.staged;
            flight.deliveries.iter().for_each(|asked| self.inbox_lines.handle_committed(asked));
            let has_room = flight.staged > 0 && !self.storage.is_littered();
            self.open_windows(|_, _| has_room);
            self.inbox_stored |= flight.inbox;
        }
    }

    /// The connection of a queue's peer may have more to write.
    pub(super) fn list_conn_of(&mut self, id: OutboxId) {
        let peer = self.outboxes.get(id.0).and_then(|outbox| self.peers.get(outbox.peer?.0));
        if let Some(conn) = peer.and_then(|peer| peer.conn) {
            self.conns.list(conn);
        }
    }

    /// The store failed: nothing that is with it happened, and all of it is asked for again.
    fn void(&mut self, fault: StoreFault) {
        self.storage.generation += 1;
        let lost: Vec<InFlight> = self.storage.in_flight.drain(..).collect();
        self.inbox_lines.handle_void();
        for id in self.outboxes.ids().into_iter().map(OutboxId) {
            if let Some(outbox) = self.outboxes.get_mut(id.0) {
                outbox.handle_void();
            }
            self.list(id);
            self.rotate_if_possible(id);
        }
        for id in self.peers.ids().into_iter().map(PeerId) {
            let Some(peer) = self.peers.get_mut(id.0) else { continue };
            peer.inbound.handle_void();
            if !peer.listed && (peer.owes_cursor() || self.inbox_lines.owes(id)) {
                peer.listed = true;
                self.storage.peers.push(id);
            }
        }
        drop(lost);
        self.storage.staged_asked = 0;
        self.storage.retry_at = Some(self.now + self.config.timing.store_retry);
        self.storage.failed = true;
        self.storage.absence.handle_failed(fault);
        self.tell_failed(fault);
    }

    /// Begins the new epoch that a queue needs, as soon as nothing of it is with the store.
    pub(super) fn rotate_if_possible(&mut self, id: OutboxId) {
        let ready = self.outboxes.get_mut(id.0).filter(|outbox| {
            // A rotation that the store does not know yet comes first: it shifts the numbers that this one starts from.
            outbox.rotate_wanted && outbox.is_settled() && outbox.rotation.is_none()
        });
        let Some(outbox) = ready else { return };
        outbox.rotate_wanted = false;
        self.rotate(id);
    }
}
