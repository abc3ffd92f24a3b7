//! The statements of a turn.

/// Ends the turn with a division by zero unless the token is the newest and the turn follows the last one. A server that has lost an
/// opening gives out its token again: the instance tells the two apart. It waits for a transaction of an older connection that is still
/// at work on the row.
pub(crate) const FENCE: &str = "WITH fence AS (
  UPDATE liner_node SET turn = $4, clean = FALSE WHERE name = $1 AND token = $2 AND turn = $3 AND instance = $5
  RETURNING 1)
SELECT 1 / count(*) FROM fence";

pub(crate) const CLOSE: &str = "WITH messages AS (DELETE FROM conn_messages WHERE connection_key = ANY($1)),
  numbers AS (DELETE FROM conn_mess_number WHERE connection_key = ANY($1)),
  senders AS (DELETE FROM conn_sender WHERE connection_key = ANY($1)),
  topics AS (DELETE FROM stream_topic WHERE composite = ANY($2))
DELETE FROM conn_key_map WHERE connection_key = ANY($1)";

/// Gives out a key, of a queue or of a topic, above all that anything bears. The row is locked until the end of the transaction.
pub(crate) const NEXT_KEY: &str = "INSERT INTO seq AS s(id, v) SELECT 1, most + 1 FROM most
    ON CONFLICT(id) DO UPDATE SET v = greatest(s.v, excluded.v - 1) + 1 RETURNING v";

pub(crate) const MOST: &str = "SELECT greatest(
    (SELECT max(v) FROM seq), (SELECT max(k) FROM topic_key), (SELECT max(connection_key) FROM conn_key_map),
    (SELECT max(connection_key) FROM conn_messages), 0) AS most";

/// Makes the row of a queue that has none, or one that was made by hand, which keeps its key.
pub(crate) fn create() -> String {
    format!(
        "WITH most AS ({MOST}), given AS ({NEXT_KEY}),
  topics AS (DELETE FROM stream_topic WHERE composite = $1)
INSERT INTO conn_key_map(composite, connection_key, owner, kind, name, stored_epoch)
SELECT $1, v, $2, $3, $4, $5 FROM given
ON CONFLICT(composite) DO UPDATE SET owner = excluded.owner, kind = excluded.kind, name = excluded.name,
  stored_epoch = excluded.stored_epoch, topics = 0
RETURNING connection_key"
    )
}

/// A stream of liner_broker's keeps the topic that its sender had.
pub(crate) const SENDERS: &str = "INSERT INTO conn_sender SELECT k, '' FROM unnest($1) AS k
ON CONFLICT(connection_key) DO NOTHING";

pub(crate) const APPEND: &str =
    "INSERT INTO conn_messages(connection_key, payload, epoch, number, covers, crc, head, composite)
SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)";

/// Both bounds matter: whatever the server knows of the table, it takes a range this narrow for a few rows and goes by the index, and it
/// does not pass over all that was deleted before.
pub(crate) const FORGET: &str =
    "DELETE FROM conn_messages WHERE connection_key = $1 AND number > $2 AND number <= $3 AND epoch = $4";

pub(crate) const TOPICS: &str =
    "INSERT INTO stream_topic(composite, number, topic, crc) SELECT * FROM unnest($1, $2, $3, $4)
ON CONFLICT(composite, number) DO UPDATE SET topic = excluded.topic, crc = excluded.crc";

/// Remembers how many there are, behind [`TOPICS`]: some may be gone when the queue is read again.
pub(crate) const COUNT_TOPICS: &str = "UPDATE conn_key_map q
SET topics = (SELECT count(*) FROM stream_topic t WHERE t.composite = q.composite) WHERE composite = ANY($1)";

pub(crate) const CURSORS: &str = "INSERT INTO inbound_cursor(owner, peer, epoch, through, crc)
SELECT $1, * FROM unnest($2, $3, $4, $5)
ON CONFLICT(owner, peer) DO UPDATE SET epoch = excluded.epoch, through = excluded.through, crc = excluded.crc";

/// It ends the turn as the fence does if a row is not there.
pub(crate) const QUEUES: &str = "WITH changed AS (
  UPDATE conn_key_map m SET epoch = u.epoch, predecessor_epoch = u.predecessor,
    predecessor_old_first = u.old_first, predecessor_count = u.count, trimmed = u.trimmed,
    dropped_through = u.through, dropped_reason = u.reason, last = u.last, reserved = u.reserved, shift = u.shift,
    suspect = m.suspect AND m.epoch = u.epoch, crc = u.crc
  FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    AS u(key, epoch, predecessor, old_first, count, trimmed, through, reason, last, reserved, shift, crc)
  WHERE m.connection_key = u.key RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM changed";

pub(crate) const ACKNOWLEDGED: &str =
    "INSERT INTO conn_mess_number(connection_key, v) SELECT * FROM unnest($1, $2)
ON CONFLICT(connection_key) DO UPDATE SET v = excluded.v";

pub(crate) const INBOX: &str = "UPDATE liner_node SET inbox = $2 WHERE name = $1";

pub(crate) const LETTERS: &str = "INSERT INTO dead_letters(owner, peer, topic, reason, crc, record)
SELECT $1, * FROM unnest($2, $3, $4, $5, $6)";

pub(crate) const DELIVERED: &str =
    "INSERT INTO inbox(owner, sender, epoch, number, topic, mode, maybe_redelivered, bytes, crc, payload)
SELECT $1, * FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Whoever changes the directory does it behind this one, so that nobody waits for another one in a circle.
pub(crate) const DIRECTORY: &str = "INSERT INTO liner_directory AS d(id, version) VALUES(1, 1)
ON CONFLICT(id) DO UPDATE SET version = d.version + 1";

pub(crate) const SUBSCRIBE: &str = "INSERT INTO topic_addr(topic, addr, client_name) VALUES($1, $2, $3)
ON CONFLICT(topic, addr) DO UPDATE SET client_name = excluded.client_name";

pub(crate) fn number_topic() -> String {
    format!(
        "WITH topic AS (SELECT $1 AS topic WHERE NOT EXISTS(SELECT 1 FROM topic_key WHERE topic = $1)),
  most AS (SELECT most FROM ({MOST}) AS most, topic), given AS ({NEXT_KEY})
INSERT INTO topic_key(topic, k) SELECT $1, v FROM given ON CONFLICT(topic) DO NOTHING"
    )
}

pub(crate) const LISTENER: &str =
    "INSERT INTO sender_listener(sender_key, addr, listener_topic, client_name) VALUES($1, $2, $3, $4)
ON CONFLICT(sender_key, addr) DO UPDATE
SET listener_topic = excluded.listener_topic, client_name = excluded.client_name";

pub(crate) const UNSUBSCRIBE: &str =
    "DELETE FROM topic_addr WHERE topic = $1 AND addr = $2 AND client_name = $3";

pub(crate) const NO_LISTENER: &str = "DELETE FROM sender_listener
WHERE sender_key = $1 AND addr = $2 AND listener_topic = $3 AND client_name = $4";

/// The node may take other topics at the same address.
pub(crate) const OTHER_LISTENER: &str =
    "INSERT INTO sender_listener(sender_key, addr, listener_topic, client_name)
SELECT $1, addr, topic, client_name FROM topic_addr WHERE addr = $2 AND client_name <> $3
ORDER BY topic DESC LIMIT 1 ON CONFLICT DO NOTHING";
