//! A node that stores messages for somebody who is not there, and somebody who comes.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use liner::store_url::StoreUrl;
use liner::{Class, Framing, Message, Mode, Node, Quota, SendError, SendId, store};

use crate::place::Place;

const TURN: Option<Duration> = Some(Duration::from_millis(100));

/// Messages that are sent between two looks at the network.
const BURST: u64 = 1024;

pub(crate) struct Sender {
    node: Node,
    payload: Vec<u8>,
    /// Where the receiver is to be.
    address: String,
}

impl Sender {
    pub(crate) fn new(place: &Place, payload: usize) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self::start(place, payload, &free)
    }

    /// Ends it, and starts it again with nothing in its memory.
    pub(crate) fn again(self, place: &Place) -> Self {
        let (payload, address) = (self.payload.len(), self.address.clone());
        self.end();
        Self::start(place, payload, &address)
    }

    fn start(place: &Place, payload: usize, address: &str) -> Self {
        let url: StoreUrl = place.url().parse().unwrap();
        let opened = store::open(&url, "sender", place.asked()).unwrap();
        let node = Node::builder("sender")
            .store_on_worker(opened.store)
            .receiver("t", address, "receiver")
            .queue_quota(Quota { messages: u64::MAX, bytes: u64::MAX })
            .build()
            .unwrap();
        Self { node, payload: vec![0x5a; payload], address: address.to_owned() }
    }

    pub(crate) fn class(&self) -> Class {
        self.node.store_class()
    }

    /// How long it takes until so many are stored.
    pub(crate) fn store(&mut self, count: u64) -> Duration {
        let mut idle = |_: &Message<'_>| {};
        // The queue is made before.
        self.node.send_stored("t", &self.payload, Mode::One, Duration::from_secs(10), &mut idle).unwrap();
        let (mut sent, mut last) = (1, SendId::default());
        let began = Instant::now();
        while sent < count {
            let mut busy = false;
            for _ in 0..BURST.min(count - sent) {
                match self.node.send("t", &self.payload, Mode::One) {
                    Ok(id) => (sent, last) = (sent + 1, id),
                    Err(SendError::Busy) => {
                        busy = true;
                        break;
                    }
                    Err(error) => panic!("{error}: {:?}", self.node.store_error()),
                }
            }
            self.node.drive(if busy { TURN } else { Some(Duration::ZERO) }, &mut idle).unwrap();
        }
        while self.node.stored_through() < last {
            self.node.drive(TURN, &mut idle).unwrap();
        }
        let elapsed = began.elapsed();
        assert_eq!(self.node.queued_stored(), count);
        elapsed
    }

    /// Lets the receiver come, and tells how long each tenth of so many messages took.
    pub(crate) fn drain(&mut self, count: u64) -> Vec<Duration> {
        let is_over = Arc::new(AtomicBool::new(false));
        let receiver = {
            let (address, is_over) = (self.address.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || receive(&address, count, &is_over))
        };
        while !self.node.is_idle() {
            self.node.drive(TURN, &mut |_: &Message<'_>| {}).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        receiver.join().unwrap()
    }

    pub(crate) fn end(mut self) {
        self.node.stop(Duration::from_secs(10), &mut |_: &Message<'_>| {}).unwrap();
    }
}

fn receive(address: &str, count: u64, is_over: &AtomicBool) -> Vec<Duration> {
    let builder = Node::builder("receiver").durable(true).listen(address, Framing::Length).subscribe("t");
    let mut node = builder.build().unwrap();
    let (mut had, mut marks) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let mut handler = |_: &Message<'_>| {
            // The first tenth begins with the first message.
            if had % (count / 10) == 0 || had + 1 == count {
                marks.push(Instant::now());
            }
            had += 1;
        };
        node.drive(TURN, &mut handler).unwrap();
    }
    assert_eq!(had, count, "each message once");
    marks.windows(2).map(|pair| pair[1] - pair[0]).collect()
}
