//! The queue of a device with a store: what it asks of that, and what it has in memory of it.

use super::queue::{Item, Queue, Work};
use super::topics::TopicSet;
use super::{SendError, StoredEndpoint};
use crate::config::Limits;
use crate::delivery::{
    Arrival, Emission, Inbound, Next, Outbound, PushError, Resumed, Resumption, SendMode, Violation,
};
use crate::effect::{self, GapReason, Loaded, Recovered, StoreFault, StoreOp};
use crate::id::{Epoch, Predecessor};
use crate::line::FRAMES_MAX;
use crate::logging::debug;
use crate::memory::{Cursor, Region};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::data::widen;
use crate::wire::handshake::StreamFields;
use crate::wire::record::{self, Header, Mode, Record, Topic};

/// A device has one queue and one peer: they need no name.
const QUEUE_KEY: effect::Queue<'static> = effect::Queue::Node("");

/// Keeps messages in a [`Store`](crate::store::Store), and those that are being stored or are under way in `BYTES` bytes.
#[derive(Debug)]
pub struct Stored<const BYTES: usize> {
    out: Outbound<Region<BYTES>>,
    inbound: Inbound,
    regressed: bool,
    opened: bool,
    rotation: Option<(Epoch, Predecessor)>,
    /// The epoch that is to begin.
    wanted: Option<Epoch>,
    load: Option<u64>,
    inbox_stored: bool,
    /// Names the request that is out; counted up when it is answered.
    id: u64,
    asked: Asked,
}

/// What the request that is out is about.
#[derive(Debug, Default)]
struct Asked {
    inbox: bool,
    open: bool,
    rotation: bool,
}

/// The two kinds of requests. A device makes room before it asks for room: what frees comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Trims, drops and cursors, which succeed in a full store.
    Free,
    /// Everything that may need room.
    Fill,
}

impl<const BYTES: usize> Queue for Stored<BYTES> {}

impl<const BYTES: usize> Stored<BYTES> {
    /// The whole number whose low bits these are.
    const fn whole(&self, number: u32) -> u64 {
        widen(number, self.out.acked())
    }

    fn free(&mut self, held: bool) -> Option<StoreOp<'_>> {
        let id = self.id;
        if self.opened
            && self.rotation.is_none()
            && let Some(emission) = self.out.owed_emission(false)
        {
            self.out.emitted(id, emission);
            let queue = QUEUE_KEY;
            return Some(match emission {
                Emission::Reserve(through) => StoreOp::Reserve { queue, through },
                Emission::Trim(through) => StoreOp::Trim { queue, through },
                Emission::Drop(through, reason) => StoreOp::Drop { queue, through, reason },
            });
        }
        // A message counts as processed when something else is asked for: not while it is lent out.
        if !held && self.inbound.owes_cursor() {
            let through = self.inbound.emit_cursor(id);
            return Some(StoreOp::Cursor { peer: "", epoch: self.inbound.epoch(), through });
        }
        None
    }

    fn fill(&mut self, inbox: Epoch) -> Option<StoreOp<'_>> {
        if !self.inbox_stored && !core::mem::replace(&mut self.asked.inbox, true) {
            return Some(StoreOp::Inbox { epoch: inbox });
        }
        if !self.opened && !core::mem::replace(&mut self.asked.open, true) {
            self.rotation = None;
            return Some(StoreOp::Open { queue: QUEUE_KEY, epoch: self.out.epoch() });
        }
        if let Some((epoch, predecessor)) = self.rotation
            && !core::mem::replace(&mut self.asked.rotation, true)
        {
            return Some(StoreOp::Rotate { queue: QUEUE_KEY, epoch, predecessor });
        }
        let append = self.out.poll_append(self.id, true, BYTES)?;
        let (first, last, records) = (append.first, append.last, append.records);
        Some(StoreOp::Append { queue: QUEUE_KEY, first, last, records })
    }

    fn handle_stored(&mut self, step: Step, is_good: bool) {
        let id = self.id;
        self.id += 1;
        let asked = core::mem::take(&mut self.asked);
        if !is_good {
            self.out.handle_void();
            self.inbound.handle_void();
        } else if step == Step::Free {
            self.out.handle_trimmed(id);
            self.inbound.handle_committed(id);
        } else {
            self.out.handle_stored(id);
            self.inbox_stored |= asked.inbox;
            self.opened |= asked.open;
            if asked.rotation {
                self.rotation = None;
            }
        }
    }

    /// Begins the new epoch that is wanted, as soon as nothing of the queue is with the store. Says whether it has begun.
    fn rotate(&mut self) -> bool {
        let is_out = self.asked.open || self.rotation.is_some() || !self.out.is_settled();
        match self.wanted.take_if(|_| !is_out) {
            None => false,
            Some(epoch) => {
                self.rotation = Some((epoch, self.out.rotate(epoch)));
                true
            }
        }
    }

    fn handle_loaded(&mut self, after: u64, result: Result<Loaded, StoreFault>, bytes: &[u8]) {
        self.out.set_loading(false);
        let next = after + 1;
        match result {
            Ok(Loaded::Records { first, last, len }) if first == next => {
                // Without room they are asked for again when something was acknowledged.
                let _ = self.out.handle_loaded(first, last, bytes.get(..len).unwrap_or_default());
            }
            Ok(Loaded::Records { first, .. }) => self.out.handle_lost(next, first - 1, GapReason::Missing),
            Ok(Loaded::Corrupt { last, .. }) => self.out.handle_lost(next, last, GapReason::Corrupt),
            Ok(Loaded::Nothing) => self.out.handle_lost(next, self.out.stored() - 1, GapReason::Missing),
            // What found no room is still there.
            Ok(Loaded::TooSmall { .. }) | Err(_) => {}
        }
    }
}

/// What a record of a device says. What is no record of a device's counts as a number without a message.
fn item(record: &[u8]) -> Item<'_> {
    match record::decode(record) {
        Ok(Record::Message { header: Header { topic: Topic::Number(number), .. }, payload }) => {
            Item::Message { topic: number.wrapping_sub(1) as u16, payload, place: 0 }
        }
        _ => Item::Gap(u32::try_from(record::numbers_of(record)).unwrap_or(u32::MAX)),
    }
}

impl<const BYTES: usize> Work for Stored<BYTES> {
    // What it has of messages is not bytes alone.
    type Memory = ();

    fn new((): (), epoch: Epoch, limits: &Limits, planted: Planted) -> Self {
        let mut inbound = Inbound::new(limits, planted);
        inbound.set_on_line(true);
        Self {
            out: Outbound::new(Region::new(), SendMode::Stored, epoch),
            inbound,
            regressed: false,
            opened: false,
            rotation: None,
            wanted: None,
            load: None,
            inbox_stored: false,
            id: 1,
            asked: Asked::default(),
        }
    }

    fn push(&mut self, now: Instant, topic: u16, payload: &[u8]) -> Result<u64, SendError> {
        let header = Header::new(Mode::All, Topic::Number(u32::from(topic) + 1));
        let len = record::message_len(&header, payload.len());
        let write = |room: &mut [u8]| {
            record::encode_message(&header, payload, room);
        };
        self.out.push(now, len, false, write).map_err(|error| match error {
            PushError::Full => SendError::Full,
            PushError::TooLarge => SendError::TooLarge,
        })
    }

    fn drop_oldest(&mut self) -> bool {
        self.out.drop_oldest(GapReason::Dropped)
    }

    fn next(&self) -> u64 {
        self.out.next()
    }

    fn acked(&self) -> u64 {
        self.out.acked()
    }

    fn waits(&self) -> bool {
        self.out.acked() + 1 < self.out.sent()
    }

    fn peek(&mut self) -> Option<(u32, Item<'_>)> {
        if self.rotation.is_some() {
            return None;
        }
        match self.out.next_piece(u64::MAX, usize::MAX) {
            Next::Nothing => None,
            Next::Load { after } => {
                self.load = Some(after);
                None
            }
            Next::Gap { first, last, .. } => {
                Some((first as u32, Item::Gap(u32::try_from(last - first + 1).unwrap_or(u32::MAX))))
            }
            Next::Run { begin, bytes, .. } => {
                record::split_first(bytes).map(|(record, _)| (begin.number as u32, item(record)))
            }
        }
    }

    fn at(&self, number: u32, _: Option<u32>) -> Option<Item<'_>> {
        self.out.record_at(self.whole(number)).map(item)
    }

    fn gone_reason(&self, number: u32) -> GapReason {
        let number = self.whole(number);
        match self.out.record_at(number).map(record::decode) {
            Some(Ok(Record::Gap { reason, .. })) => reason,
            Some(Err(_)) => GapReason::Corrupt,
            Some(Ok(Record::Message { .. })) | None => self.out.gone_reason(number),
        }
    }

    fn is_doubtful(&self, number: u32) -> bool {
        self.out.is_doubtful(self.whole(number))
    }

    fn begin_pieces(&mut self) {
        self.out.begin_pieces();
    }

    fn advance(&mut self, now: Instant, last: u32) {
        self.out.advance(now, Cursor { number: self.whole(last) + 1, offset: 0 });
    }

    fn handle_ack(&mut self, now: Instant, acked: u32) -> Result<(), Violation> {
        let acked = self.whole(acked);
        self.out.handle_marks(now, acked, acked)
    }

    fn handle_link_down(&mut self) {
        self.out.handle_link_down();
    }

    fn stream(&self) -> StreamFields {
        self.out.fields(self.inbound.known())
    }

    fn assign(&mut self, epoch: Epoch) {
        self.out.assign(epoch);
    }

    fn resume(&mut self, now: Instant, theirs: &StreamFields) -> (Resumed, u64) {
        let resumed = self.out.resume(now, theirs.known);
        if resumed == Resumed::Regressed {
            return (resumed, 0);
        }
        let lost = match self.inbound.resume(theirs) {
            Resumption::Lost(count) => count,
            Resumption::Continued | Resumption::Fresh => 0,
        };
        (resumed, lost)
    }

    fn regress(&mut self, rng: &mut Rng) -> bool {
        self.wanted = Some(Epoch(rng.next_nonzero()));
        self.rotate()
    }

    fn handle_arrival(&mut self, first: u64, last: u64, bytes: usize) -> Result<Arrival, Violation> {
        self.inbound.handle_arrival(first, last, bytes)
    }

    fn handle_dropped(&mut self) {
        self.inbound.handle_dropped();
    }

    fn in_doubt(&self, number: u64) -> bool {
        self.inbound.in_doubt(number)
    }

    fn taken(&self, _: bool) -> u32 {
        self.inbound.acked() as u32
    }

    fn window(&self, _: bool) -> u8 {
        self.inbound.frames_window(FRAMES_MAX)
    }

    fn owes_marks(&self, _: bool) -> bool {
        self.inbound.owes_marks()
    }

    fn set_told(&mut self, _: bool) {
        self.inbound.set_told();
    }
}

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> StoredEndpoint<'_, QUEUE, FRAME, MESSAGE> {
    /// Takes one thing that the store remembers. Before the first input only.
    pub fn restore(&mut self, item: &Recovered<'_>) {
        let kept = &mut self.queue;
        match *item {
            Recovered::Node { inbox, regressed, .. } => {
                self.inbox = inbox;
                kept.inbox_stored = true;
                kept.regressed = regressed;
            }
            Recovered::Queue(queue) => {
                kept.out = Outbound::restore(Region::new(), SendMode::Stored, &queue.remembered(), false);
                kept.opened = true;
                self.queued = TopicSet::first(self.topics.len());
                if kept.regressed {
                    self.notice.regressed = kept.regress(&mut self.rng);
                }
            }
            Recovered::Cursor { epoch, through, .. } => kept.inbound.restore(epoch, through, u64::MAX),
            Recovered::Topic { .. } | Recovered::Subscription { .. } => {}
        }
    }

    /// Takes back messages that were queued and are not stored. Returns how many.
    pub fn withdraw(&mut self) -> u64 {
        self.queue.out.withdraw()
    }

    /// The next request of a step. Execute each as a group of its own, commit, and answer with
    /// [`handle_stored`](Self::handle_stored) before asking for another.
    pub fn poll_store(&mut self, step: Step) -> Option<StoreOp<'_>> {
        match step {
            Step::Free => self.queue.free(self.held.is_some()),
            Step::Fill => self.queue.fill(self.inbox),
        }
    }

    /// A request of a step is committed, or failed. What failed left no trace, and is asked for again.
    pub fn handle_stored(&mut self, now: Instant, step: Step, result: Result<(), StoreFault>) {
        self.tick(now);
        if let Err(fault) = result
            && fault != StoreFault::Full
        {
            debug!("the store failed: {:?}", fault);
        }
        self.queue.handle_stored(step, result.is_ok());
        self.notice.regressed |= self.queue.rotate();
    }

    /// Records above this number are needed from the store. Answer with [`handle_loaded`](Self::handle_loaded).
    pub fn poll_load(&mut self) -> Option<(effect::Queue<'static>, u64)> {
        let after = self.queue.load.take()?;
        self.queue.out.set_loading(true);
        Some((QUEUE_KEY, after))
    }

    /// Records were read, or not. `bytes` begins with what [`Loaded::Records`] speaks of.
    pub fn handle_loaded(
        &mut self,
        now: Instant,
        after: u64,
        result: Result<Loaded, StoreFault>,
        bytes: &[u8],
    ) {
        self.tick(now);
        if let Err(fault) = result {
            debug!("the store could not be read: {:?}", fault);
        }
        self.queue.handle_loaded(after, result, bytes);
    }
}
