//! The firmware breaks down in every way that it knows: it starts again by itself, and says why. What it has measured of itself then
//! goes into the table of sizes.

use std::fs;

use liner_tests::relay::Rates;
use readings::{Breakdown, Command, Report, Reset};

use super::lives::Lives;
use super::machine::{Bench, program};
use super::{subscriber, tell};
use crate::line::seed;

/// The most bytes of stack that were promised.
pub(super) const STACK_MAX: u32 = 1536;

/// More messages than RAM holds.
const HELD_MAX: u64 = 600;

/// Some faults on the line, so that everything in the firmware that deals with these is at work, too.
const BAD: Rates = Rates { bit_errors: 1e-5, frame_faults: 0.06, cut_every: 4_000, ..Rates::NONE };

#[test]
fn a_polled_microcontroller_starts_again_and_says_why() {
    break_down("polled");
}

#[test]
fn a_polled_microcontroller_with_flash_starts_again_and_says_why() {
    break_down("polled-flash");
}

#[test]
fn a_microcontroller_with_interrupts_starts_again_and_says_why() {
    break_down("interrupt");
}

#[test]
fn a_microcontroller_with_interrupts_and_flash_starts_again_and_says_why() {
    break_down("interrupt-flash");
}

fn break_down(name: &str) {
    let mut bench = Bench::new(name, seed(), BAD);
    let _gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    bench.power();
    let mut lives = Lives::default();
    lives.take_some(&sub, 1, 1);
    assert_eq!(lives.now().started().1, Reset::Power);
    for (life, breakdown) in (1..).zip([Breakdown::Panic, Breakdown::Fault, Breakdown::Hang]) {
        if breakdown == Breakdown::Hang {
            bench.machine().wake_watchdog();
        }
        tell(bench.folder.path(), &bench.peers, Command::Break(breakdown));
        lives.take_some(&sub, life + 1, 1);
        let (start, reset, before) = lives.now().started();
        let is_so = match reset {
            Reset::Panic { line } => breakdown == Breakdown::Panic && line > 0,
            // Behind the vectors, in code.
            Reset::Fault { address } => breakdown == Breakdown::Fault && (64..32 * 1024).contains(&address),
            Reset::Watchdog => breakdown == Breakdown::Hang,
            Reset::Power | Reset::Asked => false,
        };
        assert!(is_so, "{breakdown:?}: {reset:?}");
        let starts = if name.ends_with("-flash") { life as u32 + 1 } else { 0 };
        assert_eq!(start, starts);
        // Most often all of them had arrived, as the device has some time for that; but a cut may take longer.
        let last = lives.0[life - 1].last();
        assert!((last..=last + HELD_MAX).contains(&u64::from(before)), "{before} were queued, {last} came");
        assert_eq!(lives.0[life - 1].missing(), []);
    }
    tell(bench.folder.path(), &bench.peers, Command::ReadNow);
    lives.take_until(&sub, |lives| lives.now().health().is_some());
    let Some(Report::Health { stack, .. }) = lives.now().health() else { unreachable!() };
    println!("{name}: {stack} bytes of stack");
    assert!((256..=STACK_MAX).contains(&stack), "{stack} bytes of stack were in use");
    fs::write(program(&format!("{name}.stack")), stack.to_string()).unwrap();
    tell(bench.folder.path(), &bench.peers, Command::Stop);
    assert_eq!(bench.end().code(), Some(0));
}

#[test]
fn a_command_that_is_too_old_is_not_executed_and_told() {
    let mut bench = Bench::new("polled", seed(), Rates::NONE);
    let _gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    // It is known, and its commands wait.
    let old = Command::SetPeriod(1234);
    super::tell_with(bench.folder.path(), &bench.peers, old, &["--ttl", "1ms"]);
    let other = Command::SetPeriod(25);
    tell(bench.folder.path(), &bench.peers, other);
    bench.power();
    let mut lives = Lives::default();
    lives.take_until(&sub, |lives| lives.0.last().is_some_and(|life| !life.executions(other).is_empty()));
    assert!(lives.now().executions(old).is_empty());
    assert!(lives.now().reports.contains(&Report::Missed { commands: 1 }), "{:?}", lives.now().reports);
}

#[test]
fn a_flash_that_was_never_finished_is_made_anew() {
    let mut bench = Bench::new("polled-flash", seed(), Rates::NONE);
    fs::write(bench.folder.path().join("flash.bin"), [0xff; 1500]).unwrap();
    bench.power();
    let _gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    let mut lives = Lives::default();
    lives.take_some(&sub, 1, 1);
    assert_eq!(lives.now().started(), (1, Reset::Power, 0));
}
