//! Receivers that whoever builds the node knows from the start.

use super::storage::Staged;
use super::topics::Subscribed;
use super::{NAME_BYTES_MAX, Router};
use crate::time::Instant;

impl Router {
    /// Names somebody who takes a topic, and where it listens, as an operator does by a row in the store's directory: the row is
    /// stored, has no lease, and stays until its node says that it takes the topic no more. The node's own name is passed over.
    pub fn add_receiver(&mut self, now: Instant, topic: &str, address: &str, name: &str) {
        self.tick(now);
        let fits = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        if name == self.config.name || ![topic, address, name].into_iter().all(fits) {
            return;
        }
        let topic = self.topics.intern(topic);
        let peer = self.peer_named(name);
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.durable = true;
            state.whereabouts.restore(address);
        }
        let subscribed = self.add_row(topic, peer, address);
        if let Subscribed::Elsewhere(address) = &subscribed {
            self.stage_unsubscribe(topic, peer, address.clone());
        }
        if subscribed != Subscribed::Before {
            self.storage.stage(Staged::Subscribe { topic, peer });
        }
        self.handle_met(peer);
        self.seek(peer);
    }
}
