//! Peers that mean ill, or are only loud, and what the others notice of them. Nothing is timed here: `cargo bench -p liner-tests --bench
//! neighbours` does that.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Faulty, How, Party, Patience, heap, listener, talker};
use liner_mio::{Class, Event, Framing, Message, Mode, Node, NodeConfig, QueuePolicy, Quota};
use liner_proto::router::Router;
use liner_proto::time::Instant;

/// Gives the node one turn, and says how many bytes it has read.
fn turn(party: &mut Party) -> u64 {
    let seen = &mut party.seen;
    let mut keep = |message: &Message<'_>| seen.push(common::Seen::of(message));
    party.node.drive(Some(Duration::from_millis(1)), &mut keep).unwrap().bytes_in
}

#[test]
fn a_loud_peer_is_read_a_frame_at_a_time_while_others_wait() {
    let mut to = listener("to", "t", How::InPlace);
    let mut loud = talker("loud", &to, How::InPlace);
    let mut quiet = talker("quiet", &to, How::InPlace);
    for party in [&mut loud, &mut quiet] {
        party.node.send("t", b"first", Mode::One).unwrap();
    }
    common::run([&mut loud, &mut quiet, &mut to], |[loud, quiet, to]| {
        to.seen.len() == 2 && loud.node.is_idle() && quiet.node.is_idle()
    });
    for _ in 0..100 {
        loud.node.send("t", &[0; 20_000], Mode::One).unwrap();
    }
    let patience = Patience::new();
    let mut sent = 0;
    // As much as its socket takes.
    while sent < 1 << 20 {
        patience.check();
        sent += loud.node.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {}).unwrap().bytes_out;
    }
    quiet.node.send("t", b"me too", Mode::One).unwrap();
    while quiet.node.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {}).unwrap().bytes_out == 0 {
        patience.check();
    }
    let mut read = 0;
    while !to.payloads().contains(&&b"me too"[..]) {
        patience.check();
        read += turn(&mut to);
    }
    assert!(read <= 68_000, "{read} bytes were read before the other one's turn");
    common::run([&mut loud, &mut quiet, &mut to], |[loud, _, to]| {
        to.seen.len() == 103 && loud.node.is_idle()
    });
}

/// A connection that means ill: it comes back whenever it is closed.
struct Bad {
    bytes: Vec<u8>,
    /// So many of them at a time.
    step: usize,
    stream: Option<TcpStream>,
    told: usize,
    closed: usize,
}

impl Bad {
    fn new(bytes: &[u8], step: usize) -> Self {
        Self { bytes: bytes.to_vec(), step, stream: None, told: 0, closed: 0 }
    }

    fn turn(&mut self, addr: SocketAddr) {
        let Some(stream) = &mut self.stream else {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_nonblocking(true).unwrap();
            (self.stream, self.told) = (Some(stream), 0);
            return;
        };
        let end = self.bytes.len().min(self.told.saturating_add(self.step));
        let written = stream.write(&self.bytes[self.told..end]);
        let read = stream.read(&mut [0; 256]);
        self.told += *written.as_ref().unwrap_or(&0);
        let is_over = |result: std::io::Result<usize>, none| match result {
            Ok(len) => none && len == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if is_over(written, false) || is_over(read, true) {
            self.stream = None;
            self.closed += 1;
        }
    }
}

/// A hello in the name of "from", as anybody can say it, and a second one, as if it went on.
fn forged() -> Vec<u8> {
    let now = Instant::from_micros(1);
    let mut router = Router::new(NodeConfig::new("from", [6, 6], Class::Ram), now);
    router.start(now);
    let dial = router.add_peer(now, "there");
    let conn = router.handle_dialed(now, dial, Framing::Length);
    let transmit = router.poll_transmit(now, conn);
    let hello = [transmit.head, transmit.body].concat();
    [&hello[..], &hello[..], b"t forged"].concat()
}

#[test]
fn a_crowd_of_strangers_takes_nothing_from_those_who_are_there_and_keeps_nobody_out() {
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    let addr = to.node.listen_addrs()[0];
    let mut crowd: Vec<Bad> = (0..150)
        .map(|number| match number % 5 {
            // A frame of 300 bytes that comes a byte at a time, half of its head, and lies.
            0..3 => Bad::new(&[&[44, 1, 0, 0][..], &[7; 300]].concat(), 1),
            3 => Bad::new(&[44, 1], 2),
            _ => Bad::new(&forged(), usize::MAX),
        })
        .collect();
    let patience = Patience::new();
    let mut most = 0;
    let mut late = None;
    for round in 0_u16..800 {
        patience.check();
        from.node.send("t", &round.to_le_bytes(), Mode::One).unwrap();
        crowd.iter_mut().skip(usize::from(round) % 50).step_by(50).for_each(|bad| bad.turn(addr));
        from.turn();
        to.turn();
        most = most.max(to.node.connections());
        let late = late.get_or_insert_with(|| talker("late", &to, How::InPlace));
        if round == 400 {
            late.node.send("t", b"late", Mode::One).unwrap();
        }
        late.turn();
    }
    let mut late = late.unwrap();
    common::run([&mut from, &mut late, &mut to], |[from, late, _]| {
        from.node.is_idle() && late.node.is_idle()
    });
    assert!(
        crowd.iter().map(|bad| bad.closed).sum::<usize>() > 100,
        "there was no crowd: the test tests nothing"
    );
    assert!(most <= 64 + 2, "{most} connections");
    let of = |name: &str| {
        to.seen.iter().filter(|seen| seen.from == name).map(|seen| &*seen.payload).collect::<Vec<_>>()
    };
    assert_eq!(of("from"), (0..800_u16).map(|round| round.to_le_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!((of("late"), to.seen.len()), (vec![&b"late"[..]], 801));
    assert!(!from.events.iter().any(|event| matches!(event, Event::PeerDown { .. })), "{:?}", from.events);
}

#[test]
fn who_never_acknowledges_loses_its_oldest_and_slows_nobody() {
    let builder = Node::builder("to").listen("127.0.0.1:0", Framing::Length).store(heap());
    let quota = Quota { messages: 20, bytes: u64::MAX };
    let mut to =
        Party::new(builder.queue_quota(quota).queue_policy(QueuePolicy::DropOldest).build().unwrap());
    let addr = to.node.listen_addrs()[0].to_string();
    let (store, switch) = Faulty::with_switch();
    let lazy = Node::builder("lazy").peer(&addr).store(store).durable(true).subscribe("news");
    let mut lazy = Party::new(lazy.build().unwrap());
    let mut live =
        Party::new(Node::builder("live").peer(&addr).store(heap()).subscribe("news").build().unwrap());
    common::run([&mut to, &mut lazy, &mut live], |[to, _, _]| {
        ["lazy", "live"].into_iter().all(|name| to.node.is_taken_by("news", name))
    });
    // From now on it commits nothing.
    switch.fails.store(u32::MAX, Ordering::Relaxed);
    let patience = Patience::new();
    for number in 0..500_u16 {
        to.node.send("news", &number.to_le_bytes(), Mode::All).unwrap();
        while live.seen.len() <= usize::from(number) {
            patience.check();
            [&mut to, &mut lazy, &mut live].into_iter().for_each(Party::turn);
        }
    }
    assert_eq!(live.payloads(), (0..500_u16).map(u16::to_le_bytes).collect::<Vec<_>>());
    assert!(to.node.acked_by("lazy") < 10, "the lazy one has acknowledged");
    common::run([&mut to, &mut lazy, &mut live], |[to, ..]| {
        let count = |event: &Event| {
            let Event::Dropped { name, count, .. } = event else { return 0 };
            if **name == *"lazy" { *count } else { 0 }
        };
        to.events.iter().map(count).sum::<u64>() >= 470
    });
    assert!(!to.events.iter().any(|event| matches!(event, Event::Dropped { name, .. } if **name != *"lazy")));
}

#[test]
fn a_peer_that_answers_nobody_slows_nobody() {
    // Somebody accepts, and says nothing; and somebody whose queue of callers is full.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let full_addr = full.local_addr().unwrap();
    let _callers: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&full_addr, Duration::from_millis(50)).ok())
            .take(9)
            .collect();
    let mut to = listener("to", "t", How::InPlace);
    let mut from = Node::builder("from");
    for addr in [silent.local_addr().unwrap(), full_addr, to.node.listen_addrs()[0]] {
        from = from.peer(&addr.to_string());
    }
    let mut from = Party::new(from.build().unwrap());
    common::run([&mut from, &mut to], |[from, _]| from.node.is_taken_by("t", "to"));
    for number in 0..200_u8 {
        from.node.send("t", &[number], Mode::One).unwrap();
    }
    common::run([&mut from, &mut to], |[from, to]| to.seen.len() == 200 && from.node.is_idle());
    assert_eq!(from.node.peers_up(), ["to"]);
}
