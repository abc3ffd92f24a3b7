//! The one worker thread that a node may have: it executes storage requests in their order.
//!
//! A commit whose outcome is not known is resolved before anything else is asked of the store. While there is no request the worker
//! waits for word that others have changed the directory of a shared store, and reads it then unasked.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use liner_proto::effect::{Batch, Outcome, StoreFault};
use liner_proto::rng::Rng;
use liner_proto::router::StoreRequest;
use liner_proto::store::{Notices, Store, apply, resolved};
use liner_proto::timer::BackOff;
use mio::Waker;

use super::desk::{Desk, Next};
use super::{Done, Request, run};
use crate::clock::Clock;
use crate::error::DriveError;

/// Requests that may be with the worker. Above what the router gives out at a time, so that handing over never waits.
const OUTSTANDING_MAX: usize = 16;

/// The longest pause before a store is asked once more what became of a commit, in microseconds.
const RESOLVE_PAUSE_MAX: u32 = 1_000_000;

/// The loop is told of a commit whose outcome is not known for so long.
const UNRESOLVED_AFTER: Duration = Duration::from_secs(1);

/// A result that the worker tells.
pub(super) struct Report {
    pub(super) done: Done,
    /// The store's own words, if it failed.
    pub(super) said: Option<String>,
    /// It answers a request.
    is_answer: bool,
}

/// The loop's side of the worker.
pub(super) struct Worker {
    desk: Arc<Desk>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    outstanding: usize,
}

impl Worker {
    pub(super) fn start(
        store: Box<dyn Store + Send>,
        notices: Option<Box<dyn Notices + Send>>,
        seed: [u64; 2],
        waker: Arc<Waker>,
    ) -> io::Result<Self> {
        let desk = Arc::new(Desk::new(notices.as_ref().map(|notices| notices.interrupter())));
        let (outbox, reports) = channel();
        let (clock, rng) = (Clock::start(), Rng::new(seed));
        let at = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("liner-store".to_owned()).spawn(move || {
            let alarm = Alarm { waker: &waker, reports: Some(outbox) };
            Work { store, notices, desk: &at, alarm, clock, rng, failed: None }.run();
        })?;
        Ok(Self { desk, reports, thread: Some(thread), outstanding: 0 })
    }

    /// Requests that are not answered yet.
    pub(super) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether the worker takes a request without a wait.
    pub(super) const fn has_room(&self) -> bool {
        self.outstanding < OUTSTANDING_MAX
    }

    /// Hands a request over. Only if there [is room](Self::has_room).
    pub(super) fn give(&mut self, request: Request) {
        self.desk.put(request);
        self.outstanding += 1;
    }

    /// The next result, if there is one.
    pub(super) fn take(&mut self) -> Result<Option<Report>, DriveError> {
        match self.reports.try_recv() {
            Ok(report) => {
                self.outstanding -= usize::from(report.is_answer);
                Ok(Some(report))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(DriveError::StoreWorkerGone),
        }
    }
}

impl Drop for Worker {
    /// Waits for what was handed over, so that the store is closed when the node is gone.
    fn drop(&mut self) {
        self.desk.end();
        if let Some(thread) = self.thread.take() {
            // Its panic was already told as `StoreWorkerGone`.
            let _ = thread.join();
        }
    }
}

/// Wakes the loop when the worker ends, in whatever way: the loop has to notice it.
struct Alarm<'w> {
    waker: &'w Waker,
    reports: Option<Sender<Report>>,
}

impl Alarm<'_> {
    /// Says whether anybody is there to hear it.
    fn report(&self, report: Report) -> bool {
        let is_heard = self.reports.as_ref().is_some_and(|reports| reports.send(report).is_ok());
        is_heard && self.waker.wake().is_ok()
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        // The loop finds the channel closed only if that happens first.
        self.reports = None;
        let _ = self.waker.wake();
    }
}

/// What runs on the worker's thread.
struct Work<'w> {
    /// Dropped before the loop is told that the worker is gone.
    store: Box<dyn Store + Send>,
    notices: Option<Box<dyn Notices + Send>>,
    desk: &'w Desk,
    alarm: Alarm<'w>,
    clock: Clock,
    rng: Rng,
    /// The generation of the latest batch that failed: what follows in it is void.
    failed: Option<(u64, StoreFault)>,
}

impl Work<'_> {
    fn run(mut self) {
        while self.step().is_some() {}
    }

    /// Nothing once the worker is to end.
    fn step(&mut self) -> Option<()> {
        match self.desk.next(&self.clock) {
            Next::Request(Request::Store(StoreRequest::Commit(batch))) => {
                let outcome = self.commit(&batch)?;
                self.tell(Done::Committed { id: batch.id(), outcome }, true)
            }
            Next::Request(request) => {
                let done = run(&mut *self.store, request);
                self.tell(done, true)
            }
            Next::Listen(patience) => {
                let is_news = self.notices.as_mut().is_some_and(|notices| notices.wait(patience));
                self.desk.note_heard(&self.clock, is_news);
                Some(())
            }
            Next::Look => {
                let done = Done::Read(self.store.directory());
                self.tell(done, false)
            }
            Next::End => None,
        }
    }

    fn tell(&self, done: Done, is_answer: bool) -> Option<()> {
        let said = if done.failed() { self.store.last_error().map(str::to_owned) } else { None };
        self.alarm.report(Report { done, said, is_answer }).then_some(())
    }

    /// Executes a batch; nothing if its outcome is not known when the node ends.
    fn commit(&mut self, batch: &Batch) -> Option<Outcome> {
        let generation = batch.generation();
        if let Some((_, fault)) = self.failed.filter(|(void, _)| *void == generation) {
            return Some(Outcome { groups: 0, fault: Some(fault) });
        }
        let applied = apply(&mut *self.store, batch);
        let outcome = if applied.groups == 0 {
            applied
        } else {
            let ended = match self.store.commit() {
                Err(StoreFault::Unknown) => self.resolve()?,
                known => known,
            };
            applied.ended(ended)
        };
        self.failed = outcome.fault.map(|fault| (generation, fault)).or(self.failed);
        Some(outcome)
    }

    /// Asks what became of a commit until that is known; nothing if the node ends first.
    fn resolve(&mut self) -> Option<Result<(), StoreFault>> {
        let begun = self.clock.now();
        let (mut back_off, mut is_told) = (BackOff::new(begun), false);
        loop {
            if let Some(known) = resolved(self.store.resolve()) {
                return Some(known);
            }
            let now = self.clock.now();
            if !is_told && now.since(begun) >= UNRESOLVED_AFTER {
                is_told = true;
                self.tell(Done::Unresolved, false)?;
            }
            let again = back_off.fail(now, RESOLVE_PAUSE_MAX, &mut self.rng);
            if !self.desk.pause(&self.clock, again) {
                return None;
            }
        }
    }
}
