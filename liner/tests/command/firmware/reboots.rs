//! The microcontroller is rebooted, by a command or for want of power: nothing new is taken for old, what was in RAM is told with the
//! right count, and no command is executed twice without a mark.

use std::ops::RangeInclusive;

use liner::proto::rng::Rng;
use liner_tests::relay::Rates;
use readings::{Command, Reset};

use super::lives::Lives;
use super::machine::Bench;
use super::{subscriber, tell};
use crate::line::reboots::{gap, wait_until};
use crate::line::setup::DEVICE;
use crate::line::{asked, seed};
use crate::process::Liner;

/// Longer than any frame without a message, and shorter than one with a stroke: behind the first of these nothing is handed on.
const SHORT: usize = 40;

/// To read the fast sensor seldom: what RAM holds is then a minute of readings, however long it takes to get there.
const SLOWER: Command = Command::SetPeriod(100);

#[test]
fn a_microcontroller_without_flash_is_rebooted() {
    be_rebooted("polled");
}

#[test]
fn a_microcontroller_that_counts_its_starts_is_rebooted() {
    be_rebooted("interrupt-flash");
}

/// A device in trouble: its messages do not arrive any more, but how many there are.
struct Trouble<'t> {
    bench: &'t mut Bench,
    gateway: &'t Liner,
    sub: &'t Liner,
    lives: &'t mut Lives,
}

impl Trouble<'_> {
    /// Waits until some messages are in RAM and nowhere else, and the gateway knows of them. Says how many it knows of at least.
    fn begin(&mut self, held: u64) -> u64 {
        self.bench.relay.swallow_above(DEVICE, Some(SHORT)).unwrap();
        let swallowed = |bench: &Bench| bench.relay.counters().unwrap().from_a.frames.swallowed;
        let before = swallowed(self.bench);
        wait_until("a stroke is lost", || swallowed(self.bench) > before);
        let from = self.bench.machine().queued();
        wait_until("some are held", || self.bench.machine().queued() >= from + held);
        let known = self.bench.machine().queued();
        // Ten times in a second the gateway hears how many there are, and there are about 13 of them in a second.
        wait_until("the gateway is told of them", || self.bench.machine().queued() >= known + 4);
        known
    }

    /// Cuts the power after the device has executed a command that it could not acknowledge.
    fn cut_power(&mut self, known: u64, command: Command) {
        let frames = |bench: &Bench| bench.relay.counters().unwrap().from_b.frames.count;
        self.bench.relay.hold(DEVICE).unwrap();
        let before = frames(self.bench);
        tell(self.bench.folder.path(), &self.bench.peers, command);
        wait_until("the command is on the line", || frames(self.bench) > before);
        // It reads at every turn, and it has had a few by then.
        let now = self.bench.machine().queued();
        wait_until("the device has had time for it", || self.bench.machine().queued() > now + 2);
        let queued = self.bench.cut_power();
        self.bench.relay.release(DEVICE).unwrap();
        self.bench.power();
        self.end(known..=queued);
    }

    /// Tells it to start anew. Says how many messages there were.
    fn reboot(&mut self, known: u64) -> u64 {
        tell(self.bench.folder.path(), &self.bench.peers, Command::Reboot);
        wait_until("it has started anew", || self.bench.machine().queued() < known);
        // Its last words spoke of all of them.
        self.end(known..=u64::MAX)
    }

    /// What has arrived of the life that is over, and what is told as gone, are together as many as there were.
    fn end(&mut self, queued: RangeInclusive<u64>) -> u64 {
        self.bench.relay.swallow_above(DEVICE, None).unwrap();
        let lives = self.lives.0.len();
        let (from, gone) = gap(self.gateway);
        self.lives.take_some(self.sub, lives + 1, 1);
        let over = &self.lives.0[lives - 1];
        assert_eq!((from.as_str(), over.missing()), ("press-1", Vec::new()));
        let all = over.last() + gone;
        assert!(queued.contains(&all), "{} arrived, {gone} are gone: not {queued:?}", over.last());
        all
    }
}

fn be_rebooted(program: &str) {
    let (seed, reboots) = (seed(), asked("LINER_E2E_FIRMWARE_REBOOTS", 4));
    let (mut rng, has_flash) = (Rng::new([seed, 4]), program.ends_with("-flash"));
    let mut bench = Bench::new(program, seed, Rates::NONE);
    let gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    bench.power();
    let mut lives = Lives::default();
    let mut before = (Reset::Power, 0);
    let mut commands = Vec::new();
    for reboot in 0..reboots {
        let life = 1 + reboot as usize;
        lives.take_some(&sub, life, 5 + rng.below(40) as usize);
        let start = if has_flash { life as u32 } else { 0 };
        assert_eq!(lives.now().started(), (start, before.0, before.1));
        if let Some(&in_doubt) = commands.last().filter(|_| before.0 == Reset::Power) {
            // It was executed in the life before, whose report has gone with it.
            lives.take_until(&sub, |lives| !lives.now().executions(in_doubt).is_empty());
            assert_eq!(lives.now().executions(in_doubt), [true]);
        }
        tell(bench.folder.path(), &bench.peers, SLOWER);
        lives.take_until(&sub, |lives| !lives.now().executions(SLOWER).is_empty());
        let held = 3 + rng.below(12);
        let mut trouble = Trouble { bench: &mut bench, gateway: &gateway, sub: &sub, lives: &mut lives };
        let known = trouble.begin(held);
        before = if rng.below(2) == 0 {
            let all = trouble.reboot(known);
            (Reset::Asked, all as u32)
        } else {
            let command = Command::SetPeriod(101 + reboot as u32);
            trouble.cut_power(known, command);
            commands.push(command);
            (Reset::Power, 0)
        };
    }
    lives.take_some(&sub, 1 + reboots as usize, 50);
    assert_eq!(lives.now().missing(), []);
    for &command in &commands {
        let executions: Vec<bool> = lives.0.iter().flat_map(|life| life.executions(command)).collect();
        assert!(executions.iter().skip(1).all(|is_marked| *is_marked), "{command:?}: {executions:?}");
    }
    println!("{program}, {reboots} reboots, {} of them without power", commands.len());
}
