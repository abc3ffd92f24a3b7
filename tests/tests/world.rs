//! Thousands of worlds in virtual time keep every promise of `docs/DELIVERY.md`.

use liner_tests::world::checker::Rule;
use liner_tests::world::summary::Summary;
use liner_tests::world::wire::Harm;
use liner_tests::world::{self, Options};

/// Worlds that are run unless `LINER_WORLD_SEEDS` says how many.
const SEEDS: u64 = 10_000;

/// Threads that run them.
const THREADS: u64 = 2;

fn seeds() -> u64 {
    let told = std::env::var("LINER_WORLD_SEEDS").ok();
    told.map_or(SEEDS, |seeds| {
        seeds.parse().unwrap_or_else(|_| panic!("LINER_WORLD_SEEDS is not a number: {seeds}"))
    })
}

/// Runs the worlds, none of which breaks a promise.
fn run(options: Options) -> Summary {
    let summary = Summary::of_threads(0..seeds(), THREADS, options);
    let broken: Vec<String> = summary
        .broken
        .iter()
        .take(5)
        .map(|report| {
            let words = report.violation.as_ref().map(ToString::to_string).unwrap_or_default();
            let seed = report.seed;
            let wired = if options.wired { "--wired " } else { "" };
            format!(
                "seed {seed}: {words}\n    cargo run --release -p liner-tests --bin world -- {wired}--seed {seed}"
            )
        })
        .collect();
    assert!(broken.is_empty(), "{} worlds broke a promise\n{}", summary.broken.len(), broken.join("\n"));
    summary
}

#[test]
fn every_world_keeps_every_promise() {
    let summary = run(Options::default());
    for line in summary.lines() {
        println!("{line}");
    }
    assert_eq!(summary.idle_rules(), [], "these rules were never put to the test");
    let [messages, nodes, faults, restarts] = summary.medians();
    assert!(messages >= 200, "the median world has {messages} messages");
    assert!(nodes >= 3, "the median world has {nodes} nodes");
    assert!(faults >= 5, "the median world has {faults} faults");
    assert!(restarts >= 1, "the median world has {restarts} restarts");
    assert!(summary.torn > 0, "no crash fell into a commit");
    assert!(summary.repeats > 0, "nothing ever came again");
    assert!(summary.loads > 0, "no queue was ever longer than a node's memory");
    assert!(summary.closed > 0, "no queue was ever forgotten");
    assert!(summary.revived > 0, "nobody who was given up ever came back");
    assert!(summary.waiting > 0, "no stream ever waited for a full topic");
}

#[test]
fn every_wire_keeps_every_promise() {
    let summary = run(Options { wired: true, ..Options::default() });
    for line in summary.lines() {
        println!("{line}");
    }
    for rule in [Rule::Frames, Rule::Window, Rule::Once, Rule::NoLoss, Rule::NeverDiscardNew] {
        assert!(summary.counts.of(rule) > 0, "{rule:?} was never put to the test");
    }
    for harm in Harm::ALL {
        assert!(summary.harms.of(harm) > 0, "{harm:?} never happened to a wire");
    }
    let (harmed, worlds) = (summary.harmed, summary.worlds() as u64);
    assert!(harmed * 10 >= worlds * 8, "something went wrong on the wires of {harmed} of {worlds} worlds");
    assert!(summary.restarts >= worlds, "there were {} restarts", summary.restarts);
}

#[test]
fn a_seed_makes_the_same_world_every_time() {
    for seed in 0..100 {
        let options = Options { wired: seed % 2 == 1, ..Options::default() };
        let first = world::run(seed, options);
        let again = world::run(seed, Options { trace: true, ..options });
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert!(!again.trace.is_empty());
    }
}
