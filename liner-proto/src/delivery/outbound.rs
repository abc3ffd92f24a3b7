//! The sender's end of a stream: a queue with numbers and prefix cursors.

use super::Violation;
use super::pending::Pending;
use crate::id::{Epoch, Predecessor};
use crate::memory::{Cursor, Ring};
use crate::time::Instant;
use crate::wire::handshake::{Known, StreamFields};
use crate::wire::record::{self, GapReason};
use crate::wire::varint;

/// Whether a message must be stored before it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendMode {
    /// It leaves after its commit.
    #[default]
    Stored,
    /// It leaves at once. What is not acknowledged soon, or when the link is down, is written.
    Asynchronous,
}

/// The sender's end of one stream.
///
/// Cursors never move backwards within an epoch, and `acked < sent`, `acked <= next - 1`, `stored <= emit <= next` hold
/// between them, where each is the number of the next record that the step has still to be done for:
///
/// ```text
///    acked      sent      stored     emit      next
///  ────┼──────────┼──────────┼─────────┼─────────┼──►  numbers
///      freed      in flight   with the   staged
///                             store
/// ```
///
/// In the asynchronous mode `sent` may run ahead of `stored`, up to the durable reservation.
#[derive(Debug)]
pub struct Outbound<R> {
    pub(super) ring: R,
    pub(super) mode: SendMode,
    pub(super) epoch: Epoch,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) next: u64,
    /// The last number the peer has committed.
    pub(super) acked: u64,
    /// The last number the peer has in its memory. `acked <= received < sent.number`.
    pub(super) received: u64,
    /// The next record to send.
    pub(super) sent: Cursor,
    /// The record that leaves in pieces, or was the last to: as long as it is the next one to send it stays in memory.
    pub(super) in_pieces: u64,
    /// The highest number that was ever on a wire.
    pub(super) sent_max: u64,
    /// What was on a wire before the present session: told as `sent_before`.
    pub(super) doubt: u64,
    /// The next record that is not committed.
    pub(super) stored: Cursor,
    /// The next record to hand to the store.
    pub(super) emit: Cursor,
    pub(super) appends: Pending<Cursor>,
    /// The last number whose trim is committed, or above which nothing needs one.
    pub(super) trimmed: u64,
    pub(super) trims: Pending<u64>,
    /// The last number the store has, counting what is on its way there.
    pub(super) store_last: u64,
    pub(super) reserved: u64,
    pub(super) reservations: Pending<u64>,
    /// Numbers from `acked + 1` to this one were dropped by policy.
    pub(super) gap: Option<(u64, GapReason)>,
    pub(super) gap_stored: bool,
    pub(super) gaps: Pending<u64>,
    /// The last number that a gap record in memory covers.
    pub(super) gap_record: u64,
    /// The last number that a process which died had reserved: it may have been on a wire.
    pub(super) reserved_before: u64,
    pub(super) loading: bool,
    /// The first number that the store has lost; 0 if it has lost none. What is below is acknowledged before it is dropped.
    pub(super) damaged: u64,
    /// When the write-behind looks next, and what must be acknowledged by then.
    pub(super) write_behind: Option<(Instant, u64)>,
    pub(super) writing: bool,
    /// In the asynchronous mode: what was queued up to this number was promised to be stored before, and leaves after it is.
    pub(super) hold: u64,
    /// Since when nothing of what is in flight was received.
    pub(super) stalled_since: Instant,
}

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Nothing now.
    Nothing,
    /// Numbers that will never carry a message.
    Gap {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
        /// Why.
        reason: GapReason,
    },
    /// Records that stand side by side.
    Run {
        /// Where they begin.
        begin: Cursor,
        /// Where the next ones begin: give it to [`Outbound::advance`] once they are on their way.
        end: Cursor,
        /// Whole records with their lengths.
        bytes: &'a [u8],
        /// Whether they may have been sent before.
        sent_before: bool,
    },
    /// They are in the store only: load what comes after this number.
    Load {
        /// The last number that is not needed.
        after: u64,
    },
}

/// What a store remembers of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch before it.
    pub predecessor: Option<Predecessor>,
    /// The last number that was trimmed.
    pub trimmed: u64,
    /// Numbers after `trimmed` up to this one were dropped by policy.
    pub dropped: Option<(u64, GapReason)>,
    /// The last number that is stored, or was.
    pub last: u64,
    /// The last number that was reserved.
    pub reserved: u64,
}

/// Records that are to be appended in the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Append<'a> {
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// The records.
    pub records: &'a [u8],
}

/// What a queue owes its store besides appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Numbers up to this one are to be reserved.
    Reserve(u64),
    /// Records up to this one can be forgotten.
    Trim(u64),
    /// Records up to this one are dropped by policy.
    Drop(u64, GapReason),
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushError {
    /// There is no room before something was stored or acknowledged.
    Full,
    /// It can never fit.
    TooLarge,
}

/// How a resumption went for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The peer knows this stream; sending goes on behind its cursor.
    Continued,
    /// The peer has no memory of this stream; everything unacknowledged is sent again.
    Forgotten,
    /// The peer has had more than was ever sent: this side's state went backwards. A new epoch is needed.
    Regressed,
}

/// A loaded run could not be placed; the load is to be asked for again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaced;

impl<R: Ring> Outbound<R> {
    /// An empty queue in its first epoch.
    pub const fn new(ring: R, mode: SendMode, epoch: Epoch) -> Self {
        let start = Cursor { number: 1, offset: 0 };
        Self {
            ring,
            mode,
            epoch,
            predecessor: None,
            next: 1,
            acked: 0,
            received: 0,
            sent: start,
            in_pieces: 0,
            sent_max: 0,
            doubt: 0,
            stored: start,
            emit: start,
            appends: Pending::new(),
            trimmed: 0,
            trims: Pending::new(),
            store_last: 0,
            reserved: 0,
            reservations: Pending::new(),
            gap: None,
            gap_stored: true,
            gaps: Pending::new(),
            gap_record: 0,
            reserved_before: 0,
            loading: false,
            damaged: 0,
            write_behind: None,
            writing: false,
            hold: 0,
            stalled_since: Instant::ZERO,
        }
    }

    /// A queue as a store remembered it. Whatever it holds may have been sent.
    ///
    /// Numbers that were reserved and not stored may have been sent, too, by a process that died: they become a gap.
    /// `reuse_reserved` is the wrong thing to do, and there to be found by the simulated world.
    pub fn restore(ring: R, mode: SendMode, queue: &Remembered, reuse_reserved: bool) -> Self {
        let mut outbound = Self::new(ring, mode, queue.epoch);
        outbound.predecessor = queue.predecessor;
        outbound.acked = queue.trimmed;
        outbound.received = queue.trimmed;
        outbound.trimmed = queue.trimmed;
        outbound.gap = queue.dropped;
        outbound.reserved = queue.reserved;
        outbound.store_last = queue.last;
        outbound.next = queue.last + 1;
        outbound.sent.number = queue.trimmed + 1;
        outbound.stored.number = queue.last + 1;
        outbound.emit.number = queue.last + 1;
        outbound.sent_max = queue.last;
        outbound.doubt = queue.last;
        let skipped = queue.reserved.saturating_sub(queue.last);
        if skipped > 0 && !reuse_reserved {
            outbound.push_gap(skipped, GapReason::Crashed);
            outbound.reserved_before = queue.reserved;
        }
        outbound
    }

    // ------------------------------------------------------------------ getters

    /// Whether messages are stored before they leave.
    pub const fn mode(&self) -> SendMode {
        self.mode
    }

    /// The epoch of the numbering.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch before it.
    pub const fn predecessor(&self) -> Option<Predecessor> {
        self.predecessor
    }

    /// The number that the next message will have.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The last number that the peer has committed.
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// The number that is sent next.
    pub const fn sent(&self) -> u64 {
        self.sent.number
    }

    /// The last number that may have been on a wire.
    pub fn sent_through(&self) -> u64 {
        self.spent()
    }

    /// The first number that is not committed in the store.
    pub const fn stored(&self) -> u64 {
        self.stored.number
    }

    /// Numbers that are queued and not acknowledged.
    pub const fn queued(&self) -> u64 {
        self.next - 1 - self.acked
    }

    /// Those of them that were not dropped.
    pub fn waiting(&self) -> u64 {
        (self.next - 1).saturating_sub(self.gone_through())
    }

    /// Those of them that are stored.
    pub const fn queued_stored(&self) -> u64 {
        (self.stored.number - 1).saturating_sub(self.acked)
    }

    /// Whether everything that is queued is stored.
    pub const fn is_stored(&self) -> bool {
        self.stored.number == self.next
    }

    /// Whether nothing is with the store.
    pub fn is_settled(&self) -> bool {
        self.appends.is_empty()
            && self.trims.is_empty()
            && self.gaps.is_empty()
            && self.reservations.is_empty()
    }

    /// Whether a load is under way whose answer still has a meaning.
    pub const fn is_loading(&self) -> bool {
        self.loading
    }

    /// Whether nothing is queued and nothing is with the store.
    pub fn is_idle(&self) -> bool {
        self.queued() == 0 && self.appends.is_empty() && self.trims.is_empty()
    }

    /// The largest record that can be queued, with its length.
    pub fn record_max(&self) -> usize {
        self.ring.record_max()
    }

    /// Bytes of records in memory.
    pub fn held(&self) -> usize {
        self.ring.len()
    }

    /// What the handshake says about this end.
    pub const fn fields(&self, known: Option<Known>) -> StreamFields {
        StreamFields {
            epoch: self.epoch,
            predecessor: self.predecessor,
            oldest: self.acked + 1,
            next: self.next,
            known,
            assigned: None,
        }
    }

    // ------------------------------------------------------------------ queueing

    /// Makes room for `bytes` bytes in memory, as far as the store has what is there. Says whether there is that much, or nothing
    /// else is there.
    pub fn make_room(&mut self, bytes: usize) -> bool {
        while !self.ring.is_empty() && self.ring.len() + bytes > self.ring.capacity() {
            let from = self.sent.number + u64::from(self.in_pieces == self.sent.number);
            if !self.ring.evict(from, self.stored.number - 1) {
                return false;
            }
        }
        true
    }

    /// Queues a record of `len` bytes, without its length, that `write` fills. With `over` it may exceed the capacity of the
    /// ring, where that can: for what a peer's window bounds already.
    ///
    /// # Errors
    /// [`PushError::Full`] and [`PushError::TooLarge`]; nothing was queued, and `write` was not called.
    #[inline]
    pub fn push(
        &mut self,
        now: Instant,
        len: usize,
        over: bool,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<u64, PushError> {
        let prefix = varint::varint_len(len as u64);
        if prefix + len > self.ring.record_max() {
            return Err(PushError::TooLarge);
        }
        if !self.make_room(prefix + len) && !over {
            return Err(PushError::Full);
        }
        let number = self.next;
        let pushed = self.ring.push(number, 1, prefix + len, over, |room| {
            let Some((head, body)) = room.split_at_mut_checked(prefix) else { return };
            varint::put_varint(head, len as u64);
            write(body);
        });
        if !pushed {
            return Err(PushError::Full);
        }
        self.pushed(now, 1);
        Ok(number)
    }

    fn pushed(&mut self, now: Instant, count: u64) {
        if self.acked + 1 == self.next {
            self.stalled_since = now;
        }
        self.next += count;
    }

    /// What is queued so far was stored elsewhere before: in the asynchronous mode, too, it is stored here before it leaves.
    pub fn hold(&mut self) {
        if self.mode == SendMode::Asynchronous {
            self.hold = self.next - 1;
            self.writing = self.emit.number < self.next;
        }
    }

    /// Takes back what is queued and not stored; nothing of it may be with the store or have been sent. Returns how many.
    pub fn withdraw(&mut self) -> u64 {
        debug_assert!(self.appends.is_empty() && self.sent.number <= self.stored.number);
        let at = self.cursor(self.stored.number);
        let count = self.next - at.number;
        self.ring.truncate(at);
        self.next = at.number;
        self.emit = self.stored;
        count
    }

    /// Gives the queue a new epoch, in which the oldest queued record has the number 1. Nothing may be with the store.
    pub fn rotate(&mut self, epoch: Epoch) -> Predecessor {
        let less = self.acked;
        let count = self.spent().saturating_sub(less);
        let predecessor = Predecessor { epoch: self.epoch, old_first: less + 1, count };
        // A peer that is asked by its cursor in the epoch before last gets no answer: it starts afresh, in doubt.
        self.predecessor = Some(predecessor);
        self.epoch = epoch;
        let first = self.ring.first().unwrap_or(u64::MAX);
        self.ring.renumber(less, |run| bytes_through(run, first, less));
        self.next -= less;
        self.stored = self.cursor(self.stored.number.saturating_sub(less).max(1));
        self.emit = self.cursor(self.emit.number.saturating_sub(less).max(1));
        self.store_last = self.store_last.saturating_sub(less);
        self.doubt = self.sent_max.saturating_sub(less).min(self.next - 1);
        self.sent_max = self.doubt;
        self.gap = self.gap.map(|(through, reason)| (through.saturating_sub(less), reason));
        self.reserved = self.reserved.saturating_sub(less);
        self.hold = self.hold.saturating_sub(less);
        self.gap_record = self.gap_record.saturating_sub(less);
        self.reserved_before = self.reserved_before.saturating_sub(less);
        self.acked = 0;
        self.received = 0;
        self.trimmed = 0;
        self.sent = Cursor { number: 1, offset: 0 };
        self.in_pieces = 0;
        self.loading = false;
        self.damaged = 0;
        predecessor
    }

    // ------------------------------------------------------------------ the link

    /// Takes the peer's word about this stream from the handshake.
    pub fn resume(&mut self, now: Instant, known: Option<Known>) -> Resumed {
        self.doubt = self.sent_max;
        self.in_pieces = 0;
        self.stalled_since = now;
        let resumed = match known {
            Some(known) if known.epoch == self.epoch => {
                // What was queued since, but never sent, is not what the peer has had under these numbers.
                if known.cursor > self.spent() {
                    return Resumed::Regressed;
                }
                self.acknowledge(known.cursor);
                Resumed::Continued
            }
            Some(known) => match self.predecessor {
                Some(predecessor) if predecessor.epoch == known.epoch => {
                    self.acknowledge(predecessor.translate(known.cursor).min(self.next - 1));
                    Resumed::Continued
                }
                _ => Resumed::Forgotten,
            },
            None => Resumed::Forgotten,
        };
        self.received = self.acked;
        self.sent = self.cursor(self.acked + 1);
        self.in_pieces = 0;
        resumed
    }

    /// What to send next: numbers up to `limit`, at most `room` bytes.
    pub fn next_piece(&self, limit: u64, room: usize) -> Next<'_> {
        let at = if self.sent.offset == 0 { self.cursor(self.sent.number) } else { self.sent };
        if let Some((through, reason)) = self.gap
            && at.number <= through
        {
            let allowed = at.number <= limit;
            return if allowed {
                Next::Gap { first: at.number, last: through, reason }
            } else {
                Next::Nothing
            };
        }
        let end = self.sendable();
        if at.number >= end.number || at.number > limit {
            return Next::Nothing;
        }
        let Some(area) = self.ring.area(at) else {
            // What is in flight leaves memory before more is read into it.
            let full = self.ring.len() >= self.ring.capacity() && at.number > self.acked + 1;
            let damaged = at.number == self.damaged && at.number > self.acked + 1;
            let wait = self.loading || full || damaged;
            return if wait { Next::Nothing } else { Next::Load { after: at.number - 1 } };
        };
        let (bytes, next) = if end.number < area.next {
            let len = usize::try_from(end.offset.saturating_sub(area.begin.offset)).unwrap_or(0);
            (area.bytes.get(..len).unwrap_or_default(), end.number)
        } else {
            (area.bytes, area.next)
        };
        let sent_before = at.number <= self.doubt;
        let limit = if sent_before { limit.min(self.doubt) } else { limit };
        let (len, next) = if bytes.len() <= room && next - 1 <= limit {
            (bytes.len(), next)
        } else {
            // A gap may reach beyond the window, which could be smaller than it.
            prefix(bytes, at.number, room, |first, _| first <= limit)
        };
        if len == 0 {
            return Next::Nothing;
        }
        let end = Cursor { number: next, offset: area.begin.offset + len as u64 };
        Next::Run { begin: area.begin, end, bytes: bytes.get(..len).unwrap_or_default(), sent_before }
    }

    /// The `len` bytes at `begin` again, for a write that took only a part of them.
    pub fn bytes_at(&self, begin: Cursor, len: usize) -> Option<&[u8]> {
        self.ring.area(begin)?.bytes.get(..len)
    }

    /// The link is gone: nothing is in flight any more.
    pub fn handle_link_down(&mut self) {
        self.in_pieces = 0;
        self.received = self.acked;
        self.sent = self.cursor(self.acked + 1);
        self.doubt = self.sent_max;
    }

    /// The next record leaves in pieces. It stays in memory until [`advance`](Self::advance) says that the last of them is on its way:
    /// those that are under way may have to be sent again.
    pub const fn begin_pieces(&mut self) {
        self.in_pieces = self.sent.number;
    }

    /// Everything before `end` is on its way.
    pub fn advance(&mut self, now: Instant, end: Cursor) {
        debug_assert!(end.number >= self.sent.number);
        if self.received + 1 == self.sent.number {
            self.stalled_since = now;
        }
        self.in_pieces = 0;
        // Behind a gap the record may stand anywhere in its run.
        self.sent = if end.offset == 0 { self.cursor(end.number) } else { end };
        self.sent_max = self.sent_max.max(end.number - 1);
    }

    /// Takes the peer's marks. It may have received more than was sent in this session: what an earlier one brought, and
    /// its store does not have yet, is not sent again.
    ///
    /// # Errors
    /// If it speaks of what was never sent to it.
    pub fn handle_marks(&mut self, now: Instant, received: u64, acked: u64) -> Result<(), Violation> {
        if received > self.spent().max(self.sent.number - 1) || acked > received {
            return Err(Violation::AckAboveSent);
        }
        if received >= self.sent.number {
            let through = self.whole_records(received);
            if through >= self.sent.number {
                self.sent = self.cursor(through + 1);
                self.in_pieces = 0;
            }
        }
        let received = received.min(self.sent.number - 1);
        if received > self.received {
            self.received = received;
            self.stalled_since = now;
        }
        self.acknowledge(acked);
        Ok(())
    }

    /// The record of a number that is in memory, the first number of a gap; without its length.
    pub fn record_at(&self, number: u64) -> Option<&[u8]> {
        // Where the next one begins is not known if it came into memory after the one before it was sent.
        let is_next = number == self.sent.number && self.sent.offset > 0;
        let at = if is_next { self.sent } else { self.place(number)? };
        record::split_first(self.ring.area(at)?.bytes).map(|(record, _)| record)
    }

    /// Whether the record of a number may have been sent before the present session.
    pub const fn is_doubtful(&self, number: u64) -> bool {
        number <= self.doubt
    }

    /// Why a number that was sent carries no message any more.
    pub fn gone_reason(&self, number: u64) -> GapReason {
        self.gap.filter(|(through, _)| number <= *through).map_or(GapReason::Dropped, |(_, reason)| reason)
    }

    /// Gives the queue of a device that can make no epoch the one that its gateway has made.
    pub const fn assign(&mut self, epoch: Epoch) {
        if self.epoch.is_none() {
            self.epoch = epoch;
        }
    }

    /// Since when what is in flight has not been received; nothing if nothing is in flight.
    pub const fn stalled_since(&self) -> Option<Instant> {
        if self.received + 1 < self.sent.number { Some(self.stalled_since) } else { None }
    }

    /// The last number that may have been on a wire: what a process that died had reserved counts, too.
    fn spent(&self) -> u64 {
        self.sent_max.max(self.reserved_before).max(self.acked)
    }

    fn acknowledge(&mut self, through: u64) {
        let through = self.whole_records(through);
        if through <= self.acked {
            return;
        }
        self.acked = through;
        self.received = self.received.max(through);
        if self.gap.is_some_and(|(gap, _)| gap <= through) {
            self.gap = None;
            self.gap_stored = true;
        }
        self.forget_through(through);
        if self.mode == SendMode::Asynchronous {
            // What is acknowledged need not be stored any more.
            for cursor in [&mut self.stored, &mut self.emit] {
                if cursor.number <= through {
                    *cursor = Cursor { number: through + 1, offset: 0 };
                }
            }
        }
    }

    /// The highest number up to `through` with which a record ends. A gap record is acknowledged as a whole: a part of it
    /// would have a number that is not its own.
    fn whole_records(&self, through: u64) -> u64 {
        if through >= self.gap_record {
            return through;
        }
        let Some(run) = self.ring.run_of(through) else { return through };
        prefix(run.bytes, run.begin.number, run.bytes.len(), |_, last| last <= through).1 - 1
    }

    /// The first record that must not be sent yet.
    fn sendable(&self) -> Cursor {
        let held = self.stored.number <= self.hold;
        if self.mode == SendMode::Asynchronous && self.reserved + 1 >= self.next && !held {
            // What was evicted at the end of the ring is read back like the rest.
            return Cursor { number: self.next, offset: 0 };
        }
        self.stored
    }

    /// The cursor of `number`, wherever that is.
    fn cursor(&self, number: u64) -> Cursor {
        let end = self.ring.end().filter(|end| end.number == number);
        self.place(number).or(end).unwrap_or(Cursor { number, offset: 0 })
    }

    /// The cursor of `number`, with its offset looked up.
    pub(super) fn place(&self, number: u64) -> Option<Cursor> {
        let run = self.ring.run_of(number)?;
        let skip = bytes_through(run.bytes, run.begin.number, number - 1);
        Some(Cursor { number, offset: run.begin.offset + skip as u64 })
    }
}

/// How many bytes of `run`, which begins with the record of `first`, belong to records wholly up to `through`.
pub(super) fn bytes_through(run: &[u8], first: u64, through: u64) -> usize {
    if through < first {
        return 0;
    }
    prefix(run, first, run.len(), |_, last| last <= through).0
}

/// The longest prefix of whole records of `run` that has at most `room` bytes and whose records, by their first and last
/// numbers, are all `within`: its length, and the number after it.
pub(super) fn prefix(run: &[u8], first: u64, room: usize, within: impl Fn(u64, u64) -> bool) -> (usize, u64) {
    let mut number = first;
    let mut len = 0;
    let mut rest = run;
    while let Some((record, after)) = record::split_first(rest) {
        let last = number.saturating_add(record::numbers_of(record) - 1);
        let taken = run.len() - after.len();
        if taken > room || !within(number, last) {
            break;
        }
        (number, len, rest) = (last + 1, taken, after);
    }
    (len, number)
}
