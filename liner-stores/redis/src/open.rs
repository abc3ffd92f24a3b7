//! Opening the store of a node: what the server is, whose name it is now, and what became of its queues.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use liner_proto::id::Class;

use crate::client::{Client, Failure};
use crate::directory::Catalog;
use crate::error::OpenError;
use crate::examine::{Identity, examine, probe, recheck};
use crate::keys;
use crate::resp::Reply;
use crate::row::Rows;
use crate::script;
use crate::turn::{Applied, Turn};
use crate::url::Url;
use crate::words::Words;
use crate::{Opened, Options, RedisStore};

/// The format of a node's row.
pub(crate) const FORMAT: u64 = 1;

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
        // Before the name is taken from whoever has it.
        probe(&mut client, &url, &options.name)?;
        let node = keys::node(&options.name);
        let arguments = [FORMAT.to_string(), stride().to_string()];
        let arguments = arguments.each_ref().map(|number| number.as_bytes());
        let reply = client.eval(script::TAKE, &node, &arguments).map_err(wrong)?;
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
            unlogged: false,
            catalog: Catalog::default(),
            has_notices: false,
            last_error: None,
        };
        store.load_all(regressed).map_err(|failure| OpenError::of(&url, failure))?;
        Ok(store)
    }

    /// Keeps which server it is, and what its commits survive.
    pub(crate) fn keep_identity(&self, words: &mut Words) {
        self.identity.keep(words, &self.node);
        let class = class_number(self.class).to_string();
        words.command(&[b"HSET", self.node.as_bytes(), b"class", class.as_bytes()]);
    }

    /// The connection; a new one if the last one has failed. The server behind a new one is looked at as if it were another one.
    pub(crate) fn connected(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            let mut client = Client::connect(&self.url)?;
            // Nothing that anybody asked for was sent.
            self.prove(&mut client).map_err(Failure::before_the_turn)?;
            recheck(&mut client, self.class, &mut self.unlogged).map_err(Failure::before_the_turn)?;
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
            (Some(_), _) => {
                // Whoever opens it next takes it for another server.
                client.command(&[b"HSET", self.node.as_bytes(), b"run_id", b""])?;
                Err(Regressed.into())
            }
            (None, _) => Err(Regressed.into()),
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

/// By how much a token goes up.
pub(crate) fn stride() -> u64 {
    1 + (RandomState::new().hash_one(FORMAT) >> 44)
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

const fn class_number(class: Class) -> u8 {
    match class {
        Class::Ram => 0,
        Class::Process => 1,
        Class::Power => 2,
    }
}
