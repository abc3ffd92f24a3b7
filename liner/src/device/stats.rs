//! What has happened on a device's line since the start.

use liner_proto::line::LineStats;

/// Counts over all sessions. The core begins to count anew with each of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    /// Those of the sessions before.
    before: LineStats,
    /// Those of this one, as they were seen last.
    session: LineStats,
    told: LineStats,
}

impl Stats {
    /// What the core says now.
    pub(super) const fn note(&mut self, session: LineStats) {
        self.session = session;
    }

    /// A session has begun: what was noted last is of the one before.
    pub(super) fn begin(&mut self) {
        self.before += self.session;
        self.session = LineStats::default();
    }

    /// Whether there is something that was not told.
    pub(super) fn is_owed(&self) -> bool {
        self.total() != self.told
    }

    /// What is to be told.
    pub(super) fn take(&mut self) -> LineStats {
        self.told = self.total();
        self.told
    }

    fn total(&self) -> LineStats {
        let mut total = self.before;
        total += self.session;
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_from_session_to_session() {
        let of = |frames_sent| LineStats { frames_sent, ..LineStats::default() };
        let mut stats = Stats::default();
        assert!(!stats.is_owed());
        stats.note(of(3));
        stats.begin();
        stats.note(of(2));
        assert!(stats.is_owed());
        assert_eq!(stats.take().frames_sent, 5);
        stats.note(of(2));
        assert!(!stats.is_owed());
    }
}
