//! What a client can be asked besides sending, and what it is told before it runs.

use std::time::Duration;

use liner_proto::effect::{GapReason, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::router::NAME_BYTES_MAX;
use liner_proto::store::Store;

use super::error::{StoppedOnlyError, SubscribeError};
use super::handling::Failures;
use super::settings::{Backpressure, Status};
use super::{Client, lock};
use crate::builder::Builder;

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

    /// What sends do when as much is queued as may be. Holds from the next [`run`](Self::run) on.
    pub fn set_backpressure(&self, backpressure: Backpressure) {
        lock(&self.settings).backpressure = backpressure;
    }

    /// How long a blocking send waits for the store before it says that it does not know, and [`stop`](Self::stop) for the callback,
    /// the store and the peers; 10 s without this. Holds from the next [`run`](Self::run) on.
    pub fn set_patience(&self, patience: Duration) {
        lock(&self.settings).patience = patience;
    }

    /// Calls `callback` with what happens besides messages, on the thread that calls the other callback. Replaces the one before it,
    /// at any time but from within itself.
    pub fn set_status_callback(&self, callback: impl FnMut(&Status) + Send + 'static) {
        let status = lock(&self.settings).status.clone();
        *lock(&status) = Some(Box::new(callback));
    }

    /// Changes anything of the [`Node`](crate::Node) that is built for each run from now on: limits, peers, lines, how it sends.
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
        let (_store, queues, _) = self.open()?;
        Ok(queues.iter().map(|queue| queue.messages).sum())
    }

    // ------------------------------------------------------------------ while it does not run

    /// Drops everything that is queued for anyone. Whoever it was for is told of a gap, and takes what is sent later.
    ///
    /// # Errors
    /// If the client runs, or its store refuses.
    pub fn clear_stored_messages(&self) -> Result<u64, StoppedOnlyError> {
        if self.is_running() {
            return Err(StoppedOnlyError::Running);
        }
        let (mut store, queues, _) = self.open()?;
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
        if self.is_running() {
            return Err(StoppedOnlyError::Running);
        }
        let own = self.topic();
        let (mut store, _, rows) = self.open()?;
        for (topic, address) in rows.iter().filter(|(topic, _)| *topic == own) {
            let done = store.apply(&[StoreOp::Unsubscribe { topic, address }]);
            check(&*store, done)?;
        }
        let done = store.commit();
        check(&*store, done)
    }

    /// Opens the store: what is queued in it, and the rows of its directory.
    #[expect(clippy::type_complexity, reason = "its parts are named where they are taken")]
    fn open(&self) -> Result<(Box<dyn Store + Send>, Vec<Queued>, Vec<(String, String)>), StoppedOnlyError> {
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
            Recovered::Subscription { topic, address, .. } => {
                rows.push((topic.to_owned(), address.to_owned()));
            }
            Recovered::Node { .. } | Recovered::Topic { .. } | Recovered::Cursor { .. } | _ => {}
        });
        check(&*store, recovered)?;
        Ok((store, queues, rows))
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
