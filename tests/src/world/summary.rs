//! What many worlds have in common.

use super::checker::{Counts, Rule};
use super::wire::{Harm, Tally};
use super::{Options, Report};

/// Results of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Reports of the seeds in which a promise was broken, without traces.
    pub broken: Vec<Report>,
    /// How often each rule was put to the test.
    pub counts: Counts,
    /// Faults of all worlds.
    pub faults: u64,
    /// What went wrong on wires, by kind.
    pub harms: Tally,
    /// Worlds in which something did.
    pub harmed: u64,
    /// Restarts of all worlds.
    pub restarts: u64,
    /// Crashes in the middle of a commit.
    pub torn: u64,
    /// Crashes that took memory.
    pub losses: u64,
    /// Messages that came again, marked.
    pub repeats: u64,
    /// Reads of queues from disks.
    pub loads: u64,
    /// Groups that forgot a queue.
    pub closed: u64,
    /// Subscribers that were given up and came back.
    pub revived: u64,
    /// Streams that waited for a subscriber of a full topic in the end.
    pub waiting: u64,
    /// Virtual time in all, in microseconds.
    pub time: u64,
    messages: Vec<u64>,
    nodes: Vec<u64>,
    fault_counts: Vec<u64>,
    restart_counts: Vec<u64>,
}

impl Summary {
    /// Runs the worlds of `seeds` in this thread, until `enough` says so.
    pub fn of(
        seeds: impl IntoIterator<Item = u64>,
        options: Options,
        mut enough: impl FnMut(&Self) -> bool,
    ) -> Self {
        let mut summary = Self::default();
        for seed in seeds {
            summary.add(super::run(seed, options));
            if enough(&summary) {
                break;
            }
        }
        summary
    }

    /// Runs the worlds of `seeds` in `threads` threads.
    pub fn of_threads(seeds: core::ops::Range<u64>, threads: u64, options: Options) -> Self {
        let mut summary = Self::default();
        std::thread::scope(|scope| {
            let share = |thread| (seeds.start + thread..seeds.end).step_by(threads as usize);
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let seeds = share(thread);
                    scope.spawn(move || Self::of(seeds, options, |_| false))
                })
                .collect();
            for worker in workers {
                // A thread that panicked has said so on its own.
                if let Ok(part) = worker.join() {
                    summary.join(part);
                }
            }
        });
        summary
    }

    /// Adds a world.
    pub fn add(&mut self, report: Report) {
        self.counts.add(&report.counts);
        self.faults += report.faults;
        self.harms.add(&report.harms);
        self.harmed += u64::from(report.harms.sum() > 0);
        self.restarts += report.restarts;
        self.torn += report.torn;
        self.losses += report.losses;
        self.repeats += report.repeats;
        self.loads += report.loads;
        self.closed += report.closed;
        self.revived += report.revived;
        self.waiting += report.waiting;
        self.time += report.ended;
        self.messages.push(report.messages);
        self.nodes.push(report.nodes);
        self.fault_counts.push(report.faults);
        self.restart_counts.push(report.restarts);
        if report.violation.is_some() {
            self.broken.push(report);
        }
    }

    fn join(&mut self, other: Self) {
        self.broken.extend(other.broken);
        self.broken.sort_by_key(|report| report.seed);
        self.counts.add(&other.counts);
        self.faults += other.faults;
        self.harms.add(&other.harms);
        self.harmed += other.harmed;
        self.restarts += other.restarts;
        self.torn += other.torn;
        self.losses += other.losses;
        self.repeats += other.repeats;
        self.loads += other.loads;
        self.closed += other.closed;
        self.revived += other.revived;
        self.waiting += other.waiting;
        self.time += other.time;
        self.messages.extend(other.messages);
        self.nodes.extend(other.nodes);
        self.fault_counts.extend(other.fault_counts);
        self.restart_counts.extend(other.restart_counts);
    }

    /// Worlds that were run.
    pub const fn worlds(&self) -> usize {
        self.messages.len()
    }

    /// The rules that were never put to the test.
    pub fn idle_rules(&self) -> Vec<Rule> {
        Rule::ALL.into_iter().filter(|rule| self.counts.of(*rule) == 0).collect()
    }

    /// Messages, nodes, faults and restarts of the median world.
    pub fn medians(&self) -> [u64; 4] {
        [&self.messages, &self.nodes, &self.fault_counts, &self.restart_counts].map(|values| median(values))
    }

    /// A few lines for people.
    pub fn lines(&self) -> Vec<String> {
        let [messages, nodes, faults, restarts] = self.medians();
        let harms = Harm::ALL.map(|harm| format!("{harm:?} {}", self.harms.of(harm)));
        let rules = Rule::ALL.map(|rule| format!("{rule:?} {}", self.counts.of(rule)));
        vec![
            format!(
                "{} worlds, {} h of virtual time; the median world: {messages} messages, {nodes} nodes, {faults} faults, {restarts} restarts",
                self.worlds(),
                self.time / 3_600_000_000
            ),
            format!(
                "{} faults, {} restarts ({} in a commit, {} with loss of memory), {} marked repeats, {} reads of queues",
                self.faults, self.restarts, self.torn, self.losses, self.repeats, self.loads
            ),
            format!(
                "{} queues forgotten, {} subscribers given up that came back, {} streams waiting for full topics",
                self.closed, self.revived, self.waiting
            ),
            format!("on the wires of {} worlds: {}", self.harmed, harms.join(", ")),
            format!("rules put to the test: {}", rules.join(", ")),
        ]
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
