//! Whole nodes on each store: processes that are killed, servers that are killed, and what many processes do with one store.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a helper fails with its test, a test that waits in vain has to end, and kills come at random times"
)]

mod killed;
mod party;
mod server_killed;
