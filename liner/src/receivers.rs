//! Receivers that are known from the start, as a JSON text names them.

use serde::Deserialize;

/// Somebody who takes a topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Receiver {
    /// The topic, 1 to 255 bytes.
    pub topic: String,
    /// Where it listens, `host:port`.
    pub addr: String,
    /// Its unique name, 1 to 255 bytes.
    pub client_name: String,
}

/// Why a JSON text names no receivers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiversError {
    /// It is no array of objects with the three fields.
    #[error(
        "the receivers are no JSON array of {{\"topic\": …, \"addr\": \"host:port\", \"client_name\": …}}: {0}"
    )]
    Json(serde_json::Error),
    /// A field is empty, too long, or no address.
    #[error("receiver {index}: {why}")]
    Field {
        /// Which of them, from 0.
        index: usize,
        /// What is wrong, and what to write instead.
        why: &'static str,
    },
}

/// Reads the receivers that a JSON text names: an array of objects with `topic`, `addr` and `client_name`. Other fields are
/// ignored. No text, one of spaces alone, and an empty array name nobody.
///
/// # Errors
/// See [`ReceiversError`].
pub fn parse(json: Option<&str>) -> Result<Vec<Receiver>, ReceiversError> {
    let Some(json) = json.filter(|json| !json.trim().is_empty()) else { return Ok(Vec::new()) };
    let receivers: Vec<Receiver> = serde_json::from_str(json).map_err(ReceiversError::Json)?;
    for (index, receiver) in receivers.iter().enumerate() {
        check(receiver).map_err(|why| ReceiversError::Field { index, why })?;
    }
    Ok(receivers)
}

fn check(receiver: &Receiver) -> Result<(), &'static str> {
    let fits = |text: &str| (1..=255).contains(&text.len());
    let is_address = |addr: &str| {
        let parts = addr.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if !fits(&receiver.topic) {
        Err("a topic has 1 to 255 bytes")
    } else if !fits(&receiver.client_name) {
        Err("a client_name has 1 to 255 bytes")
    } else if !fits(&receiver.addr) || !is_address(&receiver.addr) {
        Err("an addr is host:port, with a port above 0")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m18_receivers_are_read() {
        let json = r#"[{"topic":"t","addr":"h:1","client_name":"n","topic_key":9},
                       {"client_name":"m","addr":"[::1]:65535","topic":"u v"}]"#;
        let receivers = parse(Some(json)).unwrap();
        let of = |topic: &str, addr: &str, name: &str| Receiver {
            topic: topic.to_owned(),
            addr: addr.to_owned(),
            client_name: name.to_owned(),
        };
        assert_eq!(receivers, [of("t", "h:1", "n"), of("u v", "[::1]:65535", "m")]);
    }

    #[test]
    fn m18_nothing_names_nobody() {
        for json in [None, Some(""), Some(" \n\t"), Some("[]"), Some(" [ ] ")] {
            assert_eq!(parse(json).unwrap(), [], "{json:?}");
        }
    }

    #[test]
    fn m18_what_names_nobody_is_told_in_words() {
        let whole = r#"[{"topic":"t","addr":"h:1","client_name":"n"}]"#;
        for end in 1..whole.len() {
            let error = parse(Some(&whole[..end])).unwrap_err().to_string();
            assert!(error.contains("JSON array"), "{end}: {error}");
        }
        let told = |json: &str| parse(Some(json)).unwrap_err().to_string();
        assert!(told(r#"[{"topic":"t","addr":"h:1"}]"#).contains("missing field `client_name`"));
        assert!(told(r#"{"topic":"t","addr":"h:1","client_name":"n"}"#).contains("JSON array"));
        assert!(told(r#"[{"topic":"","addr":"h:1","client_name":"n"}]"#).contains("receiver 0: a topic"));
        assert!(told(r#"[{"topic":"t","addr":"h","client_name":"n"}]"#).contains("host:port"));
        assert!(told(r#"[{"topic":"t","addr":"h:0","client_name":"n"}]"#).contains("above 0"));
        assert!(told(r#"[{"topic":"t","addr":"h:1","client_name":""}]"#).contains("client_name"));
        assert!(told("[null]").contains("JSON array"));
    }
}
