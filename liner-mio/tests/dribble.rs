//! A peer made of the bare core whose bytes arrive a few at a time.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use common::{Party, Patience};
use liner_mio::{Framing, HeapStore, Message, Mode, Node, NodeConfig};
use liner_proto::id::{Class, ConnId};
use liner_proto::router::{Router, StoreRequest};
use liner_proto::store::execute;
use liner_proto::time::{Duration, Instant};

/// A core with a socket and nothing else.
struct Bare {
    router: Router,
    conn: ConnId,
    store: HeapStore,
    stream: TcpStream,
    now: Instant,
    unread: Vec<u8>,
    seen: Vec<Vec<u8>>,
    closed: bool,
}

impl Bare {
    fn connect(to: &Party, framing: Framing) -> Self {
        let now = Instant::from_micros(1);
        let mut router = Router::new(NodeConfig::new("bare", [3, 5], Class::Ram), now);
        router.start(now);
        router.subscribe(now, "back");
        let stream = TcpStream::connect(to.node.listen_addrs()[0]).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let dial = router.add_peer(now, "the line");
        let conn = router.handle_dialed(now, dial, framing);
        let store = HeapStore::new(1 << 20);
        Self { router, conn, store, stream, now, unread: Vec::new(), seen: Vec::new(), closed: false }
    }

    /// Writes at most `most` bytes, reads what is there, stores what is to be stored.
    fn turn(&mut self, most: usize) {
        self.now = self.now + Duration::from_micros(10);
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(len) => {
                self.closed = len == 0;
                self.unread.extend_from_slice(&buffer[..len]);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        let seen = &mut self.seen;
        let mut keep = |message: &Message<'_>| seen.push(message.payload.to_vec());
        let taken = self.router.handle_bytes(self.now, self.conn, &mut self.unread, &mut keep);
        self.unread.drain(..taken);
        while let Some(request) = self.router.poll_store(self.now) {
            let StoreRequest::Commit(batch) = request else { panic!("nothing has to be read back") };
            let outcome = execute(&mut self.store, &batch);
            self.router.handle_committed(self.now, batch.id(), outcome);
        }
        let transmit = self.router.poll_transmit(self.now, self.conn);
        let bytes = if transmit.head.is_empty() { transmit.body } else { transmit.head };
        let len = bytes.len().min(most);
        self.stream.write_all(&bytes[..len]).unwrap();
        self.router.handle_written(self.now, self.conn, len);
    }
}

fn bytes_that_dribble_make_whole_messages(framing: Framing) {
    let node = Node::builder("to").listen("127.0.0.1:0", framing).subscribe("t").build().unwrap();
    let mut to = Party::new(node);
    let mut bare = Bare::connect(&to, framing);
    // Zeros and long runs without them, as COBS treats them apart.
    let sent: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n % 3; 1 + usize::from(n) * 30]).collect();
    let patience = Patience::new();
    let mut most = 0;
    for payload in &sent {
        while bare.router.send(bare.now, "t", payload, Mode::One).is_err() {
            bare.turn(100);
            to.turn();
        }
    }
    while to.seen.len() < sent.len() || !bare.router.is_idle() {
        patience.check();
        most = most % 11 + 1;
        bare.turn(most);
        to.turn();
    }
    assert!(to.payloads() == sent, "other bytes");
    assert!(!bare.closed);
}

#[test]
fn bytes_that_dribble_make_whole_messages_behind_lengths() {
    bytes_that_dribble_make_whole_messages(Framing::Length);
}

#[test]
fn bytes_that_dribble_make_whole_messages_in_cobs() {
    bytes_that_dribble_make_whole_messages(Framing::Cobs);
}

#[test]
fn a_line_carries_messages_back() {
    let node = Node::builder("to").listen("127.0.0.1:0", Framing::Cobs).build().unwrap();
    let mut to = Party::new(node);
    let mut bare = Bare::connect(&to, Framing::Cobs);
    let patience = Patience::new();
    let mut sent = 0_u8;
    while bare.seen.len() < 50 || !to.node.is_idle() {
        patience.check();
        // Nobody is known for the topic before the other side has told it.
        if sent < 50 && to.node.send("back", &[sent; 40], Mode::One).is_ok() {
            sent += 1;
        }
        to.turn();
        bare.turn(usize::MAX);
    }
    assert_eq!(bare.seen, (0..50_u8).map(|number| vec![number; 40]).collect::<Vec<_>>());
}
