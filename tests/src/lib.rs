//! What the tests of liner share: the conformance suite of stores and the world in virtual time.

pub mod conformance;
pub mod world;
