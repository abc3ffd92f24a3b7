//! Requests as they are sent, and what the server says to them.
//!
//! Requests are packed here and not by the library: a turn's records are words of its request from the moment in which they are applied, and are
//! only copied from then on.

use redis::Value;

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

impl From<Value> for Reply {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are of the protocol's third version")]
    fn from(value: Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Number(number),
            Value::BulkString(bytes) => Self::Bytes(bytes),
            Value::Array(list) => Self::List(list.into_iter().map(Self::from).collect()),
            Value::SimpleString(text) => Self::Status(text),
            Value::Okay => Self::Status("OK".to_owned()),
            Value::ServerError(error) => match error.details() {
                Some(details) => Self::Error(format!("{} {details}", error.code())),
                None => Self::Error(error.code().to_owned()),
            },
            other => Self::Error(format!("ERR {other:?} is not a reply that was asked for")),
        }
    }
}
