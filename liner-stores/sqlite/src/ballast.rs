//! Space on the disk that is given up when it is full, so that acknowledgements can still be written.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::names;
use crate::open::private;

/// Enough for what the log may hold, twice over: whatever is in the log must find its place in the database before the log's
/// own space can be used again.
const BYTES: u64 = 8 << 20;

/// So much must be free before it is made again: more than what giving it up has freed.
const FREE: u64 = 2 * BYTES;

/// The file, or its absence: while it is missing, the disk is taken as full.
///
/// What failed for want of room takes its whole transaction with it, acknowledgements included. The next transaction
/// must therefore be one that nothing that grows is let into; only behind it something may grow again, within pages of the
/// database that are free, or when the ballast could be made again.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    present: bool,
    allowed: bool,
    /// Transactions that pass before the next attempt to make it again, and how many the attempt before let pass.
    pause: (u32, u32),
}

/// An attempt that fails writes as much as there is room for: after failures it is seldom made.
const PAUSE_MAX: u32 = 256;

impl Ballast {
    /// The ballast of the database at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        let path = path_of(path);
        let present = fs::metadata(&path).is_ok_and(|file| file.len() == BYTES);
        let mut ballast = Self { path, present, allowed: true, pause: (0, 0) };
        if !present {
            ballast.take(BYTES);
        }
        ballast
    }

    /// Whether there is no room but what the ballast left.
    pub(crate) const fn is_released(&self) -> bool {
        !self.present
    }

    /// Whether something may grow without it.
    pub(crate) const fn is_growth_allowed(&self) -> bool {
        self.allowed
    }

    /// Gives up the space.
    pub(crate) fn release(&mut self) {
        remove(&self.path);
        (self.present, self.allowed) = (false, false);
    }

    /// A transaction was committed without it: something may grow again.
    pub(crate) const fn allow(&mut self) {
        self.allowed = true;
    }

    /// Takes the space again if it may and there is so much.
    pub(crate) fn restore_if_allowed(&mut self) {
        if self.present || !self.allowed {
            return;
        }
        let (left, paused) = self.pause;
        if left > 0 {
            self.pause.0 -= 1;
            return;
        }
        self.take(FREE);
        let pause = if self.present { 0 } else { (2 * paused + 1).min(PAUSE_MAX) };
        self.pause = (pause, pause);
    }

    /// Takes the space if `free` bytes are free.
    fn take(&mut self, free: u64) {
        match self.write(free) {
            Ok(()) => self.present = true,
            Err(_) => remove(&self.path),
        }
    }

    fn write(&self, free: u64) -> io::Result<()> {
        let mut file =
            private(OpenOptions::new().write(true).create(true).truncate(true)).open(&self.path)?;
        io::copy(&mut io::repeat(0).take(free), &mut file)?;
        file.set_len(BYTES)
    }
}

/// Gives up the ballast of the database at `path`, which cannot be opened for want of room. Says whether there was one.
pub(crate) fn release_unopened(path: &Path) -> bool {
    fs::remove_file(path_of(path)).is_ok()
}

fn path_of(path: &Path) -> PathBuf {
    names::beside(path, ".ballast")
}

fn remove(path: &Path) {
    // If it is not there, another node of the same file has given it up.
    let _ = fs::remove_file(path);
}
