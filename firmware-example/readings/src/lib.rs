//! What the firmware and its hosts say to each other, as postcard writes it. Both sides use this package, so that neither
//! can change the bytes alone.

#![no_std]

use serde::{Deserialize, Serialize};

/// The topic of each kind of reading, by the place in which a device names them.
pub const TOPICS: [&str; 3] = ["press/pressure", "press/temperature", "press/door"];

/// The most bytes of a reading.
pub const READING_MAX: usize = 16;

/// What a sensor has measured. Each sensor counts its readings from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// The fast one.
    Pressure {
        /// Which of the sensor it is.
        number: u32,
        /// Pascals.
        pascals: u32,
    },
    /// The slow one.
    Temperature {
        /// Which of the sensor it is.
        number: u32,
        /// Hundredths of a degree Celsius.
        centidegrees: i16,
    },
    /// An event.
    Door {
        /// Which of the sensor it is.
        number: u32,
        /// Whether it was opened.
        open: bool,
    },
}

/// What a host asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Read the pressure every so many milliseconds; at least 1.
    SetPeriod(u32),
    /// Read everything now.
    ReadNow,
    /// Start anew.
    Reboot,
}

impl Reading {
    /// The place of its topic in [`TOPICS`].
    pub const fn topic(&self) -> u16 {
        match self {
            Self::Pressure { .. } => 0,
            Self::Temperature { .. } => 1,
            Self::Door { .. } => 2,
        }
    }

    /// Writes it to the front of `bytes`.
    pub fn encode<'b>(&self, bytes: &'b mut [u8; READING_MAX]) -> &'b [u8] {
        // Its largest form has 12 bytes.
        postcard::to_slice(self, bytes).map_or(&[], |written| written)
    }

    /// Reads one; nothing if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Command {
    /// Reads one; nothing if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_reading_has_room() {
        let readings = [
            Reading::Pressure { number: u32::MAX, pascals: u32::MAX },
            Reading::Temperature { number: u32::MAX, centidegrees: i16::MIN },
            Reading::Door { number: u32::MAX, open: true },
        ];
        for reading in readings {
            assert_eq!(Reading::decode(reading.encode(&mut [0; READING_MAX])), Some(reading));
        }
    }

    #[test]
    fn commands_are_a_few_bytes_that_anybody_can_write() {
        assert_eq!(Command::decode(&[0, 100]), Some(Command::SetPeriod(100)));
        assert_eq!(Command::decode(&[1]), Some(Command::ReadNow));
        assert_eq!(Command::decode(&[2]), Some(Command::Reboot));
        assert_eq!(Command::decode(&[3]), None);
    }
}
