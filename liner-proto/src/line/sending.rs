//! The frames that were sent and have not arrived, as far as is known.

use super::{Counts, FRAMES_MAX, LineStats, Rtt, distance, low_bits};
use crate::config::LineConfig;
use crate::planted::{Fault, Planted};
use crate::rng::Rng;
use crate::time::Moment;

/// An acknowledgement of a frame that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckError;

/// After so many waits in vain a planted sender gives up.
const PLANTED_RETRIES: u8 = 4;

/// The sending end of a line. `F` says what a frame carries, so that it can be made again; up to `N` frames are under way,
/// and no more than [`FRAMES_MAX`].
///
/// * new frames: [`may_send`](Self::may_send), then [`push`](Self::push);
/// * lost ones: [`lost`](Self::lost), then [`sent_again`](Self::sent_again); they go first;
/// * inputs: [`handle_ack`](Self::handle_ack), [`handle_timeout`](Self::handle_timeout).
// What a small processor reaches with short instructions comes first.
#[repr(C)]
#[derive(Debug)]
pub struct Sending<F, T, const N: usize> {
    config: LineConfig,
    planted: Planted,
    /// The next new frame.
    next: u16,
    /// The last frame below which the peer misses none. `received < next`.
    received: u16,
    /// The last frame that the peer lets be sent.
    limit: u16,
    /// Bit `i` is frame `received + 1 + i`: whether it has arrived, is to be sent again, and was sent again.
    arrived: u32,
    again: u32,
    repeated: u32,
    /// The newest frame at the time when one was last found to be lost.
    marked_at: u16,
    rtt: Rtt,
    /// A frame that was sent once, and when its last byte left: its acknowledgement is measured.
    timed: Option<(u16, T)>,
    /// When to stop waiting for an acknowledgement.
    due: Option<T>,
    /// When the line has sent what it was given, as far as its speed is known.
    free_at: T,
    in_vain: u8,
    counts: Counts,
    frames: [F; N],
}

impl<F: Copy, T: Moment, const N: usize> Sending<F, T, N> {
    /// A session begins: the peer lets `window` frames be sent.
    pub fn new(now: T, config: LineConfig, planted: Planted, blank: F, window: u8) -> Self {
        Self {
            config,
            planted,
            next: 1,
            received: 0,
            limit: u16::from(window.min(FRAMES_MAX)),
            arrived: 0,
            again: 0,
            repeated: 0,
            marked_at: 0,
            frames: [blank; N],
            rtt: Rtt::new(),
            timed: None,
            due: None,
            free_at: now,
            in_vain: 0,
            counts: Counts::default(),
        }
    }

    /// Frames under way that have not arrived without a hole below them.
    #[cfg_attr(target_os = "none", inline(never))]
    pub const fn in_flight(&self) -> u16 {
        self.next.wrapping_sub(self.received).wrapping_sub(1)
    }

    /// Whether the peer and the memory here let a new frame be sent.
    pub fn may_send(&self) -> bool {
        let most = if self.config.half_duplex { 1 } else { N.min(FRAMES_MAX as usize) };
        let open = distance(self.next, self.limit) >= 0 || self.planted.has(Fault::WindowTooEarly);
        (self.in_flight() as usize) < most && open
    }

    /// Whether nothing more can be sent although the memory here would let it: the peer has to open its window first.
    pub fn is_shut(&self) -> bool {
        self.in_flight() == 0 && !self.may_send()
    }

    /// A new frame of `bytes` bytes is given to the line. Returns its number. Only if [`may_send`](Self::may_send).
    pub fn push(&mut self, now: T, frame: F, bytes: usize, rng: &mut Rng) -> u16 {
        let number = self.next;
        if let Some(slot) = self.frames.get_mut(usize::from(number) % N) {
            *slot = frame;
        }
        self.next = number.wrapping_add(1);
        self.occupy(now, bytes);
        if self.timed.is_none() {
            self.timed = Some((number, self.free_at));
        }
        if self.due.is_none() {
            self.wait_from(self.free_at, rng);
        }
        number
    }

    /// The number that the next frame will have.
    pub const fn next(&self) -> u16 {
        self.next
    }

    /// The lowest frame that is to be sent again.
    pub fn lost(&self) -> Option<(u16, F)> {
        if self.again == 0 {
            return None;
        }
        let number = self.received.wrapping_add(1).wrapping_add(self.again.trailing_zeros() as u16);
        Some((number, *self.frames.get(usize::from(number) % N)?))
    }

    /// The frame that [`lost`](Self::lost) gave is given to the line.
    pub fn sent_again(&mut self, now: T, number: u16, bytes: usize, rng: &mut Rng) {
        let bit = 1 << (number.wrapping_sub(self.received).wrapping_sub(1) & 31);
        self.again &= !bit;
        self.repeated |= bit;
        self.occupy(now, bytes);
        self.counts.retransmissions = self.counts.retransmissions.wrapping_add(1);
        // Whether its acknowledgement is for the first or the second nobody can tell.
        if self.timed.is_some_and(|(timed, _)| timed == number) {
            self.timed = None;
        }
        self.wait_from(self.free_at, rng);
    }

    /// An acknowledgement is overdue a whole wait after `at`.
    fn wait_from(&mut self, at: T, rng: &mut Rng) {
        self.due = Some(at.after(self.rtt.wait(rng)));
    }

    /// Some frame of `bytes` bytes is given to the line: it takes its time.
    pub fn occupy(&mut self, now: T, bytes: usize) {
        self.counts.frames_sent = self.counts.frames_sent.wrapping_add(1);
        self.free_at = self.free_at.latest(now).after(self.config.micros_for(bytes));
    }

    /// When the line is free again but for what a port may well hold, if it is not by now. Until then a frame would only wait, and
    /// others behind it.
    pub fn ready_at(&self, now: T) -> Option<T> {
        let ahead = now.after(LEAD);
        // As much later as the line is busy beyond what the port holds.
        ahead.is_before(self.free_at).then(|| now.after(self.free_at.micros_since(ahead)))
    }

    /// The peer says what has arrived, and that `window` frames above it may be sent. `each` is given every frame of which it
    /// is now known that it arrived, and all before it.
    ///
    /// # Errors
    /// If it speaks of what was not sent: nothing has changed then.
    pub fn handle_ack(
        &mut self,
        now: T,
        (received, bitmap, window): (u16, u32, u8),
        rng: &mut Rng,
        mut each: impl FnMut(F),
    ) -> Result<(), AckError> {
        let new = distance(self.received, received);
        if new < 0 {
            // A line does not reorder; but nothing depends on that here.
            return Ok(());
        }
        let in_flight = u32::from(self.in_flight());
        let left = in_flight.checked_sub(new as u32).ok_or(AckError)?;
        // Above the first one that is missing, nothing can have arrived that was not sent.
        let arrived = bitmap << 1;
        if bitmap >> 31 != 0 || arrived & !low_bits(left) != 0 {
            return Err(AckError);
        }
        for _ in 0..new {
            self.received = self.received.wrapping_add(1);
            if let Some(frame) = self.frames.get(usize::from(self.received) % N) {
                each(*frame);
            }
        }
        // All of them can be known to have arrived at once only if there are as many as bits.
        let shifted = |bits: u32| if N < 32 || new < 32 { bits >> (new & 31) } else { 0 };
        let before = shifted(self.arrived);
        let progress = new > 0 || arrived & !before != 0;
        self.arrived = before | arrived;
        self.again = shifted(self.again) & !self.arrived;
        self.repeated = shifted(self.repeated);
        let limit = self.received.wrapping_add(u16::from(window));
        if distance(self.limit, limit) > 0 {
            self.limit = limit;
        }
        if let Some((number, at)) = self.timed
            && self.has_arrived(number)
        {
            self.timed = None;
            self.rtt.measure(now.micros_since(at));
        }
        self.mark_lost();
        if progress {
            self.in_vain = 0;
            self.rtt.progress();
            self.wait_from(self.free_at.latest(now), rng);
        }
        if left == 0 {
            self.due = None;
        }
        Ok(())
    }

    fn has_arrived(&self, number: u16) -> bool {
        let above = distance(self.received, number);
        above <= 0 || (above <= 32 && self.arrived & (1 << (above - 1)) != 0)
    }

    /// What has not arrived although something that was sent later has, is lost.
    #[cfg_attr(target_os = "none", inline(never))]
    fn mark_lost(&mut self) {
        if self.arrived == 0 {
            return;
        }
        let highest = 31 - self.arrived.leading_zeros();
        let missing = low_bits(highest) & !self.arrived & !self.again;
        let newest = self.received.wrapping_add(1 + highest as u16);
        // One that was sent again can have been overtaken only by what was sent after that.
        let overtaken = distance(self.marked_at, newest) > 0;
        let lost = if overtaken { missing } else { missing & !self.repeated };
        if lost != 0 {
            self.again |= lost;
            self.marked_at = self.next.wrapping_sub(1);
        }
    }

    /// Time has passed: says whether an acknowledgement is overdue. Everything that has not arrived is sent again then.
    pub fn handle_timeout(&mut self, now: T, rng: &mut Rng) -> bool {
        let Some(due) = self.due else { return false };
        if now.is_before(due) {
            return false;
        }
        if self.planted.has(Fault::RetryLimit) {
            self.in_vain = self.in_vain.saturating_add(1);
            if self.in_vain > PLANTED_RETRIES {
                self.due = None;
                return false;
            }
        }
        self.again = low_bits(u32::from(self.in_flight())) & !self.arrived;
        self.marked_at = self.next.wrapping_sub(1);
        self.timed = None;
        self.rtt.back_off();
        self.wait_from(self.free_at.latest(now), rng);
        true
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub const fn deadline(&self) -> Option<T> {
        self.due
    }

    /// What has happened, as far as this end knows.
    pub fn stats(&self) -> LineStats {
        let Counts { frames_received, frames_sent, seal_errors, resyncs, retransmissions, duplicates } =
            self.counts;
        let rtt = self.rtt.smoothed();
        LineStats { frames_received, frames_sent, seal_errors, resyncs, retransmissions, duplicates, rtt }
    }

    /// The same, to count in.
    pub const fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }
}

/// What a port may hold ahead of the line, in microseconds.
const LEAD: u32 = 20_000;
