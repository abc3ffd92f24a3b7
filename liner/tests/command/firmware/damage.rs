//! The line loses, doubles, damages and delays what it carries, and is cut, in both directions: nothing is lost or repeated while
//! the device stays up.

use liner_tests::relay::{Counters, Damage, Rates};

use super::arrivals::Arrivals;
use super::machine::Bench;
use super::{FASTER, count, subscriber, tell};
use crate::line::seed;

/// One bit in ten thousand is turned. Of a hundred frames two are lost, two come twice, and two are delayed; of a hundred reads five
/// lose or gain bytes. Cuts and stalls come all the time.
const BAD: Rates = Rates {
    bit_errors: 1e-4,
    frame_faults: 0.06,
    read_faults: 0.05,
    cut_every: 4_000,
    stall_every: 4_000,
    ..Rates::NONE
};

/// There is a cut in so many readings, or more: 50 in a long run.
const READINGS_OF_CUT: u64 = 400;

/// In so many bytes of a direction there is every kind of fault.
const BYTES_OF_ALL: u64 = 60_000;

#[test]
fn a_polled_microcontroller_on_a_bad_line_loses_and_repeats_nothing() {
    survive_a_bad_line("polled");
}

#[test]
fn a_microcontroller_with_interrupts_on_a_bad_line_loses_and_repeats_nothing() {
    survive_a_bad_line("interrupt");
}

fn survive_a_bad_line(program: &str) {
    let (seed, count) = (seed(), count());
    let mut bench = Bench::new(program, seed, BAD);
    let _gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    bench.power();
    let mut arrivals = Arrivals::default();
    arrivals.take_until(&sub, 1);
    tell(bench.folder.path(), &bench.peers, FASTER);
    arrivals.take_until(&sub, count);
    arrivals.are_of_all_sensors();
    arrivals.are_of_one_start(&[FASTER]);
    let counters = bench.relay.counters().unwrap();
    println!("{program}, {count} readings: {counters}");
    was_bad(&counters, count);
}

/// That the line was as bad as it was meant to be.
fn was_bad(counters: &Counters, count: u64) {
    let [there, back] = [counters.from_a.damage, counters.from_b.damage];
    let both: Vec<u64> = kinds(&there).iter().zip(kinds(&back)).map(|(there, back)| there + back).collect();
    assert!(both.iter().all(|faults| *faults > 0), "{counters}");
    for damage in [there, back] {
        let has_all = kinds(&damage).iter().all(|faults| *faults > 0);
        assert!(has_all || damage.bytes < BYTES_OF_ALL, "{counters}");
    }
    assert!((there.cuts + back.cuts) * READINGS_OF_CUT >= count, "{counters}");
}

const fn kinds(damage: &Damage) -> [u64; 8] {
    let Damage { flipped, lost, inserted, cuts, stalls, frames_lost, frames_doubled, frames_delayed, .. } =
        *damage;
    [flipped, lost, inserted, cuts, stalls, frames_lost, frames_doubled, frames_delayed]
}
