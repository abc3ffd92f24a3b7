//! What the path costs, beside raw TCP in the same run: two processes on loopback.
//!
//! ```text
//! cargo bench -p liner-tests --bench path              every figure, medians of three runs
//! cargo bench -p liner-tests --bench path -- rate 64   one of: rate SIZE, trip, away, gateway
//! ```
//!
//! Each figure is taken with this process at one end and a child of it at the other.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a benchmark reads the clock, prints, and ends where its premise fails"
)]

mod child;
mod gateway;
mod node;
mod raw;

use std::time::Duration;

/// Runs of each figure; the median is printed.
const RUNS: usize = 3;

/// What the sender knows of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Raw,
    /// At least once, memory first.
    Asynchronous,
    /// Stored at `Process` on both sides, SQLite.
    Process,
    /// Stored and synced at `Power` on both sides, SQLite.
    Power,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Raw, Self::Asynchronous, Self::Process, Self::Power];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Asynchronous => "asynchronous",
            Self::Process => "process",
            Self::Power => "power",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw TCP frames, the limit",
            Self::Asynchronous => "at least once, asynchronous mode",
            Self::Process => "stored on both sides, `Process`",
            Self::Power => "stored on both sides, `Power`",
        }
    }

    fn messages(self, size: usize) -> u64 {
        let full = match self {
            Self::Raw | Self::Asynchronous => 10_000_000,
            Self::Process => 1_500_000,
            Self::Power => 600_000,
        };
        if size > 256 { full / 8 } else { full }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["child", rest @ ..] => child::run(rest),
        [] => {
            rates(64);
            rates(1024);
            trips();
            away();
            gateway::print();
        }
        ["rate", size] => rates(size.parse().expect("a size in bytes")),
        ["trip"] => trips(),
        ["away"] => away(),
        ["gateway"] => gateway::print(),
        other => panic!("{other:?} is not known: rate SIZE, trip, away or gateway"),
    }
}

fn rates(size: usize) {
    println!("{size} B messages, one sender, one receiver: M messages/s (median of {RUNS}; all runs)");
    let mut raw = 0.0;
    for kind in Kind::ALL {
        let count = kind.messages(size);
        let mut runs: Vec<f64> = (0..RUNS)
            .map(|_| {
                let elapsed = match kind {
                    Kind::Raw => raw::rate(size, count),
                    Kind::Asynchronous | Kind::Process | Kind::Power => node::rate(kind, size, count),
                };
                count as f64 / elapsed.as_secs_f64() / 1e6
            })
            .collect();
        let all: Vec<String> = runs.iter().map(|rate| format!("{rate:.3}")).collect();
        runs.sort_by(f64::total_cmp);
        let median = runs[RUNS / 2];
        if kind == Kind::Raw {
            raw = median;
        }
        println!("  {:34} {median:8.3}   {:5.3} x raw   [{}]", kind.label(), median / raw, all.join(", "));
    }
}

fn trips() {
    println!("64 B round trip, at least once both ways: µs (p50 / p99, median of {RUNS} runs by p50)");
    let mut raw = 0.0;
    for kind in Kind::ALL {
        let mut runs: Vec<(f64, f64)> = (0..RUNS)
            .map(|_| {
                let mut times = match kind {
                    Kind::Raw => raw::trips(10_000),
                    Kind::Asynchronous => node::trips(kind, 10_000),
                    Kind::Process | Kind::Power => node::trips(kind, 1_000),
                };
                times.sort_unstable();
                let at = |part: usize| times[times.len() * part / 100].as_nanos() as f64 / 1e3;
                (at(50), at(99))
            })
            .collect();
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (p50, p99) = runs[RUNS / 2];
        if kind == Kind::Raw {
            raw = p50;
        }
        println!("  {:34} {p50:8.1} / {p99:8.1}   {:5.2} x raw", kind.label(), p50 / raw);
    }
}

fn away() {
    let mut runs: Vec<Duration> = (0..RUNS).map(|_| node::back_after(Duration::from_secs(2))).collect();
    runs.sort_unstable();
    println!(
        "first message after a peer was away for 2 s: {} ms (median of {RUNS})",
        runs[RUNS / 2].as_millis()
    );
}
