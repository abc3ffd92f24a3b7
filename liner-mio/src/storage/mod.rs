//! Where the router's storage requests are executed: in place, or on one worker thread.

mod desk;
mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use liner_proto::effect::{BatchId, InboxHeld, Loaded, Outcome, StoreFault};
use liner_proto::router::{DirectoryRows, LoadRequest, Router, StoreRequest};
use liner_proto::store::{Notices, Store, execute, load};
use liner_proto::wire::batch::NUMBERS_MAX;
use mio::Waker;

use crate::clock::Clock;
use crate::error::DriveError;
use crate::handler::Handed;
use worker::{Report, Worker};

/// After so much a turn hands no further frame to the application before it is committed. A frame adds at most as many messages, and
/// at most a segment or one longer message, so that a crash repeats at most 1,024 messages, and 256 KiB or 128 KiB and a longer
/// message.
const TURN: Handed = Handed { messages: NUMBERS_MAX, bytes: 128 * 1024 };

/// Messages that are handed to the application before the first of them is committed.
pub(crate) const REPEAT_MAX: u64 = 2 * NUMBERS_MAX;

/// Requests executed in one go in place.
const REQUESTS_MAX: usize = 64;

/// The node's store and who executes it.
pub(crate) struct Stores {
    executor: Executor,
    /// The store's own words about its latest fault.
    said: Option<String>,
    /// Handed to the application so far, and how much of it is committed.
    handled: Handed,
    committed: Handed,
    /// Batches with cursors that the worker has, each with what was handled before it.
    with_worker: VecDeque<(BatchId, Handed)>,
}

enum Executor {
    InPlace(Box<dyn Store + Send>),
    Worker(Worker),
}

/// Something for the store to do.
#[derive(Debug)]
enum Request {
    Store(StoreRequest),
    /// Say what the inbox holds.
    CountInbox,
    /// Tell the directory, if it has changed.
    ReadDirectory,
}

/// The next thing that the router wants of its store.
fn next(router: &mut Router, clock: &Clock) -> Option<Request> {
    let request = router.poll_store(clock.now()).map(Request::Store);
    let request = request.or_else(|| router.poll_inbox(clock.now()).then_some(Request::CountInbox));
    request.or_else(|| router.poll_directory(clock.now()).then_some(Request::ReadDirectory))
}

/// What a request led to.
#[derive(Debug)]
enum Done {
    Counted(Result<InboxHeld, StoreFault>),
    Read(Result<Option<DirectoryRows>, StoreFault>),
    /// Nobody knows yet what became of the commit that was asked for.
    Unresolved,
    Committed {
        id: BatchId,
        outcome: Outcome,
    },
    Loaded {
        request: LoadRequest,
        result: Result<Loaded, StoreFault>,
        bytes: Vec<u8>,
    },
}

/// What was done for the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Batches that were committed, in whole or in part.
    pub(crate) commits: u64,
    /// Requests executed or handed over, and completions taken.
    pub(crate) steps: usize,
}

impl Stores {
    pub(crate) fn in_place(store: Box<dyn Store + Send>) -> Self {
        Self::new(Executor::InPlace(store))
    }

    /// With the store's notices, if it has them; `seed` is that of pauses.
    pub(crate) fn on_worker(
        store: Box<dyn Store + Send>,
        notices: Option<Box<dyn Notices + Send>>,
        seed: [u64; 2],
        waker: Arc<Waker>,
    ) -> io::Result<Self> {
        Ok(Self::new(Executor::Worker(Worker::start(store, notices, seed, waker)?)))
    }

    const fn new(executor: Executor) -> Self {
        Self {
            executor,
            said: None,
            handled: Handed::NOTHING,
            committed: Handed::NOTHING,
            with_worker: VecDeque::new(),
        }
    }

    /// The store's own words about its latest fault.
    pub(crate) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// So much more was handed to the application.
    pub(crate) const fn note_handled(&mut self, handed: Handed) {
        self.handled = self.handled.plus(handed);
    }

    /// What the application may have before a commit has to be waited for, under way or failed: nothing if it has had that
    /// already. Without this a crash could repeat more than one turn's messages.
    pub(crate) const fn turn_rest(&self) -> Option<Handed> {
        TURN.less(self.handled.minus(self.committed))
    }

    /// Whether nothing is with the store.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.executor {
            Executor::InPlace(_) => true,
            Executor::Worker(worker) => worker.outstanding() == 0,
        }
    }

    /// Asks the router what is to be done and does it, or hands it over and takes what was done meanwhile.
    pub(crate) fn settle(&mut self, router: &mut Router, clock: &Clock) -> Result<Settled, DriveError> {
        let settled = match &mut self.executor {
            Executor::InPlace(store) => settle_in_place(&mut **store, &mut self.said, router, clock),
            Executor::Worker(_) => self.settle_on_worker(router, clock),
        }?;
        if router.are_cursors_stored() {
            self.committed = self.handled;
        }
        Ok(settled)
    }

    fn settle_on_worker(&mut self, router: &mut Router, clock: &Clock) -> Result<Settled, DriveError> {
        let Executor::Worker(worker) = &mut self.executor else { return Ok(Settled::default()) };
        let mut settled = Settled::default();
        while let Some(Report { done, said, .. }) = worker.take()? {
            if said.is_some() {
                self.said = said;
            }
            if let Done::Committed { id, outcome } = &done {
                while let Some(&(with, handled)) = self.with_worker.front().filter(|(with, _)| with <= id) {
                    self.with_worker.pop_front();
                    if with == *id && outcome.fault.is_none() {
                        self.committed = handled;
                    }
                }
                settled.commits += u64::from(outcome.groups > 0);
            }
            settled.steps += 1;
            let lost = done.lost();
            tell(router, clock, done);
            if let Some(fault) = lost {
                return Err(DriveError::Store { fault, said: self.said.clone() });
            }
        }
        while worker.has_room() {
            let Some(request) = next(router, clock) else { break };
            if let Request::Store(StoreRequest::Commit(batch)) = &request
                && batch.has_cursors()
            {
                self.with_worker.push_back((batch.id(), self.handled));
            }
            settled.steps += 1;
            worker.give(request);
        }
        Ok(settled)
    }
}

fn settle_in_place(
    store: &mut (dyn Store + Send),
    said: &mut Option<String>,
    router: &mut Router,
    clock: &Clock,
) -> Result<Settled, DriveError> {
    let mut settled = Settled::default();
    for _ in 0..REQUESTS_MAX {
        let Some(request) = next(router, clock) else { return Ok(settled) };
        settled.steps += 1;
        let done = run(store, request);
        if let Done::Committed { outcome, .. } = &done {
            settled.commits += u64::from(outcome.groups > 0);
        }
        if done.failed() {
            *said = store.last_error().map(str::to_owned);
        }
        let lost = done.lost();
        tell(router, clock, done);
        if let Some(fault) = lost {
            return Err(DriveError::Store { fault, said: said.clone() });
        }
    }
    Ok(settled)
}

/// Executes one request.
fn run(store: &mut (dyn Store + Send), request: Request) -> Done {
    match request {
        // It had one when the node was built.
        Request::CountInbox => Done::Counted(store.inbox().map(Option::unwrap_or_default)),
        Request::ReadDirectory => Done::Read(store.directory()),
        Request::Store(StoreRequest::Commit(batch)) => {
            let outcome = execute(store, &batch);
            Done::Committed { id: batch.id(), outcome }
        }
        Request::Store(StoreRequest::Load(request)) => {
            let (result, bytes) = load(store, &request);
            Done::Loaded { request, result, bytes }
        }
    }
}

/// Tells the router what was done.
fn tell(router: &mut Router, clock: &Clock, done: Done) {
    match done {
        Done::Counted(held) => router.handle_inbox(clock.now(), held),
        Done::Read(rows) => router.handle_directory(clock.now(), rows),
        Done::Unresolved => router.handle_store_away(clock.now()),
        Done::Committed { id, outcome } => router.handle_committed(clock.now(), id, outcome),
        Done::Loaded { request, result, bytes } => {
            router.handle_loaded(clock.now(), &request, result, &bytes);
        }
    }
}

impl Done {
    /// Whether the store had to say no.
    const fn failed(&self) -> bool {
        match self {
            Self::Committed { outcome, .. } => outcome.fault.is_some(),
            Self::Loaded { result, .. } => matches!(result, Err(_) | Ok(Loaded::Corrupt { .. })),
            Self::Counted(held) => held.is_err(),
            Self::Read(rows) => rows.is_err(),
            Self::Unresolved => true,
        }
    }

    /// The fault after which asking the same store again has no use, if it is one.
    fn lost(&self) -> Option<StoreFault> {
        let fault = match self {
            Self::Committed { outcome, .. } => outcome.fault,
            Self::Loaded { result, .. } => result.err(),
            Self::Counted(held) => held.err(),
            Self::Read(rows) => rows.as_ref().err().copied(),
            Self::Unresolved => None,
        };
        fault.filter(|fault| {
            use StoreFault::{Refused, Regressed, Superseded, Unknown};
            matches!(fault, Unknown | Superseded | Regressed | Refused)
        })
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("on_worker", &matches!(self.executor, Executor::Worker(_)))
            .field("said", &self.said)
            .field("with_worker", &self.with_worker)
            .finish_non_exhaustive()
    }
}
