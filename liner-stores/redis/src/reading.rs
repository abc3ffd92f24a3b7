//! Reading records back.

use liner_proto::effect::{GapReason, Loaded, Queue};
use liner_proto::store::run::{Copied, Walk, copy_above};

use crate::RedisStore;
use crate::client::Failure;
use crate::element::{self, Element};
use crate::keys;
use crate::page::page;
use crate::row::QueueRow;
use crate::scan::{Mender, Scan};

/// Elements that are asked for at a time.
const COUNT_MAX: u64 = 1024;

/// How often a list may turn out to be other than it was thought to be.
const TRIES: usize = 3;

/// Records for numbers in a row, as they are stored.
struct Run {
    first: u64,
    last: u64,
    records: Vec<u8>,
}

/// What was found, in stored numbers.
enum Found {
    Run(Run),
    /// What stands there does not pass its check.
    Corrupt {
        first: u64,
        last: u64,
    },
    /// The list is not as it was thought to be.
    Moved,
}

impl RedisStore {
    pub(crate) fn read(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, Failure> {
        for _ in 0..TRIES {
            let Some(row) = self.rows.find(queue) else { return Ok(Loaded::Nothing) };
            let after = after.max(row.numbers.head.floor());
            if after >= row.numbers.head.last {
                return Ok(Loaded::Nothing);
            }
            let stored = row.numbers.stored(after)?.cast_unsigned();
            let shift = row.numbers.shift;
            let elements = self.fetch(queue, stored, into.len() as u64)?;
            let Some(row) = self.rows.find(queue) else { return Ok(Loaded::Nothing) };
            match gather(row, stored, &elements) {
                Found::Moved => self.resync(queue)?,
                Found::Corrupt { first, last } => {
                    return Ok(Loaded::Corrupt {
                        first: first.wrapping_add(shift),
                        last: last.wrapping_add(shift),
                    });
                }
                Found::Run(run) => {
                    return Ok(match copy_above(Walk::new(&run.records, run.first), stored, into) {
                        Copied::Records { first, last, len } => Loaded::Records {
                            first: first.wrapping_add(shift),
                            last: last.wrapping_add(shift),
                            len,
                        },
                        Copied::TooSmall { needed } => Loaded::TooSmall { needed },
                        Copied::Nothing | Copied::Malformed => {
                            Loaded::Corrupt { first: after + 1, last: run.last.wrapping_add(shift) }
                        }
                    });
                }
            }
        }
        Err(Failure::Server("somebody else keeps changing the list of this queue".to_owned()))
    }

    /// The elements of the list that may have numbers above `after`, as many as there is room for, and one more.
    fn fetch(&mut self, queue: Queue<'_>, after: u64, room: u64) -> Result<Vec<Vec<u8>>, Failure> {
        let Some(row) = self.rows.find(queue) else { return Ok(Vec::new()) };
        let (mut index, len) = (row.list.count_through(after).max(row.cut), row.list.len());
        let Some(key) = row.key.filter(|_| index < len) else { return Ok(Vec::new()) };
        let list = keys::of_queue(key, "messages");
        let (mut elements, mut bytes, mut average) = (Vec::new(), 0, row.average);
        while index < len && bytes <= room {
            let more =
                page(self.connected()?, &list, index, len.min(index + COUNT_MAX), room - bytes, average)?;
            if more.is_empty() {
                break;
            }
            index += more.len() as u64;
            for element in more {
                bytes += element::run_len(element.get(element::HEAD..).unwrap_or_default());
                elements.push(element);
            }
            average = bytes / elements.len() as u64 + element::HEAD as u64 + 6;
        }
        if let Some(row) = self.rows.find_mut(queue) {
            row.average = average;
        }
        Ok(elements)
    }

    /// Looks over the list of a queue again, and sets right what is wrong with it.
    pub(crate) fn resync(&mut self, queue: Queue<'_>) -> Result<(), Failure> {
        let (node, token) = (self.node.clone(), self.token);
        self.connected()?;
        let (Some(row), Some(client)) = (self.rows.find(queue), &mut self.client) else { return Ok(()) };
        // The numbers before the turn are those of the list.
        let mut committed = QueueRow { tail: crate::row::Tail::default(), ..row.clone() };
        if let Some((numbers, _)) = row.before {
            committed.numbers = numbers;
        }
        let scan = Scan::mended(client, Mender { node: &node, token }, &committed)?;
        if let Some(row) = self.rows.find_mut(queue) {
            row.list = scan.list;
            row.average = scan.average;
            row.has_strays = false;
            if row.before.is_some() {
                let forgotten = row.numbers.stored(row.numbers.head.floor())?;
                row.forget(forgotten);
            }
        }
        Ok(())
    }

    /// Looks over the lists of all queues that the turn changes or closes.
    pub(crate) fn look_again(&mut self) -> Result<(), Failure> {
        let (node, token) = (self.node.clone(), self.token);
        self.connected()?;
        if let Some(client) = &mut self.client {
            for (_, row) in &mut self.rows.closed {
                let mut committed = row.clone();
                if let Some((numbers, _)) = row.before {
                    committed.numbers = numbers;
                }
                row.list = Scan::mended(client, Mender { node: &node, token }, &committed)?.list;
            }
        }
        for (kind, name) in self.rows.touched.clone() {
            if let Some(queue) = keys::queue(kind, &name) {
                self.resync(queue)?;
            }
        }
        Ok(())
    }
}

/// Makes one run of the elements of a list and of what the turn has added, from the number after `after` on.
fn gather(row: &QueueRow, after: u64, elements: &[Vec<u8>]) -> Found {
    let index = row.list.count_through(after).max(row.cut);
    let mut run = Run { first: 0, last: 0, records: Vec::new() };
    for (index, element) in (index..).zip(elements) {
        let Some(expected) = row.list.at(index) else { return Found::Moved };
        let is_first = run.records.is_empty();
        if !is_first && expected.first != run.last + 1 {
            return Found::Run(run);
        }
        match element::read(row.whose, row.stored_epoch, element) {
            Element::Sound { number, last, record, .. }
                if (number, last) == (expected.first, expected.last) =>
            {
                run.add(after, number, last, record);
            }
            _ if !is_first => return Found::Run(run),
            Element::Hollow { number } if number == expected.first => {
                return Found::Corrupt { first: expected.first.max(after + 1), last: expected.last };
            }
            Element::Sound { .. }
            | Element::Hollow { .. }
            | Element::Damaged
            | Element::Stale
            | Element::Foreign => return Found::Moved,
        }
    }
    if index + (elements.len() as u64) < row.list.len() {
        return if run.records.is_empty() { Found::Moved } else { Found::Run(run) };
    }
    for waiting in row.tail.left().iter().filter(|waiting| waiting.last > after) {
        if !run.records.is_empty() && waiting.first != run.last + 1 {
            return Found::Run(run);
        }
        run.add(after, waiting.first, waiting.last, row.tail.record(waiting));
    }
    if run.records.is_empty() {
        // Somebody has taken the end of the list away.
        let last = row.numbers.head.last.wrapping_sub(row.numbers.shift);
        run.fill(after, last + 1);
    }
    Found::Run(run)
}

impl Run {
    fn add(&mut self, after: u64, first: u64, last: u64, record: &[u8]) {
        if self.records.is_empty() {
            self.first = first;
            if first > after + 1 {
                self.fill(after, first);
            }
        }
        element::put_record(&mut self.records, record);
        self.last = last;
    }

    /// Begins with a gap in the place of what an operator has taken out.
    fn fill(&mut self, after: u64, end: u64) {
        self.first = after + 1;
        self.last = end - 1;
        element::put_gap(&mut self.records, GapReason::Cleared, end - 1 - after);
    }
}
