//! Losses, told with a count: the first at once, and then once in a while, however many there are.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::Router;
use super::event::Event;
use crate::effect::DeadReason;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};

/// How long losses of one kind are counted before they are told again.
const PAUSE: Duration = Duration::from_secs(1);

/// Kinds of losses that are counted at a time; one more is told at once.
const ENTRIES_MAX: usize = 64;

/// A kind of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss<'a> {
    /// The node at the other end of the stream.
    pub(super) name: &'a str,
    pub(super) topic: &'a str,
    pub(super) reason: DeadReason,
    /// Whether the messages are among the dead letters.
    pub(super) kept: bool,
}

impl Loss<'_> {
    fn event(&self, count: u64) -> Event {
        let (name, topic, reason) = (self.name.into(), self.topic.into(), self.reason);
        if self.kept {
            Event::DeadLetter { name, topic, reason, count }
        } else {
            Event::Dropped { name, topic, reason, count }
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    topic: Box<str>,
    reason: DeadReason,
    kept: bool,
    /// Not told yet.
    count: u64,
    due: Instant,
}

impl Entry {
    fn loss(&self) -> Loss<'_> {
        Loss { name: &self.name, topic: &self.topic, reason: self.reason, kept: self.kept }
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    entries: Vec<Entry>,
}

impl Tally {
    /// Counts a loss. Returns what is to be told now.
    pub(super) fn add(&mut self, now: Instant, loss: Loss<'_>, count: u64) -> Option<Event> {
        self.entries.retain(|entry| entry.count > 0 || entry.due > now);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.loss() == loss) {
            entry.count += count;
            return None;
        }
        if self.entries.len() < ENTRIES_MAX {
            let Loss { name, topic, reason, kept } = loss;
            let (name, topic) = (name.into(), topic.into());
            self.entries.push(Entry { name, topic, reason, kept, count: 0, due: now + PAUSE });
        }
        Some(loss.event(count))
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let untold = self.entries.iter().filter(|entry| entry.count > 0);
        untold.map(|entry| entry.due).min().map(|at| (at, Wakeup::Report))
    }
}

impl Router {
    /// Tells what was counted for long enough.
    pub(super) fn tell_losses(&mut self) {
        let now = self.now;
        for entry in self.tally.entries.iter_mut().filter(|entry| entry.count > 0 && entry.due <= now) {
            self.events.push(entry.loss().event(entry.count));
            (entry.count, entry.due) = (0, now + PAUSE);
        }
    }
}
