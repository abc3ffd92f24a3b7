//! What arrives on the line.

use core::time::Duration;

use super::peer::Peer;
use super::topics::TopicSet;
use super::{Endpoint, Event, Takes};
use crate::delivery::{Arrival, Inbound, Resumed, Resumption, Violation};
use crate::effect::GapReason;
use crate::frame::cobs::{self, CobsSplit};
use crate::line::{Piece, Turn};
use crate::seal;
use crate::session::{Heard, Session};
use crate::time::Instant;
use crate::wire::control::{Ack, CloseReason, Content};
use crate::wire::data::{self, Data};
use crate::wire::handshake::{About, Acks, Assigned, StreamFields};
use crate::wire::record::{Mode, Record, Topic};
use crate::wire::{self, Body};

/// The longest pause between two handshakes. A session that was not up for as long did not end the trouble before it.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A message that nobody has taken yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Where its body ends: in the receive buffer, behind the seal; or in the buffer for messages in pieces.
    end: usize,
    in_pieces: bool,
    /// Bytes of the receive buffer that are free once it is taken.
    consumed: usize,
    /// Not so if it is a best-effort message.
    numbered: bool,
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

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> Endpoint<'_, QUEUE, FRAME, MESSAGE> {
    /// There is a link, or a new one: the handshake begins.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.tick(now);
        self.forget_session();
        self.redial = None;
        let nonce = self.rng.next_nonzero();
        let session = Session::dial(self.now, nonce, self.config.timing);
        self.session = Some(session.on_line(self.config.line, false, self.config.planted));
    }

    /// The link is gone.
    pub fn handle_link_down(&mut self, now: Instant) {
        self.tick(now);
        if self.session.is_some() {
            self.notice.reason.get_or_insert(CloseReason::LinkLost);
        }
        self.forget_session();
        self.redial = None;
    }

    /// The session has ended, and the link may stay: the next one begins after a pause.
    fn pause(&mut self) {
        if self.session.is_none() {
            return;
        }
        if self.peer.as_ref().is_some_and(|peer| peer.since + PAUSE_MAX <= self.now) {
            self.back_off.reset(self.now);
        }
        self.redial = Some(self.back_off.fail(self.now, PAUSE_MAX, &mut self.rng));
    }

    pub(super) fn forget_session(&mut self) {
        self.session = None;
        self.stats = self.line_stats();
        self.peer = None;
        self.drop_received();
        self.out.handle_link_down();
    }

    /// Forgets what has arrived. A message that nobody has taken was not received.
    fn drop_received(&mut self) {
        self.rx_len = 0;
        self.rx_lost = false;
        if self.held.take().is_some_and(|held| held.numbered) {
            self.inbound.handle_dropped();
        }
    }

    /// Bytes have arrived. Returns how many were taken; fewer than given means: poll an event, then give the rest.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize {
        self.tick(now);
        let mut taken = 0;
        loop {
            if self.held.is_some() {
                return taken;
            }
            self.take_frame();
            if self.held.is_some() || self.session.is_none() {
                return if self.session.is_none() { bytes.len() } else { taken };
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return taken;
            }
            // Up to the end of the next frame, so that one frame at a time stands in the buffer.
            let len = rest.iter().position(|byte| *byte == 0).map_or(rest.len(), |zero| zero + 1);
            let room = self.rx.get_mut(self.rx_len..).unwrap_or_default();
            let len = len.min(room.len());
            if len == 0 {
                // Longer than any frame that may be sent here: a zero was lost, or noise has come.
                self.rx_len = 0;
                self.rx_lost = true;
                continue;
            }
            if let (Some(room), Some(rest)) = (room.get_mut(..len), rest.get(..len)) {
                room.copy_from_slice(rest);
            }
            self.rx_len += len;
            taken += len;
        }
    }

    /// Looks at the frame at the front of the buffer, if it is whole.
    fn take_frame(&mut self) {
        while self.rx_len > 0 && self.held.is_none() {
            let buffer = self.rx.get_mut(..self.rx_len).unwrap_or_default();
            match cobs::split(buffer, FRAME) {
                CobsSplit::Incomplete => return,
                CobsSplit::Empty { consumed } => {
                    self.resync(false);
                    self.consume(consumed);
                }
                CobsSplit::Bad { consumed } | CobsSplit::TooLong { consumed } => {
                    self.resync(true);
                    self.consume(consumed);
                }
                CobsSplit::Frame { consumed, .. } if self.rx_lost => {
                    self.resync(true);
                    self.consume(consumed);
                }
                CobsSplit::Frame { frame, consumed } => {
                    // A decoded frame begins where its encoding did.
                    if let Err(reason) = self.handle_frame(frame.end, consumed) {
                        return self.end(reason);
                    }
                    if self.held.is_none() {
                        self.consume(consumed);
                    }
                }
            }
        }
    }

    /// A zero has come, and what stood before it is dropped.
    fn resync(&mut self, bad: bool) {
        if (core::mem::take(&mut self.rx_lost) || bad)
            && let Some(peer) = &mut self.peer
        {
            let stats = peer.sending.stats_mut();
            stats.resyncs = stats.resyncs.wrapping_add(1);
        }
    }

    fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.rx_len);
        self.rx.copy_within(bytes..self.rx_len, 0);
        self.rx_len -= bytes;
    }

    /// Ends the session for a reason of this side.
    fn end(&mut self, reason: CloseReason) {
        self.drop_received();
        self.notice.reason.get_or_insert(reason);
        if let Some(session) = &mut self.session {
            session.close(reason);
        }
    }

    fn handle_frame(&mut self, frame_len: usize, consumed: usize) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.is_ending() {
            return Ok(());
        }
        let frame = self.rx.get(..frame_len).unwrap_or_default();
        let Ok((body, plain)) = session.open(frame) else {
            if let Some(peer) = &mut self.peer {
                let stats = peer.sending.stats_mut();
                stats.seal_errors = stats.seal_errors.wrapping_add(1);
            }
            return Ok(());
        };
        let body = match wire::decode(body) {
            Ok(body) => body,
            // Anyone can seal for no session.
            Err(_) if plain => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let heard = session.handle(now, &body, plain)?;
        if heard != Heard::Ignored
            && let Some(peer) = &mut self.peer
        {
            let stats = peer.sending.stats_mut();
            stats.frames_received = stats.frames_received.wrapping_add(1);
        }
        match heard {
            Heard::Other => {}
            Heard::Answer { about, stream, .. } => return self.attach(about, &stream),
            Heard::Probe => {
                // An acknowledgement goes with the answer.
                self.peer.iter_mut().for_each(|peer| peer.receiving.ask(now));
                return Ok(());
            }
            Heard::Ignored | Heard::Echo { .. } => return Ok(()),
            Heard::Hello { .. } | Heard::Confirm { .. } => return Err(CloseReason::Violation),
            Heard::Close(reason) => {
                self.notice.reason.get_or_insert(reason);
                return Ok(());
            }
        }
        let held =
            Held { end: frame_len, in_pieces: false, consumed, numbered: true, maybe_redelivered: false };
        self.handle_body(held)
    }

    /// What a frame of the session says, as it stands in the buffer.
    fn handle_body(&mut self, held: Held) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let bytes = self.rx.get(seal::LEN..held.end).unwrap_or_default();
        let body = wire::decode(bytes).map_err(CloseReason::from)?;
        if let Body::Ack(ack) = &body {
            return self.handle_ack(ack);
        }
        let brought = if let Body::Data(data) = &body {
            if data.is_best_effort() {
                Brought::Message { numbered: false, maybe_redelivered: false }
            } else if peer.receiving.handle_frame(now, data.frame) == Turn::Next {
                peer.receiving.taken(now);
                take_record(peer, &mut self.inbound, data)?
            } else {
                Brought::Nothing
            }
        } else if let Body::Numbered(numbered) = &body {
            if peer.receiving.handle_frame(now, numbered.frame) != Turn::Next {
                return Ok(());
            }
            peer.receiving.taken(now);
            match numbered.content().map_err(CloseReason::from)? {
                Content::Fragment(fragment) => {
                    return self.handle_fragment(fragment.left, fragment.bytes.len(), held);
                }
                Content::Begin(begin) => {
                    peer.assembly.drop_begun();
                    peer.expected = begin.number;
                }
                Content::TopicFull(full) => peer.handle_topic_full(self.config.topics, &full),
                // A device keeps no directory, and topics come as text.
                Content::Bind(_) | Content::Page(_) | Content::Skipped => {}
            }
            Brought::Nothing
        } else if let Body::Skipped(_) = &body {
            Brought::Nothing
        } else {
            return Err(CloseReason::Violation);
        };
        self.note(&brought, held);
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

    /// A piece of a record, of `len` bytes at the end of the frame.
    fn handle_fragment(&mut self, left: u32, len: usize, held: Held) -> Result<(), CloseReason> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let piece = peer.assembly.handle(left, len, MESSAGE).ok_or(CloseReason::Violation)?;
        let (at, end) = match piece {
            Piece::GivenUp => return Ok(()),
            Piece::More(at) => (at, None),
            Piece::Last(at, end) => (at, Some(end)),
        };
        let bytes = self.rx.get(held.end - len..held.end).unwrap_or_default();
        if let Some(room) = self.message.get_mut(at..at + len) {
            room.copy_from_slice(bytes);
        }
        let Some(end) = end else { return Ok(()) };
        let body = wire::decode(self.message.get(..end).unwrap_or_default()).map_err(CloseReason::from)?;
        let Body::Data(data) = body else { return Err(CloseReason::Violation) };
        let brought = take_record(peer, &mut self.inbound, &data)?;
        self.note(&brought, Held { end, in_pieces: true, ..held });
        Ok(())
    }

    fn handle_ack(&mut self, ack: &Ack) -> Result<(), CloseReason> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let arrived = &mut peer.arrived;
        let each = |carried: crate::line::Carried| {
            *arrived = carried.completes(*arrived).map_or(*arrived, |number| number.max(*arrived));
        };
        let marks = (ack.received, ack.bitmap, ack.window);
        peer.sending.handle_ack(self.now, marks, &mut self.rng, each).map_err(|_| CloseReason::Violation)?;
        let acked = data::widen(ack.acked_low, peer.arrived);
        // What an earlier session brought may have been committed since.
        self.out.handle_marks(self.now, peer.arrived.max(acked), acked).map_err(close_reason)
    }

    /// The gateway has proved that it takes part in this handshake.
    fn attach(&mut self, about: About, stream: &StreamFields) -> Result<(), CloseReason> {
        match stream.assigned {
            Some(Assigned { outbox, inbox }) if self.inbox.is_none() => {
                self.out.assign(outbox);
                self.inbox = inbox;
            }
            None if self.inbox.is_none() => return Err(CloseReason::Unsupported),
            _ => {}
        }
        let resumed = self.out.resume(self.now, stream.known);
        if resumed == Resumed::Regressed {
            self.storage.rotate_wanted = true;
            self.rotate_if_possible();
            return Err(CloseReason::Regressed);
        }
        self.inbound.set_on_line(true);
        match self.inbound.resume(stream) {
            Resumption::Continued | Resumption::Fresh => {}
            Resumption::Lost(count) => self.notice.add_gap(count, GapReason::Missing),
        }
        let held = !self.config.accept_weak_acks && !about.acks.satisfies(self.config.class);
        self.notice.weak = held.then_some(about.acks);
        let line = (self.config.line, self.config.planted);
        self.peer = Some(Peer::new(
            self.now,
            held,
            line,
            (self.out.acked(), about.window_messages, self.config.window),
        ));
        self.takes = Takes::of(&about, Self::RECORD_MAX, MESSAGE > FRAME);
        self.notice.connected = Some(resumed == Resumed::Continued);
        Ok(())
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
        let is_over = self.session.as_ref().is_none_or(Session::is_closed);
        if is_over && let Some(reason) = self.notice.reason.take() {
            self.pause();
            self.forget_session();
            return Some(Event::Disconnected(reason));
        }
        let held = self.held.take()?;
        // The bytes stay where they are until the next frame is put there.
        self.rx_len = self.rx_len.saturating_sub(held.consumed);
        debug_assert_eq!(self.rx_len, 0, "one frame at a time stands in the buffer");
        let body =
            if held.in_pieces { self.message.get(..held.end)? } else { self.rx.get(seal::LEN..held.end)? };
        let Ok(Body::Data(data)) = wire::decode(body) else { return None };
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

/// Takes a record that comes in its place.
fn take_record(peer: &mut Peer, inbound: &mut Inbound, data: &Data<'_>) -> Result<Brought, CloseReason> {
    // A record in place of the rest of another one: that one was given up.
    peer.assembly.drop_begun();
    let number = peer.expected;
    let (last, gap) = match data.record.decode().map_err(CloseReason::from)? {
        Record::Message { header, .. } if header.mode == Mode::BestEffort => {
            return Err(CloseReason::Violation);
        }
        Record::Message { .. } => (number, None),
        Record::Gap { reason, count } => {
            (number.checked_add(count - 1).ok_or(CloseReason::Violation)?, Some((count, reason)))
        }
    };
    if number == 0 {
        return Err(CloseReason::Violation);
    }
    let arrival = inbound.handle_arrival(number, last, data.record.len()).map_err(close_reason)?;
    peer.expected = last + 1;
    Ok(match (arrival, gap) {
        (Arrival::Duplicate, _) => Brought::Nothing,
        (Arrival::New, Some((count, reason))) => Brought::Gap(count, reason),
        (Arrival::New, None) => {
            let maybe_redelivered = data.sent_before && inbound.in_doubt(number);
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
