//! Frames behind a length: a little-endian `u32`, then so many bytes.

use core::ops::Range;

/// Bytes of the length before each frame.
pub const HEAD: usize = 4;

/// The shortest frame: a seal of four bytes and one byte that says what the frame is.
pub const SHORTEST: usize = 5;

/// A whole frame at the front of the bytes of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Where the frame stands in the bytes. `frame.end == consumed`.
    pub frame: Range<usize>,
    /// The bytes that were used up, the length included.
    pub consumed: usize,
}

/// A length that cannot be true. The link carries something else, or is damaged: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than it may be.
    #[error("a frame of {length} bytes is longer than the {max} that may arrive")]
    TooLong {
        /// The length that was announced.
        length: u32,
        /// The longest that may arrive.
        max: usize,
    },
    /// The frame cannot hold a seal and a tag.
    #[error("a frame of {length} bytes is shorter than any frame")]
    TooShort {
        /// The length that was announced.
        length: u32,
    },
}

/// The length that goes before a frame of `len` bytes; nothing if no length can say so much.
#[inline]
pub fn head(len: usize) -> Option<[u8; HEAD]> {
    u32::try_from(len).ok().map(u32::to_le_bytes)
}

/// The frame at the front of `bytes`; nothing if more bytes are needed.
///
/// # Errors
/// If the length is above `max` or below [`SHORTEST`]: said as soon as the length is there, before a byte of the frame is.
#[inline]
pub fn split(bytes: &[u8], max: usize) -> Result<Option<Split>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head);
    let len = match usize::try_from(length) {
        Ok(len) if len <= max => len,
        _ => return Err(FrameError::TooLong { length, max }),
    };
    if len < SHORTEST {
        return Err(FrameError::TooShort { length });
    }
    if rest.len() < len {
        return Ok(None);
    }
    Ok(Some(Split { frame: HEAD..HEAD + len, consumed: HEAD + len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_one_by_one() {
        let link = b"\x05\0\0\0first\x06\0\0\0second";
        let first = split(link, 6).unwrap().unwrap();
        assert_eq!(&link[first.frame], b"first");
        let rest = &link[first.consumed..];
        let second = split(rest, 6).unwrap().unwrap();
        assert_eq!(&rest[second.frame], b"second");
        assert_eq!(second.consumed, rest.len());
    }

    #[test]
    fn a_frame_that_is_not_whole_is_waited_for() {
        let link = b"\x05\0\0\0first";
        for len in 0..link.len() {
            assert_eq!(split(&link[..len], 100), Ok(None), "{len} bytes");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_the_frame_is_there() {
        let length = |length: u32| split(&length.to_le_bytes(), 100);
        assert_eq!(length(100), Ok(None));
        assert_eq!(length(101), Err(FrameError::TooLong { length: 101, max: 100 }));
        assert_eq!(length(u32::MAX), Err(FrameError::TooLong { length: u32::MAX, max: 100 }));
        assert_eq!(length(5), Ok(None));
        assert_eq!(length(4), Err(FrameError::TooShort { length: 4 }));
        assert_eq!(length(0), Err(FrameError::TooShort { length: 0 }));
    }

    #[test]
    fn the_head_says_the_length() {
        assert_eq!(head(0x0001_0203), Some([3, 2, 1, 0]));
        assert_eq!(head(usize::MAX), None);
    }
}
