//! Devices' wires in the world: who listens on them, and what becomes of what is written.

use liner_proto::config::LineConfig;
use liner_proto::id::ConnId;
use liner_proto::router::{Event, Router};
use liner_proto::time::Instant;

use super::World;
use super::link::Link;
use super::time::Event as Due;
use super::wire::Wire;

/// A gateway begins to listen on a line that stays, at the other end of which a device says hello.
fn listen(router: &mut Router, now: Instant, line: LineConfig) -> ConnId {
    router.handle_line(now, line)
}

impl World {
    /// Wires are there before anybody speaks on them.
    pub(super) fn lay_wires(&mut self) {
        for index in 0..self.plan.nodes.len() {
            let node = &self.plan.nodes[index];
            let Some(plan) = node.wire else { continue };
            let nodes = [index, node.dials[0]];
            let wire = Wire::new(plan, &mut self.dice);
            self.links.push(Link::of_wire(wire, nodes));
        }
    }

    fn wire_at(&self, index: usize, end: usize) -> Vec<usize> {
        let ends_here = |link: &usize| {
            let link = &self.links[*link];
            link.wire.is_some() && link.ends[end].node == index
        };
        (0..self.links.len()).filter(ends_here).collect()
    }

    /// A device is there, at its end of the wire.
    pub(super) fn plug_device(&mut self, index: usize) {
        for link in self.wire_at(index, 0) {
            self.links[link].ends[0].conn = Some(ConnId(0));
            self.checker.on_begin(&mut self.links[link].view, 0);
            if let Some(device) = &mut self.nodes[index].device {
                device.link = Some(link);
            }
        }
    }

    /// A gateway has begun: it opens its ports.
    pub(super) fn plug_gateway(&mut self, index: usize, router: &mut Router) {
        for link in self.wire_at(index, 1) {
            self.open_wire(router, link);
        }
    }

    /// The gateway listens on the wire as if nothing had been there, unless its port is gone.
    pub(super) fn open_wire(&mut self, router: &mut Router, link: usize) {
        let now = self.instant();
        let state = &mut self.links[link];
        let Some(wire) = &state.wire else { return };
        // Whoever stops turns everybody away.
        let is_closed = wire.away_until > self.now || self.nodes[state.ends[1].node].stopping;
        state.ends[1].conn = (!is_closed).then(|| listen(router, now, wire.plan.config()));
        state.ends[1].arrived.clear();
        self.checker.on_begin(&mut state.view, 1);
        self.mix(0x3197);
    }

    /// The process at `end` is no more; the wire does not know.
    pub(super) fn unplug(&mut self, link: usize, end: usize) {
        let end = &mut self.links[link].ends[end];
        end.conn = None;
        end.arrived.clear();
    }

    /// What a device does by itself on a line that stays.
    pub(super) fn greet_on_wire(&mut self, index: usize) {
        let now = self.instant();
        let Some(device) = &mut self.nodes[index].device else { return };
        let on_wire = device.link.is_some_and(|link| self.links[link].wire.is_some());
        if on_wire && device.line.wants_link(now) {
            device.line.handle_link_up(now);
            self.mix(0x3e77);
            self.trace(|world| format!("{} says hello on its wire", world.name(index)));
        }
    }

    /// A gateway says that a device is gone.
    pub(super) fn line_end(&mut self, index: usize, event: &Event) {
        let Event::PeerDown { name, reason, .. } = event else { return };
        let named = |node: usize| self.plan.nodes[node].config.name == **name;
        for link in &mut self.links {
            let [device, gateway] = &link.ends;
            if link.wire.is_some() && gateway.node == index && named(device.node) {
                self.checker.on_line_end(&mut link.view, 1, index, *reason);
            }
        }
    }

    pub(super) fn put_on_wire(&mut self, link: usize, end: usize, chunk: &[u8]) {
        let healed = self.healed;
        let Link { wire, pipes, .. } = &mut self.links[link];
        let Some(wire) = wire else { return };
        let before = self.report.harms.sum();
        let tally = (!healed).then_some(&mut self.report.harms);
        let (mut arriving, at) = wire.carry(end, self.now, chunk, &mut self.dice, tally);
        if wire.cut_until.max(wire.away_until) > self.now {
            arriving.clear();
        }
        self.report.faults += self.report.harms.sum() - before;
        pipes[end].queue(arriving);
        self.agenda.put(at, Due::Arrive { link, end });
    }

    /// Nothing passes for a while. Only a port that vanishes is told of, and only to the gateway.
    pub(super) fn cut_wire(&mut self, link: usize, time: u64) {
        let now = self.instant();
        // A session outlives a wire that is dead for several seconds.
        let time = time * self.dice.range(1, 5);
        let Link { wire, pipes, ends, .. } = &mut self.links[link];
        let Some(wire) = wire else { return };
        pipes.iter_mut().for_each(super::link::Pipe::lose);
        if !wire.plan.usb {
            wire.cut_until = wire.cut_until.max(self.now + time);
            return;
        }
        wire.away_until = wire.away_until.max(self.now + time);
        self.agenda.put(wire.away_until, Due::Plug { link });
        let gateway = ends[1].node;
        if let (Some(conn), Some(router)) = (ends[1].conn.take(), &mut self.nodes[gateway].router) {
            ends[1].arrived.clear();
            router.handle_closed(now, conn);
            self.drive(gateway);
        }
    }

    /// The gateway is done with a session on the wire. It listens again as soon as it has done what it is about.
    pub(super) fn reopen_wire(&mut self, link: usize, end: usize) {
        self.unplug(link, end);
        self.agenda.put(self.now, Due::Plug { link });
    }

    /// The port is back, or free.
    pub(super) fn plug_in(&mut self, link: usize) {
        let state = &mut self.links[link];
        let gateway = state.ends[1].node;
        if state.ends[1].conn.is_some() {
            return;
        }
        if let Some(mut router) = self.nodes[gateway].router.take() {
            self.open_wire(&mut router, link);
            self.nodes[gateway].router = Some(router);
            self.drive(gateway);
        }
    }

    pub(super) fn heal_wires(&mut self) {
        for link in 0..self.links.len() {
            if let Some(wire) = &mut self.links[link].wire {
                wire.heal();
                self.plug_in(link);
            }
        }
    }
}
