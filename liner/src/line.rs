//! A message as a line: `TOPIC FROM#SEQ PAYLOAD`, or a JSON object.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use liner_mio::Message;
use serde::Serialize;

use crate::out::{field, shown};

/// What is printed of a message.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    topic: &'a str,
    /// Who sent it first, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    /// Its number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    payload: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    maybe_redelivered: bool,
}

impl<'a> Line<'a> {
    pub(crate) fn new(
        topic: &'a str,
        origin: Option<(&'a str, u64)>,
        payload: &'a [u8],
        maybe_redelivered: bool,
    ) -> Self {
        let (payload, encoding) = match std::str::from_utf8(payload) {
            Ok(text) => (text.into(), None),
            Err(_) => (BASE64_STANDARD.encode(payload).into(), Some("base64")),
        };
        let (from, seq) = origin.unzip();
        Self { topic, from, seq, payload, encoding, maybe_redelivered }
    }

    pub(crate) fn of(message: &Message<'a>) -> Self {
        let Message { topic, from, seq, payload, maybe_redelivered, .. } = *message;
        Self::new(topic, Some((from, seq)), payload, maybe_redelivered)
    }

    /// Writes the plain form without the end of the line, and with nothing in it that ends one.
    pub(crate) fn write(&self, line: &mut Vec<u8>) {
        let mark = if self.maybe_redelivered { "*" } else { "" };
        line.extend_from_slice(field(self.topic).as_bytes());
        match self.from.zip(self.seq) {
            Some((from, seq)) => {
                line.extend_from_slice(format!(" {}#{seq}{mark} ", field(from)).as_bytes());
            }
            None => line.extend_from_slice(format!(" -{mark} ").as_bytes()),
        }
        match self.encoding {
            None => line.extend_from_slice(shown(&self.payload).as_bytes()),
            Some(encoding) => line.extend_from_slice(format!("{encoding}:{}", self.payload).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use liner_mio::{Mode, Receipt};

    use super::*;

    fn message(payload: &[u8], maybe_redelivered: bool) -> Message<'_> {
        let receipt = Receipt::NONE;
        Message { topic: "t", from: "d", seq: 7, mode: Mode::All, payload, maybe_redelivered, receipt }
    }

    fn plain(line: &Line<'_>) -> String {
        let mut bytes = Vec::new();
        line.write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn plain_line(payload: &[u8], again: bool) -> String {
        plain(&Line::of(&message(payload, again)))
    }

    #[test]
    fn a_plain_line_is_one_line() {
        assert_eq!(plain_line("20 °C".as_bytes(), false), "t d#7 20 °C");
        assert_eq!(plain_line(b"a\nb\x1b", true), "t d#7* a\\nb\\u{1b}");
        assert_eq!(plain_line(&[0xff, 0], false), "t d#7 base64:/wA=");
        assert_eq!(plain_line(b"", false), "t d#7 ");
    }

    #[test]
    fn a_name_forges_no_line() {
        let from = "a\nreadings d#9 x\x1b";
        let line = plain(&Line::of(&Message { topic: "t u", from, ..message(b"p q", false) }));
        assert_eq!(line, "t\\u{20}u a\\nreadings\\u{20}d#9\\u{20}x\\u{1b}#7 p q");
    }

    #[test]
    fn a_message_of_nobody_known_says_so() {
        assert_eq!(plain(&Line::new("t", None, b"x", true)), "t -* x");
        let json = serde_json::to_string(&Line::new("t", None, b"x", true)).unwrap();
        assert_eq!(json, r#"{"topic":"t","payload":"x","maybe_redelivered":true}"#);
    }

    #[test]
    fn json_says_how_the_payload_is_written() {
        let json = |payload| serde_json::to_string(&Line::of(&message(payload, false))).unwrap();
        assert_eq!(
            json(b"x\"y"),
            r#"{"topic":"t","from":"d","seq":7,"payload":"x\"y","maybe_redelivered":false}"#
        );
        assert_eq!(
            json(&[0xff]),
            r#"{"topic":"t","from":"d","seq":7,"payload":"/w==","encoding":"base64","maybe_redelivered":false}"#
        );
    }
}
