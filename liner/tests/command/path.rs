//! Device, gateway, subscriber: everything arrives once, in order.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::process::{Liner, run_with};

/// Messages of the bar; fewer or more for whoever is in a hurry or in doubt.
fn messages() -> u64 {
    let asked = std::env::var("LINER_E2E_MESSAGES").ok();
    asked.map_or(100_000, |asked| asked.parse().expect("LINER_E2E_MESSAGES is a number"))
}

/// A gateway on free ports, and where peers and devices find it.
pub(crate) fn gateway(folder: &Path, more: &[&str]) -> (Liner, String, String) {
    let mut args = vec!["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0", "--json"];
    args.extend_from_slice(more);
    let gateway = Liner::start(folder, &args);
    assert_eq!(gateway.json()["event"], "started");
    let listening = gateway.json();
    let address = |whose: &str| listening[whose].as_str().unwrap().to_owned();
    let (peers, devices) = (address("peers"), address("devices"));
    (gateway, peers, devices)
}

#[test]
fn everything_arrives_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let count = messages();
    let (_gateway, peers, devices) = gateway(folder.path(), &[]);
    let text = count.to_string();
    let sub = ["sub", "numbers", "--name", "w", "--peer", &peers, "--count", &text, "--json"];
    let sub = Liner::start(folder.path(), &sub);
    let mut device = Liner::start(
        folder.path(),
        &["device", "--topic", "numbers", "--connect", &devices, "--payload-from", "-"],
    );
    let mut stdin = device.stdin();
    let feeder = std::thread::spawn(move || {
        for n in 1..=count {
            writeln!(stdin, "{n}").unwrap();
        }
    });
    for n in 1..=count {
        let line = sub.json();
        assert_eq!(line["payload"], n.to_string().as_str());
        assert_eq!(line["seq"], n);
        assert_eq!((&line["topic"], &line["from"]), (&Value::from("numbers"), &Value::from("device")));
        assert_eq!(line["maybe_redelivered"], false);
    }
    feeder.join().unwrap();
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let ended = sub.end();
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 0), "{:?}", ended.errors);
}

#[test]
fn what_nobody_has_subscribed_to_waits_for_the_first_with_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, peers, devices) = gateway(folder.path(), &[]);
    let device = ["device", "--topic", "t", "--connect", &devices, "--payload-from", "-"];
    let ended = run_with(folder.path(), &device, "äöü\n\n\u{1}end".as_bytes());
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    gateway.signal(rustix::process::Signal::INT);
    assert_eq!(gateway.end().code, Some(0));

    // Another run of the gateway finds them in its store.
    let listen = ["--listen", &peers];
    let args = [&["gateway", "--device-listen", "127.0.0.1:0"], &listen[..]].concat();
    let _gateway = Liner::start(folder.path(), &args);
    let sub = Liner::start(folder.path(), &["sub", "t", "--name", "w", "--peer", &peers, "--count", "3"]);
    let ended = sub.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(ended.lines, ["t device#1 äöü", "t device#2 ", "t device#3 \\u{1}end"]);
}

#[test]
fn bytes_that_are_no_text_arrive_as_base64() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &["--store", "ram:"]);
    let device = ["device", "--topic", "t", "--connect", &devices, "--payload-from", "-", "--count", "1"];
    let ended = run_with(folder.path(), &device, b"\xff\x00x\nnot sent\n");
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let sub =
        Liner::start(folder.path(), &["sub", "t", "--name", "w", "--peer", &peers, "--count", "1", "--json"]);
    let line = sub.json();
    assert_eq!((&line["payload"], &line["encoding"]), (&Value::from("/wB4"), &Value::from("base64")));
    assert_eq!(sub.end().code, Some(0));
}

#[test]
fn a_device_waits_for_a_gateway_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let port = crate::process::free_port();
    let address = format!("127.0.0.1:{port}");
    let device =
        ["device", "--topic", "t", "--connect", &address, "--every", "1ms", "--count", "20", "--json"];
    let device = Liner::start(folder.path(), &device);
    // All are in its RAM, and none is acknowledged.
    while device.json()["waiting"] != 20 {}
    let _gateway = Liner::start(
        folder.path(),
        &["gateway", "--store", "ram:", "--listen", "127.0.0.1:0", "--device-listen", &address],
    );
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let last: Value = serde_json::from_str(ended.lines.last().unwrap()).unwrap();
    assert_eq!((&last["acknowledged"], &last["waiting"]), (&Value::from(20), &Value::from(0)));
}

#[test]
fn a_subscriber_prints_no_more_than_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &["--store", "ram:"]);
    let device = ["device", "--topic", "t", "--connect", &devices, "--payload-from", "-"];
    let input: String = (1..=20).map(|n| format!("{n}\n")).collect();
    assert_eq!(run_with(folder.path(), &device, input.as_bytes()).code, Some(0));
    let mut printed = Vec::new();
    while printed.len() < 20 {
        let sub = Liner::start(folder.path(), &["sub", "t", "--name", "w", "--peer", &peers, "--count", "1"]);
        let ended = sub.end();
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        assert!(!ended.lines.is_empty());
        printed.extend(ended.lines);
    }
    let payloads: Vec<&str> = printed.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let wanted: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    assert_eq!(payloads, wanted);
}
