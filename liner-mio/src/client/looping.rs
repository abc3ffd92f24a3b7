//! The thread that drives a client's node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use liner_proto::delivery::SendMode;
use liner_proto::id::SendId;
use liner_proto::router::{Message, PutAsideError, SendError, SendOptions, Settle};
use liner_proto::time::Instant;
use liner_proto::wire::record::Mode;

use super::blocked::{Begun, Blocked};
use super::command::{Commands, Found, Job, JobEnd, Promise};
use super::dispatch::Dispatch;
use super::error::{ClientSendError, ClientStopError};
use super::handling::Kept;
use super::settings::{Backpressure, Settings, Status};
use crate::clock::Clock;
use crate::error::{DriveError, StopError};
use crate::handler::Handler;
use crate::node::Node;

/// How a run has ended.
#[derive(Debug)]
pub(super) enum End {
    Stopped(Result<(), ClientStopError>),
    Failed(DriveError),
}

/// Somebody waits until a message is stored.
struct Waiting {
    id: SendId,
    promise: Promise,
    until: Instant,
    told: Told,
}

/// What somebody is told of who waits.
enum Told {
    /// So many messages of a call are queued; what came behind them was refused.
    Sent(usize, Option<ClientSendError>),
    /// What became of those that were posted.
    Posted(Option<ClientSendError>),
    /// Whether everything is acknowledged.
    Acknowledged,
}

impl Waiting {
    /// Says whether that is so. Gives back what is still to be told of those that were posted.
    fn answer(self, is_stored: bool) -> Option<ClientSendError> {
        let (sent, refused) = match &self.told {
            Told::Sent(sent, refused) => (*sent, *refused),
            Told::Posted(refused) => (0, *refused),
            Told::Acknowledged => (0, None),
        };
        let unknown = ClientSendError::Unknown { id: self.id, sent };
        self.promise.answer(if is_stored { refused.map_or(Ok(self.id), Err) } else { Err(unknown) });
        refused.filter(|_| !is_stored && matches!(self.told, Told::Posted(_)))
    }
}

pub(super) struct Loop {
    node: Node,
    commands: Arc<Commands>,
    dispatch: Arc<Dispatch>,
    backpressure: Backpressure,
    patience: Duration,
    clock: Clock,
    /// What waits for room.
    blocked: Blocked,
    /// In the order of their messages.
    waiting: VecDeque<Waiting>,
    /// Those who wait until everything is acknowledged.
    idle: Vec<Waiting>,
    /// What went wrong first with what was posted since the last flush.
    posted: Option<ClientSendError>,
    /// Posted messages and their bytes that are queued or refused, and count against what may be posted still.
    posted_done: (usize, usize),
    /// The run is to end, and the callback is waited for until then.
    stopping: Option<Instant>,
    /// Why the run cannot go on.
    failed: Option<String>,
}

/// Hands what arrives to the dispatcher.
struct Passing<'a>(&'a Dispatch);

impl Handler for Passing<'_> {
    fn message(&mut self, message: &Message<'_>) {
        self.take(message);
    }

    fn take(&mut self, message: &Message<'_>) -> Settle {
        if self.0.put(Kept::of(message)) { Settle::Later } else { Settle::Now }
    }
}

impl Loop {
    pub(super) fn new(
        node: Node,
        settings: &Settings,
        commands: Arc<Commands>,
        dispatch: Arc<Dispatch>,
    ) -> Self {
        Self {
            node,
            commands,
            dispatch,
            backpressure: settings.backpressure,
            patience: settings.patience,
            clock: Clock::start(),
            blocked: Blocked::default(),
            waiting: VecDeque::new(),
            idle: Vec::new(),
            posted: None,
            posted_done: (0, 0),
            stopping: None,
            failed: None,
        }
    }

    /// Tells whether the run has begun, and drives it to its end.
    pub(super) fn run(mut self, tell: &SyncSender<Result<(), DriveError>>) -> End {
        // The first turn: what others find of this node by a shared store is there when it has ended.
        let begun = self.node.drive(Some(Duration::ZERO), &mut Passing(&self.dispatch)).map(|_| ());
        let is_over = begun.is_err();
        // Whoever has started it waits for this.
        let _ = tell.send(begun);
        if is_over {
            return End::Stopped(Ok(()));
        }
        loop {
            self.take_commands();
            if self.may_stop() {
                // What the last callback has settled came before it had ended.
                self.commands.seal();
                self.take_commands();
                break End::Stopped(self.stop());
            }
            self.answer();
            let timeout = if self.commands.may_sleep() { self.timeout() } else { Some(Duration::ZERO) };
            if let Err(error) = self.node.drive(timeout, &mut Passing(&self.dispatch)) {
                self.failed = Some(error.to_string());
                break End::Failed(error);
            }
            let stores = self.node.send_mode() == SendMode::Stored;
            self.commands.note_store(self.node.store_refusal().filter(|_| stores));
            self.tell_events();
            self.retry_blocked();
        }
    }

    // ------------------------------------------------------------------ commands

    fn take_commands(&mut self) {
        let Found { jobs, asks, settled, letters, stop } = self.commands.take();
        for receipt in settled {
            self.node.settle(receipt);
        }
        for letter in letters {
            if self.node.put_failed_aside(&letter.0.message()) == Err(PutAsideError::Full) {
                self.dispatch.keep_for_later(letter);
            }
        }
        let now = self.clock.now();
        for job in jobs {
            let patience = match job.end {
                JobEnd::Sent => self.room_patience(),
                JobEnd::Flushed => self.patience,
                JobEnd::Acknowledged(patience) => patience,
            };
            self.begin(Begun { job, next: 0, until: now + patience, has_looked: false });
        }
        self.note_posted();
        for ask in asks {
            ask(&mut self.node);
        }
        if let Some(patience) = stop {
            let until = self.clock.now() + patience;
            self.stopping.get_or_insert(until);
            self.dispatch.end();
        }
    }

    fn room_patience(&self) -> Duration {
        match self.backpressure {
            Backpressure::Block(patience) => patience,
            // For as long as it is the store that makes room.
            Backpressure::Refuse | Backpressure::DropOldest => self.patience,
        }
    }

    /// Sends what has room now; the rest waits behind what came before it.
    fn begin(&mut self, begun: Begun) {
        if self.blocked.holds_up(&begun) {
            self.blocked.push(begun);
        } else if let Some(blocked) = self.send(begun) {
            self.blocked.push(blocked);
        }
    }

    fn retry_blocked(&mut self) {
        while let Some(begun) = self.blocked.pop_posted() {
            if let Some(begun) = self.send(begun) {
                self.blocked.push_front_posted(begun);
                break;
            }
        }
        // What was posted since is not waited for.
        let now = self.clock.now();
        let mut held: Vec<Begun> = Vec::new();
        for begun in self.blocked.take_calls(now) {
            // It comes after those that were handed over before it to the same topic, if there is no room for them.
            let is_behind =
                begun.until > now && held.iter().any(|before| before.job.topic == begun.job.topic);
            held.extend(if is_behind { Some(begun) } else { self.send(begun) });
        }
        self.blocked.put_back_calls(held);
        for begun in self.blocked.take_waits() {
            self.sent(begun.job, begun.until);
        }
        self.note_posted();
    }

    fn note_posted(&mut self) {
        let (messages, bytes) = core::mem::take(&mut self.posted_done);
        if messages > 0 {
            self.commands.note_posted(messages, bytes);
        }
    }

    /// Nothing is waited for with a job that was posted, any more.
    fn end_posted(&mut self, job: &Job) {
        self.posted_done.0 += 1;
        self.posted_done.1 += job.bytes();
    }

    /// Sends as much as has room. Gives back what has not.
    fn send(&mut self, mut begun: Begun) -> Option<Begun> {
        while let Some(payload) = begun.job.payloads.get(begun.next) {
            match self.node.send_with(&begun.job.topic, payload, &begun.job.options) {
                Ok(_) => begun.next += 1,
                Err(SendError::Busy) if self.waits_for_room(begun.until) => return Some(begun),
                Err(SendError::Unavailable | SendError::StoreFull) if self.clock.now() < begun.until => {
                    return Some(begun);
                }
                Err(SendError::NoAddress) if !begun.has_looked && self.stopping.is_none() => {
                    // Somebody may have come to a shared directory just now.
                    begun.has_looked = true;
                    self.node.refresh_directory();
                    return Some(begun);
                }
                Err(error) => {
                    self.refuse(begun, error);
                    return None;
                }
            }
        }
        self.sent(begun.job, begun.until);
        None
    }

    /// Whether a message that has no room now may have some later.
    fn waits_for_room(&self, until: Instant) -> bool {
        let store_makes_room = self.node.stored_through() < self.node.sent_through();
        // Peers may never make any, and a stop does not wait for them.
        let peers_may = matches!(self.backpressure, Backpressure::Block(_)) && self.stopping.is_none();
        (store_makes_room || peers_may) && self.clock.now() < until
    }

    fn refuse(&mut self, begun: Begun, why: SendError) {
        let sent = begun.next;
        if why == SendError::Busy {
            self.dispatch.tell(Status::Busy { topic: begun.job.topic.clone() });
        }
        let error = ClientSendError::refused(why, sent);
        match begun.job.promise {
            Some(promise) if sent == 0 || !self.stores(&begun.job.options) => promise.answer(Err(error)),
            // That those before it were sent means that they are stored.
            Some(promise) => self.wait_until_stored(promise, Told::Sent(sent, Some(error))),
            None => {
                self.posted.get_or_insert(error);
                self.end_posted(&begun.job);
            }
        }
    }

    /// All of it is queued.
    fn sent(&mut self, job: Job, until: Instant) {
        let stores = self.stores(&job.options);
        let sent = job.payloads.len();
        let Some(promise) = job.promise else { return self.end_posted(&job) };
        let id = self.node.sent_through();
        match job.end {
            JobEnd::Acknowledged(_) => {
                self.idle.push(Waiting { id, promise, until, told: Told::Acknowledged });
            }
            JobEnd::Flushed => {
                let told = Told::Posted(self.posted.take());
                self.wait_until_stored(promise, told);
            }
            JobEnd::Sent if stores => self.wait_until_stored(promise, Told::Sent(sent, None)),
            JobEnd::Sent => promise.answer(Ok(id)),
        }
    }

    /// Whether a message that is sent so is stored before its sender is told.
    fn stores(&self, options: &SendOptions) -> bool {
        options.mode != Mode::BestEffort && self.node.send_mode() == SendMode::Stored
    }

    /// Whoever was promised it is told when everything that was sent so far is stored.
    fn wait_until_stored(&mut self, promise: Promise, told: Told) {
        let (id, until) = (self.node.sent_through(), self.clock.now() + self.patience);
        self.waiting.push_back(Waiting { id, promise, until, told });
    }

    /// Tells those whose messages are stored, and those who have waited for too long.
    fn answer(&mut self) {
        let stored = self.node.stored_through();
        let now = self.clock.now();
        while let Some(waiting) =
            self.waiting.pop_front_if(|waiting| waiting.id <= stored || waiting.until <= now)
        {
            let is_stored = waiting.id <= stored;
            self.tell(waiting, is_stored);
        }
        for begun in self.blocked.take_late_waits(now) {
            if let Some(promise) = begun.job.promise {
                let id = self.node.sent_through();
                promise.answer(Err(ClientSendError::Unknown { id, sent: 0 }));
            }
        }
        if self.idle.is_empty() {
            return;
        }
        let is_idle = self.node.is_idle();
        let is_over = |waiting: &mut Waiting| is_idle || waiting.until <= now;
        let over: Vec<Waiting> = self.idle.extract_if(.., is_over).collect();
        over.into_iter().for_each(|waiting| self.tell(waiting, is_idle));
    }

    fn tell(&mut self, waiting: Waiting, is_stored: bool) {
        // It was the first of those that are still to be told.
        self.posted = waiting.answer(is_stored).or(self.posted.take());
    }

    // ------------------------------------------------------------------ the rest

    /// How long nothing is to be done, if nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let waiting = self.waiting.front().into_iter().chain(&self.idle).map(|waiting| waiting.until);
        let until = waiting.chain(self.blocked.deadline()).chain(self.stopping).min()?;
        Some(until.since(self.clock.now()))
    }

    fn tell_events(&mut self) {
        while let Some(event) = self.node.poll_event() {
            self.dispatch.tell(Status::Event(event));
        }
    }

    fn may_stop(&self) -> bool {
        let is_done = || self.dispatch.has_ended() && self.blocked.is_empty();
        self.stopping.is_some_and(|until| is_done() || until <= self.clock.now())
    }

    fn stop(&mut self) -> Result<(), ClientStopError> {
        self.retry_blocked();
        self.refuse_blocked();
        self.store_and_stop().map_err(ClientStopError::NotStored)?;
        self.posted.take().map_or(Ok(()), |error| Err(ClientStopError::Posted(error)))
    }

    /// What has found no room by now is not sent any more.
    fn refuse_blocked(&mut self) {
        while let Some(begun) = self.blocked.pop() {
            match begun.job.end {
                JobEnd::Sent => {
                    let why = self.node.store_refusal().unwrap_or(SendError::Busy);
                    self.refuse(begun, why);
                }
                // Everything before it is done with.
                JobEnd::Flushed | JobEnd::Acknowledged(_) => self.sent(begun.job, begun.until),
            }
        }
    }

    fn store_and_stop(&mut self) -> Result<(), StopError> {
        // What was settled is acknowledged, so that nobody has to send it again.
        let until = self.clock.now() + self.patience;
        loop {
            let is_stored = self.node.is_stored();
            let left = if is_stored { Duration::ZERO } else { until.since(self.clock.now()) };
            self.node.drive(Some(left), &mut Passing(&self.dispatch))?;
            if is_stored || left.is_zero() {
                break;
            }
        }
        self.node.stop(self.patience, &mut Passing(&self.dispatch))
    }
}

impl Drop for Loop {
    /// Nobody waits for an answer any more, however the run has ended.
    fn drop(&mut self) {
        self.commands.close();
        if std::thread::panicking() {
            self.failed = Some("the loop's thread has panicked".to_owned());
        }
        // Whoever is told may run the client anew.
        if let Some(why) = self.failed.take() {
            self.dispatch.tell(Status::Failed { why: why.into() });
        }
        self.dispatch.end();
        let stored = self.node.stored_through();
        while let Some(begun) = self.blocked.pop() {
            let (id, sent) = (self.node.sent_through(), begun.next);
            let error =
                if sent == 0 { ClientSendError::NotRunning } else { ClientSendError::Unknown { id, sent } };
            begun.job.promise.into_iter().for_each(|promise| promise.answer(Err(error)));
        }
        for waiting in self.waiting.drain(..).chain(self.idle.drain(..)) {
            let is_stored = waiting.id <= stored && !matches!(waiting.told, Told::Acknowledged);
            let _ = waiting.answer(is_stored);
        }
    }
}
