//! The formats, normative in `docs/PROTOCOL.md`.
//!
//! The body of a frame begins with a tag; what follows is in postcard's encoding. A body ends where its frame ends, and bytes
//! behind the fields that this version knows are ignored, so that a later version can add some. Nothing here keeps
//! state, and nothing panics whatever the bytes are: values are read with checked accessors only.

pub mod batch;
#[cfg(test)]
mod by_postcard;
pub mod control;
pub mod data;
pub(crate) mod device;
pub mod handshake;
pub mod page;
pub mod record;
pub(crate) mod text;
pub mod varint;

use batch::Batch;
use control::{Ack, Begin, Bind, Close, Echo, Fragment, Marks, Numbered, Probe, TopicFull};
use data::Data;
use handshake::{Answer, Confirm, Hello};
use page::Page;
pub(crate) use text::{Reader, Writer};

/// The version of the protocol that is spoken here.
pub const VERSION: u8 = 1;

/// The smallest limit for frames that a node may set, seal included, in bytes. Every frame of a handshake between nodes with
/// names of up to 32 bytes fits, also as it stands on a line.
pub const FRAME_MIN: usize = 192;

/// The longest name, topic, address or other text, in bytes.
pub const TEXT_MAX: usize = 255;

/// The highest number that a peer may use or speak of. What counts from there up to the end of `u64` cannot overflow.
pub const NUMBER_MAX: u64 = u64::MAX / 2;

/// The first byte of a frame's body.
pub mod tag {
    /// [`Hello`](super::handshake::Hello).
    pub const HELLO: u8 = 0x01;
    /// [`Answer`](super::handshake::Answer).
    pub const ANSWER: u8 = 0x02;
    /// [`Confirm`](super::handshake::Confirm).
    pub const CONFIRM: u8 = 0x03;
    /// [`Close`](super::control::Close).
    pub const CLOSE: u8 = 0x04;
    /// [`Marks`](super::control::Marks).
    pub const MARKS: u8 = 0x05;
    /// [`Batch`](super::batch::Batch).
    pub const BATCH: u8 = 0x06;
    /// [`Bind`](super::control::Bind).
    pub const BIND: u8 = 0x07;
    /// [`Ack`](super::control::Ack).
    pub const ACK: u8 = 0x08;
    /// [`Page`](super::page::Page).
    pub const PAGE: u8 = 0x09;
    /// [`TopicFull`](super::control::TopicFull).
    pub const TOPIC_FULL: u8 = 0x0a;
    /// [`Probe`](super::control::Probe).
    pub const PROBE: u8 = 0x0b;
    /// [`Echo`](super::control::Echo).
    pub const ECHO: u8 = 0x0c;
    /// [`Begin`](super::control::Begin).
    pub const BEGIN: u8 = 0x0d;
    /// There is no session here: the other side is to say hello.
    pub const GREET: u8 = 0x0e;
    /// Reserved for a request to a queue or a log.
    pub const CALL: u8 = 0x10;
    /// Reserved for the reply to a request.
    pub const REPLY: u8 = 0x11;
    /// Reserved for a reply that comes in pieces.
    pub const STREAM: u8 = 0x12;
    /// Reserved for the handshake of a seal with keys.
    pub const SEAL_HANDSHAKE: u8 = 0x13;
    /// [`Fragment`](super::control::Fragment).
    pub const FRAGMENT: u8 = 0x14;
    /// [`Numbered`](super::control::Numbered).
    pub const NUMBERED: u8 = 0x15;
    /// From here to [`DATA_LAST`]: a record on a lossy line, [`Data`](super::data::Data).
    pub const DATA_FIRST: u8 = 0x40;
    /// The last tag of a record on a lossy line.
    pub const DATA_LAST: u8 = 0x7f;
    /// From here on: a frame that may be skipped by whoever does not know it.
    pub const SKIPPABLE_FIRST: u8 = 0x80;
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body<'a> {
    /// Step 1 of the handshake.
    Hello(Hello<'a>),
    /// Step 2.
    Answer(Answer<'a>),
    /// Step 3.
    Confirm(Confirm),
    /// The end of the session.
    Close(Close<'a>),
    /// How far each direction has come.
    Marks(Marks),
    /// Numbered records, on a reliable link.
    Batch(Batch<'a>),
    /// A topic's number.
    Bind(Bind<'a>),
    /// How far each direction has come, on a lossy line.
    Ack(Ack),
    /// Rows of a directory.
    Page(Page<'a>),
    /// A topic takes no more.
    TopicFull(TopicFull<'a>),
    /// Whether the peer is there.
    Probe(Probe),
    /// It is.
    Echo(Echo),
    /// The number of the next record, on a lossy line.
    Begin(Begin),
    /// There is no session here, on a lossy line: the other side is to say hello.
    Greet,
    /// A frame with a number, on a lossy line.
    Numbered(Numbered<'a>),
    /// A piece of a body.
    Fragment(Fragment<'a>),
    /// One record, on a lossy line.
    Data(Data<'a>),
    /// A frame with this tag that need not be understood.
    Skipped(u8),
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They end too early.
    #[error("the bytes end within a field")]
    Truncated,
    /// A tag or flags that this version does not know.
    #[error("tag or flags {0:#04x} are not known to this version")]
    Unsupported(u8),
    /// A number that does not end where the largest one must.
    #[error("a number has too many bytes")]
    Varint,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A value that its field cannot have.
    #[error("a value is out of range")]
    Range,
    /// A text that is longer than [`TEXT_MAX`], or a batch of more than [`NUMBERS_MAX`](batch::NUMBERS_MAX) messages.
    #[error("a text is longer than {TEXT_MAX} bytes, or a batch holds too many messages")]
    LimitExceeded,
    /// A batch whose records do not cover its numbers.
    #[error("the records of a batch do not cover its numbers")]
    Mismatch,
    /// A hello that does not begin as every hello does.
    #[error("the peer does not speak this protocol")]
    BadMagic,
    /// A hello of a peer that speaks other versions only.
    #[error("the peer speaks versions {min} to {max}, and not {VERSION}")]
    Version {
        /// The lowest version it speaks.
        min: u8,
        /// The highest one.
        max: u8,
    },
}

/// What was to be written does not fit, or holds a text that is longer than [`TEXT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame does not fit the buffer, or holds a text that is too long")]
pub struct BufferFull;

/// What the body of a frame says. The records of a batch, the rows of a page and the record of a [`Data`] are looked at when
/// they are asked for.
///
/// # Errors
/// If it is nothing that this version knows: [`CloseReason`](control::CloseReason) says with which word to end the session.
#[inline]
pub fn decode(body: &[u8]) -> Result<Body<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let tag = reader.byte();
    let body = match tag {
        tag::BATCH => Body::Batch(Batch::read(&mut reader)),
        tag::MARKS => Body::Marks(Marks::read(&mut reader)),
        tag::DATA_FIRST..=tag::DATA_LAST => Body::Data(Data::read(tag, &mut reader)),
        tag::ACK => Body::Ack(Ack::read(&mut reader)),
        tag::BIND => Body::Bind(Bind::read(&mut reader)),
        tag::HELLO => Body::Hello(Hello::read(&mut reader)),
        tag::ANSWER => Body::Answer(Answer::read(&mut reader)),
        tag::CONFIRM => Body::Confirm(Confirm::read(&mut reader)),
        tag::CLOSE => Body::Close(Close::read(&mut reader)),
        tag::PAGE => Body::Page(Page::read(&mut reader)),
        tag::TOPIC_FULL => Body::TopicFull(TopicFull::read(&mut reader)),
        tag::PROBE => Body::Probe(Probe { number: reader.varint() }),
        tag::ECHO => Body::Echo(Echo { number: reader.varint() }),
        tag::BEGIN => Body::Begin(Begin::read(&mut reader)),
        tag::GREET => Body::Greet,
        tag::NUMBERED => Body::Numbered(Numbered::read(&mut reader)),
        tag::FRAGMENT => Body::Fragment(Fragment::read(&mut reader)),
        _ => {
            reader.skip(tag);
            Body::Skipped(tag)
        }
    };
    reader.done(body)
}

/// Writes the body of a frame to the front of `out`. Returns the bytes written.
///
/// On the way of many messages a batch's head is written by [`BatchHead`](batch::BatchHead), a page by
/// [`PageBuilder`](page::PageBuilder) and a record's head by [`DataHead`](data::DataHead); none of them copies records.
///
/// # Errors
/// If `out` is too small or a text too long.
pub fn encode(body: &Body<'_>, out: &mut [u8]) -> Result<usize, BufferFull> {
    let mut writer = Writer::new(out);
    match body {
        Body::Hello(hello) => hello.write(&mut writer),
        Body::Answer(answer) => answer.write(&mut writer),
        Body::Confirm(confirm) => confirm.write(&mut writer),
        Body::Close(close) => close.write(&mut writer),
        Body::Marks(marks) => marks.write(&mut writer),
        Body::Batch(batch) => {
            batch.head.write(&mut writer);
            writer.bytes(batch.run);
        }
        Body::Bind(bind) => bind.write(&mut writer),
        Body::Ack(ack) => ack.write(&mut writer),
        Body::Page(page) => page.write(&mut writer),
        Body::TopicFull(full) => full.write(&mut writer),
        Body::Probe(Probe { number }) => {
            writer.byte(tag::PROBE);
            writer.varint(*number);
        }
        Body::Echo(Echo { number }) => {
            writer.byte(tag::ECHO);
            writer.varint(*number);
        }
        Body::Begin(begin) => begin.write(&mut writer),
        Body::Greet => writer.byte(tag::GREET),
        Body::Numbered(numbered) => {
            writer.bytes(&Numbered::head(numbered.frame));
            writer.bytes(numbered.body);
        }
        Body::Fragment(fragment) => fragment.write(&mut writer),
        Body::Data(data) => {
            for part in data.parts().slices() {
                writer.bytes(part);
            }
        }
        Body::Skipped(tag) => writer.byte(*tag),
    }
    writer.done().ok_or(BufferFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_tags_are_skipped_or_refused() {
        for first in 0..=u8::MAX {
            let body = [first];
            let decoded = decode(&body);
            match first {
                0x0e => assert_eq!(decoded, Ok(Body::Greet)),
                0x01..=0x0d | 0x14 | 0x15 | 0x40..=0x7f => {
                    assert_eq!(decoded, Err(DecodeError::Truncated), "{first:#04x}");
                }
                0x80.. => assert_eq!(decoded, Ok(Body::Skipped(first))),
                _ => assert_eq!(decoded, Err(DecodeError::Unsupported(first))),
            }
        }
        assert_eq!(decode(&[]), Err(DecodeError::Truncated));
    }

    #[test]
    fn postcard_says_what_is_wrong() {
        // Close: a reason, then a text.
        assert_eq!(decode(&[tag::CLOSE, 0, 2, b'x']), Err(DecodeError::Truncated));
        assert_eq!(decode(&[tag::CLOSE, 0, 1, 0xff]), Err(DecodeError::Text));
        // Bind: a number of 32 bits.
        assert_eq!(decode(&[tag::BIND, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]), Err(DecodeError::Varint));
    }
}
