//! The path over a line that damages and loses bytes: device, relay, gateway, subscriber.
//!
//! The relay (`liner_tests::relay`) draws its faults from `LINER_E2E_SEED`, which every test prints. How long the tests are:
//!
//! | variable | short, as `./test` runs it | long |
//! |---|---|---|
//! | `LINER_E2E_LINE_MESSAGES` | 2,000 | 50,000 |
//! | `LINER_E2E_LINE_KILLS` | 3 | 50 |
//! | `LINER_E2E_REBOOTS` | 3 | 20 |
//! | `LINER_E2E_UNPLUGGED` | 3 | 20 |
//!
//! ```text
//! LINER_E2E_LINE_MESSAGES=50000 LINER_E2E_LINE_KILLS=50 LINER_E2E_REBOOTS=20 LINER_E2E_UNPLUGGED=20 \
//!     cargo test -p liner --test command line:: -- --nocapture --test-threads 1
//! ```
//!
//! `LINER_E2E_LINE` says what the line is: `pty`, a serial port on either side, as without it, or `tcp`, COBS over TCP. How much
//! of a throttled line is used is measured by `cargo bench -p liner --bench line`.

mod damage;
mod hostile;
pub(crate) mod reboots;
pub(crate) mod setup;
mod unplugged;

/// A number from the environment, for whoever is in a hurry or in doubt.
pub(crate) fn asked(variable: &str, short: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(short, |asked| asked.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Where all chance comes from; printed, so that a run can be had again.
pub(crate) fn seed() -> u64 {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let seed = asked("LINER_E2E_SEED", random);
    println!("LINER_E2E_SEED={seed}");
    seed
}
