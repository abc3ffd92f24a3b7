//! Peers that are named by their address, and when they are dialled.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::event::Event;
use super::peer::Peer;
use super::{OutboxId, PeerId, Router, SendError, TopicId};
use crate::id::ConnId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::timer::{BackOff, Deadline, Wakeup};

/// How long an address is not dialled again where a node was only said to be.
const UNMET_PAUSE: Duration = Duration::from_secs(1);

/// How long a node is not dialled again that is connected.
const UP_PAUSE: Duration = Duration::from_secs(1);

/// How long a node is not dialled at a second address while it may still answer at the first one.
const SECOND_PAUSE: Duration = Duration::from_millis(250);

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
    back_off: BackOff,
    /// When it was dialled last.
    dialled: Instant,
    /// Who answered there last.
    peer: Option<PeerId>,
    /// It was dialled in vain since that one was connected.
    in_vain: bool,
    /// What waits for whoever answers there.
    outbox: Option<OutboxId>,
    /// It was named in this life of the node. Another one is dialled only as long as something waits for it.
    named: bool,
    /// The node that is said to be there and is looked for. The address is no next hop for anything else.
    sought: Option<PeerId>,
    /// It was told that another one answers there.
    is_wrong: bool,
}

impl Target {
    fn new(address: Box<str>, now: Instant) -> Self {
        Self {
            address,
            state: State::Waiting(now),
            back_off: BackOff::new(now),
            dialled: now,
            peer: None,
            in_vain: false,
            outbox: None,
            named: false,
            sought: None,
            is_wrong: false,
        }
    }

    /// Whether nobody needs it, nor knows its number.
    const fn is_free(&self) -> bool {
        let idle = matches!(self.state, State::Waiting(_));
        idle && !self.named && self.sought.is_none() && self.outbox.is_none()
    }
}

#[derive(Debug, Default)]
pub(super) struct Dials {
    targets: Vec<Target>,
    has_outboxes: bool,
    /// Whose turn it is.
    turn: usize,
    /// How many look for a node.
    seeking: usize,
    /// There was no room to look for another one, and whether there is since.
    is_starved: bool,
    has_room: bool,
}

impl Dials {
    pub(super) fn add(&mut self, address: &str, now: Instant) -> DialId {
        let id = self.restore(address, now);
        if let Some(target) = self.get_mut(id) {
            target.named = true;
        }
        id
    }

    /// An address for which something waits since an earlier life of the node.
    pub(super) fn restore(&mut self, address: &str, now: Instant) -> DialId {
        let is_it =
            |target: &Target| &*target.address == address && target.sought.is_none() && !target.is_free();
        match self.targets.iter().position(is_it) {
            Some(index) => DialId(index as u32),
            None => self.put(Target::new(address.into(), now)),
        }
    }

    fn put(&mut self, target: Target) -> DialId {
        let free = self.targets.iter().position(Target::is_free);
        let index = free.unwrap_or(self.targets.len());
        match self.targets.get_mut(index) {
            Some(place) => *place = target,
            None => self.targets.push(target),
        }
        DialId(index as u32)
    }

    // ------------------------------------------------------------------ nodes that are looked for

    /// Looks for a node at an address.
    pub(super) fn seek(&mut self, peer: PeerId, address: Box<str>, now: Instant) -> DialId {
        self.seeking += 1;
        self.put(Target { peer: Some(peer), sought: Some(peer), ..Target::new(address, now) })
    }

    /// Looks for it no more.
    pub(super) fn unseek(&mut self, id: DialId) {
        if let Some(target) = self.get_mut(id)
            && target.sought.take().is_some()
        {
            self.seeking -= 1;
            self.has_room = true;
        }
    }

    /// There is no room to look for another one.
    pub(super) const fn starve(&mut self) {
        self.is_starved = true;
        self.has_room = false;
    }

    /// Whether there is room for those that there was none for.
    pub(super) const fn is_eased(&mut self) -> bool {
        let is_eased = self.is_starved && self.has_room;
        if is_eased {
            self.is_starved = false;
        }
        is_eased
    }

    /// Nobody knows any more who answers where the node did.
    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            target.peer = None;
        }
    }

    /// How many nodes are looked for, those that were found among them.
    pub(super) const fn seeking(&self) -> usize {
        self.seeking
    }

    pub(super) fn sought(&self, id: DialId) -> Option<PeerId> {
        self.get(id)?.sought
    }

    /// Whether a named address leads to the node, as far as is known: it was there last, and nobody has missed it there since.
    pub(super) fn reaches(&self, peer: PeerId) -> bool {
        let mut named = self.targets.iter().filter(|target| target.named);
        named.any(|target| target.peer == Some(peer) && !target.in_vain)
    }

    /// Whether the address was named: it is dialled anyhow.
    pub(super) fn has_named(&self, address: &str) -> bool {
        self.targets.iter().any(|target| target.named && &*target.address == address)
    }

    /// Notes whether another node than the right one answers at an address, and says whether that is news.
    pub(super) fn note_wrong(&mut self, id: DialId, is_wrong: bool) -> bool {
        let Some(target) = self.get_mut(id) else { return false };
        core::mem::replace(&mut target.is_wrong, is_wrong) != is_wrong
    }

    /// Since when nobody was found at an address.
    fn lost_since(&self, id: DialId) -> Option<Instant> {
        Some(self.get(id)?.back_off.down_since())
    }

    /// It is not dialled again before a moment.
    fn delay(&mut self, id: DialId, until: Instant) {
        if let Some(Target { state: State::Waiting(at), .. }) = self.get_mut(id) {
            *at = until.max(*at);
        }
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

    /// Those that were named: they are the next hops for topics that nobody is known for.
    pub(super) fn named(&self) -> impl Iterator<Item = DialId> {
        self.ids().filter(|id| self.is_named(*id))
    }

    pub(super) fn is_named(&self, id: DialId) -> bool {
        self.get(id).is_some_and(|target| target.named)
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
            target.back_off.reset(now);
        }
        target.in_vain = !was_up;
        target.state = State::Waiting(target.back_off.fail(now, u32::MAX, rng));
    }

    /// The session with a node is over: wherever it answered, and whoever had dialled, it is dialled soon.
    pub(super) fn handle_down(&mut self, peer: PeerId, now: Instant, rng: &mut Rng) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            target.back_off.reset(now);
            target.in_vain = false;
            if let State::Waiting(at) = &mut target.state {
                *at = target.back_off.fail(now, u32::MAX, rng);
            }
        }
    }

    /// A node that was away runs, as somebody says: wherever it is looked for, or was found, it is dialled now.
    pub(super) fn hasten(&mut self, peer: PeerId, now: Instant) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            target.back_off.reset(now);
            target.in_vain = false;
            if let State::Waiting(at) = &mut target.state {
                *at = now;
            }
        }
    }

    /// For how long an address is not dialled that is due, if that is so: its node is connected by another one, or about to be.
    fn pause(&self, index: usize, now: Instant, is_up: impl Fn(PeerId) -> bool) -> Option<Duration> {
        let peer = self.targets.get(index)?.peer?;
        if is_up(peer) {
            // One connection carries both directions, whoever dialled it.
            return Some(UP_PAUSE);
        }
        let is_fresh = |target: &Target| {
            !matches!(target.state, State::Waiting(_)) && now < target.dialled + SECOND_PAUSE
        };
        let mut others = self.targets.iter().filter(|target| target.peer == Some(peer));
        others.any(is_fresh).then_some(SECOND_PAUSE)
    }

    /// When the next address is due, of those that are named or for which something `waits`.
    fn deadline(
        &self,
        waits: impl Fn(OutboxId) -> bool,
        is_away: impl Fn(PeerId) -> bool,
    ) -> Option<Deadline> {
        let wanted = |target: &&Target| {
            target.named || target.outbox.is_some_and(&waits) || target.sought.is_some_and(&is_away)
        };
        let waiting = |target: &Target| match target.state {
            State::Waiting(at) => Some(at),
            State::Dialling | State::Connected(_) => None,
        };
        self.targets.iter().filter(wanted).filter_map(waiting).min().map(|at| (at, Wakeup::Dial))
    }
}

impl Router {
    /// Whether the peer is dialled by an address, or something waits for whoever answers there.
    pub(super) fn is_dialled(&self, peer: PeerId) -> bool {
        let mut targets = self.dials.targets.iter().filter(|target| target.peer == Some(peer));
        targets.any(|target| target.named || !self.kept_is_empty(target.outbox))
    }

    /// The named address whose turn it is: among those whose peers are up and take the topic, else among those that are not
    /// known to be full of it. None if whoever is there has said that it takes no such topic.
    ///
    /// # Errors
    /// `TopicFull` if they all are.
    pub(super) fn pick_dial(&mut self, topic: TopicId) -> Result<Option<DialId>, SendError> {
        self.dials.turn = self.dials.turn.wrapping_add(1);
        let (dials, peers) = (&self.dials, &self.peers);
        let state = |dial: &DialId| dials.peer(*dial).and_then(|peer| peers.get(peer.0));
        let may_take = || dials.named().filter(|dial| state(dial).is_none_or(Peer::may_take_more));
        let open = || may_take().filter(|dial| state(dial).is_none_or(|peer| !peer.full.contains(&topic)));
        let up = || open().filter(|dial| state(dial).is_some_and(|peer| peer.conn.is_some()));
        let (ups, all) = (up().count(), open().count());
        if all == 0 && may_take().next().is_some() {
            return Err(SendError::TopicFull);
        }
        if let Some(turn) = dials.turn.checked_rem(ups) {
            return Ok(up().nth(turn));
        }
        Ok(dials.turn.checked_rem(all).and_then(|turn| open().nth(turn)))
    }

    /// Whether whoever is at the named address may take a topic that it has no row of.
    pub(super) fn may_take_more(&self, dial: DialId) -> bool {
        let peer = self.dials.peer(dial).and_then(|peer| self.peers.get(peer.0));
        self.dials.is_named(dial) && peer.is_none_or(Peer::may_take_more)
    }

    pub(super) fn dial_deadline(&self) -> Option<Deadline> {
        let is_away = |peer: PeerId| self.peers.get(peer.0).is_some_and(|state| state.conn.is_none());
        self.dials.deadline(|id| !self.kept_is_empty(Some(id)), is_away)
    }

    /// The address was named: who is looked for there is found by that.
    pub(super) fn yield_to(&mut self, named: DialId) {
        let address = self.dials.address(named);
        let there = |target: &&Target| &*target.address == address;
        let sought: Vec<PeerId> =
            self.dials.targets.iter().filter(there).filter_map(|target| target.sought).collect();
        for peer in sought {
            self.unseek(peer);
            // It may be elsewhere, too.
            self.seek(peer);
        }
    }

    /// Nodes that are due and need not be looked for any more are not; the others are looked for where they are by now.
    fn check_sought(&mut self) {
        let now = self.now;
        let due = |target: &Target| matches!(target.state, State::Waiting(at) if at <= now);
        let sought = self.dials.targets.iter().enumerate().filter(|(_, target)| due(target));
        let sought: Vec<(usize, PeerId)> =
            sought.filter_map(|(index, target)| Some((index, target.sought?))).collect();
        for (index, peer) in sought {
            if self.peers.get(peer.0).is_some_and(|state| state.conn.is_some()) {
                continue;
            }
            match self.sought_at(peer).filter(|_| self.is_sought(peer)).map(Box::from) {
                Some(address) => {
                    if let Some(target) = self.dials.targets.get_mut(index) {
                        target.address = address;
                    }
                }
                None => self.unseek(peer),
            }
        }
        self.seek_others();
    }

    /// The next address that is due. Each is given once until it was answered.
    pub fn poll_dial(&mut self, now: Instant) -> Option<Dial<'_>> {
        self.tick(now);
        if self.closing || !self.config.dials {
            return None;
        }
        self.check_sought();
        let (peers, outboxes) = (&self.peers, &self.outboxes);
        let now = self.now;
        let due = |target: &Target| {
            let waits = |id: OutboxId| outboxes.get(id.0).is_some_and(|outbox| outbox.out.queued() > 0);
            let is_away = |peer: PeerId| peers.get(peer.0).is_some_and(|state| state.conn.is_none());
            let wanted =
                target.named || target.outbox.is_some_and(waits) || target.sought.is_some_and(is_away);
            wanted && matches!(target.state, State::Waiting(at) if at <= now)
        };
        let is_up = |peer: PeerId| peers.get(peer.0).is_some_and(|state| state.conn.is_some());
        let index = loop {
            let index = self.dials.targets.iter().position(due)?;
            let Some(pause) = self.dials.pause(index, now, is_up) else { break index };
            if let Some(target) = self.dials.targets.get_mut(index) {
                target.state = State::Waiting(now + pause);
            }
        };
        let target = self.dials.targets.get_mut(index)?;
        (target.state, target.dialled) = (State::Dialling, now);
        Some(Dial { id: DialId(index as u32), address: &target.address })
    }

    /// The address could not be reached.
    pub fn handle_dial_failed(&mut self, now: Instant, id: DialId) {
        self.tick(now);
        if let Some(target) = self.dials.get(id).filter(|target| target.back_off.is_fresh()) {
            self.events.push(Event::DialFailed { address: target.address.clone() });
        }
        self.dials.lost(self.now, id, None, false, &mut self.rng);
        self.handle_lost_dial(id);
    }

    /// A dial, or what came of it, has ended without a session.
    pub(super) fn handle_lost_dial(&mut self, id: DialId) {
        self.note_missed(id);
        let Some(peer) = self.dials.sought(id) else {
            // Whoever was there may be elsewhere by now.
            return self.dials.peer(id).into_iter().for_each(|peer| self.seek(peer));
        };
        if !self.is_met(peer) {
            // An invention is not worth more.
            self.dials.delay(id, self.now + UNMET_PAUSE);
        }
        if let Some(since) = self.dials.lost_since(id) {
            self.handle_not_found(id, since);
        }
    }
}
