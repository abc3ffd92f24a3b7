//! The store of a host without a disk, and the disk of the simulated world.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::head::Head;
use super::run::{Copied, Measure, Walk, copy_above, measure};
use super::{Capabilities, Store};
use crate::effect::{DeadReason, InboxHeld, Loaded, Queue, Recovered, StoreFault, StoreOp};
use crate::id::{Class, Epoch};

mod inbox;
pub use inbox::Delivered;
use inbox::Inbox;

/// Keeps any number of queues, cursors and rows on the heap, up to a number of bytes and messages.
///
/// A clone is a snapshot and costs next to nothing: what is kept is shared until one of the two changes it, queue by
/// queue, and records are never copied. What counts against the bounds are the records that are neither trimmed nor
/// dropped, and dead letters. A group that would exceed one of them is [`StoreFault::Full`] as a whole.
///
/// Its class is [`Class::Ram`] unless a simulation says otherwise. It makes no checksums: they would guard bytes by code and
/// state that live in the same memory, and copies of the records in it (the sender's ring) have none either.
#[derive(Clone, Debug)]
pub struct HeapStore {
    class: Class,
    bytes_max: u64,
    messages_max: u64,
    regressed: bool,
    state: Arc<State>,
}

/// A message that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The node it came from; if it was taken out of a stream's queue, the one it was for.
    pub peer: Box<str>,
    /// The topic it was sent to.
    pub topic: Box<str>,
    /// Why.
    pub reason: DeadReason,
    /// The record, without its length.
    pub record: Arc<[u8]>,
}

#[derive(Clone, Debug, Default)]
struct State {
    inbox: Option<Epoch>,
    /// By kind, then by name.
    queues: [BTreeMap<Box<str>, Arc<Held>>; 3],
    cursors: BTreeMap<Box<str>, (Epoch, u64)>,
    /// By topic, then by address.
    directory: BTreeMap<Box<str>, BTreeMap<Box<str>, Box<str>>>,
    dead: Arc<Vec<DeadLetter>>,
    /// Where there is one.
    deliveries: Option<Arc<Inbox>>,
    used: Used,
}

/// What counts against the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    messages: u64,
}

/// One queue.
#[derive(Clone, Debug, Default)]
struct Held {
    head: Head,
    /// In the order of their numbers, which follow one another without a hole.
    segments: VecDeque<Segment>,
    front: Front,
    used: Used,
    /// By how much the numbers moved since the oldest segment came, in wrapping arithmetic: a segment keeps the ones that
    /// it was given.
    shift: u64,
    topics: BTreeMap<u32, Box<str>>,
}

/// Where the first segment's records begin that are not forgotten.
#[derive(Clone, Copy, Debug, Default)]
struct Front {
    offset: usize,
    /// The number of the record there, less the queue's `shift`.
    number: u64,
    /// Messages before it.
    messages: u64,
}

/// What was appended at once.
#[derive(Clone, Debug)]
struct Segment {
    /// Number of the first record, less the queue's `shift`.
    first: u64,
    /// Number of the last one, likewise.
    last: u64,
    messages: u64,
    records: Arc<[u8]>,
    damaged: bool,
}

impl HeapStore {
    /// An empty store that takes up to `bytes_max` bytes of records.
    pub fn new(bytes_max: u64) -> Self {
        Self { class: Class::Ram, bytes_max, messages_max: u64::MAX, regressed: false, state: Arc::default() }
    }

    /// The same, with a bound on messages, too.
    #[must_use]
    pub fn with_messages_max(mut self, messages_max: u64) -> Self {
        self.messages_max = messages_max;
        self
    }

    /// The same, with another class: for a simulation that sees to it that the class is true.
    #[must_use]
    pub fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// What the store tells the node when it is opened next: whether commits may have been lost. For simulations.
    pub fn set_regressed(&mut self, regressed: bool) {
        self.regressed = regressed;
    }

    /// Makes the records fail their check that were appended together with the one of this number: for simulations, as
    /// this store itself checks nothing. Says whether the number is stored.
    pub fn damage(&mut self, queue: Queue<'_>, number: u64) -> bool {
        let Some(held) = Arc::make_mut(&mut self.state).queue_mut(queue) else { return false };
        let stored = number.wrapping_sub(held.shift);
        let Some(segment) = held.segments.iter_mut().find(|segment| segment.last >= stored) else {
            return false;
        };
        let hit = number > held.head.floor() && number <= held.head.last;
        segment.damaged |= hit;
        hit
    }

    /// The messages that were put aside, oldest first.
    pub fn dead_letters(&self) -> &[DeadLetter] {
        &self.state.dead
    }

    /// Deletes the messages that were put aside: for simulations, in which somebody has looked at them.
    pub fn clear_dead_letters(&mut self) {
        let state = Arc::make_mut(&mut self.state);
        for letter in core::mem::take(&mut state.dead).iter() {
            state.used.sub(Used { bytes: letter.record.len() as u64, messages: 1 });
        }
    }

    /// Messages and bytes that a queue holds.
    pub fn queued(&self, queue: Queue<'_>) -> (u64, u64) {
        self.state.queue(queue).map_or((0, 0), |held| (held.used.messages, held.used.bytes))
    }

    /// Whether a group can be applied: no request of it fails, and its outcome is within the bounds.
    fn check(&self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        let mut trial = Trial { state: &self.state, queues: Vec::new(), grown: Used::default() };
        for op in group {
            trial.step(op)?;
        }
        let Used { bytes, messages } = self.state.used;
        let Used { bytes: more_bytes, messages: more_messages } = trial.grown;
        let over = |freed: Used| {
            (bytes - freed.bytes).saturating_add(more_bytes) > self.bytes_max
                || (messages - freed.messages).saturating_add(more_messages) > self.messages_max
        };
        if trial.grown != Used::default() && over(Used::default()) && over(trial.freed()) {
            return Err(StoreFault::Full);
        }
        Ok(())
    }
}

impl Store for HeapStore {
    fn class(&self) -> Class {
        self.class
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        let state = &self.state;
        if let Some(inbox) = state.inbox {
            let dead_letters = state.dead.len() as u64;
            visit(Recovered::Node { inbox, regressed: self.regressed, dead_letters });
        }
        for (kind, queues) in [Queue::Node, Queue::Topic, Queue::Address].into_iter().zip(&state.queues) {
            for (name, held) in queues {
                let queue = kind(name);
                visit(Recovered::Queue(held.head.recovered(queue, held.used.messages, held.used.bytes)));
                for (&number, text) in &held.topics {
                    visit(Recovered::Topic { queue, number, text });
                }
            }
        }
        for (peer, &(epoch, through)) in &state.cursors {
            visit(Recovered::Cursor { peer, epoch, through });
        }
        for (topic, rows) in &state.directory {
            for (address, name) in rows {
                visit(Recovered::Subscription { topic, address, name });
            }
        }
        Ok(())
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.check(group)?;
        let state = Arc::make_mut(&mut self.state);
        group.iter().try_for_each(|op| state.step(op))
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        Ok(self.state.queue(queue).map_or(Loaded::Nothing, |held| held.load(after, into)))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { inbox: self.state.deliveries.is_some(), ..Capabilities::NONE }
    }

    fn inbox(&mut self) -> Result<Option<InboxHeld>, StoreFault> {
        Ok(self.state.deliveries.as_ref().map(|inbox| inbox.held()))
    }
}

/// A group on trial: the numbers of the queues that it touches, without their records.
struct Trial<'a> {
    state: &'a State,
    queues: Vec<Touched<'a>>,
    /// What is appended.
    grown: Used,
}

struct Touched<'a> {
    queue: Queue<'a>,
    head: Option<Head>,
    /// What the group forgets, in the numbering that the queue has before it. What it forgets after a rotation has lower
    /// numbers than it had before and counts for less, so that a group may be called too large that would just fit.
    forgotten: u64,
}

impl Touched<'_> {
    fn head(&mut self) -> Result<&mut Head, StoreFault> {
        self.head.as_mut().ok_or(StoreFault::Refused)
    }

    fn forget(&mut self, through: u64) {
        self.forgotten = self.forgotten.max(through);
    }
}

impl<'a> Trial<'a> {
    fn step(&mut self, op: &StoreOp<'a>) -> Result<(), StoreFault> {
        match *op {
            StoreOp::Open { queue, epoch } => {
                self.entry(queue).head.get_or_insert(Head::new(epoch)).reopen(epoch);
            }
            StoreOp::Rotate { queue, epoch, predecessor } => {
                let entry = self.entry(queue);
                entry.head()?.rotate(epoch, predecessor)?;
                entry.forget(predecessor.old_first - 1);
            }
            StoreOp::Reserve { queue, .. } | StoreOp::Topic { queue, .. } => {
                self.entry(queue).head()?;
            }
            StoreOp::Append { queue, first, last, records } => {
                let Measure { numbers, messages } = measure(records).ok_or(StoreFault::Refused)?;
                self.entry(queue).head()?.append(first, last, numbers)?;
                self.grown.add(Used { bytes: records.len() as u64, messages });
            }
            StoreOp::Trim { queue, through } => {
                let entry = self.entry(queue);
                entry.head()?.trim(through);
                entry.forget(through);
            }
            StoreOp::Drop { queue, through, reason } => {
                let entry = self.entry(queue);
                entry.head()?.drop_through(through, reason)?;
                entry.forget(through);
            }
            StoreOp::Close { queue } => {
                let entry = self.entry(queue);
                (entry.head, entry.forgotten) = (None, u64::MAX);
            }
            StoreOp::DeadLetter { record, .. } => {
                self.grown.add(Used { bytes: record.len() as u64, messages: 1 });
            }
            StoreOp::Deliver(delivery) => {
                self.state.deliveries.as_ref().ok_or(StoreFault::Refused)?;
                self.grown.add(Used { bytes: delivery.bytes(), messages: 1 });
            }
            StoreOp::Inbox { .. }
            | StoreOp::Cursor { .. }
            | StoreOp::Subscribe { .. }
            | StoreOp::Unsubscribe { .. } => {}
        }
        Ok(())
    }

    fn entry(&mut self, queue: Queue<'a>) -> &mut Touched<'a> {
        let index = self.queues.iter().position(|entry| entry.queue == queue).unwrap_or_else(|| {
            let head = self.state.queue(queue).map(|held| held.head);
            self.queues.push(Touched { queue, head, forgotten: 0 });
            self.queues.len() - 1
        });
        // The index is that of an entry that was found, or of the last one.
        #[expect(clippy::indexing_slicing)]
        &mut self.queues[index]
    }

    /// What the group forgets of what is held now.
    fn freed(&self) -> Used {
        let mut freed = Used::default();
        for entry in &self.queues {
            if let Some(held) = self.state.queue(entry.queue) {
                freed.add(held.through(entry.forgotten).1);
            }
        }
        freed
    }
}

impl Used {
    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.messages += more.messages;
    }

    fn sub(&mut self, less: Self) {
        self.bytes -= less.bytes;
        self.messages -= less.messages;
    }
}

const fn kind(queue: Queue<'_>) -> usize {
    match queue {
        Queue::Node(_) => 0,
        Queue::Topic(_) => 1,
        Queue::Address(_) => 2,
    }
}

impl State {
    fn queue(&self, queue: Queue<'_>) -> Option<&Held> {
        self.queues.get(kind(queue))?.get(queue.name()).map(Arc::as_ref)
    }

    fn queue_mut(&mut self, queue: Queue<'_>) -> Option<&mut Held> {
        self.queues.get_mut(kind(queue))?.get_mut(queue.name()).map(Arc::make_mut)
    }

    /// Executes a request that has passed its trial.
    fn step(&mut self, op: &StoreOp<'_>) -> Result<(), StoreFault> {
        match *op {
            StoreOp::Inbox { epoch } => self.inbox = Some(epoch),
            StoreOp::Open { queue, epoch } => self.open(queue, epoch),
            StoreOp::Rotate { queue, .. }
            | StoreOp::Reserve { queue, .. }
            | StoreOp::Append { queue, .. }
            | StoreOp::Trim { queue, .. }
            | StoreOp::Drop { queue, .. }
            | StoreOp::Topic { queue, .. } => {
                let held = self.queue_mut(queue).ok_or(StoreFault::Refused)?;
                let before = held.used;
                let outcome = held.step(op);
                let after = held.used;
                self.used.sub(before);
                self.used.add(after);
                return outcome;
            }
            StoreOp::Cursor { peer, epoch, through } => self.advance(peer, epoch, through),
            StoreOp::Subscribe { topic, address, name } => {
                self.directory.entry(topic.into()).or_default().insert(address.into(), name.into());
            }
            StoreOp::Unsubscribe { topic, address, name } => self.unsubscribe(topic, address, name),
            StoreOp::DeadLetter { peer, topic, reason, record } => {
                self.used.add(Used { bytes: record.len() as u64, messages: 1 });
                let (peer, topic, record) = (peer.into(), topic.into(), record.into());
                Arc::make_mut(&mut self.dead).push(DeadLetter { peer, topic, reason, record });
            }
            StoreOp::Close { queue } => {
                let closed = self.queues.get_mut(kind(queue)).and_then(|kind| kind.remove(queue.name()));
                self.used.sub(closed.map(|held| held.used).unwrap_or_default());
            }
            StoreOp::Deliver(delivery) => {
                let inbox = self.deliveries.as_mut().ok_or(StoreFault::Refused)?;
                Arc::make_mut(inbox).put(&delivery);
                self.used.add(Used { bytes: delivery.bytes(), messages: 1 });
            }
        }
        Ok(())
    }

    fn open(&mut self, queue: Queue<'_>, epoch: Epoch) {
        if let Some(held) = self.queue_mut(queue) {
            held.head.reopen(epoch);
        } else if let Some(kind) = self.queues.get_mut(kind(queue)) {
            let held = Held { head: Head::new(epoch), ..Held::default() };
            kind.insert(queue.name().into(), Arc::new(held));
        }
    }

    fn advance(&mut self, peer: &str, epoch: Epoch, through: u64) {
        match self.cursors.get_mut(peer) {
            Some(cursor) if cursor.0 == epoch => cursor.1 = cursor.1.max(through),
            Some(cursor) => *cursor = (epoch, through),
            None => {
                self.cursors.insert(peer.into(), (epoch, through));
            }
        }
    }

    fn unsubscribe(&mut self, topic: &str, address: &str, name: &str) {
        if let Some(rows) = self.directory.get_mut(topic) {
            if rows.get(address).is_some_and(|known| **known == *name) {
                rows.remove(address);
            }
            if rows.is_empty() {
                self.directory.remove(topic);
            }
        }
    }
}

impl Held {
    fn step(&mut self, op: &StoreOp<'_>) -> Result<(), StoreFault> {
        match *op {
            StoreOp::Rotate { epoch, predecessor, .. } => {
                self.forget(predecessor.old_first.saturating_sub(1));
                let shift = self.head.rotate(epoch, predecessor)?;
                self.shift = self.shift.wrapping_add(shift);
            }
            StoreOp::Reserve { through, .. } => self.head.reserve(through),
            StoreOp::Append { first, last, records, .. } => self.append(first, last, records)?,
            StoreOp::Trim { through, .. } => {
                self.forget(through);
                self.head.trim(through);
            }
            StoreOp::Drop { through, reason, .. } => {
                self.forget(through);
                self.head.drop_through(through, reason)?;
            }
            StoreOp::Topic { number, text, .. } => {
                self.topics.insert(number, text.into());
            }
            StoreOp::Inbox { .. }
            | StoreOp::Open { .. }
            | StoreOp::Cursor { .. }
            | StoreOp::Subscribe { .. }
            | StoreOp::Unsubscribe { .. }
            | StoreOp::DeadLetter { .. }
            | StoreOp::Close { .. }
            | StoreOp::Deliver(_) => {}
        }
        Ok(())
    }

    fn append(&mut self, first: u64, last: u64, records: &[u8]) -> Result<(), StoreFault> {
        let Measure { numbers, messages } = measure(records).ok_or(StoreFault::Refused)?;
        self.head.append(first, last, numbers)?;
        if self.segments.is_empty() {
            self.shift = 0;
            self.front = Front { offset: 0, number: first, messages: 0 };
        }
        let (first, last) = (first.wrapping_sub(self.shift), last.wrapping_sub(self.shift));
        self.segments.push_back(Segment { first, last, messages, records: records.into(), damaged: false });
        self.used.add(Used { bytes: records.len() as u64, messages });
        Ok(())
    }

    /// Forgets the records up to `through`, before the head does.
    fn forget(&mut self, through: u64) {
        let (whole, used, front) = self.through(through);
        self.segments.drain(..whole);
        self.used.sub(used);
        self.front = front;
    }

    /// How many whole segments have no number above `through`, what they and the records of the next one up to there
    /// count, and where in that one the rest begins.
    fn through(&self, through: u64) -> (usize, Used, Front) {
        let back = self.segments.back().map_or(0, |segment| segment.last.wrapping_add(self.shift));
        if through >= back {
            return (self.segments.len(), self.used, Front::default());
        }
        let (mut whole, mut used, mut front) = (0, Used::default(), self.front);
        if through <= self.head.floor() {
            return (whole, used, front);
        }
        let through = through.wrapping_sub(self.shift);
        for segment in &self.segments {
            let len = segment.records.len();
            if segment.last <= through {
                used.add(Used {
                    bytes: (len - front.offset) as u64,
                    messages: segment.messages - front.messages,
                });
                front = Front { offset: 0, number: segment.last + 1, messages: 0 };
                whole += 1;
                continue;
            }
            let walk = Walk::starting_at(&segment.records, front.offset, front.number);
            for step in walk.take_while(|step| step.last <= through) {
                let messages = u64::from(step.is_message());
                used.add(Used { bytes: (step.end - step.start) as u64, messages });
                front =
                    Front { offset: step.end, number: step.last + 1, messages: front.messages + messages };
            }
            break;
        }
        (whole, used, front)
    }

    fn load(&self, after: u64, into: &mut [u8]) -> Loaded {
        let after = after.max(self.head.floor());
        if after >= self.head.last {
            return Loaded::Nothing;
        }
        let shift = self.shift;
        let stored = after.wrapping_sub(shift);
        let index = self.segments.partition_point(|segment| segment.last <= stored);
        let Some(segment) = self.segments.get(index) else { return Loaded::Nothing };
        let (offset, number) =
            if index == 0 { (self.front.offset, self.front.number) } else { (0, segment.first) };
        let damaged = Loaded::Corrupt {
            first: number.max(stored + 1).wrapping_add(shift),
            last: segment.last.wrapping_add(shift),
        };
        if segment.damaged {
            return damaged;
        }
        match copy_above(Walk::starting_at(&segment.records, offset, number), stored, into) {
            Copied::Records { first, last, len } => self.load_more(index + 1, first, last, len, into),
            Copied::Nothing => Loaded::Nothing,
            Copied::TooSmall { needed } => Loaded::TooSmall { needed },
            Copied::Malformed => damaged,
        }
    }

    /// Goes on with whole segments and the beginning of one, so that a queue of small appends is not loaded one by one.
    fn load_more(&self, index: usize, first: u64, mut last: u64, mut len: usize, into: &mut [u8]) -> Loaded {
        for segment in self.segments.range(index..) {
            if segment.first != last + 1 || segment.damaged {
                break;
            }
            let Some(room) = into.get_mut(len..) else { break };
            match copy_above(Walk::new(&segment.records, segment.first), last, room) {
                Copied::Records { last: through, len: more, .. } => (last, len) = (through, len + more),
                Copied::Nothing | Copied::TooSmall { .. } | Copied::Malformed => break,
            }
        }
        Loaded::Records { first: first.wrapping_add(self.shift), last: last.wrapping_add(self.shift), len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Queue<'static> = Queue::Node("a");
    const RECORDS: &[u8] = &[3, 0x40, 1, 7, 3, 0x40, 1, 8];

    fn append(first: u64) -> StoreOp<'static> {
        StoreOp::Append { queue: NODE, first, last: first + 1, records: RECORDS }
    }

    fn store() -> HeapStore {
        let mut store = HeapStore::new(1 << 10).with_messages_max(6);
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }, append(1)]).unwrap();
        store
    }

    #[test]
    fn a_clone_is_a_snapshot() {
        let mut store = store();
        let before = store.clone();
        store.apply(&[append(3), StoreOp::Trim { queue: NODE, through: 1 }]).unwrap();
        assert_eq!((before.queued(NODE), store.queued(NODE)), ((2, 8), (3, 12)));
        let mut again = before.clone();
        assert_eq!(again.load(NODE, 0, &mut [0; 64]), Ok(Loaded::Records { first: 1, last: 2, len: 8 }));
        again.apply(&[append(3)]).unwrap();
        assert_eq!((before.queued(NODE), again.queued(NODE)), ((2, 8), (4, 16)));
    }

    #[test]
    fn it_is_bounded_by_messages_too() {
        let mut store = store();
        store.apply(&[append(3), append(5)]).unwrap();
        let letter =
            StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::Expired, record: &[0x40, 1] };
        assert_eq!(store.apply(&[append(7)]), Err(StoreFault::Full));
        assert_eq!(store.apply(&[letter]), Err(StoreFault::Full));
        store.apply(&[StoreOp::Trim { queue: NODE, through: 1 }, letter]).unwrap();
        assert_eq!(store.dead_letters().len(), 1);
        assert_eq!(store.apply(&[letter]), Err(StoreFault::Full));
    }

    #[test]
    fn what_was_damaged_is_told() {
        let mut store = store();
        store.apply(&[append(3), append(5)]).unwrap();
        assert!(!store.damage(NODE, 7) && !store.damage(NODE, 0) && !store.damage(Queue::Topic("a"), 1));
        assert!(store.damage(NODE, 4));
        let mut into = [0; 64];
        assert_eq!(store.load(NODE, 0, &mut into), Ok(Loaded::Records { first: 1, last: 2, len: 8 }));
        assert_eq!(store.load(NODE, 2, &mut into), Ok(Loaded::Corrupt { first: 3, last: 4 }));
        assert_eq!(store.load(NODE, 3, &mut into), Ok(Loaded::Corrupt { first: 4, last: 4 }));
        assert_eq!(store.load(NODE, 4, &mut into), Ok(Loaded::Records { first: 5, last: 6, len: 8 }));
    }

    #[test]
    fn a_simulation_says_what_it_survives() {
        let mut store = store().with_class(Class::Process);
        assert_eq!(store.class(), Class::Process);
        store.set_regressed(true);
        store.apply(&[StoreOp::Inbox { epoch: Epoch(4) }]).unwrap();
        let mut told = None;
        store
            .recover(&mut |fact| {
                if let Recovered::Node { inbox, regressed, .. } = fact {
                    told = Some((inbox, regressed));
                }
            })
            .unwrap();
        assert_eq!(told, Some((Epoch(4), true)));
    }
}
