//! The rows of the inbox: messages for the node's own application.

use liner_proto::effect::Delivery;
use liner_proto::id::Epoch;
use liner_proto::wire::record::{self, Header, Origin, Record, Topic};
use liner_store::checksums::{self, mode_of};
use liner_store::look::Delivered;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::buffer;
use crate::columns::of;
use crate::error::Failure;
use crate::inbox::InboxMessage;
use crate::link::Link;
use crate::text::{from_column, to_column};

/// [`sound`] wants these columns.
pub(crate) const COLUMNS: &str =
    "id, sender, epoch, number, topic, mode, maybe_redelivered, failures, payload, crc";

const INSERT: &str =
    "INSERT INTO inbox(owner, sender, epoch, number, topic, mode, maybe_redelivered, bytes, crc, payload)
VALUES($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// A row's message if it passes its check.
pub(crate) fn sound(owner: &str, row: &Row) -> Option<InboxMessage> {
    let text = |index: usize| row.try_get(index).ok().map(|column| from_column(column).into_owned());
    let number = |index: usize| row.try_get::<_, i64>(index).ok();
    let message = InboxMessage {
        from: text(1)?,
        epoch: Epoch(number(2)?.cast_unsigned()),
        number: number(3)?.cast_unsigned(),
        topic: text(4)?,
        mode: mode_of(row.try_get::<_, i16>(5).ok()?.into())?,
        maybe_redelivered: row.try_get(6).ok()?,
        failures: u32::try_from(row.try_get::<_, i32>(7).ok()?).unwrap_or(u32::MAX),
        payload: row.try_get(8).ok()?,
    };
    (number(9)? == checksums::delivery(owner, &message.lend())).then_some(message)
}

pub(crate) fn delivered(message: InboxMessage) -> Delivered {
    let InboxMessage { from, epoch, number, topic, mode, maybe_redelivered, failures: _, payload } = message;
    Delivered { from, epoch, number, topic, mode, maybe_redelivered, payload }
}

/// The record of a message whose processing has failed too often.
pub(crate) fn record_of(message: &InboxMessage) -> Vec<u8> {
    let origin = Origin { name: &message.from, epoch: message.epoch, number: message.number };
    let header = Header {
        repeat: message.maybe_redelivered,
        origin: Some(origin),
        ..Header::new(message.mode, Topic::Text(&message.topic))
    };
    let mut record = vec![0; record::message_len(&header, message.payload.len())];
    record::encode_message(&header, &message.payload, &mut record);
    record
}

/// Puts a dead letter of [`record_of`] back behind all that waits. Says whether it is one.
pub(crate) fn put_back(link: &Link, [owner, peer]: [&str; 2], record: &[u8]) -> Result<bool, Failure> {
    let Ok(Record::Message { header, payload }) = record::decode(record) else { return Ok(false) };
    let (Topic::Text(topic), Some(origin)) = (header.topic, header.origin) else { return Ok(false) };
    if origin.name != peer {
        // It came from the handler of a node without an inbox: there the origin is said only of what came by way of another node.
        return Ok(false);
    }
    let delivery = Delivery {
        from: origin.name,
        epoch: origin.epoch,
        number: origin.number,
        topic,
        mode: header.mode,
        maybe_redelivered: header.repeat,
        payload,
    };
    let row = buffer::Delivered::new(owner, &delivery);
    let owner = to_column(owner);
    let params = [
        of(&owner, Type::TEXT),
        of(&row.from, Type::TEXT),
        of(&row.epoch, Type::INT8),
        of(&row.number, Type::INT8),
        of(&row.topic, Type::TEXT),
        of(&row.mode, Type::INT2),
        of(&row.maybe_redelivered, Type::BOOL),
        of(&row.bytes, Type::INT8),
        of(&row.crc, Type::INT8),
        of(&row.payload, Type::BYTEA),
    ];
    link.query(INSERT, &params)?;
    Ok(true)
}
