//! What a subscriber has had of a device that is rebooted: the messages of each of its lives, by their numbers.

use std::ops::RangeInclusive;

use readings::{Command, Report, Reset, TOPICS, decode};
use serde_json::Value;

use super::arrivals::{check_reading, payload};
use crate::process::Liner;

/// The messages between two starts, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Their numbers, which rise.
    pub(super) numbers: Vec<u64>,
    /// Bytes of their payloads.
    pub(super) lens: Vec<usize>,
    pub(super) reports: Vec<Report>,
}

impl Life {
    pub(super) fn last(&self) -> u64 {
        self.numbers.last().copied().unwrap_or(0)
    }

    /// The numbers that are missing, from 1 on.
    pub(super) fn missing(&self) -> Vec<RangeInclusive<u64>> {
        let before = [0].into_iter().chain(self.numbers.iter().copied());
        let pairs = before.zip(&self.numbers);
        pairs
            .filter(|(before, next)| before + 1 < **next)
            .map(|(before, next)| before + 1..=next - 1)
            .collect()
    }

    /// Its first message, which says why it has begun.
    pub(super) fn started(&self) -> (u32, Reset, u32) {
        match self.reports.first() {
            Some(&Report::Started { start, reset, before }) => (start, reset, before),
            _ => panic!("{self:?} does not begin with its start"),
        }
    }

    /// How often this command was executed, and whether each time was marked.
    pub(super) fn executions(&self, command: Command) -> Vec<bool> {
        let executed = self.reports.iter().filter_map(|report| match *report {
            Report::Executed { command: done, maybe_again } if done == command => Some(maybe_again),
            Report::Started { .. }
            | Report::Executed { .. }
            | Report::Missed { .. }
            | Report::Health { .. } => None,
        });
        executed.collect()
    }

    /// The last report of its health.
    pub(super) fn health(&self) -> Option<Report> {
        self.reports.iter().rev().find(|report| matches!(report, Report::Health { .. })).copied()
    }
}

/// All lives, in the order of their messages.
#[derive(Debug, Default)]
pub(super) struct Lives(pub(super) Vec<Life>);

impl Lives {
    pub(super) fn now(&self) -> &Life {
        self.0.last().expect("something has come")
    }

    /// The next message. One that is not above the one before it is another life's, and a message of a life that is over is late.
    pub(super) fn take(&mut self, line: &Value) {
        let (payload, number) = (payload(line), line["seq"].as_u64().unwrap());
        let report = (line["topic"] == TOPICS[usize::from(Report::TOPIC)])
            .then(|| decode(&payload).unwrap_or_else(|| panic!("{line} is no report")));
        if matches!(report, Some(Report::Started { .. })) {
            assert_eq!(number, 1, "{line}");
            self.0.push(Life::default());
        }
        let life = self.0.last_mut().unwrap_or_else(|| panic!("{line} comes before any start"));
        assert!(number > life.last(), "{line} comes behind {}", life.last());
        life.numbers.push(number);
        life.lens.push(payload.len());
        match report {
            Some(report) => life.reports.push(report),
            None => _ = check_reading(line, &payload),
        }
    }

    pub(super) fn take_until(&mut self, sub: &Liner, mut is_so: impl FnMut(&Self) -> bool) {
        while !is_so(self) {
            self.take(&sub.json());
        }
    }

    /// Until there are so many lives, and so many messages of the last of them.
    pub(super) fn take_some(&mut self, sub: &Liner, lives: usize, messages: usize) {
        self.take_until(sub, |all| all.0.len() == lives && all.now().numbers.len() >= messages);
    }
}
