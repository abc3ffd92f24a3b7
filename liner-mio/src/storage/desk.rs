//! Where the loop puts requests for the worker, and what the worker does next.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liner_proto::time::Instant;

use super::Request;
use crate::clock::Clock;

/// How long word from other nodes is waited for at a time.
const LISTEN: Duration = Duration::from_secs(10);

/// How often a worker that always has a request listens for word from other nodes.
const LISTEN_EVERY: Duration = Duration::from_millis(50);

/// The directory is not read again before this: many changes at once are one.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends a wait for word from other nodes.
type Interrupt = Box<dyn Fn() + Send + Sync>;

/// What the worker does next.
pub(super) enum Next {
    Request(Request),
    /// Wait for word from other nodes, for so long at most.
    Listen(Duration),
    /// Read the directory unasked.
    Look,
    End,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// The worker waits for word from other nodes, or is about to.
    listens: bool,
    /// When it has done that last.
    listened: Instant,
    /// When the directory is to be read because there was word.
    look: Option<Instant>,
    /// When that was done last.
    looked: Instant,
    ended: bool,
}

/// What the loop and its worker share.
pub(super) struct Desk {
    state: Mutex<State>,
    news: Condvar,
    /// Where there are notices.
    interrupt: Option<Interrupt>,
}

impl Desk {
    pub(super) fn new(interrupt: Option<Interrupt>) -> Self {
        Self { state: Mutex::default(), news: Condvar::new(), interrupt }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ------------------------------------------------------------------ the loop's side

    pub(super) fn put(&self, request: Request) {
        self.change(|state| state.requests.push_back(request));
    }

    /// The worker ends when it has executed what is here.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let listens = core::mem::take(&mut state.listens);
        drop(state);
        match &self.interrupt {
            Some(interrupt) if listens => interrupt(),
            _ => self.news.notify_one(),
        }
    }

    // ------------------------------------------------------------------ the worker's side

    /// Waits until there is something to do.
    pub(super) fn next(&self, clock: &Clock) -> Next {
        let mut state = self.lock();
        loop {
            let is_idle = state.requests.is_empty();
            if is_idle && state.ended {
                return Next::End;
            }
            let has_notices = self.interrupt.is_some() && !state.ended;
            let now = if has_notices { clock.now() } else { Instant::ZERO };
            if has_notices && state.look.is_some_and(|at| at <= now) {
                (state.look, state.looked) = (None, now);
                return Next::Look;
            }
            if has_notices && !is_idle && state.look.is_none() && state.listened + LISTEN_EVERY <= now {
                return Next::Listen(Duration::ZERO);
            }
            if let Some(request) = state.requests.pop_front() {
                return Next::Request(request);
            }
            state = match state.look {
                Some(at) => self.wait(state, at.since(now)),
                None if has_notices => {
                    state.listens = true;
                    return Next::Listen(LISTEN);
                }
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The worker has listened, and whether there was word.
    pub(super) fn note_heard(&self, clock: &Clock, is_news: bool) {
        let mut state = self.lock();
        (state.listens, state.listened) = (false, clock.now());
        if is_news {
            state.look = Some(state.looked + LOOK_EVERY);
        }
    }

    /// Waits until that time. Says whether the node goes on.
    pub(super) fn pause(&self, clock: &Clock, until: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let now = clock.now();
            if state.ended || until <= now {
                return !state.ended;
            }
            state = self.wait(state, until.since(now));
        }
    }

    fn wait<'d>(&self, state: MutexGuard<'d, State>, patience: Duration) -> MutexGuard<'d, State> {
        let waited = self.news.wait_timeout(state, patience);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a request always there.
    #[test]
    fn a_worker_that_is_never_idle_hears_of_changes_too() {
        let (desk, clock) = (Desk::new(Some(Box::new(|| {}))), Clock::start());
        let mut news = true;
        while news || clock.now() < Instant::ZERO + Duration::from_secs(20) {
            desk.put(Request::ReadDirectory);
            match desk.next(&clock) {
                Next::Request(_) => {}
                Next::Listen(patience) => {
                    assert_eq!(patience, Duration::ZERO, "the request waits");
                    desk.note_heard(&clock, core::mem::take(&mut news));
                }
                Next::Look => return assert!(!news, "nobody has told it"),
                Next::End => panic!("nobody has ended it"),
            }
        }
        panic!("it has heard, and does not look");
    }

    #[test]
    fn without_notices_nothing_is_listened_for_and_what_is_here_is_done_before_the_end() {
        let (desk, clock) = (Desk::new(None), Clock::start());
        desk.put(Request::ReadDirectory);
        desk.end();
        assert!(matches!(desk.next(&clock), Next::Request(_)));
        assert!(matches!(desk.next(&clock), Next::End));
        assert!(!desk.pause(&clock, clock.now() + Duration::from_secs(3600)), "it has ended");
    }
}
