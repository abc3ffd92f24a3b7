//! Opening the store of a node: what the server is, whose name it is now, and what became of its queues.

use std::collections::HashMap;

use liner_proto::id::Class;

use crate::client::{Client, Failure};
use crate::directory::Catalog;
use crate::error::OpenError;
use crate::keys;
use crate::resp::{Reply, Request};
use crate::row::{QueueRow, Rows};
use crate::scan::{Scan, mend};
use crate::script;
use crate::turn::{Applied, Turn, cursor_of};
use crate::url::Url;
use crate::words::{Words, topic_text};
use crate::{Opened, Options, RedisStore};

/// The format of a node's row.
const FORMAT: u64 = 1;

/// Settings that decide what a commit survives.
const SETTINGS: [&[u8]; 6] =
    [b"CONFIG", b"GET", b"appendonly", b"appendfsync", b"maxmemory", b"maxmemory-policy"];

/// Which run of which server this is, and what its commits survive.
#[derive(Debug)]
struct Server {
    identity: Identity,
    class: Class,
}

/// Tells one run of a server from another, and one history of its data from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    run_id: String,
    replid: String,
}

impl Identity {
    /// The identity of the server at the other end.
    pub(crate) fn of(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self::read(&info(client)?))
    }

    fn read(info: &HashMap<String, String>) -> Self {
        let of = |name: &str| info.get(name).cloned().unwrap_or_default();
        Self { run_id: of("run_id"), replid: of("master_replid") }
    }

    /// The command that keeps it.
    pub(crate) fn keep(&self, words: &mut Words, node: &str) {
        let (run_id, replid) = (self.run_id.as_bytes(), self.replid.as_bytes());
        words.command(&[b"HSET", node.as_bytes(), b"run_id", run_id, b"replid", replid]);
    }
}

fn info(client: &mut Client) -> Result<HashMap<String, String>, Failure> {
    let mut request = Request::default();
    request.command(&[b"INFO", b"server"]).command(&[b"INFO", b"replication"]);
    let replies = client.all(&request)?;
    let lines = replies.iter().filter_map(Reply::text).flat_map(str::lines);
    let fields = lines.filter_map(|line| line.split_once(':'));
    Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

impl RedisStore {
    /// Opens the store of the node `options.name` in the server at `url`. Whoever has opened it under this name before can do nothing more with
    /// it.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(url: &str, options: &Options) -> Result<Self, OpenError> {
        let url: Url = url.parse()?;
        let wrong = |failure| OpenError::of(&url, failure);
        let mut client = Client::connect(&url).map_err(wrong)?;
        let server = examine(&mut client, &url)?;
        let node = keys::node(&options.name);
        let reply = client.eval(script::TAKE, &node, &[FORMAT.to_string().as_bytes()]).map_err(wrong)?;
        let row = Row::read(&reply).ok_or_else(|| wrong(Failure::nonsense()))?;
        if row.token == 0 {
            let found = row.text("format").unwrap_or_default().to_owned();
            return Err(OpenError::NewerFormat { url: Box::new(url), found, known: FORMAT });
        }
        let regressed = row.text("run_id").is_some_and(|run_id| {
            run_id != server.identity.run_id || row.text("replid") != Some(&server.identity.replid)
        });
        let opened = Opened { unclean: row.text("clean") == Some("0"), regressed, ..Opened::default() };
        let mut store = Self {
            url: url.clone(),
            owner: options.name.clone(),
            node,
            class: server.class,
            client: Some(client),
            token: row.token,
            number: row.text("turn").and_then(|turn| turn.parse().ok()).unwrap_or(0),
            identity: server.identity,
            opened,
            rows: Rows::default(),
            cursors: HashMap::new(),
            applied: Applied::default(),
            turn: Turn::Open,
            refuses_growth: false,
            catalog: Catalog::default(),
            has_notices: false,
            last_error: None,
        };
        store.load_all(regressed).map_err(|failure| OpenError::of(&url, failure))?;
        Ok(store)
    }

    /// Reads what the node has, and sets right what is wrong with it.
    fn load_all(&mut self, regressed: bool) -> Result<(), Failure> {
        let [queues, cursors] = ["queues", "cursors"].map(|what| keys::of_node(&self.owner, what));
        let mut wrong = Words::default();
        wrong.word(b"0");
        let reply = self.connected()?.command(&[b"HGETALL", queues.as_bytes()])?;
        for (composite, blob) in reply.pairs() {
            if !self.load_queue(composite, blob, regressed, &mut wrong)? {
                wrong.command(&[b"HDEL", queues.as_bytes(), composite]);
                self.opened.damaged += 1;
            }
        }
        let reply = self.connected()?.command(&[b"HGETALL", cursors.as_bytes()])?;
        for (peer, value) in reply.pairs() {
            let name = str::from_utf8(peer).ok();
            match name.and_then(|name| Some((name, cursor_of(&self.owner, name, value)?))) {
                Some((name, cursor)) => drop(self.cursors.insert(name.to_owned(), cursor)),
                None => {
                    wrong.command(&[b"HDEL", cursors.as_bytes(), peer]);
                    self.opened.damaged += 1;
                }
            }
        }
        self.identity.keep(&mut wrong, &self.node);
        let class = class_number(self.class).to_string();
        wrong.command(&[b"HSET", self.node.as_bytes(), b"class", class.as_bytes()]);
        self.send(&wrong, true)?;
        Ok(())
    }

    /// Takes a queue over; says whether it is sound.
    fn load_queue(
        &mut self,
        composite: &[u8],
        blob: &[u8],
        regressed: bool,
        wrong: &mut Words,
    ) -> Result<bool, Failure> {
        let Some(composite) = str::from_utf8(composite).ok() else { return Ok(false) };
        let parsed = liner_store::names::parse(&self.owner, composite);
        let Some((kind, name)) = parsed else { return Ok(false) };
        let Some(mut row) = QueueRow::read(composite, blob) else { return Ok(false) };
        let queue = keys::queue(kind, &name);
        let (Some(queue), Some(key)) = (queue, row.key) else { return Ok(false) };
        let topics = keys::of_queue(key, "topics");
        let mut request = Request::default();
        request
            .command(&[b"GET", keys::key_of(composite).as_bytes()])
            .command(&[b"HGETALL", topics.as_bytes()]);
        let replies = self.connected()?.all(&request)?;
        let is_named = replies.first().and_then(Reply::number) == Some(key);
        let topics_are_sound = replies.get(1).is_some_and(|reply| {
            reply.pairs().all(|(number, text)| {
                let number = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
                number.is_some_and(|number| topic_text(composite, number, text).is_some())
            })
        });
        if !is_named || !topics_are_sound {
            return Ok(false);
        }
        if regressed && !row.suspect {
            row.suspect = true;
            let queues = keys::of_node(&self.owner, "queues");
            wrong.command(&[b"HSET", queues.as_bytes(), composite.as_bytes(), &row.blob()]);
        }
        self.take_list(&mut row)?;
        self.rows.insert(queue, row);
        Ok(true)
    }

    /// Looks over the list of a queue, until nothing is wrong with it.
    fn take_list(&mut self, row: &mut QueueRow) -> Result<(), Failure> {
        let (node, token) = (self.node.clone(), self.token);
        let client = self.connected()?;
        let mut scan = Scan::of(client, row)?;
        for _ in 0..3 {
            if scan.is_clean() {
                break;
            }
            mend(client, (&node, token), row, &scan)?;
            scan = Scan::of(client, row)?;
        }
        (row.list, row.average) = (scan.list, scan.average);
        Ok(())
    }

    /// The connection; a new one if the last one has failed.
    pub(crate) fn connected(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            let mut client = Client::connect(&self.url)?;
            // Nothing that anybody asked for was sent.
            self.prove(&mut client).map_err(Failure::before_the_turn)?;
            self.client = Some(client);
        }
        self.client.as_mut().ok_or_else(Failure::nonsense)
    }

    /// Whether the server has what was committed, and nobody else has the name.
    fn prove(&mut self, client: &mut Client) -> Result<(), Failure> {
        use liner_proto::effect::StoreFault::{Regressed, Superseded};
        let reply = client.command(&[b"HMGET", self.node.as_bytes(), b"token", b"turn"])?;
        let number = |index: usize| reply.list()?.get(index)?.number();
        match (number(0), number(1)) {
            (Some(token), _) if token > self.token => Err(Superseded.into()),
            (Some(token), Some(turn)) if token == self.token && turn == self.number => {
                self.note_identity(client)
            }
            _ => Err(Regressed.into()),
        }
    }

    /// Keeps the identity of a server that was started again and has lost nothing.
    pub(crate) fn note_identity(&mut self, client: &mut Client) -> Result<(), Failure> {
        let identity = Identity::of(client)?;
        if identity != self.identity {
            let (run_id, replid) = (identity.run_id.as_bytes(), identity.replid.as_bytes());
            client.command(&[b"HSET", self.node.as_bytes(), b"run_id", run_id, b"replid", replid])?;
            self.identity = identity;
        }
        Ok(())
    }
}

/// The node's row as it was before it was taken.
struct Row {
    fields: HashMap<Vec<u8>, Vec<u8>>,
    token: u64,
}

impl Row {
    fn read(reply: &Reply) -> Option<Self> {
        let [before, token] = reply.list()? else { return None };
        let fields = before.pairs().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
        Some(Self { fields, token: token.number()? })
    }

    fn text(&self, field: &str) -> Option<&str> {
        str::from_utf8(self.fields.get(field.as_bytes())?).ok()
    }
}

/// What the server is, and whether it will do.
fn examine(client: &mut Client, url: &Url) -> Result<Server, OpenError> {
    let wrong = |failure| OpenError::of(url, failure);
    let info = info(client).map_err(wrong)?;
    let url_of = || Box::new(url.clone());
    let version = info.get("redis_version").cloned().unwrap_or_default();
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 7 {
        return Err(OpenError::OldServer { url: url_of(), version });
    }
    if info.get("role").is_some_and(|role| role == "slave") {
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
    Ok(Server { identity: Identity::read(&info), class })
}

const fn class_number(class: Class) -> u8 {
    match class {
        Class::Ram => 0,
        Class::Process => 1,
        Class::Power => 2,
    }
}
