//! Numbers of variable length, as postcard writes them: LEB128, seven bits to a byte, the lowest first.

use super::DecodeError;

/// The most bytes that a `u64` takes.
pub const LEN_MAX: usize = 10;

/// The bytes that `value` takes.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // One byte for every seven bits begun, and one for zero.
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Writes `value` to the front of `out`. Returns the bytes written; nothing if they do not fit.
#[inline]
pub fn put_varint(out: &mut [u8], value: u64) -> Option<usize> {
    if value < 0x80 {
        *out.first_mut()? = value as u8;
        return Some(1);
    }
    let len = varint_len(value);
    let out = out.get_mut(..len)?;
    let mut rest = value;
    for byte in &mut *out {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    *out.last_mut()? &= 0x7f;
    Some(len)
}

/// Reads a number from the front of `bytes`, and what stands behind it.
///
/// A number may be written with more bytes than it needs, up to [`LEN_MAX`].
///
/// # Errors
/// [`DecodeError::Truncated`] if the bytes end within it, [`DecodeError::Varint`] if it does not end where a `u64` must.
#[inline]
pub fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    match bytes.split_first() {
        Some((&byte, rest)) if byte < 0x80 => Ok((u64::from(byte), rest)),
        Some(_) => take_long(bytes),
        None => Err(DecodeError::Truncated),
    }
}

fn take_long(bytes: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let mut value = 0_u64;
    let mut rest = bytes;
    for shift in (0..u64::BITS).step_by(7) {
        let Some((&byte, after)) = rest.split_first() else { return Err(DecodeError::Truncated) };
        // Of the tenth byte one bit has room.
        if shift == 63 && byte > 1 {
            return Err(DecodeError::Varint);
        }
        value |= u64::from(byte & 0x7f) << shift;
        rest = after;
        if byte < 0x80 {
            return Ok((value, rest));
        }
    }
    Err(DecodeError::Varint)
}
