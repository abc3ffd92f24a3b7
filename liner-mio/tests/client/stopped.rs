//! What is done to a client that does not run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use liner_mio::{Client, Event, KnownAddress, Status, StoppedOnlyError, Store as _, Taken};
use liner_proto::effect::{GapReason, StoreOp};

use super::common::PATIENCE;
use super::{KEPT, Town, next, run, statuses, wait_for};

#[test]
fn m25_what_clears_is_refused_while_it_runs() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let _told = run(&one);
    assert!(matches!(one.clear_stored_messages(), Err(StoppedOnlyError::Running)));
    assert!(matches!(one.clear_addresses_of_topic(), Err(StoppedOnlyError::Running)));
    one.stop().unwrap();
    assert_eq!(one.clear_stored_messages().unwrap(), 0);
    one.clear_addresses_of_topic().unwrap();
}

/// The receiver runs all the time, and remembers the numbers that it has had.
#[test]
fn m14_after_a_clear_the_next_messages_arrive() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    one.configure(|builder| builder.configure(|config| config.mesh_max = 0));
    let news = statuses(&one);
    let told = run(&one);
    let two = town.client("two", &[&one]);
    let dials = Arc::new(AtomicBool::new(true));
    let may_dial = Arc::clone(&dials);
    two.configure(move |builder| {
        let dials = may_dial.load(Ordering::Relaxed);
        builder.configure(move |config| config.dials = dials)
    });
    let answers = run(&two);
    two.send_to("to-one", b"first", KEPT).unwrap();
    assert_eq!(next(&told).2, b"first");
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    two.stop().unwrap();
    drop(answers);

    // Neither dials the other one: what is sent waits.
    dials.store(false, Ordering::Relaxed);
    let answers = run(&two);
    two.send_to("to-one", b"cleared", KEPT).unwrap();
    two.send_to("to-one", b"cleared", KEPT).unwrap();
    two.stop().unwrap();
    drop(answers);
    assert_eq!(two.clear_stored_messages().unwrap(), 2);
    assert_eq!(two.pending_count().unwrap(), 0);

    dials.store(true, Ordering::Relaxed);
    let _answers = run(&two);
    two.send_to("to-one", b"new", KEPT).unwrap();
    assert_eq!(next(&told).2, b"new");
    let gap = Event::Gap { from: "two".into(), count: 2, reason: GapReason::Cleared };
    wait_for(&news, |status| *status == Status::Event(gap.clone()));
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    assert!(told.try_recv().is_err(), "nothing that was cleared came, and nothing twice");
}

/// Marks of the store's rows are no part of an address.
#[test]
fn m01_addresses_are_the_same_whether_it_runs_or_not() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let mut store = town.stores["one"].clone();
    let rows = [("~two.example:2", "two"), ("@dialler", "dialler")];
    let rows = rows.map(|(address, name)| StoreOp::Subscribe { topic: "t", address, name });
    store.apply(&rows).unwrap();
    store.commit().unwrap();
    let away = |address: &str, name: &str| KnownAddress {
        address: address.to_owned(),
        name: name.to_owned(),
        is_up: false,
    };
    let expected = [away("@dialler", "dialler"), away("two.example:2", "two")];
    assert_eq!(one.list_addresses("t").unwrap(), expected);
    let _told = run(&one);
    assert_eq!(one.list_addresses("t").unwrap(), expected);
    one.send_all("t", b"x", KEPT).unwrap();
    let pending = one.pending_by_peer().unwrap();
    let addresses: Vec<&str> = pending.iter().map(|pending| &*pending.address).collect();
    assert_eq!(addresses, ["", "two.example:2"]);
    one.stop().unwrap();
    assert_eq!(one.pending_by_peer().unwrap(), pending);
}

/// Clients and messages go from thread to thread.
const _: fn() = || {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Client>();
    is_shared::<Taken>();
};
