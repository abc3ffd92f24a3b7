//! The protocol of Redis (RESP2): commands go out, replies come in. No length is believed before so many bytes have come.

use std::io::{self, Read};

/// How deep lists stand in lists in what we ask for.
const DEPTH_MAX: u8 = 4;
/// The longest line that a reply begins with.
const LINE_MAX: usize = 1 << 16;
/// The longest value that Redis keeps.
const VALUE_MAX: u64 = 512 << 20;
/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// Commands on their way, one behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// How many replies will come.
    pub(crate) commands: usize,
}

impl Request {
    /// A request of one command.
    pub(crate) fn of(words: &[&[u8]]) -> Self {
        let mut request = Self::default();
        request.command(words);
        request
    }

    /// Adds a command.
    pub(crate) fn command(&mut self, words: &[&[u8]]) -> &mut Self {
        self.begin(words.len());
        for word in words {
            put_word(&mut self.bytes, word);
        }
        self
    }

    /// Begins a command of so many words, which the caller writes.
    pub(crate) fn begin(&mut self, words: usize) {
        put_length(&mut self.bytes, b'*', words as u64);
        self.commands += 1;
    }
}

/// Appends a word of a command.
pub(crate) fn put_word(bytes: &mut Vec<u8>, word: &[u8]) {
    put_length(bytes, b'$', word.len() as u64);
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
}

/// Appends a line of a kind and a number.
pub(crate) fn put_length(bytes: &mut Vec<u8>, kind: u8, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    bytes.push(kind);
    bytes.extend_from_slice(digits.get(at..).unwrap_or_default());
    bytes.extend_from_slice(b"\r\n");
}

/// What the server says to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// One word: `OK`.
    Status(String),
    /// It refuses, in these words.
    Error(String),
    /// A number.
    Number(i64),
    /// A value.
    Bytes(Vec<u8>),
    /// No such value.
    Nil,
    /// Several in a row.
    List(Vec<Self>),
}

impl Reply {
    /// The bytes, if it is a value.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if it is a value or a status that is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Status(text) = self { Some(text) } else { str::from_utf8(self.bytes()?).ok() }
    }

    /// The number, if it is one or the text of one.
    pub(crate) fn number(&self) -> Option<u64> {
        if let Self::Number(number) = self { (*number).try_into().ok() } else { self.text()?.parse().ok() }
    }

    /// The elements, if it is a list.
    pub(crate) fn list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// Fields and values that stand in a row.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let list = self.list().unwrap_or_default();
        list.as_chunks::<2>().0.iter().filter_map(|[field, value]| Some((field.bytes()?, value.bytes()?)))
    }
}

/// What was read and not used yet.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    at: usize,
}

impl Inbound {
    /// Reads one reply.
    pub(crate) fn reply(&mut self, from: &mut impl Read) -> io::Result<Reply> {
        self.compact();
        self.nested(from, 0)
    }

    /// A reply of what has been read already; nothing if it is not whole.
    pub(crate) fn whole(&mut self) -> io::Result<Option<Reply>> {
        self.compact();
        let at = self.at;
        match self.nested(&mut io::empty(), 0) {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.at = at;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds what can be read at once.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        let len = self.bytes.len();
        self.bytes.resize(len + CHUNK, 0);
        let read = loop {
            match from.read(self.bytes.get_mut(len..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.bytes.truncate(len + read.as_ref().map_or(0, |read| *read));
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn nested(&mut self, from: &mut impl Read, depth: u8) -> io::Result<Reply> {
        let line = self.line(from)?;
        let (kind, rest) = line.split_first().ok_or_else(|| broken("an empty line"))?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        let number = || str::from_utf8(rest).ok()?.parse::<i64>().ok();
        let number = || number().ok_or_else(|| broken("no number where one belongs"));
        match kind {
            b'+' => Ok(Reply::Status(text())),
            b'-' => Ok(Reply::Error(text())),
            b':' => Ok(Reply::Number(number()?)),
            b'$' => match u64::try_from(number()?) {
                Ok(len) if len <= VALUE_MAX => self.value(from, len as usize).map(Reply::Bytes),
                Ok(_) => Err(broken("a value that is longer than any")),
                Err(_) => Ok(Reply::Nil),
            },
            b'*' => match u64::try_from(number()?) {
                Ok(_) if depth == DEPTH_MAX => Err(broken("a list in too many lists")),
                Ok(len) => {
                    let mut list = Vec::with_capacity(len.min(1024) as usize);
                    for _ in 0..len {
                        list.push(self.nested(from, depth + 1)?);
                    }
                    Ok(Reply::List(list))
                }
                Err(_) => Ok(Reply::Nil),
            },
            _ => Err(broken("a reply of an unknown kind")),
        }
    }

    fn line(&mut self, from: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            if let Some(end) =
                rest.get(searched..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n'))
            {
                let line = rest.get(..searched + end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.at += searched + end + 1;
                return Ok(line);
            }
            searched = rest.len();
            if searched > LINE_MAX {
                return Err(broken("a line that is longer than any"));
            }
            self.fill(from)?;
        }
    }

    fn value(&mut self, from: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() - self.at < len + 2 {
            self.fill(from)?;
        }
        let value = self.bytes.get(self.at..self.at + len).unwrap_or_default().to_vec();
        self.at += len + 2;
        Ok(value)
    }

    /// Gives up what was used.
    fn compact(&mut self) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        } else if self.at > CHUNK {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server does not speak as Redis does: {what}"))
}
