//! Space on the disk that is given up when it is full, so that acknowledgements can still be written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::file::private;
use crate::names;

/// The sizes it may have, from the largest, and how many pages the log is to have with each: whatever is in the log must find
/// its place in the database before the log's own space can be used again, and what is written meanwhile has to fit, too.
/// The smallest still has room for a move.
const SIZES: [(u64, u32); 3] = [(8 << 20, 1000), (4 << 20, 500), (SMALLEST, 128)];

const SMALLEST: u64 = 2 << 20;

/// What a group that also gives up something may demand of a full disk, at most.
const MOVE_MAX: u64 = 2 << 20;

/// The file, or its absence: while it is missing, the disk is taken as full.
///
/// What failed for want of room takes its whole transaction with it, acknowledgements included. The next transaction
/// must therefore be one that nothing that grows is let into; only behind it something may grow again, within pages of the
/// database that are free, or when the ballast could be made again.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    /// Its bytes; without it, those of the last one.
    bytes: u64,
    present: bool,
    /// Something has grown since it was made again.
    proven: bool,
    allowed: bool,
    /// What grows was refused for want of free pages, and not let in since.
    refused: bool,
    /// Transactions that pass before the next attempt to make it again, and how many the attempt before let pass.
    pause: (u32, u32),
}

/// An attempt that fails writes as much as there is room for, and one that succeeds is of no use if nothing can grow with it:
/// after either they are seldom made.
const PAUSE_MAX: u32 = 256;

impl Ballast {
    /// The ballast of the database at `path`: the one that is there, or as large a one as the disk has room for.
    pub(crate) fn new(path: &Path) -> Self {
        let path = path_of(path);
        let mut ballast = Self {
            path,
            bytes: 0,
            present: false,
            proven: true,
            allowed: true,
            refused: false,
            pause: (0, 0),
        };
        ballast.take();
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

    /// How many pages the log may have before it is used again.
    pub(crate) fn log_pages(&self) -> u32 {
        let size = SIZES.into_iter().find(|&(bytes, _)| bytes <= self.bytes);
        size.map_or(SIZES[SIZES.len() - 1].1, |(_, pages)| pages)
    }

    /// What a group that also gives up something may demand of a full disk: it is in the log and in the database at once.
    pub(crate) fn move_max(&self) -> u64 {
        let bytes = self.bytes.max(SMALLEST);
        MOVE_MAX.min(bytes / 2 + bytes / 16)
    }

    /// Bytes that have to be free on the disk before it can be made, if it is missing.
    pub(crate) fn needs(&self) -> Option<u64> {
        (!self.present).then(|| needed(SMALLEST, self.bytes))
    }

    /// Gives up the space.
    pub(crate) fn release(&mut self) {
        remove(&self.path);
        if self.present && !self.proven {
            self.lengthen_pause();
        }
        (self.present, self.allowed) = (false, false);
    }

    /// A transaction was committed without it: something may grow again.
    pub(crate) const fn allow(&mut self) {
        self.allowed = true;
    }

    /// Whether what grows has been refused since it was let in last.
    pub(crate) const fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether what grows was let in without it.
    pub(crate) const fn note_growth(&mut self, let_in: bool) {
        self.refused = !let_in;
    }

    /// Something has grown while it was there: it is of use.
    pub(crate) const fn prove(&mut self) {
        (self.proven, self.pause) = (true, (0, 0));
    }

    /// Takes the space again if it may and there is so much. Says whether it did.
    pub(crate) fn restore_if_allowed(&mut self) -> bool {
        if self.present || !self.allowed {
            return false;
        }
        if self.pause.0 > 0 {
            self.pause.0 -= 1;
            return false;
        }
        self.take();
        if !self.present {
            self.lengthen_pause();
        }
        self.proven = false;
        self.present
    }

    fn lengthen_pause(&mut self) {
        let pause = (2 * self.pause.1 + 1).min(PAUSE_MAX);
        self.pause = (pause, pause);
    }

    /// Takes as much space as there is room for.
    fn take(&mut self) {
        match self.write() {
            Ok(Some(bytes)) => (self.present, self.bytes) = (true, bytes),
            Ok(None) | Err(_) => remove(&self.path),
        }
    }

    /// Writes until there is enough or no room, and keeps the part that leaves enough free. Gives its size.
    fn write(&self) -> io::Result<Option<u64>> {
        let mut file = private(OpenOptions::new().append(true).create(true)).open(&self.path)?;
        let there = file.metadata()?.len();
        let zeros = [0; 64 << 10];
        let most = needed(SIZES[0].0, self.bytes);
        let mut room = there;
        if there != SIZES[0].0 {
            while room < most {
                match file.write(&zeros) {
                    Ok(written @ 1..) => room += written as u64,
                    Ok(0) | Err(_) => break,
                }
            }
        }
        let size = fitting(room, there, self.bytes);
        size.map_or(Ok(()), |bytes| file.set_len(bytes))?;
        Ok(size)
    }
}

/// Room that a ballast of so many bytes needs when the last one had `last`: with it half as much is free again, and more than
/// giving up the last one has freed, so that it is not made and given up in turns.
fn needed(bytes: u64, last: u64) -> u64 {
    bytes.max(last) + bytes / 2
}

/// The size that fits into so much room; not less than the one that is there.
fn fitting(room: u64, there: u64, last: u64) -> Option<u64> {
    let sizes = SIZES.into_iter().map(|(bytes, _)| bytes);
    sizes.into_iter().find(|&bytes| bytes == there || needed(bytes, last) <= room)
}

/// Gives up the ballast of the database at `path`, which cannot be opened for want of room. Says whether there was one.
pub(crate) fn release_unopened(path: &Path) -> bool {
    fs::remove_file(path_of(path)).is_ok()
}

/// Where the ballast of the database at `path` is.
pub(crate) fn path_of(path: &Path) -> PathBuf {
    names::beside(path, ".ballast")
}

fn remove(path: &Path) {
    // If it is not there, another node of the same file has given it up.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_is_as_large_as_the_disk_bears() {
        for (room, there, last, size) in [
            (100, 0, 0, Some(8)),
            (12, 0, 0, Some(8)),
            (11, 0, 0, Some(4)),
            (6, 0, 0, Some(4)),
            (5, 0, 0, Some(2)),
            (3, 0, 0, Some(2)),
            (2, 0, 0, None),
            // What is there stays, and grows if it can.
            (2, 2, 0, Some(2)),
            (5, 4, 0, Some(4)),
            (12, 2, 0, Some(8)),
            // What was given up is free then: that alone is not enough for another one, not even for a smaller one.
            (8, 0, 8, None),
            (9, 0, 8, Some(2)),
            (10, 0, 8, Some(4)),
            (12, 0, 8, Some(8)),
            (4, 0, 4, None),
            (2, 0, 2, None),
            (3, 0, 2, Some(2)),
        ] {
            assert_eq!(
                fitting(room * MIB, there * MIB, last * MIB),
                size.map(|size| size * MIB),
                "{room}, {there}, {last}"
            );
        }
    }

    #[test]
    fn what_depends_on_its_size_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("liner.db");
        let mut ballast = Ballast::new(&path);
        assert_eq!((ballast.bytes, ballast.needs()), (8 * MIB, None));
        let mut of = |bytes| {
            ballast.bytes = bytes;
            (ballast.log_pages(), ballast.move_max())
        };
        assert_eq!(of(8 * MIB), (1000, 2 * MIB));
        assert_eq!(of(4 * MIB), (500, 2 * MIB));
        assert_eq!(of(2 * MIB), (128, MIB + MIB / 8));
        assert_eq!(of(0), of(2 * MIB));
        // The log, and a move in the log and in the database, have room in what is given up.
        for (bytes, pages) in SIZES {
            assert!(2 * 4096 * u64::from(pages) <= bytes);
        }
    }

    #[test]
    fn without_room_it_says_how_much_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("liner.db");
        fs::create_dir(path_of(&path)).unwrap();
        let ballast = Ballast::new(&path);
        assert!(ballast.is_released());
        assert_eq!(ballast.needs(), Some(3 * MIB));
    }
}
