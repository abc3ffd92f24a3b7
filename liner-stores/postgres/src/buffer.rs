//! What a turn has applied and the database does not have yet.

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

use liner_proto::effect::{DeadReason, Delivery, Queue, StoreFault, StoreOp};
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{Record, decode};
use liner_store::checksums::{self, mode_number};

use crate::rows::{Cursors, Life, Rows};
use crate::text::to_column;

/// A message that is to be appended.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) life: Life,
    /// Its last stored number.
    pub(crate) number: i64,
    /// How many numbers it covers, if it is a gap.
    pub(crate) covers: Option<i64>,
    pub(crate) crc: i64,
    /// What stands before the payload in its record, and the payload.
    pub(crate) head: Range<usize>,
    pub(crate) payload: Range<usize>,
}

/// A message that is put aside.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) peer: String,
    pub(crate) topic: String,
    pub(crate) reason: i16,
    pub(crate) crc: i64,
    pub(crate) record: Vec<u8>,
}

impl Letter {
    pub(crate) fn new([owner, peer, topic]: [&str; 3], reason: DeadReason, record: &[u8]) -> Self {
        Self {
            peer: to_column(peer).into_owned(),
            topic: to_column(topic).into_owned(),
            reason: reason as i16,
            crc: checksums::dead_letter([owner, peer, topic], reason as i64, record),
            record: record.to_owned(),
        }
    }
}

/// A message for the inbox.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) from: String,
    pub(crate) epoch: i64,
    pub(crate) number: i64,
    pub(crate) topic: String,
    pub(crate) mode: i16,
    pub(crate) maybe_redelivered: bool,
    pub(crate) bytes: i64,
    pub(crate) crc: i64,
    pub(crate) payload: Vec<u8>,
}

impl Delivered {
    pub(crate) fn new(owner: &str, delivery: &Delivery<'_>) -> Self {
        Self {
            from: to_column(delivery.from).into_owned(),
            epoch: delivery.epoch.0.cast_signed(),
            number: delivery.number.cast_signed(),
            topic: to_column(delivery.topic).into_owned(),
            mode: mode_number(delivery.mode) as i16,
            maybe_redelivered: delivery.maybe_redelivered,
            bytes: delivery.bytes().cast_signed(),
            crc: checksums::delivery(owner, delivery),
            payload: delivery.payload.to_owned(),
        }
    }
}

/// A change to the directory, in the texts of columns.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) subscribes: bool,
    pub(crate) topic: String,
    pub(crate) address: String,
    pub(crate) name: String,
}

/// What is to be written. It is executed in the order of its fields.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Queues that are forgotten, with their keys and composites.
    pub(crate) closed: Vec<(Life, i32, String)>,
    /// Queues that the database does not know.
    pub(crate) created: Vec<Life>,
    pub(crate) appended: Vec<Appended>,
    /// The bytes of what is appended.
    pub(crate) bytes: Vec<u8>,
    /// The stored numbers that queues do not need any more: above the first, through the second.
    pub(crate) forgotten: BTreeMap<Life, (i64, i64)>,
    /// Queues whose last acknowledged number has moved.
    pub(crate) trimmed: BTreeSet<Life>,
    pub(crate) topics: BTreeMap<(Life, u32), String>,
    pub(crate) inbox: Option<i64>,
    pub(crate) places: Vec<Place>,
    pub(crate) letters: Vec<Letter>,
    pub(crate) delivered: Vec<Delivered>,
    /// Something stands in it, be it in the rows or cursors only.
    pub(crate) is_used: bool,
}

impl Buffer {
    /// Takes a request of a group that has passed its trial.
    pub(crate) fn take(
        &mut self,
        owner: &str,
        rows: &mut Rows,
        cursors: &mut Cursors,
        op: &StoreOp<'_>,
    ) -> Result<(), StoreFault> {
        self.is_used = true;
        match *op {
            StoreOp::Inbox { epoch } => self.inbox = Some(epoch.0.cast_signed()),
            StoreOp::Open { queue, epoch } => {
                if let Ok((_, row)) = rows.change(queue) {
                    row.numbers.head.reopen(epoch);
                } else {
                    self.created.push(rows.create(owner, queue, epoch));
                }
            }
            StoreOp::Rotate { queue, epoch, predecessor } => {
                let (life, row) = rows.change(queue)?;
                let forgotten = row.numbers.rotate(epoch, predecessor)?;
                self.forget(life, row.sweep(forgotten));
                self.trimmed.insert(life);
            }
            StoreOp::Reserve { queue, through } => rows.change(queue)?.1.numbers.reserve(through)?,
            StoreOp::Append { queue, first, last, records } => {
                self.append(rows, queue, (first, last), records)?;
            }
            StoreOp::Trim { queue, through } => {
                let (life, row) = rows.change(queue)?;
                if let Some(forgotten) = row.numbers.trim(through)? {
                    self.forget(life, row.sweep(forgotten));
                    self.trimmed.insert(life);
                }
            }
            StoreOp::Drop { queue, through, reason } => {
                let (life, row) = rows.change(queue)?;
                if let Some(forgotten) = row.numbers.drop_through(through, reason)? {
                    self.forget(life, row.sweep(forgotten));
                }
            }
            StoreOp::Topic { queue, number, text } => {
                let (life, _) = rows.find(queue).ok_or(StoreFault::Refused)?;
                self.topics.insert((life, number), text.to_owned());
            }
            StoreOp::Cursor { peer, epoch, through } => cursors.advance(peer, epoch, through),
            StoreOp::Subscribe { topic, address, name } => self.place(true, [topic, address, name]),
            StoreOp::Unsubscribe { topic, address, name } => self.place(false, [topic, address, name]),
            StoreOp::DeadLetter { peer, topic, reason, record } => {
                self.letters.push(Letter::new([owner, peer, topic], reason, record));
            }
            StoreOp::Close { queue } => self.close(rows, queue),
            StoreOp::Deliver(delivery) => self.delivered.push(Delivered::new(owner, &delivery)),
            _ => return Err(StoreFault::Refused),
        }
        Ok(())
    }

    fn append(
        &mut self,
        rows: &mut Rows,
        queue: Queue<'_>,
        (first, last): (u64, u64),
        records: &[u8],
    ) -> Result<(), StoreFault> {
        let (life, row) = rows.change(queue)?;
        let numbers = last.checked_sub(first).and_then(|more| more.checked_add(1));
        let (first, _) = row.numbers.append(first, last, numbers.ok_or(StoreFault::Refused)?)?;
        let base = self.bytes.len();
        self.bytes.extend_from_slice(records);
        for step in Walk::new(records, first.cast_unsigned()) {
            let record = records.get(step.body..step.end).ok_or(StoreFault::Refused)?;
            let payload = match decode(record) {
                Ok(Record::Message { payload, .. }) => payload.len(),
                Ok(Record::Gap { .. }) | Err(_) => 0,
            };
            let (first, number) = (step.first.cast_signed(), step.last.cast_signed());
            self.appended.push(Appended {
                life,
                number,
                covers: step.gap.map(|_| number - first + 1),
                crc: row.checksum(first, number, record),
                head: base + step.body..base + step.end - payload,
                payload: base + step.end - payload..base + step.end,
            });
        }
        Ok(())
    }

    fn forget(&mut self, life: Life, (above, through): (i64, i64)) {
        self.forgotten.entry(life).or_insert((above, through)).1 = through;
    }

    fn place(&mut self, subscribes: bool, texts: [&str; 3]) {
        let [topic, address, name] = texts.map(|text| to_column(text).into_owned());
        self.places.push(Place { subscribes, topic, address, name });
    }

    fn close(&mut self, rows: &mut Rows, queue: Queue<'_>) {
        let Some((life, row)) = rows.remove(queue) else { return };
        if row.key != 0 {
            self.closed.push((life, row.key, to_column(&row.composite).into_owned()));
        }
        self.created.retain(|created| *created != life);
        self.appended.retain(|appended| appended.life != life);
        self.forgotten.remove(&life);
        self.trimmed.remove(&life);
        self.topics.retain(|(of, _), _| *of != life);
    }
}
