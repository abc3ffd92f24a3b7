//! Messages that are longer than a frame: what has arrived of them, and how far the one is that leaves.
//!
//! On a reliable link the pieces are those of a batch with one record. Between two of them goes whatever else there is to say,
//! so that nothing waits for longer than one frame takes.

use alloc::vec::Vec;

use super::event::Application;
use super::limits::Spelling;
use super::output::Writer;
use super::{PeerId, Router};
use crate::delivery::Next;
use crate::line::{Assembly, Piece};
use crate::memory::{Cursor, SEGMENT_BYTES};
use crate::seal;
use crate::time::Instant;
use crate::wire::batch::BatchHead;
use crate::wire::control::{CloseReason, FRAGMENT_HEAD_MAX, Fragment};
use crate::wire::record;
use crate::wire::varint::{self, varint_len};
use crate::wire::{self, Body};

/// The longest frame that is written on a reliable link, whatever the peer takes: what is urgent waits for no longer one.
pub(super) const FRAME_BYTES_MAX: usize = SEGMENT_BYTES + 64;

/// A body that arrives in pieces. It takes no more memory than twice what has arrived, nor than its whole length.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    assembly: Assembly,
    bytes: Vec<u8>,
}

/// What has become of a body with a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// It is not whole yet, or was given up.
    Nothing,
    /// It is whole.
    Body(Vec<u8>),
    /// The last piece of one of which others were given up has come.
    Rest,
}

impl Arriving {
    /// Whether a body has begun and is not whole.
    pub(super) const fn is_begun(&self) -> bool {
        self.assembly.is_begun()
    }

    /// Bytes of memory that it takes.
    pub(super) const fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// What has begun does not come.
    pub(super) fn drop_begun(&mut self) {
        *self = Self::default();
    }

    /// A piece of a body that may have `max` bytes.
    pub(super) fn handle(&mut self, fragment: &Fragment<'_>, max: usize) -> Result<Arrived, CloseReason> {
        let piece = self.assembly.handle(fragment.left, fragment.bytes.len(), max);
        Ok(match piece.ok_or(CloseReason::Violation)? {
            Piece::GivenUp => {
                self.bytes = Vec::new();
                Arrived::Nothing
            }
            Piece::Skipped => Arrived::Nothing,
            Piece::LastSkipped => Arrived::Rest,
            Piece::More(_) => {
                self.push(fragment);
                Arrived::Nothing
            }
            Piece::Last(..) => {
                self.push(fragment);
                Arrived::Body(core::mem::take(&mut self.bytes))
            }
        })
    }

    fn push(&mut self, fragment: &Fragment<'_>) {
        let (there, more) = (self.bytes.len(), fragment.bytes.len());
        if self.bytes.capacity() - there < more {
            let whole = there + fragment.left as usize;
            let room = (2 * there).clamp(there + more, whole.max(there + more));
            self.bytes.reserve_exact(room - there);
        }
        self.bytes.extend_from_slice(fragment.bytes);
    }
}

/// The record that leaves in pieces, and where in its body the next one begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Partial {
    /// Its number; 0 if none does.
    number: u64,
    at: usize,
    /// When it began: its age is told as it was then, so that the pieces fit each other.
    began: Instant,
}

impl Partial {
    pub(super) const fn is_begun(&self) -> bool {
        self.number > 0
    }
}

/// `room` bytes of what these parts make, from the byte `skip` on.
pub(super) fn cut<const N: usize>(parts: [&[u8]; N], mut skip: usize, mut room: usize) -> [&[u8]; N] {
    parts.map(|part| {
        let from = skip.min(part.len());
        let to = part.len().min(from.saturating_add(room));
        skip -= from;
        room -= to - from;
        part.get(from..to).unwrap_or_default()
    })
}

impl Router {
    /// Bytes of memory that messages take which arrive in pieces and are not whole.
    pub fn assembling(&self) -> usize {
        let peers = self.peers.iter().map(|peer| peer.arriving.held());
        peers
            .chain(self.conns.iter().filter_map(|(_, conn)| conn.line.as_ref()).map(|line| line.held()))
            .sum()
    }

    // ------------------------------------------------------------------ arriving

    /// A piece of a body, on a reliable link.
    pub(super) fn handle_piece(
        &mut self,
        peer: PeerId,
        fragment: &Fragment<'_>,
        application: &mut dyn Application,
    ) -> Result<(), CloseReason> {
        let head = BatchHead::LEN_MAX + varint::LEN_MAX;
        let max = (self.config.limits.message_max as usize).saturating_add(head);
        let Some(state) = self.peers.get_mut(peer.0) else { return Ok(()) };
        if fragment.left == 0 {
            state.arriving.drop_begun();
            return Ok(());
        }
        let record = (fragment.left as usize).saturating_sub(BatchHead::LEN_MAX);
        if !state.arriving.is_begun() && !state.inbound.has_room(record) {
            return Err(CloseReason::Violation);
        }
        let Arrived::Body(body) = state.arriving.handle(fragment, max)? else { return Ok(()) };
        let Body::Batch(batch) = wire::decode(&body).map_err(CloseReason::from)? else {
            return Err(CloseReason::Violation);
        };
        if batch.head.first != batch.head.last {
            return Err(CloseReason::Violation);
        }
        self.handle_batch(peer, &batch, application)
    }

    // ------------------------------------------------------------------ leaving

    /// Nothing of what comes next has room in a frame: if that is because its record is too long for one, and the peer takes it now,
    /// its first piece leaves.
    pub(super) fn begin_pieces(
        &mut self,
        peer: PeerId,
        limit: u64,
        (frame_room, credit): (usize, usize),
        writer: &mut Writer,
    ) {
        let Some(number) = self.number_in_pieces(peer, limit, frame_room, credit) else {
            return self.put_front_aside(peer);
        };
        let began = self.now;
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        state.partial = Partial { number, at: 0, began };
        if let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) {
            outbox.out.begin_pieces();
        }
        self.build_piece(peer, writer);
    }

    /// The number of the next record, if it is to leave in pieces.
    fn number_in_pieces(&self, peer: PeerId, limit: u64, frame_room: usize, credit: usize) -> Option<u64> {
        let state = self.peers.get(peer.0)?;
        let outbox = self.outboxes.get(state.outbox?.0)?;
        let Next::Run { begin, bytes, .. } = outbox.out.next_piece(limit, usize::MAX) else { return None };
        let (record, _) = record::split_first(bytes)?;
        let spelling = Spelling::new(state, outbox, &self.topics, self.reading());
        let len = spelling.len_of(record);
        let taken = len + varint_len(len as u64);
        // A window smaller than the message still takes it, when the peer holds nothing else.
        let alone = outbox.out.acked() + 1 == begin.number;
        let is_due = taken > frame_room && (taken <= credit || alone);
        (is_due && record::is_message(record) && spelling.refusal(record, begin.number).is_none())
            .then_some(begin.number)
    }

    /// Goes on with the record that leaves in pieces. If it is not there any more the peer is told at once, so that it does not keep
    /// what has arrived.
    pub(super) fn build_rest(&mut self, peer: PeerId, writer: &mut Writer) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let Some(id) = state.outbox else { return };
        let Some(outbox) = self.outboxes.get(id.0) else { return };
        let number = state.partial.number;
        let same = outbox.out.sent() == number && outbox.may_send();
        match outbox.out.next_piece(u64::MAX - 1, usize::MAX) {
            Next::Run { .. } if same => self.build_piece(peer, writer),
            Next::Load { .. } if same => self.want_load(id),
            // It is being read back.
            Next::Nothing if same => {}
            Next::Run { .. } | Next::Load { .. } | Next::Nothing | Next::Gap { .. } => {
                state.partial = Partial::default();
                let (given_up, len) = Fragment::head(0);
                writer.encoded(given_up.get(..len).unwrap_or_default());
            }
        }
    }

    /// The next piece of the record that leaves in pieces. It is copied, as its record may go while it is being written.
    fn build_piece(&mut self, peer: PeerId, writer: &mut Writer) {
        let now = self.now;
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get_mut(id.0)) else { return };
        let Partial { number, at, began } = state.partial;
        let Next::Run { begin, bytes, sent_before, .. } = outbox.out.next_piece(u64::MAX - 1, usize::MAX)
        else {
            return;
        };
        let Some((record, rest)) = record::split_first(bytes) else { return };
        let (front, payload) =
            Spelling::new(state, outbox, &self.topics, self.calendar.at(began)).parts(record);
        let record_len = front.len() + payload.len();
        let (mut head, mut prefix) = ([0; BatchHead::LEN_MAX], [0; varint::LEN_MAX]);
        let batch = BatchHead { sent_before, first: number, last: number, added_age_ms: None };
        let head_len = batch.encode(&mut head).unwrap_or(0);
        let prefix_len = varint::put_varint(&mut prefix, record_len as u64).unwrap_or(0);
        let head = head.get(..head_len).unwrap_or_default();
        let prefix = prefix.get(..prefix_len).unwrap_or_default();
        let left = (head_len + prefix_len + record_len).saturating_sub(at);
        let room = state.frame_max().saturating_sub(seal::LEN + FRAGMENT_HEAD_MAX);
        let len = left.min(room);
        // No record is as long as that.
        let (fragment, fragment_len) = Fragment::head(u32::try_from(left).unwrap_or(u32::MAX));
        let [a, b, c, d] = cut([head, prefix, &front, payload], at, len);
        writer.parts(&[fragment.get(..fragment_len).unwrap_or_default(), a, b, c, d]);
        if len < left {
            state.partial.at = at + len;
            return;
        }
        let offset = begin.offset + (bytes.len() - rest.len()) as u64;
        outbox.out.advance(now, Cursor { number: number + 1, offset });
        state.partial = Partial::default();
        state.note_batch(prefix_len + record_len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(left: u32, bytes: &[u8]) -> Fragment<'_> {
        Fragment { left, bytes }
    }

    #[test]
    fn memory_grows_with_what_has_arrived_and_no_further_than_the_whole() {
        let mut arriving = Arriving::default();
        let (mut left, mut there) = (1_000_000, 0);
        while left > 1000 {
            assert_eq!(arriving.handle(&piece(left, &[7; 1000]), 1_000_000), Ok(Arrived::Nothing));
            (left, there) = (left - 1000, there + 1000);
            let held = arriving.held();
            assert!((there..=2 * there).contains(&held) && held <= 1_000_000, "{held} for {there}");
        }
        let Ok(Arrived::Body(body)) = arriving.handle(&piece(left, &[7; 1000]), 1_000_000) else {
            panic!("it is whole")
        };
        assert_eq!((body.len(), body.capacity(), arriving.held()), (1_000_000, 1_000_000, 0));
    }

    #[test]
    fn what_is_forged_costs_nothing() {
        for forged in [u32::MAX, 1_000_001] {
            let mut arriving = Arriving::default();
            let refused = arriving.handle(&piece(forged, &[7; 1000]), 1_000_000);
            assert_eq!((refused, arriving.held()), (Err(CloseReason::Violation), 0));
        }
        let mut arriving = Arriving::default();
        assert_eq!(arriving.handle(&piece(1_000_000, &[7; 1000]), 1_000_000), Ok(Arrived::Nothing));
        assert_eq!(arriving.handle(&piece(0, &[]), 1_000_000), Ok(Arrived::Nothing));
        assert_eq!(arriving.held(), 0, "given up");
    }

    #[test]
    fn parts_are_cut_where_they_meet() {
        let whole = b"abcdefgh";
        for skip in 0..=8 {
            for room in 0..=9 {
                let cut = cut([&whole[..3], &whole[3..3], &whole[3..5], &whole[5..]], skip, room).concat();
                assert_eq!(cut, whole[skip..8.min(skip + room)]);
            }
        }
    }
}
