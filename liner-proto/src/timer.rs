//! When something is due, and what it is.

use crate::rng::Rng;
use crate::time::{Instant, Moment};

/// Why the core wants to be woken; for logs and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Wakeup {
    /// The handshake takes too long.
    Handshake,
    /// The link was silent for as long as it may be.
    KeepAlive,
    /// The peer was silent for longer than it may be.
    PeerSilent,
    /// Messages in flight do not arrive.
    Stall,
    /// What was sent and is not acknowledged has to be written.
    WriteBehind,
    /// The store is to be asked again.
    StoreRetry,
    /// It is time to dial.
    Dial,
    /// A write makes no progress.
    WriteStall,
    /// A peer whose name another instance claims has not answered.
    Probe,
    /// A subscriber has been away for as long as it may be.
    Lease,
    /// What was counted is to be told.
    Report,
    /// Peers are to be told of others.
    Directory,
    /// Frames that were sent on a line have not arrived.
    Retransmit,
    /// The peer on a line is to hear what has arrived.
    Ack,
    /// A line takes bytes again.
    Line,
}

/// A deadline with its reason.
pub type Deadline<T = Instant> = (T, Wakeup);

/// The earlier of two deadlines.
pub fn earlier<T: Moment>(a: Option<Deadline<T>>, b: Option<Deadline<T>>) -> Option<Deadline<T>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0.is_before(a.0) { b } else { a }),
        (a, None) => a,
        (None, b) => b,
    }
}

/// When to try again to reach a peer.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    down_since: Instant,
    failures: u32,
}

impl BackOff {
    /// Nothing was tried before `now`.
    pub const fn new(now: Instant) -> Self {
        Self { down_since: now, failures: 0 }
    }

    /// The peer was there until `now`.
    pub const fn reset(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// When the peer was there last, or when it was tried first.
    pub const fn down_since(&self) -> Instant {
        self.down_since
    }

    /// Whether nothing has failed since the peer was there.
    pub const fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// It has failed. Returns when to try again: no later than `most` microseconds from now.
    pub fn fail(&mut self, now: Instant, most: u32, rng: &mut Rng) -> Instant {
        let wait = pause(now.micros_since(self.down_since), self.failures).min(most);
        self.failures = self.failures.saturating_add(1);
        // Half of the wait is certain, half is drawn, so that nodes which lost one peer together do not return together.
        now.after_micros(u64::from(wait / 2 + rng.below32(wait / 2 + 1)))
    }
}

/// How long to wait before the next try, in microseconds: from 0.1 s, at most 0.25 s in the first minute without a session, 1 s
/// in the first ten minutes, 30 s after that.
fn pause(down: u64, failures: u32) -> u32 {
    let grown = 100_000 << failures.min(10);
    let most = match down {
        0..60_000_000 => 250_000,
        60_000_000..600_000_000 => 1_000_000,
        _ => 30_000_000,
    };
    most.min(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_away_for_minutes_is_found_within_a_second() {
        assert_eq!(pause(2_000_000, 0), 100_000);
        assert_eq!(pause(59_000_000, 50), 250_000);
        assert_eq!(pause(300_000_000, 500), 1_000_000);
        assert_eq!(pause(3_600_000_000, 5000), 30_000_000);
    }

    #[test]
    fn no_wait_is_longer_than_asked_for() {
        let (mut rng, mut back_off) = (Rng::new([1, 2]), BackOff::new(Instant::ZERO));
        let (most, mut now) = (1_000_000, Instant::ZERO);
        for _ in 0..2000 {
            let next = back_off.fail(now, most, &mut rng);
            assert!((50_000..=u64::from(most)).contains(&next.micros_since(now)));
            now = next;
        }
        assert!(now > Instant::from_micros(600_000_000) && !back_off.is_fresh());
    }
}
