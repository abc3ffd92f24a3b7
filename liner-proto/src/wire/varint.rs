//! Numbers of variable length, as postcard writes them: LEB128, seven bits to a byte, the lowest first.

use super::DecodeError;
use super::text::{Reader, Writer};

/// The most bytes that a `u64` takes.
pub const LEN_MAX: usize = 10;

/// The bytes that `value` takes.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // One byte for every seven bits begun, and one for zero.
    let bits = u64::BITS - (value | 1).leading_zeros();
    // The same as `bits.div_ceil(7)` up to 64, without a division.
    ((bits * 9 + 64) / 64) as usize
}

/// Writes `value` to the front of `out`. Returns the bytes written; nothing if they do not fit.
#[inline]
pub fn put_varint(out: &mut [u8], value: u64) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.varint(value);
    writer.done()
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
    let mut reader = Reader::new(bytes);
    let value = reader.varint();
    reader.done((value, reader.rest()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values of every length, not only the long ones.
    fn any_value() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn numbers_are_as_postcard_writes_them(value in any_value()) {
            let mut theirs = [0; LEN_MAX];
            let theirs = postcard::to_slice(&value, &mut theirs).unwrap();
            let mut ours = [0; LEN_MAX];
            let len = put_varint(&mut ours, value).unwrap();
            prop_assert_eq!(&ours[..len], theirs);
            prop_assert_eq!(varint_len(value), len);
            prop_assert_eq!(take_varint(&ours[..len]), Ok((value, &[][..])));
            prop_assert_eq!(put_varint(&mut ours[..len - 1], value), None);
            prop_assert_eq!(take_varint(&ours[..len - 1]), Err(DecodeError::Truncated));
        }

        #[test]
        fn bytes_are_read_as_postcard_reads_them(bytes: [u8; 11], long: u16) {
            let mut bytes = bytes;
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte |= if long >> at & 1 == 1 { 0x80 } else { 0 };
            }
            let ours = take_varint(&bytes).ok();
            prop_assert_eq!(ours, postcard::take_from_bytes::<u64>(&bytes).ok());
        }
    }

    #[test]
    fn lengths_change_where_seven_bits_are_full() {
        for (value, len) in [(0, 1), (0x7f, 1), (0x80, 2), (0x3fff, 2), (0x4000, 3), (u64::MAX, LEN_MAX)] {
            assert_eq!(varint_len(value), len, "{value:#x}");
        }
    }

    #[test]
    fn a_number_ends_with_its_tenth_byte() {
        let mut bytes = [0xff; 11];
        assert_eq!(take_varint(&bytes), Err(DecodeError::Varint));
        bytes[9] = 2;
        assert_eq!(take_varint(&bytes), Err(DecodeError::Varint));
        bytes[9] = 1;
        assert_eq!(take_varint(&bytes), Ok((u64::MAX, &[0xff][..])));
        bytes[9] = 0x81;
        assert_eq!(take_varint(&bytes), Err(DecodeError::Varint));
    }
}
