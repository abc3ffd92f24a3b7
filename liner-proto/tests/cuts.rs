//! A link that is cut again and again, long before it is through with what waits.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use liner_proto::delivery::{Next, Outbound, SendMode};
use liner_proto::effect::GapReason;
use liner_proto::id::{ConnId, Epoch};
use liner_proto::memory::{Cursor, Segments};
use liner_proto::router::Message;
use liner_proto::time::Instant;
use liner_proto::wire::record::Mode;
use nodes::{Node, cut, link, meet, settle};

const MESSAGES: u16 = 3000;

/// What passes in each direction before the cut.
const BYTES: usize = 1000;

#[test]
fn a_link_that_passes_a_kilobyte_at_a_time_passes_everything() {
    let mut from = Node::start("from", |_| {});
    let mut to = Node::start("to", |config| config.durable = true);
    to.router.subscribe(to.now, "t");
    let line = link(&mut from, &mut to);
    for number in 0..MESSAGES {
        let mut payload = [7; 100];
        payload[..2].copy_from_slice(&number.to_be_bytes());
        from.router.send(from.now, "t", &payload, Mode::All).expect("there is room");
    }
    from.serve();
    cut(&mut from, &mut to, line);
    let mut sessions = 0;
    while to.got.len() < usize::from(MESSAGES) {
        sessions += 1;
        assert!(sessions < 1500, "{} have arrived over {sessions} links", to.got.len());
        one_link(&mut from, &mut to);
    }
    let seen = to.got.iter().map(|(payload, _)| u16::from_be_bytes([payload[0], payload[1]]));
    assert!(seen.eq(0..MESSAGES), "another order, or again");
}

/// Both sides are given at most [`BYTES`] of what the other one writes.
fn one_link(from: &mut Node, to: &mut Node) {
    let line = link(from, to);
    let mut left = [BYTES; 2];
    let mut unread = [Vec::new(), Vec::new()];
    while left[0] > 0 && left[1] > 0 {
        from.serve();
        to.serve();
        let written = [from.give(line.0), to.give(line.1)];
        if written.iter().all(Vec::is_empty) {
            break;
        }
        for (side, bytes) in written.into_iter().enumerate() {
            let len = bytes.len().min(left[side]);
            left[side] -= len;
            unread[side].extend_from_slice(&bytes[..len]);
        }
        let got = &mut to.got;
        let mut keep =
            |message: &Message<'_>| got.push((message.payload.to_vec(), message.maybe_redelivered));
        let taken = to.router.handle_bytes(to.now, line.1, &mut unread[0], &mut keep);
        unread[0].drain(..taken);
        let taken = from.router.handle_bytes(from.now, line.0, &mut unread[1], &mut |_: &Message<'_>| {});
        unread[1].drain(..taken);
    }
    to.serve();
    cut(from, to, line);
}

/// A sender, and a receiver that hands four messages on at most before a commit, after one that went all the way.
fn after_one_message(mode: SendMode) -> (Node, Node, (ConnId, ConnId)) {
    let mut from = Node::start("from", |config| config.send_mode = mode);
    let mut to = Node::start("to", |config| {
        config.durable = true;
        config.repeat_max = 4;
    });
    to.router.subscribe(to.now, "t");
    let line = meet(&mut from, &mut to);
    from.router.send(from.now, "t", &[0], Mode::All).expect("there is room");
    settle(&mut from, &mut to, line);
    (from, to, line)
}

#[test]
fn what_was_never_handed_on_is_not_marked_as_a_repeat() {
    let (mut from, mut to, line) = after_one_message(SendMode::Stored);
    // On their way, and never read: a process of this node had the first four of them at most.
    for number in 1..20 {
        from.router.send(from.now, "t", &[number], Mode::All).expect("there is room");
    }
    from.serve();
    assert!(!from.give(line.0).is_empty());
    cut(&mut from, &mut to, line);
    to.restart();
    to.router.subscribe(to.now, "t");
    meet(&mut from, &mut to);
    let marked: Vec<u8> = to.got.iter().filter(|(_, again)| *again).map(|(payload, _)| payload[0]).collect();
    assert_eq!((to.got.len(), marked), (20, vec![1, 2, 3, 4]));
}

#[test]
fn a_repeat_behind_a_long_gap_is_marked() {
    let (mut from, mut to, line) = after_one_message(SendMode::Asynchronous);
    cut(&mut from, &mut to, line);
    // What its former self had reserved is a gap of thousands of numbers now.
    from.restart();
    from.router.send(from.now, "t", &[1], Mode::All).expect("its topic is known");
    let line = link(&mut from, &mut to);
    while to.got.len() < 2 {
        from.serve();
        let (ahead, back) = (from.give(line.0), to.give(line.1));
        assert!(!(ahead.is_empty() && back.is_empty()), "{:?}", to.got);
        to.take(line.1, ahead);
        from.take(line.0, back);
    }
    // It is killed before it has committed anything of that.
    from.router.handle_closed(from.now, line.0);
    to.restart();
    to.router.subscribe(to.now, "t");
    meet(&mut from, &mut to);
    assert_eq!(to.got, [(vec![0], false), (vec![1], false), (vec![1], true)]);
}

#[test]
fn a_gap_in_memory_is_dropped_as_a_whole() {
    let mut out = Outbound::new(Segments::new(1 << 16), SendMode::Stored, Epoch(1));
    out.push_gap(5, GapReason::Corrupt);
    out.push(Instant::ZERO, 1, false, |record| record.fill(0x40)).expect("there is room");
    assert!(out.poll_append(1, true, usize::MAX).is_some());
    out.handle_stored(1);
    assert!(out.drop_oldest(GapReason::Dropped));
    let Next::Gap { first: 1, last: 5, .. } = out.next_piece(u64::MAX, usize::MAX) else {
        panic!("{:?}", out.next_piece(u64::MAX, usize::MAX))
    };
    out.advance(Instant::ZERO, Cursor { number: 6, offset: 0 });
    let Next::Run { begin, end, .. } = out.next_piece(u64::MAX, usize::MAX) else { panic!("no message") };
    assert_eq!((begin.number, end.number), (6, 7));
}
