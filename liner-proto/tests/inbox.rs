//! A node whose messages go into its store's inbox: each is there once, in its order, whatever dies meanwhile; and a full inbox keeps
//! peers waiting without a loss.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use core::time::Duration;

use liner_proto::effect::{DeadReason, InboxHeld};
use liner_proto::id::{Class, ConnId};
use liner_proto::rng::Rng;
use liner_proto::router::{Event, Quota, SendError, StoreRequest};
use liner_proto::store::{Delivered, HeapStore, Store as _};
use liner_proto::wire::handshake::Acks;
use liner_proto::wire::record::Mode;

mod nodes;
use nodes::*;

const QUOTA: Quota = Quota { messages: 10, bytes: 1 << 20 };

/// A node with an inbox that takes "t".
fn receiver(quota: Quota) -> Node {
    let mut node = Node::start("receiver", |config| {
        config.inbox = Some(quota);
        config.durable = true;
    });
    node.store = HeapStore::new(1 << 24).with_inbox();
    node.restart();
    node.router.subscribe(node.now, "t");
    node
}

fn reborn(node: &mut Node) {
    node.restart();
    node.router.subscribe(node.now, "t");
}

fn sender() -> Node {
    Node::start("sender", |_| {})
}

/// Sends a message that is its own number.
fn send(from: &mut Node, number: u64) {
    let sent = from.router.send(from.now, "t", &number.to_be_bytes(), Mode::One);
    sent.map(drop).expect("there is room");
}

fn number(delivered: &Delivered) -> u64 {
    u64::from_be_bytes(delivered.payload[..].try_into().expect("eight bytes"))
}

/// What the application takes, all there is.
fn take_all(node: &mut Node) -> Vec<Delivered> {
    let taken = core::iter::from_fn(|| node.store.take_delivered()).collect();
    node.router.handle_taken(node.now);
    taken
}

fn numbers(taken: &[Delivered]) -> Vec<u64> {
    taken.iter().map(number).collect()
}

fn held(node: &mut Node) -> u64 {
    node.store.inbox().expect("in memory").expect("it has one").messages
}

#[test]
fn messages_go_into_the_inbox_and_not_to_the_application() {
    let (mut receiver, mut sender) = (receiver(QUOTA), sender());
    meet(&mut sender, &mut receiver);
    assert_eq!(sender.router.acks_of("receiver"), Some(Acks::Ram), "nobody has dealt with them yet");
    let line = meet(&mut sender, &mut receiver);
    (1..=5).for_each(|number| send(&mut sender, number));
    let loose = sender.router.send(sender.now, "t", b"now or never", Mode::BestEffort);
    assert!(loose.is_ok());
    settle(&mut sender, &mut receiver, line);
    assert!(sender.router.is_idle());
    assert_eq!(receiver.got, [(b"now or never".to_vec(), false)], "it has no number, and no place there");
    assert_eq!(receiver.router.delivered(), 5);
    let taken = take_all(&mut receiver);
    assert_eq!(numbers(&taken), [1, 2, 3, 4, 5]);
    let first = taken.first().expect("five");
    assert_eq!((&*first.from, &*first.topic, first.number, first.mode), ("sender", "t", 1, Mode::One));
    assert!(!first.epoch.is_none() && !first.maybe_redelivered);
}

/// The acknowledgements stand for the store's class: whoever needs more does not send.
#[test]
fn a_sender_that_needs_more_is_held() {
    let mut receiver = receiver(QUOTA);
    let mut sender = Node::start("sender", |config| config.class = Class::Process);
    meet(&mut sender, &mut receiver);
    let (acks, class) = (Acks::Ram, Class::Process);
    assert!(sender.events().contains(&Event::WeakAcks { name: "receiver".into(), acks, class }));
}

#[test]
fn a_full_inbox_keeps_the_sender_waiting_and_loses_nothing() {
    let (mut receiver, mut sender) = (receiver(QUOTA), sender());
    let line = meet(&mut sender, &mut receiver);
    (1..=100).for_each(|number| send(&mut sender, number));
    settle(&mut sender, &mut receiver, line);
    let full = held(&mut receiver);
    assert!((10..=20).contains(&full), "the quota, and a window at most: {full}");
    assert_eq!(sender.router.queued(), 100 - full, "the rest is not acknowledged");
    assert!(receiver.router.is_stored(), "the store has nothing to do");

    // Nobody says that something was taken: it is seen all the same.
    let mut all: Vec<_> = core::iter::from_fn(|| receiver.store.take_delivered()).take(3).collect();
    settle(&mut sender, &mut receiver, line);
    assert_eq!(held(&mut receiver), full - 3);
    let mut rounds = 0;
    while all.len() < 100 {
        rounds += 1;
        assert!(rounds < 100, "{} have come", all.len());
        receiver.pass(Duration::from_millis(60));
        settle(&mut sender, &mut receiver, line);
        assert!(held(&mut receiver) <= 20);
        all.extend(core::iter::from_fn(|| receiver.store.take_delivered()));
    }
    settle(&mut sender, &mut receiver, line);
    assert_eq!(numbers(&all), (1..=100).collect::<Vec<_>>());
    assert!(sender.router.is_idle() && receiver.dead().is_empty());
    assert_eq!(receiver.router.delivered(), 100);
}

/// Bytes count as messages do, and what was there at the start counts.
#[test]
fn what_was_there_before_counts() {
    let (mut receiver, mut sender) = (receiver(Quota { messages: 1000, bytes: 300 }), sender());
    let line = meet(&mut sender, &mut receiver);
    let long = |sender: &mut Node| sender.router.send(sender.now, "t", &[7; 200], Mode::One).map(drop);
    (0..4).try_for_each(|_| long(&mut sender)).expect("there is room");
    settle(&mut sender, &mut receiver, line);
    let full = held(&mut receiver);
    assert!((2..4).contains(&full), "{full}");
    cut(&mut sender, &mut receiver, line);
    reborn(&mut receiver);
    let line = meet(&mut sender, &mut receiver);
    assert_eq!(held(&mut receiver), full, "no more than there was");
    assert_eq!(take_all(&mut receiver).len() as u64, full);
    settle(&mut sender, &mut receiver, line);
    assert_eq!(full + held(&mut receiver), 4);
}

/// Whoever dies, and whenever, each message is there once, in its order, and none is marked.
#[test]
fn deaths_neither_lose_nor_repeat() {
    for seed in 0..200 {
        let mut dice = Rng::new([seed, 7]);
        let (mut receiver, mut sender) = (receiver(QUOTA), sender());
        let mut all = Vec::new();
        let mut line = meet(&mut sender, &mut receiver);
        let mut sent = 0;
        let mut rounds = 0;
        while all.len() < 150 {
            rounds += 1;
            assert!(rounds < 5000, "seed {seed}: {} have come", all.len());
            for _ in 0..dice.below(20).min(150 - sent) {
                sent += 1;
                send(&mut sender, sent);
            }
            // They are on the disk, whatever comes.
            sender.serve();
            step(&mut sender, &mut receiver, line, dice.below(6));
            match dice.below(8) {
                0 => {
                    die_in_a_commit(&mut receiver, dice.below(3));
                    reborn(&mut receiver);
                }
                1 => sender.restart(),
                2 => cut(&mut sender, &mut receiver, line),
                3 => {
                    settle(&mut sender, &mut receiver, line);
                    continue;
                }
                _ => {
                    let some = dice.below(15) as usize;
                    all.extend(core::iter::from_fn(|| receiver.store.take_delivered()).take(some));
                    receiver.pass(Duration::from_millis(60));
                    continue;
                }
            }
            line = link(&mut sender, &mut receiver);
            step(&mut sender, &mut receiver, line, 6);
        }
        assert_eq!(numbers(&all), (1..=150).collect::<Vec<_>>(), "seed {seed}");
        assert!(all.iter().all(|message| !message.maybe_redelivered), "seed {seed}");
        assert!(receiver.got.is_empty() && receiver.dead().is_empty(), "seed {seed}");
    }
}

/// Of the next batch only the first groups reach the store.
fn die_in_a_commit(node: &mut Node, mut groups: u64) {
    let Some(StoreRequest::Commit(batch)) = node.router.poll_store(node.now) else { return };
    let _ = batch.try_each_group(|group| {
        groups = groups.checked_sub(1).ok_or(())?;
        node.store.apply(group).map_err(drop)
    });
}

/// Bytes go to and fro a few times, and the receiver's store has an answer or two less than it was asked for.
fn step(sender: &mut Node, receiver: &mut Node, (here, there): (ConnId, ConnId), rounds: u64) {
    for round in 0..rounds {
        sender.serve();
        let ahead = sender.give(here);
        receiver.take(there, ahead);
        if round % 2 == 0 {
            receiver.serve();
        } else {
            receiver.serve_one();
        }
        let back = receiver.give(there);
        sender.take(here, back);
    }
}

/// The store is full: nothing of a group is there, and all of it is asked for again when the application has made room.
#[test]
fn a_full_store_is_asked_again() {
    let (mut receiver, mut sender) = (receiver(Quota { messages: 1000, bytes: 1 << 20 }), sender());
    receiver.store = HeapStore::new(1 << 24).with_messages_max(7).with_inbox();
    reborn(&mut receiver);
    let line = meet(&mut sender, &mut receiver);
    let mut all = Vec::new();
    for number in 1..=50 {
        send(&mut sender, number);
        if number % 3 == 0 {
            settle(&mut sender, &mut receiver, line);
        }
    }
    assert!(receiver.events().iter().any(|event| matches!(event, Event::StoreFailed(_))));
    let mut rounds = 0;
    while all.len() < 6 {
        all.extend(core::iter::from_fn(|| receiver.store.take_delivered()));
        rounds += 1;
        assert!(rounds < 100, "{} have come", all.len());
        receiver.pass(Duration::from_secs(2));
        sender.pass(Duration::from_secs(2));
        settle(&mut sender, &mut receiver, line);
    }
    receiver.store = core::mem::replace(&mut receiver.store, HeapStore::new(0)).with_messages_max(1000);
    while all.len() < 50 {
        rounds += 1;
        assert!(rounds < 100, "{} have come", all.len());
        receiver.pass(Duration::from_secs(2));
        sender.pass(Duration::from_secs(2));
        settle(&mut sender, &mut receiver, line);
        all.extend(core::iter::from_fn(|| receiver.store.take_delivered()));
    }
    assert_eq!(numbers(&all), (1..=50).collect::<Vec<_>>());
}

/// A sender that forgets everything, again and again, cannot fill the memory of a receiver whose inbox is full.
#[test]
fn lives_of_a_sender_fill_a_window_and_no_more() {
    let mut receiver = receiver(QUOTA);
    let mut life = sender();
    for number in 1..=200 {
        let line = meet(&mut life, &mut receiver);
        for message in 0..10 {
            match life.router.send(life.now, "t", &[number, message], Mode::One) {
                Ok(_) => {}
                Err(SendError::Busy) => break,
                Err(error) => panic!("{error}"),
            }
        }
        settle(&mut life, &mut receiver, line);
        cut(&mut life, &mut receiver, line);
        life = sender();
        life.configure(|config| config.seed[0] += u64::from(number));
        life.restart();
    }
    let taken = take_all(&mut receiver).len();
    receiver.serve();
    let rest = take_all(&mut receiver).len();
    assert!(taken + rest <= 50, "{taken} were in the inbox, and {rest} in memory");
    // What it sends now arrives.
    let line = meet(&mut life, &mut receiver);
    send(&mut life, 77);
    settle(&mut life, &mut receiver, line);
    let last = take_all(&mut receiver);
    assert_eq!(last.last().map(number), Some(77));
}

/// What arrives on a topic that is not taken any more is a dead letter; it waits with what came before it.
#[test]
fn a_stray_waits_with_its_cursor() {
    let (mut receiver, mut sender) = (receiver(QUOTA), sender());
    let line @ (here, there) = meet(&mut sender, &mut receiver);
    (1..=25).for_each(|number| send(&mut sender, number));
    settle(&mut sender, &mut receiver, line);
    let first = take_all(&mut receiver);
    sender.serve();
    let under_way = sender.give(here);
    receiver.router.unsubscribe(receiver.now, "t");
    receiver.take(there, under_way);
    settle(&mut sender, &mut receiver, line);
    receiver.pass(Duration::from_millis(60));
    settle(&mut sender, &mut receiver, line);
    let rest = take_all(&mut receiver);
    let (dead, at_sender) = (receiver.dead(), sender.dead());
    assert!(dead.iter().chain(&at_sender).all(|reason| *reason == DeadReason::Unsubscribed));
    let (all, dead) = (first.len() + rest.len(), dead.len() + at_sender.len());
    assert_eq!(all + dead, 25, "{all} and {dead}");
    assert!(dead > 0);
}

#[test]
fn a_store_without_an_inbox_says_so() {
    let mut store = HeapStore::new(1 << 20);
    assert_eq!(store.inbox(), Ok(None));
    assert_eq!(store.clone().with_inbox().inbox(), Ok(Some(InboxHeld::default())));
    assert_eq!(store.take_delivered(), None);
}
