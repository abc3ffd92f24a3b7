//! What was measured, as people and programs read it.

use std::fmt;
use std::io;
use std::time::Duration;

use liner_mio::Class;
use serde::Serialize;

use crate::folder::Folder;
use crate::out::Out;

#[derive(Serialize)]
struct Store {
    event: &'static str,
    store: &'static str,
    class: String,
    size: u32,
}

pub(super) fn say_store(out: &mut Out, folder: Option<&Folder>, class: Class, size: u32) -> io::Result<()> {
    let store = if folder.is_some() { "sqlite" } else { "ram" };
    let place = folder.map(|folder| format!(", in {}", folder.path().display())).unwrap_or_default();
    let plain = format!("messages    {size} B, stored on both sides ({class}{place})");
    out.line(plain, &Store { event: "store", store, class: class.to_string(), size })?;
    out.flush()
}

/// Messages that were acknowledged.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    pub(super) messages: u64,
    pub(super) time: Duration,
    /// Bytes of each.
    pub(super) size: u64,
}

#[derive(Serialize)]
struct RateLine {
    event: &'static str,
    messages: u64,
    seconds: f64,
    messages_per_second: f64,
    megabytes_per_second: f64,
}

impl Rate {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.time.as_secs_f64().max(f64::EPSILON)
    }

    fn megabytes(&self) -> f64 {
        self.per_second() * self.size as f64 / 1e6
    }

    pub(super) fn say(&self, out: &mut Out) -> io::Result<()> {
        let line = RateLine {
            event: "rate",
            messages: self.messages,
            seconds: self.time.as_secs_f64(),
            messages_per_second: self.per_second(),
            megabytes_per_second: self.megabytes(),
        };
        out.line(self, &line)?;
        out.flush()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, count) = (grouped(self.per_second() as u64), grouped(self.messages));
        let (megabytes, seconds) = (self.megabytes(), self.time.as_secs_f64());
        write!(f, "rate        {rate} messages/s  {megabytes:.1} MB/s  ({count} in {seconds:.1} s)")
    }
}

/// How long each way there and back took.
#[derive(Default)]
pub(super) struct Trips {
    micros: Vec<u64>,
}

#[derive(Serialize)]
struct TripsLine {
    event: &'static str,
    trips: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl Trips {
    pub(super) const fn count(&self) -> u64 {
        self.micros.len() as u64
    }

    pub(super) fn take(&mut self, time: Duration) {
        self.micros.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn so_far(&self) -> String {
        format!("round trip  {} so far", grouped(self.count()))
    }

    /// Says nothing of none.
    pub(super) fn say(mut self, out: &mut Out) -> io::Result<()> {
        self.micros.sort_unstable();
        let at =
            |percent: usize| self.micros.get(self.micros.len().saturating_sub(1) * percent / 100).copied();
        let (Some(p50_us), Some(p99_us), Some(max_us)) = (at(50), at(99), at(100)) else { return Ok(()) };
        let trips = self.count();
        let (p50, p99, max) = (span(p50_us), span(p99_us), span(max_us));
        let plain = format!("round trip  p50 {p50}  p99 {p99}  max {max}  ({})", grouped(trips));
        out.line(plain, &TripsLine { event: "round_trip", trips, p50_us, p99_us, max_us })?;
        out.flush()
    }
}

fn span(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{} µs", grouped(micros)),
        _ => format!("{:.1} ms", micros as f64 / 1000.0),
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7, 9999, 12_345].map(span), ["7 µs", "9,999 µs", "12.3 ms"]);
        let rate = Rate { messages: 250_000, time: Duration::from_millis(500), size: 100 };
        assert_eq!(rate.to_string(), "rate        500,000 messages/s  50.0 MB/s  (250,000 in 0.5 s)");
    }
}
