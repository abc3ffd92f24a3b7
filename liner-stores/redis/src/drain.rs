//! Emptying lists from their heads, a page a turn: into a queue what an operator has put there, to the dead letters what has no queue.
//!
//! What is taken from a list and what becomes of it is one turn, so that it is there once, whatever dies meanwhile.

use std::borrow::Cow;

use liner_proto::effect::{DeadReason, GapReason, Queue, StoreFault};
use liner_proto::wire::TEXT_MAX;
use liner_store::broker::{Frame, OWN_TOPIC};
use liner_store::byhand::{PAYLOAD_MAX, record, repeated};

use crate::RedisStore;
use crate::byhand::{self, ByHand};
use crate::client::Failure;
use crate::element::{self, Kept};
use crate::keys;
use crate::letters::{self, Topics};
use crate::page::{PAGE, page};
use crate::survey::Survey;

/// The lists of one connection key.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) key: u64,
    composite: String,
    topics: Topics,
}

/// What becomes of an element.
enum Fate<'a> {
    Queued(Vec<u8>),
    Dead(DeadReason, Cow<'a, str>, Vec<u8>),
    Aside,
    Nothing,
}

impl Source {
    /// The lists under this key, of the queue with this composite.
    pub(crate) fn of(store: &mut RedisStore, composite: &str, key: u64) -> Result<Self, Failure> {
        let topics = keys::of_queue(key, "topics");
        let reply = store.connected()?.command(&[b"HGETALL", topics.as_bytes()])?;
        Ok(Self { key, composite: composite.to_owned(), topics: Topics::of(composite, &reply) })
    }

    fn fate<'a>(&self, to: Option<Queue<'a>>, element: &[u8], survey: &'a Survey) -> Fate<'a> {
        match element::kept(&self.composite, element) {
            Kept::Message(record) => {
                let topic = Cow::Owned(self.topics.of_record(record));
                Fate::Dead(DeadReason::Orphaned, topic, record.to_vec())
            }
            Kept::Nothing => Fate::Nothing,
            Kept::Damaged => Fate::Aside,
            Kept::Foreign => self.fate_by_hand(to, element, survey),
        }
    }

    fn fate_by_hand<'a>(&self, to: Option<Queue<'a>>, element: &[u8], survey: &'a Survey) -> Fate<'a> {
        let (topic, payload) = match byhand::read(self.key, element) {
            ByHand::Plain(payload) => {
                let topic = to.and_then(kept).or_else(|| self.topics.only()).unwrap_or_default();
                (Cow::Owned(topic.to_owned()), payload)
            }
            ByHand::Named(topic, payload) => (Cow::Owned(topic), payload),
            ByHand::Broker(frame) => return fate_of_broker(to, frame, survey),
            ByHand::Unusable(payload) => (Cow::Borrowed(""), payload),
        };
        let record = record(&topic, payload);
        if fits(to, &topic) && payload.len() <= PAYLOAD_MAX {
            Fate::Queued(record)
        } else {
            Fate::Dead(DeadReason::Orphaned, topic, record)
        }
    }
}

/// That program keeps a message until it is acknowledged: it may have been delivered.
fn fate_of_broker<'a>(to: Option<Queue<'_>>, frame: Frame<'_>, survey: &'a Survey) -> Fate<'a> {
    // Without a topic nobody sends what is compressed as if it were what the application has sent.
    let number = u64::try_from(frame.topic).ok().filter(|_| !frame.compressed);
    let topic = number.and_then(|number| survey.topic(number)).unwrap_or_default();
    if topic == OWN_TOPIC {
        return Fate::Nothing;
    }
    let record = repeated(topic, frame.payload);
    if !fits(to, topic) {
        Fate::Dead(DeadReason::Orphaned, topic.into(), record)
    } else if frame.payload.len() > PAYLOAD_MAX {
        Fate::Dead(DeadReason::TooLarge, topic.into(), record)
    } else {
        Fate::Queued(record)
    }
}

/// The topic that a queue is kept for.
const fn kept(queue: Queue<'_>) -> Option<&str> {
    if let Queue::Topic(topic) = queue { Some(topic) } else { None }
}

/// Whether a message on this topic may stand in the queue.
fn fits(to: Option<Queue<'_>>, topic: &str) -> bool {
    // What is kept for a topic is of that topic.
    (1..=TEXT_MAX).contains(&topic.len())
        && to.is_some_and(|queue| kept(queue).is_none_or(|kept| kept == topic))
}

impl RedisStore {
    /// Takes what was put into these lists by hand into a queue. Says whether that is done: what the other side may have had of a queue
    /// in doubt is not known, so that it waits until the queue has begun a new epoch.
    pub(crate) fn drain_by_hand(
        &mut self,
        source: &Source,
        queue: Queue<'_>,
        survey: &Survey,
    ) -> Result<bool, Failure> {
        let Some(row) = self.rows.find(queue) else { return Ok(false) };
        let (is_suspect, is_own) = (row.suspect, row.key == Some(source.key));
        if is_suspect {
            let inserted = keys::of_queue(source.key, "inserted");
            let waiting = self.connected()?.command(&[b"LLEN", inserted.as_bytes()])?;
            self.opened.waiting += waiting.number().unwrap_or(0);
            return Ok(false);
        }
        self.drain(source, "inserted", Some(queue), survey)?;
        if !is_own {
            self.drain(source, "messages", Some(queue), survey)?;
        }
        Ok(true)
    }

    /// Empties a list.
    pub(crate) fn drain(
        &mut self,
        source: &Source,
        what: &str,
        to: Option<Queue<'_>>,
        survey: &Survey,
    ) -> Result<(), Failure> {
        let list = keys::of_queue(source.key, what);
        let mut average = 256;
        loop {
            let elements = page(self.connected()?, &list, 0, u64::MAX, PAGE, average)?;
            let (count, bytes) = (elements.len() as u64, elements.iter().map(Vec::len).sum::<usize>());
            let Some((last, found)) = elements.last().zip((bytes as u64).checked_div(count)) else {
                return Ok(());
            };
            average = found.max(1);
            self.applied.checks.0 += 1;
            self.applied.checks.1.check_element(&list, count - 1, last);
            let (mut run, mut queued) = (Vec::new(), 0);
            for element in &elements {
                match source.fate(to, element, survey) {
                    Fate::Queued(record) => {
                        element::put_record(&mut run, &record);
                        queued += 1;
                    }
                    Fate::Dead(reason, topic, record) => self.bury_record(source, reason, &topic, &record),
                    Fate::Aside => {
                        let aside = [source.composite.as_bytes(), b"\n", element].concat();
                        self.applied.words.command(&[b"RPUSH", keys::QUARANTINE.as_bytes(), &aside]);
                    }
                    Fate::Nothing => {}
                }
            }
            if let Some(queue) = to.filter(|_| queued > 0) {
                self.append_by_hand(queue, queued, &run)?;
                self.opened.inserted += queued;
            }
            let count = count.to_string();
            self.applied.words.command(&[b"LTRIM", list.as_bytes(), count.as_bytes(), b"-1"]);
            self.finish()?;
        }
    }

    fn bury_record(&mut self, source: &Source, reason: DeadReason, topic: &str, record: &[u8]) {
        let peer = liner_store::names::listener(&source.composite);
        let whose = [&*self.owner, &*peer, topic];
        letters::put(&mut self.applied.words, whose, reason, record);
        self.opened.orphaned += 1;
    }

    /// Appends a run behind everything that the queue has held, and behind what was reserved: numbers that a process took along may have been
    /// sent, and are told as a gap.
    fn append_by_hand(&mut self, queue: Queue<'_>, messages: u64, run: &[u8]) -> Result<(), StoreFault> {
        let row = self.rows.change(queue)?;
        let head = row.numbers.head;
        let skipped = head.reserved.saturating_sub(head.last);
        if skipped > 0 {
            let mut gap = Vec::new();
            element::put_gap(&mut gap, GapReason::Crashed, skipped);
            row.append(head.last + 1, head.reserved, &gap)?;
        }
        let first = row.numbers.head.last + 1;
        row.append(first, first + messages - 1, run)
    }

    /// Ends a turn that is the store's own. It gives up what it takes, so that it gets through where it is full.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.applied.any = true;
        self.commit_turn().map_err(|fault| match self.last_error.take() {
            Some(words) => Failure::Server(words),
            None => fault.into(),
        })
    }
}
