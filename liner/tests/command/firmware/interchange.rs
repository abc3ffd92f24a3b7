//! A device is a device: the firmware and `liner device` do the same on the same line, and one test asks it of both.

use std::net::SocketAddr;
use std::path::Path;

use liner_tests::relay::{Config, Port, Rates, Relay};
use readings::{Command, Report, TOPICS, decode};
use serde_json::Value;

use super::arrivals::{check_reading, payload};
use super::machine::Machine;
use super::{subscriber, tell};
use crate::line::seed;
use crate::line::setup::{Feeder, number};
use crate::process::{Liner, free_port};

const BAD: Rates = Rates { bit_errors: 1e-5, frame_faults: 0.03, cut_every: 8_000, ..Rates::NONE };

/// Messages between two events.
const MESSAGES: u64 = 60;

#[test]
fn the_firmware_is_a_device() {
    be_a_device(&Kind::Firmware(SocketAddr::from(([127, 0, 0, 1], free_port()))));
}

#[test]
fn the_command_is_a_device() {
    be_a_device(&Kind::Host(seed()));
}

enum Kind {
    /// With the address of its UART.
    Firmware(SocketAddr),
    /// With the seed of what it sends.
    Host(u64),
}

enum Device {
    Firmware { _machine: Machine },
    Host { liner: Liner, _feeder: Feeder },
}

impl Kind {
    /// Its end of the line.
    fn port(&self, folder: &Path) -> Port {
        match self {
            Self::Firmware(uart) => Port::Dial(*uart),
            Self::Host(_) => Port::Pty(folder.join("ttyDevice")),
        }
    }

    /// Starts it, with this many starts before.
    fn start(&self, folder: &Path, life: u64) -> Device {
        match self {
            Self::Firmware(uart) => {
                let uart = format!("tcp:{uart},server=on,wait=off,nodelay");
                Device::Firmware { _machine: Machine::start("polled", folder, &uart) }
            }
            Self::Host(seed) => {
                let serial = folder.join("ttyDevice").display().to_string();
                let args = ["device", "--name", "press-1", "--topic", TOPICS[0], "--serial", &serial];
                let mut liner =
                    Liner::start(folder, &[&args[..], &["--payload-from", "-", "--json"]].concat());
                let feeder = Feeder::start(liner.stdin(), *seed, life, u64::MAX);
                Device::Host { liner, _feeder: feeder }
            }
        }
    }

    /// That a message is what was sent under its number in this life.
    fn check(&self, line: &Value, life: u64) {
        match self {
            Self::Firmware(_) if line["topic"] == TOPICS[usize::from(Report::TOPIC)] => {
                decode::<Report>(&payload(line)).unwrap_or_else(|| panic!("{line} is no report"));
            }
            Self::Firmware(_) => _ = check_reading(line, &payload(line)),
            Self::Host(seed) => assert_eq!(number(*seed, line), (life, line["seq"].as_u64().unwrap())),
        }
    }
}

/// Messages of one life after the other, each from the first on and without a hole.
struct Messages<'k> {
    kind: &'k Kind,
    sub: &'k Liner,
    life: u64,
    last: u64,
    /// The device has said in this life that it was told something, and whether that was marked.
    told: Vec<bool>,
}

impl Messages<'_> {
    fn take(&mut self) {
        let line = self.sub.json();
        if self.last > 0 && line["seq"] == 1 {
            (self.life, self.last) = (self.life + 1, 0);
            self.told.clear();
        }
        self.last += 1;
        assert_eq!(line["seq"], self.last, "{line}");
        self.kind.check(&line, self.life);
        if let Some(Report::Executed { command: Command::ReadNow, maybe_again }) = decode(&payload(&line)) {
            self.told.push(maybe_again);
        }
    }

    /// Some of this life.
    fn take_some(&mut self, life: u64) {
        let enough = self.last + MESSAGES;
        while (self.life, self.last) < (life, MESSAGES) || self.life == life && self.last < enough {
            self.take();
        }
        assert_eq!(self.life, life);
    }

    /// Until the device has been told something: the firmware reports it, the command prints it.
    fn take_until_told(&mut self, device: &Device) {
        match device {
            Device::Firmware { .. } => {
                while self.told.is_empty() {
                    self.take();
                }
            }
            Device::Host { liner, .. } => {
                let message = std::iter::repeat_with(|| liner.json()).find(|line| line["event"] == "message");
                self.told.push(message.unwrap()["maybe_redelivered"] == true);
            }
        }
        assert_eq!(self.told, [false]);
    }
}

fn be_a_device(kind: &Kind) {
    let (folder, seed) = (tempfile::tempdir().unwrap(), seed());
    let folder = folder.path();
    let (a, b) = (kind.port(folder), Port::Pty(folder.join("tty")));
    let relay = Relay::start(Config { a, b, seed, rates: BAD, baud: None }).unwrap();
    let peers = format!("127.0.0.1:{}", free_port());
    let line = format!("serial://{}?baud=115200", folder.join("tty").display());
    let gateway = ["gateway", "--listen", &peers, "--device-listen", "127.0.0.1:0", "--device", &line];
    let start_gateway = || Liner::start(folder, &gateway);

    let mut gateway = start_gateway();
    let sub = subscriber(folder, &peers);
    let mut messages = Messages { kind, sub: &sub, life: 0, last: 0, told: Vec::new() };
    for life in 0..2 {
        let device = kind.start(folder, life);
        messages.take_some(life);
        gateway.kill();
        gateway = start_gateway();
        tell(folder, &peers, Command::ReadNow);
        messages.take_until_told(&device);
        // By then it has acknowledged the command, too.
        messages.take_some(life);
    }
    println!("{}", relay.counters().unwrap());
}
