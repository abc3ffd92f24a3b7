//! More best-effort messages for a device than its line can carry: nothing that has to arrive waits for them.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod serial;

use liner_proto::config::LineConfig;
use liner_proto::router::SendOptions;
use liner_proto::time::Duration;
use liner_proto::wire::record::Mode;
use serial::{World, device_config, gateway_config, numbered};

const BAUD: u32 = 9600;

/// A line whose gateway is given twice as many best-effort messages as it can carry, from now on.
fn flooded(half_duplex: bool) -> World<2048, 256, 0> {
    let line = LineConfig { baud: Some(BAUD), half_duplex };
    let mut world = World::new(device_config(1, line), gateway_config(1), Some(u64::from(BAUD)));
    world.run_while(Duration::from_secs(1), |world| !world.device.is_up()).expect("a quiet line");
    world.run(Duration::from_secs(1));
    world
}

/// A second passes, in which so many bytes of best-effort messages are given to the line.
fn second(world: &mut World<2048, 256, 0>) {
    for _ in 0..20 {
        world.gateway.router.send(world.now, "dev", &[7; 80], Mode::BestEffort).expect("the device is there");
        world.gateway.drain(world.now, &mut world.down);
        world.run(Duration::from_millis(50));
    }
}

#[test]
fn what_has_to_arrive_takes_turns_with_them() {
    for half_duplex in [false, true] {
        let mut world = flooded(half_duplex);
        for _ in 0..5 {
            second(&mut world);
        }
        let messages = numbered(5, 20);
        for message in &messages {
            assert!(world.send(message) && world.command(message));
        }
        for _ in 0..10 {
            second(&mut world);
        }
        let commands = world.commands.iter().filter(|(payload, _)| payload.len() == 20).count();
        assert_eq!((world.payloads().len(), commands), (5, 5), "half duplex: {half_duplex}");
        assert_eq!((world.device.queued(), world.gateway.router.queued()), (0, 0), "and is acknowledged");
        let loose = world.commands.iter().filter(|(payload, _)| payload.len() == 80).count();
        assert!(loose > 50, "{loose} of them arrive all the same");
        assert_eq!(world.disconnects, []);
        assert!(world.device.line_stats().retransmissions < 10, "{:?}", world.device.line_stats());
    }
}

#[test]
fn one_that_got_too_old_while_it_waited_is_not_sent() {
    let mut world = flooded(false);
    let options = SendOptions::new(Mode::BestEffort).ttl(Duration::from_secs(1));
    for _ in 0..60 {
        world.gateway.router.send_with(world.now, "dev", &[7; 80], &options).expect("the device is there");
    }
    world.gateway.router.send(world.now, "dev", b"without an end", Mode::BestEffort).expect("likewise");
    world.gateway.drain(world.now, &mut world.down);
    world.run(Duration::from_secs(20));
    let (last, others) = world.commands.split_last().expect("some arrive");
    assert_eq!(last.0, b"without an end");
    // Each takes about 100 ms.
    assert!((5..15).contains(&others.len()), "{}", others.len());
}
