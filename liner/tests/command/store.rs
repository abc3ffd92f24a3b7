//! Stores as a whole: copied into others, looked over, backed up beside their nodes, and what is said of those on servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use liner::{Class, Message, Mode, Node};
use liner_store_sqlite::rusqlite::Connection;
use liner_store_sqlite::{Options, SqliteStore};
use serde_json::{Value, json};

use crate::cli::assert_refused;
use crate::path::gateway;
use crate::process::{Ended, Liner, PATIENCE, free_port, run, run_in};

/// A program that has to succeed.
#[track_caller]
fn done(folder: &Path, words: &[&str]) -> Ended {
    let ended = run(folder, words);
    assert_eq!(ended.code, Some(0), "{words:?}: {:?}", ended.errors);
    ended
}

#[track_caller]
fn object(folder: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&done(folder, words).lines[0]).unwrap()
}

/// Messages of the node `edge` to whoever answers at an address, in `edge.db`.
fn keep(folder: &Path, address: &str, payload: &str, count: &str) {
    let words = ["pub", "numbers", payload, "--count", count, "--name", "edge", "--store", "sqlite:edge.db"];
    done(folder, &[&words[..], &["--peer", address]].concat());
}

/// How often a subscriber gets each payload, until it has had so many messages; and the last of its lines.
fn take(folder: &Path, peers: &str, count: &str) -> (BTreeMap<String, usize>, String) {
    let ended = done(folder, &["sub", "numbers", "--name", "w", "--peer", peers, "--count", count]);
    let mut taken = BTreeMap::new();
    for line in &ended.lines {
        *taken.entry(line.rsplit_once(' ').unwrap().1.to_owned()).or_default() += 1;
    }
    (taken, ended.lines.last().unwrap().clone())
}

fn taken<const N: usize>(of: [(&str, usize); N]) -> BTreeMap<String, usize> {
    of.map(|(payload, count)| (payload.to_owned(), count)).into()
}

#[test]
fn nodes_go_on_in_the_copy_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = format!("127.0.0.1:{}", free_port());
    keep(folder, &address, "old", "3");
    let words = ["pub", "t", "x", "--name", "other", "--store", "sqlite:edge.db", "--peer", &address];
    done(folder, &words);
    let copy = ["store", "copy", "sqlite:edge.db", "sqlite:moved.db"];
    let ended = done(folder, &copy);
    assert_eq!(
        ended.lines,
        [
            "edge copied: 1 queue with 3 messages (18 bytes), 0 dead letters, 0 in its inbox, 0 peers",
            "other copied: 1 queue with 1 message (4 bytes), 0 dead letters, 0 in its inbox, 0 peers",
        ]
    );
    let next = "liner: start the nodes on sqlite:moved.db from now on, and never on sqlite:edge.db again";
    assert_eq!(ended.errors, [next]);
    // The same words once more change nothing.
    assert_eq!(done(folder, &copy).lines, ["edge is there already", "other is there already"]);
    assert_eq!(
        object(folder, &[&copy[..], &["--json"]].concat()),
        json!({ "event": "there", "name": "edge" })
    );

    fs::rename(folder.join("moved.db"), folder.join("edge.db")).unwrap();
    let listen = ["--listen", &address];
    let gateway =
        Liner::start(folder, &[&["gateway", "--device-listen", "127.0.0.1:0"], &listen[..]].concat());
    gateway.line();
    done(folder, &["drain", "--name", "edge", "--store", "sqlite:edge.db"]);
    keep(folder, &address, "new", "1");
    done(folder, &["drain", "--name", "edge", "--store", "sqlite:edge.db"]);
    let (all, last) = take(folder, &address, "4");
    assert_eq!(all, taken([("old", 3), ("new", 1)]));
    assert_eq!(last, "numbers edge#4 new", "its numbers go on, too");
}

/// Killed again and again in the midst of the copying: what is there then is never taken for the whole, and the last attempt makes it.
#[test]
fn a_copy_that_was_killed_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = format!("127.0.0.1:{}", free_port());
    let words = ["pub", "numbers", "--size", "1000", "--count", "60000", "--name", "edge"];
    done(folder, &[&words[..], &["--store", "sqlite:edge.db", "--peer", &address]].concat());
    let before = done(folder, &["pending", "--store", "sqlite:edge.db"]).lines;
    let copy = ["store", "copy", "sqlite:edge.db", "sqlite:moved.db", "--json"];
    let rows = |conn: &Connection| {
        conn.query_row("SELECT count(*) FROM segments", [], |row| row.get::<_, i64>(0)).unwrap_or(0)
    };
    let mut halves = 0;
    for _ in 0..3 {
        let copying = Liner::start(folder, &copy);
        // It is killed as soon as some of it is committed.
        let moved = folder.join("moved.db");
        let has_some = || moved.exists() && Connection::open(&moved).is_ok_and(|conn| rows(&conn) > 0);
        let mut is_over = false;
        while !is_over && !has_some() {
            is_over = copying.line_now().is_some();
        }
        if copying.kill().is_empty() && !is_over {
            halves += 1;
        }
    }
    assert!(halves > 0, "it was too fast to be killed");
    // Half a copy is no store to copy from.
    let half = run(folder, &["store", "copy", "sqlite:moved.db", "sqlite:third.db"]);
    assert_refused(&half, 1, &["sqlite:moved.db has half a copy of edge"]);
    let copied = object(folder, &copy);
    assert_eq!((&copied["event"], &copied["messages"]), (&json!("copied"), &json!(60_000)));
    assert_eq!(done(folder, &["pending", "--store", "sqlite:moved.db"]).lines, before);
    assert_eq!(done(folder, &["pending", "--store", "sqlite:edge.db"]).lines, before, "it is as it was");
}

#[test]
fn a_copy_is_refused_where_it_would_do_harm() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (running, peers, _) = gateway(folder, &[]);
    let busy = run(folder, &["store", "copy", "sqlite:liner-gateway.db", "sqlite:b.db"]);
    assert_refused(&busy, 3, &["gateway runs on sqlite:liner-gateway.db: stop it first"]);
    assert!(!folder.join("b.db").exists());
    running.kill();
    keep(folder, &peers, "a", "1");
    fs::copy(folder.join("edge.db"), folder.join("twin.db")).unwrap();
    keep(folder, &peers, "a", "1");
    let other = run(folder, &["store", "copy", "sqlite:edge.db", "sqlite:twin.db"]);
    assert_refused(&other, 1, &["sqlite:twin.db has a node named edge with a past of its own"]);
    let pending = ["pending", "--store", "sqlite:twin.db"];
    assert_eq!(done(folder, &pending).errors, ["liner: a message waits"], "it is as it was");
    for (from, to, code, words) in [
        ("sqlite:edge.db", "sqlite:./edge.db", 2, "is copied into itself"),
        ("ram:", "sqlite:b.db", 2, "ram: is in the memory of its node alone"),
        ("sqlite:edge.db", "ram:", 2, "ram: is in the memory of its node alone"),
        ("sqlite:none.db", "sqlite:b.db", 1, "there is no store at"),
    ] {
        assert_refused(&run(folder, &["store", "copy", from, to]), code, &[words]);
    }
    assert!(!folder.join("b.db").exists());
}

#[test]
fn a_store_is_looked_over_beside_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (running, peers, _) = gateway(folder, &["--durability", "process"]);
    done(folder, &["pub", "nobody", "x", "--peer", &peers, "--name", "p"]);
    let checked = object(folder, &["store", "check", "--json"]);
    assert_eq!((&checked["class"], &checked["schema"]), (&json!("process"), &json!(3)));
    let bytes = checked["nodes"][0]["bytes"].clone();
    let node = json!({
        "name": "gateway", "running": true, "queues": 1, "messages": 1, "bytes": bytes, "dead_letters": 0, "inbox": 0
    });
    assert_eq!(checked["nodes"], json!([node]));
    let advice = checked["advice"][0].as_str().unwrap();
    assert!(advice.contains("not the loss of power"), "{advice}");
    running.kill();
    let lines = done(folder, &["store", "check", "sqlite:liner-gateway.db"]).lines;
    let words = lines.iter().map(|line| line.split_once(' ').unwrap().0).collect::<Vec<_>>();
    assert_eq!(words, ["store", "kind", "class", "waiting", "put", "inboxes", "nodes", "advice"]);
    assert_eq!(lines[3], format!("waiting       1 message of {bytes} bytes, in 1 queue"));
    assert_eq!(lines[6], "nodes         gateway");

    let file = folder.join("liner-gateway.db");
    // What is in the log comes into the file when it is closed.
    drop(Connection::open(&file).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096..8192].fill(0xee);
    fs::write(&file, bytes).unwrap();
    assert_refused(&run(folder, &["store", "check"]), 1, &["damaged"]);
    assert_refused(&run(folder, &["store", "check", "sqlite:none.db"]), 1, &["there is no store at"]);
    assert_refused(&run(folder, &["store", "check", "ram:"]), 2, &["nothing to check"]);
}

/// Has the node `edge` store messages for the node `w`, which is away. They have their numbers from then on.
fn keep_for_w(folder: &Path, address: &str, payload: &str, count: u32) {
    let (name, boot_id) = ("edge".to_owned(), String::new());
    let options = Options { name, durability: Class::Power, limit_bytes: None, boot_id };
    let store = SqliteStore::open(folder.join("edge.db"), &options).unwrap();
    let builder = Node::builder("edge").store(Box::new(store)).receiver("numbers", address, "w");
    let mut node = builder.build().unwrap();
    let mut handler = |_: &Message<'_>| {};
    for _ in 0..count {
        node.send_stored("numbers", payload.as_bytes(), Mode::One, PATIENCE, &mut handler).unwrap();
    }
    node.stop(PATIENCE, &mut handler).unwrap();
}

/// The disk is lost with what was stored since the backup. Numbers that were used since then are used again for other messages: without
/// new epochs those would be taken for what was there already.
#[test]
fn what_is_sent_after_a_restore_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = format!("127.0.0.1:{}", free_port());
    // Each is there as long as the other one sends, and killed then.
    let deliver = |payload: &str, count: u32| {
        keep_for_w(folder, &address, payload, count);
        let sub = Liner::start(folder, &["sub", "numbers", "--name", "w", "--listen", &address]);
        let drain = ["drain", "--name", "edge", "--store", "sqlite:edge.db", "--wait", "30s"];
        // A child that another test is just starting has the locks of this process, until it has become another program.
        let mut ended = run(folder, &drain);
        while ended.code == Some(3) {
            ended = run(folder, &drain);
        }
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        assert!(!ended.errors.iter().any(|line| line.contains("nothing to deliver")), "{:?}", ended.errors);
        let lines = sub.kill();
        lines.iter().filter(|line| line.ends_with(payload)).count()
    };
    assert_eq!(deliver("before", 5), 5);
    let made = object(folder, &["store", "backup", "edge.db", "backup.db", "--json"]);
    assert_eq!(made["nodes"], json!(["edge"]));
    assert_eq!(deliver("after", 5), 5);
    fs::copy(folder.join("backup.db"), folder.join("edge.db")).unwrap();
    assert_eq!(deliver("restored", 20), 20);
}

/// A gateway is backed up and killed in the midst of a stream, and restored: its devices and subscribers remember more than it does.
#[test]
fn a_gateway_that_was_killed_goes_on_from_its_backup() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = format!("127.0.0.1:{}", free_port());
    let args = ["gateway", "--device-listen", "127.0.0.1:0", "--json", "--listen", &address];
    let running = Liner::start(folder, &args);
    running.line();
    let sub = ["sub", "numbers", "--name", "w", "--peer", &address];
    let sub = Liner::start(folder, &sub);
    let words = ["pub", "numbers", "--size", "100", "--count", "30000", "--name", "edge", "--wait", "60s"];
    let sending =
        Liner::start(folder, &[&words[..], &["--store", "sqlite:edge.db", "--peer", &address]].concat());
    sub.line().unwrap();
    done(folder, &["store", "backup", "sqlite:liner-gateway.db", "backup.db"]);
    for _ in 0..100 {
        sub.line().unwrap();
    }
    running.kill();
    for file in ["liner-gateway.db-wal", "liner-gateway.db-shm"] {
        let _ = fs::remove_file(folder.join(file));
    }
    fs::copy(folder.join("backup.db"), folder.join("liner-gateway.db")).unwrap();
    let running = Liner::start(folder, &args);
    running.line();
    let sent = sending.end();
    assert_eq!(sent.code, Some(0), "{:?}", sent.errors);
    keep(folder, &address, "last", "5");
    done(folder, &["drain", "--name", "edge", "--store", "sqlite:edge.db"]);
    let mut last = 0;
    while last < 5 {
        let line = sub.line().unwrap();
        last += usize::from(line.ends_with(" last") && !line.contains('*'));
    }
}

#[test]
fn a_backup_overwrites_nothing_and_is_of_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    keep(folder, "127.0.0.1:1", "a", "1");
    let backup = |from: &str, to: &str| run(folder, &["store", "backup", from, to]);
    let ended = backup("edge.db", "b.db");
    let bytes = fs::metadata(folder.join("b.db")).unwrap().len();
    assert_eq!(ended.lines, [format!("b.db: {bytes} bytes, 1 node, checked")]);
    assert_refused(&backup("edge.db", "b.db"), 2, &["b.db is there already"]);
    assert_refused(&backup("edge.db", "edge.db"), 2, &["edge.db is there already"]);
    assert_refused(&backup("none.db", "c.db"), 1, &["there is no store at"]);
    assert_refused(&backup("edge.db", "no/such.db"), 1, &["No such file"]);
    assert_refused(&backup("ram:", "c.db"), 2, &["ram:"]);
    assert_refused(&backup("redis://:secret@h", "c.db"), 2, &["liner store copy"]);
    let copied = run(folder, &["store", "copy", "sqlite:b.db", "sqlite:c.db"]);
    assert_refused(&copied, 1, &["commits of edge may be missing in sqlite:b.db: start it there once"]);
}

/// Whatever is done with it, and however it is mistaken.
#[test]
fn the_password_of_a_server_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let urls = [
        format!("redis://u:secret@127.0.0.1:{port}"),
        format!("redis://u:secret@127.0.0.1:{port}?x=1"),
        format!("rediss://u:secret@127.0.0.1:{port}"),
        "unix:///no/such.sock?user=u&password=secret".to_owned(),
        format!("postgres://u:secret@127.0.0.1:{port}/d"),
        format!("postgresql://u@127.0.0.1:{port}/d?password=secret&x=1"),
        format!("postgres://u:secret@127.0.0.1:{port}/d?durability=power"),
        format!("postgress://u:secret@127.0.0.1:{port}/d"),
        "redis:u:secret@h".to_owned(),
    ];
    let commands: [&[&str]; 11] = [
        &["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"],
        &["gateway", "--check-config", "--json"],
        &["gateway", "--check-config"],
        &["gateway", "--help"],
        &["sub", "t", "--name", "n"],
        &["pub", "t", "x", "--name", "n"],
        &["pending"],
        &["topics"],
        &["dlq", "list"],
        &["drain", "--name", "n"],
        &["forget", "other"],
    ];
    for url in &urls {
        let mut all = Vec::new();
        for command in commands {
            all.push((
                command.to_vec(),
                run_in(folder, command, &[("LINER_STORE", url), ("LINER_LOG", "trace")]),
            ));
            let words = [command, &["--store", url, "--log", "trace"]].concat();
            all.push((words.clone(), run(folder, &words)));
        }
        for words in [
            &["store", "check", url][..],
            &["store", "copy", url, "sqlite:b.db"],
            &["store", "copy", "sqlite:b.db", url],
            &["store", "backup", url, "b.db"],
            &["bench", "--store", url],
        ] {
            all.push((words.to_vec(), run(folder, words)));
        }
        for (words, ended) in all {
            let told = [ended.lines, ended.errors].concat().join("\n");
            assert!(!told.contains("secret"), "{words:?} {url}: {told}");
            assert!(!told.contains("panicked") && !told.is_empty(), "{words:?} {url}: {told}");
        }
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "nothing was made");
}

#[test]
fn what_is_wrong_with_the_url_of_a_server_is_said_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (url, words) in [
        ("redis://h?cache=1", "cache"),
        ("redis:h", "redis://HOST"),
        ("unix:/run/redis.sock", "unix:///PATH"),
        ("postgres:h", "postgres://HOST/DATABASE"),
        ("redis://h?durability=power", "up to the settings of the server"),
    ] {
        let words_of = |of: &[&str]| run(folder.path(), &[of, &["--store", url]].concat());
        assert_refused(&words_of(&["gateway", "--check-config"]), 2, &[words]);
        assert_refused(&words_of(&["pending"]), 2, &[words]);
    }
    let nameless = run(folder.path(), &["pub", "t", "x", "--store", "redis://h"]);
    assert_refused(&nameless, 2, &["add --name NAME"]);
}

/// As liner_broker 1.4 has left it: one message waits for `gateway`, and one is in no form that anybody knows.
const OF_LINER_BROKER: &str = "
CREATE TABLE seq (id INTEGER PRIMARY KEY CHECK (id = 1), v INTEGER NOT NULL);
CREATE TABLE topic_addr (topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY (topic, addr));
CREATE TABLE sender_listener (sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL,
  client_name TEXT NOT NULL DEFAULT '', PRIMARY KEY (sender_key, addr));
CREATE TABLE conn_key_map (composite TEXT PRIMARY KEY, connection_key INTEGER NOT NULL UNIQUE);
CREATE TABLE topic_key (topic TEXT PRIMARY KEY, k INTEGER NOT NULL);
CREATE TABLE conn_sender (connection_key INTEGER PRIMARY KEY, sender_topic TEXT NOT NULL);
CREATE TABLE conn_mess_number (connection_key INTEGER PRIMARY KEY, v INTEGER NOT NULL);
CREATE TABLE conn_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, connection_key INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX idx_conn_messages_ck ON conn_messages(connection_key, id);
INSERT INTO seq VALUES(1, 3);
INSERT INTO topic_key VALUES('readings', 1), ('alarms', 2);
INSERT INTO conn_key_map VALUES('sensor:alarms:gateway', 3);
INSERT INTO conn_sender VALUES(3, 'alarms');
INSERT INTO conn_messages(connection_key, payload) VALUES
  (3, x'00000018' || x'0000000000000005' || x'00000003' || x'00000001' || x'02' || x'00000003' || 'old'), (3, 'raw');";

#[test]
fn a_file_of_liner_broker_is_taken_over_by_the_first_node() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let conn = Connection::open(folder.join("old.db")).unwrap();
    conn.execute_batch(OF_LINER_BROKER).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    conn.execute("INSERT INTO topic_addr VALUES('readings', ?1, 'gateway')", [&address]).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    let _: i64 = conn.query_row("SELECT count(*) FROM seq", [], |row| row.get(0)).unwrap();
    let publish = ["pub", "readings", "new", "--name", "sensor", "--store", "sqlite:old.db"];
    let made = "old.db was made by liner_broker";
    for words in [
        &["store", "check", "sqlite:old.db"][..],
        &["pending", "--store", "sqlite:old.db"],
        &["drain", "--name", "sensor", "--store", "sqlite:old.db"],
    ] {
        assert_refused(&run(folder, words), 1, &[made, "start a node on the file once"]);
    }
    assert_refused(&run(folder, &publish), 3, &[made, "stop that program, then start this one again"]);
    drop(conn);

    // Another node is the first.
    let first = ["pub", "t", "x", "--name", "first", "--store", "sqlite:old.db", "--peer", "127.0.0.1:1"];
    let ended = done(folder, &first);
    let taken = "is liner's now: of its messages 1 are queued, 1 cannot be sent and are dead letters";
    assert!(ended.errors.iter().any(|line| line.contains(taken)), "{:?}", ended.errors);
    done(folder, &["store", "copy", "sqlite:old.db", "sqlite:copy.db"]);
    let checked = object(folder, &["store", "check", "sqlite:copy.db", "--json"]);
    let nodes: Vec<_> = checked["nodes"].as_array().unwrap().iter().collect();
    let of = |node: &Value| [node["name"].clone(), node["messages"].clone(), node["dead_letters"].clone()];
    assert_eq!(
        nodes.iter().map(|node| of(node)).collect::<Vec<_>>(),
        [[json!("first"), json!(1), json!(0)], [json!("sensor"), json!(1), json!(1)]]
    );
    let listen = ["sub", "readings", "--name", "gateway", "--listen", &address, "--count", "1"];
    let subscriber = Liner::start(folder, &listen);
    subscriber.error_with("listening on");
    done(folder, &["drain", "--name", "sensor", "--store", "sqlite:old.db"]);
    assert_eq!(subscriber.end().lines, ["readings sensor#1* old"]);
}
