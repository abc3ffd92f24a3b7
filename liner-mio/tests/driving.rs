//! The node in a foreign event loop, its deadlines, its handler's refusals, its end.

mod common;

use std::io;
use std::time::Duration;

use common::{How, PATIENCE, Party, Patience, Seen, listener, run, talker};
use liner_mio::{BuildError, DriveError, Event, Framing, Handler, Message, Mode, Node};
use mio::{Events, Interest, Poll, Token};

fn ignore(_: &Message<'_>) {}

#[test]
fn a_foreign_poll_and_deadlines_are_enough() {
    let to = listener("to", "t", How::OnWorker);
    let from = talker("from", &to, How::OnWorker);
    let mut parties = [from, to];
    let mut poll = Poll::new().unwrap();
    for (index, party) in parties.iter_mut().enumerate() {
        poll.registry().register(&mut party.node, Token(index), Interest::READABLE).unwrap();
    }
    let mut events = Events::with_capacity(8);
    let patience = Patience::new();
    let mut sent = 0_u16;
    while parties[1].seen.len() < 1000 || !parties[0].node.is_idle() {
        patience.check();
        while sent < 1000 && u64::from(sent) < parties[1].seen.len() as u64 + 50 {
            parties[0].node.send("t", &sent.to_be_bytes(), Mode::One).unwrap();
            sent += 1;
        }
        let due = parties.iter().filter_map(|party| party.node.next_deadline()).min();
        poll.poll(&mut events, Some(due.unwrap_or(PATIENCE))).unwrap();
        let ready: Vec<usize> = events.iter().map(|event| event.token().0).collect();
        for (index, party) in parties.iter_mut().enumerate() {
            if ready.contains(&index) || party.node.next_deadline() == Some(Duration::ZERO) {
                let seen = &mut party.seen;
                let mut keep = |message: &Message<'_>| seen.push(Seen::of(message));
                party.node.drive(Some(Duration::ZERO), &mut keep).unwrap();
            }
        }
    }
    let expected: Vec<_> = (0..1000_u16).map(u16::to_be_bytes).collect();
    assert_eq!(parties[1].payloads(), expected);
    for party in &mut parties {
        poll.registry().deregister(&mut party.node).unwrap();
    }
}

#[test]
fn an_idle_node_sleeps() {
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    from.node.send("t", b"x", Mode::One).unwrap();
    run([&mut from, &mut to], |[from, to]| {
        from.node.is_idle()
            && [&from.node, &to.node].iter().all(|node| {
                // Nothing but the keep-alive is due.
                node.next_deadline().is_some_and(|due| due > Duration::from_secs(1))
            })
    });
    from.node.send("t", b"y", Mode::One).unwrap();
    assert_eq!(from.node.next_deadline(), Some(Duration::ZERO));
}

#[test]
fn another_thread_can_wake_it() {
    let mut node = Node::builder("n").build().unwrap();
    // The first turn of a new node has work.
    node.drive(Some(Duration::ZERO), &mut ignore).unwrap();
    assert_eq!(node.next_deadline(), None);
    let waker = node.waker();
    let thread = std::thread::spawn(move || waker.wake());
    node.drive(None, &mut ignore).unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_node_that_spins_delivers_as_well() {
    let to = Node::builder("to").listen("127.0.0.1:0", Framing::Length).subscribe("t");
    let mut to = Party::new(to.spin(Duration::from_micros(200)).build().unwrap());
    let mut from = talker("from", &to, How::InPlace);
    for number in 0..100_u8 {
        from.node.send("t", &[number], Mode::One).unwrap();
        run([&mut from, &mut to], |[_, to]| to.seen.len() == usize::from(number) + 1);
    }
}

/// Cannot flush for so many times.
struct Reluctant {
    refusals: u32,
    flushed: usize,
    seen: Vec<Vec<u8>>,
}

impl Handler for Reluctant {
    fn message(&mut self, message: &Message<'_>) {
        self.seen.push(message.payload.to_vec());
    }

    fn turn_end(&mut self) -> io::Result<()> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(io::Error::other("the pipe is full"));
        }
        self.flushed = self.seen.len();
        Ok(())
    }
}

#[test]
fn nothing_is_acknowledged_that_the_handler_could_not_keep() {
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    from.node.send("t", b"x", Mode::One).unwrap();
    let mut handler = Reluctant { refusals: 3, flushed: 0, seen: Vec::new() };
    let patience = Patience::new();
    let mut refused = 0;
    while handler.flushed == 0 {
        patience.check();
        from.turn();
        match to.node.drive(Some(Duration::from_millis(1)), &mut handler) {
            Ok(_) => {}
            Err(DriveError::Handler(error)) => {
                refused += 1;
                assert_eq!(error.to_string(), "the pipe is full");
                // All that could be acknowledged would be by now.
                for _ in 0..20 {
                    from.turn();
                }
                assert_eq!(from.node.queued(), 1);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refused, 3);
    assert_eq!(handler.seen, [b"x"]);
    run([&mut from, &mut to], |[from, _]| from.node.is_idle());
}

#[test]
fn a_turn_hands_over_about_a_thousand_messages_between_two_flushes() {
    struct Turns(u64, u64, u64);
    impl Handler for Turns {
        fn message(&mut self, _: &Message<'_>) {
            self.0 += 1;
            self.1 += 1;
        }
        fn turn_end(&mut self) -> io::Result<()> {
            self.2 = self.2.max(std::mem::take(&mut self.1));
            Ok(())
        }
    }
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    for _ in 0..20_000 {
        from.send("t", &[7; 64]);
    }
    let mut turns = Turns(0, 0, 0);
    let patience = Patience::new();
    while turns.0 < 20_000 {
        patience.check();
        from.turn();
        to.node.drive(Some(Duration::from_millis(1)), &mut turns).unwrap();
    }
    // A frame holds up to a segment: fewer than a thousand of these.
    assert!(turns.2 <= 2 * 1024, "{} messages in a turn", turns.2);
    assert!(turns.2 >= 500, "{} messages in a turn", turns.2);
}

#[test]
fn a_loud_peer_does_not_keep_a_quiet_one_waiting() {
    let mut to = listener("to", "t", How::InPlace);
    let mut loud = talker("loud", &to, How::InPlace);
    let mut quiet = talker("quiet", &to, How::InPlace);
    run([&mut loud, &mut quiet, &mut to], |[_, _, to]| to.node.peers_up().len() == 2);
    for _ in 0..200 {
        loud.send("t", &[1; 50_000]);
    }
    for _ in 0..50 {
        loud.turn();
    }
    quiet.node.send("t", b"x", Mode::One).unwrap();
    quiet.turn();
    let mut turns = 0;
    while !to.seen.iter().any(|seen| seen.from == "quiet") {
        turns += 1;
        assert!(turns < 4, "{} messages of the loud one came first", to.seen.len());
        to.turn();
    }
    run([&mut loud, &mut quiet, &mut to], |[_, _, to]| to.seen.len() == 201);
}

#[test]
fn a_turn_reads_a_bounded_part_of_what_is_there() {
    let mut to = listener("to", "t", How::InPlace);
    let mut loud = ["a", "b", "c", "d"].map(|name| talker(name, &to, How::InPlace));
    let [a, b, c, d] = &mut loud;
    run([a, b, c, d, &mut to], |[.., to]| to.node.peers_up().len() == 4);
    for party in &mut loud {
        for _ in 0..20 {
            party.node.send("t", &[1; 50_000], Mode::One).unwrap();
        }
        for _ in 0..20 {
            party.turn();
        }
    }
    let mut most = 0;
    for _ in 0..20 {
        let read = to.node.drive(Some(Duration::ZERO), &mut ignore).unwrap().bytes_in;
        most = most.max(read);
    }
    assert!((100_000..=512 * 1024).contains(&most), "{most} bytes in a turn");
}

#[test]
fn a_link_that_takes_nothing_lets_the_node_sleep() {
    let mut to = listener("to", "t", How::InPlace);
    let node = Node::builder("from")
        .peer(&to.node.listen_addrs()[0].to_string())
        .configure(|config| {
            config.timing.handshake = Duration::from_millis(300);
            config.timing.peer_silent = Duration::from_millis(300);
            config.timing.write_stall = Duration::from_secs(600);
        })
        .build()
        .unwrap();
    let mut from = Party::new(node);
    run([&mut from, &mut to], |[from, _]| !from.node.peers_up().is_empty());
    for _ in 0..200 {
        from.send("t", &[1; 50_000]);
    }
    // The other side is silent for too long. The end of the session is owed, and cannot be written.
    let patience = Patience::new();
    while !patience.used(Duration::from_millis(600)) {
        from.turn();
    }
    while from.node.next_deadline() == Some(Duration::ZERO) {
        patience.check();
        from.turn();
    }
}

#[test]
fn a_stop_is_told_to_peers_and_frees_the_address() {
    let mut to = listener("to", "t", How::OnWorker);
    let mut from = talker("from", &to, How::InPlace);
    from.node.send("t", b"x", Mode::One).unwrap();
    run([&mut from, &mut to], |[from, _]| from.node.is_idle());
    let addr = to.node.listen_addrs()[0].to_string();
    to.node.stop(PATIENCE, &mut ignore).unwrap();
    assert!(Node::builder("again").listen(&addr, Framing::Length).build().is_ok());
    run([&mut from], |[from]| from.node.peers_up().is_empty());
    let told = from.events.iter().any(|event| {
        matches!(event, Event::PeerDown { reason: liner_proto::wire::control::CloseReason::Shutdown, .. })
    });
    assert!(told, "{:?}", from.events);
}

#[test]
fn a_node_that_takes_custody_settles_nothing_later() {
    let builder = || Node::builder("gateway").settles_later(true);
    let error = builder().takes_custody(true).build().unwrap_err();
    assert!(matches!(error, BuildError::SettlesLaterWithCustody), "{error}");
    let error = builder().configure(|config| config.takes_custody = true).build().unwrap_err();
    assert!(matches!(error, BuildError::SettlesLaterWithCustody), "{error}");
    builder().takes_custody(false).build().expect("one of the two");
}
