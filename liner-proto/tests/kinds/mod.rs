//! Devices that keep their messages in one way or another, for tests that hold for all of them.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::ops::{Deref, DerefMut};

use liner_proto::effect::StoreFault;
use liner_proto::endpoint::{
    DeviceConfig, Endpoint, Event, Queue, Ram, SendError, StoredEndpoint, TopicIndex,
};
use liner_proto::line::LineStats;
use liner_proto::pump::{self, Overflow, WithStore};
use liner_proto::store::{RamStore, Store};
use liner_proto::time::Instant;
use liner_proto::timer::Deadline;

/// A device, wherever it keeps its messages.
pub(crate) trait Kind: Deref<Target = dyn Line> + DerefMut {
    /// One that knows nothing.
    fn new(config: DeviceConfig<'static>, now: Instant) -> Self;

    /// Takes a message.
    fn take(
        &mut self,
        now: Instant,
        message: (TopicIndex, &[u8]),
        overflow: Overflow,
    ) -> Result<u64, SendError>;

    /// A turn of its main loop. Returns what is to be sent.
    fn turn<'s>(
        &mut self,
        now: Instant,
        received: &[u8],
        scratch: &'s mut [u8],
        events: impl FnMut(Event<'_>),
    ) -> &'s [u8];

    /// Does what it owes its store, if it has one.
    fn serve(&mut self, now: Instant);

    /// A reboot with what its store remembers, if it has one.
    fn restart(&mut self, config: DeviceConfig<'static>, now: Instant);
}

/// What endpoints of every kind have in common.
pub(crate) trait Line {
    fn handle_link_up(&mut self, now: Instant);
    fn handle_link_down(&mut self, now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize;
    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> usize;
    fn poll_event(&mut self) -> Option<Event<'_>>;
    fn poll_timeout(&self) -> Option<Deadline>;
    fn drop_oldest(&mut self) -> bool;
    fn close(&mut self, now: Instant);
    fn has_link(&self) -> bool;
    fn wants_link(&self, now: Instant) -> bool;
    fn is_up(&self) -> bool;
    fn queued(&self) -> u64;
    fn acked(&self) -> u64;
    fn line_stats(&self) -> LineStats;
}

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, Q: Queue> Line
    for Endpoint<'static, QUEUE, FRAME, MESSAGE, Q>
{
    fn handle_link_up(&mut self, now: Instant) {
        self.handle_link_up(now);
    }

    fn handle_link_down(&mut self, now: Instant) {
        self.handle_link_down(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize {
        self.handle_bytes(now, bytes)
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> usize {
        self.poll_transmit(now, out)
    }

    fn poll_event(&mut self) -> Option<Event<'_>> {
        self.poll_event()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.poll_timeout()
    }

    fn drop_oldest(&mut self) -> bool {
        self.drop_oldest()
    }

    fn close(&mut self, now: Instant) {
        self.close(now);
    }

    fn has_link(&self) -> bool {
        self.has_link()
    }

    fn wants_link(&self, now: Instant) -> bool {
        self.wants_link(now)
    }

    fn is_up(&self) -> bool {
        self.is_up()
    }

    fn queued(&self) -> u64 {
        self.queued()
    }

    fn acked(&self) -> u64 {
        self.acked()
    }

    fn line_stats(&self) -> LineStats {
        self.line_stats()
    }
}

/// Messages are in `ROOM` bytes of the endpoint's own. With `ASSIGNED` the gateway makes the epochs.
pub(crate) struct InRam<
    const ROOM: usize,
    const FRAME: usize,
    const MESSAGE: usize = 0,
    const ASSIGNED: bool = false,
>(pub(crate) Box<Endpoint<'static, ROOM, FRAME, MESSAGE, Ram<ROOM, ASSIGNED>>>);

/// Messages are in a store of `ROOM` bytes, and as many as fit in `QUEUE` bytes of the endpoint's.
pub(crate) struct InStore<const QUEUE: usize, const FRAME: usize, const ROOM: usize, const MESSAGE: usize = 0>
{
    pub(crate) endpoint: Box<StoredEndpoint<'static, QUEUE, FRAME, MESSAGE>>,
    pub(crate) store: Box<RamStore<ROOM>>,
}

impl<const ROOM: usize, const FRAME: usize, const MESSAGE: usize, const ASSIGNED: bool> Deref
    for InRam<ROOM, FRAME, MESSAGE, ASSIGNED>
{
    type Target = dyn Line;

    fn deref(&self) -> &(dyn Line + 'static) {
        &*self.0
    }
}

impl<const ROOM: usize, const FRAME: usize, const MESSAGE: usize, const ASSIGNED: bool> DerefMut
    for InRam<ROOM, FRAME, MESSAGE, ASSIGNED>
{
    fn deref_mut(&mut self) -> &mut (dyn Line + 'static) {
        &mut *self.0
    }
}

impl<const ROOM: usize, const FRAME: usize, const MESSAGE: usize, const ASSIGNED: bool> Kind
    for InRam<ROOM, FRAME, MESSAGE, ASSIGNED>
{
    fn new(config: DeviceConfig<'static>, now: Instant) -> Self {
        Self(Box::new(Endpoint::new(config, now)))
    }

    fn take(
        &mut self,
        now: Instant,
        message: (TopicIndex, &[u8]),
        overflow: Overflow,
    ) -> Result<u64, SendError> {
        pump::send(&mut *self.0, now, message, overflow)
    }

    fn turn<'s>(
        &mut self,
        now: Instant,
        received: &[u8],
        scratch: &'s mut [u8],
        events: impl FnMut(Event<'_>),
    ) -> &'s [u8] {
        pump::turn(&mut *self.0, now, received, scratch, events).0
    }

    fn serve(&mut self, _: Instant) {}

    fn restart(&mut self, config: DeviceConfig<'static>, now: Instant) {
        *self = Self::new(config, now);
    }
}

impl<const QUEUE: usize, const FRAME: usize, const ROOM: usize, const MESSAGE: usize> Deref
    for InStore<QUEUE, FRAME, ROOM, MESSAGE>
{
    type Target = dyn Line;

    fn deref(&self) -> &(dyn Line + 'static) {
        &*self.endpoint
    }
}

impl<const QUEUE: usize, const FRAME: usize, const ROOM: usize, const MESSAGE: usize> DerefMut
    for InStore<QUEUE, FRAME, ROOM, MESSAGE>
{
    fn deref_mut(&mut self) -> &mut (dyn Line + 'static) {
        &mut *self.endpoint
    }
}

impl<const QUEUE: usize, const FRAME: usize, const ROOM: usize, const MESSAGE: usize>
    InStore<QUEUE, FRAME, ROOM, MESSAGE>
{
    /// Both together.
    pub(crate) fn device(
        &mut self,
    ) -> WithStore<'_, StoredEndpoint<'static, QUEUE, FRAME, MESSAGE>, RamStore<ROOM>> {
        WithStore { endpoint: &mut self.endpoint, store: &mut self.store }
    }
}

impl<const QUEUE: usize, const FRAME: usize, const ROOM: usize, const MESSAGE: usize> Kind
    for InStore<QUEUE, FRAME, ROOM, MESSAGE>
{
    fn new(config: DeviceConfig<'static>, now: Instant) -> Self {
        Self { endpoint: Box::new(StoredEndpoint::new(config, now)), store: Box::new(RamStore::new()) }
    }

    fn take(
        &mut self,
        now: Instant,
        message: (TopicIndex, &[u8]),
        overflow: Overflow,
    ) -> Result<u64, SendError> {
        pump::send(&mut self.device(), now, message, overflow)
    }

    fn turn<'s>(
        &mut self,
        now: Instant,
        received: &[u8],
        scratch: &'s mut [u8],
        events: impl FnMut(Event<'_>),
    ) -> &'s [u8] {
        let (bytes, served) = pump::turn(&mut self.device(), now, received, scratch, events);
        assert_eq!(served, Ok::<(), StoreFault>(()), "it is in memory");
        bytes
    }

    fn serve(&mut self, now: Instant) {
        assert_eq!(self.device().serve(now, &mut [0; 4096]), Ok(()), "it is in memory");
    }

    fn restart(&mut self, config: DeviceConfig<'static>, now: Instant) {
        *self.endpoint = StoredEndpoint::new(config, now);
        let recovered = self.store.recover(&mut |item| self.endpoint.restore(&item));
        assert_eq!(recovered, Ok(()), "it is in memory");
    }
}

/// Runs tests for devices of both kinds.
#[macro_export]
macro_rules! both {
    ($ram:ty, $store:ty: $($name:ident)*) => {
        mod in_ram {
            $(#[test] fn $name() { super::$name::<$ram>(); })*
        }
        mod in_store {
            $(#[test] fn $name() { super::$name::<$store>(); })*
        }
    };
}
