//! Messages with a time to live: how old they are, and when they are too old.
//!
//! In a queue such a message says when it was born, by the clock of this node: one number that needs no table beside it and means the
//! same after a restart. What is sent says its age instead, so that no node has to believe another's clock.

use super::Router;
use crate::time::{Duration, Instant};
use crate::wire::record::{Age, Header};

/// Milliseconds since the Unix epoch that a clock which was ever set is above: September 2001.
const CLOCK_MIN_MS: u64 = 1_000_000_000_000;

/// Where the time of a node begins whose clock was never set. Nothing that is of use was born before.
const UNSET_MS: u64 = 100_000_000_000;

/// Said of a message whose age is not known any more.
const UNKNOWN_MS: u64 = 0;

/// Turns the node's time into that of messages. It is set once: between two looks nothing but elapsed time is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    wall_ms: u64,
    built: Instant,
}

impl Calendar {
    /// At `built` the shell's clock said `wall_ms`; 0 if it has none.
    pub(super) const fn new(wall_ms: u64, built: Instant) -> Self {
        Self { wall_ms, built }
    }

    const fn is_set(&self) -> bool {
        self.wall_ms >= CLOCK_MIN_MS
    }

    pub(super) fn at(&self, now: Instant) -> Reading {
        let elapsed = u64::try_from(now.since(self.built).as_millis()).unwrap_or(u64::MAX);
        let zero = if self.is_set() { self.wall_ms } else { UNSET_MS };
        Reading { ms: zero.saturating_add(elapsed), is_set: self.is_set() }
    }
}

/// What the calendar says now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    ms: u64,
    is_set: bool,
}

impl Reading {
    /// The age of a message; nothing if it is not known. One of an earlier life of the node has a time that means something only
    /// if the clocks of both lives were set, and nobody has turned them back.
    fn age(self, born_ms: u64, is_earlier: bool) -> Option<u64> {
        let means_nothing = is_earlier && !(self.is_set && born_ms >= CLOCK_MIN_MS);
        if born_ms == UNKNOWN_MS || means_nothing { None } else { self.ms.checked_sub(born_ms) }
    }

    /// Whether the message is of no use any more, as far as anybody can tell: one whose age is not known may be.
    pub(super) fn is_too_old(self, header: &Header<'_>, is_earlier: bool) -> bool {
        let (Some(ttl_ms), Some(born_ms)) = (header.ttl_ms, header.born_ms) else { return false };
        self.age(born_ms, is_earlier).is_none_or(|age| age >= u64::from(ttl_ms))
    }

    /// A header as it goes into a queue.
    pub(super) fn queued<'h>(self, header: &Header<'h>) -> Header<'h> {
        let age = header.age.unwrap_or(Age { ms: 0, unknown: false });
        let born_ms = if age.unknown { UNKNOWN_MS } else { self.ms.saturating_sub(age.ms) };
        Header { age: None, born_ms: Some(born_ms), ..*header }
    }

    /// A header of a queue as it leaves it, for a link or for another queue. `is_earlier` says that it was queued in an earlier life.
    pub(super) fn unqueued<'h>(self, header: &Header<'h>, is_earlier: bool) -> Header<'h> {
        let Some(born_ms) = header.born_ms else { return *header };
        let age = self.age(born_ms, is_earlier);
        let age = Age { ms: age.unwrap_or(0), unknown: age.is_none() };
        Header { age: Some(age), born_ms: None, ..*header }
    }
}

impl Router {
    pub(super) fn reading(&self) -> Reading {
        self.calendar.at(self.now)
    }
}

/// A time to live as a record says it.
pub(super) fn millis(ttl: Duration) -> Option<u32> {
    u32::try_from(ttl.as_millis()).ok().filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::{Mode, Topic};

    const WALL: u64 = 1_700_000_000_000;

    fn header(ttl_ms: u32) -> Header<'static> {
        Header { ttl_ms: Some(ttl_ms), ..Header::new(Mode::All, Topic::Number(1)) }
    }

    fn later(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn it_ages_in_a_queue_and_says_so_when_it_leaves() {
        let calendar = Calendar::new(WALL, Instant::ZERO);
        let taken = Header { age: Some(Age { ms: 40, unknown: false }), ..header(100) };
        let queued = calendar.at(later(1000)).queued(&taken);
        assert_eq!((queued.age, queued.born_ms), (None, Some(WALL + 960)));
        for (ms, old) in [(1059, false), (1060, true)] {
            assert_eq!(calendar.at(later(ms)).is_too_old(&queued, false), old);
        }
        let sent = calendar.at(later(1050)).unqueued(&queued, false);
        assert_eq!((sent.age, sent.born_ms), (Some(Age { ms: 90, unknown: false }), None));
    }

    #[test]
    fn after_a_restart_it_is_as_old_as_the_clock_says() {
        let queued = Calendar::new(WALL, Instant::ZERO).at(later(0)).queued(&header(5000));
        let reading = |wall| Calendar::new(wall, Instant::ZERO).at(later(0));
        assert!(!reading(WALL + 4999).is_too_old(&queued, true));
        assert!(reading(WALL + 5000).is_too_old(&queued, true));
    }

    #[test]
    fn a_clock_that_says_nothing_makes_it_too_old() {
        let queued = Calendar::new(WALL, Instant::ZERO).at(later(0)).queued(&header(u32::MAX));
        let unset = Calendar::new(0, Instant::ZERO);
        assert!(unset.at(later(9)).is_too_old(&queued, true), "it cannot be compared");
        assert!(Calendar::new(WALL - 1, Instant::ZERO).at(later(0)).is_too_old(&queued, true), "turned back");
        let queued = unset.at(later(5)).queued(&header(100));
        assert!(!unset.at(later(104)).is_too_old(&queued, false), "in one life elapsed time is enough");
        assert!(unset.at(later(105)).is_too_old(&queued, false));
        assert!(unset.at(later(6)).is_too_old(&queued, true), "not in the next");
        let sent = unset.at(later(6)).unqueued(&queued, true);
        assert_eq!(sent.age, Some(Age { ms: 0, unknown: true }));
        assert!(unset.at(later(6)).is_too_old(&unset.at(later(6)).queued(&sent), false), "and that stays");
    }

    #[test]
    fn without_a_time_to_live_nothing_is_too_old() {
        let plain = Header::new(Mode::One, Topic::Number(1));
        assert!(!Calendar::new(0, Instant::ZERO).at(later(0)).is_too_old(&plain, true));
        assert_eq!((millis(Duration::ZERO), millis(Duration::from_secs(2))), (None, Some(2000)));
        assert_eq!(millis(Duration::from_secs(u64::from(u32::MAX))), None);
    }
}
