//! A press that is measured: what its device does, on whatever board. Every reading is kept until the gateway has it.

#![no_std]

mod board;
mod sensors;

pub use board::Board;

use core::mem::MaybeUninit;

use embedded_io::{Read, ReadReady, Write};
use heapless::Vec;
use liner_proto::endpoint::{DeviceConfig, Event, LentEndpoint, SendError, TopicIndex};
use liner_proto::pump::{self, Overflow, Port, Progress};
use liner_proto::time::{Duration, Instant};
use readings::{Breakdown, Command, MESSAGE_MAX, Report, Reset, TOPICS, decode, encode};
use sensors::Sensors;

/// Its name, which is also the address of its commands.
pub const NAME: &str = "press-1";

/// Bytes of messages that RAM holds: 62 strokes, or about 500 readings of the pressure.
pub const QUEUE: usize = 4096;

/// The longest frame, in either direction.
const FRAME: usize = 192 + 2;

/// Bytes of frames on their way out, and those that are read or written at once: what the UART keeps of what comes while it writes.
const OUT: usize = 200;
const IN: usize = 16;

/// Commands that the gateway sends ahead.
const WINDOW: usize = 4;

/// How long it measures nothing before it ends, if that was asked for: the gateway hears meanwhile how many messages there are.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The main loop.
///
/// All of it happens here, one bounded step after the other, and only a loop that comes round feeds the watchdog.
pub fn run<B, P, const ASSIGNED: bool>(board: &mut B, press: &mut Press<P, ASSIGNED>) -> !
where
    B: Board,
    P: Read + ReadReady + Write,
{
    press.begin(board);
    loop {
        let begun = board.cycles();
        let is_idle = press.turn(board);
        press.note_turn(board.cycles().wrapping_sub(begun));
        board.feed();
        if is_idle {
            // What comes just before this waits for the clock: a millisecond at most.
            board.sleep();
        }
    }
}

/// Lets a second pass after a breakdown. A program that breaks down as soon as it starts would wear out the flash that counts its
/// starts within hours.
pub fn calm_down(board: &mut impl Board) {
    if matches!(board.reset().0, Reset::Power | Reset::Asked) {
        return;
    }
    let until = board.now() + Duration::from_secs(1);
    while board.now() < until {
        board.feed();
        board.sleep();
    }
}

/// The device: its line, its sensors, and what it has to say.
///
/// `ASSIGNED`: it can tell its starts apart by nothing, and its gateway makes the epochs. Without, each start has another seed.
pub struct Press<P, const ASSIGNED: bool> {
    endpoint: LentEndpoint<'static, QUEUE, FRAME, 0, ASSIGNED>,
    port: Port<P, OUT, IN>,
    sensors: Sensors,
    start: u32,
    wishes: Wishes,
    /// Messages that were queued in this start.
    queued: u32,
    dropped: u32,
    longest_turn: u32,
}

/// What commands and gaps have asked for, until the turn is over.
#[derive(Default)]
struct Wishes {
    /// One for each command: the gateway sends no more ahead than the window.
    reports: Vec<Report, WINDOW>,
    missed: u32,
    is_health_wanted: bool,
    /// How it is to end, and when.
    end: Option<(Instant, Command)>,
}

impl<P: Read + ReadReady + Write, const ASSIGNED: bool> Press<P, ASSIGNED> {
    /// A device that has measured nothing yet, in this place. `start` is the number of this start, if there is one; `seed` has it in it
    /// then.
    // Not inlined, so that what is put together on the stack leaves it before the main loop begins.
    #[inline(never)]
    pub fn place(
        place: &'static mut MaybeUninit<Self>,
        memory: &'static mut [u8; QUEUE],
        uart: P,
        now: Instant,
        start: u32,
        seed: [u64; 2],
    ) -> &'static mut Self {
        let config = DeviceConfig { window: WINDOW as u8, ..DeviceConfig::new(NAME, &TOPICS, seed) };
        let endpoint = LentEndpoint::with_memory(config, memory, now);
        let (sensors, wishes) = (Sensors::new(), Wishes::default());
        place.write(Self {
            endpoint,
            port: Port::new(uart),
            sensors,
            start,
            wishes,
            queued: 0,
            dropped: 0,
            longest_turn: 0,
        })
    }

    /// Says that it has started, and why.
    pub fn begin(&mut self, board: &mut impl Board) {
        let (reset, before) = board.reset();
        self.report(board, Report::Started { start: self.start, reset, before });
    }

    fn note_turn(&mut self, cycles: u32) {
        self.longest_turn = self.longest_turn.max(cycles);
    }

    fn report(&mut self, board: &mut impl Board, report: Report) {
        self.send(board, Report::TOPIC, encode(&report, &mut [0; MESSAGE_MAX]));
    }

    /// Queues a message. When RAM is full, the oldest ones make room, and the gateway is told of the gap: `Overflow::DropOldest`
    /// does that, too, and does not count.
    fn send(&mut self, board: &mut impl Board, topic: u16, payload: &[u8]) {
        let taken = loop {
            match pump::send(&mut self.endpoint, board.now(), (TopicIndex(topic), payload), Overflow::Refuse)
            {
                Err(SendError::Full) if self.endpoint.drop_oldest() => {
                    self.dropped = self.dropped.wrapping_add(1)
                }
                taken => break taken,
            }
        };
        // What is refused is of a topic that nobody wants: its number is missing at whoever subscribes later.
        if taken.is_ok() {
            self.queued = self.queued.wrapping_add(1);
            board.note(self.queued);
        }
    }

    /// Measures what is due.
    fn measure(&mut self, board: &mut impl Board) {
        let now = board.now();
        // As many as there are sensors, so that a clock that has jumped holds nothing up.
        for _ in 0..3 {
            let Some(reading) = self.sensors.poll(now) else { break };
            self.send(board, reading.topic(), encode(&reading, &mut [0; MESSAGE_MAX]));
        }
    }

    /// Measures, has a turn at the line, and does what it was told. Says whether there is nothing more to do for now.
    pub fn turn(&mut self, board: &mut impl Board) -> bool {
        if self.wishes.end.is_none() {
            self.measure(board);
        }
        let Self { endpoint, port, sensors, wishes, .. } = self;
        let now = board.now();
        let progress = port.turn(endpoint, now, |event| match event {
            Event::Message { payload, maybe_redelivered, .. } => {
                if let Some(command) = decode(payload) {
                    wishes.obey(now, sensors, command, maybe_redelivered);
                }
            }
            Event::Gap { count, .. } => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                wishes.missed = wishes.missed.saturating_add(count);
            }
            _ => {}
        });
        self.answer(board);
        self.end(board, now);
        matches!(progress, Ok(Progress::Idle))
    }

    /// Reports what came of the turn.
    fn answer(&mut self, board: &mut impl Board) {
        let missed = core::mem::take(&mut self.wishes.missed);
        if missed > 0 {
            self.report(board, Report::Missed { commands: missed });
        }
        while let Some(report) = self.wishes.reports.pop() {
            self.report(board, report);
        }
        if core::mem::take(&mut self.wishes.is_health_wanted) {
            let Self { longest_turn, dropped, .. } = *self;
            self.report(board, Report::Health { stack: board.stack(), longest_turn, dropped });
        }
    }

    /// Ends, if it was told to. What has told it so was acknowledged before, and does not come again.
    fn end(&mut self, board: &mut impl Board, now: Instant) {
        match self.wishes.end {
            Some((at, command)) if at <= now => match command {
                Command::Reboot => board.restart(),
                Command::Stop => board.stop(),
                Command::Break(Breakdown::Panic) => panic!("it was asked for"),
                Command::Break(Breakdown::Fault) => board.fault(),
                Command::Break(Breakdown::Hang) => loop {
                    core::hint::spin_loop();
                },
                Command::SetPeriod(_) | Command::ReadNow => {}
            },
            _ => {}
        }
    }
}

impl Wishes {
    /// Does what a command says, or notes it.
    fn obey(&mut self, now: Instant, sensors: &mut Sensors, command: Command, maybe_again: bool) {
        match command {
            // These do no harm a second time.
            Command::SetPeriod(millis) => sensors.set_period(millis),
            Command::ReadNow => {
                sensors.read_now();
                self.is_health_wanted = true;
            }
            // These would: what ends a device before it has acknowledged the command would end it again and again.
            Command::Reboot | Command::Stop | Command::Break(_) if maybe_again => {}
            // Told once more, it does not live longer: whoever repeats it all the time would never see it end.
            Command::Reboot | Command::Stop | Command::Break(_) => {
                self.end.get_or_insert((now + LAST_WORDS, command));
            }
        }
        // There is room, as long as the gateway keeps to the window.
        let _ = self.reports.insert(0, Report::Executed { command, maybe_again });
    }
}

#[cfg(test)]
mod tests {
    use readings::Reading;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn a_repeated_end_comes_no_later() {
        let (mut wishes, mut sensors) = (Wishes::default(), Sensors::new());
        for millis in [0, 100, 200] {
            wishes.obey(at(millis), &mut sensors, Command::Reboot, false);
        }
        assert_eq!(wishes.end, Some((Instant::ZERO + LAST_WORDS, Command::Reboot)));
        assert_eq!(wishes.reports.len(), 3);
    }

    #[test]
    fn what_is_dangerous_and_marked_is_left_out_and_reported() {
        let (mut wishes, mut sensors) = (Wishes::default(), Sensors::new());
        let dangerous = [Command::Reboot, Command::Stop, Command::Break(Breakdown::Hang)];
        for command in dangerous {
            wishes.obey(at(0), &mut sensors, command, true);
        }
        wishes.obey(at(0), &mut sensors, Command::ReadNow, true);
        assert_eq!((wishes.end, wishes.is_health_wanted), (None, true));
        // In the order in which they came.
        for command in dangerous.into_iter().chain([Command::ReadNow]) {
            assert_eq!(wishes.reports.pop(), Some(Report::Executed { command, maybe_again: true }));
        }
    }

    #[test]
    fn sensors_are_read_as_often_as_they_were_told() {
        let mut sensors = Sensors::new();
        sensors.set_period(10);
        let mut pressures = 0;
        for millis in 0..1000 {
            while let Some(reading) = sensors.poll(at(millis)) {
                pressures += u32::from(matches!(reading, Reading::Pressure { .. }));
            }
        }
        assert_eq!(pressures, 100);
    }
}
