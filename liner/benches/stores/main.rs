//! What each store takes and gives back, beside bare inserts of the same rows into the same tables in the same run.
//!
//! ```text
//! cargo bench -p liner --bench stores                       both tables, on every store
//! cargo bench -p liner --bench stores -- store [STORE...]   messages a second that are stored
//! cargo bench -p liner --bench stores -- drain [STORE...]   a backlog of a million, tenth by tenth
//! ```
//!
//! * **Stored**: a node sends 64 bytes a message, without waiting, to somebody who is not there, until its store has committed all of them.
//! * **Bare**: what the node's store has written, read from its tables and inserted again into empty tables with the same indexes, by one
//!   connection that does nothing else, in the best of some sizes of batches.
//! * **Drain**: the node is started again, so that nothing is in its memory; the receiver comes back, and takes all of it. The time per message
//!   is told for each tenth of them.
//!
//! `LINER_STORES_MESSAGES` is how many messages each takes: 300,000 and 1,000,000 without it. The servers are private ones, which
//! `scripts/servers` installs; files are made in the folder for temporary ones.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and ends where its premise fails"
)]

mod bare;
mod place;
mod sender;

use std::time::Duration;

use place::{Kind, Place};
use sender::Sender;

/// Runs of each rate; the median counts.
const RUNS: usize = 3;

/// Bytes of a message.
const PAYLOAD: usize = 64;

/// Messages in a batch of the bare inserts: the best one counts.
const BATCHES: [usize; 2] = [1_024, 8_192];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (verbs, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|word| matches!(*word, "store" | "drain"));
    let kinds: Vec<Kind> = if names.is_empty() {
        Kind::ALL.to_vec()
    } else {
        names
            .iter()
            .map(|name| Kind::of(name).unwrap_or_else(|| panic!("{name:?} is none of {}", Kind::names())))
            .collect()
    };
    let asks = |verb| verbs.is_empty() || verbs.contains(&verb);
    if asks("store") {
        rates(&kinds, messages(300_000));
    }
    if asks("drain") {
        drains(&kinds, messages(1_000_000));
    }
}

fn messages(default: u64) -> u64 {
    std::env::var("LINER_STORES_MESSAGES").map_or(default, |text| text.parse().unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rates(kinds: &[Kind], count: u64) {
    println!("{count} messages of {PAYLOAD} B, stored: thousands a second (medians of {RUNS}; all runs)");
    println!("{:18} {:8} {:>8} {:>8} {:>6}", "store", "class", "liner", "bare", "ratio");
    for kind in kinds {
        let (mut liner, mut bare, mut class) = (Vec::new(), Vec::new(), None);
        for _ in 0..RUNS {
            let place = Place::new(*kind);
            let mut sender = Sender::new(&place, PAYLOAD);
            class = Some(sender.class());
            let rate = |elapsed: Duration| count as f64 / elapsed.as_secs_f64() / 1e3;
            liner.push(rate(sender.store(count)));
            sender.end();
            let best = BATCHES.iter().map(|batch| rate(bare::insert(&place, *batch, count)));
            bare.push(best.fold(0.0, f64::max));
        }
        let class = class.unwrap().to_string();
        let all =
            |values: &[f64]| values.iter().map(|value| format!("{value:.0}")).collect::<Vec<_>>().join(" ");
        let runs = format!("[{} | {}]", all(&liner), all(&bare));
        let (liner, bare) = (median(liner), median(bare));
        println!("{:18} {class:8} {liner:8.0} {bare:8.0} {:6.2}   {runs}", kind.name(), liner / bare);
    }
}

fn drains(kinds: &[Kind], count: u64) {
    println!("a backlog of {count} messages of {PAYLOAD} B is drained: µs a message, tenth by tenth");
    for kind in kinds {
        let place = Place::new(*kind);
        let mut sender = Sender::new(&place, PAYLOAD);
        sender.store(count);
        // What is still in memory costs a hundredth.
        let mut sender = sender.again(&place);
        let tenths = sender.drain(count);
        sender.end();
        let micros: Vec<f64> = tenths.iter().map(|time| time.as_secs_f64() * 1e7 / count as f64).collect();
        let (first, last) = (micros[0], micros[9]);
        let all: Vec<String> = micros.iter().map(|value| format!("{value:.2}")).collect();
        println!(
            "{:18} {}   last / first {:.2}; afterwards: {}",
            kind.name(),
            all.join(" "),
            last / first,
            bare::left(&place)
        );
    }
}
