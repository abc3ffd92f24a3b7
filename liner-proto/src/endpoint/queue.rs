//! What an endpoint needs of its queue and of its cursor in the gateway's stream, whatever keeps them.
//!
//! Numbers are the low bits of numbers near to the last one that is acknowledged, for both directions of the line: no more than
//! that many are ever under way, and a small processor counts in 32 bits.

use core::fmt::Debug;

use super::SendError;
use crate::config::Limits;
use crate::delivery::{Arrival, Resumed, Violation};
use crate::effect::GapReason;
use crate::id::Epoch;
use crate::planted::Planted;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::handshake::StreamFields;

/// What stands in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'q> {
    /// A message.
    Message {
        /// The place of its topic in the configuration.
        topic: u16,
        /// What was sent.
        payload: &'q [u8],
        /// Where it stands, so that [`at`](Work::at) need not look for it.
        place: u32,
    },
    /// So many numbers that will never carry one.
    Gap(u32),
}

/// Keeps what a device sends until it is acknowledged, and how far it has taken what its gateway sends.
///
/// [`Ram`](super::Ram) and [`Stored`](super::Stored) are all there are: what they do is the protocol's affair, and nobody
/// else's to implement.
pub trait Queue: Work {}

/// Memory that an endpoint makes for itself.
pub trait Own {
    /// Empty memory.
    fn own() -> Self;
}

impl<const BYTES: usize> Own for [u8; BYTES] {
    fn own() -> Self {
        [0; BYTES]
    }
}

impl Own for () {
    fn own() {}
}

/// What a [`Queue`] does. Its name is not known outside, so that nobody else implements it.
pub trait Work: Debug {
    /// Whether the gateway makes the epochs, for want of a random source.
    const ASSIGNED: bool = false;

    /// What it is given to keep messages in.
    type Memory;

    /// An empty queue.
    fn new(memory: Self::Memory, epoch: Epoch, limits: &Limits, planted: Planted) -> Self;

    // ------------------------------------------------------------------ what is sent

    /// Queues a message. Returns its number.
    fn push(&mut self, now: Instant, topic: u16, payload: &[u8]) -> Result<u64, SendError>;

    /// Drops the oldest message. Says whether there was one.
    fn drop_oldest(&mut self) -> bool;

    /// The number of the next message.
    fn next(&self) -> u64;

    /// The last number that the gateway has committed.
    fn acked(&self) -> u64;

    /// Whether something was sent that is not acknowledged.
    fn waits(&self) -> bool;

    /// What is to be sent next, with its first number.
    fn peek(&mut self) -> Option<(u32, Item<'_>)>;

    /// What is kept under a number that was sent, there if that is known; nothing if it was dropped.
    fn at(&self, number: u32, place: Option<u32>) -> Option<Item<'_>>;

    /// Why a number carries no message.
    fn gone_reason(&self, number: u32) -> GapReason;

    /// Whether a number may have been sent before the present session.
    fn is_doubtful(&self, number: u32) -> bool;

    /// What [`peek`](Self::peek) gave leaves in pieces, and stays where it is until the last of them is on its way.
    fn begin_pieces(&mut self) {}

    /// Everything up to `last` is on its way.
    fn advance(&mut self, now: Instant, last: u32);

    /// The gateway has committed everything up to this number.
    fn handle_ack(&mut self, now: Instant, acked: u32) -> Result<(), Violation>;

    /// The link is gone: nothing is under way any more.
    fn handle_link_down(&mut self);

    // ------------------------------------------------------------------ the handshake

    /// What the handshake says about both streams.
    fn stream(&self) -> StreamFields;

    /// The gateway has made an epoch for a queue that has none.
    fn assign(&mut self, epoch: Epoch);

    /// Takes what the gateway says about both streams. Returns how many of its messages are lost, too.
    fn resume(&mut self, now: Instant, theirs: &StreamFields) -> (Resumed, u64);

    /// The gateway knows more than was ever sent: begins a new epoch, now or as soon as that is possible. Says whether it has begun.
    fn regress(&mut self, rng: &mut Rng) -> bool;

    // ------------------------------------------------------------------ what is received

    /// A record, or a gap, for the gateway's numbers `first..=last` has arrived. `bytes` counts against the window.
    fn handle_arrival(&mut self, first: u64, last: u64, bytes: usize) -> Result<Arrival, Violation>;

    /// The message that was taken last was dropped before anybody had it: it is to come again.
    fn handle_dropped(&mut self);

    /// Whether a message with this number that was sent before may have been taken already.
    fn in_doubt(&self, number: u64) -> bool;

    /// The last number that may be acknowledged. `held` says that the last message was not processed yet.
    fn taken(&self, held: bool) -> u32;

    /// Frames that the gateway may send.
    fn window(&self, held: bool) -> u8;

    /// Whether the gateway should hear how far that is.
    fn owes_marks(&self, held: bool) -> bool;

    /// It has been told.
    fn set_told(&mut self, held: bool);
}
