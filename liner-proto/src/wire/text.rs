//! Texts and the other small fields that records and pages are made of.

use super::varint::{put_varint, take_varint, varint_len};
use super::{DecodeError, TEXT_MAX};

/// The bytes that a text takes, its length included.
#[inline]
pub(super) const fn text_len(text: &str) -> usize {
    varint_len(text.len() as u64) + text.len()
}

/// Reads a text from the front of `bytes`.
#[inline]
pub(super) fn take_text(bytes: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let (len, rest) = take_varint(bytes)?;
    if len > TEXT_MAX as u64 {
        return Err(DecodeError::LimitExceeded);
    }
    let Some((text, rest)) = rest.split_at_checked(len as usize) else { return Err(DecodeError::Truncated) };
    let text = core::str::from_utf8(text).map_err(|_| DecodeError::Text)?;
    Ok((text, rest))
}

/// Reads a byte from the front of `bytes`.
#[inline]
pub(super) fn take_byte(bytes: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    bytes.split_first().map(|(&byte, rest)| (byte, rest)).ok_or(DecodeError::Truncated)
}

/// Reads a number of at most 32 bits from the front of `bytes`.
#[inline]
pub(super) fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let (value, rest) = take_varint(bytes)?;
    let value = u32::try_from(value).map_err(|_| DecodeError::Range)?;
    Ok((value, rest))
}

/// Fails if a text is longer than it may be.
pub(super) const fn check_text(text: &str) -> Result<(), DecodeError> {
    if text.len() > TEXT_MAX { Err(DecodeError::LimitExceeded) } else { Ok(()) }
}

/// Writes fields one after another into a slice.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    pub(super) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Bytes written so far.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) -> Option<()> {
        *self.out.get_mut(self.len)? = byte;
        self.len += 1;
        Some(())
    }

    #[inline]
    pub(super) fn varint(&mut self, value: u64) -> Option<()> {
        self.len += put_varint(self.out.get_mut(self.len..)?, value)?;
        Some(())
    }

    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    #[inline]
    pub(super) fn text(&mut self, text: &str) -> Option<()> {
        if text.len() > TEXT_MAX {
            return None;
        }
        self.varint(text.len() as u64)?;
        self.bytes(text.as_bytes())
    }
}
