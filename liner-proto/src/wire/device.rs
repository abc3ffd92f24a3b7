//! What a device reads of the frames that its gateway sends, field by field: a gateway has no others for it, and what is
//! read here is all that a small processor's flash has to hold.

use super::NUMBER_MAX;
use super::handshake::{About, StreamFields};
use super::record::{self, GapReason};
use super::text::{Reader, Text};
use crate::id::Epoch;

/// Step 2 of the handshake: an [`Answer`](super::handshake::Answer) but for what a device does not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) version: u8,
    pub(crate) echo: u64,
    pub(crate) nonce: u64,
    pub(crate) about: About,
    pub(crate) stream: StreamFields,
}

impl Answer {
    /// Reads what follows the tag.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let (version, echo) = (reader.byte(), reader.fixed64());
        // Its name, and which start of it this is.
        reader.unchecked_text();
        reader.fixed64();
        Self {
            version,
            echo,
            nonce: reader.fixed64(),
            about: About::read(reader),
            stream: StreamFields::read(reader),
        }
    }
}

/// The name in an answer, given what follows the tag; for logs.
pub(crate) fn name_in_answer<'a>(mut reader: Reader<'a>) -> Text<'a> {
    reader.byte();
    reader.fixed64();
    reader.unchecked_text()
}

/// Who sent a message first: the node, and which of the messages of its stream to the gateway it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sender<'a> {
    /// The node's name.
    pub name: Text<'a>,
    /// The epoch of its stream.
    pub epoch: Epoch,
    /// The number in it.
    pub number: u64,
}

/// A record on a line, as far as a device wants to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) topic: Text<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) origin: Option<Sender<'a>>,
    pub(crate) repeat: bool,
    /// It is no message, but a gap of so many numbers.
    pub(crate) gap: Option<(GapReason, u64)>,
}

impl<'a> Message<'a> {
    /// Reads what follows the number of a frame, at the beginning of which `first` stands.
    pub(crate) fn read(first: u8, reader: &mut Reader<'a>) -> Self {
        let mut message = Message {
            topic: Text::EMPTY,
            payload: &[],
            origin: None,
            repeat: first & record::REPEAT != 0,
            gap: None,
        };
        if record::is_gap(first) {
            message.gap = Some(record::read_gap(first & !record::SENT_BEFORE, reader));
            return message;
        }
        if first & record::EXT != 0 {
            message.origin = read_ext(reader);
        }
        if first & record::TOPIC_TEXT == 0 {
            // Topics come as text, because the handshake said that no numbers are kept.
            record::read_u32(reader);
        } else {
            message.topic = reader.unchecked_text();
        }
        message.payload = reader.take_rest();
        message
    }
}

/// A topic of which the gateway keeps no more, or takes messages again.
pub(crate) struct TopicFull<'a> {
    pub(crate) topic: Text<'a>,
    pub(crate) is_full: bool,
}

impl<'a> TopicFull<'a> {
    /// Reads what follows the tag.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        let (topic, after) = (reader.unchecked_text(), reader.varint());
        reader.check(after <= NUMBER_MAX);
        Self { topic, is_full: after > 0 }
    }
}

/// Reads the further flags and what they stand for. Of that a device wants to know who sent the message first.
fn read_ext<'a>(reader: &mut Reader<'a>) -> Option<Sender<'a>> {
    let ext = record::read_ext_flags(reader);
    let age = ext & (record::EXT_AGE | record::EXT_AGE_UNKNOWN | record::EXT_BORN);
    if age != 0 {
        // When a message was born is said in queues only.
        reader.check(age & record::EXT_AGE != 0 && age & record::EXT_BORN == 0);
        // What has come to its age.
        reader.fixed32();
    }
    let mut origin = None;
    if ext & record::EXT_ORIGIN != 0 {
        let (name, epoch, number) = (reader.unchecked_text(), Epoch(reader.varint()), reader.varint());
        origin = Some(Sender { name, epoch, number });
    }
    if ext & record::EXT_HOPS != 0 {
        reader.byte();
    }
    if ext & record::EXT_TTL != 0 {
        record::read_u32(reader);
    }
    if age != 0 {
        reader.varint();
    }
    origin
}

/// Whether a frame whose body begins so is a message without a number.
pub(crate) const fn is_best_effort(first: u8) -> bool {
    record::is_best_effort(first)
}

/// Whether a frame whose body begins so carries what may have been sent before.
pub(crate) const fn is_sent_before(first: u8) -> bool {
    first & record::SENT_BEFORE != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::record::{Origin, Record, Topic};
    use crate::wire::{self, Body, DecodeError};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// What a device reads of a record is what every node reads.
        #[test]
        fn a_device_reads_records_as_every_node_does(first in 0x40..0x80_u8, rest in proptest::collection::vec(prop_oneof![0..9_u8, any::<u8>()], 0..40)) {
            let bytes = [&[first, 1, 0][..], &rest].concat();
            let mut reader = Reader::new(&bytes[3..]);
            let message = Message::read(first, &mut reader);
            let ours = reader.done(message);
            let theirs = wire::decode(&bytes).and_then(|body| {
                let Body::Data(data) = body else { panic!("{body:?}") };
                data.record.decode()
            });
            match (ours, theirs) {
                (Ok(ours), Ok(Record::Gap { reason, count })) => prop_assert_eq!(ours.gap, Some((reason, count))),
                (Ok(ours), Ok(Record::Message { header, payload })) => {
                    let topic = match header.topic {
                        Topic::Text(text) => text,
                        Topic::Number(_) => "",
                    };
                    let origin = header.origin.map(|Origin { name, epoch, number }| (name.as_bytes(), epoch, number));
                    prop_assert_eq!(ours.origin.map(|from| (from.name.as_bytes(), from.epoch, from.number)), origin);
                    prop_assert_eq!((ours.topic.as_bytes(), ours.payload), (topic.as_bytes(), payload));
                    prop_assert_eq!((ours.repeat, ours.gap), (header.repeat, None));
                }
                // What is not UTF-8 is left to whoever looks at it.
                (Ok(_), Err(DecodeError::Text)) => {}
                (ours, theirs) => prop_assert!(ours.is_err() && theirs.is_err(), "{ours:?}, {theirs:?}"),
            }
        }

        #[test]
        fn a_device_reads_answers_as_every_node_does(rest in proptest::collection::vec(prop_oneof![Just(0), 0..3_u8, any::<u8>()], 0..120)) {
            let bytes = [&[wire::tag::ANSWER][..], &rest].concat();
            let mut reader = Reader::new(&rest);
            let answer = Answer::read(&mut reader);
            match (reader.done(answer), wire::decode(&bytes)) {
                (Ok(ours), Ok(Body::Answer(theirs))) => {
                    prop_assert_eq!((ours.version, ours.echo, ours.nonce), (theirs.version, theirs.echo, theirs.nonce));
                    prop_assert_eq!((ours.about, ours.stream), (theirs.about, theirs.stream));
                }
                (Ok(_), Err(DecodeError::Text)) => {}
                (ours, theirs) => prop_assert!(ours.is_err() && theirs.is_err(), "{ours:?}, {theirs:?}"),
            }
        }
    }

    #[test]
    fn a_good_answer_is_read() {
        let about = About {
            inbox: Epoch(1),
            acks: wire::handshake::Acks::Power,
            frame_max: 300,
            message_max: 400,
            window_messages: 5,
            window_bytes: 6,
            bindings_max: 7,
            seals: 1,
            roles: 1,
        };
        let known = Some(wire::handshake::Known { epoch: Epoch(8), cursor: 9 });
        let stream =
            StreamFields { epoch: Epoch(2), predecessor: None, oldest: 3, next: 4, known, assigned: None };
        let whole = wire::handshake::Answer {
            version: 1,
            echo: 2,
            name: "gateway",
            instance: 3,
            nonce: 4,
            about,
            stream,
        };
        let mut bytes = [0; 200];
        let len = wire::encode(&Body::Answer(whole), &mut bytes).unwrap();
        let mut reader = Reader::new(&bytes[1..len]);
        let answer = Answer::read(&mut reader);
        assert_eq!(reader.done(answer), Ok(Answer { version: 1, echo: 2, nonce: 4, about, stream }));
    }
}
