//! The main loop of a device over a port that implements the traits of `embedded-io`.

use embedded_io::{Read, ReadReady, Write, WriteReady};

use super::Device;
use crate::effect::StoreFault;
use crate::endpoint::Event;
use crate::time::Instant;

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Progress {
    /// Bytes were moved, and there may be more: turn again as soon as everything else was seen to.
    Moved,
    /// The port takes no more bytes now, and has none: turn again when it takes or has some. Only [`Port::turn_ready`] says so.
    Waiting,
    /// Nothing is left to be done: turn again when the port has bytes, after every [`send`](super::send), and when
    /// [`Endpoint::poll_timeout`](crate::endpoint::Endpoint::poll_timeout) is due.
    Idle,
}

/// What went wrong in a turn. All the rest of the turn was done, nothing is lost, and the next turn tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PortError<E> {
    /// The port could not be read. A UART says so of noise and overruns, too; then the bytes that it lost are repeated by the gateway.
    #[error("reading from the port failed")]
    Read(E),
    /// The port took none of what is to be sent. It is kept.
    #[error("writing to the port failed")]
    Write(E),
    /// The port has reached its end: whatever it was connected to is gone.
    #[error("the port has reached its end")]
    Ended,
    /// The store failed; it is asked again.
    #[error("the store failed: {0}")]
    Store(StoreFault),
}

/// A port, and the bytes that it has not taken yet.
///
/// `OUT` bytes hold frames on their way out: at least [`Endpoint::TRANSMIT_MIN`](crate::endpoint::Endpoint::TRANSMIT_MIN), and with messages above a
/// frame that are in a store at least `MESSAGE` and 3, which the compiler checks. A multiple of that
/// keeps a fast port busy. `IN` bytes are read at once, and [`turn`](Self::turn) writes as many at once, so that a port that waits while it
/// writes is read in between: there `IN` should not be above what the UART buffers of what it receives, or bytes are lost there.
///
/// # Blocking
/// It never reads from a port that has nothing. [`turn`](Self::turn) is for ports that cannot say whether they take bytes: each
/// turn waits until the port has taken some, at most for the time that `IN` bytes take on the line, and when all is sent it
/// waits for [`flush`](Write::flush). [`turn_ready`](Self::turn_ready) is for ports that can say so, and never waits.
///
/// # Example
/// ```
/// use liner_proto::endpoint::{DeviceConfig, Endpoint, Event, TopicIndex};
/// use liner_proto::pump::{self, Overflow, Port, Progress};
/// use liner_proto::time::Instant;
/// # use core::convert::Infallible;
/// # use embedded_io::{ErrorType, Read, ReadReady, Write};
/// # struct Uart(Vec<u8>);
/// # impl ErrorType for Uart { type Error = Infallible; }
/// # impl Read for Uart { fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> { unreachable!("nothing is ready") } }
/// # impl ReadReady for Uart { fn read_ready(&mut self) -> Result<bool, Infallible> { Ok(false) } }
/// # impl Write for Uart {
/// #     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> { self.0.extend(bytes); Ok(bytes.len()) }
/// #     fn flush(&mut self) -> Result<(), Infallible> { Ok(()) }
/// # }
/// # struct Board { uart: Uart, micros: u64, slept: bool }
/// # impl Board {
/// #     fn random(&mut self) -> [u64; 2] { [1, 2] }
/// #     fn now(&mut self) -> Instant { self.micros += 1; Instant::from_micros(self.micros) }
/// #     fn reading(&mut self) -> Option<[u8; 4]> { None }
/// #     fn command(&mut self, _: &[u8]) {}
/// #     fn sleep(&mut self) { self.slept = true }
/// # }
/// # let mut board = Board { uart: Uart(Vec::new()), micros: 0, slept: false };
/// # let mut uart = Uart(Vec::new());
/// let config = DeviceConfig::new("press-4", &["readings"], board.random());
/// let mut device = Endpoint::<4096, 256>::new(config, board.now());
/// let mut port = Port::<_, 512>::new(&mut uart);
/// loop {
///     if let Some(reading) = board.reading() {
///         let message = (TopicIndex(0), &reading[..]);
///         let _ = pump::send(&mut device, board.now(), message, Overflow::DropOldest);
///     }
///     let progress = port.turn(&mut device, board.now(), |event| {
///         if let Event::Message { payload, .. } = event { board.command(payload) }
///     });
///     if matches!(progress, Ok(Progress::Idle)) { board.sleep() }
/// #     if board.slept { break }
/// }
/// # assert!(uart.0.ends_with(&[0]), "it has said hello: {:?}", uart.0);
/// ```
#[derive(Debug)]
pub struct Port<P, const OUT: usize, const IN: usize = 32> {
    io: P,
    out: [u8; OUT],
    /// What of `out` the port has not taken: `begin <= end <= OUT`.
    begin: usize,
    end: usize,
    received: [u8; IN],
    /// Bytes were written since the port was last flushed.
    unflushed: bool,
}

impl<P, const OUT: usize, const IN: usize> Port<P, OUT, IN> {
    /// A port that has taken nothing yet.
    pub const fn new(io: P) -> Self {
        const { assert!(IN > 0, "a port reads and writes IN bytes at a time") };
        Self { io, out: [0; OUT], begin: 0, end: 0, received: [0; IN], unflushed: false }
    }

    /// The port itself, for instance to change its speed or to clear its errors.
    pub const fn io_mut(&mut self) -> &mut P {
        &mut self.io
    }

    /// Gives the port back. What it has not taken is forgotten: a frame may be cut off in it, which the gateway survives.
    pub fn into_io(self) -> P {
        self.io
    }

    /// Bytes that are to be sent and that the port has not taken yet.
    pub const fn pending(&self) -> usize {
        self.end - self.begin
    }
}

impl<P: Read + ReadReady + Write, const OUT: usize, const IN: usize> Port<P, OUT, IN> {
    /// One turn of the main loop: reads once if the port has bytes, hands every event to `events`, does what `device` owes
    /// its store, if it has one, and writes once if something is to be sent. `now` is the time at which it was called.
    ///
    /// Waits while the port takes bytes, see [`Port`].
    ///
    /// # Errors
    /// The first thing that went wrong. All the rest was done, and nothing is lost; turn again.
    pub fn turn<D: Device>(
        &mut self,
        device: &mut D,
        now: Instant,
        events: impl FnMut(Event<'_>),
    ) -> Result<Progress, PortError<P::Error>> {
        let (moved, fault) = self.step(device, now, events, |_| Ok(IN));
        if let Some(fault) = fault {
            return Err(fault);
        }
        if moved || self.pending() > 0 {
            return Ok(Progress::Moved);
        }
        if self.unflushed {
            self.io.flush().map_err(PortError::Write)?;
            self.unflushed = false;
        }
        Ok(Progress::Idle)
    }
}

impl<P: Read + ReadReady + Write + WriteReady, const OUT: usize, const IN: usize> Port<P, OUT, IN> {
    /// As [`turn`](Self::turn), for a port that says whether it takes bytes. Never waits, and never flushes: the port has to send
    /// on its own what it has taken.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn turn_ready<D: Device>(
        &mut self,
        device: &mut D,
        now: Instant,
        events: impl FnMut(Event<'_>),
    ) -> Result<Progress, PortError<P::Error>> {
        match self.step(device, now, events, |io| Ok(if io.write_ready()? { OUT } else { 0 })) {
            (_, Some(fault)) => Err(fault),
            (true, None) => Ok(Progress::Moved),
            (false, None) if self.pending() > 0 => Ok(Progress::Waiting),
            (false, None) => Ok(Progress::Idle),
        }
    }
}

/// Whether bytes were moved, and the first thing that went wrong.
type Step<E> = (bool, Option<PortError<E>>);

impl<P: Read + ReadReady + Write, const OUT: usize, const IN: usize> Port<P, OUT, IN> {
    fn step<D: Device>(
        &mut self,
        device: &mut D,
        now: Instant,
        mut events: impl FnMut(Event<'_>),
        room: impl FnOnce(&mut P) -> Result<usize, P::Error>,
    ) -> Step<P::Error> {
        const {
            assert!(
                OUT >= D::OUT_MIN,
                "OUT holds at least one frame, and with a store one message with its length"
            );
        };
        let (heard, deaf) = match self.read() {
            Ok(len) => (len, None),
            Err(fault) => (0, Some(fault)),
        };
        device.hear(now, self.received.get(..heard).unwrap_or_default(), &mut events);
        let served = if self.pending() > 0 {
            // `out` is in use: what the store has is read when all of it is written.
            device.settle(now)
        } else {
            let (len, served) = device.speak(now, &mut self.out, &mut events);
            (self.begin, self.end) = (0, len.min(OUT));
            served
        };
        let (written, dumb) = match self.write(room) {
            Ok(len) => (len, None),
            Err(fault) => (0, Some(PortError::Write(fault))),
        };
        (heard > 0 || written > 0, deaf.or(dumb).or(served.err().map(PortError::Store)))
    }

    /// Reads what is ready, at most once. Returns how much of `received` it was.
    fn read(&mut self) -> Result<usize, PortError<P::Error>> {
        if !self.io.read_ready().map_err(PortError::Read)? {
            return Ok(0);
        }
        match self.io.read(&mut self.received).map_err(PortError::Read)? {
            0 => Err(PortError::Ended),
            len => Ok(len.min(IN)),
        }
    }

    /// Writes at most once, and at most as many bytes as there is `room` for. Returns how many.
    fn write(&mut self, room: impl FnOnce(&mut P) -> Result<usize, P::Error>) -> Result<usize, P::Error> {
        let piece = self.out.get(self.begin..self.end).unwrap_or_default();
        if piece.is_empty() {
            return Ok(0);
        }
        let room = room(&mut self.io)?;
        let piece = piece.get(..room).unwrap_or(piece);
        if piece.is_empty() {
            return Ok(0);
        }
        let len = self.io.write(piece)?.min(piece.len());
        self.begin += len;
        self.unflushed |= len > 0;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::convert::Infallible;

    use embedded_io::{ErrorKind, ErrorType};

    use super::*;
    use crate::rng::Rng;

    /// Takes a few bytes, none, or fails.
    struct Moody {
        rng: Rng,
        taken: Vec<u8>,
    }

    impl ErrorType for Moody {
        type Error = ErrorKind;
    }

    impl Read for Moody {
        fn read(&mut self, _: &mut [u8]) -> Result<usize, ErrorKind> {
            unreachable!("it has nothing")
        }
    }

    impl ReadReady for Moody {
        fn read_ready(&mut self) -> Result<bool, ErrorKind> {
            Ok(false)
        }
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            let len = self.rng.below(9) as usize;
            if len == 0 {
                return Err(ErrorKind::Other);
            }
            let piece = &bytes[..len.min(bytes.len())];
            self.taken.extend_from_slice(piece);
            Ok(piece.len())
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    #[test]
    fn every_byte_is_written_once_and_in_order() {
        for seed in 1..200 {
            let mut port = Port::<_, 256, 7>::new(Moody { rng: Rng::new([seed, 1]), taken: Vec::new() });
            port.out = core::array::from_fn(|place| place as u8);
            (port.begin, port.end) = (3, 250);
            let mut rooms = Rng::new([seed, 2]);
            while port.pending() > 0 {
                let (before, taken) = (port.pending(), port.io.taken.len());
                let written = port.write(|_| Ok(rooms.below(12) as usize)).unwrap_or(0);
                assert_eq!((port.pending(), port.io.taken.len()), (before - written, taken + written));
            }
            assert_eq!(port.into_io().taken, (3..250).collect::<Vec<u8>>(), "seed {seed}");
        }
    }

    /// Says that it took and gave more than there was.
    struct Liar;

    impl ErrorType for Liar {
        type Error = Infallible;
    }

    impl Read for Liar {
        fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
            Ok(into.len() + 1)
        }
    }

    impl ReadReady for Liar {
        fn read_ready(&mut self) -> Result<bool, Infallible> {
            Ok(true)
        }
    }

    impl Write for Liar {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
            Ok(bytes.len() + 1)
        }

        fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    #[test]
    fn a_driver_that_counts_wrongly_breaks_nothing() {
        let mut port = Port::<_, 16, 4>::new(Liar);
        assert_eq!(port.read(), Ok(4));
        port.end = 6;
        assert_eq!(port.write(|_| Ok(16)), Ok(6));
        assert_eq!(port.pending(), 0);
    }
}
