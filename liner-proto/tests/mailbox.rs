//! A device that is sent messages, by a gateway that is made by hand.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use std::cell::Cell;

use liner_proto::effect::{GapReason, Recovered};
use liner_proto::endpoint::{DeviceConfig, Event, TopicIndex};
use liner_proto::frame::cobs::{self, CobsSplit};
use liner_proto::id::{Epoch, Predecessor, SessionId};
use liner_proto::pump::Overflow;
use liner_proto::seal;
use liner_proto::store::Store;
use liner_proto::time::Instant;
use liner_proto::wire::control::{Ack, Begin, Numbered};
use liner_proto::wire::data::DataHead;
use liner_proto::wire::handshake::{About, Acks, Answer, Confirm, Hello, Known, StreamFields};
use liner_proto::wire::record::{Header, Mode, Topic, encode_gap, encode_message};
use liner_proto::wire::{self, Body};

mod kinds;
use kinds::Kind;

const NOW: Instant = Instant::ZERO;
const NONCE: u64 = 99;
const EPOCH: Epoch = Epoch(5);

type Stored = kinds::InStore<512, 256, 2048>;
type Ram = kinds::InRam<2048, 256>;

/// The gateway's end of one session.
struct Gateway {
    session: SessionId,
    /// What the device knows of its stream.
    known: Option<Known>,
    /// What the device says about its own.
    stream: StreamFields,
    /// The next frame with a number.
    frame: Cell<u16>,
}

impl Gateway {
    /// Lets the device dial and finishes the handshake. `known` is what the gateway knows of the device's stream.
    fn meet(device: &mut impl Kind, known: Option<Known>, next: u64) -> Self {
        let stream = StreamFields { epoch: EPOCH, predecessor: None, oldest: 1, next, known, assigned: None };
        Self::meet_with(device, stream)
    }

    fn meet_with(device: &mut impl Kind, stream: StreamFields) -> Self {
        device.handle_link_up(NOW);
        let frame = transmit(device);
        let Ok(Body::Hello(Hello { nonce, .. })) = wire::decode(&frame[0][seal::LEN..]) else {
            panic!("a device begins with a hello")
        };
        let about = About {
            inbox: Epoch(1),
            acks: Acks::Processed,
            frame_max: 512,
            message_max: 400,
            window_messages: 8,
            window_bytes: 4096,
            bindings_max: 64,
            seals: About::SEAL_CRC32C,
            roles: 0,
        };
        let answer =
            Answer { version: 1, echo: nonce, name: "gateway", instance: 1, nonce: NONCE, about, stream };
        give(device, SessionId::HANDSHAKE, &Body::Answer(answer));
        let parts = [&nonce.to_le_bytes()[..], &NONCE.to_le_bytes()[..]];
        let session = SessionId(seal::checksum(SessionId::HANDSHAKE, &parts).max(1));
        let frames = transmit(device);
        let confirmed = frames.iter().find_map(|frame| match wire::decode(&frame[seal::LEN..]) {
            Ok(Body::Confirm(Confirm { stream, .. })) => Some(stream),
            _ => None,
        });
        // A device that refuses the session confirms nothing.
        let stream = confirmed.unwrap_or(stream);
        Self { session, known: stream.known, stream, frame: Cell::new(1) }
    }

    fn send(&self, device: &mut impl Kind, number: u64, text: &[u8]) {
        self.carry(device, number, text, false);
    }

    fn carry(&self, device: &mut impl Kind, number: u64, text: &[u8], sent_before: bool) {
        let mut record = [0; 64];
        let header = Header::new(Mode::One, Topic::Text("t"));
        let len = encode_message(&header, text, &mut record).expect("room");
        let mut begin = [0; 16];
        let begin_len = wire::encode(&Body::Begin(Begin { number }), &mut begin).expect("room");
        let frame = self.frame.replace(self.frame.get() + 2);
        give(device, self.session, &Body::Numbered(Numbered { frame, body: &begin[..begin_len] }));
        let head = DataHead { sent_before, frame: frame + 1, added_age_ms: 0 };
        let body = head.encode(&record[..len]).expect("a record").slices().concat();
        put(device, self.session, &body);
    }
}

fn put(device: &mut impl Kind, session: SessionId, body: &[u8]) {
    let crc = seal::seal(session, &[body]);
    let mut line = [0; 512];
    let len = cobs::encode(&[&crc, body], &mut line).expect("room");
    assert_eq!(device.handle_bytes(NOW, &line[..len]), len);
}

fn give(device: &mut impl Kind, session: SessionId, body: &Body<'_>) {
    let mut bytes = [0; 256];
    let len = wire::encode(body, &mut bytes).expect("room");
    put(device, session, &bytes[..len]);
}

/// The frames that the device sends, seals included.
fn transmit(device: &mut impl Kind) -> Vec<Vec<u8>> {
    let mut line = [0; 2048];
    let len = device.poll_transmit(NOW, &mut line);
    let mut rest = line[..len].to_vec();
    let mut frames = Vec::new();
    loop {
        let consumed = match cobs::split(&mut rest, 256) {
            CobsSplit::Frame { frame, consumed } => {
                frames.push(rest[frame].to_vec());
                consumed
            }
            CobsSplit::Empty { consumed } => consumed,
            CobsSplit::Incomplete | CobsSplit::Bad { .. } | CobsSplit::TooLong { .. } => break,
        };
        rest.drain(..consumed);
    }
    frames
}

/// What the device was sent.
fn messages(device: &mut impl Kind) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while let Some(event) = device.poll_event() {
        if let Event::Message { payload, .. } = event {
            got.push(payload.to_vec());
        }
    }
    got
}

const CONFIG: DeviceConfig<'static> = DeviceConfig::new("dev", &["readings"], [1, 2]);

both!(super::Ram, super::Stored:
    a_message_that_nobody_took_before_the_link_broke_comes_again
    a_gateway_that_rotates_its_queue_sends_nothing_twice
    what_a_gateway_has_lost_is_a_gap_and_what_it_repeats_is_marked
    a_device_whose_numbers_went_backwards_begins_a_new_epoch
    a_gap_of_more_numbers_than_the_window_has_frames_is_followed_by_messages
);

fn a_message_that_nobody_took_before_the_link_broke_comes_again<K: Kind>() {
    let mut device = K::new(CONFIG, NOW);
    let gateway = Gateway::meet(&mut device, None, 1);
    gateway.send(&mut device, 1, b"one");
    assert_eq!(messages(&mut device), [b"one"]);
    device.serve(NOW);
    gateway.send(&mut device, 2, b"two");
    device.handle_link_down(NOW);
    device.serve(NOW);
    let gateway = Gateway::meet(&mut device, None, 3);
    assert_eq!(gateway.known, Some(Known { epoch: EPOCH, cursor: 1 }));
    gateway.send(&mut device, 2, b"two");
    assert_eq!(messages(&mut device), [b"two"]);
    device.serve(NOW);
    let ack = transmit(&mut device).iter().find_map(|frame| match wire::decode(&frame[seal::LEN..]) {
        Ok(Body::Ack(Ack { acked_low, .. })) => Some(acked_low),
        _ => None,
    });
    assert_eq!(ack, Some(2));
}

/// What the device was sent that may have come before.
fn repeats(device: &mut impl Kind) -> Vec<bool> {
    let mut got = Vec::new();
    while let Some(event) = device.poll_event() {
        if let Event::Message { maybe_redelivered, .. } = event {
            got.push(maybe_redelivered);
        }
    }
    got
}

/// A device that was sent so many messages by a gateway, has dealt with them, and is alone now.
fn taught<K: Kind>(messages: u64) -> K {
    let mut device = K::new(CONFIG, NOW);
    let gateway = Gateway::meet(&mut device, None, messages + 1);
    for number in 1..=messages {
        gateway.send(&mut device, number, b"x");
        assert_eq!(self::messages(&mut device).len(), 1);
        device.serve(NOW);
    }
    device.handle_link_down(NOW);
    device
}

fn a_gateway_that_rotates_its_queue_sends_nothing_twice<K: Kind>() {
    let mut device: K = taught(3);
    // What was 2 is 1 now, and there were three numbers from it on.
    let predecessor = Some(Predecessor { epoch: EPOCH, old_first: 2, count: 3 });
    let stream =
        StreamFields { epoch: Epoch(6), predecessor, oldest: 1, next: 4, known: None, assigned: None };
    let gateway = Gateway::meet_with(&mut device, stream);
    for (number, text) in [(1, b"2"), (2, b"3"), (3, b"4")] {
        gateway.carry(&mut device, number, text, true);
    }
    assert_eq!(messages(&mut device), [b"4"]);
    device.serve(NOW);
    device.handle_link_down(NOW);
    let gateway = Gateway::meet_with(&mut device, StreamFields { predecessor: None, ..stream });
    assert_eq!(gateway.known, Some(Known { epoch: Epoch(6), cursor: 3 }));
}

fn what_a_gateway_has_lost_is_a_gap_and_what_it_repeats_is_marked<K: Kind>() {
    let mut device: K = taught(3);
    let stream =
        StreamFields { epoch: EPOCH, predecessor: None, oldest: 6, next: 8, known: None, assigned: None };
    let gateway = Gateway::meet_with(&mut device, stream);
    let mut gap = None;
    while let Some(event) = device.poll_event() {
        if let Event::Gap { count, reason } = event {
            gap = Some((count, reason));
        }
    }
    assert_eq!(gap, Some((2, GapReason::Missing)));
    for number in 6..=8 {
        gateway.carry(&mut device, number, b"x", true);
        assert_eq!(repeats(&mut device), [number < 8], "{number}");
        device.serve(NOW);
    }
    device.handle_link_down(NOW);
    // Another epoch, and nothing is known of the one before it.
    let gateway = Gateway::meet_with(&mut device, StreamFields { epoch: Epoch(7), oldest: 1, ..stream });
    assert_eq!(gateway.known, Some(Known { epoch: Epoch(7), cursor: 0 }));
    gateway.carry(&mut device, 1, b"x", true);
    assert_eq!(repeats(&mut device), [true]);
}

fn a_device_whose_numbers_went_backwards_begins_a_new_epoch<K: Kind>() {
    let mut device = K::new(CONFIG, NOW);
    let mut gateway = Gateway::meet(&mut device, None, 1);
    let epoch = gateway.stream.epoch;
    assert_eq!((gateway.stream.oldest, gateway.stream.next), (1, 1));
    device.handle_link_down(NOW);
    while device.poll_event().is_some() {}
    for _ in 0..3 {
        device.take(NOW, (TopicIndex(0), b"reading"), Overflow::Refuse).expect("room");
    }
    // The gateway has had more than was ever sent: they were messages of an earlier life with the same seed.
    Gateway::meet(&mut device, Some(Known { epoch, cursor: 9 }), 1);
    assert!(!device.is_up());
    let mut regressed = 0;
    while let Some(event) = device.poll_event() {
        regressed += usize::from(event == Event::Regressed);
    }
    assert_eq!(regressed, 1);
    device.serve(NOW);
    gateway = Gateway::meet(&mut device, Some(Known { epoch, cursor: 9 }), 1);
    assert!(device.is_up() && gateway.stream.epoch != epoch);
    assert_eq!((gateway.stream.oldest, device.queued()), (1, 3), "all of it is sent again");
}

#[test]
fn a_device_whose_store_went_backwards_begins_a_new_epoch_without_being_asked() {
    let mut restored = Stored::new(CONFIG, NOW);
    restored.take(NOW, (TopicIndex(0), b"reading"), Overflow::Refuse).expect("room");
    restored.restart(CONFIG, NOW);
    restored.serve(NOW);
    let mut epoch = Epoch::NONE;
    let note = &mut |item: Recovered<'_>| {
        if let Recovered::Queue(queue) = item {
            epoch = queue.epoch;
        }
    };
    restored.store.recover(note).expect("in memory");
    let known = Some(Known { epoch, cursor: 9 });
    Gateway::meet(&mut restored, known, 1);
    assert!(!restored.is_up());
    Gateway::meet(&mut restored, known, 1);
    assert!(restored.is_up(), "it speaks of a new epoch now");
}

fn a_gap_of_more_numbers_than_the_window_has_frames_is_followed_by_messages<K: Kind>() {
    let mut device = K::new(CONFIG, NOW);
    let gateway = Gateway::meet(&mut device, None, 100);
    let mut begin = [0; 16];
    let len = wire::encode(&Body::Begin(Begin { number: 1 }), &mut begin).expect("room");
    let frame = gateway.frame.replace(3);
    give(&mut device, gateway.session, &Body::Numbered(Numbered { frame, body: &begin[..len] }));
    let mut gap = [0; 16];
    let len = encode_gap(GapReason::Dropped, 70_000, &mut gap).expect("room");
    let head = DataHead { sent_before: false, frame: 2, added_age_ms: 0 };
    let body = head.encode(&gap[..len]).expect("a record").slices().concat();
    put(&mut device, gateway.session, &body);
    gateway.send(&mut device, 70_001, b"behind it");
    assert!(device.is_up());
    assert_eq!(messages(&mut device), [b"behind it"]);
    device.serve(NOW);
}
