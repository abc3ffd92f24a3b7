//! The promises of `docs/DELIVERY.md`, checked from outside.
//!
//! The checker sees what a machine beside the nodes could see: what applications send and get, the frames on every link
//! before anything happens to them, and the groups that disks have made durable. It knows nothing of what a
//! node has in its memory, and no rule is taken from the code that it tests.

mod applications;
mod durable;
mod events;
mod ledger;
mod line;
mod outcome;
mod rules;
mod shadow;
mod wire;

use liner_proto::delivery::SendMode;
use liner_proto::id::{Class, Epoch};
use liner_proto::router::Receipt;
use liner_proto::time::Instant;

use super::swarm::{Plan, Role};
use ledger::Ledger;
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
    /// What the application has taken and not settled: receipt, sender, epoch, number.
    open: Vec<(Receipt, usize, Epoch, u64)>,
    /// Whether the application had the message before that it had last, or nobody knows its number.
    had_before: bool,
    /// Whether it settles later at all.
    late: bool,
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
    /// The longest record that it takes whenever it takes least.
    record_max: usize,
    /// Messages that it may hold and not have committed.
    window: u32,
    /// Names of nodes for which it has put messages aside that they do not take.
    put_aside_for: Vec<String>,
    /// Nodes for which messages on topics that they do not take were put aside.
    cleared_for: Vec<String>,
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
    /// Groups that forgot a queue.
    closed: u64,
    /// Subscribers that were given up and came back.
    revived: u64,
    /// What was put aside because it was too long.
    asides: Vec<Aside>,
}

/// A message that left a stream for the dead letters.
#[derive(Clone, Copy, Debug)]
struct Aside {
    from: usize,
    to: usize,
    epoch: Epoch,
    number: u64,
    id: u32,
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
            open: Vec::new(),
            had_before: false,
            late: node.late,
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
            record_max: node.record_max(),
            window: node.config.limits.window_messages,
            put_aside_for: Vec::new(),
            cleared_for: Vec::new(),
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
            closed: 0,
            revived: 0,
            asides: Vec::new(),
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

    /// Groups that forgot a queue, and subscribers that were given up and came back.
    pub const fn ends_and_returns(&self) -> (u64, u64) {
        (self.closed, self.revived)
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
