//! What a buffer holds, turned by a quarter: a column of values for each value of each statement.

use std::borrow::Cow;

use liner_proto::store::head::Head;
use liner_store::{checksums, names};
use tokio_postgres::types::{ToSql, Type};

use crate::buffer::{Buffer, Place};
use crate::flush::Mark;
use crate::link::{Link, Param, Step};
use crate::rows::{Cursors, QueueRow, Rows};
use crate::statements as sql;
use crate::text::to_column;

/// A value with its type.
pub(crate) fn of<T: ToSql + Sync>(value: &T, kind: Type) -> Param<'_> {
    (value, kind)
}

/// The values of all statements but those that open and close queues.
pub(crate) struct Columns<'a> {
    buffer: &'a Buffer,
    created: Vec<i32>,
    append: Append<'a>,
    forget: Vec<(i32, (i64, i64), i64)>,
    topics: Topics<'a>,
    cursors: Moved<'a>,
    queues: Queues,
    acknowledged: (Vec<i32>, Vec<i64>),
    letters: Letters<'a>,
    delivered: Delivered<'a>,
    sender_key: String,
    number_topic: String,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(mark: Mark<'_>, buffer: &'a Buffer, rows: &'a Rows, cursors: &'a Cursors) -> Self {
        let created = buffer.created.iter().filter_map(|life| rows.get(*life)).map(|row| row.key);
        let forget = buffer.forgotten.iter().filter_map(|(life, numbers)| {
            rows.get(*life).map(|row| (row.key, *numbers, row.stored_epoch.0.cast_signed()))
        });
        let acknowledged = buffer.trimmed.iter().filter_map(|life| rows.get(*life));
        Self {
            buffer,
            created: created.collect(),
            append: Append::new(buffer, rows),
            forget: forget.collect(),
            topics: Topics::new(buffer, rows),
            cursors: Moved::new(mark.owner, cursors),
            queues: Queues::new(rows),
            acknowledged: acknowledged.map(|row| (row.key, row.numbers.head.trimmed.cast_signed())).unzip(),
            letters: Letters::new(buffer),
            delivered: Delivered::new(buffer),
            sender_key: to_column(&names::prefix(mark.owner)).into_owned(),
            number_topic: sql::number_topic(),
        }
    }

    /// The steps of all statements that have something to do.
    pub(crate) fn steps<'s>(&'s self, link: &'s Link, mark: &'s Mark<'_>, steps: &mut Vec<Step<'s>>) {
        if !self.created.is_empty() {
            steps.push(link.step(sql::SENDERS, [of(&self.created, Type::INT4_ARRAY)]));
        }
        self.append.step(link, steps);
        for (key, (above, through), epoch) in &self.forget {
            let [above, through, epoch] = [above, through, epoch].map(|number| of(number, Type::INT8));
            let values = [of(key, Type::INT4), above, through, epoch];
            steps.push(link.step(sql::FORGET, values));
        }
        self.topics.step(link, steps);
        self.cursors.step(link, mark, steps);
        self.queues.step(link, steps);
        let (keys, numbers) = &self.acknowledged;
        if !keys.is_empty() {
            let values = [of(keys, Type::INT4_ARRAY), of(numbers, Type::INT8_ARRAY)];
            steps.push(link.step(sql::ACKNOWLEDGED, values));
        }
        if let Some(epoch) = &self.buffer.inbox {
            steps.push(link.step(sql::INBOX, [of(&mark.name, Type::TEXT), of(epoch, Type::INT8)]));
        }
        self.letters.step(link, mark, steps);
        self.delivered.step(link, mark, steps);
        if !self.buffer.places.is_empty() {
            steps.push(link.plain(sql::DIRECTORY));
        }
        for place in &self.buffer.places {
            self.place(link, mark, place, steps);
        }
    }

    fn place<'s>(&'s self, link: &'s Link, mark: &'s Mark<'_>, place: &'s Place, steps: &mut Vec<Step<'s>>) {
        let text = |text: &'s String| of(text, Type::TEXT);
        let Place { subscribes, topic, address, name } = place;
        let sender = &self.sender_key;
        if *subscribes {
            steps.push(link.step(sql::SUBSCRIBE, [text(topic), text(address), text(name)]));
            steps.push(link.step(&self.number_topic, [text(topic)]));
            // It is no listener of its own.
            if name != mark.name {
                steps.push(link.step(sql::LISTENER, [text(sender), text(address), text(topic), text(name)]));
            }
        } else {
            steps.push(link.step(sql::UNSUBSCRIBE, [text(topic), text(address), text(name)]));
            steps.push(link.step(sql::NO_LISTENER, [text(sender), text(address), text(topic), text(name)]));
            let values = [text(sender), text(address), of(&mark.name, Type::TEXT)];
            steps.push(link.step(sql::OTHER_LISTENER, values));
        }
    }
}

#[derive(Default)]
struct Append<'a> {
    key: Vec<i32>,
    payload: Vec<&'a [u8]>,
    epoch: Vec<i64>,
    number: Vec<i64>,
    covers: Vec<Option<i64>>,
    crc: Vec<i64>,
    head: Vec<&'a [u8]>,
    composite: Vec<Cow<'a, str>>,
}

impl<'a> Append<'a> {
    fn new(buffer: &'a Buffer, rows: &'a Rows) -> Self {
        let mut columns = Self::default();
        let bytes = |range: &core::ops::Range<usize>| buffer.bytes.get(range.clone()).unwrap_or_default();
        for appended in &buffer.appended {
            let Some(row) = rows.get(appended.life) else { continue };
            columns.key.push(row.key);
            columns.payload.push(bytes(&appended.payload));
            columns.epoch.push(row.stored_epoch.0.cast_signed());
            columns.number.push(appended.number);
            columns.covers.push(appended.covers);
            columns.crc.push(appended.crc);
            columns.head.push(bytes(&appended.head));
            columns.composite.push(to_column(&row.composite));
        }
        columns
    }

    fn step<'s>(&'s self, link: &'s Link, steps: &mut Vec<Step<'s>>) {
        if self.key.is_empty() {
            return;
        }
        let values = [
            of(&self.key, Type::INT4_ARRAY),
            of(&self.payload, Type::BYTEA_ARRAY),
            of(&self.epoch, Type::INT8_ARRAY),
            of(&self.number, Type::INT8_ARRAY),
            of(&self.covers, Type::INT8_ARRAY),
            of(&self.crc, Type::INT8_ARRAY),
            of(&self.head, Type::BYTEA_ARRAY),
            of(&self.composite, Type::TEXT_ARRAY),
        ];
        steps.push(link.step(sql::APPEND, values));
    }
}

#[derive(Default)]
struct Topics<'a> {
    composite: Vec<Cow<'a, str>>,
    number: Vec<i64>,
    topic: Vec<Cow<'a, str>>,
    crc: Vec<i64>,
}

impl<'a> Topics<'a> {
    fn new(buffer: &'a Buffer, rows: &'a Rows) -> Self {
        let mut columns = Self::default();
        for ((life, number), topic) in &buffer.topics {
            let Some(row) = rows.get(*life) else { continue };
            columns.composite.push(to_column(&row.composite));
            columns.number.push(i64::from(*number));
            columns.topic.push(to_column(topic));
            columns.crc.push(checksums::topic(&row.composite, *number, topic));
        }
        columns
    }

    fn step<'s>(&'s self, link: &'s Link, steps: &mut Vec<Step<'s>>) {
        if !self.number.is_empty() {
            let (texts, numbers) = (Type::TEXT_ARRAY, Type::INT8_ARRAY);
            let values = [
                of(&self.composite, texts.clone()),
                of(&self.number, numbers.clone()),
                of(&self.topic, texts),
                of(&self.crc, numbers),
            ];
            steps.push(link.step(sql::TOPICS, values));
            steps.push(link.step(sql::COUNT_TOPICS, [of(&self.composite, Type::TEXT_ARRAY)]));
        }
    }
}

#[derive(Default)]
struct Moved<'a> {
    peer: Vec<Cow<'a, str>>,
    epoch: Vec<i64>,
    through: Vec<i64>,
    crc: Vec<i64>,
}

impl<'a> Moved<'a> {
    fn new(owner: &str, cursors: &'a Cursors) -> Self {
        let mut columns = Self::default();
        for (peer, epoch, through) in cursors.changed() {
            let (epoch, through) = (epoch.0.cast_signed(), through.cast_signed());
            columns.peer.push(to_column(peer));
            columns.epoch.push(epoch);
            columns.through.push(through);
            columns.crc.push(checksums::cursor(owner, peer, epoch, through));
        }
        columns
    }

    fn step<'s>(&'s self, link: &'s Link, mark: &'s Mark<'_>, steps: &mut Vec<Step<'s>>) {
        if !self.peer.is_empty() {
            let values = [
                of(&mark.name, Type::TEXT),
                of(&self.peer, Type::TEXT_ARRAY),
                of(&self.epoch, Type::INT8_ARRAY),
                of(&self.through, Type::INT8_ARRAY),
                of(&self.crc, Type::INT8_ARRAY),
            ];
            steps.push(link.step(sql::CURSORS, values));
        }
    }
}

#[derive(Default)]
struct Queues {
    key: Vec<i32>,
    epoch: Vec<i64>,
    predecessor: Vec<Option<i64>>,
    old_first: Vec<Option<i64>>,
    count: Vec<Option<i64>>,
    trimmed: Vec<i64>,
    through: Vec<Option<i64>>,
    reason: Vec<Option<i16>>,
    last: Vec<i64>,
    reserved: Vec<i64>,
    shift: Vec<i64>,
    crc: Vec<i64>,
}

impl Queues {
    fn new(rows: &Rows) -> Self {
        let mut columns = Self::default();
        rows.changed().for_each(|row| columns.push(row));
        columns
    }

    fn push(&mut self, row: &QueueRow) {
        let Head { epoch, predecessor, trimmed, dropped, last, reserved } = row.numbers.head;
        self.key.push(row.key);
        self.epoch.push(epoch.0.cast_signed());
        self.predecessor.push(predecessor.map(|it| it.epoch.0.cast_signed()));
        self.old_first.push(predecessor.map(|it| it.old_first.cast_signed()));
        self.count.push(predecessor.map(|it| it.count.cast_signed()));
        self.trimmed.push(trimmed.cast_signed());
        self.through.push(dropped.map(|(through, _)| through.cast_signed()));
        self.reason.push(dropped.map(|(_, reason)| reason as i16));
        self.last.push(last.cast_signed());
        self.reserved.push(reserved.cast_signed());
        self.shift.push(row.numbers.shift.cast_signed());
        self.crc.push(row.check());
    }

    fn step<'s>(&'s self, link: &'s Link, steps: &mut Vec<Step<'s>>) {
        if self.key.is_empty() {
            return;
        }
        let numbers = Type::INT8_ARRAY;
        let values = [
            of(&self.key, Type::INT4_ARRAY),
            of(&self.epoch, numbers.clone()),
            of(&self.predecessor, numbers.clone()),
            of(&self.old_first, numbers.clone()),
            of(&self.count, numbers.clone()),
            of(&self.trimmed, numbers.clone()),
            of(&self.through, numbers.clone()),
            of(&self.reason, Type::INT2_ARRAY),
            of(&self.last, numbers.clone()),
            of(&self.reserved, numbers.clone()),
            of(&self.shift, numbers.clone()),
            of(&self.crc, numbers),
        ];
        steps.push(link.step(sql::QUEUES, values));
    }
}

#[derive(Default)]
struct Letters<'a> {
    peer: Vec<&'a str>,
    topic: Vec<&'a str>,
    reason: Vec<i16>,
    crc: Vec<i64>,
    record: Vec<&'a [u8]>,
}

impl<'a> Letters<'a> {
    fn new(buffer: &'a Buffer) -> Self {
        let mut columns = Self::default();
        for letter in &buffer.letters {
            columns.peer.push(&letter.peer);
            columns.topic.push(&letter.topic);
            columns.reason.push(letter.reason);
            columns.crc.push(letter.crc);
            columns.record.push(&letter.record);
        }
        columns
    }

    fn step<'s>(&'s self, link: &'s Link, mark: &'s Mark<'_>, steps: &mut Vec<Step<'s>>) {
        if !self.peer.is_empty() {
            let values = [
                of(&mark.name, Type::TEXT),
                of(&self.peer, Type::TEXT_ARRAY),
                of(&self.topic, Type::TEXT_ARRAY),
                of(&self.reason, Type::INT2_ARRAY),
                of(&self.crc, Type::INT8_ARRAY),
                of(&self.record, Type::BYTEA_ARRAY),
            ];
            steps.push(link.step(sql::LETTERS, values));
        }
    }
}

#[derive(Default)]
struct Delivered<'a> {
    from: Vec<&'a str>,
    epoch: Vec<i64>,
    number: Vec<i64>,
    topic: Vec<&'a str>,
    mode: Vec<i16>,
    maybe_redelivered: Vec<bool>,
    bytes: Vec<i64>,
    crc: Vec<i64>,
    payload: Vec<&'a [u8]>,
}

impl<'a> Delivered<'a> {
    fn new(buffer: &'a Buffer) -> Self {
        let mut columns = Self::default();
        for delivered in &buffer.delivered {
            columns.from.push(&delivered.from);
            columns.epoch.push(delivered.epoch);
            columns.number.push(delivered.number);
            columns.topic.push(&delivered.topic);
            columns.mode.push(delivered.mode);
            columns.maybe_redelivered.push(delivered.maybe_redelivered);
            columns.bytes.push(delivered.bytes);
            columns.crc.push(delivered.crc);
            columns.payload.push(&delivered.payload);
        }
        columns
    }

    fn step<'s>(&'s self, link: &'s Link, mark: &'s Mark<'_>, steps: &mut Vec<Step<'s>>) {
        if !self.from.is_empty() {
            let (texts, numbers) = (Type::TEXT_ARRAY, Type::INT8_ARRAY);
            let values = [
                of(&mark.name, Type::TEXT),
                of(&self.from, texts.clone()),
                of(&self.epoch, numbers.clone()),
                of(&self.number, numbers.clone()),
                of(&self.topic, texts),
                of(&self.mode, Type::INT2_ARRAY),
                of(&self.maybe_redelivered, Type::BOOL_ARRAY),
                of(&self.bytes, numbers.clone()),
                of(&self.crc, numbers),
                of(&self.payload, Type::BYTEA_ARRAY),
            ];
            steps.push(link.step(sql::DELIVERED, values));
        }
    }
}
