//! A topic that nobody subscribes to: what is kept, what is put aside, and what the sender hears of it.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use liner_proto::delivery::SendMode;
use liner_proto::effect::{Batch, DeadReason, StoreOp};
use liner_proto::id::{Class, ConnId};
use liner_proto::router::{Event, Framing, Message, NodeConfig, Quota, Router, SendError, StoreRequest};
use liner_proto::store::{HeapStore, Store as _, execute};
use liner_proto::time::Instant;
use liner_proto::wire::record::Mode;

const NOW: Instant = Instant::from_micros(1);

struct Node {
    router: Router,
    store: HeapStore,
    conns: Vec<ConnId>,
    dead: Vec<DeadReason>,
    got: Vec<Vec<u8>>,
}

impl Node {
    fn start(name: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::new(name, [3, name.len() as u64], Class::Ram);
        change(&mut config);
        let mut router = Router::new(config, NOW);
        router.start(NOW);
        Self { router, store: HeapStore::new(1 << 24), conns: Vec::new(), dead: Vec::new(), got: Vec::new() }
    }

    fn note(&mut self, batch: &Batch) {
        let each = |group: &[StoreOp<'_>]| {
            for op in group {
                if let StoreOp::DeadLetter { reason, .. } = op {
                    self.dead.push(*reason);
                }
            }
            Ok::<(), ()>(())
        };
        batch.try_each_group(each).expect("nothing fails in it");
    }

    fn serve(&mut self) {
        while let Some(request) = self.router.poll_store(NOW) {
            match request {
                StoreRequest::Commit(batch) => {
                    self.note(&batch);
                    let outcome = execute(&mut self.store, &batch);
                    self.router.handle_committed(NOW, batch.id(), outcome);
                }
                StoreRequest::Load(load) => {
                    let mut buffer = vec![0; 65_536];
                    let loaded = self.store.load(load.queue(), load.after(), &mut buffer);
                    self.router.handle_loaded(NOW, &load, loaded, &buffer);
                }
            }
        }
    }

    fn give(&mut self, conn: ConnId) -> Vec<u8> {
        self.serve();
        let mut out = Vec::new();
        loop {
            let transmit = self.router.poll_transmit(NOW, conn);
            let len = transmit.len();
            if len == 0 {
                return out;
            }
            out.extend_from_slice(transmit.head);
            out.extend_from_slice(transmit.body);
            self.router.handle_written(NOW, conn, len);
        }
    }

    fn take(&mut self, conn: ConnId, mut bytes: Vec<u8>) {
        let got = &mut self.got;
        let mut application = |message: &Message<'_>| got.push(message.payload.to_vec());
        let taken = self.router.handle_bytes(NOW, conn, &mut bytes, &mut application);
        assert_eq!(taken, bytes.len(), "whole frames are passed");
        self.serve();
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.router.poll_event()).collect()
    }
}

/// `from` dials `to`; returns the connection on both sides.
fn link(from: &mut Node, to: &mut Node) -> (ConnId, ConnId) {
    link_over(Framing::Length, from, to)
}

fn link_over(framing: Framing, from: &mut Node, to: &mut Node) -> (ConnId, ConnId) {
    let dial = from.router.add_peer(NOW, "there");
    let _ = from.router.poll_dial(NOW);
    let here = from.router.handle_dialed(NOW, dial, framing);
    let there = to.router.handle_accepted(NOW, framing);
    from.conns.push(here);
    to.conns.push(there);
    (here, there)
}

fn settle(from: &mut Node, to: &mut Node, (here, there): (ConnId, ConnId)) {
    for _ in 0..100 {
        let bytes = from.give(here);
        to.take(there, bytes);
        let bytes = to.give(there);
        from.take(here, bytes);
    }
}

#[test]
fn a_topic_is_kept_up_to_its_quota_for_the_first_durable_subscriber() {
    let mut gateway = Node::start("gateway", |config| {
        config.takes_custody = true;
        config.kept = Quota { messages: 10, bytes: 1 << 20 };
    });
    let mut sender = Node::start("sender", |_| {});
    let line = link(&mut sender, &mut gateway);
    settle(&mut sender, &mut gateway, line);
    for number in 0..13_u8 {
        sender.router.send(NOW, "t", &[number], Mode::All).expect("the sender does not know yet");
    }
    settle(&mut sender, &mut gateway, line);
    assert_eq!(sender.router.queued(), 0, "all of it is acknowledged");
    assert_eq!(gateway.router.queued(), 10, "what the quota allows is kept");
    assert_eq!(gateway.dead, vec![DeadReason::Quota; 3], "the rest is put aside with a reason");
    assert!(sender.events().contains(&Event::TopicFull { topic: "t".into() }));
    assert_eq!(sender.router.send(NOW, "t", b"more", Mode::All), Err(SendError::TopicFull));
    sender.router.send(NOW, "other", b"x", Mode::All).expect("another topic is another matter");

    let mut screen = Node::start("screen", |config| config.durable = true);
    screen.router.subscribe(NOW, "t");
    let view = link(&mut screen, &mut gateway);
    settle(&mut screen, &mut gateway, view);
    assert_eq!(screen.got, (0..10_u8).map(|number| vec![number]).collect::<Vec<_>>());

    settle(&mut sender, &mut gateway, line);
    sender.router.send(NOW, "t", b"again", Mode::All).expect("the topic takes messages again");
    settle(&mut sender, &mut gateway, line);
    settle(&mut screen, &mut gateway, view);
    assert_eq!(screen.got.last().map(Vec::as_slice), Some(&b"again"[..]));
}

/// A gateway that keeps 10 messages of a topic and takes `WINDOW` at once, with as many topic numbers, and a sender that had 50
/// messages for it before they met.
fn backlog(framing: Framing, numbers: u32) -> (Node, Node, (ConnId, ConnId)) {
    let mut gateway = Node::start("gateway", |config| {
        config.takes_custody = true;
        config.kept = Quota { messages: 10, bytes: 1 << 20 };
        config.limits.window_messages = WINDOW;
        config.limits.bindings_max = numbers;
    });
    let mut sender = Node::start("sender", |_| {});
    let line = link_over(framing, &mut sender, &mut gateway);
    sender.router.send(NOW, "before", &[0], Mode::All).expect("room");
    for number in 0..50_u8 {
        sender.router.send(NOW, "t", &[number], Mode::All).expect("nothing is known of the topic");
    }
    settle(&mut sender, &mut gateway, line);
    (sender, gateway, line)
}

const WINDOW: u32 = 1;

#[test]
fn a_sender_keeps_what_its_gateway_would_only_put_aside() {
    for (framing, durable) in [(Framing::Length, true), (Framing::Cobs, true), (Framing::Length, false)] {
        let (mut sender, mut gateway, line) = backlog(framing, 1000);
        let dead = gateway.dead.len();
        assert!(dead > 0 && dead <= WINDOW as usize, "no more than what was under way: {dead}");
        assert_eq!(sender.router.queued(), 50 - 10 - dead as u64, "the rest waits");

        let mut screen = Node::start("screen", |config| config.durable = durable);
        screen.router.subscribe(NOW, "t");
        let view = link(&mut screen, &mut gateway);
        settle(&mut screen, &mut gateway, view);
        while sender.router.poll_writable().is_some() {}
        let (here, there) = line;
        let news = gateway.give(there);
        sender.take(here, news);
        assert_eq!(sender.router.poll_writable(), Some(here), "it goes on at once");
        settle(&mut sender, &mut gateway, line);
        settle(&mut screen, &mut gateway, view);
        assert_eq!((sender.router.queued(), gateway.dead.len()), (0, dead));
        let kept = if durable { 0..10 } else { 0..0 };
        let all: Vec<_> = kept.chain(10 + dead as u8..50).map(|number| vec![number]).collect();
        assert_eq!(screen.got, all, "what was kept is for whoever has a name");
    }
}

#[test]
fn no_topic_waits_for_the_subscriber_of_another() {
    for (framing, numbers) in [(Framing::Length, 1000), (Framing::Cobs, 1000), (Framing::Length, 2)] {
        let (mut sender, mut gateway, line) = backlog(framing, numbers);
        assert!(sender.router.queued() > 30);
        let mut screen = Node::start("screen", |config| config.durable = true);
        screen.router.subscribe(NOW, "heard");
        let view = link(&mut screen, &mut gateway);
        settle(&mut screen, &mut gateway, view);
        sender.router.send(NOW, "heard", b"x", Mode::All).expect("another topic is another matter");
        settle(&mut sender, &mut gateway, line);
        settle(&mut screen, &mut gateway, view);
        assert_eq!((sender.router.queued(), &*screen.got), (0, &[b"x".to_vec()][..]));
        assert_eq!(gateway.dead.len(), 40, "the messages before it are put aside");
    }
}

#[test]
fn a_gap_is_told_although_the_topic_is_full() {
    for framing in [Framing::Length, Framing::Cobs] {
        let (_, mut gateway, _) = backlog(framing, 1000);
        let mut sender = Node::start("late", |config| config.send_mode = SendMode::Asynchronous);
        let line = link_over(framing, &mut sender, &mut gateway);
        settle(&mut sender, &mut gateway, line);
        sender.router.send(NOW, "t", b"x", Mode::All).expect("nothing is known of the topic");
        sender.router.handle_closed(NOW, line.0);
        gateway.router.handle_closed(NOW, line.1);
        sender.serve();
        // It dies: what it had reserved of its numbers becomes a gap.
        let mut router = Router::new(sender.router.config().clone(), NOW);
        sender.store.recover(&mut |item| router.restore(&item)).expect("in memory");
        router.start(NOW);
        sender.router = router;
        assert!(sender.router.queued() > 1000);

        let line = link_over(framing, &mut sender, &mut gateway);
        settle(&mut sender, &mut gateway, line);
        assert!(sender.events().contains(&Event::TopicFull { topic: "t".into() }));
        assert_eq!(sender.router.queued(), 0);
    }
}

#[test]
fn a_gateway_that_takes_a_full_topic_itself_says_so() {
    let (mut sender, mut gateway, line) = backlog(Framing::Length, 1000);
    let dead = gateway.dead.len();
    gateway.router.subscribe(NOW, "t");
    settle(&mut sender, &mut gateway, line);
    assert_eq!((sender.router.queued(), gateway.dead.len()), (0, dead));
    assert_eq!(gateway.got.len(), 40 - dead);
}

#[test]
fn best_effort_reaches_whoever_is_there_and_disturbs_no_stream() {
    let mut gateway = Node::start("gateway", |config| config.takes_custody = true);
    let mut sender = Node::start("sender", |_| {});
    let mut screen = Node::start("screen", |config| config.durable = true);
    screen.router.subscribe(NOW, "t");
    let line = link(&mut sender, &mut gateway);
    sender.router.send(NOW, "t", b"nobody is there", Mode::BestEffort).expect("it is not promised anything");
    settle(&mut sender, &mut gateway, line);
    let view = link(&mut screen, &mut gateway);
    settle(&mut screen, &mut gateway, view);
    for number in 0..20_u8 {
        let mode = if number % 2 == 0 { Mode::BestEffort } else { Mode::All };
        sender.router.send(NOW, "t", &[number], mode).expect("room");
    }
    settle(&mut sender, &mut gateway, line);
    settle(&mut screen, &mut gateway, view);
    let mut got = screen.got.clone();
    got.sort_unstable();
    assert_eq!(got, (0..20_u8).map(|number| vec![number]).collect::<Vec<_>>());
    assert_eq!((sender.router.queued(), gateway.router.queued()), (0, 0));
}
