//! A node's part of a store in another store: all that the contract tells and takes, so that any store can be copied into any other.

use liner_mio::Store;
use liner_proto::effect::{GapReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Predecessor;
use liner_proto::memory::SEGMENT_BYTES;
use liner_proto::store::resolved;
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use liner_store::look::{Delivered, Look, LookError, StoredLetter};
use serde::Serialize;

use super::facts::{Facts, Told};

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
    /// The copy, from outside.
    #[error("the copy cannot be looked at: {0}")]
    LookThere(LookError),
    /// The node was started on the store that is copied.
    #[error("it was started there meanwhile: stop it, then copy it again")]
    Started,
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

    /// Copies all of the node `name`, of which the stores have told these facts, and at both of which it looks from outside. What an
    /// earlier attempt has left half done is made anew.
    pub(crate) fn run(
        mut self,
        [facts, half]: [&Facts; 2],
        [look, there]: [&mut dyn Look; 2],
        name: &str,
    ) -> Result<Copied, TransferError> {
        for queue in &half.queues {
            self.apply(&[StoreOp::Close { queue: queue.queue() }])?;
        }
        self.commit()?;
        drop_letters(there, name)?;
        for queue in &facts.queues {
            self.copy_queue(queue)?;
        }
        self.copy_letters(look, name)?;
        self.finish(facts, look, name)?;
        Ok(self.copied)
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), TransferError> {
        self.to.apply(group).map_err(|fault| to_failed(self.to, fault))
    }

    fn commit(&mut self) -> Result<(), TransferError> {
        self.uncommitted = 0;
        commit(self.to).map_err(|fault| to_failed(self.to, fault))
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

    /// They may be 10,000 of the longest messages: that is more than a transaction takes everywhere.
    fn copy_letters(&mut self, look: &mut dyn Look, name: &str) -> Result<(), TransferError> {
        let mut after = i64::MIN;
        loop {
            let page = look.stored_letters(name, after, PAGE)?;
            let Some(last) = page.last() else { return self.commit() };
            after = last.id;
            for StoredLetter { peer, topic, content, .. } in &page {
                let Some((reason, record)) = content else {
                    self.copied.damaged += 1;
                    continue;
                };
                self.apply(&[StoreOp::DeadLetter { peer, topic, reason: *reason, record }])?;
                self.copied.dead_letters += 1;
                self.uncommitted += record.len();
                if self.uncommitted >= COMMIT_BYTES {
                    self.commit()?;
                }
            }
        }
    }

    /// The name in the store that is copied may have been taken by its node since: a server does not keep anybody from that, but says so.
    /// What was read is all that there was if nobody has by now.
    fn check_still_alone(&mut self, facts: &Facts) -> Result<(), TransferError> {
        // Changes nothing, and finds room in a store that is full, where there is anything of which there could be too much.
        let idle = match (facts.queues.first(), facts.cursors.first(), facts.inbox) {
            (Some(told), ..) => StoreOp::Trim { queue: told.queue(), through: told.head.trimmed },
            (None, Some((peer, epoch, through)), _) => {
                StoreOp::Cursor { peer, epoch: *epoch, through: *through }
            }
            (None, None, Some(epoch)) => StoreOp::Inbox { epoch },
            (None, None, None) => return Ok(()),
        };
        let outcome = self.from.apply(&[idle]).and_then(|()| commit(self.from));
        outcome.map_err(|fault| from_failed(self.from, fault))
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
        self.check_still_alone(facts)?;
        self.commit()
    }
}

/// Commits, and asks once what became of that if it is not known.
fn commit(store: &mut dyn Store) -> Result<(), StoreFault> {
    match store.commit() {
        Err(StoreFault::Unknown) => resolved(store.resolve()).unwrap_or(Err(StoreFault::Unknown)),
        known => known,
    }
}

/// Takes out what an earlier attempt has brought.
fn drop_letters(there: &mut dyn Look, name: &str) -> Result<(), TransferError> {
    loop {
        let page = there.stored_letters(name, i64::MIN, PAGE).map_err(TransferError::LookThere)?;
        if page.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = page.iter().map(|letter| letter.id).collect();
        there.drop_dead_letters(&ids).map_err(TransferError::LookThere)?;
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
    if fault == StoreFault::Superseded {
        return TransferError::Started;
    }
    TransferError::From { fault, said: said(store) }
}

pub(crate) fn to_failed(store: &dyn Store, fault: StoreFault) -> TransferError {
    TransferError::To { fault, said: said(store) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use liner::store;
    use liner_mio::Class;
    use liner_proto::effect::{DeadReason, Delivery};
    use liner_proto::id::Epoch;
    use liner_proto::wire::record::Mode;
    use liner_store::look::Target;
    use liner_store_sqlite::{Look as SqliteLook, Options, SqliteStore};
    use liner_tests::conformance::Capabilities;
    use liner_tests::conformance::model::Groups;
    use liner_tests::servers::{Postgres, PostgresOptions, Redis, RedisOptions, Version};

    use super::*;
    use crate::store_url::StoreUrl;

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
        let mut there = SqliteLook::open(to).unwrap();
        let (facts, half) = (Facts::of(&mut from).unwrap(), Facts::of(&mut to_store).unwrap());
        let mut told = |_| ();
        let transfer = Transfer::new(&mut from, &mut to_store, &mut told);
        let copied = transfer.run([&facts, &half], [&mut look, &mut there], "n")?;
        drop(to_store);
        compare(&facts, &Facts::of(&mut open(to)).unwrap(), &copied)?;
        Ok(copied)
    }

    /// A server gives the name of a node to whoever opens it last, and the copy would lack what that stores.
    #[test]
    fn a_node_that_is_started_on_a_server_while_it_is_copied_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(&RedisOptions::default()).unwrap();
        let postgres = Postgres::start(Version::V15, &PostgresOptions::default()).unwrap();
        for (kind, url) in [("redis", redis.url()), ("postgres", postgres.url())] {
            let url: StoreUrl = url.parse().unwrap();
            let started = || store::open(&url, "n", None).unwrap().store;
            let (mut from, queue) = (started(), Queue::Node("a"));
            let records = b"\x03\x40\x01x";
            let append = StoreOp::Append { queue, first: 1, last: 1, records };
            let filled =
                [StoreOp::Inbox { epoch: Epoch(9) }, StoreOp::Open { queue, epoch: Epoch(1) }, append];
            from.apply(&filled).and_then(|()| from.commit()).unwrap();
            let path = folder.path().join(format!("{kind}.db"));
            let mut to = open(&path);
            let (mut look, mut there) = (store::look(&url).unwrap(), SqliteLook::open(&path).unwrap());
            let (facts, half) = (Facts::of(&mut *from).unwrap(), Facts::of(&mut to).unwrap());
            let mut node = None;
            let mut told = |_| node = Some(started());
            let transfer = Transfer::new(&mut *from, &mut to, &mut told);
            let outcome = transfer.run([&facts, &half], [&mut *look, &mut there], "n");
            assert!(matches!(outcome, Err(TransferError::Started)), "{kind}: {outcome:?}");
            assert!(node.is_some());
            drop(to);
            assert!(!Facts::of(&mut open(&path)).unwrap().is_whole(), "{kind}: it is half a copy");
        }
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
            let letter = StoreOp::DeadLetter {
                peer: "p",
                topic: "t",
                reason: DeadReason::Failed,
                record: b"\x40\x01x",
            };
            half.apply(&[StoreOp::Open { queue: Queue::Node("a"), epoch: Epoch(1) }, letter]).unwrap();
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
            assert_eq!(Look::held(&mut look, "n").unwrap().dead_letters, letters, "none came twice");
            let deliveries = Look::deliveries(&mut look, "n", 0, 10).unwrap();
            let numbers = deliveries.iter().map(|held| held.content.as_ref().map(|it| it.number));
            assert_eq!(numbers.collect::<Vec<_>>(), [Some(1), Some(2)]);
        }
    }
}
