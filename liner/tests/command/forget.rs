//! A node that never comes back is given up, and what was for it goes elsewhere.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use liner::{Class, Message, Mode, Node};
use liner_store_sqlite::{Options, SqliteStore};

use crate::process::{Ended, Liner, free_port, run, run_in};

const PATIENCE: Duration = Duration::from_secs(10);

/// A node `edge` on `edge.db` that knows replicas of a topic at addresses where nobody is.
fn edge(folder: &Path, replicas: &[(&str, &str, &str)]) -> Node {
    let options = Options {
        name: "edge".to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: String::new(),
    };
    let store = SqliteStore::open(folder.join("edge.db"), &options).unwrap();
    let mut builder = Node::builder("edge").store(Box::new(store));
    for (topic, address, name) in replicas {
        builder = builder.receiver(topic, address, name);
    }
    builder.build().unwrap()
}

/// Leaves messages for those replicas, by turns or for all of them.
fn store(folder: &Path, replicas: &[(&str, &str, &str)], count: u32, to_all: u32) {
    let (mut node, mut handler) = (edge(folder, replicas), |_: &Message<'_>| {});
    let modes = (1..=count).map(|number| (number, Mode::One));
    for (number, mode) in modes.chain((1..=to_all).map(|number| (count + number, Mode::All))) {
        node.send_stored("jobs", number.to_string().as_bytes(), mode, PATIENCE, &mut handler).unwrap();
    }
    node.stop(PATIENCE, &mut handler).unwrap();
}

fn forget(folder: &Path, more: &[&str]) -> Ended {
    run(folder, &[&["forget", "--name", "edge", "--store", "sqlite:edge.db"], more].concat())
}

fn pending(folder: &Path) -> Vec<String> {
    run(folder, &["pending", "--store", "sqlite:edge.db"]).lines
}

#[track_caller]
fn assert_line(ended: &Ended, line: &str) {
    assert_eq!((ended.code, ended.lines.as_slice()), (Some(0), &[line.to_owned()][..]), "{:?}", ended.errors);
}

#[test]
fn what_was_for_a_dead_replica_is_delivered_by_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let alive = format!("127.0.0.1:{}", free_port());
    store(folder, &[("jobs", "127.0.0.1:9", "dead"), ("jobs", &alive, "w")], 10, 2);
    let line = "dead is forgotten: 5 rerouted, 0 of them kept for the next subscriber, 2 dropped";
    assert_line(&forget(folder, &["dead", "--reroute"]), line);
    let topics = run(folder, &["topics", "--store", "sqlite:edge.db"]);
    assert_eq!(topics.lines, [format!("jobs w {alive}")]);
    assert!(pending(folder)[0].starts_with("edge w 12 "), "{:?}", pending(folder));

    let sub = Liner::start(folder, &["sub", "jobs", "--name", "w", "--listen", &alive, "--count", "12"]);
    let drained = run(folder, &["drain", "--name", "edge", "--store", "sqlite:edge.db", "--wait", "60s"]);
    assert_eq!(drained.code, Some(0), "{:?}", drained.errors);
    let mut payloads: Vec<u32> =
        sub.end().lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, (1..=12).collect::<Vec<_>>());
}

#[test]
fn what_nobody_else_takes_is_kept_for_the_next_or_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store(folder, &[("jobs", "127.0.0.1:9", "gone")], 4, 0);
    let line = "gone is forgotten: 0 rerouted, 0 of them kept for the next subscriber, 4 dropped";
    assert_line(&forget(folder, &["gone"]), line);
    assert_eq!(pending(folder), [""; 0]);

    store(folder, &[("jobs", "127.0.0.1:9", "dead")], 3, 1);
    let line = r#"{"name":"dead","rerouted":3,"kept":3,"dropped":1}"#;
    assert_line(&forget(folder, &["dead", "--reroute", "--json"]), line);
    assert!(pending(folder)[0].starts_with("edge topic:jobs 3 "), "{:?}", pending(folder));
    // The environment says as well who forgets, and where.
    let variables = [("LINER_NAME", "edge"), ("LINER_STORE", "sqlite:edge.db")];
    let again = run_in(folder, &["forget", "gone"], &variables);
    assert_eq!(again.code, Some(1));
    assert_eq!(again.errors, ["liner: edge knows no node named gone: it knows nobody"]);
}

/// Whoever met it now would think that it subscribes to nothing any more, and put aside what is queued for it.
#[test]
fn nobody_is_met_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = format!("127.0.0.1:{}", free_port());
    store(folder, &[("jobs", "127.0.0.1:9", "dead"), ("jobs", &address, "w")], 1000, 0);
    let listener = TcpListener::bind(&address).unwrap();
    let line = "dead is forgotten: 500 rerouted, 0 of them kept for the next subscriber, 0 dropped";
    assert_line(&forget(folder, &["dead", "--reroute"]), line);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn who_is_not_known_is_told_with_those_who_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store(folder, &[("jobs", "127.0.0.1:9", "w1"), ("jobs", "127.0.0.1:10", "w2")], 2, 0);
    let before = pending(folder);
    let ended = forget(folder, &["w3", "--reroute"]);
    assert_eq!((ended.code, ended.lines.len()), (Some(1), 0));
    assert_eq!(ended.errors, ["liner: edge knows no node named w3: it knows w1, w2"]);
    let own = forget(folder, &["edge"]);
    assert_eq!((own.code, own.errors.len()), (Some(2), 1), "{:?}", own.errors);
    assert_eq!(pending(folder), before);
}

#[test]
fn nobody_is_forgotten_behind_the_back_of_a_node_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let running = edge(folder, &[("jobs", "127.0.0.1:9", "w1")]);
    let ended = forget(folder, &["w1"]);
    assert_eq!(ended.code, Some(3));
    assert_eq!(ended.errors.len(), 1);
    assert!(ended.errors[0].contains("a node named \"edge\" runs already"), "{:?}", ended.errors);
    drop(running);

    // Who shares the file is asked, too.
    let sub = ["sub", "jobs", "--name", "w1", "--store", "sqlite:edge.db", "--listen", "127.0.0.1:0"];
    let sub = Liner::start(folder, &sub);
    sub.error_with("127.0.0.1:");
    let ended = forget(folder, &["w1"]);
    assert_eq!(ended.code, Some(3));
    assert_eq!(ended.errors, ["liner: w1 runs on sqlite:edge.db: stop it first"]);
    sub.kill();
    assert_eq!(forget(folder, &["w1"]).code, Some(0));
}
