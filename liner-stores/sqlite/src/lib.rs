//! liner's store in an SQLite file.
//!
//! The file is shared by several nodes, of one process or of many; everything in it is keyed by the node's own name, and a
//! lock that the operating system takes back at any death sees to it that a name is used once.
//!
//! * **Commits.** A turn is one transaction. The log is a write-ahead log, synchronised at
//!   every commit for [`Class::Power`], and at checkpoints only for [`Class::Process`].
//! * **Segments.** What is appended at once is one row, under one CRC-32C that covers whose it is, its numbers and its
//!   bytes, and that is checked whenever it is read. A row that fails is kept aside in the table `quarantine`.
//! * **The inbox.** Messages for the node's own application are rows of the table `inbox`, from which it takes them in its own
//!   transaction: [`Inbox`].
//! * **A damaged file** is renamed when it is opened, and a new one is made in its place. What has never been a database is
//!   left alone.
//! * **A file of liner_broker** 1.3 or 1.4 becomes one of this release where it is, with the messages that wait in it.
//! * **A file that is deleted or replaced** while it is open is noticed before a commit counts.
//! * **A full disk.** Beside the database lies a ballast of eight mebibytes, or less on a small disk. When the disk is full it
//!   is given up, so that acknowledgements have room. Until it can be made again, new messages are taken only where
//!   acknowledged ones were.
//!
//! Operators find the tables that they know: `topic_addr`, `topic_key`, `conn_key_map`, `conn_mess_number`, `conn_sender`,
//! `sender_listener` and the view `conn_messages`, which has a row a message, and takes rows that are inserted or deleted by
//! hand. `docs/operators.md` has what to ask them.

mod about;
mod backup;
mod ballast;
mod broker;
mod deliveries;
mod directory;
mod error;
mod file;
mod inbox;
mod inserted;
mod lease;
mod look;
mod looking;
mod names;
mod open;
mod orphans;
mod queues;
mod reading;
mod recover;
mod row;
mod schema;
mod turn;
mod view;

use std::fs::File;
use std::path::PathBuf;

use liner_proto::effect::{InboxHeld, Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::id::Class;
use liner_proto::router::DirectoryRows;
use liner_proto::store::{Capabilities, Store};
use rusqlite::Connection;

pub use backup::{BackedUp, BackupError, backup};
pub use error::OpenError;
pub use inbox::{Inbox, InboxError, Taken};
pub use liner_store::inbox::{Failed, InboxMessage};
pub use liner_store::look::{DeadLetter, Pending, Subscription, Target};
pub use look::{Look, LookError};

/// The release that [`Inbox`] lends its transactions of.
pub use rusqlite;

use ballast::Ballast;
use file::Held;
use row::Rows;
use turn::Turn;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the node whose store this is.
    pub name: String,
    /// What commits are to survive. [`Class::Ram`] is taken as [`Class::Process`]: a file does not do less.
    pub durability: Class,
    /// Bytes that the database may have, with all its nodes and tables; without it the disk is the limit. The log beside
    /// it comes on top.
    pub limit_bytes: Option<u64>,
    /// Names this run of the operating system: `/proc/sys/kernel/random/boot_id` on Linux. It tells the death of a process,
    /// after which nothing is lost, from a loss of power.
    pub boot_id: String,
}

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The file was new, or is new since the one that was there was put aside.
    pub created: bool,
    /// Where the damaged file is that was put aside.
    pub quarantined: Option<PathBuf>,
    /// The schema that the file had before it was upgraded.
    pub upgraded_from: Option<i64>,
    /// liner_broker had made the file, and it was taken over: what became of the messages that it held.
    pub taken_over: Option<TakenOver>,
    /// The node's last run did not close the store.
    pub unclean: bool,
    /// Queues and cursors that did not pass their check, and are gone.
    pub damaged: u64,
    /// Messages that were put among the dead letters because their queue is gone.
    pub orphaned: u64,
    /// Messages that were inserted by hand and are queued now.
    pub inserted: u64,
    /// Messages that were inserted by hand and wait for the next start: there was no room to queue them, or commits may be
    /// missing, so that their numbers may have been used.
    pub waiting: u64,
    /// The disk is too small or too full for the ballast: so many bytes must be free on it. New messages are taken only where
    /// acknowledged ones were meanwhile.
    pub needs_free: Option<u64>,
}

/// What became of the messages in a file that liner_broker had made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenOver {
    /// Messages that are queued, of all its nodes. They are marked as such that may have been delivered before.
    pub queued: u64,
    /// Messages that were put among the dead letters, because nobody knows where they belong, or because they are compressed, or
    /// longer than a message may be.
    pub dead: u64,
}

/// A store in an SQLite file.
///
/// It blocks: at [`Class::Power`] a commit waits for the disk, and any call may wait up to five seconds for another process
/// that writes to the file.
///
/// After [`StoreFault::Unknown`] nothing more can be done with it but to drop it and open the file again.
#[derive(Debug)]
pub struct SqliteStore {
    conn: Connection,
    path: PathBuf,
    owner: String,
    class: Class,
    opened: Opened,
    regressed: bool,
    turn: Turn,
    rows: Rows,
    /// Counts the commits of others: the rows are those of this version.
    version: i64,
    /// The same for the directory that was told last.
    directory_version: Option<i64>,
    /// What it said of leases.
    leases: lease::Leases,
    /// Whether messages were deleted by hand, as of that version.
    cleared: bool,
    counted: deliveries::Counted,
    limit: turn::Limit,
    ballast: Ballast,
    /// SQLite found the disk full, which has yet to be dealt with.
    disk_full: bool,
    /// Whether the turn has taken something that grows.
    grows: bool,
    held: Held,
    last_error: Option<String>,
    /// Held as long as the store is open; the file's content is nothing.
    _name: File,
}

impl SqliteStore {
    /// What was found when it was opened.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The messages and the bytes that a queue holds.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn queued(&mut self, queue: Queue<'_>) -> Result<(u64, u64), StoreFault> {
        self.guarded(|store| {
            store.refresh()?;
            let found = store.rows.find(&store.conn, &store.owner, queue)?;
            found.map_or(Ok((0, 0)), |row| reading::count(&store.conn, row, store.cleared))
        })
    }

    /// Closes the store, so that the next one who opens it knows that nothing is missing. What was not committed is gone.
    /// Dropping does the same, without a word about its outcome.
    ///
    /// # Errors
    /// Why the mark could not be made. The store is closed all the same.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.retire()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Without the mark the next one checks the file, which costs time and nothing else.
        let _ = self.retire();
    }
}

impl Store for SqliteStore {
    fn class(&self) -> Class {
        self.class
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.guarded(|store| store.tell(visit))
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.apply_group(group)
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        self.commit_turn()
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.guarded(|store| store.read(queue, after, into))
    }

    fn inbox(&mut self) -> Result<Option<InboxHeld>, StoreFault> {
        self.guarded(Self::count_inbox).map(Some)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { shared: true, inbox: true, leases: true, ..Capabilities::NONE }
    }

    fn directory(&mut self) -> Result<Option<DirectoryRows>, StoreFault> {
        self.guarded(Self::read_directory)
    }

    fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}
