//! What must be true of every message once everything has healed.

use liner_proto::wire::record::Mode;

use super::ledger::Sent;
use super::rules::Rule;
use super::shadow::Key;
use super::{Aside, Checker, Role};

impl Checker {
    /// How many messages have not yet come to where they must come.
    pub fn outstanding(&self) -> usize {
        self.ledger.iter().filter(|(id, sent)| self.is_owed(sent) && !self.is_settled(*id, sent)).count()
    }

    /// Everything is at rest: what was stored is accounted for.
    pub fn on_rest(&mut self) {
        self.check_told();
        for id in 0..u32::MAX {
            let Some(sent) = self.ledger.get(id) else { return };
            if !self.is_owed(sent) {
                continue;
            }
            let settled = self.is_settled(id, sent);
            self.check(Rule::NoLoss, settled, |this| {
                format!("message {id} is nowhere: {:?}; {}", this.ledger.get(id), this.whereabouts(id))
            });
        }
    }

    /// What left a stream for the dead letters was told to the receiver.
    fn check_told(&mut self) {
        for aside in core::mem::take(&mut self.asides) {
            let Aside { from, to, epoch, number, id } = aside;
            let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
            let key = Key::Node(receiver.name.clone());
            let changed = sender.shadow.queues.get(&key).is_none_or(|queue| queue.epoch != epoch);
            // A new epoch has other numbers, and who is gone is told nothing.
            let excused = changed || sender.loss.is_some() || sender.gone.contains(&receiver.name);
            let had = self.ledger.get(id).is_some_and(|sent| sent.delivered[to].is_some());
            let told = self.ledger.is_gap((from, to, epoch), number);
            self.check(Rule::Gaps, told || had || excused, |this| {
                let (from, to) = (&this.nodes[from].name, &this.nodes[to].name);
                format!("{from} put number {number} aside, and did not tell {to}")
            });
        }
    }

    /// The first messages that have not come to where they must come, for a report.
    pub fn stragglers(&self) -> String {
        let late = self.ledger.iter().filter(|(id, sent)| self.is_owed(sent) && !self.is_settled(*id, sent));
        let words: Vec<String> = late
            .take(3)
            .map(|(id, sent)| format!("message {id}: {sent:?}; {}", self.whereabouts(id)))
            .collect();
        words.join("\n    ")
    }

    fn whereabouts(&self, id: u32) -> String {
        let mut words = Vec::new();
        for node in &self.nodes {
            for (key, queue) in &node.shadow.queues {
                if let Some((number, _)) = queue.records.iter().find(|(_, held)| **held == id) {
                    words.push(format!("{} has it in {key:?} as {number}", node.name));
                }
            }
        }
        words.join(", ")
    }

    /// Whether the node has to see to it that the message arrives.
    fn is_owed(&self, sent: &Sent) -> bool {
        let promised = sent.send_id.is_some() && sent.mode != Mode::BestEffort;
        promised && !sent.uncertain && !sent.excused && !self.is_beyond_promise()
    }

    fn is_settled(&self, id: u32, sent: &Sent) -> bool {
        if self.is_held(id) {
            return true;
        }
        let somewhere =
            sent.arrived() || sent.dropped || sent.dead.iter().any(|dead| *dead) || self.is_kept(id, sent);
        somewhere && (sent.mode != Mode::All || self.missing_subscriber(id, sent).is_none())
    }

    /// Whether the node's disk holds nothing but messages for topics, and for those to whom it sends nothing.
    pub fn only_keeps(&self, node: usize) -> bool {
        let kept = |key: &Key| match key {
            Key::Topic(_) => true,
            Key::Node(name) => self.is_held_peer(node, name) || self.is_full(node, name),
            Key::Address(_) => false,
        };
        let queues = &self.nodes[node].shadow.queues;
        queues.iter().all(|(key, queue)| kept(key) || queue.records.is_empty())
    }

    /// Whether the node sends nothing to the peer of this name.
    pub fn is_held_peer(&self, node: usize, name: &str) -> bool {
        self.nodes[node].held.iter().any(|held| held == name)
    }

    /// Whether it waits for someone to whom its node sends nothing, or nothing like it.
    fn is_held(&self, id: u32) -> bool {
        (0..self.nodes.len()).any(|node| {
            self.nodes.iter().any(|peer| {
                let is_queued = self.nodes[node].shadow.holds_in(&Key::Node(peer.name.clone()), id);
                is_queued && (self.is_held_peer(node, &peer.name) || self.is_full(node, &peer.name))
            })
        })
    }

    /// Whether all that the node has for the peer of this name waits for subscribers that there are none of, and the peer keeps
    /// messages to the same topics already.
    pub fn is_full(&self, node: usize, name: &str) -> bool {
        let queue = self.nodes[node].shadow.queues.get(&Key::Node(name.into()));
        let Some((peer, queue)) = self.node_named(name).zip(queue) else { return false };
        let peer = &self.nodes[peer];
        let topics = queue.records.values().filter_map(|id| self.ledger.get(*id)).map(|sent| sent.topic);
        let mut topics = topics.peekable();
        topics.peek().is_some()
            && topics.all(|topic| {
                let text = &self.topics[topic];
                let kept = peer.shadow.queues.get(&Key::Topic(text.clone()));
                let mut rows = peer.shadow.rows.keys().filter(|(of, _)| of == text);
                let is_taken =
                    peer.subscribes.contains(&topic) || rows.any(|(_, by)| *by != self.nodes[node].name);
                // What is damaged takes its place among them until it is read.
                kept.is_some_and(|kept| peer.damaged || !kept.records.is_empty()) && !is_taken
            })
    }

    /// Streams that wait for a subscriber of a topic of which their peers keep no more.
    pub fn waiting(&self) -> u64 {
        let pairs =
            (0..self.nodes.len()).flat_map(|node| self.nodes.iter().map(move |peer| (node, &peer.name)));
        pairs.filter(|(node, name)| self.is_full(*node, name)).count() as u64
    }

    /// Whether it waits for a subscriber that there is none of.
    fn is_kept(&self, id: u32, sent: &Sent) -> bool {
        let key = Key::Topic(self.topics[sent.topic].clone());
        self.nodes.iter().any(|node| node.shadow.holds_in(&key, id))
    }

    /// A node that was a subscriber before the message was sent to it, and did not get it.
    fn missing_subscriber(&self, id: u32, sent: &Sent) -> Option<usize> {
        let topic = &self.topics[sent.topic];
        (0..self.nodes.len()).find(|&node| {
            let name = &self.nodes[node].name;
            let row = (topic.clone(), name.clone());
            let known = |teacher: usize, at: u64| {
                self.nodes[teacher].loss.is_none()
                    && !self.nodes[teacher].gone.contains(name)
                    && self.nodes[teacher].shadow.rows.get(&row).is_some_and(|since| *since < at)
            };
            let relayed = || {
                let mut first = sent.ways.iter().filter(|way| way.from == sent.node && way.at != u64::MAX);
                // Other nodes know each other, too, and hand nothing on.
                let hands_on = |node: usize| self.nodes[node].role == Role::Gateway;
                first.any(|way| hands_on(way.to) && known(way.to, way.at))
            };
            let addressed = node != sent.node && (known(sent.node, sent.at) || relayed());
            addressed && sent.delivered[node].is_none() && !sent.dropped && !self.has_dead(sent) && {
                let waits = Key::Topic(topic.clone());
                !self.nodes.iter().any(|node| node.shadow.holds_in(&waits, id))
            }
        })
    }

    fn has_dead(&self, sent: &Sent) -> bool {
        sent.dead.iter().any(|dead| *dead)
    }
}

impl Checker {
    /// An idle world has come to so many events.
    pub fn on_idle(&mut self, events: u64, bound: u64) {
        self.check(Rule::Liveness, events <= bound, |_| {
            format!("{events} events in an idle world, where at most {bound} are to be expected")
        });
    }
}
