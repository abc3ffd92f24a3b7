//! The connections that nodes of one process share if their URLs are the same.
//!
//! Nobody is at work here but the nodes themselves: whoever comes by closes what has been idle for too long.

use core::time::Duration;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::clock::Clock;
use crate::error::OpenError;
use crate::link::Link;
use crate::url::Url;

/// All pools of the process that somebody uses.
static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());

/// The connections of one URL.
#[derive(Debug)]
pub(crate) struct Pool {
    url: Url,
    state: Mutex<State>,
    /// A connection has come back, or there is room for one more.
    changed: Condvar,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    /// With the time since when; the one that was used last is at the end.
    idle: Vec<(Link, Duration)>,
    /// With those that are in use, or being made.
    open: u32,
}

/// The right to one connection. There is room for another one when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Weak<Pool>);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.lock().open -= 1;
            pool.changed.notify_one();
        }
    }
}

impl Pool {
    /// The pool of this URL.
    pub(crate) fn of(url: &Url) -> Arc<Self> {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        let known = pools.iter().filter_map(Weak::upgrade).find(|pool| pool.url.text() == url.text());
        known.unwrap_or_else(|| {
            let (state, changed) = (Mutex::default(), Condvar::new());
            let pool = Arc::new(Self { url: url.clone(), state, changed, clock: Clock::start() });
            pools.push(Arc::downgrade(&pool));
            pool
        })
    }

    /// A connection for the node of this name. It waits if the others have all that there may be.
    pub(crate) fn take(self: &Arc<Self>, name: &str) -> Result<Link, OpenError> {
        let until = self.clock.now() + self.url.acquire_timeout();
        let mut expired = Vec::new();
        let mut state = self.lock();
        loop {
            state.expire(self.clock.now(), &self.url, &mut expired);
            if let Some((link, _)) = state.idle.pop() {
                drop(state);
                // Closing takes the lock.
                expired.clear();
                if !link.is_closed() {
                    return Ok(link);
                }
                drop(link);
                state = self.lock();
                continue;
            }
            let room = u32::try_from(expired.len()).unwrap_or(u32::MAX);
            if state.open.saturating_sub(room) < self.url.max_connections() {
                state.open += 1;
                drop(state);
                let slot = Slot(Arc::downgrade(self));
                expired.clear();
                return Link::open(&self.url, name, Some(slot));
            }
            let left = until.saturating_sub(self.clock.now());
            if left.is_zero() {
                return Err(OpenError::Busy {
                    most: self.url.max_connections(),
                    waited_ms: self.url.acquire_timeout().as_millis(),
                });
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a connection back that is in no transaction.
    pub(crate) fn put(&self, link: Link) {
        // A broken one gives its room to another one.
        if !link.is_broken() {
            let now = self.clock.now();
            let mut expired = Vec::new();
            let mut state = self.lock();
            state.idle.push((link, now));
            state.expire(now, &self.url, &mut expired);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Makes connections until there are as many as the URL wants at least.
    pub(crate) fn fill(self: &Arc<Self>, name: &str) -> Result<(), OpenError> {
        loop {
            let mut state = self.lock();
            if state.open >= self.url.min_connections() {
                return Ok(());
            }
            state.open += 1;
            drop(state);
            self.put(Link::open(&self.url, name, Some(Slot(Arc::downgrade(self))))?);
        }
    }

    /// Where its connections lead.
    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out what has been idle for too long. It has to be dropped without the lock.
    fn expire(&mut self, now: Duration, url: &Url, expired: &mut Vec<Link>) {
        let taken_out = u32::try_from(expired.len()).unwrap_or(u32::MAX);
        let mut left = self.open.saturating_sub(taken_out);
        while let Some((_, since)) = self.idle.first() {
            if left <= url.min_connections() || now.saturating_sub(*since) < url.idle_timeout() {
                return;
            }
            expired.push(self.idle.remove(0).0);
            left -= 1;
        }
    }
}
