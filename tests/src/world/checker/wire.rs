//! Rules that are checked on every frame as it leaves a node, before the link does anything to it.

use liner_proto::delivery::SendMode;
use liner_proto::effect::GapReason;
use liner_proto::frame::length;
use liner_proto::id::Epoch;
use liner_proto::router::Framing;
use liner_proto::seal;
use liner_proto::wire::batch::Batch;
use liner_proto::wire::handshake::StreamFields;
use liner_proto::wire::record::{Mode, Record};
use liner_proto::wire::{self, Body};

use super::ledger::Way;
use super::line::Line;
use super::rules::Rule;
use super::shadow::Key;
use super::{Aside, Checker, Role};

/// What an observer has seen of one connection. End 0 dialled.
#[derive(Debug)]
pub struct View {
    framing: Framing,
    /// Bytes of each end that are no whole frame yet.
    parts: [Vec<u8>; 2],
    /// What each end said of its stream.
    fields: [Option<StreamFields>; 2],
    greeted: [bool; 2],
    /// What there is of a body that each end sends in pieces.
    pieces: [Vec<u8>; 2],
    /// The same of a lossy line, on which sessions come and go.
    pub(super) line: Line,
}

impl View {
    /// A connection on which nothing was said.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            parts: [Vec::new(), Vec::new()],
            fields: [None, None],
            greeted: [false, false],
            pieces: [Vec::new(), Vec::new()],
            line: Line::default(),
        }
    }

    pub(super) fn is_line(&self) -> bool {
        self.framing == Framing::Cobs
    }
}

/// A direction of a connection: end, and the nodes at both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub end: usize,
    pub from: usize,
    pub to: usize,
}

impl Checker {
    /// The node `from`, at `end` of the connection, has written these bytes for the node `to`.
    pub fn on_bytes(&mut self, view: &mut View, end: usize, (from, to): (usize, usize), bytes: &[u8]) {
        if view.is_line() {
            return self.on_line_bytes(&mut view.line, Course { end, from, to }, bytes);
        }
        let mut part = core::mem::take(&mut view.parts[end]);
        part.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some((frame, consumed)) = next_frame(&part[taken..]) {
            let begin = taken + frame.start + seal::LEN;
            let body = part.get(begin..taken + frame.end).unwrap_or_default();
            taken += consumed;
            if body.is_empty() {
                continue;
            }
            match wire::decode(body) {
                Ok(body) => self.on_frame(view, Course { end, from, to }, &body),
                Err(error) => {
                    self.fail(Rule::NoCorruption, || format!("node {from} sent a bad frame: {error}"));
                }
            }
        }
        part.drain(..taken);
        view.parts[end] = part;
    }

    fn on_frame(&mut self, view: &mut View, course: Course, body: &Body<'_>) {
        let Course { end, from, .. } = course;
        match body {
            Body::Hello(hello) => {
                let right = end == 0 && !view.greeted[0] && hello.name == self.nodes[from].name;
                view.greeted[0] = true;
                self.check(Rule::OnlyFromPeers, right, |_| "a hello out of turn".into());
            }
            Body::Answer(answer) => {
                let right = end == 1 && view.greeted[0] && view.fields[1].is_none();
                view.fields[1] = Some(answer.stream);
                self.check(Rule::OnlyFromPeers, right, |_| "an answer out of turn".into());
                self.check_epoch(from, answer.stream.epoch);
            }
            Body::Confirm(confirm) => {
                let right = end == 0 && view.fields[1].is_some() && view.fields[0].is_none();
                view.fields[0] = Some(confirm.stream);
                self.check(Rule::OnlyFromPeers, right, |_| "an echo out of turn".into());
                self.check_epoch(from, confirm.stream.epoch);
            }
            Body::Close(_) => {}
            Body::Marks(_)
            | Body::Batch(_)
            | Body::Bind(_)
            | Body::Ack(_)
            | Body::Page(_)
            | Body::TopicFull(_)
            | Body::Probe(_)
            | Body::Echo(_)
            | Body::Data(_)
            | Body::Skipped(_)
            | _ => self.on_session_frame(view, course, body),
        }
    }

    fn on_session_frame(&mut self, view: &mut View, course: Course, body: &Body<'_>) {
        let [Some(dialler), Some(listener)] = view.fields else {
            let from = course.from;
            return self
                .fail(Rule::OnlyFromPeers, || format!("node {from} speaks before the handshake: {body:?}"));
        };
        self.counts.count(Rule::OnlyFromPeers);
        let (own, other) = if course.end == 0 { (dialler, listener) } else { (listener, dialler) };
        match body {
            Body::Batch(batch) => {
                view.pieces[course.end].clear();
                self.on_batch(course, own.epoch, batch);
            }
            Body::Fragment(fragment) => {
                let pieces = &mut view.pieces[course.end];
                pieces.extend_from_slice(fragment.bytes);
                if fragment.left == 0 {
                    pieces.clear();
                } else if fragment.left as usize == fragment.bytes.len() {
                    let body = core::mem::take(pieces);
                    match wire::decode(&body) {
                        Ok(Body::Batch(batch)) => self.on_batch(course, own.epoch, &batch),
                        other => {
                            let other = format!("{other:?}");
                            self.fail(Rule::NoCorruption, || format!("pieces that are no batch: {other}"));
                        }
                    }
                }
            }
            // Without a number: whatever it carries is best effort.
            Body::Data(data) => {
                if let Ok(record) = data.record.decode() {
                    self.on_record(course, own.epoch, 0, &record);
                }
            }
            Body::Marks(marks) => self.check_ack(course, &other, marks.acked),
            Body::Hello(_)
            | Body::Answer(_)
            | Body::Confirm(_)
            | Body::Close(_)
            | Body::Bind(_)
            | Body::Ack(_)
            | Body::Page(_)
            | Body::TopicFull(_)
            | Body::Probe(_)
            | Body::Echo(_)
            | Body::Skipped(_)
            | _ => {}
        }
    }

    fn on_batch(&mut self, course: Course, epoch: Epoch, batch: &Batch<'_>) {
        for item in batch.records().flatten() {
            self.on_record(course, epoch, item.first, &item.record);
        }
    }

    pub(super) fn on_record(&mut self, course: Course, epoch: Epoch, number: u64, record: &Record<'_>) {
        let (header, payload) = match record {
            Record::Message { header, payload } => (header, payload),
            Record::Gap { count, reason } => {
                let stream = (course.from, course.to, epoch);
                if *reason == GapReason::TooLarge {
                    self.check_aside(stream, number, number + count - 1);
                }
                let waived = *reason == GapReason::Cleared && !self.nodes[course.to].durable;
                let dropped = waived || *reason == GapReason::Dropped;
                return self.ledger.note_gap(stream, number, number + count - 1, dropped);
            }
        };
        if header.mode == Mode::BestEffort {
            return;
        }
        let Course { from, to, .. } = course;
        let Some(id) = self.ledger.id_of(payload) else {
            return self.fail(Rule::NoCorruption, || format!("node {from} sends a payload that nobody sent"));
        };
        self.bind(Way { from, to, epoch, number, at: self.now }, id);
        let weak = self.nodes[to].role == Role::Gateway
            && self.nodes[to].class < self.nodes[from].class
            && !self.nodes[from].accepts_weak;
        self.check(Rule::DeleteAfterAck, !weak, |this| {
            let (from, to) = (&this.nodes[from].name, &this.nodes[to].name);
            format!("{from} sends message {id} to {to}, whose acknowledgements stand for too little")
        });
        if self.nodes[from].silent {
            return;
        }
        let own = self.ledger.get(id).is_some_and(|sent| sent.node == from);
        if own && self.nodes[from].mode == SendMode::Asynchronous {
            return;
        }
        let key = Key::Node(self.nodes[to].name.clone());
        let queue = self.nodes[from].shadow.queues.get(&key);
        // What was acknowledged or dropped while its frame waited for the link is no longer there.
        let stored = queue.is_some_and(|queue| queue.records.get(&number) == Some(&id))
            || self.is_passed_on(from, to, id)
            || self.ledger.get(id).is_some_and(|sent| sent.dropped || sent.dead[from]);
        self.check(Rule::Stored, stored, |this| {
            format!("{} sends message {id} before it has stored it", this.nodes[from].name)
        });
    }

    /// That messages were too long is told after they are durable as dead letters.
    fn check_aside(&mut self, stream: (usize, usize, Epoch), first: u64, last: u64) {
        let (from, to, epoch) = stream;
        let known = || self.ledger.on_wire(stream, first - 1, last);
        let is_dead = |id| self.ledger.get(id).is_some_and(|sent| sent.dead[from]);
        let all = known().filter(|(_, id)| is_dead(*id)).count() as u64 == last + 1 - first;
        // Of what was put aside in an earlier epoch only the gap has a number in this one.
        let earlier = |aside: &Aside| (aside.from, aside.to) == (from, to) && aside.epoch != epoch;
        let moved = known().next().is_none() && self.asides.iter().any(earlier);
        let silent = self.nodes[from].silent;
        self.check(Rule::Gaps, all || moved || silent, |this| {
            let (from, to) = (&this.nodes[from].name, &this.nodes[to].name);
            format!("{from} tells {to} that {first} to {last} are too large, and has not put them aside")
        });
    }

    /// What is acknowledged is durable at that moment, or was acknowledged before by whoever says where the stream begins.
    pub(super) fn check_ack(&mut self, course: Course, stream: &StreamFields, acked: u64) {
        let Course { from, to, .. } = course;
        if self.nodes[to].silent {
            return;
        }
        let name = &self.nodes[to].name;
        let cursor = self.nodes[from].shadow.cursors.get(name).copied();
        let covered = match (cursor, stream.predecessor) {
            (Some((epoch, through)), _) if epoch == stream.epoch => through,
            (Some((epoch, through)), Some(before)) if epoch == before.epoch => before.translate(through),
            _ => 0,
        };
        let floor = covered.max(stream.oldest.saturating_sub(1));
        // After several new epochs in a row the disk may still have the cursor of an earlier one.
        let on_wire = (acked > floor).then(|| self.ledger.on_wire((to, from, stream.epoch), floor, acked));
        let early: Vec<u32> = on_wire
            .into_iter()
            .flatten()
            .map(|(_, id)| id)
            .filter(|id| !self.is_passed_on(to, from, *id))
            .collect();
        self.check(Rule::AckAfterCommit, early.is_empty(), |this| {
            let (from, to) = (&this.nodes[from].name, &this.nodes[to].name);
            format!("{from} acknowledges {acked} to {to}, messages {early:?} with it, but its disk says {cursor:?}")
        });
    }

    /// An older store gets new epochs before it speaks to anyone.
    pub(super) fn check_epoch(&mut self, node: usize, epoch: Epoch) {
        if self.nodes[node].old_epochs.is_empty() {
            return;
        }
        let fresh = !self.nodes[node].old_epochs.contains(&epoch);
        self.check(Rule::Regression, fresh, |this| {
            format!("{} came back with an older store and goes on in epoch {epoch}", this.nodes[node].name)
        });
    }
}

fn next_frame(bytes: &[u8]) -> Option<(core::ops::Range<usize>, usize)> {
    let split = length::split(bytes, usize::MAX >> 1).ok()??;
    Some((split.frame, split.consumed))
}
