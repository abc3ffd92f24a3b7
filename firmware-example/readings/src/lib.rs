//! What the firmware and its hosts say to each other, as postcard writes it. Both sides use this package, so that neither
//! can change the bytes alone.

#![no_std]

use serde::{Deserialize, Serialize};

/// The topics of a press, by the place in which a device names them: one for each sensor, and one for reports.
pub const TOPICS: [&str; 4] = ["press/pressure", "press/temperature", "press/stroke", "press/report"];

/// The most bytes of a reading or a report.
pub const MESSAGE_MAX: usize = 64;

/// Samples of a stroke, in each direction.
pub const SAMPLES: usize = 29;

/// What a sensor has measured. Each sensor counts its readings from 1, from each start of the device anew.
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
    /// An event: the press has come down and gone up again.
    Stroke {
        /// Which of the sensor it is.
        number: u32,
        /// The force on the way down, in kilonewtons, a sample each millisecond.
        down: [u8; SAMPLES],
        /// The same on the way up.
        up: [u8; SAMPLES],
    },
}

/// What a device has to say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The first message of each start.
    Started {
        /// Which start it is, from 1 on; 0 if the device has no memory to count them in.
        start: u32,
        /// Why it has started.
        reset: Reset,
        /// How many messages it had queued in the start before, this one's forerunner included; 0 if nothing is left that says so.
        before: u32,
    },
    /// A command was executed.
    Executed {
        /// Which.
        command: Command,
        /// It may have been executed before, in an earlier start. Then a reboot is left out.
        maybe_again: bool,
    },
    /// Commands will never come: they were too old, or were dropped on the way.
    Missed {
        /// How many.
        commands: u32,
    },
    /// How it is; the answer to [`Command::ReadNow`].
    Health {
        /// The most bytes of stack that were ever in use, in this start.
        stack: u32,
        /// The longest turn of the main loop in this start, in cycles of its clock.
        longest_turn: u32,
        /// Messages that were dropped for want of room in this start.
        dropped: u32,
    },
}

/// Why a device has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reset {
    /// It was switched on.
    Power,
    /// [`Command::Reboot`].
    Asked,
    /// A panic.
    Panic {
        /// The line of the source.
        line: u32,
    },
    /// A fault of the processor.
    Fault {
        /// The instruction's address.
        address: u32,
    },
    /// Its main loop had not turned for too long, or somebody has pressed its button.
    Watchdog,
}

/// What a host asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Read the pressure every so many milliseconds; at least 1.
    SetPeriod(u32),
    /// Read everything now, and say how you are.
    ReadNow,
    /// Start anew.
    Reboot,
    /// Stop until you are switched on again.
    Stop,
    /// Break down, so that one can see what comes of it.
    Break(Breakdown),
}

/// A way to break down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Breakdown {
    /// Panic.
    Panic,
    /// Give the processor what is no instruction.
    Fault,
    /// Do not return.
    Hang,
}

impl Reading {
    /// The place of its topic in [`TOPICS`].
    pub const fn topic(&self) -> u16 {
        match self {
            Self::Pressure { .. } => 0,
            Self::Temperature { .. } => 1,
            Self::Stroke { .. } => 2,
        }
    }
}

impl Report {
    /// The place of its topic in [`TOPICS`].
    pub const TOPIC: u16 = 3;
}

/// Writes a reading or a report to the front of `bytes`.
pub fn encode<'b>(message: &impl Serialize, bytes: &'b mut [u8; MESSAGE_MAX]) -> &'b [u8] {
    // The largest of them fits.
    postcard::to_slice(message, bytes).map_or(&[], |written| written)
}

/// Reads a reading, a report or a command; nothing if it is none.
pub fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn the_largest_messages_have_room() {
        let (number, down) = (u32::MAX, [u8::MAX; SAMPLES]);
        let readings = [
            (Reading::Pressure { number, pascals: u32::MAX }, 11),
            (Reading::Temperature { number, centidegrees: i16::MIN }, 9),
            (Reading::Stroke { number, down, up: down }, MESSAGE_MAX),
        ];
        for (reading, len) in readings {
            let mut bytes = [0; MESSAGE_MAX];
            let written = encode(&reading, &mut bytes);
            assert_eq!((decode(written), written.len()), (Some(reading), len));
        }
        let reports = [
            Report::Started { start: number, reset: Reset::Fault { address: number }, before: number },
            Report::Executed { command: Command::SetPeriod(number), maybe_again: true },
            Report::Missed { commands: number },
            Report::Health { stack: number, longest_turn: number, dropped: number },
        ];
        for report in reports {
            assert_eq!(decode(encode(&report, &mut [0; MESSAGE_MAX])), Some(report));
        }
    }

    #[test]
    fn messages_are_these_bytes() {
        let (down, up) = ([7; SAMPLES], [8; SAMPLES]);
        let stroke = [&[2, 3][..], &down, &up].concat();
        let readings: [(&[u8], Reading); 3] = [
            (&[0, 0xac, 0x02, 0xcd, 0x97, 0x06], Reading::Pressure { number: 300, pascals: 101_325 }),
            (&[1, 5, 0xa1, 0x1f], Reading::Temperature { number: 5, centidegrees: -2001 }),
            (&stroke, Reading::Stroke { number: 3, down, up }),
        ];
        for (bytes, reading) in readings {
            assert_eq!(encode(&reading, &mut [0; MESSAGE_MAX]), bytes, "{reading:?}");
        }
        let started = |reset| Report::Started { start: 2, reset, before: 242 };
        let first = Report::Started { start: 1, reset: Reset::Power, before: 0 };
        let reports: [(&[u8], Report); 10] = [
            // docs/devices.md shows this one, and the one that was asked for.
            (&[0, 1, 0, 0], first),
            (&[0, 2, 0, 0xf2, 1], started(Reset::Power)),
            (&[0, 2, 1, 0xf2, 1], started(Reset::Asked)),
            (&[0, 2, 2, 9, 0xf2, 1], started(Reset::Panic { line: 9 })),
            (&[0, 2, 3, 0x80, 1, 0xf2, 1], started(Reset::Fault { address: 128 })),
            (&[0, 2, 4, 0xf2, 1], started(Reset::Watchdog)),
            (&[1, 2, 1], Report::Executed { command: Command::Reboot, maybe_again: true }),
            (&[1, 0, 8, 0], Report::Executed { command: Command::SetPeriod(8), maybe_again: false }),
            (&[2, 4], Report::Missed { commands: 4 }),
            (&[3, 1, 2, 3], Report::Health { stack: 1, longest_turn: 2, dropped: 3 }),
        ];
        for (bytes, report) in reports {
            assert_eq!(encode(&report, &mut [0; MESSAGE_MAX]), bytes, "{report:?}");
        }
    }

    #[test]
    fn commands_are_a_few_bytes_that_anybody_can_write() {
        let commands: [(&[u8], Command); 7] = [
            (&[0, 100], Command::SetPeriod(100)),
            (&[1], Command::ReadNow),
            (&[2], Command::Reboot),
            (&[3], Command::Stop),
            (&[4, 0], Command::Break(Breakdown::Panic)),
            (&[4, 1], Command::Break(Breakdown::Fault)),
            (&[4, 2], Command::Break(Breakdown::Hang)),
        ];
        for (bytes, command) in commands {
            assert_eq!(decode(bytes), Some(command));
            assert_eq!(encode(&command, &mut [0; MESSAGE_MAX]), bytes);
        }
        for bytes in [&[][..], &[0], &[5], &[4, 3], &[2, 0]] {
            assert_eq!(decode::<Command>(bytes), None, "{bytes:?}");
        }
    }
}
