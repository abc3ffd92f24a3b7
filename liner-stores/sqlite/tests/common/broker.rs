//! Files as liner_broker makes them.

use std::path::Path;

use rusqlite::Connection;
use tempfile::{TempDir, tempdir};

/// As liner_broker 1.4 makes them, and 1.3.2 and 1.3.3.
pub(crate) const OLD: &str = "
CREATE TABLE IF NOT EXISTS seq (id INTEGER PRIMARY KEY CHECK (id = 1), v INTEGER NOT NULL);
INSERT OR IGNORE INTO seq (id, v) VALUES (1, 0);
CREATE TABLE IF NOT EXISTS topic_addr (topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY (topic, addr));
CREATE TABLE IF NOT EXISTS sender_listener (sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL,
  client_name TEXT NOT NULL DEFAULT '', PRIMARY KEY (sender_key, addr));
CREATE TABLE IF NOT EXISTS conn_key_map (composite TEXT PRIMARY KEY, connection_key INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS topic_key (topic TEXT PRIMARY KEY, k INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS conn_sender (connection_key INTEGER PRIMARY KEY, sender_topic TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conn_mess_number (connection_key INTEGER PRIMARY KEY, v INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS conn_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, connection_key INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS idx_conn_messages_ck ON conn_messages(connection_key, id);";

/// 1.3.0 and 1.3.1 have one column less.
pub(crate) const WITHOUT_NAME: &str = "ALTER TABLE sender_listener DROP COLUMN client_name";

/// What its nodes have left there. `sensor` sends to `gateway` by two topics of its own.
pub(crate) const FILLED: &str = "
UPDATE seq SET v = 9;
INSERT INTO topic_addr VALUES('readings', '127.0.0.1:7', 'gateway'), ('alarms', '127.0.0.1:8', 'sensor');
INSERT INTO topic_key VALUES('readings', 1), ('alarms', 2), ('news', 7), ('__#internal_channel', 8);
INSERT INTO conn_key_map VALUES('sensor:alarms:gateway', 3), ('other:x:gateway', 4), ('sensor:second:gateway', 5), ('sensor:alarms:idle', 6);
INSERT INTO conn_sender VALUES(3, 'alarms'), (4, 'x'), (5, 'second');
INSERT INTO conn_mess_number VALUES(3, 17), (4, 0);
INSERT INTO sender_listener(sender_key, addr, listener_topic) VALUES('sensor:alarms', '127.0.0.1:7', 'readings');";

pub(crate) fn shell(folder: &Path) -> Connection {
    Connection::open(folder.join("liner.db")).expect("it opens")
}

/// A file of that program.
pub(crate) fn old_file(sql: &[&str]) -> TempDir {
    let folder = tempdir().expect("a folder");
    let conn = shell(folder.path());
    conn.pragma_update(None, "journal_mode", "WAL").expect("it is set");
    conn.execute_batch(OLD).expect("it is executed");
    for sql in sql {
        conn.execute_batch(sql).expect("it is executed");
    }
    folder
}

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

pub(crate) fn insert(folder: &Path, key: i64, bytes: &[u8]) {
    let sql = "INSERT INTO conn_messages(connection_key, payload) VALUES(?1, ?2)";
    shell(folder).execute(sql, (key, bytes)).expect("it is inserted");
}

/// Inserts a message many times.
pub(crate) fn fill(folder: &Path, messages: i64, bytes: &[u8]) {
    let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
      INSERT INTO conn_messages(connection_key, payload) SELECT 3, ?2 FROM n";
    shell(folder).execute(sql, (messages, bytes)).expect("they are inserted");
}

/// All rows of a query, a line a row.
pub(crate) fn lines(conn: &Connection, sql: &str) -> String {
    let sql = format!("SELECT coalesce(group_concat(line, char(10)), '') FROM ({sql})");
    conn.query_row(&sql, [], |row| row.get(0)).expect("a row")
}

/// Everything that the file holds.
pub(crate) fn dump(conn: &Connection) -> String {
    let tables = "SELECT name AS line FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let schema = "SELECT type || name || coalesce(sql, '') AS line FROM sqlite_schema ORDER BY type, name";
    let mut dump = lines(conn, schema);
    for table in lines(conn, tables).lines() {
        let columns = lines(
            conn,
            &format!("SELECT 'quote(\"' || name || '\")' AS line FROM pragma_table_xinfo('{table}')"),
        );
        let row = columns.replace('\n', " || ' ' || ");
        dump.push_str(&format!("\n{table}\n"));
        dump.push_str(&lines(conn, &format!("SELECT {row} AS line FROM {table} ORDER BY 1")));
    }
    dump
}
