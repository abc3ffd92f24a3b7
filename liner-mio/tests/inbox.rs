//! A node with an inbox: its store has the messages, its handler does not.
#![expect(clippy::unwrap_used, reason = "so a test ends")]
#![expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{How, PATIENCE};
use liner_mio::{BuildError, Class, Framing, HeapStore, Message, Mode, Node, Quota, Store};
use liner_proto::effect::{InboxHeld, Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::store::Capabilities;

/// A store from which the test takes beside the node, as an application does.
#[derive(Clone)]
struct Shared(Arc<Mutex<HeapStore>>);

impl Store for Shared {
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

    fn capabilities(&self) -> Capabilities {
        self.0.lock().unwrap().capabilities()
    }

    fn inbox(&mut self) -> Result<Option<InboxHeld>, StoreFault> {
        self.0.lock().unwrap().inbox()
    }
}

const QUOTA: Quota = Quota { messages: 5, bytes: 1 << 20 };

/// More than the inbox holds arrives in its order; `says` is whether the application says that it has taken something.
fn what_arrives_is_in_the_inbox(how: How, says: bool) {
    let store = Shared(Arc::new(Mutex::new(HeapStore::new(1 << 24).with_inbox())));
    let mut application = store.clone();
    let to = Node::builder("to").listen("127.0.0.1:0", Framing::Length).subscribe("t").inbox(QUOTA);
    let to = match how {
        How::InPlace => to.store(Box::new(store)),
        How::OnWorker => to.store_on_worker(Box::new(store)),
    };
    let mut to = to.build().unwrap();
    let mut from = Node::builder("from").peer(&to.listen_addrs()[0].to_string()).build().unwrap();
    for number in 0..60_u16 {
        from.send("t", &number.to_be_bytes(), Mode::One).unwrap();
    }
    let (mut seen, mut delivered) = (Vec::new(), 0);
    let until = Instant::now() + PATIENCE;
    while seen.len() < 60 || !from.is_idle() {
        assert!(Instant::now() < until, "{} have come", seen.len());
        from.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {}).unwrap();
        let progress = to.drive(Some(Duration::from_millis(1)), &mut |message: &Message<'_>| {
            panic!("the handler has {message:?}");
        });
        delivered += progress.unwrap().delivered;
        let held = application.inbox().unwrap().unwrap().messages;
        assert!(held <= 10, "the quota, and a window: {held}");
        let before = seen.len();
        seen.extend(core::iter::from_fn(|| application.0.lock().unwrap().take_delivered()));
        if says && seen.len() > before {
            to.inbox_taken();
        }
    }
    let numbers: Vec<_> = seen.iter().map(|message| message.payload.to_vec()).collect();
    assert_eq!(numbers, (0..60_u16).map(|number| number.to_be_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!((delivered, to.delivered()), (60, 60));
    assert_eq!(from.acks_of("to").map(u8::from), Some(0), "in memory, and nobody has dealt with it");
}

#[test]
fn what_arrives_is_in_the_inbox_in_place() {
    what_arrives_is_in_the_inbox(How::InPlace, true);
    what_arrives_is_in_the_inbox(How::InPlace, false);
}

#[test]
fn what_arrives_is_in_the_inbox_on_a_worker() {
    what_arrives_is_in_the_inbox(How::OnWorker, true);
    what_arrives_is_in_the_inbox(How::OnWorker, false);
}

#[test]
fn a_store_without_an_inbox_is_refused() {
    let error = Node::builder("to").inbox(QUOTA).build().unwrap_err();
    assert!(matches!(error, BuildError::NoInbox), "{error}");
    let store = Box::new(HeapStore::new(1 << 20).with_inbox());
    let error = Node::builder("to").store(store).inbox(QUOTA).takes_custody(true).build().unwrap_err();
    assert!(matches!(error, BuildError::InboxWithCustody), "{error}");
}
