//! The checksum of a row: a CRC-32C over everything in it that matters.

/// A checksum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check(u32);

impl Check {
    /// The checksum so far, as the database keeps it.
    pub const fn value(self) -> i64 {
        self.0 as i64
    }

    /// Adds a number.
    pub fn number(self, number: i64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Adds a text, and its length, so that no two lists of texts look the same.
    pub fn text(self, text: &str) -> Self {
        self.number(text.len() as i64).bytes(text.as_bytes())
    }

    /// Adds bytes; only at the end of a row may their number be unknown.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }
}
