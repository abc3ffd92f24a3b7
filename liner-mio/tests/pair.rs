//! Two nodes over real TCP on loopback.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::time::Duration;

use common::{How, Party, Patience, heap, listener, run, talker};
use liner_mio::{Builder, Event, Framing, Message, Mode, Node, SendError, SendMode};

fn numbered(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| number.to_be_bytes().repeat(1 + number as usize % 40)).collect()
}

fn everything_arrives_once_in_order(how: How) {
    let mut to = listener("to", "t", how);
    let mut from = talker("from", &to, how);
    let sent = numbered(5000);
    for payload in &sent {
        from.node.send("t", payload, Mode::One).unwrap();
    }
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= sent.len() && from.node.is_idle());
    assert_eq!(to.payloads(), sent);
    assert!(to.seen.iter().all(|seen| seen.topic == "t" && seen.from == "from" && !seen.again));
    assert_eq!(from.node.queued(), 0);
    assert_eq!(from.node.peers_up(), ["to"]);
}

#[test]
fn everything_arrives_once_in_order_in_place() {
    everything_arrives_once_in_order(How::InPlace);
}

#[test]
fn everything_arrives_once_in_order_on_a_worker() {
    everything_arrives_once_in_order(How::OnWorker);
}

#[test]
fn everything_arrives_in_the_asynchronous_mode() {
    let mut to = listener("to", "t", How::InPlace);
    let peer = to.node.listen_addrs()[0].to_string();
    let node = Node::builder("from").peer(&peer).send_mode(SendMode::Asynchronous).build().unwrap();
    let mut from = Party::new(node);
    let sent = numbered(100_000);
    for payload in &sent {
        while let Err(error) = from.node.send("t", payload, Mode::One) {
            assert_eq!(error, SendError::Busy);
            from.turn();
            to.turn();
        }
    }
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= sent.len() && from.node.is_idle());
    assert_eq!(to.payloads(), sent);
}

fn big_messages_pass_both_ways(how: How) {
    let mut one = listener("one", "to-one", how);
    let peer = one.node.listen_addrs()[0].to_string();
    let builder = Node::builder("two").peer(&peer).subscribe("to-two");
    let mut two = Party::new(match how {
        How::InPlace => builder.store(heap()).build().unwrap(),
        How::OnWorker => builder.store_on_worker(heap()).build().unwrap(),
    });
    run([&mut one, &mut two], |[one, two]| {
        !one.node.peers_up().is_empty() && !two.node.peers_up().is_empty()
    });
    // More than the sockets' buffers hold, so that reads and writes end in the middle of frames.
    let sent: Vec<Vec<u8>> = (0..150_u8).map(|number| vec![number; 60_000 + usize::from(number)]).collect();
    for payload in &sent {
        one.send("to-two", payload);
        two.send("to-one", payload);
    }
    run([&mut one, &mut two], |[one, two]| {
        one.seen.len() >= sent.len()
            && two.seen.len() >= sent.len()
            && one.node.is_idle()
            && two.node.is_idle()
    });
    assert!(one.payloads() == sent, "other bytes");
    assert!(two.payloads() == sent, "other bytes");
}

#[test]
fn big_messages_pass_both_ways_in_place() {
    big_messages_pass_both_ways(How::InPlace);
}

#[test]
fn big_messages_pass_both_ways_on_a_worker() {
    big_messages_pass_both_ways(How::OnWorker);
}

fn messages_above_a_frame_pass_both_ways(how: How) {
    const MOST: u32 = 8 << 20;
    let build = |builder: Builder| {
        let builder = builder.message_max(MOST);
        Party::new(match how {
            How::InPlace => builder.store(heap()).build().unwrap(),
            How::OnWorker => builder.store_on_worker(heap()).build().unwrap(),
        })
    };
    let mut one = build(Node::builder("one").listen("127.0.0.1:0", Framing::Length).subscribe("to-one"));
    let peer = one.node.listen_addrs()[0].to_string();
    let mut two = build(Node::builder("two").peer(&peer).subscribe("to-two"));
    run([&mut one, &mut two], |[one, two]| {
        !one.node.peers_up().is_empty() && !two.node.peers_up().is_empty()
    });
    let lens = [10, 1 << 20, 20, MOST, 100_000, 30, 5 << 20];
    let sent: Vec<Vec<u8>> =
        lens.iter().map(|len| (0..*len).map(|at| (at * 7 + len) as u8).collect()).collect();
    for payload in &sent {
        one.send("to-two", payload);
        two.send("to-one", payload);
    }
    let refused = one.node.send("to-two", &vec![0; MOST as usize + 1], Mode::One);
    assert_eq!(refused, Err(SendError::TooLarge { max: MOST as usize }));
    run([&mut one, &mut two], |[one, two]| {
        one.seen.len() >= sent.len()
            && two.seen.len() >= sent.len()
            && one.node.is_idle()
            && two.node.is_idle()
    });
    assert!(one.payloads() == sent, "other bytes");
    assert!(two.payloads() == sent, "other bytes");
}

#[test]
fn messages_above_a_frame_pass_both_ways_in_place() {
    messages_above_a_frame_pass_both_ways(How::InPlace);
}

#[test]
fn messages_above_a_frame_pass_both_ways_on_a_worker() {
    messages_above_a_frame_pass_both_ways(How::OnWorker);
}

#[test]
fn a_receiver_that_does_not_read_gets_everything_later() {
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    run([&mut from, &mut to], |[from, _]| !from.node.peers_up().is_empty());
    let sent: Vec<Vec<u8>> = (0..200_u8).map(|number| vec![number; 50_000]).collect();
    let mut written = 0;
    let mut turn = |node: &mut Node| {
        written += node.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {}).unwrap().bytes_out;
    };
    for payload in &sent {
        while from.node.send("t", payload, Mode::One) == Err(SendError::Busy) {
            turn(&mut from.node);
        }
    }
    // Until the kernel takes no more.
    for _ in 0..50 {
        turn(&mut from.node);
    }
    assert!(written > 0, "nothing was written");
    assert!(written < 200 * 50_000, "the sockets' buffers took everything: the test tests nothing");
    assert!(from.node.next_deadline().is_none_or(|due| !due.is_zero()), "it would not sleep");
    run([&mut from, &mut to], |[_, to]| to.seen.len() >= sent.len());
    assert!(to.payloads() == sent, "other bytes");
}

#[test]
fn a_listener_that_returns_gets_the_rest() {
    let mut to = listener("to", "t", How::InPlace);
    let addr = to.node.listen_addrs()[0].to_string();
    let mut from = talker("from", &to, How::InPlace);
    from.node.send("t", b"before", Mode::One).unwrap();
    run([&mut from, &mut to], |[from, to]| to.seen.len() == 1 && from.node.is_idle());

    drop(to);
    run([&mut from], |[from]| from.node.peers_up().is_empty());
    assert!(from.events.iter().any(|event| matches!(event, Event::PeerDown { name, .. } if &**name == "to")));
    for number in 0..10_u8 {
        from.node.send("t", &[number], Mode::One).unwrap();
    }
    run([&mut from], |[from]| from.node.stored_through() >= liner_mio::SendId(11));
    assert_eq!(from.node.queued_for("to"), 10);

    let again = Node::builder("to").listen(&addr, Framing::Length).subscribe("t").build().unwrap();
    let mut to = Party::new(again);
    run([&mut from, &mut to], |[from, to]| to.seen.len() >= 10 && from.node.is_idle());
    assert_eq!(to.payloads(), (0..10_u8).map(|number| [number]).collect::<Vec<_>>());
}

#[test]
fn an_address_where_nobody_answers_is_told_once() {
    let mut from = Party::new(Node::builder("from").peer("127.0.0.1:1").store(heap()).build().unwrap());
    let dials =
        |party: &Party| party.events.iter().filter(|event| matches!(event, Event::DialFailed { .. })).count();
    run([&mut from], |[from]| dials(from) > 0);
    let patience = Patience::new();
    while !patience.used(Duration::from_millis(600)) {
        from.turn();
    }
    assert_eq!(dials(&from), 1, "{:?}", from.events);
}

#[test]
fn a_peer_is_found_under_a_hosts_name() {
    let mut to = listener("to", "t", How::InPlace);
    let port = to.node.listen_addrs()[0].port();
    // It stands for an address of IPv6, too, where nobody listens.
    let node = Node::builder("from").peer(&format!("localhost:{port}")).build().unwrap();
    let mut from = Party::new(node);
    from.node.send("t", b"x", Mode::One).unwrap();
    run([&mut from, &mut to], |[_, to]| to.seen.len() == 1);
}

#[test]
fn one_to_all_reaches_two_listeners_each_once() {
    let mut left = listener("left", "t", How::InPlace);
    let mut right = listener("right", "t", How::OnWorker);
    let mut builder = Node::builder("from");
    for to in [&left, &right] {
        builder = builder.peer(&to.node.listen_addrs()[0].to_string());
    }
    let mut from = Party::new(builder.build().unwrap());
    run([&mut from, &mut left, &mut right], |[from, ..]| from.node.peers_up().len() == 2);
    // Until both subscriptions are known, a message to all finds only one of them.
    for probe in 0.. {
        assert!(probe < 1000, "one of them was never found");
        from.node.send("t", b"probe", Mode::All).unwrap();
        run([&mut from, &mut left, &mut right], |[from, ..]| from.node.is_idle());
        if !left.seen.is_empty() && !right.seen.is_empty() {
            break;
        }
    }
    left.seen.clear();
    right.seen.clear();
    let sent = numbered(300);
    for payload in &sent {
        from.node.send("t", payload, Mode::All).unwrap();
    }
    run([&mut from, &mut left, &mut right], |[from, left, right]| {
        left.seen.len() >= sent.len() && right.seen.len() >= sent.len() && from.node.is_idle()
    });
    assert_eq!(left.payloads(), sent);
    assert_eq!(right.payloads(), sent);
}
