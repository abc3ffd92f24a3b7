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

/// Encodes the frame `bytes[from..to]` and its delimiter to the front of `bytes`. Returns the bytes written.
///
/// It is for frames of less than `254 * from` bytes: what is written stays below what is still to be read.
#[cfg_attr(target_os = "none", inline(never))]
pub(crate) fn encode_in_place(bytes: &mut [u8], from: usize, to: usize) -> usize {
    debug_assert!(to - from < 254 * from && to < bytes.len(), "{from}..{to} of {}", bytes.len());
    let (mut code, mut len) = (0, 1);
    let mut at = from;
    let mut set = |at: usize, byte: u8| {
        if let Some(place) = bytes.get_mut(at) { core::mem::replace(place, byte) } else { 0 }
    };
    loop {
        let byte = if at < to { set(at, DELIMITER) } else { DELIMITER };
        if byte != DELIMITER {
            set(len, byte);
            len += 1;
        }
        at += 1;
        let full = len - code == 0xff && at < to;
        if byte == DELIMITER || full {
            set(code, (len - code) as u8);
            code = len;
            len += 1;
        }
        if at > to {
            break;
        }
    }
    set(code, DELIMITER);
    len
}

/// Decodes bytes without a delimiter to their own front. Returns the length of the frame; nothing if no encoder has made
/// them.
pub(crate) fn decode_in_place(bytes: &mut [u8]) -> Option<usize> {
    let (mut at, mut len, mut left, mut code) = (0, 0, 0, 0xff);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let mut content = byte;
        if left > 0 {
            left -= 1;
        } else {
            left = byte.checked_sub(1)?;
            if core::mem::replace(&mut code, byte) == 0xff {
                continue;
            }
            content = 0;
        }
        // Each block's code byte is read before its content is written, so that `len < at`.
        if let Some(place) = bytes.get_mut(len) {
            *place = content;
        }
        len += 1;
    }
    (left == 0).then_some(len)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes `frame`, cut into three parts, and compares with the crate's encoder for the whole.
    fn encode_parted(frame: &[u8], cuts: (usize, usize)) -> ([u8; 2048], usize) {
        let (a, b) = (cuts.0.min(cuts.1).min(frame.len()), cuts.0.max(cuts.1).min(frame.len()));
        let mut out = [0xee; 2048];
        let len = encode(&[&frame[..a], &frame[a..b], &frame[b..]], &mut out).unwrap();
        let mut whole = [0; 2048];
        let whole_len = ::cobs::encode(frame, &mut whole);
        assert_eq!(out[..len - 1], whole[..whole_len]);
        assert_eq!(out[len - 1], DELIMITER);
        assert!(len <= encoded_len_max(frame.len()));
        (out, len)
    }

    fn assert_round_trip(frame: &[u8], cuts: (usize, usize)) {
        let (mut out, len) = encode_parted(frame, cuts);
        let before = out;
        assert_eq!(split(&mut out[..len - 1], frame.len()), CobsSplit::Incomplete);
        assert_eq!(out, before);
        let CobsSplit::Frame { frame: place, consumed } = split(&mut out[..len + 3], frame.len()) else {
            panic!("no frame came out");
        };
        assert_eq!(&out[place], frame);
        assert_eq!(consumed, len);
        // The same in place, as a device does it.
        let from = 1 + frame.len() / 254;
        let mut room = [0xee; 2048];
        room[from..from + frame.len()].copy_from_slice(frame);
        assert_eq!(encode_in_place(&mut room, from, from + frame.len()), len);
        assert_eq!(room[..len], before[..len]);
        assert_eq!(decode_in_place(&mut room[..len - 1]), Some(frame.len()));
        assert_eq!(&room[..frame.len()], frame);
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out(
            frame in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 1..1200),
            cuts: (u16, u16),
        ) {
            assert_round_trip(&frame, (usize::from(cuts.0) % 1200, usize::from(cuts.1) % 1200));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_decoded_is_decoded_alike(bytes in proptest::collection::vec(prop_oneof![1..5_u8, Just(255)], 1..600)) {
            let mut theirs = bytes.clone();
            theirs.push(DELIMITER);
            let mut ours = bytes;
            let (len, expected) = (decode_in_place(&mut ours), decode(&mut theirs));
            prop_assert_eq!(len, expected);
            prop_assert_eq!(&ours[..len.unwrap_or(0)], &theirs[..expected.unwrap_or(0)]);
        }
    }

    #[test]
    fn full_blocks_end_anywhere() {
        let mut frame = [7; 1100];
        for len in (250..260).chain(504..512).chain(760..766) {
            for cut in [0, 1, 253, 254, 255, 508, len] {
                assert_round_trip(&frame[..len], (cut, len));
                assert_round_trip(&frame[..len], (cut, cut));
            }
        }
        frame[254] = 0;
        assert_round_trip(&frame[..255], (254, 254));
        assert_round_trip(&frame[..256], (254, 255));
    }

    #[test]
    fn the_longest_encoding_is_reached() {
        let (_, len) = encode_parted(&[1; 253], (0, 0));
        assert_eq!(len, encoded_len_max(253));
        let (_, len) = encode_parted(&[1; 255], (0, 0));
        assert_eq!(len, encoded_len_max(255));
    }

    #[test]
    fn an_encoding_that_may_not_fit_is_not_tried() {
        let mut out = [0xee; 7];
        assert_eq!(encode(&[b"123456"], &mut out), None);
        assert_eq!(out, [0xee; 7]);
        assert_eq!(encode(&[b"12", b"345"], &mut out), Some(7));
        assert_eq!(&out, b"\x0612345\0");
        assert_eq!(encode(&[b"", b""], &mut out), None);
    }

    #[test]
    fn delimiters_alone_are_empty() {
        assert_eq!(split(&mut [0, 0, 5], 10), CobsSplit::Empty { consumed: 1 });
        assert_eq!(split(&mut [], 10), CobsSplit::Incomplete);
    }

    #[test]
    fn damage_ends_at_the_next_delimiter() {
        let mut line = *b"\x09abc\0\x03ok\0";
        assert_eq!(split(&mut line, 10), CobsSplit::Bad { consumed: 5 });
        assert_eq!(split(&mut line[5..], 10), CobsSplit::Frame { frame: 0..2, consumed: 4 });
        assert_eq!(&line[5..7], b"ok");
    }

    #[test]
    fn a_line_without_delimiter_is_given_up_at_the_longest_encoding() {
        let mut line = [1; 20];
        assert_eq!(split(&mut line[..11], 10), CobsSplit::Incomplete);
        assert_eq!(split(&mut line[..12], 10), CobsSplit::TooLong { consumed: 12 });
        line[15] = 0;
        assert_eq!(split(&mut line, 10), CobsSplit::TooLong { consumed: 16 });
    }

    #[test]
    fn a_frame_that_decodes_to_more_than_the_limit_is_too_long() {
        // Ten full blocks: the slack that the longest encoding leaves for code bytes would let a longer frame in.
        let frame = [0; 2545];
        let mut out = [0; 2600];
        let len = encode(&[&frame], &mut out).unwrap();
        assert!(len <= encoded_len_max(2540));
        assert_eq!(split(&mut out[..len], 2540), CobsSplit::TooLong { consumed: len });
    }
}
