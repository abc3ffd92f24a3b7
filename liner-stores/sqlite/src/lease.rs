//! Whether other nodes of the file run: the lock of a node's name is its lease, which the operating system gives up at any death.
//!
//! To look whether a lock is held is to try to share it, for a moment. Whoever wants to have it alone in that moment tries again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use liner_proto::router::Standing;

use crate::names;

/// Locks that are looked at again each time. A look takes a few microseconds.
const LOOKS: usize = 32;

/// Whether somebody holds the lock for himself.
pub(crate) fn is_held(lock: &File) -> io::Result<bool> {
    match lock.try_lock_shared() {
        Ok(()) => lock.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// How a node stands. What cannot be found out is not known.
fn standing(path: &Path, name: &str) -> Standing {
    match File::open(names::lock_file(path, name)).and_then(|lock| is_held(&lock)) {
        Ok(true) => Standing::Up,
        Ok(false) => Standing::Away,
        Err(_) => Standing::Unleased,
    }
}

/// How the nodes of the directory stand, as of the latest look.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    known: BTreeMap<String, Standing>,
    /// The last one that was looked at.
    at: String,
}

impl Leases {
    /// Looks at some that are known, by turns. Says whether any of them has changed.
    pub(crate) fn look_again(&mut self, path: &Path) -> bool {
        let mut is_changed = false;
        for _ in 0..LOOKS.min(self.known.len()) {
            let behind = (std::ops::Bound::Excluded(self.at.as_str()), std::ops::Bound::Unbounded);
            let next = self.known.range::<str, _>(behind).next().or_else(|| self.known.iter().next());
            let Some((name, known)) = next.map(|(name, known)| (name.clone(), *known)) else { break };
            let found = standing(path, &name);
            if found != known {
                is_changed = true;
                self.known.insert(name.clone(), found);
            }
            self.at = name;
        }
        is_changed
    }

    /// These are the nodes of the directory now: those that are new are looked at.
    pub(crate) fn look_at(&mut self, path: &Path, names: BTreeSet<String>) {
        let mut known = std::mem::take(&mut self.known);
        let stands = |name: String| {
            let found = known.remove(&name).unwrap_or_else(|| standing(path, &name));
            (name, found)
        };
        self.known = names.into_iter().map(stands).collect();
    }

    pub(crate) fn each(&self, mut each: impl FnMut(&str, Standing)) {
        self.known.iter().for_each(|(name, standing)| each(name, *standing));
    }
}
