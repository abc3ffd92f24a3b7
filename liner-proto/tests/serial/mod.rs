//! A device and a gateway on a line, in virtual time, each woken only when it asked to be: by bytes, by its own deadline, or because the
//! other side of the drain rule had something left. A wakeup that is lost stops the world, and a deadline that stays in the past is
//! found by its count.

#![allow(dead_code, reason = "no test needs all of it")]

use std::collections::VecDeque;

use liner_proto::config::LineConfig;
use liner_proto::effect::{GapReason, Recovered};
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event as DeviceEvent, Ram, TopicIndex};
use liner_proto::frame::cobs;
use liner_proto::id::{Class, ConnId};
use liner_proto::pump::{self, Overflow};
use liner_proto::router::{Application, Event, Message, NodeConfig, Router, StoreRequest};
use liner_proto::seal;
use liner_proto::store::{HeapStore, Store, execute};
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::record::Mode;
use liner_proto::wire::{self, tag};

/// Steps at one instant after which somebody is taken to be in a busy loop.
const STEPS_MAX: u32 = 200;

/// The device takes what is sent to its name.
const MAILBOX: Recovered<'static> = Recovered::Subscription { topic: "dev", address: "@dev", name: "dev" };

/// What becomes of the frame of this place, its zero included. What is left is delivered.
pub(crate) type Fate = Box<dyn FnMut(u32, &mut Vec<u8>)>;

/// One direction of a line.
pub(crate) struct Wire {
    /// Nothing for one that takes no time for its bytes.
    pub(crate) baud: Option<u64>,
    /// What a bridge adds.
    pub(crate) latency: Duration,
    pub(crate) fate: Fate,
    /// Frames that were written.
    pub(crate) frames: u32,
    pub(crate) bytes: u64,
    /// What arrives and when, if it is to be kept.
    pub(crate) record: Option<Vec<(Instant, Vec<u8>)>>,
    free_at: Instant,
    way: VecDeque<(Instant, Vec<u8>)>,
}

impl Wire {
    pub(crate) fn new(baud: Option<u64>) -> Self {
        Self {
            baud,
            latency: Duration::from_micros(100),
            fate: Box::new(|_, _| {}),
            frames: 0,
            bytes: 0,
            record: None,
            free_at: Instant::ZERO,
            way: VecDeque::new(),
        }
    }

    pub(crate) fn put(&mut self, now: Instant, bytes: &[u8]) {
        for frame in bytes.split_inclusive(|byte| *byte == 0) {
            self.bytes += frame.len() as u64;
            let micros = self.baud.map_or(0, |baud| frame.len() as u64 * 10_000_000 / baud);
            self.free_at = self.free_at.max(now) + Duration::from_micros(micros);
            let mut frame = frame.to_vec();
            if frame.len() > 1 {
                (self.fate)(self.frames, &mut frame);
                self.frames += 1;
            }
            if frame.is_empty() {
                continue;
            }
            let at = self.free_at + self.latency;
            if let Some(record) = &mut self.record {
                record.push((at, frame.clone()));
            }
            self.way.push_back((at, frame));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.way.front().map(|(at, _)| *at)
    }

    fn take(&mut self, now: Instant) -> Vec<u8> {
        let there = self.way.iter().take_while(|(at, _)| *at <= now).count();
        self.way.drain(..there).flat_map(|(_, bytes)| bytes).collect()
    }

    /// What is on its way is lost.
    pub(crate) fn cut(&mut self) {
        self.way.clear();
    }
}

/// A gateway that hands everything to its own application.
pub(crate) struct Gateway {
    pub(crate) router: Router,
    pub(crate) store: HeapStore,
    pub(crate) conn: ConnId,
    pub(crate) line: LineConfig,
    pub(crate) got: Vec<(u64, Vec<u8>, bool)>,
    pub(crate) events: Vec<Event>,
    unread: Vec<u8>,
    closing: bool,
    /// Messages that its application takes at a time.
    pub(crate) room: usize,
}

struct Taker<'a> {
    got: &'a mut Vec<(u64, Vec<u8>, bool)>,
    room: usize,
}

impl Application for Taker<'_> {
    fn message(&mut self, message: &Message<'_>) {
        self.room -= 1;
        self.got.push((message.seq, message.payload.to_vec(), message.maybe_redelivered));
    }

    fn is_full(&self) -> bool {
        self.room == 0
    }
}

impl Gateway {
    pub(crate) fn new(config: NodeConfig, line: LineConfig) -> Self {
        let mut router = Router::new(config, Instant::ZERO);
        router.restore(&MAILBOX);
        router.start(Instant::ZERO);
        router.subscribe(Instant::ZERO, "readings");
        let conn = router.handle_line(Instant::ZERO, line);
        let (store, got) = (HeapStore::new(1 << 26), Vec::new());
        Self {
            router,
            store,
            conn,
            line,
            got,
            events: Vec::new(),
            unread: Vec::new(),
            closing: false,
            room: usize::MAX,
        }
    }

    /// It dies, and another process takes its place on the line.
    pub(crate) fn restart(&mut self, now: Instant, seed: u64) {
        let mut config = self.router.config().clone();
        config.seed = [seed, 5];
        config.instance = seed;
        self.router = Router::new(config, now);
        let router = &mut self.router;
        self.store.recover(&mut |item| router.restore(&item)).expect("in memory");
        router.restore(&MAILBOX);
        self.router.start(now);
        self.router.subscribe(now, "readings");
        self.conn = self.router.handle_line(now, self.line);
        self.unread.clear();
        self.closing = false;
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

    pub(crate) fn hear(&mut self, now: Instant, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        loop {
            let mut application = Taker { got: &mut self.got, room: self.room };
            let taken = self.router.handle_bytes(now, self.conn, &mut self.unread, &mut application);
            let is_full = application.is_full();
            self.unread.drain(..taken);
            // An application that has room again is asked for only if there is something for it.
            if !is_full || self.unread.is_empty() {
                return;
            }
        }
    }

    /// Does all that is owed, and no more.
    pub(crate) fn drain(&mut self, now: Instant, out: &mut Wire) {
        self.serve(now);
        while let Some(conn) = self.router.poll_writable() {
            loop {
                let transmit = self.router.poll_transmit(now, conn);
                let bytes = [transmit.head, transmit.body].concat();
                if bytes.is_empty() {
                    break;
                }
                out.put(now, &bytes);
                self.router.handle_written(now, conn, bytes.len());
            }
            while let Some(conn) = self.router.poll_close() {
                self.router.handle_closed(now, conn);
                if !self.closing {
                    self.conn = self.router.handle_line(now, self.line);
                }
                self.unread.clear();
            }
            self.serve(now);
        }
    }

    /// It ends all its sessions, and begins no other.
    pub(crate) fn close(&mut self, now: Instant, out: &mut Wire) {
        self.closing = true;
        self.router.close(now);
        self.drain(now, out);
    }
}

/// Both, and the line between them. `M` bytes for messages in pieces.
pub(crate) struct World<const Q: usize, const F: usize, const M: usize, const ASSIGNED: bool = false> {
    pub(crate) now: Instant,
    pub(crate) device: Box<Endpoint<'static, Q, F, M, Ram<Q, ASSIGNED>>>,
    pub(crate) gateway: Gateway,
    pub(crate) up: Wire,
    pub(crate) down: Wire,
    /// What the device was sent, and what it missed.
    pub(crate) commands: Vec<(Vec<u8>, bool)>,
    pub(crate) gaps: Vec<(u64, GapReason)>,
    pub(crate) disconnects: Vec<wire::control::CloseReason>,
    /// The device was given something, and has to be asked what it owes.
    stirred: bool,
    steps: u32,
}

pub(crate) fn device_config(seed: u64, line: LineConfig) -> DeviceConfig<'static> {
    let mut config = DeviceConfig::new("dev", &["readings", "alarms"], [seed, 1]);
    config.line = line;
    config
}

pub(crate) fn gateway_config(seed: u64) -> NodeConfig {
    let mut config = NodeConfig::new("gateway", [seed, 3], Class::Ram);
    config.instance = seed + 1;
    config.takes_custody = true;
    config
}

impl<const Q: usize, const F: usize, const M: usize, const ASSIGNED: bool> World<Q, F, M, ASSIGNED> {
    pub(crate) fn new(device: DeviceConfig<'static>, gateway: NodeConfig, baud: Option<u64>) -> Self {
        let line = device.line;
        let mut gateway = Gateway::new(gateway, line);
        let mut down = Wire::new(baud);
        gateway.drain(Instant::ZERO, &mut down);
        Self {
            now: Instant::ZERO,
            device: Box::new(Endpoint::new(device, Instant::ZERO)),
            gateway,
            up: Wire::new(baud),
            down,
            commands: Vec::new(),
            gaps: Vec::new(),
            disconnects: Vec::new(),
            stirred: true,
            steps: 0,
        }
    }

    pub(crate) fn send(&mut self, payload: &[u8]) -> bool {
        let message = (TopicIndex(0), payload);
        let sent = pump::send(&mut *self.device, self.now, message, Overflow::Refuse);
        self.stirred |= sent.is_ok();
        sent.is_ok()
    }

    /// A message of the gateway for the device.
    pub(crate) fn command(&mut self, payload: &[u8]) -> bool {
        let sent = self.gateway.router.send(self.now, "dev", payload, Mode::All).is_ok();
        self.gateway.drain(self.now, &mut self.down);
        sent
    }

    /// The device is switched off and on: it knows nothing any more.
    pub(crate) fn reboot(&mut self, config: DeviceConfig<'static>) {
        *self.device = Endpoint::new(config, self.now);
        self.stirred = true;
    }

    pub(crate) fn restart(&mut self, seed: u64) {
        self.gateway.restart(self.now, seed);
        self.gateway.drain(self.now, &mut self.down);
    }

    /// The next thing happens, if anything is to happen before `until`. Says whether it did.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let device = self.device.poll_timeout().map(|(at, _)| at);
        let gateway = self.gateway.router.poll_timeout().map(|(at, _)| at);
        let stirred = self.stirred.then_some(self.now);
        let wakes = [device, gateway, self.up.next(), self.down.next(), stirred];
        let Some(at) = wakes.into_iter().flatten().min().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            self.steps = 0;
            return false;
        };
        if at > self.now {
            (self.now, self.steps) = (at, 0);
        }
        self.steps += 1;
        let now = self.now;
        assert!(
            self.steps < STEPS_MAX,
            "busy at {now:?}: {:?} {:?}",
            self.device.poll_timeout(),
            self.gateway.router.poll_timeout()
        );
        let arrived = self.down.take(now);
        if stirred.is_some() || !arrived.is_empty() || device.is_some_and(|at| at <= now) {
            self.turn(&arrived);
        }
        let arrived = self.up.take(now);
        if gateway.is_some_and(|at| at <= now) {
            self.gateway.router.handle_timeout(now);
        }
        if !arrived.is_empty() {
            self.gateway.hear(now, &arrived);
        }
        self.gateway.drain(now, &mut self.down);
        true
    }

    fn turn(&mut self, arrived: &[u8]) {
        let mut scratch = [0; 4096];
        let mut scratch_long;
        let scratch = if M + Q > scratch.len() {
            scratch_long = vec![0; 2 * (M + Q)];
            &mut scratch_long[..]
        } else {
            &mut scratch[..]
        };
        let (commands, gaps, disconnects) = (&mut self.commands, &mut self.gaps, &mut self.disconnects);
        let event = |event: DeviceEvent<'_>| match event {
            DeviceEvent::Message { payload, maybe_redelivered, .. } => {
                commands.push((payload.to_vec(), maybe_redelivered));
            }
            DeviceEvent::Gap { count, reason } => gaps.push((count, reason)),
            DeviceEvent::Disconnected(reason) => disconnects.push(reason),
            DeviceEvent::Connected { .. } | DeviceEvent::TooLarge | _ => {}
        };
        let (bytes, _) = pump::turn(&mut *self.device, self.now, arrived, scratch, event);
        // The line has taken it: it may take more.
        self.stirred = !bytes.is_empty();
        self.up.put(self.now, bytes);
    }

    pub(crate) fn run_until(&mut self, until: Instant) {
        while self.step(until) {}
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Until it is so; says how long that took, if not too long.
    pub(crate) fn run_while(
        &mut self,
        most: Duration,
        mut so: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let begun = self.now;
        while so(self) {
            if !self.step(begun + most) {
                return None;
            }
        }
        Some(self.now.since(begun))
    }

    pub(crate) fn payloads(&self) -> Vec<&[u8]> {
        self.gateway.got.iter().map(|(_, payload, _)| &payload[..]).collect()
    }
}

/// The body of an encoded frame, whatever it is sealed for.
pub(crate) fn body_of(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let cobs::CobsSplit::Frame { frame: place, .. } = cobs::split(&mut frame, 1 << 16)
        && place.len() > seal::LEN
    {
        return frame[place][seal::LEN..].to_vec();
    }
    Vec::new()
}

/// The tag of an encoded frame; for a frame with a number that of what it carries.
pub(crate) fn tag_of(frame: &[u8]) -> u8 {
    let body = body_of(frame);
    match body.first() {
        Some(&tag::NUMBERED) => body.get(3).copied().unwrap_or(0),
        first => first.copied().unwrap_or(0),
    }
}

pub(crate) fn numbered(count: u32, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| [&n.to_le_bytes()[..], &vec![n as u8; len - 4]].concat()).collect()
}
