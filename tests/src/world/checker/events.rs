//! What nodes say of themselves, and what is done to them.

use liner_proto::delivery::SendMode;
use liner_proto::effect::GapReason;
use liner_proto::router::Event;
use liner_proto::store::HeapStore;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;

use super::rules::Rule;
use super::shadow::{Key, Shadow};
use super::{Checker, Role, TURN_MESSAGES};
use crate::world::disk::Aftermath;

impl Checker {
    /// A node says that it sends nothing to this peer.
    pub fn on_held(&mut self, node: usize, peer: usize) {
        let name = self.nodes[peer].name.clone();
        self.nodes[node].held.push(name);
    }

    /// A device's application drops a message that its gateway does not take.
    pub fn on_dropping(&mut self, node: usize) {
        self.nodes[node].drops = true;
    }

    /// A node tells its application something.
    pub fn on_event(&mut self, node: usize, event: &Event) {
        if let Event::SubscriberGone { name, .. } = event {
            self.nodes[node].gone.push(name.to_string());
            // Copies for all that no disk has had yet leave no other trace.
            for (_, id) in &self.nodes[node].unstored {
                if let Some(sent) = self.ledger.get_mut(*id) {
                    sent.dropped |= sent.mode == Mode::All;
                }
            }
        }
        if let Event::PeerUp { name, .. } = event {
            self.revived += u64::from(self.nodes[node].gone.iter().any(|gone| **gone == **name));
        }
        if let Event::WeakAcks { name, .. } = event {
            self.nodes[node].held.push(name.to_string());
        }
        if let Event::PeerDown { name, reason, .. } = event {
            self.check_accord(node, name, *reason);
        }
        let Event::Gap { from, count, reason } = event else { return };
        let Some(from) = self.node_named(from) else { return };
        let sender = &self.nodes[from];
        let any_loss = self.nodes.iter().any(|node| node.loss.is_some());
        let caused = match reason {
            GapReason::Crashed => sender.mode == SendMode::Asynchronous && sender.crashes > 0,
            GapReason::Missing => any_loss || sender.damaged || sender.gone.contains(&self.nodes[node].name),
            GapReason::Corrupt => sender.damaged,
            GapReason::Dropped => sender.drops || sender.gone.contains(&self.nodes[node].name),
            GapReason::TooLarge => sender.put_aside_for.contains(&self.nodes[node].name),
            GapReason::Cleared => {
                !self.nodes[node].durable || sender.cleared_for.contains(&self.nodes[node].name)
            }
            // What a device's reboot has taken.
            GapReason::Restarted => sender.role == Role::Device && sender.loss.is_some(),
            GapReason::Expired | _ => false,
        };
        self.check(Rule::Gaps, caused, |this| {
            let (from, node) = (&this.nodes[from].name, &this.nodes[node].name);
            format!("{node} was told of {count} numbers of {from} that are {reason:?}, for no reason")
        });
    }

    fn check_accord(&mut self, node: usize, peer: &str, reason: CloseReason) {
        let on_line = self.node_named(peer).is_some_and(|peer| self.nodes[peer].role == Role::Device);
        if self.damaging || on_line || self.is_beyond_promise() {
            return;
        }
        let breach = matches!(
            reason,
            CloseReason::Violation
                | CloseReason::SealBroken
                | CloseReason::OutOfSequence
                | CloseReason::Unsupported
        );
        self.check(Rule::Accord, !breach, |this| {
            format!("{} and {peer} part over {reason:?} on a link that is in order", this.nodes[node].name)
        });
    }

    /// A node's process has died; its disk is what is given here.
    pub fn on_crash(&mut self, node: usize, aftermath: Aftermath, silent: bool, disk: &HeapStore) {
        let ledger = &self.ledger;
        let id_of = |payload: &[u8]| ledger.id_of(payload);
        let watched = &mut self.nodes[node];
        watched.crashes += 1;
        let shadow = Shadow::read(disk, &watched.shadow, self.now, &id_of);
        let before = core::mem::replace(&mut watched.shadow, shadow);
        if aftermath == Aftermath::Kept {
            let same = before.held().eq(watched.shadow.held());
            if !same && !watched.damaged {
                return self.fail(Rule::NoLoss, || "the model's disk lost what was durable".into());
            }
        } else {
            watched.loss = Some(self.now);
        }
        watched.silent |= silent && aftermath == Aftermath::Regressed;
        if aftermath == Aftermath::Regressed && !silent {
            watched.old_epochs.extend(watched.shadow.queues.values().map(|queue| queue.epoch));
        }
        for (_, id) in core::mem::take(&mut watched.unstored) {
            if let Some(sent) = self.ledger.get_mut(id) {
                sent.uncertain = true;
            }
        }
        // What an older store has lost, or has where it was before, is not promised any more.
        let lost: Vec<u32> =
            before.held().filter(|id| !before.holds_alike(&self.nodes[node].shadow, *id)).collect();
        for id in lost {
            if let Some(sent) = self.ledger.get_mut(id) {
                sent.excused = true;
            }
        }
        self.note_doubt(node);
    }

    /// What an application had since its last durable cursor may come again.
    fn note_doubt(&mut self, node: usize) {
        let handled = core::mem::take(&mut self.nodes[node].handled);
        self.nodes[node].open.clear();
        let few = self.nodes[node].late || handled.len() <= TURN_MESSAGES;
        self.check(Rule::Once, few, |_| {
            format!("{} messages were handled since the last commit", handled.len())
        });
        self.nodes[node].doubt.extend(handled.iter().map(|(.., id)| *id));
    }

    /// Some record that a node has stored: its queue and number.
    pub fn some_stored(&self, node: usize, bits: u64) -> Option<(Key, u64)> {
        let queues = &self.nodes[node].shadow.queues;
        let stored =
            || queues.iter().flat_map(|(key, queue)| queue.records.keys().map(move |number| (key, number)));
        let at = bits.checked_rem(stored().count() as u64)?;
        stored().nth(at as usize).map(|(key, number)| (key.clone(), *number))
    }

    /// Stored records of a queue no longer pass their check: which of its messages are lost with them is not foreseen.
    pub fn on_damage(&mut self, node: usize, key: &Key) {
        self.nodes[node].damaged = true;
        let Some(queue) = self.nodes[node].shadow.queues.get(key) else { return };
        for id in queue.records.values() {
            if let Some(sent) = self.ledger.get_mut(*id) {
                sent.excused = true;
            }
        }
    }
}
