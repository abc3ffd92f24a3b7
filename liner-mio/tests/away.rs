//! Stores that are away for a while, whose commits end nobody knows how, and that tell of changes by others.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;
mod server;

use std::time::Duration;

use common::{How, PATIENCE, Party, Patience, heap, listener, run};
use liner_mio::{
    BlockingSendError, Builder, DriveError, Event, Framing, Message, Mode, Node, SendError, SendId, Store,
};
use liner_proto::effect::StoreFault;
use server::{Reply, Server};

fn ignore(_: &Message<'_>) {}

fn sender(to: &Party, store: Box<dyn Store + Send>, how: How) -> Party {
    Party::new(on(how, Node::builder("from").peer(&to.node.listen_addrs()[0].to_string()), store))
}

fn on(how: How, builder: Builder, store: Box<dyn Store + Send>) -> Node {
    match how {
        How::InPlace => builder.store(store),
        How::OnWorker => builder.store_on_worker(store),
    }
    .build()
    .unwrap()
}

/// Drives the node until it cannot go on.
fn failure(party: &mut Party) -> DriveError {
    let patience = Patience::new();
    loop {
        patience.check();
        if let Err(error) = party.node.drive(Some(Duration::from_millis(1)), &mut ignore) {
            return error;
        }
    }
}

// ------------------------------------------------------------------ commits of unknown outcome

fn told(party: &Party) -> Vec<&Event> {
    let of_store = |event: &&Event| matches!(event, Event::StoreFailed(_) | Event::StoreRecovered);
    party.events.iter().filter(of_store).collect()
}

#[test]
fn a_commit_whose_reply_is_lost_loses_and_repeats_nothing() {
    for was_made in [true, false] {
        let mut to = listener("to", "t", How::InPlace);
        let server = Server::default();
        let mut from = sender(&to, server.store(), How::OnWorker);
        run([&mut from, &mut to], |[from, _]| !from.node.peers_up().is_empty());
        for number in 0..200_u16 {
            if number % 20 == 10 {
                server.reply(Reply::Lost { was_made, unavailable: 2 });
            }
            let sent =
                from.node.send_stored("t", &number.to_be_bytes(), Mode::One, PATIENCE, &mut ignore).unwrap();
            assert!(from.node.stored_through() >= sent);
            to.turn();
        }
        run([&mut from, &mut to], |[from, to]| to.seen.len() >= 200 && from.node.is_idle());
        let expected: Vec<_> = (0..200_u16).map(u16::to_be_bytes).collect();
        assert_eq!(to.payloads(), expected, "made: {was_made}");
        assert_eq!(server.resolves(), 30, "made: {was_made}: twice in vain each time");
    }
}

#[test]
fn a_commit_that_nobody_knows_of_for_long_is_told_and_goes_on_when_the_store_is_back() {
    let mut to = listener("to", "t", How::InPlace);
    let server = Server::default();
    let mut from = sender(&to, server.store(), How::OnWorker);
    run([&mut from, &mut to], |[from, _]| !from.node.peers_up().is_empty());
    server.reply(Reply::Lost { was_made: true, unavailable: u32::MAX });
    from.node.send("t", b"first", Mode::One).unwrap();
    let patience = Patience::new();
    run([&mut from, &mut to], |[from, _]| !told(from).is_empty());
    let after = patience.used_up();
    assert!(after >= Duration::from_secs(1), "not before a second: {after:?}");
    assert_eq!(told(&from), [&Event::StoreFailed(StoreFault::Unavailable)]);
    assert_eq!(from.node.store_error().unwrap(), "nobody answers");
    let resolves = server.resolves();
    assert!((3..=30).contains(&resolves), "with pauses: {resolves}");
    // Nothing else is asked of the store, and nothing more is taken.
    assert_eq!(from.node.send("t", b"second", Mode::One), Err(SendError::Unavailable));
    let brief = Duration::from_millis(50);
    let refused = from.node.send_stored("t", b"second", Mode::One, brief, &mut ignore).unwrap_err();
    assert!(matches!(refused, BlockingSendError::NotSent(SendError::Unavailable)), "{refused}");
    assert_eq!(from.node.stored_through(), SendId(0));
    assert!(to.seen.is_empty(), "it leaves after its commit");
    server.answer_again();
    let sent = from.node.send_stored("t", b"second", Mode::One, PATIENCE, &mut ignore).unwrap();
    assert_eq!(sent, SendId(2));
    run([&mut from, &mut to], |[from, to]| to.seen.len() == 2 && from.node.is_idle());
    assert_eq!(to.payloads(), [&b"first"[..], b"second"]);
    assert_eq!(told(&from).last(), Some(&&Event::StoreRecovered));
    assert!(!from.events.iter().any(|event| matches!(event, Event::PeerDown { .. })), "{:?}", from.events);
}

#[test]
fn a_store_that_can_never_say_or_is_lost_ends_the_node() {
    for how in [How::InPlace, How::OnWorker] {
        for fault in [StoreFault::Unknown, StoreFault::Superseded, StoreFault::Regressed] {
            let to = listener("to", "t", How::InPlace);
            let server = Server::default();
            let mut from = sender(&to, server.store(), how);
            server.reply(Reply::Ends(fault));
            from.node.send("t", b"x", Mode::One).unwrap();
            let DriveError::Store { fault: told, said } = failure(&mut from) else { panic!("{fault}") };
            assert_eq!((told, said.as_deref()), (fault, Some("nobody answers")), "{how:?}");
            assert_eq!(server.resolves(), 1);
        }
    }
}

#[test]
fn in_place_the_store_is_asked_once() {
    let mut to = listener("to", "t", How::InPlace);
    let server = Server::default();
    let mut from = sender(&to, server.store(), How::InPlace);
    server.reply(Reply::Lost { was_made: true, unavailable: 0 });
    from.node.send("t", b"x", Mode::One).unwrap();
    run([&mut from, &mut to], |[from, to]| !to.seen.is_empty() && from.node.is_idle());
    assert_eq!(server.resolves(), 1);
    server.reply(Reply::Lost { was_made: true, unavailable: 1 });
    from.node.send("t", b"y", Mode::One).unwrap();
    assert!(matches!(failure(&mut from), DriveError::Store { fault: StoreFault::Unknown, .. }));
    assert_eq!(server.resolves(), 2);
}

#[test]
fn a_node_ends_although_nobody_knows_of_its_commit() {
    let to = listener("to", "t", How::InPlace);
    let server = Server::default();
    let mut from = sender(&to, server.store(), How::OnWorker);
    server.reply(Reply::Lost { was_made: true, unavailable: u32::MAX });
    from.node.send("t", b"x", Mode::One).unwrap();
    run([&mut from], |_| server.resolves() > 2);
    drop(from);
    assert!(server.is_closed());
}

// ------------------------------------------------------------------ word from other nodes

/// A node that hears of changes, and looks at the directory by itself once an hour.
fn hearing(server: &Server) -> Party {
    let hour = Duration::from_secs(3600);
    let builder = Node::builder("n").configure(move |config| config.catalog = config.catalog.and(Some(hour)));
    Party::new(on(How::OnWorker, builder, server.listening_store()))
}

fn known(party: &Party) -> usize {
    party.node.addresses("t").len()
}

#[test]
fn word_of_a_change_makes_rows_known_without_a_look_now_and_then() {
    let server = Server::default();
    let mut node = hearing(&server);
    run([&mut node], |_| server.is_listened_to());
    let before = server.reads();
    server.write_row("t", "127.0.0.1:1", "other");
    run([&mut node], |[node]| known(node) == 1);
    assert_eq!(server.reads(), before + 1);
    run([&mut node], |_| server.is_listened_to());
    server.clear_rows();
    run([&mut node], |[node]| known(node) == 0);
}

#[test]
fn a_request_ends_the_wait_for_word_from_others() {
    let server = Server::default();
    let mut node = hearing(&server);
    server.write_row("t", "127.0.0.1:1", "other");
    run([&mut node], |[node]| known(node) == 1);
    for number in 1..=20 {
        run([&mut node], |_| server.is_listened_to());
        let patience = Patience::new();
        node.node.send_stored("t", b"x", Mode::One, PATIENCE, &mut ignore).unwrap();
        assert!(!patience.used(Duration::from_secs(5)), "request {number} waited for the end of the wait");
    }
}

#[test]
fn the_end_of_a_node_ends_the_wait_for_word_from_others() {
    let server = Server::default();
    let mut node = hearing(&server);
    run([&mut node], |_| server.is_listened_to());
    let patience = Patience::new();
    drop(node);
    assert!(server.is_closed());
    assert!(!patience.used(Duration::from_secs(5)), "the wait was not ended");
}

#[test]
fn many_changes_are_read_together() {
    let server = Server::default();
    let mut node = hearing(&server);
    run([&mut node], |_| server.is_listened_to());
    let before = server.reads();
    for number in 0..2000 {
        server.write_row("t", &format!("127.0.0.1:{}", number + 1), &format!("other-{number}"));
        if number % 100 == 0 {
            node.turn();
        }
    }
    run([&mut node], |[node]| known(node) == 2000);
    let reads = server.reads() - before;
    assert!(reads <= 200, "{reads} reads for 2,000 changes");
}

// ------------------------------------------------------------------ a store that is away

#[test]
fn while_the_store_of_a_receiver_is_away_its_links_stay_and_nothing_is_acknowledged() {
    for how in [How::InPlace, How::OnWorker] {
        let server = Server::default();
        let builder = Node::builder("to").listen("127.0.0.1:0", Framing::Length).subscribe("t");
        let builder = builder.configure(|config| {
            config.durable = true;
            config.timing.keep_alive = Duration::from_millis(50);
            config.timing.peer_silent = Duration::from_millis(300);
        });
        let mut to = Party::new(on(how, builder, server.store()));
        let builder = Node::builder("from").peer(&to.node.listen_addrs()[0].to_string());
        let mut from = Party::new(on(How::InPlace, builder, heap()));
        run([&mut from, &mut to], |[_, to]| !to.node.peers_up().is_empty());
        server.set_down(true);
        for number in 0..20_000_u32 {
            from.node.send("t", &number.to_be_bytes(), Mode::One).unwrap();
        }
        run([&mut from, &mut to], |[_, to]| !told(to).is_empty());
        let acked = from.node.acked_by("to");
        let patience = Patience::new();
        while !patience.used(Duration::from_secs(1)) {
            from.turn();
            to.turn();
        }
        assert_eq!(from.node.acked_by("to"), acked, "{how:?}: it is acknowledged and not stored");
        assert!(to.seen.len() <= 2048, "{how:?}: {} messages and no commit", to.seen.len());
        server.set_down(false);
        run([&mut from, &mut to], |[from, to]| to.seen.len() >= 20_000 && from.node.is_idle());
        assert_eq!(to.seen.len(), 20_000);
        for party in [&from, &to] {
            assert!(!party.events.iter().any(|event| matches!(event, Event::PeerDown { .. })), "{how:?}");
        }
        assert_eq!(told(&to), [&Event::StoreFailed(StoreFault::Unavailable), &Event::StoreRecovered]);
    }
}

#[test]
fn a_store_that_does_not_answer_is_away_until_it_does() {
    let mut to = listener("to", "t", How::InPlace);
    let server = Server::default();
    let builder = Node::builder("from").peer(&to.node.listen_addrs()[0].to_string());
    let builder = builder.configure(|config| config.store_patience = Duration::from_millis(100));
    let mut from = Party::new(on(How::OnWorker, builder, server.store()));
    run([&mut from, &mut to], |[from, _]| !from.node.peers_up().is_empty());
    let hung = server.hang();
    from.node.send("t", b"first", Mode::One).unwrap();
    run([&mut from, &mut to], |[from, _]| !told(from).is_empty());
    assert_eq!(from.node.send("t", b"second", Mode::One), Err(SendError::Unavailable));
    assert!(from.node.send("t", b"loose", Mode::BestEffort).is_ok(), "it needs no store");
    drop(hung);
    run([&mut from, &mut to], |[from, to]| to.seen.len() == 2 && from.node.is_idle());
    assert_eq!(told(&from), [&Event::StoreFailed(StoreFault::Unavailable), &Event::StoreRecovered]);
    assert!(from.node.send("t", b"second", Mode::One).is_ok());
}

#[test]
fn memory_is_bounded_while_the_store_is_away() {
    let to = listener("to", "t", How::InPlace);
    let server = Server::default();
    let mut from = sender(&to, server.store(), How::OnWorker);
    server.set_down(true);
    let (mut taken, patience) = (0, Patience::new());
    while told(&from).is_empty() {
        patience.check();
        taken += u32::from(from.node.send("t", &[1; 1000], Mode::One).is_ok());
        from.turn();
    }
    for _ in 0..1000 {
        assert_eq!(from.node.send("t", &[1; 1000], Mode::One), Err(SendError::Unavailable));
    }
    assert_eq!(from.node.queued(), u64::from(taken));
}
