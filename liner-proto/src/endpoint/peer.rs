//! The other side, for as long as the session is up: what the line owes it, and what it owes.

use super::carried::Carried;
use super::queue::Queue;
use super::topics::TopicSet;
use crate::config::LineConfig;
use crate::line::{Assembly, FRAMES_MAX, Receiving, Sending};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::time::{Moment, Tick};
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::device::TopicFull;

/// Frames that a device has under way.
const FRAMES: usize = 16;

/// How long the gateway may be silent about what it has had, or about a window that is shut, before it is asked. Microseconds.
const NUDGE: u32 = 2_000_000;

/// How often the gateway hears, at most, how many messages there are: so it knows what a reboot loses. Microseconds.
const TELL: u32 = 100_000;

/// A session that was not up for so many microseconds did not end the trouble before it.
const LASTING: u32 = 1_000_000;

#[derive(Debug)]
pub(super) struct Peer {
    /// When it answered.
    since: Tick,
    has_lasted: bool,
    /// Its acknowledgements stand for too little: nothing is sent to it.
    pub(super) held: bool,
    pub(super) sending: Sending<Carried, Tick, FRAMES>,
    pub(super) receiving: Receiving<Tick>,
    pub(super) assembly: Assembly,
    /// The number of the next record that comes; 0 before it was said.
    pub(super) expected: u64,
    /// The number that the peer takes the next record for; none that comes next before it was told one.
    pub(super) announced: u32,
    /// The record of which the next piece is to be sent, and where that begins.
    pub(super) partial: Option<(u32, u32)>,
    pub(super) bound: u16,
    /// Topics of which it keeps no more.
    pub(super) full: TopicSet,
    /// The last message of which it was said that it is too long; none that comes next before that.
    pub(super) told_long: u32,
    /// The next number as it was told last, and when.
    pub(super) told_next: u32,
    pub(super) told_at: Tick,
    nudge_at: Option<Tick>,
}

impl Peer {
    /// It has had everything up to `acked`, lets `window` frames be sent, and `own` may come.
    pub(super) fn new(
        now: Tick,
        line: LineConfig,
        planted: Planted,
        acked: u32,
        window: u32,
        own: u8,
    ) -> Self {
        Self {
            since: now,
            has_lasted: false,
            held: false,
            sending: Sending::new(
                now,
                line,
                planted,
                Carried::BLANK,
                window.min(u32::from(FRAMES_MAX)) as u8,
            ),
            receiving: Receiving::new(planted, own),
            assembly: Assembly::EMPTY,
            expected: 0,
            announced: acked,
            partial: None,
            bound: 0,
            full: TopicSet::EMPTY,
            told_long: acked,
            told_next: 0,
            told_at: now,
            nudge_at: None,
        }
    }

    /// Whether the session was up for so long that its end is no failure. Once it was, its beginning is of no account.
    pub(super) fn has_lasted(&self, now: Tick) -> bool {
        self.has_lasted || self.since.is_ago(LASTING, now)
    }

    pub(super) fn handle_topic_full(&mut self, topics: &[&str], full: &TopicFull<'_>) {
        match topics.iter().position(|text| full.topic == *text) {
            Some(place) if place < TopicSet::TOLD_APART => self.full.set(place, full.is_full),
            _ => {}
        }
    }

    /// Whether the gateway does not know how many messages there are.
    fn owes_next(&self, next: u64) -> bool {
        self.told_next != next as u32
    }

    /// Whether it is to hear of that now.
    pub(super) fn tells_next(&self, now: Tick, next: u64) -> bool {
        self.owes_next(next) && self.told_at.is_ago(TELL, now)
    }

    /// Whether only a word of the gateway's helps: it has all that was sent and has not committed it, or its window is shut.
    fn waits(&self, queue: &impl Queue) -> bool {
        self.sending.in_flight() == 0
            && (queue.waits() || (self.sending.is_shut() && queue.acked() + 1 != queue.next()))
    }

    pub(super) fn deadline(&self, now: Tick, queue: &impl Queue) -> Option<Deadline<Tick>> {
        let at = |at: Option<Tick>, why| at.map(|at| (at, why));
        let next = queue.next();
        let tell = (self.owes_next(next) && !self.tells_next(now, next)).then(|| self.told_at.after(TELL));
        let nudge = self.waits(queue).then(|| self.nudge_at.unwrap_or_else(|| now.after(NUDGE)));
        earlier(
            earlier(
                at(self.sending.deadline(), Wakeup::Retransmit),
                at(self.receiving.deadline(), Wakeup::Ack),
            ),
            earlier(at(tell, Wakeup::Ack), at(nudge, Wakeup::Probe)),
        )
    }

    /// Says whether the gateway is to be asked whether it is there.
    pub(super) fn handle_timeout(&mut self, now: Tick, queue: &impl Queue, rng: &mut Rng) -> bool {
        self.sending.handle_timeout(now, rng);
        self.has_lasted = self.has_lasted(now);
        if !self.waits(queue) {
            self.nudge_at = None;
            return false;
        }
        let next = now.after(NUDGE);
        let is_due = self.nudge_at.get_or_insert(next).is_past(now);
        if is_due {
            self.nudge_at = Some(next);
        }
        is_due
    }
}
