//! Who may connect: strangers have few places and drive away each other, sessions are bounded, and a flood of either is told with a count.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::id::ConnId;
use liner_proto::router::{Event, Framing, NodeConfig, Source};
use liner_proto::wire::control::CloseReason;
use nodes::{Node, cut, link, meet, settle};

const CROWD: Source = Source(7);

fn node(change: impl FnOnce(&mut NodeConfig)) -> Node {
    Node::start("node", change)
}

/// Somebody connects; says who is closed for it.
fn accept(node: &mut Node, source: Source) -> (ConnId, Vec<ConnId>) {
    let conn = node.router.handle_accepted_from(node.now, Framing::Length, source);
    let closed: Vec<_> = std::iter::from_fn(|| node.router.poll_close()).collect();
    for &conn in &closed {
        node.router.handle_closed(node.now, conn);
    }
    (conn, closed)
}

#[test]
fn a_crowd_drives_away_its_own() {
    let mut node = node(|_| {});
    let (honest, _) = accept(&mut node, Source(1));
    let (second, _) = accept(&mut node, Source(2));
    let mut crowd = Vec::new();
    for number in 0..1000 {
        node.pass(Duration::from_micros(1));
        let (conn, closed) = accept(&mut node, CROWD);
        crowd.push(conn);
        let oldest = (number >= 62).then(|| crowd[number - 62]);
        assert_eq!(closed, Vec::from_iter(oldest), "of the crowd, the oldest");
        assert!(!closed.contains(&honest) && !closed.contains(&second));
    }
}

#[test]
fn among_equals_the_oldest_gives_way() {
    let mut node = node(|config| config.strangers_max = 3);
    let (first, _) = accept(&mut node, Source(9));
    for source in [1, 2] {
        node.pass(Duration::from_micros(1));
        assert_eq!(accept(&mut node, Source(source)).1, []);
    }
    assert_eq!(accept(&mut node, Source(3)).1, [first]);
}

#[test]
fn nobody_gives_way_before_it_has_had_a_moment() {
    let mut node = node(|config| config.strangers_max = 3);
    let least = node.router.config().timing.handshake_min;
    assert!(least >= Duration::from_millis(10));
    let begin = node.now;
    for place in 0..3 {
        assert!(node.router.accept_from() <= node.now, "{place} places are taken of three");
        accept(&mut node, CROWD);
        node.pass(Duration::from_micros(5));
    }
    assert_eq!(node.router.accept_from(), begin + least);
    accept(&mut node, CROWD);
    assert_eq!(node.router.accept_from(), begin + Duration::from_micros(5) + least, "the next one's turn");
}

/// A node, and its connection on both sides.
type Peer = (Node, (ConnId, ConnId));

/// A node with six places for sessions, and how many of the names get one.
fn crowded(names: &[String]) -> (Node, Vec<Peer>) {
    let mut node = node(|config| (config.connections_max, config.strangers_max) = (8, 2));
    let mut up = Vec::new();
    for name in names {
        let mut peer = Node::start(name, |_| {});
        let line = meet(&mut peer, &mut node);
        node.reap();
        peer.reap();
        up.push((peer, line));
    }
    (node, up)
}

#[test]
fn sessions_are_bounded_and_who_is_connected_may_connect_again() {
    let names: Vec<String> = (0..9).map(|number| format!("n{number}")).collect();
    let (mut node, mut peers) = crowded(&names);
    assert_eq!(node.router.peers_up().collect::<Vec<_>>(), names[..6]);
    let events = node.events();
    let full =
        |events: &[Event]| events.iter().filter(|event| **event == Event::ConnectionsFull { max: 6 }).count();
    assert_eq!(full(&events), 1, "told once: {events:?}");
    let refused =
        |event: &&Event| matches!(event, Event::HandshakeFailed { reason: CloseReason::Overloaded, .. });
    assert_eq!(events.iter().filter(refused).count(), 3, "{events:?}");
    let heard = peers[8].0.events();
    assert!(heard.iter().any(|event| refused(&event)), "it is told why: {heard:?}");

    let (one, _) = &mut peers[2];
    let again = link(one, &mut node);
    settle(one, &mut node, again);
    node.reap();
    assert_eq!(node.router.peers_up().count(), 6);
    assert!(
        node.events().contains(&Event::PeerUp { name: "n2".into(), resumed: true }),
        "it took its own place"
    );

    let (one, line) = &mut peers[0];
    cut(one, &mut node, *line);
    let mut late = Node::start("late", |_| {});
    meet(&mut late, &mut node);
    assert!(node.router.peers_up().any(|name| name == "late"), "a place is free");
}

#[test]
fn one_source_has_so_many_connections_and_no_more() {
    let mut node = node(|config| config.connections_per_source = Some(2));
    for _ in 0..2 {
        assert_eq!(accept(&mut node, CROWD).1, []);
    }
    let (third, closed) = accept(&mut node, CROWD);
    assert_eq!(closed, [third]);
    assert_eq!(accept(&mut node, Source(1)).1, [], "another source is another matter");
}

#[test]
fn failed_handshakes_of_a_flood_are_told_with_a_count() {
    let mut node = node(|_| {});
    for _ in 0..64 + 1000 {
        accept(&mut node, CROWD);
    }
    let events = node.events();
    let failed = events.iter().filter(|event| matches!(event, Event::HandshakeFailed { .. })).count();
    assert!(events.len() == failed && (20..100).contains(&failed), "each of the first few: {failed}");
    node.pass(Duration::from_secs(1));
    let count = (1000 - failed) as u64;
    let rest = node.events();
    assert!(rest.contains(&Event::HandshakesFailed { count }), "{rest:?}");
    node.pass(Duration::from_secs(5));
    accept(&mut node, CROWD);
    assert!(node.events().iter().any(|event| matches!(event, Event::HandshakeFailed { .. })), "told again");
}
