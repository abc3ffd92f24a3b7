//! The three frames with which a session begins.

use serde::{Deserialize, Serialize};

use super::text::{Reader, Writer};
use super::{DecodeError, FRAME_MIN, NUMBER_MAX, VERSION, tag};
use crate::id::{Class, Epoch, Predecessor};

/// What every hello begins with, behind its tag, in every version there will be.
pub const MAGIC: [u8; 2] = *b"LN";

/// Step 1, from the side that dialled: who it is, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The lowest version of the protocol that it speaks.
    pub version_min: u8,
    /// The highest one.
    pub version_max: u8,
    /// Its name.
    pub name: &'a str,
    /// Which start of it this is.
    pub instance: u64,
    /// A number that nobody else can have chosen; the answer repeats it.
    pub nonce: u64,
    /// What it takes and stands for.
    pub about: About,
}

/// Step 2, from the side that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<'a> {
    /// The version of the session.
    pub version: u8,
    /// The nonce of the hello.
    #[serde(with = "postcard::fixint::le")]
    pub echo: u64,
    /// Its name.
    pub name: &'a str,
    /// Which start of it this is.
    #[serde(with = "postcard::fixint::le")]
    pub instance: u64,
    /// A nonce of its own.
    #[serde(with = "postcard::fixint::le")]
    pub nonce: u64,
    /// What it takes and stands for.
    pub about: About,
    /// Its stream to the node that it has just heard of.
    pub stream: StreamFields,
}

/// Step 3, from the side that dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// The nonce of the answer.
    #[serde(with = "postcard::fixint::le")]
    pub echo: u64,
    /// Its stream to the other side.
    pub stream: StreamFields,
}

/// What a node takes, and what its acknowledgements stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The life of its memory of what it has had.
    #[serde(with = "fixed_epoch")]
    pub inbox: Epoch,
    /// What its acknowledgements stand for.
    pub acks: Acks,
    /// The largest frame it takes, seal included, in bytes; at least [`FRAME_MIN`].
    pub frame_max: u32,
    /// The largest message it takes, its record's head included, in bytes.
    pub message_max: u32,
    /// Messages that it may have received and not yet committed.
    pub window_messages: u32,
    /// Bytes of records that it may have received and not yet committed.
    pub window_bytes: u32,
    /// How many topic numbers it keeps in a session; 0: topics are to be written out.
    pub bindings_max: u32,
    /// The suites of seals it knows, a bit each: [`SEAL_CRC32C`](Self::SEAL_CRC32C).
    pub seals: u8,
    /// What it is besides a peer, a bit each: [`ROLE_CUSTODY`](Self::ROLE_CUSTODY),
    /// [`ROLE_WITHOUT_EPOCHS`](Self::ROLE_WITHOUT_EPOCHS).
    pub roles: u8,
}

impl About {
    /// The seal of this version.
    pub const SEAL_CRC32C: u8 = 1 << 0;
    /// It takes messages over for other nodes.
    pub const ROLE_CUSTODY: u8 = 1 << 0;
    /// A device that cannot make epochs: the other side assigns them.
    pub const ROLE_WITHOUT_EPOCHS: u8 = 1 << 1;
}

/// What a node's acknowledgements stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Acks {
    /// The message is in memory.
    Ram = 0,
    /// It survives the death of the process.
    Process = 1,
    /// It survives the loss of power.
    Power = 2,
    /// The application has dealt with it.
    Processed = 3,
}

impl Acks {
    /// Whether a sender may forget a message of this class when it is acknowledged.
    pub const fn satisfies(self, class: Class) -> bool {
        match self {
            Self::Processed | Self::Power => true,
            Self::Process => matches!(class, Class::Ram | Class::Process),
            Self::Ram => matches!(class, Class::Ram),
        }
    }
}

impl From<Class> for Acks {
    fn from(class: Class) -> Self {
        match class {
            Class::Ram => Self::Ram,
            Class::Process => Self::Process,
            Class::Power => Self::Power,
        }
    }
}

impl From<Acks> for u8 {
    fn from(acks: Acks) -> Self {
        acks as Self
    }
}

impl TryFrom<u8> for Acks {
    type Error = DecodeError;

    fn try_from(number: u8) -> Result<Self, DecodeError> {
        Ok(match number {
            0 => Self::Ram,
            1 => Self::Process,
            2 => Self::Power,
            3 => Self::Processed,
            _ => return Err(DecodeError::Range),
        })
    }
}

/// What a node says about its stream to the other side. `1 <= oldest <= next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFields {
    /// The stream's epoch; none from a device that has not been given one.
    #[serde(with = "fixed_epoch")]
    pub epoch: Epoch,
    /// The epoch before it.
    #[serde(with = "predecessor")]
    pub predecessor: Option<Predecessor>,
    /// The oldest number that is not acknowledged.
    pub oldest: u64,
    /// The next number that will be used.
    pub next: u64,
    /// What it knows of the other side's stream.
    pub known: Option<Known>,
    /// Epochs for a device that has none; only in an answer.
    pub assigned: Option<Assigned>,
}

/// How far a node has committed the other side's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The epoch of that stream.
    #[serde(with = "fixed_epoch")]
    pub epoch: Epoch,
    /// The last number that is committed.
    pub cursor: u64,
}

/// Epochs that a device takes for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// For its stream to the node that assigns it.
    #[serde(with = "fixed_epoch")]
    pub outbox: Epoch,
    /// For its memory of what it has had.
    #[serde(with = "fixed_epoch")]
    pub inbox: Epoch,
}

impl<'a> Hello<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        if [reader.byte(), reader.byte()] != MAGIC {
            reader.fail(DecodeError::BadMagic);
        }
        let (version_min, version_max) = (reader.byte(), reader.byte());
        // What follows the head may look different in a version that is not this one.
        if !(version_min..=version_max).contains(&VERSION) {
            reader.fail(DecodeError::Version { min: version_min, max: version_max });
        }
        Self {
            version_min,
            version_max,
            name: reader.text(),
            instance: reader.fixed64(),
            nonce: reader.fixed64(),
            about: About::read(reader),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        let [l, n] = MAGIC;
        writer.bytes(&[tag::HELLO, l, n, self.version_min, self.version_max]);
        writer.text(self.name);
        writer.fixed64(self.instance);
        writer.fixed64(self.nonce);
        self.about.write(writer);
    }
}

impl<'a> Answer<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Self {
        Self {
            version: reader.byte(),
            echo: reader.fixed64(),
            name: reader.text(),
            instance: reader.fixed64(),
            nonce: reader.fixed64(),
            about: About::read(reader),
            stream: StreamFields::read(reader),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::ANSWER);
        writer.byte(self.version);
        writer.fixed64(self.echo);
        writer.text(self.name);
        writer.fixed64(self.instance);
        writer.fixed64(self.nonce);
        self.about.write(writer);
        self.stream.write(writer);
    }
}

impl Confirm {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let confirm = Self { echo: reader.fixed64(), stream: StreamFields::read(reader) };
        reader.check(confirm.stream.assigned.is_none());
        confirm
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(tag::CONFIRM);
        writer.fixed64(self.echo);
        self.stream.write(writer);
    }
}

impl About {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let inbox = Epoch(reader.fixed64());
        let acks = Acks::try_from(reader.byte());
        reader.check(acks.is_ok());
        let about = Self {
            inbox,
            acks: acks.unwrap_or(Acks::Ram),
            frame_max: reader.varint32(),
            message_max: reader.varint32(),
            window_messages: reader.varint32(),
            window_bytes: reader.varint32(),
            bindings_max: reader.varint32(),
            seals: reader.byte(),
            roles: reader.byte(),
        };
        reader.check(about.frame_max as usize >= FRAME_MIN);
        about
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.fixed64(self.inbox.0);
        writer.byte(self.acks.into());
        for limit in
            [self.frame_max, self.message_max, self.window_messages, self.window_bytes, self.bindings_max]
        {
            writer.varint(u64::from(limit));
        }
        writer.bytes(&[self.seals, self.roles]);
    }
}

impl StreamFields {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        // The fields of an expression are read in the order in which they are written here.
        let stream = Self {
            epoch: Epoch(reader.fixed64()),
            predecessor: reader.flag().then(|| Predecessor {
                epoch: Epoch(reader.fixed64()),
                old_first: reader.varint(),
                count: reader.varint(),
            }),
            oldest: reader.varint(),
            next: reader.varint(),
            known: reader.flag().then(|| Known { epoch: Epoch(reader.fixed64()), cursor: reader.varint() }),
            assigned: reader
                .flag()
                .then(|| Assigned { outbox: Epoch(reader.fixed64()), inbox: Epoch(reader.fixed64()) }),
        };
        reader.check(stream.makes_sense());
        stream
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.fixed64(self.epoch.0);
        writer.byte(self.predecessor.is_some().into());
        if let Some(Predecessor { epoch, old_first, count }) = self.predecessor {
            writer.fixed64(epoch.0);
            writer.varint(old_first);
            writer.varint(count);
        }
        writer.varint(self.oldest);
        writer.varint(self.next);
        writer.byte(self.known.is_some().into());
        if let Some(Known { epoch, cursor }) = self.known {
            writer.fixed64(epoch.0);
            writer.varint(cursor);
        }
        writer.byte(self.assigned.is_some().into());
        if let Some(Assigned { outbox, inbox }) = self.assigned {
            writer.fixed64(outbox.0);
            writer.fixed64(inbox.0);
        }
    }

    /// Bounds that leave room to count in: nothing that follows has to fear the end of the numbers.
    fn makes_sense(&self) -> bool {
        let in_range = |number: u64| (1..=NUMBER_MAX).contains(&number);
        1 <= self.oldest
            && self.oldest <= self.next
            && self.next <= NUMBER_MAX
            && self.known.is_none_or(|known| known.cursor <= NUMBER_MAX)
            && self.predecessor.is_none_or(|before| in_range(before.old_first) && before.count <= NUMBER_MAX)
    }
}

/// Epochs are random: eight bytes are shorter than what a varint mostly takes for them.
mod fixed_epoch {
    use serde::{Deserializer, Serializer};

    use super::Epoch;

    pub(super) fn serialize<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
        postcard::fixint::le::serialize(&epoch.0, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
        postcard::fixint::le::deserialize(deserializer).map(Epoch)
    }
}

/// A predecessor with its epoch in eight bytes.
mod predecessor {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Epoch, Predecessor, fixed_epoch};

    #[derive(Serialize, Deserialize)]
    struct Fields {
        #[serde(with = "fixed_epoch")]
        epoch: Epoch,
        old_first: u64,
        count: u64,
    }

    pub(super) fn serialize<S: Serializer>(
        predecessor: &Option<Predecessor>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let fields =
            predecessor.map(|Predecessor { epoch, old_first, count }| Fields { epoch, old_first, count });
        fields.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Predecessor>, D::Error> {
        let fields = Option::<Fields>::deserialize(deserializer)?;
        Ok(fields.map(|Fields { epoch, old_first, count }| Predecessor { epoch, old_first, count }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, by_postcard, decode, encode};
    use crate::{frame, seal};

    const ABOUT: About = About {
        inbox: Epoch(u64::MAX),
        acks: Acks::Processed,
        frame_max: u32::MAX,
        message_max: u32::MAX,
        window_messages: u32::MAX,
        window_bytes: u32::MAX,
        bindings_max: u32::MAX,
        seals: u8::MAX,
        roles: u8::MAX,
    };

    /// The longest there can be.
    const STREAM: StreamFields = StreamFields {
        epoch: Epoch(u64::MAX),
        predecessor: Some(Predecessor { epoch: Epoch(u64::MAX), old_first: NUMBER_MAX, count: NUMBER_MAX }),
        oldest: NUMBER_MAX,
        next: NUMBER_MAX,
        known: Some(Known { epoch: Epoch(u64::MAX), cursor: NUMBER_MAX }),
        assigned: None,
    };

    const ASSIGNED: Option<Assigned> = Some(Assigned { outbox: Epoch(u64::MAX), inbox: Epoch(u64::MAX) });

    fn hello(name: &str) -> Hello<'_> {
        let (version_min, version_max) = (0, u8::MAX);
        Hello { version_min, version_max, name, instance: u64::MAX, nonce: u64::MAX, about: ABOUT }
    }

    fn answer(name: &str) -> Answer<'_> {
        let stream = StreamFields { assigned: ASSIGNED, ..STREAM };
        let (version, echo, instance, nonce) = (u8::MAX, u64::MAX, u64::MAX, u64::MAX);
        Answer { version, echo, name, instance, nonce, about: ABOUT, stream }
    }

    #[test]
    fn every_step_fits_the_smallest_frame() {
        let name = "n".repeat(32);
        let confirm = Confirm { echo: u64::MAX, stream: STREAM };
        for body in [Body::Hello(hello(&name)), Body::Answer(answer(&name)), Body::Confirm(confirm)] {
            let mut bytes = [0; FRAME_MIN];
            let len = encode(&body, &mut bytes).unwrap();
            assert_eq!(decode(&bytes[..len]), Ok(body));
            let seal = seal::seal(crate::id::SessionId::HANDSHAKE, &[&bytes[..len]]);
            let mut line = [0; FRAME_MIN];
            assert!(
                frame::cobs::encode(&[&seal, &bytes[..len]], &mut line).is_some(),
                "{body:?}: {len} bytes"
            );
        }
    }

    #[test]
    fn every_shorter_frame_is_truncated() {
        for body in [
            Body::Hello(hello("a")),
            Body::Answer(answer("b")),
            Body::Confirm(Confirm { echo: 1, stream: STREAM }),
        ] {
            let mut bytes = [0; 256];
            let len = encode(&body, &mut bytes).unwrap();
            for short in 0..len {
                assert_eq!(decode(&bytes[..short]), Err(DecodeError::Truncated), "{short} of {len}");
                assert_eq!(encode(&body, &mut [0; 256][..short]), Err(crate::wire::BufferFull));
            }
            // What a later version adds is ignored.
            assert_eq!(decode(&bytes[..len + 9]), Ok(body));
        }
    }

    #[test]
    fn the_head_of_a_hello_is_judged_before_the_rest() {
        assert_eq!(decode(b"\x01GET / HTTP/1.1"), Err(DecodeError::BadMagic));
        assert_eq!(decode(b"\x01LN\x02\x04whatever"), Err(DecodeError::Version { min: 2, max: 4 }));
        assert_eq!(decode(b"\x01LN\x00\x00"), Err(DecodeError::Version { min: 0, max: 0 }));
        assert_eq!(decode(b"\x01LN\x02\x01"), Err(DecodeError::Version { min: 2, max: 1 }));
        assert_eq!(decode(b"\x01LN\x01\x01"), Err(DecodeError::Truncated));
    }

    fn refused_stream(stream: StreamFields) -> Option<DecodeError> {
        let mut bytes = [0; 256];
        let len = encode(&Body::Confirm(Confirm { echo: 1, stream }), &mut bytes).unwrap();
        decode(&bytes[..len]).err()
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let plain = StreamFields { predecessor: None, oldest: 1, next: 1, known: None, ..STREAM };
        assert_eq!(refused_stream(plain), None);
        let before = |old_first, count| Some(Predecessor { epoch: Epoch(3), old_first, count });
        for wrong in [
            StreamFields { oldest: 0, ..plain },
            StreamFields { oldest: 2, ..plain },
            StreamFields { next: NUMBER_MAX + 1, ..plain },
            StreamFields { known: Some(Known { epoch: Epoch(3), cursor: NUMBER_MAX + 1 }), ..plain },
            StreamFields { predecessor: before(0, 1), ..plain },
            StreamFields { predecessor: before(NUMBER_MAX + 1, 1), ..plain },
            StreamFields { predecessor: before(1, NUMBER_MAX + 1), ..plain },
            StreamFields { assigned: ASSIGNED, ..plain },
        ] {
            assert_eq!(refused_stream(wrong), Some(DecodeError::Range), "{wrong:?}");
        }
    }

    #[test]
    fn limits_are_checked() {
        let refused = |hello: Hello<'_>| {
            let mut bytes = [0; 512];
            // Not through `encode`, which does not write a name that is too long.
            let len = by_postcard::hello(&hello, &mut bytes);
            decode(&bytes[..len]).err()
        };
        let (longest, long) = ("n".repeat(255), "n".repeat(256));
        assert_eq!(refused(hello(&longest)), None);
        assert_eq!(refused(hello(&long)), Some(DecodeError::LimitExceeded));
        assert!(encode(&Body::Hello(hello(&long)), &mut [0; 512]).is_err());
        let with_frames = |frame_max| Hello { about: About { frame_max, ..ABOUT }, ..hello("n") };
        assert_eq!(refused(with_frames(192)), None);
        assert_eq!(refused(with_frames(191)), Some(DecodeError::Range));
    }

    #[test]
    fn acks_stand_for_their_class_and_all_below() {
        let classes = [Class::Ram, Class::Process, Class::Power];
        for stands_for in classes {
            for class in classes {
                assert_eq!(Acks::from(stands_for).satisfies(class), stands_for >= class);
            }
        }
        assert!(classes.iter().all(|&class| Acks::Processed.satisfies(class)));
    }

    #[test]
    fn acks_have_numbers() {
        for number in 0..=u8::MAX {
            let acks = Acks::try_from(number);
            assert_eq!(acks.is_ok(), number < 4);
            assert!(acks.is_err() || acks.map(u8::from) == Ok(number));
        }
    }
}
