//! What is told on standard error, by levels.

use std::time::Duration;

use liner::{Message, Node};
use rustix::process::Signal;

use crate::path::gateway;
use crate::process::{Liner, free_port, run, run_in};

/// What a message to nobody makes the command say.
fn told(level: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    let args =
        ["pub", "t", "x", "--name", "p", "--store", "sqlite:p.db", "--wait", "100ms", "--peer", &nobody];
    let ended = run_in(folder.path(), &args, &[("LINER_LOG", level)]);
    assert_eq!(ended.code, Some(5), "{:?}", ended.errors);
    let (last, rest) = ended.errors.split_last().unwrap();
    assert!(last.starts_with("liner: nobody answered at "), "{level}: {last}");
    rest.to_vec()
}

#[test]
fn each_level_adds_to_the_one_before() {
    for level in ["error", "warn"] {
        assert_eq!(told(level), [""; 0], "{level}: why it ended, and no more");
    }
    let info = told("info");
    assert!(matches!(&info[..], [line] if line.starts_with("liner: nobody answers at ")), "{info:?}");
    assert_eq!(told("").len(), 1, "a variable that is empty counts as none");
    for level in ["debug", "trace"] {
        let told = told(level);
        let opened =
            |line: &String| line.contains("] debug liner::store: sqlite:p.db is open for p, at class power");
        assert_eq!(told.iter().filter(|line| opened(line)).count(), 1, "{told:?}");
        assert_eq!(told.iter().filter(|line| line.contains("nobody answers at ")).count(), 1, "{told:?}");
        assert!(!told.iter().any(|line| line.contains("mio")), "{told:?}");
    }
}

#[test]
fn frames_are_told_of_at_trace_and_sessions_by_whoever_asks_the_core() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _, devices) = gateway(folder.path(), &["--log", "liner_proto=info"]);
    let device = |level| {
        let args = ["device", "--topic", "t", "--connect", &devices, "--count", "1", "--log", level];
        let ended = run(folder.path(), &args);
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        ended.errors
    };
    let debug = device("debug");
    let holds = |lines: &[String], words: &str| lines.iter().any(|line| line.contains(words));
    assert!(holds(&debug, "] debug liner_proto::endpoint::output: hello sent"), "{debug:?}");
    assert!(!holds(&debug, "] trace ") && !holds(&debug, "] info "), "{debug:?}");
    let trace = device("trace");
    assert!(holds(&trace, "] trace liner_proto::endpoint::output: a frame of "), "{trace:?}");
    assert!(!trace.iter().any(|line| line.contains('\u{1b}')), "{trace:?}");
    let named = device("warn,liner_proto::endpoint=info");
    assert!(holds(&named, "] info liner_proto::endpoint::input: connected to"), "{named:?}");
    assert!(!holds(&named, "liner: connected"), "{named:?}");
    // Of a gateway whose filter names the core both are told.
    gateway.error_with("] info liner_proto::router::event: \"device\" is connected");
    gateway.error_with("liner: device is connected");
}

#[test]
fn nothing_from_outside_forges_a_line_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, peers, _) = gateway(folder.path(), &["--log", "trace,liner_proto=trace"]);
    let name = "a\nliner: forged\u{1b}[31m\u{202e}";
    let mut peer = Node::builder(name).peer(&peers).durable(true).subscribe(name).build().unwrap();
    while peer.peers_up().is_empty() {
        peer.drive(Some(Duration::from_millis(10)), &mut |_: &Message<'_>| {}).unwrap();
    }
    let first = gateway.error_with("forged");
    gateway.signal(Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0));
    for line in [&first].into_iter().chain(&ended.errors) {
        assert!(line.starts_with("liner: ") && !line.starts_with("liner: forged"), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
    let connected = |line: &&String| line.contains("is connected");
    let both = [&first].into_iter().chain(&ended.errors).filter(connected).count();
    assert_eq!(both, 2, "once by the command, once by the core that was asked: {:?}", ended.errors);
}

#[test]
fn what_comes_and_goes_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, _) = gateway(folder.path(), &[]);
    let published = run(folder.path(), &["pub", "t", "x", "--name", "p", "--peer", &peers]);
    assert_eq!(published.code, Some(0), "{:?}", published.errors);
    let sub = ["sub", "t", "--name", "w", "--count", "1", "--peer", &peers, "--log", "warn"];
    let sub = Liner::start(folder.path(), &sub).end();
    assert_eq!((sub.code, sub.lines.len(), sub.errors.len()), (Some(0), 1, 0), "{:?}", sub.errors);
}
