//! Pages of the directory.

use super::text::{Reader, Writer};
use super::{BufferFull, DecodeError, tag};

/// Some rows of a node's directory. The rows have not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// The state of the directory that the rows lead to.
    pub version: u64,
    /// Whether no more pages of that state follow.
    pub last: bool,
    count: u64,
    bytes: &'a [u8],
}

/// A row of a directory, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row<'a> {
    /// What happens to the row.
    pub change: Change,
    /// The topic; empty in a row that says that the node is there, and no more. With [`Change::Remove`] that is the end of all that was
    /// said of the node.
    pub topic: &'a str,
    /// The node that has subscribed to it: the sender, or one that it knows at first hand.
    pub name: &'a str,
    /// Where the node listens; empty, or `@name`, for a node that only dials.
    pub address: &'a str,
    /// Whether messages are kept for the node while it is away.
    pub durable: bool,
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Change {
    /// It is there.
    Add = 0,
    /// It is gone.
    Remove = 1,
}

impl<'a> Page<'a> {
    /// The rows.
    pub const fn rows(&self) -> Rows<'a> {
        Rows { left: self.count, rest: self.bytes }
    }

    /// Reads a page behind its tag.
    pub(super) fn read(reader: &mut Reader<'a>) -> Self {
        Self {
            version: reader.varint(),
            last: reader.flag(),
            count: reader.varint(),
            bytes: reader.take_rest(),
        }
    }

    /// Writes tag and page.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::PAGE);
        writer.varint(self.version);
        writer.byte(u8::from(self.last));
        writer.varint(self.count);
        writer.bytes(self.bytes);
    }
}

/// The rows of a page, from [`Page::rows`].
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    left: u64,
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    fn read(&mut self) -> Result<Row<'a>, DecodeError> {
        let mut reader = Reader::new(self.rest);
        let change = if reader.flag() { Change::Remove } else { Change::Add };
        let (topic, name, address) = (reader.text(), reader.text(), reader.text());
        let durable = reader.flag();
        self.rest = reader.rest();
        reader.done(Row { change, topic, name, address, durable })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Row<'a>, DecodeError>;

    /// The next row. After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let row = self.read();
        if row.is_err() {
            self.left = 0;
        }
        Some(row)
    }
}

/// Writes the body of a page, as many rows as fit.
#[derive(Debug)]
pub struct PageBuilder<'a> {
    out: &'a mut [u8],
    /// Where the byte `last` stands; the count follows it, then the rows.
    last_at: usize,
    len: usize,
    count: u8,
}

impl<'a> PageBuilder<'a> {
    /// The most rows of one page: what a count of one byte can say.
    pub const ROWS_MAX: u8 = 0x7f;

    /// A page without rows, its tag included, at the front of `out`.
    ///
    /// # Errors
    /// If not even that fits.
    pub fn new(out: &'a mut [u8], version: u64) -> Result<Self, BufferFull> {
        let empty = Page { version, last: false, count: 0, bytes: &[] };
        let mut writer = Writer::new(out);
        empty.write(&mut writer);
        let len = writer.done().ok_or(BufferFull)?;
        Ok(Self { out, last_at: len - 2, len, count: 0 })
    }

    /// Adds a row; says whether it did. A row that does not fit leaves the page as it was.
    #[must_use]
    pub fn push(&mut self, row: &Row<'_>) -> bool {
        if self.count == Self::ROWS_MAX {
            return false;
        }
        let Some(len) = self.out.get_mut(self.len..).and_then(|out| write_row(row, out)) else {
            return false;
        };
        self.len += len;
        self.count += 1;
        true
    }

    /// How many rows it has.
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Ends the page. Returns the bytes of the frame's body, at the front of the slice.
    pub fn finish(self, last: bool) -> usize {
        let places = self.out.iter_mut().skip(self.last_at);
        for (place, byte) in places.zip([u8::from(last), self.count]) {
            *place = byte;
        }
        self.len
    }
}

fn write_row(row: &Row<'_>, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.byte(row.change as u8);
    writer.text(row.topic);
    writer.text(row.name);
    writer.text(row.address);
    writer.byte(u8::from(row.durable));
    writer.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, decode, encode};

    const ROW: Row<'static> =
        Row { change: Change::Add, topic: "t/1", name: "node", address: "127.0.0.1:7420", durable: true };

    fn page(bytes: &[u8]) -> Page<'_> {
        match decode(bytes) {
            Ok(Body::Page(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_come_back() {
        let gone = Row { change: Change::Remove, durable: false, address: "@node", ..ROW };
        let mut bytes = [0xee; 200];
        let mut builder = PageBuilder::new(&mut bytes, u64::MAX).unwrap();
        assert!(builder.push(&ROW) && builder.push(&gone));
        assert_eq!(builder.count(), 2);
        let len = builder.finish(true);
        let read = page(&bytes[..len]);
        assert_eq!((read.version, read.last), (u64::MAX, true));
        assert!(read.rows().eq([Ok(ROW), Ok(gone)]));
        let mut copy = [0; 200];
        assert_eq!(encode(&Body::Page(read), &mut copy), Ok(len));
        assert_eq!(copy[..len], bytes[..len]);
        // What a later version adds behind the rows is ignored.
        assert!(page(&bytes).rows().eq([Ok(ROW), Ok(gone)]));
    }

    #[test]
    fn a_page_takes_what_fits() {
        let mut bytes = [0; 60];
        let mut builder = PageBuilder::new(&mut bytes, 1).unwrap();
        assert!(builder.push(&ROW) && builder.push(&ROW));
        assert!(!builder.push(&ROW));
        let len = builder.finish(false);
        assert_eq!(page(&bytes[..len]).rows().count(), 2);
        assert!(!page(&bytes[..len]).last);
        assert!(PageBuilder::new(&mut [0; 3], 1).is_err());
    }

    #[test]
    fn a_page_has_a_limit() {
        let mut bytes = [0; 4096];
        let mut builder = PageBuilder::new(&mut bytes, 1).unwrap();
        let rows = (0..200).take_while(|_| builder.push(&ROW)).count();
        assert_eq!(rows, 127);
        let len = builder.finish(true);
        assert_eq!(page(&bytes[..len]).rows().filter(Result::is_ok).count(), 127);
        let long = "x".repeat(256);
        let mut builder = PageBuilder::new(&mut bytes, 1).unwrap();
        assert!(!builder.push(&Row { topic: &long, ..ROW }));
    }

    #[test]
    fn a_row_that_makes_no_sense_is_the_last() {
        let mut bytes = [0; 100];
        let mut builder = PageBuilder::new(&mut bytes, 1).unwrap();
        assert!(builder.push(&ROW) && builder.push(&ROW) && builder.push(&ROW));
        let len = builder.finish(true);
        let row = (len - 4) / 3;
        let fault = |at: usize, byte: u8| {
            let mut damaged = bytes;
            damaged[at] = byte;
            let rows = page(&damaged[..len]).rows();
            (rows.count(), rows.last().and_then(Result::err))
        };
        assert_eq!(fault(4 + row, 2), (2, Some(DecodeError::Range)));
        assert_eq!(fault(4 + 2 * row - 1, 2), (2, Some(DecodeError::Range)));
        assert_eq!(fault(4 + row + 2, 0xff), (2, Some(DecodeError::Text)));
        assert_eq!(fault(3, 4), (4, Some(DecodeError::Truncated)));
    }

    #[test]
    fn a_page_that_ends_early_is_refused() {
        let mut bytes = [0; 10];
        let len = PageBuilder::new(&mut bytes, 1).unwrap().finish(true);
        for short in 0..len {
            assert_eq!(decode(&bytes[..short]), Err(DecodeError::Truncated));
        }
        assert_eq!(decode(&[tag::PAGE, 1, 2, 0]), Err(DecodeError::Range));
    }
}
