//! Topics that nobody needs any more are forgotten when there are too many.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Router, TopicId};
use crate::wire::control::CloseReason;

/// So many peers are needed to use up the topics in one way: no peer can do it to the others.
const PEERS_TO_FILL: usize = 16;

/// A sweep that freed less than one in so many topics was in vain.
const WORTHWHILE: usize = 16;

/// How long there is no other sweep after one in vain.
const PAUSE: Duration = Duration::from_secs(1);

impl Router {
    /// The most topics that one peer may hold by its rows, by what is kept of its messages, and by what is said to be full.
    pub(super) const fn topics_share(&self) -> usize {
        self.config.topics_max / PEERS_TO_FILL
    }

    /// The topic of a text that a peer named: there is an end to those.
    ///
    /// # Errors
    /// `Overloaded` if there are as many as there may be, and all of them are in use.
    pub(super) fn intern_bounded(&mut self, text: &str) -> Result<TopicId, CloseReason> {
        if !self.topics.knows(text) && self.topics.len() >= self.config.topics_max {
            self.sweep_topics();
            if self.topics.len() >= self.config.topics_max {
                return Err(CloseReason::Overloaded);
            }
        }
        Ok(self.topics.intern(text))
    }

    /// Looks at all that may refer to a topic: so much work that it has to pay. Either it frees a good part of the topics, and
    /// as many have to be named before the next sweep, or the next one has to wait.
    fn sweep_topics(&mut self) {
        if self.swept_in_vain.is_some_and(|at| self.now < at + PAUSE) {
            return;
        }
        let used = self.topics_in_use();
        let freed = self.topics.sweep(&used);
        self.swept_in_vain = (freed * WORTHWHILE < self.config.topics_max).then_some(self.now);
    }

    /// By their places, those to which anything but the topics themselves refers.
    fn topics_in_use(&self) -> Vec<bool> {
        let mut used = alloc::vec![false; self.topics.places()];
        let mut mark = |topic: TopicId| {
            if let Some(used) = used.get_mut(topic.0) {
                *used = true;
            }
        };
        for outbox in self.outboxes.iter() {
            outbox.topics.iter().copied().for_each(&mut mark);
        }
        for peer in self.peers.iter() {
            peer.each_topic(&mut mark);
        }
        self.storage.each_topic(&mut mark);
        self.inbox_lines.each_topic(&mut mark);
        self.own.receipts.each_topic(&mut mark);
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Class;
    use crate::router::NodeConfig;
    use crate::time::Instant;

    #[test]
    fn a_topic_that_was_never_taken_is_not_remembered_for_being_given_up() {
        let now = Instant::from_micros(1);
        let mut router = Router::new(NodeConfig::new("w", [1, 2], Class::Ram), now);
        for topic in ["a", "b"] {
            assert!(!router.unsubscribe(now, topic));
        }
        assert_eq!(router.topics.len(), 0);
    }
}
