//! Readings of a sensor, each once in a table of one's own, whatever is killed and whenever.
//!
//! ```text
//! cargo run --release -p liner --example exactly_once -- receive 127.0.0.1:7500 receiver.db
//! cargo run --release -p liner --example exactly_once -- send 127.0.0.1:7500 sender.db 10000
//! ```
//!
//! Kill either of them with `kill -9`, as often as you like, and start it again. Then count:
//!
//! ```text
//! sqlite3 receiver.db 'SELECT count(*), count(DISTINCT value) FROM reading'
//! ```
//!
//! `liner/tests/command/exactly_once.rs` does that, fifty times.

use std::io::Write as _;
use std::time::Duration;

use liner::sqlite::rusqlite::Error as SqlError;
use liner::sqlite::{Inbox, Options, SqliteStore};
use liner::{Builder, Class, Framing, Message, Mode, Node, Quota, SendError};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const TOPIC: &str = "readings";

/// Messages that are taken in one transaction.
const TAKE: usize = 10;

/// Messages that the sender has under way.
const UNDER_WAY: u64 = 100;

fn main() -> Outcome {
    run(std::env::args().skip(1))
}

/// Does what the arguments say.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Outcome {
    let arguments: Vec<String> = arguments.collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["receive", address, path] => receive(address, path),
        ["send", address, path, count] => send(address, path, count.parse()?),
        _ => Err("say `receive ADDRESS FILE` or `send ADDRESS FILE COUNT`".into()),
    }
}

/// Takes readings for ever, and says after each transaction how many there are.
fn receive(address: &str, path: &str) -> Outcome {
    let mut node = node("receiver", path)?
        .inbox(Quota::DEFAULT)
        .durable(true)
        .listen(address, Framing::Length)
        .subscribe(TOPIC)
        .build()?;
    let mut inbox = Inbox::open(path, "receiver")?;
    // No key forbids a value that is there already: nothing hides a repeat.
    inbox
        .connection()
        .execute_batch("CREATE TABLE IF NOT EXISTS reading(id INTEGER PRIMARY KEY, sender TEXT NOT NULL, value TEXT NOT NULL)")?;
    loop {
        // What an earlier life has left comes first.
        let mut count = 0;
        let taken = inbox.take(TAKE, |transaction, message| {
            let value = String::from_utf8_lossy(&message.payload);
            let mut insert =
                transaction.prepare_cached("INSERT INTO reading(sender, value) VALUES(?1, ?2)")?;
            count = insert.insert([&*message.from, &*value])?;
            Ok::<(), SqlError>(())
        })?;
        if let Some(failed) = taken.failed.into_iter().next() {
            return Err(failed.error.into());
        }
        if taken.messages > 0 {
            writeln!(std::io::stdout(), "{count} readings")?;
            node.inbox_taken();
        }
        let patience = (taken.messages > 0).then_some(Duration::ZERO);
        node.drive(patience, &mut |_: &Message<'_>| {})?;
    }
}

/// Sends the readings 1 to `count`, each once over all its lives, and ends when the receiver has them.
fn send(address: &str, path: &str, count: u64) -> Outcome {
    let mut node = node("sender", path)?.peer(address).build()?;
    // Which of them earlier lives have sent, their store knows: they are acknowledged, or still there.
    let mut sent = node.acked_by("receiver") + node.queued();
    while sent < count || !node.is_idle() {
        while sent < count && node.queued() < UNDER_WAY {
            match node.send(TOPIC, (sent + 1).to_string().as_bytes(), Mode::One) {
                Ok(_) => sent += 1,
                Err(SendError::Busy | SendError::Unavailable | SendError::StoreFull) => break,
                Err(error) => return Err(error.into()),
            }
        }
        node.drive(None, &mut |_: &Message<'_>| {})?;
    }
    writeln!(std::io::stdout(), "{sent} sent")?;
    node.stop(Duration::from_secs(5), &mut |_: &Message<'_>| {})?;
    Ok(())
}

/// A node that keeps what it must not lose in the file at `path`.
fn node(name: &str, path: &str) -> Result<Builder, Box<dyn std::error::Error>> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let options = Options { name: name.to_owned(), durability: Class::Power, limit_bytes: None, boot_id };
    Ok(Node::builder(name).store(Box::new(SqliteStore::open(path, &options)?)))
}
