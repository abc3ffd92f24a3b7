//! Peers that are named by their address, and when they are dialled.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::event::Event;
use super::{OutboxId, PeerId, Router};
use crate::id::ConnId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};

/// Names an address that the node dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialId(pub u32);

/// An address to dial now. Answer with [`Router::handle_dialed`] or [`Router::handle_dial_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial<'a> {
    /// Its name.
    pub id: DialId,
    /// The address as it was given.
    pub address: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialling,
    Connected(ConnId),
}

#[derive(Debug)]
struct Target {
    address: Box<str>,
    state: State,
    /// Since when there has been no session.
    down_since: Instant,
    failures: u32,
    /// Who answered there last.
    peer: Option<PeerId>,
    /// What waits for whoever answers there.
    outbox: Option<OutboxId>,
}

#[derive(Debug, Default)]
pub(super) struct Dials {
    targets: Vec<Target>,
    has_outboxes: bool,
}

impl Dials {
    pub(super) fn add(&mut self, address: &str, now: Instant) -> DialId {
        let known = self.targets.iter().position(|target| &*target.address == address);
        let index = known.unwrap_or_else(|| {
            self.targets.push(Target {
                address: address.into(),
                state: State::Waiting(now),
                down_since: now,
                failures: 0,
                peer: None,
                outbox: None,
            });
            self.targets.len() - 1
        });
        DialId(index as u32)
    }

    fn get(&self, id: DialId) -> Option<&Target> {
        self.targets.get(id.0 as usize)
    }

    fn get_mut(&mut self, id: DialId) -> Option<&mut Target> {
        self.targets.get_mut(id.0 as usize)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = DialId> + use<> {
        (0..self.targets.len() as u32).map(DialId)
    }

    pub(super) fn address(&self, id: DialId) -> &str {
        self.get(id).map_or("", |target| &target.address)
    }

    pub(super) fn peer(&self, id: DialId) -> Option<PeerId> {
        self.get(id)?.peer
    }

    /// Says who answered there before, if that was another one.
    pub(super) fn set_peer(&mut self, id: DialId, peer: PeerId) -> Option<PeerId> {
        self.get_mut(id)?.peer.replace(peer).filter(|other| *other != peer)
    }

    /// Whether anything ever waited for an address.
    pub(super) const fn has_outboxes(&self) -> bool {
        self.has_outboxes
    }

    pub(super) fn outbox(&self, id: DialId) -> Option<OutboxId> {
        self.get(id)?.outbox
    }

    pub(super) fn set_outbox(&mut self, id: DialId, outbox: OutboxId) {
        self.has_outboxes = true;
        if let Some(target) = self.get_mut(id) {
            target.outbox = Some(outbox);
        }
    }

    pub(super) fn connected(&mut self, id: DialId, conn: ConnId) {
        if let Some(target) = self.get_mut(id) {
            target.state = State::Connected(conn);
        }
    }

    /// The connection is gone, or never came to be. `was_up` says that there was a session on it.
    pub(super) fn lost(
        &mut self,
        now: Instant,
        id: DialId,
        conn: Option<ConnId>,
        was_up: bool,
        rng: &mut Rng,
    ) {
        let Some(target) = self.get_mut(id) else { return };
        if let (State::Connected(current), Some(lost)) = (target.state, conn)
            && current != lost
        {
            return;
        }
        if was_up {
            target.down_since = now;
            target.failures = 0;
        }
        let wait = back_off(now.since(target.down_since), target.failures);
        target.failures = target.failures.saturating_add(1);
        // Half of the wait is certain, half is drawn, so that nodes which lost one peer together do not return together.
        let micros = wait.as_micros() as u64;
        let wait = Duration::from_micros(micros / 2 + rng.below(micros / 2 + 1));
        target.state = State::Waiting(now + wait);
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let waiting = |target: &Target| match target.state {
            State::Waiting(at) => Some(at),
            State::Dialling | State::Connected(_) => None,
        };
        self.targets.iter().filter_map(waiting).min().map(|at| (at, Wakeup::Dial))
    }
}

/// How long to wait before dialling again: from 0.1 s, at most 0.25 s in the first minute without a session, 1 s in the
/// first ten minutes, 30 s after that.
fn back_off(down: Duration, failures: u32) -> Duration {
    let grown = Duration::from_millis(100) * 2_u32.saturating_pow(failures.min(10));
    let most = if down < Duration::from_secs(60) {
        Duration::from_millis(250)
    } else if down < Duration::from_secs(600) {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(30)
    };
    grown.min(most)
}

impl Router {
    /// The next address that is due. Each is given once until it was answered.
    pub fn poll_dial(&mut self, now: Instant) -> Option<Dial<'_>> {
        self.tick(now);
        if self.closing {
            return None;
        }
        let peers = &self.peers;
        let now = self.now;
        let due = |target: &Target| matches!(target.state, State::Waiting(at) if at <= now);
        for target in self.dials.targets.iter_mut().filter(|target| due(target)) {
            // One connection carries both directions, whoever dialled it.
            if target.peer.and_then(|peer| peers.get(peer.0)?.conn).is_some() {
                target.state = State::Waiting(now + Duration::from_secs(1));
            }
        }
        let index = self.dials.targets.iter().position(due)?;
        let target = self.dials.targets.get_mut(index)?;
        target.state = State::Dialling;
        Some(Dial { id: DialId(index as u32), address: &target.address })
    }

    /// The address could not be reached.
    pub fn handle_dial_failed(&mut self, now: Instant, id: DialId) {
        self.tick(now);
        if let Some(target) = self.dials.get(id).filter(|target| target.failures == 0) {
            self.events.push(Event::DialFailed { address: target.address.clone() });
        }
        self.dials.lost(self.now, id, None, false, &mut self.rng);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_away_for_minutes_is_found_within_a_second() {
        assert_eq!(back_off(Duration::from_secs(2), 0), Duration::from_millis(100));
        assert_eq!(back_off(Duration::from_secs(59), 50), Duration::from_millis(250));
        assert_eq!(back_off(Duration::from_secs(300), 500), Duration::from_secs(1));
        assert_eq!(back_off(Duration::from_secs(3600), 5000), Duration::from_secs(30));
    }
}
