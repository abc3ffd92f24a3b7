//! The firmware of `firmware-example`, in QEMU: `scripts/firmware` builds it and says with `LINER_FIRMWARE` where it is.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use liner_tests::relay::{Config, Port, Rates, Relay};
use readings::{Reading, Report, Reset, TOPICS, decode};
use serde_json::Value;

use crate::line::{asked, seed};
use crate::path::gateway;
use crate::process::{Liner, free_port, run};

/// One byte in ten thousand is damaged, one read in twenty loses or gains bytes, and the line is cut again and again.
const BAD: Rates = Rates { bit_errors: 1e-4 / 8.0, read_faults: 0.05, cut_every: 2_000, ..Rates::NONE };

/// A microcontroller. It ends with its test.
struct Machine(Child);

impl Machine {
    /// `serial` is the far end of its UART, in QEMU's words.
    fn start(program: &str, serial: &str) -> Self {
        let folder = std::env::var("LINER_FIRMWARE").expect("`scripts/firmware` says where the firmware is");
        let kernel = Path::new(&folder).join(program);
        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", "lm3s6965evb", "-nographic", "-monitor", "none"]);
        command.args(["-semihosting-config", "enable=on,target=native"]);
        command.arg("-serial").arg(serial).arg("-kernel").arg(kernel);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("`scripts/firmware` installs qemu-system-arm"))
    }

    fn end(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a subscriber has had of the device.
#[derive(Default)]
struct Arrivals {
    count: u64,
    /// The last number of each sensor.
    sensors: [u32; 3],
    reports: Vec<Report>,
}

impl Arrivals {
    /// The next message: the next one of its sensor. Between topics there is no order before somebody has subscribed to them.
    fn take(&mut self, line: &Value) {
        self.count += 1;
        let text = line["payload"].as_str().unwrap();
        // What happens to be text is shown as such.
        let payload = match line["encoding"].as_str() {
            None => text.as_bytes().to_vec(),
            Some(_) => BASE64_STANDARD.decode(text).unwrap(),
        };
        if line["topic"] == TOPICS[3] {
            self.reports.push(decode(&payload).expect("a report"));
            return;
        }
        let (place, number) = match decode(&payload).expect("a reading") {
            Reading::Pressure { number, pascals } => {
                assert_eq!(pascals, 101_325 + number % 1000);
                (0, number)
            }
            Reading::Temperature { number, .. } => (1, number),
            Reading::Stroke { number, down, up } => {
                assert_eq!((down[0], up[0]), (number as u8, number as u8));
                (2, number)
            }
        };
        assert_eq!(line["topic"].as_str(), Some(TOPICS[place]), "{line}");
        assert_eq!(number, self.sensors[place] + 1, "{line}");
        self.sensors[place] = number;
    }
}

/// The device's commands, as readings::Command has them.
const STOP: &str = "\u{3}";

fn tell(folder: &Path, peers: &str, command: &str) {
    let told = run(folder, &["pub", "press-1", command, "--peer", peers]);
    assert_eq!(told.code, Some(0), "{:?}", told.errors);
}

fn subscriber(folder: &Path, peers: &str) -> Liner {
    Liner::start(folder, &[&["sub", "--json", "--name", "w", "--peer", peers], TOPICS.as_slice()].concat())
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
    let machine = Machine::start(program, &format!("tcp:{devices},nodelay"));
    let mut arrivals = Arrivals::default();
    while arrivals.count < 300 {
        arrivals.take(&sub.json());
    }
    assert!(arrivals.sensors.iter().all(|last| *last > 1), "{:?}", arrivals.sensors);
    tell(folder.path(), &peers, STOP);
    assert_eq!(arrivals.reports[0], Report::Started { start: 0, reset: Reset::Power, before: 0 });
    // It ends by itself, once it has acknowledged the command.
    assert_eq!(machine.end().code(), Some(0));
    while let Some(line) = sub.line_now() {
        arrivals.take(&serde_json::from_str(&line).unwrap());
    }
}

#[test]
fn a_polled_microcontroller_on_a_bad_line_loses_and_repeats_nothing() {
    survive_a_bad_line("polled");
}

#[test]
fn a_microcontroller_with_interrupts_on_a_bad_line_loses_and_repeats_nothing() {
    survive_a_bad_line("interrupt");
}

/// The gateway is killed while the line loses and damages what it carries.
fn survive_a_bad_line(program: &str) {
    let (folder, seed) = (tempfile::tempdir().unwrap(), seed());
    let (count, kills) = (asked("LINER_E2E_FIRMWARE_READINGS", 600), asked("LINER_E2E_FIRMWARE_KILLS", 3));
    let uart = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (a, b) = (Port::Dial(uart), Port::Pty(folder.path().join("tty")));
    let _machine = Machine::start(program, &format!("tcp:{uart},server=on,wait=off,nodelay"));
    let relay = Relay::start(Config { a, b, seed, rates: BAD, baud: None }).unwrap();
    let peers = format!("127.0.0.1:{}", free_port());
    let device = format!("serial://{}?baud=115200", folder.path().join("tty").display());
    let args =
        ["gateway", "--listen", &peers, "--device-listen", "127.0.0.1:0", "--device", &device, "--json"];
    let mut gateway = Liner::start(folder.path(), &args);
    let sub = subscriber(folder.path(), &peers);
    let mut arrivals = Arrivals::default();
    for kill in 1..=kills {
        while arrivals.count < count * kill / (kills + 1) {
            arrivals.take(&sub.json());
        }
        gateway.kill();
        gateway = Liner::start(folder.path(), &args);
    }
    while arrivals.count < count {
        arrivals.take(&sub.json());
    }
    let counters = relay.counters().unwrap();
    println!("{count} readings, {kills} kills: {counters}");
    let damages = [counters.from_a.damage, counters.from_b.damage];
    let faults: u64 = damages.iter().map(|damage| damage.flipped + damage.lost + damage.inserted).sum();
    let cuts: u64 = damages.iter().map(|damage| damage.cuts).sum();
    assert!(faults > 0 && cuts > 0, "{counters}");
}
