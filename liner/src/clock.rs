//! The command's clock: the one place here that reads the time.

use std::time::{Duration, Instant};

use liner_proto::time::Instant as CoreInstant;

/// Time since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the command's one clock")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The same for the core.
    pub(crate) fn now(self) -> CoreInstant {
        CoreInstant::from_micros(u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// Says once in every period that it has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    period: Duration,
    next: Duration,
}

impl Ticks {
    /// The first tick is due at `first`.
    pub(crate) const fn new(first: Duration, period: Duration) -> Self {
        Self { period, next: first }
    }

    /// Whether a tick is due. Ticks that were slept through are not made up for.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next += self.period;
        if self.next <= now {
            self.next = now + self.period;
        }
        true
    }

    /// When the next one is due.
    pub(crate) const fn next(&self) -> Duration {
        self.next
    }

    /// How long until the next one.
    pub(crate) const fn left(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_once_a_period() {
        let second = Duration::from_secs(1);
        let mut ticks = Ticks::new(second, second);
        assert!(!ticks.take(Duration::from_millis(999)));
        assert!(ticks.take(Duration::from_millis(1001)));
        assert!(!ticks.take(Duration::from_millis(1999)));
        assert_eq!(ticks.left(Duration::from_millis(1500)), Duration::from_millis(500));
        assert!(ticks.take(Duration::from_secs(9)));
        assert!(!ticks.take(Duration::from_millis(9999)));
        assert!(ticks.take(Duration::from_secs(10)));
    }
}
