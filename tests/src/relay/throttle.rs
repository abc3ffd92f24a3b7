//! The pace of a serial line: ten bits a byte, start and stop bit included.

use std::time::Duration;

/// What may pass at once after the line was looked at late. More than that was not on its way: the sender had not written it.
const CREDIT_MAX: Duration = Duration::from_millis(50);
/// The same for slow lines, in bytes.
const CREDIT_MIN: u64 = 16;
/// How long bytes are let come together before they are passed on: a line is not looked at for each of them.
const SLICE: Duration = Duration::from_millis(1);

/// One direction's pace. Times count from an arbitrary zero.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    baud: u32,
    busy: Option<Busy>,
}

/// The line has been busy without a pause.
#[derive(Clone, Copy, Debug)]
struct Busy {
    since: Duration,
    /// Bytes that have passed since then.
    passed: u64,
}

impl Throttle {
    /// A line of this many bits a second, at least ten.
    pub const fn new(baud: u32) -> Self {
        Self { baud: if baud < 10 { 10 } else { baud }, busy: None }
    }

    /// Whether bytes are on their way.
    pub const fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// There are bytes to be sent: the first of them is on its way from now on.
    pub const fn begin(&mut self, now: Duration) {
        if self.busy.is_none() {
            self.busy = Some(Busy { since: now, passed: 0 });
        }
    }

    /// There are none any more.
    pub const fn end(&mut self) {
        self.busy = None;
    }

    /// Bytes that have come through by now, and were not taken yet.
    pub fn ready(&mut self, now: Duration) -> usize {
        let baud = self.baud;
        let Some(busy) = &mut self.busy else { return 0 };
        let through = bytes_in(baud, now.saturating_sub(busy.since));
        let most = bytes_in(baud, CREDIT_MAX).max(CREDIT_MIN);
        if through.saturating_sub(busy.passed) > most {
            *busy = Busy { since: now.saturating_sub(time_of(baud, most)), passed: 0 };
            return usize::try_from(most).unwrap_or(usize::MAX);
        }
        usize::try_from(through.saturating_sub(busy.passed)).unwrap_or(usize::MAX)
    }

    /// So many were taken.
    pub const fn take(&mut self, bytes: usize) {
        if let Some(busy) = &mut self.busy {
            busy.passed += bytes as u64;
        }
    }

    /// When it is worth looking again, if the line is busy.
    pub fn due(&self) -> Option<Duration> {
        let busy = self.busy?;
        let slice = bytes_in(self.baud, SLICE).max(1);
        Some(busy.since + time_of(self.baud, busy.passed + slice))
    }
}

fn bytes_in(baud: u32, time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(baud) / 10_000_000_000).unwrap_or(u64::MAX)
}

/// Rounded up, so that so many bytes have come through by then.
fn time_of(baud: u32, bytes: u64) -> Duration {
    let nanos = (u128::from(bytes) * 10_000_000_000).div_ceil(u128::from(baud.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use liner_proto::rng::Rng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Bytes that pass in ten seconds while there are always some, with a look each time it is due and up to `late` after.
    fn saturated(baud: u32, late: Duration) -> u64 {
        let mut rng = Rng::new([u64::from(baud), 5]);
        let mut throttle = Throttle::new(baud);
        let (mut now, mut total) = (Duration::ZERO, 0);
        throttle.begin(now);
        while now < 10 * SECOND {
            let ready = throttle.ready(now);
            throttle.take(ready);
            total += ready as u64;
            now = now.max(throttle.due().unwrap());
            now += Duration::from_nanos(rng.below(late.as_nanos() as u64 + 1));
        }
        total
    }

    #[test]
    fn a_busy_line_keeps_its_pace_to_the_byte() {
        for baud in [300, 9_600, 115_200, 921_600, 3_000_000] {
            let all = u64::from(baud);
            for late in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(40)] {
                let passed = saturated(baud, late);
                // The last look may come as late as any other.
                let behind = bytes_in(baud, late + SLICE) + 2;
                assert!(
                    passed <= all + 1 && passed + behind >= all,
                    "{passed} at {baud}, looked at {late:?} late"
                );
            }
        }
    }

    #[test]
    fn a_look_that_comes_far_too_late_gives_no_burst() {
        let mut throttle = Throttle::new(115_200);
        throttle.begin(Duration::ZERO);
        assert_eq!(throttle.ready(5 * SECOND), 576);
        throttle.take(576);
        assert_eq!(throttle.ready(5 * SECOND), 0);
        assert_eq!(throttle.ready(5 * SECOND + Duration::from_millis(10)), 115);
    }

    #[test]
    fn an_idle_line_saves_nothing_up() {
        let mut throttle = Throttle::new(9_600);
        assert_eq!((throttle.ready(SECOND), throttle.due()), (0, None));
        throttle.begin(SECOND);
        assert_eq!(throttle.ready(SECOND), 0);
        // A byte takes 1.0416 ms.
        assert_eq!(throttle.due(), Some(SECOND + Duration::from_nanos(1_041_667)));
        assert_eq!(throttle.ready(SECOND + Duration::from_nanos(1_041_667)), 1);
        throttle.take(1);
        throttle.end();
        throttle.begin(3 * SECOND);
        assert_eq!(throttle.ready(3 * SECOND), 0);
    }
}
