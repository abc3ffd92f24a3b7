//! What is written on a line.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::super::limits::Spelling;
use super::super::output::{COBS_WRITE_BYTES, Writer, may_send, messages_limit};
use super::super::pieces::cut;
use super::super::{PeerId, Router};
use super::{FRAME_MAX, Line, NUDGE};
use crate::delivery::Next;
use crate::id::ConnId;
use crate::line::{Carried, FRAMES_MAX};
use crate::logging::debug;
use crate::memory::Cursor;
use crate::seal;
use crate::time::Instant;
use crate::wire::control::{
    Ack, Begin, Bind, FRAGMENT_HEAD_MAX, Fragment, NUMBERED_HEAD, Numbered, TopicFull,
};
use crate::wire::data::{DataHead, widen};
use crate::wire::record::{self, GAP_LEN_MAX, GapReason, Record};
use crate::wire::{self, Body};

/// The most bytes in front of a piece of a record, in its frame.
const PIECE_HEAD: usize = seal::LEN + NUMBERED_HEAD + FRAGMENT_HEAD_MAX;

/// The largest body of a frame with a number that is no record.
const OTHER_MAX: usize = 512;

impl Line {
    /// Whether the line can take a frame now, for as long as it is known to.
    pub(in super::super) fn is_ready(&self, now: Instant) -> bool {
        self.sending.ready_at(now).is_none()
    }

    /// Frames for the line are put together. Says whether a zero is to lead them.
    pub(in super::super) fn leads(&self, now: Instant) -> bool {
        self.spoke.is_none_or(|spoke| now.since(spoke) >= crate::line::SILENCE)
    }

    /// A frame without a number, of `bytes` bytes, is given to the line.
    pub(in super::super) fn occupy(&mut self, now: Instant, bytes: usize) {
        self.spoke = Some(now);
        self.sending.occupy(now, bytes);
    }

    /// Whether a frame that nobody waits for may go now: not while a side that cannot hear and speak at once is answered.
    pub(in super::super) fn has_turn(&self) -> bool {
        !self.config.half_duplex || self.sending.in_flight() == 0
    }

    /// What was lost of a frame that is no record.
    fn other(&self, frame: u16) -> Option<&[u8]> {
        self.others.iter().find(|(other, _)| *other == frame).map(|(_, body)| &**body)
    }
}

impl Router {
    /// Frames of a session on a line.
    pub(in super::super) fn build_line(&mut self, id: ConnId, peer: PeerId, writer: &mut Writer) {
        let now = self.now;
        self.build_ack(id, peer, writer, false);
        while writer.len() < COBS_WRITE_BYTES {
            let Some(line) = self.conns.get(id).and_then(|conn| conn.line.as_ref()) else { return };
            if !line.is_ready(now) {
                return;
            }
            if !self.build_next(id, peer, writer) {
                break;
            }
        }
        self.note_waiting(id, peer);
    }

    /// The next frame. What has to arrive and best-effort messages take turns, so that neither waits for more than one frame of the
    /// other. Says whether there was one.
    fn build_next(&mut self, id: ConnId, peer: PeerId, writer: &mut Writer) -> bool {
        let line = self.conns.get(id).and_then(|conn| conn.line.as_ref());
        let loose_first = line.is_some_and(|line| line.loose_first);
        let first = loose_first && self.build_one_loose(id, writer);
        let numbered = !first && (self.build_lost(id, peer, writer) || self.build_new(id, peer, writer));
        let built = first || numbered || (!loose_first && self.build_one_loose(id, writer));
        let line = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut());
        line.into_iter().for_each(|line| line.loose_first = numbered);
        built
    }

    /// If only a word of the peer's helps, it is asked for one after a while.
    fn note_waiting(&mut self, id: ConnId, peer: PeerId) {
        let now = self.now;
        let outbox = self.peers.get(peer.0).and_then(|peer| self.outboxes.get(peer.outbox?.0));
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return };
        let waits = outbox.is_some_and(|outbox| {
            let out = &outbox.out;
            line.sending.in_flight() == 0
                && (out.acked() + 1 < out.sent() || (line.sending.is_shut() && out.queued() > 0))
        });
        line.nudge_at = if waits { line.nudge_at.or(Some(now + NUDGE)) } else { None };
    }

    /// The peer hears how far this side has come, if it is to; `always` if it is to in any case.
    pub(in super::super) fn build_ack(
        &mut self,
        id: ConnId,
        peer: PeerId,
        writer: &mut Writer,
        always: bool,
    ) {
        let now = self.now;
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return };
        let owed = line.receiving.owes_ack(now) || (line.has_turn() && state.inbound.owes_marks());
        if !(always || owed && line.is_ready(now)) {
            return;
        }
        let next = state.outbox.and_then(|id| self.outboxes.get(id.0)).map_or(1, |outbox| outbox.out.next());
        let (received, bitmap) = line.receiving.marks();
        let window = state.inbound.frames_window(FRAMES_MAX);
        line.receiving.acked(window);
        state.inbound.set_told();
        let before = writer.len();
        writer.frame(&Body::Ack(Ack {
            received,
            bitmap,
            acked_low: state.inbound.acked() as u32,
            window,
            next_low: next as u32,
        }));
        line.occupy(now, writer.len() - before);
    }

    /// A frame that was lost. Says whether there was one.
    fn build_lost(&mut self, id: ConnId, peer: PeerId, writer: &mut Writer) -> bool {
        let now = self.now;
        let Some(line) = self.conns.get(id).and_then(|conn| conn.line.as_ref()) else { return false };
        let Some((frame, carried)) = line.sending.lost() else { return false };
        debug!("frame {} to {:?} is sent again", frame, self.name_of(id));
        let before = writer.len();
        self.carry(id, peer, (frame, carried), writer);
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return false };
        line.spoke = Some(now);
        line.sending.sent_again(now, frame, writer.len() - before, &mut line.rng);
        true
    }

    /// A new frame. Says whether there was one.
    fn build_new(&mut self, id: ConnId, peer: PeerId, writer: &mut Writer) -> bool {
        let now = self.now;
        let may = |line: &Line| line.sending.may_send();
        if !self.conns.get(id).and_then(|conn| conn.line.as_deref()).is_some_and(may) {
            return false;
        }
        let Some(frame) = self.build_other(id, peer) else { return self.build_record(id, peer, writer) };
        let before = writer.len();
        self.carry(id, peer, (frame, Carried::Other(0)), writer);
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return false };
        line.spoke = Some(now);
        line.sending.push(now, Carried::Other(0), writer.len() - before, &mut line.rng);
        true
    }

    /// The next frame that is no record, put among those under way: the number of a topic before a message uses it, and news of
    /// topics, of subscriptions and of those that are full.
    fn build_other(&mut self, id: ConnId, peer: PeerId) -> Option<u16> {
        // One state of the directory at a time: however often it changes meanwhile, the newest one follows.
        if self.conns.get(id)?.line.as_ref()?.pages.is_empty() {
            let mut pages: VecDeque<Box<[u8]>> = VecDeque::new();
            self.build_pages(peer, |page| pages.push_back(page.into()));
            self.conns.get_mut(id)?.line.as_mut()?.pages = pages;
        }
        let line = self.conns.get_mut(id)?.line.as_mut()?;
        let state = self.peers.get_mut(peer.0)?;
        let (keeps, topic_max) = (state.bindings_max(), state.topic_max());
        let outbox = state.outbox.and_then(|id| self.outboxes.get(id.0));
        let topics = outbox.map_or(&[][..], |outbox| &outbox.topics);
        let unbound = topics.iter().take(keeps).enumerate().skip(state.bound);
        let mut unbound = unbound.filter(|(_, topic)| self.topics.text(**topic).len() <= topic_max);
        let next = unbound.next();
        state.bound = next.map_or(topics.len().min(keeps), |(index, _)| index);
        let mut body = [0; OTHER_MAX];
        let len = if let Some((_, &topic)) = next {
            state.bound += 1;
            let bind = Bind { number: state.bound as u32, text: self.topics.text(topic) };
            wire::encode(&Body::Bind(bind), &mut body)
        } else {
            if let Some(page) = line.pages.pop_front() {
                let frame = line.sending.next();
                line.others.push_back((frame, page));
                return Some(frame);
            }
            if state.full_news.is_empty() {
                return None;
            }
            let (topic, after) = state.full_news.remove(0);
            wire::encode(&Body::TopicFull(TopicFull { topic: self.topics.text(topic), after }), &mut body)
        };
        let line = self.conns.get_mut(id)?.line.as_mut()?;
        let frame = line.sending.next();
        // Texts have at most 255 bytes.
        line.others.push_back((frame, body.get(..len.unwrap_or(0))?.into()));
        Some(frame)
    }

    fn build_record(&mut self, id: ConnId, peer: PeerId, writer: &mut Writer) -> bool {
        let now = self.now;
        let Some(carried) = self.next_carried(id, peer) else { return false };
        let Some(line) = self.conns.get(id).and_then(|conn| conn.line.as_ref()) else { return false };
        let frame = line.sending.next();
        let before = writer.len();
        self.carry(id, peer, (frame, carried), writer);
        let room = self.piece_room(peer);
        let Some(line) = self.conns.get_mut(id).and_then(|conn| conn.line.as_mut()) else { return false };
        line.spoke = Some(now);
        line.sending.push(now, carried, writer.len() - before, &mut line.rng);
        let near = line.arrived;
        let outbox = self.peers.get(peer.0).and_then(|peer| peer.outbox);
        let Some(outbox) = outbox.and_then(|id| self.outboxes.get_mut(id.0)) else { return true };
        match carried {
            Carried::Other(_) => {}
            Carried::Begin(number) => line.announced = widen(number, near),
            Carried::Piece(number, at) => {
                line.partial = (widen(number, near), at + room as u32);
                let outbox = self.peers.get(peer.0).and_then(|peer| peer.outbox);
                if let Some(outbox) = outbox.and_then(|id| self.outboxes.get_mut(id.0)) {
                    outbox.out.begin_pieces();
                }
            }
            Carried::Record(_) | Carried::LastPiece(..) | Carried::Gap(..) => {
                let number = carried.completes(near).map_or(0, |last| last + 1);
                (line.partial, line.announced) = ((0, 0), number);
                outbox.out.advance(now, Cursor { number, offset: 0 });
            }
        }
        true
    }

    /// Bytes of a body that have room in a frame with a piece of it.
    fn piece_room(&self, peer: PeerId) -> usize {
        self.frame_room(peer) - PIECE_HEAD
    }

    /// The longest frame that the peer takes and that is sent here.
    fn frame_room(&self, peer: PeerId) -> usize {
        let about = self.peers.get(peer.0).and_then(|peer| peer.about);
        about.map_or(wire::FRAME_MIN, |about| about.frame_max as usize).clamp(wire::FRAME_MIN, FRAME_MAX)
    }

    /// What the next new frame with a record is to carry.
    fn next_carried(&mut self, id: ConnId, peer: PeerId) -> Option<Carried> {
        let room = self.frame_room(peer);
        let state = self.peers.get(peer.0)?;
        let outbox_id = state.outbox?;
        let outbox = self.outboxes.get(outbox_id.0)?;
        if !may_send(state, outbox) {
            return None;
        }
        let line = self.conns.get(id)?.line.as_ref()?;
        let (first, carried) = match outbox.out.next_piece(messages_limit(state, outbox), usize::MAX) {
            Next::Nothing => return None,
            Next::Load { .. } => {
                self.want_load(outbox_id);
                return None;
            }
            Next::Gap { first, last, .. } => {
                (first, Carried::Gap(first as u32, u32::try_from(last - first + 1).unwrap_or(u32::MAX)))
            }
            Next::Run { begin, bytes, .. } => {
                let (record, _) = record::split_first(bytes)?;
                let number = begin.number;
                let spelling = Spelling::new(state, outbox, &self.topics, self.reading());
                let at = if line.partial.0 == number { line.partial.1 } else { 0 };
                // What has begun to leave goes on.
                if at == 0 && spelling.refusal(record, number).is_some() {
                    self.put_front_aside(peer);
                    return None;
                }
                let low = number as u32;
                let head = DataHead { sent_before: false, frame: 0, added_age_ms: 0 };
                let (front, payload, _) = spelling.line_parts(record);
                let total = head.encode(&front)?.len() + payload.len();
                let carried = match record::numbers_of(record) {
                    1 if total + seal::LEN <= room => Carried::Record(low),
                    1 => {
                        let is_last = total - at as usize <= room - PIECE_HEAD;
                        if is_last { Carried::LastPiece(low, at) } else { Carried::Piece(low, at) }
                    }
                    count => Carried::Gap(low, u32::try_from(count).unwrap_or(u32::MAX)),
                };
                (number, carried)
            }
        };
        Some(if line.announced == first { carried } else { Carried::Begin(first as u32) })
    }

    /// Writes a numbered frame. The bytes of a record come from where it stands in the queue; if it was dropped there since it
    /// was sent, a gap takes its place.
    fn carry(&self, id: ConnId, peer: PeerId, (frame, carried): (u16, Carried), writer: &mut Writer) {
        let Some(line) = self.conns.get(id).and_then(|conn| conn.line.as_ref()) else { return };
        let head = Numbered::head(frame);
        match carried {
            Carried::Other(_) => writer.parts(&[&head, line.other(frame).unwrap_or_default()]),
            Carried::Begin(number) => {
                let begin = Body::Begin(Begin { number: widen(number, line.arrived) });
                let mut body = [0; 16];
                let len = wire::encode(&begin, &mut body).unwrap_or(0);
                writer.parts(&[&head, body.get(..len).unwrap_or_default()]);
            }
            Carried::Gap(first, count) => {
                self.carry_gap(peer, frame, (widen(first, line.arrived), count), writer);
            }
            Carried::Record(number) => {
                let number = widen(number, line.arrived);
                if self.carry_record(peer, frame, (number, None), writer).is_none() {
                    self.carry_gap(peer, frame, (number, 1), writer);
                }
            }
            Carried::LastPiece(number, at) => {
                let number = widen(number, line.arrived);
                if self.carry_record(peer, frame, (number, Some(at)), writer).is_none() {
                    self.carry_gap(peer, frame, (number, 1), writer);
                }
            }
            Carried::Piece(number, at) => {
                let number = widen(number, line.arrived);
                if self.carry_record(peer, frame, (number, Some(at)), writer).is_none() {
                    let (given_up, len) = Fragment::head(0);
                    writer.parts(&[&head, given_up.get(..len).unwrap_or_default()]);
                }
            }
        }
    }

    fn carry_gap(&self, peer: PeerId, frame: u16, (first, count): (u64, u32), writer: &mut Writer) {
        let outbox = self.peers.get(peer.0).and_then(|peer| self.outboxes.get(peer.outbox?.0));
        let stored = outbox.and_then(|outbox| record::decode(outbox.out.record_at(first)?).ok());
        let reason = match stored {
            Some(Record::Gap { reason, .. }) => reason,
            Some(Record::Message { .. }) | None => {
                outbox.map_or(GapReason::Dropped, |outbox| outbox.out.gone_reason(first))
            }
        };
        let mut gap = [0; GAP_LEN_MAX];
        let len = record::encode_gap(reason, u64::from(count), &mut gap).unwrap_or(0);
        let head = DataHead { sent_before: false, frame, added_age_ms: 0 };
        if let Some(parts) = head.encode(gap.get(..len).unwrap_or_default()) {
            writer.parts(&parts.slices());
        }
    }

    /// A record, whole or from a byte of its body on; nothing if it is not there any more.
    fn carry_record(
        &self,
        peer: PeerId,
        frame: u16,
        (number, at): (u64, Option<u32>),
        writer: &mut Writer,
    ) -> Option<()> {
        let state = self.peers.get(peer.0)?;
        let outbox = self.outboxes.get(state.outbox?.0)?;
        let record = outbox.out.record_at(number).filter(|record| record::is_message(record))?;
        if number <= outbox.out.acked() {
            return None;
        }
        let spelling = Spelling::new(state, outbox, &self.topics, self.reading());
        let (front, payload, added_age_ms) = spelling.line_parts(record);
        let own = if at.is_some() { 0 } else { frame };
        let sent_before = outbox.out.is_doubtful(number);
        let parts = DataHead { sent_before, frame: own, added_age_ms }.encode(&front)?;
        let left = parts.len() + payload.len();
        let [head, front] = parts.slices();
        let Some(at) = at else {
            writer.parts(&[head, front, payload]);
            return Some(());
        };
        let left = left.checked_sub(at as usize)?;
        let (fragment, len) = Fragment::head(u32::try_from(left).ok()?);
        let [a, b, c] = cut([head, front, payload], at as usize, self.piece_room(peer).min(left));
        writer.parts(&[&Numbered::head(frame), fragment.get(..len)?, a, b, c]);
        Some(())
    }
}
