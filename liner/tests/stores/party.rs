//! Two clients in processes of their own, which send to each other with blocking sends and say what they sent and had.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use liner::{ClientSendError, Reliability, Taken};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a process of a pair is told.
const ROLE: &str = "LINER_TEST_ROLE";

/// What is between the words of that.
const SEPARATOR: char = '\u{1f}';

/// The program of each process. It does nothing where it is not asked to.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(SEPARATOR).collect();
    let [name, other, life, listen, peer, store] = words[..] else { panic!("{role:?}") };
    let client = liner::client::open(name, &format!("to-{name}"), listen, store, None).unwrap();
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
        match client.send_to(&format!("to-{other}"), text.as_bytes(), Reliability::AtLeastOnce) {
            Ok(_) => say(&format!("sent {text}")),
            Err(ClientSendError::Unknown { .. }) => say(&format!("doubt {text}")),
            // A store that is away says so at once.
            Err(error) => say(&format!("refused {}", error.to_string().replace(' ', "_"))),
        }
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
pub(crate) struct Party {
    pub(crate) name: &'static str,
    other: &'static str,
    listen: String,
    peer: String,
    store: String,
    lives: u32,
    life: Option<Life>,
    /// What was said to be stored.
    pub(crate) sent: Vec<String>,
    /// What may be stored.
    pub(crate) doubtful: Vec<String>,
    /// How often a send was refused, and in which words.
    pub(crate) refused: BTreeMap<String, u64>,
    /// How often each text came.
    pub(crate) had: BTreeMap<String, u32>,
    /// How many of them were marked.
    pub(crate) marked: u64,
}

impl Party {
    /// Begins another life.
    pub(crate) fn start(&mut self) {
        self.lives += 1;
        let life = self.lives.to_string();
        let words = [self.name, self.other, &life, &self.listen, &self.peer, &self.store];
        let role = words.join(&SEPARATOR.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "party::child", "--nocapture"])
            .env(ROLE, role)
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
    pub(crate) fn hear(&mut self, until: Instant, word: Option<&str>) -> bool {
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
            ["doubt", text] => self.doubtful.push(text.to_owned()),
            ["refused", words] => *self.refused.entry(words.to_owned()).or_default() += 1,
            ["had", text, mark] => {
                let times = self.had.entry(text.to_owned()).or_default();
                *times += 1;
                assert!(*times == 1 || mark == "again", "{text} came again, and not marked");
                self.marked += u64::from(mark == "again");
            }
            _ => panic!("{line:?}"),
        }
    }

    /// What it has in memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let id = self.life.as_ref().unwrap().child.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Kills it, and takes what it has said.
    pub(crate) fn kill(&mut self) {
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

/// Two parties, each with its store, whose URLs `store` makes from their names.
pub(crate) fn pair(store: impl Fn(&str) -> String) -> [Party; 2] {
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [here, there] = ports.each_ref().map(|port| port.local_addr().unwrap().to_string());
    drop(ports);
    let party = |name, other, listen: &str, peer: &str| Party {
        name,
        other,
        listen: listen.to_owned(),
        peer: peer.to_owned(),
        store: store(name),
        lives: 0,
        life: None,
        sent: Vec::new(),
        doubtful: Vec::new(),
        refused: BTreeMap::new(),
        had: BTreeMap::new(),
        marked: 0,
    };
    let mut pair = [party("a", "b", &here, &there), party("b", "a", &there, &here)];
    pair.iter_mut().for_each(Party::start);
    pair
}

/// No more is sent, and everything is to arrive: what was said to be stored, and nothing that nobody sent.
pub(crate) fn end(mut pair: [Party; 2]) -> [Party; 2] {
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
        println!(
            "{} of {} sent, {} in doubt, refused {:?}, {} had, {} marked",
            from.sent.len(),
            from.name,
            from.doubtful.len(),
            from.refused,
            to.had.len(),
            to.marked
        );
        assert_eq!(lost, Vec::<&String>::new(), "of {}", from.name);
    }
    pair
}

/// Pauses that follow from nothing but their order.
#[derive(Debug)]
pub(crate) struct Pauses(u64);

impl Pauses {
    pub(crate) const fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    /// Lets both work for a while, and takes what they say.
    pub(crate) fn work(&mut self, pair: &mut [Party; 2]) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let until = Instant::now() + Duration::from_millis(100 + self.0 % 600);
        for party in pair {
            party.hear(until, None);
        }
    }
}
