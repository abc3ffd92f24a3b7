//! Opens the stores that this crate brings along, each by its URL.

use liner_mio::{Class, HeapStore, Store};
use liner_store_sqlite::{self as sqlite, SqliteStore};

pub use liner_store::look::{
    About, DeadLetter, Delivered, Held, Look, LookError, Pending, StoredDelivery, StoredLetter, Subscription,
    Target,
};

use crate::client::boot_id;
use crate::servers;
use crate::store_url::{StoreUrl, StoreUrlError};

/// What `ram:` holds at most, in bytes of records.
const RAM_BYTES: u64 = 256 * 1024 * 1024;

/// A store that was opened.
pub struct Opened {
    /// The store.
    pub store: Box<dyn Store + Send>,
    /// What was unusual about it.
    pub notices: Vec<Notice>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = self.store.class();
        f.debug_struct("Opened").field("class", &class).field("notices", &self.notices).finish()
    }
}

/// A sentence about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether something is lost or held up.
    pub is_warning: bool,
    /// The sentence.
    pub words: String,
}

impl Notice {
    #[cfg(any(feature = "redis", feature = "postgres"))]
    pub(crate) const fn warning(words: String) -> Self {
        Self { is_warning: true, words }
    }
}

/// Why a store could not be opened. Each text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL names none.
    #[error(transparent)]
    Url(#[from] StoreUrlError),
    /// There is something in the URL of a server that it does not know.
    #[error("{0}")]
    BadUrl(String),
    /// A node of this name runs on it, or what it needs is in use.
    #[error("{0}")]
    InUse(String),
    /// What commits survive there is less than was asked for.
    #[error("{url} keeps what survives {found}, and {wanted} was asked for: {advice}, or ask for less")]
    Weak {
        /// The store.
        url: Box<StoreUrl>,
        /// What it has.
        found: &'static str,
        /// What it was to have.
        wanted: &'static str,
        /// What to set.
        advice: &'static str,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// What commits of this class survive, in words.
pub const fn survival(class: Class) -> &'static str {
    match class {
        Class::Ram => "nothing",
        Class::Process => "the death of a process",
        Class::Power => "the loss of power",
    }
}

/// Opens the store that `url` names for the node `name`. A file is made if there is none, for commits that survive what `asked` says, or
/// else the loss of power. A server has its own settings: it is refused if they fall short of what is asked for.
///
/// What a server keeps goes to [`Builder::store_on_worker`](crate::Builder::store_on_worker): the loop must not wait for the network.
///
/// # Errors
/// See [`OpenError`].
pub fn open(url: &StoreUrl, name: &str, asked: Option<Class>) -> Result<Opened, OpenError> {
    url.check()?;
    match url {
        StoreUrl::Ram => Ok(Opened { store: Box::new(HeapStore::new(RAM_BYTES)), notices: Vec::new() }),
        StoreUrl::Sqlite(path) => {
            let durability = asked.unwrap_or(Class::Power);
            let options =
                sqlite::Options { name: name.to_owned(), durability, limit_bytes: None, boot_id: boot_id() };
            let store = SqliteStore::open(path, &options)?;
            let notices = notices(path, store.opened());
            Ok(Opened { store: Box::new(store), notices })
        }
        StoreUrl::Server(server) => {
            let opened = servers::open(server, name)?;
            let (found, wanted) = (opened.store.class(), asked.unwrap_or(Class::Ram));
            if found < wanted {
                return Err(OpenError::Weak {
                    url: Box::new(url.clone()),
                    found: survival(found),
                    wanted: survival(wanted),
                    advice: server.kind().advice(),
                });
            }
            Ok(opened)
        }
    }
}

/// Looks at the store that `url` names, beside the nodes that use it.
///
/// # Errors
/// Why it cannot be looked at. Nothing is made or changed then.
pub fn look(url: &StoreUrl) -> Result<Box<dyn Look>, LookError> {
    url.check().map_err(|error| LookError::Unreadable(error.to_string()))?;
    match url {
        StoreUrl::Ram => Err(LookError::Unreadable(
            "ram: is in the memory of its node alone: name a store that outlives it, as sqlite:PATH"
                .to_owned(),
        )),
        StoreUrl::Sqlite(path) => Ok(Box::new(sqlite::Look::open(path)?)),
        StoreUrl::Server(server) => servers::look(server),
    }
}

/// Whether the node `name` could be started on the store without a loss: it has used it before, and nothing there is damaged. What only the
/// start of the node can mend or say does not speak against it.
///
/// # Errors
/// What speaks against it.
pub fn vouch_for(url: &StoreUrl, name: &str) -> Result<(), LookError> {
    if let StoreUrl::Sqlite(path) = url {
        return Ok(sqlite::Look::vouch_for(path, name)?);
    }
    match look(url).and_then(|mut look| look.vouch_for(name)) {
        Err(LookError::NodeKnows(_) | LookError::Failed(_)) => Ok(()),
        outcome => outcome,
    }
}

impl From<sqlite::OpenError> for OpenError {
    fn from(error: sqlite::OpenError) -> Self {
        let words = error.to_string();
        let is_in_use = matches!(
            error,
            sqlite::OpenError::NameInUse { .. }
                | sqlite::OpenError::DamagedInUse { .. }
                | sqlite::OpenError::BrokerInUse { .. }
        );
        if is_in_use { Self::InUse(words) } else { Self::Failed(words) }
    }
}

fn notices(path: &std::path::Path, opened: &sqlite::Opened) -> Vec<Notice> {
    let place = path.display();
    let mut notices = Vec::new();
    let mut add = |is_warning, words| notices.push(Notice { is_warning, words });
    if let Some(aside) = &opened.quarantined {
        add(true, format!("{place} was damaged: it is now {}, and a new one was made", aside.display()));
    }
    if let Some(schema) = opened.upgraded_from {
        add(false, format!("{place} was upgraded from schema {schema}"));
    }
    if let Some(taken) = opened.taken_over {
        let (queued, dead) = (taken.queued, taken.dead);
        add(
            dead > 0,
            format!(
                "{place} was made by liner_broker and is liner's now: of its messages {queued} are queued, \
                 {dead} cannot be sent and are dead letters"
            ),
        );
    }
    if opened.damaged > 0 {
        add(true, damaged(opened.damaged, &place.to_string()));
    }
    if opened.orphaned > 0 {
        add(true, orphaned(opened.orphaned));
    }
    if let Some(bytes) = opened.needs_free {
        let free = bytes.div_ceil(1 << 20);
        add(
            true,
            format!(
                "the disk of {place} is too full: until {free} MiB are free on it, new messages are taken only where acknowledged ones were"
            ),
        );
    }
    notices
}

pub(crate) fn damaged(rows: u64, place: &str) -> String {
    format!(
        "{rows} damaged rows were taken out of {place}, which said how far queues and peers had come: \
         messages may come twice, and what is missing is told"
    )
}

#[cfg(feature = "redis")]
pub(crate) fn restarted(place: impl std::fmt::Display) -> String {
    format!(
        "{place} is another server than last time, or was started anew: what it may have lost is told, \
         and what was sent may come twice, marked"
    )
}

pub(crate) fn orphaned(messages: u64) -> String {
    format!("{messages} messages whose stream is gone are now dead letters")
}
