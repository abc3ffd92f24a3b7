//! The world finds every wrong behaviour that is planted into the core: otherwise it would not find its like.
#![cfg(planted)]

use liner_proto::planted::{Fault, Planted};
use liner_tests::world::Options;
use liner_tests::world::summary::Summary;

/// Worlds that a wrong behaviour may take to be found often enough.
const SEEDS: u64 = 10_000;

/// Worlds in which it must be found.
const FOUND: usize = 10;

fn found(fault: Fault) {
    let options = Options { planted: Planted(Some(fault)), ..Options::default() };
    let summary = Summary::of(0..SEEDS, options, |summary| summary.broken.len() >= FOUND);
    println!("{fault:?}: found in {} of {} worlds", summary.broken.len(), summary.worlds());
    for report in &summary.broken {
        println!(
            "    seed {}: {}",
            report.seed,
            report.violation.as_ref().map_or(String::new(), ToString::to_string)
        );
    }
    assert!(summary.broken.len() >= FOUND, "{fault:?} was found in {} worlds", summary.broken.len());
}

macro_rules! planted {
    ($($name:ident: $fault:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            found(Fault::$fault);
        })*

        #[test]
        fn all_are_tried() {
            assert_eq!([$(Fault::$fault),*], Fault::ALL);
        }
    };
}

planted! {
    ack_before_commit: AckBeforeCommit,
    cursor_outside_transaction: CursorOutsideTransaction,
    epoch_ignored: EpochIgnored,
    number_reused: NumberReused,
    early_completion: EarlyCompletion,
    custody_not_atomic: CustodyNotAtomic,
}
