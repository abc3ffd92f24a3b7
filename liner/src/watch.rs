//! What the command waits for: sockets of nodes, a stop, and whatever else a part of it registers.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use liner_mio::Node;
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::failure::Failure;

/// Readable, or at its end, as soon as everything is to stop.
#[derive(Debug)]
pub(crate) struct Stop(StdUnixStream);

impl Stop {
    /// SIGINT and SIGTERM stop; a second one ends the process at once, with 128 and its number as the exit code.
    pub(crate) fn on_signals() -> Result<Self, Failure> {
        let failed = |error| Failure::io("cannot take signals", &error);
        let (read, write) = StdUnixStream::pair().map_err(failed)?;
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and raises it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen)).map_err(failed)?;
            flag::register(signal, Arc::clone(&seen)).map_err(failed)?;
            low_level::pipe::register(signal, write.try_clone().map_err(failed)?).map_err(failed)?;
        }
        Ok(Self(read))
    }

    /// Stops when the second half is dropped.
    pub(crate) fn pair() -> Result<(Self, StdUnixStream), Failure> {
        let (read, write) =
            StdUnixStream::pair().map_err(|error| Failure::io("cannot make a pipe", &error))?;
        Ok((Self(read), write))
    }
}

const STOP: Token = Token(usize::MAX - 1);

/// One poll for everything that a loop waits for.
#[derive(Debug)]
pub(crate) struct Watch {
    poll: Poll,
    events: Events,
    stopped: bool,
    /// Registered as long as it lives.
    _stop: UnixStream,
}

impl Watch {
    pub(crate) fn new(stop: Stop) -> Result<Self, Failure> {
        let failed = |error| Failure::io("cannot set up the event loop", &error);
        let poll = Poll::new().map_err(failed)?;
        stop.0.set_nonblocking(true).map_err(failed)?;
        let mut stop = UnixStream::from_std(stop.0);
        poll.registry().register(&mut stop, STOP, Interest::READABLE).map_err(failed)?;
        Ok(Self { poll, events: Events::with_capacity(16), stopped: false, _stop: stop })
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Whether the stop has come.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Waits for something to happen, at most this long.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Failure::io("the event loop failed", &error));
            }
            _ => {}
        }
        self.stopped |= self.events.iter().any(|event| event.token() == STOP);
        Ok(())
    }

    /// Whether the latest wait ended because of this.
    pub(crate) fn saw(&self, token: Token) -> bool {
        self.events.iter().any(|event| event.token() == token)
    }

    /// Waits until one of the nodes has something to do, but not longer than `most`.
    pub(crate) fn wait_for(
        &mut self,
        nodes: &mut [&mut Node],
        most: Option<Duration>,
    ) -> Result<(), Failure> {
        let mut timeout = most;
        for (index, node) in nodes.iter_mut().enumerate() {
            if let Some(due) = node.next_deadline() {
                timeout = Some(timeout.map_or(due, |timeout| timeout.min(due)));
            }
            // Tells of what came up since, and of what an earlier drive left: edges are not enough for that.
            let token = Token(index);
            self.poll
                .registry()
                .reregister(*node, token, Interest::READABLE)
                .map_err(|error| Failure::io("the event loop failed", &error))?;
        }
        self.wait(timeout)
    }

    /// Registers the nodes that [`wait_for`](Self::wait_for) will be called with, in that order.
    pub(crate) fn register(&mut self, nodes: &mut [&mut Node]) -> Result<(), Failure> {
        for (index, node) in nodes.iter_mut().enumerate() {
            self.poll
                .registry()
                .register(*node, Token(index), Interest::READABLE)
                .map_err(|error| Failure::io("cannot set up the event loop", &error))?;
        }
        Ok(())
    }
}
