//! The built command, from outside: its words, its exit codes, and the whole path with and without kills.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a helper fails with its test"
)]

mod away;
mod bench;
mod board;
mod cli;
mod completions;
mod config;
mod demo;
mod device;
mod drain;
mod environment;
mod exactly_once;
mod examples;
#[cfg(feature = "firmware")]
mod firmware;
mod forget;
mod hostile;
mod kills;
mod line;
mod log;
mod look;
mod pages;
mod path;
mod process;
mod publish;
mod serial;
mod servers;
mod signals;
mod store;
mod stores_page;
mod strangers;
mod unread;
mod wal;
