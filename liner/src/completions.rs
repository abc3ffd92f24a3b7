//! `liner completions`: what completes the command's words in a shell.

use crate::args::CompletionsArgs;
use crate::failure::Failure;
use crate::options::command;
use crate::out::{Out, failed};

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // The generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "liner", &mut script);
    let mut out = Out::new(false);
    out.raw(&[script.trim_ascii_end()]).and_then(|()| out.flush()).map_err(|error| failed(&error))
}
