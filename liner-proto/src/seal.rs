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
    if u32::from_le_bytes(*seal) != checksum(session, &[body]) {
        return Err(SealError::Broken);
    }
    Ok(body)
}

#[cfg(feature = "std")]
use crc32c::crc32c_append as append;

#[cfg(not(feature = "std"))]
use small::append;

/// Without a table: a device spends its time on the line, and its flash on other things.
#[cfg(any(test, not(feature = "std")))]
mod small {
    use crc::{CRC_32_ISCSI, Crc, NoTable};

    static CASTAGNOLI: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISCSI);

    /// The CRC of some bytes followed by `bytes`, where `crc` is the CRC of those before.
    pub(super) fn append(crc: u32, bytes: &[u8]) -> u32 {
        // The register is the complement of the result so far; the crate takes it with its bits in reverse.
        let mut digest = CASTAGNOLI.digest_with_initial((!crc).reverse_bits());
        digest.update(bytes);
        digest.finalize()
    }
}
