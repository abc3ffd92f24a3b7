//! Frames in Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999), each one followed by a zero byte.
//!
//! Whatever a line has done to the bytes, the next zero byte ends the damage.

use core::ops::Range;

use cobs::{CobsEncoder, DecodeResult, DecoderState};

/// The byte that stands behind each frame and nowhere in it.
const DELIMITER: u8 = 0;

/// What stands at the front of the bytes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CobsSplit {
    /// No delimiter yet: more bytes are needed.
    Incomplete,
    /// A frame, decoded in place.
    Frame {
        /// Where the decoded frame stands in the bytes.
        frame: Range<usize>,
        /// The bytes that were used up, the delimiter included. `frame.end < consumed`.
        consumed: usize,
    },
    /// A delimiter alone: an idle line, or the start of a sender that wants what went before to be done with.
    Empty {
        /// The bytes that were used up.
        consumed: usize,
    },
    /// Bytes up to a delimiter that no encoder has made.
    Bad {
        /// The bytes that were used up.
        consumed: usize,
    },
    /// More than the longest frame. Used up is everything to the delimiter, or all there is if none has come; the rest
    /// of that frame then comes out as one more piece that its seal refuses.
    TooLong {
        /// The bytes that were used up.
        consumed: usize,
    },
}

/// The most bytes that a frame of `len` bytes takes on the line, its delimiter included.
pub const fn encoded_len_max(len: usize) -> usize {
    len.saturating_add(len / 254).saturating_add(2)
}

/// Looks at the front of `bytes` for a frame of at most `max` bytes, and decodes it where it stands.
///
/// Bytes in front of `consumed` are spoilt afterwards, except for the frame. [`CobsSplit::Incomplete`] leaves all as it was.
pub fn split(bytes: &mut [u8], max: usize) -> CobsSplit {
    let longest = encoded_len_max(max);
    let Some(end) = bytes.iter().position(|&byte| byte == DELIMITER) else {
        // The longest encoding needs at least one byte more than this, its delimiter.
        if bytes.len() >= longest {
            return CobsSplit::TooLong { consumed: bytes.len() };
        }
        return CobsSplit::Incomplete;
    };
    let consumed = end + 1;
    if end == 0 {
        return CobsSplit::Empty { consumed };
    }
    if consumed > longest {
        return CobsSplit::TooLong { consumed };
    }
    let encoded = bytes.get_mut(..consumed).unwrap_or_default();
    match decode(encoded) {
        None => CobsSplit::Bad { consumed },
        Some(len) if len > max => CobsSplit::TooLong { consumed },
        Some(len) => CobsSplit::Frame { frame: 0..len, consumed },
    }
}

/// Encodes the frame that `parts` make together, and its delimiter, to the front of `out`. Returns the bytes written.
///
/// Nothing if `out` is shorter than [`encoded_len_max`] of the frame: a frame that would need less is not tried.
pub fn encode(parts: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    let len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    if len == 0 || out.len() < encoded_len_max(len) {
        return None;
    }
    let mut encoder = CobsEncoder::new(out);
    // An empty part at the end of a full block would make the encoder count a byte that it never writes.
    for part in parts.iter().filter(|part| !part.is_empty()) {
        encoder.push(part).ok()?;
    }
    let end = encoder.finalize();
    *out.get_mut(end)? = DELIMITER;
    Some(end + 1)
}

/// Decodes bytes that end with their only delimiter to their own front. Returns the length of the frame.
fn decode(encoded: &mut [u8]) -> Option<usize> {
    let mut state = DecoderState::Idle;
    let mut len = 0;
    for at in 0..encoded.len() {
        match state.feed(*encoded.get(at)?).ok()? {
            DecodeResult::NoData => {}
            // Each block's code byte is read before its content is written, so that `len <= at`.
            DecodeResult::DataContinue(byte) => {
                *encoded.get_mut(len)? = byte;
                len += 1;
            }
            DecodeResult::DataComplete => return Some(len),
        }
    }
    None
}
