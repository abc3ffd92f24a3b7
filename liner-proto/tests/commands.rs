//! Messages to devices: a device's mailbox is the topic of its name, through whatever gateway it is connected to.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use liner_proto::effect::GapReason;
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event, TopicIndex};
use liner_proto::id::ConnId;
use liner_proto::pump;
use liner_proto::router::Framing;
use liner_proto::wire::record::Mode;

use nodes::{LEASE, Node, gateway, meet, settle};

type Endpoint2048 = Endpoint<'static, 2048, 256>;

/// A device that counts what it is sent.
struct Device {
    endpoint: Endpoint2048,
    conn: Option<ConnId>,
    /// Payloads, who sent them first, and whether they may have come before.
    got: Vec<(String, String, bool)>,
    gaps: Vec<(u64, GapReason)>,
}

impl Device {
    /// One that sends to a topic of its own. Each seed is another life.
    fn new(name: &'static str, seed: u64) -> Self {
        let endpoint = Endpoint2048::new(DeviceConfig::new(name, &["readings"], [seed, 2]), nodes::NOW);
        Self { endpoint, conn: None, got: Vec::new(), gaps: Vec::new() }
    }

    fn connect(&mut self, gateway: &mut Node) {
        self.endpoint.handle_link_up(gateway.now);
        self.conn = Some(gateway.router.handle_accepted(gateway.now, Framing::Cobs));
        self.settle(gateway);
    }

    fn disconnect(&mut self, gateway: &mut Node) {
        self.endpoint.handle_link_down(gateway.now);
        if let Some(conn) = self.conn.take() {
            gateway.router.handle_closed(gateway.now, conn);
        }
        gateway.serve();
    }

    /// Passes frames to and fro until nothing is left to say.
    fn settle(&mut self, gateway: &mut Node) {
        let Some(conn) = self.conn else { return };
        loop {
            gateway.serve();
            let mut frames = [0; 1024];
            let len = self.endpoint.poll_transmit(gateway.now, &mut frames);
            gateway.take(conn, frames[..len].to_vec());
            gateway.serve();
            let down = gateway.give(conn);
            let quiet = len == 0 && down.is_empty();
            self.take(gateway, &down);
            if quiet {
                return;
            }
        }
    }

    fn take(&mut self, gateway: &Node, mut bytes: &[u8]) {
        loop {
            let taken = self.endpoint.handle_bytes(gateway.now, bytes);
            bytes = &bytes[taken..];
            while let Some(event) = self.endpoint.poll_event() {
                match event {
                    Event::Message { payload, origin, maybe_redelivered, topic } => {
                        assert!(!topic.is_empty());
                        let payload = String::from_utf8_lossy(payload).into_owned();
                        let from = origin.map_or("", |origin| origin.name).to_owned();
                        self.got.push((payload, from, maybe_redelivered));
                    }
                    Event::Gap { count, reason } => self.gaps.push((count, reason)),
                    Event::Connected { .. } | Event::Disconnected(_) | _ => {}
                }
            }
            if bytes.is_empty() {
                return;
            }
        }
    }

    fn payloads(&self) -> Vec<&str> {
        self.got.iter().map(|(payload, ..)| payload.as_str()).collect()
    }
}

/// Sends a command from a node that is there for that alone, and so has other epochs each time.
fn command(gateway: &mut Node, name: &str, payload: &str) {
    let life = payload.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
    let mut sender = Node::start("sender", |config| config.seed[0] = life);
    sender.now = gateway.now;
    let line = meet(&mut sender, gateway);
    sender.router.send(sender.now, name, payload.as_bytes(), Mode::All).expect("room");
    settle(&mut sender, gateway, line);
    assert_eq!(sender.router.queued(), 0, "acknowledged");
    nodes::cut(&mut sender, gateway, line);
}

#[test]
fn a_device_is_sent_what_goes_to_its_name() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    device.connect(&mut gateway);
    command(&mut gateway, "boiler", "on");
    command(&mut gateway, "other", "not for it");
    device.settle(&mut gateway);
    assert_eq!(device.got, [("on".to_owned(), "sender".to_owned(), false)]);
    assert_eq!(gateway.router.queued_for("boiler"), 0);
}

#[test]
fn what_is_sent_before_a_device_was_ever_seen_is_kept_for_it() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    command(&mut gateway, "boiler", "one");
    gateway.restart();
    command(&mut gateway, "boiler", "two");
    device.connect(&mut gateway);
    assert_eq!(device.payloads(), ["one", "two"]);
    assert_eq!(gateway.router.queued(), 0);
}

#[test]
fn a_device_that_is_away_is_not_passed_over_for_whoever_watches_its_topic() {
    let (mut gateway, mut device) = (gateway(100), Device::new("boiler", 1));
    let message = (TopicIndex(0), &b"21.5"[..]);
    let sent = pump::send(&mut device.endpoint, gateway.now, message, pump::Overflow::Refuse);
    sent.expect("room");
    device.connect(&mut gateway);
    device.disconnect(&mut gateway);
    gateway.pass(LEASE);
    gateway.restart();
    let mut watcher = Node::start("watcher", |config| config.durable = true);
    watcher.router.subscribe(watcher.now, "boiler");
    let line = meet(&mut watcher, &mut gateway);
    command(&mut gateway, "boiler", "on");
    settle(&mut watcher, &mut gateway, line);
    assert_eq!(watcher.got.len(), 1);
    device.connect(&mut gateway);
    assert_eq!(device.payloads(), ["on"]);
}

#[test]
fn a_device_that_only_connects_leaves_nothing() {
    let mut gateway = gateway(100);
    for life in 1..=3 {
        let mut device = Device::new("boiler", life);
        device.connect(&mut gateway);
        assert_eq!(gateway.held().rows, [("boiler".to_owned(), "boiler".to_owned())]);
        if life == 2 {
            command(&mut gateway, "boiler", "on");
            device.settle(&mut gateway);
            assert_eq!(device.payloads(), ["on"]);
        }
        device.disconnect(&mut gateway);
        gateway.pass(LEASE);
        gateway.pass(LEASE);
        let held = gateway.held();
        assert!(held.rows.is_empty() && !held.queues.contains_key("boiler"), "life {life}: {held:?}");
    }
}
