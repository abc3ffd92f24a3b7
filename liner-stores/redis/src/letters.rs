//! Dead letters: entries of a stream for each node, under numbers that go up in the whole server. And what topic a record is on.

use std::collections::BTreeMap;

use liner_proto::effect::DeadReason;
use liner_proto::wire::record::{Record, Topic, decode};
use liner_store::checksums;

use crate::keys;
use crate::resp::Reply;
use crate::words::{Words, topic_text};

/// What the field of a queue's topics is called that says whose they are.
pub(crate) const WHOSE: &str = "whose";

/// Adds a dead letter of `[owner, peer, topic]`, with a check over all of it.
pub(crate) fn put(words: &mut Words, whose: [&str; 3], reason: DeadReason, record: &[u8]) {
    words.number(FIELDS + 2);
    words.word(b"dead");
    words.word(keys::of_node(whose[0], "dead").as_bytes());
    put_fields(words, whose, reason, record);
}

/// Words of the fields of a dead letter.
pub(crate) const FIELDS: u64 = 10;

/// Only the fields.
pub(crate) fn put_fields(words: &mut Words, whose: [&str; 3], reason: DeadReason, record: &[u8]) {
    let [_, peer, topic] = whose;
    let crc = checksums::dead_letter(whose, reason as i64, record).to_string();
    let reason = (reason as u8).to_string();
    for (field, value) in [
        ("peer", peer.as_bytes()),
        ("topic", topic.as_bytes()),
        ("reason", reason.as_bytes()),
        ("crc", crc.as_bytes()),
        ("record", record),
    ] {
        words.word(field.as_bytes());
        words.word(value);
    }
}

/// An entry of a stream: its number, and its fields.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) id: i64,
    pub(crate) fields: &'a Reply,
}

impl<'a> Entry<'a> {
    /// The entries of a reply.
    pub(crate) fn all(reply: &'a Reply) -> impl Iterator<Item = Self> {
        reply.list().unwrap_or_default().iter().filter_map(|entry| {
            let [id, fields] = entry.list()? else { return None };
            let id = id.text()?.strip_prefix("0-")?.parse().ok()?;
            Some(Self { id, fields })
        })
    }

    /// A field, which somebody may have left out.
    pub(crate) fn bytes(&self, name: &str) -> &'a [u8] {
        let found = self.fields.pairs().find(|(field, _)| *field == name.as_bytes());
        found.map_or(&[], |(_, value)| value)
    }

    /// The same as a text.
    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }

    /// The same as a number.
    pub(crate) fn number<N: core::str::FromStr>(&self, name: &str) -> Option<N> {
        str::from_utf8(self.bytes(name)).ok()?.parse().ok()
    }
}

/// The topics of a queue by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topics {
    pub(crate) by_number: BTreeMap<u32, String>,
    /// Each one passes its check.
    pub(crate) are_sound: bool,
}

impl Topics {
    /// Reads the hash of a queue's topics.
    pub(crate) fn of(composite: &str, reply: &Reply) -> Self {
        let mut topics = Self { are_sound: true, ..Self::default() };
        for (number, value) in reply.pairs() {
            if number == WHOSE.as_bytes() {
                continue;
            }
            let number = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            match number.and_then(|number| Some((number, topic_text(composite, number, value)?))) {
                Some((number, text)) => drop(topics.by_number.insert(number, text.to_owned())),
                None => topics.are_sound = false,
            }
        }
        topics
    }

    /// The topic that a record names, or nothing if it names a number that nobody knows any more.
    pub(crate) fn of_record(&self, record: &[u8]) -> String {
        match decode(record) {
            Ok(Record::Message { header, .. }) => match header.topic {
                Topic::Text(text) => text.to_owned(),
                Topic::Number(number) => self.by_number.get(&number).cloned().unwrap_or_default(),
            },
            Ok(Record::Gap { .. }) | Err(_) => String::new(),
        }
    }

    /// The only topic, if there is one only.
    pub(crate) fn only(&self) -> Option<&str> {
        let mut texts = self.by_number.values();
        let first = texts.next()?;
        texts.all(|text| text == first).then_some(first)
    }
}
