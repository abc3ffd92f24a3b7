//! What is queued for the node itself: messages that its application had failed at, and that an operator has queued again.
//!
//! They wait in the queue to the node's own name, which no connection ever takes from, and are handed over from there.

use super::event::{Application, Message};
use super::receipts::{Receipts, Settle};
use super::{OutboxId, Router, TopicId};
use crate::delivery::Next;
use crate::memory::Cursor;
use crate::time::Instant;
use crate::wire::record::{self, Record, Run, Topic};

/// The queue to the node itself.
#[derive(Debug, Default)]
pub(super) struct Own {
    queue: Option<OutboxId>,
    /// The next message is on a topic that the node does not take now: it waits until it does.
    is_blocked: bool,
    /// What was handed over from it.
    pub(super) receipts: Receipts,
}

impl Own {
    pub(super) const fn set_queue(&mut self, queue: OutboxId) {
        self.queue = Some(queue);
    }

    pub(super) fn is_queue(&self, id: OutboxId) -> bool {
        self.queue == Some(id)
    }

    /// The node takes another topic.
    pub(super) const fn unblock(&mut self) {
        self.is_blocked = false;
    }
}

impl Router {
    /// Whether [`hand_own`](Self::hand_own) has something to do.
    pub fn has_own(&self) -> bool {
        if self.own.receipts.fill(&self.config.limits) {
            // The application has to settle some of what it has.
            return false;
        }
        let outbox = self.own.queue.and_then(|id| self.outboxes.get(id.0));
        let Some(outbox) = outbox.filter(|outbox| outbox.may_send() && !self.own.is_blocked) else {
            return false;
        };
        match outbox.out.next_piece(u64::MAX - 1, usize::MAX) {
            Next::Nothing => false,
            Next::Load { .. } => self.own.queue.is_some_and(|id| !self.storage.loads.is_loading(id)),
            Next::Run { .. } | Next::Gap { .. } => true,
        }
    }

    /// Hands to the application what is queued for the node itself, until it is full, or has a window of messages that it has not
    /// settled: messages that it had failed at in an earlier life, and that were queued again. They are marked as perhaps handed over
    /// before.
    pub fn hand_own(&mut self, now: Instant, application: &mut dyn Application) {
        self.tick(now);
        let Some(id) = self.own.queue else { return };
        while !application.is_full() && !self.own.receipts.fill(&self.config.limits) {
            let Some(outbox) = self.outboxes.get(id.0).filter(|outbox| outbox.may_send()) else { return };
            let number = outbox.out.sent();
            let end = match outbox.out.next_piece(u64::MAX - 1, usize::MAX) {
                Next::Nothing => return,
                Next::Load { .. } => return self.want_load(id),
                Next::Gap { last, .. } => Cursor { number: last + 1, offset: 0 },
                Next::Run { begin, bytes, .. } => {
                    let Some((record, rest)) = record::split_first(bytes) else { return };
                    let end = Cursor {
                        number: begin.number + record::numbers_of(record),
                        offset: begin.offset + (bytes.len() - rest.len()) as u64,
                    };
                    let len = record.len() as u64;
                    let Some(settle) = self.hand_one(id, number, application) else {
                        self.own.is_blocked = true;
                        return;
                    };
                    let receipt = self.own.receipts.next();
                    self.own.receipts.push(number, 0, len);
                    if settle == Settle::Now {
                        self.own.receipts.settle(receipt);
                    }
                    end
                }
            };
            let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
            outbox.out.advance(self.now, end);
            self.trim_own();
        }
    }

    /// Hands the next message over, unless the node does not take its topic now. What is no message is settled.
    fn hand_one(&self, id: OutboxId, number: u64, application: &mut dyn Application) -> Option<Settle> {
        let outbox = self.outboxes.get(id.0)?;
        let Next::Run { bytes, .. } = outbox.out.next_piece(u64::MAX - 1, usize::MAX) else {
            return None;
        };
        let record = Run::new(bytes).next()?.ok()?;
        let Ok(Record::Message { header, payload }) = record::decode(record) else {
            return Some(Settle::Now);
        };
        let topic: Option<TopicId> = match header.topic {
            Topic::Text(text) => self.topics.find(text),
            Topic::Number(number) => outbox.topics.get((number as usize).wrapping_sub(1)).copied(),
        };
        let topic = topic.filter(|topic| self.topics.is_own(*topic))?;
        let message = Message {
            topic: self.topics.text(topic),
            from: &self.config.name,
            seq: number,
            mode: header.mode,
            payload,
            maybe_redelivered: true,
            receipt: self.own_receipt(),
        };
        Some(application.take(&message))
    }

    /// What is settled from the front leaves the queue.
    pub(super) fn trim_own(&mut self) {
        // A letter is in the group of the store that takes its message out of the queue.
        self.take_own_settled();
        let Some(id) = self.own.queue else { return };
        let Some(outbox) = self.outboxes.get_mut(id.0) else { return };
        let received = outbox.out.sent() - 1;
        let acked = self.own.receipts.end().map_or(received, |(end, _)| end);
        // Both are numbers that were handed over.
        let _ = outbox.out.handle_marks(self.now, received, acked);
        self.list(id);
    }
}
