//! Three sensors: one fast, one slow, one that speaks when something has happened. Here they are made of arithmetic.

use liner_proto::time::{Duration, Instant};
use readings::Reading;

/// How often the temperature is measured.
const TEMPERATURE: Duration = Duration::from_millis(500);

/// How often the press comes down.
const STROKE: Duration = Duration::from_millis(730);

/// When a sensor is read next, and how often it was.
#[derive(Clone, Copy)]
struct Turn {
    at: Instant,
    number: u32,
}

impl Turn {
    const FIRST: Self = Self { at: Instant::ZERO, number: 0 };

    /// Its number, if it is due.
    fn take(&mut self, now: Instant, period: Duration) -> Option<u32> {
        if now < self.at {
            return None;
        }
        self.at = now + period;
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }
}

/// All of them.
pub struct Sensors {
    period: Duration,
    pressure: Turn,
    temperature: Turn,
    stroke: Turn,
}

impl Sensors {
    /// None was read yet.
    pub const fn new() -> Self {
        let period = Duration::from_millis(20);
        Self { period, pressure: Turn::FIRST, temperature: Turn::FIRST, stroke: Turn::FIRST }
    }

    /// The next reading that is due.
    pub fn poll(&mut self, now: Instant) -> Option<Reading> {
        if let Some(number) = self.stroke.take(now, STROKE) {
            let curve = core::array::from_fn(|at| (number as u8).wrapping_add(at as u8));
            return Some(Reading::Stroke { number, down: curve, up: curve });
        }
        if let Some(number) = self.temperature.take(now, TEMPERATURE) {
            return Some(Reading::Temperature { number, centidegrees: 2000 + (number % 500) as i16 });
        }
        let number = self.pressure.take(now, self.period)?;
        Some(Reading::Pressure { number, pascals: 101_325 + number % 1000 })
    }

    /// Reads the pressure every so many milliseconds from now on.
    pub fn set_period(&mut self, millis: u32) {
        self.period = Duration::from_millis(u64::from(millis.max(1)));
        self.pressure.at = Instant::ZERO;
    }

    /// Reads all of them at the next opportunity.
    pub fn read_now(&mut self) {
        for turn in [&mut self.pressure, &mut self.temperature, &mut self.stroke] {
            turn.at = Instant::ZERO;
        }
    }
}

impl Default for Sensors {
    fn default() -> Self {
        Self::new()
    }
}
