//! A queue of the node with everything its records refer to.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::dead::gap_of;
use super::doubt::{Decision, Doubt};
use super::forget::Forgetting;
use super::{PeerId, Quota, RECORD_HEAD_MAX, TopicId};
use crate::delivery::{Emission, Outbound, Pending, PushError, SendMode};
use crate::effect::{Batch, DeadReason, Queue, StoreOp};
use crate::id::{Epoch, Predecessor};
use crate::memory::Segments;
use crate::time::Instant;
use crate::wire::record::{self, Header, Topic};
use crate::wire::varint;

/// Topic numbers that a queue gives out before its peer has said how many it keeps, and at most; beyond them topics are stored
/// as text.
const TOPIC_NUMBERS_MAX: usize = 1024;

/// What a queue is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The stream to a node.
    Node(Box<str>),
    /// What waits for a topic's first durable subscriber.
    Topic(Box<str>),
    /// What waits for whoever answers at an address.
    Address(Box<str>),
}

impl Key {
    pub(super) fn of(queue: Queue<'_>) -> Self {
        match queue {
            Queue::Node(name) => Self::Node(name.into()),
            Queue::Topic(topic) => Self::Topic(topic.into()),
            Queue::Address(address) => Self::Address(address.into()),
        }
    }

    pub(super) fn queue(&self) -> Queue<'_> {
        match self {
            Self::Node(name) => Queue::Node(name),
            Self::Topic(topic) => Queue::Topic(topic),
            Self::Address(address) => Queue::Address(address),
        }
    }
}

/// Whether the store knows the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    No,
    Asked,
    Yes,
}

/// Messages at the front of a queue that are to become dead letters.
#[derive(Debug)]
pub(super) struct Aside {
    /// Number of the first of them. The others follow it.
    pub(super) first: u64,
    pub(super) letters: Vec<Letter>,
    pub(super) reason: DeadReason,
}

/// A message that is to become a dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) topic: Box<str>,
    /// Its record, with the topic written out.
    pub(super) record: Vec<u8>,
}

impl Aside {
    const fn last(&self) -> u64 {
        self.first + self.letters.len() as u64 - 1
    }
}

/// The bytes of a message's record with its length, and with its topic written out.
#[cold]
fn written_len(text: &str, header: &Header<'_>, payload: &[u8]) -> usize {
    let len = record::message_len(&Header { topic: Topic::Text(text), ..*header }, payload.len());
    len + varint::varint_len(len as u64)
}

#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) key: Key,
    /// The peer whose stream it is.
    pub(super) peer: Option<PeerId>,
    pub(super) out: Outbound<Segments>,
    pub(super) opened: Opened,
    /// A new epoch that the store does not know yet: nothing is sent before it does.
    pub(super) rotation: Option<(Epoch, Predecessor)>,
    pub(super) rotation_asked: bool,
    /// The batch in which the store was asked to open the queue, or for its new epoch.
    asked_in: u64,
    /// Its peer is gone: records go back to their topics.
    pub(super) returning: bool,
    /// Those up to this number. What was queued later is for the peer when it comes back.
    pub(super) return_through: u64,
    /// Those of them that are marked, up to this one.
    pub(super) maybe_sent: u64,
    /// Its peer is being forgotten.
    pub(super) forgetting: Option<Forgetting>,
    /// The store is to forget it. Nothing is queued in it any more.
    pub(super) closing: bool,
    /// The store was asked to.
    close_asked: bool,
    /// A new epoch is needed as soon as nothing is with the store.
    pub(super) rotate_wanted: bool,
    /// The reason is that its peer has forgotten it.
    pub(super) forgotten: bool,
    /// What is done about messages that were sent before the epoch began.
    pub(super) doubt: Doubt,
    /// Topic of each number, from 1.
    pub(super) topics: Vec<TopicId>,
    /// Topic numbers that the peer keeps.
    pub(super) numbers_max: usize,
    /// Number of each topic, 0 if it has none; indexed by topic.
    numbers: Vec<u32>,
    /// The last message that was queued of each topic number, at 0 of the topics without one.
    newest: Vec<u64>,
    /// The last message that was queued before the start, of whatever topic.
    pub(super) restored: u64,
    /// Messages above this one have no time to live.
    pub(super) aged_through: u64,
    pub(super) topics_stored: usize,
    pub(super) topics_asked: Pending<usize>,
    /// What its peer does not take, on its way to the dead letters. Not empty.
    aside: Option<Aside>,
    /// The batch that carries it.
    aside_asked: Pending<()>,
    /// Up to this number messages are not sent if their topic is none that the peer has told in this session.
    pub(super) unwanted_through: u64,
    /// Whether it was said that there is no room for its dead letters.
    pub(super) told_littered: bool,
    /// The last number that was queued here first, and not moved here from another queue.
    pub(super) own_through: u64,
    /// Bytes of what it holds, for quotas: a bound until they are weighed.
    pub(super) bytes: u64,
    /// Messages that the bytes are those of.
    pub(super) counted: u64,
    /// Messages acknowledged since the start, in epochs that are over.
    acked_before: u64,
    /// What was acknowledged in this epoch before the start.
    acked_base: u64,
    /// Whether it stands in the list of those that owe the store something.
    pub(super) listed: bool,
}

impl Outbox {
    pub(super) fn new(key: Key, mode: SendMode, capacity: usize, epoch: Epoch) -> Self {
        Self::with(key, Outbound::new(Segments::new(capacity), mode, epoch), Opened::No)
    }

    pub(super) const fn with(key: Key, out: Outbound<Segments>, opened: Opened) -> Self {
        let acked_base = out.acked();
        let restored = out.next() - 1;
        Self {
            key,
            peer: None,
            out,
            opened,
            rotation: None,
            rotation_asked: false,
            asked_in: 0,
            returning: false,
            return_through: 0,
            maybe_sent: 0,
            forgetting: None,
            closing: false,
            close_asked: false,
            rotate_wanted: false,
            forgotten: false,
            doubt: Doubt::Open,
            topics: Vec::new(),
            numbers_max: TOPIC_NUMBERS_MAX,
            numbers: Vec::new(),
            newest: Vec::new(),
            restored,
            aged_through: restored,
            topics_stored: 0,
            topics_asked: Pending::new(),
            aside: None,
            aside_asked: Pending::new(),
            unwanted_through: 0,
            told_littered: false,
            own_through: 0,
            bytes: 0,
            counted: 0,
            acked_before: 0,
            acked_base,
            listed: false,
        }
    }

    /// Messages that its peer has acknowledged since the start. Gaps count with their numbers.
    pub(super) const fn acked_since_start(&self) -> u64 {
        self.acked_before + self.out.acked().saturating_sub(self.acked_base)
    }

    /// Whether its records are moved to streams, instead of being sent.
    pub(super) const fn is_moved(&self) -> bool {
        self.returning || !matches!(self.key, Key::Node(_))
    }

    pub(super) fn restore_topic(&mut self, number: u32, topic: TopicId) {
        // Numbers are given out one after another, and told in any order.
        let index = number as usize;
        if index == 0 || index > TOPIC_NUMBERS_MAX {
            return;
        }
        if self.topics.len() < index {
            self.topics.resize(index, topic);
        }
        if let Some(slot) = self.topics.get_mut(index - 1) {
            *slot = topic;
        }
        self.note_number(topic, number);
        self.topics_stored = self.topics.len();
    }

    fn note_number(&mut self, topic: TopicId, number: u32) {
        if self.numbers.len() <= topic.0 {
            self.numbers.resize(topic.0 + 1, 0);
        }
        if let Some(slot) = self.numbers.get_mut(topic.0) {
            *slot = number;
        }
    }

    /// The number that a topic has, or would be given, in this queue's epoch; its text if there are numbers for too many
    /// already.
    pub(super) fn topic<'t>(&self, topic: TopicId, text: &'t str) -> Topic<'t> {
        match self.numbers.get(topic.0) {
            Some(&number) if number != 0 => Topic::Number(number),
            _ if self.topics.len() >= self.numbers_max => Topic::Text(text),
            _ => Topic::Number(self.topics.len() as u32 + 1),
        }
    }

    /// As [`topic`](Self::topic), and the topic has that number from now on.
    fn numbered_topic<'t>(&mut self, topic: TopicId, text: &'t str) -> Topic<'t> {
        let numbered = self.topic(topic, text);
        if let Topic::Number(number) = numbered
            && number as usize > self.topics.len()
        {
            self.topics.push(topic);
            self.note_number(topic, number);
        }
        numbered
    }

    /// Queues a message. `over` lets it exceed the memory of the queue: for what a window bounds already.
    pub(super) fn push(
        &mut self,
        now: Instant,
        (topic, text): (TopicId, &str),
        header: &Header<'_>,
        payload: &[u8],
        over: bool,
    ) -> Result<u64, PushError> {
        // It may be moved to a queue that has no number for its topic, and what fits one queue must fit every other.
        let max = self.out.record_max();
        if payload.len() + RECORD_HEAD_MAX > max && written_len(text, header, payload) > max {
            return Err(PushError::TooLarge);
        }
        let header = Header { topic: self.numbered_topic(topic, text), ..*header };
        let len = record::message_len(&header, payload.len());
        let write = |room: &mut [u8]| {
            record::encode_message(&header, payload, room);
        };
        let number = self.out.push(now, len, over, write)?;
        if header.born_ms.is_some() {
            self.aged_through = number;
        }
        self.note_queued(&header.topic, number);
        if self.counted / 2 > self.out.waiting() {
            self.weigh();
        }
        self.counted += 1;
        self.bytes += (varint::varint_len(len as u64) + len) as u64;
        Ok(number)
    }

    /// Takes what has left the queue out of the count of its bytes. Nobody has read it again: it is taken to have been of the
    /// average size. What is moved was read, and is taken out as it is.
    pub(super) fn weigh(&mut self) {
        let waiting = self.out.waiting();
        if waiting < self.counted {
            let share = u128::from(self.bytes) * u128::from(waiting) / u128::from(self.counted);
            self.bytes = u64::try_from(share).unwrap_or(u64::MAX);
        }
        self.counted = waiting;
    }

    /// Whether it holds as much as it may, or more.
    pub(super) fn is_over(&mut self, quota: Quota) -> bool {
        if self.bytes >= quota.bytes {
            self.weigh();
        }
        self.out.waiting() >= quota.messages || self.bytes >= quota.bytes
    }

    fn note_queued(&mut self, topic: &Topic<'_>, number: u64) {
        let place = match topic {
            Topic::Number(number) => *number as usize,
            Topic::Text(_) => 0,
        };
        if self.newest.len() <= place {
            self.newest.resize(place + 1, 0);
        }
        if let Some(newest) = self.newest.get_mut(place) {
            *newest = number;
        }
    }

    /// Whether what is still to be sent is of these topics alone, as far as that is known.
    pub(super) fn has_only(&self, topics: &[TopicId]) -> bool {
        let next = self.out.sent();
        let restored = self.restored >= next;
        let is_queued = |place: usize| self.newest.get(place).is_some_and(|newest| *newest >= next);
        if is_queued(0) || (restored && self.topics.len() >= self.numbers_max) {
            return false;
        }
        let queued = self.topics.iter().zip(1..).filter(|(_, number)| restored || is_queued(*number));
        let mut queued = queued.map(|(topic, _)| topic).peekable();
        queued.peek().is_some() && queued.all(|topic| topics.contains(topic))
    }

    /// Whether everything that the store does not have yet was moved here: it has it in another queue.
    pub(super) const fn has_only_moved(&self) -> bool {
        self.own_through < self.out.stored()
    }

    /// Begins a new epoch. Nothing may be on its way to the dead letters: its numbers would be of the old one.
    pub(super) fn rotate(&mut self, epoch: Epoch) {
        debug_assert!(self.aside.is_none());
        self.acked_before = self.acked_since_start();
        let asks = self.forgotten || self.has_question();
        let predecessor = self.out.rotate(epoch);
        self.own_through = self.out.next() - 1;
        self.acked_base = self.out.acked();
        let less = predecessor.old_first - 1;
        let marks = [
            &mut self.return_through,
            &mut self.maybe_sent,
            &mut self.unwanted_through,
            &mut self.restored,
            &mut self.aged_through,
        ];
        for through in marks {
            *through = through.saturating_sub(less);
        }
        self.newest.iter_mut().for_each(|newest| *newest = newest.saturating_sub(less));
        self.rotation = Some((epoch, predecessor));
        self.rotation_asked = false;
        self.doubt = if asks { Doubt::Open } else { Doubt::Settled };
    }

    /// Whether records may be sent: their epoch is known to the store, and nobody has to decide first whether they are.
    pub(super) fn may_send(&self) -> bool {
        self.rotation.is_none() && !self.is_in_doubt()
    }

    /// Everything with the store is void.
    pub(super) fn handle_void(&mut self) {
        self.out.handle_void();
        self.topics_asked.clear();
        self.aside_asked.clear();
        self.rotation_asked = false;
        self.close_asked = false;
        if self.opened == Opened::Asked {
            self.opened = Opened::No;
        }
    }

    /// Whether it owes the store anything.
    pub(super) fn owes_store(&self, urgent: bool) -> bool {
        if self.closing {
            return self.owes_close();
        }
        (self.rotation.is_some() && !self.rotation_asked) || self.owes_aside() || self.out.owes_store(urgent)
    }

    pub(super) const fn owes_close(&self) -> bool {
        self.closing && !self.close_asked
    }

    fn owes_aside(&self) -> bool {
        self.aside.is_some() && self.aside_asked.is_empty()
    }

    /// Whether nothing of it is with the store that a new epoch would make wrong.
    pub(super) fn is_settled(&self) -> bool {
        self.out.is_settled() && self.opened != Opened::Asked && self.aside_asked.is_empty()
    }

    /// What is queued by now goes back to its topics, marked: it leaves its place among what the sender has sent.
    pub(super) const fn begin_return(&mut self) {
        self.return_through = self.out.next() - 1;
        self.maybe_sent = self.return_through;
    }

    /// Its peer is to be forgotten, and what is queued goes back to its topics or is dropped.
    pub(super) fn begin_forgetting(&mut self, reroute: bool) {
        let forgetting = self.forgetting.insert(Forgetting::default());
        if reroute && self.out.queued() > 0 {
            // Whoever had to be asked about messages in doubt is not there: they go back as others do that may have been sent.
            self.doubt = Doubt::Decided(Decision::Redeliver);
            self.begin_return();
            // An operator has asked for it: what was never sent is as good as new.
            self.maybe_sent = self.out.sent_through();
            return;
        }
        forgetting.dropped(self.out.waiting());
        self.return_through = 0;
        (self.rotate_wanted, self.forgotten, self.returning) = (false, false, false);
    }

    /// Whether its peer was given up, and some of what was queued then still is.
    pub(super) const fn has_to_return(&self) -> bool {
        self.out.acked() < self.return_through
    }

    /// Whether nothing is left of it but its name and its epoch: nothing is queued, and nothing is with the store.
    pub(super) fn is_spent(&self) -> bool {
        let rests = self.out.queued() == 0 && self.is_settled() && !self.out.owes_trim();
        let epoch = self.rotation.is_none() && !self.rotate_wanted;
        rests
            && epoch
            && self.aside.is_none()
            && !self.returning
            && !self.closing
            && self.topics_asked.is_empty()
    }

    /// Whether nothing of it is in memory that could not be had again.
    pub(super) fn is_idle(&self) -> bool {
        self.out.is_idle() && self.rotation.is_none()
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        self.out.held()
    }

    /// Adds what the store has to know before it can take the queue's records.
    pub(super) fn emit_rows<'t>(&mut self, id: u64, batch: &mut Batch, text: impl Fn(TopicId) -> &'t str) {
        let queue = self.key.queue();
        if self.opened == Opened::No {
            self.opened = Opened::Asked;
            self.asked_in = id;
            // A queue that never was in the store has no epoch there to leave.
            self.rotation = None;
            batch.push(&StoreOp::Open { queue, epoch: self.out.epoch() });
        }
        if let Some((epoch, predecessor)) = self.rotation
            && !self.rotation_asked
        {
            self.rotation_asked = true;
            self.asked_in = id;
            batch.push(&StoreOp::Rotate { queue, epoch, predecessor });
        }
        let told = self.topics_asked.newest().unwrap_or(self.topics_stored);
        for (index, topic) in self.topics.iter().enumerate().skip(told) {
            batch.push(&StoreOp::Topic { queue, number: index as u32 + 1, text: text(*topic) });
        }
        self.topics_asked.put(id, self.topics.len());
    }

    /// Adds the request to forget it. It stands before all rows of its batch: a queue that takes over its name is opened
    /// behind it.
    pub(super) fn emit_close(&mut self, id: u64, batch: &mut Batch) {
        if !core::mem::replace(&mut self.close_asked, true) {
            self.asked_in = id;
            let name = self.key.queue().name();
            self.forgetting.iter().for_each(|forgetting| forgetting.emit(name, batch));
            batch.push(&StoreOp::Close { queue: self.key.queue() });
        }
    }

    /// Whether the store has forgotten it with the first group of batch `id`.
    pub(super) const fn is_closed_by(&self, id: u64) -> bool {
        self.close_asked && self.asked_in == id
    }

    /// Adds trims and drops, and with `reserve` reservations: a full store need not take those.
    pub(super) fn emit_owed(&mut self, id: u64, urgent: bool, reserve: bool, batch: &mut Batch) {
        let queue = self.key.queue();
        while let Some(emission) = self.out.owed_emission(urgent) {
            if !reserve && matches!(emission, Emission::Reserve(_)) {
                return;
            }
            self.out.emitted(id, emission);
            batch.push(&match emission {
                Emission::Reserve(through) => StoreOp::Reserve { queue, through },
                Emission::Trim(through) => StoreOp::Trim { queue, through },
                Emission::Drop(through, reason) => StoreOp::Drop { queue, through, reason },
            });
        }
    }

    // ------------------------------------------------------------------ what the peer does not take

    /// Whether messages are on their way to the dead letters.
    pub(super) const fn is_putting_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// The messages at the front of the queue are to become dead letters.
    pub(super) fn put_aside(&mut self, aside: Aside) {
        debug_assert!(!aside.letters.is_empty() && self.aside_asked.is_empty());
        self.aside = Some(aside);
    }

    /// What was to become dead letters does not. Says how many messages that were.
    pub(super) fn drop_aside(&mut self) -> u64 {
        self.aside.take().map_or(0, |aside| aside.letters.len() as u64)
    }

    /// Whether the peer has acknowledged what was to become dead letters: an earlier session has brought it.
    pub(super) fn has_aside_in_vain(&self) -> bool {
        self.owes_aside() && self.aside.as_ref().is_some_and(|aside| aside.first <= self.out.acked())
    }

    /// Adds what is put aside: the store drops a message in the group that makes it a dead letter.
    pub(super) fn emit_aside(&mut self, id: u64, batch: &mut Batch) {
        let Some(aside) = self.aside.as_ref().filter(|_| self.aside_asked.is_empty()) else { return };
        self.aside_asked.put(id, ());
        let (queue, reason) = (self.key.queue(), aside.reason);
        for Letter { topic, record } in &aside.letters {
            batch.push(&StoreOp::DeadLetter { peer: queue.name(), topic, reason, record });
        }
        batch.push(&StoreOp::Drop { queue, through: aside.last(), reason: gap_of(reason) });
    }

    /// The group of batch `id` is committed. Returns what it made dead letters; the peer is told of a gap now.
    pub(super) fn handle_put_aside(&mut self, id: u64) -> Option<Aside> {
        self.aside_asked.take_through(id)?;
        let aside = self.aside.take()?;
        self.out.handle_dropped(aside.last(), gap_of(aside.reason));
        Some(aside)
    }

    /// The group of batch `id` with this queue's rows and records is committed.
    pub(super) fn handle_stored(&mut self, id: u64) {
        self.out.handle_stored(id);
        if let Some(topics) = self.topics_asked.take_through(id) {
            self.topics_stored = self.topics_stored.max(topics);
        }
        if id < self.asked_in {
            return;
        }
        if self.opened == Opened::Asked {
            self.opened = Opened::Yes;
        }
        if self.rotation_asked {
            self.rotation = None;
            self.rotation_asked = false;
        }
    }
}
