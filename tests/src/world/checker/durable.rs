//! Rules that are checked when a disk has made something durable.

use liner_proto::effect::{DeadReason, GapReason, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::wire::record::Mode;

use super::ledger::Way;
use super::rules::Rule;
use super::shadow::{Changes, Dead, Key, Moved, Removed};
use super::{Aside, Checker, Role};

impl Checker {
    /// A group of the node is durable.
    pub fn on_durable(&mut self, node: usize, ops: &[StoreOp<'_>]) {
        let ledger = &self.ledger;
        let id_of = |payload: &[u8]| ledger.id_of(payload);
        let changes = self.nodes[node].shadow.apply(ops, self.now, &id_of);
        self.note_added(node, &changes);
        self.closed += u64::from(changes.closed);
        for moved in &changes.moved {
            self.check_cursor(node, moved);
        }
        for removed in &changes.removed {
            self.check_removed(node, removed);
        }
    }

    fn note_added(&mut self, node: usize, changes: &Changes) {
        for (key, epoch, number, id) in &changes.added {
            if let (Key::Topic(_), Some(sent)) = (key, self.ledger.get_mut(*id)) {
                sent.kept_at = Some(node);
            }
            let Key::Node(name) = key else { continue };
            let Some(to) = self.node_named(name) else { continue };
            let way = Way { from: node, to, epoch: *epoch, number: *number, at: u64::MAX };
            self.bind(way, *id);
        }
        for dead in &changes.dead {
            self.note_dead(node, dead);
        }
    }

    fn note_dead(&mut self, node: usize, dead: &Dead) {
        if let Some(sent) = self.ledger.get_mut(dead.id) {
            sent.dead[node] = true;
        }
        if dead.reason == DeadReason::Unsubscribed {
            self.check_unsubscribed(node, dead);
        }
        if dead.reason != DeadReason::TooLarge {
            return;
        }
        let takes = self.node_named(&dead.peer).map_or(0, |to| self.nodes[to].record_max);
        self.nodes[node].put_aside_for.push(dead.peer.clone());
        self.check(Rule::NoLoss, takes < dead.len, |this| {
            let name = &this.nodes[node].name;
            format!("{name} puts message {} aside, whose record {} takes: {dead:?}", dead.id, dead.peer)
        });
    }

    /// Only what is on a topic that its receiver does not take is put aside for that reason, by either side.
    fn check_unsubscribed(&mut self, node: usize, dead: &Dead) {
        let Some(topic) = self.ledger.get(dead.id).map(|sent| sent.topic) else { return };
        let to = match self.nodes[node].role {
            Role::Subscriber => Some(node),
            Role::Publisher | Role::Gateway | Role::Device => self.node_named(&dead.peer),
        };
        let takes = to.is_some_and(|to| self.nodes[to].subscribes.contains(&topic));
        self.nodes[node].cleared_for.push(dead.peer.clone());
        self.check(Rule::NoLoss, !takes, |this| {
            format!(
                "{} puts message {} aside, whose topic is taken: {dead:?}",
                this.nodes[node].name, dead.id
            )
        });
    }

    /// What a receiver does not take any more leaves the queue for the dead letters, or is dropped if it has no name of its own.
    fn check_cleared(&mut self, node: usize, removed: &Removed, id: u32) {
        let Key::Node(name) = &removed.key else { return };
        let Some(to) = self.node_named(name) else { return };
        // What was acknowledged before goes with it.
        let passed = self.is_passed_on(node, to, id);
        let (takes, durable) = (&self.nodes[to].subscribes, self.nodes[to].durable);
        let Some(sent) = self.ledger.get_mut(id) else { return };
        let waived = !durable && !takes.contains(&sent.topic);
        sent.dropped |= waived;
        let fine = passed || waived || sent.dead[node];
        self.check(Rule::NoLoss, fine, |this| {
            format!("{} drops message {id} as not wanted, and it is no dead letter", this.nodes[node].name)
        });
    }

    /// What the peer does not take leaves the queue for the dead letters in one group.
    fn check_put_aside(&mut self, node: usize, removed: &Removed, (number, id): (u64, u32)) {
        let dead = self.ledger.get(id).is_some_and(|sent| sent.dead[node]);
        self.check(Rule::NoLoss, dead, |this| {
            format!("{} drops message {id} as too large, and it is no dead letter", this.nodes[node].name)
        });
        let Key::Node(name) = &removed.key else { return };
        let Some(to) = self.node_named(name) else { return };
        self.asides.push(Aside { from: node, to, epoch: removed.epoch, number, id });
    }

    /// A number belongs to one message for ever.
    pub(super) fn bind(&mut self, way: Way, id: u32) {
        let other = self.ledger.bind(way, id);
        // Until it has an epoch a stream has no numbers that mean anything.
        if self.nodes[way.from].silent || way.epoch.is_none() {
            return;
        }
        self.check(Rule::Regression, other.is_none(), |this| {
            let (from, to) = (&this.nodes[way.from].name, &this.nodes[way.to].name);
            let Way { number, epoch, .. } = way;
            format!("{from} gives number {number} of epoch {epoch} to {to} to messages {other:?} and {id}")
        });
    }

    /// Whether the node's cursor for a stream was durable at this number at some time.
    pub(super) fn has_committed(&self, node: usize, from: usize, epoch: Epoch, number: u64) -> bool {
        let committed = &self.nodes[node].committed;
        committed
            .iter()
            .any(|(sender, known, through)| *sender == from && *known == epoch && *through >= number)
    }

    /// The cursor may pass a message only if the node has it: its application had it, or a disk has it for the next hop.
    fn check_cursor(&mut self, node: usize, moved: &Moved) {
        let Some(from) = self.node_named(&moved.peer) else {
            return self.fail(Rule::OnlyFromPeers, || format!("a cursor for {}, who is no node", moved.peer));
        };
        let stream = (from, node, moved.epoch);
        // A cursor in another epoch begins wherever the sender said it does.
        let above = moved.from.unwrap_or(0);
        let passed = self.ledger.on_wire(stream, above, moved.through);
        let passed = passed.filter(|(number, _)| !self.ledger.is_gap(stream, *number));
        let passed: Vec<u32> = passed.map(|(_, id)| id).collect();
        for id in passed {
            let Some(sent) = self.ledger.get(id) else { continue };
            let has = sent.delivered[node].is_some()
                || self.is_beyond_promise()
                || sent.dropped
                || self.was_returned(id)
                || sent.dead[node]
                || self.nodes[node].shadow.holds(id)
                || self.is_passed_on(from, node, id);
            self.check(Rule::NeverDiscardNew, has, |this| {
                let name = &this.nodes[node].name;
                format!("the cursor of {name} passes message {id} ({stream:?}), and {name} does not have it: {:?}", this.ledger.get(id))
            });
            self.check_custody(node, from, id);
        }
        let (epoch, through) = (moved.epoch, moved.through);
        let open = self.nodes[node].open.iter().find(|(_, sender, known, number)| {
            *sender == from && *known == epoch && *number <= through && moved.from.is_some()
        });
        let open = open.copied();
        self.check(Rule::AckAfterCommit, open.is_none(), |this| {
            format!("the cursor of {} covers what is not settled: {open:?}", this.nodes[node].name)
        });
        let watched = &mut self.nodes[node];
        watched
            .handled
            .retain(|(sender, known, number, _)| *sender != from || *known != epoch || *number > through);
        match watched.committed.iter_mut().find(|(sender, known, _)| (*sender, *known) == (from, epoch)) {
            Some(entry) => entry.2 = entry.2.max(through),
            None => watched.committed.push((from, epoch, through)),
        }
    }

    /// Custody of a message for all is taken for every subscriber that the gateway's disk knew before it was sent.
    fn check_custody(&mut self, node: usize, from: usize, id: u32) {
        let Some(sent) = self.ledger.get(id) else { return };
        if self.nodes[node].role != Role::Gateway || sent.mode != Mode::All || from != sent.node {
            return;
        }
        let Some(first) = sent.ways.iter().filter(|way| way.to == node).map(|way| way.at).min() else {
            return;
        };
        let topic = &self.topics[sent.topic];
        let already = self.is_beyond_promise()
            || sent.dropped
            || sent.arrived()
            || sent.dead[node]
            // It was taken over before, in an earlier epoch, and has been damaged since.
            || (sent.excused && self.nodes[node].damaged)
            // The sender has put it aside, and told the gateway of a gap.
            || self.asides.iter().any(|aside| (aside.from, aside.to, aside.id) == (from, node, id))
            || self.nodes[node].loss.is_some();
        if already || self.nodes[node].subscribes.contains(&sent.topic) {
            return;
        }
        let shadow = &self.nodes[node].shadow;
        let kept = Key::Topic(topic.clone());
        let rows = shadow.rows.range((topic.clone(), String::new())..);
        let missing = rows
            .take_while(|((on, _), _)| on == topic)
            .filter(|((_, name), since)| **since < first && *name != self.nodes[from].name)
            .map(|((_, name), _)| name)
            .filter(|name| !self.nodes[node].gone.contains(name))
            .find(|name| !shadow.holds_in(&Key::Node((*name).clone()), id) && !shadow.holds_in(&kept, id))
            .cloned();
        self.check(Rule::CustodyAtomic, missing.is_none(), |this| {
            format!("{} took message {id} over, but not for {missing:?}", this.nodes[node].name)
        });
    }

    /// A sender forgets what the receiver has committed, what it has moved, and what a policy dropped.
    fn check_removed(&mut self, node: usize, removed: &Removed) {
        let gone = matches!(&removed.key, Key::Node(name) if self.nodes[node].gone.contains(name));
        for &(number, id) in &removed.records {
            let all = self.ledger.get(id).is_some_and(|sent| sent.mode == Mode::All);
            if removed.dropped == Some(GapReason::TooLarge) {
                self.check_put_aside(node, removed, (number, id));
                continue;
            }
            if removed.dropped == Some(GapReason::Cleared) {
                self.check_cleared(node, removed, id);
                continue;
            }
            let dropped = removed.dropped.is_some();
            self.nodes[node].drops |= dropped;
            if dropped || (gone && all) {
                if let Some(sent) = self.ledger.get_mut(id) {
                    sent.dropped = true;
                }
                continue;
            }
            let moved = || self.nodes[node].shadow.holds(id) || self.is_passed_from(node, id);
            let silent = self.nodes[node].silent;
            let sent_excused = self.ledger.get(id).is_some_and(|sent| sent.excused);
            let committed = match &removed.key {
                // What is damaged is told as a gap, wherever it was to go.
                _ if silent || (self.nodes[node].damaged && sent_excused) => true,
                Key::Node(name) => {
                    self.node_named(name).is_some_and(|to| self.is_passed_on(node, to, id))
                        || (gone && moved())
                }
                Key::Topic(_) | Key::Address(_) => moved(),
            };
            self.check(Rule::DeleteAfterAck, committed, |this| {
                let name = &this.nodes[node].name;
                format!(
                    "{name} deletes message {id}, number {number} of {:?}, which nobody has committed: {:?}",
                    removed.key,
                    this.ledger.get(id)
                )
            });
        }
    }

    /// Whether the node `to` has committed the message on the stream `from` → `to`, in whatever epoch.
    pub(super) fn is_passed_on(&self, from: usize, to: usize, id: u32) -> bool {
        let Some(sent) = self.ledger.get(id) else { return false };
        let mut ways = sent.ways.iter().filter(|way| (way.from, way.to) == (from, to));
        ways.any(|way| self.has_committed(to, from, way.epoch, way.number))
    }
}
