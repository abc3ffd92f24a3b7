//! The steps of a device's main loop, in RAM or with a store that answers at once: [`turn`] and [`send`], and with the feature
//! `embedded-io` a port that does the reading and writing, too.

#[cfg(feature = "embedded-io")]
mod port;
mod turn;

#[cfg(feature = "embedded-io")]
pub use port::{Port, PortError, Progress};
pub use turn::{Device, Overflow, WithStore, send, turn};
