//! What goes out on the line.

use super::{Endpoint, Takes};
use crate::delivery::Next;
use crate::frame::cobs;
use crate::memory::Cursor;
use crate::seal;
use crate::session::{Owed, Session};
use crate::time::Instant;
use crate::wire::control::{Ack, Bind, Close, Echo, Probe};
use crate::wire::data::DataHead;
use crate::wire::handshake::{About, Acks, Confirm, Hello};
use crate::wire::record::{self, GAP_LEN_MAX, Record};
use crate::wire::{self, Body, FRAME_MIN, VERSION};

impl<const QUEUE: usize, const FRAME: usize> Endpoint<'_, QUEUE, FRAME> {
    /// The bytes that a buffer for [`poll_transmit`](Self::poll_transmit) must have.
    pub const TRANSMIT_MIN: usize = cobs::encoded_len_max(FRAME);

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
        let Some(session) = &self.session else { return 0 };
        if let Some(owed) = session.owed(now) {
            let len = self.session_frame(owed, out);
            if let Some(session) = &mut self.session {
                session.sent(now);
            }
            return len;
        }
        if !self.is_up() {
            return 0;
        }
        let len = if self.inbound.owes_marks() { self.ack_frame(out) } else { self.data_frame(out) };
        if len > 0
            && let Some(session) = &mut self.session
        {
            session.spoke(now);
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
            Owed::Answer { .. } => return 0,
        };
        self.control_frame(&body, out)
    }

    fn about(&self) -> About {
        let limits = super::limits(&self.config, FRAME);
        About {
            inbox: self.inbox,
            acks: Acks::Processed,
            frame_max: limits.frame_max,
            message_max: limits.message_max,
            window_messages: limits.window_messages,
            window_bytes: limits.window_bytes,
            bindings_max: limits.bindings_max,
            seals: About::SEAL_CRC32C,
            roles: 0,
        }
    }

    fn ack_frame(&mut self, out: &mut [u8]) -> usize {
        let window = self.inbound.messages_limit().saturating_sub(self.inbound.received());
        let ack = Ack {
            received_low: self.inbound.received() as u16,
            acked_low: self.inbound.acked() as u16,
            bitmap: 0,
            window: u8::try_from(window).unwrap_or(u8::MAX),
            next_low: self.out.next() as u16,
        };
        self.inbound.set_told();
        self.control_frame(&Body::Ack(ack), out)
    }

    fn control_frame(&self, body: &Body<'_>, out: &mut [u8]) -> usize {
        let mut scratch = [0; FRAME_MIN];
        let Ok(len) = wire::encode(body, &mut scratch) else { return 0 };
        sealed(self.session.as_ref(), &[scratch.get(..len).unwrap_or_default()], out)
    }

    fn data_frame(&mut self, out: &mut [u8]) -> usize {
        let now = self.now;
        let Some(peer) = &mut self.peer else { return 0 };
        if peer.held || self.storage.rotation.is_some() {
            return 0;
        }
        if let Some(text) =
            self.config.topics.get(peer.bound).filter(|_| peer.bound < self.takes.bindings_max)
        {
            peer.bound += 1;
            let bind = Bind { number: peer.bound as u32, text };
            return self.control_frame(&Body::Bind(bind), out);
        }
        match self.out.next_piece(peer.messages_limit, usize::MAX) {
            Next::Nothing => 0,
            Next::Load { after } => {
                self.storage.load = Some(after);
                0
            }
            Next::Gap { first, last, reason } => {
                let mut gap = [0; GAP_LEN_MAX];
                let len = record::encode_gap(reason, last - first + 1, &mut gap).unwrap_or(0);
                let head = DataHead { sent_before: false, number: first, added_age_ms: 0 };
                let Some(parts) = head.encode(gap.get(..len).unwrap_or_default()) else { return 0 };
                let written = sealed(self.session.as_ref(), &parts.slices(), out);
                self.out.advance(now, Cursor { number: last + 1, offset: 0 });
                written
            }
            Next::Run { begin, bytes, sent_before, .. } => {
                // A message that the gateway takes never waits behind others.
                if self.queued.is_within(peer.full) {
                    return 0;
                }
                let Some((record, rest)) = record::split_first(bytes) else { return 0 };
                let mut scratch = [0; FRAME_MIN];
                let (front, payload) = self.takes.parts(record, self.config.topics, &mut scratch);
                if front.len() + payload.len() > self.takes.record_max {
                    if begin.number == self.out.acked() + 1 && peer.told_long < begin.number {
                        peer.told_long = begin.number;
                        self.notice.too_large = true;
                    }
                    return 0;
                }
                let head = DataHead { sent_before, number: begin.number, added_age_ms: 0 };
                let Some(parts) = head.encode(front) else { return 0 };
                let [head, front] = parts.slices();
                let written = sealed(self.session.as_ref(), &[head, front, payload], out);
                let number = begin.number + record::numbers_of(record);
                let offset = begin.offset + (bytes.len() - rest.len()) as u64;
                self.out.advance(now, Cursor { number, offset });
                written
            }
        }
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

/// Writes one frame; returns its bytes with the zero.
fn sealed(session: Option<&Session>, parts: &[&[u8]], out: &mut [u8]) -> usize {
    let Some(session) = session else { return 0 };
    let seal = seal::seal(session.seal_out(), parts);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    cobs::encode(&[&seal, part(0), part(1), part(2)], out).unwrap_or(0)
}
