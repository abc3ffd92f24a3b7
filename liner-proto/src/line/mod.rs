//! Frames on a line that loses and damages bytes: sent again until they have arrived, and taken in their order, once.
//!
//! What has to arrive is numbered frame by frame, anew in each session and direction. [`Sending`] keeps what is needed to send
//! a frame again, [`Receiving`] says which frame comes next; neither holds bytes. Both count frames in 16 bits and have at most
//! [`FRAMES_MAX`] of them under way, and so no number is ever mistaken for another. A line never reorders: a frame that has
//! not arrived when a later one has is lost.
//!
//! Above it delivery works as on a reliable link.

mod assembly;
mod carried;
mod receiving;
mod rtt;
mod sending;

use core::time::Duration;

pub use assembly::{Assembly, Piece};
pub use carried::Carried;
pub use receiving::{Receiving, Turn};
pub use rtt::Rtt;
pub use sending::{AckError, Sending};

/// Frames that may be under way in one direction.
pub const FRAMES_MAX: u8 = 32;

/// How long a line may be silent before the next frame on it is led by a zero, which ends whatever noise came meanwhile.
pub const SILENCE: Duration = Duration::from_millis(50);

/// What has happened on a line since its session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LineStats {
    /// Frames that were whole and of this session.
    pub frames_received: u32,
    /// Frames sent, each time counted.
    pub frames_sent: u32,
    /// Frames that failed their check: damaged, or of another session.
    pub seal_errors: u32,
    /// Stretches of bytes between two zeros that are no frame at all.
    pub resyncs: u32,
    /// Frames sent again.
    pub retransmissions: u32,
    /// Frames that had arrived before.
    pub duplicates: u32,
    /// The smoothed round trip, without the time that the line takes for the bytes; nothing before the first one was measured.
    pub rtt: Option<Duration>,
}

/// What [`LineStats`] counts, as it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub(crate) frames_received: u32,
    pub(crate) frames_sent: u32,
    pub(crate) seal_errors: u32,
    pub(crate) resyncs: u32,
    pub(crate) retransmissions: u32,
    pub(crate) duplicates: u32,
}

impl core::ops::AddAssign for LineStats {
    /// Counts go on with those of a later session; the round trip is that one's, if it has one.
    fn add_assign(&mut self, later: Self) {
        self.frames_received = self.frames_received.wrapping_add(later.frames_received);
        self.frames_sent = self.frames_sent.wrapping_add(later.frames_sent);
        self.seal_errors = self.seal_errors.wrapping_add(later.seal_errors);
        self.resyncs = self.resyncs.wrapping_add(later.resyncs);
        self.retransmissions = self.retransmissions.wrapping_add(later.retransmissions);
        self.duplicates = self.duplicates.wrapping_add(later.duplicates);
        self.rtt = later.rtt.or(self.rtt);
    }
}

/// How many frames `to` is above `from`; negative if it is below.
const fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from) as i16
}

/// The lowest `count` bits.
const fn low_bits(count: u32) -> u32 {
    if count >= u32::BITS { u32::MAX } else { (1 << count) - 1 }
}
