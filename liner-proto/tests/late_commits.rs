//! A gateway commits what an earlier session has brought while the device sends it once more.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

use std::time::Duration;

use liner_proto::config::LineConfig;
use liner_proto::endpoint::{DeviceConfig, Endpoint, TopicIndex};
use liner_proto::id::ConnId;
use liner_proto::pump::{self, Overflow};

mod nodes;

use nodes::Node;

/// As many frames as there are.
const ALL: usize = usize::MAX;

const STEP: Duration = Duration::from_millis(20);

struct Bench {
    device: Endpoint<'static, 1024, 256>,
    gateway: Node,
    conn: ConnId,
    /// What is on its way to the device.
    down: Vec<u8>,
}

impl Bench {
    /// The device's turn. Of the frames that it sends, so many arrive. The gateway asks nothing of its store.
    fn turn(&mut self, most: usize) {
        self.gateway.now = self.gateway.now + STEP;
        let now = self.gateway.now;
        let mut scratch = [0; 1024];
        let (bytes, _) = pump::turn(&mut self.device, now, &self.down, &mut scratch, |_| {});
        self.gateway.router.handle_timeout(now);
        let frames = bytes.split_inclusive(|byte| *byte == 0).filter(|frame| frame.len() > 1);
        frames.take(most).for_each(|frame| self.gateway.take(self.conn, frame.to_vec()));
        self.down = self.gateway.give(self.conn);
    }
}

#[test]
fn what_is_sent_again_and_acknowledged_meanwhile_does_no_harm() {
    let mut gateway = Node::start("gateway", |config| config.takes_custody = true);
    let conn = gateway.router.handle_line(gateway.now, LineConfig::default());
    let config = DeviceConfig::new("press-4", &["readings"], [1, 2]);
    let mut bench = Bench { device: Endpoint::new(config, nodes::NOW), gateway, conn, down: Vec::new() };
    for _ in 0..4 {
        bench.turn(ALL);
        bench.gateway.serve();
    }
    assert!(bench.device.is_up());
    let send = |bench: &mut Bench| {
        let message = (TopicIndex(0), &b"a reading"[..]);
        pump::send(&mut bench.device, bench.gateway.now, message, Overflow::Refuse).expect("room");
    };
    (0..5).for_each(|_| send(&mut bench));
    bench.turn(ALL);
    bench.device.handle_link_down(bench.gateway.now);
    // A new session: the handshake has one frame to a turn, and what the device sends behind it is lost.
    while !bench.device.is_up() {
        bench.turn(1);
    }
    bench.turn(0);
    assert_eq!(bench.device.queued(), 5);
    bench.gateway.serve();
    bench.down = bench.gateway.give(bench.conn);
    bench.turn(0);
    assert_eq!(bench.device.queued(), 0, "they are committed, and acknowledged");
    // The frames did not arrive: they are sent again, with nothing to be in them.
    let before = bench.device.line_stats().retransmissions;
    for _ in 0..50 {
        bench.turn(ALL);
        bench.gateway.serve();
    }
    assert!(bench.device.line_stats().retransmissions >= before + 5);
    send(&mut bench);
    for _ in 0..10 {
        bench.turn(ALL);
        bench.gateway.serve();
    }
    assert_eq!((bench.device.queued(), bench.device.acked()), (0, 6));
    let queues = bench.gateway.held().queues;
    assert_eq!(queues.values().sum::<u64>(), 6, "{queues:?}");
}
