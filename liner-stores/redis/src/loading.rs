//! What a node has when its store is opened: its queues and cursors are read, and what is wrong is set right.
//!
//! Four things say whose a list is: the node's row of the queue, `lnr_connections`, the queue's own key and the field `whose` of its topics. Whoever
//! deletes one of them loses no message: what has no row any more goes to the dead letters, and what an operator has put into the list of
//! a queue without a row is queued in a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

use liner_proto::effect::Queue;
use liner_proto::id::Epoch;

use crate::RedisStore;
use crate::client::Failure;
use crate::drain::Source;
use crate::keys::{self, Named};
use crate::letters::{Topics, WHOSE};
use crate::push::Body;
use crate::resp::{Reply, Request};
use crate::row::QueueRow;
use crate::scan::{Mender, Scan};
use crate::survey::Survey;
use crate::turn::cursor_of;
use crate::words::Words;

/// Connection keys whose owners are asked for at a time.
const OWNERS: usize = 512;

impl RedisStore {
    /// Reads what the node has, and sets right what is wrong with it.
    pub(crate) fn load_all(&mut self, regressed: bool) -> Result<(), Failure> {
        let mut wrong = Words::default();
        self.load_queues(regressed, &mut wrong)?;
        self.load_cursors(&mut wrong)?;
        self.keep_identity(&mut wrong);
        let body = Body::of(wrong);
        self.send(&body, true)?;
        let survey = Survey::of(self.connected()?)?;
        survey.raise_counters(self.connected()?)?;
        self.adopt(&survey)?;
        self.bury(&survey)?;
        for queue in self.queue_names() {
            self.take_in(keys::queue(queue.0, &queue.1), &survey)?;
        }
        Ok(())
    }

    fn load_queues(&mut self, regressed: bool, wrong: &mut Words) -> Result<(), Failure> {
        let queues = keys::of_node(&self.owner, "queues");
        let reply = self.connected()?.command(&[b"HGETALL", queues.as_bytes()])?;
        for (composite, blob) in reply.pairs() {
            if !self.load_queue(composite, blob, regressed, wrong)? {
                wrong.command(&[b"HDEL", queues.as_bytes(), composite]);
                self.opened.damaged += 1;
            }
        }
        Ok(())
    }

    fn load_cursors(&mut self, wrong: &mut Words) -> Result<(), Failure> {
        let cursors = keys::of_node(&self.owner, "cursors");
        let reply = self.connected()?.command(&[b"HGETALL", cursors.as_bytes()])?;
        for (peer, value) in reply.pairs() {
            let name = str::from_utf8(peer).ok();
            match name.and_then(|name| Some((name, cursor_of(&self.owner, name, value)?))) {
                Some((name, cursor)) => drop(self.cursors.insert(name.to_owned(), cursor)),
                None => {
                    wrong.command(&[b"HDEL", cursors.as_bytes(), peer]);
                    self.opened.damaged += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes a queue over; says whether it is sound.
    fn load_queue(
        &mut self,
        composite: &[u8],
        blob: &[u8],
        regressed: bool,
        wrong: &mut Words,
    ) -> Result<bool, Failure> {
        let Some(composite) = str::from_utf8(composite).ok() else { return Ok(false) };
        let parsed = liner_store::names::parse(&self.owner, composite);
        let Some((kind, name)) = parsed else { return Ok(false) };
        let Some(mut row) = QueueRow::read(composite, blob) else { return Ok(false) };
        let queue = keys::queue(kind, &name);
        let (Some(queue), Some(key)) = (queue, row.key) else { return Ok(false) };
        let of = |what| keys::of_queue(key, what);
        let mut request = Request::default();
        request
            .command(&[b"GET", keys::key_of(composite).as_bytes()])
            .command(&[b"HGETALL", of("topics").as_bytes()]);
        let replies = self.connected()?.pipeline(&request)?;
        let is_named = replies.first().and_then(Reply::number) == Some(key);
        let topics_are_sound = replies.get(1).is_some_and(|reply| Topics::of(composite, reply).are_sound);
        if !is_named || !topics_are_sound {
            return Ok(false);
        }
        // Whatever somebody has deleted of these follows from the row.
        let (number, trimmed) = (key.to_string(), row.numbers.head.trimmed.to_string());
        wrong.command(&[b"HSET", keys::CONNECTIONS.as_bytes(), number.as_bytes(), composite.as_bytes()]);
        wrong.command(&[b"HSET", of("topics").as_bytes(), WHOSE.as_bytes(), composite.as_bytes()]);
        wrong.command(&[b"SET", of("sender").as_bytes(), b"", b"NX"]);
        wrong.command(&[b"SET", of("mess_number").as_bytes(), trimmed.as_bytes(), b"NX"]);
        if regressed && !row.suspect {
            row.suspect = true;
            let queues = keys::of_node(&self.owner, "queues");
            wrong.command(&[b"HSET", queues.as_bytes(), composite.as_bytes(), &row.blob()]);
        }
        self.rows.insert(queue, row);
        Ok(true)
    }

    /// Begins the queues that somebody has named by hand, or whose rows are gone, under the connection keys that they have.
    fn adopt(&mut self, survey: &Survey) -> Result<(), Failure> {
        let of_node = survey.named.iter().filter(|(_, (named, _))| named.owner == self.owner);
        let of_node: Vec<_> = of_node
            .filter_map(|(key, (named, number))| {
                Some((key, named, *number, keys::queue(named.kind, &named.name)?))
            })
            .collect();
        let is_new =
            |store: &Self, queue, number| store.rows.find(queue).is_none_or(|row| row.key != Some(number));
        let new: Vec<u64> = of_node
            .iter()
            .filter(|(_, _, number, queue)| is_new(self, *queue, *number))
            .map(|(_, _, number, _)| *number)
            .collect();
        let mut whose = BTreeMap::new();
        for numbers in new.chunks(OWNERS) {
            whose.extend(self.whose(numbers)?);
        }
        for (key, Named { composite, .. }, number, queue) in of_node {
            // Another queue may have the number already.
            let is_free = whose.get(&number).is_none_or(|whose| whose == composite);
            if !is_free || !is_new(self, queue, number) {
                continue;
            }
            match self.rows.find(queue).map(|row| row.key) {
                None => self.begin(queue, composite, number)?,
                // The same queue by another topic of the sender's.
                Some(own) => {
                    let source = Source::of(self, composite, number)?;
                    if self.drain_by_hand(&source, queue, survey)? {
                        let own = own.unwrap_or(0).to_string();
                        self.applied.words.command(&[b"SET", key.as_bytes(), own.as_bytes()]);
                        let of = |what| keys::of_queue(number, what);
                        let (sender, acknowledged) = (of("sender"), of("mess_number"));
                        self.applied.words.command(&[b"DEL", sender.as_bytes(), acknowledged.as_bytes()]);
                        self.finish()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the row of a queue that has none. What its list holds waits to be taken in.
    fn begin(&mut self, queue: Queue<'_>, composite: &str, number: u64) -> Result<(), Failure> {
        let epoch = Epoch(RandomState::new().hash_one(composite).max(1));
        let row = QueueRow::new(Some(number), composite.to_owned(), epoch);
        let topics = keys::of_queue(number, "topics");
        let reply = self.connected()?.command(&[b"HGETALL", topics.as_bytes()])?;
        if !Topics::of(composite, &reply).are_sound {
            self.applied.words.command(&[b"DEL", topics.as_bytes()]);
        }
        self.rows.insert(queue, QueueRow { is_new: true, ..row });
        self.rows.change(queue)?;
        let [messages, inserted] = ["messages", "inserted"].map(|what| keys::of_queue(number, what));
        self.applied.words.command(&[b"adopt", messages.as_bytes(), inserted.as_bytes()]);
        self.finish()
    }

    /// Puts what stands in lists without a queue among the dead letters.
    fn bury(&mut self, survey: &Survey) -> Result<(), Failure> {
        let known: BTreeSet<u64> = self.rows.all().iter().filter_map(|(_, row)| row.key).collect();
        let gone: Vec<u64> = survey.lists.difference(&known).copied().collect();
        let prefix = keys::prefix(&self.owner);
        for keys in gone.chunks(OWNERS) {
            for (key, composite) in self.whose(keys)? {
                if composite.starts_with(&prefix) {
                    let source = Source::of(self, &composite, key)?;
                    self.bury_list(&source, survey)?;
                }
            }
        }
        Ok(())
    }

    fn bury_list(&mut self, source: &Source, survey: &Survey) -> Result<(), Failure> {
        for what in ["messages", "inserted", "orphaned"] {
            self.drain(source, what, None, survey)?;
        }
        let of = |what| keys::of_queue(source.key, what);
        let (topics, sender, acknowledged) = (of("topics"), of("sender"), of("mess_number"));
        let words = &mut self.applied.words;
        words.command(&[b"DEL", topics.as_bytes(), sender.as_bytes(), acknowledged.as_bytes()]);
        words.command(&[b"HDEL", keys::CONNECTIONS.as_bytes(), source.key.to_string().as_bytes()]);
        self.finish()
    }

    /// Whose the lists with these connection keys are, as far as anything says so.
    fn whose(&mut self, numbers: &[u64]) -> Result<BTreeMap<u64, String>, Failure> {
        let mut request = Request::default();
        for number in numbers {
            request.command(&[b"HGET", keys::CONNECTIONS.as_bytes(), number.to_string().as_bytes()]);
            request.command(&[b"HGET", keys::of_queue(*number, "topics").as_bytes(), WHOSE.as_bytes()]);
        }
        let replies = self.connected()?.pipeline(&request)?;
        let pairs = numbers.iter().zip(replies.as_chunks::<2>().0);
        let text =
            |reply: &Reply| reply.bytes().and_then(|bytes| str::from_utf8(bytes).ok()).map(str::to_owned);
        Ok(pairs
            .filter_map(|(number, [one, other])| Some((*number, text(one).or_else(|| text(other))?)))
            .collect())
    }

    /// Looks over the list of a queue until nothing is wrong with it, and takes in what was put there by hand.
    fn take_in(&mut self, queue: Option<Queue<'_>>, survey: &Survey) -> Result<(), Failure> {
        let Some((queue, row)) = queue.and_then(|queue| Some((queue, self.rows.find(queue)?.clone()))) else {
            return Ok(());
        };
        let (node, token) = (self.node.clone(), self.token);
        let scan = Scan::mended(self.connected()?, Mender { node: &node, token }, &row)?;
        if let Some(row) = self.rows.find_mut(queue) {
            (row.list, row.average) = (scan.list, scan.average);
        }
        let Some(key) = row.key else { return Ok(()) };
        let source = Source::of(self, &row.composite, key)?;
        self.drain(&source, "orphaned", None, survey)?;
        self.drain_by_hand(&source, queue, survey).map(drop)
    }

    fn queue_names(&self) -> Vec<(u8, String)> {
        let all = self.rows.all();
        all.iter().map(|(queue, _)| (keys::kind(*queue), queue.name().to_owned())).collect()
    }
}
