//! A node writes a row for each message.

use std::time::{Duration, Instant};

use liner::postgres::{Options, PostgresStore, Url};
use liner_tests::servers::Postgres;
use postgres::{Client, NoTls};

#[derive(Default)]
struct Columns {
    key: Vec<i32>,
    payload: Vec<Vec<u8>>,
    epoch: Vec<i64>,
    number: Vec<i64>,
    covers: Vec<Option<i64>>,
    crc: Vec<i64>,
    head: Vec<Vec<u8>>,
    composite: Vec<String>,
}

pub(crate) fn insert(server: &Postgres, batch: usize, count: u64) -> Duration {
    let mut read = Client::connect(&server.url(), NoTls).unwrap();
    let sql = "SELECT connection_key, payload, epoch, number, covers, crc, head, composite FROM conn_messages ORDER BY id";
    let rows = read.query(sql, &[]).unwrap();
    assert_eq!(rows.len() as u64, count);
    let batches: Vec<Columns> = rows
        .chunks(batch)
        .map(|rows| {
            let mut columns = Columns::default();
            for row in rows {
                columns.key.push(row.get(0));
                columns.payload.push(row.get(1));
                columns.epoch.push(row.get(2));
                columns.number.push(row.get(3));
                columns.covers.push(row.get(4));
                columns.crc.push(row.get(5));
                columns.head.push(row.get(6));
                columns.composite.push(row.get(7));
            }
            columns
        })
        .collect();
    read.batch_execute("DROP DATABASE IF EXISTS bare").unwrap();
    read.batch_execute("CREATE DATABASE bare").unwrap();
    let url = server.url().replace("/postgres?", "/bare?");
    let url = url.strip_suffix("/postgres").map_or(url.clone(), |front| format!("{front}/bare"));
    let parsed: Url = url.parse().unwrap();
    drop(PostgresStore::open(&parsed, &Options { name: "bare".into() }).unwrap());
    let mut write = Client::connect(&url, NoTls).unwrap();
    let sql = "INSERT INTO conn_messages(connection_key, payload, epoch, number, covers, crc, head, composite)
        SELECT * FROM unnest($1::int[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::text[])";
    let statement = write.prepare(sql).unwrap();
    let began = Instant::now();
    for Columns { key, payload, epoch, number, covers, crc, head, composite } in &batches {
        write.execute(&statement, &[key, payload, epoch, number, covers, crc, head, composite]).unwrap();
    }
    began.elapsed()
}

pub(crate) fn left(server: &Postgres) -> String {
    let count = |table: &str| {
        let rows = server.query(&format!("SELECT count(*) FROM {table}")).unwrap();
        rows.into_iter().flatten().flatten().next().unwrap_or_default()
    };
    format!("conn_messages {}, dead_letters {}", count("conn_messages"), count("dead_letters"))
}
