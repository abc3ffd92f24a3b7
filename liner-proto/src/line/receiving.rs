//! Which frame comes next, and what the peer is to be told.

use super::distance;
use crate::planted::{Fault, Planted};
use crate::time::Moment;

/// How many microseconds an acknowledgement may wait for another one.
const ACK_DELAY: u32 = 25_000;

/// Frames after which it does not wait.
const ACK_FRAMES: u8 = 2;

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the one that comes next: take it, then say so with [`Receiving::taken`].
    Next,
    /// One before it is missing, and it has a place: keep it there, then say so with [`Receiving::kept`]; or drop it.
    Ahead,
    /// It has been here: drop it.
    Duplicate,
}

/// The receiving end of a line. Whoever owns it may keep frames that came ahead of a missing one.
#[derive(Debug)]
pub struct Receiving<T> {
    planted: Planted,
    /// The last frame below which none is missing.
    received: u16,
    /// Bit `i`: frame `received + 2 + i` is kept.
    ahead: u32,
    /// When the peer is to hear what has arrived.
    ack_at: Option<T>,
    unacked: u8,
    /// Frames that the peer may still send, as it was told.
    left: u8,
}

impl<T: Moment> Receiving<T> {
    /// A session begins: the peer may send `window` frames.
    pub const fn new(planted: Planted, window: u8) -> Self {
        Self { left: window, planted, received: 0, ahead: 0, ack_at: None, unacked: 0 }
    }

    /// A frame with this number has arrived.
    pub fn handle_frame(&mut self, now: T, frame: u16) -> Turn {
        let above = distance(self.received, frame);
        if above == 1 || (above <= 0 && self.planted.has(Fault::LateFrameAccepted)) {
            return Turn::Next;
        }
        // Either an acknowledgement was lost, or a frame: the sender learns it at once.
        self.ack_at = Some(now);
        // Kept is only what an acknowledgement has a bit for. The highest one is left out: a sender has fewer under way.
        if (2..=32).contains(&above) && self.ahead & (1 << (above - 2)) == 0 {
            Turn::Ahead
        } else {
            Turn::Duplicate
        }
    }

    /// The next frame was taken. The one after it may be among those that were kept: it is the next one now.
    pub fn taken(&mut self, now: T) {
        self.received = self.received.wrapping_add(1);
        self.unacked = self.unacked.saturating_add(1);
        self.left = self.left.saturating_sub(1);
        // As soon as a hole is filled, and when the sender may send no more, it learns it.
        let at_once = self.unacked >= ACK_FRAMES || self.ahead != 0 || self.left == 0;
        let by = if at_once { now } else { now.after(ACK_DELAY) };
        self.ahead >>= 1;
        self.ack_at = Some(self.ack_at.map_or(by, |at| at.soonest(by)));
    }

    /// A frame with this number has arrived, and is taken if it is the next one: says whether it is. For whoever keeps none that
    /// came ahead.
    pub fn take(&mut self, now: T, frame: u16) -> bool {
        let is_next = self.handle_frame(now, frame) == Turn::Next;
        if is_next {
            self.taken(now);
        }
        is_next
    }

    /// The number of the next frame.
    pub const fn next(&self) -> u16 {
        self.received.wrapping_add(1)
    }

    /// A frame that came ahead has a place.
    pub const fn kept(&mut self, frame: u16) {
        self.ahead |= 1 << (frame.wrapping_sub(self.received).wrapping_sub(2) & 31);
    }

    /// The last frame below which none is missing, and which of those above it are kept.
    pub const fn marks(&self) -> (u16, u32) {
        (self.received, self.ahead)
    }

    /// Whether the peer is to hear of them now.
    pub fn owes_ack(&self, now: T) -> bool {
        self.ack_at.is_some_and(|at| at.is_past(now))
    }

    /// The peer is to hear of them at once.
    pub fn ask(&mut self, now: T) {
        self.ack_at = Some(now);
    }

    /// The peer has been told, and that it may send `window` frames more.
    pub const fn acked(&mut self, window: u8) {
        self.left = window;
        self.ack_at = None;
        self.unacked = 0;
    }

    /// When the peer is to hear of them.
    pub const fn deadline(&self) -> Option<T> {
        self.ack_at
    }
}
