//! What liner_broker 1.3 and 1.4 leave in the tables: streams whose names are not escaped, and messages in a frame of their own. Their
//! sender's node takes them over when it is opened; what others have sent stays there for their nodes.
//!
//! Its messages are rows without an epoch, as those by hand are, and are taken with them.

use std::collections::HashMap;

use liner_proto::effect::{DeadReason, Queue};
use liner_proto::wire::TEXT_MAX;
use liner_store::broker::{self, OWN_TOPIC};
use liner_store::byhand::{PAYLOAD_MAX, repeated};
use liner_store::names;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::columns::of;
use crate::error::Failure;
use crate::mend::Opening;
use crate::text::{from_column, to_column};

/// Streams that no node of this release has opened, and whose names begin as those of the node's may: escaped ($1) or not ($2).
const STREAMS: &str = "SELECT q.connection_key, q.composite, s.sender_topic
FROM conn_key_map q LEFT JOIN conn_sender s USING(connection_key)
WHERE q.owner = '' AND (starts_with(q.composite, $1) OR starts_with(q.composite, $2)) ORDER BY q.connection_key";

/// The name that the stream has here, unless it is given to another one already; and the number that was acknowledged counts other messages.
const RENAME: &str = "WITH numbers AS (DELETE FROM conn_mess_number WHERE connection_key = $1)
UPDATE conn_key_map SET composite = $2 WHERE connection_key = $1
  AND NOT EXISTS(SELECT 1 FROM conn_key_map WHERE composite = $2)";

/// Whether this node takes the topic.
const TAKES: &str = "SELECT EXISTS(SELECT 1 FROM topic_addr WHERE client_name = $1 AND topic = $2)
  OR EXISTS(SELECT 1 FROM sender_listener WHERE client_name = $1 AND listener_topic = $2)";

/// A queue of this kind and name.
pub(crate) type Named = (u8, String);

/// Streams that no node of this release has opened.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// Those of the node, by their keys; without a queue if their name does not tell it.
    own: HashMap<i32, Option<Named>>,
    /// The keys of others' whose names begin as the node's do.
    pub(crate) others: Vec<i32>,
    /// The keys of those whose names are another program's, and the names that they have here.
    older: Vec<(i32, String)>,
}

impl Streams {
    pub(crate) fn find(opening: Opening<'_>) -> Result<Self, Failure> {
        let owner = opening.mark.owner;
        let prefixes = [names::prefix(owner), format!("{owner}:")].map(|text| to_column(&text).into_owned());
        let mut streams = Self::default();
        for row in opening.link.query(STREAMS, &prefixes.each_ref().map(|prefix| of(prefix, Type::TEXT)))? {
            let (key, composite) = (row.try_get(0)?, from_column(row.try_get(1)?));
            let own_topic = row.try_get::<_, Option<&str>>(2)?.map(from_column);
            let Some((sender, kind, name)) = broker::queue_of(&composite, own_topic.as_deref()) else {
                streams.own.insert(key, None);
                continue;
            };
            if sender != owner {
                streams.others.push(key);
                continue;
            }
            let named = names::queue(kind, &name).map(|queue| names::composite(owner, queue));
            streams.older.extend(named.filter(|named| *named != composite).map(|named| (key, named)));
            streams.own.insert(key, Some((kind, name)));
        }
        Ok(streams)
    }

    /// Gives streams the names that they have here, under the keys that they have. Of several to the same listener the first gets it,
    /// and the others keep their own, so that nobody is given their keys.
    pub(crate) fn rename(&self, opening: Opening<'_>) -> Result<(), Failure> {
        for (key, named) in &self.older {
            let named = to_column(named);
            opening.link.query(RENAME, &[of(key, Type::INT4), of(&named, Type::TEXT)])?;
        }
        Ok(())
    }

    /// The keys of all streams of the node.
    pub(crate) fn keys(&self) -> Vec<i32> {
        self.own.keys().copied().collect()
    }

    /// The keys of those that go into one of these queues.
    pub(crate) fn leading_to<'a>(&'a self, queues: &'a [Named]) -> impl Iterator<Item = i32> + 'a {
        let is_one = |named: &Option<Named>| named.as_ref().is_some_and(|named| queues.contains(named));
        self.own.iter().filter(move |(_, named)| is_one(named)).map(|(key, _)| *key)
    }

    /// The queue into which the messages of this stream go.
    pub(crate) fn queue(&self, key: i32) -> Option<&Named> {
        self.own.get(&key)?.as_ref()
    }
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Fate {
    Queued(Vec<u8>),
    Dead(DeadReason, String, Vec<u8>),
    Nothing,
}

/// Topics by their numbers, read when the first one is asked for. A number is not unique: somebody may have inserted some.
#[derive(Debug, Default)]
pub(crate) struct Topics(Option<HashMap<i32, Vec<String>>>);

impl Topics {
    /// What becomes of these bytes if they are a message of that program's; nothing if they are not.
    pub(crate) fn fate(
        &mut self,
        opening: Opening<'_>,
        key: i32,
        to: Option<Queue<'_>>,
        bytes: &[u8],
    ) -> Result<Option<Fate>, Failure> {
        let Some(frame) = broker::read(key.into(), bytes) else { return Ok(None) };
        let record = |topic: &str| repeated(topic, frame.payload);
        if frame.compressed {
            // Without a topic nobody sends it as if it were what the application has sent.
            return Ok(Some(Fate::Dead(DeadReason::Orphaned, String::new(), record(""))));
        }
        let topic = self.topic(opening, frame.topic, to)?.unwrap_or_default();
        if topic == OWN_TOPIC {
            return Ok(Some(Fate::Nothing));
        }
        // What is kept for a topic is of that topic.
        let is_of = |queue| if let Queue::Topic(kept) = queue { kept == topic } else { true };
        let record = record(&topic);
        Ok(Some(if !(1..=TEXT_MAX).contains(&topic.len()) || !to.is_some_and(is_of) {
            Fate::Dead(DeadReason::Orphaned, topic, record)
        } else if frame.payload.len() > PAYLOAD_MAX {
            Fate::Dead(DeadReason::TooLarge, topic, record)
        } else {
            Fate::Queued(record)
        }))
    }

    /// The topic with this number; of several, the one that the listener takes.
    fn topic(
        &mut self,
        opening: Opening<'_>,
        number: i64,
        to: Option<Queue<'_>>,
    ) -> Result<Option<String>, Failure> {
        let known = match &mut self.0 {
            Some(known) => known,
            unread => unread.insert(Self::read(opening)?),
        };
        let topics = i32::try_from(number).ok().and_then(|number| known.get(&number));
        let topics = topics.map_or(&[][..], Vec::as_slice);
        let ([_, _, ..], Some(listener)) = (topics, to) else {
            return Ok(if let [topic] = topics { Some(topic.clone()) } else { None });
        };
        let listener = to_column(listener.name());
        let mut taken = Vec::new();
        for topic in topics {
            let column = to_column(topic);
            let rows = opening.link.query(TAKES, &[of(&listener, Type::TEXT), of(&column, Type::TEXT)])?;
            if rows.first().map(|row| row.try_get(0)).transpose()? == Some(true) {
                taken.push(topic);
            }
        }
        Ok(if let [one] = taken[..] { Some(one.clone()) } else { None })
    }

    fn read(opening: Opening<'_>) -> Result<HashMap<i32, Vec<String>>, Failure> {
        let mut topics: HashMap<_, Vec<_>> = HashMap::new();
        let read = |row: &Row| Ok::<_, Failure>((row.try_get(0)?, from_column(row.try_get(1)?).into_owned()));
        for row in opening.link.query("SELECT k, topic FROM topic_key", &[])? {
            let (number, topic) = read(&row)?;
            topics.entry(number).or_default().push(topic);
        }
        Ok(topics)
    }
}
