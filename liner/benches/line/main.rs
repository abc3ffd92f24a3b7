//! How much of a throttled line with bit errors arrives as payload: device, relay, gateway, subscriber.
//!
//! ```text
//! cargo bench -p liner --bench line                    1,000 messages each, about a minute
//! cargo bench -p liner --bench line -- 10000           more of them
//! ```
//!
//! * **Line rate**: payload bytes a second if the line did nothing but carry the frames of the messages, one behind the other:
//!   `baud / 10 × P / W`. `P` is a message's payload; `W` are the bytes that its frame takes on the line with its head, its
//!   seal, its stuffing and its delimiter: the commonest length among the frames that the relay saw.
//! * **Frame error rate**: `1 − (1 − e)^(8 W)`, for a bit error rate `e`: the share of frames with a bit that is turned.
//! * **Goodput**: payload bytes that the subscriber was given, once and in order, a second, from one message on, when the start
//!   is over, to the last.
//! * **Share**: goodput / ((1 − frame error rate) × line rate). At least 85 % of it is wanted at `e` = 1e-5.
//!
//! `LINER_E2E_LINE` says what the line is made of, `LINER_E2E_SEED` where the errors come from: see the tests `line::`. It ends
//! with 1 if the share is too small.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and ends where its premise fails"
)]

#[path = "../../tests/command/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest of it")]
mod process;
#[path = "../../tests/command/line/setup.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod setup;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use liner_tests::relay::Rates;

use setup::{BAUD, DEVICE, Line};

/// Of the goodput that the errors leave possible.
const WANTED: f64 = 0.85;
/// The bit error rate at which that is wanted.
const ERRORS: f64 = 1e-5;
/// Messages that are not counted: the handshake, and the first estimate of the time for a round trip.
const START: u64 = 100;

fn main() -> ExitCode {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let count = asked.unwrap_or(1_000_u64).max(2 * START);
    let seed = std::env::var("LINER_E2E_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("{:?}, {BAUD} baud, {count} messages, seed {seed}", setup::Kind::asked());
    println!("payload  frame  bit errors  frame errors  line rate  goodput  share");
    let mut enough = true;
    for payload in [16, 64, 200] {
        for errors in [0.0, ERRORS] {
            let share = measure(payload, errors, count, seed);
            enough &= errors == 0.0 || share >= WANTED;
        }
    }
    println!("{} % at {ERRORS:e} {}", WANTED * 100.0, if enough { "or more each time" } else { "missed" });
    if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures one kind of message, and says its share.
fn measure(payload: usize, errors: f64, count: u64, seed: u64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let rates = Rates { bit_errors: errors, ..Rates::NONE };
    let line = Line::new(folder.path(), seed, rates, Some(BAUD));
    let (_gateway, sub, mut device) = (line.gateway(), line.subscriber(), line.device());
    let mut stdin = device.stdin();
    let feeder = std::thread::spawn(move || {
        for n in 1..=count {
            writeln!(stdin, "{n:0payload$}").unwrap();
        }
    });
    let mut begun = Instant::now();
    for n in 1..=count {
        assert_eq!(sub.json()["payload"], format!("{n:0payload$}"));
        if n == START {
            begun = Instant::now();
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    feeder.join().unwrap();
    let frame = commonest_frame(&line.relay.recent(DEVICE).unwrap());
    assert_eq!(device.end().code, Some(0));

    let (payload, goodput) = (payload as f64, payload as f64 * (count - START) as f64 / seconds);
    let line_rate = f64::from(BAUD) / 10.0 * payload / frame as f64;
    let frame_errors = 1.0 - (1.0 - errors).powf(8.0 * frame as f64);
    let share = goodput / ((1.0 - frame_errors) * line_rate);
    println!(
        "{payload:7}  {frame:5}  {errors:10e}  {:10.2} %  {line_rate:7.0} B  {goodput:5.0} B  {:3.0} %",
        frame_errors * 100.0,
        share * 100.0
    );
    share
}

/// The commonest length of the frames in these bytes, delimiter included.
fn commonest_frame(bytes: &[u8]) -> usize {
    let mut lengths = BTreeMap::new();
    for frame in bytes.split(|&byte| byte == 0).filter(|frame| !frame.is_empty()) {
        *lengths.entry(frame.len() + 1).or_insert(0_u32) += 1;
    }
    lengths.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(length, _)| length)
}
