//! A press on an LM3S6965: the board, and what its programs have in common. What the device does is in the package `press`.

#![no_std]

pub mod board;
pub mod flash;
pub mod uart;
