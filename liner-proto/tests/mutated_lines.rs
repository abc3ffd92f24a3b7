//! Streams of a line that were recorded and then damaged in every way, into a gateway and into a device: nothing panics, memory
//! stays within the budget, and of what was not sealed again after the damage nothing is taken for a message but what was sent, in
//! order and once.
//!
//! The short form runs with all other tests. The long form, a million streams:
//!
//! ```text
//! LINER_STREAMS=1000000 cargo test -p liner-proto --test mutated_lines
//! ```

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod serial;

use allocation_counter::measure;
use liner_proto::config::LineConfig;
use liner_proto::endpoint::{Endpoint, Event as DeviceEvent, TopicIndex};
use liner_proto::frame::cobs::{self, CobsSplit};
use liner_proto::id::SessionId;
use liner_proto::pump::{self, Overflow};
use liner_proto::rng::Rng;
use liner_proto::router::NodeConfig;
use liner_proto::seal;
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::control::{Fragment, Numbered};
use liner_proto::wire::{self, Body};
use serial::{Gateway, Wire, World, body_of, device_config, gateway_config};

/// Streams in the short form; half go to a gateway, half to a device.
const STREAMS: u64 = 20_000;

/// What a gateway may take for a peer on a line: the ring of its queue and a window of messages, 64 KiB each; a message in pieces; the
/// frames that came ahead of a missing one; what is being written; and as much again for its store and the lists in between.
const BUDGET: u64 = 512 * 1024;

const QUEUE: usize = 4096;
const FRAME: usize = 256;
const MESSAGE: usize = 1024;
type Device = Endpoint<'static, QUEUE, FRAME, MESSAGE>;

const LINE: LineConfig = LineConfig { baud: Some(115_200), half_duplex: false };

/// A session as it went, from the first byte.
struct Recording {
    seed: u64,
    session: SessionId,
    /// What each side was given by its application, and when.
    messages: Vec<(Instant, Vec<u8>)>,
    commands: Vec<(Instant, Vec<u8>)>,
    /// What each side heard, and when.
    to_gateway: Vec<(Instant, Vec<u8>)>,
    to_device: Vec<(Instant, Vec<u8>)>,
}

fn gateway_settings(seed: u64) -> NodeConfig {
    let mut config = gateway_config(seed);
    config.queue_bytes = 64 * 1024;
    config.limits.window_bytes = 64 * 1024;
    config.limits.message_max = 16 * 1024;
    config
}

/// Messages of which no two are alike, in any recording; some need pieces.
fn payloads(rng: &mut Rng, count: u64, every: u64, from: Instant) -> Vec<(Instant, Vec<u8>)> {
    (0..count)
        .map(|place| {
            let len = if rng.below(5) == 0 { 300 + rng.below(600) } else { 16 + rng.below(60) };
            let bytes = (0..len).map(|_| rng.next() as u8).collect();
            (from + Duration::from_millis(place * every), bytes)
        })
        .collect()
}

impl Recording {
    /// Half of the sessions are recorded on a line that loses frames.
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new([seed, 77]);
        let start = Instant::from_micros(1);
        let messages = payloads(&mut rng, 4 + seed % 12, 15, start);
        let commands = payloads(&mut rng, 3 + seed % 9, 20, start + Duration::from_millis(700));
        let mut world: World<QUEUE, FRAME, MESSAGE> =
            World::new(device_config(seed, LINE), gateway_settings(seed), Some(115_200));
        if seed % 2 == 1 {
            let mut random = rng.clone();
            world.up.fate = Box::new(move |_, frame| {
                if random.below(10) == 0 {
                    frame.clear();
                }
            });
            let mut random = Rng::new([seed, 78]);
            world.down.fate = Box::new(move |_, frame| {
                if random.below(10) == 0 {
                    frame.clear();
                }
            });
        }
        world.up.record = Some(Vec::new());
        world.down.record = Some(Vec::new());
        let mut given: Vec<_> = messages.iter().map(|(at, payload)| (*at, payload, true)).collect();
        given.extend(commands.iter().map(|(at, payload)| (*at, payload, false)));
        given.sort_by_key(|(at, ..)| *at);
        for (at, payload, from_device) in given {
            world.run_until(at);
            assert!(if from_device { world.send(payload) } else { world.command(payload) });
        }
        world.run(Duration::from_secs(3));
        // What was lost again and again takes longer.
        let took = world.run_while(Duration::from_secs(30), |world| {
            (world.gateway.got.len(), world.commands.len()) != (messages.len(), commands.len())
        });
        assert!(took.is_some(), "seed {seed}: {:?}", world.device.line_stats());
        assert_eq!(world.gateway.got.len(), messages.len());
        assert_eq!(world.commands.len(), commands.len());
        let (to_gateway, to_device) = (world.up.record.take(), world.down.record.take());
        let (to_gateway, to_device) = (to_gateway.unwrap_or_default(), to_device.unwrap_or_default());
        let mut nonces = [0, 0];
        for (_, frame) in to_gateway.iter().chain(&to_device) {
            match wire::decode(&body_of(frame)) {
                Ok(Body::Hello(hello)) => nonces[0] = hello.nonce,
                Ok(Body::Answer(answer)) => nonces[1] = answer.nonce,
                _ => {}
            }
        }
        let parts = nonces.map(u64::to_le_bytes);
        let session = SessionId(seal::checksum(SessionId::HANDSHAKE, &[&parts[0], &parts[1]]).max(1));
        Self { seed, session, messages, commands, to_gateway, to_device }
    }
}

/// What became of the streams.
#[derive(Debug, Default)]
struct Counts {
    sealed: u64,
    /// Streams of which every message was taken, some, and none.
    whole: u64,
    part: u64,
    none: u64,
    ended: u64,
    memory: u64,
}

type Stream = Vec<(Instant, Vec<u8>)>;

/// Damages single bytes.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(7) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
            3 => bytes.insert(at, rng.next() as u8),
            4 if at < bytes.len() => {
                bytes.remove(at);
            }
            5 => bytes.truncate(at),
            _ => {
                let copy: Vec<u8> = bytes[at..].iter().take(12).copied().collect();
                bytes.splice(at..at, copy);
            }
        }
    }
}

fn encoded(frame: &[u8]) -> Vec<u8> {
    let mut line = vec![0; cobs::encoded_len_max(frame.len())];
    let len = cobs::encode(&[frame], &mut line).unwrap_or(0);
    line.truncate(len);
    line
}

/// Damages what stands behind the seal, and makes the seal good again.
fn damage_sealed(rng: &mut Rng, line: &mut Vec<u8>, session: SessionId) {
    let mut frame = line.clone();
    let CobsSplit::Frame { frame: place, .. } = cobs::split(&mut frame, 1 << 12) else { return };
    let frame = &frame[place];
    if frame.len() <= seal::LEN {
        return;
    }
    let plain = seal::open(SessionId::HANDSHAKE, frame).is_ok();
    let mut body = frame[seal::LEN..].to_vec();
    match rng.below(6) {
        0 => body[0] = rng.below(0x16) as u8 | if rng.below(6) == 0 { 0x40 } else { 0 },
        // The number of the frame is what a receiver goes by.
        1 if body.len() > 3 => {
            let by = rng.below(5) as u8;
            let at = if body[0] >= 0x40 || rng.below(2) == 0 { 1 } else { 4.min(body.len() - 1) };
            body[at] = body[at].wrapping_add(by).wrapping_sub(2);
        }
        _ => damage(rng, &mut body),
    }
    let other = rng.below(20) == 0;
    let session = if plain != other { SessionId::HANDSHAKE } else { session };
    let sealed = [&seal::seal(session, &[&body])[..], &body].concat();
    *line = encoded(&sealed);
}

/// Damages a stream in some of its frames, with those of `other`, another session. Says whether a frame was sealed again.
fn mutate(rng: &mut Rng, stream: &mut Stream, other: &Stream, session: SessionId) -> bool {
    let (mut sealed, forges) = (false, rng.below(4) == 0);
    for _ in 0..=rng.below(6) {
        let count = stream.len() as u64;
        if count == 0 {
            break;
        }
        // Rather late, so that the session comes up in most of them.
        let at = rng.below(count).max(rng.below(count)) as usize;
        let from = rng.below(count) as usize;
        if forges && rng.below(2) == 0 {
            damage_sealed(rng, &mut stream[at].1, session);
            sealed = true;
            continue;
        }
        match rng.below(13) {
            0..=2 => damage(rng, &mut stream[at].1),
            3 => drop(stream.remove(at)),
            4 => {
                // A stretch of frames is lost.
                let end = (at + 1 + rng.below(6) as usize).min(stream.len());
                stream.drain(at..end);
            }
            5 => {
                // A frame comes once more, somewhere.
                let copy = (stream[at].0, stream[from].1.clone());
                stream.insert(at, copy);
            }
            6 => {
                let bytes = stream[from].1.clone();
                stream[from].1 = std::mem::replace(&mut stream[at].1, bytes);
            }
            7 => {
                // The front of one and the end of another.
                let front = rng.below(stream[at].1.len() as u64 + 1) as usize;
                let back = rng.below(stream[from].1.len() as u64 + 1) as usize;
                let tail = stream[from].1[back..].to_vec();
                stream[at].1.truncate(front);
                stream[at].1.extend(tail);
            }
            8 if !other.is_empty() => {
                let foreign = other[rng.below(other.len() as u64) as usize].1.clone();
                let when = stream[at].0;
                stream.insert(at, (when, foreign));
            }
            9 if !other.is_empty() => {
                // The other session takes the line over.
                let begin = rng.below(other.len() as u64) as usize;
                stream.truncate(at);
                stream.extend_from_slice(&other[begin..]);
            }
            10 => {
                // A zero is lost, or one comes too many.
                if rng.below(2) == 0 {
                    stream[at].1.retain(|byte| *byte != 0);
                } else {
                    stream[at].1.push(0);
                }
            }
            11 => stream.truncate(at),
            _ => {
                // What was sent comes once more, from some place on.
                let again = stream[from..].to_vec();
                stream.truncate(at);
                stream.extend(again);
            }
        }
    }
    // Nothing comes before what came before it.
    let mut latest = Instant::ZERO;
    for (at, _) in stream.iter_mut() {
        latest = latest.max(*at);
        *at = latest;
    }
    sealed
}

/// Whether `got` is the beginning of what was sent.
fn is_front<'a>(mut got: impl Iterator<Item = &'a [u8]>, sent: &[(Instant, Vec<u8>)]) -> bool {
    let mut sent = sent.iter();
    got.all(|payload| sent.next().is_some_and(|(_, sent)| sent == payload))
}

fn into_gateway(recording: &Recording, stream: &Stream, sealed: bool, counts: &mut Counts) {
    let mut gateway = Gateway::new(gateway_settings(recording.seed), LINE);
    let mut wire = Wire::new(None);
    wire.fate = Box::new(|_, frame| frame.clear());
    gateway.drain(Instant::ZERO, &mut wire);
    let mut commands = recording.commands.iter().peekable();
    let first = gateway.conn;
    for (at, bytes) in stream {
        while let Some((when, command)) = commands.next_if(|(when, _)| when <= at) {
            wake_gateway(&mut gateway, *when, &mut wire);
            let _ = gateway.router.send(*when, "dev", command, wire::record::Mode::All);
            gateway.drain(*when, &mut wire);
        }
        wake_gateway(&mut gateway, *at, &mut wire);
        gateway.hear(*at, bytes);
        gateway.drain(*at, &mut wire);
    }
    let end = stream.last().map_or(Instant::ZERO, |(at, _)| *at) + Duration::from_secs(1);
    wake_gateway(&mut gateway, end, &mut wire);
    counts.ended += u64::from(gateway.conn != first);
    let got = gateway.got.len();
    let sent = recording.messages.len();
    match got {
        0 => counts.none += 1,
        _ if got < sent => counts.part += 1,
        _ => counts.whole += 1,
    }
    if !sealed {
        let payloads = gateway.got.iter().map(|(_, payload, _)| &payload[..]);
        assert!(is_front(payloads, &recording.messages), "a message that was not sent");
    }
}

/// Time passes for the gateway.
fn wake_gateway(gateway: &mut Gateway, now: Instant, wire: &mut Wire) {
    for _ in 0..10_000 {
        let Some((at, _)) = gateway.router.poll_timeout().filter(|(at, _)| *at <= now) else { return };
        gateway.router.handle_timeout(at);
        gateway.drain(at, wire);
    }
    panic!("the gateway is busy: {:?}", gateway.router.poll_timeout());
}

/// A device and what it said it was sent.
struct Victim {
    device: Box<Device>,
    scratch: Box<[u8; 4096]>,
    got: usize,
    wrong: usize,
    disconnects: usize,
}

impl Victim {
    /// A turn, and more as long as it has something to say.
    fn turn(&mut self, now: Instant, bytes: &[u8], commands: &[(Instant, Vec<u8>)]) {
        let (got, wrong, disconnects) = (&mut self.got, &mut self.wrong, &mut self.disconnects);
        let mut event = |event: DeviceEvent<'_>| match event {
            DeviceEvent::Message { payload, .. } => {
                if commands.get(*got).is_none_or(|(_, sent)| sent != payload) {
                    *wrong += 1;
                }
                *got += 1;
            }
            DeviceEvent::Disconnected(_) => *disconnects += 1,
            DeviceEvent::Connected { .. } | DeviceEvent::TooLarge | _ => {}
        };
        let mut rest = bytes;
        for _ in 0..1000 {
            let scratch = &mut self.scratch[..];
            let (out, _) = pump::turn(&mut *self.device, now, rest, scratch, &mut event);
            if out.is_empty() {
                return;
            }
            rest = &[];
        }
        panic!("the device has no end");
    }

    fn wake(&mut self, now: Instant, commands: &[(Instant, Vec<u8>)]) {
        for _ in 0..10_000 {
            let Some((at, _)) = self.device.poll_timeout().filter(|(at, _)| *at <= now) else { return };
            self.turn(at, &[], commands);
        }
        panic!("the device is busy: {:?}", self.device.poll_timeout());
    }
}

fn into_device(recording: &Recording, stream: &Stream, sealed: bool, counts: &mut Counts) {
    let mut victim = Victim {
        device: Box::new(Device::new(device_config(recording.seed, LINE), Instant::ZERO)),
        scratch: Box::new([0; 4096]),
        got: 0,
        wrong: 0,
        disconnects: 0,
    };
    let commands = &recording.commands[..];
    // It has no allocator.
    let taken = measure(|| {
        victim.turn(Instant::ZERO, &[], commands);
        let mut messages = recording.messages.iter().peekable();
        for (at, bytes) in stream {
            while let Some((when, message)) = messages.next_if(|(when, _)| when <= at) {
                victim.wake(*when, commands);
                let message = (TopicIndex(0), &message[..]);
                let _ = pump::send(&mut *victim.device, *when, message, Overflow::Refuse);
                victim.turn(*when, &[], commands);
            }
            victim.wake(*at, commands);
            victim.turn(*at, bytes, commands);
        }
        let end = stream.last().map_or(Instant::ZERO, |(at, _)| *at) + Duration::from_secs(1);
        victim.wake(end, commands);
    });
    assert_eq!(taken.count_total, 0, "a device allocates nothing");
    counts.ended += u64::from(victim.disconnects > 0);
    match victim.got {
        0 => counts.none += 1,
        got if got < commands.len() => counts.part += 1,
        _ => counts.whole += 1,
    }
    assert!(sealed || victim.wrong == 0, "a message that was not sent");
}

fn streams() -> u64 {
    let told = std::env::var("LINER_STREAMS").ok();
    told.map_or(STREAMS, |told| told.parse().expect("LINER_STREAMS is a number")) / 2
}

fn recordings() -> Vec<Recording> {
    (0..24).map(Recording::new).collect()
}

/// Every kind of end was seen often enough to mean something.
fn assert_varied(counts: &Counts, streams: u64) {
    assert!(counts.whole > streams / 50 && counts.part > streams / 5, "{counts:?}");
    assert!(counts.none > streams / 100 && counts.ended > streams / 100, "{counts:?}");
    assert!(counts.sealed > streams / 20 && counts.sealed < streams / 2, "{counts:?}");
}

#[test]
fn recordings_are_taken_whole_as_they_are() {
    for recording in recordings() {
        let mut counts = Counts::default();
        into_gateway(&recording, &recording.to_gateway, false, &mut counts);
        into_device(&recording, &recording.to_device, false, &mut counts);
        assert_eq!((counts.whole, counts.ended), (2, 0), "recording {}", recording.seed);
    }
}

#[test]
fn a_gateway_takes_no_message_that_was_not_sent() {
    let recordings = recordings();
    let (mut rng, mut counts) = (Rng::new([20, 26]), Counts::default());
    for _ in 0..streams() {
        let recording = &recordings[rng.below(recordings.len() as u64) as usize];
        let other = &recordings[rng.below(recordings.len() as u64) as usize];
        let other = if other.seed == recording.seed { &Vec::new() } else { &other.to_gateway };
        let mut stream = recording.to_gateway.clone();
        let sealed = mutate(&mut rng, &mut stream, other, recording.session);
        counts.sealed += u64::from(sealed);
        let taken = measure(|| into_gateway(recording, &stream, sealed, &mut counts));
        counts.memory = counts.memory.max(taken.bytes_max);
        assert!(taken.bytes_max <= BUDGET, "{} bytes", taken.bytes_max);
    }
    assert_varied(&counts, streams());
}

#[test]
fn a_device_takes_no_message_that_was_not_sent() {
    let recordings = recordings();
    let (mut rng, mut counts) = (Rng::new([20, 27]), Counts::default());
    for _ in 0..streams() {
        let recording = &recordings[rng.below(recordings.len() as u64) as usize];
        let other = &recordings[rng.below(recordings.len() as u64) as usize];
        let other = if other.seed == recording.seed { &Vec::new() } else { &other.to_device };
        let mut stream = recording.to_device.clone();
        let sealed = mutate(&mut rng, &mut stream, other, recording.session);
        counts.sealed += u64::from(sealed);
        into_device(recording, &stream, sealed, &mut counts);
    }
    assert_varied(&counts, streams());
}

/// A frame of the session with this number that carries so many bytes of a body of `left` bytes.
fn piece(session: SessionId, frame: u16, left: u32, bytes: &[u8]) -> Vec<u8> {
    let mut inner = [0; 2048];
    let len = wire::encode(&Body::Fragment(Fragment { left, bytes }), &mut inner).expect("room");
    let mut body = [0; 2048];
    let numbered = Body::Numbered(Numbered { frame, body: &inner[..len] });
    let len = wire::encode(&numbered, &mut body).expect("room");
    let body = &body[..len];
    encoded(&[&seal::seal(session, &[body])[..], body].concat())
}

#[test]
fn frames_ahead_and_pieces_take_no_more_memory_than_there_is_for_them() {
    let recording = Recording::new(0);
    for (begin, forged) in [(40_u16, false), (40, true), (9, false), (9, true)] {
        let mut stream: Stream = recording.to_gateway.iter().take(8).cloned().collect();
        let at = stream[7].0;
        for n in 0..5000_u16 {
            let left = if forged { u32::MAX } else { 16_000 - 2000 * u32::from(n % 8) };
            stream.push((at, piece(recording.session, begin.wrapping_add(n), left, &[7; 2000])));
        }
        let mut counts = Counts::default();
        let stream_bytes = stream.len() * 2000;
        let taken = measure(|| into_gateway(&recording, &stream, true, &mut counts));
        assert!(stream_bytes > 10 * BUDGET as usize && taken.bytes_max < BUDGET, "{}", taken.bytes_max);
    }
    let mut counts = Counts::default();
    let mut stream: Stream = recording.to_gateway.iter().take(8).cloned().collect();
    let at = stream[7].0;
    for frame in 10..42 {
        stream.push((at, piece(recording.session, frame, 2000, &[7; 2000])));
    }
    let taken = measure(|| into_gateway(&recording, &stream, true, &mut counts));
    assert!(taken.bytes_max > 20 * 2000, "frames are kept: {}", taken.bytes_max);
}
