//! The node that is attacked: it answers honest messages, and tells everybody news.

use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use liner_mio::{Framing, Message, Mode, Node, QueuePolicy, Quota};

use crate::child::{lines, say};
use crate::honest::{number, store};

/// What it may keep for whoever takes its news and never acknowledges them.
const NEWS: Quota = Quota { messages: 1000, bytes: 1024 * 1024 };

/// What it has had, by kinds.
#[derive(Default)]
struct Had {
    /// From nodes that are honest: whole messages, and how many of them for the second time.
    honest: u64,
    again: u64,
    forged: u64,
    seen: Vec<bool>,
}

impl Had {
    fn note(&mut self, message: &Message<'_>) -> Option<Vec<u8>> {
        let Some(number) = number(message.payload).filter(|_| message.topic == "t") else {
            self.forged += 1;
            return None;
        };
        if message.from.starts_with("new-") {
            return None;
        }
        if message.from != "honest" {
            self.forged += 1;
            return None;
        }
        let place = number as usize;
        if self.seen.len() <= place {
            self.seen.resize(place + 1, false);
        }
        if std::mem::replace(&mut self.seen[place], true) {
            self.again += 1;
        } else {
            self.honest += 1;
        }
        Some(message.payload.to_vec())
    }
}

pub(crate) fn run() {
    let mut node = Node::builder("victim")
        .store(store())
        .durable(true)
        .listen("127.0.0.1:0", Framing::Length)
        .subscribe("t")
        .queue_quota(NEWS)
        .queue_policy(QueuePolicy::DropOldest)
        .build()
        .expect("a node on loopback");
    say(&node.listen_addrs()[0].to_string());
    let (lines, mut had) = (lines(), Had::default());
    loop {
        let mut asked = Vec::new();
        let mut handler = |message: &Message<'_>| asked.extend(had.note(message));
        node.drive(Some(Duration::from_millis(20)), &mut handler).expect("a turn");
        for payload in asked {
            let _ = node.send("back", &payload, Mode::One);
            let _ = node.send("news", &payload, Mode::All);
        }
        while node.poll_event().is_some() {}
        match lines.try_recv() {
            Ok(_) => {
                let peers = node.peers_up().len();
                say(&format!("{} {} {} {} {peers}", had.honest, had.again, had.forged, memory()));
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Bytes of the process that are in memory.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it stands there");
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kib * 1024
}
