//! Peers that are named by their address, now or in an earlier life.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::id::ConnId;
use liner_proto::router::Framing;
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, settle};

fn gateway(name: &str) -> Node {
    Node::start(name, |config| config.takes_custody = true)
}

/// The next address that is to be dialled.
fn due(node: &mut Node) -> Option<String> {
    node.router.poll_dial(node.now).map(|dial| dial.address.to_owned())
}

/// The node reaches `to` at an address.
fn reach(node: &mut Node, address: &str, to: &mut Node) -> (ConnId, ConnId) {
    to.now = to.now.max(node.now);
    let dial = node.router.add_peer(node.now, address);
    let line = (
        node.router.handle_dialed(node.now, dial, Framing::Length),
        to.router.handle_accepted(to.now, Framing::Length),
    );
    settle(node, to, line);
    line
}

fn send(node: &mut Node, count: u8) {
    for number in 0..count {
        node.router.send(node.now, "t", &[number], Mode::One).expect("somebody is named");
    }
}

#[test]
fn an_address_of_an_earlier_life_gets_what_waits_for_it_and_nothing_new() {
    let mut sender = Node::start("sender", |_| {});
    sender.router.add_peer(sender.now, "old:7420");
    send(&mut sender, 3);
    sender.serve();
    sender.restart();
    sender.router.add_peer(sender.now, "new:7420");
    send(&mut sender, 2);
    sender.router.send(sender.now, "t", b"", Mode::All).expect("somebody is named");
    sender.serve();
    let queues = sender.held().queues;
    assert_eq!((queues["old:7420"], queues["new:7420"]), (3, 3));
    assert_eq!((due(&mut sender), due(&mut sender)), (Some("old:7420".into()), Some("new:7420".into())));

    // It is dialled until that is empty, and not after that.
    let old = sender.router.poll_dial(sender.now);
    assert_eq!(old, None, "each once");
    let mut gateway = gateway("gateway");
    let dial = liner_proto::router::DialId(0);
    let here = sender.router.handle_dialed(sender.now, dial, Framing::Length);
    let line = (here, gateway.router.handle_accepted(gateway.now, Framing::Length));
    settle(&mut sender, &mut gateway, line);
    assert_eq!(gateway.router.queued(), 3);
    cut(&mut sender, &mut gateway, line);
    sender.router.handle_dial_failed(sender.now, liner_proto::router::DialId(1));
    sender.pass(Duration::from_secs(5));
    assert_eq!((due(&mut sender), due(&mut sender)), (Some("new:7420".into()), None));
}

#[test]
fn a_message_for_one_goes_to_those_that_are_up_by_turns() {
    let mut sender = Node::start("sender", |_| {});
    let (mut first, mut second) = (gateway("first"), gateway("second"));
    for address in ["away:1", "first:1", "second:1"] {
        sender.router.add_peer(sender.now, address);
    }
    send(&mut sender, 6);
    sender.serve();
    assert!(sender.held().queues.values().all(|queued| *queued == 2), "by turns, as long as none is up");
    let one = reach(&mut sender, "first:1", &mut first);
    let other = reach(&mut sender, "second:1", &mut second);
    send(&mut sender, 6);
    settle(&mut sender, &mut first, one);
    settle(&mut sender, &mut second, other);
    assert_eq!((first.router.queued(), second.router.queued(), sender.router.queued()), (5, 5, 2));
    cut(&mut sender, &mut first, one);
    send(&mut sender, 6);
    settle(&mut sender, &mut second, other);
    assert_eq!((second.router.queued(), sender.router.queued()), (11, 2));
}
