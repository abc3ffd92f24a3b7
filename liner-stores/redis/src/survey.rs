//! What keys there are in the server: one walk over all of them, when a store is opened or looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::client::{Client, Failure};
use crate::keys::{self, Named};
use crate::resp::{Reply, Request};
use crate::script;

/// Keys that the server looks at in one step.
const STEP: &[u8] = b"1000";

/// Numbers below this one are what liner_broker reads; whoever has written a higher one by hand has not counted up to it.
const COUNTED_MAX: u64 = 1 << 31;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Connection keys under which there is a list.
    pub(crate) lists: BTreeSet<u64>,
    /// The keys that name queues, as they stand in the server, and the connection keys that they say.
    pub(crate) named: BTreeMap<String, (Named, u64)>,
    /// Topics by their numbers.
    topics: HashMap<u64, BTreeSet<String>>,
    /// Names of nodes, sorted.
    pub(crate) nodes: BTreeSet<String>,
    /// The highest number that anything bears.
    highest: u64,
    /// Nodes with dead letters.
    pub(crate) with_letters: BTreeSet<String>,
}

impl Survey {
    /// Looks at all keys.
    pub(crate) fn of(client: &mut Client) -> Result<Self, Failure> {
        let mut survey = Self::default();
        let mut cursor = b"0".to_vec();
        loop {
            let reply = client.command(&[b"SCAN", &cursor, b"MATCH", b"lnr_*", b"COUNT", STEP])?;
            let [next, found] = reply.list().unwrap_or_default() else { return Err(Failure::nonsense()) };
            cursor = next.bytes().ok_or_else(Failure::nonsense)?.to_vec();
            survey.take(client, found.list().unwrap_or_default())?;
            if cursor == b"0" {
                return Ok(survey);
            }
        }
    }

    fn take(&mut self, client: &mut Client, found: &[Reply]) -> Result<(), Failure> {
        let mut asked = Vec::new();
        for key in found.iter().filter_map(Reply::text) {
            if let Some(named) = keys::named(key) {
                asked.push((key, Asked::Queue(named)));
            } else if let Some(text) = keys::older(key) {
                asked.push((key, Asked::Older(text)));
            } else if let Some(topic) = keys::numbered_topic(key) {
                asked.push((key, Asked::Topic(topic)));
            } else if let Some((number, what)) = keys::queue_of(key) {
                self.count(number);
                if matches!(what, "messages" | "inserted" | "orphaned") {
                    self.lists.insert(number);
                }
            } else if let Some(owner) = keys::owner_of(key) {
                self.nodes.insert(owner);
            } else if let Some(owner) = key.strip_suffix(":dead").and_then(keys::owner_of) {
                self.with_letters.insert(owner);
            }
        }
        let mut request = Request::default();
        for (key, _) in &asked {
            request.command(&[b"GET", key.as_bytes()]);
        }
        let mut older = Vec::new();
        // What is no number, or of another kind, is passed over.
        for ((key, asked), reply) in asked.into_iter().zip(client.pipeline(&request)?) {
            let Some(number) = reply.number().filter(|number| *number > 0) else { continue };
            self.count(number);
            match asked {
                Asked::Queue(named) => drop(self.named.insert(key.to_owned(), (named, number))),
                Asked::Older(text) => older.push((key, text, number)),
                Asked::Topic(topic) => drop(self.topics.entry(number).or_default().insert(topic)),
            }
        }
        self.take_older(client, &older)
    }

    /// Takes the keys of queues whose names are not escaped, as far as the senders' own topics tell whose they are.
    fn take_older(&mut self, client: &mut Client, older: &[(&str, &str, u64)]) -> Result<(), Failure> {
        let mut request = Request::default();
        for (_, _, number) in older {
            request.command(&[b"GET", keys::of_queue(*number, "sender").as_bytes()]);
        }
        for ((key, text, number), reply) in older.iter().zip(client.pipeline(&request)?) {
            if let Some(named) = keys::unescaped(text, reply.text()) {
                self.named.insert((*key).to_owned(), (named, *number));
            }
        }
        Ok(())
    }

    /// The topic with this number, if it is the only one.
    pub(crate) fn topic(&self, number: u64) -> Option<&str> {
        let topics = self.topics.get(&number).filter(|topics| topics.len() == 1)?;
        topics.first().map(String::as_str)
    }

    /// Takes note of a number that is not to be given out again.
    const fn count(&mut self, number: u64) {
        if number > self.highest && number < COUNTED_MAX {
            self.highest = number;
        }
    }

    /// Sees to it that no number is given out again, whoever has deleted the counters.
    pub(crate) fn raise_counters(&self, client: &mut Client) -> Result<(), Failure> {
        client.eval(script::RAISE, keys::UNIQUE, &[self.highest.to_string().as_bytes()])?;
        if self.with_letters.is_empty() || client.command(&[b"GET", keys::DEAD_ID.as_bytes()])? != Reply::Nil
        {
            return Ok(());
        }
        let mut highest = 0;
        for owner in &self.with_letters {
            let dead = keys::of_node(owner, "dead");
            let last = client.command(&[b"XREVRANGE", dead.as_bytes(), b"+", b"-", b"COUNT", b"1"])?;
            let ids = crate::letters::Entry::all(&last).map(|entry| entry.id);
            highest = ids.fold(highest, i64::max);
        }
        client.eval(script::RAISE, keys::DEAD_ID, &[highest.to_string().as_bytes()]).map(drop)
    }
}

/// What a key's value says.
enum Asked<'a> {
    Queue(Named),
    /// A queue's name of which nothing is escaped.
    Older(&'a str),
    Topic(String),
}
