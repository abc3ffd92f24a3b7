//! What arrives on a line.

use alloc::boxed::Box;

use super::super::conn::Conn;
use super::super::event::Application;
use super::super::input::close_reason;
use super::super::loose::Loose;
use super::super::pieces::Arrived;
use super::super::{PeerId, Router};
use super::Line;
use crate::effect::GapReason;
use crate::id::ConnId;
use crate::line::Turn;
use crate::logging::debug;
use crate::session::{Heard, Session};
use crate::wire::control::{Ack, CloseReason, Content, Fragment};
use crate::wire::data::{self, Data};
use crate::wire::handshake::Hello;
use crate::wire::record::Record;
use crate::wire::text::Text;
use crate::wire::{self, Body};

impl Line {
    /// The body of the next frame, if it has come ahead.
    fn take_ahead(&mut self) -> Option<Box<[u8]>> {
        let next = self.receiving.next();
        let at = self.ahead.iter().position(|(frame, _)| *frame == next)?;
        Some(self.ahead.swap_remove(at).1)
    }
}

impl Router {
    /// Bytes up to a zero that are no frame.
    pub(in super::super) fn handle_noise(&mut self, id: ConnId) {
        debug!("a frame of {:?} was dropped: it is damaged or too long", self.name_of(id));
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(line) = &mut conn.line {
            let counts = line.sending.counts_mut();
            counts.resyncs = counts.resyncs.wrapping_add(1);
        }
        conn.session.handle_unopened(now);
        self.conns.list(id);
    }

    /// Whom a connection is with; for logs.
    pub(super) fn name_of(&self, id: ConnId) -> Text<'_> {
        let peer = self.conns.get(id).and_then(|conn| self.peers.get(conn.peer?.0));
        Text::of(peer.map_or("", |peer| &peer.name))
    }

    /// Whether the next frame is here already.
    pub(in super::super) fn has_next(&self, id: ConnId) -> bool {
        let line = self.conns.get(id).and_then(|conn| conn.line.as_ref());
        line.is_some_and(|line| line.ahead.iter().any(|(frame, _)| *frame == line.receiving.next()))
    }

    /// Frames that came ahead, and whose turn it is now: as many as the application takes.
    pub(in super::super) fn handle_ahead(
        &mut self,
        id: ConnId,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        while !application.is_full() {
            let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.session.is_ending()) else { break };
            let (Some(peer), Some(line)) = (conn.peer, &mut conn.line) else { break };
            if line.ahead.is_empty() {
                break;
            }
            let Some(body) = line.take_ahead() else { break };
            self.handle_placed(id, peer, &body, application)?;
        }
        Ok(())
    }

    /// A frame has arrived, or something like one.
    pub(in super::super) fn handle_line_frame(
        &mut self,
        id: ConnId,
        frame: &[u8],
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        let Ok((bytes, plain)) = conn.session.open(frame) else {
            return self.handle_unopened(id, frame);
        };
        let body = match wire::decode(bytes) {
            Ok(body) => body,
            // Anyone can seal for no session; but whoever does not speak this version is told so.
            Err(_) if plain && (conn.session.is_up() || bytes.first() != Some(&wire::tag::HELLO)) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Body::Hello(hello) = &body
            && plain
            && self.handle_another_hello(id, hello)?
        {
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        let heard = conn.session.handle(now, &body, plain)?;
        if let Some(line) = &mut conn.line {
            let counts = line.sending.counts_mut();
            counts.frames_received = counts.frames_received.wrapping_add(1);
        }
        if heard == Heard::Probe {
            // An acknowledgement goes with the answer.
            conn.line.iter_mut().for_each(|line| line.receiving.ask(now));
        }
        // What comes out of place may have shown that a frame of this side's was lost.
        self.conns.list(id);
        if heard != Heard::Other {
            return self.handle_heard(id, heard);
        }
        let Some(peer) = self.conns.get(id).and_then(|conn| conn.peer) else { return Ok(()) };
        if let Body::Ack(ack) = &body {
            self.handle_ack(id, peer, ack)
        } else if let Body::Data(data) = &body {
            if data.is_best_effort() {
                return self.handle_loose(peer, data, application);
            }
            self.handle_numbered(id, peer, data.frame, bytes, application)
        } else if let Body::Numbered(numbered) = &body {
            self.handle_numbered(id, peer, numbered.frame, bytes, application)
        } else if let Body::Skipped(_) = &body {
            Ok(())
        } else {
            Err(CloseReason::Violation)
        }
    }

    /// A frame that the session's seal does not open: of another session, or damaged.
    fn handle_unopened(&mut self, id: ConnId, frame: &[u8]) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        if let Some(next) = &mut conn.next
            && let Ok((bytes, false)) = next.open(frame)
        {
            let Ok(body) = wire::decode(bytes) else { return Ok(()) };
            let Ok(Heard::Confirm { stream }) = next.handle(now, &body, false) else {
                self.conns.list(id);
                return Ok(());
            };
            let before = self.begin_next(id);
            let begun = self.handle_confirm(id, &stream);
            // Another device may have taken its place.
            before.into_iter().for_each(|peer| self.leave(peer));
            return begun;
        }
        debug!("a frame of {:?} was dropped: its seal is broken, or of another session", self.name_of(id));
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        if let Some(line) = &mut conn.line {
            let counts = line.sending.counts_mut();
            counts.seal_errors = counts.seal_errors.wrapping_add(1);
        }
        conn.session.handle_unopened(now);
        self.conns.list(id);
        Ok(())
    }

    /// The other side has begun anew, and has proved that it takes part in this handshake: the session before it is over.
    /// Gives whom that was with.
    fn begin_next(&mut self, id: ConnId) -> Option<PeerId> {
        let conn = self.conns.get_mut(id)?;
        let next = conn.next.take()?;
        conn.session = *next;
        // What waited there was for whoever it was with.
        conn.loose = Loose::default();
        let (before, dialed) = (conn.peer.take(), conn.dial.is_some());
        if let Some(peer) = before {
            self.peer_down(peer, id, CloseReason::Replaced, dialed);
        }
        before
    }

    /// A hello that this session did not begin with: the other side may have started anew, or it comes late. It is answered, and
    /// nothing else changes before the answer is confirmed. Says whether it was one.
    fn handle_another_hello(&mut self, id: ConnId, hello: &Hello<'_>) -> Result<bool, CloseReason> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return Ok(true) };
        // The nonces of a device without a random source may come again. As long as its answer is not confirmed it may hear it
        // once more, even if it has started anew: nothing was taken in that session.
        if let Some(next) = conn.next.as_mut().filter(|next| !next.is_ending() && !next.is_news(hello.nonce))
        {
            let _ = next.handle(now, &Body::Hello(*hello), true);
            self.conns.list(id);
            return Ok(true);
        }
        if !conn.session.is_news(hello.nonce) {
            return Ok(false);
        }
        let Some(line) = &conn.line else { return Ok(true) };
        let mut session = line.session(Session::accept(now, self.rng.next_nonzero(), self.config.timing));
        let Ok(Heard::Hello { name, instance, about }) = session.handle(now, &Body::Hello(*hello), true)
        else {
            return Ok(true);
        };
        let is_up = conn.session.is_up();
        if is_up {
            conn.next = Some(Box::new(session));
        } else {
            conn.session = session;
        }
        conn.instance = instance;
        let answered = self.handle_hello(id, name, about);
        if answered.is_err() && is_up {
            // Whoever that was: the session that is up does not end with it.
            self.conns.get_mut(id).into_iter().for_each(|conn| conn.next = None);
            return Ok(true);
        }
        answered.map(|()| true)
    }

    /// A frame with a number: taken, kept for later, or dropped.
    fn handle_numbered(
        &mut self,
        id: ConnId,
        peer: PeerId,
        frame: u16,
        body: &[u8],
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return Ok(()) };
        match line.receiving.handle_frame(now, frame) {
            Turn::Next => {
                line.ahead.retain(|(kept, _)| *kept != frame);
                self.handle_placed(id, peer, body, application)?;
                self.handle_ahead(id, application)?;
            }
            Turn::Ahead => {
                line.ahead.push((frame, body.into()));
                line.receiving.kept(frame);
            }
            Turn::Duplicate => {
                let counts = line.sending.counts_mut();
                counts.duplicates = counts.duplicates.wrapping_add(1);
            }
        }
        self.conns.list(id);
        Ok(())
    }

    /// The body of the frame whose turn it is.
    fn handle_placed(
        &mut self,
        id: ConnId,
        peer: PeerId,
        body: &[u8],
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return Ok(()) };
        line.receiving.taken(now);
        let body = wire::decode(body).map_err(CloseReason::from)?;
        if let Body::Data(data) = &body {
            return self.handle_data(id, peer, data, application);
        }
        let Body::Numbered(numbered) = &body else { return Err(CloseReason::Violation) };
        match numbered.content().map_err(CloseReason::from)? {
            Content::Fragment(fragment) => self.handle_fragment(id, peer, &fragment, application),
            Content::Begin(begin) => {
                line.arriving.drop_begun();
                line.expected = begin.number;
                Ok(())
            }
            Content::Bind(bind) => self.handle_bind(peer, &bind),
            Content::Page(page) => self.handle_page(peer, &page),
            Content::TopicFull(full) => self.handle_topic_full(peer, &full),
            Content::Skipped => Ok(()),
        }
    }

    fn handle_fragment(
        &mut self,
        id: ConnId,
        peer: PeerId,
        fragment: &Fragment<'_>,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let max = (self.config.limits.message_max as usize).saturating_add(data::HEAD_LEN_MAX);
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return Ok(()) };
        match line.arriving.handle(fragment, max)? {
            Arrived::Nothing => Ok(()),
            Arrived::Body(body) => {
                let Body::Data(data) = wire::decode(&body).map_err(CloseReason::from)? else {
                    return Err(CloseReason::Violation);
                };
                self.handle_data(id, peer, &data, application)
            }
            Arrived::Rest => {
                // Its sender dropped it when all of it but a lost piece was on its way.
                let gap = Record::Gap { reason: GapReason::Dropped, count: 1 };
                self.handle_placed_record(id, peer, (&gap, 0), false, application)
            }
        }
    }

    /// A record in its place.
    fn handle_data(
        &mut self,
        id: ConnId,
        peer: PeerId,
        data: &Data<'_>,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        self.check_len(data.record.len())?;
        let record = data.record.decode().map_err(CloseReason::from)?;
        let record = record.aged(data.added_age_ms.map(u64::from));
        self.handle_placed_record(id, peer, (&record, data.record.len()), data.sent_before, application)
    }

    fn handle_placed_record(
        &mut self,
        id: ConnId,
        peer: PeerId,
        (record, len): (&Record<'_>, usize),
        sent_before: bool,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return Ok(()) };
        // A record in place of the rest of another one: that one was given up.
        line.arriving.drop_begun();
        let number = line.expected;
        if number == 0 {
            return Err(CloseReason::Violation);
        }
        let count = match record {
            Record::Gap { count, .. } => *count,
            Record::Message { .. } => 1,
        };
        line.expected = number.checked_add(count).ok_or(CloseReason::Violation)?;
        self.handle_record(peer, number, sent_before, record, len, application)?;
        self.list_peer(peer);
        Ok(())
    }

    fn handle_ack(&mut self, id: ConnId, peer: PeerId, ack: &Ack) -> Result<(), CloseReason> {
        let now = self.now;
        let Some(Conn { line: Some(line), .. }) = self.conns.get_mut(id) else { return Ok(()) };
        let Line { sending, others, arrived, rng, .. } = &mut **line;
        let mut known = *arrived;
        let each = |carried: crate::line::Carried| {
            known = carried.completes(known).map_or(known, |number| number.max(known));
        };
        sending
            .handle_ack(now, (ack.received, ack.bitmap, ack.window), rng, each)
            .map_err(|_| CloseReason::Violation)?;
        *arrived = known;
        others.retain(|(frame, _)| (frame.wrapping_sub(ack.received) as i16) > 0);
        let acked = data::widen(ack.acked_low, known);
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        state.next_told = data::widen(ack.next_low, state.inbound.received()).max(state.next_told);
        let Some(outbox) = state.outbox else { return Ok(()) };
        if let Some(outbox) = self.outboxes.get_mut(outbox.0) {
            // What an earlier session brought may have been committed since.
            outbox.out.handle_marks(now, known.max(acked), acked).map_err(close_reason)?;
        }
        self.list(outbox);
        self.conns.list(id);
        Ok(())
    }
}
