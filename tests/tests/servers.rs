//! The private servers that tests start: they answer, die, come back with what they had, and leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a helper fails with its test")]

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use liner_tests::servers::certs::{Certs, Identity};
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{
    Clients, PATIENCE, PgBouncer, Pooling, Postgres, PostgresOptions, Redis, RedisOptions, Reply, Server,
    Tls, Version, ping_postgres,
};

fn redis() -> Redis {
    Redis::start(&RedisOptions::default()).unwrap()
}

fn postgres(version: Version) -> Postgres {
    Postgres::start(version, &PostgresOptions::default()).unwrap()
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// All that comes until the connection ends or is whole.
fn ask(address: SocketAddr, request: &[u8], len: usize) -> Vec<u8> {
    let mut stream = dial(address).unwrap();
    stream.write_all(request).unwrap();
    let mut reply = Vec::new();
    let _ = stream.take(u64::try_from(len).unwrap()).read_to_end(&mut reply);
    reply
}

fn one(rows: &[Vec<Option<String>>]) -> &str {
    rows[0][0].as_deref().unwrap()
}

/// Whether the process runs. One that nobody has waited for yet does not.
fn alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Folders of this process's servers are none of another test's: each is asked for by its own path.
fn assert_gone(processes: &[u32], folder: &Path) {
    assert!(!processes.is_empty());
    let left: Vec<&u32> = processes.iter().filter(|process| alive(**process)).collect();
    assert!(left.is_empty(), "{left:?} of {processes:?} are still there");
    assert!(!folder.exists(), "{} is still there", folder.display());
}

fn kill_and_see(server: &Server, address: SocketAddr) {
    let processes = server.processes();
    // Some may have ended meanwhile by themselves.
    assert!(processes.iter().any(|process| alive(*process)), "{processes:?}");
    server.kill().unwrap();
    assert!(!processes.iter().any(|process| alive(*process)), "{processes:?}");
    assert_eq!(dial(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    server.kill().unwrap();
}

#[test]
fn redis_comes_back_with_what_it_had() {
    let redis = redis();
    assert_eq!(ask(redis.address(), b"PING\r\n", 7), b"+PONG\r\n");
    for round in ["1", "2"] {
        redis.command(&["APPEND", "key", round]).unwrap();
        kill_and_see(&redis, redis.address());
        redis.restart().unwrap();
        assert_eq!(ask(redis.address(), b"PING\r\n", 7), b"+PONG\r\n");
    }
    redis.stop().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.command(&["GET", "key"]).unwrap(), Reply::Bytes(b"12".to_vec()));
    // One that is up is killed first.
    let before = redis.processes();
    redis.restart().unwrap();
    assert!(!before.iter().any(|process| alive(*process)));
}

#[test]
fn redis_is_what_it_was_asked_to_be() {
    let options = RedisOptions {
        appendfsync: None,
        password: Some("secret".into()),
        users: vec!["alice on >word ~a* +@all -config".into()],
        settings: vec!["maxmemory 8mb".into(), "maxmemory-policy allkeys-lru".into()],
        ..RedisOptions::default()
    };
    let redis = Redis::start(&options).unwrap();
    let said = |request: &str| {
        String::from_utf8(ask(redis.address(), format!("{request}\r\nQUIT\r\n").as_bytes(), 1_000)).unwrap()
    };
    assert!(said("PING").starts_with("-NOAUTH"), "{}", said("PING"));
    assert!(said("AUTH secret\r\nPING").starts_with("+OK\r\n+PONG"));
    assert!(said("AUTH alice word\r\nSET b 1").starts_with("+OK\r\n-NOPERM"));
    let text = |value: &str| Reply::Bytes(value.as_bytes().to_vec());
    let asked = redis.command(&["CONFIG", "GET", "maxmemory-policy"]).unwrap();
    assert_eq!(asked, Reply::List(vec![text("maxmemory-policy"), text("allkeys-lru")]));
    let asked = redis.command(&["CONFIG", "GET", "appendonly"]).unwrap();
    assert_eq!(asked, Reply::List(vec![text("appendonly"), text("no")]));
    assert_eq!(redis.url(), format!("redis://:secret@{}", redis.address()));
}

/// A handshake with what these arguments say, and what comes after it.
fn handshake(address: SocketAddr, ca: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-verify_return_error", "-CAfile"]).arg(ca);
    command.args(["-verify_hostname", "localhost", "-ign_eof"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have been refused already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn pongs(address: SocketAddr, ca: &Path, client: Option<&Identity>) -> bool {
    let client = client.map(|client| [&client.certificate, &client.key].map(|path| path.to_str().unwrap()));
    let arguments = client.map(|[certificate, key]| ["-cert", certificate, "-key", key]);
    let arguments = arguments.as_ref().map_or(&[][..], |arguments| arguments);
    let output = handshake(address, ca, arguments, "PING\r\nQUIT\r\n");
    String::from_utf8_lossy(&output.stdout).contains("+PONG")
}

#[test]
fn redis_encrypts_and_clients_refuse_what_is_wrong() {
    let certs = Certs::make().unwrap();
    let start = |identity: &Identity, clients| {
        let tls = Tls { identity: identity.clone(), client_ca: certs.ca.clone() };
        Redis::start(&RedisOptions { tls: Some(tls), clients, ..RedisOptions::default() }).unwrap()
    };
    let redis = start(&certs.localhost, Clients::Unasked);
    let address = redis.tls_address().unwrap();
    assert_eq!(redis.tls_url().unwrap(), format!("rediss://localhost:{}", address.port()));
    assert!(pongs(address, &certs.ca, None));
    assert!(!pongs(address, &certs.foreign_ca, None));
    kill_and_see(&redis, address);
    redis.restart().unwrap();
    assert!(pongs(address, &certs.ca, None));
    for wrong in [&certs.elsewhere, &certs.expired] {
        let redis = start(wrong, Clients::Unasked);
        assert!(!pongs(redis.tls_address().unwrap(), &certs.ca, None), "{wrong:?}");
    }
    let redis = start(&certs.localhost, Clients::Certified);
    let address = redis.tls_address().unwrap();
    assert!(!pongs(address, &certs.ca, None));
    assert!(!pongs(address, &certs.ca, Some(&certs.foreign_client("alice").unwrap())));
    assert!(pongs(address, &certs.ca, Some(&certs.client("alice").unwrap())));
}

fn postgres_comes_back(version: Version) {
    let postgres = postgres(version);
    let number = postgres.query("SHOW server_version_num").unwrap();
    assert_eq!(one(&number).parse::<u32>().unwrap() / 10_000, version.number());
    assert_eq!(ping_postgres(postgres.address(), "postgres", "postgres").unwrap(), *b"NR");
    postgres.query("CREATE TABLE kept (number int)").unwrap();
    for round in 1..=2 {
        postgres.query(&format!("INSERT INTO kept VALUES ({round})")).unwrap();
        // Its workers are there too.
        assert!(postgres.processes().len() > 4, "{:?}", postgres.processes());
        kill_and_see(&postgres, postgres.address());
        postgres.restart().unwrap();
        postgres.wait_for_log("automatic recovery in progress", PATIENCE).unwrap();
        assert_eq!(ping_postgres(postgres.address(), "postgres", "postgres").unwrap(), *b"NR");
    }
    assert_eq!(one(&postgres.query("SELECT sum(number) FROM kept").unwrap()), "3");
    assert!(postgres.query("SELECT nothing").unwrap_err().to_string().contains("42703"));
    postgres.stop().unwrap();
    postgres.restart().unwrap();
    assert!(!postgres.log().contains("automatic recovery in progress"), "{}", postgres.log());
    assert_eq!(one(&postgres.query("SELECT sum(number) FROM kept").unwrap()), "3");
}

#[test]
fn postgres_13_comes_back_with_what_it_had() {
    postgres_comes_back(Version::V13);
}

#[test]
fn postgres_15_comes_back_with_what_it_had() {
    postgres_comes_back(Version::V15);
}

#[test]
fn postgres_18_comes_back_with_what_it_had() {
    postgres_comes_back(Version::V18);
}

/// A query by the client that libpq comes with.
fn psql(connection: &str, query: &str) -> Result<String, String> {
    let mut command = Command::new("psql");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
    let output = command.args(["-X", "-w", "-A", "-t", "-c", query, connection]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn postgres_encrypts(version: Version, certs: &Certs) {
    let start = |identity: &Identity| {
        let options = PostgresOptions {
            tls: Some(Tls { identity: identity.clone(), client_ca: certs.ca.clone() }),
            hba: vec![
                "hostssl all alice 127.0.0.1/32 cert".into(),
                "host all postgres 127.0.0.1/32 scram-sha-256".into(),
            ],
            password: Some("it's".into()),
            ..PostgresOptions::default()
        };
        Postgres::start(version, &options).unwrap()
    };
    let postgres = start(&certs.localhost);
    let port = postgres.address().port();
    let shown = |ca: &Path, more: &str| {
        let ca = ca.display();
        let to =
            format!("host=localhost port={port} dbname=postgres sslmode=verify-full sslrootcert={ca} {more}");
        psql(&to, "SELECT current_user")
    };
    assert_eq!(ping_postgres(postgres.address(), "postgres", "postgres").unwrap(), *b"SR");
    assert_eq!(ping_postgres(postgres.address(), "alice", "postgres").unwrap(), *b"SE");
    assert_eq!(shown(&certs.ca, "user=postgres password=it\\'s").unwrap(), "postgres");
    assert!(
        shown(&certs.ca, "user=postgres password=wrong").unwrap_err().contains("password authentication")
    );
    assert!(shown(&certs.foreign_ca, "user=postgres").unwrap_err().contains("certificate verify failed"));

    postgres.query("CREATE ROLE alice LOGIN").unwrap();
    let with = |client: Identity| {
        format!("user=alice sslcert={} sslkey={}", client.certificate.display(), client.key.display())
    };
    assert_eq!(shown(&certs.ca, &with(certs.client("alice").unwrap())).unwrap(), "alice");
    assert!(shown(&certs.ca, &with(certs.client("bob").unwrap())).is_err());
    assert!(shown(&certs.ca, &with(certs.foreign_client("alice").unwrap())).is_err());
    assert!(shown(&certs.ca, "user=alice").is_err());
    kill_and_see(&postgres, postgres.address());
    postgres.restart().unwrap();
    assert_eq!(ping_postgres(postgres.address(), "postgres", "postgres").unwrap(), *b"SR");

    for (wrong, sentence) in
        [(&certs.elsewhere, "does not match host name"), (&certs.expired, "certificate has expired")]
    {
        let postgres = start(wrong);
        let ca = certs.ca.display();
        let port = postgres.address().port();
        let to = format!("host=localhost port={port} user=postgres sslmode=verify-full sslrootcert={ca}");
        let refused = psql(&to, "SELECT 1").unwrap_err();
        let found = refused.contains(sentence) || refused.contains("certificate verify failed");
        assert!(found, "{refused}");
    }
}

#[test]
fn postgres_encrypts_and_clients_refuse_what_is_wrong() {
    let certs = Certs::make().unwrap();
    for version in Version::ALL {
        postgres_encrypts(version, &certs);
    }
}

#[test]
fn postgres_can_be_another_and_go_back_to_a_backup() {
    let identifier = |postgres: &Postgres| {
        one(&postgres.query("SELECT system_identifier FROM pg_control_system()").unwrap()).to_owned()
    };
    let [one_of_them, another] = [postgres(Version::V15), postgres(Version::V15)];
    assert_eq!(identifier(&one_of_them), identifier(&another));
    let options = PostgresOptions {
        fresh: true,
        settings: vec!["synchronous_commit = off".into()],
        ..PostgresOptions::default()
    };
    let fresh = Postgres::start(Version::V15, &options).unwrap();
    assert_ne!(identifier(&one_of_them), identifier(&fresh));
    assert_eq!(one(&fresh.query("SHOW synchronous_commit").unwrap()), "off");

    fresh.query("CREATE TABLE kept (number int); INSERT INTO kept VALUES (1)").unwrap();
    assert!(fresh.back_up("first").is_err(), "it is up");
    fresh.stop().unwrap();
    fresh.back_up("first").unwrap();
    fresh.restart().unwrap();
    fresh.query("INSERT INTO kept VALUES (2)").unwrap();
    fresh.kill().unwrap();
    fresh.restore("first").unwrap();
    fresh.restart().unwrap();
    assert_eq!(one(&fresh.query("SELECT count(*) FROM kept").unwrap()), "1");
}

#[test]
fn pgbouncer_stands_before_postgres() {
    let options = PostgresOptions { password: Some("word".into()), ..PostgresOptions::default() };
    let postgres = Postgres::start(Version::V15, &options).unwrap();
    postgres.query("CREATE ROLE alice LOGIN PASSWORD 'other'").unwrap();
    let bouncer = PgBouncer::start_with(&postgres, Pooling::Transaction, &[("alice", "other")]).unwrap();
    assert_eq!(ping_postgres(bouncer.address(), "postgres", "postgres").unwrap(), *b"NR");
    let to = format!("postgres://alice@{}/postgres", bouncer.address());
    assert_eq!(psql(&to, "SELECT current_user").unwrap(), "alice");
    let mode = psql(&format!("postgres://postgres@{}/pgbouncer", bouncer.address()), "SHOW CONFIG").unwrap();
    assert!(mode.contains("pool_mode|transaction|"), "{mode}");

    kill_and_see(&bouncer, bouncer.address());
    bouncer.restart().unwrap();
    assert_eq!(psql(&bouncer.url(), "SELECT current_user").unwrap(), "postgres");
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    // Its own connections to the server have ended with it.
    let fresh = PgBouncer::start(&postgres, Pooling::Session).unwrap();
    assert_eq!(psql(&fresh.url(), "SELECT current_user").unwrap(), "postgres");
}

#[test]
fn four_at_once_leave_nothing_behind() {
    std::thread::scope(|scope| {
        for version in [None, Some(Version::V13), Some(Version::V15), Some(Version::V18)] {
            scope.spawn(move || {
                let (processes, folder) = match version {
                    None => {
                        let redis = redis();
                        assert_eq!(ask(redis.address(), b"PING\r\n", 7), b"+PONG\r\n");
                        (redis.processes(), redis.data())
                    }
                    Some(version) => {
                        let postgres = postgres(version);
                        let bouncer = PgBouncer::start(&postgres, Pooling::Session).unwrap();
                        assert_eq!(psql(&bouncer.url(), "SELECT 1").unwrap(), "1");
                        let all = bouncer.processes().into_iter().chain(postgres.processes());
                        (all.collect(), postgres.data())
                    }
                };
                assert_gone(&processes, folder.parent().unwrap());
            });
        }
    });
}

#[test]
fn a_panic_takes_its_servers_along() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let failed = std::thread::spawn(move || {
        let redis = redis();
        let postgres = postgres(Version::V15);
        sender.send((redis.processes(), redis.data())).unwrap();
        sender.send((postgres.processes(), postgres.data())).unwrap();
        std::panic::resume_unwind(Box::new("as planned"));
    });
    assert!(failed.join().is_err());
    let told: Vec<(Vec<u32>, PathBuf)> = receiver.iter().collect();
    assert_eq!(told.len(), 2);
    for (processes, data) in told {
        assert_gone(&processes, data.parent().unwrap());
    }
}

#[test]
fn servers_outlive_the_thread_that_started_them() {
    let redis = std::thread::spawn(redis).join().unwrap();
    assert_eq!(ask(redis.address(), b"PING\r\n", 7), b"+PONG\r\n");
    redis.kill().unwrap();
    let (redis, result) = std::thread::spawn(move || {
        let result = redis.restart();
        (redis, result)
    })
    .join()
    .unwrap();
    result.unwrap();
    assert_eq!(ask(redis.address(), b"PING\r\n", 7), b"+PONG\r\n");
}

#[test]
fn servers_of_a_killed_process_end_and_their_folders_are_swept_up() {
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_servers"));
        command.args(["redis", "pgbouncer", "postgres-13", "postgres-18"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines.by_ref().take(4).map(Result::unwrap).collect();
        let numbers = lines.iter().flat_map(|line| line.split(' ').skip(1));
        let processes: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
        // Some may have ended meanwhile by themselves.
        assert!(processes.iter().filter(|process| alive(**process)).count() > 14, "{lines:?}");
        (child, processes)
    };
    let (mut killed, processes) = start();
    let held: Vec<_> = processes.iter().filter_map(|process| watch(*process)).collect();
    killed.kill().unwrap();
    killed.wait().unwrap();
    for process in held {
        ended(&process);
    }
    let left = |process: u32| {
        let prefix = format!("liner-servers-{process}-");
        let folders = fs::read_dir(std::env::temp_dir()).unwrap();
        folders.flatten().filter(|folder| folder.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    // The next process that starts servers sweeps up; this one has done so before. One that ends by itself leaves nothing.
    let (mut ending, processes) = start();
    assert_eq!(left(killed.id()), 0);
    assert!(left(ending.id()) > 0);
    drop(ending.stdin.take());
    assert!(ending.wait().unwrap().success());
    assert!(!processes.iter().any(|process| alive(*process)));
    assert_eq!(left(ending.id()), 0);
}

fn watch(process: u32) -> Option<std::os::fd::OwnedFd> {
    let id = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
    rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok()
}

fn ended(process: &std::os::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience)).unwrap(), 1);
}

#[test]
fn a_frozen_server_says_nothing_until_it_goes_on() {
    let redis = redis();
    let postgres = postgres(Version::V15);
    let mut stream = dial(redis.address()).unwrap();
    for round in 0..2 {
        redis.freeze().unwrap();
        postgres.freeze().unwrap();
        stream.write_all(b"PING\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut reply = [0; 7];
        assert_eq!(stream.read(&mut reply).unwrap_err().kind(), io::ErrorKind::WouldBlock, "round {round}");
        redis.thaw().unwrap();
        postgres.thaw().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
        assert_eq!(one(&postgres.query("SELECT 1").unwrap()), "1");
    }
    postgres.freeze().unwrap();
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    assert_eq!(one(&postgres.query("SELECT 1").unwrap()), "1");
}

#[test]
fn a_reply_is_cut_behind_every_byte() {
    let redis = redis();
    let cutter = Cutter::start(redis.address()).unwrap();
    assert_eq!(ask(cutter.address(), b"PING\r\n", 7), b"+PONG\r\n");
    let whole = b":1\r\n+PONG\r\n";
    for after in 0..=whole.len() {
        redis.command(&["DEL", "key"]).unwrap();
        cutter.cut_reply_after(after.try_into().unwrap());
        // More than there is: only the cut ends it.
        let reply = ask(cutter.address(), b"INCR key\r\nPING\r\n", 1_000);
        assert_eq!(reply, &whole[..after]);
        // The server has had the request all the same.
        assert_eq!(redis.command(&["GET", "key"]).unwrap(), Reply::Bytes(b"1".to_vec()));
    }
    let cuts = 1 + u64::try_from(whole.len()).unwrap();
    assert!(cutter.wait_for_cuts(cuts, PATIENCE));
    assert_eq!(cutter.cuts(), cuts);
    assert_eq!(ask(cutter.address(), b"PING\r\n", 7), b"+PONG\r\n");
    assert!(!cutter.spare());
}

#[test]
fn a_request_is_cut_before_the_server_has_it() {
    let redis = redis();
    let cutter = Cutter::start(redis.address()).unwrap();
    let request = b"INCR key\r\n";
    for after in 0..request.len() {
        cutter.cut_request_after(after.try_into().unwrap());
        assert_eq!(ask(cutter.address(), request, 1_000), b"");
    }
    assert_eq!(redis.command(&["GET", "key"]).unwrap(), Reply::Nil);
    assert_eq!(cutter.passed(Way::Request), (0..10).sum::<u64>());
    assert_eq!(cutter.passed(Way::Reply), 0);
}

#[test]
fn a_cut_waits_for_its_marker_and_then_nobody_listens() {
    let redis = redis();
    let cutter = Cutter::start(redis.address()).unwrap();
    let marker = b"SET key".to_vec();
    cutter.plan(Cut { way: Way::Reply, after: 3, marker, refuse: true });
    let mut stream = dial(cutter.address()).unwrap();
    let mut pong = [0; 7];
    // The marker comes in two pieces, the server's answer to another request between them.
    stream.write_all(b"PING\r\n").unwrap();
    stream.read_exact(&mut pong).unwrap();
    stream.write_all(b"PING\r\nSET k").unwrap();
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(cutter.cuts(), 0);
    stream.write_all(b"ey value\r\n").unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    assert_eq!(reply, b"+OK");
    assert_eq!(dial(cutter.address()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(redis.command(&["GET", "key"]).unwrap(), Reply::Bytes(b"value".to_vec()));
    cutter.refuse(false).unwrap();
    assert_eq!(ask(cutter.address(), b"PING\r\n", 7), b"+PONG\r\n");

    let mut stream = dial(cutter.address()).unwrap();
    cutter.refuse(true).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    stream.read_exact(&mut pong).unwrap();
    cutter.cut_now();
    assert!(!matches!(stream.read(&mut pong), Ok(1..)));
    assert_eq!(cutter.cuts(), 2);
    drop(redis);
    cutter.refuse(false).unwrap();
    assert_eq!(ask(cutter.address(), b"PING\r\n", 7), b"");
}
