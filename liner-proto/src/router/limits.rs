//! What a peer takes: how long a record may be, which topics it is sent by their numbers, and which not any more.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::conn::Framing;
use super::outbox::{Letter, Outbox};
use super::peer::Peer;
use super::topics::Topics;
use super::{PeerId, RECORD_HEAD_MAX, Router, SendError, TopicId};
use crate::effect::DeadReason;
use crate::memory::Cursor;
use crate::seal;
use crate::wire::batch::BatchHead;
use crate::wire::control::CloseReason;
use crate::wire::handshake::About;
use crate::wire::record::{self, GAP_LEN_MAX, Header, Record, Topic};
use crate::wire::varint::{self, varint_len};

/// The longest record that a peer takes: on a reliable link alone in a frame, on a line in as many pieces as it needs. A gap has
/// to go to everyone.
pub(super) fn record_max(about: &About, framing: Framing) -> usize {
    let frame = about.frame_max as usize;
    let most = about.message_max as usize;
    let fits = match framing {
        Framing::Length => most.min(record_in(frame.saturating_sub(BatchHead::LEN_MAX + seal::LEN))),
        Framing::Cobs => most,
    };
    fits.max(GAP_LEN_MAX)
}

/// The longest record that takes `room` bytes with its length.
const fn record_in(room: usize) -> usize {
    let len = room.saturating_sub(varint_len(room as u64));
    // A length that is a byte shorter leaves one more for the record.
    let more = len + 1;
    if more + varint_len(more as u64) <= room { more } else { len }
}

/// The record of a message with its topic written out.
pub(super) fn written_out(header: &Header<'_>, topic: &str, payload: &[u8]) -> Vec<u8> {
    let header = Header { topic: Topic::Text(topic), ..*header };
    let mut bytes = alloc::vec![0; record::message_len(&header, payload.len())];
    record::encode_message(&header, payload, &mut bytes);
    bytes
}

/// How the records of a queue are sent to its peer.
#[derive(Clone, Copy)]
pub(super) struct Spelling<'a> {
    /// Topics of the queue's numbers, from 1.
    numbers: &'a [TopicId],
    /// How many of the numbers the peer keeps.
    bindings_max: usize,
    topics: &'a Topics,
    peer: Option<PeerId>,
    record_max: usize,
    unwanted_through: u64,
}

impl<'a> Spelling<'a> {
    pub(super) fn new(state: &Peer, outbox: &'a Outbox, topics: &'a Topics) -> Self {
        Self {
            numbers: &outbox.topics,
            bindings_max: state.bindings_max(),
            topics,
            peer: outbox.peer,
            record_max: state.record_max,
            unwanted_through: outbox.unwanted_through,
        }
    }

    /// Whether the peer keeps every number that the queue has given out: records are sent as they stand there.
    pub(super) const fn is_plain(&self) -> bool {
        self.numbers.len() <= self.bindings_max
    }

    fn text(&self, number: u32) -> Option<&str> {
        let topic = self.numbers.get((number as usize).checked_sub(1)?)?;
        Some(self.topics.text(*topic))
    }

    /// A record of the queue as it is sent: with its topic written out if the peer does not keep the number.
    pub(super) fn of<'r>(&self, record: &'r [u8]) -> Cow<'r, [u8]> {
        if !self.is_plain()
            && let Ok(Record::Message { header, payload }) = record::decode(record)
            && let Topic::Number(number) = header.topic
            && number as usize > self.bindings_max
            && let Some(text) = self.text(number)
        {
            return Cow::Owned(written_out(&header, text, payload));
        }
        Cow::Borrowed(record)
    }

    /// Why the peer does not take a record with this number, if it does not.
    pub(super) fn refusal(&self, record: &[u8], number: u64) -> Option<DeadReason> {
        if number <= self.unwanted_through && self.is_unwanted(record) {
            return Some(DeadReason::Unsubscribed);
        }
        (self.of(record).len() > self.record_max).then_some(DeadReason::TooLarge)
    }

    fn is_unwanted(&self, record: &[u8]) -> bool {
        let Ok(Record::Message { header, .. }) = record::decode(record) else { return false };
        let topic = match header.topic {
            Topic::Text(text) => self.topics.find(text),
            Topic::Number(number) => self.numbers.get((number as usize).wrapping_sub(1)).copied(),
        };
        !topic.zip(self.peer).is_some_and(|(topic, peer)| self.topics.has_row(topic, peer))
    }

    /// Whether the peer takes all of a run as it stands in the queue, as far as that can be seen without reading it.
    pub(super) const fn takes_whole(&self, run: &[u8], begin: Cursor) -> bool {
        run.len() <= self.record_max && begin.number > self.unwanted_through
    }

    /// The records at the front of a run that the peer takes, and where the rest begins.
    pub(super) fn front<'r>(&self, run: &'r [u8], begin: Cursor) -> (&'r [u8], Cursor) {
        let mut end = begin;
        let mut rest = run;
        while let Some((record, after)) =
            record::split_first(rest).filter(|(record, _)| self.refusal(record, end.number).is_none())
        {
            end.number += record::numbers_of(record);
            rest = after;
        }
        let len = run.len() - rest.len();
        end.offset += len as u64;
        (run.get(..len).unwrap_or_default(), end)
    }

    /// The records at the front of a run as they are sent, all of them taken and in `room`, and where the rest begins. The
    /// first one need not fit if it is to go `alone`.
    pub(super) fn run(&self, run: &[u8], begin: Cursor, room: usize, alone: bool) -> (Vec<u8>, Cursor) {
        let (mut sent, mut end) = (Vec::new(), begin);
        let mut rest = run;
        while let Some((record, after)) = record::split_first(rest) {
            let spelled = self.of(record);
            let fits = sent.len() + varint_len(spelled.len() as u64) + spelled.len() <= room;
            if self.refusal(record, end.number).is_some() || !(fits || (alone && sent.is_empty())) {
                break;
            }
            push_record(&mut sent, &spelled);
            end.number += record::numbers_of(record);
            end.offset += (rest.len() - after.len()) as u64;
            rest = after;
        }
        (sent, end)
    }

    /// A message of the queue as a dead letter.
    pub(super) fn letter(&self, record: &[u8]) -> Option<Letter> {
        let Ok(Record::Message { header, payload }) = record::decode(record) else { return None };
        let topic = match header.topic {
            Topic::Text(text) => text,
            Topic::Number(number) => self.text(number).unwrap_or_default(),
        };
        Some(Letter { topic: topic.into(), record: written_out(&header, topic, payload) })
    }
}

fn push_record(run: &mut Vec<u8>, record: &[u8]) {
    let mut len = [0; varint::LEN_MAX];
    let taken = varint::put_varint(&mut len, record.len() as u64).unwrap_or(0);
    run.extend_from_slice(len.get(..taken).unwrap_or_default());
    run.extend_from_slice(record);
}

impl Router {
    /// Whether a record that a peer sent is no longer than this node takes.
    pub(super) fn check_len(&self, len: usize) -> Result<(), CloseReason> {
        let max = (self.config.limits.message_max as usize).max(GAP_LEN_MAX);
        if len > max { Err(CloseReason::Violation) } else { Ok(()) }
    }

    /// Whether the peer takes such a message of this node's, as far as it has said.
    #[inline]
    pub(super) fn check_fits(
        &self,
        peer: PeerId,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
    ) -> Result<(), SendError> {
        match self.peers.get(peer.0) {
            // The common case needs no exact length.
            Some(state) if payload.len() + RECORD_HEAD_MAX > state.record_max => {
                self.check_len_for(state, topic, header, payload)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn check_len_for(
        &self,
        state: &Peer,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let Some(outbox) = state.outbox.and_then(|id| self.outboxes.get(id.0)) else { return Ok(()) };
        let text = self.topics.text(topic);
        let topic = match outbox.topic(topic, text) {
            Topic::Number(number) if number as usize <= state.bindings_max() => Topic::Number(number),
            Topic::Number(_) | Topic::Text(_) => Topic::Text(text),
        };
        let head = Header { topic, ..*header }.len();
        if head + payload.len() <= state.record_max {
            return Ok(());
        }
        Err(SendError::TooLarge { max: state.record_max.saturating_sub(head).min(self.payload_max()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::wire::TEXT_MAX;
    use crate::wire::record::{Age, Mode, Origin};

    #[test]
    fn no_head_is_longer_than_what_is_taken_for_the_longest() {
        let text = "x".repeat(TEXT_MAX);
        let header = Header {
            mode: Mode::All,
            topic: Topic::Text(&text),
            repeat: true,
            origin: Some(Origin { name: &text, epoch: Epoch(u64::MAX), number: u64::MAX }),
            hops: Some(u8::MAX),
            ttl_ms: Some(u32::MAX),
            age: Some(Age { ms: u64::MAX, unknown: true }),
        };
        assert!(header.len() + varint::LEN_MAX <= RECORD_HEAD_MAX, "with the length of its record");
    }
}
