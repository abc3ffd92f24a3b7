//! The application's side of the inbox: it takes messages together with what it makes of them.
//!
//! What the application does with a message it says in commands, and they and the removal of the message are one call of a script in the
//! server. `MULTI` and `EXEC` would do less: a full server queues nothing between them, so that an inbox that fills it could never be
//! emptied; a command that is refused keeps neither the rest of its message's commands from being executed nor the message from being
//! removed, and who dies before the answer comes does not hear of it; and two who take at once would have to watch a key for each
//! other. The script looks whether each message is still there, and counts in the same moment what was refused.

use liner_proto::effect::InboxHeld;
use liner_store::inbox::{FAILURES_MAX, Failed, InboxMessage};
use redis::Pipeline;

use crate::client::{Client, Failure};
use crate::error::OpenError;
use crate::examine::denied;
use crate::keys;
use crate::open::FORMAT;
use crate::resp::{Reply, Request};
use crate::taking::{Call, Content, Entry, page};
use crate::url::Url;

/// What the user of an [`Inbox`] has to be allowed, beside its own commands and keys: the rules of `ACL SETUSER`. Who may do what a node has to,
/// [`ACL`](crate::ACL), may do this.
pub const INBOX_ACL: &str = "~lnr_node:* ~lnr_dead_id ~lnr_quarantine +@connection +eval +type +exists +get +set +del +incr \
     +hget +hset +hdel +rpush +xadd +xdel +xlen +xrange";

/// The same commands as they are tried, on a key that is not there before and after.
pub(crate) const TRIED: [&str; 18] = [
    "DEL K",
    "SET K 0",
    "GET K",
    "INCR K",
    "TYPE K",
    "EXISTS lnr_dead_id lnr_quarantine",
    "DEL K",
    "HSET K f 0",
    "HGET K f",
    "HDEL K f",
    "RPUSH K 0",
    "DEL K",
    "XADD K 1-1 f 0",
    "XLEN K",
    "XRANGE K - +",
    "XDEL K 1-1",
    "DEL K",
    "TYPE K",
];

/// How often others may be faster before nothing is taken.
const TRIES: usize = 16;

/// The inbox of a node that was built with one (`Builder::inbox`), in the node's own server and database.
///
/// [`take`](Self::take) lends a pipeline to the application: the commands that it puts there are executed, and the message is taken, in one
/// step or not at all. So each message is in the application's keys once, whatever dies meanwhile. That holds for keys of the
/// same database of the same server, and as far as the server keeps what it has said: [`Class::Power`](liner_proto::id::Class) with
/// `appendonly yes` and `appendfsync always`.
///
/// It is another connection than the node's, in the same process or in another one. The node puts messages in while the application takes
/// them. Several may take from the same inbox: each message goes to one of them, and those of one sender in their order.
///
/// ```no_run
/// use liner_store_redis::Inbox;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut inbox = Inbox::open("redis://127.0.0.1/0", "w")?;
/// let taken = inbox.take(100, |pipeline, message| {
///     let value = String::from_utf8_lossy(&message.payload);
///     pipeline.cmd("RPUSH").arg(format!("readings:{}", message.from)).arg(&*value);
///     pipeline.cmd("INCR").arg("readings");
///     Ok::<(), std::convert::Infallible>(())
/// })?;
/// println!("{} taken, {} refused", taken.messages, taken.refused.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Inbox {
    url: Url,
    client: Option<Client>,
    owner: String,
    failures_max: u32,
}

/// What came of a [`take`](Inbox::take). It is committed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Taken<E> {
    /// Messages that were taken.
    pub messages: u64,
    /// Those whose processing has failed. Of their senders nothing more was given.
    pub failed: Vec<Failed<E>>,
    /// Those of whose commands the server has refused one. Of their senders nothing more was taken.
    pub refused: Vec<Refused>,
    /// Entries that did not pass their check. They are in the list `lnr_quarantine` now.
    pub damaged: u64,
}

impl<E> Default for Taken<E> {
    fn default() -> Self {
        Self { messages: 0, failed: Vec::new(), refused: Vec::new(), damaged: 0 }
    }
}

/// A message of whose commands the server has refused one, and not executed those behind it.
///
/// If it was the first one, nothing was done for the message: it counts as a failure, and the message is given again. Otherwise something was
/// done that cannot be taken back, and the message is never given again by itself: it becomes a dead letter at once or, while there are
/// too many of those, as soon as there is room. Its sender's messages wait for that.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused {
    /// What the server says.
    pub words: String,
    /// The message. `failures` has this failure in it.
    pub message: InboxMessage,
    /// Whether it is among the dead letters now.
    pub put_aside: bool,
}

/// Why nothing could be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The server is not reached, or does not let this user do it. Nothing of the call is committed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No node of this name has used the database.
    #[error("no node named {name:?} has used {place}: name one that has, or another database")]
    NoSuchNode {
        /// The name.
        name: String,
        /// The database.
        place: String,
    },
    /// The server's memory is used up, and the commands take more than the messages give. Nothing of the call is committed.
    #[error(
        "cannot take from the inbox, the server's memory is used up: raise its maxmemory, or delete what is not needed ({words})"
    )]
    Full {
        /// What the server says.
        words: String,
    },
    /// The connection was lost before the server's answer came.
    #[error(
        "the connection was lost before the server's answer came ({words}): take again; what is not there any more was taken, and its commands were executed"
    )]
    Unknown {
        /// What happened to the connection.
        words: String,
    },
}

impl Inbox {
    /// Opens the inbox of the node `name` in its database, with a connection of its own. The node's store has to be open, or to have been.
    ///
    /// # Errors
    /// Why it cannot be opened. Nothing is made or changed then.
    pub fn open(url: &str, name: &str) -> Result<Self, InboxError> {
        let url: Url = url.parse().map_err(OpenError::from)?;
        let owner = name.to_owned();
        let mut inbox = Self { url, client: None, owner, failures_max: FAILURES_MAX };
        let key = keys::of_node(name, "probe");
        let denied = inbox.ask(|client| denied(client, &key, &TRIED))?;
        if !denied.is_empty() {
            let (url, words) = (Box::new(inbox.url), format!("it may not do {}", denied.join(", ")));
            return Err(OpenError::Permission { url, words, acl: INBOX_ACL }.into());
        }
        let node = keys::node(name);
        let format = inbox.ask(|client| client.command(&[b"HGET", node.as_bytes(), b"format"]))?;
        if format == Reply::Nil {
            return Err(InboxError::NoSuchNode { name: name.to_owned(), place: inbox.url.to_string() });
        }
        if format.number().is_none_or(|format| format > FORMAT) {
            let found = format.text().unwrap_or_default().to_owned();
            return Err(OpenError::NewerFormat { url: Box::new(inbox.url), found, known: FORMAT }.into());
        }
        Ok(inbox)
    }

    /// After so many failures a message becomes a dead letter; 20 without this, and one at least.
    #[must_use]
    pub const fn failures_max(mut self, failures: u32) -> Self {
        self.failures_max = failures;
        self
    }

    /// What waits to be taken.
    ///
    /// # Errors
    /// What the server says.
    pub fn waiting(&mut self) -> Result<InboxHeld, InboxError> {
        let owner = self.owner.clone();
        self.ask(|client| held(client, &owner))
    }

    /// Takes up to `most` messages in one step, from the oldest on. For each of them `process` is lent a pipeline, to which it adds the commands
    /// that are to be executed for the message. They are executed when `process` has been called for all messages of the call, one message
    /// behind the other, and nobody else's in between. A call ends earlier when it holds 8 MiB of messages and commands.
    ///
    /// When `process` returns an error, the commands of that message are dropped, and the message stays where it is with one failure
    /// more; of the same sender nothing more is given in this call, so that its order stays. A message that has failed
    /// [too often](Self::failures_max) becomes a dead letter in the same step, unless there are 10,000 of those. Nothing makes a pause
    /// before the next call: that is for the caller to do. When the server refuses a command, what was done before it stays done: [`Refused`] says
    /// what becomes of the message.
    ///
    /// The commands' answers are not kept. They are executed by a script: what a script may not do (`EVAL`, `FCALL`, `SUBSCRIBE`), `SELECT`, and a
    /// command of more than 4,000 words are refused. `MULTI` and `EXEC` are not needed. What `process` has to read it reads with a connection
    /// of the application's own.
    ///
    /// If somebody else takes the same messages at the same time, `process` is called again, with what is there by then, and what it has queued
    /// before is dropped. If others are faster again and again, nothing is taken.
    ///
    /// A panic in `process` takes the whole call back, and so does the death of the process.
    ///
    /// # Errors
    /// See [`InboxError`]. Nothing of the call is committed then, or nothing is known of it ([`InboxError::Unknown`]): the next call
    /// gives what was not taken.
    pub fn take<E>(
        &mut self,
        most: usize,
        mut process: impl FnMut(&mut Pipeline, &InboxMessage) -> Result<(), E>,
    ) -> Result<Taken<E>, InboxError> {
        for _ in 0..TRIES {
            let Some(call) = self.fill(most, &mut process)? else { break };
            if let Some(replies) = self.dispose(&call)? {
                return Ok(self.settle(call, replies));
            }
        }
        Ok(Taken::default())
    }

    /// Reads messages, and has them processed. Gives nothing if there is none.
    fn fill<E>(
        &mut self,
        most: usize,
        process: &mut impl FnMut(&mut Pipeline, &InboxMessage) -> Result<(), E>,
    ) -> Result<Option<Call<E>>, InboxError> {
        let owner = self.owner.clone();
        let mut call = Call::new(&owner);
        let (mut from, mut has_more) = ("-".to_owned(), true);
        while has_more && call.count() < most && !call.is_long() {
            let left = most - call.count();
            let page = self.ask(|client| page(client, &owner, &from, left))?;
            let Some((last, _)) = page.entries.last() else { break };
            (from, has_more) = (format!("({}", last.id), page.has_more);
            for entry in page.entries {
                if !call.is_long() {
                    self.judge(&mut call, entry, process);
                }
            }
        }
        Ok((call.count() > 0).then_some(call))
    }

    /// Decides what is to become of an entry.
    fn judge<E>(
        &self,
        call: &mut Call<E>,
        (entry, content): (Entry, Content),
        process: &mut impl FnMut(&mut Pipeline, &InboxMessage) -> Result<(), E>,
    ) {
        let mut message = match content {
            Content::Message(message) => message,
            Content::Damaged(all) => return call.damaged(entry, &all),
        };
        if call.has_failed(&message.from) {
            return;
        }
        if entry.is_half_done() {
            return call.half_done(entry, message);
        }
        let mut pipeline = Pipeline::new();
        match process(&mut pipeline, &message) {
            Ok(()) => call.give(entry, message, &pipeline),
            Err(error) => {
                message.failures = message.failures.saturating_add(1);
                let is_over = self.failures_max <= message.failures;
                call.failed(entry, message, error, is_over);
            }
        }
    }

    /// Has it done. Gives what became of each entry, or nothing if one of them was not there any more: then nothing was done.
    fn dispose<E>(&mut self, call: &Call<E>) -> Result<Option<Vec<Reply>>, InboxError> {
        let mut outcome = self.connected().and_then(|client| call.send(client, false));
        if let Err(Failure::Server(words)) = &outcome
            && words.starts_with("OOM")
        {
            if !call.is_move() {
                return Err(InboxError::Full { words: words.clone() });
            }
            outcome = self.connected().and_then(|client| call.send(client, true));
        }
        outcome.map_err(|failure| match failure {
            Failure::Io { error, sent: true } => {
                self.client = None;
                InboxError::Unknown { words: error.to_string() }
            }
            other @ (Failure::Fault(_) | Failure::Io { .. } | Failure::Link(_) | Failure::Server(_)) => {
                self.failed(other)
            }
        })
    }

    /// Says what came of it; what was refused too often, or in the middle, is put aside in another step.
    fn settle<E>(&mut self, call: Call<E>, replies: Vec<Reply>) -> Taken<E> {
        let (mut taken, refused) = call.outcome(replies);
        let mut aside = Call::<E>::new(&self.owner);
        let (mut over, mut others) = (Vec::new(), Vec::new());
        for (entry, refused) in refused {
            if entry.is_half_done() || self.failures_max <= refused.message.failures {
                aside.put_aside(entry, &refused.message);
                over.push(refused);
            } else {
                others.push(refused);
            }
        }
        // If that does not work now, the next call does it: it is written down what is to become of them.
        if !over.is_empty()
            && let Ok(Some(replies)) = self.dispose(&aside)
        {
            for (refused, reply) in over.iter_mut().zip(replies) {
                refused.put_aside = reply == Reply::Number(1);
            }
        }
        taken.refused.extend(over.into_iter().chain(others));
        taken
    }

    fn connected(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.url)?);
        }
        self.client.as_mut().ok_or_else(Failure::nonsense)
    }

    /// Asks something, on a new connection if the last one turns out to be lost.
    fn ask<T>(&mut self, mut ask: impl FnMut(&mut Client) -> Result<T, Failure>) -> Result<T, InboxError> {
        let had_one = self.client.is_some();
        let mut outcome = self.connected().and_then(&mut ask);
        if had_one && matches!(outcome, Err(Failure::Io { .. })) {
            self.client = None;
            outcome = self.connected().and_then(&mut ask);
        }
        outcome.map_err(|failure| self.failed(failure))
    }

    /// Nothing was done.
    fn failed(&mut self, failure: Failure) -> InboxError {
        if matches!(failure, Failure::Io { .. } | Failure::Link(_)) {
            self.client = None;
        }
        let mut error = OpenError::of(&self.url, failure);
        if let OpenError::Permission { acl, .. } = &mut error {
            *acl = INBOX_ACL;
        }
        error.into()
    }
}

/// What the inbox of a node holds.
pub(crate) fn held(client: &mut Client, owner: &str) -> Result<InboxHeld, Failure> {
    let (inbox, node) = (keys::of_node(owner, "inbox"), keys::node(owner));
    let mut request = Request::default();
    request.command(&[b"XLEN", inbox.as_bytes()]).command(&[b"HGET", node.as_bytes(), b"inbox_bytes"]);
    let replies = client.all(&request)?;
    let number = |index: usize| replies.get(index).and_then(Reply::number).unwrap_or(0);
    // Whoever has emptied it by hand has not counted it out.
    let messages = number(0);
    Ok(InboxHeld { messages, bytes: if messages == 0 { 0 } else { number(1) } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn all_that_is_asked_for_is_tried() {
        let first = |it: &&str| it.split(' ').next().map(str::to_lowercase);
        let tried: BTreeSet<String> = super::TRIED.iter().filter_map(first).collect();
        let asked = |acl: &str| -> BTreeSet<String> {
            let rules = acl.split_whitespace().filter_map(|rule| rule.strip_prefix('+'));
            rules.filter(|name| !name.contains('@') && *name != "eval").map(str::to_owned).collect()
        };
        assert_eq!(tried, asked(super::INBOX_ACL));
        assert!(tried.is_subset(&asked(crate::ACL)), "whoever may be a node may take");
    }
}
