//! A line between two programs that damages and loses bytes, by a seed.
//!
//! Each end is a pseudo-terminal behind a path or a TCP connection ([`Port`]). What chance does to a direction's frames and bytes is
//! fixed by the seed and by their places ([`faults`]); their pace is that of a baud rate ([`throttle`]); and a test can hold frames
//! back, put old ones in again, and take a port away ([`Relay`]).
//!
//! An end that listens and one that dials are one connection: when one goes, the other is reset. A cut resets what is connected
//! by TCP; between two terminals it takes a stretch of bytes with it. What is for an end at which nobody is, is lost.
//!
//! Nothing is kept without bound: when an end does not take what is written to it, the other is not read.

mod clock;
mod direction;
mod end;
pub mod faults;
mod frames;
mod line;
mod tap;
pub mod throttle;

use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

pub use direction::Counts;
pub use end::Port;
pub use faults::{Damage, Rates};
pub use tap::{Frames, KEPT};

use line::Line;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// What a relay is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first end.
    pub a: Port,
    /// The second end.
    pub b: Port,
    /// Where all chance comes from.
    pub seed: u64,
    /// How often what happens, in each direction.
    pub rates: Rates,
    /// Bits a second in each direction, ten for a byte; none for as fast as it goes.
    pub baud: Option<u32>,
}

/// What has happened up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What came from end A.
    pub from_a: Counts,
    /// What came from end B.
    pub from_b: Counts,
    /// How often a program came to an end, or two of them to a connection by TCP.
    pub connections: u64,
    /// How often a connection was reset, by a cut or because one side was gone.
    pub resets: u64,
    /// How often a port was taken away.
    pub removals: u64,
}

impl fmt::Display for Counters {
    /// One JSON object, without a line's end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = |f: &mut fmt::Formatter<'_>, name: &str, counts: &Counts| {
            let Counts { damage, frames, delivered, unheard } = counts;
            write!(
                f,
                "\"{name}\":{{\"bytes\":{},\"flipped\":{},\"lost\":{},\"inserted\":{},\"cuts\":{},\"stalls\":{},\
                 \"frames_lost\":{},\"frames_doubled\":{},\"frames_delayed\":{},\"delivered\":{delivered},\"unheard\":{unheard},\"frames\":{},\"longest\":{},\"swallowed\":{}}}",
                damage.bytes,
                damage.flipped,
                damage.lost,
                damage.inserted,
                damage.cuts,
                damage.stalls,
                damage.frames_lost,
                damage.frames_doubled,
                damage.frames_delayed,
                frames.count,
                frames.longest,
                frames.swallowed,
            )
        };
        f.write_str("{")?;
        counts(f, "from_a", &self.from_a)?;
        f.write_str(",")?;
        counts(f, "from_b", &self.from_b)?;
        let Self { connections, resets, removals, .. } = self;
        write!(f, ",\"connections\":{connections},\"resets\":{resets},\"removals\":{removals}}}")
    }
}

/// Something for the loop to do between two turns.
struct Command(Box<dyn FnOnce(&mut Line) + Send>);

/// A relay at work in a thread of its own, which ends when this is dropped.
///
/// What is asked of it has happened when the call returns. It fails only if the relay itself could not go on.
#[derive(Debug)]
pub struct Relay {
    /// Nothing once it is being dropped.
    commands: Option<Sender<Command>>,
    wake: UnixStream,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Relay {
    /// Makes both ends and starts.
    ///
    /// # Errors
    /// If an end cannot be made: no terminal left, a link or an address that is taken.
    pub fn start(config: Config) -> io::Result<Self> {
        let mut line = Line::new(config)?;
        let (wake, mut woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let (commands, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("relay".to_owned());
        let thread = thread.spawn(move || line.run(&receiver, &mut woken))?;
        Ok(Self { commands: Some(commands), wake, thread: Some(thread) })
    }

    /// Where the end of this side listens, if it does.
    ///
    /// # Errors
    /// If the relay has ended. So it is for all that follow.
    pub fn address(&self, side: Side) -> io::Result<Option<SocketAddr>> {
        self.ask(move |line| line.end(side).address())
    }

    /// What has happened up to now.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn counters(&self) -> io::Result<Counters> {
        self.ask(|line| line.counters())
    }

    /// Changes the rates of both directions from here on.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn set_rates(&self, rates: Rates) -> io::Result<()> {
        self.ask(move |line| {
            line.from(Side::A).faults.set_rates(rates);
            line.from(Side::B).faults.set_rates(rates);
        })
    }

    /// Changes the pace of both directions.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn set_baud(&self, baud: Option<u32>) -> io::Result<()> {
        self.ask(move |line| {
            line.from(Side::A).set_baud(baud);
            line.from(Side::B).set_baud(baud);
        })
    }

    /// Resets what is connected by TCP, and loses what was under way in both directions.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn cut(&self) -> io::Result<()> {
        self.ask(Line::cut)
    }

    /// Takes a terminal away as if its plug had been pulled, its link first; at a TCP end nobody is there any more.
    ///
    /// # Errors
    /// If the relay has ended, or the link was not there any more.
    pub fn remove(&self, side: Side) -> io::Result<()> {
        self.ask(move |line| line.remove(side))?
    }

    /// Brings an end back that was taken away: another terminal, behind the same link.
    ///
    /// # Errors
    /// If the relay has ended, or the terminal cannot be made.
    pub fn bring_back(&self, side: Side) -> io::Result<()> {
        self.ask(move |line| line.bring_back(side))?
    }

    /// Lets nothing from this side pass until it is released.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn hold(&self, from: Side) -> io::Result<()> {
        self.ask(move |line| line.from(from).tap.hold())
    }

    /// Ends holding back. What was held back comes back to the caller and not on the line: at most [`KEPT`] bytes.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn release(&self, from: Side) -> io::Result<Vec<u8>> {
        self.ask(move |line| line.from(from).tap.release())
    }

    /// The bytes from this side that passed last, before chance did its part: at most [`KEPT`].
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn recent(&self, from: Side) -> io::Result<Vec<u8>> {
        self.ask(move |line| line.from(from).tap.recent())
    }

    /// Puts bytes between two frames from this side, with a delimiter before and behind them.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn inject(&self, from: Side, bytes: Vec<u8>) -> io::Result<()> {
        self.ask(move |line| line.from(from).tap.inject(&bytes))
    }

    /// Loses the frames from this side that are longer than so many bytes, delimiter included; or none any more.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn swallow_above(&self, from: Side, limit: Option<usize>) -> io::Result<()> {
        self.ask(move |line| line.from(from).tap.swallow_above(limit))
    }

    fn ask<T: Send + 'static>(&self, what: impl FnOnce(&mut Line) -> T + Send + 'static) -> io::Result<T> {
        let ended = || io::Error::other("the relay has ended");
        let (answer, answered) = mpsc::channel();
        let command = Command(Box::new(move |line| {
            // Nobody waits for it any more if the asker is gone.
            let _ = answer.send(what(line));
        }));
        self.commands.as_ref().ok_or_else(ended)?.send(command).map_err(|_| ended())?;
        self.wake();
        answered.recv().map_err(|_| ended())
    }

    fn wake(&self) {
        // A buffer that is full wakes it, too.
        let _ = (&self.wake).write(&[1]);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been told on standard error already.
            let _ = thread.join();
        }
    }
}
