//! Standard output, one line at a time: plain for people, or one JSON object a line for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// Lines on standard output. Nothing is seen before [`flush`](Self::flush).
pub(crate) struct Out {
    stdout: BufWriter<Stdout>,
    json: bool,
    terminal: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { stdout: BufWriter::with_capacity(64 * 1024, stdout), json, terminal }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes one of the two forms.
    pub(crate) fn line(&mut self, plain: impl Display, json: &impl Serialize) -> io::Result<()> {
        if self.json { self.object(json) } else { writeln!(self.stdout, "{plain}") }
    }

    /// Writes bytes as they are, and a new line.
    pub(crate) fn raw(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.stdout.write_all(part)?;
        }
        self.stdout.write_all(b"\n")
    }

    pub(crate) fn object(&mut self, json: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, json)?;
        self.stdout.write_all(b"\n")
    }

    /// A line that stands out on a terminal, and is plain everywhere else.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        if self.terminal {
            writeln!(self.stdout, "\x1b[1m{text}\x1b[0m")
        } else {
            writeln!(self.stdout, "{text}")
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// What it means that standard output took no more.
pub(crate) fn failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Work("standard output was closed: what was not written stays queued".to_owned());
    }
    Failure::io("cannot write to standard output", error)
}

/// A line on standard error.
pub(crate) fn tell(text: impl Display) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "liner: {text}");
}
