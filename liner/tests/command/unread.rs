//! Standard output that nobody reads: status lines are not the work, a subscriber's lines are.

use rustix::process::Signal;

use crate::path::gateway;
use crate::process::{Liner, free_port};

#[test]
fn a_gateway_and_a_device_go_on_without_readers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [peers, devices] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let args = ["gateway", "--store", "ram:", "--listen", &peers, "--device-listen", &devices];
    let gateway = Liner::start_unread(folder, &args);
    gateway.error_with("no more status lines");
    let device = ["device", "--topic", "t", "--connect", &devices, "--every", "1ms", "--count", "20"];
    let ended = Liner::start_unread(folder, &device).end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let told = |errors: &[String]| errors.iter().filter(|line| line.contains("no more status lines")).count();
    assert_eq!(told(&ended.errors), 1, "{:?}", ended.errors);
    let ended = Liner::start(folder, &["sub", "t", "--name", "w", "--peer", &peers, "--count", "20"]).end();
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 20), "{:?}", ended.errors);
    gateway.signal(Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(told(&ended.errors), 0, "it is told once: {:?}", ended.errors);
}

#[test]
fn a_subscriber_ends_without_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &["--store", "ram:"]);
    let sub = Liner::start_unread(folder.path(), &["sub", "t", "--name", "w", "--peer", &peers]);
    let device = ["device", "--topic", "t", "--connect", &devices, "--count", "1"];
    assert_eq!(Liner::start(folder.path(), &device).end().code, Some(0));
    let ended = sub.end();
    assert_eq!(ended.code, Some(1), "{:?}", ended.errors);
    assert!(ended.errors.join("\n").contains("not acknowledged"), "{:?}", ended.errors);
    let ended =
        Liner::start(folder.path(), &["sub", "t", "--name", "w", "--peer", &peers, "--count", "1"]).end();
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 1), "{:?}", ended.errors);
}
