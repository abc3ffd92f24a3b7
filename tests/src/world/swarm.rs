//! What kind of world a seed makes: who is in it, how small their limits are, and what will go wrong.

use core::time::Duration;

use liner_proto::config::Limits;
use liner_proto::delivery::SendMode;
use liner_proto::id::Class;
use liner_proto::router::{NodeConfig, Quota};

use super::device;
use super::dice::Dice;
use super::wire::WirePlan;

/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;
const MILLI: u64 = 1000;

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends.
    Publisher,
    /// Takes over what publishers send, for subscribers.
    Gateway,
    /// Takes messages.
    Subscriber,
    /// Sends over a line, with a store that answers at once.
    Device,
}

/// A node as the seed made it.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// What it is there for.
    pub role: Role,
    /// How its router is configured.
    pub config: NodeConfig,
    /// Nodes it dials.
    pub dials: Vec<usize>,
    /// Topics it takes.
    pub subscribes: Vec<usize>,
    /// Topics it sends to.
    pub sends: Vec<usize>,
    /// Messages it tries to send.
    pub messages: u64,
    /// The mean time between two of its sends, in microseconds.
    pub pace: u64,
    /// Of 1,000 messages, so many go to all subscribers.
    pub all: u64,
    /// Of 1,000 messages, so many are sent with no promise at all.
    pub loose: u64,
    /// Whether its application settles what it has taken after a while.
    pub late: bool,
    /// What its store survives.
    pub class: Class,
    /// Whether a group is durable on its own.
    pub per_group: bool,
    /// Bytes its disk reads at a time.
    pub load_bytes: usize,
    /// Whether a device drops its oldest message when its store is full.
    pub drops_oldest: bool,
    /// The wire that a device speaks on; without one it dials.
    pub wire: Option<WirePlan>,
    /// Whether a device has its epochs from its gateway, having neither flash nor a random source.
    pub assigned_epochs: bool,
    /// In every second life it takes no longer records than this, from the first one on.
    pub short: Option<u32>,
    /// How long a commit or a read takes, in microseconds, from and to.
    pub disk_latency: (u64, u64),
}

/// How links behave while things go wrong, and how they behave always.
#[derive(Clone, Copy, Debug)]
pub struct LinkPlan {
    /// Delay of every chunk, in microseconds, from and to.
    pub delay: (u64, u64),
    /// Bytes that may be under way in one direction.
    pub capacity: usize,
    /// The most bytes of a chunk.
    pub chunk: usize,
    /// Of 1,000 chunks, so many have a byte changed.
    pub corrupt: u64,
    /// Of 1,000 chunks, so many come twice.
    pub duplicate: u64,
    /// Of 1,000 chunks, so many overtake the one before.
    pub reorder: u64,
    /// Of 1,000 chunks on a device's line, so many are lost.
    pub lose: u64,
    /// Of 1,000 links that die, the nodes of so many are not told.
    pub half_open: u64,
}

/// Something that goes wrong at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node dies.
    Crash {
        /// Which.
        node: usize,
        /// Whether its machine dies with it.
        power: bool,
        /// Whether to wait until a batch is being executed.
        writing: bool,
        /// How long it stays away, in microseconds.
        down: u64,
    },
    /// A node is told to stop, and comes back.
    Stop {
        /// Which.
        node: usize,
        /// How long it stays away, in microseconds.
        down: u64,
    },
    /// A stored record of a node no longer passes its check.
    Damage {
        /// Whose.
        node: usize,
    },
    /// Somebody connects who does not keep to the protocol.
    Stranger {
        /// To whom.
        node: usize,
    },
    /// Every link between two nodes dies.
    Cut {
        /// One of them; the other is drawn among those it talks to.
        node: usize,
        /// How long no new one can be made, in microseconds.
        apart: u64,
    },
    /// A disk has no room for a while.
    Full {
        /// Whose.
        node: usize,
        /// For how long, in microseconds.
        time: u64,
        /// Of 1,000 groups that need room, so many find none.
        rate: u64,
    },
    /// A disk cannot be reached for a while.
    Unavailable {
        /// Whose.
        node: usize,
        /// For how long, in microseconds.
        time: u64,
    },
    /// Commits of a disk fail for a while.
    CommitFails {
        /// Whose.
        node: usize,
        /// For how long, in microseconds.
        time: u64,
    },
    /// A disk is slow for a while.
    Slow {
        /// Whose.
        node: usize,
        /// For how long, in microseconds.
        time: u64,
    },
}

/// Everything that a seed decides before the world begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// Topics by number.
    pub topics: Vec<String>,
    /// How links behave.
    pub link: LinkPlan,
    /// What goes wrong, and when, in microseconds.
    pub faults: Vec<(u64, Fault)>,
    /// When everything heals, in microseconds.
    pub heal: u64,
    /// The largest payload.
    pub payload_max: usize,
    /// Stores that a power cut takes back say nothing of it. What is promised then is little.
    pub silent: bool,
}

impl NodePlan {
    /// The limits that the node has in its life of this number, from 1.
    pub fn limits(&self, life: u64) -> Limits {
        let short = self.short.filter(|_| life % 2 == 1);
        let message_max = short.unwrap_or(self.config.limits.message_max);
        Limits { message_max, ..self.config.limits }
    }

    /// The longest record that it takes in some life.
    pub fn record_max(&self) -> usize {
        let limits = self.limits(1);
        // A frame has a head, a seal, and the record behind its length.
        let in_frame = limits.frame_max as usize - 32 - 4 - 3;
        in_frame.min(limits.message_max as usize)
    }
}

impl Plan {
    /// What `dice` make of it; if `wired`, with a device on a wire in any case.
    pub fn draw(dice: &mut Dice, wired: bool) -> Self {
        let mut nodes = Vec::new();
        let mut topics = Vec::new();
        let payload_max = dice.pick(&[40, 200, 1000, 5000]);
        let link = draw_link(dice);
        let shape = Shape { wired, ..Shape::draw(dice, payload_max, &link) };
        let with_gateway = wired || dice.chance(800);
        if with_gateway {
            draw_relayed(dice, &shape, &mut nodes, &mut topics);
        }
        if !with_gateway || (!wired && dice.chance(250)) {
            draw_direct(dice, &shape, !with_gateway, &mut nodes, &mut topics);
        }
        draw_traffic(dice, &mut nodes);
        let heal = dice.magnitude(2, 20) * SECOND;
        for node in &mut nodes {
            if let Some(wire) = &node.wire {
                node.messages = node.messages.min(wire.messages_in(heal));
            }
            if node.messages > 0 {
                node.pace = heal / (node.messages + 1);
            }
        }
        let faults = draw_faults(dice, &nodes, heal);
        let silent = dice.chance(40);
        Self { nodes, topics, link, faults, heal, payload_max, silent }
    }
}

/// What the nodes of a world have in common.
struct Shape {
    classes: &'static [Class],
    weak: bool,
    asynchronous: u64,
    payload_max: usize,
    tiny: u64,
    /// Of 1,000 nodes that are sent to, so many take shorter records than are sent.
    short: u64,
    /// Of 1,000 nodes, so many keep hardly any topic numbers.
    few_numbers: u64,
    /// The smallest window of messages: a far node must be emptied in time, too.
    window_min: u64,
    /// There are few nodes but devices, each on a wire.
    wired: bool,
}

impl Shape {
    fn draw(dice: &mut Dice, payload_max: usize, link: &LinkPlan) -> Self {
        const MIXED: [Class; 3] = [Class::Ram, Class::Process, Class::Power];
        let classes: &'static [Class] = match dice.below(10) {
            0..=2 => &[Class::Process],
            3..=5 => &[Class::Power],
            6 => &[Class::Ram],
            _ => &MIXED,
        };
        Self {
            classes,
            weak: classes.len() > 1 && dice.chance(700),
            asynchronous: dice.pick(&[0, 0, 300, 1000]),
            payload_max,
            tiny: dice.pick(&[0, 300, 700]),
            short: dice.pick(&[0, 0, 500]),
            few_numbers: dice.pick(&[0, 0, 500]),
            window_min: if link.delay.1 > MILLI { 16 } else { 1 },
            wired: false,
        }
    }
}

fn draw_node(dice: &mut Dice, shape: &Shape, role: Role, name: String) -> NodePlan {
    let class = dice.pick(shape.classes);
    let seed = [dice.bits(), dice.bits()];
    let mut config = NodeConfig::new(name.clone(), seed, class);
    config.address = format!("{name}:1");
    config.takes_custody = role == Role::Gateway;
    config.durable = role != Role::Subscriber || dice.chance(800);
    config.accept_weak_acks = shape.weak;
    if dice.chance(shape.asynchronous) {
        config.send_mode = SendMode::Asynchronous;
    }
    draw_limits(dice, shape, &mut config);
    let short = draw_short(dice, shape, role, &mut config);
    let fast = dice.chance(500);
    // Without a throw, so that the worlds are the ones they were.
    let late = role != Role::Gateway && role != Role::Device && seed[1].is_multiple_of(3);
    if late {
        config.repeat_max = u64::MAX;
    }
    NodePlan {
        role,
        late,
        config,
        dials: Vec::new(),
        subscribes: Vec::new(),
        sends: Vec::new(),
        messages: 0,
        pace: SECOND,
        all: dice.pick(&[0, 500, 1000]),
        loose: dice.pick(&[0, 0, 50]),
        class,
        per_group: dice.chance(500),
        load_bytes: dice.pick(&[6 * 1024, 16 * 1024, 64 * 1024]),
        drops_oldest: dice.chance(500),
        wire: None,
        assigned_epochs: false,
        short,
        disk_latency: if fast { (20, 300) } else { (MILLI, 20 * MILLI) },
    }
}

fn draw_limits(dice: &mut Dice, shape: &Shape, config: &mut NodeConfig) {
    let tiny = |dice: &mut Dice| dice.chance(shape.tiny);
    // A record is its payload with names and numbers before it.
    let record = shape.payload_max as u32 + 128;
    if tiny(dice) {
        config.limits.window_messages = dice.magnitude(shape.window_min, 64) as u32;
    }
    if tiny(dice) {
        config.limits.window_bytes = record * dice.range(1, 8) as u32;
    }
    if tiny(dice) {
        config.limits.frame_max = (record + 64).max(2048) * dice.range(1, 4) as u32;
    }
    if tiny(dice) {
        config.queue_bytes = (dice.range(1, 4) as usize * 4096).max(2 * record as usize);
    }
    if tiny(dice) {
        config.kept = Quota { messages: dice.magnitude(1, 64), bytes: 1024 * 1024 };
        config.queue_quota = Some(Quota { messages: dice.magnitude(8, 512), bytes: 1024 * 1024 });
    }
    if dice.chance(600) {
        config.lease = Duration::from_secs(dice.range(1, 4));
    }
    // The topic's text, its length and the head's flags come out of the message's bytes.
    config.limits.message_max = config.limits.message_max.min(shape.payload_max as u32 + 1100);
}

/// Limits below what is sent. Those who send have the limit for messages themselves.
fn draw_short(dice: &mut Dice, shape: &Shape, role: Role, config: &mut NodeConfig) -> Option<u32> {
    if dice.chance(shape.few_numbers) {
        config.limits.bindings_max = dice.pick(&[0, 1, 2]);
    }
    if role == Role::Publisher || !dice.chance(shape.short) {
        return None;
    }
    if dice.chance(500) {
        config.limits.frame_max = config.limits.frame_max.min(2048);
    }
    let short = dice.range(80, u64::from(shape.payload_max as u32) + 128) as u32;
    if dice.chance(500) {
        config.limits.message_max = short;
    }
    Some(short)
}

/// Publishers, a gateway and subscribers.
fn draw_relayed(dice: &mut Dice, shape: &Shape, nodes: &mut Vec<NodePlan>, topics: &mut Vec<String>) {
    let count = dice.range(1, 3) as usize;
    let first_topic = topics.len();
    topics.extend((0..count).map(|index| format!("relayed/{index}")));
    let gateway = nodes.len();
    nodes.push(draw_node(dice, shape, Role::Gateway, "gateway".into()));
    let publishers = if shape.wired { dice.below(2) } else { dice.range(1, 3) };
    for index in 0..publishers {
        let mut node = draw_node(dice, shape, Role::Publisher, format!("pub{index}"));
        node.dials.push(gateway);
        node.sends = some_of(dice, first_topic, count);
        nodes.push(node);
    }
    if shape.wired || dice.chance(300) {
        for name in device::NAMES.iter().take(dice.range(1, 2) as usize) {
            let mut node = draw_node(dice, shape, Role::Device, (*name).into());
            node.config.send_mode = SendMode::Stored;
            node.dials.push(gateway);
            node.sends = some_of(dice, first_topic, count);
            node.all = 1000;
            node.loose = 0;
            node.wire = (shape.wired || dice.chance(500)).then(|| WirePlan::draw(dice));
            node.assigned_epochs = node.wire.is_some() && node.class == Class::Ram && dice.chance(300);
            nodes.push(node);
        }
    }
    for index in 0..dice.range(1, 2) {
        let mut node = draw_node(dice, shape, Role::Subscriber, format!("sub{index}"));
        node.dials.push(gateway);
        node.subscribes = some_of(dice, first_topic, count);
        nodes.push(node);
    }
    if dice.chance(150) {
        nodes[gateway].subscribes = some_of(dice, first_topic, count);
    } else if dice.chance(150) {
        nodes[gateway].sends = some_of(dice, first_topic, count);
    }
}

/// Publishers and subscribers without anyone between them.
fn draw_direct(
    dice: &mut Dice,
    shape: &Shape,
    alone: bool,
    nodes: &mut Vec<NodePlan>,
    topics: &mut Vec<String>,
) {
    let count = dice.range(1, 2) as usize;
    let first_topic = topics.len();
    topics.extend((0..count).map(|index| format!("direct/{index}")));
    let publishers = if alone { dice.range(1, 3) } else { 1 };
    let subscribers = if alone { dice.range(if publishers == 1 { 2 } else { 1 }, 3) } else { 1 };
    let first = nodes.len();
    for index in 0..publishers {
        let mut node = draw_node(dice, shape, Role::Publisher, format!("source{index}"));
        node.sends = some_of(dice, first_topic, count);
        nodes.push(node);
    }
    for index in 0..subscribers {
        let at = nodes.len();
        let mut node = draw_node(dice, shape, Role::Subscriber, format!("sink{index}"));
        node.subscribes = some_of(dice, first_topic, count);
        nodes.push(node);
        for publisher in first..first + publishers as usize {
            let both = dice.chance(150);
            if both || dice.chance(700) {
                nodes[publisher].dials.push(at);
            }
            if both || !nodes[publisher].dials.contains(&at) {
                nodes[at].dials.push(publisher);
            }
        }
    }
}

/// At least one of `count` topics.
fn some_of(dice: &mut Dice, first: usize, count: usize) -> Vec<usize> {
    let mut some: Vec<usize> = (first..first + count).filter(|_| dice.chance(700)).collect();
    if some.is_empty() {
        some.push(first + dice.index(count));
    }
    some
}

fn draw_traffic(dice: &mut Dice, nodes: &mut [NodePlan]) {
    let total = dice.magnitude(200, 1000);
    let senders = nodes.iter().filter(|node| !node.sends.is_empty()).count() as u64;
    for node in nodes.iter_mut().filter(|node| !node.sends.is_empty()) {
        node.messages = total / senders;
    }
}

fn draw_link(dice: &mut Dice) -> LinkPlan {
    let far = dice.chance(300);
    let rate = |dice: &mut Dice| if dice.chance(300) { dice.range(1, 10) } else { 0 };
    LinkPlan {
        delay: if far { (5 * MILLI, 60 * MILLI) } else { (30, 800) },
        capacity: dice.pick(&[1024, 8 * 1024, 256 * 1024]),
        chunk: dice.pick(&[100, 1400, 64 * 1024]),
        corrupt: rate(dice),
        duplicate: rate(dice),
        reorder: rate(dice),
        lose: rate(dice),
        half_open: dice.pick(&[0, 0, 200]),
    }
}

fn draw_faults(dice: &mut Dice, nodes: &[NodePlan], heal: u64) -> Vec<(u64, Fault)> {
    // Which kinds there are is drawn first: worlds with all of them hide what a single one brings about.
    let mut some = |permille: u64, most: u64| if dice.chance(permille) { dice.range(1, most) } else { 0 };
    let weights = [
        some(1000, 10),
        some(700, 10),
        some(400, 5),
        some(400, 5),
        some(400, 5),
        some(400, 5),
        some(300, 4),
        some(150, 3),
        some(300, 3),
    ];
    let power = dice.pick(&[0, 200, 700]);
    let total: u64 = weights.iter().sum();
    let mut faults = Vec::new();
    for index in 0..dice.magnitude(4, 24) {
        let at = dice.range(heal / 20, heal - heal / 20);
        let node = dice.index(nodes.len());
        let time = dice.magnitude(10 * MILLI, 3 * SECOND);
        // The first fault is a restart in every world.
        let throw = if index == 0 { 0 } else { dice.below(total) };
        let kind = weights.iter().scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        let fault = match kind.take_while(|sum| *sum <= throw).count() {
            0 => Fault::Crash { node, power: dice.chance(power), writing: dice.chance(400), down: time },
            1 => Fault::Cut { node, apart: time },
            2 => Fault::Full { node, time, rate: dice.pick(&[300, 1000]) },
            3 => Fault::Unavailable { node, time },
            4 => Fault::CommitFails { node, time },
            6 => Fault::Stop { node, down: time },
            7 => Fault::Damage { node },
            8 => Fault::Stranger { node },
            _ => Fault::Slow { node, time },
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}
