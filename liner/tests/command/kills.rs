//! The whole path while one of its programs is killed again and again.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use liner::proto::rng::Rng;
use serde_json::Value;

use crate::process::{Liner, free_port};
use crate::wal;

/// Messages that go all the way between two kills, at least.
const BETWEEN: u64 = 500;

/// How often a program is killed; fewer or more for whoever is in a hurry or in doubt.
fn kills() -> usize {
    let asked = std::env::var("LINER_E2E_KILLS").ok();
    asked.map_or(50, |asked| asked.parse().expect("LINER_E2E_KILLS is a number"))
}

/// One kill in this many is to fall into a commit.
const COMMIT_EVERY: usize = 2;

/// Where the random moments come from; printed, so that a run can be had again.
fn seed() -> u64 {
    let asked = std::env::var("LINER_E2E_SEED").ok();
    let seed = asked.map_or_else(
        || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        |asked| asked.parse().expect("LINER_E2E_SEED is a number"),
    );
    println!("LINER_E2E_SEED={seed}");
    seed
}

/// Numbers, one a line with some ballast, into a device's standard input until it is told to end.
struct Feeder {
    fed: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Feeder {
    fn start(device: &mut Liner) -> Self {
        let mut stdin = device.stdin();
        let (fed, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (Arc::clone(&fed), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let n = count.fetch_add(1, Ordering::Relaxed) + 1;
                writeln!(stdin, "{n} {BALLAST}").unwrap();
            }
        });
        Self { fed, end, thread }
    }

    /// Numbers up to this one may have left already.
    fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// Stops, and says how many there are.
    fn end(self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.fed.load(Ordering::Relaxed)
    }
}

/// Makes a pipe of lines a short one.
const BALLAST: &str = "----------------------------------------------------------------";

fn number(line: &Value) -> u64 {
    line["payload"].as_str().and_then(|payload| payload.split(' ').next()?.parse().ok()).unwrap()
}

fn device(folder: &Path, address: &str) -> Liner {
    Liner::start(folder, &["device", "--topic", "numbers", "--connect", address, "--payload-from", "-"])
}

fn gateway(folder: &Path, peers: &str, devices: &str) -> Liner {
    Liner::start(folder, &["gateway", "--listen", peers, "--device-listen", devices])
}

fn subscriber(folder: &Path, peers: &str) -> Liner {
    Liner::start(folder, &["sub", "numbers", "--name", "w", "--peer", peers, "--json"])
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Stops the gateway until it stands inside a commit, at most so many times, with a message in between. Leaves it stopped.
pub(crate) fn catch_in_commit(
    gateway: &Liner,
    database: &Path,
    sub: &Liner,
    tries: u64,
    take: &mut dyn FnMut(&Value),
) -> bool {
    for _ in 0..tries {
        gateway.freeze();
        if wal::in_commit(database) {
            return true;
        }
        gateway.thaw();
        // Traffic goes on before the next try.
        take(&sub.json());
    }
    false
}

#[test]
fn m13_a_gateway_that_is_killed_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = Rng::new([seed(), 1]);
    let (peers, devices) = (address(), address());
    let mut running = gateway(folder, &peers, &devices);
    let sub = subscriber(folder, &peers);
    let mut device = device(folder, &devices);
    let feeder = Feeder::start(&mut device);
    let mut arrived = 0;
    let mut take = |line: &Value| {
        assert_eq!(number(line), arrived + 1, "{line}");
        arrived += 1;
        arrived
    };
    let mut in_commit = 0;
    let mut last = 0;
    for kill in 0..kills() {
        // Nothing above what was fed by now can have been acknowledged before the kill.
        let until = feeder.fed() + BETWEEN + rng.below(BETWEEN);
        while last < until {
            last = take(&sub.json());
        }
        if kill % COMMIT_EVERY == 0 {
            let database = folder.join("liner-gateway.db");
            let caught = catch_in_commit(&running, &database, &sub, 300, &mut |line| last = take(line));
            in_commit += usize::from(caught);
        }
        running.kill();
        running = gateway(folder, &peers, &devices);
    }
    let sent = feeder.end();
    while last < sent {
        last = take(&sub.json());
    }
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(sub.line_now().is_none(), "more arrived than was sent");
    println!("{} kills, {in_commit} inside a commit, {sent} messages", kills());
    assert!(in_commit * 10 >= kills(), "only {in_commit} kills fell inside a commit");
}

/// The most messages that a crash repeats.
const TURN_MAX: u64 = 1024;

#[test]
fn m11_a_subscriber_that_is_killed_loses_nothing_and_marks_what_it_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = Rng::new([seed(), 2]);
    let (peers, devices) = (address(), address());
    let _gateway = gateway(folder, &peers, &devices);
    let mut device = device(folder, &devices);
    let feeder = Feeder::start(&mut device);
    // The highest number that was printed, over all runs, and how often it has been repeated.
    let mut highest = 0;
    let mut repeats = 0;
    let mut take = |line: &Value, first: &mut Option<u64>| {
        let n = number(line);
        let begin = *first.get_or_insert(n);
        assert!(n <= highest + 1, "{} is missing before {line}", highest + 1);
        if n <= highest {
            assert_eq!(line["maybe_redelivered"], true, "{line} is a repeat without a mark");
            assert!(
                highest - begin < TURN_MAX,
                "more than a turn is repeated from {begin}, {highest} was printed"
            );
            repeats += 1;
        }
        highest = highest.max(n);
        highest
    };
    let mut sub = subscriber(folder, &peers);
    let mut first = None;
    let mut last = 0;
    for _ in 0..kills() {
        let until = last + BETWEEN + rng.below(BETWEEN);
        while last < until {
            last = take(&sub.json(), &mut first);
        }
        for line in sub.kill() {
            last = take(&serde_json::from_str(&line).unwrap(), &mut first);
        }
        sub = subscriber(folder, &peers);
        first = None;
    }
    let sent = feeder.end();
    while last < sent {
        last = take(&sub.json(), &mut first);
    }
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(sub.line_now().is_none(), "more arrived than was sent");
    println!("{} kills, {repeats} repeats, {sent} messages", kills());
}
