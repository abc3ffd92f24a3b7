//! What a shell does for a node: sockets, timers, disk and application, in virtual time.

use liner_proto::effect::Recovered;
use liner_proto::id::ConnId;
use liner_proto::router::{DialId, Framing, Message, Router, SendError, StoreRequest};
use liner_proto::wire::record::Mode;

use super::checker::{PAYLOAD_MIN, Rule};
use super::disk::Reply;
use super::link::Link;
use super::swarm::Role;
use super::time::{self, Event};
use super::{Node, World};

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
            Event::Fault { index } => self.fault(index),
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
        let mut router = Router::new(config, now);
        node.disk.recover(&mut |item: Recovered<'_>| router.restore(&item));
        router.start(now);
        for topic in &node.plan.subscribes {
            router.subscribe(now, &self.plan.topics[*topic]);
        }
        for peer in &node.plan.dials {
            router.add_peer(now, &self.plan.nodes[*peer].config.address);
        }
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
            router.handle_closed(now, conn);
            self.mix(0xc105e);
            if let Some((link, end)) = self.find(index, conn) {
                self.trace(|world| format!("{} closes link {link}", world.name(index)));
                self.hang_up(link, end);
            }
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
            device.handle_timeout(at);
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
            let mode = if self.dice.chance(plan.all) { Mode::All } else { Mode::One };
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

    fn payload_len(&mut self) -> usize {
        let max = self.plan.payload_max as u64;
        let most = if self.dice.chance(100) { max } else { max.min(120) };
        self.dice.range(PAYLOAD_MIN as u64, most) as usize
    }

    // ------------------------------------------------------------------ links

    fn find(&self, index: usize, conn: ConnId) -> Option<(usize, usize)> {
        let mine = |link: &Link| link.ends.iter().position(|end| end.node == index && end.conn == Some(conn));
        self.links.iter().enumerate().rev().find_map(|(link, state)| Some((link, mine(state)?)))
    }

    fn dialed(&mut self, index: usize, life: u64, dial: DialId, to: usize) {
        let now = self.instant();
        if self.nodes[index].life != life || !self.is_alive(index) {
            return;
        }
        let is_device = self.nodes[index].device.is_some();
        let reachable = self.nodes[to].router.is_some() && !self.are_apart(index, to);
        if !reachable {
            if is_device {
                return self.device_dialed(index, None);
            }
            if let Some(router) = &mut self.nodes[index].router {
                router.handle_dial_failed(now, dial);
            }
            return self.drive(index);
        }
        let framing = if is_device { Framing::Cobs } else { Framing::Length };
        let dialler =
            self.nodes[index].router.as_mut().map(|router| router.handle_dialed(now, dial, framing));
        let listener = self.nodes[to].router.as_mut().map(|router| router.handle_accepted(now, framing));
        let Some(listener) = listener else { return };
        // A device has one connection, and no name for it.
        let dialler = dialler.unwrap_or(ConnId(0));
        self.links.push(Link::new(framing, [index, to], [dialler, listener]));
        let link = self.links.len() - 1;
        self.trace(|world| format!("link {link}: {} to {}", world.name(index), world.name(to)));
        if is_device {
            self.device_dialed(index, Some(link));
        }
        self.drive(index);
        self.drive(to);
    }

    /// Writes what a connection has, until there is no more of it or no room.
    fn write(&mut self, index: usize, router: &mut Router, conn: ConnId) {
        let now = self.instant();
        let Some((link, end)) = self.find(index, conn) else { return };
        loop {
            let plan = &self.plan.link;
            let state = &mut self.links[link];
            let room = state.pipes[end].room(plan);
            let transmit = router.poll_transmit(now, conn);
            if transmit.is_empty() {
                return;
            }
            if room == 0 {
                state.pipes[end].blocked = true;
                return;
            }
            let len = transmit.len().min(room).min(plan.chunk);
            let len = if self.dice.chance(100) { self.dice.range(1, len as u64) as usize } else { len };
            let mut chunk = Vec::with_capacity(len);
            chunk.extend_from_slice(&transmit.head[..transmit.head.len().min(len)]);
            chunk.extend_from_slice(&transmit.body[..len - chunk.len()]);
            router.handle_written(now, conn, len);
            self.mix(len as u64);
            let to = self.links[link].ends[1 - end].node;
            self.checker.on_bytes(&mut self.links[link].view, end, (index, to), &chunk);
            self.put_chunk(link, end, chunk);
        }
    }

    pub(super) fn put_chunk(&mut self, link: usize, end: usize, chunk: Vec<u8>) {
        let state = &mut self.links[link];
        if state.silent || state.ends[1 - end].conn.is_none() {
            // Into the void, as into a socket whose other side is gone: the link's buffer swallows it.
            return;
        }
        let plan = if self.healed { self.plan.link.healed() } else { self.plan.link };
        if state.framing == Framing::Cobs && self.dice.chance(plan.lose) {
            self.report.faults += 1;
            return;
        }
        let pipe = &mut state.pipes[end];
        let (at, twice) = pipe.push(self.now, chunk, &plan, &mut self.dice, &mut self.report.faults);
        for _ in 0..=usize::from(twice) {
            self.agenda.put(at, Event::Arrive { link, end });
        }
    }

    /// A chunk that `end` wrote arrives at the other one.
    fn arrive(&mut self, link: usize, end: usize) {
        let now = self.instant();
        let state = &mut self.links[link];
        let chunk = state.pipes[end].pop();
        let target = &mut state.ends[1 - end];
        let (Some(conn), false) = (target.conn, state.silent) else { return };
        let index = target.node;
        if self.nodes[index].device.is_some() {
            self.resume_writer(link, end);
            return self.device_bytes(index, &chunk);
        }
        target.arrived.extend_from_slice(&chunk);
        let checker = &mut self.checker;
        let Some(router) = &mut self.nodes[index].router else { return };
        let mut application = |message: &Message<'_>| checker.on_message(index, message);
        let taken = router.handle_bytes(now, conn, &mut target.arrived, &mut application);
        target.arrived.drain(..taken);
        self.mix(taken as u64);
        self.resume_writer(link, end);
        self.drive(index);
    }

    /// There is room again for what `end` writes.
    fn resume_writer(&mut self, link: usize, end: usize) {
        let state = &mut self.links[link];
        if !core::mem::take(&mut state.pipes[end].blocked) {
            return;
        }
        let Some(conn) = state.ends[end].conn else { return };
        let writer = state.ends[end].node;
        if let Some(mut router) = self.nodes[writer].router.take() {
            self.write(writer, &mut router, conn);
            self.nodes[writer].router = Some(router);
        }
        self.drive(writer);
    }

    /// The node at `end` is done with the link; the other one will hear of it.
    pub(super) fn hang_up(&mut self, link: usize, end: usize) {
        let state = &mut self.links[link];
        if state.ends[end].conn.take().is_none() {
            return;
        }
        state.pipes[1 - end].clear();
        if !state.silent && state.ends[1 - end].conn.is_some() {
            let at = state.pipes[end].end_at(self.now, &self.plan.link);
            self.agenda.put(at, Event::End { link, end });
        }
    }

    /// The node at `end` learns that the link is gone.
    pub(super) fn close_end(&mut self, link: usize, end: usize) {
        let now = self.instant();
        let target = &mut self.links[link].ends[end];
        let (Some(conn), index) = (target.conn.take(), target.node) else { return };
        if self.nodes[index].device.is_some() {
            self.trace(|world| format!("{} loses link {link}", world.name(index)));
            return self.device_lost(index);
        }
        if let Some(router) = &mut self.nodes[index].router {
            router.handle_closed(now, conn);
        }
        self.trace(|world| format!("{} loses link {link}", world.name(index)));
        self.drive(index);
    }

    // ------------------------------------------------------------------ the disk

    fn begin_request(&mut self, index: usize) {
        let node = &self.nodes[index];
        let (low, high) = node.plan.disk_latency;
        let at = self.now + self.dice.range(low, high) * node.slow;
        self.agenda.put(at, Event::Execute { node: index, life: node.life });
    }

    fn execute(&mut self, index: usize, life: u64) {
        let Node { disk, replies, life: current, .. } = &mut self.nodes[index];
        if *current != life || !disk.is_busy() {
            return;
        }
        let checker = &mut self.checker;
        let reply = disk.execute(&mut self.dice, &mut |ops| checker.on_durable(index, ops));
        let text = self.options.trace.then(|| outcome(reply.as_ref()));
        replies.extend(reply);
        let (low, _) = self.nodes[index].plan.disk_latency;
        let at = self.now + self.dice.below(low + 1);
        self.agenda.put(at, Event::Reply { node: index, life });
        if self.nodes[index].disk.is_busy() {
            self.begin_request(index);
        }
        if let Some(text) = text {
            self.trace(|world| format!("disk of {}: {text}", world.name(index)));
        }
    }

    fn reply(&mut self, index: usize, life: u64) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        if node.life != life {
            return;
        }
        let Some(router) = &mut node.router else { return };
        match node.replies.pop_front() {
            Some(Reply::Committed { id, outcome }) => router.handle_committed(now, id, outcome),
            Some(Reply::Loaded { request, result, bytes }) => {
                router.handle_loaded(now, &request, result, &bytes)
            }
            None => return,
        }
        self.mix(0x4e91);
        self.drive(index);
    }
}

fn describe(request: &StoreRequest) -> String {
    match request {
        StoreRequest::Load(load) => format!("{load:?}"),
        StoreRequest::Commit(batch) => {
            let mut words = format!("batch {} of generation {}:", batch.id().0, batch.generation());
            let _ = batch.try_each_group(|ops| {
                for op in ops {
                    words.push_str(&brief(op));
                }
                words.push_str(" |");
                Ok::<(), ()>(())
            });
            words
        }
    }
}

fn brief(op: &liner_proto::effect::StoreOp<'_>) -> String {
    use liner_proto::effect::StoreOp;
    match op {
        StoreOp::Append { queue, first, last, .. } => format!(" append {queue:?} {first}..={last}"),
        StoreOp::DeadLetter { peer, topic, reason, .. } => format!(" put aside {reason:?} {topic} of {peer}"),
        other => format!(" {other:?}"),
    }
}

fn outcome(reply: Option<&Reply>) -> String {
    match reply {
        Some(Reply::Committed { id, outcome }) => format!("batch {}: {outcome:?}", id.0),
        Some(Reply::Loaded { result, .. }) => format!("read: {result:?}"),
        None => "nothing".into(),
    }
}
