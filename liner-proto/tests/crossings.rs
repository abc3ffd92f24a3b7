//! Three nodes that find each other while their dials cross, frames take their time and links break, in virtual time.
//!
//! The second and the third know the first by its address; each has to learn that both others take the topic, in every order in which
//! dials, frames and ends of connections may come. In some worlds the first is named by another address than it says, or one moves. `CROSSINGS_SEEDS=0..10000` runs others than the few of every day.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use liner_proto::id::ConnId;
use liner_proto::rng::Rng;
use liner_proto::router::{DialId, Event, Framing};
use liner_proto::time::Instant;
use nodes::{NOW, Node};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// Everything that disturbs them is over by then, and they have found each other at the end.
const QUIET: Duration = Duration::from_secs(2);
const END: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Step {
    Start(usize),
    Subscribe(usize),
    /// A dial of a life of a node arrives, and its answer does.
    Dial(usize, u64, DialId, String),
    Dialed(usize, u64, DialId),
    /// What arrives at an end of a link.
    Bytes(usize, usize, Vec<u8>),
    Closed(usize, usize),
    Break(u64),
    /// Its process ends; it begins again elsewhere.
    Move(usize),
}

/// By this address the first node is found as well.
const GATE: &str = "gate:1";

/// A connection: the dialler's end, and the other one's.
#[derive(Debug)]
struct Link {
    nodes: [usize; 2],
    conns: [Option<ConnId>; 2],
    /// When the last of what is on its way to each end arrives.
    arrives: [Instant; 2],
    broken: bool,
}

struct World {
    nodes: Vec<Node>,
    addresses: Vec<String>,
    /// By which address the first node is named.
    named: String,
    /// When somebody dialled last.
    dialled: Instant,
    lives: [u64; 3],
    started: BTreeSet<usize>,
    links: Vec<Link>,
    steps: BTreeMap<(Instant, u64), Step>,
    count: u64,
    now: Instant,
    rng: Rng,
    /// The most milliseconds that anything takes.
    slow: u64,
    subscribed: Vec<BTreeSet<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new([seed, 0x0c05_51ed]);
        let mut names = NAMES;
        for index in (1..3).rev() {
            names.swap(index, rng.below(index as u64 + 1) as usize);
        }
        let (durable, gate) = (rng.below(2) == 0, rng.below(3) == 0);
        let nodes: Vec<Node> = names
            .iter()
            .map(|name| {
                Node::start(name, |config| {
                    config.seed = [rng.next(), rng.next()];
                    config.instance = rng.next();
                    config.durable = durable;
                    config.address = format!("{name}:1");
                })
            })
            .collect();
        let slow = [0, 1, 20, 60, 200, 500][rng.below(6) as usize];
        let mut world = Self {
            addresses: names.iter().map(|name| format!("{name}:1")).collect(),
            subscribed: vec![BTreeSet::new(); nodes.len()],
            named: if gate { GATE.to_owned() } else { format!("{}:1", names[0]) },
            dialled: NOW,
            lives: [0; 3],
            nodes,
            started: BTreeSet::new(),
            links: Vec::new(),
            steps: BTreeMap::new(),
            count: 0,
            now: NOW,
            rng,
            slow,
        };
        for index in 0..3 {
            world.later(300, Step::Start(index));
            world.later(600, Step::Subscribe(index));
        }
        for _ in 0..world.rng.below(6) {
            let which = world.rng.next();
            world.later(QUIET.as_millis() as u64, Step::Break(which));
        }
        if world.rng.below(3) == 0 {
            // The first one has no address to dial, so one that others find elsewhere has to be another one, unless there is a gate.
            let index = if gate { world.rng.below(3) } else { 1 + world.rng.below(2) } as usize;
            world.later(QUIET.as_millis() as u64, Step::Move(index));
        }
        world
    }

    fn at(&mut self, at: Instant, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    fn after(&mut self, millis: u64) -> Instant {
        self.now + Duration::from_micros(self.rng.below(millis * 1000 + 1))
    }

    fn later(&mut self, millis: u64, step: Step) {
        let at = self.after(millis);
        self.at(at, step);
    }

    /// Something is on its way to an end of a link, behind what is on its way there already.
    fn deliver(&mut self, link: usize, end: usize, step: Step) {
        let at = self.after(self.slow).max(self.links[link].arrives[end]);
        self.links[link].arrives[end] = at;
        self.at(at, step);
    }

    fn run(&mut self, end: Instant) {
        loop {
            let timeout = |index: &usize| self.nodes[*index].router.poll_timeout();
            let due = self.started.iter().filter_map(timeout).map(|(at, _)| at).min();
            let next = self.steps.keys().next().map(|(at, _)| *at);
            // Never on the spot, whatever is due.
            let due = due.map(|at| at.max(self.now + Duration::from_micros(100)));
            let Some(at) = due.into_iter().chain(next).min().filter(|at| *at <= end) else { return };
            self.now = self.now.max(at);
            for index in 0..3 {
                self.nodes[index].now = self.now;
            }
            if next == Some(at) {
                let (_, step) = self.steps.pop_first().expect("there is one");
                self.take(step);
            } else {
                for index in self.started.clone() {
                    self.nodes[index].router.handle_timeout(self.now);
                    self.drain(index);
                }
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Start(index) => {
                self.nodes[index].restart();
                self.started.insert(index);
                self.begin(index);
            }
            Step::Move(index) if self.started.contains(&index) => self.change_place(index),
            Step::Move(_) => {}
            Step::Subscribe(index) if self.started.contains(&index) => {
                self.nodes[index].router.subscribe(self.now, "room");
                self.drain(index);
            }
            Step::Subscribe(index) => self.later(600, Step::Subscribe(index)),
            Step::Dial(from, life, dial, address) => {
                let to = self.addresses.iter().position(|other| *other == address);
                let to = to.or((address == GATE).then_some(0)).filter(|to| self.started.contains(to));
                match to {
                    Some(to) => {
                        let conn = self.nodes[to].router.handle_accepted(self.now, Framing::Length);
                        let (nodes, conns) = ([from, to], [None, Some(conn)]);
                        self.links.push(Link { nodes, conns, arrives: [self.now; 2], broken: false });
                        let link = self.links.len() - 1;
                        self.deliver(link, 0, Step::Dialed(link, life, dial));
                        self.drain(to);
                    }
                    None if life == self.lives[from] => {
                        self.nodes[from].router.handle_dial_failed(self.now, dial);
                        self.drain(from);
                    }
                    None => {}
                }
            }
            Step::Dialed(link, life, dial) => {
                let from = self.links[link].nodes[0];
                if life != self.lives[from] {
                    return self.deliver(link, 1, Step::Closed(link, 1));
                }
                let conn = self.nodes[from].router.handle_dialed(self.now, dial, Framing::Length);
                self.links[link].conns[0] = Some(conn);
                self.drain(from);
            }
            Step::Bytes(link, end, bytes) => {
                let Link { nodes, conns, .. } = &self.links[link];
                let (index, Some(conn)) = (nodes[end], conns[end]) else { return };
                self.nodes[index].take(conn, bytes);
                self.drain(index);
            }
            Step::Closed(link, end) => self.close(link, end),
            Step::Break(which) => {
                let open = |link: &&Link| !link.broken && link.conns.iter().all(Option::is_some);
                let count = self.links.iter().filter(open).count() as u64;
                let Some(which) = which.checked_rem(count) else { return };
                let link = self.links.iter().filter(open).nth(which as usize).expect("counted").conns;
                let link = self.links.iter().position(|other| other.conns == link && !other.broken);
                let link = link.expect("counted");
                self.links[link].broken = true;
                self.deliver(link, 0, Step::Closed(link, 0));
                self.deliver(link, 1, Step::Closed(link, 1));
            }
        }
    }

    fn begin(&mut self, index: usize) {
        if index > 0 {
            self.nodes[index].router.add_peer(self.now, &self.named);
        }
        self.drain(index);
    }

    fn change_place(&mut self, index: usize) {
        self.lives[index] += 1;
        let address = format!("elsewhere-{index}:1");
        self.nodes[index].configure(|config| {
            config.address.clone_from(&address);
            config.instance += 1;
        });
        self.addresses[index] = address;
        self.subscribed[index].clear();
        for link in 0..self.links.len() {
            for end in 0..2 {
                if self.links[link].nodes[end] == index && self.links[link].conns[end].take().is_some() {
                    self.deliver(link, 1 - end, Step::Closed(link, 1 - end));
                }
            }
        }
        self.nodes[index].restart();
        self.nodes[index].router.subscribe(self.now, "room");
        self.begin(index);
    }

    /// An end of a link is gone.
    fn close(&mut self, link: usize, end: usize) {
        let index = self.links[link].nodes[end];
        let Some(conn) = self.links[link].conns[end].take() else { return };
        self.nodes[index].router.handle_closed(self.now, conn);
        self.drain(index);
    }

    /// A node does what there is to do.
    fn drain(&mut self, index: usize) {
        let mut more = true;
        while core::mem::take(&mut more) {
            self.nodes[index].serve();
            while let Some(dial) = self.nodes[index].router.poll_dial(self.now) {
                let (id, address) = (dial.id, dial.address.to_owned());
                self.dialled = self.now;
                let life = self.lives[index];
                self.later(self.slow, Step::Dial(index, life, id, address));
                more = true;
            }
            for link in 0..self.links.len() {
                for end in 0..2 {
                    let Link { nodes, conns, broken, .. } = &self.links[link];
                    let Some(conn) = conns[end].filter(|_| nodes[end] == index) else { continue };
                    let broken = *broken;
                    let bytes = self.nodes[index].give(conn);
                    if !bytes.is_empty() {
                        more = true;
                        if !broken {
                            self.deliver(link, 1 - end, Step::Bytes(link, 1 - end, bytes));
                        }
                    }
                }
            }
            while self.nodes[index].router.poll_writable().is_some() {
                more = true;
            }
            while let Some(conn) = self.nodes[index].router.poll_close() {
                more = true;
                self.end(index, conn);
            }
            while let Some(event) = self.nodes[index].router.poll_event() {
                if let Event::Subscribed { name, topic } = event {
                    assert_eq!(&*topic, "room");
                    self.subscribed[index].insert(name.into());
                }
            }
        }
    }

    /// A node wants a connection closed: the other end hears of it behind all that was written.
    fn end(&mut self, index: usize, conn: ConnId) {
        let is_it = |link: &Link, end: usize| link.nodes[end] == index && link.conns[end] == Some(conn);
        let found = self.links.iter().enumerate().find_map(|(at, link)| {
            let end = (0..2).find(|end| is_it(link, *end))?;
            Some((at, end))
        });
        let Some((link, end)) = found else { return };
        self.links[link].conns[end] = None;
        self.nodes[index].router.handle_closed(self.now, conn);
        if !self.links[link].broken {
            self.deliver(link, 1 - end, Step::Closed(link, 1 - end));
        }
    }

    /// What is wrong at the end, if anything is.
    fn check(&self) -> Option<String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let name = &node.router.config().name;
            let others: BTreeSet<String> =
                NAMES.into_iter().filter(|other| other != name).map(str::to_owned).collect();
            let up: BTreeSet<String> = node.router.peers_up().map(str::to_owned).collect();
            // What a store knows is not told again.
            let is_told = self.subscribed[index] == others || self.lives[index] > 0;
            if !is_told || up != others || node.router.addresses("room").len() != 2 {
                return Some(format!("{name}: told of {:?}, connected to {up:?}", self.subscribed[index]));
            }
        }
        if self.now.since(self.dialled) < END / 2 {
            return Some("they never stop to dial".to_owned());
        }
        let open = self.links.iter().filter(|link| link.conns.iter().any(Option::is_some)).count();
        (open != 3).then(|| format!("{open} connections"))
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("CROSSINGS_SEEDS") else { return 0..300 };
    let (first, end) = text.split_once("..").expect("FIRST..END");
    first.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn three_nodes_find_each_other_in_whatever_order_things_happen() {
    let mut wrong = Vec::new();
    for seed in seeds() {
        let mut world = World::new(seed);
        world.run(NOW + END);
        wrong.extend(world.check().map(|what| format!("seed {seed}: {what}")));
    }
    assert!(wrong.is_empty(), "{} of {:?}: {:#?}", wrong.len(), seeds(), &wrong[..wrong.len().min(10)]);
}
