//! The commands of a turn, as arguments of its script.

use crate::resp::put_word;
use crate::row::QueueRow;
use crate::{element, keys};

/// Elements of one `RPUSH`: Lua's stack takes no more than some eight thousand words.
const PUSH_MAX: usize = 4000;

/// Words in a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: usize,
}

impl Words {
    pub(crate) fn word(&mut self, word: &[u8]) {
        put_word(&mut self.bytes, word);
        self.count += 1;
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.word(number.to_string().as_bytes());
    }

    /// A command, behind the number of its words.
    pub(crate) fn command(&mut self, words: &[&[u8]]) {
        self.number(words.len() as u64);
        words.iter().for_each(|word| self.word(word));
    }

    /// All words of another list.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }

    /// What has to be true of a queue's list before anything is taken from it.
    pub(crate) fn check(&mut self, row: &QueueRow) {
        let (Some(key), Some(found)) = (row.key, row.cut.checked_sub(1).and_then(|last| row.list.at(last)))
        else {
            return;
        };
        self.word(keys::of_queue(key, "messages").as_bytes());
        self.number(found.index);
        self.word(&element::place(row.stored_epoch, found.first));
    }

    /// What the turn does to a queue.
    pub(crate) fn queue(&mut self, queues: &str, row: &QueueRow) {
        let Some(number) = row.key else { return };
        let (key, list) = (number.to_string(), keys::of_queue(number, "messages"));
        if row.is_new {
            self.command(&[b"SET", keys::key_of(&row.composite).as_bytes(), key.as_bytes()]);
            self.command(&[b"HSET", keys::CONNECTIONS.as_bytes(), key.as_bytes(), row.composite.as_bytes()]);
            self.command(&[b"SET", keys::of_queue(number, "sender").as_bytes(), b""]);
        }
        if row.cut > 0 {
            self.command(&[b"LTRIM", list.as_bytes(), row.cut.to_string().as_bytes(), b"-1"]);
        }
        let mut begin = row.tail.begin();
        for chunk in row.tail.left().chunks(PUSH_MAX) {
            self.number(chunk.len() as u64 + 2);
            self.word(b"RPUSH");
            self.word(list.as_bytes());
            let end = chunk.last().map_or(begin, |waiting| waiting.end);
            self.bytes.extend_from_slice(row.tail.bytes.get(begin..end).unwrap_or_default());
            self.count += chunk.len();
            begin = end;
        }
        for (number, text) in &row.topics {
            let value = topic_value(&row.composite, *number, text);
            let topics = row.key.map(|key| keys::of_queue(key, "topics")).unwrap_or_default();
            self.command(&[b"HSET", topics.as_bytes(), number.to_string().as_bytes(), value.as_bytes()]);
        }
        self.command(&[b"HSET", queues.as_bytes(), row.composite.as_bytes(), &row.blob()]);
        let trimmed = row.numbers.head.trimmed;
        if row.is_new || row.before.is_some_and(|(before, _)| before.head.trimmed != trimmed) {
            let acknowledged = keys::of_queue(number, "mess_number");
            self.command(&[b"SET", acknowledged.as_bytes(), trimmed.to_string().as_bytes()]);
        }
    }

    /// Deletes a queue that was there before the turn.
    pub(crate) fn close(&mut self, queues: &str, row: &QueueRow) {
        let Some(key) = row.key else { return };
        let of = |what| keys::of_queue(key, what);
        let (messages, topics) = (of("messages"), of("topics"));
        let (sender, acknowledged) = (of("sender"), of("mess_number"));
        let own = keys::key_of(&row.composite);
        let all = [&*messages, &*topics, &*sender, &*acknowledged, &*own].map(str::as_bytes);
        let [messages, topics, sender, acknowledged, own] = all;
        self.command(&[b"DEL", messages, topics, sender, acknowledged, own]);
        self.command(&[b"HDEL", queues.as_bytes(), row.composite.as_bytes()]);
        self.command(&[b"HDEL", keys::CONNECTIONS.as_bytes(), key.to_string().as_bytes()]);
    }
}

/// A topic's text as it is kept, behind its checksum.
pub(crate) fn topic_value(composite: &str, number: u32, text: &str) -> String {
    format!("{:08x} {text}", liner_store::checksums::topic(composite, number, text))
}

/// The text, if it passes its check.
pub(crate) fn topic_text<'a>(composite: &str, number: u32, value: &'a [u8]) -> Option<&'a str> {
    let value = str::from_utf8(value).ok()?;
    let (_, text) = value.split_once(' ')?;
    (topic_value(composite, number, text) == value).then_some(text)
}
