//! A device of the world: an endpoint with a store that answers at once, on a line that loses and damages bytes.

use liner_proto::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::endpoint::{
    AssignedEndpoint, DeviceConfig, Endpoint, Event, SendError, StoredEndpoint, TopicIndex,
};
use liner_proto::id::Class;
use liner_proto::pump::{self, Overflow, WithStore};
use liner_proto::store::Store;
use liner_proto::time::Instant;
use liner_proto::timer::Deadline;
use liner_proto::wire::record::{self, GapReason, Header, Mode, Topic};
use liner_proto::wire::varint;

use super::World;
use super::checker::{Checker, Rule};
use super::dice::Dice;
use super::disk::Disk;
use super::swarm::SECOND;
use super::time::Event as Due;

/// What devices send to, by the numbers that topics have in every world.
pub(super) const TOPICS: &[&str] = &["relayed/0", "relayed/1", "relayed/2"];

/// Names of devices.
pub(super) const NAMES: [&str; 2] = ["device0", "device1"];

/// The largest payload of a device.
pub(super) const PAYLOAD_MAX: usize = 300;

const QUEUE: usize = 1024;
const FRAME: usize = 400;
const RAM: usize = 1536;

/// How long a device waits while its line is full, at least, in microseconds.
const FULL_LINE: u64 = SECOND / 100;

/// How long a device waits before it dials again, in microseconds.
const REDIAL: u64 = SECOND / 10;

type InRam = Endpoint<'static, RAM, FRAME>;
type Assigned = AssignedEndpoint<'static, RAM, FRAME>;
type InStore = StoredEndpoint<'static, QUEUE, FRAME>;

/// What a device speaks to its gateway with, wherever it keeps its messages.
#[derive(Debug)]
pub(super) enum Line {
    /// In memory, with what the checker was told of it.
    InRam(Box<InRam>, Told),
    /// The same, and the gateway makes the epochs.
    Assigned(Box<Assigned>, Told),
    /// On its disk.
    InStore(Box<InStore>),
}

/// How far the checker knows a queue in memory: the last number that was acknowledged, and the last that was dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    acked: u64,
    gone: u64,
}

/// Does the same with each kind.
macro_rules! each {
    ($line:expr, $of:ident => $what:expr) => {
        match $line {
            Line::InRam($of, _) => $what,
            Line::Assigned($of, _) => $what,
            Line::InStore($of) => $what,
        }
    };
}

impl Line {
    pub(super) fn handle_link_up(&mut self, now: Instant) {
        each!(self, line => line.handle_link_up(now));
    }

    fn handle_link_down(&mut self, now: Instant) {
        each!(self, line => line.handle_link_down(now));
    }

    fn handle_timeout(&mut self, now: Instant) {
        each!(self, line => line.handle_timeout(now));
    }

    fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize {
        each!(self, line => line.handle_bytes(now, bytes))
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> usize {
        each!(self, line => line.poll_transmit(now, out))
    }

    fn poll_event(&mut self) -> Option<Event<'_>> {
        each!(self, line => line.poll_event())
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        each!(self, line => line.poll_timeout())
    }

    pub(super) fn wants_link(&self, now: Instant) -> bool {
        each!(self, line => line.wants_link(now))
    }

    fn queued(&self) -> u64 {
        each!(self, line => line.queued())
    }

    /// Drops the oldest message. What is in memory only is gone at once, and the checker learns it.
    fn drop_oldest(&mut self, checker: &mut Checker, node: usize) -> bool {
        match self {
            Self::InStore(line) => line.drop_oldest(),
            Self::InRam(line, told) => told.drop_oldest(line.drop_oldest(), line.acked(), checker, node),
            Self::Assigned(line, told) => told.drop_oldest(line.drop_oldest(), line.acked(), checker, node),
        }
    }

    /// What a queue in memory has had acknowledged is forgotten: the checker learns it.
    fn tell_acked(&mut self, checker: &mut Checker, node: usize) -> bool {
        let (through, told) = match self {
            Self::InRam(line, told) => (line.acked(), told),
            Self::Assigned(line, told) => (line.acked(), told),
            Self::InStore(_) => return false,
        };
        if through == told.acked {
            return false;
        }
        told.acked = through;
        checker.on_durable(node, &[StoreOp::Trim { queue: QUEUE_KEY, through }]);
        true
    }
}

impl Told {
    /// The checker learns of the message that gave way, if there was any.
    fn drop_oldest(&mut self, any: bool, acked: u64, checker: &mut Checker, node: usize) -> bool {
        if any {
            self.gone = self.gone.max(acked) + 1;
            let drop = StoreOp::Drop { queue: QUEUE_KEY, through: self.gone, reason: GapReason::Dropped };
            checker.on_durable(node, &[drop]);
        }
        any
    }
}

/// The name of a device's only queue.
const QUEUE_KEY: Queue<'static> = Queue::Node("");

/// A device's process.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) line: Line,
    /// Its connection: the link, of which it is end 0.
    pub(super) link: Option<usize>,
    /// Frames that the link had no room for.
    unwritten: Vec<u8>,
    overflow: Overflow,
    sends: u64,
}

impl World {
    /// A device is switched on.
    pub(super) fn start_device(&mut self, index: usize) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        node.life += 1;
        let name = NAMES.iter().find(|name| **name == node.plan.config.name).copied().unwrap_or_default();
        let mut seed = node.plan.config.seed;
        if !node.plan.assigned_epochs {
            seed[0] ^= node.life.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let mut config = DeviceConfig::new(name, TOPICS, seed);
        config.class = node.plan.class;
        config.line = node.plan.wire.map(|wire| wire.config()).unwrap_or_default();
        config.planted = node.plan.config.planted;
        let line = if node.plan.class == Class::Ram {
            let line = if node.plan.assigned_epochs {
                Line::Assigned(Box::new(Assigned::new(config, now)), Told::default())
            } else {
                Line::InRam(Box::new(InRam::new(config, now)), Told::default())
            };
            let epoch = each!(&line, line => line.epoch());
            self.checker.on_durable(index, &[StoreOp::Open { queue: QUEUE_KEY, epoch }]);
            line
        } else {
            let mut line = Box::new(InStore::new(config, now));
            node.disk.recover(&mut |item: Recovered<'_>| line.restore(&item));
            Line::InStore(line)
        };
        let overflow = if node.plan.drops_oldest { Overflow::DropOldest } else { Overflow::Refuse };
        node.device = Some(Device { line, link: None, unwritten: Vec::new(), overflow, sends: 0 });
        node.wake = None;
        self.trace(|world| format!("{} begins, life {}", world.name(index), world.nodes[index].life));
        if self.plan.nodes[index].wire.is_some() {
            self.plug_device(index);
        } else {
            self.dial_for_device(index, 0);
        }
        self.drive_device(index);
    }

    fn dial_for_device(&mut self, index: usize, wait: u64) {
        let (low, high) = self.plan.link.delay;
        let at = self.now + wait + self.dice.range(low, high);
        let (life, to) = (self.nodes[index].life, self.plan.nodes[index].dials[0]);
        self.agenda.put(at, Due::Dial { node: index, life, dial: 0, to });
    }

    /// The line is there, or nobody answers.
    pub(super) fn device_dialed(&mut self, index: usize, link: Option<usize>) {
        let now = self.instant();
        let Some(link) = link else { return self.dial_for_device(index, REDIAL) };
        let Some(device) = &mut self.nodes[index].device else { return };
        device.link = Some(link);
        device.unwritten.clear();
        device.line.handle_link_up(now);
        self.drive_device(index);
    }

    /// The line is gone: another one is tried for.
    pub(super) fn device_lost(&mut self, index: usize) {
        let now = self.instant();
        let Some(device) = &mut self.nodes[index].device else { return };
        device.link = None;
        device.line.handle_link_down(now);
        self.dial_for_device(index, REDIAL);
        self.drive_device(index);
    }

    pub(super) fn device_bytes(&mut self, index: usize, bytes: &[u8]) {
        let now = self.instant();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(device) = &mut self.nodes[index].device else { return };
            let taken = device.line.handle_bytes(now, rest);
            rest = &rest[taken..];
            if taken == 0 && !self.device_events(index) {
                self.checker.fail(Rule::Liveness, || format!("device {index} takes no bytes"));
                return;
            }
        }
        self.drive_device(index);
    }

    /// Drains every output of a device.
    pub(super) fn drive_device(&mut self, index: usize) {
        self.greet_on_wire(index);
        loop {
            let before = self.report.hash;
            self.device_store(index);
            self.device_write(index);
            self.device_events(index);
            if self.report.hash == before {
                break;
            }
        }
        let now = self.now;
        let node = &mut self.nodes[index];
        let Some(device) = &node.device else { return };
        // What is due and has to be written waits for the line: nothing tells when a stalled one goes on.
        let soonest = if device.unwritten.is_empty() { now } else { now + FULL_LINE };
        let deadline = device.line.poll_timeout().map(|(at, _)| at.as_micros().max(soonest));
        if let Some(at) = deadline
            && node.wake != Some(at)
        {
            node.wake = Some(at);
            self.agenda.put(at, Due::Wake { node: index, life: node.life });
        }
    }

    fn device_store(&mut self, index: usize) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        let Some(device) = &mut node.device else { return };
        let (disk, checker) = (&mut node.disk, &mut self.checker);
        let Line::InStore(endpoint) = &mut device.line else {
            if device.line.tell_acked(checker, index) {
                self.mix(0xd371);
            }
            return;
        };
        let mut store = Tapped { disk, checker, dice: &mut self.dice, node: index, done: 0 };
        let mut scratch = [0; FRAME + 16];
        let outcome = WithStore { endpoint: &mut **endpoint, store: &mut store }.serve(now, &mut scratch);
        let done = store.done;
        if done > 0 {
            self.mix(0xd371);
        }
        if outcome.is_err() {
            // Nothing but time heals a store.
            let life = self.nodes[index].life;
            self.agenda.put(self.now + SECOND / 5, Due::Serve { node: index, life });
        }
    }

    fn device_write(&mut self, index: usize) {
        let now = self.instant();
        let mut frames = [0; 2 * InStore::TRANSMIT_MIN];
        loop {
            let Some(device) = &mut self.nodes[index].device else { return };
            let Some(link) = device.link else { return };
            if device.unwritten.is_empty() {
                let len = device.line.poll_transmit(now, &mut frames);
                device.unwritten.extend_from_slice(&frames[..len]);
            }
            if device.unwritten.is_empty() {
                return;
            }
            let (room, most) = self.links[link].room(0, &self.plan.link);
            let len = device.unwritten.len().min(room).min(most);
            if len == 0 {
                self.links[link].pipes[0].blocked = true;
                return;
            }
            let chunk: Vec<u8> = device.unwritten.drain(..len).collect();
            self.mix(len as u64);
            let to = self.links[link].ends[1].node;
            self.checker.on_bytes(&mut self.links[link].view, 0, (index, to), &chunk);
            self.put_chunk(link, 0, chunk);
        }
    }

    /// Says whether there was an event.
    fn device_events(&mut self, index: usize) -> bool {
        let mut any = false;
        while let Some(device) = &mut self.nodes[index].device {
            let over = match device.line.poll_event() {
                None => break,
                Some(Event::Disconnected(reason)) => {
                    let link = device.link;
                    if let Some(link) = link {
                        self.checker.on_line_end(&mut self.links[link].view, 0, index, reason);
                    }
                    link
                }
                Some(Event::Message { .. }) => {
                    self.checker
                        .fail(Rule::OnlyFromPeers, || "a device takes messages that nobody sends".into());
                    None
                }
                Some(Event::TooLarge) => {
                    self.checker.on_dropping(index);
                    device.line.drop_oldest(&mut self.checker, index);
                    None
                }
                Some(Event::WeakAcks { .. }) => {
                    self.checker.on_held(index, self.plan.nodes[index].dials[0]);
                    None
                }
                Some(_) => None,
            };
            any = true;
            self.mix(0xe4e8);
            if let Some(link) = over.filter(|link| self.links[*link].wire.is_none()) {
                self.trace(|world| format!("{} closes link {link}", world.name(index)));
                self.hang_up(link, 0);
                self.device_lost(index);
            }
        }
        any
    }

    /// The device's application has something to send.
    pub(super) fn device_send(&mut self, index: usize, topic: usize, len: usize) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        let Some(device) = &mut node.device else { return };
        let (id, payload) = self.checker.on_send(index, topic, Mode::All, len.min(PAYLOAD_MAX));
        let (disk, checker) = (&mut node.disk, &mut self.checker);
        let message = (TopicIndex(topic as u16), &payload[..]);
        // When it returns, the message is stored: whoever looks at the store meanwhile has to know that it may be.
        checker.on_accepted(id, device.sends + 1);
        let sent = match &mut device.line {
            Line::InRam(..) | Line::Assigned(..) => {
                send_in_ram(&mut device.line, checker, (index, now), message, device.overflow)
            }
            Line::InStore(endpoint) => {
                let mut store = Tapped { disk, checker, dice: &mut self.dice, node: index, done: 0 };
                let mut both = WithStore { endpoint: &mut **endpoint, store: &mut store };
                pump::send(&mut both, now, message, device.overflow)
            }
        };
        match sent {
            Ok(_) => {
                device.sends += 1;
                node.to_send -= 1;
                let sends = device.sends;
                self.checker.on_stored(index, sends);
                self.mix(u64::from(id));
                self.trace(|world| format!("{} sends {id} (topic {topic})", world.name(index)));
            }
            Err(error) => {
                self.checker.on_refused(id);
                self.trace(|world| format!("{} may not send {id}: {error}", world.name(index)));
            }
        }
    }
}

/// Takes a message into memory, and tells the checker of what gave way to it and what it is.
fn send_in_ram(
    line: &mut Line,
    checker: &mut Checker,
    (node, now): (usize, Instant),
    message: (TopicIndex, &[u8]),
    overflow: Overflow,
) -> Result<u64, SendError> {
    line.tell_acked(checker, node);
    loop {
        let sent = match line {
            Line::InRam(endpoint, _) => pump::send(&mut **endpoint, now, message, Overflow::Refuse),
            Line::Assigned(endpoint, _) => pump::send(&mut **endpoint, now, message, Overflow::Refuse),
            Line::InStore(_) => return Err(SendError::Store),
        };
        match sent {
            Err(SendError::Full) if overflow == Overflow::DropOldest && line.drop_oldest(checker, node) => {}
            Ok(number) => {
                let header = Header::new(Mode::All, Topic::Number(u32::from(message.0.0) + 1));
                let len = record::message_len(&header, message.1.len());
                let mut records = vec![0; len + 2];
                let prefix = varint::put_varint(&mut records, len as u64).unwrap_or(0);
                record::encode_message(&header, message.1, &mut records[prefix..]);
                records.truncate(prefix + len);
                let append =
                    StoreOp::Append { queue: QUEUE_KEY, first: number, last: number, records: &records };
                checker.on_durable(node, &[append]);
                return Ok(number);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Device {
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.line.handle_timeout(now);
    }

    /// Whether nothing waits to be acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.line.queued() == 0
    }
}

/// A device's store, with an observer of what it makes durable.
struct Tapped<'a> {
    disk: &'a mut Disk,
    checker: &'a mut Checker,
    dice: &'a mut Dice,
    node: usize,
    done: u64,
}

impl Store for Tapped<'_> {
    fn class(&self) -> Class {
        self.disk.class()
    }

    fn recover(&mut self, _visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        Ok(())
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.disk.apply_now(group, self.dice)?;
        self.done += 1;
        self.checker.on_durable(self.node, group);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.disk.load_now(queue, after, into)
    }
}
