//! How a node is put together.

use std::collections::VecDeque;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use liner_proto::config::HEAD_BYTES_MAX;
use liner_proto::delivery::SendMode;
use liner_proto::router::{
    Framing, InDoubt, NAME_BYTES_MAX, NodeConfig, QueuePolicy, QueueRule, Quota, Router,
};
use liner_proto::store::{HeapStore, Store};
use mio::{Poll, Waker};

use crate::clock::{self, Clock};
use crate::error::BuildError;
use crate::link::{Line, LineUrl, Links, Listener, WAKER, connections_max};
use crate::node::Node;
use crate::storage::{REPEAT_MAX, Stores};

/// What a node without a store keeps in memory at most, in bytes of records.
const HEAP_BYTES: u64 = 1024 * 1024 * 1024;

/// How often the directory of a store is looked at that other processes share, if word comes of its changes.
const CATALOG_EVERY: Duration = Duration::from_millis(500);

/// Parts the pauses of a store's worker from whatever else is drawn from the node's seed.
const WORKER_SEED: u64 = 0x73_746f_7265;

/// A change to the configuration.
type Configure = Box<dyn FnOnce(&mut NodeConfig) + Send>;

/// Collects what a [`Node`] needs. Made by [`Node::builder`].
pub struct Builder {
    name: String,
    store: Box<dyn Store + Send>,
    on_worker: bool,
    listen: Vec<(String, Framing)>,
    lines: Vec<String>,
    insecure: bool,
    peers: Vec<String>,
    topics: Vec<String>,
    receivers: Vec<[String; 3]>,
    spin: Duration,
    settles_later: bool,
    configure: Vec<Configure>,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            store: Box::new(HeapStore::new(HEAP_BYTES)),
            on_worker: false,
            listen: Vec::new(),
            lines: Vec::new(),
            insecure: false,
            peers: Vec::new(),
            topics: Vec::new(),
            receivers: Vec::new(),
            spin: Duration::ZERO,
            settles_later: false,
            configure: Vec::new(),
        }
    }

    /// Keeps queues and cursors in `store`, called in the loop's own thread: a commit that takes long makes everything
    /// wait. Right for memory, and for whoever accepts that wait and wants no thread.
    ///
    /// Without a store the node keeps up to 1 GiB in its memory ([`HeapStore`]).
    pub fn store(mut self, store: Box<dyn Store + Send>) -> Self {
        self.store = store;
        self.on_worker = false;
        self
    }

    /// Keeps queues and cursors in `store`, called in one worker thread named `liner-store`: the loop never waits for it.
    /// What comes together while one commit runs goes into the next one.
    pub fn store_on_worker(mut self, store: Box<dyn Store + Send>) -> Self {
        self.store = store;
        self.on_worker = true;
        self
    }

    /// Has the store that it was given called in a worker thread, as [`store_on_worker`](Self::store_on_worker) does, or in the loop's own.
    pub fn on_worker(mut self, on_worker: bool) -> Self {
        self.on_worker = on_worker;
        self
    }

    /// Listens on `addr`, which is `host:port`; port 0 takes a free one ([`Node::listen_addrs`]). May be called several times.
    pub fn listen(mut self, addr: &str, framing: Framing) -> Self {
        self.listen.push((addr.to_owned(), framing));
        self
    }

    /// Opens a line on which a device begins: a serial port or a serial-to-TCP bridge, as a [`LineUrl`] says. It is opened again
    /// whenever it was lost, a port within half a second after it is back; what becomes of it is told by
    /// [`Node::poll_line`]. May be called several times. The name of a bridge's host is looked up as a [`peer`](Self::peer)'s is.
    pub fn line(mut self, url: &str) -> Self {
        self.lines.push(url.to_owned());
        self
    }

    /// Where other nodes are told to find this one, `host:port`; port 0 stands for the one that it listens on. Without it: the first address it listens on with
    /// [`Framing::Length`], unless that stands for all addresses of the machine.
    pub fn advertise(self, addr: &str) -> Self {
        let addr = addr.to_owned();
        self.configure(move |config| config.address = addr)
    }

    /// Allows listen addresses that other machines can reach, although nothing authenticates who connects.
    pub const fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Names a peer by its address `host:port`. It is dialled for as long as the node runs, and is the next hop for topics
    /// that nobody is known for. A host's name is looked up at each dial, in a thread of its own named `liner-lookup`, so
    /// that the loop does not wait for it; numeric addresses need no thread.
    pub fn peer(mut self, addr: &str) -> Self {
        self.peers.push(addr.to_owned());
        self
    }

    /// Subscribes to a topic.
    pub fn subscribe(mut self, topic: &str) -> Self {
        self.topics.push(topic.to_owned());
        self
    }

    /// Names somebody who takes `topic`, the node `name`, which listens on `addr`, `host:port`. The store's directory keeps that.
    pub fn receiver(mut self, topic: &str, addr: &str, name: &str) -> Self {
        self.receivers.push([topic, addr, name].map(str::to_owned));
        self
    }

    /// Whether the node takes messages over for topics that others subscribe to, as a gateway does.
    pub fn takes_custody(self, takes_custody: bool) -> Self {
        self.configure(move |config| config.takes_custody = takes_custody)
    }

    /// Whether peers keep their queues for this node while it is away.
    pub fn durable(self, durable: bool) -> Self {
        self.configure(move |config| config.durable = durable)
    }

    /// Puts messages on the node's own topics into the store's inbox, in the transaction that moves their cursor, instead of handing them
    /// to the handler: the application takes each of them once, in a transaction of its own (`liner_store_sqlite::Inbox`).
    /// [`Progress::delivered`](crate::Progress::delivered) says when there is something. Best-effort messages go to the handler as ever.
    ///
    /// While the inbox holds as much as `quota` says, and a window more, peers keep what they have, and wait.
    ///
    /// The store has to keep an inbox, and a node that takes custody has none.
    pub fn inbox(self, quota: Quota) -> Self {
        self.configure(move |config| config.inbox = Some(quota))
    }

    /// Whether messages are stored before they leave.
    pub fn send_mode(self, mode: SendMode) -> Self {
        self.configure(move |config| config.send_mode = mode)
    }

    /// Whether a peer's acknowledgements are taken although they stand for less than this node's store.
    pub fn accept_weak_acks(self, accept: bool) -> Self {
        self.configure(move |config| config.accept_weak_acks = accept)
    }

    /// The longest payload that the node sends and takes, in bytes; 1 MiB without this. A peer cannot raise it: it is told in the
    /// handshake, and a longer message ends its session before a byte of it is kept.
    ///
    /// As many bytes may arrive in pieces from each peer at a time, beside its window; so many take memory while they wait, twice
    /// while they are being written.
    pub fn message_max(self, bytes: u32) -> Self {
        self.configure(move |config| config.limits.message_max = bytes.saturating_add(HEAD_BYTES_MAX))
    }

    /// Connections at a time, 1,024 without this, and never more than the process may have descriptors less 64. Of those, 64 are for
    /// connections whose handshake is not finished; beyond the rest, a node that connects is refused unless it is connected already
    /// ([`Event::ConnectionsFull`](crate::Event::ConnectionsFull)).
    pub fn connections_max(self, max: usize) -> Self {
        self.configure(move |config| config.connections_max = max)
    }

    /// Connections at a time from one IPv4 address, or from one /64 of IPv6; no bound without this. Further ones are closed at once.
    pub fn connections_per_address(self, max: usize) -> Self {
        self.configure(move |config| config.connections_per_source = Some(max))
    }

    /// How much may be queued for one node. Without this a node that takes custody has [`Quota::QUEUE`], another one no bound but its
    /// store's.
    pub fn queue_quota(self, quota: Quota) -> Self {
        self.configure(move |config| config.queue_quota = Some(quota))
    }

    /// What becomes of a message that this node sends when that much is queued for its receiver: the send is refused by default.
    pub fn queue_policy(self, policy: QueuePolicy) -> Self {
        self.configure(move |config| config.queue_policy = policy)
    }

    /// Another quota, and another policy, for the node `name` alone.
    pub fn queue_rule_of(self, name: &str, rule: QueueRule) -> Self {
        let name = name.to_owned();
        self.configure(move |config| {
            config.queue_rules.insert(name, rule);
        })
    }

    /// What becomes of messages that a peer may have had before it forgot this node's stream, as a device does that is switched off;
    /// they come again by default, marked.
    pub fn in_doubt(self, policy: InDoubt) -> Self {
        self.configure(move |config| config.in_doubt.default = policy)
    }

    /// The same for the node `name` alone.
    pub fn in_doubt_of(self, name: &str, policy: InDoubt) -> Self {
        let name = name.to_owned();
        self.configure(move |config| {
            config.in_doubt.by_name.insert(name, policy);
        })
    }

    /// How long after the last traffic the node polls without sleeping. Shortens round trips and burns a processor
    /// meanwhile; zero by default.
    pub const fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Whether the handler may settle messages after it has taken them ([`Handler::take`](crate::Handler::take)). After a crash all
    /// that its senders had under way is marked as perhaps handed over before then, and not just the last turn's.
    ///
    /// A node that takes custody settles nothing later: after a crash it would hand on once more what stands behind an unsettled message.
    pub const fn settles_later(mut self, settles_later: bool) -> Self {
        self.settles_later = settles_later;
        self
    }

    /// Changes anything else in the configuration. What is set here later wins over what was set before.
    pub fn configure(mut self, configure: impl FnOnce(&mut NodeConfig) + Send + 'static) -> Self {
        self.configure.push(Box::new(configure));
        self
    }

    /// Binds the addresses, recovers from the store, and starts the worker if one was asked for. Dials nobody yet.
    ///
    /// # Errors
    /// See [`BuildError`]. Nothing of the node remains.
    pub fn build(mut self) -> Result<Node, BuildError> {
        self.check()?;
        let lines = lines(&self.lines)?;
        let poll = Poll::new().map_err(BuildError::Loop)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(BuildError::Loop)?);
        let mut listeners = Vec::new();
        for (addr, framing) in &self.listen {
            let token = listeners.len();
            listeners.push(Listener::bind(addr, *framing, self.insecure, poll.registry(), token)?);
        }
        let seed = clock::seed().map_err(BuildError::Random)?;
        let mut config = NodeConfig::new(self.name, seed, self.store.class());
        config.address = own_address(&listeners);
        config.repeat_max = if self.settles_later { u64::MAX } else { REPEAT_MAX };
        config.wall_ms = clock::wall_ms();
        let capabilities = self.store.capabilities();
        let listens = self.on_worker && capabilities.shared;
        let mut notices = if listens { self.store.notices() } else { None };
        let every = if notices.is_some() { CATALOG_EVERY } else { capabilities.directory_every };
        config.catalog = capabilities.shared.then_some(every);
        for configure in self.configure {
            configure(&mut config);
        }
        config.connections_max = config.connections_max.min(connections_max());
        config.address = with_port(config.address, &listeners);
        if config.inbox.is_some() && config.takes_custody {
            return Err(BuildError::InboxWithCustody);
        }
        if self.settles_later && config.takes_custody {
            return Err(BuildError::SettlesLaterWithCustody);
        }
        let has_inbox = config.inbox.is_some();
        if has_inbox && !capabilities.inbox {
            return Err(BuildError::NoInbox);
        }
        notices = notices.filter(|_| config.catalog.is_some());
        let clock = Clock::start();
        let mut router = Router::new(config, clock.now());
        let recovered = self.store.recover(&mut |item| router.restore(&item));
        let failed = |fault, store: &dyn Store| BuildError::Store {
            fault,
            said: store.last_error().map(str::to_owned),
        };
        recovered.map_err(|fault| failed(fault, &*self.store))?;
        if has_inbox {
            let held = self.store.inbox().map_err(|fault| failed(fault, &*self.store))?;
            router.handle_inbox(clock.now(), Ok(held.unwrap_or_default()));
        }
        router.start(clock.now());
        for topic in &self.topics {
            router.subscribe(clock.now(), topic);
        }
        for [topic, addr, name] in &self.receivers {
            router.add_receiver(clock.now(), topic, addr, name);
        }
        for peer in &self.peers {
            router.add_peer(clock.now(), peer);
        }
        let stores = if self.on_worker {
            let seed = [seed[0] ^ WORKER_SEED, seed[1]];
            Stores::on_worker(self.store, notices, seed, Arc::clone(&waker)).map_err(BuildError::Worker)?
        } else {
            Stores::in_place(self.store)
        };
        let manner = (self.spin, self.settles_later);
        Ok(Node::assemble(router, clock, poll, waker, Links::new(listeners, lines), stores, manner))
    }

    fn check(&self) -> Result<(), BuildError> {
        let fits = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        if !fits(&self.name) {
            return Err(BuildError::Name { name: self.name.clone() });
        }
        match self.topics.iter().find(|topic| !fits(topic)) {
            Some(topic) => Err(BuildError::Topic { topic: topic.clone() }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("listen", &self.listen)
            .field("lines", &self.lines)
            .field("peers", &self.peers)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// The lines that the URLs name, each port and each bridge once.
fn lines(urls: &[String]) -> Result<Vec<Line>, BuildError> {
    let mut lines: Vec<Line> = Vec::new();
    for url in urls {
        let url: LineUrl = url.parse()?;
        if lines.iter().any(|line| line.url().is_same_place(&url)) {
            return Err(BuildError::LineTwice { line: url.to_string() });
        }
        lines.push(Line::new(url));
    }
    Ok(lines)
}

/// The addresses that `addr` stands for. A numeric one is never looked up.
pub(crate) fn resolve(addr: &str) -> std::io::Result<VecDeque<SocketAddr>> {
    Ok(addr.to_socket_addrs()?.collect())
}

/// An address to tell, with the port that the node listens on in the place of port 0.
fn with_port(address: String, listeners: &[Listener]) -> String {
    let bound = listeners.iter().find(|listener| listener.framing == Framing::Length);
    match (address.strip_suffix(":0"), bound) {
        (Some(host), Some(listener)) => format!("{host}:{}", listener.addr.port()),
        _ => address,
    }
}

/// Where peers can reach the node, if one of its addresses says so.
fn own_address(listeners: &[Listener]) -> String {
    listeners
        .iter()
        .find(|listener| listener.framing == Framing::Length)
        .filter(|listener| !listener.addr.ip().is_unspecified())
        .map(|listener| listener.addr.to_string())
        .unwrap_or_default()
}
