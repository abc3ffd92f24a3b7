//! Sends that wait, and sends that do not.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use liner_mio::{
    Backpressure, Class, Client, ClientSendError, ClientStopError, Event, HeapStore, Mode, Quota, SendError,
    SendMode, SendOptions, Status, Taken,
};

use super::common::{Faulty, PATIENCE};
use super::running::with_switch;
use super::{KEPT, Town, next, of, run, statuses, wait_for};

#[test]
fn a_message_arrives_and_its_answer_too() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let told = run(&one);
    let two = Arc::new(town.client("two", &[&one]));
    let back = Arc::downgrade(&two);
    let (tell, answers) = channel();
    two.run(move |taken: &Taken| {
        tell.send(of(taken)).unwrap();
        back.upgrade().map(|two| two.send_to("to-one", b"thanks", KEPT));
    })
    .unwrap();
    two.send_to("to-one", b"hello", KEPT).unwrap();
    assert_eq!(next(&told), ("to-one".into(), "two".into(), b"hello".to_vec(), false));
    one.send_to("to-two", b"good day", KEPT).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().2, b"good day");
    assert_eq!(next(&told).2, b"thanks", "a callback may send");
}

/// Two clients that send every message back with a blocking send in the callback: short here, the long form by the variable.
#[test]
fn bar_8_callbacks_that_echo_with_blocking_sends_never_deadlock() {
    let rounds: u32 = std::env::var("LINER_ECHOES").map_or(4_000, |text| text.parse().unwrap());
    let mut town = Town::default();
    let one = Arc::new(town.client("one", &[]));
    let (tell, done) = channel();
    let here = Arc::downgrade(&one);
    one.run(move |taken: &Taken| {
        let number = u32::from_le_bytes(taken.payload().try_into().unwrap());
        if number >= rounds {
            tell.send(number).unwrap();
            return Ok(());
        }
        let one = here.upgrade().ok_or(ClientSendError::NotRunning)?;
        one.send_to("to-two", &(number + 1).to_le_bytes(), KEPT).map(|_| ())
    })
    .unwrap();
    let two = Arc::new(town.client("two", &[&one]));
    let there = Arc::downgrade(&two);
    two.run(move |taken: &Taken| {
        let two = there.upgrade().ok_or(ClientSendError::NotRunning)?;
        two.send_to("to-one", taken.payload(), KEPT).map(|_| ())
    })
    .unwrap();
    // Sixteen are under way at a time, so that both callbacks are in a send again and again.
    for _ in 0..16 {
        two.send_to("to-one", &0u32.to_le_bytes(), KEPT).unwrap();
    }
    for _ in 0..16 {
        done.recv_timeout(PATIENCE.max(Duration::from_millis(u64::from(rounds) * 20))).unwrap();
    }
}

#[test]
fn what_is_posted_is_stored_by_the_flush() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let told = run(&one);
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    let options = SendOptions::new(Mode::One);
    for number in 0..1000u32 {
        two.post("to-one", &number.to_le_bytes(), options).unwrap();
    }
    two.flush().unwrap();
    for number in 0..1000u32 {
        assert_eq!(next(&told).2, number.to_le_bytes(), "in order");
    }
    two.subscribe("own").unwrap();
    two.post("own", b"to nobody else", options).unwrap();
    let refused = Err(ClientSendError::Refused { sent: 0, why: SendError::OwnTopic });
    assert_eq!(two.post("to-two", b"to itself", options), refused);
    assert_eq!(two.flush(), refused, "what was refused is told by the flush");
    assert_eq!(two.flush(), Ok(()), "once");
}

#[test]
fn m21_what_can_never_be_sent_is_refused_at_once() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let refused = |sent: usize, why| Err(ClientSendError::Refused { sent, why });
    assert_eq!(one.send_to("t", b"x", KEPT), Err(ClientSendError::NotRunning));
    assert_eq!(one.flush(), Err(ClientSendError::NotRunning));
    let _told = run(&one);
    assert_eq!(one.send_to("to-one", b"x", KEPT), refused(0, SendError::OwnTopic));
    assert_eq!(one.send_to("t", b"", KEPT), Err(ClientSendError::Empty));
    assert_eq!(one.send_to("", b"x", KEPT), refused(0, SendError::BadTopic));
    assert_eq!(one.send_to("t", b"x", KEPT), refused(0, SendError::NoAddress));
    assert_eq!(one.send_all("t", b"x", KEPT), refused(0, SendError::NoAddress));
    let max = 1024 * 1024;
    let huge = vec![1; max + 1];
    assert_eq!(one.send_to("t", &huge, KEPT), refused(0, SendError::TooLarge { max }));
}

#[test]
fn several_messages_say_how_many_of_them_were_sent() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let told = run(&one);
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    let huge = vec![1; 1024 * 1024 + 1];
    let payloads: [&[u8]; 3] = [b"a", b"b", &huge];
    let error = two.send_many("to-one", payloads, SendOptions::new(Mode::One)).unwrap_err();
    assert_eq!(error.sent(), 2);
    assert_eq!((next(&told).2, next(&told).2), (b"a".to_vec(), b"b".to_vec()));
    let sent = two.send_many("to-one", [b"c", b"d"], SendOptions::new(Mode::One)).unwrap();
    assert_eq!(sent.id.0, 4);
}

#[test]
fn what_is_told_before_it_is_stored_survives_nothing() {
    for (mode, class) in [(SendMode::Stored, Class::Power), (SendMode::Asynchronous, Class::Ram)] {
        let store = HeapStore::new(1 << 20).with_class(Class::Power);
        let open = move || Ok::<_, String>(Box::new(store.clone()) as Box<_>);
        let one = Client::new("one", "to-one", "127.0.0.1:0", open).unwrap();
        one.configure(move |builder| builder.peer("127.0.0.1:1").send_mode(mode));
        let _told = run(&one);
        assert_eq!(one.send_to("t", b"x", KEPT).unwrap().class, class);
    }
}

#[test]
fn m26_a_stop_stores_what_was_posted_before_it() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    one.configure(|builder| builder.peer("127.0.0.1:1").configure(|config| config.queue_bytes = 4096));
    let _told = run(&one);
    for _ in 0..20_000 {
        one.post("t", &[7; 100], SendOptions::new(Mode::One)).unwrap();
    }
    one.stop().unwrap();
    assert_eq!(one.pending_count().unwrap(), 20_000);
    // What finds no room is told.
    let (one, two) = bounded(&mut town, 1, Backpressure::Refuse);
    let _answers = run(&two);
    one.stop().unwrap();
    for _ in 0..2 {
        two.post("to-one", b"x", SendOptions::new(Mode::One)).unwrap();
    }
    let refused = two.stop();
    assert!(
        matches!(refused, Err(ClientStopError::Posted(ClientSendError::Busy { sent: 0 }))),
        "{refused:?}"
    );
    assert_eq!(two.stop().map_err(|error| error.to_string()), Ok(()), "once");
}

#[test]
fn what_was_sent_before_an_error_is_stored_when_the_error_is_told() {
    use std::sync::atomic::Ordering;
    let (one, switch) = with_switch();
    one.set_patience(Duration::from_millis(100));
    let _told = run(&one);
    let huge = vec![1; 1024 * 1024 + 1];
    let payloads: [&[u8]; 2] = [b"a", &huge];
    let options = SendOptions::new(Mode::One);
    switch.is_full.store(true, Ordering::Relaxed);
    switch.fails.store(u32::MAX, Ordering::Relaxed);
    let sent = one.send_many("t", payloads, options);
    // How many are queued is told, as the others were not.
    assert!(matches!(sent, Err(ClientSendError::Unknown { sent: 1, .. })), "{sent:?}");
    // Nothing more is taken by a store that has no room.
    assert_eq!(one.post("t", b"b", options), Err(ClientSendError::Full { sent: 0 }));
    assert_eq!(one.send("t", b"b", options), Err(ClientSendError::Full { sent: 0 }));
    for _ in 0..2 {
        let flushed = one.flush();
        assert!(matches!(flushed, Err(ClientSendError::Unknown { sent: 0, .. })), "{flushed:?}");
    }
    switch.fails.store(0, Ordering::Relaxed);
    one.set_patience(PATIENCE);
    // Each waits for as long as the run has patience, which may be less than the store's next try is away.
    let tries = (0..100)
        .map(|_| one.send("t", b"b", options))
        .find(|sent| *sent != Err(ClientSendError::Full { sent: 0 }));
    assert!(matches!(tries, Some(Ok(_))), "{tries:?}");
    one.post("t", &huge, options).unwrap();
    let told = one.stop();
    let refused = matches!(&told, Err(ClientStopError::Posted(ClientSendError::Refused { .. })));
    assert!(refused, "what no flush has told: {told:?}");
}

/// A client that has nowhere to send to yet, with room for so many messages.
fn bounded(town: &mut Town, messages: u64, backpressure: Backpressure) -> (Client, Client) {
    let one = town.client("one", &[]);
    let _ = run(&one);
    let two = town.client("two", &[&one]);
    two.set_backpressure(backpressure);
    two.set_queue_quota(Quota { messages, bytes: 1 << 20 });
    (one, two)
}

#[test]
fn m20_a_full_queue_refuses_or_is_waited_for() {
    let mut town = Town::default();
    let (one, two) = bounded(&mut town, 3, Backpressure::Refuse);
    let news = statuses(&two);
    let _answers = run(&two);
    one.stop().unwrap();
    for _ in 0..3 {
        two.send_to("to-one", b"x", KEPT).unwrap();
    }
    assert_eq!(two.send_to("to-one", b"x", KEPT), Err(ClientSendError::Busy { sent: 0 }));
    wait_for(&news, |status| matches!(status, Status::Busy { topic } if &**topic == "to-one"));
    assert_eq!(two.pending_count().unwrap(), 3);
    two.stop().unwrap();
    // Somebody makes room while it is waited for.
    two.set_backpressure(Backpressure::Block(Duration::from_secs(3600)));
    let _answers = run(&two);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| two.send_to("to-one", b"y", KEPT));
        let address = one.bound_listen_addr().unwrap();
        drop(one);
        let again = town.client_at("one", &address);
        let told = run(&again);
        for _ in 0..3 {
            assert_eq!(next(&told).2, b"x");
        }
        assert_eq!(next(&told).2, b"y");
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn m20_the_oldest_makes_way_and_is_counted() {
    let mut town = Town::default();
    let (one, two) = bounded(&mut town, 3, Backpressure::DropOldest);
    let news = statuses(&two);
    let _answers = run(&two);
    let address = one.bound_listen_addr().unwrap();
    drop(one);
    for number in 1..=5u8 {
        two.send_to("to-one", &[number], KEPT).unwrap();
    }
    let mut dropped = 0;
    while dropped < 2 {
        let status = wait_for(&news, |status| matches!(status, Status::Event(Event::Dropped { .. })));
        if let Status::Event(Event::Dropped { count, .. }) = status {
            dropped += count;
        }
    }
    let again = town.client_at("one", &address);
    let gaps = statuses(&again);
    let told = run(&again);
    let had = [next(&told).2, next(&told).2, next(&told).2];
    assert_eq!(had, [[3], [4], [5]]);
    wait_for(&gaps, |status| matches!(status, Status::Event(Event::Gap { count: 2, .. })));
}

#[test]
fn m20_a_queue_is_bounded_by_bytes_too() {
    let mut town = Town::default();
    let (one, two) = bounded(&mut town, u64::MAX, Backpressure::Refuse);
    two.set_queue_quota(Quota { messages: u64::MAX, bytes: 10_000 });
    let _answers = run(&two);
    let address = one.bound_listen_addr().unwrap();
    drop(one);
    // Each record is some bytes longer than its payload: the tenth reaches the bound.
    for number in 0..10 {
        two.send_to("to-one", &[number; 1000], KEPT).unwrap();
    }
    for payload in [&[10; 1000][..], b"x"] {
        assert_eq!(two.send_to("to-one", payload, KEPT), Err(ClientSendError::Busy { sent: 0 }));
    }
    let again = town.client_at("one", &address);
    let told = run(&again);
    assert!((0..10).all(|number| next(&told).2 == [number; 1000]));
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    two.send_to("to-one", &[10; 1000], KEPT).unwrap();
    assert_eq!(next(&told).2, [10; 1000]);
}

#[test]
fn m20_waiting_for_room_has_an_end() {
    let mut town = Town::default();
    let (one, two) = bounded(&mut town, 1, Backpressure::Block(Duration::from_millis(50)));
    let _answers = run(&two);
    one.stop().unwrap();
    two.send_to("to-one", b"x", KEPT).unwrap();
    assert_eq!(two.send_to("to-one", b"x", KEPT), Err(ClientSendError::Busy { sent: 0 }));
}

#[test]
fn what_is_posted_and_finds_no_room_is_bounded() {
    let mut town = Town::default();
    let (one, two) = bounded(&mut town, 1, Backpressure::Block(Duration::from_secs(3600)));
    let _answers = run(&two);
    one.stop().unwrap();
    let options = SendOptions::new(Mode::One);
    let taken = (0..200_000).take_while(|_| two.post("to-one", b"x", options).is_ok()).count();
    assert!((65_536..=65_537).contains(&taken), "65,536 wait besides the one that is queued: {taken}");
    assert_eq!(two.post("to-one", b"x", options), Err(ClientSendError::Busy { sent: 0 }));
    let stopped = two.stop();
    assert!(matches!(stopped, Err(ClientStopError::Posted(_))), "it is told that they are lost: {stopped:?}");
    let _answers = run(&two);
    assert_eq!(two.post("to-one", b"x", options), Ok(()));
}

#[test]
fn m12_what_the_store_does_not_take_is_kept_and_told() {
    use std::sync::atomic::Ordering;
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let told = run(&one);
    let (faulty, switch) = Faulty::with_switch();
    let faulty = std::sync::Mutex::new(vec![faulty, Faulty::with_switch().0]);
    let open = move || faulty.lock().unwrap().pop().ok_or("opened too often");
    let two = Client::new("two", "to-two", "127.0.0.1:0", open).unwrap();
    let address = one.bound_listen_addr().unwrap();
    two.configure(move |builder| builder.peer(&address));
    two.set_patience(Duration::from_millis(200));
    let news = statuses(&two);
    let _answers = run(&two);
    two.send_to("to-one", b"w", KEPT).unwrap();
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    assert_eq!(next(&told).2, b"w");
    // Nothing else has to be stored.
    switch.fails.store(u32::MAX, Ordering::Relaxed);
    let sent = two.send_to("to-one", b"x", KEPT);
    assert!(matches!(sent, Err(ClientSendError::Unknown { .. })), "{sent:?}");
    wait_for(&news, |status| matches!(status, Status::Event(Event::StoreFailed(_))));
    assert!(told.try_recv().is_err(), "nothing leaves that is not stored");
    switch.fails.store(0, Ordering::Relaxed);
    assert_eq!(next(&told).2, b"x", "it is stored when the store works again");
    wait_for(&news, |status| matches!(status, Status::Event(Event::StoreRecovered)));
}
