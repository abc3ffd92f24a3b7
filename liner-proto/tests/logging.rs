//! What the core tells a logger: enough to see why a device does not talk, and nothing that a peer could abuse.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use std::cell::RefCell;
use std::time::Duration;

use liner_proto::config::LineConfig;
use liner_proto::endpoint::{DeviceConfig, Endpoint, SendError, TopicIndex};
use liner_proto::id::ConnId;
use liner_proto::pump::{self, Overflow};
use liner_proto::router::{NodeConfig, Quota};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nodes::{NOW, Node};

thread_local! {
    /// What was told in this test's thread.
    static STORY: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

struct Capture;

impl Log for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("liner_proto::")
    }

    fn log(&self, record: &Record<'_>) {
        assert!(self.enabled(record.metadata()), "{}", record.target());
        STORY.with_borrow_mut(|story| story.push((record.level(), record.args().to_string())));
    }

    fn flush(&self) {}
}

/// All that was told since it was asked last.
fn story() -> Vec<(Level, String)> {
    STORY.take()
}

/// The story without its frames.
fn sentences() -> Vec<String> {
    let told = story().into_iter().filter(|(level, _)| *level < Level::Trace);
    told.map(|(level, text)| format!("{level}: {text}")).collect()
}

/// A program that links has a global logger of defmt, which this one has not: the lints look at it.
#[cfg(feature = "defmt")]
mod with_defmt {
    use liner_proto::effect::{GapReason, StoreFault};
    use liner_proto::endpoint::{Event, SendError, Sender, Text, TopicIndex};
    use liner_proto::id::{Class, Epoch};
    use liner_proto::line::LineStats;
    use liner_proto::pump::{Overflow, PortError, Progress};
    use liner_proto::time::{Duration, Instant};
    use liner_proto::timer::Deadline;
    use liner_proto::wire::control::CloseReason;
    use liner_proto::wire::handshake::Acks;

    const fn print<T: defmt::Format>() {}

    const _: () = {
        print::<(Event<'_>, Text<'_>, Sender<'_>, TopicIndex)>();
        print::<(SendError, PortError<()>, StoreFault)>();
        print::<(GapReason, CloseReason, Acks, Class)>();
        print::<(Progress, Overflow, LineStats, Deadline)>();
        print::<(Instant, Duration, Epoch)>();
    };
}

const SECRET: &[u8] = b"the payload";

/// A device and its gateway, whose names speak to a terminal.
struct Bench {
    device: Endpoint<'static, 1024, 256>,
    gateway: Node,
    conn: ConnId,
    /// What is on its way to the device.
    down: Vec<u8>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut NodeConfig)) -> Self {
        // Another test may have been first.
        let _ = log::set_logger(&Capture);
        log::set_max_level(LevelFilter::Trace);
        let mut gateway = Node::start("gate\nway", |config| {
            config.takes_custody = true;
            change(config);
        });
        let conn = gateway.router.handle_line(gateway.now, LineConfig::default());
        let config = DeviceConfig::new("press\u{1b}\u{202e}4", &["readings"], [1, 2]);
        Self { device: Endpoint::new(config, NOW), gateway, conn, down: Vec::new() }
    }

    /// A turn of both, in which `up` and `down` may change what is on its way.
    fn turn(&mut self, up: impl FnOnce(&mut Vec<u8>), down: impl FnOnce(&mut Vec<u8>)) {
        self.gateway.pass(Duration::from_millis(50));
        down(&mut self.down);
        let mut scratch = [0; 512];
        let (bytes, _) = pump::turn(&mut self.device, self.gateway.now, &self.down, &mut scratch, |_| {});
        let mut bytes = bytes.to_vec();
        up(&mut bytes);
        self.gateway.take(self.conn, bytes);
        self.gateway.serve();
        self.down = self.gateway.give(self.conn);
    }

    fn turns(&mut self, count: u32) {
        (0..count).for_each(|_| self.turn(|_| {}, |_| {}));
    }

    fn send(&mut self, payload: &[u8], overflow: Overflow) -> Result<u64, SendError> {
        pump::send(&mut self.device, self.gateway.now, (TopicIndex(0), payload), overflow)
    }
}

/// Turns a bit at the end of each frame.
fn damage(bytes: &mut [u8]) {
    for frame in bytes.split_mut(|byte| *byte == 0) {
        if let Some(byte) = frame.last_mut() {
            *byte ^= if *byte == 4 { 8 } else { 4 };
        }
    }
}

#[test]
fn the_story_of_a_session_is_told() {
    let mut bench = Bench::new(|_| {});
    bench.turns(4);
    assert_eq!(
        sentences(),
        [
            "DEBUG: link up",
            "DEBUG: hello sent",
            r#"INFO: connected to "gate\nway", resumed: false"#,
            r#"INFO: "press\u{1b}\u{202e}4" is connected, resumed: true"#,
            r#"DEBUG: "press\u{1b}\u{202e}4" takes "press\u{1b}\u{202e}4""#,
        ]
    );
    bench.send(SECRET, Overflow::Refuse).expect("room");
    bench.turn(|up| damage(up), |_| {});
    bench.turns(20);
    assert_eq!(bench.device.queued(), 0, "it has arrived");
    let broken =
        r#"DEBUG: a frame of "press\u{1b}\u{202e}4" was dropped: its seal is broken, or of another session"#;
    let told = sentences();
    assert!(told.contains(&broken.to_owned()), "{told:?}");
    assert!(
        told.iter().any(|one| one.starts_with("DEBUG: frame ") && one.ends_with(" is sent again")),
        "{told:?}"
    );

    bench.turn(|_| {}, |down| down.extend([7; 300].into_iter().chain([0])));
    assert_eq!(sentences(), ["DEBUG: a frame was dropped: it is damaged or too long"]);

    bench.gateway.router.handle_closed(bench.gateway.now, bench.conn);
    bench.device.handle_link_down(bench.gateway.now);
    assert!(bench.device.poll_event().is_some());
    assert_eq!(
        sentences(),
        [
            r#"INFO: "press\u{1b}\u{202e}4" is disconnected: LinkLost"#,
            "DEBUG: link down",
            "INFO: disconnected: LinkLost",
        ]
    );
}

#[test]
fn what_no_seal_opens_is_told_by_the_device() {
    let mut bench = Bench::new(|_| {});
    bench.turns(4);
    story();
    bench.turn(|_| {}, |down| down.extend([6, 1, 2, 3, 4, 5, 0]));
    assert_eq!(
        sentences(),
        ["DEBUG: a frame of 5 bytes was dropped: its seal is broken, or of another session"]
    );
}

#[test]
fn the_side_that_ends_a_session_and_its_reason_are_told() {
    let mut bench = Bench::new(|_| {});
    bench.turns(4);
    story();
    bench.device.close(bench.gateway.now);
    bench.turns(1);
    bench.gateway.reap();
    let told = sentences();
    assert_eq!(told[0], "DEBUG: this side ends the session: Shutdown");
    assert!(told.contains(&"INFO: disconnected: Shutdown".to_owned()), "{told:?}");
    assert!(
        told.contains(&r#"INFO: "press\u{1b}\u{202e}4" is disconnected: Shutdown"#.to_owned()),
        "{told:?}"
    );

    let mut bench = Bench::new(|_| {});
    bench.turns(4);
    story();
    bench.gateway.router.close(bench.gateway.now);
    bench.down = bench.gateway.give(bench.conn);
    bench.turns(1);
    let told = sentences();
    assert!(told.contains(&"DEBUG: the gateway ends the session".to_owned()), "{told:?}");
    assert!(told.contains(&"INFO: disconnected: Shutdown".to_owned()), "{told:?}");
}

#[test]
fn messages_that_find_no_room_are_told() {
    let mut bench = Bench::new(|_| {});
    while bench.send(SECRET, Overflow::Refuse).is_ok() {}
    assert_eq!(sentences(), [""; 0], "who is refused knows");
    bench.send(SECRET, Overflow::DropOldest).expect("room is made");
    assert_eq!(sentences(), ["WARN: the oldest message was dropped"]);
    assert_eq!(bench.send(&[0; 250], Overflow::Refuse), Err(SendError::TooLarge));
    assert_eq!(
        sentences(),
        ["WARN: a message of 250 bytes is too large: a record has at most 244 bytes here"]
    );
    bench.turns(20);
    let gap = r#"WARN: a gap: 1 messages of "press\u{1b}\u{202e}4" will never come: Dropped"#;
    assert!(sentences().contains(&gap.to_owned()), "the gateway tells it, too");
}

#[test]
fn a_topic_that_nobody_takes_is_told() {
    let mut bench = Bench::new(|config| {
        config.limits.window_messages = 4;
        config.kept = Quota { messages: 10, ..config.kept };
    });
    for _ in 0..50 {
        bench.send(SECRET, Overflow::Refuse).expect("room");
    }
    bench.turns(40);
    let told = sentences();
    for expected in [
        r#"WARN: the topic "readings" is full: nobody has subscribed"#,
        "WARN: topic 0 is full: nobody has subscribed, and the gateway keeps no more of it",
    ] {
        assert!(told.iter().any(|one| one == expected), "{expected} is not in {told:#?}");
    }
    bench.gateway.router.subscribe(bench.gateway.now, "readings");
    bench.turns(40);
    assert!(sentences().contains(&"DEBUG: topic 0 is free again".to_owned()));
}

#[test]
fn dead_letters_are_told() {
    let mut bench = Bench::new(|config| config.takes_custody = false);
    bench.send(SECRET, Overflow::Refuse).expect("room");
    bench.turns(40);
    let letter =
        r#"WARN: 1 messages on "readings" became dead letters of "press\u{1b}\u{202e}4": Unsubscribed"#;
    let told = sentences();
    assert!(told.contains(&letter.to_owned()), "{told:?}");
}

#[test]
fn no_peer_speaks_through_a_log_and_no_payload_is_in_it() {
    let mut bench = Bench::new(|_| {});
    bench.gateway.router.subscribe(bench.gateway.now, "readings");
    for _ in 0..10 {
        bench.send(SECRET, Overflow::Refuse).expect("room");
    }
    bench.turn(|up| damage(up), |_| {});
    bench.turns(40);
    assert_eq!(bench.gateway.got.len(), 10);
    bench.device.close(bench.gateway.now);
    bench.turns(1);
    let story = story();
    assert!(story.iter().any(|(level, _)| *level == Level::Trace), "frames are told at that level");
    let secret = std::str::from_utf8(SECRET).expect("it is text");
    let numbers = format!("{SECRET:?}");
    let numbers = numbers.trim_matches(['[', ']']);
    for (_, text) in story {
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(!text.contains(secret) && !text.contains(numbers), "{text}");
    }
}
