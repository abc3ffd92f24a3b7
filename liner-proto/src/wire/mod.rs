//! The formats, normative in `docs/PROTOCOL.md`.
//!
//! The body of a frame begins with a tag; what follows is in postcard's encoding. A body ends where its frame ends, and bytes
//! behind the fields that this version knows are ignored, so that a later version can add some. Nothing here keeps
//! state, and nothing panics whatever the bytes are: values are read with checked accessors only.

pub mod batch;
pub mod control;
pub mod data;
pub mod handshake;
pub mod page;
pub mod record;
mod text;
pub mod varint;

use batch::Batch;
use control::{Ack, Begin, Bind, Close, Echo, Fragment, Marks, Numbered, Probe, TopicFull};
use data::Data;
use handshake::{Answer, Confirm, Hello};
use page::Page;
use text::Writer;

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
    let Some((&tag, rest)) = body.split_first() else { return Err(DecodeError::Truncated) };
    Ok(match tag {
        tag::BATCH => Body::Batch(Batch::decode(rest)?),
        tag::MARKS => Body::Marks(Marks::decode(rest)?),
        tag::DATA_FIRST..=tag::DATA_LAST => Body::Data(Data::decode(body)?),
        tag::ACK => Body::Ack(take(rest)?),
        tag::BIND => Body::Bind(Bind::decode(rest)?),
        tag::HELLO => Body::Hello(Hello::decode(rest)?),
        tag::ANSWER => Body::Answer(Answer::decode(rest)?),
        tag::CONFIRM => Body::Confirm(Confirm::decode(rest)?),
        tag::CLOSE => Body::Close(Close::decode(rest)?),
        tag::PAGE => Body::Page(Page::decode(rest)?),
        tag::TOPIC_FULL => Body::TopicFull(TopicFull::decode(rest)?),
        tag::PROBE => Body::Probe(take(rest)?),
        tag::ECHO => Body::Echo(take(rest)?),
        tag::BEGIN => Body::Begin(Begin::decode(rest)?),
        tag::GREET => Body::Greet,
        tag::NUMBERED => Body::Numbered(Numbered::decode(rest)?),
        tag::FRAGMENT => Body::Fragment(Fragment::decode(rest)?),
        tag::SKIPPABLE_FIRST.. => Body::Skipped(tag),
        _ => return Err(DecodeError::Unsupported(tag)),
    })
}

/// Writes the body of a frame to the front of `out`. Returns the bytes written.
///
/// On the way of many messages a batch's head is written by [`BatchHead`](batch::BatchHead), a page by
/// [`PageBuilder`](page::PageBuilder) and a record's head by [`DataHead`](data::DataHead); none of them copies records.
///
/// # Errors
/// If `out` is too small or a text too long.
pub fn encode(body: &Body<'_>, out: &mut [u8]) -> Result<usize, BufferFull> {
    match body {
        Body::Hello(hello) => {
            short(hello.name)?;
            tagged(tag::HELLO, out, |out| hello.encode(out))
        }
        Body::Answer(answer) => {
            short(answer.name)?;
            tagged(tag::ANSWER, out, |out| put(answer, out))
        }
        Body::Confirm(confirm) => tagged(tag::CONFIRM, out, |out| put(confirm, out)),
        Body::Close(close) => {
            short(close.text)?;
            tagged(tag::CLOSE, out, |out| put(close, out))
        }
        Body::Marks(marks) => tagged(tag::MARKS, out, |out| put(marks, out)),
        Body::Batch(batch) => {
            let head_len = batch.head.encode(out)?;
            let rest = out.get_mut(head_len..).unwrap_or_default();
            Ok(head_len + copy(&[batch.run], rest)?)
        }
        Body::Bind(bind) => {
            short(bind.text)?;
            tagged(tag::BIND, out, |out| put(bind, out))
        }
        Body::Ack(ack) => tagged(tag::ACK, out, |out| put(ack, out)),
        Body::Page(page) => page.encode(out).ok_or(BufferFull),
        Body::TopicFull(full) => {
            short(full.topic)?;
            tagged(tag::TOPIC_FULL, out, |out| put(full, out))
        }
        Body::Probe(probe) => tagged(tag::PROBE, out, |out| put(probe, out)),
        Body::Echo(echo) => tagged(tag::ECHO, out, |out| put(echo, out)),
        Body::Begin(begin) => tagged(tag::BEGIN, out, |out| put(begin, out)),
        Body::Greet => copy(&[&[tag::GREET]], out),
        Body::Numbered(numbered) => copy(&[&Numbered::head(numbered.frame), numbered.body], out),
        Body::Fragment(fragment) => {
            let (head, len) = Fragment::head(fragment.left);
            copy(&[head.get(..len).unwrap_or_default(), fragment.bytes], out)
        }
        Body::Data(data) => copy(&data.parts().slices(), out),
        Body::Skipped(tag) => copy(&[&[*tag]], out),
    }
}

fn short(text: &str) -> Result<(), BufferFull> {
    text::check_text(text).map_err(|_| BufferFull)
}

fn tagged(
    tag: u8,
    out: &mut [u8],
    fields: impl FnOnce(&mut [u8]) -> Result<usize, BufferFull>,
) -> Result<usize, BufferFull> {
    let Some((first, rest)) = out.split_first_mut() else { return Err(BufferFull) };
    *first = tag;
    Ok(1 + fields(rest)?)
}

fn copy(parts: &[&[u8]], out: &mut [u8]) -> Result<usize, BufferFull> {
    let mut writer = Writer::new(out);
    for part in parts {
        writer.bytes(part).ok_or(BufferFull)?;
    }
    Ok(writer.len())
}

/// Reads fields in postcard's encoding, and ignores what follows them.
fn take<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, _)) => Ok(value),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Truncated),
        Err(postcard::Error::DeserializeBadVarint) => Err(DecodeError::Varint),
        Err(postcard::Error::DeserializeBadUtf8) => Err(DecodeError::Text),
        Err(_) => Err(DecodeError::Range),
    }
}

fn put<T: serde::Serialize>(value: &T, out: &mut [u8]) -> Result<usize, BufferFull> {
    postcard::to_slice(value, out).map(|written| written.len()).map_err(|_| BufferFull)
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
