//! The world finds every wrong behaviour that is planted into the core: otherwise it would not find its like.
#![cfg(planted)]

use liner_proto::planted::{Fault, Planted};
use liner_tests::world::Options;
use liner_tests::world::summary::Summary;

/// Worlds that a wrong behaviour may take to be found often enough.
const SEEDS: u64 = 10_000;

/// Worlds in which it must be found.
const FOUND: usize = 10;

/// Runs worlds until the wrong behaviour was found often enough.
fn search(fault: Fault, wired: bool) -> Summary {
    let options = Options { planted: Planted(Some(fault)), wired, ..Options::default() };
    Summary::of(0..SEEDS, options, |summary| summary.broken.len() >= FOUND)
}

fn words(fault: Fault, summary: &Summary) -> String {
    let (found, worlds) = (summary.broken.len(), summary.worlds());
    let mut words = format!("{fault:?}: found in {found} of {worlds} worlds");
    for report in &summary.broken {
        let violation = report.violation.as_ref().map(ToString::to_string).unwrap_or_default();
        words.push_str(&format!("\n    seed {}: {violation}", report.seed));
    }
    words
}

macro_rules! planted {
    ($($name:ident: $fault:ident, $wired:expr;)*) => {
        $(#[test]
        fn $name() {
            let summary = search(Fault::$fault, $wired);
            println!("{}", words(Fault::$fault, &summary));
            assert!(summary.broken.len() >= FOUND, "{}", words(Fault::$fault, &summary));
        })*

        #[test]
        fn all_are_tried() {
            assert_eq!([$(Fault::$fault),*], Fault::ALL);
        }
    };
}

// What only a line can show is looked for where every world has one.
planted! {
    ack_before_commit: AckBeforeCommit, false;
    cursor_outside_transaction: CursorOutsideTransaction, false;
    epoch_ignored: EpochIgnored, false;
    number_reused: NumberReused, false;
    early_completion: EarlyCompletion, false;
    unsettled_covered: UnsettledCovered, false;
    custody_not_atomic: CustodyNotAtomic, false;
    crc_not_seeded: CrcNotSeeded, true;
    late_frame_accepted: LateFrameAccepted, true;
    retry_limit: RetryLimit, true;
    window_too_early: WindowTooEarly, true;
}
