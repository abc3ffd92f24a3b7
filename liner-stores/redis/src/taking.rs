//! One call of the inbox: which entries were read, what is to become of each, and what became of it.

use std::collections::HashSet;

use liner_proto::effect::DeadReason;
use liner_store::inbox::{DEAD_LETTERS_MAX, Failed, InboxMessage};
use redis::{Arg, Cmd, Pipeline};

use crate::client::{Client, Failure};
use crate::inbox::{Refused, Taken};
use crate::look::delivered;
use crate::resp::{Reply, put_word};
use crate::words::Words;
use crate::{keys, letters, script, take_script};

/// So many bytes of messages are read ahead, and one message at least.
const AHEAD_BYTES: u64 = 1 << 20;

/// Entries that are read at a time.
const AHEAD: usize = 256;

/// Bytes of messages and commands of one call, and one message beyond them.
const CALL_BYTES: usize = 8 << 20;

/// Words of one command: Lua's stack takes no more than some eight thousand.
const WORDS_MAX: usize = 4000;

/// What the commands of a message may take in a full server beyond the bytes of the message: an entry of a stream costs that, too.
const SPARE: usize = 256;

/// What is kept of the failures of an entry: how many, and whether commands of it were executed.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    failures: u32,
    half_done: bool,
}

/// An entry as it was read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// Its checksum as it stands there, which need not be a text.
    crc: Vec<u8>,
    /// What it was counted with when it was put there.
    bytes: usize,
    /// What the next one who reads it is to find.
    kept: Kept,
}

impl Entry {
    /// Commands of its were executed, and another one was refused.
    pub(crate) const fn is_half_done(&self) -> bool {
        self.kept.half_done
    }

    /// Ids begin anew when somebody deletes the stream: the checksum says whose failures they are.
    fn keep(&self, failures: u32, half_done: bool) -> String {
        format!("{failures} {} {}", String::from_utf8_lossy(&self.crc), u8::from(half_done))
    }

    fn read_kept(&self, text: &str) -> Option<Kept> {
        let [failures, crc, half_done] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let kept = Kept { failures: failures.parse().ok()?, half_done: half_done == "1" };
        (crc.as_bytes() == self.crc).then_some(kept)
    }
}

/// The content of an entry: its message, or all that is there if it does not pass its check.
#[derive(Debug)]
pub(crate) enum Content {
    Message(InboxMessage),
    /// Fields and values, as words of a command, behind whose they are.
    Damaged(Vec<u8>),
}

fn read(owner: &str, reply: &Reply) -> Option<(Entry, Content)> {
    let reply = reply.list()?;
    let (id, fields) = (reply.first()?.text()?.to_owned(), reply.get(1)?);
    let field = |name: &str| {
        fields.pairs().find(|(field, _)| *field == name.as_bytes()).map_or(&b""[..], |(_, value)| value)
    };
    let crc = field("crc").to_vec();
    let bytes = ["from", "topic", "payload"].iter().map(|name| field(name).len()).sum();
    let mut entry = Entry { id, crc, bytes, kept: Kept::default() };
    let kept = reply.get(2).and_then(Reply::text).and_then(|text| entry.read_kept(text));
    entry.kept = kept.unwrap_or_default();
    // Nodes write no other ids.
    let is_own = entry.id.starts_with("0-");
    let content = match delivered(owner, &letters::Entry { id: 0, fields }).filter(|_| is_own) {
        Some(delivered) => Content::Message(InboxMessage::new(delivered, entry.kept.failures)),
        None => {
            let mut all = format!("{}:\\i", keys::prefix(owner)).into_bytes();
            all.extend_from_slice(field("from"));
            all.push(b'\n');
            fields.list()?.iter().filter_map(Reply::bytes).for_each(|word| put_word(&mut all, word));
            Content::Damaged(all)
        }
    };
    Some((entry, content))
}

/// Entries that were read.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<(Entry, Content)>,
    /// There may be more behind them.
    pub(crate) has_more: bool,
}

/// The next entries from this id on, or behind it if there is a `(` before it.
pub(crate) fn page(client: &mut Client, owner: &str, from: &str, most: usize) -> Result<Page, Failure> {
    let (inbox, failures) = (keys::of_node(owner, "inbox"), keys::of_node(owner, "failures"));
    let (most, room) = (most.min(AHEAD).to_string(), AHEAD_BYTES.to_string());
    let arguments = [&*failures, from, &*most, &*room].map(str::as_bytes);
    let reply = client.eval(take_script::ENTRIES, &inbox, &arguments)?;
    let page = || {
        let [entries, has_more] = reply.list()? else { return None };
        let entries = entries.list()?.iter().map(|entry| read(owner, entry)).collect::<Option<_>>()?;
        Some(Page { entries, has_more: *has_more == Reply::Number(1) })
    };
    page().ok_or_else(Failure::nonsense)
}

/// What is to become of an entry.
#[derive(Debug)]
enum Plan<E> {
    Give(InboxMessage),
    /// And whether it is to be put aside.
    Fail(InboxMessage, E, bool),
    /// It is not taken, for this reason.
    Refuse(InboxMessage, String),
    /// It was refused by the call before.
    PutAside,
    Damaged,
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call<E> {
    owner: String,
    plans: Vec<(Entry, Plan<E>)>,
    /// Each entry as it was read.
    checks: Words,
    /// What is to become of each.
    words: Words,
    /// Bytes of the application's commands, and of the messages that they are for.
    commands: usize,
    given: usize,
    /// Bytes that are in memory.
    held: usize,
    failed: HashSet<String>,
}

impl<E> Call<E> {
    pub(crate) fn new(owner: &str) -> Self {
        Self {
            owner: owner.to_owned(),
            plans: Vec::new(),
            checks: Words::default(),
            words: Words::default(),
            commands: 0,
            given: 0,
            held: 0,
            failed: HashSet::new(),
        }
    }

    /// Entries of which something becomes.
    pub(crate) const fn count(&self) -> usize {
        self.plans.len()
    }

    pub(crate) const fn is_long(&self) -> bool {
        self.held + self.words.bytes.len() >= CALL_BYTES
    }

    /// Whether a message of this sender has failed: nothing more of it is given.
    pub(crate) fn has_failed(&self, sender: &str) -> bool {
        self.failed.contains(sender)
    }

    fn plan(&mut self, entry: Entry, plan: Plan<E>) {
        self.checks.word(entry.id.as_bytes());
        self.checks.word(&entry.crc);
        self.checks.number(entry.bytes as u64);
        self.held += entry.bytes;
        self.plans.push((entry, plan));
    }

    /// The message is taken, and these commands are executed.
    pub(crate) fn give(&mut self, entry: Entry, mut message: InboxMessage, pipeline: &Pipeline) {
        if let Some(words) = pipeline.cmd_iter().find_map(unusable) {
            message.failures = message.failures.saturating_add(1);
            self.fail(&entry, &message);
            return self.plan(entry, Plan::Refuse(message, words));
        }
        let failures = message.failures.saturating_add(1);
        self.words.word(b"give");
        self.words.word(entry.keep(failures, false).as_bytes());
        self.words.word(entry.keep(failures, true).as_bytes());
        self.words.word(message.from.as_bytes());
        self.words.number(pipeline.cmd_iter().count() as u64);
        let before = self.words.bytes.len();
        for command in pipeline.cmd_iter() {
            self.words.number(command.args_iter().count() as u64);
            words_of(command).for_each(|word| self.words.word(word));
        }
        self.commands += self.words.bytes.len() - before;
        self.given += entry.bytes + SPARE;
        self.plan(entry, Plan::Give(message));
    }

    /// The message stays with this failure, or is put aside if they are too many.
    pub(crate) fn failed(&mut self, entry: Entry, message: InboxMessage, error: E, is_over: bool) {
        if is_over {
            self.aside(&entry, &message);
        } else {
            self.fail(&entry, &message);
        }
        self.failed.insert(message.from.clone());
        self.plan(entry, Plan::Fail(message, error, is_over));
    }

    /// The message was refused in the middle by an earlier call, which could not put it aside.
    pub(crate) fn half_done(&mut self, entry: Entry, message: InboxMessage) {
        self.aside(&entry, &message);
        self.failed.insert(message.from.clone());
        let words = "an earlier call has executed some of its commands, and was refused another one";
        self.plan(entry, Plan::Refuse(message, words.to_owned()));
    }

    /// The message was refused by the call before.
    pub(crate) fn put_aside(&mut self, entry: Entry, message: &InboxMessage) {
        self.aside(&entry, message);
        self.plan(entry, Plan::PutAside);
    }

    /// What does not pass its check goes to the quarantine.
    pub(crate) fn damaged(&mut self, entry: Entry, all: &[u8]) {
        self.words.word(b"damaged");
        self.words.word(all);
        self.plan(entry, Plan::Damaged);
    }

    fn fail(&mut self, entry: &Entry, message: &InboxMessage) {
        self.failed.insert(message.from.clone());
        self.words.word(b"fail");
        self.words.word(entry.keep(message.failures, false).as_bytes());
    }

    fn aside(&mut self, entry: &Entry, message: &InboxMessage) {
        self.words.word(b"aside");
        self.words.word(entry.keep(message.failures, entry.is_half_done()).as_bytes());
        self.words.number(letters::FIELDS);
        let whose = [&*self.owner, &message.from, &message.topic];
        letters::put_fields(&mut self.words, whose, DeadReason::Failed, &message.record());
    }

    /// Whether it takes no more than it gives, so that a full server may do it.
    pub(crate) const fn is_move(&self) -> bool {
        self.commands <= self.given
    }

    /// Has it done. Gives what became of each entry, or nothing if one of them was not there any more: then nothing was done.
    pub(crate) fn send(&self, client: &mut Client, when_full: bool) -> Result<Option<Vec<Reply>>, Failure> {
        let [inbox, dead, failures] =
            ["inbox", "dead", "failures"].map(|what| keys::of_node(&self.owner, what));
        let mut words = Words::default();
        for word in [&*keys::node(&self.owner), &*dead, &*failures] {
            words.word(word.as_bytes());
        }
        words.number(DEAD_LETTERS_MAX);
        words.number(self.plans.len() as u64);
        words.extend(&self.checks);
        words.extend(&self.words);
        let reply = client.eval_words(&take_script::dispose(when_full), &inbox, &words)?;
        if reply.text() == Some(script::MOVED) {
            return Ok(None);
        }
        let Reply::List(replies) = reply else { return Err(Failure::nonsense()) };
        if replies.len() == self.plans.len() { Ok(Some(replies)) } else { Err(Failure::nonsense()) }
    }

    /// What came of it, and what was refused just now.
    pub(crate) fn outcome(self, replies: Vec<Reply>) -> (Taken<E>, Vec<(Entry, Refused)>) {
        let (mut taken, mut refused) = (Taken::default(), Vec::new());
        for ((mut entry, plan), reply) in self.plans.into_iter().zip(replies) {
            let is_done = reply == Reply::Number(1);
            match plan {
                Plan::Give(_) if is_done => taken.messages += 1,
                Plan::Give(mut message) => {
                    // Otherwise something else of its sender was refused.
                    let Some([words, done]) = reply.list() else { continue };
                    message.failures = message.failures.saturating_add(1);
                    entry.kept = Kept { failures: message.failures, half_done: done.number() != Some(0) };
                    let words = words.text().unwrap_or_default().to_owned();
                    refused.push((entry, Refused { words, message, put_aside: false }));
                }
                Plan::Fail(message, error, is_over) => {
                    taken.failed.push(Failed::new(error, message, is_over && is_done));
                }
                Plan::Refuse(message, words) if entry.is_half_done() => {
                    taken.refused.push(Refused { words, message, put_aside: is_done });
                }
                Plan::Refuse(message, words) => {
                    refused.push((entry, Refused { words, message, put_aside: false }));
                }
                Plan::Damaged => taken.damaged += 1,
                Plan::PutAside => {}
            }
        }
        (taken, refused)
    }
}

/// Words of a command.
fn words_of(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        // A cursor of the library's own begins with this.
        Arg::Cursor | _ => b"0",
    })
}

/// Why a command cannot be sent, if it cannot.
fn unusable(command: &Cmd) -> Option<String> {
    let Some(name) = words_of(command).next() else { return Some("ERR a command without words".to_owned()) };
    let words = command.args_iter().count();
    if words > WORDS_MAX {
        return Some(format!("ERR a command of {words} words: {WORDS_MAX} are the most"));
    }
    // What comes behind it would be done elsewhere.
    name.eq_ignore_ascii_case(b"SELECT").then(|| "ERR SELECT is not for the closure".to_owned())
}
