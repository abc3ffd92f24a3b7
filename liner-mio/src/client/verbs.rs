//! What a client can be asked besides sending, and what it is told before it runs.

use std::sync::Arc;
use std::time::Duration;

use liner_proto::effect::{GapReason, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::router::{Address, NAME_BYTES_MAX, QueuedFor, Quota};
use liner_proto::store::Store;

use super::error::{ClientForgetError, StoppedOnlyError, SubscribeError};
use super::handling::Failures;
use super::settings::{Backpressure, Status};
use super::{Client, Idle, lock};
use crate::builder::Builder;
use crate::node::Node;

/// A node that takes a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAddress {
    /// Where it listens; `@` and its name if it only dials others.
    pub address: String,
    /// Its name.
    pub name: String,
    /// Whether it is connected.
    pub is_up: bool,
}

impl KnownAddress {
    fn of(known: Address<'_>) -> Self {
        Self { address: known.address.to_owned(), name: known.name.to_owned(), is_up: known.is_up }
    }
}

/// What is queued for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingFor {
    /// Its name; empty as long as nobody has answered at the address.
    pub name: String,
    /// Where it listens; empty if nobody knows.
    pub address: String,
    /// Messages that it has not acknowledged.
    pub messages: u64,
}

impl PendingFor {
    fn of(queued: QueuedFor<'_>) -> Self {
        Self { name: queued.name.to_owned(), address: queued.address.to_owned(), messages: queued.messages }
    }
}

/// What a store has while its client does not run.
struct Stopped<'c> {
    store: Box<dyn Store + Send>,
    queues: Vec<Queued>,
    rows: Vec<Row>,
    /// No run begins meanwhile: a store is open once.
    idle: Idle<'c>,
}

/// A row of the directory.
struct Row {
    topic: String,
    address: String,
    name: String,
}

impl Row {
    /// Its address without the mark of a subscriber that is ephemeral.
    fn shown(&self) -> &str {
        self.address.trim_start_matches('~')
    }

    /// Where its node listens, if it does not only dial.
    fn listens(&self) -> Option<&str> {
        Some(self.shown()).filter(|address| !address.starts_with('@'))
    }
}

/// A queue as a store has it.
struct Queued {
    kind: fn(&str) -> Queue<'_>,
    name: String,
    last: u64,
    messages: u64,
}

impl Client {
    // ------------------------------------------------------------------ before it runs

    /// What becomes of messages whose callback fails. Holds from the next [`run`](Self::run) on.
    pub fn set_failures(&self, failures: Failures) {
        lock(&self.settings).failures = failures;
    }

    /// How much may be queued for one node, in messages and in bytes of their records; without this the store is the bound. Holds from the
    /// next [`run`](Self::run) on.
    pub fn set_queue_quota(&self, quota: Quota) {
        lock(&self.settings).queue_quota = Some(quota);
    }

    /// What sends do when as much is queued as may be. Holds from the next [`run`](Self::run) on.
    pub fn set_backpressure(&self, backpressure: Backpressure) {
        lock(&self.settings).backpressure = backpressure;
    }

    /// How long a blocking send waits for the store before it says that it does not know, and [`stop`](Self::stop) for the callback,
    /// the store and the peers, each in turn; 10 s without this. Holds for sends from the next [`run`](Self::run) on, for `stop` at
    /// once.
    pub fn set_patience(&self, patience: Duration) {
        lock(&self.settings).patience = patience;
    }

    /// Calls `callback` with what happens besides messages, on the thread that calls the other callback. Replaces the one before it,
    /// at any time.
    pub fn set_status_callback(&self, callback: impl FnMut(&Status) + Send + 'static) {
        let status = Arc::clone(&lock(&self.settings).status);
        status.set(Box::new(callback));
    }

    /// Changes anything of the [`Node`](crate::Node) that is built for each run from now on: limits, peers, lines, how it sends.
    /// `configure` calls nothing of the client: it is called in the midst of [`run`](Self::run).
    pub fn configure(&self, configure: impl Fn(Builder) -> Builder + Send + 'static) {
        lock(&self.settings).configure.push(Box::new(configure));
    }

    /// Names somebody who takes `topic`, the node `name`, which listens on `addr`, `host:port`. The store keeps that from the next
    /// [`run`](Self::run) on.
    pub fn add_receiver(&self, topic: &str, addr: &str, name: &str) {
        lock(&self.settings).receivers.push([topic, addr, name].map(str::to_owned));
    }

    /// Where other nodes are told to find this one, `host:port`, if that is not where it listens; port 0 stands for the one that it
    /// listens on. Nothing or an empty text takes that back.
    ///
    /// # Errors
    /// If the client runs, or the text is no address.
    pub fn set_advertise_addr(&self, addr: Option<&str>) -> Result<(), StoppedOnlyError> {
        if self.is_running() {
            return Err(StoppedOnlyError::Running);
        }
        let addr = addr.filter(|addr| !addr.is_empty());
        if let Some(addr) = addr
            && !is_address(addr)
        {
            return Err(StoppedOnlyError::Address { addr: addr.to_owned() });
        }
        lock(&self.settings).advertise = addr.map(str::to_owned);
        Ok(())
    }

    // ------------------------------------------------------------------ topics

    /// Takes another topic from now on, now or when it runs.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(&self, topic: &str) -> Result<(), SubscribeError> {
        let mut settings = lock(&self.settings);
        check_topic(&settings.topic, topic)?;
        if !settings.topics.iter().any(|other| other == topic) {
            settings.topics.push(topic.to_owned());
        }
        drop(settings);
        let topic = topic.to_owned();
        // It was checked above.
        self.ask(move |node| node.subscribe(&topic).is_ok());
        Ok(())
    }

    /// Takes a topic no more, now or when it runs. What was queued for this client on it becomes dead letters of whoever has it.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn unsubscribe(&self, topic: &str) -> Result<(), SubscribeError> {
        let mut settings = lock(&self.settings);
        check_topic(&settings.topic, topic)?;
        settings.topics.retain(|other| other != topic);
        drop(settings);
        let topic = topic.to_owned();
        self.ask(move |node| node.unsubscribe(&topic));
        Ok(())
    }

    // ------------------------------------------------------------------ getters

    /// Its name.
    pub fn unique_name(&self) -> String {
        lock(&self.settings).name.clone()
    }

    /// Its own topic.
    pub fn topic(&self) -> String {
        lock(&self.settings).topic.clone()
    }

    /// Where it listens, or listened in its last run, the port filled in.
    pub fn bound_listen_addr(&self) -> Option<String> {
        lock(&self.settings).bound.clone()
    }

    /// Where other nodes are told to find it; nothing while it does not run.
    pub fn published_addr(&self) -> Option<String> {
        self.ask(|node| node.advertised().to_owned())
    }

    /// Messages that are queued for anyone and not acknowledged.
    ///
    /// # Errors
    /// If it does not run, and its store cannot be opened.
    pub fn pending_count(&self) -> Result<u64, StoppedOnlyError> {
        if let Some(queued) = self.ask(|node| node.queued()) {
            return Ok(queued);
        }
        Ok(self.open()?.queues.iter().map(|queue| queue.messages).sum())
    }

    /// The other nodes that are known to take a topic, by their addresses; while the client does not run, as its store has them.
    ///
    /// # Errors
    /// If it does not run, and its store cannot be opened.
    pub fn list_addresses(&self, topic: &str) -> Result<Vec<KnownAddress>, StoppedOnlyError> {
        let asked = topic.to_owned();
        let known = self.ask(move |node| node.addresses(&asked).into_iter().map(KnownAddress::of).collect());
        if let Some(known) = known {
            return Ok(known);
        }
        let own = self.unique_name();
        let rows = self.open()?.rows.into_iter().filter(|row| row.topic == topic && row.name != own);
        let away = |row: Row| KnownAddress { address: row.shown().to_owned(), name: row.name, is_up: false };
        let mut known: Vec<_> = rows.map(away).collect();
        known.sort_by(|one, other| one.address.cmp(&other.address));
        Ok(known)
    }

    /// The same after a look at the directory of a store that several nodes share, now instead of when it is due. Sends find those
    /// that are known without it, and nodes that share no store tell each other at once.
    ///
    /// # Errors
    /// If it does not run, and its store cannot be opened.
    pub fn refresh_address_topic(&self, topic: &str) -> Result<Vec<KnownAddress>, StoppedOnlyError> {
        self.ask(Node::refresh_directory);
        // The loop looks there between two questions.
        self.list_addresses(topic)
    }

    /// What is queued for each node for which something is: those of several topics and addresses once, by their names.
    ///
    /// # Errors
    /// If it does not run, and its store cannot be opened.
    pub fn pending_by_peer(&self) -> Result<Vec<PendingFor>, StoppedOnlyError> {
        if let Some(pending) =
            self.ask(|node| node.queued_by_peer().into_iter().map(PendingFor::of).collect())
        {
            return Ok(pending);
        }
        let Stopped { queues, rows, .. } = self.open()?;
        let pending = queues.into_iter().filter(|queue| queue.messages > 0).filter_map(
            |Queued { kind, name, messages, .. }| match kind(&name) {
                Queue::Address(address) => {
                    Some(PendingFor { name: String::new(), address: address.to_owned(), messages })
                }
                Queue::Node(_) => {
                    let address = rows.iter().filter(|row| row.name == name).find_map(Row::listens);
                    Some(PendingFor { address: address.unwrap_or_default().to_owned(), name, messages })
                }
                // That waits for nobody yet.
                Queue::Topic(_) => None,
            },
        );
        Ok(pending.collect())
    }

    /// Gives up a node that never comes back: its rows go, and what is queued for it goes to others who take its topic
    /// (`reroute`), or is dropped. Either is told as a status.
    ///
    /// # Errors
    /// See [`ClientForgetError`].
    pub fn forget(&self, name: &str, reroute: bool) -> Result<(), ClientForgetError> {
        let name = name.to_owned();
        let forgotten = self.ask(move |node| node.forget(&name, reroute));
        forgotten.ok_or(ClientForgetError::NotRunning)?.map_err(ClientForgetError::Refused)
    }

    // ------------------------------------------------------------------ while it does not run

    /// Drops everything that is queued for anyone, and says how many messages that were. Whoever it was for is told of a gap, and takes
    /// what is sent later.
    ///
    /// # Errors
    /// If the client runs, or its store refuses.
    pub fn clear_stored_messages(&self) -> Result<u64, StoppedOnlyError> {
        let Stopped { mut store, queues, idle: _idle, .. } = self.open()?;
        let mut cleared = 0;
        for Queued { kind, name, last, messages } in &queues {
            let queue = kind(name);
            let op = match queue {
                Queue::Node(_) => StoreOp::Drop { queue, through: *last, reason: GapReason::Cleared },
                // Nobody was told of these.
                Queue::Topic(_) | Queue::Address(_) => StoreOp::Close { queue },
            };
            if *messages == 0 {
                continue;
            }
            let done = store.apply(&[op]);
            check(&*store, done)?;
            cleared += messages;
        }
        let done = store.commit();
        check(&*store, done)?;
        Ok(cleared)
    }

    /// Forgets everyone who takes the client's own topic, as far as its store knows.
    ///
    /// # Errors
    /// If the client runs, or its store refuses.
    pub fn clear_addresses_of_topic(&self) -> Result<(), StoppedOnlyError> {
        let own = self.topic();
        let Stopped { mut store, rows, idle: _idle, .. } = self.open()?;
        for Row { topic, address, name } in rows.iter().filter(|row| row.topic == own) {
            let done = store.apply(&[StoreOp::Unsubscribe { topic, address, name }]);
            check(&*store, done)?;
        }
        let done = store.commit();
        check(&*store, done)
    }

    /// Opens the store: what is queued in it, and the rows of its directory.
    fn open(&self) -> Result<Stopped<'_>, StoppedOnlyError> {
        let idle = self.idle().map_err(|_| StoppedOnlyError::Running)?;
        let opened = (lock(&self.settings).open)();
        let mut store = opened.map_err(|said| StoppedOnlyError::Store { said })?;
        let (mut queues, mut rows) = (Vec::new(), Vec::new());
        let recovered = store.recover(&mut |item| match item {
            Recovered::Queue(queue) => {
                let kind: fn(&str) -> Queue<'_> = match queue.queue {
                    Queue::Node(_) => |name| Queue::Node(name),
                    Queue::Topic(_) => |name| Queue::Topic(name),
                    Queue::Address(_) => |name| Queue::Address(name),
                };
                let name = queue.queue.name().to_owned();
                queues.push(Queued { kind, name, last: queue.last, messages: queue.messages });
            }
            Recovered::Subscription { topic, address, name } => {
                let (topic, address, name) = (topic.to_owned(), address.to_owned(), name.to_owned());
                rows.push(Row { topic, address, name });
            }
            Recovered::Node { .. } | Recovered::Topic { .. } | Recovered::Cursor { .. } | _ => {}
        });
        check(&*store, recovered)?;
        Ok(Stopped { store, queues, rows, idle })
    }
}

fn check(store: &dyn Store, done: Result<(), StoreFault>) -> Result<(), StoppedOnlyError> {
    done.map_err(|fault| {
        let said = store.last_error().map(|said| format!(" ({said})")).unwrap_or_default();
        StoppedOnlyError::Store { said: format!("{fault}{said}") }
    })
}

fn check_topic(own: &str, topic: &str) -> Result<(), SubscribeError> {
    if topic.is_empty() || topic.len() > NAME_BYTES_MAX {
        return Err(SubscribeError::BadTopic { topic: topic.to_owned() });
    }
    if topic == own {
        return Err(SubscribeError::OwnTopic { topic: topic.to_owned() });
    }
    Ok(())
}

/// Whether a text is `host:port`. No name is looked up.
fn is_address(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
