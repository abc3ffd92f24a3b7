//! Messages for the node's own application that go into the store's inbox, and not to a handler.
//!
//! What has arrived waits in memory, peer by peer, until a batch takes it, in one group with the cursor that covers it. When the inbox
//! is full, what waits stays where it is and its cursor with it: it is not acknowledged, and the window of the peer closes by itself,
//! as with a store that is away. What a peer puts into memory so is a window; its next session begins with a closed one if it has
//! brought that already.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::{PeerId, Quota, Router, TopicId};
use crate::config::Limits;
use crate::effect::{Batch, DeadReason, Delivery, InboxHeld, StoreFault, StoreOp};
use crate::id::Epoch;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};
use crate::wire::record::{Header, Mode};

/// How often the store is asked what a full inbox holds, if nobody says that something was taken.
const COUNT_EVERY: Duration = Duration::from_millis(50);

/// The inbox as the core sees it: what it holds, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    lines: BTreeMap<PeerId, Line>,
    /// What the store has, at most: the application takes without a word.
    held: InboxHeld,
    /// What is with the store.
    asked: InboxHeld,
    /// The store has been asked what it has.
    counting: bool,
    /// It is not asked before.
    count_at: Option<Instant>,
    /// Messages committed since the start.
    delivered: u64,
}

/// What has arrived from one peer and is not committed, in its order.
#[derive(Debug, Default)]
struct Line {
    items: VecDeque<Item>,
    /// What all of them count.
    waits: InboxHeld,
    /// So many of them, from the first, are with the store.
    asked: usize,
    /// There was no room for the rest.
    blocked: bool,
}

#[derive(Debug)]
enum Item {
    Message(Message),
    /// On a topic that the node does not take any more. It stands here since the same cursor covers it.
    Dead {
        from: Box<str>,
        topic: TopicId,
        reason: DeadReason,
        record: Vec<u8>,
    },
}

#[derive(Debug)]
struct Message {
    from: Box<str>,
    epoch: Epoch,
    number: u64,
    topic: TopicId,
    mode: Mode,
    maybe_redelivered: bool,
    payload: Box<[u8]>,
}

/// Items of a peer that are in a batch: so many, with what they count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    peer: PeerId,
    begin: usize,
    count: usize,
    holds: InboxHeld,
}

impl InboxHeld {
    const fn plus(self, more: Self) -> Self {
        Self { messages: self.messages + more.messages, bytes: self.bytes + more.bytes }
    }

    const fn minus(self, less: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(less.messages),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }

    const fn fits(self, quota: Quota) -> bool {
        self.messages < quota.messages && self.bytes < quota.bytes
    }
}

impl Item {
    /// What it counts in the inbox, with the text of its topic.
    fn counts(&self, topic: &str) -> InboxHeld {
        match self {
            Self::Message(message) => InboxHeld { messages: 1, bytes: message.lend(topic).bytes() },
            Self::Dead { .. } => InboxHeld::default(),
        }
    }

    const fn topic(&self) -> TopicId {
        match self {
            Self::Message(message) => message.topic,
            Self::Dead { topic, .. } => *topic,
        }
    }

    fn emit(&self, topic: &str, batch: &mut Batch) {
        match self {
            Self::Message(message) => batch.push(&StoreOp::Deliver(message.lend(topic))),
            Self::Dead { from, reason, record, .. } => {
                batch.push(&StoreOp::DeadLetter { peer: from, topic, reason: *reason, record });
            }
        }
    }
}

impl Message {
    fn lend<'a>(&'a self, topic: &'a str) -> Delivery<'a> {
        Delivery {
            from: &self.from,
            epoch: self.epoch,
            number: self.number,
            topic,
            mode: self.mode,
            maybe_redelivered: self.maybe_redelivered,
            payload: &self.payload,
        }
    }
}

impl Inbox {
    /// Whether a batch is to take something of the peer.
    pub(super) fn owes(&self, peer: PeerId) -> bool {
        self.lines.get(&peer).is_some_and(|line| line.items.len() > line.asked)
    }

    /// Whether a peer has brought as much as it may send, and the store has none of it.
    pub(super) fn is_stuffed(&self, peer: PeerId, limits: &Limits) -> bool {
        self.lines.get(&peer).is_some_and(|line| {
            line.waits.bytes >= u64::from(limits.window_bytes)
                || line.items.len() as u64 >= u64::from(limits.window_messages)
        })
    }

    /// Every topic that what waits refers to.
    pub(super) fn each_topic(&self, each: &mut impl FnMut(TopicId)) {
        self.lines.values().flat_map(|line| &line.items).for_each(|item| each(item.topic()));
    }

    fn put(&mut self, peer: PeerId, item: Item, counts: InboxHeld) {
        let line = self.lines.entry(peer).or_default();
        line.waits = line.waits.plus(counts);
        line.items.push_back(item);
    }

    /// A batch takes all that waits of a peer, if there is room. Without it, it is asked again when there is.
    fn ask(&mut self, peer: PeerId, quota: Quota) -> Option<Asked> {
        let full = self.counting || !self.held.plus(self.asked).fits(quota);
        let line = self.lines.get_mut(&peer)?;
        line.blocked = full;
        if full {
            return None;
        }
        let (begin, count) = (line.asked, line.items.len() - line.asked);
        Some(Asked { peer, begin, count, holds: InboxHeld::default() })
    }

    fn is_blocked(&self) -> bool {
        self.lines.values().any(|line| line.blocked)
    }

    /// The group of a batch with this is committed.
    pub(super) fn handle_committed(&mut self, asked: &Asked) {
        self.held = self.held.plus(asked.holds);
        self.asked = self.asked.minus(asked.holds);
        self.delivered += asked.holds.messages;
        let Some(line) = self.lines.get_mut(&asked.peer) else { return };
        line.items.drain(..asked.count.min(line.items.len()));
        line.asked = line.asked.saturating_sub(asked.count);
        line.waits = line.waits.minus(asked.holds);
        if line.items.is_empty() {
            self.lines.remove(&asked.peer);
        }
    }

    /// Everything that is with the store is void.
    pub(super) fn handle_void(&mut self) {
        self.asked = InboxHeld::default();
        self.lines.values_mut().for_each(|line| line.asked = 0);
    }

    /// Whether the store was asked what it has.
    pub(super) const fn is_asked(&self) -> bool {
        self.counting
    }

    /// When the store is to be asked what it has.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let waits = !self.counting && self.asked.messages == 0 && self.is_blocked();
        self.count_at.filter(|_| waits).map(|at| (at, Wakeup::StoreRetry))
    }
}

impl Router {
    /// A message of a peer for the node's own application.
    pub(super) fn deliver(
        &mut self,
        peer: PeerId,
        number: u64,
        (topic, header, payload): (TopicId, &Header<'_>, &[u8]),
        maybe_redelivered: bool,
    ) {
        let Some(state) = self.peers.get(peer.0) else { return };
        let hop = || (&*state.name, state.inbound.epoch(), number);
        let (from, epoch, number) =
            header.origin.map_or_else(hop, |origin| (origin.name, origin.epoch, origin.number));
        let item = Item::Message(Message {
            from: from.into(),
            epoch,
            number,
            topic,
            mode: header.mode,
            maybe_redelivered,
            payload: payload.into(),
        });
        let counts = item.counts(self.topics.text(topic));
        self.inbox_lines.put(peer, item, counts);
    }

    /// A message of a peer becomes a dead letter, behind what waits of that peer.
    pub(super) fn put_aside_in_line(
        &mut self,
        peer: PeerId,
        from: Box<str>,
        topic: TopicId,
        (reason, record): (DeadReason, Vec<u8>),
    ) {
        self.inbox_lines.put(peer, Item::Dead { from, topic, reason, record }, InboxHeld::default());
    }

    /// Whether the store has to hear of what the peer has sent.
    pub(super) fn owes_of(&self, peer: PeerId) -> bool {
        let owes_cursor = self.peers.get(peer.0).is_some_and(|peer| peer.owes_cursor());
        owes_cursor || self.inbox_lines.owes(peer)
    }

    /// What waits of a peer goes into the batch that is being built, if there is room for it in the inbox.
    pub(super) fn ask_inbox(&mut self, peer: PeerId) -> Option<Asked> {
        let mut asked = self.inbox_lines.ask(peer, self.config.inbox?)?;
        let line = self.inbox_lines.lines.get_mut(&peer)?;
        for item in line.items.iter().skip(asked.begin) {
            asked.holds = asked.holds.plus(item.counts(self.topics.text(item.topic())));
        }
        line.asked = line.items.len();
        self.inbox_lines.asked = self.inbox_lines.asked.plus(asked.holds);
        Some(asked)
    }

    pub(super) fn emit_deliveries(&self, asked: &[Asked], batch: &mut Batch) {
        for asked in asked {
            let Some(line) = self.inbox_lines.lines.get(&asked.peer) else { continue };
            for item in line.items.iter().skip(asked.begin).take(asked.count) {
                item.emit(self.topics.text(item.topic()), batch);
            }
        }
    }

    // ------------------------------------------------------------------ what it holds

    /// Whether the store is to be asked what its inbox holds ([`Store::inbox`](crate::store::Store::inbox)), as there seems to be no
    /// room for what has arrived. Answer with [`handle_inbox`](Self::handle_inbox). It is one of the sinks of the drain rule, for a
    /// node that has an inbox ([`NodeConfig::inbox`](super::NodeConfig::inbox)).
    pub fn poll_inbox(&mut self, now: Instant) -> bool {
        self.tick(now);
        let inbox = &mut self.inbox_lines;
        let due = inbox.count_at.is_none_or(|at| at <= now);
        if inbox.counting || !due || inbox.asked.messages > 0 || !inbox.is_blocked() {
            return false;
        }
        inbox.counting = true;
        self.note_asked(true);
        true
    }

    /// The store has said what its inbox holds. Tell it before [`start`](Self::start), too.
    pub fn handle_inbox(&mut self, now: Instant, held: Result<InboxHeld, StoreFault>) {
        self.tick(now);
        let Some(quota) = self.config.inbox else { return };
        self.inbox_lines.counting = false;
        self.note_answered();
        let inbox = &mut self.inbox_lines;
        inbox.count_at = Some(self.now + COUNT_EVERY);
        let Ok(held) = held else { return };
        inbox.held = held;
        if !held.fits(quota) {
            return;
        }
        let blocked = inbox.lines.iter_mut().filter(|(_, line)| line.blocked);
        let unblock = |(peer, line): (&PeerId, &mut Line)| {
            line.blocked = false;
            *peer
        };
        let blocked: Vec<PeerId> = blocked.map(unblock).collect();
        blocked.into_iter().for_each(|peer| self.list_peer(peer));
    }

    /// The application has taken something from the inbox: a full one is looked at now. Without a word it is within 50 ms.
    pub fn handle_taken(&mut self, now: Instant) {
        self.tick(now);
        self.inbox_lines.count_at = None;
    }

    /// Messages that were put into the inbox since the start, and are committed.
    pub const fn delivered(&self) -> u64 {
        self.inbox_lines.delivered
    }
}
