//! The only place where a clock is read and randomness is drawn.

use std::time::Instant as Monotonic;

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

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
fn read() -> Monotonic {
    Monotonic::now()
}

/// A seed from the operating system's random source.
pub(crate) fn seed() -> Result<[u64; 2], getrandom::Error> {
    Ok([getrandom::u64()?, getrandom::u64()?])
}
