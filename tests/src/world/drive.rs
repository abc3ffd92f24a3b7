//! What a shell does for a node: sockets, timers, disk and application, in virtual time.

use liner_proto::effect::Recovered;
use liner_proto::router::{DialId, Receipt, Router, SendError, StoreRequest};
use liner_proto::wire::record::Mode;

use super::World;
use super::checker::{PAYLOAD_MIN, Rule};
use super::storage::describe;
use super::swarm::Role;
use super::time::{self, Event};

/// Wakes of one node at one instant that are no storm.
const SPINS_MAX: u64 = 1000;

impl World {
    pub(super) fn step(&mut self, event: Event) {
        self.mix(self.now);
        match event {
            Event::Wake { node, life } => self.wake(node, life),
            Event::Send { node } => self.send(node),
            Event::Dial { node, life, dial, to } => self.dialed(node, life, DialId(dial), to),
            Event::Arrive { link, end } => self.arrive(link, end),
            Event::End { link, end } => self.close_end(link, 1 - end),
            Event::Execute { node, life } => self.execute(node, life),
            Event::Reply { node, life } => self.reply(node, life),
            Event::Serve { node, life } => {
                if self.nodes[node].life == life {
                    self.drive_device(node);
                }
            }
            Event::Plug { link } => self.plug_in(link),
            Event::Fault { index } => self.fault(index),
            Event::Settle { node, life, receipt } => self.settle(node, life, receipt),
            Event::Die { node, life, down } => self.die(node, life, down),
            Event::Restart { node } => self.start(node),
            Event::Mend { node } => self.mend(node),
        }
    }

    /// A process begins: it opens its disk, and does what its application wants of it.
    pub(super) fn start(&mut self, index: usize) {
        let now = self.instant();
        if self.is_alive(index) {
            return;
        }
        if self.nodes[index].plan.role == Role::Device {
            return self.start_device(index);
        }
        let node = &mut self.nodes[index];
        node.life += 1;
        let mut config = node.plan.config.clone();
        config.seed[0] ^= node.life.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        config.instance = config.seed[0];
        config.limits = node.plan.limits(node.life);
        let mut router = Router::new(config, now);
        node.disk.recover(&mut |item: Recovered<'_>| router.restore(&item));
        router.start(now);
        for topic in &node.plan.subscribes {
            router.subscribe(now, &self.plan.topics[*topic]);
        }
        for peer in &node.plan.dials {
            router.add_peer(now, &self.plan.nodes[*peer].config.address);
        }
        self.plug_gateway(index, &mut router);
        let node = &mut self.nodes[index];
        node.router = Some(router);
        node.wake = None;
        self.mix(0x5747 + index as u64);
        self.trace(|world| format!("{} begins, life {}", world.name(index), world.nodes[index].life));
        self.drive(index);
    }

    /// Whether the node's process lives.
    pub(super) fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].router.is_some() || self.nodes[node].device.is_some()
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.plan.nodes[node].config.name
    }

    // ------------------------------------------------------------------ the drain rule

    /// Drains every output of a node until nothing comes any more.
    pub(super) fn drive(&mut self, index: usize) {
        if self.nodes[index].device.is_some() {
            return self.drive_device(index);
        }
        loop {
            let before = self.report.hash;
            self.drive_links(index);
            self.drive_store(index);
            self.drive_events(index);
            if self.report.hash == before {
                break;
            }
        }
        let now = self.now;
        let Some(router) = &self.nodes[index].router else { return };
        let stored = router.stored_through().0;
        let held = router.held();
        let deadline = router.poll_timeout().map(|(at, _)| at.as_micros().max(now));
        self.checker.on_stored(index, stored);
        self.checker.on_memory(index, held, self.budget(index));
        let node = &mut self.nodes[index];
        if let Some(at) = deadline
            && node.wake != Some(at)
        {
            node.wake = Some(at);
            self.agenda.put(at, Event::Wake { node: index, life: node.life });
        }
        if self.nodes[index].crash_when_writing.is_some() && self.nodes[index].disk.is_writing() {
            self.crash_in_commit(index);
        }
    }

    fn drive_links(&mut self, index: usize) {
        let now = self.instant();
        let router = |world: &mut Self| world.nodes[index].router.take();
        let Some(mut router) = router(self) else { return };
        while let Some(dial) = router.poll_dial(now) {
            let to = self.plan.nodes.iter().position(|node| node.config.address == dial.address);
            let (low, high) = self.plan.link.delay;
            let at = self.now + self.dice.range(low, high);
            if let Some(to) = to {
                let life = self.nodes[index].life;
                self.mix(0xd1a1);
                self.agenda.put(at, Event::Dial { node: index, life, dial: time::number(dial.id), to });
            }
        }
        while let Some(conn) = router.poll_writable() {
            self.write(index, &mut router, conn);
        }
        while let Some(conn) = router.poll_close() {
            self.close_conn(&mut router, conn);
        }
        self.nodes[index].router = Some(router);
    }

    fn drive_store(&mut self, index: usize) {
        let now = self.instant();
        loop {
            let node = &mut self.nodes[index];
            let Some(request) = node.router.as_mut().and_then(|router| router.poll_store(now)) else {
                return;
            };
            if matches!(request, StoreRequest::Load(_)) {
                self.report.loads += 1;
            }
            let text = self.options.trace.then(|| describe(&request));
            let idle = node.disk.push(request);
            self.mix(0xd15c);
            if let Some(text) = text {
                self.trace(|world| format!("{} asks its disk: {text}", world.name(index)));
            }
            if idle {
                self.begin_request(index);
            }
        }
    }

    fn drive_events(&mut self, index: usize) {
        while let Some(event) = self.nodes[index].router.as_mut().and_then(Router::poll_event) {
            self.mix(0xe4e7);
            self.trace(|world| format!("{} says {event:?}", world.name(index)));
            self.line_end(index, &event);
            self.checker.on_event(index, &event);
        }
    }

    /// What a node's queues may take: each its own share, what its peers' windows let in, and what a move brings at once.
    fn budget(&self, index: usize) -> usize {
        let plan = &self.nodes[index].plan;
        let peers = self.nodes.len();
        let window = plan.config.limits.window_bytes as usize;
        let moved = 2 * 1024 * 1024;
        (peers + self.plan.topics.len()) * (plan.config.queue_bytes + peers * window + moved)
    }

    fn wake(&mut self, index: usize, life: u64) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if node.life != life || node.wake != Some(now) {
            // The deadline has moved since.
            self.report.events -= 1;
            return;
        }
        node.wake = None;
        node.spins = if node.spins.0 == now { (now, node.spins.1 + 1) } else { (now, 0) };
        let spins = node.spins.1;
        let at = liner_proto::time::Instant::from_micros(now);
        if let Some(device) = &mut node.device {
            let due = device.line.poll_timeout();
            device.handle_timeout(at);
            if spins > SPINS_MAX {
                let name = self.name(index).to_string();
                return self.checker.fail(Rule::Liveness, || format!("{name} wakes for ever for {due:?}"));
            }
            return self.drive_device(index);
        }
        let Some(router) = &mut node.router else { return };
        let due = router.poll_timeout();
        router.handle_timeout(at);
        if spins > SPINS_MAX {
            return self.checker.fail(Rule::Liveness, || format!("node {index} wakes for ever for {due:?}"));
        }
        self.trace(|world| format!("{} wakes for {due:?}", world.name(index)));
        self.drive(index);
    }

    // ------------------------------------------------------------------ the application

    /// An application has processed a message that it had taken.
    fn settle(&mut self, index: usize, life: u64, receipt: Receipt) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        let Some(router) = node.router.as_mut().filter(|_| node.life == life) else { return };
        self.checker.on_settled(index, receipt);
        let waited = router.settle(now, receipt);
        self.mix(u64::from(waited));
        self.trace(|world| format!("{} settles {receipt:?}, waited for: {waited}", world.name(index)));
        self.drive(index);
    }

    fn send(&mut self, index: usize) {
        let now = self.instant();
        if self.healed || self.nodes[index].to_send == 0 {
            return;
        }
        let pace = self.nodes[index].plan.pace;
        // Now and then several at once, so that batches and windows have something to hold.
        let burst = if self.dice.chance(200) { self.dice.range(2, 16) } else { 1 };
        self.agenda.put(self.now + self.dice.below(2 * pace * burst) + 1, Event::Send { node: index });
        for _ in 0..burst {
            let plan = &self.nodes[index].plan;
            let topic = self.dice.pick(&plan.sends);
            let mode = if self.dice.chance(plan.loose) {
                Mode::BestEffort
            } else if self.dice.chance(plan.all) {
                Mode::All
            } else {
                Mode::One
            };
            let len = self.payload_len();
            if self.nodes[index].device.is_some() && self.nodes[index].to_send > 0 {
                self.device_send(index, topic, len);
                continue;
            }
            let node = &mut self.nodes[index];
            let Some(router) = &mut node.router else { return };
            if node.to_send == 0 {
                break;
            }
            let (id, payload) = self.checker.on_send(index, topic, mode, len);
            match router.send(now, &self.plan.topics[topic], &payload, mode) {
                Ok(send) => {
                    node.to_send -= 1;
                    self.checker.on_accepted(id, send.0);
                    self.mix(u64::from(id));
                    self.trace(|world| format!("{} sends {id} ({mode:?}, topic {topic})", world.name(index)));
                }
                Err(SendError::TooLarge { max })
                    if payload.len() > max && self.takes_less(index, payload.len()) =>
                {
                    self.trace(|world| format!("{} may send {max} bytes and not {id}", world.name(index)));
                    self.checker.on_refused(id);
                }
                Err(error) => {
                    self.trace(|world| format!("{} may not send {id}: {error}", world.name(index)));
                    if !matches!(
                        error,
                        SendError::TooLarge { .. } | SendError::BadTopic | SendError::OwnTopic
                    ) {
                        // Not now. What comes later may be taken.
                        break;
                    }
                    self.checker.fail(Rule::Liveness, || format!("node {index} refuses a message: {error}"));
                }
            }
        }
        self.drive(index);
    }

    /// Whether some node does not take so long a payload with a topic and an origin before it, or the sender itself would not
    /// take it: it leaves room for the longest of both.
    fn takes_less(&self, sender: usize, payload: usize) -> bool {
        let own = self.plan.nodes[sender].record_max() < payload + 600;
        own || self.plan.nodes.iter().any(|node| node.record_max() < payload + 128)
    }

    fn payload_len(&mut self) -> usize {
        let max = self.plan.payload_max as u64;
        let most = if self.dice.chance(100) { max } else { max.min(120) };
        self.dice.range(PAYLOAD_MIN as u64, most) as usize
    }
}
