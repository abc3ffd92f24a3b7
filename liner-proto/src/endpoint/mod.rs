//! A session and a delivery for one peer: what a device speaks to its gateway with.
//!
//! It allocates nothing, performs no I/O and reads no clock. Frames are COBS with a zero behind each, one message to a frame, or
//! a piece of one; the line may lose and damage them.
//!
//! # How it is driven
//! * **inputs** `handle_*`: the link came, went, or brought bytes; time passed; the store has answered;
//! * **commands** [`send`](Endpoint::send), [`close`](Endpoint::close);
//! * **outputs** `poll_*`, one for each sink: [`poll_transmit`](Endpoint::poll_transmit),
//!   [`poll_event`](Endpoint::poll_event), [`poll_timeout`](Endpoint::poll_timeout), and for a device with a store
//!   [`poll_store`](StoredEndpoint::poll_store) and [`poll_load`](StoredEndpoint::poll_load);
//! * **getters**: the rest.
//!
//! **The drain rule**: after every input or command, drain every `poll_*` until it is empty or its sink is full.
//! [`pump`](crate::pump) does that.
//!
//! # Where messages are kept
//! [`Endpoint`] keeps them in itself, in [`Ram`], and that is all: a reset forgets them. [`StoredEndpoint`] keeps them in a
//! [`Store`](crate::store::Store), for instance in flash. Everything else is the same.

mod carried;
mod input;
mod output;
mod peer;
mod queue;
mod ram;
mod stored;
mod topics;

pub use queue::Queue;
pub use ram::Ram;
pub use stored::{Step, Stored};

pub use crate::session::dial::DeviceTiming;
pub use crate::wire::device::Sender;
pub use crate::wire::text::Text;

use crate::config::{Limits, LineConfig};
use crate::effect::GapReason;
use crate::id::{Class, Epoch};
use crate::line::LineStats;
use crate::logging::warn;
use crate::planted::Planted;
use crate::rng::Rng;
use crate::session::dial::{Dial, Pace};
use crate::time::{Instant, Moment, Tick};
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::control::CloseReason;
use crate::wire::handshake::Acks;
use crate::wire::record::Topic;
use crate::wire::varint::varint_len;
use peer::Peer;
use queue::Own;
use topics::TopicSet;

/// The longest name of a device, and of its gateway.
pub const NAME_BYTES_MAX: usize = 32;

/// What a device is told when it is built. All text lives as long as the endpoint: on a device it is `'static`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceConfig<'a> {
    /// The device's name, 1 to 32 bytes: also its mailbox.
    pub name: &'a str,
    /// The topics it sends to, each 1 to 64 bytes. With a store that survives a reset, add new ones at the end only: stored
    /// messages name them by their place.
    pub topics: &'a [&'a str],
    /// Which start of it this is, and where its epochs, nonces and jitter come from. Random, from a hardware source; if there
    /// is none, take an [`AssignedEndpoint`].
    pub seed: [u64; 2],
    /// The class of its store.
    pub class: Class,
    /// Messages that it lets the gateway send ahead.
    pub window: u8,
    /// The line to its gateway.
    pub line: LineConfig,
    /// When it loses patience.
    pub timing: DeviceTiming,
    /// Whether the gateway's acknowledgements are taken although they stand for less than the device's class.
    pub accept_weak_acks: bool,
    /// A wrong behaviour to show.
    pub planted: Planted,
}

impl<'a> DeviceConfig<'a> {
    /// A device with the documented defaults and a store in memory.
    pub const fn new(name: &'a str, topics: &'a [&'a str], seed: [u64; 2]) -> Self {
        let planted = Planted::NONE;
        Self {
            name,
            topics,
            seed,
            class: Class::Ram,
            window: 4,
            line: LineConfig { baud: None, half_duplex: false },
            timing: DeviceTiming::DEFAULT,
            accept_weak_acks: false,
            planted,
        }
    }
}

/// One of the topics of a [`DeviceConfig`], by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TopicIndex(pub u16);

/// Why a message was not taken. Nothing of it was kept: the caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SendError {
    /// There is no room before something was stored or acknowledged.
    #[error("the queue is full: try again after the gateway has acknowledged something")]
    Full,
    /// It can never fit a frame or the memory of the endpoint, or it is longer than the gateway takes.
    #[error("the message is too large for the endpoint's buffers, or for the gateway")]
    TooLarge,
    /// Nobody has subscribed to the topic, and the gateway keeps no more of it: see [`Event::TopicFull`].
    #[error(
        "nobody has subscribed to the topic, and the gateway keeps no more of it: try again once somebody has"
    )]
    TopicFull,
    /// The configuration names no such topic.
    #[error("there is no topic with this index in the configuration")]
    NoSuchTopic,
    /// The store failed for another reason than being full.
    #[error("the store failed")]
    Store,
}

/// What a device wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event<'a> {
    /// The session is up.
    Connected {
        /// Whether the gateway remembered this device's stream.
        resumed: bool,
    },
    /// The session is over. On a link that stays, call [`Endpoint::handle_link_up`] to begin another as soon as
    /// [`Endpoint::wants_link`].
    Disconnected(CloseReason),
    /// A message. It counts as processed at the next call of any kind.
    Message {
        /// The topic it was sent to.
        topic: Text<'a>,
        /// What was sent.
        payload: &'a [u8],
        /// Who sent it first; nothing if that was the gateway itself.
        origin: Option<Sender<'a>>,
        /// Whether it may have been handed over before.
        maybe_redelivered: bool,
    },
    /// Messages of the gateway that will never come.
    Gap {
        /// How many.
        count: u64,
        /// Why.
        reason: GapReason,
    },
    /// The oldest queued message is longer than the gateway takes, and nothing is sent before it: drop it with
    /// [`Endpoint::drop_oldest`], or wait for a gateway that takes it. Told of each
    /// message once in a session.
    TooLarge,
    /// Nobody has subscribed to the topic, and the gateway keeps no more of it: sends to it fail until
    /// [`TopicFree`](Self::TopicFree). What is queued waits, as long as all of it is to full topics. A message to another topic does
    /// not wait: what stands before it is sent, and the gateway puts it aside. Topics from the 32nd of the configuration
    /// on are never full here.
    TopicFull {
        /// Which.
        topic: TopicIndex,
    },
    /// A topic that was full takes messages again, or the session in which it was full is over.
    TopicFree {
        /// Which.
        topic: TopicIndex,
    },
    /// The queue had gone backwards: it has a new epoch.
    Regressed,
    /// The gateway's acknowledgements stand for less than the device's class: what is queued stays here.
    WeakAcks(Acks),
}

/// A device's end of a line to its gateway.
///
/// `QUEUE` bytes hold what is queued: every message that is not acknowledged, or with a store ([`StoredEndpoint`]) those that are
/// being stored and sent, at least two of the largest. `FRAME` bytes hold one frame on its way in, at least 194. Everything
/// lives in here, so that a `static` of it is all the memory there is.
///
/// With `MESSAGE` above `FRAME` messages may be longer than a frame, in both directions: they travel in pieces. One of up to `MESSAGE`
/// bytes, with its record's head and 8 more, is put together here.
// What is small stands in front: a processor reaches it with short instructions, whatever the sizes of the buffers are.
#[repr(C)]
#[derive(Debug)]
pub struct Endpoint<
    'a,
    const QUEUE: usize,
    const FRAME: usize,
    const MESSAGE: usize = 0,
    Q: Queue = Ram<QUEUE>,
> {
    now: Tick,
    /// When that was, as the caller's clock says.
    clock: Instant,
    /// When the next handshake is to begin on a link that stays.
    redial: Option<Tick>,
    /// Since when no session has lasted, and whether that is long.
    down_since: Tick,
    is_down_long: bool,
    rng: Rng,
    /// Which start of the device this is.
    instance: u64,
    inbox: Epoch,
    session: Dial,
    /// The gateway: that of the session before as long as there is no other.
    peer: Peer,
    /// Topics of what was queued since the queue was last empty.
    queued: TopicSet,
    notice: input::Notices,
    takes: Takes,
    pace: Pace,
    name: &'a str,
    topics: &'a [&'a str],
    rx_len: usize,
    /// A frame has brought a message that nobody has taken yet.
    held: Option<input::Held>,
    /// What stands in `rx` is the rest of something too long: it is dropped to the next zero.
    rx_lost: bool,
    /// There is a random source, or the gateway has given what there is none of.
    is_seeded: bool,
    class: Class,
    accept_weak_acks: bool,
    own_window: u8,
    queue: Q,
    rx: [u8; FRAME],
    message: [u8; MESSAGE],
}

/// The endpoint of a device with a store: what it acknowledges to its caller survives what the store survives.
///
/// Tell it what the store remembers with [`restore`](Self::restore) before its first input.
pub type StoredEndpoint<'a, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize = 0> =
    Endpoint<'a, QUEUE, FRAME, MESSAGE, Stored<QUEUE>>;

/// The endpoint of a device that is lent the memory of its queue: see [`with_memory`](Self::with_memory). With `ASSIGNED` it is an
/// [`AssignedEndpoint`] besides.
pub type LentEndpoint<
    'a,
    const QUEUE: usize,
    const FRAME: usize,
    const MESSAGE: usize = 0,
    const ASSIGNED: bool = false,
> = Endpoint<'a, QUEUE, FRAME, MESSAGE, Ram<QUEUE, ASSIGNED, &'a mut [u8; QUEUE]>>;

/// The endpoint of a device with neither a random source nor a store: its seed may be the same at every start, and its gateway makes
/// the epochs. What it queues before its first session after a start is new by definition.
pub type AssignedEndpoint<'a, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize = 0> =
    Endpoint<'a, QUEUE, FRAME, MESSAGE, Ram<QUEUE, true>>;

/// What the gateway takes, as it said last.
#[derive(Clone, Copy, Debug)]
struct Takes {
    /// The longest record, as it is sent.
    record_max: usize,
    /// The longest frame that may be sent.
    frame_max: usize,
    /// Topic numbers that it keeps; other topics are written out.
    bindings_max: usize,
}

impl Takes {
    /// A record's topic as it is sent.
    fn topic<'t>(&self, topics: &[&'t str], place: u16) -> Topic<'t> {
        match topics.get(usize::from(place)) {
            Some(text) if usize::from(place) >= self.bindings_max => Topic::Text(text),
            _ => Topic::Number(u32::from(place) + 1),
        }
    }
}

/// The bytes of a message's record, as it is sent.
fn record_len(topic: Topic<'_>, payload: &[u8]) -> usize {
    let (number, text) = match topic {
        Topic::Number(number) => (number as usize, ""),
        Topic::Text(text) => (text.len(), text),
    };
    1 + varint_len(number as u64) + text.len() + payload.len()
}

/// Bytes of a frame that are not its record.
const HEAD_MAX: usize = crate::wire::data::HEAD_LEN_MAX + crate::seal::LEN;

impl<'a, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, Q: Queue>
    Endpoint<'a, QUEUE, FRAME, MESSAGE, Q>
{
    /// The longest record that can be sent: in one frame, or in pieces.
    const RECORD_MAX: usize = if Self::IN_PIECES { MESSAGE } else { FRAME - HEAD_MAX };

    /// Whether a message may be longer than a frame.
    const IN_PIECES: bool = MESSAGE > FRAME;

    /// An endpoint that knows of nothing before it.
    pub fn new(config: DeviceConfig<'a>, now: Instant) -> Self
    where
        Q::Memory: Own,
    {
        Self::with_memory(config, Own::own(), now)
    }

    /// The same, that keeps its messages in memory which it is lent. A compiler may well put together on the stack what is
    /// to stand in a `static`; of this endpoint the queue's bytes are no part.
    ///
    /// ```
    /// use liner_proto::endpoint::{DeviceConfig, LentEndpoint};
    /// use liner_proto::time::Instant;
    ///
    /// // In a firmware, a `static`.
    /// let mut memory = [0; 16 * 1024];
    /// let config = DeviceConfig::new("press-4", &["readings"], [1, 2]);
    /// let device = LentEndpoint::<{ 16 * 1024 }, 256>::with_memory(config, &mut memory, Instant::ZERO);
    /// assert_eq!(device.queued(), 0);
    /// ```
    pub fn with_memory(config: DeviceConfig<'a>, memory: Q::Memory, now: Instant) -> Self {
        const { assert!(Self::FRAME_MAX >= crate::wire::FRAME_MIN, "the handshake needs frames of 192 bytes") };
        let mut rng = Rng::new(config.seed);
        let mut epoch = || if Q::ASSIGNED { Epoch::NONE } else { Epoch(rng.next_nonzero()) };
        let (epoch, inbox) = (epoch(), epoch());
        let instance = rng.next_nonzero();
        let mut session = Dial::begin(Tick::ZERO, 0);
        session.forget();
        let planted = config.planted;
        Self {
            name: config.name,
            topics: config.topics,
            class: config.class,
            accept_weak_acks: config.accept_weak_acks,
            own_window: config.window,
            pace: Pace { line: config.line, planted, timing: config.timing },
            rng,
            now: Tick::ZERO,
            clock: now,
            session,
            down_since: Tick::ZERO,
            is_down_long: false,
            redial: None,
            peer: Peer::new(Tick::ZERO, config.line, planted, 0, 0, 0),
            // As long as it has said nothing, what this side can send.
            takes: Takes { record_max: Self::RECORD_MAX, frame_max: FRAME, bindings_max: usize::MAX },
            instance,
            is_seeded: !Q::ASSIGNED,
            inbox,
            queue: Q::new(memory, epoch, &Self::limits(config.window), planted),
            queued: TopicSet::EMPTY,
            rx: [0; FRAME],
            rx_len: 0,
            rx_lost: false,
            message: [0; MESSAGE],
            held: None,
            notice: input::Notices::default(),
        }
    }

    // ------------------------------------------------------------------ commands

    /// Queues a message for the gateway. Without a store that is all; with one, it leaves after it was stored:
    /// [`pump::send`](crate::pump::send) does both.
    ///
    /// Returns the message's number in the stream.
    ///
    /// # Errors
    /// If it was not taken.
    pub fn send(&mut self, now: Instant, topic: TopicIndex, payload: &[u8]) -> Result<u64, SendError> {
        let TopicIndex(place) = topic;
        if usize::from(place) >= self.topics.len() {
            return Err(SendError::NoSuchTopic);
        }
        if record_len(self.takes.topic(self.topics, place), payload) > self.takes.record_max {
            let (len, most) = (payload.len(), self.takes.record_max);
            warn!("a message of {} bytes is too large: a record has at most {} bytes here", len, most);
            return Err(SendError::TooLarge);
        }
        if self.full().contains(place.into()) {
            return Err(SendError::TopicFull);
        }
        if self.queued() == 0 {
            self.queued = TopicSet::EMPTY;
        }
        // Its own clock goes on only where it deals with what is due: who queues between sleeps may sleep for days.
        let number = self.queue.push(self.clock.max(now), place, payload)?;
        self.queued.insert(place.into());
        Ok(number)
    }

    /// Drops the oldest queued message, and tells the gateway of a gap in its place. Says whether there was one.
    #[cfg_attr(target_os = "none", inline(never))]
    pub fn drop_oldest(&mut self) -> bool {
        let was_there = self.queue.drop_oldest();
        if was_there {
            warn!("the oldest message was dropped");
        }
        was_there
    }

    /// Ends the session. What is queued stays.
    pub fn close(&mut self, now: Instant) {
        self.tick(now);
        self.end(CloseReason::Shutdown);
    }

    // ------------------------------------------------------------------ getters

    /// Whether there is a link on which a session is up, begins or ends: not so before the first
    /// [`handle_link_up`](Self::handle_link_up), and after [`Event::Disconnected`].
    pub const fn has_link(&self) -> bool {
        self.session.has_link()
    }

    /// Whether a handshake is to begin on a link that stays: at once on a new one; after a session that has ended, or was
    /// refused, when a pause is over: of up to 0.1 s, then of up to 0.25 s, and of up to 1 s when no
    /// session has lasted for a minute.
    /// [`poll_timeout`](Self::poll_timeout) tells when that is.
    pub fn wants_link(&self, now: Instant) -> bool {
        self.wants_link_at(self.tick_at(now))
    }

    fn wants_link_at(&self, now: Tick) -> bool {
        // No pause is so long: what seems to be further away was due long ago.
        !self.has_link() && self.redial.is_none_or(|at| at == now || now.is_ago(input::PAUSE_LONG + 64, at))
    }

    /// Time has passed: as [`handle_timeout`](Self::handle_timeout), then [`handle_link_up`](Self::handle_link_up) if it is time
    /// for that.
    pub(crate) fn handle_turn(&mut self, now: Instant) {
        self.handle_timeout(now);
        if self.wants_link_at(self.now) {
            self.handle_link_up(now);
        }
    }

    /// Whether messages may pass.
    pub const fn is_up(&self) -> bool {
        self.session.is_up()
    }

    /// Topics of which the gateway keeps no more.
    const fn full(&self) -> TopicSet {
        self.peer.full
    }

    /// Messages that are queued and not acknowledged.
    pub fn queued(&self) -> u64 {
        self.queue.next() - 1 - self.queue.acked()
    }

    /// The last number that the gateway has committed.
    pub fn acked(&self) -> u64 {
        self.queue.acked()
    }

    /// The epoch of its stream; none as long as the gateway is to make one.
    pub fn epoch(&self) -> Epoch {
        self.queue.stream().epoch
    }

    /// What has happened on the line since the last session began.
    pub fn line_stats(&self) -> LineStats {
        self.peer.sending.stats()
    }

    // ------------------------------------------------------------------ time

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, or when [`wants_link`](Self::wants_link), and why.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline().map(|(at, why)| (at.instant(self.now, self.clock), why))
    }

    fn deadline(&self) -> Option<Deadline<Tick>> {
        if !self.has_link() {
            let at = |at| if self.wants_link_at(self.now) { self.now } else { at };
            return self.redial.map(|redial| (at(redial), Wakeup::Dial));
        }
        let session = self.session.deadline(!self.has_turn(), &self.pace);
        if !self.is_up() {
            return session;
        }
        let soonest = earlier(session, self.peer.deadline(self.now, &self.queue));
        let Some(ready) = self.peer.sending.ready_at(self.now) else { return soonest };
        // What is due already leaves as soon as the line takes it.
        earlier(soonest.filter(|(at, _)| !at.is_past(self.now)), Some((ready, Wakeup::Line)))
    }

    /// Whether this side may send what nobody waits for.
    const fn has_turn(&self) -> bool {
        !self.pace.line.half_duplex || self.peer.sending.in_flight() == 0
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        let was_up = self.is_up();
        self.session.handle_timeout(self.now, &self.pace);
        if self.session.is_ending() {
            self.notice.reason.get_or_insert(CloseReason::Timeout);
        } else if was_up && self.peer.handle_timeout(self.now, &self.queue, &mut self.rng) {
            self.session.probe();
        }
    }

    #[cfg_attr(target_os = "none", inline(never))]
    fn tick(&mut self, now: Instant) {
        self.now = self.tick_at(now);
        self.clock = self.clock.max(now);
    }

    /// What the device's clock shows then. A longer sleep than can be told from a shorter one is cut short: all is due after it.
    fn tick_at(&self, now: Instant) -> Tick {
        self.now.plus(Tick::units_between(self.clock, now))
    }

    const fn limits(window: u8) -> Limits {
        // With the longest head it has to fit one frame, or the memory for pieces.
        let in_pieces = MESSAGE.saturating_sub(crate::wire::data::HEAD_LEN_MAX);
        let message_max = if Self::IN_PIECES { in_pieces } else { Self::FRAME_MAX - HEAD_MAX } as u32;
        Limits {
            frame_max: Self::FRAME_MAX as u32,
            message_max,
            window_messages: window as u32,
            // The window is counted in frames here.
            window_bytes: (window as u32).saturating_mul(message_max),
            bindings_max: 0,
        }
    }
}
