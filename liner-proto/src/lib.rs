//! The core of liner: messages between programs that have no broker between them.
//!
//! It performs no I/O. It never reads a clock, opens a socket, calls a database, starts a thread or, without the
//! feature `alloc`, allocates. Time is an argument, randomness is seeded through the configuration, storage is an effect
//! that goes out and a completion that comes in. Every room knows only the rooms above it in this list:
//!
//! * [`time`], [`id`], [`config`]: what everything else speaks of;
//! * [`memory`], [`timer`]: where queued bytes live, and when something is due;
//! * [`frame`]: bytes of a link into frames and back;
//! * [`seal`]: where a frame becomes trustworthy;
//! * [`wire`]: the formats, normative in `docs/PROTOCOL.md`;
//! * [`mod@line`]: frames sent again until they have arrived, on links that lose and damage them;
//! * [`session`] (one link's life) and [`delivery`] (numbering, window, acknowledgements, duplicates): neither knows the other;
//! * [`effect`]: what is asked of a store;
//! * [`endpoint`]: a session and a delivery for one peer;
//! * [`router`]: endpoints composed into a node, with topics, a directory, fan-out and custody (feature `alloc`);
//! * [`store`]: the contract of stores, and the ones that need no disk; [`pump`]: the steps of a device's main loop.
//!
//! With the features `log` and `defmt` it tells these loggers why a session begins and ends, what is lost, and what is sent again:
//! never a payload, and names of peers with their control characters escaped. With `defmt` the types that a device is handed
//! implement `defmt::Format`. Without them nothing of this is in the program.

#![no_std]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc, clippy::alloc_instead_of_core)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod config;
pub mod delivery;
pub mod effect;
pub mod endpoint;
pub mod frame;
pub mod id;
pub mod line;
mod logging;
pub mod memory;
pub mod planted;
pub mod pump;
pub mod rng;
#[cfg(feature = "alloc")]
pub mod router;
pub mod seal;
pub mod session;
pub mod store;
pub mod time;
pub mod timer;
pub mod wire;

/// The guide's examples, so that they are compiled.
#[cfg(all(doctest, feature = "embedded-io"))]
#[doc = include_str!("../../docs/devices.md")]
struct Guide;
