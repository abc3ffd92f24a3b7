//! The gateway is away for longer than the RAM holds: the oldest messages make room, and the gap is told with the right count. The
//! main loop keeps its time all the while.

use std::collections::HashMap;

use readings::{Command, MESSAGE_MAX, Report};

use super::lives::Lives;
use super::machine::Bench;
use super::{subscriber, tell};
use crate::line::reboots::wait_until;
use crate::process::Liner;

/// Bytes that the firmware has for messages, and what each message takes beside its payload.
const QUEUE: usize = 4096;
const HEAD: usize = 2;

/// What may be left over: none is divided, and one that is dropped makes more room than the next one needs.
const LEFT_OVER: usize = 3 * (MESSAGE_MAX + HEAD);

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
    let mut bench = Bench::paced(program);
    let gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    bench.power();
    let mut lives = Lives::default();
    lives.take_some(&sub, 1, 1);
    let often = Command::SetPeriod(5);
    tell(bench.folder.path(), &bench.peers, often);
    lives.take_until(&sub, |lives| !lives.now().executions(often).is_empty());

    // What had to wait for the gateway's start is not to be part of the gap.
    let mut before = 0;
    lives.take_until(&sub, |lives| {
        before = bench.machine().queued();
        before <= lives.now().last() + UNDER_WAY
    });
    gateway.kill();
    wait_until("it is alone for long", || bench.machine().queued() >= before + MANY);
    let gateway = bench.gateway();
    let at_least = bench.machine().queued();
    // While RAM is still full, there may be another small gap. Behind the last one comes what had filled it.
    let (mut holes, mut at_most) = (0, at_least);
    lives.take_until(&sub, |lives| {
        let now = lives.now().missing().len();
        if now > holes {
            (holes, at_most) = (now, bench.machine().queued());
        }
        holes > 0 && lives.now().last() > at_most
    });
    tell(bench.folder.path(), &bench.peers, Command::ReadNow);
    lives.take_until(&sub, |lives| lives.now().health().is_some());

    let life = lives.now();
    let missing = life.missing();
    let [gap, ..] = &missing[..] else { panic!("nothing is missing") };
    assert!(
        before <= gap.start() + UNDER_WAY && *gap.end() < at_most,
        "{missing:?}, from {before} to {at_most}"
    );
    let gone = missing.iter().map(|gap| gap.end() - gap.start() + 1).sum();
    assert_eq!(gaps(&gateway, gone), HashMap::from([("dropped".to_owned(), gone)]));
    let Some(Report::Health { longest_turn, dropped, .. }) = life.health() else { unreachable!() };
    // What had arrived, and was not acknowledged yet, is dropped like the rest, and is not missing.
    assert!(u64::from(dropped) >= gone, "{gone} are missing, {dropped} were dropped");
    // What was kept had filled the RAM: as many as fit behind the gap, and no more.
    let gone_last = *missing[holes - 1].end();
    let first = life.numbers.iter().position(|number| *number > gone_last).unwrap();
    let through = |last: u64| -> usize {
        let kept = life.numbers[first..].iter().zip(&life.lens[first..]);
        kept.take_while(|(number, _)| **number <= last).map(|(_, len)| len + HEAD).sum()
    };
    let bytes = through(at_least);
    assert!(bytes <= QUEUE, "{bytes} bytes were kept");
    assert!(through(at_most) >= QUEUE - LEFT_OVER, "{} bytes were kept", through(at_most));
    println!("{program}: {gone} dropped, {bytes} bytes kept, the longest turn took {longest_turn} cycles");
    assert!(longest_turn <= LONGEST_TURN, "a turn took {longest_turn} cycles");
}
