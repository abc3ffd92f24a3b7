//! The device as a process: its command line and what it prints.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{Config, INPUT, Lines, MESSAGE_MAX, Notice, Payloads, Status, drive};
use crate::args::DeviceArgs;
use crate::failure::Failure;
use crate::out::{self, Out, tell};
use crate::reading::{Machine, Reading};
use crate::watch::Stop;

pub(crate) fn run(args: &DeviceArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let from_stdin = args.payload_from.is_some();
    let config = Config {
        name: args.name.clone(),
        topic: args.topic.clone(),
        connect: args.connect.clone(),
        every: args.every.or((!from_stdin).then_some(Duration::from_millis(100))),
        count: args.count,
        status_every: Duration::from_secs(1),
    };
    let payloads = if from_stdin {
        Payloads::Lines(Lines::of_stdin(INPUT, MESSAGE_MAX)?)
    } else {
        Payloads::Readings(Machine::new())
    };
    tell(format_args!("{} sends to {} at {}", config.name, config.topic, config.connect));
    let mut screen = Screen::new(Out::new(args.json));
    let (status, done) = drive(&config, payloads, stop, &mut |notice| screen.show(&notice))?;
    screen.status(&status)?;
    let endless = config.count.is_none() && !from_stdin;
    let left = status.sent - status.acked;
    match (done || endless, left) {
        (true, 0) => Ok(()),
        (true, _) => {
            tell(format_args!("{left} messages were in RAM and not acknowledged"));
            Ok(())
        }
        (false, _) => Err(Failure::Unfinished(format!(
            "stopped with {left} of {} messages not acknowledged: they were in RAM, send them again",
            status.sent
        ))),
    }
}

/// Prints what happens to a device.
struct Screen {
    out: Out,
    shown: Status,
}

impl Screen {
    fn new(out: Out) -> Self {
        Self { out, shown: Status::default() }
    }

    fn show(&mut self, notice: &Notice<'_>) -> Result<(), Failure> {
        match notice {
            Notice::Line(None) => tell("connected"),
            Notice::Line(Some(why)) => tell(format_args!("away: {why}; trying again")),
            Notice::Message { topic, payload } => {
                tell(format_args!("{topic}: {}", String::from_utf8_lossy(payload).escape_debug()));
            }
            Notice::Status(status) => return self.status(status),
        }
        Ok(())
    }

    fn status(&mut self, status: &Status) -> Result<(), Failure> {
        if *status == self.shown {
            return Ok(());
        }
        self.shown = *status;
        let line = StatusLine::new(status);
        self.out
            .line(words(status), &line)
            .and_then(|()| self.out.flush())
            .map_err(|error| out::failed(&error))
    }
}

/// A status as JSON.
#[derive(Serialize)]
struct StatusLine {
    event: &'static str,
    connected: bool,
    sent: u64,
    acknowledged: u64,
    waiting: u64,
    skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reading: Option<Reading>,
}

impl StatusLine {
    const fn new(status: &Status) -> Self {
        let Status { connected, sent, acked, skipped, reading } = *status;
        Self {
            event: "status",
            connected,
            sent,
            acknowledged: acked,
            waiting: sent - acked,
            skipped,
            reading,
        }
    }
}

fn words(status: &Status) -> String {
    let Status { sent, acked, skipped, .. } = status;
    let mut words = format!("sent {sent}  acknowledged {acked}  waiting {}", sent - acked);
    // Writing to a string cannot fail.
    if *skipped > 0 {
        let _ = write!(words, "  left out {skipped}");
    }
    if let Some(reading) = status.reading {
        let _ = write!(words, "  ({reading})");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_waits() {
        let status = Status { sent: 7, acked: 5, skipped: 0, connected: true, reading: None };
        assert_eq!(words(&status), "sent 7  acknowledged 5  waiting 2");
        assert_eq!(words(&Status { skipped: 3, ..status }), "sent 7  acknowledged 5  waiting 2  left out 3");
    }
}
