//! The rows of the dead letters, and what is done with them from outside.

use liner_proto::effect::{DeadReason, Queue};
use liner_proto::wire::record::{self, Record};
use liner_store::look::{DeadLetter, Rows, StoredLetter};
use liner_store::{checksums, names};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::columns::of;
use crate::deliveries;
use crate::error::Failure;
use crate::link::Link;
use crate::statements::{MOST, NEXT_KEY};
use crate::text::{from_column, to_column};

/// [`letter`] wants these columns.
pub(crate) const COLUMNS: &str = "id, owner, peer, topic, reason, record, crc";

/// Why something was not done with a dead letter.
pub(crate) enum Refusal {
    Gone,
    NotQueued { peer: String, why: String },
    Failed(Failure),
}

impl<F: Into<Failure>> From<F> for Refusal {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

/// A row of the dead letters. Whatever a damaged one has in its columns, it can be listed, and dropped.
struct LetterRow<'a> {
    id: i64,
    owner: String,
    peer: String,
    topic: String,
    /// Nothing if a newer release knows.
    reason: Option<DeadReason>,
    /// Nothing if it does not pass its check.
    record: Option<&'a [u8]>,
}

impl<'a> LetterRow<'a> {
    fn read(row: &'a Row) -> Result<Self, Failure> {
        let text = |index| row.try_get(index).map(|column| from_column(column).into_owned());
        let (owner, peer, topic) = (text(1)?, text(2)?, text(3)?);
        let (reason, record): (i16, &[u8]) = (row.try_get(4)?, row.try_get(5)?);
        let crc = checksums::dead_letter([&owner, &peer, &topic], reason.into(), record);
        let record = (row.try_get::<_, i64>(6)? == crc).then_some(record);
        let reason = u8::try_from(reason).ok().and_then(DeadReason::from_number);
        Ok(Self { id: row.try_get(0)?, owner, peer, topic, reason, record })
    }
}

pub(crate) fn stored_letter(row: &Row) -> Result<StoredLetter, Failure> {
    let LetterRow { id, peer, topic, reason, record, .. } = LetterRow::read(row)?;
    Ok(StoredLetter { id, peer, topic, content: reason.zip(record.map(<[u8]>::to_vec)) })
}

pub(crate) fn letter(row: &Row) -> Result<DeadLetter, Failure> {
    let LetterRow { id, owner, peer, topic, reason, record } = LetterRow::read(row)?;
    let payload = record.and_then(|record| match record::decode(record) {
        Ok(Record::Message { payload, .. }) => Some(payload.to_vec()),
        _ => None,
    });
    Ok(DeadLetter { id, owner, peer, topic, reason, payload })
}

fn select(link: &Link, id: i64, lock: &str) -> Result<Option<Row>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE id = $1 {lock}");
    Ok(link.query(&sql, &[of(&id, Type::INT8)])?.pop())
}

pub(crate) fn find(link: &Link, id: i64, lock: &str) -> Result<Option<DeadLetter>, Failure> {
    select(link, id, lock)?.as_ref().map(letter).transpose()
}

pub(crate) fn delete(link: &Link, id: i64) -> Result<(), Refusal> {
    let deleted = link.query("DELETE FROM dead_letters WHERE id = $1 RETURNING 1", &[of(&id, Type::INT8)])?;
    if deleted.is_empty() { Err(Refusal::Gone) } else { Ok(()) }
}

/// The row goes where rows go that are inserted into `conn_messages` by hand.
pub(crate) fn queue_again(link: &Link, id: i64) -> Result<(), Refusal> {
    // Who comes second waits, and finds nothing.
    let row = select(link, id, "FOR UPDATE")?.ok_or(Refusal::Gone)?;
    let letter = letter(&row)?;
    let has_failed = letter.has_failed();
    if has_failed && deliveries::put_back(link, [&letter.owner, &letter.peer], row.try_get(5)?)? {
        return delete(link, id);
    }
    let composite = names::composite(&letter.owner, Queue::Node(letter.next()));
    let composite = to_column(&composite).into_owned();
    let sql = "SELECT connection_key FROM conn_key_map WHERE composite = $1";
    let known = link.query(sql, &[of(&composite, Type::TEXT)])?;
    let key: Option<i32> = known.first().map(|row| row.try_get(0)).transpose()?;
    let key = if has_failed && key.is_none() { begin_queue(link, &composite)? } else { key };
    if let Some(why) = letter.refusal(key.is_some(), rows_of(link, &letter)?) {
        return Err(Refusal::NotQueued { peer: letter.peer, why });
    }
    let topic = to_column(&letter.topic);
    let sql = "INSERT INTO conn_messages(connection_key, composite, topic, payload) VALUES($1, $2, $3, $4)";
    let params = [
        of(&key, Type::INT4),
        of(&composite, Type::TEXT),
        of(&topic, Type::TEXT),
        of(&letter.payload, Type::BYTEA),
    ];
    link.query(sql, &params)?;
    delete(link, id)
}

/// Begins a queue as an operator does by hand: its node opens it when it is started.
fn begin_queue(link: &Link, composite: &String) -> Result<Option<i32>, Failure> {
    let sql = format!(
        "WITH most AS ({MOST}), given AS ({NEXT_KEY})
INSERT INTO conn_key_map(composite, connection_key) SELECT $1, v FROM given
ON CONFLICT(composite) DO UPDATE SET composite = excluded.composite RETURNING connection_key"
    );
    let rows = link.query(&sql, &[of(composite, Type::TEXT)])?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// The rows of the node that the letter was for.
fn rows_of(link: &Link, letter: &DeadLetter) -> Result<Rows, Failure> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE topic = $2) FROM topic_addr WHERE client_name = $1";
    let (peer, topic) = (to_column(&letter.peer), to_column(&letter.topic));
    let rows = link.query(sql, &[of(&peer, Type::TEXT), of(&topic, Type::TEXT)])?;
    let Some(row) = rows.first() else { return Ok(Rows::default()) };
    let number = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
    Ok(Rows { all: number(0)?, of_topic: number(1)? })
}
