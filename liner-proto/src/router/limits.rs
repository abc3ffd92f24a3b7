//! What a peer takes: how long a record may be, which topics it is sent by their numbers, and which not any more.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::expiry::Reading;
use super::line::FRAME_MAX as LINE_FRAME_MAX;
use super::outbox::{Letter, Outbox};
use super::peer::Peer;
use super::topics::Topics;
use super::{PeerId, RECORD_HEAD_MAX, Router, SendError, TopicId};
use crate::effect::DeadReason;
use crate::memory::Cursor;
use crate::seal;
use crate::wire::TEXT_MAX;
use crate::wire::control::CloseReason;
use crate::wire::data;
use crate::wire::handshake::About;
use crate::wire::record::{self, Age, GAP_LEN_MAX, Header, Record, Topic};
use crate::wire::varint::{self, varint_len};

/// The longest record that a peer takes, in as many pieces as it needs. A gap has to go to everyone.
///
/// Who takes nothing longer than one of its frames need not take pieces. The frames of a line may be shorter than those: then what
/// does not fit one of them would have to travel in pieces, and is too long.
pub(super) fn record_max(about: &About, on_line: bool) -> usize {
    const FRAME_HEAD: usize = seal::LEN + data::HEAD_LEN_MAX;
    let (message_max, frame_max) = (about.message_max as usize, about.frame_max as usize);
    let takes_pieces = message_max.saturating_add(FRAME_HEAD) > frame_max;
    let most = if on_line && !takes_pieces { LINE_FRAME_MAX - FRAME_HEAD } else { message_max };
    message_max.min(most).max(GAP_LEN_MAX)
}

/// The record of a message with its topic written out.
pub(super) fn written_out(header: &Header<'_>, topic: &str, payload: &[u8]) -> Vec<u8> {
    encoded(&Header { topic: Topic::Text(topic), ..*header }, payload)
}

/// The record of a message.
pub(super) fn encoded(header: &Header<'_>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = alloc::vec![0; record::message_len(header, payload.len())];
    record::encode_message(header, payload, &mut bytes);
    bytes
}

/// How the records of a queue are sent to its peer.
#[derive(Clone, Copy)]
pub(super) struct Spelling<'a> {
    /// Topics of the queue's numbers, from 1.
    numbers: &'a [TopicId],
    /// How many of the numbers the peer keeps.
    bindings_max: usize,
    /// How long a topic may be of which it keeps the number.
    topic_max: usize,
    topics: &'a Topics,
    peer: Option<PeerId>,
    record_max: usize,
    unwanted_through: u64,
    /// Up to this one they may have been delivered, and are not sent again.
    given_up_through: u64,
    /// Messages above this one have no time to live.
    aged_through: u64,
    restored: u64,
    now: Reading,
}

impl<'a> Spelling<'a> {
    pub(super) fn new(state: &Peer, outbox: &'a Outbox, topics: &'a Topics, now: Reading) -> Self {
        Self {
            numbers: &outbox.topics,
            bindings_max: state.bindings_max(),
            topic_max: state.topic_max(),
            topics,
            peer: outbox.peer,
            record_max: state.record_max,
            unwanted_through: outbox.unwanted_through,
            given_up_through: outbox.given_up_through(),
            aged_through: outbox.aged_through,
            restored: outbox.restored,
            now,
        }
    }

    /// Whether the peer keeps every number that the queue has given out: records are sent as they stand there.
    pub(super) const fn is_plain(&self) -> bool {
        self.numbers.len() <= self.bindings_max && self.topic_max >= TEXT_MAX
    }

    fn text(&self, number: u32) -> Option<&str> {
        let topic = self.numbers.get((number as usize).checked_sub(1)?)?;
        Some(self.topics.text(*topic))
    }

    /// A record of the queue as it is sent.
    fn of<'r>(&self, record: &'r [u8]) -> Cow<'r, [u8]> {
        match self.parts(record) {
            (Cow::Owned(front), payload) => Cow::Owned([&front, payload].concat()),
            (Cow::Borrowed(_), _) => Cow::Borrowed(record),
        }
    }

    /// A record of the queue as it is sent: with its topic written out if the peer does not keep the number, and with its age
    /// now. In two parts, so that no payload is copied.
    pub(super) fn parts<'r>(&self, record: &'r [u8]) -> (Cow<'r, [u8]>, &'r [u8]) {
        self.spelled(record, |_| {})
    }

    /// The same on a line, where the age stands apart: so it is always as long, however often it is sent.
    pub(super) fn line_parts<'r>(&self, record: &'r [u8]) -> (Cow<'r, [u8]>, &'r [u8], u32) {
        let mut added_age_ms = 0;
        let (front, payload) = self.spelled(record, |header| {
            if let Some(age) = &mut header.age {
                added_age_ms = u32::try_from(core::mem::take(&mut age.ms)).unwrap_or(u32::MAX);
            }
        });
        (front, payload, added_age_ms)
    }

    fn spelled<'r>(
        &self,
        record: &'r [u8],
        change: impl FnOnce(&mut Header<'_>),
    ) -> (Cow<'r, [u8]>, &'r [u8]) {
        let is_born = self.aged_through > 0 && record::is_born(record);
        if self.is_plain() && !is_born {
            return (Cow::Borrowed(record), &[]);
        }
        let Ok(Record::Message { header, payload }) = record::decode(record) else {
            return (Cow::Borrowed(record), &[]);
        };
        let text = match header.topic {
            Topic::Number(number) => self
                .text(number)
                .filter(|text| number as usize > self.bindings_max || text.len() > self.topic_max),
            Topic::Text(_) => None,
        };
        if text.is_none() && !is_born {
            return (Cow::Borrowed(record), &[]);
        }
        let mut header = self.now.unqueued(&header, false);
        if is_born {
            change(&mut header);
        }
        let front = match text {
            Some(text) => written_out(&header, text, &[]),
            None => encoded(&header, &[]),
        };
        (Cow::Owned(front), payload)
    }

    /// The bytes of a record as it is sent.
    pub(super) fn len_of(&self, record: &[u8]) -> usize {
        let (front, payload) = self.parts(record);
        front.len() + payload.len()
    }

    /// Why the peer does not take a record with this number, if it does not.
    pub(super) fn refusal(&self, record: &[u8], number: u64) -> Option<DeadReason> {
        if number <= self.unwanted_through && self.is_unwanted(record) {
            return Some(DeadReason::Unsubscribed);
        }
        if number <= self.given_up_through && record::is_message(record) {
            return Some(DeadReason::InDoubt);
        }
        if self.is_born(record, number) && self.is_too_old(record, number) {
            return Some(DeadReason::Expired);
        }
        (self.len_of(record) > self.record_max).then_some(DeadReason::TooLarge)
    }

    /// Whether a record says when it was born, and is not sent as it stands in the queue.
    fn is_born(&self, record: &[u8], number: u64) -> bool {
        number <= self.aged_through && record::is_born(record)
    }

    #[cold]
    fn is_too_old(&self, record: &[u8], number: u64) -> bool {
        let Ok(Record::Message { header, .. }) = record::decode(record) else { return false };
        self.now.is_too_old(&header, number <= self.restored)
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
        let at = begin.number;
        let is_taken = at > self.unwanted_through && at > self.given_up_through && at > self.aged_through;
        run.len() <= self.record_max && is_taken
    }

    /// The records at the front of a run that the peer takes as they stand there, and where the rest begins.
    pub(super) fn front<'r>(&self, run: &'r [u8], begin: Cursor) -> (&'r [u8], Cursor) {
        let mut end = begin;
        let mut rest = run;
        while let Some((record, after)) =
            record::split_first(rest).filter(|(record, _)| self.takes_as_is(record, end.number))
        {
            end.number += record::numbers_of(record);
            rest = after;
        }
        let len = run.len() - rest.len();
        end.offset += len as u64;
        (run.get(..len).unwrap_or_default(), end)
    }

    fn takes_as_is(&self, record: &[u8], number: u64) -> bool {
        self.refusal(record, number).is_none() && !self.is_born(record, number)
    }

    /// The records at the front of a run as they are sent, all of them taken and in `room`, and where the rest begins. If the first
    /// one does not fit it goes by itself, if it has room in `alone`.
    pub(super) fn run(&self, run: &[u8], begin: Cursor, room: usize, alone: usize) -> (Vec<u8>, Cursor) {
        let (mut sent, mut end) = (Vec::new(), begin);
        let mut rest = run;
        while let Some((record, after)) = record::split_first(rest) {
            let len = self.len_of(record);
            let taken = varint_len(len as u64) + len;
            let fits = sent.len() + taken <= room || (sent.is_empty() && taken <= alone);
            if self.refusal(record, end.number).is_some() || !fits {
                break;
            }
            push_record(&mut sent, &self.of(record));
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
            Topic::Number(number)
                if number as usize <= state.bindings_max() && text.len() <= state.topic_max() =>
            {
                Topic::Number(number)
            }
            Topic::Number(_) | Topic::Text(_) => Topic::Text(text),
        };
        // What is sent says its age, which is below its time to live.
        let age = header.ttl_ms.map(|ttl_ms| Age { ms: ttl_ms.into(), unknown: false });
        let head = Header { topic, age, ..*header }.len();
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
    use crate::wire::record::{Mode, Origin};

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
            born_ms: None,
        };
        assert!(header.len() + varint::LEN_MAX <= RECORD_HEAD_MAX, "with the length of its record");
    }
}
