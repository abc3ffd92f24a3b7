//! A node in a program that has an event loop of its own, with mio. No thread is started.
//!
//! ```text
//! cargo run --example own_loop_mio
//! ```
//!
//! The loop watches two nodes and a UDP socket: what comes by UDP is sent on as a message.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use liner::{Framing, Message, Mode, Node};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);
const TALKER: Token = Token(1);
const UDP: Token = Token(2);

fn main() -> Result<(), Box<dyn Error>> {
    let mut listener =
        Node::builder("listener").listen("127.0.0.1:0", Framing::Length).subscribe("readings").build()?;
    let address = listener.listen_addrs()[0].to_string();
    let mut talker = Node::builder("talker").peer(&address).build()?;

    let mut udp = UdpSocket::bind("127.0.0.1:0".parse()?)?;
    // Somebody sends three datagrams.
    let sensor = std::net::UdpSocket::bind("127.0.0.1:0")?;
    for reading in ["21.5", "21.7", "22.0"] {
        sensor.send_to(reading.as_bytes(), udp.local_addr()?)?;
    }

    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut talker, TALKER, Interest::READABLE)?;
    poll.registry().register(&mut udp, UDP, Interest::READABLE)?;

    let mut events = Events::with_capacity(16);
    let mut heard: Vec<String> = Vec::new();
    while heard.len() < 3 || !talker.is_idle() {
        // Sleep until the first of: a socket is ready, or one of the nodes has something to do by itself.
        let deadlines = [listener.next_deadline(), talker.next_deadline()];
        poll.poll(&mut events, deadlines.into_iter().flatten().min())?;

        let mut buffer = [0; 64];
        while let Ok((len, _)) = udp.recv_from(&mut buffer) {
            talker.send("readings", &buffer[..len], Mode::One)?;
        }
        // Each does a bounded amount of work, and never waits. Asking one that has nothing to do costs next to nothing.
        talker.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {})?;
        listener.drive(Some(Duration::ZERO), &mut |message: &Message<'_>| {
            let text = String::from_utf8_lossy(message.payload);
            println!("{} says {text}", message.from);
            heard.push(text.into_owned());
        })?;
    }
    Ok(())
}
