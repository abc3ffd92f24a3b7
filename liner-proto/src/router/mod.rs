//! A node: streams to many peers, topics, a directory, fan-out and custody. It performs no I/O.
//!
//! # How it is driven
//! * **inputs** `handle_*`: the world tells it something;
//! * **commands** `subscribe`, `send`, `add_peer`, `close`: the application asks for something;
//! * **outputs** `poll_*`, one for each sink with a back-pressure of its own: [`poll_transmit`](Router::poll_transmit) for each
//!   connection that [`poll_writable`](Router::poll_writable) names, [`poll_store`](Router::poll_store),
//!   [`poll_event`](Router::poll_event), [`poll_dial`](Router::poll_dial), [`poll_close`](Router::poll_close),
//!   [`poll_timeout`](Router::poll_timeout);
//! * **getters**: the rest.
//!
//! **The drain rule**: after every input or command, drain every `poll_*` until it is empty or its sink is full. The order
//! does not matter for what is promised: an acknowledgement that has to wait for a commit is held back in here. Outputs
//! are derived from state, so a sink that was full is simply asked again when it has room.

mod absence;
mod admission;
mod catalog;
mod config;
mod conn;
mod custody;
mod dead;
mod dial;
mod directory;
mod doubt;
mod event;
mod expiry;
mod forget;
mod fresh;
mod handshake;
mod inbox;
mod input;
mod leaving;
mod limits;
mod line;
mod loads;
mod looking;
mod loose;
mod mailbox;
mod mesh;
mod options;
mod outbox;
mod output;
mod own;
mod peer;
mod pieces;
mod quota;
mod receipts;
mod receivers;
mod rival;
mod shut;
mod slots;
mod standing;
mod storage;
mod sweep;
mod tally;
mod telling;
mod topics;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

pub use admission::Source;
pub use catalog::DirectoryRows;
pub use config::{NAME_BYTES_MAX, NodeConfig};
pub use conn::{Framing, Transmit};
pub use dial::{Dial, DialId};
pub use doubt::{Decision, InDoubt, InDoubtPolicy};
pub use event::{Application, Event, Message};
pub use forget::ForgetError;
pub use loads::LoadRequest;
pub use looking::{Address, QueuedFor};
pub use options::SendOptions;
pub use quota::{QueuePolicy, QueueRule, QueueRules, Quota};
pub use receipts::{PutAsideError, Receipt, Settle};
pub use standing::Standing;
pub use storage::StoreRequest;

use crate::config::HEAD_BYTES_MAX;
use crate::delivery::{Outbound, SendMode};
use crate::effect::{Recovered, RecoveredQueue};
use crate::id::{Epoch, SendId};
use crate::memory::Segments;
use crate::planted::Fault;
use crate::rng::Rng;
use crate::time::Instant;
use crate::timer::{Deadline, earlier};
use crate::wire::record::{Header, Mode, Topic};
use admission::Strangers;
use conn::Conns;
use dial::Dials;
use event::Events;
use expiry::Calendar;
use forget::Forgotten;
use outbox::{Key, Opened, Outbox};
use peer::Peer;
use slots::Slots;
use storage::Storage;
use tally::Tally;
use telling::Telling;
use topics::Topics;

/// Index of an interned topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TopicId(usize);

/// A peer that has a name. See [`Slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PeerId(u64);

/// A queue. See [`Slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OutboxId(u64);

/// Why a message was not accepted. It was not queued, and nothing of it will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody is known for the topic, and no peer was named that could be asked.
    #[error("nobody is known for this topic: name a peer, or wait for a subscriber")]
    NoAddress,
    /// As much waits for the store as it is given at a time, or as a queue has memory for: drive the node, then try again. Or as much is
    /// queued as may be, and somebody has to take it first.
    #[error("the queue is full: try again after some of its messages are stored, or taken")]
    Busy,
    /// The store is away: it cannot be reached, or does not answer. What is to be stored is not taken before it is back, which
    /// [`Event::StoreRecovered`] tells.
    #[error("the store is unavailable: drive the node, then try again")]
    Unavailable,
    /// The store has no room. What is to be stored is not taken before it has stored what waits for that.
    #[error("the store is full: make room for it, or wait until some of its messages are acknowledged")]
    StoreFull,
    /// Nobody has subscribed to the topic, and the next hop keeps no more of it.
    #[error(
        "nobody has subscribed to the topic, and the gateway keeps no more of it: try again once somebody has"
    )]
    TopicFull,
    /// It can never be sent in one piece, or a node that it is for has said that it takes no such message.
    #[error("the message is too large: at most {max} bytes fit")]
    TooLarge {
        /// The most bytes a payload may have.
        max: usize,
    },
    /// The topic is empty or longer than 255 bytes.
    #[error("a topic has 1 to 255 bytes")]
    BadTopic,
    /// The node itself subscribes to the topic, and nobody else is known who does: nothing is sent to oneself.
    #[error("this node subscribes to the topic itself, and nobody else is known who does")]
    OwnTopic,
    /// The time to live is nothing, or too long to be counted.
    #[error("a time to live is from 1 ms to 49 days")]
    BadTtl,
}

/// The most bytes of a record that are not its payload: flags, origin, topic, times.
const RECORD_HEAD_MAX: usize = HEAD_BYTES_MAX as usize;

/// A node. See the [module](self) for how it is driven.
#[derive(Debug)]
pub struct Router {
    config: NodeConfig,
    rng: Rng,
    now: Instant,
    calendar: Calendar,
    inbox: Epoch,
    inbox_stored: bool,
    inbox_lines: inbox::Inbox,
    catalog: catalog::Catalog,
    own: own::Own,
    topics: Topics,
    peers: Slots<Peer>,
    names: BTreeMap<Box<str>, PeerId>,
    /// Whether a peer was refused because there are too many names.
    names_full: bool,
    /// Peers that are to send nothing, or were told so.
    shut: Vec<PeerId>,
    /// Peers that are away, by the time when they are looked at; each stands there once.
    leases: BTreeSet<(Instant, PeerId)>,
    outboxes: Slots<Outbox>,
    conns: Conns,
    strangers: Strangers,
    dials: Dials,
    storage: Storage,
    events: Events,
    tally: Tally,
    telling: Telling,
    forgotten: Forgotten,
    sends: SendId,
    /// Version of the node's own rows in the directory.
    rows_version: u64,
    /// Messages of peers taken over since the start, whether they are stored by now or not.
    taken: u64,
    /// Copies that were acknowledged from queues that are closed.
    handed_on_before: u64,
    /// When a sweep of the topics freed little.
    swept_in_vain: Option<Instant>,
    started: bool,
    closing: bool,
}

impl Router {
    /// A node that knows nothing. Tell it what its store remembers with [`restore`](Self::restore), then
    /// [`start`](Self::start) it.
    ///
    /// A node that takes custody stores what it takes before it hands it on, whatever its mode says.
    pub fn new(mut config: NodeConfig, now: Instant) -> Self {
        if config.takes_custody {
            config.send_mode = SendMode::Stored;
            config.queue_quota.get_or_insert(Quota::QUEUE);
            config.inbox = None;
        }
        if let Some(quota) = config.inbox {
            // What is in the inbox is committed with its cursor: no crash repeats anything.
            config.repeat_max = 0;
            config.limits.fit_window(quota.messages, quota.bytes);
        }
        let rng = Rng::new(config.seed);
        Self {
            rng,
            now,
            calendar: Calendar::new(config.wall_ms, now),
            inbox: Epoch::NONE,
            inbox_stored: false,
            inbox_lines: inbox::Inbox::default(),
            catalog: catalog::Catalog::default(),
            own: own::Own::default(),
            topics: Topics::default(),
            peers: Slots::default(),
            names: BTreeMap::new(),
            names_full: false,
            shut: Vec::new(),
            leases: BTreeSet::new(),
            outboxes: Slots::default(),
            conns: Conns::default(),
            strangers: Strangers::default(),
            dials: Dials::default(),
            storage: Storage::default(),
            events: Events::default(),
            tally: Tally::default(),
            telling: Telling::default(),
            forgotten: Forgotten::default(),
            sends: SendId(0),
            rows_version: 1,
            taken: 0,
            handed_on_before: 0,
            swept_in_vain: None,
            started: false,
            closing: false,
            config,
        }
    }

    /// Takes one thing that the store remembers. Before [`start`](Self::start) only.
    pub fn restore(&mut self, item: &Recovered<'_>) {
        match *item {
            Recovered::Node { inbox, regressed, dead_letters } => {
                self.inbox = inbox;
                self.storage.put_aside = dead_letters;
                self.inbox_stored = true;
                self.storage.regressed = regressed;
            }
            Recovered::Queue(queue) => self.restore_queue(&queue),
            Recovered::Topic { queue, number, text } => {
                let topic = self.topics.intern(text);
                let key = Key::of(queue);
                if let Some(outbox) = self.outboxes.iter_mut().find(|outbox| outbox.key == key) {
                    outbox.restore_topic(number, topic);
                }
            }
            Recovered::Cursor { peer, epoch, through } => {
                let peer = self.peer_named(peer);
                // A cursor that may have gone back says nothing of what was handed on since.
                let repeat_max = if self.storage.regressed { u64::MAX } else { self.config.repeat_max };
                if let Some(peer) = self.peers.get_mut(peer.0) {
                    peer.inbound.restore(epoch, through, repeat_max);
                    peer.has_cursor = true;
                }
            }
            Recovered::Subscription { topic, address, name } => {
                if self.restore_row(topic, address, name) {
                    return;
                }
                let topic = self.topics.intern(topic);
                let peer = self.peer_named(name);
                if let Some(peer) = self.peers.get_mut(peer.0) {
                    // One row of an earlier life that was durable is enough.
                    peer.durable |= !directory::is_ephemeral(address);
                    peer.inbox = peer.inbox.or(mailbox::inbox_of(address));
                }
                if let Some(peer) = self.peers.get_mut(peer.0) {
                    peer.whereabouts.restore(address);
                }
                self.add_row(topic, peer, address);
            }
        }
    }

    fn restore_queue(&mut self, queue: &RecoveredQueue<'_>) {
        let ring = Segments::new(self.config.queue_bytes);
        let reuse = self.config.planted.has(Fault::NumberReused);
        let out = Outbound::restore(ring, self.config.send_mode, &queue.remembered(), reuse);
        let mut outbox = Outbox::with(Key::of(queue.queue), out, Opened::Yes);
        outbox.bytes = queue.bytes;
        outbox.counted = outbox.out.waiting();
        let id = self.add_outbox(outbox);
        match queue.queue {
            crate::effect::Queue::Node(name) => {
                let peer = self.peer_named(name);
                self.own_outbox(peer, id);
                if name == self.config.name {
                    self.own.set_queue(id);
                }
            }
            crate::effect::Queue::Topic(topic) => {
                let topic = self.topics.intern(topic);
                self.topics.set_kept(topic, id, None);
            }
            crate::effect::Queue::Address(address) => {
                let dial = self.dials.restore(address, Instant::ZERO);
                self.dials.set_outbox(dial, id);
            }
        }
    }

    /// Ends the recovery. Epochs are made where there are none, and new ones where the store may have gone backwards.
    pub fn start(&mut self, now: Instant) {
        self.tick(now);
        self.started = true;
        for peer in self.peers.ids() {
            self.set_lease(PeerId(peer));
            self.seek(PeerId(peer));
        }
        if self.inbox.is_none() {
            self.inbox = Epoch(self.rng.next_nonzero());
        }
        if core::mem::take(&mut self.storage.regressed) {
            for id in self.outboxes.ids() {
                self.rotate(OutboxId(id));
            }
        }
        for id in self.outboxes.ids() {
            self.list(OutboxId(id));
        }
    }

    // ------------------------------------------------------------------ getters

    /// The configuration.
    pub const fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Every send up to this one is stored at the store's class, or acknowledged.
    pub fn stored_through(&self) -> SendId {
        let asynchronous = self.config.send_mode == SendMode::Asynchronous;
        if asynchronous && self.outboxes.iter().all(|outbox| outbox.out.is_stored()) {
            return self.sends;
        }
        self.storage.sends_stored
    }

    /// The newest send.
    pub const fn sent_through(&self) -> SendId {
        self.sends
    }

    /// Messages that are queued for anyone and not acknowledged. Gaps count with their numbers.
    pub fn queued(&self) -> u64 {
        self.outboxes.iter().map(|outbox| outbox.out.queued()).sum()
    }

    /// Messages that are queued for the node `name`.
    pub fn queued_for(&self, name: &str) -> u64 {
        let outbox = self.names.get(name).and_then(|&peer| self.peers.get(peer.0)?.outbox);
        outbox.and_then(|id| self.outboxes.get(id.0)).map_or(0, |outbox| outbox.out.queued())
    }

    /// Bytes of records in memory, over all queues.
    pub fn held(&self) -> usize {
        self.outboxes.iter().map(Outbox::held).sum()
    }

    /// The largest payload that can be sent. There is room beside it for a topic, and for what a gateway adds. One that is to
    /// arrive at best travels in one frame: [`loose_max`](Self::loose_max).
    pub const fn payload_max(&self) -> usize {
        (self.config.limits.message_max as usize).saturating_sub(RECORD_HEAD_MAX)
    }

    /// Names of the peers whose sessions are up.
    pub fn peers_up(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|peer| peer.conn.is_some()).map(|peer| &*peer.name)
    }

    /// Messages that are queued for anyone, and stored.
    pub fn queued_stored(&self) -> u64 {
        self.outboxes.iter().map(|outbox| outbox.out.queued_stored()).sum()
    }

    /// Messages of peers that were taken over for others since the start, and are stored.
    pub const fn taken(&self) -> u64 {
        self.storage.taken
    }

    /// Copies that peers have acknowledged since the start, gaps with their numbers.
    pub fn handed_on(&self) -> u64 {
        let live = self.outboxes.iter().filter(|outbox| matches!(outbox.key, Key::Node(_)));
        self.handed_on_before + live.map(Outbox::acked_since_start).sum::<u64>()
    }

    /// Whether everything that was accepted is acknowledged and the store knows it.
    pub fn is_idle(&self) -> bool {
        self.outboxes.iter().all(Outbox::is_idle) && !self.owes_store()
    }

    /// Whether the store has committed everything that the node wants it to have.
    pub fn is_stored(&self) -> bool {
        !self.owes_store() && self.storage.is_settled()
    }

    // ------------------------------------------------------------------ commands

    /// Sends a message to one subscriber of the topic, or to all of them.
    ///
    /// With [`Mode::BestEffort`] it goes to whoever is connected now, and is neither stored nor acknowledged; the id is that of
    /// the send before it. Otherwise:
    ///
    /// The message is queued. It is stored after the next commit ([`stored_through`](Self::stored_through)), and leaves
    /// after that unless the node is in the asynchronous mode.
    ///
    /// # Errors
    /// See [`SendError`]; for `Mode::All` nothing is queued for anyone then.
    #[inline]
    pub fn send(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
        mode: Mode,
    ) -> Result<SendId, SendError> {
        self.send_with(now, topic, payload, &SendOptions::new(mode))
    }

    /// As [`send`](Self::send), with all that a sender may want.
    ///
    /// # Errors
    /// See [`SendError`]; for `Mode::All` nothing is queued for anyone then.
    pub fn send_with(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
        options: &SendOptions,
    ) -> Result<SendId, SendError> {
        self.tick(now);
        if topic.is_empty() || topic.len() > NAME_BYTES_MAX {
            return Err(SendError::BadTopic);
        }
        let max = if options.mode == Mode::BestEffort { self.loose_max() } else { self.payload_max() };
        if payload.len() > max {
            return Err(SendError::TooLarge { max });
        }
        let topic = self.topics.intern(topic);
        if self.topics.is_own(topic) && self.topics.rows(topic).is_empty() {
            return Err(SendError::OwnTopic);
        }
        let mut header = Header::new(options.mode, Topic::Number(0));
        if let Some(ttl) = options.ttl {
            header.ttl_ms = Some(expiry::millis(ttl).ok_or(SendError::BadTtl)?);
        }
        if options.mode == Mode::BestEffort {
            self.send_loose(topic, &header, payload, None, options.to_one);
            return Ok(self.sends);
        }
        let is_stored = self.config.send_mode == SendMode::Stored;
        if let Some(refusal) = self.store_refusal().filter(|_| is_stored) {
            return Err(refusal);
        }
        if is_stored && self.storage.fresh.is_batch_full() {
            return Err(SendError::Busy);
        }
        self.route_own(topic, &header, payload)?;
        self.sends.0 += 1;
        Ok(self.sends)
    }

    /// Subscribes to a topic: peers are told, and its messages go to the application.
    pub fn subscribe(&mut self, now: Instant, topic: &str) {
        self.tick(now);
        let topic = self.topics.intern(topic);
        self.own.unblock();
        if self.topics.set_own(topic, true) {
            self.rows_version += 1;
            self.reopen_topic(topic);
            self.announce();
        }
    }

    /// Takes a topic no more. Says whether it was taken. Peers are told; what arrives until they know, and what is queued for
    /// this node by then, goes to the dead letters of whoever has it ([`DeadReason::Unsubscribed`](crate::effect::DeadReason::Unsubscribed)).
    pub fn unsubscribe(&mut self, now: Instant, topic: &str) -> bool {
        self.tick(now);
        let known = self.topics.find(topic);
        let was_taken = known.is_some_and(|topic| self.topics.set_own(topic, false));
        if was_taken {
            self.rows_version += 1;
            self.announce();
        }
        was_taken
    }

    /// Names a peer by its address: it is dialled for as long as the node runs, and is the next hop for topics that
    /// nobody is known for. An address that earlier lives of the node were told is dialled until nothing waits for it.
    pub fn add_peer(&mut self, now: Instant, address: &str) -> DialId {
        self.tick(now);
        let dial = self.dials.add(address, now);
        self.yield_to(dial);
        dial
    }

    /// Ends all sessions. What is queued stays in the store.
    pub fn close(&mut self, now: Instant) {
        self.tick(now);
        self.closing = true;
        self.conns.close_all(crate::wire::control::CloseReason::Shutdown);
    }

    // ------------------------------------------------------------------ outputs

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, and what. May change after every input.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let conns = self.conns.deadline(self.now, self.config.timing.write_stall);
        let dials = self.dial_deadline().filter(|_| !self.closing && self.config.dials);
        let waits = self.write_behind_deadline();
        let store = earlier(earlier(waits, self.storage.retry_deadline()), self.inbox_lines.deadline());
        let store = earlier(earlier(store, self.catalog_deadline()), self.silence_deadline());
        let rest = earlier(self.lease_deadline(), earlier(self.tally.deadline(), self.strangers.deadline()));
        let rest = earlier(rest, self.telling.deadline());
        earlier(earlier(conns, dials), earlier(store, rest))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        self.conns.handle_timeout(self.now, self.config.timing.write_stall);
        self.check_stalls();
        self.check_leases();
        self.check_telling();
        self.retry_store();
        self.check_silence();
        self.check_all_written();
        self.tell_losses();
        self.events.extend(self.strangers.told(self.now));
    }

    // ------------------------------------------------------------------ shared helpers

    /// The node's clock never runs backwards.
    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn add_outbox(&mut self, outbox: Outbox) -> OutboxId {
        OutboxId(self.outboxes.insert(outbox))
    }

    /// The peer of this name, made if there is none.
    fn peer_named(&mut self, name: &str) -> PeerId {
        if let Some(&peer) = self.names.get(name) {
            return peer;
        }
        let peer = PeerId(self.peers.insert(Peer::new(name, &self.config)));
        self.names.insert(name.into(), peer);
        peer
    }

    /// The queue of a peer's stream, made if there is none.
    #[inline]
    fn outbox_of(&mut self, peer: PeerId) -> OutboxId {
        match self.peers.get(peer.0).and_then(|peer| peer.outbox) {
            Some(id) if self.outboxes.get(id.0).is_some_and(|outbox| !outbox.closing) => id,
            _ => self.begin_stream(peer),
        }
    }

    #[cold]
    fn begin_stream(&mut self, peer: PeerId) -> OutboxId {
        self.leave_closing(peer);
        let name = self.peers.get(peer.0).map(|peer| peer.name.clone()).unwrap_or_default();
        let epoch = self.fresh_epoch(&name);
        self.make_outbox(peer, epoch)
    }

    /// Makes the queue of a peer's stream.
    fn make_outbox(&mut self, peer: PeerId, epoch: Epoch) -> OutboxId {
        let name = self.peers.get(peer.0).map(|peer| peer.name.clone()).unwrap_or_default();
        let id = self.new_outbox(Key::Node(name), epoch);
        self.own_outbox(peer, id);
        self.begin_with_gap(id);
        id
    }

    /// The queue is that of the peer's stream.
    fn own_outbox(&mut self, peer: PeerId, id: OutboxId) {
        if let Some(peer) = self.peers.get_mut(peer.0) {
            peer.outbox = Some(id);
        }
        if let Some(outbox) = self.outboxes.get_mut(id.0) {
            outbox.peer = Some(peer);
        }
    }

    fn new_outbox(&mut self, key: Key, epoch: Epoch) -> OutboxId {
        self.add_outbox(Outbox::new(key, self.config.send_mode, self.config.queue_bytes, epoch))
    }

    /// The epoch of a stream that does not exist yet. A caller that was told of one must not find another: whatever
    /// connection the stream begins on, it begins in that epoch.
    fn fresh_epoch(&mut self, name: &str) -> Epoch {
        let told = self.conns.iter().find_map(|(_, conn)| {
            conn.caller.as_ref().filter(|caller| caller.name == name).map(|caller| caller.fresh)
        });
        told.unwrap_or_else(|| Epoch(self.rng.next_nonzero()))
    }

    /// Begins a new epoch of a queue, because its state went backwards, or its peer's did.
    fn rotate(&mut self, id: OutboxId) {
        let epoch = Epoch(self.rng.next_nonzero());
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        self.storage.put_aside -= outbox.drop_aside();
        outbox.rotate(epoch);
        let forgotten = core::mem::take(&mut outbox.forgotten);
        self.events.extend(doubt::rotated(outbox.key.queue().name().into(), forgotten));
        self.list(id);
    }
}
