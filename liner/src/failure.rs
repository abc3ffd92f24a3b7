//! How the command ends when it cannot do what it was asked, and with which exit code.

use std::fmt;
use std::process::ExitCode;

/// Why the command ends. The text is one sentence that says what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work itself failed: a store, standard input, what is printed.
    Work(String),
    /// What was asked for makes no sense.
    Usage(String),
    /// A name or an address is taken.
    InUse(String),
    /// A signal came before all that was asked for was done.
    Unfinished(String),
    /// Nobody answered, or acknowledged, in time.
    Unreached(String),
}

/// What the exit codes mean, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done, or ended by SIGINT or SIGTERM where no end was asked for
  1  the work failed: the store, standard input, or the output of `sub`, `pub` and `--demo`
  2  the command line, the environment or the configuration file makes no sense
  3  the name or an address is in use by another program
  4  ended by SIGINT or SIGTERM before all was done
  5  `pub`, `drain`: not acknowledged within --wait
  130, 143  ended at once by SIGINT or SIGTERM: by a second one, or during the start";

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Work(_) => 1,
            Self::Usage(_) => 2,
            Self::InUse(_) => 3,
            Self::Unfinished(_) => 4,
            Self::Unreached(_) => 5,
        })
    }

    /// What the standard library says went wrong, with what was being done.
    pub(crate) fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::Work(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(text)
            | Self::Usage(text)
            | Self::InUse(text)
            | Self::Unfinished(text)
            | Self::Unreached(text) => f.write_str(text),
        }
    }
}
