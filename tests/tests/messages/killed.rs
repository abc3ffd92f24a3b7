//! Rows in which a process is killed.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use liner_mio::{Event, Mode, NodeConfig, SendMode, SendOptions, Status, Taken};

use crate::{KEPT, PATIENCE, Told, client, client_at, next, run, wait_for, wait_until};

/// What a process is told: `take NAME TOPIC OTHER…`, `hold NAME TOPIC`, `begin NAME TOPIC`, `send NAME TOPIC ADDR COUNT`, or `leave`
/// with the same, whose messages leave before they are stored.
const ROLE: &str = "LINER_TEST_ROLE";

/// The program of a process that is killed, on `shared.db`, or on `NAME.db` if it sends. It does nothing where it is not asked to.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["take", name, topic, ref others @ ..] => {
            let client = client(Path::new("shared.db"), name, topic);
            others.iter().for_each(|other| client.subscribe(other).unwrap());
            client.run(|taken: &Taken| say(&format!("had {}", number(taken.payload())))).unwrap();
            if !others.is_empty() {
                say("runs");
            }
            wait();
        }
        ["hold", name, topic] => {
            let client = client(Path::new("shared.db"), name, topic);
            let mut held = Vec::new();
            let hold = move |taken: Taken| {
                say(&format!("had {}", number(taken.payload())));
                held.push(taken);
            };
            client.run_unsettled(hold).unwrap();
            wait();
        }
        ["begin", name, topic] => begin(name, topic),
        [how @ ("send" | "leave"), name, topic, address, count] => {
            let client = client(Path::new(&format!("{name}.db")), name, &format!("to-{name}"));
            if how == "leave" {
                // Nor are they stored later.
                let stores = |config: &mut NodeConfig| config.timing.write_behind = Duration::from_secs(3600);
                client.configure(move |builder| builder.send_mode(SendMode::Asynchronous).configure(stores));
            }
            client.add_receiver(topic, address, "w");
            client.run(|_: &Taken| {}).unwrap();
            for number in 0..count.parse().unwrap() {
                client.send_to(topic, &u32::to_be_bytes(number), KEPT).unwrap();
                say(&format!("sent {number}"));
            }
            wait();
        }
        _ => panic!("{role:?}"),
    }
}

/// When it is told to, takes a topic and sends to somebody else who does.
fn begin(name: &str, topic: &str) {
    let client = client(Path::new("shared.db"), name, &format!("to-{name}"));
    client.subscribe(topic).unwrap();
    let (tell, news) = channel();
    client.set_status_callback(move |status| {
        if matches!(status, Status::Event(Event::PeerUp { .. } | Event::Subscribed { .. })) {
            let _ = tell.send(());
        }
    });
    say("ready");
    wait();
    client.run(|taken: &Taken| say(&format!("had {}", String::from_utf8_lossy(taken.payload())))).unwrap();
    while client.list_addresses(topic).unwrap().is_empty() {
        news.recv_timeout(PATIENCE).unwrap();
    }
    client.send_to(topic, name.as_bytes(), KEPT).unwrap();
    say("sent");
    wait();
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().unwrap())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "liner: {line}").unwrap();
    out.flush().unwrap();
}

/// It goes on if it is told to, and when the test has ended.
fn wait() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// A process that runs [`child`].
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(folder: &Path, role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--nocapture"])
            .env(ROLE, role)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Some(at) = line.find("liner: ") else { continue };
                if tell.send(line[at + 7..].to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for so many lines.
    fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.lines.recv_timeout(PATIENCE).unwrap()).collect()
    }

    /// Waits for this line.
    pub(crate) fn expect(&self, line: &str) {
        assert_eq!(self.lines.recv_timeout(PATIENCE).unwrap(), line);
    }

    /// Has it go on.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed, and waited for, already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn m03_a_replica_that_is_killed_is_sent_nothing_while_others_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let workers = ["w1", "w2"].map(|name| client(&file, name, "jobs"));
    let jobs = workers.each_ref().map(run);
    let third = Process::start(folder.path(), "take w3 jobs");
    wait_for(&one, "jobs", 3, true);
    let send = || {
        let payloads = (0..300).map(u32::to_be_bytes);
        one.send_many("jobs", payloads, SendOptions::new(Mode::One)).unwrap();
    };
    let had = |told: &Receiver<Told>| told.try_iter().count();
    send();
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    assert_eq!((jobs.each_ref().map(had), third.lines(100).len()), ([100, 100], 100));

    third.kill();
    wait_for(&one, "jobs", 2, true);
    send();
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap(), "nothing waits for the one that was killed");
    assert_eq!(jobs.each_ref().map(had), [150, 150]);
    // It is away, and not unknown: once it is the only one, messages wait for it.
    assert_eq!(one.list_addresses("jobs").unwrap().len(), 3);
}

#[test]
fn m10_what_was_sent_with_success_survives_the_sender() {
    const COUNT: u32 = 1000;
    let folder = tempfile::tempdir().unwrap();
    let receiver = client(&folder.path().join("w.db"), "w", "jobs");
    drop(run(&receiver));
    receiver.stop().unwrap();
    let address = receiver.bound_listen_addr().unwrap();
    drop(receiver);

    let sender = Process::start(folder.path(), &format!("send edge jobs {address} {COUNT}"));
    assert_eq!(sender.lines(COUNT as usize).last().unwrap(), &format!("sent {}", COUNT - 1));
    sender.kill();

    let receiver = client_at(&folder.path().join("w.db"), "w", "jobs", &address);
    let told = run(&receiver);
    let sender = client(&folder.path().join("edge.db"), "edge", "to-edge");
    let _answers = run(&sender);
    for number in 0..COUNT {
        assert_eq!(next(&told), ("edge".to_owned(), number.to_be_bytes().to_vec()));
    }
    assert!(sender.wait_until_acknowledged(PATIENCE).unwrap());
    assert!(told.try_recv().is_err(), "nothing came twice");
}

#[test]
fn m11_a_message_leaves_the_store_with_its_acknowledgement() {
    const COUNT: u32 = 10;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let one = client(&file, "one", "to-one");
    let _told = run(&one);
    let holds = Process::start(folder.path(), "hold w jobs");
    wait_for(&one, "jobs", 1, true);
    one.send_many("jobs", (0..COUNT).map(u32::to_be_bytes), SendOptions::new(Mode::One)).unwrap();
    let expected: Vec<String> = (0..COUNT).map(|number| format!("had {number}")).collect();
    assert_eq!(holds.lines(COUNT as usize), expected);
    assert_eq!(one.pending_count().unwrap(), u64::from(COUNT), "they are with the receiver, and here");
    holds.kill();
    wait_for(&one, "jobs", 0, true);
    one.stop().unwrap();
    assert_eq!(one.pending_count().unwrap(), u64::from(COUNT));

    let _told = run(&one);
    let takes = Process::start(folder.path(), "take w jobs");
    assert_eq!(takes.lines(COUNT as usize), expected);
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    assert_eq!(one.pending_count().unwrap(), 0);
}

/// Sends ten messages by a process that is killed when the receiver has them, and ten more by its next life. The first are settled
/// before the sender is killed, or when it is dead. Each is to arrive once.
fn kill_between(role: &str, settles_before: bool) {
    let folder = tempfile::tempdir().unwrap();
    // It runs all the time, and remembers the numbers that it has had.
    let receiver = client(&folder.path().join("w.db"), "w", "jobs");
    let (tell, told) = channel();
    receiver.run_unsettled(move |taken| tell.send(taken).unwrap_or(())).unwrap();
    let address = receiver.bound_listen_addr().unwrap();
    let take = |numbers: std::ops::Range<u32>| -> Vec<Taken> {
        let taken: Vec<Taken> = numbers.clone().map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        assert!(taken.iter().map(|taken| number(taken.payload())).eq(numbers), "{role}, {settles_before}");
        taken
    };
    let settle = |all: &mut Vec<Taken>| all.drain(..).for_each(Taken::settle);
    let sender = Process::start(folder.path(), &format!("{role} edge jobs {address} 10"));
    let mut first = take(0..10);
    if settles_before {
        settle(&mut first);
    }
    sender.kill();
    settle(&mut first);

    let sender = client(&folder.path().join("edge.db"), "edge", "to-edge");
    sender.add_receiver("jobs", &address, "w");
    let _answers = run(&sender);
    sender.send_many("jobs", (10..20).map(u32::to_be_bytes), SendOptions::new(Mode::One)).unwrap();
    settle(&mut take(10..20));
    assert!(sender.wait_until_acknowledged(PATIENCE).unwrap());
    assert!(told.try_recv().is_err(), "{role}: nothing came twice");
}

#[test]
fn m14_after_a_crash_before_an_acknowledgement_is_stored_the_next_messages_arrive() {
    for settles_before in [false, true] {
        kill_between("send", settles_before);
        // Of these the sender's file knows nothing at all, unless they were acknowledged.
        kill_between("leave", settles_before);
    }
}

#[test]
fn m19_many_that_begin_with_the_same_topic_at_once_lose_nothing() {
    const COUNT: usize = 32;
    let folder = tempfile::tempdir().unwrap();
    let mut processes: Vec<Process> =
        (0..COUNT).map(|number| Process::start(folder.path(), &format!("begin w{number} jobs"))).collect();
    processes.iter().for_each(|process| process.expect("ready"));
    processes.iter_mut().for_each(Process::go_on);
    let (mut sent, mut had) = (0, Vec::new());
    let mut hear = |count: usize| {
        wait_until(|| {
            for line in processes.iter().flat_map(|process| process.lines.try_iter()) {
                match line.strip_prefix("had ") {
                    Some(payload) => had.push(payload.to_owned()),
                    None => sent += 1,
                }
            }
            sent == COUNT && had.len() >= count
        });
    };
    hear(COUNT);

    let one = client(&folder.path().join("shared.db"), "one", "to-one");
    let _told = run(&one);
    assert_eq!(one.refresh_address_topic("jobs").unwrap().len(), COUNT);
    one.send_all("jobs", b"all", KEPT).unwrap();
    assert!(one.wait_until_acknowledged(PATIENCE).unwrap());
    hear(2 * COUNT);
    let (all, had): (Vec<_>, Vec<_>) = had.into_iter().partition(|payload| payload == "all");
    assert_eq!((all.len(), had.len()), (COUNT, COUNT), "each came once");
    assert_eq!(had.into_iter().collect::<BTreeSet<_>>().len(), COUNT, "and one of each");

    let file = rusqlite::Connection::open(folder.path().join("shared.db")).unwrap();
    let keys =
        |sql: &str| -> [u32; 2] { file.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?])).unwrap() };
    // All own topics, and the one.
    let all = COUNT as u32 + 2;
    assert_eq!(keys("SELECT count(*), count(DISTINCT k) FROM topic_key"), [all; 2], "each has its own");
    assert_eq!(keys("SELECT count(*), count(DISTINCT k) FROM topic_key WHERE topic = 'jobs'"), [1; 2]);
}
