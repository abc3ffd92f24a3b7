//! What goes out on the line.
//!
//! A frame is written where it leaves, a few bytes further behind than it ends up, then sealed and encoded in place: no other
//! buffer is needed.

use super::carried::{Carried, Kind};
use super::queue::{Item, Queue};
use super::{Endpoint, record_len};
use crate::frame::cobs;
use crate::line::SILENCE;
use crate::logging::{debug, trace, warn};
use crate::seal;
use crate::session::dial::Owed;
use crate::time::Instant;
use crate::wire::control::{Ack, Begin, Bind, Close, FRAGMENT_HEAD_MAX, NUMBERED_HEAD, Numbered};
use crate::wire::data::{write_gap, write_message};
use crate::wire::handshake::{About, Acks, Confirm, Hello};
use crate::wire::{FRAME_MIN, VERSION, Writer, tag};

/// The most bytes in front of a piece of a record, in its frame.
const PIECE_HEAD: usize = seal::LEN + NUMBERED_HEAD + FRAGMENT_HEAD_MAX;

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, Q: Queue>
    Endpoint<'_, QUEUE, FRAME, MESSAGE, Q>
{
    /// The bytes that a buffer for [`poll_transmit`](Self::poll_transmit) must have.
    pub const TRANSMIT_MIN: usize = cobs::encoded_len_max(FRAME) + 1;

    /// The longest frame that is taken: as it stands on the line it has to fit the buffer for it.
    pub(super) const FRAME_MAX: usize = FRAME - FRAME / 254 - 2;

    /// Where a frame is written before it is encoded.
    const RAW: usize = 1 + FRAME / 254;

    /// Writes whole frames to the front of `out`, as many as fit. Returns the bytes written; 0 if there is nothing to send.
    ///
    /// What was written is taken as sent: a link that takes only a part of it has to be given the rest later.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> usize {
        self.tick(now);
        let mut len = 0;
        while let Some(room) = out.get_mut(len..).filter(|room| room.len() >= Self::TRANSMIT_MIN) {
            let written = self.next_frame(room);
            if written == 0 {
                break;
            }
            len += written;
        }
        len
    }

    fn next_frame(&mut self, out: &mut [u8]) -> usize {
        // A line that was silent may have caught noise: a zero ends it.
        let lead =
            usize::from(!self.is_up() || self.session.was_silent(self.now, SILENCE.as_micros() as u32));
        let Some((zero, room)) = out.split_at_mut_checked(lead) else { return 0 };
        zero.fill(0);
        let len = self.frame(room);
        if len == 0 {
            return 0;
        }
        self.session.spoke(self.now);
        lead + len
    }

    /// Writes one frame; returns its bytes with the zero.
    fn frame(&mut self, out: &mut [u8]) -> usize {
        let now = self.now;
        let is_up = self.is_up();
        if is_up && self.peer.sending.ready_at(now).is_some() {
            return 0;
        }
        // What nobody waits for does not interrupt a side that may not be heard.
        let turn = self.has_turn();
        let owed = self.session.owed(now, &self.pace).filter(|owed| turn || !matches!(owed, Owed::KeepAlive));
        let marks = is_up
            && (self.peer.receiving.owes_ack(now)
                || turn
                    && (self.queue.owes_marks(self.is_held())
                        || self.peer.tells_next(now, self.queue.next())));
        if owed.is_none() && !marks {
            return if is_up { self.numbered_frame(out) } else { 0 };
        }
        let mut writer = Self::writer(out);
        match owed {
            Some(Owed::KeepAlive) | None => self.write_ack(&mut writer),
            Some(owed) => self.write_owed(owed, &mut writer),
        }
        let end = writer.done();
        let len = self.finish(end, out);
        if let Some(owed) = owed {
            if owed == Owed::Hello {
                debug!("hello sent");
            }
            self.session.sent(now, owed, &self.pace);
        }
        self.peer.sending.occupy(now, len);
        len
    }

    /// Writes behind the place of the seal.
    #[cfg_attr(target_os = "none", inline(never))]
    fn writer(out: &mut [u8]) -> Writer<'_> {
        let mut writer = Writer::new(out);
        writer.skip_to(Self::RAW + seal::LEN);
        writer
    }

    /// Seals and encodes the frame that ends there. Returns its bytes with the zero.
    fn finish(&self, end: Option<usize>, out: &mut [u8]) -> usize {
        let Some(frame) = end.and_then(|end| out.get_mut(Self::RAW..end)) else { return 0 };
        let len = frame.len();
        trace!("a frame of {} bytes leaves", len);
        if let Some((seal, body)) = frame.split_first_chunk_mut() {
            *seal = seal::seal(self.session.seal(), &[body]);
        }
        cobs::encode_in_place(out, Self::RAW, Self::RAW + len)
    }

    #[cfg_attr(target_os = "none", inline(never))]
    fn write_owed(&self, owed: Owed, writer: &mut Writer<'_>) {
        let session = &self.session;
        match owed {
            Owed::Hello => Hello {
                version_min: VERSION,
                version_max: VERSION,
                name: self.name,
                instance: self.instance,
                nonce: session.nonce(),
                about: self.about(),
            }
            .write(writer),
            Owed::Confirm => {
                Confirm { echo: session.peer_nonce(), stream: self.queue.stream() }.write(writer);
            }
            Owed::Probe => {
                writer.byte(tag::PROBE);
                writer.varint(session.probe_number().into());
            }
            Owed::Echo => {
                writer.byte(tag::ECHO);
                writer.varint(session.echo_number());
            }
            Owed::Close => Close { reason: session.reason(), text: "" }.write(writer),
            Owed::KeepAlive => {}
        }
    }

    fn about(&self) -> About {
        let limits = Self::limits(self.own_window);
        About {
            inbox: self.inbox,
            acks: Acks::Processed,
            frame_max: limits.frame_max,
            message_max: limits.message_max,
            window_messages: limits.window_messages,
            window_bytes: limits.window_bytes,
            bindings_max: limits.bindings_max,
            seals: About::SEAL_CRC32C,
            roles: if Q::ASSIGNED && self.inbox.is_none() { About::ROLE_WITHOUT_EPOCHS } else { 0 },
        }
    }

    /// Whether a message was handed out, or is about to be, that does not count as processed yet.
    #[cfg_attr(target_os = "none", inline(never))]
    fn is_held(&self) -> bool {
        self.held.is_some_and(|held| held.numbered)
    }

    fn write_ack(&mut self, writer: &mut Writer<'_>) {
        let held = self.is_held();
        let window = self.queue.window(held);
        let next = self.queue.next() as u32;
        let (received, bitmap) = self.peer.receiving.marks();
        Ack { received, bitmap, acked_low: self.queue.taken(held), window, next_low: next }.write(writer);
        self.peer.receiving.acked(window);
        self.peer.told_next = next;
        self.peer.told_at = self.now;
        self.queue.set_told(held);
    }

    // ------------------------------------------------------------------ numbered frames

    /// A frame that has to arrive: one that was lost, or a new one.
    fn numbered_frame(&mut self, out: &mut [u8]) -> usize {
        let now = self.now;
        let lost = self.peer.sending.lost();
        let (frame, carried) = if let Some(lost) = lost {
            lost
        } else {
            if !self.peer.sending.may_send() || self.peer.held {
                return 0;
            }
            let Some(carried) = self.next_carried() else { return 0 };
            (self.peer.sending.next(), carried)
        };
        let mut writer = Self::writer(out);
        self.carry(frame, carried, &mut writer);
        let end = writer.done();
        debug_assert!(end.is_some(), "what is to be sent can be sent");
        let len = self.finish(end, out);
        if lost.is_some() {
            debug!("frame {} is sent again", frame);
            self.peer.sending.sent_again(now, frame, len, &mut self.rng);
        } else {
            self.peer.sending.push(now, carried, len, &mut self.rng);
            self.advance(carried);
        }
        len
    }

    /// What the next new frame is to carry.
    fn next_carried(&mut self) -> Option<Carried> {
        let peer = &mut self.peer;
        if usize::from(peer.bound) < self.topics.len().min(self.takes.bindings_max) {
            return Some(Carried { kind: Kind::Bind, number: peer.bound.into(), more: 0 });
        }
        let next = (self.queue.acked() as u32).wrapping_add(1);
        let (number, item) = self.queue.peek()?;
        let (mut kind, more) = match item {
            Item::Gap(count) => (Kind::Gap, count),
            Item::Message { topic, payload, place } => {
                // A message that the gateway takes never waits behind others.
                if self.queued.is_within(peer.full) {
                    return None;
                }
                let len = record_len(self.takes.topic(self.topics, topic), payload);
                if len > self.takes.record_max {
                    if number == next && peer.told_long != number {
                        let most = self.takes.record_max;
                        warn!(
                            "nothing is sent: the next message has {} bytes, the gateway takes {}",
                            len, most
                        );
                        peer.told_long = number;
                        self.notice.too_large = true;
                    }
                    return None;
                }
                let total = len + DATA_HEAD;
                if Self::IN_PIECES && total + seal::LEN > self.takes.frame_max {
                    let begun = peer.partial.filter(|(partial, _)| *partial == number);
                    let at = begun.map_or(0, |(_, at)| at);
                    let is_last = total - at as usize <= self.takes.frame_max - PIECE_HEAD;
                    (if is_last { Kind::LastPiece } else { Kind::Piece }, at)
                } else {
                    (Kind::Record, place)
                }
            }
        };
        if peer.announced != number {
            kind = Kind::Begin;
        }
        Some(Carried { kind, number, more })
    }

    /// A new frame is on its way.
    fn advance(&mut self, Carried { kind, number, more }: Carried) {
        let peer = &mut self.peer;
        let count = match kind {
            Kind::Bind => {
                peer.bound += 1;
                return;
            }
            Kind::Begin => {
                peer.announced = number;
                return;
            }
            Kind::Piece => {
                peer.partial = Some((number, more + (self.takes.frame_max - PIECE_HEAD) as u32));
                self.queue.begin_pieces();
                return;
            }
            Kind::Record | Kind::LastPiece => 1,
            Kind::Gap => more,
        };
        peer.partial = None;
        peer.announced = number.wrapping_add(count);
        self.queue.advance(self.clock, number.wrapping_add(count - 1));
    }

    /// Writes a numbered frame. The bytes of a record come from where it stands in the queue; if it was dropped there since it
    /// was sent, a gap takes its place.
    fn carry(&self, frame: u16, Carried { kind, number, more }: Carried, writer: &mut Writer<'_>) {
        let mut count = 1;
        match kind {
            Kind::Begin => {
                writer.bytes(&Numbered::head(frame));
                return Begin { number: self.whole(number) }.write(writer);
            }
            Kind::Bind => {
                writer.bytes(&Numbered::head(frame));
                let text = self.topics.get(number as usize).copied().unwrap_or_default();
                return Bind { number: number + 1, text }.write(writer);
            }
            Kind::Piece if Self::IN_PIECES => count = 0,
            Kind::Gap => count = more,
            Kind::Record | Kind::Piece | Kind::LastPiece => {}
        }
        match self.queue.at(number, (!Self::IN_PIECES || kind == Kind::Record).then_some(more)) {
            Some(Item::Message { topic, payload, .. }) if !matches!(kind, Kind::Gap) => {
                if Self::IN_PIECES && !matches!(kind, Kind::Record) {
                    return self.write_piece(frame, (number, topic, payload), more as usize, writer);
                }
                let topic = self.takes.topic(self.topics, topic);
                write_message(writer, self.queue.is_doubtful(number), frame, topic);
                writer.bytes(payload);
            }
            // What was begun is given up.
            _ if count == 0 => {
                writer.bytes(&Numbered::head(frame));
                writer.bytes(&[tag::FRAGMENT, 0]);
            }
            _ => write_gap(writer, frame, self.queue.gone_reason(number), count),
        }
    }

    /// The number near those of the queue whose low bits these are.
    fn whole(&self, number: u32) -> u64 {
        let acked = self.queue.acked();
        acked.wrapping_add_signed(number.wrapping_sub(acked as u32) as i32 as i64)
    }

    /// Writes a piece of a message, from a byte of its body on.
    fn write_piece(
        &self,
        frame: u16,
        (number, topic, payload): (u32, u16, &[u8]),
        at: usize,
        writer: &mut Writer<'_>,
    ) {
        let mut head = [0; FRAME_MIN];
        let mut front = Writer::new(&mut head);
        let topic = self.takes.topic(self.topics, topic);
        write_message(&mut front, self.queue.is_doubtful(number), 0, topic);
        let len = front.done().unwrap_or(0);
        writer.bytes(&Numbered::head(frame));
        writer.byte(tag::FRAGMENT);
        writer.varint((len + payload.len() - at) as u64);
        let (mut skip, mut room) = (at, self.takes.frame_max - PIECE_HEAD);
        for part in [head.get(..len).unwrap_or_default(), payload] {
            let from = skip.min(part.len());
            let to = part.len().min(from + room);
            skip -= from;
            room -= to - from;
            writer.bytes(part.get(from..to).unwrap_or_default());
        }
    }
}

/// Bytes of a frame's body that its record does not have: the number of the frame.
const DATA_HEAD: usize = 2;
