//! A look at a server from outside, beside the nodes that use it: what waits, who has subscribed, what was put aside.

use std::collections::BTreeSet;

use liner_proto::effect::{DeadReason, Delivery};
use liner_proto::id::Epoch;
use liner_proto::wire::record::{Record, decode};
use liner_store::checksums::{self, mode_of};
use liner_store::look::{DeadLetter, Delivered, LookError, Pending, StoredDelivery, StoredLetter, Target};

use crate::client::{Client, Failure};
use crate::error::OpenError;
use crate::keys;
use crate::letters::{Entry, Topics};
use crate::resp::{Reply, Request};
use crate::row::QueueRow;
use crate::scan::Scan;
use crate::survey::Survey;
use crate::url::Url;

/// Of what is read at a time no more than this is in memory, and some entries beyond it.
const PAGE_BYTES: usize = 1 << 20;
/// Entries that are asked for at a time.
const STEP: usize = 16;

/// A server that is looked at. It takes no node's name, and changes nothing but what it is told to.
#[derive(Debug)]
pub struct Look {
    pub(crate) url: Url,
    client: Option<Client>,
}

/// A dead letter with its node.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) owner: String,
    pub(crate) stored: StoredLetter,
    /// Why, also if it is damaged.
    reason: Option<DeadReason>,
}

impl Look {
    /// Connects to a server that nodes have used.
    ///
    /// # Errors
    /// Why it cannot be looked at.
    pub fn open(url: &Url) -> Result<Self, LookError> {
        let mut look = Self { url: url.clone(), client: None };
        match Client::connect(url) {
            Ok(client) => look.client = Some(client),
            Err(failure) => return Err(look.failed(failure)),
        }
        Ok(look)
    }

    /// Does something with the connection, which is made anew if the last one has failed.
    pub(crate) fn with<T>(
        &mut self,
        act: impl FnOnce(&mut Client) -> Result<T, Failure>,
    ) -> Result<T, LookError> {
        let done = match self.client.take().map_or_else(|| Client::connect(&self.url), Ok) {
            Ok(mut client) => {
                let done = act(&mut client);
                if !matches!(done, Err(Failure::Io { .. } | Failure::Link(_))) {
                    self.client = Some(client);
                }
                done
            }
            Err(failure) => Err(failure),
        };
        done.map_err(|failure| self.failed(failure))
    }

    pub(crate) fn failed(&self, failure: Failure) -> LookError {
        match failure {
            Failure::Fault(_) => self.damaged(),
            other @ (Failure::Io { .. } | Failure::Link(_) | Failure::Server(_)) => {
                LookError::Failed(OpenError::of(&self.url, other).to_string())
            }
        }
    }

    fn damaged(&self) -> LookError {
        LookError::Damaged(format!(
            "{} holds what is damaged: start its node, which says what it can mend",
            self.url
        ))
    }

    pub(crate) fn survey(&mut self) -> Result<Survey, LookError> {
        self.with(Survey::of)
    }

    /// Whether the node has used the store, and all that tells of its queues and cursors passes its check.
    pub(crate) fn find_node(&mut self, name: &str) -> Result<(), LookError> {
        let format =
            self.with(|client| client.command(&[b"HGET", keys::node(name).as_bytes(), b"format"]))?;
        if format == Reply::Nil {
            return Err(LookError::NoSuchNode { name: name.to_owned(), place: self.url.to_string() });
        }
        for (_, row) in self.rows(name)? {
            let topics = keys::of_queue(row.key.unwrap_or(0), "topics");
            let topics = self.with(|client| client.command(&[b"HGETALL", topics.as_bytes()]))?;
            if !Topics::of(&row.composite, &topics).are_sound {
                return Err(self.damaged());
            }
        }
        let cursors = keys::of_node(name, "cursors");
        let cursors = self.with(|client| client.command(&[b"HGETALL", cursors.as_bytes()]))?;
        let is_sound = |(peer, value)| {
            str::from_utf8(peer).is_ok_and(|peer| crate::turn::cursor_of(name, peer, value).is_some())
        };
        if cursors.pairs().all(is_sound) { Ok(()) } else { Err(self.damaged()) }
    }

    /// The queues of a node.
    pub(crate) fn rows(&mut self, owner: &str) -> Result<Vec<(Target, QueueRow)>, LookError> {
        let queues = keys::of_node(owner, "queues");
        let queues = self.with(|client| client.command(&[b"HGETALL", queues.as_bytes()]))?;
        let mut rows = Vec::new();
        for (composite, blob) in queues.pairs() {
            let row = str::from_utf8(composite).ok().and_then(|composite| {
                let (kind, name) = liner_store::names::parse(owner, composite)?;
                Some((Target::of(keys::queue(kind, &name)?), QueueRow::read(composite, blob)?))
            });
            rows.push(row.ok_or_else(|| self.damaged())?);
        }
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(rows)
    }

    /// What waits in the queues of a node, and in lists for which it begins queues when it starts.
    pub(crate) fn pending_of(
        &mut self,
        owner: &str,
        survey: &Survey,
        pending: &mut Vec<Pending>,
    ) -> Result<(), LookError> {
        let mut known = Vec::new();
        for (target, row) in self.rows(owner)? {
            let Some(key) = row.key else { continue };
            known.push((target.clone(), key));
            let scan = self.with(|client| Scan::of(client, &row))?;
            let inserted = self.count(key, "inserted")?;
            let messages = scan.messages + scan.foreign.0 + inserted.0;
            let bytes = scan.bytes + scan.foreign.1 + inserted.1;
            if messages > 0 {
                pending.push(Pending { owner: owner.to_owned(), target, messages, bytes });
            }
        }
        for (named, key) in survey.named.values().filter(|(named, _)| named.owner == owner) {
            let Some(queue) = keys::queue(named.kind, &named.name) else { continue };
            let target = Target::of(queue);
            if !known.contains(&(target.clone(), *key)) {
                let (waits, inserted) = (self.count(*key, "messages")?, self.count(*key, "inserted")?);
                let (messages, bytes) = (waits.0 + inserted.0, waits.1 + inserted.1);
                if messages > 0 {
                    pending.push(Pending { owner: owner.to_owned(), target, messages, bytes });
                }
            }
        }
        Ok(())
    }

    /// What an operator has put into a list: elements, and their bytes.
    fn count(&mut self, key: u64, what: &str) -> Result<(u64, u64), LookError> {
        let list = keys::of_queue(key, what);
        let (mut count, mut bytes, mut at, mut average) = (0, 0, 0, 256);
        loop {
            let elements = self
                .with(|client| crate::page::page(client, &list, at, u64::MAX, PAGE_BYTES as u64, average))?;
            let found: usize = elements.iter().map(Vec::len).sum();
            let Some(mean) = (found as u64).checked_div(elements.len() as u64) else {
                return Ok((count, bytes));
            };
            average = mean.max(1);
            at += elements.len() as u64;
            for element in elements.iter().filter(|element| crate::element::is_foreign(element)) {
                count += 1;
                bytes += element.len() as u64;
            }
        }
    }

    /// Dead letters of a node with an id above `after`, up to `limit`, which `wanted` names, until they are as long as a page is.
    pub(crate) fn letters(
        &mut self,
        owner: &str,
        mut after: i64,
        limit: usize,
        wanted: impl Fn(&Letter) -> bool,
    ) -> Result<Vec<Letter>, LookError> {
        let key = keys::of_node(owner, "dead");
        let (mut letters, mut bytes) = (Vec::new(), 0);
        loop {
            let found = self.entries(&key, after, STEP)?;
            let all: Vec<Letter> = Entry::all(&found).map(|entry| letter(owner, &entry)).collect();
            let Some(last) = all.last() else { return Ok(letters) };
            after = last.stored.id;
            for letter in all.into_iter().filter(&wanted) {
                if letters.len() >= limit || bytes >= PAGE_BYTES {
                    return Ok(letters);
                }
                bytes += letter.stored.content.as_ref().map_or(0, |(_, record)| record.len());
                letters.push(letter);
            }
        }
    }

    /// The first ones of several nodes: up to `limit`, until they are as long as a page is.
    pub(crate) fn first(mut letters: Vec<Letter>, limit: usize) -> Vec<Letter> {
        letters.sort_by_key(|letter| letter.stored.id);
        let mut bytes = 0;
        let fits = |letter: &Letter| {
            let has_room = bytes < PAGE_BYTES;
            bytes += letter.stored.content.as_ref().map_or(0, |(_, record)| record.len());
            has_room
        };
        letters.into_iter().take(limit).take_while(fits).collect()
    }

    /// One dead letter, of one of these nodes.
    pub(crate) fn find(&mut self, owners: &BTreeSet<String>, id: i64) -> Result<Letter, LookError> {
        for owner in owners {
            let found = self.entries(&keys::of_node(owner, "dead"), id.saturating_sub(1), 1)?;
            if let Some(entry) = Entry::all(&found).find(|entry| entry.id == id) {
                return Ok(letter(owner, &entry));
            }
        }
        Err(LookError::NoSuchLetter { id })
    }

    /// Messages in the inbox of a node with an id above `after`, in the same way.
    pub(crate) fn in_inbox(
        &mut self,
        owner: &str,
        mut after: i64,
        limit: usize,
    ) -> Result<Vec<StoredDelivery>, LookError> {
        let key = keys::of_node(owner, "inbox");
        let (mut deliveries, mut bytes) = (Vec::new(), 0);
        loop {
            let found = self.entries(&key, after, STEP)?;
            let before = deliveries.len();
            for entry in Entry::all(&found) {
                if deliveries.len() >= limit || bytes >= PAGE_BYTES {
                    return Ok(deliveries);
                }
                after = entry.id;
                let content = delivered(owner, &entry);
                bytes += content.as_ref().map_or(0, |it| it.payload.len());
                deliveries.push(StoredDelivery { id: entry.id, content });
            }
            if deliveries.len() == before {
                return Ok(deliveries);
            }
        }
    }

    fn entries(&mut self, key: &str, after: i64, count: usize) -> Result<Reply, LookError> {
        let (after, count) = (format!("(0-{}", after.max(0)), count.to_string());
        let words = [b"XRANGE", key.as_bytes(), after.as_bytes(), b"+", b"COUNT", count.as_bytes()];
        self.with(|client| client.command(&words))
    }

    /// The answers to several commands.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Vec<Reply>, LookError> {
        self.with(|client| client.all(request))
    }
}

fn letter(owner: &str, entry: &Entry<'_>) -> Letter {
    let (peer, topic, record) = (entry.text("peer"), entry.text("topic"), entry.bytes("record"));
    let reason: Option<i64> = entry.number("reason");
    let is_sound =
        |reason| entry.number("crc") == Some(checksums::dead_letter([owner, &peer, &topic], reason, record));
    let sound = reason.is_some_and(is_sound);
    let reason = reason.and_then(|reason| u8::try_from(reason).ok()).and_then(DeadReason::from_number);
    let content = reason.filter(|_| sound).map(|reason| (reason, record.to_vec()));
    Letter { owner: owner.to_owned(), stored: StoredLetter { id: entry.id, peer, topic, content }, reason }
}

impl From<Letter> for DeadLetter {
    fn from(letter: Letter) -> Self {
        let Letter { owner, stored: StoredLetter { id, peer, topic, content }, reason } = letter;
        let payload = content.and_then(|(_, record)| match decode(&record) {
            Ok(Record::Message { payload, .. }) => Some(payload.to_vec()),
            _ => None,
        });
        Self { id, owner, peer, topic, reason, payload }
    }
}

/// A message in the inbox of a node, if it passes its check.
pub(crate) fn delivered(owner: &str, entry: &Entry<'_>) -> Option<Delivered> {
    let text = |name| str::from_utf8(entry.bytes(name)).ok();
    let delivery = Delivery {
        from: text("from")?,
        epoch: Epoch(entry.number("epoch")?),
        number: entry.number("number")?,
        topic: text("topic")?,
        mode: mode_of(entry.number("mode")?)?,
        maybe_redelivered: entry.bytes("maybe_redelivered") == b"1",
        payload: entry.bytes("payload"),
    };
    let is_sound = entry.number("crc") == Some(checksums::delivery(owner, &delivery));
    is_sound.then(|| Delivered {
        from: delivery.from.to_owned(),
        epoch: delivery.epoch,
        number: delivery.number,
        topic: delivery.topic.to_owned(),
        mode: delivery.mode,
        maybe_redelivered: delivery.maybe_redelivered,
        payload: delivery.payload.to_vec(),
    })
}
