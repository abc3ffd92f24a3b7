//! What a gateway says about itself while it works.

use std::fmt;

use liner_mio::{Event, Node};
use serde::Serialize;

use crate::event;
use crate::out;

/// How far a gateway has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Nodes and devices that are connected.
    pub(super) connected: usize,
    /// Messages taken over since the start.
    pub(super) taken: u64,
    /// Messages that wait here for somebody.
    pub(super) in_custody: u64,
    /// Copies that subscribers have acknowledged since the start.
    pub(super) handed_on: u64,
}

impl Counts {
    /// Lists those who are connected: for once a second, not for every turn.
    pub(super) fn of(node: &Node) -> Self {
        Self {
            connected: node.peers_up().len(),
            taken: node.taken(),
            in_custody: node.queued_stored(),
            handed_on: node.handed_on(),
        }
    }

    /// Whether messages have moved since. Who has come or gone is told by events.
    pub(super) fn is_outdated(&self, node: &Node) -> bool {
        let Self { taken, in_custody, handed_on, .. } = *self;
        (taken, in_custody, handed_on) != (node.taken(), node.queued_stored(), node.handed_on())
    }
}

/// A status line, plain or as JSON.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Status {
    event: &'static str,
    connected: usize,
    taken: u64,
    taken_per_second: u64,
    in_custody: u64,
    handed_on: u64,
}

impl Status {
    /// What it was a second ago gives the rate.
    pub(super) const fn new(counts: &Counts, before: &Counts) -> Self {
        Self {
            event: "status",
            connected: counts.connected,
            taken: counts.taken,
            taken_per_second: counts.taken.saturating_sub(before.taken),
            in_custody: counts.in_custody,
            handed_on: counts.handed_on,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connected, taken, taken_per_second, in_custody, handed_on, .. } = self;
        write!(
            f,
            "connected {connected}  taken {taken} ({taken_per_second}/s)  in custody {in_custody}  handed on {handed_on}"
        )
    }
}

/// Lines of events a second: a stranger who knocks without end must not fill the log.
const LINES_MAX: usize = 10;

/// Events, told once a second.
#[derive(Debug, Default)]
pub(super) struct Told {
    lines: Vec<(bool, String)>,
    more: u64,
}

impl Told {
    pub(super) fn take(&mut self, event: &Event, said: Option<&str>) {
        if let Some(words) = event::words(event, said) {
            self.say(event::is_grave(event), words);
        }
    }

    /// Takes a sentence, which may be about what is lost or held up.
    pub(super) fn say(&mut self, is_grave: bool, words: String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push((is_grave, words));
        } else {
            self.more += 1;
        }
    }

    /// Whether there is something to tell.
    pub(super) const fn is_owed(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Tells it.
    pub(super) fn tell(&mut self) {
        for (is_grave, line) in self.drain() {
            if is_grave { out::warn(line) } else { out::tell(line) }
        }
    }

    fn drain(&mut self) -> Vec<(bool, String)> {
        let mut lines = std::mem::take(&mut self.lines);
        let more = std::mem::take(&mut self.more);
        if more > 0 {
            lines.push((false, format!("{more} more events")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_fits_a_terminal() {
        let before = Counts { taken: 99_000, ..Counts::default() };
        let counts = Counts { connected: 12, taken: 100_000, in_custody: 1000, handed_on: 99_000 };
        let line = Status::new(&counts, &before).to_string();
        assert_eq!(line, "connected 12  taken 100000 (1000/s)  in custody 1000  handed on 99000");
        assert!(line.len() <= 80);
    }

    #[test]
    fn events_without_end_are_counted() {
        let mut told = Told::default();
        assert!(!told.is_owed());
        for _ in 0..1000 {
            told.take(&Event::StoreRecovered, None);
        }
        let lines = told.drain();
        assert_eq!(lines.len(), 11);
        assert_eq!(lines.last().unwrap().1, "990 more events");
        assert!(!told.is_owed());
    }
}
