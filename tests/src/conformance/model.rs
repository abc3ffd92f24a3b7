//! Groups at random, on a store and on a model that is too simple to be wrong.

use std::collections::BTreeMap;

use liner_proto::effect::{DeadReason, GapReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::{Epoch, Predecessor};

use super::records::{Dice, gap, message, run};
use super::view::key;
use super::{Capabilities, Open, Place, View, ViewedQueue};

const SEEDS: u64 = 12;
const GROUPS: u64 = 150;

/// Whatever groups come, right ones and wrong ones, the store does what the model does.
pub fn any_groups_do_what_the_model_does(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    let mut run = Run { dice: Dice::new(0), model: Model::default(), seed: 0 };
    for seed in 0..SEEDS {
        (run.dice, run.seed) = (Dice::new(seed), seed);
        for step in 0..GROUPS {
            run.group(&mut place, step);
            if run.dice.one_in(4) {
                run.read(&mut place);
            }
            if run.dice.one_in(10) {
                assert_eq!(place.store().commit(), Ok(()));
                assert_eq!(place.view(), run.model.view(), "seed {seed}, after group {step}");
            }
        }
        run.clean_up(&mut place);
    }
}

/// Groups that follow from a seed, and what a store has after them.
#[derive(Clone, Debug)]
pub struct Groups {
    caps: Capabilities,
    run: Run,
    commits: u64,
}

impl Groups {
    /// Those of this seed.
    pub fn new(seed: u64, caps: Capabilities) -> Self {
        Self { caps, run: Run { dice: Dice::new(seed), model: Model::default(), seed }, commits: 0 }
    }

    /// Gives the groups of the next commit, wrong ones among them.
    pub fn next_turn(&mut self, mut apply: impl FnMut(&[StoreOp<'_>])) {
        for _ in 0..=self.run.dice.below(3) {
            self.run.next_group(self.caps, |group, _| apply(group));
        }
        self.commits += 1;
    }

    /// What a store has that has taken all groups of so many commits, no fewer than before.
    pub fn view_after(&mut self, commits: u64) -> View {
        while self.commits < commits {
            self.next_turn(|_| ());
        }
        self.run.model.view()
    }
}

/// The queue as a list of records, each with the first number it covers, which is below 1 if a rotation took it there.
#[derive(Clone, Debug, Default)]
struct ModelQueue {
    told: ViewedQueue,
    records: Vec<(i128, i128, Vec<u8>)>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    inbox: Option<Epoch>,
    dead_letters: u64,
    queues: BTreeMap<(u8, String), ModelQueue>,
    cursors: BTreeMap<String, (Epoch, u64)>,
    directory: BTreeMap<(String, String), String>,
}

/// A request that owns what it speaks of.
#[derive(Clone, Debug)]
enum Op {
    Inbox(u64),
    Open(usize, u64),
    Rotate(usize, u64, Predecessor),
    Reserve(usize, u64),
    Append(usize, u64, u64, Vec<Vec<u8>>),
    Trim(usize, u64),
    Drop(usize, u64, GapReason),
    Topic(usize, u32, &'static str),
    Cursor(&'static str, u64, u64),
    Subscribe(&'static str, &'static str, &'static str),
    Unsubscribe(&'static str, &'static str, &'static str),
    DeadLetter(Vec<u8>),
    Close(usize),
}

const QUEUES: [Queue<'static>; 4] =
    [Queue::Node("a"), Queue::Topic("a"), Queue::Address("b:\\"), Queue::Node("b:\\")];
const PEERS: [&str; 4] = ["p", "q", "p:q", ""];
const TEXTS: [&str; 3] = ["x", "y/z", "ü"];
const REASONS: [GapReason; 3] = [GapReason::Dropped, GapReason::Expired, GapReason::Missing];

#[derive(Clone, Debug)]
struct Run {
    dice: Dice,
    model: Model,
    seed: u64,
}

impl Run {
    /// The next group, with what a store has to say to it, and what the model has then if the store takes it.
    fn next_group(&mut self, caps: Capabilities, apply: impl FnOnce(&[StoreOp<'_>], Result<(), StoreFault>)) {
        let mut after = self.model.clone();
        let mut ops = Vec::new();
        let mut expected = Ok(());
        for _ in 0..=self.dice.below(4) {
            let op = self.op(&after, caps);
            expected = expected.and_then(|()| after.step(&op));
            ops.push(op);
        }
        let bytes: Vec<_> = ops.iter().map(Op::bytes).collect();
        let group: Vec<_> = ops.iter().zip(&bytes).map(|(op, bytes)| op.lend(bytes)).collect();
        apply(&group, expected);
        if expected.is_ok() {
            self.model = after;
        }
    }

    fn group(&mut self, place: &mut Place<'_>, step: u64) {
        let (before, seed) = (self.model.clone(), self.seed);
        let mut is_full = false;
        self.next_group(place.caps, |group, expected| {
            let outcome = place.store().apply(group);
            if outcome == Err(StoreFault::Full) && expected.is_ok() {
                let more: usize = group.iter().map(record_bytes).sum();
                let held: u64 = before.queues.values().map(|queue| queue.told.bytes).sum();
                assert!(held + more as u64 > place.caps.bytes_max as u64, "full with {held} and {more}");
                is_full = true;
                return;
            }
            assert_eq!(outcome, expected, "seed {seed}, group {step}: {group:?}");
        });
        if is_full {
            self.model = before;
        }
    }

    fn op(&mut self, model: &Model, caps: Capabilities) -> Op {
        let dice = &mut self.dice;
        let queue = dice.below(QUEUES.len().min(caps.queues) as u64) as usize;
        let told = QUEUES.get(queue).and_then(|&queue| model.queues.get(&key(queue)));
        let told = told.map(|queue| queue.told.clone()).unwrap_or_default();
        let pick = |dice: &mut Dice, count: usize| dice.below(count as u64) as usize;
        // Mostly what makes sense, and a bit beyond it on both sides.
        let near =
            |dice: &mut Dice| told.trimmed.saturating_sub(1) + dice.below(told.last - told.trimmed + 3);
        let text = |dice: &mut Dice| TEXTS.get(pick(dice, 3)).copied().unwrap_or("");
        match dice.below(if caps.directory { 25 } else { 20 }) {
            0 => Op::Inbox(dice.roll()),
            1 | 2 => Op::Open(queue, dice.below(3) + 1),
            3 => {
                let old_first = near(dice);
                let predecessor = Predecessor { epoch: told.epoch, old_first, count: dice.below(1000) };
                Op::Rotate(queue, dice.roll(), predecessor)
            }
            4 => Op::Reserve(queue, told.last + dice.below(100)),
            5..=11 => {
                let first = if dice.one_in(20) { near(dice) } else { told.last + 1 };
                let (records, numbers) = some_records(dice);
                let last = (first + numbers).saturating_sub(1 + u64::from(dice.one_in(20)));
                Op::Append(queue, first, last, records)
            }
            12..=14 => Op::Trim(queue, near(dice)),
            15 => {
                Op::Drop(queue, near(dice), REASONS.get(pick(dice, 3)).copied().unwrap_or(GapReason::Cleared))
            }
            16 => Op::Topic(queue, pick(dice, 4) as u32, TEXTS.get(pick(dice, 3)).copied().unwrap_or("")),
            17 | 18 => {
                let peer = PEERS.get(pick(dice, PEERS.len().min(caps.cursors))).copied().unwrap_or("");
                Op::Cursor(peer, dice.below(2), dice.below(100))
            }
            19 => Op::Close(queue),
            20 | 21 => Op::Subscribe(text(dice), text(dice), text(dice)),
            22 | 23 => Op::Unsubscribe(text(dice), text(dice), text(dice)),
            _ => Op::DeadLetter(message(b"letter")),
        }
    }

    /// Loads from a random place of every queue.
    fn read(&mut self, place: &mut Place<'_>) {
        for queue in QUEUES {
            let held = self.model.queues.get(&key(queue)).cloned().unwrap_or_default();
            let after = self.dice.below(held.told.last + 2);
            let room = if self.dice.one_in(3) { self.dice.below(40) } else { 400 };
            let mut into = vec![0; room as usize];
            let loaded = place.store().load(queue, after, &mut into);
            let Ok(loaded) = loaded else {
                assert_eq!(loaded, Ok(Loaded::Nothing), "seed {}", self.seed);
                continue;
            };
            held.check(after, loaded, &into, self.seed);
        }
    }

    /// Leaves no queue.
    fn clean_up(&mut self, place: &mut Place<'_>) {
        self.model.queues.clear();
        for queue in QUEUES {
            place.done(&[StoreOp::Close { queue }]);
        }
        assert_eq!(place.view(), self.model.view(), "seed {}", self.seed);
    }
}

/// Bytes of records that a request has.
fn record_bytes(op: &StoreOp<'_>) -> usize {
    if let StoreOp::Append { records, .. } | StoreOp::DeadLetter { record: records, .. } = op {
        return records.len();
    }
    0
}

/// A few records, and how many numbers they cover.
fn some_records(dice: &mut Dice) -> (Vec<Vec<u8>>, u64) {
    let mut numbers = 0;
    let records = (0..=dice.below(4))
        .map(|_| {
            if dice.one_in(6) {
                let count = 1 + dice.below(300);
                numbers += count;
                return gap(count);
            }
            numbers += 1;
            let payload: Vec<u8> = (0..dice.below(30)).map(|_| dice.roll() as u8).collect();
            message(&payload)
        })
        .collect();
    (records, numbers)
}

impl Op {
    fn bytes(&self) -> Vec<u8> {
        if let Self::Append(_, _, _, records) = self {
            return run(records);
        }
        if let Self::DeadLetter(record) = self { record.clone() } else { Vec::new() }
    }

    fn lend<'a>(&self, bytes: &'a [u8]) -> StoreOp<'a> {
        let queue = |index: usize| QUEUES.get(index).copied().unwrap_or(Queue::Node("a"));
        match *self {
            Self::Inbox(epoch) => StoreOp::Inbox { epoch: Epoch(epoch) },
            Self::Open(index, epoch) => StoreOp::Open { queue: queue(index), epoch: Epoch(epoch) },
            Self::Rotate(index, epoch, predecessor) => {
                StoreOp::Rotate { queue: queue(index), epoch: Epoch(epoch), predecessor }
            }
            Self::Reserve(index, through) => StoreOp::Reserve { queue: queue(index), through },
            Self::Append(index, first, last, _) => {
                StoreOp::Append { queue: queue(index), first, last, records: bytes }
            }
            Self::Trim(index, through) => StoreOp::Trim { queue: queue(index), through },
            Self::Drop(index, through, reason) => StoreOp::Drop { queue: queue(index), through, reason },
            Self::Topic(index, number, text) => StoreOp::Topic { queue: queue(index), number, text },
            Self::Cursor(peer, epoch, through) => StoreOp::Cursor { peer, epoch: Epoch(epoch), through },
            Self::Subscribe(topic, address, name) => StoreOp::Subscribe { topic, address, name },
            Self::Unsubscribe(topic, address, name) => StoreOp::Unsubscribe { topic, address, name },
            Self::DeadLetter(_) => {
                StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::Quota, record: bytes }
            }
            Self::Close(index) => StoreOp::Close { queue: queue(index) },
        }
    }
}

impl Model {
    fn view(&self) -> View {
        View {
            inbox: self.inbox,
            // Told with the inbox epoch only.
            dead_letters: if self.inbox.is_some() { self.dead_letters } else { 0 },
            queues: self.queues.iter().map(|(key, queue)| (key.clone(), queue.told.clone())).collect(),
            cursors: self.cursors.clone(),
            directory: self.directory.clone(),
        }
    }

    #[expect(clippy::panic, reason = "a test may fail")]
    fn step(&mut self, op: &Op) -> Result<(), StoreFault> {
        let bytes = op.bytes();
        match op.lend(&bytes) {
            StoreOp::Inbox { epoch } => self.inbox = Some(epoch),
            StoreOp::Open { queue, epoch } => {
                let told = &mut self.queues.entry(key(queue)).or_default().told;
                if told.epoch != epoch {
                    (told.epoch, told.predecessor) = (epoch, None);
                }
            }
            StoreOp::Topic { queue, number, text } => {
                self.queue(queue)?.told.topics.insert(number, text.to_owned());
            }
            StoreOp::Cursor { peer, epoch, through } => {
                let cursor = self.cursors.entry(peer.to_owned()).or_default();
                let floor = if cursor.0 == epoch { cursor.1 } else { 0 };
                *cursor = (epoch, through.max(floor));
            }
            StoreOp::Subscribe { topic, address, name } => {
                self.directory.insert((topic.to_owned(), address.to_owned()), name.to_owned());
            }
            StoreOp::Unsubscribe { topic, address, name } => {
                let place = (topic.to_owned(), address.to_owned());
                if self.directory.get(&place).is_some_and(|known| known == name) {
                    self.directory.remove(&place);
                }
            }
            StoreOp::Close { queue } => {
                self.queues.remove(&key(queue));
            }
            StoreOp::Rotate { queue, epoch, predecessor } => self.queue(queue)?.rotate(epoch, predecessor)?,
            StoreOp::Reserve { queue, through } => {
                let told = &mut self.queue(queue)?.told;
                told.reserved = told.reserved.max(through);
            }
            StoreOp::Append { queue, first, last, .. } => {
                let Op::Append(_, _, _, records) = op else { return Ok(()) };
                self.queue(queue)?.append(first, last, records)?;
            }
            StoreOp::Trim { queue, through } => self.queue(queue)?.trim(through),
            StoreOp::Drop { queue, through, reason } => self.queue(queue)?.drop_through(through, reason)?,
            StoreOp::DeadLetter { .. } => self.dead_letters += 1,
            // The inbox has rules of its own.
            other @ (StoreOp::Deliver(_) | _) => panic!("{other:?} is not known to this suite"),
        }
        Ok(())
    }

    fn queue(&mut self, queue: Queue<'_>) -> Result<&mut ModelQueue, StoreFault> {
        self.queues.get_mut(&key(queue)).ok_or(StoreFault::Refused)
    }
}

impl ModelQueue {
    fn append(&mut self, first: u64, last: u64, records: &[Vec<u8>]) -> Result<(), StoreFault> {
        let mut next = i128::from(self.told.last) + 1;
        if i128::from(first) != next {
            return Err(StoreFault::Refused);
        }
        let mut added = Vec::new();
        for record in records {
            let count = if record.first() == Some(&0x43) { gap_count(record) } else { 1 };
            added.push((next, next + count - 1, record.clone()));
            next += count;
        }
        if i128::from(last) != next - 1 {
            return Err(StoreFault::Refused);
        }
        self.records.extend(added);
        self.told.last = last;
        self.count();
        Ok(())
    }

    fn trim(&mut self, through: u64) {
        let told = &mut self.told;
        told.trimmed = told.trimmed.max(through);
        told.last = told.last.max(through);
        told.dropped = told.dropped.filter(|dropped| dropped.0 > told.trimmed);
        self.count();
    }

    fn drop_through(&mut self, through: u64, reason: GapReason) -> Result<(), StoreFault> {
        if through > self.told.last {
            return Err(StoreFault::Refused);
        }
        if i128::from(through) > self.floor() {
            self.told.dropped = Some((through, reason));
        }
        self.count();
        Ok(())
    }

    fn rotate(&mut self, epoch: Epoch, predecessor: Predecessor) -> Result<(), StoreFault> {
        if predecessor.old_first == 0 {
            return Err(StoreFault::Refused);
        }
        self.trim(predecessor.old_first - 1);
        let by = 1 - i128::from(predecessor.old_first);
        let shifted = |number: u64| u64::try_from((i128::from(number) + by).max(0)).unwrap_or(u64::MAX);
        let told = &mut self.told;
        told.trimmed = shifted(told.trimmed);
        told.last = shifted(told.last);
        told.dropped = told.dropped.map(|(through, reason)| (shifted(through), reason));
        told.reserved = if told.reserved < predecessor.old_first { 0 } else { shifted(told.reserved) };
        (told.epoch, told.predecessor) = (epoch, Some(predecessor));
        for (first, last, _) in &mut self.records {
            (*first, *last) = (*first + by, *last + by);
        }
        Ok(())
    }

    fn floor(&self) -> i128 {
        let dropped = self.told.dropped.map_or(0, |(through, _)| through);
        i128::from(self.told.trimmed.max(dropped))
    }

    /// Forgets what is below the floor, and counts the rest.
    fn count(&mut self) {
        let floor = self.floor();
        self.records.retain(|&(_, last, _)| last > floor);
        let messages = self.records.iter().filter(|(_, _, record)| record.first() != Some(&0x43));
        self.told.messages = messages.count() as u64;
        self.told.bytes = run(self.records.iter().map(|(_, _, record)| record)).len() as u64;
    }

    fn check(&self, after: u64, loaded: Loaded, into: &[u8], seed: u64) {
        let after = i128::from(after).max(self.floor());
        let expected: Vec<_> = self
            .records
            .iter()
            .filter(|(_, last, _)| *last > after)
            .map(|(first, last, record)| {
                let part = if *first <= after { gap((last - after) as u64) } else { record.clone() };
                (*last, part)
            })
            .collect();
        match loaded {
            Loaded::Nothing => assert!(expected.is_empty(), "seed {seed}: nothing after {after}"),
            Loaded::Records { first, last, len } => {
                assert_eq!(i128::from(first), after + 1, "seed {seed}");
                let taken = expected.iter().filter(|(end, _)| *end <= i128::from(last));
                let expected = run(taken.map(|(_, record)| record));
                assert_eq!(into.get(..len), Some(&*expected), "seed {seed}: {first}..={last}");
                assert!(!expected.is_empty());
            }
            Loaded::TooSmall { needed } => {
                let next = run(expected.first().map(|(_, record)| record));
                assert!(!next.is_empty() && next.len() > into.len(), "seed {seed}");
                assert!(needed >= next.len() && needed <= next.len() + 2, "seed {seed}: {needed}");
            }
            Loaded::Corrupt { .. } => assert_eq!(loaded, Loaded::Nothing, "seed {seed}: nothing was damaged"),
        }
    }
}

/// The numbers that a gap record covers.
fn gap_count(record: &[u8]) -> i128 {
    let bytes = record.iter().skip(2).enumerate();
    bytes.map(|(index, byte)| i128::from(byte & 0x7f) << (7 * index)).sum()
}
