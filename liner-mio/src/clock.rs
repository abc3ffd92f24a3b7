//! The only place where a clock is read and randomness is drawn.

use std::time::{Instant as Monotonic, SystemTime, UNIX_EPOCH};

use liner_proto::time::Instant;

/// The monotonic clock, as microseconds since the node was built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    zero: Monotonic,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self { zero: read() }
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Instant {
        let elapsed = read().duration_since(self.zero);
        Instant::ZERO + elapsed
    }
}

/// The wall clock, in milliseconds since the Unix epoch; 0 if it stands before that.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.ok().and_then(|wall| u64::try_from(wall.as_millis()).ok()).unwrap_or(0)
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
fn read() -> Monotonic {
    Monotonic::now()
}

/// A seed from the operating system's random source.
pub(crate) fn seed() -> Result<[u64; 2], getrandom::Error> {
    Ok([getrandom::u64()?, getrandom::u64()?])
}
