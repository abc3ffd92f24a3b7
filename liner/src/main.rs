//! The liner command.

mod args;
mod clock;
mod device;
mod duration;
mod event;
mod failure;
mod gaps;
mod gateway;
mod line;
mod line_status;
mod name;
mod out;
mod publish;
mod reading;
mod store;
mod store_url;
mod sub;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Gateway(args) => gateway::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Sub(args) => sub::run(&args),
        Command::Pub(args) => publish::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out::tell(&failure);
            failure.code()
        }
    }
}
