//! The node as its application sees it.

mod lines;
mod turn;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use liner_proto::delivery::SendMode;
use liner_proto::id::{Class, SendId};
use liner_proto::router::{
    Address, Decision, Event, ForgetError, Message, NAME_BYTES_MAX, PutAsideError, QueuedFor, Receipt,
    Router, SendError, SendOptions,
};
use liner_proto::time::Instant;
use liner_proto::wire::handshake::Acks;
use liner_proto::wire::record::Mode;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::builder::Builder;
use crate::clock::Clock;
use crate::error::{BlockingSendError, StopError};
use crate::handler::Handler;
use crate::link::{Line, LineEvent, Links};
use crate::resolver::Resolver;
use crate::storage::Stores;
use turn::Input;

/// Events of the operating system taken in one turn.
const EVENTS_MAX: usize = 256;

/// Sends between two turns that share one reading of the clock, which costs as much as queueing a small message.
const SENDS_PER_READING: u32 = 32;

/// A single-threaded node.
///
/// # How it is driven
/// Call [`drive`](Self::drive) again and again: with a timeout it waits for something to do, with `Some(Duration::ZERO)` it
/// never waits. Nothing happens between two calls, and nothing is sent, stored or handed over but in them (and in
/// [`send_stored`](Self::send_stored) and [`stop`](Self::stop), which call it).
///
/// In an event loop of another kind, watch the node's descriptor ([`AsFd`], or [`Source`] for mio) for readability and set
/// a timer to [`next_deadline`](Self::next_deadline); call `drive(Some(Duration::ZERO), …)` when either fires, and ask
/// for the deadline again after every `drive` and every `send`. Neither level- nor edge-triggered watching loses anything:
/// work that a turn left over makes the deadline zero.
///
/// # What a turn does
/// It takes what has arrived, hands it to the handler, lets the handler flush ([`Handler::turn_end`]), commits once, and writes what
/// may leave now: up to 1 MiB. Connections take turns, and while others wait each is read a frame and written 128 KiB at a time. The handler is never given more than 1,024 messages or 256 KiB that
/// are not committed, but for a longer message behind less than 128 KiB: it waits for a store that is slow, or away.
pub struct Node {
    router: Router,
    clock: Clock,
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    resolver: Resolver,
    links: Links,
    input: Input,
    stores: Stores,
    listen_addrs: Vec<SocketAddr>,
    spin: Duration,
    last_traffic: Instant,
    /// Something was asked of the router, or left over, since its outputs were drained.
    dirty: bool,
    /// The operating system may have more events than the last turn took.
    more_events: bool,
    /// The handler has had messages since its last successful `turn_end`.
    unflushed: bool,
    /// Whether the handler may settle messages later, and whether it did although it may not.
    settles_later: bool,
    deferred_unasked: bool,
    /// When the latest sends were made, and how many more are taken as made then. Each turn ends that.
    sends_at: Instant,
    sends_left: u32,
    /// When the router's deadlines were looked at last.
    checked: Instant,
}

/// What a call of [`Node::drive`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages handed to the handler.
    pub messages: u64,
    /// Bytes read from connections.
    pub bytes_in: u64,
    /// Bytes written to connections.
    pub bytes_out: u64,
    /// Batches that the store has committed.
    pub commits: u64,
    /// Messages that were put into the inbox and are committed: the application can take them from there.
    pub delivered: u64,
}

impl Node {
    /// Begins to put a node together. Its name is unique among the nodes it will meet, and is to stay the same over restarts.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) fn assemble(
        router: Router,
        clock: Clock,
        poll: Poll,
        waker: Arc<Waker>,
        links: Links,
        stores: Stores,
        (spin, settles_later): (Duration, bool),
    ) -> Self {
        let limits = router.config().limits;
        Self {
            input: Input::new(limits.frame_max as usize),
            listen_addrs: links.listeners.iter().map(|listener| listener.addr).collect(),
            router,
            clock,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            resolver: Resolver::new(Arc::clone(&waker)),
            waker,
            links,
            stores,
            spin,
            last_traffic: Instant::ZERO,
            dirty: true,
            more_events: false,
            unflushed: false,
            settles_later,
            deferred_unasked: false,
            sends_at: Instant::ZERO,
            sends_left: 0,
            checked: Instant::ZERO,
        }
    }

    /// Queues a message for one subscriber of the topic, or for all of them. Never waits.
    ///
    /// `Ok` means queued in memory. It is stored as soon as [`stored_through`](Self::stored_through) has reached the id, which
    /// takes a [`drive`](Self::drive); before that a crash loses it. While the store [is away](Self::is_store_away) nothing is queued that
    /// it is to have.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing of the message is queued then.
    pub fn send(&mut self, topic: &str, payload: &[u8], mode: Mode) -> Result<SendId, SendError> {
        self.send_with(topic, payload, &SendOptions::new(mode))
    }

    /// As [`send`](Self::send), with all that a sender may want: a time to live, for instance.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing of the message is queued then.
    pub fn send_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        options: &SendOptions,
    ) -> Result<SendId, SendError> {
        if self.sends_left == 0 {
            self.sends_left = SENDS_PER_READING;
            self.sends_at = self.clock.now();
        }
        self.sends_left -= 1;
        let id = self.router.send_with(self.sends_at, topic, payload, options)?;
        self.dirty = true;
        Ok(id)
    }

    /// Sends a message and drives the node until it is stored, for `patience` at most. A full queue is waited for, too, and a store that
    /// is away.
    /// `Ok` means: stored at [`store_class`](Self::store_class).
    ///
    /// Meanwhile the handler is given what arrives.
    ///
    /// # Errors
    /// See [`BlockingSendError`].
    pub fn send_stored(
        &mut self,
        topic: &str,
        payload: &[u8],
        mode: Mode,
        patience: Duration,
        handler: &mut dyn Handler,
    ) -> Result<SendId, BlockingSendError> {
        let until = self.clock.now() + patience;
        let id = loop {
            match self.send(topic, payload, mode) {
                Ok(id) => break id,
                Err(SendError::Busy | SendError::Unavailable | SendError::StoreFull)
                    if self.clock.now() < until =>
                {
                    let left = until.since(self.clock.now());
                    self.drive(Some(left), handler)
                        .map_err(|source| BlockingSendError::Drive { id: None, source })?;
                }
                Err(error) => return Err(BlockingSendError::NotSent(error)),
            }
        };
        loop {
            let left = until.since(self.clock.now());
            self.drive(Some(left), handler)
                .map_err(|source| BlockingSendError::Drive { id: Some(id), source })?;
            if self.router.stored_through() >= id {
                return Ok(id);
            }
            if left.is_zero() {
                return Err(BlockingSendError::Unknown(id));
            }
        }
    }

    /// Subscribes to a topic from now on: peers are told, and its messages are handed over. See also
    /// [`Builder::subscribe`](crate::Builder::subscribe).
    ///
    /// # Errors
    /// [`SendError::BadTopic`], if it has not 1 to 255 bytes.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), SendError> {
        if topic.is_empty() || topic.len() > NAME_BYTES_MAX {
            return Err(SendError::BadTopic);
        }
        self.router.subscribe(self.clock.now(), topic);
        self.dirty = true;
        Ok(())
    }

    /// Takes a topic no more. Says whether it was taken. Peers are told: a send to it finds nobody then, if there is nobody else. What
    /// arrives until they know, and what is queued for this node by then, becomes dead letters.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.dirty = true;
        self.router.unsubscribe(self.clock.now(), topic)
    }

    /// A message that the handler was going to settle later is processed. Says whether that was still waited for: it is not if it
    /// was settled before, or if its stream has begun anew and it will come again.
    ///
    /// It is acknowledged when everything before it in its stream is settled, too, after the commit that follows.
    pub fn settle(&mut self, receipt: Receipt) -> bool {
        self.dirty = true;
        self.router.settle(self.clock.now(), receipt)
    }

    /// A message that the handler was going to settle later cannot be processed: it becomes a dead letter, with the reason
    /// [`Failed`](liner_proto::effect::DeadReason::Failed), and its stream goes on.
    ///
    /// # Errors
    /// See [`PutAsideError`]. If it is `Full`, the message is still to be settled.
    pub fn put_failed_aside(&mut self, message: &Message<'_>) -> Result<(), PutAsideError> {
        self.dirty = true;
        self.router.put_failed_aside(self.clock.now(), message)
    }

    /// Messages that were handed over and are not settled.
    pub fn unsettled(&self) -> u64 {
        self.router.unsettled()
    }

    /// The next event. Up to 1,024 are kept; beyond them the oldest are dropped and counted.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.router.poll_event()
    }

    /// What has become of a line ([`Builder::line`]) since this was asked the last time: how it stands now, once for each line
    /// until that changes. A port that is not there is told of once, not with every try.
    pub fn poll_line(&mut self) -> Option<LineEvent> {
        self.links.lines.iter_mut().find_map(Line::poll)
    }

    /// How long from now [`drive`](Self::drive) has nothing to do, if nothing arrives; zero if there is something now, nothing
    /// if there never will be.
    pub fn next_deadline(&self) -> Option<Duration> {
        let now = self.clock.now();
        if self.has_work(now) {
            return Some(Duration::ZERO);
        }
        self.deadline(now).map(|at| at.since(now))
    }

    /// The addresses that the node listens on, in the order of [`Builder::listen`], free ports filled in.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.listen_addrs
    }

    /// Where other nodes are told to find this one; empty if they are not.
    pub fn advertised(&self) -> &str {
        &self.router.config().address
    }

    /// Whether messages are stored before they leave.
    pub fn send_mode(&self) -> SendMode {
        self.router.config().send_mode
    }

    /// The newest send.
    pub fn sent_through(&self) -> SendId {
        self.router.sent_through()
    }

    /// Every send up to this one is stored.
    pub fn stored_through(&self) -> SendId {
        self.router.stored_through()
    }

    /// Whether everything that was sent is acknowledged, and the store knows it.
    pub fn is_idle(&self) -> bool {
        self.router.is_idle() && self.stores.is_settled()
    }

    /// Messages that are queued for anyone and not acknowledged.
    pub fn queued(&self) -> u64 {
        self.router.queued()
    }

    /// Messages that are queued for anyone, not acknowledged, and stored.
    pub fn queued_stored(&self) -> u64 {
        self.router.queued_stored()
    }

    /// Messages that are queued for the node `name` and not acknowledged.
    pub fn queued_for(&self, name: &str) -> u64 {
        self.router.queued_for(name)
    }

    /// Messages of peers that were taken over for others since the start, and are stored.
    pub fn taken(&self) -> u64 {
        self.router.taken()
    }

    /// Messages that were put into the inbox since the start, and are committed.
    pub fn delivered(&self) -> u64 {
        self.router.delivered()
    }

    /// Says that the application has taken something from the inbox: if that was full, peers go on with the next
    /// [`drive`](Self::drive). Without a word they do within 50 ms.
    pub fn inbox_taken(&mut self) {
        self.router.handle_taken(self.clock.now());
        self.dirty = true;
    }

    /// Copies that peers have acknowledged since the start; what will never come counts too.
    pub fn handed_on(&self) -> u64 {
        self.router.handed_on()
    }

    /// Names of the peers that are connected.
    pub fn peers_up(&self) -> Vec<String> {
        self.router.peers_up().map(str::to_owned).collect()
    }

    /// Connections that are there: those of peers, lines, and those whose handshake is not finished.
    pub fn connections(&self) -> usize {
        self.links.up()
    }

    /// Decides what becomes of the messages for the node `name` that wait because it may have had them: see [`Event::InDoubt`].
    /// Says whether there were any.
    pub fn resolve_doubt(&mut self, name: &str, decision: Decision) -> bool {
        self.dirty = true;
        self.router.resolve_doubt(self.clock.now(), name, decision)
    }

    /// Forgets the node `name`, which does not come back: its rows, and its queue. With `reroute` what was queued for it alone goes to
    /// other subscribers, or waits for one; the rest is dropped. [`Event::Forgotten`] tells that it is done and stored.
    ///
    /// # Errors
    /// See [`ForgetError`]. Nothing has changed then.
    pub fn forget(&mut self, name: &str, reroute: bool) -> Result<(), ForgetError> {
        self.dirty = true;
        self.router.forget(self.clock.now(), name, reroute)
    }

    /// The nodes that are known to take a topic, by their addresses.
    pub fn addresses(&self, topic: &str) -> Vec<Address<'_>> {
        self.router.addresses(topic)
    }

    /// Has the next [`drive`](Self::drive) look at the directory of a store that several nodes share, instead of when that is due.
    pub fn refresh_directory(&mut self) {
        self.router.refresh_directory();
        self.dirty = true;
    }

    /// What waits for each node for which something does, by their names. What is kept for the first subscriber of a topic waits for
    /// nobody yet.
    pub fn queued_by_peer(&self) -> Vec<QueuedFor<'_>> {
        self.router.queued_by_peer()
    }

    /// Forgets who takes a topic, in the store too; returns how many there were. What is queued for them stays queued, and they are
    /// known again as soon as they say anew what they take. See [`Router::clear_topic_rows`].
    pub fn clear_topic_rows(&mut self, topic: &str) -> usize {
        self.dirty = true;
        self.router.clear_topic_rows(self.clock.now(), topic)
    }

    /// What the acknowledgements of the node `name` stand for; nothing if it has never been connected.
    pub fn acks_of(&self, name: &str) -> Option<Acks> {
        self.router.acks_of(name)
    }

    /// The last number of this node's stream to the node `name` that it has acknowledged; 0 if there is none.
    pub fn acked_by(&self, name: &str) -> u64 {
        self.router.acked_by(name)
    }

    /// Whether the node `name` is connected and takes messages of the topic: it hands them on, or has subscribed to it itself.
    pub fn is_taken_by(&self, topic: &str, name: &str) -> bool {
        self.router.is_taken_by(topic, name)
    }

    /// What a stored message survives.
    pub fn store_class(&self) -> Class {
        self.router.config().class
    }

    /// Whether the store is away: it cannot be reached, or does not answer. [`Event::StoreFailed`] has told so, and
    /// [`Event::StoreRecovered`] tells that it is back; nothing else has to be done for that than to drive the node. Peers stay connected,
    /// and keep what is for this node.
    pub const fn is_store_away(&self) -> bool {
        self.router.is_store_away()
    }

    /// Why nothing is taken that has to be stored, if nothing is: the store is away, or it has no room.
    pub const fn store_refusal(&self) -> Option<SendError> {
        self.router.store_refusal()
    }

    /// The store's own words about its latest fault.
    pub fn store_error(&self) -> Option<String> {
        self.stores.said().map(str::to_owned)
    }

    /// Wakes a [`drive`](Self::drive) that waits, from any thread: it returns although nothing else happened.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Ends the node in good order: listens no more, tells every peer, and lets the store finish, for `patience` at most.
    /// Messages that are not acknowledged stay in the store. Only [`poll_event`](Self::poll_event) and the getters are of
    /// use afterwards.
    ///
    /// # Errors
    /// See [`StopError`]. A peer that could not be told in time is no error.
    pub fn stop(&mut self, patience: Duration, handler: &mut dyn Handler) -> Result<(), StopError> {
        let until = self.clock.now() + patience;
        self.close_listeners();
        self.end_lines();
        self.router.close(self.clock.now());
        self.dirty = true;
        loop {
            let left = until.since(self.clock.now());
            let waited = self.drive(Some(left), handler);
            let done = self.links.up() == 0 && self.is_stored();
            if done || left.is_zero() || waited.is_err() {
                waited?;
                break;
            }
        }
        if self.is_stored() {
            return Ok(());
        }
        Err(StopError::NotStored { said: self.store_error() })
    }
}

impl AsFd for Node {
    /// Readable when [`drive`](Node::drive) has something to do because of a socket or another thread.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl Source for Node {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> std::io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> std::io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> std::io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).deregister(registry)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.router.config().name)
            .field("listen_addrs", &self.listen_addrs)
            .field("connections", &self.links.up())
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}
