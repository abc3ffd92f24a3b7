//! Connections of the world: who dials whom, what is written, and what arrives.

use liner_proto::id::ConnId;
use liner_proto::router::{Application, DialId, Framing, Message, Receipt, Router, Settle};
use liner_proto::wire::record::Mode;

use super::World;
use super::checker::Checker;
use super::link::Link;
use super::time::Event;

/// The application of a node.
struct Taker<'a> {
    checker: &'a mut Checker,
    index: usize,
    /// It settles what it takes later.
    late: bool,
    receipts: Vec<Receipt>,
}

impl Application for Taker<'_> {
    fn message(&mut self, message: &Message<'_>) {
        self.checker.on_message(self.index, message);
    }

    fn take(&mut self, message: &Message<'_>) -> Settle {
        self.message(message);
        if !self.late || message.mode == Mode::BestEffort {
            return Settle::Now;
        }
        self.checker.on_taken(self.index, message.receipt);
        self.receipts.push(message.receipt);
        Settle::Later
    }
}

impl World {
    pub(super) fn find(&self, index: usize, conn: ConnId) -> Option<(usize, usize)> {
        let mine = |link: &Link| link.ends.iter().position(|end| end.node == index && end.conn == Some(conn));
        self.links.iter().enumerate().rev().find_map(|(link, state)| Some((link, mine(state)?)))
    }

    pub(super) fn dialed(&mut self, index: usize, life: u64, dial: DialId, to: usize) {
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
    pub(super) fn write(&mut self, index: usize, router: &mut Router, conn: ConnId) {
        let now = self.instant();
        let Some((link, end)) = self.find(index, conn) else { return };
        loop {
            let state = &mut self.links[link];
            let (room, most) = state.room(end, &self.plan.link);
            let transmit = router.poll_transmit(now, conn);
            if transmit.is_empty() {
                return;
            }
            if room == 0 {
                state.pipes[end].blocked = true;
                return;
            }
            let len = transmit.len().min(room).min(most);
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
        if self.links[link].wire.is_some() {
            return self.put_on_wire(link, end, &chunk);
        }
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
    pub(super) fn arrive(&mut self, link: usize, end: usize) {
        let now = self.instant();
        let state = &mut self.links[link];
        let chunk = state.pipes[end].pop();
        let target = &mut state.ends[1 - end];
        let (Some(conn), false) = (target.conn, state.silent) else {
            if state.wire.is_some() {
                // Nobody listens: the bytes are gone, and there is room for more.
                self.resume_writer(link, end);
            }
            return;
        };
        let index = target.node;
        self.checker.on_arrival(&mut state.view, 1 - end, &chunk);
        if self.nodes[index].device.is_some() {
            self.resume_writer(link, end);
            return self.device_bytes(index, &chunk);
        }
        target.arrived.extend_from_slice(&chunk);
        let node = &mut self.nodes[index];
        let Some(router) = &mut node.router else { return };
        let (checker, late, life) = (&mut self.checker, node.plan.late, node.life);
        let mut application = Taker { checker, index, late, receipts: Vec::new() };
        let taken = router.handle_bytes(now, conn, &mut target.arrived, &mut application);
        for receipt in application.receipts {
            // A window of a few messages has to come to rest in time.
            let most = if self.healed { 20_000 } else { 1_000_000 };
            let at = self.now + self.dice.magnitude(1, most);
            self.agenda.put(at, Event::Settle { node: index, life, receipt });
        }
        let target = &mut self.links[link].ends[1 - end];
        target.arrived.drain(..taken);
        self.mix(taken as u64);
        self.resume_writer(link, end);
        self.drive(index);
    }

    /// There is room again for what `end` writes.
    pub(super) fn resume_writer(&mut self, link: usize, end: usize) {
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

    /// A node wants a connection closed.
    pub(super) fn close_conn(&mut self, router: &mut Router, conn: ConnId) {
        router.handle_closed(self.instant(), conn);
        self.mix(0xc105e);
        let name = &router.config().name;
        let index = self.plan.nodes.iter().position(|node| node.config.name == *name);
        // Strangers have no link.
        if let Some((link, end)) = index.and_then(|index| self.find(index, conn)) {
            self.trace(|world| {
                format!("{} closes link {link}", world.name(world.links[link].ends[end].node))
            });
            if self.links[link].wire.is_some() {
                return self.reopen_wire(link, end);
            }
            self.hang_up(link, end);
        }
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
}
