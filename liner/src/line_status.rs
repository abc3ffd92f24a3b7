//! What a gateway says about its lines to devices, and a device about its own.

use std::fmt;
use std::time::Duration;

use liner_mio::LineUrl;
use liner_proto::line::LineStats;
use serde::Serialize;

/// How often people are told how a line is.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(10);

/// The state of a line, plain or as JSON. Counts are those since the start.
#[derive(Debug, Serialize)]
pub(crate) struct LineStatus<'a> {
    event: &'static str,
    line: &'a str,
    frames_received: u32,
    frames_sent: u32,
    crc_errors: u32,
    resyncs: u32,
    retransmissions: u32,
    duplicates: u32,
    /// Microseconds; nothing before one was measured.
    rtt_us: Option<u64>,
}

impl<'a> LineStatus<'a> {
    pub(crate) fn new(url: &'a LineUrl, stats: &LineStats) -> Self {
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        Self {
            event: "line",
            line: url.as_str(),
            frames_received: stats.frames_received,
            frames_sent: stats.frames_sent,
            crc_errors: stats.seal_errors,
            resyncs: stats.resyncs,
            retransmissions: stats.retransmissions,
            duplicates: stats.duplicates,
            rtt_us: stats.rtt.map(micros),
        }
    }
}

impl fmt::Display for LineStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, frames_received, frames_sent, crc_errors, resyncs, retransmissions, .. } = self;
        // The options of the line need not be said again.
        let name = line.split_once('?').map_or(*line, |(name, _)| name);
        write!(
            f,
            "{name}  in {frames_received}  out {frames_sent}  damaged {}  sent again {retransmissions}",
            crc_errors.saturating_add(*resyncs)
        )?;
        match self.rtt_us {
            Some(rtt) => write!(f, "  round trip {:.1} ms", rtt as f64 / 1000.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened_on_it() {
        let url: LineUrl = "serial:///dev/ttyUSB0?baud=115200".parse().unwrap();
        let rtt = Some(Duration::from_micros(12_340));
        let stats = LineStats {
            frames_received: 1000,
            frames_sent: 500,
            seal_errors: 3,
            resyncs: 1,
            retransmissions: 2,
            duplicates: 1,
            rtt,
        };
        let status = LineStatus::new(&url, &stats);
        assert_eq!(
            status.to_string(),
            "serial:///dev/ttyUSB0  in 1000  out 500  damaged 4  sent again 2  round trip 12.3 ms"
        );
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"event":"line","line":"serial:///dev/ttyUSB0?baud=115200","frames_received":1000,"frames_sent":500,"crc_errors":3,"resyncs":1,"retransmissions":2,"duplicates":1,"rtt_us":12340}"#
        );
    }
}
