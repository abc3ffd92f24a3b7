//! The rows of the inbox: messages for the node's own application.

use liner_proto::effect::Delivery;
use liner_proto::id::Epoch;
use liner_proto::wire::record::{self, Record, Topic};
use liner_store::checksums::{self, mode_of};
use liner_store::inbox::InboxMessage;
use liner_store::look::Delivered;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::buffer;
use crate::columns::of;
use crate::error::Failure;
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
    let delivered = Delivered {
        from: text(1)?,
        epoch: Epoch(number(2)?.cast_unsigned()),
        number: number(3)?.cast_unsigned(),
        topic: text(4)?,
        mode: mode_of(row.try_get::<_, i16>(5).ok()?.into())?,
        maybe_redelivered: row.try_get(6).ok()?,
        payload: row.try_get(8).ok()?,
    };
    let failures = u32::try_from(row.try_get::<_, i32>(7).ok()?).unwrap_or(u32::MAX);
    let is_sound = number(9)? == checksums::delivery(owner, &delivered.lend());
    is_sound.then(|| InboxMessage::new(delivered, failures))
}

/// Puts a dead letter of what was in the inbox back behind all that waits. Says whether it is one.
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
