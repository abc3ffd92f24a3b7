//! Rows in which a process is killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use liner_mio::{Mode, SendOptions, Taken};

use crate::{KEPT, PATIENCE, Told, client, client_at, next, run, wait_for};

/// What a process is told: `take NAME TOPIC`, `hold NAME TOPIC` or `send NAME TOPIC ADDR COUNT`.
const ROLE: &str = "LINER_TEST_ROLE";

/// The program of a process that is killed, on `shared.db`, or on `NAME.db` if it sends. It does nothing where it is not asked to.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["take", name, topic] => {
            let client = client(Path::new("shared.db"), name, topic);
            client.run(|taken: &Taken| say(&format!("had {}", number(taken.payload())))).unwrap();
            wait_to_be_killed();
        }
        ["hold", name, topic] => {
            let client = client(Path::new("shared.db"), name, topic);
            let mut held = Vec::new();
            let hold = move |taken: Taken| {
                say(&format!("had {}", number(taken.payload())));
                held.push(taken);
            };
            client.run_unsettled(hold).unwrap();
            wait_to_be_killed();
        }
        ["send", name, topic, address, count] => {
            let client = client(Path::new(&format!("{name}.db")), name, &format!("to-{name}"));
            client.add_receiver(topic, address, "w");
            client.run(|_: &Taken| {}).unwrap();
            for number in 0..count.parse().unwrap() {
                client.send_to(topic, &u32::to_be_bytes(number), KEPT).unwrap();
                say(&format!("sent {number}"));
            }
            wait_to_be_killed();
        }
        _ => panic!("{role:?}"),
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().unwrap())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "liner: {line}").unwrap();
    out.flush().unwrap();
}

/// It ends by itself only if the test has.
fn wait_to_be_killed() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// A process that runs [`child`].
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(folder: &Path, role: &str) -> Self {
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

    fn kill(mut self) {
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
