//! The contract that every store keeps, and the stores that need no disk.
//!
//! A store executes what the core asks for ([`crate::effect`]). It blocks; whether that happens in the loop's own
//! thread or on a worker is the shell's business. It makes no decisions of delivery: it keeps records, cursors
//! and names, and says truthfully what it has committed.

use crate::effect::{InboxHeld, Loaded, Queue, Recovered, StoreFault, StoreOp};
use crate::id::Class;

/// A place where queues, cursors and the directory of one node are kept.
///
/// # Contract
/// * **Groups are atomic.** [`apply`](Self::apply) leaves all of a group or nothing of it, also when it fails.
/// * **Durable at commit.** What was applied is visible to later calls at once, and survives what the
///   [`class`](Self::class) names as soon as [`commit`](Self::commit) returned `Ok`. If `commit` fails, nothing applied
///   since the commit before it remains.
/// * **Order.** Groups take effect in the order of the calls. `Append` of a queue begins at the number after the last
///   one that the queue has held (or at 1, or after what was trimmed); anything else is [`StoreFault::Refused`].
/// * **Idempotent cursors.** `Trim`, `Drop`, `Reserve` and `Cursor` (within an epoch) never move backwards: a lower
///   number is ignored. A `Trim` above the last stored number moves that too: the asynchronous mode has such messages
///   acknowledged before they had to be stored. A `Drop` above it is `Refused`. `Cursor` of another epoch replaces.
/// * **One row for a place.** A topic and an address have one row in the directory: `Subscribe` puts another name into it, and
///   `Unsubscribe` takes it out only as long as the name is the one that it says. A row that is not there, or is another node's, is none.
/// * **Room for acks.** `Trim`, `Cursor` and `Close` succeed in a store that is full.
/// * **Checked records.** Every stored record is covered by a checksum that is made when it is stored and checked when it
///   is read. What fails is reported as [`Loaded::Corrupt`], never handed out and never silently skipped.
/// * **The inbox** is a queue from which the application takes by means of its own, in whatever order of calls: what a `Deliver` put there
///   is there once, behind all that was there before, and nothing but the application takes it out. A store that keeps none refuses
///   `Deliver`, and says so in its [`capabilities`](Self::capabilities).
/// * **No panic** on whatever it finds in the file or hears from the server.
pub trait Store {
    /// What a committed record survives: found out, not wished for.
    fn class(&self) -> Class;

    /// Tells everything that the node must know before it speaks to anyone: its own row first, then queues, their
    /// topic numbers, cursors and the directory, in any order. Called once, before any `apply`.
    ///
    /// # Errors
    /// [`StoreFault::Unavailable`] or [`StoreFault::Corrupt`]; what was told until then is not to be used.
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault>;

    /// Applies a group: all of its requests, or none.
    ///
    /// # Errors
    /// Why the group could not be applied; nothing of it remains.
    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault>;

    /// Makes everything that was applied survive what the class names.
    ///
    /// # Errors
    /// Nothing applied since the last commit remains, now or later; after [`StoreFault::Unknown`] it may: then
    /// [`resolve`](Self::resolve) comes next.
    fn commit(&mut self) -> Result<(), StoreFault>;

    /// Asks what became of the commit that ended with [`StoreFault::Unknown`]. Nothing else is asked of the store until it is known.
    ///
    /// # Errors
    /// [`StoreFault::Unavailable`] if that cannot be said yet: ask again. [`StoreFault::Unknown`] if it never will. After any other
    /// fault nothing of the turn remains: [`StoreFault::Refused`] if there is no other reason than that the commit did not come to pass.
    /// What was asked for is asked for again then.
    fn resolve(&mut self) -> Result<(), StoreFault> {
        Err(StoreFault::Unknown)
    }

    /// Copies whole records with numbers above `after` into `into`, at least one, as many as fit or as the store finds
    /// handy. The range dropped by policy is skipped. A queue that does not exist holds nothing.
    ///
    /// # Errors
    /// [`StoreFault::Unavailable`]; damage to a record is not an error but [`Loaded::Corrupt`].
    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault>;

    /// What the node's inbox holds now, with what was applied; nothing if this store keeps none. The application may have taken
    /// something since this was asked last.
    ///
    /// # Errors
    /// [`StoreFault::Unavailable`] or [`StoreFault::Corrupt`].
    fn inbox(&mut self) -> Result<Option<InboxHeld>, StoreFault> {
        Ok(None)
    }

    /// What it can do besides keeping queues. The same at all times.
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    /// The directory's rows, with what was applied and with the standing of their nodes; nothing if all that is the same as when this
    /// was asked last, or if nobody shares the store. A store whose leases have to be renewed renews the node's own one on this
    /// occasion, when a third of [`LEASE`] has passed.
    ///
    /// # Errors
    /// [`StoreFault::Unavailable`] or [`StoreFault::Corrupt`].
    #[cfg(feature = "alloc")]
    fn directory(&mut self) -> Result<Option<crate::router::DirectoryRows>, StoreFault> {
        Ok(None)
    }

    /// Where word comes from that other nodes have changed the directory, on a connection of its own; nothing if the store has no such
    /// means, or it was asked before. Whoever has it asks for the [`directory`](Self::directory) after each word, and now and then
    /// without.
    #[cfg(feature = "alloc")]
    fn notices(&mut self) -> Option<alloc::boxed::Box<dyn Notices + Send>> {
        None
    }

    /// The backend's own words about the latest fault, for logs.
    fn last_error(&self) -> Option<&str> {
        None
    }
}

/// What a store can do besides keeping queues: declared, so that nobody has to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Nodes of other processes may use the same store, and are found by its [directory](Store::directory).
    pub shared: bool,
    /// It keeps an [inbox](Store::inbox).
    pub inbox: bool,
    /// Its directory tells whether a node runs ([`Standing`](crate::router::Standing)).
    pub leases: bool,
    /// How often a shared directory is worth a look where no [notices](Store::notices) come.
    pub directory_every: core::time::Duration,
}

impl Capabilities {
    /// Those of a store that one node has for itself.
    pub const NONE: Self = Self {
        shared: false,
        inbox: false,
        leases: false,
        directory_every: core::time::Duration::from_millis(500),
    };
}

/// How long a row of a shared directory counts as up after its node was last heard of. A node that runs renews it in time.
pub const LEASE: core::time::Duration = core::time::Duration::from_secs(15);

/// Word that other nodes have changed the directory of a shared store.
#[cfg(feature = "alloc")]
pub trait Notices {
    /// Waits until there is word, but no longer than `patience`, and not after an [interruption](Self::interrupter). Says whether
    /// the directory may have changed; a connection that was lost and is there again means that it may. Without a connection it waits.
    fn wait(&mut self, patience: core::time::Duration) -> bool;

    /// Ends a wait from any thread. Called while nobody waits, it ends the next one.
    fn interrupter(&self) -> alloc::boxed::Box<dyn Fn() + Send + Sync>;
}

pub mod head;
mod ram;
pub mod run;
pub use ram::RamStore;

#[cfg(feature = "alloc")]
mod heap;
#[cfg(feature = "alloc")]
pub use heap::{DeadLetter, Delivered, HeapStore};

/// Reads records for [`Router::handle_loaded`](crate::router::Router::handle_loaded), as a shell does in place or on its worker: into a
/// buffer of one segment, or as long as the next record is, which the store has read then. Gives the buffer with what stands in it.
#[cfg(feature = "alloc")]
pub fn load<S: Store + ?Sized>(
    store: &mut S,
    request: &crate::router::LoadRequest,
) -> (Result<Loaded, StoreFault>, alloc::vec::Vec<u8>) {
    let mut bytes = alloc::vec![0; crate::memory::SEGMENT_BYTES];
    let mut loaded = store.load(request.queue(), request.after(), &mut bytes);
    if let Ok(Loaded::TooSmall { needed }) = loaded {
        bytes.resize(needed, 0);
        loaded = store.load(request.queue(), request.after(), &mut bytes);
    }
    (loaded, bytes)
}

/// Applies a batch's groups, as many as succeed. They count after a [commit](Store::commit), as [`Outcome::ended`] says.
///
/// [`Outcome::ended`]: crate::effect::Outcome::ended
#[cfg(feature = "alloc")]
pub fn apply<S: Store + ?Sized>(store: &mut S, batch: &crate::effect::Batch) -> crate::effect::Outcome {
    let (groups, fault) = match batch.try_each_group(|group| store.apply(group)) {
        Ok(()) => (batch.groups_len(), None),
        Err((index, fault)) => (index, Some(fault)),
    };
    crate::effect::Outcome { groups, fault }
}

/// What has become of a commit, as [`Store::resolve`] says; nothing if that cannot be said yet.
pub const fn resolved(answer: Result<(), StoreFault>) -> Option<Result<(), StoreFault>> {
    match answer {
        Err(StoreFault::Unavailable) => None,
        // As if the store had been away.
        Err(StoreFault::Refused) => Some(Err(StoreFault::Unavailable)),
        known => Some(known),
    }
}

/// Executes a batch on a store, as a shell does in place: it cannot wait for a store that is away.
///
/// Every group that was applied is committed, also when a later one failed. What became of a commit that nobody knows the outcome of
/// is asked once.
#[cfg(feature = "alloc")]
pub fn execute<S: Store + ?Sized>(store: &mut S, batch: &crate::effect::Batch) -> crate::effect::Outcome {
    let applied = apply(store, batch);
    if applied.groups == 0 {
        return applied;
    }
    let ended = match store.commit() {
        Err(StoreFault::Unknown) => resolved(store.resolve()).unwrap_or(Err(StoreFault::Unknown)),
        known => known,
    };
    applied.ended(ended)
}
