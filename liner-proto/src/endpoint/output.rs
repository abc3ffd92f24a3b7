//! What goes out on the line.

use super::{Endpoint, Takes};
use crate::delivery::Next;
use crate::frame::cobs;
use crate::id::SessionId;
use crate::line::{Carried, FRAMES_MAX, SILENCE};
use crate::memory::Cursor;
use crate::seal;
use crate::session::Owed;
use crate::time::Instant;
use crate::wire::control::{
    Ack, Begin, Bind, Close, Echo, FRAGMENT_HEAD_MAX, Fragment, NUMBERED_HEAD, Numbered, Probe,
};
use crate::wire::data::{DataHead, widen};
use crate::wire::handshake::{About, Acks, Confirm, Hello};
use crate::wire::record::{self, GAP_LEN_MAX, Record};
use crate::wire::{self, Body, FRAME_MIN, VERSION};

/// The most bytes in front of a piece of a record, in its frame.
const PIECE_HEAD: usize = seal::LEN + NUMBERED_HEAD + FRAGMENT_HEAD_MAX;

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> Endpoint<'_, QUEUE, FRAME, MESSAGE> {
    /// The bytes that a buffer for [`poll_transmit`](Self::poll_transmit) must have.
    pub const TRANSMIT_MIN: usize = cobs::encoded_len_max(FRAME) + 1;

    /// The longest frame that is taken: as it stands on the line it has to fit the buffer for it.
    pub(super) const FRAME_MAX: usize = FRAME - FRAME / 254 - 2;

    /// Writes whole frames to the front of `out`, as many as fit. Returns the bytes written; 0 if there is nothing to send.
    ///
    /// What was written is taken as sent: a link that takes only a part of it has to be given the rest later.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> usize {
        self.tick(now);
        let mut len = 0;
        while out.len() - len >= Self::TRANSMIT_MIN {
            let written = self.next_frame(out.get_mut(len..).unwrap_or_default());
            if written == 0 {
                break;
            }
            len += written;
        }
        len
    }

    fn next_frame(&mut self, out: &mut [u8]) -> usize {
        let now = self.now;
        // A line that was silent may have caught noise: a zero ends it.
        let lead = usize::from(now.since(self.spoke) >= SILENCE || self.spoke == Instant::ZERO);
        let Some((zero, room)) = out.split_at_mut_checked(lead) else { return 0 };
        zero.fill(0);
        let len = self.frame(room);
        if len == 0 {
            return 0;
        }
        self.spoke = now;
        if let Some(session) = &mut self.session {
            session.spoke(now);
        }
        lead + len
    }

    fn frame(&mut self, out: &mut [u8]) -> usize {
        let now = self.now;
        if self.peer.as_ref().is_some_and(|peer| peer.sending.ready_at() > now) {
            return 0;
        }
        let Some(session) = &self.session else { return 0 };
        let (owed, is_up) = (session.owed(now), self.is_up());
        // What nobody waits for does not interrupt a side that may not be heard.
        let turn = !self.config.line.half_duplex
            || self.peer.as_ref().is_none_or(|peer| peer.sending.in_flight() == 0);
        if let Some(owed) = owed.filter(|owed| turn || !matches!(owed, Owed::KeepAlive)) {
            let len = self.session_frame(owed, out);
            if let Some(session) = &mut self.session {
                session.sent(now);
            }
            return self.occupy(len);
        }
        if !is_up {
            return 0;
        }
        let Some(peer) = &self.peer else { return 0 };
        if peer.receiving.owes_ack(now)
            || turn && (self.inbound.owes_marks() || peer.tells_next(now, &self.out))
        {
            let len = self.ack_frame(out);
            return self.occupy(len);
        }
        self.numbered_frame(out)
    }

    /// The line is given a frame without a number.
    fn occupy(&mut self, len: usize) -> usize {
        if let Some(peer) = &mut self.peer
            && len > 0
        {
            peer.sending.occupy(self.now, len);
        }
        len
    }

    fn session_frame(&mut self, owed: Owed, out: &mut [u8]) -> usize {
        let body = match owed {
            Owed::Hello { nonce } => Body::Hello(Hello {
                version_min: VERSION,
                version_max: VERSION,
                name: self.config.name,
                instance: self.instance,
                nonce,
                about: self.about(),
            }),
            Owed::Confirm { echo } => {
                Body::Confirm(Confirm { echo, stream: self.out.fields(self.inbound.known()) })
            }
            Owed::Probe { number } => Body::Probe(Probe { number }),
            Owed::Echo { number } => Body::Echo(Echo { number }),
            Owed::KeepAlive => return self.ack_frame(out),
            Owed::Close(reason) => Body::Close(Close { reason, text: "" }),
            // A device dials.
            Owed::Answer { .. } | Owed::Greet => return 0,
        };
        self.control_frame(&[], &body, out)
    }

    fn about(&self) -> About {
        let limits = Self::limits(&self.config);
        About {
            inbox: self.inbox,
            acks: Acks::Processed,
            frame_max: limits.frame_max,
            message_max: limits.message_max,
            window_messages: limits.window_messages,
            window_bytes: limits.window_bytes,
            bindings_max: limits.bindings_max,
            seals: About::SEAL_CRC32C,
            roles: if self.inbox.is_none() { About::ROLE_WITHOUT_EPOCHS } else { 0 },
        }
    }

    fn ack_frame(&mut self, out: &mut [u8]) -> usize {
        let window = self.inbound.frames_window(FRAMES_MAX);
        let Some(peer) = &mut self.peer else { return 0 };
        let (received, bitmap) = peer.receiving.marks();
        let next = self.out.next();
        peer.receiving.acked(window);
        peer.told_next = (next, self.now);
        let ack =
            Ack { received, bitmap, acked_low: self.inbound.acked() as u32, window, next_low: next as u32 };
        self.inbound.set_told();
        self.control_frame(&[], &Body::Ack(ack), out)
    }

    fn control_frame(&self, head: &[u8], body: &Body<'_>, out: &mut [u8]) -> usize {
        let mut scratch = [0; FRAME_MIN];
        let Ok(len) = wire::encode(body, &mut scratch) else { return 0 };
        sealed(self.seal_out(), &[head, scratch.get(..len).unwrap_or_default()], out)
    }

    fn seal_out(&self) -> SessionId {
        self.session.as_ref().map_or(SessionId::HANDSHAKE, crate::session::Session::seal_out)
    }

    // ------------------------------------------------------------------ numbered frames

    /// A frame that has to arrive: one that was lost, or a new one.
    fn numbered_frame(&mut self, out: &mut [u8]) -> usize {
        let now = self.now;
        let Some(peer) = &self.peer else { return 0 };
        if let Some((number, carried)) = peer.sending.lost() {
            let len = self.carry(number, carried, out);
            if let Some(peer) = &mut self.peer {
                peer.sending.sent_again(now, number, len, &mut self.rng);
            }
            return len;
        }
        if !peer.sending.may_send() || peer.held || self.storage.rotation.is_some() {
            return 0;
        }
        let number = peer.sending.next();
        let Some(carried) = self.next_carried() else { return 0 };
        let len = self.carry(number, carried, out);
        debug_assert!(len > 0, "what is to be sent can be sent");
        if let Some(peer) = &mut self.peer {
            peer.sending.push(now, carried, len, &mut self.rng);
        }
        self.advance(carried);
        len
    }

    /// What the next new frame is to carry.
    fn next_carried(&mut self) -> Option<Carried> {
        let peer = self.peer.as_mut()?;
        if usize::from(peer.bound) < self.config.topics.len().min(self.takes.bindings_max) {
            return Some(Carried::Other(peer.bound));
        }
        let (first, carried) = match self.out.next_piece(u64::MAX, usize::MAX) {
            Next::Nothing => return None,
            Next::Load { after } => {
                self.storage.load = Some(after);
                return None;
            }
            Next::Gap { first, last, .. } => {
                (first, Carried::Gap(first as u32, u32::try_from(last - first + 1).unwrap_or(u32::MAX)))
            }
            Next::Run { begin, bytes, .. } => {
                // A message that the gateway takes never waits behind others.
                if self.queued.is_within(peer.full) {
                    return None;
                }
                let (record, _) = record::split_first(bytes)?;
                let number = begin.number;
                let mut scratch = [0; FRAME_MIN];
                let (front, payload) = self.takes.parts(record, self.config.topics, &mut scratch);
                if front.len() + payload.len() > self.takes.record_max {
                    if number == self.out.acked() + 1 && peer.told_long < number {
                        peer.told_long = number;
                        self.notice.too_large = true;
                    }
                    return None;
                }
                let low = number as u32;
                let head = DataHead { sent_before: false, frame: 0, added_age_ms: 0 };
                let total = head.encode(front)?.len() + payload.len();
                let room = self.takes.frame_max.min(FRAME);
                let carried = match record::numbers_of(record) {
                    1 if total + seal::LEN <= room => Carried::Record(low),
                    1 => {
                        let at = if peer.partial.0 == number { peer.partial.1 } else { 0 };
                        let is_last = total - at as usize <= room - PIECE_HEAD;
                        if is_last { Carried::LastPiece(low, at) } else { Carried::Piece(low, at) }
                    }
                    count => Carried::Gap(low, u32::try_from(count).unwrap_or(u32::MAX)),
                };
                (number, carried)
            }
        };
        if peer.announced != first {
            return Some(Carried::Begin(first as u32));
        }
        Some(carried)
    }

    /// A new frame is on its way.
    fn advance(&mut self, carried: Carried) {
        let Some(peer) = &mut self.peer else { return };
        let near = peer.arrived;
        match carried {
            Carried::Other(_) => peer.bound += 1,
            Carried::Begin(number) => peer.announced = widen(number, near),
            Carried::Piece(number, at) => {
                let piece = self.takes.frame_max.min(FRAME) - PIECE_HEAD;
                peer.partial = (widen(number, near), at + piece as u32);
            }
            Carried::Record(_) | Carried::LastPiece(..) | Carried::Gap(..) => {
                peer.partial = (0, 0);
                let number = carried.completes(near).map_or(0, |last| last + 1);
                peer.announced = number;
                self.out.advance(self.now, Cursor { number, offset: 0 });
            }
        }
    }

    /// Writes a numbered frame. The bytes of a record come from where it stands in the queue; if it was dropped there since it
    /// was sent, a gap takes its place.
    fn carry(&self, frame: u16, carried: Carried, out: &mut [u8]) -> usize {
        let Some(peer) = &self.peer else { return 0 };
        let numbered = Numbered::head(frame);
        match carried {
            Carried::Begin(number) => {
                let begin = Begin { number: widen(number, peer.arrived) };
                self.control_frame(&numbered, &Body::Begin(begin), out)
            }
            Carried::Other(place) => {
                let text = self.config.topics.get(usize::from(place)).copied().unwrap_or_default();
                let bind = Bind { number: u32::from(place) + 1, text };
                self.control_frame(&numbered, &Body::Bind(bind), out)
            }
            Carried::Gap(first, count) => self.gap_frame(frame, widen(first, peer.arrived), count, out),
            Carried::Record(number) => {
                let number = widen(number, peer.arrived);
                self.data_frame(frame, number, None, out)
                    .unwrap_or_else(|| self.gap_frame(frame, number, 1, out))
            }
            Carried::Piece(number, at) => {
                let number = widen(number, peer.arrived);
                self.data_frame(frame, number, Some(at), out).unwrap_or_else(|| {
                    let (given_up, len) = Fragment::head(0);
                    sealed(self.seal_out(), &[&numbered, given_up.get(..len).unwrap_or_default()], out)
                })
            }
            Carried::LastPiece(number, at) => {
                let number = widen(number, peer.arrived);
                self.data_frame(frame, number, Some(at), out)
                    .unwrap_or_else(|| self.gap_frame(frame, number, 1, out))
            }
        }
    }

    fn gap_frame(&self, frame: u16, first: u64, count: u32, out: &mut [u8]) -> usize {
        let stored = self.out.record_at(first).and_then(|record| record::decode(record).ok());
        let reason = match stored {
            Some(Record::Gap { reason, .. }) => reason,
            Some(Record::Message { .. }) | None => self.out.gone_reason(first),
        };
        let mut gap = [0; GAP_LEN_MAX];
        let len = record::encode_gap(reason, u64::from(count), &mut gap).unwrap_or(0);
        let head = DataHead { sent_before: false, frame, added_age_ms: 0 };
        let Some(parts) = head.encode(gap.get(..len).unwrap_or_default()) else { return 0 };
        sealed(self.seal_out(), &parts.slices(), out)
    }

    /// A record, whole or from a byte of its body on; nothing if it is not there any more.
    fn data_frame(&self, frame: u16, number: u64, at: Option<u32>, out: &mut [u8]) -> Option<usize> {
        let record = self.out.record_at(number).filter(|record| record::is_message(record))?;
        let mut scratch = [0; FRAME_MIN];
        let (front, payload) = self.takes.parts(record, self.config.topics, &mut scratch);
        let sent_before = self.out.is_doubtful(number);
        let own = if at.is_some() { 0 } else { frame };
        let parts = DataHead { sent_before, frame: own, added_age_ms: 0 }.encode(front)?;
        let [head, front] = parts.slices();
        let Some(at) = at else { return Some(sealed(self.seal_out(), &[head, front, payload], out)) };
        let left = parts.len() + payload.len() - at as usize;
        let room = self.takes.frame_max.min(FRAME) - PIECE_HEAD;
        let (fragment, len) = Fragment::head(left as u32);
        let mut skip = at as usize;
        let mut room = room;
        let cut = |part: &'_ [u8]| {
            let from = skip.min(part.len());
            let to = part.len().min(from + room);
            skip -= from;
            room -= to - from;
            from..to
        };
        let [a, b, c] = [head, front, payload].map(cut);
        let piece =
            [&Numbered::head(frame)[..], fragment.get(..len)?, head.get(a)?, front.get(b)?, payload.get(c)?];
        Some(sealed(self.seal_out(), &piece, out))
    }
}

impl Takes {
    /// A record as it is sent, in two parts: as it stands, or with its topic written out in `scratch`.
    fn parts<'r>(&self, record: &'r [u8], topics: &[&'r str], scratch: &'r mut [u8]) -> (&'r [u8], &'r [u8]) {
        let Ok(Record::Message { header, payload }) = record::decode(record) else { return (record, &[]) };
        let spelled = self.spelled(&header, topics);
        if spelled == header {
            return (record, &[]);
        }
        let len = spelled.encode_into(scratch).unwrap_or(0);
        (scratch.get(..len).unwrap_or_default(), payload)
    }
}

/// Writes one frame of up to five parts; returns its bytes with the zero.
fn sealed(session: SessionId, parts: &[&[u8]], out: &mut [u8]) -> usize {
    let seal = seal::seal(session, parts);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    cobs::encode(&[&seal, part(0), part(1), part(2), part(3), part(4)], out).unwrap_or(0)
}
