//! An element of a queue's list: one record behind a head of 21 bytes.
//!
//! The head is a byte that no text begins with, the CRC-32C of all that follows and of whose it is, the epoch and the number under which the
//! record was stored.

use liner_proto::effect::GapReason;
use liner_proto::id::Epoch;
use liner_proto::store::run::Walk;
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use liner_proto::wire::varint::put_varint;
use liner_store::check::Check;

use crate::resp::put_length;

/// What an element begins with.
const TAG: u8 = 0xfe;
/// Bytes of the head.
pub(crate) const HEAD: usize = 21;

/// What of an element's checksum is the same for all of a queue.
pub(crate) fn whose(composite: &str, epoch: Epoch) -> Check {
    Check::default().text(composite).number(epoch.0.cast_signed())
}

/// Epoch and number as they stand in the head.
pub(crate) fn place(epoch: Epoch, number: u64) -> [u8; 16] {
    let mut place = [0; 16];
    let (front, back) = place.split_at_mut(8);
    front.copy_from_slice(&epoch.0.to_le_bytes());
    back.copy_from_slice(&number.to_le_bytes());
    place
}

fn head(whose: Check, epoch: Epoch, number: u64, record: &[u8]) -> [u8; HEAD] {
    let crc = whose.number(number.cast_signed()).bytes(record).value() as u32;
    let mut head = [TAG; HEAD];
    head[1..5].copy_from_slice(&crc.to_le_bytes());
    head[5..].copy_from_slice(&place(epoch, number));
    head
}

/// Appends an element as a word of a command.
pub(crate) fn put(bytes: &mut Vec<u8>, whose: Check, epoch: Epoch, number: u64, record: &[u8]) {
    put_length(bytes, b'$', (HEAD + record.len()) as u64);
    bytes.extend_from_slice(&head(whose, epoch, number, record));
    bytes.extend_from_slice(record);
    bytes.extend_from_slice(b"\r\n");
}

/// What of a mark is no number.
const MARK: [u8; 5] = [TAG; 5];

/// What stands behind elements that were pushed for a turn until its script has seen them. Nobody reads it as an element of a queue.
pub(crate) fn mark(token: u64, turn: u64) -> [u8; HEAD] {
    let mut mark = [0; HEAD];
    mark[..5].copy_from_slice(&MARK);
    mark[5..].copy_from_slice(&place(Epoch(token), turn));
    mark
}

/// An element that takes the place of a damaged one: it is whole, and its record is none.
pub(crate) fn damaged(whose: Check, epoch: Epoch, number: u64) -> Vec<u8> {
    head(whose, epoch, number, &[]).to_vec()
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// It passes its check.
    Sound {
        number: u64,
        /// The last number that the record covers.
        last: u64,
        is_message: bool,
        record: &'a [u8],
    },
    /// It stands in the place of one that did not pass its check.
    Hollow { number: u64 },
    /// It does not pass its check.
    Damaged,
    /// It was stored under this epoch, which is not the queue's.
    Stale,
    /// It is not of this form.
    Foreign,
}

/// Looks at an element of a queue whose elements bear this epoch.
pub(crate) fn read(whose: Check, epoch: Epoch, element: &[u8]) -> Element<'_> {
    let Some((head, record)) = element.split_first_chunk::<HEAD>() else {
        return if element.first() == Some(&TAG) { Element::Damaged } else { Element::Foreign };
    };
    let u64_at = |at: usize| {
        let bytes = head.get(at..).and_then(|rest| rest.first_chunk::<8>());
        u64::from_le_bytes(bytes.copied().unwrap_or_default())
    };
    let (of, number) = (u64_at(5), u64_at(13));
    match (head[0] == TAG, of == epoch.0) {
        (false, false) => return Element::Foreign,
        (true, false) => return Element::Stale,
        (_, true) => {}
    }
    if *head != self::head(whose, epoch, number, record) {
        return Element::Damaged;
    }
    if record.is_empty() {
        return Element::Hollow { number };
    }
    match step(record, number) {
        Some((last, is_message)) => Element::Sound { number, last, is_message, record },
        None => Element::Damaged,
    }
}

/// What an element is that need not be of the queue's present life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept<'a> {
    /// It passes its check.
    Message(&'a [u8]),
    /// It passes its check, and holds no message.
    Nothing,
    /// It does not pass its check.
    Damaged,
    /// It is not of this form.
    Foreign,
}

/// Looks at an element of a queue that has, or had, this composite, and whatever epoch.
pub(crate) fn kept<'a>(composite: &str, element: &'a [u8]) -> Kept<'a> {
    if is_foreign(element) {
        return Kept::Foreign;
    }
    if element.len() == HEAD && element.starts_with(&MARK) {
        return Kept::Nothing;
    }
    let epoch = element.get(5..).and_then(|rest| rest.first_chunk::<8>());
    let epoch = Epoch(u64::from_le_bytes(epoch.copied().unwrap_or_default()));
    match read(whose(composite, epoch), epoch, element) {
        Element::Sound { is_message: true, record, .. } => Kept::Message(record),
        Element::Sound { .. } | Element::Hollow { .. } => Kept::Nothing,
        Element::Damaged | Element::Stale | Element::Foreign => Kept::Damaged,
    }
}

/// Whether it is none that a store has written.
pub(crate) fn is_foreign(element: &[u8]) -> bool {
    element.first() != Some(&TAG)
}

/// The last number that a record covers, and whether it is a message.
fn step(record: &[u8], number: u64) -> Option<(u64, bool)> {
    // A record takes more than one number only if it is a gap, and those are short.
    if record.len() > GAP_LEN_MAX {
        return Some((number, true));
    }
    let mut run = Vec::with_capacity(GAP_LEN_MAX + 1);
    put_record(&mut run, record);
    let step = Walk::new(&run, number).next()?;
    Some((step.last, step.is_message()))
}

/// Appends a record to a run.
pub(crate) fn put_record(run: &mut Vec<u8>, record: &[u8]) {
    let mut prefix = [0; 10];
    let len = put_varint(&mut prefix, record.len() as u64).unwrap_or(0);
    run.extend_from_slice(prefix.get(..len).unwrap_or_default());
    run.extend_from_slice(record);
}

/// Bytes that a record takes in a run.
pub(crate) fn run_len(record: &[u8]) -> u64 {
    let mut prefix = [0; 10];
    (put_varint(&mut prefix, record.len() as u64).unwrap_or(0) + record.len()) as u64
}

/// Appends a gap to a run.
pub(crate) fn put_gap(run: &mut Vec<u8>, reason: GapReason, numbers: u64) {
    let mut gap = [0; GAP_LEN_MAX];
    let len = encode_gap(reason, numbers, &mut gap).unwrap_or(0);
    put_record(run, gap.get(..len).unwrap_or_default());
}
