//! What a server is set to, also when it is set to something else while a node runs.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]

use std::os::unix::net::UnixStream;
use std::time::Instant;

use liner_proto::effect::{Queue, StoreFault, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store as _;
use liner_store_redis::{OpenError, Options, RedisStore};
use liner_tests::conformance::records::numbered;
use liner_tests::servers::{PATIENCE, Redis, RedisOptions};

const NODE: Queue<'static> = Queue::Node("gateway");

fn start(settings: &[&str]) -> Redis {
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    Redis::start(&RedisOptions { settings, ..RedisOptions::default() }).expect("the server starts")
}

fn try_open(url: &str) -> Result<RedisStore, OpenError> {
    RedisStore::open(url, &Options { name: "sensor".to_owned() })
}

fn append(store: &mut RedisStore, number: u64) -> Result<(), StoreFault> {
    let records = numbered(number, number);
    store.apply(&[StoreOp::Append { queue: NODE, first: number, last: number, records: &records }])?;
    store.commit()
}

#[test]
fn a_server_that_leaves_its_file_unsynced_while_it_rewrites_it_survives_nothing() {
    let server = start(&["no-appendfsync-on-rewrite yes"]);
    assert_eq!(try_open(&server.url()).expect("it opens").class(), Class::Ram);
}

#[test]
fn a_server_that_is_set_to_less_is_not_used_until_it_is_set_back() {
    let server = start(&[]);
    let mut store = try_open(&server.url()).expect("it opens");
    assert_eq!(
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).and_then(|()| store.commit()),
        Ok(())
    );
    let mut number = 0;
    for (name, less, back, words) in [
        ("appendfsync", "everysec", "always", "appendfsync"),
        ("appendonly", "no", "yes", "appendonly"),
        ("no-appendfsync-on-rewrite", "yes", "no", "no-appendfsync-on-rewrite"),
    ] {
        server.command(&["CONFIG", "SET", name, less]).expect("it can be set");
        // Asked for together with the lease.
        server.command(&["DEL", "lnr_lease"]).expect("it can be deleted");
        assert_eq!(store.directory(), Err(StoreFault::Unavailable), "{name}");
        assert_eq!(append(&mut store, number + 1), Err(StoreFault::Unavailable), "{name}");
        assert!(store.last_error().is_some_and(|said| said.contains(words)), "{:?}", store.last_error());
        server.command(&["CONFIG", "SET", name, back]).expect("it can be set");
        number += 1;
        let begun = Instant::now();
        while append(&mut store, number) != Ok(()) {
            let said = store.last_error().unwrap_or_default();
            assert!(said.contains("still writes the file") && begun.elapsed() < PATIENCE, "{name}: {said}");
        }
    }
    // What was committed since has survived as the class says.
    server.kill().expect("it can be killed");
    let outcome = append(&mut store, number + 1);
    server.restart().expect("it starts again");
    let settled = loop {
        match if outcome == Err(StoreFault::Unknown) {
            store.resolve()
        } else {
            append(&mut store, number + 1)
        } {
            Err(StoreFault::Unavailable) => {}
            other => break other,
        }
    };
    assert_eq!(settled, Ok(()), "{:?}", store.last_error());
}

#[test]
fn a_server_that_begins_to_throw_keys_away_is_not_used() {
    let server = start(&[]);
    let mut store = try_open(&server.url()).expect("it opens");
    assert_eq!(
        store.apply(&[StoreOp::Open { queue: NODE, epoch: Epoch(1) }]).and_then(|()| store.commit()),
        Ok(())
    );
    server.command(&["CONFIG", "SET", "maxmemory", "64mb"]).expect("it can be set");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("it can be set");
    server.command(&["DEL", "lnr_lease"]).expect("it can be deleted");
    assert_eq!(store.directory(), Err(StoreFault::Unavailable));
    assert_eq!(append(&mut store, 1), Err(StoreFault::Unavailable));
    assert!(store.last_error().is_some_and(|said| said.contains("noeviction")), "{:?}", store.last_error());
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).expect("it can be set");
    assert_eq!(append(&mut store, 1), Ok(()), "{:?}", store.last_error());
}

fn refused(url: &str, words: &[&str]) {
    let error = try_open(url).expect_err(url).to_string();
    for words in words {
        assert!(error.contains(words), "{url}: `{words}` is not in: {error}");
    }
}

#[test]
fn a_cluster_is_refused() {
    let server = Redis::start(&RedisOptions {
        appendfsync: None,
        settings: vec!["cluster-enabled yes".to_owned()],
        ..RedisOptions::default()
    })
    .expect("the server starts");
    refused(&server.url(), &["cluster"]);
}

#[test]
fn a_server_that_is_full_of_clients_says_so() {
    let server = Redis::start(&RedisOptions {
        password: Some("secret".to_owned()),
        settings: vec!["maxclients 1".to_owned()],
        ..RedisOptions::default()
    })
    .expect("the server starts");
    let _one = UnixStream::connect(server.socket()).expect("it is reached");
    refused(&server.url(), &["max number of clients reached"]);
    refused(&format!("redis://{}/1", server.address()), &["max number of clients reached"]);
}

#[test]
fn commands_of_another_name_are_told() {
    for name in ["CONFIG", "EVAL", "INFO", "LTRIM", "DEL", "XTRIM"] {
        let settings = vec![format!("rename-command {name} \"\"")];
        let server = Redis::start(&RedisOptions { settings, appendfsync: None, ..RedisOptions::default() })
            .expect("the server starts");
        refused(&server.url(), &["does not do what it is asked for", name]);
    }
}
