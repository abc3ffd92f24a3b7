//! What is set right when the store is opened: rows that do not pass their check, messages whose queue is gone, and messages that
//! people have written into `conn_messages` by hand. A running node knows how far its queues go and appends behind that; so all of
//! this happens before it is told of them.

use std::collections::HashMap;

use liner_proto::effect::{DeadReason, StoreFault};
use liner_store::{checksums, names};
use tokio_postgres::types::Type;

use crate::buffer::Buffer;
use crate::columns::of;
use crate::error::Failure;
use crate::flush::{Frame, Mark, flush};
use crate::link::Link;
use crate::open::{read_cursors, read_queues};
use crate::rows::{Cursors, Rows};
use crate::statements::MOST;
use crate::text::{from_column, to_column};
use crate::{byhand, orphans};

/// So often it is tried again if another transaction was in the way.
const ATTEMPTS: u32 = 5;

/// Nobody takes the name meanwhile, and whoever has taken it before is not disturbed.
const HOLD: &str = "SELECT 1 FROM liner_node WHERE name = $1 AND token = $2 FOR UPDATE";

/// Keys of all messages, of which there may be many for one key. It is as fast as there are few keys.
pub(crate) const KEYS: &str = "WITH RECURSIVE keys(k) AS (
    (SELECT connection_key FROM conn_messages ORDER BY connection_key LIMIT 1)
    UNION ALL
    SELECT (SELECT connection_key FROM conn_messages WHERE connection_key > k ORDER BY connection_key LIMIT 1)
    FROM keys WHERE k IS NOT NULL)";

const FORGET_QUEUES: &str = "WITH numbers AS (DELETE FROM conn_mess_number WHERE connection_key = ANY($1)),
  senders AS (DELETE FROM conn_sender WHERE connection_key = ANY($1))
DELETE FROM conn_key_map WHERE connection_key = ANY($1)";

const FORGET_CURSORS: &str = "DELETE FROM inbound_cursor WHERE owner = $1 AND peer = ANY($2)";

const TOPICS: &str = "SELECT t.composite, t.number, t.topic, t.crc FROM stream_topic t
  JOIN conn_key_map q USING(composite) WHERE q.owner = $1";

/// Queues some of whose topics are gone, although their messages may name them by number.
const WITHOUT_TOPICS: &str = "SELECT q.connection_key FROM conn_key_map q WHERE q.owner = $1
  AND topics <> (SELECT count(*) FROM stream_topic t WHERE t.composite = q.composite)
  AND EXISTS(SELECT 1 FROM conn_messages m WHERE m.connection_key = q.connection_key AND m.epoch = q.stored_epoch)";

const NUMBER_TOPICS: &str = "given AS (
  INSERT INTO seq AS s(id, v) SELECT 1, most + n FROM most
  ON CONFLICT(id) DO UPDATE SET v = (SELECT greatest(s.v, most) + n FROM most) RETURNING v)
INSERT INTO topic_key(topic, k) SELECT topic, v - n + row_number() OVER (ORDER BY topic) FROM given, most, new
ON CONFLICT(topic) DO NOTHING";

const LISTENERS: &str = "INSERT INTO sender_listener(sender_key, addr, listener_topic, client_name)
SELECT DISTINCT ON (addr) $1, addr, topic, client_name FROM topic_addr WHERE client_name <> $2
ORDER BY addr, topic DESC ON CONFLICT DO NOTHING";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    pub(crate) rows: Rows,
    pub(crate) cursors: Cursors,
    /// Queues and cursors that did not pass their check.
    pub(crate) damaged: u64,
    /// Messages that were put among the dead letters.
    pub(crate) orphaned: u64,
    /// Messages by hand that are queued now.
    pub(crate) inserted: u64,
    /// Those that wait for the next start.
    pub(crate) waiting: u64,
}

/// A node that is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) link: &'a Link,
    /// What begins a transaction.
    pub(crate) begin: &'a str,
    pub(crate) mark: Mark<'a>,
}

impl Opening<'_> {
    /// Sets right what is wrong, and queues what was written by hand.
    pub(crate) fn mend(self) -> Result<Mended, Failure> {
        let mut mended = self.again(Self::set_right)?;
        match self.again(|opening| byhand::take(opening, &mut mended.rows, &mended.cursors)) {
            Ok(taken) => {
                (mended.inserted, mended.waiting) = (taken.queued, taken.waiting);
                mended.orphaned += taken.orphaned;
            }
            // It waits: the node is started without it.
            Err(failure) if failure.fault() == StoreFault::Full => mended.waiting = byhand::count(self)?,
            Err(failure) => return Err(failure),
        }
        Ok(mended)
    }

    /// Does something in one transaction, and once more if others were in the way.
    fn again<T>(self, mut act: impl FnMut(Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.within(&mut act) {
                Err(failure) if failure.is_contention() && attempts < ATTEMPTS => {}
                outcome => return outcome,
            }
        }
    }

    fn within<T>(self, act: &mut impl FnMut(Self) -> Result<T, Failure>) -> Result<T, Failure> {
        self.link.batch(self.begin)?;
        let done = self.hold().and_then(|()| act(self));
        let done = done.and_then(|done| self.link.batch("COMMIT").map(|()| done));
        if done.is_err() {
            // If it is not heard the connection is gone, and the transaction with it.
            let _ = self.link.batch("ROLLBACK");
        }
        done
    }

    fn hold(self) -> Result<(), Failure> {
        let Mark { name, token, .. } = self.mark;
        let held = self.link.query(HOLD, &[of(&name, Type::TEXT), of(&token, Type::INT8)])?;
        if held.is_empty() { Err(StoreFault::Superseded.into()) } else { Ok(()) }
    }

    /// Deletes the node's rows that do not pass their check, and adds those that follow from others. Puts its messages without a
    /// queue among the dead letters, and aside what of them does not pass its check.
    ///
    /// To the other side a queue without a row is one with a new epoch, and a peer without a cursor one that nobody has heard
    /// of: messages may come twice, and none goes by unseen.
    fn set_right(self) -> Result<Mended, Failure> {
        let Mark { owner, name, .. } = self.mark;
        let name = name.to_owned();
        let of_name = || of(&name, Type::TEXT);
        let (_, mut queues) = read_queues(self.link, owner, &name)?;
        queues.extend(self.without_sound_topics()?);
        if !queues.is_empty() {
            self.link.query(FORGET_QUEUES, &[of(&queues, Type::INT4_ARRAY)])?;
        }
        let (cursors, peers) = read_cursors(self.link, owner, &name)?;
        if !peers.is_empty() {
            self.link.query(FORGET_CURSORS, &[of_name(), of(&peers, Type::TEXT_ARRAY)])?;
        }
        let (rows, _) = read_queues(self.link, owner, &name)?;
        queues.sort_unstable();
        queues.dedup();
        let damaged = (queues.len() + peers.len()) as u64;
        let orphaned = orphans::bury(self)?;
        self.complete()?;
        Ok(Mended { rows, cursors, damaged, orphaned, ..Mended::default() })
    }

    /// The keys of queues whose topics are damaged, or gone.
    fn without_sound_topics(self) -> Result<Vec<i32>, Failure> {
        let name = self.mark.name;
        let of_name = [of(&name, Type::TEXT)];
        let mut composites = Vec::new();
        for row in self.link.query(TOPICS, &of_name)? {
            let (composite, text): (&str, &str) = (row.try_get(0)?, row.try_get(2)?);
            let (number, crc): (i64, i64) = (row.try_get(1)?, row.try_get(3)?);
            let check = |number| checksums::topic(&from_column(composite), number, &from_column(text));
            if u32::try_from(number).ok().map(check) != Some(crc) {
                composites.push(composite.to_owned());
            }
        }
        let mut keys = Vec::new();
        if !composites.is_empty() {
            let sql = "SELECT connection_key FROM conn_key_map WHERE composite = ANY($1)";
            keys = self.link.query(sql, &[of(&composites, Type::TEXT_ARRAY)])?;
        }
        keys.extend(self.link.query(WITHOUT_TOPICS, &of_name)?);
        keys.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Adds what follows from rows of the directory that were written by hand, or by another program.
    fn complete(self) -> Result<(), Failure> {
        let new = "SELECT DISTINCT topic FROM topic_addr WHERE topic NOT IN (SELECT topic FROM topic_key)";
        if !self.link.query(&format!("{new} LIMIT 1"), &[])?.is_empty() {
            // They get as many numbers in a row.
            let sql = format!(
                "WITH new AS ({new}), most AS (SELECT most, (SELECT count(*)::int FROM new) AS n FROM ({MOST}) AS most), {NUMBER_TOPICS}"
            );
            self.link.query(&sql, &[])?;
        }
        let sender = to_column(&names::prefix(self.mark.owner)).into_owned();
        self.link.query(LISTENERS, &[of(&sender, Type::TEXT), of(&self.mark.name, Type::TEXT)])?;
        Ok(())
    }

    /// Writes what a buffer holds into the open transaction.
    pub(crate) fn flush(self, buffer: &Buffer, rows: &mut Rows, cursors: &Cursors) -> Result<(), Failure> {
        let frame = Frame { begin: None, commits: false };
        flush(self.link, self.mark, frame, buffer, rows, cursors).map_err(|fallen| fallen.failure)
    }

    /// Deletes messages by their ids.
    pub(crate) fn delete(self, ids: &[i64]) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM conn_messages WHERE id = ANY($1)";
        self.link.query(sql, &[of(&ids, Type::INT8_ARRAY)]).map(drop)
    }

    /// The topics of a stream, by their numbers.
    pub(crate) fn topics(self, composite: &str) -> Result<HashMap<u32, String>, Failure> {
        let column = to_column(composite);
        let sql = "SELECT number, topic FROM stream_topic WHERE composite = $1";
        let rows = self.link.query(sql, &[of(&column, Type::TEXT)])?;
        let mut topics = HashMap::new();
        for row in rows {
            if let Ok(number) = u32::try_from(row.try_get::<_, i64>(0)?) {
                topics.insert(number, from_column(row.try_get(1)?).into_owned());
            }
        }
        Ok(topics)
    }
}

/// Puts a message that nobody can send among the dead letters.
pub(crate) fn bury_in(buffer: &mut Buffer, whose: [&str; 3], record: &[u8]) {
    buffer.letters.push(crate::buffer::Letter::new(whose, DeadReason::Orphaned, record));
}
