//! A session and a delivery for one peer: what a device speaks to its gateway with.
//!
//! It allocates nothing, performs no I/O and reads no clock. Frames are COBS with a zero behind each, one message to a frame, or
//! a piece of one; the line may lose and damage them.
//!
//! # How it is driven
//! * **inputs** `handle_*`: the link came, went, or brought bytes; time passed; the store has answered;
//! * **commands** [`send`](Endpoint::send), [`close`](Endpoint::close);
//! * **outputs** `poll_*`, one for each sink: [`poll_transmit`](Endpoint::poll_transmit), [`poll_store`](Endpoint::poll_store)
//!   and [`poll_load`](Endpoint::poll_load), [`poll_event`](Endpoint::poll_event), [`poll_timeout`](Endpoint::poll_timeout);
//! * **getters**: the rest.
//!
//! **The drain rule**: after every input or command, drain every `poll_*` until it is empty or its sink is full.
//! [`pump`](crate::pump) does that for a store that answers at once.

mod input;
mod output;
mod peer;
mod storage;
mod topics;

pub use storage::Step;

use crate::config::{Limits, LineConfig, Timing};
use crate::delivery::{Inbound, Outbound, PushError, SendMode};
use crate::effect::{GapReason, Recovered};
use crate::id::{Class, Epoch};
use crate::line::LineStats;
use crate::memory::Region;
use crate::planted::Planted;
use crate::rng::Rng;
use crate::session::Session;
use crate::time::Instant;
use crate::timer::{BackOff, Deadline, Wakeup, earlier};
use crate::wire::control::CloseReason;
use crate::wire::handshake::{About, Acks};
use crate::wire::record::{self, Header, Mode, Origin, Topic};
use peer::Peer;
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
    /// Which start of it this is, and where its epochs, nonces and jitter come from. Random, from a hardware source.
    pub seed: [u64; 2],
    /// The class of its store.
    pub class: Class,
    /// Messages that it lets the gateway send ahead.
    pub window: u8,
    /// The line to its gateway.
    pub line: LineConfig,
    /// There is no random source: `seed` may be the same at every start, and the gateway makes the epochs. Only with a store in
    /// memory.
    pub without_epochs: bool,
    /// When it loses patience.
    pub timing: Timing,
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
            without_epochs: false,
            timing: Timing::DEFAULT,
            accept_weak_acks: false,
            planted,
        }
    }
}

/// One of the topics of a [`DeviceConfig`], by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicIndex(pub u16);

/// Why a message was not taken. Nothing of it was kept: the caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
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
        topic: &'a str,
        /// What was sent.
        payload: &'a [u8],
        /// Who sent it first; nothing if that was the gateway itself.
        origin: Option<Origin<'a>>,
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
    /// not wait: what stands before it is sent, and the gateway puts it aside. Topics from the 64th of the configuration
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
/// `QUEUE` bytes hold what is being stored and sent, at least two of the largest messages; what is above them waits in the
/// store. `FRAME` bytes hold one frame on its way in, at least 194. Everything lives in here, so that a `static` of
/// it is all the memory there is.
///
/// With `MESSAGE` above 0 messages may be longer than a frame, in both directions: they travel in pieces. One of up to `MESSAGE`
/// bytes, with its record's head, is put together here.
#[derive(Debug)]
pub struct Endpoint<'a, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize = 0> {
    config: DeviceConfig<'a>,
    rng: Rng,
    now: Instant,
    session: Option<Session>,
    back_off: BackOff,
    /// When the next handshake is to begin on a link that stays.
    redial: Option<Instant>,
    peer: Option<Peer>,
    /// Counts of the session that is over, or has not begun.
    stats: LineStats,
    takes: Takes,
    /// Which start of the device this is.
    instance: u64,
    inbox: Epoch,
    out: Outbound<Region<QUEUE>>,
    /// Topics of what was queued since the queue was last empty.
    queued: TopicSet,
    inbound: Inbound,
    storage: storage::State,
    rx: [u8; FRAME],
    rx_len: usize,
    /// What stands in `rx` is the rest of something too long: it is dropped to the next zero.
    rx_lost: bool,
    message: [u8; MESSAGE],
    /// When something was sent last.
    spoke: Instant,
    /// The frame at the front of `rx` carries a message that nobody has taken yet.
    held: Option<input::Held>,
    notice: input::Notices,
}

/// What the gateway takes, as it said last.
#[derive(Clone, Copy, Debug)]
struct Takes {
    /// The longest record, as it is sent.
    record_max: usize,
    /// The longest frame.
    frame_max: usize,
    /// Topic numbers that it keeps; other topics are written out.
    bindings_max: usize,
}

impl Takes {
    /// As long as it has said nothing, what this side can send.
    const fn unknown(record_max: usize) -> Self {
        Self { record_max, frame_max: usize::MAX, bindings_max: usize::MAX }
    }

    /// What the gateway says, and what this side can send.
    fn of(about: &About, most: usize, in_pieces: bool) -> Self {
        let frame_max = about.frame_max as usize;
        let in_frame = frame_max.saturating_sub(HEAD_MAX);
        let fits = if in_pieces { most } else { most.min(in_frame) };
        Self {
            record_max: fits.min(about.message_max as usize).max(record::GAP_LEN_MAX),
            frame_max,
            bindings_max: about.bindings_max as usize,
        }
    }

    /// A record's header as it is sent; `topics` are the texts of the numbers from 1.
    fn spelled<'h>(&self, header: &Header<'h>, topics: &[&'h str]) -> Header<'h> {
        let topic = match header.topic {
            Topic::Number(number) if number as usize > self.bindings_max => {
                let text = (number as usize).checked_sub(1).and_then(|index| topics.get(index));
                text.map_or(header.topic, |text| Topic::Text(text))
            }
            Topic::Number(_) | Topic::Text(_) => header.topic,
        };
        Header { topic, ..*header }
    }
}

/// Bytes of a frame that are not its record.
const HEAD_MAX: usize = crate::wire::data::HEAD_LEN_MAX + crate::seal::LEN;

impl<'a, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> Endpoint<'a, QUEUE, FRAME, MESSAGE> {
    /// The longest record that can be sent: in one frame, or in pieces.
    const RECORD_MAX: usize = if MESSAGE > FRAME { MESSAGE } else { FRAME - HEAD_MAX };

    /// An endpoint whose store knows nothing. Tell it what the store remembers with [`restore`](Self::restore), if it can.
    pub fn new(config: DeviceConfig<'a>, now: Instant) -> Self {
        const { assert!(Self::FRAME_MAX >= crate::wire::FRAME_MIN, "the handshake needs frames of 192 bytes") };
        let mut rng = Rng::new(config.seed);
        let mut epoch = || if config.without_epochs { Epoch::NONE } else { Epoch(rng.next_nonzero()) };
        let (epoch, inbox) = (epoch(), epoch());
        let instance = rng.next_nonzero();
        let limits = Self::limits(&config);
        Self {
            rng,
            now,
            session: None,
            back_off: BackOff::new(now),
            redial: None,
            peer: None,
            stats: LineStats::default(),
            takes: Takes::unknown(Self::RECORD_MAX),
            instance,
            inbox,
            out: Outbound::new(Region::new(), SendMode::Stored, epoch),
            queued: TopicSet::EMPTY,
            inbound: Inbound::new(&limits, config.planted),
            storage: storage::State::NEW,
            rx: [0; FRAME],
            rx_len: 0,
            rx_lost: false,
            message: [0; MESSAGE],
            spoke: Instant::ZERO,
            held: None,
            notice: input::Notices::default(),
            config,
        }
    }

    /// Takes one thing that the store remembers. Before the first input only.
    pub fn restore(&mut self, item: &Recovered<'_>) {
        match *item {
            Recovered::Node { inbox, regressed, .. } => {
                self.inbox = inbox;
                self.storage.inbox_stored = true;
                self.storage.regressed = regressed;
            }
            Recovered::Queue(queue) => {
                self.out = Outbound::restore(Region::new(), SendMode::Stored, &queue.remembered(), false);
                self.queued = TopicSet::first(self.config.topics.len());
                self.storage.opened = true;
                if self.storage.regressed {
                    self.rotate();
                }
            }
            Recovered::Cursor { epoch, through, .. } => self.inbound.restore(epoch, through, u64::MAX),
            Recovered::Topic { .. } | Recovered::Subscription { .. } => {}
        }
    }

    // ------------------------------------------------------------------ commands

    /// Queues a message for the gateway. It leaves after it was stored; [`pump::send`](crate::pump::send) does both.
    ///
    /// Returns the message's number in the stream.
    ///
    /// # Errors
    /// If it was not taken.
    pub fn send(&mut self, now: Instant, topic: TopicIndex, payload: &[u8]) -> Result<u64, SendError> {
        self.tick(now);
        let place = usize::from(topic.0);
        if place >= self.config.topics.len() {
            return Err(SendError::NoSuchTopic);
        }
        let header = Header::new(Mode::All, Topic::Number(u32::from(topic.0) + 1));
        let len = record::message_len(&header, payload.len());
        let spelled = self.takes.spelled(&header, self.config.topics);
        if record::message_len(&spelled, payload.len()) > self.takes.record_max {
            return Err(SendError::TooLarge);
        }
        if self.full().contains(place) {
            return Err(SendError::TopicFull);
        }
        let write = |room: &mut [u8]| {
            record::encode_message(&header, payload, room);
        };
        if self.out.queued() == 0 {
            self.queued = TopicSet::EMPTY;
        }
        let number = self.out.push(self.now, len, false, write).map_err(|error| match error {
            PushError::Full => SendError::Full,
            PushError::TooLarge => SendError::TooLarge,
        })?;
        self.queued.insert(place);
        Ok(number)
    }

    /// Takes back messages that were queued and are not stored. Returns how many.
    pub fn withdraw(&mut self) -> u64 {
        self.out.withdraw()
    }

    /// Drops the oldest queued message, and tells the gateway of a gap in its place. Says whether there was one.
    pub fn drop_oldest(&mut self) -> bool {
        self.out.drop_oldest(GapReason::Dropped)
    }

    /// Ends the session. What is queued stays.
    pub fn close(&mut self, now: Instant) {
        self.tick(now);
        if let Some(session) = &mut self.session {
            session.close(CloseReason::Shutdown);
        }
    }

    // ------------------------------------------------------------------ getters

    /// Whether there is a link on which a session is up, begins or ends: not so before the first
    /// [`handle_link_up`](Self::handle_link_up), and after [`Event::Disconnected`].
    pub const fn has_link(&self) -> bool {
        self.session.is_some()
    }

    /// Whether a handshake is to begin on a link that stays: at once on a new one; after a session that has ended, or was
    /// refused, when a pause is over, which grows from 0.1 s to 0.25 s, and to 1 s when there was no session for a minute.
    /// [`poll_timeout`](Self::poll_timeout) tells when that is.
    pub fn wants_link(&self, now: Instant) -> bool {
        self.session.is_none() && self.redial.is_none_or(|at| at <= now.max(self.now))
    }

    /// Whether messages may pass.
    pub fn is_up(&self) -> bool {
        self.peer.is_some() && self.session.as_ref().is_some_and(Session::is_up)
    }

    /// Topics of which the gateway keeps no more.
    fn full(&self) -> TopicSet {
        self.peer.as_ref().map_or(TopicSet::EMPTY, |peer| peer.full)
    }

    /// Messages that are queued and not acknowledged.
    pub const fn queued(&self) -> u64 {
        self.out.queued()
    }

    /// The last number that the gateway has committed.
    pub const fn acked(&self) -> u64 {
        self.out.acked()
    }

    /// What has happened on the line in this session, or in the last one.
    pub fn line_stats(&self) -> LineStats {
        self.peer.as_ref().map_or(self.stats, Peer::stats)
    }

    // ------------------------------------------------------------------ time

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, or when [`wants_link`](Self::wants_link), and why.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let redial = self.redial.map(|at| (at, Wakeup::Dial));
        let peer = self.peer.as_ref();
        let has_turn = !self.config.line.half_duplex || peer.is_none_or(|peer| peer.sending.in_flight() == 0);
        let session = self.session.as_ref().map_or(redial, |session| session.deadline(!has_turn));
        let own = peer.filter(|_| self.is_up()).and_then(|peer| peer.deadline(self.now, &self.out));
        // As long as the line is busy nothing is sent, whatever is due.
        let ready = peer.map(|peer| peer.sending.ready_at()).filter(|at| *at > self.now);
        earlier(session, own).map(|(at, why)| (ready.map_or(at, |ready| at.max(ready)), why))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        let is_up = self.is_up();
        let Some(session) = &mut self.session else { return };
        session.handle_timeout(self.now);
        if session.is_ending() {
            self.notice.reason.get_or_insert(CloseReason::Timeout);
        } else if is_up
            && let Some(peer) = &mut self.peer
            && peer.handle_timeout(self.now, &self.out, &mut self.rng)
        {
            session.probe();
        }
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn rotate(&mut self) {
        let epoch = Epoch(self.rng.next_nonzero());
        let predecessor = self.out.rotate(epoch);
        self.storage.rotation = Some((epoch, predecessor));
        self.notice.regressed = true;
    }

    fn limits(config: &DeviceConfig<'_>) -> Limits {
        let message_max = if MESSAGE > FRAME { MESSAGE } else { FRAME - HEAD_MAX } as u32;
        Limits {
            frame_max: Self::FRAME_MAX as u32,
            message_max,
            window_messages: u32::from(config.window),
            // The window is counted in frames here.
            window_bytes: u32::from(config.window).saturating_mul(message_max),
            bindings_max: 0,
        }
    }
}
