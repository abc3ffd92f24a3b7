//! Connections between two nodes: chunks of bytes that are under way.

use std::collections::VecDeque;

use liner_proto::id::ConnId;
use liner_proto::router::Framing;

use super::checker::View;
use super::dice::Dice;
use super::swarm::LinkPlan;
use super::wire::Wire;

/// One end of a link.
#[derive(Debug)]
pub struct End {
    /// Whose.
    pub node: usize,
    /// The connection's name there; nothing once that node has closed it, or has died.
    pub conn: Option<ConnId>,
    /// Bytes that have arrived and were not taken.
    pub arrived: Vec<u8>,
}

/// What one end has written and the other has not had.
#[derive(Debug, Default)]
pub struct Pipe {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
    /// When the newest chunk arrives: none overtakes it.
    last: u64,
    /// The writer waits for room.
    pub blocked: bool,
}

/// A link. End 0 dialled; pipe 0 leads away from it.
#[derive(Debug)]
pub struct Link {
    /// How frames are told apart.
    pub framing: Framing,
    /// Both ends.
    pub ends: [End; 2],
    /// Both directions, by the end that writes.
    pub pipes: [Pipe; 2],
    /// What an observer has seen.
    pub view: View,
    /// Nothing passes any more, and nobody was told.
    pub silent: bool,
    /// What it is made of, if it is a device's wire. Then it is never closed.
    pub wire: Option<Box<Wire>>,
}

impl Link {
    /// A new link.
    pub fn new(framing: Framing, nodes: [usize; 2], conns: [ConnId; 2]) -> Self {
        let end = |at: usize| End { node: nodes[at], conn: Some(conns[at]), arrived: Vec::new() };
        Self {
            framing,
            ends: [end(0), end(1)],
            pipes: [Pipe::default(), Pipe::default()],
            view: View::new(framing),
            silent: false,
            wire: None,
        }
    }

    /// A wire between a device and its gateway, neither of which is there yet.
    pub fn of_wire(wire: Wire, nodes: [usize; 2]) -> Self {
        let mut link = Self::new(Framing::Cobs, nodes, [ConnId(0); 2]);
        link.ends.iter_mut().for_each(|end| end.conn = None);
        link.wire = Some(Box::new(wire));
        link
    }

    /// Bytes that `end` may write now, and the most in one chunk.
    pub fn room(&self, end: usize, plan: &LinkPlan) -> (usize, usize) {
        let wire = self.wire.as_ref().map(|wire| (wire.plan.capacity, wire.plan.chunk));
        let (capacity, chunk) = wire.unwrap_or((plan.capacity, plan.chunk));
        (capacity.saturating_sub(self.pipes[end].bytes), chunk)
    }

    /// Whether neither end is open.
    pub const fn is_dead(&self) -> bool {
        self.ends[0].conn.is_none() && self.ends[1].conn.is_none()
    }

    /// Whether it joins these two.
    pub fn joins(&self, a: usize, b: usize) -> bool {
        let nodes = (self.ends[0].node, self.ends[1].node);
        nodes == (a, b) || nodes == (b, a)
    }
}

impl Pipe {
    /// Takes a chunk, and says when it arrives. What goes wrong with it is drawn.
    /// The number of faults is added to `faults`.
    pub fn push(
        &mut self,
        now: u64,
        mut chunk: Vec<u8>,
        plan: &LinkPlan,
        dice: &mut Dice,
        faults: &mut u64,
    ) -> (u64, bool) {
        let mut twice = false;
        if dice.chance(plan.corrupt) {
            let at = dice.index(chunk.len());
            chunk[at] ^= 1 << dice.below(8);
            *faults += 1;
        }
        self.bytes += chunk.len();
        if dice.chance(plan.duplicate) {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk.clone());
            *faults += 1;
            twice = true;
        }
        self.chunks.push_back(chunk);
        if self.chunks.len() > 1 && dice.chance(plan.reorder) {
            let last = self.chunks.len() - 1;
            self.chunks.swap(last, last - 1);
            *faults += 1;
        }
        let (low, high) = plan.delay;
        self.last = self.last.max(now + dice.range(low, high));
        (self.last, twice)
    }

    /// Takes a chunk as it will arrive.
    pub fn queue(&mut self, chunk: Vec<u8>) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// What is under way is lost. It arrives as nothing, when it would have arrived.
    pub fn lose(&mut self) {
        self.chunks.iter_mut().for_each(Vec::clear);
        self.bytes = 0;
    }

    /// The oldest chunk is there.
    pub fn pop(&mut self) -> Vec<u8> {
        let chunk = self.chunks.pop_front().unwrap_or_default();
        self.bytes -= chunk.len();
        chunk
    }

    /// When the end of the stream arrives, if it is closed now.
    pub fn end_at(&self, now: u64, plan: &LinkPlan) -> u64 {
        self.last.max(now + plan.delay.0)
    }

    /// Everything under way is gone.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
        self.blocked = false;
    }
}
