//! Whoever connects and is no honest peer, and addresses that cannot be had.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{How, Party, Patience, listener, talker};
use liner_mio::{BuildError, Event, Framing, Mode, Node};

/// A connection that says nothing by itself.
fn stranger(to: &Party) -> TcpStream {
    let stream = TcpStream::connect(to.node.listen_addrs()[0]).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Whether the other side has closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn garbage_is_closed_and_honest_traffic_goes_on() {
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    let kinds: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 300], &[0; 300], &[5, 0, 0, 0, 1, 2, 3, 4, 5, 6]];
    let patience = Patience::new();
    for round in 0..20_u8 {
        from.node.send("t", &[round], Mode::One).unwrap();
        let mut stream = stranger(&to);
        stream.write_all(kinds[usize::from(round) % kinds.len()]).unwrap();
        while !is_closed(&mut stream) {
            patience.check();
            from.turn();
            to.turn();
        }
    }
    common::run([&mut from, &mut to], |[from, to]| to.seen.len() >= 20 && from.node.is_idle());
    assert_eq!(to.payloads(), (0..20_u8).map(|round| [round]).collect::<Vec<_>>());
    let failed = |party: &Party| {
        party.events.iter().filter(|event| matches!(event, Event::HandshakeFailed { .. })).count()
    };
    assert_eq!(failed(&to), 20);
    assert_eq!(from.node.peers_up(), ["to"]);
    assert!(!from.events.iter().any(|event| matches!(event, Event::PeerDown { .. })), "{:?}", from.events);
}

#[test]
fn who_does_not_finish_the_handshake_is_closed() {
    let node = Node::builder("to")
        .listen("127.0.0.1:0", Framing::Length)
        .configure(|config| config.timing.handshake = Duration::from_millis(50))
        .build()
        .unwrap();
    let mut to = Party::new(node);
    let mut silent = stranger(&to);
    let mut half = stranger(&to);
    // A frame of 100 bytes that never comes.
    half.write_all(&[100, 0, 0, 0, 1, 2, 3]).unwrap();
    let patience = Patience::new();
    let (mut one, mut two) = (false, false);
    while !(one && two) {
        patience.check();
        to.turn();
        one |= is_closed(&mut silent);
        two |= is_closed(&mut half);
    }
}

#[test]
fn unfinished_handshakes_give_way_to_new_connections() {
    let node = Node::builder("to")
        .listen("127.0.0.1:0", Framing::Length)
        .subscribe("t")
        // None of them uses up its time while the test waits.
        .configure(|config| config.timing.handshake = Duration::from_secs(600))
        .build()
        .unwrap();
    let mut to = Party::new(node);
    let patience = Patience::new();
    let mut strangers: Vec<_> = (0..80).map(|_| stranger(&to)).collect();
    loop {
        patience.check();
        to.turn();
        if strangers.iter_mut().map(is_closed).filter(|&closed| closed).count() >= 80 - 64 {
            break;
        }
    }
    let mut from = talker("from", &to, How::InPlace);
    from.node.send("t", b"x", Mode::One).unwrap();
    common::run([&mut from, &mut to], |[_, to]| to.seen.len() == 1);
}

#[test]
fn a_cut_in_the_middle_of_a_frame_is_repaired() {
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    let sent: Vec<Vec<u8>> = (0..100_u8).map(|number| vec![number; 50_000]).collect();
    for payload in &sent {
        from.send("t", payload);
    }
    common::run([&mut from, &mut to], |[_, to]| to.seen.len() > 10);
    assert!(to.seen.len() < sent.len(), "it was over too soon: the test tests nothing");
    // The node goes away with what it has read in part; another life of it takes its address and its name.
    let addr = to.node.listen_addrs()[0].to_string();
    drop(to);
    let again = Node::builder("to").listen(&addr, Framing::Length).subscribe("t").build().unwrap();
    let mut to = Party::new(again);
    common::run([&mut from, &mut to], |[from, to]| {
        from.node.is_idle() && to.seen.last().is_some_and(|seen| seen.payload[0] == 99)
    });
    let numbers: Vec<u8> = to.seen.iter().map(|seen| seen.payload[0]).collect();
    assert!(numbers.is_sorted() && to.seen.iter().all(|seen| seen.payload.len() == 50_000), "{numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn an_address_that_others_can_reach_has_to_be_allowed() {
    let refused = Node::builder("n").listen("0.0.0.0:0", Framing::Length).build();
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(&error, BuildError::Insecure { addr } if addr.ip().is_unspecified()), "{error}");
    assert!(error.to_string().contains("insecure"), "{error}");
    assert!(Node::builder("n").listen("0.0.0.0:0", Framing::Length).insecure(true).build().is_ok());
}

#[test]
fn an_address_in_use_is_named() {
    let first = listener("first", "t", How::InPlace);
    let addr = first.node.listen_addrs()[0];
    let error = Node::builder("second").listen(&addr.to_string(), Framing::Length).build().unwrap_err();
    assert!(matches!(error, BuildError::AddressInUse { addr: named } if named == addr), "{error}");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[test]
fn names_topics_and_addresses_are_checked() {
    let build = |builder: liner_mio::Builder| builder.build().map(|_| ()).unwrap_err();
    assert!(matches!(build(Node::builder("")), BuildError::Name { .. }));
    assert!(matches!(build(Node::builder(&"n".repeat(256))), BuildError::Name { .. }));
    assert!(matches!(build(Node::builder("n").subscribe("")), BuildError::Topic { .. }));
    let nowhere = Node::builder("n").listen("no port here", Framing::Length);
    assert!(matches!(build(nowhere), BuildError::Address { .. }));
}

#[test]
fn addresses_stand_in_the_order_of_the_calls() {
    let node = Node::builder("n")
        .listen("127.0.0.1:0", Framing::Cobs)
        .listen("localhost:0", Framing::Length)
        .build()
        .unwrap();
    let addrs = node.listen_addrs();
    assert_eq!(addrs.len(), 2);
    assert!(addrs[0].ip() == std::net::Ipv4Addr::LOCALHOST && addrs.iter().all(|addr| addr.port() != 0));
}
