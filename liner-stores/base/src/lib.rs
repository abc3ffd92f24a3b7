//! What liner's stores on hosts have in common: how their queues are named, numbered and checked.

pub mod broker;
pub mod byhand;
pub mod check;
pub mod checksums;
pub mod inbox;
pub mod look;
pub mod names;
pub mod numbers;
