//! How much may be queued for one node, and what happens when that is reached.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::outbox::{Key, Outbox};
use super::tally::Loss;
use super::{OutboxId, Router, SendError, TopicId};
use crate::effect::{DeadReason, GapReason};

/// How much may be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Messages.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

impl Quota {
    /// 100,000 messages, 256 MiB.
    pub const DEFAULT: Self = Self { messages: 100_000, bytes: 256 * 1024 * 1024 };

    /// For one node: 10,000,000 messages, 4 GiB.
    pub const QUEUE: Self = Self { messages: 10_000_000, bytes: 4 * 1024 * 1024 * 1024 };

    /// Whether nothing may be queued.
    pub(super) const fn is_none(self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}

/// What becomes of a message that a node sends when as much is queued for its receiver as may be. It is about the node's own messages;
/// those that it has taken over for others become dead letters, and once there is no room for those, the oldest are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueuePolicy {
    /// The send fails with [`SendError::Busy`].
    #[default]
    Refuse,
    /// The oldest messages make way: they are gone, which is told with their number ([`Event::Dropped`](super::Event::Dropped)), and the
    /// receiver is told of a gap in their place, with the reason [`GapReason::Dropped`]. What is not stored yet cannot make way: a send
    /// fails with [`SendError::Busy`] if nothing else is queued.
    DropOldest,
}

/// Rules for one node by its name, in place of the general ones; for messages that wait for whoever answers at an address, by the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRule {
    /// How much may be queued.
    pub quota: Option<Quota>,
    /// What happens then.
    pub policy: Option<QueuePolicy>,
}

/// [`QueueRule`]s by the names of nodes.
pub type QueueRules = BTreeMap<String, QueueRule>;

/// The oldest messages that one send may push out: of many small ones a large one takes the place of no more.
const DROPS_MAX: u64 = 1024;

impl Router {
    /// Whether one more message of this node's own may be queued.
    pub(super) fn check_quota(&mut self, id: OutboxId) -> Result<(), SendError> {
        let refuses = self.is_queue_full(id)
            && (self.queue_policy(id) == QueuePolicy::Refuse
                || self.outboxes.get(id.0).is_none_or(|outbox| !outbox.out.has_droppable()));
        if refuses { Err(SendError::Busy) } else { Ok(()) }
    }

    /// Makes room for one more message of this node's own, as its policy says.
    pub(super) fn make_room_in(&mut self, id: OutboxId, topic: TopicId) {
        if !self.is_queue_full(id) || self.queue_policy(id) != QueuePolicy::DropOldest {
            return;
        }
        let count = self.drop_oldest(id, DROPS_MAX);
        let Some(outbox) = self.outboxes.get(id.0).filter(|_| count > 0) else { return };
        let (name, topic) = (outbox.key.queue().name(), self.topics.text(topic));
        let loss = Loss { name, topic, reason: DeadReason::Quota, kept: false };
        self.events.extend(self.tally.add(self.now, loss, count));
    }

    /// Whether as much is queued for a node, or for whoever answers at an address, as may be.
    #[inline]
    pub(super) fn is_queue_full(&mut self, id: OutboxId) -> bool {
        let (general, rules) = (self.config.queue_quota, &self.config.queue_rules);
        if general.is_none() && rules.is_empty() {
            return false;
        }
        let is_bounded = |outbox: &&mut Outbox| matches!(outbox.key, Key::Node(_) | Key::Address(_));
        let Some(outbox) = self.outboxes.get_mut(id.0).filter(is_bounded) else { return false };
        let own = if rules.is_empty() { None } else { rules.get(outbox.key.queue().name()) };
        own.and_then(|rule| rule.quota).or(general).is_some_and(|quota| outbox.is_over(quota))
    }

    fn queue_policy(&self, id: OutboxId) -> QueuePolicy {
        let outbox = self.outboxes.get(id.0);
        let own = outbox.and_then(|outbox| self.config.queue_rules.get(outbox.key.queue().name()));
        own.and_then(|rule| rule.policy).unwrap_or(self.config.queue_policy)
    }

    /// Drops the oldest messages of a queue that holds as much as it may, until it does not or `most` are dropped. Says how many.
    pub(super) fn drop_oldest(&mut self, id: OutboxId, most: u64) -> u64 {
        let Some(outbox) = self.outboxes.get(id.0) else { return 0 };
        let oldest = outbox.out.gone_through() + 1;
        if let Some(conn) = outbox.peer.and_then(|peer| self.peers.get(peer.0)?.conn) {
            self.keep_in_flight(conn, oldest + most - 1);
            self.conns.list(conn);
        }
        let mut drop = || {
            self.is_queue_full(id)
                && self
                    .outboxes
                    .get_mut(id.0)
                    .is_some_and(|outbox| outbox.out.drop_oldest(GapReason::Dropped))
        };
        let count = (0..most).take_while(|_| drop()).count() as u64;
        self.list(id);
        count
    }
}
