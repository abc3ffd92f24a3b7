//! A look at a database from outside, beside the nodes that use it: what waits, who has subscribed, what was put aside.

use std::collections::{BTreeSet, HashMap};

use liner_store::look::{
    self, About, DeadLetter, Delivered, LookError, Pending, StoredDelivery, StoredLetter, Subscription,
    Target as For,
};
use liner_store::{broker, names};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::columns::of;
use crate::error::{Failure, OpenError};
use crate::letters::{self, Refusal};
use crate::link::{Link, Param};
use crate::rows::{QUEUES, QueueRow};
use crate::text::{from_column, to_column};
use crate::url::Url;
use crate::{about, deliveries, open, reading, schema};

/// Of what is read at a time no more than this is in memory, and one beyond it.
const PAGE_BYTES: i64 = 1 << 20;

const RUNNING: &str = "SELECT 1 FROM liner_lease WHERE name = $1 AND until > clock_timestamp()";

/// What waits by hand, by queue. A row says by its composite that it is of another queue, which had the key before.
const BY_HAND: &str =
    "SELECT q.composite, q.owner, count(*), coalesce(sum(octet_length(m.payload)), 0)::bigint, min(s.sender_topic)
FROM conn_messages m JOIN conn_key_map q USING(connection_key) LEFT JOIN conn_sender s USING(connection_key)
WHERE m.epoch IS NULL AND coalesce(m.composite, q.composite) = q.composite GROUP BY q.composite";

const SUBSCRIPTIONS: &str = "SELECT topic, client_name, addr FROM topic_addr";

/// A database that is looked at. It takes no node's name, and changes nothing but what it is told to.
#[derive(Debug)]
pub struct Look {
    link: Link,
    /// What begins a transaction.
    begin: String,
    place: String,
}

impl Look {
    /// Opens the database at `url`, in which a node has made its tables.
    ///
    /// # Errors
    /// Why it cannot be looked at. Nothing is made or changed then.
    pub fn open(url: &Url) -> Result<Self, LookError> {
        let link = Link::open(url, "look", None).map_err(|error| {
            let is_away = matches!(error, OpenError::Connect { .. });
            if is_away { LookError::Failed(error.to_string()) } else { unreadable(error) }
        })?;
        match schema::find(&link).map_err(failed)? {
            Some(schema::VERSION) => {}
            None | Some(0) => {
                let words = "there is no store in this database yet: name that of a node that has run";
                return Err(LookError::Unreadable(words.to_owned()));
            }
            Some(found) if found < schema::VERSION => {
                let words = "the tables are of an older release: start a node of them once, which brings them to this one";
                return Err(LookError::NodeKnows(words.to_owned()));
            }
            Some(found) => return Err(unreadable(OpenError::NewerSchema { found, known: schema::VERSION })),
        }
        Ok(Self { link, begin: open::begin(url), place: url.to_string() })
    }

    fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, LookError> {
        self.link.query(sql, params).map_err(failed)
    }

    /// Does the same with each, once, in one transaction.
    fn each(&self, ids: &[i64], act: impl Fn(&Link, i64) -> Result<(), Refusal>) -> Result<u64, LookError> {
        let ids: BTreeSet<i64> = ids.iter().copied().collect();
        self.link.batch(&self.begin).map_err(failed)?;
        let refused = ids.iter().find_map(|&id| act(&self.link, id).err().map(|refusal| (id, refusal)));
        let Some((id, refusal)) = refused else {
            self.link.batch("COMMIT").map_err(failed)?;
            return Ok(ids.len() as u64);
        };
        // What the server does not hear of it takes back by itself.
        let _ = self.link.batch("ROLLBACK");
        Err(match refusal {
            Refusal::Gone => LookError::NoSuchLetter { id },
            Refusal::NotQueued { peer, why } => LookError::NotQueued { id, peer, why },
            Refusal::Failed(failure) => failed(failure),
        })
    }

    /// Messages and bytes by hand, by composites, with the owners of their queues.
    fn by_hand(&self) -> Result<HashMap<String, ByHand>, LookError> {
        let rows = self.query(BY_HAND, &[])?;
        let read = |row: &Row| {
            let count = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
            let composite = from_column(row.try_get(0)?).into_owned();
            let has_owner = !row.try_get::<_, &str>(1)?.is_empty();
            let own_topic = row.try_get::<_, Option<&str>>(4)?.map(|topic| from_column(topic).into_owned());
            Ok((composite, ByHand { has_owner, own_topic, messages: count(2)?, bytes: count(3)? }))
        };
        rows.iter().map(read).collect::<Result<_, Failure>>().map_err(failed)
    }
}

/// What waits in a queue and was written by hand.
struct ByHand {
    /// Its node knows the queue.
    has_owner: bool,
    /// Of its sender, if liner_broker has written it.
    own_topic: Option<String>,
    messages: u64,
    bytes: u64,
}

impl look::Look for Look {
    fn is_running(&mut self, name: &str) -> bool {
        let name = to_column(name);
        self.query(RUNNING, &[of(&name, Type::TEXT)]).is_ok_and(|rows| !rows.is_empty())
    }

    fn vouch_for(&mut self, name: &str) -> Result<(), LookError> {
        let column = to_column(name).into_owned();
        let known = self.query("SELECT 1 FROM liner_node WHERE name = $1", &[of(&column, Type::TEXT)])?;
        if known.is_empty() {
            return Err(LookError::NoSuchNode { name: name.to_owned(), place: self.place.clone() });
        }
        let (_, queues) = open::read_queues(&self.link, name, &column).map_err(failed)?;
        let (_, cursors) = open::read_cursors(&self.link, name, &column).map_err(failed)?;
        if queues.is_empty() && cursors.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    fn nodes(&mut self) -> Result<Vec<String>, LookError> {
        let rows = self.query("SELECT name FROM liner_node", &[])?;
        let mut nodes: Vec<_> = rows.iter().map(|row| text(row, 0)).collect();
        nodes.sort_unstable();
        Ok(nodes)
    }

    fn pending(&mut self, owner: Option<&str>) -> Result<Vec<Pending>, LookError> {
        let column = owner.map(|owner| to_column(owner).into_owned());
        let sql =
            format!("{} ($1 IS NULL OR owner = $1) AND owner <> ''", QUEUES.replace(" FROM", ", owner FROM"));
        let rows = self.query(&sql, &[of(&column, Type::TEXT)])?;
        let counts = reading::count_queues(&self.link, column.as_ref(), 0).map_err(failed)?;
        let counts: HashMap<_, _> =
            counts.into_iter().map(|(key, messages, bytes)| (key, (messages, bytes))).collect();
        let mut by_hand = self.by_hand()?;
        let mut pending = Vec::new();
        for row in rows {
            let owner = text(&row, 16);
            let queue = QueueRow::read(&owner, &row).ok_or_else(damaged)?;
            let (messages, bytes) = counts.get(&queue.key).copied().unwrap_or_default();
            let more = by_hand.remove(&queue.composite);
            let (more, more_bytes) = more.map_or((0, 0), |it| (it.messages, it.bytes));
            let target = names::queue(queue.kind, &queue.name).map(For::of).ok_or_else(damaged)?;
            if messages + more > 0 {
                pending.push(Pending { owner, target, messages: messages + more, bytes: bytes + more_bytes });
            }
        }
        // Queues that their nodes have not begun yet.
        for (composite, waiting) in by_hand.into_iter().filter(|(_, waiting)| !waiting.has_owner) {
            let Some((of, kind, name)) = broker::queue_of(&composite, waiting.own_topic.as_deref()) else {
                continue;
            };
            let target = names::queue(kind, &name).map(For::of);
            if let Some(target) = target.filter(|_| owner.is_none_or(|owner| owner == of)) {
                let ByHand { messages, bytes, .. } = waiting;
                pending.push(Pending { owner: of, target, messages, bytes });
            }
        }
        pending.sort_by(|one, other| (&one.owner, &one.target).cmp(&(&other.owner, &other.target)));
        // Several streams of liner_broker's may go into one queue.
        pending.dedup_by(|next, queue| {
            let is_same = (&next.owner, &next.target) == (&queue.owner, &queue.target);
            if is_same {
                (queue.messages, queue.bytes) = (queue.messages + next.messages, queue.bytes + next.bytes);
            }
            is_same
        });
        Ok(pending)
    }

    fn subscriptions(&mut self) -> Result<Vec<Subscription>, LookError> {
        let rows = self.query(SUBSCRIPTIONS, &[])?;
        let subscription =
            |row: &Row| Subscription { topic: text(row, 0), name: text(row, 1), address: text(row, 2) };
        let mut subscriptions: Vec<_> = rows.iter().map(subscription).collect();
        subscriptions.sort_unstable();
        Ok(subscriptions)
    }

    fn dead_letters(
        &mut self,
        topic: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, LookError> {
        let (topic, limit) = (topic.map(|topic| to_column(topic).into_owned()), i64::from(limit));
        let sql = page("dead_letters", "($2 IS NULL OR topic = $2)", letters::COLUMNS, "record");
        let params = [
            of(&after, Type::INT8),
            of(&topic, Type::TEXT),
            of(&limit, Type::INT8),
            of(&PAGE_BYTES, Type::INT8),
        ];
        self.query(&sql, &params)?.iter().map(|row| letters::letter(row).map_err(failed)).collect()
    }

    fn dead_letter(&mut self, id: i64) -> Result<DeadLetter, LookError> {
        letters::find(&self.link, id, "").map_err(failed)?.ok_or(LookError::NoSuchLetter { id })
    }

    fn stored_letters(
        &mut self,
        owner: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredLetter>, LookError> {
        let (owner, limit) = (to_column(owner), i64::from(limit));
        let sql = page("dead_letters", "owner = $2", letters::COLUMNS, "record");
        let params = [
            of(&after, Type::INT8),
            of(&owner, Type::TEXT),
            of(&limit, Type::INT8),
            of(&PAGE_BYTES, Type::INT8),
        ];
        self.query(&sql, &params)?.iter().map(|row| letters::stored_letter(row).map_err(failed)).collect()
    }

    fn deliveries(&mut self, owner: &str, after: i64, limit: u32) -> Result<Vec<StoredDelivery>, LookError> {
        let (column, limit) = (to_column(owner), i64::from(limit));
        let sql = page("inbox", "owner = $2", deliveries::COLUMNS, "payload");
        let params = [
            of(&after, Type::INT8),
            of(&column, Type::TEXT),
            of(&limit, Type::INT8),
            of(&PAGE_BYTES, Type::INT8),
        ];
        let read = |row: &Row| {
            let content = deliveries::sound(owner, row).map(Delivered::from);
            Ok(StoredDelivery { id: row.try_get(0)?, content })
        };
        self.query(&sql, &params)?.iter().map(|row| read(row).map_err(failed)).collect()
    }

    fn about(&mut self) -> Result<About, LookError> {
        about::about(&self.link).map_err(failed)
    }

    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        self.each(ids, letters::delete)
    }

    fn drop_all_dead_letters(&mut self, topic: Option<&str>) -> Result<u64, LookError> {
        let topic = topic.map(|topic| to_column(topic).into_owned());
        let sql = "WITH gone AS (DELETE FROM dead_letters WHERE $1 IS NULL OR topic = $1 RETURNING 1)
          SELECT count(*) FROM gone";
        let rows = self.query(sql, &[of(&topic, Type::TEXT)])?;
        let count = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
        count.map(i64::unsigned_abs).ok_or_else(damaged)
    }

    fn redrive(&mut self, ids: &[i64]) -> Result<u64, LookError> {
        self.each(ids, letters::queue_again)
    }
}

/// Rows of a table behind the id $1 that fulfil a condition, up to $3 of them, and no more than fill a page of $4 bytes.
pub(crate) fn page(table: &str, condition: &str, columns: &str, bytes: &str) -> String {
    format!(
        "SELECT {columns} FROM (
  SELECT *, sum(octet_length({bytes})) OVER (ORDER BY id) - octet_length({bytes}) AS before FROM (
    SELECT * FROM {table} WHERE id > $1 AND {condition} ORDER BY id LIMIT $3) AS next) AS sized
WHERE before < $4 ORDER BY id"
    )
}

fn text(row: &Row, index: usize) -> String {
    from_column(row.try_get(index).unwrap_or_default()).into_owned()
}

fn damaged() -> LookError {
    LookError::Damaged(
        "the database holds rows that are damaged: start their node, which says what it can mend".to_owned(),
    )
}

fn unreadable(error: OpenError) -> LookError {
    LookError::Unreadable(error.to_string())
}

fn failed(failure: Failure) -> LookError {
    let Some(words) = failure.words() else { return damaged() };
    if matches!(&failure, Failure::Postgres(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)) {
        return LookError::InUse(format!("another program holds what is asked for; ask again: {words}"));
    }
    LookError::Failed(format!("the database cannot be read: {words}"))
}
