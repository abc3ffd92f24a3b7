//! The device as a process: its command line and what it prints.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{Config, End, INPUT, Lines, MESSAGE_MAX, Notice, Payloads, Place, Status, drive};
use crate::args::DeviceArgs;
use crate::event;
use crate::failure::Failure;
use crate::line::Line;
use crate::line_status::{LINE_EVERY, LineStatus};
use crate::out::{Out, Report, tell, warn};
use crate::reading::{Machine, Reading};
use crate::watch::Stop;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &DeviceArgs) -> Result<(), Failure> {
    let from_stdin = args.payload_from.is_some();
    let config = Config {
        name: args.name.clone(),
        topic: args.topic.clone(),
        place: match &args.serial {
            Some(url) => Place::Serial(url.clone()),
            None => Place::Tcp(args.connect.clone()),
        },
        every: args.every.or((!from_stdin).then_some(Duration::from_millis(100))),
        count: args.count,
        status_every: SECOND,
        // A person wants to know how a line is, not every second.
        line_every: if args.json { SECOND } else { LINE_EVERY },
    };
    let payloads = if from_stdin {
        Payloads::Lines(Lines::of_stdin(INPUT, MESSAGE_MAX)?)
    } else {
        Payloads::Readings(Machine::new())
    };
    let stop = Stop::on_signals()?;
    tell(format_args!("{} sends to {} at {}", config.name, config.topic, config.place));
    let mut screen = Screen::new(&config, Out::new(args.json));
    let (status, end) = drive(&config, payloads, stop, &mut |notice| screen.show(&notice))?;
    screen.status(&status);
    let endless = config.count.is_none() && !from_stdin;
    match end {
        End::Done => Ok(()),
        End::Stopped if endless => {
            tell_account(&status, from_stdin);
            Ok(())
        }
        End::Stopped => {
            Err(Failure::Unfinished(format!("stopped before all was done: {}", account(&status, from_stdin))))
        }
        End::Failed(failure) => {
            tell_account(&status, from_stdin);
            Err(failure)
        }
    }
}

fn tell_account(status: &Status, from_stdin: bool) {
    let account = account(status, from_stdin);
    if status.sent > status.acked { warn(account) } else { tell(account) }
}

/// What became of the messages that were taken.
fn account(status: &Status, from_stdin: bool) -> String {
    let Status { sent, acked, .. } = status;
    let left = sent - acked;
    let next = if from_stdin { ", send them again" } else { "" };
    if left == 0 {
        return format!("taken {sent}, acknowledged {acked}: none was left in RAM");
    }
    format!("taken {sent}, acknowledged {acked}: the last {left} were in RAM only{next}")
}

/// Prints what happens to a device.
struct Screen<'a> {
    config: &'a Config,
    report: Report,
    shown: Status,
    line: Vec<u8>,
    /// Why there is no session, as it was told since the last one.
    away: Option<&'static str>,
}

impl<'a> Screen<'a> {
    fn new(config: &'a Config, out: Out) -> Self {
        Self { config, report: Report::new(out), shown: Status::default(), line: Vec::new(), away: None }
    }

    fn show(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Line(None) => {
                self.away = None;
                tell("connected");
            }
            // Something may take each connection only to end it: that is no news each time.
            Notice::Line(Some(why)) if self.away.replace(why) != Some(why) => {
                tell(format_args!("away: {why}; trying again"));
            }
            Notice::Line(Some(_)) => {}
            Notice::Unanswered(why) => tell(why),
            Notice::TopicFull => warn(format_args!(
                "{} is full at the gateway: waiting for somebody to subscribe with a name",
                self.config.topic
            )),
            Notice::TopicFree => tell(format_args!("{} takes messages again", self.config.topic)),
            Notice::Message(line) => self.message(line),
            Notice::Gap { count, reason } => warn(format_args!(
                "{} to this device will not come: {}",
                event::messages(*count),
                event::gap_words(*reason)
            )),
            Notice::Status(status) => self.status(status),
            Notice::Stats(url, stats) => {
                let status = LineStatus::new(url, stats);
                self.report.write(|out| out.line(&status, &status));
            }
        }
    }

    fn message(&mut self, line: &Line<'_>) {
        self.report.write(|out| {
            if out.is_json() {
                return out.object(&MessageLine { event: "message", line });
            }
            self.line.clear();
            line.write(&mut self.line);
            out.raw(&[&self.line])
        });
    }

    fn status(&mut self, status: &Status) {
        if *status == self.shown {
            return;
        }
        self.shown = *status;
        self.report.write(|out| out.line(words(status), &StatusLine::new(status)));
    }
}

/// A message to the device as JSON.
#[derive(Serialize)]
struct MessageLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    line: &'a Line<'a>,
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
    fn nothing_is_to_be_sent_again_when_all_is_acknowledged() {
        let status = Status { sent: 5, acked: 5, ..Status::default() };
        assert_eq!(account(&status, true), "taken 5, acknowledged 5: none was left in RAM");
        let left = Status { acked: 3, ..status };
        assert_eq!(
            account(&left, true),
            "taken 5, acknowledged 3: the last 2 were in RAM only, send them again"
        );
        assert_eq!(account(&left, false), "taken 5, acknowledged 3: the last 2 were in RAM only");
    }

    #[test]
    fn a_status_says_what_waits() {
        let status = Status { sent: 7, acked: 5, skipped: 0, connected: true, reading: None };
        assert_eq!(words(&status), "sent 7  acknowledged 5  waiting 2");
        assert_eq!(words(&Status { skipped: 3, ..status }), "sent 7  acknowledged 5  waiting 2  left out 3");
    }
}
