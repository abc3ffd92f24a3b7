//! Nodes that find each other, and whom a message for one goes to.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::router::{Event, SendError};
use liner_proto::wire::record::Mode;
use nodes::net::Net;

const SECOND: Duration = Duration::from_secs(1);

fn send(net: &mut Net, from: usize, topic: &str, count: usize, mode: Mode) {
    for number in 0..count {
        let node = &mut net.nodes[from];
        node.router.send(node.now, topic, &number.to_be_bytes(), mode).expect("somebody is known");
    }
    net.settle();
}

/// Nodes that subscribe to "t", each of which knows the address of the first alone.
fn replicas(net: &mut Net, count: usize) {
    for number in 0..count {
        let index = net.add(&format!("r{number}"), |config| config.durable = true);
        net.subscribe(index, "t");
        if number > 0 {
            net.name(index, "r0:1");
        }
    }
}

/// Bar 4: three replicas get a third each, without one the others get all, and with it again a third.
#[test]
fn m05_three_replicas_get_a_hundred_of_three_hundred_each() {
    let mut net = Net::default();
    replicas(&mut net, 3);
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    assert_eq!(net.peers(sender), ["r0", "r1", "r2"]);
    send(&mut net, sender, "t", 300, Mode::One);
    assert_eq!([0, 1, 2].map(|index| net.got(index)), [100, 100, 100]);
    // The connection breaks: at once.
    net.kill(1);
    send(&mut net, sender, "t", 300, Mode::One);
    assert_eq!([0, 1, 2].map(|index| net.got(index)), [250, 100, 250]);
    // It is back.
    net.revive(1, &["t"]);
    net.pass(Duration::from_secs(40));
    send(&mut net, sender, "t", 300, Mode::One);
    assert_eq!([0, 1, 2].map(|index| net.got(index)), [350, 200, 350]);
    assert_eq!(net.nodes[sender].router.queued(), 0);
}

#[test]
fn m03_a_replica_that_falls_silent_gets_nothing_new_after_a_lease() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    // Its machine is gone: nothing is heard of it, and nobody hears that its connections are.
    net.down.insert(1);
    net.pass(Duration::from_secs(16));
    let before = net.got(0);
    send(&mut net, sender, "t", 100, Mode::One);
    assert_eq!((net.got(0) - before, net.nodes[sender].router.queued_for("r1")), (100, 0));
}

#[test]
fn when_all_are_away_messages_are_queued_for_them_by_turns() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    net.kill(0);
    net.kill(1);
    send(&mut net, sender, "t", 10, Mode::One);
    let router = &net.nodes[sender].router;
    assert_eq!(["r0", "r1"].map(|name| router.queued_for(name)), [5, 5]);
}

#[test]
fn all_are_addressed_once_whether_they_are_up_or_away() {
    let mut net = Net::default();
    replicas(&mut net, 3);
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    net.kill(2);
    send(&mut net, sender, "t", 10, Mode::All);
    assert_eq!([0, 1].map(|index| net.got(index)), [10, 10]);
    assert_eq!(net.nodes[sender].router.queued_for("r2"), 10);
    net.revive(2, &["t"]);
    net.pass(Duration::from_secs(40));
    assert_eq!(net.got(2), 10);
}

/// Two topics of one node are one node, wherever it says that it listens.
#[test]
fn a_node_with_two_topics_is_connected_once() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    net.subscribe(1, "u");
    net.subscribe(0, "u");
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    send(&mut net, sender, "t", 10, Mode::One);
    send(&mut net, sender, "u", 10, Mode::One);
    assert_eq!([0, 1].map(|index| net.got(index)), [10, 10]);
    assert_eq!(net.links(), 3);
}

#[test]
fn a_chain_of_nodes_finds_together_and_each_pair_has_one_connection() {
    let mut net = Net::default();
    for number in 0..6_usize {
        let index = net.add(&format!("n{number}"), |_| {});
        net.subscribe(index, "t");
        if number > 0 {
            net.name(index, &format!("n{}:1", number - 1));
        }
    }
    net.pass(5 * SECOND);
    for index in 0..6 {
        assert_eq!(net.peers(index).len(), 5, "{index}: {:?}", net.peers(index));
    }
    assert_eq!(net.links(), 15);
    // All is said: nobody says anything but that it is there.
    let (dialled, bytes) = (net.dialled.len(), net.bytes);
    net.pass(60 * SECOND);
    assert_eq!((net.links(), net.dialled.len()), (15, dialled));
    assert!(net.bytes - bytes < 15 * 60 * 100, "{}", net.bytes - bytes);
}

#[test]
fn a_node_that_nobody_can_dial_dials_everybody_whom_it_hears_of() {
    let mut net = Net::default();
    replicas(&mut net, 4);
    let hidden = net.add("hidden", |config| config.address = String::new());
    net.subscribe(hidden, "h");
    net.name(hidden, "r0:1");
    net.pass(SECOND);
    assert_eq!(net.peers(hidden), ["r0", "r1", "r2", "r3"]);
    send(&mut net, 3, "h", 5, Mode::One);
    assert_eq!(net.got(hidden), 5);
    // A node that only sends is heard of, too.
    let sender = net.add("sender", |_| {});
    net.name(sender, "r2:1");
    net.pass(SECOND);
    send(&mut net, sender, "h", 5, Mode::All);
    assert_eq!(net.got(hidden), 10);
}

#[test]
fn no_more_are_dialled_than_may_be_but_for_those_something_is_queued_for() {
    let mut net = Net::default();
    replicas(&mut net, 8);
    for node in &mut net.nodes {
        node.configure(|config| config.mesh_max = 0);
        node.restart();
    }
    for index in 0..8 {
        net.subscribe(index, "t");
        if index > 0 {
            net.name(index, "r0:1");
        }
    }
    let hidden = net.add("hidden", |config| {
        config.address = String::new();
        config.mesh_max = 3;
    });
    net.name(hidden, "r0:1");
    net.pass(5 * SECOND);
    assert_eq!(net.peers(hidden).len(), 4, "{:?}", net.peers(hidden));
    send(&mut net, hidden, "t", 1, Mode::All);
    net.pass(SECOND);
    assert_eq!(net.peers(hidden).len(), 8, "{:?}", net.peers(hidden));
    assert!((0..8).all(|index| net.got(index) == 1));
}

#[test]
fn a_node_that_was_met_is_dialled_again_when_it_is_away_and_where_it_is_by_then() {
    let mut net = Net::default();
    replicas(&mut net, 3);
    net.pass(SECOND);
    assert_eq!(net.peers(2), ["r0", "r1"]);
    // The second one moves. The first one is told, the last one hears of it.
    net.kill(1);
    net.nodes[1].configure(|config| {
        config.address = "elsewhere:1".to_owned();
        config.mesh_max = 0;
    });
    net.revive(1, &["t"]);
    net.name(1, "r0:1");
    net.pass(5 * SECOND);
    assert_eq!(net.peers(2), ["r0", "r1"]);
    assert!(net.dialled.contains(&(2, "elsewhere:1".to_owned())));
}

/// The second one has moved before the last one, whom nobody can dial, has noticed that its session is dead.
#[test]
fn what_is_heard_of_a_node_while_its_session_is_dead_counts_when_that_ends() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    let hidden = net.add("hidden", |config| config.address = String::new());
    net.name(hidden, "r0:1");
    net.pass(SECOND);
    assert_eq!(net.peers(hidden), ["r0", "r1"]);
    net.silence(1);
    net.pass(SECOND);
    net.nodes[1].configure(|config| config.address = "elsewhere:1".to_owned());
    net.revive(1, &["t"]);
    net.name(1, "r0:1");
    net.pass(5 * SECOND);
    assert_eq!(net.peers(1), ["r0"]);
    assert_eq!(net.peers(hidden), ["r0", "r1"], "nothing seems to be wrong");
    net.dialled.clear();
    net.pass(20 * SECOND);
    assert_eq!(net.peers(1), ["hidden", "r0"]);
    assert_eq!(net.dialled, [(hidden, "elsewhere:1".to_owned())]);
}

#[test]
fn a_node_that_was_named_by_its_address_is_found_where_it_is_by_now() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    let hidden = net.add("hidden", |config| config.address = String::new());
    net.name(hidden, "r0:1");
    net.name(hidden, "r1:1");
    net.pass(SECOND);
    for address in ["elsewhere:1", "r1:1", "elsewhere:1"] {
        net.kill(1);
        net.pass(5 * SECOND);
        net.nodes[1].configure(|config| config.address = address.to_owned());
        net.revive(1, &["t"]);
        net.name(1, "r0:1");
        net.pass(5 * SECOND);
        assert_eq!(net.peers(hidden), ["r0", "r1"], "at {address}");
        // One connection, and nobody looks for another one.
        let dialled = net.dialled.len();
        net.pass(60 * SECOND);
        assert_eq!((net.links(), net.dialled.len()), (3, dialled), "at {address}");
    }
    // It stays away: it is dialled where it was named and where it was heard of, each as often as any other address.
    net.kill(1);
    net.dialled.clear();
    net.pass(60 * SECOND);
    let dialled = |address: &str| net.dialled.iter().filter(|(_, to)| to == address).count();
    let counts = [dialled("r1:1"), dialled("elsewhere:1")];
    assert!(counts.iter().all(|count| (200..1200).contains(count)), "{counts:?}");
}

/// The promise is a quarter of a second at most in the first minute, however long it took to find the node at first.
#[test]
fn a_node_that_dialled_in_is_dialled_as_soon_as_one_that_was_reached() {
    let mut net = Net::default();
    let here = net.add("z", |_| {});
    let there = net.add("a", |_| {});
    net.down.insert(there);
    net.name(here, "a:1");
    net.pass(5 * SECOND);
    // It comes, and is the first to dial.
    net.nodes[there].now = net.nodes[here].now;
    net.name(there, "z:1");
    net.down.remove(&there);
    while net.peers(here).is_empty() {
        net.turn(there);
        net.turn(here);
    }
    net.pass(11 * 60 * SECOND);
    net.kill(there);
    net.dialled.clear();
    net.pass(5 * SECOND);
    assert!(net.dialled.len() >= 20, "{}", net.dialled.len());
}

#[test]
fn another_name_at_an_address_is_an_event_and_not_a_peer() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    let other = net.add("other", |config| config.mesh_max = 0);
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    net.kill(1);
    // Somebody else has its address.
    net.nodes[other].configure(|config| config.address = "r1:1".to_owned());
    net.nodes[1].configure(|config| config.address = "nowhere:1".to_owned());
    net.revive(other, &[]);
    net.pass(60 * SECOND);
    let wrong: Vec<_> =
        net.events[sender].iter().filter(|event| matches!(event, Event::WrongName { .. })).collect();
    let expected = Event::WrongName { address: "r1:1".into(), expected: "r1".into(), found: "other".into() };
    assert_eq!(wrong, [&expected], "once");
    assert_eq!(net.peers(sender), ["r0"]);
}

/// A node that is connected to the first one, and says that it is at an address where nobody is.
fn unreachable(net: &mut Net, name: &str) -> usize {
    let index = net.add(name, |config| {
        config.mesh_max = 0;
        config.address = "nowhere:1".to_owned();
    });
    net.subscribe(index, "u");
    net.name(index, "r0:1");
    index
}

#[test]
fn what_is_heard_ends_a_lease_after_those_who_say_it_and_is_not_stored() {
    let mut net = Net::default();
    replicas(&mut net, 1);
    unreachable(&mut net, "u");
    let sender = net.add("sender", |_| {});
    net.name(0, "sender:1");
    net.pass(SECOND);
    send(&mut net, sender, "u", 2, Mode::One);
    send(&mut net, sender, "u", 3, Mode::All);
    assert_eq!(net.nodes[sender].router.queued_for("u"), 5);
    net.kill(0);
    net.pass(Duration::from_secs(14));
    send(&mut net, sender, "u", 1, Mode::One);
    let held = net.nodes[sender].held();
    assert_eq!(held.rows, [("t".to_owned(), "r0".to_owned())]);
    assert_eq!(held.queues["u"], 6);
    net.pass(Duration::from_secs(3));
    let node = &mut net.nodes[sender];
    assert_eq!(node.router.send(node.now, "u", b"", Mode::One), Err(SendError::NoAddress));
    // What was for it alone waits for the next subscriber.
    assert_eq!((node.router.queued_for("u"), node.router.queued()), (0, 3));
    let gone = Event::SubscriberGone { name: "u".into(), queued: 6 };
    assert!(net.events[sender].contains(&gone), "{:?}", net.events[sender]);
}

#[test]
fn two_that_say_it_are_enough_that_one_may_go() {
    let mut net = Net::default();
    replicas(&mut net, 2);
    let away = unreachable(&mut net, "u");
    net.name(away, "r1:1");
    let sender = net.add("sender", |_| {});
    net.name(sender, "r0:1");
    net.pass(SECOND);
    assert_eq!(net.peers(away), ["r0", "r1"]);
    net.kill(0);
    net.pass(Duration::from_secs(30));
    send(&mut net, sender, "u", 1, Mode::One);
    assert_eq!(net.nodes[sender].router.queued_for("u"), 1);
}

#[test]
fn a_node_that_nobody_finds_is_taken_for_an_invention() {
    let mut net = Net::default();
    replicas(&mut net, 1);
    unreachable(&mut net, "u");
    let sender = net.add("sender", |_| {});
    net.name(0, "sender:1");
    net.pass(Duration::from_secs(50));
    send(&mut net, sender, "u", 1, Mode::One);
    net.pass(Duration::from_secs(20));
    let dialled = |net: &Net| net.dialled.iter().filter(|(_, address)| address == "nowhere:1").count();
    let count = dialled(&net);
    assert!((10..70).contains(&count), "{count}");
    net.pass(Duration::from_secs(600));
    assert_eq!(dialled(&net), count);
    let node = &mut net.nodes[sender];
    assert_eq!(node.router.send(node.now, "u", b"", Mode::One), Err(SendError::NoAddress));
}

#[test]
fn topics_that_others_take_no_more_are_not_known_any_more() {
    let mut net = Net::default();
    replicas(&mut net, 1);
    let away = unreachable(&mut net, "u");
    net.subscribe(away, "v");
    let sender = net.add("sender", |_| {});
    net.name(0, "sender:1");
    net.pass(SECOND);
    send(&mut net, sender, "v", 1, Mode::One);
    let now = net.nodes[away].now;
    assert!(net.nodes[away].router.unsubscribe(now, "v"));
    net.pass(SECOND);
    let node = &mut net.nodes[sender];
    assert_eq!(node.router.send(node.now, "v", b"", Mode::One), Err(SendError::NoAddress));
    send(&mut net, sender, "u", 1, Mode::One);
}

#[test]
fn changes_that_come_together_are_told_together() {
    let mut net = Net::default();
    replicas(&mut net, 1);
    let away = unreachable(&mut net, "u");
    let sender = net.add("sender", |_| {});
    net.name(0, "sender:1");
    net.pass(SECOND);
    let before = net.bytes;
    for topic in 0..50 {
        net.subscribe(away, &format!("topic-{topic}"));
        net.settle();
    }
    net.pass(SECOND);
    // Each of the fifty pages of its own has all topics by then; the other node hears of them once or twice.
    let heard = (0..50).filter(|topic| {
        let node = &mut net.nodes[sender];
        node.router.send(node.now, &format!("topic-{topic}"), b"", Mode::One).is_ok()
    });
    assert_eq!(heard.count(), 50);
    assert!(net.bytes - before < 50 * 50 * 40 + 4 * 50 * 40, "{}", net.bytes - before);
}

#[test]
fn m07_after_the_only_subscriber_has_gone_off_a_send_finds_nobody() {
    let mut net = Net::default();
    replicas(&mut net, 1);
    let sender = net.add("sender", |_| {});
    net.name(0, "sender:1");
    net.pass(SECOND);
    send(&mut net, sender, "t", 1, Mode::One);
    let now = net.nodes[0].now;
    assert!(net.nodes[0].router.unsubscribe(now, "t"));
    net.settle();
    for mode in [Mode::One, Mode::All] {
        let node = &mut net.nodes[sender];
        assert_eq!(node.router.send(node.now, "t", b"", mode), Err(SendError::NoAddress));
    }
}

/// Each of the two halves dials, and hears of the others while connections are being made.
#[test]
fn no_connection_is_made_twice_or_lost_while_all_dial_all() {
    let mut net = Net::default();
    replicas(&mut net, 12);
    net.pass(10 * SECOND);
    assert_eq!(net.links(), 12 * 11 / 2);
    let dialled = net.dialled.len();
    net.pass(30 * SECOND);
    assert_eq!((net.links(), net.dialled.len()), (66, dialled));
    // Each pair dialled at most twice: once from each side.
    let mut pairs: Vec<(usize, String)> = net.dialled.clone();
    pairs.sort();
    assert!(pairs.chunk_by(|one, other| one == other).all(|same| same.len() <= 2), "{pairs:?}");
}

#[test]
fn no_more_is_told_of_others_than_may_be() {
    let mut net = Net::default();
    replicas(&mut net, 1);
    net.nodes[0].configure(|config| config.heard_max = 5);
    net.nodes[0].restart();
    for number in 0..10 {
        let index = net.add(&format!("n{number}"), |config| config.mesh_max = 0);
        net.subscribe(index, "t");
        net.name(index, "r0:1");
    }
    net.pass(SECOND);
    let late = net.add("late", |config| config.mesh_max = 0);
    net.name(late, "r0:1");
    net.pass(SECOND);
    assert_eq!(net.nodes[late].router.addresses("t").len(), 5);
    // Those that come when others are gone are told.
    for index in 1..=5 {
        net.kill(index);
    }
    net.pass(Duration::from_secs(40));
    for number in 0..3 {
        let index = net.add(&format!("new{number}"), |config| config.mesh_max = 0);
        net.subscribe(index, "t");
        net.name(index, "r0:1");
    }
    net.pass(SECOND);
    let addresses = net.nodes[late].router.addresses("t");
    let told = addresses.iter().filter(|at| at.name.starts_with("new")).count();
    assert_eq!(told, 3, "{addresses:?}");
}
