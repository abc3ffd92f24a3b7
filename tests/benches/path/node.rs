//! The same through a node at each end.

use std::path::Path;
use std::time::{Duration, Instant};

use liner_mio::{Class, Framing, Message, Mode, Node, SendError, SendMode};
use liner_store_sqlite::{Options, SqliteStore};

use crate::Kind;
use crate::child::{Other, hear, say};

/// A turn waits this long for something to do.
const TURN: Option<Duration> = Some(Duration::from_millis(100));

/// Messages that are queued between two looks at the network.
const BURST: usize = 1024;

fn build(
    name: &str,
    kind: Kind,
    store: &Path,
    listen: Option<&str>,
    peer: Option<&str>,
    topic: Option<&str>,
) -> Node {
    let mut builder = Node::builder(name).durable(true);
    let class = match kind {
        Kind::Raw | Kind::Asynchronous => Class::Ram,
        Kind::Process => Class::Process,
        Kind::Power => Class::Power,
    };
    if class == Class::Ram {
        builder = builder.send_mode(SendMode::Asynchronous);
    } else {
        let options =
            Options { name: name.into(), durability: class, limit_bytes: None, boot_id: "bench".into() };
        let store = SqliteStore::open(store, &options).expect("a store in a fresh folder");
        builder = builder.store_on_worker(Box::new(store));
    }
    if let Some(address) = listen {
        builder = builder.listen(address, Framing::Length);
    }
    if let Some(address) = peer {
        builder = builder.peer(address);
    }
    if let Some(topic) = topic {
        builder = builder.subscribe(topic);
    }
    builder.build().expect("a node on loopback")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn path_in(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("a path in UTF-8").to_owned()
}

pub(crate) fn rate(kind: Kind, size: usize, count: u64) -> Duration {
    let folder = folder();
    let store = path_in(&folder, "receiver.db");
    let mut node = build("receiver", kind, store.as_ref(), Some("127.0.0.1:0"), None, Some("t"));
    let address = node.listen_addrs()[0].to_string();
    let other = path_in(&folder, "sender.db");
    let (size, total) = (size.to_string(), count.to_string());
    let mut sender = Other::spawn(&["send", kind.name(), &address, &size, &total, &other]);
    while node.peers_up().is_empty() {
        node.drive(TURN, &mut |_: &Message<'_>| {}).expect("a turn");
    }
    let mut received = 0;
    let began = Instant::now();
    sender.tell("go");
    while received < count {
        let mut handler = |message: &Message<'_>| {
            std::hint::black_box(message.payload);
            received += 1;
        };
        node.drive(TURN, &mut handler).expect("a turn");
    }
    let elapsed = began.elapsed();
    assert_eq!(received, count, "each message once");
    elapsed
}

pub(crate) fn send(kind: Kind, address: &str, size: usize, count: u64, store: &str) {
    let mut node = build("sender", kind, store.as_ref(), None, Some(address), None);
    let mut idle = |_: &Message<'_>| {};
    while node.peers_up().is_empty() {
        node.drive(TURN, &mut idle).expect("a turn");
    }
    hear();
    let payload = vec![0x5a; size];
    let mut sent = 0;
    while sent < count {
        let mut busy = false;
        for _ in 0..BURST.min((count - sent) as usize) {
            match node.send("t", &payload, Mode::One) {
                Ok(_) => sent += 1,
                Err(SendError::Busy | SendError::NoAddress) => {
                    busy = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let timeout = if busy { TURN } else { Some(Duration::ZERO) };
        node.drive(timeout, &mut idle).expect("a turn");
    }
    while !node.is_idle() {
        node.drive(TURN, &mut idle).expect("a turn");
    }
}

pub(crate) fn trips(kind: Kind, count: usize) -> Vec<Duration> {
    let folder = folder();
    let store = path_in(&folder, "here.db");
    let mut node = build("here", kind, store.as_ref(), Some("127.0.0.1:0"), None, Some("back"));
    let address = node.listen_addrs()[0].to_string();
    let other = path_in(&folder, "there.db");
    let _echo = Other::spawn(&["echo", kind.name(), &address, &other]);
    let mut answers = 0;
    while node.peers_up().is_empty() {
        node.drive(TURN, &mut |_: &Message<'_>| {}).expect("a turn");
    }
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        let began = Instant::now();
        if node.send("there", &[0x5a; 64], Mode::One).is_err() {
            // Its subscription has not arrived yet.
            node.drive(TURN, &mut |_: &Message<'_>| {}).expect("a turn");
            continue;
        }
        let wanted = answers + 1;
        while answers < wanted {
            node.drive(TURN, &mut |_: &Message<'_>| answers += 1).expect("a turn");
        }
        times.push(began.elapsed());
    }
    times
}

pub(crate) fn echo(kind: Kind, address: &str, store: &str) {
    let mut node = build("there", kind, store.as_ref(), None, Some(address), Some("there"));
    loop {
        let mut asked = Vec::new();
        node.drive(TURN, &mut |message: &Message<'_>| asked.push(message.payload.to_vec())).expect("a turn");
        for payload in asked {
            node.send("back", &payload, Mode::One).expect("room");
            node.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {}).expect("a turn");
        }
    }
}

pub(crate) fn back_after(away: Duration) -> Duration {
    let folder = folder();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let (address, store) = (port.to_string(), path_in(&folder, "receiver.db"));
    let own = path_in(&folder, "sender.db");
    let mut node = build("sender", Kind::Process, own.as_ref(), None, Some(&address), None);
    let mut idle = |_: &Message<'_>| {};
    let mut receiver = Other::spawn(&["receive", &address, &store]);
    assert_eq!(receiver.line(), "ready");
    while node.queued() == 0 {
        let _ = node.send("t", b"first", Mode::One);
        node.drive(TURN, &mut idle).expect("a turn");
    }
    while !node.is_idle() {
        node.drive(TURN, &mut idle).expect("a turn");
    }
    drop(receiver);
    let gone = Instant::now();
    node.send("t", b"second", Mode::One).expect("it is stored");
    while gone.elapsed() < away {
        node.drive(TURN, &mut idle).expect("a turn");
    }
    let mut receiver = Other::spawn(&["receive", &address, &store]);
    let (ready, arrived) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        assert_eq!(receiver.line(), "ready");
        let began = Instant::now();
        assert_eq!(receiver.line(), "got");
        ready.send(began.elapsed()).expect("somebody waits");
    });
    let back = loop {
        node.drive(Some(Duration::from_millis(5)), &mut idle).expect("a turn");
        if let Ok(back) = arrived.try_recv() {
            break back;
        }
    };
    reader.join().expect("it read two lines");
    back
}

pub(crate) fn receive(address: &str, store: &str) {
    let mut node = build("receiver", Kind::Process, store.as_ref(), Some(address), None, Some("t"));
    say("ready");
    let mut got = false;
    loop {
        node.drive(TURN, &mut |_: &Message<'_>| got = true).expect("a turn");
        if std::mem::take(&mut got) {
            say("got");
        }
    }
}
