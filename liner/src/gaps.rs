//! Gaps as they are told: one line a second for each sender and reason, however many pieces they come in.

use std::time::Duration;

use liner_mio::Event;
use liner_proto::effect::GapReason;

const SECOND: Duration = Duration::from_secs(1);

/// What has not been told yet.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    waiting: Vec<(Box<str>, GapReason, u64)>,
    /// When the next ones may be told.
    next: Duration,
}

impl Gaps {
    /// Takes an event that is a gap, and gives back any other.
    pub(crate) fn take(&mut self, event: Event) -> Option<Event> {
        let Event::Gap { from, count, reason } = event else { return Some(event) };
        match self.waiting.iter_mut().find(|gap| (&gap.0, gap.1) == (&from, reason)) {
            Some(gap) => gap.2 += count,
            None => self.waiting.push((from, reason, count)),
        }
        None
    }

    /// Whether there is something to tell.
    pub(crate) const fn is_owed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How long until some are to be told; nothing if there are none.
    pub(crate) fn left(&self, now: Duration) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| self.next.saturating_sub(now))
    }

    /// Those that are to be told now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Event> {
        if self.left(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        self.next = now + SECOND;
        self.rest()
    }

    /// All of them.
    pub(crate) fn rest(&mut self) -> Vec<Event> {
        let gaps = self.waiting.drain(..);
        gaps.map(|(from, reason, count)| Event::Gap { from, count, reason }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(count: u64, reason: GapReason) -> Event {
        Event::Gap { from: "gateway".into(), count, reason }
    }

    #[test]
    fn pieces_of_a_gap_are_told_together() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.take(Event::StoreRecovered), Some(Event::StoreRecovered));
        assert_eq!(gaps.left(Duration::ZERO), None);
        assert_eq!(gaps.take(gap(10, GapReason::Cleared)), None);
        assert_eq!(gaps.due(Duration::ZERO), [gap(10, GapReason::Cleared)], "the first one at once");
        for reason in [GapReason::Cleared, GapReason::Missing, GapReason::Cleared] {
            gaps.take(gap(7, reason));
        }
        let later = Duration::from_millis(400);
        assert_eq!((gaps.due(later), gaps.left(later)), (Vec::new(), Some(SECOND - later)));
        assert_eq!(gaps.due(SECOND), [gap(14, GapReason::Cleared), gap(7, GapReason::Missing)]);
        assert_eq!(gaps.left(SECOND), None);
    }
}
