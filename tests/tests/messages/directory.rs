//! Rows about the directory of a file, `topic_addr`: what clients write there, and take out again.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use liner_mio::{
    BuildError, Class, Client, ClientSendError, RunError, SendError, StoppedOnlyError, Store, Taken,
};
use liner_proto::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::router::DirectoryRows;
use liner_proto::store::Capabilities;
use liner_store_sqlite::{Look, OpenError, SqliteStore};

use crate::killed::Process;
use crate::{KEPT, client, client_at, next, options, run, wait_for};

/// A row: topic, address, name.
type Row = (String, String, String);

fn row(topic: &str, address: &str, name: &str) -> Row {
    (topic.to_owned(), address.to_owned(), name.to_owned())
}

/// The rows of the file, by topics and names.
fn rows(file: &Path) -> Vec<Row> {
    let found = Look::open(file).unwrap().subscriptions().unwrap();
    found.into_iter().map(|it| (it.topic, it.address, it.name)).collect()
}

fn rows_of(file: &Path, topic: &str) -> Vec<Row> {
    rows(file).into_iter().filter(|row| row.0 == topic).collect()
}

fn run_silently(client: &Client) -> Result<(), RunError> {
    client.run(|_: &Taken| ())
}

/// An address that is free.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn m02_a_run_that_fails_leaves_nothing_and_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let one = client_at(&file, "one", "to-one", &address);
    one.subscribe("more").unwrap();
    for _ in 0..2 {
        let failed = run_silently(&one).unwrap_err();
        assert!(matches!(failed, RunError::Build(BuildError::AddressInUse { .. })), "{failed}");
        assert!(!one.is_running());
        assert_eq!(rows(&file), [], "it registers when it is bound, and not before");
    }
    drop(taken);
    run_silently(&one).unwrap();
    assert_eq!(one.bound_listen_addr().unwrap(), address);
    assert_eq!(rows(&file), [row("more", &address, "one"), row("to-one", &address, "one")]);
}

/// A file that fails when it is told to.
struct Failing {
    inner: SqliteStore,
    recovers: Arc<AtomicBool>,
    commits: Arc<AtomicBool>,
}

impl Store for Failing {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.inner.recover(visit)?;
        if self.recovers.load(Ordering::Relaxed) { Ok(()) } else { Err(StoreFault::Unavailable) }
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.inner.apply(group)
    }

    /// Nobody knows what became of a commit that fails; here it was not made.
    fn commit(&mut self) -> Result<(), StoreFault> {
        if self.commits.load(Ordering::Relaxed) { self.inner.commit() } else { Err(StoreFault::Unknown) }
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.inner.load(queue, after, into)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn directory(&mut self) -> Result<Option<DirectoryRows>, StoreFault> {
        self.inner.directory()
    }
}

#[test]
fn m02_a_run_that_fails_after_it_has_bound_leaves_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let address = free_address();
    let [recovers, commits] = [(); 2].map(|()| Arc::new(AtomicBool::new(true)));
    let (path, options) = (file.clone(), options("one"));
    let switches = [&recovers, &commits].map(Arc::clone);
    let open = move || {
        let inner = crate::open(&path, &options)?;
        let [recovers, commits] = switches.each_ref().map(Arc::clone);
        Ok::<_, OpenError>(Box::new(Failing { inner, recovers, commits }) as Box<dyn Store + Send>)
    };
    let one = Client::new("one", "to-one", &address, open).unwrap();
    for (switch, is_built) in [(&recovers, false), (&commits, true)] {
        switch.store(false, Ordering::Relaxed);
        let failed = run_silently(&one).unwrap_err();
        assert_eq!(matches!(failed, RunError::Drive(_)), is_built, "{failed}");
        assert!(!one.is_running());
        assert_eq!(rows(&file), []);
        drop(TcpListener::bind(&address).unwrap());
        switch.store(true, Ordering::Relaxed);
    }
    run_silently(&one).unwrap();
    assert_eq!(rows(&file), [row("to-one", &address, "one")]);
}

/// What a send says if nobody takes its topic.
fn assert_nobody_takes(client: &Client, topic: &str) {
    for send in [Client::send_to, Client::send_all] {
        let refused = ClientSendError::Refused { sent: 0, why: SendError::NoAddress };
        assert_eq!(send(client, topic, b"x", KEPT), Err(refused), "{topic}");
    }
}

/// The topic was taken by a life of the client that was killed.
#[test]
fn m07_a_topic_of_an_earlier_life_is_given_up_before_and_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let killed = Process::start(folder.path(), "take w jobs news");
    killed.expect("runs");
    killed.kill();
    assert_eq!([rows_of(&file, "jobs").len(), rows_of(&file, "news").len()], [1, 1]);

    // "jobs" is its own topic no more, "news" it takes again, at another address.
    let w = client(&file, "w", "to-w");
    w.unsubscribe("jobs").unwrap();
    w.subscribe("news").unwrap();
    let told = run(&w);
    let address = w.bound_listen_addr().unwrap();
    assert_eq!(rows_of(&file, "jobs"), []);
    assert_eq!(rows_of(&file, "news"), [row("news", &address, "w")]);
    wait_for(&one, "to-w", 1, true);
    wait_for(&one, "jobs", 0, false);
    assert_nobody_takes(&one, "jobs");
    one.send_to("news", b"x", KEPT).unwrap();
    assert_eq!(next(&told).1, b"x");

    w.unsubscribe("news").unwrap();
    wait_for(&one, "news", 0, false);
    assert_nobody_takes(&one, "news");
    w.stop().unwrap();
    assert_eq!(rows_of(&file, "news"), []);
    assert_eq!(rows_of(&file, "to-w"), [row("to-w", &address, "w")], "it is away, and known");
}

#[test]
fn m25_what_is_cleared_of_a_topic_is_everyone_who_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let address = free_address();
    let one = client_at(&file, "one", "to-one", &address);
    one.subscribe("more").unwrap();
    run_silently(&one).unwrap();
    let other = client(&file, "other", "to-other");
    other.subscribe("to-one").unwrap();
    run_silently(&other).unwrap();
    other.stop().unwrap();
    let others = other.bound_listen_addr().unwrap();
    let by_hand = rusqlite::Connection::open(&file).unwrap();
    let insert = "INSERT INTO topic_addr(topic, addr, client_name) VALUES(?1, ?2, ?3)";
    for (topic, address, name) in [
        ("to-one", "192.0.2.7:7420", "panel"),
        ("to-one", "~192.0.2.8:7420", "passing"),
        ("to-one", "@dialler", "dialler"),
        ("readings", "192.0.2.7:7420", "panel"),
    ] {
        by_hand.execute(insert, [topic, address, name]).unwrap();
    }
    drop(by_hand);
    let all = rows(&file);
    assert_eq!(all.len(), 8, "{all:?}");
    assert!(matches!(one.clear_addresses_of_topic(), Err(StoppedOnlyError::Running)));
    assert_eq!(rows(&file), all);
    assert_eq!(one.refresh_address_topic("to-one").unwrap().len() + 1, rows_of(&file, "to-one").len());

    one.stop().unwrap();
    one.clear_addresses_of_topic().unwrap();
    assert_eq!(one.list_addresses("to-one").unwrap(), []);
    let left = [
        row("more", &address, "one"),
        row("readings", "192.0.2.7:7420", "panel"),
        row("to-other", &others, "other"),
    ];
    assert_eq!(rows(&file), left, "what is taken beside it stays");
    run_silently(&one).unwrap();
    assert_eq!(rows_of(&file, "to-one"), [row("to-one", &address, "one")], "it registers anew");
}
