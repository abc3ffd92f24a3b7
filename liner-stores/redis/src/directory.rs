//! The directory that all nodes of a server share, and their leases.

use std::collections::{BTreeMap, BTreeSet};

use liner_proto::router::{DirectoryRows, Standing};
use liner_proto::store::LEASE;

use crate::RedisStore;
use crate::client::{Client, Failure};
use crate::examine::recheck;
use crate::keys;
use crate::resp::{Reply, Request};
use crate::script;

/// Keys that the server looks at in one step of the search for rows that were written by hand.
const STEP: &[u8] = b"1000";
/// How often such rows are read, in milliseconds.
const PAUSE: u64 = 1000;

/// Topic, address and name.
pub(crate) type Row = (String, String, String);

/// What is known of the directory.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// The version that the rows are of.
    version: Option<Vec<u8>>,
    /// Keys of topics that have, or had, rows.
    topics: BTreeSet<String>,
    /// How far the search for keys is.
    cursor: Vec<u8>,
    /// When the rows were read, in the server's milliseconds.
    read: u64,
    rows: Vec<Row>,
    /// What was told last.
    told: Option<DirectoryRows>,
}

impl RedisStore {
    /// The rows and who of them runs, if any of that has changed since this was asked last.
    pub(crate) fn read_directory(&mut self) -> Result<Option<DirectoryRows>, Failure> {
        self.connected()?;
        let Self { client: Some(client), catalog, owner, class, unlogged, .. } = self else {
            return Ok(None);
        };
        let mut request = Request::default();
        request
            .command(&[b"HGET", keys::DIRECTORY.as_bytes(), b"version"])
            .command(&[b"TIME"])
            .command(&[b"HGETALL", keys::LEASE.as_bytes()]);
        let cursor = if catalog.cursor.is_empty() { b"0" } else { &*catalog.cursor };
        request.command(&scan(cursor));
        let replies = client.all(&request)?;
        let [version, time, leases, found] = &*replies else { return Err(Failure::nonsense()) };
        let now = milliseconds(time).ok_or_else(Failure::nonsense)?;
        let mut until: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, value) in leases.pairs() {
            if let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) {
                until.insert(name, value.parse().unwrap_or(0));
            }
        }
        if renew(client, owner, &mut until, now)? {
            // As often is enough to see that the server was set to something else.
            recheck(client, *class, unlogged)?;
        }
        let is_round = catalog.take_found(found).ok_or_else(Failure::nonsense)?;
        let version = version.bytes().map(<[u8]>::to_vec);
        let is_new = catalog.told.is_none() || catalog.version != version;
        if is_new || is_round && now.saturating_sub(catalog.read) >= PAUSE {
            catalog.read_rows(client)?;
            (catalog.version, catalog.read) = (version, now);
        }
        let mut rows = DirectoryRows::default();
        for (topic, address, name) in &catalog.rows {
            rows.push(topic, address, name);
            if let Some(&until) = until.get(&**name) {
                rows.set_standing(name, if runs(until, now) { Standing::Up } else { Standing::Away });
            }
        }
        let is_same = catalog.told.as_ref() == Some(&rows);
        Ok((!is_same).then(|| catalog.told.insert(rows).clone()))
    }

    /// All rows, also those that were written by hand.
    pub(crate) fn rows_of_all_topics(&mut self) -> Result<Vec<Row>, Failure> {
        self.connected()?;
        let Self { client: Some(client), catalog, .. } = self else { return Ok(Vec::new()) };
        catalog.read_all(client)
    }

    /// Lets others know that the node has gone on purpose.
    pub(crate) fn end_lease(&mut self) -> Result<(), Failure> {
        let Some(client) = &mut self.client else { return Ok(()) };
        client.eval(script::LEASE, keys::LEASE, &[self.owner.as_bytes(), b"0"]).map(drop)
    }
}

impl Catalog {
    /// Takes what a step of the search has found. Says whether it was the last step.
    fn take_found(&mut self, found: &Reply) -> Option<bool> {
        let [cursor, found] = found.list()? else { return None };
        let texts = found.list()?.iter().filter_map(Reply::text);
        self.topics.extend(texts.filter(|key| keys::topic_of(key).is_some()).map(str::to_owned));
        self.cursor = cursor.bytes()?.to_vec();
        Some(self.cursor == b"0")
    }

    /// All rows, also those that were written by hand.
    pub(crate) fn read_all(&mut self, client: &mut Client) -> Result<Vec<Row>, Failure> {
        self.cursor = b"0".to_vec();
        loop {
            let found = client.command(&scan(&self.cursor))?;
            if self.take_found(&found).ok_or_else(Failure::nonsense)? {
                break;
            }
        }
        self.read_rows(client)?;
        Ok(self.rows.clone())
    }

    fn read_rows(&mut self, client: &mut Client) -> Result<(), Failure> {
        let reply = client.command(&[b"SMEMBERS", keys::TOPICS.as_bytes()])?;
        let escaped = reply.list().unwrap_or_default().iter().filter_map(Reply::text);
        self.topics.extend(escaped.map(|escaped| format!("lnr_topic:{escaped}:addr")));
        let mut request = Request::default();
        for key in &self.topics {
            request.command(&[b"HGETALL", key.as_bytes()]);
        }
        self.rows.clear();
        // A key of another kind must not hide the others.
        for (key, reply) in self.topics.iter().zip(client.pipeline(&request)?) {
            let Some(topic) = keys::topic_of(key) else { continue };
            for (address, name) in reply.pairs() {
                // What is no text is passed over.
                if let (Ok(address), Ok(name)) = (str::from_utf8(address), str::from_utf8(name)) {
                    self.rows.push((topic.clone(), address.to_owned(), name.to_owned()));
                }
            }
        }
        Ok(())
    }
}

fn scan(cursor: &[u8]) -> [&[u8]; 8] {
    [b"SCAN", cursor, b"MATCH", b"lnr_topic:*:addr", b"COUNT", STEP, b"TYPE", b"hash"]
}

/// Whether a lease is not over. One that is longer than leases are was made before the server's clock was turned back: whoever has it and
/// runs makes another.
pub(crate) const fn runs(until: u64, now: u64) -> bool {
    until > now && until - now <= LEASE.as_millis() as u64
}

/// Renews the node's lease when a third of it has passed. Says whether it did.
fn renew<'a>(
    client: &mut Client,
    owner: &'a str,
    until: &mut BTreeMap<&'a str, u64>,
    now: u64,
) -> Result<bool, Failure> {
    let lease = LEASE.as_millis() as u64;
    let is_fresh = |&until: &u64| runs(until, now) && until - now >= lease - lease / 3;
    if until.get(owner).is_some_and(is_fresh) {
        return Ok(false);
    }
    client.eval(script::LEASE, keys::LEASE, &[owner.as_bytes(), lease.to_string().as_bytes()])?;
    until.insert(owner, now + lease);
    Ok(true)
}

/// The server's time.
pub(crate) fn milliseconds(time: &Reply) -> Option<u64> {
    let [seconds, micros] = time.list()? else { return None };
    seconds.number()?.checked_mul(1000)?.checked_add(micros.number()? / 1000)
}
