//! Dead letters: which messages become some, and what happens when there is no room for more.

use alloc::vec::Vec;

use super::event::Event;
use super::limits::{Spelling, written_out};
use super::outbox::{Aside, Letter};
use super::storage::{Staged, Storage};
use super::tally::Loss;
use super::{OutboxId, PeerId, Router, TopicId};
use crate::delivery::Next;
use crate::effect::{DeadReason, GapReason};
use crate::wire::control::CloseReason;
use crate::wire::record::{Header, Run};

/// Dead letters of a store to which a node adds none. After that it takes no more of what it would have to put aside.
pub(super) const DEAD_LETTERS_MAX: u64 = 10_000;

/// Room that is left to messages which hold up a stream if they cannot be put aside.
const DEAD_LETTERS_SPARED: u64 = 1_000;

impl Storage {
    /// Whether so much was put aside, or waits to be, that no more is.
    pub(super) fn is_littered(&self) -> bool {
        self.dead_room() == 0 || self.is_staged_full()
    }

    /// How many more messages may be put aside.
    const fn dead_room(&self) -> u64 {
        DEAD_LETTERS_MAX.saturating_sub(self.put_aside)
    }

    /// How many of them may be such that are given up otherwise.
    fn spare_room(&self) -> u64 {
        if self.is_staged_full() { 0 } else { self.dead_room().saturating_sub(DEAD_LETTERS_SPARED) }
    }
}

/// What a node is told of a message that is put aside for this reason.
pub(super) const fn gap_of(reason: DeadReason) -> GapReason {
    match reason {
        DeadReason::Unsubscribed => GapReason::Cleared,
        DeadReason::TooLarge => GapReason::TooLarge,
        DeadReason::Expired => GapReason::Expired,
        DeadReason::InDoubt => GapReason::InDoubt,
        DeadReason::Quota | DeadReason::Failed | DeadReason::Orphaned => GapReason::Dropped,
    }
}

/// The topics of letters, each with how many there are side by side.
pub(super) fn topics_of(letters: &[Letter]) -> impl Iterator<Item = (&str, u64)> {
    let runs = letters.chunk_by(|one, other| one.topic == other.topic);
    runs.filter_map(|run| Some((&*run.first()?.topic, run.len() as u64)))
}

impl Router {
    /// Whether a message that has arrived can be taken: not if it is to be put aside, and there is no room for that. Its
    /// sender keeps it then.
    ///
    /// # Errors
    /// `Overloaded`. The peer is told in the next session that it may send nothing, so that it stays connected.
    pub(super) fn check_room_for(
        &mut self,
        (peer, number): (PeerId, u64),
        topic: TopicId,
        header: &Header<'_>,
    ) -> Result<(), CloseReason> {
        if !self.storage.is_littered() || !self.would_put_aside(peer, topic, header) {
            return Ok(());
        }
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        if number <= state.inbound.received() {
            return Ok(());
        }
        if state.shut_for.replace(topic).is_none() {
            self.shut.push(peer);
            self.events.push(Event::DeadLettersFull { name: state.name.clone() });
        }
        Err(CloseReason::Overloaded)
    }

    pub(super) fn put_aside(
        &mut self,
        peer: PeerId,
        (topic, header, payload): (TopicId, &Header<'_>, &[u8]),
        reason: DeadReason,
    ) {
        self.storage.put_aside += 1;
        let record = written_out(header, self.topics.text(topic), payload);
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if self.config.inbox.is_some() {
            let from = state.name.clone();
            return self.put_aside_in_line(peer, from, topic, (reason, record));
        }
        state.took_custody();
        let peer = state.name.clone();
        self.storage.stage(Staged::Dead { peer, topic, reason, record });
    }

    /// A message of a peer on a topic that this node does not take: it was under way when the peer was told, or the peer does not
    /// care. It is put aside as long as there is room, and dropped then: nothing behind it waits for it.
    pub(super) fn put_stray_aside(
        &mut self,
        peer: PeerId,
        (topic, header, payload): (TopicId, &Header<'_>, &[u8]),
    ) {
        let (reason, kept) = (DeadReason::Unsubscribed, self.storage.spare_room() > 0);
        if kept {
            self.put_aside(peer, (topic, header, payload), reason);
        }
        let Some(state) = self.peers.get(peer.0) else { return };
        let loss = Loss { name: &state.name, topic: self.topics.text(topic), reason, kept };
        self.events.extend(self.tally.add(self.now, loss, 1));
    }

    /// A message is for a node whose queue holds all that it may. It is put aside as long as there is room, which is said; then
    /// the oldest message of the queue is dropped for it.
    pub(super) fn make_way(
        &mut self,
        id: OutboxId,
        (topic, header, payload): (TopicId, &Header<'_>, &[u8]),
    ) -> bool {
        let (reason, kept) = (DeadReason::Quota, self.storage.spare_room() > 0);
        let Some(outbox) = self.outboxes.get(id.0) else { return false };
        let name = outbox.key.queue().name().into();
        let mut count = 1;
        if kept {
            self.storage.put_aside += 1;
            let record = written_out(header, self.topics.text(topic), payload);
            self.storage.stage(Staged::Dead { peer: name, topic, reason, record });
        } else {
            // Two for one, if it held more than it may: what is not stored yet cannot be dropped.
            count = self.drop_oldest(id, 2);
        }
        let Some(outbox) = self.outboxes.get(id.0).filter(|_| count > 0) else { return kept };
        let loss = Loss { name: outbox.key.queue().name(), topic: self.topics.text(topic), reason, kept };
        self.events.extend(self.tally.add(self.now, loss, count));
        kept
    }

    /// Puts the messages aside that come next for a peer and that it does not take, if there are such. A store drops what is
    /// at the front of a queue only: everything before them is acknowledged first.
    pub(super) fn put_front_aside(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0) else { return };
        let Some(id) = state.outbox else { return };
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        let spelling = Spelling::new(state, outbox, &self.topics, self.calendar.at(self.now));
        let Next::Run { begin, bytes, .. } = outbox.out.next_piece(state.messages_limit, usize::MAX) else {
            return;
        };
        // What is refused is a message, with one number.
        let records = Run::new(bytes).map_while(Result::ok).zip(begin.number..);
        let mut refused =
            records.map(|(record, number)| (record, spelling.refusal(record, number))).peekable();
        let Some(&(_, Some(reason))) = refused.peek() else { return };
        if begin.number != outbox.out.acked() + 1 {
            return;
        }
        // Those that the peer wants no more hold up nothing.
        let waived = reason == DeadReason::Unsubscribed;
        let room = if !waived {
            self.storage.dead_room()
        } else if state.durable {
            self.storage.spare_room()
        } else {
            0
        };
        if room == 0 && !waived {
            if !core::mem::replace(&mut outbox.told_littered, true) {
                self.events.push(Event::DeadLettersFull { name: state.name.clone() });
            }
            return;
        }
        let kept = room > 0;
        let stored = outbox.out.stored().saturating_sub(begin.number).min(if kept { room } else { u64::MAX });
        let letters: Vec<Letter> = refused
            .take_while(|(_, refusal)| *refusal == Some(reason))
            .take(usize::try_from(stored).unwrap_or(usize::MAX))
            .map_while(|(record, _)| spelling.letter(record))
            .collect();
        if letters.is_empty() {
            // In the asynchronous mode they are stored now; only what is stored can be dropped there.
            outbox.out.hold();
        } else if kept {
            self.storage.put_aside += letters.len() as u64;
            outbox.put_aside(Aside { first: begin.number, letters, reason });
        } else {
            outbox.out.drop_through(begin.number + letters.len() as u64 - 1, gap_of(reason));
            for (topic, count) in topics_of(&letters) {
                let loss = Loss { name: &state.name, topic, reason, kept };
                self.events.extend(self.tally.add(self.now, loss, count));
            }
            if let Some(conn) = state.conn {
                self.conns.list(conn);
            }
        }
        self.list(id);
    }
}
