//! What a turn appends to lists.
//!
//! Elements that pass through a script are copied and hashed there, one by one. Many of them go past it, as `RPUSH` in front of the script in the same
//! `MULTI`: the script finds them by the mark behind them, and takes them back if there is to be no turn. Nobody sees anything in between.

use crate::element;
use crate::keys;
use crate::resp::{Request, put_word};
use crate::row::QueueRow;
use crate::words::Words;

/// Elements of one `RPUSH` in a script: Lua's stack takes no more than some eight thousand words.
const PART: usize = 4000;

/// From so many elements on it is worth it to send the script's text once more.
const PAST_MIN: usize = 64;

/// Elements for one list.
#[derive(Clone, Debug)]
struct Push {
    list: String,
    /// The elements as words.
    words: Words,
    /// How many elements each part of them has, and where it ends.
    parts: Vec<(usize, usize)>,
}

/// What a turn does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pushes: Vec<Push>,
    /// What has to be true before it, behind how many things that are.
    pub(crate) checks: Words,
    /// Its commands.
    pub(crate) commands: Words,
}

impl Body {
    /// Commands for which nothing has to be true.
    pub(crate) fn of(commands: Words) -> Self {
        let mut body = Self { commands, ..Self::default() };
        body.checks.number(0);
        body
    }

    /// Appends what waits for the queue's list.
    pub(crate) fn push(&mut self, row: &QueueRow) {
        let Some(key) = row.key.filter(|_| !row.tail.left().is_empty()) else { return };
        let (from, mut words, mut parts) = (row.tail.begin(), Words::default(), Vec::new());
        for part in row.tail.left().chunks(PART) {
            let end = part.last().map_or(from, |waiting| waiting.end);
            parts.push((part.len(), end - from));
            words.count += part.len();
        }
        words.bytes.extend_from_slice(row.tail.bytes.get(from..).unwrap_or_default());
        self.pushes.push(Push { list: keys::of_queue(key, "messages"), words, parts });
    }

    /// Whether the elements go past the script. A server that is full takes a move by its script alone.
    pub(crate) fn goes_past(&self, is_move: bool) -> bool {
        !is_move && self.pushes.iter().map(|push| push.words.count).sum::<usize>() >= PAST_MIN
    }

    /// The script's arguments if everything is done by it. `numbers` are the token, the last turn and this one.
    pub(crate) fn arguments(&self, numbers: [u64; 3]) -> Words {
        let mut all = Words::default();
        numbers.into_iter().chain([0]).for_each(|number| all.number(number));
        all.extend(&self.checks);
        for push in &self.pushes {
            let mut begin = 0;
            for &(count, end) in &push.parts {
                all.number(count as u64 + 2);
                all.word(b"RPUSH");
                all.word(push.list.as_bytes());
                all.bytes.extend_from_slice(push.words.bytes.get(begin..end).unwrap_or_default());
                all.count += count;
                begin = end;
            }
        }
        all.extend(&self.commands);
        all
    }

    /// The request if elements go past the script.
    pub(crate) fn request(&self, script: &str, node: &str, numbers: [u64; 3]) -> Request {
        let mark = element::mark(numbers[0], numbers[2]);
        let mut request = Request::default();
        request.bytes.reserve(
            self.pushes.iter().map(|push| push.words.bytes.len()).sum::<usize>()
                + self.commands.bytes.len()
                + script.len()
                + 1024,
        );
        request.command(&[b"MULTI"]);
        let mut arguments = Words::default();
        numbers.into_iter().chain([self.pushes.len() as u64]).for_each(|number| arguments.number(number));
        for push in &self.pushes {
            request.begin(push.words.count + 3);
            put_word(&mut request.bytes, b"RPUSH");
            put_word(&mut request.bytes, push.list.as_bytes());
            request.bytes.extend_from_slice(&push.words.bytes);
            put_word(&mut request.bytes, &mark);
            arguments.word(push.list.as_bytes());
            arguments.number(push.words.count as u64);
            arguments.word(&mark);
        }
        arguments.extend(&self.checks);
        arguments.extend(&self.commands);
        request.begin(arguments.count + 4);
        for word in [b"EVAL", script.as_bytes(), b"1", node.as_bytes()] {
            put_word(&mut request.bytes, word);
        }
        request.bytes.extend_from_slice(&arguments.bytes);
        request.command(&[b"EXEC"]);
        request
    }
}
