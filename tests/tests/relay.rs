//! The relay between real ends: terminals that are opened, left, taken away and brought back, and TCP connections.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that waits in vain has to end, a pace is measured, and a helper fails with its test"
)]

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use liner_tests::relay::{Config, Port, Rates, Relay, Side};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(a: Port, b: Port) -> Config {
    Config { a, b, seed: 1, rates: Rates::NONE, baud: None }
}

fn ptys(folder: &Path) -> Config {
    config(Port::Pty(folder.join("a")), Port::Pty(folder.join("b")))
}

fn open(port: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(port).unwrap()
}

/// Until so many programs are there.
fn wait_for(relay: &Relay, connections: u64) {
    let until = Instant::now() + PATIENCE;
    while relay.counters().unwrap().connections < connections {
        assert!(Instant::now() < until, "{}", relay.counters().unwrap());
        std::thread::yield_now();
    }
}

/// Reads so many bytes in a thread, so that a test waits no longer than it has patience.
fn receive(mut from: impl Read + Send + 'static, len: usize) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; len];
        from.read_exact(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    receiver
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 256) as u8).collect()
}

#[test]
fn terminals_carry_every_byte_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(ptys(folder.path())).unwrap();
    let (a, b) = (open(&folder.path().join("a")), open(&folder.path().join("b")));
    wait_for(&relay, 2);
    for (to, from) in [(&a, &b), (&b, &a)] {
        let received = receive(from.try_clone().unwrap(), 100_000);
        // More than all buffers hold together: the relay stops reading and goes on.
        let mut to = to;
        to.write_all(&pattern(100_000)).unwrap();
        assert!(received.recv_timeout(PATIENCE).unwrap() == pattern(100_000));
    }
    let counters = relay.counters().unwrap();
    assert_eq!((counters.from_a.delivered, counters.from_b.delivered), (100_000, 100_000), "{counters}");
}

#[test]
fn a_terminal_is_taken_away_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("a"), folder.path().join("b"));
    let relay = Relay::start(ptys(folder.path())).unwrap();
    let mut b = open(&other);
    let mut connections = 1;
    for _ in 0..20 {
        let mut a = open(&path);
        connections += 1;
        wait_for(&relay, connections);
        b.write_all(b"hello").unwrap();
        assert_eq!(receive(a.try_clone().unwrap(), 5).recv_timeout(PATIENCE).unwrap(), b"hello");
        relay.remove(Side::A).unwrap();
        assert_eq!(std::fs::read_link(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(matches!(a.read(&mut [0; 8]), Ok(0) | Err(_)), "the program is told");
        relay.bring_back(Side::A).unwrap();
    }
    assert_eq!(relay.counters().unwrap().removals, 20);
    drop(relay);
    assert!(std::fs::read_link(&path).is_err(), "nothing is left of it");
}

#[test]
fn what_is_for_nobody_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(ptys(folder.path())).unwrap();
    let mut a = open(&folder.path().join("a"));
    wait_for(&relay, 1);
    a.write_all(&[1; 1000]).unwrap();
    let until = Instant::now() + PATIENCE;
    while relay.counters().unwrap().from_a.unheard < 1000 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    let b = open(&folder.path().join("b"));
    wait_for(&relay, 2);
    a.write_all(&[2; 10]).unwrap();
    assert_eq!(receive(b, 10).recv_timeout(PATIENCE).unwrap(), [2; 10]);
}

#[test]
fn a_line_keeps_its_pace() {
    const BAUD: u32 = 115_200;
    const BYTES: usize = 11_520;
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(Config { baud: Some(BAUD), ..ptys(folder.path()) }).unwrap();
    let (mut a, b) = (open(&folder.path().join("a")), open(&folder.path().join("b")));
    wait_for(&relay, 2);
    let begun = Instant::now();
    let received = receive(b, BYTES);
    a.write_all(&pattern(BYTES)).unwrap();
    assert!(received.recv_timeout(PATIENCE).unwrap() == pattern(BYTES));
    // One second; a busy machine may make it longer, and nothing makes it shorter.
    assert!(begun.elapsed() >= Duration::from_millis(950), "{:?}", begun.elapsed());
}

#[test]
fn connections_are_relayed_cut_and_refused() {
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = gateway.local_addr().unwrap();
    let relay =
        Relay::start(config(Port::Listen("127.0.0.1:0".parse().unwrap()), Port::Dial(target))).unwrap();
    let address = relay.address(Side::A).unwrap().unwrap();
    for round in 1..=3 {
        let mut device = TcpStream::connect(address).unwrap();
        let (far, _) = gateway.accept().unwrap();
        device.write_all(&pattern(50_000)).unwrap();
        assert!(receive(far.try_clone().unwrap(), 50_000).recv_timeout(PATIENCE).unwrap() == pattern(50_000));
        device.set_read_timeout(Some(PATIENCE)).unwrap();
        match round {
            1 => relay.cut().unwrap(),
            2 => drop(far),
            _ => continue,
        }
        assert!(matches!(device.read(&mut [0; 8]), Ok(0) | Err(_)));
        let counters = relay.counters().unwrap();
        assert_eq!((counters.connections, counters.resets), (round, round), "{counters}");
    }
    drop(gateway);
    let mut device = TcpStream::connect(address).unwrap();
    device.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = device.read(&mut [0; 8]);
    assert!(
        matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "a gateway that is away is not there for the device either"
    );
}

#[test]
fn a_terminal_and_a_connection_are_a_bridge() {
    let folder = tempfile::tempdir().unwrap();
    let listen = Port::Listen("127.0.0.1:0".parse().unwrap());
    let relay = Relay::start(config(Port::Pty(folder.path().join("a")), listen)).unwrap();
    let a = open(&folder.path().join("a"));
    let mut gateway = TcpStream::connect(relay.address(Side::B).unwrap().unwrap()).unwrap();
    wait_for(&relay, 2);
    gateway.write_all(&pattern(10_000)).unwrap();
    assert!(receive(a, 10_000).recv_timeout(PATIENCE).unwrap() == pattern(10_000));
    relay.cut().unwrap();
    gateway.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(gateway.read(&mut [0; 8]), Ok(0) | Err(_)));
    let _again = TcpStream::connect(relay.address(Side::B).unwrap().unwrap()).unwrap();
    wait_for(&relay, 3);
}

#[test]
fn frames_are_held_back_and_put_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(ptys(folder.path())).unwrap();
    let (mut a, b) = (open(&folder.path().join("a")), open(&folder.path().join("b")));
    wait_for(&relay, 2);
    a.write_all(&[1, 0]).unwrap();
    assert_eq!(receive(b.try_clone().unwrap(), 2).recv_timeout(PATIENCE).unwrap(), [1, 0]);
    relay.hold(Side::A).unwrap();
    a.write_all(&[2, 0, 3, 0]).unwrap();
    let until = Instant::now() + PATIENCE;
    while relay.counters().unwrap().from_a.frames.count < 3 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    let held = relay.release(Side::A).unwrap();
    assert_eq!(held, [2, 0, 3, 0]);
    let received = receive(b, 8);
    // Without anything coming in, too.
    relay.inject(Side::A, held).unwrap();
    a.write_all(&[4, 0]).unwrap();
    let received = received.recv_timeout(PATIENCE).unwrap();
    assert!(received == [0, 2, 0, 3, 0, 0, 4, 0] || received == [4, 0, 0, 2, 0, 3, 0, 0], "{received:?}");
    assert_eq!(relay.recent(Side::A).unwrap(), [1, 0, 4, 0]);
}
