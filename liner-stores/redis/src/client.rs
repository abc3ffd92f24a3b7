//! Talking to the server: requests and replies over one connection, and what failures mean.

use core::fmt;
use std::io;

use liner_proto::effect::StoreFault;
use redis::{Connection, RedisError};

use crate::link::{self, LinkError};
use crate::resp::{Reply, Request, put_word};
use crate::script;
use crate::url::Url;
use crate::words::Words;

/// Something went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// For a reason that the contract has.
    Fault(StoreFault),
    /// The connection failed. `sent` if the server may have the request.
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

/// Why a transaction was not begun, in the words of the command that was refused.
fn why(words: &str) -> &str {
    let why = words.split_once("because of: ").filter(|(front, _)| front.starts_with("EXECABORT"));
    why.map_or(words, |(_, why)| why)
}

/// The first error among replies.
fn refused(replies: &[Reply]) -> Result<(), Failure> {
    replies.iter().try_for_each(|reply| match reply {
        Reply::Error(words) => Err(Failure::Server(why(words).to_owned())),
        Reply::Status(_) | Reply::Number(_) | Reply::Bytes(_) | Reply::Nil | Reply::List(_) => Ok(()),
    })
}

/// What the script of a turn says, or why there was none: nothing is left of it then.
fn outcome(reply: Reply) -> Result<Reply, Failure> {
    match script::failure(&reply) {
        Some(words) => Err(Failure::Server(words.to_owned())),
        None => Ok(reply),
    }
}

/// The hashes by which the server knows the scripts of turns.
#[derive(Debug, Default)]
struct Hashes {
    turn: String,
    turn_when_full: String,
}

/// A connection that has said who it is.
pub(crate) struct Client {
    connection: Connection,
    hashes: Hashes,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("hashes", &self.hashes).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects, says who it is and chooses the database.
    pub(crate) fn connect(url: &Url) -> Result<Self, Failure> {
        let connecting = |error| Failure::Link(LinkError::of(error));
        let link = link::client(url).map_err(Failure::Link)?;
        let connection = link.get_connection_with_timeout(url.connect_timeout).map_err(connecting)?;
        let mut client = Self { connection, hashes: Hashes::default() };
        client.set_patience(url.connect_timeout).map_err(connecting)?;
        // The library would do this too, but not say what the server says to it. The last word makes sure that there is an answer: until then
        // nothing is known of an encrypted connection.
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
        greeting.command(&[b"PING"]);
        client.greet(&greeting)?;
        client.set_patience(url.command_timeout).map_err(connecting)?;
        Ok(client)
    }

    /// How long one call may wait.
    fn set_patience(&self, patience: core::time::Duration) -> Result<(), RedisError> {
        self.connection.set_read_timeout(Some(patience))?;
        self.connection.set_write_timeout(Some(patience))
    }

    /// Whoever lets nobody in says why, and hangs up: the first error is the one that counts.
    fn greet(&mut self, greeting: &Request) -> Result<(), Failure> {
        let connecting = |error| Failure::Link(LinkError::of(error));
        self.connection.send_packed_command(&greeting.bytes).map_err(connecting)?;
        for _ in 0..greeting.commands {
            let reply = self.connection.recv_response().map(Reply::from).map_err(connecting)?;
            refused(&[reply])?;
        }
        Ok(())
    }

    fn exchange(&mut self, request: &Request) -> Result<Vec<Reply>, RedisError> {
        // The library takes it for a mistake.
        if request.commands == 0 {
            return Ok(Vec::new());
        }
        self.connection.send_packed_command(&request.bytes)?;
        (0..request.commands).map(|_| self.connection.recv_response().map(Reply::from)).collect()
    }

    /// Sends commands, and gives their replies, errors among them.
    pub(crate) fn pipeline(&mut self, request: &Request) -> Result<Vec<Reply>, Failure> {
        self.exchange(request).map_err(|error| Failure::Io { error: link::io_error(error), sent: true })
    }

    /// The same; an error among the replies is one.
    pub(crate) fn all(&mut self, request: &Request) -> Result<Vec<Reply>, Failure> {
        let replies = self.pipeline(request)?;
        refused(&replies)?;
        Ok(replies)
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

    /// The same with arguments that are packed already.
    pub(crate) fn eval_words(&mut self, script: &str, key: &str, words: &Words) -> Result<Reply, Failure> {
        let mut request = Request::default();
        request.begin(words.count + 4);
        for word in [b"EVAL", script.as_bytes(), b"1", key.as_bytes()] {
            put_word(&mut request.bytes, word);
        }
        request.bytes.extend_from_slice(&words.bytes);
        self.all(&request)?.pop().ok_or_else(Failure::nonsense)
    }

    /// Runs a turn whose elements go past its script, which is given as a text: there is no way back if the server should not know it by
    /// its hash. If the reply is an error, the script has failed, and what was pushed may still be there.
    pub(crate) fn transaction(&mut self, request: impl FnOnce(&str) -> Request) -> Result<Reply, Failure> {
        let mut replies = self.pipeline(&request(&script::turn(false)))?;
        let last = replies.pop();
        match last {
            Some(Reply::List(mut done)) => outcome(done.pop().ok_or_else(Failure::nonsense)?),
            Some(Reply::Error(words)) if words.starts_with("EXECABORT") => {
                refused(&replies)?;
                Err(Failure::Server(why(&words).to_owned()))
            }
            // If the user may not begin a transaction any more, the rest was done one by one.
            _ => Err(Failure::nonsense()),
        }
    }

    /// Runs the script of a turn with these arguments.
    pub(crate) fn turn(&mut self, key: &str, is_full: bool, arguments: &Words) -> Result<Reply, Failure> {
        for _ in 0..2 {
            let hash = if is_full { &self.hashes.turn_when_full } else { &self.hashes.turn };
            if hash.is_empty() {
                self.load_scripts()?;
                continue;
            }
            let mut request = Request::default();
            request.begin(arguments.count + 4);
            request.bytes.reserve(arguments.bytes.len() + 256);
            for word in [b"EVALSHA", hash.as_bytes(), b"1", key.as_bytes()] {
                put_word(&mut request.bytes, word);
            }
            request.bytes.extend_from_slice(&arguments.bytes);
            match self.all(&request) {
                Err(Failure::Server(words)) if words.starts_with("NOSCRIPT") => self.load_scripts()?,
                other => return outcome(other?.pop().ok_or_else(Failure::nonsense)?),
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
