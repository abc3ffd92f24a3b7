//! Stores that fail for a while, on both sides.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use liner_mio::{Backpressure, Client, ClientSendError, Event, Mode, SendOptions, Status};

use crate::common::{Faulty, PATIENCE, Switch};
use crate::{KEPT, next, run, statuses, wait_for};

/// A client whose store can be made to fail.
fn faulty(name: &str) -> (Client, Arc<Switch>) {
    let (store, switch) = Faulty::with_switch();
    // One is opened to see whether it can be.
    let stores = Mutex::new(vec![store, Faulty::with_switch().0]);
    let open = move || stores.lock().unwrap().pop().ok_or("opened too often");
    (Client::new(name, &format!("to-{name}"), "127.0.0.1:0", open).unwrap(), switch)
}

#[test]
fn m24_traffic_goes_on_when_the_stores_of_both_sides_work_again() {
    let (one, its) = faulty("one");
    let told = run(&one);
    let (two, own) = faulty("two");
    let address = one.bound_listen_addr().unwrap();
    two.configure(move |builder| builder.peer(&address));
    let news = [statuses(&one), statuses(&two)];
    let _answers = run(&two);
    for number in 0..300_u16 {
        if number % 100 == 50 {
            own.fails.store(3, Ordering::Relaxed);
            its.fails.store(3, Ordering::Relaxed);
        }
        match two.send_to("to-one", &number.to_be_bytes(), KEPT) {
            // It is stored later, and must not be sent again.
            Ok(_) | Err(ClientSendError::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    for number in 0..300_u16 {
        assert_eq!(next(&told).2, number.to_be_bytes());
    }
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    assert!(told.try_recv().is_err(), "nothing came twice");
    wait_for(&news[1], |status| matches!(status, Status::Event(Event::StoreFailed(_))));
    wait_for(&news[1], |status| matches!(status, Status::Event(Event::StoreRecovered)));
    wait_for(&news[0], |status| matches!(status, Status::Event(Event::StoreFailed(_))));
    wait_for(&news[0], |status| matches!(status, Status::Event(Event::StoreRecovered)));
}

/// The client's store is away, and the client knows it.
fn away(client: &Client, switch: &Switch) -> std::sync::mpsc::Receiver<Status> {
    let news = statuses(client);
    switch.fails.store(u32::MAX, Ordering::Relaxed);
    let options = SendOptions::new(Mode::One);
    client.post("to-one", b"first", options).unwrap();
    wait_for(&news, |status| matches!(status, Status::Event(Event::StoreFailed(_))));
    news
}

#[test]
fn while_the_store_is_away_calls_wait_for_as_long_as_they_may_and_posts_do_not() {
    let (one, _its) = faulty("one");
    let told = run(&one);
    let (two, own) = faulty("two");
    let address = one.bound_listen_addr().unwrap();
    two.configure(move |builder| builder.peer(&address));
    two.set_backpressure(Backpressure::Block(Duration::from_millis(300)));
    let _answers = run(&two);
    two.send_to("to-one", b"zeroth", KEPT).unwrap();
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    let news = away(&two, &own);
    let options = SendOptions::new(Mode::One);
    assert_eq!(two.post("to-one", b"not sent", options), Err(ClientSendError::Unavailable { sent: 0 }));
    let sent = two.send_to("to-one", b"not sent", KEPT);
    assert_eq!(sent, Err(ClientSendError::Unavailable { sent: 0 }), "it is known not to be stored");
    two.post("to-one", b"loose", SendOptions::new(Mode::BestEffort)).unwrap();
    own.fails.store(0, Ordering::Relaxed);
    wait_for(&news, |status| matches!(status, Status::Event(Event::StoreRecovered)));
    two.send_to("to-one", b"second", KEPT).unwrap();
    let mut got: Vec<Vec<u8>> = Vec::new();
    while got.last().is_none_or(|last| *last != b"second") {
        got.push(next(&told).2);
    }
    got.retain(|payload| *payload != b"loose");
    assert_eq!(got, [&b"zeroth"[..], b"first", b"second"]);
}

#[test]
fn a_call_that_waits_for_a_store_that_is_away_succeeds_when_it_is_back() {
    let (one, _its) = faulty("one");
    let told = run(&one);
    let (two, own) = faulty("two");
    let address = one.bound_listen_addr().unwrap();
    two.configure(move |builder| builder.peer(&address));
    let _answers = run(&two);
    let _news = away(&two, &own);
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| two.send_to("to-one", b"second", KEPT));
        // It may be handed over before or after that: it is stored in either case.
        own.fails.store(0, Ordering::Relaxed);
        sends.join().unwrap().unwrap();
    });
    assert_eq!([next(&told).2, next(&told).2], [b"first".to_vec(), b"second".to_vec()]);
}
