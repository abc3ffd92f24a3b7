//! How a device ends: what was in its RAM is sent, or accounted for.

use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use liner::{Framing, Message, Node};
use rustix::process::Signal;

use crate::path::gateway;
use crate::process::{Liner, free_port, run_with};

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn what_comes_before_a_line_that_is_too_long_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &["--store", "ram:"]);
    let mut input: String = (1..=100).map(|n| format!("{n}\n")).collect();
    input.push_str(&"x".repeat(5000));
    input.push_str("\nnever read\n");
    let device = ["device", "--topic", "t", "--connect", &devices, "--payload-from", "-"];
    let ended = run_with(folder.path(), &device, input.as_bytes());
    let errors = ended.errors.join("\n");
    assert_eq!(ended.code, Some(1), "{errors}");
    assert!(errors.contains("4096 bytes"), "{errors}");
    assert!(errors.contains("taken 100, acknowledged 100: none was left"), "{errors}");

    let sub = ["sub", "t", "--name", "w", "--peer", &peers, "--count", "100"];
    let ended = Liner::start(folder.path(), &sub).end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let wanted: Vec<String> = (1..=100).map(|n| format!("t device#{n} {n}")).collect();
    assert_eq!(ended.lines, wanted);
}

#[test]
fn what_was_not_sent_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let args = ["device", "--topic", "t", "--connect", &nobody, "--json", "--payload-from", "-"];
    let mut device = Liner::start(folder.path(), &args);
    std::io::Write::write_all(&mut device.stdin(), &[&b"1\n2\n3\n"[..], &[b'x'; 5000]].concat()).unwrap();
    while device.json()["waiting"] != 3 {}
    device.signal(Signal::TERM);
    let ended = device.end();
    let errors = ended.errors.join("\n");
    assert_eq!(ended.code, Some(1), "{errors}");
    assert!(errors.contains("the last 3 were in RAM only") && errors.contains("4096 bytes"), "{errors}");

    // Readings have no end: a stop is none that came too soon, and they are gone all the same.
    let device =
        Liner::start(folder.path(), &["device", "--topic", "t", "--connect", &nobody, "--every", "60m"]);
    assert!(device.line().is_some());
    device.signal(Signal::INT);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(ended.errors.join("\n").contains("the last 1 were in RAM only"), "{:?}", ended.errors);
}

#[test]
fn what_was_acknowledged_is_not_to_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, _, devices) = gateway(folder.path(), &["--store", "ram:"]);
    let args = ["--topic", "t", "--connect", &devices, "--every", "60m", "--count", "5", "--json"];
    let device = Liner::start(folder.path(), &[&["device"], &args[..]].concat());
    while device.json()["acknowledged"] != 1 {}
    device.signal(Signal::INT);
    let ended = device.end();
    let errors = ended.errors.join("\n");
    assert_eq!(ended.code, Some(4), "{errors}");
    assert!(errors.contains("taken 1, acknowledged 1: none was left"), "{errors}");
    assert!(!errors.contains("send them again"), "{errors}");
}

#[test]
fn that_nobody_answers_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let address = nobody();
    let args = ["device", "--topic", "t", "--connect", &address, "--count", "1"];
    let device = Liner::start(folder.path(), &args);
    device.error_with(&format!("nobody answers at {address} yet"));
    let _gateway = Liner::start(
        folder.path(),
        &["gateway", "--store", "ram:", "--listen", "127.0.0.1:0", "--device-listen", &address],
    );
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(!ended.errors.join("\n").contains("nobody answers"), "{:?}", ended.errors);
}

#[test]
fn a_full_topic_is_told_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (address, addresses) = channel();
    let (stop, stopped) = channel::<()>();
    let gateway = std::thread::spawn(move || {
        let keep_few = |config: &mut liner::proto::router::NodeConfig| {
            config.limits.window_messages = 1;
            config.kept.messages = 10;
        };
        let gateway = Node::builder("gateway").takes_custody(true).configure(keep_few);
        let gateway = gateway.listen("127.0.0.1:0", Framing::Length).listen("127.0.0.1:0", Framing::Cobs);
        let mut gateway = gateway.build().unwrap();
        address.send(gateway.listen_addrs().to_vec()).unwrap();
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            gateway.drive(Some(Duration::from_millis(10)), &mut |_: &Message<'_>| {}).unwrap();
        }
    });
    let addresses = addresses.recv().unwrap();
    let (peers, devices) = (addresses[0].to_string(), addresses[1].to_string());
    let mut device = Liner::start(
        folder.path(),
        &["device", "--topic", "t", "--connect", &devices, "--payload-from", "-"],
    );
    let input: String = (1..=50).map(|n| format!("{n}\n")).collect();
    std::io::Write::write_all(&mut device.stdin(), input.as_bytes()).unwrap();
    device.error_with("t is full at the gateway");

    let sub = ["sub", "t", "--name", "w", "--peer", &peers, "--count", "49"];
    let sub = Liner::start(folder.path(), &sub).end();
    assert_eq!(sub.code, Some(0), "{:?}", sub.errors);
    let wanted: Vec<String> = (1..=50).filter(|n| *n != 11).map(|n| format!("t device#{n} {n}")).collect();
    assert_eq!(sub.lines, wanted, "all but what was under way");
    device.error_with("t takes messages again");
    assert_eq!(device.end().code, Some(0));
    drop(stop);
    gateway.join().unwrap();
}
