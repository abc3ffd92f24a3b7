//! A model of a node's disk: what was applied, what is durable, and what a crash leaves of both.

use std::collections::VecDeque;

use liner_proto::effect::{Batch, BatchId, Loaded, Outcome, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::id::Class;
use liner_proto::router::{LoadRequest, StoreRequest};
use liner_proto::store::{HeapStore, Store};

use super::checker::Key;
use super::dice::Dice;

/// Snapshots that a power cut may fall back to.
const HISTORY_MAX: usize = 12;

/// What is wrong with a disk now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Of 1,000 groups that need room, so many find none.
    pub full: u64,
    /// Nothing can be read or written.
    pub unavailable: bool,
    /// Of 1,000 commits, so many fail.
    pub commit_fails: u64,
}

/// What ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// The process dies; its machine lives on.
    Process,
    /// The machine loses power.
    Power,
}

/// What a crash did to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// Everything that was committed is there.
    Kept,
    /// The store is an older one and says so.
    Regressed,
    /// Nothing is left.
    Wiped,
}

/// What a disk says when it is done with a request.
#[derive(Debug)]
pub enum Reply {
    /// A batch was executed.
    Committed {
        /// Which.
        id: BatchId,
        /// How.
        outcome: Outcome,
    },
    /// A read.
    Loaded {
        /// What was asked for.
        request: LoadRequest,
        /// What came of it.
        result: Result<Loaded, StoreFault>,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// A node's disk. Requests are executed one after another.
#[derive(Debug)]
pub struct Disk {
    class: Class,
    /// Whether a group is durable on its own, or with its whole batch only. A store may be of either kind.
    per_group: bool,
    /// Bytes read at a time.
    load_bytes: usize,
    /// What was applied. Between events it is what is durable.
    store: HeapStore,
    history: VecDeque<HeapStore>,
    jobs: VecDeque<StoreRequest>,
    failed_generation: Option<u64>,
    /// Queues that may be older than they were, until they have a new epoch.
    suspect: Vec<Key>,
    /// What is wrong with it.
    pub trouble: Trouble,
}

impl Disk {
    /// An empty disk.
    pub fn new(class: Class, per_group: bool, load_bytes: usize) -> Self {
        let store = HeapStore::new(u64::MAX).with_class(class);
        Self {
            class,
            per_group,
            load_bytes,
            store,
            history: VecDeque::new(),
            jobs: VecDeque::new(),
            failed_generation: None,
            suspect: Vec::new(),
            trouble: Trouble::default(),
        }
    }

    /// What it survives.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What is durable now.
    pub const fn durable(&self) -> &HeapStore {
        &self.store
    }

    /// The same, for damage.
    pub const fn durable_mut(&mut self) -> &mut HeapStore {
        &mut self.store
    }

    /// Takes a request. Says whether the disk was idle, so that the request begins now.
    pub fn push(&mut self, request: StoreRequest) -> bool {
        self.jobs.push_back(request);
        self.jobs.len() == 1
    }

    /// Whether a request waits or is being executed.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether a batch waits or is being executed.
    pub fn is_writing(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, StoreRequest::Commit(_)))
    }

    /// Executes the oldest request. `durable` is told of each group that is durable now.
    pub fn execute(&mut self, dice: &mut Dice, durable: &mut dyn FnMut(&[StoreOp<'_>])) -> Option<Reply> {
        Some(match self.jobs.pop_front()? {
            StoreRequest::Commit(batch) => {
                let outcome = self.commit(&batch, usize::MAX, dice, durable);
                Reply::Committed { id: batch.id(), outcome }
            }
            StoreRequest::Load(request) => {
                let mut bytes = vec![0; self.load_bytes];
                let result = if self.trouble.unavailable {
                    Err(StoreFault::Unavailable)
                } else {
                    self.store.load(request.queue(), request.after(), &mut bytes)
                };
                Reply::Loaded { request, result, bytes }
            }
        })
    }

    /// Executes a group in place, with its commit.
    ///
    /// # Errors
    /// What is wrong with the disk.
    pub fn apply_now(&mut self, ops: &[StoreOp<'_>], dice: &mut Dice) -> Result<(), StoreFault> {
        fault_of(self.trouble, ops, dice)?;
        if dice.chance(self.trouble.commit_fails) {
            return Err(StoreFault::Unavailable);
        }
        self.store.apply(ops)?;
        self.store.commit()?;
        remember(&mut self.history, &self.store);
        clear(&mut self.suspect, ops);
        Ok(())
    }

    /// Reads in place.
    ///
    /// # Errors
    /// What is wrong with the disk.
    pub fn load_now(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        if self.trouble.unavailable {
            return Err(StoreFault::Unavailable);
        }
        self.store.load(queue, after, into)
    }

    /// The process dies, perhaps in the middle of a batch: some of its groups may be durable if the store is of that kind.
    pub fn crash(
        &mut self,
        strength: Strength,
        dice: &mut Dice,
        durable: &mut dyn FnMut(&[StoreOp<'_>]),
    ) -> Aftermath {
        if self.per_group
            && let Some(StoreRequest::Commit(batch)) = self.jobs.pop_front()
        {
            let groups = dice.index(batch.groups_len());
            self.commit(&batch, groups, dice, durable);
        }
        self.jobs.clear();
        self.failed_generation = None;
        match (self.class, strength) {
            (Class::Ram, _) => {
                self.store = HeapStore::new(u64::MAX).with_class(self.class);
                self.history.clear();
                Aftermath::Wiped
            }
            (Class::Process, Strength::Power) => {
                let older = dice.index(self.history.len() + 1);
                if let Some(snapshot) = self.history.drain(..).rev().nth(older) {
                    self.store = snapshot;
                }
                self.suspect = queues(&self.store);
                Aftermath::Regressed
            }
            (Class::Process, Strength::Process) | (Class::Power, _) => Aftermath::Kept,
        }
    }

    /// Nobody will know that the store is an older one: it was put back by hand.
    pub fn hide(&mut self) {
        self.suspect.clear();
    }

    /// Opens the store for a new process. It says that it is an older one until every queue of it has a new epoch.
    pub fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) {
        self.store.set_regressed(!self.suspect.is_empty());
        // The model's store cannot fail to open: a store that cannot be opened is a node that stays down.
        let _ = self.store.recover(visit);
    }

    fn commit(
        &mut self,
        batch: &Batch,
        limit: usize,
        dice: &mut Dice,
        durable: &mut dyn FnMut(&[StoreOp<'_>]),
    ) -> Outcome {
        if self.failed_generation == Some(batch.generation()) {
            return Outcome { groups: 0, fault: Some(StoreFault::Unavailable) };
        }
        let before = self.store.clone();
        let mut groups = 0;
        let trouble = self.trouble;
        let (store, history, suspect) = (&mut self.store, &mut self.history, &mut self.suspect);
        let per_group = self.per_group;
        let fault = batch.try_each_group(|ops| {
            if groups == limit {
                return Err(StoreFault::Unavailable);
            }
            fault_of(trouble, ops, dice)?;
            if per_group && dice.chance(trouble.commit_fails) {
                return Err(StoreFault::Unavailable);
            }
            store.apply(ops)?;
            if per_group {
                store.commit()?;
                remember(history, store);
                clear(suspect, ops);
                durable(ops);
            }
            groups += 1;
            Ok(())
        });
        let mut fault = fault.err().map(|(_, fault)| fault);
        if !per_group && groups > 0 {
            if dice.chance(trouble.commit_fails) {
                self.store = before;
                groups = 0;
                fault = Some(StoreFault::Unavailable);
            } else {
                remember(&mut self.history, &self.store);
                let suspect = &mut self.suspect;
                announce(batch, groups, &mut |ops| {
                    clear(suspect, ops);
                    durable(ops);
                });
            }
        }
        if fault.is_some() {
            self.failed_generation = Some(batch.generation());
        }
        Outcome { groups, fault }
    }
}

/// Queues that have a new epoch are above suspicion.
fn clear(suspect: &mut Vec<Key>, ops: &[StoreOp<'_>]) {
    for op in ops {
        if let StoreOp::Rotate { queue, .. } | StoreOp::Close { queue } = op {
            suspect.retain(|key| *key != Key::of(*queue));
        }
    }
}

fn queues(store: &HeapStore) -> Vec<Key> {
    let mut keys = Vec::new();
    let _ = store.clone().recover(&mut |item| {
        if let Recovered::Queue(queue) = item {
            keys.push(Key::of(queue.queue));
        }
    });
    keys
}

fn remember(history: &mut VecDeque<HeapStore>, store: &HeapStore) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(store.clone());
}

fn announce(batch: &Batch, groups: usize, durable: &mut dyn FnMut(&[StoreOp<'_>])) {
    let mut told = 0;
    let _ = batch.try_each_group(|ops| {
        if told == groups {
            return Err(());
        }
        durable(ops);
        told += 1;
        Ok(())
    });
}

/// Whether a group meets the disk's trouble.
fn fault_of(trouble: Trouble, ops: &[StoreOp<'_>], dice: &mut Dice) -> Result<(), StoreFault> {
    if trouble.unavailable {
        return Err(StoreFault::Unavailable);
    }
    let grows = |op: &StoreOp<'_>| {
        matches!(op, StoreOp::Append { .. } | StoreOp::DeadLetter { .. } | StoreOp::Deliver(_))
    };
    if trouble.full > 0 && ops.iter().any(grows) && dice.chance(trouble.full) {
        return Err(StoreFault::Full);
    }
    Ok(())
}
