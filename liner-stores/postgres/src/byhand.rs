//! What people, and liner_broker, have written into `conn_messages`: rows without an epoch. They stand there until their node is
//! started, and are queued then like what the node itself sends.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use liner_proto::effect::{DeadReason, GapReason, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::wire::TEXT_MAX;
use liner_proto::wire::record::{GAP_LEN_MAX, encode_gap};
use liner_store::byhand::{PAYLOAD_MAX, put, record};
use liner_store::names;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::broker::{Fate, Named, Streams, Topics};
use crate::buffer::{Buffer, Letter};
use crate::columns::of;
use crate::error::Failure;
use crate::mend::Opening;
use crate::rows::{Cursors, Rows};
use crate::text::{from_column, to_column};

/// Rows by hand that are the node's, or nobody's: $1 is its name, $2 what its composites begin with, $3 says which keys are left alone,
/// $4 which are its own although it has not opened them.
const FROM: &str = "FROM conn_messages m LEFT JOIN conn_key_map q USING(connection_key)
    WHERE m.epoch IS NULL AND connection_key <> ALL($3) AND (
      q.owner = $1 OR q.owner = '' AND connection_key = ANY($4)
      OR q.owner IS NULL AND (m.composite IS NULL OR starts_with(m.composite, $2)))";

/// A page of them. What another node takes at this moment is passed over.
fn select() -> String {
    format!(
        "SELECT id, connection_key, composite, owner, suspect, topic, payload, of FROM (
  SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload) AS before FROM (
    SELECT m.id, connection_key, q.composite, q.owner, q.suspect, m.topic, m.payload, m.composite AS of
    {FROM} ORDER BY m.id LIMIT 4096 FOR UPDATE OF m SKIP LOCKED) AS next) AS sized
WHERE before < 4194304 ORDER BY id"
    )
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Messages that are queued now.
    pub(crate) queued: u64,
    /// Messages that were put among the dead letters, because there is no such queue.
    pub(crate) orphaned: u64,
    /// Messages that are left for the next start.
    pub(crate) waiting: u64,
}

/// How many there are.
pub(crate) fn count(opening: Opening<'_>) -> Result<u64, Failure> {
    let streams = Streams::find(opening)?;
    let count = format!("SELECT count(*) {FROM}");
    let rows = query(opening, &count, &streams.others, &streams.keys())?;
    Ok(rows.first().map(|row| row.try_get::<_, i64>(0)).transpose()?.unwrap_or(0).unsigned_abs())
}

/// Asks for rows [`FROM`] there.
fn query(opening: Opening<'_>, sql: &str, left: &Vec<i32>, own: &Vec<i32>) -> Result<Vec<Row>, Failure> {
    let prefix = to_column(&names::prefix(opening.mark.owner)).into_owned();
    let texts = [of(&opening.mark.name, Type::TEXT), of(&prefix, Type::TEXT)];
    let [name, prefix] = texts;
    opening.link.query(sql, &[name, prefix, of(left, Type::INT4_ARRAY), of(own, Type::INT4_ARRAY)])
}

/// Queues all of them, or nothing: what is begun is taken back with the transaction.
pub(crate) fn take(opening: Opening<'_>, rows: &mut Rows, cursors: &Cursors) -> Result<Taken, Failure> {
    let taken = Streams::find(opening).and_then(|streams| {
        let (only, numbered) = (HashMap::new(), Topics::default());
        Taking { opening, rows, cursors, streams, only, numbered, taken: Taken::default() }.run()
    });
    match &taken {
        Ok(_) => rows.settle(),
        Err(_) => rows.undo(),
    }
    taken
}

struct Taking<'a> {
    opening: Opening<'a>,
    rows: &'a mut Rows,
    cursors: &'a Cursors,
    streams: Streams,
    /// The only topic of a queue, if it has one only; by composites.
    only: HashMap<String, Option<String>>,
    numbered: Topics,
    taken: Taken,
}

impl Taking<'_> {
    fn run(mut self) -> Result<Taken, Failure> {
        self.streams.rename(self.opening)?;
        let sql = select();
        // Commits of such a queue may be missing, so that the other side may have had the numbers behind its last one. The node begins a new
        // epoch first, and says in it how many numbers the old one had: what was never sent must not be among them.
        let unsure = "SELECT connection_key, kind, name FROM conn_key_map WHERE owner = $1 AND suspect";
        let unsure = self.opening.link.query(unsure, &[of(&self.opening.mark.name, Type::TEXT)])?;
        let mut queues = Vec::with_capacity(unsure.len());
        for row in &unsure {
            queues.extend(named(row)?);
        }
        let mut unsure: Vec<i32> = unsure.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        unsure.extend(self.streams.leading_to(&queues));
        if !unsure.is_empty() {
            let sql = "SELECT count(*) FROM conn_messages WHERE epoch IS NULL AND connection_key = ANY($1)";
            let rows = self.opening.link.query(sql, &[of(&unsure, Type::INT4_ARRAY)])?;
            let count = rows.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
            self.taken.waiting = count.unwrap_or(0).unsigned_abs();
        }
        let (left, own) = ([unsure, self.streams.others.clone()].concat(), self.streams.keys());
        loop {
            let page = query(self.opening, &sql, &left, &own)?;
            if page.is_empty() {
                return Ok(self.taken);
            }
            self.queue(&page)?;
        }
    }

    /// Appends the messages of a page to their queues.
    fn queue(&mut self, page: &[Row]) -> Result<(), Failure> {
        let mut buffer = Buffer::default();
        let mut runs = Runs::default();
        let mut done = Vec::with_capacity(page.len());
        let mut opened = HashSet::new();
        for row in page {
            done.push(row.try_get::<_, i64>(0)?);
            let (named, listener) = self.destination(row)?;
            let (named, fate) = match self.left_by_broker(row, named.as_ref())? {
                Some((to, fate)) => (to, fate),
                None => {
                    let fate = self.fate(row, named.as_ref())?;
                    (named, fate)
                }
            };
            match (fate, named) {
                (Fate::Queued(record), Some(named)) => {
                    if opened.insert(named.clone()) {
                        self.open(&named, &mut buffer)?;
                    }
                    runs.add(self, named, &record, &mut buffer)?;
                    self.taken.queued += 1;
                }
                (Fate::Dead(reason, topic, record), named) => {
                    let peer = named.map_or(listener, |(_, name)| name);
                    let whose = [self.opening.mark.owner, &peer, &topic];
                    buffer.letters.push(Letter::new(whose, reason, &record));
                    self.taken.orphaned += 1;
                }
                (Fate::Queued(_), None) => return Err(StoreFault::Refused.into()),
                (Fate::Nothing, _) => {}
            }
        }
        runs.end(self, &mut buffer)?;
        self.opening.flush(&buffer, self.rows, self.cursors)?;
        self.opening.delete(&done)
    }

    /// What becomes of a message of liner_broker's, and the queue that it is for, if that program has written the row.
    fn left_by_broker(
        &mut self,
        row: &Row,
        named: Option<&Named>,
    ) -> Result<Option<(Option<Named>, Fate)>, Failure> {
        let (topic, of): (Option<&str>, Option<&str>) = (row.try_get(5)?, row.try_get(7)?);
        if topic.is_some() || of.is_some() {
            // It does not know these columns.
            return Ok(None);
        }
        let key = row.try_get(1)?;
        let named = self.streams.queue(key).or(named).cloned();
        let to = named.as_ref().and_then(|(kind, name)| names::queue(*kind, name));
        let fate = self.numbered.fate(self.opening, key, to, row.try_get(6)?)?;
        Ok(fate.map(|fate| (named, fate)))
    }

    /// What becomes of a message by hand that is for this queue.
    fn fate(&mut self, row: &Row, named: Option<&Named>) -> Result<Fate, Failure> {
        let (said, payload): (Option<&str>, &[u8]) = (row.try_get(5)?, row.try_get(6)?);
        let topic = match (said, named) {
            (Some(said), _) => Some(from_column(said).into_owned()),
            (None, Some((1, name))) => Some(name.clone()),
            (None, Some(named)) => self.only_topic(named)?,
            (None, None) => None,
        };
        let topic = topic.unwrap_or_default();
        let record = record(&topic, payload);
        Ok(match named.filter(|named| fits(named, &topic, payload)) {
            Some(_) => Fate::Queued(record),
            None => Fate::Dead(DeadReason::Orphaned, topic, record),
        })
    }

    /// The queue that a row is for, if there is one, and the listener that it names.
    fn destination(&self, row: &Row) -> Result<(Option<Named>, String), Failure> {
        let composite: Option<&str> = row.try_get(2)?;
        let of: Option<&str> = row.try_get(7)?;
        let listener = names::listener(&from_column(of.or(composite).unwrap_or_default()));
        let Some(composite) = composite.filter(|composite| of.is_none_or(|of| of == *composite)) else {
            return Ok((None, listener));
        };
        Ok((names::parse(self.opening.mark.owner, &from_column(composite)), listener))
    }

    fn only_topic(&mut self, (kind, name): &Named) -> Result<Option<String>, Failure> {
        let queue = names::queue(*kind, name).ok_or(StoreFault::Refused)?;
        let composite = names::composite(self.opening.mark.owner, queue);
        if let Some(known) = self.only.get(&composite) {
            return Ok(known.clone());
        }
        let mut topics = self.opening.topics(&composite)?.into_values();
        let only = topics.next().filter(|_| topics.next().is_none());
        self.only.insert(composite, only.clone());
        Ok(only)
    }

    /// Begins a queue that was made by hand. Numbers that a process took along may have been sent: they are told as a gap.
    fn open(&mut self, (kind, name): &Named, buffer: &mut Buffer) -> Result<(), Failure> {
        let queue = names::queue(*kind, name).ok_or(StoreFault::Refused)?;
        let Some((_, row)) = self.rows.find(queue) else {
            let epoch = Epoch(RandomState::new().hash_one(name).max(1));
            return self.step(&StoreOp::Open { queue, epoch }, buffer);
        };
        let head = row.numbers.head;
        let skipped = head.reserved.saturating_sub(head.last);
        let mut gap = [0; GAP_LEN_MAX];
        let Some(len) = encode_gap(GapReason::Crashed, skipped, &mut gap) else { return Ok(()) };
        let mut records = Vec::new();
        put(&mut records, gap.get(..len).unwrap_or_default());
        let (first, last) = (head.last + 1, head.reserved);
        self.step(&StoreOp::Append { queue, first, last, records: &records }, buffer)
    }

    fn append(&mut self, (kind, name): &Named, run: &Run, buffer: &mut Buffer) -> Result<(), Failure> {
        let queue: Queue<'_> = names::queue(*kind, name).ok_or(StoreFault::Refused)?;
        let (_, row) = self.rows.find(queue).ok_or(StoreFault::Refused)?;
        let first = row.numbers.head.last + 1;
        let last = first + run.messages - 1;
        self.step(&StoreOp::Append { queue, first, last, records: &run.records }, buffer)
    }

    fn step(&mut self, op: &StoreOp<'_>, buffer: &mut Buffer) -> Result<(), Failure> {
        // Nothing of a cursor is in it.
        Ok(buffer.take(self.opening.mark.owner, self.rows, &mut Cursors::default(), op)?)
    }
}

/// The queue of a row with its key, kind and name.
fn named(row: &Row) -> Result<Option<Named>, Failure> {
    let (kind, name): (i16, &str) = (row.try_get(1)?, row.try_get(2)?);
    Ok(u8::try_from(kind).ok().map(|kind| (kind, from_column(name).into_owned())))
}

fn fits((kind, name): &Named, topic: &str, payload: &[u8]) -> bool {
    (1..=TEXT_MAX).contains(&topic.len()) && payload.len() <= PAYLOAD_MAX && (*kind != 1 || name == topic)
}

/// Records that are not appended yet.
#[derive(Default)]
struct Runs(HashMap<Named, Run>);

#[derive(Default)]
struct Run {
    records: Vec<u8>,
    messages: u64,
}

impl Runs {
    fn add(
        &mut self,
        taking: &mut Taking<'_>,
        named: Named,
        record: &[u8],
        buffer: &mut Buffer,
    ) -> Result<(), Failure> {
        let run = self.0.entry(named.clone()).or_default();
        if !put(&mut run.records, record) {
            taking.append(&named, run, buffer)?;
            *run = Run::default();
            put(&mut run.records, record);
        }
        run.messages += 1;
        Ok(())
    }

    fn end(self, taking: &mut Taking<'_>, buffer: &mut Buffer) -> Result<(), Failure> {
        self.0.iter().try_for_each(|(named, run)| taking.append(named, run, buffer))
    }
}
