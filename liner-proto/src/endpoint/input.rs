//! What arrives on the line.

use super::peer::Peer;
use super::queue::Queue;
use super::topics::TopicSet;
use super::{Endpoint, Event, HEAD_MAX, Takes};
use crate::delivery::{Arrival, Resumed, Resumption, Violation};
use crate::effect::GapReason;
use crate::frame::cobs;
use crate::line::Piece;
use crate::rng::Rng;
use crate::seal;
use crate::session::dial::{Dial, Heard, Pace};
use crate::time::Instant;
use crate::wire::control::{Ack, CloseReason};
use crate::wire::data::Data;
use crate::wire::device::{self, Body, Content};
use crate::wire::handshake::{About, Acks, Answer, Assigned, StreamFields};
use crate::wire::record::{GAP_LEN_MAX, Mode, Record, Topic};

/// The longest pause between two handshakes in microseconds. A session that was not up for as long did not end the trouble
/// before it.
const PAUSE_MAX: u32 = 1_000_000;

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

/// What a frame has brought.
enum Brought {
    Nothing,
    Message { numbered: bool, maybe_redelivered: bool },
    Gap(u64, GapReason),
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
    fn add_gap(&mut self, count: u64, reason: GapReason) {
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
    }

    /// The link is gone.
    pub fn handle_link_down(&mut self, now: Instant) {
        self.tick(now);
        if self.has_link() {
            self.notice.reason.get_or_insert(CloseReason::LinkLost);
        }
        self.forget_session();
    }

    /// Forgets the session, and what has arrived in it. A message that nobody has taken was not received.
    fn forget_session(&mut self) {
        self.session = Dial::IDLE;
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
            _ => count(&mut self.peer.sending.stats_mut().resyncs),
        }
    }

    /// Ends the session for a reason of this side.
    pub(super) fn end(&mut self, reason: CloseReason) {
        self.drop_received();
        if self.has_link() {
            self.notice.reason.get_or_insert(reason);
            self.session.close(reason);
        }
    }

    fn handle_frame(&mut self, end: usize) -> Result<(), CloseReason> {
        let now = self.now;
        let frame = self.rx.get(..end).unwrap_or_default();
        let Some(plain) = self.session.open(frame, &self.pace) else {
            count(&mut self.peer.sending.stats_mut().seal_errors);
            return Ok(());
        };
        let body = match device::decode(frame.get(seal::LEN..).unwrap_or_default()) {
            Ok(body) => body,
            // Anyone can seal for no session.
            Err(_) if plain || self.session.is_ending() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let heard = self.session.handle(now, &body, plain, &self.pace)?;
        if heard == Heard::Ignored {
            return Ok(());
        }
        count(&mut self.peer.sending.stats_mut().frames_received);
        self.handle_body(end)
    }

    /// What a frame of the session says, as it stands in the buffer.
    fn handle_body(&mut self, end: usize) -> Result<(), CloseReason> {
        let now = self.now;
        let bytes = self.rx.get(seal::LEN..end).unwrap_or_default();
        let held = Held { end, in_pieces: false, numbered: true, maybe_redelivered: false };
        let brought = match device::decode(bytes)? {
            Body::Answer(Answer { nonce, .. }) if !self.is_seeded => {
                // The nonce of the hello may have been that of an earlier life, and so the answer, too. It brings the randomness
                // for one that nobody has had.
                self.rng = Rng::new([self.rng.next() ^ nonce, self.rng.next()]);
                self.is_seeded = true;
                self.handle_link_up(now);
                return Ok(());
            }
            Body::Answer(Answer { about, stream, .. }) => return self.attach(&about, &stream),
            Body::Ack(ack) => return self.handle_ack(&ack),
            Body::Close(reason) => {
                self.notice.reason.get_or_insert(reason);
                return Ok(());
            }
            // An acknowledgement goes with the answer.
            Body::Probe(_) => {
                self.peer.receiving.ask(now);
                return Ok(());
            }
            Body::Echo(_) | Body::Greet | Body::Skipped => return Ok(()),
            Body::Data(data) if data.is_best_effort() => {
                Brought::Message { numbered: false, maybe_redelivered: false }
            }
            Body::Data(data) => {
                if !self.peer.receiving.take(now, data.frame) {
                    return Ok(());
                }
                take_data(&mut self.peer, &mut self.queue, &data)?
            }
            Body::Numbered { frame, body } => {
                if !self.peer.receiving.take(now, frame) {
                    return Ok(());
                }
                match device::content(body, Self::IN_PIECES)? {
                    Content::Begin(number) => {
                        self.peer.assembly.drop_begun();
                        self.peer.expected = number;
                        return Ok(());
                    }
                    Content::TopicFull(full) => {
                        self.peer.handle_topic_full(self.topics, &full);
                        return Ok(());
                    }
                    Content::Skipped => return Ok(()),
                    Content::Fragment(fragment) => {
                        return self.handle_fragment(fragment.left, fragment.bytes.len(), held);
                    }
                }
            }
        };
        self.note(&brought, held);
        Ok(())
    }

    /// A piece of a record, of `len` bytes at the end of the frame.
    fn handle_fragment(&mut self, left: u32, len: usize, held: Held) -> Result<(), CloseReason> {
        let piece = self.peer.assembly.handle(left, len, MESSAGE).ok_or(CloseReason::Violation)?;
        let (at, whole) = match piece {
            Piece::GivenUp | Piece::Skipped => return Ok(()),
            Piece::LastSkipped => {
                // Its sender dropped it when all of it but a lost piece was on its way.
                let gap = Record::Gap { reason: GapReason::Dropped, count: 1 };
                let brought = take_record(&mut self.peer, &mut self.queue, &gap, (0, false))?;
                self.note(&brought, held);
                return Ok(());
            }
            Piece::More(at) => (at, false),
            Piece::Last(at, _) => (at, true),
        };
        let end = at + len;
        let bytes = self.rx.get(held.end - len..held.end).unwrap_or_default();
        if let Some(room) = self.message.get_mut(at..end) {
            room.copy_from_slice(bytes);
        }
        if whole {
            let body = self.message.get(..end).unwrap_or_default();
            let Body::Data(data) = device::decode(body)? else { return Err(CloseReason::Violation) };
            let brought = take_data(&mut self.peer, &mut self.queue, &data)?;
            self.note(&brought, Held { end, in_pieces: true, ..held });
        }
        Ok(())
    }

    /// Takes note of what a frame has brought.
    fn note(&mut self, brought: &Brought, held: Held) {
        match *brought {
            Brought::Nothing => {}
            Brought::Gap(count, reason) => self.notice.add_gap(count, reason),
            Brought::Message { numbered, maybe_redelivered } => {
                self.held = Some(Held { numbered, maybe_redelivered, ..held });
            }
        }
    }

    fn handle_ack(&mut self, ack: &Ack) -> Result<(), CloseReason> {
        let marks = (ack.received, ack.bitmap, ack.window);
        self.peer
            .sending
            .handle_ack(self.now, marks, &mut self.rng, |_| {})
            .map_err(|_| CloseReason::Violation)?;
        // What an earlier session brought may have been committed since.
        self.queue.handle_ack(self.now, ack.acked_low).map_err(close_reason)
    }

    /// The gateway has proved that it takes part in this handshake.
    fn attach(&mut self, about: &About, stream: &StreamFields) -> Result<(), CloseReason> {
        if self.inbox.is_none() {
            let Assigned { outbox, inbox } = stream.assigned.ok_or(CloseReason::Unsupported)?;
            self.queue.assign(outbox);
            self.inbox = inbox;
        }
        let (resumed, resumption) = self.queue.resume(self.now, stream);
        if resumed == Resumed::Regressed {
            self.notice.regressed |= self.queue.regress(&mut self.rng);
            return Err(CloseReason::Regressed);
        }
        if let Resumption::Lost(count) = resumption {
            self.notice.add_gap(count, GapReason::Missing);
        }
        let Pace { line, planted, .. } = self.pace;
        self.peer = Peer::new(self.now, line, planted, about.window_messages, self.own_window);
        if !self.accept_weak_acks && !about.acks.satisfies(self.class) {
            self.peer.held = true;
            self.notice.weak = Some(about.acks);
        }
        let frame_max = (about.frame_max as usize).min(FRAME);
        let fits = if Self::IN_PIECES { MESSAGE } else { frame_max - HEAD_MAX };
        self.takes = Takes {
            record_max: fits.min(about.message_max as usize).max(GAP_LEN_MAX),
            frame_max,
            bindings_max: about.bindings_max as usize,
        };
        self.notice.connected = Some(resumed == Resumed::Continued);
        Ok(())
    }

    /// The session has ended, and the link may stay: the next one begins after a pause.
    fn pause(&mut self) {
        if self.session.was_answered() && self.peer.since.after_micros(PAUSE_MAX.into()) <= self.now {
            self.back_off.reset(self.now);
        }
        self.forget_session();
        self.redial = Some(self.back_off.fail(self.now, PAUSE_MAX, &mut self.rng));
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
            return Some(if is_full { Event::TopicFull { topic } } else { Event::TopicFree { topic } });
        }
        if self.session.is_closed()
            && let Some(reason) = self.notice.reason.take()
        {
            if self.has_link() {
                self.pause();
            }
            return Some(Event::Disconnected(reason));
        }
        let held = self.held.take()?;
        // The bytes stay where they are until the next frame is put there.
        let body =
            if held.in_pieces { self.message.get(..held.end)? } else { self.rx.get(seal::LEN..held.end)? };
        let Ok(Body::Data(data)) = device::decode(body) else { return None };
        let Ok(Record::Message { header, payload }) = data.record.decode() else { return None };
        let topic = match header.topic {
            Topic::Text(text) => text,
            // Topics come as text, because the handshake said that no numbers are kept.
            Topic::Number(_) => "",
        };
        let maybe_redelivered = header.repeat || held.maybe_redelivered;
        Some(Event::Message { topic, payload, origin: header.origin, maybe_redelivered })
    }
}

/// Counts one more.
const fn count(of: &mut u32) {
    *of = of.wrapping_add(1);
}

/// Takes a frame with a record that comes in its place.
fn take_data(peer: &mut Peer, queue: &mut impl Queue, data: &Data<'_>) -> Result<Brought, CloseReason> {
    take_record(peer, queue, &data.record.decode()?, (data.record.len(), data.sent_before))
}

/// Takes a record of so many bytes that comes in its place.
fn take_record(
    peer: &mut Peer,
    queue: &mut impl Queue,
    record: &Record<'_>,
    (len, sent_before): (usize, bool),
) -> Result<Brought, CloseReason> {
    // A record in place of the rest of another one: that one was given up.
    peer.assembly.drop_begun();
    let number = peer.expected;
    let gap = match *record {
        Record::Message { header, .. } if header.mode == Mode::BestEffort => {
            return Err(CloseReason::Violation);
        }
        Record::Message { .. } => None,
        Record::Gap { reason, count } => Some((count, reason)),
    };
    let last = number.checked_add(gap.map_or(1, |(count, _)| count) - 1).ok_or(CloseReason::Violation)?;
    if number == 0 {
        return Err(CloseReason::Violation);
    }
    let arrival = queue.handle_arrival(number, last, len).map_err(close_reason)?;
    peer.expected = last + 1;
    Ok(match (arrival, gap) {
        (Arrival::Duplicate, _) => Brought::Nothing,
        (Arrival::New, Some((count, reason))) => Brought::Gap(count, reason),
        (Arrival::New, None) => {
            let maybe_redelivered = sent_before && queue.in_doubt(number);
            Brought::Message { numbered: true, maybe_redelivered }
        }
    })
}

const fn close_reason(violation: Violation) -> CloseReason {
    match violation {
        Violation::UndeclaredGap => CloseReason::OutOfSequence,
        Violation::AckAboveSent | Violation::Window | Violation::Range => CloseReason::Violation,
    }
}
