//! The store of a device: one queue in memory that somebody else provides, for instance a `static`.

use heapless::Vec;

use super::Store;
use super::head::Head;
use super::run::{Copied, Walk, copy_above, measure};
use crate::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};
use crate::id::{Class, Epoch};

/// Bytes of a name on a device.
const NAME: usize = 32;
/// Bytes of a topic on a device.
const TOPIC: usize = 64;
/// Peers of which it keeps a cursor.
const CURSORS: usize = 2;
/// Topic numbers it keeps.
const TOPICS: usize = 4;

/// Keeps one queue of at most `BYTES` bytes, the cursors of two peers and four topic numbers, without an allocator.
///
/// It is for a device that speaks to one gateway. The first queue that is opened is the one it keeps; another one, and
/// whatever a device has no use for (the directory, dead letters, an inbox), is [`StoreFault::Refused`], and so is a name
/// longer than 32 bytes or a topic longer than 64. What does not fit is [`StoreFault::Full`] and leaves no trace.
///
/// Its class is [`Class::Ram`]: a reset forgets everything. It makes no checksums of what it keeps: they would guard bytes
/// by code and state that live in the same unguarded memory, at the price of a pass over every record.
///
/// A new store is all zeros, so that as a `static` it takes no flash.
#[derive(Clone, Debug)]
pub struct RamStore<const BYTES: usize> {
    table: Table,
    records: Records<BYTES>,
}

/// Everything but the records: small enough to try a group on a copy. Its parts are plain bytes, so that a copy is one.
#[derive(Clone, Copy, Debug)]
struct Table {
    inbox: Option<Epoch>,
    kind: Kind,
    name: Text<NAME>,
    head: Head,
    topics: [Option<(u32, Text<TOPIC>)>; TOPICS],
    cursors: [Option<Cursor>; CURSORS],
}

/// What the queue is, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Closed,
    Node,
    Topic,
    Address,
}

/// A text of at most `BYTES` bytes.
#[derive(Clone, Copy, Debug)]
struct Text<const BYTES: usize> {
    len: u8,
    bytes: [u8; BYTES],
}

impl<const BYTES: usize> Text<BYTES> {
    const EMPTY: Self = Self { len: 0, bytes: [0; BYTES] };

    fn new(text: &str) -> Result<Self, StoreFault> {
        let mut bytes = [0; BYTES];
        let place = bytes.get_mut(..text.len()).ok_or(StoreFault::Refused)?;
        place.copy_from_slice(text.as_bytes());
        Ok(Self { len: text.len() as u8, bytes })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn text(&self) -> &str {
        core::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

/// What a request means for the records.
enum Change<'a> {
    Other,
    Appended {
        first: u64,
        records: &'a [u8],
        messages: u64,
    },
    /// Numbers moved by so much, in wrapping arithmetic.
    Shifted(u64),
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    peer: Text<NAME>,
    epoch: Epoch,
    through: u64,
}

/// The records of the queue, one after the other.
#[derive(Clone, Debug)]
struct Records<const BYTES: usize> {
    bytes: Vec<u8, BYTES>,
    /// The number of the first record, less `shift`.
    first: u64,
    messages: u64,
    /// By how much the numbers moved since the oldest record came, in wrapping arithmetic. It is kept apart because a gap
    /// that is forgotten in part would begin below 1 otherwise.
    shift: u64,
}

impl<const BYTES: usize> RamStore<BYTES> {
    /// An empty store.
    pub const fn new() -> Self {
        Self {
            table: Table {
                inbox: None,
                kind: Kind::Closed,
                name: Text::EMPTY,
                head: Head::new(Epoch::NONE),
                topics: [None; TOPICS],
                cursors: [None; CURSORS],
            },
            records: Records::new(),
        }
    }

    /// Bytes of records it holds, lengths included.
    pub fn len(&self) -> usize {
        self.records.bytes.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.records.bytes.is_empty()
    }
}

impl<const BYTES: usize> Default for RamStore<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize> Store for RamStore<BYTES> {
    fn class(&self) -> Class {
        Class::Ram
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        let table = &self.table;
        if let Some(inbox) = table.inbox {
            visit(Recovered::Node { inbox, regressed: false, dead_letters: 0 });
        }
        if let Some(queue) = table.queue() {
            let bytes = self.records.bytes.len() as u64;
            visit(Recovered::Queue(table.head.recovered(queue, self.records.messages, bytes)));
            for (number, text) in table.topics.iter().flatten() {
                visit(Recovered::Topic { queue, number: *number, text: text.text() });
            }
        }
        for Cursor { peer, epoch, through } in table.cursors.iter().flatten() {
            visit(Recovered::Cursor { peer: peer.text(), epoch: *epoch, through: *through });
        }
        Ok(())
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        let mut trial = self.table;
        let mut held = self.records.bytes.len();
        for op in group {
            match trial.step(op)? {
                Change::Appended { records, .. } => held = held.saturating_add(records.len()),
                Change::Closed => held = 0,
                Change::Other | Change::Shifted(_) => {}
            }
            if held > BYTES {
                return Err(StoreFault::Full);
            }
        }
        for op in group {
            let change = self.table.step(op)?;
            self.records.take(change, self.table.head.floor());
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        let Table { head, .. } = &self.table;
        let after = after.max(head.floor());
        if !self.table.is_open(queue) || after >= head.last {
            return Ok(Loaded::Nothing);
        }
        Ok(self.records.load(after, head.last, into))
    }
}

impl Table {
    fn queue(&self) -> Option<Queue<'_>> {
        let name = self.name.text();
        Some(match self.kind {
            Kind::Closed => return None,
            Kind::Node => Queue::Node(name),
            Kind::Topic => Queue::Topic(name),
            Kind::Address => Queue::Address(name),
        })
    }

    fn is_open(&self, queue: Queue<'_>) -> bool {
        self.kind == kind(queue) && self.name.bytes() == queue.name().as_bytes()
    }

    fn opened(&mut self, queue: Queue<'_>) -> Result<&mut Head, StoreFault> {
        if self.is_open(queue) { Ok(&mut self.head) } else { Err(StoreFault::Refused) }
    }

    /// Takes in all of a request but its records; says what is left to do with them.
    fn step<'a>(&mut self, op: &StoreOp<'a>) -> Result<Change<'a>, StoreFault> {
        match *op {
            StoreOp::Inbox { epoch } => self.inbox = Some(epoch),
            StoreOp::Open { queue, epoch } => self.open(queue, epoch)?,
            StoreOp::Rotate { queue, epoch, predecessor } => {
                return self.opened(queue)?.rotate(epoch, predecessor).map(Change::Shifted);
            }
            StoreOp::Reserve { queue, through } => self.opened(queue)?.reserve(through),
            StoreOp::Append { queue, first, last, records } => {
                let measure = measure(records).ok_or(StoreFault::Refused)?;
                self.opened(queue)?.append(first, last, measure.numbers)?;
                return Ok(Change::Appended { first, records, messages: measure.messages });
            }
            StoreOp::Trim { queue, through } => {
                self.opened(queue)?.trim(through);
            }
            StoreOp::Drop { queue, through, reason } => {
                self.opened(queue)?.drop_through(through, reason)?;
            }
            StoreOp::Topic { queue, number, text } => {
                self.opened(queue)?;
                self.bind(number, text)?;
            }
            StoreOp::Cursor { peer, epoch, through } => self.advance(peer, epoch, through)?,
            StoreOp::Subscribe { .. }
            | StoreOp::Unsubscribe { .. }
            | StoreOp::DeadLetter { .. }
            | StoreOp::Deliver(_) => {
                return Err(StoreFault::Refused);
            }
            StoreOp::Close { queue } if self.is_open(queue) => {
                self.close();
                return Ok(Change::Closed);
            }
            StoreOp::Close { .. } => {}
        }
        Ok(Change::Other)
    }

    fn open(&mut self, queue: Queue<'_>, epoch: Epoch) -> Result<(), StoreFault> {
        if self.is_open(queue) {
            self.head.reopen(epoch);
            return Ok(());
        }
        if self.kind != Kind::Closed {
            return Err(StoreFault::Refused);
        }
        self.name = Text::new(queue.name())?;
        self.kind = kind(queue);
        self.head = Head::new(epoch);
        Ok(())
    }

    fn close(&mut self) {
        self.kind = Kind::Closed;
        self.head = Head::new(Epoch::NONE);
        self.topics = [None; TOPICS];
    }

    fn bind(&mut self, number: u32, text: &str) -> Result<(), StoreFault> {
        let text = Text::new(text)?;
        let place = place(&mut self.topics, |topic| topic.0 == number)?;
        *place = Some((number, text));
        Ok(())
    }

    fn advance(&mut self, peer: &str, epoch: Epoch, through: u64) -> Result<(), StoreFault> {
        let peer = Text::new(peer)?;
        let place = place(&mut self.cursors, |cursor| cursor.peer.bytes() == peer.bytes())?;
        let before = place.as_ref().filter(|cursor| cursor.epoch == epoch).map_or(0, |cursor| cursor.through);
        *place = Some(Cursor { peer, epoch, through: through.max(before) });
        Ok(())
    }
}

/// The place of what is there already, or a free one.
fn place<T>(places: &mut [Option<T>], is_it: impl Fn(&T) -> bool) -> Result<&mut Option<T>, StoreFault> {
    let found = places.iter().position(|place| place.as_ref().is_some_and(&is_it));
    let at = found.or_else(|| places.iter().position(Option::is_none));
    at.and_then(|at| places.get_mut(at)).ok_or(StoreFault::Full)
}

const fn kind(queue: Queue<'_>) -> Kind {
    match queue {
        Queue::Node(_) => Kind::Node,
        Queue::Topic(_) => Kind::Topic,
        Queue::Address(_) => Kind::Address,
    }
}

impl<const BYTES: usize> Records<BYTES> {
    const fn new() -> Self {
        Self { bytes: Vec::new(), first: 0, messages: 0, shift: 0 }
    }

    /// Follows a change of the table, after which nothing up to `floor` is kept.
    fn take(&mut self, change: Change<'_>, floor: u64) {
        match change {
            Change::Appended { first, records, messages } => self.append(first, records, messages),
            Change::Shifted(shift) => self.shift = self.shift.wrapping_add(shift),
            Change::Closed => *self = Self::new(),
            Change::Other => {}
        }
        self.forget_through(floor);
    }

    fn append(&mut self, first: u64, records: &[u8], messages: u64) {
        if self.bytes.is_empty() {
            (self.first, self.shift) = (first, 0);
        }
        // That there is room was checked before.
        if self.bytes.extend_from_slice(records).is_ok() {
            self.messages += messages;
        }
    }

    /// Forgets the records of which no number is above `floor`.
    fn forget_through(&mut self, floor: u64) {
        let floor = floor.wrapping_sub(self.shift);
        let mut walk = Walk::new(&self.bytes, self.first);
        let (mut end, mut first) = (0, self.first);
        for step in walk.by_ref().take_while(|step| step.last <= floor) {
            (end, first) = (step.end, step.last + 1);
            self.messages -= u64::from(step.is_message());
        }
        self.bytes.copy_within(end.., 0);
        self.bytes.truncate(self.bytes.len() - end);
        self.first = first;
    }

    /// `after` is neither below what was forgotten nor above `last`.
    fn load(&self, after: u64, last: u64, into: &mut [u8]) -> Loaded {
        let shift = self.shift;
        match copy_above(Walk::new(&self.bytes, self.first), after.wrapping_sub(shift), into) {
            Copied::Records { first, last, len } => {
                Loaded::Records { first: first.wrapping_add(shift), last: last.wrapping_add(shift), len }
            }
            Copied::Nothing => Loaded::Nothing,
            Copied::TooSmall { needed } => Loaded::TooSmall { needed },
            Copied::Malformed => Loaded::Corrupt { first: after + 1, last },
        }
    }
}
