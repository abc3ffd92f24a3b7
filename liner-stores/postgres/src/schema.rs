//! The tables, and how a database of liner_broker 1.3 or 1.4, or of an older release, becomes one of this release.

use crate::error::{Failure, OpenError};
use crate::link::Link;
use crate::open::{begin_patiently, doing};
use crate::url::Url;

/// What a role needs that uses the tables but does not own them. `ROLE` and `SCHEMA` are to be replaced; [`grants`] does it.
///
/// Such a role cannot make or upgrade the tables: whoever owns the schema opens the store once after an installation or an
/// upgrade. It is to find the schema by its `search_path`.
pub const GRANTS: &str = r#"
GRANT USAGE ON SCHEMA "SCHEMA" TO "ROLE";
GRANT SELECT, INSERT, UPDATE, DELETE ON
  "SCHEMA".topic_addr, "SCHEMA".topic_key, "SCHEMA".conn_key_map, "SCHEMA".conn_messages, "SCHEMA".conn_mess_number,
  "SCHEMA".conn_sender, "SCHEMA".sender_listener, "SCHEMA".seq, "SCHEMA".liner_node, "SCHEMA".liner_lease,
  "SCHEMA".liner_directory, "SCHEMA".stream_topic, "SCHEMA".inbound_cursor, "SCHEMA".dead_letters, "SCHEMA".inbox,
  "SCHEMA".quarantine TO "ROLE";
GRANT SELECT ON "SCHEMA".liner_schema TO "ROLE";
GRANT USAGE ON SEQUENCE "SCHEMA".conn_messages_id_seq, "SCHEMA".dead_letters_id_seq, "SCHEMA".inbox_id_seq,
  "SCHEMA".quarantine_id_seq TO "ROLE";
"#;

/// [`GRANTS`] for this schema and role, whatever their names are.
pub fn grants(schema: &str, role: &str) -> String {
    let quoted = |name: &str| name.replace('"', "\"\"");
    let (schema, role) = (quoted(schema), quoted(role));
    let parts: Vec<_> =
        GRANTS.split("\"ROLE\"").map(|part| part.replace("SCHEMA\"", &format!("{schema}\""))).collect();
    parts.join(&format!("\"{role}\""))
}

/// Each entry leads from the schema of its index to the next one. Entries are never changed once they were released.
pub(crate) const MIGRATIONS: [&str; 1] = [TABLES];

/// The newest schema.
pub(crate) const VERSION: i32 = MIGRATIONS.len() as i32;

/// Held while the tables are looked at or changed: "lnr" and a number of ours.
pub(crate) const LOCK: &str = "SELECT pg_advisory_xact_lock(7106162, 1)";

/// Whether the tables are there. `to_regclass` would say what this session has known before it waited for the lock.
pub(crate) const EXISTS: &str = "SELECT EXISTS(
  SELECT 1 FROM pg_class WHERE relname = 'liner_schema' AND relkind = 'r' AND pg_table_is_visible(oid))";

/// Names and columns that operators know come first in their tables; what follows them is the store's own. A table that
/// liner_broker made gets those columns. All of it can be run again: who has dropped a table drops `liner_schema` too, and it comes back.
///
/// The function of the trigger is run as the tables' owner, wherever the tables are: who may write into `topic_addr` need not know of it.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS topic_addr(
  topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY(topic, addr));
CREATE INDEX IF NOT EXISTS topic_addr_addr ON topic_addr(addr);
CREATE TABLE IF NOT EXISTS topic_key(topic TEXT PRIMARY KEY, k INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS conn_key_map(composite TEXT PRIMARY KEY, connection_key INTEGER NOT NULL UNIQUE);
ALTER TABLE conn_key_map
  ADD COLUMN IF NOT EXISTS owner TEXT NOT NULL DEFAULT '',
  ADD COLUMN IF NOT EXISTS kind SMALLINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS name TEXT NOT NULL DEFAULT '',
  ADD COLUMN IF NOT EXISTS epoch BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS predecessor_epoch BIGINT,
  ADD COLUMN IF NOT EXISTS predecessor_old_first BIGINT,
  ADD COLUMN IF NOT EXISTS predecessor_count BIGINT,
  ADD COLUMN IF NOT EXISTS trimmed BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS dropped_through BIGINT,
  ADD COLUMN IF NOT EXISTS dropped_reason SMALLINT,
  ADD COLUMN IF NOT EXISTS last BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS reserved BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS shift BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS stored_epoch BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS suspect BOOLEAN NOT NULL DEFAULT FALSE,
  ADD COLUMN IF NOT EXISTS topics BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS crc BIGINT NOT NULL DEFAULT 0;
ALTER TABLE conn_key_map SET (fillfactor = 70);
CREATE INDEX IF NOT EXISTS conn_key_map_owner ON conn_key_map(owner);
CREATE TABLE IF NOT EXISTS conn_messages(
  id BIGSERIAL PRIMARY KEY, connection_key INTEGER NOT NULL, payload BYTEA NOT NULL);
DO $$ DECLARE numbers text := pg_get_serial_sequence('conn_messages', 'id');
BEGIN IF numbers IS NOT NULL THEN EXECUTE 'ALTER SEQUENCE ' || numbers || ' AS BIGINT'; END IF; END $$;
ALTER TABLE conn_messages
  ALTER COLUMN id TYPE BIGINT,
  ADD COLUMN IF NOT EXISTS epoch BIGINT,
  ADD COLUMN IF NOT EXISTS number BIGINT,
  ADD COLUMN IF NOT EXISTS covers BIGINT,
  ADD COLUMN IF NOT EXISTS crc BIGINT,
  ADD COLUMN IF NOT EXISTS head BYTEA,
  ADD COLUMN IF NOT EXISTS composite TEXT,
  ADD COLUMN IF NOT EXISTS topic TEXT;
CREATE INDEX IF NOT EXISTS conn_messages_key_id ON conn_messages(connection_key, id);
CREATE INDEX IF NOT EXISTS conn_messages_key_number ON conn_messages(connection_key, number);
CREATE INDEX IF NOT EXISTS conn_messages_by_hand ON conn_messages(connection_key, id) WHERE epoch IS NULL;
CREATE TABLE IF NOT EXISTS conn_mess_number(connection_key INTEGER PRIMARY KEY, v BIGINT NOT NULL);
ALTER TABLE conn_mess_number ALTER COLUMN v TYPE BIGINT;
CREATE TABLE IF NOT EXISTS conn_sender(connection_key INTEGER PRIMARY KEY, sender_topic TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sender_listener(
  sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL, client_name TEXT NOT NULL,
  PRIMARY KEY(sender_key, addr));
ALTER TABLE sender_listener ADD COLUMN IF NOT EXISTS client_name TEXT NOT NULL DEFAULT '';
UPDATE sender_listener l SET client_name = a.client_name FROM topic_addr a
  WHERE l.client_name = '' AND a.topic = l.listener_topic AND a.addr = l.addr;
CREATE TABLE IF NOT EXISTS seq(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS liner_node(
  name TEXT PRIMARY KEY, token BIGINT NOT NULL, turn BIGINT NOT NULL, inbox BIGINT, class SMALLINT NOT NULL,
  clean BOOLEAN NOT NULL, instance BIGINT NOT NULL, system TEXT NOT NULL, started TEXT NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS liner_lease(name TEXT PRIMARY KEY, until TIMESTAMPTZ NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS liner_directory(id INTEGER PRIMARY KEY, version BIGINT NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS stream_topic(
  composite TEXT NOT NULL, number BIGINT NOT NULL, topic TEXT NOT NULL, crc BIGINT NOT NULL,
  PRIMARY KEY(composite, number));
CREATE TABLE IF NOT EXISTS inbound_cursor(
  owner TEXT NOT NULL, peer TEXT NOT NULL, epoch BIGINT NOT NULL, through BIGINT NOT NULL, crc BIGINT NOT NULL,
  PRIMARY KEY(owner, peer)) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS dead_letters(
  id BIGSERIAL PRIMARY KEY, owner TEXT NOT NULL, peer TEXT NOT NULL, topic TEXT NOT NULL,
  reason SMALLINT NOT NULL, crc BIGINT NOT NULL, record BYTEA NOT NULL);
CREATE INDEX IF NOT EXISTS dead_letters_owner ON dead_letters(owner, id);
CREATE TABLE IF NOT EXISTS inbox(
  id BIGSERIAL PRIMARY KEY, owner TEXT NOT NULL, sender TEXT NOT NULL, epoch BIGINT NOT NULL, number BIGINT NOT NULL,
  topic TEXT NOT NULL, mode SMALLINT NOT NULL, maybe_redelivered BOOLEAN NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
  bytes BIGINT NOT NULL, crc BIGINT NOT NULL, payload BYTEA NOT NULL);
CREATE INDEX IF NOT EXISTS inbox_owner ON inbox(owner, id);
CREATE TABLE IF NOT EXISTS quarantine(
  id BIGSERIAL PRIMARY KEY, connection_key INTEGER, epoch BIGINT, first BIGINT, last BIGINT, crc BIGINT,
  composite TEXT, bytes BYTEA);

CREATE OR REPLACE FUNCTION liner_directory_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('INSERT INTO %I.liner_directory AS d(id, version) VALUES(1, 1)
    ON CONFLICT(id) DO UPDATE SET version = d.version + 1', TG_TABLE_SCHEMA);
  PERFORM pg_notify('lnr_directory', '');
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS liner_directory_changed ON topic_addr;
CREATE TRIGGER liner_directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON topic_addr
  FOR EACH STATEMENT EXECUTE FUNCTION liner_directory_changed();

CREATE TABLE IF NOT EXISTS liner_schema(id INTEGER PRIMARY KEY CHECK(id = 1), version INTEGER NOT NULL);
INSERT INTO liner_schema VALUES(1, 0) ON CONFLICT DO NOTHING;
";

/// Brings the tables to the newest schema. Says whether there were none. Of many that do this at the same time one does it.
pub(crate) fn upgrade(link: &Link, url: &Url) -> Result<bool, OpenError> {
    let reading = doing("look for the tables");
    if let Some(found) = find(link).map_err(&reading)?
        && judge(found)?
    {
        return Ok(false);
    }
    link.batch(&begin_patiently(url)).map_err(&reading)?;
    let upgraded = upgrade_within(link, url);
    let end = if upgraded.is_ok() { "COMMIT" } else { "ROLLBACK" };
    link.batch(end).map_err(doing("make the tables"))?;
    upgraded
}

fn upgrade_within(link: &Link, url: &Url) -> Result<bool, OpenError> {
    let making = doing("make the tables");
    link.batch(LOCK).map_err(&making)?;
    let found = find(link).map_err(&making)?;
    let was = found.unwrap_or(0);
    if judge(was)? {
        return Ok(false);
    }
    // Whoever does the same is waited for. Others who use the tables must not wait for long behind this.
    let locks = format!("SET LOCAL lock_timeout = {}", url.lock_timeout().as_millis());
    link.batch(&locks).map_err(&making)?;
    for migration in MIGRATIONS.get(usize::try_from(was).unwrap_or(0)..).unwrap_or_default() {
        link.batch(migration).map_err(&making)?;
    }
    let version = format!("UPDATE liner_schema SET version = {VERSION}");
    link.batch(&version).map_err(&making)?;
    Ok(found.is_none())
}

/// The number of the schema, if there is one.
pub(crate) fn find(link: &Link) -> Result<Option<i32>, Failure> {
    let there = link.query(EXISTS, &[])?;
    if !there.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(None);
    }
    let rows = link.query("SELECT version FROM liner_schema", &[])?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Whether it is the newest one.
const fn judge(found: i32) -> Result<bool, OpenError> {
    if found > VERSION {
        return Err(OpenError::NewerSchema { found, known: VERSION });
    }
    Ok(found == VERSION)
}
