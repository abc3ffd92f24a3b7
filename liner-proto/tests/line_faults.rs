//! What a line, a reboot and a restart can do to a session, case by case: nothing is stuck, nobody is busy for nothing, and what was
//! sent comes out once and in order.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod serial;

use liner_proto::config::LineConfig;
use liner_proto::effect::GapReason;
use liner_proto::frame::cobs;
use liner_proto::id::SessionId;
use liner_proto::router::Event;
use liner_proto::seal;
use liner_proto::time::{Duration, Instant};
use liner_proto::wire::tag;
use serial::{World, device_config, gateway_config, numbered, tag_of};

type Small = World<2048, 256, 0>;

const SECOND: Duration = Duration::from_secs(1);
const UNKNOWN: LineConfig = LineConfig { baud: None, half_duplex: false };
const KNOWN: LineConfig = LineConfig { baud: Some(115_200), half_duplex: false };

fn world(line: LineConfig) -> Small {
    World::new(device_config(1, line), gateway_config(1), Some(115_200))
}

/// Everything is taken that the device sends, and it has nothing left.
fn send_all(world: &mut Small, messages: &[Vec<u8>], most: Duration) {
    let until = world.now + most;
    let mut rest = messages;
    while !rest.is_empty() || world.device.queued() > 0 {
        while let Some((message, after)) = rest.split_first()
            && world.send(message)
        {
            rest = after;
        }
        let stats = world.device.line_stats();
        assert!(world.step(until), "{} not sent, {} queued, {stats:?}", rest.len(), world.device.queued());
    }
}

/// Loses the frames of a direction whose bits are set in `lost`.
fn lose(lost: u32) -> serial::Fate {
    Box::new(move |place, frame| {
        if place < 32 && lost & (1 << place) != 0 {
            frame.clear();
        }
    })
}

#[test]
fn whatever_is_lost_of_the_first_frames_the_session_comes_up() {
    let mut longest = Duration::ZERO;
    // Every subset of eight frames each way.
    for lost in 0..1 << 16 {
        let (up, down) = (lost & 0xff, lost >> 8);
        let mut world = world(if lost % 3 == 0 { KNOWN } else { UNKNOWN });
        world.up.fate = lose(up);
        world.down.fate = lose(down);
        assert!(world.send(b"a reading"));
        let took = world.run_while(20 * SECOND, |world| world.gateway.got.is_empty());
        let took = took.unwrap_or_else(|| panic!("up {up:b}, down {down:b}: nothing got through"));
        assert!(world.command(b"a command"));
        let more = world.run_while(10 * SECOND, |world| world.commands.is_empty());
        let more = more.unwrap_or_else(|| panic!("up {up:b}, down {down:b}: no command got through"));
        longest = longest.max(took + more);
        // Each loss costs about the longest pause between two tries, at most: a part of the pauses is drawn.
        let most = (2 + 2 * lost.count_ones()) * SECOND;
        assert!(took + more < most.min(20 * SECOND), "up {up:b}, down {down:b}: {took:?} {more:?}");
        world.run(10 * SECOND);
        assert_eq!(world.payloads(), [b"a reading"]);
        assert_eq!(world.commands.len(), 1);
        assert_eq!(world.device.queued(), 0);
        assert_eq!(world.gateway.router.queued_for("dev"), 0);
        // A handshake takes 12 s at most; then another one begins.
        let most = usize::from(lost.count_ones() > 7);
        assert!(world.disconnects.len() <= most, "up {up:b}, down {down:b}: {:?}", world.disconnects);
    }
    assert!(longest > SECOND, "{longest:?}: so many losses take a while");
}

#[test]
fn frames_are_counted_round_and_round() {
    let mut world: Small = World::new(device_config(1, UNKNOWN), gateway_config(1), Some(20_000_000));
    let mut random = liner_proto::rng::Rng::new([3, 4]);
    world.up.fate = Box::new(move |_, frame| {
        if random.below(50) == 0 {
            frame.clear();
        }
    });
    let mut random = liner_proto::rng::Rng::new([5, 6]);
    world.down.fate = Box::new(move |_, frame| {
        if random.below(300) == 0 {
            frame.clear();
        }
    });
    let (mut sent, mut commanded) = (0_u32, 0_u32);
    while world.gateway.got.len() < 140_000 || world.commands.len() < 70_000 {
        while sent < 140_000 && world.send(&sent.to_le_bytes()) {
            sent += 1;
        }
        while commanded < 70_000
            && commanded < world.commands.len() as u32 + 16
            && world.command(&commanded.to_le_bytes())
        {
            commanded += 1;
        }
        let counts = (world.gateway.got.len(), world.commands.len());
        assert!(world.step(Instant::ZERO + 7200 * SECOND), "{counts:?} {:?}", world.disconnects);
    }
    assert_eq!(world.disconnects, []);
    let got = world.gateway.got.iter().map(|(_, payload, _)| payload.clone());
    assert!(got.eq((0..140_000_u32).map(|n| n.to_le_bytes().to_vec())));
    assert!(world.gateway.got.iter().all(|(_, _, again)| !again), "nothing is in doubt");
    let got = world.commands.iter().map(|(payload, _)| payload.clone());
    assert!(got.eq((0..70_000_u32).map(|n| n.to_le_bytes().to_vec())));
    let stats = world.gateway.router.line_stats(world.gateway.conn).expect("a line");
    assert!(stats.retransmissions > 100 && world.device.line_stats().retransmissions > 1000, "{stats:?}");
}

/// The payloads of the gateway without those that are marked and have come before.
fn fresh(world: &Small) -> Vec<Vec<u8>> {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (_, payload, again) in &world.gateway.got {
        if seen.contains(payload) {
            assert!(*again, "what comes again says so");
        } else {
            seen.push(payload.clone());
        }
    }
    seen
}

#[test]
fn a_gateway_may_start_anew_at_any_frame() {
    for line in [KNOWN, UNKNOWN] {
        for frames in 0..40 {
            for delay in [0, 1, 40, 300] {
                let mut world = world(line);
                let messages = numbered(12, 40);
                messages.iter().for_each(|message| assert!(world.send(message)));
                let most = 5 * SECOND;
                let so = |world: &Small| world.up.frames + world.down.frames < frames;
                if world.run_while(most, so).is_none() {
                    break;
                }
                world.run(Duration::from_millis(delay));
                world.restart(77);
                let took = world.run_while(8 * SECOND, |world| world.device.queued() > 0);
                assert!(took.is_some(), "{frames} {delay}: {} queued", world.device.queued());
                assert_eq!(fresh(&world), messages, "{frames} {delay}");
            }
        }
    }
}

#[test]
fn a_device_may_start_anew_at_any_frame() {
    start_anew::<false>([99, 1]);
}

#[test]
fn a_device_without_a_random_source_may_start_anew_at_any_frame() {
    // With the same seed.
    start_anew::<true>([1, 1]);
}

fn start_anew<const ASSIGNED: bool>(seed: [u64; 2]) {
    for frames in 0..40 {
        for delay in [0, 1, 40, 300] {
            let mut settings = device_config(1, KNOWN);
            let mut world: World<2048, 256, 0, ASSIGNED> =
                World::new(settings, gateway_config(1), Some(115_200));
            numbered(12, 40).iter().for_each(|message| assert!(world.send(message)));
            let so = |world: &World<2048, 256, 0, ASSIGNED>| world.up.frames + world.down.frames < frames;
            if world.run_while(5 * SECOND, so).is_none() {
                break;
            }
            world.run(Duration::from_millis(delay));
            // What the line holds is lost with the power of the device: half of the time.
            if frames % 2 == 0 {
                world.down.cut();
            }
            settings.seed = seed;
            world.reboot(settings);
            let before = world.gateway.got.len();
            let messages = numbered(10, 48);
            messages.iter().for_each(|message| assert!(world.send(message)));
            let took = world.run_while(8 * SECOND, |world| world.device.queued() > 0);
            assert!(took.is_some(), "{frames} {delay}: {} queued", world.device.queued());
            let new: Vec<_> = world.gateway.got[before..]
                .iter()
                .filter(|(_, payload, _)| payload.len() == 48)
                .map(|(_, payload, _)| payload.clone())
                .collect();
            assert_eq!(new, messages, "{frames} {delay}");
        }
    }
}

#[test]
fn a_close_that_is_lost_does_no_harm() {
    for from_device in [false, true] {
        let mut world = world(KNOWN);
        send_all(&mut world, &numbered(3, 40), 5 * SECOND);
        let closes = |_: u32, frame: &mut Vec<u8>| {
            if tag_of(frame) == tag::CLOSE {
                frame.clear();
            }
        };
        world.up.fate = Box::new(closes);
        world.down.fate = Box::new(closes);
        if from_device {
            world.device.close(world.now);
        } else {
            // A gateway closes all it has, and its successor begins without a word of it.
            world.gateway.close(world.now, &mut world.down);
            world.restart(5);
        }
        world.run(Duration::from_millis(50));
        send_all(&mut world, &numbered(3, 50), 8 * SECOND);
        assert_eq!(world.gateway.got.len(), 6);
    }
}

/// A greeting, as a gateway sends it that has no session.
fn greet() -> Vec<u8> {
    let body = [tag::GREET];
    let mut line = [0; 16];
    let seal = seal::seal(SessionId::HANDSHAKE, &[&body]);
    let len = cobs::encode(&[&seal, &body], &mut line).expect("room");
    line[..len].to_vec()
}

#[test]
fn what_the_old_session_still_says_does_not_spoil_the_new_one() {
    let mut world: Small = World::new(device_config(1, UNKNOWN), gateway_config(1), None);
    send_all(&mut world, &numbered(3, 40), 5 * SECOND);
    world.run(SECOND);
    // The device asks whether the gateway is there, and starts anew: both arrive together.
    let frames = world.up.frames;
    world.down.put(world.now, &greet());
    let asked = world.run_while(SECOND, |world| world.up.frames == frames);
    assert!(asked.is_some());
    world.reboot(device_config(2, UNKNOWN));
    send_all(&mut world, &numbered(3, 50), Duration::from_millis(100));
    assert_eq!(world.disconnects, []);
    assert_eq!(world.gateway.got.len(), 6);
}

/// Every command up to the longest one that is taken arrives.
fn commands_of_every_length<const F: usize, const M: usize>(around: usize) {
    let mut world: World<4096, F, M> = World::new(device_config(1, KNOWN), gateway_config(1), Some(921_600));
    world.run_while(SECOND, |world| !world.device.is_up()).expect("it comes up");
    let mut taken = Vec::new();
    for len in around - 40..around + 20 {
        let command = vec![len as u8; len];
        if world.command(&command) {
            taken.push(command);
        }
        world.run(SECOND);
    }
    assert!(taken.len() > 20 && taken.len() < 60, "{} were taken", taken.len());
    assert_eq!(world.disconnects, [], "{F} {M}");
    let got: Vec<_> = world.commands.iter().map(|(command, _)| command.len()).collect();
    assert_eq!(got, taken.iter().map(Vec::len).collect::<Vec<_>>(), "{F} {M}");
}

#[test]
fn the_longest_message_that_a_device_takes_arrives() {
    commands_of_every_length::<256, 0>(240);
    commands_of_every_length::<254, 0>(240);
    commands_of_every_length::<1300, 0>(1285);
    commands_of_every_length::<2000, 0>(1985);
    commands_of_every_length::<2048, 0>(2033);
    commands_of_every_length::<256, 300>(290);
    commands_of_every_length::<256, 1024>(1010);
}

#[test]
fn what_is_left_of_a_dropped_message_is_not_taken_for_another_one() {
    for shift in [0, 1, 2, 3_usize] {
        for lost in 1..16_u32 {
            let mut world: World<4096, 256, 1024> =
                World::new(device_config(1, KNOWN), gateway_config(1), Some(115_200));
            let mut pieces = 0;
            world.up.fate = Box::new(move |_, frame| {
                if tag_of(frame) == tag::FRAGMENT {
                    if pieces < 4 && lost & (1 << pieces) != 0 {
                        frame.clear();
                    }
                    pieces += 1;
                }
            });
            assert!(world.send(b"before"));
            let took = world.run_while(SECOND, |world| world.device.queued() > 0);
            assert!(took.is_some());
            // Wherever a piece begins, one of these looks like a frame with a message.
            let long: Vec<u8> = [0x40, 0, 0, 1].into_iter().cycle().skip(shift).take(850).collect();
            let frames = world.up.frames;
            assert!(world.send(&long));
            let so = |world: &World<4096, 256, 1024>| world.up.frames < frames + 4;
            assert!(world.run_while(SECOND, so).is_some());
            world.device.drop_oldest();
            assert!(world.send(b"after"));
            let case = format!("shift {shift}, lost {lost:b}");
            let took = world.run_while(10 * SECOND, |world| world.device.queued() > 0);
            assert!(took.is_some(), "{case}: {:?}", world.gateway.got.len());
            let got: Vec<_> =
                world.gateway.got.iter().map(|(seq, payload, _)| (*seq, &payload[..])).collect();
            assert_eq!(got, [(1, &b"before"[..]), (3, b"after")], "{case}");
            assert_eq!(world.disconnects, [], "{case}");
            let is_gap =
                |event: &&Event| matches!(event, Event::Gap { count: 1, reason: GapReason::Dropped, .. });
            assert_eq!(world.gateway.events.iter().filter(is_gap).count(), 1, "{case}");
        }
    }
}

#[test]
fn a_message_that_is_under_way_in_pieces_stays_in_memory() {
    const LONG: usize = 14_000;
    let mut config = gateway_config(1);
    config.queue_bytes = 20 * 1024;
    let mut world: World<4096, 256, { 16 * 1024 }> =
        World::new(device_config(1, KNOWN), config, Some(115_200));
    world.run_while(SECOND, |world| !world.device.is_up()).expect("it comes up");
    let mut pieces = 0;
    world.down.fate = Box::new(move |_, frame| {
        if tag_of(frame) == tag::FRAGMENT {
            pieces += 1;
            if pieces % 7 == 0 {
                frame.clear();
            }
        }
    });
    let commands = numbered(6, LONG);
    assert!(world.command(&commands[0]));
    // Others come while it is under way: the queue has no room for them all.
    world.run(Duration::from_millis(300));
    let mut rest = &commands[1..];
    while world.commands.len() < 6 {
        while let Some((command, after)) = rest.split_first()
            && world.command(command)
        {
            rest = after;
        }
        let step = world.step(Instant::ZERO + 60 * SECOND);
        assert!(step, "{} came, {:?}", world.commands.len(), world.gaps);
    }
    assert!(world.commands.iter().map(|(command, _)| command).eq(&commands));
    assert_eq!((&world.gaps[..], &world.disconnects[..]), (&[][..], &[][..]));
}

#[test]
fn a_line_that_is_slower_than_anyone_knows_is_not_filled_with_frames_sent_again() {
    for (latency, baud) in [(700, None), (0, Some(2400)), (300, Some(9600))] {
        let mut world: Small = World::new(device_config(1, UNKNOWN), gateway_config(1), baud);
        world.up.latency = Duration::from_millis(latency);
        world.down.latency = Duration::from_millis(latency);
        let messages = numbered(200, 60);
        send_all(&mut world, &messages, 300 * SECOND);
        assert_eq!(world.payloads(), messages);
        let stats = world.device.line_stats();
        // Until it is measured, a few windows of 16 frames.
        assert!(stats.retransmissions < 120 && stats.rtt.is_some(), "{latency} {baud:?}: {stats:?}");
    }
}

#[test]
fn what_came_ahead_is_handed_out_as_soon_as_the_application_has_room() {
    let mut world = world(KNOWN);
    send_all(&mut world, &numbered(1, 40), 5 * SECOND);
    world.gateway.room = 1;
    let mut count = 0;
    world.up.fate = Box::new(move |_, frame| {
        if (tag::DATA_FIRST..=tag::DATA_LAST).contains(&tag_of(frame)) {
            count += 1;
            if count == 1 {
                frame.clear();
            }
        }
    });
    numbered(6, 40).iter().for_each(|message| assert!(world.send(message)));
    let took = world.run_while(5 * SECOND, |world| world.gateway.got.len() < 7);
    assert!(took.is_some_and(|took| took < Duration::from_millis(100)), "{took:?}");
    assert_eq!(world.device.line_stats().retransmissions, 1);
}

#[test]
fn a_close_that_waits_for_the_line_leaves_by_itself() {
    // A slow line, which the device knows: what it was given takes a while.
    let line = LineConfig { baud: Some(1200), half_duplex: false };
    let mut world: Small = World::new(device_config(1, line), gateway_config(1), Some(1200));
    world.run_while(20 * SECOND, |world| !world.device.is_up()).expect("it comes up");
    world.run(2 * SECOND);
    let frames = world.up.frames;
    assert!(world.send(&[1; 200]));
    world.run_while(SECOND, |world| world.up.frames == frames).expect("it sends");
    world.device.close(world.now);
    let took = world.run_while(4 * SECOND, |world| world.disconnects.is_empty());
    assert!(took.is_some(), "{:?}", world.device.poll_timeout());
    let took = world.run_while(20 * SECOND, |world| world.gateway.got.is_empty());
    assert!(took.is_some());
}

#[test]
fn two_who_disturb_each_other_get_everything_through() {
    use std::cell::Cell;
    use std::rc::Rc;

    for seed in 1..20 {
        let line = LineConfig { baud: Some(19_200), half_duplex: true };
        let mut world: Small = World::new(device_config(seed, line), gateway_config(seed), Some(19_200));
        // A frame that meets one of the other side is lost. It is put there when its sender begins with it.
        let busy = [Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64))];
        let clock = Rc::new(Cell::new(0_u64));
        let fate = |own: usize| -> serial::Fate {
            let (mine, other, clock) = (busy[own].clone(), busy[1 - own].clone(), clock.clone());
            Box::new(move |_, frame| {
                let begin = mine.get().max(clock.get());
                mine.set(begin + frame.len() as u64 * 10_000_000 / 19_200);
                if other.get() > begin {
                    frame.clear();
                }
            })
        };
        (world.up.fate, world.down.fate) = (fate(0), fate(1));
        let (readings, commands) = (numbered(30, 40), numbered(30, 40));
        let (mut sent, mut commanded) = (0, 0);
        while world.gateway.got.len() < 30 || world.commands.len() < 30 {
            while sent < 30 && world.send(&readings[sent]) {
                sent += 1;
            }
            while commanded < 30 && world.command(&commands[commanded]) {
                commanded += 1;
            }
            let counts = (world.gateway.got.len(), world.commands.len());
            assert!(world.step(Instant::ZERO + 120 * SECOND), "{counts:?} {:?}", world.disconnects);
            clock.set(world.now.as_micros());
        }
        assert_eq!(world.payloads(), readings);
        assert!(world.commands.iter().map(|(command, _)| command).eq(&commands));
    }
}
