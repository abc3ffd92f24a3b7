//! The microcontroller, and the bench on which it is connected to a gateway.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use liner_tests::relay::{Config, Port, Rates, Relay};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::line::setup::BAUD;
use crate::process::{Liner, free_port};

/// Where the firmware notes how many messages it has queued: `kept::NOTE` of its board.
const NOTE: u32 = 0x2000_ffec;

/// The program of this name, as `scripts/firmware` has built it.
pub(super) fn program(name: &str) -> PathBuf {
    let folder = std::env::var("LINER_FIRMWARE").expect("`scripts/firmware` says where the firmware is");
    Path::new(&folder).join(name)
}

/// A microcontroller. It ends with its test.
pub(super) struct Machine {
    child: Child,
    /// QEMU's own line, on which one can look at the machine from outside.
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// How often it has started anew, as far as QEMU has said so.
    resets: u64,
}

impl Machine {
    /// `serial` is the far end of its UART, in QEMU's words. Its flash is a file in the folder.
    pub(super) fn start(name: &str, folder: &Path, serial: &str) -> Self {
        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", "lm3s6965evb", "-nographic", "-monitor", "none", "-qmp", "stdio"]);
        command.args(["-semihosting-config", "enable=on,target=native"]);
        // An instruction takes 128 ns, so that its clock counts its own work and not that of this computer: a Cortex-M3 at 12.5 MHz
        // is a little faster.
        command.args(["-icount", "shift=7,sleep=on"]);
        // Its watchdog counts the time of this computer, also while this computer stands still for seconds and the program cannot run.
        command.args(["-action", "watchdog=none"]);
        command.arg("-serial").arg(serial).arg("-kernel").arg(program(name)).current_dir(folder);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("`scripts/firmware` installs qemu-system-arm");
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut machine = Self { child, stdin, stdout, resets: 0 };
        machine.ask("qmp_capabilities", &json!({}));
        machine
    }

    fn ask(&mut self, what: &str, arguments: &Value) -> Value {
        writeln!(self.stdin, "{}", json!({ "execute": what, "arguments": arguments })).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "QEMU has ended");
            let mut answer: Value = serde_json::from_str(&line).unwrap();
            assert!(answer.get("error").is_none(), "{line}");
            self.resets += u64::from(answer["event"] == "RESET");
            if let Some(returned) = answer.get_mut("return") {
                return returned.take();
            }
        }
    }

    /// Lets its watchdog bite from now on.
    pub(super) fn wake_watchdog(&mut self) {
        self.ask("watchdog-set-action", &json!({ "action": "reset" }));
    }

    /// How often it has started anew.
    pub(super) fn resets(&mut self) -> u64 {
        self.ask("query-status", &json!({}));
        self.resets
    }

    /// How many messages it has queued since its start.
    pub(super) fn queued(&mut self) -> u64 {
        let look = json!({ "command-line": format!("xp /1wx {NOTE:#x}") });
        let answer = self.ask("human-monitor-command", &look);
        let word = answer.as_str().and_then(|text| text.trim().split_once(": 0x"));
        let (_, word) = word.unwrap_or_else(|| panic!("{answer} is no word of memory"));
        u64::from_str_radix(word, 16).unwrap()
    }

    /// Stops it where it is, and ends it. Says how many messages it had queued by then.
    pub(super) fn kill(mut self) -> u64 {
        self.ask("stop", &json!({}));
        self.queued()
    }

    pub(super) fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    uart: SocketAddr,
    program: String,
    /// Nothing while it is without power.
    machine: Option<Machine>,
}

impl Bench {
    pub(super) fn new(program: &str, seed: u64, rates: Rates) -> Self {
        Self::with_baud(program, seed, rates, None)
    }

    /// One whose line takes as long as a real one: where time counts, more than that must not come at once.
    pub(super) fn paced(program: &str) -> Self {
        Self::with_baud(program, 1, Rates::NONE, Some(BAUD))
    }

    fn with_baud(program: &str, seed: u64, rates: Rates, baud: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (uart, tty) = (SocketAddr::from(([127, 0, 0, 1], free_port())), folder.path().join("tty"));
        let device = format!("serial://{}?baud={BAUD}", tty.display());
        let relay = Relay::start(Config { a: Port::Dial(uart), b: Port::Pty(tty), seed, rates, baud });
        let peers = format!("127.0.0.1:{}", free_port());
        Self {
            folder,
            relay: relay.unwrap(),
            peers,
            device,
            uart,
            program: program.to_owned(),
            machine: None,
        }
    }

    /// Switches the microcontroller on.
    pub(super) fn power(&mut self) {
        let uart = format!("tcp:{},server=on,wait=off,nodelay", self.uart);
        self.machine = Some(Machine::start(&self.program, self.folder.path(), &uart));
    }

    pub(super) fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().unwrap()
    }

    /// Waits until the microcontroller has switched itself off.
    pub(super) fn end(&mut self) -> ExitStatus {
        self.machine.take().unwrap().end()
    }

    /// Takes the power away. Says how many messages the microcontroller had queued.
    pub(super) fn cut_power(&mut self) -> u64 {
        self.machine.take().unwrap().kill()
    }

    /// Starts a gateway; its store is there after a kill.
    pub(super) fn gateway(&self) -> Liner {
        let listen = ["gateway", "--listen", &self.peers, "--device-listen", "127.0.0.1:0", "--json"];
        Liner::start(self.folder.path(), &[&listen[..], &["--device", &self.device]].concat())
    }
}
