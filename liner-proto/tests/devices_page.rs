//! The figures of `docs/devices.md` are those of the code.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use liner_proto::config::LineConfig;
use liner_proto::endpoint::{DeviceConfig, Endpoint, LentEndpoint, SendError, TopicIndex};
use liner_proto::pump::{self, Overflow, Port};
use liner_proto::time::Instant;

mod nodes;
use nodes::Node;

const PAGE: &str = include_str!("../../docs/devices.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

/// The sizes of the page's examples.
type Device = Endpoint<'static, 4096, 256>;

fn device() -> Device {
    Device::new(DeviceConfig::new("press-4", &["readings"], [1, 2]), Instant::ZERO)
}

fn send(device: &mut Device, len: usize) -> Result<u64, SendError> {
    let payload = vec![7; len];
    pump::send(device, nodes::NOW, (TopicIndex(0), &payload), Overflow::Refuse)
}

/// Numbers of each row of the table below a header that begins so. The bars between them are of no interest here.
fn rows(header: &str) -> Vec<Vec<usize>> {
    let table = PAGE.split(header).nth(1).expect("the page has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').filter_map(|cell| digits(cell).parse().ok()).collect()).collect()
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// The bytes that a message takes on the line, in a session.
fn on_the_line(len: usize) -> usize {
    let mut device = device();
    let mut gateway = Node::start("gateway", |config| config.takes_custody = true);
    let conn = gateway.router.handle_line(gateway.now, LineConfig::default());
    let turn = |device: &mut Device, gateway: &mut Node, received: &[u8]| {
        let mut scratch = [0; 512];
        let (bytes, _) = pump::turn(device, gateway.now, received, &mut scratch, |_| {});
        gateway.take(conn, bytes.to_vec());
        gateway.serve();
        (bytes.len(), gateway.give(conn))
    };
    let mut answer = Vec::new();
    for _ in 0..10 {
        (_, answer) = turn(&mut device, &mut gateway, &answer);
    }
    assert!(device.is_up());
    // The first message of a session comes behind a frame that says its number.
    device.send(gateway.now, TopicIndex(0), b"first").expect("room");
    for _ in 0..10 {
        (_, answer) = turn(&mut device, &mut gateway, &answer);
    }
    let payload = vec![7; len];
    device.send(gateway.now, TopicIndex(0), &payload).expect("room");
    turn(&mut device, &mut gateway, &answer).0
}

#[test]
fn a_message_takes_as_many_bytes_as_the_page_says() {
    let rows = rows("| payload | bytes on the line |");
    assert!(rows.len() > 3, "{rows:?}");
    for row in rows {
        let &[payload, bytes, share, slow, fast] = &row[..] else {
            panic!("{row:?} is no row of that table")
        };
        assert_eq!(bytes, on_the_line(payload), "for {payload} bytes");
        assert_eq!(share, payload * 100 / bytes, "for {payload} bytes");
        assert_eq!((slow, fast), (960 / bytes, 11_520 / bytes), "for {payload} bytes");
    }
}

#[test]
fn noise_costs_what_the_page_says() {
    let rows = rows("| bit errors | payload that gets most through |");
    assert_eq!(rows.len(), 3);
    for row in rows {
        let &[one_in, best, lost] = &row[..] else { panic!("{row:?} is no row of that table") };
        // "1 in" brings a digit of its own.
        let errors = one_in.to_string()[1..].parse::<f64>().expect("digits");
        let through =
            |payload: f64| payload / (payload + 10.0) * (1.0 - 1.0 / errors).powf(10.0 * (payload + 10.0));
        let best = best as f64;
        assert!(through(best) > through(best * 1.2) && through(best) > through(best / 1.2), "{row:?}");
        let exact = 1.0 - (1.0 - 1.0 / errors).powf(2100.0);
        let exact = if exact > 0.1 { exact * 100.0 } else { exact * 1000.0 };
        assert_eq!(lost, exact.round() as usize, "{row:?}");
    }
}

#[test]
fn buffers_hold_what_the_page_says() {
    let mut one = device();
    let held = (0..).take_while(|_| send(&mut one, 16).is_ok()).count();
    assert!(PAGE.contains(&format!("`Endpoint<4096, …>` holds {held},")), "it holds {held}");

    let mut one = device();
    assert!(PAGE.contains("`FRAME` less 14 bytes of payload"));
    assert_eq!(send(&mut one, 256 - 13), Err(SendError::TooLarge));
    assert_eq!(send(&mut one, 256 - 14), Ok(1));
    assert!(PAGE.contains(&format!("{} bytes for a `FRAME` of 256", Device::TRANSMIT_MIN)));
}

/// How many messages of `len` bytes have room.
fn held<const QUEUE: usize>(len: usize) -> usize {
    let config = DeviceConfig::new("press-4", &["readings"], [1, 2]);
    let mut device = Endpoint::<QUEUE, 256>::new(config, Instant::ZERO);
    let payload = vec![7; len];
    let mut send = || pump::send(&mut device, nodes::NOW, (TopicIndex(0), &payload), Overflow::Refuse);
    (0..).take_while(|_| send().is_ok()).count()
}

/// The bytes that so many messages of one length take, and how many have room in them, and in one byte less.
macro_rules! queue {
    ($len:literal, $count:literal) => {{
        const BYTES: usize = ($len + if $len < 128 { 2 } else { 3 }) * $count;
        [$len, $count, BYTES, held::<BYTES>($len), held::<{ BYTES - 1 }>($len)]
    }};
}

/// What an endpoint takes beside its buffers on processors of 32 bits, as `scripts/sizes` has written it.
fn fixed_bytes() -> usize {
    let rows = PAGE.lines().filter(|line| line.contains("-none-") && line.contains("| device |"));
    let last = |row: &str| row.split('|').rev().nth(1).and_then(|cell| cell.trim().parse().ok());
    let bytes: Vec<usize> = rows.filter_map(last).collect();
    assert!(bytes.len() > 2 && bytes.iter().all(|each| *each == bytes[0]), "{bytes:?}");
    bytes[0]
}

/// What an endpoint takes in all.
const fn whole_endpoint(fixed: usize, queue: usize, frame: usize) -> usize {
    (fixed + queue + frame).next_multiple_of(8)
}

/// What a port that reads 32 bytes at once takes beside its driver, where a pointer has so many bytes.
const fn whole_port(out: usize, pointer: usize) -> usize {
    (2 * pointer + out + 32 + 1).next_multiple_of(pointer)
}

#[test]
fn memory_is_what_the_page_says() {
    // What holds for this processor but for the size of a pointer holds for those of 32 bits, too.
    let fixed = size_of::<Endpoint<'static, 512, 256>>() - 512 - 256;
    assert_eq!(size_of::<Endpoint<'static, 96, 194>>(), whole_endpoint(fixed, 96, 194));
    assert_eq!(size_of::<Device>(), whole_endpoint(fixed, 4096, 256));
    assert_eq!(size_of::<Port<(), 196>>(), whole_port(196, size_of::<usize>()));
    assert_eq!(size_of::<Port<(), 260>>(), whole_port(260, size_of::<usize>()));
    // Where the queue's bytes are in it, this one has a reference to them.
    let lent = size_of::<LentEndpoint<'static, 4096, 256>>() + 4096;
    assert!((size_of::<Device>()..=size_of::<Device>() + 8).contains(&lent), "{lent}");

    let queues = [
        queue!(4, 16),
        queue!(4, 64),
        queue!(4, 256),
        queue!(16, 16),
        queue!(16, 64),
        queue!(16, 256),
        queue!(64, 16),
        queue!(64, 64),
        queue!(64, 256),
        queue!(200, 16),
        queue!(200, 64),
        queue!(200, 256),
    ];
    let out = [Endpoint::<'static, 512, 194>::TRANSMIT_MIN, Device::TRANSMIT_MIN];
    let mut wanted: Vec<Vec<usize>> = Vec::new();
    for [len, count, bytes, fit, fit_less] in queues {
        assert_eq!((fit, fit_less), (count, count - 1), "{len} bytes each");
        let whole = |frame, out| whole_endpoint(fixed_bytes(), bytes, frame) + whole_port(out, 4);
        let short = (len <= 194 - 14).then(|| whole(194, out[0]));
        wanted.push([len, count, bytes].into_iter().chain(short).chain([whole(256, out[1])]).collect());
    }
    assert_eq!(rows("| payload | messages held |"), wanted, "the second ones are what should stand there");
}

#[test]
fn rings_hold_what_comes_meanwhile() {
    let rows = rows("| baud | 1 ms |");
    assert_eq!(rows.len(), 4);
    for row in rows {
        let wanted = [1, 10, 22, 100].map(|millis| (row[0] * millis).div_ceil(10_000));
        assert_eq!(row[1..], wanted, "at {} baud", row[0]);
    }
}

#[test]
fn blocks_that_no_compiler_sees_are_few_and_name_what_there_is() {
    let mut languages: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("```")).collect();
    languages.retain(|language| !language.is_empty() && *language != "rust");
    // What is for a shell is compared with the command by the tests of `liner`; text is drawings.
    languages.retain(|language| !matches!(*language, "sh" | "text"));
    assert_eq!(languages, ["toml"]);
    assert!(PAGE.contains("features = [\"embedded-io\"]") && MANIFEST.contains("\nembedded-io = ["));
}
