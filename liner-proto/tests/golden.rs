//! The bytes in `docs/PROTOCOL.md` are what the codec writes and reads: each vector there has its value here, and the other way
//! round.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use liner_proto::frame::{cobs, length};
use liner_proto::id::{Epoch, Predecessor, SessionId};
use liner_proto::seal;
use liner_proto::wire::batch::{Batch, BatchHead};
use liner_proto::wire::control::{
    Ack, Begin, Bind, Close, CloseReason, Echo, Fragment, Marks, Numbered, Probe, TopicFull,
};
use liner_proto::wire::data::DataHead;
use liner_proto::wire::handshake::{About, Acks, Answer, Assigned, Confirm, Hello, Known, StreamFields};
use liner_proto::wire::page::{Change, PageBuilder, Row};
use liner_proto::wire::record::{self, Age, GapReason, Header, Mode, Origin, Record, Topic};
use liner_proto::wire::{self, Body, DecodeError, tag};

const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");

const SESSION: SessionId = SessionId(0x1234_5678);

const HOST: About = About {
    inbox: Epoch(0x1112_1314_1516_1718),
    acks: Acks::Power,
    frame_max: 65_600,
    message_max: 65_528,
    window_messages: 65_536,
    window_bytes: 16_777_216,
    bindings_max: 4096,
    seals: About::SEAL_CRC32C,
    roles: About::ROLE_CUSTODY,
};

const DEVICE: About = About {
    inbox: Epoch::NONE,
    acks: Acks::Processed,
    frame_max: 192,
    message_max: 160,
    window_messages: 4,
    window_bytes: 640,
    bindings_max: 0,
    seals: About::SEAL_CRC32C,
    roles: About::ROLE_WITHOUT_EPOCHS,
};

const NEW_STREAM: StreamFields =
    StreamFields { epoch: Epoch::NONE, predecessor: None, oldest: 1, next: 1, known: None, assigned: None };

const KNOWN_STREAM: StreamFields = StreamFields {
    epoch: Epoch(0x2122_2324_2526_2728),
    predecessor: Some(Predecessor { epoch: Epoch(0x3132_3334_3536_3738), old_first: 1000, count: 1 }),
    oldest: 5,
    next: 300,
    known: Some(Known { epoch: Epoch(0x4142_4344_4546_4748), cursor: 70_000 }),
    assigned: None,
};

const DIALLER_NONCE: u64 = 0x5152_5354_5556_5758;
const LISTENER_NONCE: u64 = 0x6162_6364_6566_6768;

const PLAIN: Header<'_> = Header::new(Mode::One, Topic::Number(7));

const ORIGIN: Origin<'_> = Origin { name: "sensor-1", epoch: Epoch(300), number: 41 };

/// Every field there is.
const FULL: Header<'_> = Header {
    mode: Mode::All,
    topic: Topic::Text("air/temp"),
    repeat: true,
    origin: Some(ORIGIN),
    hops: Some(3),
    ttl_ms: Some(60_000),
    age: Some(Age { ms: 1500, unknown: true }),
    born_ms: None,
};

const PAYLOAD: &[u8] = b"21.5";

/// Bytes by the name of their vector.
type Vectors = BTreeMap<String, Vec<u8>>;

fn add(vectors: &mut Vectors, name: &str, bytes: &[u8]) {
    let before = vectors.insert(name.into(), bytes.into());
    assert!(before.is_none(), "two vectors are called {name}");
}

fn encoded(body: &Body<'_>) -> Vec<u8> {
    let mut bytes = [0; 512];
    match wire::encode(body, &mut bytes) {
        Ok(len) => bytes[..len].to_vec(),
        Err(full) => panic!("{body:?}: {full}"),
    }
}

/// A vector that is made from a body, and becomes that body again.
fn add_body(vectors: &mut Vectors, name: &str, body: &Body<'_>) {
    let bytes = encoded(body);
    assert_eq!(wire::decode(&bytes), Ok(*body), "{name}");
    add(vectors, name, &bytes);
}

fn record_bytes(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = [0; 256];
    let len = match record {
        Record::Message { header, payload } => record::encode_message(header, payload, &mut bytes),
        Record::Gap { reason, count } => record::encode_gap(*reason, *count, &mut bytes),
    };
    let Some(len) = len else { panic!("{record:?} does not fit") };
    bytes[..len].to_vec()
}

fn add_record(vectors: &mut Vectors, name: &str, record: &Record<'_>) {
    let bytes = record_bytes(record);
    assert_eq!(record::decode(&bytes), Ok(*record), "{name}");
    add(vectors, name, &bytes);
}

fn add_message(vectors: &mut Vectors, name: &str, header: Header<'_>) {
    add_record(vectors, name, &Record::Message { header, payload: PAYLOAD });
}

fn add_frames(vectors: &mut Vectors) {
    let body = encoded(&Body::Close(Close { reason: CloseReason::Normal, text: "" }));
    let sealed = |session: SessionId| [&seal::seal(session, &[&body])[..], &body].concat();
    for (name, session) in [("seal.handshake", SessionId::HANDSHAKE), ("seal.session", SESSION)] {
        let frame = sealed(session);
        assert_eq!(seal::open(session, &frame), Ok(&body[..]));
        add(vectors, name, &frame);
    }
    let numbers = [DIALLER_NONCE.to_le_bytes(), LISTENER_NONCE.to_le_bytes()];
    let session = seal::checksum(SessionId::HANDSHAKE, &[&numbers[0], &numbers[1]]);
    add(vectors, "session", &session.to_le_bytes());

    let frame = sealed(SESSION);
    let Some(head) = length::head(frame.len()) else { panic!("{} bytes", frame.len()) };
    let link = [&head[..], &frame].concat();
    let split = length::split(&link, 192).ok().flatten().map(|split| split.frame);
    assert_eq!(split, Some(4..link.len()));
    add(vectors, "frame.length", &link);

    let mut line = [0; 64];
    let Some(len) = cobs::encode(&[&frame], &mut line) else { panic!("{frame:?} does not fit") };
    add(vectors, "frame.cobs", &line[..len]);
    let split = cobs::split(&mut line[..len], 192);
    assert_eq!(split, cobs::CobsSplit::Frame { frame: 0..frame.len(), consumed: len });
    assert_eq!(line[..frame.len()], frame);
}

fn add_handshake(vectors: &mut Vectors) {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        name: "sensor-1",
        instance: 9,
        nonce: DIALLER_NONCE,
        about: DEVICE,
    };
    let assigned = Assigned { outbox: Epoch(0x7172_7374_7576_7778), inbox: Epoch(0x8182_8384_8586_8788) };
    let answer = Answer {
        version: 1,
        echo: DIALLER_NONCE,
        name: "gateway",
        instance: 2,
        nonce: LISTENER_NONCE,
        about: HOST,
        stream: StreamFields { assigned: Some(assigned), ..KNOWN_STREAM },
    };
    add_body(vectors, "hello", &Body::Hello(hello));
    add_body(vectors, "answer", &Body::Answer(answer));
    add_body(vectors, "confirm", &Body::Confirm(Confirm { echo: LISTENER_NONCE, stream: KNOWN_STREAM }));
    add_body(vectors, "confirm.new", &Body::Confirm(Confirm { echo: LISTENER_NONCE, stream: NEW_STREAM }));
}

fn add_control(vectors: &mut Vectors) {
    let close = |reason, text| Body::Close(Close { reason, text });
    add_body(vectors, "close", &close(CloseReason::Unsupported, "tag 0x10"));
    add_body(vectors, "close.other", &close(CloseReason::Other(200), ""));
    let marks =
        Marks { received: 1000, acked: 900, messages_limit: 66_436, bytes_limit: 16_800_000, next: 42 };
    add_body(vectors, "marks", &Body::Marks(marks));
    let ack =
        Ack { received: 0x0102, bitmap: 0b101, acked_low: 0x0403_0201, window: 4, next_low: 0xffff_fffe };
    add_body(vectors, "ack", &Body::Ack(ack));
    add_body(vectors, "begin", &Body::Begin(Begin { number: 300 }));
    add_body(vectors, "greet", &Body::Greet);
    let mut begin = [0; 16];
    let Ok(len) = wire::encode(&Body::Begin(Begin { number: 300 }), &mut begin) else { panic!("no room") };
    add_body(vectors, "numbered", &Body::Numbered(Numbered { frame: 0x0102, body: &begin[..len] }));
    add_body(vectors, "fragment", &Body::Fragment(Fragment { left: 300, bytes: b"piece" }));
    add_body(vectors, "fragment.given-up", &Body::Fragment(Fragment { left: 0, bytes: b"" }));
    add_body(vectors, "bind", &Body::Bind(Bind { number: 300, text: "air/temp" }));
    add_body(vectors, "topic-full", &Body::TopicFull(TopicFull { topic: "air/temp", after: 129 }));
    add_body(vectors, "probe", &Body::Probe(Probe { number: 300 }));
    add_body(vectors, "echo", &Body::Echo(Echo { number: 300 }));
    add_body(vectors, "skipped", &Body::Skipped(0x80));

    let add = |topic, name, address| Row { change: Change::Add, topic, name, address, durable: true };
    add_page(
        vectors,
        "page",
        &[
            add("t", "a", "10.0.0.1:7420"),
            Row { change: Change::Remove, topic: "t", name: "b", address: "@b", durable: false },
        ],
    );
    let gone = Row { change: Change::Remove, ..add("", "d", "") };
    add_page(
        vectors,
        "page-of-others",
        &[add("", "a", "10.0.0.1:7420"), add("t", "c", "10.0.0.3:7420"), gone],
    );
}

fn add_page(vectors: &mut Vectors, name: &str, rows: &[Row<'_>]) {
    let mut bytes = [0; 128];
    let Ok(mut page) = PageBuilder::new(&mut bytes, 300) else { panic!("no room for a page") };
    assert!(rows.iter().all(|row| page.push(row)));
    let len = page.finish(true);
    let decoded = wire::decode(&bytes[..len]);
    let Ok(Body::Page(page)) = decoded else { panic!("{decoded:?}") };
    assert_eq!((page.version, page.last), (300, true));
    assert!(page.rows().eq(rows.iter().copied().map(Ok)));
    add_body(vectors, name, &Body::Page(page));
}

fn add_records(vectors: &mut Vectors) {
    add_message(vectors, "record.one", PLAIN);
    add_message(vectors, "record.all", Header { mode: Mode::All, ..PLAIN });
    add_message(vectors, "record.best-effort", Header { mode: Mode::BestEffort, ..PLAIN });
    add_message(vectors, "record.topic-number", Header { topic: Topic::Number(300), ..PLAIN });
    add_message(vectors, "record.topic-text", Header { topic: Topic::Text("air/temp"), ..PLAIN });
    add_message(vectors, "record.repeat", Header { repeat: true, ..PLAIN });
    add_message(vectors, "record.origin", Header { origin: Some(ORIGIN), ..PLAIN });
    add_message(vectors, "record.hops", Header { hops: Some(3), ..PLAIN });
    add_message(vectors, "record.ttl", Header { ttl_ms: Some(60_000), ..PLAIN });
    add_message(vectors, "record.age", Header { age: Some(Age { ms: 1500, unknown: false }), ..PLAIN });
    add_message(vectors, "record.age-unknown", Header { age: Some(Age { ms: 0, unknown: true }), ..PLAIN });
    add_message(vectors, "record.born", Header { born_ms: Some(1_700_000_000_000), ..PLAIN });
    add_message(vectors, "record.full", FULL);
    for (name, reason, count) in [
        ("record.gap.dropped", GapReason::Dropped, 1),
        ("record.gap.crashed", GapReason::Crashed, 65_536),
        ("record.gap.corrupt", GapReason::Corrupt, 1),
        ("record.gap.expired", GapReason::Expired, 2),
        ("record.gap.cleared", GapReason::Cleared, 300),
        ("record.gap.missing", GapReason::Missing, 1),
        ("record.gap.too-large", GapReason::TooLarge, 1),
        ("record.gap.restarted", GapReason::Restarted, 7),
        ("record.gap.in-doubt", GapReason::InDoubt, 3),
    ] {
        add_record(vectors, name, &Record::Gap { reason, count });
    }
}

fn add_carriers(vectors: &mut Vectors) {
    let records = [
        Record::Message { header: PLAIN, payload: PAYLOAD },
        Record::Gap { reason: GapReason::Expired, count: 2 },
        Record::Message { header: FULL, payload: PAYLOAD },
    ];
    let mut run = Vec::new();
    for record in &records {
        let bytes = record_bytes(record);
        run.push(bytes.len() as u8);
        run.extend(bytes);
    }
    for (name, sent_before, added_age_ms) in [("batch", false, None), ("batch.aged", true, Some(250))] {
        let head = BatchHead { sent_before, first: 300, last: 303, added_age_ms };
        let batch = Batch { head, run: &run };
        let read: Vec<_> = batch.records().map(|item| item.map(|item| (item.first, item.record))).collect();
        assert_eq!(read, [Ok((300, records[0])), Ok((301, records[1])), Ok((303, records[2]))]);
        add_body(vectors, name, &Body::Batch(batch));
    }
    for (name, record, sent_before) in [
        ("data.message", &records[0], false),
        ("data.gap", &records[1], false),
        ("data.aged", &records[2], true),
    ] {
        let bytes = record_bytes(record);
        let head = DataHead { sent_before, frame: 0x0203, added_age_ms: 250 };
        let Some(parts) = head.encode(&bytes) else { panic!("{record:?} is no record") };
        let body = parts.slices().concat();
        let decoded = wire::decode(&body);
        let Ok(Body::Data(data)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((data.sent_before, data.frame), (sent_before, 0x0203));
        assert_eq!(data.record.decode(), Ok(*record));
        assert_eq!(data.added_age_ms, (name == "data.aged").then_some(250));
        add_body(vectors, name, &Body::Data(data));
    }
}

/// A message without a number.
fn add_best_effort(vectors: &mut Vectors) {
    let record = Record::Message { header: Header { mode: Mode::BestEffort, ..PLAIN }, payload: PAYLOAD };
    let bytes = record_bytes(&record);
    let head = DataHead { sent_before: false, frame: 0, added_age_ms: 0 };
    let Some(parts) = head.encode(&bytes) else { panic!("{record:?} is no record") };
    let body = parts.slices().concat();
    let decoded = wire::decode(&body);
    let Ok(Body::Data(data)) = decoded else { panic!("{decoded:?}") };
    assert_eq!((data.record.decode(), data.frame), (Ok(record), 0));
    add_body(vectors, "data.best-effort", &Body::Data(data));
}

/// Tags that only have a name so far.
fn add_reserved(vectors: &mut Vectors) {
    for (name, tag) in [
        ("reserved.call", tag::CALL),
        ("reserved.reply", tag::REPLY),
        ("reserved.stream", tag::STREAM),
        ("reserved.seal-handshake", tag::SEAL_HANDSHAKE),
    ] {
        assert_eq!(wire::decode(&[tag]), Err(DecodeError::Unsupported(tag)));
        add(vectors, name, &[tag]);
    }
}

fn vectors() -> Vectors {
    let mut vectors = Vectors::new();
    add_frames(&mut vectors);
    add_handshake(&mut vectors);
    add_control(&mut vectors);
    add_records(&mut vectors);
    add_carriers(&mut vectors);
    add_best_effort(&mut vectors);
    add_reserved(&mut vectors);
    vectors
}

/// The lines of all blocks that are marked as golden.
fn parse(document: &str) -> Result<Vectors, String> {
    let mut vectors = Vectors::new();
    let mut golden = false;
    for line in document.lines() {
        if line.starts_with("```") {
            golden = line == "```golden";
            continue;
        }
        if !golden {
            continue;
        }
        let (name, hex) = line.split_once(": ").ok_or_else(|| format!("no vector: {line}"))?;
        let bytes = from_hex(hex).ok_or_else(|| format!("no bytes: {line}"))?;
        if vectors.insert(name.into(), bytes).is_some() {
            return Err(format!("twice: {name}"));
        }
    }
    Ok(vectors)
}

/// Digits of whole bytes, with blanks between the bytes where the author wants them.
fn from_hex(hex: &str) -> Option<Vec<u8>> {
    hex.split(' ')
        .flat_map(|group| group.as_bytes().chunks(2))
        .map(|pair| match pair {
            [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
            _ => None,
        })
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is wrong with a document, in the form in which it would be right.
fn complaints(document: &str) -> Vec<String> {
    let written = match parse(document) {
        Ok(written) => written,
        Err(error) => return vec![error],
    };
    let made = vectors();
    let names: BTreeSet<&String> = written.keys().chain(made.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (written.get(name), made.get(name)) {
            (Some(written), Some(made)) if written == made => None,
            (_, Some(made)) => Some(format!("{name}: {}", to_hex(made))),
            (_, None) => Some(format!("{name}: has no test")),
        })
        .collect()
}

#[test]
fn the_document_holds_every_vector() {
    let complaints = complaints(DOCUMENT);
    assert!(complaints.is_empty(), "docs/PROTOCOL.md should say:\n{}", complaints.join("\n"));
}

#[test]
fn a_wrong_document_is_found() {
    assert_eq!(complaints("").len(), vectors().len());
    let with = |line: &str| complaints(&format!("{DOCUMENT}\n```golden\n{line}\n```\n"));
    assert_eq!(with("no.such: 00"), ["no.such: has no test"]);
    assert_eq!(with("marks: 05"), ["twice: marks"]);
    assert_eq!(with("odd: 000"), ["no bytes: odd: 000"]);
    assert_eq!(with("words"), ["no vector: words"]);
    let line = DOCUMENT.lines().find(|line| line.starts_with("close: "));
    let damaged = DOCUMENT.replace(line.unwrap(), "close: 04 03 00");
    assert_eq!(complaints(&damaged), [format!("close: {}", to_hex(&vectors()["close"]))]);
    let removed = DOCUMENT.replace(line.unwrap(), "");
    assert_eq!(complaints(&removed), ["no vector: "]);
}

#[test]
fn every_tag_has_a_vector() {
    const TAGS: [RangeInclusive<u8>; 4] = [
        tag::HELLO..=tag::ECHO,
        tag::CALL..=tag::FRAGMENT,
        tag::DATA_FIRST..=tag::DATA_FIRST,
        tag::SKIPPABLE_FIRST..=tag::SKIPPABLE_FIRST,
    ];
    let bodies = vectors();
    let seen: BTreeSet<u8> = bodies
        .iter()
        .filter(|(name, _)| {
            !["record", "frame", "seal", "session"].iter().any(|other| name.starts_with(other))
        })
        .filter_map(|(_, bytes)| bytes.first().copied())
        .collect();
    for tag in TAGS.into_iter().flatten() {
        assert!(seen.contains(&tag), "no vector begins with {tag:#04x}");
    }
    // The list above is whole: no other tag means anything below those that may be skipped.
    for tag in (0..tag::SKIPPABLE_FIRST).filter(|tag| !seen.contains(tag)) {
        let data = (tag::DATA_FIRST..=tag::DATA_LAST).contains(&tag);
        assert_eq!(
            wire::decode(&[tag]),
            Err(if data { DecodeError::Truncated } else { DecodeError::Unsupported(tag) })
        );
    }
}

#[test]
fn every_form_of_a_record_has_a_vector() {
    let records: Vec<Vec<u8>> = vectors()
        .into_iter()
        .filter(|(name, _)| name.starts_with("record."))
        .map(|(_, bytes)| bytes)
        .collect();
    let kinds: BTreeSet<u8> = records.iter().map(|bytes| bytes[0] & 3).collect();
    assert_eq!(kinds.len(), 4);
    let flags = records.iter().fold(0, |flags, bytes| flags | bytes[0]);
    assert_eq!(flags, 0x5f, "every flag but the one of lossy lines");
    let further = records.iter().filter(|bytes| bytes[0] & 8 != 0).fold(0, |flags, bytes| flags | bytes[1]);
    assert_eq!(further, 0x3f);
    assert_eq!(
        record::decode(&[0x48, 0x40, 0]),
        Err(DecodeError::Unsupported(0x40)),
        "a flag that is not in the list"
    );
    let gaps: BTreeSet<u8> = records.iter().filter(|bytes| bytes[0] & 3 == 3).map(|bytes| bytes[1]).collect();
    let reasons: BTreeSet<u8> =
        (0..=u8::MAX).filter(|&number| GapReason::from_number(number).is_some()).collect();
    assert_eq!(gaps, reasons);
}
