//! A device and a gateway on a line that loses and damages bytes, in virtual time.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod kinds;
mod pipe;

use kinds::Kind;
use liner_proto::config::LineConfig;
use liner_proto::effect::GapReason;
use liner_proto::endpoint::{DeviceConfig, Event as DeviceEvent, TopicIndex};
use liner_proto::id::{Class, ConnId};
use liner_proto::pump::Overflow;
use liner_proto::router::{Event, Message, NodeConfig, Router, StoreRequest};
use liner_proto::store::{HeapStore, Store, execute};
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::record::Mode;
use pipe::{CLEAN, Faults, Pipe};

const QUEUE: usize = 2048;
const FRAME: usize = 256;
const MESSAGE: usize = 16 * 1024;

/// A gateway that hands everything to its own application.
struct Gateway {
    router: Router,
    store: HeapStore,
    conn: ConnId,
    line: LineConfig,
    got: Vec<(u64, Vec<u8>, bool)>,
    events: Vec<Event>,
    unread: Vec<u8>,
}

impl Gateway {
    fn new(seed: u64, line: LineConfig) -> Self {
        let mut config = NodeConfig::new("gateway", [seed, 3], Class::Ram);
        config.takes_custody = true;
        let mut router = Router::new(config, Instant::ZERO);
        router.start(Instant::ZERO);
        router.subscribe(Instant::ZERO, "readings");
        let conn = router.handle_line(Instant::ZERO, line);
        let (store, got) = (HeapStore::new(64 << 20), Vec::new());
        Self { router, store, conn, line, got, events: Vec::new(), unread: Vec::new() }
    }

    /// It dies, and another process takes its place on the line.
    fn restart(&mut self, now: Instant, seed: u64) {
        let mut config = self.router.config().clone();
        config.seed = [seed, 5];
        self.router = Router::new(config, now);
        let router = &mut self.router;
        self.store.recover(&mut |item| router.restore(&item)).expect("in memory");
        self.router.start(now);
        self.router.subscribe(now, "readings");
        self.conn = self.router.handle_line(now, self.line);
        self.unread.clear();
    }

    fn serve(&mut self, now: Instant) {
        while let Some(request) = self.router.poll_store(now) {
            match request {
                StoreRequest::Commit(batch) => {
                    let outcome = execute(&mut self.store, &batch);
                    self.router.handle_committed(now, batch.id(), outcome);
                }
                StoreRequest::Load(load) => {
                    let mut buffer = vec![0; 65_536];
                    let result = self.store.load(load.queue(), load.after(), &mut buffer);
                    self.router.handle_loaded(now, &load, result, &buffer);
                }
            }
        }
        self.events.extend(std::iter::from_fn(|| self.router.poll_event()));
    }

    fn turn(&mut self, now: Instant, arrived: &[u8], out: &mut Pipe) {
        self.unread.extend_from_slice(arrived);
        self.router.handle_timeout(now);
        let got = &mut self.got;
        let mut application = |m: &Message<'_>| got.push((m.seq, m.payload.to_vec(), m.maybe_redelivered));
        let taken = self.router.handle_bytes(now, self.conn, &mut self.unread, &mut application);
        self.unread.drain(..taken);
        self.serve(now);
        while self.router.poll_writable().is_some() {}
        loop {
            let transmit = self.router.poll_transmit(now, self.conn);
            let bytes = [transmit.head, transmit.body].concat();
            if bytes.is_empty() {
                break;
            }
            out.put(now, &bytes);
            self.router.handle_written(now, self.conn, bytes.len());
        }
        while let Some(conn) = self.router.poll_close() {
            self.router.handle_closed(now, conn);
            self.conn = self.router.handle_line(now, self.line);
        }
        self.serve(now);
    }
}

both!(super::kinds::InRam<{ super::QUEUE }, { super::FRAME }>, super::kinds::InStore<{ super::QUEUE }, { super::FRAME }, { super::QUEUE }>:
    everything_arrives_in_order_and_once
    what_is_lost_costs_little_more_than_its_own_time
    a_gateway_that_starts_anew_is_found_on_the_same_line
    nothing_of_a_device_that_starts_anew_is_taken_for_old
    the_count_of_what_a_reboot_loses_is_right
    commands_reach_a_device_over_a_bad_line
    a_line_for_one_side_at_a_time_works
    nothing_but_what_was_sent_is_taken_from_noise
    a_session_outlasts_the_clock_of_a_device
    a_device_that_slept_for_days_finds_its_gateway
);

#[test]
fn long_messages_in_ram_travel_in_pieces_among_short_ones() {
    long_messages_travel_in_pieces_among_short_ones::<kinds::InRam<{ 32 * 1024 }, FRAME, MESSAGE>>();
}

#[test]
fn long_messages_in_a_store_travel_in_pieces_among_short_ones() {
    long_messages_travel_in_pieces_among_short_ones::<
        kinds::InStore<{ 32 * 1024 }, FRAME, { 32 * 1024 }, MESSAGE>,
    >();
}

struct World<K> {
    now: Instant,
    device: K,
    gateway: Gateway,
    up: Pipe,
    down: Pipe,
    /// What the device was sent, and what it missed.
    commands: Vec<(Vec<u8>, bool)>,
    gaps: Vec<(u64, GapReason)>,
    disconnects: usize,
}

fn config(seed: u64, line: LineConfig) -> DeviceConfig<'static> {
    let mut config = DeviceConfig::new("dev", &["readings", "alarms"], [seed, 1]);
    config.line = line;
    config
}

impl<K: Kind> World<K> {
    fn new(faults: Faults, line: LineConfig, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            device: K::new(config(seed, line), Instant::ZERO),
            gateway: Gateway::new(seed, line),
            up: Pipe::new(faults, seed),
            down: Pipe::new(faults, seed + 1000),
            commands: Vec::new(),
            gaps: Vec::new(),
            disconnects: 0,
        }
    }

    fn send(&mut self, payload: &[u8]) -> bool {
        let message = (TopicIndex(0), payload);
        self.device.take(self.now, message, Overflow::Refuse).is_ok()
    }

    /// The device is switched off and on.
    fn reboot(&mut self, seed: u64) {
        self.device = K::new(config(seed, KNOWN), self.now);
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.pass(Duration::from_millis(1));
    }

    /// Time passes in which nobody looks at the clock.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let now = self.now;
        let arrived = self.down.take(now);
        let mut scratch = vec![0; 64 * 1024];
        let (commands, gaps, disconnects) = (&mut self.commands, &mut self.gaps, &mut self.disconnects);
        let bytes = self.device.turn(now, &arrived, &mut scratch, |event| {
            if let DeviceEvent::Message { payload, maybe_redelivered, .. } = event {
                commands.push((payload.to_vec(), maybe_redelivered));
            } else if let DeviceEvent::Gap { count, reason } = event {
                gaps.push((count, reason));
            } else if let DeviceEvent::Disconnected(_) = event {
                *disconnects += 1;
            }
        });
        self.up.put(now, bytes);
        let arrived = self.up.take(now);
        self.gateway.turn(now, &arrived, &mut self.down);
    }

    /// Sends messages, as many as go, until all are sent and acknowledged. Says how long that took.
    fn send_all(&mut self, messages: &[Vec<u8>], most: Duration) -> Duration {
        let begun = self.now;
        let mut rest = messages;
        while !rest.is_empty() || self.device.queued() > 0 {
            while let Some((message, after)) = rest.split_first() {
                if !self.send(message) {
                    break;
                }
                rest = after;
            }
            self.step();
            assert!(
                self.now.since(begun) < most,
                "{} are not sent, {} are queued, {:?}",
                rest.len(),
                self.device.queued(),
                self.device.line_stats()
            );
        }
        self.now.since(begun)
    }

    fn payloads(&self) -> Vec<&[u8]> {
        self.gateway.got.iter().map(|(_, payload, _)| &payload[..]).collect()
    }
}

fn numbered(count: u32, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| [&n.to_le_bytes()[..], &vec![n as u8; len - 4]].concat()).collect()
}

const KNOWN: LineConfig = LineConfig { baud: Some(115_200), half_duplex: false };

fn everything_arrives_in_order_and_once<K: Kind>() {
    for seed in 0..30 {
        let faults = Faults { turned: 500, lost: 300, inserted: 300, ..CLEAN };
        let line = if seed % 2 == 0 { KNOWN } else { LineConfig::default() };
        let mut world: World<K> = World::new(faults, line, seed);
        let messages = numbered(500, 40);
        world.send_all(&messages, Duration::from_secs(120));
        assert_eq!(world.payloads(), messages, "seed {seed}");
        assert!(world.gateway.got.iter().all(|(_, _, again)| !again), "nothing is in doubt");
        assert_eq!(world.disconnects, 0, "noise ends no session");
        let stats = world.device.line_stats();
        assert!(stats.retransmissions > 0 && stats.rtt.is_some(), "{stats:?}");
    }
}

fn what_is_lost_costs_little_more_than_its_own_time<K: Kind>() {
    // One bit in 100,000.
    let faults = Faults { turned: 80, ..CLEAN };
    let mut world: World<K> = World::new(faults, KNOWN, 7);
    let messages = numbered(4000, 64);
    let took = world.send_all(&messages, Duration::from_secs(300));
    assert_eq!(world.payloads(), messages);
    // On the line a message has 10 bytes more.
    let frame_error_rate = 74.0 * 80.0 / 1_000_000.0;
    let best = 4000.0 * 74.0 * 10.0 / 115_200.0 / (1.0 - frame_error_rate);
    let share = best / took.as_secs_f64();
    assert!(share > 0.85, "{share} of what the line lets through, {:?}", world.device.line_stats());
}

fn a_gateway_that_starts_anew_is_found_on_the_same_line<K: Kind>() {
    let mut world: World<K> = World::new(Faults { turned: 100, ..CLEAN }, KNOWN, 3);
    let messages = numbered(3000, 40);
    let mut rest = &messages[..];
    let mut restarts = 0;
    while !rest.is_empty() || world.device.queued() > 0 {
        while let Some((message, after)) = rest.split_first() {
            if !world.send(message) {
                break;
            }
            rest = after;
        }
        world.step();
        if world.now.as_micros().is_multiple_of(1_500_000) && restarts < 10 {
            restarts += 1;
            world.gateway.restart(world.now, 100 + restarts);
        }
        assert!(world.now < Instant::ZERO + Duration::from_secs(300), "{} left", world.device.queued());
    }
    assert!(restarts >= 3, "{restarts}");
    let mut fresh = world.gateway.got.clone();
    fresh.dedup_by(|a, b| a.1 == b.1 && a.2);
    let fresh: Vec<&[u8]> = fresh.iter().map(|(_, payload, _)| &payload[..]).collect();
    assert_eq!(fresh.len(), messages.len());
    assert_eq!(fresh, messages);
}

fn nothing_of_a_device_that_starts_anew_is_taken_for_old<K: Kind>() {
    let mut world: World<K> = World::new(CLEAN, KNOWN, 5);
    world.send_all(&numbered(20, 40), Duration::from_secs(20));
    for reboot in 0..20_u64 {
        // What is sent from here on reaches nobody.
        world.up.faults.lost = 1_000_000;
        for message in numbered(3, 40) {
            assert!(world.send(&message));
        }
        for _ in 0..50 {
            world.step();
        }
        let before = world.gateway.got.len();
        world.reboot(50 + reboot);
        world.up.faults.lost = 0;
        world.send_all(&numbered(10, 40), Duration::from_secs(20));
        assert_eq!(world.gateway.got.len(), before + 10);
    }
}

fn the_count_of_what_a_reboot_loses_is_right<K: Kind>() {
    let mut world: World<K> = World::new(CLEAN, KNOWN, 5);
    world.send_all(&numbered(20, 40), Duration::from_secs(20));
    for held in [1_u32, 7, 12] {
        world.gateway.events.clear();
        let taken = world.gateway.got.len();
        for message in numbered(held, 40) {
            assert!(world.send(&message));
        }
        let mut scratch = [0; 4096];
        // All frames with records are lost, and the word of their number is not.
        for _ in 0..400 {
            world.now = world.now + Duration::from_millis(1);
            let arrived = world.down.take(world.now);
            let bytes = world.device.turn(world.now, &arrived, &mut scratch, |_| {});
            for frame in bytes.split_inclusive(|byte| *byte == 0).filter(|frame| frame.len() < 30) {
                world.up.put(world.now, frame);
            }
            let arrived = world.up.take(world.now);
            world.gateway.turn(world.now, &arrived, &mut world.down);
        }
        assert_eq!(world.gateway.got.len(), taken);
        world.reboot(u64::from(held) + 70);
        world.send_all(&numbered(2, 40), Duration::from_secs(20));
        let gap = |event: &Event| {
            let Event::Gap { count, reason, .. } = event else { return None };
            Some((*count, *reason))
        };
        let gaps: Vec<_> = world.gateway.events.iter().filter_map(gap).collect();
        assert_eq!(gaps, [(u64::from(held), GapReason::Restarted)]);
    }
}

fn commands_reach_a_device_over_a_bad_line<K: Kind>() {
    for seed in 0..10 {
        let faults = Faults { turned: 500, lost: 300, inserted: 300, ..CLEAN };
        let mut world: World<K> = World::new(faults, KNOWN, seed);
        while !world.device.is_up() {
            world.step();
        }
        let commands = numbered(100, 40);
        for command in &commands {
            world.gateway.router.send(world.now, "dev", command, Mode::All).expect("it is kept");
        }
        while world.commands.len() < 100 {
            world.step();
            assert!(world.now < Instant::ZERO + Duration::from_secs(120), "{} came", world.commands.len());
        }
        let got: Vec<_> = world.commands.iter().map(|(payload, _)| payload.clone()).collect();
        assert_eq!(got, commands, "seed {seed}");
    }
}

fn a_line_for_one_side_at_a_time_works<K: Kind>() {
    let line = LineConfig { baud: Some(19_200), half_duplex: true };
    let mut world: World<K> = World::new(Faults { turned: 100, baud: 19_200, ..CLEAN }, line, 9);
    let messages = numbered(200, 40);
    world.send_all(&messages, Duration::from_secs(120));
    assert_eq!(world.payloads(), messages);
}

#[test]
fn a_device_without_a_random_source_is_given_its_epochs() {
    let settings = config(1, KNOWN);
    let mut world: World<kinds::InRam<QUEUE, FRAME, 0, true>> = World::new(CLEAN, KNOWN, 1);
    for life in 1..=10 {
        world.send_all(&numbered(20, 40), Duration::from_secs(30));
        assert_eq!(
            world.gateway.got.len(),
            life * 20,
            "no message of a new life is taken for one of the last"
        );
        // The same seed again, as if it had been switched on.
        world.device = Kind::new(settings, world.now);
    }
}

fn nothing_but_what_was_sent_is_taken_from_noise<K: Kind>() {
    let faults = Faults { turned: 5000, lost: 2000, inserted: 2000, ..CLEAN };
    let mut world: World<K> = World::new(faults, KNOWN, 11);
    let messages = numbered(100, 24);
    world.send_all(&messages, Duration::from_secs(600));
    assert_eq!(world.payloads(), messages);
}

fn long_messages_travel_in_pieces_among_short_ones<K: Kind>() {
    const LONG: usize = 9000;
    for seed in 0..5 {
        let faults = Faults { turned: 80, lost: 20, ..CLEAN };
        let mut world: World<K> = World::new(faults, KNOWN, seed);
        let messages: Vec<Vec<u8>> = (0..12_u8)
            .map(|n| if n % 3 == 0 { (0..LONG).map(|at| (at as u8) ^ n).collect() } else { vec![n; 30] })
            .collect();
        world.send_all(&messages, Duration::from_secs(300));
        assert_eq!(world.payloads(), messages, "seed {seed}");
    }
}

/// A device counts its time in 32 bits, which begin anew after 38 hours.
fn a_session_outlasts_the_clock_of_a_device<K: Kind>() {
    let mut world = World::<K>::new(CLEAN, KNOWN, 21);
    for hour in 0..100_u8 {
        world.send_all(&[vec![hour]], Duration::from_secs(10));
        for _ in 0..900 {
            world.pass(Duration::from_secs(4));
        }
        let (due, _) = world.device.poll_timeout().expect("it keeps the session alive");
        assert!(due.since(world.now) <= Duration::from_secs(5), "{:?}", due.since(world.now));
    }
    assert_eq!(world.disconnects, 0);
    let expected: Vec<_> = (1..).zip(0..100_u8).map(|(seq, hour)| (seq, vec![hour], false)).collect();
    assert_eq!(world.gateway.got, expected);
}

fn a_device_that_slept_for_days_finds_its_gateway<K: Kind>() {
    let mut world = World::<K>::new(CLEAN, KNOWN, 22);
    for (before, hours) in (0..).zip([0_u8, 9, 10, 19, 20, 38, 39, 77, 200]) {
        world.pass(Duration::from_secs(3600 * u64::from(hours)));
        let took = world.send_all(&[vec![hours]], Duration::from_secs(20));
        assert!(took < Duration::from_secs(8), "after {hours} h: {took:?}");
        assert_eq!(world.disconnects, before, "the session before a sleep ends with it");
    }
    assert_eq!(world.gateway.got.len(), 9);
}
