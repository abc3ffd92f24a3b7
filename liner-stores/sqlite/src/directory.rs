//! Requests that change nothing of a queue: the node's row, cursors, the directory, dead letters.

use std::collections::BTreeSet;

use liner_proto::effect::DeadReason;
use liner_proto::id::Epoch;
use liner_proto::router::DirectoryRows;
use liner_store::checksums;
use liner_store::numbers::column;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::SqliteStore;
use crate::names;
use crate::queues::next_key;
use crate::turn::Failure;

impl SqliteStore {
    pub(crate) fn name_inbox(&self, epoch: Epoch) -> Result<(), Failure> {
        self.conn
            .prepare_cached("UPDATE node SET inbox = ?2 WHERE name = ?1")?
            .execute(params![self.owner, epoch.0.cast_signed()])?;
        Ok(())
    }

    pub(crate) fn advance(&self, peer: &str, epoch: Epoch, through: u64) -> Result<(), Failure> {
        let mut select = self.conn.prepare_cached(
            "SELECT through FROM inbound_cursor WHERE owner = ?1 AND peer = ?2 AND epoch = ?3",
        )?;
        let number = epoch.0.cast_signed();
        let known: Option<i64> =
            select.query_row(params![self.owner, peer, number], |row| row.get(0)).optional()?;
        let through = column(through)?.max(known.unwrap_or(0));
        let crc = checksums::cursor(&self.owner, peer, number, through);
        self.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO inbound_cursor(owner, peer, epoch, through, crc) VALUES(?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![self.owner, peer, number, through, crc])?;
        Ok(())
    }

    pub(crate) fn subscribe(&self, topic: &str, address: &str, name: &str) -> Result<(), Failure> {
        self.conn
            .prepare_cached(
                "INSERT INTO topic_addr(topic, addr, client_name) VALUES(?1, ?2, ?3)
                 ON CONFLICT(topic, addr) DO UPDATE SET client_name = excluded.client_name",
            )?
            .execute([topic, address, name])?;
        if name == self.owner {
            // It is no listener of its own.
            return Ok(number_topic(&self.conn, topic)?);
        }
        self.conn
            .prepare_cached(
                "INSERT INTO sender_listener(sender_key, addr, listener_topic, client_name) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(sender_key, addr) DO UPDATE
                 SET listener_topic = excluded.listener_topic, client_name = excluded.client_name",
            )?
            .execute([&*names::prefix(&self.owner), address, topic, name])?;
        Ok(number_topic(&self.conn, topic)?)
    }

    pub(crate) fn unsubscribe(&self, topic: &str, address: &str, name: &str) -> Result<(), Failure> {
        self.conn
            .prepare_cached("DELETE FROM topic_addr WHERE topic = ?1 AND addr = ?2 AND client_name = ?3")?
            .execute([topic, address, name])?;
        let sender = names::prefix(&self.owner);
        self.conn
            .prepare_cached(
                "DELETE FROM sender_listener
                 WHERE sender_key = ?1 AND addr = ?2 AND listener_topic = ?3 AND client_name = ?4",
            )?
            .execute([&*sender, address, topic, name])?;
        // The node may take other topics at the same address.
        self.conn
            .prepare_cached(
                "INSERT OR IGNORE INTO sender_listener(sender_key, addr, listener_topic, client_name)
                 SELECT ?1, addr, topic, client_name FROM topic_addr WHERE addr = ?2 AND client_name <> ?3
                 ORDER BY topic DESC LIMIT 1",
            )?
            .execute([&*sender, address, &self.owner])?;
        Ok(())
    }

    /// The rows, if another connection has committed anything since this was asked last, or a node has come or gone.
    pub(crate) fn read_directory(&mut self) -> Result<Option<DirectoryRows>, Failure> {
        let version = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let is_changed = self.directory_version != Some(version);
        if !self.leases.look_again(&self.path) && !is_changed {
            return Ok(None);
        }
        let mut rows = DirectoryRows::default();
        let mut names = BTreeSet::new();
        each_row(&self.conn, |topic, address, name| {
            rows.push(topic, address, name);
            if name != self.owner && !names.contains(name) {
                names.insert(name.to_owned());
            }
        })?;
        self.leases.look_at(&self.path, names);
        self.leases.each(|name, standing| rows.set_standing(name, standing));
        self.directory_version = Some(version);
        Ok(Some(rows))
    }

    pub(crate) fn put_aside(
        &self,
        peer: &str,
        topic: &str,
        reason: DeadReason,
        record: &[u8],
    ) -> Result<(), Failure> {
        Ok(insert_dead_letter(&self.conn, [&self.owner, peer, topic], reason, record)?)
    }
}

/// Calls `each` with topic, address and name of every row of the directory. Whoever wrote a row that is no text must not hide the others
/// from all who use the file.
pub(crate) fn each_row(conn: &Connection, mut each: impl FnMut(&str, &str, &str)) -> rusqlite::Result<()> {
    let mut select = conn.prepare_cached("SELECT topic, addr, client_name FROM topic_addr")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let text = |index| row.get_ref(index).ok()?.as_str().ok();
        if let (Some(topic), Some(address), Some(name)) = (text(0), text(1), text(2)) {
            each(topic, address, name);
        }
    }
    Ok(())
}

/// Gives a topic its number for ever, if it has none.
fn number_topic(conn: &Connection, topic: &str) -> rusqlite::Result<()> {
    let mut select = conn.prepare_cached("SELECT EXISTS(SELECT 1 FROM topic_key WHERE topic = ?1)")?;
    if select.query_row([topic], |row| row.get(0))? {
        return Ok(());
    }
    let key = next_key(conn)?;
    conn.prepare_cached("INSERT OR IGNORE INTO topic_key(topic, k) VALUES(?1, ?2)")?
        .execute(params![topic, key])?;
    Ok(())
}

/// The same for topics that have none. To look for the next free number takes as long as there are topics: that is done once.
fn number_topics(conn: &Connection, topics: &[String]) -> rusqlite::Result<()> {
    let Some((first, others)) = topics.split_first() else { return Ok(()) };
    number_topic(conn, first)?;
    let mut insert = conn.prepare_cached(
        "INSERT OR IGNORE INTO topic_key(topic, k) SELECT ?1, v + ?2 FROM seq WHERE id = 1",
    )?;
    for (topic, number) in others.iter().zip(1_i64..) {
        insert.execute(params![topic, number])?;
    }
    conn.prepare_cached("UPDATE seq SET v = v + ?1 WHERE id = 1")?
        .execute([others.len().cast_signed() as i64])?;
    Ok(())
}

/// Adds what follows from rows of the directory that were written by hand, or by an older release.
pub(crate) fn complete(conn: &Connection, owner: &str) -> rusqlite::Result<()> {
    let topics = "SELECT DISTINCT topic FROM topic_addr WHERE topic NOT IN (SELECT topic FROM topic_key)";
    let mut select = conn.prepare(topics)?;
    let topics = select.query_map([], |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned)))?;
    // What is no text is passed over, as it is when the directory is told.
    let topics: Vec<_> = topics.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect();
    number_topics(conn, &topics)?;
    conn.execute(
        "INSERT OR IGNORE INTO sender_listener(sender_key, addr, listener_topic, client_name)
         SELECT ?1, addr, topic, client_name FROM topic_addr WHERE client_name <> ?2 ORDER BY topic DESC",
        [&*names::prefix(owner), owner],
    )?;
    Ok(())
}

/// Adds a dead letter of `[owner, peer, topic]`, with a check over all of it.
pub(crate) fn insert_dead_letter(
    conn: &Connection,
    whose: [&str; 3],
    reason: DeadReason,
    record: &[u8],
) -> rusqlite::Result<()> {
    let [owner, peer, topic] = whose;
    let crc = checksums::dead_letter(whose, reason as i64, record);
    conn.prepare_cached(
        "INSERT INTO dead_letters(owner, peer, topic, reason, crc, record) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![owner, peer, topic, reason as u8, crc, record])?;
    Ok(())
}
