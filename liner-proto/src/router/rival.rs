//! Two instances of one name: the one that is connected is asked whether it is there before a newer one takes its place.

use alloc::vec::Vec;

use super::Router;
use super::conn::Conn;
use crate::id::ConnId;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};
use crate::wire::control::CloseReason;

/// A caller waits for what another instance of its name says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contest {
    /// The connection of the other one, and the probe that it has to answer.
    older: ConnId,
    probe: u64,
    /// How long it has for that; nothing once the time is up.
    until: Option<Instant>,
}

impl Contest {
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.until.map(|until| (until, Wakeup::Probe))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.until = self.until.filter(|until| now < *until);
    }

    fn is_open(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Router {
    /// The connection of another instance under the name of this connection's caller.
    fn rival(&self, id: ConnId) -> Option<ConnId> {
        let newer = self.conns.get(id)?;
        let peer = self.names.get(&*newer.caller.as_ref()?.name)?;
        let rival = self.peers.get(peer.0)?.conn?;
        let older = self.conns.get(rival)?;
        // Who does not say which it is may be anybody.
        (newer.instance != older.instance && !older.session.is_ending()).then_some(rival)
    }

    fn contest(&self, id: ConnId) -> Option<Contest> {
        self.conns.get(id)?.caller.as_ref()?.contest
    }

    /// Asks another instance of the caller's name that is connected whether it is there, if it was not asked for this caller.
    pub(super) fn challenge(&mut self, id: ConnId) {
        let Some(rival) = self.rival(id) else { return };
        if self.contest(id).is_some_and(|contest| contest.older == rival) {
            return;
        }
        let until = Some(self.now + self.config.timing.probe);
        let Some(probe) = self.conns.get_mut(rival).map(|older| older.session.probe()) else { return };
        self.conns.list(rival);
        if let Some(caller) = self.conns.get_mut(id).and_then(|conn| conn.caller.as_mut()) {
            caller.contest = Some(Contest { older: rival, probe, until });
        }
    }

    /// A session has begun: callers that are not answered yet may have found a rival.
    pub(super) fn challenge_newest(&mut self) {
        let waits = |conn: &Conn| conn.caller.as_ref().is_some_and(|caller| caller.told.is_none());
        let waiting = self.conns.iter().filter(|(_, conn)| waits(conn)).map(|(id, _)| id);
        for id in waiting.collect::<Vec<_>>() {
            self.challenge(id);
        }
    }

    /// Whether the caller has to wait for its answer, because another instance of its name may be there.
    pub(super) fn awaits_rival(&self, id: ConnId) -> bool {
        let contest = self.contest(id);
        self.rival(id).is_some_and(|rival| {
            contest.is_none_or(|contest| contest.older != rival || contest.is_open(self.now))
        })
    }

    /// Whether no other instance of the caller's name is connected, or it has not answered.
    pub(super) fn may_replace(&self, id: ConnId) -> bool {
        let contest = self.contest(id);
        self.rival(id).is_none_or(|rival| contest.is_some_and(|contest| contest.older == rival))
    }

    /// The peer is there: others that wait to take its place are refused.
    pub(super) fn handle_echo(&mut self, id: ConnId, number: u64) {
        let loses = |conn: &Conn| {
            let contest = conn.caller.as_ref().and_then(|caller| caller.contest);
            contest.is_some_and(|it| it.older == id && it.probe <= number && it.is_open(self.now))
        };
        let losers = self.conns.iter().filter(|(_, conn)| loses(conn)).map(|(id, _)| id);
        for loser in losers.collect::<Vec<_>>() {
            self.conns.close(loser, CloseReason::NameInUse);
        }
    }
}
