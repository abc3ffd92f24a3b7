//! Topics that are longer than the frames of whoever uses them.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;
mod serial;

use liner_proto::config::LineConfig;
use liner_proto::endpoint::DeviceConfig;
use liner_proto::router::{Framing, Quota};
use liner_proto::time::Duration;
use liner_proto::wire::record::Mode;
use nodes::{Node, link_with, settle};
use serial::{World, gateway_config};

/// A topic of 230 bytes.
const TOPIC: &str = concat!(
    "building/1/floor/2/room/3/sensor/4/temperature/in/degrees/celsius/measured/at/the/ceiling/above/the/door/",
    "building/1/floor/2/room/3/sensor/4/temperature/in/degrees/celsius/measured/at/the/ceiling/above/the/door/",
    "and/twenty/bytes/xxx"
);

#[test]
fn a_device_that_cannot_be_told_that_its_topic_is_full_is_told_everything_else() {
    let mut config = DeviceConfig::new("dev", &[TOPIC], [1, 1]);
    config.line = LineConfig { baud: Some(115_200), half_duplex: false };
    let mut gateway = gateway_config(1);
    gateway.kept = Quota { messages: 1, bytes: 1 << 20 };
    let mut world: World<2048, 200, 2048> = World::new(config, gateway, Some(115_200));
    world.run_while(Duration::from_secs(1), |world| !world.device.is_up()).expect("a quiet line");
    for _ in 0..5 {
        assert!(world.send(b"21.5"));
        world.run(Duration::from_secs(1));
    }
    assert!(world.command(b"on"));
    world.run(Duration::from_secs(10));
    assert_eq!(world.commands, [(b"on".to_vec(), false)]);
    assert_eq!((world.device.queued(), world.disconnects.len()), (0, 0));
}

#[test]
fn what_does_not_fit_a_frame_is_written_out_in_pieces() {
    for framing in [Framing::Length, Framing::Cobs] {
        let mut from = Node::start("from", |_| {});
        let mut to = Node::start("to", |config| config.limits.frame_max = 192);
        to.router.subscribe(to.now, TOPIC);
        to.router.subscribe(to.now, "short");
        let line = link_with(&mut from, &mut to, framing);
        settle(&mut from, &mut to, line);
        for topic in ["short", TOPIC, "short"] {
            from.router.send(from.now, topic, topic.as_bytes(), Mode::One).expect("room");
            settle(&mut from, &mut to, line);
        }
        let got: Vec<_> = to.got.iter().map(|(payload, _)| payload.as_slice()).collect();
        assert_eq!(got, ["short", TOPIC, "short"].map(str::as_bytes), "{framing:?}");
        assert_eq!(from.router.peers_up().count(), 1);
    }
}

#[test]
fn rows_are_told_in_pages_that_fit() {
    for (framing, frame_max) in [(Framing::Length, 192), (Framing::Length, 400), (Framing::Cobs, 1400)] {
        let mut from = Node::start("from", |config| config.limits.frame_max = frame_max);
        let mut to = Node::start("to", |_| {});
        let topics: Vec<_> = (0..100).map(|n| format!("a/topic/that/is/not/short/{n}")).collect();
        for topic in &topics {
            to.router.subscribe(to.now, topic);
        }
        let line = link_with(&mut from, &mut to, framing);
        settle(&mut from, &mut to, line);
        assert_eq!(from.router.peers_up().count(), 1);
        assert!(topics.iter().all(|topic| from.router.is_taken_by(topic, "to")), "{frame_max}");
    }
}
