//! What arrives on the line.

use super::peer::Peer;
use super::queue::Queue;
use super::topics::TopicSet;
use super::{Endpoint, Event, HEAD_MAX, Takes, Text};
use crate::delivery::{Arrival, Resumed, Violation};
use crate::effect::GapReason;
use crate::frame::cobs;
use crate::line::Piece;
use crate::logging::{debug, info, trace, warn};
use crate::seal;
use crate::session::dial::{Dial, Pace};
use crate::time::{Instant, Moment};
use crate::wire::control::{Ack, Begin, CloseReason, Fragment, NUMBERED_HEAD};
use crate::wire::device::{self, Answer, Message, TopicFull};
use crate::wire::handshake::{Acks, Assigned};
use crate::wire::record::GAP_LEN_MAX;
use crate::wire::{Reader, tag};

/// The longest pauses between two handshakes in microseconds: after a session that lasted, the next ones, and those after [`LONG`]
/// without such a session.
const PAUSE_FIRST: u32 = 100_000;
const PAUSE: u32 = 250_000;
pub(super) const PAUSE_LONG: u32 = 1_000_000;
const LONG: u32 = 60_000_000;

/// A message that nobody has taken yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Where its body ends: in the receive buffer, behind the seal; or in the buffer for messages in pieces.
    end: usize,
    in_pieces: bool,
    /// Not so if it is a best-effort message.
    pub(super) numbered: bool,
    maybe_redelivered: bool,
}

/// Events that are derived from what happened since they were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notices {
    connected: Option<bool>,
    pub(super) reason: Option<CloseReason>,
    gap: Option<(u64, GapReason)>,
    weak: Option<Acks>,
    pub(super) regressed: bool,
    pub(super) too_large: bool,
    /// Topics that were said to be full.
    full: TopicSet,
}

impl Notices {
    /// Gaps that nobody has asked for yet are told as one, with the latest reason: none of them goes uncounted.
    #[cfg_attr(target_os = "none", inline(never))]
    fn add_gap(&mut self, count: u64, reason: GapReason) {
        warn!("a gap: {} messages of the gateway will never come: {:?}", count, reason);
        let before = self.gap.map_or(0, |(count, _)| count);
        self.gap = Some((before.saturating_add(count), reason));
    }
}

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, Q: Queue>
    Endpoint<'_, QUEUE, FRAME, MESSAGE, Q>
{
    /// There is a link, or a new one: the handshake begins.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.tick(now);
        self.forget_session();
        self.session = Dial::begin(self.now, self.rng.next_nonzero());
        debug!("link up");
    }

    /// The link is gone.
    pub fn handle_link_down(&mut self, now: Instant) {
        debug!("link down");
        self.tick(now);
        if self.has_link() {
            self.notice.reason.get_or_insert(CloseReason::LinkLost);
        }
        self.forget_session();
    }

    /// Forgets the session, and what has arrived in it. A message that nobody has taken was not received.
    fn forget_session(&mut self) {
        self.session.forget();
        self.redial = None;
        self.peer.full = TopicSet::EMPTY;
        self.drop_received();
        self.queue.handle_link_down();
    }

    fn drop_received(&mut self) {
        self.rx_len = 0;
        self.rx_lost = false;
        if self.held.take().is_some_and(|held| held.numbered) {
            self.queue.handle_dropped();
        }
    }

    /// Bytes have arrived. Returns how many were taken; fewer than given means: poll an event, then give the rest.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize {
        self.tick(now);
        let mut taken = 0;
        for &byte in bytes {
            if !self.has_link() {
                return bytes.len();
            }
            if self.held.is_some() {
                break;
            }
            taken += 1;
            if byte == 0 {
                self.take_frame();
            } else if let Some(place) = self.rx.get_mut(self.rx_len) {
                *place = byte;
                self.rx_len += 1;
            } else {
                // Longer than any frame that may be sent here: a zero was lost, or noise has come.
                self.rx_lost = true;
            }
        }
        taken
    }

    /// A zero has come: what stands before it is a frame, or nothing.
    #[cfg_attr(target_os = "none", inline(never))]
    fn take_frame(&mut self) {
        let (len, lost) = (core::mem::take(&mut self.rx_len), core::mem::take(&mut self.rx_lost));
        if len == 0 {
            return;
        }
        match cobs::decode_in_place(self.rx.get_mut(..len).unwrap_or_default()) {
            Some(len) if !lost => {
                if let Err(reason) = self.handle_frame(len) {
                    self.end(reason);
                }
            }
            _ => {
                debug!("a frame was dropped: it is damaged or too long");
                count(&mut self.peer.sending.counts_mut().resyncs);
            }
        }
    }

    /// Ends the session for a reason of this side.
    pub(super) fn end(&mut self, reason: CloseReason) {
        self.drop_received();
        if self.has_link() {
            debug!("this side ends the session: {:?}", reason);
            self.notice.reason.get_or_insert(reason);
            self.session.close(reason);
        }
    }

    fn handle_frame(&mut self, end: usize) -> Result<(), CloseReason> {
        let now = self.now;
        let frame = self.rx.get(..end).unwrap_or_default();
        let Some(plain) = self.session.open(frame, &self.pace) else {
            debug!("a frame of {} bytes was dropped: its seal is broken, or of another session", end);
            count(&mut self.peer.sending.counts_mut().seal_errors);
            return Ok(());
        };
        let mut reader = read_from(&self.rx, seal::LEN, end);
        let tag = reader.byte();
        if tag == tag::GREET {
            self.session.handle_greeting(now, plain, &self.pace);
            return Ok(());
        }
        if tag == tag::ANSWER {
            let answer = Answer::read(&mut reader);
            // Anyone can seal for no session.
            let is_good = reader.done(()).is_ok();
            if !is_good || !self.session.handle_answer(now, &answer, plain, &self.pace)? {
                return Ok(());
            }
            return self.handle_answer(&answer);
        }
        if !self.session.hear(now, tag, plain) {
            return Ok(());
        }
        count(&mut self.peer.sending.counts_mut().frames_received);
        self.handle_body(end)
    }

    /// What a frame of the session says, as it stands in the buffer.
    fn handle_body(&mut self, end: usize) -> Result<(), CloseReason> {
        let now = self.now;
        let mut reader = read_from(&self.rx, seal::LEN, end);
        let tag = reader.byte();
        trace!("a frame of {} bytes has come, with the tag {:#x}", end, tag);
        match tag {
            tag::CLOSE => {
                debug!("the gateway ends the session");
                self.notice.reason.get_or_insert(reader.byte().into());
                self.session.handle_close();
            }
            tag::ACK => {
                let ack = Ack::read(&mut reader);
                accept(&reader)?;
                self.handle_ack(&ack)?;
            }
            tag::PROBE | tag::ECHO => {
                let number = reader.varint();
                accept(&reader)?;
                if tag == tag::ECHO {
                    return self.session.handle_echo(number);
                }
                self.session.handle_probe(number);
                // An acknowledgement goes with the answer.
                self.peer.receiving.ask(now);
            }
            tag::DATA_FIRST..=tag::DATA_LAST => {
                let frame = reader.fixed16();
                let is_numbered = !device::is_best_effort(tag);
                let held = Held { end, in_pieces: false, numbered: false, maybe_redelivered: false };
                if !is_numbered {
                    self.held = Some(held);
                } else if self.peer.receiving.take(now, frame) {
                    let message = Message::read(tag, &mut reader);
                    accept(&reader)?;
                    self.take_record(message.gap, device::is_sent_before(tag), held)?;
                }
            }
            tag::NUMBERED => {
                let frame = reader.fixed16();
                accept(&reader)?;
                if self.peer.receiving.take(now, frame) {
                    return self.handle_numbered(end);
                }
            }
            _ => {
                reader.skip(tag);
                accept(&reader)?;
            }
        }
        Ok(())
    }

    /// What a numbered frame says that comes in its place.
    fn handle_numbered(&mut self, end: usize) -> Result<(), CloseReason> {
        let mut reader = read_from(&self.rx, seal::LEN + NUMBERED_HEAD, end);
        let tag = reader.byte();
        match tag {
            tag::BEGIN => {
                let begin = Begin::read(&mut reader);
                self.peer.assembly.drop_begun();
                self.peer.expected = begin.number;
            }
            tag::TOPIC_FULL => {
                let full = TopicFull::read(&mut reader);
                self.peer.handle_topic_full(self.topics, &full);
            }
            tag::FRAGMENT if Self::IN_PIECES => {
                let Fragment { left, bytes } = Fragment::read(&mut reader);
                let len = bytes.len();
                accept(&reader)?;
                return self.handle_fragment(left, len, end);
            }
            // A device keeps no directory, and topics come as text.
            tag::BIND | tag::PAGE => {}
            _ => reader.skip(tag),
        }
        accept(&reader)
    }

    /// A piece of a record, of `len` bytes up to `end` in the frame.
    fn handle_fragment(&mut self, left: u32, len: usize, end: usize) -> Result<(), CloseReason> {
        let piece = self.peer.assembly.handle(left, len, MESSAGE).ok_or(CloseReason::Violation)?;
        let nobody = Held { end: 0, in_pieces: true, numbered: false, maybe_redelivered: false };
        let (at, whole) = match piece {
            Piece::GivenUp | Piece::Skipped => return Ok(()),
            // Its sender dropped it when all of it but a lost piece was on its way.
            Piece::LastSkipped => return self.take_record(Some((GapReason::Dropped, 1)), false, nobody),
            Piece::More(at) => (at, false),
            Piece::Last(at, _) => (at, true),
        };
        let whole_end = at + len;
        let bytes = self.rx.get(end - len..end).unwrap_or_default();
        if let Some(room) = self.message.get_mut(at..whole_end) {
            room.copy_from_slice(bytes);
        }
        if !whole {
            return Ok(());
        }
        let mut reader = Reader::new(self.message.get(..whole_end).unwrap_or_default());
        let first = reader.byte();
        if first & !DATA_MASK != tag::DATA_FIRST || device::is_best_effort(first) {
            return Err(CloseReason::Violation);
        }
        reader.fixed16();
        let gap = Message::read(first, &mut reader).gap;
        accept(&reader)?;
        self.take_record(gap, device::is_sent_before(first), Held { end: whole_end, ..nobody })
    }

    /// Takes a record that comes in its place: a gap, or the message that is `held` then.
    fn take_record(
        &mut self,
        gap: Option<(GapReason, u64)>,
        sent_before: bool,
        held: Held,
    ) -> Result<(), CloseReason> {
        // A record in place of the rest of another one: that one was given up.
        self.peer.assembly.drop_begun();
        let number = self.peer.expected;
        if number == 0 {
            return Err(CloseReason::Violation);
        }
        let more = gap.map_or(0, |(_, count)| count - 1);
        let last = number.checked_add(more).ok_or(CloseReason::Violation)?;
        let arrival = self.queue.handle_arrival(number, last, held.end).map_err(close_reason)?;
        self.peer.expected = last + 1;
        if arrival == Arrival::New {
            if let Some((reason, count)) = gap {
                self.notice.add_gap(count, reason);
            } else {
                let maybe_redelivered = sent_before && self.queue.in_doubt(number);
                self.held = Some(Held { numbered: true, maybe_redelivered, ..held });
            }
        }
        Ok(())
    }

    fn handle_ack(&mut self, ack: &Ack) -> Result<(), CloseReason> {
        let marks = (ack.received, ack.bitmap, ack.window);
        self.peer
            .sending
            .handle_ack(self.now, marks, &mut self.rng, |_| {})
            .map_err(|_| CloseReason::Violation)?;
        // What an earlier session brought may have been committed since.
        self.queue.handle_ack(self.clock, ack.acked_low).map_err(close_reason)
    }

    /// The gateway has proved that it takes part in this handshake.
    fn handle_answer(&mut self, answer: &Answer) -> Result<(), CloseReason> {
        if Q::ASSIGNED && !self.is_seeded {
            // The nonce of the hello may have been that of an earlier life, and so the answer, too. It brings the randomness
            // for one that nobody has had.
            self.rng.mix(answer.nonce);
            self.is_seeded = true;
            self.handle_link_up(self.clock);
            return Ok(());
        }
        let Answer { about, stream, .. } = answer;
        if Q::ASSIGNED && self.inbox.is_none() {
            let Assigned { outbox, inbox } = stream.assigned.ok_or(CloseReason::Unsupported)?;
            self.queue.assign(outbox);
            self.inbox = inbox;
        }
        let (resumed, lost) = self.queue.resume(self.clock, stream);
        if resumed == Resumed::Regressed {
            self.notice.regressed |= self.queue.regress(&mut self.rng);
            warn!("the queue had gone backwards: it gets a new epoch");
            return Err(CloseReason::Regressed);
        }
        if lost > 0 {
            self.notice.add_gap(lost, GapReason::Missing);
        }
        let Pace { line, planted, .. } = self.pace;
        let acked = self.queue.acked() as u32;
        self.peer = Peer::new(self.now, line, planted, acked, about.window_messages, self.own_window);
        if !self.accept_weak_acks && !about.acks.satisfies(self.class) {
            self.peer.held = true;
            self.notice.weak = Some(about.acks);
            warn!("nothing is sent: the gateway's acknowledgements stand for {:?}", about.acks);
        }
        let frame_max = (about.frame_max as usize).min(FRAME);
        let fits = if Self::IN_PIECES { MESSAGE } else { frame_max - HEAD_MAX };
        self.takes = Takes {
            record_max: fits.min(about.message_max as usize).max(GAP_LEN_MAX),
            frame_max,
            bindings_max: about.bindings_max as usize,
        };
        self.notice.connected = Some(resumed == Resumed::Continued);
        info!("connected to {:?}, resumed: {}", self.gateway(), resumed == Resumed::Continued);
        Ok(())
    }

    /// The gateway's name, as long as its answer stands in the buffer; for logs.
    fn gateway(&self) -> Text<'_> {
        device::name_in_answer(read_from(&self.rx, seal::LEN + 1, FRAME))
    }

    /// The session has ended, and the link may stay: the next one begins after a pause.
    fn pause(&mut self) {
        if self.session.was_answered() && self.peer.has_lasted(self.now) {
            self.down_since = self.now;
            self.is_down_long = false;
        }
        self.forget_session();
        self.is_down_long |= self.down_since.is_ago(LONG, self.now);
        let wait = match self.is_down_long {
            true => PAUSE_LONG,
            false if self.down_since == self.now => PAUSE_FIRST,
            false => PAUSE,
        };
        // Half of it is certain, half is drawn, so that devices which lost one gateway together do not return together.
        self.redial = Some(self.now.after(wait / 2 + self.rng.below32(wait / 2 + 1)));
    }

    /// The next event. A message that was handed out before is taken as processed now.
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        if let Some(resumed) = self.notice.connected.take() {
            return Some(Event::Connected { resumed });
        }
        if let Some(acks) = self.notice.weak.take() {
            return Some(Event::WeakAcks(acks));
        }
        if core::mem::take(&mut self.notice.regressed) {
            return Some(Event::Regressed);
        }
        if core::mem::take(&mut self.notice.too_large) {
            return Some(Event::TooLarge);
        }
        if let Some((count, reason)) = self.notice.gap.take() {
            return Some(Event::Gap { count, reason });
        }
        if let Some((topic, is_full)) = self.notice.full.approach(self.full()) {
            if !is_full {
                debug!("topic {} is free again", topic.0);
                return Some(Event::TopicFree { topic });
            }
            warn!("topic {} is full: nobody has subscribed, and the gateway keeps no more of it", topic.0);
            return Some(Event::TopicFull { topic });
        }
        if self.session.is_closed()
            && let Some(reason) = self.notice.reason.take()
        {
            if self.has_link() {
                self.pause();
            }
            info!("disconnected: {:?}", reason);
            return Some(Event::Disconnected(reason));
        }
        let held = self.held.take()?;
        // The bytes stay where they are until the next frame is put there.
        let body =
            if held.in_pieces { self.message.get(..held.end)? } else { self.rx.get(seal::LEN..held.end)? };
        let mut reader = Reader::new(body);
        let first = reader.byte();
        reader.fixed16();
        let Message { topic, payload, origin, repeat, .. } = Message::read(first, &mut reader);
        reader.done(()).ok()?;
        let maybe_redelivered = repeat || held.maybe_redelivered;
        Some(Event::Message { topic, payload, origin, maybe_redelivered })
    }
}

/// Counts one more.
#[cfg_attr(target_os = "none", inline(never))]
const fn count(of: &mut u32) {
    *of = of.wrapping_add(1);
}

/// Reads a part of a buffer.
#[cfg_attr(target_os = "none", inline(never))]
fn read_from(bytes: &[u8], from: usize, to: usize) -> Reader<'_> {
    Reader::new(bytes.get(from..to).unwrap_or_default())
}

/// Whether all that was read could be.
fn accept(reader: &Reader<'_>) -> Result<(), CloseReason> {
    Ok(reader.done(())?)
}

/// The bits in which the first bytes of records differ.
const DATA_MASK: u8 = tag::DATA_LAST - tag::DATA_FIRST;

const fn close_reason(violation: Violation) -> CloseReason {
    match violation {
        Violation::UndeclaredGap => CloseReason::OutOfSequence,
        Violation::AckAboveSent | Violation::Window | Violation::Range => CloseReason::Violation,
    }
}
