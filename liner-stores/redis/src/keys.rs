//! Names of keys in the server. `:` and `\` of names are escaped by a backslash, and in those of topics `:` as `\c`.

use liner_store::broker;
pub(crate) use liner_store::names::{composite, kind, prefix, queue};

/// The rows of the directory by topic; what is behind is the store's own.
pub(crate) const TOPICS: &str = "lnr_topics";
/// Whose queue a connection key is.
pub(crate) const CONNECTIONS: &str = "lnr_connections";
/// The counter of connection keys and of topics' numbers.
pub(crate) const UNIQUE: &str = "lnr_unique_key";
/// Until when nodes count as up.
pub(crate) const LEASE: &str = "lnr_lease";
/// The version of the directory, and the channel on which a change is told.
pub(crate) const DIRECTORY: &str = "lnr_directory";
/// The highest id of a dead letter.
pub(crate) const DEAD_ID: &str = "lnr_dead_id";
/// What did not pass its check.
pub(crate) const QUARANTINE: &str = "lnr_quarantine";

/// A name as it stands in keys.
pub(crate) fn escape(name: &str) -> String {
    let mut escaped = prefix(name);
    escaped.pop();
    escaped
}

/// The hash of a node.
pub(crate) fn node(owner: &str) -> String {
    format!("lnr_node:{}", escape(owner))
}

/// Something else of a node.
pub(crate) fn of_node(owner: &str, what: &str) -> String {
    format!("lnr_node:{}:{what}", escape(owner))
}

/// Something of the queue with this connection key.
pub(crate) fn of_queue(key: u64, what: &str) -> String {
    format!("lnr_connection:{key}:{what}")
}

/// Where the connection key of a queue stands.
pub(crate) fn key_of(composite: &str) -> String {
    format!("lnr_connection:{composite}:key")
}

/// A topic as it stands in keys: as liner_broker has it, with `\\c` for `:`.
pub(crate) fn topic(topic: &str) -> String {
    topic.replace('\\', "\\\\").replace(':', "\\c")
}

/// The rows of a topic.
pub(crate) fn rows_of(topic: &str) -> String {
    format!("lnr_topic:{}:addr", self::topic(topic))
}

/// Where somebody may have written rows of a topic by hand who has escaped it as all other names are, if that is elsewhere.
pub(crate) fn rows_elsewhere(topic: &str) -> Option<String> {
    let key = format!("lnr_topic:{}:addr", escape(topic));
    (key != rows_of(topic)).then_some(key)
}

/// The topic whose rows have this key.
pub(crate) fn topic_of(key: &str) -> Option<String> {
    let text = key.strip_prefix("lnr_topic:")?.strip_suffix(":addr")?;
    let text = [text.as_bytes(), b":"].concat();
    let (topic, rest) = split_part(&text)?;
    let is_key = || rows_of(&topic) == key || rows_elsewhere(&topic).as_deref() == Some(key);
    (rest.is_empty() && is_key()).then_some(topic)
}

/// Those of whom the node knows where they listen.
pub(crate) fn listeners(owner: &str) -> String {
    format!("lnr_sender:{}:listener", prefix(owner))
}

/// A row of theirs, as liner_broker 1.4 has it.
pub(crate) fn listener(topic: &str, name: &str) -> String {
    format!("{topic}\x1f{name}")
}

/// A part of a key up to the next `:`, as it was before it was escaped, and what is behind that. liner_broker escapes `:` as `\\c`.
pub(crate) fn split_part(text: &[u8]) -> Option<(String, &[u8])> {
    let mut part = Vec::new();
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b':' => return Some((String::from_utf8(part).ok()?, text.get(at + 1..)?)),
            b'\\' => {
                at += 1;
                part.push(if *text.get(at)? == b'c' { b':' } else { *text.get(at)? });
            }
            byte => part.push(byte),
        }
        at += 1;
    }
}

/// What a key `lnr_connection:{sender}:{sender_topic}:{listener}:key` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) owner: String,
    pub(crate) kind: u8,
    pub(crate) name: String,
    /// The composite under which the store keeps the queue: without the sender's topic.
    pub(crate) composite: String,
}

/// Reads such a key. Whoever has written it by hand may have named a topic of the sender's own, as liner_broker does.
pub(crate) fn named(key: &str) -> Option<Named> {
    let text = key.strip_prefix("lnr_connection:")?.strip_suffix(":key")?;
    let owner = liner_store::names::owner(text);
    let parsed = liner_store::names::parse(&owner, text).or_else(|| {
        let (_, rest) = split_part(text.as_bytes())?;
        let (_, rest) = split_part(rest)?;
        let rest = [rest, b":"].concat();
        let (name, rest) = split_part(&rest)?;
        (rest.is_empty() && (1..=255).contains(&name.len())).then_some((0, name))
    });
    let owner = split_part(text.as_bytes())?.0;
    let (kind, name) = parsed.filter(|_| !owner.is_empty())?;
    let composite = composite(&owner, queue(kind, &name)?);
    Some(Named { owner, kind, name, composite })
}

/// The text of a key of a queue that [`named`] cannot read. liner_broker 1.3 escapes nothing: [`unescaped`] may tell whose it is.
pub(crate) fn older(key: &str) -> Option<&str> {
    let text = key.strip_prefix("lnr_connection:")?.strip_suffix(":key")?;
    text.contains(':').then_some(text)
}

/// The queue that such a text names, of which the sender has this topic of its own.
pub(crate) fn unescaped(text: &str, own_topic: Option<&str>) -> Option<Named> {
    let (owner, kind, name) = broker::queue_of(text, own_topic)?;
    let composite = composite(&owner, queue(kind, &name)?);
    Some(Named { owner, kind, name, composite })
}

/// The topic whose number stands under this key. liner_broker 1.3 escapes nothing.
pub(crate) fn numbered_topic(key: &str) -> Option<String> {
    let text = key.strip_prefix("lnr_topic:")?.strip_suffix(":key")?;
    let all = [text.as_bytes(), b":"].concat();
    let escaped = split_part(&all).filter(|(_, rest)| rest.is_empty()).map(|(topic, _)| topic);
    let escaped = escaped.filter(|topic| self::topic(topic) == text || escape(topic) == text);
    escaped.or_else(|| Some(text.to_owned())).filter(|topic| !topic.is_empty())
}

/// The name of the node whose row has this key.
pub(crate) fn owner_of(key: &str) -> Option<String> {
    let text = [key.strip_prefix("lnr_node:")?.as_bytes(), b":"].concat();
    let (owner, rest) = split_part(&text)?;
    (rest.is_empty() && node(&owner) == key).then_some(owner)
}

/// The connection key in a key, and what of the queue it is.
pub(crate) fn queue_of(key: &str) -> Option<(u64, &str)> {
    let (number, what) = key.strip_prefix("lnr_connection:")?.split_once(':')?;
    Some((number.parse().ok()?, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_queue_says_whose_it_is() {
        let named = |key: &str| {
            let Named { owner, kind, name, .. } = named(key)?;
            Some((owner, kind, name))
        };
        let of = |owner: &str, kind, name: &str| Some((owner.to_owned(), kind, name.to_owned()));
        for (owner, queue) in [
            ("s", liner_proto::effect::Queue::Node("l")),
            ("a:b\\", liner_proto::effect::Queue::Topic("t:")),
            ("7", liner_proto::effect::Queue::Address("messages")),
        ] {
            let key = key_of(&composite(owner, queue));
            assert_eq!(named(&key), of(owner, kind(queue), queue.name()));
        }
        assert_eq!(named("lnr_connection:s:topic:l:key"), of("s", 0, "l"));
        assert_eq!(named("lnr_connection:a\\cb:t\\c:l\\c:key"), of("a:b", 0, "l:"));
        for key in ["lnr_connection:7:key", "lnr_connection:s:l:key", "lnr_connection:::l:key", "lnr_x"] {
            assert_eq!(named(key), None, "{key}");
        }
        assert_eq!(queue_of("lnr_connection:7:messages"), Some((7, "messages")));
        for (key, topic) in [
            ("a:b", None),
            ("a\\cb", Some("a:b")),
            ("a\\:b", Some("a:b")),
            ("a\\\\cb", Some("a\\cb")),
            ("a\\", None),
            ("a\\b", None),
        ] {
            assert_eq!(topic_of(&format!("lnr_topic:{key}:addr")).as_deref(), topic, "{key}");
        }
        for (key, topic) in
            [("a\\:b", "a:b"), ("a\\cb", "a:b"), ("a:b", "a:b"), ("a\\b:", "a\\b:"), ("a\\\\", "a\\")]
        {
            assert_eq!(numbered_topic(&format!("lnr_topic:{key}:key")).as_deref(), Some(topic), "{key}");
        }
        assert_eq!(numbered_topic("lnr_topic::key"), None);
        let unescaped = |text, own| unescaped(text, own).map(|named| named.composite);
        assert_eq!(older("lnr_connection:s:a:b:l:key"), Some("s:a:b:l"));
        assert_eq!(older("lnr_connection:7:messages"), None);
        assert_eq!(unescaped("s:a:b:l", Some("a:b")).as_deref(), Some("s::l"));
        assert_eq!(unescaped("s:a:b:l", Some("b")).as_deref(), Some("s\\:a::l"));
        assert_eq!(unescaped("s:a:b:l", None), None);
        assert_eq!(owner_of("lnr_node:a\\:b").as_deref(), Some("a:b"));
        assert_eq!(owner_of("lnr_node:a:queues"), None);
    }
}
