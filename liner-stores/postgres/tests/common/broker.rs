//! Databases as liner_broker makes them.

use super::Database;

/// As liner_broker 1.4 makes them, and 1.3.2 and 1.3.3.
pub(crate) const OLD: &str = "
CREATE TABLE IF NOT EXISTS seq(id INTEGER PRIMARY KEY CHECK (id = 1), v INTEGER NOT NULL);
INSERT INTO seq(id, v) VALUES(1, 0) ON CONFLICT(id) DO NOTHING;
CREATE TABLE IF NOT EXISTS topic_addr(topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY(topic, addr));
CREATE TABLE IF NOT EXISTS sender_listener(sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL,
  client_name TEXT NOT NULL DEFAULT '', PRIMARY KEY(sender_key, addr));
CREATE TABLE IF NOT EXISTS conn_key_map(composite TEXT PRIMARY KEY, connection_key INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS topic_key(topic TEXT PRIMARY KEY, k INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS conn_sender(connection_key INTEGER PRIMARY KEY, sender_topic TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conn_mess_number(connection_key INTEGER PRIMARY KEY, v BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS conn_messages(id BIGSERIAL PRIMARY KEY, connection_key INTEGER NOT NULL, payload BYTEA NOT NULL);
CREATE INDEX IF NOT EXISTS idx_conn_messages_ck ON conn_messages(connection_key, id);";

/// 1.3.1 has one column less; 1.3.0 knew no PostgreSQL.
pub(crate) const WITHOUT_NAME: &str = "ALTER TABLE sender_listener DROP COLUMN client_name";

/// What its nodes have left there. `sensor` sends to `gateway` by two topics of its own.
pub(crate) const FILLED: &str = "
UPDATE seq SET v = 9;
INSERT INTO topic_addr VALUES('readings', '127.0.0.1:7', 'gateway'), ('alarms', '127.0.0.1:8', 'sensor');
INSERT INTO topic_key VALUES('readings', 1), ('alarms', 2), ('news', 7), ('__#internal_channel', 8);
INSERT INTO conn_key_map VALUES('sensor:alarms:gateway', 3), ('other:x:gateway', 4), ('sensor:second:gateway', 5), ('sensor:alarms:idle', 6);
INSERT INTO conn_sender VALUES(3, 'alarms'), (4, 'x'), (5, 'second'), (6, 'alarms');
INSERT INTO conn_mess_number VALUES(3, 17), (4, 9);
INSERT INTO sender_listener(sender_key, addr, listener_topic) VALUES('sensor:alarms', '127.0.0.1:7', 'readings');";

/// A message as that program stores it.
pub(crate) fn frame(number: u64, key: i32, topic: i32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    let mut frame = (len + 21).to_be_bytes().to_vec();
    frame.extend(number.to_be_bytes());
    frame.extend(key.to_be_bytes());
    frame.extend(topic.to_be_bytes());
    frame.push(flags);
    frame.extend(len.to_be_bytes());
    frame.extend(payload);
    frame
}

impl Database {
    /// A database of that program.
    pub(crate) fn old(sql: &[&str]) -> Self {
        let database = Self::new();
        database.run(OLD);
        sql.iter().for_each(|sql| database.run(sql));
        database
    }

    pub(crate) fn insert(&self, key: i32, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.run(&format!("INSERT INTO conn_messages(connection_key, payload) VALUES({key}, '\\x{hex}')"));
    }

    /// All rows of a query, a line a row.
    pub(crate) fn lines(&self, sql: &str) -> Vec<String> {
        let lines = self.one(&format!("SELECT string_agg(line, chr(10)) FROM ({sql}) AS lines"));
        lines.lines().map(str::to_owned).collect()
    }
}
