//! What a store says to a server that will not do, and to a URL that does not fit.
#![allow(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use liner_proto::id::Class;
use liner_proto::store::Store as _;
use liner_store_redis::{ACL, OpenError, Options, RedisStore};
use liner_tests::servers::certs::{Certs, Identity};
use liner_tests::servers::{Clients, Redis, RedisOptions, Tls};

static CERTS: LazyLock<Certs> = LazyLock::new(|| Certs::make().expect("openssl makes them"));

fn open(url: &str) -> Result<RedisStore, OpenError> {
    RedisStore::open(url, &Options { name: "sensor".to_owned() })
}

/// Opens what is to be refused, with these words.
fn refused(url: &str, words: &[&str]) {
    let error = open(url).expect_err(url).to_string();
    for words in words {
        assert!(error.contains(words), "{url}: `{words}` is not in: {error}");
    }
    assert!(!error.contains("secret") && !error.contains("wrong-one"), "a password is in: {error}");
}

fn start(options: RedisOptions) -> Redis {
    Redis::start(&options).expect("the server starts")
}

fn with(settings: &[&str]) -> Redis {
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    start(RedisOptions { settings, ..RedisOptions::default() })
}

fn encrypted(identity: &Identity, clients: Clients) -> Redis {
    let tls = Some(Tls { identity: identity.clone(), client_ca: CERTS.ca.clone() });
    start(RedisOptions { tls, clients, ..RedisOptions::default() })
}

fn tls_url(server: &Redis) -> String {
    format!("{}?ca={}", server.tls_url().expect("it has a port"), CERTS.ca.display())
}

#[test]
fn a_server_with_the_right_certificate_is_used() {
    let server = encrypted(&CERTS.localhost, Clients::Unasked);
    let store = open(&tls_url(&server)).expect("it opens");
    assert_eq!(store.class(), Class::Power);
    let by_address = tls_url(&server).replace("localhost", "127.0.0.1");
    drop(open(&by_address).expect("the certificate has the address too"));
}

#[test]
fn a_wrong_certificate_is_refused_with_its_own_sentence() {
    let server = encrypted(&CERTS.localhost, Clients::Unasked);
    let foreign = format!("{}?ca={}", server.tls_url().expect("it has one"), CERTS.foreign_ca.display());
    refused(&foreign, &["no encryption with rediss://localhost", "not signed by whom ca=FILE names"]);
    // Nor has the system's list who signed it.
    refused(&server.tls_url().expect("it has one"), &["not signed by whom"]);
    let elsewhere = encrypted(&CERTS.elsewhere, Clients::Unasked);
    refused(&tls_url(&elsewhere), &["its certificate is for another host name"]);
    let expired = encrypted(&CERTS.expired, Clients::Unasked);
    refused(&tls_url(&expired), &["its certificate has expired"]);
}

#[test]
fn what_speaks_otherwise_is_told() {
    let server = encrypted(&CERTS.localhost, Clients::Unasked);
    let (plain, tls) = (server.address().port(), server.tls_address().expect("it has one").port());
    let ca = CERTS.ca.display();
    let url = format!("rediss://localhost:{plain}?ca={ca}&connect_timeout=500ms");
    refused(&url, &["write redis:// instead of rediss://"]);
    refused(&format!("redis://localhost:{tls}"), &["write rediss:// instead of redis://"]);
}

#[test]
fn a_client_shows_its_certificate() {
    let server = encrypted(&CERTS.localhost, Clients::Certified);
    let shows = |identity: &Identity| {
        let (cert, key) = (identity.certificate.display(), identity.key.display());
        format!("{}&cert={cert}&key={key}", tls_url(&server))
    };
    let known = CERTS.client("sensor").expect("it is signed");
    drop(open(&shows(&known)).expect("it is known"));
    refused(&tls_url(&server), &["no encryption with", "it wants a certificate: name one that it trusts"]);
    let foreign = CERTS.foreign_client("sensor").expect("it is signed");
    refused(&shows(&foreign), &["no encryption with", "it does not trust the certificate of cert=FILE"]);
    let mixed = Identity { key: foreign.key, ..known };
    refused(&shows(&mixed), &["key"]);
}

#[test]
fn files_of_no_use_are_named() {
    let host = "rediss://localhost:1";
    refused(&format!("{host}?ca=/nowhere.pem"), &["cannot use /nowhere.pem"]);
    let (ca, key) = (CERTS.ca.display(), CERTS.localhost.key.display());
    refused(&format!("{host}?ca={key}"), &["there is no certificate in it"]);
    refused(&format!("{host}?ca={ca}&cert={ca}&key={ca}"), &["there is no private key in it"]);
}

#[test]
fn a_socket_in_the_file_system_and_a_database_are_used() {
    let server = with(&[]);
    let url = format!("unix://{}?db=3", server.socket().display());
    let store = open(&url).expect("it opens");
    assert_eq!(store.url().db, 3);
    drop(store);
    let found = open(&format!("{}/3", server.url())).expect("it opens");
    assert!(!found.opened().unclean);
    assert!(server.command(&["DBSIZE"]).is_ok_and(|size| size == liner_tests::servers::Reply::Number(0)));
    refused(&format!("{}/99", server.url()), &["does not do what it is asked for", "DB index"]);
    refused("unix:///nowhere/socket", &["cannot reach unix:///nowhere/socket", "may use the socket"]);
}

#[test]
fn nobody_there_is_told() {
    refused("redis://127.0.0.1:1", &["cannot reach", "make sure that it runs"]);
    refused("redis://no-such-host.invalid", &["cannot reach", "host and port are right"]);
    // It takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = silent.local_addr().expect("it has one").port();
    let begun = Instant::now();
    refused(&format!("redis://127.0.0.1:{port}?connect_timeout=100ms"), &["does not answer in time"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_login_that_is_wrong_is_told() {
    let server = start(RedisOptions { password: Some("secret".to_owned()), ..RedisOptions::default() });
    drop(open(&server.url()).expect("the password is right"));
    let host = server.address();
    let words = ["does not let this user in", "write redis://USER:PASSWORD@HOST"];
    refused(&format!("redis://{host}"), &words);
    refused(&format!("redis://{host}/1"), &words);
    refused(&format!("redis://:wrong-one@{host}"), &words);
    refused(&format!("redis://nobody:secret@{host}"), &words);
    // And one where none is asked for.
    let open_to_all = with(&[]);
    refused(&format!("redis://:secret@{}", open_to_all.address()), &["does not let this user in"]);
}

#[test]
fn each_permission_is_missed_at_once() {
    let server = with(&[]);
    let names: Vec<&str> = ACL.split_whitespace().collect();
    for (index, missing) in names.iter().enumerate() {
        let user = format!("user{index}");
        let rules = names.iter().filter(|name| *name != missing).copied();
        let command: Vec<&str> =
            ["ACL", "SETUSER", &user, "on", ">secret"].into_iter().chain(rules).collect();
        server.command(&command).expect("the user is made");
        let url = format!("redis://{user}:secret@{}", server.address());
        let error = open(&url).expect_err(missing);
        let OpenError::Permission { words, .. } = &error else { unreachable!("{missing}: {error}") };
        // A key's or a channel's name is not told; nor is every name of a group.
        if let Some(name) = missing.strip_prefix('+').filter(|name| !name.starts_with('@')) {
            assert!(words.to_lowercase().contains(name), "{missing}: {words}");
        }
        assert!(error.to_string().contains(ACL), "{error}");
    }
    assert_eq!(
        server.command(&["DBSIZE"]).ok(),
        Some(liner_tests::servers::Reply::Number(0)),
        "nothing is left"
    );
    let command: Vec<&str> =
        ["ACL", "SETUSER", "whole", "on", ">secret"].into_iter().chain(names.iter().copied()).collect();
    server.command(&command).expect("the user is made");
    drop(open(&format!("redis://whole:secret@{}", server.address())).expect("nothing is missing"));
}

/// A server that is what it says.
fn says_of_itself(listener: &TcpListener, info: &str) -> std::io::Result<()> {
    let (stream, _) = listener.accept()?;
    let mut stream: BufReader<TcpStream> = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut command = Vec::new();
        for _ in 0..line.trim_start_matches('*').trim_end().parse::<usize>().unwrap_or(0) {
            line.clear();
            stream.read_line(&mut line)?;
            let mut word = vec![0; line.trim_start_matches('$').trim_end().parse::<usize>().unwrap_or(0) + 2];
            stream.read_exact(&mut word)?;
            command.push(String::from_utf8_lossy(&word).trim_end().to_owned());
        }
        let reply = match command.first().map(String::as_str) {
            Some("PING") => "+PONG\r\n".to_owned(),
            Some("INFO") => format!("${}\r\n{info}\r\n", info.len()),
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        stream.get_mut().write_all(reply.as_bytes())?;
    }
}

#[test]
fn a_server_of_another_kind_is_refused() {
    for (info, words) in [
        ("redis_version:6.2.14\r\n", ["is Redis 6.2.14", "7.0 is the oldest"]),
        (
            "redis_version:7.0.15\r\nredis_mode:sentinel\r\n",
            ["is a Sentinel", "name the server that it watches"],
        ),
        (
            "redis_version:7.2.4\r\nvalkey_version:8.1.0\r\nserver_mode:cluster\r\n",
            ["part of a cluster", "name a server"],
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has one");
        let server = std::thread::spawn(move || says_of_itself(&listener, info));
        refused(&format!("redis://{address}"), &words);
        server.join().expect("it ends").expect("it is asked as expected");
    }
}

#[test]
fn a_server_that_throws_keys_away_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = with(&["maxmemory 64mb", &format!("maxmemory-policy {policy}")]);
        refused(&server.url(), &["throws keys away", policy, "CONFIG SET maxmemory-policy noeviction"]);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("it can be set");
        drop(open(&server.url()).expect("without a bound nothing is thrown away"));
    }
    drop(open(&with(&["maxmemory 64mb", "maxmemory-policy noeviction"]).url()).expect("it refuses instead"));
}

#[test]
fn a_replica_is_refused() {
    let first = with(&[]);
    let port = first.address().port().to_string();
    let replica = with(&[&format!("replicaof 127.0.0.1 {port}")]);
    refused(&replica.url(), &["is a replica; name the server that it copies"]);
}

#[test]
fn the_class_is_what_the_server_is_set_to() {
    for (appendfsync, class) in [
        (Some("always"), Class::Power),
        (Some("everysec"), Class::Ram),
        (Some("no"), Class::Ram),
        (None, Class::Ram),
    ] {
        let server = start(RedisOptions { appendfsync, ..RedisOptions::default() });
        if appendfsync.is_none() {
            server.command(&["CONFIG", "SET", "appendfsync", "always"]).expect("it can be set");
        }
        assert_eq!(open(&server.url()).expect("it opens").class(), class, "{appendfsync:?}");
    }
}
