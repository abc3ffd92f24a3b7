//! What a queue asks of its store, and when.

use core::time::Duration;

use super::outbound::{Append, Emission, Outbound, SendMode, Unplaced, prefix};
use crate::config::RESERVATION;
use crate::memory::{Cursor, Ring};
use crate::time::Instant;
use crate::wire::record::GapReason;

impl<R: Ring> Outbound<R> {
    /// Whether something has to be told to the store. `urgent` says that the link is down.
    pub fn owes_store(&self, urgent: bool) -> bool {
        self.owed_append(urgent) || self.owed_emission(urgent).is_some()
    }

    fn owed_append(&self, urgent: bool) -> bool {
        let staged = self.emit.number < self.next;
        staged && (self.mode == SendMode::Stored || self.writing || urgent)
    }

    /// The next thing that the queue owes besides appends; what frees room comes first. Note it with [`emitted`](Self::emitted) before asking again.
    pub fn owed_emission(&self, urgent: bool) -> Option<Emission> {
        if let Some((through, reason)) = self.gap
            && !self.gap_stored
            && self.gaps.newest() != Some(through)
        {
            return Some(Emission::Drop(through, reason));
        }
        let trimmed = self.trims.newest().unwrap_or(self.trimmed);
        let stored_above = self.store_last > trimmed;
        if self.acked > trimmed && (stored_above || self.owed_append(urgent)) {
            return Some(Emission::Trim(self.acked));
        }
        let wanted = self.next - 1 + RESERVATION / 2;
        let short = self.mode == SendMode::Asynchronous && self.reserved < wanted;
        (short && self.reservations.is_empty()).then_some(Emission::Reserve(self.next - 1 + RESERVATION))
    }

    /// Whether the store still holds something that is not queued any more.
    pub const fn owes_trim(&self) -> bool {
        self.acked > self.trimmed && self.store_last > self.trimmed
    }

    /// `emission` is in batch `id`.
    pub fn emitted(&mut self, id: u64, emission: Emission) {
        match emission {
            Emission::Reserve(through) => self.reservations.put(id, through),
            Emission::Drop(through, _) => self.gaps.put(id, through),
            Emission::Trim(through) => {
                self.trims.put(id, through);
                self.store_last = self.store_last.max(through);
            }
        }
    }

    /// The next records to append, at most `room` bytes; they are in batch `id`. Ask until there are none.
    pub fn poll_append(&mut self, id: u64, urgent: bool, room: usize) -> Option<Append<'_>> {
        if !self.owed_append(urgent) {
            self.writing = false;
            return None;
        }
        // After an acknowledgement in the asynchronous mode the offset is not known.
        let at = if self.emit.offset == 0 { self.place(self.emit.number)? } else { self.emit };
        let area = self.ring.area(at)?;
        let (len, next) = if area.bytes.len() <= room {
            (area.bytes.len(), area.next)
        } else {
            prefix(area.bytes, at.number, room, |_, _| true)
        };
        if len == 0 {
            return None;
        }
        self.emit = Cursor { number: next, offset: area.begin.offset + len as u64 };
        self.appends.put(id, self.emit);
        self.store_last = next - 1;
        Some(Append { first: at.number, last: next - 1, records: area.bytes.get(..len).unwrap_or_default() })
    }

    /// The group of batch `id` with this queue's trims and drops is committed.
    pub fn handle_trimmed(&mut self, id: u64) {
        if let Some(through) = self.trims.take_through(id) {
            self.trimmed = self.trimmed.max(through);
        }
        if let Some(through) = self.gaps.take_through(id)
            && self.gap.is_none_or(|(gap, _)| gap == through)
        {
            self.gap_stored = true;
        }
    }

    /// The group of batch `id` with this queue's appends and reservations is committed.
    pub fn handle_stored(&mut self, id: u64) {
        if let Some(through) = self.reservations.take_through(id) {
            self.reserved = self.reserved.max(through);
        }
        if let Some(cursor) = self.appends.take_through(id)
            && cursor.number > self.stored.number
        {
            self.stored = cursor;
        }
    }

    /// Everything that is with the store is void; it will be emitted again.
    pub fn handle_void(&mut self) {
        self.appends.clear();
        self.trims.clear();
        self.gaps.clear();
        self.reservations.clear();
        // What was to be written still is.
        self.writing |= self.mode == SendMode::Asynchronous && self.stored.number < self.emit.number;
        self.emit = self.stored;
        self.store_last = (self.stored.number - 1).max(self.trimmed);
    }

    /// Takes records that the store gave back for [`Next::Load`](super::Next::Load).
    ///
    /// # Errors
    /// If the ring has no room for them now.
    pub fn handle_loaded(&mut self, first: u64, last: u64, records: &[u8]) -> Result<(), Unplaced> {
        self.loading = false;
        let wanted = self.sent.number;
        if first != wanted || self.ring.area(self.sent).is_some() {
            // The queue has moved on since it asked.
            return Ok(());
        }
        // What is in the ring already is not put there twice, and what is not known to be committed is in the ring.
        let last_needed = last.min(self.stored.number - 1);
        let limit = self.ring.first_from(wanted).map_or(last_needed, |next| last_needed.min(next - 1));
        let (len, next) = if limit == last {
            (records.len(), last + 1)
        } else {
            prefix(records, first, records.len(), |_, last| last <= limit)
        };
        let records = records.get(..len).unwrap_or_default();
        if len == 0 {
            return Err(Unplaced);
        }
        while self.ring.len() + len > self.ring.capacity() && self.ring.evict(next, self.stored.number - 1) {}
        if !self.ring.insert(first, next - 1, records) {
            return Err(Unplaced);
        }
        // What is queued next may join the run that was read back, which need not be the one that ended here before.
        if let Some(end) = self.ring.end() {
            for cursor in [&mut self.stored, &mut self.emit] {
                if cursor.number == end.number {
                    *cursor = end;
                }
            }
        }
        Ok(())
    }

    /// The store does not have `first..=last` any more, or not whole: the peer is told of a gap instead, as soon as everything
    /// below is acknowledged, since dropping takes that along.
    pub fn handle_lost(&mut self, first: u64, last: u64, reason: GapReason) {
        self.loading = false;
        if self.gap.map_or(self.acked, |(gap, _)| gap.max(self.acked)) + 1 < first {
            self.damaged = first;
            return;
        }
        self.damaged = 0;
        self.drop_through(last, reason);
    }

    /// A load is under way, so it is not asked for again; or it failed.
    pub const fn set_loading(&mut self, loading: bool) {
        self.loading = loading;
    }

    // ------------------------------------------------------------------ time

    /// When the write-behind has to look, if it does.
    pub fn write_behind_at(&self) -> Option<Instant> {
        self.write_behind.map(|(at, _)| at)
    }

    /// Starts and checks the write-behind of the asynchronous mode: what was queued a whole `patience` ago and is neither
    /// acknowledged nor stored is written, with everything below and above it.
    pub fn handle_write_behind(&mut self, now: Instant, patience: Duration) {
        if self.mode != SendMode::Asynchronous || self.emit.number >= self.next || self.writing {
            self.write_behind = None;
            return;
        }
        // Looking twice in the time bounds the age of what is only in memory by that time.
        match self.write_behind {
            None => self.write_behind = Some((now + patience / 2, self.next - 1)),
            Some((at, _)) if now < at => {}
            Some((_, through)) => {
                self.writing = self.acked < through && self.emit.number <= through;
                self.write_behind = Some((now + patience / 2, self.next - 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::delivery::Next;
    use crate::id::Epoch;
    use crate::memory::Region;
    use crate::wire::record::{self, Header, Mode, Topic};

    const NOW: Instant = Instant::ZERO;

    /// A queue in a region for three of its records, with the store beside it.
    struct Device {
        out: Outbound<Region<100>>,
        stored: Vec<Vec<u8>>,
    }

    impl Device {
        /// Queues a record of 30 bytes with its length, and stores it.
        fn send(&mut self) {
            let header = Header::new(Mode::All, Topic::Number(1));
            let head = record::message_len(&header, 0);
            let payload = [self.stored.len() as u8; 29];
            let write = |room: &mut [u8]| {
                record::encode_message(&header, &payload[head..], room);
            };
            self.out.push(NOW, 29, false, write).unwrap();
            let append = self.out.poll_append(1, true, 100).unwrap();
            let number = self.stored.len() as u64 + 1;
            assert_eq!((append.first, append.last, append.records.len()), (number, number, 30));
            assert_eq!(append.records.last(), payload.last());
            self.stored.push(append.records.to_vec());
            self.out.handle_stored(1);
        }

        /// What the queue hands out next, read from the store if need be.
        fn transmit(&mut self) -> Vec<u8> {
            if let Next::Load { after } = self.out.next_piece(u64::MAX, 100) {
                let records = self.stored[after as usize..].concat();
                self.out.handle_loaded(after + 1, self.stored.len() as u64, &records).unwrap();
            }
            let Next::Run { end, bytes, .. } = self.out.next_piece(u64::MAX, 100) else {
                panic!("no records")
            };
            let bytes = bytes.to_vec();
            self.out.advance(NOW, end);
            bytes
        }
    }

    #[test]
    fn what_is_queued_behind_loaded_records_is_stored_as_itself() {
        let out = Outbound::new(Region::new(), SendMode::Stored, Epoch(7));
        let mut device = Device { out, stored: Vec::new() };
        // The fourth finds no room beside the first three: they go, as the store has them.
        for _ in 0..4 {
            device.send();
        }
        assert_eq!(device.transmit(), device.stored[..3].concat());
        device.out.handle_marks(NOW, 3, 2).unwrap();
        // Read back, it stands behind the third, and not where it was when it was stored.
        assert_eq!(device.transmit(), device.stored[3]);
        device.send();
        assert_eq!(device.transmit(), device.stored[4]);
    }
}
