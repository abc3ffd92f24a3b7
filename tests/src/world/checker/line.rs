//! Rules of lossy lines: what is written must be in order, whatever arrives, and what is taken must have arrived whole.
//!
//! The observer sees what each end writes, and what the line makes of it. Of what arrives it demands nothing: a stretch
//! between two zeros counts only if it is, byte for byte, a frame that the other end has written.

use std::collections::BTreeMap;

use liner_proto::frame::cobs;
use liner_proto::id::SessionId;
use liner_proto::seal;
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::handshake::{About, StreamFields};
use liner_proto::wire::record::{Mode, Record};
use liner_proto::wire::varint::take_varint;
use liner_proto::wire::{self, Body};

use super::Checker;
use super::rules::Rule;
use super::wire::{Course, View};
use crate::world::swarm::SECOND;
use crate::world::wire::STALL_MAX;

/// Frames in flight, whatever the window.
const IN_FLIGHT_MAX: u64 = 32;

/// The longest time between two tries, and what a line may be behind.
const PATIENCE: u64 = 31 * SECOND + 2 * STALL_MAX;

/// A side that heard nothing for so long may give a session up; a bit less, as bytes take their time.
const SILENCE: u64 = 14 * SECOND;

/// What waits for so long may end a session, too.
const STALL: u64 = 29 * SECOND;

/// Tags that only a line has.
const ACK: u8 = 0x08;
const BEGIN: u8 = 0x0d;
const GREET: u8 = 0x0e;
const FRAGMENT: u8 = 0x14;
const NUMBERED: u8 = 0x15;
const CLOSE: u8 = 0x04;

/// What was seen of a line. End 0 is the device.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Bytes of each end that are no whole frame yet.
    written: [Vec<u8>; 2],
    /// How long that is if it is a frame that lacks its zero only: noise may be one, or what the next process begins with.
    whole: [usize; 2],
    /// The same of what arrived at each end.
    arrived: [Vec<u8>; 2],
    /// Nonces of the device.
    hellos: Vec<(u64, About)>,
    sessions: Vec<Session>,
    /// What each end has written, by the hash of its bytes.
    frames: [BTreeMap<u64, Vec<(usize, Said)>>; 2],
    /// When each end last heard that there is no session at the other one.
    greeted: [Option<u64>; 2],
}

/// What a frame says that the line's rules speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Frame(u64),
    Ack { received: u64, bitmap: u32, limit: u64 },
    Greet,
    Close,
    Other,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// The nonce of the end that listens.
    nonce: u64,
    abouts: [About; 2],
    streams: [Option<StreamFields>; 2],
    sides: [Side; 2],
    /// Which ends have said that it is over.
    over: [bool; 2],
}

/// What an end has sent in a session.
#[derive(Debug, Default)]
struct Side {
    /// The number of the next record.
    next: u64,
    /// Bytes that a body in pieces still lacks, and what there is of it.
    pieces: Option<(usize, Vec<u8>)>,
    frames: BTreeMap<u64, Frame>,
    /// The newest frame.
    last: u64,
    /// The last frame that the other end may be sent, as it has said in frames that have arrived.
    limit: u64,
    /// Frames up to here are known to have arrived, to this end and to the observer.
    acked: u64,
    seen: u64,
    /// When this end last heard the other one in this session.
    heard: u64,
    /// Whether the other end has said that it is over.
    told: bool,
}

/// A frame with a number.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// The record in it, or that ends with it; 0 if there is none.
    record: u64,
    first: u64,
    last: u64,
    writes: u32,
    arrived: bool,
    acked: bool,
}

impl Line {
    fn session_of(&self, end: usize, frame: &[u8]) -> Option<usize> {
        let sealed = |session: &&(usize, &Session)| seal::open(session.1.id, frame).is_ok();
        let sessions: Vec<(usize, &Session)> = self.sessions.iter().enumerate().collect();
        let known = sessions.iter().rev().take(8).find(sealed);
        // A seal that is not the session's own: it speaks for the newest.
        let newest = || sessions.iter().rev().find(|(_, session)| session.is_up(end));
        known.or_else(newest).map(|(at, _)| *at)
    }

    /// Whether this is a whole frame of a session, without its zero.
    fn is_sealed(&self, raw: &[u8]) -> bool {
        let frame = decoded(raw);
        let ids = self.sessions.iter().rev().take(8).map(|session| session.id);
        frame.len() > seal::LEN && ids.chain([SessionId::HANDSHAKE]).any(|id| seal::open(id, &frame).is_ok())
    }

    fn note(&mut self, end: usize, raw: &[u8], session: usize, said: Said) {
        let known = self.frames[end].entry(hash(raw)).or_default();
        if !known.contains(&(session, said)) {
            known.push((session, said));
        }
    }
}

impl Session {
    const fn is_up(&self, end: usize) -> bool {
        // The device sends the echo first, and the gateway speaks after it has come.
        self.streams[1].is_some() && (end == 1 || self.streams[0].is_some())
    }
}

impl Side {
    /// The number of a frame from its low bits, and whether it is new.
    fn place(&self, low: u16) -> u64 {
        nearest(u64::from(low), 1 << 16, self.last + 1)
    }

    /// What is not known to have arrived and is the oldest.
    fn oldest(&self) -> Option<(u64, Frame)> {
        let mut waiting = self.frames.range(self.acked + 1..).filter(|(_, frame)| !frame.acked);
        waiting.next().map(|(number, frame)| (*number, *frame))
    }
}

impl Checker {
    /// The process at `end` of a line begins: what the one before it had begun to write or to read is gone.
    pub fn on_begin(&self, view: &mut View, end: usize) {
        view.line.written[end].clear();
        view.line.whole[end] = 0;
        view.line.arrived[end].clear();
        view.line.sessions.iter_mut().for_each(|session| session.over[end] = true);
    }

    pub(super) fn on_line_bytes(&mut self, line: &mut Line, course: Course, bytes: &[u8]) {
        for &byte in bytes {
            let part = &mut line.written[course.end];
            if byte != 0 {
                part.push(byte);
                continue;
            }
            let raw = core::mem::take(part);
            let known = core::mem::take(&mut line.whole[course.end]);
            if raw.len() > known {
                self.on_line_frame(line, course, &raw);
            }
        }
        let raw = line.written[course.end].clone();
        let known = line.whole[course.end];
        if raw.len() > known && line.is_sealed(&raw) {
            line.whole[course.end] = raw.len();
            self.on_line_frame(line, course, &raw);
        }
    }

    fn on_line_frame(&mut self, line: &mut Line, course: Course, raw: &[u8]) {
        let Course { end, from, .. } = course;
        let frame = &decoded(raw)[..];
        let Some((&tag, rest)) = frame.get(seal::LEN..).and_then(<[u8]>::split_first) else {
            return self
                .fail(Rule::NoCorruption, || format!("node {from} wrote what is no frame: {raw:02x?}"));
        };
        let body = frame.get(seal::LEN..).unwrap_or_default();
        match tag {
            1..=3 => self.on_greeting(line, course, body),
            GREET => line.note(end, raw, usize::MAX, Said::Greet),
            CLOSE => {
                if let Some(at) = line.session_of(end, frame) {
                    line.note(end, raw, at, Said::Close);
                }
            }
            _ => {
                let session = line.session_of(end, frame).filter(|at| line.sessions[*at].is_up(end));
                self.check(Rule::OnlyFromPeers, session.is_some(), |_| {
                    format!("node {from} speaks before the handshake: {body:02x?}")
                });
                let Some(at) = session else { return };
                self.check_patience(&line.sessions[at].sides[end], course);
                let said = match tag {
                    ACK => self.on_line_ack(&mut line.sessions[at], course, rest),
                    NUMBERED | 0x40..=0x7f => self.on_numbered(&mut line.sessions[at], course, body),
                    _ => self.on_plain(course, body),
                };
                line.note(end, raw, at, said);
            }
        }
    }

    fn on_plain(&mut self, course: Course, body: &[u8]) -> Said {
        if let Err(error) = wire::decode(body) {
            self.fail(Rule::NoCorruption, || format!("node {} sent a bad frame: {error}", course.from));
        }
        Said::Other
    }

    fn on_greeting(&mut self, line: &mut Line, course: Course, body: &[u8]) {
        let Course { end, from, .. } = course;
        let decoded = wire::decode(body);
        if let Ok(Body::Hello(hello)) = decoded {
            let right = end == 0 && hello.name == self.nodes[from].name;
            line.hellos.push((hello.nonce, hello.about));
            self.check(Rule::OnlyFromPeers, right, |_| "a hello out of turn".into());
        } else if let Ok(Body::Answer(answer)) = decoded {
            let hello = line.hellos.iter().rev().find(|(nonce, _)| *nonce == answer.echo);
            let about = hello.map(|(_, about)| *about);
            self.check(Rule::OnlyFromPeers, end == 1 && about.is_some(), |_| "an answer out of turn".into());
            self.check_epoch(from, answer.stream.epoch);
            let id = session_id(answer.echo, answer.nonce);
            let Some(about) =
                about.filter(|_| line.sessions.iter().all(|session| session.id != id || session.over[0]))
            else {
                return;
            };
            line.sessions.push(Session {
                id,
                nonce: answer.nonce,
                abouts: [about, answer.about],
                streams: [None, Some(answer.stream)],
                sides: [Side::default(), Side::default()],
                over: [false; 2],
            });
        } else if let Ok(Body::Confirm(confirm)) = decoded {
            let session = line.sessions.iter_mut().rev().find(|session| session.nonce == confirm.echo);
            self.check(Rule::OnlyFromPeers, end == 0 && session.is_some(), |_| "an echo out of turn".into());
            self.check_epoch(from, confirm.stream.epoch);
            if let Some(session) = session.filter(|session| session.streams[0].is_none()) {
                session.streams[0] = Some(confirm.stream);
                // The gateway has the session from the first frame on that comes in it.
                session.sides[0].heard = self.now;
            }
        } else {
            self.fail(Rule::NoCorruption, || format!("node {from} sent a bad frame: {body:02x?}"));
        }
    }

    // ------------------------------------------------------------------ what is sent

    fn on_numbered(&mut self, session: &mut Session, course: Course, body: &[u8]) -> Said {
        let Some((&[tag, low, high], inner)) = body.split_first_chunk::<3>() else { return Said::Other };
        let low = u16::from_le_bytes([low, high]);
        let Session { abouts, streams, sides, .. } = session;
        let end = course.end;
        let (Some(own), side) = (streams[end], &mut sides[end]) else { return Said::Other };
        let record = if tag == NUMBERED { None } else { record_of(body) };
        if let Some((Record::Message { header, .. }, _)) = &record
            && header.mode == Mode::BestEffort
        {
            return self.on_plain(course, body);
        }
        if side.frames.is_empty() {
            side.limit = side.limit.max(u64::from(abouts[1 - end].window_messages));
        }
        let number = side.place(low);
        let is_new = number > side.last;
        if is_new {
            self.check_new(side, course, number);
        }
        let known = side.frames.get(&number).map(|frame| frame.record);
        let mut of = known.unwrap_or(side.next);
        if let Some((record, _)) = &record {
            self.on_record(course, own.epoch, of, record);
        }
        if is_new {
            side.last = number;
            let carried = match &record {
                Some((_, numbers)) => {
                    side.next += numbers;
                    true
                }
                None => self.on_piece(side, course, own, inner),
            };
            of = if carried { of } else { 0 };
        }
        let now = self.now;
        let fresh = Frame { record: of, first: now, ..Frame::default() };
        let frame = side.frames.entry(number).or_insert(fresh);
        frame.last = now;
        frame.writes += 1;
        Said::Frame(number)
    }

    /// A frame is new: it has the next number, and there is room for it.
    fn check_new(&mut self, side: &Side, course: Course, number: u64) {
        let from = course.from;
        self.check(Rule::Frames, number == side.last + 1, |this| {
            format!("{} leaves out frames between {} and {number}", this.nodes[from].name, side.last)
        });
        let limit = side.limit.min(side.acked + IN_FLIGHT_MAX);
        self.check(Rule::Window, number <= limit, |this| {
            let name = &this.nodes[from].name;
            format!("{name} sends {number}, and {} have arrived, and {} may come", side.acked, side.limit)
        });
    }

    /// What stands behind the number of a frame that is no record. Says whether a record ends with it.
    fn on_piece(&mut self, side: &mut Side, course: Course, own: StreamFields, inner: &[u8]) -> bool {
        let Some((&tag, rest)) = inner.split_first() else { return false };
        if tag == BEGIN {
            side.next = take_varint(rest).map_or(0, |(number, _)| number);
            return false;
        }
        if tag != FRAGMENT {
            self.on_plain(course, inner);
            return false;
        }
        let Ok((left, bytes)) = take_varint(rest) else { return false };
        let left = left as usize;
        let (lacks, mut body) = side.pieces.take().unwrap_or((left, Vec::new()));
        self.check(Rule::Frames, left == lacks || left == 0, |_| {
            format!("a piece of {left} bytes, not {lacks}")
        });
        body.extend_from_slice(bytes);
        if left > bytes.len() {
            side.pieces = Some((left - bytes.len(), body));
            return false;
        }
        let Some((record, numbers)) = record_of(&body).filter(|_| left > 0) else { return false };
        self.on_record(course, own.epoch, side.next, &record);
        side.next += numbers;
        true
    }

    // ------------------------------------------------------------------ what is taken

    /// Nothing is called received that did not arrive whole, in this session.
    fn on_line_ack(&mut self, session: &mut Session, course: Course, rest: &[u8]) -> Said {
        let end = course.end;
        let Some(other) = session.streams[1 - end] else { return Said::Other };
        let side = &mut session.sides[1 - end];
        let [a, b, c, d, e, f, g, h, i, j, window, ..] = *rest else { return Said::Other };
        let (low, bitmap) = (u16::from_le_bytes([a, b]), u32::from_le_bytes([c, d, e, f]));
        let records = side.next.max(other.oldest.max(1)) - 1;
        let acked = nearest(u64::from(u32::from_le_bytes([g, h, i, j])), 1 << 32, records);
        let received = nearest(u64::from(low), 1 << 16, side.last);
        let whole = received <= side.last
            && side
                .frames
                .range(side.seen + 1..=received.max(side.seen + 1))
                .all(|(number, frame)| *number > received || frame.arrived);
        let holes = (0..32).filter(|bit| bitmap >> bit & 1 != 0).map(|bit| received + 2 + bit);
        let known = |number| side.frames.get(&number).is_some_and(|frame| frame.arrived);
        let whole = whole && holes.into_iter().all(known);
        self.check(Rule::Frames, whole, |this| {
            let name = &this.nodes[course.from].name;
            format!("{name} says it has {received} and {bitmap:#x} of this session, and they did not come")
        });
        side.seen = side.seen.max(received);
        // Records follow one another: below one that is committed all are. What is durable may not be acknowledged yet.
        let cursor = self.nodes[course.from].shadow.cursors.get(&self.nodes[course.to].name);
        let durable = cursor.filter(|(epoch, _)| *epoch == other.epoch).map_or(0, |(_, through)| *through);
        let done = acked.max(durable);
        let above = |frame: &&Frame| frame.record == 0 || frame.record > done;
        let held = side.frames.range(..=received).rev().map(|(_, frame)| frame).take_while(above);
        let held = held.filter(|frame| frame.record > 0).count();
        // A window that the handshake told to be shut opens to what it always is.
        let told = Some(session.abouts[end].window_messages).filter(|told| *told > 0);
        let most = told.unwrap_or(self.nodes[course.from].window) as usize;
        let fits = window == 0 || held + usize::from(window) <= most.max(1);
        self.check(Rule::Window, fits, |this| {
            let name = &this.nodes[course.from].name;
            format!("{name} holds {held} that it has not committed, and takes {window} more of {most}")
        });
        self.check_ack(course, &other, acked);
        Said::Ack { received, bitmap, limit: received + u64::from(window) }
    }

    /// These bytes have come to `end`.
    pub fn on_arrival(&mut self, view: &mut View, end: usize, bytes: &[u8]) {
        if !view.is_line() {
            return;
        }
        let line = &mut view.line;
        for &byte in bytes {
            if byte != 0 {
                line.arrived[end].push(byte);
                continue;
            }
            let raw = core::mem::take(&mut line.arrived[end]);
            let Some(known) = line.frames[1 - end].get(&hash(&raw)) else { continue };
            for (session, said) in known {
                match line.sessions.get_mut(*session) {
                    Some(session) => session.on_arrival(end, *said, self.now),
                    None => line.greeted[end] = Some(self.now),
                }
            }
        }
    }

    // ------------------------------------------------------------------ patience

    /// What did not arrive is sent again, and again: whoever speaks in a session has not given it up.
    fn check_patience(&mut self, side: &Side, course: Course) {
        let Some((number, frame)) = side.oldest() else { return };
        let waits = self.now - frame.last;
        self.check(Rule::Liveness, waits <= PATIENCE, |this| {
            let name = &this.nodes[course.from].name;
            format!("{name} has not sent frame {number} again for {waits} us, after {} times", frame.writes)
        });
    }

    /// A node says that its session on this line is over.
    pub fn on_line_end(&mut self, view: &mut View, end: usize, node: usize, reason: CloseReason) {
        let line = &mut view.line;
        // A handshake that came to nothing is no session.
        let session = line.sessions.iter().rev().find(|session| session.is_up(end) && !session.over[end]);
        let side = session.map(|session| &session.sides[end]);
        if let Some(side) = side {
            self.check_end(side, line.greeted[end], Course { end, from: node, to: node }, reason);
        }
        // What replaces a session has begun already.
        let newer = usize::from(reason == CloseReason::Replaced);
        let over = line.sessions.iter_mut().rev().skip(newer);
        over.for_each(|session| session.over[end] = true);
    }

    fn check_end(&mut self, side: &Side, greeted: Option<u64>, course: Course, reason: CloseReason) {
        if reason != CloseReason::Timeout || side.told || side.heard == 0 {
            return;
        }
        self.check_patience(side, course);
        let silent = self.now - side.heard >= SILENCE;
        let stalled = side.oldest().is_some_and(|(_, frame)| self.now - frame.first >= STALL);
        let greeted = greeted.is_some_and(|at| self.now - at <= SECOND + 3 * STALL_MAX);
        self.check(Rule::Liveness, silent || stalled || greeted, |this| {
            format!("{} gives up a session in which it is spoken to", this.nodes[course.from].name)
        });
    }
}

impl Session {
    fn on_arrival(&mut self, end: usize, said: Said, now: u64) {
        let [a, b] = &mut self.sides;
        let (own, other) = if end == 0 { (a, b) } else { (b, a) };
        own.heard = now;
        match said {
            Said::Frame(number) => {
                if let Some(frame) = other.frames.get_mut(&number) {
                    frame.arrived = true;
                }
            }
            Said::Ack { received, bitmap, limit } => {
                own.limit = own.limit.max(limit);
                let is_hole = |number: u64| match number.checked_sub(received + 2) {
                    Some(bit) => bit >= 32 || bitmap >> bit & 1 == 0,
                    None => number > received,
                };
                for (number, frame) in own.frames.range_mut(own.acked + 1..) {
                    if is_hole(*number) {
                        continue;
                    }
                    frame.acked = true;
                }
                own.acked = own.acked.max(received);
            }
            Said::Close => own.told = true,
            Said::Greet | Said::Other => {}
        }
    }
}

/// The frame that stands for these bytes; nothing if there is none.
fn decoded(raw: &[u8]) -> Vec<u8> {
    let mut bytes = [raw, &[0]].concat();
    match cobs::split(&mut bytes, usize::MAX >> 1) {
        cobs::CobsSplit::Frame { frame, .. } => bytes.get(frame).unwrap_or_default().to_vec(),
        cobs::CobsSplit::Empty { .. }
        | cobs::CobsSplit::Incomplete
        | cobs::CobsSplit::Bad { .. }
        | cobs::CobsSplit::TooLong { .. } => Vec::new(),
    }
}

/// The record that a body of Data carries, and how many numbers it has.
fn record_of(body: &[u8]) -> Option<(Record<'_>, u64)> {
    let Ok(Body::Data(data)) = wire::decode(body) else { return None };
    let record = data.record.decode().ok()?;
    let numbers = if let Record::Gap { count, .. } = record { count } else { 1 };
    Some((record, numbers))
}

/// The number with these low bits that is nearest.
fn nearest(low: u64, span: u64, near: u64) -> u64 {
    let below = near - near % span + low;
    let candidates = [below.saturating_sub(span), below, below + span];
    candidates.into_iter().min_by_key(|number| number.abs_diff(near)).unwrap_or(below)
}

/// The session that two nonces make, as `docs/PROTOCOL.md` mixes them.
fn session_id(dialler: u64, listener: u64) -> SessionId {
    let mixed = seal::checksum(SessionId::HANDSHAKE, &[&dialler.to_le_bytes(), &listener.to_le_bytes()]);
    SessionId(mixed.max(1))
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
