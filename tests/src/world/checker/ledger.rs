//! What applications sent and what became of it, as an observer outside of all nodes knows it.

use std::collections::BTreeMap;

use liner_proto::id::Epoch;
use liner_proto::wire::record::Mode;

use crate::world::dice::Dice;

/// The most nodes a world has.
pub(super) const NODES_MAX: usize = 10;

/// Bytes of a payload that say which message it is.
pub const PAYLOAD_MIN: usize = 8;

/// One message that an application tried to send.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Who sent it.
    pub node: usize,
    /// To which topic, by number.
    pub topic: usize,
    /// To one or to all.
    pub mode: Mode,
    /// Bytes of its payload.
    pub len: usize,
    /// When.
    pub at: u64,
    /// The id that the node gave it; nothing if it refused.
    pub send_id: Option<u64>,
    /// The node has said that it is stored.
    pub stored: bool,
    /// Its node died before it said so: it may be there or not.
    pub uncertain: bool,
    /// A fault stronger than its class took a copy of it.
    pub excused: bool,
    /// A policy took a copy of it, and said so.
    pub dropped: bool,
    /// When each node's application first had it.
    pub delivered: [Option<u64>; NODES_MAX],
    /// Whether one of them was told that it may have come before.
    pub marked: bool,
    /// Nodes whose dead letters hold it.
    pub dead: [bool; NODES_MAX],
    /// The node that kept it for a topic's first subscriber.
    pub kept_at: Option<usize>,
    /// The streams on which it was seen.
    pub ways: Vec<Way>,
}

/// A message's place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The sending node.
    pub from: usize,
    /// The receiving node.
    pub to: usize,
    /// The stream's epoch.
    pub epoch: Epoch,
    /// Its number.
    pub number: u64,
    /// When it was first on a wire under it; the end of time if it never was.
    pub at: u64,
}

impl Sent {
    /// Whether any application had it.
    pub(super) fn arrived(&self) -> bool {
        self.delivered.iter().any(Option::is_some)
    }
}

/// Every message by its id, and every number by its stream.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    seed: u64,
    messages: Vec<Sent>,
    streams: BTreeMap<(usize, usize, u64), BTreeMap<u64, u32>>,
    /// First and last numbers of gaps that were told, by stream.
    gaps: BTreeMap<(usize, usize, u64), Vec<(u64, u64)>>,
}

impl Ledger {
    /// An empty one.
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, messages: Vec::new(), streams: BTreeMap::new(), gaps: BTreeMap::new() }
    }

    /// Notes that an application is about to send something, and makes its payload.
    pub(super) fn open(&mut self, sent: Sent) -> (u32, Vec<u8>) {
        let id = self.messages.len() as u32;
        let payload = payload(self.seed, id, sent.len);
        self.messages.push(sent);
        (id, payload)
    }

    /// The message with this id.
    pub(super) fn get(&self, id: u32) -> Option<&Sent> {
        self.messages.get(id as usize)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Sent> {
        self.messages.get_mut(id as usize)
    }

    /// All of them with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Sent)> {
        self.messages.iter().enumerate().map(|(id, sent)| (id as u32, sent))
    }

    /// Which message a payload says it is.
    pub(super) fn id_of(&self, payload: &[u8]) -> Option<u32> {
        let id = u32::from_le_bytes(*payload.first_chunk()?);
        ((id as usize) < self.messages.len()).then_some(id)
    }

    /// Whether these are the bytes that were sent under `id`.
    pub(super) fn is_intact(&self, id: u32, bytes: &[u8]) -> bool {
        self.get(id).is_some_and(|sent| payload(self.seed, id, sent.len) == bytes)
    }

    /// Gives a number of a stream to a message. Returns the message that it belongs to already, if that is another one.
    pub(super) fn bind(&mut self, way: Way, id: u32) -> Option<u32> {
        let numbers = self.streams.entry((way.from, way.to, way.epoch.0)).or_default();
        let first = *numbers.entry(way.number).or_insert(id);
        if first != id {
            return Some(first);
        }
        if let Some(sent) = self.messages.get_mut(id as usize) {
            let same = |known: &Way| {
                (known.from, known.to, known.epoch, known.number) == (way.from, way.to, way.epoch, way.number)
            };
            match sent.ways.iter_mut().find(|known| same(known)) {
                Some(known) => known.at = known.at.min(way.at),
                None => sent.ways.push(way),
            }
        }
        None
    }

    /// Numbers of a stream were told to be a gap, and maybe that a policy dropped them.
    pub(super) fn note_gap(
        &mut self,
        (from, to, epoch): (usize, usize, Epoch),
        first: u64,
        last: u64,
        dropped: bool,
    ) {
        if dropped {
            let numbers = self.streams.get(&(from, to, epoch.0));
            for id in numbers.into_iter().flat_map(|numbers| numbers.range(first..=last)).map(|(_, id)| *id) {
                if let Some(sent) = self.messages.get_mut(id as usize) {
                    sent.dropped = true;
                }
            }
        }
        let gaps = self.gaps.entry((from, to, epoch.0)).or_default();
        if !gaps.contains(&(first, last)) {
            gaps.push((first, last));
        }
    }

    /// Whether the number was told to be a gap.
    pub(super) fn is_gap(&self, (from, to, epoch): (usize, usize, Epoch), number: u64) -> bool {
        let gaps = self.gaps.get(&(from, to, epoch.0));
        gaps.is_some_and(|gaps| gaps.iter().any(|(first, last)| (*first..=*last).contains(&number)))
    }

    /// Messages that were on the wire under these numbers of a stream.
    pub(super) fn on_wire(
        &self,
        (from, to, epoch): (usize, usize, Epoch),
        above: u64,
        through: u64,
    ) -> impl Iterator<Item = (u64, u32)> {
        let numbers = self.streams.get(&(from, to, epoch.0));
        let range = (above < through).then_some(above + 1..=through);
        numbers
            .into_iter()
            .zip(range)
            .flat_map(|(numbers, range)| numbers.range(range).map(|(&number, &id)| (number, id)))
    }
}

/// The bytes of a message: its id, then what only that message has.
fn payload(seed: u64, id: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(PAYLOAD_MIN)];
    let mut dice = Dice::new(seed, u64::from(id) + (1 << 40));
    let (head, rest) = bytes.split_at_mut(4);
    head.copy_from_slice(&id.to_le_bytes());
    for chunk in rest.chunks_mut(8) {
        let bits = dice.bits().to_le_bytes();
        let len = chunk.len();
        chunk.copy_from_slice(&bits[..len]);
    }
    bytes
}
