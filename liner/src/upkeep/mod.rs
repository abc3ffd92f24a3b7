//! `liner store`: what is done with stores as a whole.

mod backup;
mod check;
mod copy;
mod facts;
mod transfer;

use crate::args::{StoreAction, StoreArgs};
use crate::failure::Failure;

pub(crate) fn run(args: &StoreArgs) -> Result<(), Failure> {
    match &args.action {
        StoreAction::Copy(args) => copy::run(args),
        StoreAction::Check(args) => check::run(args),
        StoreAction::Backup(args) => backup::run(args),
    }
}

/// A number with the word for what is counted.
fn counted(count: u64, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}
