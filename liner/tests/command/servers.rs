//! The command on stores that servers keep: the URL is all that is different.

use std::path::Path;

use liner_tests::servers::{Postgres, PostgresOptions, Redis, RedisOptions, Reply, Version};

use crate::cli::assert_refused;
use crate::path::gateway;
use crate::process::{Liner, PATIENCE, free_port, run, run_in};

/// A gateway keeps there what nobody takes yet, and has it after it was killed.
fn a_gateway_is_killed(folder: &Path, url: &str) {
    let start = || gateway(folder, &["--store", url, "--durability", "power"]);
    let (running, peers, _) = start();
    let sent = run(folder, &["pub", "readings", "kept", "--name", "p", "--peer", &peers]);
    assert_eq!(sent.code, Some(0), "{:?}", sent.errors);
    assert_eq!(sent.lines, ["readings p#1 acknowledged by gateway (power)"]);
    running.kill();
    let (_running, peers, _) = start();
    let sub = ["sub", "readings", "--name", "w", "--store", url, "--peer", &peers, "--count", "1"];
    let taken = run(folder, &sub);
    assert_eq!(
        (taken.code, taken.lines),
        (Some(0), vec!["readings p#1 kept".to_owned()]),
        "{:?}",
        taken.errors
    );
}

/// What an edge has kept in a file goes on there.
fn a_file_moves_in(folder: &Path, url: &str) {
    let address = format!("127.0.0.1:{}", free_port());
    let publish = |payload: &str, store: &str| {
        let words = ["pub", "numbers", payload, "--name", "edge", "--store", store, "--peer", &address];
        let ended = run(folder, &words);
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        ended
    };
    publish("1", "sqlite:edge.db");
    publish("2", "sqlite:edge.db");
    let copy = || run(folder, &["store", "copy", "sqlite:edge.db", url]);
    let line = "edge copied: 1 queue with 2 messages (8 bytes), 0 dead letters, 0 in its inbox, 0 peers";
    let copied = copy();
    assert_eq!((copied.code, copied.lines), (Some(0), vec![line.to_owned()]), "{:?}", copied.errors);
    assert_eq!(copy().lines, ["edge is there already"]);
    let stored = publish("3", url);
    assert!(
        stored.lines[0].starts_with("numbers stored in ") && stored.lines[0].ends_with(": 3"),
        "{stored:?}",
        stored = stored.lines
    );
    assert_refused(&copy(), 1, &["has a node named edge with a past of its own"]);
    let args = ["gateway", "--listen", &address, "--device-listen", "127.0.0.1:0"];
    let _running = Liner::start(folder, &args);
    let wait = format!("{}s", PATIENCE.as_secs());
    let last = ["pub", "numbers", "4", "--name", "edge", "--store", url, "--peer", &address, "--wait", &wait];
    let sent = run(folder, &last);
    assert_eq!(sent.code, Some(0), "{:?}", sent.errors);
    let taken = run(folder, &["sub", "numbers", "--name", "v", "--peer", &address, "--count", "4"]);
    let wanted: Vec<String> = (1..=4).map(|number| format!("numbers edge#{number} {number}")).collect();
    assert_eq!(taken.lines, wanted, "{:?}", taken.errors);
}

/// From the server back into a file, and what is told of the server by all that only looks.
fn it_moves_out(folder: &Path, url: &str) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    for number in ["1", "2", "3"] {
        let sent = ["pub", "back", number, "--name", "out", "--store", url, "--peer", &address];
        assert_eq!(run(folder, &sent).code, Some(0));
    }
    let checked = run(folder, &["store", "check", url, "--json"]);
    assert_eq!(checked.code, Some(0), "{:?}", checked.errors);
    let checked: serde_json::Value = serde_json::from_str(&checked.lines[0]).unwrap();
    let nodes = checked["nodes"].as_array().unwrap();
    let out = nodes.iter().find(|node| node["name"] == "out").unwrap();
    assert_eq!((&out["messages"], &out["running"]), (&3.into(), &false.into()), "{checked}");
    let pending = run(folder, &["pending", "--store", url, "--name", "out"]);
    assert_eq!(pending.errors, ["liner: 3 messages wait"]);
    let moved = run(folder, &["store", "copy", url, "sqlite:out.db"]);
    assert_eq!(moved.code, Some(0), "{:?}", moved.errors);
    assert!(
        moved.lines.iter().any(|line| line.starts_with("out copied: 1 queue with 3 messages")),
        "{:?}",
        moved.lines
    );
    let args = ["gateway", "--store", "sqlite:g.db", "--listen", &address, "--device-listen", "127.0.0.1:0"];
    let _running = Liner::start(folder, &args);
    let drained = run(folder, &["drain", "--name", "out", "--store", "sqlite:out.db", "--wait", "30s"]);
    assert_eq!(drained.code, Some(0), "{:?}", drained.errors);
    let taken = run(folder, &["sub", "back", "--name", "u", "--peer", &address, "--count", "3"]);
    assert_eq!(taken.lines, ["back out#1 1", "back out#2 2", "back out#3 3"]);
}

/// A client of the crate, which is called from other threads than its store's.
fn a_client_sends(url: &str) {
    let open = |name: &str, topic: &str| liner::client::open(name, topic, "127.0.0.1:0", url, None).unwrap();
    let (sender, receiver) = (open("from", "to-from"), open("to", "to-to"));
    let (tell, told) = std::sync::mpsc::channel();
    receiver.run(move |taken: &liner::Taken| drop(tell.send(taken.payload().to_vec()))).unwrap();
    sender.run(|_: &liner::Taken| ()).unwrap();
    // Its receiver is found by the directory that both share.
    while sender.send_to("to-to", b"hello", liner::Reliability::AtLeastOnce).is_err() {}
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"hello");
    sender.stop().unwrap();
    receiver.stop().unwrap();
}

#[test]
fn redis_is_a_store_like_any() {
    let folder = tempfile::tempdir().unwrap();
    let server = Redis::start(&RedisOptions::default()).unwrap();
    a_gateway_is_killed(folder.path(), &server.url());
    a_file_moves_in(folder.path(), &format!("{}/1", server.url()));
    a_client_sends(&format!("{}/2", server.url()));
    it_moves_out(folder.path(), &format!("{}/3", server.url()));
}

/// What stood in a socket when the server stopped is executed when it goes on, though who sent it has ended long since.
#[test]
fn what_a_server_may_have_stored_is_not_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Redis::start(&RedisOptions::default()).unwrap();
    let url = server.url();
    let stored = || {
        let pending = run(folder.path(), &["pending", "--store", &url]);
        let waiting = pending.lines.first().and_then(|line| line.split(' ').nth(2)?.parse().ok());
        waiting.unwrap_or(0_u64)
    };
    let words = ["pub", "numbers", "--size", "1000", "--count", "2000000", "--name", "p", "--store", &url];
    let sending = Liner::start(folder.path(), &[&words[..], &["--peer", "127.0.0.1:1"]].concat());
    // The server itself is asked: by the time that a command has started and counted, everything might be stored.
    let lists = ["EVAL", "return #redis.call('KEYS', 'lnr_connection:*:messages')", "0"];
    while server.command(&lists).unwrap() == Reply::Number(0) {}
    server.freeze().unwrap();
    let ended = sending.end();
    server.thaw().unwrap();
    assert_eq!(ended.code, Some(1), "{:?}", ended.errors);
    let told = ended.errors.last().unwrap();
    let numbers = told.split_once("of this run ").and_then(|(_, rest)| {
        let (known, rest) = rest.split_once(" are stored, and ")?;
        let (more, _) = rest.split_once(" more may be: see `liner pending")?;
        Some((known.parse::<u64>().ok()?, more.parse::<u64>().ok()?))
    });
    let (known, more) = numbers.unwrap_or_else(|| panic!("{told}"));
    let found = stored();
    assert!((known..=known + more).contains(&found), "{found}: {told}");
}

#[test]
fn postgres_is_a_store_like_any() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start(Version::V15, &PostgresOptions::default()).unwrap();
    a_gateway_is_killed(folder.path(), &server.url());
    a_file_moves_in(folder.path(), &server.url());
    a_client_sends(&server.url());
    // In the first one there is a gateway that was killed, and may be there for as long as a lease lasts.
    let busy = run(folder.path(), &["store", "copy", &server.url(), "sqlite:busy.db"]);
    assert_refused(
        &busy,
        3,
        &["gateway runs on postgres://", "or was killed there within the last 15 seconds"],
    );
    server.query("CREATE DATABASE moving").unwrap();
    let url = server.url();
    let (place, _) = url.rsplit_once('/').unwrap();
    it_moves_out(folder.path(), &format!("{place}/moving"));
}

/// Nobody finds out after the loss of power that the server was set up for less.
#[test]
fn a_server_that_falls_short_of_the_durability_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let password = Some("hidden-word".to_owned());
    let redis =
        Redis::start(&RedisOptions { appendfsync: Some("everysec"), password, ..RedisOptions::default() });
    let redis = redis.unwrap();
    let settings = vec!["synchronous_commit = off".to_owned()];
    let postgres = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = Postgres::start(Version::V15, &postgres).unwrap();
    let args = ["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"];
    for (url, advice) in [(redis.url(), "appendfsync always"), (postgres.url(), "synchronous_commit = on")] {
        for durability in ["power", "process"] {
            let refused =
                run_in(folder.path(), &args, &[("LINER_STORE", &url), ("LINER_DURABILITY", durability)]);
            assert_refused(&refused, 2, &["keeps what survives nothing", advice]);
            assert!(!refused.errors[0].contains("hidden-word"), "{:?}", refused.errors);
        }
        let (_running, peers, _) = gateway(folder.path(), &["--store", &url]);
        let sent = run(folder.path(), &["pub", "t", "x", "--name", "p", "--peer", &peers]);
        assert_eq!(sent.lines, ["t p#1 acknowledged by gateway (ram)"]);
    }
}
