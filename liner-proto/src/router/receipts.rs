//! Messages that the application settles after it has taken them, and what they hold up until then.
//!
//! A stream's cursor stops before its first message that is not settled: what is behind that is handed over meanwhile, as far as
//! the window goes, and comes again after a crash. The window of other streams is not touched.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::dead::DEAD_LETTERS_MAX;
use super::event::Message;
use super::limits::written_out;
use super::peer::Peer;
use super::storage::Staged;
use super::tally::Loss;
use super::{PeerId, Router, TopicId};
use crate::config::Limits;
use crate::effect::DeadReason;
use crate::id::Predecessor;
use crate::planted::Fault;
use crate::time::Instant;
use crate::wire::record::{Header, Origin, Topic};

/// Stands in the place of a peer for what was queued for the node itself.
const OWN: u64 = u64::MAX - 1;

/// Names one handing over of a message: what [`Router::settle`] takes. It is good for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// The life of the node.
    instance: u64,
    peer: u64,
    number: u64,
}

impl Receipt {
    /// Names nothing.
    pub const NONE: Self = Self { instance: 0, peer: u64::MAX, number: 0 };

    /// Whether it is of what was queued for the node itself.
    const fn is_own(self) -> bool {
        self.peer == OWN
    }

    /// The same for all messages of one sender, which are in order, and for no others.
    pub const fn stream(self) -> u64 {
        self.peer
    }
}

/// When a message counts as processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Now.
    Now,
    /// When its receipt is given to [`Router::settle`].
    Later,
}

/// Why a message could not be put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutAsideError {
    /// The receipt is of no message that waits for being settled: it is settled already, or its stream has begun anew.
    #[error("this message does not wait for being settled any more")]
    NotWaiting,
    /// There is no room for more dead letters.
    #[error("there is no room for more dead letters: drop or redrive some of them")]
    Full,
}

/// A message that has failed, and waits for the cursor that it goes with.
#[derive(Debug)]
struct Failed {
    topic: TopicId,
    record: Box<[u8]>,
}

impl Failed {
    fn staged(self, peer: &str) -> Staged {
        let (topic, record) = (self.topic, self.record.into_vec());
        Staged::Dead { peer: peer.into(), topic, reason: DeadReason::Failed, record }
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Of its record.
    len: u64,
    /// Bytes that its session had brought before it; none if that is over.
    before: u64,
    settled: bool,
    failed: Option<Failed>,
}

/// A stream's messages from the first one that is not settled.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    entries: VecDeque<Entry>,
    /// The receipt of the first of them.
    first: u64,
    /// Of all entries, and of what the application still has of streams that are no more.
    bytes: u64,
    /// What that is: lengths by receipts.
    gone: BTreeMap<u64, u64>,
    /// What has failed of a stream that is no more.
    left: Vec<Failed>,
}

impl Receipts {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.gone.is_empty()
    }

    /// Whether the application has a window of messages that no cursor can cover yet, or ever.
    pub(super) fn fill(&self, limits: &Limits) -> bool {
        let messages = (self.entries.len() + self.gone.len()) as u64;
        let is_full =
            || self.bytes >= u64::from(limits.window_bytes) || messages >= u64::from(limits.window_messages);
        messages > 0 && is_full()
    }

    /// How far a cursor may go, and the bytes that the session had brought by then: to before the first message that is not
    /// settled, if there is one.
    pub(super) fn end(&self) -> Option<(u64, u64)> {
        self.entries.front().map(|entry| (entry.number - 1, entry.before))
    }

    /// The receipt of the message that is handed over next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn push(&mut self, number: u64, before: u64, len: u64) {
        self.entries.push_back(Entry { number, len, before, settled: false, failed: None });
        self.bytes += len;
    }

    fn get_mut(&mut self, receipt: u64) -> Option<&mut Entry> {
        let index = usize::try_from(receipt.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index).filter(|entry| !entry.settled)
    }

    pub(super) fn settle(&mut self, receipt: u64) {
        if let Some(entry) = self.get_mut(receipt) {
            entry.settled = true;
        }
    }

    /// Takes the first one out, if it is settled.
    fn pop_settled(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front_if(|entry| entry.settled)?;
        self.first += 1;
        self.bytes -= entry.len;
        Some(entry)
    }

    /// A session begins: what earlier ones brought does not count in it.
    pub(super) fn begin_session(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.before = 0);
    }

    /// The stream has a new epoch.
    pub(super) fn begin_epoch(&mut self, predecessor: &Predecessor) {
        for entry in &mut self.entries {
            // A cursor can stand right before it.
            entry.number = predecessor.translate(entry.number - 1) + 1;
        }
    }

    /// The stream is another one: nothing of it is waited for any more. What has failed does not come again; what the application
    /// still has takes memory, and counts against its sender until it is settled: otherwise each new stream would bring another
    /// window.
    pub(super) fn clear(&mut self) {
        let next = self.next();
        for (receipt, entry) in (self.first..).zip(self.entries.drain(..)) {
            if !entry.settled {
                self.gone.insert(receipt, entry.len);
            }
            self.left.extend(entry.failed);
        }
        self.first = next;
        self.bytes = self.gone.values().sum();
    }

    /// The application has done with a message of a stream that is no more.
    fn release(&mut self, receipt: u64) {
        self.bytes -= self.gone.remove(&receipt).unwrap_or(0);
    }

    /// Every topic that a letter refers to.
    pub(super) fn each_topic(&self, each: &mut impl FnMut(TopicId)) {
        let waiting = self.entries.iter().filter_map(|entry| entry.failed.as_ref());
        waiting.chain(&self.left).for_each(|failed| each(failed.topic));
    }
}

impl Peer {
    /// How far the cursor of its stream may go now, and the bytes that its session had brought by then.
    pub(super) fn cursor_end(&self) -> (u64, u64) {
        let end = if self.inbound.shows(Fault::UnsettledCovered) { None } else { self.receipts.end() };
        end.unwrap_or_else(|| self.inbound.arrived())
    }

    /// Whether the store has to hear of a new cursor.
    pub(super) fn owes_cursor(&self) -> bool {
        self.inbound.emitted() < self.cursor_end().0
    }

    /// The cursor is in batch `id`.
    pub(super) fn emit_cursor(&mut self, id: u64) -> u64 {
        let end = self.cursor_end();
        self.inbound.emit_cursor_at(id, end)
    }
}

impl Router {
    /// The application has processed a message that it was going to settle later. Says whether that was still waited for: it is
    /// not if the message was settled before, or if its stream has begun anew and it will come again.
    ///
    /// It is acknowledged when it and everything before it in its stream are settled, after the commit that follows.
    pub fn settle(&mut self, now: Instant, receipt: Receipt) -> bool {
        self.tick(now);
        let Some(entry) = self.unsettled_entry(receipt) else {
            self.release(receipt);
            return false;
        };
        entry.settled = true;
        self.take_settled_of(receipt);
        true
    }

    /// The application cannot process a message that it was going to settle later: it becomes a dead letter
    /// ([`DeadReason::Failed`]), in the group of the store that moves its stream's cursor over it.
    ///
    /// # Errors
    /// See [`PutAsideError`]. If it is `Full`, the message is still to be settled.
    pub fn put_failed_aside(&mut self, now: Instant, message: &Message<'_>) -> Result<(), PutAsideError> {
        self.tick(now);
        let receipt = message.receipt;
        if self.unsettled_entry(receipt).is_none() {
            self.release(receipt);
            return Err(PutAsideError::NotWaiting);
        }
        // What was queued for the node itself has no sender any more.
        let (name, epoch) = match self.peers.get(receipt.peer) {
            Some(state) => (state.name.clone(), Some(state.inbound.epoch())),
            None => (self.config.name.as_str().into(), None),
        };
        if self.storage.put_aside >= DEAD_LETTERS_MAX {
            return Err(PutAsideError::Full);
        }
        let topic = self.topics.intern(message.topic);
        let mut header = Header::new(message.mode, Topic::Number(0));
        header.repeat = true;
        header.origin = epoch.filter(|_| message.from != &*name).map(|epoch| Origin {
            name: message.from,
            epoch,
            number: message.seq,
        });
        let record = written_out(&header, message.topic, message.payload).into_boxed_slice();
        let Some(entry) = self.unsettled_entry(receipt) else { return Err(PutAsideError::NotWaiting) };
        entry.settled = true;
        entry.failed = Some(Failed { topic, record });
        self.storage.put_aside += 1;
        let loss = Loss { name: &name, topic: message.topic, reason: DeadReason::Failed, kept: true };
        self.events.extend(self.tally.add(self.now, loss, 1));
        self.take_settled_of(receipt);
        Ok(())
    }

    fn unsettled_entry(&mut self, receipt: Receipt) -> Option<&mut Entry> {
        if receipt.instance != self.config.instance {
            return None;
        }
        let receipts = if receipt.is_own() {
            &mut self.own.receipts
        } else {
            &mut self.peers.get_mut(receipt.peer)?.receipts
        };
        receipts.get_mut(receipt.number)
    }

    /// Nobody waits for this message to be settled: it makes room, if it is of a stream that is no more.
    fn release(&mut self, receipt: Receipt) {
        if receipt.instance != self.config.instance {
            return;
        }
        if let Some(state) = self.peers.get_mut(receipt.peer) {
            state.receipts.release(receipt.number);
            self.open_shut(PeerId(receipt.peer));
        }
    }

    /// The window of a peer that is shut is looked at again.
    fn open_shut(&mut self, peer: PeerId) {
        if self.shut.contains(&peer) {
            self.open_windows(|_, _| false);
        }
    }

    /// Messages that were handed over and are not settled.
    pub fn unsettled(&self) -> u64 {
        let unsettled =
            |peer: &Peer| peer.receipts.entries.iter().filter(|entry| !entry.settled).count() as u64;
        let own = self.own.receipts.entries.iter().filter(|entry| !entry.settled).count() as u64;
        own + self.peers.iter().map(unsettled).sum::<u64>()
    }

    /// A message of the stream that this one is of is settled.
    fn take_settled_of(&mut self, receipt: Receipt) {
        if receipt.is_own() {
            self.trim_own();
        } else {
            self.take_settled(PeerId(receipt.peer));
        }
    }

    /// What is settled at the front of the node's own queue is no longer waited for.
    pub(super) fn take_own_settled(&mut self) {
        while let Some(entry) = self.own.receipts.pop_settled() {
            let Some(failed) = entry.failed else { continue };
            self.storage.stage_settled(failed.staged(&self.config.name));
        }
    }

    /// What is settled at the front of a stream is no longer waited for.
    pub(super) fn take_settled(&mut self, id: PeerId) {
        if let Some(state) = self.peers.get_mut(id.0) {
            for failed in core::mem::take(&mut state.receipts.left) {
                self.storage.stage_settled(failed.staged(&state.name));
            }
        }
        while let Some(state) = self.peers.get_mut(id.0)
            && let Some(entry) = state.receipts.pop_settled()
        {
            let Some(failed) = entry.failed else { continue };
            state.custody_through = state.custody_through.max(entry.number);
            self.storage.stage_settled(failed.staged(&state.name));
        }
        self.list_peer(id);
        self.open_shut(id);
    }

    /// The application has taken the message that arrived last, and will settle it later.
    pub(super) fn note_receipt(&mut self, peer: PeerId, number: u64) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let before = state.brought_before;
        let len = state.inbound.arrived().1.saturating_sub(before);
        state.receipts.push(number, before, len);
    }

    /// Of the message of the node's own queue that is handed over next.
    pub(super) fn own_receipt(&self) -> Receipt {
        Receipt { instance: self.config.instance, peer: OWN, number: self.own.receipts.next() }
    }

    /// Of the message of a peer that is handed over next.
    pub(super) fn receipt_of(&self, peer: PeerId) -> Receipt {
        let number = self.peers.get(peer.0).map_or(0, |state| state.receipts.next());
        Receipt { instance: self.config.instance, peer: peer.0, number }
    }
}
