//! The liner command.

mod args;
mod bench;
mod clock;
mod completions;
mod config_file;
mod device;
mod drain;
mod duration;
mod event;
mod failure;
mod folder;
mod forget;
mod gaps;
mod gateway;
mod line;
mod line_status;
mod live;
mod log;
mod look;
mod name;
mod node;
mod options;
mod out;
mod publish;
mod reading;
mod sub;
mod upkeep;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Command;
use failure::Failure;
use liner::store_url;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out::say(&failure);
            failure.code()
        }
    }
}

fn run() -> Result<(), Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let options = options::read(&words)?;
    if let Some(filter) = options.command.log() {
        log::start(filter);
    }
    match options.command {
        Command::Gateway(args) => gateway::run(&args, &options.settings),
        Command::Device(args) => device::run(&args),
        Command::Sub(args) => sub::run(&args),
        Command::Pub(args) => publish::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Forget(args) => forget::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Pending(args) => look::pending(&args),
        Command::Topics(args) => look::topics(&args),
        Command::Dlq(args) => look::dlq(&args),
        Command::Store(args) => upkeep::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
