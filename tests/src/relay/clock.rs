//! Where the relay reads the clock: a line's pace and its stalls are real time.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(super) fn read() -> Instant {
    Instant::now()
}
