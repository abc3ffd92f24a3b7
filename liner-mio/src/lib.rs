//! The shell of a host.
