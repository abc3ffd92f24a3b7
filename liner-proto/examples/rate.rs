//! Messages a second through the core alone: two nodes in one thread, no sockets, asynchronous mode.
//!
//! `cargo run --release -p liner-proto --features std --example rate [payload bytes] [messages]`

use std::time::Instant as Clock;

use liner_proto::config::Limits;
use liner_proto::delivery::SendMode;
use liner_proto::id::{Class, ConnId};
use liner_proto::router::{Framing, Message, NodeConfig, Router, StoreRequest};
use liner_proto::store::{HeapStore, execute};
use liner_proto::time::Instant;
use liner_proto::wire::record::Mode;

struct Node {
    router: Router,
    store: HeapStore,
    conn: ConnId,
    spent: std::time::Duration,
}

impl Node {
    fn start(name: &str) -> (Router, HeapStore) {
        let mut config = NodeConfig::new(name, [7, name.len() as u64], Class::Ram);
        config.send_mode = SendMode::Asynchronous;
        config.limits = Limits::HOST;
        let mut router = Router::new(config, Instant::ZERO);
        router.start(Instant::ZERO);
        (router, HeapStore::new(1 << 30))
    }

    fn serve(&mut self, now: Instant) {
        while let Some(request) = self.router.poll_store(now) {
            if let StoreRequest::Commit(batch) = request {
                let outcome = execute(&mut self.store, &batch);
                self.router.handle_committed(now, batch.id(), outcome);
            }
        }
    }

    fn give(&mut self, now: Instant, out: &mut Vec<u8>) {
        loop {
            let transmit = self.router.poll_transmit(now, self.conn);
            let len = transmit.len();
            if len == 0 || out.len() > 256 * 1024 {
                return;
            }
            out.extend_from_slice(transmit.head);
            out.extend_from_slice(transmit.body);
            self.router.handle_written(now, self.conn, len);
        }
    }
}

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark reads the clock and prints")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let size = arguments.next().unwrap_or(64);
    let count = arguments.next().unwrap_or(20_000_000) as u64;
    let now = Instant::from_micros(1);
    let (mut router, store) = Node::start("sender");
    let dial = router.add_peer(now, "there");
    let _ = router.poll_dial(now);
    let conn = router.handle_dialed(now, dial, Framing::Length);
    let mut sender = Node { router, store, conn, spent: Default::default() };
    let (mut router, store) = Node::start("receiver");
    router.subscribe(now, "t");
    let conn = router.handle_accepted(now, Framing::Length);
    let mut receiver = Node { router, store, conn, spent: Default::default() };

    let payload = vec![0x5a; size];
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    let mut received = 0_u64;
    let mut sent = 0;
    while received < count {
        let clock = Clock::now();
        let mut budget = 256 * 1024_usize;
        while sent < count && budget > size && sender.router.peers_up().next().is_some() {
            if sender.router.send(now, "t", &payload, Mode::One).is_err() {
                break;
            }
            budget -= size;
            sent += 1;
        }
        sender.serve(now);
        sender.give(now, &mut forth);
        sender.spent += clock.elapsed();
        let clock = Clock::now();
        let mut handler = |_: &Message<'_>| received += 1;
        let taken = receiver.router.handle_bytes(now, receiver.conn, &mut forth, &mut handler);
        receiver.serve(now);
        receiver.give(now, &mut back);
        receiver.spent += clock.elapsed();
        forth.drain(..taken);
        let clock = Clock::now();
        let taken = sender.router.handle_bytes(now, sender.conn, &mut back, &mut |_: &Message<'_>| {});
        back.drain(..taken);
        sender.spent += clock.elapsed();
    }
    let each = |spent: std::time::Duration| spent.as_nanos() as f64 / count as f64;
    println!(
        "{size} B: {:.1} ns a message to send, {:.1} ns to receive; {:.2} M messages/s where each has a core",
        each(sender.spent),
        each(receiver.spent),
        1e3 / each(sender.spent).max(each(receiver.spent)),
    );
}
