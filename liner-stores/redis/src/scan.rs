//! Looking over the whole list of a queue: what stands where, and what does not belong there.

use crate::client::{Client, Failure};
use crate::element::{self, Element};
use crate::keys;
use crate::row::QueueRow;
use crate::script;
use crate::stretch::Stretches;

/// Bytes that are asked for at a time, roughly.
const PAGE: u64 = 1 << 20;

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
    /// Elements that do not pass their check: where they stand, what is there, and the number that belongs there.
    pub(crate) damaged: Vec<(u64, Vec<u8>, u64)>,
    /// Elements that an operator or another program has put there.
    pub(crate) foreign: Vec<(u64, Vec<u8>)>,
    /// Elements of an earlier queue under the same key.
    pub(crate) stale: Vec<(u64, Vec<u8>)>,
    /// The last number so far.
    last: u64,
    /// Where a hollow element begins whose end is not known yet.
    hollow: Option<u64>,
}

impl Scan {
    /// Reads the list.
    pub(crate) fn of(client: &mut Client, row: &QueueRow) -> Result<Self, Failure> {
        let mut scan = Self { last: floor(row), average: row.average, ..Self::default() };
        let Some(key) = row.key else { return Ok(scan) };
        let list = keys::of_queue(key, "messages");
        let (mut index, mut bytes) = (0, 0);
        loop {
            let count = (PAGE / scan.average.max(1)).clamp(16, 8192);
            let (from, to) = (index.to_string(), (index + count - 1).to_string());
            let reply = client.command(&[b"LRANGE", list.as_bytes(), from.as_bytes(), to.as_bytes()])?;
            let elements = reply.list().ok_or_else(Failure::nonsense)?;
            for element in elements.iter().filter_map(|element| element.bytes()) {
                scan.take(row, index, element);
                index += 1;
                bytes += element.len() as u64 + 8;
            }
            scan.average = (bytes + 256).checked_div(index + 1).unwrap_or(256).max(1);
            if (elements.len() as u64) < count {
                break;
            }
        }
        scan.end_hollow(row.numbers.stored(row.numbers.head.last)?.cast_unsigned());
        Ok(scan)
    }

    /// Whether nothing in it has to be taken away or mended.
    pub(crate) fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.foreign.is_empty() && self.stale.is_empty()
    }

    fn take(&mut self, row: &QueueRow, index: u64, element: &[u8]) {
        match element::read(row.whose, row.stored_epoch, element) {
            Element::Sound { number, last, is_message, record }
                if number > self.last || self.is_below(row, last) =>
            {
                self.end_hollow(number.saturating_sub(1));
                self.list.push(number, last);
                self.last = self.last.max(last);
                if last > floor(row) {
                    self.messages += u64::from(is_message);
                    self.bytes += element::run_len(record);
                }
            }
            Element::Hollow { number } if number > self.last => {
                self.end_hollow(number - 1);
                (self.hollow, self.last) = (Some(number), number);
            }
            // A number a second time, or one that stands before a lower one, is no better than a wrong checksum.
            Element::Damaged | Element::Sound { .. } | Element::Hollow { .. } => {
                self.end_hollow(self.last);
                self.last += 1;
                self.hollow = Some(self.last);
                self.damaged.push((index, element.to_vec(), self.last));
            }
            Element::Stale => self.stale.push((index, element.to_vec())),
            Element::Foreign => self.foreign.push((index, element.to_vec())),
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

/// Puts what is damaged aside and something hollow in its place, and takes away what does not belong there: an operator's elements go to a
/// list of their own, where they wait for the node's next start. Says whether the list was as the scan found it.
pub(crate) fn mend(
    client: &mut Client,
    (node, token): (&str, u64),
    row: &QueueRow,
    scan: &Scan,
) -> Result<bool, Failure> {
    let Some(key) = row.key else { return Ok(true) };
    let list = keys::of_queue(key, "messages");
    let mut arguments: Vec<Vec<u8>> = vec![
        token.to_string().into_bytes(),
        list.into_bytes(),
        keys::of_queue(key, "inserted").into_bytes(),
        keys::QUARANTINE.as_bytes().to_vec(),
        row.composite.clone().into_bytes(),
    ];
    let mut add = |index: u64, element: &[u8], replacement: Vec<u8>| {
        arguments.extend([index.to_string().into_bytes(), element.to_vec(), replacement]);
    };
    for (index, element, number) in &scan.damaged {
        add(*index, element, element::damaged(row.whose, row.stored_epoch, *number));
    }
    for (index, element) in &scan.foreign {
        add(*index, element, b"inserted".to_vec());
    }
    for (index, element) in &scan.stale {
        add(*index, element, b"stale".to_vec());
    }
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    let reply = client.eval(script::MEND, node, &arguments)?;
    match reply.text() {
        Some(script::DONE) => Ok(true),
        Some(script::MOVED) => Ok(false),
        Some(script::TAKEN) => Err(liner_proto::effect::StoreFault::Superseded.into()),
        _ => Err(Failure::nonsense()),
    }
}
