//! Talking to the server: requests and replies over one connection, and what failures mean.

use std::io::{self, Write as _};

use liner_proto::effect::StoreFault;

use crate::link::{Link, LinkError};
use crate::resp::{Inbound, Reply, Request};
use crate::script;
use crate::url::Url;

/// Something went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// For a reason that the contract has.
    Fault(StoreFault),
    /// The connection failed. `sent` if the server may have the whole request.
    Io { error: io::Error, sent: bool },
    /// There is no connection.
    Link(LinkError),
    /// The server refuses, in these words.
    Server(String),
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::Fault(fault)
    }
}

impl Failure {
    /// A reply that makes no sense.
    pub(crate) fn nonsense() -> Self {
        let error =
            io::Error::new(io::ErrorKind::InvalidData, "the server's reply is not what was asked for");
        Self::Io { error, sent: true }
    }

    /// The same of something that came before the turn was sent.
    pub(crate) fn before_the_turn(self) -> Self {
        if let Self::Io { error, .. } = self { Self::Io { error, sent: false } } else { self }
    }

    /// What can be done about it.
    pub(crate) fn fault(&self) -> StoreFault {
        match self {
            Self::Fault(fault) => *fault,
            Self::Io { .. } | Self::Link(_) => StoreFault::Unavailable,
            Self::Server(words) => classify(words),
        }
    }

    /// The backend's own words, if there are any.
    pub(crate) fn words(&self) -> Option<String> {
        match self {
            Self::Fault(_) => None,
            Self::Io { error, .. } => Some(error.to_string()),
            Self::Link(error) => Some(error.to_string()),
            Self::Server(words) => Some(words.clone()),
        }
    }
}

/// What the first word of an error means.
fn classify(words: &str) -> StoreFault {
    match words.split(' ').next().unwrap_or_default() {
        "OOM" => StoreFault::Full,
        "WRONGTYPE" => StoreFault::Corrupt,
        "NOPERM" | "NOAUTH" | "WRONGPASS" => StoreFault::Refused,
        // LOADING, BUSY, READONLY, MASTERDOWN, MISCONF, NOREPLICAS and whatever comes later may pass.
        _ => StoreFault::Unavailable,
    }
}

/// The hashes by which the server knows the scripts of turns.
#[derive(Debug, Default)]
struct Hashes {
    turn: String,
    turn_when_full: String,
}

/// A connection that has said who it is.
#[derive(Debug)]
pub(crate) struct Client {
    link: Link,
    inbound: Inbound,
    hashes: Hashes,
}

impl Client {
    /// Connects, says who it is and chooses the database.
    pub(crate) fn connect(url: &Url) -> Result<Self, Failure> {
        let link = Link::connect(url).map_err(Failure::Link)?;
        link.set_patience(url.connect_timeout).map_err(|error| Failure::Io { error, sent: false })?;
        let mut client = Self { link, inbound: Inbound::default(), hashes: Hashes::default() };
        let mut greeting = Request::default();
        if let Some(password) = &url.password {
            let password = password.as_bytes();
            match &url.user {
                Some(user) => greeting.command(&[b"AUTH", user.as_bytes(), password]),
                None => greeting.command(&[b"AUTH", password]),
            };
        }
        if url.db != 0 {
            greeting.command(&[b"SELECT", url.db.to_string().as_bytes()]);
        }
        client.all(&greeting)?;
        client.link.set_patience(url.command_timeout).map_err(|error| Failure::Io { error, sent: false })?;
        Ok(client)
    }

    /// The connection, for words that come without a question.
    pub(crate) fn into_parts(self) -> (Link, Inbound) {
        (self.link, self.inbound)
    }

    /// Sends commands, and gives their replies, errors among them.
    pub(crate) fn pipeline(&mut self, request: &Request) -> Result<Vec<Reply>, Failure> {
        // What was not taken whole cannot be executed.
        self.link.write_all(&request.bytes).map_err(|error| Failure::Io { error, sent: false })?;
        let sent = |error| Failure::Io { error, sent: true };
        self.link.flush().map_err(sent)?;
        let mut replies = Vec::with_capacity(request.commands);
        for _ in 0..request.commands {
            replies.push(self.inbound.reply(&mut self.link).map_err(sent)?);
        }
        Ok(replies)
    }

    /// The same; an error among the replies is one.
    pub(crate) fn all(&mut self, request: &Request) -> Result<Vec<Reply>, Failure> {
        let replies = self.pipeline(request)?;
        match replies
            .iter()
            .find_map(|reply| if let Reply::Error(words) = reply { Some(words) } else { None })
        {
            Some(words) => Err(Failure::Server(words.clone())),
            None => Ok(replies),
        }
    }

    /// Sends one command.
    pub(crate) fn command(&mut self, words: &[&[u8]]) -> Result<Reply, Failure> {
        self.all(&Request::of(words))?.pop().ok_or_else(Failure::nonsense)
    }

    /// Runs a script that is seldom run.
    pub(crate) fn eval(&mut self, script: &str, key: &str, arguments: &[&[u8]]) -> Result<Reply, Failure> {
        let mut words: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), b"1", key.as_bytes()];
        words.extend(arguments);
        self.command(&words)
    }

    /// Runs the script of a turn. `body` are its arguments as words.
    pub(crate) fn turn(
        &mut self,
        key: &str,
        is_full: bool,
        words: usize,
        body: &[u8],
    ) -> Result<Reply, Failure> {
        for _ in 0..2 {
            let hash = if is_full { &self.hashes.turn_when_full } else { &self.hashes.turn };
            if hash.is_empty() {
                self.load_scripts()?;
                continue;
            }
            let mut request = Request::default();
            request.begin(words + 4);
            request.bytes.reserve(body.len() + 256);
            for word in [b"EVALSHA", hash.as_bytes(), b"1", key.as_bytes()] {
                crate::resp::put_word(&mut request.bytes, word);
            }
            request.bytes.extend_from_slice(body);
            match self.all(&request) {
                Err(Failure::Server(words)) if words.starts_with("NOSCRIPT") => self.load_scripts()?,
                other => return other?.pop().ok_or_else(Failure::nonsense),
            }
        }
        Err(Failure::Server("the server forgets its scripts".to_owned()))
    }

    fn load_scripts(&mut self) -> Result<(), Failure> {
        let mut request = Request::default();
        for allow_oom in [false, true] {
            request.command(&[b"SCRIPT", b"LOAD", script::turn(allow_oom).as_bytes()]);
        }
        // A connection that fails here has not been given the turn.
        let replies = self.all(&request).map_err(Failure::before_the_turn)?;
        let hash = |index: usize| replies.get(index).and_then(Reply::text).unwrap_or_default().to_owned();
        self.hashes = Hashes { turn: hash(0), turn_when_full: hash(1) };
        Ok(())
    }
}
