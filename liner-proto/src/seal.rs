//! Where a frame becomes trustworthy: a checksum in front of its body.
//!
//! The checksum is a CRC-32C (Castagnoli, as in RFC 3720) that continues from the number of the session. A CRC maps
//! different starting values to different results for the same bytes, so a frame that was sealed for one session never
//! passes in another.

use crate::id::SessionId;

/// Bytes of the seal in front of a frame's body.
pub const LEN: usize = 4;

/// A frame that is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It is too short to hold a seal and a body.
    #[error("the frame is too short to hold a seal and a body")]
    TooShort,
    /// It was damaged, or sealed for another session.
    #[error("the frame was damaged or belongs to another session")]
    Broken,
}

/// The CRC-32C of the bytes that `parts` make together, continued from the number of the session.
///
/// For [`SessionId::HANDSHAKE`] that is the plain CRC-32C.
#[inline]
pub fn checksum(session: SessionId, parts: &[&[u8]]) -> u32 {
    parts.iter().fold(session.0, |crc, part| append(crc, part))
}

/// The seal of a frame whose body is what `parts` make together.
#[inline]
pub fn seal(session: SessionId, parts: &[&[u8]]) -> [u8; LEN] {
    checksum(session, parts).to_le_bytes()
}

/// The body of a frame.
///
/// # Errors
/// [`SealError::TooShort`] if there is no body; [`SealError::Broken`] if the seal does not fit the body and the session.
#[inline]
pub fn open(session: SessionId, frame: &[u8]) -> Result<&[u8], SealError> {
    let Some((seal, body)) = frame.split_first_chunk::<LEN>() else { return Err(SealError::TooShort) };
    if body.is_empty() {
        return Err(SealError::TooShort);
    }
    if u32::from_le_bytes(*seal) != append(session.0, body) {
        return Err(SealError::Broken);
    }
    Ok(body)
}

#[cfg(feature = "std")]
use crc32c::crc32c_append as append;

#[cfg(not(feature = "std"))]
use small::append_without_table as append;

/// Bit by bit, without a table: a device spends its time on the line, and its flash on other things.
#[cfg(any(test, not(feature = "std")))]
mod small {
    /// The polynomial of CRC-32C with its bits in reverse.
    const CASTAGNOLI: u32 = 0x82f6_3b78;

    /// The CRC of some bytes followed by `bytes`, where `crc` is the CRC of those before.
    pub(super) fn append_without_table(crc: u32, bytes: &[u8]) -> u32 {
        // The register is the complement of the result so far.
        !bytes.iter().fold(!crc, |register, &byte| {
            (0..8).fold(register ^ u32::from(byte), |register, _| {
                let divides = register & 1 != 0;
                register >> 1 ^ if divides { CASTAGNOLI } else { 0 }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_of_the_handshake_is_plain_crc32c() {
        // The check value of CRC-32C, and a vector of RFC 3720, B.4.
        assert_eq!(checksum(SessionId::HANDSHAKE, &[b"123456789"]), 0xe306_9283);
        assert_eq!(checksum(SessionId::HANDSHAKE, &[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(checksum(SessionId::HANDSHAKE, &[]), 0);
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let session = SessionId(0x1234_5678);
        let mut frame = [0; 9];
        frame[..LEN].copy_from_slice(&seal(session, &[b"he", b"llo"]));
        frame[LEN..].copy_from_slice(b"hello");
        assert_eq!(open(session, &frame), Ok(&b"hello"[..]));
        for len in 0..=LEN {
            assert_eq!(open(session, &frame[..len]), Err(SealError::TooShort));
        }
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(session, &damaged), Err(SealError::Broken), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn parts_count_as_one(session: u32, bytes: [u8; 40], cut in 0..=40_usize) {
            let (a, b) = bytes.split_at(cut);
            let session = SessionId(session);
            prop_assert_eq!(checksum(session, &[a, b]), checksum(session, &[&bytes]));
        }

        #[test]
        fn a_frame_of_another_session_never_passes(session: u32, other: u32, body: [u8; 12]) {
            prop_assume!(session != other);
            let mut frame = [0; 16];
            frame[..LEN].copy_from_slice(&seal(SessionId(session), &[&body]));
            frame[LEN..].copy_from_slice(&body);
            prop_assert_eq!(open(SessionId(other), &frame), Err(SealError::Broken));
        }

        #[cfg(feature = "std")]
        #[test]
        fn the_small_checksum_is_the_fast_one(session: u32, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(small::append_without_table(session, &bytes), append(session, &bytes));
        }
    }

    #[test]
    fn the_session_is_where_the_checksum_continues() {
        let begun = small::append_without_table(0, b"12345");
        assert_eq!(checksum(SessionId(begun), &[b"6789"]), 0xe306_9283);
    }
}
