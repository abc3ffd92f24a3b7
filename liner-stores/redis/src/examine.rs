//! What a server is, and whether it will do.

use std::collections::HashMap;

use liner_proto::id::Class;
use liner_store::look::About;

use crate::client::{Client, Failure};
use crate::error::OpenError;
use crate::keys;
use crate::open::FORMAT;
use crate::resp::{Reply, Request};
use crate::script;
use crate::url::Url;
use crate::words::Words;

/// Settings that decide what a commit survives.
const SETTINGS: [&[u8]; 7] = [
    b"CONFIG",
    b"GET",
    b"appendonly",
    b"appendfsync",
    b"no-appendfsync-on-rewrite",
    b"maxmemory",
    b"maxmemory-policy",
];

/// With which values of them a commit survives the loss of power.
const POWER: [(&str, &str); 3] =
    [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];

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
        let mut info = Self::section(client, "server")?;
        info.0.extend(Self::section(client, "replication")?.0);
        Ok(info)
    }

    fn section(client: &mut Client, name: &str) -> Result<Self, Failure> {
        let reply = client.command(&[b"INFO", name.as_bytes()])?;
        let mut info = Self::default();
        reply.text().into_iter().for_each(|text| info.add(text));
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

    /// Its mode: `standalone`, `cluster` or `sentinel`. Valkey has another word for the field.
    fn mode(&self) -> String {
        self.0.get("redis_mode").or_else(|| self.0.get("server_mode")).cloned().unwrap_or_default()
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
    match &*info.mode() {
        "cluster" => return Err(OpenError::Cluster { url: url_of() }),
        "sentinel" => return Err(OpenError::Sentinel { url: url_of() }),
        _ => {}
    }
    let settings = Settings::of(client).map_err(wrong)?;
    if let Some(policy) = settings.evicting() {
        return Err(OpenError::Evicting { url: url_of(), policy });
    }
    Ok(Server { identity: info.identity(), class: settings.class() })
}

/// What the server is set to.
#[derive(Debug)]
struct Settings(HashMap<String, String>);

impl Settings {
    fn of(client: &mut Client) -> Result<Self, Failure> {
        let reply = client.command(&SETTINGS)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self(reply.pairs().map(|(name, value)| (text(name), text(value))).collect()))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.0.get(name).is_some_and(|is| is == value)
    }

    /// The policy by which it throws keys away when its memory is used up, if that can be.
    fn evicting(&self) -> Option<String> {
        let keeps = self.is("maxmemory", "0") || self.is("maxmemory-policy", "noeviction");
        (!keeps).then(|| self.0.get("maxmemory-policy").cloned().unwrap_or_default())
    }

    fn class(&self) -> Class {
        if POWER.iter().all(|(name, value)| self.is(name, value)) { Class::Power } else { Class::Ram }
    }
}

/// Makes sure that a server keeps the promise under which the store was opened: it may have been set to something else since. `unlogged` is kept by
/// the caller: that the server was seen without its file, which is of no use before it has been written as a whole.
pub(crate) fn recheck(client: &mut Client, class: Class, unlogged: &mut bool) -> Result<(), Failure> {
    let settings = Settings::of(client)?;
    if settings.evicting().is_some() {
        let words = "it throws keys away when its memory is used up: CONFIG SET maxmemory-policy noeviction";
        return Err(Failure::Server(words.to_owned()));
    }
    if class != Class::Power {
        return Ok(());
    }
    *unlogged |= !settings.is("appendonly", "yes");
    if let Some((name, value)) = POWER.iter().find(|(name, value)| !settings.is(name, value)) {
        return Err(Failure::Server(format!(
            "a commit survives less than when the node started: CONFIG SET {name} {value}, or start the node anew"
        )));
    }
    if *unlogged {
        let persistence = Info::section(client, "persistence")?;
        let is_written = |name| persistence.text(name) == "0";
        if !is_written("aof_rewrite_in_progress") || !is_written("aof_rewrite_scheduled") {
            return Err(Failure::Server("it still writes the file that commits are appended to".to_owned()));
        }
        *unlogged = false;
    }
    Ok(())
}

/// The server in words, for somebody who looks at it: its release, what commits survive, and what is not as it should be.
pub(crate) fn about(client: &mut Client) -> Result<About, Failure> {
    let info = Info::of(client)?;
    let settings = Settings::of(client)?;
    let aside = client.command(&[b"LLEN", keys::QUARANTINE.as_bytes()])?.number().unwrap_or(0);
    let mut advice = Vec::new();
    if !info.is_new_enough() {
        advice.push("no node starts on a Redis before 7.0: use a newer one".to_owned());
    }
    if info.is_replica() {
        advice.push("it is a replica, and no node starts on one: name the server that it copies".to_owned());
    }
    let mode = info.mode();
    if matches!(&*mode, "cluster" | "sentinel") {
        advice.push(format!(
            "it is in the mode {mode}, and no node starts on one: use a server that stands alone"
        ));
    }
    if let Some(policy) = settings.evicting() {
        advice.push(format!(
            "it throws keys away when its memory is used up (maxmemory-policy {policy}), and no node starts on it: CONFIG SET maxmemory-policy noeviction"
        ));
    }
    if aside > 0 {
        let elements = if aside == 1 { "an element".to_owned() } else { format!("{aside} elements") };
        advice.push(format!(
            "{elements} in the list {0} did not pass a check: look at the bytes, then DEL {0}",
            keys::QUARANTINE
        ));
    }
    let product = format!("Redis {}", info.text("redis_version"));
    Ok(About { product, schema: Some(FORMAT.cast_signed()), class: Some(settings.class()), advice })
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
    let (unknown, denied): (Vec<String>, Vec<String>) =
        denied(client, &key, &TRIED).map_err(wrong)?.into_iter().partition(|name| name.starts_with('?'));
    if !unknown.is_empty() {
        let words = format!("it has no {} (rename-command)", unknown.join(", ").replace('?', ""));
        return Err(OpenError::Server { url: Box::new(url.clone()), words });
    }
    if !denied.is_empty() {
        return Err(OpenError::Permission {
            url: Box::new(url.clone()),
            words: format!("it may not do {}", denied.join(", ")),
            acl: crate::ACL,
        });
    }
    // Long turns are transactions.
    let mut request = Request::default();
    request.command(&[b"MULTI"]).command(&[b"EXEC"]);
    client.all(&request).map_err(wrong)?;
    // A turn of a node that is not there comes to nothing.
    let mut turn = Words::default();
    (0..5).for_each(|_| turn.number(0));
    client.turn(&key, false, &turn).map_err(wrong)?;
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
        let opening = ["info", "eval", "evalsha", "multi", "exec", "subscribe", "unsubscribe"];
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
