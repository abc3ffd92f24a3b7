//! What arrives on connections.

use super::conn::Framing;
use super::event::{Application, Event, Message};
use super::line::{self, Line};
use super::receipts::Settle;
use super::{DialId, PeerId, Router, TopicId};
use alloc::boxed::Box;

use crate::config::LineConfig;
use crate::delivery::{Arrival, Violation};
use crate::frame::{cobs, length};
use crate::id::ConnId;
use crate::session::{Heard, Session};
use crate::time::Instant;
use crate::wire::batch::Batch;
use crate::wire::control::{Bind, CloseReason, Marks};
use crate::wire::data::Data;
use crate::wire::record::{Header, Mode, Origin, Record, Topic};
use crate::wire::{self, Body};

/// The largest frame that is taken before the handshake is finished.
const HANDSHAKE_FRAME_MAX: usize = 2048;

impl Router {
    /// A connection to a dialled address is there.
    pub fn handle_dialed(&mut self, now: Instant, dial: DialId, framing: Framing) -> ConnId {
        self.tick(now);
        let nonce = self.rng.next_nonzero();
        let session = Session::dial(self.now, nonce, self.config.timing);
        let (session, line) = self.on_framing(framing, session);
        let id = self.conns.add(framing, session, line, Some(dial), self.now);
        self.dials.connected(dial, id);
        self.turn_away(id);
        id
    }

    /// COBS is for links that may lose and damage bytes.
    pub(super) fn on_framing(&mut self, framing: Framing, session: Session) -> (Session, Option<Box<Line>>) {
        if framing == Framing::Length {
            return (session, None);
        }
        let line = self.new_line(LineConfig::default(), false);
        (line.session(session), Some(Box::new(line)))
    }

    /// A node that closes begins no session any more.
    pub(super) fn turn_away(&mut self, id: ConnId) {
        if self.closing {
            self.conns.close(id, CloseReason::Shutdown);
        }
    }

    /// The link is gone. Call it once for every connection, also for those that [`poll_close`](Self::poll_close) named.
    pub fn handle_closed(&mut self, now: Instant, id: ConnId) {
        self.tick(now);
        let Some(conn) = self.conns.remove(id) else { return };
        let reason = conn.reason.unwrap_or(CloseReason::LinkLost);
        let was_up = conn.peer.is_some();
        let dialed = conn.dial.is_some();
        if let Some(peer) = conn.peer {
            self.peer_down(peer, id, reason, dialed);
            self.find_moved(peer);
            self.heed(peer);
            self.leave(peer);
        } else if reason != CloseReason::Replaced && !(conn.is_patient() && reason == CloseReason::LinkLost) {
            // A line that waits for its device begins no handshake: whoever has opened it tells that it is lost.
            let name = conn.caller.map(|caller| caller.name.into());
            let failed = Event::HandshakeFailed { conn: id, name, reason, dialed };
            self.events.extend(self.strangers.fail(self.now, dialed, failed));
        }
        if let Some(dial) = conn.dial {
            // One that gave way to another connection has found its node as well.
            let is_up = |peer: PeerId| self.peers.get(peer.0).is_some_and(|state| state.conn.is_some());
            let has_found = was_up || self.dials.peer(dial).is_some_and(is_up);
            self.dials.lost(self.now, dial, Some(id), has_found, &mut self.rng);
            if !has_found {
                self.handle_lost_dial(dial);
            }
        }
    }

    /// The peer's session on this connection is over.
    pub(super) fn peer_down(&mut self, peer: PeerId, id: ConnId, reason: CloseReason, dialed: bool) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if state.conn != Some(id) {
            return;
        }
        state.handle_down();
        self.dials.handle_down(peer, self.now, &mut self.rng);
        let outbox = state.outbox;
        self.events.push(Event::PeerDown { name: state.name.clone(), reason, dialed });
        self.note_unstored(peer);
        self.set_lease(peer);
        // Another instance may have waited for that.
        self.conns.list_unfinished();
        if let Some(outbox) = outbox {
            if let Some(outbox) = self.outboxes.get_mut(outbox.0) {
                outbox.handle_link_down();
            }
            // Without a link the asynchronous mode writes at once.
            self.list(outbox);
        }
    }

    /// Bytes have arrived that the shell cannot read now, because it waits for its store for instance: the peer is not silent.
    pub fn handle_waiting(&mut self, now: Instant, id: ConnId) {
        self.tick(now);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.session.hear(self.now);
        }
    }

    /// Bytes have arrived. Whole frames are taken and decoded in place, until the application is full; returns how many
    /// bytes were taken. The rest must be given again with what follows it.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        id: ConnId,
        bytes: &mut [u8],
        application: &mut dyn Application,
    ) -> usize {
        self.tick(now);
        let mut taken = 0;
        loop {
            let Some(conn) = self.conns.get(id) else { return bytes.len() };
            if conn.session.is_ending() {
                return bytes.len();
            }
            if application.is_full() {
                return taken;
            }
            let on_line = conn.line.is_some();
            if on_line && let Err(reason) = self.handle_ahead(id, application) {
                self.conns.close(id, reason);
                return bytes.len();
            }
            if on_line && application.is_full() {
                return taken;
            }
            let Some(conn) = self.conns.get(id) else { return bytes.len() };
            let Some(rest) = bytes.get_mut(taken..) else { return taken };
            let split = match conn.framing {
                Framing::Length if conn.peer.is_none() => split_length(rest, HANDSHAKE_FRAME_MAX),
                Framing::Length => split_length(rest, self.config.limits.frame_max as usize),
                Framing::Cobs => split_cobs(rest, line::FRAME_MAX),
            };
            match split {
                Split::More => return taken,
                Split::Skip(consumed) => taken += consumed,
                Split::Noise(consumed) => {
                    taken += consumed;
                    self.handle_noise(id);
                }
                Split::Broken(reason) => {
                    self.conns.close(id, reason);
                    return bytes.len();
                }
                Split::Frame { begin, end, consumed } => {
                    let frame = rest.get(begin..end).unwrap_or_default();
                    let handled = if on_line {
                        self.handle_line_frame(id, frame, application)
                    } else {
                        self.handle_frame(id, frame, application)
                    };
                    if let Err(reason) = handled {
                        self.conns.close(id, reason);
                        return bytes.len();
                    }
                    taken += consumed;
                    // The next frame came before this one, and waits for room: the zero behind this one brings the rest back.
                    if on_line && application.is_full() && self.has_next(id) {
                        return taken - 1;
                    }
                }
            }
        }
    }

    fn handle_frame(
        &mut self,
        id: ConnId,
        frame: &[u8],
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        let (body, plain) = conn.session.open(frame).map_err(|_| CloseReason::SealBroken)?;
        let body = wire::decode(body).map_err(CloseReason::from)?;
        let heard = conn.session.handle(now, &body, plain)?;
        if heard != Heard::Other {
            return self.handle_heard(id, heard);
        }
        let Some(peer) = self.conns.get(id).and_then(|conn| conn.peer) else { return Ok(()) };
        match body {
            Body::Batch(batch) => self.handle_batch(peer, &batch, application),
            Body::Data(data) => self.handle_loose(peer, &data, application),
            Body::Marks(marks) => self.handle_marks(id, peer, &marks),
            Body::Bind(bind) => self.handle_bind(peer, &bind),
            Body::Page(page) => self.handle_page(peer, &page),
            Body::TopicFull(full) => self.handle_topic_full(peer, &full),
            Body::Skipped(_) => Ok(()),
            Body::Fragment(fragment) => self.handle_piece(peer, &fragment, application),
            Body::Hello(_)
            | Body::Answer(_)
            | Body::Confirm(_)
            | Body::Close(_)
            | Body::Ack(_)
            | Body::Begin(_)
            | Body::Greet
            | Body::Numbered(_)
            | Body::Probe(_)
            | Body::Echo(_) => Err(CloseReason::Violation),
        }
    }

    /// What a frame of the handshake, or of the session itself, means for the node.
    pub(super) fn handle_heard(&mut self, id: ConnId, heard: Heard<'_>) -> Result<(), CloseReason> {
        match heard {
            Heard::Hello { name, instance, about } => {
                self.conns.get_mut(id).into_iter().for_each(|conn| conn.instance = instance);
                self.handle_hello(id, name, about)
            }
            Heard::Answer { name, instance, about, stream } => {
                self.conns.get_mut(id).into_iter().for_each(|conn| conn.instance = instance);
                self.handle_answer(id, name, about, &stream)
            }
            Heard::Confirm { stream } => self.handle_confirm(id, &stream),
            Heard::Probe => {
                self.conns.list(id);
                Ok(())
            }
            Heard::Echo { number } => {
                self.handle_echo(id, number);
                Ok(())
            }
            Heard::Close(reason) => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.reason.get_or_insert(reason);
                }
                self.conns.finish(id);
                Ok(())
            }
            Heard::Other | Heard::Ignored => Ok(()),
        }
    }

    // ------------------------------------------------------------------ marks

    fn handle_marks(&mut self, id: ConnId, peer: PeerId, marks: &Marks) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        state.messages_limit = state.messages_limit.max(marks.messages_limit);
        state.bytes_limit = state.bytes_limit.max(marks.bytes_limit);
        let Some(outbox) = state.outbox else { return Ok(()) };
        self.keep_in_flight(id, marks.acked);
        if let Some(outbox) = self.outboxes.get_mut(outbox.0) {
            outbox.out.handle_marks(now, marks.received, marks.acked).map_err(close_reason)?;
        }
        self.list(outbox);
        self.conns.list(id);
        Ok(())
    }

    pub(super) fn handle_bind(&mut self, peer: PeerId, bind: &Bind<'_>) -> Result<(), CloseReason> {
        let topic = self.intern_bounded(bind.text)?;
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        let index = bind.number as usize;
        if index == 0 || bind.number > self.config.limits.bindings_max {
            return Err(CloseReason::Violation);
        }
        if state.topics.len() < index {
            state.topics.resize(index, None);
        }
        if let Some(slot) = state.topics.get_mut(index - 1) {
            *slot = Some(topic);
        }
        Ok(())
    }

    // ------------------------------------------------------------------ messages

    pub(super) fn handle_batch(
        &mut self,
        peer: PeerId,
        batch: &Batch<'_>,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        // Records in place of the rest of another one: that one was given up.
        let begun = self.peers.get_mut(peer.0).filter(|state| state.arriving.is_begun());
        begun.into_iter().for_each(|state| state.arriving.drop_begun());
        let taken = batch.records().try_for_each(|item| {
            let item = item.map_err(CloseReason::from)?;
            self.check_len(item.bytes.len())?;
            let before = batch.head.sent_before;
            let record = item.record.aged(batch.head.added_age_ms);
            self.handle_record(peer, item.first, before, &record, item.taken, application)
        });
        // What was taken before an error is taken: its cursor belongs into the group of its rows.
        self.list_peer(peer);
        taken
    }

    /// A best-effort message.
    pub(super) fn handle_loose(
        &mut self,
        peer: PeerId,
        data: &Data<'_>,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        self.check_len(data.record.len())?;
        let record = data.record.decode().map_err(CloseReason::from)?;
        let record = record.aged(data.added_age_ms.map(u64::from));
        let Record::Message { header, payload } = record else { return Err(CloseReason::Violation) };
        let Topic::Text(text) = header.topic else { return Err(CloseReason::Violation) };
        if header.mode != Mode::BestEffort {
            return Err(CloseReason::Violation);
        }
        let topic = self.intern_bounded(text)?;
        self.dispatch(peer, 0, (topic, &header, payload), false, application);
        Ok(())
    }

    #[inline]
    pub(super) fn handle_record(
        &mut self,
        peer: PeerId,
        number: u64,
        sent_before: bool,
        record: &Record<'_>,
        bytes: usize,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        match record {
            Record::Gap { reason, count } => {
                let last = number.checked_add(count - 1).ok_or(CloseReason::Violation)?;
                let before = state.inbound.received();
                let arrival = state.inbound.handle_arrival(number, last, bytes).map_err(close_reason)?;
                if arrival == Arrival::New {
                    // What an earlier session brought is not missing.
                    let (from, count, reason) = (state.name.clone(), last - before, *reason);
                    self.events.push(Event::Gap { from, count, reason });
                }
                Ok(())
            }
            Record::Message { header, payload } => {
                if header.mode == Mode::BestEffort {
                    // It has no number, and no place among those that have.
                    return Err(CloseReason::Violation);
                }
                // A record that cannot be handed on must not count as received.
                let topic = match header.topic {
                    Topic::Number(number) => {
                        let index = (number as usize).checked_sub(1).ok_or(CloseReason::Violation)?;
                        state.topics.get(index).copied().flatten().ok_or(CloseReason::Violation)?
                    }
                    Topic::Text(text) => self.intern_bounded(text)?,
                };
                self.check_room_for((peer, number), topic, header)?;
                let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
                state.brought_before = state.inbound.arrived().1;
                let arrival = state.inbound.handle_arrival(number, number, bytes).map_err(close_reason)?;
                if arrival == Arrival::Duplicate {
                    return Ok(());
                }
                let in_doubt = sent_before
                    && if self.topics.is_own(topic) {
                        state.inbound.in_doubt_once(number)
                    } else {
                        state.inbound.in_doubt(number)
                    };
                self.dispatch(peer, number, (topic, header, payload), header.repeat || in_doubt, application);
                Ok(())
            }
        }
    }

    #[inline]
    fn dispatch(
        &mut self,
        peer: PeerId,
        number: u64,
        (topic, header, payload): (TopicId, &Header<'_>, &[u8]),
        maybe_redelivered: bool,
        application: &mut dyn Application,
    ) {
        let Some(state) = self.peers.get(peer.0) else { return };
        if self.topics.is_own(topic) {
            if self.config.inbox.is_some() && header.mode != Mode::BestEffort {
                return self.deliver(peer, number, (topic, header, payload), maybe_redelivered);
            }
            let (from, seq) =
                header.origin.map_or((&*state.name, number), |origin| (origin.name, origin.number));
            let text = self.topics.text(topic);
            let (mode, receipt) = (header.mode, self.receipt_of(peer));
            let message = Message { topic: text, from, seq, mode, payload, maybe_redelivered, receipt };
            if application.take(&message) == Settle::Later && number > 0 {
                self.note_receipt(peer, number);
            }
            if header.mode == Mode::All && self.config.takes_custody && header.origin.is_none() {
                self.take_custody(peer, number, (topic, header, payload), maybe_redelivered, true);
            }
            return;
        }
        if header.mode == Mode::BestEffort {
            if self.config.takes_custody && header.origin.is_none() {
                let name = state.name.clone();
                let origin = Origin { name: &name, epoch: state.inbound.epoch(), number };
                let onward = Header { origin: Some(origin), hops: Some(0), ..*header };
                self.send_loose(topic, &onward, payload, Some(peer), false);
            }
            return;
        }
        if self.config.takes_custody && header.origin.is_none() {
            return self.take_custody(peer, number, (topic, header, payload), maybe_redelivered, false);
        }
        self.put_stray_aside(peer, (topic, header, payload));
    }
}

pub(super) fn close_reason(violation: Violation) -> CloseReason {
    match violation {
        Violation::UndeclaredGap => CloseReason::OutOfSequence,
        Violation::AckAboveSent | Violation::Window | Violation::Range => CloseReason::Violation,
    }
}

enum Split {
    More,
    Skip(usize),
    Noise(usize),
    Broken(CloseReason),
    Frame { begin: usize, end: usize, consumed: usize },
}

fn split_length(bytes: &[u8], max: usize) -> Split {
    match length::split(bytes, max) {
        Ok(None) => Split::More,
        Ok(Some(split)) => {
            Split::Frame { begin: split.frame.start, end: split.frame.end, consumed: split.consumed }
        }
        Err(_) => Split::Broken(CloseReason::Violation),
    }
}

fn split_cobs(bytes: &mut [u8], max: usize) -> Split {
    match cobs::split(bytes, max) {
        cobs::CobsSplit::Incomplete => Split::More,
        cobs::CobsSplit::Empty { consumed } => Split::Skip(consumed),
        cobs::CobsSplit::Frame { frame, consumed } => {
            Split::Frame { begin: frame.start, end: frame.end, consumed }
        }
        // What was lost is sent again.
        cobs::CobsSplit::Bad { consumed } | cobs::CobsSplit::TooLong { consumed } => Split::Noise(consumed),
    }
}
