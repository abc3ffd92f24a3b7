//! A device in memory, at a node's line.

use std::time::Duration;

use liner_proto::effect::GapReason;
use liner_proto::endpoint::{DeviceConfig, Endpoint, Event};
use liner_proto::id::ConnId;
use liner_proto::router::{Framing, SendOptions};
use liner_proto::wire::record::Mode;

use super::{NOW, Node, cut, meet, settle};

type Endpoint2048 = Endpoint<'static, 2048, 256>;

/// A device that counts what it is sent.
pub(crate) struct Device {
    pub(crate) endpoint: Endpoint2048,
    pub(crate) conn: Option<ConnId>,
    /// Payloads, who sent them first, and whether they may have come before.
    pub(crate) got: Vec<(String, String, bool)>,
    pub(crate) gaps: Vec<(u64, GapReason)>,
}

impl Device {
    /// One that sends to a topic of its own. Each seed is another life.
    pub(crate) fn new(name: &'static str, seed: u64) -> Self {
        let endpoint = Endpoint2048::new(DeviceConfig::new(name, &["readings"], [seed, 2]), NOW);
        Self { endpoint, conn: None, got: Vec::new(), gaps: Vec::new() }
    }

    pub(crate) fn connect(&mut self, gateway: &mut Node) {
        self.endpoint.handle_link_up(gateway.now);
        self.conn = Some(gateway.router.handle_accepted(gateway.now, Framing::Cobs));
        self.settle(gateway);
    }

    pub(crate) fn disconnect(&mut self, gateway: &mut Node) {
        self.endpoint.handle_link_down(gateway.now);
        if let Some(conn) = self.conn.take() {
            gateway.router.handle_closed(gateway.now, conn);
        }
        gateway.serve();
    }

    /// Passes frames to and fro until nothing is left to say.
    pub(crate) fn settle(&mut self, gateway: &mut Node) {
        let Some(conn) = self.conn else { return };
        // A turn that says nothing may have asked something of the store, and the answer leads to the next.
        let mut quiet = 0;
        while quiet < 4 {
            gateway.serve();
            let mut frames = [0; 1024];
            let len = self.endpoint.poll_transmit(gateway.now, &mut frames);
            gateway.take(conn, frames[..len].to_vec());
            gateway.serve();
            let down = gateway.give(conn);
            quiet = if len == 0 && down.is_empty() { quiet + 1 } else { 0 };
            self.take(gateway, &down);
            gateway.reap();
        }
    }

    pub(crate) fn take(&mut self, gateway: &Node, mut bytes: &[u8]) {
        loop {
            let taken = self.endpoint.handle_bytes(gateway.now, bytes);
            bytes = &bytes[taken..];
            while let Some(event) = self.endpoint.poll_event() {
                match event {
                    Event::Message { payload, origin, maybe_redelivered, topic } => {
                        assert!(!topic.is_empty());
                        let payload = String::from_utf8_lossy(payload).into_owned();
                        let from = origin.map_or(String::new(), |origin| origin.name.to_string());
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

    pub(crate) fn payloads(&self) -> Vec<&str> {
        self.got.iter().map(|(payload, ..)| payload.as_str()).collect()
    }
}

/// Sends a command from a node that is there for that alone, and so has other epochs each time.
pub(crate) fn command(gateway: &mut Node, name: &str, payload: &str) {
    command_with(gateway, name, payload, None);
}

pub(crate) fn command_with(gateway: &mut Node, name: &str, payload: &str, ttl: Option<Duration>) {
    let life = payload.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
    let mut sender = Node::start("sender", |config| config.seed[0] = life);
    sender.now = gateway.now;
    let line = meet(&mut sender, gateway);
    let mut options = SendOptions::new(Mode::All);
    options.ttl = ttl;
    sender.router.send_with(sender.now, name, payload.as_bytes(), &options).expect("room");
    settle(&mut sender, gateway, line);
    assert_eq!(sender.router.queued(), 0, "acknowledged");
    cut(&mut sender, gateway, line);
}
