//! The gateway is killed again and again while the device goes on, on a line that is slightly bad: nothing is lost or repeated.

use liner::proto::rng::Rng;
use liner_tests::relay::Rates;

use super::arrivals::Arrivals;
use super::machine::Bench;
use super::{FASTER, count, subscriber, tell};
use crate::kills::catch_in_commit;
use crate::line::{asked, seed};

/// One bit in a hundred thousand is turned, and of a thousand frames six do not come as they were sent.
const SLIGHTLY_BAD: Rates = Rates { bit_errors: 1e-5, frame_faults: 0.006, ..Rates::NONE };

/// One kill in this many is to fall into a commit, the others anywhere.
const COMMIT_EVERY: u64 = 2;

#[test]
fn a_polled_microcontroller_loses_and_repeats_nothing_when_its_gateway_is_killed() {
    survive_kills("polled");
}

#[test]
fn a_microcontroller_with_interrupts_loses_and_repeats_nothing_when_its_gateway_is_killed() {
    survive_kills("interrupt");
}

fn survive_kills(program: &str) {
    let (seed, count, kills) = (seed(), count(), asked("LINER_E2E_FIRMWARE_KILLS", 3));
    let mut rng = Rng::new([seed, 3]);
    let mut bench = Bench::new(program, seed, SLIGHTLY_BAD);
    let (folder, between) = (bench.folder.path().to_owned(), count / (kills + 1));
    let folder = folder.as_path();
    let mut gateway = bench.gateway();
    let sub = subscriber(folder, &bench.peers);
    bench.power();
    let mut arrivals = Arrivals::default();
    arrivals.take_until(&sub, 1);
    tell(folder, &bench.peers, FASTER);
    let mut in_commit = 0;
    for kill in 0..kills {
        // At least half of the readings between two kills come after the one and before the other.
        arrivals.take_until(&sub, between * kill + between / 2 + rng.below(between / 4));
        if kill % COMMIT_EVERY == 0 {
            let database = folder.join("liner-gateway.db");
            let caught = catch_in_commit(&gateway, &database, &sub, between / 4, &mut |line| {
                arrivals.take(&sub, line);
            });
            in_commit += u64::from(caught);
        }
        gateway.kill();
        gateway = bench.gateway();
    }
    arrivals.take_until(&sub, count);
    arrivals.are_of_all_sensors();
    arrivals.are_of_one_start(&[FASTER]);
    let counters = bench.relay.counters().unwrap();
    println!("{program}, {count} readings, {kills} kills, {in_commit} inside a commit: {counters}");
}
