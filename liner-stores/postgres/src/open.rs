//! Opening: the server, its tables, the node's token, what became of the node's rows since it used them last.

use std::hash::{BuildHasher as _, RandomState};

use liner_proto::id::{Class, Epoch};
use liner_store::checksums;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::columns::of;
use crate::error::{Failure, OpenError, grant};
use crate::flush::Mark;
use crate::link::{Link, patience};
use crate::mend::{Mended, Opening};
use crate::pool::Pool;
use crate::rows::{Cursors, QUEUES, QueueRow, Rows};
use crate::text::{from_column, to_column};
use crate::url::Url;
use crate::{Opened, Options, PostgresStore, schema};

/// The oldest release of the server, as it numbers itself.
pub(crate) const SERVER_MIN: i32 = 130_000;

const SERVER: &str = "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
  pg_is_in_recovery(), current_setting('server_encoding'), current_setting('synchronous_commit'),
  current_setting('fsync'), concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
    (SELECT extract(epoch FROM stats_reset) FROM pg_stat_archiver))";

const UNLOGGED: &str =
    "SELECT relname::text FROM pg_class WHERE relname = ANY($1) AND relkind = 'r' AND relpersistence <> 'p'
  AND pg_table_is_visible(oid) ORDER BY relname";

/// What a commit is to survive stands in these.
const KEEPING: &[&str] = &[
    "conn_key_map",
    "conn_messages",
    "dead_letters",
    "inbound_cursor",
    "inbox",
    "liner_node",
    "stream_topic",
];

/// The server's identity: it stays the same for as long as the server has all that it ever had.
pub(crate) const IDENTITY: &str = "SELECT (SELECT system_identifier FROM pg_control_system())::text || ' '
  || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";

/// Takes the name: the older instance of it can do nothing more.
const TAKE_NAME: &str =
    "INSERT INTO liner_node AS n(name, token, turn, class, clean, instance, system, started)
VALUES($1, 1, 0, $2, FALSE, $3, $4, $5)
ON CONFLICT(name) DO UPDATE SET token = n.token + 1, class = excluded.class, clean = FALSE,
  instance = excluded.instance, system = excluded.system, started = excluded.started
RETURNING token, turn";

const LAST_USE: &str = "SELECT class, clean, system, started FROM liner_node WHERE name = $1 FOR UPDATE";

/// The lease begins with the node.
const LEASE: &str =
    "INSERT INTO liner_lease(name, until) VALUES($1, clock_timestamp() + $2 * interval '1 second')
ON CONFLICT(name) DO UPDATE SET until = excluded.until";

/// Numbers of the node's queues may have been given out that the database knows nothing of.
pub(crate) const SUSPECT: &str = "UPDATE conn_key_map SET suspect = TRUE WHERE owner = $1";

const CURSORS: &str = "SELECT peer, epoch, through, crc FROM inbound_cursor WHERE owner = $1";

/// What is known of the server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) class: Class,
    identity: String,
    /// When it was started, and since when it counts: after a crash, also of one process only, it counts from zero.
    started: String,
    /// `synchronous_commit`.
    commit: String,
}

/// Says what was being done when the server failed.
pub(crate) fn doing(doing: &'static str) -> impl Fn(Failure) -> OpenError {
    move |failure| {
        let words = failure.words().unwrap_or_else(|| failure.fault().to_string());
        if let Failure::Postgres(error) = &failure
            && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
        {
            return OpenError::Permission { grant: grant(error), words };
        }
        OpenError::Server { doing, words }
    }
}

impl PostgresStore {
    /// Opens the store of the node `options.name` in the database at `url`; makes the tables if there are none.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(url: &Url, options: &Options) -> Result<Self, OpenError> {
        let pool = Pool::of(url);
        let link = pool.take(&options.name)?;
        let mut server = examine(&link, url)?;
        let mut opened = Opened { created: schema::upgrade(&link, url)?, ..Opened::default() };
        if !unlogged(&link).map_err(doing("look for the tables"))?.is_empty() {
            server.class = Class::Ram;
        }
        let name = to_column(&options.name).into_owned();
        let instance = RandomState::new().hash_one(&name).cast_signed();
        let begin = begin_as(url, &server);
        let begun = Begun::take(&link, &begin, &name, instance, &server);
        let Begun { token, turn, unclean, regressed } = begun.map_err(doing("take the node's name"))?;
        opened.unclean = unclean;
        let mark = Mark { owner: &options.name, name: &name, token, instance, turn };
        let opening = Opening { link: &link, begin: &begin, mark };
        let mended = opening.mend().map_err(doing("set right what is wrong"))?;
        let Mended { rows, cursors, .. } = mended;
        (opened.damaged, opened.orphaned) = (mended.damaged, mended.orphaned);
        (opened.inserted, opened.waiting) = (mended.inserted, mended.waiting);
        pool.put(link);
        pool.fill(&options.name)?;
        Ok(Self {
            begin,
            pool,
            owner: options.name.clone(),
            name,
            link: None,
            class: server.class,
            opened,
            regressed,
            token,
            instance,
            last_turn: turn,
            turn: crate::turn::Turn::Idle,
            rows,
            cursors,
            buffer: crate::buffer::Buffer::default(),
            written: Vec::new(),
            fullness: crate::fullness::Fullness::default(),
            told: None,
            typical: 0,
            last_error: None,
            retired: false,
            listens: false,
        })
    }
}

/// Begins a transaction: nothing in it waits for ever, and nobody waits for ever for one whose process has stopped in the middle of it.
pub(crate) fn begin(url: &Url) -> String {
    let locks = url.lock_timeout().as_millis();
    format!("{}; SET LOCAL lock_timeout = {locks}", begin_patiently(url))
}

/// The same, but for locks. Each statement sees what was committed before it, whatever the database has by default.
pub(crate) fn begin_patiently(url: &Url) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {};
SET LOCAL idle_in_transaction_session_timeout = {}",
        url.statement_timeout().as_millis(),
        patience(url).as_millis()
    )
}

/// Begins a turn. Its commit survives what the class says, also if the setting has been changed since.
fn begin_as(url: &Url, server: &Server) -> String {
    let begin = begin(url);
    match &*server.commit {
        commit @ ("on" | "local" | "remote_write" | "remote_apply") => {
            format!("{begin}; SET LOCAL synchronous_commit = {commit}")
        }
        _ => begin,
    }
}

/// Tables that the server empties when it starts after a crash.
pub(crate) fn unlogged(link: &Link) -> Result<Vec<String>, Failure> {
    let rows = link.query(UNLOGGED, &[of(&KEEPING, Type::TEXT_ARRAY)])?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Whether the server will do, and what a commit on it survives.
fn examine(link: &Link, url: &Url) -> Result<Server, OpenError> {
    let asking = doing("ask the server for its settings");
    let rows = link.query(SERVER, &[]).map_err(&asking)?;
    let read = || {
        let row = rows.first()?;
        let text = |index| row.try_get::<_, String>(index).ok();
        let (number, standby): (i32, bool) = (row.try_get(0).ok()?, row.try_get(2).ok()?);
        Some((number, text(1)?, standby, text(3)?, text(4)?, text(5)?, text(6)?))
    };
    let Some((number, version, standby, encoding, commit, fsync, started)) = read() else {
        return Err(OpenError::Server {
            doing: "ask the server for its settings",
            words: "no answer".to_owned(),
        });
    };
    if number < SERVER_MIN {
        return Err(OpenError::Old { found: version });
    }
    if standby {
        return Err(OpenError::Standby { server: url.to_string() });
    }
    if encoding != "UTF8" {
        return Err(OpenError::Encoding { found: encoding });
    }
    let identity = link.query(IDENTITY, &[]).map_err(&asking)?;
    let identity = identity.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
    Ok(Server { class: class_of(&commit, &fsync), identity, started, commit })
}

/// What a commit survives under these settings, `synchronous_commit` and `fsync`.
pub(crate) fn class_of(commit: &str, fsync: &str) -> Class {
    match (commit, fsync) {
        ("off", _) => Class::Ram,
        (_, "off") => Class::Process,
        _ => Class::Power,
    }
}

/// A name that was taken.
struct Begun {
    token: i64,
    turn: i64,
    unclean: bool,
    /// The node's last commits may be lost.
    regressed: bool,
}

impl Begun {
    fn take(
        link: &Link,
        begin: &str,
        name: &String,
        instance: i64,
        server: &Server,
    ) -> Result<Self, Failure> {
        // Numbers that are given out from now on may be lost with their commits: that there was such a time has to be known then.
        link.batch(&format!("{begin}; SET LOCAL synchronous_commit = on"))?;
        let taken = Self::take_within(link, name, instance, server);
        link.batch(if taken.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        taken
    }

    fn take_within(link: &Link, name: &String, instance: i64, server: &Server) -> Result<Self, Failure> {
        let of_name = of(name, Type::TEXT);
        let (mut unclean, mut regressed) = (false, false);
        if let Some(last) = link.query(LAST_USE, core::slice::from_ref(&of_name))?.first() {
            let (class, clean): (i16, bool) = (last.try_get(0)?, last.try_get(1)?);
            let (system, started): (&str, &str) = (last.try_get(2)?, last.try_get(3)?);
            unclean = !clean;
            // Below Power a server that was started anew may lack the last commits; what a clean end has left is the last of all.
            let restarted = unclean && class < class_number(Class::Power) && started != server.started;
            regressed = system != server.identity || restarted;
        }
        if regressed {
            link.query(SUSPECT, core::slice::from_ref(&of_name))?;
        }
        let lease = liner_proto::store::LEASE.as_secs_f64();
        link.query(LEASE, &[of(name, Type::TEXT), of(&lease, Type::FLOAT8)])?;
        let class = class_number(server.class);
        let taken = link.query(
            TAKE_NAME,
            &[
                of_name,
                of(&class, Type::INT2),
                of(&instance, Type::INT8),
                of(&server.identity, Type::TEXT),
                of(&server.started, Type::TEXT),
            ],
        )?;
        let row = taken.first().ok_or(liner_proto::effect::StoreFault::Corrupt)?;
        Ok(Self { token: row.try_get(0)?, turn: row.try_get(1)?, unclean, regressed })
    }
}

const fn class_number(class: Class) -> i16 {
    match class {
        Class::Ram => 0,
        Class::Process => 1,
        Class::Power => 2,
    }
}

/// The node's queues, and the keys of those that do not pass their check.
pub(crate) fn read_queues(link: &Link, owner: &str, name: &String) -> Result<(Rows, Vec<i32>), Failure> {
    let (mut rows, mut damaged) = (Rows::default(), Vec::new());
    for row in link.query(&format!("{QUEUES} owner = $1"), &[of(name, Type::TEXT)])? {
        match QueueRow::read(owner, &row) {
            Some(queue) => drop(rows.insert(queue)),
            None => damaged.push(row.try_get(0)?),
        }
    }
    Ok((rows, damaged))
}

/// The node's cursors, and the peers of those that do not pass their check, as columns have them.
pub(crate) fn read_cursors(
    link: &Link,
    owner: &str,
    name: &String,
) -> Result<(Cursors, Vec<String>), Failure> {
    let (mut cursors, mut damaged) = (Cursors::default(), Vec::new());
    for row in link.query(CURSORS, &[of(name, Type::TEXT)])? {
        let column: &str = row.try_get(0)?;
        let (peer, epoch, through) = (from_column(column), row.try_get(1)?, row.try_get::<_, i64>(2)?);
        if through >= 0 && checksums::cursor(owner, &peer, epoch, through) == row.try_get::<_, i64>(3)? {
            cursors.insert(peer.into_owned(), Epoch(epoch.cast_unsigned()), through.cast_unsigned());
        } else {
            damaged.push(column.to_owned());
        }
    }
    Ok((cursors, damaged))
}
