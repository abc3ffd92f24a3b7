//! What the tests of liner share: the conformance suite of stores, the relay of lines that damage and lose, and the world in
//! virtual time.

pub mod conformance;
pub mod relay;
pub mod world;
