//! Who subscribes to what: rows that peers tell after the handshake.
//!
//! What a peer says of itself is treated here, what it says of others in [`mesh`](super::mesh).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::conn::Framing;
use super::event::Event;
use super::storage::Staged;
use super::topics::Subscribed;
use super::{OutboxId, PeerId, Router, TopicId};
use crate::delivery::SendMode;
use crate::seal;
use crate::timer::{Deadline, Wakeup};
use crate::wire::control::{CloseReason, NUMBERED_HEAD, TopicFull};
use crate::wire::page::{Change, Page, PageBuilder, Row};

/// Stands before the address of a subscriber that has no name of its own, in the directory's rows.
const EPHEMERAL: char = '~';

/// A page of the directory in one frame.
const PAGE_BYTES: usize = 1500;

impl Router {
    /// The node's own rows have changed: every peer is told.
    pub(super) fn announce(&mut self) {
        for peer in self.peers.iter() {
            if let Some(conn) = peer.conn {
                self.conns.list(conn);
            }
        }
    }

    /// Gives the pages with the node's own rows and those of others, if a peer does not know them. A device is told nothing.
    pub(super) fn build_pages(&mut self, peer: PeerId, mut each: impl FnMut(&[u8])) {
        let version = self.rows_version;
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let on_line =
            state.conn.and_then(|id| self.conns.get(id)).is_some_and(|conn| conn.framing == Framing::Cobs);
        let frame_max = state.about.map_or(0, |about| about.frame_max as usize);
        let is_device = on_line && (state.bindings_max() < 64 || frame_max < PAGE_BYTES + 16);
        if state.rows_told == version || is_device || !self.config.takes {
            return;
        }
        let known = core::mem::replace(&mut state.rows_told, version);
        let conn = state.conn;
        let mut scratch = [0; PAGE_BYTES];
        let room = PAGE_BYTES.min(frame_max.saturating_sub(seal::LEN + NUMBERED_HEAD));
        let Some(rows) = self.rows_for(peer, known) else {
            // It has not read for so long that nobody knows any more what it would have to hear. In its next session it hears all.
            return conn.into_iter().for_each(|conn| self.conns.close(conn, CloseReason::Overloaded));
        };
        let mut rows = rows.into_iter().peekable();
        loop {
            let place = scratch.get_mut(..room).unwrap_or_default();
            let Ok(mut page) = PageBuilder::new(place, version) else { return };
            while let Some(row) = rows.peek() {
                // A row that is longer than a frame cannot be told.
                if !page.push(row) && page.count() > 0 {
                    break;
                }
                rows.next();
            }
            let last = rows.peek().is_none();
            let len = page.finish(last);
            each(scratch.get(..len).unwrap_or_default());
            if last {
                return;
            }
        }
    }

    pub(super) fn handle_page(&mut self, peer: PeerId, page: &Page<'_>) -> Result<(), CloseReason> {
        for row in page.rows() {
            let row = row.map_err(CloseReason::from)?;
            let name = self.peers.get(peer.0).map(|peer| peer.name.clone()).unwrap_or_default();
            if row.name != &*name {
                self.hear(peer, &row);
                continue;
            }
            if let Some(state) = self.peers.get_mut(peer.0) {
                state.whereabouts.tell(row.address);
            }
            if row.topic.is_empty() {
                // It takes nothing, and says where it is.
                continue;
            }
            let topic = self.intern_bounded(row.topic)?;
            if self.storage.is_staged_full() {
                // A row that only memory knows would be forgotten with it: the peer tells it again.
                return Err(CloseReason::Overloaded);
            }
            match row.change {
                Change::Add => {
                    let max = self.topics_share();
                    let heard = self.topics.heard_rows(peer);
                    if let Some(state) = self.peers.get_mut(peer.0) {
                        // Until a version is told whole, the rows of the one before it stand beside it. For what others say of it the
                        // peer does not answer.
                        if state.rows_seen.len() >= max || state.rows.saturating_sub(heard) >= 2 * max {
                            return Err(CloseReason::Overloaded);
                        }
                        state.durable |= row.durable;
                        state.rows_seen.push(topic);
                    }
                    let subscribed = self.add_row(topic, peer, &address_of(&row));
                    let is_new = subscribed != Subscribed::Before;
                    if let Subscribed::Elsewhere(address) = subscribed {
                        self.stage_unsubscribe(topic, peer, address);
                    }
                    if is_new {
                        self.storage.stage(Staged::Subscribe { topic, peer });
                        self.note_change(peer);
                    }
                }
                Change::Remove => {
                    if let Some(row) = self.topics.unsubscribe(topic, peer) {
                        if let Some(state) = self.peers.get_mut(peer.0) {
                            state.rows -= 1;
                        }
                        self.events.push(Event::Unsubscribed { name, topic: self.topics.text(topic).into() });
                        self.note_change(peer);
                        self.stage_removed(topic, row);
                    }
                }
            }
        }
        if page.last {
            // A version is told whole: what is not in it is not subscribed any more.
            let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
            let seen = core::mem::take(&mut state.rows_seen);
            for (topic, row) in self.remove_rows(peer, &seen) {
                self.note_change(peer);
                self.stage_removed(topic, row);
            }
            self.note_unwanted(peer);
            self.note_rows(peer);
            self.learn(peer);
        }
        Ok(())
    }

    pub(super) fn note_change(&mut self, peer: PeerId) {
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.whereabouts.is_changed = true;
        }
    }

    /// Has the store forget a row that is gone, if it knows it.
    pub(super) fn stage_removed(&mut self, topic: TopicId, row: super::topics::Row) {
        if !row.heard {
            self.stage_unsubscribe(topic, row.peer, row.address);
        }
    }

    /// Has the store forget the row of a peer at an address.
    pub(super) fn stage_unsubscribe(&mut self, topic: TopicId, peer: PeerId, address: Box<str>) {
        let Some(name) = self.peers.get(peer.0).map(|state| state.name.clone()) else { return };
        self.stage_hidden(topic, peer, &address);
        self.storage.stage(Staged::Unsubscribe { topic, address, name });
    }

    /// The row of a peer goes. A store has one row for a topic and an address: if another node has been there before, its row is written
    /// again. In a directory that nodes share each sees to its own.
    pub(super) fn stage_hidden(&mut self, topic: TopicId, peer: PeerId, address: &str) {
        let is_hidden =
            |row: &&super::topics::Row| !row.heard && row.peer != peer && *row.address == *address;
        let hidden = self.topics.rows(topic).iter().find(is_hidden).map(|row| row.peer);
        if let Some(peer) = hidden.filter(|_| self.config.catalog.is_none()) {
            self.storage.stage(Staged::Subscribe { topic, peer });
        }
    }

    /// The peer has told all that it takes: what is queued for it by now on another topic is not sent any more. One that hands
    /// on what it takes has no rows for that.
    fn note_unwanted(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0).filter(|state| !state.takes_custody()) else { return };
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) else { return };
        let wanted = outbox.topics.iter().all(|topic| self.topics.has_row(*topic, peer));
        let all_numbered = outbox.topics.len() < outbox.numbers_max;
        outbox.unwanted_through = if wanted && all_numbered { 0 } else { outbox.out.next() - 1 };
        if let Some(conn) = state.conn {
            self.conns.list(conn);
        }
    }

    /// Adds a row, or changes its address.
    pub(super) fn add_row(&mut self, topic: TopicId, peer: PeerId, address: &str) -> Subscribed {
        let subscribed = self.topics.subscribe(topic, peer, address);
        if let Some(state) = self.peers.get_mut(peer.0)
            && subscribed == Subscribed::New
        {
            state.rows += 1;
            state.subscribed = true;
            if self.started {
                let (name, topic) = (state.name.clone(), self.topics.text(topic).into());
                self.events.push(Event::Subscribed { name, topic });
            }
            self.reopen_topic(topic);
        }
        subscribed
    }

    /// Takes a peer out of every topic but those to `keep`.
    pub(super) fn remove_rows(
        &mut self,
        peer: PeerId,
        keep: &[TopicId],
    ) -> Vec<(TopicId, super::topics::Row)> {
        let Some(state) = self.peers.get_mut(peer.0).filter(|state| state.rows > 0) else {
            return Vec::new();
        };
        let removed = self.topics.remove_peer(peer, keep);
        state.rows -= removed.len();
        for (topic, _) in &removed {
            let (name, topic) = (state.name.clone(), self.topics.text(*topic).into());
            self.events.push(Event::Unsubscribed { name, topic });
        }
        removed
    }

    /// The peer keeps no more of a topic, or takes it again.
    pub(super) fn handle_topic_full(
        &mut self,
        peer: PeerId,
        full: &TopicFull<'_>,
    ) -> Result<(), CloseReason> {
        let topic = self.intern_bounded(full.topic)?;
        let share = self.topics_share();
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        state.full.retain(|other| *other != topic);
        if full.after > 0 {
            if state.full.len() >= share {
                return Err(CloseReason::Overloaded);
            }
            state.full.push(topic);
            self.events.push(Event::TopicFull { topic: full.topic.into() });
        } else if let Some(conn) = state.conn {
            self.conns.list(conn);
        }
        Ok(())
    }

    // ------------------------------------------------------------------ patience

    /// Messages that a peer does not even receive reset its session.
    pub(super) fn check_stalls(&mut self) {
        for peer in self.peers.iter() {
            let Some(conn) = peer.conn else { continue };
            // A line sends again what does not arrive, and goes on with that.
            if self.conns.get(conn).is_some_and(|conn| conn.line.is_some()) {
                continue;
            }
            let Some(outbox) = peer.outbox.and_then(|id| self.outboxes.get(id.0)) else { continue };
            if outbox.out.stalled_since().is_some_and(|since| since + self.config.timing.stall <= self.now) {
                self.conns.close(conn, CloseReason::Timeout);
            }
        }
    }

    pub(super) fn write_behind_deadline(&self) -> Option<Deadline> {
        if self.config.send_mode == SendMode::Stored {
            return None;
        }
        let waits = self.outboxes.iter().filter_map(|outbox| outbox.out.write_behind_at());
        waits.min().map(|at| (at, Wakeup::WriteBehind))
    }

    pub(super) fn check_all_written(&mut self) {
        if self.config.send_mode == SendMode::Stored {
            return;
        }
        for id in self.outboxes.ids() {
            self.check_write_behind(OutboxId(id));
        }
    }

    pub(super) fn check_write_behind(&mut self, id: OutboxId) {
        let patience = self.config.timing.write_behind;
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        outbox.out.handle_write_behind(self.now, patience);
        if !outbox.listed {
            self.list(id);
        }
    }
}

/// The address of a row as it is kept: `@name` for a node that only dials, behind a mark if the subscriber is ephemeral.
fn address_of(row: &Row<'_>) -> String {
    let mark = if row.durable { "" } else { "~" };
    alloc::format!("{mark}{}", own_address(row.address, row.name))
}

/// The address of a node's own rows: `@name` if it only dials.
pub(super) fn own_address(address: &str, name: &str) -> String {
    if address.is_empty() { alloc::format!("@{name}") } else { address.into() }
}

/// Whether a row with this address is that of an ephemeral subscriber.
pub(super) fn is_ephemeral(address: &str) -> bool {
    address.starts_with(EPHEMERAL)
}
