//! Lines to devices: opened, lost, opened again.

use std::fmt;
use std::time::Duration;

use liner_proto::line::LineStats;
use liner_proto::time::Instant;

use super::url::{LineUrl, Place};

/// How long after a failure a line is tried again. It doubles with each failure in a row, up to a bound.
const RETRY: Duration = Duration::from_millis(100);
/// The bound for a port: what was plugged in again is found within this time.
const PORT_RETRY_MAX: Duration = Duration::from_millis(250);
/// The bound for a bridge: each try costs a connection over the network.
const BRIDGE_RETRY_MAX: Duration = Duration::from_secs(5);

/// What has become of a line to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineEvent {
    /// The line, as it was given to [`Builder::line`](crate::Builder::line).
    pub line: String,
    /// How it stands.
    pub state: LineState,
}

/// How a line to a device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineState {
    /// It is open. Whether a device is at its other end is another matter.
    Open,
    /// It is not there, or is there no more. It is opened as soon as it is back.
    Away,
    /// It cannot be opened, though it may be there. It is tried again all the same.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

impl fmt::Display for LineEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = &self.line;
        match &self.state {
            LineState::Open => write!(f, "{line} is open"),
            LineState::Away => write!(f, "{line} is away: it is opened again as soon as it is there"),
            LineState::Refused { why } => write!(f, "{why}; it is tried again until it opens"),
        }
    }
}

/// A line of a node, open or not.
#[derive(Debug)]
pub(crate) struct Line {
    url: LineUrl,
    phase: Phase,
    /// What the next failure costs.
    wait: Duration,
    /// A frame has come since it was opened the last time. A bridge that accepts, says why it has no use for the connection, and
    /// closes it is not told of as open, nor dialled as if it had worked.
    proved: bool,
    /// Nothing before the first try has ended.
    state: Option<LineState>,
    told: Option<LineState>,
    /// What has happened on it in connections that are over.
    pub(crate) stats: LineStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is opened at this time.
    Down(Instant),
    /// It is being opened, or is open.
    Busy,
    /// It is opened no more.
    Over,
}

impl Line {
    pub(crate) const fn new(url: LineUrl) -> Self {
        let stats = LineStats {
            frames_received: 0,
            frames_sent: 0,
            seal_errors: 0,
            resyncs: 0,
            retransmissions: 0,
            duplicates: 0,
            rtt: None,
        };
        let phase = Phase::Down(Instant::ZERO);
        Self { url, phase, wait: RETRY, proved: true, state: None, told: None, stats }
    }

    pub(crate) const fn url(&self) -> &LineUrl {
        &self.url
    }

    /// When it is to be opened.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down(at) => Some(at),
            Phase::Busy | Phase::Over => None,
        }
    }

    /// Whether it is to be opened now. If so, one of the methods below has to say what became of it.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.deadline().is_some_and(|at| at <= now);
        if due {
            self.phase = Phase::Busy;
        }
        due
    }

    /// It is open.
    pub(crate) fn opened(&mut self) {
        if self.is_port() || self.proved {
            self.state = Some(LineState::Open);
        }
        self.proved = false;
    }

    /// Whether a frame that comes is news.
    pub(crate) const fn is_unproved(&self) -> bool {
        !self.proved
    }

    /// A frame has come.
    pub(crate) fn heard(&mut self) {
        if !self.proved {
            self.proved = true;
            self.state = Some(LineState::Open);
            self.wait = RETRY;
        }
    }

    /// It was open and is no more, or cannot be opened.
    pub(crate) fn failed(&mut self, now: Instant, state: LineState) {
        self.state = Some(state);
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Down(now + self.wait);
        let most = if self.is_port() { PORT_RETRY_MAX } else { BRIDGE_RETRY_MAX };
        self.wait = (2 * self.wait).min(most);
    }

    /// It is not opened again.
    pub(crate) const fn end(&mut self) {
        self.phase = Phase::Over;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// What is new about it since this was asked the last time.
    pub(crate) fn poll(&mut self) -> Option<LineEvent> {
        if self.told == self.state {
            return None;
        }
        self.told.clone_from(&self.state);
        let state = self.state.clone()?;
        Some(LineEvent { line: self.url.to_string(), state })
    }

    fn is_port(&self) -> bool {
        matches!(self.url.place(), Place::Serial(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(url: &str) -> Line {
        Line::new(url.parse().unwrap())
    }

    fn told(line: &mut Line) -> Option<LineState> {
        line.poll().map(|event| event.state)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// The times between tries that all fail.
    fn waits(line: &mut Line) -> Vec<u128> {
        (0..8)
            .map(|_| {
                let now = line.deadline().unwrap();
                assert!(line.take_due(now) && !line.take_due(now));
                line.failed(now, LineState::Away);
                line.deadline().unwrap().since(now).as_millis()
            })
            .collect()
    }

    #[test]
    fn a_port_is_looked_for_twice_a_second() {
        assert_eq!(waits(&mut line("serial:///p")), [100, 200, 250, 250, 250, 250, 250, 250]);
    }

    #[test]
    fn a_bridge_is_dialled_ever_more_seldom() {
        assert_eq!(waits(&mut line("tcp://h:1")), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut line = line("serial:///p");
        assert_eq!(told(&mut line), None);
        for round in 0..3 {
            for _ in 0..3 {
                assert!(line.take_due(at(1000)));
                line.failed(Instant::ZERO, LineState::Away);
            }
            assert_eq!(told(&mut line), Some(LineState::Away), "round {round}");
            assert_eq!(told(&mut line), None);
            assert!(line.take_due(at(1000)));
            line.opened();
            assert_eq!(told(&mut line), Some(LineState::Open));
            line.heard();
            assert_eq!(told(&mut line), None);
            line.failed(Instant::ZERO, LineState::Away);
        }
    }

    #[test]
    fn a_reason_is_told_when_it_changes() {
        let mut line = line("serial:///p");
        let refused = |why: &str| LineState::Refused { why: why.to_owned() };
        for (why, new) in [("busy", true), ("busy", false), ("locked", true), ("locked", false)] {
            assert!(line.take_due(at(10_000)));
            line.failed(Instant::ZERO, refused(why));
            assert_eq!(told(&mut line), new.then(|| refused(why)));
        }
    }

    #[test]
    fn a_bridge_that_hangs_up_at_once_is_told_once() {
        let mut line = line("tcp://h:1");
        assert!(line.take_due(at(0)));
        assert_eq!(told(&mut line), None);
        line.opened();
        assert_eq!(told(&mut line), Some(LineState::Open));
        line.failed(Instant::ZERO, LineState::Away);
        assert_eq!(told(&mut line), Some(LineState::Away));
        for _ in 0..3 {
            line.opened();
            assert_eq!(told(&mut line), None);
            line.failed(Instant::ZERO, LineState::Away);
        }
        line.opened();
        line.heard();
        assert_eq!(told(&mut line), Some(LineState::Open));
        line.failed(at(0), LineState::Away);
        assert_eq!(line.deadline(), Some(at(100)), "it had worked");
    }

    #[test]
    fn what_is_over_is_opened_no_more() {
        let mut line = line("serial:///p");
        line.end();
        line.failed(at(1), LineState::Away);
        assert!(!line.take_due(at(10_000)) && line.deadline().is_none() && line.is_over());
    }
}
