//! Running, stopping, and what a callback may call.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use liner_mio::{
    Client, ClientSendError, ClientStopError, Event, HeapStore, KnownAddress, NewClientError, RunError,
    SendError, Sent, Status, SubscribeError, Taken,
};
use liner_proto::effect::DeadReason;

use super::common::{Faulty, PATIENCE, Patience, Switch};
use super::{KEPT, Town, next, of, run, statuses, wait_for};

#[test]
fn m26_a_stop_flushes_and_can_be_called_twice_and_run_again() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    assert!(!one.is_running());
    assert!(one.stop().is_ok(), "nothing happens");
    let told = run(&one);
    assert!(one.is_running());
    one.run(|_: &Taken| ()).unwrap();
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_to("to-one", b"a", KEPT).unwrap();
    assert_eq!(next(&told).2, b"a", "the second run changed nothing");
    one.stop().unwrap();
    assert!(!one.is_running());
    assert!(one.bound_listen_addr().is_some() && one.published_addr().is_none());
    assert_eq!(one.send_to("t", b"x", KEPT), Err(ClientSendError::NotRunning));
    two.send_to("to-one", b"b", KEPT).unwrap();
    two.stop().unwrap();
    two.stop().unwrap();
    assert_eq!(two.pending_count().unwrap(), 1, "it is in the store");
    let address = one.bound_listen_addr().unwrap();
    drop(one);
    let one = town.client_at("one", &address);
    let told = run(&one);
    let _answers = run(&two);
    assert_eq!(next(&told).2, b"b");
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
}

#[test]
fn a_callback_may_stop_its_client() {
    let mut town = Town::default();
    let one = Arc::new(town.client("one", &[]));
    let (tell, told) = channel();
    let here = Arc::downgrade(&one);
    one.run(move |taken: &Taken| {
        here.upgrade().unwrap().stop().unwrap();
        tell.send(of(taken)).unwrap();
    })
    .unwrap();
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_to("to-one", b"a", KEPT).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    one.stop().unwrap();
    assert!(!one.is_running());
}

#[test]
fn a_run_after_a_stop_by_the_callback_waits_for_its_end() {
    let mut town = Town::default();
    let one = Arc::new(town.client("one", &[]));
    let (tell, told) = channel();
    let (go, gone) = channel::<()>();
    let here = Arc::downgrade(&one);
    one.run(move |_: &Taken| {
        let one = here.upgrade().unwrap();
        one.stop().unwrap();
        tell.send(one.run(|_: &Taken| ())).unwrap();
        gone.recv_timeout(PATIENCE).unwrap();
    })
    .unwrap();
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_to("to-one", b"a", KEPT).unwrap();
    let refused = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(refused, Err(RunError::Ending)), "the callback waits for nothing: {refused:?}");
    std::thread::scope(|scope| {
        let again = scope.spawn(|| run(&one));
        go.send(()).unwrap();
        let told = again.join().unwrap();
        assert!(one.is_running(), "another run has begun");
        let three = town.client("three", &[&one]);
        let _answers = run(&three);
        three.send_to("to-one", b"b", KEPT).unwrap();
        assert_eq!(next(&told).2, b"b");
    });
}

/// A client whose store can be told to fail, once it runs. It has somebody to send to, who never answers.
pub(super) fn with_switch() -> (Client, Arc<Switch>) {
    let (faulty, switch) = Faulty::with_switch();
    // The first one is opened to see whether it can be.
    let stores = Mutex::new(vec![Faulty::with_switch().0, faulty, Faulty::with_switch().0]);
    let open = move || stores.lock().unwrap().pop().ok_or("opened too often");
    let client = Client::new("one", "to-one", "127.0.0.1:0", open).unwrap();
    client.configure(|builder| builder.peer("127.0.0.1:1"));
    (client, switch)
}

#[test]
fn a_client_that_failed_may_be_run_anew_by_its_status_callback() {
    let (one, switch) = with_switch();
    let one = Arc::new(one);
    let (tell, told) = channel();
    let here = Arc::downgrade(&one);
    one.set_status_callback(move |status| {
        if matches!(status, Status::Failed { .. }) {
            tell.send(here.upgrade().map(|one| one.run(|_: &Taken| ()))).unwrap();
        }
    });
    for _ in 0..2 {
        one.run(|_: &Taken| ()).unwrap();
    }
    switch.unknown.store(1, Ordering::Relaxed);
    assert!(matches!(one.send_to("t", b"x", KEPT), Err(ClientSendError::Unknown { .. })));
    let again = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(again, Some(Ok(()))), "{again:?}");
    assert!(one.is_running());
    assert!(one.send_to("t", b"x", KEPT).is_ok(), "with its next store");
}

#[test]
fn whoever_waits_for_a_loop_that_panics_is_told() {
    let (one, switch) = with_switch();
    let news = statuses(&one);
    let _told = run(&one);
    switch.panics.store(1, Ordering::Relaxed);
    assert!(matches!(one.send_to("t", b"x", KEPT), Err(ClientSendError::Unknown { .. })));
    wait_for(&news, |status| matches!(status, Status::Failed { why } if why.contains("panicked")));
    assert!(matches!(one.stop(), Err(ClientStopError::Panicked)));
    assert!(!one.is_running());
}

#[test]
fn a_status_callback_may_replace_itself() {
    let mut town = Town::default();
    let one = Arc::new(town.client("one", &[]));
    let (tell, told) = channel();
    let here = Arc::downgrade(&one);
    one.set_status_callback(move |_| {
        let tell = tell.clone();
        if let Some(one) = here.upgrade() {
            one.set_status_callback(move |status| tell.send(status.clone()).unwrap_or(()));
        }
    });
    let had = run(&one);
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    two.send_to("to-one", b"x", KEPT).unwrap();
    // The first status came before it: that the sender is there.
    assert_eq!(next(&had).2, b"x");
    two.stop().unwrap();
    wait_for(
        &told,
        |status| matches!(status, Status::Event(Event::PeerDown { name, .. }) if &**name == "two"),
    );
}

#[test]
fn what_makes_no_client_is_told_in_words() {
    let open = || Ok::<_, String>(Box::new(HeapStore::new(1 << 20)) as Box<_>);
    let error = |name: &str, topic: &str, listen: &str| Client::new(name, topic, listen, open).unwrap_err();
    assert!(matches!(error("", "t", "127.0.0.1:0"), NewClientError::Name { .. }));
    assert!(matches!(error("n", "", "127.0.0.1:0"), NewClientError::Topic { .. }));
    assert!(matches!(error("n", "t", ""), NewClientError::Listen));
    let none = || Err::<Box<_>, _>("the disk is gone");
    let error = Client::new("n", "t", "127.0.0.1:0", none).unwrap_err();
    assert_eq!(error.to_string(), "the disk is gone");
}

/// Waits until the client knows just this one of those who take a topic.
fn wait_for_address(client: &Client, topic: &str, address: &str, name: &str) {
    let (address, name) = (address.to_owned(), name.to_owned());
    let wanted = [KnownAddress { address, name, is_up: true }];
    let patience = Patience::new();
    while client.list_addresses(topic).unwrap() != wanted {
        patience.check();
        std::thread::yield_now();
    }
}

#[test]
fn m04_the_advertised_address_has_the_bound_port() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    assert!(one.set_advertise_addr(Some("nowhere")).is_err());
    one.set_advertise_addr(Some("gate.example:0")).unwrap();
    let told = run(&one);
    let port = one.bound_listen_addr().unwrap().rsplit(':').next().unwrap().to_owned();
    let published = format!("gate.example:{port}");
    assert_eq!(one.published_addr().unwrap(), published);
    // Others are told that, wherever they have found it.
    let two = town.client("two", &[&one]);
    let answers = run(&two);
    wait_for_address(&two, "to-one", &published, "one");
    assert!(one.set_advertise_addr(None).is_err(), "not while it runs");
    two.stop().unwrap();
    one.stop().unwrap();
    drop((told, answers));
    one.set_advertise_addr(Some("")).unwrap();
    let _told = run(&one);
    let bound = one.bound_listen_addr().unwrap();
    assert_eq!(one.published_addr().unwrap(), bound);
    let three = town.client("three", &[&one]);
    let _answers = run(&three);
    wait_for_address(&three, "to-one", &bound, "one");
}

/// What a send says if nobody takes its topic.
const NOBODY: Result<Sent, ClientSendError> =
    Err(ClientSendError::Refused { sent: 0, why: SendError::NoAddress });

/// Waits until the client knows somebody who takes a topic, or nobody any more.
fn wait_for_taker(client: &Client, topic: &str, is_taken: bool) {
    let patience = Patience::new();
    while client.list_addresses(topic).unwrap().is_empty() == is_taken {
        patience.check();
        std::thread::yield_now();
    }
}

/// A client that is told by `one` what that takes, and has no peer that would stand in for whoever takes a topic.
fn sender_to(town: &mut Town, one: &Client) -> Client {
    let two = town.client("two", &[]);
    two.add_receiver("to-one", &one.bound_listen_addr().unwrap(), "one");
    two
}

#[test]
fn m07_topics_come_and_go_before_and_while_it_runs() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    assert_eq!(one.subscribe("to-one"), Err(SubscribeError::OwnTopic { topic: "to-one".into() }));
    assert!(one.unsubscribe("to-one").is_err());
    assert!(matches!(one.subscribe(""), Err(SubscribeError::BadTopic { .. })));
    one.subscribe("before").unwrap();
    one.subscribe("given up").unwrap();
    one.unsubscribe("given up").unwrap();
    let told = run(&one);
    one.subscribe("later").unwrap();
    let two = sender_to(&mut town, &one);
    let _answers = run(&two);
    for topic in ["before", "later"] {
        wait_for_taker(&two, topic, true);
        two.send_to(topic, b"x", KEPT).unwrap();
        assert_eq!(next(&told).0, topic);
    }
    // Everything that it takes was told together.
    for send in [Client::send_to, Client::send_all] {
        assert_eq!(send(&two, "given up", b"x", KEPT), NOBODY);
    }
    one.unsubscribe("later").unwrap();
    wait_for_taker(&two, "later", false);
    for send in [Client::send_to, Client::send_all] {
        assert_eq!(send(&two, "later", b"x", KEPT), NOBODY);
    }
    one.subscribe("later").unwrap();
    wait_for_taker(&two, "later", true);
    two.send_to("later", b"again", KEPT).unwrap();
    assert_eq!(next(&told).2, b"again");
}

/// The topic comes and goes all the time, while somebody sends to it as fast as that goes.
#[test]
fn m07_a_topic_that_comes_and_goes_under_load_loses_nothing() {
    const TOGGLES: u32 = 200;
    let mut town = Town::default();
    let one = town.client("one", &[]);
    one.subscribe("later").unwrap();
    let told = run(&one);
    let two = sender_to(&mut town, &one);
    let _answers = run(&two);
    wait_for_taker(&two, "later", true);
    // Five messages are sent at least before it changes again, and twenty at most.
    let (sends, toggles) = (AtomicU32::new(0), AtomicU32::new(0));
    let (mut sent, mut refused) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let toggling = scope.spawn(|| {
            for toggle in 0..TOGGLES {
                let change = if toggle % 2 == 0 { Client::unsubscribe } else { Client::subscribe };
                change(&one, "later").unwrap();
                toggles.fetch_add(1, Ordering::Relaxed);
                let until = sends.load(Ordering::Relaxed) + 5;
                let patience = Patience::new();
                while sends.load(Ordering::Relaxed) < until {
                    patience.check();
                    std::thread::yield_now();
                }
            }
        });
        while !toggling.is_finished() {
            let number = sends.load(Ordering::Relaxed);
            if number >= 20 * (toggles.load(Ordering::Relaxed) + 1) {
                std::thread::yield_now();
                continue;
            }
            match two.send_to("later", &number.to_be_bytes(), KEPT) {
                Ok(_) => sent.push(number),
                refusal if refusal == NOBODY => refused += 1,
                other => panic!("{other:?}"),
            }
            sends.fetch_add(1, Ordering::Relaxed);
        }
        toggling.join().unwrap();
    });
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    let had: Vec<u32> = told.try_iter().map(|told| u32::from_be_bytes(told.2.try_into().unwrap())).collect();
    let letters = [town.letters("one"), town.letters("two")].concat();
    println!("{} sent, {refused} refused, {} had", sent.len(), had.len());
    assert!(!had.is_empty() && refused + letters.len() > 0, "it came, and it went");
    assert!(had.is_sorted_by(|one, other| one < other), "in order, and once");
    assert!(had.iter().all(|number| sent.binary_search(number).is_ok()), "what was refused did not come");
    // What did not arrive is told: by whom it was for, or by who had it queued.
    assert!(letters.iter().all(|reason| *reason == DeadReason::Unsubscribed));
    assert_eq!(had.len() + letters.len(), sent.len());
}

#[test]
fn m22_peers_that_come_and_go_are_told() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    let news = statuses(&one);
    let _told = run(&one);
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    let is_up =
        |status: &Status| matches!(status, Status::Event(Event::PeerUp { name, .. }) if &**name == "two");
    wait_for(&news, is_up);
    two.stop().unwrap();
    let is_down =
        |status: &Status| matches!(status, Status::Event(Event::PeerDown { name, .. }) if &**name == "two");
    wait_for(&news, is_down);
}

/// Whoever has named it as a peer knows what it takes, once they are connected.
#[test]
fn m07_a_peer_that_is_named_is_sent_nothing_that_it_has_given_up() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    one.subscribe("given up").unwrap();
    one.unsubscribe("given up").unwrap();
    one.subscribe("later").unwrap();
    let told = run(&one);
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    wait_for_taker(&two, "later", true);
    two.send_to("later", b"x", KEPT).unwrap();
    assert_eq!(next(&told).0, "later");
    one.unsubscribe("later").unwrap();
    wait_for_taker(&two, "later", false);
    for topic in ["given up", "later"] {
        for send in [Client::send_to, Client::send_all] {
            assert_eq!(send(&two, topic, b"x", KEPT), NOBODY, "{topic}");
        }
    }
}
