//! What `docs/stores.md` says of SQLite: each query prints what the page says. The tests of the other stores do the same with theirs.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::Path;

use liner_proto::effect::Recovered;
use liner_proto::id::Class;
use liner_proto::store::Store as _;
use liner_store_sqlite::{Options, SqliteStore};
use liner_tests::page::{blocks, fill};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection};

const PAGE: &str = include_str!("../../docs/stores.md");

fn open(path: &Path, name: &str) -> SqliteStore {
    let (name, boot_id) = (name.to_owned(), "this run".to_owned());
    let options = Options { name, durability: Class::Power, limit_bytes: None, boot_id };
    SqliteStore::open(path, &options).expect("the store opens")
}

/// What `sqlite3` prints for some statements.
fn printed(path: &Path, statements: &str) -> String {
    let conn = Connection::open(path).expect("it opens");
    let (mut lines, mut batch) = (String::new(), Batch::new(&conn, statements));
    while let Some(mut statement) = batch.next().expect("it is a statement") {
        let columns = statement.column_count();
        let mut rows = statement.query([]).expect("it is asked");
        while let Some(row) = rows.next().expect("it is executed") {
            let values = (0..columns).map(|column| match row.get_ref(column).expect("a column") {
                ValueRef::Null => String::new(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            });
            lines.push_str(&values.collect::<Vec<_>>().join("|"));
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn every_query_of_the_page_prints_what_the_page_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.db");
    fill(&mut open(&path, "gateway"));
    let (mut asked, mut starts) = (0, 0);
    for block in blocks(PAGE) {
        if block.is("sql") || block.is("sql sqlite") {
            assert_eq!(printed(&path, &block.content), block.prints, "{}", block.content);
            asked += 1;
        } else if block.is("sh start") {
            drop(open(&path, "gateway"));
            starts += 1;
        }
    }
    assert!(asked >= 15 && starts >= 2, "{asked} blocks and {starts} starts were found");
    // The last block of all has said that the file went back in time.
    let mut regressed = None;
    let mut store = open(&path, "gateway");
    let recovered = store.recover(&mut |fact| {
        if let Recovered::Node { regressed: said, .. } = fact {
            regressed = Some(said);
        }
    });
    assert_eq!((recovered, regressed), (Ok(()), Some(true)));
}

/// What a block is says who runs it. Those of `setup` make servers and certificates, those of `conf` are files.
#[test]
fn somebody_knows_what_each_block_is() {
    let known = [
        "sql",
        "sql sqlite",
        "sql postgres",
        "sql grants",
        "sql setup",
        "sh",
        "sh redis",
        "sh start",
        "sh setup",
        "conf",
        "conf acl",
    ];
    let found: BTreeSet<String> = blocks(PAGE).into_iter().map(|block| block.words.join(" ")).collect();
    assert_eq!(found, known.map(str::to_owned).into());
}
