//! A node's turn of storage work: atomic groups of requests that own their bytes.

use alloc::vec::Vec;
use core::ops::Range;

use super::{DeadReason, Delivery, GapReason, Queue, StoreOp};
use crate::id::{Epoch, Predecessor};
use crate::wire::record::Mode;

/// Names a batch; strictly increasing, never used again while the node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// How a batch ended: so many of its groups are committed, and if that is not all of them, why not.
///
/// A group that is not committed left no trace, and neither did any after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Groups that are committed, from the first.
    pub groups: usize,
    /// What stopped the next one.
    pub fault: Option<super::StoreFault>,
}

impl Outcome {
    /// What has become of the groups that were [applied](crate::store::apply), once their commit has ended.
    pub const fn ended(self, commit: Result<(), super::StoreFault>) -> Self {
        match commit {
            Ok(()) => self,
            Err(fault) => Self { groups: 0, fault: Some(fault) },
        }
    }
}

/// Atomic groups of store requests, in the order in which they must be executed.
///
/// It owns its bytes, so it can be executed in place or travel to a worker thread.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    id: BatchId,
    generation: u64,
    ops: Vec<Owned>,
    bytes: Vec<u8>,
    /// Index behind the last op of each group that was ended.
    ends: Vec<usize>,
}

impl Batch {
    /// A batch without content.
    pub(crate) const fn new(id: BatchId, generation: u64) -> Self {
        Self { id, generation, ops: Vec::new(), bytes: Vec::new(), ends: Vec::new() }
    }

    /// The batch's name.
    pub const fn id(&self) -> BatchId {
        self.id
    }

    /// Batches of one generation stand and fall together: once one of them failed, an executor completes the later
    /// ones of that generation with no group and without a look at them. The core emits their content again.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is no group in it.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether it moves a cursor: what was handed to the application before it was built is committed with it.
    pub fn has_cursors(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Owned::Cursor { .. }))
    }

    /// How many groups it has.
    pub fn groups_len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a request to the group that is being built.
    pub fn push(&mut self, op: &StoreOp<'_>) {
        let owned = self.own(op);
        self.ops.push(owned);
    }

    /// Ends the group that is being built; a group without a request is no group.
    pub fn end_group(&mut self) {
        let begun = self.ends.last().copied().unwrap_or(0);
        if self.ops.len() > begun {
            self.ends.push(self.ops.len());
        }
    }

    /// Calls `execute` for each group in turn until one fails.
    ///
    /// # Errors
    /// The index of the group that failed, with what `execute` said.
    pub fn try_each_group<E>(
        &self,
        mut execute: impl FnMut(&[StoreOp<'_>]) -> Result<(), E>,
    ) -> Result<(), (usize, E)> {
        let mut begin = 0;
        let mut ops = Vec::new();
        for (index, &end) in self.ends.iter().enumerate() {
            ops.clear();
            ops.extend(self.ops.get(begin..end).unwrap_or_default().iter().map(|op| self.lend(op)));
            execute(&ops).map_err(|error| (index, error))?;
            begin = end;
        }
        Ok(())
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Only `put_text` makes these ranges, from a `&str`.
        core::str::from_utf8(self.slice(range)).unwrap_or_default()
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        begin..self.bytes.len()
    }

    fn put_text(&mut self, text: &str) -> Range<usize> {
        self.put(text.as_bytes())
    }

    fn put_queue(&mut self, queue: Queue<'_>) -> OwnedQueue {
        let name = self.put_text(queue.name());
        match queue {
            Queue::Node(_) => OwnedQueue { kind: Kind::Node, name },
            Queue::Topic(_) => OwnedQueue { kind: Kind::Topic, name },
            Queue::Address(_) => OwnedQueue { kind: Kind::Address, name },
        }
    }

    fn queue(&self, queue: &OwnedQueue) -> Queue<'_> {
        let name = self.text(&queue.name);
        match queue.kind {
            Kind::Node => Queue::Node(name),
            Kind::Topic => Queue::Topic(name),
            Kind::Address => Queue::Address(name),
        }
    }

    fn own(&mut self, op: &StoreOp<'_>) -> Owned {
        match *op {
            StoreOp::Inbox { epoch } => Owned::Inbox { epoch },
            StoreOp::Open { queue, epoch } => Owned::Open { queue: self.put_queue(queue), epoch },
            StoreOp::Rotate { queue, epoch, predecessor } => {
                Owned::Rotate { queue: self.put_queue(queue), epoch, predecessor }
            }
            StoreOp::Reserve { queue, through } => Owned::Reserve { queue: self.put_queue(queue), through },
            StoreOp::Append { queue, first, last, records } => {
                let queue = self.put_queue(queue);
                Owned::Append { queue, first, last, records: self.put(records) }
            }
            StoreOp::Trim { queue, through } => Owned::Trim { queue: self.put_queue(queue), through },
            StoreOp::Drop { queue, through, reason } => {
                Owned::Drop { queue: self.put_queue(queue), through, reason }
            }
            StoreOp::Topic { queue, number, text } => {
                let queue = self.put_queue(queue);
                Owned::Topic { queue, number, text: self.put_text(text) }
            }
            StoreOp::Cursor { peer, epoch, through } => {
                Owned::Cursor { peer: self.put_text(peer), epoch, through }
            }
            StoreOp::Subscribe { topic, address, name } => Owned::Subscribe {
                topic: self.put_text(topic),
                address: self.put_text(address),
                name: self.put_text(name),
            },
            StoreOp::Unsubscribe { topic, address, name } => Owned::Unsubscribe {
                topic: self.put_text(topic),
                address: self.put_text(address),
                name: self.put_text(name),
            },
            StoreOp::DeadLetter { peer, topic, reason, record } => Owned::DeadLetter {
                peer: self.put_text(peer),
                topic: self.put_text(topic),
                reason,
                record: self.put(record),
            },
            StoreOp::Close { queue } => Owned::Close { queue: self.put_queue(queue) },
            StoreOp::Deliver(delivery) => self.own_delivery(&delivery),
        }
    }

    fn own_delivery(&mut self, delivery: &Delivery<'_>) -> Owned {
        Owned::Deliver {
            from: self.put_text(delivery.from),
            epoch: delivery.epoch,
            number: delivery.number,
            topic: self.put_text(delivery.topic),
            mode: delivery.mode,
            maybe_redelivered: delivery.maybe_redelivered,
            payload: self.put(delivery.payload),
        }
    }

    fn lend(&self, op: &Owned) -> StoreOp<'_> {
        match op {
            Owned::Inbox { epoch } => StoreOp::Inbox { epoch: *epoch },
            Owned::Open { queue, epoch } => StoreOp::Open { queue: self.queue(queue), epoch: *epoch },
            Owned::Rotate { queue, epoch, predecessor } => {
                StoreOp::Rotate { queue: self.queue(queue), epoch: *epoch, predecessor: *predecessor }
            }
            Owned::Reserve { queue, through } => {
                StoreOp::Reserve { queue: self.queue(queue), through: *through }
            }
            Owned::Append { queue, first, last, records } => StoreOp::Append {
                queue: self.queue(queue),
                first: *first,
                last: *last,
                records: self.slice(records),
            },
            Owned::Trim { queue, through } => StoreOp::Trim { queue: self.queue(queue), through: *through },
            Owned::Drop { queue, through, reason } => {
                StoreOp::Drop { queue: self.queue(queue), through: *through, reason: *reason }
            }
            Owned::Topic { queue, number, text } => {
                StoreOp::Topic { queue: self.queue(queue), number: *number, text: self.text(text) }
            }
            Owned::Cursor { peer, epoch, through } => {
                StoreOp::Cursor { peer: self.text(peer), epoch: *epoch, through: *through }
            }
            Owned::Subscribe { topic, address, name } => StoreOp::Subscribe {
                topic: self.text(topic),
                address: self.text(address),
                name: self.text(name),
            },
            Owned::Unsubscribe { topic, address, name } => StoreOp::Unsubscribe {
                topic: self.text(topic),
                address: self.text(address),
                name: self.text(name),
            },
            Owned::DeadLetter { peer, topic, reason, record } => StoreOp::DeadLetter {
                peer: self.text(peer),
                topic: self.text(topic),
                reason: *reason,
                record: self.slice(record),
            },
            Owned::Close { queue } => StoreOp::Close { queue: self.queue(queue) },
            Owned::Deliver { from, epoch, number, topic, mode, maybe_redelivered, payload } => {
                StoreOp::Deliver(Delivery {
                    from: self.text(from),
                    epoch: *epoch,
                    number: *number,
                    topic: self.text(topic),
                    mode: *mode,
                    maybe_redelivered: *maybe_redelivered,
                    payload: self.slice(payload),
                })
            }
        }
    }
}

#[derive(Clone, Debug)]
struct OwnedQueue {
    kind: Kind,
    name: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Node,
    Topic,
    Address,
}

/// A [`StoreOp`] whose text and bytes are ranges of the batch's own memory.
#[derive(Clone, Debug)]
enum Owned {
    Inbox {
        epoch: Epoch,
    },
    Open {
        queue: OwnedQueue,
        epoch: Epoch,
    },
    Rotate {
        queue: OwnedQueue,
        epoch: Epoch,
        predecessor: Predecessor,
    },
    Reserve {
        queue: OwnedQueue,
        through: u64,
    },
    Append {
        queue: OwnedQueue,
        first: u64,
        last: u64,
        records: Range<usize>,
    },
    Trim {
        queue: OwnedQueue,
        through: u64,
    },
    Drop {
        queue: OwnedQueue,
        through: u64,
        reason: GapReason,
    },
    Topic {
        queue: OwnedQueue,
        number: u32,
        text: Range<usize>,
    },
    Cursor {
        peer: Range<usize>,
        epoch: Epoch,
        through: u64,
    },
    Subscribe {
        topic: Range<usize>,
        address: Range<usize>,
        name: Range<usize>,
    },
    Unsubscribe {
        topic: Range<usize>,
        address: Range<usize>,
        name: Range<usize>,
    },
    DeadLetter {
        peer: Range<usize>,
        topic: Range<usize>,
        reason: DeadReason,
        record: Range<usize>,
    },
    Close {
        queue: OwnedQueue,
    },
    Deliver {
        from: Range<usize>,
        epoch: Epoch,
        number: u64,
        topic: Range<usize>,
        mode: Mode,
        maybe_redelivered: bool,
        payload: Range<usize>,
    },
}
