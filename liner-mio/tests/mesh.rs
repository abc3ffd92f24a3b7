//! Nodes over real TCP that know one address and find the others by it.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use common::{Party, run};
use liner_mio::{Event, ForgetError, Framing, Mode, Node, SendError};

/// A subscriber of "t" at a port of its own.
fn replica(name: &str, peer: Option<&str>) -> Party {
    let builder = Node::builder(name).listen("127.0.0.1:0", Framing::Length).durable(true).subscribe("t");
    let builder = peer.into_iter().fold(builder, liner_mio::Builder::peer);
    Party::new(builder.build().unwrap())
}

fn send(sender: &mut Party, count: u32) {
    for number in 0..count {
        sender.node.send("t", &number.to_be_bytes(), Mode::One).unwrap();
    }
}

#[test]
fn m05_three_replicas_are_found_by_one_address_and_get_a_third_each_also_when_one_was_away() {
    let mut one = replica("one", None);
    let known = one.node.listen_addrs()[0].to_string();
    let mut two = replica("two", Some(&known));
    let mut three = replica("three", Some(&known));
    let mut sender = Party::new(Node::builder("sender").peer(&known).build().unwrap());
    run([&mut one, &mut two, &mut three, &mut sender], |[one, _, _, sender]| {
        sender.node.addresses("t").iter().filter(|at| at.is_up).count() == 3 && one.node.peers_up().len() == 3
    });
    send(&mut sender, 300);
    run([&mut one, &mut two, &mut three, &mut sender], |[.., sender]| sender.node.is_idle());
    assert_eq!([&one, &two, &three].map(|party| party.seen.len()), [100; 3]);

    drop(two);
    run([&mut one, &mut three, &mut sender], |[.., sender]| {
        sender.node.addresses("t").iter().filter(|at| at.is_up).count() == 2
    });
    send(&mut sender, 300);
    run([&mut one, &mut three, &mut sender], |[.., sender]| sender.node.is_idle());
    assert_eq!([&one, &three].map(|party| party.seen.len()), [250; 2]);

    // It comes back at another port, and knows the same one address.
    let mut two = replica("two", Some(&known));
    run([&mut one, &mut two, &mut three, &mut sender], |[.., sender]| {
        sender.node.addresses("t").iter().filter(|at| at.is_up).count() == 3
    });
    send(&mut sender, 300);
    run([&mut one, &mut two, &mut three, &mut sender], |[.., sender]| sender.node.is_idle());
    assert_eq!([&one, &two, &three].map(|party| party.seen.len()), [350, 100, 350]);
}

#[test]
fn a_replica_that_never_comes_back_is_forgotten_and_another_one_gets_what_was_for_it() {
    let mut one = replica("one", None);
    let known = one.node.listen_addrs()[0].to_string();
    let mut two = replica("two", Some(&known));
    let mut sender = Party::new(
        Node::builder("sender").listen("127.0.0.1:0", Framing::Length).peer(&known).build().unwrap(),
    );
    run([&mut one, &mut two, &mut sender], |[.., sender]| sender.node.peers_up().len() == 2);
    assert_eq!(sender.node.forget("two", true), Err(ForgetError::Up));
    drop(two);
    run([&mut one, &mut sender], |[_, sender]| sender.node.peers_up() == ["one"]);
    sender.node.send("t", b"to all", Mode::All).unwrap();
    run([&mut one, &mut sender], |[_, sender]| sender.node.queued_for("one") == 0);
    drop(one);
    run([&mut sender], |[sender]| sender.node.peers_up().is_empty());
    send(&mut sender, 10);
    let queued: Vec<(String, u64)> =
        sender.node.queued_by_peer().iter().map(|it| (it.name.to_owned(), it.messages)).collect();
    assert_eq!(queued, [("one".to_owned(), 5), ("two".to_owned(), 6)]);
    sender.node.forget("two", true).unwrap();
    run([&mut sender], |[sender]| {
        sender.events.contains(&Event::Forgotten { name: "two".into(), rerouted: 5, dropped: 1 })
    });
    assert_eq!((sender.node.queued_for("two"), sender.node.queued_for("one")), (0, 10));
    assert_eq!(sender.node.clear_topic_rows("t"), 1);
    assert!(sender.node.addresses("t").is_empty());
    assert!(matches!(sender.node.forget("two", true), Err(ForgetError::Unknown)));
    // The named address is the next hop again for a topic that nobody is known for.
    assert_ne!(sender.node.send("t", b"", Mode::One), Err(SendError::NoAddress));
}
