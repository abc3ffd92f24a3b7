//! A peer that has become a black hole, among ten: what it does to the other nine.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use liner_mio::{Framing, Message, Mode, Node};

use crate::child::{Other, say};
use crate::honest::{Figures, Sender, store};
use crate::{PAIRS, Pair, RUN, print_figure};

/// Peers in all.
const PEERS: usize = 10;

/// What the tenth one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    /// Its machine answers nobody who connects: SYNs are dropped.
    Dropping,
    /// Somebody accepts, and says nothing.
    Silent,
    /// It was connected, and stands still now.
    Frozen,
}

pub(crate) fn print() {
    println!("a black hole among {PEERS} peers, round trips of the others (median of {PAIRS} pairs)");
    for hole in [Hole::Dropping, Hole::Silent, Hole::Frozen] {
        let pairs: Vec<Pair> =
            (0..PAIRS).map(|_| Pair { without: figures(None), with: figures(Some(hole)) }).collect();
        print_figure(&format!("{hole:?}, p50"), &pairs, |figures| figures.trip(50));
        print_figure(&format!("{hole:?}, p99"), &pairs, |figures| figures.trip(99));
    }
}

fn topic(index: usize) -> String {
    format!("t{index}")
}

/// One run with a tenth peer of this kind; without one it is as good as the others.
fn figures(hole: Option<Hole>) -> Figures {
    let mut node = Node::builder("hub")
        .store(store())
        .durable(true)
        .listen("127.0.0.1:0", Framing::Length)
        .subscribe("back");
    // Whoever is dialled and does not answer.
    let (listener, _full) = dead_end(hole);
    if let Some(address) = listener.as_ref().map(|it| it.local_addr().expect("bound")) {
        node = node.peer(&address.to_string());
    }
    let node = node.build().expect("a node on loopback");
    let address = node.listen_addrs()[0].to_string();
    let mut sender = Sender::new(node, (0..PEERS).map(topic).collect());
    let _nine = Other::spawn(&["echo", "9", &address]);
    let tenth = Other::spawn(&["echo", "1", &address]);
    let node = sender.node();
    while node.peers_up().len() < PEERS || !(0..PEERS).all(|index| is_known(node, &topic(index))) {
        node.drive(Some(Duration::from_millis(10)), &mut |_: &Message<'_>| {}).expect("a turn");
    }
    let tenth_topic = topic(PEERS - 1);
    match hole {
        Some(Hole::Frozen) => tenth.freeze(true),
        Some(Hole::Dropping | Hole::Silent) => drop(tenth),
        None => {
            return sender.run(RUN, |topic| topic != tenth_topic);
        }
    }
    sender.run(RUN, |topic| topic != tenth_topic)
}

fn is_known(node: &Node, topic: &str) -> bool {
    node.peers_up().iter().any(|name| node.is_taken_by(topic, name))
}

/// A listener that nobody accepts from, for [`Hole::Dropping`] with so many callers that the system drops who comes next.
fn dead_end(hole: Option<Hole>) -> (Option<TcpListener>, Vec<TcpStream>) {
    if !matches!(hole, Some(Hole::Dropping | Hole::Silent)) {
        return (None, Vec::new());
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut full = Vec::new();
    if hole == Some(Hole::Dropping) {
        rustix::net::listen(&listener, 0).expect("it listens already");
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            full.push(stream);
            assert!(full.len() < 100, "this system drops nobody");
        }
    }
    (Some(listener), full)
}

/// So many nodes that answer what they are sent, each on a topic of its own.
pub(crate) fn echo(count: usize, address: &str) {
    let first = if count == 1 { PEERS - 1 } else { 0 };
    let threads: Vec<_> = (first..first + count)
        .map(|index| {
            let address: SocketAddr = address.parse().expect("an address");
            std::thread::spawn(move || answer(index, &address.to_string()))
        })
        .collect();
    say("ready");
    threads.into_iter().for_each(|thread| thread.join().expect("it answers for ever"));
}

fn answer(index: usize, address: &str) {
    let node = Node::builder(&format!("peer-{index}")).store(store()).durable(true).peer(address);
    let mut node = node.subscribe(&topic(index)).build().expect("a node");
    loop {
        let mut asked = Vec::new();
        let mut handler = |message: &Message<'_>| asked.push(message.payload.to_vec());
        node.drive(Some(Duration::from_millis(100)), &mut handler).expect("a turn");
        for payload in asked {
            let _ = node.send("back", &payload, Mode::One);
        }
    }
}
