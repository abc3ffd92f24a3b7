//! Bytes of a link into frames and back.
//!
//! A frame is a sealed message of the protocol; what stands in it is no concern of this room. Reliable byte streams
//! carry a [`length`] before each frame; lines that lose or damage bytes carry [`cobs`], whose delimiter lets a
//! receiver find the next frame again. Both deframers look at bytes that the caller has collected, say what is at their
//! front, and never believe a length before they have checked it.

pub mod cobs;
pub mod length;
