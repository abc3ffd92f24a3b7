//! Running, stopping, and what a callback may call.

use std::sync::Arc;
use std::sync::mpsc::channel;

use liner_mio::{
    Client, ClientSendError, Event, HeapStore, NewClientError, RunError, Status, SubscribeError, Taken,
};

use super::common::PATIENCE;
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
fn m02_a_run_that_fails_leaves_nothing_and_can_be_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let store = HeapStore::new(1 << 20);
    let open = move || Ok::<_, String>(Box::new(store.clone()) as Box<_>);
    let client = Client::new("one", "to-one", &address, open).unwrap();
    let failed = client.run(|_: &Taken| ()).unwrap_err();
    assert!(matches!(failed, RunError::Build(liner_mio::BuildError::AddressInUse { .. })), "{failed}");
    assert!(!client.is_running());
    drop(taken);
    client.run(|_: &Taken| ()).unwrap();
    assert_eq!(client.bound_listen_addr().unwrap(), address);
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

#[test]
fn m04_the_advertised_address_has_the_bound_port() {
    let mut town = Town::default();
    let one = town.client("one", &[]);
    assert!(one.set_advertise_addr(Some("nowhere")).is_err());
    one.set_advertise_addr(Some("gate.example:0")).unwrap();
    let _told = run(&one);
    let port = one.bound_listen_addr().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(one.published_addr().unwrap(), format!("gate.example:{port}"));
    assert!(one.set_advertise_addr(None).is_err(), "not while it runs");
    one.stop().unwrap();
    one.set_advertise_addr(Some("")).unwrap();
    let _told = run(&one);
    assert_eq!(one.published_addr(), one.bound_listen_addr());
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
    let two = town.client("two", &[&one]);
    let _answers = run(&two);
    for topic in ["before", "later"] {
        two.send_to(topic, b"x", KEPT).unwrap();
        assert_eq!(next(&told).0, topic);
    }
    // Toggling while somebody sends: no deadlock, and what is stored arrives or is told.
    std::thread::scope(|scope| {
        let toggling = scope.spawn(|| {
            for _ in 0..50 {
                one.unsubscribe("later").unwrap();
                one.subscribe("later").unwrap();
            }
        });
        while !toggling.is_finished() {
            let _ = two.send_to("later", b"y", KEPT);
        }
    });
    two.send_to("before", b"end", KEPT).unwrap();
    while next(&told).2 != b"end" {}
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
