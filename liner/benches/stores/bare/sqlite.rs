//! A node writes segments, each with many messages: those are inserted, in as many bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use liner::Class;
use liner::sqlite::{Options, SqliteStore};
use rusqlite::{Connection, params};

type Segment = (i64, i64, i64, i64, i64, i64, String, Vec<u8>);

pub(crate) fn insert(folder: &Path, class: Class, batch: usize, count: u64) -> Duration {
    let read = Connection::open(folder.join("liner.db")).unwrap();
    let sql = "SELECT connection_key, epoch, first, last, messages, crc, composite, records FROM segments ORDER BY id";
    let mut statement = read.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
            row.get(5)?,
            row.get(6)?,
            row.get(7)?,
        ))
    });
    let segments: Vec<Segment> = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(segments.iter().map(|segment| segment.4).sum::<i64>().unsigned_abs(), count);
    let fresh = tempfile::tempdir_in(folder).unwrap();
    let path = fresh.path().join("bare.db");
    let options =
        Options { name: "bare".into(), durability: class, limit_bytes: None, boot_id: "bench".into() };
    drop(SqliteStore::open(&path, &options).unwrap());
    let mut write = Connection::open(&path).unwrap();
    let synchronous = if class == Class::Power { "FULL" } else { "NORMAL" };
    write.pragma_update(None, "synchronous", synchronous).unwrap();
    let began = Instant::now();
    let mut left = segments.as_slice();
    while !left.is_empty() {
        let transaction = write.transaction().unwrap();
        let sql =
            "INSERT INTO segments(connection_key, epoch, first, last, messages, crc, composite, records)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let mut statement = transaction.prepare_cached(sql).unwrap();
        let mut messages = 0;
        while let ([(key, epoch, first, last, of, crc, composite, records), rest @ ..], true) =
            (left, messages < batch as i64)
        {
            statement.execute(params![key, epoch, first, last, of, crc, composite, records]).unwrap();
            (left, messages) = (rest, messages + of);
        }
        drop(statement);
        transaction.commit().unwrap();
    }
    began.elapsed()
}

pub(crate) fn left(folder: &Path) -> String {
    let file = Connection::open(folder.join("liner.db")).unwrap();
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        file.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    format!("conn_messages {}, segments {}", count("conn_messages"), count("segments"))
}
