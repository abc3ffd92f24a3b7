//! The client: calls that wait, threads that are known, and what a callback may do.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

#[path = "../common/mod.rs"]
mod common;
mod failing;
mod recovering;
mod running;
mod sending;
mod stopped;
mod waiting;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::PATIENCE;
use liner_mio::{Class, Client, HeapStore, Reliability, Status, Store, Taken};
use liner_proto::effect::{DeadReason, Loaded, Queue, Recovered, StoreFault, StoreOp};

/// What a test is told by a callback: topic, sender, payload, whether it may have come before.
pub(crate) type Told = (String, String, Vec<u8>, bool);

/// A store in memory that stays.
#[derive(Clone)]
struct Kept(Arc<Mutex<HeapStore>>);

impl Default for Kept {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(HeapStore::new(1 << 28))))
    }
}

impl Store for Kept {
    fn class(&self) -> Class {
        self.0.lock().unwrap().class()
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.0.lock().unwrap().recover(visit)
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.0.lock().unwrap().apply(group)
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        self.0.lock().unwrap().commit()
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.0.lock().unwrap().load(queue, after, into)
    }
}

/// Clients in one process, each with a store that stays when it is stopped.
#[derive(Default)]
pub(crate) struct Town {
    stores: BTreeMap<String, Kept>,
}

impl Town {
    /// A client that listens on a free port, and knows those at `peers`.
    pub(crate) fn client(&mut self, name: &str, peers: &[&Client]) -> Client {
        let client = self.client_at(name, "127.0.0.1:0");
        let peers: Vec<String> = peers.iter().map(|peer| peer.bound_listen_addr().unwrap()).collect();
        client.configure(move |builder| peers.iter().fold(builder, |builder, peer| builder.peer(peer)));
        client
    }

    /// A client that listens there, with what its store has.
    pub(crate) fn client_at(&mut self, name: &str, listen: &str) -> Client {
        let store = self.stores.entry(name.to_owned()).or_default().clone();
        let open = move || Ok::<_, String>(Box::new(store.clone()) as Box<_>);
        Client::new(name, &format!("to-{name}"), listen, open).unwrap()
    }

    /// Why messages are among the dead letters of a client.
    pub(crate) fn letters(&self, name: &str) -> Vec<DeadReason> {
        self.stores[name].0.lock().unwrap().dead_letters().iter().map(|letter| letter.reason).collect()
    }
}

/// Runs a client whose messages are told.
pub(crate) fn run(client: &Client) -> Receiver<Told> {
    let (tell, told) = channel();
    client
        .run(move |taken: &Taken| tell.send(of(taken)).is_ok().then_some(()).ok_or("the test is over"))
        .unwrap();
    told
}

pub(crate) fn of(taken: &Taken) -> Told {
    let message = taken.message();
    let (topic, from) = (message.topic.to_owned(), message.from.to_owned());
    (topic, from, message.payload.to_vec(), message.maybe_redelivered)
}

/// What the client's node tells, and what it tells of itself.
pub(crate) fn statuses(client: &Client) -> Receiver<Status> {
    let (tell, told): (Sender<Status>, _) = channel();
    client.set_status_callback(move |status| {
        let _ = tell.send(status.clone());
    });
    told
}

/// Waits for a status.
pub(crate) fn wait_for(statuses: &Receiver<Status>, wanted: impl Fn(&Status) -> bool) -> Status {
    loop {
        let status = statuses.recv_timeout(PATIENCE).unwrap();
        if wanted(&status) {
            return status;
        }
    }
}

pub(crate) fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(PATIENCE).unwrap()
}

pub(crate) const KEPT: Reliability = Reliability::AtLeastOnce;
