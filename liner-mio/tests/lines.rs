//! Lines to devices: serial ports, for which pseudo-terminals stand here, and serial-to-TCP bridges.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Party, Patience};
use liner_mio::{
    BuildError, Builder, LineEvent, LineState, LineUrl, LineUrlError, Node, SerialError, SerialPort,
};
use liner_proto::endpoint::{DeviceConfig, Endpoint, TopicIndex};
use liner_proto::pump::{self, Overflow};
use liner_proto::time::Instant;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// A port that can be plugged in and out: a name that leads to one end of a pseudo-terminal, while there is one.
struct Port {
    path: PathBuf,
    end: Option<File>,
}

impl Port {
    fn new(folder: &Path, name: &str) -> Self {
        let mut port = Self { path: folder.join(name), end: None };
        port.plug_in();
        port
    }

    fn plug_in(&mut self) {
        let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&end).unwrap();
        unlockpt(&end).unwrap();
        rustix::io::ioctl_fionbio(&end, true).unwrap();
        // What the device says before the port is opened must not come back to it.
        let mut termios = tcgetattr(&end).unwrap();
        termios.make_raw();
        tcsetattr(&end, OptionalActions::Now, &termios).unwrap();
        let name = ptsname(&end, Vec::new()).unwrap();
        symlink(OsStr::from_bytes(name.as_bytes()), &self.path).unwrap();
        self.end = Some(File::from(end));
    }

    fn pull_out(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
        self.end = None;
    }

    fn url(&self) -> String {
        format!("serial://{}", self.path.display())
    }

    fn open(&self) -> Result<SerialPort, SerialError> {
        let url: LineUrl = self.url().parse().unwrap();
        SerialPort::open(url.serial().unwrap())
    }
}

/// A device at the other end of a line.
struct Device {
    line: Endpoint<'static, 4096, 256>,
    now: Instant,
    sent: u32,
}

impl Device {
    fn new(name: &'static str, seed: u64) -> Self {
        let now = Instant::from_micros(1);
        let config = DeviceConfig::new(name, &["t"], [seed, 7]);
        Self { line: Endpoint::new(config, now), now, sent: 0 }
    }

    /// Sends numbers, the next as soon as there is room, up to `last`.
    fn turn(&mut self, mut stream: impl Read + Write, last: u32) {
        self.now = self.now + Duration::from_millis(1);
        while self.sent < last {
            let payload = (self.sent + 1).to_be_bytes();
            let message = (TopicIndex(0), &payload[..]);
            if pump::send(&mut self.line, self.now, message, Overflow::Refuse).is_err() {
                break;
            }
            self.sent += 1;
        }
        let (mut received, mut scratch) = ([0; 256], [0; 512]);
        // While nobody has the port open, there is nothing to read.
        let len = stream.read(&mut received).unwrap_or(0);
        let (bytes, _) = pump::turn(&mut self.line, self.now, &received[..len], &mut scratch, |_| {});
        let _ = stream.write_all(bytes);
    }

    fn is_done(&self, last: u32) -> bool {
        self.sent == last && self.line.queued() == 0
    }
}

/// A node that subscribes to what the devices send, with what it said about its lines.
struct Gateway {
    party: Party,
    told: Vec<LineEvent>,
}

impl Gateway {
    fn new(lines: &[&str]) -> Self {
        let party = Party::new(builder(lines).subscribe("t").build().unwrap());
        Self { party, told: Vec::new() }
    }

    fn turn(&mut self) {
        self.party.turn();
        self.told.extend(std::iter::from_fn(|| self.party.node.poll_line()));
    }

    fn turn_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let patience = Patience::new();
        while !done(self) {
            patience.check();
            self.turn();
        }
    }

    fn states(&self) -> Vec<&LineState> {
        self.told.iter().map(|event| &event.state).collect()
    }

    /// Whether a device's numbers have come, each once and in order.
    fn has(&self, from: &str, last: u32) -> bool {
        let seen = self.party.seen.iter().filter(|seen| seen.from == from);
        let numbers: Vec<u32> =
            seen.map(|seen| u32::from_be_bytes(seen.payload[..].try_into().unwrap())).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u32), "{from}: {numbers:?}");
        numbers.len() as u32 == last
    }
}

fn builder(lines: &[&str]) -> Builder {
    lines.iter().fold(Node::builder("gateway"), |builder, line| builder.line(line))
}

fn refused(error: Result<Node, BuildError>) -> BuildError {
    error.map(|_| ()).unwrap_err()
}

#[test]
fn several_ports_carry_messages() {
    let folder = tempfile::tempdir().unwrap();
    let ports = ["a", "b", "c"].map(|name| Port::new(folder.path(), name));
    let urls = ports.each_ref().map(|port| format!("{}?baud=921600&stop=2", port.url()));
    let mut gateway = Gateway::new(&urls.each_ref().map(String::as_str));
    let names = ["one", "two", "three"];
    let mut devices = [0, 1, 2].map(|n| Device::new(names[n], n as u64 + 1));
    let patience = Patience::new();
    while !devices.iter().all(|device| device.is_done(200)) {
        patience.check();
        for (device, port) in devices.iter_mut().zip(&ports) {
            device.turn(port.end.as_ref().unwrap(), 200);
        }
        gateway.turn();
    }
    assert!(names.iter().all(|name| gateway.has(name, 200)));
    assert_eq!(gateway.states(), [&LineState::Open; 3]);
}

#[test]
fn a_port_that_comes_and_goes_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut port = Port::new(folder.path(), "port");
    port.pull_out();
    let mut gateway = Gateway::new(&[&port.url()]);
    gateway.turn_until(|gateway| !gateway.told.is_empty());
    let mut device = Device::new("device", 1);
    let mut slowest = Duration::ZERO;
    for round in 1..=20 {
        port.plug_in();
        let since = Patience::new();
        let mut took = Duration::ZERO;
        let before = gateway.party.seen.len();
        // It is pulled out in the middle of what is under way.
        while gateway.party.seen.len() < before + 50 {
            since.check();
            device.turn(port.end.as_ref().unwrap(), 60 * round);
            gateway.turn();
            if gateway.party.seen.len() == before {
                took = since.used_up();
            }
        }
        slowest = slowest.max(took);
        port.pull_out();
        device.line.handle_link_down(device.now);
        let told = gateway.told.len();
        gateway.turn_until(|gateway| gateway.told.len() > told);
        // Once it stays away for longer, and is looked for as often as before.
        let away = Patience::new();
        while round == 10 && !away.used(Duration::from_millis(1600)) {
            gateway.turn();
        }
    }
    assert!(slowest <= Duration::from_secs(1), "traffic began {slowest:?} after the port was back");
    port.plug_in();
    let patience = Patience::new();
    while !device.is_done(1200) {
        patience.check();
        device.turn(port.end.as_ref().unwrap(), 1200);
        gateway.turn();
    }
    assert!(gateway.has("device", 1200));
    let wanted: Vec<&LineState> =
        (0..41).map(|n| if n % 2 == 0 { &LineState::Away } else { &LineState::Open }).collect();
    assert_eq!(gateway.states()[..41], wanted, "each change is told once");
}

#[test]
fn sessions_come_and_go_while_the_port_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::new(folder.path(), "port");
    let mut gateway = Gateway::new(&[&port.url()]);
    let patience = Patience::new();
    for (seed, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let mut end = port.end.as_ref().unwrap();
        // Noise, and something that is no frame of ours.
        end.write_all(b"\xff\x11GET / HTTP/1.1\0\x05abcd\0").unwrap();
        let mut device = Device::new(name, seed);
        while !device.is_done(20) {
            patience.check();
            device.turn(end, 20);
            gateway.turn();
        }
        device.line.close(device.now);
        device.turn(end, 20);
        assert!(gateway.has(name, 20));
        assert!(matches!(port.open(), Err(SerialError::Busy(_))), "it was given up");
    }
    assert_eq!(gateway.states(), [&LineState::Open]);
}

#[test]
fn a_port_that_another_has_is_told_of_once_and_taken_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::new(folder.path(), "port");
    let other = port.open().unwrap();
    let error = port.open().unwrap_err();
    assert!(matches!(error, SerialError::Busy(_)), "{error}");
    let mut gateway = Gateway::new(&[&port.url()]);
    let patience = Patience::new();
    // Several tries long.
    while !patience.used(Duration::from_millis(1200)) {
        gateway.turn();
    }
    let [LineEvent { line, state: LineState::Refused { why } }] = &gateway.told[..] else {
        panic!("{:?}", gateway.told);
    };
    assert_eq!(line, &port.url());
    assert!(why.contains("in use by another program"), "{why}");
    drop(other);
    gateway.turn_until(|gateway| gateway.told.len() == 2);
    assert_eq!(gateway.told[1].state, LineState::Open);
    assert!(matches!(port.open(), Err(SerialError::Busy(_))), "now it is the node's");
}

#[test]
fn a_port_is_raw_and_at_the_rate_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::new(folder.path(), "port");
    let url: LineUrl = format!("{}?baud=250001&flow=hardware", port.url()).parse().unwrap();
    let mut open = SerialPort::open(url.serial().unwrap()).unwrap();
    let end = port.end.as_ref().unwrap();
    let termios = tcgetattr(end).unwrap();
    assert_eq!(termios.output_speed(), 250_001);
    assert!(!termios.input_modes.intersects(InputModes::IXON | InputModes::IXOFF | InputModes::ICRNL));
    // Every byte passes as it is, in both directions.
    let bytes: Vec<u8> = (0..=255).collect();
    let mut end = end;
    end.write_all(&bytes).unwrap();
    let mut read = [0; 300];
    assert_eq!(open.read(&mut read).unwrap(), 256);
    assert_eq!(read[..256], bytes);
    assert_eq!(open.write(&bytes).unwrap(), 256);
    assert_eq!(end.read(&mut read).unwrap(), 256);
    assert_eq!(read[..256], bytes);
    // And nothing waits.
    assert_eq!(open.read(&mut read).unwrap_err().kind(), ErrorKind::WouldBlock);
    let large = vec![0; 100_000];
    assert_eq!(open.write(&large).unwrap(), 1250, "50 ms at this rate");
    let patience = Patience::new();
    while !matches!(open.write(&large), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        patience.check();
    }
}

#[test]
fn what_a_port_cannot_do_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::new(folder.path(), "port");
    // A pseudo-terminal has no check bit.
    let url: LineUrl = format!("{}?parity=even", port.url()).parse().unwrap();
    let error = SerialPort::open(url.serial().unwrap()).unwrap_err();
    assert!(matches!(&error, SerialError::Unsupported { what, .. } if what == "parity=even"), "{error}");
    let open = |path: &Path| {
        let url: LineUrl = format!("serial://{}", path.display()).parse().unwrap();
        SerialPort::open(url.serial().unwrap()).unwrap_err()
    };
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), SerialError::NoPort(_)));
    assert!(matches!(open(folder.path()), SerialError::NoPort(_)));
    assert!(matches!(open(&folder.path().join("nothing")), SerialError::Away(_)));
    // A terminal that has hung up.
    let dangling = Port::new(folder.path(), "dangling");
    let Port { path, end } = dangling;
    tcsetwinsize(end.as_ref().unwrap(), Winsize { ws_row: 1, ws_col: 1, ws_xpixel: 0, ws_ypixel: 0 })
        .unwrap();
    drop(end);
    assert!(matches!(open(&path), SerialError::Away(_)));
}

#[test]
fn lines_are_checked_before_anything_is_opened() {
    let bad = refused(builder(&["serial:///dev/a?flow=software"]).build());
    assert!(matches!(bad, BuildError::Line(LineUrlError::SoftwareFlow)), "{bad}");
    let twice = refused(builder(&["serial:///dev/a", "serial:///dev/a?baud=9600"]).build());
    assert!(matches!(&twice, BuildError::LineTwice { line } if line.contains("9600")), "{twice}");
}

#[test]
fn a_bridge_is_dialled_again_when_it_hangs_up() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}?baud=9600", bridge.local_addr().unwrap());
    let mut gateway = Gateway::new(&[&url]);
    bridge.set_nonblocking(true).unwrap();
    let mut device = Device::new("device", 1);
    let patience = Patience::new();
    for last in [50, 100, 150] {
        let stream = accepted(&bridge, &mut gateway);
        while !device.is_done(last) {
            patience.check();
            device.turn(&stream, last);
            gateway.turn();
        }
        drop(stream);
        device.line.handle_link_down(device.now);
    }
    assert!(gateway.has("device", 150));
    // While nobody listens it goes on.
    let addr = bridge.local_addr().unwrap();
    drop(bridge);
    let told = gateway.told.len();
    gateway.turn_until(|gateway| {
        gateway.told.len() > told || gateway.told.last().unwrap().state == LineState::Away
    });
    let bridge = TcpListener::bind(addr).unwrap();
    bridge.set_nonblocking(true).unwrap();
    let stream = accepted(&bridge, &mut gateway);
    while !device.is_done(200) {
        patience.check();
        device.turn(&stream, 200);
        gateway.turn();
    }
    assert!(gateway.has("device", 200));
    assert_eq!(
        gateway.told[..2].iter().map(|event| &event.state).collect::<Vec<_>>(),
        [&LineState::Open, &LineState::Away]
    );
}

#[expect(clippy::disallowed_methods, reason = "how long is waited between two calls is what is tested")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A bridge whose port somebody else has says so, as text, and hangs up: that is no line that has worked.
#[test]
fn a_bridge_that_only_excuses_itself_is_dialled_ever_more_seldom_and_told_of_once() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = Gateway::new(&[&format!("tcp://{}", bridge.local_addr().unwrap())]);
    bridge.set_nonblocking(true).unwrap();
    let mut begun = None;
    for _ in 0..5 {
        let mut stream = accepted(&bridge, &mut gateway);
        begun.get_or_insert_with(now);
        stream.write_all(b"Port already in use\r\n\0").unwrap();
    }
    // Each wait begins after the connection before it was seen here: a busy machine makes it longer only.
    let waits = Duration::from_millis(100 + 200 + 400 + 800);
    assert!(begun.unwrap().elapsed() >= waits, "{:?}", begun.unwrap().elapsed());
    assert_eq!(gateway.states(), [&LineState::Open, &LineState::Away]);
    let events: Vec<_> = std::iter::from_fn(|| gateway.party.node.poll_event()).collect();
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn a_host_that_nobody_knows_is_told_of() {
    let mut gateway = Gateway::new(&["tcp://nobody.invalid:4001"]);
    gateway.turn_until(|gateway| !gateway.told.is_empty());
    let LineState::Refused { why } = &gateway.told[0].state else { panic!("{:?}", gateway.told) };
    assert!(why.contains("nobody.invalid:4001 is not known: look at its name"), "{why}");
}

fn accepted(bridge: &TcpListener, gateway: &mut Gateway) -> TcpStream {
    let patience = Patience::new();
    loop {
        patience.check();
        gateway.turn();
        match bridge.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true).unwrap();
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}

#[test]
fn a_node_with_lines_stops() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::new(folder.path(), "port");
    let away = format!("serial://{}/away", folder.path().display());
    let mut gateway = Gateway::new(&[&port.url(), &away]);
    gateway.turn_until(|gateway| gateway.told.len() == 2);
    gateway.party.node.stop(common::PATIENCE, &mut |_: &liner_mio::Message<'_>| {}).unwrap();
    let free = port.open();
    assert!(free.is_ok(), "{free:?}");
    // It looks for the other one no more.
    gateway.turn();
    assert_eq!(gateway.party.node.next_deadline(), None);
}
