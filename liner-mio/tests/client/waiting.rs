//! What is waited for, for how long, and what comes while a client ends.

#![expect(clippy::disallowed_methods, reason = "how long is waited is what is tested")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use liner_mio::{
    Backpressure, Client, ClientSendError, Event, HeapStore, Mode, Quota, SendOptions, Status, Taken,
};

use super::common::PATIENCE;
use super::running::with_switch;
use super::{KEPT, Town, run, statuses, wait_for};

const ONE: SendOptions = SendOptions::new(Mode::One);

#[test]
fn waits_that_have_nothing_to_wait_for_end_at_once() {
    let open = || Ok::<_, String>(Box::new(HeapStore::new(1 << 20)) as Box<_>);
    let one = Client::new("one", "to-one", "127.0.0.1:0", open).unwrap();
    let _told = run(&one);
    let begun = Instant::now();
    one.flush().unwrap();
    assert!(one.wait_until_acknowledged(Duration::from_secs(3600)).unwrap());
    // Nothing else happens to this client for as long as a flush waits at most.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_wait_for_acknowledgements_ends_in_time_behind_what_has_no_room() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    one.set_queue_quota(Quota { messages: 1, bytes: 1 << 20 });
    one.set_backpressure(Backpressure::Block(Duration::from_secs(3600)));
    one.configure(|builder| builder.peer("127.0.0.1:1"));
    let _told = run(&one);
    for _ in 0..9 {
        one.post("t", b"x", ONE).unwrap();
    }
    assert_eq!(one.pending_count().unwrap(), 1, "the others have no room");
    let begun = Instant::now();
    assert!(!one.wait_until_acknowledged(Duration::from_millis(50)).unwrap());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn what_is_posted_while_a_client_stops_is_stored_or_refused() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    one.configure(|builder| builder.peer("127.0.0.1:1"));
    let mut taken = 0;
    for round in 0..30 {
        let _told = run(&one);
        taken += std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut taken = 0_u64;
                loop {
                    match one.post("t", b"x", ONE) {
                        Ok(()) => taken += 1,
                        Err(ClientSendError::Busy { .. }) => std::thread::yield_now(),
                        Err(error) => {
                            assert_eq!(error, ClientSendError::NotRunning);
                            return taken;
                        }
                    }
                }
            });
            one.stop().unwrap();
            sender.join().unwrap()
        });
        assert_eq!(one.pending_count().unwrap(), taken, "in round {round}");
    }
}

#[test]
fn statuses_of_the_next_run_wait_for_the_callback_of_the_one_before() {
    let (one, switch) = with_switch();
    let one = Arc::new(one);
    let (tell, told) = channel();
    let (go, gone) = channel::<()>();
    let here = Arc::downgrade(&one);
    one.set_status_callback(move |status| {
        if matches!(status, Status::Failed { .. })
            && let Some(one) = here.upgrade()
        {
            one.run(|_: &Taken| ()).unwrap();
            let _ = tell.send(status.clone());
            gone.recv_timeout(PATIENCE).unwrap();
            return;
        }
        let _ = tell.send(status.clone());
    });
    one.run(|_: &Taken| ()).unwrap();
    switch.unknown.store(1, Ordering::Relaxed);
    assert!(one.send_to("t", b"x", KEPT).is_err());
    wait_for(&told, |status| matches!(status, Status::Failed { .. }));
    let mut town = Town::default();
    let two = town.client("two", &[&one]);
    let news = statuses(&two);
    let _answers = run(&two);
    wait_for(&news, |status| matches!(status, Status::Event(Event::PeerUp { .. })));
    assert!(told.try_recv().is_err(), "one call at a time");
    go.send(()).unwrap();
    wait_for(&told, |status| matches!(status, Status::Event(Event::PeerUp { name, .. }) if &**name == "two"));
}

#[test]
fn a_panic_of_a_callback_that_settles_by_hand_is_told() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let news = statuses(&one);
    let mut calls = 0;
    let (tell, told) = channel();
    one.run_unsettled(move |taken| {
        calls += 1;
        assert!(calls > 1, "the first call panics");
        tell.send(taken.payload().to_vec()).unwrap();
        taken.settle();
    })
    .unwrap();
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_to("to-one", b"x", KEPT).unwrap();
    wait_for(
        &news,
        |status| matches!(status, Status::CallbackFailed { from, topic, why } if (&**from, &**topic, &**why) == ("two", "to-one", "it has panicked")),
    );
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"x", "it is called again");
}
