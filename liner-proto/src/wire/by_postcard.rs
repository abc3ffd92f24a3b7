//! What is written and read by hand is what postcard writes and reads. For tests.

use alloc::vec;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::control::{Ack, Begin, Bind, Close, CloseReason, Echo, Marks, Probe, TopicFull};
use super::handshake::{About, Acks, Answer, Assigned, Confirm, Hello, Known, MAGIC, StreamFields};
use super::{Body, DecodeError, FRAME_MIN, NUMBER_MAX, TEXT_MAX, decode, encode, tag};
use crate::id::{Epoch, Predecessor};

/// What a hello holds behind its head.
#[derive(Serialize, Deserialize)]
struct HelloTail<'a> {
    name: &'a str,
    #[serde(with = "postcard::fixint::le")]
    instance: u64,
    #[serde(with = "postcard::fixint::le")]
    nonce: u64,
    about: About,
}

/// Writes a hello of any length.
pub(super) fn hello(hello: &Hello<'_>, out: &mut [u8]) -> usize {
    let head = [tag::HELLO, MAGIC[0], MAGIC[1], hello.version_min, hello.version_max];
    let tail =
        HelloTail { name: hello.name, instance: hello.instance, nonce: hello.nonce, about: hello.about };
    out[..head.len()].copy_from_slice(&head);
    head.len() + postcard::to_slice(&tail, &mut out[head.len()..]).unwrap().len()
}

fn put(tag: u8, fields: &impl Serialize, out: &mut [u8]) -> usize {
    out[0] = tag;
    1 + postcard::to_slice(fields, &mut out[1..]).unwrap().len()
}

fn encode_all(body: &Body<'_>, out: &mut [u8]) -> usize {
    match body {
        Body::Hello(fields) => hello(fields, out),
        Body::Answer(fields) => put(tag::ANSWER, fields, out),
        Body::Confirm(fields) => put(tag::CONFIRM, fields, out),
        Body::Close(fields) => put(tag::CLOSE, fields, out),
        Body::Marks(fields) => put(tag::MARKS, fields, out),
        Body::Bind(fields) => put(tag::BIND, fields, out),
        Body::Ack(fields) => put(tag::ACK, fields, out),
        Body::TopicFull(fields) => put(tag::TOPIC_FULL, fields, out),
        Body::Probe(fields) => put(tag::PROBE, fields, out),
        Body::Echo(fields) => put(tag::ECHO, fields, out),
        Body::Begin(fields) => put(tag::BEGIN, fields, out),
        Body::Batch(_)
        | Body::Page(_)
        | Body::Data(_)
        | Body::Greet
        | Body::Numbered(_)
        | Body::Fragment(_)
        | Body::Skipped(_) => panic!("{body:?}"),
    }
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, _)) => Ok(value),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Truncated),
        Err(postcard::Error::DeserializeBadVarint) => Err(DecodeError::Varint),
        Err(postcard::Error::DeserializeBadUtf8) => Err(DecodeError::Text),
        Err(_) => Err(DecodeError::Range),
    }
}

/// Without the bounds of values, which are not postcard's.
fn decode_all(bytes: &[u8]) -> Result<Body<'_>, DecodeError> {
    let rest = &bytes[1..];
    Ok(match bytes[0] {
        tag::HELLO => {
            let Some((&[_, _, version_min, version_max], tail)) = rest.split_first_chunk() else {
                return Err(DecodeError::Truncated);
            };
            let HelloTail { name, instance, nonce, about } = take(tail)?;
            Body::Hello(Hello { version_min, version_max, name, instance, nonce, about })
        }
        tag::ANSWER => Body::Answer(take(rest)?),
        tag::CONFIRM => Body::Confirm(take(rest)?),
        tag::CLOSE => Body::Close(take(rest)?),
        tag::MARKS => Body::Marks(take(rest)?),
        tag::BIND => Body::Bind(take(rest)?),
        tag::ACK => Body::Ack(take(rest)?),
        tag::TOPIC_FULL => Body::TopicFull(take(rest)?),
        tag::PROBE => Body::Probe(take(rest)?),
        tag::ECHO => Body::Echo(take(rest)?),
        tag::BEGIN => Body::Begin(take(rest)?),
        other => panic!("{other:#04x}"),
    })
}

/// Numbers of every length, not only the long ones.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 1..64_u32).prop_map(|(value, shift)| value >> shift)
}

fn counted() -> impl Strategy<Value = u64> {
    number().prop_map(|number| number.clamp(1, NUMBER_MAX))
}

fn limit() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0..32_u32).prop_map(|(value, shift)| value >> shift)
}

fn text() -> impl Strategy<Value = &'static str> {
    const LONG: &str = match core::str::from_utf8(&[b'x'; TEXT_MAX]) {
        Ok(text) => text,
        Err(_) => "",
    };
    prop_oneof![(0..=TEXT_MAX).prop_map(|len| &LONG[..len]), Just("größe/°C"), Just("sensor")]
}

prop_compose! {
    fn about()(inbox: u64, acks in 0..4_u8, limits in [limit(), limit(), limit(), limit(), limit()], seals: u8, roles: u8) -> About {
        let [frame_max, message_max, window_messages, window_bytes, bindings_max] = limits;
        let frame_max = frame_max.max(FRAME_MIN as u32);
        let (inbox, acks) = (Epoch(inbox), Acks::try_from(acks).unwrap());
        About { inbox, acks, frame_max, message_max, window_messages, window_bytes, bindings_max, seals, roles }
    }
}

prop_compose! {
    fn stream(with_assigned: bool)(
        epoch: u64,
        predecessor in proptest::option::of((any::<u64>(), counted(), number())),
        oldest in counted(),
        more in number(),
        known in proptest::option::of((any::<u64>(), number())),
        assigned: Option<(u64, u64)>,
    ) -> StreamFields {
        let predecessor = predecessor.map(|(epoch, old_first, count)| Predecessor { epoch: Epoch(epoch), old_first, count });
        let known = known.map(|(epoch, cursor)| Known { epoch: Epoch(epoch), cursor });
        let assigned = assigned.filter(|_| with_assigned).map(|(outbox, inbox)| Assigned { outbox: Epoch(outbox), inbox: Epoch(inbox) });
        let next = oldest.saturating_add(more).min(NUMBER_MAX);
        StreamFields { epoch: Epoch(epoch), predecessor, oldest, next, known, assigned }
    }
}

fn hellos() -> impl Strategy<Value = Body<'static>> {
    (0..=super::VERSION, super::VERSION.., text(), any::<[u64; 2]>(), about()).prop_map(
        |(version_min, version_max, name, [instance, nonce], about)| {
            Body::Hello(Hello { version_min, version_max, name, instance, nonce, about })
        },
    )
}

fn answers() -> impl Strategy<Value = Body<'static>> {
    (any::<u8>(), text(), any::<[u64; 3]>(), about(), stream(true)).prop_map(
        |(version, name, [echo, instance, nonce], about, stream)| {
            Body::Answer(Answer { version, echo, name, instance, nonce, about, stream })
        },
    )
}

fn marks() -> impl Strategy<Value = Body<'static>> {
    (number(), number(), number(), any::<u64>(), counted()).prop_map(
        |(acked, more, messages_limit, bytes_limit, next)| {
            let received = acked.saturating_add(more).min(NUMBER_MAX);
            Body::Marks(Marks { received, acked, messages_limit, bytes_limit, next })
        },
    )
}

fn acks() -> impl Strategy<Value = Body<'static>> {
    any::<(u16, u32, u32, u8, u32)>().prop_map(|(received, bitmap, acked_low, window, next_low)| {
        Body::Ack(Ack { received, bitmap, acked_low, window, next_low })
    })
}

fn bodies() -> impl Strategy<Value = Body<'static>> {
    prop_oneof![
        hellos(),
        answers(),
        (any::<u64>(), stream(false)).prop_map(|(echo, stream)| Body::Confirm(Confirm { echo, stream })),
        (any::<u8>(), text())
            .prop_map(|(reason, text)| Body::Close(Close { reason: CloseReason::from(reason), text })),
        marks(),
        (1..=u32::MAX, text()).prop_map(|(number, text)| Body::Bind(Bind { number, text })),
        acks(),
        (text(), number()).prop_map(|(topic, after)| Body::TopicFull(TopicFull { topic, after })),
        number().prop_map(|number| Body::Probe(Probe { number })),
        number().prop_map(|number| Body::Echo(Echo { number })),
        counted().prop_map(|number| Body::Begin(Begin { number })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn bodies_are_as_postcard_writes_them(body in bodies()) {
        let (mut ours, mut theirs) = ([0; 700], [0; 700]);
        let len = encode(&body, &mut ours).unwrap();
        let their_len = encode_all(&body, &mut theirs);
        prop_assert_eq!(&ours[..len], &theirs[..their_len]);
        prop_assert_eq!(decode(&ours[..len]), Ok(body));
        prop_assert_eq!(decode_all(&ours[..len]), Ok(body));
    }

    /// Damaged somewhere, and perhaps cut short: what one of the two cannot read the other cannot either, but for the bounds.
    #[test]
    fn bytes_are_read_as_postcard_reads_them(body in bodies(), damage: [(u16, u8); 2], cut: u16) {
        let mut bytes = [0; 700];
        let len = encode(&body, &mut bytes).unwrap();
        for (at, byte) in damage {
            // In front, where the short fields are, or anywhere.
            let at = usize::from(at) % if at % 2 == 0 { len } else { len.min(24) };
            if at > 0 {
                bytes[at] = byte;
            }
        }
        let len = if cut % 4 == 0 { 1 + usize::from(cut) % len } else { len };
        let (ours, theirs) = (decode(&bytes[..len]), decode_all(&bytes[..len]));
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(DecodeError::Range | DecodeError::LimitExceeded | DecodeError::BadMagic | DecodeError::Version { .. }), _) => {}
            (ours, theirs) => prop_assert!(ours.is_err() && theirs.is_err(), "{ours:?}, {theirs:?}"),
        }
    }
}
