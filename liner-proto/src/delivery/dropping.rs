//! Numbers of a queue that carry no message, or not any more.

use super::outbound::{Outbound, bytes_through, prefix};
use crate::memory::Ring;
use crate::wire::record::{self, GapReason};

impl<R: Ring> Outbound<R> {
    /// Queues numbers that will never carry a message.
    pub fn push_gap(&mut self, count: u64, reason: GapReason) {
        let mut bytes = [0; record::GAP_LEN_MAX];
        let Some(len) = record::encode_gap(reason, count, &mut bytes) else { return };
        let number = self.next;
        let pushed = self.ring.push(number, count, 1 + len, true, |room| {
            if let Some((head, body)) = room.split_first_mut() {
                *head = len as u8;
                body.copy_from_slice(bytes.get(..len).unwrap_or_default());
            }
        });
        if pushed {
            self.next += count;
            self.gap_record = self.next - 1;
        }
    }

    /// Drops the oldest message that is stored and not acknowledged. Says whether there was one.
    pub fn drop_oldest(&mut self, reason: GapReason) -> bool {
        self.drop_through(self.gone_through() + 1, reason) > 0
    }

    /// Whether there is a message that is stored and not acknowledged.
    pub fn has_droppable(&self) -> bool {
        self.gone_through() + 1 < self.stored.number
    }

    /// The last number that is acknowledged or dropped.
    pub fn gone_through(&self) -> u64 {
        self.gap.map_or(self.acked, |(gap, _)| gap.max(self.acked))
    }

    /// Drops everything up to `through` that is not acknowledged, and tells the peer of a gap in its place.
    /// Returns how many numbers were dropped.
    pub fn drop_through(&mut self, through: u64, reason: GapReason) -> u64 {
        // Only what is stored can be dropped there; the rest of the queue stays in order behind it.
        let through = self.record_end(through.min(self.stored.number - 1));
        let from = self.gone_through();
        if through <= from {
            return 0;
        }
        self.gap = Some((through, reason));
        self.gap_stored = false;
        self.forget_through(through);
        through - from
    }

    /// The last number of the record in memory that `through` belongs to: the rest of a gap record would have numbers that
    /// are not its own.
    fn record_end(&self, through: u64) -> u64 {
        if through >= self.gap_record {
            return through;
        }
        let Some(run) = self.ring.run_of(through) else { return through };
        prefix(run.bytes, run.begin.number, run.bytes.len(), |first, _| first <= through).1 - 1
    }

    /// The store has dropped everything up to `through` already: the peer is told of a gap in its place.
    pub fn handle_dropped(&mut self, through: u64, reason: GapReason) {
        if self.drop_through(through, reason) > 0 {
            self.gap_stored = true;
        }
    }

    pub(super) fn forget_through(&mut self, through: u64) {
        let first = self.ring.first().unwrap_or(u64::MAX);
        self.ring.free(through, |run| bytes_through(run, first, through));
    }
}
