//! What is at the other end is no gateway, or sends what is longer than a frame of the line.

use std::io::Write as _;
use std::net::TcpListener;

use liner_tests::relay::Rates;

use super::seed;
use super::setup::Line;
use crate::process::{Liner, free_port, run_with};

/// The longest that a device sends: two frames of a line would not hold it.
const LONG: usize = 4096;

#[test]
fn what_is_longer_than_a_frame_of_the_line_passes_it_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::new(folder.path(), seed(), Rates::NONE, None);
    let (_gateway, sub, mut device) = (line.gateway(), line.subscriber(), line.device());
    let mut stdin = device.stdin();
    let messages = [LONG, 10, 2100, LONG, 2000].map(|len| "x".repeat(len));
    for message in &messages {
        writeln!(stdin, "{message}").unwrap();
    }
    for message in &messages {
        assert_eq!(sub.json()["payload"], message.as_str());
    }
    for message in &messages {
        let ended =
            run_with(folder.path(), &["pub", "device", "-", "--peer", line.peers()], message.as_bytes());
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    }
    for message in &messages {
        let line = std::iter::repeat_with(|| device.json()).find(|line| line["event"] == "message").unwrap();
        assert_eq!(line["payload"], message.as_str());
    }
    drop(stdin);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(!ended.errors.iter().any(|line| line.contains("away")), "{:?}", ended.errors);
}

#[test]
fn a_device_tells_how_its_line_is() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::new(folder.path(), seed(), Rates { bit_errors: 5e-4, ..Rates::NONE }, None);
    let (_gateway, mut device) = (line.gateway(), line.device());
    let mut stdin = device.stdin();
    (0..500).for_each(|n| writeln!(stdin, "{n}").unwrap());
    drop(stdin);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let last: serde_json::Value =
        serde_json::from_str(ended.lines.iter().rfind(|line| line.contains("frames_sent")).unwrap()).unwrap();
    assert_eq!(last["event"], "line");
    assert!(last["line"].as_str().unwrap().contains("ttyDevice?baud="), "{last}");
    // Each message has a frame of its own, and some had to be sent again.
    let count = |of: &str| last[of].as_u64().unwrap();
    assert!(count("frames_sent") >= 500 + count("retransmissions"), "{last}");
    assert!(count("frames_received") > 0 && count("retransmissions") > 0 && count("rtt_us") > 0, "{last}");
}

#[test]
fn that_nobody_answers_on_an_open_port_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::new(folder.path(), seed(), Rates::NONE, None);
    let device = line.device();
    let told = device.error_with("nobody answers at serial://");
    assert!(told.contains("ttyDevice") && told.ends_with("it is tried again until somebody does"), "{told}");
    let _gateway = line.gateway();
    device.error_with("connected");
}

/// What takes each connection only to close it.
#[test]
fn who_hangs_up_at_once_is_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let no_gateway = TcpListener::bind(&address).unwrap();
    let args = ["device", "--topic", "t", "--connect", &address, "--count", "1"];
    let device = Liner::start(folder.path(), &args);
    (0..5).for_each(|_| drop(no_gateway.accept().unwrap()));
    drop(no_gateway);
    let _gateway = Liner::start(
        folder.path(),
        &["gateway", "--store", "ram:", "--listen", "127.0.0.1:0", "--device-listen", &address],
    );
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let told = ended.errors.iter().filter(|line| line.contains("trying again")).count();
    assert_eq!(told, 1, "{:?}", ended.errors);
}
