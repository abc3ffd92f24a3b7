//! How long to wait for an acknowledgement: RFC 6298, for a line whose speed may be known.

use core::time::Duration;

use crate::rng::Rng;

/// The shortest wait, and the one before anything was measured, in microseconds: a host looks at its ports some milliseconds
/// late, and commits in between.
const LEAST: u32 = 200_000;

/// The longest wait in microseconds, without what is drawn: with it, 30 s.
const MOST: u32 = 24_000_000;

/// How often a wait stays doubled once something gets through again, at most: a round trip of 6 s is still measured.
const BACKED_OFF_MAX: u8 = 5;

/// The estimator. Times are microseconds; beyond half a minute all are alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    /// 0 before the first measurement.
    smoothed: u32,
    variation: u32,
    /// How often in a row the wait was in vain: each doubles the next.
    backed_off: u8,
}

impl Rtt {
    /// Nothing was measured.
    pub const fn new() -> Self {
        Self { smoothed: 0, variation: 0, backed_off: 0 }
    }

    /// A frame that was sent once was acknowledged after so many microseconds.
    pub fn measure(&mut self, micros: u32) {
        self.backed_off = 0;
        let sample = micros.clamp(1, 30_000_000);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (sample, sample / 2);
        } else {
            // alpha = 1/8 and beta = 1/4.
            let off = self.smoothed.abs_diff(sample);
            self.variation = self.variation - self.variation / 4 + off / 4;
            self.smoothed = (self.smoothed - self.smoothed / 8 + sample / 8).max(1);
        }
    }

    /// Something new was acknowledged that may have been sent again. A wait that was too short stays doubled until the round trip
    /// is measured for the first time (Karn): otherwise each frame would be sent again before its acknowledgement can be here, and
    /// none be measured. Later a line on which much is lost would wait for nothing.
    pub const fn progress(&mut self) {
        if self.smoothed > 0 {
            self.backed_off = 0;
        } else if self.backed_off > BACKED_OFF_MAX {
            self.backed_off = BACKED_OFF_MAX;
        }
    }

    /// The wait was in vain.
    pub const fn back_off(&mut self) {
        self.backed_off = self.backed_off.saturating_add(1);
    }

    /// How many microseconds to wait now: at most 30 s, a quarter of it drawn, so that two who disturbed each other do not do so
    /// again.
    pub fn wait(&self, rng: &mut Rng) -> u32 {
        let base = (self.smoothed + 4 * self.variation).clamp(LEAST, MOST);
        // Doubled seven times, the shortest one is the longest, and the longest one is still a number of 32 bits.
        let wait = (base << self.backed_off.min(7)).min(MOST);
        wait + rng.below32(wait / 4 + 1)
    }

    /// The smoothed round trip.
    pub const fn smoothed(&self) -> Option<Duration> {
        if self.smoothed == 0 { None } else { Some(Duration::from_micros(self.smoothed as u64)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(rtt: &Rtt) -> (Duration, Duration) {
        let mut rng = Rng::new([1, 2]);
        let waits = (0..200).map(|_| rtt.wait(&mut rng)).collect::<alloc::vec::Vec<_>>();
        let bounds = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
        (Duration::from_micros(bounds.0.into()), Duration::from_micros(bounds.1.into()))
    }

    #[test]
    fn a_steady_line_is_known_soon() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.smoothed(), None);
        for _ in 0..100 {
            rtt.measure(400_000);
        }
        assert!(rtt.smoothed().unwrap().abs_diff(Duration::from_millis(400)) < Duration::from_millis(1));
        let (least, most) = bounds(&rtt);
        assert!(
            least >= Duration::from_millis(400) && most < Duration::from_millis(510),
            "{least:?} {most:?}"
        );
    }

    #[test]
    fn waits_in_vain_double_up_to_half_a_minute() {
        let mut rtt = Rtt::new();
        let (first, _) = bounds(&rtt);
        assert!(first >= Duration::from_millis(200));
        rtt.back_off();
        let (second, _) = bounds(&rtt);
        assert!(second >= Duration::from_millis(400));
        for _ in 0..1000 {
            rtt.back_off();
        }
        let (least, most) = bounds(&rtt);
        assert!(least >= Duration::from_secs(24) && most <= Duration::from_secs(30), "{least:?} {most:?}");
        rtt.progress();
        let (least, most) = bounds(&rtt);
        assert!(least >= Duration::from_secs(6) && most <= Duration::from_secs(8), "{least:?} {most:?}");
        rtt.measure(10_000);
        assert!(bounds(&rtt).1 <= Duration::from_millis(250));
        rtt.back_off();
        assert!(bounds(&rtt).0 >= Duration::from_millis(400));
        rtt.progress();
        assert!(bounds(&rtt).1 <= Duration::from_millis(250));
    }

    #[test]
    fn the_longest_times_do_no_harm() {
        let mut rtt = Rtt::new();
        rtt.measure(u32::MAX);
        rtt.measure(0);
        assert!(bounds(&rtt).1 <= Duration::from_secs(30));
    }
}
