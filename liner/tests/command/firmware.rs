//! The firmware of `firmware-example`, in QEMU: `scripts/firmware` builds it and says with `LINER_FIRMWARE` where it is.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use readings::{Reading, TOPICS};
use serde_json::Value;

use crate::process::{Liner, free_port, run};

/// A microcontroller whose UART dials the gateway. It ends with its test.
struct Machine(Child);

impl Machine {
    fn start(program: &str, port: u16) -> Self {
        let folder = std::env::var("LINER_FIRMWARE").expect("`scripts/firmware` says where the firmware is");
        let kernel = Path::new(&folder).join(program);
        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", "lm3s6965evb", "-nographic", "-monitor", "none"]);
        command.args(["-semihosting-config", "enable=on,target=native"]);
        command.arg("-serial").arg(format!("tcp:127.0.0.1:{port},nodelay"));
        command.arg("-kernel").arg(kernel);
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
    last: u64,
    /// The last number of each sensor.
    sensors: [u32; TOPICS.len()],
}

impl Arrivals {
    /// The next message: the next number of the device's stream, and the next one of its sensor.
    fn take(&mut self, line: &Value) {
        assert_eq!(line["maybe_redelivered"], false, "{line}");
        assert_eq!(line["seq"].as_u64(), Some(self.last + 1), "{line}");
        self.last += 1;
        let text = line["payload"].as_str().unwrap();
        // What happens to be text is shown as such.
        let payload = match line["encoding"].as_str() {
            None => text.as_bytes().to_vec(),
            Some(_) => BASE64_STANDARD.decode(text).unwrap(),
        };
        let reading = Reading::decode(&payload).expect("a reading");
        let (place, number) = match reading {
            Reading::Pressure { number, pascals } => {
                assert_eq!(pascals, 101_325 + number % 1000);
                (0, number)
            }
            Reading::Temperature { number, .. } => (1, number),
            Reading::Door { number, open } => {
                assert_eq!(open, number % 2 == 1);
                (2, number)
            }
        };
        assert_eq!(line["topic"].as_str(), Some(TOPICS[place]), "{line}");
        assert_eq!(number, self.sensors[place] + 1, "{line}");
        self.sensors[place] = number;
    }
}

#[test]
fn readings_of_a_microcontroller_arrive_in_order_and_it_does_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (peers, devices) = (format!("127.0.0.1:{}", free_port()), free_port());
    let device_listen = format!("127.0.0.1:{devices}");
    let gateway =
        Liner::start(folder.path(), &["gateway", "--listen", &peers, "--device-listen", &device_listen]);
    let topics = TOPICS.as_slice();
    let sub = Liner::start(folder.path(), &[&["sub", "--json", "--name", "w", "--peer", &peers], topics].concat());
    let machine = Machine::start("polled", devices);
    let mut arrivals = Arrivals::default();
    while arrivals.last < 300 {
        arrivals.take(&sub.json());
    }
    assert!(arrivals.sensors.iter().all(|last| *last > 1), "{:?}", arrivals.sensors);
    let told = run(folder.path(), &["pub", "press-1", "\u{2}", "--peer", &peers]);
    assert_eq!(told.code, Some(0), "{:?}", told.errors);
    // It ends by itself, once it has acknowledged the command.
    assert_eq!(machine.end().code(), Some(0));
    while let Some(line) = sub.line_now() {
        arrivals.take(&serde_json::from_str(&line).unwrap());
    }
    drop(gateway);
}
