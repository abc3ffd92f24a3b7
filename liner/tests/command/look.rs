//! What is in a store, seen from outside while its node runs; and what was put aside, which is read, sent again or dropped.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::path::gateway;
use crate::process::{Ended, Liner, run, run_with};

const STORE: &str = "sqlite:liner-gateway.db";

fn look(folder: &Path, words: &[&str]) -> Ended {
    run(folder, &[words, &["--store", STORE]].concat())
}

/// The lines of a command that has to succeed.
#[track_caller]
fn lines(folder: &Path, words: &[&str]) -> Vec<String> {
    let ended = look(folder, words);
    assert_eq!(ended.code, Some(0), "{words:?}: {:?}", ended.errors);
    ended.lines
}

#[track_caller]
fn objects(folder: &Path, words: &[&str]) -> Vec<Value> {
    let lines = lines(folder, &[words, &["--json"]].concat());
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn publish(folder: &Path, peers: &str, words: &[&str]) {
    let ended = run(folder, &[&["pub", "--peer", peers, "--name", "p"], words].concat());
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
}

/// A subscriber comes once, and is away from then on.
fn subscribe(folder: &Path, peers: &str, name: &str, topic: &str) {
    let sub = Liner::start(folder, &["sub", topic, "--name", name, "--peer", peers, "--store", "ram:"]);
    sub.error_with("is connected");
    let taken = |line: &String| *line == format!("{topic} {name} @{name}");
    while !lines(folder, &["topics"]).iter().any(taken) {}
}

#[test]
fn what_waits_and_for_whom_is_seen_while_the_gateway_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (gateway, peers, _) = gateway(folder, &[]);
    assert_eq!(look(folder, &["pending"]).errors, ["liner: nothing waits"]);
    publish(folder, &peers, &["nobody", "x"]);
    assert_eq!(look(folder, &["pending"]).errors, ["liner: a message waits"]);
    subscribe(folder, &peers, "w", "readings");
    for _ in 0..3 {
        publish(folder, &peers, &["readings", "20.6"]);
    }
    let ended = look(folder, &["pending"]);
    let words = ended.lines.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect::<Vec<_>>();
    assert_eq!(words, ["gateway w 3", "gateway topic:nobody 1"]);
    assert_eq!(ended.errors, ["liner: 4 messages wait"]);
    let seen = objects(folder, &["pending", "--name", "gateway"]);
    assert_eq!(
        (&seen[0]["kind"], &seen[0]["for"], &seen[0]["messages"]),
        (&json!("node"), &json!("w"), &json!(3))
    );
    assert_eq!((&seen[1]["kind"], &seen[1]["for"]), (&json!("topic"), &json!("nobody")));
    assert!(lines(folder, &["pending", "--name", "other"]).is_empty());
    assert_eq!(objects(folder, &["topics"]), [json!({ "topic": "readings", "name": "w", "address": "@w" })]);
    drop(gateway);
    assert_eq!(lines(folder, &["pending"]).len(), 2, "also when nobody uses the file");
}

/// Three messages that were too old when their subscriber came, put aside.
fn put_aside(folder: &Path) {
    let (gateway, peers, _) = gateway(folder, &[]);
    subscribe(folder, &peers, "w", "alarms");
    for payload in ["a", "b", "c"] {
        publish(folder, &peers, &["alarms", payload, "--ttl", "300ms"]);
    }
    // They get too old at the gateway, and not on their way to it.
    let (_sender, nothing) = channel::<()>();
    assert_eq!(nothing.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
    let sub = Liner::start(folder, &["sub", "alarms", "--name", "w", "--peer", &peers, "--store", "ram:"]);
    while lines(folder, &["dlq", "list"]).len() < 3 {}
    drop((sub, gateway));
}

#[test]
fn what_was_put_aside_is_read_dropped_and_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put_aside(folder);
    let aside: Vec<String> = lines(folder, &["dlq", "list", "--topic", "alarms"]);
    let ids: Vec<&str> = aside.iter().map(|line| line.split_once(' ').unwrap().0).collect();
    let words = aside.iter().map(|line| line.split_once(' ').unwrap().1).collect::<Vec<_>>();
    assert_eq!(words, ["a", "b", "c"].map(|payload| format!("gateway w expired alarms - {payload}")));
    assert!(lines(folder, &["dlq", "list", "--topic", "other"]).is_empty());
    let letter = &objects(folder, &["dlq", "list"])[1];
    assert_eq!(
        (&letter["peer"], &letter["reason"], &letter["payload"]),
        (&json!("w"), &json!("expired"), &json!("b"))
    );
    assert_eq!(lines(folder, &["dlq", "read", ids[2]]).len(), 0, "a payload is no line");

    // All or none of them.
    for action in ["drop", "redrive"] {
        let ended = look(folder, &["dlq", action, ids[0], "4711"]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.errors[0].contains("there is no dead letter 4711"), "{:?}", ended.errors);
        assert_eq!(lines(folder, &["dlq", "list"]), aside);
    }
    assert_eq!(look(folder, &["dlq", "drop", ids[1]]).errors, ["liner: a message dropped"]);
    let again = look(folder, &["dlq", "redrive", ids[2], ids[0]]);
    assert_eq!(again.errors, ["liner: 2 messages queued again: sent when their node starts the next time"]);
    assert!(lines(folder, &["dlq", "list"]).is_empty());

    let (_gateway, peers, _) = gateway(folder, &[]);
    let sub = ["sub", "alarms", "--name", "w", "--peer", &peers, "--store", "ram:", "--count", "2", "--json"];
    let arrived = Liner::start(folder, &sub).end().lines;
    let payload = |line: &String| serde_json::from_str::<Value>(line).unwrap()["payload"].clone();
    assert_eq!(
        arrived.iter().map(payload).collect::<Vec<_>>(),
        ["c", "a"],
        "in the order in which they were named"
    );
}

#[test]
fn a_long_payload_does_not_fill_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (gateway, peers, _) = gateway(folder, &[]);
    subscribe(folder, &peers, "w", "alarms");
    let payload = [&[0, 0xff][..], &[7; 999_998]].concat();
    let ended = run_with(folder, &["pub", "alarms", "-", "--peer", &peers], &payload);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    // It takes another topic when it comes back.
    let sub = Liner::start(folder, &["sub", "news", "--name", "w", "--peer", &peers, "--store", "ram:"]);
    while lines(folder, &["dlq", "list"]).is_empty() {}
    drop((sub, gateway));
    let line = lines(folder, &["dlq", "list"]).remove(0);
    assert!(
        line.contains(" unsubscribed alarms - base64:AP8HBwcH") && line.ends_with("… (1000000 bytes)"),
        "{line}"
    );
    assert!(line.len() < 300, "{}", line.len());
    let whole = objects(folder, &["dlq", "list"]).remove(0);
    assert_eq!(whole["payload"].as_str().unwrap().len(), 1_333_336, "programs are given all of it");
}

#[test]
fn all_dead_letters_of_a_topic_or_of_all_are_dropped_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put_aside(folder);
    assert_eq!(look(folder, &["dlq", "drop", "--topic", "other"]).errors, ["liner: nothing dropped"]);
    assert_eq!(look(folder, &["dlq", "drop"]).code, Some(2));
    assert_eq!(look(folder, &["dlq", "drop", "1", "--all"]).code, Some(2));
    assert_eq!(look(folder, &["dlq", "drop", "--all"]).errors, ["liner: 3 messages dropped"]);
    assert!(lines(folder, &["dlq", "list"]).is_empty());
}

#[test]
fn what_is_no_store_is_said_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("text"), "no database at all, but long enough for one\n".repeat(40)).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    let rows: [(&str, i32, &str); 5] = [
        ("sqlite:nothing.db", 1, "there is no store at"),
        ("sqlite:text", 1, "text"),
        ("sqlite:folder", 2, "is a directory"),
        ("ram:", 2, "name the file"),
        ("mysql://127.0.0.1", 2, "there is no store of the kind"),
    ];
    for (store, code, words) in rows {
        for command in [&["pending"][..], &["topics"], &["dlq", "list"], &["dlq", "drop", "--all"]] {
            let ended = run(folder, &[command, &["--store", store]].concat());
            let errors = ended.errors.join("\n");
            assert_eq!(ended.code, Some(code), "{store}: {errors}");
            assert!(errors.contains(words) && ended.errors.len() <= 3, "{store}: {errors}");
        }
    }
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing was made: {names:?}");
}

#[test]
fn the_help_of_a_command_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let holds = |words: &[&str], text: &str| {
        let lines = run(folder.path(), &[words, &["--help"]].concat()).lines;
        lines.iter().any(|line| line.contains(text))
    };
    assert!(holds(&["topics"], "A line is `TOPIC NAME ADDRESS`"));
    for action in ["list", "read", "redrive", "drop"] {
        assert!(!holds(&["dlq", action], "TOPIC NAME ADDRESS"), "{action}");
        assert!(holds(&["dlq", action], "liner dlq"), "{action}");
    }
}
