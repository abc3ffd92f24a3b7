//! The two ends of a stream against what stores and peers may say, without a session.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use liner_proto::config::Limits;
use liner_proto::delivery::{Inbound, Next, Outbound, Remembered, Resumed, SendMode, Violation};
use liner_proto::id::Epoch;
use liner_proto::memory::Segments;
use liner_proto::planted::Planted;
use liner_proto::time::Instant;
use liner_proto::wire::handshake::Known;
use liner_proto::wire::record::GapReason;

const NOW: Instant = Instant::ZERO;
const EPOCH: Epoch = Epoch(7);
const ANY: usize = usize::MAX;

fn push(out: &mut Outbound<Segments>, text: &[u8]) -> u64 {
    out.push(NOW, text.len(), false, |room| room.copy_from_slice(text)).expect("room")
}

/// What the store is asked to append is appended.
fn store(out: &mut Outbound<Segments>, batch: u64) {
    while let Some(emission) = out.owed_emission(true) {
        out.emitted(batch, emission);
    }
    while out.poll_append(batch, true, ANY).is_some() {}
    out.handle_trimmed(batch);
    out.handle_stored(batch);
}

/// What the wire is given next: the numbers, and whether it is a gap.
fn send(out: &mut Outbound<Segments>, limit: u64) -> Option<(u64, u64, bool)> {
    let (first, end, gap) = match out.next_piece(limit, ANY) {
        Next::Nothing | Next::Load { .. } => return None,
        Next::Gap { first, last, .. } => {
            (first, liner_proto::memory::Cursor { number: last + 1, offset: 0 }, true)
        }
        Next::Run { begin, end, .. } => (begin.number, end, false),
    };
    out.advance(NOW, end);
    Some((first, end.number - 1, gap))
}

fn restored(last: u64) -> Outbound<Segments> {
    let queue = Remembered { epoch: EPOCH, predecessor: None, trimmed: 0, dropped: None, last, reserved: 0 };
    Outbound::restore(Segments::new(1 << 20), SendMode::Stored, &queue, false)
}

#[test]
fn a_cursor_above_what_was_ever_sent_is_a_regression() {
    // The store is an older copy, and new messages were queued before the peer was met.
    let mut out = restored(10);
    for _ in 0..5 {
        push(&mut out, b"new");
    }
    store(&mut out, 1);
    assert_eq!(out.resume(NOW, Some(Known { epoch: EPOCH, cursor: 12 })), Resumed::Regressed);
    // In the new epoch the old cursor speaks for the ten old numbers only.
    let predecessor = out.rotate(Epoch(8));
    assert_eq!(predecessor.translate(12), 10);
    assert_eq!(out.resume(NOW, Some(Known { epoch: EPOCH, cursor: 12 })), Resumed::Continued);
    assert_eq!((out.acked(), out.queued()), (10, 5));
}

#[test]
fn a_damaged_record_takes_nothing_below_it_along() {
    let mut out = restored(6);
    out.resume(NOW, None);
    let records = b"\x01a\x01b\x01c";
    assert_eq!(out.next_piece(9, ANY), Next::Load { after: 0 });
    out.handle_loaded(1, 3, records).expect("room");
    assert_eq!(send(&mut out, 9), Some((1, 3, false)));
    // 4 is damaged; 1 to 3 are on their way, and are sent again if the link breaks.
    assert_eq!(out.next_piece(9, ANY), Next::Load { after: 3 });
    out.handle_lost(4, 4, GapReason::Corrupt);
    assert_eq!(out.next_piece(9, ANY), Next::Nothing, "not asked for again before 3 is acknowledged");
    out.handle_link_down();
    out.resume(NOW, Some(Known { epoch: EPOCH, cursor: 1 }));
    assert_eq!(send(&mut out, 9), Some((2, 3, false)));
    out.handle_marks(NOW, 3, 3).expect("sent");
    assert_eq!(out.next_piece(9, ANY), Next::Load { after: 3 });
    out.handle_lost(4, 4, GapReason::Corrupt);
    assert_eq!(send(&mut out, 9), Some((4, 4, true)));
}

#[test]
fn what_follows_a_gap_keeps_its_numbers() {
    let mut out = Outbound::new(Segments::new(1 << 20), SendMode::Stored, EPOCH);
    for text in [b"@1", b"@2", b"@3"] {
        push(&mut out, text);
    }
    store(&mut out, 1);
    assert!(out.drop_oldest(GapReason::Dropped));
    assert_eq!(send(&mut out, 9), Some((1, 1, true)));
    let Next::Run { begin, bytes, .. } = out.next_piece(9, ANY) else { panic!("the rest is in memory") };
    assert_eq!((begin.number, bytes), (2, &b"\x02@2\x02@3"[..]));
}

#[test]
fn the_asynchronous_mode_reads_back_what_left_memory_at_its_end() {
    let text = [b'x'; 20_000];
    let mut out = Outbound::new(Segments::new(50_000), SendMode::Asynchronous, EPOCH);
    for batch in 1..=4 {
        push(&mut out, &text);
        store(&mut out, batch);
    }
    // A page of the middle is read back, and takes the place of the end.
    out.resume(NOW, None);
    assert_eq!(send(&mut out, 9), Some((1, 1, false)));
    assert_eq!(out.next_piece(9, ANY), Next::Load { after: 1 });
    let page = [&[0xa0, 0x9c, 0x01][..], &text].concat();
    out.handle_loaded(2, 2, &page).expect("room");
    assert_eq!(send(&mut out, 9), Some((2, 2, false)));
    assert_eq!(out.next_piece(9, ANY), Next::Load { after: 2 });
}

#[test]
fn numbers_have_an_end() {
    let mut inbound = Inbound::new(&Limits::HOST, Planted::NONE);
    assert_eq!(inbound.handle_arrival(1, u64::MAX, 5), Err(Violation::Range));
    assert_eq!(inbound.handle_arrival(1, 0, 5), Err(Violation::Range));
    assert_eq!(inbound.received(), 0);
}

#[test]
fn a_gap_waits_for_the_window() {
    let mut out = restored(3);
    out.resume(NOW, None);
    out.handle_lost(1, 3, GapReason::Missing);
    assert_eq!(out.next_piece(0, ANY), Next::Nothing);
    assert_eq!(send(&mut out, 1), Some((1, 3, true)));
}
