//! Stores that fail for a while, on both sides.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use liner_mio::{Client, ClientSendError, Event, Status};

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
