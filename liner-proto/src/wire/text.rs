//! Texts and the other small fields that records and pages are made of.

use core::fmt;
use core::str::Utf8Error;

use super::varint::varint_len;
use super::{DecodeError, TEXT_MAX, tag};

/// The bytes that a text takes, its length included.
#[inline]
pub(super) const fn text_len(text: &str) -> usize {
    varint_len(text.len() as u64) + text.len()
}

/// A text as a peer has sent it: UTF-8, if the peer keeps to the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<'a>(pub(super) &'a [u8]);

impl<'a> Text<'a> {
    pub(super) const EMPTY: Self = Self(&[]);

    /// The same text, as a log may show it.
    #[cfg(feature = "alloc")]
    pub(crate) const fn of(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// Whether it has no bytes.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text.
    ///
    /// # Errors
    /// If it is not UTF-8. A gateway of liner sends nothing else; to look takes half a kilobyte of code, and most devices only compare.
    pub const fn to_str(self) -> Result<&'a str, Utf8Error> {
        core::str::from_utf8(self.0)
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What is not UTF-8 is shown as U+FFFD, and control characters by their escapes.
impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

/// As a literal of bytes: whoever prints it cannot be spoken to by a peer, and the device need not look whether it is UTF-8.
#[cfg(feature = "defmt")]
impl defmt::Format for Text<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=[u8]:a}", self.0);
    }
}

/// Reads fields one after another, in postcard's encoding.
///
/// After the first field that cannot be read every field is zero or empty, and [`done`](Self::done) says what was wrong: so a
/// frame is read without a branch behind each of its fields, which on a microcontroller is most of the code.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    error: Option<DecodeError>,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, error: None }
    }

    /// What was read, if all of it could be.
    pub(crate) fn done<T>(&self, value: T) -> Result<T, DecodeError> {
        self.error.map_or(Ok(value), Err)
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// All that has not been read: the last field.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&mut self, error: DecodeError) {
        self.rest = &[];
        self.error.get_or_insert(error);
    }

    /// A tag that this version does not know is of no account if it says so itself.
    pub(crate) fn skip(&mut self, tag: u8) {
        if tag < tag::SKIPPABLE_FIRST {
            self.fail(DecodeError::Unsupported(tag));
        }
    }

    /// A value is out of range unless it is `good`.
    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn check(&mut self, good: bool) {
        if !good {
            self.fail(DecodeError::Range);
        }
    }

    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((&byte, rest)) => {
                self.rest = rest;
                byte
            }
            None => {
                self.fail(DecodeError::Truncated);
                0
            }
        }
    }

    /// A truth value, or whether an optional field follows.
    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn flag(&mut self) -> bool {
        let byte = self.byte();
        self.check(byte < 2);
        byte == 1
    }

    /// A number of variable length, with at most as many bytes as one of `bits` bits needs.
    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn number(&mut self, bits: u32) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            // The last byte has room for what is left of the bits, and nothing follows it.
            if shift + 7 > bits && byte >> (bits - shift) != 0 {
                self.fail(DecodeError::Varint);
                return 0;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    pub(crate) fn varint(&mut self) -> u64 {
        self.number(u64::BITS)
    }

    pub(crate) fn varint32(&mut self) -> u32 {
        self.number(u32::BITS) as u32
    }

    /// Eight bytes, the lowest first.
    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn fixed64(&mut self) -> u64 {
        let (low, high) = (self.fixed32(), self.fixed32());
        u64::from(high) << 32 | u64::from(low)
    }

    /// Four bytes, the lowest first.
    pub(crate) fn fixed32(&mut self) -> u32 {
        let (low, high) = (self.fixed16(), self.fixed16());
        u32::from(high) << 16 | u32::from(low)
    }

    /// Two bytes, the lowest first.
    pub(crate) fn fixed16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn text(&mut self) -> &'a str {
        let Text(bytes) = self.unchecked_text();
        core::str::from_utf8(bytes).unwrap_or_else(|_| {
            self.fail(DecodeError::Text);
            ""
        })
    }

    /// A text that nobody has looked at: to check it takes half a kilobyte of a microcontroller's flash.
    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn unchecked_text(&mut self) -> Text<'a> {
        let len = self.varint();
        if len > TEXT_MAX as u64 {
            self.fail(DecodeError::LimitExceeded);
        }
        // After a failure there is nothing left, and the length is of no account.
        let Some((text, rest)) = self.rest.split_at_checked(len as usize) else {
            self.fail(DecodeError::Truncated);
            return Text::EMPTY;
        };
        self.rest = rest;
        Text(text)
    }
}

/// Writes fields one after another into a slice. After a field that did not fit, or a text that is too long,
/// [`done`](Self::done) says so.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    /// Bytes written so far; more than there can be after a failure, so that nothing fits any more.
    len: usize,
}

impl<'a> Writer<'a> {
    const FULL: usize = usize::MAX;

    #[inline]
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Leaves room in front of what is written next: as it is, if nothing was written so far.
    pub(crate) const fn skip_to(&mut self, len: usize) {
        self.len = len;
    }

    /// Bytes written, if all was.
    pub(crate) fn done(&self) -> Option<usize> {
        (self.len != Self::FULL).then_some(self.len)
    }

    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn byte(&mut self, byte: u8) {
        match self.out.get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len += 1;
            }
            None => self.len = Self::FULL,
        }
    }

    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn varint(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.out.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.len = Self::FULL,
        }
    }

    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn fixed64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn text(&mut self, text: &str) {
        if text.len() > TEXT_MAX {
            self.len = Self::FULL;
        }
        self.varint(text.len() as u64);
        self.bytes(text.as_bytes());
    }
}
