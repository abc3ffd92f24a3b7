//! What a node's disk holds durably, told from the groups that were committed.

use std::collections::BTreeMap;

use liner_proto::effect::{DeadReason, GapReason, Loaded, Queue, Recovered, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::{HeapStore, Store};
use liner_proto::wire::record::{self, Record};

/// What a queue is for, as a key that owns its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A stream.
    Node(String),
    /// Kept for a topic's first subscriber.
    Topic(String),
    /// Kept for whoever answers at an address.
    Address(String),
}

impl Key {
    /// The key of a queue.
    pub fn of(queue: Queue<'_>) -> Self {
        let name = queue.name().into();
        match queue {
            Queue::Node(_) => Self::Node(name),
            Queue::Topic(_) => Self::Topic(name),
            Queue::Address(_) => Self::Address(name),
        }
    }
}

/// A queue on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// Its epoch.
    pub epoch: Epoch,
    /// Messages by their numbers.
    pub records: BTreeMap<u64, u32>,
}

/// What a group took off a disk.
#[derive(Clone, Debug)]
pub(super) struct Removed {
    /// The queue.
    pub key: Key,
    /// Number and message.
    pub records: Vec<(u64, u32)>,
    /// Why they were dropped, if it was not for an acknowledgement.
    pub dropped: Option<GapReason>,
    /// The epoch of their numbers.
    pub epoch: Epoch,
}

/// A message that was put aside.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    /// The message.
    pub id: u32,
    /// The node it came from or was for.
    pub peer: String,
    /// Why.
    pub reason: DeadReason,
    /// Bytes of its record.
    pub len: usize,
}

/// A cursor that moved.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    /// The sending node.
    pub peer: String,
    /// The epoch of its stream.
    pub epoch: Epoch,
    /// Where it stood in that epoch; nothing if there was none.
    pub from: Option<u64>,
    /// Where it stands.
    pub through: u64,
}

/// What a group changed that the rules speak of.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Messages that are on the disk now.
    pub added: Vec<(Key, Epoch, u64, u32)>,
    /// Messages that were put aside.
    pub dead: Vec<Dead>,
    /// What is no longer there.
    pub removed: Vec<Removed>,
    /// Cursors.
    pub moved: Vec<Moved>,
    /// Whether a queue was forgotten.
    pub closed: bool,
}

/// A node's disk as an observer knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    /// Queues.
    pub queues: BTreeMap<Key, Stored>,
    /// Cursors by the name of the sender.
    pub cursors: BTreeMap<String, (Epoch, u64)>,
    /// Subscribers by topic and name, with the time since when the disk knows them.
    pub rows: BTreeMap<(String, String), u64>,
    /// The one peer of a device, which calls it nothing.
    peer: Option<String>,
    /// Copies of each message in the queues, by its id.
    copies: Vec<u16>,
}

impl Shadow {
    /// The empty disk of a node, or of a device with this peer.
    pub(super) fn of_peer(peer: Option<String>) -> Self {
        Self { peer, ..Self::default() }
    }

    fn key(&self, queue: Queue<'_>) -> Key {
        match &self.peer {
            Some(peer) => Key::Node(peer.clone()),
            None => Key::of(queue),
        }
    }

    /// Whether a queue holds the message.
    pub(super) fn holds(&self, id: u32) -> bool {
        self.copies.get(id as usize).is_some_and(|copies| *copies > 0)
    }

    /// The messages that queues hold.
    pub(super) fn held(&self) -> impl Iterator<Item = u32> {
        self.copies.iter().enumerate().filter(|(_, copies)| **copies > 0).map(|(id, _)| id as u32)
    }

    /// Whether the queue holds the message.
    pub(super) fn holds_in(&self, key: &Key, id: u32) -> bool {
        self.queues.get(key).is_some_and(|queue| queue.records.values().any(|held| *held == id))
    }

    /// Whether the same queues hold the message on another disk.
    pub(super) fn holds_alike(&self, other: &Self, id: u32) -> bool {
        let keys = |shadow: &Self| {
            let holding =
                shadow.queues.iter().filter(|(_, queue)| queue.records.values().any(|held| *held == id));
            holding.map(|(key, _)| key.clone()).collect::<Vec<Key>>()
        };
        keys(self) == keys(other)
    }

    /// Takes a group that is durable now.
    pub(super) fn apply(
        &mut self,
        ops: &[StoreOp<'_>],
        now: u64,
        id_of: &dyn Fn(&[u8]) -> Option<u32>,
    ) -> Changes {
        let mut changes = Changes::default();
        for op in ops {
            self.step(op, now, id_of, &mut changes);
        }
        changes
    }

    fn step(
        &mut self,
        op: &StoreOp<'_>,
        now: u64,
        id_of: &dyn Fn(&[u8]) -> Option<u32>,
        changes: &mut Changes,
    ) {
        match *op {
            StoreOp::Open { queue, epoch } => {
                let key = self.key(queue);
                self.queues.entry(key).or_default().epoch = epoch;
            }
            StoreOp::Rotate { queue, epoch, predecessor } => {
                let key = self.key(queue);
                self.remove(key.clone(), predecessor.old_first - 1, None, changes);
                if let Some(stored) = self.queues.get_mut(&key) {
                    let renumber = |(number, id)| (number + 1 - predecessor.old_first, id);
                    stored.records = core::mem::take(&mut stored.records).into_iter().map(renumber).collect();
                    stored.epoch = epoch;
                    let renumbered =
                        stored.records.iter().map(|(number, id)| (key.clone(), epoch, *number, *id));
                    changes.added.extend(renumbered);
                }
            }
            StoreOp::Append { queue, first, records, .. } => {
                let key = self.key(queue);
                self.append(&key, first, records, id_of, changes);
            }
            StoreOp::Trim { queue, through } => self.remove(self.key(queue), through, None, changes),
            StoreOp::Drop { queue, through, reason } => {
                self.remove(self.key(queue), through, Some(reason), changes);
            }
            StoreOp::Close { queue } => {
                let key = self.key(queue);
                // Whatever it still held is missed like any other message.
                self.remove(key.clone(), u64::MAX, None, changes);
                changes.closed |= self.queues.remove(&key).is_some();
            }
            StoreOp::Cursor { peer, epoch, through } => {
                let peer = self.peer.as_deref().unwrap_or(peer).to_string();
                let before = self.cursors.get(&peer).filter(|(known, _)| *known == epoch).map(|(_, at)| *at);
                let through = through.max(before.unwrap_or(0));
                self.cursors.insert(peer.clone(), (epoch, through));
                changes.moved.push(Moved { peer, epoch, from: before, through });
            }
            StoreOp::Subscribe { topic, name, .. } => {
                self.rows.entry((topic.into(), name.into())).or_insert(now);
            }
            StoreOp::Unsubscribe { topic, name, .. } => {
                self.rows.remove(&(topic.into(), name.into()));
            }
            StoreOp::DeadLetter { peer, reason, record, .. } => {
                let dead = |id| Dead { id, peer: peer.into(), reason, len: record.len() };
                changes.dead.extend(id_in(record, id_of).map(dead));
            }
            StoreOp::Inbox { .. } | StoreOp::Reserve { .. } | StoreOp::Topic { .. } | _ => {}
        }
    }

    fn append(
        &mut self,
        key: &Key,
        first: u64,
        records: &[u8],
        id_of: &dyn Fn(&[u8]) -> Option<u32>,
        changes: &mut Changes,
    ) {
        let Some(stored) = self.queues.get_mut(key) else { return };
        let mut number = first;
        let mut rest = records;
        while let Some((record, after)) = record::split_first(rest) {
            if let Some(id) = id_in(record, id_of) {
                stored.records.insert(number, id);
                let at = id as usize;
                if self.copies.len() <= at {
                    self.copies.resize(at + 1, 0);
                }
                self.copies[at] += 1;
                changes.added.push((key.clone(), stored.epoch, number, id));
            }
            number += record::numbers_of(record);
            rest = after;
        }
    }

    fn remove(&mut self, key: Key, through: u64, dropped: Option<GapReason>, changes: &mut Changes) {
        let Some(stored) = self.queues.get_mut(&key) else { return };
        let above =
            if through == u64::MAX { BTreeMap::new() } else { stored.records.split_off(&(through + 1)) };
        let gone = core::mem::replace(&mut stored.records, above);
        for id in gone.values() {
            self.copies[*id as usize] -= 1;
        }
        if !gone.is_empty() {
            let (records, epoch) = (gone.into_iter().collect(), stored.epoch);
            changes.removed.push(Removed { key, records, dropped, epoch });
        }
    }

    /// Reads a disk anew, after a crash.
    pub(super) fn read(
        disk: &HeapStore,
        before: &Self,
        now: u64,
        id_of: &dyn Fn(&[u8]) -> Option<u32>,
    ) -> Self {
        let mut shadow = Self::of_peer(before.peer.clone());
        let mut store = disk.clone();
        // A clone of the model's store can always be read.
        let _ = store.recover(&mut |item| match item {
            Recovered::Queue(queue) => {
                let key = shadow.key(queue.queue);
                let stored = shadow.queues.entry(key).or_default();
                stored.epoch = queue.epoch;
            }
            Recovered::Cursor { peer, epoch, through } => {
                let peer = before.peer.as_deref().unwrap_or(peer);
                shadow.cursors.insert(peer.into(), (epoch, through));
            }
            Recovered::Subscription { topic, name, .. } => {
                let key = (topic.into(), name.into());
                let since = before.rows.get(&key).copied().unwrap_or(now);
                shadow.rows.insert(key, since);
            }
            Recovered::Node { .. } | Recovered::Topic { .. } | _ => {}
        });
        let keys: Vec<Key> = shadow.queues.keys().cloned().collect();
        for key in keys {
            shadow.read_queue(&mut store, &key, id_of);
        }
        shadow
    }

    fn read_queue(&mut self, store: &mut HeapStore, key: &Key, id_of: &dyn Fn(&[u8]) -> Option<u32>) {
        let queue = match key {
            Key::Node(_) if self.peer.is_some() => Queue::Node(""),
            Key::Node(name) => Queue::Node(name),
            Key::Topic(topic) => Queue::Topic(topic),
            Key::Address(address) => Queue::Address(address),
        };
        let mut bytes = vec![0; 64 * 1024];
        let mut after = 0;
        loop {
            match store.load(queue, after, &mut bytes) {
                Ok(Loaded::Records { first, last, len }) => {
                    self.append(key, first, &bytes[..len], id_of, &mut Changes::default());
                    after = last;
                }
                Ok(Loaded::Corrupt { last, .. }) => after = last,
                _ => return,
            }
        }
    }
}

fn id_in(record: &[u8], id_of: &dyn Fn(&[u8]) -> Option<u32>) -> Option<u32> {
    match record::decode(record).ok()? {
        Record::Message { payload, .. } => id_of(payload),
        Record::Gap { .. } => None,
    }
}
