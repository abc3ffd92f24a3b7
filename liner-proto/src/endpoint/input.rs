//! What arrives on the line.

use core::time::Duration;

use super::topics::TopicSet;
use super::{Endpoint, Event, Peer, Takes};
use crate::delivery::{Arrival, Resumed, Resumption, Violation};
use crate::effect::GapReason;
use crate::frame::cobs::{self, CobsSplit};
use crate::seal;
use crate::session::{Heard, Session};
use crate::time::Instant;
use crate::wire::control::{CloseReason, TopicFull};
use crate::wire::data;
use crate::wire::handshake::{About, Acks, StreamFields};
use crate::wire::record::{Mode, Record, Topic};
use crate::wire::{self, Body};

/// The longest pause between two handshakes. A session that was not up for as long did not end the trouble before it.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A frame in the receive buffer whose message nobody has taken yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The sealed frame, from the front of the buffer.
    frame_len: usize,
    consumed: usize,
    /// Not so if it is a best-effort message.
    numbered: bool,
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
    fn add_gap(&mut self, count: u64, reason: GapReason) {
        let before = self.gap.map_or(0, |(count, _)| count);
        self.gap = Some((before.saturating_add(count), reason));
    }
}

impl Peer {
    fn handle_topic_full(&mut self, topics: &[&str], full: &TopicFull<'_>) {
        let topics = topics.iter().enumerate().take(TopicSet::TOLD_APART);
        for (place, _) in topics.filter(|(_, text)| **text == full.topic) {
            if full.after > 0 {
                self.full.insert(place);
            } else {
                self.full.remove(place);
            }
        }
    }
}

impl<const QUEUE: usize, const FRAME: usize> Endpoint<'_, QUEUE, FRAME> {
    /// There is a link, or a new one: the handshake begins.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.tick(now);
        self.forget_session();
        self.redial = None;
        let nonce = self.rng.next_nonzero();
        self.session = Some(Session::dial(self.now, nonce, self.config.timing));
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
        if self.peer.is_some_and(|peer| peer.since + PAUSE_MAX <= self.now) {
            self.back_off.reset(self.now);
        }
        self.redial = Some(self.back_off.fail(self.now, PAUSE_MAX, &mut self.rng));
    }

    pub(super) fn forget_session(&mut self) {
        self.session = None;
        self.peer = None;
        self.drop_received();
        self.out.handle_link_down();
    }

    /// Forgets what has arrived. A message that nobody has taken was not received.
    fn drop_received(&mut self) {
        self.rx_len = 0;
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
                // Longer than any frame that may be sent here.
                self.end(CloseReason::Violation);
                return bytes.len();
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
                CobsSplit::Empty { consumed } => self.consume(consumed),
                CobsSplit::Bad { .. } | CobsSplit::TooLong { .. } => {
                    return self.end(CloseReason::SealBroken);
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
        let body = seal::open(session.seal_in(), frame).map_err(|_| CloseReason::SealBroken)?;
        let body = wire::decode(body).map_err(CloseReason::from)?;
        match session.handle(now, &body)? {
            Heard::Other => {}
            Heard::Answer { about, stream, .. } => return self.attach(about, &stream),
            Heard::Probe | Heard::Echo { .. } => return Ok(()),
            Heard::Hello { .. } | Heard::Confirm { .. } => return Err(CloseReason::Violation),
            Heard::Close(reason) => {
                self.notice.reason.get_or_insert(reason);
                return Ok(());
            }
        }
        let Some(peer) = &mut self.peer else { return Ok(()) };
        match body {
            Body::Ack(ack) => {
                let near = self.out.sent();
                let received = data::widen(ack.received_low, near);
                let acked = data::widen(ack.acked_low, near);
                peer.messages_limit = peer.messages_limit.max(received.saturating_add(u64::from(ack.window)));
                self.out.handle_marks(now, received, acked).map_err(close_reason)
            }
            Body::Data(data) => {
                let number = data::widen(data.number_low, self.inbound.received() + 1);
                let record = data.record.decode().map_err(CloseReason::from)?;
                let (last, gap) = match record {
                    Record::Message { header, .. } if header.mode == Mode::BestEffort => {
                        let (numbered, maybe_redelivered) = (false, false);
                        self.held = Some(Held { frame_len, consumed, numbered, maybe_redelivered });
                        return Ok(());
                    }
                    Record::Message { .. } => (number, None),
                    Record::Gap { reason, count } => {
                        (number.checked_add(count - 1).ok_or(CloseReason::Violation)?, Some((count, reason)))
                    }
                };
                let arrival =
                    self.inbound.handle_arrival(number, last, data.record.len()).map_err(close_reason)?;
                if arrival == Arrival::Duplicate {
                    return Ok(());
                }
                match gap {
                    Some((count, reason)) => self.notice.add_gap(count, reason),
                    None => {
                        let maybe_redelivered = data.sent_before && self.inbound.in_doubt(number);
                        self.held = Some(Held { frame_len, consumed, numbered: true, maybe_redelivered });
                    }
                }
                Ok(())
            }
            Body::TopicFull(full) => {
                peer.handle_topic_full(self.config.topics, &full);
                Ok(())
            }
            // A device keeps no directory.
            Body::Bind(_) | Body::Page(_) | Body::Skipped(_) => Ok(()),
            Body::Hello(_)
            | Body::Answer(_)
            | Body::Confirm(_)
            | Body::Close(_)
            | Body::Probe(_)
            | Body::Echo(_)
            | Body::Marks(_)
            | Body::Batch(_) => Err(CloseReason::Violation),
        }
    }

    /// The gateway has proved that it takes part in this handshake.
    fn attach(&mut self, about: About, stream: &StreamFields) -> Result<(), CloseReason> {
        let resumed = self.out.resume(self.now, stream.known);
        if resumed == Resumed::Regressed {
            self.storage.rotate_wanted = true;
            self.rotate_if_possible();
            return Err(CloseReason::Regressed);
        }
        match self.inbound.resume(stream) {
            Resumption::Continued | Resumption::Fresh => {}
            Resumption::Lost(count) => self.notice.add_gap(count, GapReason::Missing),
        }
        let held = !self.config.accept_weak_acks && !about.acks.satisfies(self.config.class);
        self.notice.weak = held.then_some(about.acks);
        self.peer = Some(Peer {
            since: self.now,
            held,
            messages_limit: self.out.acked().saturating_add(u64::from(about.window_messages.min(255))),
            bound: 0,
            full: TopicSet::EMPTY,
            told_long: 0,
        });
        self.takes = Takes::of(&about, FRAME);
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
        let body = self.rx.get(seal::LEN..held.frame_len)?;
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

const fn close_reason(violation: Violation) -> CloseReason {
    match violation {
        Violation::UndeclaredGap => CloseReason::OutOfSequence,
        Violation::AckAboveSent | Violation::Window | Violation::Range => CloseReason::Violation,
    }
}
