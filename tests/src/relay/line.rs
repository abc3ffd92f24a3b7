//! The relay's loop: it waits for whatever can go on, and lets it go on.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::direction::Direction;
use super::end::{End, Moved};
use super::{Command, Config, Counters, Side, clock};

/// The line with its two ends, and with what is done to it.
#[derive(Debug)]
pub(super) struct Line {
    ends: [End; 2],
    /// By the end that the bytes come from.
    directions: [Direction; 2],
    /// One end listens, the other dials: they are one connection.
    coupled: bool,
    /// A cut resets connections.
    resets_at_cut: bool,
    /// The ends that were taken away.
    absent: [bool; 2],
    connections: u64,
    resets: u64,
    removals: u64,
}

/// What the ends are ready for: to be read, to be written.
type Ready = [(bool, bool); 2];

impl Line {
    pub(super) fn new(config: Config) -> io::Result<Self> {
        let ends = [End::new(config.a)?, End::new(config.b)?];
        let direction = |number| Direction::new(config.rates, config.baud, config.seed, number);
        Ok(Self {
            coupled: matches!(
                &ends,
                [End::Listen { .. }, End::Dial { .. }] | [End::Dial { .. }, End::Listen { .. }]
            ),
            resets_at_cut: ends.iter().any(End::is_tcp),
            ends,
            absent: [false; 2],
            directions: [direction(0), direction(1)],
            connections: 0,
            resets: 0,
            removals: 0,
        })
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        let [a, b] = &mut self.ends;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    pub(super) fn from(&mut self, side: Side) -> &mut Direction {
        let [a, b] = &mut self.directions;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let [a, b] = &self.directions;
        Counters {
            from_a: a.counts(),
            from_b: b.counts(),
            connections: self.connections,
            resets: self.resets,
            removals: self.removals,
        }
    }

    /// Takes the port of a side away. Both directions lose what was under way.
    pub(super) fn remove(&mut self, side: Side) -> io::Result<()> {
        self.removals += 1;
        self.lose_all();
        self.set_absent(side, true);
        if self.coupled {
            self.ends.iter_mut().for_each(End::go_down);
        }
        self.end(side).remove()
    }

    /// Brings it back.
    pub(super) fn bring_back(&mut self, side: Side) -> io::Result<()> {
        self.set_absent(side, false);
        self.end(side).bring_back()
    }

    const fn set_absent(&mut self, side: Side, absent: bool) {
        let [a, b] = &mut self.absent;
        match side {
            Side::A => *a = absent,
            Side::B => *b = absent,
        }
    }

    /// Cuts what is connected by TCP, and loses what was under way.
    pub(super) fn cut(&mut self) {
        self.resets += 1;
        self.lose_all();
        self.ends.iter_mut().filter(|end| end.is_tcp()).for_each(End::go_down);
    }

    fn lose_all(&mut self) {
        for direction in &mut self.directions {
            direction.forget();
            direction.reset();
        }
    }

    /// Works until nobody holds the other side of `commands`.
    pub(super) fn run(&mut self, commands: &Receiver<Command>, wake: &mut UnixStream) -> io::Result<()> {
        let zero = clock::read();
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command(command)) => command(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let now = clock::read().duration_since(zero);
            self.come_up(now)?;
            let asked = self.asked(now);
            let ready = self.wait(wake, &asked, now)?;
            let now = clock::read().duration_since(zero);
            self.work(&asked, &ready, now);
        }
    }

    /// Whoever is there at an end now.
    fn come_up(&mut self, now: Duration) -> io::Result<()> {
        if !self.coupled {
            for (end, absent) in self.ends.iter_mut().zip(self.absent) {
                self.connections += u64::from(!absent && end.come_up(now)?);
            }
            return Ok(());
        }
        let [a, b] = &mut self.ends;
        let (listens, dials) = if matches!(a, End::Listen { .. }) { (a, b) } else { (b, a) };
        if listens.come_up(now)? {
            if self.absent == [false; 2] && dials.dial()? {
                self.connections += 1;
            } else {
                // Nobody is there: so it is for the one that has come.
                listens.go_down();
            }
        }
        Ok(())
    }

    /// What each end is to be waited for.
    fn asked(&self, now: Duration) -> Ready {
        let [a, b] = &self.directions;
        [(a.wants_input(now), b.wants_output(now)), (b.wants_input(now), a.wants_output(now))]
    }

    fn wait(&self, wake: &mut UnixStream, asked: &Ready, now: Duration) -> io::Result<Ready> {
        let mut fds = vec![PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)];
        let mut sides = Vec::new();
        for (side, (end, (input, output))) in self.ends.iter().zip(asked).enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, *input);
            flags.set(PollFlags::OUT, *output);
            // A hang-up is told whether it was asked for or not, again and again.
            if let Some(fd) = end.data_fd().filter(|_| !flags.is_empty()) {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                sides.push(side);
            }
        }
        let there = self.ends.iter().zip(self.absent).filter(|(_, absent)| self.coupled || !absent);
        let accepting = there.map(|(end, _)| end);
        fds.extend(
            accepting.filter_map(End::accept_fd).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let ends = self.ends.iter().filter(|_| !self.coupled);
        let left = ends.filter_map(|end| end.left(now));
        let left = left.chain(self.directions.iter().filter_map(|direction| direction.left(now))).min();
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready: Ready = Default::default();
        for (side, fd) in sides.iter().zip(fds.iter().skip(1)) {
            let flags = fd.revents();
            let broken = flags.intersects(PollFlags::HUP | PollFlags::ERR);
            if let Some(ready) = ready.get_mut(*side) {
                *ready = (broken || flags.contains(PollFlags::IN), broken || flags.contains(PollFlags::OUT));
            }
        }
        let woken = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        if woken {
            // How often it was woken says nothing.
            let _ = io::Read::read(wake, &mut [0; 64]);
        }
        Ok(ready)
    }

    fn work(&mut self, asked: &Ready, ready: &Ready, now: Duration) {
        let mut cut = false;
        for from in [0, 1] {
            let [a, b] = &mut self.ends;
            let (source, sink) = if from == 0 { (a, b) } else { (b, a) };
            let (Some(direction), Some((input, _)), Some((ready_in, _))) =
                (self.directions.get_mut(from), asked.get(from), ready.get(from))
            else {
                continue;
            };
            if *input && source.is_up() {
                let (moved, is_cut) = direction.read(source, *ready_in, self.resets_at_cut, now);
                cut |= is_cut;
                if moved == Moved::Gone {
                    // What it said last is still to arrive.
                    direction.write(sink);
                    source.go_down();
                    direction.reset();
                    cut |= self.coupled;
                }
            }
            cut |= direction.take(&[], self.resets_at_cut, now);
            if direction.wants_output(now) && direction.write(sink) == Moved::Gone {
                sink.go_down();
                direction.forget();
                cut |= self.coupled;
            }
        }
        if cut {
            self.cut();
        }
    }
}
