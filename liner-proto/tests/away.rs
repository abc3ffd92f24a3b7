//! A store that is away for long, and links that break again and again meanwhile.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::time::Duration;

use liner_proto::config::LineConfig;
use liner_proto::endpoint::TopicIndex;
use liner_proto::frame::cobs::{self, CobsSplit};
use liner_proto::id::ConnId;
use liner_proto::pump::{self, Overflow};
use liner_proto::router::Framing;
use liner_proto::seal;
use liner_proto::time::Instant;
use liner_proto::wire::record::Mode;
use liner_proto::wire::{self, Body};
use nodes::device::{Device, command};
use nodes::{Node, link_with, settle};

const WINDOW: usize = 100_000;

/// Bytes go to and fro, and the gateway's store does not answer.
fn pass_unserved(from: &mut Node, gateway: &mut Node, (here, there): (ConnId, ConnId)) {
    for _ in 0..20 {
        from.serve();
        let ahead = from.give(here);
        gateway.take(there, ahead);
        let back = gateway.give(there);
        from.take(here, back);
    }
}

#[test]
fn no_number_of_sessions_lets_a_peer_exceed_its_window() {
    for framing in [Framing::Length, Framing::Cobs] {
        let mut gateway = Node::start("gateway", |config| {
            config.takes_custody = true;
            config.limits.window_bytes = WINDOW as u32;
        });
        let mut from = Node::start("from", |_| {});
        let mut line = link_with(&mut from, &mut gateway, framing);
        settle(&mut from, &mut gateway, line);
        for number in 0..1000_u16 {
            let payload = [&number.to_be_bytes()[..], &[7; 998]].concat();
            from.router.send(from.now, "t", &payload, Mode::All).expect("room");
        }
        let mut most = 0;
        for _ in 0..15 {
            pass_unserved(&mut from, &mut gateway, line);
            most = most.max(gateway.router.held());
            from.router.handle_closed(from.now, line.0);
            gateway.router.handle_closed(gateway.now, line.1);
            line = link_with(&mut from, &mut gateway, framing);
        }
        assert!(most > WINDOW / 2, "{framing:?}: {most}");
        // What a line may have under way comes to that.
        assert!(most < 2 * WINDOW + 70_000, "{framing:?}: {most}");
        // The store is back.
        settle(&mut from, &mut gateway, line);
        assert_eq!((from.router.queued(), gateway.router.queued()), (0, 1000), "{framing:?}");
        assert_eq!(gateway.router.peers_up().count(), 1);
    }
}

/// Frames go to and fro between a device and a gateway whose store does not answer, for two seconds.
fn pass_line(device: &mut Device, gateway: &mut Node, conn: ConnId) {
    for _ in 0..200 {
        gateway.now = gateway.now + Duration::from_millis(10);
        device.endpoint.handle_timeout(gateway.now);
        gateway.router.handle_timeout(gateway.now);
        let mut frames = [0; 4096];
        let len = device.endpoint.poll_transmit(gateway.now, &mut frames);
        gateway.take(conn, frames[..len].to_vec());
        let down = gateway.give(conn);
        device.take(gateway, &down);
    }
}

/// A device that is switched off and on again begins the next session on the line that it is on: what one handshake told it does not
/// hold in the next.
#[test]
fn a_window_is_as_shut_as_the_last_handshake_told() {
    let mut gateway = Node::start("gateway", |config| {
        config.takes_custody = true;
        config.limits.window_bytes = 500;
    });
    let conn = gateway.router.handle_line(gateway.now, LineConfig::default());
    for life in 1..9 {
        let mut device = Device::new("dev", life);
        device.endpoint.handle_link_up(gateway.now);
        for _ in 0..7 {
            let message = (TopicIndex(0), &[life as u8; 100][..]);
            pump::send(&mut device.endpoint, gateway.now, message, Overflow::Refuse).expect("room");
        }
        pass_line(&mut device, &mut gateway, conn);
        assert!(device.endpoint.is_up(), "{life}: {:?}", gateway.events());
        assert_eq!(gateway.router.poll_close(), None, "{life}: {:?}", gateway.events());
        // The store is back for a moment when the window was told to be shut.
        if life % 3 == 0 {
            gateway.serve();
            pass_line(&mut device, &mut gateway, conn);
        }
    }
}

/// More rows wait for the store than may: a device that connects now has no mailbox, and comes again.
#[test]
fn a_device_that_connects_while_nothing_more_may_wait_is_sent_its_commands_later() {
    let mut gateway = nodes::gateway(100);
    for name in ["a", "b", "c", "d", "e", "f"] {
        let mut host = Node::start(name, |config| config.durable = true);
        for topic in 0..3900 {
            host.router.subscribe(host.now, &format!("{name}{topic}"));
        }
        let line = link_with(&mut host, &mut gateway, Framing::Length);
        pass_unserved(&mut host, &mut gateway, line);
    }
    let mut device = Device::new("dev", 1);
    device.endpoint.handle_link_up(gateway.now);
    let conn = gateway.router.handle_accepted(gateway.now, Framing::Cobs);
    pass_line(&mut device, &mut gateway, conn);
    // The store is back.
    gateway.serve();
    for _ in 0..3 {
        pass_line(&mut device, &mut gateway, conn);
        gateway.reap();
        if !device.endpoint.is_up() {
            device.endpoint.handle_link_down(gateway.now);
            gateway.pass(Duration::from_secs(2));
            device.connect(&mut gateway);
        }
    }
    command(&mut gateway, "dev", "on");
    device.settle(&mut gateway);
    assert_eq!(device.payloads(), ["on"]);
}

/// A device counts its time in 32 bits: what is longer ago than 19 hours could be taken for what is to come.
#[test]
fn a_device_that_waited_for_its_gateway_for_a_day_still_tells_what_it_has() {
    let mut gateway = Node::start("gateway", |config| {
        config.takes_custody = true;
        config.limits.window_messages = 1;
    });
    let conn = gateway.router.handle_line(gateway.now, LineConfig::default());
    let mut device = Device::new("dev", 1);
    device.endpoint.handle_link_up(gateway.now);
    for _ in 0..5 {
        pass_line(&mut device, &mut gateway, conn);
        gateway.serve();
    }
    let send = |device: &mut Device, gateway: &Node| {
        pump::send(&mut device.endpoint, gateway.now, (TopicIndex(0), b"21"), Overflow::Refuse)
            .expect("room");
    };
    for _ in 0..3 {
        send(&mut device, &gateway);
    }
    pass_line(&mut device, &mut gateway, conn);
    let mut told = false;
    let mut frames = [0; 4096];
    for step in 0..44_000_u32 {
        gateway.now = gateway.now + Duration::from_secs(2);
        if step == 43_990 {
            send(&mut device, &gateway);
        }
        device.endpoint.handle_timeout(gateway.now);
        gateway.router.handle_timeout(gateway.now);
        let len = device.endpoint.poll_transmit(gateway.now, &mut frames);
        if step >= 43_990 {
            told |= frames[..len].split_inclusive(|byte| *byte == 0).any(|frame| {
                let mut frame = frame.to_vec();
                let CobsSplit::Frame { frame: place, .. } = cobs::split(&mut frame, 256) else {
                    return false;
                };
                let body = frame.get(place).and_then(|frame| frame.get(seal::LEN..)).unwrap_or_default();
                matches!(wire::decode(body), Ok(Body::Ack(ack)) if ack.next_low == 5)
            });
        }
        gateway.take(conn, frames[..len].to_vec());
        let down = gateway.give(conn);
        device.take(&gateway, &down);
    }
    assert!(device.endpoint.is_up(), "{:?}", gateway.events());
    assert_eq!(device.endpoint.queued(), 4);
    assert!(told);
}

#[test]
fn a_device_that_only_queues_between_its_sleeps_knows_that_its_session_is_over() {
    let mut gateway = nodes::gateway(100);
    let mut device = Device::new("dev", 1);
    device.connect(&mut gateway);
    assert!(device.endpoint.is_up());
    for _ in 0..3 {
        gateway.now = gateway.now + Duration::from_secs(10 * 3600);
        pump::send(&mut device.endpoint, gateway.now, (TopicIndex(0), b"21"), Overflow::Refuse)
            .expect("room");
    }
    device.endpoint.handle_timeout(gateway.now);
    assert!(!device.endpoint.is_up());
}

#[test]
fn a_device_wakes_up_late_at_the_end_of_time_and_not_early() {
    let now = Instant::from_micros(u64::MAX - 1000);
    let mut device = Device::new("dev", 1);
    device.endpoint.handle_link_up(now);
    let (at, _) = device.endpoint.poll_timeout().expect("the handshake");
    assert!(at >= now, "{at:?}");
}

/// Whoever drives a device by hand may leave a link alone for as long as it likes.
#[test]
fn a_device_that_may_dial_may_still_dial_a_day_later() {
    let mut gateway = nodes::gateway(100);
    let mut device = Device::new("dev", 1);
    device.connect(&mut gateway);
    device.endpoint.close(gateway.now);
    device.settle(&mut gateway);
    assert!(!device.endpoint.has_link());
    assert!(!device.endpoint.wants_link(gateway.now));
    for hour in 1..80 {
        gateway.now = gateway.now + Duration::from_secs(3600);
        device.endpoint.handle_timeout(gateway.now);
        assert!(device.endpoint.wants_link(gateway.now), "after {hour} h");
        let (at, _) = device.endpoint.poll_timeout().expect("to dial");
        assert!(at <= gateway.now, "after {hour} h");
    }
}
