//! Reads the source tree and fails on what the compiler cannot see: imports against the order of the rooms, files and
//! functions that have grown too long, links that lead nowhere, words and hosts that do not belong, dependencies and
//! licences that nobody decided on, rows that name no test. Each rule is also shown a bad sample, so that none of them can pass by being blind.

mod links;
mod packages;
mod rooms;
mod rows;
mod sizes;
mod tree;
mod words;

/// Fails with every complaint at once, so that one run shows all there is to mend.
fn no_complaints(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaint(s):\n{}", complaints.len(), complaints.join("\n"));
}
