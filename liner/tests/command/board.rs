//! The README's device, run as it stands there against a gateway.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::path::gateway;
use crate::process::Liner;

// README: from here
use liner::proto::endpoint::{DeviceConfig, Endpoint, TopicIndex};
use liner::proto::pump::{self, Overflow};
use liner::proto::time::Instant;

/// A UART, a clock, a random source and a sensor.
trait Board {
    fn micros(&self) -> u64;
    fn random(&mut self) -> u64;
    fn reading(&mut self) -> Option<[u8; 4]>;
    fn receive(&mut self, into: &mut [u8]) -> usize;
    fn transmit(&mut self, bytes: &[u8]);
}

fn run(board: &mut impl Board) {
    let config = DeviceConfig::new("boiler", &["readings"], [board.random(), board.random()]);
    let mut line = Endpoint::<4096, 256>::new(config, Instant::from_micros(board.micros()));
    let (mut received, mut scratch) = ([0; 64], [0; 512]);
    loop {
        let now = Instant::from_micros(board.micros());
        // When RAM is full, the oldest reading gives way, and the gateway is told of the gap.
        if let Some(reading) = board.reading() {
            let message = (TopicIndex(0), &reading[..]);
            let _ = pump::send(&mut line, now, message, Overflow::DropOldest);
        }
        let len = board.receive(&mut received);
        let (bytes, _) = pump::turn(&mut line, now, &received[..len], &mut scratch, |_| {});
        board.transmit(bytes);
    }
}
// README: up to here

/// A board whose UART is a socket.
struct Host {
    stream: TcpStream,
    micros: u64,
    sent: u8,
}

const READINGS: u8 = 10;

impl Board for Host {
    fn micros(&self) -> u64 {
        self.micros
    }

    fn random(&mut self) -> u64 {
        std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
    }

    fn reading(&mut self) -> Option<[u8; 4]> {
        self.sent += 1;
        (self.sent <= READINGS).then_some([b'a', b'b', b'c', b'0' + self.sent - 1])
    }

    /// Waits a little for bytes, so that time passes as it does on a line. At the end of the line the device is switched off.
    fn receive(&mut self, into: &mut [u8]) -> usize {
        self.micros += 1000;
        self.sent = self.sent.min(READINGS);
        match self.stream.read(into) {
            Ok(len) if len > 0 => len,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                0
            }
            _ => loop {
                std::thread::park();
            },
        }
    }

    fn transmit(&mut self, bytes: &[u8]) {
        // At the end of the line it is switched off with its next read.
        let _ = self.stream.write_all(bytes);
    }
}

#[test]
fn the_device_of_the_readme_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &["--store", "ram:"]);
    let stream = TcpStream::connect(&devices).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    std::thread::spawn(|| run(&mut Host { stream, micros: 0, sent: 0 }));
    let count = READINGS.to_string();
    let sub =
        Liner::start(folder.path(), &["sub", "readings", "--name", "w", "--peer", &peers, "--count", &count]);
    let ended = sub.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let wanted: Vec<String> = (0..READINGS).map(|n| format!("readings boiler#{} abc{n}", n + 1)).collect();
    assert_eq!(ended.lines, wanted);
}

#[test]
fn the_readme_has_this_device() {
    let own = include_str!("board.rs");
    let code =
        own.split("// README: from here\n").nth(1).unwrap().split("// README: up to here").next().unwrap();
    assert!(include_str!("../../../README.md").contains(code), "README.md has another device than this file");
}
