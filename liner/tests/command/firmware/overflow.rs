//! The gateway is away for longer than the RAM holds: the oldest messages make room, and the gap is told with the right count. The
//! main loop keeps its time all the while.

use std::collections::HashMap;

use liner_tests::relay::Rates;
use readings::{Command, Report};

use super::lives::Lives;
use super::machine::Bench;
use super::{subscriber, tell};
use crate::line::reboots::wait_until;
use crate::line::seed;
use crate::process::Liner;

/// Bytes that the firmware has for messages, and what each message takes beside its payload.
const QUEUE: usize = 4096;
const HEAD: usize = 2;

/// More messages than RAM holds, by far.
const MANY: u64 = 1_000;

/// Messages that may be under way.
const UNDER_WAY: u64 = 16;

/// The longest turn of the main loop: 5 ms of a clock of 12.5 MHz.
pub(super) const LONGEST_TURN: u32 = 5 * 12_500;

#[test]
fn a_polled_microcontroller_drops_its_oldest_messages_and_says_how_many() {
    overflow("polled");
}

#[test]
fn a_microcontroller_with_interrupts_drops_its_oldest_messages_and_says_how_many() {
    overflow("interrupt");
}

/// The messages that the gateway says will not come, by the reasons.
fn gaps(gateway: &Liner, until: u64) -> HashMap<String, u64> {
    let mut gaps = HashMap::new();
    while gaps.values().sum::<u64>() < until {
        let line = gateway.json();
        if line["event"] == "gap" {
            assert_eq!(line["from"], "press-1", "{line}");
            *gaps.entry(line["reason"].as_str().unwrap().to_owned()).or_default() +=
                line["count"].as_u64().unwrap();
        }
    }
    gaps
}

fn overflow(program: &str) {
    let mut bench = Bench::new(program, seed(), Rates::NONE);
    let gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    let mut lives = Lives::default();
    lives.take_some(&sub, 1, 1);
    let often = Command::SetPeriod(5);
    tell(bench.folder.path(), &bench.peers, often);
    lives.take_until(&sub, |lives| !lives.now().executions(often).is_empty());

    gateway.kill();
    let before = bench.machine().queued();
    wait_until("it is alone for long", || bench.machine().queued() >= before + MANY);
    let gateway = bench.gateway();
    let at_least = bench.machine().queued();
    lives.take_until(&sub, |lives| lives.now().last() > at_least);
    tell(bench.folder.path(), &bench.peers, Command::ReadNow);
    lives.take_until(&sub, |lives| lives.now().health().is_some());

    let life = lives.now();
    let missing = life.missing();
    let [gap] = &missing[..] else { panic!("not one gap: {missing:?}") };
    let gone = gap.end() - gap.start() + 1;
    assert!(
        before <= gap.start() + UNDER_WAY && *gap.end() < at_least,
        "{gap:?}, from {before} to {at_least}"
    );
    assert_eq!(gaps(&gateway, gone), HashMap::from([("dropped".to_owned(), gone)]));
    let Some(Report::Health { longest_turn, dropped, .. }) = life.health() else { unreachable!() };
    // What had arrived, and was not acknowledged yet, is dropped like the rest, and is not missing.
    assert!(u64::from(dropped) >= gone, "{gone} are missing, {dropped} were dropped");
    // What was kept had filled the RAM: as many as fit behind the gap, and no more.
    let first = life.numbers.iter().position(|number| number > gap.end()).unwrap();
    let kept =
        life.numbers[first..].iter().zip(&life.lens[first..]).take_while(|(number, _)| **number <= at_least);
    let bytes: usize = kept.map(|(_, len)| len + HEAD).sum();
    assert!(bytes <= QUEUE, "{bytes} bytes were kept");
    println!("{program}: {gone} dropped, {bytes} bytes kept, the longest turn took {longest_turn} cycles");
    assert!(longest_turn <= LONGEST_TURN, "a turn took {longest_turn} cycles");
}
