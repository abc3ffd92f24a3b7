//! What a server is, and whether it will do.

use std::collections::HashMap;

use liner_proto::id::Class;

use crate::client::{Client, Failure};
use crate::error::OpenError;
use crate::keys;
use crate::resp::{Reply, Request};
use crate::script;
use crate::url::Url;
use crate::words::Words;

/// Settings that decide what a commit survives.
const SETTINGS: [&[u8]; 6] =
    [b"CONFIG", b"GET", b"appendonly", b"appendfsync", b"maxmemory", b"maxmemory-policy"];

/// Which run of which server this is, and what its commits survive.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) identity: Identity,
    pub(crate) class: Class,
}

/// Tells one run of a server from another, and one history of its data from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) run_id: String,
    pub(crate) replid: String,
}

impl Identity {
    /// The identity of the server at the other end.
    pub(crate) fn of(client: &mut Client) -> Result<Self, Failure> {
        Ok(Info::of(client)?.identity())
    }

    /// The command that keeps it.
    pub(crate) fn keep(&self, words: &mut Words, node: &str) {
        let (run_id, replid) = (self.run_id.as_bytes(), self.replid.as_bytes());
        words.command(&[b"HSET", node.as_bytes(), b"run_id", run_id, b"replid", replid]);
    }
}

/// What the server says of itself.
#[derive(Debug, Default)]
struct Info(HashMap<String, String>);

impl Info {
    fn of(client: &mut Client) -> Result<Self, Failure> {
        let mut request = Request::default();
        request.command(&[b"INFO", b"server"]).command(&[b"INFO", b"replication"]);
        let replies = client.all(&request)?;
        let mut info = Self::default();
        replies.iter().filter_map(Reply::text).for_each(|text| info.add(text));
        Ok(info)
    }

    fn add(&mut self, text: &str) {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        self.0.extend(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    }

    fn text(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn identity(&self) -> Identity {
        Identity { run_id: self.text("run_id"), replid: self.text("master_replid") }
    }

    /// Whether it has what is needed: functions and flags of scripts came with 7.0.
    fn is_new_enough(&self) -> bool {
        let version = self.text("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major >= 7)
    }

    /// Whether it copies another server. The word is the server's.
    fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }
}

/// What the server is, and whether it will do.
pub(crate) fn examine(client: &mut Client, url: &Url) -> Result<Server, OpenError> {
    let wrong = |failure| OpenError::of(url, failure);
    let url_of = || Box::new(url.clone());
    let info = Info::of(client).map_err(wrong)?;
    if !info.is_new_enough() {
        return Err(OpenError::OldServer { url: url_of(), version: info.text("redis_version") });
    }
    if info.is_replica() {
        return Err(OpenError::Replica { url: url_of() });
    }
    let reply = client.command(&SETTINGS).map_err(wrong)?;
    let settings: HashMap<&[u8], &[u8]> = reply.pairs().collect();
    let is = |name: &str, value: &str| settings.get(name.as_bytes()) == Some(&value.as_bytes());
    if !is("maxmemory", "0") && !is("maxmemory-policy", "noeviction") {
        let policy = settings.get(&b"maxmemory-policy"[..]).copied().unwrap_or_default();
        let policy = String::from_utf8_lossy(policy).into_owned();
        return Err(OpenError::Evicting { url: url_of(), policy });
    }
    let class =
        if is("appendonly", "yes") && is("appendfsync", "always") { Class::Power } else { Class::Ram };
    Ok(Server { identity: info.identity(), class })
}

/// Each command that a script may run, on the key `K`, which is not there before and after. What connecting, examining and opening run is
/// tried by that.
const TRIED: [&str; 39] = [
    "DEL K",
    "SET K 0",
    "GET K",
    "INCR K",
    "TYPE K",
    // Every kind of key that there is.
    "EXISTS lnr_topics lnr_lease lnr_connections lnr_unique_key lnr_directory lnr_quarantine lnr_dead_id lnr_topic::addr \
     lnr_connection:0:messages lnr_sender::listener",
    "DEL K",
    "HSET K f 0",
    "HSETNX K f 0",
    "HGET K f",
    "HMGET K f",
    "HGETALL K",
    "HEXISTS K f",
    "HINCRBY K f 1",
    "HDEL K f",
    "DEL K",
    "RPUSH K 0",
    "LINDEX K 0",
    "LLEN K",
    "LRANGE K 0 -1",
    "LSET K 0 1",
    "LREM K 0 2",
    "LMOVE K K LEFT RIGHT",
    "RENAME K K",
    "LTRIM K 1 0",
    "DEL K",
    "SADD K 0",
    "SMEMBERS K",
    "DEL K",
    "XADD K 1-1 f 0",
    "XLEN K",
    "XRANGE K - +",
    "XREVRANGE K + -",
    "XTRIM K MINID 0",
    "XDEL K 1-1",
    "DEL K",
    "SCAN 0",
    "TIME",
    "PUBLISH lnr_directory 0",
];

/// Makes sure that the user may do all that the store will ever do: what is not permitted must not be found out in the middle of a turn.
pub(crate) fn probe(client: &mut Client, url: &Url, owner: &str) -> Result<(), OpenError> {
    let wrong = |failure| OpenError::of(url, failure);
    let key = keys::of_node(owner, "probe");
    let denied = denied(client, &key, &TRIED).map_err(wrong)?;
    if !denied.is_empty() {
        return Err(OpenError::Permission {
            url: Box::new(url.clone()),
            words: format!("it may not do {}", denied.join(", ")),
            acl: crate::ACL,
        });
    }
    // A turn of a node that is not there comes to nothing.
    let mut turn = Words::default();
    (0..4).for_each(|_| turn.number(0));
    client.turn(&key, false, turn.count, &turn.bytes).map_err(wrong)?;
    // The connection for notices has nobody whom it could tell.
    let channel = keys::DIRECTORY.as_bytes();
    let mut request = Request::default();
    request.command(&[b"SUBSCRIBE", channel]).command(&[b"UNSUBSCRIBE", channel]);
    client.all(&request).map(drop).map_err(wrong)
}

/// Of commands on the key `K`, which is not there before and after, those that the user may not run.
pub(crate) fn denied(client: &mut Client, key: &str, commands: &[&str]) -> Result<Vec<String>, Failure> {
    let mut tried = Words::default();
    for command in commands {
        let words = command.split_ascii_whitespace().map(|word| if word == "K" { key } else { word });
        tried.command(&words.map(str::as_bytes).collect::<Vec<_>>());
    }
    let reply = client.eval_words(script::PROBE, key, &tried)?;
    Ok(reply.list().unwrap_or_default().iter().filter_map(Reply::text).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_version_is_read() {
        for (version, will_do) in [
            ("7.0.0", true),
            ("7.2.4", true),
            ("8.6.1", true),
            ("10.0.0", true),
            ("6.2.14", false),
            ("", false),
        ] {
            let mut info = Info::default();
            info.add(&format!("# Server\r\nredis_version:{version}\r\nrun_id:12\r\n"));
            assert_eq!(info.is_new_enough(), will_do, "{version}");
            assert_eq!(info.identity().run_id, "12");
        }
        assert!(!Info::default().is_new_enough());
    }

    #[test]
    fn all_that_is_asked_for_is_tried() {
        let opening = ["info", "eval", "evalsha", "subscribe", "unsubscribe"];
        let tried: BTreeSet<String> =
            TRIED.iter().filter_map(|it| it.split(' ').next()).map(str::to_lowercase).collect();
        let asked: BTreeSet<String> = crate::ACL
            .split_whitespace()
            .filter_map(|rule| rule.strip_prefix('+'))
            .filter(|name| !name.contains(['@', '|']) && !opening.contains(name))
            .map(str::to_owned)
            .collect();
        assert_eq!(tried, asked);
    }
}
