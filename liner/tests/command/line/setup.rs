//! The programs at both ends of a relayed line, and messages whose every byte is known.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::{fmt, io::Write as _, process::ChildStdin};

use liner::proto::rng::Rng;
use liner_tests::relay::{Config, Port, Rates, Relay, Side};
use serde_json::Value;

use crate::process::{Liner, free_port};

/// The end of the relay at which the device is, and the one at which the gateway is.
pub(crate) const DEVICE: Side = Side::A;
pub(crate) const GATEWAY: Side = Side::B;

/// What the two programs are told of the line's pace.
pub(crate) const BAUD: u32 = 115_200;

/// What the line is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// COBS over TCP.
    Tcp,
    /// A serial port at either end.
    Pty,
}

impl Kind {
    pub(crate) fn asked() -> Self {
        match std::env::var("LINER_E2E_LINE").as_deref() {
            Ok("pty") | Err(_) => Self::Pty,
            Ok("tcp") => Self::Tcp,
            Ok(other) => panic!("LINER_E2E_LINE is tcp or pty, not {other}"),
        }
    }
}

/// A relayed line, with what the programs at it have to be told.
pub(crate) struct Line {
    pub(crate) relay: Relay,
    pub(crate) kind: Kind,
    folder: Box<Path>,
    /// Where subscribers connect.
    peers: String,
    /// Arguments by which the gateway and a device find the line.
    gateway: Vec<String>,
    device: Vec<String>,
}

impl Line {
    pub(crate) fn new(folder: &Path, seed: u64, rates: Rates, baud: Option<u32>) -> Self {
        let kind = Kind::asked();
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (port, path) = (free_port(), |name: &str| folder.join(name));
        let serial = |name: &str| format!("serial://{}?baud={BAUD}", path(name).display());
        let (a, b) = match kind {
            Kind::Tcp => (Port::Listen(local(0)), Port::Dial(local(port))),
            Kind::Pty => (Port::Pty(path("ttyDevice")), Port::Pty(path("ttyGateway"))),
        };
        let relay = Relay::start(Config { a, b, seed, rates, baud }).unwrap();
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (gateway, device) = match relay.address(DEVICE).unwrap() {
            Some(address) => (
                text(&["--device-listen", &local(port).to_string()]),
                text(&["--connect", &address.to_string()]),
            ),
            None => (
                text(&["--device-listen", "127.0.0.1:0", "--device", &serial("ttyGateway")]),
                text(&["--serial", &serial("ttyDevice")]),
            ),
        };
        let peers = local(free_port()).to_string();
        Self { relay, kind, folder: folder.into(), peers, gateway, device }
    }

    /// Where peers find the gateway.
    pub(crate) fn peers(&self) -> &str {
        &self.peers
    }

    /// Starts a gateway; its store is there after a kill.
    pub(crate) fn gateway(&self) -> Liner {
        self.start(&["gateway", "--listen", &self.peers, "--json"], &self.gateway)
    }

    /// Starts a device that sends the lines of its standard input.
    pub(crate) fn device(&self) -> Liner {
        self.start(&["device", "--topic", "numbers", "--payload-from", "-", "--json"], &self.device)
    }

    pub(crate) fn subscriber(&self) -> Liner {
        self.start(&["sub", "numbers", "--name", "w", "--peer", &self.peers, "--json"], &[])
    }

    fn start(&self, args: &[&str], more: &[String]) -> Liner {
        let args: Vec<&str> = args.iter().copied().chain(more.iter().map(String::as_str)).collect();
        Liner::start(&self.folder, &args)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.relay.counters().unwrap())
    }
}

/// What a message says: its number in a life of its device, and text that only this number has.
pub(crate) fn payload(seed: u64, life: u64, n: u64) -> String {
    let mut rng = Rng::new([seed ^ life << 32, n]);
    // Seeds that are alike begin alike.
    (0..16).for_each(|_| _ = rng.next());
    let len = 32 + usize::try_from(rng.below(150)).unwrap();
    let mut text = format!("{life}.{n} ");
    while text.len() < len {
        text.push_str(&format!("{:016x}", rng.next()));
    }
    text.truncate(len);
    text
}

/// Life and number of a message that has arrived, each of whose bytes is what it was.
pub(crate) fn number(seed: u64, line: &Value) -> (u64, u64) {
    let text = line["payload"].as_str().unwrap_or_default();
    let numbers = text.split(' ').next().and_then(|numbers| {
        let (life, n) = numbers.split_once('.')?;
        Some((life.parse().ok()?, n.parse().ok()?))
    });
    let (life, n) = numbers.unwrap_or_else(|| panic!("{line} is no message that was sent"));
    assert_eq!(text, payload(seed, life, n), "{line} is not what was sent");
    (life, n)
}

/// Checks that messages of one life arrive once and in order, and says the last number.
pub(crate) struct Arrivals {
    seed: u64,
    pub(crate) last: u64,
}

impl Arrivals {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, last: 0 }
    }

    pub(crate) fn take(&mut self, line: &Value) -> u64 {
        assert_eq!(number(self.seed, line), (0, self.last + 1), "{line}");
        self.last += 1;
        self.last
    }

    pub(crate) fn take_until(&mut self, sub: &Liner, last: u64) {
        while self.last < last {
            self.take(&sub.json());
        }
    }
}

/// Messages of one life into a device's standard input: so many, or until the end is called for, or the device is gone.
pub(crate) struct Feeder {
    end: Arc<AtomicBool>,
    fed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Feeder {
    pub(crate) fn start(stdin: ChildStdin, seed: u64, life: u64, count: u64) -> Self {
        let (end, fed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, done) = (Arc::clone(&end), Arc::clone(&fed));
        let mut stdin = stdin;
        let thread = std::thread::spawn(move || {
            for n in 1..=count {
                if over.load(Ordering::Relaxed) || writeln!(stdin, "{}", payload(seed, life, n)).is_err() {
                    return;
                }
                done.store(n, Ordering::Relaxed);
            }
        });
        Self { end, fed, thread }
    }

    /// Stops, and says how many there are.
    pub(crate) fn end(self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.fed.load(Ordering::Relaxed)
    }
}
