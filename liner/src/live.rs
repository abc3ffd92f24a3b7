//! How far something is, on a terminal, in one line that is written anew.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::clock::{Clock, Ticks};

/// How long nothing may be shown.
const EVERY: Duration = Duration::from_millis(200);

/// The line. Where standard error is no terminal there is none.
pub(crate) struct Live {
    is_terminal: bool,
    clock: Clock,
    ticks: Ticks,
}

impl Live {
    pub(crate) fn new() -> Self {
        let ticks = Ticks::new(EVERY, EVERY);
        Self { is_terminal: io::stderr().is_terminal(), clock: Clock::start(), ticks }
    }

    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        if self.is_terminal && self.ticks.take(self.clock.elapsed()) {
            let _ = write!(io::stderr(), "\r\x1b[K{}", text());
        }
    }

    pub(crate) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
