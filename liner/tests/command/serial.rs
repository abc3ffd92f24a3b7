//! Serial lines between processes: two pseudo-terminals and a thread that carries bytes between them are the cable.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::path::gateway;
use crate::process::{Liner, run};

/// A cable between two ends. Dropping it ends it.
struct Cable {
    thread: Option<JoinHandle<()>>,
    stop: Option<PipeWriter>,
}

impl Cable {
    /// What `kept` holds stays open as long as the cable.
    fn new(ends: [File; 2], kept: Vec<File>) -> Self {
        for end in &ends {
            rustix::io::ioctl_fionbio(end, true).unwrap();
        }
        let (stopped, stop) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            carry(&ends, &stopped);
            drop(kept);
        });
        Self { thread: Some(thread), stop: Some(stop) }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

/// Carries bytes both ways until one of the ends is gone, or the stop comes. It holds 512 bytes in each direction.
fn carry(ends: &[File; 2], stopped: &impl AsFd) {
    let mut held = [Vec::new(), Vec::new()];
    loop {
        let flags = |end: usize| {
            let read = if held[end].is_empty() { PollFlags::IN } else { PollFlags::empty() };
            let write = if held[1 - end].is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            read | write
        };
        let mut ready = [
            PollFd::new(&ends[0], flags(0)),
            PollFd::new(&ends[1], flags(1)),
            PollFd::new(stopped, PollFlags::IN),
        ];
        poll(&mut ready, None).unwrap();
        if !ready[2].revents().is_empty() {
            return;
        }
        for (from, held) in held.iter_mut().enumerate() {
            if held.is_empty() {
                let mut buffer = [0; 512];
                match (&ends[from]).read(&mut buffer) {
                    Ok(0) => return,
                    Ok(len) => held.extend_from_slice(&buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            match (&ends[1 - from]).write(held) {
                Ok(len) => drop(held.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// A new port at this path: its other end, and a handle that keeps that end from being hung up while nobody has the port open.
fn port(path: &Path) -> (File, File) {
    let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&end).unwrap();
    unlockpt(&end).unwrap();
    let mut termios = tcgetattr(&end).unwrap();
    termios.make_raw();
    tcsetattr(&end, OptionalActions::Now, &termios).unwrap();
    let name = ptsname(&end, Vec::new()).unwrap();
    let name = OsStr::from_bytes(name.as_bytes());
    let no_terminal = OFlags::NOCTTY.bits() as i32;
    let kept = OpenOptions::new().read(true).write(true).custom_flags(no_terminal).open(name).unwrap();
    symlink(name, path).unwrap();
    (File::from(end), kept)
}

/// A null modem: two ports of this machine that lead to each other.
struct NullModem {
    paths: [PathBuf; 2],
    cable: Option<Cable>,
}

impl NullModem {
    fn new(folder: &Path) -> Self {
        let mut modem =
            Self { paths: ["gateway-port", "device-port"].map(|name| folder.join(name)), cable: None };
        modem.plug_in();
        modem
    }

    fn plug_in(&mut self) {
        let [(one, kept_one), (two, kept_two)] = self.paths.each_ref().map(|path| port(path));
        self.cable = Some(Cable::new([one, two], vec![kept_one, kept_two]));
    }

    fn pull_out(&mut self) {
        for path in &self.paths {
            std::fs::remove_file(path).unwrap();
        }
        self.cable = None;
    }

    fn gateway_url(&self) -> String {
        format!("serial://{}?baud=921600", self.paths[0].display())
    }

    fn device_path(&self) -> &str {
        self.paths[1].to_str().unwrap()
    }
}

/// Sends numbers through a device, as its standard input.
fn feed(device: &mut Liner, numbers: std::ops::RangeInclusive<u32>) {
    let lines: String = numbers.map(|n| format!("{n}\n")).collect();
    device.stdin().write_all(lines.as_bytes()).unwrap();
}

fn sub(folder: &Path, peers: &str, count: u32) -> Liner {
    let count = count.to_string();
    Liner::start(folder, &["sub", "t", "--name", "w", "--peer", peers, "--count", &count])
}

fn wanted(count: u32) -> Vec<String> {
    (1..=count).map(|n| format!("t device#{n} {n}")).collect()
}

#[test]
fn two_processes_talk_over_a_null_modem() {
    let folder = tempfile::tempdir().unwrap();
    let modem = NullModem::new(folder.path());
    let (gateway, peers, _) = gateway(folder.path(), &["--device", &modem.gateway_url()]);
    gateway.error_with(&format!("{} is open", modem.gateway_url()));
    let sub = sub(folder.path(), &peers, 3000);
    let args = ["device", "--topic", "t", "--serial", modem.device_path(), "--payload-from", "-"];
    let mut device = Liner::start(folder.path(), &args);
    feed(&mut device, 1..=3000);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(ended.errors[0].ends_with(&format!("at serial://{}", modem.device_path())), "{:?}", ended.errors);
    assert_eq!(sub.end().lines, wanted(3000));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn a_port_that_comes_and_goes_is_told_of_and_loses_nothing() {
    const ROUNDS: u32 = 5;
    let folder = tempfile::tempdir().unwrap();
    let mut modem = NullModem::new(folder.path());
    modem.pull_out();
    let url = modem.gateway_url();
    let (gateway, peers, _) = gateway(folder.path(), &["--device", &url]);
    gateway.error_with(&format!("{url} is away: it is opened again"));
    let count = ROUNDS * 200 + 100;
    let sub = sub(folder.path(), &peers, count);
    let args = ["device", "--topic", "t", "--serial", modem.device_path(), "--payload-from", "-"];
    let mut device = Liner::start(folder.path(), &args);
    device.error_with("device-port is not there");
    let mut stdin = device.stdin();
    let mut lines = Vec::new();
    for round in 0..ROUNDS {
        modem.plug_in();
        gateway.error_with(&format!("{url} is open"));
        let next: String = (round * 200 + 1..=round * 200 + 200).map(|n| format!("{n}\n")).collect();
        stdin.write_all(next.as_bytes()).unwrap();
        // It is pulled out while the rest of these is under way.
        lines.extend((0..150).map(|_| sub.line().unwrap()));
        modem.pull_out();
        gateway.error_with(&format!("{url} is away"));
    }
    modem.plug_in();
    let rest: String = (ROUNDS * 200 + 1..=count).map(|n| format!("{n}\n")).collect();
    stdin.write_all(rest.as_bytes()).unwrap();
    drop(stdin);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let told = ended.errors.iter().filter(|line| line.contains("is not there")).count();
    assert_eq!(told, 0, "it was told before: {:?}", ended.errors);
    lines.extend(sub.end().lines);
    assert_eq!(lines, wanted(count));
}

#[test]
fn a_gateway_that_is_killed_takes_the_line_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let modem = NullModem::new(folder.path());
    let line = ["--device", &modem.gateway_url()];
    let args = ["device", "--topic", "t", "--serial", modem.device_path(), "--payload-from", "-", "--json"];
    let mut device = Liner::start(folder.path(), &args);
    let mut stdin = device.stdin();
    for round in 1..=3 {
        let (gateway, ..) = gateway(folder.path(), &line);
        let next: String = (round * 100 - 99..=round * 100).map(|n| format!("{n}\n")).collect();
        stdin.write_all(next.as_bytes()).unwrap();
        while device.json()["acknowledged"] != round * 100 {}
        gateway.kill();
    }
    drop(stdin);
    let (_gateway, peers, _) = gateway(folder.path(), &line);
    assert_eq!(device.end().code, Some(0));
    let lines = sub(folder.path(), &peers, 300).end().lines;
    // What the device sent while nobody was there is marked: it cannot know that it did not arrive.
    let unmarked: Vec<String> = lines.iter().map(|line| line.replacen("* ", " ", 1)).collect();
    assert_eq!(unmarked, wanted(300));
}

#[test]
fn a_bridge_leads_to_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", bridge.local_addr().unwrap());
    let (_gateway, peers, _) = gateway(folder.path(), &["--device", &url]);
    let path = folder.path().join("port");
    let (end, kept) = port(&path);
    let (socket, _) = bridge.accept().unwrap();
    let _cable = Cable::new([File::from(OwnedFd::from(socket)), end], vec![kept]);
    let sub = sub(folder.path(), &peers, 500);
    let args = ["device", "--topic", "t", "--serial", path.to_str().unwrap(), "--payload-from", "-"];
    let mut device = Liner::start(folder.path(), &args);
    feed(&mut device, 1..=500);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(sub.end().lines, wanted(500));
}

#[test]
fn a_port_in_use_is_told_of_and_taken_later() {
    let folder = tempfile::tempdir().unwrap();
    let modem = NullModem::new(folder.path());
    let url = modem.gateway_url();
    let (first, ..) = gateway(folder.path(), &["--store", "ram:", "--device", &url]);
    first.error_with(&format!("{url} is open"));
    let (second, ..) = gateway(folder.path(), &["--store", "ram:", "--name", "second", "--device", &url]);
    let told = second.error_with("in use by another program");
    assert!(told.contains("stop that one") && told.contains("tried again"), "{told}");
    let args = ["device", "--topic", "t", "--serial", &modem.gateway_url(), "--count", "1"];
    let device = Liner::start(folder.path(), &args);
    device.error_with("in use by another program");
    device.kill();
    first.kill();
    second.error_with(&format!("{url} is open"));
}

#[test]
fn lines_are_listed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let urls = ["serial:///dev/nothing-here?duplex=half", "tcp://127.0.0.1:1"];
    let args = ["gateway", "--store", "ram:", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"];
    let args = [&args[..], &["--device", urls[0], "--device", urls[1]]].concat();
    let json = Liner::start(folder.path(), &[&args[..], &["--json"]].concat());
    assert_eq!(json.json()["event"], "started");
    assert_eq!(json.json()["lines"], serde_json::json!(urls));
    let plain = Liner::start(folder.path(), &args);
    for url in urls {
        while !plain.line().unwrap().ends_with(url) {}
    }
}

#[test]
fn a_line_that_is_none_is_told_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str], words: &str| {
        let ended = run(folder.path(), args);
        let errors = ended.errors.join("\n");
        assert_eq!(ended.code, Some(2), "{errors}");
        assert!(errors.contains(words), "{errors}");
    };
    let gateway = |url| ["gateway", "--store", "ram:", "--device", url];
    refused(&gateway("/dev/ttyUSB0"), "write serial:///dev/ttyUSB0");
    refused(&gateway("serial:///dev/ttyUSB0?baud=fast"), "baud=115200");
    refused(&[&gateway("tcp://a:1")[..], &["--device", "tcp://a:1"]].concat(), "twice");
    let device = ["device", "--topic", "t", "--serial", "/dev/ttyUSB0"];
    refused(&[&device[..], &["--connect", "127.0.0.1:1"]].concat(), "cannot be used with");
}
