//! What a node tells its peers of each other: the rows of those that it knows at first hand.
//!
//! A node is known at first hand while its session is up, and for a lease after that. What was only heard is never told on: so
//! nothing goes in circles, and nothing outlives those who know it. A chain of nodes still finds together, as each dials whom it hears of
//! and hears then what that one knows. Nodes that nobody can dial are not told of: they dial themselves.
//!
//! A node that takes custody tells nothing of others. Whoever sends through it reaches all whom it knows; a sender that knew a part of
//! them would send to those alone.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::{PeerId, Router};
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup};
use crate::wire::page::{Change, Row};

/// Changes that come within so much time go into one version.
const TOGETHER: Duration = Duration::from_millis(50);

/// Bytes of rows of other nodes that are told.
const BYTES_MAX: usize = 256 * 1024;

/// Nodes that went away and are remembered until every peer was told.
const GONE_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Nodes of which something else is to be told.
    changed: BTreeSet<PeerId>,
    /// Names of those of which nothing is to be told any more, with the version from which on.
    gone: VecDeque<(u64, Box<str>)>,
    /// Peers that were told an older version may not know all that are gone.
    forgotten: u64,
    /// The version that told of others last.
    newest: u64,
    /// Rows and bytes of all that is told.
    rows: usize,
    bytes: usize,
    /// When the last version was made, and when the next one is due.
    last: Instant,
    due: Option<Instant>,
}

impl Telling {
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.due.map(|at| (at, Wakeup::Directory))
    }

    fn set_due(&mut self, now: Instant) {
        let soonest = if self.newest == 0 { now } else { now.max(self.last + TOGETHER) };
        self.due.get_or_insert(soonest);
    }
}

impl Router {
    /// A peer has told its rows whole.
    pub(super) fn note_rows(&mut self, peer: PeerId) {
        let takes_custody = self.config.takes_custody;
        let Some(state) = self.peers.get_mut(peer.0).filter(|_| !takes_custody) else { return };
        let is_changed = core::mem::take(&mut state.whereabouts.is_changed);
        if state.whereabouts.told().is_none() {
            return self.untell(peer);
        }
        if is_changed || state.whereabouts.revision == 0 {
            self.telling.changed.insert(peer);
            self.telling.set_due(self.now);
            self.check_telling();
        }
    }

    /// A peer is not known at first hand any more.
    pub(super) fn untell(&mut self, peer: PeerId) {
        self.telling.changed.remove(&peer);
        let Some(state) = self.peers.get_mut(peer.0).filter(|state| state.whereabouts.revision > 0) else {
            return;
        };
        state.whereabouts.revision = 0;
        self.telling.rows -= core::mem::take(&mut state.whereabouts.told_rows);
        self.telling.bytes -= core::mem::take(&mut state.whereabouts.told_bytes);
        self.telling.gone.push_back((u64::MAX, state.name.clone()));
        self.telling.set_due(self.now);
        self.check_telling();
    }

    /// Makes the next version of what is told of others, if it is time.
    pub(super) fn check_telling(&mut self) {
        if self.telling.due.is_none_or(|due| due > self.now) {
            return;
        }
        self.rows_version += 1;
        let version = self.rows_version;
        let changed = core::mem::take(&mut self.telling.changed);
        let sizes = self.sizes_of(&changed);
        for (peer, (rows, bytes)) in sizes {
            let Some(state) = self.peers.get_mut(peer.0) else { continue };
            let whereabouts = &mut state.whereabouts;
            self.telling.rows -= core::mem::take(&mut whereabouts.told_rows);
            self.telling.bytes -= core::mem::take(&mut whereabouts.told_bytes);
            let was_told = core::mem::take(&mut whereabouts.revision) > 0;
            let fits =
                self.telling.rows + rows <= self.config.heard_max && self.telling.bytes + bytes <= BYTES_MAX;
            if fits {
                (whereabouts.told_rows, whereabouts.told_bytes) = (rows, bytes);
                whereabouts.revision = version;
                self.telling.rows += rows;
                self.telling.bytes += bytes;
                self.telling.gone.retain(|(_, name)| *name != state.name);
            } else if was_told {
                self.telling.gone.push_back((version, state.name.clone()));
            }
        }
        for (since, _) in &mut self.telling.gone {
            *since = version.min(*since);
        }
        while self.telling.gone.len() > GONE_MAX {
            let forgotten = self.telling.gone.pop_front().map_or(0, |(since, _)| since);
            self.telling.forgotten = self.telling.forgotten.max(forgotten);
        }
        (self.telling.newest, self.telling.last, self.telling.due) = (version, self.now, None);
        self.announce();
    }

    /// How many rows and bytes it takes to tell of each node.
    fn sizes_of(&self, peers: &BTreeSet<PeerId>) -> BTreeMap<PeerId, (usize, usize)> {
        let head = |peer: PeerId| {
            let state = self.peers.get(peer.0);
            state.map_or(0, |state| state.name.len() + state.whereabouts.told().map_or(0, str::len) + 8)
        };
        let mut sizes: BTreeMap<PeerId, (usize, usize)> = peers.iter().map(|peer| (*peer, (0, 0))).collect();
        for (topic, rows) in self.topics.all_rows() {
            for row in rows.iter().filter(|row| !row.heard) {
                if let Some((count, bytes)) = sizes.get_mut(&row.peer) {
                    *count += 1;
                    *bytes += topic.len() + head(row.peer);
                }
            }
        }
        for (peer, (count, bytes)) in &mut sizes {
            if *count == 0 {
                (*count, *bytes) = (1, head(*peer));
            }
        }
        sizes
    }

    /// The rows that a peer is told, which knows of everything up to a version: all of the node's own, and what has changed of others.
    /// Nothing if it cannot be said what has.
    pub(super) fn rows_for(&self, peer: PeerId, known: u64) -> Option<Vec<Row<'_>>> {
        let config = &self.config;
        let own = |topic| Row {
            change: Change::Add,
            topic,
            name: &config.name,
            address: &config.address,
            durable: config.durable,
        };
        let mut rows: Vec<Row<'_>> = self.topics.own().map(own).collect();
        if rows.is_empty() && !config.address.is_empty() {
            rows.push(own(""));
        }
        if self.telling.newest <= known {
            return Some(rows);
        }
        if known > 0 {
            if known < self.telling.forgotten {
                return None;
            }
            let gone = self.telling.gone.iter().filter(|(since, _)| (known + 1..u64::MAX).contains(since));
            rows.extend(gone.map(|(_, name)| Row {
                change: Change::Remove,
                topic: "",
                name,
                address: "",
                durable: true,
            }));
        }
        self.push_others(peer, known, &mut rows);
        Some(rows)
    }

    fn push_others<'r>(&'r self, peer: PeerId, known: u64, rows: &mut Vec<Row<'r>>) {
        let of = |id: PeerId, topic| {
            let state = self.peers.get(id.0).filter(|state| state.whereabouts.revision > known)?;
            let (name, durable) = (&*state.name, state.durable);
            let address = state.whereabouts.told().filter(|_| id != peer)?;
            Some(Row { change: Change::Add, topic, name, address, durable })
        };
        let mut told = BTreeSet::new();
        for (topic, subscribers) in self.topics.all_rows() {
            for row in subscribers.iter().filter(|row| !row.heard) {
                if let Some(other) = of(row.peer, topic) {
                    told.insert(row.peer);
                    rows.push(other);
                }
            }
        }
        let rest = self.peers.ids().into_iter().map(PeerId).filter(|id| !told.contains(id));
        rows.extend(rest.filter_map(|id| of(id, "")));
    }
}
