//! The rows that a node tells its peers after the handshake.

use liner_proto::id::{Class, ConnId};
use liner_proto::router::{Framing, Message, NodeConfig, Router, SendError};
use liner_proto::time::Instant;
use liner_proto::wire::record::Mode;

const NOW: Instant = Instant::from_micros(1);

fn node(name: &str) -> Router {
    let mut router = Router::new(NodeConfig::new(name, [5, name.len() as u64], Class::Ram), NOW);
    router.start(NOW);
    router
}

fn pass((from, at): (&mut Router, ConnId), (to, there): (&mut Router, ConnId)) -> usize {
    let mut bytes = Vec::new();
    loop {
        let transmit = from.poll_transmit(NOW, at);
        let len = transmit.len();
        if len == 0 {
            break;
        }
        bytes.extend_from_slice(transmit.head);
        bytes.extend_from_slice(transmit.body);
        from.handle_written(NOW, at, len);
    }
    let len = bytes.len();
    assert_eq!(to.handle_bytes(NOW, there, &mut bytes, &mut |_: &Message<'_>| {}), len);
    len
}

/// Connects the two, and passes on what each has to say until nothing is left.
fn meet(subscriber: &mut Router, publisher: &mut Router) {
    let dial = subscriber.add_peer(NOW, "publisher:1");
    let _ = subscriber.poll_dial(NOW);
    let here = subscriber.handle_dialed(NOW, dial, Framing::Length);
    let there = publisher.handle_accepted(NOW, Framing::Length);
    let mut moved = 1;
    while moved > 0 {
        moved = pass((&mut *subscriber, here), (&mut *publisher, there));
        moved += pass((&mut *publisher, there), (&mut *subscriber, here));
    }
}

#[test]
fn every_topic_of_many_is_told() {
    let (mut publisher, mut subscriber) = (node("publisher"), node("subscriber"));
    let topic = |n: u32| format!("{n:0>100}");
    for n in 0..2_000 {
        subscriber.subscribe(NOW, &topic(n));
    }
    meet(&mut subscriber, &mut publisher);
    let unknown =
        (0..2_000).find(|n| publisher.send(NOW, &topic(*n), b"", Mode::One) == Err(SendError::NoAddress));
    assert_eq!(unknown, None);
}

#[test]
fn a_topic_that_a_peer_no_longer_tells_is_not_its_any_more() {
    let mut publisher = node("publisher");
    for (life, topics) in [["a", "b"], ["b", "c"]].iter().enumerate() {
        let mut subscriber = node("subscriber");
        for topic in topics {
            subscriber.subscribe(NOW, topic);
        }
        meet(&mut subscriber, &mut publisher);
        let known: Vec<&str> = ["a", "b", "c"]
            .into_iter()
            .filter(|topic| publisher.send(NOW, topic, b"", Mode::One).is_ok())
            .collect();
        assert_eq!(known, topics, "in life {life}");
    }
}
