//! The firmware of `firmware-example`, in QEMU: `scripts/firmware` builds it and says with `LINER_FIRMWARE` where it is.
//!
//! Faults and kills are drawn from `LINER_E2E_SEED`, which every test prints. How long the tests are:
//!
//! | variable | short, as `./test` runs it | long |
//! |---|---|---|
//! | `LINER_E2E_FIRMWARE_READINGS` | 600 | 20,000 |
//! | `LINER_E2E_FIRMWARE_KILLS` | 3 | 30 |
//! | `LINER_E2E_FIRMWARE_REBOOTS` | 4 | 30 |
//! | `LINER_E2E_FIRMWARE_ATTACKS` | 23 | 1,000 |
//!
//! ```text
//! LINER_E2E_FIRMWARE_READINGS=20000 LINER_E2E_FIRMWARE_KILLS=30 LINER_E2E_FIRMWARE_REBOOTS=30 \
//!     LINER_E2E_FIRMWARE_ATTACKS=1000 cargo test -p liner --features firmware --test command firmware:: -- --nocapture
//! ```

mod arrivals;
mod breakdowns;
mod counts;
mod damage;
mod interchange;
mod kills;
mod lives;
mod machine;
mod malice;
mod overflow;
mod reboots;
mod stubborn;
mod villain;

use std::path::Path;

use arrivals::Arrivals;
use machine::Machine;
use readings::{Command, MESSAGE_MAX, TOPICS, encode};

use crate::line::asked;
use crate::path::gateway;
use crate::process::{Liner, run_with};

/// To read the fast sensor every 8 ms instead of 20. What RAM holds is then two seconds of readings.
const FASTER: Command = Command::SetPeriod(8);

/// How many readings a test on a relayed line hears.
fn count() -> u64 {
    asked("LINER_E2E_FIRMWARE_READINGS", 600)
}

fn tell(folder: &Path, peers: &str, command: Command) {
    tell_with(folder, peers, command, &[]);
}

fn tell_with(folder: &Path, peers: &str, command: Command, more: &[&str]) {
    let mut bytes = [0; MESSAGE_MAX];
    let args = [&["pub", "press-1", "-", "--peer", peers], more].concat();
    let told = run_with(folder, &args, encode(&command, &mut bytes));
    assert_eq!(told.code, Some(0), "{:?}", told.errors);
}

/// A subscriber that the gateway knows: between topics there is order only for what comes from then on.
fn subscriber(folder: &Path, peers: &str) -> Liner {
    let sub = Liner::start(
        folder,
        &[&["sub", "--json", "--name", "w", "--peer", peers], TOPICS.as_slice()].concat(),
    );
    sub.error_with("gateway is connected");
    sub
}

#[test]
fn readings_of_a_polled_microcontroller_arrive_in_order_and_it_does_what_it_is_told() {
    arrive_in_order("polled");
}

#[test]
fn readings_of_a_microcontroller_with_interrupts_arrive_in_order_and_it_does_what_it_is_told() {
    arrive_in_order("interrupt");
}

fn arrive_in_order(program: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &[]);
    let sub = subscriber(folder.path(), &peers);
    let machine = Machine::start(program, folder.path(), &format!("tcp:{devices},nodelay"));
    let mut arrivals = Arrivals::default();
    arrivals.take_until(&sub, 300);
    arrivals.are_of_all_sensors();
    tell(folder.path(), &peers, Command::Stop);
    // It ends by itself, once it has acknowledged the command and said so.
    assert_eq!(machine.end().code(), Some(0));
    while arrivals.reports.len() < 2 {
        arrivals.take(&sub, &sub.json());
    }
    arrivals.are_of_one_start(&[Command::Stop]);
}
