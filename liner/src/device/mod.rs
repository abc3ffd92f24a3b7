//! `liner device`: the core as it runs on a microcontroller, with its messages in RAM, over a TCP line.

mod command;
mod input;
mod link;
mod stats;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use liner_mio::LineUrl;
use liner_proto::effect::GapReason;
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event, SendError, TopicIndex};
use liner_proto::line::LineStats;
use liner_proto::pump::{self, Overflow};
use liner_proto::rng::Rng;
use liner_proto::wire::control::CloseReason;
use mio::Token;

pub(crate) use command::run;
pub(crate) use input::{Lines, Payloads};

use crate::clock::{Clock, Ticks};
use crate::event::{name_in_use, reason_words};
use crate::failure::Failure;
use crate::line::Line;
use crate::reading::Reading;
use crate::watch::{Stop, Watch};
pub(crate) use link::Place;
use link::{Change, Link};
use stats::Stats;

/// What its messages take at most.
const RAM: usize = 16 * 1024;
/// One frame: a gateway takes and sends none that are longer.
const FRAME: usize = 2048;
/// The longest message.
pub(crate) const MESSAGE_MAX: usize = 4096;
/// Where one is put together whose frames come piece by piece, with the names of its topic and of its sender.
const MESSAGE: usize = MESSAGE_MAX + 512;

type Device<'a> = Endpoint<'a, RAM, FRAME, MESSAGE>;

pub(crate) const LINE: Token = Token(0);
pub(crate) const INPUT: Token = Token(1);

/// What a device is to do.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) topic: String,
    /// Where the gateway is.
    pub(crate) place: Place,
    /// The time between two messages; none sends as fast as messages come and fit.
    pub(crate) every: Option<Duration>,
    /// How many to send.
    pub(crate) count: Option<u64>,
    /// How often to tell of a status, at most.
    pub(crate) status_every: Duration,
    /// How often to tell how a serial line is, at most.
    pub(crate) line_every: Duration,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Status {
    pub(crate) connected: bool,
    /// Messages that were taken into RAM.
    pub(crate) sent: u64,
    /// Messages that the gateway has committed.
    pub(crate) acked: u64,
    /// Readings left out because RAM was full, or the topic at the gateway.
    pub(crate) skipped: u64,
    pub(crate) reading: Option<Reading>,
}

/// Something that whoever runs the device may want to see.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    /// The line came or went; why it went.
    Line(Option<&'static str>),
    /// Why there is no line yet. Comes once for each reason.
    Unanswered(&'a str),
    /// The gateway keeps no more of the topic, which nobody has subscribed to. Comes once until it takes messages again.
    TopicFull,
    /// It takes messages again.
    TopicFree,
    /// A message to the device.
    Message(Line<'a>),
    /// Messages to the device that will not come.
    Gap { count: u64, reason: GapReason },
    /// Something has changed.
    Status(&'a Status),
    /// Something has happened on a serial line: its counts since the start.
    Stats(&'a LineUrl, LineStats),
}

/// How a device ended.
#[derive(Debug)]
pub(crate) enum End {
    /// All that was to be sent is acknowledged.
    Done,
    /// The stop came before that.
    Stopped,
    /// It could not go on. What was taken from its input before a fault there is acknowledged, unless the stop came.
    Failed(Failure),
}

/// Runs a device until its messages are all acknowledged, or until the stop. Says how far it came.
///
/// # Errors
/// If it did not begin: nothing was taken then.
pub(crate) fn drive(
    config: &Config,
    payloads: Payloads,
    stop: Stop,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<(Status, End), Failure> {
    let topics = [config.topic.as_str()];
    let seeds = RandomState::new();
    let seed = [seeds.hash_one(0), seeds.hash_one(1)];
    let clock = Clock::start();
    let mut core = DeviceConfig::new(&config.name, &topics, seed);
    if let Place::Serial(url) = &config.place {
        core.line = url.config();
    }
    let mut watch = Watch::new(stop)?;
    let mut payloads = payloads;
    if let Payloads::Lines(lines) = &mut payloads {
        lines.register(watch.registry())?;
    }
    let mut run = Run {
        config,
        clock,
        device: Box::new(Endpoint::new(core, clock.now())),
        link: Link::new(config.place.clone(), LINE, Rng::new([seed[1], seed[0]])),
        payloads,
        due: config.every.map(|every| Ticks::new(Duration::ZERO, every)),
        status: Status::default(),
        stats: Stats::default(),
        buffer: vec![0; 64 * 1024],
        full: false,
        told_full: false,
        fault: None,
    };
    let end = run.work(&mut watch, notice).unwrap_or_else(End::Failed);
    run.close();
    Ok((run.status, end))
}

/// A device with everything around it.
struct Run<'a> {
    config: &'a Config,
    clock: Clock,
    device: Box<Device<'a>>,
    link: Link,
    payloads: Payloads,
    due: Option<Ticks>,
    status: Status,
    stats: Stats,
    buffer: Vec<u8>,
    /// RAM had no room for the next message, or the topic has none at the gateway.
    full: bool,
    /// It was told that the topic is full.
    told_full: bool,
    /// Why nothing more is taken from its input.
    fault: Option<Failure>,
}

impl Run<'_> {
    /// Works until all is acknowledged, or until the stop.
    fn work(&mut self, watch: &mut Watch, notice: &mut dyn FnMut(Notice<'_>)) -> Result<End, Failure> {
        let mut shown = Ticks::new(Duration::ZERO, self.config.status_every);
        let mut line_shown = Ticks::new(self.config.status_every, self.config.line_every);
        let mut last = Status::default();
        loop {
            let outcome = self.turn(watch, notice);
            self.status.acked = self.device.acked();
            self.status.connected = self.device.is_up();
            outcome?;
            let done = self.is_done();
            if self.status != last && (done || shown.take(self.clock.elapsed())) {
                last = self.status;
                notice(Notice::Status(&last));
            }
            let ends = done || watch.is_stopped();
            if ends || line_shown.take(self.clock.elapsed()) {
                self.tell_stats(notice);
            }
            if ends {
                return match self.fault.take() {
                    Some(fault) => Err(fault),
                    None => Ok(if done { End::Done } else { End::Stopped }),
                };
            }
            let mut timeout = self.timeout();
            if self.status != last {
                timeout = earlier(timeout, Some(shown.left(self.clock.elapsed())));
            }
            watch.wait(timeout)?;
            self.note_ready(watch);
        }
    }

    /// Everything that can be done now.
    fn turn(&mut self, watch: &Watch, notice: &mut dyn FnMut(Notice<'_>)) -> Result<(), Failure> {
        self.device.handle_timeout(self.clock.now());
        match self.link.advance(self.clock, watch.registry()) {
            Change::Up => self.device.handle_link_up(self.clock.now()),
            Change::Down => self.device.handle_link_down(self.clock.now()),
            Change::Unanswered => notice(Notice::Unanswered(self.link.trouble())),
            Change::None => {}
        }
        self.read(notice)?;
        self.produce(watch)?;
        self.events(notice)?;
        self.write();
        self.events(notice)
    }

    /// Tells how a serial line is, if that has changed.
    fn tell_stats(&mut self, notice: &mut dyn FnMut(Notice<'_>)) {
        self.stats.note(self.device.line_stats());
        if let Place::Serial(url) = &self.config.place
            && self.stats.is_owed()
        {
            notice(Notice::Stats(url, self.stats.take()));
        }
    }

    fn note_ready(&mut self, watch: &Watch) {
        if watch.saw(self.link.token()) {
            self.link.set_ready();
        }
        if let Payloads::Lines(lines) = &mut self.payloads
            && watch.saw(lines.token())
        {
            lines.set_ready();
        }
    }

    fn read(&mut self, notice: &mut dyn FnMut(Notice<'_>)) -> Result<(), Failure> {
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            let outcome = self.link.read(&mut buffer);
            let mut rest = match &outcome {
                Ok(Some(len)) => buffer.get(..*len).unwrap_or_default(),
                _ => &[],
            };
            let mut result = Ok(());
            while !rest.is_empty() && result.is_ok() {
                self.stats.note(self.device.line_stats());
                let taken = self.device.handle_bytes(self.clock.now(), rest);
                rest = rest.get(taken..).unwrap_or_default();
                result = self.events(notice);
            }
            self.buffer = buffer;
            result?;
            match outcome {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.drop_line();
                    return Ok(());
                }
            }
        }
    }

    fn events(&mut self, notice: &mut dyn FnMut(Notice<'_>)) -> Result<(), Failure> {
        let mut over = false;
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::Connected { .. } => {
                    self.link.set_session();
                    self.stats.begin();
                    notice(Notice::Line(None));
                }
                Event::Disconnected(CloseReason::NameInUse) => return Err(name_in_use(&self.config.name)),
                Event::Disconnected(reason) => {
                    over = true;
                    notice(Notice::Line(Some(reason_words(reason))));
                }
                Event::TooLarge => {
                    return Err(Failure::Work(
                        "the gateway takes no message as long as the next one: send shorter ones".to_owned(),
                    ));
                }
                Event::TopicFull { .. } if !std::mem::replace(&mut self.told_full, true) => {
                    notice(Notice::TopicFull);
                }
                Event::TopicFree { .. } => {
                    // At the end of a session nothing is known of the next.
                    if self.device.is_up() {
                        self.told_full = false;
                        notice(Notice::TopicFree);
                    }
                }
                Event::Message { topic, payload, origin, maybe_redelivered } => {
                    let origin = origin.map(|origin| (text(origin.name), origin.number));
                    notice(Notice::Message(Line::new(text(topic), origin, payload, maybe_redelivered)));
                }
                Event::Gap { count, reason } => notice(Notice::Gap { count, reason }),
                // What became of its own messages shows in its numbers.
                Event::Regressed | _ => {}
            }
        }
        if over && self.link.end_session(self.clock.elapsed()) == Change::Down {
            self.device.handle_link_down(self.clock.now());
        }
        Ok(())
    }

    fn drop_line(&mut self) {
        if self.link.drop_line(self.clock.elapsed()) == Change::Down {
            self.device.handle_link_down(self.clock.now());
        }
    }

    /// Puts into RAM what is due and fits.
    fn produce(&mut self, watch: &Watch) -> Result<(), Failure> {
        self.full = false;
        while !self.is_over() {
            if self.due.is_some_and(|due| self.clock.elapsed() < due.next()) {
                return Ok(());
            }
            let outcome = match self.produce_one(watch) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => return Ok(()),
                Err(fault) => {
                    self.give_up_input(fault, watch);
                    return Ok(());
                }
            };
            match (outcome, &self.payloads) {
                (Ok(_), _) => self.status.sent += 1,
                // A reading that finds no room is out of date when there is some.
                (Err(SendError::Full | SendError::TopicFull), Payloads::Readings(_)) => {
                    self.status.skipped += 1;
                }
                (Err(SendError::Full | SendError::TopicFull), Payloads::Lines(_)) => {
                    self.full = true;
                    return Ok(());
                }
                (Err(error), _) => return Err(Failure::Work(error.to_string())),
            }
            if let Payloads::Lines(lines) = &mut self.payloads {
                lines.take();
            }
            if let Some(due) = &mut self.due {
                due.take(self.clock.elapsed());
            }
        }
        Ok(())
    }

    /// Nothing if there is no message now.
    fn produce_one(&mut self, watch: &Watch) -> Result<Option<Result<u64, SendError>>, Failure> {
        let json;
        let payload = match &mut self.payloads {
            Payloads::Readings(machine) => {
                let reading = machine.read();
                self.status.reading = Some(reading);
                json = serde_json::to_vec(&reading)
                    .map_err(|error| Failure::Work(format!("cannot write a reading as JSON: {error}")))?;
                &json[..]
            }
            Payloads::Lines(lines) => match lines.peek(watch.registry())? {
                Some(line) => line,
                None => return Ok(None),
            },
        };
        if payload.len() > MESSAGE_MAX {
            return Err(input::too_long(MESSAGE_MAX));
        }
        let message = (TopicIndex(0), payload);
        Ok(Some(pump::send(&mut *self.device, self.clock.now(), message, Overflow::Refuse)))
    }

    /// Takes no more: what is in RAM is still sent, as at the end of the input.
    fn give_up_input(&mut self, fault: Failure, watch: &Watch) {
        if let Payloads::Lines(lines) = &mut self.payloads {
            lines.give_up(watch.registry());
        }
        self.fault = Some(fault);
    }

    fn write(&mut self) {
        let (device, clock) = (&mut self.device, self.clock);
        let more = |out: &mut [u8]| device.poll_transmit(clock.now(), out);
        if self.link.write(more, &mut self.buffer).is_err() {
            self.drop_line();
        }
    }

    /// Whether no message is to come any more.
    fn is_over(&self) -> bool {
        let enough = self.config.count.is_some_and(|count| self.status.sent + self.status.skipped >= count);
        let at_end = match &self.payloads {
            Payloads::Readings(_) => false,
            Payloads::Lines(lines) => lines.is_over(),
        };
        enough || at_end || self.fault.is_some()
    }

    /// Whether all that was to be sent is acknowledged.
    fn is_done(&self) -> bool {
        self.is_over() && self.device.queued() == 0
    }

    /// Tells the gateway, if it can still be told at once.
    fn close(&mut self) {
        self.device.close(self.clock.now());
        self.write();
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.elapsed();
        let core = self.device.poll_timeout().map(|(at, _)| at.since(self.clock.now()));
        let link = self.link.deadline().map(|at| at.saturating_sub(now));
        let due = self.due.filter(|_| !self.is_over() && !self.full).map(|due| due.left(now));
        let due = match &self.payloads {
            Payloads::Readings(_) => due,
            // There may be nothing to send when it is time.
            Payloads::Lines(lines) => due.filter(|left| !left.is_zero() || lines.is_ready()),
        };
        earlier(core, earlier(link, due))
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A text that came from the gateway.
fn text(of: liner_proto::endpoint::Text<'_>) -> &str {
    of.to_str().unwrap_or("(not UTF-8)")
}
