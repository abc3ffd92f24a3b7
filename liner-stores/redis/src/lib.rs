//! liner's store in a Redis server.
//!
//! The server is shared by several nodes, of one process or of many; everything in it is keyed by the node's own name, and a token that
//! every write checks sees to it that a name is used once: whoever opens it last has it.
//!
//! * **Commits.** A turn is one call of a script, which checks everything before it writes anything, and writes the turn's number last.
//!   The records of a long turn are pushed in front of it in the same `MULTI`, and it takes them back if there is to be no turn.
//! * **What a commit survives** is what the server is set to: [`Class::Power`] with `appendonly yes`, `appendfsync always` and
//!   `no-appendfsync-on-rewrite no`, otherwise [`Class::Ram`]. A server that throws keys away is refused. What is set to less later is noticed
//!   within some five seconds, and with a new connection; then nothing is committed until it is set back.
//! * **An outcome that is not known** is found out by the turn's number on another connection, under another token, so that what the old
//!   one still holds comes to nothing. It stays unknown as long as the server does not say.
//! * **A connection that fails** is made anew by the next call. A server that comes back without what was committed is
//!   [`StoreFault::Regressed`].
//! * **Records** are elements of lists, one each, under a CRC-32C that covers whose it is, its number and its bytes, and that is checked
//!   whenever it is read. What fails is kept aside in the list `lnr_quarantine`.
//! * **A full server** (`maxmemory`) takes acknowledgements and what is moved, and refuses the rest.
//!
//! **The inbox** of a node is a stream. From an [`Inbox`] the application takes messages together with the commands that it makes of them.
//!
//! Operators find the keys that they know, all of which begin with `lnr_`.

mod byhand;
mod client;
mod directory;
mod drain;
mod element;
mod error;
mod examine;
mod inbox;
mod keys;
mod letters;
mod link;
mod loading;
mod look;
mod looking;
mod notices;
mod open;
mod page;
mod push;
mod reading;
mod recover;
mod resp;
mod row;
mod scan;
mod script;
mod stretch;
mod survey;
mod take_script;
mod taking;
mod turn;
mod url;
mod words;

use std::collections::HashMap;

use liner_proto::effect::{InboxHeld, Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::router::DirectoryRows;
use liner_proto::store::{Capabilities, Notices, Store};

pub use error::OpenError;
pub use inbox::{INBOX_ACL, Inbox, InboxError, Refused, Taken};
pub use liner_store::inbox::{Failed, InboxMessage};
pub use look::Look;
/// The release whose pipelines [`Inbox`] lends.
pub use redis;
pub use url::{Place, TlsFiles, Url, UrlError};

use client::{Client, Failure};
use row::Rows;
use turn::{Applied, Turn};

/// What a user of the server has to be allowed: the rules of `ACL SETUSER`.
pub const ACL: &str = "~lnr_* &lnr_directory +@connection +info +config|get +eval +evalsha +script|load +multi +exec \
     +hget +hmget +hgetall +hset +hsetnx +hdel +hexists +hincrby +get +set +del +exists +incr +type \
     +lindex +llen +lmove +lrange +lrem +lset +ltrim +rename +rpush +sadd +smembers +scan +time \
     +xadd +xdel +xlen +xrange +xrevrange +xtrim +publish +subscribe +unsubscribe";

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the node whose store this is.
    pub name: String,
}

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The node's last run did not close the store.
    pub unclean: bool,
    /// The server is another one than last time, or was started again: commits may be missing.
    pub regressed: bool,
    /// Queues and cursors that did not pass their check, and are gone.
    pub damaged: u64,
    /// Messages that were put into lists by hand, and are queued now.
    pub inserted: u64,
    /// Messages that were put among the dead letters, because there is no such queue, or because they cannot be queued.
    pub orphaned: u64,
    /// Messages that were put into lists by hand, and wait for the next start: what is known of their queues is in doubt.
    pub waiting: u64,
}

/// A store in a Redis server.
///
/// It blocks: every call but [`apply`](Store::apply) may wait for the server as long as the URL's timeouts say.
#[derive(Debug)]
pub struct RedisStore {
    url: Url,
    owner: String,
    /// The key of the node's row.
    node: String,
    class: Class,
    client: Option<Client>,
    /// Whoever has the highest one has the name.
    token: u64,
    /// The last turn that took place.
    number: u64,
    identity: examine::Identity,
    opened: Opened,
    rows: Rows,
    cursors: HashMap<String, (Epoch, u64)>,
    applied: Applied,
    turn: Turn,
    /// The server was full: what grows is refused once, so that what gives up something gets through.
    refuses_growth: bool,
    /// The server was seen without the file that commits are appended to, and may not have written it as a whole yet.
    unlogged: bool,
    catalog: directory::Catalog,
    /// Somebody has the notices already.
    has_notices: bool,
    last_error: Option<String>,
}

impl RedisStore {
    /// What was found when it was opened.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Where it is, with every option. It is shown without the password.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Closes the store, so that the next one who opens it knows that it was, and others that the node has gone. What was not committed is
    /// gone. Dropping does the same, without a word about its outcome.
    ///
    /// # Errors
    /// Why the mark could not be made. The store is closed all the same.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.retire()
    }

    fn retire(&mut self) -> Result<(), StoreFault> {
        self.is_usable()?;
        self.turn = Turn::Over(StoreFault::Unavailable);
        let node = self.node.clone();
        let token = self.token.to_string();
        // Nobody waits for a server that has gone.
        let Some(client) = &mut self.client else { return Err(StoreFault::Unavailable) };
        let reply = client.eval(script::RETIRE, &node, &[token.as_bytes()]);
        match reply {
            Ok(reply) if reply.text() == Some(script::DONE) => {
                self.end_lease().map_err(|failure| self.note(failure))
            }
            Ok(_) => Err(StoreFault::Superseded),
            Err(failure) => Err(self.note(failure)),
        }
    }

    /// Does something that needs no turn.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, StoreFault> {
        self.is_usable()?;
        act(self).map_err(|failure| self.note(failure))
    }

    fn count_inbox(&mut self) -> Result<InboxHeld, Failure> {
        let owner = self.owner.clone();
        let held = inbox::held(self.connected()?, &owner)?;
        let applied = self.applied.inbox;
        Ok(InboxHeld { messages: held.messages + applied.messages, bytes: held.bytes + applied.bytes })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        // Without the mark the lease runs out by itself.
        let _ = self.retire();
    }
}

impl Store for RedisStore {
    fn class(&self) -> Class {
        self.class
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.guarded(|store| store.tell(visit))
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.apply_group(group)
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        self.commit_turn()
    }

    fn resolve(&mut self) -> Result<(), StoreFault> {
        self.resolve_turn()
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.guarded(|store| store.read(queue, after, into))
    }

    fn inbox(&mut self) -> Result<Option<InboxHeld>, StoreFault> {
        self.guarded(Self::count_inbox).map(Some)
    }

    fn capabilities(&self) -> Capabilities {
        let directory_every = core::time::Duration::from_millis(100);
        Capabilities { shared: true, inbox: true, leases: true, directory_every }
    }

    fn directory(&mut self) -> Result<Option<DirectoryRows>, StoreFault> {
        self.guarded(Self::read_directory)
    }

    fn notices(&mut self) -> Option<Box<dyn Notices + Send>> {
        if core::mem::replace(&mut self.has_notices, true) {
            return None;
        }
        Some(Box::new(notices::Subscriber::new(self.url.clone()).ok()?))
    }

    fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}
