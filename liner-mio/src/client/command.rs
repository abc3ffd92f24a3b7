//! What other threads ask of the loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use liner_proto::id::SendId;
use liner_proto::router::{Receipt, SendError, SendOptions};
use liner_proto::wire::record::Mode;
use mio::Waker;

use super::error::ClientSendError;
use super::handling::Letter;
use super::lock;
use crate::node::Node;

/// What may be posted and not be queued yet.
const POSTED_MESSAGES: usize = 65_536;
const POSTED_BYTES: usize = 16 * 1024 * 1024;

/// A question to the loop.
pub(super) type Ask = Box<dyn FnOnce(&mut Node) + Send>;

/// When whoever waits for a job is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// When its messages are stored.
    Sent,
    /// When everything before it is stored.
    Flushed,
    /// When everything before it is acknowledged, or so much time is over.
    Acknowledged(Duration),
}

/// Messages to be sent, in their order.
pub(super) struct Job {
    pub(super) topic: Box<str>,
    pub(super) payloads: Vec<Box<[u8]>>,
    pub(super) options: SendOptions,
    /// Who waits for it; nobody for what was posted.
    pub(super) promise: Option<Promise>,
    pub(super) end: JobEnd,
}

impl Job {
    pub(super) fn new(
        topic: &str,
        payloads: Vec<Box<[u8]>>,
        options: SendOptions,
        promise: Option<Promise>,
    ) -> Self {
        Self { topic: topic.into(), payloads, options, promise, end: JobEnd::Sent }
    }

    /// Nothing to send, but to wait for everything before it.
    pub(super) fn wait(promise: Promise, end: JobEnd) -> Self {
        let options = SendOptions::default();
        Self { topic: "".into(), payloads: Vec::new(), options, promise: Some(promise), end }
    }

    /// Nothing of it is sent: it has come too late.
    fn refuse(self) -> Result<(), ClientSendError> {
        if let Some(promise) = self.promise {
            promise.answer(Err(ClientSendError::NotRunning));
        }
        Err(ClientSendError::NotRunning)
    }

    /// Of its payloads.
    pub(super) fn bytes(&self) -> usize {
        self.payloads.iter().map(|payload| payload.len()).sum()
    }
}

/// Where a thread waits for what becomes of its job.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    answer: Mutex<Option<Result<SendId, ClientSendError>>>,
    answered: Condvar,
}

/// The other side of a ticket, which is answered whatever happens.
#[derive(Debug)]
pub(super) struct Promise {
    ticket: Arc<Ticket>,
    messages: usize,
    is_kept: bool,
}

impl Promise {
    pub(super) fn answer(mut self, answer: Result<SendId, ClientSendError>) {
        self.give(answer);
    }

    fn give(&mut self, answer: Result<SendId, ClientSendError>) {
        self.is_kept = true;
        *lock(&self.ticket.answer) = Some(answer);
        self.ticket.answered.notify_one();
    }
}

impl Drop for Promise {
    /// Whoever was about to answer has panicked.
    fn drop(&mut self) {
        if !self.is_kept {
            self.give(Err(ClientSendError::Unknown { id: SendId(0), sent: self.messages }));
        }
    }
}

impl Ticket {
    /// For whoever waits until so many messages are stored, and for whoever tells.
    pub(super) fn new(messages: usize) -> (Arc<Self>, Promise) {
        let ticket = Arc::<Self>::default();
        let promise = Promise { ticket: Arc::clone(&ticket), messages, is_kept: false };
        (ticket, promise)
    }

    pub(super) fn wait(&self) -> Result<SendId, ClientSendError> {
        let mut answer = lock(&self.answer);
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            answer = self.answered.wait(answer).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What the loop finds when it looks.
#[derive(Default)]
pub(super) struct Found {
    pub(super) jobs: Vec<Job>,
    pub(super) asks: Vec<Ask>,
    pub(super) settled: Vec<Receipt>,
    pub(super) letters: Vec<Letter>,
    pub(super) stop: Option<Duration>,
}

#[derive(Default)]
struct Waiting {
    found: Found,
    posted: usize,
    posted_bytes: usize,
    /// The run is to end.
    stops: bool,
    /// No more is sent in this run.
    sealed: bool,
    /// The loop is to look again, though nothing is here for it.
    woken: bool,
    /// The loop takes nothing any more.
    closed: bool,
    /// Why what is posted to be stored is refused, if it is: the store is away, or full.
    refusal: Option<SendError>,
}

/// What waits for the loop.
pub(super) struct Commands {
    waiting: Mutex<Waiting>,
    /// Whether the loop has to be woken: it sleeps, or is about to.
    sleeps: AtomicBool,
    waker: Arc<Waker>,
}

impl Commands {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self { waiting: Mutex::default(), sleeps: AtomicBool::new(false), waker }
    }

    fn put(&self, put: impl FnOnce(&mut Waiting)) -> Result<(), ClientSendError> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Err(ClientSendError::NotRunning);
        }
        put(&mut waiting);
        drop(waiting);
        if self.sleeps.swap(false, Ordering::SeqCst) {
            // If the loop cannot be woken it has ended, or is about to look anyway.
            let _ = self.waker.wake();
        }
        Ok(())
    }

    pub(super) fn give(&self, job: Job) -> Result<(), ClientSendError> {
        let mut left = Some(job);
        self.put(|waiting| {
            if !waiting.sealed {
                waiting.found.jobs.extend(left.take());
            }
        })?;
        left.map_or(Ok(()), Job::refuse)
    }

    pub(super) fn post(&self, job: Job) -> Result<(), ClientSendError> {
        let (bytes, is_stored) = (job.bytes(), job.options.mode != Mode::BestEffort);
        let (mut is_full, mut is_sealed, mut refusal) = (false, false, None);
        self.put(|waiting| {
            is_sealed = waiting.sealed;
            refusal = waiting.refusal.filter(|_| is_stored);
            if is_sealed || refusal.is_some() {
                return;
            }
            is_full = waiting.posted >= POSTED_MESSAGES
                || (waiting.posted > 0 && waiting.posted_bytes + bytes > POSTED_BYTES);
            if !is_full {
                waiting.posted += 1;
                waiting.posted_bytes += bytes;
                waiting.found.jobs.push(job);
            }
        })?;
        match (is_sealed, refusal, is_full) {
            (true, ..) => Err(ClientSendError::NotRunning),
            (false, Some(refusal), _) => Err(ClientSendError::refused(refusal, 0)),
            (false, None, true) => Err(ClientSendError::Busy { sent: 0 }),
            (false, None, false) => Ok(()),
        }
    }

    /// Asks the loop, and waits for its answer; nothing if it has ended.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let ask: Ask = Box::new(move |node| {
            // Whoever asked has gone: so be it.
            let _ = answer.send(ask(node));
        });
        self.put(|waiting| waiting.found.asks.push(ask)).ok()?;
        answered.recv().ok()
    }

    pub(super) fn settle(&self, receipt: Receipt) {
        // Without a loop it comes again.
        let _ = self.put(|waiting| waiting.found.settled.push(receipt));
    }

    pub(super) fn put_aside(&self, letter: Letter) {
        let _ = self.put(|waiting| waiting.found.letters.push(letter));
    }

    pub(super) fn stop(&self, patience: Duration) {
        let _ = self.put(|waiting| {
            waiting.stops = true;
            waiting.found.stop.get_or_insert(patience);
        });
    }

    /// Whether the loop has not been told to stop, and has not ended.
    pub(super) fn go_on(&self) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.stops && !waiting.closed
    }

    /// Whether the loop takes nothing any more.
    pub(super) fn are_closed(&self) -> bool {
        lock(&self.waiting).closed
    }

    /// Has the loop look again at what is not here.
    pub(super) fn wake(&self) {
        let _ = self.put(|waiting| waiting.woken = true);
    }

    // ------------------------------------------------------------------ the loop's side

    /// Everything that waits.
    pub(super) fn take(&self) -> Found {
        self.sleeps.store(false, Ordering::SeqCst);
        let mut waiting = lock(&self.waiting);
        waiting.woken = false;
        core::mem::take(&mut waiting.found)
    }

    /// What is sent from now on is refused: the loop takes what is here, and then no more.
    pub(super) fn seal(&self) {
        lock(&self.waiting).sealed = true;
    }

    /// Why what has to be stored is refused, if it is.
    pub(super) fn note_store(&self, refusal: Option<SendError>) {
        lock(&self.waiting).refusal = refusal;
    }

    /// So many posted messages, with so many bytes, are queued or refused: there is room for others.
    pub(super) fn note_posted(&self, messages: usize, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        waiting.posted -= messages;
        waiting.posted_bytes -= bytes;
    }

    /// The loop is about to sleep. Says whether it may: nothing waits.
    pub(super) fn may_sleep(&self) -> bool {
        self.sleeps.store(true, Ordering::SeqCst);
        let waiting = lock(&self.waiting);
        let found = &waiting.found;
        found.jobs.is_empty()
            && found.asks.is_empty()
            && found.settled.is_empty()
            && found.letters.is_empty()
            && found.stop.is_none()
            && !waiting.woken
    }

    /// The loop takes nothing any more: whoever waits for it is told.
    pub(super) fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        let found = core::mem::take(&mut waiting.found);
        drop(waiting);
        for job in found.jobs {
            let _ = job.refuse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> (mio::Poll, Commands) {
        let poll = mio::Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Commands::new(Arc::new(waker)))
    }

    #[test]
    fn a_loop_that_is_woken_before_it_sleeps_looks_again() {
        let (_poll, commands) = commands();
        let _ = commands.take();
        // The dispatcher has ended: nothing of it is among what is taken.
        commands.wake();
        assert!(!commands.may_sleep());
        let _ = commands.take();
        assert!(commands.may_sleep(), "once");
    }

    #[test]
    fn a_promise_that_nobody_keeps_is_answered() {
        let (ticket, promise) = Ticket::new(3);
        drop(promise);
        assert_eq!(ticket.wait(), Err(ClientSendError::Unknown { id: SendId(0), sent: 3 }));
        let (_poll, commands) = commands();
        commands.seal();
        let (ticket, promise) = Ticket::new(1);
        let late = commands.give(Job::wait(promise, JobEnd::Flushed));
        assert_eq!(
            (late, ticket.wait()),
            (Err(ClientSendError::NotRunning), Err(ClientSendError::NotRunning))
        );
    }
}
