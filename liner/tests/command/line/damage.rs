//! Nothing is lost, damaged or repeated, whatever the line does, also while the gateway is killed again and again.

use liner_tests::relay::Rates;

use super::setup::{Arrivals, Feeder, Line};
use super::{asked, seed};
use crate::process::Liner;

/// One byte in ten thousand is damaged, one read in a hundred loses or gains bytes, and the line is cut all 30 KB; there are
/// stalls, too.
const BAD: Rates = Rates {
    bit_errors: 1e-4 / 8.0,
    read_faults: 0.01,
    cut_every: 30_000,
    stall_every: 200_000,
    ..Rates::NONE
};

fn messages() -> u64 {
    asked("LINER_E2E_LINE_MESSAGES", 2_000)
}

/// That the line was as bad as it was meant to be: the bytes of one direction have met every kind of fault.
fn was_bad(line: &Line) {
    let counters = line.relay.counters().unwrap();
    let damage = counters.from_a.damage;
    let each = [damage.flipped, damage.lost, damage.inserted, damage.cuts];
    assert!(each.iter().all(|count| *count > 0), "{counters}");
    // There is little on the way back: of a short run it may all have come through.
    let back = counters.from_b.damage;
    let faults = back.flipped + back.lost + back.inserted;
    assert!(faults > 0 || back.bytes < 40_000, "the way back was good: {counters}");
}

fn ends_well(device: Liner, sub: &Liner) {
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(sub.line_now().is_none(), "more arrived than was sent");
}

#[test]
fn a_bad_line_loses_damages_and_repeats_nothing() {
    let (folder, seed, count) = (tempfile::tempdir().unwrap(), seed(), messages());
    let line = Line::new(folder.path(), seed, BAD, None);
    let (_gateway, sub, mut device) = (line.gateway(), line.subscriber(), line.device());
    let feeder = Feeder::start(device.stdin(), seed, 0, count);
    Arrivals::new(seed).take_until(&sub, count);
    assert_eq!(feeder.end(), count);
    ends_well(device, &sub);
    println!("{count} messages: {line}");
    was_bad(&line);
}

#[test]
fn a_gateway_that_is_killed_on_a_bad_line_loses_and_repeats_nothing() {
    let (folder, seed, count) = (tempfile::tempdir().unwrap(), seed(), messages());
    let kills = asked("LINER_E2E_LINE_KILLS", 3);
    let line = Line::new(folder.path(), seed, BAD, None);
    let (mut gateway, sub, mut device) = (line.gateway(), line.subscriber(), line.device());
    let feeder = Feeder::start(device.stdin(), seed, 0, count);
    let mut arrivals = Arrivals::new(seed);
    for kill in 1..=kills {
        arrivals.take_until(&sub, count * kill / (kills + 1));
        gateway.kill();
        gateway = line.gateway();
    }
    arrivals.take_until(&sub, count);
    assert_eq!(feeder.end(), count);
    ends_well(device, &sub);
    println!("{count} messages, {kills} kills: {line}");
    was_bad(&line);
}
