//! Nodes that find each other: what is heard of nodes that others know, and who is dialled because of it.
//!
//! What a node says of itself is believed, and stored. What another node says of it is **heard**: it is dialled there, messages are
//! queued for it, but nothing of that is stored before the node itself has confirmed it in a session. What is heard ends with
//! those who say it, a lease after the session of the last of them. It never changes anything of a node that is connected, and one
//! teller has no more than a share of the names, topics and rows. A node that is only heard of and cannot be reached is taken for an
//! invention.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::event::Event;
use super::{DialId, NAME_BYTES_MAX, PeerId, Router, TopicId};
use crate::time::Instant;
use crate::wire::page::{Change, Row};

/// How long a node that is only heard of is dialled in vain before it is taken for an invention.
const UNMET_PATIENCE: Duration = Duration::from_secs(60);

/// What is known of where a node is, and from whom.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Where it listens, as it has said itself, or as the store says.
    told: Option<Box<str>>,
    /// Where it listens by now, as another node says.
    heard: Option<Box<str>>,
    /// Which of the two is dialled next.
    tries_heard: bool,
    /// It has said so itself: in a session, or in an earlier life of this node.
    is_met: bool,
    /// It was learned of in this life: it is dialled although nothing is queued for it.
    is_fresh: bool,
    /// It was dialled in vain since it was met, or since its lease has begun.
    pub(super) is_missed: bool,
    /// By which it is dialled, if it is.
    dial: Option<DialId>,
    /// Those who say something of it that counts.
    tellers: Vec<PeerId>,
    /// What it says of others, by their names.
    tells: BTreeMap<Box<str>, Lesson>,
    /// What it says of others in the version that is not told whole yet; nothing of those that it does not know any more.
    hears: BTreeMap<Box<str>, Option<Lesson>>,
    /// Whether it has told in this session all that it takes, and all others that it knows.
    has_told_whole: bool,
    /// The version in which others were told last of it; 0 if they were not.
    pub(super) revision: u64,
    /// Rows and bytes of what they are told of it.
    pub(super) told_rows: usize,
    pub(super) told_bytes: usize,
    /// Whether its own rows have changed since that.
    pub(super) is_changed: bool,
}

/// What one node says of another.
#[derive(Debug, PartialEq, Eq)]
struct Lesson {
    address: Box<str>,
    topics: BTreeSet<Box<str>>,
    /// Nobody of that name was found there.
    is_refuted: bool,
}

impl Whereabouts {
    /// Where it is dialled next, and where after that.
    fn addresses(&self) -> impl Iterator<Item = &str> {
        let (first, second) =
            if self.tries_heard { (&self.heard, &self.told) } else { (&self.told, &self.heard) };
        first.iter().chain(second).map(|address| &**address)
    }

    /// Where it is dialled next.
    pub(super) fn address(&self) -> Option<&str> {
        self.addresses().next()
    }

    /// Where it says that it listens.
    pub(super) fn told(&self) -> Option<&str> {
        self.told.as_deref()
    }

    fn is_at(&self, address: &str) -> bool {
        self.told.as_deref() == Some(address) || self.heard.as_deref() == Some(address)
    }

    /// It has said where it listens, or that nobody can dial it.
    pub(super) fn tell(&mut self, address: &str) {
        let told = is_dialable(address).then_some(address);
        self.is_met = true;
        if self.told.as_deref() != told {
            self.told = told.map(Into::into);
            self.is_changed = true;
        }
        (self.heard, self.tries_heard) = (None, false);
    }

    /// The same, as a row of the store has it.
    pub(super) fn restore(&mut self, address: &str) {
        self.is_met = true;
        let address = address.trim_start_matches('~');
        if is_dialable(address) {
            self.told = Some(address.into());
        }
    }

    /// Another node says where it listens.
    fn hear(&mut self, address: Box<str>) {
        if self.is_at(&address) {
            self.tries_heard = self.heard.as_ref() == Some(&address);
        } else {
            self.heard = Some(address);
            self.tries_heard = true;
        }
        self.is_fresh = true;
    }

    pub(super) fn handle_down(&mut self) {
        self.hears = BTreeMap::new();
        self.has_told_whole = false;
    }

    /// Whether it has told in this session all that it takes.
    pub(super) const fn has_told_whole(&self) -> bool {
        self.has_told_whole
    }

    /// Whether what it says of others still counts.
    pub(super) fn is_teller(&self) -> bool {
        !self.tells.is_empty()
    }

    /// Rows of others that it has told.
    fn lesson_rows(&self) -> usize {
        let hears = self.hears.values().flatten();
        self.tells.values().chain(hears).map(|lesson| 1 + lesson.topics.len()).sum()
    }
}

/// Whether an address looks like one that can be dialled: a host, a colon and a port.
fn is_dialable(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_port =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
    address.len() <= NAME_BYTES_MAX && is_port && !host.is_empty() && host.bytes().all(is_host)
}

impl Router {
    // ------------------------------------------------------------------ what is heard

    /// A row of a page that is not the teller's own.
    pub(super) fn hear(&mut self, teller: PeerId, row: &Row<'_>) {
        let is_odd = row.name.is_empty() || row.name == self.config.name;
        if is_odd || row.name.len() > NAME_BYTES_MAX || row.topic.len() > NAME_BYTES_MAX {
            return;
        }
        let max = self.config.heard_max.min(self.topics_share());
        let Some(state) = self.peers.get_mut(teller.0) else { return };
        let whereabouts = &mut state.whereabouts;
        match row.change {
            Change::Remove => {
                if whereabouts.tells.contains_key(row.name) {
                    whereabouts.hears.insert(row.name.into(), None);
                }
            }
            Change::Add => {
                if !is_dialable(row.address) || whereabouts.lesson_rows() >= 2 * max {
                    return;
                }
                let lesson = whereabouts.hears.entry(row.name.into()).or_default();
                let lesson = lesson.get_or_insert_with(|| Lesson {
                    address: row.address.into(),
                    topics: BTreeSet::new(),
                    is_refuted: false,
                });
                if !row.topic.is_empty() {
                    lesson.topics.insert(row.topic.into());
                }
            }
        }
    }

    /// The teller has told a version whole. The first one of a session says all that it knows of others, later ones what has
    /// changed, and all of the nodes that they speak of.
    pub(super) fn learn(&mut self, teller: PeerId) {
        let max = self.config.heard_max.min(self.topics_share());
        let Some(state) = self.peers.get_mut(teller.0) else { return };
        let whereabouts = &mut state.whereabouts;
        let hears = core::mem::take(&mut whereabouts.hears);
        let mut ends: Vec<Box<str>> = Vec::new();
        if !core::mem::replace(&mut whereabouts.has_told_whole, true) {
            ends.extend(whereabouts.tells.keys().filter(|name| !hears.contains_key(*name)).cloned());
        }
        let mut learned = Vec::new();
        for (name, lesson) in hears {
            let Some(mut lesson) = lesson else {
                ends.push(name);
                continue;
            };
            let before = whereabouts.tells.get(&name);
            if let Some(before) = before {
                lesson.is_refuted = before.is_refuted;
                if *before == lesson {
                    continue;
                }
                lesson.is_refuted &= before.address == lesson.address;
            } else if whereabouts.lesson_rows() + lesson.topics.len() >= max {
                continue;
            }
            whereabouts.tells.insert(name.clone(), lesson);
            learned.push(name);
        }
        for name in ends {
            self.end_lesson(teller, &name);
        }
        for name in learned {
            self.apply(teller, &name);
        }
    }

    /// What was learned of a node counts from now on, unless that node is here to speak for itself.
    fn apply(&mut self, teller: PeerId, name: &str) {
        // Names that were only heard of leave half of the places to those who come.
        if !self.names.contains_key(name) && self.names.len() >= self.config.names_max / 2 {
            return;
        }
        let Some(lesson) = self.lesson(teller, name).filter(|lesson| !lesson.is_refuted) else { return };
        let address = lesson.address.clone();
        let peer = self.peer_named(name);
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        if !state.whereabouts.tellers.contains(&teller) {
            state.whereabouts.tellers.push(teller);
        }
        if state.conn.is_some() {
            return;
        }
        state.whereabouts.hear(address);
        self.spread(peer);
        self.seek(peer);
    }

    /// A node is not here any more to speak for itself: what others say of it counts, also what they have said meanwhile.
    pub(super) fn heed(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0).filter(|state| state.conn.is_none()) else { return };
        let (name, tellers) = (state.name.clone(), state.whereabouts.tellers.clone());
        for teller in &tellers {
            let address = self.lesson(*teller, &name).map(|lesson| lesson.address.clone());
            if let Some((address, state)) = address.zip(self.peers.get_mut(peer.0)) {
                state.whereabouts.hear(address);
            }
        }
        if !tellers.is_empty() || self.topics.heard_rows(peer) > 0 {
            self.spread(peer);
        }
    }

    fn lesson(&self, teller: PeerId, name: &str) -> Option<&Lesson> {
        self.peers.get(teller.0)?.whereabouts.tells.get(name)
    }

    /// Gives a node that is away the rows that are heard of it: those that it has not told itself.
    fn spread(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0) else { return };
        let (name, tellers) = (state.name.clone(), state.whereabouts.tellers.clone());
        let address: Box<str> = state.whereabouts.address().unwrap_or_default().into();
        let lessons = tellers.iter().filter_map(|teller| self.lesson(*teller, &name));
        let lessons = lessons.filter(|lesson| !lesson.is_refuted);
        let texts: BTreeSet<Box<str>> = lessons.flat_map(|lesson| lesson.topics.iter().cloned()).collect();
        // What finds no room among the topics is not known.
        let topics: Vec<TopicId> = texts.iter().filter_map(|text| self.intern_bounded(text).ok()).collect();
        let ended = self.topics.unhear(peer, &topics);
        let heard = |topic: &&TopicId| self.topics.hear(**topic, peer, &address);
        let added: Vec<TopicId> = topics.iter().filter(heard).copied().collect();
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        state.rows = (state.rows + added.len()).saturating_sub(ended);
        state.subscribed |= !added.is_empty();
        for topic in added {
            let (name, topic) = (state.name.clone(), self.topics.text(topic).into());
            self.events.push(Event::Subscribed { name, topic });
        }
    }

    /// The teller does not say any more that it knows the node.
    fn end_lesson(&mut self, teller: PeerId, name: &str) {
        let lessons = self.peers.get_mut(teller.0).map(|state| &mut state.whereabouts.tells);
        let Some(lesson) = lessons.and_then(|lessons| lessons.remove(name)) else { return };
        let Some(&peer) = self.names.get(name) else { return };
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let whereabouts = &mut state.whereabouts;
        whereabouts.tellers.retain(|other| *other != teller);
        if lesson.is_refuted {
            return;
        }
        if whereabouts.tellers.is_empty() {
            whereabouts.heard = None;
        }
        if state.conn.is_some() {
            return;
        }
        self.spread(peer);
        self.check_unheard(peer);
    }

    /// Nobody is to be believed any more who said that a node takes a topic.
    pub(super) fn unlearn(&mut self, peer: PeerId, topic: &str) {
        let Some(state) = self.peers.get(peer.0) else { return };
        let (name, tellers) = (state.name.clone(), state.whereabouts.tellers.clone());
        for teller in tellers {
            let lessons = self.peers.get_mut(teller.0).map(|state| &mut state.whereabouts.tells);
            if let Some(lesson) = lessons.and_then(|lessons| lessons.get_mut(&name)) {
                lesson.topics.remove(topic);
            }
        }
    }

    /// If nobody speaks of a node any more that has never been met, it is gone.
    fn check_unheard(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0) else { return };
        if !state.whereabouts.tellers.is_empty() || state.conn.is_some() || state.rows > 0 {
            return;
        }
        if state.whereabouts.is_met {
            if state.lease.is_none() {
                self.set_lease(peer);
            }
            return;
        }
        self.unseek(peer);
        self.depart(peer);
    }

    /// Whether somebody says that the node is there.
    pub(super) fn is_heard_of(&self, peer: PeerId) -> bool {
        self.peers.get(peer.0).is_some_and(|state| !state.whereabouts.tellers.is_empty())
    }

    /// What a node that has been away for a lease said of others does not count any more.
    pub(super) fn end_lessons(&mut self, teller: PeerId) {
        let Some(state) = self.peers.get(teller.0) else { return };
        for name in state.whereabouts.tells.keys().cloned().collect::<Vec<_>>() {
            self.end_lesson(teller, &name);
        }
    }

    /// There is nobody where a node is said to be that was never met: whoever says so is not believed until it says something else.
    fn refute(&mut self, peer: PeerId) {
        self.disbelieve(peer);
        self.spread(peer);
        self.check_unheard(peer);
    }

    fn disbelieve(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let name = state.name.clone();
        state.whereabouts.heard = None;
        for teller in core::mem::take(&mut state.whereabouts.tellers) {
            let lessons = self.peers.get_mut(teller.0).map(|state| &mut state.whereabouts.tells);
            if let Some(lesson) = lessons.and_then(|lessons| lessons.get_mut(&name)) {
                lesson.is_refuted = true;
            }
        }
    }

    /// Nothing is known any more of where a node is, and those who say so are not believed.
    pub(super) fn forget_whereabouts(&mut self, peer: PeerId) {
        self.unseek(peer);
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let whereabouts = &mut state.whereabouts;
        (whereabouts.told, whereabouts.heard, whereabouts.is_fresh) = (None, None, false);
        self.disbelieve(peer);
    }

    // ------------------------------------------------------------------ who is dialled

    /// A session has begun.
    pub(super) fn handle_met(&mut self, peer: PeerId) {
        if let Some(state) = self.peers.get_mut(peer.0) {
            let whereabouts = &mut state.whereabouts;
            (whereabouts.is_met, whereabouts.is_fresh, whereabouts.is_missed) = (true, true, false);
        }
    }

    /// Dials a node that is away, if somebody knows where it is, and something is queued for it or it is one of those that this node
    /// keeps up with.
    pub(super) fn seek(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0).filter(|state| state.conn.is_none()) else { return };
        if state.whereabouts.dial.is_some() || self.dials.reaches(peer) || !self.is_sought(peer) {
            return;
        }
        let Some(address) = self.sought_at(peer).map(Box::from) else { return };
        let is_queued = !self.kept_is_empty(state.outbox);
        if !is_queued && self.dials.seeking() >= self.config.mesh_max {
            return self.dials.starve();
        }
        let dial = self.dials.seek(peer, address, self.now);
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.whereabouts.dial = Some(dial);
        }
    }

    /// Whether the node is to be dialled wherever it is known to be.
    pub(super) fn is_sought(&self, peer: PeerId) -> bool {
        let Some(state) = self.peers.get(peer.0) else { return false };
        state.whereabouts.is_fresh || !self.kept_is_empty(state.outbox)
    }

    /// Those that there was no room for are dialled, as far as there is now.
    pub(super) fn seek_others(&mut self) {
        if self.dials.is_eased() {
            for peer in self.peers.ids() {
                self.seek(PeerId(peer));
            }
        }
    }

    /// The node is not dialled any more.
    pub(super) fn unseek(&mut self, peer: PeerId) {
        let state = self.peers.get_mut(peer.0);
        if let Some(dial) = state.and_then(|state| state.whereabouts.dial.take()) {
            self.dials.unseek(dial);
        }
    }

    /// Where to look for a node now: not where this node is itself, and not where somebody is dialled anyhow.
    pub(super) fn sought_at(&self, peer: PeerId) -> Option<&str> {
        let mut addresses = self.peers.get(peer.0)?.whereabouts.addresses();
        addresses.find(|address| **address != self.config.address && !self.dials.has_named(address))
    }

    /// An address did not answer at which a node is said to be.
    pub(super) fn handle_not_found(&mut self, dial: DialId, since: Instant) {
        let Some(peer) = self.dials.sought(dial) else { return };
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let whereabouts = &mut state.whereabouts;
        let was_told = whereabouts.told.is_some() && !whereabouts.tries_heard;
        if whereabouts.is_met {
            whereabouts.tries_heard = !whereabouts.tries_heard && whereabouts.heard.is_some();
        } else if self.now.since(since) >= UNMET_PATIENCE {
            return self.refute(peer);
        }
        if !was_told {
            self.hear_next(peer);
        }
    }

    /// Nobody is where one of those who speak of a node says that it is: the next one may know better.
    fn hear_next(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0) else { return };
        let whereabouts = &state.whereabouts;
        let lessons = whereabouts.tellers.iter().filter_map(|teller| self.lesson(*teller, &state.name));
        let addresses = lessons.map(|lesson| &lesson.address);
        let addresses: BTreeSet<_> =
            addresses.filter(|address| whereabouts.told.as_ref() != Some(address)).collect();
        let heard = whereabouts.heard.as_ref();
        let next = addresses.iter().find(|address| heard.is_none_or(|heard| **address > heard));
        let next = next.or_else(|| addresses.first()).map(|address| (*address).clone());
        if let Some((next, state)) = next.zip(self.peers.get_mut(peer.0)) {
            state.whereabouts.heard = Some(next);
        }
    }

    /// Whether a node that is looked for has ever been met.
    pub(super) fn is_met(&self, peer: PeerId) -> bool {
        self.peers.get(peer.0).is_some_and(|state| state.whereabouts.is_met)
    }

    /// A node has said its name at an address that was dialled. Says whether that may be so: not if another one was looked for.
    pub(super) fn check_found(&mut self, dial: DialId, found: &str) -> bool {
        let address: Box<str> = self.dials.address(dial).into();
        let sought = self.dials.sought(dial);
        let expected = match sought {
            Some(peer) => self.peers.get(peer.0).map(|state| &state.name),
            None => {
                let is_there =
                    |state: &&super::Peer| state.whereabouts.is_at(&address) && *state.name != *found;
                let is_known =
                    |state: &super::Peer| state.whereabouts.is_at(&address) && *state.name == *found;
                let known = self.names.get(found).and_then(|peer| self.peers.get(peer.0));
                let other = || self.peers.iter().find(is_there).map(|state| &state.name);
                if known.is_some_and(is_known) { None } else { other() }
            }
        };
        let Some(expected) = expected.filter(|expected| ***expected != *found).cloned() else {
            self.dials.note_wrong(dial, false);
            return true;
        };
        if self.dials.note_wrong(dial, true) {
            let found = found.into();
            self.events.push(Event::WrongName { address: address.clone(), expected, found });
        }
        let Some(peer) = sought else { return true };
        if let Some(state) = self.peers.get_mut(peer.0)
            && state.whereabouts.heard.as_ref() == Some(&address)
        {
            state.whereabouts.heard = None;
            if state.whereabouts.told.is_none() {
                self.refute(peer);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::is_dialable;

    #[test]
    fn what_is_no_host_and_port_is_not_dialled() {
        for good in ["127.0.0.1:7420", "host.example:1", "[::1]:65535", "a_b-c:80"] {
            assert!(is_dialable(good), "{good}");
        }
        let long = alloc::format!("{}:1", "x".repeat(300));
        let bad =
            ["", "a", ":1", "a:", "a:0", "a:65536", "a:+1", "a b:1", "@a:1", "~a:1", "a/b:1", "ä:1", &long];
        for bad in bad {
            assert!(!is_dialable(bad), "{bad}");
        }
        assert!(!is_dialable("device:0123456789abcdef"));
    }
}
