//! The microcontroller, and the bench on which it is connected to a gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use liner_tests::relay::{Config, Port, Rates, Relay};
use tempfile::TempDir;

use crate::process::{Liner, free_port};

/// A microcontroller. It ends with its test.
pub(super) struct Machine(Child);

impl Machine {
    /// `serial` is the far end of its UART, in QEMU's words.
    pub(super) fn start(program: &str, serial: &str) -> Self {
        let folder = std::env::var("LINER_FIRMWARE").expect("`scripts/firmware` says where the firmware is");
        let kernel = Path::new(&folder).join(program);
        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", "lm3s6965evb", "-nographic", "-monitor", "none"]);
        command.args(["-semihosting-config", "enable=on,target=native"]);
        command.arg("-serial").arg(serial).arg("-kernel").arg(kernel);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("`scripts/firmware` installs qemu-system-arm"))
    }

    pub(super) fn end(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A microcontroller whose UART is a serial port of the gateway, through a relay.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) relay: Relay,
    /// Where peers find the gateway.
    pub(super) peers: String,
    /// The serial port.
    device: String,
    _machine: Machine,
}

impl Bench {
    pub(super) fn new(program: &str, seed: u64, rates: Rates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (uart, tty) = (SocketAddr::from(([127, 0, 0, 1], free_port())), folder.path().join("tty"));
        let machine = Machine::start(program, &format!("tcp:{uart},server=on,wait=off,nodelay"));
        let device = format!("serial://{}?baud=115200", tty.display());
        let relay = Relay::start(Config { a: Port::Dial(uart), b: Port::Pty(tty), seed, rates, baud: None });
        let peers = format!("127.0.0.1:{}", free_port());
        Self { folder, relay: relay.unwrap(), peers, device, _machine: machine }
    }

    /// Starts a gateway; its store is there after a kill.
    pub(super) fn gateway(&self) -> Liner {
        let listen = ["gateway", "--listen", &self.peers, "--device-listen", "127.0.0.1:0", "--json"];
        Liner::start(self.folder.path(), &[&listen[..], &["--device", &self.device]].concat())
    }
}
