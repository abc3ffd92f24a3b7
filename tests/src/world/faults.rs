//! What goes wrong in a world, and how it heals.

use liner_proto::effect::Queue;

use super::checker::Key;
use super::disk::{Aftermath, Strength, Trouble};
use super::swarm::{Fault, LinkPlan, Role, SECOND};
use super::time::Event;
use super::{Rule, World};

impl LinkPlan {
    /// The same links when nothing goes wrong.
    pub(super) const fn healed(mut self) -> Self {
        self.corrupt = 0;
        self.duplicate = 0;
        self.reorder = 0;
        self.lose = 0;
        self.half_open = 0;
        self
    }
}

impl World {
    pub(super) fn fault(&mut self, index: usize) {
        let Some(&(_, fault)) = self.plan.faults.get(index) else { return };
        self.trace(|_| format!("FAULT {fault:?}"));
        self.report.faults += 1;
        match fault {
            Fault::Crash { node, power, writing, down } => {
                if writing && self.nodes[node].device.is_none() && !self.nodes[node].disk.is_writing() {
                    self.nodes[node].crash_when_writing = Some((power, down));
                    return;
                }
                self.crash(node, power, down);
            }
            Fault::Stop { node, down } => self.stop(node, down),
            Fault::Damage { node } => self.damage(node),
            Fault::Stranger { node } => self.stranger(node),
            Fault::Cut { node, apart } => self.cut(node, apart),
            Fault::Full { node, time, rate } => {
                self.trouble(node, time, |trouble| trouble.full = rate);
            }
            Fault::Unavailable { node, time } => {
                self.trouble(node, time, |trouble| trouble.unavailable = true);
            }
            Fault::CommitFails { node, time } => {
                self.trouble(node, time, |trouble| trouble.commit_fails = 700);
            }
            Fault::Slow { node, time } => {
                self.nodes[node].slow = 100;
                self.agenda.put(self.now + time, Event::Mend { node });
            }
        }
    }

    fn trouble(&mut self, node: usize, time: u64, change: impl FnOnce(&mut Trouble)) {
        change(&mut self.nodes[node].disk.trouble);
        self.agenda.put(self.now + time, Event::Mend { node });
    }

    pub(super) fn mend(&mut self, node: usize) {
        self.nodes[node].disk.trouble = Trouble::default();
        self.nodes[node].slow = 1;
    }

    // ------------------------------------------------------------------ crashes

    pub(super) fn crash_in_commit(&mut self, node: usize) {
        if let Some((power, down)) = self.nodes[node].crash_when_writing.take() {
            self.crash(node, power, down);
        }
    }

    fn crash(&mut self, index: usize, power: bool, down: u64) {
        let node = &mut self.nodes[index];
        if node.router.take().is_none() && node.device.take().is_none() {
            return;
        }
        self.report.restarts += 1;
        self.nodes[index].life += 1;
        self.nodes[index].stopping = false;
        self.nodes[index].replies.clear();
        self.report.torn += u64::from(self.nodes[index].disk.is_writing());
        let silent = self.plan.silent;
        let strength = if power { Strength::Power } else { Strength::Process };
        let checker = &mut self.checker;
        let disk = &mut self.nodes[index].disk;
        let aftermath = disk.crash(strength, &mut self.dice, &mut |ops| checker.on_durable(index, ops));
        if silent {
            disk.hide();
        }
        checker.on_crash(index, aftermath, silent, disk.durable());
        self.report.losses += u64::from(aftermath != Aftermath::Kept);
        self.mix(0xc7a5 + index as u64);
        self.trace(|world| format!("{} dies ({strength:?}), its disk: {aftermath:?}", world.name(index)));
        for link in 0..self.links.len() {
            for end in 0..2 {
                if self.links[link].ends[end].node == index {
                    self.lose_end(link, end, power);
                }
            }
        }
        self.agenda.put(self.now + down, Event::Restart { node: index });
    }

    /// A node is told to stop: it says goodbye, and is gone soon after.
    fn stop(&mut self, index: usize, down: u64) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        let Some(router) = &mut node.router else { return };
        router.close(now);
        node.stopping = true;
        let at = self.now + self.dice.range(SECOND / 100, SECOND / 5);
        self.agenda.put(at, Event::Die { node: index, life: node.life, down });
        self.drive(index);
    }

    pub(super) fn die(&mut self, index: usize, life: u64, down: u64) {
        if self.nodes[index].life == life {
            self.crash(index, false, down);
        }
    }

    /// Stored records of a node no longer pass their check.
    fn damage(&mut self, index: usize) {
        let Some((key, number)) = self.checker.some_stored(index, self.dice.bits()) else { return };
        let is_device = self.nodes[index].plan.role == Role::Device;
        let queue = match &key {
            Key::Node(_) if is_device => Queue::Node(""),
            Key::Node(name) => Queue::Node(name),
            Key::Topic(topic) => Queue::Topic(topic),
            Key::Address(address) => Queue::Address(address),
        };
        if self.nodes[index].disk.durable_mut().damage(queue, number) {
            self.trace(|world| format!("{} has damage in {key:?} at {number}", world.name(index)));
            self.checker.on_damage(index, &key);
        }
    }

    /// The node at `end` is no more. A machine without power tells nobody.
    fn lose_end(&mut self, link: usize, end: usize, power: bool) {
        if self.links[link].wire.is_some() {
            return self.unplug(link, end);
        }
        if self.links[link].ends[end].conn.is_none() {
            return;
        }
        if power && self.dice.chance(500) {
            self.links[link].silent = true;
        }
        self.hang_up(link, end);
    }

    // ------------------------------------------------------------------ links

    fn cut(&mut self, node: usize, apart: u64) {
        let other = |link: &super::Link| {
            let ends = &link.ends;
            let alive = ends[0].conn.is_some() && ends[1].conn.is_some();
            let at = ends.iter().position(|end| end.node == node).filter(|_| alive)?;
            Some(ends[1 - at].node)
        };
        let peers: Vec<usize> = self.links.iter().filter_map(other).collect();
        if peers.is_empty() {
            return;
        }
        let peer = self.dice.pick(&peers);
        self.apart.push((node, peer, self.now + apart));
        let silent = self.dice.chance(self.plan.link.half_open);
        for link in 0..self.links.len() {
            if self.links[link].is_dead() || !self.links[link].joins(node, peer) {
                continue;
            }
            if self.links[link].wire.is_some() {
                self.cut_wire(link, apart);
                continue;
            }
            if silent {
                self.links[link].silent = true;
                self.links[link].pipes.iter_mut().for_each(super::link::Pipe::clear);
                continue;
            }
            // What is under way is lost, and both sides are told, one after the other.
            self.links[link].silent = true;
            for end in 0..2 {
                let at = self.now + self.dice.below(2 * self.plan.link.delay.1);
                self.agenda.put(at, Event::End { link, end });
            }
        }
    }

    pub(super) fn are_apart(&self, a: usize, b: usize) -> bool {
        let pair =
            |&(x, y, until): &(usize, usize, u64)| until > self.now && ((x, y) == (a, b) || (x, y) == (b, a));
        self.apart.iter().any(pair)
    }

    // ------------------------------------------------------------------ healing

    /// From here on nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.trace(|_| "everything heals".into());
        self.healed = true;
        self.apart.clear();
        self.heal_wires();
        for node in 0..self.nodes.len() {
            self.mend(node);
            self.nodes[node].crash_when_writing = None;
            if self.nodes[node].stopping {
                // It was about to be gone.
                self.crash(node, false, 0);
            }
            self.start(node);
        }
        if self.is_broken() {
            return;
        }
        let alive = (0..self.nodes.len()).all(|node| self.is_alive(node));
        if !alive {
            self.checker.fail(Rule::Liveness, || "a node does not start".into());
        }
    }
}
