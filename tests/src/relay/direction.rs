//! One direction of the line: its pace, what a test wants done to it, what chance does, and what waits to be written.

use std::time::Duration;

use super::end::{End, Moved};
use super::faults::{Damage, Faults, Incident, Rates};
use super::tap::{Frames, Tap};
use super::throttle::Throttle;

/// What waits to be written at most before no more is read.
const ROOM: usize = 4096;

/// What became of one direction's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What chance has done.
    pub damage: Damage,
    /// The frames, before it did.
    pub frames: Frames,
    /// Bytes that were written to the other end.
    pub delivered: u64,
    /// Bytes for an end at which nobody was, and those that were under way when a connection was cut.
    pub unheard: u64,
}

#[derive(Debug)]
pub(super) struct Direction {
    pub(super) tap: Tap,
    pub(super) faults: Faults,
    throttle: Option<Throttle>,
    stalled_until: Duration,
    /// To be written.
    out: Vec<u8>,
    /// What the tap let pass.
    scratch: Vec<u8>,
    delivered: u64,
    unheard: u64,
}

impl Direction {
    pub(super) fn new(rates: Rates, baud: Option<u32>, seed: u64, number: u64) -> Self {
        Self {
            tap: Tap::new(),
            faults: Faults::new(rates, seed, number),
            throttle: baud.map(Throttle::new),
            stalled_until: Duration::ZERO,
            out: Vec::new(),
            scratch: Vec::new(),
            delivered: 0,
            unheard: 0,
        }
    }

    pub(super) const fn counts(&self) -> Counts {
        Counts {
            damage: self.faults.damage(),
            frames: self.tap.frames(),
            delivered: self.delivered,
            unheard: self.unheard,
        }
    }

    pub(super) fn set_baud(&mut self, baud: Option<u32>) {
        self.throttle = baud.map(Throttle::new);
    }

    /// Whether its source is to be read when there is something.
    pub(super) fn wants_input(&self, now: Duration) -> bool {
        let is_due = self.throttle.as_ref().and_then(Throttle::due).is_none_or(|due| due <= now);
        self.out.len() < ROOM && self.stalled_until <= now && is_due
    }

    /// Whether it has something to write.
    pub(super) fn wants_output(&self, now: Duration) -> bool {
        !self.out.is_empty() && self.stalled_until <= now
    }

    /// How long until one of these may change by itself.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        if self.stalled_until > now {
            return Some(self.stalled_until - now);
        }
        if self.out.len() >= ROOM {
            return None;
        }
        let due = self.throttle.as_ref().and_then(Throttle::due)?;
        Some(due.saturating_sub(now))
    }

    /// Reads what has come through by now. `ready`: there is something. Says what the source is like, and whether the
    /// connection is to be cut.
    pub(super) fn read(&mut self, source: &mut End, ready: bool, cuts: bool, now: Duration) -> (Moved, bool) {
        let mut most = ROOM;
        if let Some(throttle) = &mut self.throttle {
            match (ready, throttle.is_busy()) {
                (true, true) => most = throttle.ready(now).min(ROOM),
                (true, false) => {
                    throttle.begin(now);
                    return (Moved::None, false);
                }
                (false, _) => throttle.end(),
            }
        }
        if !ready || most == 0 {
            return (Moved::None, false);
        }
        let mut buffer = [0; ROOM];
        let into = buffer.get_mut(..most).unwrap_or_default();
        let moved = source.read(into);
        let Moved::Bytes(len) = moved else { return (moved, false) };
        if let Some(throttle) = &mut self.throttle {
            throttle.take(len);
            if len < most {
                throttle.end();
            }
        }
        let cut = self.take(buffer.get(..len).unwrap_or_default(), cuts, now);
        (moved, cut)
    }

    /// Takes bytes from the source, or what a test puts in if there are none. Says whether the connection is to be cut: then
    /// what comes behind is lost.
    pub(super) fn take(&mut self, bytes: &[u8], cuts: bool, now: Duration) -> bool {
        let mut passed = std::mem::take(&mut self.scratch);
        passed.clear();
        if bytes.is_empty() {
            self.tap.pass_injected(&mut passed);
        } else {
            self.tap.pass(bytes, &mut passed);
        }
        let mut rest = &passed[..];
        let mut cut = false;
        while !cut {
            let (taken, incident) = self.faults.pass(rest, &mut self.out);
            rest = rest.get(taken..).unwrap_or_default();
            match incident {
                Some(Incident::Cut { .. }) if cuts => cut = true,
                Some(Incident::Cut { loses }) => self.faults.lose(loses),
                Some(Incident::Stall(time)) => self.stalled_until = self.stalled_until.max(now + time),
                None => break,
            }
        }
        self.unheard += rest.len() as u64;
        self.scratch = passed;
        cut
    }

    /// Writes what the other end takes. What is for nobody is lost.
    pub(super) fn write(&mut self, sink: &mut End) -> Moved {
        if !sink.is_up() {
            self.forget();
            return Moved::None;
        }
        let moved = sink.write(&self.out);
        if let Moved::Bytes(len) = moved {
            self.out.drain(..len.min(self.out.len()));
            self.delivered += len as u64;
        }
        moved
    }

    /// The connection has ended, or whoever sent is gone: what began will not go on.
    pub(super) fn reset(&mut self) {
        self.tap.reset();
        self.unheard += self.faults.forget_frames();
    }

    /// Loses what was under way.
    pub(super) fn forget(&mut self) {
        self.unheard += self.out.len() as u64;
        self.out.clear();
    }
}
