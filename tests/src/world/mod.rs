//! A world in virtual time: nodes, links and disks that fail in every way, made from one seed.
//!
//! Nothing sleeps and nothing reads a clock. [`World::run`] jumps from event to event, lets faults happen for a while, heals
//! everything, and demands that all comes to rest. A [`Checker`] watches from outside. What a seed makes is the same every
//! time. `docs/SIMULATION.md` tells how to replay one.

pub mod checker;
mod device;
pub mod dice;
pub mod disk;
mod drive;
mod faults;
pub mod link;
mod links;
mod storage;
mod stranger;
pub mod summary;
pub mod swarm;
mod time;
pub mod wire;
mod wires;

use liner_proto::planted::Planted;
use liner_proto::router::Router;
use liner_proto::time::Instant;

use checker::{Checker, Counts, Rule, Violation};
use dice::Dice;
use disk::Disk;
use link::Link;
use swarm::{NodePlan, Plan, SECOND};
use time::{Agenda, Event};

/// After everything has healed, all must have arrived within this time.
const REST_WITHIN: u64 = 60 * SECOND;

/// How long an idle world is watched.
const IDLE: u64 = 20 * SECOND;

/// Events of an idle world in that time, for each node and link, that are no storm.
const IDLE_EVENTS: u64 = 200;

/// Events of one world.
const EVENTS_MAX: u64 = 3_000_000;

/// How a world is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether to keep a line for everything that happens.
    pub trace: bool,
    /// A wrong behaviour of all nodes.
    pub planted: Planted,
    /// Whether every world has a device on a wire.
    pub wired: bool,
}

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed it was made from.
    pub seed: u64,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// How often each rule was put to the test.
    pub counts: Counts,
    /// Nodes.
    pub nodes: u64,
    /// Messages that nodes accepted.
    pub messages: u64,
    /// Messages that applications had for the first time.
    pub arrivals: u64,
    /// Messages that applications had again, marked and with a cause.
    pub repeats: u64,
    /// Things that went wrong.
    pub faults: u64,
    /// What went wrong on wires, by kind.
    pub harms: wire::Tally,
    /// Nodes that died and came back.
    pub restarts: u64,
    /// Crashes in the middle of a commit.
    pub torn: u64,
    /// Crashes that took memory.
    pub losses: u64,
    /// Reads of queues from disks.
    pub loads: u64,
    /// Groups that forgot a queue.
    pub closed: u64,
    /// Subscribers that were given up and came back.
    pub revived: u64,
    /// Streams that wait for a subscriber of a full topic at the end.
    pub waiting: u64,
    /// Events in all.
    pub events: u64,
    /// When it was over, in microseconds.
    pub ended: u64,
    /// Everything that happened, in one number: equal for equal worlds.
    pub hash: u64,
    /// A line for everything that happened, if that was wanted.
    pub trace: Vec<String>,
}

impl Report {
    const fn new(seed: u64) -> Self {
        Self {
            seed,
            violation: None,
            counts: Counts::NONE,
            nodes: 0,
            messages: 0,
            arrivals: 0,
            repeats: 0,
            faults: 0,
            harms: wire::Tally::NONE,
            restarts: 0,
            torn: 0,
            losses: 0,
            loads: 0,
            closed: 0,
            revived: 0,
            waiting: 0,
            events: 0,
            ended: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            trace: Vec::new(),
        }
    }
}

/// A node: a process that lives and dies, and a disk that stays.
#[derive(Debug)]
struct Node {
    plan: NodePlan,
    disk: Disk,
    /// The process, while it lives.
    router: Option<Router>,
    /// The same, if the node is a device.
    device: Option<device::Device>,
    /// Processes so far. Whatever was meant for an earlier one is for nobody.
    life: u64,
    /// When it is to be woken next, as the agenda knows.
    wake: Option<u64>,
    /// What it still tries to send.
    to_send: u64,
    /// Latency is multiplied by this.
    slow: u64,
    /// Replies of the disk that have not arrived.
    replies: std::collections::VecDeque<disk::Reply>,
    /// A crash that waits until a batch is being executed: whether the power fails, and for how long it is away.
    crash_when_writing: Option<(bool, u64)>,
    /// It was told to stop.
    stopping: bool,
    /// Wakes at one instant.
    spins: (u64, u64),
}

/// A world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    options: Options,
    dice: Dice,
    now: u64,
    agenda: Agenda,
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Pairs of nodes that cannot reach each other, and until when.
    apart: Vec<(usize, usize, u64)>,
    checker: Checker,
    report: Report,
    healed: bool,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut dice = Dice::new(seed, 1);
        let mut plan = Plan::draw(&mut dice, options.wired);
        for node in &mut plan.nodes {
            node.config.planted = options.planted;
        }
        let checker = Checker::new(seed, &plan);
        let nodes = plan.nodes.iter().map(|node| Node {
            plan: node.clone(),
            disk: Disk::new(node.class, node.per_group, node.load_bytes),
            router: None,
            device: None,
            life: 0,
            wake: None,
            to_send: node.messages,
            slow: 1,
            replies: std::collections::VecDeque::new(),
            crash_when_writing: None,
            stopping: false,
            spins: (0, 0),
        });
        let nodes: Vec<Node> = nodes.collect();
        let report = Report { nodes: nodes.len() as u64, ..Report::new(seed) };
        Self {
            plan,
            options,
            dice,
            now: 0,
            agenda: Agenda::default(),
            nodes,
            links: Vec::new(),
            apart: Vec::new(),
            checker,
            report,
            healed: false,
        }
    }

    /// Lives from the first event to the last, or to the first broken promise.
    pub fn run(mut self) -> Report {
        self.begin();
        self.run_until(self.plan.heal);
        self.heal();
        let deadline = self.now + REST_WITHIN;
        while !self.is_broken() && self.now < deadline && !self.is_at_rest() {
            self.run_until(self.now + SECOND / 10);
        }
        if !self.is_broken() {
            self.check_rest();
        }
        self.report.violation = self.checker.violation().cloned();
        self.report.counts = *self.checker.counts();
        self.report.messages = self.checker.accepted();
        self.report.arrivals = self.checker.arrivals();
        self.report.repeats = self.checker.repeats();
        (self.report.closed, self.report.revived) = self.checker.ends_and_returns();
        self.report.waiting = self.checker.waiting();
        self.report.ended = self.now;
        self.report
    }

    fn begin(&mut self) {
        self.lay_wires();
        self.trace(|world| {
            let nodes = world.plan.nodes.iter().enumerate();
            let words: Vec<String> =
                nodes.map(|(index, node)| format!("\n  node {index}: {node:?}")).collect();
            format!("{:?}, heals at {} us{}", world.plan.link, world.plan.heal, words.join(""))
        });
        for node in 0..self.nodes.len() {
            self.start(node);
            let plan = &self.nodes[node].plan;
            if plan.messages > 0 {
                let at = self.dice.below(plan.pace + SECOND / 2);
                self.agenda.put(at, Event::Send { node });
            }
        }
        for (index, (at, _)) in self.plan.faults.iter().enumerate() {
            self.agenda.put(*at, Event::Fault { index });
        }
    }

    fn is_broken(&self) -> bool {
        self.checker.violation().is_some()
    }

    fn run_until(&mut self, end: u64) {
        while !self.is_broken() {
            let Some((at, event)) = self.agenda.pop_through(end) else { break };
            self.now = self.now.max(at);
            self.checker.tick(self.now);
            self.report.events += 1;
            if self.report.events > EVENTS_MAX {
                return self.checker.fail(Rule::Liveness, || "the world does not end".into());
            }
            self.step(event);
        }
        self.now = self.now.max(end);
        self.checker.tick(self.now);
    }

    fn is_at_rest(&self) -> bool {
        let quiet = |(index, node): (usize, &Node)| {
            if let Some(device) = &node.device {
                return device.is_idle() || self.checker.only_keeps(index);
            }
            let Some(router) = &node.router else { return false };
            let names = self.nodes.iter().map(|peer| &peer.plan.config.name);
            let held =
                |name: &str| self.checker.is_held_peer(index, name) || self.checker.is_full(index, name);
            let names = names.filter(|name| !held(name));
            let streams: u64 = names.map(|name| router.queued_for(name)).sum();
            // What is kept for a subscriber that there is none of stays where it is.
            let emptied = router.is_idle() || (streams == 0 && self.checker.only_keeps(index));
            emptied && !node.disk.is_busy() && node.replies.is_empty()
        };
        self.nodes.iter().enumerate().all(quiet) && self.checker.outstanding() == 0
    }

    /// At rest, and still so when every link that died in silence has been given up.
    fn check_rest(&mut self) {
        self.demand_rest();
        self.run_until(self.now + IDLE);
        let before = self.report.events;
        self.run_until(self.now + IDLE);
        let events = self.report.events - before;
        let bound = IDLE_EVENTS * (self.nodes.len() as u64 + 1);
        self.checker.on_idle(events, bound);
        self.demand_rest();
        self.checker.on_rest();
    }

    fn demand_rest(&mut self) {
        if self.is_broken() || self.is_at_rest() {
            return;
        }
        let words = self.nodes.iter().map(|node| {
            let router = node.router.as_ref();
            let (queued, idle) = (router.map_or(0, Router::queued), router.is_some_and(Router::is_idle));
            let busy = node.disk.is_busy();
            format!("{}: {queued} queued, idle: {idle}, disk busy: {busy}", node.plan.config.name)
        });
        let words: Vec<String> = words.collect();
        let (outstanding, late) = (self.checker.outstanding(), self.checker.stragglers());
        self.checker.fail(Rule::Liveness, || {
            format!(
                "no rest after healing: {outstanding} messages outstanding; {}\n    {late}",
                words.join("; ")
            )
        });
    }

    fn instant(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    /// Notes something for the trace, and for the number that stands for all of it.
    fn trace(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.options.trace {
            let line = format!("{:>12} {}", self.now, text(self));
            self.report.trace.push(line);
        }
    }

    fn mix(&mut self, value: u64) {
        self.report.hash = (self.report.hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }
}

/// Runs the world of a seed. A panic in it is a broken promise, too.
pub fn run(seed: u64, options: Options) -> Report {
    let world = std::panic::AssertUnwindSafe(|| World::new(seed, options).run());
    std::panic::catch_unwind(world).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).into()));
        let text = format!("panic: {}", words.unwrap_or_default());
        let violation = Violation { rule: Rule::Liveness, at: Instant::ZERO, text };
        Report { violation: Some(violation), ..Report::new(seed) }
    })
}
