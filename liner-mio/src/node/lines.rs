//! The node's lines to devices.

use liner_proto::id::ConnId;
use liner_proto::line::LineStats;
use liner_proto::router::Router;
use liner_proto::time::Instant;

use super::Node;
use crate::link::{Line, LineState, LineUrl, Place, SerialError, SerialPort, State, Stream, Target};
use crate::resolver::Found;

/// A line is open, and the device at its other end is the one to begin.
fn accept(router: &mut Router, now: Instant, line: &LineUrl) -> ConnId {
    router.handle_line(now, line.config())
}

impl Node {
    /// Opens the lines whose time has come.
    pub(super) fn open_lines(&mut self, now: Instant) {
        for index in 0..self.links.lines.len() {
            let Some(line) = self.links.lines.get_mut(index).filter(|line| line.deadline().is_some()) else {
                continue;
            };
            if !line.take_due(now) {
                continue;
            }
            match line.url().place() {
                Place::Serial(settings) => match SerialPort::open(settings) {
                    Ok(port) => self.add_line(now, index, Stream::Serial(port)),
                    Err(error) => line.failed(now, state_of(&error)),
                },
                Place::Tcp(address) => {
                    if let Some(found) = self.resolver.ask(Target::Line(index), address) {
                        self.connect_found(now, found);
                    }
                }
            }
        }
    }

    fn add_line(&mut self, now: Instant, index: usize, stream: Stream) {
        let Some(line) = self.links.lines.get_mut(index) else { return };
        let conn = accept(&mut self.router, now, line.url());
        line.opened();
        let added = self.links.add(self.poll.registry(), stream, State::Up(conn), Some(index));
        if added.is_err() {
            self.router.handle_closed(now, conn);
            self.line_failed(now, index);
        }
        // What the router has to say on it is for the next turn.
        self.dirty = true;
    }

    /// The bridge has answered.
    pub(super) fn bridge_connected(&mut self, now: Instant, slot: usize, index: usize) {
        let Some(line) = self.links.lines.get_mut(index).filter(|line| !line.is_over()) else {
            self.links.remove(self.poll.registry(), slot);
            return;
        };
        line.opened();
        let conn = accept(&mut self.router, now, line.url());
        self.links.connected(slot, conn);
    }

    /// Bytes have come. Noise, or what a bridge says before it hangs up, is nothing that a device has said.
    pub(super) fn note_heard(&mut self, line: Option<usize>, conn: ConnId) {
        let Some(line) = self.links.line_mut(line).filter(|line| line.is_unproved()) else { return };
        if self.router.line_stats(conn).is_some_and(|stats| stats.frames_received > 0) {
            line.heard();
        }
    }

    /// What an address stands for is known, or that it stands for nothing.
    pub(super) fn connect_found(&mut self, now: Instant, (target, addresses): Found) {
        match target {
            Target::Line(index) if addresses.is_empty() => {
                let Some(line) = self.links.lines.get_mut(index) else { return };
                let why = format!(
                    "the host of {} is not known: look at its name, or after the name server",
                    line.url()
                );
                line.failed(now, LineState::Refused { why });
            }
            Target::Line(_) | Target::Peer(_) => self.connect(now, target, addresses),
        }
    }

    /// It was lost, or nobody answers.
    pub(super) fn line_failed(&mut self, now: Instant, index: usize) {
        if let Some(line) = self.links.lines.get_mut(index) {
            line.failed(now, LineState::Away);
        }
    }

    /// The router has done with a connection. A port stays open, as closing it may switch off what hangs on it: the next
    /// session begins on it as it is. A bridge is dialled anew, as its connection may be dead without having ended.
    pub(super) fn renew_line(&mut self, now: Instant, slot: usize) -> bool {
        let Some(link) = self.links.get_mut(slot) else { return false };
        let (Stream::Serial(_), Some(index)) = (&link.stream, link.line) else { return false };
        let Some(line) = self.links.lines.get(index).filter(|line| !line.is_over()) else { return false };
        let conn = accept(&mut self.router, now, line.url());
        self.links.renew(slot, conn);
        true
    }

    /// What has happened on each line since the start.
    pub fn line_stats(&self) -> impl Iterator<Item = (&LineUrl, LineStats)> {
        self.links.lines.iter().enumerate().map(|(index, line)| {
            let mut stats = line.stats;
            let conn = self.links.conn_of_line(index);
            stats += conn.and_then(|conn| self.router.line_stats(conn)).unwrap_or_default();
            (line.url(), stats)
        })
    }

    /// A connection is over: what happened on its line is kept.
    pub(super) fn keep_line_stats(&mut self, slot: usize, conn: ConnId) {
        let Some(index) = self.links.get_mut(slot).and_then(|link| link.line) else { return };
        let (Some(line), Some(stats)) = (self.links.lines.get_mut(index), self.router.line_stats(conn))
        else {
            return;
        };
        line.stats += stats;
    }

    /// No line is opened any more.
    pub(super) fn end_lines(&mut self) {
        self.links.lines.iter_mut().for_each(Line::end);
    }
}

fn state_of(error: &SerialError) -> LineState {
    if error.is_away() { LineState::Away } else { LineState::Refused { why: error.to_string() } }
}
