//! Topics, and who has subscribed to them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{OutboxId, PeerId, TopicId};

#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Vec<TopicState>,
    ids: BTreeMap<Box<str>, TopicId>,
    /// Places of topics that are forgotten.
    free: Vec<TopicId>,
    /// Topics that something is kept for.
    kept: BTreeSet<TopicId>,
    /// How many rows there are of a peer that only others speak of, if there are any.
    heard: BTreeMap<PeerId, usize>,
    /// The topic that was looked up last: applications send many messages to one.
    last: Option<TopicId>,
}

#[derive(Debug)]
struct TopicState {
    text: Box<str>,
    /// The node's own application takes it.
    own: bool,
    rows: Vec<Row>,
    /// Whose turn it is.
    turn: usize,
    kept: Option<OutboxId>,
    /// Whose message was the first that is kept, if that was a peer's.
    keeper: Option<PeerId>,
    full: bool,
}

impl TopicState {
    fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            own: false,
            rows: Vec::new(),
            turn: 0,
            kept: None,
            keeper: None,
            full: false,
        }
    }
}

/// A subscriber of a topic.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) peer: PeerId,
    pub(super) address: Box<str>,
    /// Others say so, and not the peer itself: no store knows it.
    pub(super) heard: bool,
}

/// What a subscription changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subscribed {
    /// There was none of the peer.
    New,
    /// There was one with this address instead.
    Elsewhere(Box<str>),
    /// There was one that only others had spoken of.
    Confirmed,
    /// Nothing.
    Before,
}

impl Topics {
    pub(super) fn intern(&mut self, text: &str) -> TopicId {
        if let Some(last) = self.last
            && self.text(last) == text
        {
            return last;
        }
        let id = match self.ids.get(text) {
            Some(&id) => id,
            None => {
                let id = self.free.pop().unwrap_or(TopicId(self.topics.len()));
                match self.topics.get_mut(id.0) {
                    Some(place) => *place = TopicState::new(text),
                    None => self.topics.push(TopicState::new(text)),
                }
                self.ids.insert(text.into(), id);
                id
            }
        };
        self.last = Some(id);
        id
    }

    /// Whether the topic is known.
    pub(super) fn knows(&self, text: &str) -> bool {
        self.last.is_some_and(|last| self.text(last) == text) || self.ids.contains_key(text)
    }

    /// The topic, if it is known.
    pub(super) fn find(&self, text: &str) -> Option<TopicId> {
        self.ids.get(text).copied()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Forgets the topics that are neither `used` elsewhere nor in use here. Returns how many those were.
    pub(super) fn sweep(&mut self, used: &[bool]) -> usize {
        let before = self.ids.len();
        self.last = None;
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let idle = !topic.own && topic.rows.is_empty() && topic.kept.is_none();
            let elsewhere = used.get(index).copied().unwrap_or(false);
            let known = self.ids.get(&topic.text) == Some(&TopicId(index));
            if known && idle && !elsewhere {
                self.ids.remove(&topic.text);
                *topic = TopicState::new("");
                self.free.push(TopicId(index));
            }
        }
        before - self.ids.len()
    }

    /// Places of topics, those that are free among them.
    pub(super) fn places(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn text(&self, id: TopicId) -> &str {
        self.topics.get(id.0).map_or("", |topic| &topic.text)
    }

    pub(super) fn is_own(&self, id: TopicId) -> bool {
        self.topics.get(id.0).is_some_and(|topic| topic.own)
    }

    /// Says whether that changed anything.
    pub(super) fn set_own(&mut self, id: TopicId, own: bool) -> bool {
        let Some(topic) = self.topics.get_mut(id.0) else { return false };
        core::mem::replace(&mut topic.own, own) != own
    }

    /// The topics that the node itself takes.
    pub(super) fn own(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().filter(|topic| topic.own).map(|topic| &*topic.text)
    }

    /// Says what that changed.
    pub(super) fn subscribe(&mut self, id: TopicId, peer: PeerId, address: &str) -> Subscribed {
        let Some(topic) = self.topics.get_mut(id.0) else { return Subscribed::Before };
        if let Some(row) = topic.rows.iter_mut().find(|row| row.peer == peer) {
            if core::mem::take(&mut row.heard) {
                row.address = address.into();
                self.forget_heard(peer, 1);
                return Subscribed::Confirmed;
            }
            if &*row.address == address {
                return Subscribed::Before;
            }
            return Subscribed::Elsewhere(core::mem::replace(&mut row.address, address.into()));
        }
        topic.rows.push(Row { peer, address: address.into(), heard: false });
        Subscribed::New
    }

    /// Others say that the peer takes a topic. Says whether there was no row of it.
    pub(super) fn hear(&mut self, id: TopicId, peer: PeerId, address: &str) -> bool {
        let Some(topic) = self.topics.get_mut(id.0) else { return false };
        let row = topic.rows.iter_mut().find(|row| row.peer == peer);
        if let Some(row) = row {
            if row.heard {
                row.address = address.into();
            }
            return false;
        }
        topic.rows.push(Row { peer, address: address.into(), heard: true });
        *self.heard.entry(peer).or_default() += 1;
        true
    }

    /// How many rows there are of a peer that only others speak of.
    pub(super) fn heard_rows(&self, peer: PeerId) -> usize {
        self.heard.get(&peer).copied().unwrap_or(0)
    }

    fn forget_heard(&mut self, peer: PeerId, count: usize) {
        if let Some(heard) = self.heard.get_mut(&peer) {
            *heard -= count;
            if *heard == 0 {
                self.heard.remove(&peer);
            }
        }
    }

    /// Nobody says any more that the peer takes other topics than those to `keep` and those that it has told itself. Says how many
    /// rows that were.
    pub(super) fn unhear(&mut self, peer: PeerId, keep: &[TopicId]) -> usize {
        let mut removed = 0;
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let row = topic.rows.iter().position(|row| row.peer == peer && row.heard);
            if let Some(row) = row.filter(|_| !keep.contains(&TopicId(index))) {
                topic.rows.remove(row);
                removed += 1;
            }
        }
        self.forget_heard(peer, removed);
        removed
    }

    /// Every topic that somebody has subscribed to, with its rows.
    pub(super) fn all_rows(&self) -> impl Iterator<Item = (&str, &[Row])> {
        self.topics.iter().filter(|topic| !topic.rows.is_empty()).map(|topic| (&*topic.text, &*topic.rows))
    }

    /// Takes out a row, and returns it if there was one.
    pub(super) fn unsubscribe(&mut self, id: TopicId, peer: PeerId) -> Option<Row> {
        let rows = &mut self.topics.get_mut(id.0)?.rows;
        let index = rows.iter().position(|row| row.peer == peer)?;
        let row = rows.remove(index);
        self.forget_heard(peer, row.heard.into());
        Some(row)
    }

    /// Takes a peer out of every topic but those to `keep`.
    pub(super) fn remove_peer(&mut self, peer: PeerId, keep: &[TopicId]) -> Vec<(TopicId, Row)> {
        let mut keep = keep.to_vec();
        keep.sort_unstable();
        let mut removed = Vec::new();
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let Some(row) = topic.rows.iter().position(|row| row.peer == peer) else { continue };
            if keep.binary_search(&TopicId(index)).is_err() {
                removed.push((TopicId(index), topic.rows.remove(row)));
            }
        }
        self.forget_heard(peer, removed.iter().filter(|(_, row)| row.heard).count());
        removed
    }

    pub(super) fn rows(&self, id: TopicId) -> &[Row] {
        self.topics.get(id.0).map_or(&[], |topic| &topic.rows)
    }

    /// Whether a peer subscribes to the topic.
    pub(super) fn has_row(&self, id: TopicId, peer: PeerId) -> bool {
        self.rows(id).iter().any(|row| row.peer == peer)
    }

    /// The next turn of a topic, counted up each time.
    pub(super) fn next_turn(&mut self, id: TopicId) -> usize {
        let Some(topic) = self.topics.get_mut(id.0) else { return 0 };
        topic.turn = topic.turn.wrapping_add(1);
        topic.turn
    }

    pub(super) fn kept(&self, id: TopicId) -> Option<OutboxId> {
        self.topics.get(id.0)?.kept
    }

    pub(super) fn set_kept(&mut self, id: TopicId, kept: OutboxId, keeper: Option<PeerId>) {
        if let Some(topic) = self.topics.get_mut(id.0) {
            topic.kept = Some(kept);
            topic.keeper = keeper;
            self.kept.insert(id);
        }
    }

    /// Nothing is kept any more. Says whose message was the first that was.
    pub(super) fn clear_kept(&mut self, id: TopicId) -> Option<PeerId> {
        let topic = self.topics.get_mut(id.0)?;
        topic.kept = None;
        self.kept.remove(&id);
        topic.keeper.take()
    }

    /// Every topic something is kept for.
    pub(super) fn all_kept(&self) -> impl Iterator<Item = (TopicId, OutboxId)> {
        self.kept.iter().filter_map(|&id| Some((id, self.kept(id)?)))
    }

    /// Notes whether the topic takes no more, and says whether that was so before.
    pub(super) fn set_full(&mut self, id: TopicId, full: bool) -> bool {
        let Some(topic) = self.topics.get_mut(id.0) else { return false };
        core::mem::replace(&mut topic.full, full)
    }
}
