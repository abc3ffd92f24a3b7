//! The promises of `docs/DELIVERY.md`, checked from outside.
//!
//! The checker sees what a machine beside the nodes could see: what applications send and get, the frames on every link
//! before anything happens to them, and the groups that disks have made durable. It knows nothing of what a
//! node has in its memory, and no rule is taken from the code that it tests.

mod durable;
mod ledger;
mod outcome;
mod rules;
mod shadow;
mod wire;

use liner_proto::delivery::SendMode;
use liner_proto::effect::GapReason;
use liner_proto::id::{Class, Epoch};
use liner_proto::router::{Event, Message};
use liner_proto::time::Instant;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;

use super::disk::Aftermath;
use super::swarm::{Plan, Role};
use ledger::{Ledger, NODES_MAX, Sent};
use shadow::Shadow;

pub use ledger::PAYLOAD_MIN;
pub use rules::{Counts, Rule, Violation};
pub use shadow::Key;
pub use wire::View;

/// Messages that a crash may have repeated: what one turn commits.
const TURN_MESSAGES: usize = 1024;

/// What the checker knows of a node besides its disk.
#[derive(Debug)]
struct Watched {
    name: String,
    role: Role,
    class: Class,
    mode: SendMode,
    subscribes: Vec<usize>,
    /// Whether its subscriptions outlive it.
    durable: bool,
    dials: Vec<usize>,
    shadow: Shadow,
    /// Highest cursor that was ever durable, by sender and epoch.
    committed: Vec<(usize, Epoch, u64)>,
    /// What the application had since its cursor was last durable: sender, epoch, number, message.
    handled: Vec<(usize, Epoch, u64, u32)>,
    /// Messages that a crash may have it handle again.
    doubt: Vec<u32>,
    /// The newest message of each sender and topic that the application had.
    newest: Vec<(usize, usize, u32)>,
    /// Messages that this process accepted and has not called stored, with the ids it gave them.
    unstored: std::collections::VecDeque<(u64, u32)>,
    /// When it last lost memory, of messages or of what it has had.
    loss: Option<u64>,
    /// Crashes so far, and whether one left numbers that nobody stored.
    crashes: u64,
    /// Epochs that it must not use any more.
    old_epochs: Vec<Epoch>,
    /// Whether one of its records was damaged.
    damaged: bool,
    /// Its store was put back by hand, and nobody told it.
    silent: bool,
    /// Whether it sends to those whose acknowledgements stand for less than its messages need.
    accepts_weak: bool,
    /// Names of peers to whom it sends nothing, because their acknowledgements stand for too little.
    held: Vec<String>,
    /// Whether a policy has dropped messages of it.
    drops: bool,
    /// Names of subscribers without one of their own that it has given up.
    gone: Vec<String>,
}

/// The observer of one world. The first broken promise ends it.
#[derive(Debug)]
pub struct Checker {
    now: u64,
    ledger: Ledger,
    nodes: Vec<Watched>,
    topics: Vec<String>,
    /// Links change what they carry.
    damaging: bool,
    counts: Counts,
    violation: Option<Violation>,
    /// Messages that applications had for the first time.
    arrivals: u64,
    repeats: u64,
}

impl Checker {
    /// An observer of the world of `plan`.
    pub fn new(seed: u64, plan: &Plan) -> Self {
        let nodes = plan.nodes.iter().map(|node| Watched {
            name: node.config.name.clone(),
            role: node.role,
            class: node.class,
            mode: node.config.send_mode,
            subscribes: node.subscribes.clone(),
            durable: node.config.durable,
            dials: node.dials.clone(),
            shadow: Shadow::of_peer(
                (node.role == Role::Device).then(|| plan.nodes[node.dials[0]].config.name.clone()),
            ),
            committed: Vec::new(),
            handled: Vec::new(),
            doubt: Vec::new(),
            newest: Vec::new(),
            unstored: std::collections::VecDeque::new(),
            loss: None,
            crashes: 0,
            old_epochs: Vec::new(),
            damaged: false,
            silent: false,
            accepts_weak: node.config.accept_weak_acks,
            held: Vec::new(),
            drops: node.role == Role::Device && node.drops_oldest,
            gone: Vec::new(),
        });
        Self {
            now: 0,
            ledger: Ledger::new(seed),
            nodes: nodes.collect(),
            topics: plan.topics.clone(),
            damaging: plan.link.corrupt + plan.link.duplicate + plan.link.reorder > 0,
            counts: Counts::default(),
            violation: None,
            arrivals: 0,
            repeats: 0,
        }
    }

    /// Time goes on.
    pub const fn tick(&mut self, now: u64) {
        self.now = now;
    }

    /// What was broken, if anything was.
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// How often each rule was put to the test.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Messages that were accepted.
    pub fn accepted(&self) -> u64 {
        self.ledger.iter().filter(|(_, sent)| sent.send_id.is_some()).count() as u64
    }

    /// Messages that applications had for the first time.
    pub const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Messages that applications had again.
    pub const fn repeats(&self) -> u64 {
        self.repeats
    }

    /// A promise is broken. Only the first one is kept.
    pub fn fail(&mut self, rule: Rule, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, at: Instant::from_micros(self.now), text: text() });
        }
    }

    /// Counts a test of a rule and notes when it failed.
    fn check(&mut self, rule: Rule, holds: bool, text: impl FnOnce(&Self) -> String) {
        self.counts.count(rule);
        if !holds && self.violation.is_none() {
            let text = text(self);
            self.violation = Some(Violation { rule, at: Instant::from_micros(self.now), text });
        }
    }

    fn node_named(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    // ------------------------------------------------------------------ applications

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
        self.note_handled(node, id);
        self.check_once(node, id, message.maybe_redelivered);
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
        let late = marked && (self.was_returned(id) || self.may_repeat_after_loss(id, node));
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
        let crossed = both_dial || (!self.nodes[node].durable && self.nodes[origin].crashes > 0);
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

    /// A node says that it sends nothing to this peer.
    pub fn on_held(&mut self, node: usize, peer: usize) {
        let name = self.nodes[peer].name.clone();
        self.nodes[node].held.push(name);
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
        if let Event::WeakAcks { name, .. } = event {
            self.nodes[node].held.push(name.to_string());
        }
        if let Event::PeerDown { name, reason } = event {
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
            GapReason::Expired | GapReason::Cleared | _ => false,
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

    // ------------------------------------------------------------------ faults

    /// A node's process has died; its disk is what is given here.
    pub fn on_crash(
        &mut self,
        node: usize,
        aftermath: Aftermath,
        silent: bool,
        disk: &liner_proto::store::HeapStore,
    ) {
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
        self.check(Rule::Once, handled.len() <= TURN_MESSAGES, |_| {
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

    /// Whether a node has an older store and does not know: what numbers stand for is not certain any more.
    fn is_beyond_promise(&self) -> bool {
        self.nodes.iter().any(|node| node.silent)
    }

    /// Memory that a node's queues take, and what they may take.
    pub fn on_memory(&mut self, node: usize, held: usize, budget: usize) {
        self.check(Rule::BoundedMemory, held <= budget, |this| {
            format!("the queues of {} hold {held} bytes of {budget}", this.nodes[node].name)
        });
    }
}

/// Whether the message was the one of this number on its first hop.
fn sent_under(sent: Option<&Sent>, number: u64) -> bool {
    sent.is_some_and(|sent| sent.ways.iter().any(|way| way.from == sent.node && way.number == number))
}
