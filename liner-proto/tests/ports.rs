//! A device whose line is a port of `embedded-io`, against a gateway, in virtual time.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use std::cell::RefCell;
use std::collections::VecDeque;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use heapless::Deque;
use liner_proto::config::LineConfig;
use liner_proto::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event, SendError, StoredEndpoint, TopicIndex};
use liner_proto::id::{Class, ConnId};
use liner_proto::pump::{self, Device, Overflow, Port, PortError, Progress, WithStore};
use liner_proto::rng::Rng;
use liner_proto::store::{RamStore, Store};
use liner_proto::time::{Duration, Instant};

mod kinds;
mod nodes;
use nodes::Node;

const IN: usize = 32;
/// What a UART buffers of what it sends.
const FIFO: usize = 16;

type Ram = Endpoint<'static, 2048, 256>;
type Stored = StoredEndpoint<'static, 512, 256>;

/// A device of either kind at a port.
trait AtPort {
    fn new(now: Instant) -> Self;
    fn take(&mut self, now: Instant, payload: &[u8]) -> Result<u64, SendError>;
    fn turn(
        &mut self,
        port: &mut Port<Uart<'_>, 600, IN>,
        now: Instant,
        events: impl FnMut(Event<'_>),
    ) -> Result<Progress, PortError<ErrorKind>>;
    fn is_settled(&self) -> bool;
}

/// What is between the two ends: what the device's UART buffers, and what is on its way.
#[derive(Default)]
struct Line {
    sending: Deque<u8, FIFO>,
    receiving: Deque<u8, 1024>,
    up: Vec<u8>,
    down: VecDeque<u8>,
    arrived: usize,
    /// The most bytes that the receiving buffer has held.
    most_received: usize,
}

impl Line {
    /// The time of so many bytes passes: both directions move.
    fn pass(&mut self, bytes: usize) {
        for _ in 0..bytes {
            self.up.extend(self.sending.pop_front());
            if let Some(byte) = self.down.pop_front() {
                self.receiving.push_back(byte).expect("an overrun would be another test");
                self.arrived += 1;
                self.most_received = self.most_received.max(self.receiving.len());
            }
        }
    }
}

/// The device's UART: in a good mood it does all it can, in a bad one a little of it, nothing, or it fails.
struct Uart<'l> {
    line: &'l RefCell<Line>,
    mood: Option<Rng>,
    /// Whether a write waits when the buffer is full. It must not be asked to otherwise.
    waits: bool,
    flushed: usize,
    longest_write: usize,
}

impl<'l> Uart<'l> {
    fn new(line: &'l RefCell<Line>, waits: bool) -> Self {
        Self { line, mood: None, waits, flushed: 0, longest_write: 0 }
    }

    fn fails(&mut self) -> Result<(), ErrorKind> {
        let is_bad = self.mood.as_mut().is_some_and(|mood| mood.below(8) == 0);
        if is_bad { Err(ErrorKind::Other) } else { Ok(()) }
    }

    fn some(&mut self, most: usize) -> usize {
        self.mood.as_mut().map_or(most, |mood| mood.below(most as u64) as usize + 1)
    }
}

impl ErrorType for Uart<'_> {
    type Error = ErrorKind;
}

impl ReadReady for Uart<'_> {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        self.fails()?;
        let is_ready = !self.line.borrow().receiving.is_empty();
        Ok(is_ready && self.some(4) > 1)
    }
}

impl Read for Uart<'_> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, ErrorKind> {
        self.fails()?;
        let most = self.some(into.len());
        let mut line = self.line.borrow_mut();
        assert!(!line.receiving.is_empty(), "this read would never return");
        let mut len = 0;
        while len < most
            && let Some(byte) = line.receiving.pop_front()
        {
            into[len] = byte;
            len += 1;
        }
        Ok(len)
    }
}

impl WriteReady for Uart<'_> {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        self.fails()?;
        let is_ready = !self.line.borrow().sending.is_full();
        Ok(is_ready && self.some(4) > 1)
    }
}

impl Write for Uart<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.fails()?;
        self.longest_write = self.longest_write.max(bytes.len());
        let most = self.some(bytes.len());
        let mut line = self.line.borrow_mut();
        assert!(self.waits || !line.sending.is_full(), "this write would wait");
        let mut len = 0;
        while len < most {
            if line.sending.is_full() {
                if !self.waits {
                    break;
                }
                line.pass(1);
            }
            line.sending.push_back(bytes[len]).expect("room");
            len += 1;
        }
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.fails()?;
        assert!(self.waits, "this flush would wait");
        self.flushed += 1;
        self.line.borrow_mut().pass(FIFO);
        Ok(())
    }
}

/// A store in RAM that fails when it is told to.
struct Flaky {
    ram: RamStore<2048>,
    fails: bool,
}

impl Store for Flaky {
    fn class(&self) -> Class {
        self.ram.class()
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.ram.recover(visit)
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        if self.fails { Err(StoreFault::Unavailable) } else { self.ram.apply(group) }
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        self.ram.commit()
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.ram.load(queue, after, into)
    }
}

/// A device with its store.
struct WithFlaky {
    endpoint: Stored,
    store: Flaky,
}

/// A turn of a port in the way that it allows.
fn turn_port(
    port: &mut Port<Uart<'_>, 600, IN>,
    device: &mut impl Device,
    now: Instant,
    events: impl FnMut(Event<'_>),
) -> Result<Progress, PortError<ErrorKind>> {
    if port.io_mut().waits { port.turn(device, now, events) } else { port.turn_ready(device, now, events) }
}

const CONFIG: DeviceConfig<'static> = DeviceConfig::new("dev", &["t"], [1, 2]);

impl AtPort for Ram {
    fn new(now: Instant) -> Self {
        Self::new(CONFIG, now)
    }

    fn take(&mut self, now: Instant, payload: &[u8]) -> Result<u64, SendError> {
        pump::send(self, now, (TopicIndex(0), payload), Overflow::Refuse)
    }

    fn turn(
        &mut self,
        port: &mut Port<Uart<'_>, 600, IN>,
        now: Instant,
        events: impl FnMut(Event<'_>),
    ) -> Result<Progress, PortError<ErrorKind>> {
        turn_port(port, self, now, events)
    }

    fn is_settled(&self) -> bool {
        self.is_up() && self.queued() == 0
    }
}

impl AtPort for WithFlaky {
    fn new(now: Instant) -> Self {
        Self { endpoint: Stored::new(CONFIG, now), store: Flaky { ram: RamStore::new(), fails: false } }
    }

    fn take(&mut self, now: Instant, payload: &[u8]) -> Result<u64, SendError> {
        let mut device = WithStore { endpoint: &mut self.endpoint, store: &mut self.store };
        pump::send(&mut device, now, (TopicIndex(0), payload), Overflow::Refuse)
    }

    fn turn(
        &mut self,
        port: &mut Port<Uart<'_>, 600, IN>,
        now: Instant,
        events: impl FnMut(Event<'_>),
    ) -> Result<Progress, PortError<ErrorKind>> {
        let mut device = WithStore { endpoint: &mut self.endpoint, store: &mut self.store };
        turn_port(port, &mut device, now, events)
    }

    fn is_settled(&self) -> bool {
        self.endpoint.is_up() && self.endpoint.queued() == 0
    }
}

both!(super::Ram, super::WithFlaky:
    a_port_that_does_little_at_a_time_and_fails_loses_and_repeats_nothing
    a_port_that_waits_is_read_in_between_and_flushed_at_the_end
    a_port_that_takes_nothing_holds_up_nothing_else
);

/// A device at a port, and its gateway, which has subscribed to the device's topic itself.
struct Bench<'l, D> {
    device: D,
    port: Port<Uart<'l>, 600, IN>,
    line: &'l RefCell<Line>,
    gateway: Node,
    conn: ConnId,
    /// Sessions that began and ended, as the device was told.
    begun: usize,
    ended: usize,
    /// Faults of the port.
    faults: usize,
}

impl<'l, D: AtPort> Bench<'l, D> {
    fn new(line: &'l RefCell<Line>, waits: bool) -> Self {
        let mut gateway = Node::start("gateway", |config| config.takes_custody = true);
        gateway.router.subscribe(gateway.now, "t");
        let conn = gateway.router.handle_line(gateway.now, LineConfig::default());
        Self {
            device: D::new(gateway.now),
            port: Port::new(Uart::new(line, waits)),
            line,
            gateway,
            conn,
            begun: 0,
            ended: 0,
            faults: 0,
        }
    }

    fn send(&mut self, payload: &[u8]) -> Result<u64, SendError> {
        self.device.take(self.gateway.now, payload)
    }

    fn turn(&mut self) -> Result<Progress, PortError<ErrorKind>> {
        let Self { device, port, gateway, begun, ended, faults, .. } = self;
        let events = |event: Event<'_>| {
            *begun += usize::from(matches!(event, Event::Connected { .. }));
            *ended += usize::from(matches!(event, Event::Disconnected(_)));
        };
        let outcome = device.turn(port, gateway.now, events);
        *faults += usize::from(outcome.is_err());
        outcome
    }

    /// Time passes, on the line too, and the gateway does what it can.
    fn pass(&mut self, bytes: usize) {
        self.gateway.pass(Duration::from_micros(87 * bytes as u64));
        self.line.borrow_mut().pass(bytes);
        self.answer();
    }

    fn answer(&mut self) {
        let mut line = self.line.borrow_mut();
        let whole = line.up.iter().rposition(|byte| *byte == 0).map_or(0, |zero| zero + 1);
        let frames = line.up.drain(..whole).collect();
        drop(line);
        self.gateway.take(self.conn, frames);
        self.gateway.serve();
        let down = self.gateway.give(self.conn);
        self.line.borrow_mut().down.extend(down);
    }

    /// Turns until nothing is left to be done and all is acknowledged.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let progress = self.turn();
            if progress == Ok(Progress::Idle) && self.device.is_settled() {
                return;
            }
            self.pass(8);
        }
        panic!("after so many turns messages are still queued");
    }

    fn got(&self) -> Vec<u64> {
        let number = |(payload, _): &(Vec<u8>, bool)| {
            let bytes = payload.first_chunk().expect("a message has its number in front");
            u64::from_le_bytes(*bytes)
        };
        self.gateway.got.iter().map(number).collect()
    }
}

/// The number, and up to 100 bytes more.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number as usize * 37) % 101, number as u8);
    payload
}

fn a_port_that_does_little_at_a_time_and_fails_loses_and_repeats_nothing<D: AtPort>() {
    const MESSAGES: u64 = 120;
    for (seed, waits) in (0..40).flat_map(|seed| [(seed, true), (seed, false)]) {
        let line = RefCell::default();
        let mut bench = Bench::<D>::new(&line, waits);
        bench.port.io_mut().mood = Some(Rng::new([seed, 9]));
        let mut next = 0;
        let mut turns = 0;
        while next < MESSAGES {
            if bench.send(&payload(next)).is_ok() {
                next += 1;
            }
            let _ = bench.turn();
            bench.pass(3);
            turns += 1;
            assert!(turns < 100_000, "seed {seed}: message {next} finds no room");
        }
        bench.settle();
        assert_eq!(bench.got(), (0..MESSAGES).collect::<Vec<_>>(), "seed {seed}");
        assert!(bench.gateway.got.iter().all(|(_, again)| !again), "seed {seed}");
        assert_eq!((bench.begun, bench.ended), (1, 0), "seed {seed}: the session goes on");
        assert!(bench.faults > 20, "seed {seed}: only {} faults", bench.faults);
    }
}

fn a_port_that_waits_is_read_in_between_and_flushed_at_the_end<D: AtPort>() {
    let line = RefCell::default();
    let mut bench = Bench::<D>::new(&line, true);
    bench.settle();
    let (flushed, arrived) = (bench.port.io_mut().flushed, line.borrow().arrived);
    line.borrow_mut().most_received = 0;
    assert!(flushed > 0, "what was sent in the handshake is out");
    for number in 0..10 {
        bench.send(&payload(number)).expect("room");
    }
    // The gateway sends without a pause, for as long as the device does: idle bytes, which an endpoint passes over.
    line.borrow_mut().down.extend([0; 400]);
    let on_its_way = || !line.borrow().down.is_empty() || !line.borrow().receiving.is_empty();
    while bench.turn() != Ok(Progress::Idle) || on_its_way() {
        line.borrow_mut().pass(1);
        bench.answer();
    }
    assert!(line.borrow().arrived > arrived + 400, "the gateway did send meanwhile");
    assert!(line.borrow().most_received <= IN, "a UART that buffers IN bytes loses none");
    assert_eq!(bench.port.io_mut().longest_write, IN);
    let once = bench.port.io_mut().flushed;
    assert!(once > flushed);
    assert_eq!(bench.turn(), Ok(Progress::Idle));
    assert_eq!(bench.port.io_mut().flushed, once, "there is nothing new to flush");
    bench.settle();
    assert_eq!(bench.got(), (0..10).collect::<Vec<_>>());
}

fn a_port_that_takes_nothing_holds_up_nothing_else<D: AtPort>() {
    let line = RefCell::default();
    let mut bench = Bench::<D>::new(&line, false);
    bench.settle();
    assert_eq!(bench.turn(), Ok(Progress::Idle));
    for number in 0..10 {
        bench.send(&payload(number)).expect("room");
    }
    while bench.turn() != Ok(Progress::Waiting) {}
    let pending = bench.port.pending();
    assert!(pending > 0 && line.borrow().sending.is_full());
    // What arrives is read, and what is sent is stored.
    line.borrow_mut().receiving.push_back(0).expect("room");
    assert_eq!(bench.turn(), Ok(Progress::Moved));
    assert!(line.borrow().receiving.is_empty());
    bench.send(&payload(10)).expect("room");
    assert_eq!((bench.turn(), bench.port.pending()), (Ok(Progress::Waiting), pending));
    bench.settle();
    assert_eq!((bench.got(), bench.ended), ((0..11).collect::<Vec<_>>(), 0));
}

#[test]
fn what_a_store_says_is_passed_on_and_the_port_goes_on() {
    let line = RefCell::default();
    let mut bench = Bench::<WithFlaky>::new(&line, false);
    bench.settle();
    bench.send(&payload(0)).expect("room");
    while bench.turn() != Ok(Progress::Idle) {
        line.borrow_mut().pass(1);
    }
    // The acknowledgement arrives, and what it stands for cannot be deleted.
    bench.device.store.fails = true;
    let mut said = None;
    for _ in 0..1000 {
        bench.pass(1);
        said = bench.turn().err();
        if said.is_some() {
            break;
        }
    }
    assert_eq!(said, Some(PortError::Store(StoreFault::Unavailable)));
    assert_eq!(bench.send(&payload(1)), Err(SendError::Store));
    bench.device.store.fails = false;
    bench.send(&payload(1)).expect("room");
    bench.settle();
    assert!(bench.device.store.ram.is_empty(), "it was asked again");
    assert_eq!((bench.got(), bench.ended), (vec![0, 1], 0));
}

#[test]
fn the_end_of_a_port_is_told() {
    struct Hung;
    impl ErrorType for Hung {
        type Error = ErrorKind;
    }
    impl ReadReady for Hung {
        fn read_ready(&mut self) -> Result<bool, ErrorKind> {
            Ok(true)
        }
    }
    impl Read for Hung {
        fn read(&mut self, _: &mut [u8]) -> Result<usize, ErrorKind> {
            Ok(0)
        }
    }
    impl Write for Hung {
        fn write(&mut self, _: &[u8]) -> Result<usize, ErrorKind> {
            Err(ErrorKind::BrokenPipe)
        }
        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }
    let mut device = Ram::new(CONFIG, nodes::NOW);
    let mut port = Port::<_, 600>::new(Hung);
    let outcome = port.turn(&mut device, nodes::NOW, |_| {});
    assert_eq!(outcome, Err(PortError::Ended));
    assert!(port.pending() > 0, "the hello is kept");
}
