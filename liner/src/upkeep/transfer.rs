//! A node's part of a store in another store: all that the contract tells and takes, so that any store can be copied into any other.

use liner_mio::Store;
use liner_proto::effect::{GapReason, Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::memory::SEGMENT_BYTES;
use liner_proto::store::head::Head;
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use liner_store::look::{Delivered, Look, LookError, Target};
use serde::Serialize;

/// After so many bytes of records the copy is committed.
const COMMIT_BYTES: usize = 4 << 20;

/// Dead letters and deliveries that are read at a time.
const PAGE: u32 = 1000;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// The store that is copied.
    #[error("what is copied cannot be read: {fault}{said}")]
    From { fault: StoreFault, said: String },
    /// The same, from outside.
    #[error("what is copied cannot be read: {0}")]
    Look(#[from] LookError),
    /// The store that it is copied into.
    #[error("the copy cannot be written: {fault}{said}")]
    To { fault: StoreFault, said: String },
    /// What is in the other store is not what was read.
    #[error(
        "the copy of {what} is not what it should be: copy it once more into an empty store, and report this"
    )]
    Differs { what: String },
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Copied {
    pub(crate) queues: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    #[serde(rename = "peers")]
    pub(crate) cursors: u64,
    pub(crate) subscriptions: u64,
    pub(crate) dead_letters: u64,
    #[serde(rename = "inbox")]
    pub(crate) deliveries: u64,
    /// Records, dead letters and deliveries that did not pass their check, and are not in the copy.
    pub(crate) damaged: u64,
}

/// A queue as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    target: Target,
    head: Head,
    messages: u64,
    topics: Vec<(u32, String)>,
}

impl Told {
    fn queue(&self) -> Queue<'_> {
        match &self.target {
            Target::Node(name) => Queue::Node(name),
            Target::Topic(topic) => Queue::Topic(topic),
            Target::Address(address) => Queue::Address(address),
        }
    }
}

/// Everything of a node but its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    inbox: Option<Epoch>,
    /// Commits may be missing, which only the node itself can deal with.
    pub(crate) is_regressed: bool,
    queues: Vec<Told>,
    cursors: Vec<(String, Epoch, u64)>,
    subscriptions: Vec<[String; 3]>,
}

impl Facts {
    /// What the store tells of the node that it was opened for.
    pub(crate) fn of(store: &mut dyn Store) -> Result<Self, StoreFault> {
        let mut facts = Self::default();
        store.recover(&mut |fact| facts.take(fact))?;
        facts.queues.sort_by(|one, other| one.target.cmp(&other.target));
        facts.queues.iter_mut().for_each(|queue| queue.topics.sort());
        facts.cursors.sort_by(|one, other| one.0.cmp(&other.0));
        facts.subscriptions.sort();
        Ok(facts)
    }

    fn take(&mut self, fact: Recovered<'_>) {
        match fact {
            Recovered::Node { inbox, regressed, .. } => {
                (self.inbox, self.is_regressed) = (Some(inbox), regressed);
            }
            Recovered::Queue(queue) => {
                let head = Head {
                    epoch: queue.epoch,
                    predecessor: queue.predecessor,
                    trimmed: queue.trimmed,
                    dropped: queue.dropped,
                    last: queue.last,
                    reserved: queue.reserved,
                };
                let (target, messages) = (Target::of(queue.queue), queue.messages);
                self.queues.push(Told { target, head, messages, topics: Vec::new() });
            }
            Recovered::Topic { queue, number, text } => {
                let target = Target::of(queue);
                let told = self.queues.iter_mut().rev().find(|told| told.target == target);
                if let Some(told) = told {
                    told.topics.push((number, text.to_owned()));
                }
            }
            Recovered::Cursor { peer, epoch, through } => {
                self.cursors.push((peer.to_owned(), epoch, through));
            }
            Recovered::Subscription { topic, address, name } => {
                self.subscriptions.push([topic, address, name].map(str::to_owned));
            }
            // What a later contract tells, this release does not know how to copy.
            _ => {}
        }
    }

    /// Messages that are queued.
    pub(crate) fn messages(&self) -> u64 {
        self.queues.iter().map(|queue| queue.messages).sum()
    }

    /// Whether there is nothing of the node, whoever else uses the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_none() && self.queues.is_empty() && self.cursors.is_empty()
    }

    /// Whether the other store has the same of the node. The directory is that of all nodes.
    pub(crate) fn is_same(&self, there: &Self) -> bool {
        let numbers = |facts: &Self| (facts.inbox, facts.queues.clone(), facts.cursors.clone());
        numbers(self) == numbers(there)
    }

    /// Whether a node has used the store: it names its inbox epoch before it does anything else, and a copy does last.
    pub(crate) const fn is_whole(&self) -> bool {
        self.inbox.is_some()
    }
}

/// A copy in the making.
pub(crate) struct Transfer<'a> {
    pub(crate) from: &'a mut dyn Store,
    pub(crate) to: &'a mut dyn Store,
    pub(crate) copied: Copied,
    /// Is told how many messages are copied.
    pub(crate) progress: &'a mut dyn FnMut(u64),
    uncommitted: usize,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        from: &'a mut dyn Store,
        to: &'a mut dyn Store,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self { from, to, copied: Copied::default(), progress, uncommitted: 0 }
    }

    /// Copies all of the node `name`, of which the stores have told these facts. What an earlier attempt has left half done is made anew.
    pub(crate) fn run(
        mut self,
        [facts, half]: [&Facts; 2],
        look: &mut dyn Look,
        name: &str,
    ) -> Result<Copied, TransferError> {
        for queue in &half.queues {
            self.apply(&[StoreOp::Close { queue: queue.queue() }])?;
        }
        self.commit()?;
        for queue in &facts.queues {
            self.copy_queue(queue)?;
        }
        self.finish(facts, look, name)?;
        Ok(self.copied)
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), TransferError> {
        self.to.apply(group).map_err(|fault| to_failed(self.to, fault))
    }

    fn commit(&mut self) -> Result<(), TransferError> {
        self.uncommitted = 0;
        let mut outcome = self.to.commit();
        if outcome == Err(StoreFault::Unknown) {
            outcome = self.to.resolve();
        }
        outcome.map_err(|fault| to_failed(self.to, fault))
    }

    fn copy_queue(&mut self, told: &Told) -> Result<(), TransferError> {
        let (queue, head) = (told.queue(), told.head);
        let first = head.predecessor.map_or(head.epoch, |predecessor| predecessor.epoch);
        self.apply(&[StoreOp::Open { queue, epoch: first }])?;
        if let Some(predecessor @ Predecessor { .. }) = head.predecessor {
            self.apply(&[StoreOp::Rotate { queue, epoch: head.epoch, predecessor }])?;
        }
        if head.trimmed > 0 {
            self.apply(&[StoreOp::Trim { queue, through: head.trimmed }])?;
        }
        if let Some((through, reason)) = head.dropped {
            self.put_gap(queue, head.trimmed + 1, through, reason)?;
            self.apply(&[StoreOp::Drop { queue, through, reason }])?;
        }
        if head.reserved > 0 {
            self.apply(&[StoreOp::Reserve { queue, through: head.reserved }])?;
        }
        for (number, text) in &told.topics {
            self.apply(&[StoreOp::Topic { queue, number: *number, text }])?;
        }
        self.copy_records(told)?;
        self.copied.queues += 1;
        self.commit()
    }

    fn copy_records(&mut self, told: &Told) -> Result<(), TransferError> {
        let (queue, last) = (told.queue(), told.head.last);
        let mut after = told.head.floor();
        let mut bytes = vec![0; SEGMENT_BYTES];
        while after < last {
            match self.from.load(queue, after, &mut bytes).map_err(|fault| from_failed(self.from, fault))? {
                Loaded::Records { first, last: through, len } => {
                    if first > after + 1 {
                        self.put_gap(queue, after + 1, first - 1, GapReason::Cleared)?;
                    }
                    let records = bytes.get(..len).unwrap_or_default();
                    self.to
                        .apply(&[StoreOp::Append { queue, first, last: through, records }])
                        .map_err(|fault| to_failed(self.to, fault))?;
                    self.copied.bytes += len as u64;
                    self.copied.messages +=
                        liner_proto::store::run::measure(records).map_or(0, |measure| measure.messages);
                    self.uncommitted += len;
                    after = through;
                }
                Loaded::Corrupt { first, last: through } => {
                    if first > after + 1 {
                        self.put_gap(queue, after + 1, first - 1, GapReason::Cleared)?;
                    }
                    self.put_gap(queue, first, through, GapReason::Corrupt)?;
                    self.copied.damaged += through - first + 1;
                    after = through;
                }
                Loaded::Nothing => {
                    self.put_gap(queue, after + 1, last, GapReason::Cleared)?;
                    after = last;
                }
                Loaded::TooSmall { needed } => bytes.resize(needed, 0),
            }
            if self.uncommitted >= COMMIT_BYTES {
                self.commit()?;
            }
            (self.progress)(self.copied.messages);
        }
        Ok(())
    }

    /// Puts a gap where there is no record.
    fn put_gap(
        &mut self,
        queue: Queue<'_>,
        first: u64,
        last: u64,
        reason: GapReason,
    ) -> Result<(), TransferError> {
        let mut record = [0; 1 + GAP_LEN_MAX];
        let count = (last + 1).saturating_sub(first);
        let Some((prefix, body)) = record.split_first_mut() else { return Ok(()) };
        let Some(len) = encode_gap(reason, count, body) else { return Ok(()) };
        // A gap record is so short that its length takes one byte.
        *prefix = len as u8;
        let records = record.get(..=len).unwrap_or_default();
        self.apply(&[StoreOp::Append { queue, first, last, records }])
    }

    /// What there cannot be twice, and what says that the copy is whole: in one transaction.
    fn finish(&mut self, facts: &Facts, look: &mut dyn Look, name: &str) -> Result<(), TransferError> {
        for (peer, epoch, through) in &facts.cursors {
            self.apply(&[StoreOp::Cursor { peer, epoch: *epoch, through: *through }])?;
            self.copied.cursors += 1;
        }
        for [topic, address, row_name] in &facts.subscriptions {
            self.apply(&[StoreOp::Subscribe { topic, address, name: row_name }])?;
            self.copied.subscriptions += 1;
        }
        let mut after = i64::MIN;
        loop {
            let page = look.stored_letters(name, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for letter in &page {
                let Some((reason, record)) = &letter.content else {
                    self.copied.damaged += 1;
                    continue;
                };
                let (peer, topic, reason) = (&*letter.peer, &*letter.topic, *reason);
                self.apply(&[StoreOp::DeadLetter { peer, topic, reason, record }])?;
                self.copied.dead_letters += 1;
            }
        }
        let mut after = i64::MIN;
        loop {
            let page = look.deliveries(name, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for delivered in &page {
                let Some(content) = delivered.content.as_ref().map(Delivered::lend) else {
                    self.copied.damaged += 1;
                    continue;
                };
                self.apply(&[StoreOp::Deliver(content)])?;
                self.copied.deliveries += 1;
            }
        }
        if let Some(epoch) = facts.inbox {
            self.apply(&[StoreOp::Inbox { epoch }])?;
        }
        self.commit()
    }
}

/// Whether the other store, opened again, tells the same.
pub(crate) fn compare(facts: &Facts, there: &Facts, copied: &Copied) -> Result<(), TransferError> {
    let numbers = |facts: &Facts| {
        let numbers =
            facts.queues.iter().map(|queue| (queue.target.clone(), queue.head, queue.topics.clone()));
        numbers.collect::<Vec<_>>()
    };
    let differs = |what: &str| Err(TransferError::Differs { what: what.to_owned() });
    if there.inbox != facts.inbox || there.cursors != facts.cursors {
        return differs("the cursors");
    }
    if numbers(there) != numbers(facts) {
        return differs("the queues' numbers");
    }
    if there.messages() != copied.messages {
        return differs("the messages");
    }
    Ok(())
}

fn said(store: &dyn Store) -> String {
    store.last_error().map(|said| format!(" ({said})")).unwrap_or_default()
}

pub(crate) fn from_failed(store: &dyn Store, fault: StoreFault) -> TransferError {
    TransferError::From { fault, said: said(store) }
}

pub(crate) fn to_failed(store: &dyn Store, fault: StoreFault) -> TransferError {
    TransferError::To { fault, said: said(store) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use liner_mio::Class;
    use liner_proto::effect::{DeadReason, Delivery};
    use liner_proto::wire::record::Mode;
    use liner_store_sqlite::{Look as SqliteLook, Options, SqliteStore};
    use liner_tests::conformance::Capabilities;
    use liner_tests::conformance::model::Groups;

    use super::*;

    const CAPS: Capabilities = Capabilities {
        persists: true,
        queues: 1000,
        cursors: 1000,
        directory: true,
        inbox: true,
        name_max: 255,
        bytes_max: usize::MAX,
    };

    fn open(path: &Path) -> SqliteStore {
        let (name, boot_id) = ("n".to_owned(), "this run".to_owned());
        let options = Options { name, durability: Class::Process, limit_bytes: None, boot_id };
        SqliteStore::open(path, &options).unwrap()
    }

    /// Fills a store with what follows from the seed, a dead letter and two deliveries among it.
    fn fill(path: &Path, seed: u64) -> u64 {
        let mut store = open(path);
        let mut groups = Groups::new(seed, CAPS);
        for _ in 0..60 {
            groups.next_turn(|group| {
                let _ = store.apply(group);
            });
            store.commit().unwrap();
        }
        let delivery = |number| {
            let (from, topic, mode, payload) = ("p", "t", Mode::All, &b"delivered"[..]);
            let epoch = Epoch(7);
            StoreOp::Deliver(Delivery { from, epoch, number, topic, mode, maybe_redelivered: true, payload })
        };
        let letter =
            StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::Failed, record: b"\x40\x01x" };
        store.apply(&[StoreOp::Inbox { epoch: Epoch(9) }, delivery(1), letter, delivery(2)]).unwrap();
        store.commit().unwrap();
        SqliteLook::open(path).unwrap().dead_letters(None, 0, 10_000).unwrap().len() as u64
    }

    fn records(store: &mut dyn Store, facts: &Facts) -> Vec<(Target, u64, Vec<u8>)> {
        let mut found = Vec::new();
        for told in &facts.queues {
            let mut after = told.head.floor();
            let mut bytes = vec![0; 1 << 16];
            while let Loaded::Records { last, len, .. } = store.load(told.queue(), after, &mut bytes).unwrap()
            {
                found.push((told.target.clone(), after, bytes[..len].to_vec()));
                after = last;
            }
        }
        found
    }

    fn copy(from: &Path, to: &Path) -> Result<Copied, TransferError> {
        let mut look = SqliteLook::open(from).unwrap();
        let (mut from, mut to_store) = (open(from), open(to));
        let (facts, half) = (Facts::of(&mut from).unwrap(), Facts::of(&mut to_store).unwrap());
        let mut told = |_| ();
        let transfer = Transfer::new(&mut from, &mut to_store, &mut told);
        let copied = transfer.run([&facts, &half], &mut look, "n")?;
        drop(to_store);
        compare(&facts, &Facts::of(&mut open(to)).unwrap(), &copied)?;
        Ok(copied)
    }

    /// Whatever the numbers are: rotated queues, dropped ranges, reservations, gaps.
    #[test]
    fn a_copy_is_the_same_and_can_be_made_anew_after_half_of_it() {
        let folder = tempfile::tempdir().unwrap();
        for seed in 0..8 {
            let path = |what: &str| folder.path().join(format!("{what}-{seed}.db"));
            let (from, to) = (path("from"), path("to"));
            let letters = fill(&from, seed);
            // Half of another copy is there.
            let mut half = open(&to);
            half.apply(&[StoreOp::Open { queue: Queue::Node("a"), epoch: Epoch(1) }]).unwrap();
            half.commit().unwrap();
            drop(half);
            let copied = copy(&from, &to).unwrap();
            assert_eq!((copied.dead_letters, copied.deliveries, copied.damaged), (letters, 2, 0));
            let (mut from, mut to_store) = (open(&from), open(&to));
            let (facts, there) = (Facts::of(&mut from).unwrap(), Facts::of(&mut to_store).unwrap());
            assert_eq!(facts, there, "seed {seed}");
            assert!(facts.is_whole());
            let of = |records: &[(Target, u64, Vec<u8>)]| {
                let bytes: Vec<u8> = records.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
                bytes
            };
            assert_eq!(of(&records(&mut from, &facts)), of(&records(&mut to_store, &there)), "seed {seed}");
            drop(to_store);
            let mut look = SqliteLook::open(&to).unwrap();
            let deliveries = Look::deliveries(&mut look, "n", 0, 10).unwrap();
            let numbers = deliveries.iter().map(|held| held.content.as_ref().map(|it| it.number));
            assert_eq!(numbers.collect::<Vec<_>>(), [Some(1), Some(2)]);
        }
    }
}
