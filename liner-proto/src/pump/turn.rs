//! What a device does with what it has received, with its store and with a message of its own.

use crate::effect::StoreFault;
use crate::endpoint::{Endpoint, Event, SendError, Step, TopicIndex};
use crate::store::Store;
use crate::time::Instant;

/// What to do with a new message when the store is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Refuse it: the caller keeps it.
    #[default]
    Refuse,
    /// Drop the oldest queued message, count it, and tell the gateway of the gap.
    DropOldest,
}

/// One turn of the main loop of a device whose line is always there, such as a UART: takes what was received, hands every event to
/// `events`, and does what the endpoint owes its store. Begins the handshake, and begins it again after a session has ended, or
/// was refused, when [`Endpoint::wants_link`] says so.
///
/// Returns the bytes that are to be sent, from the front of `scratch`, and what the store said: after a fault the next turn asks it
/// again, and all the rest was done. `scratch` holds at least the largest message with two bytes more, and
/// [`Endpoint::TRANSMIT_MIN`]. Call it when bytes have arrived, after every [`send`], when [`Endpoint::poll_timeout`] is due, and again
/// as soon as the line has taken what a turn returned.
pub fn turn<'s, S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
    received: &[u8],
    scratch: &'s mut [u8],
    mut events: impl FnMut(Event<'_>),
) -> (&'s [u8], Result<(), StoreFault>) {
    hear(endpoint, now, received, &mut events);
    let (len, served) = speak(endpoint, store, now, scratch, &mut events);
    (scratch.get(..len).unwrap_or_default(), served)
}

/// Takes what was received, and hands every event to `events`. Begins the handshake when it is time.
pub(super) fn hear<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    now: Instant,
    mut received: &[u8],
    events: &mut impl FnMut(Event<'_>),
) {
    if endpoint.wants_link(now) {
        endpoint.handle_link_up(now);
    }
    endpoint.handle_timeout(now);
    loop {
        let taken = endpoint.handle_bytes(now, received);
        received = received.get(taken..).unwrap_or_default();
        tell(endpoint, events);
        if received.is_empty() {
            break;
        }
    }
}

/// Serves the store, and writes what is to be sent to the front of `scratch`. Returns its bytes, and what the store said.
pub(super) fn speak<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
    scratch: &mut [u8],
    events: &mut impl FnMut(Event<'_>),
) -> (usize, Result<(), StoreFault>) {
    let mut served = serve(endpoint, store, now, scratch);
    let mut len = endpoint.poll_transmit(now, scratch);
    if len == 0 && served.is_ok() {
        // What is above the queue waits in the store until a transmit that finds nothing asks for it.
        served = serve(endpoint, store, now, scratch);
        len = endpoint.poll_transmit(now, scratch);
    }
    // What was found out on the way does not wait for the next turn, which may be far.
    tell(endpoint, events);
    (len, served)
}

fn tell<const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    events: &mut impl FnMut(Event<'_>),
) {
    while let Some(event) = endpoint.poll_event() {
        events(event);
    }
}

/// Queues a message and stores it. When this returns `Ok`, the message is in the store, at the store's class.
///
/// # Errors
/// If it is not in the store: nothing of it remains, and the caller still has it.
pub fn send<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
    (topic, payload): (TopicIndex, &[u8]),
    overflow: Overflow,
) -> Result<u64, SendError> {
    free(endpoint, store, now).map_err(|_| SendError::Store)?;
    let number = endpoint.send(now, topic, payload)?;
    loop {
        match fill(endpoint, store, now) {
            Ok(()) => return Ok(number),
            Err(StoreFault::Full) if overflow == Overflow::DropOldest && endpoint.drop_oldest() => {
                if free(endpoint, store, now).is_err() {
                    endpoint.withdraw();
                    return Err(SendError::Store);
                }
            }
            Err(fault) => {
                endpoint.withdraw();
                return Err(if fault == StoreFault::Full { SendError::Full } else { SendError::Store });
            }
        }
    }
}

/// Does everything that the endpoint owes its store, and reads back what it needs. `scratch` holds at least the largest
/// message with two bytes more.
///
/// # Errors
/// What the store said; the endpoint asks again.
pub fn serve<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
    scratch: &mut [u8],
) -> Result<(), StoreFault> {
    settle(endpoint, store, now)?;
    if let Some((queue, after)) = endpoint.poll_load() {
        // More than the queue has room for would never be taken.
        let room = scratch.len().min(QUEUE);
        let loaded = store.load(queue, after, scratch.get_mut(..room).unwrap_or_default());
        endpoint.handle_loaded(now, after, loaded, scratch);
        loaded?;
    }
    Ok(())
}

/// Does everything that the endpoint owes its store, and reads nothing back.
pub(super) fn settle<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
) -> Result<(), StoreFault> {
    free(endpoint, store, now)?;
    fill(endpoint, store, now)
}

fn free<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
) -> Result<(), StoreFault> {
    step(endpoint, store, now, Step::Free)
}

fn fill<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
) -> Result<(), StoreFault> {
    step(endpoint, store, now, Step::Fill)
}

fn step<S: Store, const QUEUE: usize, const FRAME: usize, const MESSAGE: usize>(
    endpoint: &mut Endpoint<'_, QUEUE, FRAME, MESSAGE>,
    store: &mut S,
    now: Instant,
    step: Step,
) -> Result<(), StoreFault> {
    while let Some(op) = endpoint.poll_store(step) {
        let result = store.apply(&[op]).and_then(|()| store.commit());
        endpoint.handle_stored(now, step, result);
        result?;
    }
    Ok(())
}
