//! A gateway without room for more dead letters: nobody loses a message by it, and nobody storms it.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::id::ConnId;
use liner_proto::router::{Event, Quota, SendOptions};
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, link, meet, settle};

/// A gateway that keeps ten messages of a topic.
fn gateway() -> Node {
    Node::start("gateway", |config| {
        config.takes_custody = true;
        config.kept = Quota { messages: 10, bytes: 1 << 20 };
    })
}

/// A node that takes "back", with so many messages for a topic that nobody has subscribed to.
fn sender(count: u32) -> Node {
    let mut sender = Node::start("sender", |config| config.durable = true);
    sender.router.subscribe(sender.now, "back");
    sender.router.add_peer(sender.now, "there");
    for number in 0..count {
        sender.router.send(sender.now, "t", &number.to_le_bytes(), Mode::All).expect("the gateway is asked");
    }
    sender
}

/// Lets both say what they have to, and closes what they end. Says whether the session is still up.
fn talk(from: &mut Node, to: &mut Node, line: (ConnId, ConnId)) -> bool {
    settle(from, to, line);
    let ended = from.router.poll_close().is_some() | to.router.poll_close().is_some();
    if ended {
        cut(from, to, line);
    }
    !ended
}

fn reconnect(from: &mut Node, to: &mut Node) -> Option<(ConnId, ConnId)> {
    let line = link(from, to);
    talk(from, to, line).then_some(line)
}

/// How often a session ended for want of room, and how often it was said why.
fn told(node: &mut Node) -> (usize, usize) {
    let events = node.events();
    let over = |event: &&Event| matches!(event, Event::PeerDown { reason: CloseReason::Overloaded, .. });
    let full = |event: &&Event| matches!(event, Event::DeadLettersFull { name } if **name == *"sender");
    (events.iter().filter(over).count(), events.iter().filter(full).count())
}

#[test]
fn without_room_for_dead_letters_a_peer_is_connected_and_waits() {
    let (mut gateway, mut sender) = (gateway(), sender(10_050));
    assert_eq!(reconnect(&mut sender, &mut gateway), None, "what was under way cannot be taken");
    assert_eq!(told(&mut gateway), (1, 1));
    let line = reconnect(&mut sender, &mut gateway).expect("it sends nothing");
    assert_eq!((gateway.dead().len(), sender.router.queued()), (10_000, 40), "nothing is lost");
    assert_eq!(told(&mut gateway), (0, 0), "once");

    // The other direction goes on, and so do others.
    let mut other = Node::start("other", |_| {});
    let side = meet(&mut other, &mut gateway);
    other.router.send(other.now, "back", b"x", Mode::All).expect("the gateway is asked");
    settle(&mut other, &mut gateway, side);
    assert!(talk(&mut sender, &mut gateway, line));
    assert_eq!(sender.got, [(b"x".to_vec(), false)]);
    assert_eq!((gateway.router.queued_for("sender"), other.router.queued()), (0, 0));

    // Nothing of it need be put aside any more.
    let mut screen = Node::start("screen", |config| config.durable = true);
    screen.router.subscribe(screen.now, "t");
    let view = meet(&mut screen, &mut gateway);
    assert!(talk(&mut sender, &mut gateway, line), "the same session");
    settle(&mut screen, &mut gateway, view);
    let kept = (0..10_u32).chain(10_010..10_050);
    let got: Vec<_> = screen.got.iter().map(|(payload, _)| payload.clone()).collect();
    assert_eq!(got, kept.map(|number| number.to_le_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!((sender.router.queued(), gateway.dead().len()), (0, 10_000));
}

#[test]
fn dead_letters_of_earlier_lives_count() {
    let (mut gateway, mut sender) = (gateway(), sender(10_050));
    for _ in 0..3 {
        assert_eq!(reconnect(&mut sender, &mut gateway), None);
        let line = reconnect(&mut sender, &mut gateway).expect("it sends nothing");
        cut(&mut sender, &mut gateway, line);
        assert_eq!((gateway.dead().len(), sender.router.queued()), (10_000, 40));
        gateway.restart();
    }
    gateway.store.clear_dead_letters();
    gateway.restart();
    assert!(reconnect(&mut sender, &mut gateway).is_some());
    assert_eq!((gateway.dead().len(), sender.router.queued()), (40, 0));
}

/// Many queues find at the same time what is too old in them: all of that together is bounded.
#[test]
fn what_many_queues_put_aside_at_once_is_bounded() {
    let mut gateway = nodes::gateway(100);
    let mut subs: Vec<Node> =
        (0..80).map(|n| Node::start(&format!("sub{n}"), |config| config.durable = true)).collect();
    for sub in &mut subs {
        sub.router.subscribe(sub.now, "t");
        let line = meet(sub, &mut gateway);
        cut(sub, &mut gateway, line);
    }
    let options = SendOptions::new(Mode::All).ttl(Duration::from_secs(1));
    for _ in 0..150 {
        gateway.router.send_with(gateway.now, "t", b"x", &options).expect("room");
        gateway.serve();
    }
    gateway.pass(Duration::from_secs(2));
    for sub in &mut subs {
        let line = link(sub, &mut gateway);
        for _ in 0..6 {
            sub.serve();
            let ahead = sub.give(line.0);
            gateway.take(line.1, ahead);
            let back = gateway.give(line.1);
            sub.take(line.0, back);
        }
    }
    gateway.serve();
    let dead = gateway.dead().len();
    assert!((9_000..=10_000).contains(&dead), "{dead}");
    assert!(
        gateway.events().iter().any(|event| matches!(event, Event::DeadLettersFull { .. })),
        "that is said"
    );
}
