//! The thread that calls callbacks, and what waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use liner_proto::router::Message;
use liner_proto::time::Instant;

use super::command::Commands;
use super::handling::{Callback, Failures, Kept, Letter, PANICKED, Taken};
use super::lock;
use super::settings::Status;
use super::status::StatusPlace;
use crate::clock::Clock;

/// Statuses that wait for the callback; beyond them the oldest are dropped and counted.
const STATUSES_MAX: usize = 1024;

/// Bytes of best-effort messages that wait for the callback; beyond them new ones are dropped. The others have windows.
const LOOSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a message waits that is to be a dead letter while there is no room for more.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Messages of one sender, in their order.
#[derive(Default)]
struct Stream {
    queue: VecDeque<Box<Kept>>,
    /// Whether it stands in the list of those that have a turn.
    listed: bool,
    /// Its first message has failed, and is not tried again before; never, if it halts.
    paused: Option<Pause>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    Until(Instant),
    ForEver,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<u64, Stream>,
    /// Streams that have a turn, in its order.
    turns: VecDeque<u64>,
    paused: BTreeSet<(Instant, u64)>,
    statuses: VecDeque<Status>,
    missed: u64,
    loose_bytes: usize,
    sleeps: bool,
    ending: bool,
    ended: bool,
}

impl State {
    fn list(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.queue.is_empty() && stream.paused.is_none() {
            self.streams.remove(&id);
        } else if !stream.listed && stream.paused.is_none() {
            stream.listed = true;
            self.turns.push_back(id);
        }
    }

    /// Streams whose pause is over have a turn again.
    fn wake_paused(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.paused.first().filter(|(at, _)| *at <= now) {
            self.paused.remove(&(at, id));
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.paused = None;
            }
            self.list(id);
        }
    }

    fn pop(&mut self) -> Option<Box<Kept>> {
        while let Some(id) = self.turns.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.listed = false;
            let kept = if stream.paused.is_none() { stream.queue.pop_front() } else { None };
            self.list(id);
            if let Some(kept) = kept {
                if !kept.is_numbered() {
                    self.loose_bytes -= kept.bytes();
                }
                return Some(kept);
            }
        }
        None
    }

    fn tell(&mut self, status: Status) {
        if self.statuses.len() == STATUSES_MAX {
            self.statuses.pop_front();
            self.missed += 1;
        }
        self.statuses.push_back(status);
    }
}

/// What waits for the dispatcher's thread.
pub(super) struct Dispatch {
    state: Mutex<State>,
    news: Condvar,
    ended: Condvar,
    failures: Failures,
    clock: Clock,
    commands: Arc<Commands>,
}

enum Work {
    Message(Box<Kept>),
    Status(Status),
    End,
}

impl Dispatch {
    pub(super) fn new(failures: Failures, commands: Arc<Commands>) -> Self {
        Self {
            state: Mutex::default(),
            news: Condvar::new(),
            ended: Condvar::new(),
            failures,
            clock: Clock::start(),
            commands,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        if core::mem::take(&mut state.sleeps) {
            self.news.notify_one();
        }
    }

    /// A message has arrived. Says whether it is to be settled.
    pub(super) fn put(&self, kept: Box<Kept>) -> bool {
        let is_numbered = kept.is_numbered();
        self.change(|state| {
            if !is_numbered {
                if state.loose_bytes + kept.bytes() > LOOSE_BYTES_MAX {
                    return;
                }
                state.loose_bytes += kept.bytes();
            }
            let id = kept.receipt.stream();
            state.streams.entry(id).or_default().queue.push_back(kept);
            state.list(id);
        });
        is_numbered
    }

    pub(super) fn tell(&self, status: Status) {
        self.change(|state| state.tell(status));
    }

    pub(super) fn tell_failed(&self, message: &Message<'_>, why: &str) {
        let (from, topic) = (message.from.into(), message.topic.into());
        self.tell(Status::CallbackFailed { from, topic, why: why.into() });
    }

    pub(super) fn settle(&self, kept: &Kept) {
        if kept.is_numbered() {
            self.commands.settle(kept.receipt);
        }
    }

    pub(super) fn put_aside(&self, kept: Box<Kept>) {
        if kept.is_numbered() {
            self.commands.put_aside(Letter(kept));
        }
    }

    /// A message was not processed.
    pub(super) fn fail(&self, mut kept: Box<Kept>) {
        if !kept.is_numbered() {
            return;
        }
        kept.failures = kept.failures.saturating_add(1);
        if kept.failures < self.failures.tries {
            let pause = self.failures.pause_after(kept.failures);
            let until = self.clock.now() + pause;
            self.give_back(kept, Pause::Until(until));
        } else if self.failures.halts {
            let message = kept.message();
            let status = Status::Halted { from: message.from.into(), topic: message.topic.into() };
            self.tell(status);
            self.give_back(kept, Pause::ForEver);
        } else {
            self.put_aside(kept);
        }
    }

    /// There is no room for more dead letters.
    pub(super) fn keep_for_later(&self, Letter(kept): Letter) {
        let until = self.clock.now() + NO_ROOM_PAUSE;
        self.give_back(kept, Pause::Until(until));
    }

    fn give_back(&self, kept: Box<Kept>, pause: Pause) {
        self.change(|state| {
            let id = kept.receipt.stream();
            let stream = state.streams.entry(id).or_default();
            // Several may be out at a time, and come back in any order.
            let place = stream.queue.partition_point(|other| other.receipt < kept.receipt);
            stream.queue.insert(place, kept);
            match (stream.paused, pause) {
                (None, Pause::Until(at)) => {
                    stream.paused = Some(pause);
                    state.paused.insert((at, id));
                }
                (Some(Pause::Until(at)), Pause::ForEver) => {
                    state.paused.remove(&(at, id));
                    stream.paused = Some(pause);
                }
                (None, Pause::ForEver) => stream.paused = Some(pause),
                (Some(_), Pause::Until(_)) | (Some(Pause::ForEver), Pause::ForEver) => {}
            }
        });
    }

    /// No callback is called any more, once the one that is being called has returned.
    pub(super) fn end(&self) {
        self.change(|state| state.ending = true);
    }

    /// Whether the last callback has returned.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// Waits for that, for so long at most. Says whether it has.
    pub(super) fn wait_for_end(&self, patience: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.ended.wait_timeout_while(state, patience, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Waits for something to do.
    fn next(&self) -> Work {
        let mut state = lock(&self.state);
        loop {
            if state.missed > 0 {
                let count = core::mem::take(&mut state.missed);
                return Work::Status(Status::Missed { count });
            }
            if let Some(status) = state.statuses.pop_front() {
                return Work::Status(status);
            }
            if state.ending {
                return Work::End;
            }
            let now = self.clock.now();
            state.wake_paused(now);
            if let Some(kept) = state.pop() {
                return Work::Message(kept);
            }
            state.sleeps = true;
            let due = state.paused.first().map(|(at, _)| at.since(now));
            state = match due {
                Some(due) => {
                    let waited = self.news.wait_timeout(state, due);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.sleeps = false;
        }
    }

    fn note_end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        state.streams.clear();
        state.turns.clear();
        state.paused.clear();
        drop(state);
        self.ended.notify_all();
        self.commands.wake();
    }
}

/// What runs on the dispatcher's thread.
pub(super) struct Dispatcher {
    dispatch: Arc<Dispatch>,
    callback: Callback,
    status: Arc<StatusPlace>,
}

impl Dispatcher {
    pub(super) const fn new(dispatch: Arc<Dispatch>, callback: Callback, status: Arc<StatusPlace>) -> Self {
        Self { dispatch, callback, status }
    }

    pub(super) fn run(mut self) {
        loop {
            match self.dispatch.next() {
                Work::End => break,
                Work::Status(status) => self.tell(&status),
                Work::Message(kept) => self.call(kept),
            }
        }
        self.dispatch.note_end();
    }

    fn call(&mut self, kept: Box<Kept>) {
        let taken = Taken::new(kept, Arc::clone(&self.dispatch));
        match &mut self.callback {
            // What the callback had half done when it panicked is its own matter: it is called again.
            Callback::ByReturn(callback) => {
                let failure = catch(|| callback(&taken));
                match failure.unwrap_or_else(|| Some(PANICKED.to_owned())) {
                    None => taken.settle(),
                    Some(why) => {
                        self.dispatch.tell_failed(&taken.message(), &why);
                        taken.fail();
                    }
                }
            }
            Callback::ByHand(callback) => {
                let _ = catch(|| callback(taken));
            }
        }
    }

    fn tell(&self, status: &Status) {
        let Some((mut callback, version)) = self.status.take() else { return };
        let _ = catch(|| callback(status));
        self.status.put_back(callback, version);
    }
}

/// What a call returns, unless it panics.
fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    let caught = catch_unwind(AssertUnwindSafe(call));
    // What it has panicked with is the callback's, and may panic as well when it is dropped.
    caught.map_err(core::mem::forget).ok()
}
