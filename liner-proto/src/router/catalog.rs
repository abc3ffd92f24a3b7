//! The directory of a store that several nodes share: each writes its own rows there, and looks for those of others now and then.
//!
//! A row of the store is what its node has said itself, and is believed as that. Whether a node is up is found by dialling it; a store
//! that knows of leases gives a [hint](super::standing). A row that comes is dialled at once, so that two nodes that share a store find each other without having
//! been told of each other; one that goes while its node is not connected is gone.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::event::Event;
use super::storage::Staged;
use super::topics::Row;
use super::{PeerId, Router, Standing, TopicId, directory};
use crate::effect::StoreFault;
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};

/// Rows of a shared directory that are looked at; what is beyond them is not known.
const ROWS_MAX: usize = 65_536;

/// A row's topic and address.
type Place = (Box<str>, Box<str>);

/// What the shared directory held when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// The rows of others, with the names in them.
    rows: BTreeMap<Place, Box<str>>,
    /// What it said of leases.
    standings: BTreeMap<Box<str>, Standing>,
    /// The node's own rows there, those of earlier lives among them.
    own: BTreeSet<Place>,
    /// The version of the node's own rows that is there, or on its way.
    own_version: u64,
    is_asked: bool,
    due: Instant,
}

/// The rows of a shared directory, as a store has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRows {
    rows: BTreeMap<Place, Box<str>>,
    standings: BTreeMap<Box<str>, Standing>,
}

impl Catalog {
    pub(super) const fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// What it says of a node's lease.
    pub(super) fn standing(&self, name: &str) -> Standing {
        self.standings.get(name).copied().unwrap_or_default()
    }
}

impl DirectoryRows {
    /// Takes a row of the store.
    pub fn push(&mut self, topic: &str, address: &str, name: &str) {
        if self.rows.len() < ROWS_MAX {
            self.rows.insert((topic.into(), address.into()), name.into());
        }
    }

    /// Takes what the store knows of a node's lease. Without a word it has none.
    pub fn set_standing(&mut self, name: &str, standing: Standing) {
        if standing != Standing::Unleased && self.standings.len() < ROWS_MAX {
            self.standings.insert(name.into(), standing);
        }
    }

    /// What the store knows of a node's lease.
    pub fn standing(&self, name: &str) -> Standing {
        self.standings.get(name).copied().unwrap_or_default()
    }
}

impl Router {
    /// A row that the store had when the node was started. Says whether it is one of the node's own.
    pub(super) fn restore_row(&mut self, topic: &str, address: &str, name: &str) -> bool {
        let place = (topic.into(), address.into());
        let is_own = name == self.config.name;
        if is_own {
            self.catalog.own.insert(place);
        } else if self.config.catalog.is_some() && self.catalog.rows.len() < ROWS_MAX {
            self.catalog.rows.insert(place, name.into());
        }
        is_own
    }

    /// Whether the store is to be asked for its directory ([`Store::directory`](crate::store::Store::directory)), as others may have
    /// changed it. Answer with [`handle_directory`](Self::handle_directory). It is one of the sinks of the drain rule, for a node
    /// whose store is shared ([`NodeConfig::catalog`](super::NodeConfig::catalog)).
    pub fn poll_directory(&mut self, now: Instant) -> bool {
        self.tick(now);
        let Some(pause) = self.config.catalog.filter(|_| !self.closing) else { return false };
        if self.catalog.is_asked || self.catalog.due > self.now {
            return false;
        }
        self.catalog.is_asked = true;
        self.catalog.due = self.now + pause;
        self.note_asked(true);
        true
    }

    /// Has [`poll_directory`](Self::poll_directory) ask for the directory at once.
    pub const fn refresh_directory(&mut self) {
        self.catalog.due = Instant::ZERO;
    }

    /// When the store is asked next.
    pub(super) fn catalog_deadline(&self) -> Option<Deadline> {
        let wanted = self.config.catalog.is_some() && !self.closing && !self.catalog.is_asked;
        wanted.then_some((self.catalog.due, Wakeup::StoreRetry))
    }

    /// The node's own rows are to be in the store as they are: those of earlier lives at other addresses are not any more.
    pub(super) fn write_own_rows(&mut self) {
        let is_wanted = self.config.catalog.is_some() && self.config.durable;
        if self.catalog.own_version == self.rows_version || !is_wanted {
            return;
        }
        let address: Box<str> = directory::own_address(&self.config.address, &self.config.name).into();
        let wanted: BTreeSet<Place> =
            self.topics.own().map(|topic| (topic.into(), address.clone())).collect();
        for (topic, address) in self.catalog.own.difference(&wanted).cloned().collect::<BTreeSet<_>>() {
            let id = self.topics.intern(&topic);
            let (address_there, name) = (address.clone(), self.config.name.as_str().into());
            if !self.storage.stage(Staged::Unsubscribe { topic: id, address: address_there, name }) {
                return;
            }
            self.catalog.own.remove(&(topic, address));
        }
        for (topic, address) in wanted {
            let id = self.topics.intern(&topic);
            if self.catalog.own.contains(&(topic.clone(), address.clone())) {
                continue;
            }
            if !self.storage.stage(Staged::Register { topic: id, address: address.clone() }) {
                return;
            }
            self.catalog.own.insert((topic, address));
        }
        self.catalog.own_version = self.rows_version;
    }

    /// The store has told its directory, because it was asked or because word has come that others have changed it: nothing if that is
    /// as it was when it was told last.
    pub fn handle_directory(&mut self, now: Instant, told: Result<Option<DirectoryRows>, StoreFault>) {
        self.tick(now);
        self.catalog.is_asked = false;
        self.note_answered();
        // What cannot be read now is asked for again.
        let Ok(Some(DirectoryRows { mut rows, standings })) = told else { return };
        self.miss_own_rows(&rows);
        rows.retain(|_, name| **name != *self.config.name);
        let standings_before = core::mem::replace(&mut self.catalog.standings, standings);
        let before = core::mem::take(&mut self.catalog.rows);
        let mut ended = BTreeSet::new();
        for (place, name) in before.iter().filter(|(place, name)| rows.get(*place) != Some(*name)) {
            let (topic, address) = place;
            self.end_row(topic, address, name);
            ended.insert((topic, name));
        }
        for (place, name) in &rows {
            let (topic, address) = place;
            // A node may have had a second row of the topic, which counts again.
            if before.get(place) != Some(name) || ended.contains(&(topic, name)) {
                self.find_row(topic, address, name);
            }
        }
        self.catalog.rows = rows;
        let mut begun = self.catalog.standings.clone();
        begun.retain(|name, standing| {
            *standing == Standing::Up && standings_before.get(name) != Some(standing)
        });
        begun.keys().for_each(|name| self.handle_lease_begun(name));
    }

    /// An own row that somebody has taken out is written again; one that is on its way to the store is not there yet. Where another node's
    /// row stands now it stays, or the two would write in turn without an end.
    fn miss_own_rows(&mut self, rows: &BTreeMap<Place, Box<str>>) {
        // What is beyond the bound may be there.
        if rows.len() >= ROWS_MAX {
            return;
        }
        let topics = &self.topics;
        let on_its_way: BTreeSet<_> =
            self.storage.registering().map(|(topic, address)| (topics.text(topic), address)).collect();
        let is_there =
            |place: &Place| rows.contains_key(place) || on_its_way.contains(&(&*place.0, &*place.1));
        let before = self.catalog.own.len();
        self.catalog.own.retain(is_there);
        if self.catalog.own.len() < before {
            self.catalog.own_version = 0;
        }
    }

    /// Adds the rows of a node that only the shared directory has: in memory it has one for each topic.
    pub(super) fn add_shared_rows(&mut self, peer: PeerId, rows: &mut Vec<(TopicId, Row)>) {
        let Some(state) = self.peers.get(peer.0) else { return };
        for ((topic, address), _) in self.catalog.rows.iter().filter(|(_, name)| **name == state.name) {
            let topic = self.topics.intern(topic);
            if !rows.iter().any(|(other, row)| *other == topic && row.address == *address) {
                rows.push((topic, Row { peer, address: address.clone(), heard: false }));
            }
        }
    }

    /// A peer's session is over: where it is now is what the directory says, if it has started elsewhere before anybody noticed.
    pub(super) fn find_moved(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0).filter(|_| !self.catalog.rows.is_empty()) else { return };
        let rows = self.catalog.rows.iter().filter(|(_, name)| **name == state.name);
        let is_there =
            |(_, address): &Place| state.whereabouts.told() == Some(address.trim_start_matches('~'));
        if rows.clone().any(|(place, _)| is_there(place)) {
            return;
        }
        let rows: Vec<(Place, Box<str>)> = rows.map(|(place, name)| (place.clone(), name.clone())).collect();
        for ((topic, address), name) in rows {
            self.find_row(&topic, &address, &name);
        }
    }

    /// A row that was not there before.
    fn find_row(&mut self, topic: &str, address: &str, name: &str) {
        let has_room = self.names.len() < self.config.names_max || self.names.contains_key(name);
        if name.is_empty() || name.len() > super::NAME_BYTES_MAX || !has_room {
            return;
        }
        let Ok(topic) = self.intern_bounded(topic) else { return };
        let peer = self.peer_named(name);
        let Some(state) = self.peers.get_mut(peer.0).filter(|state| state.conn.is_none()) else { return };
        state.durable |= !directory::is_ephemeral(address);
        state.whereabouts.restore(address);
        // The store has it.
        self.add_row(topic, peer, address);
        self.handle_met(peer);
        self.note_change(peer);
        self.seek(peer);
        if self.peers.get(peer.0).is_some_and(|state| !state.durable && state.lease.is_none()) {
            // Whoever has written the row may be gone with it.
            self.set_lease(peer);
        }
    }

    /// A row is not there any more. A node that is connected speaks for itself.
    fn end_row(&mut self, topic: &str, address: &str, name: &str) {
        let Some((&peer, topic)) = self.names.get(name).zip(self.topics.find(topic)) else { return };
        let is_it = |row: &Row| row.peer == peer && *row.address == *address;
        if !self.topics.rows(topic).iter().any(is_it) {
            return;
        }
        let Some(state) = self.peers.get_mut(peer.0).filter(|state| state.conn.is_none()) else { return };
        state.rows -= 1;
        let name = state.name.clone();
        self.topics.unsubscribe(topic, peer);
        self.events.push(Event::Unsubscribed { name, topic: self.topics.text(topic).into() });
        self.note_change(peer);
        if self.peers.get(peer.0).is_some_and(|state| state.lease.is_none()) {
            self.set_lease(peer);
        }
    }
}
