//! What the tests of liner share: the conformance suite of stores, the relay of lines that damage and lose, private
//! servers, pages of the documentation, and the world in virtual time.

pub mod conformance;
pub mod page;
pub mod relay;
pub mod servers;
pub mod world;
