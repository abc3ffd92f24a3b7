//! Connections: what is being written on each, and whether its session lives.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::admission::Source;
use super::line::Line;
use super::loose::Loose;
use super::rival::Contest;
use super::{DialId, OutboxId, PeerId};
use crate::id::{ConnId, Epoch};
use crate::memory::Cursor;
use crate::session::Session;
use crate::time::{Duration, Instant};
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::control::CloseReason;
use crate::wire::handshake::{About, Assigned};

/// How frames are told apart on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A length before each frame, and many messages to a frame: TCP and Unix sockets.
    Length,
    /// COBS with a zero behind each frame, one message to a frame: serial lines, and bridges to them. Such a link may lose and
    /// damage bytes.
    Cobs,
}

/// Bytes to write on a connection, the head before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Frames, and the head of the last one.
    pub head: &'a [u8],
    /// The rest of the last one, where it stands in the queue.
    pub body: &'a [u8],
}

impl Transmit<'_> {
    /// Bytes in all.
    pub const fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) framing: Framing,
    pub(super) session: Session,
    /// Another handshake of the same line, which has not come so far that it takes the place of the session.
    pub(super) next: Option<Box<Session>>,
    /// What a lossy line needs.
    pub(super) line: Option<Box<Line>>,
    pub(super) dial: Option<DialId>,
    /// Where it comes from, if the other side has made it.
    pub(super) source: Source,
    /// The peer, from the moment it has proved that it answers to this handshake.
    pub(super) peer: Option<PeerId>,
    /// Which start of the other side this is, as it says; 0 if it has not said so.
    pub(super) instance: u64,
    /// Listener: who says it is calling. Nothing else changes before the echo.
    pub(super) caller: Option<Caller>,
    /// Frames to write, and how much of them and of the body was written.
    pub(super) head: Vec<u8>,
    pub(super) body: Option<Body>,
    pub(super) written: usize,
    /// Best-effort messages that wait for the link.
    pub(super) loose: Loose,
    pub(super) progress: Instant,
    pub(super) began: Instant,
    pub(super) reason: Option<CloseReason>,
    /// The peer was told a window of no messages.
    pub(super) told_shut: bool,
    listed: bool,
}

/// The part of a frame that stands in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) outbox: OutboxId,
    pub(super) begin: Cursor,
    pub(super) len: usize,
}

/// What a dialler said of itself in the first step.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) about: About,
    /// The epoch of a stream to it, if there is none yet.
    pub(super) fresh: Epoch,
    /// The epochs that it is given, if it can make none.
    pub(super) assigned: Option<Assigned>,
    /// The epoch that it was told.
    pub(super) told: Epoch,
    /// Whether it may take the place of another instance of its name.
    pub(super) contest: Option<Contest>,
}

impl Conn {
    /// The session that has something to say now: the one that is up, unless another handshake of its line goes on.
    pub(super) fn speaking(&self, now: Instant) -> &Session {
        self.next.as_deref().filter(|next| next.owed(now).is_some()).unwrap_or(&self.session)
    }

    pub(super) fn speaking_mut(&mut self, now: Instant) -> &mut Session {
        match &mut self.next {
            Some(next) if next.owed(now).is_some() => next,
            _ => &mut self.session,
        }
    }

    /// Bytes that are not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.head.len() + self.body.map_or(0, |body| body.len) - self.written
    }
}

/// Connections by their ids, which are never given out twice.
#[derive(Debug, Default)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    writable: VecDeque<ConnId>,
    closed: VecDeque<ConnId>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

impl Conns {
    pub(super) fn add(
        &mut self,
        framing: Framing,
        session: Session,
        line: Option<Box<Line>>,
        dial: Option<DialId>,
        now: Instant,
    ) -> ConnId {
        let conn = Conn {
            framing,
            session,
            next: None,
            line,
            dial,
            source: Source::default(),
            peer: None,
            instance: 0,
            caller: None,
            head: Vec::new(),
            body: None,
            written: 0,
            loose: Loose::default(),
            progress: now,
            began: now,
            reason: None,
            told_shut: false,
            listed: false,
        };
        let index = self.slots.iter().position(|slot| slot.conn.is_none()).unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let Some(slot) = self.slots.get_mut(index) else { return ConnId(u64::MAX) };
        slot.generation += 1;
        slot.conn = Some(conn);
        let id = ConnId((u64::from(slot.generation) << 32) | index as u64);
        self.list(id);
        id
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get((id.0 & 0xffff_ffff) as usize)?;
        if u64::from(slot.generation) != id.0 >> 32 {
            return None;
        }
        slot.conn.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut((id.0 & 0xffff_ffff) as usize)?;
        if u64::from(slot.generation) != id.0 >> 32 {
            return None;
        }
        slot.conn.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        self.slots.get_mut((id.0 & 0xffff_ffff) as usize)?.conn.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = ConnId((u64::from(slot.generation) << 32) | index as u64);
            Some((id, slot.conn.as_ref()?))
        })
    }

    /// The connection may have something to write.
    pub(super) fn list(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id)
            && !conn.listed
        {
            conn.listed = true;
            self.writable.push_back(id);
        }
    }

    /// Every connection whose handshake is not finished may have something to write.
    pub(super) fn list_unfinished(&mut self) {
        let is_unfinished = |conn: &Conn| !conn.session.is_up() || conn.next.is_some();
        let unfinished = self.iter().filter(|(_, conn)| is_unfinished(conn)).map(|(id, _)| id);
        for id in unfinished.collect::<Vec<_>>() {
            self.list(id);
        }
    }

    pub(super) fn unlist(&mut self) -> Option<ConnId> {
        while let Some(id) = self.writable.pop_front() {
            if let Some(conn) = self.get_mut(id) {
                conn.listed = false;
                return Some(id);
            }
        }
        None
    }

    /// Ends a session; the peer is told if it can be.
    pub(super) fn close(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(conn) = self.get_mut(id) {
            conn.session.close(reason);
            conn.reason.get_or_insert(reason);
            self.list(id);
        }
    }

    pub(super) fn close_all(&mut self, reason: CloseReason) {
        let ids: Vec<_> = self.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.close(id, reason);
        }
    }

    /// The link is to be closed by the shell.
    pub(super) fn finish(&mut self, id: ConnId) {
        if !self.closed.contains(&id) {
            self.closed.push_back(id);
        }
    }

    pub(super) fn poll_close(&mut self) -> Option<ConnId> {
        self.closed.pop_front()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, stall: Duration) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let id = ConnId((u64::from(slot.generation) << 32) | index as u64);
            let Some(conn) = &mut slot.conn else { continue };
            conn.session.handle_timeout(now);
            if conn.session.is_ending() {
                conn.reason.get_or_insert(CloseReason::Timeout);
            }
            conn.handle_line_timeout(now);
            // A port may be held for as long as its other side likes; whether somebody is there is for the session to find out.
            if conn.unwritten() > 0 && conn.progress + stall <= now && !conn.is_patient() {
                conn.reason.get_or_insert(CloseReason::Timeout);
                self.finish(id);
                continue;
            }
            let contest = conn.caller.as_mut().and_then(|caller| caller.contest.as_mut());
            contest.into_iter().for_each(|contest| contest.handle_timeout(now));
            if conn.session.owed(now).is_some() || conn.line_is_due(now) {
                self.list(id);
            }
        }
    }

    pub(super) fn deadline(&self, now: Instant, stall: Duration) -> Option<Deadline> {
        self.iter().fold(None, |soonest, (_, conn)| {
            let full = conn.unwritten() > 0;
            let write = (full && !conn.is_patient()).then_some((conn.progress + stall, Wakeup::WriteStall));
            let contest = conn.caller.as_ref().and_then(|caller| caller.contest?.deadline());
            let session = earlier(conn.session.deadline(full), conn.line_deadline(now));
            earlier(earlier(soonest, contest), earlier(session, write))
        })
    }
}
