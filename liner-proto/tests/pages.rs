//! Pages of somebody who says of others what he likes.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::collections::BTreeSet;
use std::time::Duration;

use liner_proto::frame::length;
use liner_proto::id::{ConnId, SessionId};
use liner_proto::router::{NodeConfig, SendError};
use liner_proto::seal;
use liner_proto::wire::page::{Change, PageBuilder, Row};
use liner_proto::wire::record::Mode;
use liner_proto::wire::{self, Body};
use nodes::{Node, link, meet, settle};

/// Somebody in a session with a node.
struct Stranger {
    victim: Node,
    conn: ConnId,
    session: SessionId,
    version: u64,
}

fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut bodies) = (bytes, Vec::new());
    while let Ok(Some(split)) = length::split(rest, 1 << 20) {
        bodies.extend(rest[split.frame].get(seal::LEN..).map(<[u8]>::to_vec));
        rest = &rest[split.consumed..];
    }
    bodies
}

impl Stranger {
    fn new(victim: Node) -> Self {
        Self::named(victim, "guise")
    }

    fn named(mut victim: Node, name: &str) -> Self {
        let mut guise = Node::start(name, |_| {});
        let (here, conn) = link(&mut guise, &mut victim);
        let mut nonces = [0; 2];
        for _ in 0..4 {
            for ahead in [true, false] {
                let (from, to, on, at) = if ahead {
                    (&mut guise, &mut victim, here, conn)
                } else {
                    (&mut victim, &mut guise, conn, here)
                };
                from.serve();
                let bytes = from.give(on);
                for body in bodies(&bytes) {
                    match wire::decode(&body) {
                        Ok(Body::Hello(hello)) => nonces[0] = hello.nonce,
                        Ok(Body::Answer(answer)) => nonces[1] = answer.nonce,
                        _ => {}
                    }
                }
                to.take(at, bytes);
            }
        }
        let [dialler, listener] = nonces.map(u64::to_le_bytes);
        let session = SessionId(seal::checksum(SessionId::HANDSHAKE, &[&dialler, &listener]).max(1));
        Self { victim, conn, session, version: 100 }
    }

    /// Tells rows, in as many pages as they need.
    fn tell(&mut self, rows: &[Row<'_>]) {
        self.version += 1;
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            let mut bytes = [0; 4000];
            let mut page = PageBuilder::new(&mut bytes, self.version).expect("room");
            while rows.next_if(|row| page.push(row)).is_some() {}
            let len = page.finish(rows.peek().is_none());
            let body = &bytes[..len];
            let crc = seal::seal(self.session, &[body]);
            let frame = [&length::head(body.len() + 4).expect("short")[..], &crc, body].concat();
            self.victim.take(self.conn, frame);
        }
        let _ = self.victim.give(self.conn);
        self.victim.serve();
    }

    /// Whom the victim dials in so much time; nobody answers.
    fn dials(&mut self, time: Duration) -> Vec<String> {
        let end = self.victim.now + time;
        let mut dialled = Vec::new();
        while self.victim.now < end {
            self.victim.now = self.victim.now + Duration::from_millis(100);
            // The stranger stays for as long as he likes.
            self.victim.router.handle_waiting(self.victim.now, self.conn);
            self.victim.pass(Duration::ZERO);
            let _ = self.victim.give(self.conn);
            while let Some(dial) = self.victim.router.poll_dial(self.victim.now) {
                dialled.push(dial.address.to_owned());
                let id = dial.id;
                self.victim.router.handle_dial_failed(self.victim.now, id);
            }
        }
        dialled
    }
}

fn row<'a>(topic: &'a str, name: &'a str, address: &'a str) -> Row<'a> {
    Row { change: Change::Add, topic, name, address, durable: true }
}

fn victim(change: impl FnOnce(&mut NodeConfig)) -> Node {
    Node::start("victim", |config| {
        config.address = "victim:1".to_owned();
        change(config);
    })
}

#[test]
fn ten_thousand_invented_names_take_a_share_and_are_dialled_for_a_minute() {
    let mut stranger = Stranger::new(victim(|config| config.names_max = 4000));
    let names: Vec<(String, String)> =
        (0..10_000).map(|n| (format!("name-{n}"), format!("host-{n}:{}", 1 + n % 9000))).collect();
    let rows: Vec<Row<'_>> = names.iter().map(|(name, address)| row("t", name, address)).collect();
    stranger.tell(&rows);
    let known = stranger.victim.router.addresses("t").len();
    assert!((500..=1024).contains(&known), "{known}");
    let dialled = stranger.dials(Duration::from_secs(600));
    let distinct: BTreeSet<&String> = dialled.iter().collect();
    // Those of the others come when the first of them are given up.
    assert!(distinct.len() <= 1024 && dialled.len() < 64 * 610, "{} {}", distinct.len(), dialled.len());
    let rest = stranger.dials(Duration::from_secs(1200));
    assert_eq!(stranger.dials(Duration::from_secs(600)), Vec::<String>::new(), "{} before", rest.len());
    // Whoever repeats it is not believed.
    stranger.tell(&rows);
    assert_eq!(stranger.dials(Duration::from_secs(60)).len(), 0);
    let node = &mut stranger.victim;
    assert_eq!(node.router.send(node.now, "t", b"", Mode::All), Err(SendError::NoAddress));
    assert!(node.held().rows.is_empty());
    // Nothing is left of all those names: there is room for others.
    for number in 0..100 {
        let mut other = Node::start(&format!("other-{number}"), |_| {});
        meet(&mut other, node);
        assert_eq!(other.router.peers_up().count(), 1, "{number}");
    }
}

#[test]
fn half_of_the_names_and_a_sixteenth_of_the_topics_are_not_for_what_is_heard() {
    let mut stranger = Stranger::new(victim(|config| (config.names_max, config.topics_max) = (100, 320)));
    let names: Vec<(String, String)> =
        (0..1000).map(|n| (format!("name-{n}"), format!("topic-{n}"))).collect();
    let rows: Vec<Row<'_>> = names.iter().map(|(name, topic)| row(topic, name, "h:1")).collect();
    stranger.tell(&rows);
    let node = &mut stranger.victim;
    let known = names.iter().filter(|(_, topic)| !node.router.addresses(topic).is_empty()).count();
    assert!((5..=20).contains(&known), "{known}");
    let mut other = Node::start("other", |config| config.durable = true);
    other.router.subscribe(other.now, "mine");
    meet(&mut other, node);
    assert_eq!(node.router.addresses("mine").len(), 1);
}

#[test]
fn what_several_invent_of_a_node_does_not_lock_it_out() {
    // A node may have twenty rows, and as many beside them until it has told its first version.
    let mut node = victim(|config| config.topics_max = 320);
    for teller in 0..3 {
        let topics: Vec<String> = (0..18).map(|topic| format!("invention-{teller}-{topic}")).collect();
        let rows: Vec<Row<'_>> = topics.iter().map(|topic| row(topic, "friend", "friend:1")).collect();
        let mut stranger = Stranger::named(node, &format!("guise-{teller}"));
        stranger.tell(&rows);
        assert_eq!(stranger.victim.router.addresses(&topics[17]).len(), 1);
        node = stranger.victim;
    }
    let mut friend = Node::start("friend", |config| config.durable = true);
    friend.router.subscribe(friend.now, "mine");
    meet(&mut friend, &mut node);
    assert_eq!(node.router.addresses("mine").len(), 1);
    assert!(node.router.addresses("invention-0-0").is_empty(), "it speaks for itself");
    assert_eq!(friend.router.peers_up().count(), 1);
}

#[test]
fn nothing_of_a_node_that_is_connected_is_changed() {
    let mut node = victim(|_| {});
    let mut friend = Node::start("friend", |config| {
        config.durable = true;
        config.address = "friend:1".to_owned();
    });
    friend.router.subscribe(friend.now, "t");
    let line = meet(&mut friend, &mut node);
    let before: Vec<String> = node.router.addresses("t").iter().map(|at| format!("{at:?}")).collect();
    let held = node.held();
    let mut stranger = Stranger::new(node);
    stranger.tell(&[
        row("t", "friend", "trap:1"),
        row("u", "friend", "trap:1"),
        row("t", "victim", "trap:2"),
        Row { change: Change::Remove, ..row("", "friend", "") },
        Row { change: Change::Remove, ..row("t", "friend", "") },
    ]);
    let mut node = stranger.victim;
    let after: Vec<String> = node.router.addresses("t").iter().map(|at| format!("{at:?}")).collect();
    assert_eq!((after, node.held()), (before, held));
    assert!(node.router.addresses("u").is_empty());
    assert_eq!(node.router.poll_dial(node.now), None);
    // What is sent still goes where it belongs.
    node.router.send(node.now, "t", b"x", Mode::All).expect("the friend");
    settle(&mut friend, &mut node, line);
    assert_eq!(friend.got.len(), 1);
}

#[test]
fn addresses_that_make_no_sense_are_not_dialled() {
    let mut stranger = Stranger::new(victim(|_| {}));
    let addresses =
        ["", "@a", "~", "host", "host:0", "host:99999", "a b:1", "victim:1", "../x:1", "\u{1b}[2J:1"];
    let names: Vec<String> = (0..addresses.len()).map(|n| format!("name-{n}")).collect();
    let rows: Vec<Row<'_>> =
        names.iter().zip(addresses).map(|(name, address)| row("t", name, address)).collect();
    stranger.tell(&rows);
    assert_eq!(stranger.dials(Duration::from_secs(60)), Vec::<String>::new());
    assert!(stranger.victim.router.addresses("t").len() <= 1);
}

#[test]
fn of_several_that_say_where_a_node_is_each_is_heard() {
    let mut stranger = Stranger::new(victim(|_| {}));
    stranger.tell(&[row("t", "name", "right:1")]);
    let mut stranger = Stranger::named(stranger.victim, "other");
    stranger.tell(&[row("t", "name", "trap:1")]);
    let dialled: BTreeSet<String> = stranger.dials(Duration::from_secs(10)).into_iter().collect();
    assert_eq!(dialled.into_iter().collect::<Vec<_>>(), ["right:1", "trap:1"]);
}

#[test]
fn addresses_that_change_again_and_again_are_not_dialled_more_often() {
    let mut stranger = Stranger::new(victim(|_| {}));
    let mut dialled = 0;
    for number in 0..600 {
        let address = format!("host-{number}:1");
        stranger.tell(&[row("t", "name", &address)]);
        dialled += stranger.dials(Duration::from_millis(100)).len();
    }
    assert!(dialled <= 61, "{dialled}");
}

#[test]
fn rows_of_an_operator_outlive_pages_and_those_who_told_them() {
    use liner_proto::effect::StoreOp;
    use liner_proto::store::Store;
    let mut node = victim(|_| {});
    let by_hand = StoreOp::Subscribe { topic: "t", address: "hand:1", name: "hand" };
    node.store.apply(&[by_hand]).expect("in memory");
    node.store.commit().expect("in memory");
    node.restart();
    let mut stranger = Stranger::new(node);
    stranger.tell(&[row("t", "hand", "trap:1"), row("u", "hand", "trap:1")]);
    stranger.tell(&[Row { change: Change::Remove, ..row("", "hand", "") }]);
    let conn = stranger.conn;
    let mut node = stranger.victim;
    node.router.handle_closed(node.now, conn);
    for _ in 0..30 {
        node.pass(Duration::from_secs(10));
    }
    assert_eq!(node.held().rows, [("t".to_owned(), "hand".to_owned())]);
    let address: Vec<String> = node.router.addresses("t").iter().map(|at| at.address.to_owned()).collect();
    assert_eq!(address, ["hand:1"]);
    assert!(node.router.addresses("u").is_empty());
}
