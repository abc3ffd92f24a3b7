//! liner's store in a PostgreSQL database.
//!
//! The database is shared by nodes of any number of processes and machines; everything in it is keyed by the node's own name.
//!
//! * **Turns.** What a turn applies is tried out and kept in memory, and is written at its commit, in one transaction and, unless it opens or
//!   closes queues, in one round trip. A turn that has to see what it has applied writes it earlier, in the same transaction.
//! * **One writer of a name.** Whoever opens a name takes the next token of its row, and each turn is written only with the newest token. The
//!   older instance's next turn is [`StoreFault::Superseded`].
//! * **A connection that breaks** is made anew by the next call. If it broke during a commit, the turn's number in the node's row says what became of it
//!   ([`Store::resolve`]), and a turn of which nothing was committed is written again.
//! * **Rows.** `conn_messages` has a row a message, under a CRC-32C that covers whose it is, its number and its bytes, and
//!   that is checked whenever it is read. A row that fails is kept aside in the table `quarantine`.
//!
//! It drives its connection itself, in the calling thread, which must not be one of a tokio runtime.

mod about;
mod broker;
mod buffer;
mod byhand;
mod clock;
mod columns;
mod deliveries;
mod dial;
mod directory;
mod error;
mod flush;
mod fullness;
mod inbox;
mod lend;
mod letters;
mod link;
mod look;
mod mend;
mod notices;
mod open;
mod orphans;
mod pool;
mod reading;
mod recover;
mod rows;
mod schema;
mod statements;
mod text;
mod tls;
mod turn;
mod url;

use liner_proto::effect::{InboxHeld, Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::id::Class;
use liner_proto::router::DirectoryRows;
use liner_proto::store::{Capabilities, Notices, Store};
use tokio_postgres::types::Type;

pub use error::OpenError;
pub use inbox::{Inbox, InboxError, Taken};
pub use liner_store::inbox::{Failed, InboxMessage};
pub use look::Look;

/// The release that [`Inbox`] lends its transactions of.
pub use postgres;
pub use schema::{GRANTS, grants};
pub use url::{Host, RootCert, SslMode, TargetSession, Url};

use columns::of;

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
    /// The tables are new.
    pub created: bool,
    /// The node's last run did not close the store.
    pub unclean: bool,
    /// Queues and cursors that did not pass their check, and are gone.
    pub damaged: u64,
    /// Messages that were put among the dead letters: their queue is gone, or they were written by others and cannot be sent.
    pub orphaned: u64,
    /// Messages that were inserted by hand, or left there by liner_broker, and are queued now.
    pub inserted: u64,
    /// Messages that were inserted by hand and wait for the next start: there was no room to queue them, or commits may be
    /// missing, so that their numbers may have been used.
    pub waiting: u64,
}

/// A store in a PostgreSQL database.
///
/// It blocks: a commit waits for the server, at most as long as `statement_timeout` and `lock_timeout` of the URL say.
#[derive(Debug)]
pub struct PostgresStore {
    pool: std::sync::Arc<pool::Pool>,
    /// What begins a turn.
    begin: String,
    owner: String,
    /// The same as columns have it.
    name: String,
    /// The connection, as long as a turn needs it.
    link: Option<link::Link>,
    class: Class,
    opened: Opened,
    regressed: bool,
    token: i64,
    /// Names this opening of the store.
    instance: i64,
    /// The last turn that is known to be committed.
    last_turn: i64,
    turn: turn::Turn,
    rows: rows::Rows,
    cursors: rows::Cursors,
    buffer: buffer::Buffer,
    /// What the open transaction has been given.
    written: Vec<buffer::Buffer>,
    fullness: fullness::Fullness,
    told: Option<directory::Told>,
    /// How many bytes the messages had that were read last, on the average.
    typical: usize,
    last_error: Option<String>,
    /// It has been closed.
    retired: bool,
    /// Somebody has its notices.
    listens: bool,
}

/// Marks the node as ended by itself, and gives its lease up, unless another instance has the name.
const END: &str = "WITH ended AS (
  UPDATE liner_node SET clean = TRUE WHERE name = $1 AND token = $2 AND turn = $3 AND instance = $4 RETURNING name)
UPDATE liner_lease SET until = '-infinity' WHERE name = (SELECT name FROM ended)";

impl PostgresStore {
    /// What was found when it was opened.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The messages and the bytes that a queue holds.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn queued(&mut self, queue: Queue<'_>) -> Result<(u64, u64), StoreFault> {
        self.guarded(|store| {
            let Some((_, row)) = store.rows.find(queue) else { return Ok((0, 0)) };
            let key = row.key;
            let counts = store.count(key)?;
            Ok(counts.first().map_or((0, 0), |&(_, messages, bytes)| (messages, bytes)))
        })
    }

    /// Closes the store, so that the next one who opens it knows that nothing is missing. What was not committed is gone.
    /// Dropping does the same, without a word about its outcome.
    ///
    /// # Errors
    /// Why the mark could not be made. The store is closed all the same.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.retire()
    }

    fn retire(&mut self) -> Result<(), StoreFault> {
        if self.retired || self.turn == turn::Turn::Doubt {
            return Ok(());
        }
        self.retired = true;
        if self.turn == turn::Turn::Open {
            self.lose(StoreFault::Unavailable);
        }
        let name = self.name.clone();
        let [token, turn, instance] = [self.token, self.last_turn, self.instance];
        let [token, turn, instance] = [&token, &turn, &instance].map(|number| of(number, Type::INT8));
        let values = [of(&name, Type::TEXT), token, turn, instance];
        let ended = self.linked().and_then(|link| link.query(END, &values));
        self.let_go();
        ended.map(drop).map_err(|failure| failure.fault())
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Without the mark the lease runs out by itself.
        let _ = self.retire();
    }
}

impl Store for PostgresStore {
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
        let outcome = self.commit_turn();
        self.let_go();
        outcome
    }

    fn resolve(&mut self) -> Result<(), StoreFault> {
        let outcome = self.resolve_turn();
        self.let_go();
        outcome
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
        if core::mem::replace(&mut self.listens, true) {
            return None;
        }
        let listener = notices::Listener::new(self.pool.url(), &self.owner)?;
        Some(Box::new(listener))
    }

    fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}
