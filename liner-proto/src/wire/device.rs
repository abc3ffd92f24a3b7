//! What a device reads of the frames that its gateway sends. A gateway has no others for it: what is read here is all that
//! a small processor's flash has to hold.

use super::control::{Ack, Begin, CloseReason, Fragment, TopicFull};
use super::data::Data;
use super::handshake::Answer;
use super::text::Reader;
use super::{DecodeError, tag};

/// What a frame for a device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Step 2 of the handshake.
    Answer(Answer<'a>),
    /// The end of the session.
    Close(CloseReason),
    /// How far each direction has come.
    Ack(Ack),
    /// Whether the device is there: which probe of the session.
    Probe(u64),
    /// The gateway is: which probe of the session was the last that it has had.
    Echo(u64),
    /// There is no session here.
    Greet,
    /// A frame with a number: see [`content`].
    Numbered {
        /// Which frame of the session it is.
        frame: u16,
        /// Its body.
        body: &'a [u8],
    },
    /// One record.
    Data(Data<'a>),
    /// Something that need not be understood.
    Skipped,
}

/// What a numbered frame for a device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// The number of the next record.
    Begin(u64),
    /// A topic takes no more.
    TopicFull(TopicFull<'a>),
    /// A piece of a body.
    Fragment(Fragment<'a>),
    /// Something that a device has no use for.
    Skipped,
}

/// What the body of a frame says.
///
/// # Errors
/// If it is nothing that a gateway says to a device.
pub fn decode(body: &[u8]) -> Result<Body<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let tag = reader.byte();
    let body = match tag {
        tag::DATA_FIRST..=tag::DATA_LAST => Body::Data(Data::read(tag, &mut reader)),
        tag::ACK => Body::Ack(Ack::read(&mut reader)),
        tag::ANSWER => Body::Answer(Answer::read(&mut reader)),
        tag::CLOSE => {
            let reason = CloseReason::from(reader.byte());
            reader.text();
            Body::Close(reason)
        }
        tag::PROBE => Body::Probe(reader.varint()),
        tag::ECHO => Body::Echo(reader.varint()),
        tag::GREET => Body::Greet,
        tag::NUMBERED => Body::Numbered { frame: reader.fixed16(), body: reader.take_rest() },
        _ => {
            reader.skip(tag);
            Body::Skipped
        }
    };
    reader.done(body)
}

/// What a numbered frame says, if pieces are taken only `in_pieces`.
///
/// # Errors
/// If it is nothing that a gateway says to a device.
pub fn content(body: &[u8], in_pieces: bool) -> Result<Content<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let tag = reader.byte();
    let content = match tag {
        tag::BEGIN => Content::Begin(Begin::read(&mut reader).number),
        tag::TOPIC_FULL => Content::TopicFull(TopicFull::read(&mut reader)),
        tag::FRAGMENT if in_pieces => Content::Fragment(Fragment::read(&mut reader)),
        // A device keeps no directory, and topics come as text.
        tag::BIND | tag::PAGE => Content::Skipped,
        _ => {
            reader.skip(tag);
            Content::Skipped
        }
    };
    reader.done(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, control};

    /// What a device reads is what every node reads, as far as it reads it.
    fn assert_alike(bytes: &[u8]) {
        let ours = decode(bytes);
        let theirs = match wire::decode(bytes) {
            Ok(wire::Body::Answer(answer)) => Ok(Body::Answer(answer)),
            Ok(wire::Body::Close(close)) => Ok(Body::Close(close.reason)),
            Ok(wire::Body::Ack(ack)) => Ok(Body::Ack(ack)),
            Ok(wire::Body::Probe(probe)) => Ok(Body::Probe(probe.number)),
            Ok(wire::Body::Echo(echo)) => Ok(Body::Echo(echo.number)),
            Ok(wire::Body::Greet) => Ok(Body::Greet),
            Ok(wire::Body::Data(data)) => Ok(Body::Data(data)),
            Ok(wire::Body::Skipped(_)) => Ok(Body::Skipped),
            Ok(wire::Body::Numbered(numbered)) => {
                assert_eq!(ours, Ok(Body::Numbered { frame: numbered.frame, body: numbered.body }));
                let content = match numbered.content() {
                    Ok(control::Content::Begin(begin)) => Ok(Content::Begin(begin.number)),
                    Ok(control::Content::TopicFull(full)) => Ok(Content::TopicFull(full)),
                    Ok(control::Content::Fragment(fragment)) => Ok(Content::Fragment(fragment)),
                    Ok(_) => Ok(Content::Skipped),
                    Err(error) => Err(error),
                };
                let own = super::content(numbered.body, true);
                assert!(own == content || own == Ok(Content::Skipped), "{own:?}, {content:?}");
                return;
            }
            // What is not for a device.
            Ok(_) => Err(DecodeError::Unsupported(bytes[0])),
            Err(error) => Err(error),
        };
        match bytes.first() {
            Some(
                &(tag::HELLO
                | tag::CONFIRM
                | tag::MARKS..=tag::BIND
                | tag::PAGE
                | tag::TOPIC_FULL
                | tag::BEGIN
                | tag::FRAGMENT),
            ) => {
                assert_eq!(ours, Err(DecodeError::Unsupported(bytes[0])));
            }
            // A frame that is cut off behind its number is found to be empty when it is looked into.
            Some(&tag::NUMBERED) => assert!(ours.is_err() || bytes.len() == 3, "{ours:?}"),
            _ => assert_eq!(ours, theirs),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn a_device_reads_as_every_node_does(tag in 0..0x90_u8, inner in 0..0x20_u8, rest in proptest::collection::vec(0..8_u8, 0..90)) {
            let mut bytes = alloc::vec![tag];
            bytes.extend(&rest);
            assert_alike(&bytes);
            if let Some(place) = bytes.get_mut(3) {
                *place = inner;
            }
            bytes[0] = tag::NUMBERED;
            assert_alike(&bytes);
        }
    }

    #[test]
    fn pieces_are_taken_where_there_is_room_for_them() {
        let piece = [tag::FRAGMENT, 2, 1, 2];
        assert!(matches!(content(&piece, true), Ok(Content::Fragment(_))));
        assert_eq!(content(&piece, false), Err(DecodeError::Unsupported(tag::FRAGMENT)));
    }
}
