//! The built command, from outside: its words, its exit codes, and the whole path with and without kills.

mod cli;
mod demo;
mod kills;
mod path;
mod process;
mod wal;
