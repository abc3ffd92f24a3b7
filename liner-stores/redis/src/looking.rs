//! The server as a store that is looked at, whatever its kind; and what is done with dead letters there.

use std::collections::BTreeSet;

use liner_proto::effect::Queue;
use liner_proto::wire::record::{Record, Topic, decode};
use liner_store::look::{
    self, About, DeadLetter, Delivered, LookError, Pending, Rows, StoredDelivery, StoredLetter, Subscription,
};

use crate::directory::{Catalog, milliseconds, runs};
use crate::examine::about;
use crate::look::{Letter, Look};
use crate::resp::{Reply, Request};
use crate::turn::delivery_words;
use crate::words::Words;
use crate::{byhand, keys, script};

impl look::Look for Look {
    /// A node that was killed counts as running until its lease is over.
    fn is_running(&mut self, name: &str) -> bool {
        let mut request = Request::default();
        request.command(&[b"HGET", keys::LEASE.as_bytes(), name.as_bytes()]).command(&[b"TIME"]);
        let Ok(replies) = self.ask(&request) else { return false };
        let until = replies.first().and_then(Reply::number).unwrap_or(0);
        replies.get(1).and_then(milliseconds).is_some_and(|now| runs(until, now))
    }

    fn vouch_for(&mut self, name: &str) -> Result<(), LookError> {
        self.find_node(name)
    }

    fn nodes(&mut self) -> Result<Vec<String>, LookError> {
        Ok(self.survey()?.nodes.into_iter().collect())
    }

    fn pending(&mut self, owner: Option<&str>) -> Result<Vec<Pending>, LookError> {
        let survey = self.survey()?;
        let by_hand = survey.named.values().map(|(named, _)| &named.owner);
        let owners: BTreeSet<&String> = survey.nodes.iter().chain(by_hand).collect();
        let mut pending = Vec::new();
        for of in owners.into_iter().filter(|of| owner.is_none_or(|owner| *of == owner)) {
            self.pending_of(of, &survey, &mut pending)?;
        }
        Ok(pending)
    }

    fn subscriptions(&mut self) -> Result<Vec<Subscription>, LookError> {
        let rows = self.with(|client| Catalog::default().read_all(client))?;
        let mut all: Vec<_> =
            rows.into_iter().map(|(topic, address, name)| Subscription { topic, name, address }).collect();
        all.sort_unstable();
        Ok(all)
    }

    fn dead_letters(
        &mut self,
        topic: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, LookError> {
        let mut letters = Vec::new();
        for owner in self.survey()?.with_letters {
            let wanted = |letter: &Letter| topic.is_none_or(|topic| letter.stored.topic == topic);
            letters.extend(self.letters(&owner, after, limit as usize, wanted)?);
            letters = Self::first(letters, limit as usize);
        }
        Ok(letters.into_iter().map(DeadLetter::from).collect())
    }

    fn dead_letter(&mut self, id: i64) -> Result<DeadLetter, LookError> {
        let owners = self.survey()?.with_letters;
        self.find(&owners, id).map(DeadLetter::from)
    }

    fn stored_letters(
        &mut self,
        owner: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredLetter>, LookError> {
        let letters = self.letters(owner, after, limit as usize, |_| true)?;
        Ok(letters.into_iter().map(|letter| letter.stored).collect())
    }

    fn deliveries(&mut self, owner: &str, after: i64, limit: u32) -> Result<Vec<StoredDelivery>, LookError> {
        self.in_inbox(owner, after, limit as usize)
    }

    fn about(&mut self) -> Result<About, LookError> {
        self.with(about)
    }

    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        self.each(ids, |_, _, _| Ok(()))
    }

    fn drop_all_dead_letters(&mut self, topic: Option<&str>) -> Result<u64, LookError> {
        let mut dropped = 0;
        for owner in self.survey()?.with_letters {
            let key = keys::of_node(&owner, "dead");
            let Some(topic) = topic else {
                let words = [b"XTRIM", key.as_bytes(), b"MAXLEN", b"=", b"0"];
                dropped += self.with(|client| client.command(&words))?.number().unwrap_or(0);
                continue;
            };
            loop {
                let letters = self.letters(&owner, 0, 1000, |letter| letter.stored.topic == topic)?;
                if letters.is_empty() {
                    break;
                }
                let mut request = Request::default();
                for letter in letters {
                    let id = format!("0-{}", letter.stored.id);
                    request.command(&[b"XDEL", key.as_bytes(), id.as_bytes()]);
                }
                dropped += self.ask(&request)?.iter().filter_map(Reply::number).sum::<u64>();
            }
        }
        Ok(dropped)
    }

    fn redrive(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        self.each(ids, Self::queue_again)
    }
}

impl Look {
    /// Takes each of these letters out, once, with what is to be done with it: all at once, or nothing.
    fn each(
        &mut self,
        ids: &[i64],
        mut act: impl FnMut(&mut Self, &Letter, &mut Words) -> Result<(), LookError>,
    ) -> Result<u64, LookError> {
        let ids: BTreeSet<i64> = ids.iter().copied().collect();
        let owners = self.survey()?.with_letters;
        let (mut taken, mut words) = (Vec::new(), Words::default());
        for &id in &ids {
            let letter = self.find(&owners, id)?;
            act(self, &letter, &mut words)?;
            taken.push((keys::of_node(&letter.owner, "dead"), format!("0-{id}")));
        }
        let mut arguments: Vec<Vec<u8>> = vec![taken.len().to_string().into_bytes()];
        for (key, id) in taken {
            arguments.extend([key.into_bytes(), id.into_bytes()]);
        }
        arguments.extend(words.to_vec());
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let reply = self.with(|client| client.eval(&script::act(), keys::UNIQUE, &arguments))?;
        match reply.number().and_then(|index| ids.iter().nth(index as usize)) {
            // Somebody else was faster.
            Some(&id) => Err(LookError::NoSuchLetter { id }),
            None => Ok(ids.len() as u64),
        }
    }

    /// The letter goes where an operator's elements go; what was in the inbox goes back there.
    fn queue_again(&mut self, letter: &Letter, words: &mut Words) -> Result<(), LookError> {
        let dead = DeadLetter::from(letter.clone());
        if dead.has_failed()
            && let Some((_, record)) = &letter.stored.content
            && let Some(delivered) = from_inbox(&letter.stored.peer, record)
        {
            delivery_words(words, &letter.owner, &delivered.lend());
            return Ok(());
        }
        let composite = keys::composite(&letter.owner, Queue::Node(dead.next()));
        let named = keys::key_of(&composite);
        let found = self.with(|client| client.command(&[b"GET", named.as_bytes()]))?;
        let is_known = found.number().is_some() || dead.has_failed();
        if let Some(why) = dead.refusal(is_known, self.rows_of(&dead)?) {
            return Err(LookError::NotQueued { id: dead.id, peer: dead.peer, why });
        }
        let element = byhand::named(&dead.topic, dead.payload.as_deref().unwrap_or_default());
        words.command(&[b"again", named.as_bytes(), &element]);
        Ok(())
    }

    /// The rows of the node that the letter was for.
    fn rows_of(&mut self, letter: &DeadLetter) -> Result<Rows, LookError> {
        let subscriptions = look::Look::subscriptions(self)?;
        let of_peer = || subscriptions.iter().filter(|row| row.name == letter.peer);
        let of_topic = of_peer().filter(|row| row.topic == letter.topic).count();
        Ok(Rows { all: of_peer().count() as u64, of_topic: of_topic as u64 })
    }
}

/// What was in the inbox before it was put aside: there the record says where it came from.
fn from_inbox(peer: &str, record: &[u8]) -> Option<Delivered> {
    let Ok(Record::Message { header, payload }) = decode(record) else { return None };
    let (Topic::Text(topic), Some(origin)) = (header.topic, header.origin) else { return None };
    (origin.name == peer).then(|| Delivered {
        from: peer.to_owned(),
        epoch: origin.epoch,
        number: origin.number,
        topic: topic.to_owned(),
        mode: header.mode,
        maybe_redelivered: header.repeat,
        payload: payload.to_vec(),
    })
}
