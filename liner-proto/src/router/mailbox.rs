//! Mailboxes: a device tells no rows of the directory, and takes the topic of its name.
//!
//! Its row is like that of a durable subscriber: what is sent to the topic while it is away waits for it, and what was kept
//! before anybody knew it is for it as soon as it connects. A device that has only ever connected leaves no row behind. The row's
//! address is the inbox epoch of the device: so it is known after a restart whether the device has forgotten since what it had.

use alloc::string::String;

use super::conn::Framing;
use super::peer::Peer;
use super::storage::Staged;
use super::topics::{Row, Subscribed};
use super::{PeerId, Router, TopicId};
use crate::id::Epoch;
use crate::wire::control::CloseReason;
use crate::wire::handshake::About;

/// Topic numbers that a host keeps at least.
const HOST_BINDINGS_MIN: usize = 64;

impl Router {
    /// Whether the peer is a device: it is on a line, keeps few topics, and hands nothing on.
    fn is_device(&self, state: &Peer) -> bool {
        let on_line = |conn| self.conns.get(conn).is_some_and(|conn| conn.framing == Framing::Cobs);
        let small = |about: About| about.roles & About::ROLE_CUSTODY == 0;
        state.conn.is_some_and(on_line)
            && state.bindings_max() < HOST_BINDINGS_MIN
            && state.about.is_some_and(small)
    }

    /// The session of a peer has begun. If it is a device, it takes the topic of its name from now on.
    pub(super) fn open_mailbox(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0).filter(|state| self.is_device(state)) else { return };
        let (name, address) =
            (state.name.clone(), address_of(state.about.map_or(Epoch::NONE, |about| about.inbox)));
        let has_row = |row: &Row| row.peer == peer && *row.address == *address;
        let is_open =
            self.topics.find(&name).is_some_and(|topic| self.topics.rows(topic).iter().any(has_row));
        if !is_open && self.storage.is_staged_full() {
            // A row that only memory knows would be forgotten with it. The device comes again.
            let conn = state.conn;
            return conn.into_iter().for_each(|conn| self.conns.close(conn, CloseReason::Overloaded));
        }
        let Ok(topic) = self.intern_bounded(&name) else { return };
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.durable = true;
        }
        let subscribed = self.add_row(topic, peer, &address);
        let is_new = subscribed != Subscribed::Before;
        if let Subscribed::Elsewhere(address) = subscribed {
            self.stage_unsubscribe(topic, peer, address);
        }
        if is_new {
            self.storage.stage(Staged::Subscribe { topic, peer });
        }
    }

    /// Takes the row of a device away that is not connected, if nothing it has sent has to be remembered. Says whether it is
    /// to be looked at again: what it was sent is acknowledged, and not yet settled with the store.
    pub(super) fn close_mailbox(&mut self, peer: PeerId) -> bool {
        let Some(state) = self.peers.get(peer.0) else { return false };
        if state.conn.is_some() || state.rows == 0 || state.has_cursor || state.owes_cursor() {
            return false;
        }
        let Some(topic) = self.mailbox_of(peer, state) else { return false };
        let outbox = state.outbox.and_then(|id| self.outboxes.get(id.0));
        if let Some(outbox) = outbox.filter(|outbox| !outbox.is_spent()) {
            return outbox.out.queued() == 0;
        }
        let Some(row) = self.topics.unsubscribe(topic, peer) else { return false };
        self.stage_unsubscribe(topic, peer, row.address);
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.rows -= 1;
        }
        false
    }

    fn mailbox_of(&self, peer: PeerId, state: &Peer) -> Option<TopicId> {
        let topic = self.topics.find(&state.name)?;
        let mut rows = self.topics.rows(topic).iter();
        rows.any(|row| row.peer == peer && row.address.starts_with(DEVICE)).then_some(topic)
    }
}

/// Stands before the address of a mailbox, in the directory's rows.
const DEVICE: &str = "device:";

/// The address of a device's mailbox: the life of its memory that has had what it has acknowledged.
fn address_of(inbox: Epoch) -> String {
    alloc::format!("{DEVICE}{:016x}", inbox.0)
}

/// The life of a device's memory that a row speaks of, if it is that of a mailbox.
pub(super) fn inbox_of(address: &str) -> Option<Epoch> {
    let inbox = address.strip_prefix(DEVICE)?;
    u64::from_str_radix(inbox, 16).ok().map(Epoch)
}
