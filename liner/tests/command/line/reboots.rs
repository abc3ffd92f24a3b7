//! A device that is rebooted in mid-stream: what it sends afterwards is new, what it held is gone and told.

use std::io::Write as _;

use liner::proto::rng::Rng;
use liner_tests::relay::Rates;
use serde_json::Value;

use super::setup::{BAUD, DEVICE, Feeder, Kind, Line, number, payload};
use super::{asked, seed};
use crate::process::{Liner, PATIENCE};

fn reboots() -> u64 {
    asked("LINER_E2E_REBOOTS", 3)
}

/// Messages in the order of their lives, each life's from 1 and without a hole.
struct Lives {
    seed: u64,
    life: u64,
    last: u64,
}

impl Lives {
    fn take(&mut self, line: &Value) {
        let (life, n) = number(self.seed, line);
        if life != self.life {
            assert_eq!(life, self.life + 1, "{line} is late: life {} has begun", self.life);
            (self.life, self.last) = (life, 0);
        }
        assert_eq!(n, self.last + 1, "{line}");
        self.last = n;
    }

    /// Until so many of this life have arrived.
    fn take_until(&mut self, sub: &Liner, life: u64, last: u64) {
        while (self.life, self.last) < (life, last) {
            self.take(&sub.json());
        }
    }
}

/// Looks again and again until it is so.
#[expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "it does not come to this: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn late_frames_of_a_device_that_was_rebooted_are_not_taken() {
    let (folder, seed) = (tempfile::tempdir().unwrap(), seed());
    let mut rng = Rng::new([seed, 2]);
    let line = Line::new(folder.path(), seed, Rates::NONE, Some(BAUD));
    let (gateway, sub, mut device) = (line.gateway(), line.subscriber(), line.device());
    let mut feeder = Feeder::start(device.stdin(), seed, 0, u64::MAX);
    let mut lives = Lives { seed, life: 0, last: 0 };
    let frames = || line.relay.counters().unwrap().from_a.frames.count;
    for life in 0..reboots() {
        lives.take_until(&sub, life, 20 + rng.below(60));
        // Some of its frames do not arrive before it is dead.
        line.relay.hold(DEVICE).unwrap();
        let some = frames() + 3;
        wait_until("frames are held back", || frames() >= some);
        device.kill();
        feeder.end();
        let mut late = line.relay.recent(DEVICE).unwrap();
        late.extend(line.relay.release(DEVICE).unwrap());

        // They come while the new one says hello, or behind the first message of it.
        device = line.device();
        if life % 2 == 0 {
            line.relay.inject(DEVICE, late.clone()).unwrap();
        }
        feeder = Feeder::start(device.stdin(), seed, life + 1, u64::MAX);
        lives.take_until(&sub, life + 1, 1);
        line.relay.inject(DEVICE, late).unwrap();
        lives.take_until(&sub, life + 1, 2);
    }
    line.relay.set_baud(None).unwrap();
    let sent = feeder.end();
    lives.take_until(&sub, reboots(), sent);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(sub.line_now().is_none(), "more arrived than was sent");
    let events: Vec<String> = std::iter::from_fn(|| gateway.line_now()).collect();
    assert!(!events.is_empty(), "the gateway tells nothing");
    println!("{} reboots: {line}", reboots());
}

/// Longer than any frame without a message, so that the relay can tell them apart by their lengths.
const SHORT: usize = 40;

/// What the next line of a device's status says it has taken, and what of it is acknowledged.
fn status(device: &Liner) -> (u64, u64) {
    let line = device.json();
    (line["sent"].as_u64().unwrap_or_default(), line["acknowledged"].as_u64().unwrap_or_default())
}

/// The next gap that the gateway tells of. An object with the event `gap`, the device's name in
/// `from`, and in `count` how many messages will not come.
pub(crate) fn gap(gateway: &Liner) -> (String, u64) {
    loop {
        let line = gateway.json();
        if line["event"] == "gap" {
            let count = line["count"].as_u64().unwrap_or_else(|| panic!("{line} has no count"));
            assert_eq!(line["reason"], "restarted", "{line}");
            return (line["from"].as_str().unwrap_or_default().to_owned(), count);
        }
    }
}

#[test]
fn what_a_rebooted_device_held_is_told_as_a_gap() {
    if Kind::asked() == Kind::Tcp {
        // A connection by TCP tells nobody what its device held.
        println!("not run: LINER_E2E_LINE=pty runs it");
        return;
    }
    let (folder, seed) = (tempfile::tempdir().unwrap(), seed());
    let mut rng = Rng::new([seed, 3]);
    let line = Line::new(folder.path(), seed, Rates::NONE, None);
    let (gateway, sub) = (line.gateway(), line.subscriber());
    let mut lives = Lives { seed, life: 0, last: 0 };
    for life in 0..reboots() {
        let mut device = line.device();
        let mut stdin = device.stdin();
        let mut feed = |numbers: std::ops::RangeInclusive<u64>| {
            numbers.for_each(|n| writeln!(stdin, "{}", payload(seed, life, n)).unwrap());
        };
        let (arrive, held) = (1 + rng.below(30), 1 + rng.below(40));
        feed(1..=arrive);
        lives.take_until(&sub, life, arrive);
        wait_until("all is acknowledged", || status(&device) == (arrive, arrive));
        // From here on only frames without a message arrive. They say which number comes next.
        line.relay.swallow_above(DEVICE, Some(SHORT)).unwrap();
        feed(arrive + 1..=arrive + held);
        wait_until("all is taken", || status(&device) == (arrive + held, arrive));
        let passed = || {
            let frames = line.relay.counters().unwrap().from_a.frames;
            frames.count - frames.swallowed
        };
        // Whatever it says from here on speaks of all of them.
        let some = passed() + 1;
        wait_until("the gateway is told what comes next", || passed() >= some);
        device.kill();
        line.relay.swallow_above(DEVICE, None).unwrap();

        // With its input open it stays until the gateway has seen that it is another one.
        let mut next = line.device();
        let stdin = next.stdin();
        assert_eq!(gap(&gateway), ("device".to_owned(), held), "life {life}");
        drop(stdin);
        assert_eq!(next.end().code, Some(0));
    }
    assert!(sub.line_now().is_none(), "what was gone has come");
    println!("{} reboots: {line}", reboots());
}
