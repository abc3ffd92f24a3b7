//! Standard output, one line at a time: plain for people, or one JSON object a line for programs.

use std::borrow::Cow;
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

/// Lines that say how the work goes: it goes on when nobody reads them.
pub(crate) struct Report {
    out: Out,
    is_over: bool,
}

impl Report {
    pub(crate) const fn new(out: Out) -> Self {
        Self { out, is_over: false }
    }

    /// Whether programs read it.
    pub(crate) const fn is_json(&self) -> bool {
        self.out.is_json()
    }

    /// Writes and flushes. The first failure is told on standard error, and nothing is written after it.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Out) -> io::Result<()>) {
        if self.is_over {
            return;
        }
        if let Err(error) = write(&mut self.out).and_then(|()| self.out.flush()) {
            self.is_over = true;
            warn(format_args!("{}: no more status lines are written, the work goes on", failed(&error)));
        }
    }
}

/// What it means that standard output took no more.
pub(crate) fn failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Work("standard output was closed".to_owned());
    }
    Failure::io("cannot write to standard output", error)
}

/// A line on standard error, whatever the text holds.
pub(crate) fn say(text: impl Display) {
    // In one piece, so that no other thread's line gets between. With standard error gone there is nobody left to tell.
    let _ = io::stderr().write_all(format!("liner: {}\n", shown(&text.to_string())).as_bytes());
}

/// A sentence about what comes and goes, if the level of the log is not above that.
pub(crate) fn tell(text: impl Display) {
    tracing::info!(target: "liner", "{text}");
}

/// A sentence about what is lost or held up.
pub(crate) fn warn(text: impl Display) {
    tracing::warn!(target: "liner", "{text}");
}

/// Text of others as people may see it: nothing in it ends the line, speaks to the terminal, or turns the direction of writing.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    escape(text, is_unseen)
}

/// The same for one of the fields of a line, between which there are spaces.
pub(crate) fn field(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_unseen(c) || c.is_whitespace())
}

fn is_unseen(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => escaped.extend(c.escape_default()),
            _ if is_escaped(c) => escaped.extend(c.escape_unicode()),
            _ => escaped.push(c),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_one_line_that_does_nothing() {
        assert_eq!(shown("20 °C, 100 %"), "20 °C, 100 %");
        assert_eq!(shown("a\nreadings d#9 x"), "a\\nreadings d#9 x");
        assert_eq!(shown("\x1b[2J\u{9b}\u{7f}\0"), "\\u{1b}[2J\\u{9b}\\u{7f}\\u{0}");
        assert_eq!(shown("\u{202e}txt\u{2028}"), "\\u{202e}txt\\u{2028}");
    }

    #[test]
    fn a_field_ends_where_it_says() {
        assert_eq!(field("boiler-1"), "boiler-1");
        assert_eq!(field("d#9 x\ty"), "d#9\\u{20}x\\ty");
    }
}
