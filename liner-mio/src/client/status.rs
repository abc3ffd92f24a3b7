//! Where the status callback is.

use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;
use super::settings::Status;

/// What is called with every status.
pub(super) type StatusCallback = Box<dyn FnMut(&Status) + Send>;

#[derive(Default)]
struct Place {
    callback: Option<StatusCallback>,
    /// Counts the callbacks that were set.
    version: u64,
    /// It is being called, and comes back.
    is_out: bool,
}

/// The status callback of a client. It is called without a lock, as it may replace itself.
#[derive(Default)]
pub(super) struct StatusPlace {
    place: Mutex<Place>,
    returned: Condvar,
}

impl StatusPlace {
    /// Replaces it, also while it is being called.
    pub(super) fn set(&self, callback: StatusCallback) {
        let mut place = lock(&self.place);
        let before = place.callback.replace(callback);
        place.version += 1;
        place.is_out = false;
        drop(place);
        self.returned.notify_all();
        // Not under the lock: whatever it owned may call the client.
        drop(before);
    }

    /// The callback, to be called and [put back](Self::put_back). Waits while the thread of an earlier run still calls it.
    pub(super) fn take(&self) -> Option<(StatusCallback, u64)> {
        let place = lock(&self.place);
        let waited = self.returned.wait_while(place, |place| place.is_out);
        let mut place = waited.unwrap_or_else(PoisonError::into_inner);
        let callback = place.callback.take()?;
        place.is_out = true;
        Some((callback, place.version))
    }

    /// It has returned.
    pub(super) fn put_back(&self, callback: StatusCallback, version: u64) {
        let mut place = lock(&self.place);
        if place.version == version {
            place.callback = Some(callback);
            place.is_out = false;
            drop(place);
            self.returned.notify_all();
        } else {
            // It was replaced. Whatever it owned may call the client.
            drop(place);
            drop(callback);
        }
    }
}
