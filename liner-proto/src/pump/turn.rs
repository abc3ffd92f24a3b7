//! What a device does with what it has received, with its store and with a message of its own.

use core::borrow::BorrowMut;
use core::fmt::Debug;

use crate::effect::{Loaded, StoreFault};
use crate::endpoint::{Endpoint, Event, Queue, Ram, SendError, Step, StoredEndpoint, TopicIndex};
use crate::store::Store;
use crate::time::Instant;

/// A device that keeps its messages: an [`Endpoint`], or a [`StoredEndpoint`] [`WithStore`].
pub trait Device: Keeps {}

/// What the steps need of a [`Device`]. Its name is not known outside.
pub trait Keeps {
    /// The bytes that [`speak`](Self::speak) has to have: for a frame, and for what is read back from the store.
    const OUT_MIN: usize;

    /// Takes what was received, and hands every event to `events`. Begins the handshake when it is time.
    fn hear(&mut self, now: Instant, received: &[u8], events: &mut impl FnMut(Event<'_>));

    /// Writes what is to be sent to the front of `scratch`, and serves the store. Returns its bytes, and what the store said.
    fn speak(
        &mut self,
        now: Instant,
        scratch: &mut [u8],
        events: &mut impl FnMut(Event<'_>),
    ) -> (usize, Result<(), StoreFault>);

    /// Does everything that it owes its store, and reads nothing back.
    fn settle(&mut self, now: Instant) -> Result<(), StoreFault>;

    /// Takes a message.
    fn send(
        &mut self,
        now: Instant,
        topic: TopicIndex,
        payload: &[u8],
        overflow: Overflow,
    ) -> Result<u64, SendError>;
}

/// A device's endpoint with its store, for the time of a call.
#[derive(Debug)]
pub struct WithStore<'d, E, S> {
    /// The endpoint.
    pub endpoint: &'d mut E,
    /// Its store.
    pub store: &'d mut S,
}

/// What to do with a new message when the store is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Overflow {
    /// Refuse it: the caller keeps it.
    #[default]
    Refuse,
    /// Drop the oldest queued message, count it, and tell the gateway of the gap.
    DropOldest,
}

/// One turn of the main loop of a device whose line is always there, such as a UART: takes what was received, hands every event to
/// `events`, and does what the endpoint owes its store, if it has one. Begins the handshake, and begins it again after a session has
/// ended, or was refused, when [`Endpoint::wants_link`] says so.
///
/// Returns the bytes that are to be sent, from the front of `scratch`, and what the store said: after a fault the next turn asks it
/// again, and all the rest was done. `scratch` holds at least [`Endpoint::TRANSMIT_MIN`], and with a store also the largest
/// record with its length, two bytes or three from 16 KiB on. Call it when bytes have arrived, after every [`send`], when [`Endpoint::poll_timeout`] is due,
/// and again as soon as the line has taken what a turn returned.
pub fn turn<'s>(
    device: &mut impl Device,
    now: Instant,
    received: &[u8],
    scratch: &'s mut [u8],
    mut events: impl FnMut(Event<'_>),
) -> (&'s [u8], Result<(), StoreFault>) {
    device.hear(now, received, &mut events);
    let (len, served) = device.speak(now, scratch, &mut events);
    (scratch.get(..len).unwrap_or_default(), served)
}

/// Queues a message, and stores it if there is a store. When this returns `Ok`, the device has it: in its memory, or in the
/// store, at the store's class.
///
/// # Errors
/// If it does not have it: nothing of it remains, and the caller still has it.
pub fn send(
    device: &mut impl Device,
    now: Instant,
    (topic, payload): (TopicIndex, &[u8]),
    overflow: Overflow,
) -> Result<u64, SendError> {
    device.send(now, topic, payload, overflow)
}

fn hear<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, Q: Queue>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE, Q>,
    now: Instant,
    mut received: &[u8],
    events: &mut impl FnMut(Event<'_>),
) {
    endpoint.handle_turn(now);
    loop {
        let taken = endpoint.handle_bytes(now, received);
        received = received.get(taken..).unwrap_or_default();
        tell(endpoint, events);
        if received.is_empty() {
            break;
        }
    }
}

fn tell<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, Q: Queue>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE, Q>,
    events: &mut impl FnMut(Event<'_>),
) {
    while let Some(event) = endpoint.poll_event() {
        events(event);
    }
}

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, const ASSIGNED: bool, M> Device
    for Endpoint<'_, QUEUE, FRAME, MESSAGE, Ram<QUEUE, ASSIGNED, M>>
where
    M: BorrowMut<[u8; QUEUE]> + Debug,
{
}

impl<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize, const ASSIGNED: bool, M> Keeps
    for Endpoint<'_, QUEUE, FRAME, MESSAGE, Ram<QUEUE, ASSIGNED, M>>
where
    M: BorrowMut<[u8; QUEUE]> + Debug,
{
    const OUT_MIN: usize = Self::TRANSMIT_MIN;

    fn hear(&mut self, now: Instant, received: &[u8], events: &mut impl FnMut(Event<'_>)) {
        hear(self, now, received, events);
    }

    fn speak(
        &mut self,
        now: Instant,
        scratch: &mut [u8],
        events: &mut impl FnMut(Event<'_>),
    ) -> (usize, Result<(), StoreFault>) {
        let len = self.poll_transmit(now, scratch);
        // What was found out on the way does not wait for the next turn, which may be far.
        tell(self, events);
        (len, Ok(()))
    }

    fn settle(&mut self, _: Instant) -> Result<(), StoreFault> {
        Ok(())
    }

    fn send(
        &mut self,
        now: Instant,
        topic: TopicIndex,
        payload: &[u8],
        overflow: Overflow,
    ) -> Result<u64, SendError> {
        loop {
            match self.send(now, topic, payload) {
                Err(SendError::Full) if overflow == Overflow::DropOldest && self.drop_oldest() => {}
                taken => return taken,
            }
        }
    }
}

impl<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> Device
    for WithStore<'_, StoredEndpoint<'_, QUEUE, FRAME, MESSAGE>, S>
{
}

impl<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize> Keeps
    for WithStore<'_, StoredEndpoint<'_, QUEUE, FRAME, MESSAGE>, S>
{
    const OUT_MIN: usize = {
        let frame = StoredEndpoint::<'_, QUEUE, FRAME, MESSAGE>::TRANSMIT_MIN;
        if MESSAGE > FRAME && MESSAGE + 3 > frame { MESSAGE + 3 } else { frame }
    };

    fn hear(&mut self, now: Instant, received: &[u8], events: &mut impl FnMut(Event<'_>)) {
        hear(self.endpoint, now, received, events);
    }

    fn speak(
        &mut self,
        now: Instant,
        scratch: &mut [u8],
        events: &mut impl FnMut(Event<'_>),
    ) -> (usize, Result<(), StoreFault>) {
        let mut served = self.serve(now, scratch);
        let mut len = self.endpoint.poll_transmit(now, scratch);
        if len == 0 && served.is_ok() {
            // What is above the queue waits in the store until a transmit that finds nothing asks for it.
            served = self.serve(now, scratch);
            len = self.endpoint.poll_transmit(now, scratch);
        }
        tell(self.endpoint, events);
        (len, served)
    }

    fn settle(&mut self, now: Instant) -> Result<(), StoreFault> {
        self.step(now, Step::Free)?;
        self.step(now, Step::Fill)
    }

    fn send(
        &mut self,
        now: Instant,
        topic: TopicIndex,
        payload: &[u8],
        overflow: Overflow,
    ) -> Result<u64, SendError> {
        self.step(now, Step::Free).map_err(|_| SendError::Store)?;
        let number = self.endpoint.send(now, topic, payload)?;
        loop {
            match self.step(now, Step::Fill) {
                Ok(()) => return Ok(number),
                Err(StoreFault::Full) if overflow == Overflow::DropOldest && self.endpoint.drop_oldest() => {
                    if self.step(now, Step::Free).is_err() {
                        self.endpoint.withdraw();
                        return Err(SendError::Store);
                    }
                }
                Err(fault) => {
                    self.endpoint.withdraw();
                    return Err(if fault == StoreFault::Full { SendError::Full } else { SendError::Store });
                }
            }
        }
    }
}

impl<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>
    WithStore<'_, StoredEndpoint<'_, QUEUE, FRAME, MESSAGE>, S>
{
    /// Does everything that the endpoint owes its store, and reads back what it needs. `scratch` holds at least the largest
    /// record with its length, two bytes or three from 16 KiB on.
    ///
    /// # Errors
    /// What the store said, or [`StoreFault::Refused`] if `scratch` is too small; the endpoint asks again.
    pub fn serve(&mut self, now: Instant, scratch: &mut [u8]) -> Result<(), StoreFault> {
        self.settle(now)?;
        if let Some((queue, after)) = self.endpoint.poll_load() {
            // More than the queue has room for would never be taken.
            let room = scratch.len().min(QUEUE);
            let loaded = self.store.load(queue, after, scratch.get_mut(..room).unwrap_or_default());
            self.endpoint.handle_loaded(now, after, loaded, scratch);
            if let Loaded::TooSmall { .. } = loaded? {
                return Err(StoreFault::Refused);
            }
        }
        Ok(())
    }

    fn step(&mut self, now: Instant, step: Step) -> Result<(), StoreFault> {
        while let Some(op) = self.endpoint.poll_store(step) {
            let result = self.store.apply(&[op]).and_then(|()| self.store.commit());
            self.endpoint.handle_stored(now, step, result);
            result?;
        }
        Ok(())
    }
}
