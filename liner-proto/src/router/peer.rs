//! What a node knows of one peer, whether its session is up or not.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::mesh::Whereabouts;
use super::pieces::{Arriving, FRAME_BYTES_MAX, Partial};
use super::receipts::Receipts;
use super::topics::Row;
use super::{NodeConfig, OutboxId, Router, TopicId};
use crate::delivery::{Inbound, Resumption};
use crate::effect::GapReason;
use crate::id::{ConnId, Epoch};
use crate::seal;
use crate::time::Instant;
use crate::wire::batch::NUMBERS_MAX;
use crate::wire::control::NUMBERED_HEAD;
use crate::wire::handshake::{About, Acks, StreamFields};
use crate::wire::varint;

/// The most bytes around a topic in a frame that is about it, a Bind or a TopicFull.
const TOPIC_HEAD: usize = seal::LEN + NUMBERED_HEAD + 1 + 2 + varint::LEN_MAX;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: Box<str>,
    pub(super) outbox: Option<OutboxId>,
    pub(super) inbound: Inbound,
    /// Messages that the application settles later.
    pub(super) receipts: Receipts,
    /// Bytes that the session had brought before the record that arrived last.
    pub(super) brought_before: u64,
    pub(super) conn: Option<ConnId>,
    /// Of the session that is up, or was last.
    pub(super) about: Option<About>,
    /// The life of its memory that was met last, as far as that is known.
    pub(super) inbox: Option<Epoch>,
    /// The longest record that it takes, as it is sent; without a bound before it has said so.
    pub(super) record_max: usize,
    /// The longest record that has room in one frame to it: a best-effort message is not sent in pieces.
    pub(super) loose_max: usize,
    /// A message that arrives from it in pieces, and one that leaves so.
    pub(super) arriving: Arriving,
    pub(super) partial: Partial,
    /// The last number the peer lets this node send.
    pub(super) messages_limit: u64,
    /// Bytes that the peer lets this node send in the session, and how many were sent.
    pub(super) bytes_limit: u64,
    pub(super) bytes_sent: u64,
    /// Numbers that the next batch may have. Each is twice as long as the one before it, from one in every session: a link that is
    /// cut again and again lets some through each time.
    pub(super) batch_max: u64,
    /// The number that it said it would use next, on a line: what a start of it without its memory has lost.
    pub(super) next_told: u64,
    /// Topic numbers of this node that were told to the peer in this session.
    pub(super) bound: usize,
    /// Topics of the peer's numbers, from 1, in this session.
    pub(super) topics: Vec<Option<TopicId>>,
    /// The last message of it that was queued for others, or put aside: a cursor that covers it for the first time goes into the
    /// group that stores that. Any other one goes first, so that a full store takes it.
    pub(super) custody_through: u64,
    /// Whether it stands in the list of peers whose cursor the store has to hear of.
    pub(super) listed: bool,
    /// Its acknowledgements stand for too little: nothing is sent to it.
    pub(super) held: bool,
    /// It has subscribed under a name that it will have again.
    pub(super) durable: bool,
    /// Where it is, and what it says of others.
    pub(super) whereabouts: Whereabouts,
    /// The version of this node's rows that it was told.
    pub(super) rows_told: u64,
    /// Topics of the rows it has told of a version that is not told whole yet.
    pub(super) rows_seen: Vec<TopicId>,
    /// Rows it has in the directory.
    pub(super) rows: usize,
    /// It has had rows since it was given up, if it ever was.
    pub(super) subscribed: bool,
    /// Its rows when it stayed away for too long. The store keeps them until what was queued for it is back at its topics, so
    /// that a node which starts anew goes on with that.
    pub(super) left: Vec<(TopicId, Row)>,
    /// When it is looked at next, while it is away.
    pub(super) lease: Option<Instant>,
    /// The store has, or is about to have, how far its stream was taken: as long as it could send that again it must not be
    /// forgotten, and nobody knows when that ends.
    pub(super) has_cursor: bool,
    /// A message of it on this topic has to be put aside, and there was no room for that: no more is taken of it before there
    /// is.
    pub(super) shut_for: Option<TopicId>,
    /// Bytes that its earlier sessions brought, and how many messages of all peers this node had taken over by then: once those are
    /// stored there are none.
    pub(super) unstored: u64,
    pub(super) unstored_taken: u64,
    /// Topics of which it sent the first message that is kept.
    pub(super) kept: usize,
    /// Topics of which the peer takes no more.
    pub(super) full: Vec<TopicId>,
    /// Topics that the peer was told are full here, and what it is to be told next.
    pub(super) told_full: Vec<TopicId>,
    pub(super) full_news: Vec<(TopicId, u64)>,
}

impl Peer {
    pub(super) fn new(name: &str, config: &NodeConfig) -> Self {
        Self {
            name: name.into(),
            outbox: None,
            inbound: Inbound::new(&config.limits, config.planted),
            receipts: Receipts::default(),
            brought_before: 0,
            conn: None,
            about: None,
            inbox: None,
            record_max: usize::MAX,
            loose_max: 0,
            arriving: Arriving::default(),
            partial: Partial::default(),
            messages_limit: 0,
            bytes_limit: 0,
            bytes_sent: 0,
            batch_max: 1,
            next_told: 0,
            bound: 0,
            topics: Vec::new(),
            custody_through: 0,
            listed: false,
            held: false,
            durable: false,
            whereabouts: Whereabouts::default(),
            rows_told: 0,
            rows_seen: Vec::new(),
            rows: 0,
            subscribed: false,
            left: Vec::new(),
            lease: None,
            has_cursor: false,
            shut_for: None,
            unstored: 0,
            unstored_taken: 0,
            kept: 0,
            full: Vec::new(),
            told_full: Vec::new(),
            full_news: Vec::new(),
        }
    }

    /// Whether it would not be missed, but for a queue: it has no row, and sent nothing that it could send again.
    pub(super) fn has_left_nothing(&self) -> bool {
        let is_taken = self.has_cursor || self.owes_cursor() || !self.receipts.is_empty();
        self.rows == 0 && self.left.is_empty() && !is_taken
    }

    /// Every topic that it refers to.
    pub(super) fn each_topic(&self, each: &mut impl FnMut(TopicId)) {
        self.topics.iter().flatten().chain(&self.shut_for).copied().for_each(&mut *each);
        for topics in [&self.rows_seen, &self.full, &self.told_full] {
            topics.iter().copied().for_each(&mut *each);
        }
        self.full_news.iter().for_each(|(topic, _)| each(*topic));
        self.left.iter().for_each(|(topic, _)| each(*topic));
        self.receipts.each_topic(each);
    }

    /// The message that arrived last is queued for others, or put aside.
    pub(super) const fn took_custody(&mut self) {
        self.custody_through = self.inbound.received();
    }

    /// Whether the cursor that is owed covers messages whose rows no cursor was emitted with.
    pub(super) const fn owes_custody(&self) -> bool {
        self.inbound.emitted() < self.custody_through
    }

    /// Takes what the peer says of its stream. Gives what is lost of it, and why.
    pub(super) fn resume(&mut self, stream: &StreamFields, on_line: bool) -> Option<(u64, GapReason)> {
        let (epoch, pending) = (self.inbound.epoch(), self.owes_custody());
        let received = self.inbound.received();
        let next_told = core::mem::replace(&mut self.next_told, if on_line { stream.next } else { 0 });
        let lost = match self.inbound.resume(stream) {
            Resumption::Continued => None,
            Resumption::Lost(count) => Some((count, GapReason::Missing)),
            Resumption::Fresh => {
                // It has started without what it held: it had said how much that was.
                let count = next_told.saturating_sub(1).saturating_sub(received);
                (!epoch.is_none() && count > 0).then_some((count, GapReason::Restarted))
            }
        };
        self.receipts.begin_session();
        if self.inbound.epoch() != epoch {
            match stream.predecessor.filter(|before| before.epoch == epoch) {
                Some(predecessor) => self.receipts.begin_epoch(&predecessor),
                None => self.receipts.clear(),
            }
            // What was taken in another epoch, and is not committed, may have its rows still on their way.
            let pending = pending || self.owes_cursor();
            self.custody_through = if pending { self.inbound.received() } else { 0 };
        }
        lost
    }

    /// A batch with so many bytes of records is on its way.
    pub(super) fn note_batch(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
        self.batch_max = NUMBERS_MAX.min(2 * self.batch_max);
    }

    /// The longest frame that is written to it on a reliable link.
    pub(super) fn frame_max(&self) -> usize {
        self.about.map_or(0, |about| about.frame_max as usize).min(FRAME_BYTES_MAX)
    }

    /// Whether it has forgotten what it had since it was met last.
    pub(super) fn has_forgotten(&self, about: &About) -> bool {
        self.inbox.is_some_and(|inbox| inbox != about.inbox || inbox.is_none())
    }

    /// The longest topic that has room in a frame that is about it. Longer ones are written out in each record, as that may travel in
    /// pieces.
    pub(super) fn topic_max(&self) -> usize {
        self.frame_max().saturating_sub(TOPIC_HEAD)
    }

    /// Topic numbers that it keeps.
    pub(super) fn bindings_max(&self) -> usize {
        self.about.map_or(0, |about| about.bindings_max as usize)
    }

    /// Whether it takes messages over for others.
    pub(super) fn takes_custody(&self) -> bool {
        self.about.is_some_and(|about| about.roles & About::ROLE_CUSTODY != 0)
    }

    /// Whether it may take a topic that it has no row of: to hand it on, or because it has not told yet what it takes by now.
    pub(super) fn may_take_more(&self) -> bool {
        self.takes_custody() || !self.whereabouts.has_told_whole()
    }

    /// The session is over: what belonged to it is forgotten.
    pub(super) fn handle_down(&mut self) {
        self.conn = None;
        self.arriving = Arriving::default();
        self.partial = Partial::default();
        self.topics = Vec::new();
        self.bound = 0;
        self.whereabouts.handle_down();
        self.rows_told = 0;
        self.rows_seen = Vec::new();
        self.full = Vec::new();
        self.told_full = Vec::new();
        self.full_news = Vec::new();
    }
}

impl Router {
    /// What the acknowledgements of the node `name` stand for, as it said in its present session or the last one; nothing if it
    /// has never been connected.
    pub fn acks_of(&self, name: &str) -> Option<Acks> {
        Some(self.peer(name)?.about?.acks)
    }

    /// The last number of this node's stream to the node `name` that it has acknowledged, in the present epoch; 0 if there is
    /// none.
    pub fn acked_by(&self, name: &str) -> u64 {
        let outbox = self.peer(name).and_then(|peer| self.outboxes.get(peer.outbox?.0));
        outbox.map_or(0, |outbox| outbox.out.acked())
    }

    /// Whether the node `name` is connected and takes messages of the topic: it hands them on, or has subscribed to it itself.
    pub fn is_taken_by(&self, topic: &str, name: &str) -> bool {
        let Some((&id, peer)) = self.names.get(name).zip(self.peer(name)) else { return false };
        let subscribed = || self.topics.find(topic).is_some_and(|topic| self.topics.has_row(topic, id));
        peer.conn.is_some() && (peer.takes_custody() || subscribed())
    }

    fn peer(&self, name: &str) -> Option<&Peer> {
        self.peers.get(self.names.get(name)?.0)
    }
}
