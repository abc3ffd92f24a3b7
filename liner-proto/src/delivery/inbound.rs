//! The receiver's end of a stream: how far it was taken, and what may be acknowledged.

use super::Violation;
use super::pending::Pending;
use crate::config::Limits;
use crate::id::Epoch;
use crate::planted::{Fault, Planted};
use crate::wire::NUMBER_MAX;
use crate::wire::handshake::{Known, StreamFields};

/// Bytes of a line's frames that may be under way when a window is shut: 32 of the longest.
const LINE_BYTES: u64 = 64 * 1024;

/// The receiver's end of one stream.
///
/// `committed <= emitted <= received`, all within the sender's `epoch`. An acknowledgement says `committed`; what is above
/// it has been taken into this node's memory and is on its way to the store.
#[derive(Debug)]
pub struct Inbound {
    planted: Planted,
    epoch: Epoch,
    received: u64,
    emitted: u64,
    committed: u64,
    cursors: Pending<(u64, u64)>,
    /// Messages up to this one that were sent before may have been handled by a life of this node that has forgotten it.
    doubt: u64,
    /// How many of them that life can have handed to its application.
    doubt_left: u64,
    /// Bytes of records that arrived since the session began.
    bytes_received: u64,
    /// Those of them that were new, and those of the new ones that are committed.
    bytes_new: u64,
    bytes_committed: u64,
    window_messages: u64,
    window_bytes: u64,
    /// The peer counts frames, and knows nothing of bytes.
    on_line: bool,
    /// The last number that the peer may send, while the window is shut.
    shut_at: Option<u64>,
    /// The marks that the peer was told last.
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    received: u64,
    acked: u64,
    bytes_limit: u64,
}

/// What to do with a record that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is new: take it.
    New,
    /// It was committed, or is about to be, before: drop it.
    Duplicate,
}

/// How a resumption went for the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// The stream goes on where it was.
    Continued,
    /// It is a stream that this node does not know, or knew in another epoch.
    Fresh,
    /// The sender has deleted numbers that never arrived here: so many of them.
    Lost(u64),
}

impl Inbound {
    /// A stream that this node knows nothing of.
    pub const fn new(limits: &Limits, planted: Planted) -> Self {
        Self {
            planted,
            epoch: Epoch::NONE,
            received: 0,
            emitted: 0,
            committed: 0,
            cursors: Pending::new(),
            doubt: 0,
            doubt_left: u64::MAX,
            bytes_received: 0,
            bytes_new: 0,
            bytes_committed: 0,
            window_messages: limits.window_messages as u64,
            window_bytes: limits.window_bytes as u64,
            on_line: false,
            shut_at: None,
            told: None,
        }
    }

    /// Takes the cursor that a store remembered. At most `repeat_max` messages above it were ever handed to an application.
    pub const fn restore(&mut self, epoch: Epoch, through: u64, repeat_max: u64) {
        self.epoch = epoch;
        self.received = through;
        self.emitted = through;
        self.committed = through;
        // Until the sender says how far it had got, anything it sends again may have been handled before.
        self.doubt = u64::MAX;
        self.doubt_left = repeat_max;
    }

    /// Whether the node shows a wrong behaviour.
    pub fn shows(&self, fault: Fault) -> bool {
        self.planted.has(fault)
    }

    /// The sender's epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last number that was taken.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// The last number that was taken, and the bytes that the session has brought of what was new.
    pub const fn arrived(&self) -> (u64, u64) {
        (self.received, self.bytes_new)
    }

    /// The last number that the store was told of, or is being told.
    pub const fn emitted(&self) -> u64 {
        self.emitted
    }

    /// What the handshake says about this end.
    pub const fn known(&self) -> Option<Known> {
        if self.epoch.is_none() {
            return None;
        }
        Some(Known { epoch: self.epoch, cursor: self.committed })
    }

    /// Takes what the sender says about its stream in the handshake. A session begins.
    pub fn resume(&mut self, theirs: &StreamFields) -> Resumption {
        self.told = None;
        self.shut_at = None;
        self.bytes_received = 0;
        self.bytes_new = 0;
        self.bytes_committed = 0;
        // What is with the store came in an earlier session, whose bytes do not count in this one.
        self.cursors.for_each(|(_, bytes)| *bytes = 0);
        if theirs.epoch != self.epoch && !self.planted.has(Fault::EpochIgnored) {
            let predecessor = theirs.predecessor.filter(|before| before.epoch == self.epoch);
            self.epoch = theirs.epoch;
            self.cursors.clear();
            let Some(predecessor) = predecessor else {
                self.received = theirs.oldest - 1;
                self.committed = self.received;
                self.emitted = self.received;
                self.doubt = theirs.next - 1;
                self.doubt_left = u64::MAX;
                return Resumption::Fresh;
            };
            let last = theirs.next - 1;
            for mark in [&mut self.received, &mut self.emitted, &mut self.committed] {
                *mark = predecessor.translate(*mark).clamp(theirs.oldest - 1, last.max(theirs.oldest - 1));
            }
            // The cursor in the new epoch is not stored yet.
            self.emitted = self.emitted.min(self.committed);
        }
        self.doubt = self.doubt.min(theirs.next - 1);
        let lost = (theirs.oldest - 1).saturating_sub(self.received);
        if lost == 0 {
            return Resumption::Continued;
        }
        self.received = theirs.oldest - 1;
        // This side has gone back, or the sender has: who knows what was handed on.
        self.doubt = theirs.next - 1;
        self.doubt_left = u64::MAX;
        // The sender has these acknowledged: its window begins behind them, and so does this one.
        self.committed = self.committed.max(self.received);
        Resumption::Lost(lost)
    }

    /// Bytes that the session has brought and that are not committed.
    pub const fn held(&self) -> u64 {
        self.bytes_new - self.bytes_committed
    }

    /// Whether a record that is new and counts so many bytes may arrive now. One whole message always has room.
    pub const fn has_room(&self, bytes: usize) -> bool {
        let held = self.held();
        held == 0 || held.saturating_add(bytes as u64) <= self.window_bytes
    }

    /// A record, or a gap, for the numbers `first..=last` has arrived. `bytes` counts against the window.
    ///
    /// # Errors
    /// If numbers are missing in between, or the window did not allow it.
    #[inline]
    pub fn handle_arrival(&mut self, first: u64, last: u64, bytes: usize) -> Result<Arrival, Violation> {
        if last < first || last > NUMBER_MAX {
            return Err(Violation::Range);
        }
        self.bytes_received += bytes as u64;
        if last <= self.received {
            return Ok(Arrival::Duplicate);
        }
        if first > self.received + 1 {
            return Err(Violation::UndeclaredGap);
        }
        if self.is_beyond_window(first, bytes) {
            return Err(Violation::Window);
        }
        self.bytes_new += bytes as u64;
        self.received = last;
        Ok(Arrival::New)
    }

    const fn is_beyond_window(&self, first: u64, bytes: usize) -> bool {
        if self.on_line {
            let held = self.bytes_new - self.bytes_committed;
            // The peer counts frames there, and a gap of any length is one. What it was let send last may come yet.
            let is_shut = matches!(self.shut_at, Some(limit) if first > limit);
            return is_shut || held > self.window_bytes.saturating_add(LINE_BYTES);
        }
        !self.has_room(bytes) || first > self.messages_limit()
    }

    /// The message that was taken last was dropped before anybody had it: it is to come again. Its cursor was not emitted.
    pub const fn handle_dropped(&mut self) {
        if self.received > self.emitted {
            self.received -= 1;
        }
    }

    /// Whether a message with this number that was sent before may have been taken already.
    pub const fn in_doubt(&self, number: u64) -> bool {
        number <= self.doubt
    }

    /// The same for a message that goes to the application. Ask once for each: it can have had only so many.
    pub const fn in_doubt_once(&mut self, number: u64) -> bool {
        if !self.in_doubt(number) || self.doubt_left == 0 {
            return false;
        }
        self.doubt_left -= 1;
        true
    }

    // ------------------------------------------------------------------ marks

    /// The last number that may be acknowledged.
    pub fn acked(&self) -> u64 {
        if self.planted.has(Fault::AckBeforeCommit) { self.received } else { self.committed }
    }

    /// The last number that the peer may send.
    pub const fn messages_limit(&self) -> u64 {
        match self.shut_at {
            Some(number) => number,
            None => self.committed.saturating_add(self.window_messages),
        }
    }

    /// The handshake has told a window of no messages: the peer sends none before it hears of a limit above that.
    pub const fn shut(&mut self) {
        self.shut_at = Some(self.committed);
    }

    /// The window is what it always is.
    pub const fn open(&mut self) {
        if self.shut_at.take().is_some() {
            self.told = None;
        }
    }

    /// The session is on a line, where frames are counted, or is not.
    pub const fn set_on_line(&mut self, on_line: bool) {
        self.on_line = on_line;
    }

    /// Frames that the peer may send above those it has sent, at most `most`: none while as many bytes are held as may be.
    pub const fn frames_window(&self, most: u8) -> u8 {
        let messages = self.messages_limit().saturating_sub(self.received);
        if self.bytes_new - self.bytes_committed >= self.window_bytes {
            0
        } else if messages < most as u64 {
            messages as u8
        } else {
            most
        }
    }

    /// The bytes that the peer may send in this session.
    pub const fn bytes_limit(&self) -> u64 {
        let held = self.bytes_new - self.bytes_committed;
        (self.bytes_received - held).saturating_add(self.window_bytes)
    }

    /// Whether the peer should hear of marks that it does not know.
    pub fn owes_marks(&self) -> bool {
        let Some(told) = self.told else { return true };
        told.acked < self.acked()
            || self.received.saturating_sub(told.received) > self.window_messages / 2
            || self.bytes_limit().saturating_sub(told.bytes_limit) > self.window_bytes / 2
    }

    /// The peer has been told.
    pub fn set_told(&mut self) {
        self.told =
            Some(Told { received: self.received, acked: self.acked(), bytes_limit: self.bytes_limit() });
    }

    // ------------------------------------------------------------------ the store

    /// Whether the store has to hear of a new cursor.
    pub const fn owes_cursor(&self) -> bool {
        self.emitted < self.received
    }

    /// The cursor is in batch `id`.
    pub fn emit_cursor(&mut self, id: u64) -> u64 {
        self.emit_cursor_at(id, (self.received, self.bytes_new))
    }

    /// The same for a cursor that does not go beyond `end`: a number, and the bytes that the session had brought by then.
    pub fn emit_cursor_at(&mut self, id: u64, end: (u64, u64)) -> u64 {
        self.emitted = end.0;
        self.cursors.put(id, end);
        end.0
    }

    /// The group of batch `id` with this cursor is committed.
    pub fn handle_committed(&mut self, id: u64) {
        if let Some((through, bytes)) = self.cursors.take_through(id) {
            self.committed = self.committed.max(through);
            self.bytes_committed = self.bytes_committed.max(bytes.min(self.bytes_new));
        }
    }

    /// Everything that is with the store is void; it will be emitted again.
    pub const fn handle_void(&mut self) {
        self.cursors = Pending::new();
        self.emitted = self.committed;
    }
}
