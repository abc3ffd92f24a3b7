//! What a node is told when it opens the store.

use liner_proto::effect::{Recovered, StoreFault};
use liner_proto::id::Epoch;
use rusqlite::OptionalExtension as _;

use crate::SqliteStore;
use crate::directory::each_row;
use crate::names;
use crate::reading::count;
use crate::turn::Failure;

impl SqliteStore {
    /// Tells everything, in the order of the contract.
    pub(crate) fn tell(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        self.refresh()?;
        self.tell_node(visit)?;
        self.tell_queues(visit)?;
        self.tell_cursors(visit)?;
        self.tell_directory(visit)
    }

    fn tell_node(&self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        let mut select = self.conn.prepare_cached("SELECT inbox FROM node WHERE name = ?1")?;
        let inbox = select.query_row([&self.owner], |row| row.get::<_, Option<i64>>(0)).optional()?.flatten();
        let mut select = self
            .conn
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM conn_key_map WHERE owner = ?1 AND suspect <> 0)")?;
        let suspect: bool = select.query_row([&self.owner], |row| row.get(0))?;
        if let Some(inbox) = inbox {
            let regressed = self.regressed || suspect;
            let mut select =
                self.conn.prepare_cached("SELECT COUNT(*) FROM dead_letters WHERE owner = ?1")?;
            let dead_letters: i64 = select.query_row([&self.owner], |row| row.get(0))?;
            let dead_letters = dead_letters.unsigned_abs();
            visit(Recovered::Node { inbox: Epoch(inbox.cast_unsigned()), regressed, dead_letters });
        }
        Ok(())
    }

    fn tell_queues(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        let mut select = self
            .conn
            .prepare_cached("SELECT kind, name FROM conn_key_map WHERE owner = ?1 ORDER BY kind, name")?;
        let mut rows = select.query([&self.owner])?;
        while let Some(row) = rows.next()? {
            let (kind, name): (u8, String) = (row.get(0)?, row.get(1)?);
            let queue = names::queue(kind, &name).ok_or(StoreFault::Corrupt)?;
            let Some(row) = self.rows.find(&self.conn, &self.owner, queue)? else { continue };
            let (messages, bytes) = count(&self.conn, row, self.cleared)?;
            visit(Recovered::Queue(row.numbers.head.recovered(queue, messages, bytes)));
            let mut topics =
                self.conn.prepare_cached("SELECT number, topic FROM stream_topic WHERE composite = ?1")?;
            let mut topics = topics.query([&row.composite])?;
            while let Some(topic) = topics.next()? {
                let (number, text) = (topic.get(0)?, topic.get_ref(1)?);
                visit(Recovered::Topic {
                    queue,
                    number,
                    text: text.as_str().map_err(|_| StoreFault::Corrupt)?,
                });
            }
        }
        Ok(())
    }

    fn tell_cursors(&self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        let mut select =
            self.conn.prepare_cached("SELECT peer, epoch, through FROM inbound_cursor WHERE owner = ?1")?;
        let mut rows = select.query([&self.owner])?;
        while let Some(row) = rows.next()? {
            let (peer, epoch, through) = (row.get_ref(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
            visit(Recovered::Cursor {
                peer: peer.as_str().map_err(|_| StoreFault::Corrupt)?,
                epoch: Epoch(epoch.cast_unsigned()),
                through: u64::try_from(through).map_err(|_| StoreFault::Corrupt)?,
            });
        }
        Ok(())
    }

    fn tell_directory(&self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        Ok(each_row(&self.conn, |topic, address, name| {
            visit(Recovered::Subscription { topic, address, name });
        })?)
    }
}
