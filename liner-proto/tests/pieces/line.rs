//! Long messages over a line of short frames that damages bits, through a gateway, to a subscriber.

use liner_proto::config::LineConfig;
use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event as DeviceEvent, TopicIndex};
use liner_proto::id::ConnId;
use liner_proto::pump::{self, Overflow};
use liner_proto::router::{Message, SendOptions};
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::record::Mode;

use crate::nodes::{Node, link};
use crate::pipe::{Faults, Pipe};
use crate::{gaps, payload};

const LONG: usize = 256 * 1024;
const QUEUE: usize = 640 * 1024;
const FRAME: usize = 512;
const MESSAGE: usize = LONG + 1024;

const LINE: LineConfig = LineConfig { baud: Some(921_600), half_duplex: false };

/// One bit in 100,000.
const FAULTS: Faults = Faults { turned: 80, lost: 0, inserted: 0, baud: 921_600 };

struct World {
    now: Instant,
    device: Box<Endpoint<'static, QUEUE, FRAME, MESSAGE>>,
    gateway: Node,
    line: ConnId,
    unread: Vec<u8>,
    screen: Node,
    /// The connection of the screen to the gateway, on both sides.
    tcp: (ConnId, ConnId),
    up: Pipe,
    down: Pipe,
    commands: Vec<Vec<u8>>,
    disconnects: usize,
}

impl World {
    fn new(faults: Faults, seed: u64) -> Self {
        let mut config = DeviceConfig::new("dev", &["t"], [seed, 1]);
        config.line = LINE;
        let mut gateway = Node::start("gateway", |config| config.takes_custody = true);
        let mut screen = Node::start("screen", |config| config.durable = true);
        screen.router.subscribe(screen.now, "t");
        let tcp = link(&mut screen, &mut gateway);
        let line = gateway.router.handle_line(gateway.now, LINE);
        let mut world = Self {
            now: Instant::from_micros(1000),
            device: Box::new(Endpoint::new(config, Instant::ZERO)),
            gateway,
            line,
            unread: Vec::new(),
            screen,
            tcp,
            up: Pipe::new(faults, seed),
            down: Pipe::new(faults, seed + 1000),
            commands: Vec::new(),
            disconnects: 0,
        };
        while !world.device.is_up() {
            world.step();
        }
        world
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let now = self.now;
        let arrived = self.down.take(now);
        let mut scratch = vec![0; MESSAGE + 3];
        let (commands, disconnects) = (&mut self.commands, &mut self.disconnects);
        let each = |event: DeviceEvent<'_>| {
            if let DeviceEvent::Message { payload, .. } = event {
                commands.push(payload.to_vec());
            } else if let DeviceEvent::Disconnected(_) = event {
                *disconnects += 1;
            }
        };
        let (bytes, _) = pump::turn(&mut *self.device, now, &arrived, &mut scratch, each);
        self.up.put(now, bytes);
        self.unread.extend(self.up.take(now));
        (self.gateway.now, self.screen.now) = (now, now);
        let mut nobody = |_: &Message<'_>| panic!("the gateway subscribes to nothing");
        let taken = self.gateway.router.handle_bytes(now, self.line, &mut self.unread, &mut nobody);
        self.unread.drain(..taken);
        self.gateway.pass(Duration::ZERO);
        self.screen.pass(Duration::ZERO);
        let written = self.gateway.give(self.line);
        self.down.put(now, &written);
        let bytes = self.gateway.give(self.tcp.1);
        self.screen.take(self.tcp.0, bytes);
        self.screen.serve();
        let bytes = self.screen.give(self.tcp.0);
        self.gateway.take(self.tcp.1, bytes);
        self.gateway.serve();
    }

    fn send(&mut self, payload: &[u8]) -> bool {
        let message = (TopicIndex(0), payload);
        pump::send(&mut *self.device, self.now, message, Overflow::Refuse).is_ok()
    }
}

/// An endpoint of this size is moved a few times before it stands in its box.
fn with_room(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(work).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// 256 KiB messages over a line of 512-byte frames on which one bit in 100,000 is turned, among small ones, in both directions.
#[test]
fn long_messages_arrive_whole_among_small_ones() {
    with_room(|| {
        for seed in 0..2 {
            let mut world = World::new(FAULTS, seed);
            let lens = [20, LONG, 20, 300, LONG, LONG - 1, 20, 480, 500, 520];
            let messages: Vec<_> = lens.iter().zip(0..).map(|(len, seed)| payload(*len, seed)).collect();
            let commands: Vec<_> =
                [30, LONG, 30].iter().zip(50..).map(|(len, seed)| payload(*len, seed)).collect();
            for command in &commands {
                world.gateway.router.send(world.now, "dev", command, Mode::One).expect("it is queued");
            }
            let begun = world.now;
            let mut rest = &messages[..];
            while world.screen.got.len() < messages.len() || world.commands.len() < commands.len() {
                while let Some((message, after)) =
                    rest.split_first().filter(|(message, _)| world.send(message))
                {
                    let _ = message;
                    rest = after;
                }
                world.step();
                let passed = world.now.since(begun);
                assert!(
                    passed < Duration::from_secs(60),
                    "{seed}: {} and {} came, {:?} {:?}",
                    world.screen.got.len(),
                    world.commands.len(),
                    (world.disconnects, world.device.queued(), rest.len(), world.device.line_stats()),
                    (
                        world.gateway.events(),
                        world.gateway.router.line_stats(world.line),
                        world.gateway.router.queued(),
                        world.unread.len(),
                        world.gateway.router.poll_timeout(),
                        world.device.poll_timeout(),
                        world.now
                    )
                );
                assert!(world.gateway.router.assembling() <= MESSAGE);
            }
            assert!(world.screen.got.iter().map(|(payload, _)| payload).eq(&messages), "seed {seed}");
            assert!(world.screen.got.iter().all(|(_, again)| !again));
            assert!(world.commands == commands, "seed {seed}");
            assert_eq!(world.disconnects, 0, "noise ends no session");
            let stats = world.device.line_stats();
            assert!(stats.retransmissions > 50, "{stats:?}");
            // What is lost costs little more than its own time: 778 KiB at ten bits to a byte, with what frames add.
            let took = world.now.since(begun).as_secs_f64();
            let bytes: usize = lens.iter().sum();
            let least = bytes as f64 * 10.0 / 921_600.0;
            assert!(took < 1.4 * least, "{took} s for {least} s of bytes");
        }
    });
}

/// Whenever it is dropped, and whatever is lost of it meanwhile: the message comes whole or is a gap, and nothing else changes.
#[test]
fn a_message_that_is_dropped_in_the_middle_is_whole_or_a_gap() {
    with_room(|| {
        let (mut whole, mut lost) = (0, 0);
        for moment in 0..60 {
            // One frame in four is lost.
            let mut world = World::new(Faults { turned: 600, ..FAULTS }, moment);
            let long = payload(12_000, moment as usize);
            assert!(world.send(b"before") && world.send(&long));
            for _ in 0..20 + 4 * moment {
                world.step();
            }
            // If the first one is acknowledged, it is the long one that goes.
            let was = world.device.queued();
            let dropped = was == 1 && world.device.drop_oldest();
            assert!(world.send(b"after") && world.send(&long));
            while world.device.queued() > 0 || world.screen.got.last().is_none_or(|(last, _)| *last != long) {
                world.step();
                assert!(
                    world.now < Instant::ZERO + Duration::from_secs(60),
                    "{moment}: {:?}",
                    world.disconnects
                );
            }
            for _ in 0..100 {
                world.step();
            }
            let got: Vec<_> = world.screen.got.iter().map(|(payload, _)| payload.clone()).collect();
            let told = gaps(&mut world.gateway);
            if got.len() == 4 {
                assert!(got == [b"before".to_vec(), long.clone(), b"after".to_vec(), long], "{moment}");
                assert_eq!(told, []);
                whole += 1;
            } else {
                assert!(got == [b"before".to_vec(), b"after".to_vec(), long], "{moment}");
                assert_eq!(told, [(1, GapReason::Dropped)], "{moment}");
                assert!(dropped);
                lost += 1;
            }
            assert_eq!(world.disconnects, 0, "{moment}");
        }
        assert!(whole > 5 && lost > 5, "{whole} {lost}");
    });
}

/// What has begun to leave goes on, however long that takes.
#[test]
fn a_long_message_that_is_on_its_way_when_its_time_ends_arrives() {
    with_room(|| {
        let mut world = World::new(FAULTS, 7);
        let command = payload(LONG, 1);
        let options = SendOptions::new(Mode::One).ttl(Duration::from_secs(1));
        for command in [&command[..], b"too old when its turn comes"] {
            world.gateway.router.send_with(world.now, "dev", command, &options).expect("it is queued");
        }
        world.gateway.router.send(world.now, "dev", b"next", Mode::One).expect("it is queued");
        while world.commands.len() < 2 && world.now < Instant::ZERO + Duration::from_secs(60) {
            world.step();
        }
        assert!(world.commands == [command, b"next".to_vec()], "{} came", world.commands.len());
        assert_eq!(world.gateway.dead(), [DeadReason::Expired]);
    });
}

/// A device whose frames are longer than those of a line, and that has no memory to put pieces together: what does not fit a frame
/// of the line would come in pieces, which it could only end the session for, again and again.
#[test]
fn a_device_without_memory_for_pieces_is_sent_none() {
    const LONG_FRAME: usize = 4096;
    with_room(|| {
        let mut config = DeviceConfig::new("dev", &["t"], [1, 2]);
        config.line = LINE;
        let mut device = Box::new(Endpoint::<8192, LONG_FRAME>::new(config, Instant::ZERO));
        let mut gateway = Node::start("gateway", |config| config.takes_custody = true);
        let line = gateway.router.handle_line(gateway.now, LINE);
        for len in [1900, 2100, 4000, 4096, 2020] {
            let command = payload(len, len);
            gateway.router.send(gateway.now, "dev", &command, Mode::One).expect("it is queued");
        }
        let (mut got, mut gaps, mut disconnects) = (Vec::new(), 0, 0);
        let mut down = Vec::new();
        for _ in 0..20_000 {
            gateway.now = gateway.now + Duration::from_millis(1);
            let each = |event: DeviceEvent<'_>| match event {
                DeviceEvent::Message { payload, .. } => got.push(payload.len()),
                DeviceEvent::Gap { count, reason } => {
                    assert_eq!(reason, GapReason::TooLarge);
                    gaps += count;
                }
                DeviceEvent::Disconnected(_) => disconnects += 1,
                DeviceEvent::Connected { .. } | _ => {}
            };
            let mut scratch = vec![0; LONG_FRAME + 64];
            let (bytes, _) = pump::turn(&mut *device, gateway.now, &down, &mut scratch, each);
            gateway.take(line, bytes.to_vec());
            gateway.pass(Duration::ZERO);
            gateway.serve();
            down = gateway.give(line);
        }
        assert_eq!((disconnects, gaps), (0, 3), "{got:?}");
        assert_eq!(got, [1900, 2020], "what fits arrives");
        assert_eq!(gateway.router.queued(), 0);
    });
}
