//! The commands of a turn, as arguments of its script.

use crate::letters::WHOSE;
use crate::resp::put_word;
use crate::row::QueueRow;
use crate::{element, keys};

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

    /// The words one by one.
    pub(crate) fn to_vec(&self) -> Vec<Vec<u8>> {
        let (mut words, mut rest) = (Vec::with_capacity(self.count), &*self.bytes);
        while let Some(end) = rest.iter().position(|&byte| byte == b'\r') {
            let len: Option<usize> =
                rest.get(1..end).and_then(|len| str::from_utf8(len).ok()).and_then(|len| len.parse().ok());
            let Some(len) = len else { break };
            let begin = end + 2;
            words.push(rest.get(begin..begin + len).unwrap_or_default().to_vec());
            rest = rest.get(begin + len + 2..).unwrap_or_default();
        }
        words
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

    /// That an element is still the one that was read.
    pub(crate) fn check_element(&mut self, list: &str, index: u64, element: &[u8]) {
        self.word(list.as_bytes());
        self.number(index);
        let end = element.len().min(element::HEAD);
        self.word(element.get(5..end).unwrap_or_default());
    }

    /// That a list has as many elements as it is thought to have, before it is deleted.
    pub(crate) fn check_length(&mut self, row: &QueueRow) {
        self.word(keys::of_queue(row.key.unwrap_or(0), "messages").as_bytes());
        self.word(b"len");
        self.number(row.list.len());
    }

    /// What the turn does to a queue, beside what it appends to its list.
    pub(crate) fn queue(&mut self, queues: &str, row: &QueueRow) {
        let Some(number) = row.key else { return };
        let (key, list) = (number.to_string(), keys::of_queue(number, "messages"));
        if row.is_new {
            self.command(&[b"SET", keys::key_of(&row.composite).as_bytes(), key.as_bytes()]);
            self.command(&[b"HSET", keys::CONNECTIONS.as_bytes(), key.as_bytes(), row.composite.as_bytes()]);
            self.command(&[b"SET", keys::of_queue(number, "sender").as_bytes(), b"", b"NX"]);
            let topics = keys::of_queue(number, "topics");
            self.command(&[b"HSET", topics.as_bytes(), WHOSE.as_bytes(), row.composite.as_bytes()]);
        }
        if row.cut > 0 {
            self.command(&[b"LTRIM", list.as_bytes(), row.cut.to_string().as_bytes(), b"-1"]);
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
        let all = [&*messages, &*sender, &*acknowledged, &*own].map(str::as_bytes);
        let [messages, sender, acknowledged, own] = all;
        self.command(&[b"DEL", messages, sender, acknowledged, own]);
        self.command(&[b"HDEL", queues.as_bytes(), row.composite.as_bytes()]);
        // What an operator has put there is found by it at the node's next start.
        let (inserted, orphaned) = (of("inserted"), of("orphaned"));
        let number = key.to_string();
        let all = [&*inserted, &*orphaned, &*topics, &*number].map(str::as_bytes);
        let [inserted, orphaned, topics, number] = all;
        self.command(&[b"release", inserted, orphaned, topics, number]);
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
