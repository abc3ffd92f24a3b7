//! Space on the disk that is given up when it is full, so that acknowledgements can still be written.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::names;
use crate::open::private;

/// Enough for the pages of several small transactions in the log.
const BYTES: u64 = 1 << 20;

/// So much must be free before it is made again: more than what giving it up has freed.
const FREE: u64 = 4 << 20;

/// The file, or its absence: while it is missing, the disk is taken as full.
///
/// What failed for want of room takes its whole transaction with it, acknowledgements included. The next transaction
/// must therefore be one of those that nothing that grows is let into; only behind it the ballast may be made again.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    present: bool,
    allowed: bool,
}

impl Ballast {
    /// The ballast of the database at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        let path = names::beside(path, ".ballast");
        let present = fs::metadata(&path).is_ok_and(|file| file.len() == BYTES);
        let mut ballast = Self { path, present, allowed: true };
        if !present {
            ballast.take(BYTES);
        }
        ballast
    }

    /// Whether there is no room but what the ballast left.
    pub(crate) const fn is_released(&self) -> bool {
        !self.present
    }

    /// Gives up the space.
    pub(crate) fn release(&mut self) {
        // If it is not there, another node of the same file has given it up.
        let _ = fs::remove_file(&self.path);
        (self.present, self.allowed) = (false, false);
    }

    /// A transaction was committed without it: it may be made again.
    pub(crate) const fn allow(&mut self) {
        self.allowed = true;
    }

    /// Takes the space again if it may and there is so much.
    pub(crate) fn restore_if_allowed(&mut self) {
        if !self.present && self.allowed {
            self.take(FREE);
        }
    }

    /// Takes the space if `free` bytes are free.
    fn take(&mut self, free: u64) {
        match self.write(free) {
            Ok(()) => self.present = true,
            Err(_) => self.release(),
        }
    }

    fn write(&self, free: u64) -> io::Result<()> {
        let mut file =
            private(OpenOptions::new().write(true).create(true).truncate(true)).open(&self.path)?;
        io::copy(&mut io::repeat(0).take(free), &mut file)?;
        file.set_len(BYTES)
    }
}
