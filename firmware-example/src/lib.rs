//! A device that measures, and keeps every reading until its gateway has it. What is not about a board is here.

#![no_std]

pub mod board;
pub mod sensors;

use board::Clock;
use liner_proto::endpoint::{AssignedEndpoint, DeviceConfig, Event, TopicIndex};
use liner_proto::pump::{self, Overflow, Port, Progress};
use liner_proto::time::Instant;
use readings::{Command, READING_MAX, Reading, TOPICS};
use sensors::Sensors;

/// The main loop, on whatever UART. Ends with a reboot that somebody asked for.
pub fn run<P>(uart: P, mut clock: Clock) -> !
where
    P: embedded_io::Read + embedded_io::ReadReady + embedded_io::Write,
{
    let mut port = Port::<_, 512>::new(uart);
    let mut device = Device::new(clock.now());
    loop {
        device.measure(clock.now());
        let idle = device.turn(&mut port, clock.now());
        if idle && device.is_to_reboot() {
            board::reboot();
        }
        if idle {
            // What comes just before this waits for the clock: a millisecond at most.
            cortex_m::asm::wfi();
        }
    }
}

/// Its name, which is also the address of its commands.
pub const NAME: &str = "press-1";

/// Bytes of readings that RAM holds.
const QUEUE: usize = 4096;

/// The longest frame, in either direction.
const FRAME: usize = 256;

/// The device: its endpoint, its sensors, and what it was told to do.
pub struct Device {
    // Neither flash nor a random source: the gateway makes the epochs.
    endpoint: AssignedEndpoint<'static, QUEUE, FRAME>,
    sensors: Sensors,
    reboot: bool,
}

impl Device {
    /// A device that has measured nothing yet.
    pub fn new(now: Instant) -> Self {
        let config = DeviceConfig::new(NAME, &TOPICS, [1, 2]);
        Self { endpoint: AssignedEndpoint::new(config, now), sensors: Sensors::new(), reboot: false }
    }

    /// Measures what is due, and queues it. When RAM is full, the oldest reading makes room, and the gateway is told of the gap.
    pub fn measure(&mut self, now: Instant) {
        while let Some(reading) = self.sensors.poll(now) {
            self.send(now, reading);
        }
    }

    fn send(&mut self, now: Instant, reading: Reading) {
        let mut bytes = [0; READING_MAX];
        let message = (TopicIndex(reading.topic()), reading.encode(&mut bytes));
        // What is refused is a reading of a topic that nobody wants: its number is missing at whoever subscribes later.
        let _ = pump::send(&mut self.endpoint, now, message, Overflow::DropOldest);
    }

    /// One turn at the line. Says whether there is nothing more to do for now.
    pub fn turn<P, const OUT: usize>(&mut self, port: &mut Port<P, OUT>, now: Instant) -> bool
    where
        P: embedded_io::Read + embedded_io::ReadReady + embedded_io::Write,
    {
        let Self { endpoint, sensors, reboot } = self;
        let progress = port.turn(endpoint, now, |event| {
            if let Event::Message { payload, .. } = event {
                match Command::decode(payload) {
                    Some(Command::SetPeriod(millis)) => sensors.set_period(millis),
                    Some(Command::ReadNow) => sensors.read_now(),
                    Some(Command::Reboot) => *reboot = true,
                    None => {}
                }
            }
        });
        matches!(progress, Ok(Progress::Idle))
    }

    /// Whether it is to start anew. The command counts as executed once it was acknowledged, so that it does not come again.
    pub fn is_to_reboot(&self) -> bool {
        self.reboot
    }
}
