//! Random and mutated bytes into whole endpoints, in every state of a session.
//!
//! Half of the mutated frames are sealed again, so that what is behind the seal is reached. Nothing may panic, and
//! memory stays within the budget.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use liner_proto::effect::Outcome;
use liner_proto::endpoint::{DeviceConfig, TopicIndex};
use liner_proto::frame::cobs::{self, CobsSplit};
use liner_proto::frame::length;
use liner_proto::id::{Class, ConnId, SessionId};
use liner_proto::pump::Overflow;
use liner_proto::rng::Rng;
use liner_proto::router::{Framing, Message, NodeConfig, Router, StoreRequest};
use liner_proto::seal;
use liner_proto::store::{HeapStore, Store, execute};
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::record::Mode;
use liner_proto::wire::{self, Body};

mod kinds;
use kinds::Kind;

/// Streams in all; a third for each kind of endpoint.
const STREAMS: u64 = 100_000;

/// The victim holds no more than this for a peer: a ring, and a window of it in flight.
const BUDGET: usize = 2 * 64 * 1024;

const NOW: Instant = Instant::from_micros(1_000_000);

/// How far the handshake has come when the attack begins: so many chunks were passed on in good faith.
const STATES: usize = 5;

struct Node {
    router: Router,
    store: HeapStore,
    conn: ConnId,
}

impl Node {
    fn start(name: &str, custody: bool) -> (Router, HeapStore) {
        let mut config = NodeConfig::new(name, [name.len() as u64, 11], Class::Ram);
        config.takes_custody = custody;
        config.queue_bytes = 64 * 1024;
        config.limits.window_bytes = 64 * 1024;
        (config.limits.frame_max, config.limits.message_max) = (256, 16 * 1024);
        config.kept.bytes = 32 * 1024;
        let mut router = Router::new(config, NOW);
        router.start(NOW);
        (router, HeapStore::new(1 << 20))
    }

    fn serve(&mut self) {
        while let Some(request) = self.router.poll_store(NOW) {
            match request {
                StoreRequest::Commit(batch) => {
                    let outcome: Outcome = execute(&mut self.store, &batch);
                    self.router.handle_committed(NOW, batch.id(), outcome);
                }
                StoreRequest::Load(load) => {
                    let mut buffer = vec![0; 65_536];
                    let result = self.store.load(load.queue(), load.after(), &mut buffer);
                    self.router.handle_loaded(NOW, &load, result, &buffer);
                }
            }
        }
    }

    fn take(&mut self, bytes: &mut Vec<u8>) {
        let taken = self.router.handle_bytes(NOW, self.conn, bytes, &mut |_: &Message<'_>| {});
        bytes.drain(..taken);
        self.serve();
    }

    fn give(&mut self) -> Vec<u8> {
        self.serve();
        let mut out = Vec::new();
        loop {
            let transmit = self.router.poll_transmit(NOW, self.conn);
            let len = transmit.len();
            if len == 0 {
                return out;
            }
            out.extend_from_slice(transmit.head);
            out.extend_from_slice(transmit.body);
            self.router.handle_written(NOW, self.conn, len);
        }
    }
}

/// A sender that dials a gateway, brought as far as `state`; the next chunk from each side is still to be passed on.
fn pair(state: usize) -> (Node, Node) {
    let (mut router, store) = Node::start("sender", false);
    let dial = router.add_peer(NOW, "gateway");
    let _ = router.poll_dial(NOW);
    router.send(NOW, "t", b"before the link", Mode::All).expect("room");
    router.subscribe(NOW, "u");
    let conn = router.handle_dialed(NOW, dial, Framing::Length);
    let mut sender = Node { router, store, conn };
    let (mut router, store) = Node::start("gateway", true);
    let conn = router.handle_accepted(NOW, Framing::Length);
    let mut gateway = Node { router, store, conn };
    for step in 0..state {
        let (from, to) =
            if step % 2 == 0 { (&mut sender, &mut gateway) } else { (&mut gateway, &mut sender) };
        let mut bytes = from.give();
        to.take(&mut bytes);
    }
    sender.router.send(NOW, "t", b"a message", Mode::One).expect("room");
    // In pieces.
    sender.router.send(NOW, "t", &[7; 1000], Mode::One).expect("room");
    (sender, gateway)
}

/// The seeds of both seals, as a listener would compute them from the first two frames.
struct Sniffer {
    dialler: u64,
    session: SessionId,
}

impl Sniffer {
    fn hear(&mut self, body: &[u8]) {
        match wire::decode(body) {
            Ok(Body::Hello(hello)) => self.dialler = hello.nonce,
            Ok(Body::Answer(answer)) => {
                let parts = [&self.dialler.to_le_bytes()[..], &answer.nonce.to_le_bytes()[..]];
                self.session = SessionId(seal::checksum(SessionId::HANDSHAKE, &parts).max(1));
            }
            _ => {}
        }
    }
}

fn frames_of(framing: Framing, stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = stream.to_vec();
    loop {
        let (frame, consumed) = match framing {
            Framing::Length => match length::split(&rest, 1 << 20) {
                Ok(Some(split)) => (rest[split.frame].to_vec(), split.consumed),
                _ => return frames,
            },
            Framing::Cobs => match cobs::split(&mut rest, 1 << 16) {
                CobsSplit::Frame { frame, consumed } => (rest[frame].to_vec(), consumed),
                CobsSplit::Empty { consumed } => (Vec::new(), consumed),
                CobsSplit::Incomplete | CobsSplit::Bad { .. } | CobsSplit::TooLong { .. } => return frames,
            },
        };
        if !frame.is_empty() {
            frames.push(frame);
        }
        rest.drain(..consumed);
    }
}

fn put_frame(framing: Framing, frame: &[u8], out: &mut Vec<u8>) {
    match framing {
        Framing::Length => {
            out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            out.extend_from_slice(frame);
        }
        Framing::Cobs if frame.is_empty() => out.push(0),
        Framing::Cobs => {
            let begin = out.len();
            out.resize(begin + cobs::encoded_len_max(frame.len()), 0);
            let len = cobs::encode(&[frame], &mut out[begin..]).expect("fits");
            out.truncate(begin + len);
        }
    }
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
            2 => bytes.insert(at, rng.next() as u8),
            3 if at < bytes.len() => {
                bytes.remove(at);
            }
            4 => bytes.truncate(at),
            _ => {
                let copy: Vec<u8> = bytes[at..].iter().take(12).copied().collect();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// An attack made from `good`, the stream that the other side would have sent.
fn attack(rng: &mut Rng, framing: Framing, good: &[u8], seals: &[SessionId], counts: &mut Counts) -> Vec<u8> {
    let mut out = Vec::new();
    if rng.below(10) == 0 {
        counts.random += 1;
        out.resize(rng.below(400) as usize, 0);
        out.iter_mut().for_each(|byte| *byte = rng.next() as u8);
        return out;
    }
    let mut frames = frames_of(framing, good);
    if frames.is_empty() {
        frames.push(vec![0; 9]);
    }
    for _ in 0..=rng.below(3) {
        let mut frame = frames[rng.below(frames.len() as u64) as usize].clone();
        let sealed_again = rng.below(2) == 0;
        if sealed_again {
            let mut body = frame.split_off(seal::LEN.min(frame.len()));
            // Now and then the frame of another tag.
            if rng.below(4) == 0 && !body.is_empty() {
                body[0] = rng.below(0x16) as u8 | if rng.below(8) == 0 { 0x40 } else { 0 };
            }
            mutate(rng, &mut body);
            let session = seals[rng.below(seals.len() as u64) as usize];
            frame = seal::seal(session, &[&body]).to_vec();
            frame.extend_from_slice(&body);
            counts.sealed += 1;
        } else {
            mutate(rng, &mut frame);
            counts.broken += 1;
        }
        put_frame(framing, &frame, &mut out);
    }
    if rng.below(8) == 0 {
        mutate(rng, &mut out);
    }
    out
}

#[derive(Debug, Default)]
struct Counts {
    random: u64,
    sealed: u64,
    broken: u64,
    survived: u64,
    ended: u64,
}

fn feed_node(rng: &mut Rng, victim: &mut Node, stream: &[u8], counts: &mut Counts) {
    let mut rest = Vec::new();
    for chunk in stream.chunks(1 + rng.below(64) as usize) {
        rest.extend_from_slice(chunk);
        victim.take(&mut rest);
        let _ = victim.give();
        let held = victim.router.held() + victim.router.assembling();
        assert!(held <= BUDGET, "{held} bytes held");
    }
    if let Some(conn) = victim.router.poll_close() {
        victim.router.handle_closed(NOW, conn);
        counts.ended += 1;
    } else {
        counts.survived += 1;
    }
    while victim.router.poll_event().is_some() {}
    victim.router.handle_timeout(NOW + Duration::from_secs(60));
    victim.serve();
}

#[test]
fn nodes_survive_any_bytes_in_every_state() {
    let mut rng = Rng::new([2, 3]);
    let mut counts = Counts::default();
    for round in 0..STREAMS * 2 / 3 {
        let state = (round % STATES as u64) as usize;
        let (mut sender, mut gateway) = pair(state);
        let mut sniffer = Sniffer { dialler: 0, session: SessionId(0) };
        // What each side has to say next, and the seeds: replayed from the beginning by a pair of the same kind.
        let (mut a, mut b) = pair(0);
        for step in 0..state + 2 {
            let (from, to) = if step % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let mut bytes = from.give();
            for frame in frames_of(Framing::Length, &bytes) {
                sniffer.hear(&frame[seal::LEN..]);
            }
            to.take(&mut bytes);
        }
        let seals = [SessionId::HANDSHAKE, sniffer.session];
        let to_gateway = state.is_multiple_of(2);
        let good = if to_gateway { sender.give() } else { gateway.give() };
        let stream = attack(&mut rng, Framing::Length, &good, &seals, &mut counts);
        let victim = if to_gateway { &mut gateway } else { &mut sender };
        feed_node(&mut rng, victim, &stream, &mut counts);
    }
    assert!(counts.random > 1000 && counts.sealed > 30_000 && counts.broken > 30_000, "{counts:?}");
    assert!(counts.ended > 1000 && counts.survived > 1000, "{counts:?}");
}

both!(super::kinds::InRam<1024, 256, 700>, super::kinds::InStore<512, 256, 1024>:
    devices_survive_any_bytes_in_every_state
);

fn device_and_gateway<K: Kind>(state: usize, sniffer: &mut Sniffer) -> (K, Node) {
    let mut device = K::new(DeviceConfig::new("dev", &["t"], [5, 6]), NOW);
    device.take(NOW, (TopicIndex(0), b"one"), Overflow::Refuse).expect("room");
    device.handle_link_up(NOW);
    let (mut router, heap) = Node::start("gateway", true);
    let conn = router.handle_accepted(NOW, Framing::Cobs);
    let mut gateway = Node { router, store: heap, conn };
    for step in 0..state {
        if step % 2 == 0 {
            let mut bytes = speak(&mut device);
            for frame in frames_of(Framing::Cobs, &bytes) {
                sniffer.hear(&frame[seal::LEN..]);
            }
            gateway.take(&mut bytes);
        } else {
            let bytes = gateway.give();
            for frame in frames_of(Framing::Cobs, &bytes) {
                sniffer.hear(&frame[seal::LEN..]);
            }
            listen(&mut device, &bytes);
        }
    }
    (device, gateway)
}

fn speak(device: &mut impl Kind) -> Vec<u8> {
    device.serve(NOW);
    let mut out = vec![0; 2048];
    let len = device.poll_transmit(NOW, &mut out);
    out.truncate(len);
    out
}

fn listen(device: &mut impl Kind, bytes: &[u8]) {
    let mut rest = bytes;
    // Each call takes bytes or yields an event, so this ends.
    for _ in 0..=2 * bytes.len() {
        let taken = device.handle_bytes(NOW, rest);
        rest = &rest[taken..];
        let event = device.poll_event().is_some();
        if rest.is_empty() && !event {
            return;
        }
    }
    panic!("the device does not get through its input");
}

fn devices_survive_any_bytes_in_every_state<K: Kind>() {
    let mut rng = Rng::new([4, 5]);
    let mut counts = Counts::default();
    for round in 0..STREAMS / 3 + 1 {
        let state = (round % STATES as u64) as usize;
        let mut sniffer = Sniffer { dialler: 0, session: SessionId(0) };
        let (mut device, mut gateway) = device_and_gateway::<K>(state | 1, &mut sniffer);
        let good = gateway.give();
        for frame in frames_of(Framing::Cobs, &good) {
            sniffer.hear(&frame[seal::LEN..]);
        }
        let seals = [SessionId::HANDSHAKE, sniffer.session];
        let stream = attack(&mut rng, Framing::Cobs, &good, &seals, &mut counts);
        for chunk in stream.chunks(1 + rng.below(32) as usize) {
            listen(&mut device, chunk);
            let _ = speak(&mut device);
        }
        device.handle_timeout(NOW + Duration::from_secs(60));
        let _ = speak(&mut device);
        // A new link works whatever came over the old one.
        device.handle_link_down(NOW);
        while device.poll_event().is_some() {}
        device.handle_link_up(NOW);
        assert!(!speak(&mut device).is_empty(), "it greets again");
        counts.survived += 1;
    }
    assert!(counts.sealed > 10_000 && counts.broken > 10_000, "{counts:?}");
}
