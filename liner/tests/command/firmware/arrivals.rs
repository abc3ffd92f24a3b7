//! What a subscriber has had of the device: the one place that knows its messages.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use readings::{Command, Reading, Report, Reset, TOPICS, decode};
use serde_json::Value;

use crate::process::Liner;

/// Every reading is the next one of its sensor. Between topics there is no order before somebody has subscribed to them.
#[derive(Default)]
pub(super) struct Arrivals {
    /// How many readings.
    pub(super) count: u64,
    /// The last number of each sensor.
    sensors: [u32; 3],
    pub(super) reports: Vec<Report>,
}

impl Arrivals {
    /// The next message.
    pub(super) fn take(&mut self, sub: &Liner, line: &Value) {
        let payload = payload(line);
        if line["topic"] == TOPICS[usize::from(Report::TOPIC)] {
            let report: Report = decode(&payload).unwrap_or_else(|| panic!("{line} is no report"));
            let is_start = matches!(report, Report::Started { .. });
            assert!(
                !is_start || self.reports.is_empty(),
                "it has started anew: {report:?} after {} readings",
                self.count
            );
            self.reports.push(report);
            return;
        }
        let (place, number) = check_reading(line, &payload);
        assert_eq!(number, self.sensors[place] + 1, "{line}; the subscriber was told {:?}", sub.errors());
        self.sensors[place] = number;
        self.count += 1;
    }

    pub(super) fn take_until(&mut self, sub: &Liner, count: u64) {
        while self.count < count {
            self.take(sub, &sub.json());
        }
    }

    pub(super) fn are_of_all_sensors(&self) {
        assert!(self.sensors.iter().all(|last| *last > 1), "{:?}", self.sensors);
    }

    /// The device was up all the time, and has done what it was told, once.
    pub(super) fn are_of_one_start(&self, commands: &[Command]) {
        let started = Report::Started { start: 0, reset: Reset::Power, before: 0 };
        let executed = commands.iter().map(|&command| Report::Executed { command, maybe_again: false });
        assert_eq!(self.reports, [started].into_iter().chain(executed).collect::<Vec<_>>());
    }
}

/// The place of the sensor whose reading this is, and its number there.
pub(super) fn check_reading(line: &Value, payload: &[u8]) -> (usize, u32) {
    let reading: Reading = decode(payload).unwrap_or_else(|| panic!("{line} is no reading"));
    let place = usize::from(reading.topic());
    assert_eq!(line["topic"], TOPICS[place], "{line}");
    (place, number(&reading))
}

/// The number of a reading in which all else is as this number has it.
fn number(reading: &Reading) -> u32 {
    match *reading {
        Reading::Pressure { number, pascals } => {
            assert_eq!(pascals, 101_325 + number % 1000, "{reading:?}");
            number
        }
        Reading::Temperature { number, centidegrees } => {
            assert_eq!(centidegrees, 2000 + (number % 500) as i16, "{reading:?}");
            number
        }
        Reading::Stroke { number, down, up } => {
            let curve = std::array::from_fn(|at| (number as u8).wrapping_add(at as u8));
            assert_eq!((down, up), (curve, curve), "{reading:?}");
            number
        }
    }
}

pub(super) fn payload(line: &Value) -> Vec<u8> {
    let text = line["payload"].as_str().unwrap_or_else(|| panic!("{line} is no message"));
    // What happens to be text is shown as such.
    match line["encoding"].as_str() {
        None => text.as_bytes().to_vec(),
        Some(_) => BASE64_STANDARD.decode(text).unwrap(),
    }
}
