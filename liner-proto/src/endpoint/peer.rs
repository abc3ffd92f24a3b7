//! The other side, for as long as the session is up: what the line owes it, and what it owes.

use super::topics::TopicSet;
use crate::config::LineConfig;
use crate::delivery::Outbound;
use crate::line::{Assembly, Carried, FRAMES_MAX, LineStats, Receiving, Sending};
use crate::memory::Ring;
use crate::planted::Planted;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::control::TopicFull;

/// Frames that a device has under way.
const FRAMES: usize = 16;

/// How long the gateway may be silent about what it has had, or about a window that is shut, before it is asked.
const NUDGE: Duration = Duration::from_secs(2);

/// How often the gateway hears, at most, how many messages there are: so it knows what a reboot loses.
const TELL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Peer {
    /// When it answered.
    pub(super) since: Instant,
    /// Its acknowledgements stand for too little: nothing is sent to it.
    pub(super) held: bool,
    pub(super) sending: Sending<Carried, FRAMES>,
    pub(super) receiving: Receiving,
    pub(super) assembly: Assembly,
    /// The number of the next record that comes; 0 before it was said.
    pub(super) expected: u64,
    /// The number that the peer takes the next record for; 0 before it was told.
    pub(super) announced: u64,
    /// The last number of which it is known that it has arrived.
    pub(super) arrived: u64,
    /// The record of which the next piece is to be sent, and where that begins.
    pub(super) partial: (u64, u32),
    pub(super) bound: u16,
    /// Topics of which it keeps no more.
    pub(super) full: TopicSet,
    /// The last message of which it was said that it is too long; 0 if it was said of none.
    pub(super) told_long: u64,
    /// The next number as it was told last, and when.
    pub(super) told_next: (u64, Instant),
    nudge_at: Option<Instant>,
}

impl Peer {
    pub(super) fn new(
        now: Instant,
        held: bool,
        (line, planted): (LineConfig, Planted),
        (acked, window, own): (u64, u32, u8),
    ) -> Self {
        let window = window.min(u32::from(FRAMES_MAX)) as u8;
        Self {
            since: now,
            held,
            sending: Sending::new(line, planted, Carried::Other(0), window),
            receiving: Receiving::new(planted, own),
            assembly: Assembly::EMPTY,
            expected: 0,
            announced: 0,
            arrived: acked,
            partial: (0, 0),
            bound: 0,
            full: TopicSet::EMPTY,
            told_long: 0,
            told_next: (0, now),
            nudge_at: None,
        }
    }

    pub(super) fn stats(&self) -> LineStats {
        self.sending.stats()
    }

    pub(super) fn handle_topic_full(&mut self, topics: &[&str], full: &TopicFull<'_>) {
        let topics = topics.iter().enumerate().take(TopicSet::TOLD_APART);
        for (place, _) in topics.filter(|(_, text)| **text == full.topic) {
            if full.after > 0 {
                self.full.insert(place);
            } else {
                self.full.remove(place);
            }
        }
    }

    /// Whether the gateway does not know how many messages there are.
    pub(super) const fn owes_next<R: Ring>(&self, out: &Outbound<R>) -> bool {
        self.told_next.0 < out.next()
    }

    /// Whether it is to hear of that now.
    pub(super) fn tells_next<R: Ring>(&self, now: Instant, out: &Outbound<R>) -> bool {
        self.owes_next(out) && self.told_next.1 + TELL <= now
    }

    /// Whether only a word of the gateway's helps: it has all that was sent and has not committed it, or its window is shut.
    fn waits<R: Ring>(&self, out: &Outbound<R>) -> bool {
        self.sending.in_flight() == 0
            && (out.acked() + 1 < out.sent() || (self.sending.is_shut() && out.queued() > 0))
    }

    pub(super) fn deadline<R: Ring>(&self, now: Instant, out: &Outbound<R>) -> Option<Deadline> {
        let at = |at: Option<Instant>, why| at.map(|at| (at, why));
        let ready = Some(self.sending.ready_at()).filter(|at| *at > now);
        let tell = self.owes_next(out).then_some(self.told_next.1 + TELL).filter(|at| *at > now);
        let nudge = self.waits(out).then_some(self.nudge_at.unwrap_or(now + NUDGE));
        earlier(
            earlier(
                at(self.sending.deadline(), Wakeup::Retransmit),
                at(self.receiving.deadline(), Wakeup::Ack),
            ),
            earlier(at(ready, Wakeup::Line), earlier(at(tell, Wakeup::Ack), at(nudge, Wakeup::Probe))),
        )
    }

    /// Says whether the gateway is to be asked whether it is there.
    pub(super) fn handle_timeout<R: Ring>(&mut self, now: Instant, out: &Outbound<R>, rng: &mut Rng) -> bool {
        self.sending.handle_timeout(now, rng);
        if !self.waits(out) {
            self.nudge_at = None;
            return false;
        }
        let at = *self.nudge_at.get_or_insert(now + NUDGE);
        if at > now {
            return false;
        }
        self.nudge_at = Some(now + NUDGE);
        true
    }
}
