//! Names of keys in the server. `:` and `\` of names are escaped by a backslash.

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

/// The rows of a topic.
pub(crate) fn rows_of(topic: &str) -> String {
    format!("lnr_topic:{}:addr", escape(topic))
}

/// The topic whose rows have this key.
pub(crate) fn topic_of(key: &str) -> Option<String> {
    let escaped = key.strip_prefix("lnr_topic:")?.strip_suffix(":addr")?;
    let topic = liner_store::names::owner(escaped);
    (rows_of(&topic) == key).then_some(topic)
}

/// Those of whom the node knows where they listen.
pub(crate) fn listeners(owner: &str) -> String {
    format!("lnr_sender:{}:listener", prefix(owner))
}
