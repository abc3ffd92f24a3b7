//! What the core asks of the world outside: storage. Requests go out, completions come in.
//!
//! The core never calls a store. It hands out a [`Batch`] of atomic groups, and is told afterwards how many of
//! the groups are committed. Whatever has to wait for that (an ack, the word "stored", a first transmission)
//! is held back by the core, not by the order in which a shell happens to call things.

use crate::delivery::Remembered;
use crate::id::{Epoch, Predecessor};
pub use crate::wire::record::GapReason;
use crate::wire::record::Mode;

/// One queue of messages that wait in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue<'a> {
    /// The stream to the node of this name.
    Node(&'a str),
    /// What is kept for the first subscriber of this topic.
    Topic(&'a str),
    /// What is kept for whatever node answers at this address.
    Address(&'a str),
}

impl<'a> Queue<'a> {
    /// The node's name, the topic or the address.
    pub const fn name(&self) -> &'a str {
        match self {
            Self::Node(name) | Self::Topic(name) | Self::Address(name) => name,
        }
    }
}

/// Why a message was put aside instead of being handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[repr(u8)]
pub enum DeadReason {
    /// The quota of its topic or its queue is used up.
    Quota = 1,
    /// It outlived its time to live.
    Expired = 2,
    /// Its handler failed too often.
    Failed = 3,
    /// The stream that it was queued for no longer exists.
    Orphaned = 4,
    /// It is larger than the next hop takes.
    TooLarge = 5,
    /// Nobody here has subscribed to its topic.
    Unsubscribed = 6,
    /// Whoever it is for may have had it already, and has forgotten whether it did.
    InDoubt = 7,
}

impl DeadReason {
    /// The reason with this number in a store.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Quota,
            2 => Self::Expired,
            3 => Self::Failed,
            4 => Self::Orphaned,
            5 => Self::TooLarge,
            6 => Self::Unsubscribed,
            7 => Self::InDoubt,
            _ => return None,
        })
    }
}

/// One step of a group. Numbers of a queue start at 1 in each epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreOp<'a> {
    /// Names this life of the node's memory of what it has had.
    Inbox {
        /// The new inbox epoch.
        epoch: Epoch,
    },
    /// Creates the queue, empty, in its first epoch. A queue that exists already keeps its content and takes the epoch.
    Open {
        /// The queue.
        queue: Queue<'a>,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Gives the queue a new epoch. The numbers of what it holds are shifted as `predecessor` says (its
    /// `old_first` becomes 1), the reservation and the topic numbers of the old epoch are kept.
    Rotate {
        /// The queue.
        queue: Queue<'a>,
        /// Its new epoch.
        epoch: Epoch,
        /// The epoch it leaves.
        predecessor: Predecessor,
    },
    /// Numbers up to `through` may be used on the wire before they are stored. Never lowers an earlier reservation.
    Reserve {
        /// The queue.
        queue: Queue<'a>,
        /// The last reserved number.
        through: u64,
    },
    /// Appends records for the numbers `first..=last`; `first` follows the last number the queue held or had trimmed.
    Append {
        /// The queue; it must be open.
        queue: Queue<'a>,
        /// Number of the first record.
        first: u64,
        /// Number of the last record. A gap record covers several numbers.
        last: u64,
        /// Whole records in wire form: each one its length as a varint, then its bytes.
        records: &'a [u8],
    },
    /// Forgets every record up to `through`: the other side has committed them.
    Trim {
        /// The queue.
        queue: Queue<'a>,
        /// The last number to forget.
        through: u64,
    },
    /// Drops every record up to `through` by policy, and remembers the numbers as a gap until they are trimmed.
    Drop {
        /// The queue.
        queue: Queue<'a>,
        /// The last number to drop.
        through: u64,
        /// What the receiver is told.
        reason: GapReason,
    },
    /// Binds a topic number of the queue's records to its text.
    Topic {
        /// The queue.
        queue: Queue<'a>,
        /// The number, from 1.
        number: u32,
        /// The topic.
        text: &'a str,
    },
    /// Everything from `peer` up to `through` has been taken over or processed.
    Cursor {
        /// The sending node.
        peer: &'a str,
        /// The epoch of its stream to this node. Replaces a cursor of another epoch.
        epoch: Epoch,
        /// The last committed number.
        through: u64,
    },
    /// Adds a row to the directory, or changes the name in it.
    Subscribe {
        /// The topic.
        topic: &'a str,
        /// Where the node listens; `@name` for a node that only dials.
        address: &'a str,
        /// The node.
        name: &'a str,
    },
    /// Removes a row from the directory. A row with another name in it stays: another node has come to the address since.
    Unsubscribe {
        /// The topic.
        topic: &'a str,
        /// The row's address.
        address: &'a str,
        /// The node.
        name: &'a str,
    },
    /// Puts a message aside.
    DeadLetter {
        /// The node it came from; if it was taken out of a stream's queue or found no place there, the one it was for.
        peer: &'a str,
        /// The topic it was sent to.
        topic: &'a str,
        /// Why.
        reason: DeadReason,
        /// The record, without its length.
        record: &'a [u8],
    },
    /// Forgets the queue with everything in it.
    Close {
        /// The queue.
        queue: Queue<'a>,
    },
    /// Puts a message into the node's inbox, behind those that are there. In the group that moves the cursor over it, so that it is
    /// there once. A store without an inbox refuses it.
    Deliver(Delivery<'a>),
}

/// A message for the node's own application, as it stands in the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The node that first sent it.
    pub from: &'a str,
    /// The epoch of the stream of its first hop.
    pub epoch: Epoch,
    /// Its number in that stream.
    pub number: u64,
    /// The topic it was sent to.
    pub topic: &'a str,
    /// Whether it was sent to one node or to all.
    pub mode: Mode,
    /// Whether it may have been delivered before: a side has lost its memory of that.
    pub maybe_redelivered: bool,
    /// What was sent.
    pub payload: &'a [u8],
}

impl Delivery<'_> {
    /// What it counts against the inbox's quota.
    pub const fn bytes(&self) -> u64 {
        self.from.len() as u64 + self.topic.len() as u64 + self.payload.len() as u64
    }
}

/// How much an inbox holds that the application has not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxHeld {
    /// Messages.
    pub messages: u64,
    /// Their bytes, as [`Delivery::bytes`] counts them.
    pub bytes: u64,
}

/// One thing that a store remembered, told when a node opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered<'a> {
    /// The node's own row; told first, and not at all by a new store.
    Node {
        /// The inbox epoch.
        inbox: Epoch,
        /// Whether the store may have lost commits since it was last used: its class is below `Power` and the
        /// operating system has been started anew, or the server behind it is another one.
        regressed: bool,
        /// Messages that the node has put aside and that are still there.
        dead_letters: u64,
    },
    /// A queue.
    Queue(RecoveredQueue<'a>),
    /// A topic number of a queue; told after the queue.
    Topic {
        /// The queue.
        queue: Queue<'a>,
        /// The number.
        number: u32,
        /// The topic.
        text: &'a str,
    },
    /// How far a peer's stream had been taken over.
    Cursor {
        /// The sending node.
        peer: &'a str,
        /// The epoch of its stream.
        epoch: Epoch,
        /// The last committed number.
        through: u64,
    },
    /// A row of the directory.
    Subscription {
        /// The topic.
        topic: &'a str,
        /// The node's address, or `@name`.
        address: &'a str,
        /// The node.
        name: &'a str,
    },
}

/// What a store knows of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredQueue<'a> {
    /// The queue.
    pub queue: Queue<'a>,
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch before it, if it was rotated.
    pub predecessor: Option<Predecessor>,
    /// The last number that was trimmed; what is queued begins above it.
    pub trimmed: u64,
    /// Numbers after `trimmed` up to this one were dropped by policy, with the reason; not yet trimmed.
    pub dropped: Option<(u64, GapReason)>,
    /// The last number that is stored, or was. `trimmed <= last`.
    pub last: u64,
    /// The last number that was reserved; 0 if none ever was.
    pub reserved: u64,
    /// Messages queued.
    pub messages: u64,
    /// Bytes of their records, lengths included.
    pub bytes: u64,
}

impl RecoveredQueue<'_> {
    /// What delivery has to know of it.
    pub const fn remembered(&self) -> Remembered {
        Remembered {
            epoch: self.epoch,
            predecessor: self.predecessor,
            trimmed: self.trimmed,
            dropped: self.dropped,
            last: self.last,
            reserved: self.reserved,
        }
    }
}

/// Records that a store gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Whole records, at the front of the buffer, for the numbers `first..=last`.
    Records {
        /// Number of the first record. Above the one asked for if the store lacks those between.
        first: u64,
        /// Number of the last record.
        last: u64,
        /// Bytes written.
        len: usize,
    },
    /// The record or records of these numbers failed their check. Their bytes are kept aside.
    Corrupt {
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
    },
    /// Nothing is stored above the number asked for.
    Nothing,
    /// The buffer is too small for the next record, which has `needed` bytes.
    TooSmall {
        /// Bytes needed.
        needed: usize,
    },
}

/// What a policy can act upon. The backend's own error stays at the border, for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StoreFault {
    /// No room. Trims still work.
    #[error("the store is full")]
    Full,
    /// It cannot be reached, or is locked for longer than its patience. Try again later.
    #[error("the store is unavailable")]
    Unavailable,
    /// What it holds does not pass its own checks.
    #[error("the store is damaged")]
    Corrupt,
    /// It may or may not have committed: ask it again after it was opened again.
    #[error("the outcome of the commit is not known")]
    Unknown,
    /// Another instance has taken this node's name.
    #[error("another instance has taken over this node's name")]
    Superseded,
    /// It lacks what it had committed: another server stands in its place, or somebody has emptied it. The node has to be built anew.
    #[error("the store has lost what it had committed")]
    Regressed,
    /// The request breaks the contract, for instance an append that leaves a hole.
    #[error("the store refused a request that breaks its contract")]
    Refused,
}

#[cfg(feature = "alloc")]
mod batch;
#[cfg(feature = "alloc")]
pub use batch::{Batch, BatchId, Outcome};
