//! The one worker thread that a node may have: it executes storage requests in their order.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

use liner_proto::effect::{Outcome, StoreFault};
use liner_proto::router::StoreRequest;
use liner_proto::store::Store;
use mio::Waker;

use super::{Done, Request, run};
use crate::error::DriveError;

/// Requests that may be with the worker. Above what the router gives out at a time, so that handing over never waits.
const OUTSTANDING_MAX: usize = 16;

/// A request's result, with the store's own words if it failed.
type Report = (Done, Option<String>);

/// The loop's side of the worker.
pub(super) struct Worker {
    /// Nothing once the worker is to end.
    requests: Option<SyncSender<Request>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    outstanding: usize,
}

impl Worker {
    pub(super) fn start(store: Box<dyn Store + Send>, waker: Arc<Waker>) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(OUTSTANDING_MAX);
        let (outbox, reports) = channel();
        let thread = std::thread::Builder::new()
            .name("liner-store".to_owned())
            .spawn(move || work(store, &inbox, outbox, &waker))?;
        Ok(Self { requests: Some(requests), reports, thread: Some(thread), outstanding: 0 })
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
    pub(super) fn give(&mut self, request: Request) -> Result<(), DriveError> {
        let requests = self.requests.as_ref().ok_or(DriveError::StoreWorkerGone)?;
        requests.try_send(request).map_err(|_| DriveError::StoreWorkerGone)?;
        self.outstanding += 1;
        Ok(())
    }

    /// The next result, if there is one.
    pub(super) fn take(&mut self) -> Result<Option<Report>, DriveError> {
        match self.reports.try_recv() {
            Ok(report) => {
                self.outstanding -= 1;
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
        self.requests = None;
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

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        // The loop finds the channel closed only if that happens first.
        self.reports = None;
        let _ = self.waker.wake();
    }
}

fn work(
    mut store: Box<dyn Store + Send>,
    requests: &Receiver<Request>,
    reports: Sender<Report>,
    waker: &Waker,
) {
    let alarm = Alarm { waker, reports: Some(reports) };
    // The generation of the latest batch that failed: what follows in it is void.
    let mut failed: Option<(u64, StoreFault)> = None;
    while let Ok(request) = requests.recv() {
        let generation = match &request {
            Request::Store(StoreRequest::Commit(batch)) => Some(batch.generation()),
            Request::Store(StoreRequest::Load(_)) | Request::CountInbox | Request::ReadDirectory => None,
        };
        let done = match (request, failed) {
            (Request::Store(StoreRequest::Commit(batch)), Some((void, fault)))
                if batch.generation() == void =>
            {
                Done::Committed { id: batch.id(), outcome: Outcome { groups: 0, fault: Some(fault) } }
            }
            (request, _) => run(&mut *store, request),
        };
        if let (Done::Committed { outcome: Outcome { fault: Some(fault), .. }, .. }, Some(generation)) =
            (&done, generation)
        {
            failed = Some((generation, *fault));
        }
        let said = if done.failed() { store.last_error().map(str::to_owned) } else { None };
        let Some(reports) = &alarm.reports else { return };
        if reports.send((done, said)).is_err() || waker.wake().is_err() {
            return;
        }
    }
}
