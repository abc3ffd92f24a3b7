//! A device that is sent messages, by a gateway that is made by hand.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use std::cell::Cell;

use liner_proto::effect::Recovered;
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event, TopicIndex};
use liner_proto::frame::cobs::{self, CobsSplit};
use liner_proto::id::{Epoch, SessionId};
use liner_proto::pump;
use liner_proto::seal;
use liner_proto::store::{RamStore, Store};
use liner_proto::time::Instant;
use liner_proto::wire::control::{Ack, Begin, Numbered};
use liner_proto::wire::data::DataHead;
use liner_proto::wire::handshake::{About, Acks, Answer, Confirm, Hello, Known, StreamFields};
use liner_proto::wire::record::{Header, Mode, Topic, encode_message};
use liner_proto::wire::{self, Body};

const NOW: Instant = Instant::ZERO;
const NONCE: u64 = 99;
const EPOCH: Epoch = Epoch(5);

type Device = Endpoint<'static, 512, 256>;

/// The gateway's end of one session.
struct Gateway {
    session: SessionId,
    /// What the device knows of its stream.
    known: Option<Known>,
    /// The next frame with a number.
    frame: Cell<u16>,
}

impl Gateway {
    /// Lets the device dial and finishes the handshake. `known` is what the gateway knows of the device's stream.
    fn meet(device: &mut Device, known: Option<Known>, next: u64) -> Self {
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
        let stream = StreamFields { epoch: EPOCH, predecessor: None, oldest: 1, next, known, assigned: None };
        let answer =
            Answer { version: 1, echo: nonce, name: "gateway", instance: 1, nonce: NONCE, about, stream };
        give(device, SessionId::HANDSHAKE, &Body::Answer(answer));
        let parts = [&nonce.to_le_bytes()[..], &NONCE.to_le_bytes()[..]];
        let session = SessionId(seal::checksum(SessionId::HANDSHAKE, &parts).max(1));
        let frames = transmit(device);
        let known = frames.iter().find_map(|frame| match wire::decode(&frame[seal::LEN..]) {
            Ok(Body::Confirm(Confirm { stream, .. })) => Some(stream.known),
            _ => None,
        });
        Self { session, known: known.flatten(), frame: Cell::new(1) }
    }

    fn send(&self, device: &mut Device, number: u64, text: &[u8]) {
        let mut record = [0; 64];
        let header = Header::new(Mode::One, Topic::Text("t"));
        let len = encode_message(&header, text, &mut record).expect("room");
        let mut begin = [0; 16];
        let begin_len = wire::encode(&Body::Begin(Begin { number }), &mut begin).expect("room");
        let frame = self.frame.replace(self.frame.get() + 2);
        give(device, self.session, &Body::Numbered(Numbered { frame, body: &begin[..begin_len] }));
        let head = DataHead { sent_before: false, frame: frame + 1, added_age_ms: 0 };
        let body = head.encode(&record[..len]).expect("a record").slices().concat();
        put(device, self.session, &body);
    }
}

fn put(device: &mut Device, session: SessionId, body: &[u8]) {
    let crc = seal::seal(session, &[body]);
    let mut line = [0; 512];
    let len = cobs::encode(&[&crc, body], &mut line).expect("room");
    assert_eq!(device.handle_bytes(NOW, &line[..len]), len);
}

fn give(device: &mut Device, session: SessionId, body: &Body<'_>) {
    let mut bytes = [0; 256];
    let len = wire::encode(body, &mut bytes).expect("room");
    put(device, session, &bytes[..len]);
}

/// The frames that the device sends, seals included.
fn transmit(device: &mut Device) -> Vec<Vec<u8>> {
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

fn serve(device: &mut Device, store: &mut RamStore<2048>) {
    pump::serve(device, store, NOW, &mut [0; 256]).expect("in memory");
}

/// What the device was sent.
fn messages(device: &mut Device) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while let Some(event) = device.poll_event() {
        if let Event::Message { payload, .. } = event {
            got.push(payload.to_vec());
        }
    }
    got
}

fn device() -> Device {
    Device::new(DeviceConfig::new("dev", &["readings"], [1, 2]), NOW)
}

#[test]
fn a_message_that_nobody_took_before_the_link_broke_comes_again() {
    let (mut device, mut store) = (device(), RamStore::new());
    let gateway = Gateway::meet(&mut device, None, 1);
    gateway.send(&mut device, 1, b"one");
    assert_eq!(messages(&mut device), [b"one"]);
    serve(&mut device, &mut store);
    gateway.send(&mut device, 2, b"two");
    device.handle_link_down(NOW);
    serve(&mut device, &mut store);
    let gateway = Gateway::meet(&mut device, None, 3);
    assert_eq!(gateway.known, Some(Known { epoch: EPOCH, cursor: 1 }));
    gateway.send(&mut device, 2, b"two");
    assert_eq!(messages(&mut device), [b"two"]);
    serve(&mut device, &mut store);
    let ack = transmit(&mut device).iter().find_map(|frame| match wire::decode(&frame[seal::LEN..]) {
        Ok(Body::Ack(Ack { acked_low, .. })) => Some(acked_low),
        _ => None,
    });
    assert_eq!(ack, Some(2));
}

#[test]
fn a_device_whose_store_went_backwards_begins_a_new_epoch_without_being_asked() {
    let (mut first, mut store) = (device(), RamStore::new());
    let message = (TopicIndex(0), &b"reading"[..]);
    pump::send(&mut first, &mut store, NOW, message, pump::Overflow::Refuse).expect("room");
    let mut restored = device();
    store.recover(&mut |item| restored.restore(&item)).expect("in memory");
    serve(&mut restored, &mut store);
    let mut epoch = Epoch::NONE;
    let note = &mut |item: Recovered<'_>| {
        if let Recovered::Queue(queue) = item {
            epoch = queue.epoch;
        }
    };
    store.recover(note).expect("in memory");
    let known = Some(Known { epoch, cursor: 9 });
    Gateway::meet(&mut restored, known, 1);
    assert!(!restored.is_up());
    Gateway::meet(&mut restored, known, 1);
    assert!(restored.is_up(), "it speaks of a new epoch now");
}
