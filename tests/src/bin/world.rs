//! Runs seeds of the world in virtual time: `world --seeds 0..1000000`, or one with its trace: `world --seed 17`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use liner_tests::world::summary::Summary;
use liner_tests::world::{self, Options, Report};

const USAGE: &str = "\
world --seeds A..B [--threads N]   runs the worlds of these seeds; 2 threads unless told otherwise
world --seed N                     runs one world and prints everything that happens in it
world --wired ...                  the same with a device on a wire in every world
";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let wired = arguments.first().is_some_and(|first| first == "--wired");
    arguments.drain(..usize::from(wired));
    let options = Options { wired, ..Options::default() };
    let mut out = io::stdout().lock();
    let outcome = match Task::parse(&arguments) {
        Some(Task::One(seed)) => one(seed, options, &mut out),
        Some(Task::Many { from, to, threads }) => many(from..to, threads, options, &mut out),
        None => {
            let _ = out.write_all(USAGE.as_bytes());
            return ExitCode::from(2);
        }
    };
    // Whoever reads the output may have seen enough.
    if outcome.unwrap_or(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Task {
    One(u64),
    Many { from: u64, to: u64, threads: u64 },
}

impl Task {
    fn parse(arguments: &[String]) -> Option<Self> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (range, threads) = match words[..] {
            ["--seed", seed] => return seed.parse().ok().map(Self::One),
            ["--seeds", range] => (range, 2),
            ["--seeds", range, "--threads", threads] => (range, threads.parse().ok()?),
            _ => return None,
        };
        let (from, to) = range.split_once("..")?;
        Some(Self::Many { from: from.parse().ok()?, to: to.parse().ok()?, threads })
    }
}

/// Says whether all promises were kept.
fn one(seed: u64, options: Options, out: &mut impl Write) -> io::Result<bool> {
    let report = world::run(seed, Options { trace: true, ..options });
    for line in &report.trace {
        writeln!(out, "{line}")?;
    }
    let kept = report.violation.is_none();
    tell(&report, options, out)?;
    writeln!(out, "{:?}", Report { trace: Vec::new(), violation: None, ..report })?;
    Ok(kept)
}

fn tell(report: &Report, options: Options, out: &mut impl Write) -> io::Result<()> {
    let Some(violation) = &report.violation else { return Ok(()) };
    let wired = if options.wired { "--wired " } else { "" };
    writeln!(out, "seed {}: {violation}", report.seed)?;
    writeln!(out, "    cargo run --release -p liner-tests --bin world -- {wired}--seed {}", report.seed)
}

fn many(
    seeds: core::ops::Range<u64>,
    threads: u64,
    options: Options,
    out: &mut impl Write,
) -> io::Result<bool> {
    let (from, to) = (seeds.start, seeds.end);
    let next = AtomicU64::new(from);
    let summary = Mutex::new(Summary::default());
    let (send, finished) = mpsc::channel();
    let mut told = 0;
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (next, summary, send) = (&next, &summary, send.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let report = world::run(seed, options);
                    if let Ok(mut summary) = summary.lock() {
                        summary.add(report);
                    }
                }
                drop(send);
            });
        }
        // Without a sender of its own the channel closes with the last worker.
        drop(send);
        loop {
            let waited: Result<(), _> = finished.recv_timeout(Duration::from_secs(1));
            progress(&summary, options, &mut told, out)?;
            if matches!(waited, Err(mpsc::RecvTimeoutError::Disconnected)) {
                break io::Result::Ok(());
            }
        }
    })?;
    let summary = summary.into_inner().unwrap_or_default();
    for line in summary.lines() {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{} worlds with a broken promise", summary.broken.len())?;
    Ok(summary.broken.is_empty())
}

fn progress(
    summary: &Mutex<Summary>,
    options: Options,
    told: &mut usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let Ok(summary) = summary.lock() else { return Ok(()) };
    for report in summary.broken.iter().skip(*told) {
        tell(report, options, out)?;
    }
    *told = summary.broken.len();
    writeln!(out, "{} worlds, {told} with a broken promise", summary.worlds())?;
    out.flush()
}
