//! Messages in doubt: a peer has forgotten what it had of this node's stream, and may have had them.
//!
//! Unless they are simply to come again, the stream begins a new epoch then: its predecessor says, in the store too, how many of its
//! messages were sent before. So the question outlives this process and any number of sessions, until the last of them is
//! acknowledged.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;

use super::event::Event;
use super::outbox::Outbox;
use super::{PeerId, Router};
use crate::delivery::Resumed;
use crate::time::Instant;

/// What becomes of messages that a peer may have had before it forgot this node's stream: a device that was switched off, or a node
/// without its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InDoubt {
    /// They come again, marked `maybe_redelivered`.
    #[default]
    Redeliver,
    /// They become dead letters, and the peer is told of a gap.
    DeadLetter,
    /// They wait, and what is behind them with them, until [`Router::resolve_doubt`].
    Ask,
}

/// What becomes of messages that waited for that to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They come again, marked `maybe_redelivered`.
    Redeliver,
    /// They become dead letters, and the peer is told of a gap.
    DeadLetter,
}

/// Who is treated how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InDoubtPolicy {
    /// Those without a rule of their own.
    pub default: InDoubt,
    /// Rules by the names of nodes.
    pub by_name: BTreeMap<String, InDoubt>,
}

impl InDoubtPolicy {
    /// What holds for the node `name`.
    pub fn of(&self, name: &str) -> InDoubt {
        self.by_name.get(name).copied().unwrap_or(self.default)
    }
}

/// What is being done about the messages in doubt of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It is not known yet whether there are any.
    #[default]
    Open,
    Held,
    Decided(Decision),
    /// There is none: they came again, as was decided, or the epoch began because this node's state went backwards. Should the
    /// peer forget after that, there is.
    Settled,
}

impl Outbox {
    /// The last message that was sent before the epoch began.
    fn sent_before_epoch(&self) -> u64 {
        self.out.predecessor().map_or(0, |before| before.count)
    }

    /// A peer was just met. Says whether the queue needs a new epoch before a session can begin.
    pub(super) fn needs_epoch(&mut self, resumed: Resumed, has_forgotten: bool, policy: InDoubt) -> bool {
        let has_forgotten = has_forgotten || resumed == Resumed::Forgotten;
        // One that is wanted already would begin in the middle of the session.
        self.rotate_wanted |= resumed == Resumed::Regressed || self.begins_doubt(has_forgotten, policy);
        if self.doubt == Doubt::Settled && !self.rotate_wanted {
            self.doubt = if has_forgotten { Doubt::Open } else { Doubt::Decided(Decision::Redeliver) };
        }
        self.rotate_wanted
    }

    /// Whether the peer has forgotten messages that it may have had, and the store is not told yet how many those are.
    fn begins_doubt(&mut self, has_forgotten: bool, policy: InDoubt) -> bool {
        let known = self.out.acked().max(self.sent_before_epoch());
        let begins = has_forgotten && policy != InDoubt::Redeliver && self.out.sent_through() > known;
        self.forgotten |= begins;
        begins
    }

    /// Whether somebody may still have to be asked.
    pub(super) fn has_question(&self) -> bool {
        let is_answered = matches!(self.doubt, Doubt::Settled | Doubt::Decided(Decision::Redeliver));
        !is_answered && self.sent_before_epoch() > self.out.acked()
    }

    /// The session is over.
    pub(super) fn handle_link_down(&mut self) {
        let in_flight = self.out.sent() > self.out.acked() + 1;
        if in_flight && self.doubt == Doubt::Decided(Decision::Redeliver) {
            self.doubt = Doubt::Settled;
        }
        self.out.handle_link_down();
    }

    /// A session begins. Says how many messages there is to ask about.
    fn meet_doubt(&mut self, policy: InDoubt) -> Option<u64> {
        let count = self.sent_before_epoch().saturating_sub(self.out.acked());
        if count == 0 {
            self.doubt = Doubt::Open;
            return None;
        }
        self.doubt = match (self.doubt, policy) {
            (Doubt::Decided(decision), _) => Doubt::Decided(decision),
            (_, InDoubt::Redeliver) => Doubt::Decided(Decision::Redeliver),
            (_, InDoubt::DeadLetter) => Doubt::Decided(Decision::DeadLetter),
            (_, InDoubt::Ask) => Doubt::Held,
        };
        (self.doubt == Doubt::Held).then_some(count)
    }

    /// Whether it waits for a decision.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt == Doubt::Held && self.out.acked() < self.sent_before_epoch()
    }

    /// Messages up to this one are not sent again.
    pub(super) fn given_up_through(&self) -> u64 {
        if self.doubt == Doubt::Decided(Decision::DeadLetter) { self.sent_before_epoch() } else { 0 }
    }
}

impl Router {
    /// Decides what becomes of the messages for the node `name` that it may have had before: see
    /// [`Event::InDoubt`]. Says whether there were any that waited for that. The decision is not stored: if this node is started
    /// anew before it was carried out, its configuration counts. If the node forgets again what it had, that is asked anew.
    pub fn resolve_doubt(&mut self, now: Instant, name: &str, decision: Decision) -> bool {
        self.tick(now);
        let Some(&peer) = self.names.get(name) else { return false };
        let Some(id) = self.peers.get(peer.0).and_then(|peer| peer.outbox) else { return false };
        let Some(outbox) = self.outboxes.get_mut(id.0).filter(|outbox| outbox.is_in_doubt()) else {
            return false;
        };
        outbox.doubt = Doubt::Decided(decision);
        self.list(id);
        self.list_conn_of(id);
        true
    }

    /// The session of a peer has begun.
    pub(super) fn meet_doubt(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0) else { return };
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) else { return };
        if let Some(count) = outbox.meet_doubt(self.config.in_doubt.of(&state.name)) {
            self.events.push(Event::InDoubt { name: state.name.clone(), count });
        }
    }

    /// Names of the nodes for which messages wait until [`resolve_doubt`](Self::resolve_doubt).
    pub fn in_doubt(&self) -> impl Iterator<Item = &str> {
        self.outboxes.iter().filter(|outbox| outbox.is_in_doubt()).map(|outbox| outbox.key.queue().name())
    }
}

/// The new epoch of a queue, in words for whoever has to know.
pub(super) fn rotated(queue: Box<str>, forgotten: bool) -> Option<Event> {
    // That of a peer which has forgotten is told when it is there again.
    (!forgotten).then_some(Event::Regressed { queue })
}
