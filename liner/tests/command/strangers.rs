//! What those who connect say about themselves.

use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use liner::{Message, Mode, Node};
use rustix::process::Signal;

use crate::process::Liner;

fn node(name: &str, peer: &str) -> Node {
    Node::builder(name).peer(peer).build().unwrap()
}

fn drive(node: &mut Node) {
    node.drive(Some(Duration::from_millis(10)), &mut |_: &Message<'_>| {}).unwrap();
}

/// A subscriber that listens, and where.
fn subscriber(folder: &tempfile::TempDir, more: &[&str]) -> (Liner, String) {
    let args = [&["sub", "readings", "--listen", "127.0.0.1:0"], more].concat();
    let sub = Liner::start(folder.path(), &args);
    let listening = sub.error_with("listening on ");
    let address = listening.rsplit(' ').next().unwrap().to_owned();
    (sub, address)
}

#[test]
fn a_name_forges_no_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (sub, address) = subscriber(&folder, &["--count", "1"]);
    let mut peer = node("a\nreadings d#9 x\x1b[31m", &address);
    peer.send("readings", b"20\r21", Mode::All).unwrap();
    while !peer.is_idle() {
        drive(&mut peer);
    }
    let ended = sub.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(ended.lines, ["readings a\\nreadings\\u{20}d#9\\u{20}x\\u{1b}[31m#1 20\\r21"]);
    let up = "liner: a\\nreadings d#9 x\\u{1b}[31m is connected";
    assert!(ended.errors.iter().any(|line| line == up), "{:?}", ended.errors);
}

#[test]
fn a_stranger_with_the_same_name_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (sub, address) = subscriber(&folder, &["--name", "w"]);
    let mut stranger = node("w", &address);
    let (told, is_told) = channel::<()>();
    let driven = std::thread::spawn(move || {
        while is_told.try_recv() == Err(TryRecvError::Empty) {
            drive(&mut stranger);
        }
    });
    sub.error_with("its name is in use");
    drop(told);
    driven.join().unwrap();
    sub.signal(Signal::TERM);
    let ended = sub.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
}
