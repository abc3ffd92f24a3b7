//! What is known of who takes what, and what waits for whom.

use alloc::vec::Vec;

use super::{OutboxId, PeerId, Router};
use crate::time::Instant;

/// A node that takes a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address<'a> {
    /// Where it listens; `@` and its name if it only dials others.
    pub address: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whether its session is up; it is away otherwise.
    pub is_up: bool,
}

/// What is queued for a node, or for whoever answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuedFor<'a> {
    /// Its name; empty as long as nobody has answered at the address.
    pub name: &'a str,
    /// Where it listens; empty if nobody knows.
    pub address: &'a str,
    /// Messages that it has not acknowledged; gaps count with their numbers.
    pub messages: u64,
}

impl Router {
    /// The nodes that are known to take a topic, by their addresses.
    pub fn addresses(&self, topic: &str) -> Vec<Address<'_>> {
        let rows = self.topics.find(topic).map_or(&[][..], |topic| self.topics.rows(topic));
        let known = rows.iter().filter_map(|row| {
            let state = self.peers.get(row.peer.0)?;
            let address = row.address.trim_start_matches('~');
            Some(Address { address, name: &state.name, is_up: state.conn.is_some() })
        });
        let mut addresses: Vec<_> = known.collect();
        addresses.sort_unstable();
        addresses
    }

    /// What waits for each node for which something does, by their names. What is kept for the first subscriber of a topic waits for
    /// nobody yet.
    pub fn queued_by_peer(&self) -> Vec<QueuedFor<'_>> {
        let queued = |id: OutboxId| self.outboxes.get(id.0).map_or(0, |outbox| outbox.out.queued());
        let peers = self.peers.iter().filter_map(|state| {
            let address = state.whereabouts.address().unwrap_or_default();
            Some(QueuedFor { name: &state.name, address, messages: queued(state.outbox?) })
        });
        let dials = self.dials.ids().filter_map(|dial| {
            let messages = queued(self.dials.outbox(dial)?);
            Some(QueuedFor { name: "", address: self.dials.address(dial), messages })
        });
        let mut waiting: Vec<_> = peers.chain(dials).filter(|waiting| waiting.messages > 0).collect();
        waiting.sort_unstable();
        waiting
    }

    /// Forgets who takes a topic, in the store too. What is queued for them stays queued; those who are connected, or connect later,
    /// are known again as soon as they say anew what they take. Returns how many there were. Those stay that the store cannot be told of
    /// now, because too much waits for it: call it again then.
    pub fn clear_topic_rows(&mut self, now: Instant, topic: &str) -> usize {
        self.tick(now);
        let Some(id) = self.topics.find(topic) else { return 0 };
        let mut cleared = 0;
        for peer in self.topics.rows(id).iter().map(|row| row.peer).collect::<Vec<_>>() {
            if self.storage.is_staged_full() {
                break;
            }
            let Some(row) = self.topics.unsubscribe(id, peer) else { continue };
            self.unlearn(peer, topic);
            self.stage_removed(id, row);
            self.note_change(peer);
            if let Some(state) = self.peers.get_mut(peer.0) {
                state.rows -= 1;
                if state.conn.is_some() {
                    self.note_rows(peer);
                } else if state.lease.is_none() {
                    self.set_lease(peer);
                }
            }
            cleared += 1;
        }
        for peer in self.peers.ids().into_iter().map(PeerId) {
            let Some(state) = self.peers.get_mut(peer.0) else { continue };
            let left: Vec<_> = state.left.extract_if(.., |(other, _)| *other == id).collect();
            for (topic, row) in left {
                self.stage_unsubscribe(topic, peer, row.address);
            }
        }
        cleared
    }
}
