//! The liner command.

fn main() {}
