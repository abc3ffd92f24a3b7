//! What a node is told when it is built.

use alloc::string::String;
use core::time::Duration;

use super::doubt::InDoubtPolicy;
use super::quota::{QueuePolicy, QueueRules, Quota};
use crate::config::{Limits, Timing};
use crate::delivery::SendMode;
use crate::id::Class;
use crate::planted::Planted;

/// The longest name of a node, and the longest topic, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Configuration of a [`Router`](super::Router). All fields can be set; [`NodeConfig::new`] has the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The node's unique name: 1 to 255 bytes.
    pub name: String,
    /// Which start of the node this is; random.
    pub instance: u64,
    /// What the wall clock says when the node is built, in milliseconds since the Unix epoch; 0 if there is none. It tells how long messages
    /// with a time to live were in the store while the node was not running. Without it that is unknown, and they are too old.
    pub wall_ms: u64,
    /// Seed of epochs, nonces and jitter. On a host it comes from the operating system.
    pub seed: [u64; 2],
    /// The class of the node's store.
    pub class: Class,
    /// What a peer may use of this node.
    pub limits: Limits,
    /// When the node loses patience.
    pub timing: Timing,
    /// Whether messages are stored before they leave.
    pub send_mode: SendMode,
    /// Whether it takes messages over for topics that others subscribe to. Its application settles none later then
    /// ([`Settle`](super::Settle)): after a crash it would take over once more what stands behind one that is not settled.
    pub takes_custody: bool,
    /// Whether its own subscriptions outlive it: queues of messages for it are kept while it is away.
    pub durable: bool,
    /// Messages on the node's own topics go into its store's inbox, in the group that moves their cursor, and not to the application,
    /// which takes them from there. So much may be there that it has not taken, and a window more; then peers wait. Nothing without an
    /// inbox. The store has to keep one; and a node that takes custody has none.
    pub inbox: Option<Quota>,
    /// Where other nodes can dial it; empty if they cannot.
    pub address: String,
    /// Bytes of each queue that are kept in memory. What is above them waits in the store.
    pub queue_bytes: usize,
    /// What is kept of a topic that nobody has subscribed to yet.
    pub kept: Quota,
    /// What may be queued for one node. A node that takes custody has [`Quota::QUEUE`] without one, another one no bound but its
    /// store's.
    pub queue_quota: Option<Quota>,
    /// What becomes of a message of this node's own when that much is queued for its receiver.
    pub queue_policy: QueuePolicy,
    /// Other quotas and policies for some nodes, by their names.
    pub queue_rules: QueueRules,
    /// Names of peers that are known at a time; beyond them a new one is refused. A name is forgotten when its node is away
    /// and nothing is left of it: no subscription, no queue, and no number of its stream that was taken.
    pub names_max: usize,
    /// Connections at a time: those whose handshake is not finished, and sessions. Beyond them the session of a connection that the
    /// other side has made is refused, unless it takes the place of another one; this node's own dials are not.
    pub connections_max: usize,
    /// Those of them whose handshake is not finished and that others have made; at most half of all. Of one more, one gives way: the
    /// oldest of the [source](super::Source) that has the most.
    pub strangers_max: usize,
    /// Those of them that come from one [source](super::Source); no bound without one, as many nodes may be on one machine.
    pub connections_per_source: Option<usize>,
    /// Topics that peers may bring into use at a time, all of them together. One peer has a sixteenth of them at most by its
    /// subscriptions, and as many by what is kept of its messages.
    pub topics_max: usize,
    /// Whether it dials anybody. One that is started only to change what its store holds should not: whoever meets it takes it that it
    /// has the topics that it says now, and no others.
    pub dials: bool,
    /// Whether it takes messages. One that is started only to send what its store holds should not: it tells nobody what it subscribes to,
    /// so that what its peers know of that stays as it is, and its peers keep what they have for it.
    pub takes: bool,
    /// Nodes that are dialled because this node has met them or heard of them, beside those for which something is queued and those
    /// that it was told to dial. A node that cannot be dialled itself is found by others only as far as it finds them.
    pub mesh_max: usize,
    /// Rows of other nodes that one peer may tell, and that peers are told.
    pub heard_max: usize,
    /// How often a directory is looked at that other nodes share, for those that have come or gone; never without it. The node's own
    /// rows are written there.
    pub catalog: Option<Duration>,
    /// How long the store may leave unanswered what it was asked before it counts as away.
    pub store_patience: Duration,
    /// How long a subscriber without a name may be away before it is gone.
    pub lease: Duration,
    /// Whether a peer's acknowledgements are taken although they stand for less than this node's class.
    pub accept_weak_acks: bool,
    /// What becomes of messages that a peer may have had before it forgot this node's stream.
    pub in_doubt: InDoubtPolicy,
    /// Messages that the application is given at most before the store has committed that it had them: so many may come again
    /// after a crash, and are marked if they do. The shell has to keep to it.
    pub repeat_max: u64,
    /// A wrong behaviour to show.
    pub planted: Planted,
}

impl NodeConfig {
    /// A host with the documented defaults.
    pub fn new(name: impl Into<String>, seed: [u64; 2], class: Class) -> Self {
        Self {
            name: name.into(),
            instance: seed[0] ^ seed[1].rotate_left(32),
            wall_ms: 0,
            seed,
            class,
            limits: Limits::HOST,
            timing: Timing::DEFAULT,
            send_mode: SendMode::Stored,
            takes_custody: false,
            durable: false,
            inbox: None,
            address: String::new(),
            queue_bytes: 16 * 1024 * 1024,
            kept: Quota::DEFAULT,
            queue_quota: None,
            queue_policy: QueuePolicy::default(),
            queue_rules: QueueRules::new(),
            names_max: 65_536,
            connections_max: 1024,
            strangers_max: 64,
            connections_per_source: None,
            topics_max: 65_536,
            dials: true,
            takes: true,
            mesh_max: 64,
            heard_max: 1024,
            catalog: None,
            store_patience: Duration::from_secs(3),
            lease: Duration::from_secs(15),
            accept_weak_acks: false,
            in_doubt: InDoubtPolicy::default(),
            repeat_max: u64::MAX,
            planted: Planted::default(),
        }
    }
}
