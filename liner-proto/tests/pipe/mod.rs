//! A line that loses and damages bytes, in virtual time.

use std::collections::VecDeque;

use liner_proto::rng::Rng;
use liner_proto::time::{Duration, Instant};

/// What a line does to what is written on it.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    /// Bits turned, bytes lost and bytes inserted, in a million bytes.
    pub(crate) turned: u64,
    pub(crate) lost: u64,
    pub(crate) inserted: u64,
    pub(crate) baud: u32,
}

#[allow(dead_code, reason = "no test needs all of it")]
pub(crate) const CLEAN: Faults = Faults { turned: 0, lost: 0, inserted: 0, baud: 115_200 };

/// One direction of a line.
pub(crate) struct Pipe {
    pub(crate) faults: Faults,
    rng: Rng,
    /// When the line has sent what it was given.
    free_at: Instant,
    /// Bytes by when they arrive.
    bytes: VecDeque<(Instant, u8)>,
    pub(crate) carried: u64,
}

impl Pipe {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        let rng = Rng::new([seed, 0x6c69_6e65]);
        Self { faults, rng, free_at: Instant::ZERO, bytes: VecDeque::new(), carried: 0 }
    }

    fn chance(&mut self, in_a_million: u64) -> bool {
        self.rng.below(1_000_000) < in_a_million
    }

    pub(crate) fn put(&mut self, now: Instant, bytes: &[u8]) {
        for byte in bytes {
            self.free_at =
                self.free_at.max(now) + Duration::from_micros(10_000_000 / u64::from(self.faults.baud));
            self.carried += 1;
            if self.chance(self.faults.lost) {
                continue;
            }
            let turned = if self.chance(self.faults.turned) { 1 << self.rng.below(8) } else { 0 };
            self.bytes.push_back((self.free_at, byte ^ turned));
            if self.chance(self.faults.inserted) {
                let noise = self.rng.next() as u8;
                self.bytes.push_back((self.free_at, noise));
            }
        }
    }

    pub(crate) fn take(&mut self, now: Instant) -> Vec<u8> {
        let there = self.bytes.iter().take_while(|(at, _)| *at <= now).count();
        self.bytes.drain(..there).map(|(_, byte)| byte).collect()
    }
}
