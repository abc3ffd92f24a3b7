//! Virtual time: what happens next.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use liner_proto::router::DialId;
use liner_proto::router::Receipt;

/// Something that happens at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A node's deadline.
    Wake { node: usize, life: u64 },
    /// A node's application sends.
    Send { node: usize },
    /// An address answers, or does not.
    Dial { node: usize, life: u64, dial: u32, to: usize },
    /// A chunk arrives at the other end.
    Arrive { link: usize, end: usize },
    /// The other end learns that this one is closed.
    End { link: usize, end: usize },
    /// A disk is done with its oldest request.
    Execute { node: usize, life: u64 },
    /// The node hears of it.
    Reply { node: usize, life: u64 },
    /// A device asks its store again.
    Serve { node: usize, life: u64 },
    /// A wire's port is back.
    Plug { link: usize },
    /// Something of the plan goes wrong.
    Fault { index: usize },
    /// An application has processed a message.
    Settle { node: usize, life: u64, receipt: Receipt },
    /// A node that was told to stop is gone.
    Die { node: usize, life: u64, down: u64 },
    /// A node comes back.
    Restart { node: usize },
    /// A disk's trouble is over.
    Mend { node: usize },
}

/// Everything that is going to happen, soonest first. What is put in later happens later at the same time.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: u64, event: Event) {
        self.heap.push(Reverse((at, self.next, event)));
        self.next += 1;
    }

    /// The next event, unless it is after `end`.
    pub(super) fn pop_through(&mut self, end: u64) -> Option<(u64, Event)> {
        if self.heap.peek()?.0.0 > end {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}

/// A dial's name as a number.
pub(super) const fn number(dial: DialId) -> u32 {
    dial.0
}
