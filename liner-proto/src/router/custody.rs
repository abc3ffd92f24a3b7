//! Which queues a message goes to: one's own, and those taken over for others.

use alloc::vec::Vec;

use super::event::Event;
use super::outbox::Key;
use super::{DialId, OutboxId, PeerId, Router, SendError, TopicId};
use crate::delivery::{Next, PushError};
use crate::effect::{DeadReason, GapReason};
use crate::id::Epoch;
use crate::memory::Cursor;
use crate::wire::record::{self, Header, Mode, Origin, Record, Run, Topic};

/// Bytes that are moved between queues in one turn, but for a single record that is longer.
const MOVE_BYTES: usize = 1024 * 1024;

impl Router {
    /// Queues a message of the node's own application.
    pub(super) fn route_own(
        &mut self,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let all = header.mode == Mode::All;
        let rows = self.topics.rows(topic);
        let count = rows.len();
        if count == 0 {
            return self.route_unknown(topic, header, payload);
        }
        if !all || count == 1 {
            let peer = match rows {
                // The common case needs no turns.
                [row] => row.peer,
                _ => self.pick(topic, None).ok_or(SendError::NoAddress)?,
            };
            self.check_fits(peer, topic, header, payload)?;
            let target = self.target(topic, peer);
            self.check_quota(target)?;
            return self.push_own(target, topic, header, payload, false);
        }
        // All or none: the memory is there for every copy before the first is queued.
        let need = payload.len() + self.topics.text(topic).len() + 64;
        for index in 0..count {
            let Some(peer) = self.topics.rows(topic).get(index).map(|row| row.peer) else { continue };
            self.check_fits(peer, topic, header, payload)?;
            let target = self.target(topic, peer);
            self.check_quota(target)?;
            if !self.outboxes.get_mut(target.0).is_some_and(|outbox| outbox.out.make_room(need)) {
                return Err(SendError::Busy);
            }
        }
        for index in 0..count {
            let Some(peer) = self.topics.rows(topic).get(index).map(|row| row.peer) else { continue };
            let target = self.target(topic, peer);
            self.push_own(target, topic, header, payload, true)?;
        }
        Ok(())
    }

    /// Nobody is known for the topic: the peers named by address are asked, or the topic waits.
    fn route_unknown(
        &mut self,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let one = header.mode == Mode::One;
        let picked = if one { self.pick_dial(topic)? } else { None };
        let is_chosen =
            |router: &Self, dial| if one { picked == Some(dial) } else { router.may_take_more(dial) };
        // All or none, as for those that are known.
        let need = payload.len() + self.topics.text(topic).len() + 64;
        for dial in self.dials.ids() {
            if !is_chosen(self, dial) {
                continue;
            }
            if let Some(peer) = self.dials.peer(dial) {
                if self.peers.get(peer.0).is_some_and(|peer| peer.full.contains(&topic)) {
                    return Err(SendError::TopicFull);
                }
                self.check_fits(peer, topic, header, payload)?;
            }
            let target = self.dial_target(dial);
            self.check_quota(target)?;
            if !one && !self.outboxes.get_mut(target.0).is_some_and(|outbox| outbox.out.make_room(need)) {
                return Err(SendError::Busy);
            }
        }
        let mut sent = false;
        for dial in self.dials.ids() {
            if !is_chosen(self, dial) {
                continue;
            }
            sent = true;
            let target = self.dial_target(dial);
            self.push_own(target, topic, header, payload, !one)?;
        }
        if sent {
            return Ok(());
        }
        if !self.config.takes_custody {
            return Err(SendError::NoAddress);
        }
        let kept = self.kept_outbox(topic, None);
        if self.is_over_quota(kept) {
            return Err(SendError::Busy);
        }
        self.push_own(kept, topic, header, payload, false)
    }

    /// Where a message waits for whoever answers at a dialled address.
    fn dial_target(&mut self, dial: DialId) -> OutboxId {
        match self.dials.peer(dial).filter(|_| self.kept_is_empty(self.dials.outbox(dial))) {
            Some(peer) => self.outbox_of(peer),
            None => self.dial_outbox(dial),
        }
    }

    /// Queues a message of a peer for everyone else whom it concerns. Its cursor is committed with the rows. Unless somebody
    /// had it already, it is kept for the first subscriber.
    pub(super) fn take_custody(
        &mut self,
        from: PeerId,
        number: u64,
        (topic, header, payload): (TopicId, &Header<'_>, &[u8]),
        maybe_redelivered: bool,
        had: bool,
    ) {
        let Some(state) = self.peers.get_mut(from.0) else { return };
        state.took_custody();
        self.taken += 1;
        let name = state.name.clone();
        let origin = Origin { name: &name, epoch: state.inbound.epoch(), number };
        let onward = Header {
            repeat: maybe_redelivered,
            origin: Some(origin),
            hops: Some(0),
            topic: Topic::Number(0),
            ..*header
        };
        let mut queued = had;
        if header.mode == Mode::One {
            if let Some(peer) = self.pick(topic, Some(from)) {
                let target = self.target(topic, peer);
                queued = self.push_taken(target, (topic, &onward, payload));
            }
        } else {
            for index in 0..self.topics.rows(topic).len() {
                let row = self.topics.rows(topic).get(index).filter(|row| row.peer != from && !row.heard);
                let Some(peer) = row.map(|row| row.peer) else { continue };
                let target = self.target(topic, peer);
                queued |= self.push_taken(target, (topic, &onward, payload));
            }
        }
        if queued {
            return;
        }
        if self.keeps_no_more(from, topic) {
            if !self.topics.set_full(topic, true) {
                self.events.push(Event::TopicFull { topic: self.topics.text(topic).into() });
            }
            self.tell_full(from, topic, number);
            return self.put_aside(from, (topic, &onward, payload), DeadReason::Quota);
        }
        let kept = self.kept_outbox(topic, Some(from));
        if self.push(kept, topic, &onward, payload, true).is_err() {
            self.put_aside(from, (topic, &onward, payload), DeadReason::TooLarge);
        }
    }

    /// Queues a message that was taken over for a subscriber, within its quota: beyond that it loses messages, and nobody else
    /// waits for it. Says whether it was not too large.
    fn push_taken(&mut self, id: OutboxId, message: (TopicId, &Header<'_>, &[u8])) -> bool {
        if self.is_queue_full(id) && self.make_way(id, message) {
            return true;
        }
        let (topic, header, payload) = message;
        self.push(id, topic, header, payload, true).is_ok()
    }

    /// Queues a message of the node's own application, of which it is known that the quota allows it.
    fn push_own(
        &mut self,
        id: OutboxId,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
        over: bool,
    ) -> Result<(), SendError> {
        self.make_room_in(id, topic);
        self.push(id, topic, header, payload, over).map_err(|error| self.send_error(error))?;
        self.storage.fresh.note(payload);
        Ok(())
    }

    fn push(
        &mut self,
        id: OutboxId,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
        over: bool,
    ) -> Result<(), PushError> {
        let queued;
        let header = if header.ttl_ms.is_some() {
            queued = self.reading().queued(header);
            &queued
        } else {
            header
        };
        let text = self.topics.text(topic);
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return Err(PushError::Full) };
        outbox.own_through = outbox.push(self.now, (topic, text), header, payload, over)?;
        outbox.out.handle_write_behind(self.now, self.config.timing.write_behind);
        let peer = outbox.peer;
        let conn = peer.and_then(|peer| self.peers.get(peer.0)?.conn);
        if !outbox.listed {
            self.list(id);
        }
        match (conn, peer) {
            (Some(conn), _) => self.conns.list(conn),
            (None, Some(peer)) => self.seek(peer),
            (None, None) => {}
        }
        Ok(())
    }

    fn send_error(&self, error: PushError) -> SendError {
        match error {
            PushError::Full => SendError::Busy,
            PushError::TooLarge => SendError::TooLarge { max: self.payload_max() },
        }
    }

    /// The queue in which a message of the topic for `peer` stands behind all earlier ones.
    fn target(&mut self, topic: TopicId, peer: PeerId) -> OutboxId {
        if let Some(kept) = self.topics.kept(topic)
            && self.heir(topic) == Some(peer)
            && !self.kept_is_empty(Some(kept))
        {
            return kept;
        }
        if !self.dials.has_outboxes() {
            return self.outbox_of(peer);
        }
        // What waited for whoever answers at the peer's address comes before it, too. After a restart nobody has answered
        // yet, but the directory knows where the peer listened.
        let rows = self.topics.rows(topic);
        let address = rows.iter().find(|row| row.peer == peer).map(|row| &*row.address);
        let waiting = self.dials.ids().filter(|dial| {
            self.dials.peer(*dial) == Some(peer) || Some(self.dials.address(*dial)) == address
        });
        let mut waiting = waiting.filter_map(|dial| self.dials.outbox(dial));
        if let Some(waiting) = waiting.find(|outbox| !self.kept_is_empty(Some(*outbox))) {
            return waiting;
        }
        self.outbox_of(peer)
    }

    // ------------------------------------------------------------------ kept queues

    /// The first durable subscriber of a topic: what was kept is for it.
    fn heir(&self, topic: TopicId) -> Option<PeerId> {
        let durable = |peer: &PeerId| self.peers.get(peer.0).is_some_and(|peer| peer.durable);
        self.topics.rows(topic).iter().filter(|row| !row.heard).map(|row| row.peer).find(durable)
    }

    pub(super) fn kept_is_empty(&self, id: Option<OutboxId>) -> bool {
        id.and_then(|id| self.outboxes.get(id.0)).is_none_or(|outbox| outbox.out.queued() == 0)
    }

    fn is_over_quota(&self, id: OutboxId) -> bool {
        let quota = self.config.kept;
        self.outboxes
            .get(id.0)
            .is_some_and(|outbox| outbox.out.queued() >= quota.messages || outbox.bytes >= quota.bytes)
    }

    /// Whether a message of the peer on a topic without a subscriber finds no room: the topic's quota is used up, or the peer
    /// has begun to fill too many topics.
    fn keeps_no_more(&self, from: PeerId, topic: TopicId) -> bool {
        let max = self.topics_share();
        match self.topics.kept(topic) {
            Some(kept) => self.is_over_quota(kept),
            None => self.config.kept.is_none() || self.peers.get(from.0).is_some_and(|peer| peer.kept >= max),
        }
    }

    /// Whether a message that this node is to hand on would end among the dead letters.
    pub(super) fn would_put_aside(&self, from: PeerId, topic: TopicId, header: &Header<'_>) -> bool {
        if self.topics.is_own(topic) || !self.config.takes_custody || header.origin.is_some() {
            return false;
        }
        let others = self.topics.rows(topic).iter().any(|row| row.peer != from && !row.heard);
        !others && self.keeps_no_more(from, topic)
    }

    /// Tells a peer, once, that nothing more is kept for the topic.
    fn tell_full(&mut self, peer: PeerId, topic: TopicId, after: u64) {
        let max = self.topics_share();
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if state.told_full.len() >= max || state.told_full.contains(&topic) {
            return;
        }
        if self.topics.text(topic).len() > state.topic_max() {
            // It cannot be told: what it sends is put aside.
            return;
        }
        state.told_full.push(topic);
        state.full_news.push((topic, after));
        if let Some(conn) = state.conn {
            self.conns.list(conn);
        }
    }

    /// The topic takes messages again: those that were told otherwise are told.
    pub(super) fn reopen_topic(&mut self, topic: TopicId) {
        self.open_windows(|_, state| state.shut_for == Some(topic));
        if !self.topics.set_full(topic, false) {
            return;
        }
        for state in self.peers.iter_mut().filter(|state| state.told_full.contains(&topic)) {
            state.told_full.retain(|other| *other != topic);
            state.full_news.push((topic, 0));
            if let Some(conn) = state.conn {
                self.conns.list(conn);
            }
        }
    }

    fn kept_outbox(&mut self, topic: TopicId, keeper: Option<PeerId>) -> OutboxId {
        if let Some(id) = self.topics.kept(topic) {
            return id;
        }
        let epoch = Epoch(self.rng.next_nonzero());
        let id = self.new_outbox(Key::Topic(self.topics.text(topic).into()), epoch);
        self.topics.set_kept(topic, id, keeper);
        if let Some(keeper) = keeper.and_then(|peer| self.peers.get_mut(peer.0)) {
            keeper.kept += 1;
        }
        id
    }

    fn dial_outbox(&mut self, dial: DialId) -> OutboxId {
        if let Some(id) = self.dials.outbox(dial) {
            return id;
        }
        let epoch = Epoch(self.rng.next_nonzero());
        let id = self.new_outbox(Key::Address(self.dials.address(dial).into()), epoch);
        self.dials.set_outbox(dial, id);
        id
    }

    /// Moves what was kept to the streams it is for, a bounded part in each turn.
    pub(super) fn move_kept(&mut self) {
        let kept: Vec<_> = self.topics.all_kept().collect();
        for (topic, from) in kept {
            if self.kept_is_empty(Some(from)) {
                self.close_kept(topic, from);
            } else if let Some(heir) = self.heir(topic) {
                self.reopen_topic(topic);
                let to = self.outbox_of(heir);
                self.move_queue(from, Some(to));
            }
        }
        self.return_queues();
        for dial in self.dials.ids() {
            let up = |peer: &PeerId| self.peers.get(peer.0).is_some_and(|peer| peer.conn.is_some());
            if let (Some(from), Some(peer)) = (self.dials.outbox(dial), self.dials.peer(dial).filter(up))
                && !self.kept_is_empty(Some(from))
            {
                let to = self.outbox_of(peer);
                self.move_queue(from, Some(to));
            }
        }
    }

    /// Moves a part of a queue to another one, or back to its topics.
    pub(super) fn move_queue(&mut self, from: OutboxId, to: Option<OutboxId>) {
        let mut moved = 0;
        let Some(outbox) = self.outboxes.get_mut(from.0) else { return };
        if outbox.out.owes_trim() {
            // One part is stored in its new place before the next is moved.
            return;
        }
        // What was dropped before was never read.
        outbox.weigh();
        if let Some(to) = to
            && !self.storage.moves.contains(&(from, to))
        {
            self.storage.moves.push((from, to));
        }
        while moved < MOVE_BYTES {
            let Some(outbox) = self.outboxes.get_mut(from.0) else { return };
            if !outbox.may_send() {
                return;
            }
            // What there was when the store had gone backwards may have been moved and sent before.
            let doubt = outbox.out.predecessor().map_or(0, |before| before.count);
            let first = outbox.out.sent();
            let again = first <= doubt;
            let last = if to.is_some() { u64::MAX - 1 } else { outbox.return_through };
            let limit = if again { last.min(doubt) } else { last };
            let (end, run) = match outbox.out.next_piece(limit, usize::MAX) {
                Next::Nothing => return,
                Next::Load { .. } => return self.want_load(from),
                Next::Gap { last, reason, .. } => {
                    self.move_gap(to, last - first + 1, reason);
                    (Cursor { number: last + 1, offset: 0 }, Vec::new())
                }
                // A store that is full bears no more than it was asked to.
                Next::Run { bytes, .. } if moved > 0 && moved + bytes.len() > MOVE_BYTES => return,
                Next::Run { end, bytes, .. } => (end, bytes.to_vec()),
            };
            moved += run.len().max(1);
            self.move_run(from, to, (first, &run), again);
            let Some(outbox) = self.outboxes.get_mut(from.0) else { return };
            outbox.out.advance(self.now, end);
            // Its trim is committed in the group that stores the rows where they are now.
            let _ = outbox.out.handle_marks(self.now, end.number - 1, end.number - 1);
            outbox.bytes =
                if outbox.out.queued() == 0 { 0 } else { outbox.bytes.saturating_sub(run.len() as u64) };
            outbox.counted = outbox.out.waiting();
            self.list(from);
        }
    }

    /// What is missing in a queue is missing in the stream that it is moved to, at the same place. Topics have no numbers that
    /// anybody would miss.
    fn move_gap(&mut self, to: Option<OutboxId>, count: u64, reason: GapReason) {
        let Some(to) = to else { return };
        let Some(outbox) = self.outboxes.get_mut(to.0) else { return };
        outbox.out.push_gap(count, reason);
        outbox.out.hold();
        self.list(to);
        self.list_conn_of(to);
    }

    fn move_run(&mut self, from: OutboxId, to: Option<OutboxId>, (first, run): (u64, &[u8]), again: bool) {
        let now = self.reading();
        let outbox = self.outboxes.get(from.0);
        let (restored, maybe_sent) = outbox.map_or((0, 0), |outbox| (outbox.restored, outbox.maybe_sent));
        let mut next = first;
        for record in Run::new(run) {
            let Ok(record) = record else { return };
            let number = next;
            next += record::numbers_of(record);
            let Ok(Record::Message { header, payload }) = record::decode(record) else { continue };
            let topic = match header.topic {
                Topic::Text(text) => self.topics.intern(text),
                Topic::Number(number) => {
                    let topics = self.outboxes.get(from.0).map_or(&[][..], |outbox| &outbox.topics);
                    let Some(&topic) = topics.get((number as usize).saturating_sub(1)) else { continue };
                    topic
                }
            };
            let header = now.unqueued(&header, number <= restored);
            let again = again || (to.is_none() && number <= maybe_sent);
            let header = Header { repeat: header.repeat || again, ..header };
            let is_one = header.mode == Mode::One;
            if to.is_none()
                && let Some(outbox) = self.outboxes.get_mut(from.0)
            {
                outbox.forgetting.iter_mut().for_each(|forgetting| forgetting.note(is_one));
            }
            let to = match to {
                Some(to) => to,
                // Every subscriber that is left has its own copy.
                None if !is_one => continue,
                None => {
                    let other = self.pick(topic, None).map(|peer| self.target(topic, peer));
                    other.unwrap_or_else(|| self.kept_outbox(topic, None))
                }
            };
            let own_through = self.outboxes.get(to.0).map_or(0, |outbox| outbox.own_through);
            let _ = self.push(to, topic, &header, payload, true);
            if let Some(outbox) = self.outboxes.get_mut(to.0) {
                outbox.own_through = own_through;
                outbox.out.hold();
            }
        }
    }
}
