//! Spans of time as the command line says them: `100ms`, `2s`, `1m`.

use std::time::Duration;

/// Reads a whole number with a unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().map_err(|_| HOW.to_owned())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => return Err(HOW.to_owned()),
    };
    match millis {
        Some(millis) if (1..=DAY_MS).contains(&millis) => Ok(Duration::from_millis(millis)),
        _ => Err("it must be from 1ms to a day".to_owned()),
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const HOW: &str = "write a whole number and a unit, for instance 100ms, 2s or 1m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(parse("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("1m"), Ok(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", "5", "s", "-1s", "1.5s", "0ms", "1h", "25000000m", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
