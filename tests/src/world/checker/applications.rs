//! Rules about what applications send and get.

use liner_proto::router::{Message, Receipt};
use liner_proto::wire::record::Mode;

use super::Checker;
use super::ledger::{NODES_MAX, PAYLOAD_MIN, Sent};
use super::rules::Rule;

impl Checker {
    /// An application is about to send: the payload to be sent, and the message's id.
    pub fn on_send(&mut self, node: usize, topic: usize, mode: Mode, len: usize) -> (u32, Vec<u8>) {
        self.ledger.open(Sent {
            node,
            topic,
            mode,
            len: len.max(PAYLOAD_MIN),
            at: self.now,
            send_id: None,
            stored: false,
            uncertain: false,
            excused: false,
            dropped: false,
            delivered: [None; NODES_MAX],
            marked: false,
            dead: [false; NODES_MAX],
            kept_at: None,
            ways: Vec::new(),
        })
    }

    /// The node has accepted it.
    pub fn on_accepted(&mut self, id: u32, send_id: u64) {
        let Some(sent) = self.ledger.get_mut(id) else { return };
        sent.send_id = Some(send_id);
        if sent.mode == Mode::BestEffort {
            return;
        }
        self.nodes[sent.node].unstored.push_back((send_id, id));
    }

    /// The node has refused it after all.
    pub fn on_refused(&mut self, id: u32) {
        let Some(sent) = self.ledger.get_mut(id) else { return };
        sent.send_id = None;
        let node = sent.node;
        self.nodes[node].unstored.retain(|(_, unstored)| *unstored != id);
        let held = self.nodes[node].shadow.holds(id);
        self.check(Rule::Stored, !held, |_| format!("message {id} was refused, and is stored all the same"));
    }

    /// The node says that every send up to this one is stored.
    pub fn on_stored(&mut self, node: usize, through: u64) {
        while let Some(&(send_id, id)) = self.nodes[node].unstored.front() {
            if send_id > through {
                return;
            }
            self.nodes[node].unstored.pop_front();
            let Some(sent) = self.ledger.get_mut(id) else { continue };
            sent.stored = true;
            let there = self.nodes[node].shadow.holds(id) || self.is_passed_from(node, id);
            self.check(Rule::Stored, there, |this| {
                format!("{} calls message {id} stored, and its disk does not have it", this.nodes[node].name)
            });
        }
    }

    /// Whether the node has passed the message on: another one has committed it, or an application has had it.
    pub(super) fn is_passed_from(&self, node: usize, id: u32) -> bool {
        let Some(sent) = self.ledger.get(id) else { return false };
        let from_here = sent.ways.iter().filter(|way| way.from == node);
        let mut committed = from_here.map(|way| self.has_committed(way.to, way.from, way.epoch, way.number));
        sent.arrived()
            || sent.dead.iter().any(|dead| *dead)
            || sent.dropped
            || committed.any(|committed| committed)
    }

    /// An application has a message.
    pub fn on_message(&mut self, node: usize, message: &Message<'_>) {
        self.nodes[node].had_before = true;
        let Some(id) = self.ledger.id_of(message.payload) else {
            return self.fail(Rule::NoCorruption, || format!("a payload that nobody sent: {message:?}"));
        };
        let Some(sent) = self.ledger.get(id) else { return };
        let (origin, topic, mode) = (sent.node, sent.topic, sent.mode);
        let accepted = sent.send_id.is_some();
        let intact = self.ledger.is_intact(id, message.payload);
        self.check(Rule::NoCorruption, intact, |_| format!("message {id} arrived with other bytes"));
        let honest = accepted
            && self.nodes[origin].name == message.from
            && self.topics[topic] == message.topic
            && self.nodes[node].subscribes.contains(&topic)
            && mode == message.mode;
        self.check(Rule::OnlyFromPeers, honest, |this| {
            let (name, sent) = (&this.nodes[node].name, this.ledger.get(id));
            format!(
                "{name} had message {id} as {} from {} on {}, but it was {sent:?}",
                message.seq, message.from, message.topic
            )
        });
        if mode == Mode::BestEffort {
            return;
        }
        if self.is_beyond_promise() {
            return self.note_first(node, id, message.maybe_redelivered);
        }
        let numbered = sent_under(self.ledger.get(id), message.seq);
        self.check(Rule::OnlyFromPeers, numbered, |_| {
            format!("message {id} never had the number {}", message.seq)
        });
        self.nodes[node].had_before = self.ledger.get(id).is_some_and(|sent| sent.delivered[node].is_some());
        self.note_handled(node, id);
        self.check_once(node, id, message.maybe_redelivered);
    }

    /// The application will settle the message that it had last.
    pub fn on_taken(&mut self, node: usize, receipt: Receipt) {
        let Some(&(from, epoch, number, id)) = self.nodes[node].handled.last() else { return };
        // One that came under several numbers may have been taken under either.
        let Some(sent) = self.ledger.get(id).filter(|_| !self.nodes[node].had_before) else { return };
        let ways = &sent.ways;
        if ways.iter().filter(|way| way.to == node).all(|way| (way.epoch, way.number) == (epoch, number)) {
            self.nodes[node].open.push((receipt, from, epoch, number));
        }
    }

    /// It has settled it.
    pub fn on_settled(&mut self, node: usize, receipt: Receipt) {
        self.nodes[node].open.retain(|(open, ..)| *open != receipt);
    }

    fn note_handled(&mut self, node: usize, id: u32) {
        let Some(way) =
            self.ledger.get(id).and_then(|sent| sent.ways.iter().rev().find(|way| way.to == node))
        else {
            return self.fail(Rule::OnlyFromPeers, || format!("message {id} came on no stream"));
        };
        let entry = (way.from, way.epoch, way.number, id);
        self.nodes[node].handled.push(entry);
    }

    fn check_once(&mut self, node: usize, id: u32, marked: bool) {
        let Some(sent) = self.ledger.get(id) else { return };
        let again = sent.delivered[node].is_some();
        let elsewhere = sent.mode == Mode::One && sent.arrived() && !again;
        let (origin, topic) = (sent.node, sent.topic);
        if again || elsewhere {
            self.repeats += 1;
            let first = sent.delivered.iter().flatten().min().copied().unwrap_or(0);
            let crashed = again && self.nodes[node].doubt.contains(&id);
            let caused =
                crashed || self.may_repeat_after_loss(id, node) || (elsewhere && self.was_returned(id));
            // Of two copies for different nodes the one that was sent again is marked, whichever comes first.
            let told = marked || (elsewhere && sent.marked);
            self.check(Rule::Once, told && caused, |this| {
                let name = &this.nodes[node].name;
                format!(
                    "message {id} reached {name} again (marked: {marked}), first had at {first} us; {:?}",
                    this.ledger.get(id)
                )
            });
        } else {
            self.counts.count(Rule::Once);
            self.arrivals += 1;
        }
        if again {
            return;
        }
        self.note_first(node, id, marked);
        // What is sent again after a loss of memory, or returns to its topic because the one it was for is gone, comes when it
        // comes: it may be new to this application all the same.
        let given_up = !self.nodes[origin].gone.is_empty() || self.was_returned(id);
        let late = marked && (given_up || self.may_repeat_after_loss(id, node));
        if !elsewhere && !late {
            self.check_order(node, origin, topic, id);
        }
    }

    fn note_first(&mut self, node: usize, id: u32, marked: bool) {
        let now = self.now;
        if let Some(sent) = self.ledger.get_mut(id) {
            sent.delivered[node].get_or_insert(now);
            sent.marked |= marked;
        }
    }

    /// Whether the message was on its way to a subscriber that has been given up.
    pub(super) fn was_returned(&self, id: u32) -> bool {
        let Some(sent) = self.ledger.get(id) else { return false };
        sent.ways.iter().any(|way| self.nodes[way.from].gone.contains(&self.nodes[way.to].name))
    }

    /// Whether a node on the message's way has forgotten something since the message was sent.
    fn may_repeat_after_loss(&self, id: u32, node: usize) -> bool {
        let Some(sent) = self.ledger.get(id) else { return false };
        let lost = |index: usize| self.nodes[index].loss.is_some_and(|at| at >= sent.at);
        lost(sent.node) || lost(node) || sent.ways.iter().any(|way| lost(way.from) || lost(way.to))
    }

    fn check_order(&mut self, node: usize, origin: usize, topic: usize, id: u32) {
        let newest = &mut self.nodes[node].newest;
        let at = newest.iter().position(|(from, on, _)| (*from, *on) == (origin, topic));
        let before = at.map(|at| newest[at].2);
        match at {
            Some(at) => newest[at].2 = newest[at].2.max(id),
            None => newest.push((origin, topic, id)),
        }
        // What waits for whoever answers at an address is moved behind what was queued for the node that answers, and
        // where both dial each other that may be newer.
        // A node that started anew does not know where one without a name of its own listened.
        let both_dial = self.nodes[node].dials.contains(&origin) && self.nodes[origin].dials.contains(&node);
        // Who was the first subscriber is not remembered: what was kept for one may go to another after a restart.
        let kept_at = self.ledger.get(id).and_then(|sent| sent.kept_at);
        let passed_over = kept_at.is_some_and(|kept_at| self.nodes[kept_at].crashes > 0);
        let crossed =
            both_dial || passed_over || (!self.nodes[node].durable && self.nodes[origin].crashes > 0);
        let ordered = crossed || before.is_none_or(|before| before < id);
        self.check(Rule::Order, ordered, |this| {
            format!(
                "{} had message {id} after {before:?}, both from {} on {}; {:?}",
                this.nodes[node].name,
                this.nodes[origin].name,
                this.topics[topic],
                this.ledger.get(id)
            )
        });
    }
}

/// Whether the message was the one of this number on its first hop.
fn sent_under(sent: Option<&Sent>, number: u64) -> bool {
    sent.is_some_and(|sent| sent.ways.iter().any(|way| way.from == sent.node && way.number == number))
}
