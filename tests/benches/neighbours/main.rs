//! What neighbours do to each other: how long honest messages take beside a peer that is a black hole, and beside an attack.
//!
//! ```text
//! cargo bench -p liner-tests --bench neighbours              all of it, about five minutes
//! cargo bench -p liner-tests --bench neighbours -- hole      a black hole among ten peers
//! cargo bench -p liner-tests --bench neighbours -- attack    everybody who attacks, or some of: dribble, stop, forge, flood
//! ```
//!
//! Each figure is taken in pairs, without and with the bad neighbour in turns, and is the median of the pairs. Bad neighbours run in a
//! process of their own that yields to the others (`nice`), as it would be on another machine. `attack` needs about 13,000 descriptors
//! for that process (`ulimit -n 16384`; a hard limit that high is enough).

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a benchmark reads the clock, prints, and ends where its premise fails"
)]

mod attack;
mod child;
mod hole;
mod honest;
mod victim;

use std::time::Duration;

use honest::Figures;

/// Pairs of runs; the median of them is printed.
const PAIRS: usize = 5;

/// How long each run takes.
const RUN: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["child", rest @ ..] => child::run(rest),
        [] => {
            hole::print();
            attack::print(&[]);
        }
        ["hole"] => hole::print(),
        ["attack", kinds @ ..] => attack::print(kinds),
        other => panic!("{other:?} is not known: hole, or attack and kinds"),
    }
}

/// One run without and one with a bad neighbour.
pub(crate) struct Pair {
    pub(crate) without: Figures,
    pub(crate) with: Figures,
}

/// Prints the medians of the pairs for one figure.
pub(crate) fn print_figure(what: &str, pairs: &[Pair], of: impl Fn(&Figures) -> f64) {
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut without: Vec<f64> = pairs.iter().map(|pair| of(&pair.without)).collect();
    let mut with: Vec<f64> = pairs.iter().map(|pair| of(&pair.with)).collect();
    let ratio = |pair: &Pair| of(&pair.with) / of(&pair.without);
    let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
    let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!(
        "  {what:28} {:9.1} µs without, {:9.1} µs with, ratio {:5.2}   [{}]",
        median(&mut without),
        median(&mut with),
        median(&mut ratios),
        all.join(", ")
    );
}
