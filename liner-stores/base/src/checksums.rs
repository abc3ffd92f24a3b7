//! The checksums of rows: a CRC-32C over all that matters in a row, as the databases keep it.

use liner_proto::effect::Delivery;
use liner_proto::id::Epoch;
use liner_proto::store::head::Head;
use liner_proto::wire::record::Mode;

use crate::check::Check;
use crate::numbers::Numbers;

/// The checksum of a queue's row.
pub fn queue(composite: &str, key: i64, numbers: &Numbers, stored_epoch: Epoch) -> i64 {
    let Head { epoch, predecessor, trimmed, dropped, last, reserved } = numbers.head;
    let (before, old, new) = predecessor.map_or((0, 0, 0), |it| (it.epoch.0, it.old_first, it.count));
    let (through, reason) = dropped.map_or((0, 0), |(through, reason)| (through, reason as u64));
    let rest = [epoch.0, before, old, new, trimmed, through, reason, last, reserved];
    let check = Check::default().text(composite).number(key);
    let all = rest.into_iter().chain([numbers.shift, stored_epoch.0]);
    all.map(u64::cast_signed).fold(check, Check::number).value()
}

/// The checksum of a segment of any queue.
pub fn records(composite: &str, epoch: i64, first: i64, last: i64, records: &[u8]) -> i64 {
    let whose = Check::default().text(composite).number(epoch);
    whose.number(first).number(last).bytes(records).value()
}

/// The checksum of a topic number.
pub fn topic(composite: &str, number: u32, text: &str) -> i64 {
    Check::default().text(composite).number(number.into()).text(text).value()
}

/// The checksum of a cursor.
pub fn cursor(owner: &str, peer: &str, epoch: i64, through: i64) -> i64 {
    Check::default().text(owner).text(peer).number(epoch).number(through).value()
}

/// The checksum of a dead letter of `[owner, peer, topic]`.
pub fn dead_letter(whose: [&str; 3], reason: i64, record: &[u8]) -> i64 {
    let check = whose.into_iter().fold(Check::default().number(reason), Check::text);
    check.bytes(record).value()
}

/// The checksum of a message in the inbox of `owner`.
pub fn delivery(owner: &str, delivery: &Delivery<'_>) -> i64 {
    let Delivery { from, epoch, number, topic, mode, maybe_redelivered, payload } = *delivery;
    let check = [owner, from, topic].into_iter().fold(Check::default(), Check::text);
    let numbers = [epoch.0.cast_signed(), number.cast_signed(), mode_number(mode), maybe_redelivered.into()];
    numbers.into_iter().fold(check, Check::number).bytes(payload).value()
}

/// A mode as a number in the database.
pub const fn mode_number(mode: Mode) -> i64 {
    match mode {
        Mode::One => 0,
        Mode::All => 1,
        Mode::BestEffort => 2,
    }
}

/// The mode with this number.
pub const fn mode_of(number: i64) -> Option<Mode> {
    Some(match number {
        0 => Mode::One,
        1 => Mode::All,
        2 => Mode::BestEffort,
        _ => return None,
    })
}
