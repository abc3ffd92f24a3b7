//! What a store holds is delivered without the node that has put it there.

use std::path::Path;
use std::time::Duration;

use liner::{Builder, Class, Message, Mode, Node};
use liner_store_sqlite::{Options, SqliteStore};
use rustix::process::Signal;

use crate::path::gateway;
use crate::process::{Liner, free_port, run};

const PATIENCE: Duration = Duration::from_secs(10);

/// Messages of the node `edge` for whoever answers at an address, in `edge.db`.
fn store(folder: &Path, address: &str, count: u32) {
    store_for(folder, |builder| builder.peer(address), count);
}

/// The same for whomever the node is told of.
fn store_for(folder: &Path, tell: impl FnOnce(Builder) -> Builder, count: u32) {
    let options = Options {
        name: "edge".to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: String::new(),
    };
    let store = SqliteStore::open(folder.join("edge.db"), &options).unwrap();
    let mut node = tell(Node::builder("edge").store(Box::new(store))).build().unwrap();
    let mut handler = |_: &Message<'_>| {};
    for number in 1..=count {
        node.send_stored("numbers", number.to_string().as_bytes(), Mode::All, PATIENCE, &mut handler)
            .unwrap();
    }
    node.stop(PATIENCE, &mut handler).unwrap();
}

fn drain<'a>(store: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["drain", "--name", "edge", "--store", store], more].concat()
}

#[test]
fn what_an_edge_has_kept_is_delivered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let peers = format!("127.0.0.1:{}", free_port());
    store(folder, &peers, 500);

    let ended = run(folder, &drain("sqlite:edge.db", &["--wait", "100ms"]));
    assert_eq!(ended.code, Some(5), "{:?}", ended.errors);
    let errors = ended.errors.join("\n");
    assert!(errors.contains("500 messages of edge not delivered: they stay in sqlite:edge.db"), "{errors}");
    let draining = Liner::start(folder, &drain("sqlite:edge.db", &["--json"]));
    assert_eq!(draining.json()["waiting"], 500);
    draining.signal(Signal::TERM);
    assert_eq!(draining.end().code, Some(4));

    // Nobody has to say where: the store knows.
    let draining = Liner::start(folder, &drain("sqlite:edge.db", &["--json"]));
    let listen = ["gateway", "--listen", &peers, "--device-listen", "127.0.0.1:0"];
    let _gateway = Liner::start(folder, &listen);
    let ended = draining.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(ended.lines.last().unwrap(), r#"{"delivered":500,"waiting":0}"#);
    let sub = ["sub", "numbers", "--name", "w", "--peer", &peers, "--count", "500"];
    let wanted: Vec<String> = (1..=500).map(|number| format!("numbers edge#{number} {number}")).collect();
    assert_eq!(Liner::start(folder, &sub).end().lines, wanted);

    let ended = run(folder, &drain("sqlite:edge.db", &[]));
    assert_eq!(
        (ended.code, &ended.errors[..]),
        (Some(0), &["liner: edge has nothing to deliver".to_owned()][..])
    );
}

#[test]
fn another_node_at_the_address_of_the_right_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = format!("127.0.0.1:{}", free_port());
    store_for(folder, |builder| builder.receiver("numbers", &address, "right"), 1);
    let sub = ["sub", "numbers", "--name", "other", "--store", "ram:", "--listen", &address];
    let sub = Liner::start(folder, &sub);
    sub.error_with("listening on");
    let draining = Liner::start(folder, &drain("sqlite:edge.db", &["--log", "warn"]));
    draining.error_with(&format!("other answers at {address}, where right was said to be"));
    draining.signal(Signal::TERM);
    let ended = draining.end();
    assert_eq!(ended.code, Some(4));
    assert!(ended.errors.join("\n").contains("a message of edge not delivered"), "{:?}", ended.errors);
}

#[test]
fn nothing_is_drained_behind_the_back_of_a_node_or_from_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ended = run(folder, &drain("sqlite:edge.db", &[]));
    assert_eq!(ended.code, Some(1));
    assert!(ended.errors[0].contains("there is no store at"), "{:?}", ended.errors);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "nothing was made");
    assert_eq!(run(folder, &drain("ram:", &[])).code, Some(2));

    let (_gateway, _, _) = gateway(folder, &["--name", "edge"]);
    let mistaken = ["drain", "--name", "edg", "--store", "sqlite:liner-gateway.db"];
    for _ in 0..2 {
        let ended = run(folder, &mistaken);
        assert_eq!(ended.code, Some(1), "{:?}", ended.errors);
        assert!(ended.errors[0].contains("no node named \"edg\" has used"), "{:?}", ended.errors);
    }
    let ended = run(folder, &drain("sqlite:liner-gateway.db", &[]));
    assert_eq!(ended.code, Some(3), "{:?}", ended.errors);
    assert!(ended.errors.join("\n").contains("a node named \"edge\" runs already"), "{:?}", ended.errors);
}

#[test]
fn a_damaged_store_is_left_where_it_is_and_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store(folder, "127.0.0.1:1", 3);
    let mut bytes = std::fs::read(folder.join("edge.db")).unwrap();
    bytes[16..64].fill(0xff);
    std::fs::write(folder.join("edge.db"), &bytes).unwrap();
    let ended = run(folder, &drain("sqlite:edge.db", &["--wait", "100ms"]));
    assert_eq!((ended.code, ended.errors.len()), (Some(1), 1), "{:?}", ended.errors);
    assert_eq!(std::fs::read(folder.join("edge.db")).unwrap(), bytes);
    let renamed = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().contains("corrupt")
    };
    assert!(!std::fs::read_dir(folder).unwrap().any(renamed));
}
