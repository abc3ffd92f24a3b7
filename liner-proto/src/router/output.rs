//! What is written on connections.

use alloc::vec::Vec;

use super::conn::{Body as InFlight, Conn, Framing, Transmit};
use super::limits::Spelling;
use super::line;
use super::outbox::Outbox;
use super::peer::Peer;
use super::{PeerId, Router};
use crate::delivery::Next;
use crate::frame::{cobs, length};
use crate::id::{ConnId, Epoch, SessionId};
use crate::memory::{Cursor, SEGMENT_BYTES};
use crate::seal;
use crate::session::Owed;
use crate::time::Instant;
use crate::wire::batch::BatchHead;
use crate::wire::control::{Bind, Close, Echo, Marks, Probe, TopicFull};
use crate::wire::data::DataHead;
use crate::wire::handshake::{About, Acks, Answer, Confirm, Hello, StreamFields};
use crate::wire::record::{self, GapReason};
use crate::wire::{self, Body, VERSION};

/// The largest frame that is not a batch.
const CONTROL_FRAME_MAX: usize = 2048;

/// On links with one message to a frame, frames are put together up to about this many bytes for one write.
pub(super) const COBS_WRITE_BYTES: usize = 4096;

impl Router {
    /// A connection that may have something to write: ask [`poll_transmit`](Self::poll_transmit) for it until that gives
    /// nothing or the link takes no more. In the latter case ask again when the link is writable, without being told here.
    pub fn poll_writable(&mut self) -> Option<ConnId> {
        self.conns.unlist()
    }

    /// A connection that the shell is to close now; answer with [`handle_closed`](Self::handle_closed).
    pub fn poll_close(&mut self) -> Option<ConnId> {
        self.conns.poll_close()
    }

    /// Bytes to write on a connection. Say with [`handle_written`](Self::handle_written) how many were taken.
    ///
    /// Bounded work: at most one segment of messages is framed in a call.
    pub fn poll_transmit(&mut self, now: Instant, id: ConnId) -> Transmit<'_> {
        const NOTHING: Transmit<'_> = Transmit { head: &[], body: &[] };
        self.tick(now);
        if self.conns.get(id).is_some_and(|conn| conn.unwritten() == 0) {
            self.build(id);
        }
        let body = self.conns.get(id).and_then(|conn| conn.body);
        if let Some(body) = body
            && self.in_flight(body).is_none()
        {
            // A peer acknowledged a frame that it cannot have had whole.
            self.conns.finish(id);
            return NOTHING;
        }
        let Some(conn) = self.conns.get(id) else { return NOTHING };
        let head = conn.head.get(conn.written.min(conn.head.len())..).unwrap_or_default();
        let skip = conn.written.saturating_sub(conn.head.len());
        let body = body.and_then(|body| self.in_flight(body)?.get(skip..)).unwrap_or_default();
        Transmit { head, body }
    }

    fn in_flight(&self, body: InFlight) -> Option<&[u8]> {
        self.outboxes.get(body.outbox.0)?.out.bytes_at(body.begin, body.len)
    }

    /// Records that are being written may be acknowledged from an earlier session, and are freed then: what is to be
    /// written of their frame is kept.
    pub(super) fn keep_in_flight(&mut self, id: ConnId, acked: u64) {
        let body = self.conns.get(id).and_then(|conn| conn.body).filter(|body| body.begin.number <= acked);
        let Some(bytes) = body.and_then(|body| self.in_flight(body)).map(<[u8]>::to_vec) else { return };
        if let Some(conn) = self.conns.get_mut(id) {
            conn.head.extend_from_slice(&bytes);
            conn.body = None;
        }
    }

    /// So many of the bytes given by [`poll_transmit`](Self::poll_transmit) were taken by the link.
    pub fn handle_written(&mut self, now: Instant, id: ConnId, bytes: usize) {
        self.tick(now);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if bytes > 0 {
            conn.progress = self.now;
        }
        conn.written += bytes;
        if conn.unwritten() > 0 {
            return;
        }
        conn.head.clear();
        if conn.head.capacity() > 2 * COBS_WRITE_BYTES {
            conn.head = Vec::new();
        }
        conn.body = None;
        conn.written = 0;
        if conn.session.is_closed() {
            self.conns.finish(id);
        }
    }

    /// Puts the next frames of a connection together.
    fn build(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.progress = self.now;
        let mut writer = Writer::take(conn);
        let lead = conn.line.as_ref().is_some_and(|line| line.leads(self.now));
        if lead {
            // A line that was silent may have caught noise: a zero ends it.
            writer.bytes.push(0);
        }
        self.build_session(id, &mut writer);
        let up = self.conns.get(id).filter(|conn| conn.session.is_up()).and_then(|conn| conn.peer);
        let mut body = None;
        if let Some(peer) = up {
            match writer.framing {
                Framing::Length => {
                    self.build_binds(peer, &mut writer);
                    self.build_pages(peer, |page| writer.encoded(page));
                    self.build_full(peer, &mut writer);
                    self.build_marks(peer, &mut writer, false);
                    self.build_loose(id, &mut writer);
                    body = self.build_batch(peer, &mut writer);
                }
                Framing::Cobs => self.build_line(id, peer, &mut writer),
            }
        }
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        if lead && writer.bytes.len() == 1 {
            writer.bytes.clear();
        }
        conn.head = writer.bytes;
        conn.body = body;
        if up.is_some() && conn.unwritten() > 0 {
            conn.session.spoke(now);
        }
    }

    // ------------------------------------------------------------------ session

    fn build_session(&mut self, id: ConnId, writer: &mut Writer) {
        let now = self.now;
        let Some(conn) = self.conns.get(id) else { return };
        let Some(owed) = conn.speaking(now).owed(now) else { return };
        if matches!(owed, Owed::Answer { .. }) && self.awaits_rival(id) {
            return;
        }
        let Some(conn) = self.conns.get(id) else { return };
        let dialled = conn.dial.and_then(|dial| self.dials.peer(dial));
        let caller = conn.caller.as_ref().and_then(|caller| self.names.get(&*caller.name).copied());
        let shut = self.is_shut(caller.or(dialled));
        let about = self.about(shut, conn.line.is_some());
        let config = &self.config;
        let mut told = None;
        let before = writer.len();
        writer.seal = conn.speaking(now).seal_out();
        match owed {
            Owed::Hello { nonce } => {
                let (version_min, version_max) = (VERSION, VERSION);
                let (name, instance) = (&*config.name, config.instance);
                writer.frame(&Body::Hello(Hello { version_min, version_max, name, instance, nonce, about }));
            }
            Owed::Answer { echo, nonce } => {
                let Some(caller) = &conn.caller else { return };
                let peer = self.names.get(&*caller.name).copied();
                if self.is_giving_back(peer) {
                    return;
                }
                let mut stream = self.fields(peer, caller.fresh);
                stream.assigned = caller.assigned;
                told = Some(stream.epoch);
                writer.frame(&Body::Answer(Answer {
                    version: VERSION,
                    echo,
                    name: &config.name,
                    instance: config.instance,
                    nonce,
                    about,
                    stream,
                }));
            }
            Owed::Confirm { echo } => {
                if self.is_giving_back(conn.peer) {
                    return;
                }
                let stream = self.fields(conn.peer, Epoch::NONE);
                writer.frame(&Body::Confirm(Confirm { echo, stream }));
            }
            Owed::Probe { number } => writer.frame(&Body::Probe(Probe { number })),
            Owed::Echo { number } => writer.frame(&Body::Echo(Echo { number })),
            Owed::KeepAlive => {
                let Some(peer) = conn.peer else { return };
                match writer.framing {
                    Framing::Length => self.build_marks(peer, writer, true),
                    Framing::Cobs => self.build_ack(id, peer, writer, true),
                }
            }
            Owed::Greet => writer.frame(&Body::Greet),
            Owed::Close(reason) => writer.frame(&Body::Close(Close { reason, text: "" })),
        }
        if let Some(conn) = self.conns.get_mut(id) {
            // The session before this handshake may have something to say in between.
            if let (Some(caller), Some(told)) = (&mut conn.caller, told) {
                caller.told = told;
            }
            conn.told_shut |= shut && matches!(owed, Owed::Hello { .. } | Owed::Answer { .. });
            conn.speaking_mut(now).sent(now);
            writer.seal = conn.session.seal_out();
            if let Some(line) = conn.line.as_mut().filter(|_| !matches!(owed, Owed::KeepAlive)) {
                line.occupy(now, writer.len() - before);
            }
        }
    }

    /// Whether what was queued for the peer is on its way back to its topics, or its queue is being closed, and that is not
    /// committed. Until it is, the peer must not hear where its stream begins: it would never take the messages again if they
    /// came back.
    fn is_giving_back(&self, peer: Option<PeerId>) -> bool {
        let outbox = peer.and_then(|peer| self.outboxes.get(self.peers.get(peer.0)?.outbox?.0));
        outbox.is_some_and(|outbox| outbox.closing || (outbox.returning && outbox.out.owes_trim()))
    }

    fn about(&self, shut: bool, on_line: bool) -> About {
        let limits = &self.config.limits;
        // What it acknowledges nobody has dealt with yet.
        let stores = self.config.takes_custody || self.config.inbox.is_some();
        let frame_max = if on_line { line::FRAME_MAX as u32 } else { limits.frame_max };
        About {
            inbox: self.inbox,
            acks: if stores { Acks::from(self.config.class) } else { Acks::Processed },
            frame_max,
            message_max: limits.message_max,
            window_messages: if shut { 0 } else { limits.window_messages },
            window_bytes: limits.window_bytes,
            bindings_max: limits.bindings_max,
            seals: About::SEAL_CRC32C,
            roles: if self.config.takes_custody { About::ROLE_CUSTODY } else { 0 },
        }
    }

    fn fields(&self, peer: Option<PeerId>, fresh: Epoch) -> StreamFields {
        let state = peer.and_then(|peer| self.peers.get(peer.0));
        let known = state.and_then(|state| state.inbound.known());
        let outbox = state.and_then(|state| self.outboxes.get(state.outbox?.0));
        match outbox {
            Some(outbox) => outbox.out.fields(known),
            None => {
                StreamFields { epoch: fresh, predecessor: None, oldest: 1, next: 1, known, assigned: None }
            }
        }
    }

    // ------------------------------------------------------------------ marks, topics

    fn build_marks(&mut self, peer: PeerId, writer: &mut Writer, always: bool) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if !always && !state.inbound.owes_marks() {
            return;
        }
        let next = state.outbox.and_then(|id| self.outboxes.get(id.0)).map_or(1, |outbox| outbox.out.next());
        let inbound = &mut state.inbound;
        writer.frame(&Body::Marks(Marks {
            received: inbound.received(),
            acked: inbound.acked(),
            messages_limit: inbound.messages_limit(),
            bytes_limit: inbound.bytes_limit(),
            next,
        }));
        inbound.set_told();
    }

    /// News of topics that are full, or not any more.
    fn build_full(&mut self, peer: PeerId, writer: &mut Writer) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        for (topic, after) in state.full_news.drain(..) {
            writer.frame(&Body::TopicFull(TopicFull { topic: self.topics.text(topic), after }));
        }
    }

    /// Every number has to be bound before a message uses it; numbers are few and never change.
    fn build_binds(&mut self, peer: PeerId, writer: &mut Writer) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get(id.0)) else { return };
        let (keeps, topic_max) = (state.bindings_max(), state.topic_max());
        while let Some(&topic) = outbox.topics.get(state.bound).filter(|_| state.bound < keeps) {
            if writer.bytes.len() > SEGMENT_BYTES {
                return;
            }
            state.bound += 1;
            let text = self.topics.text(topic);
            if text.len() <= topic_max {
                writer.frame(&Body::Bind(Bind { number: state.bound as u32, text }));
            }
        }
    }

    // ------------------------------------------------------------------ messages

    fn build_batch(&mut self, peer: PeerId, writer: &mut Writer) -> Option<InFlight> {
        let now = self.now;
        let state = self.peers.get_mut(peer.0)?;
        let id = state.outbox?;
        let outbox = self.outboxes.get_mut(id.0)?;
        if state.partial.is_begun() {
            self.build_rest(peer, writer);
            return None;
        }
        if !may_send(state, outbox) {
            return None;
        }
        let spelling = Spelling::new(state, outbox, &self.topics, self.calendar.at(now));
        let frame_max = state.frame_max();
        let credit =
            usize::try_from(state.bytes_limit.saturating_sub(state.bytes_sent)).unwrap_or(usize::MAX);
        let frame_room = frame_max.saturating_sub(BatchHead::LEN_MAX + seal::LEN);
        let next = outbox.out.sent();
        let limit = messages_limit(state, outbox).min(next + (state.batch_max - 1));
        if !spelling.is_plain() {
            return self.build_spelled(peer, limit, (frame_room, credit), writer);
        }
        // A window smaller than the next message still takes it, when the peer holds nothing else.
        let alone = outbox.out.acked() + 1 == next
            && outbox.out.next_piece(limit, frame_room.min(credit)) == Next::Nothing;
        let (through, room) =
            if alone { (limit.min(next), frame_room) } else { (limit, frame_room.min(credit)) };
        match outbox.out.next_piece(through, room) {
            Next::Run { begin, end, bytes, sent_before } => {
                let whole = spelling.takes_whole(bytes, begin);
                let (bytes, end) = if whole { (bytes, end) } else { spelling.front(bytes, begin) };
                let len = bytes.len();
                if len == 0 {
                    // It is refused, or not sent as it stands there.
                    return self.build_spelled(peer, limit, (frame_room, credit), writer);
                }
                let head =
                    BatchHead { sent_before, first: begin.number, last: end.number - 1, added_age_ms: None };
                writer.batch_head(&head, bytes);
                outbox.out.advance(now, end);
                state.note_batch(len);
                Some(InFlight { outbox: id, begin, len })
            }
            Next::Nothing => {
                self.begin_pieces(peer, limit, (frame_room, credit), writer);
                None
            }
            Next::Load { .. } => {
                self.want_load(id);
                None
            }
            Next::Gap { first, last, reason } => {
                self.build_gap(peer, (first, last, reason), credit, writer);
                None
            }
        }
    }

    /// A gap for numbers that were dropped, if it may be sent: it has no more room in the window than a message.
    fn build_gap(
        &mut self,
        peer: PeerId,
        (first, last, reason): (u64, u64, GapReason),
        credit: usize,
        writer: &mut Writer,
    ) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) else { return };
        let run = gap_run(reason, last - first + 1);
        if run.bytes().len() > credit && outbox.out.acked() + 1 != first {
            return;
        }
        let head = BatchHead { sent_before: false, first, last, added_age_ms: None };
        writer.batch(&head, run.bytes());
        outbox.out.advance(self.now, Cursor { number: last + 1, offset: 0 });
        state.bytes_sent += run.bytes().len() as u64;
        if let Some(conn) = state.conn {
            self.conns.list(conn);
        }
    }

    /// A batch for a peer that keeps fewer topic numbers than its queue has given out: its records are copied, with the
    /// topics of the others written out. So many bytes have room in a frame, and so many may be sent.
    fn build_spelled(
        &mut self,
        peer: PeerId,
        limit: u64,
        (frame_room, credit): (usize, usize),
        writer: &mut Writer,
    ) -> Option<InFlight> {
        let now = self.now;
        let state = self.peers.get_mut(peer.0)?;
        let id = state.outbox?;
        let outbox = self.outboxes.get_mut(id.0)?;
        let spelling = Spelling::new(state, outbox, &self.topics, self.calendar.at(now));
        let alone = if outbox.out.acked() + 1 == outbox.out.sent() { frame_room } else { 0 };
        match outbox.out.next_piece(limit, usize::MAX) {
            Next::Run { begin, bytes, sent_before, .. } => {
                let (run, end) = spelling.run(bytes, begin, frame_room.min(credit), alone);
                if run.is_empty() {
                    self.begin_pieces(peer, limit, (frame_room, credit), writer);
                    return None;
                }
                let head =
                    BatchHead { sent_before, first: begin.number, last: end.number - 1, added_age_ms: None };
                writer.batch(&head, &run);
                outbox.out.advance(now, end);
                state.note_batch(run.len());
            }
            Next::Nothing => {}
            Next::Load { .. } => self.want_load(id),
            Next::Gap { first, last, reason } => self.build_gap(peer, (first, last, reason), credit, writer),
        }
        None
    }
}

/// Whether messages of the queue may leave for the peer. What is being put aside is not sent after all, whatever a newer session
/// takes.
pub(super) fn may_send(state: &Peer, outbox: &Outbox) -> bool {
    let bound = state.bound >= outbox.topics.len().min(state.bindings_max());
    !state.held && outbox.may_send() && bound && !outbox.is_putting_aside()
}

/// The last number that may be sent. As long as everything that is queued is of topics of which the peer keeps no more, only gaps are
/// told: the peer would put the messages aside. What stands before a message to another topic is sent all the same, so that no
/// topic waits for another's subscriber.
pub(super) fn messages_limit(state: &Peer, outbox: &Outbox) -> u64 {
    if state.full.is_empty() || !outbox.has_only(&state.full) {
        return state.messages_limit;
    }
    let next = outbox.out.sent();
    let is_message = match outbox.out.next_piece(u64::MAX, usize::MAX) {
        Next::Run { bytes, .. } => {
            record::split_first(bytes).is_some_and(|(record, _)| record::is_message(record))
        }
        Next::Nothing | Next::Gap { .. } | Next::Load { .. } => false,
    };
    state.messages_limit.min(if is_message { next - 1 } else { next })
}

/// A gap as a record with its length.
struct GapRun {
    bytes: [u8; record::GAP_LEN_MAX + 1],
    len: usize,
}

impl GapRun {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..=self.len).unwrap_or_default()
    }
}

fn gap_run(reason: GapReason, count: u64) -> GapRun {
    let mut run = GapRun { bytes: [0; record::GAP_LEN_MAX + 1], len: 0 };
    if let Some((head, body)) = run.bytes.split_first_mut() {
        run.len = record::encode_gap(reason, count, body).unwrap_or(0);
        *head = run.len as u8;
    }
    run
}

/// Puts frames together for one connection.
pub(super) struct Writer {
    bytes: Vec<u8>,
    framing: Framing,
    seal: SessionId,
}

impl Writer {
    fn take(conn: &mut Conn) -> Self {
        let bytes = core::mem::take(&mut conn.head);
        Self { bytes, framing: conn.framing, seal: conn.session.seal_out() }
    }

    /// Bytes put together so far.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a frame whose body these parts make, at most five.
    pub(super) fn parts(&mut self, parts: &[&[u8]]) {
        self.sealed(parts);
    }

    /// Adds a frame that is not a batch.
    pub(super) fn frame(&mut self, body: &Body<'_>) {
        let mut scratch = [0; CONTROL_FRAME_MAX];
        // All texts in control frames are names and topics of at most 255 bytes.
        let len = wire::encode(body, &mut scratch).unwrap_or(0);
        debug_assert!(len > 0);
        self.sealed(&[scratch.get(..len).unwrap_or_default()]);
    }

    /// Adds a frame whose body is already encoded.
    pub(super) fn encoded(&mut self, body: &[u8]) {
        self.sealed(&[body]);
    }

    fn sealed(&mut self, parts: &[&[u8]]) {
        let crc = seal::checksum(self.seal, parts).to_le_bytes();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        match self.framing {
            Framing::Length => {
                self.bytes.extend_from_slice(&((len + seal::LEN) as u32).to_le_bytes());
                self.bytes.extend_from_slice(&crc);
                for part in parts {
                    self.bytes.extend_from_slice(part);
                }
            }
            Framing::Cobs => {
                let begin = self.bytes.len();
                self.bytes.resize(begin + cobs::encoded_len_max(len + seal::LEN), 0);
                let room = self.bytes.get_mut(begin..).unwrap_or_default();
                let part = |index: usize| parts.get(index).copied().unwrap_or_default();
                let all = [&crc, part(0), part(1), part(2), part(3), part(4)];
                let written = cobs::encode(&all, room).unwrap_or(0);
                self.bytes.truncate(begin + written);
            }
        }
    }

    /// Adds a batch frame with its records.
    fn batch(&mut self, head: &BatchHead, run: &[u8]) {
        self.batch_head(head, run);
        self.bytes.extend_from_slice(run);
    }

    /// Adds a batch frame whose records are written from where they stand.
    fn batch_head(&mut self, head: &BatchHead, run: &[u8]) {
        let mut scratch = [0; BatchHead::LEN_MAX];
        let len = head.encode(&mut scratch).unwrap_or(0);
        let head = scratch.get(..len).unwrap_or_default();
        let crc = seal::checksum(self.seal, &[head, run]).to_le_bytes();
        let total = (head.len() + run.len() + seal::LEN) as u32;
        self.bytes.reserve(length::HEAD + seal::LEN + head.len());
        self.bytes.extend_from_slice(&total.to_le_bytes());
        self.bytes.extend_from_slice(&crc);
        self.bytes.extend_from_slice(head);
    }

    /// Adds a frame with one message without a number.
    pub(super) fn data(&mut self, record: &[u8]) {
        let Some(parts) = (DataHead { sent_before: false, frame: 0, added_age_ms: 0 }).encode(record) else {
            return;
        };
        self.sealed(&parts.slices());
    }
}
