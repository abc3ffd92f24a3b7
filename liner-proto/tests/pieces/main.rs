//! Messages that are longer than a frame, between hosts and from a device on a bad line to a subscriber, in virtual time.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends where its premise fails")]

mod forged;
mod line;
#[path = "../nodes/mod.rs"]
mod nodes;
#[path = "../pipe/mod.rs"]
mod pipe;

use std::time::Duration;

use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::frame::length;
use liner_proto::id::ConnId;
use liner_proto::router::{Event, NodeConfig, Quota, SendError};
use liner_proto::seal;
use liner_proto::wire::record::Mode;
use liner_proto::wire::{self, Body};

use nodes::{Node, cut, link, meet, settle};

const MIB: usize = 1 << 20;

/// A payload that no piece can be missing from, or out of its place in, without a difference.
fn payload(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 11) as u8).collect()
}

fn subscriber(change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut node = Node::start("screen", change);
    node.router.subscribe(node.now, "t");
    node
}

fn short_frames(config: &mut NodeConfig) {
    config.limits.frame_max = 2048;
}

/// A sender that knows its subscriber, and the link between them.
fn pair(
    sender: impl FnOnce(&mut NodeConfig),
    screen: impl FnOnce(&mut NodeConfig),
) -> (Node, Node, (ConnId, ConnId)) {
    let (mut from, mut to) = (Node::start("sender", sender), subscriber(screen));
    let link = meet(&mut from, &mut to);
    (from, to, link)
}

/// One write of the node's: nothing if it has nothing to say.
fn one_write(node: &mut Node, conn: ConnId) -> Vec<u8> {
    node.serve();
    let transmit = node.router.poll_transmit(node.now, conn);
    let bytes = [transmit.head, transmit.body].concat();
    node.router.handle_written(node.now, conn, bytes.len());
    bytes
}

/// The frames of what was written, without their lengths.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Ok(Some(split)) = length::split(bytes, 1 << 27) {
        frames.push(&bytes[split.frame]);
        bytes = &bytes[split.consumed..];
    }
    assert!(bytes.is_empty(), "whole frames are written");
    frames
}

fn is_piece(frame: &[u8]) -> bool {
    matches!(wire::decode(&frame[seal::LEN..]), Ok(Body::Fragment(_)))
}

/// What is too much for one batch of the store is in the next one.
fn send(node: &mut Node, payload: &[u8]) {
    if node.router.send(node.now, "t", payload, Mode::One) == Err(SendError::Busy) {
        node.serve();
        node.router.send(node.now, "t", payload, Mode::One).expect("it is taken");
    }
}

#[test]
fn a_mebibyte_arrives_among_small_messages() {
    for frame_max in [192, 2048, 65_600] {
        let (mut from, mut to, link) = pair(|_| {}, |config| config.limits.frame_max = frame_max);
        let lens = [10, MIB, 20, 30, 65_500, MIB - 1, 0, 70_000, 2000, MIB, 40];
        let all: Vec<_> = lens.iter().zip(1..).map(|(len, seed)| payload(*len, seed)).collect();
        for message in &all {
            send(&mut from, message);
        }
        let (mut longest, mut pieces, mut most) = (0, 0, 0);
        loop {
            let ahead = one_write(&mut from, link.0);
            for frame in frames(&ahead) {
                longest = longest.max(frame.len());
                pieces += usize::from(is_piece(frame));
            }
            let ended = ahead.is_empty();
            to.take(link.1, ahead);
            most = most.max(to.router.assembling());
            to.serve();
            let back = to.give(link.1);
            if ended && back.is_empty() {
                break;
            }
            from.take(link.0, back);
        }
        let got: Vec<_> = to.got.iter().map(|(payload, again)| (payload.clone(), *again)).collect();
        assert!(got == all.iter().map(|payload| (payload.clone(), false)).collect::<Vec<_>>(), "{frame_max}");
        // A piece leaves room for the longest head.
        assert!((frame_max as usize - 4..=frame_max as usize).contains(&longest), "{longest}");
        assert!(pieces > 3 * MIB / frame_max as usize, "{pieces} pieces of {frame_max}");
        assert!((MIB..MIB + 1024).contains(&most), "{most} bytes at most");
        assert_eq!((to.router.assembling(), from.router.held(), from.router.queued()), (0, 0, 0));
    }
}

#[test]
fn limits_are_those_of_the_node_and_not_of_the_peer() {
    let (mut from, mut to, line) = pair(|_| {}, |config| config.limits.message_max = 8 << 20);
    let refused = from.router.send(from.now, "t", &vec![1; MIB + 1], Mode::One);
    assert_eq!(
        refused,
        Err(SendError::TooLarge { max: MIB }),
        "what this node does not take it does not send"
    );
    settle(&mut from, &mut to, line);
    // With larger limits on both sides, and a queue with less memory than a message has.
    let large = |config: &mut NodeConfig| {
        config.limits.message_max = 32 << 20;
        config.queue_bytes = MIB;
    };
    let (mut from, mut to, line) = pair(large, large);
    for seed in 0..3 {
        send(&mut from, &payload(20 << 20, seed));
        settle(&mut from, &mut to, line);
    }
    assert!(to.got.iter().map(|(got, _)| got).eq(&[0, 1, 2].map(|seed| payload(20 << 20, seed))));
}

/// What stands between two pieces arrives between them.
#[test]
fn what_is_urgent_waits_for_one_frame_at_most() {
    let (mut from, mut to, link) = pair(|_| {}, |_| {});
    from.router.subscribe(from.now, "back");
    settle(&mut from, &mut to, link);
    send(&mut from, &payload(MIB, 1));
    // The topic's number stands before the first.
    let first = one_write(&mut from, link.0);
    to.take(link.1, first);
    for _ in 0..3 {
        let piece = one_write(&mut from, link.0);
        assert!(frames(&piece).into_iter().all(is_piece) && piece.len() > 65_000);
        to.take(link.1, piece);
    }
    from.router.send(from.now, "t", b"urgent", Mode::BestEffort).expect("somebody is there");
    to.router.send(to.now, "back", b"other way", Mode::One).expect("it is taken");
    to.serve();
    let back = to.give(link.1);
    from.take(link.0, back);
    from.serve();
    let next = one_write(&mut from, link.0);
    let kinds: Vec<_> =
        frames(&next).into_iter().map(|frame| wire::decode(&frame[seal::LEN..]).expect("whole")).collect();
    assert!(
        matches!(kinds[..], [Body::Marks(_), Body::Data(_), Body::Fragment(_)]),
        "acknowledgements and best-effort messages stand before the next piece"
    );
    to.take(link.1, next);
    assert_eq!((to.got.len(), from.got.len()), (1, 1), "neither waits for the long message");
    settle(&mut from, &mut to, link);
    assert_eq!(to.got.len(), 2);
}

#[test]
fn best_effort_messages_have_one_frame() {
    let (mut from, mut to, link) = pair(|_| {}, short_frames);
    let max = from.router.loose_max();
    let refused = from.router.send(from.now, "t", &vec![1; max + 1], Mode::BestEffort);
    assert_eq!(refused, Err(SendError::TooLarge { max }));
    // It is dropped for whoever takes shorter frames, and ends no session.
    for len in [max, 2030, 2029] {
        from.router.send(from.now, "t", &vec![1; len], Mode::BestEffort).expect("it is tried");
    }
    settle(&mut from, &mut to, link);
    assert_eq!(
        to.got.iter().map(|(payload, _)| payload.len()).collect::<Vec<_>>(),
        [2030, 2029].map(|len| len)
    );
    assert_eq!(from.router.peers_up().count(), 1);
}

#[test]
fn a_session_that_dies_in_the_middle_is_resumed() {
    let (mut from, mut to, mut line) = pair(|_| {}, short_frames);
    let long = payload(MIB, 3);
    send(&mut from, b"before");
    send(&mut from, &long);
    send(&mut from, b"after");
    // Each session gets a bit further.
    for writes in [1, 20, 300] {
        for _ in 0..writes {
            let bytes = one_write(&mut from, line.0);
            to.take(line.1, bytes);
            to.serve();
            let back = to.give(line.1);
            from.take(line.0, back);
        }
        assert!(writes == 1 || to.router.assembling() > writes * 1000, "{}", to.router.assembling());
        cut(&mut from, &mut to, line);
        assert_eq!(to.router.assembling(), 0, "what had arrived goes with the session");
        line = link(&mut from, &mut to);
        from.serve();
        let (hello, answer) = (from.give(line.0), to.give(line.1));
        to.take(line.1, hello);
        from.take(line.0, answer);
        let answer = to.give(line.1);
        from.take(line.0, answer);
    }
    settle(&mut from, &mut to, line);
    assert_eq!(to.got.len(), 3);
    assert!(to.got[1] == (long, false), "nobody has had it before");
    assert_eq!(to.got[2], (b"after".to_vec(), false));
}

#[test]
fn a_restart_finds_long_messages_in_the_store() {
    let (mut from, mut to, line) = pair(|_| {}, short_frames);
    cut(&mut from, &mut to, line);
    let all: Vec<_> = (0..20).map(|seed| payload(if seed % 2 == 0 { MIB } else { 100 }, seed)).collect();
    for message in &all {
        send(&mut from, message);
    }
    from.serve();
    from.restart();
    assert_eq!((from.router.queued(), from.router.held()), (20, 0));
    let line = link(&mut from, &mut to);
    settle(&mut from, &mut to, line);
    assert!(to.got.iter().map(|(payload, _)| payload).eq(&all));
    assert_eq!((from.router.queued(), from.router.held()), (0, 0));
}

/// Sends pieces until half of a long message has arrived.
fn half(from: &mut Node, to: &mut Node, line: (ConnId, ConnId)) {
    while to.router.assembling() < MIB / 2 {
        let bytes = one_write(from, line.0);
        assert!(!bytes.is_empty());
        to.take(line.1, bytes);
    }
}

fn gaps(node: &mut Node) -> Vec<(u64, GapReason)> {
    let gaps = node.events().into_iter().filter_map(|event| {
        if let Event::Gap { count, reason, .. } = event { Some((count, reason)) } else { None }
    });
    gaps.collect()
}

/// A gateway with a small quota for each queue and no room for dead letters of it: the oldest messages are dropped.
#[test]
fn a_message_that_is_dropped_in_the_middle_is_a_gap() {
    let mut gateway = Node::start("gateway", |config| {
        config.takes_custody = true;
        config.queue_quota = Some(Quota { messages: 2, bytes: u64::MAX });
    });
    let mut to = Node::start("screen", short_frames);
    to.router.subscribe(to.now, "t");
    let mut source = Node::start("source", |_| {});
    let up = meet(&mut source, &mut gateway);
    let down = meet(&mut to, &mut gateway);
    // Nobody has looked at the dead letters for a long time.
    for _ in 0..9_002 {
        send(&mut source, b"x");
        source.serve();
    }
    settle_without(&mut source, &mut gateway, up);
    let dropped = gateway.dead().iter().filter(|reason| **reason == DeadReason::Quota).count();
    assert_eq!(dropped, 9_000);
    settle(&mut to, &mut gateway, down);
    let had = to.got.len();
    send(&mut source, &payload(MIB, 1));
    settle_without(&mut source, &mut gateway, up);
    half(&mut gateway, &mut to, (down.1, down.0));
    for small in 0..3 {
        send(&mut source, &[small; 5]);
        settle_without(&mut source, &mut gateway, up);
    }
    let next = one_write(&mut gateway, down.1);
    let kinds: Vec<_> = frames(&next).into_iter().map(|frame| wire::decode(&frame[seal::LEN..])).collect();
    assert!(
        kinds.iter().any(|kind| matches!(kind, Ok(Body::Fragment(piece)) if piece.left == 0)),
        "{kinds:?}"
    );
    to.take(down.0, next);
    assert_eq!(to.router.assembling(), 0, "what had arrived is dropped");
    to.events();
    settle(&mut to, &mut gateway, down);
    let got: Vec<_> = to.got[had..].iter().map(|(payload, _)| payload.clone()).collect();
    assert_eq!(got, [vec![1; 5], vec![2; 5]]);
    assert_eq!(gaps(&mut to), [(2, GapReason::Dropped)]);
}

/// As `settle`, without a word to anybody else.
fn settle_without(from: &mut Node, to: &mut Node, line: (ConnId, ConnId)) {
    settle(from, to, line);
}

#[test]
fn what_shrank_in_the_middle_is_put_aside() {
    let (mut from, mut to, line) = pair(|_| {}, short_frames);
    send(&mut from, &payload(MIB, 1));
    send(&mut from, b"after");
    half(&mut from, &mut to, line);
    cut(&mut from, &mut to, line);
    let mut to = subscriber(|config| config.limits.message_max = 1000);
    let line = link(&mut from, &mut to);
    settle(&mut from, &mut to, line);
    assert_eq!((to.got.len(), from.dead()), (1, vec![DeadReason::TooLarge]));
    assert_eq!(from.store.dead_letters()[0].record.len(), MIB + 3);
    assert_eq!(gaps(&mut to), [(1, GapReason::TooLarge)]);
}

/// A window that is smaller than a message lets it through alone.
#[test]
fn a_small_window_lets_one_whole_message_through() {
    let narrow = |config: &mut NodeConfig| {
        config.limits.frame_max = 2048;
        config.limits.window_bytes = 3000;
    };
    let (mut from, mut to, line) = pair(|_| {}, narrow);
    let all: Vec<_> = (0..12).map(|seed| payload(if seed % 3 == 0 { 300_000 } else { 900 }, seed)).collect();
    for message in &all {
        send(&mut from, message);
    }
    settle(&mut from, &mut to, line);
    assert!(to.got.iter().map(|(payload, _)| payload).eq(&all));
}

/// Topics that the peer keeps no number for are written out in pieces, too.
#[test]
fn custody_takes_and_hands_on_what_is_long() {
    let mut gateway = Node::start("gateway", |config| {
        config.takes_custody = true;
        // What is kept exceeds the memory of its queue.
        config.queue_bytes = 2 * MIB;
    });
    let mut source = Node::start("source", |_| {});
    let up = meet(&mut source, &mut gateway);
    let all: Vec<_> = (0..12).map(|seed| payload(if seed % 2 == 0 { MIB } else { 50 }, seed)).collect();
    for message in &all {
        send(&mut source, message);
    }
    settle(&mut source, &mut gateway, up);
    assert_eq!((source.router.queued(), gateway.router.queued()), (0, 12), "kept for the first subscriber");
    gateway.restart();
    let mut to = Node::start("screen", |config| {
        config.durable = true;
        config.limits.bindings_max = 0;
        config.limits.frame_max = 300;
    });
    to.router.subscribe(to.now, "t");
    let down = meet(&mut to, &mut gateway);
    for _ in 0..30 {
        gateway.pass(Duration::from_millis(1));
        settle(&mut to, &mut gateway, down);
    }
    assert!(to.got.iter().map(|(payload, _)| payload).eq(&all), "{} came", to.got.len());
    assert_eq!((gateway.router.queued(), gateway.router.held()), (0, 0));
}
