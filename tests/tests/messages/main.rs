//! What liner_broker's users expect of messages, row by row, with clients on SQLite files. The table with all rows is in
//! `docs/messages.md`.
#![expect(clippy::unwrap_used, reason = "so a test ends")]
#![expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]

mod directory;
mod killed;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use liner_mio::{
    Class, Client, ClientSendError, Event, Failures, Mode, Quota, Reliability, SendError, SendOptions,
    Status, Store, Taken,
};
use liner_store_sqlite::{Look, OpenError, Options, SqliteStore};

const PATIENCE: Duration = Duration::from_secs(30);
const KEPT: Reliability = Reliability::AtLeastOnce;

/// A client with an own topic on a file.
fn client(path: &Path, name: &str, topic: &str) -> Client {
    client_at(path, name, topic, "127.0.0.1:0")
}

/// The same at an address of its own.
fn client_at(path: &Path, name: &str, topic: &str, listen: &str) -> Client {
    let (path, options) = (PathBuf::from(path), options(name));
    let open = move || open(&path, &options).map(|store| Box::new(store) as Box<dyn Store + Send>);
    Client::new(name, topic, listen, open).unwrap()
}

fn open(path: &Path, options: &Options) -> Result<SqliteStore, OpenError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match SqliteStore::open(path, options) {
            // A process that another test is just starting has this one's locks, too, until it has begun.
            Err(OpenError::NameInUse { .. }) if Instant::now() < end => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// How clients open their files.
fn options(name: &str) -> Options {
    Options {
        name: name.to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: "this one".to_owned(),
    }
}

type Told = (String, Vec<u8>);

/// Runs it; who sent what is told.
fn run(client: &Client) -> Receiver<Told> {
    let (tell, told) = channel();
    client
        .run(move |taken: &Taken| {
            let _ = tell.send((taken.from().to_owned(), taken.payload().to_vec()));
        })
        .unwrap();
    told
}

fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(PATIENCE).unwrap()
}

/// Waits for the client to know so many nodes that take a topic, connected ones if `up`.
fn wait_for(client: &Client, topic: &str, count: usize, up: bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let known = client.list_addresses(topic).unwrap();
        if known.iter().filter(|known| known.is_up || !up).count() == count {
            return;
        }
        assert!(Instant::now() < end, "waited in vain for {count}: {known:?}");
        std::thread::yield_now();
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::yield_now();
    }
}

#[test]
fn m01_several_replicas_are_listed_by_address() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let workers = ["w1", "w2", "w3"].map(|name| client(&file, name, "jobs"));
    let _jobs = workers.each_ref().map(run);
    wait_for(&one, "jobs", 3, true);
    let known = one.list_addresses("jobs").unwrap();
    let names: BTreeSet<&str> = known.iter().map(|known| &*known.name).collect();
    assert_eq!(names, BTreeSet::from(["w1", "w2", "w3"]));
    assert!(known.is_sorted_by(|one, other| one.address < other.address), "{known:?}");
    for known in &known {
        let worker = workers.iter().find(|worker| worker.unique_name() == known.name).unwrap();
        assert_eq!(Some(&known.address), worker.bound_listen_addr().as_ref());
    }
    // One that stops is away, and stays known.
    workers[0].stop().unwrap();
    wait_for(&one, "jobs", 2, true);
    assert_eq!(one.list_addresses("jobs").unwrap().len(), 3);
    assert_eq!(
        workers[0].list_addresses("jobs").unwrap().len(),
        2,
        "a stopped one reads the file: the others"
    );
}

/// A node that looks anew, or is started, has to find whoever runs.
#[test]
fn the_row_of_a_replica_that_runs_comes_back_after_another_one_has_cleared_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let workers = ["w1", "w2"].map(|name| client(&file, name, "jobs"));
    let _jobs = workers.each_ref().map(run);
    wait_for(&workers[0], "jobs", 1, true);
    workers[0].stop().unwrap();
    workers[0].clear_addresses_of_topic().unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        let rows = Look::open(&file).unwrap().subscriptions().unwrap();
        let names: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
        if names == ["w2"] {
            return;
        }
        assert!(names.is_empty() && Instant::now() < end, "{rows:?}");
        std::thread::yield_now();
    }
}

#[test]
fn m06_a_message_to_all_reaches_each_replica_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let workers = ["w1", "w2", "w3"].map(|name| client(&file, name, "news"));
    let news = workers.each_ref().map(run);
    wait_for(&one, "news", 3, true);
    for number in 0..100u8 {
        one.send_all("news", &[number], KEPT).unwrap();
    }
    for told in &news {
        for number in 0..100u8 {
            assert_eq!(next(told), ("one".to_owned(), vec![number]));
        }
    }
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    assert!(news.iter().all(|told| told.try_recv().is_err()), "nothing came twice");
}

/// As much is queued for one of them as may be, each of them in turn.
#[test]
fn m06_a_message_to_all_is_queued_for_all_or_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    one.set_queue_quota(Quota { messages: 2, bytes: u64::MAX });
    let _told = run(&one);
    let workers = ["w1", "w2", "w3"].map(|name| client(&file, name, "news"));
    let mut news = workers.each_ref().map(run);
    let send = |payload: &[u8]| one.send_all("news", payload, KEPT);
    for away in 0..3 {
        wait_for(&one, "news", 3, true);
        workers[away].stop().unwrap();
        wait_for(&one, "news", 2, true);
        let waits = |name: &str| one.pending_by_peer().unwrap().iter().any(|it| it.name == name);
        let others = || workers.iter().filter(|worker| worker.unique_name() != workers[away].unique_name());
        for payload in [b"first", b"other"] {
            send(payload).unwrap();
            wait_until(|| !others().any(|worker| waits(&worker.unique_name())));
        }
        assert_eq!(send(b"refused"), Err(ClientSendError::Busy { sent: 0 }));
        assert_eq!(one.pending_count().unwrap(), 2, "for the one that is away, and nothing for the others");
        // It gets what was sent to all when it is back.
        news[away] = run(&workers[away]);
        assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
        send(b"third").unwrap();
        assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
        for told in &news {
            let had: Vec<Vec<u8>> = told.try_iter().map(|told| told.1).collect();
            assert_eq!(had, [b"first", b"other", b"third"]);
        }
    }
}

/// Those who come dial nobody: they are found by a look at the file.
#[test]
fn m08_a_new_peer_on_the_same_file_is_found_without_a_refresh() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let (find, found) = channel();
    one.set_status_callback(move |status| {
        if let Status::Event(Event::PeerUp { name, .. }) = status {
            let _ = find.send((name.to_string(), Instant::now()));
        }
    });
    let told = run(&one);
    let mut waited = Vec::new();
    for name in ["w1", "w2", "w3"] {
        let worker = client(&file, name, "jobs");
        worker.configure(|builder| builder.configure(|config| config.dials = false));
        let _jobs = run(&worker);
        let begin = Instant::now();
        let (found, at) = found.recv_timeout(PATIENCE).unwrap();
        assert_eq!(found, name);
        waited.push(at.saturating_duration_since(begin));
        // Both can send now.
        one.send_to("jobs", name.as_bytes(), KEPT).unwrap();
        worker.send_to("to-one", name.as_bytes(), KEPT).unwrap();
        assert_eq!(next(&told).1, name.as_bytes());
        assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    }
    // A machine that is busy with something else may hold up one of them.
    waited.sort();
    assert!(waited[1] < Duration::from_secs(3), "they were found after {waited:?}");
}

#[test]
fn m08_a_refresh_looks_at_the_file_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    for count in 1..=5 {
        let worker = client(&file, &format!("w{count}"), "jobs");
        let _jobs = run(&worker);
        // Its own row is in the file by then.
        worker.refresh_address_topic("jobs").unwrap();
        assert_eq!(one.refresh_address_topic("jobs").unwrap().len(), count);
    }
}

#[test]
fn m09_a_best_effort_message_is_never_stored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let (one, two) = (client(&file, "one", "to-one"), client(&file, "two", "to-two"));
    let _told = run(&one);
    let told = run(&two);
    wait_for(&one, "to-two", 1, true);
    one.send_to("to-two", b"there", Reliability::BestEffort).unwrap();
    assert_eq!(next(&told).1, b"there");
    two.stop().unwrap();
    wait_for(&one, "to-two", 0, true);
    one.send_to("to-two", b"away", Reliability::BestEffort).unwrap();
    assert_eq!(one.pending_count().unwrap(), 0);
    let told = run(&two);
    one.send_to("to-two", b"back", KEPT).unwrap();
    assert_eq!(next(&told).1, b"back", "what was sent to nobody does not come");
}

#[test]
fn m09_a_best_effort_message_goes_to_one_or_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let workers = ["w1", "w2", "w3"].map(|name| client(&file, name, "jobs"));
    let jobs = workers.each_ref().map(run);
    wait_for(&one, "jobs", 3, true);
    for _ in 0..30 {
        one.send_to("jobs", b"one", Reliability::BestEffort).unwrap();
    }
    one.send_all("jobs", b"all", Reliability::BestEffort).unwrap();
    for told in &jobs {
        let had: Vec<_> = (0..11).map(|_| next(told).1).collect();
        assert_eq!(had.iter().filter(|payload| **payload == b"one").count(), 10, "by turns");
        assert_eq!(had[10], b"all");
    }
}

#[test]
fn m08_whoever_runs_is_found_by_the_next_send() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    for number in 0..10 {
        let name = format!("w{number}");
        let worker = client(&file, &name, &format!("to-{name}"));
        let told = run(&worker);
        one.send_to(&format!("to-{name}"), b"x", KEPT).unwrap();
        assert_eq!(next(&told).1, b"x");
    }
}

#[test]
fn m15_files_of_their_own_need_no_common_store() {
    let folder = tempfile::tempdir().unwrap();
    let one = client(&folder.path().join("one.db"), "one", "to-one");
    let two = client(&folder.path().join("two.db"), "two", "to-two");
    let told = run(&one);
    two.add_receiver("to-one", &one.bound_listen_addr().unwrap(), "one");
    let _answers = run(&two);
    two.send_to("to-one", b"x", KEPT).unwrap();
    assert_eq!(next(&told), ("two".to_owned(), b"x".to_vec()));
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap(), "the acknowledgement comes over the wire");
    two.stop().unwrap();
    assert_eq!(two.pending_count().unwrap(), 0);
}

#[test]
fn m17_three_files_of_their_own_reach_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c"];
    let mut clients: BTreeMap<&str, (Client, Receiver<Told>)> = BTreeMap::new();
    for name in names {
        let client = client(&folder.path().join(format!("{name}.db")), name, &format!("to-{name}"));
        if let Some((first, _)) = clients.get("a") {
            // They know one address, and find the others by it.
            let address = first.bound_listen_addr().unwrap();
            client.configure(move |builder| builder.peer(&address));
        }
        let told = run(&client);
        clients.insert(name, (client, told));
    }
    for (name, (from, _)) in &clients {
        for other in names.iter().filter(|other| *other != name) {
            wait_for(from, &format!("to-{other}"), 1, true);
            from.send_to(&format!("to-{other}"), name.as_bytes(), KEPT).unwrap();
        }
    }
    for (name, (_, told)) in &clients {
        let had: BTreeSet<String> = (0..2).map(|_| next(told).0).collect();
        let expected = names.into_iter().filter(|other| other != name).map(str::to_owned).collect();
        assert_eq!(had, expected, "of {name}");
    }
}

#[test]
fn m18_receivers_that_are_known_from_the_start_are_kept_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.db");
    let one = client(&file, "one", "to-one");
    one.add_receiver("t", "127.0.0.1:9", "two");
    one.add_receiver("t", "127.0.0.1:9", "two");
    one.add_receiver("u", "127.0.0.1:9", "two");
    one.add_receiver("to-one", "127.0.0.1:7", "one");
    let _told = run(&one);
    let listed = |client: &Client, topic: &str| {
        let known = client.list_addresses(topic).unwrap().into_iter();
        known.map(|known| (known.name, known.address)).collect::<Vec<_>>()
    };
    let two = vec![("two".to_owned(), "127.0.0.1:9".to_owned())];
    assert_eq!(listed(&one, "t"), two);
    // It never was there, and is written to all the same.
    one.send_to("t", b"x", KEPT).unwrap();
    one.send_all("u", b"y", KEPT).unwrap();
    let pending = one.pending_by_peer().unwrap();
    assert_eq!((&*pending[0].name, &*pending[0].address, pending[0].messages), ("two", "127.0.0.1:9", 2));
    one.stop().unwrap();
    let again = client(&file, "one", "to-one");
    assert_eq!((listed(&again, "t"), listed(&again, "u")), (two.clone(), two));
    assert_eq!(again.pending_by_peer().unwrap(), pending, "of a stopped one, from the file");
    assert_eq!(again.pending_count().unwrap(), 2);
}

#[test]
fn m22_what_is_pending_is_counted_for_each_peer() {
    let folder = tempfile::tempdir().unwrap();
    let one = client(&folder.path().join("one.db"), "one", "to-one");
    for number in 1..=3 {
        let name = format!("w{number}");
        one.add_receiver(&format!("to-{name}"), "127.0.0.1:9", &name);
    }
    let _told = run(&one);
    for number in 1..=3 {
        for _ in 0..number {
            one.send_to(&format!("to-w{number}"), b"x", KEPT).unwrap();
        }
    }
    let pending = one.pending_by_peer().unwrap();
    let counts: Vec<(&str, u64)> = pending.iter().map(|pending| (&*pending.name, pending.messages)).collect();
    assert_eq!(counts, [("w1", 1), ("w2", 2), ("w3", 3)]);
    assert_eq!(one.pending_count().unwrap(), 6);
}

#[test]
fn m16_a_message_that_failed_too_often_is_handed_over_again_after_a_redrive() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let (one, two) = (client(&file, "one", "to-one"), client(&file, "two", "to-two"));
    let mut failures = Failures::default();
    (failures.tries, failures.pause) = (2, Duration::from_millis(1));
    one.set_failures(failures);
    let (tell, told) = channel();
    one.set_status_callback(move |status| {
        if let Status::Event(Event::DeadLetter { .. }) = status {
            let _ = tell.send(());
        }
    });
    one.run(|taken: &Taken| if taken.payload() == b"bad" { Err("no") } else { Ok(()) }).unwrap();
    let _answers = run(&two);
    wait_for(&two, "to-one", 1, true);
    for payload in [&b"bad"[..], b"good"] {
        two.send_to("to-one", payload, KEPT).unwrap();
    }
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    told.recv_timeout(PATIENCE).unwrap();
    one.stop().unwrap();
    let letters = Look::open(&file).unwrap().dead_letters(None, 0, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((&*letters[0].peer, letters[0].payload.as_deref()), ("two", Some(&b"bad"[..])));
    assert_eq!(Look::open(&file).unwrap().redrive(&[letters[0].id]).unwrap(), 1);
    let (tell, again) = channel();
    one.run(move |taken: &Taken| tell.send((taken.payload().to_vec(), taken.message().maybe_redelivered)))
        .unwrap();
    assert_eq!(again.recv_timeout(PATIENCE).unwrap(), (b"bad".to_vec(), true));
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    one.stop().unwrap();
    assert_eq!(one.pending_count().unwrap(), 0);
    assert!(again.try_recv().is_err(), "once");
}

/// A replica that never comes back: what was queued for it goes to the others.
#[test]
fn bar_4_what_waits_for_a_forgotten_replica_is_delivered_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let workers = ["w1", "w2", "w3"].map(|name| client(&file, name, "jobs"));
    let jobs = workers.each_ref().map(run);
    wait_for(&one, "jobs", 3, true);
    let send = |numbers: std::ops::Range<u32>| {
        let payloads = numbers.map(u32::to_le_bytes);
        one.send_many("jobs", payloads, SendOptions::new(Mode::One)).unwrap();
        assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    };
    let had = |told: &Receiver<Told>| told.try_iter().count();
    send(0..300);
    assert_eq!(jobs.each_ref().map(had), [100, 100, 100]);
    workers[2].stop().unwrap();
    wait_for(&one, "jobs", 2, true);
    send(300..600);
    assert_eq!(jobs.each_ref().map(had), [150, 150, 0]);
    let again = run(&workers[2]);
    wait_for(&one, "jobs", 3, true);
    send(600..900);
    assert_eq!([had(&jobs[0]), had(&jobs[1]), had(&again)], [100, 100, 100]);
    // All are away: each has a third waiting for it.
    workers.iter().for_each(|worker| worker.stop().unwrap());
    wait_for(&one, "jobs", 0, true);
    let payloads = (900..1200).map(u32::to_le_bytes);
    one.send_many("jobs", payloads, SendOptions::new(Mode::One)).unwrap();
    assert!(one.pending_by_peer().unwrap().iter().all(|pending| pending.messages == 100));
    one.forget("w3", true).unwrap();
    let jobs = [run(&workers[0]), run(&workers[1])];
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    let counts = jobs.each_ref().map(had);
    assert_eq!(counts[0] + counts[1], 300, "{counts:?}");
    let gone = one.send_to("nobody", b"x", KEPT).unwrap_err().to_string();
    assert_eq!(gone, SendError::NoAddress.to_string());
}
