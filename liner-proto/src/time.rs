//! Time as the core knows it: a number that the caller hands in.

pub use core::time::Duration;

/// Microseconds since an arbitrary zero, the same one for the life of a node.
///
/// The core never reads a clock: every input carries the caller's `Instant`. A value smaller than one that
/// was given before is taken as that earlier one, so a clock that steps back delays timers and breaks nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The arbitrary zero.
    pub const ZERO: Self = Self(0);

    /// The instant `micros` microseconds after the zero.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` until this instant; nothing if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        if cfg!(target_pointer_width = "64") { Duration::from_micros(micros) } else { by_digits(micros) }
    }

    /// This instant and so many microseconds. Saturates at the end of time.
    pub(crate) const fn after_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// This instant and so many milliseconds.
    pub(crate) const fn after_millis(self, millis: u32) -> Self {
        self.after_micros(millis as u64 * 1000)
    }

    /// Microseconds from `earlier` until this instant; none if `earlier` is later.
    pub(crate) const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time, about 584,000 years after the zero.
    fn add(self, duration: Duration) -> Self {
        self.after_micros(micros(duration))
    }
}

/// Whole microseconds. What is longer than 136 years is taken for ever: that spares a small processor long multiplications.
pub(crate) const fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    if seconds > u32::MAX as u64 {
        return u64::MAX;
    }
    seconds * 1_000_000 + duration.subsec_micros() as u64
}

/// As `Duration::from_micros`, by divisions of 32 bits: those of 64 bits are four hundred bytes of a small processor's flash.
const fn by_digits(micros: u64) -> Duration {
    // A second is 64 times 15,625 microseconds.
    const DIVISOR: u32 = 15_625;
    let (high, mut seconds, mut rest) = (micros >> 6, 0_u64, 0_u32);
    let mut shift = u64::BITS;
    while shift > 0 {
        shift -= 16;
        let digits = rest << 16 | (high >> shift) as u16 as u32;
        seconds = seconds << 16 | (digits / DIVISOR) as u64;
        rest = digits % DIVISOR;
    }
    let micros = rest * 64 + (micros as u32) % 64;
    Duration::new(seconds, micros * 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_long_division_is_a_division(value: u64, shift in 0..64_u32) {
            prop_assert_eq!(by_digits(value >> shift), Duration::from_micros(value >> shift));
        }

        #[test]
        fn what_was_added_has_passed(from: u32, passed: u32, more in 0..1000_u32) {
            let (from, passed) = (Instant::from_micros(from.into()), Duration::from_micros(passed.into()));
            prop_assert_eq!((from + (passed + Duration::from_nanos(more.into()))).since(from), passed);
        }
    }

    #[test]
    fn time_has_an_end() {
        assert_eq!(by_digits(u64::MAX), Duration::from_micros(u64::MAX));
        assert_eq!(Instant::from_micros(7) + Duration::MAX, Instant::from_micros(u64::MAX));
        assert_eq!(Instant::ZERO.since(Instant::from_micros(1)), Duration::ZERO);
    }
}
