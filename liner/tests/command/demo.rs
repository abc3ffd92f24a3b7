//! The demonstration.

use rustix::process::Signal;
use serde_json::Value;

use crate::process::Liner;

#[test]
fn readings_are_on_the_screen_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Liner::start(folder.path(), &["gateway", "--demo", "--json"]);
    assert_eq!(demo.json()["event"], "started");
    let first = demo.json();
    assert!(first["seconds"].as_u64().unwrap() < 10, "{first}");
    assert!(first["arrived"].as_u64().unwrap() >= 1, "{first}");
    assert!(first["reading"]["load"].is_number(), "{first}");
    let second = demo.json();
    assert!(second["arrived"].as_u64() > first["arrived"].as_u64(), "{first} {second}");
    demo.signal(Signal::INT);
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let last: Value = serde_json::from_str(ended.lines.last().unwrap()).unwrap();
    assert_eq!(last["event"], "ended");
    let read = last["read"].as_u64().unwrap() - last["in_device"].as_u64().unwrap();
    assert!(last["arrived"].as_u64().unwrap() >= read, "{last}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves something behind");
}

#[test]
fn people_get_a_table_without_escape_codes() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Liner::start(folder.path(), &["gateway", "--demo", "--durability", "process"]);
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("s  load ")) {
        lines.push(demo.line().expect("a line with a reading"));
    }
    demo.signal(Signal::TERM);
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    lines.extend(ended.lines);
    assert!(lines.last().unwrap().ends_with("readings arrived."), "{lines:?}");
    for line in lines {
        assert!(!line.contains('\x1b'), "{line:?}");
        assert!(line.chars().count() <= 84, "{line:?}");
    }
}
