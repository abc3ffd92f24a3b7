//! Damaged and invented bytes through every decoder: nothing panics, nothing loops, nothing gets past a seal, and whatever is
//! accepted can be written again.

use std::collections::{BTreeMap, BTreeSet};

use liner_proto::frame::{cobs, length};
use liner_proto::id::{Epoch, Predecessor, SessionId};
use liner_proto::seal;
use liner_proto::wire::batch::{Batch, BatchHead};
use liner_proto::wire::control::{
    Ack, Begin, Bind, Close, CloseReason, Content, Echo, Fragment, Marks, Numbered, Probe, TopicFull,
};
use liner_proto::wire::data::DataHead;
use liner_proto::wire::handshake::{About, Acks, Answer, Assigned, Confirm, Hello, Known, StreamFields};
use liner_proto::wire::page::{Change, PageBuilder, Row};
use liner_proto::wire::record::{self, Age, GapReason, Header, Mode, Origin, Record, Run, Topic};
use liner_proto::wire::{self, Body, NUMBER_MAX, TEXT_MAX, tag};

const STREAMS: u32 = 200_000;
const SESSION: SessionId = SessionId(0xfeed_1234);
const FRAME_MAX: usize = 2048;
const TEXTS: [&str; 5] = ["", "t", "air/temp", "größe/°C", "a-name-of-some-more-length"];

/// xorshift64* (Marsaglia; Vigna 2016): the same bytes in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 32) as usize % bound.max(1)
    }

    /// Numbers of every length, up to the highest that is allowed.
    fn number(&mut self) -> u64 {
        (self.next() >> 1 >> self.below(63)).max(1)
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn text(&mut self) -> &'static str {
        TEXTS[self.below(TEXTS.len())]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.chance(2) { Some(make(self)) } else { None }
    }
}

/// How often something was seen, by its name.
#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, what: impl std::fmt::Debug) {
        let name = format!("{what:?}");
        let end = name.find([' ', '(']).unwrap_or(name.len());
        *self.0.entry(name[..end].into()).or_default() += 1;
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Exactly these were seen. A name that is missing from the list is as wrong as one that never came.
    fn assert_seen(&self, names: &[&str]) {
        let seen: BTreeSet<&str> = self.names().collect();
        assert_eq!(seen, names.iter().copied().collect(), "{:?}", self.0);
    }
}

#[derive(Default)]
struct Seen {
    splits: Counts,
    seals: Counts,
    errors: Counts,
    bodies: Counts,
    /// Tags of what was decoded.
    tags: BTreeSet<u8>,
    /// Errors of the records, rows and runs inside of bodies.
    inner: Counts,
    records: Counts,
}

// ------------------------------------------------------------------ what is sent

fn about(rng: &mut Rng) -> About {
    About {
        inbox: Epoch(rng.next()),
        acks: [Acks::Ram, Acks::Process, Acks::Power, Acks::Processed][rng.below(4)],
        frame_max: 192 + rng.below(100_000) as u32,
        message_max: rng.next() as u32,
        window_messages: rng.below(70_000) as u32,
        window_bytes: rng.next() as u32,
        bindings_max: rng.below(5000) as u32,
        seals: 1,
        roles: rng.below(4) as u8,
    }
}

fn stream(rng: &mut Rng) -> StreamFields {
    let oldest = rng.number() / 2 + 1;
    StreamFields {
        epoch: Epoch(rng.next()),
        predecessor: rng.some(|rng| Predecessor {
            epoch: Epoch(rng.next()),
            old_first: rng.number(),
            count: rng.number(),
        }),
        oldest,
        next: oldest + rng.below(1000) as u64,
        known: rng.some(|rng| Known { epoch: Epoch(rng.next()), cursor: rng.number() }),
        assigned: None,
    }
}

fn message(rng: &mut Rng) -> Vec<u8> {
    let header = Header {
        mode: [Mode::One, Mode::All, Mode::BestEffort][rng.below(3)],
        topic: if rng.chance(2) {
            Topic::Text(rng.text())
        } else {
            Topic::Number(rng.next() as u32 >> rng.below(32))
        },
        repeat: rng.chance(2),
        origin: rng.some(|rng| Origin { name: rng.text(), epoch: Epoch(rng.next()), number: rng.number() }),
        hops: rng.some(|rng| rng.next() as u8),
        ttl_ms: rng.some(|rng| rng.next() as u32),
        age: rng.some(|rng| Age { ms: rng.number(), unknown: rng.chance(2) }),
        born_ms: None,
    };
    let len = rng.below(40);
    let payload = rng.bytes(len);
    let mut bytes = vec![0; record::message_len(&header, payload.len())];
    assert_eq!(record::encode_message(&header, &payload, &mut bytes), Some(bytes.len()));
    bytes
}

fn gap(rng: &mut Rng) -> Vec<u8> {
    let reason = GapReason::from_number(1 + rng.below(7) as u8).unwrap_or(GapReason::Missing);
    let mut bytes = [0; record::GAP_LEN_MAX];
    let len = record::encode_gap(reason, 1 + rng.below(300) as u64, &mut bytes);
    bytes[..len.unwrap_or(0)].to_vec()
}

fn any_record(rng: &mut Rng) -> Vec<u8> {
    if rng.chance(5) { gap(rng) } else { message(rng) }
}

fn batch(rng: &mut Rng, out: &mut [u8]) -> Result<usize, wire::BufferFull> {
    let (mut run, mut covered) = (Vec::new(), 0);
    for _ in 0..=rng.below(5) {
        let bytes = any_record(rng);
        covered += record::numbers_of(&bytes);
        let mut prefix = [0; 10];
        let len = wire::varint::put_varint(&mut prefix, bytes.len() as u64).unwrap_or(0);
        run.extend_from_slice(&prefix[..len]);
        run.extend(bytes);
    }
    let first = rng.number() / 2 + 1;
    let added_age_ms = rng.some(Rng::number);
    let head = BatchHead { sent_before: rng.chance(2), first, last: first + covered - 1, added_age_ms };
    wire::encode(&Body::Batch(Batch { head, run: &run }), out)
}

fn page(rng: &mut Rng, out: &mut [u8]) -> Result<usize, wire::BufferFull> {
    let mut page = PageBuilder::new(out, rng.next())?;
    for _ in 0..rng.below(6) {
        let change = if rng.chance(2) { Change::Add } else { Change::Remove };
        let (topic, name, address, durable) = (rng.text(), rng.text(), rng.text(), rng.chance(2));
        assert!(page.push(&Row { change, topic, name, address, durable }));
    }
    Ok(page.finish(rng.chance(2)))
}

fn any_body(rng: &mut Rng) -> Vec<u8> {
    let mut out = [0; FRAME_MAX];
    let (nonce, instance, name) = (rng.next(), rng.next(), rng.text());
    let written = match rng.below(19) {
        0 => {
            let version_max = 1 + rng.below(3) as u8;
            let about = about(rng);
            wire::encode(
                &Body::Hello(Hello { version_min: 1, version_max, name, instance, nonce, about }),
                &mut out,
            )
        }
        1 => {
            let assigned = rng.some(|rng| Assigned { outbox: Epoch(rng.next()), inbox: Epoch(rng.next()) });
            let (echo, about, stream) = (rng.next(), about(rng), StreamFields { assigned, ..stream(rng) });
            wire::encode(
                &Body::Answer(Answer { version: 1, echo, name, instance, nonce, about, stream }),
                &mut out,
            )
        }
        2 => wire::encode(&Body::Confirm(Confirm { echo: nonce, stream: stream(rng) }), &mut out),
        3 => {
            let reason = CloseReason::from(rng.next() as u8);
            wire::encode(&Body::Close(Close { reason, text: rng.text() }), &mut out)
        }
        4 => {
            let (received, next) = (rng.number(), rng.number());
            let (messages_limit, bytes_limit) = (rng.next(), rng.next());
            let acked = received - rng.below(3).min(1) as u64;
            wire::encode(&Body::Marks(Marks { received, acked, messages_limit, bytes_limit, next }), &mut out)
        }
        5 => {
            let [bitmap, acked_low, next_low] = [(); 3].map(|()| rng.next() as u32);
            let (received, window) = (rng.next() as u16, rng.next() as u8);
            wire::encode(&Body::Ack(Ack { received, bitmap, acked_low, window, next_low }), &mut out)
        }
        6 => wire::encode(&Body::Bind(Bind { number: 1 + rng.below(5000) as u32, text: name }), &mut out),
        7 => wire::encode(&Body::TopicFull(TopicFull { topic: name, after: rng.number() }), &mut out),
        8 => page(rng, &mut out),
        9 => wire::encode(&Body::Skipped(0x80 | rng.next() as u8), &mut out),
        10 => wire::encode(&Body::Probe(Probe { number: rng.number() }), &mut out),
        11 => wire::encode(&Body::Echo(Echo { number: rng.number() }), &mut out),
        12 => {
            let record = any_record(rng);
            let (sent_before, frame, added_age_ms) = (rng.chance(2), rng.next() as u16, rng.next() as u32);
            let parts = DataHead { sent_before, frame, added_age_ms }.encode(&record);
            return parts.map(|parts| parts.slices().concat()).unwrap_or_default();
        }
        13 => wire::encode(&Body::Begin(Begin { number: rng.number() }), &mut out),
        14 => wire::encode(&Body::Greet, &mut out),
        15 => {
            let bytes = &[0x55; 40][..1 + rng.below(40)];
            let left = bytes.len() as u32 + rng.below(1000) as u32;
            wire::encode(&Body::Fragment(Fragment { left, bytes }), &mut out)
        }
        16 => {
            let body = [[tag::PAGE, tag::BIND, tag::BEGIN, tag::FRAGMENT][rng.below(4)], 1, 1, 0, 0];
            wire::encode(&Body::Numbered(Numbered { frame: rng.next() as u16, body: &body }), &mut out)
        }
        _ => batch(rng, &mut out),
    };
    let Ok(len) = written else { panic!("a body does not fit") };
    out[..len].to_vec()
}

/// What the codec does not write: a text of 300 bytes.
fn long_text(rng: &mut Rng) -> Vec<u8> {
    let head = [if rng.chance(2) { tag::CLOSE } else { tag::BIND }, 1, 0xac, 0x02];
    [&head[..], &[b'x'; 300]].concat()
}

// ------------------------------------------------------------------ what becomes of it

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    const TELLING: [u8; 10] = [0, 1, 2, 5, 0x40, 0x43, 0x48, 0x7f, 0x80, 0xff];
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len());
        let len = rng.below(bytes.len() - at).min(16);
        match rng.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            1 if !bytes.is_empty() => bytes[at] = rng.next() as u8,
            2 if !bytes.is_empty() => bytes[at] = TELLING[rng.below(TELLING.len())],
            3 => bytes.insert(at, rng.next() as u8),
            4 => drop(bytes.drain(at..at + len)),
            5 => bytes.truncate(at),
            6 => bytes.extend_from_within(at..at + len),
            _ => {
                let more = rng.bytes(len);
                bytes.splice(at..at, more);
            }
        }
    }
}

fn frame(body: &[u8], by_length: bool, link: &mut Vec<u8>) {
    let seal = seal::seal(SESSION, &[body]);
    if by_length {
        link.extend(length::head(seal.len() + body.len()).into_iter().flatten());
        link.extend(seal);
        link.extend_from_slice(body);
        return;
    }
    let mut line = vec![0; cobs::encoded_len_max(seal.len() + body.len())];
    let len = cobs::encode(&[&seal, body], &mut line).unwrap_or(0);
    link.extend_from_slice(&line[..len]);
}

/// Bodies out of the bytes of a link, as a receiver takes them.
fn receive(link: &mut [u8], by_length: bool, seen: &mut Seen) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut rest = link;
    while !rest.is_empty() {
        let (frame, consumed) = if by_length {
            match length::split(rest, FRAME_MAX) {
                Ok(Some(split)) => (Some(split.frame), split.consumed),
                Ok(None) => break,
                Err(error) => {
                    seen.splits.add(error);
                    break;
                }
            }
        } else {
            let split = cobs::split(rest, FRAME_MAX);
            seen.splits.add(&split);
            match split {
                cobs::CobsSplit::Incomplete => break,
                cobs::CobsSplit::Frame { frame, consumed } => (Some(frame), consumed),
                cobs::CobsSplit::Empty { consumed }
                | cobs::CobsSplit::Bad { consumed }
                | cobs::CobsSplit::TooLong { consumed } => (None, consumed),
            }
        };
        assert!(consumed > 0 && consumed <= rest.len());
        if let Some(frame) = frame {
            assert!(frame.end <= consumed && frame.len() <= FRAME_MAX);
            match seal::open(SESSION, &rest[frame]) {
                Ok(body) => bodies.push(body.to_vec()),
                Err(error) => seen.seals.add(error),
            }
        }
        rest = &mut rest[consumed..];
    }
    bodies
}

/// Everything that can be read of a body, and what must hold of it.
fn read(bytes: &[u8], seen: &mut Seen) {
    let body = match wire::decode(bytes) {
        Ok(body) => body,
        Err(error) => return seen.errors.add(error),
    };
    seen.bodies.add(body);
    seen.tags.extend(bytes.first());
    let mut again = [0; 2 * FRAME_MAX];
    let Ok(len) = wire::encode(&body, &mut again) else { panic!("{body:?} cannot be written") };
    assert_eq!(wire::decode(&again[..len]), Ok(body));
    match body {
        Body::Batch(batch) => read_batch(&batch, seen),
        Body::Data(data) => {
            let mut copy = vec![0; data.record.len()];
            assert_eq!(data.record.copy_to(&mut copy), Some(copy.len()));
            assert_eq!(data.record.decode(), record::decode(&copy));
            read_record(&copy, seen);
        }
        Body::Page(page) => {
            for row in page.rows() {
                match row {
                    Ok(row) => {
                        assert!([row.topic, row.name, row.address].iter().all(|text| text.len() <= TEXT_MAX));
                    }
                    Err(error) => seen.inner.add(error),
                }
            }
        }
        Body::Hello(Hello { name: text, .. })
        | Body::Answer(Answer { name: text, .. })
        | Body::Close(Close { text, .. })
        | Body::Bind(Bind { text, .. })
        | Body::TopicFull(TopicFull { topic: text, .. }) => assert!(text.len() <= TEXT_MAX),
        Body::Confirm(_)
        | Body::Marks(_)
        | Body::Ack(_)
        | Body::Begin(_)
        | Body::Greet
        | Body::Probe(_)
        | Body::Echo(_)
        | Body::Skipped(_) => {}
        Body::Fragment(fragment) => assert!(fragment.bytes.len() as u64 <= u64::from(fragment.left)),
        Body::Numbered(numbered) => match numbered.content() {
            Ok(Content::Skipped) => {}
            Ok(_) => read(numbered.body, seen),
            Err(error) => seen.inner.add(error),
        },
        other => panic!("{other:?} is not looked into"),
    }
}

fn read_batch(batch: &Batch<'_>, seen: &mut Seen) {
    let (mut next, mut taken, mut whole) = (batch.head.first, 0, true);
    for item in batch.records() {
        match item {
            Ok(item) => {
                assert!(whole, "a record behind an error");
                assert_eq!(item.first, next);
                assert_eq!(item.last - item.first + 1, record::numbers_of(item.bytes));
                assert_eq!(record::decode(item.bytes), Ok(item.record));
                assert_eq!(
                    record::split_first(&batch.run[taken..]).map(|(record, _)| record),
                    Some(item.bytes)
                );
                next = item.last + 1;
                taken += item.taken;
            }
            Err(error) => {
                seen.inner.add(error);
                whole = false;
            }
        }
    }
    assert!(taken <= batch.run.len() && batch.head.last <= NUMBER_MAX);
    assert_eq!(whole, next == batch.head.last + 1);
    for bytes in Run::new(batch.run) {
        match bytes {
            Ok(bytes) => read_record(bytes, seen),
            Err(error) => seen.inner.add(error),
        }
    }
}

/// A record that can be read has one form: written again it is as long, or shorter if its numbers had needless bytes.
fn read_record(bytes: &[u8], seen: &mut Seen) {
    let record = match record::decode(bytes) {
        Ok(record) => record,
        Err(error) => return seen.inner.add(error),
    };
    seen.records.add(record);
    let mut again = vec![0; bytes.len()];
    let len = match record {
        Record::Message { header, payload } => record::encode_message(&header, payload, &mut again),
        Record::Gap { reason, count } => {
            assert_eq!(record::numbers_of(bytes), count);
            record::encode_gap(reason, count, &mut again)
        }
    };
    let Some(len) = len else { panic!("{record:?} has grown") };
    assert_eq!(record::decode(&again[..len]), Ok(record));
}

// ------------------------------------------------------------------ the runs

/// One link's worth of frames, damaged after they were sealed: what gets through was sent.
fn damaged_on_the_way(rng: &mut Rng, by_length: bool, seen: &mut Seen) {
    let sent: Vec<Vec<u8>> = (0..=rng.below(3)).map(|_| any_body(rng)).collect();
    let mut link = Vec::new();
    for body in &sent {
        frame(body, by_length, &mut link);
    }
    mutate(rng, &mut link);
    for body in receive(&mut link, by_length, seen) {
        assert!(sent.contains(&body), "the seal let {body:?} pass");
        read(&body, seen);
    }
}

/// Frames that are damaged and then sealed: all of them arrive, and the codec has to bear them.
fn damaged_by_the_sender(rng: &mut Rng, by_length: bool, seen: &mut Seen) {
    let (mut link, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..=rng.below(3) {
        let mut body = match rng.below(40) {
            0 | 1 => {
                let len = 1 + rng.below(60);
                rng.bytes(len)
            }
            2 => long_text(rng),
            _ => any_body(rng),
        };
        mutate(rng, &mut body);
        if !body.is_empty() {
            frame(&body, by_length, &mut link);
            sent.push(body);
        }
    }
    let received = receive(&mut link, by_length, seen);
    assert_eq!(received, sent);
    for body in &received {
        read(body, seen);
        read_record(body, seen);
    }
}

fn noise(rng: &mut Rng, by_length: bool, seen: &mut Seen) {
    let longest = if rng.chance(8) { 2 * FRAME_MAX } else { 80 };
    let len = rng.below(longest);
    let mut link = rng.bytes(len);
    // Without zero bytes a line never ends; with short lengths a frame may.
    if rng.chance(4) {
        link.iter_mut().for_each(|byte| *byte |= 1);
    }
    if rng.chance(2) {
        let head = length::head(rng.below(link.len())).unwrap_or_default();
        link.splice(0..0, head);
    }
    assert_eq!(receive(&mut link, by_length, seen), [[0; 0]; 0], "the seal let noise pass");
    read(&link, seen);
    read_record(&link, seen);
}

/// The variants of an enum of the room, from its source: one that no stream has reached cannot be forgotten here.
fn variants(head: &str) -> BTreeSet<&'static str> {
    const SOURCE: &str = include_str!("../src/wire/mod.rs");
    let (_, after) = SOURCE.split_once(head).unwrap_or_default();
    let (inside, _) = after.split_once("\n}").unwrap_or_default();
    let lines = inside.lines().filter_map(|line| line.strip_prefix("    "));
    let names = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    names.filter_map(|line| line.split(['(', ',', ' ']).next()).collect()
}

#[test]
fn damaged_and_invented_bytes_are_borne() {
    let mut rng = Rng(0x6c69_6e65_7231);
    let mut seen = Seen::default();
    for stream in 0..STREAMS {
        let by_length = stream % 4 < 2;
        match stream % 2 {
            0 => damaged_by_the_sender(&mut rng, by_length, &mut seen),
            _ if rng.chance(5) => noise(&mut rng, by_length, &mut seen),
            _ => damaged_on_the_way(&mut rng, by_length, &mut seen),
        }
    }
    seen.splits.assert_seen(&["Bad", "Empty", "Frame", "Incomplete", "TooLong", "TooShort"]);
    seen.seals.assert_seen(&["Broken", "TooShort"]);
    let faults: BTreeSet<&str> = seen.errors.names().chain(seen.inner.names()).collect();
    assert_eq!(faults, variants("pub enum DecodeError {"));
    seen.errors.assert_seen(&[
        "BadMagic",
        "LimitExceeded",
        "Range",
        "Text",
        "Truncated",
        "Unsupported",
        "Varint",
        "Version",
    ]);
    seen.inner.assert_seen(&[
        "LimitExceeded",
        "Mismatch",
        "Range",
        "Text",
        "Truncated",
        "Unsupported",
        "Varint",
    ]);
    let bodies: BTreeSet<&str> = seen.bodies.names().collect();
    assert_eq!(bodies, variants("pub enum Body<'a> {"));
    seen.records.assert_seen(&["Gap", "Message"]);
    let tags: BTreeSet<u8> = (0x01..=0x0e).chain(0x14..=0x15).chain(0x40..=0xff).collect();
    let missing: Vec<&u8> = tags.difference(&seen.tags).collect();
    assert!(missing.is_empty() && seen.tags.is_subset(&tags), "tags never seen: {missing:x?}");
}
