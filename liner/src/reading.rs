//! Readings of this machine, as a sensor would give them.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;

/// What could be read. What this machine does not have is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Reading {
    /// Programs that wanted to run, averaged over a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_used_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_total_mib: Option<u64>,
    /// In degrees Celsius, of the hottest sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
}

/// Reads this machine's own files.
#[derive(Debug)]
pub(crate) struct Machine {
    thermometers: Vec<PathBuf>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let zones = fs::read_dir("/sys/class/thermal").into_iter().flatten().flatten();
        let thermometers = zones.map(|zone| zone.path().join("temp")).filter(|path| path.is_file()).collect();
        Self { thermometers }
    }

    pub(crate) fn read(&self) -> Reading {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (memory_used_mib, memory_total_mib) = memory(&text("/proc/meminfo")).unzip();
        let temperatures = self.thermometers.iter().filter_map(|path| fs::read_to_string(path).ok());
        Reading {
            load: load(&text("/proc/loadavg")),
            memory_used_mib,
            memory_total_mib,
            temperature: temperatures.filter_map(|text| temperature(&text)).reduce(f64::max),
        }
    }
}

/// Short enough to stand in a status line.
impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if let Some(load) = self.load {
            write!(f, "load {load:.2}")?;
            gap = "  ";
        }
        if let (Some(used), Some(total)) = (self.memory_used_mib, self.memory_total_mib) {
            write!(f, "{gap}memory {:.1}/{:.1} GiB", gib(used), gib(total))?;
            gap = "  ";
        }
        if let Some(temperature) = self.temperature {
            write!(f, "{gap}{temperature:.1} °C")?;
            gap = "  ";
        }
        if gap.is_empty() { f.write_str("nothing to read here") } else { Ok(()) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn gib(mib: u64) -> f64 {
    mib as f64 / 1024.0
}

fn load(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok().filter(|load: &f64| load.is_finite())
}

/// Used and total, in MiB.
fn memory(text: &str) -> Option<(u64, u64)> {
    let kib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (total, available) = (kib("MemTotal")?, kib("MemAvailable")?);
    Some((total.saturating_sub(available) / 1024, total / 1024))
}

fn temperature(text: &str) -> Option<f64> {
    let thousandths: i32 = text.trim().parse().ok()?;
    let degrees = f64::from(thousandths) / 1000.0;
    // What is outside is a sensor that is not connected.
    (-60.0..200.0).contains(&degrees).then_some(degrees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_understood() {
        assert_eq!(load("0.42 0.66 0.48 3/106 926\n"), Some(0.42));
        let text = "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:    6291456 kB\n";
        assert_eq!(memory(text), Some((2048, 8192)));
        assert_eq!(temperature("45123\n"), Some(45.123));
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        for text in ["", "\n", "x", "MemTotal: 1 kB", "MemTotal: x kB\nMemAvailable: 1 kB"] {
            assert_eq!(load(text), None);
            assert_eq!(memory(text), None);
            assert_eq!(temperature(text), None);
        }
        assert_eq!(temperature("-274000"), None);
        assert_eq!(serde_json::to_string(&Reading::default()).unwrap(), "{}");
        assert_eq!(Reading::default().to_string(), "nothing to read here");
    }

    #[test]
    fn a_reading_is_short() {
        let reading = Reading {
            load: Some(0.4),
            memory_used_mib: Some(2048),
            memory_total_mib: Some(8192),
            temperature: Some(45.123),
        };
        assert_eq!(reading.to_string(), "load 0.40  memory 2.0/8.0 GiB  45.1 °C");
    }
}
