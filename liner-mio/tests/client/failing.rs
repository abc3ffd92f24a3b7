//! Callbacks that fail, that panic, and that settle by hand.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use liner_mio::{Event, Failures, Mode, SendOptions, Status, Taken};
use liner_proto::effect::DeadReason;

use super::common::PATIENCE;
use super::{KEPT, Town, next, run, statuses, wait_for};

/// Failures that are quickly over.
fn quick(tries: u32) -> Failures {
    let mut failures = Failures::default();
    failures.tries = tries;
    failures.pause = Duration::from_millis(1);
    failures
}

#[test]
fn m16_a_callback_that_fails_or_panics_is_called_again() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let (tell, told) = channel();
    let mut calls = 0;
    one.set_failures(quick(20));
    one.run(move |taken: &Taken| {
        calls += 1;
        tell.send((taken.payload().to_vec(), taken.message().maybe_redelivered)).unwrap();
        assert_ne!(calls, 2, "the second call panics, as the test wants");
        if calls < 3 { Err("not yet") } else { Ok(()) }
    })
    .unwrap();
    let news = statuses(&one);
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_many("to-one", [b"a", b"b"], SendOptions::new(Mode::One)).unwrap();
    let had: Vec<_> = (0..4).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    let a = |again| (b"a".to_vec(), again);
    assert_eq!(
        had,
        [a(false), a(true), a(true), (b"b".to_vec(), false)],
        "the second one waits for the first"
    );
    wait_for(&news, |status| matches!(status, Status::CallbackFailed { why, .. } if &**why == "not yet"));
    wait_for(
        &news,
        |status| matches!(status, Status::CallbackFailed { why, .. } if why.contains("panicked")),
    );
}

/// What a callback may panic with.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a panic's payload panics when it is dropped, as the test wants");
    }
}

#[test]
fn m16_a_callback_is_called_again_whatever_it_panics_with() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let (tell, told) = channel();
    let mut calls = 0;
    one.set_failures(quick(20));
    one.run(move |taken: &Taken| {
        calls += 1;
        tell.send(taken.payload().to_vec()).unwrap();
        if calls == 1 {
            std::panic::panic_any(Bomb);
        }
    })
    .unwrap();
    one.set_status_callback(|_| std::panic::panic_any(Bomb));
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_many("to-one", [b"a", b"b"], SendOptions::new(Mode::One)).unwrap();
    let had: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(had, [b"a", b"a", b"b"]);
    one.stop().unwrap();
}

#[test]
fn m16_a_message_that_fails_too_often_becomes_a_dead_letter_and_the_stream_goes_on() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let news = statuses(&one);
    let (tell, told) = channel();
    one.set_failures(quick(3));
    one.run(move |taken: &Taken| {
        tell.send(taken.payload().to_vec()).unwrap();
        if taken.payload() == b"bad" { Err("never") } else { Ok(()) }
    })
    .unwrap();
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    let payloads: [&[u8]; 2] = [b"bad", b"good"];
    two.send_many("to-one", payloads, SendOptions::new(Mode::One)).unwrap();
    let had: Vec<_> = (0..4).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(had, [&b"bad"[..], b"bad", b"bad", b"good"]);
    let failed = |status: &Status| {
        matches!(status, Status::Event(Event::DeadLetter { reason: DeadReason::Failed, count: 1, .. }))
    };
    wait_for(&news, failed);
    one.stop().unwrap();
    assert_eq!(town.letters("one"), [DeadReason::Failed]);
}

#[test]
fn a_stream_that_halts_stops_nobody_else() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let news = statuses(&one);
    let (tell, told) = channel();
    let mut failures = quick(2);
    failures.halts = true;
    one.set_failures(failures);
    one.run(move |taken: &Taken| {
        tell.send(taken.payload().to_vec()).unwrap();
        if taken.payload() == b"bad" { Err("never") } else { Ok(()) }
    })
    .unwrap();
    let (two, three) = (town.client("two", &[&one]), town.client("three", &[&one]));
    let (_answers, _more) = (run(&two), run(&three));
    let payloads: [&[u8]; 2] = [b"bad", b"behind"];
    two.send_many("to-one", payloads, SendOptions::new(Mode::One)).unwrap();
    wait_for(&news, |status| matches!(status, Status::Halted { from, .. } if &**from == "two"));
    three.send_to("to-one", b"good", KEPT).unwrap();
    let had: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(had, [&b"bad"[..], b"bad", b"good"]);
    let address = one.bound_listen_addr().unwrap();
    drop(one);
    assert!(town.letters("one").is_empty());
    let one = town.client_at("one", &address);
    let told = run(&one);
    assert_eq!((next(&told).2, next(&told).2), (b"bad".to_vec(), b"behind".to_vec()), "nothing is lost");
}

#[test]
fn m16_messages_are_settled_by_hand_in_any_order() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let (hand, out) = channel();
    one.set_failures(quick(20));
    let hand = Mutex::new(hand);
    one.run_unsettled(move |taken| hand.lock().unwrap().send(taken).unwrap()).unwrap();
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_many("to-one", [b"a", b"b", b"c", b"d"], SendOptions::new(Mode::One)).unwrap();
    let mut taken: Vec<Taken> = (0..4).map(|_| out.recv_timeout(PATIENCE).unwrap()).collect();
    let payload = |taken: &Taken| taken.payload().to_vec();
    assert_eq!(taken.iter().map(payload).collect::<Vec<_>>(), [b"a", b"b", b"c", b"d"], "all are out");
    let (d, c) = (taken.pop().unwrap(), taken.pop().unwrap());
    c.settle();
    d.put_aside();
    // One that is dropped without a word has failed.
    drop(taken.pop());
    let again = out.recv_timeout(PATIENCE).unwrap();
    assert_eq!((payload(&again), again.failures()), (b"b".to_vec(), 1));
    again.settle();
    assert_eq!(two.pending_count().unwrap(), 4, "the first one holds the others up");
    taken.pop().unwrap().settle();
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    one.stop().unwrap();
    assert_eq!(town.letters("one"), [DeadReason::Failed]);
}
