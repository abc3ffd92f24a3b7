//! A device and a gateway in one process, without a clock and without a network.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use liner_proto::config::Limits;
use liner_proto::effect::{Outcome, Recovered};
use liner_proto::endpoint::{DeviceConfig, Event, SendError, TopicIndex};
use liner_proto::frame::cobs;
use liner_proto::id::{Class, ConnId, SessionId};
use liner_proto::pump::Overflow;
use liner_proto::router::{Framing, Message, NodeConfig, Quota, Router, StoreRequest};
use liner_proto::seal;
use liner_proto::store::{HeapStore, Store, execute};
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::control::{Close, CloseReason};
use liner_proto::wire::{self, Body, tag};

mod kinds;
use kinds::Kind;

const TOPICS: &[&str] = &["readings"];

both!(super::kinds::InRam<2048, 256>, super::kinds::InStore<512, 256, 2048>:
    a_reading_travels_from_a_device_through_a_gateway_to_a_subscriber
    what_a_gateway_acknowledged_survives_its_death
    a_full_device_refuses_and_keeps_what_it_has
    a_full_device_that_drops_the_oldest_says_how_many
    events_of_a_device_tell_of_its_link
    a_device_keeps_what_a_weaker_gateway_would_only_hold_in_memory
    a_device_writes_its_topics_out_for_a_gateway_that_keeps_no_numbers
    a_device_says_which_message_is_too_large_and_leaves_it_to_the_application
    a_device_keeps_what_its_gateway_would_only_put_aside
    what_was_said_of_a_topic_ends_with_the_session
    a_restarted_device_waits_for_a_full_topic_and_lets_no_other_wait
    a_refused_handshake_is_begun_again_after_a_pause
    sessions_that_end_at_once_do_not_shorten_the_pause
);

/// A gateway or a subscriber with its store, which answers at once.
struct Host {
    router: Router,
    store: HeapStore,
    conn: Option<ConnId>,
    got: Vec<(String, u64, Vec<u8>, bool)>,
}

impl Host {
    fn new(name: &str, custody: bool, seed: u64) -> Self {
        let mut config = NodeConfig::new(name, [seed, 7], Class::Ram);
        config.takes_custody = custody;
        config.durable = true;
        let mut router = Router::new(config, Instant::ZERO);
        router.start(Instant::ZERO);
        Self { router, store: HeapStore::new(64 << 20), conn: None, got: Vec::new() }
    }

    fn restart(&mut self, seed: u64) {
        let mut config = self.router.config().clone();
        config.seed = [seed, 9];
        let mut router = Router::new(config, Instant::ZERO);
        self.store.recover(&mut |item: Recovered<'_>| router.restore(&item)).expect("in memory");
        router.start(Instant::ZERO);
        self.router = router;
        self.conn = None;
    }

    /// Another gateway on the same store, with other limits.
    fn restrict(&mut self, seed: u64, change: impl FnOnce(&mut Limits)) {
        self.change(seed, |config| change(&mut config.limits));
    }

    fn change(&mut self, seed: u64, change: impl FnOnce(&mut NodeConfig)) {
        let mut config = self.router.config().clone();
        change(&mut config);
        self.router = Router::new(config, Instant::ZERO);
        self.restart(seed);
    }

    fn take(&mut self, now: Instant, bytes: &mut Vec<u8>) {
        let Some(conn) = self.conn else { return bytes.clear() };
        let got = &mut self.got;
        let mut application = |message: &Message<'_>| {
            got.push((message.from.into(), message.seq, message.payload.to_vec(), message.maybe_redelivered));
        };
        let taken = self.router.handle_bytes(now, conn, bytes, &mut application);
        bytes.drain(..taken);
    }

    fn serve(&mut self, now: Instant) {
        while let Some(request) = self.router.poll_store(now) {
            match request {
                StoreRequest::Commit(batch) => {
                    let outcome: Outcome = execute(&mut self.store, &batch);
                    self.router.handle_committed(now, batch.id(), outcome);
                }
                StoreRequest::Load(load) => {
                    let mut buffer = vec![0; 65_536];
                    let result = self.store.load(load.queue(), load.after(), &mut buffer);
                    self.router.handle_loaded(now, &load, result, &buffer);
                }
            }
        }
        while let Some(conn) = self.router.poll_close() {
            self.router.handle_closed(now, conn);
            if self.conn == Some(conn) {
                self.conn = None;
            }
        }
    }

    fn give(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.serve(now);
        let Some(conn) = self.conn else { return };
        loop {
            let transmit = self.router.poll_transmit(now, conn);
            let len = transmit.len();
            if len == 0 {
                break;
            }
            out.extend_from_slice(transmit.head);
            out.extend_from_slice(transmit.body);
            self.router.handle_written(now, conn, len);
        }
        self.serve(now);
    }
}

/// A device, a gateway, a subscriber, and the lines between them.
struct Path<K> {
    now: Instant,
    device: K,
    gateway: Host,
    sub: Host,
    sub_conn_gateway: Option<ConnId>,
    weak: bool,
    /// How often the device said that its oldest message is too large.
    too_large: usize,
    /// What it said of full topics.
    full: Vec<(u16, bool)>,
}

impl<K: Kind> Path<K> {
    fn new() -> Self {
        Self::with(DeviceConfig::new("dev", TOPICS, [1, 2]))
    }

    fn with(config: DeviceConfig<'static>) -> Self {
        let mut sub = Host::new("sub", false, 5);
        sub.router.subscribe(Instant::ZERO, "readings");
        Self {
            now: Instant::ZERO,
            device: K::new(config, Instant::ZERO),
            gateway: Host::new("gateway", true, 3),
            sub,
            sub_conn_gateway: None,
            weak: false,
            too_large: 0,
            full: Vec::new(),
        }
    }

    fn link_device(&mut self) {
        self.device.handle_link_up(self.now);
        self.gateway.conn = Some(self.gateway.router.handle_accepted(self.now, Framing::Cobs));
    }

    fn link_sub(&mut self) {
        let dial = self.sub.router.add_peer(self.now, "gateway");
        let _ = self.sub.router.poll_dial(self.now);
        self.sub.conn = Some(self.sub.router.handle_dialed(self.now, dial, Framing::Length));
        self.sub_conn_gateway = Some(self.gateway.router.handle_accepted(self.now, Framing::Length));
    }

    /// The gateway takes so many messages at once, and keeps 10 of each topic.
    fn keep_few(&mut self, window: u32) {
        self.gateway.change(8, |config| {
            config.limits.window_messages = window;
            config.kept = Quota { messages: 10, ..config.kept };
        });
    }

    fn dead(&self) -> Vec<u8> {
        self.gateway.store.dead_letters().iter().filter_map(|letter| letter.record.last().copied()).collect()
    }

    fn got(&self) -> Vec<u8> {
        self.sub.got.iter().map(|(_, _, payload, _)| payload[0]).collect()
    }

    fn send(&mut self, payload: &[u8]) -> Result<u64, SendError> {
        self.send_to(0, payload)
    }

    fn send_to(&mut self, topic: u16, payload: &[u8]) -> Result<u64, SendError> {
        let message = (TopicIndex(topic), payload);
        self.device.take(self.now, message, Overflow::Refuse)
    }

    /// Passes bytes around until nothing moves.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.now = self.now + Duration::from_micros(50);
            let now = self.now;
            self.device.serve(now);
            let mut frames = [0; 1024];
            let len = self.device.poll_transmit(now, &mut frames);
            let mut up = frames[..len].to_vec();
            let mut down = Vec::new();
            self.gateway.take(now, &mut up);
            self.gateway.give(now, &mut down);
            self.device.handle_bytes(now, &down);
            while let Some(event) = self.device.poll_event() {
                self.weak |= matches!(event, Event::WeakAcks(_));
                self.too_large += usize::from(event == Event::TooLarge);
                if let Event::TopicFull { topic } | Event::TopicFree { topic } = event {
                    self.full.push((topic.0, matches!(event, Event::TopicFull { .. })));
                }
            }
            // The subscriber's line.
            let (mut up, mut down) = (Vec::new(), Vec::new());
            self.sub.give(now, &mut up);
            let device_conn = core::mem::replace(&mut self.gateway.conn, self.sub_conn_gateway);
            self.gateway.take(now, &mut up);
            self.gateway.give(now, &mut down);
            self.sub_conn_gateway = core::mem::replace(&mut self.gateway.conn, device_conn);
            self.sub.take(now, &mut down);
            self.sub.serve(now);
        }
    }
}

fn a_reading_travels_from_a_device_through_a_gateway_to_a_subscriber<K: Kind>() {
    let mut path = Path::<K>::new();
    path.link_device();
    path.link_sub();
    for n in 0..10_u8 {
        path.send(&[n; 16]).expect("room");
    }
    path.settle();
    assert_eq!(path.device.queued(), 0, "everything is acknowledged");
    let seqs: Vec<u64> = path.sub.got.iter().map(|(_, seq, ..)| *seq).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    assert!(path.sub.got.iter().all(|(from, _, _, again)| from == "dev" && !again));
    assert_eq!(path.gateway.router.queued(), 0);
}

fn what_a_gateway_acknowledged_survives_its_death<K: Kind>() {
    let mut path = Path::<K>::new();
    path.link_device();
    for n in 0..10_u8 {
        path.send(&[n; 16]).expect("room");
    }
    path.settle();
    assert_eq!(path.device.queued(), 0);
    path.gateway.restart(77);
    path.device.handle_link_down(path.now);
    path.link_device();
    path.link_sub();
    for n in 10..20_u8 {
        path.send(&[n; 16]).expect("room");
    }
    path.settle();
    let payloads: Vec<u8> = path.sub.got.iter().map(|(_, _, payload, _)| payload[0]).collect();
    assert_eq!(payloads, (0..20).collect::<Vec<_>>());
}

fn a_full_device_refuses_and_keeps_what_it_has<K: Kind>() {
    let mut path = Path::<K>::new();
    let mut accepted = 0_u8;
    while path.send(&[accepted; 60]).is_ok() {
        accepted += 1;
        assert!(accepted < 100, "a store of 2 KiB has an end");
    }
    assert!(accepted >= 20, "{accepted} messages of 60 bytes in 2 KiB");
    path.link_device();
    path.link_sub();
    path.settle();
    let payloads: Vec<u8> = path.sub.got.iter().map(|(_, _, payload, _)| payload[0]).collect();
    assert_eq!(payloads, (0..accepted).collect::<Vec<_>>());
}

fn a_full_device_that_drops_the_oldest_says_how_many<K: Kind>() {
    let mut path = Path::<K>::new();
    for n in 0..100_u8 {
        let message = (TopicIndex(0), &[n; 60][..]);
        path.device.take(path.now, message, Overflow::DropOldest).expect("there is always room");
    }
    path.link_device();
    path.link_sub();
    path.settle();
    let payloads: Vec<u8> = path.sub.got.iter().map(|(_, _, payload, _)| payload[0]).collect();
    let first = payloads[0];
    assert_eq!(payloads, (first..100).collect::<Vec<_>>());
    let mut gap = 0;
    while let Some(event) = path.gateway.router.poll_event() {
        if let liner_proto::router::Event::Gap { count, .. } = event {
            gap += count;
        }
    }
    assert_eq!(gap, u64::from(first), "every dropped message is told of");
}

fn events_of_a_device_tell_of_its_link<K: Kind>() {
    let mut path = Path::<K>::new();
    path.link_device();
    let now = path.now;
    let mut frames = [0; 1024];
    let len = path.device.poll_transmit(now, &mut frames);
    let mut up = frames[..len].to_vec();
    path.gateway.take(now, &mut up);
    let mut down = Vec::new();
    path.gateway.give(now, &mut down);
    path.device.handle_bytes(now, &down);
    assert_eq!(path.device.poll_event(), Some(Event::Connected { resumed: false }));
    path.device.handle_link_down(now);
    assert!(matches!(path.device.poll_event(), Some(Event::Disconnected(_))));
    assert_eq!(path.device.poll_event(), None);
}

fn a_device_keeps_what_a_weaker_gateway_would_only_hold_in_memory<K: Kind>() {
    let config = DeviceConfig { class: Class::Power, ..DeviceConfig::new("dev", TOPICS, [1, 2]) };
    let mut path = Path::<K>::with(config);
    path.link_device();
    path.send(b"worth a disk").expect("room");
    path.settle();
    assert!(path.weak, "the device is told");
    assert_eq!(path.device.queued(), 1, "nothing was given away");

    let mut path = Path::<K>::with(DeviceConfig { accept_weak_acks: true, ..config });
    path.link_device();
    path.send(b"worth a disk").expect("room");
    path.settle();
    assert_eq!((path.weak, path.device.queued()), (false, 0), "unless it was told to");
}

fn a_device_writes_its_topics_out_for_a_gateway_that_keeps_no_numbers<K: Kind>() {
    for bindings_max in [0, 1] {
        let mut path = Path::<K>::with(DeviceConfig::new("dev", &["other", "readings"], [1, 2]));
        path.gateway.restrict(8, |limits| limits.bindings_max = bindings_max);
        path.link_device();
        path.link_sub();
        for n in 0..5_u8 {
            let message = (TopicIndex(1), &[n; 16][..]);
            path.device.take(path.now, message, Overflow::Refuse).expect("room");
        }
        path.settle();
        assert_eq!(path.device.queued(), 0);
        let payloads: Vec<u8> = path.sub.got.iter().map(|(_, _, payload, _)| payload[0]).collect();
        assert_eq!(payloads, [0, 1, 2, 3, 4]);
    }
}

fn a_device_says_which_message_is_too_large_and_leaves_it_to_the_application<K: Kind>() {
    let mut path = Path::<K>::new();
    path.gateway.restrict(8, |limits| limits.message_max = 60);
    for len in [10, 100, 101, 11] {
        path.send(&vec![1; len]).expect("nothing is known of the gateway");
    }
    path.link_device();
    path.link_sub();
    path.settle();
    assert_eq!((path.device.queued(), path.too_large), (3, 1), "what is before it has arrived");
    assert_eq!(path.send(&[1; 59]), Err(SendError::TooLarge));
    path.send(&[1; 58]).expect("with a byte of flags and one for the topic it is just short enough");
    path.device.handle_link_down(path.now);
    path.link_device();
    path.settle();
    assert_eq!((path.device.queued(), path.too_large), (4, 2), "once in a session");
    assert_eq!(path.send(&[1; 59]), Err(SendError::TooLarge));

    assert!(path.device.drop_oldest());
    path.settle();
    assert_eq!((path.device.queued(), path.too_large), (3, 3), "the next one is another matter");
    assert!(path.device.drop_oldest());
    path.settle();
    let lens: Vec<usize> = path.sub.got.iter().map(|(_, _, payload, _)| payload.len()).collect();
    assert_eq!((path.device.queued(), lens), (0, vec![10, 11, 58]));
}

fn a_device_keeps_what_its_gateway_would_only_put_aside<K: Kind>() {
    const WINDOW: u32 = 4;
    let mut path = Path::<K>::new();
    path.keep_few(WINDOW);
    path.link_device();
    for n in 0..50_u8 {
        path.send(&[n; 16]).expect("nothing is known of the topic");
    }
    path.settle();
    let dead = path.dead();
    assert!(!dead.is_empty() && dead.len() <= WINDOW as usize, "no more than what was under way: {dead:?}");
    assert_eq!(path.device.queued(), 50 - 10 - dead.len() as u64, "the rest waits");
    assert_eq!((path.send(b"new"), &*path.full), (Err(SendError::TopicFull), &[(0, true)][..]));

    path.link_sub();
    path.settle();
    assert_eq!((path.device.queued(), &*path.full), (0, &[(0, true), (0, false)][..]));
    path.send(&[50; 16]).expect("the topic takes messages again");
    path.settle();
    let all: Vec<u8> = (0..=50).filter(|n| !dead.contains(n)).collect();
    assert_eq!((path.got(), path.dead()), (all, dead), "all but what was put aside, in order");
}

fn what_was_said_of_a_topic_ends_with_the_session<K: Kind>() {
    let mut path = Path::<K>::new();
    path.keep_few(1);
    path.link_device();
    for n in 0..13_u8 {
        path.send(&[n; 16]).expect("nothing is known of the topic");
    }
    path.settle();
    assert_eq!((path.device.queued(), path.dead()), (2, vec![10]));
    path.device.handle_link_down(path.now);
    path.send(&[13; 16]).expect("the next gateway may have room");
    path.link_sub();
    path.settle();
    path.link_device();
    path.settle();
    assert_eq!((path.device.queued(), &*path.full), (0, &[(0, true), (0, false)][..]));
    assert_eq!(path.got(), (0..14).filter(|n| *n != 10).collect::<Vec<_>>());
}

fn a_restarted_device_waits_for_a_full_topic_and_lets_no_other_wait<K: Kind>() {
    const TWO: &[&str] = &["unheard", "readings"];
    let mut path = Path::<K>::with(DeviceConfig::new("dev", TWO, [1, 2]));
    path.keep_few(1);
    path.link_device();
    path.link_sub();
    for n in 0..20_u8 {
        path.send_to(0, &[n; 16]).expect("nothing is known of the topic");
    }
    path.settle();
    assert_eq!((path.device.queued(), path.dead()), (9, vec![10]), "nothing else is queued");
    path.send_to(1, &[20; 16]).expect("another topic is another matter");
    path.settle();
    assert_eq!((path.device.queued(), path.got()), (0, vec![20]), "it does not wait for the first one");
    assert_eq!(path.dead(), (10..20).collect::<Vec<_>>());
    assert_eq!(path.send_to(0, b"new"), Err(SendError::TopicFull));

    // What is in the store may be of any topic.
    let mut path = Path::<K>::new();
    path.keep_few(1);
    for n in 0..20_u8 {
        path.send(&[n; 16]).expect("room");
    }
    path.device.restart(DeviceConfig::new("dev", TOPICS, [3, 4]), path.now);
    let queued = path.device.queued();
    path.link_device();
    path.settle();
    let (left, dead) = if queued == 0 { (0, vec![]) } else { (9, vec![10]) };
    assert_eq!((path.device.queued(), path.dead()), (left, dead));
}

/// A line on which whatever the device says is answered with the same bytes.
fn handshakes(device: &mut impl Kind, answer: &[u8], until: Duration) -> Vec<Instant> {
    let (mut begun, mut now) = (Vec::new(), Instant::ZERO);
    let mut received: Vec<u8> = Vec::new();
    while now < Instant::ZERO + until {
        let mut scratch = [0; 512];
        let up = device.has_link();
        let bytes = device.turn(now, &received, &mut scratch, |_| {});
        received = if bytes.is_empty() { Vec::new() } else { answer.to_vec() };
        if device.has_link() && !up {
            begun.push(now);
        }
        if received.is_empty() {
            let (due, _) = device.poll_timeout().expect("it never gives up");
            assert!(due > now, "whoever waits as long as told finds something to do");
            now = due;
        } else {
            now = now + Duration::from_micros(100);
        }
    }
    begun
}

fn a_refused_handshake_is_begun_again_after_a_pause<K: Kind>() {
    let mut device = K::new(DeviceConfig::new("dev", TOPICS, [1, 2]), Instant::ZERO);
    let mut body = [0; 16];
    let close = Body::Close(Close { reason: CloseReason::Overloaded, text: "" });
    let len = wire::encode(&close, &mut body).expect("room");
    let mut refusal = [0; 32];
    let crc = seal::seal(SessionId::HANDSHAKE, &[&body[..len]]);
    let len = cobs::encode(&[&crc, &body[..len]], &mut refusal).expect("room");
    let refusal = refusal[..len].to_vec();
    let begun = handshakes(&mut device, &refusal, Duration::from_secs(700));
    assert_eq!(begun.first(), Some(&Instant::ZERO), "the first one waits for nothing");
    let pauses: Vec<Duration> = begun.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    let early = begun.iter().filter(|at| at.since(Instant::ZERO) < Duration::from_secs(60)).count();
    let (early, late) = pauses.split_at(early);
    let is_within = |pause: &Duration, millis: core::ops::Range<u64>| {
        (Duration::from_millis(millis.start)..Duration::from_millis(millis.end)).contains(pause)
    };
    assert!(early.iter().all(|pause| is_within(pause, 50..252)), "{early:?}");
    assert!(late.iter().all(|pause| is_within(pause, 500..1002)), "{late:?}");
    let distinct: std::collections::BTreeSet<_> = late.iter().collect();
    assert!(distinct.len() > late.len() / 2, "they are drawn");
}

fn sessions_that_end_at_once_do_not_shorten_the_pause<K: Kind>() {
    let mut path = Path::<K>::new();
    let mut pause_after = |up: Duration| {
        path.link_device();
        path.settle();
        assert!(path.device.is_up());
        path.now = path.now + up;
        // Whoever listens now knows nothing of the session, and does not say more.
        path.gateway.conn = None;
        let crc = seal::seal(SessionId::HANDSHAKE, &[&[tag::GREET]]);
        let mut greet = [0; 16];
        let len = cobs::encode(&[&crc, &[tag::GREET]], &mut greet).expect("room");
        path.device.handle_bytes(path.now, &greet[..len]);
        path.settle();
        assert!(path.device.is_up(), "a greeting alone ends nothing");
        path.now = path.now + Duration::from_millis(250);
        path.device.handle_timeout(path.now);
        let ended = path.now + Duration::from_micros(50);
        path.settle();
        assert!(!path.device.has_link() && !path.device.wants_link(path.now));
        let (due, _) = path.device.poll_timeout().expect("it tries again");
        path.now = due;
        assert!(path.device.wants_link(path.now));
        (due.since(ended), due)
    };
    let mut last = Duration::ZERO;
    let mut now = Instant::ZERO;
    while now < Instant::ZERO + Duration::from_secs(130) {
        (last, now) = pause_after(Duration::ZERO);
    }
    assert!(last >= Duration::from_millis(500), "{last:?}");
    let (pause, _) = pause_after(Duration::from_secs(2));
    assert!(pause <= Duration::from_millis(101), "{pause:?}");
}
