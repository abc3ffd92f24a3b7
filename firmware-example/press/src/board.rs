//! What the application needs of a board.

use liner_proto::time::Instant;
use readings::Reset;

/// A board. What it is asked for first is whatever it has; nothing here waits but [`sleep`](Self::sleep).
pub trait Board {
    /// The time since some moment, which stays the same. It does not go backwards.
    fn now(&mut self) -> Instant;

    /// Cycles of the processor since some moment, modulo 2^32: turns of the main loop are measured with it.
    fn cycles(&mut self) -> u32;

    /// Sleeps until an interrupt: of the UART, or of the clock, a millisecond at most.
    fn sleep(&mut self);

    /// Tells the watchdog that the main loop turns.
    fn feed(&mut self);

    /// The most bytes of stack that were in use since the start.
    fn stack(&self) -> u32;

    /// Why it has started, and the number that was noted last in the start before; 0 if nothing is left of it.
    fn reset(&self) -> (Reset, u32);

    /// Notes a number where a reset leaves it, if there is such a place.
    fn note(&mut self, number: u32);

    /// Starts anew.
    fn restart(&mut self) -> !;

    /// Stops until it is switched on again.
    fn stop(&mut self) -> !;

    /// Lets the processor fault: it is to start anew, and to say where it was.
    fn fault(&mut self) -> !;
}
