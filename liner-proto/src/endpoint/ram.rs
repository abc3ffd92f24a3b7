//! The queue of a device without a store: its bytes are all that there is of a message.

use core::borrow::BorrowMut;
use core::fmt::Debug;

use super::SendError;
use super::queue::{Item, Queue, Work};
use crate::config::Limits;
use crate::delivery::{Arrival, Resumed, Violation};
use crate::effect::GapReason;
use crate::id::Epoch;
use crate::line::FRAMES_MAX;
use crate::planted::{Fault, Planted};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::handshake::{Known, StreamFields};
use crate::wire::varint::varint_len;
use crate::wire::{NUMBER_MAX, Reader, Writer};

/// Keeps messages in `BYTES` bytes, and nowhere else: two bytes beside a payload of up to 127 bytes.
///
/// A reset forgets everything, so that the device begins a new epoch; a message that was handed over counts as taken at the
/// next call of the endpoint.
///
/// With `ASSIGNED` its gateway makes the epochs: see [`AssignedEndpoint`](super::AssignedEndpoint). `M` is the bytes themselves, or a
/// reference to bytes that stand somewhere else: see [`Endpoint::with_memory`](super::Endpoint::with_memory).
// As in an endpoint, the bytes come last.
#[repr(C)]
#[derive(Debug)]
pub struct Ram<const BYTES: usize, const ASSIGNED: bool = false, M = [u8; BYTES]> {
    epoch: Epoch,
    /// The last number that is acknowledged. The marks below count from here.
    acked: u64,
    /// Numbers that are queued, those that were dropped included.
    count: u32,
    /// How many of them were dropped, from the oldest on.
    gone: u32,
    /// How many are on their way.
    sent: u32,
    /// How many were ever on a wire.
    sent_max: u32,
    /// How many were on a wire before the present session.
    doubt: u32,
    taken: Taken,
    planted: Planted,
    /// Where in `bytes` messages stand: the length of the payload, the topic's place, the payload. From `begin` to `end`; or, if that
    /// is not above it and there are any, from `begin` to `top` and on from 0 to `end`. None of them is divided.
    begin: usize,
    end: usize,
    top: usize,
    /// Where a message stands that was looked for, by how far it is above the last one that is acknowledged: nobody walks there again.
    found: (u32, usize),
    bytes: M,
}

/// Bytes in front of a payload that is short, to a topic that is one of the first.
const HEAD: usize = 2;

/// The cursor in the gateway's stream.
#[derive(Debug)]
struct Taken {
    epoch: Epoch,
    /// The last number that was taken.
    received: u64,
    /// What was sent before up to this number may have been handled before.
    doubt: u64,
    /// What the gateway was told last.
    told: Option<u32>,
    window: u8,
}

impl<const BYTES: usize, const ASSIGNED: bool, M: BorrowMut<[u8; BYTES]>> Ram<BYTES, ASSIGNED, M> {
    /// How far a number is above the last one that is acknowledged; below it, half of all numbers and more.
    const fn above(&self, number: u32) -> u32 {
        number.wrapping_sub(self.acked as u32)
    }

    /// Reads the message at a place in the bytes: its topic, its payload, and where it ends.
    fn read(&self, at: usize) -> Option<(u16, &[u8], usize)> {
        let mut reader = Reader::new(self.bytes.borrow().get(at..)?);
        let (len, topic) = (reader.varint32() as usize, reader.varint32() as u16);
        let (payload, rest) = reader.rest().split_at_checked(len)?;
        Some((topic, payload, BYTES - rest.len()))
    }

    /// Where the message stands that is so far above the last one that is acknowledged, if it is in the queue. A frame may be sent
    /// again whose message is acknowledged: an earlier session had brought it.
    fn place(&self, above: u32) -> Option<usize> {
        if above > self.count {
            return None;
        }
        let (first, begin) = (self.gone + 1, self.begin);
        let (from, mut at) =
            if (first..=above).contains(&self.found.0) { self.found } else { (first, begin) };
        for _ in 0..above.checked_sub(from)? {
            at = self.behind(at)?;
        }
        Some(at)
    }

    /// Where the message behind this one stands. There may be hundreds to pass in one turn, nearly all of which are short.
    fn behind(&self, at: usize) -> Option<usize> {
        let behind = match *self.bytes.borrow().get(at..)? {
            [len @ ..=0x7f, ..=0x7f, ..] => at + HEAD + usize::from(len),
            _ => self.read(at)?.2,
        };
        Some(if behind == self.top { 0 } else { behind })
    }

    /// Finds room for so many bytes behind the last message, or in front of the oldest.
    fn make_room(&mut self, whole: usize) -> bool {
        let goes_on = self.end <= self.begin && self.gone < self.count;
        if whole <= if goes_on { self.begin } else { BYTES } - self.end {
            return true;
        }
        let is_room = !goes_on && whole <= self.begin;
        if is_room {
            (self.top, self.end) = (self.end, 0);
        }
        is_room
    }

    /// Forgets messages until one stands in front that is so far above the last one that is acknowledged.
    fn forget_below(&mut self, above: u32) {
        if above > self.count {
            (self.begin, self.end, self.top) = (0, 0, BYTES);
        } else if let Some(at) = self.place(above) {
            if at < self.begin {
                self.top = BYTES;
            }
            self.begin = at;
        } else {
            return;
        }
        self.gone = above - 1;
    }

    #[cfg_attr(target_os = "none", inline(never))]
    fn acknowledge(&mut self, through: u32) {
        self.forget_below(through + 1);
        self.acked += u64::from(through);
        let Self { count, gone, sent, sent_max, doubt, found, .. } = self;
        for mark in [count, gone, sent, sent_max, doubt, &mut found.0] {
            *mark = mark.saturating_sub(through);
        }
    }
}

impl<const BYTES: usize, const ASSIGNED: bool, M: BorrowMut<[u8; BYTES]> + Debug> Queue
    for Ram<BYTES, ASSIGNED, M>
{
}

impl<const BYTES: usize, const ASSIGNED: bool, M: BorrowMut<[u8; BYTES]> + Debug> Work
    for Ram<BYTES, ASSIGNED, M>
{
    type Memory = M;

    const ASSIGNED: bool = ASSIGNED;

    fn new(memory: M, epoch: Epoch, limits: &Limits, planted: Planted) -> Self {
        let window = limits.window_messages.min(u32::from(u8::MAX)) as u8;
        Self {
            epoch,
            acked: 0,
            count: 0,
            gone: 0,
            sent: 0,
            sent_max: 0,
            doubt: 0,
            taken: Taken { epoch: Epoch::NONE, received: 0, doubt: 0, told: None, window },
            planted,
            begin: 0,
            end: 0,
            top: BYTES,
            found: (0, 0),
            bytes: memory,
        }
    }

    fn push(&mut self, _: Instant, topic: u16, payload: &[u8]) -> Result<u64, SendError> {
        let (len, topic) = (payload.len() as u64, u64::from(topic));
        let whole = payload.len() + varint_len(len) + varint_len(topic);
        if whole > BYTES {
            return Err(SendError::TooLarge);
        }
        if !self.make_room(whole) {
            return Err(SendError::Full);
        }
        let mut writer = Writer::new(self.bytes.borrow_mut());
        writer.skip_to(self.end);
        writer.varint(len);
        writer.varint(topic);
        writer.bytes(payload);
        self.end = writer.done().ok_or(SendError::Full)?;
        self.count += 1;
        Ok(self.next() - 1)
    }

    fn drop_oldest(&mut self) -> bool {
        if self.gone == self.count {
            return false;
        }
        self.forget_below(self.gone + 2);
        true
    }

    fn next(&self) -> u64 {
        self.acked + u64::from(self.count) + 1
    }

    fn acked(&self) -> u64 {
        self.acked
    }

    fn waits(&self) -> bool {
        self.sent > 0
    }

    fn peek(&mut self) -> Option<(u32, Item<'_>)> {
        let above = self.sent + 1;
        let number = (self.acked as u32).wrapping_add(above);
        if above <= self.gone {
            return Some((number, Item::Gap(self.gone - self.sent)));
        }
        self.found = (above, self.place(above)?);
        let (topic, payload, _) = self.read(self.found.1)?;
        Some((number, Item::Message { topic, payload }))
    }

    fn at(&self, number: u32) -> Option<Item<'_>> {
        let (topic, payload, _) = self.read(self.place(self.above(number))?)?;
        Some(Item::Message { topic, payload })
    }

    fn gone_reason(&self, _: u32) -> GapReason {
        GapReason::Dropped
    }

    fn is_doubtful(&self, number: u32) -> bool {
        self.above(number) <= self.doubt
    }

    fn advance(&mut self, _: Instant, last: u32) {
        self.sent = self.above(last);
        self.sent_max = self.sent_max.max(self.sent);
    }

    fn handle_ack(&mut self, _: Instant, acked: u32) -> Result<(), Violation> {
        let through = self.above(acked);
        if through as i32 <= 0 {
            // It comes late, or is far from everything that was ever sent.
            return Ok(());
        }
        if through > self.sent_max {
            return Err(Violation::AckAboveSent);
        }
        self.acknowledge(through);
        Ok(())
    }

    fn handle_link_down(&mut self) {
        self.sent = 0;
        self.doubt = self.sent_max;
    }

    fn stream(&self) -> StreamFields {
        let Taken { epoch, received, .. } = self.taken;
        StreamFields {
            epoch: self.epoch,
            predecessor: None,
            oldest: self.acked + 1,
            next: self.next(),
            known: (!epoch.is_none()).then_some(Known { epoch, cursor: received }),
            assigned: None,
        }
    }

    fn assign(&mut self, epoch: Epoch) {
        if self.epoch.is_none() {
            self.epoch = epoch;
        }
    }

    fn resume(&mut self, _: Instant, theirs: &StreamFields) -> (Resumed, u64) {
        self.handle_link_down();
        let resumed = match theirs.known {
            Some(known) if known.epoch == self.epoch => {
                let through = known.cursor.saturating_sub(self.acked);
                if through > u64::from(self.sent_max) {
                    return (Resumed::Regressed, 0);
                }
                self.acknowledge(through as u32);
                Resumed::Continued
            }
            _ => Resumed::Forgotten,
        };
        let ignored = self.planted.has(Fault::EpochIgnored);
        (resumed, self.taken.resume(theirs, ignored))
    }

    fn regress(&mut self, rng: &mut Rng) -> bool {
        // The numbers begin anew. What went out under the old ones may come twice, and is marked so.
        self.epoch = Epoch(rng.next_nonzero());
        self.acked = 0;
        true
    }

    fn handle_arrival(&mut self, first: u64, last: u64, _: usize) -> Result<Arrival, Violation> {
        if last > NUMBER_MAX {
            return Err(Violation::Range);
        }
        if last <= self.taken.received {
            return Ok(Arrival::Duplicate);
        }
        if first > self.taken.received + 1 {
            return Err(Violation::UndeclaredGap);
        }
        self.taken.received = last;
        Ok(Arrival::New)
    }

    fn handle_dropped(&mut self) {
        self.taken.received = self.taken.received.saturating_sub(1);
    }

    fn in_doubt(&self, number: u64) -> bool {
        number <= self.taken.doubt
    }

    fn taken(&self, held: bool) -> u32 {
        let held = held && !self.planted.has(Fault::AckBeforeCommit);
        (self.taken.received as u32).wrapping_sub(u32::from(held))
    }

    fn window(&self, held: bool) -> u8 {
        self.taken.window.saturating_sub(held.into()).min(FRAMES_MAX)
    }

    fn owes_marks(&self, held: bool) -> bool {
        self.taken.told != Some(self.taken(held))
    }

    fn set_told(&mut self, held: bool) {
        self.taken.told = Some(self.taken(held));
    }
}

impl Taken {
    /// Takes what the gateway says about its stream, and returns how many of its messages are lost. A session begins.
    fn resume(&mut self, theirs: &StreamFields, ignore_epoch: bool) -> u64 {
        self.told = None;
        let (before, last) = (theirs.oldest - 1, theirs.next - 1);
        if theirs.epoch != self.epoch && !ignore_epoch {
            let predecessor = theirs.predecessor.filter(|predecessor| predecessor.epoch == self.epoch);
            self.epoch = theirs.epoch;
            self.received = match predecessor {
                Some(predecessor) => predecessor.translate(self.received).max(before).min(last),
                None => {
                    self.doubt = last;
                    before
                }
            };
        }
        let lost = before.saturating_sub(self.received);
        if lost > 0 {
            self.received = before;
        }
        if lost > 0 || last < self.doubt {
            // If this side has gone back, or the gateway has, who knows what was handed on.
            self.doubt = last;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    const BYTES: usize = 100;

    /// What is in the queue from its first message on, as it would be sent.
    fn contents(queue: &Ram<BYTES>) -> Vec<(u16, Vec<u8>)> {
        let numbers = queue.acked + u64::from(queue.gone) + 1..queue.next();
        let read = |number| match queue.at(number as u32) {
            Some(Item::Message { topic, payload }) => (topic, payload.to_vec()),
            other => panic!("number {number} is {other:?}"),
        };
        numbers.map(read).collect()
    }

    #[test]
    fn messages_stand_as_they_came_wherever_there_is_room() {
        let limits = Limits { window_messages: 4, ..Limits::HOST };
        for seed in 1..300 {
            let mut rng = Rng::new([seed, 5]);
            let mut queue = Ram::<BYTES>::new([0xee; BYTES], Epoch(1), &limits, Planted::NONE);
            let mut model: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
            let longest = 1 + rng.below(BYTES as u64) as usize;
            for step in 0..300 {
                match rng.below(8) {
                    0 => assert_eq!(queue.drop_oldest(), model.pop_front().is_some()),
                    1 => {
                        queue.advance(Instant::ZERO, (queue.next() - 1) as u32);
                        let gone = u64::from(queue.gone);
                        let many = rng.below(model.len() as u64 + gone + 1);
                        queue.handle_ack(Instant::ZERO, (queue.acked + many) as u32).unwrap();
                        model.drain(..many.saturating_sub(gone) as usize);
                    }
                    _ => {
                        let topic = rng.below(300) as u16;
                        let payload = vec![step as u8; rng.below(longest as u64) as usize];
                        let size =
                            |len: usize, topic: u16| len + varint_len(len as u64) + varint_len(topic.into());
                        let whole = size(payload.len(), topic);
                        let used: usize =
                            model.iter().map(|(topic, payload)| size(payload.len(), *topic)).sum();
                        match queue.push(Instant::ZERO, topic, &payload) {
                            Ok(_) => model.push_back((topic, payload)),
                            Err(SendError::TooLarge) => assert!(whole > BYTES),
                            // What is left over is in two places, in each of which one of the longest has no room.
                            Err(error) => {
                                assert!(
                                    error == SendError::Full && used + 2 * (longest + 3) > BYTES && used > 0
                                );
                            }
                        }
                    }
                }
                assert_eq!(
                    contents(&queue),
                    model.iter().cloned().collect::<Vec<_>>(),
                    "seed {seed}, step {step}"
                );
            }
        }
    }

    #[test]
    fn messages_of_one_size_use_all_there_is() {
        let mut queue = Ram::<BYTES>::new([0; BYTES], Epoch(1), &Limits::HOST, Planted::NONE);
        for round in 0..50 {
            while queue.push(Instant::ZERO, 0, &[round; 18]).is_ok() {}
            assert_eq!(contents(&queue).len(), 5);
            (0..1 + round % 4).for_each(|_| assert!(queue.drop_oldest()));
        }
    }

    #[test]
    fn what_is_acknowledged_is_found_nowhere() {
        let limits = Limits { window_messages: 4, ..Limits::HOST };
        let mut queue = Ram::<BYTES>::new([0; BYTES], Epoch(1), &limits, Planted::NONE);
        for _ in 0..3 {
            queue.push(Instant::ZERO, 0, &[]).unwrap();
        }
        queue.advance(Instant::ZERO, 3);
        // An earlier session has brought them: the frames of this one may be lost, and are sent again.
        queue.handle_ack(Instant::ZERO, 2).unwrap();
        let found: Vec<bool> = (0..6).map(|number| queue.at(number).is_some()).collect();
        assert_eq!(found, [false, false, false, true, false, false]);
    }
}
