//! The clock: how long a connection has been idle, and how long a node waits for one.

use core::time::Duration;
use std::time::Instant;

/// The time since a moment of its own.
#[derive(Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(read())
    }

    pub(crate) fn now(&self) -> Duration {
        read().duration_since(self.0)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
fn read() -> Instant {
    Instant::now()
}
