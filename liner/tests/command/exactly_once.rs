//! The example `exactly_once`: sender and receiver are killed again and again, and the receiver's table holds each message once.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use liner::sqlite::rusqlite::{Connection, OpenFlags};
use liner_proto::rng::Rng;

use crate::process::{PATIENCE, follow, free_port};

#[path = "../../examples/exactly_once.rs"]
#[allow(dead_code, reason = "its `main` is for those who run it")]
mod example;

/// Names the arguments of a process that is to run the example, a line each.
const ARGUMENTS: &str = "EXACTLY_ONCE_ARGUMENTS";

fn asked(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |asked| asked.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// The processes of the test below: the example itself.
#[test]
fn process_of_the_example() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        example::run(arguments.lines().map(str::to_owned)).unwrap();
    }
}

/// A process that runs the example. It does not outlive its test.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["exactly_once::process_of_the_example", "--exact", "--nocapture"]);
        command.env(ARGUMENTS, arguments.join("\n")).current_dir(folder);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = follow(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn receiver(folder: &Path, address: &str) -> Self {
        Self::start(folder, &["receive", address, "receiver.db"])
    }

    fn sender(folder: &Path, address: &str, count: u64) -> Self {
        Self::start(folder, &["send", address, "sender.db", &count.to_string()])
    }

    /// Readings that it says are there, unless it says nothing for this time.
    fn count_within(&self, time: Duration) -> Option<u64> {
        loop {
            match self.lines.recv_timeout(time) {
                Ok(line) => {
                    if let Some(count) = line.strip_suffix(" readings") {
                        return Some(count.parse().unwrap());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("the receiver has ended by itself"),
            }
        }
    }
}

impl Drop for Example {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(folder: &Path, sql: &str) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let conn = Connection::open_with_flags(folder.join("receiver.db"), flags).unwrap();
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
}

#[test]
fn ten_thousand_messages_and_fifty_kills_leave_each_in_the_table_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (messages, kills) = (asked("LINER_E2E_MESSAGES", 1000), asked("LINER_E2E_KILLS", 6));
    let seed = asked("LINER_E2E_SEED", std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    println!("LINER_E2E_SEED={seed}");
    let mut dice = Rng::new([seed, 3]);
    let address = format!("127.0.0.1:{}", free_port());
    let mut receiver = Example::receiver(folder, &address);
    let mut sender = Example::sender(folder, &address, messages);
    let mut arrived = 0;
    let mut wait_for = |receiver: &Example, until: u64| {
        while arrived < until {
            arrived = receiver
                .count_within(PATIENCE)
                .unwrap_or_else(|| panic!("{arrived} have arrived, and no more"));
        }
    };
    let part = messages / (kills + 2);
    let (mut of_receiver, mut with_something) = (0, 0);
    for kill in 1..=kills {
        wait_for(&receiver, kill * part + dice.below(part.max(1)));
        // Somewhere in the next transactions.
        for _ in 0..dice.below(6) {
            let _ = receiver.count_within(Duration::from_micros(dice.below(1000)));
        }
        let who = dice.below(4);
        if who > 0 {
            drop(receiver);
            of_receiver += 1;
            with_something += u64::from(number(folder, "SELECT count(*) FROM inbox") > 0);
            receiver = Example::receiver(folder, &address);
        }
        if who < 2 {
            drop(sender);
            sender = Example::sender(folder, &address, messages);
        }
    }
    wait_for(&receiver, messages);
    let ended = sender.child.wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(receiver.count_within(Duration::ZERO), None, "more than was sent");
    drop(receiver);
    println!(
        "{kills} kills, {of_receiver} of the receiver, {with_something} of those with something in the inbox"
    );
    assert_eq!(number(folder, "SELECT count(*) FROM reading"), messages, "each once: how many there are");
    assert_eq!(
        number(folder, "SELECT count(DISTINCT value) FROM reading"),
        messages,
        "each once: how many differ"
    );
    let right = "SELECT count(*) FROM reading WHERE value = CAST(id AS TEXT) AND sender = 'sender'";
    assert_eq!(number(folder, right), messages, "in the order in which they were sent");
    assert_eq!(number(folder, "SELECT count(*) FROM inbox"), 0);
    assert_eq!(number(folder, "SELECT count(*) FROM dead_letters"), 0);
}
