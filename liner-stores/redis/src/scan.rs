//! Looking over the whole list of a queue: what stands where, and what does not belong there.
//!
//! It is done a page at a time, and what is wrong with a page is set right before the next one is read, so that a list of any length takes
//! as much memory as a page.

use liner_proto::effect::StoreFault;

use crate::client::{Client, Failure};
use crate::element::{self, Element};
use crate::keys;
use crate::page::{PAGE, page};
use crate::row::QueueRow;
use crate::script;
use crate::stretch::Stretches;

/// How often a list may change while it is looked over.
const TRIES: usize = 3;

/// What a list holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) list: Stretches,
    /// Messages above what is forgotten.
    pub(crate) messages: u64,
    /// Bytes of their records.
    pub(crate) bytes: u64,
    /// Bytes of an element, roughly.
    pub(crate) average: u64,
    /// Messages that an operator or another program has put there, and their bytes.
    pub(crate) foreign: (u64, u64),
    /// The last number so far.
    last: u64,
    /// Where a hollow element begins whose end is not known yet.
    hollow: Option<u64>,
}

/// What does not belong on a page, with its place in the list.
#[derive(Debug, Default)]
struct Strays {
    /// Elements that do not pass their check, and the number that belongs there.
    damaged: Vec<(u64, u64)>,
    /// Elements that an operator or another program has put there.
    foreign: Vec<u64>,
    /// Elements of an earlier queue under the same key, and others that are whole and have no place in this one.
    stale: Vec<u64>,
    /// Elements that do not pass their check, where no number belongs.
    surplus: Vec<u64>,
}

impl Strays {
    fn is_empty(&self) -> bool {
        self.damaged.is_empty() && self.removed() == 0
    }

    /// How many leave the list.
    const fn removed(&self) -> usize {
        self.foreign.len() + self.stale.len() + self.surplus.len()
    }
}

/// Who sets a list right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mender<'a> {
    /// The key of its node's row.
    pub(crate) node: &'a str,
    pub(crate) token: u64,
}

impl Scan {
    /// Reads the list as it is.
    pub(crate) fn of(client: &mut Client, row: &QueueRow) -> Result<Self, Failure> {
        Self::run(client, row, None)?.ok_or_else(Failure::nonsense)
    }

    /// Reads the list, and sets right what is wrong with it: what is damaged is put aside, with something hollow in its place if a number belongs
    /// there; an operator's elements go to a list of their own, where they wait for the node's next start, and so does what is left of an
    /// earlier queue, or has a number that does not belong there.
    pub(crate) fn mended(client: &mut Client, mender: Mender<'_>, row: &QueueRow) -> Result<Self, Failure> {
        for _ in 0..TRIES {
            if let Some(scan) = Self::run(client, row, Some(mender))? {
                return Ok(scan);
            }
        }
        Err(Failure::Server("somebody else keeps changing the list of this queue".to_owned()))
    }

    /// Nothing if the list changed meanwhile.
    fn run(client: &mut Client, row: &QueueRow, mender: Option<Mender<'_>>) -> Result<Option<Self>, Failure> {
        let mut scan = Self { last: floor(row), average: row.average, ..Self::default() };
        let Some(key) = row.key else { return Ok(Some(scan)) };
        let list = keys::of_queue(key, "messages");
        let mut index = 0;
        loop {
            let elements = page(client, &list, index, u64::MAX, PAGE, scan.average)?;
            let bytes: usize = elements.iter().map(Vec::len).sum();
            let Some(average) = (bytes as u64).checked_div(elements.len() as u64) else { break };
            scan.average = average.max(1) + 8;
            let mut strays = Strays::default();
            for (index, element) in (index..).zip(&elements) {
                scan.take(row, index, element, &mut strays);
            }
            let mut next = index + elements.len() as u64;
            if let Some(mender) = mender.filter(|_| !strays.is_empty()) {
                let element = |at: u64| elements.get((at - index) as usize).map_or(&[][..], Vec::as_slice);
                if !mend(client, mender, row, &strays, element)? {
                    return Ok(None);
                }
                next -= strays.removed() as u64;
            }
            index = next;
        }
        scan.end_hollow(end(row));
        Ok(Some(scan))
    }

    fn take(&mut self, row: &QueueRow, index: u64, element: &[u8], strays: &mut Strays) {
        let end = end(row);
        match element::read(row.whose, row.stored_epoch, element) {
            Element::Sound { number, last, is_message, record } => {
                self.make_room(number, strays);
                // A number a second time, one that stands before a lower one, or one that the queue has never had.
                if last > end || number <= self.last && !self.is_below(row, last) {
                    return strays.stale.push(index);
                }
                self.end_hollow(number.saturating_sub(1));
                self.list.push(number, last);
                self.last = self.last.max(last);
                if last > floor(row) {
                    self.messages += u64::from(is_message);
                    self.bytes += element::run_len(record);
                }
            }
            Element::Hollow { number } if number > self.last && number <= end => {
                self.end_hollow(number - 1);
                (self.hollow, self.last) = (Some(number), number);
            }
            Element::Damaged if self.last < end => {
                self.end_hollow(self.last);
                self.last += 1;
                self.hollow = Some(self.last);
                strays.damaged.push((index, self.last));
            }
            Element::Damaged => strays.surplus.push(index),
            Element::Hollow { .. } | Element::Stale => strays.stale.push(index),
            Element::Foreign => {
                self.foreign = (self.foreign.0 + 1, self.foreign.1 + element.len() as u64);
                strays.foreign.push(index);
            }
        }
    }

    /// Damaged elements directly before one that has the number which they were given have taken nobody's place.
    fn make_room(&mut self, number: u64, strays: &mut Strays) {
        while let Some(&(index, given)) = strays.damaged.last()
            && given >= number
            && self.hollow == Some(given)
        {
            strays.damaged.pop();
            strays.surplus.push(index);
            (self.hollow, self.last) = (None, given - 1);
            if strays.damaged.last() == Some(&(index.wrapping_sub(1), given - 1)) {
                self.list.pop_back();
                self.hollow = Some(given - 1);
            }
        }
    }

    /// Elements that are forgotten already may still be there, and a gap may reach from there to what is not.
    fn is_below(&self, row: &QueueRow, last: u64) -> bool {
        self.list.len() == 0 && self.hollow.is_none() || last <= floor(row)
    }

    fn end_hollow(&mut self, through: u64) {
        if let Some(first) = self.hollow.take() {
            let last = through.max(first);
            self.list.push(first, last);
            self.last = self.last.max(last);
        }
    }
}

/// The last number of which no element is needed any more.
fn floor(row: &QueueRow) -> u64 {
    row.numbers.stored(row.numbers.head.floor()).map_or(0, |floor| floor.max(0).cast_unsigned())
}

/// The last number that the queue has had.
fn end(row: &QueueRow) -> u64 {
    row.numbers.stored(row.numbers.head.last).map_or(0, |end| end.max(0).cast_unsigned())
}

/// Sets a page right, at once. Says whether the list was as it was read.
fn mend<'e>(
    client: &mut Client,
    mender: Mender<'_>,
    row: &QueueRow,
    strays: &Strays,
    element: impl Fn(u64) -> &'e [u8],
) -> Result<bool, Failure> {
    let Some(key) = row.key else { return Ok(true) };
    let mut arguments: Vec<Vec<u8>> = vec![mender.token.to_string().into_bytes()];
    arguments.extend(["messages", "inserted", "orphaned"].map(|what| keys::of_queue(key, what).into_bytes()));
    arguments.extend([keys::QUARANTINE, &row.composite].map(|text| text.as_bytes().to_vec()));
    let mut add = |index: u64, what: Vec<u8>| {
        arguments.extend([index.to_string().into_bytes(), element(index).to_vec(), what]);
    };
    for &(index, number) in &strays.damaged {
        add(index, element::damaged(row.whose, row.stored_epoch, number));
    }
    strays.foreign.iter().for_each(|&index| add(index, b"inserted".to_vec()));
    strays.stale.iter().for_each(|&index| add(index, b"orphaned".to_vec()));
    strays.surplus.iter().for_each(|&index| add(index, b"aside".to_vec()));
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    let reply = client.eval(&script::mend(), mender.node, &arguments)?;
    match reply.text() {
        Some(script::DONE) => Ok(true),
        Some(script::MOVED) => Ok(false),
        Some(script::TAKEN) => Err(StoreFault::Superseded.into()),
        _ => Err(Failure::nonsense()),
    }
}
