//! Two clients in processes of their own, each with an SQLite file of its own, send to each other and are killed again and again:
//! nothing is lost, nothing new is taken for a repetition, and every repetition is marked.
//!
//! `LINER_E2E_BOTH_WAYS=20` is the long form: so often each of them is killed.
#![expect(clippy::unwrap_used, reason = "so a test ends")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test that waits in vain has to end, and kills come at random times"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use liner_mio::{Class, Client, Reliability, Store, Taken};
use liner_store_sqlite::{Options, SqliteStore};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a process of a pair is told.
const ROLE: &str = "LINER_TEST_ROLE";

/// The program of each process: `name other life listen peer`. It does nothing where it is not asked to.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let [name, other, life, listen, peer] = words[..] else { panic!("{role:?}") };
    let options = Options {
        name: name.to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: "this one".to_owned(),
    };
    let path = format!("{name}.db");
    let open =
        move || SqliteStore::open(&path, &options).map(|store| Box::new(store) as Box<dyn Store + Send>);
    let client = Client::new(name, &format!("to-{name}"), listen, open).unwrap();
    let peer = peer.to_owned();
    client.configure(move |builder| builder.peer(&peer));
    client
        .run(|taken: &Taken| {
            let message = taken.message();
            let mark = if message.maybe_redelivered { "again" } else { "new" };
            say(&format!("had {} {mark}", String::from_utf8_lossy(message.payload)));
        })
        .unwrap();
    let (close, closed) = channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(close);
    });
    let mut number = 0u64;
    while closed.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
        let text = format!("{name}-{life}-{number}");
        client.send_to(&format!("to-{other}"), text.as_bytes(), Reliability::AtLeastOnce).unwrap();
        say(&format!("sent {text}"));
        number += 1;
    }
    assert!(client.wait_until_acknowledged(PATIENCE).unwrap());
    say("acknowledged");
    // The other one may not have got its acknowledgements yet.
    let _ = std::io::stdin().read(&mut [0]);
    client.stop().unwrap();
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "liner: {line}").unwrap();
    out.flush().unwrap();
}

struct Life {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the two, over all its lives.
struct Party {
    name: &'static str,
    other: &'static str,
    listen: String,
    peer: String,
    lives: u32,
    life: Option<Life>,
    sent: Vec<String>,
    had: BTreeMap<String, u32>,
    marked: u64,
}

impl Party {
    fn start(&mut self, folder: &Path) {
        self.lives += 1;
        let role = format!("{} {} {} {} {}", self.name, self.other, self.lives, self.listen, self.peer);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            // A line that a kill has cut says nothing.
            for line in out.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let Some(at) = line.find("liner: ") else { continue };
                if tell.send(line[at + 7..].to_owned()).is_err() {
                    return;
                }
            }
        });
        self.life = Some(Life { child, lines });
    }

    /// Takes what the process says, until it is killed after so long or has said the word.
    fn hear(&mut self, until: Instant, word: Option<&str>) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let lines = &self.life.as_ref().unwrap().lines;
            let line = match lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => panic!("{} has ended by itself", self.name),
            };
            if word == Some(&*line) {
                return true;
            }
            self.note(&line);
        }
    }

    fn note(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["sent", text] => self.sent.push(text.to_owned()),
            ["had", text, mark] => {
                let times = self.had.entry(text.to_owned()).or_default();
                *times += 1;
                assert!(*times == 1 || mark == "again", "{text} came again, and not marked");
                self.marked += u64::from(mark == "again");
            }
            _ => panic!("{line:?}"),
        }
    }

    fn kill(&mut self) {
        let mut life = self.life.take().unwrap();
        life.child.kill().unwrap();
        life.child.wait().unwrap();
        while let Ok(line) = life.lines.recv() {
            // The last line may be cut.
            if line.split(' ').count() == if line.starts_with("had") { 3 } else { 2 } && !line.ends_with('-')
            {
                self.note(&line);
            }
        }
    }
}

#[test]
fn bar_2_two_nodes_with_files_of_their_own_are_killed_again_and_again() {
    let kills = std::env::var("LINER_E2E_BOTH_WAYS").map_or(3, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [here, there] = ports.each_ref().map(|port| port.local_addr().unwrap().to_string());
    drop(ports);
    let party = |name, other, listen: &str, peer: &str| Party {
        name,
        other,
        listen: listen.to_owned(),
        peer: peer.to_owned(),
        lives: 0,
        life: None,
        sent: Vec::new(),
        had: BTreeMap::new(),
        marked: 0,
    };
    let mut pair = [party("a", "b", &here, &there), party("b", "a", &there, &here)];
    pair.iter_mut().for_each(|party| party.start(folder.path()));
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        Duration::from_millis(100 + dice % 600)
    };
    for kill in 0..2 * kills {
        let until = Instant::now() + roll();
        pair.iter_mut().for_each(|party| {
            party.hear(until, None);
        });
        let victim = &mut pair[kill % 2];
        victim.kill();
        victim.start(folder.path());
    }
    // No more is sent, and everything is to arrive.
    for party in &mut pair {
        let life = party.life.as_mut().unwrap();
        life.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }
    let until = Instant::now() + PATIENCE;
    for party in &mut pair {
        assert!(party.hear(until, Some("acknowledged")), "{}: not all is acknowledged", party.name);
    }
    for party in &mut pair {
        let mut life = party.life.take().unwrap();
        drop(life.child.stdin.take());
        assert!(life.child.wait().unwrap().success());
        while let Ok(line) = life.lines.recv() {
            party.note(&line);
        }
    }
    let [a, b] = &pair;
    for (from, to) in [(a, b), (b, a)] {
        let lost: Vec<_> = from.sent.iter().filter(|text| !to.had.contains_key(*text)).collect();
        println!("{} of {} sent, {} had, {} marked", from.sent.len(), from.name, to.had.len(), to.marked);
        assert_eq!(lost, Vec::<&String>::new(), "of {}", from.name);
        assert!(from.sent.len() > kills, "it hardly sent anything");
    }
}
