//! Time as the core knows it: a number that the caller hands in.

use core::fmt::Debug;
use core::num::NonZeroU32;
pub use core::time::Duration;

/// Microseconds since an arbitrary zero, the same one for the life of a node.
///
/// The core never reads a clock: every input carries the caller's `Instant`. A value smaller than one that
/// was given before is taken as that earlier one, so a clock that steps back delays timers and breaks nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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

/// A point in time as the rooms of a line need it: a host has [`Instant`], a device [`Tick`].
pub trait Moment: Copy + Debug {
    /// So many microseconds later.
    fn after(self, micros: u32) -> Self;

    /// Microseconds from `earlier` until this; none if `earlier` is later. Saturates.
    fn micros_since(self, earlier: Self) -> u32;

    /// Whether it is before `other`.
    fn is_before(self, other: Self) -> bool;

    /// Whether it has come.
    fn is_past(self, now: Self) -> bool {
        !now.is_before(self)
    }

    /// The later of two.
    fn latest(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    /// The earlier of two.
    fn soonest(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }
}

impl Moment for Instant {
    fn after(self, micros: u32) -> Self {
        self.after_micros(micros as u64)
    }

    fn micros_since(self, earlier: Self) -> u32 {
        u32::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(u32::MAX)
    }

    fn is_before(self, other: Self) -> bool {
        self < other
    }
}

/// A point in time in 32 bits: units of 64 microseconds, and after 38 hours the count begins anew.
///
/// Two of them can be compared as long as they are less than 19 hours apart. A device sees to that: nothing that it waits for
/// is further away than [`LONGEST`](Self::LONGEST), what is due is dealt with whenever it looks at the clock, and a sleep
/// that was longer counts as that long. Of what may be longer ago it asks [`is_ago`](Self::is_ago).
// The lowest bit is always set: so there is room for "none", and on a small processor a time that may be missing is one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(NonZeroU32);

impl Tick {
    /// Wherever the count begins.
    pub const ZERO: Self = Self(NonZeroU32::MIN);

    /// The longest time between two of them, more than 9 hours, in their units.
    pub const LONGEST: u32 = 1 << 29;

    /// Microseconds in a unit, as a power of two.
    const SHIFT: u32 = 6;

    /// So many units later.
    pub const fn plus(self, units: u32) -> Self {
        let Some(later) = NonZeroU32::new(self.0.get().wrapping_add(units << 1) | 1) else { return self };
        Self(later)
    }

    /// Whether so many microseconds have passed since this tick, which is not to come. It may be any time ago: only for so many
    /// microseconds in 38 hours it seems to be recent then.
    pub fn is_ago(self, micros: u32, now: Self) -> bool {
        now.0.get().wrapping_sub(self.0.get()) >= Self::units(micros) << 1
    }

    /// How many units it is after `other`; negative if it is before it.
    pub const fn distance(self, other: Self) -> i32 {
        self.0.get().wrapping_sub(other.0.get()) as i32 >> 1
    }

    /// Units of a number of microseconds, to the nearest one: what a line takes for its frames adds up.
    const fn units(micros: u32) -> u32 {
        (micros >> Self::SHIFT) + (micros >> (Self::SHIFT - 1) & 1)
    }

    /// Whole units of a number of milliseconds; at most [`LONGEST`](Self::LONGEST).
    pub const fn units_of_millis(millis: u64) -> u32 {
        // 1000 / 64
        let units = millis.saturating_mul(125) >> 3;
        if units > Self::LONGEST as u64 { Self::LONGEST } else { units as u32 }
    }

    /// The time that passes from `earlier` until `now`, in whole units; at most [`LONGEST`](Self::LONGEST).
    pub const fn units_between(earlier: Instant, now: Instant) -> u32 {
        let units = (now.0 >> Self::SHIFT).saturating_sub(earlier.0 >> Self::SHIFT);
        if units > Self::LONGEST as u64 { Self::LONGEST } else { units as u32 }
    }

    /// The instant at which it is this tick, if it was `tick` at `now`; not before `now`.
    pub const fn instant(self, tick: Self, now: Instant) -> Instant {
        let left = self.distance(tick);
        if left <= 0 {
            now
        } else {
            Instant(now.0 >> Self::SHIFT << Self::SHIFT).after_micros((left as u64) << Self::SHIFT)
        }
    }
}

impl Moment for Tick {
    fn after(self, micros: u32) -> Self {
        self.plus(Self::units(micros))
    }

    fn micros_since(self, earlier: Self) -> u32 {
        let units = self.distance(earlier).clamp(0, (u32::MAX >> Self::SHIFT) as i32);
        (units as u32) << Self::SHIFT
    }

    fn is_before(self, other: Self) -> bool {
        self.distance(other) < 0
    }
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
